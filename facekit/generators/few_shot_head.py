"""Few-shot talking heads by an adversarial generator.

Zakharov, Shysheya, Burkov, Lempitsky, "Few-Shot Adversarial Learning of Realistic Neural Talking
Head Models", ICCV 2019, arXiv:1905.08233. Written from the paper; no code taken.

An embedder looks at some photos of a person with their landmarks drawn, and takes a mean vector of
them. A generator turns drawn landmarks into a picture; that vector decides, by adaptive instance
normalisation, whose. A discriminator projects what it sees of a picture on a vector of its own for
each person. All three learn on many people; for a new one, the generator's and the discriminator's
vectors start from the embedder's, and all are tuned on the few photos.

What is not as in the paper: 64 or 128 pixels instead of 256, fewer channels and no self-attention,
so that it learns on a processor; one step of the discriminator for each of the generator, not two;
the distance of the bundled face features, and of colours, instead of VGG's in the content loss;
landmarks drawn as three soft maps instead of coloured lines; a mean over the vector, not a sum,
where the embedder's is drawn to the discriminator's; and, so that both arms learn from the same
pictures, photos before other walls in half of the groups, in light that changes from step to step.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from facekit.adversary.metrics.features import FaceFeatures, load_features
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
    in_rows,
    maps_of,
    studio_heads,
)
from facekit.motion import Animator, Cast
from facekit.types import Floats, Pixels
from facekit.watermark import Kind

KIND = Kind.GENERATED

VIDEOS = True

WEIGHTS = Path(__file__).parent.parent / "weights"


class Config(config.Config):
    """Settings of the few-shot head.

    Attributes:
        size: side of the pictures, in pixels.
        width: channels at full resolution; they double at each halving, up to eight times.
        vector: numbers that say who it is.
        steps: optimiser steps of the meta-learning.
        batch: people a step.
        photos: of each, that the embedder looks at.
        learning_rate: of embedder and generator; both rates fall to none as half a cosine.
        judge_rate: of the discriminator.
        content_weight: weight of the distance of features, and of colours.
        match_weight: weight of the distance of the discriminator's features, and of its vectors
            from the embedder's.
        moments: of a folder of people: pictures of each clip that are learned from.
        most_clips: of a folder of people: clips that are kept in memory, taken evenly.
        tune_steps: of the tuning on a new person's photos.
        tune_rate: learning rate of it.
        checkpoint_every: steps between checkpoints.
        strip_every: steps between training strips.
    """

    size: int = Field(128, ge=32, le=512, multiple_of=16)
    width: int = Field(24, ge=8, le=128)
    vector: int = Field(256, ge=8, le=2048)
    steps: int = Field(3000, ge=1)
    batch: int = Field(6, ge=1)
    photos: int = Field(4, ge=1, le=32)
    learning_rate: float = Field(2e-4, gt=0)
    judge_rate: float = Field(4e-4, gt=0)
    content_weight: float = Field(10.0, ge=0)
    match_weight: float = Field(10.0, ge=0)
    moments: int = Field(8, ge=2, le=64)
    most_clips: int = Field(4000, ge=1)
    tune_steps: int = Field(40, ge=0)
    tune_rate: float = Field(2e-4, gt=0)
    checkpoint_every: int = Field(200, ge=1)
    strip_every: int = Field(500, ge=1)


def _conv(inputs: int, outputs: int, side: int = 3) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, side, padding=side // 2))


class _Down(nn.Module):
    """A residual block that halves the side."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = _conv(inputs, outputs), _conv(outputs, outputs)
        self.around = _conv(inputs, outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        deep = self.second(F.relu(self.first(F.relu(maps))))
        return F.avg_pool2d(deep + self.around(maps), 2)


class _Adapted(nn.Module):
    """A residual block whose normalisation a vector decides (AdaIN), which may double the side."""

    def __init__(self, inputs: int, outputs: int, grows: bool) -> None:
        super().__init__()
        self.first, self.second = _conv(inputs, outputs), _conv(outputs, outputs)
        self.around = _conv(inputs, outputs, 1)
        self.grows = grows
        self.widths = (inputs, outputs)

    @property
    def numbers(self) -> int:
        """How many numbers the vector gives it: a mean and a deviation for each channel."""
        return 2 * sum(self.widths)

    def forward(self, maps: Tensor, style: Tensor) -> Tensor:
        one, two = torch.split(style, [2 * width for width in self.widths], 1)
        deep = F.relu(_adapted(maps, one))
        around = maps
        if self.grows:
            deep, around = (F.interpolate(m, scale_factor=2.0) for m in (deep, around))
        deep = self.second(F.relu(_adapted(self.first(deep), two)))
        result: Tensor = deep + self.around(around)
        return result


def _adapted(maps: Tensor, style: Tensor) -> Tensor:
    mean, scale = style[:, :, None, None].chunk(2, 1)
    return F.instance_norm(maps) * (1 + scale) + mean


class Embedder(nn.Module):
    """Photos (B, 3, S, S) with drawn landmarks (B, 3, S, S) → vectors (B, N)."""

    def __init__(self, size: int, width: int, vector: int) -> None:
        super().__init__()
        widths = _widths(size, width)
        self.start = _conv(3 + PARTS, widths[0])
        self.downs = nn.Sequential(*(_Down(a, b) for a, b in pairwise(widths)))
        self.out = nn.Linear(widths[-1], vector)

    def forward(self, photos: Tensor, maps: Tensor) -> Tensor:
        """Look at a batch."""
        found = self.downs(self.start(torch.cat([photos, maps], 1)))
        vectors: Tensor = self.out(F.relu(found).sum((2, 3)) / 16)
        return vectors


class Generator(nn.Module):
    """Drawn landmarks (B, 3, S, S) and styles → pictures (B, 3, S, S)."""

    def __init__(self, size: int, width: int, vector: int) -> None:
        super().__init__()
        widths = _widths(size, width)[:-1]
        self.start = _conv(PARTS, widths[0])
        self.downs = nn.Sequential(*(_Down(a, b) for a, b in pairwise(widths)))
        deep = widths[-1]
        self.middle = nn.ModuleList(_Adapted(deep, deep, False) for _ in range(3))
        self.ups = nn.ModuleList(_Adapted(a, b, True) for a, b in pairwise(widths[::-1]))
        self.out = _conv(widths[0], 3)
        self.project = nn.Linear(vector, sum(block.numbers for block in self.blocks))

    @property
    def blocks(self) -> "list[_Adapted]":
        """Those whose normalisation the vector decides, in order."""
        return [*self.middle, *self.ups]

    def forward(self, maps: Tensor, style: Tensor) -> Tensor:
        """Draw; ``style`` (B, …) is :attr:`project` of a vector, or tuned from there."""
        found = self.downs(self.start(maps))
        parts = torch.split(style, [block.numbers for block in self.blocks], 1)
        for block, part in zip(self.blocks, parts, strict=True):
            found = block(found, part)
        drawn: Tensor = torch.tanh(self.out(F.relu(F.instance_norm(found))))
        return drawn


class Projection(nn.Module):
    """The discriminator: pictures with drawn landmarks, and a person's vector → realism."""

    def __init__(self, size: int, width: int, vector: int, people: int) -> None:
        super().__init__()
        widths = _widths(size, width)
        self.start = _conv(3 + PARTS, widths[0])
        self.downs = nn.ModuleList(_Down(a, b) for a, b in pairwise(widths))
        self.out = spectral_norm(nn.Linear(widths[-1], vector))
        self.people = nn.Parameter(0.02 * torch.randn(people, vector))
        self.common = nn.Parameter(torch.zeros(vector))
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor, maps: Tensor, whose: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judge a batch.

        Args:
            images: (B, 3, S, S) in [-1, 1].
            maps: (B, 3, S, S), their landmarks drawn.
            whose: (B, N), the vectors of the people whom they are to show.

        Returns:
            Realism (B,), and the features on the way, to be matched.
        """
        found = self.start(torch.cat([images, maps], 1))
        features = []
        for down in self.downs:
            found = down(found)
            features.append(found)
        seen = self.out(F.relu(found).sum((2, 3)) / 16)
        return (seen * (whose + self.common)).sum(1) + self.offset, features


def _widths(size: int, width: int) -> list[int]:
    """Channels at each resolution down to 4 pixels."""
    steps = (size // 4).bit_length() - 1
    return [min(width * 2**k, 8 * width) for k in range(steps + 1)]


class FewShotHead(nn.Module):
    """The three networks."""

    def __init__(self, settings: Config, people: int) -> None:
        super().__init__()
        shape = (settings.size, settings.width, settings.vector)
        self.embedder = Embedder(*shape)
        self.generator = Generator(*shape)
        self.judge = Projection(*shape, people)

    def embed(self, photos: Tensor, points: Tensor) -> Tensor:
        """Photos (B, T, 3, S, S) with landmarks (B, T, 70, 2) → a vector for each person (B, N)."""
        maps = maps_of(points.flatten(0, 1), photos.shape[-1])
        vectors: Tensor = self.embedder(photos.flatten(0, 1), maps)
        return vectors.reshape(*photos.shape[:2], -1).mean(1)


def drawn_losses(
    net: FewShotHead,
    images: Tensor,
    fakes: Tensor,
    maps: Tensor,
    whose: Tensor,
    features: FaceFeatures,
    settings: Config,
) -> dict[str, Tensor]:
    """What generator and embedder minimise: terms by name, each with its weight in it."""
    content = distances(features, fakes, images).mean() + (fakes - images).abs().mean()
    score, found = net.judge(fakes, maps, whose.detach())
    with torch.no_grad():
        _, wanted = net.judge(images, maps, whose)
    pairs = list(zip(found, wanted, strict=True))
    return {
        "content": settings.content_weight * content,
        "realism": -score.mean(),
        "features": settings.match_weight * torch.stack([F.l1_loss(*p) for p in pairs]).mean(),
    }


def judge_loss(
    net: FewShotHead, images: Tensor, fakes: Tensor, maps: Tensor, whose: Tensor
) -> Tensor:
    """What the discriminator minimises: the hinge loss, on pictures of the people ``whose``."""
    real, _ = net.judge(images, maps, whose)
    fake, _ = net.judge(fakes.detach(), maps, whose)
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def train(
    config: Config,
    data: Path,
    run: GatedRun,
    fabric: Fabric,
    *,
    show: Callable[[int, Pixels], None] | None = None,
) -> None:
    """Meta-learn on clips of people to draw anybody from a few photos.

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
    """Meta-learn on studio people to draw anybody from a few photos.

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
    """The meta-learning.

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
    net = FewShotHead(config, len(heads.images)).to(device)
    features = load_features(device)
    drawers = [*net.embedder.parameters(), *net.generator.parameters()]
    optimizer = torch.optim.Adam(drawers, betas=(0.0, 0.99))
    judge_optimizer = torch.optim.Adam(net.judge.parameters(), betas=(0.0, 0.99))
    first = 0
    if state := run.resume():
        first = run.restore(state, net=net, optimizer=optimizer, judge_optimizer=judge_optimizer)

    began = time.perf_counter()
    with progress("meta-learning few_shot_head", config.steps) as advance:
        for step in range(first, config.steps):
            seed_step(seed, 1 + step)
            falling = 0.5 * (1 + math.cos(math.pi * step / config.steps))
            optimizer.param_groups[0]["lr"] = config.learning_rate * falling
            judge_optimizer.param_groups[0]["lr"] = config.judge_rate * falling

            batch = drawn_batch(heads, config.batch, config.photos, JITTER, device)
            maps = maps_of(batch.points, config.size)
            with fabric.autocast():
                vectors = net.embed(batch.photos, batch.of)
                fakes = net.generator(maps, net.generator.project(vectors))
            vectors, fakes = vectors.float(), fakes.float()
            whose = net.judge.people[batch.who.to(device)]
            terms = drawn_losses(net, batch.images, fakes, maps, whose, features, config)
            terms["match"] = config.match_weight * (vectors - whose.detach()).abs().mean()
            optimizer.zero_grad()
            fabric.backward(torch.stack(list(terms.values())).sum())
            optimizer.step()

            doubt = judge_loss(net, batch.images, fakes, maps, whose)
            match = config.match_weight * (vectors.detach() - whose).abs().mean()
            judge_optimizer.zero_grad()
            fabric.backward(doubt + match)
            judge_optimizer.step()

            done = step + 1
            saves = done % config.checkpoint_every == 0 or done == config.steps
            if done % 10 == 0 or saves:
                values = {name: float(value.detach()) for name, value in terms.items()}
                total = sum(values.values()) + 0 * float(doubt.detach())  # none if either is none
                if not math.isfinite(total):
                    raise FacekitError(
                        f"{run.folder}: the loss is not finite at step {done}; the checkpoint "
                        "before is kept; lower learning_rate"
                    )
                pace = (done - first) * config.batch / (time.perf_counter() - began)
                values["judge"] = float(doubt.detach())
                run.log(done, loss=total, **values, images_per_second=pace)
                advance(done, f"loss {total:.3f}, {pace:.1f} images/s")
            if saves:
                checkpoint.require_finite(net.state_dict(), run.folder, done)
                state = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
                run.save(done, state | {"judge_optimizer": judge_optimizer.state_dict()})
            if show and (done % config.strip_every == 0 or done == config.steps):
                show(done, strip(net, heads, config, device))


@torch.no_grad()
def strip(net: FewShotHead, heads: Heads, config: Config, device: torch.device) -> Pixels:
    """Eight people in columns: a photo, what was to be drawn, what was drawn before any tuning."""
    with torch.random.fork_rng():
        seed_step(0, 0)
        batch = drawn_batch(heads, 8, config.photos, 0.0, device)
    net.eval()  # The power iteration of spectral norms would change the next step.
    style = net.generator.project(net.embed(batch.photos, batch.of))
    drawn = net.generator(maps_of(batch.points, config.size), style)
    net.train()
    return in_rows(batch.photos[:, 0], batch.images, drawn)


# --- Use ---

_TUNED = 8  # photos a step of the tuning

_AT_ONCE = 10  # a stretch of a video is a multiple of it


def animator(source: Run | str, fabric: Fabric) -> Animator:
    """What moves photos; it is tuned on those of each cast first.

    Raises:
        FacekitError: if there is no checkpoint yet, or it is of another version.
    """
    return animator_of(*load(source, fabric), fabric)


def animator_of(net: FewShotHead, settings: Config, fabric: Fabric) -> Animator:
    """The same of networks on the fabric's device."""
    features = load_features(fabric.device)

    tuned: list[tuple[Cast, Generator, Tensor]] = []  # of the cast that was drawn last

    def draw(cast: Cast, landmarks: Floats, first: int = 0) -> Iterator[Pixels]:
        if not tuned or tuned[0][0] is not cast:
            tuned[:] = [(cast, *_tuned(net, cast, features, settings, fabric))]
        _, generator, style = tuned[0]
        for start in range(first, len(landmarks), _AT_ONCE):
            points = torch.from_numpy(landmarks[start : start + _AT_ONCE]).to(fabric.device)
            with torch.inference_mode(), fabric.autocast():
                maps = maps_of(points / settings.size, settings.size)
                drawn = generator(maps, style.expand(len(points), -1))
            yield from to_pixels(drawn)

    return Animator(settings.size, draw)


def _tuned(
    learned: FewShotHead,
    cast: Cast,
    features: FaceFeatures,
    settings: Config,
    fabric: Fabric,
) -> tuple[Generator, Tensor]:
    """The generator and a style (1, N), tuned on some photos: section 3.3 of the paper."""
    photos = to_images(torch.from_numpy(cast.pixels).to(fabric.device))
    points = torch.from_numpy(cast.landmarks).to(fabric.device) / settings.size
    net = copy.deepcopy(learned).train()
    with torch.no_grad():
        vector = net.embed(photos[None], points[None]).float()
        style = nn.Parameter(net.generator.project(vector))
    whose = nn.Parameter(vector)
    rate = settings.tune_rate
    optimizer = torch.optim.Adam([*net.generator.parameters(), style], rate, (0.0, 0.99))
    judges = [*net.judge.parameters(), whose]
    judge_optimizer = torch.optim.Adam(judges, 2 * rate, (0.0, 0.99))
    with torch.random.fork_rng(), progress("tuning", settings.tune_steps) as advance:
        for step in range(settings.tune_steps):
            seed_step(0, step)
            rows = torch.randperm(len(photos))[:_TUNED].to(fabric.device)
            images, maps = photos[rows], maps_of(points[rows], settings.size)
            with fabric.autocast():
                fakes = net.generator(maps, style.expand(len(rows), -1))
            fakes, owner = fakes.float(), whose.expand(len(rows), -1)
            terms = drawn_losses(net, images, fakes, maps, owner, features, settings)
            optimizer.zero_grad()
            fabric.backward(torch.stack(list(terms.values())).sum())
            optimizer.step()
            judge_optimizer.zero_grad()
            fabric.backward(judge_loss(net, images, fakes, maps, owner))
            judge_optimizer.step()
            advance(step + 1, "")
    return net.generator.eval(), style.detach()


def load(source: Run | str, fabric: Fabric) -> tuple[FewShotHead, Config]:
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
        name = str(source.folder)
        state = _state(source)
    people = len(state["judge.people"]) if "judge.people" in state else 1
    net = FewShotHead(settings, people)
    try:
        net.load_state_dict({key: value.float() for key, value in state.items()})
    except RuntimeError as error:
        raise FacekitError(
            f"{name}: its weights are of another version or width of few_shot_head; train anew"
        ) from error
    return net.to(fabric.device).eval(), settings


def bundle(run: Run, folder: Path, name: str) -> Path:
    """Write all networks as ``folder/name.safetensors``, in half precision.

    The vectors of the people who were learned from are left out.

    Raises:
        FacekitError: if the run has no checkpoint yet.
    """
    half = {key: value.half() for key, value in _state(run).items() if key != "judge.people"}
    half["judge.people"] = torch.zeros(1, len(half["judge.common"]), dtype=torch.half)
    path = folder / f"{name}.safetensors"
    checkpoint.save(path, {"net": half})
    return path


def _state(run: Run) -> dict[str, Tensor]:
    found: dict[str, Tensor] = run.trained().get("net", {})
    return found
