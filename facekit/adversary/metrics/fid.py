"""Fréchet inception distance: two sets of features, each taken to be one Gaussian.

Paper: Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter, "GANs Trained by a Two Time-Scale Update
Rule Converge to a Local Nash Equilibrium", NeurIPS 2017, arXiv:1706.08500:

    ‖μ₁ - μ₂‖² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½)

It is biased: two samples of one source are the farther apart the fewer they are, and the bias
depends on the source (Chong & Forsyth, 2020, arXiv:1911.07023). So compare values of equal N only,
beside that of reals against reals; :mod:`.kid` has no such bias.
"""

import torch
from torch import Tensor

from facekit.adversary.metrics._inputs import check_features


def fid(real: Tensor, fake: Tensor) -> float:
    """The distance between two sets, ≥ 0, in the square of the features' unit.

    Args:
        real: (N, F), N ≥ 2.
        fake: (M, F), M ≥ 2, on the same device.

    Raises:
        FacekitError: for too few samples, or features that cannot be compared.
    """
    check_features(2, real=real, fake=fake)
    mean_real, covariance_real = _moments(real)
    mean_fake, covariance_fake = _moments(fake)
    root = _root(covariance_real)
    # Σ₁ Σ₂ has the eigenvalues of the symmetric Σ₁^½ Σ₂ Σ₁^½, which stay exact where both are
    # singular: with fewer samples than numbers in a feature they always are.
    common = torch.linalg.eigvalsh(root @ covariance_fake @ root).clamp(min=0).sqrt().sum()
    apart = (mean_real - mean_fake).square().sum()
    return max(0.0, float(apart + covariance_real.trace() + covariance_fake.trace() - 2 * common))


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (F,) and the covariance (F, F), in float64 on the host.

    Sums over the samples are the device's work; the roots of two small matrices are not.
    """
    mean = features.mean(0)
    centred = features - mean
    covariance = centred.T @ centred / (len(features) - 1)
    return mean.cpu().double(), covariance.cpu().double()


def _root(matrix: Tensor) -> Tensor:
    """The symmetric root of a covariance."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
