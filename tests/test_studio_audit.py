"""The studio's audit and bench: figures against oracles, judges that cannot be used, small runs."""

import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx_by_hand import constant, node, onnx_file, value
from sklearn.metrics import roc_auc_score, roc_curve

from facekit.cli import cli
from facekit.core import figures
from facekit.core.config import find, read_yaml
from facekit.core.errors import FacekitError
from facekit.core.figures import Figure
from facekit.faces.verification import Pairs, interval
from facekit.studio import audit, bench
from facekit.studio.audit import Shot
from facekit.studio.performance import Performance
from facekit.studio.person import Person
from facekit.studio.render import model, posed, render
from facekit.types import Face

# --- a judge, written as ONNX by hand -----------------------------------------------------------


def onnx(*nodes: bytes, size: int, extra: Sequence[bytes] = ()) -> bytes:
    return onnx_file(nodes, [value("x", (1, 3, 112, 112))], [value("y", (1, size))], extra)


def pooled(side: int) -> bytes:
    """A network that gives the mean colours of a grid's cells."""
    cells = (112 // side) ** 2 * 3
    pool = node("AveragePool", ["x"], "p", kernel_shape=(side, side), strides=(side, side))
    return onnx(pool, node("Flatten", ["p"], "y"), size=cells)


def mismatched() -> bytes:
    """A network whose weights do not fit to its input."""
    tensor = constant("w", np.zeros((7, 16)))
    flat = node("Flatten", ["x"], "f")
    return onnx(flat, node("MatMul", ["f", "w"], "y"), size=16, extra=[tensor])


@pytest.fixture
def judge(tmp_path: Path) -> Path:
    path = tmp_path / "judge.onnx"
    path.write_bytes(pooled(28))
    return path


def test_a_judge_gives_the_unit_vector_of_normalised_pixels(judge: Path) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    found = audit.load_judge(judge)(crops)
    pixels = (crops / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    cells = pixels.reshape(3, 4, 28, 4, 28, 3).mean((2, 4)).transpose(0, 3, 1, 2).reshape(3, -1)
    expected = cells / np.linalg.norm(cells, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file; give an ONNX file"),
        (b"", "not an ONNX network"),
        (b"these are words", "not an ONNX network"),
        (pooled(28)[:90], "not an ONNX network"),
        (pooled(112), "gives 3 numbers a face; 8 to 8192"),
        (mismatched(), "does not take pictures (1, 3, 112, 112)"),
    ],
)
def test_judges_that_cannot_be_used(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "judge.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FacekitError) as error:
        audit.load_judge(path)
    assert str(path) in str(error.value) and says in str(error.value)


# --- figures over pairs, and their intervals ----------------------------------------------------

BOX = np.array([20, 20, 80, 80], np.float32)
POINTS = np.array([[35, 40], [65, 40], [50, 55], [40, 70], [60, 70]], np.float32)


def shot(person: int, *, turned: bool = False, off: float | None = 0.0, yaw: float = 0.0) -> Shot:
    """A frame whose points MTCNN found ``off`` pixels to the right, or not at all."""
    face = None if off is None else Face(BOX, POINTS + np.array([off, 0], np.float32), 0.99)
    return Shot(
        person=person,
        performance=Performance(),
        turned=turned,
        pose=(yaw, 0.0, 0.0),
        points=POINTS,
        box=BOX,
        face=face,
        crop=None if face is None else np.full((112, 112, 3), 7, np.uint8),
        backdrop=None,
    )


def distance(point: NDArray[np.float64], line: NDArray[np.float64]) -> float:
    """How far a point lies from a line of joined points (N, 2)."""
    start, way = line[:-1], np.diff(line, axis=0)
    length = np.maximum((way**2).sum(1), 1e-30)
    along = np.clip(((point - start) * way).sum(1) / length, 0, 1)
    return float(np.linalg.norm(start + along[:, None] * way - point, axis=1).min())


@given(
    whose=st.lists(st.integers(0, 4), min_size=4, max_size=14),
    seed=st.integers(0, 999),
    coarse=st.booleans(),
)
def test_pairs_agree_with_scikit_learn(whose: list[int], seed: int, coarse: bool) -> None:
    random = np.random.default_rng(seed)
    similarity = random.normal(size=(len(whose), len(whose)))
    similarity = np.round(similarity) if coarse else similarity  # with ties
    pairs = Pairs.of_similarity(similarity, np.array(whose))
    counts = random.integers(0, 4, 5)
    i, j = np.triu_indices(len(whose), 1)
    a, b = np.array(whose)[i], np.array(whose)[j]
    if pairs is None:
        assert len(set(a == b)) < 2
        return
    weights = np.where(a == b, counts[a], counts[a] * counts[b]).astype(float)
    found = pairs.figures(counts)
    if not (weights[a == b].sum() and weights[a != b].sum()):
        assert np.isnan(found).all()
        return
    values = similarity[i, j]
    assert found[0] == pytest.approx(roc_auc_score(a == b, values, sample_weight=weights))
    false, true, _ = roc_curve(a == b, values, sample_weight=weights, drop_intermediate=False)
    assert distance(np.array([found[1], 1 - found[1]]), np.stack([false, true], 1)) < 1e-9
    for k, those in ((2, a == b), (3, a != b)):
        assert found[k] == pytest.approx(np.average(values[those], weights=weights[those]))


def test_a_perfect_judge_has_no_errors_and_a_blind_one_half() -> None:
    whose = np.arange(12) // 3
    perfect = Pairs.of(np.eye(4, dtype=np.float32)[whose], whose)
    blind = Pairs.of(np.ones((12, 4), np.float32) / 2, whose)
    assert perfect is not None and blind is not None
    ones = np.ones(4, np.int64)
    np.testing.assert_allclose(perfect.figures(ones), [1, 0, 1, 0])
    np.testing.assert_allclose(blind.figures(ones)[:2], [0.5, 0.5])


def test_an_interval_is_that_of_the_mean_of_people() -> None:
    values = np.random.default_rng(1).normal(size=400)

    def mean(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.array([(counts * values).sum() / counts.sum()])

    (low,), (high,) = interval(mean, 400)
    assert low is not None and high is not None
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.02)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.12)
    assert interval(mean, 400) == ([low], [high])


def test_draws_that_say_nothing_are_left_out() -> None:
    def only_of_the_first(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.array([1.0 if counts[0] else np.nan, 2.0])

    assert interval(only_of_the_first, 3) == ([1.0, 2.0], [1.0, 2.0])
    assert interval(lambda _: np.array([np.nan]), 3) == ([None], [None])


# --- what is found, and what MTCNN says ---------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "shift", "found"),
    [
        (BOX, 0, True),
        (BOX, 11.9, True),  # a fifth of 60 pixels is 12
        (BOX, 12.1, False),
        (BOX + 200, 0, False),  # the right points, but a box elsewhere
        (np.array([0, 0, 300, 300]), 0, False),  # a box about everything
        (np.array([20, 20, 80, 45]), 0, True),  # 25 of 60: above 0.4
        (np.array([20, 20, 80, 43]), 0, False),
    ],
)
def test_a_face_is_found_where_box_and_points_are_the_true_ones(
    box: NDArray[np.float32], shift: float, found: bool
) -> None:
    face = Face(box.astype(np.float32), POINTS + np.array([shift, 0], np.float32), 1.0)
    assert audit.is_found(face, BOX, POINTS) is found


def rows_of(shots: list[Shot], people: int, **kwargs: object) -> dict[str, Figure]:
    persons = [Person.sample(i) for i in range(people)]
    return {row.name: row for row in audit.figures(shots, persons, None, **kwargs)}  # type: ignore[arg-type]


def test_recall_and_landmarks_of_known_shots() -> None:
    shots = [
        shot(i % 4, off=off) for i, off in enumerate([0.0, 3.0, None, 3.0, 3.0, 6.0, 3.0, 0.0])
    ]
    shots += [shot(0, off=300.0, yaw=20.0)]  # not frontal: no matter for landmarks
    shots += [shot(i % 4, turned=True, off=None if i < 2 else 9.0, yaw=50.0) for i in range(4)]
    rows = rows_of(shots, 4)
    assert rows["studio.mtcnn_recall_30"].value == pytest.approx(8 / 9)
    assert rows["studio.mtcnn_recall_60"].value == pytest.approx(2 / 4)
    # The same points everywhere: a locator that is always the same is always right.
    assert rows["studio.mtcnn_recall_30"].floor == 1
    landmark = rows["studio.landmark_vs_mtcnn"]
    assert landmark.value == pytest.approx(3 / 30)
    assert landmark.floor == pytest.approx(0, abs=1e-6)
    assert rows["studio.landmark_vs_mtcnn.nose"].value == pytest.approx(3 / 30)
    assert "studio.judge_auc" not in rows


def test_no_face_at_all_leaves_rows_out_and_guesses_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shots = [shot(i % 2, off=None, turned=i > 3) for i in range(8)]
    persons = [Person.sample(i) for i in range(2)]
    rows = {row.name: row.value for row in audit.figures(shots, persons, lambda crops: crops)}  # type: ignore[arg-type,return-value]
    assert rows["studio.mtcnn_recall_30"] == 0
    assert not any("judge" in name or "landmark" in name for name in rows)
    assert "too few faces were found" in caplog.text


def test_backgrounds_that_say_who_it_is_are_told() -> None:
    colour = np.random.default_rng(2).uniform(0, 255, (5, 3)).astype(np.float32)
    leaking = [replace(shot(i % 5), backdrop=colour[i % 5]) for i in range(20)]
    other = np.random.default_rng(3).uniform(0, 255, (60, 3)).astype(np.float32)
    fair = [replace(shot(i % 5), backdrop=other[i]) for i in range(60)]
    turned = [replace(one, turned=True) for one in fair]
    assert rows_of(leaking + turned, 5)["studio.background_auc"].value == pytest.approx(1)
    assert abs(rows_of(fair + turned, 5)["studio.background_auc"].value - 0.5) < 0.1


def test_yaws_are_ahead_in_photos_and_even_in_turned_frames() -> None:
    people, frames = 6, 4
    taken = [list(audit._performances(3, i, people, frames)) for i in range(people)]
    photos = [moment for moments in taken for moment in moments[:frames]]
    turned = [moment for moments in taken for moment in moments[frames:]]
    assert len(photos) == len(turned) == people * frames
    assert max(abs(moment.pose[0]) for moment in photos) <= 30
    yaws = np.sort([moment.pose[0] for moment in turned])
    np.testing.assert_allclose(yaws, np.linspace(-60, 60, 24), atol=9)
    # No two frames share a performance, so nothing but the person ties a person's frames.
    assert len({moment.background for moment in photos + turned}) == 2 * people * frames


# --- the whole of it ----------------------------------------------------------------------------


@pytest.mark.parametrize(("people", "frames"), [(1, 6), (6, 1)])
def test_one_person_or_one_frame_is_no_audit(people: int, frames: int) -> None:
    with pytest.raises(FacekitError, match="at least 2 of each"):
        audit.audit(device=torch.zeros(0).device, people=people, frames=frames)


def test_a_small_audit(judge: Path) -> None:
    found = audit.audit(
        device=torch.zeros(0).device, people=3, frames=2, size=128, workers=1, judge=judge
    )
    rows = {row.name: row for row in found}
    goals = [name for name in read_yaml(find("evaluations/goals")) if name.startswith("studio.")]
    asked = [name for name in goals if name.split(".")[1].split("_")[0] in ("mtcnn", "judge")]
    assert len(asked) == 5 and set(asked) <= set(rows)
    assert rows["studio.mtcnn_recall_30"].value >= 5 / 6
    assert rows["studio.landmark_vs_mtcnn"].value < 0.15
    assert {"studio.judge_auc_60", "studio.background_auc"} <= set(rows)
    assert any(name.startswith("studio.mtcnn_recall_60.") for name in rows)
    for row in found:
        assert np.isfinite(row.value)
        assert row.low is None or row.high is None or row.low <= row.high


# --- the bench ----------------------------------------------------------------------------------


def test_the_peer_sees_the_same_head() -> None:
    person, performance = Person.sample(5), Performance()
    of = model(person.model_dump_json())
    picture = bench._lambert(of, posed(of, performance, 96), 96)
    truth = np.isfinite(render(person, performance, 96).depth)
    # Where the lamp does not shine the peer is as black as the background.
    assert ((picture > 0) & ~truth).mean() < 0.01
    assert ((picture > 0) & truth).sum() > 0.6 * truth.sum()


def test_the_most_memory_of_a_process() -> None:
    assert 0.01 < bench._peak(os.getpid()) < 100
    assert bench._peak(2**30) == 0


def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FacekitError, match=r"studio render .* failed with 1: facekit: .*file"):
        bench._start(tmp_path / "cache", tmp_path / "file")


