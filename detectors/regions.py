"""What a picture shows about one face, at its own resolution: what every detector starts from.

A detector may want a face aligned to a template, or the picture's own pixels as they are. Both are
cut from the same :class:`Region`, so that one search serves all members of an ensemble, and so that
training, scoring and evaluation share one way in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from facekit.faces.align import Matrices, crop_from_faces, draw_crop, invert
from facekit.faces.landmarks import Landmarker
from facekit.faces.locate import Locator, locate_turned
from facekit.types import Face, Pixels

LARGEST = 320
"""Pixels of a region's face (its box's longer side) at most; larger ones are shrunk to it."""

_REACH = 0.5  # of the box's longer side, beyond the box on every side
_PADDING = 0.5  # of a picture's longer side, about one in which no face was found


@dataclass(frozen=True)
class Region:
    """A face and its surroundings.

    Attributes:
        pixels: uint8 RGB (H, W, 3).
        face: in the region's coordinates; with landmarks where they were read.
        scale: pixels of the region to a pixel of the picture; 1 unless the face was too large.
    """

    pixels: Pixels
    face: Face
    scale: float = 1.0


def find(
    images: Sequence[Pixels], locator: Locator, landmarker: Landmarker | None = None
) -> list[list[Region]]:
    """The faces of each picture, largest first, as regions; found as by :func:`locate`."""
    located = locate(images, locator, landmarker)
    return [
        [cut(pixels, face) for face in faces] for pixels, faces in zip(images, located, strict=True)
    ]


def locate(
    images: Sequence[Pixels], locator: Locator, landmarker: Landmarker | None = None
) -> list[list[Face]]:
    """The faces of each picture, largest first, in its coordinates.

    Photos may lie on their side, and a face may fill the whole picture: where none is found, it is
    looked for once more with a grey border about the picture, as locators miss faces that are cut
    off.

    Args:
        images: uint8 RGB (H, W, 3); sizes may differ.
        locator: finds them.
        landmarker: reads their landmarks; None leaves them out, which is quicker.
    """
    located = locate_turned(locator, images)
    for i, faces in enumerate(located):
        if not faces:
            located[i] = _in_border(images[i], locator)
    return landmarker.read(images, located, mirrored=True) if landmarker else located


def _in_border(pixels: Pixels, locator: Locator) -> list[Face]:
    """The faces of a picture, found with a border about it."""
    border = round(_PADDING * max(pixels.shape[:2]))
    edges = (border,) * 4
    # Grey: a mirrored border would show faces of its own.
    padded = cv2.copyMakeBorder(pixels, *edges, cv2.BORDER_CONSTANT, value=(127, 127, 127))
    (found,) = locator.locate([np.asarray(padded, np.uint8)])
    height, width = pixels.shape[:2]
    moved = [moved_by(face, (-border, -border)) for face in found]
    return [
        face
        for face in moved
        if 0 <= face.box[[0, 2]].mean() < width and 0 <= face.box[[1, 3]].mean() < height
    ]


def cut(pixels: Pixels, face: Face) -> Region:
    """The part of a picture about a face.

    Args:
        pixels: uint8 RGB (H, W, 3).
        face: in its coordinates.

    Returns:
        The face's box and half its size on every side, as far as the picture goes.
    """
    reach = _REACH * face.size
    height, width = pixels.shape[:2]
    x0, y0 = np.clip(np.floor(face.box[:2] - reach), 0, [width - 1, height - 1]).astype(int)
    x1, y1 = np.clip(np.ceil(face.box[2:] + reach), [x0 + 1, y0 + 1], [width, height]).astype(int)
    part = Region(pixels[y0:y1, x0:x1].copy(), moved_by(face, (-x0, -y0)))
    return part if face.size <= LARGEST else resized(part, LARGEST / face.size)


def resized(region: Region, factor: float, kind: int | None = None) -> Region:
    """A region enlarged or shrunk by ``factor``; the face goes along.

    ``kind`` is one of OpenCV's interpolations; None means bicubic to enlarge and areas to shrink.
    """
    height, width = region.pixels.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    if size == (width, height):
        return region
    if kind is None:
        kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    pixels = np.asarray(cv2.resize(region.pixels, size, interpolation=kind), np.uint8)
    # Whole pixels: the two axes' factors differ a little.
    exact = np.array(size) / [width, height]
    return Region(pixels, _scaled(region.face, exact), region.scale * factor)


def trimmed(region: Region, margins: Sequence[float]) -> tuple[Region, tuple[slice, slice]]:
    """The region cut closer about its face, as tightly framed pictures are.

    Args:
        region: nothing is added where it ends sooner.
        margins: what is left beyond the face's box at the left, top, right and bottom, each in
            shares of the face's size.

    Returns:
        The smaller region, and the rows and columns of the larger that it is.
    """
    height, width = region.pixels.shape[:2]
    reach = region.face.size * np.asarray(margins)
    x0, y0 = np.clip(np.floor(region.face.box[:2] - reach[:2]), 0, [width - 1, height - 1])
    x1, y1 = np.clip(np.ceil(region.face.box[2:] + reach[2:]), [x0 + 1, y0 + 1], [width, height])
    kept = slice(int(y0), int(y1)), slice(int(x0), int(x1))
    face = moved_by(region.face, (-float(x0), -float(y0)))
    return replace(region, pixels=region.pixels[kept], face=face), kept


def moved_by(face: Face, offset: tuple[float, float]) -> Face:
    """The face with its box, points and landmarks moved by (x, y)."""
    shift = np.array(offset, np.float32)
    landmarks = face.landmarks
    if landmarks:
        landmarks = replace(landmarks, points=landmarks.points + shift)
    return replace(
        face, box=face.box + np.tile(shift, 2), points=face.points + shift, landmarks=landmarks
    )


def _scaled(face: Face, factors: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Face:
    by = factors.astype(np.float32)
    landmarks = face.landmarks
    if landmarks:
        landmarks = replace(
            landmarks,
            points=landmarks.points * by,
            deviation=landmarks.deviation * np.float32(by.mean()),
        )
    return replace(
        face, box=face.box * np.tile(by, 2), points=face.points * by, landmarks=landmarks
    )


def crops(regions: Sequence[Region], template: str, size: int) -> Pixels:
    """Cut what a network sees.

    Args:
        regions: N of them.
        template: of ``facekit.faces.align``; or ``native``: the region's own pixels about the
            middle of the face, neither turned nor resampled, mirrored where the region ends.
        size: side of the crops, in pixels.

    Returns:
        uint8 (N, size, size, 3).

    Raises:
        FacekitError: for an unknown template, or a face whose points are one and the same.
    """
    drawn = np.empty((len(regions), size, size, 3), np.uint8)
    if not regions:
        return drawn
    if template == "native":
        for crop, region in zip(drawn, regions, strict=True):
            crop[:] = _window(region, size)
        return drawn
    matrices = crop_from_faces([region.face for region in regions], template, size)
    for crop, region, inverse in zip(drawn, regions, invert(matrices), strict=True):
        draw_crop(crop, region.pixels, inverse)
    return drawn


def region_from_crop(region: Region, template: str, size: int) -> Matrices:
    """Where the pixels of a crop of :func:`crops` lie in the region: float64 (2, 3)."""
    if template == "native":
        x, y = _corner(region, size)
        return np.array([[1.0, 0.0, x], [0.0, 1.0, y]])
    matrix: Matrices = invert(crop_from_faces([region.face], template, size))[0]
    return matrix


def _window(region: Region, size: int) -> Pixels:
    """The region's own pixels about the middle of the face's points."""
    height, width = region.pixels.shape[:2]
    x, y = _corner(region, size)
    columns, rows = _mirrored(x, size, width), _mirrored(y, size, height)
    window: Pixels = region.pixels[rows[:, None], columns[None, :]]
    return window


def _corner(region: Region, size: int) -> tuple[int, int]:
    """The first pixel of a window about the middle of the face's points, as (x, y)."""
    height, width = region.pixels.shape[:2]
    x, y = np.floor(region.face.points.mean(axis=0) - size / 2).astype(int)
    # Inside where that is possible: the fewer pixels are made up, the better.
    x, y = (
        int(np.clip(at, min(0, side - size), max(0, side - size)))
        for at, side in ((x, width), (y, height))
    )
    return x, y


def _mirrored(start: int, size: int, side: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Indices of ``size`` pixels from ``start`` on, mirrored at the ends of ``side`` pixels."""
    places = np.arange(start, start + size) % (2 * side)
    return np.minimum(places, 2 * side - 1 - places)
