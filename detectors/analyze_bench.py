"""``facekit bench analyze``: how quick, frugal, right and sturdy the analysis of files is.

What is measured is the command that users give, in a process of its own, from its start to its end,
with all evidence on unless it says otherwise. With outside data (``--data DATA``) the clips are
those of ``DATA/video`` and the photos those people of ``DATA/london`` on whom the bundled detector
was not trained; without it a studio clip serves, and rows about photos are left out.

Forgeries are splices of such photos (``detectors.held_out``) and what a command hands in, which
knows the generators. All left through ``facekit.export``, so they bear mark and manifest. They are
analyzed twice: without either, so that only the detectors speak, and with both, which must be read.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from detectors import collections, fuzz, held_out
from detectors.collections import Collection, Entry
from detectors.data import gather
from detectors.fairness import wilson
from detectors.report.model import EVIDENCE, INCONCLUSIVE, FileReport, Report
from detectors.walk import EVERY
from facekit import export
from facekit.core.errors import FacekitError
from facekit.core.figures import Figure
from facekit.core.progress import log, progress
from facekit.datasets import faces_bench
from facekit.media.decode import Video
from facekit.watermark import Kind

PHOTOS = 40
"""Photos of London's test people that are analyzed, and splices of them."""
NOT_FOOTAGE = "a.mp4"
"""Of DATA/video: it may be rendered, so nobody knows what should be said of it."""

_RATE = 30.0
_SHOTS = 300  # of the clip that is shown forwards and backwards, so a round has 598
_SEED = 41
_LONDON = Collection(
    name="london-test", layout="london", path="london", part="second half", label=0
)
_DETECTORS_ALONE = ("--without", "provenance,watermark")
_MARKS_ALONE = ("--without", "facts,faces")
_PEER_SECONDS = 4.0

Swaps = Callable[[Path, bool], list[Path]]
"""Writes forgeries of the project's generators to a folder; few of them if told to be quick."""


@dataclass(frozen=True)
class Run:
    """One call of the command.

    Attributes:
        report: what it wrote.
        seconds: from its start to its end.
        first: from its start to its first line; None if it said nothing.
        peak: GiB that it held at most; None where the system does not tell.
        page: bytes of ``report.html``.
    """

    report: Report
    seconds: float
    first: float | None
    peak: float | None
    page: int


def bench(
    *,
    device: torch.device,
    quick: bool = False,
    data: Path | None = None,
    judge: Path | None = None,
    swaps: Swaps | None = None,
) -> list[Figure]:
    """Measure the analysis of files.

    Args:
        device: where to compute.
        quick: with so little footage and so few files that the figures say little.
        data: folder with ``video/`` and ``london/``, or one of them.
        judge: not used: nothing here asks who somebody is.
        swaps: makes forgeries of the project's generators; None leaves them out.

    Returns:
        Rows ``analyze.…``, as ``docs/analyze.md`` explains them.

    Raises:
        FacekitError: if ``data`` cannot be used, or the command fails.
    """
    if judge is not None:
        raise FacekitError("--judge: the bench 'analyze' takes none; 'faces' does")
    videos, london = faces_bench.outside(data)
    rows: list[Figure] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shots = faces_bench.footage(videos / faces_bench.CLIP if videos else None, quick)
        rows += _video_rows(folder, shots, device, quick)
        entries = _photos(london, 4 if quick else PHOTOS) if london else []
        rows += _picture_rows(folder, [entry.path for entry in entries], videos, device, quick)
        forged = _splices(folder / "splices", entries, device) if entries else []
        made = swaps(folder / "swaps", quick) if swaps else []
        rows += _forgery_rows(folder, forged, made, device, _alarms(rows))
        rows += _fuzz_rows(shots, quick)
    return rows


# --- calling the command ------------------------------------------------------------------------


def call(inputs: Sequence[Path], out: Path, device: torch.device, *options: str) -> Run:
    """Give ``facekit analyze`` in a process of its own, as a user does.

    Args:
        inputs: files.
        out: where it writes its report.
        device: where it computes.
        options: more of its options.

    Raises:
        FacekitError: if it breaks off; it names what the command said last.
    """
    words = ["analyze", *map(str, inputs), "--out", str(out), "--device", str(device), *options]
    began, first = time.monotonic(), None
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as said,
        tempfile.NamedTemporaryFile("r", encoding="utf-8") as status,
    ):
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, status.name, *words],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            encoding="utf-8",
        )
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if first is None and line.strip():
                    first = time.monotonic() - began
        process.wait()
        peak = _peak(status.read())
        seconds = time.monotonic() - began
        said.seek(0)
        last = said.read().strip().splitlines() or ["it said nothing"]
    if not (out / "report.json").is_file():
        raise FacekitError(f"'facekit analyze' broke off (exit {process.returncode}): {last[-1]}")
    report = Report.model_validate_json((out / "report.json").read_bytes())
    return Run(report, seconds, first, peak, (out / "report.html").stat().st_size)


