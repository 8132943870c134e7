"""Find the faces of pictures: MTCNN's three networks, run as batches on the device.

Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional
Networks", 2016. The weights are those that facenet-pytorch ships (MIT). The cascade is written
anew around them: the library refuses pictures of mixed size, cuts and resizes every candidate on
its own, and stretches candidates that overlap the picture's border, which misplaces their points.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from facenet_pytorch.models.mtcnn import ONet, PNet, RNet
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms, roi_align

from facekit.core.errors import FacekitError
from facekit.faces.locators._working import shrunk, to_faces, working_shape
from facekit.types import Face, Pixels

# What a candidate must score in each of the three stages. The library asks 0.7 of the last, and
# finds faces in hands and folds of cloth there; true faces rarely score below 0.99.
_THRESHOLDS = (0.6, 0.7, 0.9)
_PYRAMID_STEP = 0.709  # about sqrt(1/2), the paper's
_CELL = 12  # the first network looks at 12×12 pixels …
_STRIDE = 2  # … in steps of 2
_SMALLEST = 20  # pixels of the working picture; smaller faces give the later stages too little
_CANDIDATES_AT_ONCE = 512
_PIXELS_AT_ONCE = 8_000_000


class Locator:
    """MTCNN behind :class:`facekit.faces.locate.Locator`."""

    def __init__(
        self,
        device: torch.device,
        *,
        min_face: int = 40,
        max_side: int = 640,
        weights: Path | None = None,
    ) -> None:
        """Load the networks.

        Args:
            device: where to compute.
            min_face: smallest face to look for: longer side of its box, in pixels of the picture.
                The cost grows with (picture's side / ``min_face``) squared.
            max_side: pictures with a longer side are shrunk to it for the search, so in large
                ones only faces of at least ``20 · longer side / max_side`` pixels are found.
            weights: none; they come with the library.

        Raises:
            FacekitError: if ``weights`` are given.
        """
        if weights is not None:
            raise FacekitError(f"{weights}: the locator 'mtcnn' brings its own weights; give none")
        self._device = device
        self._min_face = min_face
        self._max_side = max_side
        self._propose_net, self._refine_net, self._output_net = (
            network().eval().requires_grad_(False).to(device) for network in (PNet, RNet, ONet)
        )

    def locate(self, images: Sequence[Pixels]) -> list[list[Face]]:
        """Find the faces of each picture.

        Args:
            images: uint8 RGB (H, W, 3); sizes may differ. Those that are of one size after
                shrinking to ``max_side`` go through the networks together.

        Returns:
            For each picture its faces, largest first; boxes may reach beyond the border.
        """
        shapes = [working_shape(image, self._max_side) for image in images]
        found: list[list[Face]] = [[] for _ in images]
        for shape in dict.fromkeys(shapes):
            same = [i for i, other in enumerate(shapes) if other == shape]
            at_once = max(1, _PIXELS_AT_ONCE // (shape[0] * shape[1]))
            for start in range(0, len(same), at_once):
                chunk = same[start : start + at_once]
                # The least shrunk picture of a chunk asks for the smallest faces.
                shrink = max(shape[0] / images[i].shape[0] for i in chunk)
                small = np.stack([shrunk(images[i], shape) for i in chunk])
                faces = self._cascade(small, max(_SMALLEST, self._min_face * shrink))
                for i, rows in zip(chunk, faces, strict=True):
                    found[i] = to_faces(rows, images[i], shape, self._min_face)
        return found

    @torch.inference_mode()
    def _cascade(self, images: Pixels, min_face: float) -> list[NDArray[np.float32]]:
        """Rows (box 4, score, points 10) for each of (B, H, W, 3) pictures, in their pixels."""
        halvings = _halvings(torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2).float())

        owners, boxes, scores = self._propose(halvings, min_face)
        if len(boxes):
            shift, logits = _in_parts(self._refine_net, _cut(halvings, owners, boxes, 24))
            keep = logits[:, 1] > _THRESHOLDS[1]
            owners, boxes, scores, shift = owners[keep], boxes[keep], logits[keep, 1], shift[keep]
            keep = batched_nms(boxes, scores, owners, 0.7)
            owners, boxes = owners[keep], _square(_shifted(boxes[keep], shift[keep]))

        points = boxes.new_zeros(len(boxes), 10)
        if len(boxes):
            shift, points, logits = _in_parts(self._output_net, _cut(halvings, owners, boxes, 48))
            keep = logits[:, 1] > _THRESHOLDS[2]
            owners, boxes, scores = owners[keep], boxes[keep], logits[keep, 1]
            # The network gives five x, then five y, as fractions of the box.
            places = points[keep].view(-1, 2, 5).transpose(1, 2)
            sides = boxes[:, 2:] - boxes[:, :2]
            points = (boxes[:, None, :2] + places * sides[:, None]).flatten(1)
            boxes = _shifted(boxes, shift[keep])

        rows = torch.cat([boxes, scores[:, None], points], dim=1).cpu().numpy()
        owner = owners.cpu().numpy()
        return [_without_nested(rows[owner == i]) for i in range(len(images))]

    def _propose(self, halvings: list[Tensor], min_face: float) -> tuple[Tensor, Tensor, Tensor]:
        """First stage: picture index (N,), square boxes (N, 4) and scores (N,) of candidates."""
        height, width = halvings[0].shape[2:]
        owners, boxes, scores, shifts = [], [], [], []
        scale = _CELL / min_face
        while min(height, width) * scale >= _CELL:
            size = (math.ceil(height * scale), math.ceil(width * scale))
            level = min(int(-math.log2(scale)), len(halvings) - 1) if scale < 1 else 0
            pixels = F.interpolate(halvings[level], size, mode="area")
            shift, score = self._propose_net(_normal(pixels))
            owner, row, column = (score[:, 1] >= _THRESHOLDS[0]).nonzero().unbind(1)
            corner = torch.stack([column, row], dim=1) * _STRIDE
            box = torch.cat([corner, corner + _CELL], dim=1).float()
            box *= box.new_tensor([width / size[1], height / size[0]]).repeat(2)
            score = score[owner, 1, row, column]
            # Cells 4 pixels apart overlap by exactly a half: stay clear of it, or rounding, which
            # depends on the batch, would decide.
            keep = batched_nms(box, score, owner, 0.51)
            owners.append(owner[keep])
            boxes.append(box[keep])
            scores.append(score[keep])
            shifts.append(shift[owner, :, row, column][keep])
            scale *= _PYRAMID_STEP
        if not boxes:
            nothing = halvings[0].new_zeros(0)
            return nothing.long(), nothing.view(0, 4), nothing
        owner, box, score = torch.cat(owners), torch.cat(boxes), torch.cat(scores)
        keep = batched_nms(box, score, owner, 0.7)
        return owner[keep], _square(_shifted(box[keep], torch.cat(shifts)[keep])), score[keep]


def _normal(pixels: Tensor) -> Tensor:
    return (pixels - 127.5) / 128


def _halvings(batch: Tensor) -> list[Tensor]:
    """The pictures, halved again and again while a face could still be seen in them.

    A large candidate is cut from a small picture, which costs a fraction and looks the same.
    """
    levels = [batch]
    while min(levels[-1].shape[2:]) >= 2 * 48:
        levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True))
    return levels


def _cut(halvings: list[Tensor], owners: Tensor, boxes: Tensor, size: int) -> Tensor:
    """The candidates (N, 3, size, size), averaged over areas; black beyond the border."""
    shrinkage = (boxes[:, 2] - boxes[:, 0]) / size
    levels = shrinkage.clamp(min=1).log2().long().clamp(max=len(halvings) - 1)
    regions = torch.cat([owners[:, None].to(boxes), boxes], dim=1)
    cut = boxes.new_empty(len(boxes), 3, size, size)
    for level, pictures in enumerate(halvings):
        here = levels == level
        cut[here] = roi_align(pictures, regions[here], size, 0.5**level, 2, aligned=True)
    return _normal(cut)


def _in_parts(network: nn.Module, candidates: Tensor) -> list[Tensor]:
    """Run ``network`` on so many candidates at once as bounds the memory."""
    parts = [network(part) for part in torch.split(candidates, _CANDIDATES_AT_ONCE)]
    return [torch.cat(outputs) for outputs in zip(*parts, strict=True)]


def _shifted(boxes: Tensor, shift: Tensor) -> Tensor:
    """Boxes with their edges moved by fractions of their sides."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return boxes + shift * sides.repeat(1, 2)


def _square(boxes: Tensor) -> Tensor:
    """The squares of the longer side about the same centres."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], dim=1)


def _without_nested(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Drop boxes that a better one covers by more than 0.7 of the smaller of the two."""
    kept: list[NDArray[np.float32]] = []
    for row in rows[np.argsort(-rows[:, 4], kind="stable")]:
        if all(_overlap_of_smaller(row, better) <= 0.7 for better in kept):
            kept.append(row)
    return np.stack(kept) if kept else rows[:0]


def _overlap_of_smaller(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    sides = np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2])
    smaller = min(np.prod(a[2:4] - a[:2]), np.prod(b[2:4] - b[:2]))
    return float(np.prod(np.maximum(sides, 0)) / smaller)
