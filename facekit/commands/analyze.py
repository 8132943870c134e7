"""``facekit analyze``: the evidence on files, as a report."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from facekit.commands import options
from facekit.core.errors import FacekitError, did_you_mean
from facekit.core.progress import set_verbosity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table
    from rich.text import Text

    from detectors.analyze import Asked
    from detectors.report.model import FileError, FileReport, PartName, Report, Track

PARTS = {
    "provenance": "content credentials and the studio's certificate",
    "watermark": "facekit's mark",
    "facts": "how the file was made and stored",
    "faces": "faces, and so all below",
    "detectors": "scores, and so localisation",
    "localisation": "heat maps",
}
"""What can be left out, as in ``detectors.report.model``, which help is not to wait for."""

_STYLES = {"evidence of manipulation": "bold red", "inconclusive": "bold yellow"}
_ORDER = ("evidence of manipulation", "not analyzed", "inconclusive", "no evidence found")
_FACES = 8  # of a file on a terminal
_ROWS = 40  # files in the table on a terminal
_PIPED = 240  # columns


class Parts(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has none
    """Names of parts with commas between them."""

    name = "parts"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """The names; an unknown one is wrong usage."""
        names = tuple(name.strip() for name in value.split(",") if name.strip())
        for name in names:
            if name not in PARTS:
                self.fail(f"no part '{name}'; {did_you_mean(name, PARTS)}", param, ctx)
        return names

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The parts that are not named yet, behind those that are."""
        before, comma, last = incomplete.rpartition(",")
        named = before.split(",")
        return [
            CompletionItem(before + comma + name, help=text)
            for name, text in PARTS.items()
            if name.startswith(last) and name not in named
        ]


