"""A playground in two dimensions: the adversarial game on points, drawn as an animation.

Nothing here is a face. A line, a circle and 25 Gaussians are learned from noise by the very loop
that faces are learned with, but small enough to be seen through: the plane is coloured by what the
discriminator says of each place, and arrows show where it sends the generated points.

The 25 Gaussians are the classic test for dropped modes: centres (-4 + 2i, -4 + 2j), deviation 0.05
(Srivastava et al., "VEEGAN", NeurIPS 2017, arXiv:1705.07761; Lin et al., "PacGAN", NeurIPS 2018,
arXiv:1712.04086). A sample counts as *on a mode* within three deviations of its centre, as there:
98.9% of the real ones are. A mode counts as *found* if a fifth of its fair share of the samples is
on it; there, a single sample suffices.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple, cast

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn

from facekit.adversary.loop import Game, play
from facekit.core import checkpoint, config
from facekit.core.run import Run
from facekit.core.seed import seed_step
from facekit.generators._gate import GatedRun
from facekit.types import Frame, Pixels
from facekit.watermark import Kind

KIND = Kind.GENERATED

SHARES = True

FACES = False

Shape = Literal["line", "circle", "gaussians"]

DEVIATION = 0.05
"""Standard deviation of the points across their shape."""

REACH = 5.0
"""What is drawn of the plane: [-5, 5] in both directions."""

RATE = 12
"""Frames a second of the animation."""

NAMES: dict[Shape, str] = {"line": "A line", "circle": "A circle", "gaussians": "25 Gaussians"}

SCENES = "scenes"

_REALS, _HELD_OUT = 20_000, 2_000
_SIDE, _CAPTION, _CELLS, _ARROWS = 512, 48, 64, 100
_SHIFT = 4
_FINE = 2**_SHIFT
_ORANGE, _BLUE = (253, 192, 134), (166, 200, 240)
_BLACK, _RED = (40, 40, 40), (200, 20, 60)


class Lesson(config.Config):
    """A shape, and how many steps are taken to learn it."""

    shape: Shape
    steps: int = Field(ge=1)


class Config(config.Config):
    """Settings of the playground.

    Attributes:
        lessons: what is learned, in this order, each shape once.
        width: units in each hidden layer of both networks.
        depth: hidden layers of the generator; the discriminator has three. Between two of the 25
            Gaussians there is nothing, but the generator is continuous: what it draws on the way
            from one to the next is the less, the steeper it can be, and depth makes it steep.
        latent: numbers in a noise vector.
        game: the rules; ``steps`` is the lesson's. Every ``strip_every`` steps give a frame of the
            animation, of ``strip_samples`` points.
    """

    lessons: list[Lesson] = Field(min_length=1)
    width: int = Field(128, ge=4, le=1024)
    depth: int = Field(6, ge=1, le=16)
    latent: int = Field(2, ge=1, le=512)
    game: Game = Game()


class Points:
    """Real points, as :class:`facekit.adversary.loop.Reals`.

    Args:
        points: float32 (N, 2).
    """

    def __init__(self, points: Tensor) -> None:
        self.points = points

    def __len__(self) -> int:
        return len(self.points)

    def batch(self, indices: Tensor, device: torch.device) -> Tensor:
        """float32 (B, 2)."""
        return self.points[indices].to(device)


class Waves(nn.Module):
    """Numbers (B, inputs) → themselves and where they stand on random waves (B, inputs + 2 * 32).

    A network of plain coordinates learns what is smooth long before it learns 25 islands with
    nothing between them (Tancik et al., "Fourier Features Let Networks Learn High Frequency
    Functions in Low Dimensional Domains", NeurIPS 2020, arXiv:2006.10739). The waves are drawn once
    and not learned; ``pitch`` is the deviation of their angular frequency.
    """

    COUNT = 32

    def __init__(self, inputs: int, pitch: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", pitch * torch.randn(inputs, self.COUNT))
        self.width = inputs + 2 * self.COUNT

    def forward(self, numbers: Tensor) -> Tensor:
        """Lay waves beside a batch."""
        angle = numbers @ cast(Tensor, self.frequencies)
        return torch.cat([numbers, angle.sin(), angle.cos()], 1)


class Generator(nn.Module):
    """Noise (B, latent) → points (B, 2), at first all over the plane, so that no mode is far."""

    def __init__(self, latent: int, width: int, depth: int) -> None:
        super().__init__()
        self.latent = latent
        self.layers = _layers(Waves(latent, pitch=2.0), [width] * depth, 2)
        nn.init.normal_(cast(nn.Linear, self.layers[-1]).weight, std=2.5 / math.sqrt(width))

    def forward(self, noise: Tensor) -> Tensor:
        """Make a batch."""
        points: Tensor = self.layers(noise)
        return points


class Discriminator(nn.Module):
    """Points (B, 2) → logits (B,); greater means more real."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = _layers(Waves(2, pitch=2.0), [width] * 3, 1)

    def forward(self, points: Tensor) -> Tensor:
        """Judge a batch."""
        logits: Tensor = self.layers(points)
        return logits.squeeze(1)


def _layers(waves: Waves, hidden: list[int], outputs: int) -> nn.Sequential:
    """Hidden layers that keep the variance of what comes in (He et al. 2015)."""
    layers: list[nn.Module] = [waves]
    for a, b in pairwise([waves.width, *hidden, outputs]):
        linear = nn.Linear(a, b)
        nn.init.kaiming_normal_(linear.weight, 0.2)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


def centres() -> Tensor:
    """The middles of the 25 Gaussians: float32 (25, 2)."""
    side = torch.linspace(-4, 4, 5)
    return torch.cartesian_prod(side, side)


def draw(shape: Shape, count: int) -> Tensor:
    """Real points of a shape, from torch's current random state: float32 (count, 2)."""
    if shape == "gaussians":
        middle = centres()[torch.randint(25, (count,))]
    elif shape == "circle":
        angle = 2 * math.pi * torch.rand(count)
        middle = 4 * torch.stack([angle.cos(), angle.sin()], 1)
    else:
        along = 8 * torch.rand(count, 1) - 4
        middle = torch.cat([along, along / 2], 1)
    return middle + DEVIATION * torch.randn(count, 2)


class Score(NamedTuple):
    """How many of the 25 Gaussians were found, and the share of samples on one of them."""

    modes: int
    on_a_mode: float


def score(points: Tensor) -> Score:
    """Count the 25 Gaussians that ``points`` (N, 2) show; the module says by which rule."""
    distance, nearest = torch.cdist(points.cpu(), centres()).min(1)
    on = distance <= 3 * DEVIATION
    found = torch.bincount(nearest[on], minlength=25) >= len(points) / 25 / 5
    return Score(int(found.sum()), float(on.float().mean()))


def train(
    config: Config,
    data: Path | None,
    run: GatedRun,
    fabric: Fabric,
    *,
    show: Callable[[int, Pixels], None] | None = None,
) -> None:
    """Learn the lessons, one after the other, each in a run of its own below ``run``'s folder.

    Args:
        config: see :class:`Config`.
        data: None: the points are drawn here.
        run: its metrics get a row a lesson.
        fabric: where and how precisely to compute.
        show: is handed the steps so far and the last picture of each lesson.
    """
    run.resume()
    seed, steps = int(run.facts["seed"]), 0
    for lesson in config.lessons:
        game = config.game.model_copy(update={"steps": lesson.steps})
        generator = learn(lesson.shape, config, game, run_of(lesson, run, game), fabric)
        steps += lesson.steps
        facts = {"images": float(lesson.steps * game.batch)}
        if lesson.shape == "gaussians":
            seed_step(seed, 0)
            made = score(_samples(generator, 10_000))
            facts |= {"modes": float(made.modes), "on_a_mode": made.on_a_mode}
        if fabric.is_global_zero:
            run.log(steps, **facts)
            if show:
                *_, last = _pictures(run.folder / lesson.shape, lesson.shape, config)
                show(steps, last)


def run_of(lesson: Lesson, run: Run, game: Game) -> Run:
    """The run of one lesson, in a folder of its own below ``run``'s."""
    return Run.start(
        run.folder / lesson.shape,
        plugin=f"points, {lesson.shape}",
        config=game,
        seed=int(run.facts["seed"]),
        data_hash=lesson.shape,
        threads=int(run.facts["threads"]),
        precision=str(run.facts["precision"]),
    )


def learn(shape: Shape, config: Config, game: Game, run: Run, fabric: Fabric) -> Generator:
    """Play one game.

    Args:
        shape: to learn.
        config: the networks' settings.
        game: the rules.
        run: where to resume from, and to keep checkpoints, metrics and scenes.
        fabric: where and how precisely to compute.

    Returns:
        The EMA of the generator.
    """
    seed_step(int(run.facts["seed"]), 0)
    points = draw(shape, _REALS + _HELD_OUT)
    generator = Generator(config.latent, config.width, config.depth)
    discriminator = Discriminator(config.width)
    averaged = play(
        game,
        generator,
        discriminator,
        Points(points[:_REALS]),
        run,
        fabric,
        features=_themselves,
        held_out=Points(points[_REALS:]),
        draw=partial(_scene, discriminator),
        show=partial(_keep, run.folder / SCENES),
    )
    return cast(Generator, averaged)


@torch.no_grad()
def _samples(generator: Generator, count: int) -> Tensor:
    """Points (count, 2), of torch's current random state."""
    device = next(generator.parameters()).device
    points: Tensor = generator(torch.randn(count, generator.latent).to(device))
    return points


def _themselves(points: Tensor) -> Tensor:
    """Points are their own features."""
    return points


# The animation --------------------------------------------------------------------------------


def _scene(discriminator: nn.Module, samples: Tensor) -> dict[str, Tensor]:
    """What a frame shows: generated points, where D sends some of them, and D's whole plane."""
    arrows = samples[:_ARROWS].clone().requires_grad_()
    with torch.enable_grad():
        (uphill,) = torch.autograd.grad(discriminator(arrows).sum(), arrows)
    # Row 0 at the top, so y runs down; pixel centres at integers + 0.5.
    side = ((torch.arange(_CELLS) + 0.5) / _CELLS * 2 - 1) * REACH
    y, x = torch.meshgrid(-side, side, indexing="ij")
    plane = torch.stack([x, y], -1).view(-1, 2).to(samples.device)
    with torch.no_grad():
        logits = discriminator(plane).view(_CELLS, _CELLS)
    return {"points": samples, "uphill": uphill, "logits": logits}


def _keep(folder: Path, step: int, scene: dict[str, Tensor]) -> None:
    """Keep the numbers of a scene: pictures leave through the export alone."""
    checkpoint.save(folder / f"step-{step:08d}.safetensors", scene)


def film(run: Run) -> Iterator[Frame]:
    """The animation of all lessons so far, ``RATE`` frames a second.

    Yields:
        uint8 (H, W, 3): the plane below a line of text.

    Raises:
        FacekitError: if a scene is damaged.
    """
    settings = config.validate(run.facts["config"], Config, run.folder)
    index = 0
    for lesson in settings.lessons:
        shape = lesson.shape
        pictures = list(_pictures(run.folder / shape, shape, settings))
        # A while to look at what became of it.
        for picture in pictures + pictures[-1:] * RATE:
            yield Frame(picture, index / RATE, index)
            index += 1


def _pictures(folder: Path, shape: Shape, config: Config) -> Iterator[Pixels]:
    """The frames of one lesson."""
    seed_step(0, 0)
    real = draw(shape, config.game.strip_samples)
    for path in sorted((folder / SCENES).glob("step-*.safetensors")):
        scene = checkpoint.load(path)
        step = int(path.stem.removeprefix("step-"))
        yield picture(shape, step, real, scene["points"], scene["uphill"], scene["logits"])


def picture(
    shape: Shape, step: int, real: Tensor, points: Tensor, uphill: Tensor, logits: Tensor
) -> Pixels:
    """One moment of a game.

    Args:
        shape: that is learned.
        step: of the game.
        real: (N, 2), drawn in black.
        points: (N, 2), generated, drawn in red.
        uphill: (K, 2), D's gradient at the first K of them: where it sends them, as arrows.
        logits: (C, C), D at the cells of the plane, from top left: orange where it says "real",
            blue where it says "generated".

    Returns:
        uint8 (560, 512, 3).
    """
    # Only differences of logits mean anything, and only near points do they matter.
    middle, spread = logits.median(), logits.std() + 1e-6
    warm = torch.tanh((logits - middle) / (2 * spread))[..., None].numpy()
    colours = np.where(warm > 0, _ORANGE, _BLUE)
    plane = 255 + np.abs(warm) * (colours - 255.0)
    plane = cv2.resize(plane.astype(np.uint8), (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR)
    for dots, colour, radius in ((real, _BLACK, 1.2), (points, _RED, 2.0)):
        for x, y in _pixels(dots):
            cv2.circle(plane, (x, y), round(radius * _FINE), colour, -1, cv2.LINE_AA, _SHIFT)
    # An arrow's length says the direction's share of steepness, at most half a unit.
    lengths = uphill.norm(dim=1, keepdim=True)
    ahead = points[: len(uphill)] + 0.5 * uphill / (lengths + lengths.median() + 1e-6)
    for start, end in zip(_pixels(points[: len(uphill)]), _pixels(ahead), strict=True):
        cv2.line(plane, start, end, _RED, 1, cv2.LINE_AA, _SHIFT)
    caption = np.full((_CAPTION, _SIDE, 3), 255, np.uint8)
    text = f"{NAMES[shape]}, step {step}"
    if shape == "gaussians":
        found = score(points)
        text += f": {found.modes} of 25 modes, {found.on_a_mode:.0%} on a mode"
    cv2.putText(caption, text, (12, 31), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _BLACK, 1, cv2.LINE_AA)
    return np.concatenate([caption, plane])


def _pixels(points: Tensor) -> list[tuple[int, int]]:
    """Places on the plane in 1/16 of a pixel, as OpenCV counts them: centres at integers."""
    x = (points[:, 0] + REACH) / (2 * REACH) * _SIDE - 0.5
    y = (REACH - points[:, 1]) / (2 * REACH) * _SIDE - 0.5
    fine = (torch.stack([x, y], 1) * _FINE).clamp(-_FINE * _SIDE, 2 * _FINE * _SIDE).round().int()
    return [(int(a), int(b)) for a, b in fine.tolist()]
