"""Folders with a manifest: read and check them, split them by person."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from facekit.core import files
from facekit.core.errors import FacekitError, did_you_mean
from facekit.core.progress import progress
from facekit.core.seed import Purpose, rng
from facekit.types import Item, read_manifest

_SPLITS = ("train", "validation", "test")


def load_folder(folder: Path, *, verify: bool = False) -> list[Item]:
    """Read a folder's manifest and check that every file is there.

    Args:
        folder: with a ``manifest.jsonl``.
        verify: also compare every file with its hash.

    Raises:
        FacekitError: for a bad manifest, a path that leads out of the folder or appears twice,
            or a file that is missing or changed; the file is named.
    """
    items = read_manifest(folder)
    seen = set()
    with progress(f"Checking {folder.name}", len(items)) as advance:
        for done, item in enumerate(items, start=1):
            inside = PurePosixPath(item.path)
            if inside.is_absolute() or ".." in inside.parts:
                raise FacekitError(f"{folder}: the manifest's '{item.path}' is not in the folder")
            if item.path in seen:
                raise FacekitError(f"{folder}: the manifest lists '{item.path}' twice")
            seen.add(item.path)
            path = folder / item.path
            if not path.is_file():
                raise FacekitError(f"{path}: is in the manifest but missing; make the folder again")
            if verify and files.sha256(path) != item.sha256:
                raise FacekitError(f"{path}: differs from the manifest's hash; it was changed")
            advance(done, "")
    return items


def split_by_subject(
    items: Sequence[Item], fractions: Mapping[str, float], seed: int
) -> list[Item]:
    """Divide items into splits so that no subject and no source is in two of them.

    Items that share a subject or a source, be it through others, stay together. The groups are
    shuffled by ``seed`` and dealt out by number; the same groups and seed give the same splits,
    whatever the order of the items.

    Args:
        items: to divide; those without subject and source stand each for themselves.
        fractions: share of the groups for each split, e.g. ``{"train": 0.8, "test": 0.2}``;
            each split gets one group at least.
        seed: of the shuffle.

    Returns:
        The items in their order, with ``split`` set.

    Raises:
        FacekitError: for unknown splits, fractions that do not add up to 1, or fewer groups than
            splits.
    """
    for name, share in fractions.items():
        if name not in _SPLITS:
            raise FacekitError(f"unknown split '{name}'; {did_you_mean(name, _SPLITS)}")
        if share <= 0:
            raise FacekitError(f"split '{name}': a share must be above 0, got {share}")
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise FacekitError(f"shares of splits must add up to 1, got {sum(fractions.values()):g}")

    group_of = _groups(items)
    groups = sorted(set(group_of))
    if len(groups) < len(fractions):
        raise FacekitError(
            f"{len(groups)} separate subject(s) cannot fill {len(fractions)} splits; "
            "give more people, or fewer splits"
        )
    order = [groups[i] for i in rng(seed, Purpose.SPLIT).permutation(len(groups))]
    dealt: dict[tuple[str, str], str] = {}
    for name, count in _counts(fractions, len(groups)).items():
        dealt |= dict.fromkeys(order[:count], name)
        order = order[count:]
    return [
        item.model_copy(update={"split": dealt[group]})
        for item, group in zip(items, group_of, strict=True)
    ]


def _keys(item: Item) -> list[tuple[str, str]]:
    """What ties an item to others."""
    keys = [("subject", item.subject), ("source", item.source)]
    return [key for key in keys if key[1]] or [("path", item.path)]


def _groups(items: Sequence[Item]) -> list[tuple[str, str]]:
    """For each item its group, named by the group's smallest key (a union-find over keys)."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    for item in items:
        first, *others = _keys(item)
        for other in others:
            small, large = sorted((root(first), root(other)))
            parent[large] = small
    return [root(_keys(item)[0]) for item in items]


def _counts(fractions: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers nearest to the shares (largest remainders), none below 1."""
    exact = {name: share * total for name, share in fractions.items()}
    counts = {name: max(1, int(value + 1e-9)) for name, value in exact.items()}
    while sum(counts.values()) != total:
        step = 1 if sum(counts.values()) < total else -1
        able = [name for name in counts if step > 0 or counts[name] > 1]
        name = max(able, key=lambda name: step * (exact[name] - counts[name]))
        counts[name] += step
    return counts
