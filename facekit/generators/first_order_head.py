"""Talking heads by the first-order motion model, to compare with.

Siarohin, Lathuilière, Tulyakov, Ricci, Sebe, "First Order Motion Model for Image Animation",
NeurIPS 2019, arXiv:2003.00196. Written from the paper; no code taken.

A network finds key points, and at each how its surroundings are turned and stretched. From where
they lie in a photo and in what drives it, a first-order expansion around each key point gives a
motion; a second network says which of these motions, or none, each place of the new picture
follows, and where the photo does not show what is to be seen. Features of the photo are warped so,
darkened where they show nothing, and a third network draws the picture from them.

What is not as in the paper: key points are found in drawings of a face's landmarks instead of
pictures, since what drives a head here may be a track or numbers, which have no pictures; 64 or 128
pixels instead of 256, motion at half of them instead of a quarter, and fewer channels; the distance
of the bundled face features, and of colours, instead of VGG's; a rate that falls as half a cosine,
and gradients that are clipped; and, so that all arms learn from the same pictures, light that
changes from step to step, mirrored heads, and landmarks as inexact as a network reads them. The
motion is that from the photo's landmarks to those wanted, which are made for the photo's person
already; the paper's own transfer, relative to the driver's first picture, would do so twice. As in
the paper one photo is looked at: of several the first.
"""

import math
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from facekit.adversary.metrics.features import LEAST_SIDE, FaceFeatures, load_features
from facekit.adversary.metrics.perceptual import distances
from facekit.conversion.images import to_images, to_pixels
from facekit.core import checkpoint, config, weights
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.core.run import Run
from facekit.core.seed import seed_step
from facekit.datasets.heads import Heads, load_heads
from facekit.generators._gate import GatedRun
from facekit.generators.talking_head import (
    JITTER,
    PARTS,
    drawn_batch,
    grid,
    in_rows,
    maps_of,
    placed,
    resized,
    studio_heads,
    warp,
)
from facekit.motion import Animator, Cast
from facekit.types import Floats, Pixels
from facekit.watermark import Kind

KIND = Kind.GENERATED

VIDEOS = True

WEIGHTS = Path(__file__).parent.parent / "weights"


