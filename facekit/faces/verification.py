"""How well vectors of faces tell people apart, and know one again: verification and search.

Intervals are 95% percentile bootstraps (Efron & Tibshirani 1993) that draw whole people, since
faces of one person are alike.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facekit.core.seed import Purpose, rng
from facekit.types import Floats

Counts = NDArray[np.int64]
"""How often a bootstrap's draw holds each person, (people,)."""

_RESAMPLES = 500


@dataclass(frozen=True)
class Pairs:
    """All pairs of faces, and how alike they are.

    Attributes:
        first, second: int64 (P,), whose faces they are.
        similarity: float64 (P,).
        rank: int64 (P,), the place of the similarity among the distinct ones, from 0.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    similarity: NDArray[np.float64]
    rank: NDArray[np.int64]

    @classmethod
    def of(cls, vectors: Floats, whose: NDArray[np.integer]) -> "Pairs | None":
        """All pairs of faces by the cosine of their vectors.

        Args:
            vectors: (N, D), of length 1.
            whose: (N,), the person of each, from 0.

        Returns:
            None unless some pairs are of one person, and some of two.
        """
        return cls.of_similarity(vectors @ vectors.T, whose)

    @classmethod
    def of_similarity(
        cls, similarity: NDArray[np.floating], whose: NDArray[np.integer]
    ) -> "Pairs | None":
        """As :meth:`of`, from similarities (N, N)."""
        i, j = np.triu_indices(len(whose), 1)
        values = similarity[i, j].astype(np.float64)
        _, rank = np.unique(values, return_inverse=True)
        people = whose.astype(np.int64)
        pairs = cls(people[i], people[j], values, rank.astype(np.int64))
        return pairs if 0 < pairs.same.sum() < len(values) else None

    @property
    def same(self) -> NDArray[np.bool_]:
        """Which pairs are of one person, (P,)."""
        same: NDArray[np.bool_] = self.first == self.second
        return same

    def figures(self, counts: Counts) -> NDArray[np.float64]:
        """AUC, EER, mean similarity of one person's and of different people's pairs.

        Each person counts ``counts`` times. AUC gives ties a half; the EER lies where the ROC
        curve, its points joined by lines, has as many false matches as false misses.
        """
        same = self.same
        weights = counts[self.first] * np.where(same, 1, counts[self.second]).astype(np.float64)
        total_same, total = weights[same].sum(), weights.sum()
        if not 0 < total_same < total:
            return np.full(4, np.nan)
        ours = np.bincount(self.rank, np.where(same, weights, 0)) / total_same
        others = np.bincount(self.rank, np.where(same, 0, weights)) / (total - total_same)
        auc = (ours * (np.cumsum(others) - others / 2)).sum()
        matched = np.concatenate([[0], np.cumsum(ours[::-1])])
        mistaken = np.concatenate([[0], np.cumsum(others[::-1])])
        eer = np.interp(0, mistaken + matched - 1, mistaken)
        mean_same = (weights * self.similarity)[same].sum() / total_same
        mean_others = (weights * self.similarity)[~same].sum() / (total - total_same)
        return np.array([auc, eer, mean_same, mean_others])


def interval(
    metric: Callable[[Counts], NDArray[np.float64]], people: int, seed: int = 0
) -> tuple[list[float | None], list[float | None]]:
    """Lower and upper ends of the 95% intervals of metrics, by drawing people with replacement.

    Args:
        metric: from how often each person was drawn to values (K,), NaN where they say nothing;
            draws that say nothing are left out.
        people: how many there are.
        seed: of the draws.
    """
    random = rng(seed, Purpose.BOOTSTRAP)
    drawn = (random.integers(people, size=people) for _ in range(_RESAMPLES))
    values = np.stack([metric(np.bincount(draw, minlength=people)) for draw in drawn])
    values = values[np.isfinite(values).all(1)]
    if not len(values):
        nothing: list[float | None] = [None] * values.shape[1]
        return nothing, nothing
    low, high = np.percentile(values, [2.5, 97.5], axis=0)
    return low.tolist(), high.tolist()


def found_first(gallery: Floats, probes: Floats) -> NDArray[np.bool_]:
    """Which people are known again among all others: the mean is the rank-1 rate.

    Args:
        gallery: one vector of length 1 a person, (people, D).
        probes: another of each, in the same order.

    Returns:
        (people,): whether the probe is nearest to its own person's vector.
    """
    nearest = (probes @ gallery.T).argmax(axis=1)
    return np.asarray(nearest == np.arange(len(gallery)), np.bool_)
