"""An evaluation as one HTML file that needs nothing else: no network, no fonts, no scripts.

What it shows is an ``Evaluation``: a plain value that JSON can hold, every part of it optional.
Whoever measures something fills the part that is theirs::

    {
      "title": "detectors/default on generated/b",
      "facts": {"data": "400 generated and 812 untouched faces", "intervals": "…"},
      "figures": [{**asdict(figure), "holds": figure.holds}, …],
      "tables": [{"title": "Abstained left out", "figures": […], "notes": ["…"]}],
      "roc": {"default": [[0.0, 0.0], …, [1.0, 1.0]], "meso4": …},   # scorer → [FPR, TPR]
      "reliability": [{"low": 0.0, "high": 0.1, "count": 40, "mean": 0.03, "share": 0.05}, …],
      "histogram": {"edges": [0.0, …, 1.0], "untouched": [12, …], "generated": [0, …]},
      "corruptions": {"jpeg": [0.99, 0.99, 0.98, 0.97, 0.95, 0.91]},  # AUC at strength 0 to 5
      "matrix": {"rows": ["a"], "columns": ["a", "b"], "auc": [[0.99, None]]},
      "generators": [{"name": "b", "value": 0.99, "low": 0.98, "high": 1.0, "count": 400}, …],
      "shortcuts": [{"name": "shortcut.size", "value": 0.52, "low": 0.47, "high": 0.57}, …],
      "fairness": [{"group": "skin tone", "name": "1", "value": None, "count": 30,
                    "note": "not established"}, …],
      "notes": ["…"],
    }
"""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import Annotated, Self

import jinja2
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from detectors.report.page import environment
from facekit import __version__

# The area between a plot's axes, in a picture of 360 × 250 units (see the template), y down.
_LEFT, _RIGHT, _TOP, _BOTTOM = 54.0, 350.0, 10.0, 212.0
_LEAST_FPR = 1e-3  # where the logarithmic axis begins

_WORDS = {
    "auc": "area under the ROC curve",
    "ap": "average precision",
    "eer": "equal error rate",
    "tpr1": "found at 1% false alarms",
    "tpr01": "found at 0.1% false alarms",
    "ece": "expected calibration error",
    "brier": "mean squared error of the probability",
    "cllr": "cost of the likelihood ratio",
    "min_cllr": "the same, calibrated as well as can be",
    "unscored": "without a score; each counts as wrong",
    "corruption_drop": "AUC lost on faces that were found before",
    "jpeg50_drop": "AUC lost on faces that were found before",
}


