"""Detectors: conformance of every plug-in, metrics against oracles, and the shortcuts."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from lightning_fabric import Fabric
from scipy.stats import norm
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from detectors import evaluate, score
from detectors.calibrate import Calibration, calibrate
from detectors.data import (
    Batches,
    Crops,
    Faces,
    Sample,
    align,
    check_disjoint,
    divide,
    person_of,
    view,
)
from detectors.models import spectrum
from detectors.models.small_cnn import neighbouring_pixels
from detectors.score import FILE, MODELS, Detector, bundle, to_tensor
from detectors.train import read_config, train
from facekit import watermark
from facekit.commands.detector import command, make_crops, open_source
from facekit.core import checkpoint, config, files, registry, weights
from facekit.core.device import setup
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.core.seed import rng
from facekit.types import Face, Frame, Item, Pixels, write_manifest
from facekit.watermark import Kind, Payload

PLUGINS = registry.names(MODELS)
CONFIGS = sorted(path.stem for path in (config.folder() / "detectors").glob("*.yaml"))
TINY = {
    "small_cnn": {
        "widths": [4, 8],
        "dropout": 0.0,
        "training": {"steps": 6, "batch": 8, "validate_every": 2},
    }
}
"""Settings that make a plug-in quick; one that is not here is quick already."""


def plugin_of(name: str) -> ModuleType:
    return registry.load(MODELS, name)


def settings_of(name: str, size: int = 32, **more: Any) -> Any:
    data = {"data": {"size": size}, **TINY.get(name, {}), **more}
    return plugin_of(name).Config.model_validate(data)


def picture(random: np.random.Generator, size: int) -> Pixels:
    """Coloured noise with much of it at low frequencies, as pictures have."""
    layers = [
        cv2.resize(random.normal(0, deviation, (side, side, 3)), (size, size))
        for side, deviation in ((4, 40), (size // 4, 15), (size, 8))
    ]
    return np.clip(sum(layers) + random.uniform(90, 160, 3), 0, 255).astype(np.uint8)


def forged(pixels: Pixels) -> Pixels:
    """The middle up-sampled from half its size: what a small generator pastes in."""
    size = len(pixels)
    soft = cv2.resize(
        cv2.resize(pixels, (size // 2, size // 2), interpolation=cv2.INTER_AREA), (size, size)
    )
    result = pixels.copy()
    middle = slice(size // 8, -size // 8)
    result[middle, middle] = soft[middle, middle]
    return result


def toy(pairs: int, *, key: int, size: int = 32, people: int = 4) -> Crops:
    """Untouched pictures and their forgeries, half of the pairs a person's."""
    random = rng(key)
    untouched = [picture(random, size) for _ in range(pairs)]
    images = np.stack(untouched + [forged(p) for p in untouched])
    # A faint pattern: the crops are smaller than the watermark takes.
    mark = (np.indices((size, size)).sum(0) % 2 * 4 - 2)[:, :, None]
    return Crops(
        images=images,
        marked=np.clip(images + mark, 0, 255).astype(np.uint8),
        came_marked=np.zeros(2 * pairs, np.bool_),
        labels=np.repeat([0, 1], pairs),
        subjects=[f"{key}/person-{i % people}" for i in range(pairs)] * 2,
        sources=[f"{key}/{i}" for i in range(pairs)] * 2,
        donors=[""] * pairs + [f"{key}/person-{(i + 1) % people}" for i in range(pairs)],
    )


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return setup("cpu", threads=1)


@pytest.fixture(scope="module")
def sets() -> tuple[Crops, Crops]:
    return toy(16, key=1), toy(12, key=2)


def start(folder: Path, name: str, settings: Any) -> Run:
    return Run.start(
        folder,
        plugin=name,
        config=settings,
        seed=3,
        data_hash="toy",
        threads=1,
        precision="32-true",
    )


# Every plug-in


