"""``facekit align``: aligned faces of photos and videos, with a manifest."""

from pathlib import Path

import click


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
    type=click.Choice(["wide", "face", "arcface"]),
    default="wide",
    show_default=True,
    help="wide: all of the face; face: brows to chin; arcface: as identity networks want it.",
)
@click.option(
    "--size",
    type=click.IntRange(16, 2048),
    default=256,
    show_default=True,
    help="Side of a crop, in pixels.",
)
@click.option(
    "--min-face",
    type=click.IntRange(20),
    default=40,
    show_default=True,
    help="Smallest face to look for, in pixels.",
)
@click.option(
    "--every",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Seconds between two looks at a video.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def command(
    inputs: tuple[Path, ...],
    out: Path,
    template: str,
    size: int,
    min_face: int,
    every: float,
    device: str,
    as_json: bool,
) -> None:
    """Locate, track and align the faces of photos and videos.

    Each INPUT is a file, or a folder that is searched with all below it. OUT gets the crops, a
    manifest.jsonl with a row for each, and preview.jpg to look at. A file that cannot be read is
    reported and skipped, and the exit code is then 1. Called again, it goes on where it was.

    Crops of files whose mark or manifest says that they are generated are marked and signed too.

    \b
    Examples:
      facekit align photos/ --out out/aligned
      facekit align clip.mp4 --every 0.5 --size 128 --out out/aligned
    """
    import json
    from dataclasses import asdict

    from facekit import export
    from facekit.core.device import setup
    from facekit.datasets.aligned import align_media

    result = align_media(
        inputs,
        out,
        template=template,
        size=size,
        min_face=min_face,
        every=every,
        device=setup(device).device,
        export=export.write_image,
    )
    if as_json:
        click.echo(json.dumps({"out": str(out), **asdict(result)}, indent=2))
    else:
        click.echo(
            f"{out}: {result.faces} faces from {result.inputs} inputs; "
            f"{result.skipped} done before, {len(result.faceless)} without a face, "
            f"{len(result.failures)} failed"
        )
        for path in result.faceless:
            click.echo(f"no face: {path}")
        for path, reason in result.failures.items():
            click.echo(f"failed: {path}: {reason}")
    if result.failures:
        raise SystemExit(1)
