"""Finding how a picture lies in the marked one: after crops, scaling, and small turns.

A line of the mark is a wave over the whole picture. Where a picture was cut changes its phase and
not its strength; so the strengths of the picture's waves alone tell scale and turn, as with the
templates of Pereira and Pun 2000. What is likely by them is then tried: at each scale and turn, one
correlation by FFT looks at every place (the phase-only registration of watermarks' pilots).

The first step knows which lines the key uses, and nothing of their signs. The p-value's coins are
the signs; so only what is tried in the second step counts as a test.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from facekit.types import Floats, Pixels
from facekit.watermark import spread
from facekit.watermark.payload import Geometry, Reading
from facekit.watermark.spread import PERIOD, Code, Spectrum

LARGEST, SMALLEST = 2.4, 0.7
"""The marked picture's shorter side, in shorter sides of the picture at hand."""

MOST_DEGREES = 8.0
"""Turns that are searched, either way."""

SIDE = round(PERIOD / SMALLEST)
"""A picture may be reduced to this shorter side, in pixels, before it is searched."""

# Half a wave over the picture is what a step may leave at the outermost lines.
_SCALE_STEP = 0.007
_TURN_STEP = 0.4
_LIKELY = 1280
_CANDIDATES = 4
_ROUNDS = 4
# Finer than every other sample: the outermost lines turn by a third of a wave in one.
_PLACES = 3 * PERIOD // 4
_HALVINGS = 3

LOOKS = _LIKELY * 5**_ROUNDS * PERIOD**2 * 5**_HALVINGS
"""Sets of presence values that could be chosen: any likely scale and turn, then in each round one
of four neighbours or none; any place, then in each halving of the step again one of four or none.
"""

_PADDED = 512
_WIDEST = 2.0
_AT_ONCE = 16
# With less after the first look, a candidate is a chance: of 65,536 places, one has 4.7.
_HOPELESS = 5.5


def find(lumas: Sequence[Pixels], of: Code, *, frames: int, reduced: float = 1.0) -> Reading:
    """Search pictures that lie alike, e.g. frames of a video.

    Args:
        lumas: uint8 (H, W), all of one size; they may be reduced to a shorter side of ``SIDE``.
        of: the key's lines.
        frames: how many the reading shall be said to rest on.
        reduced: by how much they were.

    Returns:
        The strongest reading.
    """
    _, spectrum, geometry = max(
        (_refine(lumas, of, *at) for at in _candidates(lumas, of)), key=lambda each: each[0]
    )
    geometry = replace(geometry, side=geometry.side / reduced)
    # Half of the chance of an error goes to pictures that were not moved.
    return spread.decide(
        spread.values(spectrum, of), frames=frames, looks=LOOKS, share=0.5, geometry=geometry
    )


def _candidates(lumas: Sequence[Pixels], of: Code) -> list[tuple[float, float]]:
    """The best sides of the marked picture, in pixels of these, and turns in degrees."""
    waves = _waves([spread.flatten(spread.to_period(luma)) for luma in lumas])
    scales, turns = _grid()
    rows, columns = _sampled_at(waves, of, scales, turns)
    power = np.square(np.abs(waves))
    # Waves of the mark stand out from their neighbours; a picture's own come in broad hills.
    excess = np.minimum(power / (cv2.blur(power, (15, 15)) + 1e-12), 6.0)
    # All scales of a picture that was not turned, all turns of one that was not cropped, and the
    # likeliest of the others.
    plain = (turns == 0) | (np.abs(np.log(scales)) < 1.5 * _SCALE_STEP)
    likely = _sample(excess, rows, columns).mean(axis=1) + 1e6 * plain
    chosen = np.argsort(-likely)[:_LIKELY]
    agreement = np.concatenate(
        [
            _agreement(_sample(waves, rows[some], columns[some]), of)
            for some in np.split(chosen, range(_AT_ONCE, len(chosen), _AT_ONCE))
        ]
    )
    found: list[tuple[float, float]] = []
    for at in chosen[np.argsort(-agreement)]:
        scale, turn = float(scales[at]), float(turns[at])
        near = (
            abs(math.log(scale / other)) < 2.5 * _SCALE_STEP and abs(turn - by) < 2.5 * _TURN_STEP
            for other, by in found
        )
        if not any(near):
            found.append((scale, turn))
        if len(found) == _CANDIDATES:
            break
    shorter = min(lumas[0].shape)
    return [(scale * shorter, turn) for scale, turn in found]


