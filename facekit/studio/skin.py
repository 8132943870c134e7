"""Skin and lips, painted once a person on the atlas around the head, and looked up at places.

Texture sits at places on the neutral head, in dm, so it is on the same anatomy in everyone and
moves with the face. Wrinkles change with the expression: their lines are painted once, and a
coarse map of strengths, made anew each frame, says how deep each group of them lies.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from facekit.core.seed import rng
from facekit.studio import basis, regions
from facekit.studio.basis import Array
from facekit.studio.hair import line
from facekit.studio.person import Person
from facekit.studio.regions import blob, step

_ALBEDO = (
    (0.575, 0.402, 0.306),
    (0.545, 0.365, 0.267),
    (0.51, 0.329, 0.229),
    (0.465, 0.288, 0.192),
    (0.41, 0.243, 0.156),
    (0.325, 0.184, 0.111),
    (0.25, 0.136, 0.081),
    (0.188, 0.099, 0.06),
    (0.138, 0.071, 0.045),
    (0.102, 0.053, 0.035),
)
"""Linear albedo for each group of the Monk scale (E. Monk 2019, skintone.google).

The ten groups and their order are the scale's. Its swatches are flatter in hue than skin, and
reach further than a face's diffuse albedo does, so the colours here follow the range that has
been measured on faces (Xiao et al., Skin Research and Technology 23, 2017).
"""

_TEXEL = 3.1 / basis.ATLAS[0]  # The height of a texel, in dm.
_LEVELS = 3


@dataclass(frozen=True)
class Level:
    """A painted atlas at one resolution, each float32 (H, W, 4).

    Attributes:
        surface: linear albedo, and gloss.
        relief: the tilt of pores and bumps, and 0.
        lines: the tilt of wrinkles at full depth, and how dark they are.
    """

    surface: Array
    relief: Array
    lines: Array


@dataclass(frozen=True)
class Skin:
    """A person's painted skin.

    Attributes:
        levels: from full resolution to a quarter of it, each half the one before.
    """

    levels: tuple[Level, ...]

    @property
    def atlas(self) -> Array:
        """Linear albedo and gloss at rest without its wrinkles, float32 (H, W, 4)."""
        return self.levels[0].surface


def skin_colour(person: Person) -> Array:
    """The mean albedo (3,): the group's, a little lighter or darker, yellower or pinker."""
    tone = person.skin_tone - 1 + 0.45 * person.skin_shift
    groups = np.log(np.array(_ALBEDO))
    albedo = [np.interp(tone, np.arange(10), channel) for channel in groups.T]
    hue = 0.05 * person.undertone * np.array([0.3, -0.5, 0.5])
    colour: Array = np.exp(np.array(albedo) + hue).astype(np.float32)
    return colour


def sample(
    skin: Skin,
    person: Person,
    where: Array,
    expression: Mapping[str, float],
    spacing: float = 0.0,
) -> tuple[Array, Array, Array]:
    """The skin at places on the neutral head.

    Args:
        skin: what :func:`paint` gave for ``person``.
        person: whose skin it is.
        where: float32 (P, 3) places on the neutral head, in dm.
        expression: face unit → coefficient in [0, 1]; wrinkles deepen with it.
        spacing: how far apart the places lie on a surface seen from the front, in dm: detail that
            is finer is left out, so that it does not sparkle. 0 leaves all in.

    Returns:
        Linear albedo (P, 3); gloss (P,) in [0, 1]; tilt (P, 3), to be added to the unit normal
        in the neutral head's axes (pores and wrinkles).
    """
    finest = np.log2(max(spacing, _TEXEL) / _TEXEL)
    level = min(int(finest + 0.5), _LEVELS - 1)
    column, row = basis.atlas_place(where)
    places = _Places(column, row)
    surface = places.of(skin.levels[level].surface, 2**level)
    relief = places.of(skin.levels[level].relief, 2**level)
    lines = places.of(skin.levels[level].lines, 2**level)
    strength = places.of(_strength(person, expression), _COARSE)
    lines *= strength[:, None]
    albedo = surface[:, :3]
    albedo *= 1 - lines[:, 3:] * _LINE_TINT
    return albedo, surface[:, 3], relief[:, :3] + lines[:, :3]


_LINE_TINT = np.array([0.62, 0.9, 0.95], np.float32)  # Blood and melanin show in a crease.


