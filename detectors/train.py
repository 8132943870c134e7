"""Train a detector: one loop that reads from top to bottom.

A detector has one member or several, some of which may be kept from another detector. Each is
trained by itself: the best network is chosen, and
training ended early, by the log loss on the validation split. What stacks the members and
calibrates the sum is fitted on the calibration split, whose people neither of the other two holds.
The test split is not seen here. The detector is then written into the run folder, beside two
others fitted on the same faces in the same run: the floor (mean colour) and the peer (spectrum),
for `evaluate` to compare with.
"""

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from detectors.calibrate import Method, Scores, calibrate
from detectors.collections import SHARES, Collection
from detectors.data import (
    Batch,
    Batches,
    Faces,
    FaceSet,
    Labels,
    befallen,
    check_disjoint,
    require_both,
    with_forgeries,
)
from detectors.regions import crops
from detectors.score import FILE, MODELS, Detector, Member, network_logits, save, to_tensor
from detectors.stack import Stack, fit_stack
from facekit.core import registry
from facekit.core.config import Config, apply_overrides, find, read_yaml, validate
from facekit.core.errors import FacekitError
from facekit.core.progress import log, progress
from facekit.core.run import Run
from facekit.core.seed import seed_step
from facekit.faces.quality import measure
from facekit.types import Pixels

if TYPE_CHECKING:  # it brings torch's compiler along, which those who only score need not wait for
    from lightning_fabric import Fabric

BASELINES = {"floor": "colour", "peer": "spectrum"}
"""What stands beside a detector in its evaluation: role → plug-in; files ``ROLE.safetensors``."""

ENSEMBLE = "ensemble"
"""In place of a plug-in's name: the config lists members instead."""

_VALIDATION = 1  # the key of validation's view; training's views use the steps
_CALIBRATION = 2
_FIT = 3  # the first key of the views that are fitted at once
_PASSES = 2  # of the baselines


class Training(Config):
    """How long and how fast a network learns.

    Attributes:
        steps: at most so many batches.
        batch: faces a batch: two classes, each half marked.
        learning_rate: the highest; it rises over the first 5% of steps, then falls as a cosine.
        weight_decay: AdamW's.
        ema: share of the average weights that each step keeps; the average is what is validated
            and kept (Polyak & Juditsky 1992).
        validate_every: steps between looks at validation, each with a checkpoint.
        patience: so many looks without a lower validation loss end the training.
        start: a member trained before it; it begins with that one's weights wherever both have
            weights of one name and shape. Blending is learnt slowly from nothing.
    """

    steps: int = Field(800, ge=1)
    batch: int = Field(32, ge=4, multiple_of=4)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    ema: float = Field(0.98, ge=0, lt=1)
    validate_every: int = Field(50, ge=1)
    patience: int = Field(6, ge=1)
    start: str = ""


class Recipe(Config):
    """What a detector's config says, all of its members' configs read.

    Attributes:
        members: name → plug-in and its config, as a dict.
        kept: name → a detector, bundled or a run, from which the member of that name is taken as it
            is. It has learned from its own training's people, so they must be this training's too:
            the same seed and shares, and all its collections among these.
        data: which faces calibrate the detector, and what befalls them.
        calibration: how logits become probabilities.
        coverage: what the abstention promises.
        collections: the data sets to train on; none where the command is given a folder with a
            manifest.
        shares: of a collection's people in each split.
    """

    members: dict[str, tuple[str, dict[str, Any]]]
    kept: dict[str, str] = Field(default_factory=dict)
    data: Faces
    calibration: Method = "platt"
    coverage: float = Field(0.9, gt=0.5, lt=1)
    collections: list[Collection] = Field(default_factory=list)
    shares: dict[str, float] = Field(default_factory=lambda: dict(SHARES))

    @property
    def forges(self) -> bool:
        """Whether forgeries of untouched faces are made."""
        return bool(_kinds(self))

    def member(self, name: str) -> tuple[str, Any]:
        """A member's plug-in and its ``Config``."""
        plugin, settings = self.members[name]
        return plugin, validate(settings, registry.load(MODELS, plugin).Config, name)


