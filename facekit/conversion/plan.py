"""The first pass over a clip: where the target's face is in each frame, or why it is left alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch

from facekit.conversion import who
from facekit.conversion.steady import steady, steady_scalar
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.faces.align import align_faces
from facekit.faces.embed import Embedder, load_embedder
from facekit.faces.landmarks import laid_on
from facekit.faces.stage import Stage
from facekit.types import Face, Floats, Frame, Pixels

NO_FACE = "no face"
ANOTHER = "another person"
LOST = "lost"
PROFILE = "profile"
COVERED = "covered"

MAX_YAW = 60.0
"""Degrees: a face that is turned further from the camera is left alone, as a profile."""

MAX_COVERED = 0.6
"""A face is left alone if more than this share of it is hidden."""

_HIDDEN, _UNSURE = 0.35, 0.5  # of the landmark network's "visible": see facekit.faces.quality
_LOST = 2.0  # seconds: whoever is out of sight for longer is not lost but gone
_PASSING = 1.0  # seconds that faces take at most to pass each other
_SURER = 1.5  # times: of two faces on a reference photo the larger one counts if it is so much more


@dataclass(frozen=True)
class Place:
    """What is to be done in one frame.

    Attributes:
        time: of the frame, in seconds.
        points: float32 (5, 2), of the target's face, steady; None if the frame is left alone.
        run: number of the unbroken run of frames that it belongs to; -1 if it is left alone.
        reason: why it is left alone: a constant of this module; "" if it is not.
    """

    time: float
    points: Floats | None
    run: int = -1
    reason: str = ""


@dataclass(frozen=True)
class Untouched:
    """Frames in a row that pass through untouched, for one reason.

    Attributes:
        begin, end: times of the first and of the last of them, in seconds.
        frames: how many.
        reason: why; see :class:`Place`.
    """

    begin: float
    end: float
    frames: int
    reason: str

    def __str__(self) -> str:
        if self.frames == 1:
            return f"{self.begin:.2f} s {self.reason}"
        return f"{self.begin:.2f}–{self.end:.2f} s {self.reason}"


@dataclass(frozen=True)
class Plan:
    """What is to be done in each frame of a clip.

    Attributes:
        places: of the frames, in order.
    """

    places: tuple[Place, ...]

    @property
    def changed(self) -> int:
        """In how many frames the face will be replaced."""
        return sum(place.points is not None for place in self.places)

    def untouched(self) -> list[Untouched]:
        """The frames that pass through as they are, with the reason."""
        stretches = []
        for reason, group in groupby(self.places, key=lambda place: place.reason):
            places = list(group)
            if reason:
                times = places[0].time, places[-1].time
                stretches.append(Untouched(*times, len(places), reason))
        return stretches

    def to_json(self) -> list[list[Any]]:
        """As JSON values, exactly."""
        return [
            [
                place.time,
                None if place.points is None else place.points.astype(float).ravel().tolist(),
                place.run,
                place.reason,
            ]
            for place in self.places
        ]

    @classmethod
    def from_json(cls, rows: Sequence[Sequence[Any]]) -> "Plan":
        """The inverse of :meth:`to_json`."""
        return cls(
            tuple(
                Place(
                    time,
                    None if points is None else np.array(points, np.float32).reshape(5, 2),
                    run,
                    reason,
                )
                for time, points, run, reason in rows
            )
        )


@dataclass(frozen=True)
class _Sighting:
    """What the plan needs to know of a face in a frame."""

    part: int
    points: Floats
    yaw: float
    covered: float
    crossing: bool


@dataclass(frozen=True)
class _Row:
    time: float
    cut: bool
    faces: list[_Sighting]


def plan_clip(
    frames: Iterable[Frame],
    *,
    device: torch.device,
    reference: Pixels | None = None,
    total: int | None = None,
    stage: Stage | None = None,
) -> Plan:
    """Go through a clip, follow everyone in it, and plan what to do in each frame.

    Args:
        frames: of one clip, in order of time.
        device: where to locate, read and compare faces.
        reference: a photo, uint8 RGB (H, W, 3), of the person whose face is to be replaced; by
            default it is whoever has the largest face in the first frame that shows any.
        total: how many frames there will be, for the progress bar.
        stage: to follow faces with, by default a new one.

    Raises:
        FacekitError: if the photo shows no face or two, nobody in the clip is like it, or two
            people are; or as iterating ``frames`` does.
    """
    embedder = load_embedder(device)
    stage = stage or Stage(device, embedder=embedder)
    wanted = None if reference is None else _vector_of(reference, stage, embedder, device)
    parts = who.Parts(embedder, device)
    rows: list[_Row] = []
    with progress("following faces", total) as advance:
        for seen in stage.follow(frames):
            numbers, crossing = parts.add(seen)
            sightings = [
                _Sighting(number, laid_on(face).points, _yaw(face), hidden(face), across)
                for face, number, across in zip(seen.faces, numbers, crossing, strict=True)
            ]
            rows.append(_Row(seen.frame.time, seen.cut, sightings))
            advance(len(rows), "")
    vectors = parts.vectors()
    owners = who.people(parts.parts, vectors)
    first = next((row.faces[0].part for row in rows if row.faces), None)
    if wanted is not None:
        target = who.person_like(wanted, parts.parts, owners, vectors)
    else:
        target = -1 if first is None else owners[first]
    found = [next((f for f in row.faces if owners[f.part] == target), None) for row in rows]
    return Plan(_places(rows, _through_crossings(rows, found)))


def plan_picture(
    pixels: Pixels,
    *,
    device: torch.device,
    reference: Pixels | None = None,
    stage: Stage | None = None,
) -> Plan:
    """The plan of a single picture; see :func:`plan_clip`.

    Raises:
        FacekitError: as :func:`plan_clip`.
    """
    stage = stage or Stage(device)
    (faces,) = stage.look([pixels])
    if faces and reference is not None:
        embedder = load_embedder(device)
        wanted = _vector_of(reference, stage, embedder, device)
        own = _vectors(pixels, faces, embedder, device)
        parts = [who.Part(i, 0.0, 0.0, None) for i in range(len(faces))]
        owners = list(range(len(faces)))
        faces = [faces[who.person_like(wanted, parts, owners, dict(enumerate(own)))]]
    if not faces:
        return Plan((Place(0.0, None, reason=NO_FACE),))
    face = faces[0]
    if abs(_yaw(face)) > MAX_YAW:
        return Plan((Place(0.0, None, reason=PROFILE),))
    if hidden(face) > MAX_COVERED:
        return Plan((Place(0.0, None, reason=COVERED),))
    return Plan((Place(0.0, laid_on(face).points, 0),))


def hidden(face: Face) -> float:
    """The share of a face that something covers, in [0, 1], by its landmarks' visibility."""
    if face.landmarks is None:
        return 0.0
    inner = face.landmarks.visible[17:]  # without the jaw, which a turned head hides by itself
    return float(np.clip((_UNSURE - inner) / (_UNSURE - _HIDDEN), 0, 1).mean())


