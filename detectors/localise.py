"""Where in a face a detector sees traces, and whether covering the place takes them away.

Some members of a detector say of each cell of a face how much was laid over it
(``detectors.models._residual``): these patch scores are the heat map, of the member that speaks
most. Such a map may be mere decor, as Adebayo et al. 2018 showed of others ("Sanity Checks for
Saliency Maps", arXiv:1810.03292). So the place where it is strongest is covered, and it is measured
what the member's score loses (Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional
Networks", section 4.2). A cover leaves traces of its own; what counts is therefore the comparison
with covers of the same area elsewhere in the face. They are filled with the tones around them and
the detail beside them, and fade out at their edges: a black or a smooth square would itself be
noticed. They look odd, but have a picture's own traces.

Measured with the bundled detector (weights 0bb2ea1dc967) on photos of LFW's 23 test people, into
whose faces the same place of another's was pasted: 51 times a patch of a quarter to half of the
face's size, 68 times most of the face. The check agrees with 40 of these 119 (95% interval 26 to
42%) and with 15 of 50 of the same faces untouched (19 to 44%); by chance it would with one in nine,
and with a random place taken for the strongest it would with 7 of 119. The detector flags 11 of the
119; with 4 of those it agrees. So that it agrees hardly tells a forged face from another. But it
tells where: of the 22 small patches with which it agrees, the strongest place lies on 19, of the 29
others on 12, and at the same places of the untouched faces, where there is nothing, it lies in 24
of 50. Traces that are all over a face, as those of most splices are, no cover takes away.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
import torch

from detectors.calibrate import Scores
from detectors.models._residual import Localiser
from detectors.regions import Region, crops, region_from_crop
from detectors.report.model import Occlusion
from detectors.score import Detector, Member, to_tensor
from detectors.world import within
from facekit.faces.align import Matrices, apply, invert
from facekit.types import Floats, Pixels

GRID = 12
"""Cells a side of a heat map."""

Cell = tuple[int, int]
"""Row and column of a heat map."""

_SHOWN = "wide"  # the template of the crops that a report shows
_COVER = 3  # cells a side of what is covered: a 16th of the crop
_OTHERS = 8  # covers elsewhere
# Where in that crop covers' middles lie in the face, down and across: a cover of hair or background
# costs nothing.
_MIDDLE, _REACH = (0.5, 0.5), (0.34, 0.26)
_LEAST = 0.1  # of log-odds: a cover that costs less costs nothing
_SMALL = 16  # pixels a side of a cover whose fill is computed; it has no detail
_FADE = 0.12  # of a cover's side
_BESIDE = 1.3  # of its side: how far off its detail is taken from
_DETAIL = 0.15  # of its side: what is finer is detail


@dataclass(frozen=True, eq=False)
class Localised:
    """Where a member of a detector sees traces in one face.

    Attributes:
        member: its name.
        cells: float32 (GRID, GRID) in [0, 1], over the ``wide`` crop; 0 where it does not look.
        occlusion: whether covering the strongest place costs the member's score most.
    """

    member: str
    cells: Floats
    occlusion: Occlusion


def localise(detector: Detector, region: Region) -> Localised | None:
    """Draw a face's heat map, and check it by occlusion.

    It takes ten forward passes of one member, and one of each other that has cells: with two such
    members, of 128 and 160 pixels, 0.2 s on one core.

    Args:
        detector: whose members may have cells.
        region: of the face.

    Returns:
        The map of the member that adds most to this face's score; None if none with cells adds
        anything.

    Raises:
        FacekitError: for a face whose points are one and the same.
    """
    loudest = _loudest(detector, region)
    if loudest is None:
        return None
    member, region, score, patches = loudest
    cells = _over_shown_crop(patches, member, region)
    strongest = _strongest(cells)
    covered = cover(region, [strongest, *_elsewhere(strongest)])
    first, *others = (score - _looked(member, covered)[0]).round(4).tolist()
    return Localised(
        member=member.name,
        cells=cells,
        occlusion=Occlusion(
            strongest=first,
            elsewhere=others,
            agrees=first > max(_LEAST, *others),
            place=(*strongest, _COVER, _COVER),
        ),
    )


def cover(region: Region, places: Sequence[Cell]) -> list[Region]:
    """The region, in each with another square of the crop that is shown filled from around.

    Args:
        region: of a face.
        places: the squares' first cells.
    """
    to_region = region_from_crop(region, _SHOWN, GRID)
    side = _COVER * float(np.hypot(*to_region[:, 0]))
    whole = region.pixels.astype(np.float32)
    detail = np.asarray(whole - cv2.GaussianBlur(whole, (0, 0), _DETAIL * side), np.float32)
    square = np.array([[0, 0], [_COVER, 0], [_COVER, _COVER], [0, _COVER]])
    covered = []
    for place in places:
        corners = apply(to_region, square + np.array(place[::-1]))
        mask = np.zeros(region.pixels.shape[:2], np.float32)
        # OpenCV counts from pixel centres, here in sixteenths.
        cv2.fillConvexPoly(mask, np.round((corners - 0.5) * 16).astype(np.int32), 1.0, shift=4)
        mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), max(_FADE * side, 0.5)), np.float32)
        fill = _tones_around(region.pixels, mask, side) + _beside(detail, corners, side)
        pixels = region.pixels + (fill - region.pixels) * mask[..., None]
        covered.append(replace(region, pixels=np.clip(pixels.round(), 0, 255).astype(np.uint8)))
    return covered


def _tones_around(pixels: Pixels, mask: Floats, side: float) -> Floats:
    """What is around a mask, spread into it, without detail: (H, W, 3)."""
    height, width = mask.shape
    small = (max(1, round(width * _SMALL / side)), max(1, round(height * _SMALL / side)))
    covered = cv2.resize(mask, small, interpolation=cv2.INTER_AREA)
    # One pixel further, as the mask fades out.
    known = np.clip(1 - cv2.dilate(covered, np.ones((3, 3))), 1e-4, 1)[..., None]
    tones = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA).astype(np.float32)
    spread = cv2.GaussianBlur(np.dstack([tones * known, known]), (0, 0), _SMALL / 3)
    filled = np.asarray(spread[..., :3] / spread[..., 3:], np.float32)
    return np.asarray(cv2.resize(filled, (width, height)), np.float32)


def _beside(detail: Floats, corners: Matrices, side: float) -> Floats:
    """The detail beside a square, moved onto it, (H, W, 3).

    It is taken from further in the middle, so that the picture has it. Without it a cover is too
    smooth, which tells a detector more than what was covered did.
    """
    inwards = np.array(detail.shape[1::-1]) / 2 - corners.mean(axis=0)
    axis = int(abs(inwards[1]) > abs(inwards[0]))
    step = round(side * _BESIDE) * (1 if inwards[axis] >= 0 else -1)
    return np.roll(detail, -step, axis=1 - axis)


class _Loudest(NamedTuple):
    """A member, the face as large as it sees it, and what it says of it: logit and cells."""

    member: Member
    region: Region
    score: float
    patches: Floats


def _loudest(detector: Detector, region: Region) -> _Loudest | None:
    """The member with cells that adds most to the score; None if none adds anything."""
    seen: dict[int, _Loudest] = {}
    logits = []
    for number, member in enumerate(detector.parts):
        if not isinstance(member.network, Localiser):
            logits.append(float(member.logits([region])[0]))
            continue
        shown = within(region, member.config.data.world)
        (score,), (patches,) = _looked(member, [shown])
        logits.append(float(score))
        if max(weights[number] for weights in detector.stack.weights) > 0:
            seen[number] = _Loudest(member, shown, float(score), patches)
    added = detector.stack.parts(np.array([logits]))[0]
    return seen[max(seen, key=lambda number: added[number])] if seen else None


@torch.inference_mode()
def _looked(member: Member, regions: Sequence[Region]) -> tuple[Scores, Floats]:
    """The member's logits (N,), and its cells' probabilities, float32 (N, C, C)."""
    data = member.config.data
    seen = to_tensor(crops(regions, data.template, data.size), member.device)
    logits, cells = member.network(seen, with_cells=True)
    return logits.double().numpy(force=True), cells.sigmoid().float().numpy(force=True)


def _over_shown_crop(patches: Floats, member: Member, region: Region) -> Floats:
    """A member's cells (C, C), which lie over its own crop, sampled over the crop that is shown."""
    data = member.config.data
    along = np.arange(GRID) + 0.5
    centres = np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)
    in_region = apply(region_from_crop(region, _SHOWN, GRID), centres)
    in_crop = apply(invert(region_from_crop(region, data.template, data.size)), in_region)
    at = (in_crop * (len(patches) / data.size)).astype(np.float32).reshape(GRID, GRID, 2)
    inside = ((at >= 0) & (at <= len(patches))).all(axis=-1)
    x, y = cv2.split(at - np.float32(0.5))
    sampled = cv2.remap(patches, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.where(inside, np.clip(sampled, 0, 1), 0).astype(np.float32)


def _strongest(cells: Floats) -> Cell:
    """The square with the highest mean."""
    means = np.lib.stride_tricks.sliding_window_view(cells, (_COVER, _COVER)).mean((2, 3))
    row, column = np.unravel_index(int(means.argmax()), means.shape)
    return int(row), int(column)


def _elsewhere(strongest: Cell) -> list[Cell]:
    """Squares of the face apart from the strongest, as far from one another as there is room."""
    places = np.array(list(np.ndindex((GRID - _COVER + 1,) * 2)))
    in_face = np.hypot(*(((places + _COVER / 2) / GRID - _MIDDLE) / _REACH).T) <= 1
    apart = np.abs(places - strongest).max(axis=1) >= _COVER
    left = places[in_face & apart]
    nearest = np.hypot(*(left - strongest).T)
    chosen: list[Cell] = []
    while len(chosen) < _OTHERS:
        row, column = left[int(nearest.argmax())]
        chosen.append((int(row), int(column)))
        nearest = np.minimum(nearest, np.hypot(*(left - chosen[-1]).T))
    return chosen