def read_config(name: str | Path, overrides: Sequence[str] = ()) -> tuple[str, Recipe]:
    """Read a detector's config.

    Args:
        name: a file, or the name of a bundled one, e.g. ``detectors/small_cnn``.
        overrides: ``key=value`` texts that replace keys of the file.

    Returns:
        The plug-in's name, which the file gives under ``detector`` (or "ensemble"), and the rest.

    Raises:
        FacekitError: if the file names no known detector, or a key or value is wrong.
    """
    path = find(name)
    data = apply_overrides(read_yaml(path), overrides)
    plugin = data.pop("detector", None)
    if not isinstance(plugin, str):
        raise FacekitError(f"{path}: key 'detector' is missing; write e.g. 'detector: small_cnn'")
    if plugin != ENSEMBLE:
        config = validate(data, registry.load(MODELS, plugin).Config, path)
        members = {plugin: (plugin, config.model_dump(mode="json"))}
        return plugin, Recipe(members=members, data=config.data)
    named = data.pop("members", None)
    if not isinstance(named, dict) or not named:
        raise FacekitError(
            f"{path}: key 'members' is missing; write e.g. 'members: {{patch: detectors/patch}}'"
        )
    read: dict[str, Any] = {}
    for member, source in named.items():
        kind, recipe = read_config(str(source))
        if kind == ENSEMBLE:
            raise FacekitError(f"{path}: member '{member}' is an ensemble itself; name its members")
        start = recipe.members[kind][1].get("training", {}).get("start", "")
        if start and start not in read:
            raise FacekitError(
                f"{path}: member '{member}' starts from '{start}', which is no member above it"
            )
        read[str(member)] = recipe.members[kind]
    if both := read.keys() & (data.get("kept") or {}):
        raise FacekitError(f"{path}: {', '.join(both)}: either a member to train or one to keep")
    return plugin, validate({**data, "members": read}, Recipe, path)


@dataclass(frozen=True)
class Splits:
    """The faces that a detector is made from.

    Attributes:
        train: what the weights are fitted on.
        validation: what chooses among checkpoints.
        calibration: what stacks and calibrates, and sets the threshold; where there are too few
            people for a split of its own, validation is used again.
    """

    train: FaceSet
    validation: FaceSet
    calibration: FaceSet | None = None

    def all(self) -> dict[str, FaceSet]:
        """By name."""
        found = {"train": self.train, "validation": self.validation}
        return found if self.calibration is None else {**found, "calibration": self.calibration}


def train(
    recipe: Recipe,
    splits: Splits,
    run: Run,
    fabric: "Fabric",
    *,
    calibrated_for: Sequence[str] = (),
) -> None:
    """Train the members, stack and calibrate them, and write ``detector.safetensors`` into the run.

    A run that was cut off goes on from its newest checkpoint, to the same bits.

    Args:
        recipe: of :func:`read_config`.
        splits: disjoint by people and sources.
        run: has the seed; members train in ``members/NAME`` in its folder.
        fabric: where and how precisely to compute.
        calibrated_for: the kinds of untouched footage in the data, e.g. ``["studio"]``.

    Raises:
        FacekitError: if a split lacks a class, or two share a person or source.
    """
    check_disjoint(splits.all())
    held_out = splits.calibration or splits.validation
    kinds = _kinds(recipe)
    told = befallen(_whole(held_out, kinds, _CALIBRATION), recipe.data.world, key=_CALIBRATION)
    require_both(told.labels)

    members, known = _kept(recipe, run, fabric.device)
    for name in recipe.members:
        plugin, config = recipe.member(name)
        own = Run.start(
            run.folder / "members" / name,
            plugin=plugin,
            config=config,
            **{key: run.facts[key] for key in ("seed", "data_hash", "threads", "precision")},
        )
        began = time.monotonic()
        if hasattr(registry.load(MODELS, plugin), "fit"):
            members.append(_fit(name, plugin, config, splits.train))
            own.resume()  # fitted anew in every call: an earlier one's seconds are forgotten
            own.log(1, seconds=time.monotonic() - began)
        else:
            start = {one.name: one.network for one in members}.get(config.training.start)
            if config.training.start and start is None:
                log.info("%s: no member '%s' here; from nothing", name, config.training.start)
            network = _learn(config, splits, own, fabric, start=start)
            members.append(Member(name, plugin, config, network, fabric.device))
        own.note(minutes=_minutes(own))

    def finish(file: str, parts: Sequence[Member]) -> None:
        logits = np.stack([part.logits(told.regions) for part in parts], axis=1)
        stack = Stack(((1.0,),), (0.0,))
        if len(parts) > 1:
            of_kind = ["forged" if maker in kinds else "whole" for maker in told.makers]
            stack = fit_stack(logits, told.labels, told.subjects, of_kind)
        calibration = calibrate(
            stack.logits(logits), told.labels, method=recipe.calibration, coverage=recipe.coverage
        )
        save(
            run.folder / file,
            members=parts,
            stack=stack,
            calibration=replace(calibration, ranges=_ranges(told)),
            calibrated_for=calibrated_for,
            seen=known.union(*(faces.digests for faces in splits.all().values())),
        )

    # The baselines first: a run that holds the detector's own file is complete.
    for role, plugin in BASELINES.items():
        if (run.folder / f"{role}.safetensors").is_file():
            continue  # made before an interruption
        faces = recipe.data.model_copy(update={"template": "wide", "forgeries": _even(kinds)})
        settings = registry.load(MODELS, plugin).Config(data=faces, passes=_PASSES)
        finish(f"{role}.safetensors", [_fit(role, plugin, settings, splits.train)])
    finish(FILE, members)
    minutes = sum(_minutes(Run(run.folder / "members" / name)) for name in recipe.members)
    run.note(minutes=round(minutes, 2), calibrated_for=list(calibrated_for))


