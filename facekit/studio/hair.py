"""Hair as geometry: a cap over the scalp, and a curtain that hangs from it."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from facekit.core.seed import rng
from facekit.studio import basis
from facekit.studio.basis import Array, Indices
from facekit.studio.person import HairStyle, Person


@dataclass(frozen=True)
class Style:
    """How a style stands off the head, in dm.

    Attributes:
        top, sides, back: thickness there, at full volume.
        lift: how far the hairline is raised.
        length: of the curtain below the ears; 0 for none.
        wave: of the curtain;  curl: 0 strands, 1 curls.
        bump: roughness of the surface.
        part: the hair is parted at the side.
        fringe: how far it falls over the forehead.
    """

    top: float
    sides: float
    back: float
    lift: float = 0.0
    length: float = 0.0
    wave: float = 0.0
    curl: float = 0.0
    bump: float = 0.02
    part: bool = False
    fringe: float = 0.0


STYLES: dict[HairStyle, Style | None] = {
    "bald": None,
    "shaved": None,
    "short": Style(0.13, 0.06, 0.08, fringe=0.08),
    "crop": Style(0.17, 0.035, 0.05, bump=0.035, fringe=0.16),
    "side part": Style(0.22, 0.10, 0.11, part=True),
    "receding": Style(0.05, 0.06, 0.08, lift=0.13),
    "curly": Style(0.30, 0.24, 0.26, curl=1.0, bump=0.05),
    "afro": Style(0.55, 0.5, 0.5, curl=1.0, bump=0.03),
    "bob": Style(0.18, 0.19, 0.22, length=0.85, fringe=0.33),
    "long": Style(0.15, 0.16, 0.2, length=1.9, wave=0.02),
    "wavy": Style(0.20, 0.23, 0.25, length=1.6, wave=0.09, bump=0.03, part=True),
    "tied back": Style(0.07, 0.06, 0.09, bump=0.008),
}


@dataclass(frozen=True)
class Hair:
    """Hair of one person at rest.

    Attributes:
        points: (M, 3) on the person's head;  places: (M, 3) beside the neutral head.
        triangles: (T, 3) into them.
    """

    points: Array
    places: Array
    triangles: Indices


def line(person: Person, places: Array) -> Array:
    """How far this person's hairline lies above the average one, in dm, at places on the head."""
    style = STYLES[person.hair]
    side = np.abs(places[..., 0])
    front = np.clip((places[..., 2] - 0.7) / 0.3, 0, 1)
    shift = 0.16 * (person.forehead - 0.5) * front
    # Temples: a straight line, or two bays.
    shift = shift + 0.12 * person.temples * front * np.exp(-(((side - 0.42) / 0.14) ** 2))
    if style is not None and style.fringe:
        ragged = 0.03 * np.sin(places[..., 0] * 31 + person.seed) * np.sin(places[..., 0] * 17)
        shift = shift - (style.fringe + ragged) * front * np.clip((0.62 - side) / 0.12, 0, 1)
    if style is not None and style.lift:
        bays = 0.3 * np.exp(-(((side - 0.42) / 0.2) ** 2))
        crown = np.clip((places[..., 1] - 7.75) / 0.2, 0, 1)
        shift = shift + (style.lift + bays) * front + 0.45 * crown
    result: Array = np.asarray(shift, np.float32)
    return result


def grow(person: Person, head: Array, normal: Array) -> Hair | None:
    """The hair's surface on a person's resting head (N, 3) with its normals; None if bald."""
    style = STYLES[person.hair]
    if style is None:
        return None
    neutral = basis.load()
    places = neutral.vertices[neutral.scalp].mean(1)
    points = head[neutral.scalp].mean(1)
    outwards = normal[neutral.scalp].mean(1)
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)

    volume = 0.7 + 0.6 * person.volume
    thickness = volume * _thickness(style, places)
    height = basis.scalp_height(places) - line(person, places)
    random = rng(person.seed, 7)
    bumps = _bumps(random, places, 6.0) + 0.6 * _bumps(random, places, 13.0)
    inside = height > -0.01
    edge = np.clip((height + 0.01) / (0.08 + 0.6 * thickness.mean()), 0, 1) ** 0.6
    off = edge * (thickness + style.bump * bumps) - 0.03 * ~inside
    off = _smoothed(off, neutral.scalp_triangles, 3)
    off[inside] = np.maximum(off[inside], 0.006)
    if style.part:
        off = off * (1 - 0.35 * np.exp(-(((places[:, 0] - 0.33) / 0.06) ** 2)) * (places[:, 2] > 0))
    points = points + off[:, None] * outwards
    kept = inside[neutral.scalp_triangles].any(1)
    triangles = neutral.scalp_triangles[kept]
    if style.length:
        curtain = _curtain(person, style, points, places, height, random)
        triangles = np.concatenate([triangles, curtain.triangles + len(points)])
        points = np.concatenate([points, curtain.points])
        places = np.concatenate([places, curtain.places])
    return Hair(points.astype(np.float32), places.astype(np.float32), triangles.astype(np.int32))


