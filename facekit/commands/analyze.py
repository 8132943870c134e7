"""``facekit analyze``: the evidence on files, as a report."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facekit.core.progress import set_verbosity

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from detectors.report.model import FileReport, Report


@click.command()
@click.argument(
    "inputs", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path)
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write report.json and report.html there.",
)
@click.option(
    "--detector",
    metavar="RUN_OR_NAME",
    help="A run folder of 'facekit detector train', or a bundled detector's name.",
)
@click.option(
    "--every",
    type=click.FloatRange(min=0, min_open=True),
    default=0.2,
    show_default=True,
    metavar="SECONDS",
    help="Time between two frames of a video that are looked at.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.pass_context
def command(
    context: click.Context,
    inputs: tuple[Path, ...],
    out: Path | None,
    detector: str | None,
    every: float,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Analyze pictures and videos: what speaks for manipulation, and how well.

    Checks content credentials, facekit's watermark and the studio's certificate, follows each
    face and scores it. A verdict is "evidence of manipulation", "no evidence found" or
    "inconclusive", with reasons; it is never "real".

    \b
    Exit codes:
      0   no evidence found
      10  evidence of manipulation
      20  inconclusive
      1   a file could not be analyzed, or another error
      2   wrong usage
    With several files 1 outweighs 10, 10 outweighs 20, and 20 outweighs 0.

    \b
    Examples:
      facekit analyze clip.mp4 --out out/report
      facekit analyze photos/ clip.mp4 --out out/report --detector out/run
      facekit analyze photo.jpg --json
    """
    if quiet:
        set_verbosity(0, quiet=True)
    from detectors.analyze import Asked, analyze, load_detector
    from facekit.core.device import setup

    where = setup(device).device
    report = analyze(
        inputs,
        detector=load_detector(detector, where),
        device=where,
        out=out,
        asked=Asked(every=every),
    )
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2, sort_keys=True, ensure_ascii=False))
    elif logging.getLogger("facekit").isEnabledFor(logging.INFO):
        _show(report, out)
    context.exit(report.exit_code)


def _show(report: "Report", out: Path | None) -> None:
    """A short table a file, that can be read without opening anything."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    for file in report.files:
        style = {"evidence of manipulation": "bold red", "inconclusive": "bold yellow"}.get(
            file.verdict.conclusion, "bold blue"
        )
        console.print(f"[bold]{escape(file.path)}[/]  [{style}]{file.verdict.conclusion}[/]")
        console.print(_table(file))
        console.print()
    for error in report.errors:
        console.print(f"[bold]{escape(error.path)}[/]  [bold red]not analyzed[/]")
    if out is not None:
        console.print(f"Report: {escape(str(out / 'report.html'))}", soft_wrap=True)


def _table(file: "FileReport") -> "Table":
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for number, reason in enumerate(file.verdict.reasons):
        table.add_row("" if number else "  why", _plain(reason.text))
    table.add_row("  mark", _plain(_mark(file)))
    table.add_row("  credentials", _plain(_credentials(file)))
    for track in file.tracks[:8]:
        where = f"{track.start:.1f}–{track.end:.1f} s, " if file.facts.kind == "video" else ""
        score = f", score {track.score:.2f}" if track.calibrated and track.score is not None else ""
        text = f"{where}{track.size:.0f} px{score}: {track.verdict.conclusion}"
        table.add_row(f"  face {track.id + 1}", text)
    if len(file.tracks) > 8:
        table.add_row("", f"and {len(file.tracks) - 8} more faces")
    return table


def _mark(file: "FileReport") -> str:
    from detectors.report.text import p_value

    mark = file.watermark
    if mark is None:
        return "left out"
    if mark.status == "present":
        return f"says '{mark.kind}', p {p_value(mark.p_value)}"
    return "none found" if mark.status == "absent" else f"not read: {mark.error}"


def _credentials(file: "FileReport") -> str:
    found = file.provenance
    if found is None:
        return "left out"
    says = f", says '{found.kind}'" if found.kind else ""
    return "none" if found.status == "absent" else f"{found.status}{says}"


def _plain(text: str) -> "Text":
    """Text that rich does not read for markup: it may hold brackets from a file's name."""
    from rich.text import Text

    return Text(text)
