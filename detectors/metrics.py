"""How well scores tell generated faces from untouched ones.

Intervals are 95% percentile bootstraps (Efron & Tibshirani 1993) that draw whole clusters: frames
of one person are alike, and drawing them one by one would make an interval look far too narrow.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import roc_curve

from detectors.calibrate import Labels, Scores
from facekit.core.seed import Purpose, rng

_RESAMPLES = 1000


def auc(scores: Scores, labels: Labels) -> float:
    """Area under the ROC curve: P(a generated face scores above an untouched one), ties half.

    Mann & Whitney's U over the number of pairs.
    """
    generated = labels == 1
    positives, negatives = int(generated.sum()), int((~generated).sum())
    rank_sum = rankdata(scores)[generated].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def eer(scores: Scores, labels: Labels) -> float:
    """Equal error rate: where the ROC curve, its points joined by lines, has FPR = 1 - TPR."""
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    # FPR - FNR rises along the curve from -1 to 1; where it is flat, any point of the flat serves.
    return float(np.interp(0.0, fpr + tpr - 1, fpr))


def tpr_at(scores: Scores, labels: Labels, fpr: float) -> float:
    """The largest share of generated faces found with at most ``fpr`` false alarms."""
    rates, found, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(found[rates <= fpr].max())


def ece(probabilities: Scores, labels: Labels, bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015) of P(generated), over bins of one width."""
    rows = reliability(probabilities, labels, bins)
    return float(sum(row["count"] * abs(row["mean"] - row["share"]) for row in rows) / len(labels))


def reliability(probabilities: Scores, labels: Labels, bins: int = 10) -> list[dict[str, float]]:
    """The reliability diagram: of each bin that is not empty, what was promised and what held.

    Returns:
        Rows ``low``, ``high`` (the bin), ``count``, ``mean`` (of the probabilities) and ``share``
        (of generated faces).
    """
    place = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
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


def interval(
    metric: Callable[[Scores, Labels], float],
    scores: Scores,
    labels: Labels,
    cluster: NDArray[np.int64],
    seed: int = 0,
) -> tuple[float, float]:
    """The 95% interval of a metric, by drawing clusters with replacement.

    Draws in which a class does not occur say nothing about the metric and are drawn again.
    """
    members = [np.flatnonzero(cluster == i) for i in range(int(cluster.max()) + 1)]
    random = rng(seed, Purpose.BOOTSTRAP)
    values: list[float] = []
    while len(values) < _RESAMPLES:
        drawn = random.integers(len(members), size=len(members))
        rows = np.concatenate([members[i] for i in drawn])
        if 0 < labels[rows].sum() < len(rows):
            values.append(metric(scores[rows], labels[rows]))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
