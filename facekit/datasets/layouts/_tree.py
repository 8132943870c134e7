"""What readers of layouts share: walking folders, and saying what was found instead."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from facekit.core.errors import FacekitError
from facekit.media.find import NOT_READ, VIDEO_SUFFIXES
from facekit.media.images import IMAGE_SUFFIXES
from facekit.types import Item

log = logging.getLogger("facekit")

REAL = {"real", "reals", "original", "originals", "authentic", "genuine", "pristine", "untouched"}
"""What people call a folder of untouched media, in lower case."""

FAKE = {
    *("fake", "fakes", "generated", "forged", "forgeries", "manipulated", "synthetic", "altered"),
    *("deepfake", "deepfakes"),
}
"""What people call a folder of generated media, in lower case."""

# What lies beside the pictures in some copies, and would be taken for pictures.
_BESIDE = {"mask", "masks", "landmarks"}
_SHOWN = 8
# Characters that end lines or are no Unicode.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; those that begin with a dot are passed over."""
    found = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in found if path.is_dir())


def media(folder: Path, *, deep: bool = True) -> list[Path]:
    """The pictures and videos in a folder by suffix, sorted.

    Files whose names cannot be printed, as they are no Unicode or break lines, are left out.

    Args:
        folder: to look in; one that does not exist holds none.
        deep: also look in folders below, but for those of masks and landmarks.
    """
    if not folder.is_dir():
        return []
    suffixes = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    found: list[Path] = []
    unread: list[str] = []
    strange: list[str] = []
    for parent, inner, names in os.walk(folder, onerror=_fail):
        inner[:] = [name for name in inner if deep and name.lower() not in _BESIDE]
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in names:
            if name.startswith("."):
                continue
            path = os.path.join(parent, name)  # noqa: PTH118 - there may be a million
            if name.lower().endswith(NOT_READ):
                unread.append(ascii(path))
            elif name.lower().endswith(suffixes):
                if _UNPRINTABLE.search(path.removeprefix(str(folder))):
                    strange.append(ascii(path))
                else:
                    found.append(Path(path))
    leave_out(folder, unread, "of kinds that are not read; convert them to PNG or JPEG")
    leave_out(folder, strange, "whose names cannot be printed")
    return sorted(found)


def _fail(error: OSError) -> None:
    """Folders that may not be read are an error, and not passed over."""
    raise error


def clips(folder: Path) -> list[tuple[str, Path]]:
    """Videos below a folder, or if there are none the frames in folders that stand for videos.

    Returns:
        The clip's name (of the video, or of the folder of frames) and each file.
    """
    found = media(folder)
    videos = [path for path in found if is_video(path)]
    if videos:
        return [(path.stem.removesuffix(".noaudio"), path) for path in videos]
    return [(path.parent.name, path) for path in found]


def is_video(path: Path) -> bool:
    """Whether a file is a video by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def relative(path: Path, folder: Path) -> str:
    """An item's path."""
    return path.relative_to(folder).as_posix()


def item(
    path: Path,
    folder: Path,
    *,
    subject: str,
    source: str,
    label: int | None,
    generator: str = "",
    donor: str = "",
    split: str = "",
    frame: bool = False,
    facts: Mapping[str, object] | None = None,
) -> Item:
    """One item of a layout, of a file that is not hashed.

    Args:
        path: of the file.
        folder: of the data set.
        subject: as in :class:`~facekit.types.Item`, and so are ``source``, ``label`` and ``split``.
        source: see ``subject``.
        label: see ``subject``.
        generator: the method; left out of what is untouched.
        donor: of a swap, the person whose face was put in.
        split: see ``subject``.
        frame: whether the file, if it is a picture, is a frame of the clip that its folder is.
        facts: what else is known.
    """
    known = dict(facts or {})
    if donor:
        known["donor"] = donor
    if frame and not is_video(path):
        known["clip"] = relative(path.parent, folder)
    return Item.model_validate(
        {
            "path": relative(path, folder),
            "sha256": "",
            "subject": subject,
            "source": source,
            "label": label,
            "generator": generator if label else "",
            "split": split,
            "facts": known,
        }
    )


def parse(pattern: str, name: str) -> tuple[str, ...] | None:
    """The groups of a name that matches all of a pattern, else None."""
    match = re.fullmatch(pattern, name)
    return match.groups() if match else None


def leave_out(folder: Path, names: Sequence[str], why: str) -> None:
    """Say in the log what of a folder is not read."""
    if names:
        log.warning("%s: left out %d files %s, e.g. %s", folder, len(names), why, names[0])


def wrong(folder: Path, looked_for: str, why: str = "") -> FacekitError:
    """The error about a folder that is not of a layout.

    Args:
        folder: it may also be missing, or be a file.
        looked_for: the layout's ``LOOKED_FOR``.
        why: what is amiss, where more is known.
    """
    if not folder.exists():
        return FacekitError(f"{folder}: no such folder; looked for {looked_for}")
    if not folder.is_dir():
        return FacekitError(f"{folder}: is a file, not a folder; looked for {looked_for}")
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    found = ", ".join(names[:_SHOWN]) or "nothing"
    if len(names) > _SHOWN:
        found += f" and {len(names) - _SHOWN} more"
    because = f"{why}; " if why else ""
    return FacekitError(f"{folder}: {because}looked for {looked_for}; found {found}")
