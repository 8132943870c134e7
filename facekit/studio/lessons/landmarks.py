"""Teach :mod:`facekit.faces.landmarks` to read faces: on people who don't exist, by exact truth.

What it learns must hold for photographs, which the studio's pictures are not. So each picture is
brought to the crop inexactly, and then changed in many ways that leave the truth known: light and
colour, what lies behind and in front of the face, sharpness, noise and compression (Wood et al.,
"Fake it till you make it", 2021, arXiv:2109.15102, show that this is enough). Besides photos, in
which people hardly ever close their eyes, there are drills: the same people with closed eyes, wide
open mouths, and face units mixed at random.
"""

import logging
import math
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from facekit.core import checkpoint
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.core.run import Run
from facekit.core.seed import rng, seed_step
from facekit.faces.landmarks import MIRROR, SIZE, LandmarkNet, Reading, crop_matrices, fold
from facekit.studio import teach as lessons
from facekit.studio.performance import FACE_UNITS, Performance, performance_seed
from facekit.studio.person import Person, person_seed
from facekit.studio.pool import render_frames
from facekit.studio.rotations import rotations

log = logging.getLogger("facekit")

LICENCE = "Apache-2.0"

Array = NDArray[np.float32]


class Config(lessons.Lesson):
    """Settings of the lesson.

    Attributes:
        drilled: how many of the people to learn from also give drills, eight each.
        steps: optimiser steps in which all is learned …
        facts_steps: … and further ones in which only pose, expression, eyes and presence are, from
            what the averaged network sees: they take longer than points to learn, and cost less.
        batch: crops a step.
        learning_rate: its peak; it rises for ``warm_up`` steps, then falls as half a cosine,
            ``cycles`` times over, each time from half of the peak before (warm restarts:
            Loshchilov & Hutter, 2017, arXiv:1608.03983).
        warm_up: steps.
        weight_decay: of AdamW.
        average: the weights bundled are an average over about so many last steps.
        negatives: share of the crops that show no face, or no whole one.
        checkpoint_every: steps between checkpoints.
        look_every: steps between looks at the people held out.
    """

    drilled: int = Field(ge=1)
    steps: int = Field(ge=1)
    facts_steps: int = Field(0, ge=0)
    batch: int = Field(64, ge=4)
    learning_rate: float = Field(2e-3, gt=0)
    cycles: int = Field(1, ge=1)
    warm_up: int = Field(200, ge=0)
    weight_decay: float = Field(0.02, ge=0)
    average: int = Field(400, ge=1)
    negatives: float = Field(0.1, ge=0, le=0.5)
    checkpoint_every: int = Field(250, ge=1)
    look_every: int = Field(500, ge=1)


class Pictures(NamedTuple):
    """Studio pictures and what is known of them.

    Attributes:
        images: uint8 (N, 3, S, S).
        points: float32 (N, 70, 2); ``five`` (N, 5, 2), in pixels.
        visible: bool (N, 70).
        turns: float32 (N, 3, 3), of the head relative to the camera.
        expression: float32 (N, 52).
        person: int64 (N,).
    """

    images: Tensor
    points: Tensor
    five: Tensor
    visible: Tensor
    turns: Tensor
    expression: Tensor
    person: Tensor


class Crops(NamedTuple):
    """A batch, as the network sees it, with its truth; lengths in pixels of the crop.

    Attributes:
        images: float32 (B, 3, 112, 112) in [-1, 1].
        points: (B, 70, 2).
        visible: (B, 70) in [0, 1].
        turns: (B, 3, 3), of the head relative to the crop.
        expression: (B, 52).
        face: bool (B,), whether there is one.
    """

    images: Tensor
    points: Tensor
    visible: Tensor
    turns: Tensor
    expression: Tensor
    face: Tensor


