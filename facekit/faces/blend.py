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
"""Takes a crop at its place in the picture, float32 RGB (H, W, 3) in levels of 255, and the side of
the whole crop in the picture's pixels; gives it back changed."""

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
        crop: RGB (S, S, 3) in levels of 255, uint8 or float32.
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
    result = pixels.copy()
    corners = _reach(mask, 1 if seam == "feather" else int(np.ceil(_COARSEST * len(mask))))
    window = None
    if corners is not None:
        window = _window(apply(invert(crop_from_image), corners), pixels.shape)
    if window is None:
        return result
    x0, y0, x1, y1 = window

    # Only the rectangle that the mask can touch is worked on: a face is a small part of 1080p.
    crop_from_window = crop_from_image.copy()
    crop_from_window[:, 2] += crop_from_image[:, :2] @ [x0, y0]
    target = pixels[y0:y1, x0:x1]
    shape = target.shape[:2]
    layer = _place(np.asarray(crop, np.float32), crop_from_window, shape)
    side = crop.shape[0] / float(np.sqrt(abs(np.linalg.det(crop_from_image[:, :2]))))
    if retouch is not None:
        layer = retouch(layer, side)
    shown = mask if veil is None else mask * veil
    difference = np.asarray(cv2.subtract(layer, target, dtype=cv2.CV_32F), np.float32)
    if seam == "bands":
        bands = int(np.clip(round(np.log2(max(_COARSEST * side, 1.0))), 0, _MOST_BANDS))
        support = _step(mask, 0.0, 0.2)
        support = support if veil is None else support * veil
        sharp, gentle, within = _split(
            _place_shares(
                np.dstack([_step(mask, 0.375, 0.625), mask, support]), crop_from_window, shape
            )
        )
        mixed = _by_bands(difference, sharp, gentle, bands)
        mixed *= within[..., None]
    else:
        mixed = difference
        mixed *= _place_shares(shown, crop_from_window, shape)[..., None]
    cv2.add(target, mixed, dst=result[y0:y1, x0:x1], dtype=cv2.CV_8U)
    return result


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


def _reach(mask: Floats, margin: int) -> NDArray[np.float64] | None:
    """The corners (4, 2), in the crop, of where a mask is not 0, with a margin; None if nowhere."""
    rows, columns = (np.flatnonzero(mask.max(axis=axis) > 0) for axis in (1, 0))
    if not len(rows):
        return None
    (left, right), (top, bottom) = (
        (max(hit[0] - margin, 0), min(hit[-1] + 1 + margin, len(mask))) for hit in (columns, rows)
    )
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def _window(
    corners: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[int, int, int, int] | None:
    """The part x0, y0, x1, y1 of a picture that a crop with these corners touches, if any."""
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int), 0).tolist()
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int), (shape[1], shape[0])).tolist()
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _by_bands(difference: Floats, sharp: Floats, gentle: Floats, bands: int) -> Floats:
    """A difference (H, W, 3), each band of it weighed by a share (H, W) as coarse as itself.

    Fine detail changes over where ``sharp`` does, so that none is seen twice; the coarsest band
    as gently as ``gentle`` does.
    """
    pyramid, shares = [difference], [sharp]
    for _ in range(bands):
        if min(gentle.shape) < 4:
            break
        pyramid.append(_halved(pyramid[-1]))
        shares.append(_halved(shares[-1]))
        gentle = _halved(gentle)
    mixed = np.asarray(pyramid[-1] * gentle[..., None], np.float32)
    for fine, coarse, own in zip(pyramid[-2::-1], pyramid[:0:-1], shares[-2::-1], strict=True):
        size = fine.shape[1], fine.shape[0]
        band = np.asarray(cv2.subtract(fine, _doubled(coarse, size)), np.float32)
        band *= own[..., None]
        mixed = _doubled(mixed, size)
        mixed += band
    return mixed


def _split(layers: Floats) -> list[Floats]:
    """The layers (H, W) of (H, W, N), each of them contiguous."""
    return [np.asarray(layer, np.float32) for layer in cv2.split(layers)]


def _halved(layer: Floats) -> Floats:
    return np.asarray(cv2.pyrDown(layer, borderType=cv2.BORDER_REPLICATE), np.float32)


def _doubled(layer: Floats, size: tuple[int, int]) -> Floats:
    return np.asarray(cv2.pyrUp(layer, dstsize=size), np.float32)


def _step(values: Floats, low: float, high: float) -> Floats:
    """Smoothly from 0 at ``low`` to 1 at ``high``."""
    along = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(along * along * (3 - 2 * along), np.float32)


def _place(layer: Floats, crop_from_image: NDArray[np.float64], shape: tuple[int, ...]) -> Floats:
    """A crop drawn at its place in a picture of ``shape`` (H, W); beyond its edge that goes on."""
    shrinkage = np.sqrt(abs(np.linalg.det(crop_from_image[:, :2])))
    if shrinkage > 1:
        layer = _without_detail(layer, float(shrinkage))
    # A small crop is often enlarged here: cubic keeps its edges.
    return _drawn(layer, crop_from_image, shape, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)


def _place_shares(
    shares: Floats, crop_from_image: NDArray[np.float64], shape: tuple[int, ...]
) -> Floats:
    """Masks (S, S) or (S, S, N) in [0, 1], in which they stay; 0 beyond their edge."""
    shrinkage = float(np.sqrt(abs(np.linalg.det(crop_from_image[:, :2]))))
    if shrinkage > 1:
        shares = np.asarray(cv2.GaussianBlur(shares, (0, 0), 0.4 * shrinkage), np.float32)
    return _drawn(shares, crop_from_image, shape, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)


def _drawn(
    layer: Floats,
    crop_from_image: NDArray[np.float64],
    shape: tuple[int, ...],
    interpolation: int,
    border: int,
) -> Floats:
    # OpenCV's pixel centres are integers, ours lie half a pixel further.
    matrix = crop_from_image.copy()
    matrix[:, 2] += crop_from_image[:, :2] @ [0.5, 0.5] - 0.5
    placed = cv2.warpAffine(
        layer,
        matrix,
        shape[::-1],
        flags=interpolation | cv2.WARP_INVERSE_MAP,
        borderMode=border,
    )
    return np.asarray(placed, np.float32)


def _without_detail(layer: Floats, shrinkage: float) -> Floats:
    """``layer`` without what is too fine to be seen once it is ``shrinkage`` times smaller.

    The filter is the kernel of cubic convolution (Keys, "Cubic convolution interpolation for
    digital image processing", 1981), as wide as it would be among the smaller pixels: it leaves
    coarser detail alone, and all of it where nothing shrinks.
    """
    reach = int(np.ceil(2 * shrinkage))
    x = np.abs(np.arange(-reach, reach + 1)) / shrinkage
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    kernel = np.where(x < 1, near, np.where(x < 2, far, 0))
    kernel /= kernel.sum()
    filtered = cv2.sepFilter2D(layer, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(filtered, np.float32)
