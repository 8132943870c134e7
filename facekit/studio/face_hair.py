"""Lashes, brows and beard: short ribbons rooted in the face, that move with the skin."""

from dataclasses import dataclass

import numpy as np

from facekit.core.seed import rng
from facekit.studio import basis, regions, strands
from facekit.studio.basis import SKIN, Array, Indices
from facekit.studio.person import Person


@dataclass(frozen=True)
class Strands:
    """Ribbons on the face; each vertex hangs on three of the head's.

    A vertex lies at ``(head[roots] * weights[..., None]).sum(1) + R @ offset`` where ``head`` is
    the deformed head and ``R`` its rotation.

    Attributes:
        roots, weights: (M, 3);  offset: (M, 3) in dm, on the head at rest.
        triangles: (T, 3) into the M vertices.
        tangent: (M, 3) unit, along the hair at rest.
        shade: (M,) a factor of the albedo ``colour`` (M, 3), linear RGB.
    """

    roots: Indices
    weights: Array
    offset: Array
    triangles: Indices
    tangent: Array
    shade: Array
    colour: Array


def attach(person: Person, head: Array, normal: Array) -> Strands:
    """Lashes, brows and beard on a person's resting head (N, 3) with its normals."""
    parts = [_lashes(person, head), _brows(person, head, normal)]
    if person.beard in ("moustache", "goatee", "full"):
        parts.append(_beard(person, head, normal))
    counts = np.cumsum([0, *(len(part.roots) for part in parts)])
    shifted = [part.triangles + n for part, n in zip(parts, counts[:-1], strict=True)]
    return Strands(
        roots=np.concatenate([part.roots for part in parts]),
        weights=np.concatenate([part.weights for part in parts]),
        offset=np.concatenate([part.offset for part in parts]),
        triangles=np.concatenate(shifted).astype(np.int32),
        tangent=np.concatenate([part.tangent for part in parts]),
        shade=np.concatenate([part.shade for part in parts]),
        colour=np.concatenate([part.colour for part in parts]),
    )


def colour(person: Person) -> Array:
    """Linear RGB (3,) of brows and beard: the hair's, but never as pale."""
    darker = {"white": 0.55, "grey": 0.55, "blond": 0.5, "light brown": 0.65}
    tone = np.array(person.hair_colour, np.float32)
    return tone * np.float32(darker.get(person.hair_name, 0.85))


def _ribbons(
    head: Array,
    roots: Indices,
    weights: Array,
    offset: Array,
    out: Array,
    width: Array,
    tone: Array,
    shade: Array,
) -> Strands:
    """Ribbons of nodes that hang on ``roots``, ``weights`` (N, K, 3) with ``offset`` (N, K, 3).

    ``out`` (N, K, 3): unit vectors off the skin;  ``width``, ``shade`` (N, K).
    """
    count, nodes = width.shape
    paths = (head[roots] * weights[..., None]).sum(2) + offset
    tangent = strands.tangents(paths)
    side = strands.unit(np.cross(tangent, out))
    held = strands.ribbon_values(paths - offset)
    points = strands.ribbon_sides(paths, side, width)
    flat = (count * (2 * nodes - 1), 3)
    return Strands(
        roots=strands.ribbon_values(roots).reshape(flat).astype(np.int32),
        weights=strands.ribbon_values(weights).reshape(flat).astype(np.float32),
        offset=(points - held).reshape(flat).astype(np.float32),
        triangles=strands.ribbon_triangles(count, nodes),
        tangent=strands.ribbon_values(tangent).reshape(flat),
        shade=strands.ribbon_values(shade).ravel().astype(np.float32),
        colour=np.broadcast_to(tone, flat).astype(np.float32),
    )


