"""Generators of synthetic face media: one paper, one file; the file's name is the plug-in's.

A plug-in module offers

- ``KIND``: the mark that its output carries, a :class:`facekit.watermark.Kind`;
- ``Config``: its settings, a :class:`facekit.core.config.Config`;
- ``train(config, data, run, fabric, *, show=None)``: train on ``run.items`` of the folder ``data``,
  the pictures that :func:`start` has let pass, resuming from the run's newest checkpoint;
  ``show(step, pixels)`` is handed a training strip now and then;
- ``SHARES = True``, if its loop shares a batch among the processes of ``--devices``;
- ``VIDEOS = True``, if it learns from videos as well: else those of a folder are left out;
- ``FACES = False``, if it draws no faces: then ``data`` is None and no consent is asked for. The
  gate has a list of those that may say so;
- ``pretrain(config, run, fabric, people, moments)`` and ``bundle(run, folder, name)``, if it can
  start from weights learned beforehand on the studio;
- ``generate(run, frames, fabric, *, source, target=None, still=False, **how)``, if it changes
  pictures: yield changed frames, in memory and unmarked. Only :mod:`facekit.export` writes them.
  One that swaps aligned faces hands ``how`` on to :func:`facekit.conversion.convert`;
- ``sample(run_or_weights, count, seed, fabric, **style)``, if it makes pictures of nothing: yield
  them as frames; ``run_or_weights`` is a run, or the name of bundled weights;
- ``animator(run_or_weights, fabric)``, if it moves photos: a :class:`facekit.motion.Animator`,
  which draws the person of a :class:`facekit.motion.Cast` with other landmarks;
- ``film(run)``, if a training has something to tell: yield the frames of an animation, which the
  command exports as ``RUN/game.mp4`` once it is over.

Whose faces may be used is decided here, for all of them: by :func:`start` and the run that it
returns, :func:`open_run`, :func:`admit_file`, :func:`admit_folder`, :func:`admit_together`,
:func:`generate`, :func:`sample`, :func:`drive`, :func:`film` and :func:`bundle`. A plug-in need not
think of it: ``run.save`` writes no checkpoint once consent is revoked or has expired.

A YAML of ``configs/generators`` names its plug-in under ``generator``; the other keys are Config's.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lightning_fabric import Fabric

from facekit.core import config as configs
from facekit.core import registry
from facekit.core.checkpoint import notes
from facekit.core.device import precision_of
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.generators._gate import (
    GatedRun,
    Permit,
    admit_file,
    admit_folder,
    admit_nothing,
    admit_together,
    certified,
    closed_file,
    watched,
)
from facekit.provenance.consent import bits_of
from facekit.types import Floats, Frame

if TYPE_CHECKING:
    from facekit.motion import Animator, Cast

__all__ = [
    "GatedRun",
    "Permit",
    "admit_file",
    "admit_folder",
    "admit_together",
    "animator",
    "bundle",
    "certified",
    "closed_file",
    "drive",
    "film",
    "generate",
    "load",
    "mark_id",
    "names",
    "open_run",
    "read_config",
    "require_shares",
    "sample",
    "start",
]


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
    plugin: str,
    config: configs.Config,
    data: Path | None,
    out: Path,
    fabric: Fabric,
    *,
    seed: int = 0,
    consent: Sequence[str] = (),
) -> GatedRun:
    """Check that ``data`` may be trained on; make the run folder, or open it to go on.

    The run records the consent: the certificate that covers ``data``, or the consent records.

    Args:
        plugin: the generator's name.
        config: its settings.
        data: the folder to train on: a certified studio folder, or photos of real people, each
            covered by ``consent`` with the scope "train", with everyone in it; None for a plug-in
            that draws no faces.
        out: the run folder.
        fabric: where and how precisely it will compute, which the run records.
        seed: of all randomness, ≥ 0.
        consent: ids of consent records; none for a studio folder.

    Raises:
        FacekitError: if ``data`` may not be trained on, and then ``out`` is not touched; or if
            ``out`` holds a run made from other inputs, in another number of processes, or under
            other consent.
    """
    import torch

    require_shares(plugin, fabric)
    if not getattr(load(plugin), "FACES", True):
        permit = admit_nothing(plugin, data, consent)
    elif data is None:
        raise FacekitError(f"{plugin} learns from photos: give their folder with --data")
    else:
        videos = getattr(load(plugin), "VIDEOS", False)
        permit = admit_folder(data, consent, fabric.device, videos=videos)
    with fabric.rank_zero_first():  # of several processes one makes the folder, the others join it
        run = GatedRun.start(
            out,
            plugin=plugin,
            config=config,
            seed=seed,
            data_hash=permit.data_hash,
            threads=torch.get_num_threads(),
            precision=precision_of(fabric),
        )
        devices = run.facts.get("devices", fabric.world_size)
        if devices != fabric.world_size:
            raise FacekitError(
                f"{out}: holds a run with --devices {devices}, now {fabric.world_size}; resume "
                "with the same, or give another --out"
            )
        run.admit(permit)
        run.note(devices=fabric.world_size)
    return run


def require_shares(plugin: str, fabric: Fabric) -> None:
    """See that several processes are asked of a plug-in only whose loop shares its batches.

    Raises:
        FacekitError: if it does not.
    """
    if fabric.world_size > 1 and not getattr(load(plugin), "SHARES", False):
        raise FacekitError(
            f"--devices {fabric.world_size}: {plugin} trains in one process; leave it away"
        )


def open_run(folder: Path) -> GatedRun:
    """Open a trained run to use it.

    Raises:
        FacekitError: if it is none; if it records no consent to what it was trained on, or other
            consent than its checkpoints; or if a record was revoked, has expired, or does not
            cover generating.
    """
    run = GatedRun(folder)
    if not run.facts.get("consent"):
        raise FacekitError(
            f"{folder}: records no certificate of its training data, nor consent to it; train anew "
            "with 'facekit generator train'"
        )
    run.require_same_checkpoints()
    try:
        run.permit.check("generate")
    except FacekitError as error:
        raise FacekitError(f"{folder}: cannot be used: {error}") from error
    return run


def generate(
    run: GatedRun,
    frames: Iterable[Frame],
    fabric: Fabric,
    *,
    given: Permit,
    source: str,
    target: str | None = None,
    still: bool = False,
    **how: Any,
) -> Iterator[Frame]:
    """Yield changed frames, in memory and unmarked, for as long as the consent holds.

    Args:
        run: from :func:`open_run`.
        frames: of one clip, or unrelated pictures if ``still``.
        fabric: where and how precisely to compute.
        given: what lets ``frames`` be changed, from :func:`admit_file`.
        source: the person to show.
        target: who is in the frames, if it is known.
        still: treat each frame as a picture of its own.
        how: of :func:`facekit.conversion.convert`: ``plan``, ``finish`` and ``first``.

    Raises:
        FacekitError: if the run or a person is unusable; or within a second or so, and at the end
            at the latest, after consent was revoked or has expired.
    """
    plugin = load(run.facts["plugin"])
    changed: Iterable[Frame] = plugin.generate(
        run, frames, fabric, source=source, target=target, still=still, **how
    )
    return watched(changed, [run.permit, given])


def sample(
    source: GatedRun | str, count: int, seed: int, fabric: Fabric, *, plugin: str = "", **style: Any
) -> Iterator[Frame]:
    """Yield pictures made from nothing, in memory and unmarked, for as long as the consent holds.

    Args:
        source: a run from :func:`open_run`; or the name of bundled weights, which were made by a
            pre-training on people who don't exist.
        count: how many, ≥ 1.
        seed: of the noise, ≥ 0.
        fabric: where and how precisely to compute.
        plugin: the generator of bundled weights; a run names its own.
        style: what the plug-in's ``sample`` takes besides.

    Raises:
        FacekitError: if the run or the weights are unusable, the plug-in makes nothing from
            nothing; or, as of :func:`generate`, after consent was revoked or has expired.
    """
    name = plugin if isinstance(source, str) else source.facts["plugin"]
    module = load(name)
    if not hasattr(module, "sample"):
        raise FacekitError(f"{name} changes pictures, it makes none from nothing: give --input")
    frames: Iterator[Frame] = module.sample(source, count, seed, fabric, **style)
    return frames if isinstance(source, str) else watched(frames, [source.permit])


def animator(source: GatedRun | str, fabric: Fabric, *, plugin: str = "") -> "Animator":
    """What moves photos, loaded; :func:`drive` sees to the consent while it is used.

    Args:
        source: a run from :func:`open_run`; or the name of bundled weights.
        fabric: where and how precisely to compute.
        plugin: the generator of bundled weights; a run names its own.

    Raises:
        FacekitError: if the run or the weights are unusable, or the plug-in moves no photos.
    """
    name = plugin if isinstance(source, str) else source.facts["plugin"]
    module = load(name)
    if not hasattr(module, "animator"):
        raise FacekitError(f"{name} moves no photos; 'talking_head' does")
    found: Animator = module.animator(source, fabric)
    return found


def drive(
    source: GatedRun | str,
    by: "Animator",
    cast: "Cast",
    landmarks: Floats,
    times: Sequence[float],
    *,
    given: Sequence[Permit],
    first: int = 0,
) -> Iterator[Frame]:
    """Yield the person of some photos, moving, in memory and unmarked, while the consent holds.

    Args:
        source: a run from :func:`open_run`; or the name of bundled weights.
        by: of it, from :func:`animator`.
        cast: the photos, of the size that it draws.
        landmarks: float32 (N, 70, 2) in pixels of the first photo, as of
            :func:`facekit.motion.act`.
        times: of the N frames, in seconds.
        given: what lets the photos and the driver be used, from :func:`admit_together`.
        first: number of the first frame to yield.

    Raises:
        FacekitError: as of :func:`generate`, after consent was revoked or has expired; or if
            nothing is given that lets the photos be used.
    """
    if not given:
        raise FacekitError("nothing lets these photos be used; give what admit_together returns")
    drawn = zip(by.draw(cast, landmarks, first), times[first:], strict=True)
    frames = (Frame(pixels, time, index) for index, (pixels, time) in enumerate(drawn, start=first))
    own = [] if isinstance(source, str) else [source.permit]
    return watched(frames, [*own, *given])


def film(run: GatedRun) -> Iterator[Frame] | None:
    """The frames of the animation that a training tells, for export; None if it tells none."""
    module = load(run.facts["plugin"])
    return watched(module.film(run), [run.permit]) if hasattr(module, "film") else None


def mark_id(run: GatedRun | str, *given: Permit) -> int:
    """What the watermark of the run's output names, below 2^48.

    The consent record, if there is exactly one, of whomever is shown; else the run, whose id
    ``run.json`` has; or, of bundled weights, their name by its hash.

    Args:
        run: the run, or the name of bundled weights.
        given: what lets the inputs be used, if there are any.
    """
    own = () if isinstance(run, str) else (run.permit,)
    records = {id for permit in (*own, *given) for id in permit.records}
    if len(records) == 1:
        return bits_of(records.pop())
    if isinstance(run, str):
        return bits_of(f"w-{hashlib.sha256(run.encode()).hexdigest()[:12]}")
    return bits_of(run.id)


def bundle(run: Run, folder: Path, name: str) -> Path:
    """Write the weights of a pre-training as ``folder/name.safetensors``, to be shipped.

    Raises:
        FacekitError: if the run is a training: weights of a person are not shipped, since whoever
            has them needs no consent any more.
    """
    if run.facts.get("consent") or any("consent" in notes(path) for path in run.checkpoints()):
        raise FacekitError(
            f"{run.folder}: was trained on photos of people; their weights are not bundled, only "
            "those that 'facekit generator pretrain' makes"
        )
    path: Path = load(run.facts["plugin"]).bundle(run, folder, name)
    return path