class Part(BaseModel):
    """The base of every part: unknown keys and infinite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Row(Part):
    """A figure (``facekit.core.figures.Figure``) and what a page may say beside it.

    Attributes:
        name: of the figure, the generator, the shortcut or the group's member.
        value: what was measured; None where it is not established, and ``note`` says why.
        peers: the same figure of other tools, by their names.
        group: fairness only: what divides people, e.g. "skin tone".
        count: of what it was measured on: faces; for fairness, people.
        note: a few words.
    """

    name: str
    value: float | None
    unit: str = ""
    low: float | None = None
    high: float | None = None
    peer: float | None = None
    floor: float | None = None
    goal: str | None = None
    holds: bool | None = None
    peers: dict[str, float | None] = Field(default_factory=dict)
    group: str = ""
    count: int | None = None
    note: str = ""


class FigureTable(Part):
    """A further table of figures, e.g. without what the detector abstained from."""

    title: str
    figures: list[Row]
    notes: list[str] = Field(default_factory=list)


class Bin(Part):
    """A bin of a reliability diagram, as ``detectors.metrics.reliability`` gives it."""

    low: float
    high: float
    count: float
    mean: float
    share: float


class Histogram(Part):
    """Scores by class: how many lie in each bin between ``edges`` (one more than bins)."""

    edges: list[float] = Field(min_length=2)
    untouched: list[int]
    generated: list[int]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        counts = len(self.untouched), len(self.generated)
        if counts != (len(self.edges) - 1,) * 2:
            raise PydanticCustomError("bins", "edges must be one more than the bins of each class")
        return self


class Matrix(Part):
    """Cross-generator AUC: trained on ``rows``, tested on ``columns``; None where not measured."""

    rows: list[str]
    columns: list[str]
    auc: list[list[float | None]]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if [len(row) for row in self.auc] != [len(self.columns)] * len(self.rows):
            raise PydanticCustomError("cells", "auc must have a row for each, of all columns")
        return self


class Evaluation(Part):
    """All that an evaluation found; see the top of this file."""

    title: str = "Evaluation"
    facts: dict[str, str] = Field(default_factory=dict)
    figures: list[Row] = Field(default_factory=list)
    tables: list[FigureTable] = Field(default_factory=list)
    roc: dict[str, Annotated[list[tuple[float, float]], Field(min_length=2)]] = Field(
        default_factory=dict
    )
    reliability: list[Bin] = Field(default_factory=list)
    histogram: Histogram | None = None
    corruptions: dict[str, Annotated[list[float], Field(min_length=1)]] = Field(
        default_factory=dict
    )
    matrix: Matrix | None = None
    generators: list[Row] = Field(default_factory=list)
    shortcuts: list[Row] = Field(default_factory=list)
    fairness: list[Row] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class Line:
    """A curve of a plot.

    Attributes:
        name: for the legend.
        path: SVG path data.
        style: which of the eight line styles.
        dots: (x, y, radius, text) of its points, where they are shown.
        filled: whether the area under it is tinted.
    """

    name: str
    path: str
    style: int = 0
    dots: list[tuple[float, float, float, str]] = field(default_factory=list)
    filled: bool = False


@dataclass(frozen=True)
class Plot:
    """A plot with its axes, in units of the picture.

    Attributes:
        title: what it shows.
        text: the same in words, for whoever cannot see it.
        across, up: what the axes are.
        x_ticks, y_ticks: (place, label).
        lines: its curves.
        caption: what need be said below it; may be empty.
        guide: path data of a dashed line for comparison; may be empty.
    """

    title: str
    text: str
    across: str
    up: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]
    caption: str = ""
    guide: str = ""


@dataclass(frozen=True)
class Strip:
    """A column of values with intervals, drawn as dots on one axis from ``low`` to ``high``."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Where a value lies, in hundredths of the axis."""
        return round(100 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low))), 1)


def render(evaluation: Evaluation) -> str:
    """The evaluation as HTML."""
    judged = [row for row in evaluation.figures if row.holds is not None]
    html = _template().render(
        evaluation=evaluation,
        figures=_folded(evaluation.figures, evaluation.roc),
        version=__version__,
        judged=judged,
        failed=[row for row in judged if not row.holds],
        rocs=_rocs(evaluation.roc),
        reliability=_reliability(evaluation.reliability),
        histogram=_histogram(evaluation.histogram),
        corruptions=_corruptions(evaluation.corruptions),
        of_generators=_strip(evaluation.generators),
        of_shortcuts=_strip(evaluation.shortcuts),
        of_rates=Strip(0.0, _ceiling(evaluation.fairness)),
    )
    return re.sub(r"\n\s*\n+", "\n", html) + "\n"


@cache
def _template() -> jinja2.Template:
    made = environment({"number": _number, "words": _words, "groups": _groups})
    return made.get_template("evaluation.html.j2")


def _number(value: float | None) -> str:
    """Three decimals, or four digits of what is large; a dash for what is not known."""
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def _words(row: Row) -> str:
    """What is said under a figure's name."""
    last = row.name.rpartition(".")[2]
    return row.note or _WORDS.get(last) or _WORDS.get(last.rpartition("_")[2], "")