def _yaw(face: Face) -> float:
    return 0.0 if face.landmarks is None else face.landmarks.pose[0]


def _through_crossings(
    rows: Sequence[_Row], found: Sequence[_Sighting | None]
) -> list[_Sighting | None]:
    """The same, where others cross the target by where it must be, not by its track.

    That holds for those who pass. Cheek to cheek for longer, nobody moves evenly from beginning to
    end, and the track is the better guess.
    """

    def crosses(i: int) -> bool:
        own = found[i]
        return any(face.crossing for face in rows[i].faces) if own is None else own.crossing

    result = list(found)
    for crossing, group in groupby(range(len(rows)), key=crosses):
        indices = list(group)
        first, last = indices[0] - 1, indices[-1] + 1
        if not crossing or first < 0 or last >= len(rows):
            continue
        before, after = found[first], found[last]
        if before is None or after is None or any(rows[i].cut for i in (*indices, last)):
            continue
        if rows[last].time - rows[first].time > _PASSING:
            continue
        for i in indices:
            share = (rows[i].time - rows[first].time) / (rows[last].time - rows[first].time)
            points = [face.points for face in rows[i].faces]
            chosen = who.through_crossing(before.points, after.points, share, points)
            result[i] = None if chosen is None else rows[i].faces[chosen]
    return result


