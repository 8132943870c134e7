"""Studio people who move before one camera, with the exact flow between their pictures.

A group is one person in one scene: light, background and camera stay, head, face and eyes move. It
is what a generator of talking heads learns from, and of other data sets a video is the nearest to.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from facekit.core import checkpoint
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.core.seed import rng
from facekit.core.workers import in_order
from facekit.studio.performance import Performance, performance_seed
from facekit.studio.person import Person, person_seed
from facekit.studio.pool import check_size, start_worker
from facekit.studio.render import render
from facekit.studio.truth import flow

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


def moments_of(seed: int, group: int, count: int) -> list[Performance]:
    """The performances of a group: photo-like moments, all before the first one's camera."""
    drawn = [Performance.sample(performance_seed(seed, group, k)) for k in range(count)]
    first = drawn[0]
    stays = {name: getattr(first, name) for name in _SCENE}
    random = rng(seed, group, 3)
    moments = []
    for k, moment in enumerate(drawn):
        # As much turned to the camera as they were to their own.
        turned = {
            "yaw": moment.yaw + moment.camera_yaw - first.camera_yaw,
            "pitch": moment.pitch + moment.camera_pitch - first.camera_pitch,
        }
        shift = random.normal(0, 0.02, 2)
        placed = {
            "centre_x": float(np.clip(first.centre_x + shift[0], 0, 1)),
            "centre_y": float(np.clip(first.centre_y + shift[1], 0, 1)),
        }
        limits = {"yaw": 90.0, "pitch": 60.0}
        held = {name: float(np.clip(v, -limits[name], limits[name])) for name, v in turned.items()}
        moments.append(moment.model_copy(update={**stays, **placed, **held, "time": float(k)}))
    return moments


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
