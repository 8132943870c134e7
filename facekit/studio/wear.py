"""What a studio person wears: glasses fitted to the head, and clothes at the neck.

Lengths are in dm; glasses lie beside the person's head at rest, cloth is found by places on the
neutral head.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit.core.seed import rng
from facekit.studio import basis
from facekit.studio.basis import LEFT_EYE, RIGHT_EYE, SKIN, Array, Indices
from facekit.studio.person import Person
from facekit.studio.vectors import step

FRAME, LENS = range(2)
"""Materials of a glasses' triangles."""

_ROUND = 44  # Vertices around a rim.
_SIDES = 6  # Of a wire.
_CLEAR = 0.012  # What is left free between frame and skin.


@dataclass(frozen=True)
class Glasses:
    """Glasses on a head at rest, mirrored about x = 0.

    Attributes:
        points: float32 (M, 3);  triangles: int32 (T, 3).
        material: int32 (T,), ``FRAME`` or ``LENS``.
    """

    points: Array
    triangles: Indices
    material: Indices


@dataclass(frozen=True)
class _Cut:
    """The make of a frame: half sizes of a lens, its squareness, and the wire's half sizes."""

    wide: float
    high: float
    power: float
    thick: float
    deep: float
    drop: float  # How far the lens's middle lies below the pupil.


def glasses(person: Person, head: Array) -> Glasses | None:
    """Glasses fitted to a head (N, 3) at rest: on the nose at eye height, over the ears.

    The frame keeps clear of brows, cheeks and temples, as far as rays from front and side can
    tell. At most 3,000 triangles.
    """
    if person.glasses == "none":
        return None
    cut = _cut(person)
    triangles = basis.load().triangles
    skin = _Skin(head, triangles[basis.load().materials == SKIN])
    eyes = [head[_of(material)].mean(0) for material in (LEFT_EYE, RIGHT_EYE)]
    pupil = np.array([abs(eyes[0][0] - eyes[1][0]) / 2, (eyes[0][1] + eyes[1][1]) / 2])
    middle = np.array([pupil[0] + 0.02, pupil[1] - cut.drop])

    turn = np.linspace(0, 2 * np.pi, _ROUND, endpoint=False)
    outline = _outline(cut, turn)
    ahead = _ahead(skin, eyes, middle + outline, cut)
    rim = _on_front(middle + outline, middle, ahead)

    parts: list[tuple[Array, Indices, int]] = []
    whole = person.glasses != "half-rim"
    drawn = rim if whole else rim[(turn < np.radians(188)) | (turn > np.radians(352))]
    if not whole:
        drawn = np.roll(drawn, -int((turn < np.radians(188)).sum()), axis=0)
    parts.append((*_wire(drawn, cut.thick, cut.deep, closed=whole), FRAME))
    parts.append((*_glass(rim, middle, ahead), LENS))
    parts.append((*_temple(head, skin, rim, cut), FRAME))
    if cut.thick < 0.012:
        parts.append((*_pad(skin, rim), FRAME))
    both = [
        (points * side, faces if side[0] > 0 else faces[:, ::-1], material)
        for points, faces, material in parts
        for side in (np.array([1, 1, 1]), np.array([-1, 1, 1]))
    ]
    both.append((*_bridge(rim, cut, person), FRAME))
    return _joined(both)


def _of(material: int) -> Indices:
    base = basis.load()
    found: Indices = np.unique(base.triangles[base.materials == material])
    return found


def _cut(person: Person) -> _Cut:
    random = rng(person.seed, 51)
    size = 1 + 0.05 * float(np.clip(random.normal(), -1.5, 1.5))
    metal = random.random() < {"round": 0.6, "square": 0.3, "half-rim": 0.5}[person.glasses]
    thick, deep = (0.0085, 0.0085) if metal else (random.uniform(0.014, 0.02), 0.015)
    if person.glasses == "round":
        return _Cut(0.245 * size, 0.222 * size, 2.15, thick, deep, 0.03)
    if person.glasses == "square":
        return _Cut(0.277 * size, 0.192 * size, 3.6, thick, deep, 0.035)
    return _Cut(0.272 * size, 0.178 * size, 3.0, max(thick, 0.012), deep, 0.03)


