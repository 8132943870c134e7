"""The working size: pictures are shrunk to it for the search, and faces mapped back."""

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.types import Face, Pixels


def working_shape(image: Pixels, max_side: int) -> tuple[int, int]:
    """Height and width of the picture as searched: its longer side is at most ``max_side``."""
    height, width = image.shape[:2]
    shrink = min(1.0, max_side / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def shrunk(image: Pixels, shape: tuple[int, int]) -> Pixels:
    """The picture at its working shape, averaged over areas."""
    if image.shape[:2] == shape:
        return image
    # Linear in both axes on edges, so coordinates map back by the ratio of the sizes alone.
    return np.asarray(cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def to_faces(
    rows: NDArray[np.float32], image: Pixels, shape: tuple[int, int], min_face: int
) -> list[Face]:
    """Faces of at least ``min_face`` in the picture's own pixels, largest first.

    Args:
        rows: (N, 15) in pixels of the working picture: box 4, score, x and y of each of 5 points.
        image: the picture.
        shape: its working shape.
        min_face: the smallest longer side of a box, in pixels of the picture.
    """
    ratio = np.array([image.shape[1] / shape[1], image.shape[0] / shape[0]], np.float32)
    faces = [
        Face(
            box=row[:4] * np.tile(ratio, 2),
            points=row[5:].reshape(5, 2) * ratio,
            score=float(row[4]),
        )
        for row in rows
    ]
    return sorted((face for face in faces if face.size >= min_face), key=lambda face: -face.size)
