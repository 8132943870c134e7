"""How a user's photos and videos are looked at: settings, and the stage that goes with them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from facekit.faces.locate import Locator, load_locator, locate_turned
from facekit.faces.track import Tracker
from facekit.types import Face, Frame, Pixels

PHOTO_SIDE = 1920
"""Photos are shrunk to this longer side before faces are looked for …"""

VIDEO_SIDE = 960
"""… and frames to this: in 1080p faces of 40 pixels are found, at a quarter of the cost."""


@dataclass(frozen=True)
class Looking:
    """How to look for faces.

    Attributes:
        min_face: smallest face to look for, in pixels of the input.
        every: the locator runs on every so many frames of a video.
        locator: a plug-in of ``facekit/faces/locators``.
        locator_weights: the user's own file, for a plug-in that brings none.
    """

    min_face: int = 40
    every: int = 8
    locator: str = "mtcnn"
    locator_weights: Path | None = None


@lru_cache(maxsize=1)
def photo_stage(looking: Looking, device: torch.device) -> "Stage":
    """The stage for photos, which may lie on their side; loaded once a process.

    Raises:
        FacekitError: for an unknown locator, or weights that it lacks or cannot read.
    """
    return Stage(device, locator=_AnyWayUp(_locator(looking, device, PHOTO_SIDE)))


@lru_cache(maxsize=1)
def video_stage(looking: Looking, device: torch.device) -> "Stage":
    """The stage for videos, one after the other; loaded once a process.

    Raises:
        FacekitError: as :func:`photo_stage`.
    """
    return Stage(device, locator=_locator(looking, device, VIDEO_SIDE), every=looking.every)


@dataclass(frozen=True)
class _AnyWayUp:
    """A locator that turns photos until it finds a face."""

    locator: Locator

    def locate(self, images: Sequence[Pixels]) -> list[list[Face]]:
        return locate_turned(self.locator, images)


def _locator(looking: Looking, device: torch.device, max_side: int) -> Locator:
    return load_locator(
        device,
        looking.locator,
        min_face=looking.min_face,
        max_side=max_side,
        weights=looking.locator_weights,
    )


@dataclass(frozen=True)
class Seen:
    frame: Frame
    faces: list[Face]
    ids: list[int]
    located: bool
    cut: bool


class Stage:
    def __init__(
        self,
        device: torch.device,
        *,
        locator: Locator | None = None,
        min_face: int = 40,
        max_side: int = 640,
        every: int = 8,
    ) -> None:
        self._locator = locator or load_locator(device, min_face=min_face, max_side=max_side)
        self._every = every
        self.tracks: list[Any] = []

    def look(self, images: Sequence[Pixels]) -> list[list[Face]]:
        return self._locator.locate(images)

    def follow(self, frames: Iterable[Frame]) -> Iterator[Seen]:
        faces: list[Face] = []
        self._tracker = Tracker()
        for n, frame in enumerate(frames):
            located = n % self._every == 0
            if located:
                faces = self._locator.locate([frame.pixels])[0]
            ids = self._tracker.update(faces, frame.time, frame.index)
            yield Seen(frame, faces, ids, located, False)
        self.tracks = self._tracker.tracks
        for track in self.tracks:
            track.person = track.id
