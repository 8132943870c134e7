"""Where two aligned pictures differ, once what all of a picture shares is set aside.

Set aside are: a change of tone (brightness, contrast, colour balance, saturation), which is fitted
over the whole, robustly; and what compression and scaling do, which grows with the local contrast:
how much, is taken from the two pictures themselves. What stands out above both, over an area, has
been changed in one of them, or moved.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.comparison.register import DETAILED, Overlaid, Plane, correlation, detail, grey
from facekit.types import Pixels

_Mask = NDArray[np.bool_]

_ROUNDS = 12
_SAMPLES = 6000  # pixels by which tone is fitted
_STANDS_OUT = 4.0  # times what the two pictures commonly differ at the same contrast
_LEVELS = 7.0  # of 255, below which nothing is a change
_APART = 0.5  # of correlation below what is common
_SMALLEST = 0.0008  # of the common area
_BINS = 12
_GREY = 2.5  # levels of colour, in the mean
_CLIPPED = 40.0  # levels that may be lost beyond white and black
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_EDGE = 4  # pixels at the border of what is common, where warping blurs


@dataclass(frozen=True)
class Tone:
    """A change of tone from B to A that holds for the whole picture.

    Attributes:
        weights: (10, 3), of the terms of :func:`_terms`.
        brightness: mean levels by which A is brighter than B.
        contrast: A's contrast over B's.
        colour: A's saturation over B's.
    """

    weights: NDArray[np.float64]
    brightness: float
    contrast: float
    colour: float

    def apply(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """B's colours as A has them: float32 (H, W, 3), 0 to 255."""
        shape = pixels.shape
        mapped = _terms(pixels.reshape(-1, 3)) @ self.weights.astype(np.float32)
        return np.asarray(np.clip(mapped.reshape(shape), 0, 255), np.float32)


@dataclass(frozen=True)
class Difference:
    """Where two pictures on one canvas differ.

    Attributes:
        heat: float32 (H, W), 0 to 1: 0.5 is where a difference begins to count.
        changed: bool (H, W).
        boxes: x0, y0, x1, y1 of the changed areas, in pixels of the canvas, largest first.
        share: of the common area that is changed.
        error: median levels by which the rest differs, after tone is matched.
    """

    heat: NDArray[np.float32]
    changed: _Mask
    boxes: list[tuple[int, int, int, int]]
    share: float
    error: float


