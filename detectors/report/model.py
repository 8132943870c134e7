"""What a report holds. ``schema.json`` beside this file is its published JSON Schema.

The schema is written from these models (``python -m detectors.report.model``); a test keeps the two
in step. A change that breaks readers raises ``SCHEMA``.
"""

import json
from pathlib import Path
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from facekit.core import files
from facekit.media.facts import MediaFacts

SCHEMA: Final = "facekit-report/2"

EVIDENCE: Final = "evidence of manipulation"
NO_EVIDENCE: Final = "no evidence found"
INCONCLUSIVE: Final = "inconclusive"

Conclusion = Literal["evidence of manipulation", "no evidence found", "inconclusive"]
Origin = Literal["studio", "unknown"]
PartName = Literal["provenance", "watermark", "facts", "faces", "detectors", "localisation"]
PARTS: Final[tuple[PartName, ...]] = get_args(PartName)
"""What an analysis is made of, in the order in which it is shown."""
Range = tuple[float, float]
"""From and to."""
ExitCode = Literal[0, 1, 10, 20]
Code = Literal[
    "mark_says_generated",
    "manifest_says_generated",
    "manifest_says_studio",
    "score_above_threshold",
    "score_below_threshold",
    "score_undecided",
    "no_detector",
    "not_calibrated",
    "judged_as_camera",
    "no_face",
    "small_face",
    "too_few_frames",
    "not_scored",
    "quality_outside",
    "detectors_disagree",
    "part_left_out",
    "manifest_tampered",
    "part_not_read",
    "ends_early",
    "certificate_invalid",
    "certified_studio",
    "mark_kind_unknown",
    "mark_says_studio",
    "mark_says_test_real",
]


class Part(BaseModel):
    """The base of every part of a report: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Reason(Part):
    """Why a verdict is what it is."""

    code: Code = Field(description="Stable name of the reason, for programs.")
    weight: Literal["evidence", "abstention", "note"] = Field(
        description="evidence: speaks for manipulation. abstention: keeps the verdict from being "
        "'no evidence found'. note: changes nothing, but should be known."
    )
    text: str = Field(description="The reason in plain words.")


class Verdict(Part):
    """A conclusion and its reasons, the weightiest first. It never says that a file is real."""

    conclusion: Conclusion
    reasons: list[Reason]


class FileFacts(Part):
    """What the file is."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)
    kind: Literal["image", "video"]
    container: str = Field(description="The file name's suffix, in lower case, without the dot.")
    codec: str
    width: int = Field(gt=0, description="Pixels, upright.")
    height: int = Field(gt=0, description="Pixels, upright.")
    duration: float | None = Field(description="Seconds; null for an image.")
    rate: float | None = Field(description="Average frames per second; null for an image.")
    has_audio: bool
    details: MediaFacts | None = Field(
        default=None, description="How it was made; null if that part was left out."
    )


class Sampling(Part):
    """Which moments of the file were looked at."""

    every: float | None = Field(description="Seconds between two samples; null for an image.")
    frames: int = Field(ge=0, description="Frames that were looked at.")
    thinned: bool = Field(
        description="Whether not all of the file was looked at, as it is long: see stretches."
    )
    stretches: int | None = Field(
        default=None,
        description="Of a file that is too long, so many stretches were looked at, evenly spread; "
        "each has as many samples as a track's score is a mean of (settings.run).",
    )
    until: float | None = Field(
        default=None, description="Seconds after which nothing was looked at; null: to the end."
    )


class Watermark(Part):
    """What reading facekit's watermark yielded. A mark is a claim, not a proof."""

    status: Literal["present", "absent", "not read"]
    kind: str | None = Field(
        description="generated, composite, studio or test-real; null if there is no mark, or one "
        "too weak to be decoded."
    )
    id: int | None
    p_value: float | None = Field(
        ge=0, le=1, description="Chance that a file without a mark looks this much like one."
    )
    corrected: int | None = Field(description="Bits that the error-correcting code put right.")
    frames: int = Field(ge=0, description="Frames that were read.")
    error: str | None = None


class Provenance(Part):
    """What the file's C2PA manifest says."""

    status: Literal["absent", "untrusted", "trusted", "tampered", "not read"]
    reason: str
    signer: str | None = Field(default=None, description="Whose certificate signed, as it says.")
    signed: str | None = Field(default=None, description="When, as it says; ISO 8601.")
    kind: str | None = Field(description="The kind that a facekit manifest declares, if any.")
    origin: Origin = Field(description="studio if facekit's manifest says that its inputs were.")
    claims: dict[str, Any]


