"""Analyze files: gather the evidence on each, judge it, and write one report on all of them.

What a file says of itself is read in ``detectors.evidence``, its faces are followed in
``detectors.walk``, and the rules from evidence to verdict are in ``detectors.verdict``.
"""

import itertools
import logging
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from detectors.evidence import (
    Certificates,
    facts_line,
    provenance_line,
    read_facts,
    read_provenance,
    read_watermark,
    watermark_line,
)
from detectors.faces import Finder
from detectors.localise import Localised, localise
from detectors.report.model import (
    NO_EVIDENCE,
    PARTS,
    SCHEMA,
    Bin,
    Calibrated,
    Certificate,
    DetectorFacts,
    FalsePositives,
    FileError,
    FileFacts,
    FileReport,
    HeatMap,
    Likelihood,
    Origin,
    PartName,
    Provenance,
    Report,
    Sampling,
    Seen,
    Settings,
    Sighting,
    Track,
    Watermark,
)
from detectors.report.pictures import Pictures
from detectors.report.render import render
from detectors.report.text import count, span
from detectors.score import WEIGHTS, Detector
from detectors.uncertainty import interval, likelihood
from detectors.verdict import (
    FEWEST_SIGHTINGS,
    RUN,
    SMALLEST_FACE,
    exit_code,
    goes_by_score,
    is_calibrated,
    judge_file,
    judge_track,
    origin_of,
    scored_by,
    usable,
    worst_first,
    worst_run,
)
from detectors.walk import (
    EVERY,
    LONGEST,
    MIN_FACE,
    Course,
    Moments,
    Walk,
    batches,
    moments,
    samples,
)
from facekit import __version__
from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.core.progress import Bar, progress
from facekit.core.text import spelled
from facekit.faces.embed import Embedder, load_embedder
from facekit.media.decode import MediaInfo, Video, probe
from facekit.media.find import find_media
from facekit.types import Frame

log = logging.getLogger("facekit")

BUNDLED = "default"
"""The name of the bundled detector, where one is."""
FALSE_ALARMS = (2, 45)
"""Untouched files that the bundled detector called forged, and of how many.

The row ``analyze.false_alarms`` of ``facekit bench analyze --data DATA --json``, whose files are
the clips and the test people's photos. It belongs to one detector: measure it anew for another.
"""

LIMITS = (
    "This report never says that a file is real. “No evidence found” means that the checks listed "
    "here found none, on footage that the detector was calibrated for.",
    "Where nothing shows what a file comes from, it is judged as camera footage, if the detector "
    "is calibrated for that. On drawings, renders and screens, and on footage unlike that of its "
    "training, its scores mean little, and the report cannot tell.",
    "A detector errs in both directions, and knows only forgeries like those it was trained on.",
    "The detector's threshold was set on single face pictures, so that at most one in a hundred "
    "untouched ones lies above it. A file is judged by the highest of many scores: "
    f"of {FALSE_ALARMS[1]} untouched files, the bundled detector called {FALSE_ALARMS[0]} "
    "manipulated, and longer files with more faces are flagged more readily.",
    "A watermark is a claim, not a proof: its key is published, so anyone can write one, and "
    "cropping or re-encoding can erase it. That none was found says nothing.",
    "Content credentials show who signed and what they claimed. That there are none says nothing: "
    "most software removes them.",
    f"Only faces of {SMALLEST_FACE} px or more are judged, and only at the moments sampled. Sound, "
    "background, and whether a caption is true are not looked at.",
)

# Of what a detector's card says, what a report repeats, and which of its calibration's ranges.
_CARD = ("plugin", "licence", "seed", "data_hash", "figures", "measured")
_RANGES = ("size", "blur", "compression")
_THREADS = 1  # of every library: see _one_thread
_WORST = 8  # tracks of which heat maps are drawn
_FEW = 8  # frames of a video without upright faces that are searched for others
_LARGE = 32_000_000  # pixels of a picture that is not read twice at a time

Tell = Callable[[str, str], None]
"""Takes a part's name and a line of what was found, as soon as it is known; from any thread."""


