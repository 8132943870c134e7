"""Intervals of series that hang together, against known means; ENFSI's words, by their table."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import expit, logit

from detectors.calibrate import Calibration
from detectors.uncertainty import (
    FEWEST,
    NO_SUPPORT,
    _as_seen,
    _shortfall,
    in_words,
    interval,
    likelihood,
)

MEAN, SPREAD = 0.5, 0.08


def series(count, correlation, many, seed=0):
    """Autoregressive series of order 1 about a known mean, (many, count)."""
    random = np.random.default_rng(seed)
    steps = random.normal(size=(count, many)) * np.sqrt(1 - correlation**2)
    steps[0] /= np.sqrt(1 - correlation**2)
    for i in range(1, count):
        steps[i] += correlation * steps[i - 1]
    return MEAN + SPREAD * steps.T


def times(count, every=0.2):
    return np.arange(count) * every


def coverage(count, correlation, many=300, whole=None):
    """Of the mean of ``count`` scores amid ``whole``: how often the true one is in; the width."""
    whole = whole or count
    start = (whole - count) // 2
    found = np.array(
        [
            interval(one, times(whole), slice(start, start + count))
            for one in series(whole, correlation, many)
        ]
    )
    return np.mean((found[:, 0] <= MEAN) & (found[:, 1] >= MEAN)), np.mean(np.ptp(found, axis=1))


@pytest.mark.parametrize(
    ("count", "whole", "correlation", "least", "widest"),
    # What the docstring's table promises, less three standard errors of 200 series; and how many
    # times as wide as one that knows correlation and spread.
    [(10, 10, 0.0, 0.96, 3.2), (10, 10, 0.8, 0.84, 2.8), (10, 90, 0.0, 0.93, 1.5),
     (10, 90, 0.6, 0.90, 2.0), (10, 90, 0.8, 0.89, 2.1), (100, 100, 0.0, 0.95, 1.4),
     (300, 300, 0.8, 0.90, 1.3)],
)  # fmt: skip
def test_intervals_hold_the_true_mean_as_often_as_is_documented(
    count, whole, correlation, least, widest
):
    held, width = coverage(count, correlation, 200, whole)
    assert held >= least
    assert width < widest * 2 * 1.96 * SPREAD * np.sqrt(variance_of_mean(count, correlation))


def test_what_pieces_show_of_a_correlation_is_what_simulated_ones_show():
    """The oracle: 20,000 pieces of ten, each about its own mean."""
    pieces = series(10, 0.7, 20_000)
    apart = pieces - pieces.mean(axis=1, keepdims=True)
    seen = (apart[:, 1:] * apart[:, :-1]).mean() / (apart**2).mean()
    assert _as_seen(0.7, 10) == pytest.approx(seen, abs=0.01)


def test_levels_of_other_scenes_make_no_stretch_look_alike():
    """Scores that don't hang together, but lie higher in every other scene."""
    random = np.random.default_rng(0)
    levels = np.repeat([0.2, 0.7] * 5, 10)
    scores = levels + 0.02 * random.normal(size=100)
    low, high = interval(scores, times(100), slice(10, 20))
    assert low <= 0.7 <= high and high - low < 0.06


def variance_of_mean(count, correlation):
    """Of an autoregression of variance 1, by its whole covariance matrix."""
    lags = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    return float((np.float64(correlation) ** lags).mean())


@pytest.mark.parametrize(
    ("correlation", "count", "length"), [(0.0, 12, 1), (0.5, 12, 3), (0.9, 9, 3)]
)
def test_what_a_short_series_hides_is_what_simulated_ones_hide(correlation, count, length):
    """The oracle: the variance of the means of all blocks of many series, and the true one."""
    drawn = (series(count, correlation, 20_000) - MEAN) / SPREAD
    around = np.concatenate([drawn, drawn[:, : length - 1]], axis=1)
    blocks = np.lib.stride_tricks.sliding_window_view(around, length, axis=1).mean(axis=2)
    shown = blocks.var(axis=1).mean() * length / count
    expected = np.sqrt(variance_of_mean(count, correlation) / shown)
    assert _shortfall(correlation, count, length) == pytest.approx(expected, rel=0.02)


def test_drawing_frame_by_frame_would_be_far_too_sure():
    """The oracle: the standard error of a mean of independent scores, and of this series."""
    count, correlation = 200, 0.8
    held, width = coverage(count, correlation, 100)
    naive = 2 * 1.96 * SPREAD / np.sqrt(count)
    true = naive * np.sqrt((1 + correlation) / (1 - correlation))
    assert held > 0.85
    assert 0.8 * true < width < 1.6 * true and width > 2 * naive


def test_of_independent_scores_it_is_as_wide_as_theory_says():
    _, width = coverage(400, 0.0, 50)
    assert width == pytest.approx(2 * 1.96 * SPREAD / 20, rel=0.2)


def test_what_follows_an_absence_is_no_neighbour_of_what_went_before():
    """Pairs of alike frames, minutes apart from each other: half of all neighbours are none."""
    random = np.random.default_rng(0)
    levels = 0.5 + SPREAD * random.normal(size=60)
    scores = np.repeat(levels, 3) + 1e-3 * random.normal(size=180)
    together = np.arange(180) * 0.2
    apart = np.repeat(np.arange(60) * 60.0, 3) + np.tile([0, 0.2, 0.4], 60)
    close, far = interval(scores, together), interval(scores, apart)
    assert far[1] - far[0] > close[1] - close[0]