@click.command()
@click.argument("inputs", nargs=-1, metavar="FILE...", type=click.Path(path_type=Path))
@click.option(
    "--list",
    "lists",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Also the files that FILE names, one a line; - is standard input.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write report.html, report.json, summary.csv and summary.jsonl there; with --compare "
    "comparison.html and comparison.json.",
)
@click.option(
    "--detector",
    metavar="RUN_OR_NAME",
    type=click.Path(),
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
@click.option(
    "--max-duration",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Look at no more than the beginning of a video.",
)
@click.option(
    "--without",
    multiple=True,
    type=Parts(),
    metavar="PARTS",
    help=f"Leave parts out: {', '.join(PARTS)}. The report says so.",
)
@click.option("--compare", is_flag=True, help="Compare two files instead: what changed, and where.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="Files at a time, each in a process.  [default: by number of files and cores, at most 4]",
)
@options.DEVICE
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, and no more.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.pass_context
def command(
    context: click.Context,
    inputs: tuple[Path, ...],
    lists: tuple[Path, ...],
    out: Path | None,
    detector: str | None,
    every: float,
    max_duration: float | None,
    without: tuple[tuple["PartName", ...], ...],
    compare: bool,
    workers: int | None,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Analyze pictures and videos: what speaks for manipulation, and how well.

    FILE is a file, a folder, or a pattern. Checks content credentials, facekit's watermark and the
    studio's certificate, says how the file was made, follows each face, scores it, and shows where
    the traces are. A verdict is "evidence of manipulation", "no evidence found" or "inconclusive",
    with reasons; it is never "real". No connection is made.

    Give an interrupted command with --out again: it goes on with what is not done.

    \b
    Exit codes:
      0   no evidence found
      10  evidence of manipulation
      20  inconclusive
      1   a file could not be analyzed, or another error
      2   wrong usage
    With several files 1 outweighs 10, 10 outweighs 20, and 20 outweighs 0. With --compare it is 0
    once two files were compared, whatever was found.

    \b
    Examples:
      facekit analyze clip.mp4 --out out/report
      facekit analyze photos/ 'clips/*.mp4' --workers 4 --out out/report
      find evidence -newer seen.txt | facekit analyze --list - --out out/new
      facekit analyze photo.jpg --without provenance,watermark --json
      facekit analyze original.mp4 suspect.mp4 --compare --out out/compared
    """
    if quiet:
        set_verbosity(0, quiet=True)
    if not inputs and not lists:
        raise click.UsageError("give files, folders or patterns, or --list FILE")
    from detectors.analyze import Asked
    from facekit.media.find import listed

    named = [*inputs, *(path for one in lists for path in listed(one))]
    asked = Asked(every, max_duration, frozenset(part for parts in without for part in parts))
    aloud = not as_json and logging.getLogger("facekit").isEnabledFor(logging.INFO)
    if compare:
        for name in ("detector", "every", "max_duration", "without", "workers"):
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--{name.replace('_', '-')} has no effect on --compare")
        _compare(named, device, out, as_json, aloud)
        return
    report = _analyze(named, detector, device, asked, out, workers, aloud)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2, sort_keys=True, ensure_ascii=False))
    context.exit(report.exit_code)


def _compare(named: list[Path], device: str, out: Path | None, as_json: bool, aloud: bool) -> None:
    """Compare two files, and say what is the same and what is not."""
    from detectors.batch import gather
    from detectors.comparison.compare import compare
    from facekit.core.device import resolve

    inputs = gather(named)
    for path, wrong in inputs.items():
        if wrong is not None:
            raise FacekitError(f"{path}: {wrong}")
    if len(inputs) != 2:
        raise click.UsageError(f"--compare takes two files, and not {len(inputs)}")
    found = compare(*inputs, device=resolve(device), out=out)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, sort_keys=True, ensure_ascii=False))
    elif aloud:
        _print(f"{found.source.conclusion}: {found.source.text}")
        for change in found.changes:
            _print(f"  {change.code:<12} {change.text}")
        if out is not None:
            _print(f"Comparison: {out / 'comparison.html'}")


def _analyze(
    named: list[Path],
    detector: str | None,
    device: str,
    asked: "Asked",
    out: Path | None,
    workers: int | None,
    aloud: bool,
) -> "Report":
    """Analyze, say what is found as it comes, and sum it up."""
    from detectors import batch
    from facekit.core.device import resolve

    inputs = batch.gather(named)
    where = resolve(device)
    lone = len(inputs) == 1

    def tell(part: str, line: str) -> None:
        if aloud and lone:
            _print(f"{part:<13} {line}")

    def done(place: int, found: "FileReport | FileError") -> None:
        if aloud and not lone:
            _print(f"{place + 1}/{len(inputs)} {_line(found)}")

    report = batch.run(
        inputs,
        detector=detector,
        device=where,
        asked=asked,
        out=out,
        workers=workers,
        tell=tell,
        done=done,
    )
    if aloud:
        _show(report, out)
    return report


def _print(text: str) -> None:
    """A line on standard output, above the progress bar, as soon as it is known."""
    from facekit.core.text import plain

    # Not click's echo, which writes to the terminal past the bar.
    print(plain(text), flush=True)


def _line(found: "FileReport | FileError") -> str:
    """A file that is done, in a line."""
    from detectors.report.model import FileError

    if isinstance(found, FileError):
        return f"{found.path}: not analyzed"
    return f"{found.path}: {found.verdict.conclusion}, {_count(len(found.tracks), 'face')}"


def _show(report: "Report", out: Path | None) -> None:
    """A short table that can be read without opening anything."""
    from rich.console import Console

    # What is piped has no width: a row stays a line.
    width = None if sys.stdout.isatty() else _PIPED
    console = Console(highlight=False, width=width)
    click.echo()
    if len(report.files) + len(report.errors) == 1:
        for file in report.files:
            console.print(_title(file), soft_wrap=True)
            console.print(_on_one(file))
    else:
        console.print(_on_many(report))
        click.echo(_counts(report))
    if out is not None:
        click.echo(f"Report: {out / 'report.html'}")


def _title(file: "FileReport") -> "Text":
    from rich.text import Text

    from facekit.core.text import plain

    conclusion = file.verdict.conclusion
    name = Text(plain(file.path), "bold")
    return name.append("  ").append(conclusion, _STYLES.get(conclusion, "bold blue"))


def _on_one(file: "FileReport") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from facekit.core.text import plain

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")

    def row(name: str, text: str) -> None:
        table.add_row(f"  {name}", Text(plain(text)))  # rich is to read no markup in it

    for number, reason in enumerate(file.verdict.reasons):
        row("" if number else "why", reason.text)
    row("credentials", _credentials(file))
    row("mark", _mark(file))
    row("file", _file(file))
    for track in sorted(file.tracks, key=lambda track: -(track.score or 0.0))[:_FACES]:
        row(f"face {track.id + 1}", _face(track, file.facts.kind == "video"))
    if len(file.tracks) > _FACES:
        row("", f"and {len(file.tracks) - _FACES} more faces")
    for error in file.errors:
        row("error", error)
    return table


def _on_many(report: "Report") -> "Table":
    """A row a file, the weightiest first."""
    from rich.table import Table
    from rich.text import Text

    from detectors.batch import credentials_in_brief, mark_in_brief
    from facekit.core.text import plain

    base = _common([*report.files, *report.errors])
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(f"in {base}" if base else "file", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for name in ("faces", "score"):
        table.add_column(name, justify="right")
    for name in ("mark", "credentials"):
        table.add_column(name)
    table.add_column("why", no_wrap=True, overflow="ellipsis")
    rows: list[tuple[str, str, list[str]]] = [
        (error.path, "not analyzed", ["", "", "", "", error.error]) for error in report.errors
    ]
    for file in report.files:
        score = max((track.score or 0.0 for track in file.tracks if track.counts), default=None)
        found = [
            str(len(file.tracks)),
            "" if score is None else f"{score:.2f}",
            mark_in_brief(file),
            credentials_in_brief(file),
            next((one.text for one in file.verdict.reasons if one.weight != "note"), ""),
        ]
        rows.append((file.path, file.verdict.conclusion, found))
    rows.sort(key=lambda row: _ORDER.index(row[1]))
    for path, conclusion, cells in rows[:_ROWS]:
        style = _STYLES.get(conclusion, "")
        name = os.path.relpath(path, base) if base else path
        texts = [Text(plain(name), "bold"), Text(conclusion, style), *map(Text, map(plain, cells))]
        table.add_row(*texts)
    return table


def _common(files: "Sequence[FileReport | FileError]") -> str:
    """The folder that all lie in; "" if there is none below which names get shorter."""
    try:
        return os.path.commonpath([Path(file.path).parent for file in files])
    except ValueError:  # some from the root, and some from here
        return ""


def _counts(report: "Report") -> str:
    from collections import Counter

    counted = Counter[str](file.verdict.conclusion for file in report.files)
    counted["not analyzed"] = len(report.errors)
    total = len(report.files) + len(report.errors)
    said = ", ".join(f"{counted[name]} {name}" for name in _ORDER if counted[name])
    more = f" ({_ROWS} of them above)" if total > _ROWS else ""
    return f"{_count(total, 'file')}{more}: {said or 'nothing found'}"


def _face(track: "Track", video: bool) -> str:
    """When and how large, what the detector says of it, and the verdict."""
    parts = [f"{track.start:.1f}–{track.end:.1f} s"] if video else []
    parts.append(f"{track.size:.0f} px")
    if track.counts and track.score is not None:
        within = "" if track.interval is None else " ({:.2f}–{:.2f})".format(*track.interval)
        parts.append(f"score {track.score:.2f}{within}")
        if track.likelihood is not None:
            parts.append(track.likelihood.words)
    return f"{', '.join(parts)}: {track.verdict.conclusion}"


def _file(file: "FileReport") -> str:
    facts = file.facts
    parts = [f"{facts.codec} {facts.width}×{facts.height}"]
    if facts.duration is not None:
        parts.append(f"{facts.duration:.1f} s")
    if facts.rate is not None:
        parts.append(f"{facts.rate:.4g} frames a second")
    return ", ".join([*parts, f"sha256 {facts.sha256}"])


def _mark(file: "FileReport") -> str:
    from detectors.batch import mark_in_brief
    from detectors.report.text import p_value

    mark = file.watermark
    if mark is not None and mark.status == "present":
        return f"says '{mark.kind}', p {p_value(mark.p_value)}"
    if mark is not None and mark.status == "not read":
        return f"not read: {mark.error}"
    return mark_in_brief(file)


def _credentials(file: "FileReport") -> str:
    from detectors.batch import credentials_in_brief

    found = file.provenance
    says = f", says '{found.kind}'" if found is not None and found.kind else ""
    return credentials_in_brief(file) + says


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
