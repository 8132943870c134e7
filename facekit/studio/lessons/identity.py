"""Identity: one vector for a person, whatever they do, for :mod:`facekit.faces.embedders.compact`.

The network learns to tell many people apart: studio people and, where a folder of photos is given,
real ones, in equal parts. The loss is the large-margin cosine loss (Wang et al., "CosFace", 2018,
arXiv:1801.09414): a face must be nearer to its own person's direction than to any other's, and by a
margin; so the directions serve people who were not learned.

The weights are averaged over the last steps (exponentially, as Polyak and Juditsky's), and all is
chosen by people, of both kinds, who are only looked at: the config's ``held_out``.
"""

import logging
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.core.run import Run
from facekit.core.seed import Purpose, rng, seed_step
from facekit.faces.align import crop_from_image, warp
from facekit.faces.embed import in_batches
from facekit.faces.embedders.compact import SIZE, TEMPLATE, WIDTH, CompactNet, both_ways
from facekit.faces.locate import load_locator
from facekit.faces.verification import Pairs
from facekit.media.find import find_media
from facekit.media.images import read_image
from facekit.studio.teach import Lesson, Studio
from facekit.types import Floats, Pixels

log = logging.getLogger("facekit")

LICENCE = "Apache-2.0"
LICENCE_WITH_DATA = "research use only"

_CORE, _MARGIN = 112, 24  # what is kept of a picture: the crop, larger, with room to move in
_KEPT = _CORE + 2 * _MARGIN
_AT_ONCE = 32


class Config(Lesson):
    """Settings of the lesson.

    Attributes:
        held_out_folders: how many of the folder's people are only looked at.
        steps: optimiser steps.
        batch: pictures a step, half of them from the folder if there is one.
        learning_rate: its peak; it rises for ``warm_up`` steps, stays, and falls to 0 at the end.
        warm_up: steps; the margin grows over four times as many.
        cool_down: share of the steps over which the learning rate falls.
        weight_decay: of AdamW.
        scale: of the cosines, before they are made probabilities.
        margin: by which the cosine to one's own direction is lowered.
        averaging: the share that the averaged weights keep a step.
        checkpoint_every: steps between checkpoints, and between looks at the people held out.
    """

    held_out_folders: int = Field(20, ge=2)
    steps: int = Field(ge=1)
    batch: int = Field(128, ge=4)
    learning_rate: float = Field(2e-3, gt=0)
    warm_up: int = Field(100, ge=0)
    cool_down: float = Field(0.35, ge=0, le=1)
    weight_decay: float = Field(0.05, ge=0)
    scale: float = Field(30.0, gt=0)
    margin: float = Field(0.3, ge=0, lt=1)
    averaging: float = Field(0.995, ge=0, lt=1)
    checkpoint_every: int = Field(200, ge=1)


def teach(config: Config, run: Run, fabric: Fabric, studio: Studio, data: Path | None) -> None:
    """Train; see :mod:`facekit.studio.teach`.

    Args:
        config: see :class:`Config`.
        run: where to resume from, and to keep crops, checkpoints and metrics.
        fabric: where and how precisely to compute.
        studio: whole pictures of studio people.
        data: a folder of folders of photos, one a person; or None.

    Raises:
        FacekitError: if the folder is not such a one, or the loss is no longer finite.
    """
    seed = int(run.facts["seed"])
    pictures, whose = _pictures(config, run, fabric.device, studio, data)
    learned, held_out = _split(config, whose)
    # Of each kind of people: for each person the rows of their pictures.
    rows = [[np.flatnonzero(whose == person) for person in people] for people in learned if people]
    share = config.batch // len(rows)
    firsts = np.cumsum([0, *map(len, rows)])

    seed_step(seed, 0)
    net = CompactNet().to(fabric.device)
    # Of length 1: Adam's steps, which do not grow with the gradient, would hardly turn longer ones.
    directions = F.normalize(torch.randn(int(firsts[-1]), WIDTH), dim=1).to(fabric.device)
    directions.requires_grad_()
    optimizer = torch.optim.AdamW(
        [*net.parameters(), directions], weight_decay=config.weight_decay, fused=True
    )
    averaged = {name: value.clone() for name, value in net.state_dict().items()}
    first = 0
    if state := run.resume():
        first = run.restore(state, net=net, optimizer=optimizer)
        directions.data.copy_(state["directions"])
        averaged = {name: value.to(fabric.device) for name, value in state["averaged"].items()}

    began = time.perf_counter()
    with progress("teaching identity", config.steps) as advance:
        for step in range(first, config.steps):
            random = rng(seed, step, Purpose.BATCHES)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _schedule(step, config)

            # A batch: people at random, as many of each kind, and of each any of their pictures.
            person = np.concatenate([random.integers(len(kind), size=share) for kind in rows])
            kind = np.repeat(np.arange(len(rows)), share)
            chosen = [random.choice(rows[k][p]) for k, p in zip(kind, person, strict=True)]
            batch = np.stack([augment(pictures[row], random) for row in chosen])
            images = torch.from_numpy(batch).to(fabric.device).permute(0, 3, 1, 2).float()
            own = torch.from_numpy(firsts[kind] + person).to(fabric.device)

            with fabric.autocast():
                vectors = net(images / 127.5 - 1)
            # CosFace, equation 4.
            cosines = F.normalize(vectors.float(), dim=1) @ F.normalize(directions, dim=1).T
            margin = config.margin * min(1.0, (step + 1) / max(1, 4 * config.warm_up))
            logits = config.scale * (cosines - margin * F.one_hot(own, len(directions)))
            loss = F.cross_entropy(logits, own)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            with torch.no_grad():
                keep = min(config.averaging, (step + 1) / (step + 10))
                for name, value in net.state_dict().items():
                    if value.is_floating_point():
                        averaged[name].lerp_(value, 1 - keep)

            done = step + 1
            saves = done % config.checkpoint_every == 0 or done == config.steps
            if done % 20 == 0 or saves:
                if not math.isfinite(loss.item()):
                    raise FacekitError(
                        f"{run.folder}: the loss is not finite at step {done}; try a lower "
                        "learning_rate"
                    )
                right = (cosines.argmax(1) == own).float()
                values = {"loss": loss.item(), "learned_right": right.mean().item()}
                values["images_per_second"] = (
                    (done - first) * len(batch) / (time.perf_counter() - began)
                )
                if saves:
                    values |= _auc(averaged, pictures, whose, held_out, fabric.device)
                run.log(done, **values)
                advance(done, ", ".join(f"{name} {value:.3f}" for name, value in values.items()))
                log.debug("step %d: %s", done, values)
            if saves:
                state = {"net": net.state_dict(), "directions": directions, "averaged": averaged}
                run.save(done, state | {"optimizer": optimizer.state_dict()})
    last = run.metrics()[-1]
    run.note(figures={name: last[name] for name in last if name.startswith(("step", "auc"))})


