"""Which generator is to be measured, against which pictures, and what may be shown of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from lightning_fabric import Fabric

from facekit.adversary.metrics.features import load_features
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.generators import GatedRun, load, mark_id, open_run, sample
from facekit.generators._evaluate import Measured, Reference, measure
from facekit.generators._gate import admit_folder


@dataclass(frozen=True)
class Subject:
    """A generator that makes pictures of nothing.

    Attributes:
        plugin: its name.
        source: the run, or the name of bundled weights.
        reference: what its samples are compared with.
        facts: for the manifest of what shows its samples.
        mark: what the watermark of that names.
        records: ids of the consent records that it stands on.
    """

    plugin: str
    source: GatedRun | str
    reference: Reference
    facts: Mapping[str, Any]
    mark: int = 0
    records: tuple[str, ...] = ()


def opened(generator: str, data: Path | None, consent: Sequence[str], fabric: Fabric) -> Subject:
    """Open a generator and the pictures that it is measured against.

    Args:
        generator: a run's folder, or a bundled generator's name.
        data: the folder that the run learned from; None for a bundled one.
        consent: ids of the consent records of that folder.
        fabric: where to compute.

    Raises:
        FacekitError: if it makes no faces from nothing; if the run or the folder may not be used,
            or the run learned from another folder; or if the folder shows too few faces.
    """
    folder = Path(generator)
    if not folder.is_dir():
        module = _maker(generator)
        if data is not None:
            raise FacekitError(
                f"--data: the bundled '{generator}' is measured against the people that it was "
                "made from; give --data with a run"
            )
        training, others = module.compared(generator, None, (), fabric)
        facts = {"origin": "studio", "generator": generator, "publish": True}
        reference = Reference(training.to(fabric.device), others.to(fabric.device))
        return Subject(generator, generator, reference, facts)
    run = open_run(folder)
    plugin = run.facts["plugin"]
    module = _maker(plugin)
    if data is None:
        raise FacekitError(f"{folder}: --data is missing: give the folder that it learned from")
    permit = admit_folder(data, consent, fabric.device)
    if permit.data_hash != run.facts["data_hash"]:
        raise FacekitError(
            f"{data}: not what {folder} learned from, or changed since; give that folder, so that "
            "it is known whom the run has seen"
        )
    training, others = module.compared(run, data, permit.items, fabric)
    facts = {
        "origin": run.permit.origin,
        "generator": plugin,
        "run": run.id,
        "publish": run.permit.covers("publish"),
    }
    reference = Reference(training.to(fabric.device), others.to(fabric.device))
    return Subject(plugin, run, reference, facts, mark_id(run), run.permit.records)


def evaluate(subject: Subject, count: int, seed: int, fabric: Fabric) -> Measured:
    """Draw samples and measure them.

    Args:
        subject: of :func:`opened`.
        count: of samples.
        seed: of them.
        fabric: where and how precisely to compute.

    Raises:
        FacekitError: if there are too few pictures of a kind, or consent ends meanwhile.
    """
    subject.reference.require(count)
    frames = sample(subject.source, count, seed, fabric, plugin=subject.plugin)
    drawn = []
    with progress("drawing samples", count) as advance:
        for frame in frames:
            drawn.append(torch.from_numpy(frame.pixels))
            advance(len(drawn), "")
    samples = torch.stack(drawn).to(fabric.device)
    if samples.shape[1:] != subject.reference.training.shape[1:]:
        raise FacekitError(
            f"{subject.plugin}: draws pictures of {tuple(samples.shape[1:3])} pixels, but is "
            f"compared with {tuple(subject.reference.training.shape[1:3])}: of another architecture"
        )
    return measure(subject.plugin, samples, subject.reference, load_features(fabric.device))


def _maker(plugin: str) -> ModuleType:
    """A plug-in that makes faces from nothing.

    Raises:
        FacekitError: if it is unknown, or makes none.
    """
    module = load(plugin)
    if not hasattr(module, "compared"):
        raise FacekitError(
            f"{plugin} makes no faces from nothing, so there are no samples to measure; 'gan' does"
        )
    return module
