"""``facekit faces``: what the face stage sees."""

from pathlib import Path

import click

from facekit.commands.options import DEVICE, EVERY, JSON, LOCATOR, LOCATOR_WEIGHTS, MIN_FACE


@click.group()
def command() -> None:
    """Look at what the face stage sees.

    \b
    Examples:
      facekit faces show clip.mp4 --out out/seen.mp4
      facekit faces show photos/ clip.mp4 --out out/sheet.jpg
    """


@command.command()
@click.argument(
    "inputs", nargs=-1, required=True, metavar="INPUT...", type=click.Path(path_type=Path)
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write: .mp4 for a video, .jpg, .png or .webp for a sheet.",
)
@MIN_FACE
@EVERY
@LOCATOR
@LOCATOR_WEIGHTS
@DEVICE
@JSON
def show(
    inputs: tuple[Path, ...],
    out: Path,
    min_face: int,
    every: int,
    locator: str,
    locator_weights: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Draw faces, tracks, people, landmarks, head pose and quality onto a video, or onto a sheet.

    OUT ends in .mp4: the one video INPUT, annotated, with its sound. OUT is a picture: a sheet of
    all INPUTs, photos, moments of videos, folders and patterns. An INPUT that cannot be read is
    reported and skipped, and the exit code is then 1.

    Each person has a colour. Below a face stand head pose in degrees, the size of its box, blur in
    hundredths of that, mean brightness, and the shares that are clipped, that are covered, and by
    which blocks of compression show. What is generated, by its mark or manifest, stays marked and
    signed.

    \b
    Examples:
      facekit faces show clip.mp4 --out out/seen.mp4
      facekit faces show clip.mp4 --every 1 --json --out out/seen.mp4
      facekit faces show photos/ 'more/*.jpg' clip.mp4 --out out/sheet.jpg
    """
    import json
    from dataclasses import asdict

    from facekit import export
    from facekit.core.device import setup
    from facekit.core.errors import FacekitError
    from facekit.datasets.looking import Looking
    from facekit.datasets.shown import SHEETS, show_sheet, show_video

    looking = Looking(min_face, every, locator, locator_weights)
    suffix = out.suffix.lower()
    if suffix == ".mp4":
        if len(inputs) != 1:
            raise FacekitError(
                f"{out}: holds one video, but {len(inputs)} inputs were given; give one video, or "
                f"an --out of {', '.join(SHEETS)}"
            )
        where = setup(device).device
        report = show_video(inputs[0], out, looking, device=where, export=export.write_video)
    elif suffix in SHEETS:
        where = setup(device).device
        report = show_sheet(inputs, out, looking, device=where, export=export.write_image)
    else:
        raise FacekitError(
            f"{out}: cannot be written as '{out.suffix}'; allowed: .mp4, {', '.join(SHEETS)}"
        )
    if as_json:
        click.echo(json.dumps(asdict(report), indent=2))
    else:
        for findings in report.inputs:
            click.echo(findings.sentence())
        for path, reason in report.failures.items():
            click.echo(f"failed: {path}: {reason}")
        if report.out:
            click.echo(report.out)
    if report.failures:
        raise SystemExit(1)
