"""Analyze files: gather the evidence on each, judge it, and write one report on all of them.

A video is sampled by time; it is decoded, searched and scored in small batches, so that memory
does not grow with its length. The rules from evidence to verdict are in ``detectors.verdict``.
"""

import itertools
import logging
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from detectors.faces import Finder, Outcome, at_least_apart, score_each
from detectors.regions import Region, cut
from detectors.report.model import (
    SCHEMA,
    Certificate,
    DetectorFacts,
    FileError,
    FileFacts,
    FileReport,
    Origin,
    Provenance,
    Report,
    Sampling,
    Settings,
    Sighting,
    Track,
    Watermark,
)
from detectors.report.render import Box, Crop, Pictures, render
from detectors.score import WEIGHTS, Detector
from detectors.verdict import (
    FEWEST_SIGHTINGS,
    RUN,
    SMALLEST_FACE,
    exit_code,
    is_calibrated,
    is_usable,
    judge_file,
    judge_track,
    origin_of,
    track_score,
    worst_stretch,
)
from facekit import __version__
from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.faces.align import align_faces
from facekit.faces.track import Tracker
from facekit.media.decode import MediaInfo, Video, probe
from facekit.media.find import find_media
from facekit.media.images import encode_image, is_image, read_image
from facekit.provenance import manifest
from facekit.studio import certificate
from facekit.types import AlignedFace, Face, Frame, Pixels
from facekit.watermark.files import read_file

log = logging.getLogger("facekit")

EVERY = 0.2
"""Seconds between two samples of a video, unless asked otherwise."""
LONGEST = 3000
"""Samples of one video at most: ten minutes at the default rate; longer ones are thinned."""
BUNDLED = "default"
"""The name of the bundled detector, where one is."""
LIMITS = (
    "This report never says that a file is real. “No evidence found” means that the checks listed "
    "here found none, on footage that the detector was calibrated for.",
    "Where nothing shows what a file comes from, it is judged as camera footage, if the detector "
    "is calibrated for that. On drawings, renders and screens, and on footage unlike that of its "
    "training, its scores mean little, and the report cannot tell.",
    "A detector errs in both directions, and knows only forgeries like those it was trained on.",
    "The detector's threshold was set on single face pictures, so that at most one in a hundred "
    "untouched ones lies above it. A file is judged by the highest of many scores: how often an "
    "untouched file is called forged has not been measured, and it grows with the file's length "
    "and the number of faces.",
    "A watermark is a claim, not a proof: its key is published, so anyone can write one, and "
    "cropping or re-encoding can erase it. That none was found says nothing.",
    "Content credentials show who signed and what they claimed. That there are none says nothing: "
    "most software removes them.",
    f"Only faces of {SMALLEST_FACE} px or more are judged, and only at the moments sampled. Sound, "
    "background, and whether a caption is true are not looked at.",
)

_BATCH = 8  # frames that are held, searched and scored together
_MIN_FACE = 40  # pixels; faces from here up are shown, those from SMALLEST_FACE up are judged
_CROP = 128  # pixels of the crops shown
_EVEN_CROPS = 6  # of a track, beside its lowest and its highest score
_FEW = 8  # frames of a video without upright faces that are searched for others
_OVERVIEW = 640  # pixels of the longer side


def analyze(
    inputs: Path | Sequence[Path],
    *,
    detector: Detector | None,
    device: torch.device,
    out: Path | None = None,
    every: float = EVERY,
) -> Report:
    """Analyze pictures and videos, and write ``report.json`` and ``report.html``.

    A file that cannot be analyzed is logged and named in ``Report.errors``; the others go on.

    Args:
        inputs: files and folders; each file counts once.
        detector: what scores the faces; None: they are located and shown only.
        device: where to compute.
        out: folder for the report; None writes nothing.
        every: seconds between two samples of a video.

    Raises:
        FacekitError: if ``every`` is not a positive number or ``out`` cannot be written to.
    """
    if not 0 < every < float("inf"):
        raise FacekitError(f"--every {every}: give a number of seconds above 0, e.g. {EVERY}")
    if out is not None:
        _require_folder(out)
    paths, errors = _expand([inputs] if isinstance(inputs, Path) else inputs)
    analyzer = _Analyzer(detector, device, every)
    reports, pictures = [], []
    for number, path in enumerate(paths, start=1):
        title = path.name if len(paths) == 1 else f"{number}/{len(paths)} {path.name}"
        try:
            one, shown = analyzer.file(path, title)
        except FacekitError as error:
            errors.append(_failed(path, error))
            continue
        reports.append(one)
        pictures.append(shown)
    report = Report(
        schema=SCHEMA,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        exit_code=exit_code((file.verdict.conclusion for file in reports), errors=bool(errors)),
        files=reports,
        errors=errors,
        detector=analyzer.facts,
        settings=Settings(
            every=every,
            longest=LONGEST,
            smallest_face=SMALLEST_FACE,
            fewest_sightings=FEWEST_SIGHTINGS,
            run=RUN,
            threads=torch.get_num_threads(),
        ),
        versions=_versions(),
        limits=list(LIMITS),
    )
    if out is not None:
        files.write_json(out / "report.json", report.to_json())
        files.write_text(out / "report.html", render(report, pictures))
    return report


