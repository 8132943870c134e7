"""DFDC: the Deepfake Detection Challenge's 100,000 swaps of paid actors, in 50 parts.

Dolhansky et al., "The DeepFake Detection Challenge (DFDC) Dataset", 2020, arXiv 2006.07397. Terms:
the challenge's rules; research use; https://ai.meta.com/datasets/dfdc (also on Kaggle).

Each part's ``metadata.json`` says for each file ``label`` (FAKE or REAL) and the ``original`` of a
fake. Who is in it is not published: each original with its fakes counts as a person, though an
actor may be in several, even in several parts.
"""

from pathlib import Path
from typing import Any

from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.datasets.layouts import _tree
from facekit.datasets.manifest import known_as
from facekit.types import Item

LOOKED_FOR = (
    'DFDC: PART/metadata.json, {"FILE.mp4": {"label": "FAKE", "original": "OTHER.mp4"}}, beside '
    "the videos it names"
)

_LABELS = {"REAL": 0, "FAKE": 1}


def read(folder: Path) -> list[Item]:
    """The videos of all parts below a folder; those that were not downloaded are left out.

    Raises:
        FacekitError: for another layout, or metadata that are not what is looked for.
    """
    items: list[Item] = []
    missing: list[str] = []
    for path in sorted(folder.rglob("metadata.json")) if folder.is_dir() else []:
        metadata = files.read_json(path)
        if not isinstance(metadata, dict):
            raise FacekitError(f"{path}: not metadata of DFDC; looked for {LOOKED_FOR}")
        for name, row in sorted(metadata.items()):
            item = _item(folder, path, name, row)
            if (folder / item.path).is_file():
                items.append(item)
            else:
                missing.append(item.path)
    if not items:
        raise _tree.wrong(folder, LOOKED_FOR, f"{len(missing)} files missing" if missing else "")
    _tree.leave_out(folder, missing, "that metadata name but are not there")
    return items


def _item(folder: Path, metadata: Path, name: str, row: Any) -> Item:
    label = _LABELS.get(str(row.get("label")).upper()) if isinstance(row, dict) else None
    if label is None or Path(name).name != name:
        raise FacekitError(
            f"{metadata}: '{name}' is not said to be FAKE or REAL; looked for {LOOKED_FOR}"
        )
    # An original of None is that of a fake whose original was held back.
    origin = known_as("dfdc", Path(str(row.get("original") or name)).stem)
    path = metadata.parent / name
    return _tree.item(path, folder, subject=origin, source=origin, label=label, generator="DFDC")
