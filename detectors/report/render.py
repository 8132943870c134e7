"""A report as one HTML file that needs nothing else: no network, no fonts, no other file.

The page stays below ``MOST`` bytes whatever it is of: its text is written in as much detail as
fits, the worst files and faces first, and what room is left goes to pictures, the most telling
first. What is not shown is counted on the page and stands in ``report.json``.
"""

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import jinja2

from detectors.report import charts, text
from detectors.report.charts import Overlay, Timeline
from detectors.report.model import (
    EVIDENCE,
    INCONCLUSIVE,
    NO_EVIDENCE,
    Bin,
    Conclusion,
    FileReport,
    HeatMap,
    PartName,
    Range,
    Reason,
    Report,
    Track,
    Verdict,
)
from detectors.report.page import environment
from detectors.report.pictures import Box as Box
from detectors.report.pictures import Crop as Crop
from detectors.report.pictures import Pictures as Pictures
from detectors.verdict import worst_first

MOST: Final = 2_900_000
"""Bytes of a page, of three million that a mail or a court's form may take."""

PART_NAMES: Final[dict[PartName, str]] = {
    "provenance": "Provenance",
    "watermark": "Watermark",
    "facts": "File facts",
    "faces": "Faces",
    "detectors": "Detectors",
    "localisation": "Localisation",
}

_WEIGHTS: Final = {
    "evidence": "Speaks for manipulation",
    "abstention": "Leaves it open",
    "note": "Good to know",
}
_ORDER: Final[tuple[Conclusion, ...]] = (EVIDENCE, INCONCLUSIVE, NO_EVIDENCE)
_TEXT = 1_900_000  # bytes of a page without its pictures, if fewer details help
_AROUND = 350  # bytes of markup around a picture
_OVERLAY = 3000  # and of a heat map over it
_THUMBS = 8  # of a track
_POINTS, _FEWEST = 400, 20  # of one timeline


@dataclass(frozen=True)
class Detail:
    """How much of a report is written out.

    Attributes:
        rows: files in the table of all.
        files: of them, those with a section of their own.
        tracks: of one file.
        points: of all timelines together.
        numbers: rows of a timeline's table.
        claims: characters of a manifest's claims.
        tags: of a file's metadata.
    """

    rows: int
    files: int
    tracks: int
    points: int
    numbers: int
    claims: int
    tags: int


_DETAILS = (
    Detail(rows=5000, files=1000, tracks=60, points=6000, numbers=20, claims=20_000, tags=80),
    Detail(rows=5000, files=300, tracks=20, points=4000, numbers=0, claims=2000, tags=20),
    Detail(rows=4000, files=120, tracks=12, points=3000, numbers=0, claims=500, tags=10),
    Detail(rows=2500, files=30, tracks=8, points=2000, numbers=0, claims=500, tags=10),
    Detail(rows=1200, files=10, tracks=5, points=1000, numbers=0, claims=200, tags=5),
)


@dataclass(frozen=True)
class Map:
    """A heat map, the picture that it lies over, and its drawing over it.

    Without room for the picture ``jpeg`` is None, and ``drawn`` only says where it is strongest.
    """

    heat: HeatMap
    jpeg: bytes | None
    drawn: Overlay


@dataclass(frozen=True)
class Face:
    """A track as it is shown.

    Attributes:
        facts: what was found.
        chart: its timeline, if there is one to draw.
        crops: its pictures in order of time, as far as there is room.
        best: the most telling of them, or None.
        maps: where traces were seen.
        alike: numbers of other faces that show the same person.
        outside: what it was seen like that the detector was not calibrated on, with its range.
    """

    facts: Track
    chart: Timeline | None
    crops: list[Crop]
    best: Crop | None
    maps: list[Map]
    alike: list[int]
    outside: dict[str, Range]


@dataclass(frozen=True)
class File:
    """A file as it is shown, with its faces, the worst first, and how many are left out."""

    anchor: str
    facts: FileReport
    pictures: Pictures
    overview: bytes | None
    faces: list[Face]
    hidden: int


@dataclass(frozen=True)
class Entry:
    """A file's place in the report, from 1, what was found, and its pictures."""

    number: int
    facts: FileReport
    pictures: Pictures

    @property
    def anchor(self) -> str:
        """The name that links go to."""
        return f"file-{self.number}"


