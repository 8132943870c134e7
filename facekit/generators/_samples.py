"""A generator's samples, and the pictures that they are measured against."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch
from lightning_fabric import Fabric

from facekit.adversary.metrics.features import load_features
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.generators import GatedRun, load, sample
from facekit.generators._evaluate import Measured, Reference, measure
from facekit.generators._gate import admit_folder


def reference_of(
    source: GatedRun | str, plugin: str, data: Path | None, consent: Sequence[str], fabric: Fabric
) -> Reference:
    """What a generator's samples are compared with.

    Args:
        source: a run from :func:`facekit.generators.open_run`, or the name of bundled weights.
        plugin: its name.
        data: the folder that the run learned from; None for bundled weights.
        consent: ids of the consent records of that folder.
        fabric: where to compute.

    Raises:
        FacekitError: if the plug-in makes no faces from nothing; if the folder is missing, may not
            be used, or is not the one that the run learned from.
    """
    module = _maker(plugin)
    if isinstance(source, str):
        if data is not None or consent:
            raise FacekitError(
                f"--data and --consent: the bundled '{source}' is measured against the people that "
                "it was made from and others like them; give them with a run"
            )
        training, others = module.compared(source, None, (), fabric)
    else:
        if data is None:
            raise FacekitError(
                f"{source.folder}: --data is missing: give the folder that it learned from"
            )
        permit = admit_folder(data, consent, fabric.device)
        if permit.data_hash != source.facts["data_hash"]:
            raise FacekitError(
                f"{data}: not what {source.folder} learned from, or changed since; give that "
                "folder, so that it is known whom the run has seen"
            )
        training, others = module.compared(source, data, permit.items, fabric)
    return Reference(training.to(fabric.device), others.to(fabric.device))


def evaluate(
    source: GatedRun | str,
    plugin: str,
    reference: Reference,
    count: int,
    seed: int,
    fabric: Fabric,
) -> Measured:
    """Draw samples and measure them.

    Args:
        source: as for :func:`reference_of`.
        plugin: its name.
        reference: of :func:`reference_of`.
        count: of samples.
        seed: of them.
        fabric: where and how precisely to compute.

    Raises:
        FacekitError: if there are too few pictures of a kind, they are of another size than the
            samples, or consent ends meanwhile.
    """
    reference.require(count)
    drawn = []
    with progress("drawing samples", count) as advance:
        for frame in sample(source, count, seed, fabric, plugin=plugin):
            drawn.append(torch.from_numpy(frame.pixels))
            advance(len(drawn), "")
    samples = torch.stack(drawn).to(fabric.device)
    sides = {tuple(pixels.shape[1:3]) for pixels in (samples, reference.training)}
    if len(sides) > 1:
        raise FacekitError(
            f"{plugin}: samples and faces to compare them with are of sizes {sorted(sides)}; the "
            "weights are of another architecture than the config says"
        )
    return measure(plugin, samples, reference, load_features(fabric.device))


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
