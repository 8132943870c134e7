"""Readers of data sets, one file a layout: a folder as it is published becomes items.

A plug-in's name is its file's name. It holds ``LOOKED_FOR``, one line that says what the layout
is, and ``read(folder) -> list[Item]``, which decodes nothing and gives for each picture, video or
frame

- ``path``, relative to the folder, and ``label``: 0 untouched, 1 generated, None where the layout
  does not tell;
- ``subject``: the person shown, of a swap the one in whose picture it was made; ``facts["donor"]``
  is then the one whose face was put in;
- ``source``: the clip or photo; a forgery has that of its original, so that the two stay together;
- ``generator``: the method that made it, "" for a camera;
- ``split``: as the data set publishes it, "" where it does not;
- ``facts["clip"]``: of a frame in a folder of frames, that folder.

Names that mean the same in every copy of the data set are made by
:func:`facekit.datasets.manifest.known_as`; others hold in their folder only.
"""

from pathlib import Path

from facekit.core import registry
from facekit.core.errors import FacekitError
from facekit.types import Item


def read(layout: str, folder: Path) -> list[Item]:
    """The items of a folder.

    Args:
        layout: a plug-in's name.
        folder: of the data set.

    Raises:
        FacekitError: for an unknown layout, a folder of another layout (it says what was looked
            for and what was found there), or one that may not be read.
    """
    plugin = registry.load(__name__, layout)
    try:
        items: list[Item] = plugin.read(folder)
    except OSError as error:
        where = error.filename or folder
        raise FacekitError(f"{where}: not readable ({error.strerror or error})") from error
    return items
