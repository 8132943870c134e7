"""The evaluation by a config: what is shown to the scorers, and the figures rebuilt from scores."""

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from detectors import collections, evaluate, outcome, protocol, tables
from detectors.collections import Collection, Entry
from detectors.data import FaceSet
from detectors.outcome import REAL
from detectors.protocol import Config, TestSet
from detectors.regions import Region
from detectors.score import Detector
from facekit import watermark
from facekit.core import files
from facekit.core.config import find, read_yaml, validate
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.watermark.payload import Kind, Payload

TestSet.__test__ = False  # type: ignore[attr-defined]  # no test class, for all its name


# --- figures from scores --------------------------------------------------------------------------


def row(number: int, of: str, label: int, score: float | None, **facts: Any) -> dict[str, Any]:
    return {
        "id": number,
        "path": f"{of}/{number}.png",
        "set": of,
        "tested": True,
        "paired": False,
        "label": label,
        "subject": f"person {number % 20}",
        "source": f"{of}/{number}.png",
        "donor": "",
        "maker": "" if label == 0 else of,
        "collection": "camera" if label == 0 else of,
        "probability": score,
        "ratio": None,
        "sets": None,
        "verdict": None,
        "peers": {"peer": 0.5},
        "scores": {},
        "reason": None,
        "time": None,
        "video": "",
        **facts,
    }


def rows_by_chance(seed: int = 0) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    rows = [row(i, REAL, 0, float(p)) for i, p in enumerate(random.beta(2, 5, 60))]
    rows += [row(60 + i, "b", 1, float(p)) for i, p in enumerate(random.beta(5, 2, 40))]
    for i, p in enumerate(random.beta(4, 3, 30)):
        own = {"source": rows[i]["source"], "subject": rows[i]["subject"], "paired": True}
        rows.append(row(100 + i, "selfblend", 1, float(p), **own))
    return rows


def value_of(figures: Sequence[Any], name: str) -> float:
    return next(float(figure.value) for figure in figures if figure.name == name)


def test_a_test_is_measured_against_all_untouched_faces() -> None:
    rows = rows_by_chance()
    figures = outcome.figures_of(rows, "b", ["peer"])
    chosen = [row for row in rows if row["set"] in (REAL, "b")]
    expected = roc_auc_score([r["label"] for r in chosen], [r["probability"] for r in chosen])
    assert value_of(figures, "detect.b_auc") == pytest.approx(expected)
    assert value_of(figures, "detect.b_auc.peer") == 0.5
    assert all(f.low <= f.value <= f.high for f in figures if f.name == "detect.b_auc")
    assert [f.peer for f in figures if f.name == "detect.b_auc"] == [0.5]
    names = {f.name for f in figures}
    assert {
        f"detect.b_{key}" for key in ("auc", "tpr1", "tpr01", "ap", "eer", "brier", "cllr")
    } <= (names)


def test_pairs_are_measured_against_their_own_pictures() -> None:
    rows = rows_by_chance()
    chosen = outcome.rows_of(rows, "selfblend")
    assert sum(r["label"] == 0 for r in chosen) == sum(r["label"] == 1 for r in chosen) == 30
    assert {r["source"] for r in chosen if r["label"] == 0} == {
        r["source"] for r in chosen if r["label"] == 1
    }


def test_a_collection_with_originals_is_measured_against_these() -> None:
    rows = rows_by_chance()
    rows += [row(200 + i, "clips", i % 2, 0.1 + 0.8 * (i % 2)) for i in range(20)]
    assert [r["set"] for r in outcome.rows_of(rows, "clips")] == ["clips"] * 20
    assert outcome.tests_in(rows) == ["b", "selfblend", "clips"]


