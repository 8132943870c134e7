"""A keyed, blind watermark: spread spectrum on a lattice of frequencies, embedded informedly.

Spread spectrum after Cox et al. 1997; host interference cancelled by the embedder after Malvar and
Florêncio 2003; docs/watermark.md has the mathematics. In short:

1. The picture's luma is brought to a shorter side of 256 samples and flattened: a wide blur is
   taken off and the rest divided by its local strength, so that edges do not drown calm places.
2. The flattened picture is folded on a square of 256 × 256 samples and transformed. Of its lines,
   those of 8 to 56 cycles a period count: frequencies that blur and codecs spare. A crop of the
   picture shows the same lines, their phases turned by where it was cut.
3. Of these, 128 lines carry signs known from the key, one for the real and one for the imaginary
   part; they say that a mark is present, and how the picture lies (:mod:`.search`). The others are
   dealt to 127 groups, one for each bit of the payload under a BCH code.
4. The embedder knows the picture, so it adds just what lifts each of these 383 values to a target:
   over the whole picture, and over parts of it, so that crops are as good.

Under a random key the signs of the values are independent fair coins, whatever the unmarked
picture is; so for the correlation T of the values with any fixed word, P(T ≥ t) ≤ exp(-t²/2)
(Hoeffding 1963). That bound, times the number of tests, is the p-value. It assumes nothing about
pictures.
"""

import hashlib
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from facekit.core.errors import FacekitError
from facekit.types import Floats, Pixels
from facekit.watermark import bch
from facekit.watermark.payload import Geometry, Payload, Reading

Spectrum = NDArray[np.complex64]
"""Of a flattened, folded picture: complex64 (256, 129), as of ``rfft2``. Those of frames add up."""

DEFAULT_KEY = b"facekit published mark key, version 2"
"""Published, so that anyone can read a mark. So anyone can forge one: a mark is a claim."""

ACCEPT = 1e-9
"""A mark is called present below this p-value, a file."""

LEAST = 1e-300
"""The smallest p-value that is given; below it numbers end."""

MIN_SIDE = 64
"""The shortest side of a picture that can be marked, in pixels."""

LONGEST = 16
"""The longest side of a picture that can be marked or is read, in shorter sides."""

PERIOD = 256
"""Samples that a picture's shorter side is brought to, and after which the mark repeats."""

PRESENCE = 256
"""Values that say that a mark is present: two for each of 128 lines."""

# One unmarked picture in 700 has so much; a marked one of which a payload is left has more.
_WORTH_DECODING = 3.0

# Of 4,900 words that were decoded wrongly, out of bits drowned in noise, the one that fitted best
# had 8.4 (127 equal bits would have 11.3); where bits are 1.5 times the noise, 99% have more.
_LEGIBLE = 8.7

_RING = (8, 56)
# The signs of the lines on the axes would be at the mercy of a picture's own rows and columns.
_OFF_AXIS = 2
# Of a picture's pixels, the waves that it can hold; half would be the most there is.
_FINEST = 0.46
# PSNR in dB that a mark leaves of a calm picture: of a still; of a frame of 512 pixels, of which
# codecs take more, and of a larger one so much more an octave; of a picture below 256 pixels,
# whose lines are fewer pixels long.
_STILL = 47.0
_FRAME = 43.5
_FRAME_OCTAVE = 6.0
_SMALL = 41.0
# Busy places hide more, by this power of their strength, up to so many grey levels (36 dB).
_MASKING = 0.68
_MOST = 4.0
# Of the mark's energy, what goes to presence: in small pictures most, for there it is all that can
# be promised.
_PRESENCE_SHARE = 0.25
_PRESENCE_SHARE_SMALL = 0.6
_LEAST_STRENGTH = 4.0
# The most energy goes where pictures have the least: they fall off with the radius.
_SLOPE = 1.75
# Values of a part of the picture are lifted somewhat more than its area asks for.
_PART = 0.62
_PART_TARGET = 1.3
_ROUNDS = 3


