"""Bring faces to a template: one similarity a face, and a warp of all of them.

Where numpy can see the pictures' memory, OpenCV draws the crops, in a sixth of the time that
``grid_sample`` takes there. On other devices, and where gradients are needed, it is
``grid_sample``, for the whole batch. The two compute the same.
"""

from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from facekit.core.device import on_host
from facekit.core.errors import FacekitError, did_you_mean
from facekit.types import AlignedFace, Face, Floats, Pixels

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
    # What its rule makes of ArcFace's mean face.
    "ffhq": np.array(
        [[0.3765, 0.4648], [0.6235, 0.4648], [0.5, 0.606], [0.3977, 0.75], [0.6023, 0.75]]
    ),
    # Means over studio people who look ahead.
    "box13": np.array([[0.38, 0.42], [0.64, 0.42], [0.51, 0.58], [0.40, 0.70], [0.62, 0.70]]),
}
"""Where the five points of a face lie, (5, 2), in units of the crop's side.

``arcface`` is the crop of identity networks, from mid-forehead to the chin's edge; ``face`` is as
large but reaches the chin, for swaps, which replace no more than that; ``wide`` holds all of the
face and some of what is around it, for detection. Faces are fitted to these three.

The places of the other two are those of a mean face, for each has a rule of its own. ``ffhq`` is
the crop of StyleGAN's faces (Karras et al., "A Style-Based Generator Architecture for Generative
Adversarial Networks", 2019, appendix A), to the hair and the shoulders. ``box13`` is the upright
square of 1.3 times the face box's longer side on which FaceForensics++ is classified (Rössler et
al., "FaceForensics++: Learning to Detect Manipulated Facial Images", 2019).
"""

_EYES_TO_LIDS = 0.03
_NOT_APART = "a face's five points must be finite and apart; it cannot be aligned"
_SAMPLES_AT_ONCE = 1 << 23
_STRIP = 1 << 17  # samples that OpenCV draws before it averages them: they stay in the cache


def crop_from_image(
    points: NDArray[np.floating],
    template: str,
    size: int,
    *,
    boxes: NDArray[np.floating] | None = None,
) -> Matrices:
    """The similarities that bring faces to a template.

    For most templates it is that of the least squares over the five points, Umeyama's solution
    (1991). In the plane it is closed: with points as complex numbers the best ``w ≈ a·z + b`` has
    ``a = Σ z̄w / Σ z̄z`` about the means.

    ``ffhq`` follows FFHQ's rule: with ``e`` from eye to eye and ``d`` from the eyes' middle to the
    mouth's, the crop's side is the greater of ``4|e|`` and ``3.6|d|``, it is turned by ``e`` and
    ``d`` in equal parts, and its middle is a tenth of ``d`` below the eyes. The rule's eyes are the
    means of the lids' points, which lie lower than the five points', by 3% of the eyes' distance.

    ``box13`` is not turned. FaceForensics++ rounds the square to whole pixels and cuts it at the
    picture's border; here it is exact, and whole.

    Args:
        points: (..., 5, 2), in pixels of the picture.
        template: a name in ``TEMPLATES``.
        size: side of the crop, in pixels.
        boxes: (..., 4), x0, y0, x1, y1 of the faces; for ``box13``, which alone needs them.

    Returns:
        float64 (..., 2, 3).

    Raises:
        FacekitError: for an unknown template, a face whose points are one and the same, or
            ``box13`` without boxes.
    """
    if template not in TEMPLATES:
        raise FacekitError(f"unknown template '{template}'; {did_you_mean(template, TEMPLATES)}")
    if template == "box13":
        return _about_boxes(boxes, size)
    if not np.all(np.isfinite(points)):
        raise FacekitError(_NOT_APART)
    z = np.ascontiguousarray(points, np.float64).view(np.complex128)[..., 0]
    if template == "ffhq":
        eyes, mouth = z[..., :2], z[..., 3:]
        down = 1j * (eyes[..., 1:] - eyes[..., :1])
        return _as_ffhq(eyes + _EYES_TO_LIDS * down, mouth, size)
    w = (TEMPLATES[template] * size).view(np.complex128)[..., 0]
    z_mean, w_mean = z.mean(axis=-1, keepdims=True), w.mean()
    spread = (np.abs(z - z_mean) ** 2).sum(axis=-1)
    if not np.all(spread > 0):
        raise FacekitError(_NOT_APART)
    a = ((z - z_mean).conj() * (w - w_mean)).sum(axis=-1) / spread
    return _similarity(a, w_mean - a * z_mean[..., 0])


