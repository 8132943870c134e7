"""Measure a detector on faces of people that its training never saw."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detectors.calibrate import Scores
from detectors.data import FaceSet, befallen
from detectors.metrics import Metric, auc, ece, eer, interval, tpr_at_1
from detectors.metrics import reliability as reliability
from detectors.score import Detector
from facekit.core.figures import Figure

_VIEW = 1_000_003  # the key of the test's view: neither training's nor validation's
_CLUSTERS = 10  # fewer clusters than this cannot be bootstrapped


_BOTH: tuple[Literal["all"], Literal["none"]] = ("all", "none")

METRICS: dict[str, Metric] = {
    "detector.auc": auc,
    "detector.eer": eer,
    "detector.tpr_at_1": tpr_at_1,
    "detector.ece": ece,
}
"""Figure → what computes it from probabilities and labels."""


def clusters(faces: FaceSet) -> tuple[str, NDArray[np.int64]]:
    """What a bootstrap draws: people if there are enough of them, else sources, else faces.

    Returns:
        Its name in the plural, and for each face the number of its cluster.
    """
    for name, of_each in (("people", faces.subjects), ("pictures or clips", faces.sources)):
        names, numbers = np.unique(np.array(of_each), return_inverse=True)
        if len(names) >= _CLUSTERS:
            return name, numbers.astype(np.int64)
    return "faces", np.arange(len(faces))


def interval_basis(faces: FaceSet) -> str:
    """What the intervals rest on, in words, and that they say too little where it is so."""
    name, cluster = clusters(faces)
    drawn = f"bootstrap over {int(cluster.max()) + 1} {name}"
    if name == "people":
        return drawn
    people = len({*faces.subjects, *faces.donors} - {""})
    return f"{drawn} of {people} people: too narrow for other people"


def evaluate(
    detector: Detector,
    test_set: FaceSet,
    *,
    floor: Detector | None = None,
    peer: Detector | None = None,
) -> list[Figure]:
    """Measure ``detector``, and beside it the baselines of its run, on the same views.

    Args:
        detector: a trained one.
        test_set: faces of people that it was not trained on.
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


def held_out_scores(detector: Detector, test_set: FaceSet) -> Scores:
    """The test split's P(generated), (N,): each face once, as in the world, half of them marked."""
    return _scores(detector, test_set, "half")


def _scores(detector: Detector, test_set: FaceSet, marks: Literal["half", "all", "none"]) -> Scores:
    """The detector's scores after what befell its first member's training pictures."""
    world = detector.parts[0].config.data.world
    return detector.score(befallen(test_set, world, key=_VIEW, marks=marks).regions)


def _marked_shift(detector: Detector, test_set: FaceSet) -> list[Figure]:
    """The mean score of untouched faces with a mark less that of the same without, as a size."""
    untouched = (test_set.labels == 0) & ~test_set.came_marked
    if not untouched.any():
        return []
    marked, unmarked = (_scores(detector, test_set, marks)[untouched] for marks in _BOTH)
    return [Figure("detector.marked_shift", float(abs(marked.mean() - unmarked.mean())))]
