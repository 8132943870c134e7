"""Teach :mod:`facekit.faces.visible` what is bare face: on people who don't exist, by exact truth.

What it learns must hold for photographs, which the studio's pictures are not. So each crop is
turned and shifted, what lies behind is replaced, things are put in front whose place is known
(:mod:`facekit.studio.lessons._occluders`), and light, colour, sharpness, noise and compression
change; all of it where the network is, a batch at a time (the way of Wood et al., "Fake it till you
make it", 2021, arXiv:2109.15102). The loss is the cross-entropy plus Dice (Milletari et al.,
"V-Net", 2016, arXiv:1606.04797); the weights bundled are an average over the last steps.

The crops are rendered once, into one file of the run folder, which may be carried to a machine
that teaches and cannot render.
"""

import logging
import math
import time
from pathlib import Path

import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.core.run import Run
from facekit.core.seed import seed_step
from facekit.faces.blend import ellipse
from facekit.faces.visible import SIZE, VisibleNet, fold, shares
from facekit.studio import teach as lessons
from facekit.studio.lessons import _crops as crops_file
from facekit.studio.lessons._crops import ROOM, SIDE, Crops
from facekit.studio.lessons._occluders import KINDS, Scene, put_on

log = logging.getLogger("facekit")

LICENCE = "Apache-2.0"

CROPS = "crops.safetensors"
"""The file in the run folder that holds what it is taught on."""


class Config(lessons.Lesson):
    """Settings of the lesson.

    Attributes:
        steps: optimiser steps.
        batch: crops a step.
        learning_rate: its peak; it rises for ``warm_up`` steps, then falls as half a cosine.
        warm_up: steps.
        weight_decay: of AdamW.
        average: the weights bundled are an average over about so many last steps.
        bare: share of the crops in front of whose face nothing is put.
        checkpoint_every: steps between checkpoints.
        look_every: steps between looks at the people held out.
    """

    steps: int = Field(ge=1)
    batch: int = Field(64, ge=2)
    learning_rate: float = Field(2e-3, gt=0)
    warm_up: int = Field(100, ge=0)
    weight_decay: float = Field(0.02, ge=0)
    average: int = Field(300, ge=1)
    bare: float = Field(0.2, ge=0, le=1)
    checkpoint_every: int = Field(500, ge=1)
    look_every: int = Field(1000, ge=1)


def prepare(config: Config, run: Run, workers: int) -> None:
    """Render the crops into the run folder, unless they are there."""
    path = run.folder / CROPS
    if not path.exists():
        crops_file.render(
            path,
            people=config.people,
            frames=config.frames,
            size=config.size,
            seed=config.data_seed,
            workers=workers,
        )


