"""``facekit detector score``: the scores of many files, a row for each face."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from facekit.commands import options

if TYPE_CHECKING:
    from detectors.bulk import Summary


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path)
)
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The rows, e.g. scores.jsonl; an interrupted call goes on.",
)
@click.option(
    "--detector",
    default="default",
    show_default=True,
    metavar="RUN_OR_NAME",
    help="A run folder of 'facekit detector train', or a bundled detector's name.",
)
@click.option(
    "--frames",
    type=click.IntRange(1),
    metavar="N",
    help="Moments of each video, evenly spread over all of it.  [default: 32]",
)
@click.option(
    "--every",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Instead of --frames: the time between two moments of a video.",
)
@click.option(
    "--min-face",
    type=click.IntRange(20),
    default=32,
    show_default=True,
    metavar="PX",
    help="Smallest face that is scored: the longer side of its box.",
)
@options.DEVICE
@options.THREADS
@options.JSON
@click.pass_context
def score(
    context: click.Context,
    paths: tuple[Path, ...],
    out: Path,
    detector: str,
    frames: int | None,
    every: float | None,
    min_face: int,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Score every face of pictures, videos, folders and patterns: a row for each face and moment.

    A row of FILE is a JSON object: path, time (seconds; null for a picture), box, track (one face
    of a video through time), scores (each member's own), probability (that it is generated,
    calibrated), and reason, which says why there is no probability. Every input has at least one
    row. 'facekit detector evaluate --scores FILE --labels FILE' measures them.

    What is done is kept in FILE.part. After an interruption give the same command again: it goes
    on with what is not done or has changed, and the rows are the same as without it, but for the
    scores' last digits.

    \b
    Exit codes:
      0  FILE is written
      3  FILE is written, but an input could not be read: its reason begins with 'unreadable'
      1  FILE is not written: an error
      2  wrong usage

    \b
    Examples:
      facekit detector score photos/ clip.mp4 --out scores.jsonl
      facekit detector score 'clips/*.mp4' --every 0.5 --detector runs/d --out scores.jsonl
      facekit detector score photos/ --out scores.jsonl --json
    """
    if frames is not None and every is not None:
        raise click.UsageError("give --frames or --every, not both")
    import json
    from dataclasses import asdict

    from detectors.bulk import MOMENTS, Looking, score_files
    from detectors.score import Detector
    from facekit.core import device as devices

    where = devices.setup(device, threads=threads).device
    summary = score_files(
        paths,
        Detector.load(detector, where),
        out=out,
        device=where,
        looking=Looking(frames or MOMENTS, every, min_face),
    )
    if as_json:
        click.echo(json.dumps(asdict(summary), indent=2))
    else:
        _show(summary)
    if summary.unreadable:
        context.exit(3)


def _show(summary: "Summary") -> None:
    """A short table: what was scored, what was not, and why not."""
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_row("inputs", str(summary.inputs))
    table.add_row("  without a score", str(summary.unscored))
    table.add_row("rows", str(summary.rows))
    table.add_row("  with a face", str(summary.faces))
    table.add_row("  scored", str(summary.scored))
    for reason, count in summary.reasons.items():
        table.add_row(f"  {reason}", str(count))
    Console(highlight=False).print(table)
    click.echo(f"{summary.out}: scored by {summary.detector}")
