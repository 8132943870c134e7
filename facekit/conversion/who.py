"""Whose face is it, through a whole clip: the same person before and after a crossing.

A tracker goes by places, so it may take one person for another where faces meet, or where one was
out of sight. Its tracks are therefore cut there, and the parts are put together again by what an
identity network says of them; that they are one track counts for something, not for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from facekit.core.errors import FacekitError
from facekit.faces.embed import Embedder
from facekit.faces.people import SAME_PERSON, Album
from facekit.faces.stage import Seen
from facekit.types import Face, Floats

SAME_AS_PHOTO = 0.45
"""The least cosine of a person's mean vector with that of a single photo of the same person."""

_CLEAR = 0.08  # of two people who are both like the photo, the one is it only by so much more
_CROSSING = 0.3  # faces cross where the smaller one's box is covered by so much
_GAP = 0.3  # seconds out of sight after which a track may go on with somebody else
_ONE_TRACK = 0.25  # cosine: how much it counts that two parts follow in one track


@dataclass
class Part:
    """A stretch of a track in which nobody else can have taken its place.

    Attributes:
        track: its id.
        begin, end: in seconds.
        before: the part of the same track before it; None if it is the first.
    """

    track: int
    begin: float
    end: float
    before: int | None


class Parts:
    """Cuts tracks into parts, and gathers what tells who each part shows.

    Attributes:
        parts: all so far; their place in the list is their number.
    """

    def __init__(self, embedder: Embedder, device: torch.device) -> None:
        """Start without any."""
        self.parts: list[Part] = []
        self._album = Album(embedder, device)
        self._now: dict[int, int] = {}  # track → its part
        self._crossing: set[int] = set()  # tracks
        self._shown: set[int] = set()  # parts that the album knows

    def add(self, seen: Seen) -> tuple[list[int], list[bool]]:
        """The part of each face of the next frame, and whether it lies across another."""
        crossing = _crossing(seen.faces)
        time = seen.frame.time
        numbers = []
        for face, track in zip(seen.faces, seen.ids, strict=True):
            last = self._now.get(track)
            apart = track in self._crossing and not crossing[id(face)]
            if last is None or apart or time - self.parts[last].end > _GAP:
                self.parts.append(Part(track, time, time, last))
                self._now[track] = len(self.parts) - 1
            self.parts[self._now[track]].end = time
            numbers.append(self._now[track])
        self._crossing = {
            track for face, track in zip(seen.faces, seen.ids, strict=True) if crossing[id(face)]
        } | (self._crossing - set(seen.ids))
        # Where faces cross, a crop shows both; it counts only if there is no other.
        told = [
            (face, number)
            for face, number in zip(seen.faces, numbers, strict=True)
            if not crossing[id(face)] or number not in self._shown
        ]
        self._shown |= {number for _, number in told}
        self._album.add(
            seen.frame.pixels, time, [face for face, _ in told], [number for _, number in told]
        )
        return numbers, [crossing[id(face)] for face in seen.faces]

    def vectors(self) -> dict[int, Floats]:
        """The mean vector (D,), of length 1, of each part; all have ended."""
        return self._album.vectors()


def people(parts: Sequence[Part], vectors: dict[int, Floats]) -> list[int]:
    """Who each part shows: the same number for parts of one person.

    The two groups of parts that are most alike are joined, again and again, as long as two are
    alike enough. Parts that overlap in time show two people.
    """
    count = len(parts)
    owner = np.arange(count)
    if count < 2:
        return owner.tolist()
    width = len(next(iter(vectors.values())))
    nobody = np.zeros(width, np.float32)
    sums = np.stack([vectors.get(i, nobody) for i in range(count)]).astype(np.float64)
    lasts = np.array([max(part.end - part.begin, 0.04) for part in parts])
    sums *= lasts[:, None]  # a long part says more of a person than a short one
    apart = np.array(
        [[a is not b and a.begin <= b.end and b.begin <= a.end for b in parts] for a in parts]
    )
    bonus = np.zeros((count, count))
    for number, part in enumerate(parts):
        if part.before is not None:
            bonus[number, part.before] = bonus[part.before, number] = _ONE_TRACK
    alive = np.ones(count, bool)
    while True:
        unit = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
        alike = unit @ unit.T + bonus
        alike[apart | ~alive | ~alive[:, None] | np.eye(count, dtype=bool)] = -np.inf
        a, b = sorted(divmod(int(alike.argmax()), count))
        if alike[a, b] < SAME_PERSON:
            return owner.tolist()
        sums[a] += sums[b]
        apart[a] |= apart[b]
        apart[:, a] |= apart[:, b]
        bonus[a] = np.maximum(bonus[a], bonus[b])
        bonus[:, a] = np.maximum(bonus[:, a], bonus[:, b])
        alive[b] = False
        owner[owner == b] = a


