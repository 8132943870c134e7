"""Calibration: probabilities, threshold, abstention and likelihood ratios, against oracles."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression, minimize_scalar
from scipy.special import expit, logit
from scipy.stats import binom, norm
from sklearn.calibration import _SigmoidCalibration

from detectors.calibrate import Calibration, Labels, Method, Scores, calibrate
from facekit.core.errors import FacekitError

METHODS: tuple[Method, ...] = ("platt", "temperature", "isotonic")


def faces(
    seed: int, untouched: int, generated: int, apart: float = 2.0, scale: float = 1.0
) -> tuple[Scores, Labels]:
    """Two normal distributions of deviation ``scale``, mixed."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat([0, 1], [untouched, generated]))
    return scale * (random.normal(size=len(labels)) + apart * labels), labels


split = st.tuples(
    st.integers(0, 10**6),
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from([0.0, 0.5, 3.0, 50.0]),
    st.sampled_from([1e-6, 1.0, 1e4]),
)


# Probabilities


def test_platt_is_scikit_learns() -> None:
    logits, labels = faces(1, 300, 500)
    made = calibrate(logits, labels)
    peer = _SigmoidCalibration().fit(logits, labels)
    np.testing.assert_allclose(made.probability(logits), peer.predict(logits), atol=1e-4)


def test_temperature_is_the_best_of_all() -> None:
    logits, labels = faces(2, 200, 200, apart=0.7)
    # Platt's targets: the class frequencies after one more face of each class.
    targets = np.where(labels == 1, 201 / 202, 1 / 202)

    def loss(temperature: float) -> float:
        z = logits / temperature
        return float(np.mean(np.logaddexp(0, z) - targets * z))

    best = minimize_scalar(loss, bounds=(0.01, 100), method="bounded", options={"xatol": 1e-8})
    made = calibrate(logits, labels, method="temperature")
    assert made.bias == 0
    assert made.scale == pytest.approx(1 / best.x, rel=1e-3)


def test_isotonic_is_scipys() -> None:
    logits, labels = faces(3, 150, 120)
    made = calibrate(logits, labels, method="isotonic")
    order = np.argsort(logits)
    # Laplace's rule: a face of each class more at either end.
    padded = np.concatenate([[1, 0], labels[order], [1, 0]])
    steps = isotonic_regression(padded.astype(float)).x[2:-2]
    for height in np.unique(steps.round(9)):
        middle = logits[order][np.isclose(steps, height)].mean()
        assert made.probability(np.array([middle])) == pytest.approx([height])
    assert len(made.knots) == len(np.unique(steps.round(9)))


def test_probabilities_mean_what_they_say() -> None:
    """Logits a hundred times too sure, and skewed, are put right by the isotonic method."""
    random = np.random.default_rng(4)
    truth = random.uniform(size=40_000)
    labels = (random.uniform(size=len(truth)) < truth).astype(np.int64)
    logits = 100 * truth**3
    half = len(truth) // 2
    made = calibrate(logits[:half], labels[:half], method="isotonic")
    error = np.abs(made.probability(logits[half:]) - truth[half:])
    assert error.mean() < 0.02
    platt = calibrate(logits[:half], labels[:half])
    assert np.abs(platt.probability(logits[half:]) - truth[half:]).mean() > 0.05


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40, deadline=None)
@given(split)
def test_whatever_the_faces_the_order_is_kept(method: Method, given_split: Any) -> None:
    logits, labels = faces(*given_split)
    made = calibrate(logits, labels, method=method)
    assert made.scale > 0
    odds = made.log_odds(np.sort(logits))
    gaps = np.diff(np.sort(logits))
    # Floating point cannot tell all neighbours apart, but never turns them round.
    assert (np.diff(odds) >= -1e-9 * np.abs(odds[1:])).all()
    assert len(np.unique(odds)) > 0.9 * len(np.unique(np.sort(logits)[np.append(gaps, 1) > 0]))
    probability = made.probability(logits)
    assert np.isfinite(probability).all() and (0 <= probability).all() and (probability <= 1).all()
    far = made.log_odds(np.array([logits.min() - 1e3, logits.max() + 1e3]))
    assert far[0] <= odds[0] and odds[-1] <= far[1] and np.isfinite(far).all()