@pytest.mark.slow
def test_the_bench_of_the_studio_in_few_frames() -> None:
    result = CliRunner().invoke(cli, ["bench", "studio", "--quick", "--json"])
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    goals = read_yaml(find("evaluations/goals"))
    for name in ("fps_128", "fps_256", "cold_start_s", "warm_start_s", "worker_gib", "same_bytes"):
        assert rows[f"studio.{name}"]["goal"] == goals[f"studio.{name}"]
        assert rows[f"studio.{name}"]["value"] > 0
    assert rows["studio.same_bytes"]["value"] == 1
    assert rows["studio.fps_128"]["peer"] > 0
    assert " cores of " in result.stderr and "load" in result.stderr
    assert not multiprocessing.active_children()


def test_an_unknown_bench_names_the_nearest() -> None:
    result = CliRunner().invoke(cli, ["bench", "studi"])
    assert isinstance(result.exception, FacekitError)
    assert "no bench 'studi'; did you mean 'studio'?" in str(result.exception)


def test_without_trimesh_the_peer_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def given(result: object) -> Callable[..., object]:
        return lambda *_: result

    monkeypatch.setattr(bench, "find_spec", given(None))
    monkeypatch.setattr(bench, "_rate", given((10.0, 0.0)))
    monkeypatch.setattr(bench, "_start", given(1.0))
    monkeypatch.setattr(bench, "_same_bytes", given(1.0))
    rows = {row.name: row for row in bench.bench(quick=True)}
    assert rows["studio.fps_128"].peer is None
    assert "studio.fps_128.ratio" not in rows
    assert "studio.worker_gib" not in rows  # The system does not tell.


def test_names_are_never_cut_in_a_narrow_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    name = "studio.landmark_vs_mtcnn.right_mouth_corner"
    row = Figure(name, 0.0525, low=0.0411, high=0.0634, floor=0.1167, goal="<= 0.06")
    figures.show([row], as_json=False)
    line = next(line for line in capsys.readouterr().out.splitlines() if name in line)
    assert "0.0525" in line and "<= 0.06" in line
