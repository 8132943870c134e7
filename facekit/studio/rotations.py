"""Rotations by yaw, pitch and roll in degrees, as :mod:`facekit.types` has them."""

import numpy as np

from facekit.studio.basis import Array


def rotations(turns: Array) -> Array:
    """Rotations (..., 3, 3) by angles (..., 3): roll, then pitch, then yaw."""
    sine, cosine = np.sin(np.radians(turns)), np.cos(np.radians(turns))
    (sy, sp, sr), (cy, cp, cr) = np.moveaxis(sine, -1, 0), np.moveaxis(cosine, -1, 0)
    rows = [
        [cy * cr + sy * sp * sr, cy * sr - sy * sp * cr, sy * cp],
        [-cp * sr, cp * cr, sp],
        [cy * sp * sr - sy * cr, -cy * sp * cr - sy * sr, cy * cp],
    ]
    result: Array = np.stack([np.stack(row, -1) for row in rows], -2)
    return result


def rotation(yaw: float, pitch: float, roll: float) -> Array:
    """The rotation (3, 3), float32: roll, then pitch, then yaw."""
    return rotations(np.array([yaw, pitch, roll])).astype(np.float32)


def angles(turned: Array) -> tuple[float, float, float]:
    """Yaw, pitch and roll of a rotation (3, 3): the inverse of :func:`rotation`."""
    yaw = np.degrees(np.arctan2(turned[0, 2], turned[2, 2]))
    pitch = np.degrees(np.arcsin(np.clip(turned[1, 2], -1, 1)))
    roll = np.degrees(np.arctan2(-turned[1, 0], turned[1, 1]))
    return round(float(yaw), 4), round(float(pitch), 4), round(float(roll), 4)