def _places(rows: Sequence[_Row], found: Sequence[_Sighting | None]) -> tuple[Place, ...]:
    """The places of all frames: the target's runs made steady, and the reasons for the rest."""
    reasons = _reasons(rows, found)
    places = [Place(row.time, None, reason=why) for row, why in zip(rows, reasons, strict=True)]
    run = -1
    for first, last in _shots(rows, found):
        faces = [face for face in found[first:last] if face is not None]
        times = np.array([row.time for row in rows[first:last]])
        points = steady(np.stack([face.points for face in faces]), times)
        # Measured frame by frame, either would come and go at its limit.
        yaw = np.abs(steady_scalar(np.array([face.yaw for face in faces]), times))
        covered = steady_scalar(np.array([face.covered for face in faces]), times)
        before = ""
        run += 1
        for i in range(first, last):
            k = i - first
            # What is left alone comes back only when it is well within the limit.
            reason = (
                PROFILE
                if yaw[k] > MAX_YAW - 5 * (before == PROFILE)
                else COVERED
                if covered[k] > MAX_COVERED - 0.1 * (before == COVERED)
                else ""
            )
            run += bool(before) and not reason
            before = reason
            places[i] = (
                Place(rows[i].time, None, reason=reason)
                if reason
                else Place(rows[i].time, points[k], run)
            )
    return tuple(places)


def _shots(rows: Sequence[_Row], found: Sequence[_Sighting | None]) -> list[tuple[int, int]]:
    """First and last index, exclusive, of the unbroken runs of frames that show the target."""
    shots: list[tuple[int, int]] = []
    for i, face in enumerate(found):
        if face is None:
            continue
        goes_on = i > 0 and found[i - 1] is not None and not rows[i].cut
        if goes_on:
            shots[-1] = shots[-1][0], i + 1
        else:
            shots.append((i, i + 1))
    return shots


def _reasons(rows: Sequence[_Row], found: Sequence[_Sighting | None]) -> list[str]:
    """Why each frame does not show the target; "" where it does."""
    reasons: list[str] = []
    for missing, group in groupby(range(len(rows)), key=lambda i: found[i] is None):
        indices = list(group)
        before, after = indices[0] - 1, indices[-1] + 1
        lost = (
            missing
            and before >= 0
            and after < len(rows)
            and rows[after].time - rows[before].time <= _LOST
            and not any(rows[i].cut for i in (*indices, after))
        )
        for i in indices:
            other = ANOTHER if rows[i].faces else NO_FACE
            reasons.append("" if not missing else LOST if lost else other)
    return reasons


def _vector_of(photo: Pixels, stage: Stage, embedder: Embedder, device: torch.device) -> Floats:
    """The vector of the face on a reference photo."""
    (faces,) = stage.look([photo])
    if not faces:
        raise FacekitError("the reference photo shows no face: give one that is well lit and large")
    if len(faces) > 1 and faces[0].size < _SURER * faces[1].size:
        raise FacekitError(
            f"the reference photo shows {len(faces)} faces: cut it so that it shows the one person"
        )
    vector: Floats = _vectors(photo, faces[:1], embedder, device)[0]
    return vector


def _vectors(
    pixels: Pixels, faces: Sequence[Face], embedder: Embedder, device: torch.device
) -> Floats:
    crops = align_faces(
        pixels, faces, template=embedder.template, size=embedder.size, device=device
    )
    return embedder.embed(np.stack([crop.pixels for crop in crops]))
