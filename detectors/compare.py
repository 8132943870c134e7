"""Two files side by side: do they come from the same source, what changed between them, and where?

Pictures are brought into register (``detectors.register``), videos in time as well
(``detectors.synchronise``); what tone, compression and scaling explain is set aside, and what
remains is shown, beside the faces (``detectors.changes``). Then follow their marks, content
credentials and metadata. A picture may be compared with a video: its moment is looked for.

Comparing tells that two files share a source. It does not tell which of them came first.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np
import torch
from pydantic import Field

from detectors import register
from detectors.changes import Difference, Tone, differ, match_tone
from detectors.evidence import read_facts, read_provenance, read_watermark
from detectors.faces import Finder
from detectors.register import Alignment, Matrix, Overlaid, align, overlay
from detectors.report.model import FileFacts, Part, Provenance, Range, Watermark
from detectors.synchronise import (
    Strip,
    Timing,
    candidates,
    moments_of,
    strip_of,
    strip_of_picture,
    synchronise,
    to_a_frame,
)
from facekit import __version__
from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.media.decode import Video, probe
from facekit.media.images import read_image, require_file
from facekit.types import Face, Pixels

SCHEMA: Final = "facekit-comparison/1"

SAME = 0.8
"""Agreement of fine detail from which two pictures come from the same source."""
ALIKE = 0.4
"""Agreement below which they have nothing in common that can be shown."""
# Measured on portraits of five collections (docs/compare.md): 90 copies, cropped, mirrored, turned,
# scaled, toned and compressed at random, agree by 0.87 or more; of 180 pairs of unrelated pictures
# 95% agree by less than 0.14, and none by more than 0.37; 45 pairs of photos of one sitting by at
# most 0.77.
UNRELATED = 0.37
RETAKEN = 0.77

LIMITS = (
    "That two files share a source does not tell which came first, nor which of them is untouched: "
    "a difference may have been put into either.",
    "A second photo of a scene, a moment later, resembles a changed copy: where the fine detail "
    "agrees in part only, the comparison says so, and which of the two it is cannot be told. "
    "Frames a fraction of a second apart may agree as copies do.",
    "Only scaling, cropping, turning, mirroring and stretching are undone. A photo of a screen, "
    "taken at a slant, or a copy bent otherwise, may be missed.",
    "Changes that are smaller than about 1% of the picture, or no stronger than what compression "
    "does, are not found. No difference found does not mean that there is none.",
)

_SMALLEST_FACE = 40
_DETAILED_MOMENTS = 4
_TIMELINE = 40
_TIMELINE_SIDE = 320
_SURE = 0.85
_PEAKS = 3
_TAGS = 40
_SHOWN = 640
_ROUNDED = 1e-3

_Locate = Callable[[Sequence[Pixels]], list[list[Face]]]
Conclusion = Literal[
    "identical", "same source", "alike", "no common source found", "too little detail"
]
_COMPARABLE = ("same source", "alike")
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


@dataclass(frozen=True)
class DetailPictures:
    """What a page shows of one :class:`Detail`: the two on one canvas, and where they differ.

    Attributes:
        a, b: uint8 RGB (H, W, 3).
        heat: float32 (H, W), 0 to 1.
        canvas_from_a: (2, 3).
    """

    a: Pixels
    b: Pixels
    heat: register.Plane
    canvas_from_a: Matrix


@dataclass(frozen=True)
class ComparisonPictures:
    """The pictures of a comparison.

    Attributes:
        whole_a, whole_b: each file, or its moment, whole and small.
        details: one for each of ``Comparison.details``.
    """

    whole_a: Pixels
    whole_b: Pixels
    details: list[DetailPictures] = field(default_factory=list)


def compare(a: Path, b: Path, *, device: torch.device, out: Path | None = None) -> Comparison:
    """Compare two pictures, two videos, or a picture and a video.

    Args:
        a: a file; what is said of places is said in its pixels.
        b: another.
        device: where faces are located.
        out: a folder for ``comparison.json`` and ``comparison.html``; None writes nothing.

    Raises:
        FacekitError: if a file cannot be read, changes meanwhile, or ``out`` cannot be written.
    """
    from detectors.report.compare import render

    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FacekitError(f"--out {out}: cannot be made ({error.strerror})") from error
    comparison, pictures = compared(a, b, device=device)
    if out is not None:
        files.write_json(out / "comparison.json", comparison.to_json())
        files.write_text(out / "comparison.html", render(comparison, pictures))
    return comparison


def compared(a: Path, b: Path, *, device: torch.device) -> tuple[Comparison, ComparisonPictures]:
    """As :func:`compare`, with the pictures for a page; nothing is written."""
    states = [_state(path) for path in (a, b)]
    with progress(f"Comparing {a.name} and {b.name}", None) as advance:
        advance(0, "files")
        one, two = _side(a), _side(b)
        advance(0, "alignment")
        found = _found(one, two)
        advance(0, "differences")
        details, moments, pictures = _looked_at(found, Finder(device, _SMALLEST_FACE))
    for path, state in zip((a, b), states, strict=True):
        if _state(path) != state:
            raise FacekitError(f"{path}: changed while it was read; compare it again")
    known = found.alignment if found.conclusion in _COMPARABLE else None
    place = None if known is None else _place(known, one.facts, two.facts)
    time = None if known is None else found.time
    comparison = Comparison(
        schema=SCHEMA,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        a=one,
        b=two,
        source=found.source(),
        place=place,
        time=time,
        details=details,
        moments=moments,
        changes=[
            *_changes_of_place(place),
            *_changes_of_time(one, two, time),
            *_changes_of_picture(details),
            *_changes_of_file(one, two),
        ],
        limits=list(LIMITS),
        versions={
            "facekit": __version__,
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            "torch": torch.__version__,
        },
    )
    return comparison, pictures


# Finding what they share


@dataclass
class _Found:
    """The two files and how they lie to each other."""

    one: Side
    two: Side
    alignment: Alignment | None
    at: tuple[float, float]
    time: TimeOffset | None = None
    identical: str = ""
    merit: float = 0.0

    @property
    def conclusion(self) -> Conclusion:
        if self.identical:
            return "identical"
        if self.alignment is None or self.alignment.detailed <= register.FEWEST_DETAILED:
            return "too little detail"
        if self.alignment.agreement >= SAME:
            return "same source"
        return "alike" if self.alignment.agreement >= ALIKE else "no common source found"

    def source(self) -> Source:
        known = None if self.identical else self.alignment
        return Source(
            conclusion=self.conclusion,
            agreement=None if known is None else round(known.agreement, 4),
            detailed=None if known is None else round(known.detailed, 4),
            matches=0 if known is None else known.matches,
            floor=Floor(unrelated=UNRELATED, retaken=RETAKEN, same=SAME),
            text=self.identical or _in_words(self.conclusion, known),
        )


def _in_words(conclusion: Conclusion, alignment: Alignment | None) -> str:
    if conclusion == "too little detail" or alignment is None:
        return (
            "there is too little fine detail in what the two could share to tell anything: they "
            "are too small, too smooth or too blurred"
        )
    number = f"{alignment.agreement:.2f}"
    floor = (
        f"where this was measured, unrelated pictures agreed by {UNRELATED} at most, two photos of "
        f"one sitting by {RETAKEN} at most, copies by 0.87 and more"
    )
    if conclusion == "same source":
        how = "almost certainly" if alignment.agreement > _SURE else "very probably"
        return (
            f"{how}, both come from the same source: once laid over each other, their fine detail "
            f"agrees ({number} of 1; {floor})"
        )
    if conclusion == "alike":
        return (
            f"they show the same in part: their fine detail agrees by {number} of 1, which is more "
            f"than chance and less than a copy ({floor}). One may be a strongly changed or "
            "compressed copy, or another photo or moment of the same scene; which, this cannot tell"
        )
    return (
        f"no common source was found: however they are laid over each other, their fine detail "
        f"agrees by no more than {number} of 1 ({floor})"
    )


def _found(one: Side, two: Side) -> _Found:
    a, b = Path(one.path), Path(two.path)
    if one.facts.sha256 == two.facts.sha256:
        alignment = Alignment(np.eye(2, 3), 0, 1.0, 1.0)
        text = "the two files are the same, byte for byte"
        return _Found(one, two, alignment, (0.0, 0.0), identical=text)
    if one.facts.kind == two.facts.kind == "image":
        first, second = read_image(a), read_image(b)
        if first.shape == second.shape and np.array_equal(first, second):
            alignment = Alignment(np.eye(2, 3), 0, 1.0, 1.0)
            text = "the two show the same, pixel for pixel; only their files differ"
            return _Found(one, two, alignment, (0.0, 0.0), identical=text)
        return _Found(one, two, align(first, second), (0.0, 0.0))
    return _found_in_time(one, two)


def _found_in_time(one: Side, two: Side) -> _Found:
    strip_a, strip_b = _strip(one), _strip(two)
    tried: list[tuple[Alignment, tuple[float, float]]] = []
    for times in candidates(strip_a, strip_b):
        alignment = align(_picture(one, times[0]), _picture(two, times[1]))
        tried += [] if alignment is None else [(alignment, times)]
        if alignment is not None and alignment.agreement > _SURE:
            break
    tried.sort(key=lambda pair: -pair[0].agreement)
    if not tried:
        return _Found(one, two, None, (0.0, 0.0))
    best = _Found(one, two, *tried[0])
    if one.facts.kind != two.facts.kind:
        return _still_in_film(best, strip_a, strip_b)
    # A pair of moments that is nearly right gives a geometry that is good enough for an offset; at
    # that offset, the geometry can be had exactly, and by it, the offset.
    highest = -1.0
    for rough, _ in tried[:_PEAKS]:
        for timing in synchronise(strip_a, strip_b, rough.b_from_a)[:2]:
            found = _at_offset(one, two, strip_a, strip_b, rough, timing)
            if found is None or found.alignment is None:
                continue
            for better in synchronise(strip_a, strip_b, found.alignment.b_from_a)[:1]:
                found = _at_offset(one, two, strip_a, strip_b, found.alignment, better) or found
            if found.merit > highest:
                highest, best = found.merit, found
        if best.time is not None and best.time.sure:
            break
    return best


def _still_in_film(best: _Found, strip_a: Strip, strip_b: Strip) -> _Found:
    """A picture's very frame in a video, from a pair that is about right."""
    one, two = best.one, best.two
    film = one if one.facts.kind == "video" else two
    step = max(strip_a.every, strip_b.every)
    rate = film.facts.rate or 25.0
    still = _picture(two if film is one else one, 0.0)
    for _ in range(2):
        if best.alignment is None:
            return best
        matrix = best.alignment.b_from_a
        seen: list[tuple[float, float, Pixels]] = []
        with Video(Path(film.path)) as video:
            for time in moments_of(strip_a, strip_b, matrix):
                for near in np.arange(max(0.0, time - step), time + step, 1 / rate):
                    frame = video.at(float(near))
                    pair = (frame.pixels, still) if film is one else (still, frame.pixels)
                    both = overlay(*pair, matrix, _TIMELINE_SIDE)
                    if both is not None:
                        seen.append((register.agreement(both)[0], frame.time, frame.pixels))
        if not seen:
            return best
        _, time, pixels = max(seen, key=lambda one: one[0])
        alignment = align(pixels, still) if film is one else align(still, pixels)
        if alignment is None or alignment.agreement < best.alignment.agreement:
            return best
        at = (time, 0.0) if film is one else (0.0, time)
        best = _Found(one, two, alignment, at)
    return best


