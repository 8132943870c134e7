"""Talking heads: a photo that moves, warped first and painted where no photo shows what is seen.

After Siarohin et al., "First Order Motion Model for Image Animation", 2019, arXiv:2003.00196 (a
dense flow made from a sparse one, a map of what is hidden, a painter), and Zhao & Zhang,
"Thin-Plate Spline Motion Model for Image Animation", CVPR 2022, arXiv:2203.14367 (splines between
key points; what stays is a motion of its own). Written anew; no code taken.

What is different here: the key points are a face's 70 landmarks, whose motion is given, not
learned; the flow and what is hidden are taught by the studio, which knows both exactly; and several
photos are blended by how far each of them shows what is to be seen.

1. A spline through the landmarks says, roughly, where each place of the new picture is in a photo.
2. A network corrects it (:class:`Motion`): what belongs to the head and what stays, hair and
   shoulders that no landmark tells of, and how far the place is seen in that photo at all.
3. Features of the photos are warped so and blended (:class:`TalkingHead`), and what is painted
   from them is added to the photos' own pixels. A sum, no choice between the two: a gate learns
   first of all to trust the photos, shuts, and the painter behind it never learns anything.
"""

import math
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from facekit.adversary.metrics.ssim import coarse_ssim
from facekit.adversary.objective import discriminator_loss, generator_loss
from facekit.conversion.images import to_images, to_pixels
from facekit.core import checkpoint, config, weights
from facekit.core.device import default_threads
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.core.run import Run
from facekit.core.seed import seed_step
from facekit.datasets.heads import Heads, load_heads, read_heads, render_heads
from facekit.faces.landmarks import MIRROR
from facekit.generators._gate import GatedRun
from facekit.motion import Animator, Cast
from facekit.networks.discriminator import Discriminator
from facekit.types import Floats, Pixels
from facekit.watermark import Kind

KIND = Kind.GENERATED

VIDEOS = True

WEIGHTS = Path(__file__).parent.parent / "weights"

HEADS = "heads.safetensors"
"""In the folder of a pre-training: the studio heads that it learns from."""


JITTER = 0.003
"""Deviation of the landmarks, as a share of the side, while a method learns: as a network errs."""


class Config(config.Config):
    """Settings of the talking head.

    Attributes:
        size: side of the pictures, in pixels.
        width: channels at half the resolution; the parameters grow with its square.
        steps: optimiser steps.
        batch: pictures a step.
        photos: at most so many photos of a person at once, while it learns.
        learning_rate: its peak; it rises for ``warm_up`` steps, then falls as half a cosine.
        warm_up: steps.
        average: the weights kept are an average over about so many last steps.
        ssim_weight: weight of 1 - SSIM beside the L1 loss.
        warp_weight: weight of the warped photo's own L1 loss, where it is seen.
        flow_weight: weight of the flow's distance from the studio's, in shares of the side.
        seen_weight: weight of the cross-entropy of what is seen.
        adversarial_weight: weight of the game against a discriminator; 0 leaves it out.
        adversarial_from: share of the steps after which the game begins.
        gamma: weight γ of the discriminator's gradient penalties.
        jitter: deviation of the landmarks while it learns, as a share of the side: as a network
            that reads them is wrong.
        pretrained: name of bundled weights to start from; "" starts from noise.
        motion: name of bundled weights whose :class:`Motion` is taken and stays as it is, so that
            two cores have only painting to learn; "" learns both.
        moments: of a folder of people: pictures of each clip that are learned from.
        most_clips: of a folder of people: clips that are kept in memory, taken evenly.
        checkpoint_every: steps between checkpoints.
        strip_every: steps between training strips.
    """

    size: int = Field(128, ge=32, le=512, multiple_of=16)
    width: int = Field(40, ge=8, le=256)
    steps: int = Field(6000, ge=1)
    batch: int = Field(12, ge=1)
    photos: int = Field(3, ge=1, le=16)
    learning_rate: float = Field(1e-3, gt=0)
    warm_up: int = Field(100, ge=0)
    average: int = Field(300, ge=1)
    ssim_weight: float = Field(0.5, ge=0)
    warp_weight: float = Field(0.5, ge=0)
    flow_weight: float = Field(10.0, ge=0)
    seen_weight: float = Field(0.1, ge=0)
    adversarial_weight: float = Field(0.0, ge=0)
    adversarial_from: float = Field(0.7, ge=0, le=1)
    gamma: float = Field(1.0, ge=0)
    jitter: float = Field(JITTER, ge=0)
    pretrained: str = ""
    motion: str = ""
    moments: int = Field(8, ge=2, le=64)
    most_clips: int = Field(4000, ge=1)
    checkpoint_every: int = Field(200, ge=1)
    strip_every: int = Field(500, ge=1)