def teach(
    config: Config, run: Run, fabric: Fabric, studio: lessons.Studio, data: Path | None
) -> None:
    """Train; see :mod:`facekit.studio.teach`.

    Args:
        config: see :class:`Config`.
        run: where to resume from, and to keep drills, checkpoints and metrics.
        fabric: where and how precisely to compute.
        studio: items of whole pictures, ``frames`` of a person in a row.
        data: none; the studio alone teaches this.
    """
    seed = int(run.facts["seed"])
    stills, drills = gathered(config, studio), drilled(config, run)
    taught = config.people - config.held_out
    known = torch.nonzero(stills.person < taught)[:, 0]
    held_out = torch.nonzero(stills.person >= taught)[:, 0]

    seed_step(seed, 0)
    net = LandmarkNet().to(fabric.device)
    optimizer = torch.optim.AdamW(
        net.parameters(), weight_decay=config.weight_decay, betas=(0.9, 0.99), fused=True
    )
    average = {name: value.detach().clone() for name, value in net.state_dict().items()}
    first = 0
    if state := run.resume():
        first = run.restore(state, net=net, optimizer=optimizer)
        average = {name: value.to(fabric.device) for name, value in state["average"].items()}

    began = time.perf_counter()
    total = config.steps + config.facts_steps
    with progress("teaching landmarks", total) as advance:
        for step in range(first, total):
            seed_step(seed, 1 + step)
            if step == config.steps:
                net.load_state_dict(average)
            if step in (first, config.steps):
                alone = step >= config.steps
                net.requires_grad_(not alone).train(not alone)
                net.facts.requires_grad_(True).train()
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _schedule(step, config)

            # A fifth of a batch are drills, a half when it is about what they show; a few crops
            # are negatives, whatever they were.
            count = config.batch // (5 if step < config.steps else 2)
            rows = known[torch.randint(len(known), (config.batch - count,))]
            extra = torch.randint(len(drills.images), (count,))
            batch = chosen(stills, rows, drills, extra)
            crops = augmented(batch, negatives=config.negatives, device=fabric.device)

            with fabric.autocast():
                reading = net(crops.images.contiguous(memory_format=torch.channels_last))
            losses = lesson_losses(reading, crops)
            loss = torch.stack(list(losses.values())).sum()
            optimizer.zero_grad()
            fabric.backward(loss)
            torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
            optimizer.step()
            # The average's memory grows with the steps, so that the first weights are forgotten.
            since = step - config.steps if step >= config.steps else step
            share = max(1 / (2 + since), 1 / config.average)
            with torch.no_grad():
                for name, value in net.state_dict().items():
                    average[name].lerp_(value, share) if value.is_floating_point() else None

            done = step + 1
            last = done == total
            if done % 10 == 0 or last or done % config.checkpoint_every == 0:
                values = {f"loss_{name}": value.item() for name, value in losses.items()}
                if not math.isfinite(sum(values.values())):
                    raise FacekitError(
                        f"{run.folder}: the loss is not finite at step {done}; lower learning_rate"
                    )
                rate = (done - first) * config.batch / (time.perf_counter() - began)
                found: dict[str, float] = {}
                if done % config.look_every == 0 or last:
                    found = look(averaged(average), stills, held_out, fabric.device)
                    log.info(
                        "step %d: %s", done, " ".join(f"{k} {v:.4f}" for k, v in found.items())
                    )
                run.log(done, **values, images_per_second=rate, **found)
                advance(done, f"loss {sum(values.values()):.2f}, {rate:.0f} images/s")
            if done % config.checkpoint_every == 0 or last:
                run.save(
                    done,
                    {
                        "net": net.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "average": average,
                    },
                )
    run.note(figures=look(averaged(average), stills, held_out, fabric.device))


def weights(run: Run) -> dict[str, Tensor]:
    """The tensors to bundle: the averaged network, its batch normalisation folded."""
    return fold(averaged(run.trained()["average"]))


def averaged(average: dict[str, Tensor]) -> LandmarkNet:
    """The network of averaged weights, to look at."""
    net = LandmarkNet()
    net.load_state_dict(average)
    return net.to(next(iter(average.values())).device).eval()


def _schedule(step: int, config: Config) -> float:
    warm = min(1.0, (step + 1) / max(1, config.warm_up))
    if step >= config.steps:
        return 0.5 * (1 + math.cos(math.pi * (step - config.steps) / config.facts_steps))
    length = config.steps / config.cycles
    cycle, within = divmod(step, length)
    return float(warm * 0.5**cycle * 0.5 * (1 + math.cos(math.pi * within / length)))


# --- What it learns from ---


def gathered(config: Config, studio: lessons.Studio) -> Pictures:
    """All of the studio's items, in memory."""
    count = config.people * config.frames
    # Room for all from the start: small tensors kept between large ones that are freed would
    # fragment the memory, to many times its size.
    stacked: dict[str, Tensor] = {}
    with progress("reading the studio's pictures", count) as advance:
        for i in range(count):
            item = studio[i]
            item["image"] = ((item["image"] + 1) * 127.5).round().byte()
            for name, value in item.items():
                if i == 0:
                    stacked[name] = torch.empty(count, *value.shape, dtype=value.dtype)
                stacked[name][i] = value
            advance(i + 1, "")
    expression = stacked["expression"].numpy()
    for i in range(count):
        moment = performance_seed(config.data_seed, *divmod(i, config.frames))
        _look_units(expression[i], Performance.sample(moment))
    return Pictures(
        images=stacked["image"],
        points=stacked["landmarks"],
        five=stacked["points"],
        visible=stacked["visible"],
        turns=torch.from_numpy(rotations(stacked["pose"].numpy()).astype(np.float32)),
        expression=torch.from_numpy(expression),
        person=stacked["person"],
    )


