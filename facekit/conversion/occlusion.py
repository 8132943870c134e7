"""What covers the face stays in front of it: hands, hair, glasses, cups."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from facekit.faces.visible import load_visible
from facekit.types import Floats

Visible = Callable[[Tensor], Tensor]
"""Aligned crops (B, 3, S, S) in [-1, 1] → where they show the bare face, (B, 1, S, S) in [0, 1]."""


def load(device: torch.device) -> Visible:
    """The bundled network, :mod:`facekit.faces.visible`."""
    return load_visible(device)


_SPECK = 0.025
"""The share of the crop below which a hole within the face is taken for the network's error.

It may take the shadow about a bare eye for a lens: with earlier weights ten of 41 portraits of the
London Set had such holes, of up to 1.8% but for three. The lenses of nine studio people's glasses
made 3.6% and more.
"""

_DOUBT = 0.2
"""What the network says at most, in the mean over a hole within the face, if it is not in error.

Over the lenses of 14 studio people it said 0.06 and less. Of 40 photos of real faces with such
holes the six above 0.2 were four without glasses and two with; of the 34 below, most had some.
"""


def veil(visible: Sequence[tuple[float, Floats]]) -> Floats:
    """How much of the new face may be shown at each pixel, float32 (S, S) in [0, 1].

    The mean over some frames of one run, so that the network's doubts do not flicker; then doubts
    are settled towards either side, since half a hand is never seen.

    Args:
        visible: of each frame its weight, and where the face is bare, float32 (S, S) in [0, 1].
    """
    weights = np.array([weight for weight, _ in visible], np.float32)
    mean = np.einsum("n,nij->ij", weights / weights.sum(), np.stack([bare for _, bare in visible]))
    settled = _without_specks(np.clip((mean - 0.25) / 0.5, 0, 1), mean)
    soft = cv2.GaussianBlur(settled, (0, 0), 0.008 * len(mean))
    return np.asarray(soft * soft * (3 - 2 * soft), np.float32)


def _without_specks(bare: Floats, said: Floats) -> Floats:
    """A map float32 (S, S) in [0, 1] whose small and doubtful holes are filled, with their edges.

    Args:
        bare: the map.
        said: what the network said, of the same shape: near 0 where it is sure of a hole.
    """
    covered = (bare < 0.5).astype(np.uint8)
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(covered, connectivity=4)
    side = len(bare)
    inner = (boxes[:, :2] > 0).all(1) & (boxes[:, :2] + boxes[:, 2:4] < side).all(1)
    areas = boxes[:, cv2.CC_STAT_AREA]
    doubt = np.bincount(labels.ravel(), said.ravel(), len(areas)) / np.maximum(areas, 1)
    wrong = inner & ((areas < _SPECK * side**2) | (doubt > _DOUBT))
    wrong[0] = False  # where the face is bare
    specks = cv2.dilate(wrong[labels].astype(np.uint8), np.ones((5, 5), np.uint8))
    return np.asarray(np.where(specks > 0, np.float32(1), bare), np.float32)
