"""What the mark is measured on: pictures whose sides are at least 512 pixels, and short clips.

Pictures are those of the London Set, where there is one, studio people, and the pictures that
scikit-image ships. Clips are excerpts of two seconds of the videos of ``DIR/video``; without those,
a window that moves over pictures.
"""

import logging
import math
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from facekit.core.errors import FacekitError
from facekit.datasets.studio import StudioFaces
from facekit.media.decode import Video
from facekit.media.images import IMAGE_SUFFIXES, read_image
from facekit.studio.basis import cache_folder
from facekit.types import Pixels

log = logging.getLogger("facekit")

LEAST = 512
"""The shortest side of a picture that is measured on, in pixels."""

SECONDS = 2.0
"""The length of an excerpt."""

_STUDIO_SEED = 17
_PAN_RATE = 25


def check(data: Path | None) -> None:
    """Refuse a folder that holds nothing to measure on; say what is not in it.

    Raises:
        FacekitError: if ``data`` is no folder, or has neither ``london/`` nor ``video/`` in it.
    """
    if data is None:
        return
    if not data.is_dir():
        raise FacekitError(f"--data {data}: no such folder; give one that holds london/ or video/")
    there = [name for name in ("london", "video") if (data / name).is_dir()]
    if not there:
        raise FacekitError(
            f"--data {data}: holds neither london/ nor video/; give a folder that does"
        )
    for name in {"london", "video"} - set(there):
        log.info("%s: not there; what is bundled serves instead", data / name)


def pictures(data: Path | None = None, *, quick: bool = False) -> Iterator[tuple[str, Pixels]]:
    """Pictures to mark, each with its name, ``SOURCE/NAME``.

    Args:
        data: folder with ``london/``; without it that source is left out.
        quick: one of each source.

    Raises:
        FacekitError: if a picture in ``data`` is damaged.
    """
    most = 1 if quick else None
    if data is not None and (data / "london").is_dir():
        yield from _folder("london", data / "london", most)
    yield from _studio(1 if quick else 40)
    found = find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        log.info("scikit-image is not installed; its pictures are left out")
        return
    yield from _folder("skimage", Path(found.submodule_search_locations[0]) / "data", most)


def _folder(source: str, folder: Path, most: int | None) -> Iterator[tuple[str, Pixels]]:
    """The pictures in a folder that are large enough, by name, at most ``most``."""
    count = 0
    for path in sorted(folder.iterdir()):
        if count == most:
            return
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        pixels = read_image(path)
        if min(pixels.shape[:2]) >= LEAST:
            count += 1
            yield f"{source}/{path.name}", pixels


def _studio(count: int) -> Iterator[tuple[str, Pixels]]:
    """Two frames each of studio people, from the cache once they have been rendered."""
    faces = StudioFaces(
        people=-(-count // 2),
        frames=2,
        size=LEAST,
        seed=_STUDIO_SEED,
        cache=cache_folder() / "marks",
    )
    for index in range(count):
        image = (faces[index]["image"].permute(1, 2, 0).numpy() + 1) * 127.5
        yield f"studio/{index:03d}", np.rint(image).astype(np.uint8)


def excerpts(
    data: Path | None = None, *, quick: bool = False
) -> Iterator[tuple[str, list[Pixels]]]:
    """Excerpts of ``SECONDS``, each with its name, ``CLIP@START``; frames uint8 RGB (H, W, 3).

    Of each clip of ``data/video`` as many as it has, one after the other. Without ``data/video``,
    a window that wanders over each of the first bundled pictures.

    Args:
        data: folder with ``video/``.
        quick: the first quarter of a second of the first clip.

    Raises:
        FacekitError: if a clip cannot be read.
    """
    seconds = SECONDS / 8 if quick else SECONDS
    if data is None or not (data / "video").is_dir():
        for name, pixels in islice(pictures(quick=quick), 1 if quick else 8):
            yield f"{name}@0", _wander(pixels, round(seconds * _PAN_RATE))
        return
    clips = sorted((data / "video").glob("*.mp4"))
    if not clips:
        raise FacekitError(f"{data / 'video'}: no .mp4 in it")
    for clip in clips[: 1 if quick else None]:
        yield from _parts(clip, seconds, 1 if quick else None)


def _parts(clip: Path, seconds: float, most: int | None) -> Iterator[tuple[str, list[Pixels]]]:
    """A clip cut into parts of ``seconds``, at most ``most``; a shorter rest is left out."""
    with Video(clip) as video:
        slack = 1.5 / (video.info.rate or 25.0)
        shots: list[Pixels] = []
        number, last = 0, 0.0
        for frame in video:
            if frame.time >= (number + 1) * seconds:
                yield f"{clip.name}@{number * seconds:g}", shots
                shots, number = [], number + 1
                if number == most:
                    return
            shots.append(frame.pixels)
            last = frame.time
        if last + slack >= (number + 1) * seconds:
            yield f"{clip.name}@{number * seconds:g}", shots


def _wander(pixels: Pixels, count: int) -> list[Pixels]:
    """A window of 7/8 of each side that moves along half a circle, by fractions of a pixel."""
    height, width = (side * 7 // 8 for side in pixels.shape[:2])
    free = np.array([pixels.shape[1] - width, pixels.shape[0] - height]) / 2
    middle = np.array([pixels.shape[1] - 1, pixels.shape[0] - 1]) / 2
    phases = math.pi * np.arange(count) / (SECONDS * _PAN_RATE)
    moves = 0.9 * free * np.stack([np.sin(phases), np.cos(phases)], -1)
    return [
        np.asarray(cv2.getRectSubPix(pixels, (width, height), place), np.uint8)
        for place in (middle + moves).tolist()
    ]
