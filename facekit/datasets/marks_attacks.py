"""What happens to pictures and videos on their way, which a mark is to survive.

Each attack is a function of a picture and a random generator; what it leaves to chance (the place
of a window, the way it is turned, noise) is drawn from that generator alone. Nothing is undone
before the mark is read: a picture of half the size is read at half the size, a window as it is.

- ``crop10`` takes 10% off **each side's length**, so 19% of the area (``crop25`` 44%, ``crop40``
  64%): the harder of the two readings of "crop by a quarter" in the literature. The window's place
  is drawn to the pixel, and so is its shape: up to 10% wider or narrower, its area kept.
- ``rotate3`` turns by 3° one way or the other about the centre, on the same canvas; what comes into
  the corners is black. ``rotate`` turns by an angle drawn from -3° to 3°.
- JPEG is written by Pillow with chroma at half resolution (4:2:0) at any quality, as most programs
  do; WebP always has it so.
- H.264 is x264's preset "medium" at a constant rate factor, as facekit itself writes video.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from facekit.media import lossy
from facekit.media.decode import Video
from facekit.media.encode import write_video
from facekit.types import Frame, Pixels

Attack = Callable[[Pixels, np.random.Generator], Pixels]

_STRETCH = 1.1  # a window is at most this much wider or narrower than its even shape


def h264(frames: Sequence[Pixels], rate: float, crf: int) -> list[Pixels]:
    """Frames as they come back from an H.264 file.

    Args:
        frames: uint8 RGB (H, W, 3), all of one size.
        rate: frames a second.
        crf: x264's constant rate factor; the higher, the coarser.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        shots = (Frame(pixels, i / rate, i) for i, pixels in enumerate(frames))
        write_video(path, shots, rate=rate, crf=crf)
        height, width = frames[0].shape[:2]
        with Video(path) as video:  # Odd sides were made even by repeating the last line.
            return [frame.pixels[:height, :width] for frame in video]


def _jpeg(pixels: Pixels, random: np.random.Generator, *, quality: int) -> Pixels:
    return lossy.jpeg(pixels, quality)


def _webp(pixels: Pixels, random: np.random.Generator, *, quality: int) -> Pixels:
    return lossy.webp(pixels, quality)


def _scale(pixels: Pixels, random: np.random.Generator, *, by: float) -> Pixels:
    height, width = pixels.shape[:2]
    size = (round(width * by), round(height * by))
    how = cv2.INTER_AREA if by < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, size, interpolation=how), np.uint8)


def _blur(pixels: Pixels, random: np.random.Generator, *, sigma: float) -> Pixels:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.uint8)


def _noise(pixels: Pixels, random: np.random.Generator, *, sigma: float) -> Pixels:
    noise = random.standard_normal(pixels.shape, np.float32) * np.float32(sigma)
    return _rounded(pixels + noise)


def _light(pixels: Pixels, random: np.random.Generator, *, by: float) -> Pixels:
    return _rounded(pixels * np.float32(by))


def _rounded(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _crop(pixels: Pixels, random: np.random.Generator, *, off: float) -> Pixels:
    height, width = pixels.shape[:2]
    keep = 1 - off
    most = min(_STRETCH, 1 / keep)
    stretch = most ** random.uniform(-1, 1)
    size = round(height * keep / stretch), round(width * keep * stretch)
    top, left = random.integers(0, (height - size[0] + 1, width - size[1] + 1))
    return np.ascontiguousarray(pixels[top : top + size[0], left : left + size[1]])


def _rotate(pixels: Pixels, random: np.random.Generator, *, least: float, most: float) -> Pixels:
    degrees = random.choice([-1, 1]) * random.uniform(least, most)
    height, width = pixels.shape[:2]
    # OpenCV has the centre of the first pixel at 0.
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    turned = cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_CUBIC)
    return np.asarray(turned, np.uint8)


def _screenshot(pixels: Pixels, random: np.random.Generator) -> Pixels:
    shown = _crop(_scale(pixels, random, by=0.8), random, off=0.1)
    return _jpeg(shown, random, quality=80)


ATTACKS: dict[str, Attack] = {
    **{f"jpeg{quality}": partial(_jpeg, quality=quality) for quality in (90, 75, 50, 30)},
    "webp75": partial(_webp, quality=75),
    "half": partial(_scale, by=0.5),
    "double": partial(_scale, by=2.0),
    "blur1": partial(_blur, sigma=1.0),
    "blur2": partial(_blur, sigma=2.0),
    "noise10": partial(_noise, sigma=10.0),
    "brighter": partial(_light, by=1.2),
    "darker": partial(_light, by=0.8),
    **{f"crop{percent}": partial(_crop, off=percent / 100) for percent in (10, 25, 40)},
    "rotate3": partial(_rotate, least=3.0, most=3.0),
    "rotate": partial(_rotate, least=0.0, most=3.0),
    "screenshot": _screenshot,
}
"""Name → attack on a picture: uint8 RGB (H, W, 3) in and out, sizes may differ."""

CODECS = {"crf23": 23, "crf30": 30, "crf35": 35}
"""Name → H.264's constant rate factor, for :func:`h264`: attacks on a video."""
