"""Convolutions whose batch normalisation is folded into them once they have learned.

In use, batch normalisation is a scale and a shift, which go into the convolution before it: a
network is taught with ``folded=False`` and used with ``folded=True``.
"""

from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Conv(nn.Sequential):
    """A 3×3 convolution, batch normalisation (unless folded into it), and maybe a ReLU."""

    def __init__(
        self, channels: int, out: int, stride: int, folded: bool, active: bool = True
    ) -> None:
        conv = nn.Conv2d(channels, out, 3, stride, 1, bias=folded)
        norm = nn.Identity() if folded else nn.BatchNorm2d(out)
        super().__init__(conv, norm, nn.ReLU() if active else nn.Identity())


class Residual(nn.Module):
    """Two convolutions beside the identity: (B, C, H, W) → the same."""

    def __init__(self, channels: int, folded: bool) -> None:
        super().__init__()
        self.change = nn.Sequential(
            Conv(channels, channels, 1, folded), Conv(channels, channels, 1, folded, active=False)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Change a batch."""
        return F.relu(features + self.change(features))


def fold_convs(net: nn.Module) -> dict[str, Tensor]:
    """The tensors of ``net``, taught with ``folded=False``, as ``folded=True`` takes them.

    Its :class:`Conv` modules are left in evaluation mode.
    """
    folded = dict(net.state_dict())
    for name, module in net.named_modules():
        if isinstance(module, Conv):
            conv, norm = cast(nn.Conv2d, module[0]), cast(nn.BatchNorm2d, module[1])
            fused = fuse_conv_bn_eval(_evaluating(conv), _evaluating(norm))
            for key in [key for key in folded if key.startswith((f"{name}.0.", f"{name}.1."))]:
                del folded[key]
            folded[f"{name}.0.weight"] = fused.weight.detach()
            folded[f"{name}.0.bias"] = cast(Tensor, fused.bias).detach()
    return folded


def _evaluating(module: Any) -> Any:
    """A module for :func:`fuse_conv_bn_eval`, which refuses one in training."""
    return module.eval()
