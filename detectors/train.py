"""Train a detector: one loop that reads from top to bottom.

The best network is chosen, and training ended early, by the log loss on the validation split; the
test split is not seen here. Calibration and threshold come from validation as well, then the
detector is written into the run folder, beside two others fitted on the same faces in the same
run: the floor (mean colour) and the peer (spectrum), for `evaluate` to compare with.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from detectors.calibrate import calibrate
from detectors.data import Batches, Crops, Labels, check_disjoint, require_both, view
from detectors.score import FILE, MODELS, network_logits, save, to_tensor
from facekit.core import registry
from facekit.core.config import Config, apply_overrides, find, read_yaml, validate
from facekit.core.errors import FacekitError
from facekit.core.progress import log, progress
from facekit.core.run import Run
from facekit.core.seed import seed_step
from facekit.types import Pixels

BASELINES = {"floor": "colour", "peer": "spectrum"}
"""What stands beside a detector in its evaluation: role → plug-in; files ``ROLE.safetensors``."""

_VALIDATION = 1  # the key of validation's view; training's views use the steps
_FIT = 2  # the first key of the views that are fitted at once


class Training(Config):
    """How long and how fast a network learns.

    Attributes:
        steps: at most so many batches.
        batch: faces a batch: two classes, each half marked.
        learning_rate: the highest; it rises over the first 5% of steps, then falls as a cosine.
        weight_decay: AdamW's.
        validate_every: steps between looks at validation, each with a checkpoint.
        patience: so many looks without a lower validation loss end the training.
    """

    steps: int = Field(800, ge=1)
    batch: int = Field(32, ge=4, multiple_of=4)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    validate_every: int = Field(50, ge=1)
    patience: int = Field(6, ge=1)


def read_config(name: str | Path, overrides: Sequence[str] = ()) -> tuple[str, Any]:
    """Read a detector's config.

    Args:
        name: a file, or the name of a bundled one, e.g. ``detectors/small_cnn``.
        overrides: ``key=value`` texts that replace keys of the file.

    Returns:
        The plug-in's name, which the file gives under ``detector``, and its ``Config``.

    Raises:
        FacekitError: if the file names no known detector, or a key or value is wrong.
    """
    path = find(name)
    data = apply_overrides(read_yaml(path), overrides)
    plugin = data.pop("detector", None)
    if not isinstance(plugin, str):
        raise FacekitError(f"{path}: key 'detector' is missing; write e.g. 'detector: small_cnn'")
    return plugin, validate(data, registry.load(MODELS, plugin).Config, path)


def train(
    config: Any,
    train_set: Crops,
    validation_set: Crops,
    run: Run,
    fabric: Fabric,
    *,
    calibrated_for: Sequence[str] = (),
) -> None:
    """Train the run's plug-in, calibrate it, and write ``detector.safetensors`` into the run.

    A run that was cut off goes on from its newest checkpoint, to the same bits.

    Args:
        config: the plug-in's ``Config``.
        train_set: what the weights are fitted on.
        validation_set: what chooses among checkpoints, calibrates and sets the threshold; of
            other people than ``train_set``.
        run: names the plug-in and the seed.
        fabric: where and how precisely to compute.
        calibrated_for: the kinds of untouched footage in the data, e.g. ``["studio"]``.

    Raises:
        FacekitError: if a split lacks a class, or the two share a person or source.
    """
    check_disjoint({"train": train_set, "validation": validation_set})
    require_both(train_set.labels)
    require_both(validation_set.labels)
    watched = view(validation_set, config.data, key=_VALIDATION, marks="half")

    def finish(
        file: str, plugin: str, settings: Any, network: nn.Module, device: torch.device | None
    ) -> None:
        logits = network_logits(network, watched, device)
        save(
            run.folder / file,
            plugin=plugin,
            config=settings,
            weights=network.state_dict(),
            calibration=calibrate(logits, validation_set.labels),
            calibrated_for=calibrated_for,
        )

    plugin = registry.load(MODELS, run.facts["plugin"])
    if hasattr(plugin, "fit"):
        began = time.monotonic()
        network, device = _fit(plugin, config, train_set), None
        run.log(1, seconds=time.monotonic() - began)
    else:
        network = _learn(plugin, config, train_set, watched, validation_set.labels, run, fabric)
        device = fabric.device

    # The baselines first: a run that holds the detector's own file is complete.
    for role, name in BASELINES.items():
        baseline = registry.load(MODELS, name)
        settings = baseline.Config(data=config.data)
        fitted = _fit(baseline, settings, train_set)
        finish(f"{role}.safetensors", name, settings, fitted, None)
    finish(FILE, run.facts["plugin"], config, network, device)
    seconds = sum(row["seconds"] for row in run.metrics())
    run.note(minutes=round(seconds / 60, 2), calibrated_for=list(calibrated_for))


def _fit(plugin: Any, config: Any, train_set: Crops) -> nn.Module:
    """A plug-in that is fitted on all training faces at once, where scikit-learn works.

    It computes in float64, which not every accelerator has, so it is never moved to one.
    """
    views = [view(train_set, config.data, key=_FIT + i, marks="half") for i in range(config.passes)]
    network: nn.Module = plugin.network(config)
    labels = np.tile(train_set.labels, config.passes)
    plugin.fit(network, to_tensor(np.concatenate(views)), labels, config)
    return network


def _learn(
    plugin: Any,
    config: Any,
    train_set: Crops,
    watched: Pixels,
    truth: Labels,
    run: Run,
    fabric: Fabric,
) -> nn.Module:
    """A plug-in that learns by gradient descent: the network that is best on validation.

    ``watched`` is validation's view, uint8 (N, S, S, 3), and ``truth`` its labels.
    """
    training: Training = config.training
    seed = int(run.facts["seed"])
    batches = Batches(train_set, config.data, batch=training.batch, seed=seed)

    seed_step(seed, 0)
    network: nn.Module = plugin.network(config)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    model, optimizer = fabric.setup(network, optimizer)
    first, best_loss, best, waited = 0, math.inf, network.state_dict(), 0
    if state := run.resume():
        first, best_loss, best, waited = (
            state[key] for key in ("step", "best_loss", "best", "waited")
        )
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])

    began = time.monotonic()
    with progress(f"training {run.facts['plugin']}", training.steps) as advance:
        for step in range(first, training.steps):
            if waited >= training.patience:
                break
            seed_step(seed, 1 + step)
            images, labels = batches(step)
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate * _schedule((step + 1) / training.steps)
            logits = model(to_tensor(images, fabric.device)).float()
            target = torch.from_numpy(labels).to(fabric.device).float()
            loss = F.binary_cross_entropy_with_logits(logits, target)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()

            done = step + 1
            if done % training.validate_every and done != training.steps:
                continue
            network.eval()
            scores = network_logits(network, watched, fabric.device)
            network.train()
            now = float(np.mean(np.logaddexp(0, scores) - truth * scores))
            if not math.isfinite(now):
                raise FacekitError(
                    f"{run.folder}: the validation loss is no number at step {done}; lower "
                    "training.learning_rate"
                )
            waited += 1
            if now < best_loss:
                best_loss, waited = now, 0
                best = {key: value.clone() for key, value in network.state_dict().items()}
            ended = time.monotonic()
            run.log(done, loss=loss.item(), validation_loss=now, seconds=ended - began)
            began = ended
            run.save(
                done,
                {
                    "network": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "best": best,
                    "best_loss": best_loss,
                    "waited": waited,
                },
            )
            advance(done, f"validation loss {now:.3f}")
    log.info("best validation loss %.3f", best_loss)
    network.load_state_dict(best)
    return network.eval()


def _schedule(part: float) -> float:
    """The learning rate, as a share of the highest, after this part of all steps."""
    rise = 0.05
    return (
        part / rise if part < rise else 0.5 + 0.5 * math.cos(math.pi * (part - rise) / (1 - rise))
    )
