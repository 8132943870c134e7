"""The run folder: all that is needed to say what was run, to resume it and to use its result.

    RUN/
      run.json            plug-in, resolved config, command, seed, threads, versions, data hash
      metrics.jsonl       one row a logged step
      step-00000400.safetensors   the newest two checkpoints

A run killed at any step resumes from its newest checkpoint to the same bits as an unbroken run at
the same thread count: state lives in the checkpoint, randomness is a function of (seed, step).
"""

import json
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, Self

from facekit import __version__
from facekit.core import checkpoint, files
from facekit.core.config import Config
from facekit.core.errors import FacekitError

_PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "av", "scikit-learn")
_KEEP = 2
_IDENTITY = ("plugin", "config", "seed", "data_hash", "threads", "precision")


class Stateful(Protocol):
    """What a checkpoint keeps the state of: a network, an optimiser."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Take over a state."""


class Run:
    """One run folder, opened to train or to use.

    Attributes:
        folder: where it lies.
        facts: the content of ``run.json``.
        notes: texts that every checkpoint carries along, by name.
    """

    def __init__(self, folder: Path) -> None:
        """Open an existing run.

        Raises:
            FacekitError: if the folder holds no ``run.json``, or one that lacks a key.
        """
        self.folder = folder
        self.notes: dict[str, str] = {}
        if not (folder / "run.json").is_file():
            raise FacekitError(
                f"{folder}: not a run folder (no run.json); give one made by 'train'"
            )
        self.facts: dict[str, Any] = files.read_json(folder / "run.json")
        if not isinstance(self.facts, dict):
            raise FacekitError(f"{folder / 'run.json'}: damaged; expected a JSON object")
        if missing := [key for key in _IDENTITY if key not in self.facts]:
            raise FacekitError(
                f"{folder / 'run.json'}: does not say {', '.join(missing)}; it is damaged or of "
                "another version of facekit; train anew with another --out"
            )

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        plugin: str,
        config: Config,
        seed: int,
        data_hash: str,
        threads: int,
        precision: str,
    ) -> Self:
        """Make a run folder, or open it to resume if it was made from the same inputs.

        Raises:
            FacekitError: if the folder holds a run of another plug-in, config, seed, data,
                thread count or precision; the difference is named.
        """
        values = (plugin, config.model_dump(mode="json"), seed, data_hash, threads, precision)
        identity = dict(zip(_IDENTITY, values, strict=True))
        if (folder / "run.json").exists():
            run = cls(folder)
            for key, value in identity.items():
                if run.facts.get(key) != value:
                    raise FacekitError(
                        f"{folder}: holds a run with another {key} ({run.facts.get(key)!r}, now "
                        f"{value!r}); resume with the same, or give another --out"
                    )
            return run
        facts = {
            **identity,
            "facekit": __version__,
            "command": sys.argv,
            "git_commit": _git_commit(),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "packages": {name: _version(name) for name in _PACKAGES},
        }
        files.write_json(folder / "run.json", facts)
        return cls(folder)

    def identity(self) -> dict[str, Any]:
        """What two runs have in common that are the same to the bit."""
        return {key: self.facts[key] for key in _IDENTITY}

    def note(self, **facts: Any) -> None:
        """Add facts to ``run.json``, e.g. the minutes that training took."""
        self.facts |= facts
        files.write_json(self.folder / "run.json", self.facts)

    def log(self, step: int, **values: float) -> None:
        """Append one row to ``metrics.jsonl``.

        Raises:
            FacekitError: if it cannot be written, as on a full disk.
        """
        path = self.folder / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            raise FacekitError(
                f"{path}: cannot be written ({error.strerror}); free some space, and give the same "
                "command again to go on from the last checkpoint"
            ) from error

    def discard_if_unused(self) -> None:
        """Take the folder away if nothing was trained in it, as when training refused its data."""
        if [path.name for path in self.folder.iterdir()] == ["run.json"]:
            (self.folder / "run.json").unlink()
            self.folder.rmdir()

    def metrics(self) -> list[dict[str, Any]]:
        """The rows logged so far."""
        path = self.folder / "metrics.jsonl"
        return files.read_jsonl(path) if path.exists() else []

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint after ``step`` steps, and delete all but the newest two."""
        path = self.folder / f"step-{step:08d}.safetensors"
        checkpoint.save(path, {"step": step, **state}, self.notes)
        for old in self.checkpoints()[:-_KEEP]:
            old.unlink()

    def latest(self) -> dict[str, Any] | None:
        """The newest checkpoint's state with its ``step``; None if there is none.

        Use it to look at a run; to go on training, use :meth:`resume`.
        """
        found = self.checkpoints()
        return checkpoint.load(found[-1]) if found else None

    def trained(self) -> dict[str, Any]:
        """As :meth:`latest`, of a run that is to be used.

        Raises:
            FacekitError: if there is no checkpoint yet.
        """
        state = self.latest()
        if state is None:
            raise FacekitError(
                f"{self.folder}: holds no checkpoint; finish its training: give its command again"
            )
        return state

    def resume(self) -> dict[str, Any] | None:
        """As :meth:`latest`, and forget the metrics logged after that checkpoint."""
        state = self.latest()
        step = state["step"] if state else 0
        if (self.folder / "metrics.jsonl").exists():
            # A line that a kill cut short is among those to be forgotten: read leniently.
            lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            whole = (line for line in lines if line.endswith("}"))
            rows = [row for row in map(json.loads, whole) if row["step"] <= step]
            files.write_jsonl(self.folder / "metrics.jsonl", rows)
        return state

    def restore(self, state: dict[str, Any], **parts: Stateful) -> int:
        """Give networks and optimisers what a checkpoint holds of them.

        Args:
            state: of :meth:`resume`.
            parts: by their names in it.

        Returns:
            The step after which it was written.

        Raises:
            FacekitError: if it was written by another version, of other parts or shapes.
        """
        try:
            for name, part in parts.items():
                part.load_state_dict(state[name])
            return int(state["step"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise FacekitError(
                f"{self.folder}: its checkpoint is of another version of {self.facts['plugin']} "
                f"(facekit {self.facts['facekit']}); train anew with another --out"
            ) from error

    def checkpoints(self) -> list[Path]:
        """The checkpoints' files, the newest last."""
        return sorted(self.folder.glob("step-*.safetensors"))


def _git_commit() -> str | None:
    """The commit of the source tree, with "+" if it was changed; None outside a checkout."""
    source = Path(__file__).parent
    try:
        git = ["git", "-C", str(source)]
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if commit.returncode:
        return None
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
