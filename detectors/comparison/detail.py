"""What differs between two aligned files: over time, at the moments that tell most, in faces."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detectors.comparison import register
from detectors.comparison.changes import Difference, Tone, differ, match_tone
from detectors.comparison.frames import common_moments, picture
from detectors.comparison.model import Area, ComparedFace, Detail, Moment, ToneFacts
from detectors.comparison.register import Matrix, Overlaid, overlay
from detectors.comparison.source import Found
from detectors.faces import Finder
from facekit.media.decode import Video
from facekit.types import Face, Pixels

_MOST = 4  # moments of videos that are shown in detail
_TIMELINE = 40  # moments at which videos are compared
_TIMELINE_SIDE = 320  # pixels of the longer side of the canvas for that
_SHOWN = 640  # pixels of the longer side of each file as a whole

_Locate = Callable[[Sequence[Pixels]], list[list[Face]]]


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


def look(found: Found, finder: Finder) -> tuple[list[Detail], list[Moment], ComparisonPictures]:
    """Look at what differs between two files.

    Args:
        found: how they lie to each other.
        finder: of faces.

    Returns:
        (details, moments, pictures): as of :class:`~detectors.comparison.model.Comparison`; nothing
        but the files as a whole if they share no source.
    """
    whole_a = _shrunk(picture(found.one, found.at[0]))
    whole_b = _shrunk(picture(found.two, found.at[1]))
    if found.shared is None:
        return [], [], ComparisonPictures(whole_a, whole_b)
    matrix = found.shared.b_from_a
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


def _timeline(found: Found, matrix: Matrix, offset: float) -> list[Moment]:
    pairs = common_moments(found.one, found.two, offset, _TIMELINE)
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
    apart = (moments[-1].time_a - moments[0].time_a) / (2 * _MOST)
    ranked = sorted(moments, key=lambda one: (-one.changed, one.time_a))
    least = 0.2 * ranked[0].changed
    for moment in [one for one in ranked if one.changed > least] or ranked[:1]:
        if all(abs(moment.time_a - other.time_a) >= apart for other in chosen):
            chosen.append(moment)
        if len(chosen) == _MOST:
            break
    return sorted((moment.time_a, moment.time_b) for moment in chosen)


def _detail(
    found: Found, matrix: Matrix, times: tuple[float, float], locate: _Locate
) -> tuple[Detail, DetailPictures] | None:
    first, second = picture(found.one, times[0]), picture(found.two, times[1])
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


def _shrunk(pixels: Pixels) -> Pixels:
    scale = _SHOWN / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    return np.asarray(
        cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8
    )