def load_detector(name: str | Path | None, device: torch.device) -> Detector | None:
    """The detector named, else the bundled one; None if there is no bundled one either.

    Raises:
        FacekitError: if the one named cannot be loaded.
    """
    if name is None and not (WEIGHTS / f"{BUNDLED}.json").is_file():
        return None
    return Detector.load(name or BUNDLED, device)


class _Analyzer:
    """What is loaded once for all files."""

    def __init__(self, detector: Detector | None, device: torch.device, every: float) -> None:
        self.detector = detector
        self.facts = _detector_facts(detector) if detector else None
        self.device = device
        self.every = every
        self.finder = Finder(device, _MIN_FACE)
        self.certified: dict[Path, dict[str, str] | str] = {}  # hashes by name, or what is wrong

    def certificate(self, path: Path) -> Certificate:
        """Whether a studio certificate, in the file's folder or the one above, covers the file."""
        real = path.resolve()
        folders = [real.parent, real.parent.parent]
        folder = next((f for f in folders if (f / certificate.CERTIFICATE).is_file()), None)
        if folder is None:
            return Certificate(status="absent", reason="it does not lie in a studio folder")
        # A folder is checked once: its pictures are hashed, and some of them rendered again.
        if folder not in self.certified:
            try:
                self.certified[folder] = certificate.verify(folder).files
            except FacekitError as error:
                self.certified[folder] = str(error)
        found = self.certified[folder]
        if isinstance(found, str):
            return Certificate(status="invalid", reason=found)
        if found.get(real.relative_to(folder).as_posix()) != files.sha256(path):
            return Certificate(status="invalid", reason="the certificate does not list this file")
        return Certificate(
            status="valid", reason="the file matches it, and pictures rendered again match as well"
        )

    def file(self, path: Path, title: str) -> tuple[FileReport, Pictures]:
        """The report on one file, and the pictures for it.

        Raises:
            FacekitError: if it is no picture or video that can be read, or changes meanwhile.
        """
        info = probe(path)
        before = path.stat()
        length = _length(path, info)
        every = _spacing(length, self.every)
        total = 1 if info.kind == "image" else len(_times(length, every)) or None
        with progress(title, total) as advance:
            advance(0, "mark")
            watermark = _read_watermark(path)
            advance(0, "content credentials")
            provenance = _read_provenance(path)
            advance(0, "certificate")
            certified = self.certificate(path)
            advance(0, "faces")
            upright = info.kind == "video"
            walk = self._walk(_samples(path, length, every), upright, advance)
            if upright and not walk.tracker.tracks and self._lies(path, length):
                walk = self._walk(_samples(path, length, every), False, advance)
        after = path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise FacekitError(f"{path}: changed while it was read; analyze it again")
        origin = origin_of(provenance, certified)
        tracks = walk.tracks(origin, info)
        report = FileReport(
            name=path.name,
            path=str(path),
            facts=_file_facts(path, info),
            sampling=Sampling(
                every=every if info.kind == "video" else None,
                frames=walk.frames,
                thinned=every > self.every,
            ),
            origin=origin,
            verdict=judge_file(
                watermark=watermark,
                provenance=provenance,
                certificate=certified,
                tracks=tracks,
                detector=self.facts,
                origin=origin,
                ends_early=_ends_early(info, walk.last_time, every),
            ),
            watermark=watermark,
            provenance=provenance,
            certificate=certified,
            tracks=tracks,
        )
        return report, walk.pictures()

    def _walk(
        self, frames: Iterator[Frame], upright: bool, advance: Callable[[int, str], None]
    ) -> "_Walk":
        """What is seen of some frames, in which faces stand upright or may be turned."""
        walk = _Walk(self, self.finder.upright if upright else self.finder.thorough)
        for batch in _batches(frames):
            walk.add(batch)
            advance(walk.frames, "faces")
        return walk

    def _lies(self, path: Path, length: float | None) -> bool:
        """Whether a video without upright faces shows others, by a few of its frames."""
        few = _samples(path, length, (length or 0.0) / _FEW or 1.0)
        batches = _batches(itertools.islice(few, _FEW))
        return any(any(self.finder.thorough([f.pixels for f in batch])) for batch in batches)


