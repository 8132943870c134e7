"""One arm of the bench: a process that trains one GAN for its time and says how good it then is.

Each arm is a process of its own, so that the time it took is that of the process on all its cores,
whatever else the machine does meanwhile, and so that no arm's libraries or memory are another's.
``facekit.generators._bench`` starts them.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from facekit import export
from facekit.adversary.loop import Pictures, play
from facekit.adversary.metrics.features import load_features
from facekit.core import checkpoint, config, device, files
from facekit.core.config import Config
from facekit.core.errors import FacekitError
from facekit.core.progress import set_verbosity
from facekit.core.run import Run
from facekit.core.seed import seed_step
from facekit.generators import _dcgan, _lightweight, _peers, load, read_config, start
from facekit.generators._evaluate import (
    SHEET,
    Reference,
    beside,
    copies,
    described,
    nearest_pairs,
)
from facekit.types import Pixels
from facekit.watermark import Kind

OWN, POINTS = "gan", "points"
PLAN, FACES, DONE, FOUND = "plan.json", "faces.safetensors", "done.json", "features.safetensors"

_DRAWN = 1  # seed of what is measured
_CALIBRATED = (8, 24)  # steps in turns of the short games that tell how long a step takes


class Plan(Config):
    """What all arms have in common.

    Attributes:
        minutes: that each may take on all ``threads`` together.
        threads: of each.
        device: where to compute.
        precision: of all networks; penalties are exact in any case.
        seed: of weights, batches and noise.
        size: side of the pictures.
        people: to learn from.
        others: people to be measured against, whom no arm sees.
        frames: pictures of each.
        samples: that are measured, of each arm.
        steps: at most, of each arm; for a trial.
    """

    minutes: float
    threads: int
    device: str
    precision: str
    seed: int
    size: int
    people: int
    others: int
    frames: int
    samples: int
    steps: int | None = None

    @property
    def seconds(self) -> float:
        """Of processor time."""
        return self.minutes * 60 * self.threads


def main() -> None:
    """``python -m facekit.generators._arm NAME OUT [-q]``: train and measure one arm."""
    name, out, *quiet = sys.argv[1:]
    set_verbosity(0, bool(quiet))
    try:
        run_arm(name, Path(out))
    except FacekitError as error:
        sys.exit(f"Error: {error}")


def run_arm(name: str, out: Path) -> None:
    """Train and measure an arm, as ``OUT/plan.json`` wants it.

    Args:
        name: of the arm.
        out: the bench's folder, with the plan and the faces.

    Raises:
        FacekitError: if something is missing, or training goes wrong.
    """
    plan = config.validate(files.read_json(out / PLAN), Plan, out / PLAN)
    if name == POINTS:
        _points(plan, out / name)
        return
    fabric = device.setup(plan.device, plan.precision, threads=plan.threads)
    faces = checkpoint.load(out / FACES)
    reference = Reference(faces["training"].to(fabric.device), faces["others"].to(fabric.device))
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    facts, drawn = (_own if name == OWN else _peer)(name, plan, reference, folder, fabric)
    features = load_features(fabric.device)
    checkpoint.save(
        folder / FOUND, {kind: described(pixels, features) for kind, pixels in drawn.items()}
    )
    for kind, pixels in drawn.items():
        title = f"{name}: {facts['images']} images, {kind}"
        shown = [(title, pixels[:SHEET].numpy(force=True))]
        if name == OWN:
            shown.append(
                ("what it learned from", faces["training"][:: 2 * plan.frames][:SHEET].numpy())
            )
        _show(folder / f"{kind}.png", beside(shown), name)
    # Last, as it says that all the rest is there.
    files.write_json(folder / DONE, facts)


def _show(path: Path, pixels: Pixels, name: str) -> None:
    facts = {"origin": "studio", "generator": name}
    badge: export.Corner = "bottom-right"
    export.write_image(path, pixels, kind=Kind.GENERATED, facts=facts, badge=badge)


def _peer(
    name: str, plan: Plan, reference: Reference, folder: Path, fabric: Fabric
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Train a peer; its live weights' samples and its average's, of which the better count."""
    count = _peers.parameters(*_networks(_own_config(plan, steps=1)))
    seed_step(plan.seed, 0)
    if name == "dcgan":
        peer = _dcgan.build(plan.size, count, fabric.device)
    else:
        peer = _lightweight.build(plan.size, count, len(reference.training), fabric.device)
    learned = _peers.train(
        *(name, peer, mirrored(reference.training), folder, fabric),
        seconds=plan.seconds,
        seed=plan.seed,
        most=plan.steps,
    )
    nets = {"live": peer.generator, "average": learned.average}
    drawn = {
        kind: _peers.draw(peer, net, plan.samples, _DRAWN, fabric.device)
        for kind, net in nets.items()
    }
    images = learned.steps * peer.batch
    return _facts(plan, learned.steps, images, learned.seconds, peer.parameters), drawn


def mirrored(pixels: Tensor) -> Tensor:
    """The pictures and their mirror images, which all arms learn from, as the own GAN does."""
    return torch.cat([pixels, pixels.flip(2)])


