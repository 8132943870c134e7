"""Find the faces of pictures. How is the business of a plug-in: ``facekit/faces/locators``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from facekit.core import registry
from facekit.types import Face, Pixels

LOCATORS = "facekit.faces.locators"


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
