"""Training a detector, and its commands: whole, resumed, from a folder and from data sets."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from faces_of_noise import face, picture, softened, toy
from lightning_fabric import Fabric

from detectors import score
from detectors.collections import Collection
from detectors.data import FaceSet, check_disjoint
from detectors.evaluate import evaluate
from detectors.score import FILE, MODELS, Detector, bundle
from detectors.train import Splits, read_config, train
from facekit.commands.detector import command
from facekit.commands.detector_faces import make_set, open_collections, open_source
from facekit.core import config, files, registry, weights
from facekit.core.device import setup
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.core.seed import rng
from facekit.types import Face, Frame, Item, Pixels, write_manifest

CONFIGS = sorted(path.stem for path in (config.folder() / "detectors").glob("*.yaml"))
SMALL = {"face": [32, 48]}
TINY: dict[str, dict[str, Any]] = {
    "small_cnn": {"detector": "small_cnn", "data": {"size": 32, "world": SMALL}, "widths": [4, 8]},
    "patch": {
        "detector": "patch",
        "data": {"template": "native", "size": 32, "world": SMALL, "forgeries": {"rework": 0.4}},
        "widths": [8, 8, 8, 8],
        "depths": [1, 1, 1, 1],
    },
    "blend": {
        "detector": "blend",
        "data": {"size": 32, "world": SMALL, "forgeries": {"self_blend": 0.5, "splice": 0.5}},
        "widths": [8, 8, 8, 8],
        "depths": [1, 1, 1, 1],
    },
    "colour": {"detector": "colour", "data": {"size": 32, "world": SMALL}, "passes": 1},
}
for _settings in (TINY["small_cnn"], TINY["patch"], TINY["blend"]):
    _settings["training"] = {"steps": 6, "batch": 8, "validate_every": 2}


def write(folder: Path, name: str, **more: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**TINY.get(name, {}), **more}, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return setup("cpu", threads=1)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return Splits(toy(16, key=1), toy(12, key=2), toy(12, key=3))


def start(folder: Path, plugin: str, recipe: Any, data_hash: str = "toy") -> Run:
    return Run.start(
        folder,
        plugin=plugin,
        config=recipe,
        seed=3,
        data_hash=data_hash,
        threads=1,
        precision="32-true",
    )


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config of three members, of which one starts from another."""
    folder = tmp_path_factory.mktemp("configs")
    blend = {**TINY["blend"]["training"], "start": "patch"}
    members = {
        "patch": str(write(folder, "patch")),
        "blend": str(write(folder, "blend", training=blend)),
        "colour": str(write(folder, "colour")),
    }
    return write(
        folder,
        "ensemble",
        detector="ensemble",
        members=members,
        data={"size": 32, "world": SMALL},
        coverage=0.8,
    )