def ignore(part: str, line: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Asked:
    """What an analysis is asked to do.

    Attributes:
        every: seconds between two samples of a video.
        max_duration: seconds of a video that are looked at; None: all.
        without: parts of ``detectors.report.model.PARTS`` that are left out. Without faces there
            is nothing to detect, and without detectors nothing to localise.
    """

    every: float = EVERY
    max_duration: float | None = None
    without: frozenset[PartName] = frozenset()

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            FacekitError: for a time that is not above 0, or an unknown part.
        """
        for option, value in (("--every", self.every), ("--max-duration", self.max_duration)):
            if value is not None and not 0 < value < math.inf:
                raise FacekitError(
                    f"{option} {value}: give a number of seconds above 0, e.g. {EVERY}"
                )
        for part in self.without:
            if part not in PARTS:
                raise FacekitError(f"--without {part}: unknown; the parts are {', '.join(PARTS)}")

    @property
    def left_out(self) -> tuple[PartName, ...]:
        """The parts that are left out, with those that need them, in the order of the report."""
        without = set(self.without)
        if "faces" in without:
            without.add("detectors")
        if "detectors" in without:
            without.add("localisation")
        return tuple(part for part in PARTS if part in without)


def analyze(
    inputs: Path | Sequence[Path],
    *,
    detector: Detector | None,
    device: torch.device,
    out: Path | None = None,
    asked: Asked | None = None,
) -> Report:
    """Analyze pictures and videos, and write ``report.json`` and ``report.html``.

    A file that cannot be analyzed is logged and named in ``Report.errors``; the others go on.

    Args:
        inputs: files and folders; each file counts once.
        detector: what scores the faces; None: they are located and shown only.
        device: where to compute.
        out: folder for the report; None writes nothing.
        asked: what to do; None: everything, as usual.

    Raises:
        FacekitError: if ``out`` cannot be written to.
    """
    if out is not None:
        require_folder(out)
    paths, errors = _expand([inputs] if isinstance(inputs, Path) else inputs)
    analyzer = Analyzer(detector, device, asked or Asked())
    found, pictures = [], []
    for number, path in enumerate(paths, start=1):
        title = path.name if len(paths) == 1 else f"{number}/{len(paths)} {path.name}"
        try:
            one, shown = analyzer.file(path, title=title)
        except FacekitError as error:
            errors.append(failed(path, error))
            continue
        found.append(one)
        pictures.append(shown)
    whole = report(found, errors, analyzer)
    if out is not None:
        write(out, whole, pictures)
    return whole


def load_detector(name: str | Path | None, device: torch.device) -> Detector | None:
    """The detector named, else the bundled one; None if there is no bundled one either.

    Raises:
        FacekitError: if the one named cannot be loaded.
    """
    if name is None and not (WEIGHTS / f"{BUNDLED}.json").is_file():
        return None
    return Detector.load(name or BUNDLED, device)


def report(
    files: Sequence[FileReport], errors: Sequence[FileError], analyzer: "Analyzer"
) -> Report:
    """One report on all files, and on those that could not be analyzed."""
    asked = analyzer.asked
    return Report(
        schema=SCHEMA,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        exit_code=exit_code((file.verdict.conclusion for file in files), errors=bool(errors)),
        files=list(files),
        errors=list(errors),
        detector=analyzer.facts,
        settings=Settings(
            parts=[part for part in PARTS if part not in asked.left_out],
            left_out=list(asked.left_out),
            every=asked.every,
            longest=LONGEST,
            max_duration=asked.max_duration,
            smallest_face=SMALLEST_FACE,
            fewest_sightings=FEWEST_SIGHTINGS,
            run=RUN,
            threads=_THREADS,
        ),
        versions=_versions(),
        limits=list(LIMITS),
    )


def write(out: Path, report: Report, pictures: Sequence[Pictures]) -> None:
    """Write ``report.json`` and ``report.html``.

    Args:
        out: a folder.
        report: what was found.
        pictures: one for each of ``report.files``, in the same order.

    Raises:
        FacekitError: if they cannot be written.
    """
    files.write_json(out / "report.json", report.to_json())
    files.write_text(out / "report.html", render(report, pictures))


def require_folder(out: Path) -> None:
    """Make the folder now: an hour's analysis is not to end with "cannot be written".

    Raises:
        FacekitError: if it cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FacekitError(f"--out {out}: cannot be made ({error.strerror})") from error


def failed(path: Path, error: FacekitError) -> FileError:
    """Say what is wrong with a file, in one line, and keep it for the report."""
    log.error("facekit: %s", error)
    return FileError(path=spelled(path), error=str(error).removeprefix(f"{path}: "))


@dataclass(frozen=True)
class _Said:
    """What a file says of itself; None is what was left out."""

    facts: FileFacts
    provenance: Provenance | None
    certificate: Certificate | None
    watermark: Watermark | None


class Analyzer:
    """What is loaded once for all files, when the first of them needs it.

    Attributes:
        detector: what scores the faces, or None.
        facts: on it, for the report; None if there is none, or detectors are left out.
        asked: what to do.
    """

    def __init__(self, detector: Detector | None, device: torch.device, asked: Asked) -> None:
        """Load nothing yet."""
        self.detector = None if "detectors" in asked.left_out else detector
        self.facts = _detector_facts(self.detector) if self.detector else None
        self.asked = asked
        self._device = device
        self._certificates = Certificates()

    @cached_property
    def _finder(self) -> Finder:
        return Finder(self._device, MIN_FACE)

    @cached_property
    def _embedder(self) -> Embedder:
        return load_embedder(self._device)

    def file(
        self, path: Path, *, title: str = "", tell: Tell = ignore, bar: Bar = progress
    ) -> tuple[FileReport, Pictures]:
        """The report on one file, and the pictures for it.

        Args:
            path: a picture or a video.
            title: of the progress bar; the file's name by default.
            tell: is told of each part, in their order, as soon as it is known.
            bar: shows how far it is.

        Raises:
            FacekitError: if it is no picture or video that can be read, or changes meanwhile.
        """
        try:
            with _one_thread():
                return self._file(path, title or path.name, tell, bar)
        except BrokenPipeError:  # of who listens to tell
            raise
        except OSError as error:
            raise FacekitError(f"{path}: not readable ({error.strerror or error})") from error

    def _file(self, path: Path, title: str, tell: Tell, bar: Bar) -> tuple[FileReport, Pictures]:
        info = probe(path)
        before = _state(path)
        errors: list[str] = []
        if "faces" not in self.asked.left_out:
            # Before anything is told: what loading logs is not to come between the findings.
            self._finder, self._embedder  # noqa: B018
        with ThreadPoolExecutor(1) as pool:
            # What the file says of itself takes a core of its own while faces are looked for.
            said_later = pool.submit(self._said, path, info, tell)
            if info.kind == "image" and info.width * info.height > _LARGE:
                said_later.exception()  # one after the other, or memory holds it several times
            length = _length(path, info)
            until = self.asked.max_duration if info.kind == "video" else None
            chosen = moments(length, self.asked.every, until)
            total = 1 if info.kind == "image" else len(chosen.times or ()) or None
            with bar(title, total) as advance:
                walk = self._walk(path, info, length, chosen, errors, advance)
                said, errors[:0] = said_later.result()
                origin = origin_of(said.provenance, said.certificate)
                tracks = self._tracks(walk, origin, info, tell)
                if walk and "localisation" not in self.asked.left_out:
                    advance(walk.frames, "heat maps")
                    tracks = self._with_heat(tracks, walk, errors)
                    tell("localisation", localisation_line(tracks))
        early = _ends_early(info, walk, chosen)
        if early:
            errors.append(early)
        if _state(path) != before:
            raise FacekitError(f"{path}: changed while it was read; analyze it again")
        found = FileReport(
            name=spelled(Path(path.name)),
            path=spelled(path),
            facts=said.facts,
            sampling=Sampling(
                every=self.asked.every if info.kind == "video" else None,
                frames=walk.frames if walk else 0,
                thinned=chosen.stretches is not None,
                stretches=chosen.stretches,
                until=chosen.until,
            ),
            origin=origin,
            verdict=judge_file(
                watermark=said.watermark,
                provenance=said.provenance,
                certificate=said.certificate,
                tracks=tracks,
                detector=self.facts,
                origin=origin,
                ends_early=early,
                until=chosen.until,
                left_out=self.asked.left_out,
            ),
            watermark=said.watermark,
            provenance=said.provenance,
            certificate=said.certificate,
            tracks=tracks,
            errors=errors,
        )
        return found, walk.pictures() if walk else Pictures()

    def _said(self, path: Path, info: MediaInfo, tell: Tell) -> tuple[_Said, list[str]]:
        """What the file says of itself, all but the faces; and what went wrong with it."""
        left_out = self.asked.left_out
        provenance = certificate = watermark = None
        if "provenance" not in left_out:
            provenance = read_provenance(path)
            certificate = self._certificates.of(path)
            tell("provenance", provenance_line(provenance, certificate))
        if "watermark" not in left_out:
            watermark = read_watermark(path)
            tell("watermark", watermark_line(watermark))
        facts, wrong = read_facts(path, info, details="facts" not in left_out)
        if "facts" not in left_out:
            tell("facts", facts_line(facts))
        if watermark and watermark.error:
            wrong.insert(0, f"the watermark could not be read: {watermark.error}")
        if provenance and provenance.status == "not read":
            wrong.insert(0, f"the content credentials could not be checked: {provenance.reason}")
        return _Said(facts, provenance, certificate, watermark), wrong

    def _walk(
        self,
        path: Path,
        info: MediaInfo,
        length: float | None,
        chosen: Moments,
        errors: list[str],
        advance: Callable[[int, str], None],
    ) -> Walk | None:
        """What is seen of a file's faces, which may be turned if none stands upright."""
        if "faces" in self.asked.left_out:
            return None
        advance(0, "faces")
        thorough = info.kind == "image"
        walk = self._walked(samples(path, chosen, errors), thorough, errors, advance)
        if not thorough and not walk.courses and self._lies(path, length):
            errors.clear()
            walk = self._walked(samples(path, chosen, errors), True, errors, advance)
        return walk

    def _walked(
        self,
        frames: Iterator[Frame],
        thorough: bool,
        errors: list[str],
        advance: Callable[[int, str], None],
    ) -> Walk:
        """What is seen of some frames, in which faces stand upright or may be turned."""
        walk = Walk(
            embedder=self._embedder,
            detector=self.detector,
            device=self._device,
            every=self.asked.every,
        )
        locate = self._finder.thorough if thorough else self._finder.upright
        walk.through(frames, locate, advance)
        errors += walk.failures
        return walk

    def _lies(self, path: Path, length: float | None) -> bool:
        """Whether a video without upright faces shows others, by a few of its frames."""
        few = samples(path, moments(length, (length or 0.0) / _FEW or 1.0), [])
        seen = batches(itertools.islice(few, _FEW))
        return any(any(self._finder.thorough([f.pixels for f in batch])) for batch in seen)

    def _tracks(
        self, walk: Walk | None, origin: Origin, info: MediaInfo, tell: Tell
    ) -> list[Track]:
        """The tracks with their scores and verdicts."""
        if walk is None:
            return []
        tracks = [
            self._track(id, course, origin, info) for id, course in sorted(walk.courses.items())
        ]
        tell("faces", faces_line(tracks, walk.frames))
        if "detectors" not in self.asked.left_out:
            line = "no detector was at hand"
            if self.detector is not None:
                line = detectors_line(tracks, self.detector.threshold)
            tell("detectors", line)
        return tracks

    def _track(self, id: int, course: Course, origin: Origin, info: MediaInfo) -> Track:
        sightings, image = course.sightings, info.kind == "image"
        scored = scored_by(sightings, self.facts, image=image)
        stretch = worst_run(scored)
        worst = scored[stretch]
        scores = [sighting.score for sighting in scored if sighting.score is not None]
        score = float(np.mean(scores[stretch])) if worst else None
        verdict = judge_track(
            sightings,
            detector=self.facts,
            origin=origin,
            image=image,
            left_out=self.asked.left_out,
        )
        counts = goes_by_score(verdict)
        return Track(
            id=id,
            person=course.person,
            start=sightings[0].time,
            end=sightings[-1].time,
            seen=_seen(usable(sightings)),
            size=round(float(np.median([sighting.size for sighting in sightings])), 1),
            score=None if score is None else round(score, 6),
            interval=interval(scores, [one.time for one in scored], stretch) if worst else None,
            counts=counts,
            likelihood=self._likelihood(score) if counts and score is not None else None,
            members=_members(worst),
            calibrated=self.facts is not None and is_calibrated(self.facts, origin),
            verdict=verdict,
            sightings=sightings,
        )

    def _with_heat(self, tracks: Sequence[Track], walk: Walk, errors: list[str]) -> list[Track]:
        """The tracks, the worst of them with the heat maps of their strongest frames."""
        if not isinstance(self.detector, Detector):
            return list(tracks)
        drawn: dict[int, list[HeatMap]] = {}
        # Of a face that the detector clears a map would only show where it sees least of nothing.
        worst = [t for t in worst_first(tracks) if t.verdict.conclusion != NO_EVIDENCE][:_WORST]
        for track in worst:
            peaks = walk.courses[track.id].peaks
            for place, peak in enumerate(peaks):
                try:
                    found = localise(self.detector, peak.region)
                except FacekitError as error:
                    errors.append(f"no heat map of face {track.id + 1}: {error}")
                    continue
                if found is not None:
                    heat = _heat_map(found, peak.sighting)
                    drawn.setdefault(track.id, []).append(heat)
                    peaks[place] = replace(peak, crop=replace(peak.crop, heat=heat))
        return [track.model_copy(update={"heat": drawn.get(track.id, [])}) for track in tracks]

    def _likelihood(self, score: float) -> Likelihood | None:
        """What a score is worth; None of a detector whose calibration says nothing of it."""
        if not isinstance(self.detector, Detector):
            return None
        return likelihood(self.detector.calibration, score)


@contextmanager
def _one_thread() -> Iterator[None]:
    """All computes with one thread, so that numbers are the same on any number of cores.

    Several cores are put to use all the same: what is read, decoded, located and scored runs side
    by side, and so do files. Libraries of linear algebra would let a thread for each core wait for
    their next product, at full load: a third of all that a picture takes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    try:
        with threadpool_limits(_THREADS):
            yield
    finally:
        torch.set_num_threads(threads)


def _state(path: Path) -> tuple[int, int]:
    """What tells whether a file has changed."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def faces_line(tracks: Sequence[Track], frames: int) -> str:
    """The faces in a line."""
    people = len({track.person for track in tracks if track.person is not None})
    looked = f"in {count(frames, 'frame')}"
    if not tracks:
        return f"no face {looked}"
    sizes = span((min(t.size for t in tracks), max(t.size for t in tracks)), unit=" px")
    if len(tracks) == 1:
        return f"1 face {looked}, {sizes}"
    whose = f" of {count(people, 'person', 'people')}" if people else ""
    return f"{len(tracks)} faces{whose} {looked}, {sizes}"


def detectors_line(tracks: Sequence[Track], threshold: float) -> str:
    """The highest of the scores that count, in a line."""
    scored = [(track.score, track) for track in tracks if track.score is not None]
    if not scored:
        return "no face large enough to be scored"
    if not any(track.calibrated for _, track in scored):
        return "scored, but the detector is not calibrated for such footage"
    counting = [pair for pair in scored if pair[1].counts]
    if not counting:
        return "scored, but no face was seen often and well enough for its score to count"
    score, track = max(counting, key=lambda pair: pair[0])
    return f"highest score {score:.2f} (face {track.id + 1}), threshold {threshold:.2f}"


def localisation_line(tracks: Sequence[Track]) -> str:
    """What the heat maps are worth, in a line."""
    maps = [heat for track in tracks for heat in track.heat]
    if not maps:
        return "no heat map: no face gave cause for one"
    agree = sum(heat.occlusion.agrees for heat in maps)
    return f"{count(len(maps), 'heat map')}; covering the strongest place tells in {agree}"


def _heat_map(found: Localised, sighting: Sighting) -> HeatMap:
    return HeatMap(
        time=sighting.time,
        index=sighting.index,
        score=sighting.score,
        member=found.member,
        cells=found.cells.round(3).astype(float).round(3).tolist(),
        occlusion=found.occlusion,
    )


def _members(sightings: Sequence[Sighting]) -> dict[str, float]:
    """What each member of the detector says of the sightings that a track is scored by."""
    if not sightings:
        return {}
    return {
        name: round(float(np.mean([sighting.members[name] for sighting in sightings])), 6)
        for name in sightings[0].members
        if all(name in sighting.members for sighting in sightings)
    }


def _seen(sightings: Sequence[Sighting]) -> Seen | None:
    """How well a face was seen, over its usable sightings."""
    if not sightings:
        return None
    ranges = {}
    for name in ("size", "blur", "compression", "occlusion", "yaw", "pitch"):
        values = [getattr(sighting, name) for sighting in sightings]
        known = [value for value in values if value is not None]
        ends = np.percentile(known, [5, 95]).round(3).tolist() if known else None
        ranges[name] = None if ends is None else (ends[0], ends[1])
    return Seen(**ranges)


def _expand(inputs: Sequence[Path]) -> tuple[list[Path], list[FileError]]:
    """The files among ``inputs``, each once; what is missing is an error of its own."""
    found: dict[Path, Path] = {}
    errors = []
    for entry in inputs:
        try:
            for path in find_media([entry]):
                found.setdefault(path.resolve(), path)
        except FacekitError as error:
            errors.append(failed(entry, error))
    return list(found.values()), errors


def _length(path: Path, info: MediaInfo) -> float | None:
    """Seconds that a video's frames last, which need not be what it declares."""
    if info.kind == "image":
        return None
    with Video(path) as video:
        return video.length()


def _ends_early(info: MediaInfo, walk: Walk | None, chosen: Moments) -> str | None:
    """Say so if less was seen than the file declares, or if it went on and nobody knew how long."""
    if walk is None:
        return None
    if chosen.times is None and walk.frames >= LONGEST:
        return (
            f"it does not say how long it lasts; nothing after {walk.last_time:.1f} s was looked at"
        )
    if info.duration is None:
        return None
    end = info.duration if chosen.until is None else min(info.duration, chosen.until)
    apart = end / chosen.stretches if chosen.stretches else chosen.every
    if end - walk.last_time < max(1.0, 3 * apart):
        return None
    return (
        f"its pictures end at {walk.last_time:.1f} s, though it says that it lasts "
        f"{info.duration:.1f} s: it may have been cut off"
    )


def _detector_facts(detector: Detector) -> DetectorFacts:
    ours = isinstance(detector, Detector)
    return DetectorFacts(
        name=detector.facts["name"],
        sha256=detector.facts.get("sha256"),
        calibrated_for=list(detector.calibrated_for),
        threshold=round(float(detector.threshold), 6),
        undecided_from=_undecided_from(detector),
        coverage=detector.calibration.coverage if ours else None,
        members=[part.name for part in detector.parts] if ours else [],
        calibrated=_calibrated(detector) if ours else None,
        facts={key: value for key, value in detector.facts.items() if key in _CARD},
    )


def _calibrated(detector: Detector) -> Calibrated:
    """What its probabilities rest on, and how they did on faces that it had not seen."""
    made = detector.calibration
    measured = detector.facts.get("false_positives")
    return Calibrated(
        method=made.method,
        fpr=made.fpr,
        bounds=made.bounds,
        faces=made.faces,
        ranges={name: ends for name, ends in made.ranges.items() if name in _RANGES},
        reliability=[Bin.model_validate(row) for row in detector.facts.get("reliability") or []],
        false_positives=None if measured is None else FalsePositives.model_validate(measured),
    )


def _undecided_from(detector: Detector) -> float | None:
    """The least probability that generated faces commonly have; None if that is not known."""
    if not isinstance(detector, Detector) or detector.calibration.coverage is None:
        return None
    lowest = np.array([detector.calibration.quantiles[1]])
    return round(float(detector.calibration.probability(lowest)[0]), 6)


def _versions() -> dict[str, str]:
    packages = ("torch", "av", "numpy", "opencv-python-headless", "facenet-pytorch", "c2pa-python")
    found: dict[str, Any] = {name: version(name) for name in packages}
    return {"facekit": __version__, "python": platform.python_version(), **found}
