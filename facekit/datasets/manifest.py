"""Folders with a manifest: read and check them, name their people, split them by person."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from facekit.core import files
from facekit.core.errors import FacekitError, did_you_mean
from facekit.core.progress import progress
from facekit.core.seed import Purpose, rng
from facekit.types import Item, read_manifest

SPLITS = ("train", "validation", "calibration", "test")

_STUDIO_PERSON = "studio person "

Key = tuple[str, str]
"""What items share: a kind ("subject", "source", "path") and a name."""


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

    Items that share a subject or a source, be it through others, stay together; a swap's donor
    (``facts["donor"]``) is a subject of it as well. The groups are
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
        if name not in SPLITS:
            raise FacekitError(f"unknown split '{name}'; {did_you_mean(name, SPLITS)}")
        if share <= 0:
            raise FacekitError(f"split '{name}': a share must be above 0, got {share}")
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise FacekitError(f"shares of splits must add up to 1, got {sum(fractions.values()):g}")

    group_of = groups(items)
    names = sorted(set(group_of))
    if len(names) < len(fractions):
        raise FacekitError(
            f"{len(names)} separate subject(s) cannot fill {len(fractions)} splits; "
            "give more people, or fewer splits"
        )
    order = [names[i] for i in rng(seed, Purpose.SPLIT).permutation(len(names))]
    dealt: dict[Key, str] = {}
    for name, count in counts(fractions, len(names)).items():
        dealt |= dict.fromkeys(order[:count], name)
        order = order[count:]
    return [
        item.model_copy(update={"split": dealt[group]})
        for item, group in zip(items, group_of, strict=True)
    ]


def keys(item: Item) -> list[Key]:
    """What ties an item to others: its subject, the donor of a swap, and its source.

    An item that names none of them stands for itself.
    """
    donor = item.facts.get("donor") or ""
    named = [("subject", item.subject), ("subject", str(donor)), ("source", item.source)]
    return [key for key in named if key[1]] or [("path", item.path)]


def groups(items: Sequence[Item]) -> list[Key]:
    """For each item its group: all that share a key with it, be it through others.

    A group is named by its smallest key, so that names do not depend on the order of the items.
    """
    return united([keys(item) for item in items])


def united(tied: Iterable[Sequence[Key]]) -> list[Key]:
    """As :func:`groups`, of lists of keys, none of them empty (a union-find over keys)."""
    parent: dict[Key, Key] = {}

    def root(key: Key) -> Key:
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    firsts = []
    for first, *others in tied:
        firsts.append(first)
        root(first)
        for other in others:
            small, large = sorted((root(first), root(other)))
            parent[large] = small
    return [root(first) for first in firsts]


def counts(fractions: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers nearest to the shares (largest remainders), none below 1.

    Args:
        fractions: they add up to 1.
        total: what the numbers add up to; at least one for each share.
    """
    exact = {name: share * total for name, share in fractions.items()}
    whole = {name: max(1, int(value + 1e-9)) for name, value in exact.items()}
    while sum(whole.values()) != total:
        step = 1 if sum(whole.values()) < total else -1
        able = [name for name in whole if step > 0 or whole[name] > 1]
        name = max(able, key=lambda name: step * (exact[name] - whole[name]))
        whole[name] += step
    return whole


def known_as(dataset: str, name: str) -> str:
    """A name of a person or a clip that means the same in every copy of a published data set."""
    return f"{dataset}:{name}"


def named_within(folder: str, name: str) -> str:
    """A name as it is told from others: one that only holds in its folder gets that before it."""
    if not name or ":" in name or name.startswith(_STUDIO_PERSON):
        return name
    return known_as(folder, name)


def person_of(item: Item) -> str:
    """Who an item shows, by a name that means the same person wherever that is known.

    Studio folders number their people alike, and its clips name them otherwise, so the seed that
    made the person is the name. A manifest that names no people falls back on the source, then the
    file.
    """
    seed = item.facts.get("person_seed")
    if seed is not None:
        return f"{_STUDIO_PERSON}{seed}"
    return item.subject or item.source or item.path
