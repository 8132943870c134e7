"""What a report draws: timelines of scores, the reliability diagram, heat maps.

Everything is computed here, in the drawing's own units, so that the templates only write it out.
"""

import io
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from detectors.report.model import Bin, DetectorFacts, FileReport, HeatMap, Sighting, Track
from detectors.report.pictures import Place
from detectors.report.text import clock
from detectors.verdict import SMALLEST_FACE, worst_stretch
from facekit.faces.align import TEMPLATES

WIDTH, HEIGHT = 1000, 100
"""Units of a timeline, across and down; it is stretched to what room there is."""
SIDE = 300
"""Units of the reliability diagram's side."""

_TICKS = 4
_ROWS = 20  # of a curve in numbers
_STRONG = 0.6  # of the heat map's highest value: what is outlined, where nothing was covered
_FAINT = 0.05  # a map that nowhere reaches it shows nothing
_OVERLAY = (255, 64, 0)
_OPACITY = 0.7


@dataclass(frozen=True)
class Strip:
    """What one member of the detector says, below the timeline: its name and path data."""

    name: str
    lines: str


@dataclass(frozen=True)
class Row:
    """A stretch of a timeline in numbers."""

    start: float
    end: float
    highest: float
    mean: float


@dataclass(frozen=True)
class Timeline:
    """A track's timeline in a plot of ``WIDTH`` × ``HEIGHT`` units, y down.

    Attributes:
        what: what the curve shows.
        scored: whether it shows scores; else it shows face sizes.
        lines: path data of the curve, broken where the face was not seen.
        dots, over: path data of its points, and of those above the threshold again.
        limit: y of the threshold, or of the smallest size.
        limit_text: what the limit is.
        undecided: y from which on a score gives no verdict, or None.
        stretch: (x, width, from, to) of the sightings that the track is scored by, or None.
        top: the label of the axis' upper end.
        ticks: the axis' times in words, evenly spaced.
        end: seconds.
        strips: of the members.
        points: for the script, as JSON: [seconds, score or null, pixels, frame, *members].
        count: of the points.
        first: the first point in words.
        rows: the same in a few numbers.
    """

    what: str
    scored: bool
    lines: str
    dots: str
    over: str
    limit: float
    limit_text: str
    undecided: float | None
    stretch: tuple[int, int, float, float] | None
    top: str
    ticks: list[str]
    end: float
    strips: list[Strip]
    points: str
    count: int
    first: str
    rows: list[Row]


def timeline(
    track: Track, file: FileReport, detector: DetectorFacts | None, most: int
) -> Timeline | None:
    """The timeline of a track, of at most ``most`` points; None where there is nothing to draw."""
    if len(track.sightings) < 2 or file.facts.duration is None:
        return None
    scored = any(sighting.score is not None for sighting in track.sightings)
    end = max(file.facts.duration, track.end)
    ceiling = 1.0 if scored else max(max(s.size for s in track.sightings), SMALLEST_FACE) * 1.15
    limit = detector.threshold if scored and detector else SMALLEST_FACE / ceiling
    seen = [s for s in track.sightings if s.score is not None or not scored]
    chosen = thin(seen, most)
    # After thinning, neighbours lie further apart though the face was seen all along.
    gap = 2.5 * (file.sampling.every or 0.0)
    pieces = _pieces(
        chosen, max(gap, 2.5 * (seen[-1].time - seen[0].time) / max(1, len(chosen) - 1))
    )

    def value(sighting: Sighting) -> float:
        return (sighting.score or 0.0) if scored else sighting.size / ceiling

    def across(time: float) -> int:
        return round(WIDTH * time / end)

    places = [(across(s.time), round(HEIGHT * (1 - value(s)), 1)) for s in chosen]
    names = sorted({name for s in chosen for name in s.members}) if scored else []
    strips = [Strip(name, _path(pieces, across, partial(_member, name=name))) for name in names]
    undecided = detector.undecided_from if scored and track.calibrated and detector else None
    judged = scored and track.calibrated
    return Timeline(
        what="Score" if scored else "Size",
        scored=scored,
        lines=_path(pieces, across, value),
        dots="".join(f"M{x} {y:g}h0" for x, y in places),
        over="".join(
            f"M{x} {y:g}h0"
            for (x, y), s in zip(places, chosen, strict=True)
            if judged and value(s) > limit
        ),
        limit=round(HEIGHT * (1 - limit), 1),
        limit_text=_limit_text(track, scored, limit),
        undecided=round(HEIGHT * (1 - undecided), 1)
        if undecided is not None and undecided < limit
        else None,
        stretch=_stretch(track.sightings, detector, across) if scored else None,
        top="1" if scored else f"{ceiling:.0f} px",
        ticks=[_tick(end * i / _TICKS, end) for i in range(_TICKS + 1)],
        end=end,
        strips=strips,
        points=json.dumps([_point(s, names) for s in chosen], separators=(",", ":")),
        count=len(chosen),
        first=reading(chosen[0]),
        rows=_rows(seen, value) if scored else [],
    )


