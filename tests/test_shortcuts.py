"""The audit for shortcuts: what is planted is found, and nothing where nothing is."""

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detectors import shortcuts
from detectors.data import FaceSet
from detectors.regions import Region, cut, resized
from detectors.shortcuts import File, audit, audit_faces, audit_files, explain, tell
from facekit import watermark
from facekit.core.errors import FacekitError
from facekit.media import lossy
from facekit.media.encode import write_video
from facekit.types import Face, Frame

COUNT = 60
OF_FILES = {"size", "compression", "metadata", "mark", "name", "folder", "background"}
OF_FACES = {"size", "compression", "mark", "face", "background"}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def textured(random: np.random.Generator, height: int = 96, width: int = 96) -> np.ndarray:
    """A soft random picture of a random colour."""
    noise = random.normal(0, 30, (height // 8 + 1, width // 8 + 1, 3)).astype(np.float32)
    soft = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    fine = random.normal(0, 4, (height, width, 1))
    return np.clip(random.uniform(70, 180, 3) + soft + fine, 0, 255).astype(np.uint8)


def write(folder: Path, plant: str | None = None, count: int = COUNT) -> list[File]:
    """Files that are alike but for one thing that comes with a class."""
    random = rng(5)
    files = []
    for i in range(count):
        label = i % 2
        side = 80 + 8 * int(random.integers(4))
        if plant == "size" and label:
            side = 128
        pixels = textured(random, side, side)
        if plant == "mark" and label:
            payload = watermark.Payload(watermark.Kind.GENERATED, 3)
            pixels = watermark.embed(pixels, payload)
        if plant == "background" and label:
            pixels[: side // 10] = [60, 200, 90]
        name = "".join(random.choice(list("0123456789"), 6))
        if plant == "name":
            name = f"seed{name}" if label else f"IMG_{name[:4]}"
        path = folder / ("fake" if plant == "folder" and label else "real") / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        quality = 60 if plant == "compression" and label else 85
        extra = {}
        if plant == "metadata" and not label:
            extra["exif"] = Image.Exif()
            extra["exif"][0x010F] = "a camera"
        Image.fromarray(pixels).save(path, quality=quality, subsampling="4:2:0", **extra)
        files.append(File(path, label, f"source {i}"))
    return files


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> list[File]:
    return write(tmp_path_factory.mktemp("plain"))


def by_name(rows) -> dict[str, tuple[float, float, float]]:
    return {row.name.removeprefix("shortcut."): (row.low, row.value, row.high) for row in rows}


def test_files_that_are_alike_tell_nothing(plain) -> None:
    rows = audit_files(plain)
    found = by_name(rows)
    assert set(found) == OF_FILES
    for low, value, high in found.values():
        assert low <= 0.5 + 0.1 and low <= value <= high and value < 0.7
    for kind in ("metadata", "mark", "folder"):
        assert found[kind] == (0.5, 0.5, 0.5)
    assert all("little or nothing" in line for line in explain(rows))


@pytest.mark.parametrize("plant", sorted(OF_FILES))
def test_what_is_planted_in_files_is_found_and_nothing_else(tmp_path, plant) -> None:
    rows = audit_files(write(tmp_path, plant))
    found = by_name(rows)
    assert found[plant][1] > 0.95 and found[plant][0] > 0.85
    # What touches the pixels shows in the background's fine detail and in the file's bytes.
    touched = {"compression", "background"} if plant in ("size", "mark", "compression") else set()
    touched |= {"compression"} if plant in ("background", "metadata") else set()
    for kind in OF_FILES - {plant} - touched:
        assert found[kind][0] < 0.6, kind
    (line,) = [line for line in explain(rows) if line.startswith(f"shortcut.{plant} ")]
    assert "the classes can be told apart by" in line and "\n" not in line


def test_shuffled_labels_tell_nothing(tmp_path) -> None:
    files = write(tmp_path, "compression")
    labels = rng(1).permutation([file.label for file in files])
    shuffled = [File(f.path, int(v), f.source) for f, v in zip(files, labels, strict=True)]
    for low, value, _ in by_name(audit_files(shuffled)).values():
        assert low < 0.58 and value < 0.72


def test_rows_may_be_plain_and_the_audit_is_the_same_twice(plain) -> None:
    rows = [(file.path, file.label, file.source) for file in plain]
    assert audit(rows) == audit_files(plain)


def test_pictures_of_a_source_are_never_divided() -> None:
    """Each source has a colour of its own, which would tell a label that was seen before."""
    random = rng(2)
    sources = [f"{i // 6}" for i in range(240)]
    labels = np.array([int(source) % 2 for source in sources])
    colours = random.normal(0, 1, (40, 3))
    facts = {
        "background": [
            {f"colour {int(source)}": 1.0, **{str(k): float(c) for k, c in enumerate(colour)}}
            for source, colour in ((s, colours[int(s)]) for s in sources)
        ]
    }
    (kept,) = tell(facts, labels, sources)
    (divided,) = tell(facts, labels, [""] * 240)
    assert kept.low < 0.6 and kept.value < 0.7
    assert divided.value > 0.95


def test_texts_that_are_learnt_by_heart_do_not_count() -> None:
    labels = np.arange(60) % 2
    facts = {"name": [{"text": f"{i}"} for i in range(60)]}
    (row,) = tell(facts, labels, [""] * 60)
    assert (row.low, row.value, row.high) == (0.5, 0.5, 0.5)


def test_a_tenth_of_a_shortcut_is_measured_as_that() -> None:
    """The AUC of one number is that of its own order, by Mann and Whitney's count."""
    random = rng(4)
    labels = np.arange(400) % 2
    values = random.normal(0, 1, 400) + 0.8 * labels
    (row,) = tell({"size": [{"width": float(v)} for v in values]}, labels, [""] * 400)
    pairs = values[labels == 1][:, None] - values[labels == 0][None]
    assert row.value == pytest.approx((pairs > 0).mean(), abs=0.02)
    assert row.low < 0.714 < row.high  # Φ(0.8/√2), the truth


def test_videos_are_audited_by_their_first_frame(tmp_path) -> None:
    files = []
    for i in range(24):
        random = rng(i)
        path = tmp_path / f"{i:03}.mp4"
        frames = [Frame(textured(random, 64, 64), k / 25, k) for k in range(3)]
        write_video(path, frames, rate=25, crf=20 + 18 * (i % 2))
        files.append(File(path, i % 2))
    found = by_name(audit_files(files))
    assert found["compression"][1] > 0.95
    assert found["size"] == (0.5, 0.5, 0.5)


def test_files_that_cannot_be_read_are_counted_and_left_out(plain, tmp_path, caplog) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING, "facekit"):
        rows = audit_files([*plain, File(bad, 1), File(tmp_path / "none.png", 0)])
    assert "2 files left out of the audit" in caplog.text and "bad.jpg" in caplog.text
    assert by_name(rows)["size"] == by_name(audit_files(plain))["size"]


def test_too_few_sources_say_nothing_and_one_class_is_an_error(plain, caplog) -> None:
    with caplog.at_level(logging.WARNING, "facekit"):
        assert audit_files(plain[:16]) == []
    assert "has 8 sources, 10 are needed" in caplog.text
    for files in ([file for file in plain if file.label], []):
        with pytest.raises(FacekitError, match="both classes"):
            audit_files(files)


class AtTheTop:
    """A locator: faces of generated pictures (the larger ones) are higher up; some show none."""

    def locate(self, images) -> list[list[Face]]:
        random = rng(3)
        found = []
        for pixels in images:
            shift = random.uniform(0, 6) + (0 if pixels.shape[0] == 128 else 20)
            face = Face(BOX / 2 + np.float32(shift), POINTS / 2 + np.float32(shift), 1.0)
            found.append([face] if random.random() < 0.9 else [])
        return found


def test_faces_are_located_where_a_device_is_given(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shortcuts, "load_locator", lambda device: AtTheTop())
    found = by_name(audit_files(write(tmp_path, "size"), device=torch.device("cpu")))
    assert set(found) == OF_FILES | {"face"}
    assert found["face"][0] > 0.7


# --- faces in memory ------------------------------------------------------------------------------

BOX = np.array([40, 30, 90, 95], np.float32)
POINTS = np.array([[52, 55], [78, 55], [65, 68], [54, 80], [76, 80]], np.float32)


def faces(change: Callable[[Region], Region] | None = None, count: int = COUNT) -> FaceSet:
    """Regions that are alike but for a change to the generated ones."""
    random = rng(9)
    regions = []
    for i in range(count):
        factor = float(random.uniform(0.8, 1.2))
        shift = random.uniform(-4, 4, 2).astype(np.float32)
        face = Face(BOX + np.tile(shift, 2), POINTS + shift, 1.0)
        region = resized(Region(textured(random, 130, 130), face), factor)
        regions.append(change(region) if change and i % 2 else region)
    names, empty = [f"{i // 2}" for i in range(count)], [""] * count
    return FaceSet(
        regions=regions,
        labels=np.arange(count) % 2,
        subjects=names,
        sources=names,
        donors=empty,
        makers=empty,
        collections=empty,
        payloads=[None] * count,
        digests=names,
    )


def marked(region: Region) -> Region:
    payload = watermark.Payload(watermark.Kind.STUDIO, 1)
    return Region(watermark.embed(region.pixels, payload), region.face)


def in_blocks(region: Region) -> Region:
    return Region(lossy.jpeg(region.pixels, 10), region.face)


def green(region: Region) -> Region:
    pixels = region.pixels.copy()
    pixels[:8] = [30, 220, 60]
    return Region(pixels, region.face)


def narrow(region: Region) -> Region:
    return Region(
        np.ascontiguousarray(region.pixels[:, : int(region.face.box[2]) + 2]), region.face
    )


def test_faces_that_are_alike_tell_nothing() -> None:
    rows = audit(faces())
    found = by_name(rows)
    assert set(found) == OF_FACES
    for low, value, _ in found.values():
        assert low < 0.6 and value < 0.7


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (marked, "mark"),
        (in_blocks, "compression"),
        (green, "background"),
        (narrow, "face"),
        (lambda region: resized(region, 1.8), "size"),
    ],
)
def test_what_is_planted_in_faces_is_found(change, kind) -> None:
    found = by_name(audit_faces(faces(change)))
    assert found[kind][1] > 0.9 and found[kind][0] > 0.75


def test_a_mark_that_a_picture_came_with_counts() -> None:
    """It lies on the whole picture, so that a region alone may not show it."""
    plain = faces()
    payload = watermark.Payload(watermark.Kind.GENERATED, 1)
    came = [payload if label else None for label in plain.labels]
    found = by_name(audit_faces(type(plain)(**{**vars(plain), "payloads": came})))
    assert found["mark"][1] == 1.0


def test_a_face_that_fills_its_region_has_no_background(astronaut) -> None:
    face = Face(np.array([0, 0, 512, 512], np.float32), POINTS * 4, 1.0)
    region = cut(astronaut, face)
    assert shortcuts._background(region.pixels, region.face) == {"none": 1.0}
