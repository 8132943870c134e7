"""How one picture lies in another, as facts."""

import math

import cv2
import numpy as np

from detectors.comparison import register
from detectors.comparison.model import Place
from detectors.comparison.register import Alignment, Matrix
from detectors.report.model import FileFacts


def place(alignment: Alignment, one: FileFacts, two: FileFacts) -> Place:
    """How A lies in B.

    Args:
        alignment: of a picture or moment of A in one of B.
        one: of A.
        two: of B.
    """
    matrix = alignment.b_from_a
    turn = matrix[:, :2] * ([-1.0, 1.0] if alignment.mirrored else [1.0, 1.0])
    rim_a = _rim(one.width, one.height)
    rim_b = _rim(two.width, two.height)
    in_a = register.apply(register.inverse(matrix), rim_b)
    in_b = register.apply(matrix, rim_a)
    return Place(
        b_from_a=[[round(float(value), 6) for value in row] for row in matrix],
        mirrored=alignment.mirrored,
        turned=round(math.degrees(math.atan2(turn[1, 0], turn[0, 0])), 2),
        scale=(
            round(float(np.linalg.norm(turn[:, 0])), 4),
            round(float(np.linalg.norm(turn[:, 1])), 4),
        ),
        share_of_a=_part(in_a, rim_a),
        share_of_b=_part(in_b, rim_b),
        outline=[(round(float(x), 1), round(float(y), 1)) for x, y in in_a],
    )


def _rim(width: int, height: int) -> Matrix:
    return np.array([[0.0, 0], [width, 0], [width, height], [0, height]])


def _part(shape: Matrix, rim: Matrix) -> float:
    area, _ = cv2.intersectConvexConvex(shape.astype(np.float32), rim.astype(np.float32))
    return round(min(1.0, float(area) / float(rim[2, 0] * rim[2, 1])), 4)
