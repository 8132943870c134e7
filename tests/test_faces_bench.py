"""The bench of the face stage: measures against oracles, outside data that is none, a run."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from faces_of_noise import landmarks_at
from sklearn.metrics import roc_auc_score

from facekit.cli import cli
from facekit.core.config import find, read_yaml
from facekit.core.errors import FacekitError
from facekit.datasets import faces_accuracy as accuracy
from facekit.datasets import faces_bench as bench
from facekit.datasets import london
from facekit.faces.align import TEMPLATES
from facekit.media.decode import Video
from facekit.media.images import write_image
from facekit.types import Face, Floats, Frame, Pixels

CPU = torch.zeros(0).device


def face_with(points: Floats, **facts: object) -> Face:
    """A face whose landmarks are ``points`` (70, 2), well known unless ``facts`` say otherwise."""
    box = np.concatenate([points.min(0), points.max(0)]).astype(np.float32)
    five = points[[68, 69, 30, 48, 54]]
    return Face(box, five, 1.0, landmarks_at(points, **facts))


def looks(faces: list[Face], people: list[int], crops: Pixels) -> list[accuracy.Look]:
    return [
        accuracy.Look(person, face, face, crop, crop)
        for person, face, crop in zip(people, faces, crops, strict=True)
    ]


# --- measures -------------------------------------------------------------------------------------


def test_errors_of_points_by_hand() -> None:
    truth = np.array([[[0, 0], [100, 0]], [[10, 10], [10, 60]]], np.float32)
    # The first face: off by 3-4-5 and by nothing; the second: both off by 10, to the right.
    read = truth + np.array([[[3, 4], [0, 0]], [[10, 0], [10, 0]]], np.float32)
    between = np.array([100, 50], np.float32)
    np.testing.assert_allclose(accuracy.point_errors(read, truth, between), [0.025, 0.2])


def test_an_open_and_a_closed_eye_by_hand() -> None:
    points = np.zeros((1, 70, 2), np.float32)
    eye = np.array([[0, 0], [10, -6], [20, -6], [30, 0], [20, 6], [10, 6]], np.float32)
    points[0, 36:42] = eye
    points[0, 42:48] = eye * [1, 0] + [100, 0]
    np.testing.assert_allclose(accuracy.openness(points), [[12 / 30, 0]])


def test_the_mean_face_is_placed_by_any_similarity() -> None:
    random = np.random.default_rng(0)
    shape = random.uniform(0, 1, (70, 2)).astype(np.float32)
    turn = 0.4 + 0.3j

    def move(points: np.ndarray) -> np.ndarray:
        x, y = points @ [turn.real, -turn.imag], points @ [turn.imag, turn.real]
        return np.stack([x * 90 + 20, y * 90 + 7], -1)

    five = move(TEMPLATES["wide"])
    np.testing.assert_allclose(accuracy.placed(shape, five[None])[0], move(shape), atol=1e-3)
    truth = accuracy.Truth(
        points=five[None].astype(np.float32),
        landmarks=move(shape)[None].astype(np.float32),
        pose=np.zeros((1, 3), np.float32),
        expression=np.zeros((1, 52), np.float32),
    )
    np.testing.assert_allclose(accuracy.mean_shape(truth), shape, atol=1e-4)


def test_verification_is_sklearns_auc() -> None:
    random = np.random.default_rng(1)
    people = [0, 0, 0, 1, 1, 2, 2, 3]
    crops = random.integers(0, 256, (len(people), 112, 112, 3), dtype=np.uint8)
    vectors = random.normal(size=(len(people), 8)).astype(np.float32)
    vectors += np.eye(4, 8, dtype=np.float32)[people] * 2
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    class Known:
        template, size, licence = "arcface", 112, "Apache-2.0"

        def embed(self, given: Pixels) -> Floats:
            assert np.array_equal(given, crops)
            return vectors

    shape = random.uniform(0, 100, (70, 2)).astype(np.float32)
    networks = accuracy.Networks(CPU, None, None, Known(), lambda given: -vectors[: len(given)])  # type: ignore[arg-type]
    (row,) = accuracy._verification(
        "faces.studio_auc", networks, looks([face_with(shape)] * len(people), people, crops)
    )
    i, j = np.triu_indices(len(people), 1)
    same = np.array(people)[i] == np.array(people)[j]
    floor = np.corrcoef(crops.mean(3).reshape(len(people), -1))[i, j]
    assert row.value == pytest.approx(roc_auc_score(same, (vectors[i] * vectors[j]).sum(1)))
    assert row.peer == pytest.approx(row.value)  # The judge says the same with all signs turned.
    assert row.floor == pytest.approx(roc_auc_score(same, floor))
    assert row.low is not None and row.high is not None and row.low <= row.value <= row.high


def test_rank_one_counts_who_is_found_among_all() -> None:
    random = np.random.default_rng(2)
    crops = random.integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    faces = [face_with(random.uniform(0, 9, (70, 2)).astype(np.float32))] * 3
    neutral = looks(faces, [0, 1, 2], crops)
    smiling = looks(faces, [0, 1, 2], crops[[0, 2, 1]])  # By pixels only the first is found.

    class Blind:
        template, size, licence = "arcface", 112, "Apache-2.0"

        def embed(self, given: Pixels) -> Floats:
            return np.tile(np.float32([[0, 1]]), (len(given), 1))

    networks = accuracy.Networks(CPU, None, None, Blind())  # type: ignore[arg-type]
    (row,) = accuracy._rank1(networks, list(zip(neutral, smiling, strict=True)))
    assert row.value == pytest.approx(1 / 3) and row.floor == pytest.approx(1 / 3)
    assert row.peer is None
    networks = replace(networks, judge=lambda given: np.eye(3, dtype=np.float32))
    assert accuracy._rank1(networks, list(zip(neutral, smiling, strict=True)))[0].peer == 1


def test_true_deviations_are_found_true() -> None:
    random = np.random.default_rng(3)
    count = 200
    truth = accuracy.Truth(
        points=np.zeros((count, 5, 2), np.float32),
        landmarks=random.uniform(0, 100, (count, 70, 2)).astype(np.float32),
        pose=np.zeros((count, 3), np.float32),
        expression=np.zeros((count, 52), np.float32),
    )
    stated = random.uniform(0.5, 8, (count, 1)).astype(np.float32) + np.zeros((1, 70), np.float32)
    read = truth.landmarks + random.normal(size=(count, 70, 2)) * stated[..., None]
    faces = [
        face_with(points.astype(np.float32), deviation=own)
        for points, own in zip(read, stated, strict=True)
    ]
    crops = np.zeros((count, 2, 2, 3), np.uint8)
    whose = np.arange(count) // 2
    rows = {
        row.name.removeprefix("faces.studio_deviation_"): row.value
        for row in accuracy._studio_deviations(looks(faces, whose.tolist(), crops), truth, whose)
    }
    assert rows["within_one"] == pytest.approx(0.683, abs=0.01)
    assert rows["within_two"] == pytest.approx(0.954, abs=0.01)
    assert rows["correlation"] > 0.9


def test_each_face_has_one_match() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 1, 10, 11], [50, 50, 60, 60]], np.float32)
    others = np.array([[0, 0, 10, 10], [53, 50, 63, 60]], np.float32)
    # One of the first two has the first; the third overlaps the second by 7/13 of the union.
    assert bench._matched(boxes, others).sum() == 2
    assert bench._matched(boxes, others)[2]
    assert not bench._matched(boxes, np.zeros((0, 4), np.float32)).any()
    assert bench._matched(np.zeros((0, 4), np.float32), others).shape == (0,)


def test_medians_of_repetitions() -> None:
    value, low, high = bench._median(np.array([3.0, 1, 2, 9, 4]))
    assert value == 3 and low is not None and high is not None and 1 <= low <= 3 <= high <= 9
    assert bench._median(np.array([2.0, 4])) == (3, None, None)


def test_misses_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shots = [np.full((64, 64, 3), 40 * i, np.uint8) for i in range(4)]
    bench.compose(tmp_path / "x.mp4", shots, (64, 64), rate=10.0, frames=4)
    # The peer is sure of a face in all frames, and takes something in the first for one too.
    box = np.array([[2, 2, 52, 52, 0.95]], np.float32)
    first = np.concatenate([box, np.array([[60, 2, 110, 52, 0.8]], np.float32)])
    monkeypatch.setattr(
        bench.Peer,
        "boxes",
        lambda _, frames: [first if i == 0 else box for i in range(len(frames))],
    )
    monkeypatch.setattr(bench.Peer, "__init__", lambda *_: None)
    face = face_with(np.random.default_rng(4).uniform(2, 52, (70, 2)).astype(np.float32))

    class Seen:
        def __init__(self, frame: Frame, faces: list[Face]) -> None:
            self.frame, self.faces = frame, faces

    class Script:
        """Sees the face in all frames but the second, and another besides in the third."""

        def follow(self, frames: Iterator[Frame]) -> Iterator[Seen]:
            right = replace(face, box=box[0, :4] + 1)
            wrong = replace(face, box=box[0, :4] + 100)
            for frame, seen in zip(frames, ([right], [], [right, wrong], [right]), strict=True):
                yield Seen(frame, seen)

    with caplog.at_level("INFO", "facekit"):
        found = bench.recall(Script(), [tmp_path / "x.mp4"], CPU, most=9)  # type: ignore[arg-type]
    rows = {row.name: row for row in found}
    assert rows["faces.recall"].value == 3 / 4 and rows["faces.recall"].floor == 1
    assert rows["faces.misses"].value == 1 and rows["faces.misses"].unit == "of 4 faces"
    assert rows["faces.recall_any"].value == 3 / 5
    assert rows["faces.misses_any"].value == 2 and rows["faces.misses_any"].unit == "of 5 boxes"
    assert rows["faces.extra"].value == 1 / 4
    assert [record.message for record in caplog.records if "missed" in record.message] == [
        "missed: x.mp4, 0.00 s, box 60 2 110 52, score 0.80",
        "missed: x.mp4, 0.10 s, box 2 2 52 52, score 0.95",
    ]


# --- clips ----------------------------------------------------------------------------------------


def test_a_composed_clip_shows_the_frames_to_and_fro(tmp_path: Path) -> None:
    shots = [np.full((60, 80, 3), level, np.uint8) for level in (40, 120, 200)]
    bench.compose(tmp_path / "clip.mp4", shots, (320, 180), rate=25.0, frames=6)
    with Video(tmp_path / "clip.mp4") as video:
        frames = list(video)
    assert [frame.pixels.shape for frame in frames] == [(180, 320, 3)] * 6
    levels = [int(frame.pixels[90, 160, 0]) for frame in frames]
    np.testing.assert_allclose(levels, [40, 120, 200, 120, 40, 120], atol=4)
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(6) / 25, atol=1e-3)


def test_a_picture_keeps_its_size_on_a_larger_canvas() -> None:
    picture = np.random.default_rng(5).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    canvas = bench._on_canvas(picture, (160, 90))
    assert canvas.shape == (90, 160, 3)
    assert np.array_equal(canvas[20:70, 60:100], picture)
    assert bench._on_canvas(picture, (64, 36)).shape == (36, 64, 3)


# --- outside data ---------------------------------------------------------------------------------


def london_set(folder: Path, people: int = 2) -> Path:
    """A set of that layout, of noise."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(6)
    for i in range(people):
        for mood in ("neutral", "smiling"):
            pixels = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            write_image(folder / f"{i:03d}_{mood}.jpg", pixels)
        rows = [f"{x:.2f} {x + i:.2f}" for x in range(london.POINTS)]
        (folder / f"{i:03d}_neutral.pts").write_text("\n".join(rows) + "\n")
    return folder


