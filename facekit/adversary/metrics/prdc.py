"""Precision, recall, density and coverage: fidelity and diversity, apart.

Papers: Kynkäänniemi, Karras, Laine, Lehtinen, Aila, "Improved Precision and Recall Metric for
Assessing Generative Models", NeurIPS 2019, arXiv:1904.06991; Naeem, Oh, Uh, Choi, Yoo, "Reliable
Fidelity and Diversity Metrics for Generative Models", ICML 2020, arXiv:2002.09797.

About each sample lies a ball that reaches to its k-th neighbour in its own set.

- precision: the share of fakes in the ball of some real;
- recall: the share of reals in the ball of some fake;
- density: in how many balls of reals a fake lies, over k: about 1 for a perfect generator, and
  not bounded by it;
- coverage: the share of reals with a fake in their ball.

An outlier among the reals has a huge ball and makes precision kind; density and coverage mind it
less. All depend on N and M: compare values of equal counts only, beside those of reals against
reals.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from facekit.adversary.metrics._inputs import check_features

_ROWS = 1024


class PRDC(NamedTuple):
    """The four measures; all but ``density`` in [0, 1]."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: Tensor, fake: Tensor, k: int = 5) -> PRDC:
    """Compare two sets.

    Args:
        real: (N, F), N > k.
        fake: (M, F), M > k, on the same device.
        k: neighbours that a ball reaches to, ≥ 1. Kynkäänniemi et al. take 3, Naeem et al. 5.

    Raises:
        FacekitError: for no more samples than neighbours, or features that cannot be compared.
    """
    if k < 1:
        raise ValueError(f"k is {k}; a ball reaches to at least 1 neighbour")
    check_features(k + 1, real=real, fake=fake)
    # Products of centred features lose the least in the distances below.
    centre = real.mean(0)
    real, fake = real - centre, fake - centre
    real_reach, fake_reach = _reach(real, k), _reach(fake, k)
    in_reals = torch.zeros(len(fake), device=fake.device)
    recalled, covered = [], []
    for rows, reach in zip(torch.split(real, _ROWS), torch.split(real_reach, _ROWS), strict=True):
        distances = torch.cdist(rows, fake)
        in_reals += (distances < reach[:, None]).sum(0)
        recalled.append((distances < fake_reach).any(1))
        covered.append(distances.amin(1) < reach)
    means = torch.stack(
        [
            (in_reals > 0).float().mean(),
            torch.cat(recalled).float().mean(),
            in_reals.mean() / k,
            torch.cat(covered).float().mean(),
        ]
    )
    return PRDC(*means.tolist())


def _reach(features: Tensor, k: int) -> Tensor:
    """The distance (N,) of each sample to its k-th neighbour among the others."""
    # The nearest of all is the sample itself.
    return torch.cat(
        [
            torch.cdist(rows, features).kthvalue(k + 1, dim=1).values
            for rows in torch.split(features, _ROWS)
        ]
    )
