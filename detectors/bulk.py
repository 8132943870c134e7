"""Score many files with one detector: a row for each face at each moment looked at.

Every input has at least one row, and where there is no probability, the row says why: a failure is
never a number. A damaged file stops no other.

Rows go, file by file, into a journal beside the target, ``OUT.part``. The same call reads it again
after an interruption and goes on behind the last file that was done; at the end the rows are put
into the order of the inputs, written to ``OUT`` at once, and the journal is removed. What is held
in memory does not grow with a video's length.
"""

import itertools
import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from detectors.faces import Finder, at_least_apart, score_each
from detectors.regions import Region, cut
from detectors.score import Detector, Scorer
from facekit import __version__
from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.core.journal import Identity, Journal, Row, identity
from facekit.core.progress import progress
from facekit.core.text import plain
from facekit.faces.track import Tracker
from facekit.media import images
from facekit.media.decode import Video
from facekit.media.find import find_media
from facekit.types import Face, Frame, Pixels

log = logging.getLogger("facekit")

MOMENTS = 32
"""Moments of a video that are looked at, unless asked otherwise."""
SMALLEST = 32
"""Pixels of a face's longer side; smaller ones are not scored, unless asked otherwise."""

UNREADABLE = "unreadable"
NO_FACE = "no face found"
TOO_SMALL = "face too small"
NOT_SCORED = "not scored"
"""What a reason begins with, before a colon, if anything follows."""

_BATCH = 8  # frames of a video that are held, searched and scored together
_PICTURES = 16  # pictures likewise …
_PIXELS = 32_000_000  # … but no more than so many pixels of them
_FEW = 8  # moments at which a video without a face that stands upright is searched thoroughly
_GAP = (2.0, 6.0)  # seconds that a face may be out of sight in its track, at least and at most

_Locate = Callable[[Sequence[Pixels]], list[list[Face]]]


@dataclass(frozen=True)
class Looking:
    """Where to look.

    Attributes:
        moments: of each video, evenly spread over all of it; used unless ``every`` is given.
        every: seconds between two moments.
        min_face: pixels of the longer side of the smallest face that is scored.
    """

    moments: int = MOMENTS
    every: float | None = None
    min_face: int = SMALLEST

    def times(self, length: float) -> list[float]:
        """The moments of a video of so many seconds: each in the middle of its share."""
        count = self.moments
        if self.every is not None:
            count = max(1, math.ceil(length / self.every - 1e-9))
            return [self.every * i for i in range(count)]
        return [length * (i + 0.5) / count for i in range(count)]

    def max_gap(self, length: float | None) -> float:
        """Seconds that a face may be out of sight in its track: one moment may be missed."""
        spacing = self.every if self.every is not None else (length or 0.0) / self.moments
        return min(max(_GAP[0], 2.5 * spacing), _GAP[1])


@dataclass
class Summary:
    """What came of it.

    Attributes:
        out: the file with the rows.
        detector: its name.
        inputs: files, and inputs that are none.
        unscored: those of them without a single probability.
        unreadable: those of them that could not be read, or not to the end.
        rows: in all.
        faces: rows with a face.
        scored: rows with a probability.
        reasons: how many rows have none, by what their reason begins with.
        kept: inputs that an interrupted call had done.
    """

    out: str
    detector: str
    inputs: int = 0
    unscored: int = 0
    unreadable: int = 0
    rows: int = 0
    faces: int = 0
    scored: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    kept: int = 0


