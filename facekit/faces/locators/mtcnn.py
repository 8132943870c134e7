"""MTCNN: three small networks, each on what the one before let pass, as batches on the device.

Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional
Networks", 2016. The weights are those that facenet-pytorch ships (MIT). The cascade is written
anew around them: the library refuses pictures of mixed size, and cuts and resizes every candidate
on its own.

Pictures of one working size that are shrunk as much go through together, and stay on the device
from the first network to the last. The number of candidates depends on the pictures, so the host
waits for it where they are picked and suppressed; the faces themselves are copied once, at the end
of a batch. A batch is at most a million pixels, so 200 pictures need no more memory than a few.

With the library's thresholds, 0.6, 0.7 and 0.7, this finds the faces that its ``detect`` finds: on
580 frames of six clips all 584 that score 0.9 or more, 663 of 665 that score 0.7 (the two are a
knee and a hand), and no others. Points and boxes lie within 1.5 pixels of the library's, which
takes candidates to be where they were before they were cut at whole pixels. Where a candidate
overlaps the picture's border they differ by more, for those of 0.9 points by up to 0.05 and
boxes by up to 0.07 of the face: the library stretches what is left of it, but maps points as if it
had not.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from facekit.core.errors import FacekitError
from facekit.faces.locators._mtcnn import Judge, Proposer, best, load_state
from facekit.faces.locators._working import shrunk, to_faces, working_shape
from facekit.types import Face, Pixels

_PYRAMID_STEP = 0.709  # about sqrt(1/2), the paper's
_CELL = 12  # the first network looks at 12×12 pixels …
_STRIDE = 2  # … in steps of 2
_SMALLEST = 20  # pixels of the working picture; smaller faces give the later stages too little
_CANDIDATES_AT_ONCE = 128
_PIXELS_AT_ONCE = 1_000_000  # larger batches fall out of a processor's caches


class Locator:
    """MTCNN behind :class:`facekit.faces.locate.Locator`."""

    def __init__(
        self,
        device: torch.device,
        *,
        min_face: int = 40,
        max_side: int = 640,
        weights: Path | None = None,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.9),
    ) -> None:
        """Load the networks.

        Args:
            device: where to compute.
            min_face: smallest face to look for: longer side of its box, in pixels of the picture.
                The cost grows with (picture's side / ``min_face``) squared.
            max_side: pictures with a longer side are shrunk to it for the search, so in large
                ones only faces of at least ``20 · longer side / max_side`` pixels are found.
            weights: none; they come with the library.
            thresholds: what a candidate must score in each of the three stages. The library asks
                0.7 of the last: on six clips, all that it found between 0.7 and 0.9 was hands,
                knees, fur and cloth; true faces rarely score below 0.99.

        Raises:
            FacekitError: if ``weights`` are given.
        """
        if weights is not None:
            raise FacekitError(f"{weights}: the locator 'mtcnn' brings its own weights; give none")
        self._device = device
        self._min_face = min_face
        self._max_side = max_side
        self._thresholds = thresholds
        self._propose_net = Proposer(load_state("pnet")).requires_grad_(False).to(device)
        self._refine_net, self._output_net = (
            Judge(load_state(name), pools)
            .requires_grad_(False)
            .to(device)
            .to(memory_format=torch.channels_last)  # twice as fast on processors
            for name, pools in (("rnet", (3, 3)), ("onet", (3, 3, 2)))
        )

    def locate(self, images: Sequence[Pixels]) -> list[list[Face]]:
        """Find the faces of each picture.

        Args:
            images: uint8 RGB (H, W, 3); sizes may differ. Those that are of one size after
                shrinking to ``max_side``, and shrunk as much, go through the networks together.

        Returns:
            For each picture its faces, largest first; boxes may reach beyond the border.
        """
        shapes = [working_shape(image, self._max_side) for image in images]
        found: list[list[Face]] = [[] for _ in images]
        # Not one for a whole batch: what is found in a picture must not depend on the others.
        smallest = [
            max(_SMALLEST, self._min_face * shape[0] / image.shape[0])
            for shape, image in zip(shapes, images, strict=True)
        ]
        ways = list(zip(shapes, smallest, strict=True))
        for shape, least in dict.fromkeys(ways):
            same = [i for i, other in enumerate(ways) if other == (shape, least)]
            at_once = max(1, _PIXELS_AT_ONCE // (shape[0] * shape[1]))
            for start in range(0, len(same), at_once):
                chunk = same[start : start + at_once]
                small = np.stack([shrunk(images[i], shape) for i in chunk])
                faces = self._cascade(small, least)
                for i, rows in zip(chunk, faces, strict=True):
                    found[i] = to_faces(rows, images[i], shape, self._min_face)
        return found

    @torch.inference_mode()
    def _cascade(self, images: Pixels, min_face: float) -> list[NDArray[np.float32]]:
        """Rows (box 4, score, points 10) for each of (B, H, W, 3) pictures, in their pixels."""
        shape = (images.shape[1], images.shape[2])
        table = _summed_areas(torch.from_numpy(images).to(self._device))
        owners, boxes, scores = self._propose(table, shape, min_face)

        if len(boxes):
            windows = _windows(boxes, shape)
            shift, score = _in_parts(self._refine_net, _cut(table, owners, windows, 24))
            keep = score[:, 1] > self._thresholds[1]
            owners, boxes, scores, shift = owners[keep], boxes[keep], score[keep, 1], shift[keep]
            keep = best(boxes, scores, owners, 0.7)
            owners, boxes = owners[keep], _square(_shifted(boxes[keep], shift[keep], 1))

        points = boxes.new_zeros(len(boxes), 10)
        if len(boxes):
            windows = _windows(boxes, shape)
            shift, points, score = _in_parts(self._output_net, _cut(table, owners, windows, 48))
            keep = score[:, 1] > self._thresholds[2]
            owners, scores, window = owners[keep], score[keep, 1], windows[keep].float()
            # Both are fractions of what the network saw. It gives five x, then five y.
            sides = window[:, 2:] - window[:, :2]
            places = points[keep].view(-1, 2, 5).transpose(1, 2)
            points = (window[:, None, :2] + places * sides[:, None]).flatten(1)
            boxes = _shifted(window, shift[keep], 0)

        found = torch.cat([boxes, scores[:, None], points, owners[:, None]], dim=1).cpu().numpy()
        return [_without_nested(found[found[:, -1] == i, :-1]) for i in range(len(images))]

    def _propose(
        self, table: Tensor, shape: tuple[int, int], min_face: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """First stage: picture index (N,), square boxes (N, 4) and scores (N,) of candidates."""
        height, width = shape
        maps: list[Tensor] = []
        cells: list[Tensor] = []
        levels: list[Tensor] = []
        scale = _CELL / min_face
        while min(height, width) * scale >= _CELL:
            size = (int(height * scale + 1), int(width * scale + 1))
            outputs = self._propose_net(_resized(table, shape, size))
            corners = _grid(outputs) * _STRIDE
            cells.append((torch.cat([corners + 1, corners + _CELL], dim=1) / scale).floor())
            maps.append(outputs.flatten(1, 2))
            levels.append(torch.full((len(corners),), len(levels), device=table.device))
            scale *= _PYRAMID_STEP
        if not maps:
            nothing = table.new_zeros(0, dtype=torch.float32)
            return nothing.long(), nothing.view(0, 4), nothing
        outputs = torch.cat(maps, dim=1)
        least = math.log(self._thresholds[0] / (1 - self._thresholds[0]))
        owner, place = (outputs[..., 0] >= least).nonzero().unbind(1)
        box, found = torch.cat(cells)[place], outputs[owner, place]
        score, shift = found[:, 0], found[:, 1:]
        # Once among the cells of a level, and once among all of a picture.
        keep = best(box, score, owner * len(levels) + torch.cat(levels)[place], 0.5)
        keep = keep[best(box[keep], score[keep], owner[keep], 0.7)]
        return owner[keep], _square(_shifted(box[keep], shift[keep], 0)), score[keep]


def _grid(maps: Tensor) -> Tensor:
    """The column and the row of each place of maps (B, H, W, C), as (H · W, 2)."""
    rows, columns = (torch.arange(float(n), device=maps.device) for n in maps.shape[1:3])
    return torch.cartesian_prod(rows, columns).flip(1)


def _summed_areas(pictures: Tensor) -> Tensor:
    """The sums of all that is above and to the left in uint8 pictures (B, H, W, 3).

    Any part of a picture is then averaged over areas by four look-ups, however large it is.

    Returns:
        int32 (B, H + 1 or more, W + 1, 3). Sums may overflow; their differences are right even so.
    """
    # Down the columns in blocks of rows, and then over the blocks: few steps, each a long one;
    # torch's own cumsum is three times slower down the columns.
    count, height = pictures.shape[:2]
    rows = math.isqrt(height) + 1
    blocks = -(-(height + 1) // rows)
    padding = (0, 0, 1, 0, 1, blocks * rows - height - 1)
    table = F.pad(pictures, padding).cumsum(2, dtype=torch.int32)
    parts = table.view(count, blocks, rows, -1)
    for row in range(1, rows):
        parts[:, :, row] += parts[:, :, row - 1]
    for block in range(1, blocks):
        parts[:, block] += parts[:, block - 1, -1:]
    return table


def _spans(first: Tensor, last: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """Where each of ``parts`` equal parts of first … last begins and ends: whole pixels, (N, P).

    Pixels that two parts share belong to both.
    """
    place = torch.arange(parts + 1, device=first.device) * (last - first)[:, None]
    return first[:, None] + place[:, :-1] // parts, first[:, None] - (-place[:, 1:] // parts)


def _resized(table: Tensor, shape: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The pictures of ``shape`` behind ``table``, averaged over areas: (B, 3, *size)."""
    nothing = table.new_zeros(1, dtype=torch.long)
    (top,), (bottom,) = _spans(nothing, nothing + shape[0], size[0])
    (left,), (right,) = _spans(nothing, nothing + shape[1], size[1])
    rows = table.index_select(1, bottom).sub_(table.index_select(1, top))
    sums = rows.index_select(2, right).sub_(rows.index_select(2, left))
    areas = (bottom - top)[:, None, None] * (right - left)[:, None]
    return sums.float().mul_(1 / areas).permute(0, 3, 1, 2)


def _windows(boxes: Tensor, shape: tuple[int, int]) -> Tensor:
    """The part of the picture that a candidate is cut from: long (N, 4), from 0, ends excluded."""
    height, width = shape
    x0, y0, x1, y1 = boxes.trunc().long().unbind(1)
    left, top = (x0 - 1).clamp(0, width - 1), (y0 - 1).clamp(0, height - 1)
    right, bottom = torch.maximum(x1, left + 1), torch.maximum(y1, top + 1)
    return torch.stack([left, top, right.clamp(max=width), bottom.clamp(max=height)], dim=1)


def _cut(table: Tensor, owners: Tensor, windows: Tensor, size: int) -> Tensor:
    """The windows' pixels averaged over areas, (N, 3, size, size), from -1 to 1."""
    height, width = table.shape[1:3]
    left, right = _spans(windows[:, 0], windows[:, 2], size)
    top, bottom = _spans(windows[:, 1], windows[:, 3], size)
    areas = (bottom - top)[:, :, None] * (right - left)[:, None]
    top, bottom = ((owners[:, None] * height + y)[:, :, None] * width for y in (top, bottom))
    left, right = left[:, None], right[:, None]
    sums = table.flatten(0, 2).index_select
    pixels = sums(0, (bottom + right).flatten()) - sums(0, (bottom + left).flatten())
    pixels += sums(0, (top + left).flatten()) - sums(0, (top + right).flatten())
    means = pixels.view(*areas.shape, 3) * (1 / areas)[..., None]
    return ((means - 127.5) / 128).permute(0, 3, 1, 2)


def _in_parts(network: nn.Module, candidates: Tensor) -> list[Tensor]:
    """Run ``network`` on so many candidates at once as bounds the memory."""
    parts = [network(part) for part in torch.split(candidates, _CANDIDATES_AT_ONCE)]
    return [torch.cat(outputs) for outputs in zip(*parts, strict=True)]


def _shifted(boxes: Tensor, shift: Tensor, last: int) -> Tensor:
    """Boxes with their edges moved by fractions of their sides."""
    sides = boxes[:, 2:] - boxes[:, :2] + last
    return boxes + shift * sides.repeat(1, 2)


def _square(boxes: Tensor) -> Tensor:
    """The squares of the longer side about the same centres."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], dim=1)


def _without_nested(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Drop boxes that a better one covers by more than 0.7 of the smaller of the two."""
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    sides = np.minimum(rows[:, None, 2:4], rows[:, 2:4])
    sides = np.maximum(sides - np.maximum(rows[:, None, :2], rows[:, :2]), 0)
    areas = np.prod(rows[:, 2:4] - rows[:, :2], axis=1)
    covered = np.prod(sides, axis=2) > 0.7 * np.minimum(areas[:, None], areas)
    kept: list[int] = []
    for i in range(len(rows)):
        if not covered[i, kept].any():
            kept.append(i)
    return rows[kept]
