"""Two small functions of arrays that several features are drawn with."""

import numpy as np

from facekit.studio.basis import Array


def unit(vectors: Array) -> Array:
    """Vectors (P, 3) at length 1."""
    length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    result: Array = vectors / np.maximum(length, 1e-6)[:, None]
    return result


def step(value: Array) -> Array:
    """From 0 at 0 to 1 at 1, smoothly."""
    share = np.clip(value, 0, 1)
    smooth: Array = share * share * (3 - 2 * share)
    return smooth
