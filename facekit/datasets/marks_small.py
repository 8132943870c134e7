"""How often the mark is found in pictures too small for its payload to be promised."""

from collections.abc import Iterable

import cv2
import numpy as np

from facekit import watermark
from facekit.core.figures import Figure
from facekit.datasets.marks_attacks import ATTACKS
from facekit.types import Pixels

SIDES = (64, 96, 128, 192)
"""Sides of the squares that are marked, in pixels."""


def measure_small(pictures: Iterable[Pixels]) -> list[Figure]:
    """``mark.small.SIDE``, the share called marked as they are, and ``…_jpeg75``, as JPEG 75.

    Args:
        pictures: uint8 RGB (H, W, 3), larger than any of ``SIDES``; each one's middle square is
            reduced to every side, marked and read.
    """
    names = {side: (f"mark.small.{side}", f"mark.small.{side}_jpeg75") for side in SIDES}
    found: dict[str, list[bool]] = {name: [] for pair in names.values() for name in pair}
    for number, pixels in enumerate(pictures):
        for side, (plain, jpeg) in names.items():
            payload = watermark.Payload(watermark.Kind.TEST_REAL, number)
            marked = watermark.embed(_reduced(pixels, side), payload)
            found[plain].append(watermark.read(marked, search=False).present)
            saved = ATTACKS["jpeg75"](marked, np.random.default_rng(number))
            found[jpeg].append(watermark.read(saved, search=False).present)
    return [Figure(name, float(np.mean(values))) for name, values in found.items()]


def _reduced(pixels: Pixels, side: int) -> Pixels:
    """The middle square at ``side`` pixels."""
    height, width = pixels.shape[:2]
    whole = min(height, width)
    top, left = (height - whole) // 2, (width - whole) // 2
    square = pixels[top : top + whole, left : left + whole]
    return np.asarray(cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