def test_frames_of_videos_are_also_counted_by_video() -> None:
    random = np.random.default_rng(0)
    rows = [
        row(
            i,
            REAL if i < 60 else "b",
            int(i >= 60),
            float(np.clip(random.normal(0.4 + 0.2 * (i >= 60), 0.2), 0, 1)),
            path=f"clip {i // 6}.mp4{outcome.FRAME}{i % 6}",
            video=f"clip {i // 6}.mp4",
            subject=f"person {i // 6}",
        )
        for i in range(120)
    ]
    (table,) = outcome._by_unit(rows, ["b"])
    figures = {one["name"]: one["value"] for one in table["figures"]}
    means = np.array([r["probability"] for r in rows]).reshape(20, 6).mean(axis=1)
    assert figures["video.auc"] == pytest.approx(roc_auc_score([0] * 10 + [1] * 10, means))
    assert outcome._by_unit(rows_by_chance(), ["b"]) == []


def test_what_has_no_score_counts_as_wrong() -> None:
    rows = [row(0, REAL, 0, 0.1), row(1, REAL, 0, None), row(2, "b", 1, 0.9), row(3, "b", 1, None)]
    scores, labels = outcome.arrays(rows)
    assert scores.tolist() == [0.1, 1.0, 0.9, 0.0]
    assert labels.tolist() == [0, 0, 1, 1]
    assert roc_auc_score(labels, scores) == 0.25


def test_the_peer_is_the_best_of_the_peers() -> None:
    rows = rows_by_chance()
    for r in rows:
        r["peers"] = {"good": float(r["label"]), "bad": 1.0 - r["label"]}
    figures = {f.name: f for f in outcome.figures_of(rows, "b", ["good", "bad"])}
    assert figures["detect.b_auc"].peer == 1.0
    assert figures["detect.b_eer"].peer == 0.0  # the lower, the better
    assert figures["detect.b_auc.bad"].value == 0.0


def test_likelihood_ratios_are_the_detectors_own_where_it_gives_them() -> None:
    rows = [row(i, REAL if i < 20 else "b", int(i >= 20), 0.5, ratio=0.0) for i in range(40)]
    certain = [r | {"ratio": 3.0 if r["label"] else -3.0} for r in rows]
    assert value_of(outcome.figures_of(rows, "b", []), "detect.b_cllr") == 1.0
    assert value_of(outcome.figures_of(certain, "b", []), "detect.b_cllr") == pytest.approx(
        np.log2(1.001)
    )


def test_coverage_is_that_of_the_class_for_which_it_is_kept_worse() -> None:
    def sets(i: int, label: int) -> list[bool]:
        # Of the untouched 18 in 20 hold their own, of the generated 15 in 20.
        own = i % 20 < (15 if label else 18)
        return [own, True] if label == 0 else [True, own]

    rows = [
        row(i, REAL if i < 100 else "b", int(i >= 100), 0.5, sets=sets(i, int(i >= 100)))
        for i in range(200)
    ]
    figures = outcome.belief_figures(rows, 0.9)
    assert value_of(figures, "detect.coverage.untouched") == pytest.approx(0.9)
    assert value_of(figures, "detect.coverage.generated") == pytest.approx(0.75)
    assert value_of(figures, "detect.coverage_gap") == pytest.approx(0.15)
    assert [f.name for f in outcome.belief_figures(rows, None)] == ["detect.ece"]


def test_beliefs_count_what_has_no_score_as_wrong() -> None:
    rows = [
        row(i, of, label, float(label), sets=[label == 0, label == 1])
        for i, (of, label) in enumerate([(REAL, 0), ("b", 1)] * 40)
    ]
    for one in rows[:20:2]:  # 10 of 40 untouched ones
        one |= {"probability": None, "sets": None}
    figures = outcome.belief_figures(rows, 0.9)
    assert value_of(figures, "detect.coverage.untouched") == pytest.approx(0.75)
    assert value_of(figures, "detect.coverage.generated") == 1
    assert value_of(figures, "detect.coverage_gap") == pytest.approx(0.15)
    # As --scores counts them: of 50 that are said to be generated with certainty, 40 are.
    labelled = [outcome.label_of(one) for one in rows]
    given = [tables.Row(path=one["path"], probability=one["probability"]) for one in rows]
    of_scores, _ = tables.measure(given, labelled)
    assert value_of(figures, "detect.ece") == pytest.approx(10 / 80)
    assert value_of(of_scores, "frame.ece") == pytest.approx(10 / 80)


