"""The trunk that several detectors share: a compact residual network for small crops.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, with averaging in the short
cuts (He et al., "Bag of Tricks for Image Classification", CVPR 2019, "ResNet-D"). The stem turns
each 4×4 neighbourhood into more channels than its new pixels hold, so that halving the resolution
there loses nothing; nothing is pooled before the last layer.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from detectors.data import Batch
from detectors.score import to_tensor
from facekit.core.config import Config

_MASK_WEIGHT = 1.0  # of the cells' loss beside the picture's


class Layers(Config):
    """How large the network is.

    Attributes:
        widths: channels of each of the four stages; every stage halves the resolution.
        depths: blocks of each stage.
        dropout: share of the last features dropped in training.
    """

    widths: list[Annotated[int, Field(ge=4, le=512)]] = Field(
        [32, 64, 128, 192], min_length=4, max_length=4
    )
    depths: list[Annotated[int, Field(ge=1, le=8)]] = Field(
        [1, 1, 2, 1], min_length=4, max_length=4
    )
    dropout: float = Field(0.2, ge=0, lt=1)


class Block(nn.Module):
    """Two convolutions beside a short cut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """The first convolution has the stride."""
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.short: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.short = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ⌈H / stride⌉, ⌈W / stride⌉)."""
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.short(x))


class Trunk(nn.Module):
    """(B, channels, S, S) to features (B, widths[-1], S / 2 ** len(widths), …)."""

    def __init__(self, channels: int, widths: Sequence[int], depths: Sequence[int]) -> None:
        """A stage for each width, of as many blocks as its depth; each but the first halves."""
        super().__init__()
        self.stem = nn.Conv2d(channels, widths[0], 4, 2, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(widths[0])
        blocks = [Block(widths[0], widths[0], 1) for _ in range(depths[0])]
        for (before, width), depth in zip(pairwise(widths), depths[1:], strict=True):
            blocks += [Block(before, width, 2)]
            blocks += [Block(width, width, 1) for _ in range(depth - 1)]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """The last features, before any pooling."""
        features: Tensor = self.blocks(F.relu(self.stem_norm(self.stem(x))))
        return features


class Localiser(nn.Module):
    """Says of a picture whether it was generated, and of each cell how much was laid over.

    The cells' part is Li et al.'s idea, "Face X-ray for More General Face Forgery Detection", CVPR
    2020 (arXiv:1912.13458): whoever must say where has to look at what is there, and learns from
    far fewer pictures. Half of the features that judge the picture are means over it, half are its
    strongest places, as a small part may be all that was changed.
    """

    def __init__(self, channels: int, layers: Layers) -> None:
        """For inputs of ``channels``; fresh weights."""
        super().__init__()
        self.trunk = Trunk(channels, layers.widths, layers.depths)
        self.cells = nn.Conv2d(layers.widths[-1], 1, 1)
        self.dropout = nn.Dropout(layers.dropout)
        self.head = nn.Linear(2 * layers.widths[-1] + 2, 1)

    def seen(self, images: Tensor) -> Tensor:
        """What the trunk looks at: (B, channels, S, S) of images (B, 3, S, S) in [-1, 1]."""
        raise TypeError("a Localiser is subclassed by what it looks at")

    def forward(
        self, images: Tensor, *, with_cells: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (B,), before calibration; ``with_cells``: and those of the cells (B, C, C)."""
        seen = self.seen(images).contiguous(memory_format=torch.channels_last)
        features = self.trunk(seen)
        cells = self.cells(features)[:, 0]
        pooled = torch.cat(
            [
                features.mean((2, 3)),
                features.amax((2, 3)),
                cells.mean((1, 2))[:, None],
                cells.amax((1, 2))[:, None],
            ],
            dim=1,
        )
        logits: Tensor = self.head(self.dropout(pooled))[:, 0]
        return (logits, cells) if with_cells else logits


def objective(model: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """Log loss of the pictures, and of their cells."""
    logits, cells = model(to_tensor(batch.images, device), with_cells=True)
    target = torch.from_numpy(batch.labels).to(device).float()
    masks = torch.from_numpy(batch.masks).to(device)
    whole = F.binary_cross_entropy_with_logits(logits.float(), target)
    local = F.binary_cross_entropy_with_logits(cells.float(), masks)
    return whole + _MASK_WEIGHT * local
