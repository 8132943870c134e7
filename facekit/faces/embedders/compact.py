"""A small residual network, trained here by ``configs/lessons/identity.yaml``.

The blocks are those of He et al., "Deep Residual Learning for Image Recognition", 2016,
arXiv:1512.03385, with plain (dense) convolutions and few, wide layers, which processors run
fastest. An aligned face has its parts in their places, so the last map is not averaged but summed
with a weight for each place and channel: the global depthwise convolution of Chen et al.,
"MobileFaceNets", 2018, arXiv:1804.07573.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from facekit.core import weights as bundled
from facekit.core.errors import FacekitError
from facekit.faces.embed import in_batches
from facekit.types import Floats, Pixels

TEMPLATE = "arcface"
SIZE = 96
WIDTH = 128
"""Numbers in a vector."""

WEIGHTS = Path(__file__).parents[2] / "weights"


class CompactNet(nn.Module):
    """Aligned faces (B, 3, 96, 96), RGB in [-1, 1] → vectors (B, 128) of any length."""

    def __init__(
        self, channels: Sequence[int] = (64, 128, 256), blocks: Sequence[int] = (1, 2, 1)
    ) -> None:
        """Make a network.

        Args:
            channels: of each stage; a stage has half the resolution of the one before.
            blocks: residual blocks of each stage, besides the convolution that begins it.
        """
        super().__init__()
        # The stem is a 6×6 convolution of stride 4, in the shape that runs fastest.
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), *_convolution(12, channels[0], stride=2)]
        for i, (width, count) in enumerate(zip(channels, blocks, strict=True)):
            if i:
                layers += [nn.AvgPool2d(2), *_convolution(channels[i - 1], width)]
            layers += [_Block(width) for _ in range(count)]
        self.features = nn.Sequential(*layers)
        self.place = nn.Parameter(
            torch.empty(channels[-1], *[SIZE // 2 ** (len(channels) + 1)] * 2)
        )
        nn.init.normal_(self.place, 0, self.place[0].numel() ** -0.5)
        self.vector = nn.Sequential(
            nn.BatchNorm1d(channels[-1]),
            nn.Linear(channels[-1], WIDTH, bias=False),
            nn.BatchNorm1d(WIDTH),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        features: Tensor = self.features(images)
        vectors: Tensor = self.vector((features * self.place).sum((2, 3)))
        return vectors


class Embedder:
    """:class:`CompactNet` with its weights; an :class:`facekit.faces.embed.Embedder`."""

    template = TEMPLATE
    size = SIZE

    def __init__(self, device: torch.device, *, weights: Path | None = None) -> None:
        """Load the network.

        Args:
            device: where to compute.
            weights: safetensors of ``facekit studio teach``; None for the bundled ones.

        Raises:
            FacekitError: if the weights are missing, or not this network's.
        """
        self.licence = "unknown (the user's own file)"
        path = weights
        if path is None:
            path, card = bundled.find(WEIGHTS, "identity")
            self.licence = str(card["licence"])
        self._device = device
        self._network = CompactNet()
        try:
            values = {name: value.float() for name, value in load_file(path).items()}
            self._network.load_state_dict(values)
        except (OSError, SafetensorError) as error:
            raise FacekitError(f"{path}: not readable as safetensors ({error})") from error
        except RuntimeError as error:
            raise FacekitError(
                f"{path}: not weights of the compact identity network; give a file that 'facekit "
                "studio teach lessons/identity' wrote"
            ) from error
        self._network.to(device).to(memory_format=torch.channels_last).eval()

    def embed(self, crops: Pixels) -> Floats:
        """See :class:`facekit.faces.embed.Embedder`."""
        return in_batches(partial(both_ways, self._network), crops, SIZE, self._device, WIDTH)


def both_ways(network: CompactNet, images: Tensor) -> Tensor:
    """The mean of the vectors (B, 128) of images (B, 3, 96, 96) and of their mirror images.

    Of photos of people who were held out, it tells more apart than the images alone.
    """
    seen, mirrored = network(images), network(images.flip(3))
    return F.normalize(seen, dim=1) + F.normalize(mirrored, dim=1)


class _Block(nn.Module):
    """Two convolutions beside a shortcut: (B, width, H, W) → the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolution(width, width), *_convolution(width, width)[:2])

    def forward(self, features: Tensor) -> Tensor:
        """Add what the body finds."""
        total: Tensor = features + self.body(features)
        return total.relu()


def _convolution(before: int, width: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(before, width, 3, stride, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]