def _at_offset(
    one: Side, two: Side, strip_a: Strip, strip_b: Strip, rough: Alignment, timing: Timing
) -> _Found | None:
    """How two videos lie to each other, from a rough geometry and an offset of samples."""
    offset = timing.offset
    if timing.moving:
        a, b = Path(one.path), Path(two.path)
        offset = to_a_frame(a, b, strip_a, strip_b, rough.b_from_a, offset)
    moment = _common_moments(one, two, offset, 3)[1]
    exact = align(_picture(one, moment[0]), _picture(two, moment[1]))
    if exact is None:
        return None
    merit = exact.agreement + max(0.0, timing.correlation)
    return _Found(one, two, exact, moment, _offset(timing, offset, exact), merit=merit)


def _offset(timing: Timing, offset: float, alignment: Alignment) -> TimeOffset:
    stands_out = timing.correlation > timing.next_best + 0.1
    return TimeOffset(
        offset=round(offset, 3),
        correlation=round(timing.correlation, 4),
        next_best=round(timing.next_best, 4),
        sure=timing.moving and stands_out and alignment.agreement >= SAME,
    )


def _strip(side: Side) -> Strip:
    if side.facts.kind == "image":
        return strip_of_picture(read_image(Path(side.path)))
    return strip_of(Path(side.path), _length(side))