# --- Geometry. Places are (x, y) in [0, 1], shares of the side; maps (B, h, w, 2) hold places. ---

_PARTS = (
    # Lines through landmarks: the outline, brows and nose; the eyes; the mouth.
    (range(17), range(17, 22), range(22, 27), range(27, 31), range(31, 36)),
    ((*range(36, 42), 36), (*range(42, 48), 42), (68, 68), (69, 69)),
    ((*range(48, 60), 48), (*range(60, 68), 60)),
)
PARTS = len(_PARTS)

_BETWEEN = 3  # parts of a line from one landmark to the next
_BROAD = 0.012  # of a line: the deviation across it
_STIFF = 1e-3  # how far a spline may miss its points, so that two in one place do not tear it


def grid(side: int, device: torch.device) -> Tensor:
    """The places of the pixels of a map: (1, side, side, 2)."""
    centres = (torch.arange(side, device=device) + 0.5) / side
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y], -1)[None]


def spline(points: Tensor, of: Tensor, side: int) -> Tensor:
    """The thin-plate spline that takes ``points`` to ``of``, at the pixels of a map.

    Bookstein, "Principal Warps", 1989; away from the points it is an affine map.

    Args:
        points: (B, N, 2), where points are in the new picture.
        of: (B, N, 2), where they are in the photo.
        side: of the map.

    Returns:
        (B, side, side, 2): where each place of the new picture is in the photo.
    """
    with torch.autocast(points.device.type, enabled=False):  # half precision would tear it
        return _spline(points.float(), of.float(), side)


