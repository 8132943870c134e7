"""Scores and labels in two files, anybody's, to figures.

**Scores**: a row per face and time, JSONL or CSV; ``path`` and ``probability``, P(generated) or
null, are required. **Labels**: a row per file, CSV or JSONL; ``path`` and ``label`` (1 generated,
0 untouched) are required.

From rows to what is counted:

- a **frame**, a path at one time, has the highest score of its faces: one forged face among ten
  makes a forged frame;
- a **track**, the rows of one video with one track number, has the mean of their probabilities. In
  a video without track numbers all is one track, of its frames' scores;
- a **video**, or a picture, has the highest score of its tracks: a forged face is not averaged
  away by the nine beside it. The label of a video counts for all its frames and tracks.

What has no score at all counts as wrong: generated with 0, untouched with 1. A labelled file that
the scores leave out has no score either. Figures without these are kept in a table of their own.
"""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict, Field
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from detectors import metrics
from detectors.calibrate import Labels, Scores
from facekit.core.config import Config, validate
from facekit.core.errors import FacekitError
from facekit.core.figures import Figure, with_goals
from facekit.core.files import read_jsonl

UNITS = ("frame", "track", "video")
_CLUSTERS = 10  # fewer clusters than this cannot be bootstrapped
_NAMED = 3  # so many paths an error names
_BINS = 20  # of the histogram

# A CSV holds a list or a mapping as JSON in one cell.
_FROM_CELL = BeforeValidator(lambda cell: json.loads(cell) if isinstance(cell, str) else cell)
Probability = Annotated[float, Field(ge=0, le=1)]


class _Record(Config):
    """A row of somebody's file: its numbers may be texts, and it may say more than is read."""

    model_config = ConfigDict(strict=False, extra="ignore")


R = TypeVar("R", bound=_Record)


class Row(_Record):
    """A row of a scores file: a face at one time, or an input that could not be scored.

    Attributes:
        path: of the picture or video.
        time: seconds; None for a picture.
        box: of the face: left, top, right, bottom in pixels.
        track: number of the face in its video.
        scores: the P(generated) of each member of the detector, by its name.
        probability: P(generated), or None where there is none.
        reason: why there is none.
    """

    path: str = Field(min_length=1)
    time: float | None = None
    box: Annotated[tuple[float, float, float, float] | None, _FROM_CELL] = None
    track: int | None = None
    scores: Annotated[dict[str, Probability | None], _FROM_CELL] = Field(default_factory=dict)
    probability: Probability | None
    reason: str | None = None


class Label(_Record):
    """A row of a labels file.

    Attributes:
        path: of the picture or video, as in the scores, or a trailing part of it (or the reverse).
        label: 1 generated, 0 untouched.
        source: what it was made from: a forgery has its original's, so that they are drawn
            together; "" where it is not known.
        subject: the person.
        generator: what made it.
        video: the video that this file is a frame of; "" where it stands for itself.
    """

    path: str = Field(min_length=1)
    label: Annotated[int, Field(ge=0, le=1)]
    source: str = ""
    subject: str = ""
    generator: str = ""
    video: str = ""


@dataclass(frozen=True)
class Input:
    """A labelled file and its rows; none where the scores leave it out."""

    label: Label
    rows: list[Row]

    @property
    def video(self) -> str:
        """What it is a part of: its video, or itself."""
        return self.label.video or self.label.path