def teach(
    config: Config, run: Run, fabric: Fabric, studio: lessons.Studio | None, data: Path | None
) -> None:
    """Train; see :mod:`facekit.studio.teach`.

    Args:
        config: see :class:`Config`.
        run: where the crops are, to resume from, and to keep checkpoints and metrics.
        fabric: where and how precisely to compute.
        studio: none; the crops of :func:`prepare` come with their masks.
        data: none; the studio alone teaches this.
    """
    seed = int(run.facts["seed"])
    device = fabric.device
    crops = _on(crops_file.read(run.folder / CROPS), config, device)
    known = torch.nonzero(crops.person < config.people - config.held_out)[:, 0].cpu()
    held_out = torch.nonzero(crops.person >= config.people - config.held_out)[:, 0].cpu()

    seed_step(seed, 0)
    net = VisibleNet().to(device)
    optimizer = torch.optim.AdamW(
        net.parameters(), weight_decay=config.weight_decay, betas=(0.9, 0.99), fused=True
    )
    average = {name: value.detach().clone() for name, value in net.state_dict().items()}
    first = 0
    if state := run.resume():
        first = run.restore(state, net=net, optimizer=optimizer)
        average = {name: value.to(device) for name, value in state["average"].items()}

    began = time.perf_counter()
    with progress("teaching the bare face", config.steps) as advance:
        for step in range(first, config.steps):
            seed_step(seed, 1 + step)
            warm = min(1.0, (step + 1) / max(1, config.warm_up))
            falling = 0.5 * (1 + math.cos(math.pi * step / config.steps))
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * warm * falling

            rows = known[torch.randint(len(known), (config.batch,))]
            images, bare = changed(crops, rows, config.bare)
            with fabric.autocast():
                logits = net.train()(images.contiguous(memory_format=torch.channels_last))
            losses = lesson_losses(logits.float(), bare)
            optimizer.zero_grad()
            fabric.backward(torch.stack(list(losses.values())).sum())
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            # The average's memory grows with the steps, so that the first weights are forgotten.
            share = max(1 / (2 + step), 1 / config.average)
            with torch.no_grad():
                for name, value in net.state_dict().items():
                    average[name].lerp_(value, share) if value.is_floating_point() else None

            done = step + 1
            last = done == config.steps
            if done % 20 == 0 or last or done % config.checkpoint_every == 0:
                values = {f"loss_{name}": value.item() for name, value in losses.items()}
                if not math.isfinite(sum(values.values())):
                    raise FacekitError(
                        f"{run.folder}: the loss is not finite at step {done}; lower learning_rate"
                    )
                rate = (done - first) * config.batch / (time.perf_counter() - began)
                found: dict[str, float] = {}
                if done % config.look_every == 0 and not last:
                    found = look(averaged(average), crops, held_out)
                    log.info(
                        "step %d: %s", done, " ".join(f"{k} {v:.3f}" for k, v in found.items())
                    )
                run.log(done, **values, images_per_second=rate, **found)
                advance(done, f"loss {sum(values.values()):.3f}, {rate:.0f} images/s")
            if done % config.checkpoint_every == 0 or last:
                run.save(
                    done,
                    {
                        "net": net.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "average": average,
                    },
                )
    figures = look(averaged(average), crops, held_out) | floors(crops, held_out)
    run.note(figures=figures)


def weights(run: Run) -> dict[str, Tensor]:
    """The tensors to bundle: the averaged network, its batch normalisation folded."""
    return fold(averaged(run.trained()["average"]))


def averaged(average: dict[str, Tensor]) -> VisibleNet:
    """The network of averaged weights, to look at."""
    net = VisibleNet()
    net.load_state_dict(average)
    return net.to(next(iter(average.values())).device).eval()


def _on(crops: Crops, config: Config, device: torch.device) -> Crops:
    if len(crops.person) != config.people * config.frames:
        raise FacekitError(
            f"{CROPS} of the run folder holds {len(crops.person)} crops, not those of "
            f"{config.people} people x {config.frames} performances; remove it, and it is "
            "rendered again"
        )
    return Crops(*(values.to(device) for values in crops))


def lesson_losses(logits: Tensor, bare: Tensor) -> dict[str, Tensor]:
    """The terms of the loss, by name, for logits and truth (B, 1, S, S)."""
    said = logits.sigmoid()
    common = (said * bare).sum((1, 2, 3))
    total = (said.square() + bare.square()).sum((1, 2, 3))
    # A face that is all covered has no overlap to speak of.
    dice = 1 - (2 * common + 20) / (total + 20)
    return {"entropy": F.binary_cross_entropy_with_logits(logits, bare), "dice": 0.5 * dice.mean()}


# --- How the crops are changed; all of it a batch at a time, where the crops are ---

_OFTEN = {
    "thing": 0.35,
    "held": 0.12,
    "hair": 0.25,
    "dark_glasses": 0.07,
    "cloth": 0.1,
    "hand": 0.35,
}


