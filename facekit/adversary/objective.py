"""The relativistic pairing game with zero-centred gradient penalties.

Paper: Huang, Gokaslan, Kuleshov, Tompkin, "The GAN is dead; long live the GAN! A Modern GAN
Baseline" (R3GAN), NeurIPS 2024, arXiv:2501.05441. Written from its equations; no code taken.

With f(t) = -log(1 + exp(-t)), real images x and generated ones y = G(z), paired at random, the
players play (equation 2 of the paper, after Jolicoeur-Martineau 2019)

    max over D, min over G of   E[ f( D(x) - D(y) ) ]

and D pays for steepness at the real and at the generated images (equation 3; Mescheder 2018):

    R1 = γ/2 · E[ ‖∇ D(x)‖² ]          R2 = γ/2 · E[ ‖∇ D(y)‖² ]

Each image is judged against another one, so that no constant answer wins and no mode of the real
images can be dropped for free; the two penalties together make the game converge locally.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

Discriminator = Callable[[Tensor], Tensor]
"""Maps images (B, …) to logits (B,); greater means more real."""


class DiscriminatorLoss(NamedTuple):
    """The terms of the discriminator's loss; minimise their sum, ``total``."""

    pairing: Tensor
    r1: Tensor
    r2: Tensor

    @property
    def total(self) -> Tensor:
        """What to minimise."""
        return self.pairing + self.r1 + self.r2


def generator_loss(discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
    """E[-f(D(y) - D(x))] as a scalar: low where a fake looks more real than its partner.

    Args:
        discriminator: see :data:`Discriminator`.
        real: (B, …), float.
        fake: (B, …), with a gradient path to the generator.
    """
    return softplus(discriminator(real) - discriminator(fake)).mean()


def discriminator_loss(
    discriminator: Discriminator, real: Tensor, fake: Tensor, gamma: float
) -> DiscriminatorLoss:
    """The discriminator's loss; the penalties need exact gradients, so call it in float32.

    Args:
        discriminator: see :data:`Discriminator`; twice differentiable.
        real: (B, …), float32.
        fake: (B, …), float32; its path to the generator is cut.
        gamma: weight γ of R1 and R2, ≥ 0.
    """
    real = real.detach().float().requires_grad_()
    fake = fake.detach().float().requires_grad_()
    with torch.autocast(real.device.type, enabled=False):
        real_logits, fake_logits = discriminator(real), discriminator(fake)
        return DiscriminatorLoss(
            pairing=softplus(fake_logits - real_logits).mean(),
            r1=gamma / 2 * _steepness(real_logits, real),
            r2=gamma / 2 * _steepness(fake_logits, fake),
        )


def _steepness(logits: Tensor, images: Tensor) -> Tensor:
    """E[‖∇ D‖²] over the batch: a scalar that can itself be differentiated."""
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()
