"""From what an evaluation has written to its figures: no data, no detector, no picture is needed.

The folder holds, beside ``protocol.json`` (what was measured, how, with which versions, and what is
no score, e.g. how long it took), the scores of every face: ``scores.jsonl`` as the faces were
shown to all scorers alike, with ``labels.jsonl`` for whoever reads scores and labels, and
``variants.jsonl``, the detector's after corruptions and with a mark.
Each test tells the forgeries of one maker from untouched faces:

- ``b``, or another collection of generated faces: from all untouched ones; but from its own, if it
  holds such, as data sets of forged clips hold the originals.
- ``selfblend`` and ``splice``, made from the test's own people: from the very pictures that they
  were made from. Nothing that comes with a collection can help there.

What has no score (no face was found, or the file cannot be read) counts as wrong: as 0 if
generated, as 1 if not.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from detectors import corruptions, metrics, tables
from detectors.calibrate import Labels, Scores
from detectors.metrics import METRICS, Metric
from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.core.figures import Figure, with_goals

PROTOCOL = "protocol.json"
SCORES = "scores.jsonl"
LABELS = "labels.jsonl"
VARIANTS = "variants.jsonl"
FRAME = "#frame-"
"""Between a video's path and the number of one of its frames."""
REAL = "real"
"""The ``set`` of the untouched faces."""
MARK = "mark"
"""The ``corruption`` of faces that were scored without a mark and with one."""

# What each file's rows must hold.
_OF_PROTOCOL = (
    *("detector", "coverage", "threshold", "peers", "matrix", "measured", "shortcuts", "notes"),
    *("seed", "data_hash", "packages"),
)
_OF_ROW = (
    *("id", "path", "set", "tested", "paired", "label", "subject", "source", "maker"),
    *("collection", "video", "probability", "ratio", "sets", "verdict", "peers"),
)
_OF_VARIANT = ("id", "corruption", "probabilities")

Row = dict[str, Any]

OF_A_TEST = ("auc", "tpr1", "tpr01", "ap", "eer", "brier", "cllr")
"""What is measured of each test, as ``detect.TEST_KEY``; keys of ``metrics.METRICS``."""

_LOWER = ("eer", "brier", "cllr")  # the better, the lower


def rebuild(folder: Path) -> dict[str, Any]:
    """Compute every figure of an evaluation anew from its folder, and write what shows them.

    Args:
        folder: what :func:`detectors.protocol.measure` has written to.

    Returns:
        The evaluation as ``detectors.report.evaluation`` shows it; also written to the folder, as
        ``evaluation.json`` and the page ``evaluation.html``.

    Raises:
        FacekitError: if the folder holds no evaluation, or a file of it is damaged or of another
            build.
    """
    from detectors.report import evaluation as page

    protocol = files.read_json(folder / PROTOCOL)
    rows, variants = (files.read_jsonl(folder / name) for name in (SCORES, VARIANTS))
    _check(folder / PROTOCOL, [protocol], _OF_PROTOCOL)
    _check(folder / SCORES, rows, _OF_ROW)
    _check(folder / VARIANTS, variants, _OF_VARIANT)
    try:
        found = summary(protocol, rows, variants)
        beside = _beside(found["figures"], rows, protocol["peers"])
        shown = page.Evaluation.model_validate({**found, "figures": beside})
    # What stands deeper in the files than _check looks: another build may have written them.
    except (KeyError, IndexError, TypeError, ValidationError) as error:
        said = str(error).splitlines()[0]
        raise FacekitError(
            f"{folder}: its files do not fit together ({type(error).__name__}: {said}); they are "
            "damaged or of another version of facekit; evaluate anew"
        ) from error
    files.write_json(folder / "evaluation.json", found)
    files.write_text(folder / "evaluation.html", page.render(shown))
    return found


