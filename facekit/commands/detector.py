"""``facekit detector``: train detectors of generated faces, and measure them.

This file is where the two sides meet: it runs a generator and hands its frames, in memory and
unmarked, to the detector's data. Neither side knows of the other.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facekit.commands import options
from facekit.core.errors import FacekitError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lightning_fabric import Fabric

    from detectors.data import Crops, Faces, Sample
    from facekit.generators import GatedRun, Permit
    from facekit.types import Item, Pixels
    from facekit.watermark import Payload

_DONORS = 3  # at most so many people's faces are put into one person's pictures

_DATA = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="A folder with a manifest: of the studio, or with labels 0 and 1.",
)
_GENERATOR = click.option(
    "--generator",
    type=click.Path(file_okay=False, path_type=Path),
    help="A run of 'facekit generator train' on --data: makes generated faces in memory.",
)
_GENERATED = click.option(
    "--generated",
    type=click.Path(file_okay=False, path_type=Path),
    help="Another folder with a manifest, of generated faces.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Train a detector of generated faces, and evaluate it.

    \b
    Examples:
      facekit detector train detectors/small_cnn --data people --generator runs/swap --out runs/d
      facekit detector evaluate runs/d --data people --generator runs/swap
      facekit detector list
    """


@command.command("list")
@options.JSON
def list_(as_json: bool) -> None:
    """List the detectors, the configs and the bundled weights."""
    import json

    from detectors.score import MODELS, WEIGHTS
    from facekit.core import config, registry

    found = {
        "detectors": registry.names(MODELS),
        "configs": sorted(
            f"detectors/{path.stem}" for path in (config.folder() / "detectors").glob("*.yaml")
        ),
        "bundled": sorted(path.stem for path in WEIGHTS.glob("*.safetensors")),
    }
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for what, names in found.items():
        click.echo(f"{what}: {', '.join(names) or '(none)'}")


