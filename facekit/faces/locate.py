"""Find the faces of pictures. How is the business of a plug-in: ``facekit/faces/locators``."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from facekit.core import registry
from facekit.types import Face, Pixels

LOCATORS = "facekit.faces.locators"

# Of 130 photos of real people, turned, MTCNN "found" a third, and gave none so much; of the same
# photos upright it gave less to 9. None scored higher turned than upright.
_SURE = 0.9995


class Locator(Protocol):
    """Finds faces, with five points each."""

    def locate(self, images: Sequence[Pixels]) -> list[list[Face]]:
        """Find the faces of each picture.

        Args:
            images: uint8 RGB (H, W, 3); sizes may differ.

        Returns:
            For each picture its faces, largest first; boxes may reach beyond the border.
        """
        ...


def load_locator(
    device: torch.device,
    name: str = "mtcnn",
    *,
    min_face: int = 40,
    max_side: int = 640,
    weights: Path | None = None,
) -> Locator:
    """Open a locator.

    Args:
        device: where to compute.
        name: of a plug-in in ``facekit/faces/locators``.
        min_face: smallest face to look for: longer side of its box, in pixels of the picture.
            The cost grows with (picture's side / ``min_face``) squared.
        max_side: pictures with a longer side are shrunk to it for the search, so small faces of
            large pictures are not found; how small, the plug-in says.
        weights: the user's own file, for a plug-in that brings none.

    Raises:
        FacekitError: for an unknown name, weights that are missing or cannot be read, or a
            plug-in that takes none.

    Example:
        >>> faces = load_locator(torch.device("cpu")).locate([pixels])[0]
    """
    plugin = registry.load(LOCATORS, name)
    locator: Locator = plugin.Locator(device, min_face=min_face, max_side=max_side, weights=weights)
    return locator


def locate_turned(locator: Locator, images: Sequence[Pixels]) -> list[list[Face]]:
    """Find the faces of photos, which may lie on their side or stand on their head.

    Of the four quarter turns that one is taken in which a face is surest: a photo is turned as a
    whole. Upright photos rarely cost more than one search. This is not for videos: frames without
    a face cost four.

    Args:
        locator: what to search with.
        images: uint8 RGB (H, W, 3); sizes may differ.

    Returns:
        As :meth:`Locator.locate`, in pixels of the pictures as given. The points of a turned face
        come in the order that they have where the face is upright, so aligning it sets it upright.
    """
    found = locator.locate(images)
    for i, upright in enumerate(found):
        if _surest(upright) < _SURE:
            results = [upright]
            for turns in (1, 2, 3):  # one at a time: of the largest pictures three take a gigabyte
                turned = np.ascontiguousarray(np.rot90(images[i], turns))
                results += locator.locate([turned])
            turns = max(range(4), key=lambda turns: _surest(results[turns]))
            found[i] = [_turned_back(face, turns, images[i].shape) for face in results[turns]]
    return found


def _surest(faces: Sequence[Face]) -> float:
    return max((face.score for face in faces), default=0.0)


def _turned_back(face: Face, turns: int, shape: tuple[int, ...]) -> Face:
    """A face found after ``turns`` quarter turns to the left of a picture of ``shape``."""
    corners = _places_before(face.box.reshape(2, 2), turns, shape)
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
    return replace(face, box=box, points=_places_before(face.points, turns, shape))


def _places_before(
    points: NDArray[np.float32], turns: int, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Where points (N, 2) of the turned picture lie in the one of ``shape``."""
    height, width = shape[:2]
    x, y = points.T
    places = ((x, y), (width - y, x), (width - x, height - y), (y, height - x))
    return np.stack(places[turns], axis=1).astype(np.float32)