def changed(crops: Crops, rows: Tensor, bare: float) -> tuple[Tensor, Tensor]:
    """A batch to learn from.

    Args:
        crops: on the device.
        rows: (B,) of them.
        bare: share in front of whose face nothing is put.

    Returns:
        Images (B, 3, 128, 128) in [-1, 1], and how far each pixel is bare face, (B, 1, 128, 128).
        Random numbers come from torch's global stream.
    """
    images, masks, points = brought(crops, rows, _inexact(len(rows)))
    _behind(images, masks[:, 2:])
    _tinted(images, masks[:, 1:2])
    truth = masks[:, :1].contiguous()
    free = torch.rand(len(rows)) < bare
    for kind, often in _OFTEN.items():
        chosen = torch.nonzero((torch.rand(len(rows)) < often) & ~free)[:, 0]
        cover(images, truth, points, chosen, kind)
    return _taken(_lit(images)).mul_(2).sub_(1), truth


def brought(crops: Crops, rows: Tensor, crop_from_centre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the middles out of crops.

    Args:
        crops: on the device.
        rows: (B,) of them.
        crop_from_centre: (B, 2, 3), maps of places relative to the middle, in pixels.

    Returns:
        Images (B, 3, 128, 128) and masks (B, 3, 128, 128) in [0, 1], and points (B, 5, 2).
    """
    device = crops.images.device
    select = rows.to(device)
    planes = torch.cat([crops.images[select], crops.masks[select]], 1).float() / 255
    whole = torch.eye(3).repeat(len(rows), 1, 1)
    whole[:, :2] = crop_from_centre
    # In affine_grid's coordinates both pictures span [-1, 1]².
    scale = torch.diag(torch.tensor([SIDE / 2, SIDE / 2, 1.0]))
    back = torch.diag(torch.tensor([2 / SIZE, 2 / SIZE, 1.0]))
    theta = torch.linalg.inv(back @ whole @ scale)[:, :2].to(device)
    grid = F.affine_grid(theta, [len(rows), 6, SIZE, SIZE], align_corners=False)
    planes = F.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    moved = crop_from_centre.to(device)
    points = (crops.points[select] - SIDE / 2) @ moved[:, :, :2].mT + moved[:, None, :, 2]
    points = points + SIZE / 2
    # The picture's left comes first, also in a mirror.
    mirrored = torch.linalg.det(moved[:, :, :2]) < 0
    points = torch.where(mirrored[:, None, None], points[:, [1, 0, 2, 4, 3]], points)
    return planes[:, :3].contiguous(), planes[:, 3:], points


def plain(count: int) -> Tensor:
    """The crops as template "face" has them (B, 2, 3)."""
    assert SIDE - 2 * ROOM == SIZE
    return torch.eye(2, 3).repeat(count, 1, 1)


def _inexact(count: int) -> Tensor:
    """As by a locator's points, at times much worse; half are mirrored (B, 2, 3)."""
    much = torch.rand(count) < 0.25
    turn = torch.where(much, 0.6 * _even(count), 0.07 * torch.randn(count))
    scale = torch.where(much, 0.3 * _even(count), 0.07 * torch.randn(count)).exp()
    shift = torch.where(much[:, None], 14 * _even(count, 2), 3 * torch.randn(count, 2))
    # MTCNN's points lie a little lower than the true ones.
    shift[:, 1] -= 1.0
    cosine, sine = turn.cos() * scale, turn.sin() * scale
    side = torch.where(torch.rand(count) < 0.5, 1.0, -1.0)
    rows = [
        torch.stack([cosine * side, -sine, shift[:, 0]], 1),
        torch.stack([sine * side, cosine, shift[:, 1]], 1),
    ]
    return torch.stack(rows, 1)


def _even(*shape: int) -> Tensor:
    return 2 * torch.rand(*shape) - 1


def _behind(images: Tensor, person: Tensor) -> None:
    """Put other pictures, often other people, or plain colours behind 40% of the people."""
    count, device = len(images), images.device
    rows = torch.nonzero(torch.rand(count) < 0.4)[:, 0].to(device)
    if not len(rows):
        return
    behind = images[rows - 1].roll(int(torch.randint(SIZE, ())), 3)
    if torch.rand(()) < 0.5:
        behind = behind.flip(2)
    coarse = torch.rand(len(rows), 3, 3, 3).to(device)
    smooth = F.interpolate(coarse, SIZE, mode="bilinear", align_corners=True)
    flat = torch.rand(len(rows), 3, 1, 1).to(device).expand_as(smooth)
    kind = torch.rand(len(rows), 1, 1, 1).to(device)
    behind = torch.where(kind < 0.5, behind, torch.where(kind < 0.75, smooth, flat))
    images[rows] = behind.lerp(images[rows], person[rows])


def _tinted(images: Tensor, glasses: Tensor) -> None:
    """Darken and tint the lenses of a third of those who wear glasses, or let them reflect."""
    count, device = len(images), images.device
    tint = torch.rand(count, 3, 1, 1) * torch.rand(count, 1, 1, 1)
    strength = torch.rand(count, 1, 1, 1) * (torch.rand(count, 1, 1, 1) < 0.35)
    dimmed = images * (1 - strength + strength * tint).to(device)
    coarse = F.interpolate(torch.rand(count, 1, 6, 6).to(device), SIZE, mode="bilinear")
    gleam = (2 * (torch.rand(count, 1, 1, 1) < 0.3) * torch.rand(count, 1, 1, 1)).to(device)
    dimmed = dimmed + gleam * (coarse - 0.6).clamp(min=0)
    images.copy_(images.lerp(dimmed, glasses).clamp(0, 1))


def cover(
    images: Tensor, bare: Tensor, points: Tensor, rows: Tensor, kind: str, same: float | None = None
) -> None:
    """Put something in front of the faces of ``rows``, in place.

    Args:
        images: (B, 3, S, S) in [0, 1].
        bare: (B, 1, S, S), the truth.
        points: (B, 5, 2).
        rows: which of them.
        kind: a key of ``KINDS``.
        same: share of the hands that are of the face's colour.
    """
    rows = rows.to(images.device)
    if not len(rows):
        return
    chosen, truth = images[rows], bare[rows]
    weight = truth + 1e-4
    skin = (chosen * weight).sum((2, 3)) / weight.sum((2, 3))
    scene = Scene(chosen, points[rows], skin, images.flip(0)[rows])
    draw = KINDS[kind]
    layer = draw(scene, same) if kind == "hand" and same is not None else draw(scene)  # type: ignore[call-arg]
    shadow = 0.5 * scene.share() * scene.some(0.6)
    put_on(chosen, truth, layer, shadow, 4 * scene.even(2))
    images[rows], bare[rows] = chosen, truth


def _lit(images: Tensor) -> Tensor:
    """Other light, other colours: gain, gamma, white balance, saturation, hue, lamps, shadows."""
    count, device = len(images), images.device

    def each(values: Tensor) -> Tensor:
        return values.view(count, -1, 1, 1).to(device)

    images = images.clamp(1e-3, 1).pow(each((0.3 * torch.randn(count)).clamp(-0.9, 0.9).exp()))
    # A lamp or a shadow: the gain slopes over the crop, sharply at times.
    centres = (torch.arange(SIZE, device=device) + 0.5) / SIZE - 0.5
    way = 2 * math.pi * torch.rand(count)
    slope = (
        each(way.cos()) * centres + each(way.sin()) * centres[:, None] + each(0.4 * _even(count))
    )
    sharp = torch.where(torch.rand(count) < 0.25, 4 + 20 * torch.rand(count), torch.tensor(1.5))
    strength = 0.4 * torch.randn(count) * (torch.rand(count) < 0.6)
    lamp = (each(strength) * torch.tanh(slope * each(sharp))).exp()
    # Colours: one matrix, which mixes towards grey, turns the hue, and weighs the channels.
    luma = torch.tensor([[0.299, 0.587, 0.114]]).expand(3, 3)
    saturation = (0.3 * torch.randn(count)).exp() * (torch.rand(count) > 0.1)
    mix = luma + saturation.view(-1, 1, 1) * (torch.eye(3) - luma)
    hue = 0.06 * torch.randn(count, 1, 1)
    third = torch.full((3, 3), 1 / 3)
    skew = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    mix = mix @ (third + hue.cos() * (torch.eye(3) - third) + hue.sin() * skew)
    mix = mix * (0.1 * torch.randn(count, 3, 1)).exp() * (0.15 * torch.randn(count, 1, 1)).exp()
    flat = (mix.to(device) @ images.flatten(2)).view_as(images) * lamp
    contrast, base = each((0.2 * torch.randn(count)).exp()), each(0.1 * torch.randn(count))
    return ((flat - 0.5) * contrast + 0.5 + base).clamp_(0, 1)


def _taken(images: Tensor) -> Tensor:
    """A worse camera: blur, fewer pixels, noise, compression; each on a share of the batch."""
    count, device = len(images), images.device
    order = torch.randperm(count).to(device)
    for start, share in ((0, 0.12), (0.12, 0.1), (0.22, 0.08)):
        rows = order[int(start * count) : int((start + share) * count)]
        if len(rows):
            small = int(SIZE / (1.3 + 3.2 * float(torch.rand(())) ** 2))
            less = F.interpolate(images[rows], small, mode="bilinear", antialias=True)
            images[rows] = F.interpolate(less, SIZE, mode="bilinear")
    rows = order[int(0.25 * count) : int(0.5 * count)]
    if len(rows):
        padded = F.pad(images[rows], [4, 4, 4, 4], mode="replicate")
        flat = padded.transpose(0, 1)
        kernels = _smears(len(rows)).to(device)
        images[rows] = F.conv2d(flat, kernels[:, None], groups=len(rows)).transpose(0, 1)
    strong = 0.08 * torch.rand(count, 1, 1, 1).square() * (torch.rand(count, 1, 1, 1) < 0.4)
    grey = (torch.rand(count, 1, 1, 1) < 0.4).to(device)
    noise = torch.randn(images.shape, device=device)
    noise = torch.where(grey, noise[:, :1], noise)
    images = (images + strong.to(device) * noise).clamp_(0, 1)
    rows = torch.nonzero(torch.rand(count) < 0.4)[:, 0].to(device)
    if len(rows):
        images[rows] = compressed(images[rows], 15 + 75 * torch.rand(len(rows)))
    return images


def _smears(count: int) -> Tensor:
    """Blurs (B, 9, 9): round or along a line, of any strength."""
    places = torch.arange(9) - 4.0
    y, x = torch.meshgrid(places, places, indexing="ij")
    angle, long, broad = torch.rand(3, count, 1, 1)
    along = x * (math.pi * angle).cos() + y * (math.pi * angle).sin()
    across = y * (math.pi * angle).cos() - x * (math.pi * angle).sin()
    first = 0.4 + 2.0 * long
    second = torch.where(broad < 0.5, first, torch.tensor(0.4))
    kernel = torch.exp(-0.5 * ((along / first) ** 2 + (across / second) ** 2))
    return kernel / kernel.sum((1, 2), keepdim=True)


# The tables of JPEG's annex K, those of libjpeg's quality 50.
_LUMA = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=torch.float32,
)  # fmt: skip
_CHROMA = torch.full((8, 8), 99.0)
_CHROMA[:4, :4] = torch.tensor(
    [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]], dtype=torch.float32
)
_YCC = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)
_INDEX = torch.arange(8, dtype=torch.float32)
_DCT = 0.5 * torch.cos(math.pi / 8 * _INDEX[:, None] * (_INDEX + 0.5))
_DCT[0] /= math.sqrt(2)


