"""Analyze many files: several at a time, over interruptions, with a summary of a row a file.

Files go through ``detectors.analyze`` one by one. What was found of each goes into a journal in
the report's folder as soon as it is there. The same call reads it again after an interruption and
goes on with what is not done or has changed. The report is made of it at the end, in the order of
the inputs, and is the same but for ``created`` whether it was broken off or not, and whatever the
number of workers.
"""

import csv
import io
import json
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import torch

from detectors import analyze as analysis
from detectors.analyze import Analyzer, Asked, Tell, ignore
from detectors.report.model import SCHEMA, FileError, FileReport, Report
from detectors.report.pictures import Pictures
from facekit import __version__
from facekit.core import files
from facekit.core.device import default_threads, on_host
from facekit.core.errors import FacekitError
from facekit.core.journal import Identity, Journal, identity
from facekit.core.progress import Advance, Bar, progress, set_verbosity
from facekit.core.text import plain, spelled
from facekit.core.workers import WorkerLost, in_order
from facekit.media.find import find_media
from facekit.media.images import IMAGE_SUFFIXES

log = logging.getLogger("facekit")

MOST_WORKERS = 4
"""Processes at most where the user names no number: each takes about a gigabyte."""
PICTURES = 32
"""Pictures that are worth a process; a video always is.

One takes as long to start as ten pictures take; and each picture keeps two cores busy as it is, one
with its faces and one with all else."""
COLUMNS = (
    "path",
    "sha256",
    "verdict",
    "codes",
    "score",
    "faces",
    "mark",
    "credentials",
    "credentials_say",
    "same_as",
    "error",
)
"""Of a summary's rows, see :func:`summary`."""

_JOURNAL = ".analyze.part"
_LOST = (
    "the system ended its analysis, perhaps for lack of memory, or it crashed; analyze it by itself"
)

Inputs = dict[Path, str | None]
"""Files, each once and in order; of inputs that are none, what is wrong with them."""
Done = Callable[[int, FileReport | FileError], None]
"""Takes the place among the inputs, from 0, and what came of it."""


def gather(inputs: Sequence[Path]) -> Inputs:
    """The files that are meant by files, folders and patterns.

    A file that is named twice, or through a link, counts once, under its first name. Copies of a
    file count each: where a file lies may say something of it.
    """
    found: Inputs = {}
    seen: set[Path] = set()
    for entry in inputs:
        try:
            for path in find_media([entry]):
                place = path.resolve()
                if place not in seen:
                    seen.add(place)
                    found[path] = None
        except (FacekitError, OSError) as error:
            found.setdefault(entry, _said(entry, error))
    return found


def workers_for(inputs: Inputs, device: torch.device) -> int:
    """How many processes are worth it: none beside this one (1) for a few pictures."""
    if not on_host(device):
        return 1
    pictures = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in inputs)
    worth = len(inputs) - pictures + pictures // PICTURES
    return max(1, min(worth, default_threads(), MOST_WORKERS))