def embed(
    pixels: Pixels, payload: Payload, key: bytes = DEFAULT_KEY, *, moving: bool = False
) -> Pixels:
    """Mark a picture.

    Args:
        pixels: uint8 RGB (H, W, 3), both sides at least ``MIN_SIDE``.
        payload: the message.
        key: the secret; the published one by default.
        moving: whether it is a frame of a video, which bears a stronger mark because codecs take
            more of it, and whose crops need not be read from one frame alone.

    Returns:
        uint8 RGB (H, W, 3). Beside the original, calm places have 47 dB PSNR; if moving 43.5 dB
        at 512 pixels and below, rising to 47 dB at 767; below 256 pixels 41 dB. Busy places have
        less, down to about 36 dB.

    Raises:
        FacekitError: if the picture is too small, or too long and narrow.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise FacekitError(
            f"a picture of {width}x{height} is too small to mark: "
            f"both sides must be at least {MIN_SIDE} pixels"
        )
    if max(height, width) > LONGEST * min(height, width):
        raise FacekitError(
            f"a picture of {width}x{height} is too narrow to mark: "
            f"the longer side may be {LONGEST} times the shorter one"
        )
    side = min(height, width)
    change = _mark(
        to_period(grey(pixels)),
        _word(payload),
        held(code(key), side),
        quality=_quality(side, moving),
        to_presence=_PRESENCE_SHARE_SMALL if side < PERIOD else _PRESENCE_SHARE,
        parts=not moving,
    )
    if change.shape != (height, width):
        how = cv2.INTER_AREA if height < change.shape[0] else cv2.INTER_CUBIC
        change = np.asarray(cv2.resize(change, (width, height), interpolation=how), np.float32)
    # The same change of R, G and B moves luma and leaves chroma, which codecs treat roughly.
    rounded = cv2.cvtColor(np.rint(change), cv2.COLOR_GRAY2RGB).astype(np.int16)
    marked: NDArray[Any] = cv2.add(pixels, rounded, dtype=cv2.CV_8U)
    return marked


# --- what a key decides ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Code:
    """The lines of a key: which, what each is for, and with which signs.

    Attributes:
        x, y: int (N,), cycles a period, to the right and down; x ≥ 2, |y| ≥ 2.
        presence: int (128,), the lines of known signs, spread evenly over all radii.
        groups: int (R, 127), the lines of each bit of the payload, one from each ring.
        signs: complex64 (N,): ±1 for the real part, ±i for the imaginary part.
        weights: float32 (N,), rising with the radius.
    """

    x: NDArray[np.intp]
    y: NDArray[np.intp]
    presence: NDArray[np.intp]
    groups: NDArray[np.intp]
    signs: NDArray[np.complex64]
    weights: Floats


@lru_cache(maxsize=8)
def code(key: bytes) -> Code:
    """The lines of a key.

    Drawn from SHAKE-256, whose stream, unlike a library's generator, will never change.
    """
    x, y, radius = _lines()
    count = len(x)
    stream = hashlib.shake_256(b"facekit spread 2\0" + key).digest(count * 9)
    order = np.frombuffer(stream, ">u8", count)
    coins = np.frombuffer(stream, np.uint8, offset=count * 8)

    # One presence line from each of 128 stretches of the lines in order of their radius.
    bounds = np.linspace(0, count, PRESENCE // 2 + 1).astype(int)
    chosen = [a + int(np.argmin(order[a:b])) for a, b in pairwise(bounds)]
    presence = np.array(chosen)
    others = np.setdiff1d(np.arange(count), presence)
    rings = len(others) // bch.LENGTH
    others = others[-rings * bch.LENGTH :].reshape(rings, bch.LENGTH)
    dealt = np.argsort(order[others], axis=1, kind="stable")
    groups = np.take_along_axis(others, dealt, axis=1)
    signs = (1.0 - 2.0 * (coins & 1)) + 1j * (1.0 - 2.0 * (coins >> 1 & 1))
    weights = (radius / radius.mean()) ** _SLOPE
    return Code(x, y, presence, groups, signs.astype(np.complex64), weights.astype(np.float32))


@lru_cache(maxsize=1)
def _lines() -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """x, y and radius of all lines, from the centre outward."""
    y, x = np.mgrid[-_RING[1] : _RING[1] + 1, : _RING[1] + 1]
    radius = np.hypot(y, x)
    inside = (radius >= _RING[0]) & (radius <= _RING[1])
    inside &= (x >= _OFF_AXIS) & (np.abs(y) >= _OFF_AXIS)
    outward = np.argsort(radius[inside], kind="stable")
    return x[inside][outward], y[inside][outward], radius[inside][outward]


def held(of: Code, side: int) -> Code:
    """A key's lines where those that a picture of this shorter side can't hold weigh nothing."""
    limit = _FINEST * side
    if limit >= _RING[1]:
        return of
    held = np.hypot(of.x, of.y) <= limit
    return replace(of, weights=of.weights * held)


def _word(payload: Payload) -> Floats:
    """The 383 signs of a payload: presence is all +1, then +1 for 0 and -1 for 1."""
    return _signs(bch.encode(payload.to_bits()))


def _signs(coded: NDArray[np.uint8]) -> Floats:
    return np.concatenate([np.ones(PRESENCE), 1.0 - 2.0 * coded]).astype(np.float32)


# --- from a picture to values ---------------------------------------------------------------------


def grey(pixels: Pixels) -> Pixels:
    """The luma of uint8 RGB (H, W, 3): uint8 (H, W)."""
    luma = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    return np.asarray(luma, np.uint8)


def to_period(luma: Pixels, side: float | None = None) -> Floats:
    """Bring luma (H, W) to the scale of the mark.

    Args:
        luma: uint8 (H, W).
        side: the length in pixels that becomes a period; the shorter side by default.

    Returns:
        float32, its shorter side ``PERIOD`` samples long by default.
    """
    height, width = luma.shape
    scale = PERIOD / (side or min(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(luma, size, interpolation=how), np.float32)


def flatten(luma: Floats) -> Floats:
    """Take off a wide blur, and divide what is left by its local strength."""
    flat: Floats = (luma - _blur(luma, 4.0)) / _strength(luma)
    return flat


def spectrum(flat: Floats) -> Spectrum:
    """Fold on a square of one period, and transform."""
    height, width = flat.shape
    rows, columns = -(-height // PERIOD), -(-width // PERIOD)
    padded = np.zeros((rows * PERIOD, columns * PERIOD), np.float32)
    padded[:height, :width] = flat
    folded = padded.reshape(rows, PERIOD, columns, PERIOD).sum(axis=(0, 2))
    found: Spectrum = fft.rfft2(folded)
    return found


@dataclass(frozen=True)
class Values:
    """What a key makes of a spectrum.

    Attributes:
        presence: float32 (256,), all > 0 where there is a mark.
        bits: float32 (127,), the coded bits of the payload: > 0 for 0, < 0 for 1.
        scatter: the root of the summed squares of what the bits are sums of.
    """

    presence: Floats
    bits: Floats
    scatter: float


def values(found: Spectrum, of: Code) -> Values:
    """The values of a spectrum."""
    lines = found[of.y, of.x] * of.weights
    turned = np.stack([lines.real * of.signs.real, lines.imag * of.signs.imag], axis=1)
    dealt = turned[of.groups]
    return Values(
        turned[of.presence].ravel(),
        dealt.sum(axis=(0, 2)),
        math.sqrt(float(np.sum(np.square(dealt, dtype=np.float64)))),
    )


def moved(found: Spectrum, x: float, y: float, of: Code) -> Spectrum:
    """The spectrum of what lies (x, y) samples further to the right and down; the key's lines."""
    turn = np.exp(-2j * np.pi / PERIOD * (of.x * x + of.y * y))
    there = np.zeros_like(found)
    there[of.y, of.x] = found[of.y, of.x] * turn
    return there


