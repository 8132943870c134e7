"""Show what the face stage finds: an annotated video, or a sheet of pictures.

A video is gone through twice: who its people are is known at its end only.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch

from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.datasets.generated import Export, Generated, find_generated
from facekit.datasets.looking import Looking, photo_stage, video_stage
from facekit.faces.draw import Shown, annotate, placed
from facekit.faces.quality import measure
from facekit.faces.stage import Stage
from facekit.media.decode import Video
from facekit.media.encode import write_video
from facekit.media.find import expand, find_media
from facekit.media.images import (
    IMAGE_SUFFIXES,
    is_image,
    read_image,
    require_file,
    write_image,
)
from facekit.types import Face, Frame, Pixels, Track
from facekit.watermark import Kind

log = logging.getLogger("facekit")

SHEETS = (".jpg", ".jpeg", ".png", ".webp")
"""Suffixes of sheets; a video is ``.mp4``."""

_WIDTH = 1920  # of a sheet, in pixels
_COLUMNS = 4
_MOMENTS = 12  # of a video on a sheet
_PICTURES = 64  # on a sheet at most
_LARGER = 4.0  # pictures are enlarged up to so much, so that names can be read
_LOWEST = 48  # of its rows: room for a caption
_GROUND = (24, 26, 30)


@dataclass(frozen=True)
class TrackFacts:
    """A track in short: its number, whose it is, seconds from its first sighting to its last."""

    id: int
    person: int | None
    first: float
    last: float
    sightings: int


@dataclass
class Findings:
    """What is in one input.

    Attributes:
        path: of the file.
        kind: "image" or "video".
        width, height: in pixels; of a video, of its first frame.
        generated: "generated" or "composite" where its mark or manifest says so.
        faces: in the photo, or in all frames.
        frames: of a video.
        located: frames in which the locator looked.
        seconds: time of the last frame.
        persons: how many people its tracks show.
        tracks: of a video.
    """

    path: str
    kind: Literal["image", "video"]
    width: int
    height: int
    generated: str | None = None
    faces: int = 0
    frames: int = 1
    located: int = 1
    seconds: float = 0.0
    persons: int | None = None
    tracks: list[TrackFacts] = field(default_factory=list)

    def sentence(self) -> str:
        """The same in a line."""
        if self.kind == "image":
            return f"{self.path}: {_count(self.faces, 'face')}"
        return (
            f"{self.path}: {_count(self.persons or 0, 'person', 'people')} in "
            f"{_count(len(self.tracks), 'track')}; {_count(self.faces, 'face')} in "
            f"{_count(self.frames, 'frame')}, of which the locator looked at {self.located}"
        )


@dataclass
class Report:
    """What was shown.

    Attributes:
        out: the file that was written; None if no input could be read.
        inputs: what each of them holds.
        failures: path and one-line reason of each that could not be read.
    """

    out: str | None
    inputs: list[Findings] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


def show_video(
    path: Path, out: Path, looking: Looking, *, device: torch.device, export: Export
) -> Report:
    """Write a video with all that the face stage sees drawn in, and with its sound.

    Args:
        path: of the video.
        out: to write: MP4.
        looking: how to look for faces.
        device: where to compute.
        export: writes it if the video is generated, which it then stays, marked and signed:
            :func:`facekit.export.write_video`.

    Raises:
        FacekitError: if ``path`` is no video or cannot be read, or ``out`` cannot be written.
    """
    _require_apart([path], out)
    require_file(path)
    if is_image(path):
        raise FacekitError(f"{path}: is a picture; give a video, or an --out of {_SHEETS_SAID}")
    generated = find_generated(path)
    with Video(path) as video:
        course = _Course.follow(video, video_stage(looking, device))
        findings = course.findings(video, generated)
        with progress("Drawing", findings.frames) as advance:

            def drawn() -> Iterator[Frame]:
                for frame in video:
                    yield replace(frame, pixels=_drawn(course.picture(frame)))
                    advance(frame.index + 1, "")

            rate = video.info.rate or 25.0
            sound = path if video.info.has_audio else None
            if generated is None:
                write_video(out, drawn(), rate=rate, audio_from=sound)
            else:
                terms = generated.terms
                export(out, drawn(), rate=rate, audio_from=sound, inputs=[path], **terms)
    return Report(str(out), [findings])


def show_sheet(
    inputs: Sequence[Path], out: Path, looking: Looking, *, device: torch.device, export: Export
) -> Report:
    """Write a sheet of photos and of moments of videos, with all that the face stage sees.

    An input that cannot be read is noted and passed over. Of very many, some are on the sheet.

    Args:
        inputs: files, folders and patterns.
        out: to write: a suffix of ``SHEETS``.
        looking: how to look for faces.
        device: where to compute.
        export: writes it if an input is generated: :func:`facekit.export.write_image`.

    Raises:
        FacekitError: if an input does not exist, or ``out`` cannot be written.
    """
    _require_apart(expand(inputs), out)
    photo_stage(looking, device)  # what it lacks concerns no input
    paths = [path for path in find_media(inputs) if path.resolve() != out.resolve()]
    moments = min(max(_PICTURES // max(len(paths), 1), 1), _MOMENTS)
    count = sum(1 if path.suffix.lower() in IMAGE_SUFFIXES else moments for path in paths)
    columns = min(math.ceil(math.sqrt(count)), _COLUMNS)
    side = _WIDTH // max(columns, 1)

    report = Report(None)
    cells: list[Pixels] = []
    sources: dict[Path, Generated] = {}
    with progress("Looking", len(paths)) as advance:
        for number, path in enumerate(paths):
            try:
                findings, generated, pictures = _look_at(path, looking, device, moments, side)
                if number * _PICTURES % len(paths) < _PICTURES:  # evenly, where there are too many
                    cells += pictures
                    sources |= {path: generated} if generated else {}
                report.inputs.append(findings)
            except (FacekitError, OSError) as error:
                reason = str(error).removeprefix(f"{path}: ")
                log.warning("%s: skipped: %s", path, reason)
                report.failures[path.as_posix()] = reason
            advance(number + 1, path.name)
    if cells:
        _write_sheet(out, _sheet(cells, columns, side), sources, export)
        report.out = str(out)
    return report


_SHEETS_SAID = ", ".join(SHEETS)


@dataclass(frozen=True)
class _Picture:
    """A picture and what is to be drawn onto it."""

    pixels: Pixels
    shown: list[Shown]
    caption: str


@dataclass
class _Course:
    """What the stage saw in a video, frame by frame, without the frames."""

    seen: dict[int, list[tuple[Face, int]]] = field(default_factory=dict)
    located: set[int] = field(default_factory=set)
    tracks: list[Track] = field(default_factory=list)
    seconds: float = 0.0

    @classmethod
    def follow(cls, video: Video, stage: Stage) -> "_Course":
        course = cls()
        info = video.info
        total = round(info.duration * info.rate) if info.duration and info.rate else None
        with progress("Following", total) as advance:
            for seen in stage.follow(video):
                index = seen.frame.index
                course.seen[index] = list(zip(seen.faces, seen.ids, strict=True))
                course.located |= {index} if seen.located else set()
                course.seconds = seen.frame.time
                advance(index + 1, f"{len(seen.faces)} faces")
        course.tracks = stage.tracks
        return course

    def findings(self, video: Video, generated: Generated | None) -> Findings:
        tracks = [
            TrackFacts(
                track.id,
                track.person,
                round(track.sightings[0].time, 3),
                round(track.sightings[-1].time, 3),
                len(track.sightings),
            )
            for track in self.tracks
        ]
        return Findings(
            path=video.path.as_posix(),
            kind="video",
            width=video.info.width,
            height=video.info.height,
            generated=generated.kind.label if generated else None,
            faces=sum(map(len, self.seen.values())),
            frames=len(self.seen),
            located=len(self.located),
            seconds=round(self.seconds, 3),
            persons=len({track.person for track in tracks}),
            tracks=tracks,
        )

    def picture(self, frame: Frame) -> _Picture:
        faces, ids = [], []
        for face, id in self.seen.get(frame.index, []):
            faces.append(face)
            ids.append(id)
        (measured,) = measure([frame.pixels], [faces])
        shown = [self._shown(face, id) for face, id in zip(measured, ids, strict=True)]
        how = "located" if frame.index in self.located else "followed"
        said = f"{frame.time:.2f} s · frame {frame.index} · {how if shown else 'no face'}"
        return _Picture(frame.pixels, shown, said)

    def _shown(self, face: Face, id: int) -> Shown:
        person = self.tracks[id].person
        if person is None:
            return Shown(face, f"track {id}", id)
        return Shown(face, f"person {person} · track {id}", person)


def _look_at(
    path: Path, looking: Looking, device: torch.device, moments: int, side: int
) -> tuple[Findings, Generated | None, list[Pixels]]:
    """What an input holds, and its cells of a sheet; ``moments`` of them if it is a video."""
    require_file(path)
    if not is_image(path):
        generated = find_generated(path)
        with Video(path) as video:
            course = _Course.follow(video, video_stage(looking, device))
            findings = course.findings(video, generated)
            count = min(moments, findings.frames)
            wanted = {(2 * i + 1) * findings.frames // (2 * count) for i in range(count)}
            cells = []
            for frame in video:
                if frame.index in wanted:
                    picture = course.picture(frame)
                    said = f"{path.name} · {picture.caption}"
                    cells.append(_cell(replace(picture, caption=said), side))
        return findings, generated, cells

    pixels = read_image(path)
    generated = find_generated(path, pixels)
    (faces,) = photo_stage(looking, device).look([pixels])
    (faces,) = measure([pixels], [faces])
    findings = Findings(
        path=path.as_posix(),
        kind="image",
        width=pixels.shape[1],
        height=pixels.shape[0],
        generated=generated.kind.label if generated else None,
        faces=len(faces),
    )
    said = f"{path.name} · {_count(len(faces), 'face')}"
    shown = [Shown(face, f"face {n} · {face.score:.2f}", n) for n, face in enumerate(faces)]
    picture = _Picture(pixels, shown, said)
    return findings, generated, [_cell(picture, side)]


def _drawn(picture: _Picture) -> Pixels:
    return annotate(picture.pixels, picture.shown, caption=picture.caption)


def _cell(picture: _Picture, side: int) -> Pixels:
    """A picture fitted into a column, and drawn upon there: letters are of one size in all."""
    height, width = picture.pixels.shape[:2]
    factor = min(side / width, side / height, _LARGER)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    cell = np.full((max(size[1], _LOWEST), side, 3), _GROUND, np.uint8)
    left = (side - size[0]) // 2
    cell[: size[1], left : left + size[0]] = cv2.resize(picture.pixels, size, interpolation=how)
    shown = [placed(one, factor, (left, 0)) for one in picture.shown]
    return annotate(cell, shown, caption=picture.caption)


def _sheet(cells: Sequence[Pixels], columns: int, side: int) -> Pixels:
    """Cells in rows, each as high as its highest."""
    columns = min(columns, len(cells))
    rows = []
    for start in range(0, len(cells), columns):
        row = cells[start : start + columns]
        canvas = np.full((max(map(len, row)), columns * side, 3), _GROUND, np.uint8)
        for number, cell in enumerate(row):
            canvas[: len(cell), number * side : (number + 1) * side] = cell
        rows.append(canvas)
    return np.concatenate(rows)


def _write_sheet(
    out: Path, sheet: Pixels, sources: Mapping[Path, Generated], export: Export
) -> None:
    """Write it, marked and signed if something generated is on it."""
    if not sources:
        write_image(out, sheet)
        return
    kinds = {generated.kind for generated in sources.values()}
    kind = kinds.pop() if len(kinds) == 1 else Kind.COMPOSITE
    facts = next(iter(sources.values())).facts if len(sources) == 1 else {}
    consent = sorted({id for generated in sources.values() for id in generated.consent})
    export(out, sheet, kind=kind, inputs=list(sources), facts=facts, consent=consent)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number or 'no'} {one if number == 1 else many or one + 's'}"


def _require_apart(inputs: Sequence[Path], out: Path) -> None:
    if any(path.resolve() == out.resolve() for path in inputs):
        raise FacekitError(f"--out {out}: is an input, which it would replace; give another name")
