"""What ``comparison.json`` holds. Its schema lies beside the page, in ``detectors/report``.

It is written from these models (``python -m detectors.comparison.model``); a test keeps the two in
step. A change that breaks readers raises ``SCHEMA``.
"""

import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from detectors import report
from detectors.report.model import FileFacts, Part, Provenance, Range, Watermark
from facekit.core import files

SCHEMA: Final = "facekit-comparison/1"

Conclusion = Literal[
    "identical", "same source", "alike", "no common source found", "too little detail"
]
ChangeCode = Literal[
    "cropped",
    "scaled",
    "stretched",
    "turned",
    "mirrored",
    "tone",
    "grey",
    "areas",
    "face",
    "softer",
    "length",
    "offset",
    "rate",
    "container",
    "compression",
    "sound",
    "mark",
    "credentials",
    "metadata",
]


class Side(Part):
    """One of the two files."""

    name: str
    path: str = Field(description="As it was given.")
    facts: FileFacts
    watermark: Watermark
    provenance: Provenance


class Floor(Part):
    """What pictures that share no source gave, when this was measured (docs/compare.md)."""

    unrelated: float = Field(description="The most that any two unrelated pictures agreed.")
    retaken: float = Field(description="The most that two photos of one sitting agreed.")
    same: float = Field(description="Agreement from which it is the same source.")


class Source(Part):
    """Whether the two come from the same source, and how sure that is."""

    conclusion: Conclusion
    agreement: float | None = Field(
        description="Mean correlation of fine detail after alignment, -1 to 1; null if identical, "
        "or none could be compared."
    )
    detailed: float | None = Field(description="Share of the common area that has fine detail.")
    matches: int = Field(ge=0, description="Features that agree on the alignment.")
    floor: Floor
    text: str


class Place(Part):
    """How A lies in B. Pixels are upright; centres lie at integers + 0.5."""

    b_from_a: list[list[float]] = Field(description="2 × 3, maps (x, y, 1) of A to (x, y) of B.")
    mirrored: bool
    turned: float = Field(description="Degrees by which B shows A turned clockwise.")
    scale: Range = Field(description="Pixels of B to a pixel of A, across and down.")
    share_of_a: float = Field(ge=0, le=1, description="Share of A that B shows.")
    share_of_b: float = Field(ge=0, le=1, description="Share of B that A shows.")
    outline: list[Range] = Field(description="B's corners in A's pixels, from its upper left on.")


class Area(Part):
    """A place at which the two differ."""

    box: tuple[float, float, float, float] = Field(description="x0, y0, x1, y1 in pixels of A.")
    share: float = Field(description="Of the common area.")
    face: int | None = Field(default=None, description="Number of the face that it touches most.")


class ComparedFace(Part):
    """A face that either of the two shows, where they overlap."""

    number: int = Field(ge=1)
    box: tuple[float, float, float, float] = Field(description="In pixels of A.")
    changed: float = Field(ge=0, le=1, description="Share of it that differs.")
    elsewhere: float = Field(ge=0, le=1, description="Share of the rest that differs.")


class ToneFacts(Part):
    """The change of tone that holds for the whole: A as against B."""

    brightness: float = Field(description="Levels of 255 that A is brighter in the mean.")
    contrast: float = Field(description="A's over B's.")
    colour: float = Field(description="A's saturation over B's.")


class Moment(Part):
    """What two aligned moments, or pictures, have in common, and not."""

    time_a: float = Field(ge=0)
    time_b: float = Field(ge=0)
    agreement: float
    changed: float = Field(ge=0, le=1, description="Share of the common area that differs.")


class Detail(Part):
    """Two aligned pictures, or moments of a video, in detail."""

    time_a: float = Field(ge=0)
    time_b: float = Field(ge=0)
    tone: ToneFacts
    changed: float = Field(ge=0, le=1, description="Share of the common area that differs.")
    error: float = Field(description="Median levels by which the rest differs, tone set aside.")
    softness: float = Field(description="B's finest detail over A's; below 1, B is softer.")
    areas: list[Area]
    faces: list[ComparedFace]


class TimeOffset(Part):
    """How two videos lie in time."""

    offset: float = Field(description="B's time of what A shows at 0, in seconds.")
    correlation: float = Field(description="Of what moves, at that offset.")
    next_best: float = Field(description="The highest at offsets that are clearly others.")
    sure: bool = Field(description="Whether enough moves, and the offset stands out.")


class Change(Part):
    """Something that differs between the two."""

    code: ChangeCode = Field(description="Stable name, for programs.")
    text: str


class Comparison(Part):
    """The whole of ``comparison.json``; a function of its inputs but for ``created``."""

    schema_: Literal["facekit-comparison/1"] = Field(alias="schema")
    created: str = Field(description="UTC, ISO 8601.")
    a: Side
    b: Side
    source: Source
    place: Place | None = Field(description="Null if there is no alignment to speak of.")
    time: TimeOffset | None = Field(
        description="Null unless both are videos that have something in common."
    )
    details: list[Detail]
    moments: list[Moment] = Field(description="Of videos: how alike they are over time.")
    changes: list[Change]
    limits: list[str]
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON values, as its schema describes them."""
        return self.model_dump(mode="json", by_alias=True)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of ``comparison.json`` (draft 2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Comparison.model_json_schema(by_alias=True, mode="serialization"),
        "title": "facekit comparison",
    }


if __name__ == "__main__":
    files.write_text(
        Path(report.__file__).with_name("comparison.schema.json"),
        json.dumps(json_schema(), indent=2) + "\n",
    )
