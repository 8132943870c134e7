"""DCGAN, to measure beside.

Paper: Radford, Metz, Chintala, "Unsupervised Representation Learning with Deep Convolutional
Generative Adversarial Networks", ICLR 2016, arXiv:1511.06434. Written from its sections 3 and 4 and
its figure 1; no code taken.

Strided convolutions instead of pooling, batch norm in both players but at the generator's output
and the discriminator's input, ReLU and Tanh in the generator, leaky ReLU (0.2) in the
discriminator; Adam with a rate of 2e-4 and β₁ = 0.5, weights from N(0, 0.02²), noise uniform in
[-1, 1]^100, batches of 128. The game is that of Goodfellow et al. 2014, the generator's loss the
non-saturating one.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import softplus

from facekit.generators._peers import Peer, parameters

LATENT = 100
BATCH = 128


class Generator(nn.Module):
    """Noise (B, 100) → pictures (B, 3, S, S) in [-1, 1]."""

    def __init__(self, size: int, width: int) -> None:
        """``width`` channels before the last layer; they double with each halving of the size."""
        super().__init__()
        channels = [width * 2**i for i in reversed(range(int(math.log2(size)) - 2))]
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(LATENT, channels[0], 4, 1, 0, bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(),
        ]
        for inputs, outputs in pairwise(channels):
            layers += [
                nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh())

    def forward(self, noise: Tensor) -> Tensor:
        """Draw a batch."""
        drawn: Tensor = self.layers(noise[:, :, None, None])
        return drawn


class Discriminator(nn.Module):
    """Pictures (B, 3, S, S) → logits (B,)."""

    def __init__(self, size: int, width: int) -> None:
        """``width`` channels after the first layer; they double with each halving of the size."""
        super().__init__()
        channels = [width * 2**i for i in range(int(math.log2(size)) - 2)]
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for inputs, outputs in pairwise(channels):
            layers += [
                nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 4))

    def forward(self, images: Tensor) -> Tensor:
        """Judge a batch."""
        logits: Tensor = self.layers(images)[:, 0, 0, 0]
        return logits


def build(size: int, count: int, device: torch.device) -> Peer:
    """A DCGAN of about as many parameters as ``count``, with weights from torch's random state."""
    with torch.device("meta"):  # to be counted, nothing need be drawn
        width = closest(lambda width: parameters(*_players(size, width)), count)
    players = tuple(player.to(device) for player in _players(size, width))
    for player in players:
        player.apply(_begin)
    generator, discriminator = players
    optimizers = tuple(
        torch.optim.Adam(player.parameters(), 2e-4, betas=(0.5, 0.999), fused=True)
        for player in players
    )
    optimizer_g, optimizer_d = optimizers

    def learn(real: Tensor, step: int, fabric: Fabric) -> None:
        with fabric.autocast():
            fake = generator(noise(len(real)).to(device))
            # Apart, as batch norm would let one class see the other's statistics.
            logits_real, logits_fake = discriminator(real), discriminator(fake.detach())
        loss = softplus(-logits_real.float()).mean() + softplus(logits_fake.float()).mean()
        optimizer_d.zero_grad()
        fabric.backward(loss)
        optimizer_d.step()
        with fabric.autocast():
            logits_fake = discriminator(fake)
        optimizer_g.zero_grad()
        fabric.backward(softplus(-logits_fake.float()).mean())
        optimizer_g.step()

    return Peer(
        generator, discriminator, (optimizer_g, optimizer_d), BATCH, noise, learn, lambda x: x
    )


def noise(count: int) -> Tensor:
    """Uniform in [-1, 1]: (count, 100)."""
    return 2 * torch.rand(count, LATENT) - 1


def closest(size_of: Callable[[int], int], count: int, step: int = 4) -> int:
    """The multiple of ``step`` of which ``size_of``, which rises, is closest to ``count``."""
    width = step
    while size_of(width + step) < count:
        width += step
    return min(width, width + step, key=lambda width: abs(size_of(width) - count))


def _players(size: int, width: int) -> tuple[nn.Module, nn.Module]:
    return Generator(size, width), Discriminator(size, width)


def _begin(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, 0.02)