def compressed(images: Tensor, quality: Tensor) -> Tensor:
    """What JPEG leaves of images, without its bytes; colours at half the resolution.

    Args:
        images: (B, 3, S, S) in [0, 1], S a multiple of 16.
        quality: (B,) from 1 to 100, libjpeg's.

    Returns:
        Images in [0, 1].
    """
    device = images.device
    quality = quality.to(device)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50).clamp(min=0.02)
    ycc = torch.einsum("ij,bjhw->bihw", _YCC.to(device), images * 255)
    luma = _quantised(ycc[:, :1] - 128, _LUMA.to(device), scale) + 128
    chroma = _quantised(F.avg_pool2d(ycc[:, 1:], 2), _CHROMA.to(device), scale)
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear")
    back = torch.linalg.inv(_YCC).to(device)
    rgb = torch.einsum("ij,bjhw->bihw", back, torch.cat([luma, chroma], 1))
    return (rgb / 255).clamp(0, 1)


def _quantised(planes: Tensor, table: Tensor, scale: Tensor) -> Tensor:
    count, channels, side, _ = planes.shape
    cells = side // 8
    blocks = planes.reshape(count, channels, cells, 8, cells, 8).permute(0, 1, 2, 4, 3, 5)
    dct = _DCT.to(planes.device)
    steps = (table * scale.view(-1, 1, 1, 1, 1, 1)).round().clamp(1, 255)
    kept = (dct @ blocks @ dct.T / steps).round() * steps
    return (dct.T @ kept @ dct).permute(0, 1, 2, 4, 3, 5).reshape(planes.shape)


