"""Rotations by yaw, pitch and roll in degrees, as :mod:`facekit.types` has them."""

import numpy as np

from facekit.studio.basis import Array


def rotation(yaw: float, pitch: float, roll: float) -> Array:
    """The rotation (3, 3): roll, then pitch, then yaw."""
    (sy, sp, sr), (cy, cp, cr) = (f(np.radians([yaw, pitch, roll])) for f in (np.sin, np.cos))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    result: Array = (about_y @ about_x @ about_z).astype(np.float32)
    return result


def angles(turned: Array) -> tuple[float, float, float]:
    """Yaw, pitch and roll of a rotation (3, 3): the inverse of :func:`rotation`."""
    yaw = np.degrees(np.arctan2(turned[0, 2], turned[2, 2]))
    pitch = np.degrees(np.arcsin(np.clip(turned[1, 2], -1, 1)))
    roll = np.degrees(np.arctan2(-turned[1, 0], turned[1, 1]))
    return round(float(yaw), 4), round(float(pitch), 4), round(float(roll), 4)
