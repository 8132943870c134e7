"""The faces of a manifest folder, located and aligned, in memory."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.datasets.manifest import load_folder
from facekit.faces.align import align_faces
from facekit.faces.landmarks import Landmarker, laid_on
from facekit.faces.locate import load_locator
from facekit.media.decode import Video
from facekit.media.find import VIDEO_SUFFIXES
from facekit.media.images import read_image
from facekit.types import Item, Pixels

log = logging.getLogger("facekit")

T = TypeVar("T")

_AT_ONCE = 16
_PIXELS_AT_ONCE = 16_000_000


@dataclass(frozen=True)
class Crops:
    """Aligned faces with where they come from.

    Attributes:
        images: uint8 RGB (N, S, S, 3).
        matrices: ``crop_from_image``, float64 (N, 2, 3).
        items: of the picture that each crop was cut from.
    """

    images: NDArray[np.uint8]
    matrices: NDArray[np.float64]
    items: list[Item]

    def __len__(self) -> int:
        return len(self.items)


def load_crops(
    folder: Path,
    *,
    template: str,
    size: int,
    device: torch.device,
    items: Sequence[Item] | None = None,
    exactly: bool = False,
    frames: int = 0,
) -> Crops:
    """Locate and align the largest face of every picture of a folder.

    Items that show no face are left out and said so in the log, as are videos, unless ``frames``
    are asked for: make pictures of those with ``facekit align`` first.

    Args:
        folder: with a ``manifest.jsonl``.
        template: a name in ``facekit.faces.align.TEMPLATES``.
        size: side S of the crops, in pixels.
        device: where to compute.
        items: those of the folder's to load; all by default.
        exactly: align by landmarks, not by the locator's points; see
            :func:`facekit.faces.landmarks.laid_on`.
        frames: of each video, taken evenly; their items have the video's path.

    Raises:
        FacekitError: for a bad manifest, or a file that is missing, damaged, or not the one
            whose hash its item gives.
    """
    wanted = list(load_folder(folder) if items is None else items)
    pictures = [item for item in wanted if frames or not is_video(item)]
    if len(pictures) < len(wanted):
        log.info("%s: left out %d videos", folder, len(wanted) - len(pictures))
    total = sum(frames if is_video(item) else 1 for item in pictures)

    locator = load_locator(device)
    landmarker = Landmarker(device) if exactly else None
    aligned, kept, faceless = [], [], []
    with progress(f"Locating faces in {folder.name}", total) as advance:
        opened = (
            (item, pixels)
            for item in pictures
            for pixels in (
                read_frames(folder, item, frames) if is_video(item) else [read_item(folder, item)]
            )
        )
        for chunk in in_chunks(opened, lambda pair: pair[1]):
            shown = [pixels for _, pixels in chunk]
            found = [faces[:1] for faces in locator.locate(shown)]
            if landmarker:
                read = landmarker.read(shown, found, mirrored=True)
                found = [[laid_on(face) for face in faces] for faces in read]
            for (item, pixels), faces in zip(chunk, found, strict=True):
                if not faces:
                    faceless.append(item.path)
                    continue
                aligned += align_faces(pixels, faces, template=template, size=size, device=device)
                kept.append(item)
            advance(len(kept) + len(faceless), "")
    if faceless:
        log.info(
            "%s: no face found in %d of %d pictures, e.g. %s",
            *(folder, len(faceless), len(faceless) + len(kept), faceless[0]),
        )
    return Crops(
        images=np.stack([face.pixels for face in aligned])
        if aligned
        else np.empty((0, size, size, 3), np.uint8),
        matrices=np.array([face.crop_from_image for face in aligned]).reshape(-1, 2, 3),
        items=kept,
    )


def read_item(folder: Path, item: Item) -> Pixels:
    """The picture of an item, which must still be the one that was looked at or consented to.

    Raises:
        FacekitError: if it is missing, damaged, or another one.
    """
    path = folder / item.path
    pixels = read_image(path)
    try:
        same = files.sha256(path) == item.sha256
    except OSError:  # taken away just now
        same = False
    if not same:
        raise FacekitError(
            f"{path}: was changed while it was used: it is not the file that its manifest or its "
            "consent record names; put that back, or begin again"
        )
    return pixels


def is_video(item: Item) -> bool:
    """Whether an item is one, by its name."""
    return Path(item.path).suffix.lower() in VIDEO_SUFFIXES


def read_frames(folder: Path, item: Item, count: int) -> Iterator[Pixels]:
    """Frames of a video, taken evenly, which must still be the one that was let pass.

    Raises:
        FacekitError: if it is missing, damaged, or another one.
    """
    path = folder / item.path
    with Video(path) as video:
        duration = video.info.duration
        times = np.linspace(0, duration or 0, count + 2)[1:-1] if duration else [0.0]
        for time in times:
            yield video.at(float(time)).pixels
    if files.sha256(path) != item.sha256:
        raise FacekitError(f"{path}: was changed while it was used; let it be, and begin again")


def in_chunks(things: Iterable[T], pixels: Callable[[T], Pixels]) -> Iterator[list[T]]:
    """Things a few at a time, fewer where their pictures are large, so that memory is bounded."""
    chunk: list[T] = []
    for thing in things:
        chunk.append(thing)
        if len(chunk) == _AT_ONCE or sum(pixels(t).size for t in chunk) >= 3 * _PIXELS_AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