def test_the_london_set_is_read_in_order(tmp_path: Path) -> None:
    subjects = london.read(london_set(tmp_path / "london", 3))
    assert [subject.name for subject in subjects] == ["000", "001", "002"]
    assert subjects[0].neutral.shape == (20, 20, 3)
    # The nose's tip is the middle of 54 and 60.
    np.testing.assert_allclose(subjects[1].means(london.SEVEN)[:, 0], [18, 22, 23, 27, 57, 87, 93])
    np.testing.assert_allclose(subjects[1].means(london.FIVE)[:, 1], [1, 2, 58, 88, 94])
    assert len(london.read(tmp_path / "london", most=2)) == 2


@pytest.mark.parametrize("text", ["1 2\n", "a b\n" * 189, "1\n" * 189, "nan 1\n" * 189, "\xe9"])
def test_points_that_are_none_are_named(tmp_path: Path, text: str) -> None:
    folder = london_set(tmp_path / "london")
    (folder / "001_neutral.pts").write_text(text, encoding="utf-8")
    with pytest.raises(FacekitError, match=r"001_neutral\.pts: "):
        london.read(folder)


def test_a_missing_photo_is_named(tmp_path: Path) -> None:
    folder = london_set(tmp_path / "london")
    (folder / "001_smiling.jpg").unlink()
    with pytest.raises(FacekitError, match=r"001_smiling\.jpg: no such file"):
        london.read(folder)
    with pytest.raises(FacekitError, match="London Set"):
        london.read(tmp_path)