@dataclass(frozen=True)
class Units:
    """Frames, tracks or videos, each with one score.

    Attributes:
        name: "frame", "track" or "video".
        scores: (N,) P(generated), NaN where there is none.
        labels: (N,) 1 generated, 0 untouched.
        clusters: (N,) what a bootstrap draws whole, numbered from 0.
        generators: (N,) what made each; "" where it is not known.
    """

    name: str
    scores: Scores
    labels: Labels
    clusters: NDArray[np.int64]
    generators: NDArray[np.str_]

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Which have a score, (N,)."""
        return ~np.isnan(self.scores)

    @property
    def counted(self) -> Scores:
        """The scores, (N,); what has none is as wrong as can be."""
        return np.where(self.scored, self.scores, 1.0 - self.labels)

    def same(self, other: "Units") -> bool:
        """Whether another unit has the same scores of the same inputs."""
        return (
            np.array_equal(self.scores, other.scores, equal_nan=True)
            and np.array_equal(self.labels, other.labels)
            and np.array_equal(self.clusters, other.clusters)
        )

    def subset(self, chosen: NDArray[np.bool_]) -> "Units":
        """Those of a mask (N,); their clusters are numbered anew."""
        _, clusters = np.unique(self.clusters[chosen], return_inverse=True)
        return Units(
            self.name,
            self.scores[chosen],
            self.labels[chosen],
            clusters.astype(np.int64),
            self.generators[chosen],
        )


def read_scores(path: Path) -> list[Row]:
    """The rows of a scores file.

    Raises:
        FacekitError: if it is missing, empty, or a row is no such row or stands twice.
    """
    rows = _read(path, Row)
    seen: dict[tuple[Any, ...], int] = {}
    for number, row in enumerate(rows, start=1):
        key = (_parts(row.path), row.time, row.box, row.track)
        if key in seen:
            raise FacekitError(
                f"{path}, row {number}: '{row.path}' stands in row {seen[key]} already; rows of "
                "one path must differ in time, box or track"
            )
        seen[key] = number
    return rows


def read_labels(path: Path) -> list[Label]:
    """The rows of a labels file, each path once.

    Raises:
        FacekitError: if it is missing, empty, a row is no such row, or a path is described twice
            and differently.
    """
    labels: dict[tuple[str, ...], Label] = {}
    for number, label in enumerate(_read(path, Label), start=1):
        known = labels.setdefault(_parts(label.path), label)
        if known.model_copy(update={"path": label.path}) != label:
            raise FacekitError(
                f"{path}, row {number}: '{label.path}' is labelled twice, and differently; "
                "label each file once"
            )
    return list(labels.values())


def _read(path: Path, model: type[R]) -> list[R]:
    records = _read_csv(path) if path.suffix.lower() == ".csv" else read_jsonl(path)
    if not records:
        raise FacekitError(f"{path}: is empty; {_wanted(model)}")
    for key in (name for name, field in model.model_fields.items() if field.is_required()):
        if all(key not in record for record in records):
            raise FacekitError(f"{path}: no row has '{key}'; {_wanted(model)}")
    return [
        validate(record, model, f"{path}, row {number}")
        for number, record in enumerate(records, start=1)
    ]


def _wanted(model: type[_Record]) -> str:
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    others = [name for name in model.model_fields if name not in required]
    return f"each row needs {' and '.join(required)}, and may have {', '.join(others)}"


def _read_csv(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV with a header; empty cells are left out, an empty probability is None."""
    try:
        # utf-8-sig: spreadsheets put a mark before the first name.
        text = path.read_text(encoding="utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except FileNotFoundError:
        raise FacekitError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FacekitError(f"{path}: not readable as CSV ({error})") from error
    records = []
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise FacekitError(f"{path}, row {number}: has more cells than the header")
        filled: dict[str, Any] = {key.strip(): cell for key, cell in row.items() if cell}
        if "probability" in row:
            filled.setdefault("probability", None)
        records.append(filled)
    return records


def join(rows: Sequence[Row], labels: Sequence[Label]) -> list[Input]:
    """Each labelled file with its rows.

    Paths match where they are the same, else where one is the trailing part (whole names) of the
    other and of no other.

    Raises:
        FacekitError: if a scored path has no label, or might have several, or two share one.
    """
    whole = {_parts(label.path): label.path for label in labels}
    endings: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for parts, path in whole.items():
        for start in range(1, len(parts)):
            endings[parts[start:]].append(path)

    paths: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        paths[_parts(row.path)].append(row)
    of_label: dict[str, list[Row]] = {}
    missing, ambiguous = [], []
    for parts, own in paths.items():
        if parts in whole:
            found = [whole[parts]]
        else:
            tails = [parts[start:] for start in range(1, len(parts))]
            found = [whole[tail] for tail in tails if tail in whole] + endings.get(parts, [])
        if not found:
            missing.append(own[0].path)
        elif len(found) > 1 or found[0] in of_label:
            ambiguous.append(own[0].path)
        else:
            of_label[found[0]] = own
    if missing:
        raise FacekitError(
            f"{len(missing)} of {len(paths)} scored paths have no label: {_few(missing)}; label "
            "them, or leave them out of the scores"
        )
    if ambiguous:
        raise FacekitError(
            f"{len(ambiguous)} of {len(paths)} scored paths fit several labels, or share one: "
            f"{_few(ambiguous)}; give longer paths in both files"
        )
    return [Input(label, of_label.get(label.path, [])) for label in labels]


def units(
    inputs: Sequence[Input],
    name: str,
    clusters: NDArray[np.int64],
    score: Callable[[Row], float | None] = lambda row: row.probability,
) -> Units:
    """Frames, tracks or videos, and their scores; the rules stand at the top of this file.

    Args:
        inputs: labelled files with their rows.
        name: "frame", "track" or "video".
        clusters: (N,) the number of each input's cluster.
        score: which of a row's scores is meant.

    Raises:
        FacekitError: if the files of one video have different labels.
    """
    videos: dict[str, list[int]] = defaultdict(list)
    for index, one in enumerate(inputs):
        videos[one.video].append(index)
    scores: list[float | None] = []
    owners: list[int] = []
    for video, indices in videos.items():
        if len({inputs[i].label.label for i in indices}) > 1:
            raise FacekitError(f"video '{video}': its files are labelled both 0 and 1")
        faces: dict[tuple[int, float | None], list[float | None]] = defaultdict(list)
        for i in indices:
            for row in inputs[i].rows:
                faces[i, row.time].append(score(row))
            if not inputs[i].rows:
                faces[i, None] = []
        frames = {frame: _highest(own) for frame, own in faces.items()}
        if name == "frame":
            scores += frames.values()
            owners += [i for i, _ in frames]
            continue
        rows = [row for i in indices for row in inputs[i].rows]
        tracks = _tracks(rows, list(frames.values()), score)
        found = tracks if name == "track" else [_highest(tracks)]
        scores += found
        owners += [indices[0]] * len(found)
    of_each = np.array(owners)
    return Units(
        name,
        np.array(scores, np.float64),  # None becomes NaN
        np.array([one.label.label for one in inputs], np.int64)[of_each],
        clusters[of_each],
        np.array([one.label.generator for one in inputs])[of_each],
    )


def _tracks(
    rows: Sequence[Row], frames: Sequence[float | None], score: Callable[[Row], float | None]
) -> list[float | None]:
    """The score of each track of one video."""
    numbered: dict[int, list[float | None]] = defaultdict(list)
    for row in rows:
        if row.track is not None:
            numbered[row.track].append(score(row))
    if not numbered:
        return [_mean(frames)]
    # Faces that no track holds are one more; a frame without a face is none.
    loose = [own for row in rows if row.track is None and (own := score(row)) is not None]
    means = [_mean(own) for own in numbered.values()]
    return [*means, _mean(loose)] if loose else means


def _highest(scores: Iterable[float | None]) -> float | None:
    return max((score for score in scores if score is not None), default=None)


def _mean(scores: Iterable[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


def clusters(inputs: Sequence[Input]) -> tuple[str, NDArray[np.int64]]:
    """What a bootstrap draws: inputs that share a person, a source or a video, directly or not.

    Where that leaves fewer than ten groups, sharing a source is what counts, or a video.

    Returns:
        What the intervals rest on, in words, and for each input the number of its group.
    """
    levels = [("subject", "people"), ("source", "sources"), ("video", "videos or pictures")]
    given = [level for level in levels if any(getattr(one.label, level[0]) for one in inputs)]
    narrow = ""
    while True:
        group = _linked(inputs, [level for level, _ in given])
        count = int(group.max()) + 1
        if count >= _CLUSTERS or not given:
            break
        narrow = f"; too narrow for other {given[0][1]}, of which there are only {count} groups"
        given = given[1:]
    if count < _CLUSTERS:
        narrow = f"; {count} are too few for an interval to be trusted"
    named = " or ".join(name for _, name in given) or "files"
    what = f"groups that share {named}" if len(given) > 1 else named
    return f"bootstrap over {count} {what}{narrow}", group


def _linked(inputs: Sequence[Input], levels: Sequence[str]) -> NDArray[np.int64]:
    """The number of each input's group: connected by equal values on any of the levels."""
    nodes: dict[tuple[str, str], int] = {}
    edges = [
        (index, len(inputs) + nodes.setdefault((level, value), len(nodes)))
        for index, one in enumerate(inputs)
        for level in levels
        if (value := getattr(one.label, level))
    ]
    size = len(inputs) + len(nodes)
    start, end = np.array(edges, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges)), (start, end)), shape=(size, size))
    _, group = connected_components(graph, directed=False)
    _, numbers = np.unique(group[: len(inputs)], return_inverse=True)
    return numbers.astype(np.int64)


