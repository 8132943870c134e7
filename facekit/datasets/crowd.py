"""How many people a photo or a video shows, so that nobody in it is overlooked."""

from dataclasses import dataclass
from pathlib import Path

import torch

from facekit.faces.landmarks import Landmarker
from facekit.faces.locate import load_locator, locate_turned
from facekit.faces.stage import Stage
from facekit.media.decode import Video, probe
from facekit.media.images import read_image
from facekit.types import Face

MIN_FACE = 40
"""Smallest face that counts, in pixels: the longer side of its box."""

_MAX_SIDE = 1920
# A face is one that the landmarks see as well, since a locator alone also finds knees and cushions;
# or one of which the locator is as sure as it has been of faces only, half cut off by the border.
_CERTAIN = 0.9995
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


class Crowd:
    """Looks for everyone in files.

    In pictures with a longer side than 1920 pixels only faces of at least 20 in 1920 are found.
    """

    def __init__(self, device: torch.device) -> None:
        """Load the networks; that of identity only when a video is looked at."""
        self._device = device
        self._locator = load_locator(device, min_face=MIN_FACE, max_side=_MAX_SIDE)
        self._landmarker = Landmarker(device)

    def people_in(self, path: Path) -> list[Sight]:
        """Everyone whom a file shows, once: largest or, in a video, first seen first.

        Two tracks of a video are one person's if their faces are alike, as
        :class:`facekit.faces.stage.Stage` says. A face of which little can be seen, turned away,
        covered, or smaller than :data:`MIN_FACE`, is overlooked; and now and then a thing is taken
        for a face.

        Args:
            path: of a picture or a video.

        Raises:
            FacekitError: if the file is missing or damaged.
        """
        return self._in_picture(path) if probe(path).kind == "image" else self._in_video(path)

    def _in_picture(self, path: Path) -> list[Sight]:
        pictures = [read_image(path)]
        located = locate_turned(self._locator, pictures)
        (faces,) = self._landmarker.read(pictures, located, mirrored=True)
        return [_sight(face) for face in faces if _is_sure(face)]

    def _in_video(self, path: Path) -> list[Sight]:
        stage = Stage(self._device, locator=self._locator, landmarker=self._landmarker)
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
        people: dict[int | None, Sight] = {}
        for track in stage.tracks:
            if seen.get(track.id, 0) >= min(_FRAMES, frames):
                people.setdefault(track.person, first[track.id])
        return list(people.values())


def _is_sure(face: Face) -> bool:
    present = face.landmarks is not None and face.landmarks.present
    return present or face.score >= _CERTAIN


def _sight(face: Face, time: float | None = None) -> Sight:
    x, y = (face.box[:2] + face.box[2:]) / 2
    return Sight(round(float(x)), round(float(y)), round(face.size), time)
