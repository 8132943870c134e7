"""How sure the score of a face through time is: an interval, and what it is worth in words.

*Intervals* are by the circular block bootstrap (Politis & Romano 1992, "A circular block-resampling
procedure for stationary data"): neighbouring frames are alike, and drawing them one by one would
make an interval look far too narrow. A block is as long as suits the mean of a series that forgets
as fast as this one does (Politis & White 2004, "Automatic block-length selection for the dependent
bootstrap", their rule for an autoregression of order 1), but never longer than a third of it.

Of few scores that hang together this shows too little, for three reasons, and each is mended. A few
blocks vary too little among themselves: the quantiles are moved away from the mean as far as
Student's t lies beyond the normal distribution (Hesterberg 2015, "What teachers should know about
the bootstrap", section 3.5), where blocks that overlap count for half as many again (Künsch 1989,
"The jackknife and the bootstrap for general stationary observations": the variance that they show
is two thirds as uncertain). A short stretch that drifts together hides how far off its mean may be:
by how much is known for an autoregression of a given correlation (:func:`_shortfall`), and the
quantiles are moved by that as well. And ten scores do not tell how they hang together: that is
taken from the whole time of the face, cut into pieces as long as the stretch, each about its own
mean, so that the levels of different scenes don't count; and it is taken to be 1.2 standard errors
higher than it looks, but no higher than 0.95.

How often an interval held the true mean in 1,000 simulated series of N scores in all and n in the
stretch (500 of 100), correlation being that of one score with the next, and how many times as wide
it was, in the mean, as one that knows the correlation and the spread:

===============  =========  =========  =========  =========  =========
correlation          0         0.3        0.6        0.8        0.9
===============  =========  =========  =========  =========  =========
n = 6, N = 6     0.99, 4.3  0.98, 4.2  0.95, 3.4  0.89, 2.4  0.84, 1.6
n = 10, N = 10   0.99, 2.6  0.97, 3.1  0.93, 3.0  0.90, 2.3  0.85, 1.6
n = 6, N = 30    0.97, 1.8  0.95, 2.2  0.94, 2.5  0.91, 2.1  0.86, 1.5
n = 10, N = 30   0.98, 1.5  0.97, 1.8  0.95, 2.3  0.92, 2.1  0.86, 1.5
n = 10, N = 90   0.97, 1.3  0.95, 1.4  0.95, 1.7  0.94, 1.8  0.90, 1.5
n = 10, N = 300  0.95, 1.2  0.95, 1.3  0.94, 1.4  0.94, 1.6  0.92, 1.5
n = N = 100      0.98, 1.2  0.96, 1.1  0.96, 1.1  0.94, 1.4  0.94, 1.5
===============  =========  =========  =========  =========  =========

So where a face is seen for a while, ten scores of it have an honest interval up to a correlation of
about 0.8. It is about what other frames of the same stretch would have given, and not about what
the detector does not know of such footage.

*Words* are those of ENFSI's scale (European Network of Forensic Science Institutes 2015, "ENFSI
guideline for evaluative reporting in forensic science", version 3.0, guidance note 4), in both
directions, for the likelihood ratio of :class:`detectors.calibrate.Calibration`, within what its
split supports. The ratio of many frames is not the product of theirs: they show one person, one
light and one encoder, and nothing tells how much each adds. The mean of the stretch is taken as one
face's score instead, which says too little where frames do differ.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.special import logit, ndtri, stdtrit

from detectors.calibrate import Calibration, Scores
from detectors.report.model import Likelihood, Range
from facekit.core.seed import Purpose, rng

FEWEST = 6
"""Scores below which there is no interval: three blocks of two."""

SCALE = (
    (2.0, "weak"),
    (10.0, "moderate"),
    (100.0, "moderately strong"),
    (1_000.0, "strong"),
    (10_000.0, "very strong"),
    (1_000_000.0, "extremely strong"),
)
"""The likelihood ratios from which on ENFSI's words hold; below the first there is no support."""
NO_SUPPORT = "no support either way"

_LEVEL = 0.95
_DRAWS = 2000
_FEWEST_BLOCKS = 3
_CLOSEST = 0.95  # to 1: a correlation beyond which series of frames are too short to tell
_DOUBT = 1.2  # standard errors by which the correlation may be higher than it looks
_OVERLAP = 1.5  # blocks side by side that one of overlapping ones is worth


def interval(
    scores: Sequence[float], times: Sequence[float], stretch: slice | None = None
) -> Range | None:
    """The 95% interval of the mean of scores through time; the same for the same input.

    Args:
        scores: of one face, in [0, 1], N of them.
        times: theirs, in seconds, ascending. Where the face was away for a while, what comes after
            is not counted as the neighbour of what was before.
        stretch: which of them the mean is of; None for all. How alike neighbours are is taken from
            the others, too.

    Returns:
        Within [0, 1], about the mean; None for a stretch of fewer than :data:`FEWEST` scores, and
        where all in it are the same, which tells nothing of how they vary.

    Raises:
        ValueError: for another number of times than of scores, times that go back, or what is not
            a number.
    """
    every, moments = np.asarray(scores, np.float64), np.asarray(times, np.float64)
    if every.ndim != 1 or every.shape != moments.shape:
        raise ValueError(f"expected a time for each score, got {moments.shape} for {every.shape}")
    if not (np.isfinite(every).all() and np.isfinite(moments).all()):
        raise ValueError("scores and times must be finite")
    if (np.diff(moments) < 0).any():
        raise ValueError("times must ascend")
    start, stop, _ = (stretch or slice(None)).indices(len(every))
    values = every[start:stop]
    count = len(values)
    if count < FEWEST or np.ptp(values) == 0:
        return None
    correlation, pairs = _correlation(every, moments, start, count)
    length = _block_length(correlation, count)
    mean = float(values.mean())
    low, high = np.quantile(_means(values, length), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]) - mean
    doubted = min(correlation + _DOUBT * math.sqrt((1 - correlation**2) / pairs), _CLOSEST)
    wider = _widening(count / length) * _shortfall(doubted, count, length)
    return round(max(0.0, mean + wider * low), 6), round(min(1.0, mean + wider * high), 6)


