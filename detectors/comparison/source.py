"""Whether two files come from the same source, and how they lie to each other if they do.

Pictures are brought into register, videos in time as well; of a picture and a video, the picture's
moment is looked for. What decides is how far fine detail agrees where both have any.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detectors.comparison import register
from detectors.comparison.frames import common_moments, length, picture
from detectors.comparison.model import Conclusion, Floor, Side, Source, TimeOffset
from detectors.comparison.register import Alignment, align, overlay
from detectors.comparison.synchronise import (
    Strip,
    Timing,
    candidates,
    moments_of,
    strip_of,
    strip_of_picture,
    synchronise,
    to_a_frame,
)
from facekit.media.decode import Video
from facekit.media.images import read_image
from facekit.types import Pixels

SAME = 0.8
"""Agreement of fine detail from which two pictures come from the same source."""
ALIKE = 0.4
"""Agreement below which they have nothing in common that can be shown."""
# Measured on portraits of five collections, both sets of docs/compare.md together.
COPIED = 0.84
"""The least that copies agreed: cropped, mirrored, turned, scaled, toned and compressed."""
UNRELATED = 0.37
"""The most that two pictures of different people agreed."""
RETAKEN = 0.77
"""The most that two photos of one sitting agreed."""

_SURE = 0.85  # agreement from which nothing else needs to be tried
_PEAKS = 3  # geometries of which offsets in time are tried
_SIDE = 320  # pixels of the longer side of the canvas on which neighbouring frames are compared


@dataclass
class Found:
    """The two files and how they lie to each other.

    Attributes:
        one, two: the files, A and B.
        alignment: of A in B, at ``at``; None if there is none to be tried.
        at: a time of A and one of B, in seconds, at which they show the same; 0 of a picture.
        time: how they lie in time, of two videos.
        identical: how they are the same, in words; "" if they are not.
        merit: by which one of several offsets in time is chosen.
    """

    one: Side
    two: Side
    alignment: Alignment | None
    at: tuple[float, float]
    time: TimeOffset | None = None
    identical: str = ""
    merit: float = 0.0

    @property
    def conclusion(self) -> Conclusion:
        """What the agreement of fine detail amounts to."""
        if self.identical:
            return "identical"
        if self.alignment is None or self.alignment.detailed <= register.FEWEST_DETAILED:
            return "too little detail"
        if self.alignment.agreement >= SAME:
            return "same source"
        return "alike" if self.alignment.agreement >= ALIKE else "no common source found"

    @property
    def shared(self) -> Alignment | None:
        """How what they share lies; None if nothing is to be laid over each other."""
        return self.alignment if self.conclusion in ("same source", "alike") else None

    def source(self) -> Source:
        """The same, for the report."""
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
        f"one sitting by {RETAKEN} at most, copies by {COPIED} and more"
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


def find(one: Side, two: Side) -> Found:
    """Look for what two files share.

    Raises:
        FacekitError: if a file cannot be read.
    """
    a, b = Path(one.path), Path(two.path)
    if one.facts.sha256 == two.facts.sha256:
        alignment = Alignment(np.eye(2, 3), 0, 1.0, 1.0)
        text = "the two files are the same, byte for byte"
        return Found(one, two, alignment, (0.0, 0.0), identical=text)
    if one.facts.kind == two.facts.kind == "image":
        first, second = read_image(a), read_image(b)
        if first.shape == second.shape and np.array_equal(first, second):
            alignment = Alignment(np.eye(2, 3), 0, 1.0, 1.0)
            text = "the two show the same, pixel for pixel; only their files differ"
            return Found(one, two, alignment, (0.0, 0.0), identical=text)
        return Found(one, two, align(first, second), (0.0, 0.0))
    return _in_time(one, two)


def _in_time(one: Side, two: Side) -> Found:
    strip_a, strip_b = _strip(one), _strip(two)
    tried: list[tuple[Alignment, tuple[float, float]]] = []
    for times in candidates(strip_a, strip_b):
        alignment = align(picture(one, times[0]), picture(two, times[1]))
        tried += [] if alignment is None else [(alignment, times)]
        if alignment is not None and alignment.agreement > _SURE:
            break
    tried.sort(key=lambda pair: -pair[0].agreement)
    if not tried:
        return Found(one, two, None, (0.0, 0.0))
    best = Found(one, two, *tried[0])
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


def _still_in_film(best: Found, strip_a: Strip, strip_b: Strip) -> Found:
    """A picture's very frame in a video, from a pair that is about right."""
    one, two = best.one, best.two
    film = one if one.facts.kind == "video" else two
    step = max(strip_a.every, strip_b.every)
    rate = film.facts.rate or 25.0
    still = picture(two if film is one else one, 0.0)
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
                    both = overlay(*pair, matrix, _SIDE)
                    if both is not None:
                        seen.append((register.agreement(both)[0], frame.time, frame.pixels))
        if not seen:
            return best
        _, time, pixels = max(seen, key=lambda one: one[0])
        alignment = align(pixels, still) if film is one else align(still, pixels)
        if alignment is None or alignment.agreement < best.alignment.agreement:
            return best
        at = (time, 0.0) if film is one else (0.0, time)
        best = Found(one, two, alignment, at)
    return best


def _at_offset(
    one: Side, two: Side, strip_a: Strip, strip_b: Strip, rough: Alignment, timing: Timing
) -> Found | None:
    """How two videos lie to each other, from a rough geometry and an offset of samples."""
    offset = timing.offset
    if timing.moving:
        a, b = Path(one.path), Path(two.path)
        offset = to_a_frame(a, b, strip_a, strip_b, rough.b_from_a, offset)
    moment = common_moments(one, two, offset, 3)[1]
    exact = align(picture(one, moment[0]), picture(two, moment[1]))
    if exact is None:
        return None
    merit = exact.agreement + max(0.0, timing.correlation)
    return Found(one, two, exact, moment, _offset(timing, offset, exact), merit=merit)


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
    return strip_of(Path(side.path), length(side))