def thin(sightings: Sequence[Sighting], most: int) -> list[Sighting]:
    """At most ``most`` sightings, the highest score of each equal stretch: peaks stay visible."""
    if len(sightings) <= most:
        return list(sightings)
    return [
        max(part, key=lambda sighting: sighting.score or 0.0) for part in _parts(sightings, most)
    ]


def reading(sighting: Sighting) -> str:
    """A point of the timeline in words, as the script says it."""
    score = "" if sighting.score is None else f"score {sighting.score:.2f} · "
    return f"{clock(sighting.time)} · {score}{sighting.size:.0f} px · frame {sighting.index}"


@dataclass(frozen=True)
class Dot:
    """A bin of the reliability diagram: where its dot lies, its radius, and the bin."""

    x: float
    y: float
    radius: float
    bin: Bin


def reliability(bins: Sequence[Bin]) -> list[Dot]:
    """The dots of a reliability diagram of ``SIDE`` units; an area grows with its count's root."""
    most = max((one.count for one in bins), default=1)
    return [
        Dot(
            x=round(SIDE * one.mean, 1),
            y=round(SIDE * (1 - one.share), 1),
            radius=round(3 + 9 * (one.count / most) ** 0.25, 1),
            bin=one,
        )
        for one in bins
    ]


@dataclass(frozen=True)
class Overlay:
    """A heat map over a picture.

    Attributes:
        png: a few transparent pixels, one a cell, to be drawn over the aligned crop.
        outline: path data around the strongest place, over 100 × 100 units of the crop.
        matrix: where the crop lies in the picture, for SVG's ``transform`` in 100 × 100 units.
        where: the strongest place in words; "" where nothing stands out.
    """

    png: bytes
    outline: str
    matrix: str
    where: str


def overlay(heat: HeatMap, place: Place | None) -> Overlay:
    """What is drawn of a heat map; a ``place`` of None is all of the picture."""
    cells = np.clip(np.asarray(heat.cells, np.float64), 0, 1)
    a, b, c, d, e, f = place or (1, 0, 0, 1, 0, 0)
    strong = np.zeros(cells.shape, bool)
    if heat.occlusion.place is not None:
        row, column, rows, columns = heat.occlusion.place
        strong[row : row + rows, column : column + columns] = True
    else:
        strong = cells >= _STRONG * cells.max()
    strong &= cells.max() >= _FAINT
    return Overlay(
        png=_png(cells),
        outline=_outline(strong),
        matrix=f"matrix({a:g} {b:g} {c:g} {d:g} {100 * e:g} {100 * f:g})",
        where=_where(strong),
    )


def _tick(time: float, end: float) -> str:
    return clock(round(time)).removesuffix(".0") if end >= 10 * _TICKS else clock(time)


def _limit_text(track: Track, scored: bool, limit: float) -> str:
    if not scored:
        return f"{SMALLEST_FACE} px, the least for a verdict"
    known = "" if track.calibrated else ", for footage that the detector knows"
    return f"threshold {limit:.2f}{known}"


def _pieces(sightings: Sequence[Sighting], reach: float) -> list[list[Sighting]]:
    """The sightings in runs whose neighbours are no more than ``reach`` seconds apart."""
    pieces = [[sightings[0]]]
    for before, sighting in itertools.pairwise(sightings):
        if sighting.time - before.time > reach:
            pieces.append([])
        pieces[-1].append(sighting)
    return pieces


