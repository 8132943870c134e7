"""A GAN's discriminator as a detector: what learned by judging one generator's samples judges more.

Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, for the idea that the judge of the
game tells real from generated; Radford, Metz & Chintala, "Unsupervised Representation Learning with
Deep Convolutional Generative Adversarial Networks", ICLR 2016 (arXiv:1511.06434), section 5, for
using what it has learned elsewhere. At the end of a good game it is no detector by itself: then it
can no longer tell its opponent's samples. So it is a start, and trained on.

The network is :class:`facekit.networks.discriminator.Discriminator`. Its weights come as a file
that ``facekit generator discriminator RUN`` writes; the detectors know no generator. Without one it
is trained from noise.
"""

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from detectors.data import Faces
from detectors.train import Training
from facekit.core import checkpoint
from facekit.core.config import Config as BaseConfig
from facekit.core.errors import FacekitError
from facekit.networks.discriminator import Discriminator


class Config(BaseConfig):
    """Settings.

    Attributes:
        data: the faces it sees; their size is a power of two.
        training: how long and how fast it learns.
        width: channels at full resolution, as the file's weights have it.
        patch: side of the squares of pixels that it looks at as one, as the file's weights have it.
        weights: a file of ``facekit generator discriminator``, read when training begins; "" for
            none.
    """

    data: Faces = Faces(size=64)
    training: Training = Training()
    width: int = Field(24, ge=4, le=256)
    patch: Literal[1, 2] = 1
    weights: str = ""

    @field_validator("data")
    @classmethod
    def _power_of_two(cls, data: Faces) -> Faces:
        if data.size & (data.size - 1):
            raise PydanticCustomError("size", "size must be a power of two: 32, 64, 128 or 256")
        return data


class Judge(nn.Module):
    """(B, 3, S, S) in [-1, 1] to logits (B,), greater for generated: D's, negated."""

    def __init__(self, size: int, width: int, patch: int = 1) -> None:
        """With fresh weights."""
        super().__init__()
        self.discriminator = Discriminator(size, width, patch=patch)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, before calibration."""
        logits: Tensor = -self.discriminator(images)
        return logits


def network(config: Config) -> Judge:
    """The detector, with fresh weights from torch's current random state."""
    return Judge(config.data.size, config.width, config.patch)


def begin(network: Judge, config: Config) -> None:
    """Give the network the weights that the config names, if it names any.

    Raises:
        FacekitError: if the file is none of a discriminator, or of another architecture.
    """
    if not config.weights:
        return
    path = Path(config.weights)
    state = checkpoint.load(path)
    if not {"size", "width", "discriminator"} <= state.keys():
        raise FacekitError(
            f"{path}: not a discriminator's weights; give a file that 'facekit generator "
            "discriminator' wrote"
        )
    own = {"size": config.data.size, "width": config.width, "patch": config.patch}
    theirs = {"patch": 1} | {key: state[key] for key in own if key in state}
    if own != theirs:
        raise FacekitError(
            f"{path}: of another architecture (size {theirs['size']}, width {theirs['width']}, "
            f"patch {theirs['patch']}; the config says {own['size']}, {own['width']}, "
            f"{own['patch']}); --set data.size={theirs['size']} --set width={theirs['width']} "
            f"--set patch={theirs['patch']}"
        )
    if not all(bool(torch.isfinite(value).all()) for value in state["discriminator"].values()):
        raise FacekitError(f"{path}: holds weights that are no numbers; its training went wrong")
    try:
        network.discriminator.load_state_dict(state["discriminator"])
    except RuntimeError as error:
        raise FacekitError(
            f"{path}: its weights are of another version of the discriminator; train it anew"
        ) from error
