"""Azimuthally averaged power spectrum, and logistic regression on it.

Durall, Keuper & Keuper, "Watch your Up-Convolution: CNN Based Generative Deep Neural Networks are
Failing to Reproduce Spectral Distributions", CVPR 2020 (arXiv:2003.01826), sections 3 and 5:
generators' up-sampling leaves too much or too little power at high frequencies. Written anew from
the paper; the classifier is scikit-learn's logistic regression. Here the spectrum is that of luma
under a Hann window (the picture's own borders would otherwise dominate the high frequencies) and
is taken in decibels. No weights of others are used.
"""

import torch
from torch import Tensor, nn

from detectors.data import Labels
from detectors.models._linear import Config, Linear

_LUMA = (0.299, 0.587, 0.114)  # BT.601


class Spectrum(nn.Module):
    """(B, 3, S, S) in [-1, 1] to logits (B,), float64."""

    window: Tensor
    rings: Tensor
    luma: Tensor

    def __init__(self, size: int) -> None:
        """For pictures of one size; there are ``size // 2`` rings, each a cycle wide."""
        super().__init__()
        hann = torch.hann_window(size, periodic=False, dtype=torch.float64)
        cycles = torch.fft.fftfreq(size, d=1 / size, dtype=torch.float64)
        radius = torch.hypot(cycles[:, None], cycles[None, :]).round().flatten()
        # The mean over each ring as one matrix product; corners beyond Nyquist are left out.
        rings = (radius[:, None] == torch.arange(1, size // 2 + 1)).double()
        # These follow from the size, so they are no part of the saved weights.
        self.register_buffer("window", hann[:, None] * hann[None, :], persistent=False)
        self.register_buffer("rings", rings / rings.sum(0), persistent=False)
        luma = torch.tensor(_LUMA, dtype=torch.float64)
        self.register_buffer("luma", luma, persistent=False)
        self.linear = Linear(size // 2)

    def features(self, images: Tensor) -> Tensor:
        """Mean power at 1 … S/2 cycles a picture, in dB: (B, S // 2), float64."""
        luma = torch.einsum("bchw,c->bhw", images.double(), self.luma)
        luma = luma - luma.mean((1, 2), keepdim=True)
        power = torch.fft.fft2(luma * self.window).abs().square()
        # The floor lies far below one grey level's power, and keeps a flat picture finite.
        return 10 * torch.log10(power.flatten(1) @ self.rings + 1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, before calibration."""
        logits: Tensor = self.linear(self.features(images))
        return logits


def network(config: Config) -> nn.Module:
    """The detector, not fitted yet."""
    return Spectrum(config.data.size)


def fit(network: Spectrum, images: Tensor, labels: Labels, config: Config) -> None:
    """Fit on all training pictures at once: (N, 3, S, S) in [-1, 1], labels (N,)."""
    network.linear.fit(network.features(images), labels, config.regularisation)
