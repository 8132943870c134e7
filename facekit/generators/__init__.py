"""Generators of synthetic face media: one paper, one file; the file's name is the plug-in's.

A plug-in module offers

- ``KIND``: the mark that its output carries, a :class:`facekit.watermark.Kind`;
- ``Config``: its settings, a :class:`facekit.core.config.Config`;
- ``train(config, data, run, fabric, *, show=None)``: train on a folder that :func:`start` has let
  pass, resuming from the run's newest checkpoint; ``show(step, pixels)`` is handed a training
  strip now and then;
- ``pretrain(config, run, fabric, people, moments)`` and ``bundle(run, folder, name)``, if it can
  start from weights learned beforehand on the studio;
- ``generate(run, frames, fabric, *, source, target=None, still=False)``: yield changed frames, in
  memory and unmarked. Only :mod:`facekit.export` writes them.

Whose faces may be used is decided here, for all of them: :func:`start` and :func:`open_run`.

A YAML of ``configs/generators`` names its plug-in under ``generator``; the other keys are Config's.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from lightning_fabric import Fabric

from facekit.core import config as configs
from facekit.core import files, registry
from facekit.core.device import precision_of
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.generators._gate import certified, closed_file
from facekit.types import MANIFEST

__all__ = ["certified", "closed_file", "load", "names", "open_run", "read_config", "start"]


def read_config(name: str | Path, overrides: Sequence[str] = ()) -> tuple[str, configs.Config]:
    """Read a generator's config.

    Args:
        name: a file, or the name of a bundled one, e.g. ``generators/face_swap``.
        overrides: ``key=value`` texts that replace keys of the file.

    Returns:
        The plug-in's name and its validated Config.

    Raises:
        FacekitError: if the file names no known generator, or a key or a value is wrong.
    """
    path = configs.find(name)
    data = configs.apply_overrides(configs.read_yaml(path), overrides)
    plugin = data.pop("generator", None)
    if not isinstance(plugin, str):
        raise FacekitError(f"{path}: key 'generator' is missing; write e.g. 'generator: face_swap'")
    return plugin, configs.validate(data, load(plugin).Config, path)


def names() -> list[str]:
    """The names of all generators, without importing them."""
    return registry.names(__name__)


def load(name: str) -> ModuleType:
    """Import the generator ``name``.

    Raises:
        FacekitError: if there is none of that name.
    """
    return registry.load(__name__, name)


def start(
    plugin: str, config: configs.Config, data: Path, out: Path, fabric: Fabric, *, seed: int = 0
) -> Run:
    """Check that ``data`` may be trained on; make the run folder, or open it to go on.

    The run records the consent: the certificate that covers ``data``.

    Args:
        plugin: the generator's name.
        config: its settings.
        data: the folder to train on.
        out: the run folder.
        fabric: where and how precisely it will compute, which the run records.
        seed: of all randomness, ≥ 0.

    Raises:
        FacekitError: if ``data`` is not certified, and then ``out`` is not touched; or if ``out``
            holds a run made from other inputs.
    """
    import torch

    consent = certified(data)
    run = Run.start(
        out,
        plugin=plugin,
        config=config,
        seed=seed,
        data_hash=files.sha256(data / MANIFEST),
        threads=torch.get_num_threads(),
        precision=precision_of(fabric),
    )
    run.note(consent=consent)
    return run


def open_run(folder: Path) -> Run:
    """Open a trained run to use it.

    Raises:
        FacekitError: if it is none, or records no consent to what it was trained on.
    """
    run = Run(folder)
    if not run.facts.get("consent"):
        raise FacekitError(
            f"{folder}: records no certificate of its training data; train anew with "
            "'facekit generator train'"
        )
    return run