@pytest.mark.parametrize("name", PLUGINS)
def test_forward_and_gradients(name: str) -> None:
    torch.manual_seed(0)
    network = plugin_of(name).network(settings_of(name))
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    images[0] = 0.5  # a flat picture has no spectrum and no deviation
    logits = network(images)
    assert logits.shape == (4,)
    assert logits.isfinite().all()
    parameters = dict(network.named_parameters())
    if parameters:
        logits.square().sum().backward()
        for key, parameter in parameters.items():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
            assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", PLUGINS)
def test_a_batch_does_not_change_a_score(name: str) -> None:
    network = plugin_of(name).network(settings_of(name)).eval()
    crops = toy(40, key=9).images
    together = score.network_logits(network, crops)
    apart = np.concatenate([score.network_logits(network, crops[i : i + 1]) for i in range(80)])
    np.testing.assert_allclose(together, apart, atol=1e-5)
    assert score.network_logits(network, crops[:0]).shape == (0,)


@pytest.mark.parametrize("name", PLUGINS)
def test_overfits_a_few_faces(name: str) -> None:
    """Two flat colours: even the floor must tell them apart."""
    settings = settings_of(name)
    random = rng(5)
    dark, bright = (
        np.clip(random.normal(level, spread, (8, 32, 32, 3)), 0, 255).astype(np.uint8)
        for level, spread in ((70, 5), (180, 30))
    )
    images, labels = np.concatenate([dark, bright]), np.repeat([0, 1], 8)
    plugin = plugin_of(name)
    torch.manual_seed(0)
    network = plugin.network(settings)
    if hasattr(plugin, "fit"):
        plugin.fit(network, to_tensor(images), labels, settings)
    else:
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(60):
            logits = network(to_tensor(images))
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, torch.from_numpy(labels).float()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    logits = score.network_logits(network.eval(), images)
    assert (logits[labels == 1].min() > logits[labels == 0].max()) or evaluate.auc(
        logits, labels
    ) == 1