def _length(side: Side) -> float:
    with Video(Path(side.path)) as video:
        return video.length() or side.facts.duration or 0.0


def _picture(side: Side, time: float) -> Pixels:
    if side.facts.kind == "image":
        return read_image(Path(side.path))
    with Video(Path(side.path)) as video:
        # A time that was rounded is not to fall before its frame.
        return video.at(time + _ROUNDED).pixels


def _common_moments(one: Side, two: Side, offset: float, count: int) -> list[tuple[float, float]]:
    """Times of A and B at which both show something, evenly, inside of what they share."""
    start = max(0.0, -offset)
    end = max(start, min(_length(one), _length(two) - offset))
    times = [start + (end - start) * (n + 0.5) / count for n in range(count)]
    return [(time, max(0.0, time + offset)) for time in times]


# Looking at what differs


def _looked_at(
    found: _Found, finder: Finder
) -> tuple[list[Detail], list[Moment], ComparisonPictures]:
    whole_a = _shrunk(_picture(found.one, found.at[0]))
    whole_b = _shrunk(_picture(found.two, found.at[1]))
    if found.conclusion not in _COMPARABLE or found.alignment is None:
        return [], [], ComparisonPictures(whole_a, whole_b)
    matrix = found.alignment.b_from_a
    moments: list[Moment] = []
    times = [found.at]
    if found.time is not None:
        moments = _timeline(found, matrix, found.time.offset)
        times = _telling(moments) or times
    # As in an analysis: a video's faces stand upright, a photo's may be turned.
    locate = finder.thorough if found.time is None else finder.upright
    details, pictures = [], []
    for time_a, time_b in times:
        looked = _detail(found, matrix, (time_a, time_b), locate)
        if looked is not None:
            details.append(looked[0])
            pictures.append(looked[1])
    return details, moments, ComparisonPictures(whole_a, whole_b, pictures)


