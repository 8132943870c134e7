"""Face swap with one decoder a person, on a shared encoder.

Origin: the auto-encoder of "deepfakes" (2017); described in Perov et al., "DeepFaceLab", 2020,
arXiv:2005.05535. Written anew; no code taken.

The encoder sees a randomly warped face of anyone and keeps, in a narrow code, what it needs to
know: pose, expression, light. Each person's decoder draws that person from it, and says which
pixels are that person's face, the mask by which it is laid into a picture. Since the encoder is
shared and cannot tell what it need not, decoding one person's code with another's decoder swaps the
face and keeps the rest.

A new pair of people starts from weights learned beforehand on the studio (:func:`pretrain`), where
two people give the same performance: there the right swap is known, and is taught directly.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from facekit.adversary.metrics.ssim import coarse_ssim
from facekit.adversary.objective import discriminator_loss, generator_loss
from facekit.conversion import Swap, convert
from facekit.conversion.images import to_images, to_pixels
from facekit.core import checkpoint, config, weights
from facekit.core.device import default_threads
from facekit.core.errors import FacekitError, did_you_mean
from facekit.core.progress import progress
from facekit.core.run import Run
from facekit.core.seed import seed_step
from facekit.faces.align import TEMPLATES, crop_from_image, warp
from facekit.faces.blend import ellipse
from facekit.faces.embed import Embedder, load_embedder
from facekit.faces.landmarks import mean_face_points
from facekit.faces.people import two_people
from facekit.faces.visible import load_visible
from facekit.generators._gate import GatedRun
from facekit.networks.discriminator import Discriminator
from facekit.types import Frame, Item, Pixels
from facekit.watermark import Kind

log = logging.getLogger("facekit")

KIND = Kind.COMPOSITE

VIDEOS = True

TEMPLATE = "face"

SEEN = 96
"""The side, in pixels, in which the encoder looks at faces."""

WEIGHTS = Path(__file__).parent.parent / "weights"


class Config(config.Config):
    """Settings of the face swap.

    Attributes:
        size: side of the faces that the network draws, in pixels.
        width: channels at the highest resolution; the parameters grow with its square.
        code: numbers in the code between encoder and decoders.
        steps: optimiser steps.
        batch: faces a step, shared evenly between the people.
        learning_rate: its peak; it rises for ``warm_up`` steps, then falls as half a cosine.
        warm_up: steps.
        encoder_speed: the encoder's learning rate over the decoders', if it is pre-trained. Far
            below 1 it stays what the studio taught it, blind to who is seen; 0 keeps it as it is.
        warp: strength of the random warp, as a share of the crop's side.
        ssim_weight: weight of 1 - SSIM beside the L1 loss.
        mask_weight: weight of the mask's L1 loss.
        adversarial_weight: weight of the game against a discriminator; 0 leaves it out.
        adversarial_from: share of the steps after which the game begins.
        gamma: weight γ of the discriminator's gradient penalties.
        pretrained: name of bundled weights to start from; "" starts from noise.
        least_photos: of each person; with fewer, training is refused.
        frames: of each video, taken evenly, are photos like others.
        checkpoint_every: steps between checkpoints.
        strip_every: steps between training strips.
    """

    size: Literal[32, 64, 96, 128] = 96
    width: int = Field(32, ge=4, le=128)
    code: int = Field(192, ge=8, le=1024)
    steps: int = Field(4000, ge=1)
    batch: int = Field(32, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    warm_up: int = Field(100, ge=0)
    encoder_speed: float = Field(0.1, ge=0, le=1)
    warp: float = Field(0.05, ge=0, le=0.2)
    ssim_weight: float = Field(1.0, ge=0)
    mask_weight: float = Field(0.5, ge=0)
    adversarial_weight: float = Field(0.0, ge=0)
    adversarial_from: float = Field(0.6, ge=0, le=1)
    gamma: float = Field(1.0, ge=0)
    pretrained: str = ""
    least_photos: int = Field(20, ge=1)
    frames: int = Field(200, ge=1, le=2000)
    checkpoint_every: int = Field(200, ge=1)
    strip_every: int = Field(500, ge=1)


class Encoder(nn.Module):
    """Grey faces (B, 3, S, S) → features (B, 4 * width, 12, 12), through a narrow code.

    Whatever their size S, faces are looked at in 96 pixels, so that one pre-training serves all.
    """

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        side = SEEN // 16
        self.code = nn.Sequential(
            nn.Conv2d(3, width, 5, 2, 2),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, 2 * width, 5, 2, 2),
            nn.LeakyReLU(0.1),
            nn.Conv2d(2 * width, 4 * width, 5, 2, 2),
            nn.LeakyReLU(0.1),
            nn.Conv2d(4 * width, 2 * width, 3, 2, 1),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
            nn.Linear(2 * width * side**2, code),
        )
        self.features = nn.Sequential(
            nn.Linear(code, 2 * width * side**2),
            nn.Unflatten(1, (2 * width, side, side)),
            *_twice_the_size(2 * width, 4 * width),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Encode a batch."""
        if images.shape[-1] != SEEN:
            images = F.interpolate(images, (SEEN, SEEN), mode="bilinear")
        # Channels last is about twice as fast here. Only the images are turned, not the weights:
        # a resumed optimiser would lay its moments out in another order, and change the bits.
        features = self.features(self.code(images.contiguous(memory_format=torch.channels_last)))
        turned: Tensor = features.contiguous(memory_format=torch.channels_last)
        return turned


