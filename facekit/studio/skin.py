"""Skin, lips, brows, lashes and beard, painted once a person on the atlas around the head.

Texture is solid: every pattern is a function of the place on the neutral head, in dm, so it sits
on the same anatomy in everyone and moves with the face.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from facekit.core.seed import rng
from facekit.studio import basis
from facekit.studio.basis import Array
from facekit.studio.hair import line
from facekit.studio.person import MONK, Person


def linear(colour: str | tuple[float, float, float]) -> Array:
    """Linear RGB of an sRGB colour: ``#rrggbb``, or three shares in [0, 1]."""
    if isinstance(colour, str):
        colour = tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))  # type: ignore[assignment]
    values = np.asarray(colour, np.float64)
    result: Array = np.where(
        values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4
    ).astype(np.float32)
    return result


def skin_colour(person: Person) -> Array:
    """The mean albedo (3,): the Monk swatch, shifted within its group and warmed."""
    swatch = linear(MONK[person.skin_tone - 1])
    # The scale's ends are paler and darker than a face's diffuse albedo can be, and its dark end
    # is nearly grey; skin keeps some red, the more so the darker it is.
    light = 0.05 + 0.55 * float(swatch.mean())
    dark = 1 - min(light / 0.3, 1)
    hue = swatch / swatch.mean() * np.array([1.13, 0.97, 0.88])
    hue = hue + dark * (np.array([1.56, 0.86, 0.58]) - hue)
    albedo = light * hue / hue.mean()
    shifted: Array = (albedo * (1 + 0.12 * person.skin_shift)).astype(np.float32)
    return shifted


@dataclass(frozen=True)
class Skin:
    """A person's painted skin.

    Attributes:
        atlas: float32 (H, W, 4), linear albedo and gloss, at rest.
    """

    atlas: Array


def sample(
    skin: Skin, person: Person, where: Array, expression: Mapping[str, float]
) -> tuple[Array, Array, Array]:
    """The skin at places on the neutral head.

    Args:
        skin: what :func:`paint` gave for ``person``.
        person: whose skin it is.
        where: float32 (P, 3) places on the neutral head, in dm.
        expression: face unit → coefficient in [0, 1]; wrinkles deepen with it.

    Returns:
        Linear albedo (P, 3); gloss (P,) in [0, 1]; tilt (P, 3), to be added to the unit normal
        in the neutral head's axes (pores and wrinkles).
    """
    column, row = basis.atlas_place(where)
    texture = _remap(skin.atlas, column, row)
    return texture[:, :3], texture[:, 3], np.zeros_like(where)


