"""Put a generated crop back into its picture: soft mask, colours of the target's light.

The colour match is the linear transfer of mean and deviation in Lab of Reinhard et al., "Color
Transfer between Images", IEEE CG&A 2001, weighted by the mask.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.faces.align import apply, invert
from facekit.types import Floats, Pixels


def paste(
    pixels: Pixels,
    crop: Pixels,
    crop_from_image: NDArray[np.float64],
    mask: Floats,
    *,
    match_colour: float = 1.0,
) -> Pixels:
    """``pixels`` with ``crop`` laid over its place, as far as ``mask`` says.

    Each pixel of the picture looks up its place in the crop by ``crop_from_image`` itself, so
    what was cut out with a matrix goes back to where it was: only interpolation is lost.

    Args:
        pixels: uint8 RGB (H, W, 3).
        crop: uint8 RGB (S, S, 3).
        crop_from_image: (2, 3), see :mod:`facekit.types`; the crop may lie partly or wholly
            outside of the picture.
        mask: float32 (S, S) in [0, 1]: the crop's share at each of its pixels.
        match_colour: 0 keeps the crop's colours, 1 brings their mean and deviation inside the
            mask to the target's.

    Returns:
        A new picture; outside of the mask's reach its pixels are those of ``pixels``.
    """
    height, width = pixels.shape[:2]
    size = crop.shape[0]
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]])
    corners = apply(invert(crop_from_image), corners)
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int), (width, height))
    if x0 >= x1 or y0 >= y1:
        return pixels.copy()

    # Only the rectangle that the crop can touch is worked on: a face is a small part of 1080p.
    crop_from_window = crop_from_image.copy()
    crop_from_window[:, 2] += crop_from_image[:, :2] @ [x0, y0]
    window = pixels[y0:y1, x0:x1]
    share = _place(mask, crop_from_window, window.shape[:2])
    layer = _place(np.float32(1 / 255) * crop, crop_from_window, window.shape[:2])
    target: Floats = np.float32(1 / 255) * window
    if match_colour > 0 and share.max() > 0:
        layer += match_colour * (transfer_colour(layer, target, share) - layer)
    blended = target + share[..., None] * (layer - target)
    result = pixels.copy()
    result[y0:y1, x0:x1] = np.clip(blended * 255 + 0.5, 0, 255).astype(np.uint8)
    return result


def transfer_colour(crop: Floats, target: Floats, mask: Floats) -> Floats:
    """``crop`` with the mean and deviation, in Lab and inside ``mask``, of ``target``.

    Args:
        crop: float32 RGB (H, W, 3) in [0, 1].
        target: as ``crop``, of the same size.
        mask: float32 (H, W) in [0, 1]; not all zero.

    Returns:
        float32 RGB (H, W, 3); it may leave [0, 1] a little.
    """
    crop_lab = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2LAB)
    target_lab = cv2.cvtColor(np.ascontiguousarray(target), cv2.COLOR_RGB2LAB)
    weight = mask[..., None] / mask.sum()
    crop_mean, target_mean = ((weight * lab).sum((0, 1)) for lab in (crop_lab, target_lab))
    crop_deviation = np.sqrt((weight * (crop_lab - crop_mean) ** 2).sum((0, 1)))
    target_deviation = np.sqrt((weight * (target_lab - target_mean) ** 2).sum((0, 1)))
    # A flat crop has no contrast to stretch, and a stray highlight must not blow it up.
    gain = np.clip(target_deviation / np.maximum(crop_deviation, 1e-3), 0.5, 2.0)
    matched = (crop_lab - crop_mean) * gain + target_mean
    return np.asarray(cv2.cvtColor(matched.astype(np.float32), cv2.COLOR_LAB2RGB), np.float32)


def ellipse(
    size: int, centre: tuple[float, float], radii: tuple[float, float], feather: float
) -> Floats:
    """A soft elliptic mask, float32 (size, size): 1 inside, 0 outside, smooth between.

    Args:
        size: of the crop, in pixels.
        centre: (x, y) in the unit square of the crop.
        radii: (horizontal, vertical) in the unit square, where the mask reaches 0.
        feather: the share of the radii over which it falls from 1 to 0, in (0, 1].
    """
    unit = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid((unit - centre[0]) / radii[0], (unit - centre[1]) / radii[1])
    inward = np.clip((1 - np.hypot(x, y)) / feather, 0, 1)
    return (inward * inward * (3 - 2 * inward)).astype(np.float32)


def _place(layer: Floats, crop_from_image: NDArray[np.float64], shape: tuple[int, ...]) -> Floats:
    """``layer`` drawn at its place in a picture of ``shape`` (H, W); 0 or its edge elsewhere."""
    # OpenCV's pixel centres are integers, ours lie half a pixel further.
    matrix = crop_from_image.copy()
    matrix[:, 2] += crop_from_image[:, :2] @ [0.5, 0.5] - 0.5
    border = cv2.BORDER_CONSTANT if layer.ndim == 2 else cv2.BORDER_REPLICATE
    shrinkage = np.sqrt(abs(np.linalg.det(crop_from_image[:, :2])))
    if shrinkage > 1:
        layer = _without_detail(layer, float(shrinkage))
    # A small crop is often enlarged here: cubic keeps its edges; a mask must stay within [0, 1].
    flags = cv2.INTER_LINEAR if layer.ndim == 2 else cv2.INTER_CUBIC
    placed = cv2.warpAffine(
        layer, matrix, shape[::-1], flags=flags | cv2.WARP_INVERSE_MAP, borderMode=border
    )
    return np.asarray(placed, np.float32)


def _without_detail(layer: Floats, shrinkage: float) -> Floats:
    """``layer`` without what is too fine to be seen once it is ``shrinkage`` times smaller.

    The filter is the kernel of cubic convolution (Keys, "Cubic convolution interpolation for
    digital image processing", 1981), as wide as it would be among the smaller pixels: it leaves
    coarser detail alone, and all of it where nothing shrinks.
    """
    if layer.ndim == 2:  # A mask must stay within [0, 1].
        return np.asarray(cv2.GaussianBlur(layer, (0, 0), 0.4 * shrinkage), np.float32)
    reach = int(np.ceil(2 * shrinkage))
    x = np.abs(np.arange(-reach, reach + 1)) / shrinkage
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    kernel = np.where(x < 1, near, np.where(x < 2, far, 0))
    kernel /= kernel.sum()
    filtered = cv2.sepFilter2D(layer, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(filtered, np.float32)
