"""The Face Research Lab London Set: 102 adults, neutral and smiling, with an index of who they are.

DeBruine & Jones 2017, doi 10.6084/m9.figshare.5047666, CC BY 4.0; everyone in it signed that the
photos may be used in research, also altered. ``index.csv`` has the columns file, subject, age,
gender, ethnicity, and may have expression; "NA" is unknown. All photos are untouched.
"""

import csv
from pathlib import Path, PurePosixPath

from facekit.core.errors import FacekitError
from facekit.datasets.layouts import _tree
from facekit.datasets.manifest import known_as
from facekit.types import Item

LOOKED_FOR = (
    "the London Set: index.csv (file, subject, age, gender, ethnicity) beside the photos it names"
)

_COLUMNS = ("file", "subject", "age", "gender", "ethnicity")


def read(folder: Path) -> list[Item]:
    """The photos, with age (a whole number), gender and ethnicity as facts where they are known.

    Raises:
        FacekitError: for another layout, or an index that lacks a column or has a bad row.
    """
    index = folder / "index.csv"
    if not index.is_file():
        raise _tree.wrong(folder, LOOKED_FOR)
    try:
        with index.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FacekitError(f"{index}: not readable as CSV ({error})") from error
    items = []
    missing = []
    for number, row in enumerate(rows, start=2):
        lacking = [column for column in _COLUMNS if not row.get(column)]
        if lacking:
            raise _tree.wrong(folder, LOOKED_FOR, f"index.csv, line {number}: no {lacking[0]}")
        inside = PurePosixPath(row["file"])
        if inside.is_absolute() or ".." in inside.parts:
            raise FacekitError(f"{index}, line {number}: '{inside}' is not in the folder")
        if not (folder / row["file"]).is_file():
            missing.append(row["file"])
            continue
        items.append(
            _tree.item(
                folder / row["file"],
                folder,
                subject=known_as("london", row["subject"]),
                source=known_as("london", Path(row["file"]).stem),
                label=0,
                facts=_facts(row, f"{index}, line {number}"),
            )
        )
    if not items:
        raise _tree.wrong(folder, LOOKED_FOR, "no photo that index.csv names")
    _tree.leave_out(folder, missing, "that index.csv names but are not there")
    return items


def _facts(row: dict[str, str], where: str) -> dict[str, object]:
    names = ("age", "gender", "ethnicity", "expression")
    facts: dict[str, object] = {
        name: row[name] for name in names if row.get(name) and row[name] != "NA"
    }
    if "age" in facts:
        try:
            facts["age"] = int(row["age"])
        except ValueError:
            raise FacekitError(
                f"{where}: age {row['age']!r} is no whole number; write NA where it is unknown"
            ) from None
    return facts
