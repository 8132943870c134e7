"""``facekit generator``: train generators and run them."""

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facekit.commands import options
from facekit.commands.generator_convert import facts_of
from facekit.commands.generator_evaluate import evaluate
from facekit.commands.generator_run import run
from facekit.core.errors import FacekitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from facekit.generators import GatedRun
    from facekit.types import Pixels

log = logging.getLogger("facekit")

DEVICES = click.option(
    "--devices",
    "count",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that share each batch: one a GPU, or, on a processor, one a core.",
)
TENSORBOARD = click.option(
    "--tensorboard",
    is_flag=True,
    help="Also write RUN/tensorboard; needs facekit-toolkit[tensorboard].",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Train a generator, and run it.

    Generators take certified studio media, made by 'facekit studio', or photos and videos of real
    people under consent records of everyone in them, made by 'facekit consent grant'. Every file
    that they write carries a watermark and a signed manifest.

    \b
    Examples:
      facekit generator run gan --count 64 --seed 0 --out faces
      facekit generator train generators/gan_64 --data people --out runs/gan
      facekit generator train generators/points --out runs/points
      facekit generator train generators/face_swap --data people --out runs/swap
      facekit generator run runs/swap --input clip/clip.mp4 --out swap.mp4 --source person-0001
      facekit generator train generators/face_swap --data photos --consent c-0123456789ab \\
          --consent c-ba9876543210 --out runs/us
      facekit generator list
    """


@command.command("list")
@options.JSON
def list_(as_json: bool) -> None:
    """List the generators, the bundled configs, and the generators with bundled weights."""
    import json

    from facekit.commands.generator_sample import bundled
    from facekit.core import config, registry

    names = registry.names("facekit.generators")
    configs = sorted(
        f"generators/{p.stem}" for p in (config.folder() / "generators").glob("*.yaml")
    )
    if as_json:
        found = {"generators": names, "configs": configs, "bundled": bundled()}
        click.echo(json.dumps(found, indent=2))
        return
    click.echo("generators: " + ", ".join(names))
    click.echo("configs:    " + ", ".join(configs))
    click.echo("bundled:    " + ", ".join(bundled()))


@command.command()
@click.argument("config")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="A folder made by 'facekit studio render', or one of photos, with --consent; none for "
    "what draws no faces.",
)
@options.CONSENT
@options.RUN_FOLDER
@options.SEED
@options.DEVICE
@DEVICES
@options.PRECISION
@options.THREADS
@TENSORBOARD
@options.SET
@options.JSON
def train(
    config: str,
    data: Path | None,
    consent: tuple[str, ...],
    out: Path,
    seed: int,
    device: str,
    count: int,
    precision: str,
    threads: int | None,
    tensorboard: bool,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train the generator that CONFIG, a file or a bundled name, describes.

    Give the same command again to go on after an interruption: the result is the same to the bit.

    Photos of real people need records that cover each file and everyone in it, with the scope
    "train". A record says who is in which file, so the folder needs no manifest and no order; only
    photos of several people go into folders named after the one whose face is to be learned. Once
    a record is revoked or has expired, training stops at the next checkpoint.

    \b
    Examples:
      facekit studio render --people 8 --frames 40 --size 256 --out people
      facekit generator train generators/face_swap --data people --out runs/swap
      facekit generator train my.yaml --data people --out runs/b --set steps=500 --seed 1
      facekit generator train generators/gan_64 --data people --out runs/gan --precision auto
      facekit generator train generators/points --out runs/points
      facekit generator train generators/face_swap --data photos --consent c-0123456789ab \\
          --consent c-ba9876543210 --out runs/us
    """
    import json

    from facekit import generators
    from facekit.core import device as devices

    plugin, settings = generators.read_config(config, overrides)
    fabric = devices.setup(device, precision, threads=threads, count=count)
    run = generators.start(plugin, settings, data, out, fabric, seed=seed, consent=consent)
    try:
        with _board(out, tensorboard and fabric.is_global_zero):
            generators.load(plugin).train(settings, data, run, fabric, show=strip_writer(run))
    except FacekitError:
        if fabric.is_global_zero:
            run.discard_if_unused()
        raise
    if not fabric.is_global_zero:
        return
    film = _export_film(run)
    last = run.metrics()[-1]
    if as_json:
        facts = {"run": str(out), "plugin": plugin, "people": run.facts.get("people"), **last}
        facts |= {"consent": run.facts["consent"]} | ({"film": str(film)} if film else {})
        click.echo(json.dumps(facts, indent=2))
        return
    said = f", loss {last['loss']:.4f}" if "loss" in last else ""
    said += f", {last['images']:.0f} images" if "images" in last else ""
    click.echo(f"{out}: trained {last['step']} steps{said}")
    if isinstance(run.facts.get("people"), list):
        click.echo(f"it knows {', '.join(run.facts['people'])}")
    if film:
        click.echo(f"{film}: the game as an animation")


@command.command()
@click.argument("config")
@click.option(
    "--people", type=click.IntRange(2, 1000), default=48, show_default=True, help="How many."
)
@click.option(
    "--moments",
    type=click.IntRange(2),
    default=48,
    show_default=True,
    help="Pictures of each; of a face swap, performances that all of them give.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The run folder; NAME.safetensors and its card are written into it.",
)
@click.option("--name", help="Of the weights; the generator's by default.")
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True, help="Of everything.")
@options.DEVICE
@DEVICES
@options.PRECISION
@options.THREADS
@TENSORBOARD
@options.SET
def pretrain(
    config: str,
    people: int,
    moments: int,
    out: Path,
    name: str | None,
    seed: int,
    device: str,
    count: int,
    precision: str,
    threads: int | None,
    tensorboard: bool,
    overrides: tuple[str, ...],
) -> None:
    """Learn from studio people the weights that are bundled.

    A face swap then starts from them; a GAN is used as it is. Give the same command again to go on
    after an interruption. What the studio renders for a GAN is kept in facekit's cache folder.

    \b
    Examples:
      facekit generator pretrain generators/face_swap_pretrain --out runs/pretrain --precision auto
      facekit generator pretrain generators/gan_64 --people 1000 --moments 8 --out runs/gan \\
          --precision auto
    """
    import hashlib
    import sys
    import time

    import torch

    from facekit import generators
    from facekit.core import device as devices
    from facekit.core import files
    from facekit.core.run import Run
    from facekit.core.text import command_line
    from facekit.studio.certificate import STUDIO_VERSION

    plugin, settings = generators.read_config(config, overrides)
    module = generators.load(plugin)
    if not hasattr(module, "pretrain"):
        raise FacekitError(f"{plugin} starts from noise: it has no pre-training")
    fabric = devices.setup(device, precision, threads=threads, count=count)
    generators.require_shares(plugin, fabric)
    data = f"{people} studio people (seed {seed}) x {moments} performances, studio {STUDIO_VERSION}"
    data_hash = hashlib.sha256(data.encode()).hexdigest()
    with fabric.rank_zero_first():
        run = Run.start(
            out,
            plugin=plugin,
            config=settings,
            seed=seed,
            data_hash=data_hash,
            threads=torch.get_num_threads(),
            precision=devices.precision_of(fabric),
        )
    began = time.monotonic()
    with _board(out, tensorboard and fabric.is_global_zero):
        module.pretrain(settings, run, fabric, people, moments)
    if not fabric.is_global_zero:
        return
    minutes = run.facts.get("minutes", 0) + (time.monotonic() - began) / 60
    run.note(minutes=round(minutes, 1), device=devices.name_of(fabric.device))
    name = name or plugin
    path = generators.bundle(run, out, name)
    last = run.metrics()[-1]
    figures: dict[str, float] = {
        key: last[key] for key in ("images", "distance", "recall") if key in last
    }
    figures |= {"pretraining_loss": last["loss"]} if "loss" in last else {}
    card: dict[str, object] = {
        "name": name,
        "file": path.name,
        "sha256": files.sha256(path),
        "command": command_line(sys.argv),
        "config": run.facts["config"],
        "seed": seed,
        "data": data,
        "data_hash": data_hash,
        "minutes": run.facts["minutes"],
        "device": run.facts["device"],
        "licence": "Apache-2.0",
        "figures": {**figures, "steps": last["step"]},
    }
    card |= {"cast": run.facts["cast"]} if "cast" in run.facts else {}
    files.write_json(path.with_suffix(".json"), card)
    click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB after {last['step']} steps")


