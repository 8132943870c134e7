"""The true answers of talking heads: studio people, photographed and filmed before one camera.

Everyone has photos, and gives the same performances; so what a generator should draw of anybody
whom anybody else drives is known: ``render(person, performance of the driver)``.

``configs/evaluations/head_truth.yaml`` is the protocol; ``docs/head_truth.md`` explains it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from facekit.core import checkpoint, config
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.datasets.heads import before
from facekit.datasets.swap_truth import require_names, require_studio
from facekit.media.images import read_image, size_of
from facekit.studio.certificate import STUDIO_VERSION
from facekit.studio.performance import Performance, performance_seed
from facekit.studio.person import Person, person_seed
from facekit.studio.pool import render_frames
from facekit.studio.render import Render
from facekit.types import Floats, Pixels

PROTOCOL = "evaluations/head_truth"

_MOST_YAW = 40.0  # degrees, of the photos
_FIRST_YAW = 20.0  # of the first one, which is to move
_BODY = ("cloth",)


class Protocol(config.Config):
    """What is rendered and compared.

    Attributes:
        studio: version of the studio whose people these are.
        people: how many; each drives the one before.
        photos: of each person, at most, to draw them from: the first is the one that moves.
        shots: how many of the photos a method is given, in turn; the first number is also that of
            the drivers who are another person.
        clips: performances, which all give.
        frames: of each clip.
        rate: frames a second.
        seed: of people, photos and performances.
        size: side of photos and clips, in pixels.
        compared: side in which answers are compared.
    """

    studio: int = STUDIO_VERSION
    people: int = Field(20, ge=2, le=1000)
    photos: int = Field(32, ge=1, le=64)
    shots: list[int] = Field(default=[1, 8, 32], min_length=1)
    clips: int = Field(10, ge=1, le=100)
    frames: int = Field(10, ge=2, le=1000)
    rate: float = Field(5, ge=1, le=120)
    seed: int = Field(0, ge=0)
    size: int = Field(256, ge=64, le=1024)
    compared: int = Field(128, ge=32, le=512)


@dataclass(frozen=True)
class Subject:
    """One person of the protocol, before their own camera.

    Attributes:
        photos: uint8 RGB (P, S, S, 3), with ``photo_landmarks`` float32 (P, 70, 2) in pixels.
        frames: uint8 (C, N, S, S, 3): the clips, with ``landmarks`` float32 (C, N, 70, 2).
        region: uint8 (C, N, S, S): face and hair, 255 wholly; without what they wear below.
    """

    photos: Pixels
    photo_landmarks: Floats
    frames: Pixels
    landmarks: Floats
    region: NDArray[np.uint8]


def read_protocol(name: str | Path = PROTOCOL) -> Protocol:
    """Read a protocol.

    Raises:
        FacekitError: if a key or value is wrong, or it is of another version of the studio.
    """
    path = config.find(name)
    protocol = config.validate(config.read_yaml(path), Protocol, path)
    require_studio(path, protocol.studio)
    if max(protocol.shots) > protocol.photos or min(protocol.shots) < 1:
        raise FacekitError(f"{path}: shots {protocol.shots}: allowed are 1 to {protocol.photos}")
    return protocol


def render_subject(
    protocol: Protocol, number: int, *, kept: Path | None = None, workers: int = 1
) -> Subject:
    """Photos and clips of one person.

    Args:
        protocol: how many, how large.
        number: who, from 0.
        kept: a folder where people are kept, 30 MB each, and looked for.
        workers: processes to render with.

    Raises:
        FacekitError: if ``kept`` cannot be used.
    """
    keys = ("studio", "photos", "clips", "frames", "rate", "seed", "size")
    wanted = str({key: getattr(protocol, key) for key in keys} | {"number": number})
    # A quick look's must not take the place of the whole.
    name = f"head-{number:03d}-{protocol.clips}x{protocol.frames}.safetensors"
    path = None if kept is None else kept / name
    if path is not None and path.is_file() and checkpoint.notes(path).get("head") == wanted:
        state = checkpoint.load(path)
        return Subject(**{field.name: state[field.name].numpy() for field in fields(Subject)})
    subject = _rendered(protocol, number, workers)
    if path is not None:
        state = {name: torch.from_numpy(value) for name, value in vars(subject).items()}
        checkpoint.save(path, state, {"head": wanted})
    return subject


def clip_folder(person: int, clip: int, task: str) -> str:
    """Where somebody's frames of a clip lie: ``person-00/t1/clip-00`` and so on.

    Args:
        person: who is shown.
        clip: its number.
        task: "t1", "t8", …: driven by the person's own clip, with so many photos; or "cross":
            driven by the next person's.
    """
    return f"person-{person:02d}/{task}/clip-{clip:02d}"


def tasks(protocol: Protocol) -> list[str]:
    """The names of what a method is asked for, see :func:`clip_folder`."""
    return [*(f"t{shots}" for shots in protocol.shots), "cross"]


def require_frames(folder: Path, protocol: Protocol) -> None:
    """See that a folder of answers has each frame of the protocol, square, and no other.

    Raises:
        FacekitError: which names the first that is missing, too many, or of a wrong size.
    """
    if not folder.is_dir():
        raise FacekitError(f"{folder}: not a folder; give --frames the folder of drawn frames")
    wanted = [
        f"{clip_folder(person, clip, task)}/{frame:05d}.png"
        for person in range(protocol.people)
        for task in tasks(protocol)
        for clip in range(protocol.clips)
        for frame in range(protocol.frames)
    ]
    require_names(folder, wanted)
    for name in wanted:
        _require_size(folder / name, size_of(folder / name), protocol)


def read_frames(
    folder: Path, protocol: Protocol, person: int, clip: int, task: str
) -> list[Pixels]:
    """Somebody's frames of one clip, uint8 RGB (H, H, 3) each.

    Raises:
        FacekitError: for a picture that cannot be read, is not square, or is smaller than what is
            compared.
    """
    pictures = []
    for frame in range(protocol.frames):
        path = folder / clip_folder(person, clip, task) / f"{frame:05d}.png"
        pixels = read_image(path)
        _require_size(path, (pixels.shape[1], pixels.shape[0]), protocol)
        pictures.append(pixels)
    return pictures


def _require_size(path: Path, size: tuple[int, int], protocol: Protocol) -> None:
    width, height = size
    if height != width or height < protocol.compared:
        raise FacekitError(
            f"{path}: {width} × {height} pixels; frames are square, {protocol.compared} pixels "
            "or more, and show what the first photo's camera sees"
        )


def _rendered(protocol: Protocol, number: int, workers: int) -> Subject:
    person = Person.sample(person_seed(protocol.seed, number))
    photos = _photos(protocol, number)
    first = photos[0]
    place = {"centre_x": first.centre_x, "centre_y": first.centre_y}
    clips = [
        before(first, moment).model_copy(update=place)
        for clip in range(protocol.clips)
        for moment in Performance.clip(
            protocol.frames / protocol.rate,
            protocol.rate,
            performance_seed(protocol.seed + 1, 0, clip),
        )
    ]
    shots = [(person, moment) for moment in (*photos, *clips)]
    renders: list[Render] = []
    with progress(f"rendering person {number + 1}", len(shots)) as advance:
        made = render_frames(shots, protocol.size, min(workers, len(shots)), want=("masks",))
        for render in made:
            renders.append(render)
            advance(len(renders), "")
    of_photos, of_clips = renders[: len(photos)], renders[len(photos) :]
    shape = (protocol.clips, protocol.frames)
    frames = np.stack([render.pixels for render in of_clips])
    landmarks = _landmarks(of_clips)
    region = np.stack([_region(render) for render in of_clips])
    return Subject(
        photos=np.stack([render.pixels for render in of_photos]),
        photo_landmarks=_landmarks(of_photos),
        frames=frames.reshape(*shape, *frames.shape[1:]),
        landmarks=landmarks.reshape(*shape, *landmarks.shape[1:]),
        region=region.reshape(*shape, *region.shape[1:]),
    )


def _photos(protocol: Protocol, number: int) -> list[Performance]:
    """Moments before the first one's camera, none in profile, the first looking ahead."""
    drawn = (Performance.sample(performance_seed(protocol.seed, number, k)) for k in count())
    first = next(moment for moment in drawn if abs(moment.pose[0]) < _FIRST_YAW)
    others = (before(first, moment) for moment in drawn)
    ahead = (moment for moment in others if abs(moment.pose[0]) < _MOST_YAW)
    return [first, *islice(ahead, protocol.photos - 1)]


def _landmarks(renders: Sequence[Render]) -> Floats:
    return np.stack([render.landmarks for render in renders]).astype(np.float32)


def _region(render: Render) -> NDArray[np.uint8]:
    parts: list[Any] = [mask for name, mask in render.masks.items() if name not in _BODY]
    found: NDArray[np.uint8] = np.maximum.reduce(parts)
    return found
