"""A small residual network, trained here by ``configs/lessons/identity.yaml``.

The blocks are those of He et al., "Deep Residual Learning for Image Recognition", 2016,
arXiv:1512.03385, with plain (dense) convolutions and few, wide layers, which processors run
fastest. The map of the last features is read whole, not averaged: an aligned face has its parts in
their places (as in Deng et al., "ArcFace", 2019, arXiv:1801.07698, "option E").
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from facekit.core import weights as bundled
from facekit.core.errors import FacekitError
from facekit.faces.embed import in_batches
from facekit.types import Floats, Pixels

TEMPLATE = "arcface"
SIZE = 112
WIDTH = 128
"""Numbers in a vector."""

WEIGHTS = Path(__file__).parents[2] / "weights"


class CompactNet(nn.Module):
    """Aligned faces (B, 3, 112, 112), RGB in [-1, 1] → vectors (B, 128) of any length."""

    def __init__(
        self, channels: tuple[int, ...] = (48, 96, 192), blocks: tuple[int, ...] = (1, 3, 2)
    ):
        super().__init__()
        stages: list[nn.Module] = [
            nn.Conv2d(3, channels[0], 7, 4, 3, bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.PReLU(channels[0]),
        ]
        before = channels[0]
        for i, (width, count) in enumerate(zip(channels, blocks, strict=True)):
            for j in range(count):
                stages.append(_Block(before, width, 2 if i and not j else 1))
                before = width
        self.features = nn.Sequential(*stages)
        side = SIZE // 4 // 2 ** (len(channels) - 1)
        self.head = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Flatten(),
            nn.Linear(before * side**2, WIDTH, bias=False),
            nn.BatchNorm1d(WIDTH),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        vectors: Tensor = self.head(self.features(images))
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
        return in_batches(self._network, crops, SIZE, self._device, WIDTH)


class _Block(nn.Module):
    """Two convolutions beside a shortcut: (B, before, H, W) → (B, width, H / stride, W / stride).

    As ArcFace has it, a batch norm goes first and nothing follows the sum.
    """

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1 and before == width
            else nn.Sequential(
                nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )
        )

    def forward(self, features: Tensor) -> Tensor:
        """Add what the body finds."""
        total: Tensor = self.body(features) + self.shortcut(features)
        return total