def drilled(config: Config, run: Run) -> Pictures:
    """The drills, rendered once into the run folder."""
    path = run.folder / "drills.safetensors"
    if not path.exists():
        checkpoint.save(path, _rendered_drills(config))
    return Pictures(**checkpoint.load(path))


_DRILLS = 8  # of each person who gives any


def _rendered_drills(config: Config) -> dict[str, Tensor]:
    pairs = []
    for i in range(min(config.drilled, config.people - config.held_out)):
        person = Person.sample(person_seed(config.data_seed, i))
        for j in range(_DRILLS):
            # Moments that no still has.
            moment = Performance.sample(performance_seed(config.data_seed, i, config.frames + j))
            pairs.append((person, _drill(moment, j, rng(config.data_seed, i, j, 1))))
    rows: dict[str, list[Tensor]] = {}
    with progress("rendering the drills", len(pairs)) as advance:
        for k, result in enumerate(render_frames(pairs, config.size, want=())):
            expression = result.expression.copy()
            _look_units(expression, result.performance)
            values = {
                "images": torch.from_numpy(result.pixels).permute(2, 0, 1),
                "points": torch.from_numpy(result.landmarks),
                "five": torch.from_numpy(result.points),
                "visible": torch.from_numpy(result.visible),
                "turns": torch.from_numpy(rotations(np.array(result.pose)).astype(np.float32)),
                "expression": torch.from_numpy(expression),
                "person": torch.tensor(k // _DRILLS),
            }
            for name, value in values.items():
                rows.setdefault(name, []).append(value)
            advance(k + 1, "")
    return {name: torch.stack(values) for name, values in rows.items()}


def _drill(moment: Performance, kind: int, random: np.random.Generator) -> Performance:
    """A moment with what photos hardly ever show."""
    units = dict(moment.expression)
    sides = ("Left", "Right") if random.random() < 0.5 else ("Right", "Left")
    if kind < 4:  # Lids: closed, half closed, closed on one side, whatever.
        low, high = ((0.75, 1.0), (0.3, 0.8), (0.75, 1.0), (0.0, 1.0))[kind]
        first, second = np.clip(random.uniform(low, high) + random.normal(0, [0.02, 0.02]), 0, 1)
        units[f"eyeBlink{sides[0]}"] = first
        if kind != 2:
            units[f"eyeBlink{sides[1]}"] = second
    elif kind == 4:
        units["jawOpen"] = random.uniform(0.4, 1.0)
    else:
        free = [unit for unit in FACE_UNITS if "eyeLook" not in unit]
        units = {}
        for unit in random.choice(free, 5, replace=False):
            strength = random.uniform(0.2, 0.9)
            pair = unit.removesuffix("Left").removesuffix("Right")
            both = [f"{pair}Left", f"{pair}Right"]
            shared = unit in both and pair not in ("jaw", "mouth") and random.random() < 0.7
            units |= dict.fromkeys(both if shared else [str(unit)], strength)
    gaze = random.uniform([-35, -25], [35, 25]) if random.random() < 0.4 else None
    turned = {} if gaze is None else {"gaze_x": float(gaze[0]), "gaze_y": float(gaze[1])}
    strengths = {unit: float(value) for unit, value in units.items()}
    return moment.model_copy(update={"expression": strengths, **turned})


def _look_units(expression: Array, moment: Performance) -> None:
    """Set the eyeLook units of ``expression`` (52,): shares of 40°, the most that eyes turn.

    The studio turns eyes by its gaze and leaves these units at 0.
    """
    x, y = moment.gaze_x / 40, moment.gaze_y / 40
    values = {"Up": (y, y), "Down": (-y, -y), "Out": (x, -x), "In": (-x, x)}
    for way, sides in values.items():
        for side, value in zip(("Left", "Right"), sides, strict=True):
            expression[FACE_UNITS.index(f"eyeLook{way}{side}")] = min(max(value, 0.0), 1.0)


def chosen(stills: Pictures, rows: Tensor, drills: Pictures, extra: Tensor) -> Pictures:
    """The pictures ``rows`` of the one and ``extra`` of the other."""
    return Pictures(*(torch.cat([a[rows], b[extra]]) for a, b in zip(stills, drills, strict=True)))


# --- How the pictures are changed; all of it a batch at a time ---

_UNIT_MIRROR = [
    FACE_UNITS.index(
        name.removesuffix("Left") + "Right"
        if name.endswith("Left")
        else name.removesuffix("Right") + "Left"
        if name.endswith("Right")
        else name
    )
    for name in FACE_UNITS
]
_BACKWARDS = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))