# --- What is asked of it ---

SETS = ("bare", "glasses", "hair", "thing", "held", "dark_glasses", "cloth", "hand")
"""What figures are given for: nothing in front; the studio's own glasses; what ``KINDS`` draws.

Hands are all of the face's own colour.
"""


def exam(crops: Crops, rows: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Images in [-1, 1] and truth (B, 1, 128, 128) of one of ``SETS``; the same at each call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SETS.index(name))
        images, masks, points = brought(crops, rows, plain(len(rows)))
        glasses = masks[:, 1].mean((1, 2)) > 0.005
        wanted = torch.nonzero(glasses if name == "glasses" else ~glasses)[:, 0]
        images, truth, points = images[wanted], masks[wanted, :1].contiguous(), points[wanted]
        if name in KINDS:
            cover(images, truth, points, torch.arange(len(wanted)), name, 1.0)
        quality = torch.full((len(wanted),), 85.0)
    return compressed(images, quality) * 2 - 1, truth


@torch.inference_mode()
def look(net: VisibleNet, crops: Crops, rows: Tensor) -> dict[str, float]:
    """Figures on people whom nothing was learned from, in plain crops.

    Returns:
        For each of ``SETS`` the mean over crops of the intersection over the union of what is said
        to be bare face, by more than a half, and what is.
    """
    found = {}
    for name in SETS:
        images, truth = exam(crops, rows, name)
        if len(images):
            said = torch.cat([shares(net(part)) for part in torch.split(images, 64)])
            found[name] = overlap(said, truth)
    return found


