"""A keyed, blind watermark: spread spectrum in the DCT of a normalised luma, embedded informedly.

Spread spectrum after Cox et al. 1997; host interference cancelled by the embedder after Malvar and
Florêncio 2003. docs/watermark.md has the mathematics. In short:

1. The luma, reduced to at most 512 × 512, is flattened: a wide blur is taken off and the rest
   divided by its local strength, so that edges do not drown what lies in calm places.
2. The DCT coefficients in a ring (16 to 84 half waves a picture: the same ones at every size of the
   picture) are dealt out to 255 groups, each with one coefficient from every radius. A group's
   value is the sum of its coefficients, each times a weight and a secret sign.
3. 128 groups carry a fixed word (presence), 127 the payload under a BCH code. The embedder sees
   the picture's own group values and adds just enough to raise each to the same target.

Under a random key the signs of the 255 values are independent fair coins, whatever the unmarked
picture is; so for the correlation T with any fixed word, P(T ≥ t) ≤ exp(-t²/2) (Hoeffding 1963).
That bound, times the number of tests, is the p-value. It assumes nothing about pictures.
"""

import hashlib
import math
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.core.errors import FacekitError
from facekit.types import Floats, Pixels
from facekit.watermark import bch
from facekit.watermark.payload import Payload, Reading

DEFAULT_KEY = b"facekit published mark key, version 1"
"""Published, so that anyone can read a mark. So anyone can forge one: a mark is a claim."""

ACCEPT = 1e-9
"""A mark is called present below this p-value, a file."""

MIN_SIDE = 64
"""The shortest side of a picture that can be marked, in pixels."""

PRESENCE = 128
GROUPS = PRESENCE + bch.LENGTH

_CANONICAL = 512
_RING = (16, 84)
# PSNR in dB that the strongest mark leaves (of a busy picture), and the weakest (of a flat one).
_STRONGEST = 40.5
_WEAKEST = 48.5
# Small pictures hold the same number of coefficients in fewer pixels, and codecs spare them less.
_WEAKEST_SMALL = 44.0
_SMALL = 384
_ITERATIONS = 3


def embed(pixels: Pixels, payload: Payload, key: bytes = DEFAULT_KEY) -> Pixels:
    """Mark a picture.

    Args:
        pixels: uint8 RGB (H, W, 3), both sides at least ``MIN_SIDE``.
        payload: the message.
        key: the secret; the published one by default.

    Returns:
        uint8 RGB (H, W, 3), 40.5 to 48.5 dB PSNR beside the original: the calmer and the larger,
        the higher.

    Raises:
        FacekitError: if the picture is too small.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise FacekitError(
            f"a picture of {width}x{height} is too small to mark: "
            f"both sides must be at least {MIN_SIDE} pixels"
        )
    luma = _luma(pixels)
    change: NDArray[Any] = _mark(luma, _signs(bch.encode(payload.to_bits())), key)
    if change.shape != (height, width):
        change = cv2.resize(change, (width, height), interpolation=cv2.INTER_CUBIC)
    # The same change of R, G and B moves luma and leaves chroma, which codecs treat roughly.
    rounded = cv2.cvtColor(np.rint(change), cv2.COLOR_GRAY2RGB).astype(np.int16)
    marked: NDArray[Any] = cv2.add(pixels, rounded, dtype=cv2.CV_8U)
    return marked


class Listener:
    """Gathers the evidence of one picture, or of many frames of one video, and decides once."""

    def __init__(self, key: bytes = DEFAULT_KEY) -> None:
        self._key = key
        self._sum = np.zeros(GROUPS, np.float32)
        self._frames = 0

    def add(self, pixels: Pixels) -> None:
        """Take in a picture: uint8 RGB (H, W, 3) of any size."""
        self._sum += correlate(pixels, self._key)
        self._frames += 1

    def decide(self, *, search: bool = True) -> Reading:
        """Whether a mark is in what was added."""
        return decide(self._sum, frames=self._frames)


def read(pixels: Pixels, key: bytes = DEFAULT_KEY, *, search: bool = True) -> Reading:
    """Look for a mark in a picture: uint8 RGB (H, W, 3) of any size."""
    listener = Listener(key)
    listener.add(pixels)
    return listener.decide(search=search)


def correlate(pixels: Pixels, key: bytes = DEFAULT_KEY) -> Floats:
    """The values of the groups: float32 (255,); those of a video's frames may be summed."""
    return _groups(_luma(pixels), key)


