"""Where the faces come from that ``facekit detector`` trains and measures on.

This file is where the two sides meet: it runs a generator and hands its frames, in memory and
unmarked, to the detector's data. Neither side knows of the other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from facekit.core.errors import FacekitError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from detectors.collections import Entry
    from detectors.data import FaceSet, Sample
    from detectors.train import Recipe, Splits
    from facekit.generators import GatedRun, Permit
    from facekit.types import Item, Pixels

_DONORS = 3  # at most so many people's faces are put into one person's pictures


@dataclass(frozen=True)
class Source:
    """Where a detector's faces come from.

    Attributes:
        data: the folder that the generator, if there is one, was trained on; it changes no other.
        rows: each picture's folder and item; the item's split is set.
        generator: the run whose swaps are the generated faces, if any.
        permit: what lets it change the pictures of ``data``.
        seed: of all choices.
        data_hash: of the manifests and the generator's weights.
    """

    data: Path
    rows: "list[tuple[Path, Item]]"
    generator: "GatedRun | None"
    permit: "Permit | None"
    seed: int
    data_hash: str

    @property
    def people(self) -> dict[str, list[str]]:
        """Split → the people in it."""
        from facekit.datasets.manifest import person_of

        people: dict[str, set[str]] = {"train": set(), "validation": set(), "test": set()}
        for _, item in self.rows:
            people[item.split].add(person_of(item))
        return {split: sorted(names) for split, names in people.items()}

    @property
    def origins(self) -> list[str]:
        """What the untouched pictures come from: "studio", "camera"."""
        return sorted({item.generator or "camera" for _, item in self.rows if item.label == 0})

    def splits(self, recipe: "Recipe", fabric: "Fabric") -> "Splits":
        """The faces to train on."""
        from detectors.train import Splits

        frames = recipe.data.frames
        return Splits(*(make_set(self, split, frames, fabric) for split in ("train", "validation")))


def open_source(
    data: Path,
    generator: Path | None = None,
    generated: Path | None = None,
    *,
    seed: int,
    seen: Mapping[str, list[str] | int] | None = None,
) -> Source:
    """Read the manifests and divide the people.

    Args:
        data: a folder with labels.
        generator: a generator's run, trained on ``data``.
        generated: a folder of generated faces.
        seed: of all choices.
        seen: a trained detector's people by split. All whom it was not trained or validated on
            are then the test split.

    Raises:
        FacekitError: for a bad folder, a file that was changed, a picture without label, too few
            people, a generator that was trained on something else or may not change ``data``, or a
            detector that was trained on collections, of whose people only the number is known.
    """
    from detectors.data import divide
    from facekit import generators
    from facekit.core.files import sha256
    from facekit.datasets.manifest import load_folder, person_of
    from facekit.media.find import VIDEO_SUFFIXES
    from facekit.types import MANIFEST

    known: set[str] = set()
    for names in (seen["train"], seen["validation"]) if seen else ():
        if isinstance(names, int):
            raise FacekitError(
                "the detector was trained on the collections of a config; measure it with "
                "'facekit detector evaluate CONFIG --detector RUN --data DATA', CONFIG being e.g. "
                "evaluations/default"
            )
        known.update(names)
    folders = [data, generated] if generated else [data]
    rows: list[tuple[Path, Item]] = []
    for folder in folders:
        # Every file against its hash: what the generator is handed is what was certified.
        for item in load_folder(folder, verify=True):
            if item.label is None:
                raise FacekitError(
                    f"{folder}: '{item.path}' has no label; its manifest must say 0 (untouched) or "
                    "1 (generated)"
                )
            if Path(item.path).suffix.lower() not in VIDEO_SUFFIXES:
                rows.append((folder, item))
    hashes = [sha256(folder / MANIFEST) for folder in folders]
    run = permit = None
    if generator:
        run = generators.open_run(generator)
        permit = generators.Permit(certificate=generators.certified(data))
        if run.facts["data_hash"] != hashes[0]:
            raise FacekitError(
                f"{generator}: was not trained on {data}; give the folder that it was trained on, "
                "so that who is who is known"
            )
        checkpoints = sorted(generator.glob("step-*.safetensors"))
        hashes += [sha256(path) for path in checkpoints[-1:]]

    items = [item for _, item in rows]
    if seen:
        rows = [
            (folder, item.model_copy(update={"split": "test"}))
            for folder, item in rows
            if person_of(item) not in known
        ]
        if not rows:
            raise FacekitError(f"{data}: the detector was trained on everyone in it")
    else:
        divided = divide(items, seed=seed, swaps=generator is not None)
        rows = [(folder, item) for (folder, _), item in zip(rows, divided, strict=True)]
    return Source(data, rows, run, permit, seed, "+".join(hashes))


def make_set(source: Source, split: str, frames: int, fabric: "Fabric") -> "FaceSet":
    """The labelled faces of one split of a folder with a manifest, ``frames`` a person and class.

    Raises:
        FacekitError: if a picture is damaged.
    """
    from detectors.data import gather

    chosen = _chosen(source, split, frames)
    return gather(_samples(source, split, chosen, fabric), device=fabric.device)


@dataclass(frozen=True)
class Collected:
    """The files of a config's collections, divided.

    Attributes:
        entries: with their splits.
        seed: of all choices.
        data_hash: of the files' names, sizes, labels, people and splits, not of their contents.
    """

    entries: "Sequence[Entry]"
    seed: int
    data_hash: str

    @property
    def people(self) -> dict[str, int]:
        """Split → how many people are in it; their names are the collections' to tell."""
        people: dict[str, set[str]] = {}
        for entry in self.entries:
            people.setdefault(entry.item.split, set()).add(entry.item.subject)
        return {split: len(names) for split, names in sorted(people.items())}

    @property
    def origins(self) -> list[str]:
        """What the untouched pictures come from: "studio", "camera"."""
        return sorted({e.item.generator or "camera" for e in self.entries if e.item.label == 0})

    def splits(self, recipe: "Recipe", fabric: "Fabric") -> "Splits":
        """The faces to train on."""
        from detectors.train import Splits

        names = ("train", "validation", "calibration")
        return Splits(*(self.faces(name, recipe.data.frames, fabric) for name in names))

    def faces(self, split: str, frames: int, fabric: "Fabric") -> "FaceSet":
        """The labelled faces of one split, at most ``frames`` a person and class.

        Raises:
            FacekitError: if nothing of a collection can be read.
        """
        from detectors import collections
        from detectors.data import gather
        from facekit.core.seed import Purpose, rng

        of_each: dict[tuple[str, int], list[Entry]] = {}
        for entry in self.entries:
            if entry.item.split == split:
                key = (entry.item.subject, int(entry.item.label or 0))
                of_each.setdefault(key, []).append(entry)
        random = rng(self.seed, Purpose.FRAMES)
        chosen = [
            rows[i]
            for _, rows in sorted(of_each.items())
            for i in random.permutation(len(rows))[:frames]
        ]
        return gather(collections.samples(chosen), device=fabric.device)