def test_a_stretch_of_scores_far_apart_amid_close_ones_has_a_wide_interval():
    """Pieces of six about it hold no neighbours: before and after it are five each."""
    at = np.cumsum([0.2] * 5 + [9.0] * 6 + [0.2] * 5)
    scores = 0.5 + SPREAD * np.random.default_rng(0).normal(size=16)
    low, high = interval(scores, at, slice(5, 11))
    assert low < scores[5:11].mean() < high
    plain = 1.96 * scores[5:11].std() / np.sqrt(6)
    assert high - low > 4 * plain


@given(
    arrays.arrays(np.float64, st.integers(FEWEST, 60), elements=st.floats(0, 1, width=16)),
)
@settings(max_examples=60, deadline=None)
def test_an_interval_is_about_the_mean_within_0_to_1_and_a_function_of_its_input(scores):
    at = times(len(scores))
    found = interval(scores, at)
    if np.ptp(scores) == 0:
        assert found is None
        return
    low, high = found
    assert 0 <= low <= scores.mean() + 1e-6 and scores.mean() - 1e-6 <= high <= 1
    assert interval(scores.tolist(), at.tolist()) == interval(scores, at, slice(len(scores)))
    assert interval(scores.tolist(), at.tolist()) == found


def test_there_is_none_of_a_few_scores_or_of_one_that_never_changes():
    assert interval([0.1, 0.9, 0.4, 0.2, 0.3], times(5)) is None
    assert interval([0.3] * 50, times(50)) is None
    assert interval([], []) is None


@pytest.mark.parametrize(
    ("scores", "at"),
    [
        ([0.1] * 9, times(8)),
        ([0.1, math.nan] * 4, times(8)),
        ([0.1] * 8, [math.inf] * 8),
        ([0.1] * 8, times(8)[::-1]),
    ],
)
def test_what_is_no_series_is_an_error(scores, at):
    with pytest.raises(ValueError):
        interval(scores, at)


# Likelihood ratios

WIDE = Calibration(1.0, 0.0, 0.7, bounds=(-9.0, 9.0))


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (1, NO_SUPPORT),
        (1.9, NO_SUPPORT),
        (2, "weak support for a generated face"),
        (9.9, "weak support for a generated face"),
        (10, "moderate support for a generated face"),
        (99, "moderate support for a generated face"),
        (100, "moderately strong support for a generated face"),
        (999, "moderately strong support for a generated face"),
        (1000, "strong support for a generated face"),
        (9990, "strong support for a generated face"),
        (10_000, "very strong support for a generated face"),
        (999_000, "very strong support for a generated face"),
        (1_000_000, "extremely strong support for a generated face"),
        (1 / 1.9, NO_SUPPORT),
        (1 / 2, "weak support against a generated face"),
        (1 / 500, "moderately strong support against a generated face"),
        (1 / 2_000_000, "extremely strong support against a generated face"),
    ],
)
def test_words_are_those_of_enfsi(ratio, words):
    assert in_words(math.log10(ratio)) == words
    # Even odds before: the odds after are the ratio itself.
    found = likelihood(WIDE, ratio / (1 + ratio))
    assert found.words == words and not found.bound
    assert found.log10 == pytest.approx(math.log10(ratio), abs=1e-4)


@given(st.floats(-8, 8))
def test_the_words_against_mirror_those_for(log10):
    swapped = in_words(abs(log10)).replace(" for ", " against ")
    assert in_words(-abs(log10)) == swapped


def test_a_ratio_is_the_odds_less_the_calibration_splits_own_as_the_calibration_says():
    calibration = Calibration(2.0, -1.0, 0.7, prior=math.log(3), bounds=(-1.2, 1.6))
    logits = np.linspace(-4, 4, 33)
    expected = calibration.likelihood_ratio(logits)
    found = [likelihood(calibration, p) for p in calibration.probability(logits)]
    assert [one.log10 for one in found] == pytest.approx(expected.tolist(), abs=1e-4)
    free = (calibration.log_odds(logits) - math.log(3)) / math.log(10)
    assert [one.bound for one in found] == ((free < -1.2) | (free > 1.6)).tolist()


@pytest.mark.parametrize(("probability", "log10"), [(0.0, -1.5), (1.0, 2.5), (1 - 1e-9, 2.5)])
def test_what_the_split_cannot_support_is_cut_and_the_report_says_so(probability, log10):
    found = likelihood(Calibration(1.0, 0.0, 0.7, bounds=(-1.5, 2.5)), probability)
    assert (found.log10, found.bound) == (log10, True)


def test_a_calibration_that_supports_nothing_says_nothing():
    found = likelihood(Calibration(1.0, 0.0, 0.7), 0.999)
    assert (found.log10, found.bound, found.words) == (0.0, True, NO_SUPPORT)


def test_many_frames_are_not_multiplied():
    """Ten frames that each say 3 : 1 say 3 : 1, not 3^10 : 1."""
    one = likelihood(WIDE, 0.75)
    assert likelihood(WIDE, float(np.mean([0.75] * 10))) == one
    assert likelihood(WIDE, float(expit(logit(0.75)))) == one


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_what_is_no_probability_is_an_error(value):
    with pytest.raises(ValueError):
        likelihood(WIDE, value)
