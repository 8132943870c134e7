"""``facekit generator``: train generators and run them."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from facekit.core.errors import FacekitError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightning_fabric import Fabric

    from facekit.core.run import Run
    from facekit.export import Exported
    from facekit.types import Pixels

_DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, mps.")
_PRECISION = click.option(
    "--precision",
    default="32",
    show_default=True,
    help="32, bf16 or 16; bf16 is 3 to 4 times as fast where the processor has it.",
)
_THREADS = click.option("--threads", type=click.IntRange(1), help="Default: every core.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Train a generator, and run it.

    Generators take only certified studio media, made by 'facekit studio', and every file that
    they write carries a watermark and a signed manifest.

    \b
    Examples:
      facekit generator train generators/face_swap --data people --out runs/swap
      facekit generator run runs/swap --input clip/clip.mp4 --out swap.mp4 --source person-0001
      facekit generator list
    """


@command.command("list")
@_JSON
def list_(as_json: bool) -> None:
    """List the generators and the bundled configs."""
    import json

    from facekit.core import config, registry

    names = registry.names("facekit.generators")
    configs = sorted(
        f"generators/{p.stem}" for p in (config.folder() / "generators").glob("*.yaml")
    )
    if as_json:
        click.echo(json.dumps({"generators": names, "configs": configs}, indent=2))
        return
    click.echo("generators: " + ", ".join(names))
    click.echo("configs:    " + ", ".join(configs))


@command.command()
@click.argument("config")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="A folder made by 'facekit studio render'.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The run folder; an interrupted run in it goes on.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="The same seed gives the same weights.",
)
@_DEVICE
@_PRECISION
@click.option(
    "--devices",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Train on this many devices at once.",
)
@_THREADS
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting.")
@_JSON
def train(
    config: str,
    data: Path,
    out: Path,
    seed: int,
    device: str,
    precision: str,
    devices: int,
    threads: int | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train the generator that CONFIG, a file or a bundled name, describes.

    Give the same command again to go on after an interruption: the result is the same to the bit.

    \b
    Examples:
      facekit studio render --people 8 --frames 40 --size 256 --out people
      facekit generator train generators/face_swap --data people --out runs/swap
      facekit generator train my.yaml --data people --out runs/b --set steps=500 --seed 1
    """
    import json

    from facekit import generators
    from facekit.core import device as devices_

    plugin, settings = generators.read_config(config, overrides)
    fabric = devices_.setup(device, precision, devices, threads)
    run = generators.start(plugin, settings, data, out, fabric, seed=seed)
    generators.load(plugin).train(settings, data, run, fabric, show=strip_writer(plugin, out))
    last = run.metrics()[-1]
    if as_json:
        facts = {"run": str(out), "plugin": plugin, "people": run.facts.get("people"), **last}
        click.echo(json.dumps(facts, indent=2))
        return
    click.echo(f"{out}: trained {last['step']} steps, loss {last['loss']:.4f}")
    click.echo(f"it knows {', '.join(run.facts['people'])}")


@command.command()
@click.argument("config")
@click.option("--people", type=click.IntRange(2), default=48, show_default=True, help="How many.")
@click.option(
    "--moments",
    type=click.IntRange(2),
    default=48,
    show_default=True,
    help="Performances that all of them give.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The run folder; NAME.safetensors and its card are written into it.",
)
@click.option("--name", default="face_swap", show_default=True, help="Of the weights.")
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True, help="Of everything.")
@_DEVICE
@_PRECISION
@_THREADS
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting.")
def pretrain(
    config: str,
    people: int,
    moments: int,
    out: Path,
    name: str,
    seed: int,
    device: str,
    precision: str,
    threads: int | None,
    overrides: tuple[str, ...],
) -> None:
    """Learn from studio people, who share performances, what every training then starts from.

    \b
    Example:
      facekit generator pretrain generators/face_swap_pretrain --out runs/pretrain --precision auto
    """
    import hashlib
    import shlex
    import sys
    import time

    import torch

    from facekit import generators
    from facekit.core import device as devices_
    from facekit.core import files
    from facekit.core.run import Run
    from facekit.studio.certificate import STUDIO_VERSION

    plugin, settings = generators.read_config(config, overrides)
    module = generators.load(plugin)
    if not hasattr(module, "pretrain"):
        raise FacekitError(f"{plugin} starts from noise: it has no pre-training")
    fabric = devices_.setup(device, precision, threads=threads)
    data = f"{people} studio people (seed {seed}) x {moments} performances, studio {STUDIO_VERSION}"
    data_hash = hashlib.sha256(data.encode()).hexdigest()
    run = Run.start(
        out,
        plugin=plugin,
        config=settings,
        seed=seed,
        data_hash=data_hash,
        threads=torch.get_num_threads(),
        precision=devices_.precision_of(fabric),
    )
    began = time.monotonic()
    module.pretrain(settings, run, fabric, people, moments)
    minutes = run.facts.get("minutes", 0) + (time.monotonic() - began) / 60
    run.note(minutes=round(minutes, 1))
    path = module.bundle(run, out, name)
    last = run.metrics()[-1]
    card = {
        "name": name,
        "file": path.name,
        "sha256": files.sha256(path),
        "command": shlex.join(["facekit", *sys.argv[1:]]),
        "config": run.facts["config"],
        "seed": seed,
        "data": data,
        "data_hash": data_hash,
        "minutes": run.facts["minutes"],
        "licence": "Apache-2.0",
        "figures": {"pretraining_loss": last["loss"], "steps": last["step"]},
    }
    files.write_json(path.with_suffix(".json"), card)
    click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB after {last['step']} steps")


@command.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--input", "source_file", required=True, help="A certified studio clip or picture.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The video to write; .mp4.",
)
@click.option("--source", required=True, help="The person to show, e.g. person-0001.")
@click.option("--target", help="Who is in the input, if the run knows them.")
@_DEVICE
@_PRECISION
@_THREADS
@_JSON
def run(
    run: Path,
    source_file: str,
    out: Path,
    source: str,
    target: str | None,
    device: str,
    precision: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Show a person of RUN in a video or picture, with the face's motion kept.

    The result is marked and signed as a composite; a video keeps its sound.

    \b
    Examples:
      facekit generator run runs/swap --input clip/clip.mp4 --out swap.mp4 --source person-0001
      facekit generator run runs/swap --input people/person-0000/0000.png --out swap.png \\
          --source person-0001
    """
    import json

    from facekit.core import device as devices_
    from facekit.core.run import Run

    fabric = devices_.setup(device, precision, threads=threads)
    exported = convert_file(Run(run), source_file, out, fabric, source=source, target=target)
    facts = {
        "path": str(exported.path),
        "source": source,
        "mark": exported.reading.to_json(),
        "provenance": exported.provenance.status,
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2, default=str))
        return
    click.echo(f"{out}: {source} shown, marked as {exported.reading.kind}, manifest signed")