# The threshold


@settings(max_examples=60, deadline=None)
@given(split, st.sampled_from(METHODS), st.sampled_from([0.0, 0.01, 0.1, 0.5]))
def test_threshold_keeps_the_false_positives(given_split: Any, method: Method, fpr: float) -> None:
    logits, labels = faces(*given_split)
    made = calibrate(logits, labels, method=method, fpr=fpr)
    above = made.probability(logits[labels == 0]) > made.threshold
    assert above.mean() <= fpr
    count = int(np.sum(labels == 0))
    assert made.fpr == (math.floor(fpr * count) + 1) / (count + 1)


def test_a_new_face_lies_above_the_threshold_as_often_as_promised() -> None:
    random = np.random.default_rng(5)
    hits = []
    for _ in range(200):
        untouched = random.normal(size=41)
        logits = np.append(untouched[:40], random.normal(3, 1, 5))
        made = calibrate(logits, np.repeat([0, 1], [40, 5]), fpr=0.1)
        hits.append(made.probability(untouched[40:])[0] > made.threshold)
    assert made.fpr == pytest.approx(5 / 41)
    assert sum(hits) <= binom.ppf(0.9999, 200, made.fpr)


def test_a_gap_is_shared_by_both_classes() -> None:
    made = calibrate(np.array([-3.0, -1.0, 2.0, 3.0]), np.array([0, 0, 1, 1]))
    assert made.probability(np.array([0.5])) == pytest.approx([made.threshold])


# Abstention


def test_frames_of_few_people_keep_the_promises_about_only() -> None:
    """What the documents say of 24 people a class with 40 frames each is so."""
    people, frames = 24, 40
    labels = np.repeat([0, 1], people * frames)
    flagged, covered = [], []
    for seed in range(200):
        random = np.random.default_rng(seed)
        own = np.repeat(random.normal(size=2 * people), frames)
        made = calibrate(own + random.normal(size=len(labels)) + 4 * labels, labels)
        at = (logit(made.threshold) - made.bias) / made.scale
        # Of untouched frames of new people, exactly.
        flagged.append(norm.sf(at, scale=np.sqrt(2)))
        covered.append(norm.cdf(made.quantiles[0], scale=np.sqrt(2)))
        assert made.fpr == pytest.approx(0.0104, abs=1e-4)
    assert np.mean(flagged) == pytest.approx(0.014, abs=0.002)
    assert np.mean(covered) == pytest.approx(0.895, abs=0.01)
    assert np.quantile(covered, 0.1) == pytest.approx(0.845, abs=0.015)


@settings(max_examples=6, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([5, 9, 40, 99]),
    st.sampled_from([0.8, 0.9, 0.95]),
    st.floats(0, 4),
)
def test_coverage_is_kept(seed: int, count: int, coverage: float, apart: float) -> None:
    """Over many splits: at least what was promised, and at most 1 / (n + 1) more."""
    random = np.random.default_rng(seed)
    draws = 150
    like = np.zeros(2)
    wrong = np.zeros(2)
    labels = np.repeat([0, 1], count)
    for _ in range(draws):
        made = calibrate(random.normal(size=2 * count) + apart * labels, labels, coverage=coverage)
        new = random.normal([0, apart])
        like += np.diag(made.sets(new))
        wrong += made.prediction(new) == [1, 0]
    for counted in like:
        low, high = coverage, min(1, coverage + 1 / (count + 1))
        assert binom.ppf(1e-6, draws, low) <= counted <= binom.ppf(1 - 1e-6, draws, high)
    assert (wrong <= binom.ppf(1 - 1e-6, draws, 1 - coverage)).all()


def test_abstains_where_both_classes_are_likely() -> None:
    logits, labels = faces(6, 2000, 2000, apart=1.0)
    made = calibrate(logits, labels, coverage=0.9)
    # The tenth from the top of the untouched, and from the bottom of the generated.
    np.testing.assert_allclose(made.quantiles, [1.2816, 1 - 1.2816], atol=0.1)
    assert made.prediction(np.array([-3.0, 0.5, 4.0])).tolist() == [0, -1, 1]
    assert made.prediction(np.array([])).shape == (0,)