class _Walk:
    """The faces of one file, gathered batch by batch."""

    def __init__(
        self, analyzer: _Analyzer, locate: Callable[[Sequence[Pixels]], list[list[Face]]]
    ) -> None:
        self.analyzer = analyzer
        self.locate = locate
        self.tracker = Tracker()
        self.outcomes: dict[int, list[Outcome]] = {}
        self.albums: dict[int, _Album] = {}
        self.overview: tuple[Frame, list[Face], list[int]] | None = None
        self.frames = 0
        self.last_time = 0.0

    def add(self, frames: Sequence[Frame]) -> None:
        """Locate, track, cut and score the faces of some frames."""
        analyzer = self.analyzer
        shown: list[AlignedFace] = []
        regions: list[Region] = []
        seen: list[tuple[int, float]] = []
        located = self.locate([frame.pixels for frame in frames])
        for frame, faces in zip(frames, located, strict=True):
            ids = self.tracker.update(faces, frame.time, frame.index)
            seen += [(track, frame.time) for track in ids]
            shown += align_faces(
                frame.pixels, faces, template="wide", size=_CROP, device=analyzer.device
            )
            regions += [cut(frame.pixels, face) for face in faces]
            if self.overview is None or len(faces) > len(self.overview[1]):
                self.overview = (frame, faces, ids)
        for (track, time), face, outcome in zip(seen, shown, self._score(regions), strict=True):
            self.outcomes.setdefault(track, []).append(outcome)
            album = self.albums.setdefault(track, _Album())
            album.add(time, outcome.probability, face.pixels)
        self.frames += len(frames)
        self.last_time = frames[-1].time

    def tracks(self, origin: Origin, info: MediaInfo) -> list[Track]:
        """The tracks with their scores and verdicts."""
        facts = self.analyzer.facts
        found = []
        for track in self.tracker.tracks:
            sightings = [
                Sighting(
                    time=round(sighting.time, 4),
                    index=sighting.index,
                    box=tuple(round(float(edge), 1) for edge in sighting.face.box),
                    size=round(sighting.face.size, 1),
                    located=round(min(1.0, sighting.face.score), 4),
                    score=outcome.probability,
                )
                for sighting, outcome in zip(track.sightings, self.outcomes[track.id], strict=True)
            ]
            score = track_score(sightings)
            found.append(
                Track(
                    id=track.id,
                    start=sightings[0].time,
                    end=sightings[-1].time,
                    size=round(float(np.median([sighting.size for sighting in sightings])), 1),
                    score=None if score is None else round(score, 6),
                    members=_members(sightings, self.outcomes[track.id]),
                    calibrated=facts is not None and is_calibrated(facts, origin),
                    verdict=judge_track(
                        sightings, detector=facts, origin=origin, image=info.kind == "image"
                    ),
                    sightings=sightings,
                )
            )
        return found

    def pictures(self) -> Pictures:
        """What the report shows of the file."""
        crops = {track: album.crops() for track, album in self.albums.items()}
        if self.overview is None:
            return Pictures(crops=crops)
        frame, faces, ids = self.overview
        return Pictures(
            overview=encode_image(_shrunk(frame.pixels), ".jpg", quality=80),
            boxes=[_box(face, track, frame.pixels) for face, track in zip(faces, ids, strict=True)],
            overview_time=frame.time,
            crops=crops,
        )

    def _score(self, regions: Sequence[Region]) -> list[Outcome]:
        """What the detector says of each face."""
        if self.analyzer.detector is None:
            return [Outcome() for _ in regions]
        outcomes = score_each(self.analyzer.detector, regions)
        for reason in {outcome.reason for outcome in outcomes} - {""}:
            log.warning("%s", reason)
        return outcomes


