"""What the two players of the adversarial game minimise: three objectives, one kind of penalty.

A discriminator D gives each sample a logit, greater for what looks more real; a generator G makes
samples y = G(z) from noise z; x are real ones. With softplus(t) = log(1 + exp(t)):

``relativistic``, the default: Huang, Gokaslan, Kuleshov, Tompkin, "The GAN is dead; long live the
GAN! A Modern GAN Baseline" (R3GAN), NeurIPS 2024, arXiv:2501.05441, equation 2 (after
Jolicoeur-Martineau 2019). Real and generated samples are paired at random:

    D minimises E[ softplus( D(y) - D(x) ) ]        G minimises E[ softplus( D(x) - D(y) ) ]

``non_saturating``: Goodfellow et al., "Generative Adversarial Networks", NeurIPS 2014,
arXiv:1406.2661, section 3, with σ(D) as the probability of being real; G maximises log σ(D(y))
instead of minimising log(1 - σ(D(y))), which is flat as long as D wins:

    D minimises E[ softplus(-D(x)) ] + E[ softplus(D(y)) ]        G minimises E[ softplus(-D(y)) ]

``hinge``: Lim and Ye, "Geometric GAN", 2017, arXiv:1705.02894; D cares only for samples that it
does not yet tell apart by a margin:

    D minimises E[ max(0, 1 - D(x)) ] + E[ max(0, 1 + D(y)) ]     G minimises E[ -D(y) ]

With each of them D pays for steepness at the real and at the generated samples (R3GAN, equation 3;
Mescheder, Geiger, Nowozin 2018, arXiv:1801.04406), so that the game converges locally and G has a
slope to follow everywhere between the two:

    R1 = γ/2 · E[ ‖∇D(x)‖² ]          R2 = γ/2 · E[ ‖∇D(y)‖² ]

Why the default: each sample is judged against another one, so that no constant answer wins and no
mode of the real samples can be dropped for free.

Written from the papers' equations; no code taken.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

Objective = Literal["relativistic", "non_saturating", "hinge"]

OBJECTIVES: tuple[Objective, ...] = ("relativistic", "non_saturating", "hinge")

Discriminator = Callable[[Tensor], Tensor]
"""Maps samples (B, …) to logits (B,); greater means more real."""


class DiscriminatorLoss(NamedTuple):
    """The terms of the discriminator's loss; minimise their sum, ``total``.

    Attributes:
        pairing: the objective's own term, a scalar.
        r1: the penalty at the real samples, a scalar.
        r2: the penalty at the generated ones, a scalar.
        real_logits: (B,), detached.
        fake_logits: (B,), detached.
    """

    pairing: Tensor
    r1: Tensor
    r2: Tensor
    real_logits: Tensor
    fake_logits: Tensor

    @property
    def total(self) -> Tensor:
        """What to minimise."""
        return self.pairing + self.r1 + self.r2


def generator_loss(
    discriminator: Discriminator,
    real: Tensor,
    fake: Tensor,
    objective: Objective = "relativistic",
) -> Tensor:
    """What the generator minimises, a scalar: low where fakes look real to the discriminator.

    Args:
        discriminator: see :data:`Discriminator`.
        real: (B, …), float; only ``relativistic`` compares with them.
        fake: (B, …), with a gradient path to the generator.
        objective: one of ``OBJECTIVES``.

    Raises:
        ValueError: for another objective.
    """
    if objective == "relativistic":
        return softplus(discriminator(real) - discriminator(fake)).mean()
    if objective == "non_saturating":
        return softplus(-discriminator(fake)).mean()
    if objective == "hinge":
        return -discriminator(fake).mean()
    raise _unknown(objective)


def discriminator_loss(
    discriminator: Discriminator,
    real: Tensor,
    fake: Tensor,
    gamma: float,
    objective: Objective = "relativistic",
    *,
    penalise: bool = True,
) -> DiscriminatorLoss:
    """The discriminator's loss, computed in float32: the penalties need exact gradients.

    Args:
        discriminator: see :data:`Discriminator`; twice differentiable.
        real: (B, …), float.
        fake: (B, …), float; its path to the generator is cut.
        gamma: weight γ of R1 and R2, ≥ 0.
        objective: one of ``OBJECTIVES``.
        penalise: whether R1 and R2 are taken; else they are 0, nothing is differentiated twice,
            and the precision is the caller's.

    Raises:
        ValueError: for another objective.
    """
    if not penalise:
        real_logits, fake_logits = discriminator(real.detach()), discriminator(fake.detach())
        pairing = _pairing(real_logits, fake_logits, objective)
        nothing = torch.zeros_like(pairing)
        return DiscriminatorLoss(
            pairing, nothing, nothing, real_logits.detach(), fake_logits.detach()
        )
    real = real.detach().float().requires_grad_()
    fake = fake.detach().float().requires_grad_()
    with torch.autocast(real.device.type, enabled=False):
        real_logits, fake_logits = discriminator(real), discriminator(fake)
        return DiscriminatorLoss(
            pairing=_pairing(real_logits, fake_logits, objective),
            r1=gamma / 2 * _steepness(real_logits, real),
            r2=gamma / 2 * _steepness(fake_logits, fake),
            real_logits=real_logits.detach(),
            fake_logits=fake_logits.detach(),
        )


def _pairing(real: Tensor, fake: Tensor, objective: Objective) -> Tensor:
    """The objective's own term for logits (B,) and (B,): a scalar."""
    if objective == "relativistic":
        return softplus(fake - real).mean()
    if objective == "non_saturating":
        return softplus(-real).mean() + softplus(fake).mean()
    if objective == "hinge":
        return relu(1 - real).mean() + relu(1 + fake).mean()
    raise _unknown(objective)


def _steepness(logits: Tensor, samples: Tensor) -> Tensor:
    """E[‖∇ D‖²] over the batch: a scalar that can itself be differentiated."""
    (gradient,) = torch.autograd.grad(logits.sum(), samples, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def _unknown(objective: str) -> ValueError:
    return ValueError(f"no objective '{objective}'; allowed: {', '.join(OBJECTIVES)}")
