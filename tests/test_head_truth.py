"""The true-answer benchmark of talking heads: what is rendered, and how frames are scored."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from lightning_fabric import Fabric

from facekit import motion
from facekit.cli import cli
from facekit.commands import generator_evaluate
from facekit.core import config, device
from facekit.core.errors import FacekitError
from facekit.datasets import head_truth
from facekit.datasets.head_truth import Protocol, Subject, read_protocol, render_subject
from facekit.generators import _head_truth
from facekit.generators._head_truth import Task
from facekit.generators._swap_truth import Readers
from facekit.media.images import read_image, write_image
from facekit.motion import Animator
from facekit.types import MANIFEST, Pixels, read_manifest

TINY = Protocol(people=2, photos=2, shots=[1, 2], clips=1, frames=2, size=128, compared=64, seed=3)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def subjects(kept: Path) -> list[Subject]:
    return [render_subject(TINY, number, kept=kept) for number in range(2)]


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return device.setup("cpu", threads=1)


@pytest.fixture(scope="module")
def readers(fabric: Fabric) -> Readers:
    return Readers.load(None, fabric.device)


def test_the_protocol_is_what_the_issue_asks_for() -> None:
    protocol = read_protocol()
    assert protocol.people >= 20 and protocol.clips >= 10 and protocol.shots == [1, 8, 32]
    assert protocol.compared == 128 and protocol.photos == 32
    assert head_truth.tasks(protocol) == ["t1", "t8", "t32", "cross"]


def test_a_protocol_of_another_studio_or_with_impossible_shots_is_refused(tmp_path: Path) -> None:
    for text, said in (("studio: 1\n", "studio version 1"), ("studio: 2\nshots: [64]\n", "shots")):
        (tmp_path / "p.yaml").write_text(text)
        with pytest.raises(FacekitError, match=said):
            read_protocol(tmp_path / "p.yaml")


def test_photos_and_clips_are_of_one_scene_and_everyone_gives_the_same_performance(
    subjects: list[Subject],
) -> None:
    for subject in subjects:
        assert subject.photos.shape == (2, 128, 128, 3) and subject.frames.shape[:2] == (1, 2)
        # The background's corner, which nobody reaches, but for the camera's noise.
        corners = [
            picture[:10, :10].mean((0, 1)) for picture in (*subject.photos, *subject.frames[0])
        ]
        assert np.ptp(np.stack(corners), axis=0).max() < 12
        assert 0.1 < (subject.region > 127).mean() < 0.6
    # Of two people, faces differ, but landmarks move alike.
    moves = [subject.landmarks[0, 1] - subject.landmarks[0, 0] for subject in subjects]
    assert np.abs(moves[0] - moves[1]).mean() < 0.5 * max(np.abs(moves[0]).mean(), 0.5)


def test_what_is_kept_is_taken_again_and_nothing_else(
    kept: Path, subjects: list[Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Subject:
        raise AssertionError("rendered again")

    monkeypatch.setattr(head_truth, "_rendered", never)
    again = render_subject(TINY, 1, kept=kept)
    assert all(np.array_equal(vars(again)[k], v) for k, v in vars(subjects[1]).items())
    with pytest.raises(AssertionError, match="rendered again"):
        render_subject(TINY.model_copy(update={"seed": 4}), 1, kept=kept)


def test_the_true_frames_score_best_and_trivial_ones_what_they_should(
    subjects: list[Subject], kept: Path, readers: Readers, fabric: Fabric
) -> None:
    def truth(task: Task) -> Sequence[Pixels]:
        return list(subjects[task.person].frames[0])

    measured = _head_truth.measure(truth, TINY, readers, fabric.device, kept=kept)
    rows = {row.name: row for row in measured.figures}
    for task in ("ssim_t1", "ssim_t2", "cross_ssim"):
        assert rows[f"head.{task}"].value == pytest.approx(1)
        assert max(rows[f"head.{task}.{name}"].value for name in ("copy", "warp")) < 0.98
        assert rows[f"head.{task}"].floor == max(
            rows[f"head.{task}.{name}"].value for name in ("copy", "warp")
        )
    assert rows["head.psnr_t1"].value == 100
    # The truth is read as well as the truth is.
    assert rows["head.cross_nme"].value == pytest.approx(rows["head.cross_nme.truth"].value)
    assert rows["head.cross_nme"].value < rows["head.cross_nme.copy"].value
    assert rows["head.identity"].value == pytest.approx(1)
    assert measured.sheet.dtype == np.uint8 and measured.sheet.shape[2] == 3


def test_a_dark_half_costs_the_decibels_that_arithmetic_says(
    subjects: list[Subject], readers: Readers
) -> None:
    truth = _head_truth._Truth.of(subjects[0], TINY, readers)
    off = np.clip(truth.frames.astype(int) + 10, 0, 255).astype(np.uint8)
    inner = replace(truth, frames=np.minimum(truth.frames, 245))
    found = inner.score(list(np.minimum(off, 255)), readers, wholly=False)
    rest = np.abs(off.astype(int) - inner.frames)
    assert rest.max() <= 10
    assert found.psnr == pytest.approx(20 * np.log10(255 / 10), abs=0.2)


def test_a_generator_is_asked_for_its_size_and_driven_by_what_was_seen(
    subjects: list[Subject], fabric: Fabric
) -> None:
    given: list[tuple[int, np.ndarray[Any, Any]]] = []

    def draw(cast: motion.Cast, landmarks: Any, first: int) -> Any:
        given.append((len(cast), landmarks))
        yield from np.zeros((len(landmarks), 96, 96, 3), np.uint8)

    method = _head_truth.by_animator(Animator(96, draw), TINY, fabric.device)
    watched = [_head_truth._watched(subject, TINY, fabric.device) for subject in subjects]
    own = method(Task("t2", 0, subjects[0].photos, watched[0], own=True))
    other = method(Task("cross", 0, subjects[0].photos[:1], watched[1], own=False))
    assert [count for count, _ in given] == [2, 1]
    assert len(own) == len(other) == 2
    true = subjects[0].landmarks[0] * 96 / 128
    apart = np.linalg.norm(true[0, 45] - true[0, 36])
    # Driven by oneself: what was seen. By somebody else: as oneself would do it.
    assert np.linalg.norm(given[0][1] - true, axis=2).mean() < 0.08 * apart
    assert np.linalg.norm(given[1][1] - true, axis=2).mean() < 0.15 * apart


def test_somebodys_frames_are_scored_and_missing_ones_named(
    subjects: list[Subject], kept: Path, readers: Readers, fabric: Fabric, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    with pytest.raises(FacekitError, match="not a folder"):
        _head_truth.by_frames(folder, TINY)
    for person, task in ((p, t) for p in range(2) for t in head_truth.tasks(TINY)):
        for k, pixels in enumerate(subjects[person].frames[0]):
            path = folder / head_truth.clip_folder(person, 0, task) / f"{k:05d}.png"
            write_image(path, pixels)
    method = _head_truth.by_frames(folder, TINY)
    rows = _head_truth.measure(method, TINY, readers, fabric.device, kept=kept).figures
    assert {row.name for row in rows} >= {"head.ssim_t1", "head.cross_nme", "head.identity"}
    assert next(row for row in rows if row.name == "head.ssim_t2").value == pytest.approx(1)
    path = folder / "person-01" / "cross" / "clip-00" / "00001.png"
    write_image(path, read_image(path)[:, :64])
    with pytest.raises(FacekitError, match="frames are square"):
        head_truth.read_frames(folder, TINY, 1, 0, "cross")
    with pytest.raises(FacekitError, match="frames are square"):
        head_truth.require_frames(folder, TINY)  # before anything is rendered
    path.unlink()
    with pytest.raises(FacekitError, match=r"1 of 12 frames are missing, e\.g\. person-01/cross"):
        head_truth.require_frames(folder, TINY)
    write_image(path, subjects[1].frames[0, 1])
    write_image(folder / "more.png", subjects[1].frames[0, 1])
    with pytest.raises(FacekitError, match="none of the protocol's"):
        head_truth.require_frames(folder, TINY)


def test_the_export_is_a_marked_data_set(
    kept: Path, subjects: list[Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator_evaluate, "_heads_protocol", lambda clips: TINY)
    arguments = ["-q", "generator", "evaluate", "head_truth", "--answers", str(kept)]
    out = tmp_path / "export"
    result = CliRunner().invoke(cli, [*arguments, "--export", str(out), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)[0]["value"] == 8
    items = read_manifest(out)
    assert len(items) == 8 and {item.label for item in items} == {1}
    assert {item.subject for item in items} == {"person-00", "person-01"}
    assert {item.source for item in items if item.subject == "person-00"} == {
        "person-00/photo",
        "person-00/clip-00",
    }
    photo = read_image(out / "person-00" / "photo-00.png")
    assert np.abs(photo.astype(int) - subjects[0].photos[0]).mean() < 4  # the mark
    again = CliRunner().invoke(cli, [*arguments, "--export", str(out)])
    assert "holds an export already" in str(again.exception)
    both = CliRunner().invoke(cli, [*arguments, "--export", str(out), "--frames", str(out)])
    assert "give one of" in str(both.exception)
    assert (out / MANIFEST).is_file() and (out / "protocol.json").is_file()


def test_the_bundled_protocol_is_found_by_name() -> None:
    assert config.find(head_truth.PROTOCOL).name == "head_truth.yaml"
