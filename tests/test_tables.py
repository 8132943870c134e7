"""Scores and labels in files: reading, joining, what is counted, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from detectors import metrics, tables
from detectors.report.evaluation import Evaluation
from detectors.tables import Input, Label, Row
from facekit.core.errors import FacekitError


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_RESAMPLES", 30)


def _file(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _row(path: str, probability: float | None, **more: Any) -> Row:
    return Row(path=path, probability=probability, **more)


def _units(inputs: list[Input], name: str) -> tables.Units:
    return tables.units(inputs, name, np.arange(len(inputs)))


# --- reading


def test_our_own_scores_and_the_least_that_anybody_must_give(tmp_path: Path) -> None:
    whole = {
        "path": "clip.mp4",
        "time": 0.5,
        "box": [1, 2, 3.5, 4],
        "track": 3,
        "scores": {"patch": 0.25, "blend": None},
        "probability": 0.75,
        "reason": None,
        "sha256": "what we do not know is passed over",
    }
    rows = tables.read_scores(_file(tmp_path / "s.jsonl", whole, {"path": "a", "probability": 1}))
    assert rows[0].box == (1, 2, 3.5, 4) and rows[0].scores == {"patch": 0.25, "blend": None}
    assert (rows[1].probability, rows[1].time, rows[1].reason) == (1.0, None, None)
    # What is written and read again is the same.
    again = _file(tmp_path / "t.jsonl", *(row.model_dump() for row in rows))
    assert tables.read_scores(again) == rows


def test_scores_and_labels_from_a_spreadsheet(tmp_path: Path) -> None:
    scores = tmp_path / "s.CSV"
    scores.write_bytes(
        b"\xef\xbb\xbfpath,probability,track,box,comment\r\n"
        b'"a, b.jpg",0.5,,"[1, 2, 3, 4]",x\r\n'
        b"c.jpg,,2,,\r\n"
    )
    first, second = tables.read_scores(scores)
    assert (first.path, first.probability, first.track) == ("a, b.jpg", 0.5, None)
    assert first.box == (1, 2, 3, 4)
    assert (second.probability, second.track) == (None, 2)
    labels = tmp_path / "l.csv"
    labels.write_text("path,label,source,subject\na,1,,7\nb,0,s,\n")
    assert tables.read_labels(labels) == [
        Label(path="a", label=1, subject="7"),
        Label(path="b", label=0, source="s"),
    ]


GOOD = {"path": "a", "probability": 0.5}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("", "is empty; each row needs path and probability, and may have time"),
        ("not json\n", "line 1: not JSON"),
        ("[1]\n", "line 1: expected an object"),
        ([{"path": "a", "score": 0.5}], "no row has 'probability'"),
        ([GOOD, {"path": "b"}], "row 2: key 'probability' is missing"),
        ([GOOD, {"path": "", "probability": 0.5}], "row 2: key 'path'"),
        ([{"path": "a", "probability": float("nan")}], "'probability'.*given nan"),
        ([{"path": "a", "probability": float("inf")}], "'probability'.*given inf"),
        ([{"path": "a", "probability": 1.01}], "less than or equal to 1, given 1.01"),
        ([{"path": "a", "probability": -0.1}], "greater than or equal to 0, given -0.1"),
        ([{"path": "a", "probability": "high"}], "given 'high'"),
        ([{**GOOD, "scores": {"x": 2}}], "key 'scores.x'.*given 2"),
        ([{**GOOD, "box": [1, 2]}], "key 'box"),
        ([{**GOOD, "track": 1.5}], "key 'track'"),
        ([{**GOOD, "time": "noon"}], "key 'time'"),
        ([GOOD, {"path": "./a", "probability": 0.1}], "row 2: './a' stands in row 1 already"),
    ],
)
def test_bad_scores_are_refused(tmp_path: Path, rows: Any, says: str) -> None:
    path = tmp_path / "s.jsonl"
    if isinstance(rows, str):
        path.write_text(rows)
    else:
        _file(path, *rows)
    with pytest.raises(FacekitError, match=says) as raised:
        tables.read_scores(path)
    assert "s.jsonl" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty; each row needs path and label"),
        ("path,label\n", "is empty"),
        ("file,label\na,1\n", "no row has 'path'"),
        ("path,label\na,1\nb,2\n", "row 2: key 'label'.*given '2'"),
        ("path,label\na,-1\n", "row 1: key 'label'"),
        ("path,label\na,fake\n", "row 1: key 'label'.*given 'fake'"),
        ("path,label\na,0.5\n", "row 1: key 'label'"),
        ("path,label\na,\nb,1\n", "row 1: key 'label' is missing"),
        ("path,label\na,1,2\n", "row 1: has more cells than the header"),
        ("path,label\na,1\nb,0\na,0\n", "row 3: 'a' is labelled twice, and differently"),
        ("path,label,source\na,1,x\na,1,y\n", "row 2: 'a' is labelled twice"),
        ('path,label\n"a,1\n', "not readable as CSV"),
    ],
)
def test_bad_labels_are_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "l.csv"
    path.write_text(text)
    with pytest.raises(FacekitError, match=says):
        tables.read_labels(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    for name in ("none.csv", "none.jsonl"):
        with pytest.raises(FacekitError, match="no such file"):
            tables.read_scores(tmp_path / name)
    for name in ("picture.csv", "picture.jsonl"):
        (tmp_path / name).write_bytes(b"\xff\xd8\xff\xe0\x00")
        with pytest.raises(FacekitError, match="not readable"):
            tables.read_labels(tmp_path / name)
    # The same label again is no contradiction.
    path = _file(tmp_path / "l.jsonl", *[{"path": "a", "label": 1}] * 2)
    assert len(tables.read_labels(path)) == 1


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_a_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    for suffix in (".csv", ".jsonl"):
        path = folder / f"x{suffix}"
        path.write_bytes(content)
        for read in (tables.read_scores, tables.read_labels):
            try:
                read(path)
            except FacekitError as error:
                assert str(path) in str(error)


# --- joining


def test_paths_match_by_a_trailing_part_of_whole_names() -> None:
    labels = [
        Label(path="real/1.jpg", label=0),
        Label(path="fake/1.jpg", label=1),
        Label(path="/home/them/data/fake/2.jpg", label=1),
        Label(path="real/3.jpg", label=0),
    ]
    rows = [
        _row("/data/fake/1.jpg", 0.9),
        _row("C:\\data\\real\\1.jpg", 0.1),
        _row("fake/2.jpg", 0.8),
        _row("./real/3.jpg", 0.2),
    ]
    joined = tables.join(rows, labels)
    assert [one.rows[0].probability for one in joined] == [0.1, 0.9, 0.8, 0.2]


@pytest.mark.parametrize(
    ("scored", "labelled", "says"),
    [
        (["1.jpg"], ["a/1.jpg", "b/1.jpg"], "fit several labels.*'1.jpg'"),
        (["x/a/1.jpg", "y/a/1.jpg"], ["a/1.jpg", "2.jpg"], "share one: 'y/a/1.jpg'"),
        (["x/a/1.jpg"], ["a/1.jpg", "1.jpg"], "fit several"),
        (["xa/1.jpg"], ["a/1.jpg"], "1 of 1 scored paths have no label: 'xa/1.jpg'"),
        (list("abcde"), ["a"], "4 of 5 .*'b', 'c', 'd' and 1 more"),
    ],
)
def test_paths_that_do_not_match_are_named(
    scored: list[str], labelled: list[str], says: str
) -> None:
    with pytest.raises(FacekitError, match=says):
        tables.join(
            [_row(path, 0.5) for path in scored], [Label(path=path, label=1) for path in labelled]
        )


# --- what is counted


def test_one_forged_face_among_ten_is_not_averaged_away() -> None:
    rows = [
        _row("clip", 0.9 if track == 3 else 0.1, time=float(time), track=track)
        for time in range(4)
        for track in range(10)
    ]
    inputs = [Input(Label(path="clip", label=1), rows)]
    assert _units(inputs, "frame").scores.tolist() == [0.9] * 4
    assert _units(inputs, "track").scores == pytest.approx([0.1] * 3 + [0.9] + [0.1] * 6)
    assert _units(inputs, "video").scores == pytest.approx([0.9])


def test_a_track_has_the_mean_of_its_rows_and_one_peak_does_not_condemn_it() -> None:
    rows = [
        *(_row("clip", p, time=t, track=0) for t, p in enumerate([0.1, 0.1, 0.9, 0.1])),
        # Without a face, no track is blamed; the frame has no score.
        _row("clip", None, time=4.0, reason="no face found"),
        _row("clip", None, time=5.0, track=0, reason="too small"),
    ]
    inputs = [Input(Label(path="clip", label=0), rows)]
    assert _units(inputs, "track").scores == pytest.approx([0.3])
    assert _units(inputs, "video").scores == pytest.approx([0.3])
    frames = _units(inputs, "frame")
    assert frames.scored.tolist() == [True] * 4 + [False] * 2
    assert frames.counted[4:].tolist() == [1.0, 1.0], "untouched and not scored: as wrong as can be"


def test_files_without_tracks_and_frames_of_one_video() -> None:
    inputs = [
        Input(
            Label(path="v/1.png", label=1, video="v"),
            [_row("v/1.png", 0.2, box=(0, 0, 1, 1)), _row("v/1.png", 0.6, box=(5, 5, 6, 6))],
        ),
        Input(Label(path="v/2.png", label=1, video="v"), [_row("v/2.png", 0.4)]),
        Input(Label(path="v/3.png", label=1, video="v"), []),
        Input(Label(path="w.png", label=0), [_row("w.png", 0.3)]),
    ]
    frames = _units(inputs, "frame")
    assert frames.scores[[0, 1, 3]].tolist() == [0.6, 0.4, 0.3]
    assert frames.counted.tolist() == [0.6, 0.4, 0.0, 0.3]
    for name in ("track", "video"):
        assert _units(inputs, name).scores == pytest.approx([0.5, 0.3])
        assert _units(inputs, name).labels.tolist() == [1, 0]
    mixed = [*inputs, Input(Label(path="v/4.png", label=0, video="v"), [])]
    with pytest.raises(FacekitError, match="'v': its files are labelled both 0 and 1"):
        _units(mixed, "video")


def test_groups_are_linked_through_people_and_sources() -> None:
    def drawn(**of: list[str]) -> tuple[str, int]:
        inputs = [
            Input(Label(path=str(i), label=i % 2, **dict(zip(of, values, strict=True))), [])
            for i, values in enumerate(zip(*of.values(), strict=True))
        ]
        words, numbers = tables.clusters(inputs)
        return words, len(set(numbers.tolist()))

    people = [str(i // 4) for i in range(48)]
    sources = [str(i // 2) for i in range(48)]
    assert drawn(source=sources) == ("bootstrap over 24 sources", 24)
    words, count = drawn(subject=people, source=sources)
    assert (words, count) == ("bootstrap over 12 groups that share people or sources", 12)
    # A source that two people share ties them.
    assert drawn(subject=people, source=["one", *sources[1:-1], "one"])[1] == 11
    # Few people: what remains is too narrow for others, and is said to be.
    words, count = drawn(subject=["x"] * 24 + ["y"] * 24, source=sources)
    assert count == 24 and "24 sources; too narrow for other people" in words
    words, count = drawn(subject=["x", "y"] * 24)
    assert count == 48 and "48 files; too narrow for other people" in words
    assert "4 are too few" in drawn(subject=list("xyxy"))[0]


# --- all of it


def _many(count: int = 40, unscored: int = 0) -> tuple[list[Row], list[Label]]:
    random = np.random.default_rng(0)
    labels = [
        Label(path=f"{i}.jpg", label=i % 2, source=str(i // 2), generator=["", "a", "", "b"][i % 4])
        for i in range(count)
    ]
    rows = [
        _row(
            label.path,
            None if i < unscored else float(random.uniform(0, 0.7) + 0.3 * label.label),
            scores={} if i < unscored else {"one": float(random.uniform())},
            reason="no face found" if i < unscored else None,
        )
        for i, label in enumerate(labels)
    ]
    return rows, labels


def test_every_figure_by_frame_track_and_video() -> None:
    rows, labels = _many()
    figures, evaluation = tables.measure(rows, labels)
    assert len(figures) == 30 and not evaluation["tables"]
    values = {figure.name: figure.value for figure in figures}
    truth = [label.label for label in labels]
    expected = roc_auc_score(truth, [row.probability for row in rows])
    for unit in tables.UNITS:
        assert values[f"{unit}.auc"] == pytest.approx(expected)
    member = evaluation["figures"][0]["peers"]["one"]
    assert member == pytest.approx(roc_auc_score(truth, [row.scores["one"] for row in rows]))
    page = Evaluation.model_validate(json.loads(json.dumps(evaluation)))
    assert set(page.roc) == {"detector", "one"}
    assert [(row.name, row.count) for row in page.generators] == [("a", 10), ("b", 10)]
    assert page.histogram is not None and sum(page.histogram.generated) == 20
    assert any("rests on 20 untouched files" in note for note in page.notes)
    assert "bootstrap over 20 sources" in page.facts["intervals"]


def test_what_has_no_score_counts_as_wrong_unless_the_table_says_abstained() -> None:
    rows, labels = _many(unscored=8)
    rows = rows[2:]  # two are not even named
    figures, evaluation = tables.measure(rows, labels)
    values = {figure.name: figure.value for figure in figures}
    truth = np.array([label.label for label in labels])
    given: Any = np.array([1.0, 0.0] * 4 + [row.probability for row in rows[6:]])
    assert values["video.auc"] == pytest.approx(roc_auc_score(truth, given))
    assert values["video.brier"] == pytest.approx(((given - truth) ** 2).mean())
    assert [values[f"{unit}.unscored"] for unit in tables.UNITS] == [8, 8, 8]
    (table,) = evaluation["tables"]
    assert table["title"].startswith("Abstained")
    without = {row["name"]: row["value"] for row in table["figures"]}
    assert without["video.auc"] == pytest.approx(roc_auc_score(truth[8:], given[8:]))
    assert without["video.auc"] > values["video.auc"]
    said = " ".join(evaluation["notes"])
    assert "8 of 40 videos (20.0%) have no score: 4 of 20 generated, 4 of 20 untouched" in said
    assert "2 of 40 labelled files do not occur in the scores" in said


def test_abstaining_from_a_whole_class_leaves_no_second_table() -> None:
    rows, labels = _many()
    rows = [row.model_copy(update={"probability": None}) for row in rows[::2]] + rows[1::2]
    _, evaluation = tables.measure(rows, labels)
    assert not evaluation["tables"]
    assert any("one class has no video left" in note for note in evaluation["notes"])


def test_what_cannot_be_measured() -> None:
    rows, labels = _many()
    for label in (0, 1):
        alike = [one.model_copy(update={"label": label}) for one in labels]
        with pytest.raises(FacekitError, match=f"all 40 labels are {label}; both classes"):
            tables.measure(rows, alike)
    nothing = [
        row.model_copy(update={"probability": None, "reason": "no face found"}) for row in rows
    ]
    with pytest.raises(FacekitError, match=r"none of 40 .* has a score \('no face found'\)"):
        tables.measure(nothing, labels)
