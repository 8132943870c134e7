"""Go through a file once: its faces, followed, measured and scored, in a stream.

Frames come in small batches and go again. What is kept of each face is a few numbers, and of each
track a bounded number of pictures, so that memory hardly grows with a file's length.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from detectors.faces import Outcome, at_least_apart, score_each
from detectors.regions import Region, cut
from detectors.report.model import Sighting
from detectors.report.pictures import Box, Crop, Pictures
from detectors.score import Detector
from detectors.verdict import RUN, is_usable
from facekit.core.ahead import ahead
from facekit.core.errors import FacekitError
from facekit.faces import quality
from facekit.faces.align import align_faces
from facekit.faces.embed import Embedder
from facekit.faces.people import SAME_PERSON, Album, identify
from facekit.faces.track import Tracker
from facekit.media.decode import Video
from facekit.media.images import encode_image, is_image, read_image
from facekit.types import AlignedFace, Face, Frame, Pixels

log = logging.getLogger("facekit")

EVERY = 0.2
"""Seconds between two samples of a video, unless asked otherwise."""
LONGEST = 3000
"""Samples of one video at most: ten minutes at the default rate."""
MIN_FACE = 40
"""Pixels; faces from here up are shown."""

_BATCH = 4  # frames that are held, searched and scored together
_PIXELS = 20_000_000  # of a batch; of larger frames it holds fewer
_CROP = 128  # pixels of the crops shown
_EVEN_CROPS = 6  # of a track, beside its lowest and its highest score
_OVERVIEW = 640  # pixels of the longer side
_LEAST = 8  # pixels: points that fall together show no face, and cannot be aligned
_MAX_GAP = 2.0  # seconds that a face may be out of sight and still be the same track
_PEAKS = 3  # the strongest sightings of a track that are kept whole
_APART = 1.0  # seconds between two of them
_TRACKS_KEPT = 16  # tracks of which they are kept: those of the highest


@dataclass(frozen=True)
class Moments:
    """Which moments of a file are looked at.

    Attributes:
        every: seconds between two of them.
        times: of them, rising; None where the length is not known beforehand.
        stretches: how many stretches of ``RUN`` moments they are, evenly spread, where the file is
            too long to be looked at all along; else None.
        until: seconds after which nothing is looked at; None: to the end.
    """

    every: float
    times: tuple[float, ...] | None
    stretches: int | None = None
    until: float | None = None


def moments(length: float | None, every: float, until: float | None = None) -> Moments:
    """Choose the moments to look at: at most ``LONGEST``.

    Of a longer video, stretches are looked at that lie evenly over it. Each holds ``RUN`` moments
    as close together as those of a short video: a face is followed, and scored, over neighbouring
    moments, which samples far apart would not allow.

    Args:
        length: seconds that the frames last; None if unknown.
        every: seconds between two moments.
        until: seconds after which nothing is looked at.
    """
    cut_off = until if until is not None and (length is None or until < length) else None
    if length is None:
        return Moments(every, None, until=cut_off)
    end = length if cut_off is None else cut_off
    count = math.ceil(end / every)
    if count <= LONGEST:
        return Moments(every, tuple(every * i for i in range(count)), until=cut_off)
    stretches = max(1, LONGEST // RUN)
    times = (
        end * stretch / stretches + every * i for stretch in range(stretches) for i in range(RUN)
    )
    return Moments(every, tuple(itertools.islice(times, LONGEST)), stretches, cut_off)


def samples(path: Path, chosen: Moments, wrong: list[str]) -> Iterator[Frame]:
    """The frames to look at; one that stays on screen over several moments comes once.

    Args:
        path: a picture or a video.
        chosen: when to look.
        wrong: takes what kept frames from being read; what could be read comes all the same.
    """
    try:
        yield from _samples(path, chosen, wrong)
    except FacekitError as error:
        log.warning("%s", error)
        wrong.append(str(error))


def _samples(path: Path, chosen: Moments, wrong: list[str]) -> Iterator[Frame]:
    if is_image(path):
        yield Frame(read_image(path), 0.0, 0)
        return
    with Video(path) as video:
        if chosen.times is None:
            due: Iterator[Frame] = itertools.takewhile(
                lambda frame: chosen.until is None or frame.time < chosen.until,
                at_least_apart(video, chosen.every),
            )
        else:
            due = video.frames(chosen.times)
        last = -1
        for frame in itertools.islice(due, LONGEST):
            if frame.index != last:
                yield frame
            last = frame.index
        if video.faults:
            wrong.append(f"damaged: {video.faults} of the frames decoded are missing or faulty")


def batches(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """The frames, a few at a time: few enough to be held a dozen times."""
    batch: list[Frame] = []
    for frame in frames:
        batch.append(frame)
        height, width = frame.pixels.shape[:2]
        if len(batch) == _BATCH or (len(batch) + 1) * height * width > _PIXELS:
            yield batch
            batch = []
    if batch:
        yield batch


@dataclass(frozen=True, eq=False)
class Peak:
    """One of a track's strongest sightings.

    Attributes:
        sighting: what is known of it.
        region: what the detector saw.
        crop: what the report shows, with the frame about the face.
    """

    sighting: Sighting
    region: Region
    crop: Crop


@dataclass
class Course:
    """What one track showed.

    Attributes:
        sightings: in order of time.
        person: as :attr:`facekit.types.Track.person`; known at the end.
        peaks: its strongest usable sightings in order of time; none of a track whose face is less
            suspicious than many others'.
        shown: crops of it.
    """

    sightings: list[Sighting] = field(default_factory=list)
    person: int | None = None
    peaks: list[Peak] = field(default_factory=list)
    shown: "_Shown" = field(default_factory=lambda: _Shown())


class Walk:
    """The faces of one file, gathered batch by batch.

    Attributes:
        courses: by track.
        frames: how many were looked at.
        last_time: of them.
        failures: what the detector could not score, each said once.
    """

    def __init__(
        self,
        *,
        embedder: Embedder,
        detector: Detector | None,
        device: torch.device,
        every: float,
    ) -> None:
        """Start before the first frame.

        Args:
            embedder: knows people again.
            detector: scores the faces; None leaves that out.
            device: where to compute.
            every: seconds between two moments; a track may miss one.
        """
        self._detector = detector
        self._device = device
        self._tracker = Tracker(max_gap=max(_MAX_GAP, 2.5 * every))
        self._album = Album(embedder, device)
        self._overview = Pictures()
        self._weak = -1.0  # tracks no stronger than this were forgotten
        self.courses: dict[int, Course] = {}
        self.frames = 0
        self.last_time = 0.0
        self.failures: list[str] = []

    def through(
        self,
        frames: Iterable[Frame],
        locate: Callable[[Sequence[Pixels]], list[list[Face]]],
        advance: Callable[[int, str], None],
    ) -> None:
        """Go through all frames; they are decoded, and searched, in threads of their own.

        Args:
            frames: in order of time.
            locate: finds the faces of pictures, with landmarks.
            advance: is told how many frames were looked at.
        """
        threads = torch.get_num_threads()

        def searched(batch: list[Frame]) -> tuple[list[Frame], list[list[Face]]]:
            torch.set_num_threads(threads)  # of this thread; a new one would take every core
            return batch, locate([frame.pixels for frame in batch])

        with ahead(batches(frames), 1) as decoded, ahead(map(searched, decoded), 1) as found:
            for batch, faces in found:
                self._add(batch, faces)
                advance(self.frames, "faces")
        tracks = self._tracker.tracks
        # A lone track is a lone person, whoever it is.
        vectors = self._album.vectors() if len(tracks) > 1 else {}
        identify(tracks, vectors, SAME_PERSON)
        for track in tracks:
            self.courses[track.id].person = track.person

    def _add(self, frames: Sequence[Frame], located: Sequence[Sequence[Face]]) -> None:
        """Measure, follow, cut and score the faces of some frames."""
        pictures = [frame.pixels for frame in frames]
        faces_of = [[face for face in faces if face.size >= _LEAST] for faces in located]
        found: list[tuple[int, Frame, AlignedFace]] = []
        for frame, faces in zip(frames, quality.measure(pictures, faces_of), strict=True):
            ids = self._follow(frame, faces)
            crops = align_faces(
                frame.pixels, faces, template="wide", size=_CROP, device=self._device
            )
            found += [(id, frame, crop) for id, crop in zip(ids, crops, strict=True)]
        regions = [cut(frame.pixels, crop.face) for _, frame, crop in found]
        outcomes = self._score(regions)
        for (id, frame, crop), region, outcome in zip(found, regions, outcomes, strict=True):
            self._keep(self.courses.setdefault(id, Course()), frame, crop, region, outcome)
        self._forget_the_least()
        self.frames += len(frames)
        self.last_time = frames[-1].time

    def pictures(self) -> Pictures:
        """What the report shows of the file."""
        crops = {id: course.shown.crops(course.peaks) for id, course in self.courses.items()}
        return replace(self._overview, crops=crops)

    def _follow(self, frame: Frame, faces: list[Face]) -> list[int]:
        """The track of each face."""
        before = self._tracker.open
        ids = self._tracker.update(faces, frame.time, frame.index)
        self._album.add(frame.pixels, frame.time, faces, ids)
        self._album.end(sorted(before - self._tracker.open))
        if self._overview.overview is None or len(faces) > len(self._overview.boxes):
            self._overview = _overview(frame, faces, ids)
        return ids

    def _score(self, regions: Sequence[Region]) -> list[Outcome]:
        """What the detector says of each face."""
        if self._detector is None:
            return [Outcome() for _ in regions]
        outcomes = score_each(self._detector, regions)
        for outcome in outcomes:
            if outcome.reason and outcome.reason not in self.failures:
                log.warning("%s", outcome.reason)
                self.failures.append(outcome.reason)
        return outcomes

    def _keep(
        self, course: Course, frame: Frame, face: AlignedFace, region: Region, outcome: Outcome
    ) -> None:
        sighting = _sighting(frame, face.face, outcome)
        course.sightings.append(sighting)
        scored = sighting.score is not None or self._detector is None
        peak = scored and is_usable(sighting) and self._is_peak(course.peaks, sighting)
        crop = course.shown.add(sighting, face.pixels, wanted=peak)
        if peak and crop:
            whole = Peak(sighting, region, crop.with_large(frame.pixels, face))
            course.peaks = _with(course.peaks, whole)

    def _forget_the_least(self) -> None:
        """Keep whole sightings of the most suspicious tracks only: they are what takes memory."""
        holding = [course for course in self.courses.values() if course.peaks]
        holding.sort(key=_strongest)
        for course in holding[: max(0, len(holding) - _TRACKS_KEPT)]:
            self._weak = max(self._weak, _strongest(course))
            course.peaks = []

    def _is_peak(self, peaks: Sequence[Peak], sighting: Sighting) -> bool:
        """Whether a sighting is stronger than one that it would take the place of."""
        strength = _strength(sighting)
        rivals = _near(peaks, sighting)
        if not rivals and len(peaks) == _PEAKS:
            rivals = [min(peaks, key=lambda peak: _strength(peak.sighting))]
        least = max((_strength(rival.sighting) for rival in rivals), default=self._weak)
        return strength > least


def _sighting(frame: Frame, face: Face, outcome: Outcome) -> Sighting:
    seen = face.quality
    pose = seen.pose if seen else None
    x0, y0, x1, y1 = (round(float(edge), 1) for edge in face.box)
    return Sighting(
        time=round(frame.time, 4),
        index=frame.index,
        box=(x0, y0, x1, y1),
        size=round(face.size, 1),
        located=round(min(1.0, face.score), 4),
        score=outcome.probability,
        members=outcome.members,
        blur=round(seen.blur, 2) if seen else None,
        compression=round(seen.compression, 3) if seen else None,
        occlusion=round(seen.occlusion, 3) if seen else None,
        yaw=round(pose[0], 1) if pose else None,
        pitch=round(pose[1], 1) if pose else None,
    )


def _strength(sighting: Sighting) -> float:
    """What makes a sighting worth a closer look: its score; without one, its size."""
    return sighting.score if sighting.score is not None else sighting.size / 1e6


def _strongest(course: Course) -> float:
    return max(_strength(peak.sighting) for peak in course.peaks)


def _near(peaks: Sequence[Peak], sighting: Sighting) -> list[Peak]:
    return [peak for peak in peaks if abs(peak.sighting.time - sighting.time) < _APART]


def _with(peaks: Sequence[Peak], new: Peak) -> list[Peak]:
    """The peaks with a new one that takes the place of those near it, or of the weakest."""
    rivals = _near(peaks, new.sighting)
    kept = [peak for peak in peaks if peak not in rivals]
    kept = sorted([*kept, new], key=lambda peak: -_strength(peak.sighting))[:_PEAKS]
    return sorted(kept, key=lambda peak: peak.sighting.time)


@dataclass
class _Shown:
    """Crops of one track at even times, and those of its lowest and highest score.

    They are kept encoded, and their number is bounded however long the track is.
    """

    even: list[Crop] = field(default_factory=list)
    lowest: Crop | None = None
    highest: Crop | None = None
    seen: int = 0
    stride: int = 1

    def add(self, sighting: Sighting, pixels: Pixels, *, wanted: bool) -> Crop | None:
        """Look at one more crop, and keep it if it is one of those; it is returned if wanted."""
        score = sighting.score
        even = self.seen % self.stride == 0
        low = score is not None and (self.lowest is None or score < (self.lowest.score or 0.0))
        high = score is not None and (self.highest is None or score > (self.highest.score or 0.0))
        self.seen += 1
        if not (even or low or high or wanted):
            return None
        jpeg = encode_image(pixels, ".jpg", quality=82)
        crop = Crop(time=sighting.time, score=score, jpeg=jpeg, index=sighting.index)
        if low:
            self.lowest = crop
        if high:
            self.highest = crop
        if even:
            self.even.append(crop)
        if len(self.even) > 2 * _EVEN_CROPS:
            self.even = self.even[::2]
            self.stride *= 2
        return crop

    def crops(self, peaks: Sequence[Peak]) -> list[Crop]:
        """In order of time, each once, those of the peaks with the frame about them."""
        chosen = {crop.time: crop for crop in self.even}
        labels = {}
        if self.lowest and self.highest and self.lowest.time != self.highest.time:
            for crop, label in ((self.lowest, "lowest"), (self.highest, "highest")):
                chosen[crop.time] = crop
                labels[crop.time] = label
        chosen |= {peak.crop.time: peak.crop for peak in peaks}
        return [
            replace(chosen[time], label=labels.get(time, chosen[time].label))
            for time in sorted(chosen)
        ]


def _overview(frame: Frame, faces: Sequence[Face], ids: Sequence[int]) -> Pictures:
    return Pictures(
        overview=encode_image(_shrunk(frame.pixels), ".jpg", quality=80),
        boxes=[_box(face, id, frame.pixels) for face, id in zip(faces, ids, strict=True)],
        overview_time=frame.time,
    )


def _box(face: Face, track: int, pixels: Pixels) -> Box:
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = np.clip(face.box, 0, [width, height, width, height]).tolist()
    return Box(
        left=round(100 * x0 / width, 2),
        top=round(100 * y0 / height, 2),
        width=round(100 * (x1 - x0) / width, 2),
        height=round(100 * (y1 - y0) / height, 2),
        number=track + 1,
    )


def _shrunk(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    scale = _OVERVIEW / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
