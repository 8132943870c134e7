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
    image_from_crop = invert(crop_from_image)
    corners = apply(image_from_crop, np.array([[0, 0], [size, 0], [size, size], [0, size]]))
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int), (width, height))
    if x0 >= x1 or y0 >= y1:
        return pixels.copy()

    # Only the rectangle that the crop can touch is worked on: a face is a small part of 1080p.
    place = image_from_crop - np.array([[0, 0, x0], [0, 0, y0]])
    window = pixels[y0:y1, x0:x1]
    share = _place(mask, place, window.shape[:2])
    layer = _place(np.float32(1 / 255) * crop, place, window.shape[:2])
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


def _place(layer: Floats, image_from_crop: NDArray[np.float64], shape: tuple[int, ...]) -> Floats:
    """``layer`` drawn at its place in a picture of ``shape`` (H, W); 0 or its edge elsewhere."""
    # OpenCV's pixel centres are integers, ours lie half a pixel further.
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = np.linalg.inv(shift) @ np.vstack([image_from_crop, [0, 0, 1]]) @ shift
    border = cv2.BORDER_CONSTANT if layer.ndim == 2 else cv2.BORDER_REPLICATE
    scale = np.sqrt(abs(np.linalg.det(image_from_crop[:, :2])))
    if scale < 1:
        # Shrinking: a blur of the width of a target pixel keeps fine detail from aliasing.
        layer = np.asarray(cv2.GaussianBlur(layer, (0, 0), 0.4 / scale), np.float32)
    # A small crop is often enlarged here: cubic keeps its edges; a mask must stay within [0, 1].
    flags = cv2.INTER_LINEAR if layer.ndim == 2 else cv2.INTER_CUBIC
    placed = cv2.warpAffine(layer, matrix[:2], shape[::-1], flags=flags, borderMode=border)
    return np.asarray(placed, np.float32)