def augmented(batch: Pictures, *, negatives: float, device: torch.device) -> Crops:
    """Crops of a batch: each inexact, half of them mirrored, all of them changed in looks.

    Random numbers come from torch's and numpy's global streams.
    """
    count = len(batch.images)
    matrices, mirrored, angle = _inexact(batch.five)
    no_face = torch.rand(count) < negatives
    _away(matrices, no_face)
    crops = _brought(batch, matrices, mirrored, angle, no_face, device)
    # Each of these changes the images in place, but for the light.
    _backgrounds(crops)
    _shuffled_tiles(crops.images, no_face)
    _in_front(crops)
    images = _lit(crops.images)
    _taken(images)
    return crops._replace(images=images)


def plain(batch: Pictures, device: torch.device) -> Crops:
    """Crops by the true five points, unchanged: to look at."""
    count = len(batch.images)
    matrices = torch.from_numpy(_of(batch.five)).float()
    none = torch.zeros(count, dtype=torch.bool)
    return _brought(batch, matrices, none, _turn(matrices), none, device)


def _of(five: Tensor) -> NDArray[np.float64]:
    return crop_matrices(five.numpy().astype(np.float64))


def _turn(matrices: Tensor) -> Tensor:
    """By how much similarities (B, 2, 3) turn a picture clockwise (B,), in radians."""
    return torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0])


def _inexact(five: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Crops as from a locator's or an earlier frame's points, half of them mirrored.

    Returns:
        Matrices (B, 2, 3), whether each mirrors (B,), and by how much it turned the picture
        clockwise before that (B,), in radians.
    """
    count = len(five)
    side = (five[:, 0] - five[:, 4]).norm(dim=1).clamp(min=1)
    noise = 0.04 * side[:, None, None] * torch.randn(five.shape)
    matrices = torch.from_numpy(_of(five + noise)).float()
    much = torch.rand(count) < 0.3
    turn = torch.where(much, math.radians(40) * _even(count), 0.12 * torch.randn(count))
    scale = torch.where(much, 0.3 * _even(count), 0.08 * torch.randn(count)).exp()
    shift = SIZE * torch.where(much[:, None], 0.12 * _even(count, 2), 0.025 * torch.randn(count, 2))
    linear = _turns(turn) * scale[:, None, None]
    middle = SIZE / 2
    moved = torch.cat(
        [
            linear @ matrices[:, :, :2],
            linear @ (matrices[:, :, 2:] - middle) + middle + shift[..., None],
        ],
        dim=2,
    )
    angle = _turn(moved)
    mirrored = torch.rand(count) < 0.5
    moved[mirrored, 0] *= -1
    moved[mirrored, 0, 2] += SIZE
    return moved, mirrored, angle


def _even(*shape: int) -> Tensor:
    """Evenly distributed in [-1, 1]."""
    return 2 * torch.rand(*shape) - 1


def _turns(angle: Tensor) -> Tensor:
    """Turns (B, 2, 2) clockwise, with y down."""
    cosine, sine = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], -2)


def _away(matrices: Tensor, chosen: Tensor) -> None:
    """Turn the ``chosen`` crops away from the face: far off to a side, far too near, or too far."""
    count = int(chosen.sum())
    kind = torch.randint(4, (count,))
    way = _turns(2 * math.pi * torch.rand(count))[..., 0]
    off = torch.where(kind < 2, SIZE * (0.75 + 0.6 * torch.rand(count)), torch.zeros(count))
    near, far = 2.6 + 2 * torch.rand(count), 0.2 + 0.15 * torch.rand(count)
    scale = torch.where(kind == 2, near, torch.where(kind == 3, far, torch.ones(count)))
    # Too near: somewhere on the head, but with no more than a part of the face.
    off = torch.where(kind == 2, SIZE * scale * 0.35 * torch.rand(count), off)
    changed = matrices[chosen] * scale[:, None, None]
    changed[..., 2] += (1 - scale[:, None]) * SIZE / 2 + off[:, None] * way
    matrices[chosen] = changed


def _brought(
    batch: Pictures,
    matrices: Tensor,
    mirrored: Tensor,
    angle: Tensor,
    no_face: Tensor,
    device: torch.device,
) -> Crops:
    """Warp pictures and truth into the crops."""
    size = batch.images.shape[-1]
    # In affine_grid's coordinates, where both pictures span [-1, 1]².
    to_crop = torch.eye(3).repeat(len(matrices), 1, 1)
    to_crop[:, :2] = matrices
    normal = torch.tensor([[2 / SIZE, 0, -1], [0, 2 / SIZE, -1], [0, 0, 1]])
    pixels = torch.tensor([[size / 2, 0, size / 2], [0, size / 2, size / 2], [0, 0, 1]])
    theta = torch.linalg.inv(normal @ to_crop @ pixels)[:, :2].to(device)
    images = batch.images.to(device).float() / 127.5 - 1
    grid = F.affine_grid(theta, [len(images), 3, SIZE, SIZE], align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    points = batch.points @ matrices[:, :, :2].mT + matrices[:, None, :, 2]
    visible, turns, expression = batch.visible, batch.turns, batch.expression
    flip = mirrored[:, None]
    points = torch.where(flip[..., None], points[:, MIRROR], points)
    visible = torch.where(flip, visible[:, MIRROR], visible)
    expression = torch.where(flip, expression[:, _UNIT_MIRROR], expression)
    visible = visible & ((points >= 0) & (points < SIZE)).all(2)
    # The picture rolls about the camera's axis, then it may be mirrored.
    rolls = torch.eye(3).repeat(len(turns), 1, 1)
    rolls[:, :2, :2] = _turns(-angle)
    turns = torch.where(flip[..., None], _BACKWARDS @ rolls @ turns @ _BACKWARDS, rolls @ turns)
    return Crops(
        images=images,
        points=points.to(device),
        visible=visible.float().to(device),
        turns=turns.to(device),
        expression=expression.to(device),
        face=~no_face.to(device),
    )


def _field(count: int, device: torch.device) -> Tensor:
    """The pixels' centres (1, 112, 112, 2)."""
    centres = torch.arange(SIZE, device=device) + 0.5
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y], -1)[None]


