"""Know a video's people again: which of its tracks show the same person."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from facekit.faces.align import align_faces
from facekit.faces.embed import Embedder
from facekit.types import Face, Floats, Pixels, Track

SAME_PERSON = 0.6
"""The least cosine of the mean vectors of two tracks that show one person.

Of 60 studio people whom the compact network had not seen, with three pictures to a mean, the least
of one person was 0.71, and two were more alike than 0.6 in 1.5 of 1000 pairs; of six people in
camera's clips no two were more alike than 0.46.
"""

_CROPS = 8  # of a track; more say little more
_PERIOD = 0.2  # seconds between two crops at first; in a long track it doubles again and again
_BETTER = 1.2  # a crop gives way to one of the same period that shows so many times more
_AT_ONCE = 64
_FEW, _SMALL = 3, 0.15  # pictures, and the share of them, that make a second person
_ROUNDS = 20  # of 2-means


class Album:
    """Gathers a few good crops of each track, spread over its time, and embeds them.

    Memory is bounded: a track has at most eight crops, and after its end only their mean vector.
    """

    def __init__(self, embedder: Embedder, device: torch.device) -> None:
        """Start without any."""
        self._embedder = embedder
        self._device = device
        self._pages: dict[int, _Page] = {}
        self._ended: list[tuple[int, _Page]] = []
        self._vectors: dict[int, Floats] = {}

    def add(self, pixels: Pixels, time: float, faces: Sequence[Face], ids: Sequence[int]) -> None:
        """Take in the faces of one frame, with the tracks that they belong to."""
        wanted = []
        for face, id in zip(faces, ids, strict=True):
            page = self._pages.setdefault(id, _Page([], _PERIOD))
            merit = _merit(face)
            if page.wants(merit, time):
                wanted.append((page, merit, face))
        crops = align_faces(
            pixels,
            [face for *_, face in wanted],
            template=self._embedder.template,
            size=self._embedder.size,
            device=self._device,
        )
        for (page, merit, _), crop in zip(wanted, crops, strict=True):
            page.add(_Crop(time, merit, crop.pixels))

    def end(self, ids: Sequence[int]) -> None:
        """These tracks have ended: what they showed becomes one vector each."""
        self._ended += [(id, self._pages.pop(id)) for id in ids if id in self._pages]
        if sum(len(page.crops) for _, page in self._ended) >= _AT_ONCE:
            self._embed()

    def vectors(self) -> dict[int, Floats]:
        """The mean vector, float32 (D,) of length 1, of each track; all have ended."""
        self.end(list(self._pages))
        self._embed()
        return self._vectors

    def _embed(self) -> None:
        crops = [crop for _, page in self._ended for crop in page.crops]
        if not crops:
            return
        rows = iter(self._embedder.embed(np.stack([crop.pixels for crop in crops])))
        for id, page in self._ended:
            mean = sum(crop.merit * next(rows) for crop in page.crops)
            self._vectors[id] = np.asarray(mean / max(np.linalg.norm(mean), 1e-6), np.float32)
        self._ended = []


@dataclass(frozen=True)
class _Crop:
    time: float
    merit: float
    pixels: Pixels


@dataclass
class _Page:
    """The crops of one track, at most one a period."""

    crops: list[_Crop]
    period: float

    def wants(self, merit: float, time: float) -> bool:
        if not self.crops or time - self.crops[-1].time >= self.period:
            return True
        return merit > _BETTER * self.crops[-1].merit

    def add(self, crop: _Crop) -> None:
        if self.crops and crop.time - self.crops[-1].time < self.period:
            # The place in time stays that of the first, or a face that comes near would put off
            # the next period for ever.
            self.crops[-1] = _Crop(self.crops[-1].time, crop.merit, crop.pixels)
            return
        if len(self.crops) == _CROPS:
            self.crops = self.crops[::2]
            self.period *= 2
        self.crops.append(crop)


def _merit(face: Face) -> float:
    """How much of who it is a face shows: large, frontal and uncovered is best."""
    marks = face.landmarks
    if marks is None:
        return 0.1 * min(face.size, 200.0) * face.score
    yaw, pitch, _ = np.radians(marks.pose)
    frontal = max(float(np.cos(yaw) * np.cos(pitch)), 0.1)
    shown = 0.1 + 0.9 * float(marks.presence * marks.visible.mean())
    return min(face.size, 200.0) * frontal**2 * shown


def two_people(vectors: Floats) -> NDArray[np.bool_] | None:
    """Which of N pictures show a second person, if two people are mixed among them.

    The pictures are parted in two by 2-means, from the two least alike on. They show two people if
    the groups' means are less alike than :data:`SAME_PERSON` and neither group is small: a few
    pictures from the side, or with eyes closed, are unlike the rest of their own person. Of six
    studio people in 24 performances each, a person's groups of that size were alike by 0.89 and
    more, two people's by 0.13 at most.

    Args:
        vectors: float32 (N, D) of length 1.

    Returns:
        bool (N,), True for those of the smaller group; None if all may be one person.
    """
    if len(vectors) < 2 * _FEW:
        return None
    smaller, alike = parted(vectors)
    if alike >= SAME_PERSON or smaller.sum() < max(_FEW, _SMALL * len(vectors)):
        return None
    return smaller


def parted(vectors: Floats) -> tuple[NDArray[np.bool_], float]:
    """Part pictures in two by 2-means, from the two least alike on.

    Args:
        vectors: float32 (N, D) of length 1, two or more.

    Returns:
        bool (N,), True for those of the smaller group; and how alike the groups' means are, in
        [-1, 1]: 1 if they cannot be parted.
    """
    alike = vectors @ vectors.T
    means = vectors[list(divmod(int(alike.argmin()), len(vectors)))]
    group = np.zeros(len(vectors), np.int64)
    for _ in range(_ROUNDS):
        group = (vectors @ means.T).argmax(1)
        if group.min() == group.max():
            return np.zeros(len(vectors), np.bool_), 1.0
        means = np.stack([_unit(vectors[group == k].mean(0)) for k in (0, 1)])
    sizes = np.bincount(group, minlength=2)
    return np.asarray(group == int(sizes.argmin())), float(means[0] @ means[1])


def identify(tracks: Sequence[Track], vectors: dict[int, Floats], same: float) -> None:
    """Set each track's ``person``: tracks of people who look alike enough are one person's.

    The two most alike groups of tracks are joined, again and again, until none is alike by
    ``same``. Tracks that overlap in time show two people, however alike. People are numbered in
    order of appearance; a track without a vector is somebody else.

    Args:
        tracks: of one video; their ``person`` is changed.
        vectors: of length 1, by track.
        same: the least cosine between the mean vectors of two groups that are one person.
    """
    known = [track for track in tracks if track.id in vectors]
    groups = {track.id: {track.id} for track in tracks}
    if known:
        means = np.stack([vectors[track.id] for track in known]).astype(np.float64)
        weights = np.ones(len(known))
        spans = np.array([[t.sightings[0].time, t.sightings[-1].time] for t in known])
        apart = (spans[:, None, 0] <= spans[None, :, 1]) & (spans[None, :, 0] <= spans[:, None, 1])
        alike = np.where(apart, -np.inf, means @ means.T)
        while True:
            a, b = divmod(int(alike.argmax()), len(known))
            if alike[a, b] < same:
                break
            means[a] = _unit(weights[a] * means[a] + weights[b] * means[b])
            weights[a] += weights[b]
            apart[a] |= apart[b]
            alike[a] = np.where(apart[a] | np.isinf(alike[a]), -np.inf, means @ means[a])
            alike[:, a] = alike[a]
            # Group b is no more, and whoever was apart from it is apart from a.
            alike[b] = alike[:, b] = -np.inf
            groups[known[a].id] |= groups.pop(known[b].id)
    _number(tracks, list(groups.values()))


def _number(tracks: Sequence[Track], groups: list[set[int]]) -> None:
    groups.sort(key=min)
    person = {id: number for number, group in enumerate(groups) for id in group}
    for track in tracks:
        track.person = person[track.id]


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6), np.float64)