def open_collections(recipe: "Recipe", data: Path, *, seed: int) -> Collected:
    """Read the folders of a config's collections and divide their people.

    Raises:
        FacekitError: for a folder that is missing or laid out otherwise, or too few people.
    """
    from detectors import collections

    # Where forgeries are made of untouched faces, a split need not hold others.
    classes = (0,) if recipe.forges else (0, 1)
    entries = collections.divide(
        collections.read(recipe.collections, data), recipe.shares, seed, classes=classes
    )
    return Collected(
        entries, seed, collections.fingerprint(sorted(entries, key=lambda entry: entry.path))
    )


def _paths(rows: "list[tuple[Path, Item]]") -> list[Path]:
    return [folder / item.path for folder, item in rows]


def _chosen(
    source: Source, split: str, frames: int
) -> "dict[tuple[str, int], list[tuple[Path, Item]]]":
    """Person and class → the pictures of one split: as many as asked for."""
    from facekit.core.seed import Purpose, rng
    from facekit.datasets.manifest import person_of

    of_each: dict[tuple[str, int], list[tuple[Path, Item]]] = {}
    for folder, item in source.rows:
        if item.split == split:
            of_each.setdefault((person_of(item), int(item.label or 0)), []).append((folder, item))
    random = rng(source.seed, Purpose.FRAMES)
    return {
        key: [rows[i] for i in random.permutation(len(rows))[:frames]]
        for key, rows in sorted(of_each.items())
    }


