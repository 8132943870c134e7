"""A flat folder of pictures or videos, each of another person.

The layout does not tell whether they are generated: a collection's ``label`` does. Terms are those
of whoever made the collection.
"""

from pathlib import Path

from facekit.datasets.layouts import _tree
from facekit.types import Item

LOOKED_FOR = "pictures or videos (*.jpg, *.png, *.mp4 …) right in the folder, one of each person"


def read(folder: Path) -> list[Item]:
    """The folder's pictures and videos; folders in it are not looked into.

    Raises:
        FacekitError: if there are none.
    """
    found = _tree.media(folder, deep=False)
    if not found:
        raise _tree.wrong(folder, LOOKED_FOR)
    return [
        _tree.item(path, folder, subject=path.name, source=path.name, label=None) for path in found
    ]
