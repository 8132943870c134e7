"""A trained detector as one file, and the class that scores with it.

A detector is one or more *members*, networks that each look at the same face in their own way;
their logits are added up by logistic regression (``detectors.stack``) and calibrated. The file is
a facekit checkpoint (safetensors): the members' plug-ins, configs and weights, the stack, the
calibration, what it is calibrated for, and which pictures it has seen, by their hashes. A run
folder holds it as ``detector.safetensors``; a bundled one lies in
``detectors/weights/NAME.safetensors`` beside ``NAME.json``, its card.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from scipy.special import expit
from torch import nn

from detectors.calibrate import Calibration, Scores
from detectors.regions import Region, crops
from detectors.stack import Stack
from detectors.world import within
from facekit.core import checkpoint, files, registry, weights
from facekit.core.config import Config, validate
from facekit.core.errors import FacekitError
from facekit.core.progress import log
from facekit.core.run import Run
from facekit.core.text import command_line
from facekit.types import Pixels

MODELS = "detectors.models"
FILE = "detector.safetensors"
WEIGHTS = Path(__file__).parent / "weights"
_BATCH = 32
_FREE = "Apache-2.0"
_PARTS = {"members", "stack", "calibration", "calibrated_for", "seen"}


class Scorer(Protocol):
    """Whatever can be measured as a detector: ours, a published one, somebody's ONNX file.

    Attributes:
        name: for tables.
    """

    @property
    def name(self) -> str:
        """For tables."""
        ...

    def score(self, regions: Sequence[Region]) -> Scores:
        """P(generated) of each region's face: float64 (N,) in [0, 1]."""
        ...


