"""Structural similarity: luminance, contrast and structure of small windows, compared.

Paper: Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to
Structural Similarity", IEEE Transactions on Image Processing 13(4), 2004:

    (2 μ_a μ_b + c₁) (2 σ_ab + c₂) / ((μ_a² + μ_b² + c₁) (σ_a² + σ_b² + c₂))

with c₁ = (0.01 L)² and c₂ = (0.03 L)² for a range of values L, here 2.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from facekit.adversary.metrics._inputs import check_pair

_SIGMA = 1.5  # of the paper's window, in pixels
_WINDOW = 11


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """How alike each picture and its counterpart are, by the paper's windows of 11 × 11 pixels.

    Args:
        first: (B, 3, H, W) in [-1, 1], of at least 11 × 11 pixels.
        second: of the same shape.

    Returns:
        float32 (B,) in [-1, 1], 1 for equal pictures: the mean over the windows that lie within
        the picture, and over the channels.

    Raises:
        FacekitError: for other shapes or values.
    """
    return ssim_map(first, second).mean((1, 2, 3))


def ssim_map(first: Tensor, second: Tensor) -> Tensor:
    """The same window by window: for a mean over a part of the picture.

    Args:
        first: (B, 3, H, W) in [-1, 1], of at least 11 × 11 pixels.
        second: of the same shape.

    Returns:
        float32 (B, 3, H - 10, W - 10) in [-1, 1]: of the windows about the pixels that are five or
        more from the border.

    Raises:
        FacekitError: for other shapes or values.
    """
    check_pair(first, second, _WINDOW)
    place = torch.arange(_WINDOW, device=first.device) - _WINDOW // 2
    line = torch.exp(-place.square() / (2 * _SIGMA**2))
    line = line / line.sum()

    def window_means(images: Tensor) -> Tensor:
        planes = images.flatten(0, 1)[:, None]
        means = F.conv2d(F.conv2d(planes, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))
        return means.view(*images.shape[:2], *means.shape[2:])

    a, b = first.float(), second.float()
    return _similarity(*(window_means(x) for x in (a, b, a * a, b * b, a * b)))


def coarse_ssim(first: Tensor, second: Tensor) -> Tensor:
    """The same in windows of 8 × 8, four pixels apart: for training losses.

    Windows at every pixel would cost as much time as a small decoder and train no better.

    Args:
        first: (B, C, H, W) in [-1, 1].
        second: of the same shape.

    Returns:
        (B, 1, H / 4 - 1, W / 4 - 1) in [-1, 1], the mean over channels.
    """
    a, b = first.float(), second.float()
    pooled = F.avg_pool2d(torch.cat([a, b, a * a, b * b, a * b]), 8, 4)
    return _similarity(*pooled.chunk(5)).mean(1, keepdim=True)


def _similarity(
    mean_a: Tensor, mean_b: Tensor, mean_aa: Tensor, mean_bb: Tensor, mean_ab: Tensor
) -> Tensor:
    """The formula above, from the windows' means of a, b, a², b² and a·b."""
    c1, c2 = 0.02**2, 0.06**2
    var_a, var_b = mean_aa - mean_a**2, mean_bb - mean_b**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * (mean_ab - mean_a * mean_b) + c2) / (var_a + var_b + c2)
    return luminance * structure