class Config(config.Config):
    """Settings of the first-order head.

    Attributes:
        size: side of the pictures, in pixels.
        width: channels at full resolution, of which the motion's network has twice as many; they
            double at each halving, up to eight times.
        points: key points.
        steps: optimiser steps.
        batch: pictures a step.
        learning_rate: falls to none as half a cosine.
        content_weight: weight of the distance of features, and of colours.
        equal_weight: weight of how far key points miss where a bent drawing takes them.
        turned_weight: weight of how far their surroundings miss what a bent drawing makes of them.
        moments: of a folder of people: pictures of each clip that are learned from.
        most_clips: of a folder of people: clips that are kept in memory, taken evenly.
        checkpoint_every: steps between checkpoints.
        strip_every: steps between training strips.
    """

    size: int = Field(128, ge=32, le=512, multiple_of=16)
    width: int = Field(24, ge=8, le=128)
    points: int = Field(10, ge=1, le=64)
    steps: int = Field(5000, ge=1)
    batch: int = Field(12, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    content_weight: float = Field(10.0, ge=0)
    equal_weight: float = Field(10.0, ge=0)
    turned_weight: float = Field(10.0, ge=0)
    moments: int = Field(8, ge=2, le=64)
    most_clips: int = Field(4000, ge=1)
    checkpoint_every: int = Field(200, ge=1)
    strip_every: int = Field(500, ge=1)


# --- The networks ---


def _norm_conv(inputs: int, outputs: int, side: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class _Hourglass(nn.Module):
    """Down to 2 pixels or so and up again, with what was before beside: maps of the same side."""

    def __init__(self, inputs: int, width: int, side: int) -> None:
        super().__init__()
        halvings = side.bit_length() - 2
        widths = [inputs, *(min(2**k, 8) * width for k in range(halvings))]
        self.downs = nn.ModuleList(_norm_conv(a, b) for a, b in pairwise(widths))
        ups, given = [], widths[-1]
        for before in widths[-2::-1]:
            out = max(before, width)
            ups.append(_norm_conv(given, out))
            given = out + before
        self.ups = nn.ModuleList(ups)
        self.channels = given

    def forward(self, maps: Tensor) -> Tensor:
        kept = []
        for down in self.downs:
            kept.append(maps)
            maps = F.avg_pool2d(down(maps), 2)
        for up, before in zip(self.ups, kept[::-1], strict=True):
            maps = torch.cat([up(F.interpolate(maps, before.shape[2:])), before], 1)
        return maps


class Points(NamedTuple):
    """Key points of B drawings.

    Attributes:
        at: (B, K, 2), where they are, as shares of the side.
        turned: (B, K, 2, 2), what their surroundings are to those of a reference that is nowhere
            seen: its derivative.
    """

    at: Tensor
    turned: Tensor


class Detector(nn.Module):
    """Drawings of landmarks (B, 3, h, h) → key points."""

    def __init__(self, side: int, width: int, points: int) -> None:
        super().__init__()
        self.look = _Hourglass(PARTS, width, side)
        self.where = nn.Conv2d(self.look.channels, points, 7, padding=3, bias=False)
        self.turned = nn.Conv2d(self.look.channels, 4 * points, 7, padding=3)
        # To begin with, nothing is turned.
        nn.init.zeros_(self.turned.weight)
        self.turned.bias = nn.Parameter(torch.tensor([1.0, 0, 0, 1.0]).repeat(points))

    def forward(self, drawings: Tensor) -> Points:
        """Look at a batch."""
        found = self.look(drawings)
        where, turned = self.where(found).float(), self.turned(found).float()
        share = (where.flatten(2) / _TEMPERATURE).softmax(2)
        places = grid(where.shape[2], where.device).view(1, 1, -1, 2)
        at = (share[..., None] * places).sum(2)
        turned = (turned.view(*share.shape[:2], 4, -1) * share[:, :, None]).sum(3)
        return Points(at, turned.view(*at.shape[:2], 2, 2))


_TEMPERATURE = 0.1  # of where a key point is
_SPREAD = 0.05  # of a key point's blob: its deviation, as a share of the side


class Motion(nn.Module):
    """Photos and key points → where each place is in the photo, and how far it is seen there."""

    def __init__(self, side: int, width: int, points: int) -> None:
        super().__init__()
        self.look = _Hourglass(4 * (points + 1), width, side)
        self.which = nn.Conv2d(self.look.channels, points + 1, 7, padding=3)
        self.seen = nn.Conv2d(self.look.channels, 1, 7, padding=3)

    def forward(self, photos: Tensor, of: Points, to: Points) -> tuple[Tensor, Tensor]:
        """Look at photos.

        Args:
            photos: (B, 3, h, h) in [-1, 1].
            of: their key points.
            to: those of the new pictures.

        Returns:
            (B, h, h, 2): where each place of the new picture is in the photo; and logits
            (B, 1, h, h) of its being seen there.
        """
        batch, count, _ = to.at.shape
        side = photos.shape[2]
        moved = motions(of, to, side)
        bent = warp(photos.repeat_interleave(count + 1, 0), moved.flatten(0, 1))
        still = photos.new_zeros(batch, 1, side, side)
        blobs = torch.cat([still, _blobs(to.at, side) - _blobs(of.at, side)], 1)
        given = torch.cat([blobs[:, :, None], bent.view(batch, count + 1, 3, side, side)], 2)
        found = self.look(given.flatten(1, 2))
        which = self.which(found).float().softmax(1)
        places = (which[..., None] * moved).sum(1)
        return places, self.seen(found).float()


def motions(of: Points, to: Points, side: int) -> Tensor:
    """The motion of each key point, and none: equation 4 of the paper.

    Args:
        of: key points of photos.
        to: those of the new pictures.
        side: h, of the maps.

    Returns:
        (B, 1 + K, h, h, 2): where each place of the new picture is in the photo by the first-order
        expansion around each key point; the first says that it stays.
    """
    places = grid(side, to.at.device)[:, None]
    with torch.autocast(places.device.type, enabled=False):  # half precision would tear it
        turned = of.turned @ _inverse(to.turned)
        away = places - to.at[:, :, None, None]
        moved = torch.einsum("bkij,bkyxj->bkyxi", turned, away) + of.at[:, :, None, None]
    return torch.cat([places.expand(len(moved), -1, -1, -1, -1), moved], 1)


def _inverse(matrices: Tensor) -> Tensor:
    """Of (…, 2, 2); one that hardly has any is taken as if it did, so that no step ends in NaN."""
    (a, b), (c, d) = (row.unbind(-1) for row in matrices.unbind(-2))
    det = a * d - b * c
    det = torch.where(det.abs() < 1e-3, torch.where(det < 0, -1e-3, 1e-3), det)
    rows = torch.stack([d, -b, -c, a], -1) / det[..., None]
    return rows.view(matrices.shape)


def _blobs(at: Tensor, side: int) -> Tensor:
    """Gaussians (B, K, h, h) around places (B, K, 2)."""
    away = (grid(side, at.device)[:, None] - at[:, :, None, None]).square().sum(4)
    return torch.exp(-0.5 * away / _SPREAD**2)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(2):
            parts += [nn.BatchNorm2d(channels), nn.ReLU()]
            parts += [nn.Conv2d(channels, channels, 3, padding=1)]
        self.parts = nn.Sequential(*parts)

    def forward(self, maps: Tensor) -> Tensor:
        changed: Tensor = self.parts(maps)
        return maps + changed


class Drawn(NamedTuple):
    """New pictures (B, 3, S, S), and where each place of them is in the photos (B, h, h, 2)."""

    images: Tensor
    places: Tensor


class FirstOrderHead(nn.Module):
    """Photos and landmarks to pictures."""

    def __init__(self, settings: Config) -> None:
        super().__init__()
        side, width = settings.size // 2, settings.width
        self.detector = Detector(side, width, settings.points)
        self.motion = Motion(side, 2 * width, settings.points)
        self.start = nn.Sequential(
            _norm_conv(3, width, 7),
            _norm_conv(width, 2 * width),
            nn.AvgPool2d(2),
            _norm_conv(2 * width, 4 * width),
            nn.AvgPool2d(2),
        )
        self.draw = nn.Sequential(
            *(_Residual(4 * width) for _ in range(6)),
            nn.Upsample(scale_factor=2),
            _norm_conv(4 * width, 2 * width),
            nn.Upsample(scale_factor=2),
            _norm_conv(2 * width, width),
            nn.Conv2d(width, 3, 7, padding=3),
            nn.Tanh(),
        )

    def find(self, points: Tensor, size: int) -> Points:
        """The key points of landmarks (B, 70, 2)."""
        found: Points = self.detector(maps_of(points, size // 2))
        return found

    def forward(self, photos: Tensor, of: Points, to: Points) -> Drawn:
        """Draw photos (B, 3, S, S) in [-1, 1] with key points ``of`` as they are with ``to``."""
        small = F.interpolate(photos, scale_factor=0.5, mode="bilinear", antialias=True)
        places, seen = self.motion(small, of, to)
        found = self.start(photos)
        side = found.shape[2]
        images = self.draw(warp(found, placed(places, side)) * resized(seen.sigmoid(), side))
        return Drawn(images.float(), places)


# --- Learning ---


class Bend(NamedTuple):
    """A random smooth map of places: an affine one and a thin-plate spline, for each of a batch.

    Attributes:
        affine: (B, 2, 3).
        weights: (B, N, 2), of the spline's points.
    """

    affine: Tensor
    weights: Tensor

    @classmethod
    def sample(cls, count: int, device: torch.device) -> "Bend":
        """Each turns, stretches and shifts by a few hundredths; from torch's global stream."""
        still = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
        affine = still + torch.tensor([0.05, 0.05, 0.025]) * torch.randn(count, 2, 3)
        weights = 0.02 * torch.randn(count, _PINNED**2, 2)
        return cls(affine.to(device), weights.to(device))

    def __call__(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Where places (B, N, 2) are taken, (B, N, 2), and its derivative there, (B, N, 2, 2)."""
        # About the middle, so that a bent face stays in the picture.
        moved = (places - 0.5) @ self.affine[:, :, :2].mT + 0.5 + self.affine[:, None, :, 2]
        pins = grid(_PINNED, places.device).view(-1, 2)
        away = places[:, :, None] - pins
        square = away.square().sum(3) + 1e-9
        moved = moved + 0.5 * (square * square.log()) @ self.weights
        slope = away * (square.log() + 1)[..., None]
        turned = self.affine[:, None, :, :2] + torch.einsum("bnmj,bmi->bnij", slope, self.weights)
        return moved, turned

    def of(self, drawings: Tensor) -> Tensor:
        """Pictures (B, C, h, h) bent: each place shows what they show where it is taken."""
        side = drawings.shape[2]
        places = grid(side, drawings.device).view(1, -1, 2).expand(len(drawings), -1, -1)
        taken, _ = self(places)
        return warp(drawings, taken.view(-1, side, side, 2))


_PINNED = 5  # the spline's points are a grid of so many a side


def losses(
    drawn: Drawn,
    images: Tensor,
    to: Points,
    bend: Bend,
    bent: Points,
    features: FaceFeatures,
    settings: Config,
) -> dict[str, Tensor]:
    """The terms of the loss by name, each with its weight in it.

    Args:
        drawn: what was drawn.
        images: (B, 3, S, S), what was to be drawn.
        to: key points of its landmarks.
        bend: from a bent drawing of these …
        bent: … whose key points are to go along, which the paper calls equivariance.
        features: what pictures are compared by.
        settings: the weights.
    """
    content, side = (drawn.images - images).abs().mean(), images.shape[2]
    while side >= LEAST_SIDE:  # a pyramid, as in the paper
        pair = (resized(pictures, side) for pictures in (drawn.images, images))
        content = content + distances(features, *pair).mean()
        side //= 2
    there, slope = bend(bent.at)
    turned = _inverse(to.turned) @ (slope @ bent.turned)
    still = torch.eye(2, device=images.device)
    return {
        "content": settings.content_weight * content,
        "equal": settings.equal_weight * (there - to.at).abs().mean(),
        "turned": settings.turned_weight * (turned - still).abs().mean(),
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
    """Learn on studio people to move anybody's photo.

    Args:
        config: see :class:`Config`.
        run: where the heads are kept, to resume from, and to keep checkpoints and metrics.
        fabric: where and how precisely to compute.
        people: how many, each in a scene of their own.
        moments: pictures of each.
    """
    fit(config, studio_heads(run, people, moments, config.size), run, fabric)


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
    net = FirstOrderHead(config).to(device)
    features = load_features(device)
    optimizer = torch.optim.Adam(net.parameters(), betas=(0.5, 0.999))
    first = 0
    if state := run.resume():
        first = run.restore(state, net=net, optimizer=optimizer)

    began = time.perf_counter()
    with progress("training first_order_head", config.steps) as advance:
        for step in range(first, config.steps):
            seed_step(seed, 1 + step)
            falling = 0.5 * (1 + math.cos(math.pi * step / config.steps))
            optimizer.param_groups[0]["lr"] = config.learning_rate * falling

            batch = drawn_batch(heads, config.batch, 1, JITTER, device)
            drawings = maps_of(batch.points, config.size // 2)
            bend = Bend.sample(len(drawings), device)
            bent = bend.of(drawings)
            with fabric.autocast():
                of = net.find(batch.of[:, 0], config.size)
                to, there = net.detector(drawings), net.detector(bent)
                drawn = net(batch.photos[:, 0], of, to)
            terms = losses(drawn, batch.images, to, bend, there, features, config)
            optimizer.zero_grad()
            fabric.backward(torch.stack(list(terms.values())).sum())
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)  # the paper tells of none
            optimizer.step()

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
                run.save(done, {"net": net.state_dict(), "optimizer": optimizer.state_dict()})
            if show and (done % config.strip_every == 0 or done == config.steps):
                show(done, strip(net, heads, config, device))


@torch.no_grad()
def strip(net: FirstOrderHead, heads: Heads, config: Config, device: torch.device) -> Pixels:
    """Eight people in columns: a photo, what was to be drawn, the warped photo, what was drawn."""
    with torch.random.fork_rng():
        seed_step(0, 0)
        batch = drawn_batch(heads, 8, 1, 0.0, device)
    net.eval()  # Norms' statistics would change the next step.
    of, to = (net.find(points, config.size) for points in (batch.of[:, 0], batch.points))
    drawn = net(batch.photos[:, 0], of, to)
    net.train()
    warped = warp(batch.photos[:, 0], placed(drawn.places, config.size))
    return in_rows(batch.photos[:, 0], batch.images, warped, drawn.images)


# --- Use ---

_AT_ONCE = 10  # a stretch of a video is a multiple of it


def animator(source: Run | str, fabric: Fabric) -> Animator:
    """What moves a photo, the first one, by a run's newest checkpoint or by bundled weights.

    Raises:
        FacekitError: if there is none yet, or it is of another version.
    """
    net, settings = load(source, fabric)

    def draw(cast: Cast, landmarks: Floats, first: int = 0) -> Iterator[Pixels]:
        size = settings.size
        with torch.inference_mode(), fabric.autocast():
            photo = to_images(torch.from_numpy(cast.pixels[:1]).to(fabric.device))
            of = net.find(torch.from_numpy(cast.landmarks[:1]).to(fabric.device) / size, size)
        for start in range(first, len(landmarks), _AT_ONCE):
            points = torch.from_numpy(landmarks[start : start + _AT_ONCE]).to(fabric.device)
            every = len(points)
            with torch.inference_mode(), fabric.autocast():
                here = Points(*(part.expand(every, *part.shape[1:]) for part in of))
                to = net.find(points / size, size)
                drawn = net(photo.expand(every, -1, -1, -1), here, to)
            yield from to_pixels(drawn.images)

    return Animator(settings.size, draw)


def load(source: Run | str, fabric: Fabric) -> tuple[FirstOrderHead, Config]:
    """The networks of a run's newest checkpoint or of weights, and their config.

    Raises:
        FacekitError: if there is none yet, or it is of another architecture or version.
    """
    if isinstance(source, str):
        path, card = weights.find(WEIGHTS, source)
        settings, name = config.validate(card["config"], Config, path), str(path)
        state = checkpoint.load(path).get("net", {})
    else:
        settings = config.validate(source.facts["config"], Config, source.folder)
        name, state = str(source.folder), _state(source)
    net = FirstOrderHead(settings)
    try:
        net.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        )
    except RuntimeError as error:
        raise FacekitError(
            f"{name}: its weights are of another version or width of first_order_head; train anew"
        ) from error
    return net.to(fabric.device).eval(), settings


def bundle(run: Run, folder: Path, name: str) -> Path:
    """Write all networks as ``folder/name.safetensors``, in half precision.

    Raises:
        FacekitError: if the run has no checkpoint yet.
    """
    half = {k: v.half() if v.is_floating_point() else v for k, v in _state(run).items()}
    path = folder / f"{name}.safetensors"
    checkpoint.save(path, {"net": half})
    return path


def _state(run: Run) -> dict[str, Tensor]:
    found: dict[str, Tensor] = run.trained().get("net", {})
    return found