def _timeline(found: _Found, matrix: Matrix, offset: float) -> list[Moment]:
    pairs = _common_moments(found.one, found.two, offset, _TIMELINE)
    moments = []
    with Video(Path(found.one.path)) as first, Video(Path(found.two.path)) as second:
        step = 1 / (second.info.rate or 25.0)
        for time_a, time_b in pairs:
            pixels = first.at(time_a).pixels
            tried = []
            # The offset is exact to about a frame: of neighbours, the one that fits is meant.
            for near in (time_b - step, time_b, time_b + step):
                frame = second.at(max(0.0, near))
                both = overlay(pixels, frame.pixels, matrix, _TIMELINE_SIDE)
                if both is not None:
                    tried.append((register.agreement(both)[0], frame.time, both))
            if not tried:
                continue
            agreement, shown, both = max(tried, key=lambda one: one[0])
            moments.append(
                Moment(
                    time_a=round(time_a, 3),
                    time_b=round(shown, 3),
                    agreement=round(agreement, 4),
                    changed=round(differ(both, match_tone(both)).share, 4),
                )
            )
    return moments


def _telling(moments: Sequence[Moment]) -> list[tuple[float, float]]:
    """The moments that differ most, apart in time, in order of time; one if none stands out."""
    if not moments:
        return []
    chosen: list[Moment] = []
    apart = (moments[-1].time_a - moments[0].time_a) / (2 * _DETAILED_MOMENTS)
    ranked = sorted(moments, key=lambda one: (-one.changed, one.time_a))
    least = 0.2 * ranked[0].changed
    for moment in [one for one in ranked if one.changed > least] or ranked[:1]:
        if all(abs(moment.time_a - other.time_a) >= apart for other in chosen):
            chosen.append(moment)
        if len(chosen) == _DETAILED_MOMENTS:
            break
    return sorted((moment.time_a, moment.time_b) for moment in chosen)


def _detail(
    found: _Found, matrix: Matrix, times: tuple[float, float], locate: _Locate
) -> tuple[Detail, DetailPictures] | None:
    first, second = _picture(found.one, times[0]), _picture(found.two, times[1])
    both = overlay(first, second, matrix)
    if both is None:
        return None
    tone = match_tone(both)
    difference = differ(both, tone)
    faces = _faces(first, second, matrix, both, difference, locate)
    detail = Detail(
        time_a=round(times[0], 3),
        time_b=round(times[1], 3),
        tone=_tone(tone),
        changed=round(difference.share, 5),
        error=round(difference.error, 2),
        softness=round(_softness(first, second, matrix), 3),
        areas=_areas(both, difference, faces),
        faces=faces,
    )
    return detail, DetailPictures(both.a, both.b, difference.heat, both.canvas_from_a)