def _lashes(person: Person, head: Array) -> Strands:
    """Lashes on the sheets that MakeHuman's lids carry: a fan above, a sparser one below."""
    neutral = basis.load()
    random = rng(person.seed, 8)
    length = 0.5 + 0.5 * person.lashes
    nodes = 4
    along = np.linspace(0, 1, nodes)
    roots, weights, offsets, widths = [], [], [], []
    rows = ((neutral.upper_lashes, 74, 1.0), (neutral.lower_lashes, 40, 0.6))
    for sheets, count, share in rows:
        for sheet in sheets:
            last_row, last_column = sheet.shape[0] - 1, sheet.shape[1] - 1
            place = (np.arange(count) + random.uniform(0.1, 0.9, count)) / count
            # Lashes stand in small groups whose tips meet.
            groups = np.round(place * count / 2.6) * 2.6 / count
            own = length * share * random.uniform(0.72, 1.08, count)
            own *= 0.62 + 0.38 * np.sin(np.pi * np.clip(0.12 + 0.8 * place, 0, 1))
            bent = place[:, None] + 0.5 * (groups - place)[:, None] * along
            bent += random.normal(0, 0.006, (count, 1)) * along
            column = np.clip(bent, 0, 1) * last_column
            reach = (0.2 + (0.8 * along) * own[:, None]) * last_row
            row = np.clip(reach, 0, last_row)
            found, weight = _on_sheet(sheet, row, column)
            ahead = _on_rest(head, sheet, column, last_row)
            curl = np.array([0, 0.03, 0.006]) * (1 if share == 1.0 else -0.4)
            beyond = (reach - row)[..., None] / last_row * ahead
            roots.append(found)
            weights.append(weight)
            offsets.append(beyond + own[:, None, None] * (along**2)[None, :, None] * curl)
            widths.append(np.full(count, 0.0058 if share == 1.0 else 0.0036))
    all_roots, all_weights = np.concatenate(roots), np.concatenate(weights)
    width = np.concatenate(widths)[:, None] * (1 - 0.65 * along)
    ahead = np.array([0.0, 0.35, 1.0])
    tone = np.minimum(np.array(person.hair_colour) * 0.35, 0.05) + 0.002
    return _ribbons(
        head,
        all_roots,
        all_weights,
        np.concatenate(offsets),
        np.broadcast_to(ahead / np.linalg.norm(ahead), (*width.shape, 3)),
        width,
        tone,
        np.ones(width.shape),
    )


def _on_sheet(sheet: Indices, row: Array, column: Array) -> tuple[Indices, Array]:
    """Vertices and weights (..., 3) of places in a grid of vertices (R, C)."""
    i = np.minimum(row.astype(int), sheet.shape[0] - 2)
    j = np.minimum(column.astype(int), sheet.shape[1] - 2)
    down, over = row - i, column - j
    near = (down + over < 1)[..., None]
    first = np.stack([sheet[i, j], sheet[i + 1, j], sheet[i, j + 1]], -1)
    second = np.stack([sheet[i + 1, j + 1], sheet[i, j + 1], sheet[i + 1, j]], -1)
    of_first = np.stack([1 - down - over, down, over], -1)
    of_second = np.stack([down + over - 1, 1 - down, 1 - over], -1)
    return np.where(near, first, second), np.where(near, of_first, of_second)


def _on_rest(head: Array, sheet: Indices, column: Array, last_row: int) -> Array:
    """From the lid to the tips (..., 3) at columns of a sheet on the head at rest."""
    nearest = np.rint(column).astype(int)
    ahead: Array = head[sheet[last_row, nearest]] - head[sheet[1, nearest]]
    return ahead


def _on_skin(x: Array, y: Array) -> tuple[Indices, Array]:
    """Vertices and weights (P, 3) of the face's points in front of places (P,) seen from ahead."""
    neutral = basis.load()
    skin = neutral.triangles[neutral.materials == SKIN]
    origins = np.stack([x, y, np.full_like(x, 4.0)], 1)
    hits = basis.cast(neutral.vertices, skin, origins, np.tile([0.0, 0.0, -1.0], (len(x), 1)))
    u, v = hits["u"], hits["v"]
    return skin[np.maximum(hits["primID"], 0)], np.stack([1 - u - v, u, v], 1).astype(np.float32)


def _brows(person: Person, head: Array, normal: Array) -> Strands:
    """Hairs along the arch: upwards at the nose, outwards further on, from below and above."""
    random = rng(person.seed, 9)
    count = int(240 + 200 * person.brow_density)
    along = np.concatenate([random.uniform(0.0, 0.98, count - 40), random.uniform(-0.05, 0.1, 40)])
    across = np.clip(random.normal(0, 0.5, count), -1.1, 1.1)
    side = np.where(np.arange(count) % 2, 1.0, -1.0)
    x, y = _in_brow(person, along, across)
    # From upwards to outwards; the upper hairs lean down, the lower ones up, and meet on the spine.
    angle = np.interp(along, [-0.05, 0.08, 0.25, 0.6, 1], [88, 72, 38, 8, -18])
    angle = angle - 24 * across * np.clip(along / 0.3, 0, 1) + random.normal(0, 9, count)
    length = (0.062 + 0.03 * person.brow_thickness) * random.uniform(0.65, 1.15, count)
    length *= np.interp(along, [0, 0.2, 0.8, 1], [0.75, 1, 0.95, 0.65])
    nodes = 3
    step = np.linspace(0, 1, nodes)
    turning = np.radians(angle[:, None] - 16 * step)
    dx, dy = length[:, None] * step * np.cos(turning), length[:, None] * step * np.sin(turning)
    at_x, at_y = side[:, None] * (x[:, None] + dx), y[:, None] + dy
    roots, weights = _on_skin(at_x.ravel().astype(np.float32), at_y.ravel().astype(np.float32))
    roots, weights = roots.reshape(count, nodes, 3), weights.reshape(count, nodes, 3)
    out = strands.unit((normal[roots] * weights[..., None]).sum(2))
    lift = np.array([-0.002, 0.011, 0.013])
    width = np.outer(random.uniform(0.0055, 0.009, count), 1 - 0.5 * step)
    shade = np.exp(random.normal(0, 0.2, count))[:, None] * np.ones(nodes)
    return _ribbons(
        head, roots, weights, out * lift[None, :, None], out, width, colour(person), shade
    )