def measure(rows: Sequence[Row], labels: Sequence[Label]) -> tuple[list[Figure], dict[str, Any]]:
    """Every figure of scores against labels, by frame, track and video.

    Returns:
        The figures with all that has no score counted as wrong, named "frame.auc", …, and how many
        these are, "frame.unscored", …; and what ``detectors.report.evaluation.Evaluation`` shows of
        them.

    Raises:
        FacekitError: if paths don't match, nothing was scored, or a class is empty.
    """
    inputs = join(rows, labels)
    _check_classes(inputs)
    drawn, group = clusters(inputs)
    figures: list[Figure] = []
    shown: list[dict[str, Any]] = []
    without: list[dict[str, Any]] = []
    notes = [f"95% intervals: {drawn}."]
    members = sorted({name for row in rows for name in row.scores})
    frames = units(inputs, "frame", group)
    curves = {"detector": metrics.roc(frames.counted, frames.labels)}
    own: list[Figure] = []
    last = frames
    for name in UNITS:
        counted = units(inputs, name, group)
        peers = {member: units(inputs, name, group, _of(member)) for member in members}
        if name == "frame":
            curves |= {key: metrics.roc(of.counted, of.labels) for key, of in peers.items()}
        if own and counted.same(last):  # of pictures all three are the same
            own = [replace(row, name=row.name.replace(last.name, name, 1)) for row in own]
        else:
            own = metrics.summary(counted.counted, counted.labels, counted.clusters, name)
        own = with_goals(own)
        last = counted
        unscored = Figure(f"{name}.unscored", float((~counted.scored).sum()), unit=f"{name}s")
        figures += [*own, unscored]
        shown += [*(_row(figure, peers) for figure in own), asdict(unscored)]
        without += _without_unscored(counted, notes)
    notes += _notes(inputs)
    generated = sum(one.label.label for one in inputs)
    evaluation = {
        "title": "Scores against labels",
        "facts": {
            "labelled": f"{generated} generated and {len(inputs) - generated} untouched files",
            "rows of scores": str(len(rows)),
            "intervals": f"95%, {drawn}",
        },
        "figures": shown,
        "tables": [
            {
                "title": "Abstained: the same without what has no score",
                "figures": without,
                "notes": [],
            }
        ]
        if without
        else [],
        **plots(frames.scores[frames.scored], frames.labels[frames.scored]),
        "roc": curves,
        "generators": by_generator(units(inputs, "video", group)),
        "notes": notes,
    }
    return figures, evaluation