def _smoothed(values: Array, triangles: Indices, times: int) -> Array:
    """Values at vertices, averaged with their neighbours'."""
    ends = triangles.T.ravel()
    others = triangles[:, [1, 2, 0]].T.ravel()
    count = np.bincount(ends, minlength=len(values))
    for _ in range(times):
        around = np.bincount(ends, values[others], minlength=len(values))
        values = 0.5 * values + 0.5 * around / np.maximum(count, 1)
    return values


def _thickness(style: Style, places: Array) -> Array:
    top = np.clip((places[:, 1] - 7.6) / 0.6, 0, 1)
    back = np.clip((0.5 - places[:, 2]) / 0.8, 0, 1)
    around = style.sides + (style.back - style.sides) * back
    thickness: Array = around + (style.top - around) * top
    return thickness


def _bumps(random: np.random.Generator, places: Array, frequency: float) -> Array:
    from scipy.ndimage import map_coordinates

    grid = random.normal(size=(32, 32, 32)).astype(np.float32)
    values: Array = map_coordinates(grid, (places * frequency).T, order=1, mode="grid-wrap")
    return values


def _curtain(
    person: Person,
    style: Style,
    points: Array,
    places: Array,
    height: Array,
    random: np.random.Generator,
) -> Hair:
    """Strands that fall from the widest part of the cap, round the back from ear to ear."""
    columns, rows = 96, 26
    azimuth = np.radians(np.linspace(78, 282, columns))
    centre = np.array([0, 0, 0.3])
    of_points = np.degrees(np.arctan2(points[:, 0], points[:, 2] - centre[2])) % 360
    radius_of = np.hypot(points[:, 0], points[:, 2] - centre[2])
    level = float(np.median(points[:, 1] - places[:, 1]))
    band = (np.abs(places[:, 1] - 7.55) < 0.22) & (height > 0)
    order = np.argsort(of_points[band])
    radius = np.interp(
        np.degrees(azimuth), of_points[band][order], radius_of[band][order], period=360
    )
    radius = gaussian_filter(radius, 3, mode="nearest")

    down = np.linspace(0, 1, rows)[:, None]
    start = 7.72 + level
    ragged = gaussian_filter(random.normal(size=columns), 1.2) * 0.12
    front = np.clip(np.abs(np.degrees(azimuth) - 180) / 100, 0, 1) ** 6
    length = (0.75 + style.length * (0.85 + 0.3 * person.volume)) * (1 + ragged) - 0.15 * front
    y = start - down * length
    wave = style.wave * np.sin(
        down * length * 7 + 3 * gaussian_filter(random.normal(size=columns), 4)
    )
    folds = 0.02 * gaussian_filter(random.normal(size=columns), 1.0)
    spread = np.interp(down, [0, 0.3, 1], [-0.03, 0.05, 0.12]) + wave + folds * np.sqrt(down) * 2
    # Hair of the bob turns in at its end.
    spread = spread - (0.14 * np.clip(down - 0.75, 0, 1) * 4 if style.length < 1 else 0)
    reach = radius + spread
    x, z = reach * np.sin(azimuth), centre[2] + reach * np.cos(azimuth)
    grid = np.stack([x, y, z], 2)
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (
        part.ravel() for part in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:])
    )
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    rest = grid - [0, level, 0]
    return Hair(grid.reshape(-1, 3), rest.reshape(-1, 3), triangles)