def statistic(values: Floats, word: Floats) -> float:
    """The correlation T of group values with a word of ±1: standard normal for an unused key."""
    size = float(np.sqrt(np.sum(np.square(values, dtype=np.float64))))
    return float(np.dot(values.astype(np.float64), word)) / size if size > 0 else 0.0


def presence(values: Floats) -> float:
    """The statistic of the presence word, in standard deviations of an unmarked picture."""
    return statistic(values[:PRESENCE], np.ones(PRESENCE, np.float32))


def decide(values: Floats, *, frames: int) -> Reading:
    """Decide from group values whether a mark is present, and decode it.

    Two tests are made, and counted: the presence word alone; and, if the code decodes, presence
    and the decoded word together, where all 2^64 words that could have been found are counted.

    Args:
        values: float32 (255,), from ``correlate``, or a sum of such.
        frames: the pictures that the sum is over.
    """
    p_value = 2 * math.exp(-(max(presence(values), 0.0) ** 2) / 2)
    decoded = bch.decode((values[PRESENCE:] < 0).astype(np.uint8))
    payload, corrected = None, None
    if decoded is not None:
        message, errors = decoded
        together = statistic(values, _signs(bch.encode(message)))
        p_word = 2 * math.exp(bch.MESSAGE * math.log(2) - max(together, 0.0) ** 2 / 2)
        p_value = min(p_value, p_word)
        if p_word < ACCEPT:
            payload = Payload.from_bits(message)
            corrected = errors if payload else None
    return Reading(p_value < ACCEPT, payload, min(1.0, p_value), corrected, frames)


def _signs(code: NDArray[np.uint8]) -> Floats:
    """The 255 signs of a code word: presence is all +1, then +1 for 0 and -1 for 1."""
    return np.concatenate([np.ones(PRESENCE), 1.0 - 2.0 * code]).astype(np.float32)


def _luma(pixels: Pixels) -> Floats:
    """float32, at most 512 × 512; each side is reduced by itself, the DCT does not mind."""
    luma = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    height, width = luma.shape
    if max(height, width) > _CANONICAL:
        size = (min(width, _CANONICAL), min(height, _CANONICAL))
        luma = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
    small: Floats = luma.astype(np.float32)
    return small


def _mark(luma: Floats, word: Floats, key: bytes) -> Floats:
    """The change of luma that carries the word."""
    scale = _local_scale(luma - _blur(luma, 3.0))
    # A busy place hides more; the exponent keeps the mark from hiding in edges alone.
    shape = scale**0.35
    shape /= np.sqrt(np.mean(np.square(shape)))
    gain = float(np.mean(shape / scale))
    weakest = _WEAKEST_SMALL if min(luma.shape) < _SMALL else _WEAKEST
    limit = _error(_STRONGEST)
    target = _target(_groups(luma, key) * word, limit * gain**2, _error(weakest) * gain**2)
    amplitudes = np.zeros(GROUPS, np.float32)
    change = np.zeros_like(luma)
    for _ in range(_ITERATIONS):
        # Flattening, shaping and clipping bend the sums: look where they are, correct, repeat.
        current = _groups(np.clip(luma + change, 0, 255), key) * word
        amplitudes = np.maximum(0, amplitudes + (target - current) / gain)
        change = shape * _pattern(amplitudes * word, luma.shape, key)
        error = float(np.mean(np.square(change)))
        if error > limit:
            change *= math.sqrt(limit / error)
    return change


