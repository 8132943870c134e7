"""Heat maps: where a patch was really pasted they show it, and covering it is what tells."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from faces_of_noise import face, picture, region
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from detectors.calibrate import Calibration
from detectors.data import Faces
from detectors.localise import GRID, _elsewhere, cover, localise
from detectors.models._residual import Layers, Localiser
from detectors.models.blend import Config
from detectors.regions import Region, crops, cut, region_from_crop
from detectors.score import Detector, Member
from detectors.stack import Stack
from detectors.world import World
from facekit.core.seed import rng
from facekit.faces.align import apply, invert
from facekit.types import Face

SIDE = 96
WORLD = World(face=[48, 200])


class Grain(Localiser):
    """Made by hand: a cell is as suspect as it is grainy, a face as its most suspect cell."""

    def __init__(self, blind=False):
        super().__init__(3, Layers(widths=[4] * 4, depths=[1] * 4))
        self.blind = blind

    def forward(self, images, *, with_cells=False):
        fine = images - F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
        cells = 40 * F.avg_pool2d(fine.abs().mean(1, keepdim=True), 16)[:, 0] - 4
        # One that is blind draws the same map, but goes by how bright the face is.
        logits = 4 * images.mean((1, 2, 3)) if self.blind else cells.amax((1, 2))
        return (logits, cells) if with_cells else logits


class Plain(nn.Module):
    """Has no cells."""

    def forward(self, images):
        return images.mean((1, 2, 3))


def member(name, network, template="wide"):
    config = Config(data=Faces(template=template, size=SIDE, world=WORLD))
    return Member(name, "blend", config, network.eval())


def detector(*members, weights=None):
    made = object.__new__(Detector)
    made.parts = list(members)
    made.stack = Stack((tuple(weights or [1.0] * len(members)),), (0.0,))
    made.calibration = Calibration(1.0, 0.0, 0.5)
    return made


@pytest.fixture(scope="module")
def person(astronaut):
    """A real face; its points as the locator reads them."""
    points = np.array(
        [[203, 100.8], [248.5, 102.9], [224.7, 127.2], [203.4, 139.5], [243.3, 141.5]]
    )
    found = Face(np.array([179, 53, 275, 180], np.float32), points.astype(np.float32), 1.0)
    return cut(cv2.GaussianBlur(astronaut, (0, 0), 1.0), found)


def pasted(whole, place, side=3, deviation=25):
    """Noise laid over a square of the shown crop's cells; the only grain in the picture."""
    row, column = place
    corners = apply(
        region_from_crop(whole, "wide", GRID),
        np.array([[column, row], [column + side, row + side]], float),
    )
    (x0, y0), (x1, y1) = corners.round().astype(int)
    pixels = whole.pixels.astype(float)
    part = pixels[y0:y1, x0:x1]
    part += rng(1).normal(0, deviation, part.shape)
    return replace(whole, pixels=np.clip(pixels, 0, 255).round().astype(np.uint8))


def strongest(cells):
    row, column = np.unravel_index(cells.argmax(), cells.shape)
    return row, column


@pytest.mark.parametrize("template", ["wide", "native"])
@pytest.mark.parametrize("place", [(3, 2), (3, 6), (6, 4), (7, 5)])
def test_a_pasted_patch_is_found_and_covering_it_is_what_tells(person, place, template):
    found = localise(detector(member("grain", Grain(), template)), pasted(person, place))
    assert found.member == "grain"
    assert found.cells.shape == (GRID, GRID) and 0 <= found.cells.min() <= found.cells.max() <= 1
    at = strongest(found.cells)
    assert np.abs(np.subtract(at, np.add(place, 1))).max() <= 1
    told = found.occlusion
    assert told.agrees and told.strongest > 0.5
    assert len(told.elsewhere) == 8 and max(told.elsewhere) < told.strongest / 2


@pytest.mark.parametrize("place", [(3, 2), (6, 4)])
def test_a_network_that_is_blind_to_it_does_not_agree_however_fine_its_map(person, place):
    forged = pasted(person, place)
    seeing = localise(detector(member("a", Grain())), forged)
    blind = localise(detector(member("a", Grain(blind=True))), forged)
    assert np.array_equal(seeing.cells, blind.cells)
    assert seeing.occlusion.agrees and not blind.occlusion.agrees


def test_a_network_that_heeds_nothing_does_not_agree(person):
    class Deaf(Grain):
        def forward(self, images, *, with_cells=False):
            logits, cells = super().forward(images, with_cells=True)
            return (0 * logits, cells) if with_cells else 0 * logits

    told = localise(detector(member("deaf", Deaf())), pasted(person, (6, 4))).occlusion
    assert (told.strongest, told.agrees) == (0.0, False)


