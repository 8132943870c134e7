"""Reading a mark: from one picture, or from many frames of one video, whose evidence adds up."""

import cv2
import numpy as np

from facekit.types import Pixels
from facekit.watermark import search as searching
from facekit.watermark import spread
from facekit.watermark.payload import Reading

_KEPT = 16
"""Pictures that a search looks at."""


class Listener:
    """Gathers the evidence of one picture, or of frames of one video, and decides once."""

    def __init__(self, key: bytes = spread.DEFAULT_KEY) -> None:
        self._of = spread.code(key)
        self._sum = np.zeros((spread.PERIOD, spread.PERIOD // 2 + 1), np.complex64)
        self._frames = 0
        self._shape: tuple[int, ...] | None = None
        self._kept: list[Pixels] = []
        self._every = 1
        self._reduced = 1.0

    def add(self, pixels: Pixels) -> None:
        """Take in a picture: uint8 RGB (H, W, 3) of any size.

        Raises:
            ValueError: if it is not of the size of those before it.
        """
        if self._shape not in (None, pixels.shape):
            raise ValueError(f"a picture of shape {pixels.shape} among such of {self._shape}")
        self._shape = pixels.shape
        # Of a strip, a part will do: brought to the mark's scale, it would be vast.
        limit = spread.LONGEST * min(pixels.shape[:2])
        luma = spread.grey(pixels[:limit, :limit])
        self._sum += spread.spectrum(spread.flatten(spread.to_period(luma)))
        if self._frames % self._every == 0:
            self._reduced = min(1.0, searching.SIDE / min(luma.shape))
            self._kept.append(_reduce(luma, self._reduced))
            if len(self._kept) > _KEPT:
                # Every second one, so that those that stay are spread evenly over the video.
                self._kept = self._kept[::2]
                self._every *= 2
        self._frames += 1

    def decide(self, *, search: bool = True) -> Reading:
        """Whether a mark is in what was added.

        Args:
            search: where no payload is found in pictures as they are, look whether they were
                cropped, scaled with that, or turned a little. Half of the chance of an error is
                set apart for it.
        """
        sought = search and self._frames > 0
        side = min(self._shape[:2]) if self._shape else spread.PERIOD
        aligned = spread.decide(
            spread.values(self._sum, spread.held(self._of, side)),
            frames=self._frames,
            share=0.5 if sought else 1.0,
        )
        if aligned.payload or not sought:
            return aligned
        found = searching.find(self._kept, self._of, frames=self._frames, reduced=self._reduced)
        # Of two readings that found no payload, the surer one.
        return found if found.payload or found.p_value < aligned.p_value else aligned


def read(pixels: Pixels, key: bytes = spread.DEFAULT_KEY, *, search: bool = True) -> Reading:
    """Look for a mark in a picture: uint8 RGB (H, W, 3) of any size.

    Args:
        pixels: the picture.
        key: the secret; the published one by default.
        search: also look for crops, scales and small turns; see :meth:`Listener.decide`.
    """
    listener = Listener(key)
    listener.add(pixels)
    return listener.decide(search=search)


def _reduce(luma: Pixels, scale: float) -> Pixels:
    if scale == 1.0:
        return luma
    height, width = luma.shape
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA), np.uint8)