def _own(
    name: str, plan: Plan, reference: Reference, folder: Path, fabric: Fabric
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Train the own GAN, of as many steps as fit in the time; the samples of its average."""
    path = folder / "steps.json"
    if not path.exists():
        files.write_json(path, {"steps": plan.steps or _affordable(plan, reference, fabric)})
    steps = int(files.read_json(path)["steps"])
    average, seconds = _game(plan, reference, folder, fabric, steps)
    pixels = _drawn(average, plan.samples, fabric.device)
    settings = _own_config(plan, steps)
    count = _peers.parameters(*_networks(settings))
    facts = _facts(plan, steps, steps * settings.game.batch, seconds, count)
    near = copies(pixels, reference)
    _show(folder / "nearest.png", nearest_pairs(pixels, reference.training, near), name)
    return facts | {"copies": len(near.copies)}, {"average": pixels}


def _affordable(plan: Plan, reference: Reference, fabric: Fabric) -> int:
    """How many steps fit in the time: from what steps and looks cost in short games."""
    # Steps that both players take: those that one takes alone cost less.
    game = _own_config(plan, 1).game
    few, more = (game.alone_discriminator + game.alone_generator + n for n in _CALIBRATED)

    def cost(steps: int, look_every: int) -> float:
        with tempfile.TemporaryDirectory() as scratch:
            began = time.process_time()
            _game(plan, reference, Path(scratch), fabric, steps, look_every=look_every)
            return time.process_time() - began

    cost(few, few)  # the first game of a process is slower

    def least(steps: int, look_every: int) -> float:
        # What else the machine does only adds.
        return min(cost(steps, look_every) for _ in range(2))

    once, twice = least(more, more), least(more, more // 2)
    look = max(0.0, twice - once)
    step = max(1e-3, once - least(few, few)) / (more - few)
    every = _own_config(plan, 1).game.look_every
    return max(1, int(plan.seconds / (step + look / every)))


def _points(plan: Plan, folder: Path) -> None:
    """Play the playground's 25 Gaussians, from the start: it takes minutes."""
    fabric = device.setup(plan.device, threads=plan.threads)
    settings: Any = read_config("generators/points")[1]
    (lesson,) = (one for one in settings.lessons if one.shape == "gaussians")
    if plan.steps:
        lesson = lesson.model_copy(update={"steps": plan.steps})
    settings = settings.model_copy(update={"lessons": [lesson]})
    began = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        run = start(POINTS, settings, None, Path(scratch) / POINTS, fabric, seed=plan.seed)
        load(POINTS).train(settings, None, run, fabric)
        row = run.metrics()[-1]
    minutes = (time.process_time() - began) / 60 / plan.threads
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"modes": row["modes"], "on_a_mode": row["on_a_mode"], "minutes": minutes}
    files.write_json(folder / DONE, facts)


def _facts(plan: Plan, steps: int, images: int, seconds: float, parameters: int) -> dict[str, Any]:
    """What the bench says of an arm: its rate is that of a machine that does nothing else."""
    return {
        "steps": steps,
        "images": images,
        "minutes": seconds / 60 / plan.threads,
        "images_per_s": images * plan.threads / seconds,
        "parameters": parameters,
    }


def _own_config(plan: Plan, steps: int) -> Any:
    """The config of the bundled GAN, of so many steps; its checkpoints a hundredth apart.

    The average's half-life is as long a part of the game as it is of the config's.
    """
    settings: Any = read_config("generators/gan_64")[1]
    every = max(50, steps // 100)
    half_life = max(1, round(settings.game.ema * min(1.0, steps / settings.game.steps)))
    game = {"steps": steps, "checkpoint_every": every, "strip_every": every, "ema": half_life}
    return settings.model_copy(
        update={"size": plan.size, "game": settings.game.model_copy(update=game)}
    )


def _game(
    plan: Plan,
    reference: Reference,
    folder: Path,
    fabric: Fabric,
    steps: int,
    look_every: int | None = None,
) -> tuple[nn.Module, float]:
    """Play the own GAN's game to its end; the average generator, and the processor time so far."""
    settings = _own_config(plan, steps)
    game = settings.game
    if look_every:
        game = game.model_copy(update={"look_every": look_every})
    run = Run.start(
        folder / "run",
        plugin=OWN,
        config=settings,
        seed=plan.seed,
        data_hash=files.sha256(folder.parent / FACES) if look_every is None else "",
        threads=plan.threads,
        precision=device.precision_of(fabric),
    )
    seed_step(plan.seed, 0)
    clock = Clock(run.folder)
    average = play(
        game,
        *_networks(settings),
        Pictures(mirrored(reference.training)),
        run,
        fabric,
        features=load_features(fabric.device),
        show=clock.keep,
        draw=lambda samples: None,
    )
    return average, clock.seconds


def _networks(settings: Any) -> tuple[nn.Module, nn.Module]:
    """The own generator and discriminator, with weights of torch's current random state."""
    generator, discriminator = load(OWN).networks(settings)
    return generator, discriminator


class Clock:
    """Processor time of a training over all its sessions, kept with every checkpoint."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "clock.json"
        self._before = float(files.read_json(self._path)) if self._path.exists() else 0.0
        self._began = time.process_time()

    @property
    def seconds(self) -> float:
        """So far."""
        return self._before + time.process_time() - self._began

    def keep(self, step: int, strip: object) -> None:
        """Called after each checkpoint; what is learned after it is learned again on resuming."""
        files.write_json(self._path, self.seconds)


@torch.no_grad()
def _drawn(average: nn.Module, count: int, where: torch.device) -> Tensor:
    """Samples of the own generator, not truncated: uint8 (count, S, S, 3)."""
    seed_step(_DRAWN, 0)
    noise = torch.randn(count, cast(int, average.latent)).to(where)
    return torch.cat([_peers.to_bytes(average(part)) for part in torch.split(noise, 64)])


if __name__ == "__main__":
    main()