@lru_cache(maxsize=1)
def _grid() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The scales and the turns of every pair that is looked at, (N,) each."""
    steps = round(math.log(LARGEST / SMALLEST) / _SCALE_STEP)
    scales = np.geomspace(SMALLEST, LARGEST, steps + 1)
    half = round(MOST_DEGREES / _TURN_STEP)
    turns = np.arange(-half, half + 1) * _TURN_STEP
    return np.repeat(scales, len(turns)), np.tile(turns, len(scales))


def _waves(flats: Sequence[Floats]) -> NDArray[np.complex64]:
    """The padded transform of the sum of flattened pictures.

    Zero, in space and in frequency, is in the middle; so it is smooth enough to be sampled between
    its bins.
    """
    flat = np.sum(flats, axis=0)
    limit = round(_WIDEST * min(flat.shape))
    flat = flat[:limit, :limit]
    window = [np.sin(np.pi * (np.arange(side) + 0.5) / side) for side in flat.shape]
    flat = flat * np.outer(*window).astype(np.float32)
    height, width = (_PADDED if side <= _PADDED // 2 else 2 * _PADDED for side in flat.shape)
    padded = np.zeros((height, width), np.float32)
    padded[: flat.shape[0], : flat.shape[1]] = flat
    padded = np.roll(padded, (-(flat.shape[0] // 2), -(flat.shape[1] // 2)), axis=(0, 1))
    waves: NDArray[np.complex64] = fft.fftshift(fft.fft2(padded))
    return waves


def _sampled_at(
    waves: NDArray[np.complex64], of: Code, scales: NDArray[np.float64], turns: NDArray[np.float64]
) -> tuple[Floats, Floats]:
    """Where in the transform each presence line lies at each scale and turn: (N, 128), twice."""
    x, y = of.x[of.presence], of.y[of.presence]
    # Cycles a period, to cycles a sample of the picture at hand.
    cos, sin = np.cos(np.radians(turns)) / scales, np.sin(np.radians(turns)) / scales
    height, width = waves.shape
    columns = (np.outer(cos, x) - np.outer(sin, y)) * (width / PERIOD) + width // 2
    rows = (np.outer(sin, x) + np.outer(cos, y)) * (height / PERIOD) + height // 2
    return rows.astype(np.float32), columns.astype(np.float32)


def _sample(image: NDArray[Any], rows: Floats, columns: Floats) -> NDArray[Any]:
    if np.iscomplexobj(image):
        parts = _sample(image.real, rows, columns), _sample(image.imag, rows, columns)
        return parts[0] + 1j * parts[1]
    return np.asarray(cv2.remap(np.ascontiguousarray(image), columns, rows, cv2.INTER_LINEAR))


def _agreement(lines: NDArray[np.complex64], of: Code) -> NDArray[np.float64]:
    """How well presence lines (N, 128) agree with the key's signs at the best place: (N,).

    It is the inverse real transform by FFT down the columns, and across by matrices: few columns
    hold a line. A quarter of a row tells all of it. Of two places that mirror each other only the
    sign of the sines differs; of two as far from the quarter's end, only that of the odd columns'
    cosines and of the even columns' sines. That also keeps the products so small that libraries
    don't share one among threads, which would spend more time on waiting for each other.
    """
    lines = lines * of.weights[of.presence]
    x, y = of.x[of.presence], of.y[of.presence]
    sparse = np.zeros((len(lines), int(x.max()) + 1, _PLACES), np.complex64)
    sparse[:, x, y] = np.conj(lines) * of.signs[of.presence]
    # Each by itself, so that they are the same in any number of threads.
    down = fft.ifft(sparse, axis=2, workers=-1, overwrite_x=True)
    (even, even_sines), (odd, odd_sines) = (
        (
            cosines @ np.ascontiguousarray(down[:, kind::2].real),
            sines @ np.ascontiguousarray(down[:, kind::2].imag),
        )
        for kind, (cosines, sines) in enumerate(_across(sparse.shape[1]))
    )
    near = (even + odd + np.abs(even_sines + odd_sines)).max(axis=(1, 2))
    far = (even - odd + np.abs(even_sines - odd_sines)).max(axis=(1, 2))
    size = np.sqrt(np.sum(np.square(np.abs(lines)), axis=1)) + 1e-12
    agreement: NDArray[np.float64] = np.maximum(near, far) / size
    return agreement


@lru_cache(maxsize=2)
def _across(columns: int) -> list[tuple[Floats, Floats]]:
    """The matrices of an inverse real transform of length ``_PLACES``, from few columns on.

    Returns:
        For the even columns, and for the odd ones: what their real and their imaginary parts are
        multiplied with at the places of one quarter, (_PLACES // 4 + 1, columns) each.
    """
    turns = np.outer(np.arange(_PLACES // 4 + 1), np.arange(columns)) * (2 * np.pi / _PLACES)
    twice = np.where(np.arange(columns) == 0, 1, 2) / _PLACES
    matrices = ((wave(turns) * twice).astype(np.float32) for wave in (np.cos, np.sin))
    cosines, sines = ([np.ascontiguousarray(m[:, kind::2]) for kind in (0, 1)] for m in matrices)
    return list(zip(cosines, sines, strict=True))


def _refine(
    lumas: Sequence[Pixels], of: Code, side: float, degrees: float
) -> tuple[float, Spectrum, Geometry]:
    """Climb from a scale and turn to the best nearby, and find the place there.

    Returns:
        The presence statistic, the spectrum as of the marked picture, and the geometry.
    """
    flat = np.sum([spread.flatten(spread.to_period(luma, side)) for luma in lumas], axis=0)

    def look(stretch: float, turn: float) -> tuple[float, Spectrum, tuple[int, int]]:
        found = spread.spectrum(_turned(flat, stretch, turn))
        strength, place = _place(found, of)
        return strength, found, place

    stretch, turn = 1.0, -degrees
    best = look(stretch, turn)
    step, turn_step = _SCALE_STEP / 2, _TURN_STEP / 2
    for _ in range(_ROUNDS):
        if best[0] < _HOPELESS:
            break
        around = [(stretch * (1 + step), turn), (stretch * (1 - step), turn)]
        around += [(stretch, turn + turn_step), (stretch, turn - turn_step)]
        found, at = max(((look(*at), at) for at in around), key=lambda pair: pair[0][0])
        if found[0] > best[0]:
            best, (stretch, turn) = found, at
        else:
            step, turn_step = step / 2, turn_step / 2
    _, total, place = best
    strength, total, x, y = _between(total, of, *place)
    # Where the corner of the picture went when it was turned about the middle.
    corner = _upright(flat.shape, stretch, turn) @ np.array([-0.5, -0.5, 1.0]) + 0.5
    geometry = Geometry(
        side=side / stretch,
        degrees=-turn,
        x=float((corner[0] + x) / PERIOD % 1.0),
        y=float((corner[1] + y) / PERIOD % 1.0),
    )
    return strength, total, geometry


def _upright(shape: tuple[int, ...], stretch: float, degrees: float) -> NDArray[np.float64]:
    """OpenCV's matrix that enlarges by ``stretch`` and turns clockwise about the middle."""
    middle = ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    return np.asarray(cv2.getRotationMatrix2D(middle, -degrees, stretch), np.float64)


def _turned(flat: Floats, stretch: float, degrees: float) -> Floats:
    """Enlarge and turn about the middle; what is outside is zero."""
    matrix = _upright(flat.shape, stretch, degrees)
    size = flat.shape[1], flat.shape[0]
    turned = cv2.warpAffine(flat, matrix, size, flags=cv2.INTER_CUBIC)
    return np.asarray(turned, np.float32)


def _place(found: Spectrum, of: Code) -> tuple[float, tuple[int, int]]:
    """Where in the period the presence lines agree best: the statistic there, and x and y."""
    chosen = of.presence
    lines = found[of.y[chosen], of.x[chosen]] * of.weights[chosen]
    size = math.sqrt(float(np.sum(np.square(np.abs(lines)))))
    if size == 0:
        return 0.0, (0, 0)
    sparse = np.zeros_like(found)
    sparse[of.y[chosen], of.x[chosen]] = np.conj(lines) * of.signs[chosen]
    # irfft2 divides by the samples, and each line stands for its mirror too.
    agreement = fft.irfft2(sparse) * (PERIOD**2 / 2 / size)
    y, x = np.unravel_index(int(agreement.argmax()), agreement.shape)
    return float(agreement[y, x]), (int(x), int(y))


def _between(found: Spectrum, of: Code, x: float, y: float) -> tuple[float, Spectrum, float, float]:
    """The best place between samples, from the best sample on."""
    step = 0.5

    chosen = of.presence
    lines = found[of.y[chosen], of.x[chosen]] * of.weights[chosen] * np.conj(of.signs[chosen])
    size = float(np.linalg.norm(lines)) or 1.0

    def strength(x: float, y: float) -> float:
        turned = np.exp(-2j * np.pi / PERIOD * (of.x[chosen] * x + of.y[chosen] * y))
        return float(np.sum((lines * turned).real)) / size

    best = strength(x, y)
    for _ in range(_HALVINGS):
        around = [(x + step, y), (x - step, y), (x, y + step), (x, y - step)]
        higher, at = max((strength(*at), at) for at in around)
        if higher > best:
            best, (x, y) = higher, at
        step /= 2
    return best, spread.moved(found, x, y, of), x, y
