"""``facekit align``: aligned faces of photos and videos, with a manifest."""

from pathlib import Path

import click

from facekit.commands.options import DEVICE, EVERY, JSON, LOCATOR, LOCATOR_WEIGHTS, MIN_FACE


@click.command()
@click.argument(
    "inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(path_type=Path)
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write, or to go on with.",
)
@click.option(
    "--template",
    type=click.Choice(["wide", "face", "arcface", "ffhq", "box13"]),
    default="wide",
    show_default=True,
    help="wide: all of the face; face: brows to chin; arcface: as identity networks want it; ffhq: "
    "as in FFHQ, hair and shoulders too; box13: the upright square of 1.3 times the face's box, as "
    "for FaceForensics++.",
)
@click.option(
    "--size",
    type=click.IntRange(16, 2048),
    default=256,
    show_default=True,
    help="Side of a crop, in pixels.",
)
@MIN_FACE
@EVERY
@click.option(
    "--period",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Seconds between two frames of a video whose faces are kept.",
)
@LOCATOR
@LOCATOR_WEIGHTS
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes, each at one input at a time; the files are the same for any number.",
)
@DEVICE
@JSON
def command(
    inputs: tuple[Path, ...],
    out: Path,
    template: str,
    size: int,
    min_face: int,
    every: int,
    period: float,
    locator: str,
    locator_weights: Path | None,
    workers: int,
    device: str,
    as_json: bool,
) -> None:
    """Locate, track and align the faces of photos and videos.

    Each INPUT is a file, a pattern, or a folder that is searched with all below it. OUT gets the
    crops, a manifest.jsonl with a row for each, and preview.jpg to look at. A file that cannot be
    read is reported and skipped, and the exit code is then 1. Called again, it goes on where it
    was.

    A row says where the face was and of which file, its landmarks, head pose and quality; of a
    video also when, in which track, and which of its persons that is.

    Crops of files whose mark or manifest says that they are generated are marked and signed too.

    \b
    Examples:
      facekit align photos/ --out out/aligned
      facekit align photos/ 'more/*.jpg' --workers 2 --out out/aligned
      facekit align clip.mp4 --period 0.5 --size 128 --out out/aligned
    """
    import json
    from dataclasses import asdict

    from facekit import export
    from facekit.core.device import setup
    from facekit.datasets.aligned import Settings, align_media
    from facekit.datasets.looking import Looking

    settings = Settings(
        template=template,
        size=size,
        period=period,
        looking=Looking(min_face, every, locator, locator_weights),
    )
    result = align_media(
        inputs,
        out,
        settings,
        # Each worker has one thread, and one worker is to give the same as many.
        device=setup(device, threads=1).device,
        export=export.write_image,
        workers=workers,
    )
    if as_json:
        click.echo(json.dumps({"out": str(out), **asdict(result)}, indent=2))
    else:
        click.echo(
            f"{out}: holds {result.faces} faces; of {result.inputs} inputs "
            f"{result.skipped} done before, {len(result.faceless)} without a face, "
            f"{len(result.failures)} failed"
        )
        for path in result.faceless:
            click.echo(f"no face: {path}")
        for path, reason in result.failures.items():
            click.echo(f"failed: {path}: {reason}")
    if result.failures:
        raise SystemExit(1)