@command.command()
@click.argument("generator")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The file to write, .safetensors.",
)
def discriminator(generator: str, out: Path) -> None:
    """Write the discriminator of GENERATOR, a run or a bundled one, for the detectors.

    \b
    Example:
      facekit generator discriminator gan --out judge.safetensors
      facekit detector train detectors/discriminator --set weights=judge.safetensors \\
          --data DATA --out runs/judge
    """
    from facekit import generators
    from facekit.commands import generator_sample
    from facekit.core import checkpoint

    source = generator_sample.opened(generator)
    module = generators.load(source.plugin)
    if not hasattr(module, "discriminator"):
        raise FacekitError(f"{source.plugin} has no discriminator to hand over; 'gan' has")
    state = module.discriminator(source.opened)
    notes = source.opened.permit.notes() if not isinstance(source.opened, str) else None
    checkpoint.save(out, state, notes)
    settings = " ".join(
        f"--set {key}={state[name]}"
        for key, name in (("data.size", "size"), ("width", "width"), ("patch", "patch"))
    )
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB; train with {settings}")


command.add_command(run)
command.add_command(evaluate)


@contextmanager
def _board(folder: Path, wanted: bool) -> "Iterator[None]":
    """Copy the metrics to TensorBoard meanwhile, if that is wanted."""
    if not wanted:
        yield
        return
    from facekit.core.tensorboard import copied

    with copied(folder):
        yield


def _export_film(run: "GatedRun") -> Path | None:
    """Write the animation that a training tells, if it tells one."""
    from facekit import export, generators

    frames = generators.film(run)
    if frames is None:
        return None
    module = generators.load(run.facts["plugin"])
    path = run.folder / "game.mp4"
    export.write_video(
        path,
        frames,
        kind=module.KIND,
        rate=module.RATE,
        facts=facts_of(run),
        id=generators.mark_id(run),
        consent=run.permit.records,
    )
    return path


def strip_writer(run: "GatedRun") -> "Callable[[int, Pixels], None] | None":
    """What writes a training's strips, marked, to ``RUN/strips``.

    A strip shows what the generator makes; so there are none without consent to that.
    """
    from facekit import export, generators

    kind = generators.load(run.facts["plugin"]).KIND
    permit = run.permit
    if not permit.covers("generate"):
        log.info("the consent does not cover generating, so no training strips are written")
        return None

    def write(step: int, pixels: "Pixels") -> None:
        permit.check("generate")
        path = run.folder / "strips" / f"step-{step:08d}.png"
        export.write_image(
            path,
            pixels,
            kind=kind,
            facts=facts_of(run),
            id=generators.mark_id(run),
            consent=permit.records,
        )

    return write
