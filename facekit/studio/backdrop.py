"""What lies behind the person, and what the camera makes of the light: blur, noise, bytes."""

from functools import lru_cache

import cv2
import numpy as np

from facekit.core.seed import rng
from facekit.studio.basis import Array
from facekit.studio.performance import Performance
from facekit.types import Pixels

_SIDE = 64


def background(performance: Performance, size: int) -> Array:
    """Soft shapes out of focus: linear RGB (size, size, 3)."""
    soft = _soft(performance.background, performance.background_colour)
    back = cv2.resize(soft, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(back, np.float32)


@lru_cache(maxsize=8)
def _soft(seed: int, colour: tuple[float, float, float]) -> Array:
    random = rng(seed)
    tone = np.array(colour, np.float32)
    y, x = np.mgrid[0:_SIDE, 0:_SIDE].astype(np.float32) / _SIDE
    slope = random.normal(0, 0.35, 2)
    back = tone * (1 + slope[0] * (x - 0.5) + slope[1] * (y - 0.5))[..., None]
    for _ in range(int(random.integers(2, 7))):
        cx, cy = random.uniform(-0.1, 1.1, 2)
        wide, high = random.uniform(0.06, 0.35, 2)
        inside = (np.abs(x - cx) < wide) & (np.abs(y - cy) < high)
        if random.random() < 0.4:
            inside = ((x - cx) / wide) ** 2 + ((y - cy) / high) ** 2 < 1
        back[inside] = tone * random.uniform(0.4, 1.8) * (1 + 0.25 * random.uniform(-1, 1, 3))
    back = cv2.GaussianBlur(back.astype(np.float32), (0, 0), float(random.uniform(2, 5)))
    return np.asarray(np.clip(back, 0.005, 0.95), np.float32)


def exposed(picture: Array, performance: Performance) -> Pixels:
    """What the camera writes of linear light (S, S, 3): blurred, noisy, as sRGB bytes."""
    size = len(picture)
    if performance.blur:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), performance.blur * size), np.float32)
    if performance.noise:
        picture = picture + _noise(performance, picture)
    return _encoded(picture)


def _noise(performance: Performance, picture: Array) -> Array:
    """Of photons, growing with the root of the light, and of the sensor, even in the dark."""
    random = rng(performance.background, round(performance.time * 1e6), 8)
    grain = random.standard_normal(picture.shape, dtype=np.float32)
    deviation = performance.noise * np.sqrt(0.15 + 0.85 * np.clip(picture, 0, 4) / 0.18)
    noise: Array = grain * deviation
    return noise


_STEPS = 1 << 15
_WHITE = 4.0  # Linear light from here on is white.


@lru_cache(maxsize=1)
def _curve() -> Pixels:
    """Bytes for ``_STEPS`` levels of linear light up to ``_WHITE``: a soft shoulder, then sRGB."""
    x = (np.arange(_STEPS) + 0.5) * (_WHITE / _STEPS)
    x = 1.12 * x / (1 + 0.22 * x)
    encoded = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    return (np.clip(encoded, 0, 1) * 255 + 0.5).astype(np.uint8)


def _encoded(picture: Array) -> Pixels:
    level = np.clip(picture * np.float32(_STEPS / _WHITE), 0, _STEPS - 1)
    pixels: Pixels = _curve()[level.astype(np.int32)]
    return pixels
