"""The 68 points of iBUG-300W on the head, hand-picked once on the neutral head's front view."""

from functools import lru_cache

import numpy as np

from facekit.studio import basis
from facekit.studio.basis import Array, Indices

# (x, y) in dm on the neutral head, of the person's own left half; iBUG's index in front.
# The others are their mirror images.
_PICKED = {
    8: (0.0, 6.20),
    9: (0.21, 6.26),
    10: (0.38, 6.385),
    11: (0.50, 6.515),
    12: (0.585, 6.68),
    13: (0.64, 6.84),
    14: (0.685, 6.97),
    15: (0.70, 7.10),
    16: (0.71, 7.24),
    22: (0.12, 7.44),
    23: (0.21, 7.47),
    24: (0.32, 7.49),
    25: (0.43, 7.475),
    26: (0.53, 7.43),
    27: (0.0, 7.28),
    28: (0.0, 7.17),
    29: (0.0, 7.06),
    30: (0.0, 6.955),
    33: (0.0, 6.82),
    34: (0.07, 6.83),
    35: (0.14, 6.865),
    42: (0.18, 7.278),
    43: (0.26, 7.34),
    44: (0.37, 7.34),
    45: (0.443, 7.285),
    46: (0.37, 7.237),
    47: (0.26, 7.237),
    51: (0.0, 6.685),
    52: (0.07, 6.70),
    53: (0.17, 6.675),
    54: (0.26, 6.615),
    55: (0.17, 6.535),
    56: (0.08, 6.50),
    57: (0.0, 6.495),
    62: (0.0, 6.628),
    63: (0.09, 6.63),
    64: (0.235, 6.615),
    65: (0.09, 6.60),
    66: (0.0, 6.598),
}
_MIRRORED = (
    {9 + i: 7 - i for i in range(8)}
    | {22 + i: 21 - i for i in range(5)}
    | {34: 32, 35: 31, 42: 39, 43: 38, 44: 37, 45: 36, 46: 41, 47: 40}
    | {52: 50, 53: 49, 54: 48, 55: 59, 56: 58, 63: 61, 64: 60, 65: 67}
)


@lru_cache(maxsize=1)
def _anchors() -> tuple[Indices, Array]:
    """Vertices (68, 3) and their weights (68, 3)."""
    head = basis.load()
    places = np.zeros((68, 2))
    for index, (x, y) in _PICKED.items():
        places[index] = x, y
        if index in _MIRRORED:
            places[_MIRRORED[index]] = -x, y
    triangles = head.triangles[head.materials == basis.SKIN]
    # A hair's breadth off the middle, where a ray could slip between two triangles.
    origins = np.column_stack([places + 1e-4, np.full(68, 5.0)])
    hits = basis.cast(head.vertices, triangles, origins, np.tile([0.0, 0.0, -1.0], (68, 1)))
    u, v = hits["u"], hits["v"]
    return triangles[hits["primID"]], np.stack([1 - u - v, u, v], 1).astype(np.float32)


def landmarks(points: Array) -> Array:
    """The 68 points (68, 3) of a posed head (N, 3)."""
    vertices, weights = _anchors()
    found: Array = (points[vertices] * weights[..., None]).sum(1)
    return found