def _blob(centre: Tensor, angle: Tensor, half: Tensor, square: Tensor, places: Tensor) -> Tensor:
    """How far ``places`` (B or 1, …, 2) are from the middles of turned ellipses, or bars.

    ``centre`` and the half axes ``half`` are (B, 2), ``angle`` and ``square`` (B,). Below 1 is
    inside.
    """
    extra = (1,) * (places.dim() - 2)
    offset = places - centre.view(-1, *extra, 2)
    cosine, sine = (value.view(-1, *extra) for value in (angle.cos(), angle.sin()))
    along = offset[..., 0] * cosine + offset[..., 1] * sine
    across = offset[..., 1] * cosine - offset[..., 0] * sine
    along = (along / half[:, 0].view(-1, *extra)).square()
    across = (across / half[:, 1].view(-1, *extra)).square()
    return torch.where(square.view(-1, *extra), torch.maximum(along, across), along + across).sqrt()


def _backgrounds(crops: Crops) -> None:
    """Put another crop of the batch behind the head, beyond an ellipse about the face."""
    images, device = crops.images, crops.images.device
    rows = torch.nonzero((torch.rand(len(images)) < 0.3).to(device) & crops.face)[:, 0]
    if not len(rows):
        return
    points = crops.points[rows]
    low, high = points.amin(1), points.amax(1)
    grown = (1.25 + 0.7 * torch.rand(len(rows), 1)).to(device)
    half = (high - low) / 2 * grown
    # Hair and skull lie above the brows.
    centre = (low + high) / 2 - torch.stack([0 * half[:, 1], 0.2 * half[:, 1]], 1)
    half = half * half.new_tensor([1.1, 1.3])
    none = torch.zeros(len(rows), device=device)
    far = _blob(centre, none, half, none > 1, _field(len(rows), device))
    share = ((far - 1) * 12 + 0.5).clamp(0, 1)[:, None]
    behind = images[rows - 1].flip(3 if torch.rand(()) < 0.5 else 2)
    images[rows] = images[rows].lerp(behind, share)


def _shuffled_tiles(images: Tensor, no_face: Tensor) -> None:
    """Cut a third of the negatives into tiles and shuffle them, or make them mere texture."""
    rows = torch.nonzero(no_face)[:, 0]
    rows = rows[torch.rand(len(rows)) < 0.35]
    for row in rows.tolist():
        cells = int(torch.randint(2, 5, ()))
        side = SIZE // cells
        # Of any face of the batch: a face in pieces is none.
        donor = images[int(torch.randint(len(images), ()))]
        tiles = donor[:, : cells * side, : cells * side].reshape(3, cells, side, cells, side)
        tiles = tiles.permute(1, 3, 0, 2, 4).reshape(cells**2, 3, side, side)
        order = torch.randperm(cells**2)
        mixed = tiles[order.to(images.device)].reshape(cells, cells, 3, side, side)
        mixed = mixed.permute(2, 0, 3, 1, 4).reshape(1, 3, cells * side, cells * side)
        if torch.rand(()) < 0.3:
            coarse = int(torch.randint(2, 20, ()))
            mixed = torch.randn(1, 3, coarse, coarse, device=images.device) * 0.5
        images[row] = F.interpolate(mixed, SIZE, mode="bilinear")[0].clamp(-1, 1)


def _in_front(crops: Crops) -> None:
    """Cover parts by ellipses and bars, plain or cut from other pictures; put on dark glasses."""
    images, device = crops.images, crops.images.device
    for often in (0.4, 0.2):
        rows = torch.nonzero(torch.rand(len(images)) < often)[:, 0].to(device)
        _covered(images, crops.points, crops.visible, rows)
    rows = torch.nonzero(torch.rand(len(images)) < 0.06)[:, 0].to(device)
    _sunglasses(images, crops.points, crops.visible, rows)


