"""Make a folder of aligned faces from photos and videos.

OUT/
  crops/NAME-000.png   one a face; NAME is the input's stem
  manifest.jsonl       one row a crop, written last
  preview.jpg          some of the crops, to look at
  inputs.jsonl         one row an input that is done; what a later call resumes from

Crops of media that are generated, by their mark or their manifest, are so marked and signed again.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.datasets.crops import in_chunks
from facekit.datasets.manifest import load_folder
from facekit.faces.align import align_faces
from facekit.faces.locate import Locator, load_locator
from facekit.faces.track import Tracker
from facekit.media.decode import Video, probe
from facekit.media.find import find_media
from facekit.media.images import read_image, write_image
from facekit.provenance import manifest
from facekit.types import MANIFEST, AlignedFace, Frame, Item, Pixels, write_manifest
from facekit.watermark import Kind, read_file

log = logging.getLogger("facekit")

_MAX_SIDE = 1920  # photos and single frames are worth a closer look than each frame of a video
_PREVIEW = (8, 8, 96)  # columns, rows at most, and the side of one crop
_INPUTS = "inputs.jsonl"
_ENOUGH = 256  # pixels a side in which a mark can be read back from nearly any picture
_KINDS = {
    Kind.GENERATED.label: Kind.GENERATED,
    Kind.COMPOSITE.label: Kind.COMPOSITE,
    # What other tools' manifests say.
    "trainedAlgorithmicMedia": Kind.GENERATED,
    "compositeWithTrainedAlgorithmicMedia": Kind.COMPOSITE,
}

Export = Callable[..., object]
"""Writes generated pictures: :func:`facekit.export.write_image`, with its arguments."""


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
    *,
    template: str,
    size: int,
    min_face: int,
    every: float,
    device: torch.device,
    export: Export,
) -> Aligned:
    """Align all faces of pictures and videos into a folder.

    An input that cannot be read is noted and passed over. An input that an earlier call with the
    same settings has done, and that has not changed, is not done again. Of an input folder with a
    manifest, the files that it names are taken, and its rows lend the crops their subject, label
    and so on.

    Args:
        inputs: files and folders.
        out: the folder to write, or to go on with.
        template: a name in ``facekit.faces.align.TEMPLATES``.
        size: side of the crops, in pixels.
        min_face: smallest face to look for, in pixels of the input.
        every: seconds between two looks at a video.
        device: where to compute.
        export: writes the crops of generated inputs.

    Raises:
        FacekitError: if an input does not exist, or ``out`` was made with other settings or
            cannot be written.
    """
    rows = _manifest_items(inputs)
    known = {path.resolve(): item for path, item in rows}
    media = [path for path, _ in rows]
    media += find_media([path for path in inputs if not _has_manifest(path)])
    unique = {path.resolve(): path for path in media if not _below(path, out)}
    paths = list(unique.values())
    settings = {"template": template, "size": size, "min_face": min_face, "every": every}
    journal = _Journal(out, settings)
    locator = load_locator(device, min_face=min_face, max_side=_MAX_SIDE)
    result = Aligned(inputs=len(paths))

    with progress("Aligning", len(paths)) as advance:
        for done, path in enumerate(paths, start=1):
            # Relative to the folder, so that neither the working directory nor a move matters.
            name = Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
            try:
                digest = files.sha256(path)
                if journal.has(name, digest):
                    result.skipped += 1
                else:
                    journal.forget(name)
                    generated = _generated(path)
                    faces = _faces(path, locator, template, size, every, device)
                    origin = known.get(path.resolve(), Item(path=name, sha256=digest))
                    if generated:
                        origin = generated.item(origin)
                    _write_crops(
                        journal, name, digest, origin, faces, _writer(path, generated, export)
                    )
            except (FacekitError, OSError) as error:
                reason = str(error).removeprefix(f"{path}: ")
                log.warning("%s: skipped: %s", path, reason)
                result.failures[path.as_posix()] = reason
            if journal.is_faceless(name):
                result.faceless.append(path.as_posix())
            advance(done, path.name)

    items = journal.items()
    write_manifest(out, items)
    if items:
        _write_preview(out, items, export)
    result.faces = len(items)
    return result


@dataclass(frozen=True)
class _Generated:
    """That an input is generated, and what its manifest and its mark say of it."""

    kind: Kind
    facts: dict[str, Any] = field(default_factory=dict)
    id: int = 0

    def item(self, origin: Item) -> Item:
        """``origin`` as one of a generated input."""
        maker = str(self.facts.get("generator") or origin.generator)
        facts = origin.facts | {"kind": self.kind.label}
        return origin.model_copy(update={"label": 1, "generator": maker, "facts": facts})


def _generated(path: Path) -> _Generated | None:
    """Whether a file is generated, by its mark or by its manifest."""
    reading = read_file(path)
    provenance = manifest.verify(path)
    claims = provenance.claims
    said = [_KINDS.get(str(claims.get(key))) for key in ("kind", "source_type")]
    mark = _KINDS.get(reading.kind or "")
    if mark is None and reading.present and reading.payload is None:
        # A mark too weak to say of what kind; real footage is not marked but for tests.
        mark = Kind.GENERATED
    kind = next((kind for kind in (*said, mark) if kind is not None), None)
    if kind is None:
        return None
    believed = provenance.status in ("trusted", "untrusted")
    return _Generated(
        kind,
        dict(claims.get("facts") or {}) if believed else {},
        reading.payload.id if reading.payload else 0,
    )


def _writer(
    path: Path, generated: _Generated | None, export: Export
) -> Callable[[Path, Pixels], object]:
    """What writes the crops of ``path``: plainly, or marked and signed if it is generated."""
    if generated is None:
        return write_image

    def write(target: Path, pixels: Pixels) -> None:
        try:
            export(
                target,
                pixels,
                kind=generated.kind,
                inputs=[path],
                facts=generated.facts,
                id=generated.id,
            )
        except FacekitError as error:
            side = len(pixels)
            if side >= _ENOUGH:
                raise
            raise FacekitError(
                f"{path}: is {generated.kind.label} by its mark or manifest, and so must "
                f"its crops be; but {side} pixels are too few to hold a mark; give --size {_ENOUGH}"
            ) from error

    return write


@dataclass(frozen=True)
class _Found:
    """An aligned face, with its frame's time and its track where it is of a video."""

    aligned: AlignedFace
    time: float | None = None
    track: int | None = None


