"""Stands in for facekit.faces.stage until that is there."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from facekit.faces.locate import Locator, load_locator
from facekit.faces.track import Tracker
from facekit.types import Face, Frame, Pixels


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


def measure(images: Sequence[Pixels], faces: Sequence[Sequence[Face]]) -> list[list[Face]]:
    try:
        found: list[list[Face]] = import_module("facekit.faces.quality").measure(images, faces)
        return found
    except ImportError:
        return [list(some) for some in faces]
