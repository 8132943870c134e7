"""A run's metrics for TensorBoard, an extra: copied from ``metrics.jsonl`` while it grows."""

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from facekit.core.errors import FacekitError

FOLDER = "tensorboard"
"""In the run folder: ``tensorboard --logdir RUN/tensorboard``."""

_EVERY = 5.0  # seconds


@contextmanager
def copied(folder: Path) -> Iterator[None]:
    """Copy ``folder``'s metrics to ``folder/tensorboard`` during the body and at its end.

    Raises:
        FacekitError: if TensorBoard is not installed.
    """
    copy = _Copy(folder)
    over = Event()

    def follow() -> None:
        while not over.wait(_EVERY):
            copy.update()

    thread = Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        copy.update()
        copy.close()


class _Copy:
    """What has been copied so far."""

    def __init__(self, folder: Path) -> None:
        self._rows, self._target = folder / "metrics.jsonl", folder / FOLDER
        self._begin()

    def _begin(self) -> None:
        try:
            with warnings.catch_warnings():  # of what it imports in turn
                warnings.simplefilter("ignore")
                from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise FacekitError(
                "--tensorboard: TensorBoard is not installed; "
                "pip install 'facekit-toolkit[tensorboard]'"
            ) from error
        # All of it anew: what a resumed run has forgotten must not stay.
        shutil.rmtree(self._target, ignore_errors=True)
        self._writer: Any = SummaryWriter(str(self._target))
        self._copied: list[str] = []

    def update(self) -> None:
        """Copy the rows that are new."""
        text = self._rows.read_text(encoding="utf-8") if self._rows.exists() else ""
        lines = [line for line in text.splitlines() if line.endswith("}")]  # the last may be cut
        if lines[: len(self._copied)] != self._copied:
            self.close()
            self._begin()
        for line in lines[len(self._copied) :]:
            row = json.loads(line)
            for name, value in row.items():
                if name != "step":
                    self._writer.add_scalar(name, value, row["step"])
        self._copied = lines
        self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        self._writer.close()