def strip_writer(plugin: str, out: Path) -> "Callable[[int, Pixels], None]":
    """What writes a training's strips, marked, to ``out/strips``."""
    from facekit import export, generators

    kind = generators.load(plugin).KIND

    def write(step: int, pixels: "Pixels") -> None:
        path = out / "strips" / f"step-{step:08d}.png"
        export.write_image(path, pixels, kind=kind, facts={"origin": "studio"})

    return write


def convert_file(
    run: "Run",
    source_file: str,
    out: Path,
    fabric: "Fabric",
    *,
    source: str,
    target: str | None = None,
) -> "Exported":
    """Check that ``source_file`` may be changed, change it, and export the result to ``out``.

    Raises:
        FacekitError: if the input is live, growing or not certified, or ``out`` is of another
            kind than it, or the run or a person is unusable.
    """
    from facekit import export, generators
    from facekit.generators._gate import certified, closed_file
    from facekit.media.decode import Video, probe
    from facekit.media.images import read_image
    from facekit.types import Frame

    path = closed_file(source_file)
    consent = certified(path)
    plugin = generators.load(run.facts["plugin"])
    is_picture = probe(path).kind == "image"
    wanted = {".png", ".jpg", ".jpeg", ".webp"} if is_picture else {".mp4"}
    if out.suffix.lower() not in wanted:
        raise FacekitError(f"{out}: from {path.name} comes one of {', '.join(sorted(wanted))}")
    facts = {
        "origin": "studio",
        "generator": run.facts["plugin"],
        "source": source,
        "consents": sorted({consent, run.facts.get("consent", "")}),
    }
    if is_picture:
        frames = [Frame(read_image(path), 0.0, 0)]
        (changed,) = plugin.generate(run, frames, fabric, source=source, target=target)
        return export.write_image(out, changed.pixels, kind=plugin.KIND, inputs=[path], facts=facts)
    with Video(path) as video:
        frames = plugin.generate(run, video, fabric, source=source, target=target)
        return export.write_video(
            out,
            frames,
            kind=plugin.KIND,
            rate=video.info.rate or 25.0,
            audio_from=path if video.info.has_audio else None,
            inputs=[path],
            facts=facts,
        )