def _groups(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Rows that follow each other and have the same ``group``, or beginning of their name."""

    def key(row: Row) -> str:
        before, dot, _ = row.name.partition(".")
        return row.group or before * bool(dot)

    return [(name, list(own)) for name, own in groupby(rows, key)]


def _folded(rows: Sequence[Row], scorers: Collection[str]) -> list[Row]:
    """Rows ``FIGURE.SCORER`` put beside the row ``FIGURE``, as what another scorer reaches."""
    names = {row.name for row in rows}
    kept: list[Row] = []
    beside: dict[str, dict[str, float | None]] = {}
    for row in rows:
        figure, _, scorer = row.name.rpartition(".")
        if figure in names and scorer in scorers and row.goal is None:
            beside.setdefault(figure, {})[scorer] = row.value
        else:
            kept.append(row)
    return [row.model_copy(update={"peers": row.peers | beside.get(row.name, {})}) for row in kept]


def _x(share: float) -> float:
    return round(_LEFT + share * (_RIGHT - _LEFT), 1)


def _y(share: float) -> float:
    return round(_BOTTOM - share * (_BOTTOM - _TOP), 1)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_x(x):g} {_y(y):g}" for x, y in points)


_QUARTERS_ACROSS = [(_x(share), f"{share:g}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
_QUARTERS_UP = [(_y(share), f"{share:g}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]


def _rocs(curves: dict[str, list[tuple[float, float]]]) -> list[Plot]:
    """The ROC curves, the detector's first, and again with a logarithmic axis of false alarms."""
    if not curves:
        return []
    curves = dict(sorted(curves.items(), key=lambda curve: curve[0] != "detector"))

    def at(curve: Sequence[tuple[float, float]], fpr: float) -> float:
        return max((tpr for x, tpr in curve if x <= fpr), default=0.0)

    found = "; ".join(
        f"{name} finds {at(curve, 0.01):.3f} at 1% and {at(curve, 0.1):.3f} at 10% false alarms"
        for name, curve in curves.items()
    )
    lines = [Line(name, _path(curve), i) for i, (name, curve) in enumerate(curves.items())]
    decades = round(-math.log10(_LEAST_FPR))
    chance = [(10 ** (decades * (i / 60 - 1))) for i in range(61)]
    return [
        Plot(
            "ROC",
            f"{found}. Dashed: chance.",
            "false alarms among untouched (FPR)",
            "found among generated (TPR)",
            _QUARTERS_ACROSS,
            _QUARTERS_UP,
            lines,
            f"{found}. Dashed: chance.",
            _path([(0, 0), (1, 1)]),
        ),
        Plot(
            "ROC at few false alarms",
            f"{found}. Dashed: chance.",
            "false alarms (FPR), logarithmic",
            "found among generated (TPR)",
            [(_x(i / decades), f"{10.0 ** (i - decades):g}") for i in range(decades + 1)],
            _QUARTERS_UP,
            [Line(name, _log_path(curve), i) for i, (name, curve) in enumerate(curves.items())],
            "The same curves, drawn in steps. Dashed: chance.",
            _path([(1 + math.log10(x) / decades, x) for x in chance]),
        ),
    ]


def _log_path(curve: Sequence[tuple[float, float]]) -> str:
    """A ROC curve over the logarithm of its FPR: in steps, what is found at most at that rate."""
    decades = -math.log10(_LEAST_FPR)
    points: list[tuple[float, float]] = []
    height = 0.0
    for fpr, tpr in curve:
        if fpr <= _LEAST_FPR:
            height = max(height, tpr)
            points = [(0.0, height)]
            continue
        across = 1 + math.log10(fpr) / decades
        points += [(across, height), (across, tpr)]
        height = tpr
    return _path(points)


def _reliability(bins: Sequence[Bin]) -> Plot | None:
    if not bins:
        return None
    most = max(row.count for row in bins)
    texts = [f"{row.mean:.2f} promised, {row.share:.2f} held ({row.count:.0f})" for row in bins]
    dots = [
        (_x(row.mean), _y(row.share), round(2 + 5 * math.sqrt(row.count / most), 1), text)
        for row, text in zip(bins, texts, strict=True)
    ]
    return Plot(
        "Reliability",
        f"Of each bin, what was promised and what held: {'; '.join(texts)}.",
        "probability given",
        "share that was generated",
        _QUARTERS_ACROSS,
        _QUARTERS_UP,
        [Line("", _path([(row.mean, row.share) for row in bins]), 0, dots)],
        "Larger dots stand for more inputs. Dashed: where what is promised holds.",
        _path([(0, 0), (1, 1)]),
    )


def _histogram(histogram: Histogram | None) -> Plot | None:
    if histogram is None:
        return None
    classes = {"untouched": histogram.untouched, "generated": histogram.generated}
    shares = {
        name: [count / max(1, sum(counts)) for count in counts] for name, counts in classes.items()
    }
    top = max(0.1, math.ceil(10 * max(max(of) for of in shares.values())) / 10)
    first, last = histogram.edges[0], histogram.edges[-1]
    edges = [(edge - first) / (last - first) for edge in histogram.edges]
    lines = []
    for style, (name, of) in enumerate(shares.items()):
        steps = [
            (edge, share / top) for i, share in enumerate(of) for edge in (edges[i], edges[i + 1])
        ]
        lines.append(Line(name, _path([(0.0, 0.0), *steps, (1.0, 0.0)]), style, filled=True))
    halves = {
        name: sum(n for n, edge in zip(of, histogram.edges[1:], strict=True) if edge <= 0.5)
        for name, of in shares.items()
    }
    text = "; ".join(
        f"{share:.0%} of {name} ones score up to 0.5" for name, share in halves.items()
    )
    return Plot(
        "Scores by class",
        f"{text}.",
        "probability given",
        "share of the class",
        [(_x(i / 4), f"{first + (last - first) * i / 4:g}") for i in range(5)],
        [(_y(i / 2), f"{top * i / 2:.0%}") for i in range(3)],
        lines,
        f"{text}.",
    )


def _corruptions(curves: dict[str, list[float]]) -> Plot | None:
    if not curves:
        return None
    lowest = min(min(curve) for curve in curves.values())
    ends = [(0.9, 5), (0.8, 4), (0.5, 5), (0.0, 5)]  # the axis's lower end, and its ticks
    bottom, ticks = next((end, count) for end, count in ends if lowest >= end)
    strongest = max(len(curve) for curve in curves.values()) - 1
    lines = []
    for style, (name, curve) in enumerate(curves.items()):
        points = [
            (strength / max(1, strongest), (auc - bottom) / (1 - bottom))
            for strength, auc in enumerate(curve)
        ]
        dots = [
            (_x(x), _y(y), 2.4, f"{name} at {strength}: {auc:.3f}")
            for (x, y), (strength, auc) in zip(points, enumerate(curve), strict=True)
        ]
        lines.append(Line(name, _path(points), style, dots))
    return Plot(
        "AUC under corruption",
        "AUC by strength; the table beside it holds the same numbers.",
        "strength (0: none)",
        "AUC",
        [(_x(i / max(1, strongest)), str(i)) for i in range(strongest + 1)],
        [(_y(i / ticks), f"{bottom + (1 - bottom) * i / ticks:.3g}") for i in range(ticks + 1)],
        lines,
    )


def _strip(rows: Sequence[Row]) -> Strip:
    """An axis of AUCs: from chance, unless one lies below it."""
    return Strip(0.0 if any((row.value or 0.5) < 0.5 for row in rows) else 0.5, 1.0)


def _ceiling(rows: Sequence[Row]) -> float:
    """The upper end of an axis of rates: the least round number above all of them."""
    highest = max((row.high or row.value or 0.0 for row in rows), default=0.0)
    return next(bound for bound in (0.05, 0.1, 0.2, 0.5, 1.0, highest) if highest <= bound)
