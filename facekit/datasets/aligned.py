"""Make a folder of aligned faces from photos and videos.

OUT/
  crops/NAME-000.png   one a face; NAME is the input's stem
  manifest.jsonl       one row a crop, written last
  preview.jpg          some of the crops, to look at
  inputs.jsonl         one row an input that is done; what a later call resumes from

Crops of media that are generated, by their mark or their manifest, are so marked and signed again.
Of a photo that was cropped or turned before, the manifest alone tells: no mark is searched for.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.core.workers import WorkerLost, in_order
from facekit.datasets.generated import Export, Generated, find_generated
from facekit.datasets.looking import Looking, photo_stage, video_stage
from facekit.datasets.manifest import load_folder
from facekit.faces.align import align_faces
from facekit.faces.quality import measure
from facekit.faces.stage import Stage
from facekit.media.decode import Video
from facekit.media.find import expand, find_media
from facekit.media.images import is_image, read_image, require_file, write_image
from facekit.types import (
    JOURNAL,
    MANIFEST,
    AlignedFace,
    Face,
    Item,
    Landmarks,
    Pixels,
    write_manifest,
)
from facekit.watermark import Kind

log = logging.getLogger("facekit")

_PREVIEW = (8, 8, 96)  # columns, rows at most, and the side of one crop
_ENOUGH = 256  # pixels a side in which a mark can be read back from nearly any picture


@dataclass(frozen=True)
class Settings:
    """How to align; a folder is made with one and the same.

    Attributes:
        template: a name in ``facekit.faces.align.TEMPLATES``.
        size: side of the crops, in pixels.
        period: seconds between two frames of a video of which the crops are kept.
        looking: how to look for faces.
    """

    template: str = "wide"
    size: int = 256
    period: float = 1.0
    looking: Looking = field(default_factory=Looking)

    def facts(self) -> dict[str, Any]:
        """As JSON values; the locator's weights by their hash."""
        facts = asdict(self)
        facts |= facts.pop("looking")
        weights = self.looking.locator_weights
        return facts | {"locator_weights": files.sha256(weights) if weights else None}


@dataclass
class Aligned:
    """What was done.

    Attributes:
        inputs: how many files there were.
        faces: how many crops the folder holds now.
        skipped: inputs that an earlier call had done.
        faceless: inputs without a face.
        failures: path and one-line reason of each input that could not be read.
    """

    inputs: int = 0
    faces: int = 0
    skipped: int = 0
    faceless: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


def align_media(
    inputs: Sequence[Path],
    out: Path,
    settings: Settings,
    *,
    device: torch.device,
    export: Export,
    workers: int = 1,
) -> Aligned:
    """Align all faces of pictures and videos into a folder.

    An input that cannot be read is noted and passed over. An input that an earlier call with the
    same settings has done, and that has not changed, is not done again. Of an input folder with a
    manifest, the files that it names are taken, and its rows lend the crops their subject, label
    and so on.

    What is written does not depend on the number of workers, if torch has one thread here: each of
    them has one.

    Args:
        inputs: files, folders and patterns.
        out: the folder to write, or to go on with.
        settings: how to align.
        device: where to compute.
        export: writes the crops of generated inputs.
        workers: processes, each at one input at a time; 1 aligns in this one.

    Raises:
        FacekitError: if an input does not exist, ``out`` was made with other settings or cannot be
            written, or a worker dies.
    """
    inputs = expand(inputs)
    rows = _manifest_items(inputs)
    known = {path.resolve(): item for path, item in rows}
    media = [path for path, _ in rows]
    media += find_media([path for path in inputs if not _has_manifest(path)])
    unique = {path.resolve(): path for path in media if not _below(path, out)}
    # Relative to the folder, so that neither the working directory nor a move matters.
    names = {
        Path(os.path.relpath(resolved, out.resolve())).as_posix(): path
        for resolved, path in unique.items()
    }
    if settings.looking.locator_weights is not None:
        require_file(settings.looking.locator_weights)
    journal = _Journal(out, settings.facts())
    result = Aligned(inputs=len(names))
    reasons: dict[str, str] = {}
    with progress("Aligning", len(names)) as advance:
        missing = _missing(journal, names, reasons)
        result.skipped = len(names) - len(missing) - len(reasons)
        if missing:
            photo_stage(settings.looking, device)  # what it lacks concerns no input
            journal.forget(missing)
        plan = _Plan(out, settings, device, export)
        jobs = [
            _Job(names[name], name, journal.crop_name(name), known.get(names[name].resolve()))
            for name in missing
        ]
        done = len(names) - len(jobs)

        def note(text: str) -> None:
            advance(done, text)

        for job, outcome in zip(jobs, _outcomes(plan, jobs, workers, note), strict=True):
            if outcome.reason:
                reasons[job.name] = outcome.reason
                log.warning("%s: skipped: %s", job.path, outcome.reason)
            else:
                journal.add(job, outcome)
            done += 1
            note(job.path.name)

    result.failures = {names[name].as_posix(): reasons[name] for name in names if name in reasons}
    result.faceless = [path.as_posix() for name, path in names.items() if journal.is_faceless(name)]
    items = journal.items()
    write_manifest(out, items)
    if items:
        _write_preview(out, items, export)
    result.faces = len(items)
    return result