class _Journal:
    """The inputs that are done, each with its crops' rows; survives a kill at any point."""

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self.out = out
        self._path = out / _INPUTS
        self._settings = settings
        self._rows: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            head, *rows = _read_journal(self._path)
            if head != {"settings": settings}:
                raise FacekitError(
                    f"{out}: was made with other settings ({head.get('settings')}, now "
                    f"{settings}); give the same, or another --out"
                )
            self._rows = {row["input"]: row for row in rows}
        elif (out / MANIFEST).exists():
            raise FacekitError(f"{out}: holds another manifest; give an empty or new --out")
        self._write()
        self._owners = {row["name"].casefold(): name for name, row in self._rows.items()}

    def has(self, name: str, digest: str) -> bool:
        row = self._rows.get(name)
        whole = all((self.out / item.path).is_file() for item in self._items(name))
        return row is not None and row["sha256"] == digest and whole

    def forget(self, name: str) -> None:
        """Drop an input that has changed, with its crops."""
        for item in self._items(name):
            (self.out / item.path).unlink(missing_ok=True)
        if self._rows.pop(name, None):
            self._write()

    def _write(self) -> None:
        files.write_jsonl(self._path, [{"settings": self._settings}, *self._rows.values()])

    def is_faceless(self, name: str) -> bool:
        return name in self._rows and not self._rows[name]["items"]

    def crop_name(self, name: str) -> str:
        """The input's stem; with a hash of its path where another input has taken the stem."""
        stem = Path(name).stem
        # Some file systems take "A" and "a" for one name.
        if self._owners.setdefault(stem.casefold(), name) != name:
            stem += "-" + hashlib.sha256(name.encode()).hexdigest()[:8]
        return stem

    def add(self, name: str, digest: str, crop_name: str, items: list[Item]) -> None:
        rows = [item.model_dump() for item in items]
        row = {"input": name, "sha256": digest, "name": crop_name, "items": rows}
        self._rows[name] = row
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def items(self) -> list[Item]:
        return [item for name in sorted(self._rows) for item in self._items(name)]

    def _items(self, name: str) -> list[Item]:
        rows = self._rows[name]["items"] if name in self._rows else []
        return [Item.model_validate(row) for row in rows]


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