def _strength(luma: Floats) -> Floats:
    """The local strength of detail, in grey levels; the floor keeps noise down."""
    detail = luma - _blur(luma, 1.5)
    strength: Floats = np.sqrt(_blur(np.square(detail), 2.25) + _LEAST_STRENGTH**2)
    return strength


def _blur(values: Floats, sigma: float) -> Floats:
    blurred: NDArray[Any] = cv2.GaussianBlur(values, (0, 0), sigma)
    return blurred


# --- the decision ---------------------------------------------------------------------------------


def statistic(values: Floats, word: Floats | float = 1.0, size: float | None = None) -> float:
    """The correlation T of values with a word of ±1: standard normal for an unused key.

    Args:
        values: sums of numbers whose signs are the key's.
        word: the same number of ±1, or 1 for all.
        size: the root of the summed squares of these numbers; by default, of the values.
    """
    size = math.sqrt(float(np.sum(np.square(values, dtype=np.float64)))) if size is None else size
    return float(np.sum(values * word, dtype=np.float64)) / size if size > 0 else 0.0


def decide(
    read: Values,
    *,
    frames: int,
    looks: int = 1,
    share: float = 1.0,
    geometry: Geometry | None = None,
) -> Reading:
    """Decide from values whether a mark is present, and decode it.

    Three tests are made, and counted: the presence values alone; the likeliest code word alone,
    with all parts of its bits; and presence and word together, bit for bit. For the last two, all
    2^64 words that could have been found are counted. The likeliest word is looked for only where
    presence makes it worth while; that can only make the p-value larger.

    Args:
        read: of a picture, or of the sum of many.
        frames: the pictures that the sum is over.
        looks: how many sets of presence values could have been looked at to choose these.
        share: of the chance of an error, what may be spent here.
        geometry: where these are from, unless the picture lies as it was marked.
    """
    tests = math.log(3 / share)
    present = statistic(read.presence)
    log_p = tests + math.log(looks) - max(present, 0.0) ** 2 / 2
    payload, corrected = None, None
    if present > _WORTH_DECODING:
        word = bch.nearest(read.bits)
        signs = 1.0 - 2.0 * word.code.astype(np.float32)
        # The bits' coins had no say in the choice of these values, so looks don't count for them.
        alone = statistic(read.bits, signs, read.scatter)
        both = np.concatenate([_level(read.presence), _level(read.bits) * signs])
        log_word = min(-(alone**2) / 2, math.log(looks) - statistic(both) ** 2 / 2)
        log_word += tests + bch.MESSAGE * math.log(2)
        log_p = min(log_p, log_word)
        # That there is a mark does not make its bits legible: they must agree among themselves.
        if log_word < math.log(ACCEPT) and statistic(read.bits, signs) > _LEGIBLE:
            payload = Payload.from_bits(word.message)
            corrected = word.corrected if payload else None
    log_p = min(log_p, 0.0)
    return Reading(
        present=log_p < math.log(ACCEPT),
        payload=payload,
        p_value=max(math.exp(log_p), LEAST),
        corrected=corrected,
        frames=frames,
        tests=round(math.exp(tests) * looks),
        geometry=geometry if log_p < math.log(ACCEPT) else None,
    )