def _members(sightings: Sequence[Sighting], outcomes: Sequence[Outcome]) -> dict[str, float]:
    """What each member of the detector says of the stretch that a track is scored by."""
    stretch = worst_stretch(sightings)
    if stretch is None:
        return {}
    good = [
        outcome
        for sighting, outcome in zip(sightings, outcomes, strict=True)
        if is_usable(sighting)
    ]
    chosen = [outcome.members for outcome in good[stretch]]
    return {
        name: round(float(np.mean([members[name] for members in chosen])), 6)
        for name in chosen[0]
        if all(name in members for members in chosen)
    }


@dataclass
class _Album:
    """Crops of one track at even times, and those of its lowest and highest score.

    They are kept encoded, and their number is bounded however long the track is.
    """

    even: list[Crop] = field(default_factory=list)
    lowest: Crop | None = None
    highest: Crop | None = None
    seen: int = 0
    stride: int = 1

    def add(self, time: float, score: float | None, pixels: Pixels) -> None:
        """Look at one more crop, and keep it if it is wanted."""
        even = self.seen % self.stride == 0
        low = score is not None and (self.lowest is None or score < (self.lowest.score or 0.0))
        high = score is not None and (self.highest is None or score > (self.highest.score or 0.0))
        self.seen += 1
        if not (even or low or high):
            return
        crop = Crop(time=time, score=score, jpeg=encode_image(pixels, ".jpg", quality=82))
        if low:
            self.lowest = crop
        if high:
            self.highest = crop
        if even:
            self.even.append(crop)
        if len(self.even) > 2 * _EVEN_CROPS:
            self.even = self.even[::2]
            self.stride *= 2

    def crops(self) -> list[Crop]:
        """In order of time, each once."""
        chosen = {crop.time: crop for crop in self.even}
        if self.lowest and self.highest and self.lowest.time != self.highest.time:
            for crop, label in ((self.lowest, "lowest"), (self.highest, "highest")):
                chosen[crop.time] = Crop(crop.time, crop.score, crop.jpeg, label)
        return [chosen[time] for time in sorted(chosen)]


def _expand(inputs: Sequence[Path]) -> tuple[list[Path], list[FileError]]:
    """The files among ``inputs``, each once; what is missing is an error of its own."""
    found: dict[Path, Path] = {}
    errors = []
    for entry in inputs:
        try:
            for path in find_media([entry]):
                found.setdefault(path.resolve(), path)
        except FacekitError as error:
            errors.append(_failed(entry, error))
    return list(found.values()), errors


def _failed(path: Path, error: FacekitError) -> FileError:
    """Say what is wrong with a file, in one line, and keep it for the report."""
    log.error("facekit: %s", error)
    return FileError(path=str(path), error=str(error).removeprefix(f"{path}: "))


def _length(path: Path, info: MediaInfo) -> float | None:
    """Seconds that a video's frames last, which need not be what it declares."""
    if info.kind == "image":
        return None
    with Video(path) as video:
        return video.length()


def _spacing(length: float | None, every: float) -> float:
    """Seconds between two samples, so that there are no more than ``LONGEST``."""
    return max(every, (length or 0.0) / LONGEST)


def _times(length: float | None, every: float) -> list[float]:
    """The times to look at a video; empty if its length is not known beforehand."""
    count = math.ceil((length or 0.0) / every)
    return [every * i for i in range(min(count, LONGEST))]


def _samples(path: Path, length: float | None, every: float) -> Iterator[Frame]:
    """The frames to look at; one that stays on screen over several samples comes once."""
    if is_image(path):
        yield Frame(read_image(path), 0.0, 0)
        return
    with Video(path) as video:
        times = _times(length, every)
        due = video.frames(times) if times else at_least_apart(video, every)
        last = -1
        for frame in itertools.islice(due, LONGEST):
            if frame.index != last:
                yield frame
            last = frame.index


def _batches(frames: Iterator[Frame]) -> Iterator[list[Frame]]:
    while batch := list(itertools.islice(frames, _BATCH)):
        yield batch


