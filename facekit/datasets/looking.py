"""How a user's photos and videos are looked at: settings, and the stage that goes with them."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from facekit.faces.embed import Embedder, load_embedder
from facekit.faces.landmarks import Landmarker
from facekit.faces.locate import Locator, load_locator
from facekit.faces.stage import Stage

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
def photo_stage(looking: Looking, device: torch.device) -> Stage:
    """The stage for photos; loaded once a process.

    Raises:
        FacekitError: for an unknown locator, or weights that it lacks or cannot read.
    """
    return _stage(device, _locator(looking, device, PHOTO_SIDE), looking.every)


@lru_cache(maxsize=1)
def video_stage(looking: Looking, device: torch.device) -> Stage:
    """The stage for videos, one after the other; loaded once a process.

    Raises:
        FacekitError: as :func:`photo_stage`.
    """
    return _stage(device, _locator(looking, device, VIDEO_SIDE), looking.every)


def _stage(device: torch.device, locator: Locator, every: int) -> Stage:
    landmarker, embedder = _networks(device)
    return Stage(device, locator=locator, landmarker=landmarker, embedder=embedder, every=every)


@lru_cache(maxsize=1)
def _networks(device: torch.device) -> tuple[Landmarker, Embedder]:
    return Landmarker(device), load_embedder(device)


def _locator(looking: Looking, device: torch.device, max_side: int) -> Locator:
    return load_locator(
        device,
        looking.locator,
        min_face=looking.min_face,
        max_side=max_side,
        weights=looking.locator_weights,
    )