def score_files(
    inputs: Sequence[Path],
    detector: Scorer,
    *,
    out: Path,
    device: torch.device,
    looking: Looking | None = None,
) -> Summary:
    """Score the faces of pictures and videos, and write a row for each.

    Args:
        inputs: files, folders and patterns; each file counts once.
        detector: what scores.
        out: the file of rows to write, one JSON object a line: ``path``, ``time`` (seconds; null
            for a picture), ``box`` (pixels of the picture), ``track`` (null for a picture),
            ``scores`` (each member's own P(generated)), ``probability``, ``reason``. In the order
            of the inputs, then of time, then largest face first.
        device: where to look for faces.
        looking: at which moments, and for how small faces.

    Raises:
        FacekitError: if ``out`` cannot be written, another call writes it now, or an interrupted
            one had other settings. A file that cannot be read is a row, and no error.
    """
    looking = looking or Looking()
    named = _named(inputs)
    settings = {
        **asdict(looking),
        "detector": detector.name,
        "sha256": detector.facts.get("sha256") if isinstance(detector, Detector) else None,
        "facekit": __version__,
    }
    if out.is_dir():
        raise FacekitError(f"--out {out}: is a folder; give the name of a file")
    with Journal(out.with_name(f"{out.name}.part"), settings, out=out) as journal:
        todo = {path: error for path, error in named.items() if not journal.has(path)}
        kept = len(named) - len(todo)
        if kept:
            log.info("%s: goes on; %d of %d inputs are done", out, kept, len(named))
        with progress("scoring", len(named)) as advance:
            advance(kept, "")
            scored = _Walk(detector, looking, device).score(todo, journal)
            for number, path in enumerate(scored, start=kept + 1):
                advance(number, plain(path.name))
        summary = Summary(str(out), detector.name, kept=kept)
        _publish(journal, out, named, summary)
        journal.remove()
    return summary


def _named(inputs: Sequence[Path]) -> dict[Path, str | None]:
    """The files among ``inputs``, each once and in order; with what is wrong, where nothing is."""
    found: dict[Path, str | None] = {}
    seen = set()
    for entry in inputs:
        try:
            for path in find_media([entry], unread=True):
                # A link is an input of its own: somebody may have labelled it by its own name.
                place = path.parent.resolve() / path.name
                if place not in seen:
                    seen.add(place)
                    found[path] = None
        except (FacekitError, OSError) as error:
            found.setdefault(entry, _said(entry, error))
    return found


def _said(path: Path, error: Exception) -> str:
    """An error in one line, without the path that the row names already."""
    return " ".join(str(error).removeprefix(f"{path}: ").split())