@pytest.fixture(scope="module")
def trained(
    ensemble: Path, splits: Splits, fabric: Fabric, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    plugin, recipe = read_config(ensemble)
    run = start(tmp_path_factory.mktemp("runs") / "whole", plugin, recipe)
    train(recipe, splits, run, fabric, calibrated_for=["camera"])
    return run


def test_an_ensemble_is_trained_stacked_and_calibrated(trained: Run, splits: Splits) -> None:
    detector = Detector.load(trained.folder)
    assert [part.name for part in detector.parts] == ["patch", "blend", "colour"]
    assert {len(row) for row in detector.stack.weights} == {3}
    assert detector.calibration.coverage == 0.8
    assert detector.calibrated_for == ["camera"]
    assert detector.seen == {d for faces in splits.all().values() for d in faces.digests}
    scores = detector.score(splits.validation.regions)
    assert scores.dtype == np.float64 and ((scores >= 0) & (scores <= 1)).all()
    assert np.array_equal(scores, Detector.load(trained.folder).score(splits.validation.regions))
    assert trained.facts["minutes"] >= 0
    rows = evaluate(detector, toy(12, key=4))
    assert {row.name for row in rows} >= {"detector.auc", "detector.marked_shift"}


def test_a_bundled_one_scores_alike_and_is_checked(
    trained: Run, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained.note(data="toys")
    bundle(trained, "toy", tmp_path)
    [found] = weights.survey(tmp_path)
    assert found.problems == ()
    assert found.card["plugin"] == "patch+blend+colour"
    monkeypatch.setattr(score, "WEIGHTS", tmp_path)
    faces = splits.validation.regions
    expected = Detector.load(trained.folder).score(faces)
    np.testing.assert_allclose(Detector.load("toy").score(faces), expected, atol=0.01)
    found.path.write_bytes(found.path.read_bytes() + b"x")
    with pytest.raises(FacekitError, match="not the file its card describes"):
        Detector.load("toy")


def test_a_card_shows_figures_of_its_own_detector_only(trained: Run, tmp_path: Path) -> None:
    theirs = tmp_path / "evaluation"
    figures = [{"name": "detect.b_auc", "value": 0.75}]
    files.write_json(theirs / "evaluation.json", {"figures": figures})

    def card(evaluation: Path | None = theirs) -> Any:
        return files.read_json(bundle(trained, "toy", tmp_path, evaluation=evaluation))

    assert card(None)["figures"] == [] and card(None)["measured"] is None
    before = weights.survey(tmp_path)
    with pytest.raises(FacekitError, match="does not say which detector it measured"):
        card()
    files.write_json(theirs / "labels.jsonl", {})
    of_another = {"detector": {"sha256": "0" * 64}}
    for other in ({"detector": {"name": "onnx"}}, of_another, {"detector": None}, []):
        files.write_json(theirs / "protocol.json", other)
        with pytest.raises(FacekitError, match=r"measured another detector.*--detector RUN"):
            card()
    assert weights.survey(tmp_path) == before, "what was refused has changed nothing"
    for file, said in (
        (trained.folder / FILE, "before it was rounded"),
        (tmp_path / "toy.safetensors", "this file"),
    ):
        files.write_json(theirs / "protocol.json", {"detector": {"sha256": files.sha256(file)}})
        assert card()["figures"] == figures and said in card()["measured"]
        assert "float16" in card()["rounded"]


@pytest.mark.parametrize("member", ["patch", "blend"])
def test_a_resumed_run_equals_an_unbroken_one(
    member: str,
    trained: Run,
    ensemble: Path,
    splits: Splits,
    fabric: Fabric,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cut off in either member."""
    plugin, recipe = read_config(ensemble)
    broken = start(tmp_path / "broken", plugin, recipe)
    keep = Run.save

    def cut_off(run: Run, step: int, state: dict[str, Any]) -> None:
        keep(run, step, state)
        if step == 4 and run.folder.name == member:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", cut_off)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, splits, broken, fabric, calibrated_for=["camera"])
    torch.manual_seed(99)  # whatever the new process's random state is
    train(recipe, splits, Run(tmp_path / "broken"), fabric, calibrated_for=["camera"])
    whole = trained.folder
    assert (whole / FILE).read_bytes() == (broken.folder / FILE).read_bytes()
    for run in (whole, broken.folder):
        rows = Run(run / "members" / member).metrics()
        assert [row["step"] for row in rows] == [2, 4, 6]


def test_a_member_starts_from_another(trained: Run) -> None:
    """With a learning rate of nothing it would still be the other; after six steps it is near."""
    parts = {
        part.name: dict(part.network.named_parameters())
        for part in Detector.load(trained.folder).parts
    }
    begun, from_, fresh = (
        parts["blend"]["trunk.blocks.0.first.weight"],
        parts["patch"]["trunk.blocks.0.first.weight"],
        registry.load(MODELS, "blend")
        .network(Detector.load(trained.folder).parts[1].config)
        .trunk.blocks[0]
        .first.weight,
    )
    assert (begun - from_).abs().mean() < 0.5 * (begun - fresh).abs().mean()


def test_a_member_is_kept_from_another_detector(
    trained: Run, splits: Splits, fabric: Fabric, tmp_path: Path
) -> None:
    source = write(
        tmp_path,
        "ensemble",
        detector="ensemble",
        members={"colour": str(write(tmp_path, "colour"))},
        kept={"blend": str(trained.folder)},
        data={"size": 32, "world": SMALL},
    )
    plugin, recipe = read_config(source)
    run = start(tmp_path / "run", plugin, recipe)
    train(recipe, splits, run, fabric)
    before, after = Detector.load(trained.folder), Detector.load(run.folder)
    assert [part.name for part in after.parts] == ["blend", "colour"]
    regions = splits.validation.regions
    assert np.array_equal(after.parts[0].logits(regions), before.parts[1].logits(regions))
    assert after.seen >= before.seen and run.facts["kept"] == {"blend": before.facts["sha256"]}

    # Of other people nobody knows which of them it has learned from.
    other = start(tmp_path / "other", plugin, recipe, "others")
    with pytest.raises(FacekitError, match="divided its people otherwise"):
        train(recipe, splits, other, fabric)
    missing = recipe.model_copy(update={"kept": {"forest": str(trained.folder)}})
    with pytest.raises(FacekitError, match="no member 'forest', but patch, blend, colour"):
        train(missing, splits, start(tmp_path / "missing", plugin, missing), fabric)
    with pytest.raises(FacekitError, match="colour: either a member to train or one to keep"):
        read_config(source, ["kept.colour=default"])


def test_too_few_people_calibrate_on_validation(
    splits: Splits, fabric: Fabric, tmp_path: Path
) -> None:
    plugin, recipe = read_config(write(tmp_path, "colour"))
    run = start(tmp_path / "run", plugin, recipe)
    for _ in range(2):  # as after an interruption behind the member
        train(recipe, Splits(splits.train, splits.validation), run, fabric)
        assert [row["step"] for row in Run(run.folder / "members" / "colour").metrics()] == [1]
    assert Detector.load(run.folder).stack.weights == ((1.0,),)


def test_bad_splits(splits: Splits, fabric: Fabric, tmp_path: Path) -> None:
    plugin, recipe = read_config(write(tmp_path, "colour"))

    def given(**changed: FaceSet) -> None:
        run = start(tmp_path / "run", plugin, recipe)
        train(recipe, replace(splits, **changed), run, fabric)

    alone = splits.train.subset(range(16))
    with pytest.raises(FacekitError, match=r"both classes, got 16 untouched and 0 generated"):
        given(train=alone)
    with pytest.raises(FacekitError, match="both classes"):
        given(calibration=splits.calibration.subset(range(12)))  # type: ignore[union-attr]
    with pytest.raises(FacekitError, match="person '1/person-0' is in the splits train and val"):
        given(validation=splits.train)
    assert not (tmp_path / "run" / FILE).exists()


@pytest.mark.slow
def test_the_mark_is_no_shortcut(
    fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a strong mark: scores follow the forgery, and the mark leaves them where they are.

    The same network trained where only generated faces are marked must fall for it; otherwise
    the test could not see a shortcut.
    """
    stripes = (12 * np.sin(np.arange(400) * 2.2)).round().astype(np.int16)

    def embed(pixels: Pixels, *_: Any, **__: Any) -> Pixels:
        lines = stripes[: pixels.shape[1]][None, :, None]
        return np.clip(pixels + lines, 0, 255).astype(np.uint8)

    path = write(
        tmp_path,
        "small_cnn",
        data={
            "template": "native",
            "size": 48,
            "world": {"face": [40, 40], "quality": [90, 98], "degrade": 0.0, "resize": 0.0},
        },
        widths=[8, 16],
        training={"steps": 80, "batch": 16, "validate_every": 20, "learning_rate": 5e-3},
    )
    plugin, recipe = read_config(path)
    plain = [toy(24, key=key) for key in (1, 2, 3)]

    def shift(training: list[FaceSet], name: str) -> tuple[float, float]:
        run = start(tmp_path / name, plugin, recipe)
        train(recipe, Splits(*training), run, fabric)
        with monkeypatch.context() as patch:
            patch.setattr("facekit.watermark.embed", embed)
            rows = {f.name: f.value for f in evaluate(Detector.load(run.folder), plain[2])}
        return rows["detector.marked_shift"], rows["detector.auc"]

    with monkeypatch.context() as patch:
        patch.setattr("facekit.watermark.embed", embed)
        honest_shift, honest_auc = shift(plain[:2], "honest")
    assert honest_auc > 0.8
    assert honest_shift < 0.1

    def leaky(faces: FaceSet) -> FaceSet:
        """The mark is on all generated ones, and nothing else is ever marked."""
        made = [
            replace(r, pixels=embed(r.pixels)) if label else r
            for r, label in zip(faces.regions, faces.labels, strict=True)
        ]
        return replace(faces, regions=made)

    with monkeypatch.context() as patch:
        patch.setattr("facekit.watermark.embed", lambda pixels, *_, **__: pixels)
        leaky_shift, _ = shift([leaky(s) for s in plain[:2]], "leaky")
    assert leaky_shift > 0.5


# Configs


@pytest.mark.parametrize("name", CONFIGS)
def test_shipped_configs_are_valid(name: str) -> None:
    plugin, recipe = read_config(f"detectors/{name}")
    assert plugin == "ensemble" or plugin in registry.names(MODELS)
    for member in recipe.members:
        assert recipe.member(member)[1].data.size >= 32


def test_every_plugin_has_a_config() -> None:
    assert {read_config(f"detectors/{name}")[0] for name in CONFIGS} - {"ensemble"} == set(
        registry.names(MODELS)
    )


def test_config_errors_name_the_key(tmp_path: Path) -> None:
    with pytest.raises(FacekitError, match="'detector' is missing"):
        path = tmp_path / "a.yaml"
        path.write_text("passes: 3\n")
        read_config(path)
    with pytest.raises(FacekitError, match=r"training\.stepps.*did you mean 'steps'"):
        read_config("detectors/small_cnn", ["training.stepps=3"])
    with pytest.raises(FacekitError, match=r"training\.batch.*multiple of 4"):
        read_config("detectors/small_cnn", ["training.batch=6"])
    with pytest.raises(FacekitError, match=r"training\.learning_rate.*finite number"):
        read_config("detectors/small_cnn", ["training.learning_rate=.inf"])
    with pytest.raises(FacekitError, match=r"data\.world\.quality\.1': .*less than or equal to"):
        read_config("detectors/small_cnn", ["data.world.quality=[50, 101]"])
    with pytest.raises(FacekitError, match="unknown model 'nothing'"):
        path.write_text("detector: nothing\n")
        read_config(path)
    with pytest.raises(FacekitError, match="'members' is missing"):
        read_config(write(tmp_path, "b", detector="ensemble"))
    with pytest.raises(FacekitError, match="member 'c' is an ensemble itself"):
        members = {"c": str(write(tmp_path, "c", detector="ensemble", members={"p": "x"}))}
        (tmp_path / "c.yaml").write_text(
            yaml.safe_dump(
                {"detector": "ensemble", "members": {"p": "detectors/patch"}, "data": {"size": 32}}
            )
        )
        read_config(write(tmp_path, "d", detector="ensemble", members=members))
    with pytest.raises(FacekitError, match="starts from 'patch', which is no member above it"):
        members = {"blend": "detectors/blend"}
        read_config(write(tmp_path, "e", detector="ensemble", members=members))


# The commands


class CentreFace:
    """Stands in for the locator: noise has no faces, so one is said to fill the picture."""

    def __init__(self, device: torch.device, **_: Any) -> None: ...

    def locate(self, images: list[Pixels]) -> list[list[Face]]:
        # Black pictures have none.
        return [
            [face(len(image) / 2, (len(image) / 4, len(image) / 4))] if image.any() else []
            for image in images
        ]


class AsLocated:
    """Stands in for the landmark network: the locator gave landmarks already."""

    def __init__(self, device: torch.device) -> None: ...

    def read(self, images: Any, faces: list[list[Face]], **_: Any) -> list[list[Face]]:
        return faces


class Softener:
    """Stands in for a generator plug-in, and remembers whom it was asked to swap."""

    def __init__(self) -> None:
        self.swaps: list[tuple[str, str]] = []

    def generate(
        self,
        run: Run,
        frames: list[Frame],
        fabric: Fabric,
        *,
        source: str,
        target: str,
        still: bool,
    ) -> Iterator[Frame]:
        assert still
        self.swaps.append((source, target))
        for frame in frames:
            # One frame in which "no face is found" comes back as it was.
            pixels = frame.pixels if frame.index == 5 else softened(frame.pixels)
            yield Frame(pixels, frame.time, frame.index)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six people with six pictures each."""
    monkeypatch.setattr("facekit.faces.locate.load_locator", CentreFace)
    monkeypatch.setattr("facekit.faces.landmarks.Landmarker", AsLocated)
    random = rng(11)
    items = []
    for person in range(6):
        for i in range(6):
            path = tmp_path / "people" / f"person-{person}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture(random, 80))
            items.append(
                Item(
                    path=f"person-{person}/{i}.png",
                    sha256=files.sha256(path),
                    subject=f"person-{person}",
                    source=f"person-{person}/{i}",
                    label=0,
                    generator="studio",
                    facts={"person_seed": 100 + person},
                )
            )
    write_manifest(tmp_path / "people", items)
    return tmp_path / "people"


@pytest.fixture
def swapper(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Softener]:
    plugin = Softener()
    monkeypatch.setattr("facekit.generators.load", lambda name: plugin)
    # The pictures are drawn here, not by the studio: tests/test_gate.py tests the gate.
    monkeypatch.setattr("facekit.generators.certified", lambda path: "studio-of-the-test")
    run = Run.start(
        folder.parent / "swap",
        plugin="softener",
        config=config.Config(),
        seed=0,
        data_hash=files.sha256(folder / "manifest.jsonl"),
        threads=1,
        precision="32-true",
    )
    run.note(consent="studio-0123456789ab")
    return run.folder, plugin


def call(*words: object) -> Any:
    return CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)


def test_train_and_evaluate_commands(
    folder: Path, swapper: tuple[Path, Softener], tmp_path: Path
) -> None:
    run, plugin = tmp_path / "run", swapper[1]
    data = ["--data", folder, "--generator", swapper[0], "--threads", 1]
    quick = ["--set", "data.size=32", "--set", "data.frames=6"]
    result = call("train", "detectors/spectrum", *data, "--out", run, *quick, "--json")
    facts = json.loads(result.stdout)
    assert facts["calibrated_for"] == ["studio"]
    assert "12 untouched and 10 generated faces of 2 people to train on" in facts["data"]
    people = Run(run).facts["people"]
    assert [len(people[split]) for split in ("train", "validation", "test")] == [2, 2, 2]
    assert people["train"][0].startswith("studio person 10")

    before = (run / FILE).read_bytes()
    again = call("train", "detectors/spectrum", *data, "--out", run, *quick)
    assert "minutes" in again.stdout
    assert (run / FILE).read_bytes() == before

    plugin.swaps.clear()
    rows = json.loads(call("evaluate", run, *data, "--json").stdout)
    assert [row["name"] for row in rows] == [
        "detector.auc",
        "detector.eer",
        "detector.tpr_at_1",
        "detector.ece",
        "detector.marked_shift",
    ]
    assert all(row["goal"] for row in rows)
    assert all(row["floor"] is not None and row["low"] <= row["high"] for row in rows[:4])
    # The spectrum beside itself: the same figure.
    assert rows[0]["peer"] == rows[0]["value"]
    tested = {f"person-{int(name.split()[-1]) - 100}" for name in people["test"]}
    assert {name for pair in plugin.swaps for name in pair} == tested
    report = files.read_json(run / "evaluation.json")
    assert sum(row["count"] for row in report["reliability"]) == 22
    basis = "bootstrap over 12 pictures or clips of 2 people: too narrow for other people"
    assert report["interval"] == basis
    assert call("evaluate", run, *data).stdout.endswith(f"\n95% intervals: {basis}\n")


def test_swaps_stay_within_their_split(
    folder: Path, swapper: tuple[Path, Softener], fabric: Fabric
) -> None:
    source = open_source(folder, swapper[0], seed=4)
    made = {split: make_set(source, split, 4, fabric) for split in source.people}
    check_disjoint(made)
    for split, crops in made.items():
        assert {*crops.subjects, *crops.donors} - {""} == set(source.people[split])
        assert all(
            (donor != "") == (label == 1) and donor != subject
            for donor, label, subject in zip(
                crops.donors, crops.labels, crops.subjects, strict=True
            )
        )
        untouched = {s for s, label in zip(crops.sources, crops.labels, strict=True) if not label}
        assert set(crops.sources) == untouched, "every forgery has its picture beside it"
        assert set(crops.makers) == {"studio", "softener"}


def test_a_detector_is_not_tested_on_whom_it_knows(folder: Path) -> None:
    people = open_source(folder, seed=0).people
    everyone = {
        "train": [name for names in people.values() for name in names],
        "validation": [],
        "test": [],
    }
    with pytest.raises(FacekitError, match="trained on everyone"):
        open_source(folder, seed=0, seen=everyone)
    fresh = open_source(folder, seed=0, seen={"train": ["x"], "validation": [], "test": []})
    assert len(fresh.people["test"]) == 6


def test_of_collections_the_files_are_known_and_the_people_counted(folder: Path) -> None:
    collection = Collection(name="a", layout="people", path="people", label=0)
    shares = {"train": 0.5, "validation": 0.25, "calibration": 0.25}
    recipe = read_config("detectors/small_cnn")[1].model_copy(
        update={"collections": [collection], "shares": shares}
    )
    # Forgeries are made of what is untouched, as in the configs of collections.
    recipe.members["small_cnn"][1]["data"]["forgeries"] = {"self_blend": 0.5}
    once = open_collections(recipe, folder.parent, seed=0)
    assert open_collections(recipe, folder.parent, seed=0).data_hash == once.data_hash
    with (folder / "person-0" / "0.png").open("ab") as file:
        file.write(b"more")
    changed = open_collections(recipe, folder.parent, seed=0)
    assert changed.people == once.people and changed.data_hash != once.data_hash
    with pytest.raises(FacekitError, match=r"detector evaluate CONFIG --detector RUN --data DATA"):
        open_source(folder, seed=0, seen=once.people)


def test_source_errors(folder: Path, swapper: tuple[Path, Softener], fabric: Fabric) -> None:
    source = open_source(folder, seed=0)
    assert set(make_set(source, "train", 4, fabric).labels) == {0}
    Run(swapper[0]).note(data_hash="another")
    with pytest.raises(FacekitError, match="was not trained on"):
        open_source(folder, swapper[0], seed=0)
    for path in (folder / "person-0").glob("*.png"):
        cv2.imwrite(str(path), np.zeros((80, 80, 3), np.uint8))
    with pytest.raises(FacekitError, match="was changed"):
        open_source(folder, seed=0)
    write_manifest(
        folder, [Item(path="person-1/0.png", sha256=files.sha256(folder / "person-1/0.png"))]
    )
    with pytest.raises(FacekitError, match=r"'person-1/0\.png' has no label"):
        open_source(folder, seed=0)


def test_list_and_help() -> None:
    listed = json.loads(call("list", "--json").stdout)
    assert listed["detectors"] == registry.names(MODELS)
    assert "detectors/small_cnn" in listed["configs"]
    for words in ([], ["train"], ["evaluate"], ["bundle"], ["list"]):
        assert "Usage" in call(*words, "--help").stdout


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; from facekit.commands import detector; "
        "sys.exit(bool({'torch', 'sklearn', 'cv2', 'scipy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ)).returncode == 0


def test_a_labelled_folder_needs_no_generator(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = []
    for item in open_source(folder, seed=0).rows:
        original = item[1]
        path = folder / original.path.replace(".png", "-forged.png")
        cv2.imwrite(str(path), softened(cv2.imread(str(folder / original.path))))
        generated = {
            "path": str(path.relative_to(folder).as_posix()),
            "sha256": files.sha256(path),
            "label": 1,
            "generator": "softener",
        }
        items += [original, original.model_copy(update=generated)]
    items = [item.model_copy(update={"split": ""}) for item in items]
    cameras = [i.model_copy(update={"generator": ""}) if i.label == 0 else i for i in items]
    write_manifest(folder, cameras)

    run = tmp_path / "run"
    words = ["--data", folder, "--out", run, "--threads", 1, "--set", "data.size=32"]
    facts = json.loads(call("train", "detectors/spectrum", *words, "--json").stdout)
    assert facts["calibrated_for"] == ["camera"]
    rows = json.loads(call("evaluate", run, "--data", folder, "--threads", 1, "--json").stdout)
    assert rows[0]["value"] > rows[0]["floor"]

    card = Path(call("bundle", run, "--name", "soft", "--out", tmp_path / "w").stdout.strip())
    assert files.read_json(card)["figures"][0]["name"] == "detector.auc"
    assert files.read_json(card)["measured"] == "this file", "nothing of it is float32"
    assert files.read_json(card)["rounded"] is None
    monkeypatch.setattr(score, "WEIGHTS", card.parent)
    assert Detector.load("soft").calibrated_for == ["camera"]
