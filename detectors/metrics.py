"""How well scores tell generated faces from untouched ones.

Intervals are 95% percentile bootstraps (Efron & Tibshirani 1993) that draw whole clusters: frames
of one person are alike, and drawing them one by one would make an interval look far too narrow.
A draw is a weight for each row, how often its cluster was drawn, so that a metric answers for
hundreds of draws at once.
"""

from collections.abc import Callable
from functools import update_wrapper

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.isotonic import isotonic_regression

from detectors.calibrate import Labels, Scores
from facekit.core.errors import FacekitError
from facekit.core.figures import Figure
from facekit.core.seed import Purpose, rng

FEWEST = 1000
"""Untouched inputs below which a rate of 0.1% false alarms cannot be told from none."""

_RESAMPLES = 1000
_CHUNK = 500_000  # weights held at a time: 4 MB, which caches hold
_SURE = 1e-7  # nearer to 0 or 1 a 32-bit network says no more


class Metric:
    """A figure of scores and labels: a number, or one a draw of a bootstrap."""

    def __init__(self, of_draws: Callable[..., Scores]) -> None:
        """Take the function that computes it.

        Args:
            of_draws: (scores (N,), labels (N,), weights (D, N) of the rows, options) to (D,).
        """
        self.of_draws = of_draws
        update_wrapper(self, of_draws)

    def __call__(self, scores: Scores, labels: Labels, *options: float) -> float:
        """The figure itself: every row counts once."""
        return float(self.of_draws(scores, labels, np.ones((1, len(scores))), *options)[0])


@Metric
def auc(scores: Scores, labels: Labels, weights: Scores) -> Scores:
    """Area under the ROC curve: P(a generated face scores above an untouched one), ties half."""
    found, alarms = _counts(scores, labels, weights)
    middle = (found[:, 1:] + found[:, :-1]) / 2
    area: Scores = (middle * np.diff(alarms)).sum(axis=1)
    return area / (found[:, -1] * alarms[:, -1])


@Metric
def average_precision(scores: Scores, labels: Labels, weights: Scores) -> Scores:
    """Mean precision over the steps of recall, nothing interpolated; it depends on the shares."""
    found, alarms = _counts(scores, labels, weights)
    flagged = found[:, 1:] + alarms[:, 1:]
    precision = np.divide(found[:, 1:], flagged, out=np.zeros_like(flagged), where=flagged > 0)
    total: Scores = (precision * np.diff(found)).sum(axis=1)
    return total / found[:, -1]


@Metric
def eer(scores: Scores, labels: Labels, weights: Scores) -> Scores:
    """Equal error rate: where the ROC curve, its points joined by lines, has FPR = 1 - TPR."""
    tpr, fpr = _rates(scores, labels, weights)
    total = tpr + fpr
    after = np.argmax(total >= 1, axis=1)[:, None]
    low, high = (np.take_along_axis(total, i, 1) for i in (after - 1, after))
    left, right = (np.take_along_axis(fpr, i, 1) for i in (after - 1, after))
    crossing: Scores = left + (right - left) * (1 - low) / (high - low)
    return crossing[:, 0]


@Metric
def tpr_at(scores: Scores, labels: Labels, weights: Scores, fpr: float) -> Scores:
    """The largest share of generated faces found with at most ``fpr`` false alarms."""
    found, alarms = _rates(scores, labels, weights)
    best: Scores = np.where(alarms <= fpr, found, 0).max(axis=1)
    return best


@Metric
def tpr_at_1(scores: Scores, labels: Labels, weights: Scores) -> Scores:
    """``tpr_at`` 1% false alarms."""
    return tpr_at.of_draws(scores, labels, weights, 0.01)


@Metric
def tpr_at_01(scores: Scores, labels: Labels, weights: Scores) -> Scores:
    """``tpr_at`` 0.1% false alarms."""
    return tpr_at.of_draws(scores, labels, weights, 0.001)


@Metric
def ece(probabilities: Scores, labels: Labels, weights: Scores, bins: int = 10) -> Scores:
    """Expected calibration error (Naeini et al. 2015) of P(generated), over bins of one width."""
    bin_of_each = _place(probabilities, bins)[:, None] == np.arange(bins)
    gaps = np.abs(weights @ (bin_of_each * (probabilities - labels)[:, None]))
    total: Scores = gaps.sum(axis=1) / weights.sum(axis=1)
    return total


@Metric
def brier(probabilities: Scores, labels: Labels, weights: Scores) -> Scores:
    """Mean squared error of P(generated) (Brier 1950): 0.25 for one who always says 0.5."""
    mean: Scores = weights @ (probabilities - labels) ** 2 / weights.sum(axis=1)
    return mean


