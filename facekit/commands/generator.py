"""``facekit generator``: train generators and run them."""

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facekit.commands import generator_convert, generator_drive, options
from facekit.commands.generator_convert import facts_of
from facekit.commands.generator_evaluate import evaluate
from facekit.core.errors import FacekitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from facekit.conversion.colour import Transfer
    from facekit.export import Corner
    from facekit.faces.blend import Seam
    from facekit.generators import GatedRun
    from facekit.types import Pixels

log = logging.getLogger("facekit")

SAVED = click.Path(dir_okay=False, path_type=Path)
DEVICES = click.option(
    "--devices",
    "count",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that share each batch: one a GPU, or, on a processor, one a core.",
)
_FROM_DRIVER = ("driver",) * 4
TENSORBOARD = click.option(
    "--tensorboard",
    is_flag=True,
    help="Also write RUN/tensorboard; needs facekit-toolkit[tensorboard].",
)
CONSENT = click.option(
    "--consent",
    multiple=True,
    metavar="ID",
    help="A consent record of somebody in the photos; give one for everyone.",
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
@CONSENT
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
    run.note(minutes=round(minutes, 1))
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
        "licence": "Apache-2.0",
        "figures": {**figures, "steps": last["step"]},
    }
    card |= {"cast": run.facts["cast"]} if "cast" in run.facts else {}
    files.write_json(path.with_suffix(".json"), card)
    click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB after {last['step']} steps")