def _tone(tone: Tone) -> ToneFacts:
    return ToneFacts(
        brightness=round(tone.brightness, 1),
        contrast=round(tone.contrast, 3),
        colour=round(min(tone.colour, 99.0), 3),
    )


def _softness(first: Pixels, second: Pixels, matrix: Matrix) -> float:
    """B's finest detail over A's, at the finest scale at which both can be seen."""
    both = overlay(first, second, matrix, 2 * register.SIDE)
    if both is None:
        return 1.0

    def finest(pixels: Pixels) -> float:
        plane = register.grey(pixels)
        fine = plane - cv2.GaussianBlur(plane, (0, 0), 1.0)
        return float(np.sqrt((fine[both.common] ** 2).mean()))

    return min(99.0, finest(both.b) / max(finest(both.a), 1e-3))


def _faces(
    first: Pixels,
    second: Pixels,
    matrix: Matrix,
    both: Overlaid,
    difference: Difference,
    locate: _Locate,
) -> list[ComparedFace]:
    """Faces of either, in A's pixels, and how much of each differs."""
    own, theirs = locate([first])[0], locate([second])[0]
    boxes = [np.array(face.box, np.float64) for face in own]
    back = register.inverse(matrix)
    for face in theirs:
        moved = _moved(np.array(face.box, np.float64), back)
        if all(_overlap(moved, box) < 0.3 for box in boxes):
            boxes.append(moved)
    found: list[ComparedFace] = []
    for box in boxes:
        x0, y0, x1, y1 = np.round(_moved(box, both.canvas_from_a)).astype(int)
        inside = np.zeros(both.common.shape, bool)
        inside[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = True
        if (inside & both.common).sum() < 0.5 * max(1, (x1 - x0) * (y1 - y0)):
            continue  # It lies outside of what both show.
        found.append(
            ComparedFace(
                number=len(found) + 1,
                box=_rounded(box),
                changed=round(_share(difference.changed, inside & both.common), 4),
                elsewhere=round(_share(difference.changed, ~inside & both.common), 4),
            )
        )
    return found


def _share(changed: Any, where: Any) -> float:
    return float(changed[where].mean()) if where.any() else 0.0


def _areas(both: Overlaid, difference: Difference, faces: Sequence[ComparedFace]) -> list[Area]:
    a_from_canvas = register.inverse(both.canvas_from_a)
    found = []
    for x0, y0, x1, y1 in difference.boxes[:20]:
        box = _moved(np.array([x0, y0, x1, y1], np.float64), a_from_canvas)
        touched = [(_overlap(box, np.array(face.box)), face.number) for face in faces]
        most = max(touched, default=(0.0, 0))
        size = difference.changed[y0:y1, x0:x1].sum() / max(1, both.common.sum())
        found.append(
            Area(
                box=_rounded(box),
                share=round(float(size), 5),
                face=most[1] if most[0] > 0.02 else None,
            )
        )
    return found


def _moved(box: Any, matrix: Matrix) -> Any:
    x0, y0, x1, y1 = box
    corners = register.apply(matrix, np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]))
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def _overlap(a: Any, b: Any) -> float:
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    if across <= 0 or down <= 0:
        return 0.0
    both = across * down
    return float(both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both))


def _rounded(box: Any) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (round(float(value), 1) for value in box)
    return x0, y0, x1, y1


def _place(alignment: Alignment, one: FileFacts, two: FileFacts) -> Place:
    matrix = alignment.b_from_a
    turn = matrix[:, :2] * ([-1.0, 1.0] if alignment.mirrored else [1.0, 1.0])
    rim_a = _rim(one.width, one.height)
    rim_b = _rim(two.width, two.height)
    in_a = register.apply(register.inverse(matrix), rim_b)
    in_b = register.apply(matrix, rim_a)
    return Place(
        b_from_a=[[round(float(value), 6) for value in row] for row in matrix],
        mirrored=alignment.mirrored,
        turned=round(math.degrees(math.atan2(turn[1, 0], turn[0, 0])), 2),
        scale=(
            round(float(np.linalg.norm(turn[:, 0])), 4),
            round(float(np.linalg.norm(turn[:, 1])), 4),
        ),
        share_of_a=_part(in_a, rim_a),
        share_of_b=_part(in_b, rim_b),
        outline=[(round(float(x), 1), round(float(y), 1)) for x, y in in_a],
    )