class Decoder(nn.Module):
    """Features (B, 4 * width, 12, 12) → one person's grey face and its mask (B, 4, S, S).

    The mask is in [-1, 1] as the colours are, roughly: 1 is face, -1 is none.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.side = size // 8
        # Who it is, where the features say how they look just now. All that tells people apart
        # while their decoders are still alike, that is at the end of pre-training.
        self.person = nn.Parameter(torch.zeros(4 * width, SEEN // 8, SEEN // 8))
        self.draw = nn.Sequential(
            *_twice_the_size(4 * width, 4 * width),
            *_twice_the_size(4 * width, 2 * width),
            *_twice_the_size(2 * width, width),
            nn.Conv2d(width, 4, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Draw a batch."""
        return self.drawn(features + self.person)

    def drawn(self, features: Tensor) -> Tensor:
        """Draw features to which their person was added."""
        if features.shape[-1] != self.side:
            features = F.interpolate(features, (self.side, self.side), mode="bilinear")
        drawn: Tensor = self.draw(features)
        return drawn


def _twice_the_size(channels: int, out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, 4 * out, 3, padding=1),
        nn.PixelShuffle(2),
        nn.LeakyReLU(0.1),
    ]


class FaceSwap(nn.Module):
    """The shared encoder and ``people`` decoders."""

    def __init__(self, people: int, size: int, width: int, code: int) -> None:
        super().__init__()
        self.encoder = Encoder(width, code)
        self.decoders = nn.ModuleList(Decoder(size, width) for _ in range(people))

    def forward(self, images: Tensor, people: Sequence[int]) -> Tensor:
        """Draw each of ``images``' equal parts as one person.

        Args:
            images: (B, 3, S, S), made grey by :func:`to_grey`; B a multiple of ``len(people)``.
            people: which person to draw in the 1st, 2nd, … part.

        Returns:
            (B, 4, S, S): as grey, and the mask.
        """
        parts = self.encoder(images).chunk(len(people))
        return torch.cat([self.decoders[p](part) for p, part in zip(people, parts, strict=True)])