def _check(path: Path, rows: Sequence[Any], keys: Sequence[str]) -> None:
    for number, row in enumerate(rows, start=1):
        lacking = [key for key in keys if not isinstance(row, dict) or key not in row]
        if lacking:
            raise FacekitError(
                f"{path}, row {number}: lacks '{lacking[0]}'; it is damaged or of another version "
                "of facekit; evaluate anew"
            )


def summary(protocol: Row, rows: list[Row], variants: list[Row]) -> dict[str, Any]:
    """All that the page shows; see ``detectors.report.evaluation.Evaluation``.

    Args:
        protocol: of the folder.
        rows: of its scores.
        variants: likewise.
    """
    tests = tests_in(rows)
    peers = protocol["peers"]
    drops, curves = corruption_figures(variants, rows)
    figures = [
        *(figure for test in tests for figure in figures_of(rows, test, peers)),
        *drops,
        *belief_figures(rows, protocol["coverage"]),
        *false_positives(rows, protocol["threshold"]),
        *marked_shift(variants, rows),
        *(Figure(**row) for row in protocol["measured"]),
    ]
    found: dict[str, Any] = {
        "title": f"{protocol['detector']['name']}: {', '.join(tests)}",
        "facts": _facts(protocol, rows),
        "figures": _shown(figures),
        "tables": [
            *_verdicts(rows, tests),
            *_by_collection(rows, tests),
            *_by_unit(rows, tests),
        ],
        **tables.plots(*arrays(rows_against(rows, tests))),
        "corruptions": curves,
        "generators": _by_maker(rows, tests),
        "shortcuts": protocol["shortcuts"],
        "notes": protocol["notes"],
    }
    for peer in peers:
        found["roc"][peer] = metrics.roc(*arrays(rows_against(rows, tests), peer))
    if trained := protocol["matrix"]:
        found["matrix"] = matrix(rows, trained)
    return found


def _beside(figures: Sequence[Row], rows: Sequence[Row], peers: Sequence[str]) -> list[Row]:
    """The detector's figures alone, with its peers' in columns instead of rows."""
    theirs = {
        f"detect.{test}_{key}": {peer: _value(key, rows_of(rows, test), peer) for peer in peers}
        for test in tests_in(rows)
        for key in OF_A_TEST
    }
    in_rows = {f"{name}.{peer}" for name in theirs for peer in peers}
    return [
        {**row, "peers": beside, "peer": None if beside else row["peer"]}
        for row in figures
        if row["name"] not in in_rows
        for beside in [theirs.get(row["name"], {})]
    ]


def tests_in(rows: Sequence[Row]) -> list[str]:
    """The names of the tests: the sets of generated faces, in the order they were measured."""
    names = dict.fromkeys(row["set"] for row in rows if row["label"] == 1 and row["tested"])
    return list(names)


def rows_of(rows: Sequence[Row], test: str) -> list[Row]:
    """A test's faces: the generated ones, and the untouched ones they are to be told from."""
    own = [row for row in rows if row["set"] == test]
    if any(row["label"] == 0 for row in own):
        return own
    untouched = [row for row in rows if row["set"] == REAL]
    if any(row["paired"] for row in own):
        sources = {row["source"] for row in own}
        untouched = [row for row in untouched if row["source"] in sources]
    return untouched + own


def rows_against(rows: Sequence[Row], tests: Iterable[str]) -> list[Row]:
    """The faces of several tests, each once."""
    wanted = {REAL, *tests}
    return [row for row in rows if row["set"] in wanted]


def arrays(rows: Sequence[Row], scorer: str = "") -> tuple[Scores, Labels]:
    """Scores and labels, each (N,); of the detector, or of a peer by its name."""
    labels = np.array([row["label"] for row in rows], np.int64)
    given = [row["peers"].get(scorer) if scorer else row["probability"] for row in rows]
    pairs = zip(given, labels, strict=True)
    scores = [float(1 - label) if score is None else score for score, label in pairs]
    return np.array(scores, np.float64), labels


