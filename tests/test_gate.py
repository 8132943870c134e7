"""Whose faces may be generated: the studio's certificate, and the gate of every generator."""

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from click.testing import CliRunner

from facekit import generators
from facekit.commands import detector_faces
from facekit.commands.generator import command as generator_command
from facekit.commands.generator_convert import convert_file
from facekit.core import checkpoint, config, device, files
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.generators._gate import DRAW_NO_FACES
from facekit.media.encode import write_video
from facekit.media.images import read_image, write_image
from facekit.studio import certificate
from facekit.studio.certificate import verify
from facekit.studio.clip import render_clip, render_folder
from facekit.types import Frame, Item, read_manifest, write_manifest
from facekit.watermark import Kind

# Whatever draws no faces is handed nothing at all: tests/test_points.py.
PLUGINS = [name for name in generators.names() if name not in DRAW_NO_FACES]
SIZE = 64


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people, eight photos of each."""
    out = tmp_path_factory.mktemp("studio") / "people"
    render_folder(out, people=3, frames=8, size=SIZE, seed=2)
    return out


@pytest.fixture
def copy(people: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(people, tmp_path / "copy"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("studio") / "clip"
    render_clip(out, person_seed=1, seconds=0.8, rate=25, size=128, seed=3)
    return out


@pytest.fixture(scope="module")
def photo() -> np.ndarray[Any, Any]:
    return cv2.resize(skimage.data.astronaut()[:300, 80:380], (SIZE, SIZE))


def forge(folder: Path, *names: str, pixels: np.ndarray[Any, Any] | None = None) -> None:
    """Replace files, if ``pixels`` are given, and rewrite every hash that anyone could rewrite."""
    rows = files.read_jsonl(folder / "manifest.jsonl")
    content = files.read_json(folder / "certificate.json")
    for row in rows:
        if row["path"] in names:
            if pixels is not None:
                write_image(folder / row["path"], pixels)
            row["sha256"] = content["files"][row["path"]] = files.sha256(folder / row["path"])
    files.write_jsonl(folder / "manifest.jsonl", rows)
    content["files"]["manifest.jsonl"] = files.sha256(folder / "manifest.jsonl")
    files.write_json(folder / "certificate.json", content)


# What lies in a certified folder --------------------------------------------------------------


@pytest.mark.parametrize("name", ["photo.bin", "person-0000/photo", "clip/real.bin", ".photo.png"])
def test_a_file_that_is_not_listed_is_refused_whatever_its_name(
    copy: Path, photo: np.ndarray[Any, Any], name: str
) -> None:
    (copy / name).parent.mkdir(exist_ok=True)
    write_image(copy / "photo.png", photo)
    (copy / "photo.png").rename(copy / name)
    for path in (copy, copy / name):
        with pytest.raises(FacekitError, match=r"not listed|no certificate"):
            verify(path)
    (copy / name).unlink()
    assert verify(copy / "person-0000" / "0000.png")


def test_a_video_beside_a_clip_is_refused(clip: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(clip, tmp_path / "clip"))
    frames = [Frame(np.full((64, 64, 3), i, np.uint8), i / 25, i) for i in range(5)]
    write_video(tmp_path / "real.mp4", frames)
    shutil.copy(tmp_path / "real.mp4", copy / "real.bin")
    with pytest.raises(FacekitError, match="not listed"):
        verify(copy / "real.bin")


def test_links_are_refused(copy: Path, tmp_path: Path, photo: np.ndarray[Any, Any]) -> None:
    album = tmp_path / "album"
    write_image(album / "0000.png", photo)
    (copy / "friends").symlink_to(album)
    for path in (copy / "friends" / "0000.png", copy):
        with pytest.raises(FacekitError, match="link"):
            verify(path)
    (copy / "friends").unlink()
    picture = copy / "person-0001" / "0002.png"
    picture.rename(album / "own.png")
    picture.symlink_to(album / "own.png")
    with pytest.raises(FacekitError, match="link"):
        verify(copy)


def test_a_file_of_another_folder_is_not_covered(copy: Path, tmp_path: Path) -> None:
    real = tmp_path / "photo.png"
    shutil.copy(copy / "person-0000" / "0000.png", real)
    with pytest.raises(FacekitError, match="no certificate"):
        verify(real)
    for name in ("certificate.json", "manifest.jsonl"):
        with pytest.raises(FacekitError, match="not listed"):
            verify(copy / name)


def test_what_a_killed_write_left_does_no_harm(copy: Path) -> None:
    (copy / "person-0000" / ".0001.123.part.png").write_bytes(b"half")
    assert verify(copy)


# What is rendered again -----------------------------------------------------------------------


def test_the_draw_follows_from_the_content(copy: Path, people: Path) -> None:
    first = verify(people)
    assert len(first.checked) == 6
    assert {name.split("/")[0] for name in first.checked} == set(first.people)
    assert verify(people).checked == first.checked == verify(copy).checked
    name = "person-0000/0003.png"
    picture = cv2.imread(str(copy / name))
    cv2.imwrite(str(copy / name), picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    forge(copy, name)
    assert verify(copy).checked != first.checked
    assert len(verify(people, samples=9).checked) == 9


def test_a_picture_given_as_input_is_always_looked_at(
    copy: Path, photo: np.ndarray[Any, Any]
) -> None:
    for frame in range(8):
        name = f"person-0001/{frame:04d}.png"
        before = [(copy / n).read_bytes() for n in (name, "manifest.jsonl", "certificate.json")]
        forge(copy, name, pixels=photo)
        with pytest.raises(FacekitError, match="does not show"):
            verify(copy / name)
        for n, content in zip((name, "manifest.jsonl", "certificate.json"), before, strict=True):
            (copy / n).write_bytes(content)
        assert verify(copy / name).checked == (name,)


def test_one_person_who_is_real_is_always_found(copy: Path, photo: np.ndarray[Any, Any]) -> None:
    for turn in range(3):
        names = [f"person-{turn:04d}/{frame:04d}.png" for frame in range(8)]
        forge(copy, *names, pixels=np.roll(photo, turn, axis=1))
        with pytest.raises(FacekitError, match="does not show"):
            verify(copy)
    with pytest.raises(FacekitError, match="does not show"):
        generators.certified(copy)


@pytest.mark.parametrize(("frames", "count"), [(1, 1), (5, 5), (8, 8), (50, 8), (100, 10)])
def test_frames_of_a_clip_are_drawn_all_over_it(clip: Path, frames: int, count: int) -> None:
    found = certificate.read(clip)
    drawn = certificate._draw_frames(found, frames, 0)
    assert drawn == sorted(set(drawn)) and len(drawn) == count
    assert drawn[0] == 0 and drawn[-1] == frames - 1
    assert np.diff(drawn, prepend=0).max() <= 2 * frames / max(count - 2, 1) + 1


def test_a_clip_is_looked_at_from_first_to_last(clip: Path) -> None:
    checked = [int(name.split("#")[1]) for name in verify(clip / "clip.mp4").checked]
    assert len(checked) == 8 and checked[0] == 0 and checked[-1] == 19


# The gate of every generator ------------------------------------------------------------------


def start(plugin: str, data: Path, out: Path, *consent: str) -> generators.GatedRun:
    settings = generators.load(plugin).Config()
    fabric = device.setup("cpu", threads=1)
    return generators.start(plugin, settings, data, out, fabric, consent=consent)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_no_generator_trains_on_photos_or_claims_the_run_folder(
    plugin: str, copy: Path, tmp_path: Path, photo: np.ndarray[Any, Any]
) -> None:
    photos = tmp_path / "photos"
    write_image(photos / "ann" / "0.png", photo)
    with pytest.raises(FacekitError, match="consent record of everyone") as caught:
        start(plugin, photos, tmp_path / "run")
    said = str(caught.value)
    assert "facekit consent grant" in said and "facekit studio render" in said
    row = Item(path="ann/0.png", sha256=files.sha256(photos / "ann/0.png"), subject="ann")
    write_manifest(photos, [row])
    with pytest.raises(FacekitError, match="consent"):
        start(plugin, photos, tmp_path / "run")
    write_image(copy / "person-0000" / "0000.png", photo)
    with pytest.raises(FacekitError, match="consent"):
        start(plugin, copy, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("plugin", PLUGINS)
def test_every_training_records_its_consent(plugin: str, people: Path, tmp_path: Path) -> None:
    run = start(plugin, people, tmp_path / "run")
    assert run.facts["consent"] == certificate.read(people).id
    assert run.facts["id"] == run.id and "ledger" not in run.facts
    assert run.items == tuple(read_manifest(people))
    run.save(1, {})
    assert checkpoint.notes(run.checkpoints()[0]) == {"consent": f'"{run.facts["consent"]}"'}
    assert generators.open_run(run.folder).facts == run.facts


def test_a_studio_folder_that_is_changed_meanwhile_is_not_learned_from(
    copy: Path, tmp_path: Path, photo: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start("face_swap", copy, tmp_path / "run")
    write_image(copy / "person-0000" / "0003.png", photo)
    module, fabric = generators.load("face_swap"), device.setup("cpu", threads=1)
    with pytest.raises(FacekitError, match=r"0003\.png: was changed while it was used"):
        module.train(module.Config(steps=1), copy, run, fabric)
    assert not run.checkpoints() and not run.metrics()

    def swapped_after(path: Path) -> certificate.Certificate:
        found = verify(path)
        forge(path, "person-0001/0002.png", pixels=photo)
        return found

    shutil.rmtree(copy)
    render_folder(copy, people=3, frames=8, size=SIZE, seed=2)
    monkeypatch.setattr(certificate, "verify", swapped_after)
    with pytest.raises(FacekitError, match=r"manifest\.jsonl: was changed while it was used"):
        start("face_swap", copy, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("id", ["me and my friends", "studio-of-mine", "c-0123456789ab", "none"])
def test_a_studio_claim_that_is_no_certificates_is_refused(
    id: str, copy: Path, people: Path, tmp_path: Path
) -> None:
    run = start("face_swap", people, tmp_path / "run")
    run.note(consent=id)
    run.notes = {"consent": json.dumps(id)}
    Run.save(run, 1, {})
    with pytest.raises(FacekitError, match=rf"'consent' is {id!r}; a certificate's id"):
        generators.open_run(run.folder)
    content = files.read_json(copy / "certificate.json") | {"id": id.ljust(8, "x")}
    files.write_json(copy / "certificate.json", content)
    with pytest.raises(FacekitError, match="none of the studio's"):
        start("face_swap", copy, tmp_path / "other")


def test_a_name_that_is_none_and_a_file_that_goes_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FacekitError, match="not a file name"):
        generators.closed_file("a\0b.png")
    (tmp_path / "a.png").write_bytes(b"just now")
    monkeypatch.setattr("time.sleep", lambda seconds: (tmp_path / "a.png").unlink())
    with pytest.raises(FacekitError, match=r"a\.png: not readable"):
        generators.closed_file(str(tmp_path / "a.png"))


def test_plugins_are_run_behind_the_gate_alone() -> None:
    """Nobody calls a plug-in's ``generate`` or ``bundle`` but the gate, which asks for consent."""
    gate = Path(generators.__file__)
    # What else is called so: keys are generated, and the face stage's lessons bundle.
    others = {"generators", "Ed25519PrivateKey", "lessons"}
    owners = {
        ast.unparse(call.func.value)
        for path in gate.parent.parent.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        if call.func.attr in ("generate", "bundle") and path != gate
    }
    assert owners <= others


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_run_without_consent_changes_nothing(plugin: str, people: Path, tmp_path: Path) -> None:
    fabric = device.setup("cpu", threads=1)
    run = Run.start(
        tmp_path / "run",
        plugin=plugin,
        config=generators.load(plugin).Config(),
        seed=0,
        data_hash=files.sha256(people / "manifest.jsonl"),
        threads=1,
        precision="32-true",
    )
    path = str(people / "person-0000" / "0000.png")
    with pytest.raises(FacekitError, match="records no certificate"):
        convert_file(run.folder, path, tmp_path / "out.png", fabric, source="person-0001")
    with pytest.raises(FacekitError, match="records no certificate"):
        detector_faces.open_source(people, run.folder, seed=0)


