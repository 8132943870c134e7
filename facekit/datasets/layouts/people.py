"""A folder for each person, with pictures or videos of that person: how LFW comes.

Huang, Ramesh, Berg & Learned-Miller, "Labeled Faces in the Wild", UMass TR 07-49, 2007; research
use; deep-funneled copies are on Kaggle and figshare. The layout does not tell whether what is in
it is generated: a collection's ``label`` does.
"""

from pathlib import Path

from facekit.datasets.layouts import _tree
from facekit.types import Item

LOOKED_FOR = "a folder a person: NAME/*.jpg (or other pictures, or videos)"


def read(folder: Path) -> list[Item]:
    """The pictures and videos of all people; each file is a source of its own.

    Raises:
        FacekitError: for another layout, also if all folders are named like ``real`` and ``fake``.
    """
    if not folder.is_dir():
        raise _tree.wrong(folder, LOOKED_FOR)
    people = _tree.folders(folder)
    if people and all(path.name.lower() in _tree.REAL | _tree.FAKE for path in people):
        raise _tree.wrong(folder, LOOKED_FOR, "these are no people, read it as 'real_fake'")
    items = [
        _tree.item(
            path,
            folder,
            subject=person.name,
            source=_tree.relative(path, folder),
            label=None,
        )
        for person in people
        for path in _tree.media(person, deep=False)
    ]
    if not items:
        raise _tree.wrong(folder, LOOKED_FOR)
    beside = [path.name for path in _tree.media(folder, deep=False)]
    _tree.leave_out(folder, beside, "that lie beside the people's folders")
    return items