def weights(run: Run) -> dict[str, Tensor]:
    """The averaged weights.

    Raises:
        FacekitError: if the run has no checkpoint yet.
    """
    averaged: dict[str, Tensor] = run.trained()["averaged"]
    return averaged


def augment(picture: Pixels, random: np.random.Generator) -> Pixels:
    """A crop as another camera, light or file might have made it; who is shown stays the same.

    Args:
        picture: uint8 (160, 160, 3), as :func:`_kept` makes it.
        random: all chance comes from it.

    Returns:
        uint8 (96, 96, 3).
    """
    # Aligned a little differently; mirrored every other time.
    turn = np.deg2rad(random.normal(0, 3))
    scale = SIZE / _CORE * np.exp(random.normal(0, 0.04))
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear[:, 0] *= random.choice([-1, 1])
    middle = SIZE * (0.5 + random.normal(0, 0.015, 2))
    # Both pictures' middles, where OpenCV counts from the centre of the first pixel.
    shift = middle - 0.5 - linear @ np.full(2, _KEPT / 2 - 0.5)
    crop: NDArray[Any] = cv2.warpAffine(
        picture, np.column_stack([linear, shift]), (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE
    )

    # Light and colour: each channel's strength, saturation down to grey, contrast, brightness.
    saturation = 0.0 if random.random() < 0.15 else random.uniform(0.4, 1.3)
    grey = np.array([0.299, 0.587, 0.114])
    mixed = saturation * np.eye(3) + (1 - saturation) * grey
    gains = np.exp(random.normal(0, 0.2) + random.normal(0, 0.08, 3))
    colours = gains[:, None] * mixed
    offset = random.normal(0, 12) + 110 * (1 - gains)
    crop = cv2.transform(crop, np.column_stack([colours, offset]))
    gamma = np.exp(random.normal(0, 0.2))
    crop = cv2.LUT(crop, np.round(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8))

    # What small pictures and strong compression lose; and what a hand or hair may cover.
    if random.random() < 0.35:
        side = int(random.integers(28, SIZE))
        small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
        crop = cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    if random.random() < 0.35:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(25, 95))]
        crop = np.asarray(cv2.imdecode(cv2.imencode(".jpg", crop, quality)[1], cv2.IMREAD_COLOR))
    if random.random() < 0.4:
        width, height = random.integers(SIZE // 8, SIZE // 2, 2)
        x, y = random.integers(-width // 2, SIZE - width // 2), random.integers(0, SIZE)
        crop[max(0, y - height // 2) : y + height // 2, max(0, x) : x + width] = random.integers(
            0, 256, 3
        )
    return np.asarray(crop, np.uint8)


def _pictures(
    config: Config, run: Run, device: torch.device, studio: Studio, data: Path | None
) -> tuple[Pixels, NDArray[np.int64]]:
    """All pictures (N, 160, 160, 3) and whose they are (N,), kept in the run folder.

    Studio people are 0 … people - 1; the folder's come after them.
    """
    kept, owners = run.folder / "pictures.npy", run.folder / "people.npy"
    if not owners.exists():
        pictures = [_studio_pictures(studio, config.people * config.frames)]
        whose = [np.repeat(np.arange(config.people), config.frames)]
        if data is not None:
            photos, people = _photos(data, device)
            pictures.append(photos)
            whose.append(config.people + people)
        for path, values in ((kept, np.concatenate(pictures)), (owners, np.concatenate(whose))):
            with files.replacing(path) as partial:
                np.save(partial, values)
    return np.load(kept, mmap_mode="r"), np.load(owners)


def _studio_pictures(studio: Studio, count: int) -> Pixels:
    found = np.empty((count, _KEPT, _KEPT, 3), np.uint8)
    with progress("cropping studio people", count) as advance:
        for i in range(count):
            item = studio[i]
            found[i] = _kept(item["image"], item["points"].numpy())
            advance(i + 1, "")
    return found


def _photos(data: Path, device: torch.device) -> tuple[Pixels, NDArray[np.int64]]:
    """The most central face of each photo in a folder of folders, and its person from 0.

    Raises:
        FacekitError: if there are fewer than two folders with photos that show a face.
    """
    folders = sorted(path for path in data.iterdir() if path.is_dir())
    paths = [(i, path) for i, folder in enumerate(folders) for path in find_media([folder])]
    locator = load_locator(device)
    found: list[Pixels] = []
    whose: list[int] = []
    with progress(f"locating faces in {data.name}", len(paths)) as advance:
        for start in range(0, len(paths), _AT_ONCE):
            part = paths[start : start + _AT_ONCE]
            images = [read_image(path) for _, path in part]
            located = locator.locate(images)
            for (person, path), image, faces in zip(part, images, located, strict=True):
                if not faces:
                    log.debug("%s: no face; left out", path)
                    continue
                middle = np.array(image.shape[1::-1]) / 2
                face = min(faces, key=lambda face: float(np.abs(face.points[2] - middle).sum()))
                planes = torch.from_numpy(image).permute(2, 0, 1).float() / 127.5 - 1
                found.append(_kept(planes, face.points))
                whose.append(person)
            advance(start + len(part), "")
    if len(set(whose)) < 2:
        raise FacekitError(
            f"--data {data}: shows fewer than two people; give a folder that holds a folder of "
            "photos for each person"
        )
    log.info("%s: faces in %d of %d photos", data.name, len(found), len(paths))
    # A person without any face must not leave a gap in the numbers.
    return np.stack(found), np.unique(whose, return_inverse=True)[1].astype(np.int64)


def _kept(image: Tensor, points: NDArray[np.floating]) -> Pixels:
    """What is kept of an image (3, H, W) in [-1, 1]: uint8 (160, 160, 3), crop and margin."""
    matrix = crop_from_image(points, TEMPLATE, _CORE)[None]
    matrix[..., 2] += _MARGIN
    crop = warp(image[None], matrix, _KEPT)[0]
    pixels = ((crop + 1) * 127.5).round().clamp(0, 255).byte()
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())


def _split(config: Config, whose: NDArray[np.int64]) -> tuple[list[list[int]], list[list[int]]]:
    """People to learn from, and people to look at only: each studio people, then the folder's.

    Raises:
        FacekitError: if the folder has too few people to hold some out.
    """
    studio = list(range(config.people))
    others = sorted({int(person) for person in whose} - set(studio))
    if others and len(others) <= config.held_out_folders:
        raise FacekitError(
            f"held_out_folders is {config.held_out_folders} of {len(others)} people in the folder; "
            "at least one must be left to learn from"
        )
    shuffled = rng(config.data_seed, Purpose.SPLIT).permutation(others).tolist()
    apart = config.people - config.held_out
    return (
        [studio[:apart], shuffled[config.held_out_folders :]],
        [studio[apart:], shuffled[: config.held_out_folders]],
    )


def _auc(
    averaged: dict[str, Tensor],
    pictures: Pixels,
    whose: NDArray[np.int64],
    held_out: list[list[int]],
    device: torch.device,
) -> dict[str, float]:
    """The averaged network's AUC of verification among people that it did not learn from."""
    net = CompactNet().to(device)
    net.load_state_dict(averaged)
    net.eval()
    found = {}
    for name, people in zip(("auc_studio", "auc_photos"), held_out, strict=True):
        rows = np.flatnonzero(np.isin(whose, people))
        if not len(rows):
            continue
        crops = np.stack([_plain(pictures[row]) for row in rows])
        vectors: Floats = in_batches(partial(both_ways, net), crops, SIZE, device, WIDTH)
        pairs = Pairs.of(vectors, whose[rows])
        if pairs is not None:
            ones = np.ones(int(whose.max()) + 1, np.int64)
            found[name] = float(pairs.figures(ones)[0])
    return found


def _plain(picture: Pixels) -> Pixels:
    core = picture[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return np.asarray(cv2.resize(core, (SIZE, SIZE), interpolation=cv2.INTER_AREA), np.uint8)


def _schedule(step: int, config: Config) -> float:
    """Share of the peak learning rate at a step.

    It is level until it falls (Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond
    Fixed Training Durations", 2024, arXiv:2405.18392).
    """
    rise = (step + 1) / max(1, config.warm_up)
    fall = (config.steps - step) / max(1, round(config.cool_down * config.steps))
    return min(1.0, rise, fall)
