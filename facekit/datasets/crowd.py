"""How many people a photo or a video shows, so that nobody in it is overlooked."""

from dataclasses import dataclass
from pathlib import Path

import torch

from facekit.faces.stage import Stage
from facekit.media.decode import Video, probe
from facekit.media.images import read_image
from facekit.types import Face

MIN_FACE = 40
"""Smallest face that counts, in pixels: the longer side of its box."""

_MAX_SIDE = 1920
_PRESENT = 0.5  # least presence, by the landmarks: a locator alone also finds knees and cushions
_FRAMES = 3  # in which a person of a video is seen at least


@dataclass(frozen=True)
class Sight:
    """Where somebody can be seen.

    Attributes:
        x, y: the middle of the face, in pixels.
        size: the longer side of its box, in pixels.
        time: seconds, in a video; None in a photo.
    """

    x: int
    y: int
    size: int
    time: float | None = None

    def __str__(self) -> str:
        when = "" if self.time is None else f"{self.time:.1f} s: "
        return f"{when}a face of {self.size} px at ({self.x}, {self.y})"


def open_stage(device: torch.device) -> Stage:
    """A face stage that looks for smaller faces than those that are worked on.

    In pictures with a longer side than 1920 pixels only faces of at least 20 in 1920 are found.
    """
    return Stage(device, min_face=MIN_FACE, max_side=_MAX_SIDE)


def people_in(path: Path, stage: Stage) -> list[Sight]:
    """Everyone whom a file shows, once, largest or first seen first.

    Two tracks of a video are one person's if their faces are alike, as
    :class:`facekit.faces.stage.Stage` says. A face that few see, turned away, covered, or smaller
    than :data:`MIN_FACE`, is overlooked; and now and then a thing is taken for a face.

    Args:
        path: of a picture or a video.
        stage: see :func:`open_stage`.

    Raises:
        FacekitError: if the file is missing or damaged.
    """
    if probe(path).kind == "image":
        return [_sight(face) for face in stage.look([read_image(path)])[0] if _is_sure(face)]
    first: dict[int, Sight] = {}
    seen: dict[int, int] = {}
    frames = 0
    with Video(path) as video:
        for moment in stage.follow(video):
            frames += 1
            for face, id in zip(moment.faces, moment.ids, strict=True):
                if _is_sure(face):
                    first.setdefault(id, _sight(face, moment.frame.time))
                    seen[id] = seen.get(id, 0) + 1
    enough = min(_FRAMES, frames)
    people: dict[int | None, Sight] = {}
    for track in stage.tracks:
        if seen.get(track.id, 0) >= enough:
            people.setdefault(track.person, first[track.id])
    return list(people.values())


def _is_sure(face: Face) -> bool:
    return face.landmarks is not None and face.landmarks.presence >= _PRESENT


def _sight(face: Face, time: float | None = None) -> Sight:
    x, y = (face.box[:2] + face.box[2:]) / 2
    return Sight(round(float(x)), round(float(y)), round(face.size), time)