def train(
    config: Config,
    data: Path,
    run: GatedRun,
    fabric: Fabric,
    *,
    show: Callable[[int, Pixels], None] | None = None,
) -> None:
    """Train on a folder of 2 to 16 people.

    Args:
        config: see :class:`Config`.
        data: the folder.
        run: whose items of the folder to learn from, where to resume from, and to keep checkpoints
            and metrics.
        fabric: where and how precisely to compute.
        show: is handed the step and a training strip, uint8 (H, W, 3), now and then.

    Raises:
        FacekitError: if the folder shows too few or too many people, too few photos of one, or two
            people under one name.
    """
    from facekit.datasets.crops import load_crops

    # Twice the size: a bilinear sample between four pixels then stays sharp.
    size = 2 * config.size
    crops = load_crops(
        data,
        template=TEMPLATE,
        size=size,
        device=fabric.device,
        items=run.items,
        exactly=True,
        frames=config.frames,
    )
    subjects = [item.subject for item in crops.items]
    people = sorted(set(subjects))
    if not 2 <= len(people) <= 16:
        raise FacekitError(f"{data}: shows {len(people)} people; a swap is learned from 2 to 16")
    run.note(people=people)
    rows = [[i for i, s in enumerate(subjects) if s == person] for person in people]
    embedder = load_embedder(fabric.device)
    for person, own in zip(people, rows, strict=True):
        if len(own) < config.least_photos:
            raise FacekitError(
                f"{data}: shows the face of '{person}' in {len(own)} photos; a swap is learned "
                f"from at least {config.least_photos} of each person: give more, or --set "
                "least_photos to fewer and expect a face that hardly moves"
            )
        items = [crops.items[i] for i in own]
        _require_one_person(data, person, items, crops.images[own], embedder, fabric.device)
    run.note(complexions=[complexion(torch.from_numpy(crops.images[own])) for own in rows])
    images = with_masks(torch.as_tensor(crops.images).to(fabric.device))
    fit(config, images, rows, run, fabric, show=show)


