"""Who is in which file: the part of a consent record that takes work to write."""

import csv
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.media.find import VIDEO_SUFFIXES, find_media
from facekit.media.images import IMAGE_SUFFIXES, is_image

_PLACE = "{subject}"


class WhoIsIn(Protocol):
    """Says who is in ``file``, which was found in ``given``; for a single file the two are one."""

    def __call__(self, given: Path, file: Path) -> Collection[str]:
        """Pseudonyms of everyone in it."""
        ...


def everyone_in(paths: Sequence[Path], who: WhoIsIn) -> dict[str, set[str]]:
    """SHA-256 of each picture and video in ``paths`` → pseudonyms of everyone in it.

    Args:
        paths: files and folders.
        who: says who is in a file. Where equal files are found, everyone said of any counts.

    Raises:
        FacekitError: if a path holds no media, is neither a picture nor a video, or can't be read;
            or if ``who`` does not know.
    """
    found: dict[str, set[str]] = {}
    pairs = [(given, file) for given in paths for file in find_media([given])]
    with progress("reading", len(pairs)) as advance:
        for done, (given, file) in enumerate(pairs, start=1):
            try:
                _require_media(file)
                found.setdefault(files.sha256(file), set()).update(who(given, file))
            except OSError as error:
                raise FacekitError(f"{file}: not readable ({error.strerror})") from error
            advance(done, "")
    return found


def _require_media(file: Path) -> None:
    """See that it is a picture or a video: known by its name, or a picture by how it begins.

    Raises:
        FacekitError: if it is neither.
    """
    if file.suffix.lower() not in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES) and not is_image(file):
        raise FacekitError(
            f"{file}: neither a picture nor a video that facekit reads ("
            f"{', '.join(suffix[1:] for suffix in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))}); a form or "
            "letter belongs to --evidence, other pictures are to be converted first"
        )


def always(*people: str) -> WhoIsIn:
    """The same people in every file."""
    return lambda given, file: people


def told_by(layout: str, prefix: str = "") -> WhoIsIn:
    """As the layout of a data set tells.

    Args:
        layout: "folder" (a folder for each person, named by the pseudonym), the path of a CSV with
            the columns ``file`` and ``subject`` (a row for each person in a file), or a file name's
            pattern with ``{subject}`` in it, e.g. ``{subject}_*.jpg``.
        prefix: put before each pseudonym, so that it differs from those of other data sets.

    Raises:
        FacekitError: if it is none of these, or an index gives an age below 18.
    """
    told: WhoIsIn
    if layout == "folder":
        told = _by_folder
    elif _PLACE in layout:
        told = _by_name(layout)
    elif layout.lower().endswith(".csv"):
        told = _by_index(Path(layout))
    else:
        raise FacekitError(
            f"'{layout}' tells nobody's pseudonym; allowed: folder, a .csv file with the columns "
            f"file and subject, or a file name's pattern such as '{_PLACE}_*.jpg'"
        )
    return lambda given, file: [prefix + name for name in told(given, file)]


def _by_folder(given: Path, file: Path) -> list[str]:
    inner = file.relative_to(given).parts if given.is_dir() else ()
    if len(inner) < 2:
        raise FacekitError(
            f"{file}: is in no folder of a person; expected {given}/PSEUDONYM/{file.name}"
        )
    return [inner[0]]


def _by_name(pattern: str) -> WhoIsIn:
    if pattern.count(_PLACE) != 1:
        raise FacekitError(f"'{pattern}': {_PLACE} must stand in it once")
    shape = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    # The shortest that fits: of 001_smiling_2.jpg, '{subject}_*' takes 001.
    shape = shape.replace(re.escape(_PLACE), "(.+?)")

    def told(given: Path, file: Path) -> list[str]:
        match = re.fullmatch(shape, file.name)
        if not match:
            raise FacekitError(f"{file}: its name does not fit the pattern '{pattern}'")
        return [match[1]]

    return told


def _by_index(path: Path) -> WhoIsIn:
    rows: dict[str, list[str]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"file", "subject"} <= set(reader.fieldnames or ()):
                raise FacekitError(
                    f"{path}: needs the columns 'file' and 'subject', has "
                    f"{', '.join(reader.fieldnames or ()) or 'none'}"
                )
            for row in reader:
                if not row["file"] or not row["subject"]:
                    raise FacekitError(f"{path}, line {reader.line_num}: no file or no subject")
                _require_adult(row.get("age"), f"{path}, line {reader.line_num}: {row['subject']}")
                rows.setdefault(Path(row["file"]).as_posix(), []).append(row["subject"])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FacekitError(f"{path}: not readable as CSV ({error})") from error

    def told(given: Path, file: Path) -> list[str]:
        # Relative to the folder given or to the index's own.
        names = [
            file.relative_to(home).as_posix()
            for home in (given, path.parent)
            if file.is_relative_to(home) and file != home
        ]
        for name in names or [file.name]:
            if name in rows:
                return rows[name]
        raise FacekitError(f"{file}: not in {path}; add a row for everyone in it, or move it away")

    return told


def _require_adult(age: str | None, who: str) -> None:
    try:
        young = age is not None and float(age) < 18
    except ValueError:  # not said
        return
    if young:
        raise FacekitError(f"{who} is {age}; minors can't be recorded, so leave their photos out")
