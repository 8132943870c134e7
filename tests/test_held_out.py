"""Forgeries to test on: apart from training's, deterministic, and nothing changed but the face."""

import ast
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import SimilarityTransform

from detectors import held_out
from detectors.data import FaceSet
from detectors.regions import Region, find, resized
from facekit.core.errors import FacekitError
from facekit.faces.landmarks import MIRROR
from facekit.types import Face

DETECTORS = Path(held_out.__file__).parent


@cache
def imports(name: str) -> set[str]:
    """The modules of ``detectors`` that a module of it imports when it runs, anywhere in it."""
    path = DETECTORS.joinpath(*name.split(".")[1:])
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(ast.parse(source.read_text(encoding="utf-8")))
    modules = {".".join(p.relative_to(DETECTORS.parent).with_suffix("").parts): p for p in files()}
    return found & set(modules)


def files() -> list[Path]:
    return [path for path in DETECTORS.rglob("*.py") if path.name != "__init__.py"]


def closure(name: str) -> set[str]:
    """A module and all that it brings along."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += imports(name)
    return seen


def test_training_and_the_test_forgeries_know_nothing_of_each_other():
    plugins = {f"detectors.models.{path.stem}" for path in (DETECTORS / "models").glob("*.py")}
    learning = {"detectors.train", "detectors.data", "detectors.forgeries"}
    for name in learning | plugins - {"detectors.models.__init__"}:
        assert "detectors.held_out" not in closure(name), name
    brought = closure("detectors.held_out")
    assert not brought & (learning | {"detectors.world"}), brought
    # The check itself sees what is there.
    assert "detectors.forgeries" in closure("detectors.train")


@pytest.fixture(scope="module")
def people(astronaut, locator) -> FaceSet:
    """Four faces that count as two people's: one photo; mirrored, rough and shrunk; recoloured."""
    import torch

    from facekit.faces.landmarks import Landmarker

    small = cv2.resize(astronaut, (384, 384), interpolation=cv2.INTER_AREA)
    [[region, *_]] = find([small], locator, Landmarker(torch.device("cpu")))
    warm = np.clip(region.pixels * np.array([1.1, 0.95, 0.8]) + 8, 0, 255).astype(np.uint8)
    grain = np.random.default_rng(0).normal(0, 30, region.pixels.shape)
    rough = np.clip(region.pixels + grain, 0, 255).astype(np.uint8)
    other = mirrored(replace(region, pixels=rough))
    regions = [region, other, resized(other, 0.8), replace(region, pixels=warm)]
    return as_set(regions, ["ann", "ben", "ben", "ann"])


def as_set(regions: list[Region], subjects: list[str], collection: str = "photos") -> FaceSet:
    count = len(regions)
    return FaceSet(
        regions=regions,
        labels=np.zeros(count, np.int64),
        subjects=subjects,
        sources=[f"picture {i}" for i in range(count)],
        donors=[""] * count,
        makers=[""] * count,
        collections=[collection] * count,
        payloads=[None] * count,
        digests=[f"{i:016x}" for i in range(count)],
    )


def mirrored(region: Region) -> Region:
    width = region.pixels.shape[1]
    face, flip = region.face, np.array([-1, 1], np.float32)
    shift = np.array([width, 0], np.float32)
    assert face.landmarks is not None
    dense = (face.landmarks.points * flip + shift)[MIRROR]
    five = (face.points * flip + shift)[[1, 0, 2, 4, 3]]
    box = np.array([width - face.box[2], face.box[1], width - face.box[0], face.box[3]], np.float32)
    moved = replace(face, box=box, points=five, landmarks=replace(face.landmarks, points=dense))
    return replace(region, pixels=np.ascontiguousarray(region.pixels[:, ::-1]), face=moved)


def points(face: Face) -> np.ndarray:
    assert face.landmarks is not None
    return face.landmarks.points


def test_a_forgery_is_labelled_by_its_target_and_its_donor(people):
    forged = held_out.splices(people, np.random.default_rng(0), ["splice", "part", "warp"])
    assert len(forged) == 12
    assert (forged.labels == 1).all()
    assert set(forged.makers) == {"splice", "part", "warp"}
    for source, subject, donor, maker in zip(
        forged.sources, forged.subjects, forged.donors, forged.makers, strict=True
    ):
        assert subject == people.subjects[people.sources.index(source)]
        assert donor == ("" if maker == "warp" else {"ann": "ben", "ben": "ann"}[subject])
    assert set(forged.collections) == {"photos"}


