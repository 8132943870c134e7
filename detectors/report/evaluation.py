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

from pydantic import BaseModel, ConfigDict, Field


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

    edges: list[float]
    untouched: list[int]
    generated: list[int]


class Matrix(Part):
    """Cross-generator AUC: trained on ``rows``, tested on ``columns``; None where not measured."""

    rows: list[str]
    columns: list[str]
    auc: list[list[float | None]]


class Evaluation(Part):
    """All that an evaluation found; see the top of this file."""

    title: str = "Evaluation"
    facts: dict[str, str] = Field(default_factory=dict)
    figures: list[Row] = Field(default_factory=list)
    tables: list[FigureTable] = Field(default_factory=list)
    roc: dict[str, list[tuple[float, float]]] = Field(default_factory=dict)
    reliability: list[Bin] = Field(default_factory=list)
    histogram: Histogram | None = None
    corruptions: dict[str, list[float]] = Field(default_factory=dict)
    matrix: Matrix | None = None
    generators: list[Row] = Field(default_factory=list)
    shortcuts: list[Row] = Field(default_factory=list)
    fairness: list[Row] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
