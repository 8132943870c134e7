"""Put a generated crop back into its picture, so that no seam shows.

Two ways: ``feather`` mixes the two pictures by the mask; ``bands`` mixes each band of detail over a
width of its own, coarse ones gently and fine ones sharply (Burt & Adelson, "A Multiresolution
Spline With Application to Image Mosaics", ACM Transactions on Graphics 1983). What is split into
bands here is the difference of the two, so that where there is none the picture stays as it is.
"""

from collections.abc import Callable
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.core.errors import FacekitError, did_you_mean
from facekit.faces.align import apply, invert
from facekit.types import Floats, Pixels

Seam = Literal["bands", "feather"]
SEAMS: tuple[Seam, ...] = get_args(Seam)

Retouch = Callable[[Floats, float], Floats]
"""Takes a crop at its place in the picture, float32 RGB (H, W, 3) in [0, 1], and the side of the
whole crop in the picture's pixels; gives it back changed."""

_COARSEST = 0.06  # of the crop's side: about how far the coarsest band is mixed over
_MOST_BANDS = 6


def paste(
    pixels: Pixels,
    crop: Pixels | Floats,
    crop_from_image: NDArray[np.float64],
    mask: Floats,
    *,
    seam: Seam = "feather",
    veil: Floats | None = None,
    retouch: Retouch | None = None,
) -> Pixels:
    """``pixels`` with ``crop`` laid over its place, as far as ``mask`` says.

    Each pixel of the picture looks up its place in the crop by ``crop_from_image`` itself, so
    what was cut out with a matrix goes back to where it was: only interpolation is lost.

    Args:
        pixels: uint8 RGB (H, W, 3).
        crop: uint8 RGB (S, S, 3), or float32 in [0, 1].
        crop_from_image: (2, 3), see :mod:`facekit.types`; the crop may lie partly or wholly
            outside of the picture.
        mask: float32 (S, S) in [0, 1]: the crop's share at each of its pixels.
        seam: how to mix.
        veil: float32 (S, S) in [0, 1]: the share of all that is mixed in, whatever the seam; 0
            where something covers the face.
        retouch: changes the crop at its place, before it is mixed in.

    Returns:
        A new picture; outside of the mask's reach its pixels are those of ``pixels``.

    Raises:
        FacekitError: for an unknown seam.
    """
    if seam not in SEAMS:
        raise FacekitError(f"no seam '{seam}'; {did_you_mean(seam, SEAMS)}")
    size = crop.shape[0]
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]])
    box = _window(apply(invert(crop_from_image), corners), pixels.shape)
    result = pixels.copy()
    if box is None or mask.max() <= 0:
        return result
    x0, y0, x1, y1 = box

    # Only the rectangle that the crop can touch is worked on: a face is a small part of 1080p.
    crop_from_window = crop_from_image.copy()
    crop_from_window[:, 2] += crop_from_image[:, :2] @ [x0, y0]
    window = pixels[y0:y1, x0:x1]
    shape = window.shape[:2]
    side = size / float(np.sqrt(abs(np.linalg.det(crop_from_image[:, :2]))))
    values = crop if crop.dtype == np.float32 else np.float32(1 / 255) * crop
    layer = _place(np.asarray(values, np.float32), crop_from_window, shape)
    if retouch is not None:
        layer = retouch(layer, side)
    share = _place(mask, crop_from_window, shape)
    target: Floats = np.float32(1 / 255) * window
    difference = np.asarray(layer - target, np.float32)
    if seam == "bands":
        mixed = _by_bands(difference, share, side)
    else:
        mixed = np.asarray(difference * share[..., None], np.float32)
    if veil is not None:
        mixed *= _place(veil, crop_from_window, shape)[..., None]
    result[y0:y1, x0:x1] = np.clip((target + mixed) * 255 + 0.5, 0, 255).astype(np.uint8)
    return result


def _window(
    corners: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[int, int, int, int] | None:
    """The part x0, y0, x1, y1 of a picture that a crop with these corners touches, if any."""
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int), 0).tolist()
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int), (shape[1], shape[0])).tolist()
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _by_bands(difference: Floats, share: Floats, side: float) -> Floats:
    """A difference (H, W, 3), each band of it weighed by a share (H, W) as coarse as itself.

    Fine detail changes over where the share is a half, so that none is seen twice; the coarsest
    band changes as gently as the share does. Nothing is changed where the share is 0.
    """
    bands = int(np.clip(round(np.log2(max(_COARSEST * side, 1.0))), 0, _MOST_BANDS))
    pyramid, shares, gentle = [difference], [_step(share, 0.375, 0.625)], share
    for _ in range(bands):
        if min(gentle.shape) < 4:
            break
        pyramid.append(_halved(pyramid[-1]))
        shares.append(_halved(shares[-1]))
        gentle = _halved(gentle)
    mixed = np.asarray(pyramid[-1] * gentle[..., None], np.float32)
    for fine, coarse, own in zip(pyramid[-2::-1], pyramid[:0:-1], shares[-2::-1], strict=True):
        size = fine.shape[1], fine.shape[0]
        band = fine - _doubled(coarse, size)
        band *= own[..., None]
        mixed = _doubled(mixed, size)
        mixed += band
    mixed *= _step(share, 0.0, 0.2)[..., None]
    return mixed


def _halved(layer: Floats) -> Floats:
    return np.asarray(cv2.pyrDown(layer, borderType=cv2.BORDER_REPLICATE), np.float32)


def _doubled(layer: Floats, size: tuple[int, int]) -> Floats:
    return np.asarray(cv2.pyrUp(layer, dstsize=size), np.float32)


def _step(values: Floats, low: float, high: float) -> Floats:
    """Smoothly from 0 at ``low`` to 1 at ``high``."""
    along = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(along * along * (3 - 2 * along), np.float32)


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