def _missing(journal: "_Journal", names: Mapping[str, Path], reasons: dict[str, str]) -> list[str]:
    """The inputs that are yet to be done; those that are not there go to ``reasons``."""
    missing = []
    for name, path in names.items():
        try:
            if not journal.has(name, path):
                missing.append(name)
        except (FacekitError, OSError) as error:
            reasons[name] = str(error).removeprefix(f"{path}: ")
            log.warning("%s: skipped: %s", path, reasons[name])
    return missing


@dataclass(frozen=True)
class _Plan:
    """What is the same for all inputs."""

    out: Path
    settings: Settings
    device: torch.device
    export: Export


@dataclass(frozen=True)
class _Job:
    """One input: its path, its name in the journal, its crops' name, and its row in a manifest."""

    path: Path
    name: str
    crop_name: str
    row: Item | None


@dataclass(frozen=True)
class _Outcome:
    """What became of an input: its hash and its crops' rows, or why there are none."""

    digest: str = ""
    items: tuple[Item, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class _Found:
    """An aligned face, with its frame's time and its track where it is of a video."""

    aligned: AlignedFace
    time: float | None = None
    track: int | None = None


Note = Callable[[str], None]
"""Hears how far it is."""


def _outcomes(plan: _Plan, jobs: Sequence[_Job], workers: int, note: Note) -> Generator[_Outcome]:
    """What becomes of each input, in order."""
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from (_align(plan, job, note) for job in jobs)
        return
    tasks = [(plan, job) for job in jobs]
    try:
        with closing(in_order(_work, tasks, workers, start=_one_thread)) as outcomes:
            yield from outcomes
    except WorkerLost as error:
        raise FacekitError(
            "a worker was killed or could not start, perhaps for lack of memory; use fewer "
            "--workers, and give the same command again to go on"
        ) from error


def _one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _work(task: tuple[_Plan, _Job]) -> _Outcome:
    plan, job = task
    return _align(plan, job, lambda text: None)


def _align(plan: _Plan, job: _Job, note: Note) -> _Outcome:
    """Align the faces of one input, and write their crops; if it fails half-way, nothing stays."""
    written: list[Path] = []
    try:
        require_file(job.path)
        digest = files.sha256(job.path)
        photo = read_image(job.path) if is_image(job.path) else None
        # Photos come by the thousand: of those, marks are read where they were laid alone.
        generated = find_generated(job.path, photo, search=photo is None)
        row = job.row or Item(path=job.name, sha256=digest)
        row = generated.item(row) if generated else row

        stage = (video_stage if photo is None else photo_stage)(plan.settings.looking, plan.device)
        if photo is None:
            faces = _from_video(job.path, stage, plan, note)
        else:
            faces = _from_photo(photo, stage, plan)
        items = []
        for number, found in enumerate(faces):
            written.append(plan.out / f"crops/{job.crop_name}-{number:03d}.png")
            _write(written[-1], found.aligned.pixels, job.path, generated, plan.export)
            items.append(_item(written[-1], plan.out, job, digest, row, found))
        people = {track.id: track.person for track in stage.tracks} if photo is None else {}
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        if not isinstance(error, FacekitError | OSError):
            raise
        return _Outcome(reason=str(error).removeprefix(f"{job.path}: "))
    return _Outcome(digest, tuple(_named(item, people) for item in items))


def _from_photo(pixels: Pixels, stage: Stage, plan: _Plan) -> Iterator[_Found]:
    return (_Found(face) for face in _crops(pixels, stage.look([pixels])[0], plan))


def _from_video(path: Path, stage: Stage, plan: _Plan, note: Note) -> Iterator[_Found]:
    """The aligned faces of the first frame of each period; every frame is followed."""
    period, due = plan.settings.period, -math.inf
    with Video(path) as video:
        for seen in stage.follow(video):
            time = seen.frame.time
            if time < due:
                continue
            due = (math.floor(time / period + 1e-6) + 1) * period - 1e-6
            note(f"{path.name}, {time:.0f} s")
            crops = _crops(seen.frame.pixels, seen.faces, plan)
            for crop, track in zip(crops, seen.ids, strict=True):
                yield _Found(crop, time, track)


def _crops(pixels: Pixels, faces: Sequence[Face], plan: _Plan) -> list[AlignedFace]:
    settings = plan.settings
    return align_faces(
        pixels,
        measure([pixels], [faces])[0],
        template=settings.template,
        size=settings.size,
        device=plan.device,
    )


def _write(
    path: Path, pixels: Pixels, source: Path, generated: Generated | None, export: Export
) -> None:
    """Write a crop of ``source``: plainly, or marked and signed if that is generated."""
    if generated is None:
        write_image(path, pixels)
        return
    try:
        # Its row labels it; a badge would teach a detector to look for badges.
        export(path, pixels, inputs=[source], badge=None, **generated.terms)
    except FacekitError as error:
        if len(pixels) >= _ENOUGH:
            raise
        why = str(error).removeprefix(f"{path}: ")
        raise FacekitError(
            f"{source}: is {generated.kind.label} by its mark or manifest, and so must its crops "
            f"be: {why}; if pixels are too few, give --size {_ENOUGH}"
        ) from error


def _item(path: Path, out: Path, job: _Job, digest: str, row: Item, found: _Found) -> Item:
    face = found.aligned.face
    facts: dict[str, object] = {
        "input": job.name,
        "input_sha256": digest,
        "box": face.box.tolist(),
        "points": face.points.tolist(),
        "score": face.score,
        "crop_from_image": found.aligned.crop_from_image.tolist(),
    }
    if face.landmarks is not None:
        facts |= _landmark_facts(face.landmarks)
    if face.quality is not None:
        quality = asdict(face.quality)
        del quality["pose"]  # stands by itself
        facts["quality"] = {name: round(value, 4) for name, value in quality.items()}
    if found.track is not None:
        facts["track"] = found.track
    # By its seed a person is known again in other folders; kind and consent are those of the marks.
    facts |= {key: row.facts[key] for key in ("person_seed", "kind", "consent") if key in row.facts}
    return row.model_copy(
        update={
            "path": path.relative_to(out).as_posix(),
            "sha256": files.sha256(path),
            "source": row.source or job.name,
            "time": row.time if found.time is None else found.time,
            "facts": facts,
        }
    )


def _landmark_facts(landmarks: Landmarks) -> dict[str, object]:
    """By the names that the studio gives the same things; hundredths of a pixel will do."""
    return {
        "landmarks": _numbers(landmarks.points, 2),
        "deviation": _numbers(landmarks.deviation, 2),
        "visible": _numbers(landmarks.visible, 2),
        "pose": _numbers(np.array(landmarks.pose), 2),
        "expression": _numbers(landmarks.expression, 3),
        "eyes": _numbers(landmarks.eyes, 3),
        "presence": round(landmarks.presence, 4),
    }


def _numbers(values: NDArray[Any], digits: int) -> list[Any]:
    rounded: list[Any] = np.round(values.astype(np.float64), digits).tolist()
    return rounded


def _named(item: Item, people: Mapping[int, int | None]) -> Item:
    """With the person whom its track shows; that is known when a video has come to its end."""
    track = item.facts.get("track")
    if not isinstance(track, int):
        return item
    return item.model_copy(update={"facts": item.facts | {"person": people.get(track)}})


class _Journal:
    """The inputs that are done, each with its crops' rows; survives a kill at any point."""

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self.out = out
        self._path = out / JOURNAL
        self._settings = settings
        self._rows: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            head, *rows = _read_journal(self._path)
            if rows and head != {"settings": settings}:
                raise FacekitError(
                    f"{out}: was made with other settings ({_difference(head, settings)}); give "
                    "the same, or another --out"
                )
            self._rows = {row["input"]: row for row in rows}
            self._remove_unknown()
        elif (out / MANIFEST).exists():
            raise FacekitError(f"{out}: holds another manifest; give an empty or new --out")
        self._write()
        self._owners = {row["name"].casefold(): name for name, row in self._rows.items()}

    def has(self, name: str, path: Path) -> bool:
        """Whether the input is done: unchanged since, and all its crops are there."""
        row = self._rows.get(name)
        if row is None or not all((self.out / item.path).is_file() for item in self._items(name)):
            return False
        require_file(path)
        return bool(row["sha256"] == files.sha256(path))

    def forget(self, names: Iterable[str]) -> None:
        """Drop inputs that have changed, with their crops."""
        known = [name for name in names if name in self._rows]
        for name in known:
            for item in self._items(name):
                (self.out / item.path).unlink(missing_ok=True)
            del self._rows[name]
        if known:
            self._write()

    def is_faceless(self, name: str) -> bool:
        return name in self._rows and not self._rows[name]["items"]

    def crop_name(self, name: str) -> str:
        """The input's stem; with a hash of its path where another input has taken the stem."""
        stem = Path(name).stem
        # Some file systems take "A" and "a" for one name.
        if self._owners.setdefault(stem.casefold(), name) != name:
            stem += "-" + hashlib.sha256(name.encode()).hexdigest()[:8]
        return stem

    def add(self, job: _Job, outcome: _Outcome) -> None:
        row = {
            "input": job.name,
            "sha256": outcome.digest,
            "name": job.crop_name,
            "items": [item.model_dump() for item in outcome.items],
        }
        self._rows[job.name] = row
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def items(self) -> list[Item]:
        return [item for name in sorted(self._rows) for item in self._items(name)]

    def _items(self, name: str) -> list[Item]:
        rows = self._rows[name]["items"] if name in self._rows else []
        return [Item.model_validate(row) for row in rows]

    def _write(self) -> None:
        files.write_jsonl(self._path, [{"settings": self._settings}, *self._rows.values()])

    def _remove_unknown(self) -> None:
        """Remove crops of inputs in which a kill came before their row."""
        known = {item.path for name in self._rows for item in self._items(name)}
        for path in (self.out / "crops").glob("*.png"):
            if path.relative_to(self.out).as_posix() not in known:
                path.unlink()


def _difference(head: dict[str, Any], settings: dict[str, Any]) -> str:
    before = head.get("settings", {})
    return ", ".join(
        f"{name} {before.get(name)}, now {value}"
        for name, value in settings.items()
        if before.get(name) != value
    )


def _below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _read_journal(path: Path) -> list[dict[str, Any]]:
    """The journal's rows; a kill may have cut the last one short, and its input is done again."""
    rows = []
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == 1 or number < len(lines):
                raise FacekitError(
                    f"{path}, line {number}: damaged; delete the folder, or give another --out"
                ) from error
    return rows or [{}]


def _has_manifest(path: Path) -> bool:
    return (path / MANIFEST).is_file()


def _manifest_items(inputs: Iterable[Path]) -> list[tuple[Path, Item]]:
    """The files that the manifests of input folders name, with their rows."""
    folders = [folder for folder in inputs if _has_manifest(folder)]
    return [(folder / item.path, item) for folder in folders for item in load_folder(folder)]


def _write_preview(out: Path, items: list[Item], export: Export) -> None:
    """Write the sheet, marked as well if any of the crops is."""
    path = out / "preview.jpg"
    sheet = _preview([out / item.path for item in items])
    if not any("kind" in item.facts for item in items):
        write_image(path, sheet)
        return
    named = (item.facts.get("consent") for item in items)
    consent = sorted({str(id) for ids in named if isinstance(ids, list) for id in ids})
    try:
        export(path, sheet, kind=Kind.COMPOSITE, consent=consent)
    except FacekitError as error:
        path.unlink(missing_ok=True)
        log.warning("no preview: %s", error)


def _preview(paths: Sequence[Path]) -> Pixels:
    """A sheet of crops, drawn evenly from all."""
    columns, rows, side = _PREVIEW
    count = min(len(paths), columns * rows)
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    columns = min(columns, count)
    sheet = np.full((math.ceil(count / columns) * side, columns * side, 3), 255, np.uint8)
    for number, path in enumerate(chosen):
        y, x = (part * side for part in divmod(number, columns))
        small = cv2.resize(read_image(path), (side, side), interpolation=cv2.INTER_AREA)
        sheet[y : y + side, x : x + side] = small
    return sheet
