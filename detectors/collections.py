"""The data sets that a detector is trained, calibrated and measured on: read, divided, decoded.

A config lists *collections*: a folder, its layout (a plug-in of ``facekit/datasets/layouts``) and
what the layout does not tell. All of them are divided together, so that no person and no source is
in two splits, be it by way of another collection:

- who is swapped into whom, and whatever else shares a person or a source, makes one group, and a
  group is never parted;
- within each collection, and within each class of it, groups are dealt out by the shares asked for,
  so that every split holds something of everything;
- a collection may be of one split as a whole, and then draws all that is tied to it there.

Everything follows from names and the seed, not from the order of files. What is added to one
collection leaves the splits of those as they were that share no person and no source with it; of
one that does, it may move people to other splits.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from detectors.data import Sample
from facekit.core.config import Config
from facekit.core.errors import FacekitError, did_you_mean
from facekit.core.progress import log, progress
from facekit.datasets import layouts
from facekit.datasets.manifest import SPLITS, Key, counts, keys, named_within, united
from facekit.media import images
from facekit.media.decode import Video
from facekit.media.find import VIDEO_SUFFIXES
from facekit.types import Frame, Item, Pixels

SHARES: Mapping[str, float] = {"train": 0.6, "validation": 0.1, "calibration": 0.15, "test": 0.15}
"""The usual shares of each collection's people."""

_CLASSES = {0: "untouched", 1: "generated"}


class Collection(Config):
    """A data set and how to use it.

    Attributes:
        name: what tables call it; no two have the same.
        layout: a plug-in of ``facekit/datasets/layouts``.
        path: its folder, relative to ``--data``.
        label: 0 untouched, 1 generated, where the layout does not tell.
        maker: what made it, where the layout does not tell; by default a camera if it is untouched,
            else the collection's name.
        part: one half of its people, always the same ones; the other half may be another
            collection.
        frames: at most so many of each video or folder of frames, evenly spaced over all of it.
        most: at most so many files, of as many people as can be.
        split: where all of it belongs; "published" is the data set's own division. By default it is
            divided by the shares.
        swaps: "tie" keeps people whose faces were exchanged in one split. Where everyone was
            swapped with everyone that is a single group; "within" divides the people all the same,
            and leaves out the swaps between two splits.
    """

    name: str = Field(min_length=1)
    layout: str
    path: str
    label: Literal[0, 1] | None = None
    maker: str = ""
    part: Literal["all", "first half", "second half"] = "all"
    frames: int = Field(8, ge=1)
    most: int | None = Field(None, ge=1)
    split: Literal["", "train", "validation", "calibration", "test", "published"] = ""
    swaps: Literal["tie", "within"] = "tie"


@dataclass(frozen=True)
class Entry:
    """One file of a collection.

    Attributes:
        path: of the file.
        item: what is known of it: the label is set, and names tell people of all collections apart.
        collection: that it is of.
    """

    path: Path
    item: Item
    collection: Collection = field(repr=False)

    @property
    def donor(self) -> str:
        """Of a swap, the person whose face was put in; else ""."""
        return str(self.item.facts.get("donor") or "")


def read(collections: Sequence[Collection], data: Path) -> list[Entry]:
    """The files of all collections, none of them decoded.

    Args:
        collections: of a config.
        data: the folder that their paths are relative to.

    Raises:
        FacekitError: for a folder of another layout, a label that is not known or is known
            otherwise, two collections of one name, or a file that is in two of them; it names the
            collection.
    """
    twice = [name for name, n in Counter(c.name for c in collections).items() if n > 1]
    if twice:
        raise FacekitError(f"two collections are called '{twice[0]}'; give each a name of its own")
    entries = [entry for collection in collections for entry in _read(collection, data)]
    owner: dict[Path, str] = {}
    for entry in entries:
        other = owner.setdefault(entry.path, entry.collection.name)
        if other != entry.collection.name:
            raise FacekitError(
                f"{entry.path}: is in the collections '{other}' and '{entry.collection.name}'; "
                "take a folder once, or a half of it in each ('part: first half')"
            )
    return entries


def _read(collection: Collection, data: Path) -> list[Entry]:
    folder = data / collection.path
    try:
        items = layouts.read(collection.layout, folder)
    except FacekitError as error:
        raise FacekitError(f"collection '{collection.name}': {error}") from error
    # Before names get the folder's name: which half is which must not depend on where it lies.
    items = _most(_spaced(_part(items, collection), collection.frames), collection.most)
    if not items:
        raise FacekitError(f"collection '{collection.name}': nothing of {folder} is in its part")
    return [Entry(folder / item.path, _named(item, collection), collection) for item in items]