class Tinter:
    """A generator that tints pictures that are bright enough."""

    KIND = Kind.COMPOSITE
    least = 0.0

    def __init__(self) -> None:
        self.given: list[str] = []

    def generate(self, run: Run, frames: Any, fabric: Any, **words: Any) -> Any:
        self.given.append(words.get("target") or "")
        for frame in frames:
            dark = frame.index < self.least
            yield frame if dark else Frame(255 - frame.pixels, frame.time, frame.index)


@pytest.fixture
def tinter(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Tinter, Path]:
    run = Run.start(
        tmp_path / "tint",
        plugin="tinter",
        config=config.Config(),
        seed=0,
        data_hash=files.sha256(people / "manifest.jsonl"),
        threads=1,
        precision="32-true",
    )
    run.note(consent=certificate.read(people).id)
    plugin = Tinter()
    monkeypatch.setattr("facekit.generators.load", lambda name: plugin)
    # Files that were just written are not waited for; those that grow are test_generators'.
    monkeypatch.setattr("facekit.generators._gate.SETTLED", 0.0)
    return plugin, run.folder


def test_a_detector_is_handed_no_swap_of_uncertified_people(
    people: Path, tinter: tuple[Tinter, Path], copy: Path, photo: np.ndarray[Any, Any]
) -> None:
    forge(copy, *(item.path for item in read_manifest(copy)), pixels=photo)
    run = Run(tinter[1])
    run.note(data_hash=files.sha256(copy / "manifest.jsonl"))
    with pytest.raises(FacekitError, match="consent"):
        detector_faces.open_source(copy, tinter[1], seed=0)


