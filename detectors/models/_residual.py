"""The trunk that several detectors share: a compact residual network for small crops.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, with averaging in the short
cuts (He et al., "Bag of Tricks for Image Classification", CVPR 2019, "ResNet-D"). The stem turns
each 4×4 neighbourhood into more channels than its new pixels hold, so that halving the resolution
there loses nothing; nothing is pooled before the last layer.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two convolutions beside a short cut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """The first convolution has the stride."""
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.short: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.short = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, ⌈H / stride⌉, ⌈W / stride⌉)."""
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.short(x))


class Trunk(nn.Module):
    """(B, channels, S, S) to features (B, widths[-1], S / 2 ** len(widths), …)."""

    def __init__(self, channels: int, widths: Sequence[int], depths: Sequence[int]) -> None:
        """A stage for each width, of as many blocks as its depth; each but the first halves."""
        super().__init__()
        self.stem = nn.Conv2d(channels, widths[0], 4, 2, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(widths[0])
        blocks = [Block(widths[0], widths[0], 1) for _ in range(depths[0])]
        for (before, width), depth in zip(pairwise(widths), depths[1:], strict=True):
            blocks += [Block(before, width, 2)]
            blocks += [Block(width, width, 1) for _ in range(depth - 1)]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """The last features, before any pooling."""
        features: Tensor = self.blocks(F.relu(self.stem_norm(self.stem(x))))
        return features
