"""A small convolutional discriminator: residual blocks, no normalisation (R3GAN's advice)."""

import math
from itertools import pairwise

from torch import Tensor, nn


class _Block(nn.Module):
    """Halve the resolution with a residual: (B, C, S, S) → (B, out, S / 2, S / 2)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.AvgPool2d(2),
            nn.Conv2d(channels, out, 3, padding=1),
            nn.LeakyReLU(0.2),
        )
        self.skip = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x) + self.skip(x)
        # A sum of two independent terms of unit variance has variance 2: keep it at 1, because
        # no normalisation layer does (one would couple the images of a batch and break R1, R2).
        return y * math.sqrt(0.5)


class Discriminator(nn.Module):
    """Images (B, 3, S, S) in [-1, 1] → logits (B,); greater means more real.

    Args:
        size: S, at least 8: 4 to 7 times a power of two.
        width: channels at full resolution; they double at each halving, up to ``8 * width``.
        outputs: logits an image; more than one gives a projection for labels (B, outputs).
        patch: side of the squares of pixels that it looks at as one; 2 is four times as fast, and
            "full resolution" is then half of S.
    """

    def __init__(self, size: int, width: int = 24, outputs: int = 1, patch: int = 1) -> None:
        super().__init__()
        halvings = int(math.log2(size // patch)) - 2
        if size < 8 * patch or (size // patch) % 2**halvings:
            raise ValueError(
                f"size must be 4 to 7 times a power of two, at least {8 * patch}, not {size}"
            )
        self.patch = patch
        channels = [min(width * 2**i, 8 * width) for i in range(halvings + 1)]
        self.first = nn.Conv2d(3 * patch**2, channels[0], 3, padding=1)
        pairs = pairwise(channels)
        self.blocks = nn.Sequential(*(_Block(a, b) for a, b in pairs))
        self.last = nn.Linear(channels[-1] * (size // patch // 2**halvings) ** 2, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Judge a batch of images."""
        logits: Tensor = self.last(self.blocks(self.first(_folded(images, self.patch))).flatten(1))
        return logits.squeeze(1)


def _folded(images: Tensor, patch: int) -> Tensor:
    """Squares of pixels become channels: (B, C, S, S) → (B, C · patch², S / patch, S / patch)."""
    if patch == 1:
        return images
    count, channels, height, width = images.shape
    split = images.view(count, channels, height // patch, patch, width // patch, patch)
    # Channels last in memory, as convolutions on a processor are twice as fast there.
    rows = split.permute(0, 2, 4, 1, 3, 5).reshape(count, height // patch, width // patch, -1)
    return rows.permute(0, 3, 1, 2)
