"""lightweight-gan, to measure beside: its networks and its losses, in a loop that needs no GPU.

Liu, Zhu, Song, Elgammal, "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot
Image Synthesis" (FastGAN), ICLR 2021, arXiv:2101.04775, as Phil Wang's PyPI package lightweight-gan
1.2 (MIT) has it. The package is no dependency of this project: the extra ``peers`` brings it.

It asserts CUDA at import, and its trainer moves everything there. So this runs in a process of its
own, started without assertions (``python -O``), and the loop here does what ``Trainer.train`` of
the package does, with its defaults: hinge losses on two outputs, the discriminator's
reconstruction loss, a gradient penalty every fourth step, translation and cutout with the odds that
it sets for so few pictures. Only the widths are not its default, which is for GPUs: they are
brought to the size of the own networks.
"""

from importlib import import_module
from importlib.util import find_spec
from itertools import starmap
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from facekit.core.errors import FacekitError
from facekit.generators._dcgan import closest
from facekit.generators._peers import Peer, parameters

BATCH = 40
"""The package's: the gradients of four times 10 pictures are added up before a step."""

_AT_ONCE = 10
_RATE = 2e-4
_PENALTY, _PENALTY_EVERY = 10, 4


def installed() -> bool:
    """Whether the package is there; it is not imported."""
    return find_spec("lightweight_gan") is not None


def build(size: int, count: int, pictures: int, device: torch.device) -> Peer:
    """The package's GAN with about as many parameters as ``count``.

    Args:
        size: side of the pictures.
        count: of parameters, of both players together.
        pictures: how many there are to learn from, which the odds of augmentation depend on.
        device: where to compute.

    Raises:
        FacekitError: if the package cannot be imported.
    """
    package = _package()

    def players(widest: int) -> tuple[nn.Module, nn.Module]:
        shared = {"image_size": size, "fmap_max": widest}
        generator: nn.Module = package.Generator(latent_dim=widest, **shared)
        discriminator: nn.Module = package.Discriminator(disc_output_size=1, **shared)
        return generator, discriminator

    with torch.device("meta"):
        widest = closest(lambda widest: parameters(*players(widest)), count, step=8)
    generator, discriminator = (player.to(device) for player in players(widest))
    for player in (generator, discriminator):
        player.apply(_begin)
    optimizer_g, optimizer_d = (
        torch.optim.Adam(player.parameters(), _RATE, betas=(0.5, 0.9), fused=True)
        for player in (generator, discriminator)
    )
    judge = package.AugWrapper(discriminator, size)
    terms = {"prob": min(0.5, (1e5 - pictures) * 3e-6), "types": ["translation", "cutout"]}

    def learn(real: Tensor, step: int, fabric: Fabric) -> None:
        penal = step % _PENALTY_EVERY == 0
        parts = torch.split((real + 1) / 2, _AT_ONCE)
        optimizer_d.zero_grad()
        for part in parts:
            fabric.backward(loss_d(part, penal, fabric) / len(parts))
        optimizer_d.step()
        optimizer_g.zero_grad()
        for part in parts:
            fabric.backward(loss_g(len(part), fabric) / len(parts))
        optimizer_g.step()

    def loss_d(real: Tensor, penal: bool, fabric: Fabric) -> Tensor:
        with torch.no_grad(), fabric.autocast():
            drawn = generator(noise(len(real)).to(device))
        with torch.autocast(device.type, enabled=False) if penal else fabric.autocast():
            fake, (*of_fake, _) = judge(
                drawn.float(),
                detach=True,
                input_requires_grad=penal,
                return_discr_input=True,
                **terms,
            )
            real.requires_grad_(penal)
            *of_real, reconstruction = judge(real, calc_aux_loss=True, **terms)
            # The package's discriminator is high for generated ones.
            loss: Tensor = sum(starmap(package.hinge_loss, zip(of_real, of_fake, strict=True)))
            loss = loss + reconstruction
        return loss + _penalty((of_real, real), (of_fake, fake)) if penal else loss

    def loss_g(count: int, fabric: Fabric) -> Tensor:
        with fabric.autocast():
            *of_fake, _ = judge(generator(noise(count).to(device)), **terms)
            loss: Tensor = sum(package.gen_hinge_loss(output, None) for output in of_fake)
        return loss

    def noise(count: int) -> Tensor:
        return torch.randn(count, widest)

    return Peer(
        generator,
        discriminator,
        (optimizer_g, optimizer_d),
        BATCH,
        noise,
        learn,
        lambda drawn: 2 * drawn - 1,
    )


def _package() -> Any:
    """The package's one module, set as its trainer sets it by default."""
    try:
        module: Any = import_module("lightweight_gan.lightweight_gan")
    except (ImportError, AssertionError) as error:
        raise FacekitError(
            f"lightweight-gan cannot be imported ({error}); pip install 'facekit-toolkit[peers]', "
            "and let 'facekit bench gan' start it"
        ) from error
    module.Blur = nn.Identity
    module.norm_class = nn.BatchNorm2d
    return module


def _begin(module: nn.Module) -> None:
    """As the package's ``_init_weights``."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, a=0, mode="fan_in", nonlinearity="leaky_relu")


def _penalty(*pairs: tuple[list[Tensor], Tensor]) -> Tensor:
    gradients = [
        torch.autograd.grad(
            outputs, images, [torch.ones_like(one) for one in outputs], create_graph=True
        )[0]
        for outputs, images in pairs
    ]
    return _PENALTY * torch.cat(gradients).flatten(1).square().sum(1).mean()