def clusters(rows: Sequence[Row]) -> NDArray[np.int64]:
    """What a bootstrap draws, (N,): all faces of a person at once, and all made from them."""
    names = [row["subject"] or row["source"] or row["path"] for row in rows]
    return np.unique(np.array(names), return_inverse=True)[1].astype(np.int64)


def figures_of(rows: Sequence[Row], test: str, peers: Sequence[str]) -> list[Figure]:
    """A test's figures: the detector's, beside the best of the peers', then each peer's.

    Beside :data:`OF_A_TEST` it is told how many faces have no score, and so count as wrong.

    ``peer`` is the best of the peers in that figure.
    """
    chosen = rows_of(rows, test)
    figures = []
    for key in OF_A_TEST:
        best = min if key in _LOWER else max
        others = [_value(key, chosen, peer) for peer in peers]
        found = _measured(f"detect.{test}_{key}", key, chosen)
        figures.append(replace(found, peer=best(others, default=None)))
    unscored = sum(row["probability"] is None for row in chosen)
    figures.append(Figure(f"detect.{test}_unscored", float(unscored), unit="faces"))
    return figures + [
        _measured(f"detect.{test}_{key}.{peer}", key, chosen, peer)
        for peer in peers
        for key in ("auc", "tpr1")
    ]


def corruption_figures(
    variants: Sequence[Row], rows: Sequence[Row]
) -> tuple[list[Figure], dict[str, list[float]]]:
    """How much worse the classes are told apart after a corruption, and the curves.

    The AUC is that over the forgeries of all tests at once, of which there are as many of each.
    What is corrupted is a face that was found, cut and brought to size before: the loss is the
    detector's alone, without the faces that would not be found in a corrupted picture.

    Returns:
        ``detect.corruption_drop``, the mean loss over the corruptions at strength 3, with the loss
        under each, and ``detect.jpeg50_drop``; and corruption → AUC at strength 0, 1, …
    """
    faces = {row["id"]: row for row in rows}
    after: dict[str, dict[int, list[float]]] = {}
    for row in variants:
        if row["corruption"] != MARK:
            after.setdefault(row["corruption"], {})[row["id"]] = row["probabilities"]
    if not after:
        return [], {}
    shown = sorted(next(iter(after.values())))
    scores = {
        name: list(np.array([of_one[i] for i in shown], np.float64).T)
        for name, of_one in after.items()
    }
    chosen = [faces[i] for i in shown]
    report = corruptions.curves_from(scores, arrays(chosen)[1], clusters(chosen))
    curves = {name: [at["value"] for at in of_one] for name, of_one in report["auc"].items()}
    return corruptions.figures(report), curves


def belief_figures(rows: Sequence[Row], promised: float | None) -> list[Figure]:
    """Whether what the detector promises holds over all tests: ``detect.ece``, ``.coverage_gap``.

    The gap is that of the class for which the promise is kept worse, in either direction. What has
    no score is as wrong as can be in the first, and not covered in the second.
    """
    chosen = rows_against(rows, tests_in(rows))
    scores, labels = arrays(chosen)
    drawn = clusters(chosen)
    figures = [_measured("detect.ece", "ece", chosen)]
    scored = [row for row in chosen if row["probability"] is not None]
    if promised is None or any(row["sets"] is None for row in scored):
        return figures
    kept = np.array(
        [row["sets"] is not None and row["sets"][row["label"]] for row in chosen], np.float64
    )

    def share(label: int) -> Callable[[Scores, Labels, Scores], Scores]:
        return lambda _, truth, weights: (
            weights @ (kept * (truth == label)) / (weights @ (truth == label))
        )

    def gap(_: Scores, truth: Labels, weights: Scores) -> Scores:
        worst: Scores = np.max(
            [np.abs(share(label)(_, truth, weights) - promised) for label in (0, 1)], axis=0
        )
        return worst

    return figures + [
        _figure(f"detect.{name}", Metric(of_draws), scores, labels, drawn)
        for name, of_draws in (
            ("coverage_gap", gap),
            ("coverage.untouched", share(0)),
            ("coverage.generated", share(1)),
        )
    ]


