"""Who is it? Aligned faces to vectors that are near for one person and apart for two."""

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facekit.core import registry
from facekit.core.errors import FacekitError
from facekit.types import Floats, Pixels

log = logging.getLogger("facekit")

_PACKAGE = "facekit.faces.embedders"
_FREE = "Apache-2.0"
_AT_ONCE = 64


class Embedder(Protocol):
    """A network of identity.

    Attributes:
        template: of :mod:`facekit.faces.align`, to which its crops are aligned.
        size: side S of its crops, in pixels.
        licence: of its weights.
    """

    template: str
    size: int
    licence: str

    def embed(self, crops: Pixels) -> Floats:
        """Say who is shown.

        Args:
            crops: uint8 RGB (N, S, S, 3), aligned to ``template``; N may be 0.

        Returns:
            float32 (N, D), of length 1: their products are cosines, 1 for the same picture, high
            for one person, about 0 for two. A row does not depend on the other crops.

        Raises:
            FacekitError: for crops of another shape or type.
        """


def load_embedder(
    device: torch.device, name: str = "compact", *, weights: Path | None = None
) -> Embedder:
    """Set up an identity network; a licence of its weights that binds the user is logged.

    Args:
        device: where to compute.
        name: a file of :mod:`facekit.faces.embedders`.
        weights: a file of the user's; None for the weights that come with the network.

    Raises:
        FacekitError: for an unknown name, or weights that are missing or not the network's.
    """
    embedder: Embedder = registry.load(_PACKAGE, name).Embedder(device, weights=weights)
    if embedder.licence != _FREE:
        _tell(name, embedder.licence)
    return embedder


@cache
def _tell(name: str, licence: str) -> None:
    """Say it once: a command may set the network up for each of its files."""
    log.info("identity network %s: the licence of its weights is: %s", name, licence)


def names() -> list[str]:
    """The names of all identity networks, without importing them."""
    return registry.names(_PACKAGE)


def in_batches(
    network: Callable[[Tensor], Tensor],
    crops: NDArray[np.uint8],
    size: int,
    device: torch.device,
    width: int,
) -> Floats:
    """Run a network over crops, some at a time; what every :class:`Embedder` is made of.

    Args:
        network: from float32 (B, 3, S, S), RGB in [-1, 1], to vectors (B, D) of any length.
        crops: uint8 (N, S, S, 3).
        size: S.
        device: of the network.
        width: D.

    Returns:
        float32 (N, D), of length 1.

    Raises:
        FacekitError: for crops of another shape or type.
    """
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (size, size, 3):
        raise FacekitError(
            f"crops of faces are {crops.dtype} {crops.shape}; this identity network takes uint8 "
            f"(N, {size}, {size}, 3)"
        )
    if not len(crops):
        return np.zeros((0, width), np.float32)
    found = []
    with torch.inference_mode():
        for start in range(0, len(crops), _AT_ONCE):
            part = torch.from_numpy(np.ascontiguousarray(crops[start : start + _AT_ONCE]))
            # The crops' own order of axes is "channels last", which networks run fastest on.
            images = part.to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
            found.append(torch.nn.functional.normalize(network(images).float(), dim=1))
        return np.asarray(torch.cat(found).cpu().numpy(), np.float32)
