"""What every metric asks of its input."""

import torch
from torch import Tensor

from facekit.core.errors import FacekitError


def check_features(least: int, **sets: Tensor) -> None:
    """Check sets of features before they are compared.

    Args:
        least: the smallest number of rows that the metric can work with.
        **sets: each (N, F), by the name that an error calls it.

    Raises:
        FacekitError: for a set that is no matrix, too small, of another width than the first, or
            not finite; it names the set.
    """
    width = None
    for name, features in sets.items():
        if features.ndim != 2 or not features.is_floating_point():
            raise FacekitError(
                f"{name}: features are {features.dtype} {tuple(features.shape)}; give floats (N, F)"
            )
        if len(features) < least:
            raise FacekitError(
                f"{name}: {len(features)} samples; this metric needs at least {least}; give more"
            )
        width = width or features.shape[1]
        if features.shape[1] != width:
            raise FacekitError(
                f"{name}: features of {features.shape[1]} numbers, where the others have {width}; "
                "take all from one network"
            )
        wrong = len(features) - int(features.isfinite().all(1).sum())
        if wrong:
            raise FacekitError(
                f"{name}: the features of {wrong} of {len(features)} samples are not finite; "
                "leave these samples out, or see why the generator drew them"
            )


def check_images(least_side: int = 1, **sets: Tensor) -> None:
    """Check batches of images before a network or a formula sees them.

    Args:
        least_side: of the images, in pixels.
        **sets: each (B, 3, H, W) in [-1, 1], by the name that an error calls it.

    Raises:
        FacekitError: for another shape or type, too small images, values out of range or not
            finite.
    """
    for name, images in sets.items():
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise FacekitError(
                f"{name}: {images.dtype} {tuple(images.shape)}; give images as floats "
                "(B, 3, H, W) in [-1, 1]"
            )
        if min(images.shape[2:]) < least_side:
            raise FacekitError(
                f"{name}: images of {images.shape[3]} × {images.shape[2]} pixels; at least "
                f"{least_side} × {least_side} are needed"
            )
        if not len(images):
            continue
        low, high = (float(value) for value in torch.stack(images.detach().aminmax()))
        # Written so that NaN fails too. Resampling may overshoot a little.
        if not (low >= -1.1 and high <= 1.1):
            raise FacekitError(
                f"{name}: values from {low:.3g} to {high:.3g}; images are finite, in [-1, 1]"
            )


def check_pair(first: Tensor, second: Tensor, least_side: int = 1) -> None:
    """Check two batches that are compared picture by picture.

    Raises:
        FacekitError: if one is unusable, or their shapes differ.
    """
    check_images(least_side, first=first, second=second)
    if first.shape != second.shape:
        raise FacekitError(
            f"images of shapes {tuple(first.shape)} and {tuple(second.shape)}; only equal shapes "
            "can be compared picture by picture"
        )
