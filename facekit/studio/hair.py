"""Hair of the head: thousands of tapering ribbons that grow from the scalp as a style says.

Each ribbon is a lock of some dozens of hairs. A lock starts at a root on the scalp, follows the
style's direction over the head or falls, is pushed off head, neck and shoulders, and joins its
neighbours towards its tip; a slim cap below keeps the scalp from showing through thick hair.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from facekit.core.seed import rng
from facekit.studio import basis, strands
from facekit.studio.basis import Array, Indices
from facekit.studio.face_hair import Strands, attach
from facekit.studio.person import HairStyle, Person

__all__ = ["STYLES", "Hair", "Strands", "Style", "attach", "grow", "line"]

Flags = NDArray[np.bool_]

Flow = Literal["crown", "forward", "part", "knot", "out", "fall"]


@dataclass(frozen=True)
class Style:
    """How a style grows; lengths in dm.

    Attributes:
        flow: where locks head for. "crown": away from the crown, in front up and to a side;
            "forward": away from the crown to the forehead; "part": away from a parting; "knot":
            to a knot at the back; "out": off the head; "fall": from a parting downwards.
        locks, nodes: how many ribbons, and nodes of each.
        top, sides, back: lengths there.
        thick: (top, sides, back) how far the hair stands off, at full volume.
        width: of a ribbon;  clump: how far tips join their neighbours, 0 to 1.
        lift: how far the hairline is raised;  messy: deviation of directions, in radians.
        end: the height above the ground of the neutral head at which falling hair ends.
        fringe: how far the hair of the front falls over the forehead.
        wave: amplitude;  curl: radius of the curls;  turns: of either along a lock.
        stand: how far locks stand off the head instead of lying on it, 0 to 1.
        cap: height of the underlayer as a share of ``thick``.
    """

    flow: Flow
    locks: int
    nodes: int
    top: float
    sides: float
    back: float
    thick: tuple[float, float, float]
    width: float = 0.026
    clump: float = 0.5
    lift: float = 0.0
    messy: float = 0.18
    end: float = 0.0
    fringe: float = 0.0
    wave: float = 0.0
    curl: float = 0.0
    turns: float = 0.0
    stand: float = 0.0
    cap: float = 0.35


STYLES: dict[HairStyle, Style | None] = {
    "bald": None,
    "shaved": None,
    "short": Style("crown", 4300, 7, 0.40, 0.20, 0.24, (0.17, 0.06, 0.08)),
    "crop": Style("forward", 4300, 7, 0.36, 0.11, 0.14, (0.15, 0.04, 0.05), messy=0.32, fringe=0.1),
    "side part": Style("part", 3900, 8, 0.85, 0.26, 0.30, (0.24, 0.08, 0.09), clump=0.6),
    "receding": Style("crown", 3000, 7, 0.22, 0.24, 0.26, (0.05, 0.07, 0.08), lift=0.13, cap=0.2),
    "curly": Style(
        "out", 1950, 15, 0.66, 0.58, 0.62, (0.28, 0.25, 0.27),
        width=0.03, clump=0.2, messy=0.4, curl=0.044, turns=2.7, stand=0.4, cap=0.45,
    ),
    "afro": Style(
        "out", 2500, 12, 0.7, 0.62, 0.66, (0.55, 0.48, 0.5),
        width=0.046, clump=0, messy=0.6, curl=0.066, turns=2.7, stand=0.8, cap=0.55,
    ),
    "bob": Style("fall", 2300, 11, 0, 0, 0, (0.1, 0.15, 0.16), end=6.35, fringe=0.46, clump=0.6,
                 width=0.032),
    "long": Style("fall", 1900, 13, 0, 0, 0, (0.09, 0.12, 0.14), end=5.35, clump=0.6, wave=0.012,
                  turns=1.5, width=0.036),
    "wavy": Style("fall", 1700, 15, 0, 0, 0, (0.12, 0.18, 0.2), end=5.65, clump=0.65, wave=0.055,
                  turns=3.4, width=0.038),
    "tied back": Style("knot", 2750, 10, 0, 0, 0, (0.05, 0.035, 0.05), clump=0.5, messy=0.05),
}  # fmt: skip

_CROWN = np.array([0.1, 8.2, -0.05])
_KNOT = np.array([0.0, 7.72, -0.46])


@dataclass(frozen=True)
class Hair:
    """Hair of one person at rest; it turns with the head.

    Attributes:
        points: (M, 3) on the person's head;  places: (M, 3) beside the neutral head.
        triangles: (T, 3) into them.
        tangent: (M, 3) unit, along the lock.
        shade: (M,) a factor of the albedo, about 1.
        openness: (M,) the share of light that arrives, 0 deep inside to 1 outside.
    """

    points: Array
    places: Array
    triangles: Indices
    tangent: Array
    shade: Array
    openness: Array


def line(person: Person, places: Array) -> Array:
    """How far this person's hairline lies above the average one, in dm, at places on the head."""
    style = STYLES[person.hair]
    side = np.abs(places[..., 0])
    front = np.clip((places[..., 2] - 0.7) / 0.3, 0, 1)
    shift = 0.16 * (person.forehead - 0.5) * front
    # Temples: a straight line, or two bays.
    shift = shift + 0.12 * person.temples * front * np.exp(-(((side - 0.42) / 0.14) ** 2))
    if style is not None and style.lift:
        bays = 0.3 * np.exp(-(((side - 0.42) / 0.2) ** 2))
        crown = np.clip((places[..., 1] - 7.75) / 0.2, 0, 1)
        shift = shift + (style.lift + bays) * front + 0.38 * crown
    result: Array = np.asarray(shift, np.float32)
    return result