def _outline(cut: _Cut, turn: Array) -> Array:
    """A lens's edge (K, 2) about its middle, x outwards: fuller below outside, cut to the nose."""
    c, s = np.cos(turn), np.sin(turn)
    x = cut.wide * np.sign(c) * np.abs(c) ** (2 / cut.power)
    y = cut.high * np.sign(s) * np.abs(s) ** (2 / cut.power)
    # Room for the nose: below, the inner side leans outwards.
    lean = np.clip(-x / cut.wide, 0, 1) * np.clip(0.35 - y / cut.high, 0, 1.3)
    return np.stack([x + 0.05 * lean, y], 1)


@dataclass(frozen=True)
class _Ahead:
    """The glasses' front: z = level − tilt · (height below the middle) − bow · x²."""

    level: float
    tilt: float = 0.12
    bow: float = 0.16


def _on_front(flat: Array, middle: Array, ahead: _Ahead) -> Array:
    """Places (K, 3) on the glasses' front."""
    below = middle[1] - flat[:, 1]
    z = ahead.level - ahead.tilt * below - ahead.bow * flat[:, 0] ** 2
    return np.column_stack([flat, z])


class _Skin:
    """A head's skin, to be measured by rays."""

    def __init__(self, head: Array, triangles: Indices) -> None:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self.scene = EmbreeScene()
        TriangleMesh(self.scene, np.ascontiguousarray(head[triangles], np.float32))

    def front(self, flat: Array) -> Array:
        """The greatest z at places (K, 2) of x and y, −1 where there is none."""
        origins = np.column_stack([flat + 1e-4, np.full(len(flat), 5.0)])
        z: Array = 5.0 - self._far(origins, [0, 0, -1])
        return z

    def side(self, flat: Array) -> Array:
        """The greatest |x| of both sides, at places (K, 2) of y and z, −1 where there is none."""
        found = []
        for sign in (1, -1):
            origins = np.column_stack([np.full(len(flat), 3.0 * sign), flat + 1e-4])
            found.append(3.0 - self._far(origins, [-sign, 0, 0]))
        widest: Array = np.maximum(*found)
        return widest

    def _far(self, origins: Array, way: list[int]) -> Array:
        hits: dict[str, Any] = self.scene.run(
            np.ascontiguousarray(origins, np.float32),
            np.tile(np.array(way, np.float32), (len(origins), 1)),
            query="INTERSECT",
            output=True,
        )
        far: Array = np.where(hits["primID"] >= 0, hits["tfar"], origins.max() + 1)
        return far


def _ahead(skin: _Skin, eyes: list[Array], edge: Array, cut: _Cut) -> _Ahead:
    """As near to the face as lashes, brows, cheeks and nose allow."""
    middle = edge.mean(0)
    flat = _on_front(edge, middle, _Ahead(0.0))
    both = np.concatenate([flat, flat * [-1, 1, 1]])
    need = (skin.front(both[:, :2]) - both[:, 2]).max() + cut.deep + _CLEAR
    cornea = max(eye[2] for eye in eyes) + 0.15
    return _Ahead(float(max(need, cornea + 0.10)))


def _temple(head: Array, skin: _Skin, rim: Array, cut: _Cut) -> tuple[Array, Indices]:
    """From the rim's outer edge over the ear and down behind it."""
    ear, behind = (_beside(head, place) for place in ((0.727, 7.355, 0.40), (0.69, 7.2, 0.30)))
    outer = rim[rim[:, 0].argmax()]
    top = rim[:, 1].max()
    joint = np.array([outer[0] + 0.6 * cut.thick, outer[1] + 0.55 * (top - outer[1]), outer[2]])
    hinge = joint + np.array([0.035, 0.0, -0.05])
    rest = np.array([ear[0] + _CLEAR + 0.01, ear[1] + 0.02, ear[2]])
    share = np.linspace(0, 1, 12)[:, None]
    way = hinge + share * (rest - hinge)
    # The bar bends outwards where the head is wider than the line from hinge to ear.
    wide = skin.side(way[:, 1:])
    ears = np.linspace(0, 1, 12) > 0.9
    room = np.where(ears, 0.0, wide + _CLEAR + 0.009 - way[:, 0])
    bulge = np.maximum(room.max(), 0) * np.sin(np.pi * np.clip(share[:, 0] * 1.1, 0, 1) ** 0.8)
    way[:, 0] += np.maximum(bulge, np.clip(room, 0, None))
    hook = np.array([behind[0] + _CLEAR + 0.01, behind[1], behind[2]])
    bend = way[-1] + np.array([0.0, -0.012, -0.05])
    path = np.concatenate([joint[None], way, bend[None], (0.5 * (bend + hook))[None], hook[None]])
    tall = max(1.5 * cut.thick, 0.011)
    return _wire(path, tall, 0.008, closed=False)