class Certificate(Part):
    """Whether the file lies in a studio folder whose certificate holds."""

    status: Literal["absent", "valid", "invalid"]
    reason: str


class Sighting(Part):
    """A face at a moment."""

    time: float = Field(ge=0, description="Seconds from the start; 0 for an image.")
    index: int = Field(ge=0, description="The sample's frame in decoding order. It is not a clock.")
    box: tuple[float, float, float, float] = Field(description="x0, y0, x1, y1 in pixels.")
    size: float = Field(description="The longer side of the box, in pixels.")
    located: float = Field(ge=0, le=1, description="The face locator's confidence.")
    score: float | None = Field(
        ge=0,
        le=1,
        description="The detector's P(generated); null if it was not scored. It means nothing on "
        "footage that the detector is not calibrated for.",
    )
    members: dict[str, float] = Field(
        default_factory=dict, description="What each member of the detector says, uncalibrated."
    )
    blur: float | None = Field(default=None, description="In hundredths of the face's size.")
    compression: float | None = Field(
        default=None, description="How visible the codec's blocks are, 0 to 1."
    )
    occlusion: float | None = Field(default=None, description="Share that is covered.")
    yaw: float | None = Field(default=None, description="Degrees.")
    pitch: float | None = Field(default=None, description="Degrees.")


class Seen(Part):
    """How well a face was seen, over its usable sightings: from the 5th to the 95th percentile."""

    size: Range = Field(description="Pixels.")
    blur: Range = Field(description="In hundredths of the face's size.")
    compression: Range = Field(description="0 to 1.")
    occlusion: Range = Field(description="0 to 1.")
    yaw: Range | None = Field(description="Degrees; null if the pose could not be read.")
    pitch: Range | None = Field(description="Degrees.")


class Likelihood(Part):
    """How much more probable the scores are if the face was generated than if it was not."""

    log10: float = Field(description="Of the ratio, within what the calibration split supports.")
    bound: bool = Field(description="Whether the ratio was cut to what the split supports.")
    words: str = Field(description="The band of the verbal scale that it lies in.")


class Occlusion(Part):
    """What covering parts of a face does to a score: whether the heat map is more than decor.

    The score is that of the member whose map it is, alone: its own log-odds, before the members are
    stacked and calibrated. What the face's score would lose is another number.
    """

    strongest: float = Field(
        description="What the member's log-odds lost where its map is strongest."
    )
    elsewhere: list[float] = Field(description="And at other places of the same area.")
    agrees: bool = Field(description="Whether the strongest place cost more than all others.")
    place: tuple[int, int, int, int] | None = Field(
        default=None,
        description="The strongest place: its first row and column of the map's cells, and how "
        "many of each; null if that was not kept.",
    )


class HeatMap(Part):
    """Where in one frame a member of the detector sees traces."""

    time: float = Field(ge=0)
    index: int = Field(ge=0)
    score: float | None = Field(ge=0, le=1, description="Of that frame.")
    member: str
    cells: list[list[float]] = Field(
        description="Rows of cells over the aligned crop that the report shows, each in [0, 1]."
    )
    occlusion: Occlusion


class Track(Part):
    """One face through time."""

    id: int = Field(ge=0)
    person: int | None = Field(
        default=None,
        ge=0,
        description="Tracks of one number show the same person, as far as faces tell; null if "
        "that could not be told.",
    )
    start: float
    end: float
    seen: Seen | None = Field(default=None, description="Null if no sighting was usable.")
    size: float = Field(description="Median size of the face in pixels.")
    score: float | None = Field(
        ge=0,
        le=1,
        description="Highest mean score of a run (settings.run) of consecutive sightings: of those "
        "that are usable and seen as well as the calibration's faces, or, where they are too few "
        "for a verdict, of all usable ones (see counts). Null if there is none.",
    )
    counts: bool | None = Field(
        default=None,
        description="Whether the verdict goes by score. If not, as the detector is not calibrated "
        "for the footage, or too few sightings are usable and seen well enough, score, interval "
        "and members are shown, but mean nothing, and there is no likelihood.",
    )
    interval: Range | None = Field(
        default=None, description="95% interval of score, by a block bootstrap over time."
    )
    likelihood: Likelihood | None = None
    heat: list[HeatMap] = Field(
        default_factory=list,
        description="Of its strongest frames; empty if the verdict is 'no evidence found', or the "
        "face is not among the file's worst.",
    )
    members: dict[str, float] = Field(
        default_factory=dict,
        description="What each member of the detector alone says, in the mean over the same "
        "sightings as score; not calibrated.",
    )
    calibrated: bool = Field(
        description="Whether the detector is calibrated for this footage; where nothing shows its "
        "origin, it is taken for a camera's."
    )
    verdict: Verdict
    sightings: list[Sighting]


