"""Change the face in each frame of a clip, with whatever model: locate, align, swap, paste."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facekit.faces.align import crop_from_image, warp
from facekit.faces.blend import paste
from facekit.faces.locate import Locator, load_locator
from facekit.faces.track import Tracker
from facekit.types import Face, Floats, Frame, Pixels

log = logging.getLogger("facekit")

Swap = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Aligned crops (B, 3, S, S) in [-1, 1] → their new faces, of the same shape, and the share
(B, 1, S, S) in [0, 1] that each pixel of them has in the result."""

_BATCH = 8
# Binomial weights over two frames before and after: the locator's jitter shrinks to about half,
# and a turn of the head is not yet delayed or cut short.
_WEIGHTS = np.array([1, 4, 6, 4, 1], np.float64)


def convert(
    frames: Iterable[Frame], swap: Swap, *, size: int, device: torch.device, still: bool = False
) -> Iterator[Frame]:
    """Yield each frame with one person's face replaced, in order and with its time.

    The person is the one with the largest face in the first frame that shows any; while they are
    out of sight, and before, frames pass through untouched.

    Args:
        frames: of one clip, or unrelated pictures if ``still``.
        swap: see :data:`Swap`.
        size: S, the side of the crops that ``swap`` takes.
        device: where to locate, align and swap.
        still: treat each frame as a picture of its own: no track, no smoothing.
    """
    located = _located(frames, load_locator(device), still)
    points_of = ((frame, face.points if face else None) for frame, face in located)
    placed: Iterator[tuple[Frame, Floats | None]] = points_of if still else _smoothed(points_of)
    untouched = total = 0
    while batch := list(islice(placed, _BATCH)):
        with_face = [(frame, points) for frame, points in batch if points is not None]
        results = iter(_swapped(with_face, swap, size, device))
        for frame, points in batch:
            total += 1
            untouched += points is None
            pixels = frame.pixels if points is None else next(results)
            yield Frame(pixels, frame.time, frame.index)
    if untouched:
        log.info("%d of %d frames show no face and are unchanged", untouched, total)


def paste_batch(
    pictures: list[Pixels], faces: Tensor, masks: Tensor, matrices: NDArray[np.float64]
) -> list[Pixels]:
    """Paste a batch of new faces (B, 3, S, S) with ``masks`` (B, 1, S, S) into their pictures."""
    crops = to_pixels(faces)
    shares = masks.float().squeeze(1).cpu().numpy()
    return [
        paste(picture, crop, matrix, share)
        for picture, crop, matrix, share in zip(pictures, crops, matrices, shares, strict=True)
    ]


def to_images(pixels: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) → float32 (B, 3, H, W) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(images: Tensor) -> Pixels:
    """Float (B, 3, H, W) in [-1, 1] → uint8 (B, H, W, 3) on the CPU."""
    scaled = (images.detach().float().clamp(-1, 1) + 1) * 127.5
    pixels: Pixels = scaled.round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels


def _located(
    frames: Iterable[Frame], locator: Locator, still: bool
) -> Iterator[tuple[Frame, Face | None]]:
    """Each frame with the face to replace."""
    tracker = Tracker()
    person: int | None = None
    rest = iter(frames)
    while batch := list(islice(rest, _BATCH)):
        found = locator.locate([frame.pixels for frame in batch])
        for frame, faces in zip(batch, found, strict=True):
            if still:
                yield frame, faces[0] if faces else None
                continue
            ids = tracker.update(faces, frame.time, frame.index)
            if ids and person not in ids and (person is None or len(ids) == 1):
                # The first face, or the only one after the tracker lost the person.
                person = ids[0]
            yield frame, faces[ids.index(person)] if person in ids else None


def _smoothed(
    placed: Iterable[tuple[Frame, Floats | None]],
) -> Iterator[tuple[Frame, Floats | None]]:
    """The same, with each frame's points averaged over its neighbours that show the face."""
    radius = len(_WEIGHTS) // 2
    outside: list[None] = [None] * radius
    window: deque[tuple[Frame, Floats | None] | None] = deque(maxlen=len(_WEIGHTS))
    for entry in chain(outside, placed, outside):
        window.append(entry)
        if len(window) < len(_WEIGHTS) or (middle := window[radius]) is None:
            continue
        frame, points = middle
        yield frame, None if points is None else _average(points, window)


def _average(points: Floats, window: Iterable[tuple[Frame, Floats | None] | None]) -> Floats:
    # A neighbour further off than a fifth of the eyes' distance shows a cut or a fast turn: there
    # smoothing would pull the face off its place.
    near = 0.2 * float(np.linalg.norm(points[1] - points[0]))
    total, weights = np.zeros((5, 2)), 0.0
    for weight, entry in zip(_WEIGHTS, window, strict=True):
        if entry is not None and entry[1] is not None:
            distance = np.linalg.norm(entry[1] - points, axis=1).mean()
            if distance <= near:
                total += weight * entry[1]
                weights += weight
    return (total / weights).astype(np.float32)


def _swapped(
    placed: list[tuple[Frame, Floats]], swap: Swap, size: int, device: torch.device
) -> list[Pixels]:
    """The pictures of one batch with their faces replaced."""
    if not placed:
        return []
    matrices = crop_from_image(np.stack([points for _, points in placed]), "face", size)
    crops = []
    for (frame, _), matrix in zip(placed, matrices, strict=True):
        # One by one: a clip's frames are alike in size, but still pictures need not be.
        image = to_images(torch.from_numpy(frame.pixels)[None].to(device))
        crops.append(warp(image, matrix[None], size))
    faces, masks = swap(torch.cat(crops))
    return paste_batch([frame.pixels for frame, _ in placed], faces, masks, matrices)