def run(
    inputs: Inputs,
    *,
    detector: str | None,
    device: torch.device,
    asked: Asked,
    out: Path | None = None,
    workers: int | None = None,
    tell: Tell = ignore,
    done: Done = lambda place, found: None,
) -> Report:
    """Analyze files, and write a report and a summary on all of them.

    Args:
        inputs: of :func:`gather`. One that cannot be analyzed is logged, and named in the report.
        detector: a run folder or a bundled detector's name; None: the bundled one.
        device: where to compute.
        asked: what to do.
        out: folder for ``report.json``, ``report.html``, ``summary.jsonl`` and ``summary.csv``;
            None writes nothing.
        workers: processes; 1 is this one, None chooses.
        tell: is told, part by part, what is found of the files that this process analyzes.
        done: is told of each file when it is done, in their order; also of those that an
            interrupted call had done.

    Raises:
        FacekitError: if ``out`` cannot be written, another call writes it now, or an interrupted
            one had other settings; if the detector cannot be loaded; if workers cannot start.
    """
    if out is not None:
        analysis.require_folder(out)
    analyzer = Analyzer(analysis.load_detector(detector, device), device, asked)
    with _journal(out, _settings(analyzer, device)) as journal:
        reports = {path: _kept(journal, path) for path in inputs if journal and journal.has(path)}
        errors: dict[Path, FileError] = {}
        todo = [path for path, wrong in inputs.items() if wrong is None and path not in reports]
        if reports:
            log.info("%s: goes on; %d of %d files are done", out, len(reports), len(inputs))
        count = min(workers or workers_for(inputs, device), len(todo))
        setup = _Setup(detector, device, asked)
        with _bar(inputs) as (bar, advance):
            fresh = (
                _in_workers(todo, setup, count)
                if count > 1
                else (_one(analyzer, path, tell, bar) for path in todo)
            )
            for place, (path, wrong) in enumerate(inputs.items()):
                if wrong is None and path not in reports:
                    advance(place, plain(path.name))
                    outcome = next(fresh)
                    if outcome.found is not None:
                        reports[path] = outcome.found
                        _keep(journal, path, outcome)
                    wrong = outcome.error
                if wrong is not None:
                    log.error("facekit: %s", plain(f"{path}: {wrong}"))
                    errors[path] = FileError(path=spelled(path), error=plain(wrong))
                advance(place + 1, "")
                done(place, errors.get(path) or reports[path])
        found = [path for path in inputs if path not in errors]
        whole = analysis.report([reports[path] for path in found], list(errors.values()), analyzer)
        if out is not None and journal is not None:
            rows = summary([errors.get(path) or reports[path] for path in inputs])
            files.write_jsonl(out / "summary.jsonl", rows)
            files.write_text(out / "summary.csv", as_csv(rows))
            analysis.write(out, whole, [_pictures(journal, path) for path in found])
            journal.remove()
    return whole


def summary(found: Sequence[FileReport | FileError]) -> list[dict[str, Any]]:
    """A row for each file, with :data:`COLUMNS`.

    ``codes`` are those of the verdict's reasons; ``score`` is the highest of its faces, of those
    whose score counts; ``mark`` and ``credentials`` are "none", "not read",
    "left out" or what was found; ``same_as`` is the path of an earlier file with the same content.
    What does not apply is null.
    """
    rows: list[dict[str, Any]] = []
    first: dict[str, str] = {}
    for one in found:
        row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"path": one.path}
        if isinstance(one, FileError):
            row |= {"error": one.error, "codes": []}
        else:
            digest = one.facts.sha256
            scores = [track.score for track in one.tracks if track.counts]
            row |= {
                "sha256": digest,
                "verdict": one.verdict.conclusion,
                "codes": [reason.code for reason in one.verdict.reasons],
                "score": max((score for score in scores if score is not None), default=None),
                "faces": len(one.tracks),
                "mark": mark_in_brief(one),
                "credentials": credentials_in_brief(one),
                "credentials_say": one.provenance.kind if one.provenance else None,
                "same_as": first.get(digest),
            }
            first.setdefault(digest, one.path)
        rows.append(row)
    return rows


def mark_in_brief(found: FileReport) -> str:
    """The mark's kind; "undecoded" for one too weak to be read; "none", "not read", "left out"."""
    mark = found.watermark
    if mark is None:
        return "left out"
    if mark.status == "present":
        return mark.kind or "undecoded"
    return "none" if mark.status == "absent" else "not read"


def credentials_in_brief(found: FileReport) -> str:
    """The state of the content credentials; "none" or "left out" where there is none."""
    if found.provenance is None:
        return "left out"
    return "none" if found.provenance.status == "absent" else found.provenance.status


