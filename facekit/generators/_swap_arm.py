"""One arm of the swap bench: a process that trains one model for its time, and scores it.

As in :mod:`facekit.generators._arm`, each is a process of its own, so that its time and memory are
nobody else's. ``facekit.generators._swap_bench`` starts them.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from facekit.conversion import convert
from facekit.core import config, device, files
from facekit.core.config import Config
from facekit.core.errors import FacekitError
from facekit.core.progress import set_verbosity
from facekit.core.seed import seed_step
from facekit.datasets.crops import load_crops
from facekit.datasets.swap_truth import TEMPLATE, Clip, Protocol, actors_of
from facekit.faces.blend import ellipse
from facekit.generators import generate, load, open_run, read_config, start
from facekit.generators._arm import DONE, PLAN, Clock
from facekit.generators._gate import admit_folder
from facekit.generators._original import BATCH, Original, train
from facekit.generators._peers import parameters
from facekit.generators._swap_evaluate import FINISH, Cast, Method, measure
from facekit.generators._swap_truth import Readers
from facekit.types import Frame, Pixels

OWN, ORIGINAL = "own", "original"
PEOPLE, ANSWERS = "people", "answers"
RUN = "own/run"
"""Where the own model's run is, in the bench's folder."""

_PLUGIN = "face_swap"
_CALIBRATED = 12  # steps of the short training that tells how long a step takes


class Plan(Config):
    """What the arms have in common.

    Attributes:
        minutes: that each may take on all ``threads`` together.
        threads: of each.
        device: where to compute.
        precision: of the networks.
        seed: of weights and batches.
        size: side of the faces that both draw.
        pair: folder seed of the two people.
        photos: of each, to learn from.
        clips: that are scored.
        frames: of each.
        seconds: of the 720p clip.
        width: of the original's first convolution.
        steps: at most, of each arm; for a trial.
    """

    minutes: float
    threads: int
    device: str
    precision: str
    seed: int
    size: int
    pair: int
    photos: int
    clips: int
    frames: int
    seconds: float
    width: int
    steps: int | None = None

    @property
    def budget(self) -> float:
        """Seconds of processor time."""
        return self.minutes * 60 * self.threads


def main() -> None:
    """``python -m facekit.generators._swap_arm NAME OUT [-q]``: do what one arm does."""
    name, out, *quiet = sys.argv[1:]
    set_verbosity(0, bool(quiet))
    try:
        run_arm(name, Path(out))
    except FacekitError as error:
        sys.exit(f"Error: {error}")


def run_arm(name: str, out: Path) -> None:
    """Train and measure an arm, as ``OUT/plan.json`` wants it.

    Raises:
        FacekitError: if something is missing or goes wrong.
    """
    plan = config.validate(files.read_json(out / PLAN), Plan, out / PLAN)
    fabric = device.setup(plan.device, plan.precision, threads=plan.threads)
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    arm = {OWN: _own, ORIGINAL: _original}[name]
    facts = arm(plan, out, fabric)
    # Last, as it says that all the rest is there.
    files.write_json(folder / DONE, facts)


def _own(plan: Plan, out: Path, fabric: Fabric) -> dict[str, Any]:
    """Train the own model as a user does, for as many steps as fit in the time."""
    folder = out / OWN
    path = folder / "steps.json"
    if not path.exists():
        files.write_json(path, _affordable(plan, out, fabric))
    steps = int(files.read_json(path)["steps"])
    step = _step_seconds(_trained(plan, out, out / RUN, fabric, steps))
    run = open_run(out / RUN)
    permit = admit_folder(out / PEOPLE, (), fabric.device)

    def swapped(number: int, clip: Clip) -> Sequence[Pixels]:
        frames = _frames(clip)
        made = generate(
            *(run, frames, fabric),
            given=permit,
            source=clip.source,
            target=clip.target,
            finish=FINISH,
        )
        return [frame.pixels for frame in made]

    settings = _settings(plan, steps)
    net, _ = load(_PLUGIN).load(run, fabric)
    scored = _psnr(plan, out, swapped, fabric)
    return _facts(plan, steps, steps * settings.batch, steps * step, parameters(net)) | scored


def _settings(plan: Plan, steps: int) -> Any:
    """The default config, of so many steps, its checkpoints a tenth of the way apart."""
    every = max(1, steps // 10)
    changes = {"size": plan.size, "steps": steps, "checkpoint_every": every, "strip_every": every}
    return read_config(f"generators/{_PLUGIN}", [f"{k}={v}" for k, v in changes.items()])[1]


def _trained(plan: Plan, out: Path, folder: Path, fabric: Fabric, steps: int) -> list[list[float]]:
    """Train, or go on; for each strip the step and the processor time since the start.

    The time is of all sessions, locating faces included.
    """
    settings = _settings(plan, steps)
    run = start(_PLUGIN, settings, out / PEOPLE, folder, fabric, seed=plan.seed)
    clock = Clock(run.folder)
    path = run.folder / "times.json"
    times: list[list[float]] = files.read_json(path) if path.exists() else []

    def keep(step: int, strip: object) -> None:
        clock.keep(step, strip)
        times.append([step, clock.seconds])
        files.write_json(path, times)

    state = run.latest()
    if state is None or int(state["step"]) < steps:
        load(_PLUGIN).train(settings, out / PEOPLE, run, fabric, show=keep)
    return times


def _step_seconds(times: list[list[float]]) -> float:
    """What a step takes: the median between strips, so that neither start nor resuming counts."""
    if len(times) < 2:
        return times[0][1] / times[0][0]
    each = sorted((t1 - t0) / (s1 - s0) for (s0, t0), (s1, t1) in pairwise(times) if s1 > s0)
    return max(each[len(each) // 2], 1e-9)


def _affordable(plan: Plan, out: Path, fabric: Fabric) -> dict[str, int]:
    """How many steps fit in the time, after the faces are located: by a short training."""
    if plan.steps:
        return {"steps": plan.steps}
    with tempfile.TemporaryDirectory() as scratch:
        times = _trained(plan, out, Path(scratch) / "run", fabric, _CALIBRATED)
    step = _step_seconds(times)
    before = max(times[0][1] - times[0][0] * step, 0.0)
    return {"steps": max(1, int((plan.budget - before) / step))}


def _original(plan: Plan, out: Path, fabric: Fabric) -> dict[str, Any]:
    """Train the model of the original's size, on the same crops."""
    people = out / PEOPLE
    began = time.process_time()
    crops = load_crops(
        people, template=TEMPLATE, size=2 * plan.size, device=fabric.device, exactly=True
    )
    before = time.process_time() - began
    subjects = [item.subject for item in crops.items]
    names = sorted(set(subjects))
    rows = [[i for i, s in enumerate(subjects) if s == name] for name in names]
    seed_step(plan.seed, 0)
    net = Original(len(names), plan.size, plan.width).to(fabric.device)
    images = torch.from_numpy(crops.images).to(fabric.device)
    # Locating faces counts for both.
    left = max(plan.budget - before, 1.0)
    steps, used = train(
        *(net, images, rows, plan.size, out / ORIGINAL, fabric),
        seconds=left,
        seed=plan.seed,
        most=plan.steps,
    )
    net.eval()
    mask = torch.from_numpy(ellipse(plan.size, (0.5, 0.5), (0.36, 0.47), 0.4))
    share = mask[None, None].to(fabric.device)

    def swapped(number: int, clip: Clip) -> Sequence[Pixels]:
        @torch.no_grad()
        def swap(faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            with fabric.autocast():
                drawn = net(faces, names.index(clip.source)).float()
            return drawn, share.expand(len(faces), -1, -1, -1)

        made = convert(_frames(clip), swap, size=plan.size, device=fabric.device, finish=FINISH)
        return [frame.pixels for frame in made]

    facts = _facts(plan, steps, steps * (BATCH // 2 * 2), used, parameters(net))
    return facts | _psnr(plan, out, swapped, fabric)


def _facts(plan: Plan, steps: int, images: int, seconds: float, count: int) -> dict[str, Any]:
    """What the bench says of an arm: its rate is that of a machine that does nothing else."""
    return {
        "steps": steps,
        "images": images,
        "minutes": seconds / 60 / plan.threads,
        "images_per_s": images * plan.threads / max(seconds, 1e-9),
        "parameters": count,
    }


def _psnr(plan: Plan, out: Path, method: Method, fabric: Fabric) -> dict[str, Any]:
    """What the true answer says of a trained model, on clips that both arms are scored on."""
    protocol = Protocol(
        pairs=[plan.pair],
        photos=plan.photos,
        clips=plan.clips,
        frames=plan.frames,
        seed=plan.seed + 1,
        gallery=3,
    )
    answers = out / ANSWERS
    answers.mkdir(exist_ok=True)
    actors = actors_of(out / PEOPLE)
    cast = Cast(actors, method, plan.size, answers)
    measured = measure([cast], protocol, Readers.load(None, fabric.device))
    rows = {row.name: row for row in measured.figures}
    found = {name: rows[f"swap.{name}"].value for name in ("psnr", "ssim", "strength")}
    psnr = rows["swap.psnr"]
    floor, ceiling = rows["swap.psnr.copy"].value, rows["swap.psnr.pasted"].value
    return found | {"low": psnr.low, "high": psnr.high, "copy": floor, "pasted": ceiling}


def _frames(clip: Clip) -> list[Frame]:
    return [
        Frame(pixels, float(time), i)
        for i, (pixels, time) in enumerate(zip(clip.frames, clip.times, strict=True))
    ]


if __name__ == "__main__":
    main()