def _covered(images: Tensor, points: Tensor, visible: Tensor, rows: Tensor) -> None:
    count, device = len(rows), images.device
    if not count:
        return
    # About a point of the face, so that it is mostly the face that is covered.
    about = points[rows, torch.randint(70, (count,)).to(device)]
    centre = about + (12 * torch.randn(count, 2)).to(device)
    half = (4 + 24 * torch.rand(count, 2).square()).to(device) * torch.where(
        torch.rand(count, 1) < 0.25, torch.tensor([[4.0, 0.5]]), torch.tensor([[1.0, 1.0]])
    ).to(device)
    angle = (math.pi * torch.rand(count)).to(device)
    square = (torch.rand(count) < 0.4).to(device)
    far = _blob(centre, angle, half, square, _field(count, device))
    share = ((1 - far) * half.amin(1).view(-1, 1, 1) + 0.5).clamp(0, 1)[:, None]
    plain = (_even(count, 3, 1, 1)).to(device)
    skin = images[rows, :, SIZE // 2, SIZE // 2].view(-1, 3, 1, 1) * 0.9 + 0.1 * plain
    other = images[rows - 1].roll(SIZE // 3, 2)
    kind = torch.rand(count).to(device).view(-1, 1, 1, 1)
    cover = torch.where(kind < 0.3, plain, torch.where(kind < 0.55, skin, other))
    shade = 1 + 0.3 * (_field(count, device)[..., 0] / SIZE - 0.5)[:, None]
    cover = ((cover + 1) * shade - 1).clamp(-1, 1)
    images[rows] = images[rows].lerp(cover, share)
    inside = _blob(centre, angle, half, square, points[rows]) < 1
    visible[rows] = visible[rows] * ~inside


def _sunglasses(images: Tensor, points: Tensor, visible: Tensor, rows: Tensor) -> None:
    count, device = len(rows), images.device
    if not count:
        return
    left, right = points[rows, 36:42].mean(1), points[rows, 42:48].mean(1)
    across = right - left
    width = across.norm(dim=1, keepdim=True)
    angle = torch.atan2(across[:, 1], across[:, 0])
    half = width * (torch.tensor([0.36, 0.28]) + 0.1 * torch.rand(count, 2)).to(device)
    square = (torch.rand(count) < 0.3).to(device)
    bar = torch.cat([0.6 * width, 0.04 * width], 1)
    field = _field(count, device)
    down = torch.stack([-across[:, 1], across[:, 0]], 1) * 0.05
    parts = [
        (left + down, half, square),
        (right + down, half, square),
        ((left + right) / 2, bar, square | True),
    ]
    share = images.new_zeros(count, SIZE, SIZE)
    inside = torch.zeros(count, 70, dtype=torch.bool, device=device)
    for centre, axes, form in parts:
        far = _blob(centre, angle, axes, form, field)
        share = torch.maximum(share, ((1 - far) * axes.amin(1).view(-1, 1, 1) + 0.5).clamp(0, 1))
        inside |= _blob(centre, angle, axes, form, points[rows]) < 1
    dense = (0.6 + 0.4 * torch.rand(count)).to(device)
    colour = (-1 + 0.5 * torch.rand(count, 3, 1, 1)).to(device)
    images[rows] = images[rows].lerp(colour, (share * dense.view(-1, 1, 1))[:, None])
    visible[rows] = visible[rows] * ~(inside & (dense > 0.85)[:, None])


def _lit(images: Tensor) -> Tensor:
    """Other light, other colours: gain, gamma, white balance, saturation, hue, lamps, shadows."""
    count, device = len(images), images.device
    linear = ((images + 1) / 2).clamp(1e-3, 1)
    gamma = (0.3 * torch.randn(count)).clamp(-0.9, 0.9).exp()
    linear = linear.pow(gamma.view(-1, 1, 1, 1).to(device))
    # A lamp or a shadow: the gain slopes over the crop, sharply at times.
    field = _field(count, device) / SIZE - 0.5
    way = _turns(2 * math.pi * torch.rand(count))[..., 0].to(device)
    slope = (field * way.view(-1, 1, 1, 2)).sum(-1) + 0.4 * _even(count).to(device).view(-1, 1, 1)
    sharp = torch.where(
        torch.rand(count) < 0.25, 4 + 20 * torch.rand(count), 1.5 * torch.ones(count)
    )
    strength = 0.4 * torch.randn(count) * (torch.rand(count) < 0.6)
    lamp = (
        strength.view(-1, 1, 1).to(device) * torch.tanh(slope * sharp.view(-1, 1, 1).to(device))
    ).exp()
    # Colours: one matrix, which mixes towards grey, turns the hue, and weighs the channels.
    luma = torch.tensor([[0.299, 0.587, 0.114]]).expand(3, 3)
    saturation = (0.3 * torch.randn(count)).exp() * (torch.rand(count) > 0.12)
    mix = luma + saturation.view(-1, 1, 1) * (torch.eye(3) - luma)
    hue = 0.07 * torch.randn(count, 1, 1)
    third = torch.full((3, 3), 1 / 3)
    skew = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    mix = mix @ (third + hue.cos() * (torch.eye(3) - third) + hue.sin() * skew)
    balance = (0.1 * torch.randn(count, 3, 1)).exp()
    gain = (0.15 * torch.randn(count, 1, 1)).exp()
    colours = (mix * balance * gain).to(device)
    flat = (colours @ linear.flatten(2)).view_as(linear) * lamp[:, None]
    contrast = (0.2 * torch.randn(count)).exp().view(-1, 1, 1, 1).to(device)
    base = (0.1 * torch.randn(count)).view(-1, 1, 1, 1).to(device)
    return ((flat - 0.5) * contrast + 0.5 + base).mul_(2).sub_(1).clamp_(-1, 1)


def _taken(images: Tensor) -> None:
    """A worse camera: blur, fewer pixels, noise, compression; each on a share of the batch."""
    count, device = len(images), images.device
    order = torch.randperm(count).to(device)
    for start, share in ((0, 0.12), (0.12, 0.1), (0.22, 0.08)):
        rows = order[int(start * count) : int((start + share) * count)]
        if len(rows):
            small = int(SIZE / (1.3 + 3.2 * float(torch.rand(())) ** 2))
            less = F.interpolate(images[rows], small, mode="bilinear", antialias=True)
            images[rows] = F.interpolate(less, SIZE, mode="bilinear")
    rows = order[int(0.25 * count) : int(0.45 * count)]
    if len(rows):
        kernel = _smear().to(device)
        flat = F.pad(images[rows].flatten(0, 1)[:, None], [4, 4, 4, 4], mode="replicate")
        images[rows] = F.conv2d(flat, kernel[None, None]).view(len(rows), *images.shape[1:])
    rows = torch.nonzero(torch.rand(count) < 0.4)[:, 0].to(device)
    strong = 0.12 * torch.rand(len(rows), 1, 1, 1).square().to(device)
    grey = torch.rand(len(rows), 1, 1, 1).to(device) < 0.4
    noise = torch.randn(len(rows), *images.shape[1:]).to(device)
    noisy = images[rows] + strong * torch.where(grey, noise[:, :1], noise)
    images[rows] = noisy.clamp_(-1, 1)
    _compressed(images)


def _smear() -> Tensor:
    """A blur (9, 9): round or along a line, of any strength."""
    places = torch.arange(9) - 4.0
    y, x = torch.meshgrid(places, places, indexing="ij")
    angle, long, broad = torch.rand(3)
    along = x * (math.pi * angle).cos() + y * (math.pi * angle).sin()
    across = y * (math.pi * angle).cos() - x * (math.pi * angle).sin()
    first = 0.4 + 2.0 * long
    second = first if broad < 0.5 else torch.tensor(0.4)
    kernel = torch.exp(-0.5 * ((along / first) ** 2 + (across / second) ** 2))
    return kernel / kernel.sum()


def _compressed(images: Tensor) -> None:
    """JPEG on a third of the batch."""
    rows = torch.nonzero(torch.rand(len(images)) < 0.33)[:, 0]
    chosen = ((images[rows.to(images.device)] + 1) * 127.5).round().byte()
    pixels = chosen.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    quality = torch.randint(15, 90, (len(rows),)).tolist()
    for picture, q in zip(pixels, quality, strict=True):
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, q])
        picture[:] = cv2.imdecode(data, cv2.IMREAD_COLOR)
    back = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    images[rows.to(images.device)] = back.to(images.device)


