"""Differentiable augmentation, so that a discriminator can't learn a few photos by heart.

Papers: Zhao, Liu, Lin, Zhu, Han, "Differentiable Augmentation for Data-Efficient GAN Training"
(DiffAugment), NeurIPS 2020, arXiv:2006.10738: real and generated images are augmented alike, and
the generator learns through it. Karras et al., "Training Generative Adversarial Networks with
Limited Data" (ADA), NeurIPS 2020, arXiv:2006.06676: each kind is applied to an image with
probability p, which a controller raises while the discriminator overfits; below about 0.8 the
generator can still tell what the photos look like without it, so nothing leaks into its samples.
Written from the papers; no code taken.

Everything is made of selections, shifts, sums and products: differentiable twice, as R1 needs.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

MOST = 0.8
"""The greatest p: beyond it, augmented images begin to appear among the samples."""

_SHIFT = 1 / 8
_CUT = 1 / 2
_BRIGHTNESS, _SATURATION, _CONTRAST = 0.5, 1.0, 0.5


def augment(images: Tensor, p: float) -> Tensor:
    """Flip, change colours, shift and cut out, each in an image with probability ``p``.

    Randomness is torch's current state, on the images' device.

    Args:
        images: float (B, 3, S, S), nominally in [-1, 1].
        p: in [0, 1]; 0 changes nothing.

    Returns:
        (B, 3, S, S); colours may leave [-1, 1] a little.
    """
    if p <= 0:
        return images
    return _cut_out(_shift(_colour(_flip(images, p), p), p), p)


def adapt(p: float, sign: float, images: int, *, target: float = 0.6, span: int = 500_000) -> float:
    """ADA's controller: the next p, higher while the discriminator is too sure of real images.

    Args:
        p: so far.
        sign: how sure it is of training reals, in [-1, 1]: the mean of sign(D(x)), or, where only
            differences of logits mean anything, of sign(D(x) - D(y)) over pairs.
        images: shown since the last call, ≥ 0.
        target: ``sign`` that is aimed at (the paper's 0.6).
        span: images in which p can go from 0 to 1 (the paper's 500 k).

    Returns:
        in [0, ``MOST``].
    """
    step = images / span
    return min(max(p + (step if sign > target else -step), 0.0), MOST)


def _some(images: Tensor, p: float) -> Tensor:
    """Which images are changed: bool (B, 1, 1, 1)."""
    return torch.rand(len(images), 1, 1, 1, device=images.device) < p


def _uniform(images: Tensor, spread: float) -> Tensor:
    """A number for each image in [-spread, spread]: (B, 1, 1, 1)."""
    return (2 * torch.rand(len(images), 1, 1, 1, device=images.device) - 1) * spread


def _flip(images: Tensor, p: float) -> Tensor:
    # A fair coin for those that are chosen: at p = 1 half of the images are mirrored.
    return torch.where(_some(images, p / 2), images.flip(3), images)


def _colour(images: Tensor, p: float) -> Tensor:
    """Brightness, saturation and contrast, by as much as DiffAugment's."""
    brightness = torch.where(_some(images, p), _uniform(images, _BRIGHTNESS), 0.0)
    saturation = torch.where(_some(images, p), 1 + _uniform(images, _SATURATION), 1.0)
    contrast = torch.where(_some(images, p), 1 + _uniform(images, _CONTRAST), 1.0)
    images = images + brightness
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * saturation
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * contrast


def _shift(images: Tensor, p: float) -> Tensor:
    """Move by whole pixels, up to an eighth of the side; what comes in is black, as in the paper.

    A gather of rows and columns, whose second derivative is as cheap as its first.
    """
    count, _, height, width = images.shape
    reach = max(1, round(_SHIFT * width))
    moved = _some(images, p)[:, 0, 0]  # (B, 1)
    for axis, side in ((2, height), (3, width)):
        offset = torch.randint(-reach, reach + 1, (count, 1), device=images.device) * moved
        source = torch.arange(side, device=images.device)[None] + offset + reach  # (B, side)
        padding = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
        padded = F.pad(images, padding, value=-1.0)
        shape = (count, 1, side, 1) if axis == 2 else (count, 1, 1, side)
        images = padded.gather(axis, source.view(shape).expand_as(images))
    return images


def _cut_out(images: Tensor, p: float) -> Tensor:
    """Grey out a square of half the side, anywhere."""
    count, _, height, width = images.shape
    inside = _some(images, p)
    for axis, side in ((2, height), (3, width)):
        shape = (1, 1, side, 1) if axis == 2 else (1, 1, 1, side)
        place = torch.arange(side, device=images.device).view(shape)
        centre = torch.randint(side, (count, 1, 1, 1), device=images.device)
        inside = inside & ((place - centre).abs() * 2 <= _CUT * side)
    return images.masked_fill(inside, 0.0)