def _spline(points: Tensor, of: Tensor, side: int) -> Tensor:
    batch, count, _ = points.shape
    ones = points.new_ones(batch, count, 1)
    plane = torch.cat([ones, points], 2)
    near = _bent(points, points) + _STIFF * torch.eye(count, device=points.device)
    zero = points.new_zeros(batch, 3, 3)
    system = torch.cat([torch.cat([near, plane], 2), torch.cat([plane.mT, zero], 2)], 1)
    aim = torch.cat([of - points, points.new_zeros(batch, 3, 2)], 1)
    # Unchecked, which would be a look at the values; of what is singular, nothing good comes.
    weights = torch.linalg.solve_ex(system, aim).result
    # A coarse map, enlarged, is as smooth as a spline is, and a sixteenth of the work.
    coarse = max(8, side // 4)
    places = grid(coarse, points.device).view(1, -1, 2).expand(batch, -1, -1)
    moved = _bent(places, points) @ weights[:, :count]
    moved = (
        moved + torch.cat([places.new_ones(*places.shape[:2], 1), places], 2) @ weights[:, count:]
    )
    moved = moved.mT.reshape(batch, 2, coarse, coarse)
    return grid(side, points.device) + resized(moved, side).permute(0, 2, 3, 1)


def _bent(places: Tensor, points: Tensor) -> Tensor:
    """The kernel r² log r of thin plates, (B, P, N)."""
    square = (places[:, :, None] - points[:, None]).square().sum(3)
    return 0.5 * square * (square + 1e-9).log()


def warp(images: Tensor, places: Tensor) -> Tensor:
    """What pictures (B, C, H, H) show at places (B, h, w, 2); beyond the border, its pixels."""
    # A place that is no number, as after a step that went wrong, would be read beyond the memory.
    grid = 2 * places.nan_to_num() - 1
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


@lru_cache(maxsize=8)
def _lines(device: torch.device) -> tuple[Tensor, ...]:
    """For each part, what makes points on its lines of landmarks: (M, 70)."""
    found = []
    for part in _PARTS:
        rows = []
        for line in part:
            for a, b in pairwise(line):
                for k in range(_BETWEEN + 1):
                    row = torch.zeros(70)
                    row[a] += 1 - k / _BETWEEN
                    row[b] += k / _BETWEEN
                    rows.append(row)
        found.append(torch.stack(rows).to(device))
    return tuple(found)


def maps_of(points: Tensor, side: int) -> Tensor:
    """Drawings of landmarks (B, 70, 2): (B, 3, side, side) in [0, 1], soft lines."""
    places = grid(side, points.device).view(1, -1, 2).expand(len(points), -1, -1)
    drawn = []
    with torch.autocast(points.device.type, enabled=False):
        for lines in _lines(points.device):
            near = torch.cdist(places, lines @ points.float()).amin(2)
            drawn.append(torch.exp(-0.5 * (near / _BROAD).square()))
    return torch.stack(drawn, 1).view(len(points), PARTS, side, side)


_OPENINGS = (range(60, 68), range(36, 42), range(42, 48))  # of the lips, and of each eye


def openings(points: Tensor, side: int) -> Tensor:
    """Where a mouth and eyes stand open, of landmarks (B, 70, 2): (B, 2, side, side) of 0 and 1.

    A place is within a line around it if a ray from it to the right crosses that an odd number of
    times. Lines alone would leave the painter to find out what is between them.
    """
    x = (torch.arange(side, device=points.device) + 0.5) / side
    y = x[:, None]
    within = []
    for line in _OPENINGS:
        here = points[:, None, list(line)].float()  # of each row of the map the same: (B, 1, N, 2)
        there = here.roll(-1, 2)
        (x1, y1), (x2, y2) = here.unbind(3), there.unbind(3)
        crossed = (y1 > y) != (y2 > y)
        at = torch.where(crossed, x1 + (y - y1) * (x2 - x1) / (y2 - y1), -1.0)  # (B, side, N)
        within.append((at[:, :, None] > x[:, None]).sum(3) % 2 == 1)
    mouth, right, left = within
    return torch.stack([mouth, right | left], 1).float()


# --- The networks ---


class _Block(nn.Sequential):
    """Two convolutions and a way around them."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.LeakyReLU(0.1),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        nn.init.zeros_(self[3].weight)  # type: ignore[arg-type]

    def forward(self, maps: Tensor) -> Tensor:
        """Change a batch."""
        changed: Tensor = super().forward(maps)  # type: ignore[no-untyped-call]
        return maps + changed


def _down(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 4, 2, 1), nn.LeakyReLU(0.1))


def _up(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 4 * out, 3, padding=1), nn.PixelShuffle(2), nn.LeakyReLU(0.1)
    )


class Motion(nn.Module):
    """From what a spline says of a photo to where each place is in it, and how far it is seen.

    It works at half the pictures' resolution.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 2 * width, 3 * width]
        self.start = nn.Sequential(nn.Conv2d(9 + 2 * PARTS, width, 5, padding=2), nn.LeakyReLU(0.1))
        self.down = nn.ModuleList(_down(a, b) for a, b in pairwise(widths))
        self.middle = _Block(widths[-1])
        self.up = nn.ModuleList(_up(a, b) for a, b in pairwise(widths[::-1]))
        self.mix = nn.ModuleList(nn.Conv2d(2 * w, w, 1) for w in widths[-2::-1])
        self.say = nn.Conv2d(width, 4, 3, padding=1)
        nn.init.zeros_(self.say.weight)
        # To begin with, all is head, where the spline says, and is seen.
        self.say.bias = nn.Parameter(torch.tensor([2.0, 0, 0, 2.0]))

    def forward(
        self,
        photos: Tensor,
        first: Tensor,
        of: Tensor,
        points: Tensor,
        lines_of: Tensor,
        lines: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Look at photos.

        Args:
            photos: (B, 3, h, h) in [-1, 1], at half the resolution.
            first: (B, 3, h, h), the photo of each person that is to move: what is behind them in
                another one is not what is to be seen.
            of: (B, 70, 2), their landmarks.
            points: (B, 70, 2), those of the new picture.
            lines_of: (B, 3, h, h), the drawings of theirs, by :func:`maps_of`.
            lines: (B, 3, h, h), and of the new picture's.

        Returns:
            (B, h, h, 2): where each place of the new picture is in the photo; and the logits
            (B, 1, h, h) of its being seen there.
        """
        side = photos.shape[2]
        bent = spline(points, of, side)
        given = [photos, warp(photos, bent), first, lines, lines_of]
        maps = self.start(torch.cat(given, 1).contiguous(memory_format=torch.channels_last))
        kept = []
        for down in self.down:
            kept.append(maps)
            maps = down(maps)
        maps = self.middle(maps)
        for up, mix, before in zip(self.up, self.mix, kept[::-1], strict=True):
            maps = mix(torch.cat([up(maps), before], 1))
        said = self.say(maps).float()
        head = said[:, :1].sigmoid().permute(0, 2, 3, 1)
        more = 0.25 * torch.tanh(said[:, 1:3]).permute(0, 2, 3, 1)
        still = grid(side, photos.device)
        return still + head * (bent - still) + more, said[:, 3:]


class Looks(NamedTuple):
    """What is seen of B people's T photos, once for all that they will do.

    Attributes:
        photos: (B, T, 3, S, S) in [-1, 1].
        points: (B, T, 70, 2), their landmarks.
        lines: (B * T, 3, S / 2, S / 2), drawings of the landmarks.
        half: (B * T, width, S / 2, S / 2), features; ``quarter`` (B * T, 2 * width, S / 4, S / 4).
    """

    photos: Tensor
    points: Tensor
    lines: Tensor
    half: Tensor
    quarter: Tensor


class Drawn(NamedTuple):
    """New pictures, and how they came about.

    Attributes:
        images: (B, 3, S, S).
        warped: (B, 3, S, S): the photos' own pixels, blended.
        places: (B, T, S / 2, S / 2, 2), where each place is in each photo.
        seen: (B, T, S / 2, S / 2), logits of its being seen there.
    """

    images: Tensor
    warped: Tensor
    places: Tensor
    seen: Tensor


class TalkingHead(nn.Module):
    """Photos and landmarks to pictures."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, width // 2, 5, padding=2), nn.LeakyReLU(0.1))
        self.halved = nn.Sequential(_down(width // 2, width), _Block(width))
        self.quartered = nn.Sequential(_down(width, 2 * width), _Block(2 * width))
        self.begin = nn.Conv2d(2 * width + PARTS + 1, 2 * width, 3, padding=1)
        self.broad = nn.Sequential(
            _down(2 * width, 3 * width),
            _Block(3 * width),
            _Block(3 * width),
            _up(3 * width, 2 * width),
        )
        self.deep = nn.Sequential(_Block(2 * width), nn.LeakyReLU(0.1))
        self.to_half = _up(2 * width, width)
        self.join = nn.Conv2d(2 * width + PARTS + 1, width, 3, padding=1)
        self.fine = nn.Sequential(_Block(width), nn.LeakyReLU(0.1))
        self.to_full = _up(width, width // 2)
        self.paint = nn.Sequential(
            nn.Conv2d(width // 2 + 9, width // 2, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width // 2, 3, 3, padding=1),
        )
        # Through so many layers, what is seen would fade: He et al., arXiv:1502.01852.
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.weight.any():  # not those that start from 0
                nn.init.kaiming_normal_(layer.weight, a=0.1)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        # To begin with, nothing is painted.
        nn.init.zeros_(self.paint[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.paint[2].bias)  # type: ignore[arg-type]
        self.motion = Motion(width)

    def look(self, photos: Tensor, points: Tensor) -> Looks:
        """Look at photos (B, T, 3, S, S) in [-1, 1], whose landmarks (B, T, 70, 2) are known."""
        flat = photos.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        half = self.halved(self.first(flat))
        lines = maps_of(points.flatten(0, 1), photos.shape[-1] // 2)
        return Looks(photos, points, lines, half, self.quartered(half))

    def forward(self, looks: Looks, points: Tensor) -> Drawn:
        """Draw pictures of people whose landmarks are ``points`` (B, 70, 2)."""
        batch, count, _, size, _ = looks.photos.shape
        photos = looks.photos.flatten(0, 1)
        small = F.interpolate(photos, scale_factor=0.5, mode="bilinear", antialias=True)
        lines = maps_of(points, size // 2)
        first, every, drawn = (
            of_each.repeat_interleave(count, 0) for of_each in (small[::count], points, lines)
        )
        places, logits = self.motion(
            small, first, looks.points.flatten(0, 1), every, looks.lines, drawn
        )
        seen = logits.sigmoid()

        # Each photo counts by how well it shows a place; if none does, all count alike.
        share = _apart(seen + 1e-3, batch)
        share = share / share.sum(1, keepdim=True)
        shown = 1 - (1 - _apart(seen, batch)).prod(1)

        def blended(maps: Tensor) -> Tensor:
            side = maps.shape[2]
            weight = _apart(resized(share.flatten(0, 1), side), batch)
            return (weight * _apart(warp(maps, placed(places, side)), batch)).sum(1)

        warped = blended(photos)
        half, quarter = blended(looks.half), blended(looks.quarter)
        around = torch.cat([lines, shown], 1)
        far = resized(around, size // 4)
        maps = self.begin(torch.cat([quarter * far[:, -1:], far], 1))
        maps = self.to_half(self.deep(maps + self.broad(maps)))
        maps = self.fine(self.join(torch.cat([maps, half * shown, around], 1)))
        maps = self.to_full(maps)
        near = resized(shown, size)
        # What no photo shows has to go before something else can be there: it is given apart.
        given = [maps, warped, (1 - near) * warped, near, openings(points, size)]
        images = warped + self.paint(torch.cat(given, 1))
        return Drawn(
            images.float(),
            warped,
            _apart(places, batch),
            _apart(logits.squeeze(1), batch),
        )


def _apart(maps: Tensor, people: int) -> Tensor:
    """Maps (B * T, …) of B people's photos: (B, T, …)."""
    return maps.reshape(people, -1, *maps.shape[1:])


def resized(maps: Tensor, side: int) -> Tensor:
    """Maps (B, C, h, h), smoothly, as (B, C, side, side)."""
    if maps.shape[2] == side:
        return maps
    return F.interpolate(
        maps.float(), (side, side), mode="bilinear", antialias=maps.shape[2] > side
    )


def placed(places: Tensor, side: int) -> Tensor:
    """Where places are, (B, h, h, 2), as smoothly at (B, side, side, 2)."""
    return resized(places.permute(0, 3, 1, 2), side).permute(0, 2, 3, 1)


# --- Learning ---


class Batch(NamedTuple):
    """What one step learns from.

    Attributes:
        photos: (B, T, 3, S, S) in [-1, 1], with their landmarks ``of`` (B, T, 70, 2).
        images: (B, 3, S, S), what is to be drawn, with its landmarks ``points`` (B, 70, 2).
        person: (B, 1, S, S) in [0, 1], where the person is in ``images``.
        places: (B, S / 2, S / 2, 2), the true flow to the first photo, NaN where nobody knows it …
        seen: (B, S / 2, S / 2), … and where what is to be drawn is seen in that photo, in [0, 1].
        who: (B,), the number of the group.
    """

    photos: Tensor
    of: Tensor
    images: Tensor
    points: Tensor
    person: Tensor
    places: Tensor
    seen: Tensor
    who: Tensor


def drawn_batch(
    heads: Heads, groups: int, photos: int, jitter: float, device: torch.device
) -> Batch:
    """Draw groups, and in each a picture to be drawn and photos to draw it from.

    The first photo is the one that is to move, to which the flow is known; of half the groups the
    others are before another wall. Half are mirrored; light and colours change, of a group's
    pictures alike. Random numbers come from torch's global stream.

    Args:
        heads: to draw from.
        groups: how many, B.
        photos: of each, T; fewer if the groups have no more.
        jitter: deviation of the landmarks, as a share of the side.
        device: where the batch is to be.
    """
    total, moments = heads.images.shape[:2]
    count = min(photos, moments - 1)
    group = torch.randint(total, (groups,))
    target = torch.randint(moments, (groups,))
    # The one after it, and others in any order.
    others = torch.rand(groups, moments - 2).argsort(1)[:, : count - 1] + 2
    sources = (target[:, None] + torch.cat([torch.ones_like(target)[:, None], others], 1)) % moments

    def taken(values: Tensor, which: Tensor) -> Tensor:
        rows = group.view(-1, *[1] * (which.ndim - 1)).expand_as(which)
        return values[rows.to(values.device), which.to(values.device)].to(device)

    side = heads.images.shape[-1]
    shown = taken(heads.images, sources).float() / 127.5 - 1
    images = taken(heads.images, target).float() / 127.5 - 1
    of, points = (taken(heads.landmarks, which) / side for which in (sources, target))
    person = taken(heads.person, target)[:, None].float() / 255
    places, seen = taken(heads.places, target).float(), taken(heads.seen, target).float()

    elsewhere = (torch.rand(groups) < 0.5).to(device)
    walls = 2 * torch.rand(groups * count, 3, 4, 4) - 1
    wall = _apart(F.interpolate(walls, (side, side), mode="bilinear"), groups)
    there = taken(heads.person, sources)[:, :, None].float() / 255
    there[:, 0] = 1
    shown = _if(elsewhere, there * shown + (1 - there) * wall.to(device), shown)

    mirrored = (torch.rand(groups) < 0.5).to(device)
    shown = _if(mirrored, shown.flip(-1), shown)
    images, person = (_if(mirrored, one.flip(-1), one) for one in (images, person))
    of, points = (_if(mirrored, _mirrored(one), one) for one in (of, points))
    turned = places * places.new_tensor([-1, 1]) + places.new_tensor([1, 0])
    places = _if(mirrored, turned.flip(2), places)
    seen = _if(mirrored, seen.flip(-1), seen)

    gain = (0.15 * torch.randn(groups, 3, 1, 1)).exp().to(device)
    power = (0.2 * torch.randn(groups, 1, 1, 1)).exp().to(device)

    def lit(pictures: Tensor) -> Tensor:
        each = [1] * (pictures.ndim - 4)
        light = ((pictures + 1) / 2).clamp(min=1e-4) ** power.view(-1, *each, 1, 1, 1)
        return 2 * (light * gain.view(-1, *each, 3, 1, 1)).clamp(0, 1) - 1

    of, points = (p + jitter * torch.randn(p.shape).to(device) for p in (of, points))
    return Batch(lit(shown), of, lit(images), points, person, places, seen, group)


def _if(chosen: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, *[1] * (one.ndim - 1)), one, other)


def _mirrored(points: Tensor) -> Tensor:
    return torch.cat([1 - points[..., :1], points[..., 1:]], -1)[..., MIRROR, :]


def losses(drawn: Drawn, batch: Batch, config: Config) -> dict[str, Tensor]:
    """The terms of the loss by name, each with its weight in it."""
    size = batch.images.shape[2]
    known = batch.places.isfinite().all(3)
    # Where nobody knows, the network's own word counts, but is not taught by it.
    seen = torch.where(known, batch.seen, drawn.seen[:, 0].detach().sigmoid())
    there = resized(seen[:, None], size)

    features = maps_of(batch.points, size // 4)[:, 1:].amax(1, keepdim=True)
    near = resized(F.max_pool2d(features, 5, 1, 2), size)
    # What the first photo does not show, and a mouth's inside, are little of a picture.
    hidden = 2 * (1 - there) + 4 * openings(batch.points, size).amax(1, keepdim=True)
    weight = 0.25 + batch.person * (1 + 3 * near + hidden)
    weight = weight / weight.mean()
    error = (weight * (drawn.images - batch.images).abs()).mean()
    similar = coarse_ssim(drawn.images, batch.images)
    shape = (F.avg_pool2d(weight, 8, 4) * (1 - similar)).mean()
    warped = (there * weight * (drawn.warped - batch.images).abs()).mean()
    # Far off, a distance counts no more than it has to.
    places = torch.where(known[..., None], batch.places, drawn.places[:, 0].detach())
    apart = F.smooth_l1_loss(drawn.places[:, 0], places, beta=0.004, reduction="none").sum(3)
    doubt = F.binary_cross_entropy_with_logits(drawn.seen[:, 0], seen, reduction="none")
    return {
        "error": error,
        "ssim": config.ssim_weight * shape,
        "warp": config.warp_weight * warped,
        "flow": config.flow_weight * (known * seen * apart).mean(),
        "seen": config.seen_weight * (known * doubt).mean(),
    }


def train(
    config: Config,
    data: Path,
    run: GatedRun,
    fabric: Fabric,
    *,
    show: Callable[[int, Pixels], None] | None = None,
) -> None:
    """Learn on clips of people to move anybody's photo.

    Args:
        config: see :class:`Config`.
        data: the folder of videos, or of their frames.
        run: whose items of the folder to learn from, where to resume from, and to keep checkpoints
            and metrics.
        fabric: where and how precisely to compute.
        show: is handed the step and a training strip, uint8 (H, W, 3), now and then.

    Raises:
        FacekitError: if no clip shows a face in two of its pictures.
    """
    heads = load_heads(
        data,
        run.items,
        moments=config.moments,
        most=config.most_clips,
        size=config.size,
        device=fabric.device,
    )
    fit(config, heads, run, fabric, show=show)


def pretrain(config: Config, run: Run, fabric: Fabric, people: int, moments: int) -> None:
    """Learn on studio people, whose flow is known, to move anybody's photo.

    Args:
        config: see :class:`Config`.
        run: where the heads are kept, to resume from, and to keep checkpoints and metrics.
        fabric: where and how precisely to compute.
        people: how many, each in a scene of their own.
        moments: pictures of each.
    """
    fit(config, studio_heads(run, people, moments, config.size), run, fabric)


def studio_heads(run: Run, people: int, moments: int, size: int) -> Heads:
    """Groups of studio people, rendered once and kept in the run folder."""
    path = run.folder / HEADS
    if not path.exists():
        render_heads(
            path,
            people=people,
            moments=moments,
            size=size,
            seed=int(run.facts["seed"]),
            workers=min(default_threads(), people),
        )
    return read_heads(path)


def fit(
    config: Config,
    heads: Heads,
    run: Run,
    fabric: Fabric,
    *,
    show: Callable[[int, Pixels], None] | None = None,
) -> None:
    """The loop.

    Args:
        config: see :class:`Config`.
        heads: what to learn from.
        run: where to resume from, and to keep checkpoints and metrics.
        fabric: where and how precisely to compute.
        show: is handed the step and a training strip, uint8 (H, W, 3), now and then.

    Raises:
        FacekitError: if the loss is no number any more; the checkpoint before is kept.
    """
    seed, device = int(run.facts["seed"]), fabric.device
    seed_step(seed, 0)
    net = TalkingHead(config.width)
    if config.pretrained:
        fill(net, config.pretrained)
    if config.motion:
        fill(net.motion, config.motion, "motion.")
        net.motion.requires_grad_(False)
    model, optimizer = fabric.setup(
        net, torch.optim.AdamW(net.parameters(), betas=(0.9, 0.99), weight_decay=1e-4)
    )
    model.mark_forward_method("look")
    judge = Discriminator(config.size, patch=2).to(device)
    judge_optimizer = torch.optim.Adam(judge.parameters(), 2e-4, betas=(0.0, 0.99))
    average = {name: value.detach().clone() for name, value in net.state_dict().items()}
    first = 0
    if state := run.resume():
        first = run.restore(
            state, net=net, optimizer=optimizer, judge=judge, judge_optimizer=judge_optimizer
        )
        average = {name: value.to(device) for name, value in state["average"].items()}

    began = time.perf_counter()
    with progress("training talking_head", config.steps) as advance:
        for step in range(first, config.steps):
            seed_step(seed, 1 + step)
            warm = min(1.0, (step + 1) / max(1, config.warm_up))
            for group in optimizer.param_groups:
                falling = 0.5 * (1 + math.cos(math.pi * step / config.steps))
                group["lr"] = config.learning_rate * warm * falling

            photos = int(torch.randint(1, config.photos + 1, ()))
            batch = drawn_batch(heads, config.batch, photos, config.jitter, device)
            drawn = model(model.look(batch.photos, batch.of), batch.points)
            terms = losses(drawn, batch, config)
            if config.adversarial_weight > 0 and step >= config.adversarial_from * config.steps:
                reals, fakes = batch.images, drawn.images
                judge_optimizer.zero_grad()
                fabric.backward(discriminator_loss(judge, reals, fakes, config.gamma).total)
                judge_optimizer.step()
                game = generator_loss(judge, reals, fakes)
                terms["game"] = config.adversarial_weight * game
            optimizer.zero_grad()
            fabric.backward(torch.stack(list(terms.values())).sum())
            fabric.clip_gradients(model, optimizer, max_norm=1.0, error_if_nonfinite=False)
            optimizer.step()
            share = max(1 / (2 + step), 1 / config.average)
            with torch.no_grad():
                for name, value in net.state_dict().items():
                    average[name].lerp_(value, share)

            done = step + 1
            saves = done % config.checkpoint_every == 0 or done == config.steps
            if done % 10 == 0 or saves:
                values = {name: value.item() for name, value in terms.items()}
                total = sum(values.values())
                if not math.isfinite(total):
                    raise FacekitError(
                        f"{run.folder}: the loss is not finite at step {done}; the checkpoint "
                        "before is kept; lower learning_rate"
                    )
                pace = (done - first) * config.batch / (time.perf_counter() - began)
                run.log(done, loss=total, **values, images_per_second=pace)
                advance(done, f"loss {total:.3f}, {pace:.1f} images/s")
            if saves:
                checkpoint.require_finite(net.state_dict(), run.folder, done)
                state = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
                state |= {
                    "judge": judge.state_dict(),
                    "judge_optimizer": judge_optimizer.state_dict(),
                }
                run.save(done, state | {"average": average})
            if show and (done % config.strip_every == 0 or done == config.steps):
                show(done, strip(net, heads, device))


@torch.no_grad()
def strip(net: TalkingHead, heads: Heads, device: torch.device) -> Pixels:
    """Eight people in columns: a photo, what was to be drawn, the warped photo, what was drawn."""
    with torch.random.fork_rng():
        seed_step(0, 0)
        batch = drawn_batch(heads, 8, 1, 0.0, device)
    drawn = net(net.look(batch.photos, batch.of), batch.points)
    return in_rows(batch.photos[:, 0], batch.images, drawn.warped, drawn.images)


def in_rows(*rows: Tensor) -> Pixels:
    """Rows of pictures, (B, 3, S, S) each, as one: uint8 (rows * S, B * S, 3)."""
    stacked = torch.cat([torch.cat(list(row), 2) for row in rows], 1)
    pixels: Pixels = to_pixels(stacked[None])[0]
    return pixels


# --- Use ---

MOST = 4
"""Of more photos, so many are chosen for what is to be drawn: each costs as much time again."""

_AT_ONCE = 10  # a stretch of a video is a multiple of it, so that an interruption changes no bit


def animator(source: Run | str, fabric: Fabric) -> Animator:
    """What moves photos, by a run's newest checkpoint or by bundled weights.

    Raises:
        FacekitError: if there is none yet, or it is of another version.
    """
    net, settings = load(source, fabric)
    return animator_of(net, settings.size, fabric)


def animator_of(net: TalkingHead, size: int, fabric: Fabric) -> Animator:
    """The same of a network on the fabric's device."""

    def draw(cast: Cast, landmarks: Floats, first: int = 0) -> Iterator[Pixels]:
        every = torch.from_numpy(landmarks).to(fabric.device) / size
        with torch.inference_mode(), fabric.autocast():
            photos = to_images(torch.from_numpy(cast.pixels).to(fabric.device))
            of = torch.from_numpy(cast.landmarks).to(fabric.device) / size
            rows = chosen(of, every)
            looks = net.look(photos[rows][None], of[rows][None])
        for start in range(first, len(landmarks), _AT_ONCE):
            points = every[start : start + _AT_ONCE]
            # Entered anew for each part: a generator's body runs while its caller does something.
            with torch.inference_mode(), fabric.autocast():
                drawn = net(_repeated(looks, len(points)), points)
            yield from to_pixels(drawn.images)

    return Animator(size, draw)


def chosen(of: Tensor, points: Tensor) -> list[int]:
    """The photos to draw from: the first, and those that bring the pictures nearest to one.

    They are the same for all pictures: what is behind a head would change with them.

    Args:
        of: (T, 70, 2), the photos' landmarks.
        points: (N, 70, 2), those of the pictures.

    Returns:
        Numbers of at most :data:`MOST` photos, each time the one that lowers the sum of the
        distances most.
    """
    # Where the head is does not matter, only how it is turned and what the face does.
    here, there = (p - p.mean(1, keepdim=True) for p in (points, of))
    apart = torch.cdist(here.flatten(1), there.flatten(1))
    rows, nearest = [0], apart[:, 0]
    while len(rows) < min(MOST, len(of)):
        gains = (nearest[:, None] - apart).clamp(min=0).sum(0)
        best = int(gains.argmax())
        if best in rows:
            break
        rows.append(best)
        nearest = torch.minimum(nearest, apart[:, best])
    return rows


def _repeated(looks: Looks, count: int) -> Looks:
    """What was seen of one person, for so many pictures."""
    photos, points = (part.expand(count, *part.shape[1:]) for part in looks[:2])
    lines, half, quarter = (part.repeat(count, 1, 1, 1) for part in looks[2:])
    return Looks(photos, points, lines, half, quarter)


def load(source: Run | str, fabric: Fabric) -> tuple[TalkingHead, Config]:
    """The averaged network of a run's newest checkpoint or of bundled weights, and its config.

    Raises:
        FacekitError: if there is none yet, or it is of another architecture or version.
    """
    if isinstance(source, str):
        path, card = weights.find(WEIGHTS, source)
        settings = config.validate(card["config"], Config, path)
        net = TalkingHead(settings.width)
        fill(net, source)
    else:
        settings = config.validate(source.facts["config"], Config, source.folder)
        net = TalkingHead(settings.width)
        _fill(net, _average_of(source), str(source.folder))
    return net.to(fabric.device).eval(), settings


def bundle(run: Run, folder: Path, name: str) -> Path:
    """Write a pre-training's averaged weights as ``folder/name.safetensors``, in half precision.

    Raises:
        FacekitError: if the run has no checkpoint yet.
    """
    path = folder / f"{name}.safetensors"
    checkpoint.save(path, {"net": {key: v.half() for key, v in _average_of(run).items()}})
    return path


def fill(net: nn.Module, name: str, part: str = "") -> None:
    """Give ``net`` the bundled weights ``name``, or those whose names begin with ``part``.

    Raises:
        FacekitError: if there are none of that name, or they are of another width.
    """
    path, _ = weights.find(WEIGHTS, name)
    state = checkpoint.load(path).get("net", {})
    wanted = {k.removeprefix(part): v.float() for k, v in state.items() if k.startswith(part)}
    _fill(net, wanted, str(path))


def _average_of(run: Run) -> dict[str, Tensor]:
    average: dict[str, Tensor] = run.trained().get("average", {})
    return average


def _fill(net: nn.Module, state: dict[str, Tensor], name: str) -> None:
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise FacekitError(
            f"{name}: its weights are of another version or width of talking_head; train anew"
        ) from error
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise FacekitError(f"{name}: holds weights that are no numbers; train anew")