def plots(probabilities: Scores, labels: Labels) -> dict[str, Any]:
    """The parts of an ``Evaluation`` that draw scores: ROC, reliability and histogram.

    Args:
        probabilities: (N,) P(generated) in [0, 1].
        labels: (N,); of one class alone there is no ROC curve.
    """
    edges = np.linspace(0, 1, _BINS + 1)
    both = 0 < labels.sum() < len(labels)
    return {
        "roc": {"detector": metrics.roc(probabilities, labels)} if both else {},
        "reliability": metrics.reliability(probabilities, labels),
        "histogram": {
            "edges": edges.tolist(),
            **{
                key: np.histogram(probabilities[labels == label], edges)[0].tolist()
                for label, key in enumerate(("untouched", "generated"))
            },
        },
    }


def by_generator(videos: Units) -> list[dict[str, Any]]:
    """AUC of what each generator made, against everything untouched; rows of an ``Evaluation``."""
    names = sorted(set(videos.generators[videos.labels == 1]) - {""})
    rows = []
    for name in names:
        own = videos.subset((videos.labels == 0) | (videos.generators == name))
        low, high = metrics.interval(metrics.auc, own.counted, own.labels, own.clusters)
        value = metrics.auc(own.counted, own.labels)
        count = int(own.labels.sum())
        rows.append({"name": str(name), "value": value, "low": low, "high": high, "count": count})
    return rows