# --- What is asked of it ---


def openness(points: Tensor) -> Tensor:
    """How far the left and the right eye are open (B, 2), from true points (B, 70, 2)."""
    eyes = []
    for first in (36, 42):
        outer, a, b, inner, c, d = points[:, first : first + 6].unbind(1)
        lids = ((a - d).norm(dim=1) + (b - c).norm(dim=1)) / 2
        eyes.append(lids / (outer - inner).norm(dim=1).clamp(min=1))
    return torch.stack(eyes, 1)


def lesson_losses(reading: Reading, crops: Crops) -> dict[str, Tensor]:
    """The terms of the loss, by name, each with its weight in it."""
    face = crops.face.float()
    count = face.sum().clamp(min=1)

    def over_faces(values: Tensor) -> Tensor:
        return (values.flatten(1).mean(1) * face).sum() / count

    # Likelihood of the points (Wood et al., 2022, eq. 3), and their distance, which keeps it
    # from giving up on those that are hard.
    log_deviation = reading.log_deviation
    offset = reading.points - crops.points
    square = offset.square().sum(2)
    likelihood = 2 * log_deviation + square / (2 * (2 * log_deviation).exp())
    distance = F.smooth_l1_loss(reading.points, crops.points, beta=2.0, reduction="none")

    # Heat maps are drawn towards a Gaussian about the truth.
    cells = math.isqrt(reading.heat.shape[2])
    centres = (torch.arange(cells, device=offset.device) + 0.5) * (SIZE / cells)
    held = crops.points.clamp(0, SIZE)
    x, y = (
        F.softmax(-0.5 * ((held[..., axis, None] - centres) / 5.0).square(), dim=-1)
        for axis in (0, 1)
    )
    heat = reading.heat.view(*x.shape[:2], cells, cells)
    surprise = reading.heat.logsumexp(2) - ((heat @ x[..., None])[..., 0] * y).sum(2)

    # The angle between two rotations; the sine of its half is their distance over √8.
    apart = (reading.rotation - crops.turns).square().sum((1, 2))
    geodesic = 2 * torch.asin(((apart + 1e-6) / 8).sqrt().clamp(max=0.99))

    # Most units are at rest in most pictures: a distance would teach to say 0 (its median), and
    # the cross-entropy teaches the mean.
    expression = F.binary_cross_entropy_with_logits(
        reading.expression, crops.expression, reduction="none"
    )
    # From the side, an eye's width says nothing.
    yaw = torch.atan2(crops.turns[:, 0, 2], crops.turns[:, 2, 2])
    frontal = (yaw.abs() < math.radians(40)).float()
    eyes = (reading.eyes - openness(crops.points)).abs() * frontal[:, None]
    seen = F.binary_cross_entropy_with_logits(reading.visible, crops.visible, reduction="none")
    there = F.binary_cross_entropy_with_logits(reading.presence, face)
    # Where there is no face, points are anywhere: within some 25 pixels.
    lost = ((log_deviation - math.log(25)).square().mean(1) * (1 - face)).mean()
    return {
        "likelihood": over_faces(likelihood),
        "distance": 0.5 * over_faces(distance),
        "heat": over_faces(surprise),
        "pose": 4 * over_faces(geodesic[:, None]),
        "expression": 4 * over_faces(expression),
        "eyes": 5 * over_faces(eyes),
        "visible": over_faces(seen),
        "presence": there,
        "lost": lost,
    }


