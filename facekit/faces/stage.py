"""The face stage: locate and read the faces of pictures, and follow them through a video."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_iou

from facekit.core.ahead import ahead
from facekit.faces.cuts import CutFinder
from facekit.faces.embed import Embedder, load_embedder
from facekit.faces.landmarks import Landmarker, box_of, five_points
from facekit.faces.locate import Locator, load_locator, locate_turned
from facekit.faces.people import SAME_PERSON, Album, identify
from facekit.faces.smooth import Smoother
from facekit.faces.track import Tracker
from facekit.types import Face, Frame, Pixels, Track

# Frames that wait decoded, and that wait located, before they are asked for: while the locator
# takes its time with one, the other threads have work. Of 1080p they take 60 MB.
_DECODED, _SCOUTED = 3, 6
_LEAST = 8  # pixels: landmarks that fall together show no face, and could not be followed
_DOUBTFUL = 1.6  # the points' deviation, relative to what it was when the locator last agreed
_PAUSE = 3  # frames at least between two looks for trouble's sake
_SAME_FACE = 0.3  # intersection over union of the boxes of one face
_MISSES = 3  # looks of the locator in a row that may miss a face which the landmarks still see
_STALE = 0.3  # seconds after which a face may be anywhere, and the locator must say where


class Reader(Protocol):
    """Reads landmarks: :class:`facekit.faces.landmarks.Landmarker`."""

    def read(
        self,
        images: Sequence[Pixels],
        faces: Sequence[Sequence[Face]],
        *,
        mirrored: bool = False,
    ) -> list[list[Face]]:
        """The faces of each picture with their landmarks."""
        ...


@dataclass(frozen=True)
class Seen:
    """What one frame of a video shows.

    Attributes:
        frame: the frame.
        faces: in it, largest first; with landmarks, whose points are smoothed.
        ids: of the tracks that they belong to.
        located: whether the locator looked at this frame.
        cut: whether the frame begins another scene.
    """

    frame: Frame
    faces: list[Face]
    ids: list[int]
    located: bool
    cut: bool


class Stage:
    """Finds, follows and reads faces.

    In a video the locator, the costly part, looks at every ``every``-th frame only, and where
    there is need: after a cut, when a face that was followed is lost or its landmarks grow
    uncertain. Between, the landmark network reads each known face where it is expected.

    Example:
        >>> stage = Stage(torch.device("cpu"))
        >>> with Video(path) as video:
        ...     for seen in stage.follow(video):
        ...         print(seen.frame.time, seen.ids, [face.landmarks.pose for face in seen.faces])
        >>> {track.id: track.person for track in stage.tracks}

    Attributes:
        tracks: of the video that :meth:`follow` went through last, complete at its end, with the
            person that each shows; :class:`facekit.faces.track.Tracker` says what they keep.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        locator: Locator | None = None,
        landmarker: Reader | None = None,
        embedder: Embedder | None = None,
        min_face: int = 40,
        max_side: int = 640,
        every: int = 8,
    ) -> None:
        """Set up the networks.

        Args:
            device: where to compute.
            locator: by default MTCNN with ``min_face`` and ``max_side``.
            landmarker: by default the bundled network.
            embedder: knows people again at a video's end; by default the bundled network.
            min_face: smallest face to look for, in pixels.
            max_side: pictures with a longer side are shrunk to it for the locator.
            every: the locator looks at each so-manieth frame of a video, 1 or more. A new face is
                found after ``every`` - 1 frames at the latest.
        """
        self._device = device
        self._locator = locator or load_locator(device, min_face=min_face, max_side=max_side)
        self._landmarker = landmarker or Landmarker(device)
        self._embedder = embedder or load_embedder(device)
        self._every = every
        self.tracks: list[Track] = []

    def look(self, images: Sequence[Pixels]) -> list[list[Face]]:
        """Locate and read the faces of pictures that have nothing to do with one another.

        Photos on their side or on their head are turned upright for it.

        Args:
            images: uint8 RGB (H, W, 3); sizes may differ.

        Returns:
            For each picture its faces, largest first, with landmarks.
        """
        # A photo has no neighbours in time to smooth with, and is worth twice the work.
        return self._landmarker.read(images, locate_turned(self._locator, images), mirrored=True)

    def follow(self, frames: Iterable[Frame]) -> Iterator[Seen]:
        """Go through a video, frame by frame.

        The frames are fetched, and so decoded, in a thread of their own, and located in another, a
        few ahead; both end with the iteration, however that ends. What is seen does not depend on
        the threads' timing, nor on frames to come.

        Args:
            frames: of one video, in order of time. Where their size changes, a new scene begins.

        Yields:
            One :class:`Seen` for each frame, at once.

        Raises:
            FacekitError: as iterating ``frames`` does.
        """
        locator = _OneByOne(self._locator)
        course = _Course(locator, self._landmarker)
        album = Album(self._embedder, self._device)
        self.tracks = course.tracker.tracks
        scout = _Scout(locator, self._every)
        threads = torch.get_num_threads()
        try:
            with (
                ahead(frames, _DECODED) as fetched,
                ahead(map(scout, fetched), _SCOUTED) as all_scouted,
            ):
                for scouted in all_scouted:
                    # The cores are busy with frames to come: networks that each split their work
                    # among all cores would only wait for one another.
                    torch.set_num_threads(1)
                    open_before = course.tracker.open
                    seen = course.see(scouted)
                    album.add(seen.frame.pixels, seen.frame.time, seen.faces, seen.ids)
                    album.end(sorted(open_before - course.tracker.open))
                    torch.set_num_threads(threads)
                    yield seen
        finally:
            torch.set_num_threads(threads)
        identify(self.tracks, album.vectors(), SAME_PERSON)