class _Places:
    """Where an atlas is looked up."""

    def __init__(self, column: Array, row: Array) -> None:
        width = 1024  # OpenCV's remap accepts sides below 32768.
        self.count = len(column)
        padded = np.zeros((2, max(-(-self.count // width), 1) * width), np.float32)
        padded[0, : self.count], padded[1, : self.count] = column, row
        self.x, self.y = padded.reshape(2, -1, width)

    def of(self, atlas: Array, times: int) -> Array:
        """Bilinear values (P, C) or (P,) of an atlas that is ``times`` coarser than the finest."""
        share = np.float32(1 / times)
        values = cv2.remap(
            atlas,
            self.x * share - np.float32(0.5),
            self.y * share - np.float32(0.5),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        flat: Array = np.asarray(values, np.float32).reshape(-1, *atlas.shape[2:])[: self.count]
        return flat


# --- Wrinkles -----------------------------------------------------------------------------------

_COARSE = 8  # The map of strengths is that much coarser than the atlas.


@dataclass(frozen=True)
class _Group:
    """Wrinkles that deepen together.

    Attributes:
        place: x, y, half width and half height of the region; x with its sign, or None for both
            sides.
        rest: how deep they are at rest in an old face.
        units: face unit → how much of it they follow; Left and Right are put behind the names of
            one-sided groups' units.
    """

    place: tuple[float, float, float, float]
    rest: float
    units: Mapping[str, float]


_GROUPS = (
    _Group((0.0, 7.74, 0.3, 0.15), 0.75, {"browInnerUp": 0.9}),
    _Group((0.0, 7.5, 0.12, 0.13), 0.7, {"browDownLeft": 0.5, "browDownRight": 0.5}),
    _Group((0.0, 7.24, 0.13, 0.06), 0.15, {"noseSneerLeft": 0.6, "noseSneerRight": 0.6}),
    _Group((0.0, 6.72, 0.22, 0.07), 0.5, {"mouthPucker": 0.7, "mouthFunnel": 0.2}),
    _Group((0.0, 6.37, 0.16, 0.09), 0.15, {"mouthShrugLower": 0.8, "mouthPucker": 0.2}),
    _Group((0.0, 5.9, 1.2, 0.25), 0.9, {}),
)
_SIDED_GROUPS = (
    _Group((0.38, 7.74, 0.22, 0.15), 0.7, {"browOuterUp": 0.8}),
    _Group(
        (0.57, 7.27, 0.13, 0.17),
        0.75,
        {"eyeSquint": 0.5, "cheekSquint": 0.5, "mouthSmile": 0.4, "eyeBlink": 0.15},
    ),
    _Group((0.31, 7.15, 0.19, 0.08), 0.7, {"eyeSquint": 0.5, "cheekSquint": 0.5}),
    _Group(
        (0.27, 6.78, 0.14, 0.24),
        0.75,
        {"mouthSmile": 0.75, "noseSneer": 0.6, "mouthUpperUp": 0.3, "cheekSquint": 0.2},
    ),
    _Group((0.33, 6.47, 0.09, 0.13), 0.7, {"mouthFrown": 0.7, "mouthPress": 0.2}),
)


@lru_cache(maxsize=1)
def _groups() -> tuple[tuple[Mapping[str, float], ...], Array, Array]:
    """Each group's units, depth at rest (K,), and region (K, h, w) on the coarse map."""
    rows, columns = basis.ATLAS
    places = cv2.resize(
        basis.load().texels, (columns // _COARSE, rows // _COARSE), interpolation=cv2.INTER_AREA
    )
    x, y, z = np.moveaxis(np.asarray(places, np.float32), 2, 0)
    units, rest, masks = [], [], []
    for group in _GROUPS:
        cx, cy, wide, high = group.place
        units.append(group.units)
        rest.append(group.rest)
        masks.append(np.exp(-(((x - cx) / wide) ** 4) - ((y - cy) / high) ** 4))
    for group in _SIDED_GROUPS:
        cx, cy, wide, high = group.place
        for side, sign in (("Left", 1), ("Right", -1)):  # x grows to the person's own left.
            units.append({unit + side: share for unit, share in group.units.items()})
            rest.append(group.rest)
            masks.append(np.exp(-(((x - sign * cx) / wide) ** 4) - ((y - cy) / high) ** 4))
    front = step(z, 0.2, 0.6)
    return tuple(units), np.array(rest, np.float32), np.array(masks, np.float32) * front


def _strength(person: Person, expression: Mapping[str, float]) -> Array:
    """How deep the wrinkles are, (h, w) on the coarse map, about in [0, 1.3]."""
    units, rest, masks = _groups()
    moved = np.array(
        [sum(share * expression.get(unit, 0.0) for unit, share in of.items()) for of in units]
    )
    depth = person.wrinkles * rest + (0.4 + 0.6 * person.wrinkles) * moved
    depth = depth + 0.04 * rest  # Nobody's skin is without a line.
    strength: Array = np.tensordot(np.minimum(depth, 1.3).astype(np.float32), masks, axes=1)
    return strength


# --- Paint --------------------------------------------------------------------------------------


@lru_cache(maxsize=3)
def paint(person_json: str) -> Skin:
    """Paint a person's skin; from ``Person.model_dump_json()``."""
    person = Person.model_validate_json(person_json)
    noise = _Noise(rng(person.seed, 4))
    surface = _broad(person, noise)
    height = np.zeros(basis.ATLAS, np.float32)
    _grain(surface, height, person, noise)
    _spots(surface, height, person)
    _face_hair(surface, person, noise)
    _lips(surface, height, person, noise)
    _scalp(surface, person, noise)
    surface[..., :3] = np.clip(surface[..., :3], 0.004, 0.95)
    surface[..., 3] = np.clip(surface[..., 3], 0, 1)
    furrows, dark = _furrows(person)
    relief = np.zeros((*basis.ATLAS, 4), np.float32)
    lines = np.zeros_like(relief)
    relief[..., :3] = _tilt(height)
    window = _chart().window(1.2, 5.6, 8.0)  # Nobody has wrinkles elsewhere.
    lines[window][..., :3] = _tilt(furrows, window)
    lines[..., 3] = dark
    levels = [Level(surface, relief, lines)]
    while len(levels) < _LEVELS:
        finer = levels[-1]
        levels.append(Level(*(_half(a) for a in (finer.surface, finer.relief, finer.lines))))
    return Skin(tuple(levels))


def stacked(above: Skin, below: Skin, height: float) -> Skin:
    """The paint of ``above``, and below a height on the neutral head, in dm, that of ``below``."""
    row = round((8.6 - height) / _TEXEL)
    levels = []
    for level, (upper, lower) in enumerate(zip(above.levels, below.levels, strict=True)):
        cut = row >> level
        parts = (
            np.concatenate([getattr(upper, f.name)[:cut], getattr(lower, f.name)[cut:]])
            for f in fields(Level)
        )
        levels.append(Level(*parts))
    return Skin(tuple(levels))


def _half(atlas: Array) -> Array:
    rows, columns = atlas.shape[:2]
    size = (columns // 2, rows // 2)
    return np.asarray(cv2.resize(atlas, size, interpolation=cv2.INTER_AREA), np.float32)


class _Noise:
    """Smooth noise over the atlas with zero mean and unit deviation, by cells a dm."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random

    def __call__(self, down: float, across: float | None = None, shrink: int = 1) -> Array:
        """A pattern of its own at each call, (H, W) divided by ``shrink``."""
        rows, columns = (side // shrink for side in basis.ATLAS)
        across = across or down
        cells = (max(int(3.1 * down), 3), max(int(3.35 * across), 3))
        grid = self.random.standard_normal(cells, np.float32)
        pattern = np.asarray(cv2.resize(grid, (columns, rows), interpolation=cv2.INTER_CUBIC))
        return pattern / np.float32(0.72)  # What cubic interpolation leaves of the deviation.

    def pores(self) -> Array:
        """A part of the grain of skin that all share, (H, W)."""
        rows, columns = basis.ATLAS
        top, left = self.random.integers(0, 512, 2)
        return _pores()[top : top + rows, left : left + columns]


@lru_cache(maxsize=1)
def _pores() -> Array:
    """Grain about a millimetre wide, with unit deviation: (1536, 1536), a tile three times."""
    white = np.tile(rng(11, 1).standard_normal((512, 512), np.float32), (3, 3))
    grain = np.asarray(cv2.GaussianBlur(white, (0, 0), 0.9) - cv2.GaussianBlur(white, (0, 0), 2.2))
    tile = grain[512:1024, 512:1024]
    scaled: Array = np.tile(tile / tile.std(), (3, 3)).astype(np.float32)
    return scaled


@dataclass(frozen=True)
class _Chart:
    """The atlas: places (H, W) on the neutral head, and how slopes on it become slopes in space.

    Attributes:
        x, y, z: of each texel, in dm.
        right, down: (H, W, 3) the gradient in space of a height that grows by 1 a texel.
        even: (H, W) 1, but 0 where a texel is drawn out so far that fine detail would smear.
    """

    x: Array
    y: Array
    z: Array
    right: Array
    down: Array
    even: Array

    def window(self, wide: float, low: float, high: float) -> tuple[slice, slice]:
        """The texels with |x| ≤ ``wide`` on the front, and y from ``low`` to ``high``."""
        rows, columns = basis.ATLAS
        top, bottom = (round((8.6 - y) / _TEXEL) for y in (high, low))
        middle = columns // 2
        reach = round(np.degrees(np.arctan2(wide, 0.55)) / 120 * middle)
        return slice(max(top, 0), min(bottom, rows)), slice(middle - reach, middle + reach)


@lru_cache(maxsize=1)
def _chart() -> _Chart:
    texels = basis.load().texels
    down, right = np.gradient(texels, axis=0), np.gradient(texels, axis=1)
    a, b, c = (right * right).sum(2), (right * down).sum(2), (down * down).sum(2)
    area = a * c - b * b
    # Where the surface folds away from the axis, neighbours on the atlas are none on the skin.
    whole = (area > 1e-12) & (a < 0.02**2) & (c < 0.02**2)
    share = (np.where(whole, 1, 0) / np.maximum(area, 1e-12))[..., None]
    x, y, z = np.moveaxis(texels, 2, 0)
    return _Chart(
        np.ascontiguousarray(x),
        np.ascontiguousarray(y),
        np.ascontiguousarray(z),
        ((c[..., None] * right - b[..., None] * down) * share).astype(np.float32),
        ((a[..., None] * down - b[..., None] * right) * share).astype(np.float32),
        step(0.012 - np.sqrt(np.maximum(a, c)), 0, 0.005).astype(np.float32),
    )


def _tilt(height: Array, window: tuple[slice, slice] = (slice(None), slice(None))) -> Array:
    """What a height (H, W) in dm above the skin adds to its normal, in a window: (h, w, 3)."""
    chart = _chart()
    slope = np.array([[-0.5, 0, 0.5]], np.float32)
    right, down = (cv2.filter2D(height[window], -1, s) for s in (-slope, slope.T))
    tilt: Array = np.asarray(chart.right[window] * _thrice(right), np.float32)
    tilt -= chart.down[window] * _thrice(down)
    return np.clip(tilt, -0.8, 0.8, out=tilt)


def _thrice(values: Any) -> Any:
    """Values (h, w) for three channels (h, w, 3); much quicker than to broadcast them."""
    return cv2.merge([values, values, values])


_BROAD = 4  # Broad colours are painted that much coarser.


@lru_cache(maxsize=1)
def _broad_places() -> Array:
    rows, columns = basis.ATLAS
    size = (columns // _BROAD, rows // _BROAD)
    return np.asarray(cv2.resize(basis.load().texels, size, interpolation=cv2.INTER_AREA))


def _broad(person: Person, noise: _Noise) -> Array:
    """Albedo and gloss (H, W, 4) without fine detail: blood, melanin and oil by region."""
    x, y, z = np.moveaxis(_broad_places(), 2, 0)
    side = np.abs(x)
    tone = skin_colour(person)
    # Blood shows through pale skin; melanin hides it.
    shows = float(np.interp(tone.mean(), [0.05, 0.2, 0.4], [0.35, 0.7, 1.0]))

    blood = 0.9 * blob(x, y, 0.47, 6.95, 0.2, 0.2) + 0.8 * blob(x, y, 0, 6.92, 0.15, 0.1)
    blood += 0.35 * blob(x, y, 0, 6.33, 0.18, 0.1) + 0.25 * blob(x, y, 0, 7.5, 0.2, 0.08)
    blood += 0.35 * blob(x, y, 0.3, 7.33, 0.17, 0.08)
    ears = step(side, 0.72, 0.8) * step(y, 6.7, 6.85) * (1 - step(y, 7.35, 7.45))
    blood += 0.8 * ears * step(z, -0.2, 0.0)
    blood *= 0.35 + 0.85 * person.redness
    blood *= 1 + 0.35 * noise(5, shrink=_BROAD)
    blood += 0.12 * person.mottling * noise(9, shrink=_BROAD)
    blood -= 0.12 * blob(x, y, 0, 7.75, 0.4, 0.15)  # The forehead is yellower.

    melanin = person.mottling * (0.10 * noise(2.5, shrink=_BROAD) + 0.06 * noise(8, shrink=_BROAD))
    hollow = blob(x, y, 0.29, 7.18, 0.15, 0.05) * (0.35 + 0.45 * person.wrinkles)
    lids = blob(x, y, 0.31, 7.31, 0.15, 0.07)
    melanin += 0.30 * hollow + 0.22 * lids + 0.12 * blob(x, y, 0, 6.6, 0.42, 0.22)
    melanin -= 0.06 * blob(x, y, 0.4, 7.05, 0.14, 0.08)
    melanin += 0.1 * (1 - step(y + 0.3 * z, 6.35, 6.6))  # Throat, in the chin's shade all day.

    colour = np.log(tone) - np.clip(blood, -0.3, 1.6)[..., None] * (
        shows * np.array([0.03, 0.26, 0.21], np.float32)
    )
    colour -= melanin[..., None] * np.array([0.55, 0.85, 1.1], np.float32)
    gloss = 0.3 + 0.2 * blob(x, y, 0, 7.05, 0.1, 0.3) + 0.16 * blob(x, y, 0, 7.72, 0.42, 0.14)
    gloss += 0.12 * blob(x, y, 0.42, 7.08, 0.14, 0.08) + 0.08 * blob(x, y, 0, 6.36, 0.16, 0.08)
    gloss += 0.05 * noise(6, shrink=_BROAD) - 0.12 * person.wrinkles
    if person.hair in ("bald", "shaved"):
        gloss += 0.12 * step(y, 7.9, 8.1)
    rows, columns = basis.ATLAS
    coarse = np.dstack([np.exp(colour), gloss]).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_LINEAR))


@lru_cache(maxsize=1)
def _pore_places() -> Array:
    """How large pores are, (H, W): on the nose and beside it most."""
    x, y, _ = np.moveaxis(_broad_places(), 2, 0)
    size = 0.35 + 0.9 * blob(x, y, 0, 6.97, 0.15, 0.16) + 0.65 * blob(x, y, 0.3, 6.98, 0.18, 0.15)
    size += 0.35 * blob(x, y, 0, 7.7, 0.4, 0.15) + 0.35 * blob(x, y, 0, 6.37, 0.2, 0.1)
    rows, columns = basis.ATLAS
    return np.asarray(cv2.resize(size.astype(np.float32), (columns, rows)))


def _grain(surface: Array, height: Array, person: Person, noise: _Noise) -> None:
    """Pores, fine bumps, and the crêpe of old skin."""
    grain = noise.pores()
    even = _chart().even
    size = _pore_places() * np.float32(0.4 + 0.6 * person.pores) * even
    pits = np.minimum(grain, 0.5) * size  # Pits go deeper than the skin between them rises.
    crepe = noise(38, 55) * even
    height += np.float32(0.00075) * pits
    height += np.float32(0.00012 + 0.0003 * person.wrinkles) * crepe
    height += np.float32(0.0004) * noise(16)
    shade = 1 + np.float32(0.035) * pits + np.float32(0.012 + 0.012 * person.mottling) * crepe
    for channel in range(3):
        surface[..., channel] *= shade
    surface[..., 3] *= 1 + 0.12 * pits


def _spots(surface: Array, height: Array, person: Person) -> None:
    """Freckles, moles, blemishes and the spots of age, each where it is likely."""
    chart = _chart()
    random = rng(person.seed, 5)
    freckles = int(420 * person.freckles**1.6)
    moles = int(2 + 16 * person.moles**2)
    blemishes = int(14 * person.blemishes**2)
    spots = int(40 * max(person.wrinkles - 0.45, 0) * (1.2 - 0.6 * person.pores))
    for kind, count in enumerate((freckles, moles, blemishes, spots)):
        spread = ((0.38, 0.22), (0.5, 0.45), (0.42, 0.4), (0.6, 0.45))[kind]
        middle = (7.02, 7.0, 6.9, 7.3)[kind]
        px, py = random.normal(0, spread[0], count), random.normal(middle, spread[1], count)
        low, high = ((0.006, 0.013), (0.006, 0.014), (0.012, 0.024), (0.012, 0.05))[kind]
        radius = low + (high - low) * random.random(count) ** 2
        depth = random.uniform(0.35, 1.0, count)
        columns, rows = basis.atlas_place(
            np.stack([px, py, np.sqrt(np.clip(1.05 - px**2, 0.1, None)) + 0.35], 1)
        )
        for column, row, size, strength in zip(columns, rows, radius, depth, strict=True):
            reach = int(2 * size / _TEXEL) + 3
            r, c = int(row), int(column)
            if not (reach < r < height.shape[0] - reach and reach < c < height.shape[1] - reach):
                continue
            window = (slice(r - reach, r + reach + 1), slice(c - reach, c + reach + 1))
            off = np.hypot(
                (chart.x[window] - chart.x[r, c]) * random.uniform(0.8, 1.25),
                chart.y[window] - chart.y[r, c],
            )
            off = np.hypot(off, chart.z[window] - chart.z[r, c])
            spot = (strength * (1 - step(off, 0.4 * size, 1.5 * size))).astype(np.float32)
            surface[window][..., :3] *= np.exp(-spot[..., None] * _SPOTS[kind])
            if kind == 2 or (kind == 1 and size > 0.011):
                height[window] += (0.12 if kind == 2 else 0.3) * size * spot


_SPOTS = np.array(
    [[0.22, 0.36, 0.48], [0.8, 1.35, 1.8], [0.05, 0.45, 0.4], [0.17, 0.27, 0.36]], np.float32
)
"""How freckles, moles, blemishes and the spots of age absorb red, green and blue."""


def _lips(surface: Array, height: Array, person: Person, noise: _Noise) -> None:
    """Vermilion with a soft border, lines across it, and the wet line between the lips."""
    chart = _chart()
    window = chart.window(0.4, 6.42, 6.76)
    x, y = chart.x[window], chart.y[window]
    mask = cv2.GaussianBlur(basis.load().lips[window], (0, 0), 2.6)
    tone = skin_colour(person)
    dark = float(np.interp(tone.mean(), [0.06, 0.3], [1, 0]))
    red = person.lip_red
    natural = tone * (
        np.array([0.88, 0.63 - 0.15 * red, 0.69 - 0.12 * red]) + dark * np.array([0.0, 0.12, 0.16])
    )
    natural = natural + dark * np.array([0.03, 0.008, 0.01]) * (0.5 + red)
    if person.sex < 0.5 and red > 0.75:  # Lipstick
        stick = np.array([0.36, 0.06, 0.075]) * (0.35 + 1.3 * float(tone.mean()))
        natural = natural + (red - 0.75) / 0.25 * 0.8 * (stick - natural)
    cross = noise(9, 80)[window]
    patch = noise(20)[window]
    # In darker lips the lower one is pinker towards its middle.
    inner = dark * 0.3 * np.exp(-(((y - 6.575) / 0.04) ** 2) - (x / 0.2) ** 2)
    target = natural * (1 + 0.06 * cross + 0.05 * patch)[..., None]
    target *= np.exp(inner[..., None] * np.array([0.5, 0.2, 0.3]))
    share = (mask * (0.4 + 0.45 * person.lips))[..., None]
    skin = surface[window]
    skin[..., :3] += share * (target - skin[..., :3])
    parting = np.exp(-(((y - 6.612) / 0.012) ** 2)) * step(0.3 - np.abs(x), 0, 0.06) * mask
    skin[..., :3] *= 1 - 0.35 * parting[..., None] * np.array([0.5, 0.9, 0.9])
    corner = blob(x, y, 0.275, 6.613, 0.035, 0.025)
    skin[..., :3] *= 1 - 0.25 * corner[..., None] * np.array([0.7, 1.0, 1.0])
    skin[..., 3] += mask * (0.25 + 0.1 * patch)
    height[window] *= 1 - 0.7 * mask
    height[window] += mask * (0.0011 * cross)


def _cover(skin: Array, amount: Array, hair: Array) -> None:
    """Shade with hair's colour: ``amount`` (H, W) in [0, 1]."""
    share = np.clip(amount, 0, 1)
    for channel, tone in enumerate(hair):
        skin[..., channel] += share * (tone - skin[..., channel])
    skin[..., 3] *= 1 - 0.6 * share


def brow_colour(person: Person) -> Array:
    """Linear RGB (3,): as the head's hair, but never as pale."""
    darker = {"grey": 0.45, "white": 0.4, "blond": 0.5, "light brown": 0.75}
    return np.array(person.hair_colour, np.float32) * np.float32(darker.get(person.hair_name, 0.85))


def _face_hair(surface: Array, person: Person, noise: _Noise) -> None:
    """What brows and beard shade, and the stubble's dots; the strands are geometry."""
    chart = _chart()
    dots = 0.5 + 0.5 * np.clip(noise.pores(), -1, 2) * chart.even
    window = chart.window(0.62, 7.28, 7.72)
    x, y = chart.x[window], chart.y[window]
    along, across = regions.brow(person, x, y)
    body = (1 - step(np.abs(across), 0.3, 1.35)) * step(along, -0.08, 0.14)
    body *= (1 - step(along, 0.82, 1.04)) * (chart.z[window] > 0.6)
    share = body * (0.22 + 0.38 * person.brow_density) * (0.8 + 0.3 * dots[window])
    _cover(surface[window], share, brow_colour(person))
    if person.sex <= 0.5:
        return

    window = chart.window(1.0, 5.9, 7.2)
    x, y, z = chart.x[window], chart.y[window], chart.z[window]
    region = regions.beard(x, y, z).astype(np.float32)
    hair = np.array(person.hair_colour, np.float32)
    skin, dots = surface[window], dots[window]
    # Roots below shaven skin look bluish where they are darker than it.
    contrast = float(np.clip(1 - hair.mean() / skin_colour(person).mean(), 0, 1))
    shadow = region * np.float32(contrast * (0.25 + 0.35 * person.brow_density))
    skin[..., :3] *= 1 - shadow[..., None] * np.array([0.42, 0.34, 0.26], np.float32)
    # White hair hardly shades the skin below it.
    region *= np.float32(0.45 + 0.55 * contrast)
    if person.beard == "none":
        _cover(skin, 0.06 * region * dots, hair)
    elif person.beard == "stubble":
        _cover(skin, region * np.clip(0.12 + 0.42 * dots, 0, 0.8), 0.9 * hair)
    else:
        if person.beard in ("moustache", "goatee"):
            kept = regions.moustache(x, y).astype(np.float32)
            if person.beard == "goatee":
                kept = np.clip(kept + regions.goatee(x, y).astype(np.float32), 0, 1)
            _cover(skin, 0.25 * region * (1 - kept) * dots, 0.9 * hair)
            region = region * kept
        _cover(skin, region * (0.5 + 0.2 * dots), 0.8 * hair)


def _scalp(surface: Array, person: Person, noise: _Noise) -> None:
    """Under the hair the skin takes its colour, so that the hairline is soft."""
    if person.hair == "bald":
        return
    places = _broad_places()
    rows, columns = basis.ATLAS
    coarse = basis.scalp_height(places) - line(person, places)
    height = np.asarray(cv2.resize(coarse.astype(np.float32), (columns, rows)), np.float32)
    above = slice(0, round((8.6 - 6.45) / _TEXEL))  # All hair grows there.
    amount = step((height + 0.03 * noise(24, 40))[above], -0.03, 0.09)
    if person.hair == "shaved":
        amount *= 0.3 + 0.35 * np.clip(noise.pores()[above], -0.8, 2)
    else:
        amount *= 0.85
    _cover(surface[above], amount, np.array(person.hair_colour, np.float32))


def _furrows(person: Person) -> tuple[Array, Array]:
    """The wrinkles at full depth: height (H, W) in dm, and darkness in [0, 1]."""
    random = rng(person.seed, 6)
    height, dark = np.zeros(basis.ATLAS, np.float32), np.zeros(basis.ATLAS, np.float32)
    chart = _chart()

    def cut(
        window: tuple[slice, slice],
        off: Array,
        width: float,
        depth: float,
        share: Array,
        ink: float,
    ) -> None:
        off, share = off.astype(np.float32), share.astype(np.float32)
        groove = share * np.exp(-((off / width) ** 2))
        # The skin beside a groove swells a little.
        swell = share * np.exp(-((off / (2.6 * width)) ** 2))
        height[window] += depth * (0.5 * swell - 1.5 * groove)
        dark[window] = np.maximum(dark[window], ink * groove)

    def wobble(values: Array, cells: float, amount: float) -> Array:
        knots = random.normal(0, amount, 64)
        smooth: Array = np.interp(values * cells + 32, np.arange(64), knots).astype(np.float32)
        return smooth

    window = chart.window(0.66, 7.5, 7.98)
    x, y = chart.x[window], chart.y[window]
    at = 7.57 + random.uniform(0, 0.03)
    arch = random.uniform(-0.02, 0.05)
    while at < 7.9:
        course = at + arch * np.cos(x * 5) - 0.05 * x**2 + wobble(x, 9, 0.008)
        share = np.clip(0.75 + wobble(x, 7, 0.3), 0.1, 1)
        cut(window, y - course, random.uniform(0.008, 0.012), 0.0032, share, 0.3)
        at += random.uniform(0.055, 0.085)

    window = chart.window(0.22, 7.38, 7.66)
    x, y = chart.x[window], chart.y[window]
    for sign in (-1, 1):
        course = sign * (random.uniform(0.05, 0.085) + 0.12 * (y - 7.5)) + wobble(y, 14, 0.006)
        share = step(y, 7.4, 7.46) * (1 - step(y, 7.55, 7.64)) * random.uniform(0.6, 1)
        cut(window, x - course, 0.011, 0.005, share, 0.4)

    window = chart.window(0.2, 7.16, 7.34)
    x, y = chart.x[window], chart.y[window]
    for at in (7.21, 7.25, 7.285):
        course = at + 0.6 * np.abs(x) + wobble(x, 20, 0.004)
        cut(window, y - course, 0.008, 0.003, step(0.13 - np.abs(x), 0, 0.05), 0.25)

    window = chart.window(0.8, 7.0, 7.5)
    x, y = chart.x[window], chart.y[window]
    for sign in (-1, 1):
        out, up = sign * x - 0.395, y - 7.285
        far, angle = np.hypot(out, up), np.arctan2(up, np.maximum(out, 1e-3))
        share = step(far, 0.07, 0.11) * (1 - step(far, 0.17, 0.29)) * (out > 0)
        ray = random.uniform(-0.75, -0.6)
        while ray < 0.65:
            bend = ray - 0.9 * (far - 0.1) * np.sign(ray) * 0.5 + wobble(far, 60, 0.05)
            strength = random.uniform(0.5, 1) * share
            cut(window, far * np.sin(angle - bend), 0.008, 0.0032, strength, 0.35)
            ray += random.uniform(0.2, 0.36)

    window = chart.window(0.55, 7.02, 7.27)
    x, y = chart.x[window], chart.y[window]
    for sign in (-1, 1):
        out = sign * x
        for i in range(3):
            course = 7.212 - 0.034 * i + (1.1 - 0.1 * i) * (out - 0.3) ** 2 + wobble(x, 25, 0.004)
            share = step(out, 0.16, 0.22) * (1 - step(out, 0.38, 0.47)) * random.uniform(0.5, 1)
            cut(window, y - course, 0.009 + 0.004 * i, 0.0028, share, 0.25)

    window = chart.window(0.55, 6.3, 7.02)
    x, y = chart.x[window], chart.y[window]
    for sign in (-1, 1):
        out = sign * x
        lean = random.uniform(-0.012, 0.012)
        course = np.interp(
            y, [6.5, 6.58, 6.68, 6.78, 6.88, 6.95], [0.365, 0.355, 0.325, 0.275, 0.21, 0.165]
        )
        share = step(y, 6.52, 6.64) * (1 - step(y, 6.9, 6.96))
        cut(window, 0.82 * (out - course - lean) + wobble(y, 12, 0.006), 0.02, 0.0075, share, 0.4)
        course = np.interp(y, [6.36, 6.46, 6.57], [0.345, 0.33, 0.3]) + lean
        share = step(y, 6.36, 6.44) * (1 - step(y, 6.54, 6.6))
        cut(window, out - course + wobble(y, 12, 0.005), 0.015, 0.005, share, 0.35)

    window = chart.window(0.34, 6.66, 6.82)
    x, y = chart.x[window], chart.y[window]
    for at in np.arange(-0.21, 0.22, 0.042):
        course = (at + random.normal(0, 0.006)) * (1 + 0.8 * (y - 6.7))
        share = step(y, 6.67, 6.7) * (1 - step(y, 6.74, 6.79)) * random.uniform(0.3, 1)
        cut(window, x - course, 0.007, 0.0026, share, 0.2)

    window = chart.window(0.3, 6.25, 6.47)
    height[window] += 0.004 * cv2.GaussianBlur(
        random.normal(size=height[window].shape).astype(np.float32), (0, 0), 4
    )

    window = chart.window(1.2, 5.6, 6.15)
    x, y = chart.x[window], chart.y[window]
    for at in (6.02, 5.88):
        course = at + random.normal(0, 0.02) + 0.12 * x**2 + wobble(x, 8, 0.01)
        cut(window, y - course, 0.014, 0.004, np.clip(0.7 + wobble(x, 5, 0.3), 0, 1), 0.25)
    return height, dark