def test_no_abstention_where_the_classes_are_apart() -> None:
    logits, labels = faces(7, 200, 200, apart=12.0)
    made = calibrate(logits, labels)
    between = np.linspace(made.quantiles[0] + 1e-6, made.quantiles[1] - 1e-6, 9)
    assert not made.sets(between).any()
    verdicts = made.prediction(between)
    assert (verdicts == (made.probability(between) > made.threshold)).all()
    assert (made.prediction(logits) == labels).mean() > 0.98


def test_too_few_faces_promise_nothing() -> None:
    made = calibrate(np.arange(8.0), np.repeat([0, 1], 4), coverage=0.9)
    assert made.quantiles == (math.inf, -math.inf)
    assert (made.prediction(np.array([-9.0, 99.0])) == -1).all()
    # Nine are just enough, whatever floating point makes of (9 + 1) · (1 - 0.9).
    enough = calibrate(np.arange(18.0), np.repeat([0, 1], 9), coverage=0.9)
    assert enough.quantiles == (8.0, 9.0)


# Likelihood ratios


def test_likelihood_ratios_are_those_of_the_distributions() -> None:
    """N(1, 1) against N(-1, 1): ln LR = 2x, whatever the mixture."""
    for untouched, generated in ((20_000, 20_000), (30_000, 3_000)):
        logits, labels = faces(8, untouched, generated, apart=2.0)
        made = calibrate(logits - 1, labels)
        x = np.linspace(-1.5, 1.5, 7)
        np.testing.assert_allclose(made.likelihood_ratio(x) * math.log(10), 2 * x, atol=0.15)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40, deadline=None)
@given(split)
def test_likelihood_ratios_are_bounded(method: Method, given_split: Any) -> None:
    logits, labels = faces(*given_split)
    made = calibrate(logits, labels, method=method)
    ratios = made.likelihood_ratio(np.append(logits, [-1e9, 1e9]))
    untouched, generated = (int(np.sum(labels == label)) for label in (0, 1))
    assert ratios.max() <= math.log10(untouched + 1) + 1e-9
    assert ratios.min() >= -math.log10(generated + 1) - 1e-9
    assert made.bounds[0] <= 0 <= made.bounds[1]


def test_the_bounds_are_where_ratios_cease_to_pay() -> None:
    """The definition itself, tried at every threshold of a fine grid."""
    logits, labels = faces(9, 80, 120, apart=1.5)
    logits[np.argmax(logits)] += 3  # one that is far too sure
    labels[np.argmax(logits)] = 0
    made = calibrate(logits, labels)
    ratios = (made.log_odds(logits) - made.prior) / math.log(10)

    def pays(t: float, ratios: Scores, labels: Labels) -> bool:
        alarms = (np.sum(ratios[labels == 0] >= t) + 1) / (np.sum(labels == 0) + 1)
        misses = (np.sum(ratios[labels == 1] < t) + 1) / (np.sum(labels == 1) + 1)
        return bool(10**t * alarms + misses <= 1)

    grid = np.arange(1e-4, 3, 1e-3)
    highest = grid[np.argmin([pays(t, ratios, labels) for t in grid])]
    assert made.bounds[1] == pytest.approx(highest, abs=2e-3)
    lowest = grid[np.argmin([pays(t, -ratios, 1 - labels) for t in grid])]
    assert made.bounds[0] == pytest.approx(-lowest, abs=2e-3)
    assert 0 < made.bounds[1] < math.log10(81)


def test_a_detector_that_knows_nothing_says_nothing() -> None:
    logits, labels = faces(10, 400, 400, apart=-1.0)
    for method in METHODS:
        made = calibrate(logits, labels, method=method)
        assert np.abs(made.likelihood_ratio(logits)).max() < 0.05


# Files


@pytest.mark.parametrize("method", METHODS)
def test_a_state_is_json_and_comes_back(method: Method) -> None:
    for logits, labels in (faces(11, 50, 60), faces(12, 3, 3)):
        made = calibrate(logits, labels, method=method)
        text = json.dumps(made.to_state(), allow_nan=False)
        assert Calibration.from_state(json.loads(text)) == made


