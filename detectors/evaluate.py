"""Measure a detector on faces of people that its training never saw."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.calibrate import Labels, Scores
from detectors.data import Crops, view
from detectors.metrics import auc, ece, eer, interval, tpr_at
from detectors.metrics import reliability as reliability
from detectors.score import Detector
from facekit.core.figures import Figure

_VIEW = 1_000_003  # the key of the test's view: neither training's nor validation's
_CLUSTERS = 10  # fewer clusters than this cannot be bootstrapped


METRICS: dict[str, Callable[[Scores, Labels], float]] = {
    "detector.auc": auc,
    "detector.eer": eer,
    "detector.tpr_at_1": lambda scores, labels: tpr_at(scores, labels, 0.01),
    "detector.ece": ece,
}
"""Figure → what computes it from probabilities and labels."""


def clusters(crops: Crops) -> tuple[str, NDArray[np.int64]]:
    """What a bootstrap draws: people if there are enough of them, else sources, else faces.

    Returns:
        Its name in the plural, and for each face the number of its cluster.
    """
    for name, of_each in (("people", crops.subjects), ("pictures or clips", crops.sources)):
        names, numbers = np.unique(np.array(of_each), return_inverse=True)
        if len(names) >= _CLUSTERS:
            return name, numbers.astype(np.int64)
    return "faces", np.arange(len(crops))


def interval_basis(crops: Crops) -> str:
    """What the intervals rest on, in words, and that they say too little where it is so."""
    name, cluster = clusters(crops)
    drawn = f"bootstrap over {int(cluster.max()) + 1} {name}"
    if name == "people":
        return drawn
    people = len({*crops.subjects, *crops.donors} - {""})
    return f"{drawn} of {people} people: too narrow for other people"


def evaluate(
    detector: Detector,
    test_set: Crops,
    *,
    floor: Detector | None = None,
    peer: Detector | None = None,
) -> list[Figure]:
    """Measure ``detector``, and beside it the baselines of its run, on the same views.

    Args:
        detector: a trained one.
        test_set: crops of its template and size, of people it was not trained on.
        floor: logistic regression on mean colours, fitted on the same training faces.
        peer: logistic regression on spectra, likewise.

    Returns:
        ``detector.auc``, ``.eer``, ``.tpr_at_1``, ``.ece``, each with a 95% interval, and
        ``.marked_shift``: how far a mark alone moves the mean score of untouched faces; it is left
        out if all of them came marked.
    """
    labels = test_set.labels
    _, cluster = clusters(test_set)
    scores = held_out_scores(detector, test_set)
    floor_scores = held_out_scores(floor, test_set) if floor else None
    peer_scores = held_out_scores(peer, test_set) if peer else None
    figures = []
    for name, metric in METRICS.items():
        low, high = interval(metric, scores, labels, cluster)
        figures.append(
            Figure(
                name,
                metric(scores, labels),
                low=low,
                high=high,
                peer=None if peer_scores is None else metric(peer_scores, labels),
                floor=None if floor_scores is None else metric(floor_scores, labels),
            )
        )
    return figures + _marked_shift(detector, test_set)


def held_out_scores(detector: Detector, test_set: Crops) -> Scores:
    """The test split's P(generated), (N,): each face once, re-compressed, half of them marked."""
    return detector.score(view(test_set, detector.config.data, key=_VIEW, marks="half"))


def _marked_shift(detector: Detector, test_set: Crops) -> list[Figure]:
    """The mean score of untouched faces with a mark less that of the same without, as a size."""
    data: Any = detector.config.data
    untouched = (test_set.labels == 0) & ~test_set.came_marked
    if not untouched.any():
        return []
    marked, unmarked = (
        detector.score(view(test_set, data, key=_VIEW, marks=marks)[untouched])
        for marks in ("all", "none")
    )
    return [Figure("detector.marked_shift", float(abs(marked.mean() - unmarked.mean())))]