def _named(item: Item, collection: Collection) -> Item:
    """The item with its label and maker, and with names that mean nothing else elsewhere."""
    if item.label is None and collection.label is None:
        raise FacekitError(
            f"collection '{collection.name}': '{item.path}' has no label and the layout "
            f"'{collection.layout}' tells none; say 'label: 0' (untouched) or 1 (generated)"
        )
    if None not in (item.label, collection.label) and item.label != collection.label:
        raise FacekitError(
            f"collection '{collection.name}': '{item.path}' has the label {item.label} by its "
            f"layout, not {collection.label}; leave 'label' out"
        )
    label = collection.label if item.label is None else item.label
    here = Path(collection.path).as_posix()
    donor = str(item.facts.get("donor") or "")
    facts = item.facts | ({"donor": named_within(here, donor)} if donor else {})
    return item.model_copy(
        update={
            "label": label,
            "generator": item.generator or collection.maker or (collection.name if label else ""),
            "subject": named_within(here, item.subject or item.source or item.path),
            "source": named_within(here, item.source or item.path),
            "facts": facts,
        }
    )


def _part(items: list[Item], collection: Collection) -> list[Item]:
    """The items of one half of the groups; which, follows from their names alone."""
    if collection.part == "all":
        return items
    group_of = united(_ties(items, [collection] * len(items)))
    order = sorted(set(group_of), key=lambda group: _draw("half", *group))
    middle = (len(order) + 1) // 2
    half = set(order[:middle] if collection.part == "first half" else order[middle:])
    people = {item.subject for item, group in zip(items, group_of, strict=True) if group in half}
    others = {item.subject for item in items} - people
    # A donor may be of the other half, where swaps do not tie.
    return [
        item for item in items if item.subject in people and item.facts.get("donor") not in others
    ]


def _spaced(items: list[Item], frames: int) -> list[Item]:
    """Of the frames of each clip at most so many, evenly spaced over all of it."""
    of_clip: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        of_clip[str(item.facts.get("clip", ""))].append(item)
    kept = of_clip.pop("", [])
    for clip in of_clip.values():
        # frame_9 comes before frame_10.
        ordered = sorted(clip, key=lambda item: (len(item.path), item.path))
        count = min(frames, len(ordered))
        kept += [ordered[int((i + 0.5) * len(ordered) / count)] for i in range(count)]
    return kept


def _most(items: list[Item], most: int | None) -> list[Item]:
    """At most so many, sorted by path: of as many people as can be, originals with forgeries."""
    nth: Counter[tuple[str, str]] = Counter()
    ranked = []
    for item in sorted(items, key=lambda item: _draw("most", item.path)):
        key = (item.subject, str(item.label))
        ranked.append((nth[key], _draw("most", item.subject), key, item.path, item))
        nth[key] += 1
    ranked.sort(key=lambda row: row[:4])
    return sorted((row[-1] for row in ranked[:most]), key=lambda item: item.path)


def _draw(*words: object) -> str:
    """A random number as a function of words: the same on any machine, in any order of files."""
    return hashlib.sha256("\0".join(map(str, words)).encode()).hexdigest()


def divide(
    entries: Sequence[Entry],
    shares: Mapping[str, float],
    seed: int,
    *,
    classes: Iterable[int] = (0, 1),
) -> list[Entry]:
    """Set the split of each entry, disjoint by person and source.

    Args:
        entries: of all collections at once.
        shares: of the people of each collection that is not of one split as a whole; they add up
            to 1. See :data:`SHARES`.
        seed: of the draw.
        classes: the labels of which every split must hold some; ``(0,)`` where forgeries are made
            from what is untouched.

    Returns:
        The entries in their order; but for swaps between splits, where a collection leaves them
        out.

    Raises:
        FacekitError: for shares that are none, a person or source that two collections want in two
            splits, or a split without one of the classes; it names the collections.
    """
    _check_shares(shares)
    tied = _ties([e.item for e in entries], [e.collection for e in entries])
    group_of = united(tied)
    split_of = _fixed(entries, group_of)
    free = sorted(set(group_of) - set(split_of))
    for names in _strata(entries, group_of, free).values():
        order = sorted(names, key=lambda group: _draw(seed, *group))
        dealt = [
            name for name, count in _portions(shares, len(order)).items() for _ in range(count)
        ]
        split_of |= dict(zip(order, dealt, strict=True))
    divided = [
        replace(entry, item=entry.item.model_copy(update={"split": split_of[group]}))
        for entry, group in zip(entries, group_of, strict=True)
    ]
    divided = _within(divided)
    check_disjoint(divided)
    wanted = {entry.item.split for entry in divided} | (set(shares) if free else set())
    _check_classes(divided, [split for split in SPLITS if split in wanted], set(classes))
    return divided