def false_positives(rows: Sequence[Row], threshold: float | None) -> list[Figure]:
    """``detect.false_positives``: the share of untouched faces above the detector's threshold.

    One without a score counts as one. Beside it, of how many faces.
    """
    chosen = [row for row in rows if row["set"] == REAL]
    if threshold is None or not chosen:
        return []
    scores, labels = arrays(chosen)

    def share(given: Scores, _: Labels, weights: Scores) -> Scores:
        above: Scores = weights @ (given > threshold) / weights.sum(axis=1)
        return above

    figure = _figure("detect.false_positives", Metric(share), scores, labels, clusters(chosen))
    return [figure, Figure("detect.false_positives.faces", float(len(chosen)), unit="faces")]


def marked_shift(variants: Sequence[Row], rows: Sequence[Row]) -> list[Figure]:
    """``detect.marked_shift``: how far a mark alone moves the mean score of untouched faces."""
    marked = {row["id"]: row["probabilities"] for row in variants if row["corruption"] == MARK}
    pairs = [row for row in rows if row["id"] in marked]
    if not pairs:
        return []
    scores, labels = arrays(pairs)
    without, with_mark = np.array([marked[row["id"]] for row in pairs]).T
    moved = with_mark - without

    def shift(_: Scores, truth: Labels, weights: Scores) -> Scores:
        mean: Scores = np.abs(weights @ moved / weights.sum(axis=1))
        return mean

    return [_figure("detect.marked_shift", Metric(shift), scores, labels, clusters(pairs))]


def matrix(rows: Sequence[Row], trained: Sequence[str]) -> dict[str, Any]:
    """Cross-generator AUC: of small detectors that saw one maker's forgeries, on each maker's."""
    columns = list(dict.fromkeys(row["set"] for row in rows if row["label"] == 1))
    names = {"the detector measured": "", **{maker: f"on {maker}" for maker in trained}}
    cells = [
        [metrics.auc(*arrays(rows_of(rows, column), scorer)) for column in columns]
        for scorer in names.values()
    ]
    return {"rows": list(names), "columns": columns, "auc": cells}


def _facts(protocol: Row, rows: Sequence[Row]) -> dict[str, str]:
    counted: dict[str, list[int]] = {}
    for row in rows:
        count = counted.setdefault(row["set"], [0, 0])
        count[0] += 1
        count[1] += row["probability"] is None
    drawn = int(clusters(rows).max()) + 1
    return {
        "detector": " ".join(str(value) for value in protocol["detector"].values()),
        "faces": ", ".join(f"{name} {count[0]}" for name, count in counted.items()),
        "not scored, and so counted as wrong": ", ".join(
            f"{name} {count[1]}" for name, count in counted.items()
        ),
        "intervals": f"95%, bootstrap over {drawn} people, each with all that was made from them",
        "seed": str(protocol["seed"]),
        "data": f"hash {protocol['data_hash']}",
        "packages": ", ".join(f"{key} {value}" for key, value in protocol["packages"].items()),
    }


def label_of(row: Row) -> tables.Label:
    """A row's truth, as ``facekit detector evaluate --labels`` reads it."""
    return tables.Label(
        path=row["path"],
        label=row["label"],
        source=row["source"],
        subject=row["subject"],
        generator=row["maker"],
        video=row["video"],
    )


def _verdicts(rows: Sequence[Row], tests: Sequence[str]) -> list[dict[str, Any]]:
    """Of each class, the share of which the detector says nothing, and the share it says wrong."""
    figures = []
    for name in (REAL, *tests):
        chosen = [row for row in rows if row["set"] == name and row["verdict"] is not None]
        if not chosen:
            continue
        scores, labels = arrays(chosen)
        verdicts = np.array([row["verdict"] for row in chosen])
        for what, which in (
            ("abstained", verdicts == -1),
            ("wrong", (verdicts != -1) & (verdicts != labels)),
        ):
            figures.append(
                _figure(f"{name} {what}", _share(which), scores, labels, clusters(chosen))
            )
    title = "Verdicts with abstention: of all faces of a set"
    return [{"title": title, "figures": _shown(figures)}] if figures else []