def _in_brow(person: Person, along: Array, across: Array) -> tuple[Array, Array]:
    """The place (x, y) on the neutral head of coordinates in the brow."""
    x = 0.11 + 0.43 * along
    # Across is linear in y: two heights give its scale and its zero.
    zero = regions.brow(person, x, np.zeros_like(x))[1]
    half = 1 / (regions.brow(person, x, np.ones_like(x))[1] - zero)
    return x, (across - zero) * half


_BEARDS = {"moustache": (1500, 0.12), "goatee": (2300, 0.17), "full": (2900, 0.17)}


def _beard(person: Person, head: Array, normal: Array) -> Strands:
    """Ribbons that hang from lip, cheeks and chin, shorter and sparser at the borders."""
    neutral = basis.load()
    random = rng(person.seed, 10)
    count, long = _BEARDS[person.beard]
    skin = neutral.triangles[neutral.materials == SKIN]
    skin = skin[(neutral.mouth[skin] < 0.5).all(1)]
    corners = neutral.vertices[skin]
    size = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    chance = size * np.minimum(1.6 * _grows(person, corners.mean(1)), 1)
    chosen = np.searchsorted(np.cumsum(chance) / chance.sum(), random.random(count))
    share = random.dirichlet((1, 1, 1), count).astype(np.float32)
    roots = skin[chosen]
    places = (corners[chosen] * share[..., None]).sum(1)
    thick = np.clip(1.4 * _grows(person, places), 0.15, 1)

    x, y, _ = places.T
    out = strands.unit((normal[roots] * share[..., None]).sum(1))
    upper = regions.step(y, 6.66, 6.72) * (np.abs(x) < 0.4)
    goal = np.stack([0.55 * x, np.full(count, -1.0), 0.15 * np.ones(count)], 1)
    combed = np.stack([np.sign(x) * (0.05 + 2.4 * np.abs(x)), np.full(count, -0.75), 0 * x], 1)
    goal = goal + upper[:, None] * (combed - goal)
    flat = strands.unit(strands.across(goal, out))
    flat = strands.turned(flat, out, random.normal(0, 0.22, count))
    low = np.clip((6.5 - y) / 0.2, 0, 1)
    length = long * (0.7 + 0.6 * person.volume) * random.uniform(0.6, 1.1, count) * thick
    length *= (1 + 0.45 * low) * (1 - 0.38 * upper)
    lift = random.uniform(0.1, 0.45, count)
    ahead = strands.unit(flat + lift[:, None] * out)
    # One triangle a hair: short hairs are straight, and many count more than bends.
    offset = np.stack([-0.006 * out, length[:, None] * ahead], 1)
    nodes = 2
    width = np.outer(random.uniform(0.009, 0.017, count) * (0.6 + 0.4 * thick), [1.0, 0.0])
    grey = 0.3 if person.hair_name in ("grey", "white") else 0.18
    tone = np.exp(random.normal(0, grey, count))
    shade = tone[:, None] * np.array([0.75, 1.1])
    twisted = strands.turned(out, ahead, random.normal(0, 0.4, count))
    return _ribbons(
        head,
        np.repeat(roots[:, None], nodes, axis=1),
        np.repeat(share[:, None], nodes, axis=1),
        offset,
        np.repeat(twisted[:, None], nodes, axis=1),
        width,
        colour(person),
        shade,
    )


def _grows(person: Person, places: Array) -> Array:
    """How densely the person's beard grows at places (P, 3) on the neutral head, 0 to 1."""
    x, y, z = places.T
    region = regions.beard(x, y, z) * regions.step(z, 0.58, 0.72) * (np.abs(x) < 0.68)
    # Lips are bare.
    off_lips = (x / 0.29) ** 2 + ((y - 6.6) / 0.11) ** 2
    region = region * regions.step(off_lips, 0.9, 1.25)
    if person.beard == "moustache":
        region = region * regions.moustache(x, y)
    if person.beard == "goatee":
        chin = regions.goatee(x, y) * regions.step(z, 1.05, 1.2)
        region = region * np.clip(regions.moustache(x, y) + chin, 0, 1)
    result: Array = region
    return result
