"""Join the faces of a video's frames into tracks, one a person."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from facekit.types import Face, Sighting, Track

_MARGIN = 0.3


class Tracker:
    """Matches each frame's faces with those seen last, by the overlap of their boxes.

    The boxes are widened before they are compared, so that a face which moves by more than its
    own half between two looks is still matched (Yang et al., "Hard to Track Objects with
    Irregular Motions and Similar Appearances? Make It Easier by Buffering the Matching Space",
    2023). All pairs are decided together (the Hungarian method), so two people who come close do
    not swap places.
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

    def update(self, faces: Sequence[Face], time: float, index: int) -> list[int]:
        """Add the faces of one more frame.

        Args:
            faces: of the frame.
            time: of the frame, in seconds; later than that of the frame before.
            index: of the frame.

        Returns:
            The track's id of each face.
        """
        near = [t for t in self.tracks if time - t.sightings[-1].time <= self._max_gap]
        last = np.array([t.sightings[-1].face.box for t in near]).reshape(-1, 4)
        overlap = _overlap(np.array([f.box for f in faces]).reshape(-1, 4), last)
        # What overlaps too little must not win a pair that another face needs.
        overlap[overlap < self._min_overlap] = 0
        rows, columns = linear_sum_assignment(overlap, maximize=True)
        matched = {
            int(row): near[column]
            for row, column in zip(rows, columns, strict=True)
            if overlap[row, column] > 0
        }
        ids = []
        for row, face in enumerate(faces):
            track = matched.get(row)
            if track is None:
                track = Track(id=len(self.tracks))
                self.tracks.append(track)
            track.sightings.append(Sighting(time=time, index=index, face=face))
            ids.append(track.id)
        return ids


def _overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of each widened box of (N, 4) with each of (M, 4): (N, M)."""
    one, other = _widened(a)[:, None], _widened(b)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = np.prod(np.maximum(sides, 0), axis=-1)
    areas = [np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1) for boxes in (one, other)]
    return np.asarray(shared / (areas[0] + areas[1] - shared), np.float64)


def _widened(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    margin = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64) * _MARGIN
    return np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1)