def likelihood(calibration: Calibration, probability: float) -> Likelihood:
    """What a score says, as a likelihood ratio and in words.

    Args:
        calibration: the detector's.
        probability: calibrated, in [0, 1]: of one face, or the mean over a track's stretch, which
            is taken as one face's.

    Raises:
        ValueError: if it is not in [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"expected a probability, got {probability}")
    ratio = (float(logit(probability)) - calibration.prior) / math.log(10)
    low, high = calibration.bounds
    # Rounded first, so that the words are those of the number shown; 0.0 is added against -0.0.
    shown = round(min(max(ratio, low), high), 4) + 0.0
    return Likelihood(log10=shown, bound=not low <= ratio <= high, words=in_words(shown))


def in_words(log10: float) -> str:
    """The band of ENFSI's scale that a log10 likelihood ratio lies in.

    It is about "the face was generated" against "it was not". A band holds its lower edge.
    """
    strength = ""
    for least, words in SCALE:
        if abs(log10) >= round(math.log10(least), 4):
            strength = words
    if not strength:
        return NO_SUPPORT
    return f"{strength} support {'for' if log10 > 0 else 'against'} a generated face"


def _correlation(scores: Scores, times: Scores, start: int, length: int) -> tuple[float, int]:
    """Of a score with the next one in time, in [0, 0.95], and of how many pairs it is.

    Of pieces of ``length`` scores, one of which begins at ``start``, each about its own mean. The
    estimate that this gives is too small, by far for short pieces; what it is in expectation is
    known for each correlation, and looked up the other way round. Where no piece has neighbours,
    nothing is known, and one pair counts.
    """
    begins = range(start % length, len(scores) - length + 1, length)
    pieces = np.stack([scores[i : i + length] for i in begins])
    apart = pieces - pieces.mean(axis=1, keepdims=True)
    gaps = np.diff(times)
    near = gaps <= 2 * np.median(gaps)
    within = np.stack([near[i : i + length - 1] for i in begins])
    products = (apart[:, 1:] * apart[:, :-1])[within]
    if not products.size:
        return 0.0, 1
    seen = float(products.mean() / np.mean(apart**2))
    grid = np.linspace(0, _CLOSEST, 96)
    return float(np.interp(seen, [_as_seen(r, length) for r in grid], grid)), products.size


@lru_cache(maxsize=4096)
def _as_seen(correlation: float, count: int) -> float:
    """What short pieces of an autoregression show of its correlation, each about its own mean.

    The ratio of the expected products, of neighbours and of scores with themselves; both from the
    covariances r^|i - j| less those of the mean.
    """
    lags = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    alike = np.float64(correlation) ** lags
    about_mean = alike - alike.mean(0) - alike.mean(1)[:, None] + alike.mean()
    return float(np.diagonal(about_mean, 1).mean() / np.diagonal(about_mean).mean())


def _block_length(correlation: float, count: int) -> int:
    """Scores in a block: the best length for the variance of an autoregression's mean."""
    best = float(np.cbrt(6 * correlation**2 / (1 - correlation**2) ** 2 * count))
    return min(max(math.ceil(best), 1), count // _FEWEST_BLOCKS)


def _means(scores: Scores, length: int) -> Scores:
    """The means of series put together from blocks, (draws,); the end goes on at the start."""
    count = len(scores)
    blocks = math.ceil(count / length)
    starts = rng(0, Purpose.BOOTSTRAP).integers(count, size=(_DRAWS, blocks))
    lengths = np.full(blocks, length)
    lengths[-1] = count - length * (blocks - 1)
    total = np.concatenate([[0.0], np.cumsum(np.tile(scores, 2))])
    means: Scores = (total[starts + lengths] - total[starts]).sum(axis=1) / count
    return means


def _widening(blocks: float) -> float:
    """How much further Student's t reaches than the normal distribution, for so many blocks."""
    level = (1 + _LEVEL) / 2
    return float(stdtrit(max(_OVERLAP * blocks - 1, 1.0), level) / ndtri(level))


def _shortfall(correlation: float, count: int, length: int) -> float:
    """How many times as far the mean of an autoregression strays as its bootstrap shows.

    Both are known: of an autoregression of order 1 and of variance 1, the mean's variance is
    (1 + 2 Σ (1 - k/n) r^k) / n; the bootstrap's, by blocks of l, is in expectation
    (c_0 + 2 Σ (1 - k/l) c_k) / n with k < l and c_k = (1 - k/n) r^k + (k/n) r^(n-k) less the mean's
    variance, as it goes round in a circle and about the series' own mean.
    """
    lags = np.arange(count)
    alike = np.float64(correlation) ** lags
    true = (2 * ((1 - lags / count) * alike).sum() - 1) / count
    seen = (1 - lags / count) * alike + lags / count * np.append(0.0, alike[:0:-1]) - true
    shares = 1 - lags[:length] / length
    shown = (2 * (shares * seen[:length]).sum() - seen[0]) / count
    return math.sqrt(float(true / shown))
