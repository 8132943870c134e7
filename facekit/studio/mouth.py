"""Teeth, gums, tongue and the cavity behind them.

The head's mesh has two smooth bands for the rows of teeth; the teeth themselves are drawn on them:
their widths are those of adults (Wheeler's Dental Anatomy), each is curved, its edge rounded, and
where the band reaches beyond a tooth's edge the dark behind it shows. Lengths are in dm, places
are those of the neutral head.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from facekit.core.seed import rng
from facekit.studio import basis
from facekit.studio.basis import TEETH, TONGUE, Array, Indices
from facekit.studio.light import Light
from facekit.studio.person import Person
from facekit.studio.vectors import step, unit

_WIDTHS = {
    "upper": (0.086, 0.066, 0.076, 0.070, 0.068, 0.100, 0.095, 0.085),
    "lower": (0.053, 0.059, 0.069, 0.070, 0.071, 0.110, 0.105, 0.100),
}
"""Of a half row, from the middle backwards."""

_HEIGHTS = {
    "upper": (0.100, 0.088, 0.098, 0.084, 0.080, 0.074, 0.070, 0.066),
    "lower": (0.086, 0.090, 0.100, 0.086, 0.080, 0.074, 0.070, 0.066),
}
"""From the gum to the edge."""

_BETWEEN = 6.597  # The height at which the rows meet.
_LIPS = 1.50  # How far to the front the lips' inside is.


def settled(head: Array) -> Array:
    """A head (N, 3) at rest whose teeth and tongue lie as in a living mouth.

    In the mesh the rows meet edge to edge behind the lips' line, and the tongue fills the mouth,
    so that an open one shows a slab of lower teeth and a wall of tongue. Here the upper row comes
    0.028 dm down, to be seen below the lip; the lower one goes down and behind it; the tongue is
    flattened and drawn back. Both rows go back 0.02 dm, away from closed lips.
    """
    return head + _settling().astype(head.dtype)


def put_out(points: Array, turned: Array, share: float) -> None:
    """Take the tongue's part of :func:`settled` back, in place, as the tongue comes out.

    Args:
        points: (N, 3) of a posed head.
        turned: (3, 3) its axes.
        share: the coefficient of ``tongueOut``.
    """
    _, _, tongue = _vertices()
    points[tongue] -= share * _settling()[tongue] @ turned.T


@lru_cache(maxsize=1)
def _settling() -> Array:
    """What :func:`settled` adds to a head, (N, 3)."""
    upper, lower, tongue = _vertices()
    moved = np.zeros_like(basis.load().vertices)
    moved[upper] = 0, -0.028, -0.02
    moved[lower] = 0, -0.036, -0.045
    height = basis.load().vertices[tongue, 1]
    moved[tongue] = 0, -0.03, -0.05
    moved[tongue, 0] = 0.1 * basis.load().vertices[tongue, 0]
    moved[tongue, 1] -= 0.38 * (height - height.min() - 0.12)
    return moved


def opening(expression: Mapping[str, float]) -> float:
    """How much light the lips let in, in [0, 1]."""
    sides = ("mouthUpperUp", "mouthLowerDown", "mouthSmile")
    parted = sum(
        expression.get(f"{unit}{side}", 0.0) for unit in sides for side in ("Left", "Right")
    )
    shut = expression.get("mouthClose", 0.0)
    open_ = expression.get("jawOpen", 0.0) * (1 - shut) + 0.12 * parted
    return float(np.clip(0.1 + 1.6 * open_, 0, 1))


def shade(
    kind: int,
    person: Person,
    where: Array,
    normal: Array,
    view: Array,
    light: Light,
    lit: Array,
    turned: Array,
    opening: float,
) -> Array:
    """Radiance (P, 3) of what is behind the lips.

    Args:
        kind: ``TEETH``, ``TONGUE``; anything else is the cavity.
        person: for the colour of teeth and gums.
        where: (P, 3) on the neutral head.
        normal: (P, 3) unit, in the camera's axes.
        view: (P, 3) unit, to the camera.
        light: what shines.
        lit: (L, P) the share of each lamp that arrives.
        turned: (3, 3) the head's axes.
        opening: from :func:`opening`.
    """
    own = normal @ turned
    normal = np.where((np.einsum("ij,ij->i", normal, view) < 0)[:, None], -normal, normal)
    if kind == TEETH:
        albedo, gloss, tilt, open_ = _teeth(person, where)
        # The rows' inner sides, towards the tongue, get little light.
        inner = own[:, 0] * where[:, 0] + own[:, 2] * (where[:, 2] - 1.0) < -0.02
        open_ *= np.where(inner, np.float32(0.4), np.float32(1))
        normal = unit(normal + tilt @ turned.T)
    elif kind == TONGUE:
        albedo, gloss, open_ = _tongue(person, where)
    else:
        albedo, gloss, open_ = _cavity(where)
    inwards = _depth(where) * open_ * (0.45 + 0.75 * opening)
    # Light comes in from the front only.
    front = np.broadcast_to(turned[:, 2], normal.shape)
    received = light.irradiance(unit(0.45 * normal + front)) * inwards[:, None]
    gleam = (0.015 * gloss * inwards)[:, None] * light.irradiance(unit(normal + 0.5 * front))
    arrives = np.sqrt(inwards)
    for lamp, share in zip(light.lamps, lit, strict=True):
        facing = np.clip((normal @ lamp.direction + 0.25) / 1.25, 0, None)
        ahead = np.clip(2.5 * (front @ lamp.direction), 0, 1)
        strength = arrives * ahead * (0.15 + 0.85 * share)
        received += (facing * strength)[:, None] * lamp.colour
        half = unit(lamp.direction + view)
        aligned = np.clip(np.einsum("ij,ij->i", normal, half), 0, 1)
        squared = aligned**4
        lobes = 0.12 * squared**3 + 0.45 * (squared**4) ** 4
        gleam += (gloss * lobes * strength * share)[:, None] * lamp.colour
    shown: Array = (albedo * received + gleam).astype(np.float32)
    return shown


def lining(
    albedo: Array, gloss: Array, where: Array, inside: Array, opening: float
) -> tuple[Array, Array, Array]:
    """Skin that turns into the lips' wet inner side and then the cavity's wall.

    Args:
        albedo: (P, 3) of the skin.
        gloss: (P,) of the skin.
        where: (P, 3) on the neutral head.
        inside: (P,) 0 on the face to 1 in the mouth.
        opening: from :func:`opening`.

    Returns:
        Albedo, gloss, and the share (P,) of the light at the lips that reaches the place.
    """
    flesh, wet, _ = _cavity(where)
    share = inside[:, None]
    rosy = albedo + np.clip(2 * share, 0, 1) * (
        np.minimum(albedo * np.array([0.95, 0.6, 0.6], np.float32), 0.4) - albedo
    )
    result = rosy + np.clip(2 * share - 1, 0, 1) * (flesh - rosy)
    edge = np.clip(4 * inside * (1 - inside), 0, 1)
    arrives = 0.03 + _depth(where) * (0.25 + 0.45 * opening)
    return result, gloss + 0.7 * edge + 0.3 * inside * wet, arrives.astype(np.float32)


def _depth(where: Array) -> Array:
    """The share (P,) of the light at the lips that reaches so far back."""
    behind = np.maximum(_LIPS - where[:, 2], 0)
    aside = np.abs(where[:, 0])
    share: Array = np.exp(-2.8 * behind) * (1 - 0.5 * np.clip((aside - 0.08) / 0.22, 0, 1))
    return share


def _teeth(person: Person, where: Array) -> tuple[Array, Array, Array, Array]:
    """Albedo (P, 3), gloss (P,), tilt (P, 3) of the normal, and openness (P,) of teeth and gums."""
    albedo = np.empty_like(where)
    gloss = np.empty(len(where), np.float32)
    tilt = np.zeros_like(where)
    open_ = np.empty(len(where), np.float32)
    # The rows' bands meet at 6.597 in front and rise and fall together behind.
    upper = where[:, 1] > _edge(where)
    for row, chosen in (("upper", np.flatnonzero(upper)), ("lower", np.flatnonzero(~upper))):
        if len(chosen):
            values = _row(person, row, where[chosen])
            albedo[chosen], gloss[chosen], tilt[chosen], open_[chosen] = values
    return albedo, gloss, tilt, open_


def _edge(where: Array) -> Array:
    """The height at which the two rows meet, (P,): they rise to the back."""
    return np.interp(where[:, 2], [0.95, 1.1, 1.26, 1.4, 1.47], [6.716, 6.682, 6.652, 6.616, 6.597])


def _row(person: Person, row: str, where: Array) -> tuple[Array, Array, Array, Array]:
    """See :func:`_teeth`; of one row."""
    random = rng(person.seed, 41)
    sign = 1.0 if row == "upper" else -1.0
    up = sign * (where[:, 1] - _edge(where))  # From the biting edge towards the gum.
    along = _along(where)
    widths = np.array(_WIDTHS[row])
    borders = np.concatenate([[0], np.cumsum(widths)])
    own = np.clip(np.searchsorted(borders, along, side="right") - 1, 0, len(widths) - 1)
    across = (along - borders[own]) / widths[own] * 2 - 1  # −1 to 1 over a tooth.
    # No two teeth are alike, nor a person's left and right.
    tooth = own + np.where(where[:, 0] < 0, 8, 0) + (16 if row == "lower" else 0)
    unlike = random.normal(size=(32, 4)).astype(np.float32)[tooth]
    worn = 0.35 + 0.65 * (person.age - 18) / 62

    height = np.array(_HEIGHTS[row], np.float32)[own] * (1 + 0.03 * unlike[:, 0])
    pointed = np.array([0.05, 0.16, 0.5, 0.3, 0.25, 0.15, 0.15, 0.15], np.float32)[own]
    low = 0.004 + 0.003 * unlike[:, 1]
    low += 0.014 * pointed * np.abs(across) + np.where(own == 1, 0.006, 0.0) * (row == "upper")
    low += 0.016 * np.clip(np.abs(across) - 0.62, 0, 1) ** 2 / 0.15 * (1.3 - 0.5 * worn)
    receding = 0.010 * worn
    scallop = height + receding - 0.020 * across**2

    gap = 0.05 + 0.015 * np.clip(unlike[:, 2], -1.5, 3)
    between = np.exp(-(((1 - np.abs(across)) / gap) ** 2))
    enamel = _enamel(person) * (1 + 0.035 * unlike[:, 3:])
    canine = (own == 2)[:, None]
    enamel = enamel * np.where(canine, np.array([0.97, 0.93, 0.84], np.float32), 1)
    neck = np.clip(up / height, 0, 1)[:, None]
    enamel = enamel * (1 - neck * np.array([0.05, 0.10, 0.18], np.float32))
    # Light goes through the thin edge, behind which it is dark.
    thin = np.exp(-np.clip(up - low, 0, 1) / 0.012)[:, None]
    enamel = enamel * (1 - thin * np.array([0.20, 0.17, 0.13], np.float32))
    enamel *= (1 - 0.6 * between)[:, None]

    gum = step((up - scallop) / 0.008 + 0.5)[:, None]
    flesh = _gum(person) * (1 - 0.25 * between)[:, None]
    albedo = enamel + gum * (flesh - enamel)
    solid = step((up - low) / 0.006 + 0.5)
    albedo = albedo * (0.06 + 0.94 * solid)[:, None]

    tilt = np.zeros_like(where)
    outward = np.sign(where[:, 0]) * across**3
    facing = np.clip((where[:, 2] - 1.1) / 0.3, 0, 1)
    tilt[:, 0] = 0.55 * outward * facing
    tilt[:, 2] = -0.55 * outward * (1 - facing)
    tilt[:, 1] = sign * 0.25 * (gum[:, 0] * 0.8 - np.clip(0.5 - up / height, 0, 1))
    open_ = 1 - 0.42 * step((up - 0.25 * height) / height)  # The lip's shade.
    gloss = 0.75 * solid * (1 - 0.8 * between) * (1 - 0.3 * gum[:, 0])
    # Premolars and molars stand in the cheeks' shade.
    open_ *= np.array([1, 0.95, 0.86, 0.66, 0.52, 0.4, 0.3, 0.25], np.float32)[own]
    return (
        albedo.astype(np.float32),
        gloss.astype(np.float32),
        tilt,
        open_.astype(np.float32),
    )


def _enamel(person: Person) -> Array:
    """Between white and yellow: yellower with age, and by chance."""
    chance = rng(person.seed, 42).normal()
    yellow = np.clip(0.35 + 0.45 * (person.age - 18) / 62 + 0.2 * chance, 0, 1)
    white = np.array([0.60, 0.575, 0.53])
    tone: Array = (white + yellow * (np.array([0.50, 0.435, 0.30]) - white)).astype(np.float32)
    return tone


def _gum(person: Person) -> Array:
    dark = max(person.skin_tone - 6, 0) / 4
    tone: Array = np.array([0.36, 0.135, 0.13], np.float32) * np.float32(1 - 0.45 * dark)
    return tone


def _tongue(person: Person, where: Array) -> tuple[Array, Array, Array]:
    """Albedo (P, 3), gloss (P,) and openness (P,) of the tongue: a groove and papillae."""
    x, y, z = where.T
    groove = np.exp(-((x / 0.018) ** 2)) * step((z - 0.9) / 0.3) * step((1.37 - z) / 0.1)
    grain = np.sin(x * 310 + 3 * np.sin(z * 130)) * np.sin(z * 290 + 2 * np.sin(x * 170))
    coated = step((1.32 - z) / 0.35) * (0.5 + 0.2 * rng(person.seed, 43).normal())
    base = np.array([0.47, 0.17, 0.15], np.float32)
    pale = np.array([0.46, 0.25, 0.22], np.float32)
    albedo = base + np.clip(0.55 * coated, 0, 1)[:, None] * (pale - base)
    albedo = albedo * (1 - 0.14 * groove + 0.05 * grain)[:, None]
    gloss = 0.55 + 0.2 * grain - 0.15 * groove
    below = step((y - 6.46) / 0.1)
    return (
        albedo.astype(np.float32),
        gloss.astype(np.float32),
        (0.6 + 0.4 * below).astype(np.float32),
    )


def _cavity(where: Array) -> tuple[Array, Array, Array]:
    """Albedo (P, 3), gloss (P,) and openness (P,) of palate, cheeks and throat."""
    behind = np.clip((_LIPS - where[:, 2]) / 0.6, 0, 1)
    front = np.array([0.34, 0.11, 0.10], np.float32)
    albedo = front * (1 - 0.7 * behind)[:, None]
    gloss = (0.5 * (1 - behind)).astype(np.float32)
    return albedo, gloss, (0.9 - 0.5 * behind).astype(np.float32)


def _along(where: Array) -> Array:
    """The way (P,) along a row's arch from its middle, by places on it."""
    angle, way = _arch()
    along: Array = np.interp(np.arctan2(np.abs(where[:, 0]), where[:, 2] - 1.0), angle, way)
    return along


