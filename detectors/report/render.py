"""A report as one HTML file that needs nothing else: no network, no fonts, no other file."""

import base64
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2

from detectors.report.model import (
    EVIDENCE,
    INCONCLUSIVE,
    FileReport,
    Report,
    Sighting,
    Track,
)
from detectors.report.pictures import Box as Box
from detectors.report.pictures import Crop as Crop
from detectors.report.pictures import Pictures as Pictures
from detectors.report.text import clock, file_size, p_value, sentence
from detectors.verdict import SMALLEST_FACE, worst_first

# Together with about 6 kB a crop, 40 kB an overview and 150 bytes a point these keep a report of
# many files or many faces below 3 MB.
_CROPS = 220
_OVERVIEWS = 20
_POINTS = 6000
_TRACKS_IN_FULL = 60


@dataclass(frozen=True)
class Chart:
    """A track's timeline in a plot of 1000 × 100 units, y down.

    Attributes:
        lines: path data of the curve, broken where the face was not seen.
        dots: (x, y, text) a point.
        limit: y of the threshold (or of the smallest size), 0 to 100.
        limit_text: what the limit is.
        scored: whether the curve shows scores; else it shows face sizes.
        top: the label of the upper end of the axis.
        start, end: seconds.
        readings: [x, text] pairs for the script, as JSON.
    """

    lines: list[str]
    dots: list[tuple[float, float, str]]
    limit: float
    limit_text: str
    scored: bool
    top: str
    start: float
    end: float
    readings: str


def render(report: Report, pictures: Sequence[Pictures]) -> str:
    """The report as HTML.

    Args:
        report: what was found.
        pictures: one for each of ``report.files``, in the same order.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("detectors", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "clock": clock,
        "jpeg": _data_uri,
        "p_value": p_value,
        "size": file_size,
        "pretty": lambda value: json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False),
        "sentence": sentence,
        "tone": tone,
    }
    shown = sum(len(file.tracks) for file in report.files)
    points = min(240, max(24, _POINTS // max(1, shown)))
    crops = min(8, max(1, _CROPS // max(1, shown)))
    files = [
        {
            "anchor": f"file-{number}",
            "facts": file,
            "pictures": own,
            "overview": own.overview if number <= _OVERVIEWS else None,
            "tracks": [
                {
                    "facts": track,
                    "chart": _chart(track, file, report, points),
                    "crops": _few(own.crops.get(track.id, []), crops),
                }
                for track in worst_first(file.tracks)[:_TRACKS_IN_FULL]
            ],
            "hidden": max(0, len(file.tracks) - _TRACKS_IN_FULL),
        }
        for number, (file, own) in enumerate(zip(report.files, pictures, strict=True), start=1)
    ]
    html = environment.get_template("report.html.j2").render(report=report, files=files)
    return re.sub(r"\n\s*\n+", "\n", html) + "\n"


def tone(conclusion: str) -> str:
    """The style class of a verdict."""
    return {EVIDENCE: "evidence", INCONCLUSIVE: "open"}.get(conclusion, "clear")


def _chart(track: Track, file: FileReport, report: Report, most: int) -> Chart | None:
    """The timeline of a track; None where there is nothing to draw."""
    if len(track.sightings) < 2 or file.facts.duration is None:
        return None
    scored = any(sighting.score is not None for sighting in track.sightings)
    end = max(file.facts.duration, track.end)
    ceiling = 1.0 if scored else max(max(s.size for s in track.sightings), SMALLEST_FACE) * 1.15
    limit = report.detector.threshold if scored and report.detector else SMALLEST_FACE / ceiling
    gap = 2.5 * (file.sampling.every or 0.0)

    def place(sighting: Sighting) -> tuple[float, float]:
        value = sighting.score if scored else sighting.size / ceiling
        return round(1000 * sighting.time / end, 1), round(100 * (1 - (value or 0.0)), 1)

    seen = [s for s in track.sightings if s.score is not None or not scored]
    thinned = _thin(seen, most)
    pieces: list[list[Sighting]] = []
    # After thinning, neighbours lie further apart though the face was seen all along.
    reach = max(gap, 2.5 * (seen[-1].time - seen[0].time) / max(1, len(thinned) - 1))
    for before, sighting in itertools.pairwise([None, *thinned]):
        if sighting is None:
            continue
        if before is None or sighting.time - before.time > reach:
            pieces.append([])
        pieces[-1].append(sighting)
    lines = [
        "M" + "L".join(f"{x:g} {y:g}" for x, y in map(place, piece))
        for piece in pieces
        if len(piece) > 1
    ]
    texts = [_reading(sighting) for sighting in thinned]
    dots = [(*place(sighting), text) for sighting, text in zip(thinned, texts, strict=True)]
    if not scored:
        limit_text = f"{SMALLEST_FACE} px, the least for a verdict"
    elif track.calibrated:
        limit_text = f"threshold {limit:.2f}"
    else:
        limit_text = f"threshold {limit:.2f}, for footage the detector knows"
    return Chart(
        lines=lines,
        dots=dots,
        limit=round(100 * (1 - limit), 1),
        limit_text=limit_text,
        scored=scored,
        top="1" if scored else f"{ceiling:.0f} px",
        start=0.0,
        end=end,
        readings=json.dumps(
            [[x, y, text] for x, y, text in dots], ensure_ascii=False, separators=(",", ":")
        ),
    )


def _reading(sighting: Sighting) -> str:
    score = "" if sighting.score is None else f"score {sighting.score:.2f} · "
    return f"{clock(sighting.time)} · {score}{sighting.size:.0f} px · frame {sighting.index}"


def _thin(sightings: Sequence[Sighting], most: int) -> list[Sighting]:
    """At most ``most`` sightings, the highest score of each equal stretch: peaks stay visible."""
    if len(sightings) <= most:
        return list(sightings)
    edges = [len(sightings) * i // most for i in range(most + 1)]
    return [
        max(sightings[low:high], key=lambda sighting: sighting.score or 0.0)
        for low, high in itertools.pairwise(edges)
    ]


def _few(crops: Sequence[Crop], most: int) -> list[Crop]:
    """At most ``most`` crops in order of time, those with a label first."""
    chosen = sorted(crops, key=lambda crop: (not crop.label, crop.time))
    plain = [crop for crop in chosen if not crop.label]
    labelled = [crop for crop in chosen if crop.label][:most]
    room = most - len(labelled)
    if len(plain) > room:
        plain = [plain[len(plain) * i // room] for i in range(room)] if room else []
    return sorted([*labelled, *plain], key=lambda crop: crop.time)


def _data_uri(content: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")