def said(*words: str) -> str:
    result = CliRunner().invoke(cli, ["bench", *words])
    assert isinstance(result.exception, FacekitError), result.output
    return str(result.exception)


def test_data_and_judges_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    assert "no such folder" in said("faces", "--data", str(tmp_path / "none"))
    assert "neither video/ nor london/" in said("faces", "--data", str(tmp_path))
    (tmp_path / "video").mkdir()
    assert "no d14.mp4 in it" in said("faces", "--data", str(tmp_path))
    judge = tmp_path / "judge.onnx"
    assert "--judge" in said("faces", "--judge", str(judge))
    judge.write_bytes(b"no network")
    assert "not an ONNX network" in said("faces", "--judge", str(judge))
    assert "the bench 'studio' takes none" in said("studio", "--judge", str(judge))
    assert "--data: the bench 'studio'" in said("studio", "--data", str(tmp_path))


# --- the whole ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_quick_run_has_all_rows_that_need_no_outside_data() -> None:
    result = CliRunner().invoke(cli, ["bench", "faces", "--quick", "--json"])
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    goals = {
        k: v for k, v in read_yaml(find("evaluations/goals")).items() if k.startswith("faces.")
    }
    outside = {"faces.recall", "faces.london_nme", "faces.london_rank1", "faces.london_auc"}
    assert set(goals) - outside <= set(rows)
    assert not outside & set(rows)
    for name, row in rows.items():
        assert np.isfinite(row["value"]), name
        assert row["goal"] == goals.get(name)
        assert row["low"] is None or row["low"] <= row["value"] <= row["high"]
    assert rows["faces.fps_1080p"]["peer"] > 0
    assert rows["faces.studio_nme"]["value"] < rows["faces.studio_nme"]["floor"]
    assert rows["faces.studio_located"]["value"] >= 0.8
    assert " cores of " in result.stderr