def _faces(
    path: Path,
    locator: Locator,
    template: str,
    size: int,
    every: float,
    device: torch.device,
) -> Iterator[_Found]:
    """The aligned faces of one input, a few frames in memory at a time."""
    if probe(path).kind == "image":
        pixels = read_image(path)
        faces = locator.locate([pixels])[0]
        for face in align_faces(pixels, faces, template=template, size=size, device=device):
            yield _Found(face)
        return
    tracker = Tracker(max_gap=max(2.0, 2 * every))
    with Video(path) as video:
        for frames in in_chunks(_looks(video, every), lambda frame: frame.pixels):
            located = locator.locate([frame.pixels for frame in frames])
            for frame, faces in zip(frames, located, strict=True):
                ids = tracker.update(faces, frame.time, frame.index)
                crops = align_faces(
                    frame.pixels, faces, template=template, size=size, device=device
                )
                for crop, track in zip(crops, ids, strict=True):
                    yield _Found(crop, frame.time, track)


def _looks(frames: Iterable[Frame], every: float) -> Iterator[Frame]:
    """The first frame of each period of ``every`` seconds."""
    due = -math.inf
    for frame in frames:
        if frame.time >= due:
            yield frame
            due = (math.floor(frame.time / every + 1e-6) + 1) * every - 1e-6


def _write_crops(
    journal: _Journal,
    name: str,
    digest: str,
    origin: Item,
    faces: Iterable[_Found],
    write: Callable[[Path, Pixels], object],
) -> None:
    """Write an input's crops and enter it as done; if it fails half-way, nothing stays."""
    crop_name = journal.crop_name(name)
    items: list[Item] = []
    try:
        for number, found in enumerate(faces):
            path = f"crops/{crop_name}-{number:03d}.png"
            write(journal.out / path, found.aligned.pixels)
            items.append(_item(path, journal.out, name, digest, origin, found))
    except (FacekitError, OSError):
        for item in items:
            (journal.out / item.path).unlink(missing_ok=True)
        raise
    journal.add(name, digest, crop_name, items)


def _item(path: str, out: Path, name: str, digest: str, origin: Item, found: _Found) -> Item:
    face = found.aligned.face
    facts: dict[str, object] = {
        "input": name,
        "input_sha256": digest,
        "box": face.box.tolist(),
        "points": face.points.tolist(),
        "score": face.score,
        "crop_from_image": found.aligned.crop_from_image.tolist(),
    }
    if found.track is not None:
        facts["track"] = found.track
    # By its seed a person is known again in other folders, and the kind is that of the marks.
    facts |= {key: origin.facts[key] for key in ("person_seed", "kind") if key in origin.facts}
    return origin.model_copy(
        update={
            "path": path,
            "sha256": files.sha256(out / path),
            "source": origin.source or name,
            "time": origin.time if found.time is None else found.time,
            "facts": facts,
        }
    )


def _write_preview(out: Path, items: list[Item], export: Export) -> None:
    """Write the sheet, marked as well if any of the crops is."""
    path = out / "preview.jpg"
    sheet = _preview([out / item.path for item in items])
    if not any("kind" in item.facts for item in items):
        write_image(path, sheet)
        return
    try:
        export(path, sheet, kind=Kind.COMPOSITE)
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
