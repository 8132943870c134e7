"""The fixed features that sets of faces are compared by.

They come from the bundled landmark network (:mod:`facekit.faces.landmarks`): what its trunk finds
at four depths, pooled. Pooling keeps what is there and drops where exactly, as the last layer of
Inception does; several depths see noise and sharpness as well as who is shown and how. At each
depth a vector is brought to one length, so that none outweighs the others.

So a KID or FID on them does NOT compare with any on Inception's features, which are other numbers
of another network; the name says so wherever it is printed. How they were chosen, and what they are
worth as a meter: ``docs/generator_metrics.md``.
"""

from typing import Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from facekit.adversary.metrics._inputs import check_images
from facekit.core import weights as bundled
from facekit.faces.landmarks import WEIGHTS, LandmarkNet

LEAST_SIDE = 32
"""Of the images, in pixels."""

_SIDE = 128  # that the network sees
_AT_ONCE = 64


class Features(Protocol):
    """Images to vectors.

    Attributes:
        name: printed beside every number that rests on the features.
        sha256: of the network's weights.
    """

    name: str
    sha256: str

    def __call__(self, images: Tensor) -> Tensor:
        """Describe images.

        Args:
            images: (B, 3, S, S), RGB in [-1, 1], any S ≥ 32; B may be 0.

        Returns:
            float32 (B, F), on the images' device, without a gradient. A row depends on its own
            image alone.

        Raises:
            FacekitError: for other shapes or values.
        """


class LandmarkFeatures:
    """:class:`Features` of the landmark network's trunk."""

    name = "facekit-landmarks-1 (not Inception)"

    def __init__(self, device: torch.device) -> None:
        """Load the network.

        Args:
            device: where to compute; images must lie there.

        Raises:
            FacekitError: if the bundled weights are damaged.
        """
        path, card = bundled.find(WEIGHTS, "landmarks")
        self.sha256 = str(card["sha256"])
        net = LandmarkNet(folded=True)
        net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
        self._net = net.eval().requires_grad_(False).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """See :class:`Features`."""
        check_images(LEAST_SIDE, images=images)
        with torch.no_grad():
            parts = [
                torch.cat([_pooled(found) for found in self.maps(part)], 1)
                for part in torch.split(images, _AT_ONCE)
            ]
            return torch.cat(parts)

    def maps(self, images: Tensor) -> list[Tensor]:
        """What the trunk finds, (B, C, H, W) at each depth; it can be differentiated."""
        images = images.float()
        if images.shape[2:] != (_SIDE, _SIDE):
            images = F.interpolate(images, (_SIDE, _SIDE), mode="bilinear", antialias=True)
        first = self._net.stem[0](images)
        fine = self._net.fine(self._net.stem[1](first))
        middle = self._net.middle(fine)
        return [first, fine, middle, self._net.coarse(middle)]


def load_features(device: torch.device) -> LandmarkFeatures:
    """The features that this project compares faces by.

    Args:
        device: where to compute; images must lie there.

    Raises:
        FacekitError: if the bundled weights are damaged.
    """
    return LandmarkFeatures(device)


def _pooled(found: Tensor) -> Tensor:
    """The means and deviations (B, 2 · C) of maps (B, C, H, W), of length √(2 · C)."""
    mean = found.mean((2, 3))
    variance = (found - mean[..., None, None]).square().mean((2, 3))
    pooled = torch.cat([mean, variance.sqrt()], 1)
    length: float = pooled.shape[1] ** 0.5
    return F.normalize(pooled, dim=1) * length