def test_verdicts_are_counted_with_abstentions() -> None:
    said = {REAL: [0, 0, -1, 1], "b": [1, -1, -1, 0]}
    rows = [
        row(len(of) * 10 + i, of, int(of == "b"), 0.5, verdict=verdict)
        for of, verdicts in said.items()
        for i, verdict in enumerate(verdicts)
    ]
    (table,) = outcome._verdicts(rows, ["b"])
    assert {one["name"]: one["value"] for one in table["figures"]} == {
        "real abstained": 0.25,
        "real wrong": 0.25,
        "b abstained": 0.5,
        "b wrong": 0.25,
    }


def test_a_mark_moves_the_mean_score() -> None:
    rows = rows_by_chance()
    variants = [
        {"id": i, "corruption": outcome.MARK, "probabilities": [0.2, 0.2 + 0.03 * (i % 2)]}
        for i in range(40)
    ]
    (figure,) = outcome.marked_shift(variants, rows)
    assert figure.name == "detect.marked_shift"
    assert figure.value == pytest.approx(0.015)
    assert outcome.marked_shift([], rows) == []


def test_the_matrix_holds_every_maker_by_every_other() -> None:
    rows = rows_by_chance()
    for r in rows:
        r["peers"] = {"on b": float(r["set"] == "b"), "on selfblend": 0.5}
    found = outcome.matrix(rows, ["b", "selfblend"])
    assert found["columns"] == ["b", "selfblend"]
    assert found["rows"] == ["the detector measured", "b", "selfblend"]
    assert found["auc"][1] == [1.0, 0.5]
    assert found["auc"][2] == [0.5, 0.5]


# --- a training's own evaluation ------------------------------------------------------------------


def test_a_bootstrap_draws_people_if_there_are_enough_of_them() -> None:
    pixels = np.zeros((160, 160, 3), np.uint8)
    faces = face_set([pixels] * 24, [i % 2 for i in range(24)])
    assert evaluate.clusters(faces)[0] == "people"
    pairs = replace(faces, subjects=[f"s{i % 3}" for i in range(24)])
    assert evaluate.interval_basis(pairs) == (
        "bootstrap over 24 pictures or clips of 3 people: too narrow for other people"
    )
    few = replace(pairs, sources=pairs.subjects)
    name, numbers = evaluate.clusters(few)
    assert name == "faces" and len(set(numbers.tolist())) == 24


def test_false_positives_are_counted_among_the_untouched_alone() -> None:
    rows = [row(i, REAL, 0, score) for i, score in enumerate([0.1, 0.2, 0.8, None, 0.5])]
    rows += [row(9, "b", 1, 0.9)]
    figures = outcome.false_positives(rows, 0.5)
    # One above the threshold, one without a score, which is as wrong as can be; 0.5 is not above.
    assert value_of(figures, "detect.false_positives") == pytest.approx(2 / 5)
    assert value_of(figures, "detect.false_positives.faces") == 5
    assert figures[0].low <= 2 / 5 <= figures[0].high
    assert outcome.false_positives(rows, None) == []


# --- the protocol itself --------------------------------------------------------------------------


class Sharpness:
    """A scorer: the less fine detail, the more likely generated."""

    name = "sharpness"

    def score(self, regions: Sequence[Region]) -> np.ndarray[Any, Any]:
        details = [cv2.Laplacian(region.pixels, cv2.CV_64F).std() for region in regions]
        return 1 / (1 + np.array(details))