class FileReport(Part):
    """Everything on one file."""

    name: str
    path: str = Field(description="As it was given.")
    facts: FileFacts
    sampling: Sampling
    origin: Origin
    verdict: Verdict
    watermark: Watermark | None = Field(description="Null if that part was left out.")
    provenance: Provenance | None = Field(description="Null if that part was left out.")
    certificate: Certificate | None = Field(description="Null if provenance was left out.")
    tracks: list[Track]
    errors: list[str] = Field(
        default_factory=list, description="What went wrong without ending the analysis."
    )


class FileError(Part):
    """A file that could not be analyzed."""

    path: str
    error: str


class Bin(Part):
    """A bar of the reliability diagram: what was promised, and what held."""

    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    count: int = Field(ge=1, description="Faces whose probability lies there.")
    mean: float = Field(ge=0, le=1, description="Of their probabilities.")
    share: float = Field(ge=0, le=1, description="Of them that were generated.")


class FalsePositives(Part):
    """How often untouched faces of unseen people lay above the threshold."""

    rate: float = Field(ge=0, le=1)
    interval: Range = Field(description="95%, over people.")
    faces: int = Field(ge=1)


class Calibrated(Part):
    """What the detector's probabilities rest on."""

    method: str
    fpr: float | None = Field(description="What the threshold promises of untouched faces.")
    bounds: Range = Field(description="The least and greatest log10 likelihood ratio supported.")
    faces: int | None = Field(default=None, description="Of the calibration split.")
    ranges: dict[Literal["size", "blur", "compression"], Range] = Field(
        default_factory=dict,
        description="What its faces were like, from the 1st to the 99th percentile; units as in "
        "a track's seen. Outside of it a score is no ground for a verdict.",
    )
    reliability: list[Bin] = Field(
        default_factory=list, description="Measured on faces that it was not calibrated on."
    )
    false_positives: FalsePositives | None = None


class DetectorFacts(Part):
    """The detector that gave the scores."""

    name: str
    sha256: str | None = Field(description="Of its weights.")
    calibrated_for: list[str]
    threshold: float = Field(ge=0, le=1)
    undecided_from: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="A score from here to the threshold gives no verdict: of generated faces like "
        "those it was calibrated on, at most 1 - coverage lie below. Null if it was not calibrated "
        "for that.",
    )
    coverage: float | None = Field(default=None, description="What undecided_from promises.")
    members: list[str] = Field(default_factory=list)
    calibrated: Calibrated | None = None
    facts: dict[str, Any]


class Settings(Part):
    """What the analysis was asked to do, and the bounds it kept to."""

    parts: list[PartName] = Field(default_factory=lambda: list(PARTS))
    left_out: list[PartName] = Field(default_factory=list)
    every: float
    longest: int = Field(description="Samples taken of one file at most.")
    max_duration: float | None = Field(
        default=None, description="Seconds of a file that were to be looked at; null: all."
    )
    smallest_face: int = Field(description="Pixels; smaller faces give no verdict.")
    fewest_sightings: int = Field(description="Usable sightings a video's track needs.")
    run: int = Field(description="Consecutive sightings over which a track's score is a mean.")
    threads: int


class Report(Part):
    """The whole of ``report.json``. It is a function of its inputs but for ``created``."""

    schema_: Literal["facekit-report/2"] = Field(alias="schema")
    created: str = Field(description="UTC, ISO 8601.")
    exit_code: ExitCode
    files: list[FileReport]
    errors: list[FileError]
    detector: DetectorFacts | None
    settings: Settings
    versions: dict[str, str]
    limits: list[str]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values, as ``schema.json`` describes them."""
        return self.model_dump(mode="json", by_alias=True)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of ``report.json`` (draft 2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Report.model_json_schema(by_alias=True, mode="serialization"),
        "title": "facekit report",
    }


if __name__ == "__main__":
    files.write_text(
        Path(__file__).with_name("schema.json"), json.dumps(json_schema(), indent=2) + "\n"
    )