def _require_one_person(
    data: Path,
    person: str,
    items: Sequence[Item],
    crops: Pixels,
    embedder: Embedder,
    device: torch.device,
) -> None:
    """See that the photos of one folder show one person.

    Raises:
        FacekitError: if they show two, with a photo of either.
    """
    points = TEMPLATES[TEMPLATE][None] * crops.shape[1]
    matrix = crop_from_image(points, embedder.template, embedder.size)
    parts = []
    for some in np.array_split(crops, max(1, len(crops) // 64)):
        images = to_images(torch.from_numpy(some).to(device))
        parts.append(to_pixels(warp(images, matrix.repeat(len(some), 0), embedder.size)))
    second = two_people(embedder.embed(np.concatenate(parts)))
    if second is not None:
        one, other = (items[int(np.flatnonzero(second == k)[0])].path for k in (False, True))
        raise FacekitError(
            f"{data}: the photos of '{person}' seem to show two people, one in {one}, the other in "
            f"{other} and {int(second.sum()) - 1} more; give each person's photos a name of their "
            "own"
        )


def fit(
    config: Config,
    images: Tensor,
    rows: list[list[int]],
    run: Run,
    fabric: Fabric,
    *,
    show: Callable[[int, Pixels], None] | None = None,
) -> None:
    """The loop of :func:`train`.

    Args:
        config: see :class:`Config`.
        images: crops and masks, uint8 (N, 2S, 2S, 4), as of :func:`with_masks`.
        rows: each person's rows of ``images``.
        run: as of :func:`train`, as are the others.
        fabric: where and how precisely to compute.
        show: is handed training strips.
    """
    seed = int(run.facts["seed"])
    # A list: Fabric rebuilds an input's containers when it casts, which a range does not allow.
    everyone = list(range(len(rows)))
    share = math.ceil(config.batch / len(rows))
    speeds = (config.encoder_speed if config.pretrained else 1.0, 1.0)

    seed_step(seed, 0)
    net = FaceSwap(len(rows), config.size, config.width, config.code)
    if config.pretrained:
        start_from(net, config.pretrained)
    parts = [{"params": list(part.parameters())} for part in (net.encoder, net.decoders)]
    model, optimizer = fabric.setup(net, torch.optim.Adam(parts, betas=(0.9, 0.99), fused=True))
    judge = Discriminator(config.size, outputs=len(rows)).to(fabric.device)
    judge_optimizer = torch.optim.Adam(judge.parameters(), 2e-4, betas=(0.0, 0.99))
    first = 0
    if state := run.resume():
        first = run.restore(
            state, net=net, optimizer=optimizer, judge=judge, judge_optimizer=judge_optimizer
        )

    began = time.perf_counter()
    with progress("training face_swap", config.steps) as advance:
        for step in range(first, config.steps):
            seed_step(seed, 1 + step)
            rate = config.learning_rate * _schedule(step, config)
            for group, speed in zip(optimizer.param_groups, speeds, strict=True):
                group["lr"] = speed * rate

            # A batch: the same number of faces of each person, in the order of the people.
            chosen = [torch.tensor(own)[torch.randint(len(own), (share,))] for own in rows]
            batch = to_images(images[torch.cat(chosen).to(images.device)])
            inputs, targets = distort(batch, config.size, config.warp)
            colour = mean_colour(targets[:, :3])
            inputs = to_grey(inputs[:, :3], colour)
            targets = torch.cat([to_grey(targets[:, :3], colour), targets[:, 3:]], 1)

            drawn = model(inputs, everyone).float()
            error = loss = reconstruction_loss(drawn, targets, config)
            if config.adversarial_weight > 0 and step >= config.adversarial_from * config.steps:
                # Each code goes to another person's decoder; the discriminator compares what it
                # draws with that person's photos. It sees and penalises in float32.
                others = [(person + 1 + step % (len(rows) - 1)) % len(rows) for person in everyone]
                fakes = masked(model(inputs, others).float())
                reals = masked(torch.cat([targets.chunk(len(rows))[person] for person in others]))
                who = torch.tensor(others, device=fabric.device).repeat_interleave(share)
                own = partial(_own_logits, judge, who)
                judge_optimizer.zero_grad()
                fabric.backward(discriminator_loss(own, reals, fakes, config.gamma).total)
                judge_optimizer.step()
                loss = loss + config.adversarial_weight * generator_loss(own, reals, fakes)
            optimizer.zero_grad()
            fabric.backward(loss)
            fabric.clip_gradients(model, optimizer, max_norm=1.0, error_if_nonfinite=False)
            optimizer.step()

            done = step + 1
            saves = done % config.checkpoint_every == 0 or done == config.steps
            if done % 10 == 0 or saves:
                value = _finite(error, run, done)
                pace = (done - first) * share * len(rows) / (time.perf_counter() - began)
                run.log(done, loss=value, images_per_second=pace)
                advance(done, f"loss {value:.4f}, {pace:.0f} images/s")
            if saves:
                checkpoint.require_finite(net.state_dict(), run.folder, done)
                state = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
                state |= {
                    "judge": judge.state_dict(),
                    "judge_optimizer": judge_optimizer.state_dict(),
                }
                run.save(done, state)
            if show and (done % config.strip_every == 0 or done == config.steps):
                show(done, strip(net, images, rows, config.size))


def pretrain(config: Config, run: Run, fabric: Fabric, people: int, moments: int) -> None:
    """Learn, on the studio, to swap any two people: what :func:`fit` then starts from.

    Four people at a time give the same performances, so the true swap of each frame is another
    frame. One decoder's weights serve everybody and only its ``person`` differs; what the code says
    of who it was taken from is therefore an error, which the encoder learns not to make.

    Args:
        config: see :class:`Config`; ``batch`` pairs a step.
        run: where to resume from, and to keep checkpoints and metrics.
        fabric: where and how precisely to compute.
        people: how many studio people, a multiple of four.
        moments: how many performances of each.

    Raises:
        FacekitError: for another number of people.
    """
    if people % _TOGETHER:
        raise FacekitError(f"--people {people}: give a multiple of {_TOGETHER}")
    seed = int(run.facts["seed"])
    images = _studio_grid(run, people, moments, 2 * config.size, fabric.device)

    seed_step(seed, 0)
    net = FaceSwap(1, config.size, config.width, config.code)
    decoder = cast(Decoder, net.decoders[0])
    del decoder.person
    net.everyone = nn.Parameter(0.01 * torch.randn(people, 4 * config.width, *[SEEN // 8] * 2))
    net.to(fabric.device)
    optimizer = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99), fused=True)
    first = 0
    if state := run.resume():
        first = run.restore(state, net=net, optimizer=optimizer)

    began = time.perf_counter()
    with progress("pre-training face_swap", config.steps) as advance:
        for step in range(first, config.steps):
            seed_step(seed, 1 + step)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _schedule(step, config)

            # Pairs of one performance: who is seen, and who is to be drawn.
            moment = torch.randint(moments, (config.batch,))
            drawn_as = torch.randint(people, (config.batch,))
            seen = drawn_as - drawn_as % _TOGETHER + torch.randint(_TOGETHER, (config.batch,))
            rows = torch.cat([seen * moments + moment, drawn_as * moments + moment])
            pairs = torch.cat(to_images(images[rows.to(images.device)]).chunk(2), 1)
            inputs, targets = distort(pairs, config.size, config.warp)
            inputs = to_grey(inputs[:, :3], mean_colour(targets[:, :3]))
            colours = to_grey(targets[:, 4:7], mean_colour(targets[:, 4:7]))

            with fabric.autocast():
                who = net.everyone[drawn_as.to(fabric.device)]
                drawn = decoder.drawn(net.encoder(inputs) + who).float()
            loss = reconstruction_loss(drawn, torch.cat([colours, targets[:, 7:]], 1), config)
            optimizer.zero_grad()
            fabric.backward(loss)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()

            done = step + 1
            saves = done % config.checkpoint_every == 0 or done == config.steps
            if done % 10 == 0 or saves:
                value = _finite(loss, run, done)
                pace = (done - first) * config.batch / (time.perf_counter() - began)
                run.log(done, loss=value, images_per_second=pace)
                advance(done, f"loss {value:.4f}, {pace:.0f} images/s")
            if saves:
                checkpoint.require_finite(net.state_dict(), run.folder, done)
                run.save(done, {"net": net.state_dict(), "optimizer": optimizer.state_dict()})


_TOGETHER = 4
"""Studio people who give the same performances in :func:`pretrain`."""


def _studio_grid(run: Run, people: int, moments: int, size: int, device: torch.device) -> Tensor:
    """Crops and masks uint8 (people * moments, size, size, 4), a person's in a row.

    They are rendered once and kept in the run folder.
    """
    from facekit.studio.performance import Performance, performance_seed
    from facekit.studio.person import Person, person_seed
    from facekit.studio.pool import render_frames

    path = run.folder / "grid.safetensors"
    if path.exists():
        kept: Tensor = checkpoint.load(path)["images"]
        return kept.to(device)
    seed = int(run.facts["seed"])
    cast_of = [Person.sample(person_seed(seed, i)) for i in range(people)]
    pairs = [
        (person, Performance.sample(performance_seed(seed, i // _TOGETHER, j)))
        for i, person in enumerate(cast_of)
        for j in range(moments)
    ]
    images = torch.empty((len(pairs), size, size, 4), dtype=torch.uint8)
    workers = min(default_threads(), len(pairs))
    shots = render_frames(pairs, size * 5 // 4, workers, want=("masks",))
    with progress("rendering the studio's people", len(pairs)) as advance:
        done = 0
        while some := list(islice(shots, 32)):
            for shot in some:
                # As in use, where a network reads the landmarks.
                matrix = crop_from_image(mean_face_points(shot.landmarks), TEMPLATE, size)[None]
                planes = np.dstack([shot.pixels, _filled(shot.masks["face"])])
                crop = warp(to_images(torch.from_numpy(planes)[None].to(device)), matrix, size)
                images[done] = torch.from_numpy(to_pixels(crop)[0])
                done += 1
            advance(done, "")
    checkpoint.save(path, {"images": images})
    return images.to(device)


def with_masks(images: Tensor) -> Tensor:
    """Crops uint8 (N, H, H, 3) and, as a fourth channel, the face in each: uint8 (N, H, H, 4).

    What covers a face in a photo is a hole in what is seen of it; such as glasses leave are filled,
    since whoever wears glasses is to be drawn with them.
    """
    visible = load_visible(images.device)
    planes = []
    for some in torch.split(images, 64):
        found = (255 * visible(to_images(some))).round().byte().squeeze(1).numpy(force=True)
        planes.append(torch.from_numpy(np.stack([_filled(plane) for plane in found])))
    return torch.cat([images, torch.cat(planes)[..., None].to(images.device)], 3)


def _filled(plane: Pixels) -> Pixels:
    """A mask uint8 (H, W) without its holes and narrow gaps."""
    side = len(plane) // 16 * 2 + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    padded = cv2.copyMakeBorder(plane, side, side, side, side, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)
    outside = (closed < 128).astype(np.uint8)
    cv2.floodFill(outside, None, (0, 0), 2)
    closed[outside == 1] = 255
    return cast(Pixels, np.maximum(plane, closed[side:-side, side:-side]))


def bundle(run: Run, folder: Path, name: str) -> Path:
    """Write a pre-training's weights as ``folder/name.safetensors``, in half precision.

    Raises:
        FacekitError: if the run has no checkpoint yet.
    """
    net = run.trained()["net"]
    half = {k: v.half() for k, v in net.items() if k != "everyone"}
    # A new person starts as nobody in particular.
    half["decoders.0.person"] = net["everyone"].mean(0).half()
    path = folder / f"{name}.safetensors"
    checkpoint.save(path, {"net": half})
    return path


def start_from(net: FaceSwap, name: str) -> None:
    """Give ``net`` the bundled weights ``name``: the encoder, and one decoder for everybody.

    Raises:
        FacekitError: if there are none of that name, or they are of another width or code.
    """
    path, _ = weights.find(WEIGHTS, name)
    given = {key: value.float() for key, value in checkpoint.load(path)["net"].items()}
    own = {
        key: given[".".join(["decoders", "0", *key.split(".")[2:]])]
        if key.startswith("decoders.")
        else given[key]
        for key in net.state_dict()
    }
    try:
        net.load_state_dict(own)
    except RuntimeError as error:
        raise FacekitError(
            f"pretrained: '{name}' is of another width or code than this config, or of an earlier "
            "version"
        ) from error


def _own_logits(judge: Discriminator, who: Tensor, images: Tensor) -> Tensor:
    """The logits (B,) of images (B, 3, S, S) for being the people ``who`` (B,)."""
    logits: Tensor = judge(images).gather(1, who[:, None])[:, 0]
    return logits


def _finite(loss: Tensor, run: Run, step: int) -> float:
    """The loss as a number.

    Raises:
        FacekitError: if it is none.
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        raise FacekitError(
            f"{run.folder}: the loss is {value} at step {step}; the checkpoint before it is kept; "
            "try a lower learning_rate"
        )
    return value


def _schedule(step: int, config: Config) -> float:
    """The learning rate at ``step`` as a share of its peak."""
    if step < config.warm_up:
        return (step + 1) / config.warm_up
    along = (step - config.warm_up) / max(1, config.steps - config.warm_up)
    return 0.5 * (1 + math.cos(math.pi * along))


def distort(batch: Tensor, size: int, strength: float) -> tuple[Tensor, Tensor]:
    """Random views of a batch, and the same views warped, all on the batch's device.

    Args:
        batch: float32 (B, 3, H, H) in [-1, 1].
        size: S, the side of the views.
        strength: deviation of the warp, as a share of the crop's side.

    Returns:
        inputs and targets, each (B, 3, S, S): the network sees an input and draws its target.
    """
    count, device = len(batch), batch.device
    angle = torch.randn(count, device=device) * math.radians(3)
    scale = 1 + 0.03 * torch.randn(count, device=device)
    shift = 0.02 * torch.randn(count, 2, device=device)
    # Both people are trained on both mirror images, so every pose is known from either side.
    mirror = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    theta = torch.stack(
        [
            torch.stack([cosine * mirror, -sine, shift[:, 0]], 1),
            torch.stack([sine * mirror, cosine, shift[:, 1]], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    # A smooth field: random steps at 5×5 knots, interpolated between.
    knots = torch.randn(count, 2, 5, 5, device=device) * (2 * strength)
    field = F.interpolate(knots, (size, size), mode="bicubic", align_corners=True)
    inputs, targets = (
        F.grid_sample(batch, points, padding_mode="border", align_corners=False)
        for points in (grid + field.permute(0, 2, 3, 1), grid)
    )
    return inputs, targets


def mean_colour(images: Tensor) -> Tensor:
    """The mean colour (B, 3, 1, 1) in [0.02, 1] of the faces of crops (B, 3, S, S) in [-1, 1]."""
    mask = face_mask(images.shape[-1]).to(images.device)
    mean = ((images + 1) / 2 * mask).sum((2, 3), keepdim=True) / mask.sum()
    return mean.clamp(min=0.02)


def complexion(pixels: Tensor) -> list[float]:
    """The geometric mean (3,) of the mean colours of somebody's crops, uint8 (N, H, H, 3).

    Over many photos light evens out, roughly: two people's differ by how their skins do.
    """
    colours = torch.cat([mean_colour(to_images(some)) for some in torch.split(pixels, 64)])
    mean: list[float] = colours.log().mean(0).exp().flatten().tolist()
    return mean


def to_grey(images: Tensor, colour: Tensor) -> Tensor:
    """Divide the colour out of images in [-1, 1], so that the face is grey (0) on average.

    Skin tone, exposure and the light's tint leave the network's world: a code that knows them
    would tell who it was taken from, and they need no network to be put back.
    """
    return (images + 1) / (2 * colour) - 1


def from_grey(images: Tensor, colour: Tensor) -> Tensor:
    """The inverse of :func:`to_grey`."""
    return (images + 1) * (2 * colour) - 1


def face_mask(size: int) -> Tensor:
    """Where faces are in a crop of any person, roughly: (1, 1, S, S) in [0, 1]."""
    return torch.from_numpy(ellipse(size, (0.5, 0.5), (0.36, 0.47), 0.4))[None, None]


def reconstruction_loss(drawn: Tensor, targets: Tensor, config: Config) -> Tensor:
    """L1 + SSIM of what is drawn, the face above all, and L1 of its mask: a scalar.

    Args:
        drawn: (B, 4, S, S), see :class:`Decoder`.
        targets: of the same shape.
        config: has the weights.
    """
    weight = 0.1 + shares(targets) + features_weight(config.size, drawn.device)
    weight = weight / weight.mean()
    absolute = (weight * (drawn[:, :3] - targets[:, :3]).abs()).mean()
    similar = coarse_ssim(drawn[:, :3], targets[:, :3])
    dissimilar = (F.avg_pool2d(weight, 8, 4) * (1 - similar)).mean()
    mask = (drawn[:, 3:] - targets[:, 3:]).abs().mean()
    return absolute + config.ssim_weight * dissimilar + config.mask_weight * mask


@lru_cache(maxsize=4)
def features_weight(size: int, device: torch.device) -> Tensor:
    """What errors at eyes and mouth weigh beside those of the rest of the face: (1, 1, S, S)."""
    unit = (torch.arange(size) + 0.5) / size
    weight = torch.zeros(size, size)
    left_eye, right_eye, _, left_mouth, right_mouth = TEMPLATES[TEMPLATE]
    for x, y in (left_eye, right_eye, (left_mouth + right_mouth) / 2):
        distance = (unit[None, :] - x) ** 2 + (unit[:, None] - y) ** 2
        weight = weight + 2 * torch.exp(-distance / (2 * 0.06**2))
    return weight[None, None].to(device)


def shares(drawn: Tensor) -> Tensor:
    """The masks of drawn faces (B, 4, S, S): (B, 1, S, S) in [0, 1]."""
    return ((drawn[:, 3:] + 1) / 2).clamp(0, 1)


_GROWN = 0.02  # of the side: about how far within a face its learned mask begins to fall


def grown(masks: Tensor) -> Tensor:
    """Masks (B, 1, S, S) as they are laid in: where a face ends is learned as a mean, a slope."""
    reach = max(1, round(_GROWN * masks.shape[2]))
    return F.max_pool2d(masks, 2 * reach + 1, 1, reach)


def masked(drawn: Tensor) -> Tensor:
    """Drawn faces (B, 4, S, S) without what is around them: (B, 3, S, S)."""
    return drawn[:, :3] * shares(drawn)


@torch.no_grad()
def strip(net: FaceSwap, images: Tensor, rows: list[list[int]], size: int) -> Pixels:
    """Up to four people's first and middle photo: source | reconstruction | swap | result.

    Args:
        net: as trained so far.
        images: uint8 (N, 2S, 2S, 4).
        rows: each person's rows of ``images``.
        size: S.

    Returns:
        uint8 (H, W, 3): a row a person, who in the swap becomes the next one; last, the swap in
        its photo, as far as its mask says.
    """
    people = range(min(4, len(rows)))
    lines = []
    for person in people:
        chosen = [rows[person][0], rows[person][len(rows[person]) // 2]]
        faces = F.avg_pool2d(to_images(images[torch.tensor(chosen)])[:, :3], 2)
        colour = mean_colour(faces)
        grey = to_grey(faces, colour)
        own, other = (net(grey, [p]).float() for p in (person, (person + 1) % len(rows)))
        drawn, swapped = (from_grey(face[:, :3], colour) for face in (own, other))
        columns = [faces, drawn, swapped, faces + shares(other) * (swapped - faces)]
        lines.append(torch.cat([torch.cat([c[i] for c in columns], 2) for i in range(2)], 2))
    sheet = torch.cat(lines, 1)[None].float()
    pixels: Pixels = to_pixels(F.interpolate(sheet, scale_factor=2, mode="bilinear"))[0]
    return pixels


def load(run: Run, fabric: Fabric) -> tuple[FaceSwap, Config]:
    """The network of a run's newest checkpoint, on the fabric's device, and its config.

    Raises:
        FacekitError: if the run has no checkpoint yet, or it is of another version.
    """
    state = run.trained()
    settings = config.validate(run.facts["config"], Config, run.folder)
    people = len(run.facts["people"])
    net = FaceSwap(people, settings.size, settings.width, settings.code)
    run.restore(state, net=net)
    return net.to(fabric.device).eval(), settings


def person_index(run: Run, name: str) -> int:
    """The place of ``name`` among the people that the run was trained on.

    Raises:
        FacekitError: if it is not among them; they are listed.
    """
    people: list[str] = run.facts.get("people", [])
    if name not in people:
        raise FacekitError(f"{run.folder}: knows no '{name}'; {did_you_mean(name, people)}")
    return people.index(name)


def generate(
    run: Run,
    frames: Iterable[Frame],
    fabric: Fabric,
    *,
    source: str,
    target: str | None = None,
    still: bool = False,
    **how: Any,
) -> Iterator[Frame]:
    """Yield the frames with the largest face replaced by ``source``'s, unmarked, in memory.

    Args:
        run: a finished or half-trained run.
        frames: of one clip, or unrelated pictures if ``still``.
        fabric: where and how precisely to compute.
        source: the person to show.
        target: who is in the frames, if it is known: refused if it is the source.
        still: treat each frame as a picture of its own.
        how: of :func:`facekit.conversion.convert`.

    Raises:
        FacekitError: if the run or a person is unusable.
    """
    swap, size = _swapper(run, fabric, source, target)
    return convert(frames, swap, size=size, device=fabric.device, still=still, **how)


def _swapper(run: Run, fabric: Fabric, source: str, target: str | None) -> tuple[Swap, int]:
    """What draws ``source`` from aligned crops, and the size of crops that it takes."""
    net, settings = load(run, fabric)
    person = person_index(run, source)
    # In the target's light, the source's complexion; of a target unknown, what they look like.
    tone = torch.ones(1, 3, 1, 1, device=fabric.device)
    if target is not None:
        other = person_index(run, target)
        if other == person:
            raise FacekitError(f"--source and --target are both '{source}'; name two people")
        ours, theirs = (
            torch.tensor(run.facts["complexions"][i], device=fabric.device) for i in (person, other)
        )
        tone = (ours / theirs)[None, :, None, None]

    @torch.no_grad()
    def swap(crops: Tensor) -> tuple[Tensor, Tensor]:
        colour = mean_colour(crops)
        with fabric.autocast():
            drawn = net(to_grey(crops, colour), [person]).float()
        return from_grey(drawn[:, :3], colour * tone), grown(shares(drawn))

    return swap, settings.size
