"""Bring faces to a template: one similarity a face, one warp on the device for the batch."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from facekit.core.errors import FacekitError, did_you_mean
from facekit.types import AlignedFace, Face, Pixels

Matrices = NDArray[np.float64]

# InsightFace's five points in a 112×112 crop, given for pixel centres at whole numbers.
_ARCFACE = (
    np.array(
        [
            [38.2946, 51.6963],
            [73.5318, 51.5014],
            [56.0252, 71.7366],
            [41.5493, 92.3655],
            [70.7299, 92.2041],
        ]
    )
    + 0.5
) / 112

_WIDE_EYES = np.array([0.5, 0.41])  # where the middle between the eyes lies …
_WIDE_ZOOM = 112 / 138  # … and how much smaller the face is than in ArcFace's crop

TEMPLATES: dict[str, NDArray[np.float64]] = {
    "arcface": _ARCFACE,
    "face": (_ARCFACE - _ARCFACE[:2].mean(axis=0)) * 0.95 + np.array([0.5, 0.345]),
    "wide": (_ARCFACE - _ARCFACE[:2].mean(axis=0)) * _WIDE_ZOOM + _WIDE_EYES,
}
"""Where the five points of a face lie, (5, 2), in units of the crop's side.

``arcface`` is the crop of identity networks, from mid-forehead to the chin's edge; ``face`` is as
large but reaches the chin, for swaps, which replace no more than that; ``wide`` holds all of the
face and some of what is around it, for detection.
"""

_SAMPLES_AT_ONCE = 1 << 23


def crop_from_image(points: NDArray[np.floating], template: str, size: int) -> Matrices:
    """The similarities that bring faces to a template, by least squares over the five points.

    This is Umeyama's solution (1991). In the plane it is closed: with points as complex numbers
    the best ``w ≈ a·z + b`` has ``a = Σ z̄w / Σ z̄z`` about the means.

    Args:
        points: (..., 5, 2), in pixels of the picture.
        template: a name in ``TEMPLATES``.
        size: side of the crop, in pixels.

    Returns:
        float64 (..., 2, 3).

    Raises:
        FacekitError: for an unknown template, or a face whose points are one and the same.
    """
    if template not in TEMPLATES:
        raise FacekitError(f"unknown template '{template}'; {did_you_mean(template, TEMPLATES)}")
    z = np.ascontiguousarray(points, np.float64).view(np.complex128)[..., 0]
    w = (TEMPLATES[template] * size).view(np.complex128)[..., 0]
    z_mean, w_mean = z.mean(axis=-1, keepdims=True), w.mean()
    spread = (np.abs(z - z_mean) ** 2).sum(axis=-1)
    if not np.all(spread > 0) or not np.all(np.isfinite(spread)):
        raise FacekitError("a face's five points must be finite and apart; it cannot be aligned")
    a = ((z - z_mean).conj() * (w - w_mean)).sum(axis=-1) / spread
    b = w_mean - a * z_mean[..., 0]
    rows = [[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def invert(matrix: Matrices) -> Matrices:
    """The inverse of affine maps (..., 2, 3): ``image_from_crop`` for ``crop_from_image``."""
    linear = np.linalg.inv(matrix[..., :2])
    return np.concatenate([linear, -linear @ matrix[..., 2:]], axis=-1)


def apply(matrix: Matrices, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Map points (..., N, 2) by affine maps (..., 2, 3)."""
    return points @ np.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]


