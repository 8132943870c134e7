"""People who move before one camera: what a generator of talking heads learns from.

A group is one person in one scene: light, background and camera stay, head, face and eyes move.
The studio renders groups with the exact flow between their pictures; in a folder of people
(VoxCeleb2's, or one's own) the frames of a clip are a group, and nobody knows the flow.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facekit.core import checkpoint
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.core.seed import rng
from facekit.core.workers import in_order
from facekit.datasets.crops import is_video, read_frames, read_item
from facekit.faces.align import Matrices, apply, draw_crop, invert
from facekit.faces.stage import Stage
from facekit.studio.fit import DISTANCE, fit
from facekit.studio.performance import Performance, performance_seed
from facekit.studio.person import Person, person_seed
from facekit.studio.pool import check_size, start_worker
from facekit.studio.render import render
from facekit.studio.scene import HEAD_HEIGHT
from facekit.studio.truth import flow
from facekit.types import Item, Pixels

log = logging.getLogger("facekit")

T = TypeVar("T")

_SHARE = 0.66  # of a picture's side that a head is high, as in most of the studio's
_MIDDLE = np.array([0.5, 0.49])  # of a picture, where the middle between the eyes is
_SCENE = (
    *("distance", "focal", "lamps", "environment", "background", "background_colour"),
    *("camera_yaw", "camera_pitch", "blur", "noise"),
)
"""Fields of a performance that stay through a group."""


class Heads(NamedTuple):
    """Groups of pictures of side S and what is known of them.

    Attributes:
        images: uint8 (G, K, 3, S, S), RGB: K pictures of each of G people.
        landmarks: float32 (G, K, 70, 2), in pixels.
        person: uint8 (G, K, S, S): 255 where there is a person, hair and shoulders included.
        places: float16 (G, K, S / 2, S / 2, 2): where what is seen in a block of 2 × 2 pixels of
            picture k lies in picture k + 1 (of the last one, in the first), (x, y) as shares of
            the side.
        seen: uint8 (G, K, S / 2, S / 2): 1 where it is seen in both.
    """

    images: Tensor
    landmarks: Tensor
    person: Tensor
    places: Tensor
    seen: Tensor


def render_heads(
    path: Path, *, people: int, moments: int, size: int, seed: int, workers: int = 1
) -> None:
    """Render groups into a file.

    Args:
        path: of the file, .safetensors.
        people: how many, each in a scene of their own.
        moments: pictures of each, 2 or more.
        size: side of the pictures in pixels, even.
        seed: of people and performances.
        workers: processes.

    Raises:
        FacekitError: for a number out of range.
    """
    check_size(size)
    if size % 2 or moments < 2 or people < 1:
        raise FacekitError(
            f"{people} people, {moments} moments, {size} pixels; allowed are 1 person, 2 moments "
            "and more, and an even size"
        )
    jobs = [(i, moments, size, seed) for i in range(people)]
    groups: list[dict[str, Tensor]] = []
    with progress("rendering heads", people) as advance:
        for group in in_order(_group, jobs, workers, start=start_worker):
            groups.append(group)
            advance(len(groups), "")
    checkpoint.save(path, {k: torch.stack([group[k] for group in groups]) for k in Heads._fields})


def read_heads(path: Path) -> Heads:
    """The groups of a file.

    Raises:
        FacekitError: if it is missing, damaged, or none of :func:`render_heads`.
    """
    state = checkpoint.load(path)
    try:
        heads = Heads(*(state[name] for name in Heads._fields))
        groups, moments, _, size, _ = heads.images.shape
        shapes = {tuple(value.shape[:2]) for value in heads}
        fits = shapes == {(groups, moments)} and heads.places.shape[2] == size // 2
    except (KeyError, TypeError, ValueError, AttributeError):
        fits = False
    if not fits:
        raise FacekitError(f"{path}: no file of studio heads; remove it, and it is rendered again")
    return heads


def load_heads(
    folder: Path,
    items: Sequence[Item],
    *,
    moments: int,
    most: int,
    size: int,
    device: torch.device,
) -> Heads:
    """Read the heads of a folder's clips.

    A clip's pictures are cut alike, by where the head is in most of them, so that what is behind
    it stays where it is. ``places`` are NaN, ``seen`` is 0, and ``person`` is all 255.

    Args:
        folder: of people.
        items: its videos and pictures that may be used. A video is a clip; pictures of one subject
            and one ``source`` are of one clip, or, where no source is given, those of one folder.
        moments: pictures of each clip, taken evenly; shorter clips are left out.
        most: clips, taken evenly.
        size: side S of the pictures, in pixels, even.
        device: where to locate and read faces.

    Raises:
        FacekitError: if no clip shows a face in so many pictures, or a picture cannot be read.
    """
    clips: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        source = item.source or Path(item.path).parent.as_posix()
        name = item.path if is_video(item) else source
        clips.setdefault((item.subject, name), []).append(item)
    several = [clip for clip in clips.values() if len(clip) > 1 or is_video(clip[0])]
    stage = Stage(device)
    groups = []
    with progress("reading heads", min(most, len(several))) as advance:
        for done, clip in enumerate(_evenly(several, most), start=1):
            if is_video(clip[0]):
                pictures = list(read_frames(folder, clip[0], moments))
            else:
                pictures = [read_item(folder, item) for item in _evenly(clip, moments)]
            if (group := _cut_alike(pictures, size, stage)) is not None:
                groups.append(group)
            advance(done, "")
    whole = [group for group in groups if len(group[0]) == moments]
    if not whole:
        most_seen = max((len(group[0]) for group in groups), default=0)
        raise FacekitError(
            f"{folder}: no clip shows one face in {moments} of its pictures ({len(clips)} clips of "
            f"{len(items)} files, at best {most_seen} pictures); a talking head is learned from "
            "videos, or from their frames, each video's in a folder of its own; shorter ones need "
            "--set moments to fewer"
        )
    log.info("%s: %d clips of %d are learned from", folder, len(whole), len(clips))
    images, landmarks = (torch.stack([group[k] for group in whole]) for k in range(2))
    half = (*images.shape[:2], size // 2, size // 2)
    return Heads(
        images,
        landmarks,
        torch.full((*images.shape[:2], size, size), 255, dtype=torch.uint8),
        torch.full((*half, 2), torch.nan, dtype=torch.float16),
        torch.zeros(half, dtype=torch.uint8),
    )


def _cut_alike(pictures: Sequence[Pixels], size: int, stage: Stage) -> tuple[Tensor, Tensor] | None:
    """Images uint8 (K, 3, S, S) and landmarks (K, 70, 2) of a clip; None if it shows no two.

    Pictures of another size, and those of two people as large as each other, don't count.
    """
    shown = [
        (picture, faces[0].landmarks.points)
        for picture, faces in zip(pictures, stage.look(pictures), strict=True)
        if faces and faces[0].landmarks and picture.shape == pictures[0].shape
        if len(faces) == 1 or faces[0].size > 1.5 * faces[1].size
    ]
    if len(shown) < 2:
        return None
    points = np.stack([landmarks for _, landmarks in shown])
    matrix = head_from_image(points, max(pictures[0].shape[:2]), size)
    crops = np.empty((len(shown), size, size, 3), np.uint8)
    for crop, (picture, _) in zip(crops, shown, strict=True):
        draw_crop(crop, picture, invert(matrix))
    found = apply(matrix, points).astype(np.float32)
    images = np.ascontiguousarray(crops.transpose(0, 3, 1, 2))
    return torch.from_numpy(images), torch.from_numpy(found)


def head_from_image(landmarks: NDArray[np.floating], side: int, size: int) -> Matrices:
    """The matrix (2, 3) that cuts out a head, as large as the studio's pictures show it.

    It turns nothing: a tilted head stays tilted.

    Args:
        landmarks: (N, 70, 2), of one person in a picture, or in some of one camera.
        side: of these pictures, the longer one, in pixels.
        size: S, the side of the cut.
    """
    views = fit(landmarks.astype(np.float64), size=side, apart=True).views
    view = np.median(views, 0)
    decimetre = np.exp(view[5]) / DISTANCE  # in pixels
    zoom = size * _SHARE / (decimetre * HEAD_HEIGHT)
    shift = _MIDDLE * size - zoom * view[3:5]
    return np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])


def _evenly(things: Sequence[T], most: int) -> list[T]:
    """At most so many of them, from first to last."""
    places = np.linspace(0, len(things) - 1, min(most, len(things))).round().astype(int)
    return [things[i] for i in places]


def moments_of(seed: int, group: int, count: int) -> list[Performance]:
    """The performances of a group: photo-like moments, all before the first one's camera."""
    drawn = [Performance.sample(performance_seed(seed, group, k)) for k in range(count)]
    first = drawn[0]
    random = rng(seed, group, 3)
    moments = []
    for k, moment in enumerate(drawn):
        shift = random.normal(0, 0.02, 2)
        placed = {
            "centre_x": float(np.clip(first.centre_x + shift[0], 0, 1)),
            "centre_y": float(np.clip(first.centre_y + shift[1], 0, 1)),
        }
        moments.append(before(first, moment).model_copy(update={**placed, "time": float(k)}))
    return moments


