"""The fixed features that sets of faces are compared by.

They come from two networks that the project brings along anyway: the landmark network's trunk
(:mod:`facekit.faces.landmarks`) at two depths, and the last map of the network that MTCNN judges
faces by (Zhang et al. 2016; facenet-pytorch's weights, learned from photographs). The first see
grain, sharpness and compression, the last sees who is there and how. Pooling keeps what is there
and drops where exactly, as the last layer of Inception does. Each map's part is brought to one
length, so that none outweighs the others.

So a KID or FID on them does NOT compare with any on Inception's features, which are other numbers
of another network; the name says so wherever it is printed. How they were chosen, and what they are
worth as a meter: ``docs/generator_metrics.md``.
"""

import hashlib
from typing import Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from facekit.adversary.metrics._inputs import check_images
from facekit.core import weights as bundled
from facekit.faces.landmarks import WEIGHTS, LandmarkNet
from facekit.faces.locators._mtcnn import Judge, load_state

LEAST_SIDE = 32
"""Of the images, in pixels."""

# The sides of what the two networks see. The second was made for 48 pixels, but then it hardly
# sees noise, blur or compression of images of 64.
_LANDMARKS_SIDE, _JUDGE_SIDE = 128, 96
_AT_ONCE = 64


class Features(Protocol):
    """Images to vectors.

    Attributes:
        name: printed beside every number that rests on the features.
        sha256: of the networks' weights.
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


class FaceFeatures:
    """:class:`Features` of the landmark network and of MTCNN's last network."""

    name = "facekit-faces-1 (not Inception)"

    def __init__(self, device: torch.device) -> None:
        """Load the networks.

        Args:
            device: where to compute; images must lie there.

        Raises:
            FacekitError: if the bundled weights are damaged.
        """
        path, _ = bundled.find(WEIGHTS, "landmarks")
        net = LandmarkNet(folded=True)
        net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
        # Convolutions only: they take images of any size.
        judge = Judge(load_state("onet"), (3, 3, 2)).convolutions
        self._parts = nn.ModuleList([net.stem, net.fine, net.middle, judge])
        self._parts.eval().requires_grad_(False)
        self.sha256 = _digest(self._parts)
        self._parts.to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """See :class:`Features`."""
        check_images(LEAST_SIDE, images=images)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            parts = [
                torch.cat([_pooled(found) for found in self.maps(part)], 1)
                for part in torch.split(images, _AT_ONCE)
            ]
            return torch.cat(parts)

    def maps(self, images: Tensor) -> list[Tensor]:
        """What is found, (B, C, H, W) three times; it can be differentiated."""
        stem, fine, middle, judge = self._parts
        first = fine(stem(_resized(images, _LANDMARKS_SIDE)))
        return [first, middle(first), judge(_resized(images, _JUDGE_SIDE))]


def load_features(device: torch.device) -> FaceFeatures:
    """The features that this project compares faces by.

    Args:
        device: where to compute; images must lie there.

    Raises:
        FacekitError: if the bundled weights are damaged.
    """
    return FaceFeatures(device)


def _resized(images: Tensor, side: int) -> Tensor:
    images = images.float()
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True)


def _pooled(found: Tensor) -> Tensor:
    """The means and deviations (B, 2 · C) of maps (B, C, H, W), of length √(2 · C)."""
    mean = found.mean((2, 3))
    variance = (found - mean[..., None, None]).square().mean((2, 3))
    pooled = torch.cat([mean, variance.sqrt()], 1)
    length: float = pooled.shape[1] ** 0.5
    return F.normalize(pooled, dim=1) * length


def _digest(parts: nn.Module) -> str:
    """SHA-256 of all tensors, in hex."""
    digest = hashlib.sha256()
    for name, value in parts.state_dict().items():
        digest.update(name.encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