def _rim(width: int, height: int) -> Matrix:
    return np.array([[0.0, 0], [width, 0], [width, height], [0, height]])


def _part(shape: Matrix, rim: Matrix) -> float:
    area, _ = cv2.intersectConvexConvex(shape.astype(np.float32), rim.astype(np.float32))
    return round(min(1.0, float(area) / float(rim[2, 0] * rim[2, 1])), 4)


# What changed, in words


def _changes_of_place(place: Place | None) -> list[Change]:
    if place is None:
        return []
    changes = []
    across, down = place.scale
    if place.share_of_a < 0.985:
        changes.append(_change("cropped", f"B shows {100 * place.share_of_a:.0f}% of A"))
    if place.share_of_b < 0.985:
        text = f"A shows {100 * place.share_of_b:.0f}% of B: the rest of B lies outside of A"
        changes.append(_change("cropped", text))
    mean = math.sqrt(across * down)
    if abs(mean - 1) > 0.01:
        changes.append(_change("scaled", f"a pixel of A is {mean:.3g} pixels of B"))
    if abs(across / down - 1) > 0.015:
        text = f"B is stretched: {across / down:.3g} times as wide for its height as A"
        changes.append(_change("stretched", text))
    if abs(place.turned) > 0.3:
        way = "clockwise" if place.turned > 0 else "counter-clockwise"
        changes.append(_change("turned", f"B is turned by {abs(place.turned):.1f}° {way}"))
    if place.mirrored:
        changes.append(_change("mirrored", "B is mirrored: left and right are swapped"))
    return changes


def _changes_of_time(one: Side, two: Side, time: TimeOffset | None) -> list[Change]:
    if time is None:
        return []
    changes = []
    if abs(time.offset) > 0.02:
        first, second = ("B", "A") if time.offset < 0 else ("A", "B")
        sure = "" if time.sure else "; little moves, or it repeats, so that this is uncertain"
        text = f"{first} begins {abs(time.offset):.2f} s into {second}{sure}"
        changes.append(_change("offset", text))
    length_a, length_b = one.facts.duration or 0.0, two.facts.duration or 0.0
    if abs(length_a - length_b) > 0.1:
        changes.append(_change("length", f"A lasts {length_a:.2f} s, B {length_b:.2f} s"))
    return changes


def _changes_of_picture(details: Sequence[Detail]) -> list[Change]:
    if not details:
        return []
    changes = []
    worst = max(details, key=lambda one: one.changed)
    tone = worst.tone
    if tone.colour < 0.15 or tone.colour > 7:
        changes.append(_change("grey", f"{'A' if tone.colour < 1 else 'B'} has next to no colour"))
    said = []
    if abs(tone.brightness) > 3:
        said.append(
            f"{'darker' if tone.brightness > 0 else 'brighter'} by "
            f"{abs(tone.brightness):.0f} of 255 levels"
        )
    if abs(tone.contrast - 1) > 0.05:
        said.append(f"{'less' if tone.contrast > 1 else 'more'} contrast")
    if 0.15 <= tone.colour <= 7 and abs(tone.colour - 1) > 0.15:
        said.append(f"{'paler' if tone.colour > 1 else 'more vivid'} colours")
    if said:
        changes.append(_change("tone", f"the whole of B differs in tone: {', '.join(said)}"))
    if worst.areas:
        count = len(worst.areas)
        changes.append(
            _change(
                "areas",
                f"beyond that, they differ in {count} place{'s' if count > 1 else ''}, "
                f"{100 * worst.changed:.2g}% of what they share",
            )
        )
    faces = [face for one in details for face in one.faces if face.changed > 0.05]
    if faces:
        most = max(faces, key=lambda face: face.changed)
        changes.append(
            _change(
                "face",
                f"a face differs: {100 * most.changed:.0f}% of it, against "
                f"{100 * most.elsewhere:.2g}% of the rest",
            )
        )
    if worst.softness < 0.7 or worst.softness > 1.4:
        softer, part = ("B", worst.softness) if worst.softness < 1 else ("A", 1 / worst.softness)
        changes.append(
            _change(
                "softer",
                f"{softer} has {100 * part:.0f}% of the other's finest detail: it was blurred, "
                "scaled up or compressed more, or the other was sharpened",
            )
        )
    return changes


