"""Teach the networks of the face stage on people who don't exist, whose truth is exact.

A lesson is a plug-in file of :mod:`facekit.studio.lessons`; the file's name is the lesson's, and
that of the weights it makes. It offers

- ``Config``: its settings, a :class:`Lesson`;
- ``teach(config, run, fabric, studio, data)``: train on the items of ``studio``, a data set like
  :class:`facekit.datasets.studio.StudioFaces`, and on the folder ``data`` if one is given,
  resuming from the run's newest checkpoint to the same bits. Measured figures go to
  ``run.note(figures={...})``; without them the card has those of the last row of the metrics;
- ``prepare(config, run, workers)``, if it needs more than whole pictures: renders into the run
  folder what is not there yet; ``studio`` is None then;
- ``weights(run)``: the tensors to bundle, from a finished run;
- ``LICENCE``: of those weights, if the studio alone taught them;
- ``LICENCE_WITH_DATA``: of those into which a folder went; a lesson without it takes no folder.

A YAML of ``configs/lessons`` names its plug-in under ``lesson``; the other keys are Config's.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from lightning_fabric import Fabric
from pydantic import Field
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import Dataset

from facekit.core import config as configs
from facekit.core import files, registry
from facekit.core.device import precision_of
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.studio.certificate import STUDIO_VERSION
from facekit.studio.person import MOST_PEOPLE

LESSONS = "facekit.studio.lessons"

Studio = Dataset[dict[str, Tensor]]
"""Items as those of :class:`facekit.datasets.studio.StudioFaces`, whole pictures."""


class Lesson(configs.Config):
    """What every lesson's config has: the studio pictures that it is taught on.

    Attributes:
        people: how many.
        held_out: how many of them, the last ones, are only looked at and never learned from.
        frames: performances of each.
        size: side of the pictures, in pixels.
        data_seed: of people and performances.
    """

    people: int = Field(ge=2, le=MOST_PEOPLE)
    held_out: int = Field(ge=1)
    frames: int = Field(ge=1)
    size: int = Field(192, ge=64)
    data_seed: int = Field(ge=0)


def read_config(name: str | Path, overrides: Sequence[str] = ()) -> tuple[str, Lesson]:
    """Read a lesson's config.

    Args:
        name: a file, or the name of a bundled one, e.g. ``lessons/landmarks``.
        overrides: ``key=value`` texts that replace keys of the file.

    Returns:
        The lesson's name and its validated Config.

    Raises:
        FacekitError: if the file names no known lesson, or a key or a value is wrong.
    """
    path = configs.find(name)
    values = configs.apply_overrides(configs.read_yaml(path), overrides)
    lesson = values.pop("lesson", None)
    if not isinstance(lesson, str):
        raise FacekitError(f"{path}: key 'lesson' is missing; write e.g. 'lesson: landmarks'")
    config: Lesson = configs.validate(values, load(lesson).Config, path)
    if config.held_out >= config.people:
        raise FacekitError(
            f"{path}: held_out is {config.held_out} of {config.people} people; at least one must "
            "be left to learn from"
        )
    return lesson, config


def names() -> list[str]:
    """The names of all lessons, without importing them."""
    return registry.names(LESSONS)


def load(name: str) -> ModuleType:
    """Import the lesson ``name``.

    Raises:
        FacekitError: if there is none of that name.
    """
    return registry.load(LESSONS, name)


def start(
    lesson: str, config: Lesson, data: Path | None, out: Path, fabric: Fabric, *, seed: int
) -> Run:
    """Make the run folder of a lesson, or open it to go on.

    Args:
        lesson: its name.
        config: its settings.
        data: a folder that it is taught on besides the studio, or None.
        out: the run folder.
        fabric: where and how precisely it will compute, which the run records.
        seed: of all randomness in training, ≥ 0.

    Raises:
        FacekitError: if the lesson takes no folder, or ``data`` is none, or ``out`` holds a run
            made from other inputs.
    """
    import torch

    if data is not None and not hasattr(load(lesson), "LICENCE_WITH_DATA"):
        raise FacekitError(f"--data {data}: the lesson '{lesson}' is taught on the studio alone")
    if data is not None and not data.is_dir():
        raise FacekitError(f"--data {data}: no such folder; give a folder of folders of photos")
    return Run.start(
        out,
        plugin=lesson,
        config=config,
        seed=seed,
        data_hash=data_hash(config, data),
        threads=torch.get_num_threads(),
        precision=precision_of(fabric),
    )


def data_hash(config: Lesson, data: Path | None) -> str:
    """A hash of what a lesson is taught on: the studio's arguments, and all files of ``data``."""
    digest = hashlib.sha256(described(config, None).encode())
    if data is not None:
        for path in sorted(path for path in data.rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(data).as_posix()} {files.sha256(path)}\n".encode())
    return digest.hexdigest()


def described(config: Lesson, data: Path | None) -> str:
    """What a lesson is taught on, in words, for the card."""
    studio = (
        f"{config.people} studio people ({config.held_out} of them held out) x {config.frames} "
        f"performances at {config.size} px, seed {config.data_seed}, studio {STUDIO_VERSION}"
    )
    return studio if data is None else f"{studio}; photos of '{data.name}'"


def bundle(lesson: str, config: Lesson, data: Path | None, run: Run, command: str) -> Path:
    """Write a finished run's weights, in half precision, and their card into the run folder.

    Args:
        lesson: its name, and that of the files.
        config: its settings.
        data: the folder that went in besides the studio, or None.
        run: the finished run.
        command: that made it, for the card.

    Returns:
        The path of ``NAME.safetensors``; the card, ``NAME.json``, lies beside it.
    """
    module = load(lesson)
    tensors = module.weights(run)
    path = run.folder / f"{lesson}.safetensors"
    with files.replacing(path) as partial:
        partial.write_bytes(
            save({name: tensor.half().contiguous() for name, tensor in tensors.items()})
        )
    last: dict[str, Any] = run.metrics()[-1]
    card = {
        "name": lesson,
        "file": path.name,
        "sha256": files.sha256(path),
        "command": command,
        "config": run.facts["config"],
        "seed": run.facts["seed"],
        "data": described(config, data),
        "data_hash": run.facts["data_hash"],
        "minutes": run.facts["minutes"],
        "device": run.facts["device"],
        "licence": module.LICENCE if data is None else module.LICENCE_WITH_DATA,
        "figures": run.facts.get("figures", last),
    }
    files.write_json(path.with_suffix(".json"), card)
    return path
