"""A residual network on a window of the picture's own pixels: up-sampling and noise traces.

Tan et al., "Rethinking the Up-Sampling Operations in CNN-based Generative Network for
Generalizable Deepfake Detection", CVPR 2024 (arXiv:2312.10461): the network sees no picture, but
the differences between neighbouring pixels (NPR, equation 4), in which up-sampling shows and faces
hardly do. Written anew; no weights of others are used. Beside them stand the differences' own size,
as a window's noise level tells a pasted part from what is around it, and the window is taken from
the picture as it is, neither turned nor resampled, since resampling would lay its own traces over
those looked for.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from detectors.data import Faces
from detectors.models._residual import Trunk
from detectors.models.small_cnn import neighbouring_pixels
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

    data: Faces = Faces(template="native", size=128)
    training: Training = Training()
    widths: list[int] = Field([32, 64, 128, 192], min_length=1)
    depths: list[int] = Field([1, 1, 2, 1], min_length=1)
    dropout: float = Field(0.2, ge=0, lt=1)


class Patch(nn.Module):
    """(B, 3, S, S) in [-1, 1] to logits (B,)."""

    def __init__(self, widths: list[int], depths: list[int], dropout: float) -> None:
        """Fresh weights."""
        super().__init__()
        self.trunk = Trunk(6, widths, depths)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, before calibration."""
        differences = neighbouring_pixels(images)
        # A hundredth is about one grey level: a flat picture's own noise is not blown up.
        relative = differences / (differences.std((1, 2, 3), keepdim=True) + 0.01)
        seen = torch.cat([relative, (8 * differences).clamp(-2, 2)], dim=1)
        features = self.trunk(seen.contiguous(memory_format=torch.channels_last)).mean((2, 3))
        logits: Tensor = self.head(self.dropout(features))[:, 0]
        return logits


def network(config: Config) -> nn.Module:
    """The detector, with fresh weights from torch's current random state."""
    return Patch(config.widths, config.depths, config.dropout)