_PROGRAM = """
import atexit, pathlib, sys
place, status = pathlib.Path(sys.argv.pop(1)), pathlib.Path("/proc/self/status")
atexit.register(lambda: status.is_file() and place.write_text(status.read_text()))
from facekit.cli import main
main()
"""
"""The command, which leaves its own account of its memory: what the system tells a parent of its
child counts what the parent held when it started it."""


def _peak(status: str) -> float | None:
    """The GiB that a process held at most, where the system tells; of ``/proc/PID/status``."""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / (1 << 20)
    return None


# --- video --------------------------------------------------------------------------------------


def _video_rows(
    folder: Path, shots: Sequence[Any], device: torch.device, quick: bool
) -> list[Figure]:
    """Speed, first line, memory and the page's size, on one minute and on ten."""
    loop = folder / "round.mp4"
    frames = 12 if quick else 2 * min(len(shots), _SHOTS) - 2
    faces_bench.compose(loop, shots, faces_bench.FULL_HD, rate=_RATE, frames=frames)
    minute, ten = folder / "minute.mp4", folder / "ten.mp4"
    seconds = {minute: _repeat(loop, minute, 2.0 if quick else 60.0)}
    if not quick:
        seconds[ten] = _repeat(loop, ten, 600.0)
    runs = {}
    with progress("analyzing 1080p", len(seconds)) as advance:
        for path in seconds:
            runs[path] = call([path], folder / f"out-{path.stem}", device)
            advance(len(runs), path.stem)
    peer = _peer_speed(minute, device, 0.4 if quick else _PEER_SECONDS)
    speed = {path: length / runs[path].seconds for path, length in seconds.items()}
    rows = [Figure("analyze.realtime_1080p", speed[minute], "× real time", peer=peer)]
    if ten in runs:
        rows.append(Figure("analyze.realtime_10min", speed[ten], "× real time", peer=peer))
    firsts = [run.first for run in runs.values() if run.first is not None]
    if firsts:
        rows.append(Figure("analyze.first_line_s", max(firsts), "s"))
    peaks = {path: run.peak for path, run in runs.items() if run.peak is not None}
    if peaks:
        rows.append(Figure("analyze.peak_gib", max(peaks.values()), "GiB"))
        rows.append(Figure("analyze.peak_1min_gib", peaks[minute], "GiB"))
        if ten in peaks:
            rows.append(Figure("analyze.peak_10min_gib", peaks[ten], "GiB"))
    longest = list(runs.values())[-1]
    rows.append(Figure("analyze.page_mb", longest.page / 1e6, "MB"))
    return rows


def _repeat(source: Path, path: Path, seconds: float) -> float:
    """Write a clip's packets over and over, without coding them again; the seconds it then lasts.

    Each round begins with a key frame, so that nothing leans on the round before.
    """
    with av.open(str(source)) as clip:
        stream = clip.streams.video[0]
        packets = [
            (packet.pts, packet.dts, packet.duration, packet.is_keyframe, bytes(packet))
            for packet in clip.demux(stream)
            if packet.size
        ]
        base = stream.time_base
        assert base is not None
        last = max(pts + (duration or 0) for pts, _, duration, _, _ in packets)  # type: ignore[operator]
        rounds = max(1, round(seconds / float(last * base)))
        with av.open(str(path), "w") as out:
            copy = out.add_stream_from_template(stream)
            for number in range(rounds):
                for pts, dts, duration, is_key, content in packets:
                    packet = av.Packet(content)
                    packet.stream, packet.time_base, packet.is_keyframe = copy, base, is_key
                    packet.pts = pts + number * last  # type: ignore[operator]
                    packet.dts = dts + number * last  # type: ignore[operator]
                    packet.duration = duration
                    out.mux(packet)
    return float(Fraction(rounds * last) * base)


def _peer_speed(path: Path, device: torch.device, seconds: float) -> float:
    """How many times real time facenet-pytorch's MTCNN is on the frames that are sampled.

    It finds faces in each sampled frame, shrunk as facekit shrinks it, and does nothing else.
    """
    peer = faces_bench.Peer(device)
    began = time.perf_counter()
    with Video(path) as video:
        for frame in video.frames(list(np.arange(0, seconds, EVERY))):
            peer.boxes([frame.pixels])
    return seconds / (time.perf_counter() - began)


# --- untouched files ----------------------------------------------------------------------------