def read_for_testing(
    collections: Sequence[Collection], data: Path, seen: Sequence[Entry]
) -> list[Entry]:
    """The files of collections that a trained detector is tested on, all of them of split "test".

    Args:
        collections: as for :func:`read`.
        data: as for :func:`read`.
        seen: what :func:`divide` made of the collections that it was trained on.

    Raises:
        FacekitError: as :func:`read`, and if they share a person or a source with what is seen of
            another split than "test".
    """
    entries = [
        replace(entry, item=entry.item.model_copy(update={"split": "test"}))
        for entry in read(collections, data)
    ]
    check_disjoint([*seen, *entries])
    return entries


def _check_shares(shares: Mapping[str, float]) -> None:
    for name, share in shares.items():
        if name not in SPLITS:
            raise FacekitError(f"unknown split '{name}'; {did_you_mean(name, SPLITS)}")
        if share <= 0:
            raise FacekitError(f"split '{name}': a share must be above 0, got {share}")
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise FacekitError(f"shares of splits must add up to 1, got {sum(shares.values()):g}")


def _ties(items: Sequence[Item], collections: Sequence[Collection]) -> list[list[Key]]:
    """What holds each item to others; donors do not, where swaps between splits are left out.

    A donor of whom there is nothing else belongs to those who wear the face.
    """
    shown = {item.subject for item in items}
    return [
        keys(item)
        if collection.swaps == "tie" or item.facts.get("donor") not in shown
        else [("subject", item.subject), ("source", item.source)]
        for item, collection in zip(items, collections, strict=True)
    ]


def _fixed(entries: Sequence[Entry], group_of: Sequence[Key]) -> dict[Key, str]:
    """The splits of groups that a collection, or its publisher, wants somewhere."""
    split_of: dict[Key, str] = {}
    wanted_by: dict[Key, Entry] = {}
    for entry, group in zip(entries, group_of, strict=True):
        split: str = entry.collection.split
        if split == "published":
            split = entry.item.split
        if not split:
            continue
        other = wanted_by.setdefault(group, entry)
        if split_of.setdefault(group, split) != split:
            raise FacekitError(
                f"'{other.item.path}' of collection '{other.collection.name}' is to be in split "
                f"{split_of[group]} and '{entry.item.path}' of '{entry.collection.name}' in "
                f"{split}, but both show, or stem from, {group[0]} '{group[1]}' or people tied to "
                "it; a split must be disjoint by person and source"
            )
    return split_of


def _strata(
    entries: Sequence[Entry], group_of: Sequence[Key], free: Sequence[Key]
) -> dict[tuple[object, ...], list[Key]]:
    """Groups to deal out, by the collections and classes that they have something of."""
    found: dict[Key, set[tuple[str, int]]] = {group: set() for group in free}
    for entry, group in zip(entries, group_of, strict=True):
        if group in found:
            found[group].add((entry.collection.name, int(entry.item.label or 0)))
    strata: dict[tuple[object, ...], list[Key]] = defaultdict(list)
    for group in free:
        strata[tuple(sorted(found[group]))].append(group)
    return strata