def _beside(head: Array, place: tuple[float, float, float]) -> Array:
    """Where a place of the neutral head is on this one: (3,), the mean of both sides, x > 0."""
    neutral = basis.load().vertices
    found = []
    for sign in (1, -1):
        own = np.array(place) * [sign, 1, 1]
        near = np.linalg.norm(neutral - own, axis=1).argmin()
        found.append((own + head[near] - neutral[near]) * [sign, 1, 1])
    mean: Array = np.mean(found, axis=0)
    return mean


def _bridge(rim: Array, cut: _Cut, person: Person) -> tuple[Array, Indices]:
    """An arch from rim to rim over the nose."""
    high = 0.62 if person.glasses == "round" else 0.8
    top, low = rim[:, 1].max(), rim[:, 1].min()
    inner = rim[(rim[:, 0] < np.median(rim[:, 0])) & (rim[:, 1] > 0.5 * (top + low))]
    start = inner[np.abs(inner[:, 1] - (low + high * (top - low))).argmin()]
    share = np.linspace(-1, 1, 11)
    path = np.column_stack(
        [
            share * start[0],
            start[1] + 0.022 * (1 - share**2),
            start[2] + 0.012 * (1 - share**2),
        ]
    )
    return _wire(path, cut.thick, cut.deep, closed=False)


def _pad(skin: _Skin, rim: Array) -> tuple[Array, Indices]:
    """A nose pad on its arm."""
    inner = rim[rim[:, 0] < np.median(rim[:, 0])]
    low = rim[:, 1].min() + 0.42 * np.ptp(rim[:, 1])
    start = inner[np.abs(inner[:, 1] - low).argmin()]
    x = 0.72 * start[0]
    z = float(skin.front(np.array([[x, low], [-x, low]])).max()) + 0.016
    pad = np.array([x, low, min(z, start[2])])
    arm = 0.5 * (start + pad) + np.array([0, 0.012, -0.01])
    path = np.stack([start, arm, pad + np.array([0, 0.02, 0]), pad - np.array([0, 0.03, 0])])
    return _wire(path, 0.006, 0.006, closed=False)


def _glass(rim: Array, middle: Array, ahead: _Ahead) -> tuple[Array, Indices]:
    """A lens: rings about its middle, a little bulged to the front."""
    count = len(rim)
    shares = (0.5, 0.85, 1.0)
    rings = [middle + share * (rim[:, :2] - middle) for share in shares]
    bulge = np.array([0, 0, 0.018])
    points = [_on_front(middle[None], middle, ahead) + bulge]
    for share, ring in zip(shares, rings, strict=True):
        points.append(_on_front(ring, middle, ahead) + (1 - share**2) * bulge)
    i = np.arange(count)
    j = (i + 1) % count
    faces = [np.column_stack([np.zeros(count, int), 1 + i, 1 + j])]
    for inner in range(len(shares) - 1):
        a, b = 1 + inner * count, 1 + (inner + 1) * count
        faces.append(np.column_stack([a + i, b + i, b + j]))
        faces.append(np.column_stack([a + i, b + j, a + j]))
    return np.concatenate(points), np.concatenate(faces).astype(np.int32)