def _photos(london: Path, count: int) -> list[Entry]:
    """Photos of test people, evenly spread over them."""
    entries = sorted(collections.read([_LONDON], london.parent), key=lambda entry: entry.path)
    count = min(count, len(entries))
    return [entries[k * len(entries) // count] for k in range(count)]


def _picture_rows(
    folder: Path, photos: Sequence[Path], videos: Path | None, device: torch.device, quick: bool
) -> list[Figure]:
    rows = []
    runs = []
    if photos:
        runs.append(call(photos, folder / "out-photos", device))
        speed = len(photos) / runs[0].seconds
        rows.append(Figure("analyze.pictures_per_s", speed, "pictures/s"))
    if videos:
        clips = sorted(path for path in videos.glob("*.mp4") if path.name != NOT_FOOTAGE)
        few = ("--max-duration", "1") if quick else ()
        runs.append(call(clips, folder / "out-clips", device, *few))
    reports = [report for run in runs for report in _analyzed(run)]
    if reports:
        alarms = [report for report in reports if report.verdict.conclusion == EVIDENCE]
        for report in alarms:
            log.info("false alarm: %s: %s", report.path, report.verdict.reasons[0].text)
        unit = f"of {len(reports)} files"
        rows.append(Figure("analyze.false_alarms", float(len(alarms)), unit))
    return rows


def _alarms(rows: Sequence[Figure]) -> float | None:
    """The share of untouched files called forged, if there were any files."""
    for row in rows:
        if row.name == "analyze.false_alarms":
            return row.value / int(row.unit.split()[1])
    return None


def _analyzed(run: Run) -> list[FileReport]:
    """The reports of all files.

    Raises:
        FacekitError: if one could not be analyzed: all of them are sound.
    """
    for error in run.report.errors:
        raise FacekitError(f"{error.path}: could not be analyzed ({error.error})")
    return run.report.files


# --- forgeries ----------------------------------------------------------------------------------


def _splices(folder: Path, entries: Sequence[Entry], device: torch.device) -> list[Path]:
    """Splices of test people, each in half of the kinds' turns, written as all that is made."""
    faces = gather(collections.samples(entries), device=device)
    random = np.random.default_rng(_SEED)
    written = []
    for k, kind in enumerate(("splice", "part")):
        spliced = held_out.splices(faces, random, [kind])
        for number, region in islice(enumerate(spliced.regions), k, None, 2):
            path = folder / f"{kind}-{number:02d}.jpg"
            written.append(export.write_image(path, region.pixels, kind=Kind.COMPOSITE).path)
    return written


def _forgery_rows(
    folder: Path,
    splices: Sequence[Path],
    swaps: Sequence[Path],
    device: torch.device,
    alarms: float | None,
) -> list[Figure]:
    """Which forgeries the detectors flag by themselves, and which marks and manifests are read."""
    files = [*splices, *swaps]
    if not files:
        return []
    alone = _analyzed(call(files, folder / "out-alone", device, *_DETECTORS_ALONE))
    marked = _analyzed(call(files, folder / "out-marked", device, *_MARKS_ALONE))
    flags = np.array([report.verdict.conclusion == EVIDENCE for report in alone])
    rows = [_share("analyze.flagged", flags, floor=alarms)]
    if splices and swaps:
        rows.append(_share("analyze.flagged_splices", flags[: len(splices)], floor=alarms))
        rows.append(_share("analyze.flagged_swaps", flags[len(splices) :], floor=alarms))
    unsound = [report for report in alone if not is_sound(report)]
    for report in unsound:
        log.info("missed: %s: %s", report.path, report.verdict.conclusion)
    rows.append(Figure("analyze.unsound", float(len(unsound)), f"of {len(files)} files"))
    known = np.array([is_recognised(report) for report in marked])
    rows.append(_share("analyze.recognised", known))
    return rows


def is_sound(report: FileReport) -> bool:
    """Whether a forgery was flagged, or a verdict withheld for a reason."""
    verdict = report.verdict
    withheld = any(reason.weight == "abstention" for reason in verdict.reasons)
    return verdict.conclusion == EVIDENCE or (verdict.conclusion == INCONCLUSIVE and withheld)


def is_recognised(report: FileReport) -> bool:
    """Whether mark and manifest were read, are intact, and say the same kind."""
    mark, manifest = report.watermark, report.provenance
    if mark is None or manifest is None or mark.status != "present":
        return False
    intact = manifest.status in ("trusted", "untrusted")
    return intact and manifest.kind is not None and mark.kind in (manifest.kind, None)


def _share(name: str, hits: "np.typing.NDArray[np.bool_]", floor: float | None = None) -> Figure:
    low, high = wilson(hits.astype(np.int64), np.ones(len(hits), np.int64))
    return Figure(name, float(hits.mean()), f"of {len(hits)} files", low, high, floor=floor)


# --- damaged files ------------------------------------------------------------------------------


def _fuzz_rows(shots: Sequence[Any], quick: bool) -> list[Figure]:
    workers = 1 if quick else max(1, len(os.sched_getaffinity(0)))
    count = 30 if quick else fuzz.COUNT
    outcome = fuzz.fuzz(list(islice(_spread(shots), 12)), count=count, workers=workers)
    log.info("%s", fuzz.summary(outcome))
    rows = [
        Figure("analyze.fuzz_failures", float(len(outcome.failures)), f"of {outcome.files} files"),
        Figure("analyze.fuzz_slowest_s", outcome.slowest, "s"),
    ]
    if outcome.peak is not None:
        rows.append(Figure("analyze.fuzz_peak_gib", outcome.peak, "GiB"))
    return rows


def _spread(shots: Sequence[Any]) -> Iterator[Any]:
    """Twelve shots at most, evenly spaced."""
    yield from shots[:: max(1, len(shots) // 12)]
