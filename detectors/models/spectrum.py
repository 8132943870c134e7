"""Statistics of frequencies and of noise, and logistic regression on them.

By default the azimuthally averaged power spectrum alone, as Durall, Keuper & Keuper, "Watch your
Up-Convolution: CNN Based Generative Deep Neural Networks are Failing to Reproduce Spectral
Distributions", CVPR 2020 (arXiv:2003.01826), classify it. ``features`` adds others; they and their
papers are those of ``detectors/models/_traces.py``. Written anew from the papers; the classifier is
scikit-learn's logistic regression. No weights of others are used.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from detectors.data import Labels
from detectors.models import _linear
from detectors.models._traces import Name, Traces

Names = Annotated[list[Name], Field(min_length=1, max_length=3)]
"""Which of the statistics; naming one twice changes nothing but the penalty."""


class Config(_linear.Config):
    """Settings.

    Attributes:
        features: ``spectrum``, ``dct`` and ``cooccurrence``, or some of them.
    """

    features: Names = Field(["spectrum"])


class Spectrum(nn.Module):
    """(B, 3, S, S) in [-1, 1] to logits (B,), float64."""

    def __init__(self, size: int, names: Sequence[Name] = ("spectrum",)) -> None:
        """For pictures of one size."""
        super().__init__()
        self.traces = Traces(names, size)
        self.linear = _linear.Linear(self.traces.count)

    def features(self, images: Tensor) -> Tensor:
        """The statistics of each picture: (B, F), float64."""
        features: Tensor = self.traces(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Logits, before calibration."""
        logits: Tensor = self.linear(self.features(images))
        return logits


def network(config: Config) -> nn.Module:
    """The detector, not fitted yet."""
    return Spectrum(config.data.size, config.features)


def fit(network: Spectrum, images: Tensor, labels: Labels, config: Config) -> None:
    """Fit on all training pictures at once: (N, 3, S, S) in [-1, 1], labels (N,)."""
    network.linear.fit(network.traces.of_many(images), labels, config.regularisation)