@command.command()
@click.argument("generator")
@click.option(
    "--input",
    "source_file",
    help="What to change: a certified studio clip or picture, or a real one, with --consent; or, "
    "with --dataset, the folder that the run learned from.",
)
@CONSENT
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="With --input the file to write: .mp4 from a video; .png, .jpg or .webp from a picture. "
    "With --photos an .mp4. Else a folder for pictures.",
)
@click.option("--source", help="With --input: the person to show, e.g. person-0001.")
@click.option("--target", help="With --input: who is in it, if the run knows them.")
@click.option(
    "--reference",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PHOTO",
    help="With --input: whose face is to be replaced, where several people are in it; by default "
    "the largest face of the first frame that shows any.",
)
@click.option(
    "--colour",
    type=click.Choice(["transport", "reinhard", "none"]),
    default="transport",
    show_default=True,
    help="With --input: how the new face takes on the colours of the old: by mean and covariance, "
    "by mean and deviation of each channel, or not at all.",
)
@click.option(
    "--seam",
    type=click.Choice(["bands", "feather"]),
    default="bands",
    show_default=True,
    help="With --input: blend each band of detail over a width of its own, or all over one.",
)
@click.option(
    "--no-occlusion",
    is_flag=True,
    help="With --input: draw over hands, hair and glasses before the face.",
)
@click.option("--no-grain", is_flag=True, help="With --input: add no noise to the new face.")
@click.option(
    "--preview",
    type=SAVED,
    metavar="FILE",
    help="With --input: also write the original and the result side by side; with --photos: photo, "
    "driver and result.",
)
@click.option(
    "--photos",
    type=click.Path(path_type=Path),
    help="Whom to move: a photo, or a folder of up to 32 photos of one person.",
)
@click.option(
    "--driver",
    metavar="FILE",
    help="With --photos: what moves them: a finished video, a track (.json), or studio:SEED, a "
    "performance of the studio; by default they breathe, blink and look about.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.2, 600),
    default=6.0,
    show_default=True,
    help="With --photos: of a performance, or of idle motion.",
)
@click.option(
    "--pose",
    default="driver",
    show_default=True,
    metavar="HOW",
    help="With --photos: the head's pose: driver, keep (the photo's), driver*0.5 or so, or yaw,"
    "pitch,roll in degrees.",
)
@click.option(
    "--expression",
    default="driver",
    show_default=True,
    metavar="HOW",
    help="With --photos: driver, keep, driver*1.5 or so, or 0 for a face at rest.",
)
@click.option(
    "--gaze",
    default="driver",
    show_default=True,
    metavar="HOW",
    help="With --photos: driver, keep, driver*0.5 or so, or degrees to the right and up: 0,0.",
)
@click.option(
    "--blink",
    default="driver",
    show_default=True,
    metavar="HOW",
    help="With --photos: driver, keep, driver*0.5 or so, or how far the lids are shut, 0 to 1.",
)
@click.option(
    "--absolute",
    is_flag=True,
    help="With --photos: take the driver's pose, expression and gaze over as they are, rather than "
    "as changes from its rest to the photo's.",
)
@click.option(
    "--count",
    type=click.IntRange(1, 100_000),
    default=16,
    show_default=True,
    help="From nothing: how many faces.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="From nothing: the same seed gives the same faces.",
)
@click.option(
    "--truncation",
    type=click.FloatRange(0, 1.5),
    default=1.0,
    show_default=True,
    help="From nothing: lower is surer and less varied; 0 is the mean face.",
)
@click.option("--sheet", type=SAVED, metavar="FILE", help="From nothing: all faces in one picture.")
@click.option(
    "--interpolate",
    type=SAVED,
    metavar="FILE",
    help="From nothing: a video, .mp4, of a walk from face to face.",
)
@click.option(
    "--mix",
    type=SAVED,
    metavar="FILE",
    help="From nothing: a square of faces (8 at most a side) with the coarse styles of the face on "
    "the left and the fine ones of that above.",
)
@click.option(
    "--coarse",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="With --mix: how many layers' styles are coarse.",
)
@click.option(
    "--dataset",
    is_flag=True,
    help="Make --out a data set, for training detectors: a manifest, and no badges. With --input "
    "FOLDER it holds each photo twice, untouched and swapped; with --photos FOLDER of several "
    "people, untouched and with the person moved.",
)
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
    generator: str,
    source_file: str | None,
    consent: tuple[str, ...],
    out: Path | None,
    source: str | None,
    target: str | None,
    reference: Path | None,
    colour: "Transfer",
    seam: "Seam",
    no_occlusion: bool,
    no_grain: bool,
    preview: Path | None,
    photos: Path | None,
    driver: str | None,
    seconds: float,
    pose: str,
    expression: str,
    gaze: str,
    blink: str,
    absolute: bool,
    count: int,
    seed: int,
    truncation: float,
    sheet: Path | None,
    interpolate: Path | None,
    mix: Path | None,
    coarse: int,
    dataset: bool,
    badge: "Corner",
    device: str,
    precision: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Make faces with GENERATOR, a run folder or the name of a bundled generator.

    With --input a person of the run is shown in a video or picture, with the face's motion kept.
    The result is marked and signed as a composite; a video keeps its sound. Frames in which the
    face is not to be seen, in profile or covered stay as they are, and are listed; if that is all
    of them, nothing is written. An interrupted conversion goes on with the same command.

    With --photos the person of a photo moves as the driver does, which is a closed file or a
    performance of the studio, never a camera; more photos show more of what one hides. The result
    is marked and signed as generated; it keeps the sound of a driver's video.

    Without either, faces are made of nothing, and marked and signed as generated. Pictures below
    256 pixels are enlarged, since smaller ones may not hold their mark.

    The consent that the run was trained under must still hold, with the scope "generate". A real
    video or photo needs consent of its own, of everyone in it: --consent. The manifest repeats
    both, and once a record is revoked or has expired, the file under way is abandoned.

    \b
    Examples:
      facekit generator run gan --count 64 --seed 0 --out faces --sheet sheet.png
      facekit generator run gan --truncation 0.7 --interpolate walk.mp4 --mix mixture.png
      facekit generator run runs/swap --input clip/clip.mp4 --out swap.mp4 --source person-0001
      facekit generator run runs/swap --input people/person-0000/0000.png --out swap.png \\
          --source person-0001
      facekit generator run runs/us --input ben.mp4 --consent c-ba9876543210 --out ann.mp4 \\
          --source ann
      facekit generator run runs/us --input party.mp4 --consent c-ba9876543210 \\
          --consent c-0123456789ab --out ann.mp4 --source ann --reference ben.jpg \\
          --preview side-by-side.mp4
      facekit generator run runs/swap --input people --dataset --out DATA/data/generated/swaps
      facekit generator run talking_head --photos people/person-0000 --driver clip/clip.mp4 \\
          --out talking.mp4 --preview side-by-side.mp4
      facekit generator run talking_head --photos ann.jpg --driver ben.mp4 \\
          --consent c-0123456789ab --consent c-ba9876543210 --out ann.mp4 --pose keep --gaze 0,0
      facekit generator run talking_head --photos people/person-0000 --seconds 4 --out idle.mp4
      facekit generator run talking_head --photos people --dataset --out DATA/data/generated/heads
    """
    import json

    from facekit.commands import generator_dataset, generator_sample
    from facekit.conversion import Finish
    from facekit.core import device as devices

    parts = (pose, expression, gaze, blink)
    if photos is not None:
        from facekit.motion import Controls, parse

        others = (source_file, source, target, reference, sheet, interpolate, mix)
        if out is None or any(other is not None for other in others):
            raise FacekitError(
                "--photos needs --out, and goes without --input, --source, --target, --reference, "
                "--sheet, --interpolate and --mix"
            )
        if dataset:
            if driver is not None or preview or parts != _FROM_DRIVER or absolute:
                raise FacekitError(
                    "--dataset: each person of the folder is moved by a performance of their own; "
                    "leave --driver, --pose, --expression, --gaze, --blink, --absolute and "
                    "--preview away"
                )
            fabric = devices.setup(device, precision, threads=threads)
            heads = generator_drive.move_folder(generator, photos, out, fabric, consent=consent)
            if as_json:
                facts = {"path": str(out), "heads": heads, "originals": heads}
                click.echo(json.dumps(facts, indent=2))
            else:
                click.echo(f"{out}: {heads} moved heads beside originals, marked and signed")
            return
        controls = Controls(
            pose=parse("--pose", pose, 3),
            expression=parse("--expression", expression, 1),
            gaze=parse("--gaze", gaze, 2),
            blink=parse("--blink", blink, 1),
            relative=not absolute,
        )
        moved = generator_drive.move(
            *(generator, photos, out, devices.setup(device, precision, threads=threads)),
            driver=driver or "",
            seconds=seconds,
            controls=controls,
            consent=consent,
            badge=badge,
            preview=preview,
        )
        generator_drive.show(moved, as_json)
        return
    if driver is not None or parts != _FROM_DRIVER or absolute:
        raise FacekitError(
            "--driver, --pose, --expression, --gaze, --blink and --absolute move photos; give them "
            "with --photos"
        )
    if source_file is not None and dataset:
        if out is None:
            raise FacekitError("--out is missing: --dataset needs the folder to write")
        if source or target or reference or preview or sheet or interpolate or mix:
            raise FacekitError(
                "--dataset: shows everyone in the folder as another one; leave --source, --target, "
                "--reference, --preview, --sheet, --interpolate and --mix away"
            )
        if not Path(source_file).is_dir():
            raise FacekitError(
                f"{source_file}: --dataset swaps the faces of a folder of photos; give the folder "
                "that the run learned from"
            )
        fabric = devices.setup(device, precision, threads=threads)
        folders = (Path(generator), Path(source_file), out)
        swaps = generator_dataset.convert_folder(*folders, fabric, consent=consent)
        if as_json:
            click.echo(json.dumps({"path": str(out), "swaps": swaps, "originals": swaps}, indent=2))
        else:
            click.echo(f"{out}: {swaps} swaps beside their originals, marked and signed")
        return
    if source_file is not None:
        if out is None or source is None:
            missing = "--out" if out is None else "--source"
            raise FacekitError(f"{missing} is missing: --input needs --out FILE and --source NAME")
        if sheet or interpolate or mix:
            raise FacekitError(
                "--sheet, --interpolate and --mix are for faces from nothing: leave them away, or "
                "--input"
            )
        fabric = devices.setup(device, precision, threads=threads)
        converted = generator_convert.convert_file(
            *(Path(generator), source_file, out, fabric),
            source=source,
            target=target,
            consent=consent,
            badge=badge,
            reference=reference,
            finish=Finish(colour, seam, occlusion=not no_occlusion, grain=not no_grain),
            preview=preview,
        )
        generator_convert.show(converted, source, as_json)
        return
    if not (out or sheet or interpolate or mix):
        raise FacekitError(
            "nothing to write: give --out DIR, --sheet, --interpolate or --mix for faces from "
            "nothing, --input with what is to be changed, or --photos with whom to move"
        )
    if source or target or consent or reference or preview:
        raise FacekitError(
            "--source, --target and --reference go with --input, --consent and --preview with "
            "--input or --photos"
        )
    if dataset and out is None:
        raise FacekitError("--dataset: give the folder, --out")
    opened = generator_sample.opened(generator)
    wanted = generator_sample.Wanted(
        *(count, seed, truncation, coarse, out, dataset, sheet, interpolate, mix, badge)
    )
    generator_sample.make(opened, wanted, devices.setup(device, precision, threads=threads))
    kind = wanted.files[0].reading.kind
    if as_json:
        facts = {
            "files": [str(file.path) for file in wanted.files],
            "seed": seed,
            "kind": kind,
            "provenance": sorted({file.provenance.status for file in wanted.files}),
            "publish": opened.facts["publish"],
        }
        click.echo(json.dumps(facts, indent=2, default=str))
        return
    where = out if out is not None else wanted.files[0].path.parent
    click.echo(f"{where}: {len(wanted.files)} files, marked as {kind}, manifests signed")
    if not opened.facts["publish"]:
        click.echo("keep them to yourself: not everyone shown has consented to 'publish'")


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
