"""Join the faces of a video's frames into tracks, one a person."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from facekit.types import Face, Sighting, Track

_MARGIN = 0.3
_STEADINESS = 0.15  # seconds over which a box's velocity is averaged: a locator's box trembles
_FORESIGHT = 1.0  # seconds for which a face out of sight is expected to move on


class Tracker:
    """Matches each frame's faces with those seen before, by the overlap of their boxes.

    A face is looked for where its velocity takes it, so one that moves behind something is known
    again where it comes out, and one that stopped there is too. The boxes are widened before they
    are compared, so that a face which moves by more than its own half between two looks is still
    matched (Yang et al., "Hard to Track Objects with Irregular Motions and Similar Appearances?
    Make It Easier by Buffering the Matching Space", 2023). All pairs are decided together (the
    Hungarian method), those in sight before those out of it (Zhang et al., "ByteTrack", 2022), so
    two people who come close or cross do not swap places.

    Attributes:
        tracks: all so far. Their faces are without landmarks and quality: a sighting is small.
    """

    def __init__(self, *, max_gap: float = 2.0, min_overlap: float = 0.2) -> None:
        """Start with no tracks.

        Args:
            max_gap: seconds that a face may be out of sight and still be the same track.
            min_overlap: smallest intersection over union of two widened boxes of one face.
        """
        self.tracks: list[Track] = []
        self._max_gap = max_gap
        self._min_overlap = min_overlap
        self._open: dict[int, _Course] = {}
        self._seen_last: set[int] = set()

    @property
    def open(self) -> set[int]:
        """The ids of the tracks that may go on."""
        return set(self._open)

    def update(
        self,
        faces: Sequence[Face],
        time: float,
        index: int,
        *,
        cut: bool = False,
        known: Sequence[int | None] | None = None,
    ) -> list[int]:
        """Add the faces of one more frame.

        Args:
            faces: of the frame.
            time: of the frame, in seconds; later than that of the frame before.
            index: of the frame.
            cut: the frame begins another scene: no track goes on.
            known: for each face the track that it was followed in from the last frame; None for
                one that is to be matched, and by default for all. Ids of a past scene are unknown.

        Returns:
            The track's id of each face.
        """
        if cut:
            self._open.clear()
        self._open = {
            id: course for id, course in self._open.items() if time - course.time <= self._max_gap
        }
        found: dict[int, int] = {}  # a face's place in the list → its track
        for row, id in enumerate(known or []):
            if id in self._open and id not in found.values():
                found[row] = id
        boxes = np.array([face.box for face in faces], np.float64).reshape(-1, 4)
        self._match(boxes, found, time, in_sight=True)
        self._match(boxes, found, time, in_sight=False)

        ids = []
        for row, face in enumerate(faces):
            if row in found:
                track = self.tracks[found[row]]
                self._open[track.id].move(boxes[row], time)
            else:
                track = Track(id=len(self.tracks))
                self.tracks.append(track)
                self._open[track.id] = _Course(boxes[row], time)
            kept = replace(
                face,
                # Copies: a face's numbers may be a view of a whole batch's.
                box=face.box.copy(),
                points=face.points.copy(),
                landmarks=None,
                quality=None,
            )
            track.sightings.append(Sighting(time=time, index=index, face=kept))
            ids.append(track.id)
        self._seen_last = set(ids)
        return ids

    def _match(
        self, boxes: NDArray[np.float64], found: dict[int, int], time: float, *, in_sight: bool
    ) -> None:
        """Add to ``found`` the best pairs of the faces and tracks that are left."""
        rows = [row for row in range(len(boxes)) if row not in found]
        ids = [
            id
            for id in self._open
            if id not in found.values() and (id in self._seen_last or not in_sight)
        ]
        if not rows or not ids:
            return
        courses = [self._open[id] for id in ids]
        overlap = _overlap(boxes[rows], np.array([course.expected(time) for course in courses]))
        if not in_sight:
            there = _overlap(boxes[rows], np.array([course.box for course in courses]))
            overlap = np.maximum(overlap, there)
        # What overlaps too little must not win a pair that another face needs.
        overlap[overlap < self._min_overlap] = 0
        pairs = linear_sum_assignment(overlap, maximize=True)
        for row, column in zip(*pairs, strict=True):
            if overlap[row, column] > 0:
                found[rows[row]] = ids[column]


@dataclass
class _Course:
    """Where a face was last, and how fast it moves."""

    box: NDArray[np.float64]
    time: float
    velocity: NDArray[np.float64] | None = None  # of the box's centre, in pixels a second

    def expected(self, time: float) -> NDArray[np.float64]:
        """The box at ``time``, if the face moves on as it did."""
        if self.velocity is None:
            return self.box
        return self.box + np.tile(self.velocity * min(time - self.time, _FORESIGHT), 2)

    def move(self, box: NDArray[np.float64], time: float) -> None:
        """The face was seen again."""
        passed = max(time - self.time, 1e-6)
        velocity = (_centre(box) - _centre(self.box)) / passed
        if self.velocity is not None:
            share = 1 - np.exp(-passed / _STEADINESS)
            velocity = self.velocity + share * (velocity - self.velocity)
        self.box, self.time, self.velocity = box, time, velocity


def _centre(box: NDArray[np.float64]) -> NDArray[np.float64]:
    return (box[:2] + box[2:]) / 2


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of each widened box of (N, 4) with each of (M, 4): (N, M)."""
    one, other = _widened(a)[:, None], _widened(b)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = np.prod(np.maximum(sides, 0), axis=-1)
    areas = [np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1) for boxes in (one, other)]
    return np.asarray(shared / (areas[0] + areas[1] - shared), np.float64)


def _widened(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    margin = (boxes[:, 2:] - boxes[:, :2]) * _MARGIN
    return np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1)