def warp(images: Tensor, matrices: Matrices, size: int) -> Tensor:
    """Sample square crops on the images' device, bilinearly, and anti-aliased when shrinking.

    A crop that shrinks its image is sampled n×n times a pixel and averaged, n being the shrinkage
    rounded up, so no pixel of the image is missed; shrinkages of up to 1.25 need none of it. A
    crop does not depend on the others in its batch; those of one n are one ``grid_sample``.
    Beyond the border the image's edge pixels continue.

    Args:
        images: float (B, 3, H, W); one image may be repeated with ``expand``.
        matrices: ``crop_from_image``, float64 (B, 2, 3).
        size: side S of the crops, in pixels.

    Returns:
        (B, 3, S, S), of the images' range.
    """
    inverse = invert(np.asarray(matrices, np.float64))
    shrinkage = np.sqrt(np.abs(np.linalg.det(inverse[:, :, :2])))
    times = np.maximum(1, np.ceil(shrinkage - 0.25)).astype(int)
    theta = _between_unit_squares(inverse, size, images.shape[3], images.shape[2])

    crops = images.new_empty(len(images), images.shape[1], size, size)
    for n in np.unique(times):
        at_once = max(1, _SAMPLES_AT_ONCE // int(n * size) ** 2)
        same = np.flatnonzero(times == n)
        for start in range(0, len(same), at_once):
            rows = same[start : start + at_once]
            select = torch.as_tensor(rows, device=images.device)
            maps = torch.as_tensor(theta[rows], dtype=images.dtype, device=images.device)
            side = int(n) * size
            grid = F.affine_grid(maps, [len(rows), 3, side, side], align_corners=False)
            crops[select] = F.avg_pool2d(_sample(images, select, grid), int(n))
    return crops


def align_faces(
    pixels: Pixels, faces: Sequence[Face], *, template: str, size: int, device: torch.device
) -> list[AlignedFace]:
    """Align all faces of one picture in one batch.

    Args:
        pixels: uint8 RGB (H, W, 3).
        faces: located in ``pixels``.
        template: a name in ``TEMPLATES``.
        size: side of the crops, in pixels.
        device: where to warp.

    Raises:
        FacekitError: as :func:`crop_from_image`.
    """
    if not faces:
        return []
    matrices = crop_from_image(np.stack([face.points for face in faces]), template, size)
    # Only the part of the picture that the crops show goes to the device.
    corners = apply(invert(matrices), np.array([[0, 0], [size, 0], [0, size], [size, size]]))
    height, width = pixels.shape[:2]
    x0, y0 = np.clip(np.floor(corners.min(axis=(0, 1))) - 2, 0, [width - 1, height - 1]).astype(int)
    x1, y1 = np.clip(
        np.ceil(corners.max(axis=(0, 1))) + 2, [x0 + 1, y0 + 1], [width, height]
    ).astype(int)
    part = torch.from_numpy(np.ascontiguousarray(pixels[y0:y1, x0:x1])).to(device)
    moved = matrices.copy()
    moved[..., 2] += matrices[..., :2] @ np.array([x0, y0], np.float64)

    image = part.permute(2, 0, 1).float()[None].expand(len(faces), -1, -1, -1)
    warped = warp(image, moved, size).round().clamp(0, 255).byte()
    crops = warped.permute(0, 2, 3, 1).cpu().numpy()
    return [
        AlignedFace(pixels=crop, crop_from_image=matrix, face=face)
        for crop, matrix, face in zip(crops, matrices, faces, strict=True)
    ]


def _sample(images: Tensor, select: Tensor, grid: Tensor) -> Tensor:
    """Sample the selected images; one that is repeated by ``expand`` is not copied for that."""
    sample = partial(F.grid_sample, mode="bilinear", padding_mode="border", align_corners=False)
    if len(images) > 1 and images.stride(0) != 0:
        return sample(images[select], grid)
    count, side = grid.shape[:2]
    tall = sample(images[:1], grid.view(1, count * side, side, 2))
    return tall.view(-1, count, side, side).transpose(0, 1)


def _between_unit_squares(
    image_from_crop: Matrices, size: int, width: int, height: int
) -> Matrices:
    """The maps in ``affine_grid``'s coordinates, where both pictures span [-1, 1]²."""
    half = np.array([[width / 2], [height / 2]])
    linear = image_from_crop[..., :2] * (size / 2) / half
    centre = image_from_crop[..., :2] @ np.full((2, 1), size / 2) + image_from_crop[..., 2:]
    return np.concatenate([linear, centre / half - 1], axis=-1)
