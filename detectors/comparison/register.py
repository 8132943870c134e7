"""Which pixel of one picture is which of another, if both come from the same source.

Features are matched (SIFT: Lowe, IJCV 2004; square-rooted: Arandjelović & Zisserman, CVPR 2012), as
the second picture stands and mirrored; of the matches that agree on one similarity (RANSAC) an
affine map is refined on the pixels (ECC: Evangelidis & Psarakis, PAMI 2008). Beside what features
find, "one was scaled to the other's size" is tried, for pictures too smooth or small to have any.

What counts is not the number of matches but whether, after alignment, fine detail is the same: two
portraits, or two photos of one person, agree in the large and not in the small.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.types import Pixels

Matrix = NDArray[np.float64]
Plane = NDArray[np.float32]

SIDE = 640
"""Pixels of the longer side of what two pictures are compared on."""

_SEARCHED = 800  # pixels of the longer side in which features are looked for
_FEATURES = 3000
_RATIO = 0.8
_REACH = 3.0  # pixels that a match may be off
_FEWEST = 8  # matches that agree
_REFINED = 320  # pixels of the longer side that ECC sees
_SCALES = (1 / 16, 16.0)
_BEYOND_CHANCE = 0.8  # of agreement: no other alignment needs to be tried
_SMALLEST = 24  # pixels of the shorter side of what is compared


@dataclass(frozen=True)
class Alignment:
    """How a picture A lies in a picture B.

    Attributes:
        b_from_a: (2, 3), maps (x, y, 1) of A to (x, y) of B; pixel centres lie at integers + 0.5.
        matches: features that agree on it.
        agreement: mean correlation of fine detail where both pictures have any, from -1 to 1; 0 if
            they have none.
        detailed: share of the common area in which both have fine detail.
    """

    b_from_a: Matrix
    matches: int
    agreement: float
    detailed: float

    @property
    def mirrored(self) -> bool:
        """Whether left and right are swapped."""
        return bool(np.linalg.det(self.b_from_a[:, :2]) < 0)

    @property
    def scale(self) -> float:
        """Pixels of B to a pixel of A."""
        return math.sqrt(abs(float(np.linalg.det(self.b_from_a[:, :2]))))


@dataclass(frozen=True)
class Overlaid:
    """Two pictures on one canvas: what they share, no finer than the coarser one.

    Attributes:
        a, b: uint8 RGB (H, W, 3).
        common: bool (H, W), where both have pixels.
        canvas_from_a: (2, 3).
    """

    a: Pixels
    b: Pixels
    common: NDArray[np.bool_]
    canvas_from_a: Matrix


def align(a: Pixels, b: Pixels) -> Alignment | None:
    """The alignment under which most fine detail agrees; None if there is none to be tried.

    Args:
        a: uint8 RGB (H, W, 3).
        b: likewise, of any size.
    """
    best: Alignment | None = None
    for guess, matches in _guesses(a, b):
        one = _judged(a, b, guess, matches)
        if one is not None and (best is None or one.agreement > best.agreement):
            best = one
        if best is not None and best.agreement > _BEYOND_CHANCE:
            break
    return best


def overlay(a: Pixels, b: Pixels, b_from_a: Matrix, side: int = SIDE) -> Overlaid | None:
    """Both pictures on a canvas about what they share; None if that is next to nothing.

    Args:
        a: uint8 RGB (H, W, 3).
        b: likewise.
        b_from_a: (2, 3), as in :class:`Alignment`.
        side: pixels of the canvas's longer side at most.
    """
    height, width = a.shape[:2]
    corners = apply(inverse(b_from_a), _corners(b))
    x0, y0 = np.maximum(corners.min(axis=0), 0)
    x1, y1 = np.minimum(corners.max(axis=0), [width, height])
    scale = math.sqrt(abs(float(np.linalg.det(b_from_a[:, :2]))))
    zoom = min(1.0, scale, side / max(x1 - x0, y1 - y0, 1.0))
    size = (round((x1 - x0) * zoom), round((y1 - y0) * zoom))
    if min(size) < _SMALLEST:
        return None
    canvas_from_a = np.array([[zoom, 0, -x0 * zoom], [0, zoom, -y0 * zoom]])
    canvas_from_b = _after(canvas_from_a, inverse(b_from_a))
    whole = _drawn(np.full(b.shape[:2], 255, np.uint8), canvas_from_b, size)
    return Overlaid(
        _drawn(a, canvas_from_a, size), _drawn(b, canvas_from_b, size), whole > 250, canvas_from_a
    )


def grey(pixels: Pixels) -> Plane:
    """Luma, float32 (H, W), 0 to 255."""
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.float32)


def detail(plane: Plane) -> Plane:
    """What remains of a plane without its large shapes and without its finest noise."""
    return np.asarray(
        cv2.GaussianBlur(plane, (0, 0), 0.8) - cv2.GaussianBlur(plane, (0, 0), 3.0), np.float32
    )


def correlation(a: Plane, b: Plane, reach: float = 5.0) -> tuple[Plane, Plane]:
    """How alike the detail of two planes is about each pixel, and how much of it there is.

    Args:
        a: float32 (H, W), as of :func:`detail`.
        b: likewise.
        reach: deviation of the Gaussian over which it is looked at, in pixels.

    Returns:
        (correlation in [-1, 1], the lesser one's root mean square), both (H, W).
    """

    def mean(plane: Plane) -> Plane:
        return np.asarray(cv2.GaussianBlur(plane, (0, 0), reach), np.float32)

    power_a, power_b, shared = mean(a * a), mean(b * b), mean(a * b)
    alike = shared / np.sqrt(np.maximum(power_a * power_b, 1e-2))
    return np.clip(alike, -1, 1), np.sqrt(np.maximum(np.minimum(power_a, power_b), 0))


DETAILED = 1.5
"""Levels of fine detail below which there is none to compare."""


FEWEST_DETAILED = 0.005
"""Of the common area; if less has detail, what there is cannot speak for all."""


def agreement(both: Overlaid) -> tuple[float, float]:
    """Mean correlation of fine detail where both have any, and the share in which they have."""
    alike, power = correlation(detail(grey(both.a)), detail(grey(both.b)))
    where = both.common & (power > DETAILED)
    share = float(where.sum() / max(1, both.common.sum()))
    return (float(alike[where].mean()) if share > FEWEST_DETAILED else 0.0), share


def _judged(a: Pixels, b: Pixels, guess: Matrix, matches: int) -> Alignment | None:
    best = None
    for matrix in (guess, _refined(a, b, guess)):
        both = None if matrix is None else overlay(a, b, matrix)
        if matrix is None or both is None or both.common.mean() < 0.2:
            continue
        mean, share = agreement(both)
        if best is None or mean > best.agreement:
            best = Alignment(matrix, matches, mean, share)
    return best


def _guesses(a: Pixels, b: Pixels) -> Iterator[tuple[Matrix, int]]:
    """Maps from A to B that are worth a try, and how many features agree on each."""
    mirror = np.array([[-1.0, 0, b.shape[1]], [0, 1, 0]])
    stretch = np.array([[b.shape[1] / a.shape[1], 0, 0], [0, b.shape[0] / a.shape[0], 0]])
    points, words = _features(a)
    for turn, pixels in ((None, b), (mirror, np.ascontiguousarray(b[:, ::-1]))):
        matrix, matches = _matched(points, words, *_features(pixels))
        if matrix is not None:
            yield (matrix if turn is None else _after(turn, matrix)), matches
    yield stretch, 0
    yield _after(mirror, stretch), 0


def _features(pixels: Pixels) -> tuple[Plane, Plane]:
    """Points (N, 2) in the picture's pixels, and what is seen about each, (N, 128)."""
    factor = min(1.0, _SEARCHED / max(pixels.shape[:2]))
    plane = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    if factor < 1:
        plane = cv2.resize(plane, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    found, words = cv2.SIFT.create(nfeatures=_FEATURES, contrastThreshold=0.02).detectAndCompute(
        plane, None
    )
    if words is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
    back = np.array([pixels.shape[1] / plane.shape[1], pixels.shape[0] / plane.shape[0]])
    # OpenCV counts from the first pixel's centre.
    points = (np.array([one.pt for one in found]) + 0.5) * back
    words = np.sqrt(words / np.maximum(words.sum(axis=1, keepdims=True), 1e-6))
    return points.astype(np.float32), words.astype(np.float32)


def _matched(
    points: Plane, words: Plane, other_points: Plane, other_words: Plane
) -> tuple[Matrix | None, int]:
    """The similarity on which most matches agree, and their number."""
    if min(len(words), len(other_words)) < _FEWEST:
        return None, 0
    nearest = words @ other_words.T
    best = nearest.argmax(axis=1)
    rows = np.arange(len(words))
    first = nearest[rows, best].copy()
    nearest[rows, best] = -1
    second = nearest.max(axis=1)
    # Of unit vectors: distance² = 2 − 2·product.
    sure = (1 - first) < _RATIO**2 * (1 - second)
    if sure.sum() < _FEWEST:
        return None, 0
    source, target = points[sure], other_points[best[sure]]
    span = max(float(np.ptp(target, axis=0).max()), 1.0)
    reach = max(_REACH, _REACH * span / _SEARCHED)
    matrix, inside = cv2.estimateAffinePartial2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=reach, maxIters=5000
    )
    if matrix is None or inside.sum() < _FEWEST:
        return None, 0
    scale = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
    if not _SCALES[0] < scale < _SCALES[1]:
        return None, 0
    return np.asarray(matrix, np.float64), int(inside.sum())


def _refined(a: Pixels, b: Pixels, guess: Matrix) -> Matrix | None:
    """The affine map near a guess under which the pixels agree best; None if there is none."""
    both = overlay(a, b, guess, _REFINED)
    if both is None:
        return None
    step: Any = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-5)
    mask = both.common.astype(np.uint8)
    try:
        _, step = cv2.findTransformECC(
            grey(both.a), grey(both.b), step, cv2.MOTION_AFFINE, stop, mask, 5
        )
    except cv2.error:
        return None  # It did not converge: they have nothing in common there.
    # ECC's map is of pixels counted from their centres.
    turn = step[:, :2].astype(np.float64)
    shift = step[:, 2] + 0.5 - turn @ [0.5, 0.5]
    moved = np.column_stack([turn, shift])
    canvas_from_b = _after(both.canvas_from_a, inverse(guess))
    return _after(inverse(canvas_from_b), _after(moved, both.canvas_from_a))