def _samples(
    source: Source,
    split: str,
    chosen: "dict[tuple[str, int], list[tuple[Path, Item]]]",
    fabric: "Fabric",
) -> "Iterator[Sample]":
    """The pictures of one split, and swaps of the untouched ones."""
    from detectors.data import Sample
    from facekit.core.progress import progress
    from facekit.media.images import read_image

    total = sum(map(len, chosen.values()))
    done = 0
    with progress(f"Making {split} faces", total) as advance:
        for (person, label), rows in chosen.items():
            pictures = [read_image(path) for path in _paths(rows)]
            # A picture and what is made from it share the source; without swaps, a clip does.
            sources = [
                str(folder / item.path) if source.generator else item.source or item.path
                for folder, item in rows
            ]
            for pixels, name, (_, item) in zip(pictures, sources, rows, strict=True):
                yield Sample(pixels, label, person, name, maker=item.generator)
            # Of --data alone: the generator knows nobody else, and has consent to nobody else.
            own = [k for k, (folder, _) in enumerate(rows) if folder == source.data]
            if source.generator and label == 0 and own:
                yield from _swaps(
                    source,
                    [pictures[k] for k in own],
                    [sources[k] for k in own],
                    rows[own[0]],
                    fabric,
                )
            done += len(rows)
            advance(done, "")


def _swaps(
    source: Source,
    pictures: "list[Pixels]",
    sources: list[str],
    row: "tuple[Path, Item]",
    fabric: "Fabric",
) -> "Iterator[Sample]":
    """Each of the pictures of ``row``'s person with the face of another one of the split."""
    import numpy as np

    from detectors.data import Sample
    from facekit import generators
    from facekit.core.seed import Purpose, rng
    from facekit.datasets.manifest import person_of
    from facekit.types import Frame

    assert source.generator is not None and source.permit is not None
    folder, shown = row
    # Of this folder alone: another one may call its people alike.
    people = {
        item.subject: person_of(item)
        for where, item in source.rows
        if where == folder and item.split == shown.split
    }
    subjects = sorted(people)
    others = [name for name in subjects if name != shown.subject]
    key = (source.seed, subjects.index(shown.subject), Purpose.DONORS)
    donors = rng(*key).permutation(others)[:_DONORS]
    for i, donor in enumerate(map(str, donors)):
        mine = range(i, len(pictures), len(donors))
        frames = [Frame(pictures[j], 0.0, j) for j in mine]
        changed = generators.generate(
            source.generator,
            frames,
            fabric,
            given=source.permit,
            source=donor,
            target=shown.subject,
            still=True,
        )
        for before, after in zip(frames, changed, strict=True):
            # The generator hands back a picture in which it found no face; that is no forgery.
            if not np.array_equal(before.pixels, after.pixels):
                name = sources[before.index]
                yield Sample(
                    *(after.pixels, 1, person_of(shown), name),
                    donor=people[donor],
                    maker=str(source.generator.facts["plugin"]),
                )


def count(faces: "FaceSet") -> str:
    """How many faces of how many people, in words."""
    generated = int(faces.labels.sum())
    people = len({*faces.subjects, *faces.donors} - {""})
    return f"{len(faces) - generated} untouched and {generated} generated faces of {people} people"