def _ends_early(info: MediaInfo, last_time: float, every: float) -> str | None:
    """Say so if the frames end well before the duration that the file declares."""
    if info.duration is None or info.duration - last_time < max(1.0, 3 * every):
        return None
    return (
        f"its pictures end at {last_time:.1f} s, though it says that it lasts {info.duration:.1f} "
        "s: it may have been cut off"
    )


def _read_watermark(path: Path) -> Watermark:
    try:
        reading = read_file(path)
    except FacekitError as error:
        return Watermark(
            status="not read",
            kind=None,
            id=None,
            p_value=None,
            corrected=None,
            frames=0,
            error=str(error),
        )
    return Watermark(
        status="present" if reading.present else "absent",
        kind=reading.kind,
        id=reading.payload.id if reading.payload else None,
        p_value=float(reading.p_value),
        corrected=reading.corrected,
        frames=reading.frames,
    )


def _read_provenance(path: Path) -> Provenance:
    try:
        found = manifest.verify(path)
    except FacekitError as error:
        return Provenance(
            status="not read", reason=str(error), kind=None, origin="unknown", claims={}
        )
    # Anyone can write a manifest: nothing is taken for granted about the shape of what it claims.
    kind, facts = found.claims.get("kind"), found.claims.get("facts")
    if not isinstance(kind, str):
        kind = _KIND_OF_SOURCE.get(str(found.claims.get("source_type")))
    studio = isinstance(facts, dict) and facts.get("origin") == "studio"
    return Provenance(
        status=found.status,
        reason=found.reason,
        kind=kind,
        origin="studio" if studio else "unknown",
        claims=found.claims,
    )


_KIND_OF_SOURCE = {
    "trainedAlgorithmicMedia": "generated",
    "compositeWithTrainedAlgorithmicMedia": "composite",
    "compositeSynthetic": "composite",
}
"""IPTC's digital source types, by which other makers' manifests say what facekit's kinds say."""


def _detector_facts(detector: Detector) -> DetectorFacts:
    return DetectorFacts(
        name=detector.facts["name"],
        sha256=detector.facts.get("sha256"),
        calibrated_for=list(detector.calibrated_for),
        threshold=round(float(detector.threshold), 6),
        undecided_from=_undecided_from(detector),
        coverage=detector.calibration.coverage if isinstance(detector, Detector) else None,
        facts={key: value for key, value in detector.facts.items() if key in _CARD},
    )


def _undecided_from(detector: Detector) -> float | None:
    """The least probability that generated faces commonly have; None if that is not known."""
    if not isinstance(detector, Detector) or detector.calibration.coverage is None:
        return None
    lowest = np.array([detector.calibration.quantiles[1]])
    return round(float(detector.calibration.probability(lowest)[0]), 6)


_CARD = ("plugin", "licence", "seed", "data_hash", "figures")


def _file_facts(path: Path, info: MediaInfo) -> FileFacts:
    return FileFacts(
        sha256=files.sha256(path),
        bytes=path.stat().st_size,
        kind=info.kind,
        container=path.suffix.lower().removeprefix("."),
        codec=info.codec,
        width=info.width,
        height=info.height,
        duration=None if info.duration is None else round(info.duration, 4),
        rate=None if info.rate is None else round(info.rate, 4),
        has_audio=info.has_audio,
    )


def _box(face: Face, track: int, pixels: Pixels) -> Box:
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = np.clip(face.box, 0, [width, height, width, height]).tolist()
    return Box(
        left=round(100 * x0 / width, 2),
        top=round(100 * y0 / height, 2),
        width=round(100 * (x1 - x0) / width, 2),
        height=round(100 * (y1 - y0) / height, 2),
        number=track + 1,
    )


def _shrunk(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    scale = _OVERVIEW / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _require_folder(out: Path) -> None:
    """Make the folder now: an hour's analysis is not to end with "cannot be written"."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FacekitError(f"--out {out}: cannot be made ({error.strerror})") from error


def _versions() -> dict[str, str]:
    packages = ("torch", "av", "numpy", "opencv-python-headless", "facenet-pytorch", "c2pa-python")
    found: dict[str, Any] = {name: version(name) for name in packages}
    return {"facekit": __version__, "python": platform.python_version(), **found}