def grow(person: Person, head: Array, normal: Array) -> Hair | None:
    """The hair on a person's resting head (N, 3) with its normals; None if bald or shaved."""
    style = STYLES[person.hair]
    if style is None:
        return None
    neutral = basis.load()
    random = rng(person.seed, 7)
    volume = 0.75 + 0.5 * person.volume
    roots = _roots(person, style, random)
    carrier = strands.Carrier(head)

    paths = _grown(person, style, roots, volume, random)
    tufts, partner = _tufts(roots.places, max(len(roots.places) // 14, 8), random)
    paths = _curled(style, paths, roots, tufts, random)
    paths = _clumped(style, paths, tufts, partner, random)
    if style.flow == "knot":
        paths = np.concatenate([paths, _tail(person, style, random)])
    paths = _pushed(paths, 0.012)

    count, nodes = paths.shape[:2]
    along = np.linspace(0, 1, nodes, dtype=np.float32)
    away = strands.skin_distance(paths.reshape(-1, 3))[1].reshape(paths.shape)
    tail = slice(len(roots.places), None)
    if style.flow == "knot":
        away[tail] = strands.unit(paths[tail] - paths[tail].mean(0, keepdims=True))
    tangent = strands.tangents(paths)
    side = strands.unit(np.cross(tangent, away))
    side = strands.turned(side, tangent, random.normal(0, 0.5, (count, 1)) * np.ones(nodes))
    size: Array = random.uniform(0.7, 1.25, (count,))
    size[: len(roots.border)] *= 0.4 + 0.6 * roots.border
    size[tail] *= 1.5
    blunt = 0.25 if style.curl else 0.6
    taper = (0.5 + 0.5 * np.minimum(along / 0.15, 1)) * (1 - blunt * along**2)
    width = style.width * size[:, None] * taper

    shade = _shades(person, count, tufts, along, random)
    step = np.linalg.norm(np.diff(paths, axis=1), axis=2)
    area = width * np.concatenate([step, step[:, -1:]], 1)
    open_sky = strands.openness(paths.reshape(-1, 3), area.ravel()).reshape(count, nodes)

    places = strands.ribbon_sides(paths, side, width).reshape(-1, 3)
    points = carrier(places)
    # The carrier is smooth: what it misses at a root is mended along the lock.
    own = (head[roots.corners] * roots.weights[..., None]).sum(1)
    missed = np.zeros((count, 3), np.float32)
    missed[: len(own)] = own - carrier(roots.places)
    fade = np.exp(-np.concatenate([[0], np.cumsum(step.mean(0))]) / 0.6)
    mend = strands.ribbon_values(missed[:, None] * fade[None, :, None])
    points += mend.reshape(-1, 3).astype(np.float32)

    shade = strands.ribbon_values(shade) * _edges(count, nodes, random)
    grown = Hair(
        points=points.astype(np.float32),
        places=places,
        triangles=strands.ribbon_triangles(count, nodes),
        tangent=strands.ribbon_values(tangent).reshape(-1, 3),
        shade=shade.ravel().astype(np.float32),
        openness=strands.ribbon_values(open_sky).ravel().astype(np.float32),
    )
    return _joined(grown, _cap(person, style, volume, neutral, head, normal, random))


@dataclass(frozen=True)
class _Roots:
    """Where locks start: places (N, 3), the head's vertices and weights (N, 4) of each.

    ``height``: above the hairline, in dm;  ``border``: 0 at the hairline to 1 inside.
    """

    places: Array
    corners: Indices
    weights: Array
    height: Array
    border: Array


def _roots(person: Person, style: Style, random: np.random.Generator) -> _Roots:
    neutral = basis.load()
    scalp = neutral.vertices[neutral.scalp].mean(1)
    corners = scalp[neutral.scalp_triangles]
    middle = corners.mean(1)
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    height = basis.scalp_height(middle) - line(person, middle)
    # Below a fall of hair few roots are seen, at the border of the face all of them.
    front = np.clip((middle[:, 2] - 0.5) / 0.5, 0, 1) * np.exp(-((height / 0.2) ** 2))
    soft = 0.32 if style.lift else 0.12
    chance = area * np.clip((height + 0.04) / soft, 0, 1) ** 1.5 * (1 + 1.2 * front)
    if style.flow in ("fall", "part"):
        beside = np.abs(_aside(person, style, middle)) / 0.16
        chance *= 1 + 2.5 * np.exp(-(beside**2)) * (middle[:, 2] > -0.1) * (middle[:, 1] > 7.8)
    chance *= 1 + 1.2 * _fringed(style, middle)
    chosen = np.searchsorted(np.cumsum(chance) / chance.sum(), random.random(style.locks))
    share = random.dirichlet((1, 1, 1), style.locks).astype(np.float32)
    triangle = neutral.scalp_triangles[chosen]
    places = (scalp[triangle] * share[..., None]).sum(1).astype(np.float32)
    # A vertex of the scalp is the mean of four of the head's.
    of_head = neutral.scalp[triangle].reshape(len(places), 12)
    weights = np.repeat(share / 4, 4, axis=1)
    own_height = basis.scalp_height(places) - line(person, places)
    border = np.clip((own_height + 0.03) / 0.16, 0, 1).astype(np.float32)
    return _Roots(places, of_head, weights, own_height.astype(np.float32), border)


def _by_place(places: Array, top: float, sides: float, back: float) -> Array:
    """A value for the top of the head, its sides and its back, blended at places (..., 3)."""
    up = np.clip((places[..., 1] - 7.65) / 0.5, 0, 1)
    behind = np.clip((0.45 - places[..., 2]) / 0.7, 0, 1)
    around = sides + (back - sides) * behind
    value: Array = around + (top - around) * up * up * (3 - 2 * up)
    return value


def _lengths(
    person: Person, style: Style, roots: _Roots, volume: float, random: np.random.Generator
) -> Array:
    """The length (N,) of each lock in dm."""
    places = roots.places
    x, y, z = places.T
    ragged = random.uniform(0.9 if style.stand > 0.5 else 0.78, 1.06, len(places))
    if style.flow == "knot":
        length = 1.04 * np.linalg.norm(places - _KNOT, axis=1) + 0.16
        # Short hairs at the border escape the knot.
        escaped = random.random(len(places)) < 0.35 * (1 - roots.border)
        return np.where(escaped, 0.16 * ragged, length * random.uniform(0.92, 1.0, len(places)))
    if style.flow == "fall":
        end = style.end + 0.3 * (0.5 - person.volume) * (style.end < 6)
        round_the_head = 0.75 * np.clip(1 - np.abs(x) / 0.75, 0, 1)
        ragged = random.uniform(0.93 if style.end > 6 else 0.84, 1.03, len(places))  # Layered.
        length = (y - end + round_the_head) * ragged
        fringed = _fringed(style, places)
        over = np.hypot(np.maximum(1.45 - z, 0), 0.3 * np.maximum(y - 8, 0))
        fringe = over + style.fringe * random.uniform(0.85, 1.05, len(places))
        fringe *= 0.7 + 0.3 * roots.border
        falling: Array = np.where(fringed, fringe, length)
        return falling
    length = _by_place(places, style.top, style.sides, style.back) * ragged
    length *= np.clip(0.4 + 0.6 * (y - 6.7) / 0.6, 0.4, 1)  # Short at the nape and before the ears.
    if style.fringe:
        length += style.fringe * np.clip((z - 1.1) / 0.3, 0, 1) * (y > 7.8) * ragged
    # Locks are shorter and finer at the border.
    return length * (0.35 + 0.65 * roots.border) * (0.6 + 0.4 * volume)


def _fringed(style: Style, places: Array) -> Flags:
    """Which roots (N,) belong to the fringe of falling hair."""
    if not style.fringe:
        return np.zeros(len(places), bool)
    x, y, z = places.T
    inside: Flags = (z > 0.98) & (np.abs(x) < 0.62 - 0.3 * (1.4 - z)) & (y > 7.7)
    return inside


_WIDE = ([5.2, 6.2, 6.8, 7.3, 7.6, 7.9, 8.1], [0.6, 0.66, 0.74, 0.74, 0.70, 0.55, 0.2])


def _grown(
    person: Person, style: Style, roots: _Roots, volume: float, random: np.random.Generator
) -> Array:
    """Locks (N, K, 3) in the neutral head's space."""
    places = roots.places
    count = len(places)
    length = _lengths(person, style, roots, volume, random)
    # A lock bends most near its root: its nodes are closer there.
    spacing = np.linspace(0.55, 1.45, style.nodes - 1) / (style.nodes - 1)
    fringed = _fringed(style, places)
    left = _handed(person)
    aside = _aside(person, style, places)
    side = np.where(aside > 0, 1.0, -1.0).astype(np.float32)

    # Hair that grows higher up lies outside.
    layer = np.clip(0.55 * random.random(count) + 0.45 * (places[:, 1] - 6.8) / 1.6, 0.03, 1)
    layer = layer * (0.25 + 0.75 * roots.border)
    bend = np.stack([_tilt(random, count, style.messy) for _ in range(2)])

    at = places.copy()
    paths = np.empty((count, style.nodes, 3), np.float32)
    paths[:, 0] = at
    gone = np.zeros(count, np.float32)
    distance, away = strands.skin_distance(at)
    ahead = away.copy()
    if style.flow == "fall":
        ahead = strands.unit(0.35 * away + _goal(style, at, away, side, fringed, left))
    stiff = 0.25 if style.flow == "fall" else 0.45
    # Hair lies flat beside a parting.
    flat = style.flow in ("fall", "part")
    for node in range(1, style.nodes):
        step = (spacing[node - 1] * length).astype(np.float32)
        goal = _goal(style, at, away, side, fringed, left)
        goal = strands.turned(goal, away, bend[0])
        goal = goal * (1 - style.stand) + 0.5 * style.stand * away
        thick = volume * _by_place(at, *style.thick)
        if flat:
            beside = np.abs(_aside(person, style, at))
            thick = thick * np.where(fringed, 0.5, np.clip(0.12 + beside / 0.55, 0, 1))
        risen = 1 - np.exp(-(gone + step) / (0.35 * thick + 0.03))
        clear = layer * thick * risen
        hug = np.clip((clear - distance) / (step + 0.02), -0.9, 1.1)
        falling = _falling(style, at, fringed)
        hug = np.where(falling & (hug < 0), 0, hug)
        if style.flow == "out":
            hug = np.clip((thick * (0.75 + 0.25 * layer) - distance) / (step + 0.02), -0.6, 1.0)
        goal = goal + hug[:, None] * away
        # Stiffness: a lock keeps some of the direction that it has.
        ahead = strands.unit(stiff * ahead + (1 - stiff) * strands.unit(goal))
        at = at + step[:, None] * ahead
        gone = gone + step
        if style.flow == "fall":
            wide = np.interp(at[:, 1], *_WIDE) * np.clip((at[:, 2] - 0.5) / 0.3, 0, 1)
            short = np.maximum(wide + 0.1 * layer - np.abs(at[:, 0]), 0) * ~fringed
            at[:, 0] += 0.6 * np.where(at[:, 1] < 8.05, side * short, 0)
            # Beside the face it lies back, off the cheeks.
            front = np.interp(at[:, 1], [6.0, 6.6, 7.4, 7.9, 8.2], [0.75, 0.68, 0.85, 1.25, 1.6])
            at[:, 2] -= 0.5 * np.maximum(at[:, 2] + 0.12 * layer - front, 0) * ~fringed
        distance, away = strands.skin_distance(at)
        floor = 0.014 + 0.5 * clear
        at = at + np.maximum(floor - distance, 0)[:, None] * away
        distance = np.maximum(distance, floor)
        paths[:, node] = at
    return paths


def _handed(person: Person) -> float:
    """1 if the parting lies on the person's left, else -1."""
    return 1.0 if person.seed % 2 else -1.0


def _aside(person: Person, style: Style, places: Array) -> Array:
    """How far places (..., 3) lie to the left of the parting, in dm; it isn't quite straight."""
    steps = {"part": 0.33, "fall": 0.12 * (person.seed % 3)}
    parting = _handed(person) * steps.get(style.flow, 0.0)
    found: Array = places[..., 0] - parting - 0.012 * np.sin(places[..., 2] * 14 + person.seed)
    return found


def _tilt(random: np.random.Generator, count: int, deviation: float) -> Array:
    return random.normal(0, deviation, count).astype(np.float32)


def _falling(style: Style, at: Array, fringed: Flags) -> Flags:
    """Where a lock hangs by itself and isn't drawn to the head, (N,)."""
    if style.flow != "fall":
        return np.zeros(len(at), bool)
    hangs: Flags = (at[:, 1] < 7.55) & ~fringed
    return hangs


def _goal(style: Style, at: Array, away: Array, side: Array, fringed: Flags, left: float) -> Array:
    """Unit directions (N, 3) along the head that the style asks for at places (N, 3)."""
    count = len(at)
    down = np.broadcast_to(np.array([0, -1, 0], np.float32), (count, 3))
    if style.flow in ("crown", "forward", "out"):
        from_crown = at - _CROWN
        # The whorl: near the crown the hair also turns about it.
        near = np.exp(-((from_crown**2).sum(1) / 0.2))
        goal = strands.unit(from_crown) + 0.9 * near[:, None] * np.cross(away, from_crown) * left
        goal = goal + 0.35 * down
        if style.flow == "crown":
            front = np.clip((at[:, 2] - 0.75) / 0.5, 0, 1) * np.clip((at[:, 1] - 7.75) / 0.3, 0, 1)
            swept = np.array([-0.9 * left, 0.35, -0.1], np.float32)
            goal = goal + front[:, None] * 1.6 * (swept - 0.7 * goal)
    elif style.flow == "part":
        goal = np.stack([side, np.full(count, -0.45), np.full(count, -0.3)], 1)
        behind = np.clip((0.2 - at[:, 2]) / 0.3, 0, 1)[:, None]
        goal = goal + behind * (down - goal)
        front = np.clip((at[:, 2] - 1.0) / 0.4, 0, 1) * (at[:, 1] > 7.8)
        goal[:, 2] -= 0.5 * front
    elif style.flow == "knot":
        goal = _KNOT - at
        level = np.clip((at[:, 1] - 7.6) / 0.5, 0, 1) * np.clip((at[:, 2] - 0.3) / 0.6, 0, 1)
        goal[:, 0] *= 1 - 0.75 * level
        goal[:, 1] = np.where(level > 0, goal[:, 1] * (1 - level), goal[:, 1])
    else:
        aside = np.clip((at[:, 2] + 0.1) / 0.5, 0, 1) * np.clip((at[:, 1] - 7.3) / 0.7, 0, 1)
        goal = down + aside[:, None] * np.stack(
            [1.1 * side, np.zeros(count), -0.12 * np.ones(count)], 1
        )
        goal[:, 2] -= 0.25 * np.clip((at[:, 2] - 0.6) / 0.5, 0, 1) * (at[:, 1] > 6.9)
        ahead = np.array([0, -0.55, 1], np.float32) + np.array([0.6, 0, 0]) * at[:, :1]
        goal = np.where(fringed[:, None], ahead, goal)
    goal = goal.astype(np.float32)
    free = _falling(style, at, fringed)[:, None]
    lying = strands.across(goal, away)
    return strands.unit(np.where(free, goal, lying))


def _tufts(places: Array, number: int, random: np.random.Generator) -> tuple[Indices, Indices]:
    """Each lock's tuft (N,), and the lock in whose middle it lies (N,)."""
    middles = random.choice(len(places), number, replace=False)
    uneven = places + random.normal(0, 0.02, places.shape)
    tuft = cKDTree(places[middles]).query(uneven)[1].astype(np.int32)
    return tuft, middles[tuft].astype(np.int32)


def _curled(
    style: Style, paths: Array, roots: _Roots, tufts: Indices, random: np.random.Generator
) -> Array:
    """Locks with waves, the same in a tuft, or curls."""
    if not (style.wave or style.curl):
        return paths
    count, nodes = paths.shape[:2]
    along = np.linspace(0, 1, nodes, dtype=np.float32)
    away = strands.skin_distance(paths.reshape(-1, 3))[1].reshape(paths.shape)
    tangent = strands.tangents(paths)
    first = strands.unit(np.cross(tangent, away))
    second = np.cross(first, tangent)
    phase = random.uniform(0, 2 * np.pi, tufts.max() + 1)[tufts]
    ramp = np.minimum(along / 0.25, 1)
    if style.wave:
        # Neighbouring tufts wave alike.
        phase = 0.25 * phase + 1.5 * np.sin(4 * roots.places[:, 0] + 3 * roots.places[:, 2])
        size: Array = style.wave * random.uniform(0.7, 1.3, (count,))
        angle = phase[:, None] + 2 * np.pi * style.turns * along
        moved = (size[:, None] * ramp * np.sin(angle))[..., None] * (0.85 * first + 0.5 * second)
    else:
        size = style.curl * random.uniform(0.6, 1.3, (count,)) * (0.5 + 0.5 * roots.border)
        turns: Array = style.turns * random.uniform(0.75, 1.25, (count,))
        angle = phase[:, None] + random.normal(0, 0.5, (count, 1))
        angle = angle + 2 * np.pi * turns[:, None] * along
        radius = (size[:, None] * ramp)[..., None]
        moved = radius * (np.cos(angle)[..., None] * first + np.sin(angle)[..., None] * second)
    result: Array = (paths + moved).astype(np.float32)
    return result


def _clumped(
    style: Style, paths: Array, tufts: Indices, partner: Indices, random: np.random.Generator
) -> Array:
    """Tips drawn towards those of their tuft's middle lock, unless far from it."""
    nodes = paths.shape[1]
    along = np.linspace(0, 1, nodes, dtype=np.float32)
    towards = paths[partner] - paths
    far = np.linalg.norm(towards[:, -1], axis=1)
    pull = style.clump * random.uniform(0.3, 1, len(paths)) * np.exp(-((far / 0.3) ** 2))
    result: Array = paths + (pull[:, None] * along**1.4)[..., None] * towards
    return result.astype(np.float32)


def _pushed(paths: Array, floor: float) -> Array:
    """Locks whose nodes, but for the root, keep off the skin."""
    flat = paths[:, 1:].reshape(-1, 3)
    distance, away = strands.skin_distance(flat)
    flat = flat + np.maximum(floor - distance, 0)[:, None] * away
    moved = paths.copy()
    moved[:, 1:] = flat.reshape(len(paths), -1, 3)
    return moved


def _tail(person: Person, style: Style, random: np.random.Generator) -> Array:
    """The locks behind the knot (N, K, 3): a tail that falls, or a bun."""
    count, nodes = 520, style.nodes
    along = np.linspace(0, 1, nodes, dtype=np.float32)
    spread = random.normal(0, 1, (count, 2))
    if person.seed % 3 == 0:
        # A bun: locks wound about the knot.
        centre = _KNOT + np.array([0, 0.05, -0.13])
        up = random.uniform(-0.95, 0.95, (count, 1))
        angle = random.uniform(0, 2 * np.pi, (count, 1)) + along * random.uniform(
            1.2, 2, (count, 1)
        )
        radius = 0.22 * np.sqrt(1 - up**2) * (1 + 0.12 * np.sin(3 * angle + 5 * up))
        ball = [radius * np.cos(angle), radius * np.sin(angle), 0.17 * up + 0 * angle]
        bun: Array = (np.stack(ball, 2) + centre).astype(np.float32)
        return bun
    length = (1.0 + 0.9 * person.volume) * random.uniform(0.8, 1.05, count)
    drop = along * length[:, None]
    wide = 0.05 + 0.09 * np.sin(np.pi * np.minimum(along * 1.1, 1))
    x = spread[:, :1] * wide + 0.02 * np.sin(9 * drop)
    z = _KNOT[2] - 0.02 - 0.3 * np.tanh(4 * drop) + spread[:, 1:] * wide + 0.12 * along
    y = (
        _KNOT[1]
        + 0.06
        - np.maximum(drop - 0.05, 0)
        + 0.05 * np.sin(np.pi * np.minimum(drop * 3, 1))
    )
    tail: Array = np.stack([x, y, z], 2).astype(np.float32)
    return tail


def _shades(
    person: Person, count: int, tufts: Indices, along: Array, random: np.random.Generator
) -> Array:
    """Tones (N, K): by tuft, by lock, and darker at the roots."""
    by_lock, by_tuft = {
        "grey": (0.24, 0.1),
        "white": (0.16, 0.08),
        "blond": (0.2, 0.13),
        "light brown": (0.2, 0.12),
    }.get(person.hair_name, (0.16, 0.1))
    tone: Array = np.exp(random.normal(0, by_lock, (count,)))
    tone[: len(tufts)] *= np.exp(random.normal(0, by_tuft, tufts.max() + 1))[tufts]
    dark = 0.42 if person.hair_name in ("blond", "light brown", "red") else 0.25
    shade: Array = tone[:, None] * (1 - dark * (1 - np.minimum(along / 0.5, 1)))
    return shade


def _edges(count: int, nodes: int, random: np.random.Generator) -> Array:
    """Factors (N, 2K − 1): a ribbon's two edges differ, so that it isn't flat."""
    factors = np.ones((count, 2 * nodes - 1))
    lean: Array = random.normal(0, 0.13, (count, 1))
    factors[:, 0:-1:2] += lean
    factors[:, 1:-1:2] -= lean
    return factors


def _cap(
    person: Person,
    style: Style,
    volume: float,
    neutral: basis.Basis,
    head: Array,
    normal: Array,
    random: np.random.Generator,
) -> Hair:
    """The underlayer: it dives below the skin before it reaches the hairline."""
    places = neutral.vertices[neutral.scalp].mean(1)
    outwards = strands.unit(normal[neutral.scalp].mean(1))
    height = basis.scalp_height(places) - line(person, places)
    inside = np.clip((height - 0.05) / 0.25, 0, 1)
    off = style.cap * volume * _by_place(places, *style.thick) * inside**0.7
    low = height < 0.07
    if style.flow in ("fall", "part"):
        beside = np.abs(_aside(person, style, places))
        low |= (beside < 0.2) & (places[:, 2] > -0.1)
        off *= np.clip((beside - 0.2) / 0.4, 0.1, 1)
    off = np.where(low, -0.03, off + 0.004)
    points = head[neutral.scalp].mean(1) + off[:, None] * outwards
    kept = neutral.scalp_triangles[(height[neutral.scalp_triangles] > 0.04).all(1)]
    used, triangles = np.unique(kept, return_inverse=True)
    down = np.broadcast_to(np.array([0, -1, 0], np.float32), (len(used), 3))
    shade = 0.6 * np.exp(random.normal(0, 0.12, len(used)))
    return Hair(
        points=points[used].astype(np.float32),
        places=(places + off[:, None] * outwards)[used].astype(np.float32),
        triangles=triangles.reshape(-1, 3).astype(np.int32),
        tangent=strands.unit(strands.across(down, outwards[used])),
        shade=shade.astype(np.float32),
        openness=np.full(len(used), 0.3, np.float32),
    )


def _joined(first: Hair, second: Hair) -> Hair:
    return Hair(
        points=np.concatenate([first.points, second.points]),
        places=np.concatenate([first.places, second.places]),
        triangles=np.concatenate([first.triangles, second.triangles + len(first.points)]),
        tangent=np.concatenate([first.tangent, second.tangent]),
        shade=np.concatenate([first.shade, second.shade]),
        openness=np.concatenate([first.openness, second.openness]),
    )