class _OneByOne:
    """A locator for two threads, of which one waits for the other: OpenCV's hold a state."""

    def __init__(self, locator: Locator) -> None:
        self._locator = locator
        self._lock = threading.Lock()

    def locate(self, images: Sequence[Pixels]) -> list[list[Face]]:
        with self._lock:
            return self._locator.locate(images)


@dataclass(frozen=True)
class _Scouted:
    """A frame with what does not depend on the faces followed so far."""

    frame: Frame
    cut: bool
    stale: bool  # too long after the frame before for a face to be followed
    located: list[Face] | None  # None where the locator did not look


class _Scout:
    """Looks at frames before the faces are followed into them, in a thread of its own."""

    def __init__(self, locator: Locator, every: int) -> None:
        self._locator = locator
        self._every = every
        self._cuts = CutFinder()
        self._count = 0
        self._time = 0.0

    def __call__(self, frame: Frame) -> _Scouted:
        torch.set_num_threads(1)  # of the networks that run in this thread
        cut = self._cuts.cut(frame.pixels)
        stale = self._count > 0 and frame.time - self._time > _STALE
        look = cut or stale or self._count % self._every == 0
        self._count += 1
        self._time = frame.time
        located = self._locator.locate([frame.pixels])[0] if look else None
        return _Scouted(frame, cut, stale, located)


@dataclass
class _Followed:
    """A face that is followed from frame to frame."""

    face: Face  # as seen last
    id: int | None  # of its track
    smoother: Smoother
    doubt: float  # the points' deviation when the locator last agreed, relative to the face's size
    surprise: float = 0.0  # how far from where it was expected it was read, relative to its size
    misses: int = 0  # looks of the locator in a row that did not find it