def _drawn(pixels: Pixels, canvas_from_pixels: Matrix, size: tuple[int, int]) -> Pixels:
    """A picture on a canvas (width, height), filtered where it shrinks."""
    across, down = np.linalg.norm(canvas_from_pixels[:, :2], axis=0)
    height, width = pixels.shape[:2]
    target = (
        max(1, round(width * min(1.0, across))),
        max(1, round(height * min(1.0, down))),
    )
    if target != (width, height):
        pixels = np.asarray(cv2.resize(pixels, target, interpolation=cv2.INTER_AREA), np.uint8)
        stretch = np.array([[width / target[0], 0, 0], [0, height / target[1], 0]])
        canvas_from_pixels = _after(canvas_from_pixels, stretch)
    matrix = canvas_from_pixels.copy()
    matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    border = cv2.BORDER_CONSTANT if pixels.ndim == 2 else cv2.BORDER_REPLICATE
    return np.asarray(
        cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_CUBIC, borderMode=border), np.uint8
    )


def _after(outer: Matrix, inner: Matrix) -> Matrix:
    """The map that first does ``inner``, then ``outer``."""
    turn = outer[:, :2] @ inner[:, :2]
    return np.column_stack([turn, outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def inverse(matrix: Matrix) -> Matrix:
    """The map back, (2, 3)."""
    turn = np.linalg.inv(matrix[:, :2])
    return np.column_stack([turn, -turn @ matrix[:, 2]])


def apply(matrix: Matrix, points: NDArray[np.floating]) -> Matrix:
    """Points (N, 2) mapped."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float64)


def _corners(pixels: Pixels) -> Matrix:
    height, width = pixels.shape[:2]
    return np.array([[0.0, 0], [width, 0], [width, height], [0, height]])