def match_tone(both: Overlaid) -> Tone:
    """The change of tone from B to A, fitted where the two otherwise agree."""
    a = cv2.GaussianBlur(both.a, (0, 0), 1.5).astype(np.float32)
    b = cv2.GaussianBlur(both.b, (0, 0), 1.5).astype(np.float32)
    places = np.flatnonzero(both.common)
    places = places[:: max(1, len(places) // _SAMPLES)]
    target = a.reshape(-1, 3)[places].astype(np.float64)
    source = b.reshape(-1, 3)[places].astype(np.float64)
    terms = _terms(source)
    alike, power = correlation(detail(grey(both.a)), detail(grey(both.b)))
    # What differs in structure says nothing of tone; and a large wall is no more than a small face.
    trusted = ((alike > 0.5) | (power < DETAILED)).ravel()[places] / np.sqrt(_commonness(source))
    weights = trusted + 1e-3
    # A ridge towards "nothing changed": colours that do not occur are not extrapolated wildly.
    unchanged = np.zeros((terms.shape[1], 3))
    unchanged[1:4] = np.eye(3)
    ridge = 1e-4 * len(places) * np.eye(terms.shape[1])
    fitted: NDArray[np.float64] = unchanged
    for _ in range(_ROUNDS):
        left = terms.T @ (weights[:, None] * terms) + ridge
        right = terms.T @ (weights[:, None] * (target / 255)) + ridge @ (unchanged / 255)
        fitted = np.linalg.solve(left, right) * 255
        off = np.abs(terms @ fitted - target).max(axis=1)
        spread = max(1.0, 1.4826 * float(np.median(off)))
        # Tukey's weights: what is off by far counts nothing.
        weights = (trusted + 1e-3) * np.clip(1 - (off / (5 * spread)) ** 2, 0, None) ** 2
    return Tone(fitted, *_told(source, np.clip(terms @ fitted, 0, 255)))


def differ(both: Overlaid, tone: Tone) -> Difference:
    """Where the pictures differ, after tone is matched."""
    a = cv2.GaussianBlur(both.a.astype(np.float32), (0, 0), 1.2)
    b = cv2.GaussianBlur(tone.apply(both.b.astype(np.float32)), (0, 0), 1.2)
    # What was clipped to white or black cannot be brought back.
    clipped = _clipped(both.a) | _clipped(both.b)
    apart = np.abs(a - b)
    if min(_colour(both.a), _colour(both.b)) < _GREY:
        # Colour that one of them never had is no local change.
        apart = np.abs((a - b) @ _LUMA)[..., None]
        clipped = np.asarray(clipped.any(axis=2, keepdims=True), bool)
    usual = cv2.GaussianBlur(apart.max(axis=2), (0, 0), 2.5)
    apart = np.where(clipped, np.maximum(apart - _CLIPPED, 0), apart)
    off = cv2.GaussianBlur(apart.max(axis=2), (0, 0), 2.5)
    common = _inner(both.common)
    contrast = np.sqrt(np.minimum(_contrast(a), _contrast(b)))
    expected = _expected(usual, contrast, common)
    levels = np.maximum(_STANDS_OUT * expected, _LEVELS)
    score = off / levels
    alike, power = correlation(detail(grey(both.a)), detail(grey(both.b)))
    textured = common & (power > 2 * DETAILED)
    if textured.any():
        most = float(np.median(alike[textured]))
        # Fine structure that disagrees is a change even where levels differ little.
        unlike = np.where(textured, (most - alike) / _APART, 0.0)
        score = np.maximum(score, np.where(off > 0.6 * _LEVELS, unlike, 0.0))
    score = np.where(common, score, 0.0).astype(np.float32)
    changed, boxes = _areas(score > 1, score, max(30.0, _SMALLEST * common.sum()))
    rest = common & ~changed
    return Difference(
        heat=np.clip(score / 2, 0, 1),
        changed=changed,
        boxes=boxes,
        share=float(changed.sum() / max(1, common.sum())),
        error=float(np.median(off[rest])) if rest.any() else 0.0,
    )


def _terms(colours: NDArray[Any]) -> NDArray[Any]:
    """What a change of tone is made of: any mixture of channels, and each one's own curve."""
    one = colours / 255
    return np.concatenate([np.ones_like(one[:, :1]), colours, 255 * one**2, 255 * one**3], axis=1)


def _commonness(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many of some colours are about like each."""
    coarse = (colours // 32).astype(np.int64) @ [64, 8, 1]
    return np.asarray(np.bincount(coarse, minlength=512)[coarse], np.float64)


def _colour(pixels: Pixels) -> float:
    """Mean distance from grey, in levels."""
    return float(np.abs(pixels - (pixels @ _LUMA)[..., None]).mean())


def _clipped(pixels: Pixels) -> _Mask:
    """Where each channel lies at the end of its scale, or next to such a pixel."""
    ends = ((pixels > 250) | (pixels < 5)).astype(np.uint8)
    return np.asarray(cv2.dilate(ends, np.ones((5, 5), np.uint8)), bool)


def _told(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[float, float, float]:
    """Brightness added, and the factors of contrast and of saturation."""
    old, new = before @ _LUMA, after @ _LUMA

    def colour(pixels: NDArray[np.float64], grey: NDArray[np.float64]) -> float:
        return float(np.abs(pixels - grey[:, None]).mean())

    return (
        float((new - old).mean()),
        float(new.std() / max(old.std(), 1e-3)),
        colour(after, new) / max(colour(before, old), 0.5),
    )


def _contrast(pixels: NDArray[Any]) -> Plane:
    luma = pixels @ _LUMA
    across, down = cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1)
    return np.asarray(cv2.GaussianBlur(across * across + down * down, (0, 0), 2.5), np.float32)


def _expected(off: Plane, contrast: Plane, common: _Mask) -> Plane:
    """By how much the pictures commonly differ at each pixel's contrast."""
    values, levels = contrast[common], off[common]
    if not len(values):
        return np.ones_like(off)
    # Equal values fall into one bin.
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)))
    if len(edges) < 2:
        return np.full_like(off, max(0.7, float(np.median(levels))))
    middles, medians = [], []
    for low, high in pairwise(edges):
        inside = (values >= low) & (values <= high)
        if not inside.any():
            continue
        middles.append(float(np.median(values[inside])))
        medians.append(float(np.median(levels[inside])))
    # More contrast never means less of a difference: a bin that says so holds a change.
    typical = np.minimum.accumulate(medians[::-1])[::-1]
    return np.interp(contrast, middles, np.maximum(typical, 0.7)).astype(np.float32)


def _inner(common: _Mask) -> _Mask:
    kernel = np.ones((2 * _EDGE + 1, 2 * _EDGE + 1), np.uint8)
    framed = np.pad(common.astype(np.uint8), 1)
    return cv2.erode(framed, kernel)[1:-1, 1:-1].astype(bool)


def _areas(
    over: _Mask, score: Plane, least: float
) -> tuple[_Mask, list[tuple[int, int, int, int]]]:
    """Areas that are large enough, or outstanding; near ones are one."""
    joined = cv2.morphologyEx(
        over.astype(np.uint8), cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    )
    count, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    changed = np.zeros(over.shape, bool)
    found = []
    for number in range(1, count):
        x, y, width, height, _ = (int(value) for value in stats[number])
        inside = (labels == number) & over
        # A faint speck is noise, a strong one is not.
        if not inside.any() or inside.sum() * min(3.0, float(score[inside].mean())) < least:
            continue
        changed |= inside
        found.append((int(inside.sum()), (x, y, x + width, y + height)))
    return changed, [box for _, box in sorted(found, reverse=True)]
