"""A comparison as one HTML file that needs nothing else: no network, no fonts, no other file."""

import base64
import re
from collections.abc import Sequence

import cv2
import numpy as np

from detectors.comparison.detail import ComparisonPictures, DetailPictures
from detectors.comparison.model import Comparison, Detail, Moment
from detectors.comparison.register import Matrix, apply
from detectors.report.page import environment
from detectors.report.text import clock, file_size, number, p_value, percent, sentence
from facekit.media.images import encode_image
from facekit.types import Pixels

_QUALITY = 84
_TONES = {
    "identical": "clear",
    "same source": "clear",
    "alike": "open",
    "no common source found": "open",
    "too little detail": "open",
}
_TITLES = {
    "identical": "The same",
    "same source": "The same source",
    "alike": "Alike: a changed copy, or the same scene again",
    "no common source found": "No common source found",
    "too little detail": "Too little detail to tell",
}


def render(comparison: Comparison, pictures: ComparisonPictures) -> str:
    """The comparison as HTML.

    Args:
        comparison: what was found.
        pictures: as ``detectors.comparison.compare.compared`` gives them with it.
    """
    made = environment(
        {
            "clock": clock,
            "number": number,
            "p_value": p_value,
            "percent": percent,
            "sentence": sentence,
            "size": file_size,
        }
    )
    html = made.get_template("compare.html.j2").render(
        it=comparison,
        tone=_TONES[comparison.source.conclusion],
        title=_TITLES[comparison.source.conclusion],
        beyond=_beyond(comparison),
        whole={"a": _jpeg(pictures.whole_a), "b": _jpeg(pictures.whole_b)},
        outline=_outline(comparison),
        details=[
            _shown(detail, own)
            for detail, own in zip(comparison.details, pictures.details, strict=True)
        ],
        chart=_chart(comparison.moments),
    )
    return re.sub(r"\n\s*\n+", "\n", html) + "\n"


def _beyond(comparison: Comparison) -> list[str]:
    """What differs in places: "the same source" is only half of an answer."""
    if not comparison.details:
        return []
    found = [change.text for change in comparison.changes if change.code in ("areas", "face")]
    nowhere = "beyond what one change of tone, compression and scaling explain, no place stands out"
    return [text.removeprefix("beyond that, ") for text in found] or [nowhere]


def _shown(detail: Detail, own: DetailPictures) -> dict[str, object]:
    """The pictures of two moments and the marks on them, in hundredths of their size."""
    return {
        "facts": detail,
        "a": _jpeg(own.a),
        "b": _jpeg(own.b),
        "heat": _jpeg(_heated(own)),
        "width": own.a.shape[1],
        "height": own.a.shape[0],
        "areas": [_placed(area.box, own) for area in detail.areas],
        "faces": [(_placed(face.box, own), face) for face in detail.faces],
    }


def _heated(own: DetailPictures) -> Pixels:
    """A in grey, with what differs in red over it."""
    plain = cv2.cvtColor(own.a, cv2.COLOR_RGB2GRAY)[..., None] * np.ones(3, np.float32)
    plain = 110 + 0.5 * plain
    # From 0.5 on a difference counts; below, only a breath of it is shown.
    weight = np.clip(np.where(own.heat > 0.5, own.heat, own.heat * 0.3), 0, 1)[..., None] * 0.85
    colours = np.stack(
        [np.full_like(own.heat, 214), 150 * (1 - own.heat), 20 + 60 * (1 - own.heat)], axis=2
    )
    return np.asarray(np.clip(plain * (1 - weight) + colours * weight, 0, 255), np.uint8)


def _placed(box: Sequence[float], own: DetailPictures) -> dict[str, float]:
    x0, y0, x1, y1 = box
    corners = _apply_to_box(own.canvas_from_a, (x0, y0, x1, y1))
    height, width = own.a.shape[:2]
    (x0, y0), (x1, y1) = np.clip(corners, 0, [width, height])
    return {
        "left": round(100 * float(x0) / width, 2),
        "top": round(100 * float(y0) / height, 2),
        "width": round(100 * float(x1 - x0) / width, 2),
        "height": round(100 * float(y1 - y0) / height, 2),
    }


def _apply_to_box(matrix: Matrix, box: tuple[float, float, float, float]) -> Matrix:
    corners = apply(matrix, np.array([[box[0], box[1]], [box[2], box[3]]]))
    return np.stack([corners.min(axis=0), corners.max(axis=0)])


def _outline(comparison: Comparison) -> str:
    """B's frame over A, as an SVG polygon's points in hundredths."""
    if comparison.place is None:
        return ""
    facts = comparison.a.facts
    return " ".join(
        f"{100 * x / facts.width:.2f},{100 * y / facts.height:.2f}"
        for x, y in comparison.place.outline
    )


def _chart(moments: Sequence[Moment]) -> dict[str, object] | None:
    """How much differs over time, in a plot of 1000 × 100 units, y down."""
    if len(moments) < 2:
        return None
    start, end = moments[0].time_a, moments[-1].time_a
    top = max(0.05, *(moment.changed for moment in moments))
    points = [
        (
            round(1000 * (moment.time_a - start) / max(end - start, 1e-6), 1),
            round(100 * (1 - moment.changed / top), 1),
        )
        for moment in moments
    ]
    return {
        "line": "M" + "L".join(f"{x:g} {y:g}" for x, y in points),
        "start": start,
        "end": end,
        "top": top,
        "most": max(moments, key=lambda moment: moment.changed),
        "rows": moments,
    }


def _jpeg(pixels: Pixels) -> str:
    content = encode_image(pixels, ".jpg", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")
