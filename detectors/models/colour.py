"""Mean and deviation of each colour channel, and logistic regression on them.

No paper: this is the floor. A detector that does no better has learnt that one class is redder or
brighter, that is, the collection and not the forgery.
"""

import torch
from torch import Tensor, nn

from detectors.data import Labels
from detectors.models._linear import Config, Linear


class Colour(nn.Module):
    """(B, 3, S, S) in [-1, 1] to logits (B,), float64."""

    def __init__(self) -> None:
        """Six features, whatever the pictures' size."""
        super().__init__()
        self.linear = Linear(6)

    def features(self, images: Tensor) -> Tensor:
        """Mean and deviation of each channel: (B, 6), float64."""
        channels = images.double().flatten(2)
        return torch.cat([channels.mean(2), channels.std(2)], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, before calibration."""
        logits: Tensor = self.linear(self.features(images))
        return logits


def network(config: Config) -> nn.Module:
    """The detector, not fitted yet."""
    return Colour()


def fit(network: Colour, images: Tensor, labels: Labels, config: Config) -> None:
    """Fit on all training pictures at once: (N, 3, S, S) in [-1, 1], labels (N,)."""
    network.linear.fit(network.features(images), labels, config.regularisation)