def _wire(path: Array, thick: float, deep: float, closed: bool) -> tuple[Array, Indices]:
    """A bar along a path (K, 3): half sizes across the path upwards or sideways, and in depth."""
    count = len(path)
    after = np.roll(path, -1, 0) if closed else np.concatenate([path[1:], path[-1:]])
    before = np.roll(path, 1, 0) if closed else np.concatenate([path[:1], path[:-1]])
    along = after - before
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    # One side of the section faces away from the head's middle: to the front, or outwards.
    out = np.where(np.abs(along[:, 2:]) > 0.8, [1.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    across = np.cross(out, along)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    out = np.cross(along, across)
    angle = (np.arange(_SIDES) + 0.5) / _SIDES * 2 * np.pi
    ring = (
        path[:, None]
        + thick * np.cos(angle)[:, None] * across[:, None]
        + deep * np.sin(angle)[:, None] * out[:, None]
    )
    points = ring.reshape(-1, 3)
    steps = np.arange(count if closed else count - 1)[:, None]
    i, j = np.arange(_SIDES), (np.arange(_SIDES) + 1) % _SIDES
    a, b = steps * _SIDES, (steps + 1) % count * _SIDES
    faces = np.concatenate(
        [
            np.stack([a + i, a + j, b + j], -1).reshape(-1, 3),
            np.stack([a + i, b + j, b + i], -1).reshape(-1, 3),
        ]
    )
    if not closed:
        fan = np.stack([np.zeros(_SIDES - 2, int), i[1:-1], i[2:]], 1)
        faces = np.concatenate([faces, fan[:, ::-1], fan + (count - 1) * _SIDES])
    return points, faces.astype(np.int32)


def _joined(parts: list[tuple[Array, Indices, int]]) -> Glasses:
    points, triangles, materials = [], [], []
    count = 0
    for some, faces, material in parts:
        points.append(some)
        triangles.append(faces + count)
        materials.append(np.full(len(faces), material))
        count += len(some)
    return Glasses(
        points=np.concatenate(points).astype(np.float32),
        triangles=np.concatenate(triangles).astype(np.int32),
        material=np.concatenate(materials).astype(np.int32),
    )


@dataclass(frozen=True)
class Cloth:
    """Clothes at some places of a body.

    Attributes:
        covered: bool (P,), where they are.
        albedo: (C, 3) of the covered places.
        tilt: (C, 3) to be added to the unit normal there, in the neutral head's axes.
        shade: (P,) the share of light that the cloth's edges and folds leave, also on the skin.
    """

    covered: NDArray[np.bool_]
    albedo: Array
    tilt: Array
    shade: Array


_NECK = 5.98  # The height of a crew neck, by ``_level``.
_BAND = 0.15  # The width of its band.


def cloth(person: Person, where: Array, spacing: float = 0.0) -> Cloth:
    """Clothes at places (P, 3) of the neutral head's skin: none above the throat.

    What is finer than ``spacing``, how far apart the places lie in dm, is left out.
    """
    covered = np.zeros(len(where), np.bool_)
    shade = np.ones(len(where), np.float32)
    low = np.flatnonzero(where[:, 1] < 6.35)
    x, y, z = where[low].T
    below = _below(person, x, y, z)
    inside = below > 0
    covered[low[inside]] = True
    # The hem stands off the skin and keeps light from it.
    shade[low] = 1 - np.where(inside, 0.0, 0.55) * np.exp(np.minimum(below, 0) / 0.045)
    albedo, tilt, dark = _fabric(person, x[inside], y[inside], z[inside], below[inside], spacing)
    shade[low[inside]] = dark
    return Cloth(covered, albedo, tilt, shade)


def _level(x: Array, y: Array, z: Array) -> Array:
    """Height along the slope of a neck's base, from its back down to its front."""
    level: Array = y + 0.4 * z - 0.12 * np.abs(x)
    return level


def _below(person: Person, x: Array, y: Array, z: Array) -> Array:
    """How far below the hem (P,) places lie; negative above it."""
    side = np.abs(x)
    level = _level(x, y, z)
    below: Array = _NECK - level
    front = step((z - 0.05) / 0.45)
    if person.neckline == "v":
        below = below - front * 0.40 * np.maximum(1 - side / 0.46, 0)
    elif person.neckline == "boat":
        wide = np.hypot(x / 0.86, (y - 6.12) / np.where(z > 0.2, 0.52, 0.36))
        below = np.minimum(below, 0.5 * (wide - 1))
    elif person.neckline == "collar":
        # Open at the throat by one button.
        below = below + 0.07 - front * 0.30 * np.maximum(1 - side / 0.20, 0)
    return below.astype(np.float32)


def _fabric(
    person: Person, x: Array, y: Array, z: Array, below: Array, spacing: float
) -> tuple[Array, Array, Array]:
    """Albedo (C, 3), tilt (C, 3) and shade (C,) of cloth ``below`` the hem."""
    random = rng(person.seed, 52)
    tilt = np.zeros((len(x), 3), np.float32)
    shade = np.ones(len(x), np.float32)
    shirt = person.neckline == "collar"

    albedo = _dyed(person, x, y, z, shirt, random)
    if person.pattern == "knit" and not shirt:
        _knitted(x, y, z, _seen(0.048, spacing), tilt, shade)
    else:
        seen = _seen(0.015, spacing)
        if seen:
            shade *= 1 + 0.03 * seen * np.sin(410 * x + 190 * z) * np.sin(430 * y + 60 * z)
    free = step((below - 0.5 * _BAND) / 0.35)
    _folded(x, y, z, free, random, tilt, shade)
    if shirt:
        _collar(x, z, y, below, tilt, shade)

    near = np.flatnonzero(below < 0.25)
    around, below = np.arctan2(x[near], z[near] + 0.1), below[near]
    leaning, dark = tilt[near], shade[near]
    if not shirt:
        band = {"crew": _BAND, "v": 0.11, "boat": 0.05}[person.neckline]
        ribs = _seen(0.055, spacing) if person.neckline != "boat" else 0.0
        _banded(around, below, band, leaning, dark, ribs)
    # The hem is rounded: its upper edge turns to the neck.
    roll = 0.9 * np.exp(-below / 0.018)
    leaning += roll[:, None] * np.stack([-np.sin(around), 1.2 + 0 * roll, -np.cos(around)], 1)
    tilt[near], shade[near] = leaning, dark
    return np.clip(albedo, 0.01, 0.8), tilt, np.clip(shade, 0.1, 1.2)


def _dyed(
    person: Person, x: Array, y: Array, z: Array, shirt: bool, random: np.random.Generator
) -> Array:
    """The colour (C, 3), with its stripes."""
    colour = np.array(person.cloth, np.float32)
    grey = float(colour @ np.array([0.3, 0.55, 0.15], np.float32))
    colour = colour + 0.25 * (grey - colour)  # Dye fades.
    albedo = np.broadcast_to(colour, (len(x), 3)).copy()
    if person.pattern == "stripes":
        other = np.array([0.55, 0.53, 0.49] if grey < 0.25 else [0.03, 0.04, 0.08], np.float32)
        period = 0.11 if shirt else float(random.uniform(0.13, 0.24))
        # Down the chest and, over the flat of the shoulders, from back to front.
        way = x if shirt else (np.maximum(y, 4.6) - 0.7 * z) / 1.2
        share = 0.22 if shirt else float(random.uniform(0.25, 0.5))
        phase = np.abs(way / period % 1 - 0.5) * 2
        drawn = step((share - phase) * period / 0.02 + 0.5)
        albedo += (0.85 * drawn)[:, None] * (other - albedo)
    return albedo


def _seen(period: float, spacing: float) -> float:
    """How much of a pattern of a period, in dm, remains on a grid of that spacing."""
    return float(np.clip(period / max(spacing, 1e-6) / 2.5 - 0.8, 0, 1))


def _knitted(x: Array, y: Array, z: Array, seen: float, tilt: Array, shade: Array) -> None:
    """Columns of stitches, each a pair of slanting loops; adds to ``tilt`` and ``shade``."""
    column = np.arctan2(x, z + 1.2) * 1.9 / 0.062
    inside = np.abs(column % 1 - 0.5) * 2
    row = (y / 0.048 + 0.6 * inside) % 1
    tilt[:, 0] += 0.35 * seen * np.sin(2 * np.pi * column)
    tilt[:, 1] += 0.22 * seen * np.sin(2 * np.pi * row)
    shade *= 0.88 + seen * (0.24 * np.sqrt(inside) * (1 - 0.5 * np.abs(row - 0.5)) - 0.14)


def _folded(
    x: Array,
    y: Array,
    z: Array,
    free: Array,
    random: np.random.Generator,
    tilt: Array,
    shade: Array,
) -> None:
    """Folds that hang from neck and shoulders, where the cloth is free; adds to both."""
    side = np.abs(x)
    for _ in range(4):
        # A fold runs along a slanting line; across it the normal swings. Each is alone: the
        # pattern of its neighbours differs in way and width.
        slant, size, chance, one, two, three = random.random(6).tolist()
        right, up = float(np.cos(1.8 * slant - 0.9)), float(np.sin(1.8 * slant - 0.9))
        mirrored = x if chance < 0.6 else side
        way = right * mirrored + up * y
        bend = 0.12 * np.sin(2.3 * y - 1.1 * mirrored + 6 * one)
        phase = (way + bend) * (2 * np.pi / (0.5 + 0.6 * size)) + 6 * two
        crest, wave = np.cos(phase), np.sin(phase)
        # A narrow crest between wide troughs.
        ridge = np.exp(2.0 * (crest - 1))
        here = free * np.clip(np.sin(1.1 * x + 1.7 * y + 6 * three) + 0.25, 0, 1)
        strength = 0.55 * here * ridge * wave
        tilt[:, 0] += strength * right
        tilt[:, 1] += strength * up
        shade *= 1 - 0.10 * here * np.clip(-crest, 0, 1)


def _banded(
    around: Array, below: Array, band: float, tilt: Array, shade: Array, ribs: float
) -> None:
    """A band along the hem, ribbed across, sewn on with a seam; adds to ``tilt``, ``shade``."""
    on = step((band - below) / 0.012 + 0.5)
    if ribs:
        rib = around * 62
        swing = 0.30 * ribs * on * np.sin(rib)
        tilt[:, 0] += swing * np.cos(around)
        tilt[:, 2] -= swing * np.sin(around)
        shade *= 1 - 0.16 * ribs * on * (0.5 - 0.5 * np.cos(rib))
    seam = np.exp(-(((below - band) / 0.010) ** 2))
    shade *= 1 - 0.3 * seam
    tilt[:, 1] += 0.5 * seam * np.sign(band - below)
    stitch = np.exp(-(((below - band - 0.035) / 0.006) ** 2))
    shade *= 1 - 0.14 * stitch


def _collar(x: Array, z: Array, y: Array, below: Array, tilt: Array, shade: Array) -> None:
    """The flaps of a shirt's collar, its placket and buttons; adds to ``tilt`` and ``shade``."""
    side = np.abs(x)
    front = step((z - 0.1) / 0.35)
    # A flap is widest at its point, beside the throat.
    point = np.exp(-(((side - 0.25) / 0.13) ** 2))
    edge = 0.20 + front * (0.20 * point - 0.06 * step((0.17 - side) / 0.1))
    on = step((edge - below) / 0.010 + 0.5)
    drop = np.where(below > edge, np.exp(-(below - edge) / 0.035), 0)
    shade *= 1 - 0.55 * drop
    tilt[:, 1] -= 0.35 * np.exp(-(((below - edge + 0.012) / 0.012) ** 2))
    stitch = np.exp(-(((below - edge + 0.045) / 0.006) ** 2))
    shade *= 1 - 0.16 * stitch
    tilt[:, 1] += 0.25 * on
    # The placket overlaps to one side; its buttons stand a hand's breadth apart.
    strip = (1 - on) * front
    border = np.exp(-(((side - 0.085) / 0.008) ** 2))
    shade *= 1 - 0.28 * border * strip
    tilt[:, 0] += 0.3 * border * strip * np.sign(x)
    button = np.hypot(x, (y - 5.42 + 0.45) % 0.9 - 0.45)
    disc = step((0.034 - button) / 0.008 + 0.5) * strip
    shade *= 1 - 0.5 * strip * np.exp(-(((button - 0.036) / 0.010) ** 2))
    shade *= 1 + 0.15 * disc