@pytest.mark.parametrize("name", PLUGINS)
def test_train_save_load_and_bundle(
    name: str,
    sets: tuple[Crops, Crops],
    fabric: Fabric,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_of(name)
    run = start(tmp_path / "run", name, settings)
    train(settings, *sets, run, fabric, calibrated_for=["studio"])
    detector = Detector.load(tmp_path / "run")
    crops = sets[1].images
    scores = detector.score(crops)
    assert scores.dtype == np.float64
    assert ((scores >= 0) & (scores <= 1)).all()
    assert np.array_equal(scores, Detector.load(tmp_path / "run").score(crops))
    assert detector.calibrated_for == ["studio"]
    assert (detector.template, detector.size) == ("wide", 32)
    assert 0 < detector.threshold < 1
    assert run.facts["minutes"] >= 0

    run.note(data="toys")
    bundle(run, "toy", tmp_path / "weights")
    [found] = weights.survey(tmp_path / "weights")
    assert found.problems == ()
    monkeypatch.setattr(score, "WEIGHTS", tmp_path / "weights")
    bundled = Detector.load("toy")
    np.testing.assert_allclose(bundled.score(crops), scores, atol=0.01)
    assert bundled.facts["plugin"] == name

    found.path.write_bytes(found.path.read_bytes() + b"x")
    with pytest.raises(FacekitError, match="not the file its card describes"):
        Detector.load("toy")


@pytest.mark.parametrize("name", [n for n in PLUGINS if not hasattr(plugin_of(n), "fit")])
def test_a_resumed_run_equals_an_unbroken_one(
    name: str,
    sets: tuple[Crops, Crops],
    fabric: Fabric,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_of(name)
    whole = start(tmp_path / "whole", name, settings)
    train(settings, *sets, whole, fabric)

    broken = start(tmp_path / "broken", name, settings)
    keep = Run.save

    def cut_off(run: Run, step: int, state: dict[str, Any]) -> None:
        keep(run, step, state)
        if step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", cut_off)
        with pytest.raises(KeyboardInterrupt):
            train(settings, *sets, broken, fabric)
    torch.manual_seed(99)  # whatever the new process's random state is
    train(settings, *sets, Run(tmp_path / "broken"), fabric)

    assert (tmp_path / "whole" / FILE).read_bytes() == (tmp_path / "broken" / FILE).read_bytes()
    steps = [[row["step"] for row in run.metrics()] for run in (whole, broken)]
    assert steps[0] == steps[1] == [2, 4, 6]


@pytest.mark.parametrize("name", CONFIGS)
def test_shipped_configs_are_valid(name: str) -> None:
    plugin, settings = read_config(f"detectors/{name}")
    assert plugin in PLUGINS
    assert settings.data.size >= 32


def test_every_plugin_has_a_config() -> None:
    assert {read_config(f"detectors/{name}")[0] for name in CONFIGS} == set(PLUGINS)


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
    with pytest.raises(FacekitError, match=r"data\.quality\.1': .*less than or equal to 100"):
        read_config("detectors/small_cnn", ["data.quality=[50, 101]"])
    with pytest.raises(FacekitError, match=r"data\.quality': the lower .* first, given \[90, 50\]"):
        read_config("detectors/small_cnn", ["data.quality=[90, 50]"])
    with pytest.raises(FacekitError, match="unknown model 'nothing'"):
        path.write_text("detector: nothing\n")
        read_config(path)


# The models


def test_spectrum_is_scikit_learn(fabric: Fabric) -> None:
    data = toy(20, key=4)
    settings = spectrum.Config(data=Faces(size=32))
    network = spectrum.network(settings)
    images = to_tensor(data.images)
    spectrum.fit(network, images, data.labels, settings)
    features = network.features(images).numpy()
    oracle = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    oracle.fit(features, data.labels)
    expected = oracle.decision_function(features)
    np.testing.assert_allclose(network(images).numpy(), expected, rtol=1e-12, atol=1e-12)
    assert network(images).dtype == torch.float64


@pytest.mark.parametrize("cycles", [3, 9, 14])
def test_spectrum_finds_a_wave(cycles: int) -> None:
    """A wave of so many cycles a picture has its power in that ring, whatever its direction."""
    network = spectrum.network(spectrum.Config(data=Faces(size=32)))
    x = torch.arange(32) / 32 * 2 * torch.pi * cycles
    across = (0.5 * x.sin())[None, None, None, :].expand(1, 3, 32, 32)
    features = torch.cat([network.features(across), network.features(across.transpose(2, 3))])
    assert features.argmax(dim=1).tolist() == [cycles - 1, cycles - 1]
    torch.testing.assert_close(features[0], features[1])


def test_neighbouring_pixels() -> None:
    images = torch.arange(15.0).reshape(1, 1, 3, 5)
    expected = torch.tensor(
        [[0, 1, 0, 1, 0], [5, 6, 5, 6, 5], [0, 1, 0, 1, 0]], dtype=torch.float32
    )
    assert torch.equal(neighbouring_pixels(images)[0, 0], expected)


# Data


def test_batches_are_balanced_paired_and_half_marked() -> None:
    """With pictures that say what they are: (index, marked) written into their pixels."""
    pairs, size = 8, 32
    images = np.zeros((2 * pairs, size, size, 3), np.uint8)
    images[:] = (np.arange(2 * pairs) * 8)[:, None, None, None]
    plain = Faces(size=size, quality=[100, 100], degrade=0.0, recolour=0.0)
    crops = replace(toy(pairs, key=1), images=images, marked=images + 4)
    batches = Batches(crops, plain, batch=16, seed=0)
    for step in range(5):
        drawn, labels = batches(step)
        again, _ = batches(step)
        assert np.array_equal(drawn, again)
        value = np.rint(drawn.mean((1, 2, 3)) / 4).astype(int)
        index, marked = value // 2, value % 2
        assert labels.tolist() == [0] * 8 + [1] * 8
        assert np.array_equal(index[:8] + pairs, index[8:]), "forgeries of the very same pictures"
        assert len(set(index[:8])) == 8
        assert marked[:8].sum() == marked[8:].sum() == 4
    assert not np.array_equal(batches(0)[0], batches(1)[0])


@pytest.mark.parametrize("marked_class", [0, 1])
def test_where_one_class_came_marked_the_other_is_marked_as_often(marked_class: int) -> None:
    """A folder of pictures that left through facekit: three of four of one class bear a mark."""
    pairs, size = 8, 32
    plain = Faces(size=size, quality=[100, 100], degrade=0.0, recolour=0.0)
    crops = toy(pairs, key=1)
    came = (crops.labels == marked_class) & (np.arange(2 * pairs) % 4 < 3)
    images = np.full((2 * pairs, size, size, 3), 100, np.uint8)
    images[came] = 120
    crops = replace(crops, images=images, marked=np.full_like(images, 120), came_marked=came)

    def shares(pixels: Pixels, labels: np.ndarray) -> list[float]:
        marked = pixels.mean((1, 2, 3)) > 110
        return [marked[labels == label].mean() for label in (0, 1)]

    assert shares(view(crops, plain, key=1, marks="half"), crops.labels) == [0.75, 0.75]
    assert shares(view(crops, plain, key=1, marks="none"), crops.labels)[marked_class] == 0.75
    batches = Batches(crops, plain, batch=16, seed=0)
    for step in range(5):
        drawn = shares(*batches(step))
        assert drawn[0] == drawn[1] >= 0.5


def test_the_mark_alone_does_not_tell_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who knew every picture without its mark, and so what the mark adds, could not tell either.

    In memory all are unmarked; from files, generated ones come marked, all with the same payload.
    Marked as if they had come without, they would be told at once.
    """
    monkeypatch.setattr("facekit.faces.locate.load_locator", CentreFace)
    random = rng(5)
    hosts = [picture(random, 160) for _ in range(80)]
    labels = np.arange(80) % 2
    stored = Payload(Kind.GENERATED, 77)
    files_ = [watermark.embed(p, stored) if i % 2 else p for i, p in enumerate(hosts)]
    faces = Faces(size=64, quality=[100, 100], degrade=0.0)

    def crops_of(pictures: list[Pixels], payloads: Sequence[Payload] = ()) -> Crops:
        samples = [Sample(p, int(labels[i]), str(i), str(i)) for i, p in enumerate(pictures)]
        return align(samples, faces, key=(1, 0), device=torch.device("cpu"), payloads=payloads)

    def told(crops: Crops, marks: Literal["half", "none"] = "half") -> float:
        known = view(unmarked, faces, key=3, marks="none").astype(float)
        added = (view(crops, faces, key=3, marks=marks) - known).mean(3).reshape(80, -1)
        scores = cross_val_predict(
            LogisticRegression(max_iter=2000), added, labels, cv=8, method="decision_function"
        )
        return evaluate.auc(scores, labels)

    unmarked = crops_of(hosts)
    assert not unmarked.came_marked.any()
    assert 0.3 < told(unmarked) < 0.7
    from_files = crops_of(files_, [stored] * 40)
    assert np.array_equal(from_files.came_marked, labels == 1)
    assert 0.3 < told(from_files) < 0.7
    # What would tell: marks of one class alone, more of one class, other words in one class.
    assert told(from_files, "none") > 0.95
    assert told(replace(from_files, came_marked=labels > 1)) > 0.6
    assert told(crops_of(files_)) > 0.7


def test_view_is_a_function_of_its_key() -> None:
    data, faces = toy(6, key=1), Faces(size=32)
    first, same, other = (view(data, faces, key=key, marks="half") for key in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    clean = Faces(size=32, quality=[100, 100], degrade=0.0)
    near = view(data, clean, key=1, marks="none").astype(int)
    # What is left is JPEG's thinner colour; a flip or a shift differs by about 30.
    assert np.abs(near - data.images).mean() < 6, "evaluation neither flips nor shifts"


def test_disjoint_splits() -> None:
    data = toy(4, key=1)
    check_disjoint({"train": data, "test": toy(4, key=2)})
    with pytest.raises(FacekitError, match=r"person '1/person-0' is in the splits train and test"):
        check_disjoint({"train": data, "test": replace(toy(4, key=2), subjects=data.subjects)})
    with pytest.raises(FacekitError, match="person '1/person-0'"):
        check_disjoint({"train": data, "test": replace(toy(4, key=2), donors=data.donors)})
    with pytest.raises(FacekitError, match="source '1/0'"):
        check_disjoint({"train": data, "test": replace(toy(4, key=2), sources=data.sources)})


@pytest.mark.parametrize(("people", "counts"), [(6, (2, 2, 2)), (8, (4, 2, 2)), (16, (10, 3, 3))])
def test_divide_leaves_two_for_a_swap(people: int, counts: tuple[int, ...]) -> None:
    items = [
        Item(path=f"{p}/{i}.png", sha256="0" * 64, subject=f"p{p}", label=0)
        for p in range(people)
        for i in range(3)
    ]
    divided = divide(items, seed=1, swaps=True)
    found = [
        len({item.subject for item in divided if item.split == split})
        for split in ("train", "validation", "test")
    ]
    assert tuple(found) == counts


def test_divide_says_how_many_people_it_needs() -> None:
    items = [Item(path=f"{p}.png", sha256="", subject=f"p{p}") for p in range(5)]
    with pytest.raises(FacekitError, match=r"5 people .* give 6 or more"):
        divide(items, seed=0, swaps=True)


def test_people_of_two_studio_folders_differ() -> None:
    one = Item(path="a.png", sha256="", subject="person-0000", facts={"person_seed": 1})
    other = one.model_copy(update={"facts": {"person_seed": 2}})
    assert person_of(one) != person_of(other)
    assert person_of(Item(path="a.png", sha256="")) == "a.png"
    # A clip of the same person calls them otherwise.
    clip = one.model_copy(update={"path": "clip.mp4", "subject": "studio-1"})
    assert person_of(one) == person_of(clip) == "studio person 1"


@pytest.mark.parametrize("swaps", [False, True])
def test_one_person_by_two_names_is_in_one_split(swaps: bool) -> None:
    items = [
        Item(path=name, sha256="", subject=name, source=name, facts={"person_seed": person})
        for person in range(8)
        for name in (f"person-{person:04d}", f"studio-{person}")
    ]
    for seed in range(5):
        divided = divide(items, seed=seed, swaps=swaps)
        assert [item.subject for item in divided] == [item.subject for item in items]
        assert all(a.split == b.split for a, b in zip(divided[::2], divided[1::2], strict=True))
        assert {item.split for item in divided} == {"train", "validation", "test"}


def test_one_class_is_an_error(sets: tuple[Crops, Crops], fabric: Fabric, tmp_path: Path) -> None:
    settings = settings_of("colour")
    run = start(tmp_path, "colour", settings)
    alone = replace(sets[0], labels=np.zeros_like(sets[0].labels))
    with pytest.raises(FacekitError, match=r"both classes, got 32 untouched and 0 generated"):
        train(settings, alone, sets[1], run, fabric)


# Shortcuts


@pytest.mark.slow
def test_the_mark_is_no_shortcut(fabric: Fabric, tmp_path: Path) -> None:
    """On a strong mark: scores follow the forgery, and the mark leaves them where they are.

    The same network trained where only generated faces are marked must fall for it; otherwise
    the test could not see a shortcut.
    """
    settings = settings_of(
        "small_cnn",
        size=48,
        data={"size": 48, "quality": [90, 98], "degrade": 0.0},
        widths=[8, 16],
        training={"steps": 80, "batch": 16, "validate_every": 20, "learning_rate": 5e-3},
    )
    stripes = (12 * np.sin(np.arange(48) * 2.2)).round().astype(np.int16)[None, :, None]

    def with_stripes(data: Crops) -> Crops:
        marked = np.clip(data.images + stripes, 0, 255).astype(np.uint8)
        return replace(data, marked=marked)

    splits = [with_stripes(toy(24, key=key, size=48)) for key in (1, 2, 3)]

    def shift(training: list[Crops], folder: Path) -> tuple[float, float]:
        train(settings, *training, start(folder, "small_cnn", settings), fabric)
        test = splits[2]
        rows = {f.name: f.value for f in evaluate.evaluate(Detector.load(folder), test)}
        return rows["detector.marked_shift"], rows["detector.auc"]

    honest_shift, honest_auc = shift(splits[:2], tmp_path / "honest")
    assert honest_auc > 0.8
    assert honest_shift < 0.1

    def leaky(data: Crops) -> Crops:
        generated = (data.labels == 1)[:, None, None, None]
        pixels = np.where(generated, data.marked, data.images)
        return replace(data, images=pixels, marked=pixels)

    leaky_shift, _ = shift([leaky(s) for s in splits[:2]], tmp_path / "leaky")
    assert leaky_shift > 0.5


# Calibration


def test_calibration_recovers_what_made_the_data() -> None:
    random = rng(0)
    logits = random.normal(0, 3, 20000)
    labels = (random.random(20000) < 1 / (1 + np.exp(-(0.5 * logits + 0.7)))).astype(np.int64)
    found = calibrate(logits, labels)
    assert found.scale == pytest.approx(0.5, abs=0.02)
    assert found.bias == pytest.approx(0.7, abs=0.06)
    oracle = LogisticRegression(C=1e6).fit(logits[:, None], labels)
    assert found.scale == pytest.approx(oracle.coef_[0, 0], rel=1e-2)
    assert evaluate.ece(found.probability(logits), labels) < 0.02


def test_calibration_of_separated_classes_stays_modest() -> None:
    """Platt's targets: ten of each, wholly apart, promise about 11/12 and not 1."""
    labels = np.repeat([0, 1], 10)
    found = calibrate(np.where(labels == 1, 1000.0, -1000.0), labels)
    assert found.probability(np.array([1000.0]))[0] == pytest.approx(11 / 12, abs=0.01)
    assert found.threshold == pytest.approx(0.5, abs=0.01), "midway in the gap"


def test_threshold_holds_its_false_alarms() -> None:
    random = rng(1)
    labels = np.repeat([0, 1], 1000)
    logits = random.normal(2.0 * labels)
    found = calibrate(logits, labels, fpr=0.05)
    above = found.probability(logits) > found.threshold
    assert above[labels == 0].mean() == 0.05
    assert calibrate(logits, labels, fpr=0.0).threshold > found.threshold


def test_calibration_never_turns_the_order_round() -> None:
    found = calibrate(np.array([3.0, 2.0, -2.0, -3.0]), np.array([0, 0, 1, 1]))
    assert found.scale > 0


def test_calibration_errors() -> None:
    with pytest.raises(FacekitError, match="both classes, got 2 untouched and 0 generated"):
        calibrate(np.zeros(2), np.zeros(2, np.int64))
    with pytest.raises(FacekitError, match="not numbers"):
        calibrate(np.array([0.0, np.nan]), np.array([0, 1]))


# Metrics


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray]:
    random = rng(2)
    labels = random.integers(2, size=400)
    return np.round(1 / (1 + np.exp(-random.normal(1.5 * labels - 0.7))), 2), labels  # with ties


def test_auc_is_scikit_learns(scored: tuple[np.ndarray, np.ndarray]) -> None:
    assert evaluate.auc(*scored) == pytest.approx(metrics.roc_auc_score(scored[1], scored[0]))


def test_metrics_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    scores = np.array([0.1, 0.2, 0.3, 0.7, 0.4, 0.6, 0.8, 0.9])
    assert evaluate.auc(scores, labels) == 14 / 16
    assert evaluate.tpr_at(scores, labels, 0.01) == 0.5
    assert evaluate.tpr_at(scores, labels, 0.25) == 1.0
    assert evaluate.eer(scores, labels) == 0.25
    perfect = labels.astype(float)
    assert (evaluate.auc(perfect, labels), evaluate.eer(perfect, labels)) == (1.0, 0.0)
    assert (evaluate.auc(1 - perfect, labels), evaluate.eer(1 - perfect, labels)) == (0.0, 1.0)
    constant = np.full(8, 0.4)
    assert (evaluate.auc(constant, labels), evaluate.eer(constant, labels)) == (0.5, 0.5)
    assert evaluate.tpr_at(constant, labels, 0.01) == 0.0


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.0, 3.0])
def test_metrics_of_normal_scores(distance: float) -> None:
    """Two normal distributions d' apart: AUC Φ(d'/√2), EER Φ(-d'/2), TPR Φ(d' - z₀.₉₉)."""
    n = 20000
    quantiles = norm.ppf((np.arange(n) + 0.5) / n)
    scores = np.concatenate([quantiles, quantiles + distance])
    labels = np.repeat([0, 1], n)
    assert evaluate.auc(scores, labels) == pytest.approx(norm.cdf(distance / 2**0.5), abs=1e-3)
    assert evaluate.eer(scores, labels) == pytest.approx(norm.cdf(-distance / 2), abs=1e-3)
    expected = norm.cdf(distance - norm.ppf(0.99))
    assert evaluate.tpr_at(scores, labels, 0.01) == pytest.approx(expected, abs=2e-3)


