"""MesoInception-4: Meso-4 with its first two convolutions replaced by inception modules.

Afchar, Nozick, Yamagishi & Echizen, "MesoNet: a Compact Facial Video Forgery Detection Network",
WIFS 2018 (arXiv:1809.00888), section III-B: side by side a 1×1 convolution and three 3×3 ones, of
dilations 1, 2 and 3 (Szegedy et al. 2015; Shi et al. 2017). Written anew from the paper; what it
shares with Meso-4 is in ``detectors/models/_meso.py``.
"""

from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn

from detectors.data import Faces
from detectors.models._meso import SIZE, Meso, Reference, convolution, load_keras
from detectors.train import Training
from facekit.core.config import Config as BaseConfig

_FIRST, _SECOND = (1, 4, 4, 2), (2, 4, 4, 2)  # channels of the four branches


class Config(BaseConfig):
    """Settings.

    Attributes:
        data: the faces it sees; 256 pixels in the paper.
        training: how long and how fast it learns.
        dropout: share of features dropped in training, before either layer of the head.
    """

    data: Faces = Faces(size=SIZE)
    training: Training = Training()
    dropout: float = Field(0.5, ge=0, lt=1)


class Inception(nn.Module):
    """(B, inputs, H, W) to (B, sum of ``branches``, H, W)."""

    def __init__(self, inputs: int, branches: tuple[int, int, int, int]) -> None:
        """The branches have dilations 0 (a 1×1 convolution alone), 1, 2 and 3."""
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(convolution(inputs, channels, 1))
            if dilation == 0
            else nn.Sequential(
                convolution(inputs, channels, 1), convolution(channels, channels, 3, dilation)
            )
            for dilation, channels in enumerate(branches)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The branches' channels, one after the other."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def network(config: Config) -> nn.Module:
    """The detector, with fresh weights from torch's current random state."""
    return _meso_inception(config.data.size, config.dropout)


def load_h5(path: Path) -> Reference:
    """The network with the authors' weights (``MesoInception_DF.h5``, ``MesoInception_F2F.h5``).

    Raises:
        FacekitError: if h5py is not installed, or the file does not hold them.
    """
    filled = _meso_inception(SIZE, 0.5)
    convolutions = [layer for layer in filled.modules() if isinstance(layer, nn.Conv2d)]
    return load_keras(filled, convolutions, Path(path), "MesoInception-4")


def _meso_inception(size: int, dropout: float) -> Meso:
    stages = [
        (Inception(3, _FIRST), sum(_FIRST)),
        (Inception(sum(_FIRST), _SECOND), sum(_SECOND)),
        (convolution(sum(_SECOND), 16, 5), 16),
        (convolution(16, 16, 5), 16),
    ]
    return Meso(stages, size, dropout)
