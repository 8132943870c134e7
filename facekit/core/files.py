"""Files that are never half-written: write beside, then rename."""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from facekit.core.errors import FacekitError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; on success it is renamed to ``path``.

    The suffix is kept, so that encoders which look at it choose the right format. If the body
    raises, the partial file is removed and ``path`` stays as it was.

    Raises:
        FacekitError: if the folder cannot be made or written to, or the disk is full.
    """
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        # Only trouble with this very file is ours to explain; the body's own errors pass through.
        ours = (None, str(partial), str(path), *map(str, path.parents))
        if error.filename not in ours:
            raise
        raise FacekitError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if partial.parent.is_dir():
            partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, wholly or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write ``content`` to ``path`` as UTF-8, wholly or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with a stable order of keys."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FacekitError: if it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FacekitError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FacekitError(f"{path}: not readable as JSON ({error})") from error


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    lines = (json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in rows)
    write_text(path, "".join(lines))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line.

    Raises:
        FacekitError: if it is missing, or a line is not a JSON object; the line is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FacekitError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FacekitError(f"{path}: not readable ({error})") from error
    rows = []
    # Not splitlines: it also splits at characters that JSON leaves as they are in its strings.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise FacekitError(f"{path}, line {number}: not JSON ({error.msg})") from error
        if not isinstance(row, dict):
            raise FacekitError(f"{path}, line {number}: expected an object, got {line[:40]!r}")
        rows.append(row)
    return rows


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock(file: IO[bytes], *, surely: bool = False) -> bool:
    """Lock an open file until it is closed; False if another process has.

    Args:
        file: the open file.
        surely: also False where the system has no locks, so that nobody can tell.
    """
    if sys.platform == "win32":
        return not surely
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network disk may have no locks; one process alone needs none
        return not surely
    return True
