"""Evaluation of generators: floors that stand where they must, and what is asked of pictures."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from torch.nn import functional as F

from facekit import watermark
from facekit.commands import generator_sample
from facekit.commands.generator_evaluate import evaluate
from facekit.core.device import setup
from facekit.core.errors import FacekitError
from facekit.generators import _evaluate, _samples
from facekit.generators._evaluate import Reference, beside, described, measure, rows, scores
from facekit.provenance import manifest
from facekit.types import Frame

SIZE = 32


def tones(images: Tensor) -> Tensor:
    """Stands in for the network: broad and fine tones, (B, 3, S, S) → (B, 96)."""
    broad = F.adaptive_avg_pool2d(images, 4).flatten(1)
    fine = F.adaptive_avg_pool2d((images - F.avg_pool2d(images, 3, 1, 1)).abs(), 4).flatten(1)
    return torch.cat([broad, 6 * fine], 1)


def pictures(count: int, seed: int) -> Tensor:
    """Ovals of many places, sizes and tones, which no Gaussian draws: uint8 (count, 32, 32, 3)."""
    random = torch.Generator().manual_seed(seed)
    middle = 0.4 + 0.2 * torch.rand(count, 2, 1, 1, generator=random)
    radius = 0.2 + 0.2 * torch.rand(count, 1, 1, generator=random)
    inside, outside = torch.rand(2, count, 1, 1, 3, generator=random)
    unit = (torch.arange(SIZE) + 0.5) / SIZE
    y, x = unit[None, :, None], unit[None, None, :]
    within = ((x - middle[:, 0]) ** 2 + (y - middle[:, 1]) ** 2 < radius**2)[..., None]
    return (255 * torch.where(within, inside, outside)).byte()


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(pictures(800, 1), pictures(700, 2))


def of(figures: list, name: str) -> float:
    return next(row.value for row in figures if row.name == name)


def test_the_floors_stand_in_order(reference: Reference) -> None:
    """Real against real is the least, and a trivial generator far above it."""
    figures = measure("gan", pictures(800, 3), reference, tones).figures
    real, drawn = of(figures, "gan.fid.real"), of(figures, "gan.fid")
    components, pixels = of(figures, "gan.fid.components"), of(figures, "gan.fid.pixels")
    assert max(real, drawn) < 0.3 * components
    assert components < 0.1 * pixels, "who knows which pixels go together comes closer"
    (row,) = (row for row in figures if row.name == "gan.kid")
    assert row.low < row.value < row.high and row.floor == of(figures, "gan.kid.components")
    assert of(figures, "gan.recall") > 0.9 > 0.1 > of(figures, "gan.recall.pixels")
    assert of(figures, "gan.copies") == 0


def test_copies_are_counted_and_shown(reference: Reference) -> None:
    samples = pictures(60, 3)
    samples[7] = reference.training[11]
    samples[9] = reference.training[12].flip(1)
    measured = measure("gan", samples, reference, tones)
    assert of(measured.figures, "gan.copies") == 2
    # Three pixels to one; the first two pairs are the copies, the mirrored one turned.
    side, title = 3 * SIZE, measured.nearest.shape[0] - 4 * 3 * SIZE
    left = measured.nearest[title : title + side, : 2 * side].astype(int)
    start = 4 * side + 12
    right = measured.nearest[title : title + side, start : start + 2 * side].astype(int)
    assert np.abs(left - right).max() == 0


def test_trivial_generators_know_the_first_two_moments(reference: Reference) -> None:
    made = _evaluate.trivial(reference.training, 2000, seed=0)
    flat = reference.training.flatten(1).float()
    for name, pixels in made.items():
        drawn = pixels.flatten(1).float()
        # Clipped to what a byte holds, so not to the last digit.
        assert (drawn.mean(0) - flat.mean(0)).abs().mean() < 3, name
        assert drawn.std(0).mean() == pytest.approx(float(flat.std(0).mean()), rel=0.15), name
    by_component = made["components"].float()
    close = F.cosine_similarity(
        *(x.flatten(1) - x.flatten(1).mean(0) for x in (by_component[..., 0], by_component[..., 1]))
    )
    assert close.mean() > -0.2
    again = _evaluate.trivial(reference.training, 2000, seed=0)
    assert all(torch.equal(again[name], pixels) for name, pixels in made.items())


def test_rows_are_named_and_floored(reference: Reference) -> None:
    found = scores(described(pictures(60, 5), tones), described(reference.others, tones))
    worse = scores(described(255 - pictures(60, 6) // 4, tones), described(reference.others, tones))
    names = [row.name for row in rows("gan", found, floor=worse)]
    assert names == [f"gan.{key}" for key in KEYS]
    assert [row.name for row in rows("gan", found, of="real")] == [f"gan.{k}.real" for k in KEYS]
    assert all(row.floor is not None for row in rows("gan", found, floor=worse))
    assert rows("gan", found, peer=2.0)[0].peer == 2.0


KEYS = ("kid", "fid", "precision", "recall", "density", "coverage")


@pytest.mark.parametrize(
    ("samples", "training", "others", "named"),
    [
        (49, 60, 60, "49 samples"),
        (60, 49, 60, "49 training pictures"),
        (60, 60, 49, "49 pictures of people that training has not seen"),
    ],
)
def test_too_few_are_refused(samples: int, training: int, others: int, named: str) -> None:
    few = Reference(pictures(training, 1), pictures(others, 2))
    with pytest.raises(FacekitError, match=f"{named}: too few.*at least 50"):
        measure("gan", pictures(samples, 3), few, tones)


def test_a_sheet_shows_every_picture_in_its_place() -> None:
    first, second = pictures(5, 1).numpy(), pictures(3, 2).numpy()
    sheet = beside([("a", first), ("b", second)], columns=2, scale=1)
    title = sheet.shape[0] - 3 * SIZE
    assert sheet.dtype == np.uint8 and sheet.shape[1] == 4 * SIZE + 12
    np.testing.assert_array_equal(sheet[title : title + SIZE, SIZE : 2 * SIZE], first[1])
    np.testing.assert_array_equal(sheet[title + 2 * SIZE :, :SIZE], first[4])
    right = 2 * SIZE + 12
    np.testing.assert_array_equal(sheet[title : title + SIZE, right : right + SIZE], second[0])
    assert (sheet[title + 2 * SIZE :, right:] == 255).all(), "below the shorter grid it is white"
    assert (sheet[:title] < 128).any(), "the titles"


# The command, and what it is given


def run_of(tmp_path: Path) -> Any:
    return SimpleNamespace(folder=tmp_path / "run", facts={"data_hash": "abc", "plugin": "gan"})


class Maker:
    """Stands in for a plug-in that makes faces from nothing."""

    @staticmethod
    def compared(source: Any, data: Any, items: Any, fabric: Any) -> tuple[Tensor, Tensor]:
        return pictures(60, 1), pictures(60, 2)


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """No studio, no network, no weights: only the evaluation itself."""

    def draw(source: Any, count: int, seed: int, fabric: Any, *, plugin: str) -> Iterator[Frame]:
        for i, pixels in enumerate(pictures(count, 10 + seed).numpy()):
            yield Frame(pixels, i / 25, i)

    monkeypatch.setattr(_samples, "load", lambda plugin: Maker)
    monkeypatch.setattr(_samples, "sample", draw)
    monkeypatch.setattr(_samples, "load_features", lambda device: tones)
    monkeypatch.setattr(
        _samples, "admit_folder", lambda *given: SimpleNamespace(data_hash="abc", items=())
    )
    return setup("cpu", threads=1)


def test_a_bundled_generator_is_measured_and_shown(
    maker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"origin": "studio", "generator": "gan"}
    source = generator_sample.Source("gan", "gan", 7, facts)
    monkeypatch.setattr(generator_sample, "opened", lambda name: source)
    words = ["gan", "--samples", "64", "--out", str(tmp_path / "out"), "--device", "cpu", "--json"]
    result = CliRunner().invoke(evaluate, words)
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert rows["gan.recall"]["goal"] == ">= 0.3" and rows["gan.copies"]["goal"] == "<= 0"
    assert rows["gan.kid"]["low"] < rows["gan.kid"]["high"]
    for name in ("sheet.png", "nearest.png"):
        path = tmp_path / "out" / name
        assert watermark.read_file(path).kind == "generated"
        claims = manifest.verify(path).claims
        assert claims["facts"]["generator"] == "gan" and claims["facts"]["seed"] == 0


def test_what_cannot_be_measured_is_refused(
    maker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path)
    with pytest.raises(FacekitError, match="--data is missing"):
        _samples.reference_of(run, "gan", None, (), maker)
    with pytest.raises(FacekitError, match="the bundled 'gan' is measured against"):
        _samples.reference_of("gan", "gan", tmp_path, (), maker)
    reference = _samples.reference_of(run, "gan", tmp_path, (), maker)
    with pytest.raises(FacekitError, match="20 samples: too few"):
        _samples.evaluate(run, "gan", reference, 20, 0, maker)
    small = Reference(reference.training[:, ::2, ::2], reference.others[:, ::2, ::2])
    with pytest.raises(FacekitError, match="another architecture"):
        _samples.evaluate(run, "gan", small, 60, 0, maker)
    run.facts["data_hash"] = "another"
    with pytest.raises(FacekitError, match=r"not what .*run learned from"):
        _samples.reference_of(run, "gan", tmp_path, (), maker)
    monkeypatch.undo()
    for plugin in ("points", "face_swap"):
        with pytest.raises(FacekitError, match=f"{plugin} makes no faces from nothing"):
            _samples.reference_of(run, plugin, None, (), maker)
    with pytest.raises(FacekitError, match="no such file or folder"):
        _samples.reference_of(run, "gan", tmp_path / "nothing", (), maker)