def before(first: Performance, moment: Performance) -> Performance:
    """A moment before another one's camera, in its light and place.

    The head is as much turned to that camera as it was to its own.
    """
    stays = {name: getattr(first, name) for name in _SCENE}
    turned = {
        "yaw": moment.yaw + moment.camera_yaw - first.camera_yaw,
        "pitch": moment.pitch + moment.camera_pitch - first.camera_pitch,
    }
    limits = {"yaw": 90.0, "pitch": 60.0}
    held = {name: float(np.clip(v, -limits[name], limits[name])) for name, v in turned.items()}
    return moment.model_copy(update={**stays, **held})


def _group(job: tuple[int, int, int, int]) -> dict[str, Tensor]:
    number, count, size, seed = job
    torch.set_num_threads(1)
    person = Person.sample(person_seed(seed, number))
    shots = [render(person, moment, size) for moment in moments_of(seed, number, count)]
    there = [np.isfinite(shot.depth) for shot in shots]
    centres = np.stack(np.meshgrid(*[np.arange(size) + 0.5] * 2), -1)
    places, seen = [], []
    for k, shot in enumerate(shots):
        following = (k + 1) % count
        found = flow(shot, shots[following])
        both = found.visible | (~there[k] & ~there[following])
        blocks = (centres + found.vectors).reshape(size // 2, 2, size // 2, 2, 2).mean((1, 3))
        places.append((blocks / size).astype(np.float16))
        # Where the four pixels of a block disagree, their mean is nowhere.
        seen.append(both.reshape(size // 2, 2, size // 2, 2).all((1, 3)).astype(np.uint8))
    arrays = {
        "images": np.stack([shot.pixels.transpose(2, 0, 1) for shot in shots]),
        "landmarks": np.stack([shot.landmarks for shot in shots]).astype(np.float32),
        "person": np.stack([np.where(mask, 255, 0).astype(np.uint8) for mask in there]),
        "places": np.stack(places),
        "seen": np.stack(seen),
    }
    return {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in arrays.items()}