def _portions(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """How many of ``total`` groups each split gets; of very few, the largest shares one each."""
    if total >= len(shares):
        return counts(shares, total)
    largest = sorted(shares, key=lambda name: -shares[name])[:total]
    return dict.fromkeys(largest, 1)


def _within(entries: list[Entry]) -> list[Entry]:
    """The entries without swaps whose donor is of another split."""
    split_of = {entry.item.subject: entry.item.split for entry in entries}
    kept = [e for e in entries if split_of.get(e.donor, e.item.split) == e.item.split]
    if len(kept) < len(entries):
        lost = Counter(e.collection.name for e in entries) - Counter(
            e.collection.name for e in kept
        )
        log.info(
            "left out swaps between people of different splits: %s",
            ", ".join(f"{count} of {name}" for name, count in sorted(lost.items())),
        )
    return kept


def check_disjoint(entries: Iterable[Entry]) -> None:
    """Check that no person, shown or donor, and no source is in two splits.

    Raises:
        FacekitError: it names the first that is, with the splits and the collections.
    """
    owner: dict[Key, Entry] = {}
    for entry in entries:
        for kind, name in keys(entry.item):
            other = owner.setdefault((kind, name), entry)
            if other.item.split != entry.item.split:
                raise FacekitError(
                    f"{kind} '{name}' is in the splits {other.item.split} (of collection "
                    f"'{other.collection.name}') and {entry.item.split} (of "
                    f"'{entry.collection.name}'); a split must be disjoint by person and source"
                )


def _check_classes(entries: Sequence[Entry], splits: Iterable[str], classes: set[int]) -> None:
    found = {(str(entry.item.split), int(entry.item.label or 0)) for entry in entries}
    names: dict[int, set[str]] = defaultdict(set)
    for entry in entries:
        names[int(entry.item.label or 0)].add(entry.collection.name)
    for label in sorted(classes):
        if not names[label]:
            given = ", ".join(sorted({entry.collection.name for entry in entries})) or "none"
            raise FacekitError(
                f"no {_CLASSES[label]} faces in any collection (given: {given}); a detector needs "
                "both classes"
            )
        for split in splits:
            if (split, label) not in found:
                raise FacekitError(
                    f"split '{split}' has no {_CLASSES[label]} faces: collections "
                    f"{', '.join(sorted(names[label]))} have too few people, or too few that are "
                    "not tied to each other by swaps, or belong to other splits as a whole"
                )


def samples(entries: Sequence[Entry]) -> Iterator[Sample]:
    """The samples of :func:`decoded`, without their entries; what cannot be read is left out."""
    return (found for _, found in decoded(entries) if isinstance(found, Sample))


def decoded(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Sample | FacekitError]]:
    """Decode pictures, and of each video its collection's ``frames``, spread over all of it.

    The log says how many files of which collection cannot be read, or not to the end, and why.

    Yields:
        Each entry with its sample, or in turn with each of its samples, in the order of the
        entries; after these, or instead, with the error that ended reading it.

    Raises:
        FacekitError: at the end, if nothing of a collection could be read.
    """
    unread: dict[str, list[str]] = defaultdict(list)
    with progress("Reading pictures", len(entries)) as advance:
        for done, entry in enumerate(entries, start=1):
            try:
                for pixels in _pixels(entry):
                    yield entry, sample(entry, pixels)
            except FacekitError as error:
                unread[entry.collection.name].append(str(error))
                yield entry, error
            advance(done, entry.collection.name)
    totals = Counter(entry.collection.name for entry in entries)
    for name, errors in unread.items():
        if len(errors) == totals[name]:
            raise FacekitError(
                f"collection '{name}': none of its {totals[name]} files can be read; {errors[0]}"
            )
        log.warning(
            "collection '%s': %d of %d files cannot be read, or not to the end, e.g. %s",
            *(name, len(errors), totals[name], errors[0]),
        )


def sample(entry: Entry, pixels: Pixels) -> Sample:
    """A picture of an entry, with what is known of it."""
    return Sample(
        pixels=pixels,
        label=int(entry.item.label or 0),
        subject=entry.item.subject,
        source=entry.item.source,
        donor=entry.donor,
        maker=entry.item.generator,
        collection=entry.collection.name,
    )


def _pixels(entry: Entry) -> Iterator[Pixels]:
    images.require_file(entry.path)
    if images.is_image(entry.path) or entry.path.suffix.lower() not in VIDEO_SUFFIXES:
        yield images.read_image(entry.path)
        return
    with Video(entry.path) as video:
        yield from (frame.pixels for frame in _evenly(video, entry.collection.frames))


def _evenly(video: Video, count: int) -> Iterator[Frame]:
    """At most so many frames, evenly spaced in time over all of a video, each once.

    ``Video.sample`` is quicker, but takes what follows key frames, of which a clip may have one.
    """
    if not video.info.duration:
        yield from video.sample(count)
        return
    last = -1.0
    for frame in video.frames([(i + 0.5) * video.info.duration / count for i in range(count)]):
        if frame.time > last:
            yield frame
        last = frame.time


def fingerprint(entries: Sequence[Entry]) -> str:
    """A hash of which files are used how: names, sizes, labels, people and splits; not contents.

    Raises:
        FacekitError: if a file is gone.
    """
    digest = hashlib.sha256()
    for entry in entries:
        try:
            size = entry.path.stat().st_size
        except OSError as error:
            raise FacekitError(f"{entry.path}: not readable ({error.strerror or error})") from error
        settings = entry.collection.model_dump_json()
        digest.update(f"{settings}\n{size}\n{entry.item.model_dump_json()}\n".encode())
    return digest.hexdigest()