def _of(member: str) -> Callable[[Row], float | None]:
    return lambda row: row.scores.get(member)


def _row(figure: Figure, peers: dict[str, Units]) -> dict[str, Any]:
    metric, _ = metrics.METRICS[figure.name.partition(".")[2]]
    beside = {name: metric(peer.counted, peer.labels) for name, peer in peers.items()}
    return {**asdict(figure), "holds": figure.holds, "peers": beside}


def _check_classes(inputs: Sequence[Input]) -> None:
    generated = sum(one.label.label for one in inputs)
    if not 0 < generated < len(inputs):
        raise FacekitError(
            f"all {len(inputs)} labels are {1 if generated else 0}; both classes are needed: "
            "1 generated, 0 untouched"
        )
    if all(row.probability is None for one in inputs for row in one.rows):
        reasons = sorted({row.reason for one in inputs for row in one.rows if row.reason})
        raise FacekitError(
            f"none of {len(inputs)} labelled files has a score"
            + (f" ({_few(reasons)})" if reasons else "")
        )


def _without_unscored(counted: Units, notes: list[str]) -> list[dict[str, Any]]:
    """The figures of what was scored; none where all was, or a class is left without scores."""
    missing = ~counted.scored
    if not missing.any():
        return []
    shares = [
        f"{int(missing[counted.labels == label].sum())} of {int((counted.labels == label).sum())} "
        for label in (1, 0)
    ]
    notes.append(
        f"{int(missing.sum())} of {len(missing)} {counted.name}s ({missing.mean():.1%}) have no "
        f"score: {shares[0]}generated, {shares[1]}untouched. They count as wrong, except under "
        "“abstained”."
    )
    rest = counted.subset(counted.scored)
    if len(set(rest.labels)) < 2:
        notes.append(f"Without them one class has no {counted.name} left.")
        return []
    own = metrics.summary(rest.scores, rest.labels, rest.clusters, counted.name)
    return [asdict(figure) for figure in own]


def _notes(inputs: Sequence[Input]) -> list[str]:
    notes = []
    absent = [one.label.path for one in inputs if not one.rows]
    if absent:
        notes.append(
            f"{len(absent)} of {len(inputs)} labelled files do not occur in the scores, and count "
            f"as not scored: {_few(absent)}."
        )
    untouched = sum(1 - one.label.label for one in inputs)
    if untouched < metrics.FEWEST:
        notes.append(
            f"TPR at 0.1% FPR rests on {untouched} untouched files; below {metrics.FEWEST} it is "
            "that of no false alarm at all, and says little."
        )
    notes.append("Cllr reads probabilities at even prior odds, no surer than 1 in ten million.")
    return notes


def _few(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(f"'{name}'" for name in names[:_NAMED]) + (f" and {more} more" * (more > 0))


def _parts(path: str) -> tuple[str, ...]:
    return PurePosixPath(path.replace("\\", "/")).parts
