"""Celeb-DF v2: 590 interviews of 59 celebrities, 5639 swaps between them, 300 other clips.

Li, Yang, Sun, Qi & Lyu, "Celeb-DF: A Large-scale Challenging Dataset for DeepFake Forensics", CVPR
2020, arXiv 1909.12962. Terms: academic research, not commercial, no redistribution; on request,
https://github.com/yuezunli/celeb-deepfakeforensics.

``idA_NNNN`` is clip NNNN of celebrity A, and ``idA_idB_NNNN`` the same with the face of B. In
``List_of_testing_videos.txt`` 1 means real. The published test clips show people that training
clips show too; and as each was swapped with many, they all are tied to each other. So give it a
split as a whole, or leave out the swaps between splits (see :mod:`detectors.collections`).
"""

from pathlib import Path

from facekit.core.errors import FacekitError
from facekit.datasets.layouts import _tree
from facekit.datasets.manifest import known_as
from facekit.types import Item

LOOKED_FOR = (
    "Celeb-DF v2: Celeb-real/idA_NNNN.mp4, YouTube-real/NNNNN.mp4, "
    "Celeb-synthesis/idA_idB_NNNN.mp4 (or folders of frames), List_of_testing_videos.txt"
)

_LABELS = {"celeb-real": 0, "youtube-real": 0, "celeb-synthesis": 1}
_TEST = "List_of_testing_videos.txt"


def read(folder: Path) -> list[Item]:
    """The clips; with the list of test videos, they are of split "test", all others "train".

    Raises:
        FacekitError: for another layout, or a list that says otherwise than the folders.
    """
    test = _test_clips(folder)
    items: list[Item] = []
    strange: list[str] = []
    for kind in _tree.folders(folder) if folder.is_dir() else []:
        label = _LABELS.get(kind.name.lower())
        for name, path in _tree.clips(kind) if label is not None else []:
            who = people(name)
            if who is None:
                strange.append(_tree.relative(path, folder))
                continue
            subject, donor, source = who
            split = "test" if (kind.name.lower(), name) in test else "train"
            items.append(
                _tree.item(
                    path,
                    folder,
                    subject=subject,
                    source=source,
                    label=label,
                    generator="Celeb-DF",
                    donor=donor,
                    split=split if test else "",
                    frame=True,
                )
            )
    if not items:
        raise _tree.wrong(folder, LOOKED_FOR)
    _tree.leave_out(folder, strange, "whose names are none of the data set's")
    return items


def people(clip: str) -> tuple[str, str, str] | None:
    """Subject, donor ("" if there is none) and source of a clip, by its name; None if it is none.

    >>> people("id0_id16_0003")
    ('celeb-df:id0', 'celeb-df:id16', 'celeb-df:id0_0003')
    """
    if parts := _tree.parse(r"(id\d+)_(?:(id\d+)_)?(\d{4})", clip):
        target, face, number = parts
        donor = known_as("celeb-df", face) if face else ""
        return known_as("celeb-df", target), donor, known_as("celeb-df", f"{target}_{number}")
    if _tree.parse(r"(\d{5})", clip):
        other = known_as("celeb-df", f"youtube {clip}")
        return other, "", other
    return None


def _test_clips(folder: Path) -> set[tuple[str, str]]:
    """Folder (in lower case) and name of the test clips; empty where there is no list."""
    path = folder / _TEST
    if not path.is_file():
        return set()
    clips = set()
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise FacekitError(f"{path}: not readable ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        parts = _tree.parse(r"([01])\s+([^/\s]+)/(\S+)\.\w+", line.strip())
        kind = parts[1].lower() if parts else ""
        if not parts or kind not in _LABELS:
            raise FacekitError(
                f"{path}, line {number}: not like '1 YouTube-real/00170.mp4' ({line[:60]!r})"
            )
        if int(parts[0]) == _LABELS[kind]:  # there, 1 means real
            raise FacekitError(f"{path}, line {number}: calls a clip of {parts[1]} {parts[0]}")
        clips.add((kind, parts[2]))
    return clips
