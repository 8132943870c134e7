"""The evaluation of generators: floors that stand where they must, and what is asked of pictures."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from facekit.core.errors import FacekitError
from facekit.generators import _evaluate
from facekit.generators._evaluate import Reference, beside, described, measure, rows, scores

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