def _remap(atlas: Array, column: Array, row: Array) -> Array:
    """Bilinear values (P, C) of an atlas (H, W, C) at places whose centres are at +0.5."""
    width = 1024  # OpenCV's remap accepts sides below 32768.
    count = len(column)
    places = np.zeros((2, -(-count // width) * width), np.float32)
    places[0, :count], places[1, :count] = column - 0.5, row - 0.5
    x, y = places.reshape(2, -1, width)
    values = cv2.remap(atlas, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    result: Array = np.asarray(values, np.float32).reshape(-1, atlas.shape[2])[:count]
    return result


@lru_cache(maxsize=4)
def paint(person_json: str) -> Skin:
    """Paint a person's skin; from ``Person.model_dump_json()``."""
    person = Person.model_validate_json(person_json)
    head = basis.load()
    x, y, z = np.moveaxis(head.texels, 2, 0)
    side = np.abs(x)
    tone = skin_colour(person)
    depth = float(tone.mean())  # How much blood shows through: little in dark skin.
    noise = _Noise(rng(person.seed, 4), head.texels)

    colour = np.broadcast_to(tone, (*x.shape, 3)).copy()
    gloss = np.full(x.shape, 0.35, np.float32)

    # Mottling: broad patches, and pores that fade at a distance.
    patches = noise(3.0) + 0.6 * noise(8.0)
    pores = noise(42.0) + 0.7 * noise(90.0)
    colour *= (1 + 0.07 * person.mottling * patches + 0.035 * pores)[..., None]

    # Blood: cheeks, nose, ears, chin.
    blood = _blob(x, y, 0.48, 6.93, 0.26, 0.22) + 0.8 * _blob(x, y, 0, 6.96, 0.16, 0.13)
    blood += 0.5 * _blob(x, y, 0, 6.3, 0.2, 0.12) + 0.7 * (side > 0.76)
    blood *= (0.4 + 0.9 * person.redness) * (1 + 0.5 * noise(7.0))
    colour *= 1 - np.clip(blood, 0, 1.3)[..., None] * np.array([0.02, 0.24, 0.22]) * min(
        1, 0.35 + 2 * depth
    )
    # Lids and the hollows below the eyes are darker; the T-zone shines.
    hollow = _blob(x, y, 0.3, 7.17, 0.17, 0.06) * (0.25 + 0.6 * person.wrinkles)
    hollow += 0.5 * _blob(x, y, 0.31, 7.3, 0.19, 0.1)
    colour *= 1 - 0.3 * np.clip(hollow, 0, 1)[..., None] * np.array([0.75, 1, 0.9])
    gloss += 0.3 * _blob(x, y, 0, 7.0, 0.1, 0.35) + 0.2 * _blob(x, y, 0, 7.7, 0.4, 0.15)

    _freckles(colour, person, x, y)
    _wrinkles(colour, person, x, y, noise)
    if person.sex > 0.5:
        _beard(colour, gloss, person, x, y, z, noise)
    _lips(colour, gloss, person, head.lips, tone, noise)
    brows = (y[:, 0] > 7.25) & (y[:, 0] < 7.75)  # A row of the atlas has one height.
    top, bottom = np.flatnonzero(brows)[[0, -1]]
    band = slice(top, bottom)
    _brows(colour[band], gloss[band], person, x[band], y[band], z[band])
    _lashes(colour, person, head)
    _scalp(colour, person, head.texels, noise)
    return Skin(
        np.ascontiguousarray(
            np.concatenate([np.clip(colour, 0.004, 0.95), gloss[..., None]], 2), np.float32
        )
    )


class _Noise:
    """Smooth solid noise with zero mean and unit deviation, by frequency (cells a dm)."""

    def __init__(self, random: np.random.Generator, points: Array) -> None:
        self.random, self.points = random, points

    def __call__(self, frequency: float, stretch: tuple[float, float, float] = (1, 1, 1)) -> Array:
        """A pattern (H, W) of its own at each call."""
        size = 48
        grid = self.random.normal(size=(size, size, size)).astype(np.float32)
        # Coarse noise needs few samples; the rest is interpolation.
        step = 1 if frequency > 45 else 2 if frequency > 20 else 4
        points = self.points[::step, ::step]
        places = np.moveaxis(points * (np.float32(frequency) * np.array(stretch, np.float32)), 2, 0)
        values = map_coordinates(grid, places, order=1, mode="grid-wrap")
        if step > 1:
            rows, columns = self.points.shape[:2]
            values = cv2.resize(values, (columns, rows), interpolation=cv2.INTER_LINEAR)
        scaled: Array = values / np.float32(0.54)  # Linear interpolation's mean deviation in 3-D.
        return scaled


def _blob(x: Array, y: Array, cx: float, cy: float, wide: float, high: float) -> Array:
    """A soft spot at ±cx, cy."""
    spot: Array = np.exp(-(((np.abs(x) - cx) / wide) ** 2) - ((y - cy) / high) ** 2)
    return spot


def _step(value: Array, low: float, high: float) -> Array:
    share = np.clip((value - low) / (high - low), 0, 1)
    smooth: Array = share * share * (3 - 2 * share)
    return smooth


def _freckles(colour: Array, person: Person, x: Array, y: Array) -> None:
    """Small dark spots over nose and cheeks, and a few moles."""
    random = rng(person.seed, 5)
    count = int(260 * person.freckles**1.5)
    px = np.concatenate([random.normal(0, 0.42, count), random.uniform(-0.75, 0.75, 5)])
    py = np.concatenate([random.normal(7.0, 0.2, count), random.uniform(6.3, 7.8, 5)])
    radius = np.concatenate([random.uniform(0.006, 0.014, count), random.uniform(0.008, 0.016, 5)])
    depth = np.concatenate([random.uniform(0.1, 0.4, count), random.uniform(0.2, 0.7, 5)])
    columns = x.shape[1]
    head = basis.load()
    tree = cKDTree(head.texels[::2, ::2, :2].reshape(-1, 2))
    _, nearest = tree.query(np.stack([px, py], 1))
    for i, index in enumerate(nearest):
        row, column = divmod(int(index), (columns + 1) // 2)
        low_r, low_c = max(2 * row - 12, 0), max(2 * column - 12, 0)
        window = (slice(low_r, 2 * row + 13), slice(low_c, 2 * column + 13))
        distance = np.hypot(x[window] - px[i], y[window] - py[i])
        spot = depth[i] * (1 - _step(distance, 0.5 * radius[i], 1.4 * radius[i]))
        colour[window] *= 1 - spot[..., None] * np.array([0.6, 0.85, 1.0])


def _wrinkles(colour: Array, person: Person, x: Array, y: Array, noise: _Noise) -> None:
    """Lines on the forehead, at the eyes and from nose to mouth, deeper with age."""
    age = person.wrinkles
    if age < 0.05:
        return
    side = np.abs(x)
    bend = 0.025 * noise(4.0)
    forehead = np.exp(-((np.sin((y + bend + 0.1 * side) * 2 * np.pi / 0.12)) ** 2) / 0.05)
    forehead *= _blob(x, y, 0, 7.74, 0.42, 0.14)
    crow = np.exp(-((np.sin((y + bend - 7.28) / np.maximum(side - 0.3, 0.05) * 9)) ** 2) / 0.1)
    crow *= _blob(x, y, 0.58, 7.28, 0.08, 0.12)
    fold_x = np.interp(y, [6.45, 6.6, 6.8, 7.0], [0.42, 0.37, 0.29, 0.2])
    fold = (
        np.exp(-(((side - fold_x) / 0.022) ** 2)) * _step(y, 6.42, 6.6) * (1 - _step(y, 6.9, 7.02))
    )
    lines = age * (0.3 * forehead + 0.3 * crow + 0.45 * fold)
    colour *= 1 - np.clip(lines, 0, 0.7)[..., None] * np.array([0.6, 0.8, 0.8])
    spots = _step(noise(14.0), 1.3, 2.2) * max(age - 0.4, 0)
    colour *= 1 - 0.35 * spots[..., None] * np.array([0.6, 0.85, 1])


def _hairs(colour: Array, gloss: Array, amount: Array, hair: Array) -> None:
    """Cover with hair: ``amount`` (H, W) in [0, 1]."""
    share = np.clip(amount, 0, 1)[..., None]
    colour += share * (hair - colour)
    gloss *= 1 - 0.7 * share[..., 0]


def beard_region(x: Array, y: Array, z: Array) -> Array:
    """Where a beard grows, in [0, 1]."""
    side = np.abs(x)
    # The upper edge runs from the sideburn down to the corner of the mouth.
    edge = np.interp(side, [0, 0.16, 0.3, 0.42, 0.62, 0.75], [6.86, 6.84, 6.74, 6.62, 6.85, 7.15])
    region = _step(edge - y, -0.03, 0.09) * (1 - _step(side, 0.74, 0.8))
    region *= _step(y + 0.45 * z, 6.45, 6.75)  # The throat.
    below_lip = _blob(x, y, 0.14, 6.44, 0.07, 0.035) * 0.5
    result: Array = np.clip(region - below_lip, 0, 1)
    return result


def _beard(
    colour: Array, gloss: Array, person: Person, x: Array, y: Array, z: Array, noise: _Noise
) -> None:
    region = beard_region(x, y, z)
    hair = np.array(person.hair_colour, np.float32)
    # Even a shaven beard darkens the skin where hair is darker.
    shade = 0.1 + 0.08 * person.brow_density
    if person.beard == "stubble":
        shade = 0.36
    dots = 0.5 + 0.5 * noise(60.0)
    _hairs(colour, gloss, region * shade * np.clip(0.55 + 0.45 * dots, 0, 1), 0.8 * hair)
    if person.beard in ("none", "stubble"):
        return
    moustache = _blob(x, y, 0.17, 6.79, 0.2, 0.07)
    chin = _blob(x, y, 0, 6.3, 0.24, 0.2) * (y < 6.52)
    if person.beard == "moustache":
        region = region * _step(moustache, 0.3, 0.6)
    if person.beard == "goatee":
        region = region * np.clip(_step(moustache, 0.3, 0.6) + _step(chin, 0.25, 0.6), 0, 1)
    strands = 0.88 + 0.1 * noise(34.0, (1.6, 0.5, 1.6))
    _hairs(
        colour, gloss, 1.15 * region * np.clip(strands, 0.6, 1), hair * (1 + 0.25 * dots)[..., None]
    )


def _lips(
    colour: Array, gloss: Array, person: Person, lips: Array, tone: Array, noise: _Noise
) -> None:
    red = (
        np.array([0.95, 0.42, 0.42]) * (1 - person.lip_red)
        + np.array([0.9, 0.22, 0.26]) * person.lip_red
    )
    target = tone * red + person.lip_red * np.array([0.06, 0.005, 0.012])
    fine = 1 + 0.08 * noise(30.0, (1.5, 0.3, 1))
    soft = cv2.GaussianBlur(lips, (0, 0), 2.0) * person.lips
    colour += soft[..., None] * (target * fine[..., None] - colour)
    gloss += 0.45 * soft


def _brows(colour: Array, gloss: Array, person: Person, x: Array, y: Array, z: Array) -> None:
    """Strands along an arch: up and outwards at the inner end, outwards further on."""
    side = np.abs(x)
    along = (side - 0.11) / 0.43
    arch = 0.02 + 0.07 * person.brow_arch
    spine = 7.462 + arch * (np.sin(np.clip(along, 0, 1) * np.pi * 0.8) - 0.3 * along)
    spine = spine - 0.035 * along
    half = (0.022 + 0.036 * person.brow_thickness) * np.interp(
        along, [0, 0.15, 0.6, 1], [0.75, 1, 0.8, 0.25]
    )
    across = (y - spine) / half
    body = (1 - _step(np.abs(across), 0.45, 1.25)) * _step(along, -0.06, 0.1)
    body *= (1 - _step(along, 0.88, 1.03)) * (z > 0.6)
    random = rng(person.seed, 6)
    grid = random.random((64, 256)).astype(np.float32)
    slant = np.interp(along, [0, 0.3, 1], [1.6, 0.5, 0.15])
    strand = side * 150 - across * 4 * slant
    places = np.stack([(3 * across + 7 * (x > 0)) % 64, strand % 256])
    strands = map_coordinates(grid, places.reshape(2, -1), order=1, mode="grid-wrap")
    amount = body * (0.25 + 0.75 * person.brow_density) * (0.55 + 0.75 * strands.reshape(x.shape))
    hair = np.array(person.hair_colour, np.float32)
    if person.hair_name in ("grey", "white"):
        hair = hair * 0.45
    elif person.hair_name == "blond":
        hair = hair * 0.55
    _hairs(colour, gloss, amount, 0.85 * hair)


def _lashes(colour: Array, person: Person, head: basis.Basis) -> None:
    """A dark line along the lids, stronger above, and stronger in women."""
    near = (np.abs(head.texels[..., 1] - 7.28) < 0.15) & (head.texels[..., 2] > 0.9)
    upper = head.lashes[:, 1] > 7.28
    for points, strength in ((head.lashes[upper], 0.85), (head.lashes[~upper], 0.4)):
        distance, _ = cKDTree(points[:, :2]).query(
            head.texels[near][:, :2], distance_upper_bound=0.08
        )
        line = strength * (1.0 - 0.35 * person.sex) * np.exp(-((distance / 0.018) ** 2))
        colour[near] *= 1 - np.where(np.isfinite(distance), line, 0)[:, None]


def _scalp(colour: Array, person: Person, points: Array, noise: _Noise) -> None:
    """Under the hair the skin takes its colour, so that the hairline is soft."""
    if person.hair == "bald":
        return
    height = basis.scalp_height(points) - line(person, points) + 0.035 * noise(25.0, (1, 0.4, 1))
    amount = _step(height, -0.04, 0.09) * (0.6 if person.hair == "shaved" else 0.9)
    colour += amount[..., None].astype(np.float32) * (np.array(person.hair_colour) - colour)
