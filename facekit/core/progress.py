"""Progress bars on long work: on a terminal only, silent in logs, pipes and under ``-q``.

What is said, and how loudly, is the standard ``logging`` level of the logger ``facekit``:
``-q`` WARNING, default INFO, ``-v`` DEBUG.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

log = logging.getLogger("facekit")

Advance = Callable[[int, str], None]
"""Takes the absolute count so far, and a short text that is shown at the right (may be empty)."""
Bar = Callable[[str, int | None], AbstractContextManager[Advance]]
"""Shows the progress of what has a title and a total: :func:`progress`, or what stands for it."""


def set_verbosity(verbose: int, quiet: bool) -> None:
    """Set the level of what the command line says on standard error."""
    logging.basicConfig(format="%(message)s", handlers=[_Handler()])
    log.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to what standard error is by then: below a bar, that sets lines above it."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, stream: TextIO) -> None: ...


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Advance]:
    """Show a bar with ``title`` and the time left while the body runs.

    What is printed or logged meanwhile stands above it.

    Yields:
        ``advance(done, note)``.
    """
    console = Console(stderr=True)
    visible = console.is_terminal and log.isEnabledFor(logging.INFO)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    # Rich would send what is printed to the bar's own stream, even where that is not the terminal.
    both = sys.stdout.isatty()
    with Progress(
        *columns, console=console, disable=not visible, transient=True, redirect_stdout=both
    ) as bar:
        task = bar.add_task(title, total=total, note="")

        def advance(done: int, note: str = "") -> None:
            bar.update(task, completed=done, note=note)

        yield advance
