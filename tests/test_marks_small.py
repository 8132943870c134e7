"""How often small pictures hold the mark: the measurement itself."""

import numpy as np
import pytest
from skimage import data

from facekit import watermark
from facekit.datasets.marks_small import SIDES, measure_small

NAMES = [f"mark.small.{side}{how}" for side in SIDES for how in ("", "_jpeg75")]


def test_calm_pictures_hold_it_from_128_pixels_on():
    figures = {row.name: row.value for row in measure_small([data.chelsea()])}
    assert list(figures) == NAMES
    assert all(figures[f"mark.small.{side}"] == 1.0 for side in (128, 192))
    assert figures["mark.small.192_jpeg75"] == 1.0


def test_shares_are_counted_by_side(monkeypatch: pytest.MonkeyPatch):
    """With a mark that half of the pictures hold, and none at 64 pixels."""
    dark, light = np.zeros((300, 400, 3), np.uint8), np.full((400, 300, 3), 200, np.uint8)

    def read(pixels, *, search):
        seen = bool(len(pixels) > 64 and pixels.mean() > 100)
        return watermark.Reading(seen, None, 0.0 if seen else 1.0, None, 1, tests=6)

    monkeypatch.setattr(watermark, "embed", lambda pixels, payload: pixels)
    monkeypatch.setattr(watermark, "read", read)
    values = [row.value for row in measure_small([dark, light])]
    assert values == [0.0, 0.0] + [0.5] * 6