def _path(
    pieces: Sequence[Sequence[Sighting]],
    across: Callable[[float], int],
    value: Callable[[Sighting], float],
) -> str:
    return "".join(
        "M" + "L".join(f"{across(s.time)} {HEIGHT * (1 - value(s)):.3g}" for s in piece)
        for piece in pieces
        if len(piece) > 1
    )


def _member(sighting: Sighting, name: str) -> float:
    return sighting.members.get(name, 0.0)


def _stretch(
    sightings: Sequence[Sighting], detector: DetectorFacts | None, across: Callable[[float], int]
) -> tuple[int, int, float, float] | None:
    run = worst_stretch(sightings, detector, image=False)  # a picture has no timeline
    if not run:
        return None
    start, end = run[0].time, run[-1].time
    return across(start), max(2, across(end) - across(start)), start, end


def _point(sighting: Sighting, names: Sequence[str]) -> list[float | None]:
    score = None if sighting.score is None else round(sighting.score, 3)
    members = [round(sighting.members[name], 2) if name in sighting.members else None
               for name in names]  # fmt: skip
    return [round(sighting.time, 2), score, round(sighting.size), sighting.index, *members]


def _rows(sightings: Sequence[Sighting], value: Callable[[Sighting], float]) -> list[Row]:
    rows = []
    for part in _parts(sightings, min(_ROWS, len(sightings))):
        values = [value(sighting) for sighting in part]
        rows.append(Row(part[0].time, part[-1].time, max(values), sum(values) / len(values)))
    return rows


def _parts(sightings: Sequence[Sighting], number: int) -> list[Sequence[Sighting]]:
    edges = [len(sightings) * i // number for i in range(number + 1)]
    return [sightings[low:high] for low, high in itertools.pairwise(edges)]


def _png(cells: np.ndarray) -> bytes:
    pixels = np.empty((*cells.shape, 4), np.uint8)
    pixels[..., :3] = _OVERLAY
    pixels[..., 3] = np.rint(255 * _OPACITY * cells**2)
    content = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(content, "PNG", optimize=True)
    return content.getvalue()


def _outline(strong: np.ndarray) -> str:
    """The edges between cells that are strong and cells that are not."""
    rows, columns = strong.shape
    high, wide = 100 / rows, 100 / columns
    padded = np.pad(strong, 1)
    across = padded[1:, 1:-1] != padded[:-1, 1:-1]  # below row y - 1 and above row y
    down = padded[1:-1, 1:] != padded[1:-1, :-1]
    return "".join(
        f"M{x * wide:.4g} {y * high:.4g}h{wide:.4g}" for y, x in np.argwhere(across)
    ) + "".join(f"M{x * wide:.4g} {y * high:.4g}v{high:.4g}" for y, x in np.argwhere(down))


def _parts_of_the_face() -> dict[str, tuple[float, float]]:
    """Where the parts of a face lie in the aligned crop, in units of its side."""
    left, right, nose, *corners = TEMPLATES["wide"]
    eyes, mouth = (left + right) / 2, np.mean(corners, axis=0)
    down = mouth - eyes
    places = {
        "the eye on the left": left,
        "the eye on the right": right,
        "the nose": nose,
        "the mouth": mouth,
        "the chin": eyes + 1.6 * down,
        "the forehead": eyes - 0.6 * down,
        "the cheek on the left": [left[0] - 0.04, nose[1] + 0.06],
        "the cheek on the right": [right[0] + 0.04, nose[1] + 0.06],
        "the border on the left": [left[0] - 0.25, nose[1]],
        "the border on the right": [right[0] + 0.25, nose[1]],
        "the upper border": [0.5, 0.04],
        "the lower border": [0.5, 0.97],
    }
    return {name: (float(x), float(y)) for name, (x, y) in places.items()}


_PARTS_OF_THE_FACE = _parts_of_the_face()


def _where(strong: np.ndarray) -> str:
    if not strong.any():
        return ""
    y, x = (np.argwhere(strong).mean(axis=0) + 0.5) / strong.shape
    return min(
        _PARTS_OF_THE_FACE,
        key=lambda name: (
            (_PARTS_OF_THE_FACE[name][0] - x) ** 2 + (_PARTS_OF_THE_FACE[name][1] - y) ** 2
        ),
    )