def _target(values: Floats, allowed: float, wanted: float) -> float:
    """The level to which to raise every group.

    Args:
        values: of the groups as they are, with the word's signs taken off.
        allowed: the mean square error that raising them may cost.
        wanted: the mean square error that the level costs where all values are zero.
    """
    highest = math.sqrt(wanted * 256**2 / GROUPS)
    # Filling n groups up to t costs Σ(t - v)²: grow n until the next group is above the level.
    ordered = np.sort(values.astype(np.float64))
    target = highest
    for count in range(1, GROUPS + 1):
        filled = ordered[:count]
        spare = allowed * 256**2 / count - float(filled.var())
        if spare < 0:
            break
        target = float(filled.mean()) + math.sqrt(spare)
        if count == GROUPS or target <= ordered[count]:
            break
    return min(target, highest)


def _error(psnr: float) -> float:
    """The mean square error of a PSNR in dB."""
    return float(255**2 / 10 ** (psnr / 10))


def _groups(luma: Floats, key: bytes) -> Floats:
    """Flatten, transform, and sum up the groups; in units of a 256 × 256 picture."""
    flat = luma - _blur(luma, 8.0)
    flat /= _local_scale(luma - _blur(luma, 3.0))
    height, width = luma.shape
    coefficients = _cosines(height) @ flat @ _cosines(width).T
    coefficients *= 256 / math.sqrt(height * width)
    places, weights = _chips(key)
    sums: Floats = (coefficients.ravel()[places] * weights).sum(axis=0)
    return sums


def _pattern(amplitudes: Floats, shape: tuple[int, ...], key: bytes) -> Floats:
    """The picture whose groups have these amplitudes: the transpose of ``_groups``."""
    height, width = shape
    places, weights = _chips(key)
    side = _RING[1] + 1
    coefficients = np.zeros(side * side, np.float32)
    coefficients[places] = weights * amplitudes
    square = coefficients.reshape(side, side) * np.float32(math.sqrt(height * width) / 256)
    pattern: Floats = _cosines(height).T @ square @ _cosines(width)
    return pattern


def _local_scale(detail: Floats) -> Floats:
    """The local strength of detail, of mean 1; the floor of 4 grey levels keeps noise down."""
    scale = np.sqrt(_blur(np.square(detail), 3.0)) + 4
    normalised: Floats = scale / scale.mean()
    return normalised


def _blur(values: Floats, sigma: float) -> Floats:
    blurred: NDArray[Any] = cv2.GaussianBlur(values, (0, 0), sigma)
    return blurred


@lru_cache(maxsize=16)
def _cosines(length: int) -> Floats:
    """Rows of the orthonormal DCT-II, float32 (85, length); what the length can't hold is zero."""
    side = _RING[1] + 1
    rows = np.zeros((side, length))
    usable = min(side, int(0.95 * length))
    angles = np.pi * np.outer(np.arange(usable), np.arange(length) + 0.5) / length
    rows[:usable] = np.sqrt(2 / length) * np.cos(angles)
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


@lru_cache(maxsize=8)
def _chips(key: bytes) -> tuple[NDArray[np.intp], Floats]:
    """Which coefficients make up each group, and their signed weights; both (rings, 255).

    Drawn from SHAKE-256, whose stream, unlike a library's generator, will never change.
    """
    side = _RING[1] + 1
    radius = np.hypot(*np.mgrid[:side, :side]).ravel()
    ring = np.flatnonzero((radius >= _RING[0]) & (radius <= _RING[1]))
    outward = ring[np.argsort(radius[ring], kind="stable")]
    rings = len(outward) // GROUPS
    places = outward[-rings * GROUPS :].reshape(rings, GROUPS)

    stream = hashlib.shake_256(b"facekit spread 1\0" + key).digest(rings * GROUPS * 9)
    order = np.frombuffer(stream, ">u8", rings * GROUPS).reshape(rings, GROUPS)
    coins = np.frombuffer(stream, np.uint8, offset=rings * GROUPS * 8).reshape(rings, GROUPS) & 1
    places = np.take_along_axis(places, np.argsort(order, axis=1, kind="stable"), axis=1)

    # Pictures fall off with the radius: weights that rise with it let calm coefficients count.
    weights = radius[places] ** 1.5
    weights /= np.sqrt(np.sum(np.square(weights), axis=0))
    return places, (weights * (1.0 - 2.0 * coins)).astype(np.float32)
