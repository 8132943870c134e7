"""What long work on many files has done so far, in a file that survives a kill at any point."""

import json
import logging
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from facekit.core import files
from facekit.core.errors import FacekitError

log = logging.getLogger("facekit")

Row = dict[str, Any]
Identity = list[int] | None
"""What tells whether a file has changed; None if there is none."""


def identity(path: Path) -> Identity:
    """A file's size and when it was written; look before you read the file."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return None
    return [stat.st_size, stat.st_mtime_ns]


@dataclass(frozen=True)
class _Entry:
    """The rows of a file that is done: from byte, to byte of the journal."""

    begin: int
    end: int


class Journal:
    """Rows, file by file; the same call reads them again after an interruption and goes on.

    Its lines are JSON: the settings; then a file's rows, and behind them one that says that it is
    done. Rows that no such line follows are of a file that was not done, and are cut off; those of
    a file that has changed since are not taken over. It is locked while it is open.
    """

    def __init__(self, path: Path, settings: Row, *, out: Path) -> None:
        """Touch nothing yet.

        Args:
            path: of the journal.
            settings: what the rows depend on, beside the files; what was done with others is
                refused, and left alone.
            out: what the user named to be written, for messages.
        """
        self._path = path
        self._settings = settings
        self._out = out
        self._done: dict[str, _Entry] = {}
        self._begin = self._end = 0  # of the rows of the file under way

    def __enter__(self) -> "Journal":
        """Open it, and find what is done.

        Raises:
            FacekitError: if it cannot be written, another process writes it, or it holds what was
                done with other settings.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = self._path.open("a+b")
        except OSError as error:
            raise FacekitError(
                f"--out {self._out}: cannot be written to ({error.strerror})"
            ) from error
        try:
            if not files.lock(self._file):
                raise FacekitError(f"--out {self._out}: another facekit writes it now")
            self._read()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it; if work was broken off, say that it can go on."""
        with suppress(OSError) if kind else nullcontext():  # the disk may be full
            self._file.close()
        if kind and self._done:
            log.warning(
                "%s: not finished; %d files are done: give the same command to go on",
                *(self._out, len(self._done)),
            )

    def has(self, path: Path) -> bool:
        """Whether the file is done, and had not changed when the journal was opened."""
        return path.as_posix() in self._done

    def write(self, row: Row) -> None:
        """Add a row of the file that is under way.

        Raises:
            FacekitError: if it cannot be written, for lack of space for instance.
        """
        try:
            # ASCII: names of files may hold what is no UTF-8.
            self._end += self._file.write((json.dumps(row) + "\n").encode("ascii"))
        except OSError as error:
            raise self._unwritable(error) from error

    def end(self, path: Path, before: Identity) -> None:
        """The rows of the file are all there; ``before`` is its :func:`identity`.

        Raises:
            FacekitError: if they cannot be written.
        """
        entry = _Entry(self._begin, self._end)
        self.write({"done": path.as_posix(), "identity": before})
        try:
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error
        self._done[path.as_posix()] = entry
        self._begin = self._end

    def lines(self, path: Path) -> Iterator[bytes]:
        """The rows of a file that is done, as they are written; none is added meanwhile."""
        entry = self._done[path.as_posix()]
        self._file.seek(entry.begin)
        while self._file.tell() < entry.end:
            yield self._file.readline()

    def remove(self) -> None:
        """Its rows are where they belong: it has served."""
        self._path.unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> FacekitError:
        return FacekitError(f"{self._path}: cannot be written ({error.strerror or error})")

    def _read(self) -> None:
        """Find what is done and has not changed, and cut off what is not done."""
        self._file.seek(0)
        line = self._file.readline()
        if line.endswith(b"\n"):
            head = _parsed(line)
            if head != {"settings": self._settings}:
                raise FacekitError(
                    f"{self._path}: holds what an interrupted call with other settings had done "
                    f"({_difference(head, self._settings)}); give the same settings, remove it, or "
                    "give another --out"
                )
            begin = end = self._end = self._file.tell()
            while (row := _parsed(self._file.readline())) is not None:
                if "done" in row:
                    self._take(row, _Entry(begin, end))
                    begin = self._end = self._file.tell()
                end = self._file.tell()
        self._file.truncate(self._end)
        self._file.seek(0, 2)
        if not self._end:
            self.write({"settings": self._settings})
            self._file.flush()
        self._begin = self._end

    def _take(self, row: Row, entry: _Entry) -> None:
        """Take over a file's rows; the last are those that count."""
        self._done.pop(row["done"], None)
        if row["identity"] == identity(Path(row["done"])):
            self._done[row["done"]] = entry


def _parsed(line: bytes) -> Row | None:
    """A line; None behind the last, and for one that was cut off."""
    try:
        value = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _difference(head: Row | None, new: Row) -> str:
    old = (head or {}).get("settings")
    if not isinstance(old, dict):
        return "it is something else"
    changed = [name for name in new if old.get(name) != new[name]]
    return ", ".join(f"{name} {old.get(name)}, now {new[name]}" for name in changed)