@lru_cache(maxsize=1)
def _arch() -> tuple[Array, Array]:
    """The upper row's arch: angle about (0, 1.0) in x and z, and the way from its middle."""
    head = basis.load()
    upper, _, _ = _vertices()
    points = head.vertices[upper]
    # The outer, lower edge: a line of vertices.
    front = points[(points[:, 0] >= -1e-4) & (points[:, 1] - _edge(points) < 0.055)]
    angle = np.arctan2(front[:, 0], front[:, 2] - 1.0)
    reach = np.hypot(front[:, 0], front[:, 2] - 1.0)
    # Vertices of the palate's side lie nearer; keep the farthest of each direction.
    grid = np.linspace(0, np.pi / 2 + 0.1, 40)
    outer = np.array([reach[np.abs(angle - a) < 0.12].max(initial=0.0) for a in grid])
    known = outer > 0.25
    outer = np.interp(grid, grid[known], outer[known])
    x, z = outer * np.sin(grid), outer * np.cos(grid)
    way = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(z)))])
    return grid, way


@lru_cache(maxsize=1)
def _vertices() -> tuple[Indices, Indices, Indices]:
    """The vertices of the upper row, the lower row, and the tongue."""
    head = basis.load()
    teeth = np.unique(head.triangles[head.materials == TEETH])
    tongue = np.unique(head.triangles[head.materials == TONGUE])
    jaw = np.abs(head.targets[head.index["jawOpen"]][teeth]).max(1) > 1e-6
    return teeth[~jaw], teeth[jaw], tongue
