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


def veil(visible: Sequence[tuple[float, Floats]]) -> Floats:
    """How much of the new face may be shown at each pixel, float32 (S, S) in [0, 1].

    The mean over some frames of one run, so that the network's doubts do not flicker; then doubts
    are settled towards either side, since half a hand is never seen.

    Args:
        visible: of each frame its weight, and where the face is bare, float32 (S, S) in [0, 1].
    """
    weights = np.array([weight for weight, _ in visible], np.float32)
    mean = np.einsum("n,nij->ij", weights / weights.sum(), np.stack([bare for _, bare in visible]))
    settled = np.clip((mean - 0.25) / 0.5, 0, 1)
    soft = cv2.GaussianBlur(settled, (0, 0), 0.008 * len(mean))
    return np.asarray(soft * soft * (3 - 2 * soft), np.float32)