def _level(values: Floats) -> Floats:
    """Values brought to a mean square of 1, so that neither half drowns the other."""
    level: Floats = values / (math.sqrt(float(np.mean(np.square(values)))) or 1.0)
    return level


# --- the embedder ---------------------------------------------------------------------------------


def _mark(
    luma: Floats, word: Floats, of: Code, *, quality: float, to_presence: float, parts: bool
) -> Floats:
    """The change of luma, at the mark's scale, that carries the word.

    Args:
        luma: as of :func:`to_period`.
        word: the 383 signs.
        of: the lines.
        quality: the PSNR in dB that a calm picture keeps.
        to_presence: the share of the energy that presence has.
        parts: whether parts of the picture shall be as good as the whole.
    """
    # What each place hides, in grey levels: a busy one more, but a calm one no more for that.
    calm = math.sqrt(_error(quality))
    mask = np.minimum(calm * (_strength(luma) / _LEAST_STRENGTH) ** _MASKING, _MOST)
    allowed = float(np.mean(np.square(mask)))

    def flattened(change: Floats) -> Floats:
        return flatten(np.clip(luma + change, 0, 255))

    def read(flat: Floats, inside: tuple[slice, slice]) -> Floats:
        part = np.zeros_like(flat)
        part[inside] = flat[inside]
        found = values(spectrum(part), of)
        signed: Floats = np.concatenate([found.presence, found.bits]) * word
        return signed

    def drawn(amplitudes: Floats) -> Floats:
        pattern: Floats = mask * _pattern(amplitudes * word, luma.shape, of)
        return pattern

    # As much as is allowed, spread evenly: what that adds to the values is what all shall have.
    whole = (slice(None), slice(None))
    own = read(flattened(np.zeros_like(luma)), whole)
    level, gain = np.zeros_like(word), np.zeros_like(word)
    halves = (slice(PRESENCE), to_presence), (slice(PRESENCE, None), 1 - to_presence)
    for half, share in halves:
        even = np.zeros_like(word)
        even[half] = 1.0
        one = drawn(even)
        level[half] = math.sqrt(allowed * share / float(np.mean(np.square(one))))
        added = (read(flattened(level[half][0] * one), whole) - own)[half]
        # Values of lines that a small picture can't hold don't move; the others do alike.
        moves = added > 0.1 * added.max()
        gain[half] = added[moves].mean() / level[half]
    target = gain * level

    change = np.zeros_like(luma)

    def lift(windows: list[tuple[slice, slice]], share: float) -> None:
        nonlocal change
        flat = flattened(change)
        step = np.zeros_like(luma)
        for window in windows:
            area = luma[window].size / luma.size
            aim = target * area * (_PART_TARGET if area < 1 else 1.0)
            missing = np.maximum(0, aim - read(flat, window)) / (gain * area)
            step[window] += share * drawn(missing)[window]
        change = change + step
        error = float(np.mean(np.square(change)))
        if error > allowed:
            change *= math.sqrt(allowed / error)

    for _ in range(_ROUNDS):
        lift([whole], 1.0)
    if parts and float(np.mean(np.square(change))) < 0.9 * allowed:
        for _ in range(_ROUNDS):
            lift([whole], 0.5)
            lift(_parts(luma.shape), 0.25)
        lift([whole], 1.0)
    return change