def test_old_files_load() -> None:
    old = Calibration.from_state({"scale": 2.0, "bias": -1.0, "threshold": 0.7})
    x = np.array([-1.0, 0.5, 2.0])
    np.testing.assert_allclose(old.probability(x), expit(2 * x - 1))
    assert old == Calibration(2.0, -1.0, 0.7)
    # They promise nothing: neither verdicts nor likelihood ratios follow from them.
    assert (old.prediction(x) == -1).all()
    assert (old.likelihood_ratio(x) == 0).all()


def test_what_the_split_was_like_is_kept() -> None:
    made = calibrate(*faces(13, 30, 30))
    made = replace(made, ranges={"blur": (0.0, 2.5), "compression": (0.0, 0.4)})
    assert made.faces == 60
    assert Calibration.from_state(json.loads(json.dumps(made.to_state()))) == made


def test_damaged_states() -> None:
    good = calibrate(*faces(13, 30, 30), method="isotonic").to_state()
    for change, message in (
        ({"version": 3}, "update facekit"),
        ({"version": "2"}, "update facekit"),
        ({"scale": -1.0}, "scale must be > 0"),
        ({"scale": math.nan}, "finite"),
        ({"bias": "much"}, "damaged"),
        ({"threshold": 1.5}, r"threshold must be in 0…1"),
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"method": "platt"}, "isotonic"),
        ({"knots": [[0.0, 1.0], [0.0, 2.0]]}, "knots must rise"),
        ({"knots": [1.0]}, "damaged"),
        ({"quantiles": [1.0]}, "damaged"),
        ({"quantiles": [math.nan, 0.0]}, "quantiles"),
        ({"bounds": [1.0, 2.0]}, "both sides of 0"),
        ({"ranges": [1.0, 2.0]}, "damaged"),
        ({"ranges": {"blur": [0.0, math.nan]}}, "finite"),
        ({"faces": "many"}, "damaged"),
    ):
        with pytest.raises(FacekitError, match=message):
            Calibration.from_state({**good, **change})
    for key in good.keys() - {"version", "ranges", "faces"}:
        with pytest.raises(FacekitError, match="damaged"):
            Calibration.from_state({k: v for k, v in good.items() if k != key})
    for state in ({}, {"scale": 1.0}, []):
        with pytest.raises(FacekitError, match="calibration"):
            Calibration.from_state(state)  # type: ignore[arg-type]


def test_bad_calls() -> None:
    logits, labels = faces(14, 5, 5)
    for change, message in (
        ({"labels": np.zeros(10, np.int64)}, "10 untouched and 0 generated"),
        ({"labels": np.ones(10, np.int64)}, "0 untouched and 10 generated"),
        ({"labels": np.arange(10)}, "labels must be 0"),
        ({"labels": labels[:9]}, "a label for each logit"),
        ({"logits": np.append(logits[:9], np.nan)}, "not numbers"),
        ({"logits": np.append(logits[:9], np.inf)}, "not numbers"),
        ({"method": "magic"}, "allowed: platt, temperature, isotonic"),
        ({"fpr": 1.0}, r"fpr must be in \[0, 1\)"),
        ({"coverage": 1.0}, r"coverage in \(0, 1\)"),
    ):
        arguments: dict[str, Any] = {"logits": logits, "labels": labels, **change}
        with pytest.raises(FacekitError, match=message):
            calibrate(arguments.pop("logits"), arguments.pop("labels"), **arguments)


def test_equal_logits_are_no_evidence() -> None:
    for method in METHODS:
        made = calibrate(np.full(40, 3.0), np.repeat([0, 1], [10, 30]), method=method)
        assert made.likelihood_ratio(np.array([3.0])) == pytest.approx([0.0], abs=0.1)
        if method != "temperature":
            assert made.probability(np.array([3.0])) == pytest.approx([0.75], abs=0.05)
        assert made.prediction(np.array([3.0])).tolist() == [-1]
        assert replace(made, threshold=0.9).threshold == 0.9
