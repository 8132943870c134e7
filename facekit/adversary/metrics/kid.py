"""Kernel inception distance: how far apart two sets of features are, without bias.

Paper: Bińkowski, Sutherland, Arbel, Gretton, "Demystifying MMD GANs", ICLR 2018,
arXiv:1801.01401; the estimator is that of Gretton et al., "A Kernel Two-Sample Test", JMLR 2012.

With the kernel k(x, y) = (x·y / F + 1)³ it is the unbiased estimate of the squared maximum mean
discrepancy: the mean of k over pairs of reals, plus that over pairs of fakes, minus twice that
over real and fake. It is 0 on average for two sets of one source, of whatever size, and may then
be negative.

The usual programs average over random subsets, to save memory. Here every pair counts, a block of
rows at a time: the expectation is the same, the scatter less, and there is no seed. The interval is
the jackknife's, which leaves out each sample in turn (Efron & Stein, "The jackknife estimate of
variance", 1981): exact to compute from the kernel's row sums, and on the wide side for sets of one
source.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from facekit.adversary.metrics._inputs import check_features

_ROWS = 1024


class Estimate(NamedTuple):
    """A number, and the interval that covers it 95 times of 100 were the samples drawn anew."""

    value: float
    low: float
    high: float


def kid(real: Tensor, fake: Tensor) -> Estimate:
    """The distance between two sets, and its interval.

    Args:
        real: (N, F), N ≥ 3.
        fake: (M, F), M ≥ 3, on the same device.

    Returns:
        The squared discrepancy, in the units of the features' kernel. Programs that print it per
        mille or per cent multiply it.

    Raises:
        FacekitError: for too few samples, or features that cannot be compared.
    """
    check_features(3, real=real, fake=fake)
    n, m = len(real), len(fake)
    within_real, within_fake = _row_sums(real, real, True), _row_sums(fake, fake, True)
    across_real, across_fake = _row_sums(real, fake, False), _row_sums(fake, real, False)
    a, b, c = (float(sums.sum()) for sums in (within_real, within_fake, across_real))
    value = a / (n * (n - 1)) + b / (m * (m - 1)) - 2 * c / (n * m)
    # The same without each real, and without each fake.
    without_real = (
        (a - 2 * within_real) / ((n - 1) * (n - 2))
        + b / (m * (m - 1))
        - 2 * (c - across_real) / ((n - 1) * m)
    )
    without_fake = (
        a / (n * (n - 1))
        + (b - 2 * within_fake) / ((m - 1) * (m - 2))
        - 2 * (c - across_fake) / (n * (m - 1))
    )
    variance = sum(
        (len(values) - 1) * float(values.var(correction=0))
        for values in (without_real, without_fake)
    )
    half = 1.96 * math.sqrt(variance)
    return Estimate(value, value - half, value + half)


def _row_sums(first: Tensor, second: Tensor, same: bool) -> Tensor:
    """Σ over j of k(first_i, second_j), without j = i where both are the ``same``: float64 (N,)."""
    width = first.shape[1]
    sums = torch.cat([_kernel(rows @ second.T, width).sum(1) for rows in torch.split(first, _ROWS)])
    if same:
        sums -= _kernel(first.square().sum(1), width)
    # In float64, which not every device has: what follows are differences of large sums.
    return sums.cpu().double()


def _kernel(products: Tensor, width: int) -> Tensor:
    return (products / width + 1) ** 3
