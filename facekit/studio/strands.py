"""What all hair needs: the space about the head, bending of locks, and ribbons along them.

Locks grow beside the neutral head, where the distance from the skin is known on a grid; what is
grown is then carried to a person's head.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from facekit.studio import basis
from facekit.studio.basis import Array, Indices


@lru_cache(maxsize=1)
def _space() -> Array:
    """The distance from the skin and its gradient, (4, X, Y, Z)."""
    distance = basis.load().distance
    smooth = gaussian_filter(distance, 1.2)
    return np.stack([distance, *np.gradient(smooth)]).astype(np.float32)


def skin_distance(points: Array) -> tuple[Array, Array]:
    """Of points (P, 3): the distance from the neutral head (P,), and unit vectors away from it."""
    places = basis.distance_place(points)
    values = [map_coordinates(part, places, order=1, mode="nearest") for part in _space()]
    away = np.stack(values[1:], 1)
    return values[0], unit(away)


def unit(vectors: Array) -> Array:
    """Vectors (..., 3) at length 1."""
    length = np.sqrt((vectors * vectors).sum(-1, keepdims=True))
    result: Array = (vectors / np.maximum(length, 1e-9)).astype(np.float32)
    return result


def across(vectors: Array, normal: Array) -> Array:
    """Vectors (P, 3) without their part along unit normals (P, 3)."""
    flat: Array = vectors - (vectors * normal).sum(-1, keepdims=True) * normal
    return flat


def turned(vectors: Array, axis: Array, angle: Array) -> Array:
    """Vectors (..., 3) turned about unit axes (..., 3) by angles (...,) in radians."""
    c, s = np.cos(angle)[..., None], np.sin(angle)[..., None]
    along = (vectors * axis).sum(-1, keepdims=True)
    result: Array = vectors * c + np.cross(axis, vectors) * s + axis * along * (1 - c)
    return result


def tangents(paths: Array) -> Array:
    """Unit vectors along locks (N, K, 3)."""
    ahead = np.empty_like(paths)
    ahead[:, 1:-1] = paths[:, 2:] - paths[:, :-2]
    ahead[:, 0] = paths[:, 1] - paths[:, 0]
    ahead[:, -1] = paths[:, -1] - paths[:, -2]
    return unit(ahead)


def ribbon_sides(paths: Array, side: Array, width: Array) -> Array:
    """Vertices (N, 2K − 1, 3) of ribbons about locks (N, K, 3).

    ``side`` (N, K, 3) are unit vectors across; ``width`` (N, K) the whole widths. Each node but
    the last gives two vertices; a ribbon ends in a point.
    """
    count, nodes = paths.shape[:2]
    half = side * (0.5 * width)[..., None]
    points = np.empty((count, 2 * nodes - 1, 3), np.float32)
    points[:, 0:-1:2] = (paths - half)[:, :-1]
    points[:, 1:-1:2] = (paths + half)[:, :-1]
    points[:, -1] = paths[:, -1]
    return points


def ribbon_values(values: Any) -> Any:
    """What is known at nodes (N, K, ...), at the ribbons' vertices (N, 2K − 1, ...)."""
    return np.repeat(values, 2, axis=1)[:, :-1]


def ribbon_triangles(count: int, nodes: int) -> Indices:
    """Triangles (N · (2K − 3), 3) of ribbons of K nodes, facing the side × tangent."""
    quads = [
        triangle
        for i in range(0, 2 * nodes - 4, 2)
        for triangle in ((i, i + 1, i + 2), (i + 1, i + 3, i + 2))
    ]
    last = 2 * nodes - 4
    one = np.array([*quads, (last, last + 1, last + 2)], np.int32)
    every: Indices = one + (2 * nodes - 1) * np.arange(count, dtype=np.int32)[:, None, None]
    return every.reshape(-1, 3)


class Carrier:
    """Carries places beside the neutral head to a person's head (N, 3)."""

    _CORNER = np.array([-2.2, 4.7, -1.4], np.float32)
    _CELL = 0.14
    _CELLS = (32, 31, 26)

    def __init__(self, head: Array) -> None:
        """Spread the head's displacements into the space about it."""
        neutral = basis.load()
        skin = _skin_vertices()
        moved = (head - neutral.vertices)[skin]
        places = self._places(neutral.vertices[skin])
        cells = np.clip(np.rint(places).astype(np.int64), 0, np.array(self._CELLS)[:, None] - 1)
        flat = np.ravel_multi_index(tuple(cells), self._CELLS)
        size = int(np.prod(self._CELLS))
        grids = [np.bincount(flat, minlength=size)]
        grids += [np.bincount(flat, moved[:, axis], minlength=size) for axis in range(3)]
        total = np.zeros((4, *self._CELLS))
        # Near the skin its own displacement counts, further off that of a wider neighbourhood.
        for sigma, weight in ((0.8, 1.0), (2.0, 1e-2), (5.0, 1e-5)):
            for grid, into in zip(grids, total, strict=True):
                into += weight * gaussian_filter(grid.reshape(self._CELLS).astype(float), sigma)
        self._field = (total[1:] / np.maximum(total[0], 1e-12)).astype(np.float32)

    def _places(self, points: Array) -> Array:
        places: Array = ((points - self._CORNER) / np.float32(self._CELL)).T
        return places

    def __call__(self, places: Array) -> Array:
        """Places (..., 3) on the person."""
        flat = places.reshape(-1, 3)
        at = self._places(flat)
        moved = [map_coordinates(part, at, order=1, mode="nearest") for part in self._field]
        result: Array = (flat + np.stack(moved, 1)).reshape(places.shape).astype(np.float32)
        return result


@lru_cache(maxsize=1)
def _skin_vertices() -> Indices:
    neutral = basis.load()
    outside = neutral.triangles[neutral.materials == basis.SKIN]
    found: Indices = np.unique(outside)
    kept: Indices = found[neutral.mouth[found] < 0.5]
    return kept


_DENSE_CELL = 0.09
_DENSE_CELLS = (60, 56, 42)


def openness(points: Array, area: Array) -> Array:
    """How free the light's way is to points (P, 3) in hair of area (P,) in dm² at each: (P,).

    Light fades with the area of hair that lies outside of a place, as in a cloud of leaves.
    """
    corner = np.array([-2.7, 4.6, -1.6], np.float32)

    def place(at: Array) -> Array:
        result: Array = ((at - corner) / np.float32(_DENSE_CELL)).T
        return result

    limit = np.array(_DENSE_CELLS)[:, None] - 1
    cells = np.clip(np.rint(place(points)).astype(np.int64), 0, limit)
    flat = np.ravel_multi_index(tuple(cells), _DENSE_CELLS)
    dense = np.bincount(flat, area, minlength=int(np.prod(_DENSE_CELLS)))
    dense = gaussian_filter(dense.reshape(_DENSE_CELLS).astype(np.float32), 0.8) / _DENSE_CELL**3
    _, away = skin_distance(points)
    depth = np.zeros(len(points), np.float32)
    for reach, step in ((0.06, 0.08), (0.15, 0.1), (0.28, 0.15)):
        depth += step * map_coordinates(dense, place(points + reach * away), order=1)
    free: Array = np.exp(-0.22 * depth).astype(np.float32)
    return free