def test_only_people_of_the_generators_folder_are_swapped(
    people: Path, tinter: tuple[Tinter, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    rows = []
    for item in read_manifest(people):
        name = item.path.replace("person", "real")
        files.write_bytes(other / name, (people / item.path).read_bytes())
        facts = {"person_seed": 900 + int(item.subject[-1])}
        subject = item.subject.replace("person", "real")
        changed = {"path": name, "subject": subject, "source": name, "facts": facts}
        rows.append(item.model_copy(update=changed))
    write_manifest(other, rows)
    plugin, run = tinter
    fabric = device.setup("cpu", threads=1)
    everyone = {"train": [], "validation": [], "test": []}
    source = detector_faces.open_source(people, run, other, seed=0, seen=everyone)
    chosen = detector_faces._chosen(source, "test", 3)
    samples = list(detector_faces._samples(source, "test", chosen, fabric))
    assert {sample.subject for sample in samples if sample.label == 0} == set(source.people["test"])
    assert set(plugin.given) == {"person-0000", "person-0001", "person-0002"}


# What a run says that it did ------------------------------------------------------------------


def test_a_run_says_how_many_frames_it_changed(
    tinter: tuple[Tinter, Path], clip: Path, tmp_path: Path
) -> None:
    words = [str(tinter[1]), "--input", str(clip / "clip.mp4"), "--source", "person-0001"]
    out = tmp_path / "out.mp4"
    result = CliRunner().invoke(
        generator_command, ["run", *words, "--out", str(out), "--json"], catch_exceptions=False
    )
    facts = json.loads(result.stdout)
    assert (facts["changed"], facts["frames"], facts["untouched"]) == (20, 20, [])


def test_a_studio_picture_that_is_changed_meanwhile_is_not_used(
    tinter: tuple[Tinter, Path], copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = copy / "person-0000" / "0000.png", tmp_path / "out.png"
    admit = generators.admit_file

    def admit_then_swap(*words: Any) -> generators.Permit:
        permit = admit(*words)
        write_image(path, read_image(path)[:, ::-1])
        return permit

    monkeypatch.setattr(generators, "admit_file", admit_then_swap)
    fabric = device.setup("cpu", threads=1)
    with pytest.raises(FacekitError, match=r"0000\.png was changed while it was used"):
        convert_file(tinter[1], str(path), out, fabric, source="person-0001")
    assert not out.exists()


@pytest.mark.parametrize("suffix", [".png", ".mp4"])
def test_nothing_is_written_if_no_frame_shows_a_face(
    tinter: tuple[Tinter, Path], people: Path, clip: Path, tmp_path: Path, suffix: str
) -> None:
    tinter[0].least = 1000
    path = clip / "clip.mp4" if suffix == ".mp4" else people / "person-0000" / "0000.png"
    fabric = device.setup("cpu", threads=1)
    out = tmp_path / "new" / f"out{suffix}"
    with pytest.raises(FacekitError, match="no frame shows a face"):
        convert_file(tinter[1], str(path), out, fabric, source="person-0001")
    assert not list(out.parent.glob("*"))