def crop_from_faces(faces: Sequence[Face], template: str, size: int) -> Matrices:
    """The same for located faces, float64 (N, 2, 3).

    Those with landmarks come to ``ffhq`` by the rule's own points, to the letter. By the five true
    points the crop's corners are off that by 1.4% of its side in the mean over studio faces, and
    by 3.1% by MTCNN's points of faces that look ahead.

    Raises:
        FacekitError: as :func:`crop_from_image`.
    """
    points = np.stack([face.points for face in faces])
    matrices = crop_from_image(points, template, size, boxes=np.stack([f.box for f in faces]))
    if template == "ffhq":
        for matrix, face in zip(matrices, faces, strict=True):
            if face.landmarks is not None:
                dense = face.landmarks.points.astype(np.float64)
                z = dense.view(np.complex128)[..., 0]
                lids = np.array([z[36:42].mean(), z[42:48].mean()])
                matrix[:] = _as_ffhq(lids, z[[48, 54]], size)
    return matrices


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
    crop does not depend on the others in its batch. Beyond the border the image's edge pixels
    continue. Gradients flow to the images.

    Args:
        images: float (B, 3, H, W); one image may be repeated with ``expand``.
        matrices: ``crop_from_image``, float64 (B, 2, 3).
        size: side S of the crops, in pixels.

    Returns:
        (B, 3, S, S), of the images' range.
    """
    inverse = invert(np.asarray(matrices, np.float64))
    with_gradient = images.requires_grad and torch.is_grad_enabled()
    if on_host(images.device) and images.dtype == torch.float32 and not with_gradient:
        return _warp_on_host(images.detach(), inverse, size)
    times = _samples_a_side(inverse)
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
    matrices = crop_from_faces(faces, template, size)
    if on_host(device):
        crops = np.empty((len(faces), size, size, 3), np.uint8)
        for crop, inverse in zip(crops, invert(matrices), strict=True):
            draw_crop(crop, pixels, inverse)
    else:
        crops = _crops_from_device(pixels, matrices, size, device)
    return [
        AlignedFace(pixels=crop, crop_from_image=matrix, face=face)
        for crop, matrix, face in zip(crops, matrices, faces, strict=True)
    ]


def draw_crop(crop: Pixels | Floats, picture: Pixels | Floats, image_from_crop: Matrices) -> None:
    """Sample one crop as :func:`warp` does, where numpy and OpenCV can see it.

    Args:
        crop: (S, S) or (S, S, 3), is filled.
        picture: (H, W) or (H, W, 3), of the crop's dtype: uint8 or float32.
        image_from_crop: (2, 3).
    """
    size, n = len(crop), int(_samples_a_side(image_from_crop))
    # Near the origin OpenCV's float32 coordinates are the most exact, and there are no more
    # rows and columns than it can count.
    (x0, y0), (x1, y1) = reach(image_from_crop, size, picture.shape)
    part = picture[y0:y1, x0:x1]
    draw = partial(
        cv2.warpAffine,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    # OpenCV's pixel centres are whole numbers, ours lie half a pixel further.
    fine = image_from_crop / [n, n, 1]
    fine[:, 2] += fine[:, :2] @ [0.5, 0.5] - [x0 + 0.5, y0 + 0.5]
    if n == 1:
        draw(part, fine, (size, size), dst=crop)
        return
    rows = max(1, _STRIP // (n * n * size))
    for top in range(0, size, rows):
        out = crop[top : top + rows]
        samples = draw(part, fine, (n * size, n * len(out)))
        cv2.resize(samples, (size, len(out)), dst=out, interpolation=cv2.INTER_AREA)
        fine[:, 2] += fine[:, 1] * (n * rows)


def reach(
    image_from_crop: Matrices, size: int, shape: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The part of a picture that crops show, with a margin for the interpolation.

    Args:
        image_from_crop: (..., 2, 3).
        size: side of the crops, in pixels.
        shape: height and width of the picture.

    Returns:
        Its first corner (x0, y0) and its last (x1, y1), exclusive, within the picture; crops
        wholly outside of it need the one pixel that is nearest.
    """
    corners = apply(image_from_crop, np.array([[0, 0], [size, 0], [0, size], [size, size]]))
    corners = corners.reshape(-1, 2)
    end = np.array([shape[1], shape[0]])
    first = np.clip(np.floor(corners.min(0)) - 2, 0, end - 1).astype(np.int64)
    last = np.clip(np.ceil(corners.max(0)) + 2, first + 1, end).astype(np.int64)
    return first, last


