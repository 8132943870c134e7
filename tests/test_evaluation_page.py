"""The evaluation's page: what it shows, that it stands alone, and the command that writes it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from detectors import metrics
from detectors.report.evaluation import Evaluation, render
from facekit.cli import cli
from facekit.core.errors import FacekitError

VOID = {"meta", "br", "input", "img", "link"}


class Reader(HTMLParser):
    """The page's elements: (tag, attributes, enclosing tags, text within)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], tuple[str, ...], list[str]]] = []
        self.open: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), tuple(self.found[i][0] for i in self.open), []))
        if tag not in VOID:
            self.open.append(len(self.found) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.found[self.open.pop()][0] == tag, "what was opened last is closed first"

    def handle_data(self, data: str) -> None:
        for index in self.open:
            self.found[index][3].append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    return reader


def texts(page: str, tag: str) -> list[str]:
    return [" ".join("".join(text).split()) for name, _, _, text in read(page).found if name == tag]


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """An evaluation with all of its parts."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 400)
    scores = 1 / (1 + np.exp(-random.normal(size=400) - 2 * labels + 1))
    row = {"value": 0.9, "low": 0.85, "high": 0.95, "count": 40}
    return {
        "title": "default <on> b & more",
        "facts": {"data": "400 faces"},
        "figures": [
            {"name": "detect.b_auc", "value": 0.995, "goal": ">= 0.99", "holds": True, "peer": 0.6},
            {"name": "detect.ece", "value": 0.07, "goal": "<= 0.05", "holds": False},
            {"name": "frame.cllr", **row, "unit": "bits", "peers": {"Meso4": 1.25}},
        ],
        "tables": [
            {"title": "Abstained", "figures": [{"name": "video.auc", **row}], "notes": ["So."]}
        ],
        "roc": {
            "detector": metrics.roc(scores, labels),
            "Meso4": metrics.roc(random.uniform(size=400), labels),
        },
        "reliability": metrics.reliability(scores, labels),
        "histogram": {"edges": [0, 0.25, 0.5, 0.75, 1], "untouched": [9, 1, 0, 0], "generated": [0]}
        | {"generated": [0, 0, 2, 8]},
        "corruptions": {"jpeg": [0.99, 0.97, 0.95, 0.9, 0.8, 0.7], "blur": [0.99] * 6},
        "matrix": {"rows": ["a", "swap"], "columns": ["a", "b"], "auc": [[0.99, 0.6], [0.4, None]]},
        "generators": [{"name": "b", **row}, {"name": "c", **row, "value": 0.4}],
        "shortcuts": [{"name": "shortcut.size", **row}],
        "fairness": [
            {"group": "skin tone", "name": "1", "value": 0.01, "low": 0.0, "high": 0.03},
            {"group": "sex", "name": "female", "value": 0.12, "low": 0.1, "high": 0.14},
            {"group": "age", "name": "over 60", "value": None, "note": "not established"},
        ],
        "notes": ["95% intervals: <b>bold</b>."],
    }


def test_the_page_stands_alone(whole: dict[str, Any]) -> None:
    page = render(Evaluation.model_validate(whole))
    reader = read(page)
    tags = {tag for tag, *_ in reader.found}
    assert not tags & {"script", "link", "img", "iframe", "object"}
    names = {key for _, attributes, *_ in reader.found for key in attributes}
    assert not names & {"src", "href", "srcset", "onclick", "onload"}
    assert not re.search(r"https?://|url\(|@import", page)
    (policy,) = (a["content"] for _, a, *_ in reader.found if "http-equiv" in a)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert "prefers-color-scheme: dark" in page and "@media print" in page
    assert len(page) < 100_000


def test_names_cannot_pass_for_markup(whole: dict[str, Any]) -> None:
    page = render(Evaluation.model_validate(whole))
    assert texts(page, "h2") == ["default <on> b & more"]
    assert "&lt;b&gt;bold" in page and "<b>" not in page


def test_every_part_is_there_and_can_be_read_aloud(whole: dict[str, Any]) -> None:
    page = render(Evaluation.model_validate(whole))
    reader = read(page)
    assert texts(page, "h3") == [
        *("Figures", "Abstained", "Scores", "Across generators", "By generator"),
        *("Corruptions", "Shortcuts", "Fairness", "How this was made"),
    ]
    # Every plot has a name and says in words what it shows; what is only for the eye is hidden.
    pictures = [a for tag, a, *_ in reader.found if tag == "svg"]
    assert all(a.get("aria-hidden") or (a["role"] == "img" and a["aria-label"]) for a in pictures)
    plots = [a["aria-label"] for a in pictures if not a.get("aria-hidden")]
    assert plots == [
        *("ROC", "ROC at few false alarms", "Reliability", "Scores by class"),
        "AUC under corruption",
    ]
    assert len(texts(page, "desc")) == len(plots) and all(texts(page, "desc"))
    # Every table of figures has a caption, and every cell's row and column a header.
    tables = [a for tag, a, *_ in reader.found if tag == "table"]
    assert len(texts(page, "caption")) == len(tables) - 1  # the facts stand under the title
    assert all(a.get("scope") for tag, a, *_ in reader.found if tag == "th")
    assert "not established" in page and "skin tone" in texts(page, "th")


def test_figures_goals_and_what_stands_beside(whole: dict[str, Any]) -> None:
    page = render(Evaluation.model_validate(whole))
    assert "1 of 2 goals are met" in page
    assert "detect.ece is 0.070; its goal is ≤ 0.05" in page
    cells = texts(page, "td")
    assert "0.900 bits0.850 to 0.950" in cells
    assert {"0.995", "≥ 0.99", "yes", "no", "0.600", "1.250"} <= set(cells)
    assert texts(page, "th")[1:8] == [
        *("Figure", "Value95% interval", "Goal", "Holds", "Peer", "Meso4", "detect"),
    ]
    held = {**whole, "figures": whole["figures"][:1]}
    assert "1 of 1 goals are met" in render(Evaluation.model_validate(held))


def test_plots_draw_what_they_say(whole: dict[str, Any]) -> None:
    page = render(Evaluation.model_validate(whole))
    figures = [
        ElementTree.fromstring(svg)
        for svg in re.findall(r"<svg viewBox=\"0 0 360.*?</svg>", page, re.S)
    ]
    roc, few, reliability, histogram, corruption = figures

    def points(path: ElementTree.Element) -> np.ndarray[Any, np.dtype[np.float64]]:
        pairs = path.attrib["d"].removeprefix("M").split("L")
        return np.array([[float(value) for value in pair.split()] for pair in pairs])

    def lines(svg: ElementTree.Element) -> list[ElementTree.Element]:
        return [path for path in svg.iter("path") if path.attrib["class"].startswith("line")]

    drawn = points(lines(roc)[0])
    across, up = (drawn[:, 0] - 54) / 296, (212 - drawn[:, 1]) / 202
    area = ((up[1:] + up[:-1]) / 2 * np.diff(across)).sum()
    curve = np.array(whole["roc"]["detector"])
    expected = ((curve[1:, 1] + curve[:-1, 1]) / 2 * np.diff(curve[:, 0])).sum()
    assert area == pytest.approx(expected, abs=2e-3)
    at_1_percent = np.interp(54 + 296 / 3, *points(lines(few)[0]).T)
    found = max(tpr for fpr, tpr in whole["roc"]["detector"] if fpr <= 0.01)
    assert (212 - at_1_percent) / 202 == pytest.approx(found, abs=0.02)
    assert len(list(reliability.iter("circle"))) == len(whole["reliability"])
    steps = points(lines(histogram)[0])
    assert (212 - steps[:, 1]).max() / 202 == pytest.approx(1.0), "0.9 of 0.9"
    # The lowest AUC is 0.7: the axis begins at 0.5.
    labels = [text.text for text in corruption.iter("text")]
    assert labels[6:12] == ["0.5", "0.6", "0.7", "0.8", "0.9", "1"]
    last = points(lines(corruption)[0])[-1]
    assert (212 - last[1]) / 202 == pytest.approx((0.7 - 0.5) / 0.5, abs=1e-3)
    for svg in figures:
        for path in svg.iter("path"):
            x, y = points(path).T
            assert x.min() >= 54 and x.max() <= 350 and y.min() >= 10 and y.max() <= 212


def test_other_scorers_figures_stand_beside_the_detectors(whole: dict[str, Any]) -> None:
    rows = [
        {"name": "detect.drop", "value": 0.1},
        {"name": "detect.drop.Meso4", "value": 0.2},
        {"name": "detect.drop.jpeg", "value": 0.3},
        {"name": "detect.else.Meso4", "value": 0.4},
    ]
    page = render(Evaluation.model_validate({"figures": rows, "roc": whole["roc"]}))
    headers = texts(page, "th")
    assert headers[2] == "Meso4" and "detect.drop.Meso4" not in headers
    assert {"detect.drop", "detect.drop.jpeg", "detect.else.Meso4"} <= set(headers)
    assert texts(page, "td")[:3] == ["0.100", "0.200", "0.300"]


PARTS = sorted(set(Evaluation.model_fields) - {"title"})


@settings(max_examples=25, deadline=None)
@given(chosen=st.sets(st.sampled_from(PARTS)))
def test_every_part_is_optional(whole: dict[str, Any], chosen: set[str]) -> None:
    part = Evaluation.model_validate({key: whole[key] for key in chosen})
    read(render(part))
    assert Evaluation.model_validate_json(part.model_dump_json()) == part


@pytest.mark.parametrize(
    "value",
    [
        {"figure": []},
        {"figures": [{"name": "a", "value": float("nan")}]},
        {"figures": [{"name": "a", "value": float("inf")}]},
        {"figures": [{"name": "a"}]},
        {"roc": {"x": [[0, 0, 0]]}},
        {"roc": {"x": []}},
        {"corruptions": {"jpeg": []}},
        {"matrix": {"rows": ["a"], "columns": ["b"], "auc": [[0.5, 0.6]]}},
        {"matrix": {"rows": ["a"], "columns": ["b"], "auc": []}},
        {"histogram": {"edges": [0, 1], "untouched": [1, 2], "generated": [1]}},
        {"histogram": {"edges": [0], "untouched": [], "generated": []}},
    ],
)
def test_what_no_page_can_show_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Evaluation.model_validate(value)


def test_the_page_says_that_corrupted_faces_were_found_before() -> None:
    drop = {"name": "detect.corruption_drop", "value": 0.1}
    page = render(
        Evaluation.model_validate({"figures": [drop], "corruptions": {"jpeg": [0.9, 0.8]}})
    )
    assert "AUC lost on faces that were found before" in page
    assert "laid on faces that were found, cut and brought to size before" in page


# --- the command


def call(*words: object) -> Result:
    return CliRunner().invoke(cli, ["detector", "evaluate", *map(str, words)])


def refused(*words: object) -> str:
    result = call(*words)
    assert isinstance(result.exception, FacekitError), result.output
    return str(result.exception)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Somebody's scores and labels: perfect, but for one that was not scored."""
    monkeypatch.setattr(metrics, "_RESAMPLES", 20)
    scores, labels = tmp_path / "s.jsonl", tmp_path / "l.csv"
    rows = [
        {"path": f"/data/{i}.jpg", "probability": None if i == 7 else (i % 2) * 0.8 + 0.1}
        for i in range(24)
    ]
    scores.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels.write_text("path,label\n" + "".join(f"{i}.jpg,{i % 2}\n" for i in range(24)))
    return scores, labels


def test_scores_and_labels_alone_give_figures_and_page(
    files: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    words = ["--scores", files[0], "--labels", files[1]]
    result = call(*words, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    values = {row["name"]: row["value"] for row in figures}
    assert values["video.auc"] == pytest.approx(11 / 12), "one of twelve is below all others"
    assert values["frame.unscored"] == 1
    assert "1 of 24 frames (4.2%) have no score" in caplog.text, "JSON holds only rows"
    assert {"low", "high", "goal", "holds"} <= figures[0].keys()
    page = (out / "evaluation.html").read_text()
    assert "Abstained" in page and "1 of 24 videos" in page
    kept = json.loads((out / "evaluation.json").read_text())
    assert [row["value"] for row in kept["figures"]] == [row["value"] for row in figures]

    # Every figure is made anew from the folder, by one command.
    (out / "evaluation.html").unlink()
    assert json.loads(call(out, "--json").stdout) == figures
    assert (out / "evaluation.html").read_text() == page

    shown = call(*words).stdout
    assert "video.auc" in shown and "Abstained" in shown and "1 of 24 videos (4.2%)" in shown


def test_forms_that_do_not_go_together(files: tuple[Path, Path], tmp_path: Path) -> None:
    scores, labels = files
    assert "one is missing" in refused("--scores", scores)
    assert "one is missing" in refused("--labels", labels)
    both = ["--scores", scores, "--labels", labels]
    assert "--data says nothing beside --scores" in refused(*both, "--data", tmp_path)
    assert "'evaluations/default' says nothing" in refused("evaluations/default", *both)
    assert "give --data DIR, or --scores FILE with --labels FILE" in refused()
    assert "neither an evaluation nor a training's run" in refused(tmp_path, "--data", tmp_path)
    onnx = ["--onnx", tmp_path / "x.onnx", "--data", tmp_path]
    assert "give --size, --mean and --std" in refused(*onnx, "--size", 64)
    assert "--detector says nothing beside --onnx" in refused(*onnx, "--detector", "default")
    whole = [*onnx, "--size", 64, "--mean", "0.5", "--std", "0.5,0.5,0.5"]
    assert "x.onnx" in refused(*whole)
    result = call(*onnx, "--mean", "half")
    assert result.exit_code == 2 and "one number, or three with commas between" in result.output
    assert "no config 'nowhere'" in refused("nowhere", *whole[:0], "--data", tmp_path)


@pytest.mark.parametrize(
    "option",
    [
        *(["--size", 64], ["--mean", "0.5"], ["--std", "0.5"], ["--template", "wide"]),
        *(["--output", "logit"], ["--head", "x"], ["--bgr"]),
    ],
)
def test_what_is_said_of_an_onnx_file_needs_one(
    option: list[object], files: tuple[Path, Path], tmp_path: Path
) -> None:
    for form in (["--scores", files[0], "--labels", files[1]], ["--data", tmp_path]):
        assert f"{option[0]} says nothing without --onnx" in refused(*form, *option)


@pytest.mark.parametrize(
    "option",
    [
        *(["--quick"], ["--set", "seed=1"], ["--detector", "default"], ["--onnx", "x.onnx"]),
        *(["--generator", "run"], ["--generated", "folder"]),
    ],
)
def test_options_of_another_form_are_refused(
    option: list[object], files: tuple[Path, Path], tmp_path: Path
) -> None:
    both = ["--scores", files[0], "--labels", files[1]]
    assert f"{option[0]} says nothing beside --scores" in refused(*both, *option)
    finished, run = tmp_path / "finished", tmp_path / "run"
    for folder, name in ((finished, "labels.jsonl"), (run, "run.json")):
        folder.mkdir()
        (folder / name).touch()
    said = f"{option[0]} says nothing beside a finished evaluation"
    assert said in refused(finished, *option)
    if option[0] not in ("--generator", "--generated"):
        said = f"{option[0]} says nothing beside a training's RUN"
        assert said in refused(run, "--data", tmp_path, *option)


def test_an_evaluation_by_a_config_is_not_written_over(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("protocol.json", "scores.jsonl", "labels.jsonl"):
        (out / name).write_text(name)
    for words in (files, (out / "scores.jsonl", out / "labels.jsonl")):
        said = refused("--scores", words[0], "--labels", words[1], "--out", out)
        assert "holds an evaluation by a config" in said and "give another folder" in said
    assert all(path.read_text() == path.name for path in out.iterdir())
    assert len(list(out.iterdir())) == 3


def test_a_bad_file_is_one_line(files: tuple[Path, Path]) -> None:
    files[0].write_text('{"path": "1.jpg", "probability": NaN}\n')
    said = refused("--scores", files[0], "--labels", files[1])
    assert "row 1: key 'probability'" in said and "\n" not in said
