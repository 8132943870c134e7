"""Crops of studio people with their masks, in one small file that can travel to where is taught.

They are of template "face" with room about it, so that they can be turned and shifted afterwards;
pictures are WebP, masks PNG.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facekit.core import checkpoint
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.core.seed import rng
from facekit.faces.align import apply, crop_from_image, warp
from facekit.types import Pixels

FACE = 128
"""Side of template "face" within a crop, in pixels."""

ROOM = 24
"""Pixels about it, on each side."""

SIDE = FACE + 2 * ROOM
"""Side of a crop."""

MASKS = ("bare", "glasses", "person")
"""Of each crop: the inner face with nothing over it; frame and lenses; all but background."""

TEMPLATE = "face"

_GLASSES = 0.4  # share of the people who wear them: they are the hardest thing to see through


class Crops(NamedTuple):
    """Crops and what is known of them.

    Attributes:
        images: uint8 (N, 3, S, S), RGB.
        masks: uint8 (N, 3, S, S), each pixel's share times 255, in the order of ``MASKS``.
        points: float32 (N, 5, 2), in pixels of the crop.
        person: int64 (N,).
    """

    images: Tensor
    masks: Tensor
    points: Tensor
    person: Tensor


def render(path: Path, *, people: int, frames: int, size: int, seed: int, workers: int = 1) -> None:
    """Render crops into a file: ``frames`` in a row of each of ``people``.

    Args:
        path: of the file, .safetensors.
        people: how many; more than chance would have of them wear glasses.
        frames: performances of each.
        size: side of the whole pictures, in pixels.
        seed: of people and performances.
        workers: processes.
    """
    # Only here: where the file is read, there may be nothing to render with.
    from facekit.studio.performance import Performance, performance_seed
    from facekit.studio.person import Person, person_seed
    from facekit.studio.pool import render_frames

    pairs = []
    for i in range(people):
        person = Person.sample(person_seed(seed, i))
        random = rng(seed, i, 2)
        if random.random() < _GLASSES:
            worn = ("round", "square", "half-rim")[int(random.integers(3))]
            person = person.model_copy(update={"glasses": worn})
        pairs += [(person, Performance.sample(performance_seed(seed, i, j))) for j in range(frames)]
    pictures, masks, points = [], [], []
    with progress("rendering crops", len(pairs)) as advance:
        for done, shown in enumerate(render_frames(pairs, size, workers), start=1):
            glasses = shown.masks["glasses"]
            bare = np.minimum(shown.masks["face"], 255 - glasses)
            there = np.where(np.isfinite(shown.depth), 255, 0).astype(np.uint8)
            matrix = crop_from_image(shown.points, TEMPLATE, FACE) + np.array([[0, 0, ROOM]] * 2)
            planes = np.dstack([shown.pixels, bare, glasses, there]).transpose(2, 0, 1)
            whole = torch.from_numpy(planes.astype(np.float32))[None]
            crop = warp(whole, matrix[None], SIDE)[0].round().clamp(0, 255).byte()
            cut = crop.permute(1, 2, 0).contiguous().numpy()
            pictures.append(_packed(".webp", cut[..., :3], [cv2.IMWRITE_WEBP_QUALITY, 88]))
            # Sixteen levels pack into a third of the bytes.
            levels = np.round(cut[..., 3:] / 17.0).astype(np.uint8) * np.uint8(17)
            masks.append(_packed(".png", levels, [cv2.IMWRITE_PNG_COMPRESSION, 9]))
            points.append(apply(matrix, shown.points))
            advance(done, "")
    checkpoint.save(
        path,
        {
            "images": torch.from_numpy(np.concatenate(pictures)),
            "image_ends": torch.from_numpy(np.cumsum([len(row) for row in pictures])),
            "masks": torch.from_numpy(np.concatenate(masks)),
            "mask_ends": torch.from_numpy(np.cumsum([len(row) for row in masks])),
            "points": torch.from_numpy(np.stack(points).astype(np.float32)),
            "person": torch.arange(people).repeat_interleave(frames),
        },
    )


def read(path: Path) -> Crops:
    """The crops of a file.

    Raises:
        FacekitError: if it is missing, damaged, or none of :func:`render`.
    """
    state = checkpoint.load(path)
    try:
        images = _unpacked(state["images"], state["image_ends"])
        masks = _unpacked(state["masks"], state["mask_ends"])
        crops = Crops(images, masks, state["points"], state["person"])
    except (KeyError, TypeError, ValueError, AttributeError, cv2.error) as error:
        raise FacekitError(
            f"{path}: not a file of studio crops ({error}); remove it, and it is rendered again"
        ) from error
    if not len(images) == len(masks) == len(crops.points) == len(crops.person):
        raise FacekitError(f"{path}: damaged; remove it, and it is rendered again")
    return crops


def _packed(suffix: str, pixels: Pixels, how: Sequence[int]) -> NDArray[np.uint8]:
    fits, data = cv2.imencode(suffix, np.ascontiguousarray(pixels[..., ::-1]), how)
    assert fits
    return np.asarray(data, np.uint8).reshape(-1)


def _unpacked(data: Tensor, ends: Tensor) -> Tensor:
    """Pictures (N, 3, S, S) from their files one after the other, and where each ends (N,)."""
    rows = np.empty((len(ends), SIDE, SIDE, 3), np.uint8)
    start = 0
    for row, end in zip(rows, ends.tolist(), strict=True):
        picture = cv2.imdecode(data.numpy()[start:end], cv2.IMREAD_COLOR)
        if picture is None or picture.shape != row.shape:
            raise ValueError("a picture of another size, or none")
        row[:] = picture[..., ::-1]
        start = end
    return torch.from_numpy(rows).permute(0, 3, 1, 2).contiguous()