def _kept(recipe: Recipe, run: Run, device: torch.device) -> tuple[list[Member], frozenset[str]]:
    """The members that are taken from other detectors, and the pictures that those have seen.

    Raises:
        FacekitError: if a detector or its member is missing, or it may have learned from people
            who are held out here.
    """
    members: list[Member] = []
    seen: frozenset[str] = frozenset()
    sources: dict[str, str] = {}
    for name, source in recipe.kept.items():
        detector = Detector.load(source, device)
        parts = {part.name: part for part in detector.parts}
        if name not in parts:
            raise FacekitError(f"kept: {source} has no member '{name}', but {', '.join(parts)}")
        made = Run(Path(source)).facts if Path(source).is_dir() else detector.facts
        if not _divided_alike(recipe, run, made):
            raise FacekitError(
                f"kept: {source} divided its people otherwise, so that its '{name}' may have "
                "learned from some who are held out here; give the seed of its training, its "
                "shares, and all of its collections beside others"
            )
        members.append(parts[name])
        seen |= detector.seen
        sources[name] = str(detector.facts["sha256"])
    if sources:
        run.note(kept=sources)
    return members, seen


def _divided_alike(recipe: Recipe, run: Run, made: dict[str, Any]) -> bool:
    """Whether a training, by its facts, dealt the people of its data out as this one does."""
    if made["seed"] != run.facts["seed"]:
        return False
    if made["data_hash"] == run.facts["data_hash"]:
        return True
    # A collection's people are dealt out by seed and shares, whatever other collections there are.
    here = [each.model_dump(mode="json") for each in recipe.collections]
    there = made["config"].get("collections", [])
    return (
        bool(there)
        and all(each in here for each in there)
        and made["config"]["shares"] == recipe.shares
    )


def _ranges(faces: FaceSet) -> dict[str, tuple[float, float]]:
    """What all but one in a hundred faces are like; sharper and less compressed is no trouble."""
    measured = measure([one.pixels for one in faces.regions], [[one.face] for one in faces.regions])
    qualities = [face.quality for (face,) in measured if face.quality]
    return {
        name: (0.0, float(np.quantile([getattr(one, name) for one in qualities], 0.99)))
        for name in ("blur", "compression")
    }


def _minutes(run: Run) -> float:
    return round(sum(float(row["seconds"]) for row in run.metrics()) / 60, 2)


def _kinds(recipe: Recipe) -> list[str]:
    """The forgeries that any member, or the calibration, is to know."""
    of_each = [recipe.data.forgeries]
    of_each += [recipe.member(name)[1].data.forgeries for name in recipe.members]
    return list(dict.fromkeys(kind for kinds in of_each for kind in kinds))


def _even(kinds: Sequence[str]) -> dict[str, float]:
    return {kind: 1 / len(kinds) for kind in kinds}


def _whole(faces: FaceSet, kinds: Sequence[str], key: int) -> FaceSet:
    """With forgeries, if there are to be any."""
    return with_forgeries(faces, kinds, key=key) if kinds else faces


def _fit(name: str, plugin: str, config: Any, train_set: FaceSet) -> Member:
    """A plug-in that is fitted on all training faces at once, where scikit-learn works.

    It computes in float64, which not every accelerator has, so it is never moved to one.
    """
    data: Faces = config.data
    views, labels = [], []
    for key in range(_FIT, _FIT + config.passes):
        whole = _whole(train_set, list(data.forgeries), key)
        require_both(whole.labels)
        seen = befallen(whole, data.world, key=key)
        views.append(crops(seen.regions, data.template, data.size))
        labels.append(seen.labels)
    module = registry.load(MODELS, plugin)
    network: nn.Module = module.network(config)
    module.fit(network, to_tensor(np.concatenate(views)), np.concatenate(labels), config)
    return Member(name, plugin, config, network)


