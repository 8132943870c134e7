"""Peak signal-to-noise ratio: the mean squared error of a picture, in decibels.

10 · log₁₀(L² / MSE), where L is the range of values, here 2. It knows nothing of faces: a shift by
one pixel costs it more than a blurred eye.
"""

import torch
from torch import Tensor

from facekit.adversary.metrics._inputs import check_pair


def psnr(first: Tensor, second: Tensor) -> Tensor:
    """How near each picture is to its counterpart.

    Args:
        first: (B, 3, H, W) in [-1, 1].
        second: of the same shape.

    Returns:
        float32 (B,) in dB, over all pixels and channels; infinite for equal pictures.

    Raises:
        FacekitError: for other shapes or values.
    """
    check_pair(first, second)
    error = (first.float() - second.float()).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error)
