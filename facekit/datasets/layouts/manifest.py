"""A folder with ``manifest.jsonl``: what facekit itself writes, from the studio to generators.

``facekit studio``, ``align`` and ``facekit.types.write_manifest`` make it; studio people are named
by the seed that made them, so that they are known again in other folders.
"""

from pathlib import Path

from facekit.datasets.layouts import _tree
from facekit.datasets.manifest import load_folder, person_of
from facekit.types import MANIFEST, Item

LOOKED_FOR = f"a folder that facekit wrote: {MANIFEST} beside the files it names"


def read(folder: Path) -> list[Item]:
    """The manifest's items, each with a subject and a source.

    Raises:
        FacekitError: if there is no manifest, it is damaged or empty, or a file is missing.
    """
    if not (folder / MANIFEST).is_file():
        raise _tree.wrong(folder, LOOKED_FOR)
    items = load_folder(folder)
    if not items:
        raise _tree.wrong(folder, LOOKED_FOR, "the manifest lists nothing")
    return [
        item.model_copy(update={"subject": person_of(item), "source": item.source or item.path})
        for item in items
    ]
