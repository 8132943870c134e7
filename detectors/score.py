"""A trained detector as one file, and the class that scores with it.

The file is a facekit checkpoint (safetensors): plug-in, config, weights, calibration, and what it
is calibrated for. A run folder holds it as ``detector.safetensors``; a bundled one lies in
``detectors/weights/NAME.safetensors`` beside ``NAME.json``, its card.
"""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from detectors.calibrate import Calibration, Scores
from facekit.core import checkpoint, files, registry, weights
from facekit.core.config import Config, validate
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.types import Pixels

MODELS = "detectors.models"
FILE = "detector.safetensors"
WEIGHTS = Path(__file__).parent / "weights"
_BATCH = 64


class Detector:
    """A trained and calibrated detector.

    Attributes:
        template, size: what crops it wants: (``facekit.faces.align``'s template, pixels).
        threshold: the probability above which a face counts as generated, from validation data.
        calibrated_for: the kinds of untouched footage it was calibrated on, e.g. ``["studio"]``;
            on any other its probabilities mean nothing.
        facts: ``name``, ``plugin``, ``sha256`` of the file, and a bundled one's card.
    """

    def __init__(
        self, state: dict[str, Any], facts: dict[str, Any], device: torch.device | None = None
    ) -> None:
        """Build the network from what :func:`save` wrote; use :meth:`load`."""
        plugin = registry.load(MODELS, state["plugin"])
        self.config = validate(state["config"], plugin.Config, facts["name"])
        self.template: str = self.config.data.template
        self.size: int = self.config.data.size
        self.calibration = Calibration(**state["calibration"])
        self.threshold = self.calibration.threshold
        self.calibrated_for: list[str] = list(state["calibrated_for"])
        self.facts = facts
        # Those fitted by scikit-learn compute in float64, which not every accelerator has.
        self._device = None if hasattr(plugin, "fit") else device
        self._network: nn.Module = plugin.network(self.config)
        # float32 (or the network's own type) whatever the file holds: bundled ones are float16.
        self._network.load_state_dict(state["weights"])
        self._network.eval()
        if self._device is not None:
            self._network.to(self._device)

    @classmethod
    def load(cls, detector: str | Path, device: torch.device | None = None) -> "Detector":
        """Load from a run folder of ``facekit detector train``, or a bundled one by its name.

        Args:
            detector: the folder, or the name.
            device: where to compute; None: where the weights are read to.

        Raises:
            FacekitError: if there is no such detector, its training has not ended, or its file
                does not match its card (which :mod:`facekit.core.weights` checks).
        """
        folder = Path(detector)
        if folder.is_dir():
            run = Run(folder)
            if not (folder / FILE).is_file():
                raise FacekitError(
                    f"{folder}: no {FILE}; finish its training with 'facekit detector train'"
                )
            path, facts = folder / FILE, {"name": folder.name, "licence": run.facts.get("licence")}
        else:
            path, facts = weights.find(WEIGHTS, str(detector))
        return cls.open(path, facts, device)

    @classmethod
    def open(
        cls, path: Path, facts: dict[str, Any], device: torch.device | None = None
    ) -> "Detector":
        """Load from the file itself; ``facts`` holds its name at least.

        Raises:
            FacekitError: if it is damaged or is not a detector.
        """
        state = checkpoint.load(path)
        if not {"plugin", "config", "weights", "calibration"} <= state.keys():
            raise FacekitError(f"{path}: a checkpoint, but not a calibrated detector")
        facts = {**facts, "plugin": state["plugin"], "sha256": files.sha256(path)}
        return cls(state, facts, device)

    def logits(self, crops: Pixels) -> Scores:
        """The network's own output, before calibration: float64 (N,) for uint8 (N, S, S, 3).

        Raises:
            ValueError: for crops of another shape or type.
            FacekitError: if an output is not a number.
        """
        if crops.dtype != np.uint8 or crops.shape[1:] != (self.size, self.size, 3):
            raise ValueError(
                f"expected uint8 (N, {self.size}, {self.size}, 3), got {crops.dtype} {crops.shape}"
            )
        logits = network_logits(self._network, crops, self._device)
        if not np.isfinite(logits).all():
            raise FacekitError(f"{self.facts['name']}: gives scores that are not numbers")
        return logits

    def score(self, crops: Pixels) -> Scores:
        """P(generated), calibrated, for each crop: float64 (N,) for uint8 RGB (N, S, S, 3).

        Raises:
            ValueError: for crops of another shape or type.
            FacekitError: if an output is not a number.
        """
        return self.calibration.probability(self.logits(crops))


def to_tensor(crops: Pixels, device: torch.device | None = None) -> torch.Tensor:
    """uint8 (N, S, S, 3) to float32 (N, 3, S, S) in [-1, 1]; bytes cross to the device."""
    tensor = torch.from_numpy(np.ascontiguousarray(crops))
    if device is not None:
        tensor = tensor.to(device)
    return tensor.permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.inference_mode()
def network_logits(network: nn.Module, crops: Pixels, device: torch.device | None = None) -> Scores:
    """A network's logits, float64 (N,), for uint8 (N, S, S, 3), in batches of bounded size."""
    parts = [
        network(to_tensor(crops[start : start + _BATCH], device)).double()
        for start in range(0, len(crops), _BATCH)
    ]
    if not parts:
        return np.zeros(0, np.float64)
    scores: Scores = torch.cat(parts).numpy(force=True)
    return scores


def save(
    path: Path,
    *,
    plugin: str,
    config: Config,
    weights: dict[str, torch.Tensor],
    calibration: Calibration,
    calibrated_for: Sequence[str],
) -> None:
    """Write a detector as one file."""
    state = {
        "plugin": plugin,
        "config": config.model_dump(mode="json"),
        "weights": weights,
        "calibration": asdict(calibration),
        "calibrated_for": list(calibrated_for),
    }
    checkpoint.save(path, state)


def bundle(run: Run, name: str, folder: Path = WEIGHTS, *, licence: str = "Apache-2.0") -> Path:
    """Write a finished run's detector as ``folder/NAME.safetensors`` with its card beside it.

    float32 weights become float16, which halves the file; statistics kept in float64 stay.

    Args:
        run: of ``facekit detector train``; its figures are those of ``detector evaluate``.
        name: of letters, digits, ``_`` and ``-``.
        folder: where to.
        licence: of the weights; it follows from the data they were trained on.

    Returns:
        The card's path.

    Raises:
        FacekitError: for a bad name, or a run that is not finished.
    """
    if not name.replace("_", "").replace("-", "").isalnum():
        raise FacekitError(f"name '{name}': use letters, digits, '_' and '-'")
    if not (run.folder / FILE).is_file():
        raise FacekitError(f"{run.folder}: no {FILE}; finish its training first")
    state = checkpoint.load(run.folder / FILE)
    state["weights"] = {
        key: value.half() if value.dtype == torch.float32 else value
        for key, value in state["weights"].items()
    }
    path = folder / f"{name}.safetensors"
    checkpoint.save(path, state)
    evaluation = run.folder / "evaluation.json"
    card = {
        "name": name,
        "file": path.name,
        "sha256": files.sha256(path),
        "plugin": state["plugin"],
        "calibrated_for": state["calibrated_for"],
        "licence": licence,
        "figures": files.read_json(evaluation)["figures"] if evaluation.is_file() else [],
        **{key: run.facts.get(key) for key in ("config", "seed", "data", "data_hash", "minutes")},
        "command": shlex.join(["facekit", *run.facts["command"][1:]]),
    }
    files.write_json(path.with_suffix(".json"), card)
    return path.with_suffix(".json")
