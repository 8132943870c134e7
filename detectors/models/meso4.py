"""Meso-4: four convolutions, the reference among small networks for face-swap detection.

Afchar, Nozick, Yamagishi & Echizen, "MesoNet: a Compact Facial Video Forgery Detection Network",
WIFS 2018 (arXiv:1809.00888), section III-A; 28 thousand weights at 256 pixels. Written anew from
the paper; what it shares with MesoInception-4 is in ``detectors/models/_meso.py``.
"""

from pathlib import Path

from pydantic import Field
from torch import nn

from detectors.data import Faces
from detectors.models._meso import SIZE, Meso, Reference, convolution, load_keras
from detectors.train import Training
from facekit.core.config import Config as BaseConfig


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


def network(config: Config) -> nn.Module:
    """The detector, with fresh weights from torch's current random state."""
    return _meso4(config.data.size, config.dropout)


def load_h5(path: Path) -> Reference:
    """The network with the authors' weights (``Meso4_DF.h5``, ``Meso4_F2F.h5``).

    Raises:
        FacekitError: if h5py is not installed, or the file does not hold them.
    """
    filled = _meso4(SIZE, 0.5)
    convolutions = [layer for layer in filled.modules() if isinstance(layer, nn.Conv2d)]
    return load_keras(filled, convolutions, Path(path), "Meso-4")


def _meso4(size: int, dropout: float) -> Meso:
    stages = [
        (convolution(3, 8, 3), 8),
        (convolution(8, 8, 5), 8),
        (convolution(8, 16, 5), 16),
        (convolution(16, 16, 5), 16),
    ]
    return Meso(stages, size, dropout)
