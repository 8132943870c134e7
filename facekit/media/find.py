"""Which files to work on: the files and folders that a user names."""

import glob
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from facekit.core.errors import FacekitError
from facekit.media.images import IMAGE_SUFFIXES

VIDEO_SUFFIXES = (
    ".3gp",
    ".asf",
    ".avi",
    ".flv",
    ".gif",
    ".m2ts",
    ".m4v",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".mts",
    ".ogv",
    ".webm",
    ".wmv",
)
"""Suffixes by which a video in a folder is known."""


NOT_READ = (".avif", ".heic", ".heif", ".tif", ".tiff")
"""Suffixes of pictures of kinds that are not read; folders with such are told so."""

log = logging.getLogger("facekit")


def find_media(inputs: Sequence[Path], *, unread: bool = False) -> list[Path]:
    """The pictures and videos among ``inputs``, each once, in the order given.

    A file is taken whatever its suffix: reading it will tell. A folder is searched with all that
    is below it, sorted by path, by suffix; names that begin with a dot are passed over. Patterns
    are expanded as by :func:`expand`.

    Args:
        inputs: files, folders and patterns.
        unread: also take a folder's pictures of kinds that are not read, which are otherwise left
            out with a warning, and log how many files were passed over for their suffix: for who
            accounts for every file.

    Raises:
        FacekitError: if an input does not exist, or a folder holds no picture and no video.
    """
    found: dict[Path, Path] = {}
    for path in expand(inputs):
        if path.is_dir():
            inside = _inside(path, unread)
            if not inside:
                raise FacekitError(f"{path}: no pictures or videos in this folder")
        elif path.exists():
            inside = [path]
        else:
            raise FacekitError(f"{path}: no such file or folder")
        for item in inside:
            found.setdefault(item.resolve(), item)
    return list(found.values())


def expand(inputs: Sequence[Path]) -> list[Path]:
    """Inputs with patterns (``photos/*.jpg``, ``**``) replaced by what they match, sorted.

    The shell does the same, unless the pattern is quoted. What exists under its very name is no
    pattern.

    Raises:
        FacekitError: if a pattern matches nothing.
    """
    expanded = []
    for path in inputs:
        if not glob.has_magic(str(path)) or path.exists():
            expanded.append(path)
            continue
        # Not Path.glob, which takes hidden files as well.
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
        if not matches:
            raise FacekitError(f"{path}: no file or folder matches this pattern")
        expanded += [Path(match) for match in matches]
    return expanded


def listed(path: Path) -> list[Path]:
    """The files, folders and patterns that a list names, one a line.

    Empty lines are passed over. Where the list holds null characters (``find -print0``), these
    stand between the names instead of line ends. Relative names count from the working folder, as
    on the command line.

    Args:
        path: of the list; ``-`` is standard input.

    Raises:
        FacekitError: if it cannot be read, or names nothing.
    """
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise FacekitError(f"{path}: not readable as a list ({error.strerror})") from error
    # As the system spells names: they need not be UTF-8.
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    names = [os.fsdecode(line) for line in lines if line.strip()]
    if not names:
        raise FacekitError(f"{path}: names no file; give one name a line")
    return [Path(name) for name in names]


def _inside(folder: Path, unread: bool) -> list[Path]:
    seen = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    known = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES, *NOT_READ)
    files = [path for path in seen if path.suffix.lower() in known]
    if unread:
        if len(files) < len(seen):
            other = next(path for path in seen if path.suffix.lower() not in known)
            log.info(
                "%s: passed over %d files without the suffix of a picture or a video, e.g. %s; to "
                "have such a file read, name it itself",
                *(folder, len(seen) - len(files), other.relative_to(folder)),
            )
        return files
    strange = [path for path in files if path.suffix.lower() in NOT_READ]
    if strange:
        log.warning(
            "%s: left out %d pictures of kinds that are not read, e.g. %s; convert them to PNG or "
            "JPEG",
            *(folder, len(strange), strange[0].relative_to(folder)),
        )
    return [path for path in files if path.suffix.lower() not in NOT_READ]