Key = tuple[int, int, str, float]
"""A picture: the file's number, the track's id (-1: none), what it is, and its time."""


def render(report: Report, pictures: Sequence[Pictures]) -> str:
    """The report as HTML.

    Args:
        report: what was found.
        pictures: one for each of ``report.files``, in the same order.
    """
    template = _environment().get_template("report.html.j2")
    entries = _ranked(report, pictures)

    def page(detail: Detail, shown: set[Key]) -> str:
        html = template.render(
            report=report,
            detail=detail,
            rows=entries[: detail.rows],
            files=_files(entries[: detail.files], report, detail, shown),
            left_out_names=[PART_NAMES[part].lower() for part in report.settings.left_out],
            dots=charts.reliability(_reliability(report)),
        )
        return re.sub(r"\n\s*\n+", "\n", html).strip() + "\n"

    for detail in _DETAILS:
        bare = len(page(detail, set()).encode())
        if bare <= _TEXT:
            break
    return page(detail, _chosen(entries[: detail.files], detail, MOST - bare))


def tone(conclusion: str) -> str:
    """The style class of a verdict."""
    return {EVIDENCE: "evidence", INCONCLUSIVE: "open"}.get(conclusion, "clear")


def _environment() -> jinja2.Environment:
    return environment(
        {
            "clock": text.clock,
            "count": text.count,
            "jpeg": partial(_data_uri, kind="jpeg"),
            "listed": text.listed,
            "number": text.number,
            "p_value": text.p_value,
            "percent": text.percent,
            "png": partial(_data_uri, kind="png"),
            "pretty": lambda value: json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False),
            "ratio": text.ratio,
            "sentence": text.sentence,
            "size": text.file_size,
            "small": _small,
            "span": text.span,
            "times": text.times_as_probable,
            "tone": tone,
            "weights": _by_weight,
        }
    )


def _by_weight(verdict: Verdict) -> list[tuple[str, str, list[Reason]]]:
    """The reasons of a verdict in groups: their weight, its heading, and they."""
    return [
        (weight, heading, found)
        for weight, heading in _WEIGHTS.items()
        if (found := [reason for reason in verdict.reasons if reason.weight == weight])
    ]


def _reliability(report: Report) -> list[Bin]:
    calibrated = report.detector.calibrated if report.detector else None
    return calibrated.reliability if calibrated else []


def _ranked(report: Report, pictures: Sequence[Pictures]) -> list[Entry]:
    """The files, those with the weightiest verdict and the highest score first."""
    entries = [
        Entry(number, facts, own)
        for number, (facts, own) in enumerate(zip(report.files, pictures, strict=True), start=1)
    ]
    return sorted(
        entries,
        key=lambda entry: (_ORDER.index(entry.facts.verdict.conclusion), -_highest(entry.facts)),
    )


def _highest(file: FileReport) -> float:
    scores = (
        track.score or 0.0
        for track in file.tracks
        if track.calibrated and track.counts is not False
    )
    return max(scores, default=0.0)