def floors(crops: Crops, rows: Tensor) -> dict[str, float]:
    """The same for those who know little: an ellipse, and the skin's colour within it."""
    found = {}
    shape = torch.from_numpy(ellipse(SIZE, (0.5, 0.5), (0.36, 0.47), 0.4))[None, None]
    inside = shape.to(crops.images.device)
    for name in SETS:
        images, truth = exam(crops, rows, name)
        if len(images):
            found[f"{name}_ellipse"] = overlap(inside.expand_as(truth), truth)
            found[f"{name}_colour"] = overlap(_coloured(images, inside), truth)
    return found


def _coloured(images: Tensor, inside: Tensor) -> Tensor:
    """Where the ellipse has colours that are common within it, in brightness and in chroma."""
    colours = torch.einsum("ij,bjhw->bihw", _YCC.to(images.device), images)
    core = inside > 0.9
    sample = colours[:, :, core[0, 0]]
    middle = sample.median(2).values[..., None, None]
    spread = (sample - middle[..., 0]).abs().median(2).values[..., None, None].clamp(min=0.01)
    # Three deviations of what is normal, by the median distance.
    near = ((colours - middle) / (1.48 * spread)).square().sum(1, keepdim=True) < 9
    return near.float() * (inside > 0.5)


def overlap(said: Tensor, truth: Tensor) -> float:
    """Mean intersection over union of (B, 1, S, S), each cut at a half."""
    a, b = said > 0.5, truth > 0.5
    common, either = ((part).sum((1, 2, 3)).float() for part in (a & b, a | b))
    return round(float((common / either.clamp(min=1))[b.sum((1, 2, 3)) > 200].mean()), 4)