class _Walk:
    """Goes through files with what is loaded once for all of them."""

    def __init__(self, detector: Scorer, looking: Looking, device: torch.device) -> None:
        self.detector = detector
        self.looking = looking
        self.finder = Finder(device, looking.min_face)

    def score(self, todo: dict[Path, str | None], journal: Journal) -> Iterator[Path]:
        """Write the rows of each file to the journal; yield its path when it is done."""
        waiting: list[tuple[Path, Pixels, Identity]] = []
        for path, wrong in todo.items():
            before = identity(path)
            for part in self._parts(path, wrong):
                if isinstance(part, np.ndarray):
                    waiting.append((path, part, before))
                else:
                    for row in part:
                        journal.write(row)
            if not waiting or waiting[-1][0] != path:
                journal.end(path, before)
                yield path
            held = sum(pixels.size // 3 for _, pixels, _ in waiting)
            if len(waiting) == _PICTURES or held > _PIXELS:
                yield from self._pictures(waiting, journal)
                waiting = []
        yield from self._pictures(waiting, journal)

    def _parts(self, path: Path, wrong: str | None) -> Iterator[Pixels | list[Row]]:
        """A picture's pixels; or a video's rows, a few at a time; or a row on what is wrong."""
        try:
            if wrong:
                raise FacekitError(wrong)
            images.require_file(path)
            if images.is_image(path):
                yield images.read_image(path)
            else:
                yield from self._video(path)
        except (FacekitError, OSError) as error:
            log.warning("facekit: %s", plain(f"{path}: {_said(path, error)}"))
            yield [_row(path, reason=f"{UNREADABLE}: {_said(path, error)}")]

    def _pictures(
        self, waiting: list[tuple[Path, Pixels, Identity]], journal: Journal
    ) -> Iterator[Path]:
        """Write the rows of pictures that were read."""
        located = self.finder.thorough([pixels for _, pixels, _ in waiting])
        looks = [
            _Look(path, None, pixels, faces, [None] * len(faces))
            for (path, pixels, _), faces in zip(waiting, located, strict=True)
        ]
        for (path, _, before), rows in zip(waiting, self._rows(looks), strict=True):
            for row in rows or [self._faceless(path)]:
                journal.write(row)
            journal.end(path, before)
            yield path

    def _video(self, path: Path) -> Iterator[list[Row]]:
        """The rows of a video, a few moments at a time.

        It is searched for faces that stand upright. Only where there are none at all, it is
        searched as thoroughly as a picture: in a few of its frames, and if that helps, in all.
        """
        with Video(path) as video:
            rows = self._followed(video, self.finder.upright)
            if (first := next(rows, None)) is None:
                few = _batches(_frames(video, Looking(_FEW)))
                if any(any(self.finder.thorough([f.pixels for f in frames])) for frames in few):
                    rows = self._followed(video, self.finder.thorough)
                    first = next(rows, None)
            yield first or [self._faceless(path)]
            yield from rows

    def _followed(self, video: Video, locate: _Locate) -> Iterator[list[Row]]:
        """The rows of the moments at which ``locate`` finds faces, tracked."""
        tracker = Tracker(max_gap=self.looking.max_gap(video.length()))
        for frames in _batches(_frames(video, self.looking)):
            looks = []
            for frame, faces in zip(frames, locate([f.pixels for f in frames]), strict=True):
                ids = tracker.update(faces, frame.time, frame.index)
                for track in ids:  # the rows hold them: memory is not to grow
                    tracker.tracks[track].sightings.clear()
                looks.append(_Look(video.path, frame.time, frame.pixels, faces, ids))
            if rows := list(itertools.chain.from_iterable(self._rows(looks))):
                yield rows

    def _rows(self, looks: "Sequence[_Look]") -> list[list[Row]]:
        """A row for each face of each picture; those large enough are scored together."""
        rows: list[list[Row]] = []
        large: list[tuple[Row, Region]] = []
        for look in looks:
            rows.append([])
            for face, track in zip(look.faces, look.tracks, strict=True):
                row = _row(look.path, look.time, face, track)
                rows[-1].append(row)
                if face.size < self.looking.min_face:
                    size, least = math.floor(face.size), self.looking.min_face
                    row["reason"] = f"{TOO_SMALL}: {size} px, and at least {least} are needed"
                else:
                    large.append((row, cut(look.pixels, face)))
        outcomes = score_each(self.detector, [region for _, region in large])
        for (row, _), outcome in zip(large, outcomes, strict=True):
            row["scores"], row["probability"] = outcome.members, outcome.probability
            if outcome.probability is None:
                row["reason"] = f"{NOT_SCORED}: {outcome.reason}"
        return rows

    def _faceless(self, path: Path) -> Row:
        return _row(path, reason=f"{NO_FACE}: none of {self.looking.min_face} px or more")


@dataclass(frozen=True)
class _Look:
    """A picture, or a video at a moment, with the faces found."""

    path: Path
    time: float | None
    pixels: Pixels
    faces: Sequence[Face]
    tracks: Sequence[int | None]


def _row(
    path: Path,
    time: float | None = None,
    face: Face | None = None,
    track: int | None = None,
    reason: str | None = None,
) -> Row:
    """A row without scores."""
    box = None if face is None else [round(float(edge), 1) for edge in face.box]
    return {
        "path": path.as_posix(),
        "time": None if time is None else round(time, 4),
        "box": box,
        "track": track,
        "scores": {},
        "probability": None,
        "reason": reason,
    }


def _frames(video: Video, looking: Looking) -> Iterator[Frame]:
    """The frames to look at, each once, however long it stays on screen."""
    length = video.length()
    if length:
        frames = video.frames(looking.times(length))
    elif looking.every is None:
        frames = video.sample(looking.moments)
    else:
        frames = at_least_apart(video, looking.every)
    last = -1.0
    for frame in frames:
        if frame.time > last:
            yield frame
            last = frame.time


def _batches(frames: Iterator[Frame]) -> Iterator[list[Frame]]:
    while batch := list(itertools.islice(frames, _BATCH)):
        yield batch


def _publish(journal: Journal, out: Path, paths: Iterable[Path], summary: Summary) -> None:
    """Write the rows of these files in this order, and count them."""
    reasons: Counter[str] = Counter()
    with files.replacing(out) as partial, partial.open("wb") as target:
        for path in paths:
            scored = 0
            unreadable = False
            for line in journal.lines(path):
                target.write(line)
                row = json.loads(line)
                summary.rows += 1
                summary.faces += row["box"] is not None
                scored += row["probability"] is not None
                if row["reason"]:
                    kind = row["reason"].partition(":")[0]
                    reasons[kind] += 1
                    unreadable |= kind == UNREADABLE
            summary.inputs += 1
            summary.scored += scored
            summary.unscored += not scored
            summary.unreadable += unreadable
    summary.reasons = dict(sorted(reasons.items()))
