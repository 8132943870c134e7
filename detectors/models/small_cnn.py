"""A small residual network that looks at a face crop's own pixels.

Two ideas, written anew from their papers; no weights of others are used:

- Tan et al., "Rethinking the Up-Sampling Operations in CNN-based Generative Network for
  Generalizable Deepfake Detection", CVPR 2024 (arXiv:2312.10461): the network sees no picture, but
  the differences between neighbouring pixels (NPR, equation 4), in which up-sampling shows and
  faces hardly do. Here they are divided by their deviation: what counts is how sharp one part of a
  picture is beside another, not how sharp this person, camera or compression is.
- He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, for the trunk. Its stem
  has neither stride nor pooling, which would average such traces away before any filter saw them.

The norms are those of groups (Wu & He, ECCV 2018): no picture's score depends on a batch, and with
few people to learn from they carry over to new ones better than running means of a batch do.
"""

from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from detectors.data import Faces
from detectors.train import Training
from facekit.core.config import Config as BaseConfig

_GROUPS = 4


class Config(BaseConfig):
    """Settings.

    Attributes:
        data: the faces it sees.
        training: how long and how fast it learns.
        widths: channels of each stage, multiples of 4; the stem has the first one's. Every stage
            halves the resolution.
        dropout: share of the last features dropped in training.
    """

    data: Faces = Faces()
    training: Training = Training()
    widths: list[Annotated[int, Field(ge=4, le=512, multiple_of=4)]] = Field(
        [16, 32, 64, 64], min_length=1
    )
    dropout: float = Field(0.2, ge=0, lt=1)


class Block(nn.Module):
    """Two convolutions beside a short cut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """The first convolution has the stride."""
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(_GROUPS, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(_GROUPS, outputs)
        # Averaging, then a 1×1 convolution (He et al. 2019's "ResNet-D"): a 1×1 convolution with
        # a stride would drop three pixels in four, and with fewer than 16 channels its backward
        # pass in torch 2.14 on the CPU writes beyond its memory.
        self.short = nn.Sequential(
            nn.AvgPool2d(stride, ceil_mode=True), nn.Conv2d(inputs, outputs, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ⌈H / stride⌉, ⌈W / stride⌉)."""
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.short(x))


class SmallCNN(nn.Module):
    """(B, 3, S, S) in [-1, 1] to logits (B,)."""

    def __init__(self, widths: list[int], dropout: float) -> None:
        """One residual block a stage."""
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.stem_norm = nn.GroupNorm(_GROUPS, widths[0])
        self.stages = nn.Sequential(*(Block(a, b, 2) for a, b in pairwise([widths[0], *widths])))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, before calibration."""
        x = neighbouring_pixels(images)
        # A hundredth is about one grey level: a flat picture's own noise is not blown up.
        x = x / (x.std((1, 2, 3), keepdim=True) + 0.01)
        x = F.relu(self.stem_norm(self.stem(x)))
        x = self.stages(x).mean((2, 3))
        logits: Tensor = self.head(self.dropout(x))[:, 0]
        return logits


def neighbouring_pixels(images: Tensor) -> Tensor:
    """Each pixel less the top-left one of its 2×2 cell (NPR), of the same shape (B, C, H, W)."""
    height, width = images.shape[2:]
    corners = images[:, :, ::2, ::2]
    corners = corners.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return images - corners[:, :, :height, :width]


def network(config: Config) -> nn.Module:
    """The detector, with fresh weights from torch's current random state."""
    return SmallCNN(config.widths, config.dropout)