def _share(which: NDArray[np.bool_]) -> Metric:
    """The share of the rows that are marked."""

    def of_draws(_: Scores, labels: Labels, weights: Scores) -> Scores:
        share: Scores = weights @ which / weights.sum(axis=1)
        return share

    return Metric(of_draws)


def _by_unit(rows: Sequence[Row], tests: Sequence[str]) -> list[dict[str, Any]]:
    """Of tests that hold frames of videos: the same by track and by video."""
    found = []
    for test in tests:
        chosen = rows_of(rows, test)
        if not any(row["video"] for row in chosen):
            continue
        scored = [tables.Row(path=r["path"], probability=r["probability"]) for r in chosen]
        figures, _ = tables.measure(scored, [label_of(row) for row in chosen])
        kept = [row for row in figures if not row.name.startswith("frame.")]
        found.append({"title": f"{test}, by track and by video", "figures": _shown(kept)})
    return found


def _by_collection(rows: Sequence[Row], tests: Sequence[str]) -> list[dict[str, Any]]:
    """How each test goes against the untouched faces of each collection alone."""
    figures = []
    for test in tests:
        chosen = rows_of(rows, test)
        for name in sorted({row["collection"] for row in chosen if row["set"] == REAL}):
            one = [row for row in chosen if row["set"] == test or row["collection"] == name]
            if any(row["paired"] for row in one):
                sources = {row["source"] for row in one if row["set"] == REAL}
                one = [row for row in one if row["source"] in sources]
            figures.append(_measured(f"{test} against {name}", "auc", one))
    title = "AUC by the collection of the untouched faces"
    return [{"title": title, "figures": _shown(figures)}] if figures else []


def _by_maker(rows: Sequence[Row], tests: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for test in tests:
        chosen = rows_of(rows, test)
        for maker in dict.fromkeys(row["maker"] for row in chosen if row["label"] == 1):
            one = [row for row in chosen if row["label"] == 0 or row["maker"] == maker]
            name = test if maker == test else f"{test}: {maker}"
            figure = _measured(name, "auc", one)
            count = sum(row["label"] for row in one)
            found.append(
                {"name": name, "value": figure.value, "low": figure.low, "high": figure.high}
                | {"count": count}
            )
    return found


def _value(key: str, rows: Sequence[Row], scorer: str) -> float:
    metric, scores, labels = _measure(key, rows, scorer)
    return metric(scores, labels)


def _measured(name: str, key: str, rows: Sequence[Row], scorer: str = "") -> Figure:
    """A figure of ``metrics.METRICS`` with its interval."""
    found = _figure(name, *_measure(key, rows, scorer), clusters(rows))
    return replace(found, unit=METRICS[key][1])


def _measure(key: str, rows: Sequence[Row], scorer: str) -> tuple[Metric, Scores, Labels]:
    """A metric and what it is computed from: scores, but likelihood ratios for the detector's."""
    scores, labels = arrays(rows, scorer)
    if key == "cllr" and not scorer and all(row["ratio"] is not None for row in rows):
        return metrics.cllr, np.array([row["ratio"] for row in rows], np.float64), labels
    return METRICS[key][0], scores, labels


def _figure(
    name: str, metric: Metric, scores: Scores, labels: Labels, drawn: NDArray[np.int64]
) -> Figure:
    low, high = metrics.interval(metric, scores, labels, drawn)
    return Figure(name, metric(scores, labels), low=low, high=high)


def _shown(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    return [{**asdict(row), "holds": row.holds} for row in with_goals(figures)]