def as_csv(rows: Iterable[dict[str, Any]]) -> str:
    """Rows of :func:`summary` as CSV (RFC 4180, but lines end in a line feed), with a header.

    What a spreadsheet would take for a formula gets an apostrophe before it: names of files and
    what credentials say may come from anybody.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value


@dataclass(frozen=True)
class _Setup:
    """What a worker needs to know."""

    detector: str | None
    device: torch.device
    asked: Asked


@dataclass(frozen=True)
class _Outcome:
    """What came of a file: a report and its pictures, or what was wrong."""

    found: FileReport | None = None
    pictures: Pictures | None = None
    error: str | None = None
    identity: Identity = None  # of the file before it was read


@contextmanager
def _bar(inputs: Inputs) -> Iterator[tuple[Bar, Advance]]:
    """The bar of the whole batch, and what shows a file's own: a lone file's is the only one."""
    if len(inputs) == 1:
        yield progress, lambda done, note: None
        return
    with progress("analyzing", len(inputs)) as advance:
        ready = 0

        def whole(done: int, note: str) -> None:
            nonlocal ready
            ready = done
            advance(ready, note)

        @contextmanager
        def within(title: str, total: int | None) -> Iterator[Advance]:
            yield lambda done, note: advance(ready, f"{title}: {note}")

        yield within, whole


def _in_workers(paths: Sequence[Path], setup: _Setup, workers: int) -> Generator[_Outcome]:
    """What comes of each file, in order, over the death of workers.

    A damaged file may take its process along, or be too large for the memory. Which of those under
    way it was cannot be told, so these go one at a time then.
    """
    todo = list(paths)
    careful = 0  # so many of the next go one at a time
    while todo:
        chosen, at_once = (todo[:careful], 1) if careful else (list(todo), workers)
        jobs = [(setup, path) for path in chosen]
        try:
            with closing(in_order(_work, jobs, at_once, start=_start)) as outcomes:
                for outcome in outcomes:
                    del todo[0]
                    careful = max(0, careful - 1)
                    yield outcome
        except WorkerLost:
            if not careful:
                careful = 2 * workers  # as many may have been under way
                continue
            del todo[0]
            careful -= 1
            yield _Outcome(error=_LOST)


def _start() -> None:
    """In a worker: one thread, and no bars; what goes wrong is still said."""
    cv2.setNumThreads(1)
    set_verbosity(0, quiet=True)


def _work(job: tuple[_Setup, Path]) -> _Outcome:
    setup, path = job
    return _one(_analyzer(setup), path)


@lru_cache(maxsize=1)
def _analyzer(setup: _Setup) -> Analyzer:
    """A worker's own."""
    detector = analysis.load_detector(setup.detector, setup.device)
    return Analyzer(detector, setup.device, setup.asked)


def _one(analyzer: Analyzer, path: Path, tell: Tell = ignore, bar: Bar = progress) -> _Outcome:
    """What comes of a file; whatever is wrong with it stops no other."""
    before = identity(path)
    try:
        found, pictures = analyzer.file(path, title=plain(path.name), tell=tell, bar=bar)
    except (FacekitError, OSError) as error:
        return _Outcome(error=_said(path, error), identity=before)
    except Exception as error:  # of thousands of files, one that facekit trips over ends no batch
        log.exception("facekit: %s: an error in facekit itself", plain(str(path)))
        said = f"an error in facekit itself ({type(error).__name__}: {error}); please report it"
        return _Outcome(error=said, identity=before)
    return _Outcome(found, pictures, identity=before)


def _said(path: Path, error: Exception) -> str:
    """An error in one line, without the path that goes before it anyway."""
    return " ".join(str(error).removeprefix(f"{path}: ").split())


def _settings(analyzer: Analyzer, device: torch.device) -> dict[str, Any]:
    """What a result depends on, beside the file: only what agrees in it is put together."""
    asked = analyzer.asked
    return {
        "schema": SCHEMA,
        "facekit": __version__,
        "detector": analyzer.facts.name if analyzer.facts else None,
        "sha256": analyzer.facts.sha256 if analyzer.facts else None,
        "every": asked.every,
        "max_duration": asked.max_duration,
        "without": list(asked.left_out),
        "device": device.type,
    }


def _journal(out: Path | None, settings: dict[str, Any]) -> AbstractContextManager[Journal | None]:
    """What keeps each file's report, and then its pictures; without a folder there is none.

    Files that could not be analyzed are not kept, but tried again.
    """
    return nullcontext() if out is None else Journal(out / _JOURNAL, settings, out=out)


def _keep(journal: Journal | None, path: Path, outcome: _Outcome) -> None:
    if journal is not None and outcome.found is not None and outcome.pictures is not None:
        journal.write(outcome.found.model_dump(mode="json"))
        journal.write(outcome.pictures.to_json())
        journal.end(path, outcome.identity)


def _kept(journal: Journal, path: Path) -> FileReport:
    return FileReport.model_validate_json(next(journal.lines(path)))


def _pictures(journal: Journal, path: Path) -> Pictures:
    _, pictures = journal.lines(path)
    return Pictures.from_json(json.loads(pictures))