@torch.inference_mode()
def look(
    net: LandmarkNet, pictures: Pictures, rows: Tensor, device: torch.device
) -> dict[str, float]:
    """Figures on pictures that were not learned from, in plain crops.

    Returns:
        ``nme``: mean distance of the 68 points over that of the outer eye corners; ``nme_seven``:
        of eye and mouth corners and the tip of the nose; ``z``: root mean square of the points'
        errors along an axis over their predicted deviations, 1 if these are true;
        ``pose``: mean angle in degrees; ``expression`` and ``eyes``: mean absolute errors;
        ``visible``: share of the points rightly said to be seen or not; ``presence``: share of
        faces said to be there.
    """
    sums: dict[str, list[Tensor]] = {}
    for part in torch.split(rows, 64):
        true = plain(Pictures(*(values[part] for values in pictures)), device)
        said = net(true.images)
        away = (said.points - true.points).norm(dim=2)
        between = (true.points[:, 36] - true.points[:, 45]).norm(dim=1, keepdim=True)
        error = away / between
        cosine = ((said.rotation * true.turns).sum((1, 2)) - 1) / 2
        eyes = (said.eyes - openness(true.points)).abs()
        yaw = torch.atan2(true.turns[:, 0, 2], true.turns[:, 2, 2])
        found = {
            "nme": error[:, :68].mean(1),
            "nme_seven": error[:, [36, 39, 42, 45, 30, 48, 54]].mean(1),
            "z": (away.square() / (2 * (2 * said.log_deviation).exp())).mean(1),
            "pose": torch.rad2deg(torch.acos(cosine.clamp(-1, 1))),
            "expression": (said.expression.sigmoid() - true.expression).abs().mean(1),
            "eyes": eyes.mean(1)[yaw.abs() < math.radians(40)],
            "visible": ((said.visible > 0) == (true.visible > 0.5)).float().mean(1),
            "presence": (said.presence > 0).float(),
        }
        for name, values in found.items():
            sums.setdefault(name, []).append(values)
    means = {name: float(torch.cat(values).mean()) for name, values in sums.items()}
    return {name: round(v**0.5 if name == "z" else v, 5) for name, v in means.items()}