@dataclass(frozen=True)
class Member:
    """One network of a detector, and what it wants to see.

    Attributes:
        name: of the member, unique in its detector.
        plugin: the plug-in in ``detectors.models``.
        config: its ``Config``.
        network: maps crops to logits.
        device: where it computes; None: where its weights are.
    """

    name: str
    plugin: str
    config: Any
    network: nn.Module
    device: torch.device | None = None

    def logits(self, regions: Sequence[Region]) -> Scores:
        """The network's own output, float64 (N,); only a batch of crops is held at a time.

        Faces that are larger or smaller than any that training showed are resized first.

        Raises:
            FacekitError: if an output is not a number.
        """
        data = self.config.data
        parts = [np.zeros(0)]
        for start in range(0, len(regions), _BATCH):
            shown = [within(region, data.world) for region in regions[start : start + _BATCH]]
            seen = crops(shown, data.template, data.size)
            parts.append(network_logits(self.network, seen, self.device))
        logits = np.concatenate(parts)
        if not np.isfinite(logits).all():
            raise FacekitError(f"{self.name}: gives scores that are not numbers")
        return logits

    def state(self) -> dict[str, Any]:
        """What a detector's file keeps of it."""
        return {
            "name": self.name,
            "plugin": self.plugin,
            "config": self.config.model_dump(mode="json"),
            "weights": self.network.state_dict(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device | None = None) -> "Member":
        """Build it from what :meth:`state` gave.

        Raises:
            FacekitError: if the plug-in is unknown, or weights and config do not fit together.
        """
        plugin = registry.load(MODELS, state["plugin"])
        config: Config = validate(state["config"], plugin.Config, state["name"])
        network: nn.Module = plugin.network(config)
        try:
            # float32 (or the network's own type) whatever the file holds: bundled ones are float16.
            network.load_state_dict(state["weights"])
        except RuntimeError as error:
            raise FacekitError(
                f"{state['name']}: its weights are not those of the {state['plugin']} that its "
                "config describes; train it again"
            ) from error
        network.eval()
        # Those fitted by scikit-learn compute in float64, which not every accelerator has.
        device = None if hasattr(plugin, "fit") else device
        if device is not None:
            network.to(device)
        return cls(state["name"], state["plugin"], config, network, device)


class Detector:
    """A trained and calibrated detector.

    Attributes:
        parts: its members.
        stack: adds up the members' logits.
        calibration: from a logit to a probability, a threshold and more.
        threshold: the probability above which a face counts as generated, from held-out data.
        calibrated_for: the kinds of untouched footage it was calibrated on, e.g. ``["studio"]``;
            on any other its probabilities mean nothing.
        seen: the digests (as ``detectors.data.FaceSet``'s) of the pictures it was made from.
        facts: ``name``, ``plugin`` (the members', joined by +), ``sha256`` of the file, and a
            bundled one's card.
    """

    def __init__(
        self, state: dict[str, Any], facts: dict[str, Any], device: torch.device | None = None
    ) -> None:
        """Build the networks from what :func:`save` wrote; use :meth:`load`."""
        self.parts = [Member.from_state(member, device) for member in state["members"]]
        self.stack = Stack.from_state(state["stack"])
        self.calibration = Calibration.from_state(state["calibration"])
        self.threshold = self.calibration.threshold
        self.calibrated_for: list[str] = list(state["calibrated_for"])
        self.seen = frozenset(_digests(state["seen"]))
        self.facts = {**facts, "plugin": "+".join(member.plugin for member in self.parts)}

    @property
    def name(self) -> str:
        """Its name, for tables."""
        return str(self.facts["name"])

    @classmethod
    def load(cls, detector: str | Path, device: torch.device | None = None) -> "Detector":
        """Load from a run folder of ``facekit detector train``, or a bundled one by its name.

        A licence of bundled weights that binds the user is logged.

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
            if facts["licence"] != _FREE:
                log.info(
                    "detector %s: the licence of its weights is: %s", detector, facts["licence"]
                )
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
        if not state.keys() >= _PARTS:
            raise FacekitError(f"{path}: a checkpoint, but not a calibrated detector")
        return cls(state, {**facts, "sha256": files.sha256(path)}, device)

    def logits(self, regions: Sequence[Region]) -> Scores:
        """The members' logits added up, before calibration: float64 (N,).

        Raises:
            FacekitError: if an output is not a number.
        """
        return self.stack.logits(np.stack([part.logits(regions) for part in self.parts], axis=1))

    def score(self, regions: Sequence[Region]) -> Scores:
        """P(generated), calibrated, of each region's face: float64 (N,) in [0, 1].

        Raises:
            FacekitError: if an output is not a number.
        """
        return self.calibration.probability(self.logits(regions))

    def members(self, regions: Sequence[Region]) -> dict[str, Scores]:
        """What each member alone says, uncalibrated: the sigmoid of its logit, (N,) each."""
        return self.score_all(regions)[1]

    def score_all(self, regions: Sequence[Region]) -> tuple[Scores, dict[str, Scores]]:
        """:meth:`score` and :meth:`members` at once: each member looks once."""
        logits = {part.name: part.logits(regions) for part in self.parts}
        stacked = self.stack.logits(np.stack(list(logits.values()), axis=1))
        members: dict[str, Scores] = {name: expit(values) for name, values in logits.items()}
        return self.calibration.probability(stacked), members


def _digests(seen: torch.Tensor) -> list[str]:
    """16 hex digits of each; a file holds them as integers of 64 bits."""
    return [f"{number & 0xFFFFFFFFFFFFFFFF:016x}" for number in seen.tolist()]


def to_tensor(crops: Pixels, device: torch.device | None = None) -> torch.Tensor:
    """uint8 (N, S, S, 3) to float32 (N, 3, S, S) in [-1, 1]; bytes cross to the device.

    The channels stay last in memory, which convolutions on a processor are quickest with.
    """
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
    members: Sequence[Member],
    stack: Stack,
    calibration: Calibration,
    calibrated_for: Sequence[str],
    seen: Collection[str],
) -> None:
    """Write a detector as one file."""
    numbers = np.array(sorted(int(digest, 16) for digest in set(seen)), np.uint64)
    state = {
        "members": [member.state() for member in members],
        "stack": stack.to_state(),
        "calibration": calibration.to_state(),
        "calibrated_for": list(calibrated_for),
        "seen": torch.from_numpy(numbers.view(np.int64)),
    }
    checkpoint.save(path, state)


def bundle(
    run: Run,
    name: str,
    folder: Path = WEIGHTS,
    *,
    licence: str = _FREE,
    evaluation: Path | None = None,
) -> Path:
    """Write a finished run's detector as ``folder/NAME.safetensors`` with its card beside it.

    float32 weights become float16, which halves the file; statistics kept in float64 stay. The
    calibration is that of the weights before; the card says so, and which file was measured.

    Args:
        run: of ``facekit detector train``.
        name: of letters, digits, ``_`` and ``-``.
        folder: where to.
        licence: of the weights; it follows from the data they were trained on.
        evaluation: folder that ``facekit detector evaluate CONFIG`` wrote, of the run's detector
            or the bundled file, to take the card's figures from; None: what lies in the run.

    Returns:
        The card's path.

    Raises:
        FacekitError: for a bad name, a run that is not finished, or an evaluation that is missing
            or of another detector.
    """
    if not name.replace("_", "").replace("-", "").isalnum():
        raise FacekitError(f"name '{name}': use letters, digits, '_' and '-'")
    if not (run.folder / FILE).is_file():
        raise FacekitError(f"{run.folder}: no {FILE}; finish its training first")
    state = checkpoint.load(run.folder / FILE)
    for member in state["members"]:
        member["weights"] = {
            key: value.half() if value.dtype == torch.float32 else value
            for key, value in member["weights"].items()
        }
    path = folder / f"{name}.safetensors"
    with files.replacing(path) as partial:
        checkpoint.save(partial, state)
        sha256 = files.sha256(partial)
        own = files.sha256(run.folder / FILE)
        told, measured = _measured(run, evaluation, own, sha256)
    card = {
        "name": name,
        "file": path.name,
        "sha256": sha256,
        "plugin": "+".join(member["plugin"] for member in state["members"]),
        "calibrated_for": state["calibrated_for"],
        "licence": licence,
        "figures": told.get("figures", []),
        "reliability": told.get("reliability", []),
        "false_positives": _false_positives(told.get("figures", [])),
        "measured": measured,
        # Those that scikit-learn fitted are float64, and stay.
        "rounded": None if sha256 == own else "float32 weights to float16, after calibration",
        **{key: run.facts.get(key) for key in ("config", "seed", "data", "data_hash", "minutes")},
        # Members taken from other detectors: the file's hash.
        **({"kept": run.facts["kept"]} if "kept" in run.facts else {}),
        "command": command_line(run.facts["command"]),
    }
    files.write_json(path.with_suffix(".json"), card)
    return path.with_suffix(".json")


def _false_positives(figures: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """How often unseen people's untouched faces lay above the threshold, of how many."""
    named = {row["name"]: row for row in figures}
    rate, count = (named.get(f"detect.false_positives{end}") for end in ("", ".faces"))
    if rate is None or count is None:
        return None
    ends = [rate["low"], rate["high"]]
    return {"rate": rate["value"], "interval": ends, "faces": int(count["value"])}


def _measured(
    run: Run, evaluation: Path | None, own: str, sha256: str
) -> tuple[dict[str, Any], str | None]:
    """The evaluation for a card, and which file it was measured on; empty if there is none.

    Raises:
        FacekitError: if ``evaluation`` is not one of the run's detector, whose file's hash is
            ``own``, or of the bundled file, whose hash is ``sha256``.
    """
    from detectors.outcome import LABELS, PROTOCOL

    folder = evaluation or run.folder
    if not (folder / "evaluation.json").is_file():
        if evaluation:
            raise FacekitError(f"{evaluation}: no evaluation.json; give the --out of an evaluation")
        return {}, None
    known = {
        own: f"the run's {FILE}, before it was rounded (sha256 {own})",
        sha256: "this file",
    }
    hint = "measure it with 'facekit detector evaluate CONFIG --detector RUN --data DATA --out DIR'"
    if (folder / PROTOCOL).is_file():
        protocol = files.read_json(folder / PROTOCOL)
        detector = protocol.get("detector") if isinstance(protocol, dict) else None
        found = detector.get("sha256") if isinstance(detector, dict) else None
        if found not in (own, sha256):
            raise FacekitError(f"{folder}: measured another detector than {run.folder}'s; {hint}")
    elif (folder / LABELS).is_file() or folder.resolve() != run.folder.resolve():
        # Of scores in a file, or of some run: only a run's own evaluation is kept in the run.
        raise FacekitError(f"{folder}: does not say which detector it measured; {hint}")
    else:
        found = own
    told: dict[str, Any] = files.read_json(folder / "evaluation.json")
    return told, known[found]
