"""``facekit generator``: train generators and run them."""

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facekit.commands import options
from facekit.core.errors import FacekitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lightning_fabric import Fabric

    from facekit.export import Corner, Exported
    from facekit.types import Frame, Pixels


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
@options.JSON
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
@options.RUN_FOLDER
@options.SEED
@options.DEVICE
@options.PRECISION
@options.THREADS
@options.SET
@options.JSON
def train(
    config: str,
    data: Path,
    out: Path,
    seed: int,
    device: str,
    precision: str,
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
    from facekit.core import device as devices

    plugin, settings = generators.read_config(config, overrides)
    fabric = devices.setup(device, precision, threads=threads)
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
@click.option(
    "--people", type=click.IntRange(2, 1000), default=48, show_default=True, help="How many."
)
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
@options.DEVICE
@options.PRECISION
@options.THREADS
@options.SET
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
    from facekit.core import device as devices
    from facekit.core import files
    from facekit.core.run import Run
    from facekit.studio.certificate import STUDIO_VERSION

    plugin, settings = generators.read_config(config, overrides)
    module = generators.load(plugin)
    if not hasattr(module, "pretrain"):
        raise FacekitError(f"{plugin} starts from noise: it has no pre-training")
    fabric = devices.setup(device, precision, threads=threads)
    data = f"{people} studio people (seed {seed}) x {moments} performances, studio {STUDIO_VERSION}"
    data_hash = hashlib.sha256(data.encode()).hexdigest()
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
    help="The file to write: .mp4 from a video; .png, .jpg or .webp from a picture.",
)
@click.option("--source", required=True, help="The person to show, e.g. person-0001.")
@click.option("--target", help="Who is in the input, if the run knows them.")
@click.option(
    "--badge",
    type=click.Choice(["top-left", "top-right", "bottom-left", "bottom-right"]),
    default="bottom-left",
    show_default=True,
    help="The corner in which the word 'synthetic' stands.",
)
@options.DEVICE
@options.PRECISION
@options.THREADS
@options.JSON
def run(
    run: Path,
    source_file: str,
    out: Path,
    source: str,
    target: str | None,
    badge: "Corner",
    device: str,
    precision: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Show a person of RUN in a video or picture, with the face's motion kept.

    The result is marked and signed as a composite; a video keeps its sound. Frames that show no
    face stay as they are; if none shows one, nothing is written.

    \b
    Examples:
      facekit generator run runs/swap --input clip/clip.mp4 --out swap.mp4 --source person-0001
      facekit generator run runs/swap --input people/person-0000/0000.png --out swap.png \\
          --source person-0001
    """
    import json

    from facekit.core import device as devices

    fabric = devices.setup(device, precision, threads=threads)
    converted = convert_file(
        run, source_file, out, fabric, source=source, target=target, badge=badge
    )
    exported = converted.exported
    facts = {
        "path": str(exported.path),
        "source": source,
        "frames": converted.frames,
        "changed": converted.changed,
        "mark": exported.reading.to_json(),
        "provenance": exported.provenance.status,
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2, default=str))
        return
    click.echo(
        f"{out}: {source} shown in {converted.changed} of {converted.frames} frames, "
        f"marked as {exported.reading.kind}, manifest signed"
    )


def strip_writer(plugin: str, out: Path) -> "Callable[[int, Pixels], None]":
    """What writes a training's strips, marked, to ``out/strips``."""
    from facekit import export, generators

    kind = generators.load(plugin).KIND

    def write(step: int, pixels: "Pixels") -> None:
        path = out / "strips" / f"step-{step:08d}.png"
        export.write_image(path, pixels, kind=kind, facts={"origin": "studio"})

    return write


@dataclass(frozen=True)
class Converted:
    """What :func:`convert_file` wrote.

    Attributes:
        exported: the file.
        frames: how many it has; 1 for a picture.
        changed: in how many of them the face was replaced.
    """

    exported: "Exported"
    frames: int
    changed: int


def convert_file(
    folder: Path,
    source_file: str,
    out: Path,
    fabric: "Fabric",
    *,
    source: str,
    target: str | None = None,
    badge: "Corner" = "bottom-left",
) -> Converted:
    """Check that ``source_file`` may be changed, change it, and export the result to ``out``.

    Args:
        folder: of the generator's run.
        source_file: a certified studio clip or picture.
        out: to write to.
        fabric: where and how precisely to compute.
        source: the person to show.
        target: who is in the input, if it is known.
        badge: the corner in which the word "synthetic" stands.

    Raises:
        FacekitError: if the input is live, growing or not certified, or shows no face; or ``out``
            is of another kind than it; or the run or a person is unusable.
    """
    from facekit import export, generators
    from facekit.media.decode import Video, probe
    from facekit.media.images import read_image
    from facekit.types import Frame

    path = generators.closed_file(source_file)
    consent = generators.certified(path)
    run = generators.open_run(folder)
    plugin = generators.load(run.facts["plugin"])
    is_picture = probe(path).kind == "image"
    wanted = {".png", ".jpg", ".jpeg", ".webp"} if is_picture else {".mp4"}
    if out.suffix.lower() not in wanted:
        raise FacekitError(f"{out}: from {path.name} comes one of {', '.join(sorted(wanted))}")
    facts = {
        "origin": "studio",
        "generator": run.facts["plugin"],
        "source": source,
        "consents": sorted({consent, run.facts["consent"]}),
    }
    given = _Tally(path)
    if is_picture:
        frames = given.note([Frame(read_image(path), 0.0, 0)])
        changed = plugin.generate(run, frames, fabric, source=source, target=target)
        (picture,) = given.compare(changed)
        exported = export.write_image(
            out, picture.pixels, kind=plugin.KIND, inputs=[path], facts=facts, badge=badge
        )
    else:
        with Video(path) as video:
            frames = given.note(video)
            changed = plugin.generate(run, frames, fabric, source=source, target=target)
            exported = export.write_video(
                out,
                given.compare(changed),
                kind=plugin.KIND,
                rate=video.info.rate or 25.0,
                audio_from=path if video.info.has_audio else None,
                inputs=[path],
                facts=facts,
                badge=badge,
            )
    return Converted(exported, given.frames, given.changed)


class _Tally:
    """Counts the frames of a file that a generator changes; a plug-in need not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames = self.changed = 0
        self._waiting: deque[Pixels] = deque()

    def note(self, frames: "Iterable[Frame]") -> "Iterator[Frame]":
        """Pass on what the generator is given."""
        for frame in frames:
            self._waiting.append(frame.pixels)
            yield frame

    def compare(self, frames: "Iterable[Frame]") -> "Iterator[Frame]":
        """Pass on what it hands back, in the same order.

        Raises:
            FacekitError: at the end, if none was changed; an export then leaves no file.
        """
        import numpy as np

        for frame in frames:
            self.frames += 1
            self.changed += not np.array_equal(self._waiting.popleft(), frame.pixels)
            yield frame
        if not self.changed:
            raise FacekitError(f"{self.path}: no frame shows a face; nothing was written")