def test_the_same_state_makes_the_same_forgeries(people):
    one, same, other = (
        held_out.splices(people, np.random.default_rng(seed), ["splice", "part", "warp"])
        for seed in (3, 3, 4)
    )
    pairs = zip(one.regions, same.regions, strict=True)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in pairs)
    pairs = zip(one.regions, other.regions, strict=True)
    assert not any(np.array_equal(a.pixels, b.pixels) for a, b in pairs)


@pytest.mark.parametrize("kind", held_out.KINDS)
def test_only_the_face_is_changed(people, kind):
    for seed in range(6):
        forged = held_out.splices(people, np.random.default_rng(seed), [kind])
        for region, source in zip(forged.regions, forged.sources, strict=True):
            target = people.regions[people.sources.index(source)]
            assert region.pixels.shape == target.pixels.shape
            changed = np.abs(region.pixels.astype(int) - target.pixels).max(2)
            dense = points(target.face)
            unit = np.linalg.norm(dense[45] - dense[36])
            low, high = dense.min(0) - 0.7 * unit, dense.max(0) + 0.7 * unit
            y, x = np.nonzero(changed > 3)
            assert len(x) > 0.05 * unit**2, (kind, seed)
            inside = (x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1])
            assert inside.all(), (kind, seed)


def test_what_cannot_be_forged_is_said(people):
    random = np.random.default_rng(0)
    with pytest.raises(FacekitError, match=r"unknown kind of forgery 'splize'.*splice"):
        held_out.splices(people, random, ["splize"])
    alone = people.subset([0, 3])
    with pytest.raises(FacekitError, match=r"2 untouched faces .* nothing to forge"):
        held_out.splices(alone, random)
    assert len(held_out.splices(alone, random, ["warp"])) == 2  # which needs nobody else
    unread = replace(alone.regions[0], face=replace(alone.regions[0].face, landmarks=None))
    with pytest.raises(FacekitError, match="0 untouched faces with landmarks"):
        held_out.splices(as_set([unread], ["ann"]), random, ["warp"])
    generated = replace(people, labels=np.ones(4, np.int64))
    with pytest.raises(FacekitError, match="0 untouched faces"):
        held_out.splices(generated, random)


def test_donors_stay_within_a_collection(people):
    apart = as_set(people.regions[:1], ["ann"], "a") + as_set(people.regions[1:2], ["ben"], "b")
    with pytest.raises(FacekitError, match="of one collection"):
        held_out.splices(apart, np.random.default_rng(0))
    both = apart + people
    forged = held_out.splices(both, np.random.default_rng(0), ["part"])
    assert set(forged.collections) == {"photos"}


def test_a_donor_is_turned_as_the_target_is(people):
    assert people.regions[0].face.landmarks is not None
    straight = people.regions[0]
    dense = points(straight.face)
    middle = dense.mean(0)
    turned = []
    for squeeze in (1.0, 0.85, 0.7, 0.55):  # as the yaw of a head narrows it, twelve of each
        narrow = (dense - middle) * np.array([squeeze, 1], np.float32) + middle
        landmarks = replace(straight.face.landmarks, points=narrow.astype(np.float32))
        turned += [replace(straight, face=replace(straight.face, landmarks=landmarks))] * 12
    crowd = as_set(turned, [str(i) for i in range(len(turned))])
    chooser = held_out._People(crowd, range(len(crowd)))
    random = np.random.default_rng(1)
    donors = [chooser.donor(i, random) for i in range(len(crowd))]
    assert [donor // 12 for donor in donors if donor is not None] == [
        i // 12 for i in range(len(crowd))
    ]
    assert all(donor != i for i, donor in enumerate(donors))


# --- geometry, against what it must be ---------------------------------------------------------


def ramp(height: int, width: int) -> np.ndarray:
    """A picture whose red says x and whose green says y, in quarters of a pixel at most."""
    y, x = np.mgrid[:height, :width] + 0.5
    return np.stack([x, y, np.zeros_like(x)], -1).astype(np.float32)