def _changes_of_file(one: Side, two: Side) -> list[Change]:
    a, b = one.facts, two.facts
    changes = []
    if (a.codec, a.details and a.details.format) != (b.codec, b.details and b.details.format):
        changes.append(_change("container", f"A is {_format(a)}, B is {_format(b)}"))
    if _coding(a) != _coding(b):
        changes.append(_change("compression", f"A: {_coding(a)}; B: {_coding(b)}"))
    if a.rate and b.rate and abs(a.rate / b.rate - 1) > 0.005:
        changes.append(_change("rate", f"A has {a.rate:.4g} frames a second, B {b.rate:.4g}"))
    if a.has_audio != b.has_audio and a.kind == b.kind:
        changes.append(_change("sound", f"only {'A' if a.has_audio else 'B'} has sound"))
    marks = [_mark(side.watermark) for side in (one, two)]
    if marks[0] != marks[1]:
        changes.append(_change("mark", f"A bears {marks[0]}, B {marks[1]}"))
    signed = [_credentials(side.provenance) for side in (one, two)]
    if signed[0] != signed[1]:
        changes.append(_change("credentials", f"A has {signed[0]}, B {signed[1]}"))
    return [*changes, *_changes_of_tags(a, b)]


def _changes_of_tags(a: FileFacts, b: FileFacts) -> list[Change]:
    own = a.details.metadata if a.details else {}
    other = b.details.metadata if b.details else {}
    changes = []
    for name in sorted(own.keys() | other.keys()):
        if own.get(name) != other.get(name):
            values = [f"“{tags[name]}”" if name in tags else "nothing" for tags in (own, other)]
            changes.append(_change("metadata", f"{name}: {values[0]} in A, {values[1]} in B"))
    return changes[:_TAGS]


def _format(facts: FileFacts) -> str:
    known = facts.details.format if facts.details else facts.container
    return known if known == facts.codec else f"{known} ({facts.codec})"


def _coding(facts: FileFacts) -> str:
    """How much a file is compressed, in short."""
    density = 8 * facts.bytes / (facts.width * facts.height)
    if facts.kind == "video":
        video = facts.details.video if facts.details else None
        rate = f"{video.bit_rate / 1e6:.3g} Mbit/s" if video and video.bit_rate else "unknown rate"
        settings = facts.details.metadata.get("encoder settings") if facts.details else None
        return f"{rate}, {settings}" if settings else rate
    picture = facts.details.picture if facts.details else None
    if picture is None or picture.quality is None:
        return f"{density:.2g} bits a pixel"
    about = "" if picture.tables == "standard" else "about "
    return f"JPEG quality {about}{picture.quality}, {picture.subsampling or 'grey'}"


def _mark(mark: Watermark) -> str:
    if mark.status == "present":
        return f"a mark that says '{mark.kind}' ({mark.id})" if mark.kind else "a mark"
    return "no mark" if mark.status == "absent" else "a mark that could not be looked for"


def _credentials(found: Provenance) -> str:
    if found.status == "absent":
        return "no content credentials"
    by = f" by {found.signer}" if found.signer else ""
    return {
        "trusted": f"content credentials signed{by}, trusted",
        "untrusted": f"content credentials signed{by}, by someone nobody here vouches for",
        "tampered": "content credentials that do not match it",
        "not read": "content credentials that could not be read",
    }[found.status]


def _change(code: ChangeCode, text: str) -> Change:
    return Change(code=code, text=text)


def _side(path: Path) -> Side:
    info = probe(path)
    facts, _ = read_facts(path, info, details=True)
    return Side(
        name=path.name,
        path=str(path),
        facts=facts,
        watermark=read_watermark(path),
        provenance=read_provenance(path),
    )


def _state(path: Path) -> tuple[int, int]:
    require_file(path)
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _shrunk(pixels: Pixels) -> Pixels:
    scale = _SHOWN / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    return np.asarray(
        cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8
    )


if __name__ == "__main__":
    files.write_text(
        Path(__file__).parent / "report" / "comparison.schema.json",
        json.dumps(json_schema(), indent=2) + "\n",
    )
