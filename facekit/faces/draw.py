"""Draw what is known of faces onto their pictures, to be looked at by a person."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

from facekit.types import Face, Landmarks, Pixels

COLOURS = (
    (86, 180, 233),
    (240, 165, 20),
    (30, 200, 140),
    (240, 130, 195),
    (240, 228, 66),
    (245, 110, 60),
    (180, 140, 255),
    (205, 205, 205),
)
"""By number, then again from the first: light, and apart for the colour-blind too (the first
ones are Okabe and Ito's, 2008)."""

_AXES = {"x": (255, 95, 85), "up": (110, 225, 95), "forward": (90, 150, 255)}
_INK = (16, 18, 22)
_PALE = (245, 245, 245)

# iBUG-68's lines, each from its first point to its last; closed ones return to the first.
_OPEN_LINES = ((0, 17), (17, 22), (22, 27), (27, 31), (31, 36))
_CLOSED_LINES = ((36, 42), (42, 48), (48, 60), (60, 68))
_IRISES = ((36, 42, 68), (42, 48, 69))  # each eye's points, and its iris

_CLOSED = 0.17  # eyes that are less open show no iris
_SHIFT = 4  # OpenCV's fixed point: sixteenths of a pixel
_TINY = 28  # pixels: smaller faces get a box and five dots; then a number as well …
_SMALL = 36  # … from here their name, landmarks and axes …
_PLAIN = 90  # … and from here their figures


@dataclass(frozen=True)
class Shown:
    """A face as it is drawn.

    Attributes:
        face: in the picture's coordinates; landmarks and quality are drawn where it has them.
        name: written above it; empty for none.
        number: gives it one of ``COLOURS``, and is all that is written on a small face.
    """

    face: Face
    name: str = ""
    number: int = 0

    @property
    def colour(self) -> tuple[int, int, int]:
        """Of its lines and of its name's plate."""
        return COLOURS[self.number % len(COLOURS)]


def annotate(pixels: Pixels, shown: Sequence[Shown], *, caption: str = "") -> Pixels:
    """A copy of a picture with boxes, names, landmarks, head pose and quality drawn in.

    Lines and letters grow with the picture's shorter side, so that they can be read in small
    pictures and do not get lost in large ones. Points that are probably hidden are hollow.

    Args:
        pixels: uint8 RGB (H, W, 3).
        shown: the faces; the later ones are drawn over the earlier.
        caption: written into the top left corner, above the key to the axes of head pose.
    """
    canvas = np.ascontiguousarray(pixels).copy()
    unit = _unit(canvas)
    for one in shown:
        _draw_marks(canvas, one, unit)
    for one in shown:
        _draw_names(canvas, one, unit)
    posed = any(one.face.landmarks and one.face.size >= _SMALL for one in shown)
    _draw_legend(canvas, caption, unit, axes=posed)
    return canvas


def placed(shown: Shown, factor: float, offset: tuple[float, float] = (0.0, 0.0)) -> Shown:
    """The same face where its picture is drawn ``factor`` times as large, moved by ``offset``."""
    by, to = np.float32(factor), np.array(offset, np.float32)
    face, landmarks = shown.face, shown.face.landmarks
    if landmarks is not None:
        landmarks = replace(landmarks, points=landmarks.points * by + to)
    box = face.box * by + np.tile(to, 2)
    face = replace(face, box=box, points=face.points * by + to, landmarks=landmarks)
    return replace(shown, face=face)


def _unit(canvas: Pixels) -> float:
    """Pixels to a unit of drawing: 1 at 540 lines."""
    return float(np.clip(min(canvas.shape[:2]) / 540, 0.75, 6))


def _letters(unit: float) -> int:
    return max(11, round(13 * unit))


def _draw_marks(canvas: Pixels, one: Shown, unit: float) -> None:
    face = one.face
    fine = min(float(np.clip(face.size / 160, 0.5, 1.2)) * unit, max(0.5, face.size / 110))
    _lines(canvas, [_corners(face.box)], one.colour, 1.4 * fine, closed=True)
    if face.landmarks is None or face.size < _SMALL:
        _dots(canvas, face.points, one.colour, max(1.2, 2.2 * fine))
        return
    _draw_axes(canvas, face, fine)
    _draw_landmarks(canvas, face.landmarks, one.colour, fine)


def _draw_landmarks(
    canvas: Pixels, landmarks: Landmarks, colour: tuple[int, int, int], fine: float
) -> None:
    points = landmarks.points
    _lines(canvas, [points[a:b] for a, b in _OPEN_LINES], _PALE, 0.8 * fine)
    _lines(canvas, [points[a:b] for a, b in _CLOSED_LINES], _PALE, 0.8 * fine, closed=True)
    seen = landmarks.visible >= 0.5
    _dots(canvas, points[:68][seen[:68]], colour, 1.3 * fine)
    _dots(canvas, points[:68][~seen[:68]], colour, 1.3 * fine, hollow=True)
    for (first, last, iris), openness in zip(_IRISES, landmarks.eyes, strict=True):
        if openness < _CLOSED:
            continue
        eye = points[first:last]
        # An iris is about two fifths as wide as the opening between the corners of the eye.
        radius = max(1.5, 0.2 * float(np.linalg.norm(np.ptp(eye, axis=0))))
        _dots(canvas, points[iris : iris + 1], colour, radius, hollow=True)


def _draw_axes(canvas: Pixels, face: Face, fine: float) -> None:
    if face.landmarks is None:
        return
    origin = face.points[2].astype(np.float64)
    for axis, colour in zip(_axes(face.landmarks.pose), _AXES.values(), strict=True):
        tip = origin + 0.42 * face.size * axis
        _arrow(canvas, origin, tip, colour, 1.8 * fine)


def _axes(pose: tuple[float, float, float]) -> NDArray[np.float64]:
    """The picture's (x, y) of the head's unit axes x, up and forward: (3, 2).

    The head is rolled, then pitched, then turned; x to the right, y down.
    """
    sy, sp, sr = np.sin(np.radians(pose))
    cy, cp, cr = np.cos(np.radians(pose))
    right = [cy * cr + sy * sp * sr, cp * sr]
    up = [cy * sr - sy * sp * cr, -cp * cr]
    return np.array([right, up, [sy * cp, -sp]])


def _draw_names(canvas: Pixels, one: Shown, unit: float) -> None:
    face, letters = one.face, _letters(unit)
    x0, y0, _, y1 = (float(value) for value in face.box)
    if not one.name or face.size < _TINY:
        return
    if face.size < _SMALL * max(1.0, unit / 2):
        small = max(9, round(0.75 * letters))
        _write(canvas, [str(one.number)], (x0, y0), small, _INK, one.colour, above=True)
        return
    _write(canvas, [one.name], (x0, y0), letters, _INK, one.colour, above=True)
    said = _figures(face)
    if said and face.size >= _PLAIN * max(1.0, unit / 2):
        _write(canvas, said, (x0, y1), max(10, round(0.85 * letters)), _PALE, None)


def _figures(face: Face) -> list[str]:
    """Head pose and quality in words, a few to a line."""
    said = []
    pose = face.landmarks.pose if face.landmarks else None
    if pose is not None:
        said.append("yaw {:+d}° · pitch {:+d}° · roll {:+d}°".format(*map(round, pose)))
    if face.quality is not None:
        q = face.quality
        said.append(f"{q.size:.0f} px · blur {q.blur:.1f} · light {q.exposure:.0%}")
        said.append(f"clip {q.clipped:.0%} · cover {q.occlusion:.0%} · blocks {q.compression:.0%}")
    return said


def _draw_legend(canvas: Pixels, caption: str, unit: float, *, axes: bool) -> None:
    letters = _letters(unit)
    bottom = 0.0
    if caption:
        bottom = _write(canvas, [caption], (0.0, 0.0), letters, _PALE, None)
    if axes:
        x, small = 0.0, max(10, round(0.85 * letters))
        for name, colour in (("head axes", _PALE), *_AXES.items()):
            _write(canvas, [name], (x, bottom), small, colour, None)
            x += _sprite((name,), small)[0].shape[1]


def _write(
    canvas: Pixels,
    lines: Sequence[str],
    place: tuple[float, float],
    letters: int,
    ink: tuple[int, int, int],
    plate: tuple[int, int, int] | None,
    *,
    above: bool = False,
) -> float:
    """Write lines on a plate, dark and translucent without colour; returns its lower edge.

    ``place`` is the plate's top left corner, or its bottom left with ``above``; it is moved so that
    all of it lies in the picture, where that is large enough.
    """
    cover, height = _sprite(tuple(lines), letters)
    x, y = round(place[0]), round(place[1]) - (height if above else 0)
    x = max(0, min(x, canvas.shape[1] - cover.shape[1]))
    y = max(0, min(y, canvas.shape[0] - height))
    part = canvas[y : y + height, x : x + cover.shape[1]]
    cover = cover[: part.shape[0], : part.shape[1], None]
    ground = part * np.float32(0.35) if plate is None else np.array(plate, np.float32)
    part[:] = (ground + (np.array(ink, np.float32) - ground) * cover + 0.5).astype(np.uint8)
    return float(y + height)


@lru_cache(maxsize=512)
def _sprite(lines: tuple[str, ...], letters: int) -> tuple[NDArray[np.float32], int]:
    """How much of each pixel of a plate its letters cover, in [0, 1], and the plate's height."""
    font = _font(letters)
    pad, step = max(2, round(0.3 * letters)), round(1.3 * letters)
    width = round(max(font.getlength(line) for line in lines)) + 2 * pad
    height = step * len(lines) + pad
    cover = np.zeros((height, width), np.float32)
    for row, line in enumerate(lines):
        mask, (left, top) = font.getmask2(line, mode="L")
        glyphs = np.asarray(mask, np.float32).reshape(mask.size[::-1]) / 255
        y, x = row * step + pad // 2 + top, pad + left
        part = cover[y : y + glyphs.shape[0], x : x + glyphs.shape[1]]
        part[:] = glyphs[: part.shape[0], : part.shape[1]]
    return cover, height


@lru_cache(maxsize=8)
def _font(letters: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(letters)
    assert isinstance(font, ImageFont.FreeTypeFont)  # what Pillow gives for a size
    return font


def _corners(box: NDArray[np.float32]) -> NDArray[np.float32]:
    x0, y0, x1, y1 = box
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)


def _fixed(points: NDArray[np.floating]) -> NDArray[np.int32]:
    """Points as OpenCV takes them: its pixel centres lie at whole numbers, ours at halves."""
    # Far outside nothing is seen, and its integers overflow.
    near = np.clip(points - 0.5, -20_000, 20_000)
    fixed: NDArray[np.int32] = np.round(near * (1 << _SHIFT)).astype(np.int32)
    return fixed


def _lines(
    canvas: Pixels,
    lines: Sequence[NDArray[np.floating]],
    colour: tuple[int, int, int],
    width: float,
    *,
    closed: bool = False,
) -> None:
    """Smooth lines on a darker edge, so that they are seen on any ground."""
    fixed = [_fixed(line) for line in lines]
    thick = max(1, round(width))
    cv2.polylines(canvas, fixed, closed, _INK, thick + 2, cv2.LINE_AA, _SHIFT)
    cv2.polylines(canvas, fixed, closed, colour, thick, cv2.LINE_AA, _SHIFT)


def _dots(
    canvas: Pixels,
    points: NDArray[np.floating],
    colour: tuple[int, int, int],
    radius: float,
    *,
    hollow: bool = False,
) -> None:
    size, edge = round(radius * (1 << _SHIFT)), 1 << _SHIFT
    for x, y in _fixed(points).tolist():
        if hollow:
            cv2.circle(canvas, (x, y), size, colour, 1, cv2.LINE_AA, _SHIFT)
        else:
            cv2.circle(canvas, (x, y), size + edge * 3 // 4, _INK, -1, cv2.LINE_AA, _SHIFT)
            cv2.circle(canvas, (x, y), size, colour, -1, cv2.LINE_AA, _SHIFT)


def _arrow(
    canvas: Pixels,
    start: NDArray[np.float64],
    tip: NDArray[np.float64],
    colour: tuple[int, int, int],
    width: float,
) -> None:
    """A line with a dot at its end: where it points at the viewer the dot is left."""
    _lines(canvas, [np.stack([start, tip])], colour, width)
    _dots(canvas, tip[None], colour, 1.5 * width)
