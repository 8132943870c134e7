"""A folder ``real`` beside a folder ``fake``: how most small collections come.

The names may also be ``original``, ``authentic``, ``generated``, ``manipulated`` and the like, and
both may lie in folders ``train``, ``validation`` (``val``, ``valid``) and ``test``, which are then
the published splits. Terms are those of whoever made the collection.

A folder in ``fake`` names the method, as in ``fake/stylegan2/0001.png``, unless ``real`` has a
folder of the same name: then it is a person or a clip, as in ``real/ann/1.jpg`` and
``fake/ann/1.jpg``. Files of the same name in both are taken for an original and its forgery.
"""

from collections.abc import Iterator
from pathlib import Path

from facekit.datasets.layouts import _tree
from facekit.types import Item

LOOKED_FOR = (
    "a folder of untouched media (real, original, authentic …) and one of generated media (fake, "
    "generated, manipulated …), also within train, validation and test"
)

_SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(
    ("validation", "val", "valid"), "validation"
)


def read(folder: Path) -> list[Item]:
    """The pictures and videos of both folders.

    Raises:
        FacekitError: for another layout, or one of the two missing or empty.
    """
    if not folder.is_dir():
        raise _tree.wrong(folder, LOOKED_FOR)
    parted = [(inner, _SPLITS.get(inner.name.lower(), "")) for inner in _tree.folders(folder)]
    roots = [(folder, ""), *((inner, split) for inner, split in parted if split)]
    items = [item for root, split in roots for item in _items(folder, root, split)]
    labels = {item.label for item in items}
    if labels != {0, 1}:
        absent = "untouched" if 1 in labels else "generated"
        raise _tree.wrong(folder, LOOKED_FOR, f"no {absent} media there" if labels else "")
    return items


def _items(folder: Path, root: Path, split: str) -> Iterator[Item]:
    inner = _tree.folders(root)
    real = [path for path in inner if path.name.lower() in _tree.REAL]
    fake = [path for path in inner if path.name.lower() in _tree.FAKE]
    shared = {path.name for top in real for path in _tree.folders(top)} & {
        path.name for top in fake for path in _tree.folders(top)
    }
    for tops, label in ((real, 0), (fake, 1)):
        for top in tops:
            for path in _tree.media(top):
                parts = path.relative_to(top).with_suffix("").parts
                method = ""
                if label and len(parts) > 1 and parts[0] not in shared:
                    method, *rest = parts
                    parts = tuple(rest)
                name = "/".join(parts)
                yield _tree.item(
                    path,
                    folder,
                    subject=parts[0] if parts[0] in shared else name,
                    source=name,
                    label=label,
                    generator=method,
                    split=split,
                )