class _Course:
    """The faces known at a moment of a video."""

    def __init__(self, locator: Locator, landmarker: Reader) -> None:
        self.tracker = Tracker()
        self._locator = locator
        self._landmarker = landmarker
        self._followed: list[_Followed] = []
        self._since_look = 0
        self._trouble = False

    def see(self, scouted: _Scouted) -> Seen:
        """Follow the known faces into the next frame, and let the locator's finds join them."""
        frame, located = scouted.frame, scouted.located
        if scouted.cut or scouted.stale:
            self._followed = []
        before = len(self._followed)
        self._followed = self._read_on(frame)
        self._since_look += 1
        self._trouble |= len(self._followed) < before or any(map(_doubtful, self._followed))
        if located is None and self._trouble and self._since_look >= _PAUSE:
            located = self._locator.locate([frame.pixels])[0]
        strangers: list[Face] = []
        if located is not None:
            strangers = self._joined(frame, located)
            self._since_look = 0
            self._trouble = bool(strangers)
        self._followed = _apart(self._followed)

        known = [(followed.face, followed) for followed in self._followed]
        shown = [*known, *((face, None) for face in strangers)]
        shown.sort(key=lambda pair: -pair[0].size)
        faces = [face for face, _ in shown]
        ids = self.tracker.update(
            faces,
            frame.time,
            frame.index,
            cut=scouted.cut,
            known=[followed.id if followed else None for _, followed in shown],
        )
        for (_, followed), id in zip(shown, ids, strict=True):
            if followed:
                followed.id = id
        return Seen(frame, faces, ids, located is not None, scouted.cut)

    def _read_on(self, frame: Frame) -> list[_Followed]:
        """Those followed faces that are still there, read where they are expected."""
        expected = []
        for followed in self._followed:
            points = followed.smoother.expected(frame.time)
            expected.append(replace(followed.face, points=five_points(points), box=box_of(points)))
        (read,) = self._landmarker.read([frame.pixels], [expected])
        still = []
        for followed, place, face in zip(self._followed, expected, read, strict=True):
            if _is_there(face, frame.pixels):
                distance = float(np.linalg.norm(_centre(face) - _centre(place)))
                followed.surprise = distance / place.size
                followed.face = _smoothed(face, followed.smoother, frame.time)
                still.append(followed)
        return still

    def _joined(self, frame: Frame, located: list[Face]) -> list[Face]:
        """Compare with what the locator found: new faces are followed from now on.

        Returns:
            Faces that it found but whose landmarks cannot be read, so that nobody can follow them.
        """
        pairs = _pairs([followed.face for followed in self._followed], located)
        for row, followed in enumerate(self._followed):
            if row in pairs:
                followed.misses = 0
                followed.doubt = _doubt(followed.face)
                followed.face = replace(followed.face, score=located[pairs[row]].score)
            else:
                followed.misses += 1
        self._followed = [one for one in self._followed if one.misses < _MISSES]
        new = [face for i, face in enumerate(located) if i not in pairs.values()]
        strangers = []
        for face in self._landmarker.read([frame.pixels], [new])[0]:
            if face.landmarks and _is_there(face, frame.pixels):
                smoother = Smoother(face.landmarks, frame.time)
                self._followed.append(_Followed(face, None, smoother, _doubt(face)))
            else:
                strangers.append(face)
        return strangers


def _smoothed(face: Face, smoother: Smoother, time: float) -> Face:
    if face.landmarks is None:
        return face
    points = smoother.update(face.landmarks, time)
    return replace(
        face,
        box=box_of(points),
        points=five_points(points),
        landmarks=replace(face.landmarks, points=points),
    )


def _is_there(face: Face, pixels: Pixels) -> bool:
    """Whether the landmark network saw a face of some size, its middle within the picture."""
    if face.landmarks is None or not face.landmarks.present or face.size < _LEAST:
        return False
    x, y = _centre(face)
    return bool(0 <= x < pixels.shape[1] and 0 <= y < pixels.shape[0])


def _centre(face: Face) -> NDArray[np.float64]:
    return (face.box[:2].astype(np.float64) + face.box[2:]) / 2


def _doubt(face: Face) -> float:
    return float(face.landmarks.deviation.mean()) / face.size if face.landmarks else 1.0


def _doubtful(followed: _Followed) -> bool:
    return _doubt(followed.face) > _DOUBTFUL * followed.doubt


def _apart(followed: list[_Followed]) -> list[_Followed]:
    """Without those that slipped onto another's face: they are the more surprising ones."""
    kept: list[_Followed] = []
    for one in sorted(followed, key=lambda one: one.surprise):
        if not kept or _overlap([one.face], [other.face for other in kept]).max() < 0.5:
            kept.append(one)
    return kept


def _pairs(faces: Sequence[Face], others: Sequence[Face]) -> dict[int, int]:
    """Which of ``others`` is the same face as which of ``faces``, by place in the lists."""
    overlap = _overlap(faces, others)
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    return {
        int(row): int(column)
        for row, column in zip(rows, columns, strict=True)
        if overlap[row, column] >= _SAME_FACE
    }


def _overlap(faces: Sequence[Face], others: Sequence[Face]) -> NDArray[np.float64]:
    a, b = (
        torch.from_numpy(np.array([face.box for face in row], np.float64).reshape(-1, 4))
        for row in (faces, others)
    )
    return np.asarray(box_iou(a, b).numpy(), np.float64)