def _parts(shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """Four corners and the middle, as a crop might leave them."""
    height, width = (round(_PART * side) for side in shape)
    down, right = shape[0] - height, shape[1] - width
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    return [(slice(y, y + height), slice(x, x + width)) for y, x in corners]


def _pattern(amplitudes: Floats, shape: tuple[int, ...], of: Code) -> Floats:
    """The picture whose values have these amplitudes: the transpose of spectrum and values."""
    lines = np.zeros(len(of.x), np.complex64)
    pairs = amplitudes[:PRESENCE].reshape(-1, 2)
    signs = of.signs[of.presence]
    lines[of.presence] = pairs[:, 0] * signs.real + 1j * pairs[:, 1] * signs.imag
    lines[of.groups] = amplitudes[PRESENCE:] * of.signs[of.groups]
    sparse = np.zeros((PERIOD, PERIOD // 2 + 1), np.complex64)
    sparse[of.y, of.x] = lines * of.weights
    square = fft.irfft2(sparse)
    rows, columns = -(-shape[0] // PERIOD), -(-shape[1] // PERIOD)
    tiled: Floats = np.tile(square, (rows, columns))[: shape[0], : shape[1]]
    return tiled


def _quality(side: int, moving: bool) -> float:
    """The PSNR in dB that a calm picture of this shorter side keeps."""
    if side < PERIOD:
        return _SMALL
    if not moving:
        return _STILL
    return min(_STILL, max(_FRAME, _FRAME + _FRAME_OCTAVE * math.log2(side / 512)))


def _error(psnr: float) -> float:
    """The mean square error of a PSNR in dB."""
    return float(255**2 / 10 ** (psnr / 10))
