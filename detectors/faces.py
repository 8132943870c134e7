"""Find the faces of pictures as they come, and score each, so that none spoils another.

This is what analysis and scoring in bulk share.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from detectors import regions
from detectors.calibrate import Scores
from detectors.regions import Region
from detectors.score import Detector, Scorer
from facekit.core.errors import FacekitError
from facekit.faces.landmarks import Landmarker
from facekit.faces.locate import load_locator
from facekit.types import Face, Frame, Pixels

_COARSE = 640  # pixels of the longer side of a picture that is searched
_FINE = 2560  # and of one that is searched once more
_CELL = 20  # pixels of the smallest face that a locator finds in what it searches


class Finder:
    """Finds faces as training does: their points and boxes are those of their landmarks."""

    def __init__(self, device: torch.device, min_face: int) -> None:
        """Load what locates.

        Args:
            device: where to compute.
            min_face: pixels of the longer side of the smallest face to look for. In pictures with
                more than 32 times as many on their longer side, faces of 1/32 of it are found.
        """
        self._min_face = min_face
        self._locator = load_locator(device, min_face=min_face, max_side=_COARSE)
        self._fine = load_locator(device, min_face=min_face, max_side=_FINE)
        self._landmarker = Landmarker(device)

    def upright(self, pictures: Sequence[Pixels]) -> list[list[Face]]:
        """The faces of each picture that stand upright, largest first: for a video's frames."""
        return self._read(pictures, self._locator.locate(pictures))

    def thorough(self, pictures: Sequence[Pixels]) -> list[list[Face]]:
        """The faces of each picture, which may be turned, cut close, or small in a large one."""
        found = regions.locate(pictures, self._locator)
        for i, pixels in enumerate(pictures):
            if not found[i] and max(pixels.shape) * _CELL > self._min_face * _COARSE:
                (found[i],) = self._fine.locate([pixels])
        return self._read(pictures, found)

    def _read(
        self, pictures: Sequence[Pixels], found: Sequence[Sequence[Face]]
    ) -> list[list[Face]]:
        read = self._landmarker.read(pictures, found, mirrored=True)
        return [sorted(faces, key=lambda face: -face.size) for faces in read]


@dataclass(frozen=True)
class Outcome:
    """What scoring a face gave.

    Attributes:
        probability: P(generated), calibrated; None where there is none.
        members: what each member of the detector alone says, by its name.
        reason: why there is no probability; "" where there is one.
    """

    probability: float | None = None
    members: dict[str, float] = field(default_factory=dict)
    reason: str = ""


def score_each(detector: Scorer, faces: Sequence[Region]) -> list[Outcome]:
    """Score faces together, and one by one where one of them gives no number."""
    if not faces:
        return []
    try:
        probabilities, members = _scores(detector, faces)
    except FacekitError as error:
        if len(faces) > 1:
            return [outcome for face in faces for outcome in score_each(detector, [face])]
        return [Outcome(reason=str(error))]
    outcomes = []
    for i, probability in enumerate(probabilities.tolist()):
        each = {name: float(scores[i]) for name, scores in members.items()}
        known = {name: round(score, 6) for name, score in each.items() if 0 <= score <= 1}
        if 0 <= probability <= 1:  # which NaN is not
            outcomes.append(Outcome(round(probability, 6), known))
        else:
            outcomes.append(Outcome(None, known, "the detector gave no number from 0 to 1"))
    return outcomes


def _scores(detector: Scorer, faces: Sequence[Region]) -> tuple[Scores, dict[str, Scores]]:
    """The detector's probabilities, and each member's; what has no members is its own only one."""
    if isinstance(detector, Detector):
        return detector.score_all(faces)
    probabilities = detector.score(faces)
    return probabilities, {detector.name: probabilities}


def at_least_apart(frames: Iterable[Frame], every: float) -> Iterator[Frame]:
    """The first frame of each ``every`` seconds, for videos of a length not known beforehand."""
    slot = -1
    for frame in frames:
        if int(frame.time / every) > slot:
            slot = int(frame.time / every)
            yield frame