@Metric
def cllr(ratios: Scores, labels: Labels, weights: Scores) -> Scores:
    """Cost of the log-likelihood ratio, in bits (Brümmer & du Preez 2006).

    What is lost by trusting the ratios, over all prior odds: 0 for an oracle, 1 for one who always
    says that both are as likely, above 1 for one who misleads.

    Args:
        ratios: (N,) log10 of P(what is seen | generated) / P(what is seen | untouched), as
            ``Calibration.likelihood_ratio`` and ``log_ratio`` give it.
        labels: (N,).
        weights: (D, N).
    """
    _check(ratios, labels)
    generated = labels == 1
    # log2(1 + 1 / LR) where LR should be large, log2(1 + LR) where it should be small.
    cost = np.logaddexp(0, np.where(generated, -ratios, ratios) * np.log(10)) / np.log(2)
    means = [weights @ (cost * of) / (weights @ of) for of in (generated, ~generated)]
    mean: Scores = (means[0] + means[1]) / 2
    return mean


@Metric
def min_cllr(scores: Scores, labels: Labels, weights: Scores) -> Scores:
    """The ``cllr`` that remains when the scores are calibrated as well as their order allows.

    The best monotone calibration on these very labels is found by pooling adjacent violators
    (Brümmer & du Preez 2006, section 6); what ``cllr`` has above it is calibration's fault.
    """
    found, alarms = _counts(scores, labels, weights)
    costs = [
        _pooled_cost(*rows)
        for rows in zip(np.diff(found)[:, ::-1], np.diff(alarms)[:, ::-1], strict=True)
    ]
    return np.array(costs)


def _pooled_cost(generated: Scores, untouched: Scores) -> float:
    """Cllr after pooling, of how many of each class have each score, from low to high."""
    both = generated + untouched
    generated, untouched, both = (counts[both > 0] for counts in (generated, untouched, both))
    posterior = isotonic_regression(generated / both, sample_weight=both)
    prior_odds = generated.sum() / untouched.sum()
    # Where one class has no rows its ratio may be infinite, and costs nothing.
    some, other = generated > 0, untouched > 0
    missed = np.log2(1 + (1 / posterior[some] - 1) * prior_odds)
    alarmed = np.log2(1 + posterior[other] / (1 - posterior[other]) / prior_odds)
    return float(
        (generated[some] @ missed / generated.sum() + untouched[other] @ alarmed / untouched.sum())
        / 2
    )


def log_ratio(probabilities: Scores, prior: float = 0.5) -> Scores:
    """The log10 likelihood ratio that P(generated) stands for.

    Args:
        probabilities: (N,) in [0, 1]; beyond 1e-7 of either end they count as that far from it, so
            that one mistake of a detector that is "certain" costs 23 bits instead of infinity.
        prior: the share of generated faces that whoever gave the probabilities assumed.
    """
    certain = np.clip(probabilities, _SURE, 1 - _SURE)
    ratios: Scores = (logit(certain) - logit(prior)) / np.log(10)
    return ratios


def reliability(probabilities: Scores, labels: Labels, bins: int = 10) -> list[dict[str, float]]:
    """The reliability diagram: of each bin that is not empty, what was promised and what held.

    Returns:
        Rows ``low``, ``high`` (the bin), ``count``, ``mean`` (of the probabilities) and ``share``
        (of generated faces).
    """
    place = _place(probabilities, bins)
    return [
        {
            "low": i / bins,
            "high": (i + 1) / bins,
            "count": float(inside.sum()),
            "mean": float(probabilities[inside].mean()),
            "share": float(labels[inside].mean()),
        }
        for i in range(bins)
        if (inside := place == i).any()
    ]