def person_like(
    photo: Floats, parts: Sequence[Part], owners: Sequence[int], vectors: dict[int, Floats]
) -> int:
    """The person who is shown on a reference photo.

    Args:
        photo: the vector (D,) of the face on it.
        parts: of the clip.
        owners: of :func:`people`.
        vectors: of the parts.

    Raises:
        FacekitError: if nobody is, or if two people are about equally like it.
    """
    found: list[tuple[float, int]] = []
    for person in sorted(set(owners)):
        own = [
            vectors[i] * max(parts[i].end - parts[i].begin, 0.04)
            for i, owner in enumerate(owners)
            if owner == person and i in vectors
        ]
        total = np.sum(own, axis=0) if own else np.zeros_like(photo)
        found.append((float(photo @ total / max(float(np.linalg.norm(total)), 1e-9)), person))
    found.sort(reverse=True)
    if not found or found[0][0] < SAME_AS_PHOTO:
        likest = f"; the likest is so by {found[0][0]:.2f}" if found else ""
        raise FacekitError(
            f"nobody in it is like the face on the reference photo by {SAME_AS_PHOTO} or "
            f"more{likest}: give another photo of the person, frontal and well lit"
        )
    if len(found) > 1 and found[1][0] >= SAME_AS_PHOTO and found[0][0] - found[1][0] < _CLEAR:
        first, second = (parts[owners.index(person)].begin for _, person in found[:2])
        raise FacekitError(
            f"two people in it, first seen at {first:.1f} s and {second:.1f} s, are about equally "
            f"like the face on the reference photo ({found[0][0]:.2f} and {found[1][0]:.2f}): give "
            "another photo, or cut the video so that it shows one of them"
        )
    return found[0][1]


def through_crossing(
    before: Floats, after: Floats, share: float, faces: Sequence[Floats]
) -> int | None:
    """Which of the faces in a frame is the one that was followed before faces crossed.

    Within a crossing a tracker may take the one for the other at any moment; but between where a
    face was before and where it is after, it moves about evenly.

    Args:
        before: its points (5, 2) in the last frame before the crossing.
        after: in the first frame after it.
        share: of the time between the two that has passed, in [0, 1].
        faces: the points of all faces in the frame.

    Returns:
        Its place in ``faces``; None if none is where it should be.
    """
    expected = before + share * (after - before)
    eyes = float(np.linalg.norm(expected[1] - expected[0]))
    off = [float(np.linalg.norm(points - expected, axis=1).mean()) for points in faces]
    best = int(np.argmin(off)) if off else 0
    return best if off and off[best] < eyes else None


def _crossing(faces: Sequence[Face]) -> dict[int, bool]:
    """Whether each face, by Python's id of it, lies across another."""
    boxes = np.array([face.box for face in faces], np.float64).reshape(-1, 4)
    sides = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    sides = np.maximum(sides - np.maximum(boxes[:, None, :2], boxes[None, :, :2]), 0)
    area = np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1e-6)
    share: NDArray[np.float64] = np.prod(sides, axis=2) / np.minimum(area[:, None], area[None])
    np.fill_diagonal(share, 0)
    return {
        id(face): bool(row.max(initial=0) > _CROSSING)
        for face, row in zip(faces, share, strict=True)
    }