def test_a_network_that_learnt_finds_what_was_pasted():
    """A tiny one of the bundled kind, taught in a few steps with masks."""
    from detectors.models import blend

    config = Config(
        widths=[8, 8, 16, 16], depths=[1] * 4, dropout=0.0,
        data=Faces(template="wide", size=SIDE, world=WORLD),
    )  # fmt: skip
    torch.manual_seed(0)
    network = blend.network(config)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2)
    random = rng(3)
    for _ in range(40):
        images = np.stack([crops([region(random, 160)], "wide", SIDE)[0] for _ in range(8)])
        images = np.stack([cv2.GaussianBlur(one, (0, 0), 1.0) for one in images])
        masks = np.zeros((8, SIDE // 16, SIDE // 16), np.float32)
        for image, mask in zip(images[:4], masks, strict=False):
            y, x = random.integers(0, SIDE // 16 - 1, 2)
            mask[y : y + 2, x : x + 2] = 1
            part = image[16 * y : 16 * y + 32, 16 * x : 16 * x + 32]
            part[:] = np.clip(part + random.normal(0, 25, part.shape), 0, 255)
        seen = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        logits, cells = network(seen, with_cells=True)
        target = torch.tensor([1.0] * 4 + [0.0] * 4)
        loss = F.binary_cross_entropy_with_logits(logits, target)
        loss = loss + F.binary_cross_entropy_with_logits(cells, torch.from_numpy(masks))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    taught = detector(Member("blend", "blend", config, network.eval()))
    agreed = []
    for number, place in enumerate([(3, 3), (3, 6), (6, 4), (7, 6), (5, 2), (4, 5)]):
        clean = region(rng(number, 9), 160)
        clean = replace(clean, pixels=cv2.GaussianBlur(clean.pixels, (0, 0), 1.0))
        found = localise(taught, pasted(clean, place))
        assert np.abs(np.subtract(strongest(found.cells), np.add(place, 1))).max() <= 2
        agreed.append(found.occlusion.agrees)
    assert np.mean(agreed) >= 0.8


def test_the_map_is_of_the_member_that_adds_most():
    whole = pasted(region(rng(5), 160), (5, 5))
    loud, low = member("loud", Grain()), member("low", Grain())
    low.network.register_forward_hook(
        lambda _, __, given: (given[0] - 9, given[1]) if isinstance(given, tuple) else given - 9
    )
    plain = member("plain", Plain())
    assert localise(detector(low, plain, loud), whole).member == "loud"
    assert localise(detector(low, loud, weights=[1.0, 0.0]), whole).member == "low"
    assert localise(detector(low, loud, weights=[1.0, -1.0]), whole).member == "low"


def test_there_is_no_map_where_no_member_has_cells_or_counts():
    whole = region(rng(5), 160)
    assert localise(detector(member("plain", Plain())), whole) is None
    assert localise(detector(member("a", Grain()), weights=[0.0]), whole) is None


@settings(max_examples=8, deadline=None)
@given(st.integers(20, 260), st.integers(0, 2**16), st.sampled_from(["wide", "native"]))
def test_faces_of_any_size_cut_off_anywhere_have_a_map(size, seed, template):
    random = rng(seed, 7)
    corner = tuple(random.uniform(-size / 2, 300 - size / 2, 2))
    one = cut(picture(random, 300), face(size, corner))
    found = localise(detector(member("grain", Grain(), template)), one)
    assert found.cells.shape == (GRID, GRID) and np.isfinite(found.cells).all()
    assert np.isfinite([found.occlusion.strongest, *found.occlusion.elsewhere]).all()


def test_a_member_of_native_pixels_says_nothing_of_what_it_does_not_see():
    """The window is smaller than the crop that is shown: beyond it the map is 0."""
    large = cut(picture(rng(2), 400), face(190, (100, 100)))
    found = localise(detector(member("grain", Grain(), "native")), large)
    corners = apply(region_from_crop(large, "wide", GRID), np.array([[0.5, 0.5], [6.0, 6.0]]))
    own = apply(invert(region_from_crop(large, "native", SIDE)), corners)
    assert (own[0] < 0).all() and ((own[1] > 0) & (own[1] < SIDE)).all()
    assert found.cells[0, 0] == 0 and found.cells[6, 6] > 0


# Covers


def test_wherever_the_strongest_place_is_it_is_compared_with_eight_others_of_the_face():
    for place in np.ndindex(GRID - 2, GRID - 2):
        others = np.array(_elsewhere(place))
        assert len({*map(tuple, others)}) == 8
        assert np.abs(others - place).max(axis=1).min() >= 3
        # Their middles lie within a face's oval in the crop.
        assert (np.hypot(*((others + 1.5 - GRID / 2) / (4.1, 3.2)).T) <= 1).all()


def test_a_cover_changes_its_square_alone_and_takes_what_is_around(person):
    spot = pasted(person, (5, 4), deviation=60)
    [covered] = cover(spot, [(5, 4)])
    [before, after, clean] = [
        cv2.GaussianBlur(crop, (0, 0), 2.0).astype(float)
        for crop in crops([spot, covered, person], "wide", 120)
    ]
    inside, apart = np.s_[52:78, 42:68], np.ones((120, 120), bool)
    apart[38:92, 28:82] = False
    assert np.abs(after - before)[apart].max() <= 1
    assert np.abs(after - before)[inside].mean() > 3
    # Tones as around it, no black, no holes: within the range of what it borders on.
    ring = np.ones((120, 120), bool)
    ring[50:80, 40:70] = False
    ring &= ~apart
    assert after[inside].min() >= clean[ring].min() - 25
    assert after[inside].max() <= clean[ring].max() + 25


def test_of_a_plain_face_nothing_is_seen_of_a_cover():
    one = Region(np.full((120, 120, 3), 90, np.uint8), face(60, (30, 30)))
    for covered in cover(one, [(0, 0), (4, 5), (9, 9)]):
        assert np.ptp(covered.pixels) <= 1