@pytest.fixture(scope="module")
def data(astronaut: np.ndarray[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten people who are all the same one, in other light; and blurred ones as generated."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    head = astronaut[0:260, 100:360]

    def write(path: Path, pixels: np.ndarray[Any, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))

    for i in range(14):
        side = int(random.integers(150, 200))
        light = random.uniform(0.7, 1.1, 3)
        pixels = cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA) * light
        pixels = np.clip(pixels + random.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)
        write(folder / "people" / f"person {i}" / "0.png", pixels[:, :: 1 - 2 * (i % 2)])
        write(folder / "made" / f"{i}.png", cv2.GaussianBlur(pixels, (0, 0), 1.5))
    shutil.copy(folder / "made" / "3.png", folder / "made" / "copy.png")
    write(folder / "made" / "nobody.png", np.full((120, 120, 3), 90, np.uint8))
    (folder / "made" / "torn.png").write_bytes((folder / "made" / "0.png").read_bytes()[:2000])
    return folder


@pytest.fixture(scope="module")
def config(data: Path) -> Config:
    training = data / "training.yaml"
    training.write_text(
        "detector: ensemble\nmembers: {spectrum: detectors/spectrum}\ndata: {}\n"
        "collections:\n  - {name: people, layout: people, path: people, label: 0}\n"
        "shares: {train: 0.5, test: 0.5}\n"
    )
    return Config(
        training=str(training),
        generated=[Collection(name="made", layout="pictures", path="made", label=1)],
        spliced=["people"],
        self_blends=4,
        splices=4,
        corrupted=3,
        marked=3,
        fitted=7,
        peers={"meso4": ["weights/Meso4_DF.h5"]},
        matrix=True,
    )


@pytest.fixture(scope="module")
def evaluation(
    data: Path, config: Config, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("out") / "evaluation"
    return out, protocol.measure(config, data, Sharpness(), out, device=torch.device("cpu"))


def test_all_figures_of_the_issue_but_those_of_missing_parts(
    evaluation: tuple[Path, dict[str, Any]],
) -> None:
    _, found = evaluation
    figures = {row["name"]: row for row in found["figures"]}
    wanted = {
        *("detect.made_auc", "detect.made_tpr1", "detect.selfblend_auc", "detect.splice_auc"),
        *("detect.corruption_drop", "detect.jpeg50_drop", "detect.ece", "detect.marked_shift"),
        "detect.faces_per_s",
    }
    assert wanted <= set(figures)
    # No calibration, so no promise; no weights of MesoNet, so no row and a word on it.
    assert "detect.coverage_gap" not in figures
    assert not any("Meso" in name for name in figures)
    assert any("Meso4_DF.h5" in note for note in found["notes"])
    assert "detect.made_auc.spectrum" in figures
    # Blurred faces are told from sharp ones; two of 17 files gave no face and count as wrong.
    assert figures["detect.made_auc"]["value"] == pytest.approx(15 / 17)
    assert figures["detect.made_unscored"]["value"] == 2
    assert found["matrix"]["columns"] == ["made", "selfblend", "splice"]
    assert found["matrix"]["rows"] == ["the detector measured", "selfblend", "splice"]


def test_every_picture_has_a_row(data: Path, evaluation: tuple[Path, dict[str, Any]]) -> None:
    from detectors.tables import read_scores

    rows = files.read_jsonl(evaluation[0] / outcome.SCORES)
    made = [row for row in rows if row["set"] == "made"]
    assert len(made) == 17
    nobody, torn = (row for row in made if row["probability"] is None)
    assert (nobody["path"], nobody["reason"]) == ("made/nobody.png", "no face found")
    assert torn["path"] == "made/torn.png" and torn["reason"].startswith("unreadable: ")
    assert str(data) not in torn["reason"], "its path stands in the row"
    assert {row["path"] for row in made} == {f"made/{p.name}" for p in (data / "made").iterdir()}
    assert len({row["id"] for row in rows}) == len(rows)
    # Anybody's tool reads them, and ours too.
    read = read_scores(evaluation[0] / outcome.SCORES)
    assert [row.probability for row in read] == [row["probability"] for row in rows]


def test_a_video_that_breaks_part_way_keeps_its_frames_and_a_row(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = cv2.cvtColor(cv2.imread(str(data / "made" / "0.png")), cv2.COLOR_BGR2RGB)

    def broken(entry: Entry) -> Iterator[np.ndarray[Any, Any]]:
        yield from (pixels, pixels[:, ::-1].copy())
        raise FacekitError(f"{entry.path}: became unreadable")

    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").touch()
    clips = Collection(name="clips", layout="pictures", path="clips", label=1)
    entries = collections.read([clips], tmp_path)
    # Were there no other that can be read, it would be an error.
    whole = replace(entries[0], path=tmp_path / "clips" / "b.mp4")
    monkeypatch.setattr(
        collections, "_pixels", lambda e: iter([pixels]) if e is whole else broken(e)
    )
    faces, paths, lost = protocol._gathered([*entries, whole], tmp_path, torch.device("cpu"))
    assert sorted(paths) == ["clips/a.mp4#frame-0", "clips/a.mp4#frame-1", "clips/b.mp4#frame-0"]
    assert [(one.path, one.reason) for one in lost] == [
        ("clips/a.mp4#frame-2", "unreadable: became unreadable")
    ]
    rows = protocol.score_sets([TestSet("clips", faces, paths, lost)], Sharpness(), [])
    assert {row["video"] for row in rows[-1:]} == {"clips/a.mp4"}
    assert outcome.arrays(rows)[0][-1] == 0, "generated and not scored: as wrong as can be"


def test_figures_are_rebuilt_without_data_or_detector(
    evaluation: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(evaluation[0], copy)
    for name in ("evaluation.json", "evaluation.html"):
        (copy / name).unlink()
    found = outcome.rebuild(copy)
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(evaluation[1]))
    assert files.read_json(copy / "evaluation.json")["figures"]
    assert "sharpness" in (copy / "evaluation.html").read_text()


def test_damaged_files_are_named(evaluation: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(evaluation[0], copy)
    rows = files.read_jsonl(copy / outcome.SCORES)
    files.write_jsonl(copy / outcome.SCORES, [rows[0], {"path": "x", "probability": 0.5}])
    with pytest.raises(FacekitError, match=r"scores\.jsonl, row 2: lacks 'id'; it is damaged"):
        outcome.rebuild(copy)
    files.write_json(copy / outcome.PROTOCOL, [])
    with pytest.raises(FacekitError, match=r"protocol\.json, row 1: lacks 'detector'"):
        outcome.rebuild(copy)


@pytest.mark.parametrize("lacks", ["corruption", "row", "figure", "name"])
def test_a_folder_of_another_build_is_named(
    lacks: str, evaluation: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(evaluation[0], copy)
    variants = files.read_jsonl(copy / outcome.VARIANTS)
    known = files.read_json(copy / outcome.PROTOCOL)
    if lacks == "corruption":
        variants = [row for row in variants if row["corruption"] != "social"]
    elif lacks == "row":
        variants[0]["id"] = 10_000
    elif lacks == "figure":
        del known["measured"][0]["name"]
    else:
        del known["detector"]["name"]
    files.write_jsonl(copy / outcome.VARIANTS, variants)
    files.write_json(copy / outcome.PROTOCOL, known)
    before = (copy / "evaluation.json").read_bytes()
    with pytest.raises(FacekitError, match=r"do not fit together .* of another version"):
        outcome.rebuild(copy)
    assert (copy / "evaluation.json").read_bytes() == before


def test_the_run_folder_says_what_was_measured(
    config: Config, evaluation: tuple[Path, dict[str, Any]]
) -> None:
    facts = Run(evaluation[0]).facts
    assert facts["config"] == config.model_dump(mode="json")
    assert facts["packages"]["torch"] and facts["data_hash"]


def test_the_same_seed_gives_the_same_scores(
    data: Path, config: Config, evaluation: tuple[Path, dict[str, Any]]
) -> None:
    sets, _ = protocol.gather_sets(config, data, torch.device("cpu"))
    before = files.read_jsonl(evaluation[0] / outcome.SCORES)
    again = protocol.score_sets(sets, Sharpness(), [])
    assert [row["probability"] for row in again] == [row["probability"] for row in before]


def test_all_faces_are_shown_in_one_size(data: Path, config: Config) -> None:
    small = config.model_copy(update={"self_blends": 2, "splices": 2, "most": 3, "matrix": False})
    sets, _ = protocol.gather_sets(small, data, torch.device("cpu"))
    assert [one.name for one in sets] == [REAL, "made", "selfblend", "splice"]
    for one in sets:
        assert len(one.faces) == len(one.paths)
        for region in one.faces.regions:
            assert region.face.size == pytest.approx(config.face, rel=0.02)
    blends = sets[2]
    assert blends.paired and set(blends.faces.sources) <= set(sets[0].faces.sources)
    assert set(blends.faces.labels.tolist()) == {1}


def test_both_classes_are_compressed_alike(config: Config) -> None:
    """Whatever the class, what is drawn follows from the config, the set and the place alone."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 255, (160, 160, 3), np.uint8)
    faces = face_set([pixels, pixels], [0, 1])
    a, b = (protocol.prepared(faces.subset([i]), config, 3).regions[0].pixels for i in (0, 1))
    assert np.array_equal(a, b)
    c = protocol.prepared(faces.subset([0]), config, 4).regions[0].pixels
    assert not np.array_equal(a, c)


def face_set(pictures: Sequence[np.ndarray[Any, Any]], labels: Sequence[int]) -> FaceSet:
    from facekit.types import Face

    points = np.array([[60, 60], [100, 60], [80, 85], [65, 105], [95, 105]], np.float32)
    face = Face(np.array([40, 30, 120, 130], np.float32), points, 1.0)
    n = len(pictures)
    return FaceSet(
        regions=[Region(pixels, face) for pixels in pictures],
        labels=np.array(labels, np.int64),
        subjects=[f"s{i}" for i in range(n)],
        sources=[f"p{i}" for i in range(n)],
        donors=[""] * n,
        makers=[""] * n,
        collections=["c"] * n,
        payloads=[None] * n,
        digests=[f"{i:016x}" for i in range(n)],
    )


def test_pictures_that_cannot_be_marked_are_counted(
    data: Path, tmp_path: Path, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "facekit")
    folder = tmp_path / "people"
    folder.mkdir()
    face = cv2.imread(str(data / "people" / "person 0" / "0.png"))
    noise = np.random.default_rng(0).integers(0, 255, (160, 160, 3), np.uint8)
    marked = watermark.embed(face, Payload(Kind.GENERATED, 1))
    for name, pixels in (("face", face), ("noise", noise), ("marked", marked)):
        cv2.imwrite(str(folder / f"{name}.png"), pixels)
    (folder / "torn.png").write_bytes(b"torn")
    people = Collection(name="people", layout="pictures", path="people", label=0)
    entries = collections.read([people], tmp_path)
    rows = [row(i, REAL, 0, 0.5, path=f"people/{e.path.name}") for i, e in enumerate(entries)]
    every = config.model_copy(update={"marked": 10})
    device = torch.device("cpu")
    (one,) = protocol.marked_rows(entries, rows, Sharpness(), every, tmp_path, device)
    assert rows[one["id"]]["path"] == "people/face.png"
    for why in ("bear a mark already, or cannot bear one", "show no face", "cannot be read"):
        assert f"left out 1 untouched pictures that {why}" in caplog.text


def test_a_test_set_that_was_trained_on_is_refused(config: Config) -> None:
    pixels = np.zeros((160, 160, 3), np.uint8)
    sets = [TestSet(REAL, face_set([pixels] * 3, [0] * 3), ["a.png", "b.png", "c.png"], [])]
    scorer = Sharpness()
    scorer.seen = frozenset({f"{7:016x}"})  # type: ignore[attr-defined]
    protocol.refuse_seen(scorer, sets)
    scorer.seen = frozenset({f"{1:016x}", f"{7:016x}"})  # type: ignore[attr-defined]
    with pytest.raises(FacekitError, match=r"trained on 1 of the pictures .* 'b\.png'"):
        protocol.refuse_seen(scorer, sets)


def test_scores_that_are_no_numbers_are_an_error() -> None:
    class Broken(Sharpness):
        def score(self, regions: Sequence[Region]) -> np.ndarray[Any, Any]:
            return np.full(len(regions), np.nan)

    sets = [TestSet(REAL, face_set([np.zeros((160, 160, 3), np.uint8)], [0]), ["a.png"], [])]
    with pytest.raises(FacekitError, match="sharpness: gives scores that are not numbers"):
        protocol.score_sets(sets, Broken(), [])


def test_a_detector_also_gives_members_ratios_and_sets() -> None:
    detector = Detector.load("default")
    random = np.random.default_rng(1)
    pictures = [random.integers(0, 255, (160, 160, 3), np.uint8) for _ in range(3)]
    sets = [TestSet(REAL, face_set(pictures, [0] * 3), ["a.png", "b.png", "c.png"], [])]
    rows = protocol.score_sets(sets, detector, [])
    expected, members = detector.score_all(sets[0].faces.regions)
    assert [row["probability"] for row in rows] == pytest.approx(expected, abs=1e-6)
    for i, row in enumerate(rows):
        assert row["scores"] == {
            name: pytest.approx(values[i], abs=1e-6) for name, values in members.items()
        }
        assert len(row["sets"]) == 2 and np.isfinite(row["ratio"])
        assert row["verdict"] in (-1, 0, 1)


def test_what_is_not_there_is_left_out_and_said(
    data: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = Collection(name="c", layout="pictures", path="nowhere", label=1)
    more = config.model_copy(update={"generated": [*config.generated, absent]})
    assert protocol.missing(more, data) == [
        "nowhere is not in the data: what needs it is left out",
        "weights/Meso4_DF.h5 is not in the data: what needs it is left out",
    ]
    monkeypatch.setattr(protocol, "find_spec", lambda name: None)
    assert "h5py" in protocol.missing(more, data)[-1]
    with pytest.raises(FacekitError, match=r"holds none of what .* lists \(people\)"):
        protocol.gather_sets(more, tmp_path, torch.device("cpu"))


def test_an_empty_class_is_an_error(data: Path, config: Config) -> None:
    nothing = config.model_copy(update={"generated": [], "self_blends": 0, "splices": 0})
    with pytest.raises(FacekitError, match="holds nothing generated to test on"):
        protocol.gather_sets(nothing, data, torch.device("cpu"))


def test_the_bundled_config_is_valid_and_names_its_parts() -> None:
    path = find("evaluations/default")
    config = validate(read_yaml(path), Config, path)
    assert [one.name for one in config.generated] == ["b"], "its rows are called detect.b_…"
    assert config.quick().most < config.most
    goals = [name for name in read_yaml(find("evaluations/goals")) if name.startswith("detect.")]
    assert len(goals) == 11


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("quality", [90, 60], "the lower value must stand first"),
        ("face", 8, "key 'face'"),
        ("bogus", 1, "unknown key 'bogus'"),
        ("generated", [{"name": "b", "layout": "pictures"}], "path' is missing"),
    ],
)
def test_a_bad_config_is_named(key: str, value: object, message: str) -> None:
    with pytest.raises(FacekitError, match=message):
        validate({key: value}, Config, "mine.yaml")


def test_no_evaluation_in_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FacekitError, match="no such file"):
        outcome.rebuild(tmp_path)