def test_bending_moves_every_triangle_by_its_own_affine_map(monkeypatch):
    # Corners and a middle that moves: four triangles, each with a map that is known.
    of = np.array([[10, 10], [90, 10], [90, 90], [10, 90], [50, 50]], np.float32)
    to = of.copy()
    to[4] = [60, 45]
    monkeypatch.setattr(held_out, "_INTERPOLATIONS", (cv2.INTER_LINEAR,))
    onto = np.zeros((100, 100, 3), np.uint8)
    bent = held_out._bent(ramp(100, 100), of, to, onto, np.random.default_rng(0))
    for a, b in ((0, 1), (1, 2), (2, 3), (3, 0)):
        corners = np.array([a, b, 4])
        matrix = cv2.getAffineTransform(to[corners], of[corners])
        at = to[corners].mean(0)
        expected = matrix @ [*at, 1]
        # The pixel at whose centre ``at`` lies or nearly so; the map is linear within a triangle.
        x, y = np.floor(at).astype(int)
        expected += matrix[:, :2] @ (np.array([x, y]) + 0.5 - at)
        np.testing.assert_allclose(bent[y, x, :2], expected, atol=0.05)
    assert (bent[:9] == 0).all()  # beyond the triangles it is the other picture


def test_bending_to_the_same_place_changes_nothing(people):
    region = people.regions[0]
    dense = held_out._with_forehead(points(region.face)[:68])
    bent = held_out._bent(region.pixels, dense, dense, region.pixels, np.random.default_rng(0))
    assert np.abs(bent - region.pixels).max() < 2


@settings(max_examples=30, deadline=None)
@given(
    turn=st.floats(-3, 3),
    scale=st.floats(0.2, 5),
    shift=st.tuples(st.floats(-100, 100), st.floats(-100, 100)),
    seed=st.integers(0, 1000),
)
def test_a_part_is_placed_by_the_least_squares_similarity(turn, scale, shift, seed):
    random = np.random.default_rng(seed)
    of = random.normal(0, 20, (9, 2))
    exact = SimilarityTransform(scale=scale, rotation=turn, translation=shift)
    to = exact(of) + random.normal(0, 0.5, (9, 2))
    oracle = SimilarityTransform.from_estimate(of, to)
    np.testing.assert_allclose(held_out._placing(of, to), oracle.params[:2], atol=1e-6)


def test_cloning_a_picture_into_itself_moves_nothing(people):
    """OpenCV takes the middle of the mask's rectangle, for odd and for even sizes."""
    pixels = people.regions[0].pixels
    for corner in ((40, 60), (41, 60), (40, 61), (41, 61)):
        mask = np.zeros(pixels.shape[:2], np.uint8)
        cv2.rectangle(mask, (30, 30), corner, 255, -1)
        cloned = held_out._cloned(pixels.astype(np.float32), pixels, mask, cv2.NORMAL_CLONE)
        assert np.abs(cloned.astype(int) - pixels).max() <= 3


@pytest.mark.parametrize("levels", [1, 3, 5])
def test_a_pyramid_gives_the_layer_inside_and_the_picture_outside(people, levels):
    pixels = people.regions[0].pixels
    layer = 255 - pixels.astype(np.float32)
    everywhere = np.full(pixels.shape[:2], 255, np.uint8)
    whole = held_out._layered(layer, pixels, everywhere, levels)
    assert np.abs(whole - layer).max() <= 1
    none = held_out._layered(layer, pixels, 0 * everywhere, levels)
    assert np.array_equal(none, pixels)


def test_recolouring_gives_the_masked_part_the_targets_mean():
    random = np.random.default_rng(0)
    layer = random.integers(60, 120, (40, 40, 3)).astype(np.float32)
    onto = random.integers(100, 180, (40, 40, 3), dtype=np.uint8)
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 255
    matched = held_out._recoloured(layer, onto, mask, spread=False)
    inside = mask > 0
    np.testing.assert_allclose(matched[inside].mean(0), onto[inside].mean(0), atol=0.5)


def test_a_push_carries_the_points_along_with_the_pixels():
    place = np.array([50.0, 40.0], np.float32)
    field = held_out._Field((80, 100), 20.0)
    field.push(place, 15.0, np.array([3.0, -2.0], np.float32))
    dark = np.zeros((80, 100, 3), np.uint8)
    cv2.circle(dark, (50, 40), 2, (255, 255, 255), -1)
    moved = field.applied(dark, cv2.INTER_LINEAR)[..., 0].astype(float)
    y, x = np.mgrid[:80, :100] + 0.5
    centre = np.array([(moved * x).sum(), (moved * y).sum()]) / moved.sum()
    start = np.array([50.5, 40.5])  # the drawn dot's own middle
    np.testing.assert_allclose(centre - start, [3, -2], atol=0.6)
    np.testing.assert_allclose(field._at(place[None])[0], [3, -2], atol=1e-5)
    np.testing.assert_allclose(field._at(place[None] + 15), 0, atol=1e-6)