def test_ece_by_hand() -> None:
    labels = np.array([0, 1, 1, 1, 0])
    probabilities = np.array([0.05, 0.05, 0.95, 1.0, 0.42])
    # Bins: two faces at 0.05 (half are generated), one at 0.42 (none is), two at 0.975 (both are).
    expected = (2 * 0.45 + 1 * 0.42 + 2 * 0.025) / 5
    assert evaluate.ece(probabilities, labels) == pytest.approx(expected)
    rows = evaluate.reliability(probabilities, labels)
    assert [(row["low"], row["count"], row["share"]) for row in rows] == [
        (0.0, 2, 0.5),
        (0.4, 1, 0.0),
        (0.9, 2, 1.0),
    ]


def test_interval_covers_and_knows_its_clusters(scored: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = scored
    apart = evaluate.interval(evaluate.auc, scores, labels, np.arange(400))
    assert apart[0] < evaluate.auc(scores, labels) < apart[1]
    # Each face four times over says no more than once; drawn face by face it would seem to.
    again = [np.repeat(values, 4) for values in (scores, labels, np.arange(400))]
    together = evaluate.interval(evaluate.auc, *again)
    naive = evaluate.interval(evaluate.auc, again[0], again[1], np.arange(1600))
    assert together[1] - together[0] == pytest.approx(apart[1] - apart[0], rel=0.15)
    assert naive[1] - naive[0] < 0.7 * (together[1] - together[0])


def test_clusters_are_people_where_there_are_enough() -> None:
    data = toy(24, key=1, people=4)
    assert evaluate.clusters(data)[0] == "pictures or clips"
    assert evaluate.clusters(replace(data, subjects=data.sources))[0] == "people"
    assert evaluate.clusters(replace(data, sources=data.subjects))[0] == "faces"


# Files and the command line


def test_bad_detectors(tmp_path: Path) -> None:
    with pytest.raises(FacekitError, match="no bundled weights 'nothing'"):
        Detector.load("nothing")
    with pytest.raises(FacekitError, match="not a run folder"):
        Detector.load(tmp_path)
    start(tmp_path / "half", "colour", settings_of("colour"))
    with pytest.raises(FacekitError, match="finish its training"):
        Detector.load(tmp_path / "half")
    with pytest.raises(FacekitError, match="finish its training"):
        bundle(Run(tmp_path / "half"), "name", tmp_path)
    with pytest.raises(FacekitError, match=r"name '\.\./x'"):
        bundle(Run(tmp_path / "half"), "../x", tmp_path)
    (tmp_path / "half" / FILE).write_bytes(b"not safetensors")
    with pytest.raises(FacekitError, match="not a readable checkpoint"):
        Detector.load(tmp_path / "half")
    checkpoint.save(tmp_path / "half" / FILE, {"step": 3})
    with pytest.raises(FacekitError, match="not a calibrated detector"):
        Detector.load(tmp_path / "half")


def test_a_score_is_never_made_up(tmp_path: Path) -> None:
    settings = settings_of("small_cnn")
    network = plugin_of("small_cnn").network(settings)
    network.head.bias.data.fill_(float("nan"))
    score.save(
        tmp_path / "a.safetensors",
        plugin="small_cnn",
        config=settings,
        weights=network.state_dict(),
        calibration=Calibration(1.0, 0.0, 0.5),
        calibrated_for=[],
    )
    detector = Detector.open(tmp_path / "a.safetensors", {"name": "a"})
    with pytest.raises(FacekitError, match="not numbers"):
        detector.score(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="expected uint8"):
        detector.score(np.zeros((1, 16, 16, 3), np.uint8))


class CentreFace:
    """Stands in for the locator: noise has no faces, so one is said to fill the picture."""

    def __init__(self, device: torch.device) -> None: ...

    def locate(self, images: list[Pixels]) -> list[list[Face]]:
        # Black pictures have none.
        return [[self.face(len(image))] if image.any() else [] for image in images]

    @staticmethod
    def face(size: int) -> Face:
        points = np.array([[0.36, 0.41], [0.64, 0.41], [0.5, 0.56], [0.39, 0.72], [0.61, 0.72]])
        box = np.array([0.2, 0.1, 0.8, 0.9], np.float32) * size
        return Face(box=box, points=(points * size).astype(np.float32), score=1.0)


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
            pixels = frame.pixels if frame.index == 5 else forged(frame.pixels)
            yield Frame(pixels, frame.time, frame.index)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six people with six pictures each."""
    monkeypatch.setattr("facekit.faces.locate.load_locator", CentreFace)
    random = rng(11)
    items = []
    for person in range(6):
        for i in range(6):
            path = tmp_path / "people" / f"person-{person}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture(random, 64))
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
    faces = Faces(size=32, frames=4)
    made = {split: make_crops(source, split, faces, fabric) for split in source.people}
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
        assert not np.array_equal(crops.images, crops.marked)


def test_each_split_has_marks_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    payloads: list[Any] = []
    monkeypatch.setattr(
        "facekit.watermark.embed", lambda pixels, payload, **_: payloads.append(payload) or pixels
    )
    samples = [
        Sample(cv2.imread(str(path)), i % 2, str(i), str(i))
        for i, path in enumerate(sorted((folder / "person-0").glob("*.png")))
    ]
    for key in ((3, 0), (3, 1), (3, 0)):
        align(samples, Faces(size=32), key=key, device=torch.device("cpu"))
    first, second, again = (payloads[i : i + 6] for i in (0, 6, 12))
    assert first == again
    assert not set(first) & set(second)


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


def test_source_errors(folder: Path, swapper: tuple[Path, Softener], fabric: Fabric) -> None:
    source = open_source(folder, seed=0)
    with pytest.raises(FacekitError, match="both classes"):
        make_crops(source, "train", Faces(size=32), fabric)
    Run(swapper[0]).note(data_hash="another")
    with pytest.raises(FacekitError, match="was not trained on"):
        open_source(folder, swapper[0], seed=0)
    for path in (folder / "person-0").glob("*.png"):
        cv2.imwrite(str(path), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(FacekitError, match="was changed"):
        open_source(folder, seed=0)
    write_manifest(
        folder, [Item(path="person-1/0.png", sha256=files.sha256(folder / "person-1/0.png"))]
    )
    with pytest.raises(FacekitError, match=r"'person-1/0\.png' has no label"):
        open_source(folder, seed=0)


def test_list_and_help() -> None:
    listed = json.loads(call("list", "--json").stdout)
    assert listed["detectors"] == PLUGINS
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
        cv2.imwrite(str(path), forged(cv2.imread(str(folder / original.path))))
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
    monkeypatch.setattr(score, "WEIGHTS", card.parent)
    assert Detector.load("soft").calibrated_for == ["camera"]