def _learn(
    config: Any, splits: Splits, run: Run, fabric: "Fabric", *, start: nn.Module | None = None
) -> nn.Module:
    """A plug-in that learns by gradient descent: the average network, best on validation."""
    training: Training = config.training
    data: Faces = config.data
    seed = int(run.facts["seed"])
    batches = Batches(splits.train, data, batch=training.batch, seed=seed)
    watched, truth, weights = _watched(splits.validation, data)
    plugin = registry.load(MODELS, run.facts["plugin"])
    objective = getattr(plugin, "objective", log_loss)

    seed_step(seed, 0)
    network: nn.Module = plugin.network(config)
    if hasattr(plugin, "begin"):
        plugin.begin(network, config)  # with weights of a file that the config names
    if start is not None:
        _begin_with(network, start)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    model, optimizer = fabric.setup(network, optimizer)
    average: nn.Module = plugin.network(config).to(fabric.device).eval()
    average.load_state_dict(network.state_dict())
    first, best_loss, best, waited = 0, math.inf, network.state_dict(), 0
    if state := run.resume():
        first = run.restore(state, network=network, average=average, optimizer=optimizer)
        best_loss, best, waited = (state[key] for key in ("best_loss", "best", "waited"))

    began = time.monotonic()
    with (
        progress(f"training {run.folder.name}", training.steps) as advance,
        ThreadPoolExecutor(1) as ahead,
    ):
        # The next batch is made while the network learns from this one.
        upcoming = ahead.submit(batches, first)
        for step in range(first, training.steps):
            if waited >= training.patience:
                break
            batch = upcoming.result()
            upcoming = ahead.submit(batches, step + 1)
            seed_step(seed, 1 + step)
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate * _schedule((step + 1) / training.steps)
            loss = objective(model, batch, fabric.device)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            # At first the average follows closely, so that it forgets the random weights.
            _follow(average, network, min(training.ema, (step + 1) / (step + 10)))

            done = step + 1
            if done % training.validate_every and done != training.steps:
                continue
            scores = network_logits(average, watched, fabric.device)
            now = float(weights @ (np.logaddexp(0, scores) - truth * scores))
            if not math.isfinite(now):
                raise FacekitError(
                    f"{run.folder}: the validation loss is no number at step {done}; lower "
                    "training.learning_rate"
                )
            waited += 1
            if now < best_loss:
                best_loss, waited = now, 0
                best = {key: value.clone() for key, value in average.state_dict().items()}
            ended = time.monotonic()
            run.log(done, loss=loss.item(), validation_loss=now, seconds=ended - began)
            began = ended
            run.save(
                done,
                {
                    "network": network.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "best": best,
                    "best_loss": best_loss,
                    "waited": waited,
                },
            )
            advance(done, f"validation loss {now:.3f}")
    log.info("%s: best validation loss %.3f", run.folder.name, best_loss)
    average.load_state_dict(best)
    return average


def log_loss(model: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """Of a batch; a plug-in may have another ``objective`` of these arguments."""
    logits = model(to_tensor(batch.images, device)).float()
    target = torch.from_numpy(batch.labels).to(device).float()
    return F.binary_cross_entropy_with_logits(logits, target)


def _watched(validation_set: FaceSet, data: Faces) -> tuple[Pixels, Labels, Scores]:
    """What validation looks at: uint8 (N, S, S, 3), the labels (N,), and each face's weight.

    Untouched faces weigh half of all, and each kind of generated ones as much as in training: else
    the loss would ask for other odds than training does.
    """
    whole = _whole(validation_set, list(data.forgeries), _VALIDATION)
    require_both(whole.labels)
    seen = befallen(whole, data.world, key=_VALIDATION)
    kinds = [
        "untouched" if label == 0 else maker if maker in data.forgeries else "library"
        for label, maker in zip(seen.labels, seen.makers, strict=True)
    ]
    shares = {"untouched": 1.0, "library": 1 - sum(data.forgeries.values()), **data.forgeries}
    weights = np.array([shares[kind] / kinds.count(kind) for kind in kinds])
    return crops(seen.regions, data.template, data.size), seen.labels, weights / weights.sum()


def _begin_with(network: nn.Module, other: nn.Module) -> None:
    """Copy the weights that the two have in common, by name and shape."""
    own = network.state_dict()
    shared = {
        name: value
        for name, value in other.state_dict().items()
        if name in own and own[name].shape == value.shape
    }
    network.load_state_dict(own | shared)


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, keep: float) -> None:
    """Move the average weights towards the network's; counts and statistics are copied."""
    ours, theirs = average.state_dict(), network.state_dict()
    learned = {name for name, _ in network.named_parameters()}
    for name, value in theirs.items():
        if name in learned:
            ours[name].lerp_(value.detach(), 1 - keep)
        else:
            ours[name].copy_(value)


def _schedule(part: float) -> float:
    """The learning rate, as a share of the highest, after this part of all steps."""
    rise = 0.05
    return (
        part / rise if part < rise else 0.5 + 0.5 * math.cos(math.pi * (part - rise) / (1 - rise))
    )
