"""Give a new face the sharpness and the grain of the picture that it goes into.

A network's crop is small, so in the picture it is softer than what it replaces, and without noise;
in a blurred picture it may be too sharp. Both are measured on the target's own face. Sharpness is
the energy of a band of fine detail, matched by unsharp masking, or by its inverse; noise is
estimated by Immerkær, "Fast noise variance estimation", CVIU 1996, with a median in the place of
the mean, since edges are rare.
"""

from functools import lru_cache

import cv2
import numpy as np

from facekit.core.seed import Purpose, rng
from facekit.types import Floats, Pixels

_LEAST, _MOST = 0.0, 2.5  # gains of the fine band
_FINE = 0.012  # of the crop's side: the deviation of the Gaussian that the fine band is without
_VISIBLE_NOISE = 0.5  # levels of 255: less is nobody's grain
_TILE = 256
_NOISE_KERNEL = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32)


def sharpness(grey: Floats, weight: Floats) -> float:
    """The root mean square of a crop's fine band.

    Args:
        grey: float32 (S, S), luma in any unit.
        weight: float32 (S, S) in [0, 1].
    """
    band = grey - _blurred(grey, _FINE * len(grey))
    return float(np.sqrt((weight * band * band).sum() / max(float(weight.sum()), 1e-6)))


def luma(picture: Pixels | Floats) -> Floats:
    """A picture (H, W, 3) as float32 luma (H, W), in its own unit."""
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.float32)


def without_noise(sharpness: float, noise: float) -> float:
    """What is left of a :func:`sharpness` without that of noise, of a deviation in its unit."""
    return float(np.sqrt(max(sharpness**2 - noise**2, 0.0)))


def gain(face: float, target: float) -> float:
    """What the fine band of a face is to be multiplied by, from either's :func:`sharpness`."""
    return float(np.clip(target / max(face, 1e-6), _LEAST, _MOST))


def sharpened(layer: Floats, gain: float, side: float) -> Floats:
    """A face with its fine band multiplied by ``gain``.

    Args:
        layer: float32 RGB (H, W, 3).
        gain: 1 changes nothing, 0 blurs.
        side: of the whole crop in the layer's pixels.
    """
    if abs(gain - 1) < 0.02:
        return layer
    if gain < 1:
        soft = _blurred(layer, _FINE * side)
        return np.asarray(cv2.addWeighted(layer, gain, soft, 1 - gain, 0), np.float32)
    # Only lightness: colours that are made sharper show as fringes.
    grey = luma(layer)
    band = (gain - 1) * (grey - _blurred(grey, _FINE * side))
    return np.asarray(cv2.add(layer, cv2.merge([band] * 3)), np.float32)


def noise(picture: Pixels) -> float:
    """The deviation of a picture's noise, in levels of luma; a part is enough.

    Args:
        picture: uint8 RGB (H, W, 3).
    """
    if min(picture.shape[:2]) < 8:
        return 0.0
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    high = cv2.filter2D(grey, cv2.CV_32F, _NOISE_KERNEL)[1:-1, 1:-1]
    return float(np.median(np.abs(high)) / 0.6745 / 6)


def grain(shape: tuple[int, int], deviation: float, moment: int) -> Floats | None:
    """Noise to be added to a face, float32 (H, W), in the unit of ``deviation``; None if none.

    Args:
        shape: H, W.
        deviation: in levels of 255.
        moment: the frame's number: another gives other noise, the same gives the same.
    """
    if deviation < _VISIBLE_NOISE:
        return None
    tile = _tile()
    y, x = rng(moment, 1, Purpose.GRAIN).integers(_TILE, size=2)
    rows = (np.arange(shape[0]) + y) % _TILE
    columns = (np.arange(shape[1]) + x) % _TILE
    return np.asarray(deviation * tile[rows[:, None], columns[None]], np.float32)


@lru_cache(maxsize=1)
def _tile() -> Floats:
    return rng(0, 2, Purpose.GRAIN).standard_normal((_TILE, _TILE)).astype(np.float32)


def _blurred(layer: Floats, deviation: float) -> Floats:
    blurred = cv2.GaussianBlur(layer, (0, 0), max(deviation, 0.5), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurred, np.float32)