def roc(scores: Scores, labels: Labels, most: int = 400) -> list[tuple[float, float]]:
    """The ROC curve as (FPR, TPR) from (0, 0) to (1, 1), without points on straight lines.

    Args:
        scores: (N,).
        labels: (N,).
        most: about how many points to keep, half of them spread evenly over the logarithm of the
            FPR, as the low rates are what matters.
    """
    found, alarms = (rows[0] for rows in _counts(scores, labels, np.ones((1, len(scores)))))
    slopes = np.diff(alarms[:-1]) * np.diff(found[1:]), np.diff(alarms[1:]) * np.diff(found[:-1])
    turns = np.flatnonzero(slopes[0] != slopes[1]) + 1
    tpr, fpr = found / found[-1], alarms / alarms[-1]
    kept = np.unique([0, *turns, len(fpr) - 1])
    if len(kept) > most:
        wanted = np.concatenate([np.linspace(0, 1, most // 2), np.logspace(-4, 0, most // 2)])
        near = np.clip(np.searchsorted(fpr[kept], wanted, side="right") - 1, 0, len(kept) - 1)
        kept = kept[np.unique([0, *near, len(kept) - 1])]
    return [(float(fpr[i]), float(tpr[i])) for i in kept]


def interval(
    metric: Callable[[Scores, Labels], float],
    scores: Scores,
    labels: Labels,
    cluster: NDArray[np.int64],
    seed: int = 0,
) -> tuple[float, float]:
    """The 95% interval of a metric, by drawing clusters with replacement.

    Where both classes occur, draws without one of them say nothing about the metric and are drawn
    again.

    Args:
        metric: a ``Metric`` answers for many draws at once; any other function of scores and
            labels will do, but is called a thousand times.
        scores: (N,).
        labels: (N,).
        cluster: (N,) the number of each row's cluster, from 0.
        seed: of the draws.
    """
    values: list[float] = []
    random = rng(seed, Purpose.BOOTSTRAP)
    while len(values) < _RESAMPLES:
        missing = _RESAMPLES - len(values)
        weights = _drawn(labels, cluster, min(missing, 1 + _CHUNK // len(labels)), random)
        if isinstance(metric, Metric):
            values += metric.of_draws(scores, labels, weights).tolist()
        else:
            rows = [np.repeat(np.arange(len(labels)), row.astype(np.int64)) for row in weights]
            values += [metric(scores[drawn], labels[drawn]) for drawn in rows]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _drawn(
    labels: Labels, cluster: NDArray[np.int64], draws: int, random: np.random.Generator
) -> Scores:
    """At most ``draws`` draws of clusters: how often each row is in each of them, (D, N)."""
    count = int(cluster.max()) + 1
    times = np.stack(
        [np.bincount(random.integers(count, size=count), minlength=count) for _ in range(draws)]
    )
    weights: Scores = times[:, cluster].astype(np.float64)
    occurring = [label for label in (0, 1) if (labels == label).any()]
    whole = np.all([weights @ (labels == label) > 0 for label in occurring], axis=0)
    kept: Scores = weights[whole]
    return kept


METRICS: dict[str, tuple[Metric, str]] = {
    "auc": (auc, ""),
    "ap": (average_precision, ""),
    "eer": (eer, ""),
    "tpr1": (tpr_at_1, ""),
    "tpr01": (tpr_at_01, ""),
    "ece": (ece, ""),
    "brier": (brier, ""),
    "cllr": (
        Metric(lambda p, labels, weights: cllr.of_draws(log_ratio(p), labels, weights)),
        "bits",
    ),
    "min_cllr": (min_cllr, "bits"),
}
"""Figure → what computes it from probabilities and labels, and its unit."""


def summary(scores: Scores, labels: Labels, clusters: NDArray[np.int64], unit: str) -> list[Figure]:
    """Every figure of ``METRICS`` with its interval.

    Args:
        scores: (N,) P(generated); for Cllr it is taken to assume even odds.
        labels: (N,), both classes.
        clusters: (N,) what a bootstrap draws whole, numbered from 0.
        unit: "frame", "track" or "video": what a row is. Figures are named "frame.auc", ….

    Raises:
        FacekitError: if a class is empty or a score is no number.
    """
    figures = []
    for name, (metric, of) in METRICS.items():
        low, high = interval(metric, scores, labels, clusters)
        figures.append(Figure(f"{unit}.{name}", metric(scores, labels), of, low=low, high=high))
    return figures


def _place(probabilities: Scores, bins: int) -> NDArray[np.int64]:
    """The bin of each probability."""
    return np.minimum((probabilities * bins).astype(np.int64), bins - 1)


def _check(scores: Scores, labels: Labels) -> None:
    generated, untouched = int((labels == 1).sum()), int((labels == 0).sum())
    if not generated or not untouched or generated + untouched != len(labels):
        raise FacekitError(
            f"{generated} generated and {untouched} untouched of {len(labels)} inputs: both "
            "classes are needed, labelled 1 and 0, and no other"
        )
    if not np.isfinite(scores).all():
        raise FacekitError(f"{int((~np.isfinite(scores)).sum())} scores are not numbers")


def _counts(scores: Scores, labels: Labels, weights: Scores) -> tuple[Scores, Scores]:
    """How many of each class lie at or above each distinct score, from none to all.

    Returns:
        Generated and untouched ones, each (D, 1 + distinct scores).
    """
    _check(scores, labels)
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    generated = labels[order] == 1
    counts = []
    for of in (generated, ~generated):
        total = np.zeros((len(weights), int(of.sum()) + 1))
        np.cumsum(weights[:, order[of]], axis=1, out=total[:, 1:])
        counts.append(total[:, np.append(0, np.cumsum(of)[last])])
    return counts[0], counts[1]


def _rates(scores: Scores, labels: Labels, weights: Scores) -> tuple[Scores, Scores]:
    """TPR and FPR at or above each distinct score, from 0 to 1, each (D, 1 + distinct scores)."""
    found, alarms = _counts(scores, labels, weights)
    return found / found[:, -1:], alarms / alarms[:, -1:]
