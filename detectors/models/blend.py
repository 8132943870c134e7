"""A residual network on the whole face that looks for what was laid over it.

Shiohara & Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022 (arXiv:2204.08376):
trained on faces laid over themselves (``detectors.forgeries``), it finds blending and the
disagreement of the two parts, and not one generator's fingerprint. Written anew; the paper's
network is an EfficientNet-B4 from ImageNet, this one is small enough to learn from scratch. It sees
the face aligned, in colour, and beside it what is left when its broad tones are taken away (Fridrich
& Kodovský, "Rich Models for Steganalysis of Digital Images", 2012, on such residuals). Half of its
features are means over the face, half are its strongest places, as a small part may be all that was
changed.
"""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from detectors.data import Faces
from detectors.models._residual import Trunk
from detectors.train import Training
from facekit.core.config import Config as BaseConfig


class Config(BaseConfig):
    """Settings.

    Attributes:
        data: the faces it sees.
        training: how long and how fast it learns.
        widths: channels of each stage; every stage halves the resolution.
        depths: blocks of each stage.
        dropout: share of the last features dropped in training.
    """

    data: Faces = Faces(template="wide", size=192)
    training: Training = Training()
    widths: list[int] = Field([32, 64, 128, 192], min_length=1)
    depths: list[int] = Field([1, 1, 2, 2], min_length=1)
    dropout: float = Field(0.2, ge=0, lt=1)


class Blend(nn.Module):
    """(B, 3, S, S) in [-1, 1] to logits (B,)."""

    def __init__(self, widths: list[int], depths: list[int], dropout: float) -> None:
        """Fresh weights."""
        super().__init__()
        self.trunk = Trunk(6, widths, depths)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, before calibration."""
        fine = images - F.avg_pool2d(images, 5, 1, 2, count_include_pad=False)
        seen = torch.cat([images, (6 * fine).clamp(-2, 2)], dim=1)
        features = self.trunk(seen.contiguous(memory_format=torch.channels_last))
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)
        logits: Tensor = self.head(self.dropout(pooled))[:, 0]
        return logits


def network(config: Config) -> nn.Module:
    """The detector, with fresh weights from torch's current random state."""
    return Blend(config.widths, config.depths, config.dropout)