def _files(entries: Sequence[Entry], report: Report, detail: Detail, shown: set[Key]) -> list[File]:
    drawn = sum(min(len(entry.facts.tracks), detail.tracks) for entry in entries)
    points = min(_POINTS, max(_FEWEST, detail.points // max(1, drawn)))
    return [
        File(
            anchor=entry.anchor,
            facts=entry.facts,
            pictures=entry.pictures,
            overview=entry.pictures.overview if _overview(entry) in shown else None,
            faces=[
                _face(entry, track, report, points, shown)
                for track in worst_first(entry.facts.tracks)[: detail.tracks]
            ],
            hidden=max(0, len(entry.facts.tracks) - detail.tracks),
        )
        for entry in entries
    ]


def _face(entry: Entry, track: Track, report: Report, points: int, shown: set[Key]) -> Face:
    crops = [
        crop
        for crop in few(entry.pictures.crops.get(track.id, []), _THUMBS)
        if _thumb(entry, track, crop) in shown
    ]
    return Face(
        facts=track,
        chart=charts.timeline(track, entry.facts, report.detector, points),
        crops=crops,
        best=min(crops, key=lambda crop: -(crop.score or 0.0), default=None),
        maps=[_map(entry, track, heat, shown) for heat in track.heat],
        alike=[
            other.id + 1
            for other in entry.facts.tracks
            if other.person is not None and other.person == track.person and other is not track
        ],
        outside=_outside(track, report),
    )


def _map(entry: Entry, track: Track, heat: HeatMap, shown: set[Key]) -> Map:
    crop = _crop_of(heat, entry.pictures.crops.get(track.id, []))
    if crop is None or (*_of(entry, track), "map", heat.time) not in shown:
        return Map(heat, None, charts.overlay(heat, None))
    return Map(heat, crop.large or crop.jpeg, charts.overlay(heat, crop.place))


def _crop_of(heat: HeatMap, crops: Sequence[Crop]) -> Crop | None:
    """The picture of a heat map's moment, the large one if there are several."""
    same = [crop for crop in crops if crop.time == heat.time]
    return max(same, key=lambda crop: crop.large is not None, default=None)


def _outside(track: Track, report: Report) -> dict[str, Range]:
    """The calibrated ranges that a face was mostly outside of, or reached out of."""
    calibrated = report.detector.calibrated if report.detector else None
    if track.seen is None or calibrated is None:
        return {}
    return {
        name: (low, high)
        for name, (low, high) in calibrated.ranges.items()
        if (own := getattr(track.seen, name))[0] < low or own[1] > high
    }


def few(crops: Sequence[Crop], most: int) -> list[Crop]:
    """At most ``most`` crops in order of time: those with a label or a heat map, then even ones."""
    told = [crop for crop in crops if crop.label or crop.heat][:most]
    plain = [crop for crop in crops if not (crop.label or crop.heat)]
    room = most - len(told)
    if len(plain) > room:
        plain = [plain[len(plain) * i // room] for i in range(room)]
    return sorted([*told, *plain], key=lambda crop: crop.time)


def _chosen(entries: Sequence[Entry], detail: Detail, room: int) -> set[Key]:
    """The pictures that fit into ``room`` bytes, the most telling first."""
    chosen: set[Key] = set()
    for _, keys, size in sorted(_wanted(entries, detail)):
        cost = 4 * size // 3 + _AROUND * len(keys)
        if cost <= room:
            chosen.update(keys)
            room -= cost
    return chosen


def _wanted(
    entries: Sequence[Entry], detail: Detail
) -> Iterator[tuple[float, tuple[Key, ...], int]]:
    """Pictures that are shown together or not at all: their rank, the least first, and bytes.

    One picture of a face comes before its others, and the worst files' come before the others'.
    """
    for place, entry in enumerate(entries):
        if entry.pictures.overview is not None:
            yield 2 + place / 10, (_overview(entry),), len(entry.pictures.overview)
        for number, track in enumerate(worst_first(entry.facts.tracks)[: detail.tracks]):
            crops = entry.pictures.crops.get(track.id, [])
            thumbs = few(crops, _THUMBS)
            best = min(thumbs, key=lambda crop: -(crop.score or 0.0), default=None)
            sizes = {_thumb(entry, track, crop): len(_small(crop)) for crop in thumbs}
            if best is not None:
                first = _thumb(entry, track, best)
                yield 1 + place / 50 + number / 20, (first,), sizes[first]
                # Among the others it stands once more.
                others = tuple(key for key in sizes if key != first)
                if others:
                    yield 5 + place / 10, others, sum(sizes.values())
            for k, heat in enumerate(track.heat):
                shown = _crop_of(heat, crops)
                if shown is not None:
                    rank = 2 + k + place / 10 + number / 20
                    size = len(shown.large or shown.jpeg) + _OVERLAY
                    yield rank, ((*_of(entry, track), "map", heat.time),), size


def _small(crop: Crop) -> bytes:
    """A moment's thumbnail: the large picture, where no heat map shows that one anyway."""
    return crop.large if crop.large is not None and crop.heat is None else crop.jpeg


def _overview(entry: Entry) -> Key:
    return entry.number, -1, "overview", 0.0


def _thumb(entry: Entry, track: Track, crop: Crop) -> Key:
    return (*_of(entry, track), "thumb", crop.time)


def _of(entry: Entry, track: Track) -> tuple[int, int]:
    return entry.number, track.id


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")