@command.command()
@click.argument("config")
@_DATA
@_GENERATOR
@_GENERATED
@options.RUN_FOLDER
@options.SEED
@options.DEVICE
@options.PRECISION
@options.THREADS
@options.SET
@options.JSON
def train(
    config: str,
    data: Path,
    generator: Path | None,
    generated: Path | None,
    out: Path,
    seed: int,
    device: str,
    precision: str,
    threads: int | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train the detector that CONFIG, a file or a bundled name, describes.

    Untouched faces are those of label 0 in --data. Generated ones are swaps that --generator makes
    between people of the same split, and whatever has label 1 in --data and --generated. Half of
    both is marked. People are split into train, validation and test; test is not touched here.
    Give the same command again to go on after an interruption.

    \b
    Examples:
      facekit detector train detectors/small_cnn --data people --generator runs/swap --out runs/d
      facekit detector train detectors/spectrum --data labelled --out runs/s --seed 1
    """
    import json

    import torch

    from detectors.score import FILE
    from detectors.train import read_config
    from detectors.train import train as fit
    from facekit.core import device as devices
    from facekit.core.progress import log
    from facekit.core.run import Run

    plugin, settings = read_config(config, overrides)
    fabric = devices.setup(device, precision, threads=threads)
    source = open_source(data, generator, generated, seed=seed)
    run = Run.start(
        out,
        plugin=plugin,
        config=settings,
        seed=seed,
        data_hash=source.data_hash,
        threads=torch.get_num_threads(),
        precision=devices.precision_of(fabric),
    )
    if (out / FILE).is_file():
        log.info("%s: is trained already", out)
    else:
        train_set, validation_set = (
            make_crops(source, split, settings.data, fabric) for split in ("train", "validation")
        )
        run.note(
            people=source.people,
            data=f"{data.name}: {_count(train_set)} to train on, {_count(validation_set)} to "
            f"validate{'; swaps by ' + generator.name if generator else ''}",
        )
        fit(
            settings,
            train_set,
            validation_set,
            run,
            fabric,
            calibrated_for=source.origins,
        )
    facts = {
        "run": str(out),
        "plugin": plugin,
        **{key: run.facts[key] for key in ("data", "minutes", "calibrated_for")},
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    click.echo(f"{out}: {plugin} trained in {facts['minutes']} minutes on {facts['data']}")


@command.command()
@click.argument("run", type=click.Path(file_okay=False, path_type=Path))
@_DATA
@_GENERATOR
@_GENERATED
@options.DEVICE
@options.PRECISION
@options.THREADS
@options.JSON
def evaluate(
    run: Path,
    data: Path,
    generator: Path | None,
    generated: Path | None,
    device: str,
    precision: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure the detector of RUN on people that its training never saw.

    Those are the test people of the folder it was trained on, or all of another folder. Beside its
    figures stand those of a peer (logistic regression on spectra) and a floor (on mean colours),
    fitted on the same faces. Also writes RUN/evaluation.json, with the reliability diagram.

    \b
    Examples:
      facekit detector evaluate runs/d --data people --generator runs/swap
      facekit detector evaluate runs/d --data people --generator runs/swap --json
    """
    from dataclasses import asdict

    from detectors.evaluate import evaluate as measure
    from detectors.evaluate import held_out_scores, interval_basis, reliability
    from detectors.score import Detector
    from facekit.core import device as devices
    from facekit.core import figures, files
    from facekit.core.progress import log
    from facekit.core.run import Run

    fabric = devices.setup(device, precision, threads=threads)
    detector = Detector.load(run, fabric.device)
    floor, peer = (
        Detector.open(run / f"{role}.safetensors", {"name": role}, fabric.device)
        for role in ("floor", "peer")
    )
    facts = Run(run).facts
    source = open_source(data, generator, generated, seed=facts["seed"], seen=facts["people"])
    test_set = make_crops(source, "test", detector.config.data, fabric)
    rows = figures.with_goals(measure(detector, test_set, floor=floor, peer=peer))
    drawn = interval_basis(test_set)
    log.info("%s in %s", _count(test_set), data)
    report = {
        "data": f"{data.name}: {_count(test_set)}",
        "interval": drawn,
        "threshold": detector.threshold,
        "figures": [{**asdict(row), "holds": row.holds} for row in rows],
        "reliability": reliability(held_out_scores(detector, test_set), test_set.labels),
    }
    files.write_json(run / "evaluation.json", report)
    figures.show(rows, as_json)
    if not as_json:
        click.echo(f"95% intervals: {drawn}")


@command.command()
@click.argument("run", type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", required=True, help="What 'analyze --detector' shall call it.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Where to write NAME.safetensors and its card NAME.json.",
)
@click.option("--licence", default="Apache-2.0", show_default=True, help="Of the weights.")
def bundle(run: Path, name: str, out: Path, licence: str) -> None:
    """Write the detector of RUN as one small file with its card.

    \b
    Examples:
      facekit detector bundle runs/d --name studio --out detectors/weights
    """
    from detectors.score import bundle as write
    from facekit.core.run import Run

    click.echo(str(write(Run(run), name, out, licence=licence)))


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
        from detectors.data import person_of

        people: dict[str, set[str]] = {"train": set(), "validation": set(), "test": set()}
        for _, item in self.rows:
            people[item.split].add(person_of(item))
        return {split: sorted(names) for split, names in people.items()}

    @property
    def origins(self) -> list[str]:
        """What the untouched pictures come from: "studio", "camera"."""
        return sorted({item.generator or "camera" for _, item in self.rows if item.label == 0})


def open_source(
    data: Path,
    generator: Path | None = None,
    generated: Path | None = None,
    *,
    seed: int,
    seen: dict[str, list[str]] | None = None,
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
            people, or a generator that was trained on something else or may not change ``data``.
    """
    from detectors.data import divide, person_of
    from facekit import generators
    from facekit.core.files import sha256
    from facekit.datasets.manifest import load_folder
    from facekit.media.find import VIDEO_SUFFIXES
    from facekit.types import MANIFEST

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
        known = {*seen["train"], *seen["validation"]}
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


def make_crops(source: Source, split: str, faces: "Faces", fabric: "Fabric") -> "Crops":
    """The labelled crops of one split.

    Raises:
        FacekitError: if a class is empty, or a picture is damaged.
    """
    from detectors.data import align

    key = (source.seed, ("train", "validation", "test").index(split))
    chosen = _chosen(source, split, faces)
    return align(
        _samples(source, split, chosen, fabric),
        faces,
        key=key,
        device=fabric.device,
        payloads=_payloads(path for rows in chosen.values() for path in _paths(rows)),
    )


def _paths(rows: "list[tuple[Path, Item]]") -> list[Path]:
    return [folder / item.path for folder, item in rows]


def _payloads(paths: "Iterable[Path]") -> "list[Payload]":
    """What the marks say that files bear already."""
    from facekit import watermark
    from facekit.media.images import read_image

    readings = (watermark.read(read_image(path), search=False) for path in paths)
    return [reading.payload for reading in readings if reading.payload]


def _chosen(
    source: Source, split: str, faces: "Faces"
) -> "dict[tuple[str, int], list[tuple[Path, Item]]]":
    """Person and class → the pictures of one split: as many as asked for."""
    from detectors.data import person_of
    from facekit.core.seed import Purpose, rng

    of_each: dict[tuple[str, int], list[tuple[Path, Item]]] = {}
    for folder, item in source.rows:
        if item.split == split:
            of_each.setdefault((person_of(item), int(item.label or 0)), []).append((folder, item))
    random = rng(source.seed, Purpose.FRAMES)
    return {
        key: [rows[i] for i in random.permutation(len(rows))[: faces.frames]]
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
            for pixels, name in zip(pictures, sources, strict=True):
                yield Sample(pixels, label, person, name)
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

    from detectors.data import Sample, person_of
    from facekit import generators
    from facekit.core.seed import Purpose, rng
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
                yield Sample(after.pixels, 1, person_of(shown), name, donor=people[donor])


def _count(crops: "Crops") -> str:
    generated = int(crops.labels.sum())
    people = len({*crops.subjects, *crops.donors} - {""})
    return f"{len(crops) - generated} untouched and {generated} generated faces of {people} people"
