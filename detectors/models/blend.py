"""A residual network on the whole face that looks for what was laid over it.

Shiohara & Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022 (arXiv:2204.08376):
trained on faces laid over themselves (``detectors.forgeries``), it finds blending and the
disagreement of the two parts, and not one generator's fingerprint. Written anew; the paper's
network is an EfficientNet-B4 from ImageNet, this one is small enough to learn from scratch. It
sees the face aligned, in colour, and beside it what is left when its broad tones are taken away
(Fridrich & Kodovský, "Rich Models for Steganalysis of Digital Images", 2012, on such residuals).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from detectors.data import Faces
from detectors.models._residual import Layers, Localiser
from detectors.models._residual import objective as objective
from detectors.train import Training


class Config(Layers):
    """Settings; those of the layers beside them.

    Attributes:
        data: the faces it sees.
        training: how long and how fast it learns.
    """

    data: Faces = Faces(template="wide", size=160)
    training: Training = Training()


class Blend(Localiser):
    """(B, 3, S, S) in [-1, 1] to logits (B,)."""

    def seen(self, images: Tensor) -> Tensor:
        """The face, and its fine detail: (B, 6, S, S)."""
        fine = images - F.avg_pool2d(images, 5, 1, 2, count_include_pad=False)
        return torch.cat([images, (6 * fine).clamp(-2, 2)], dim=1)


def network(config: Config) -> Blend:
    """The detector, with fresh weights from torch's current random state."""
    return Blend(6, config)