def _about_boxes(boxes: NDArray[np.floating] | None, size: int) -> Matrices:
    if boxes is None:
        raise FacekitError("template 'box13' goes by the faces' boxes; give them beside the points")
    box = np.asarray(boxes, np.float64)
    side = 1.3 * (box[..., 2:] - box[..., :2]).max(axis=-1)
    if not np.all(side > 0) or not np.all(np.isfinite(box)):
        raise FacekitError("a face's box must be finite and have an area; it cannot be aligned")
    middle = (box[..., :2] + box[..., 2:]) / 2
    a = size / side
    return _similarity(a + 0j, size / 2 * (1 + 1j) - a * (middle[..., 0] + 1j * middle[..., 1]))


def _as_ffhq(eyes: NDArray[np.complex128], mouth: NDArray[np.complex128], size: int) -> Matrices:
    """By the eyes' middles and the mouth's corners, (..., 2) each, as complex numbers."""
    middle = eyes.mean(axis=-1)
    across, down = eyes[..., 1] - eyes[..., 0], mouth.mean(axis=-1) - middle
    direction = across - 1j * down
    if not np.all(direction):
        raise FacekitError(_NOT_APART)
    half = np.maximum(2 * np.abs(across), 1.8 * np.abs(down))
    a = size / 2 / half * np.abs(direction) / direction
    return _similarity(a, size / 2 * (1 + 1j) - a * (middle + 0.1 * down))


def _similarity(a: NDArray[np.complex128], b: NDArray[np.complex128]) -> Matrices:
    """The map ``a·z + b`` of complex numbers as matrices (..., 2, 3)."""
    rows = [[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _samples_a_side(image_from_crop: Matrices) -> NDArray[np.int64]:
    """How many samples, squared, are averaged for a pixel of each crop (...,)."""
    shrinkage = np.sqrt(np.abs(np.linalg.det(image_from_crop[..., :2])))
    times: NDArray[np.int64] = np.maximum(1, np.ceil(shrinkage - 0.25)).astype(np.int64)
    return times


def _warp_on_host(images: Tensor, image_from_crop: Matrices, size: int) -> Tensor:
    """:func:`warp` by OpenCV; the crops' memory is laid out as the images' is."""
    planes = images.numpy()
    shape = (len(images), images.shape[1], size, size)
    interleaved = images.shape[1] == 3 and images.stride(1) == 1
    if interleaved:
        crops = np.empty((len(images), size, size, 3), np.float32)
        for crop, image, inverse in zip(crops, planes, image_from_crop, strict=True):
            draw_crop(crop, image.transpose(1, 2, 0), inverse)
        return torch.from_numpy(crops).permute(0, 3, 1, 2)
    crops = np.empty(shape, np.float32)
    for crop, image, inverse in zip(crops, planes, image_from_crop, strict=True):
        for out, plane in zip(crop, image, strict=True):
            draw_crop(out, plane, inverse)
    return torch.from_numpy(crops)


def _crops_from_device(
    pixels: Pixels, matrices: Matrices, size: int, device: torch.device
) -> Pixels:
    """The crops (N, S, S, 3), warped on ``device``; only what they show goes there."""
    first, last = reach(invert(matrices), size, pixels.shape)
    part = np.ascontiguousarray(pixels[first[1] : last[1], first[0] : last[0]])
    moved = matrices.copy()
    moved[..., 2] += matrices[..., :2] @ first.astype(np.float64)
    image = torch.from_numpy(part).to(device).permute(2, 0, 1).float()[None]
    warped = warp(image.expand(len(matrices), -1, -1, -1), moved, size)
    crops: Pixels = warped.round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    return crops


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
