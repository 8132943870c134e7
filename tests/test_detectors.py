"""Detectors' data: regions, what befalls them, batches and views, forgeries, and files."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
import torch
from faces_of_noise import face, picture, points70, region, toy
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from detectors import forgeries, score
from detectors.calibrate import Calibration
from detectors.data import (
    CELL,
    Batches,
    Faces,
    FaceSet,
    Sample,
    befallen,
    check_disjoint,
    divide,
    gather,
    person_of,
    with_forgeries,
)
from detectors.metrics import auc
from detectors.models.small_cnn import neighbouring_pixels
from detectors.regions import LARGEST, Region, crops, cut, find, resized, trimmed
from detectors.score import FILE, Detector, Member
from detectors.stack import Stack
from detectors.world import World, brought, chain, degrade
from facekit import watermark
from facekit.core import checkpoint, registry
from facekit.core.config import Config, validate
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.core.seed import rng
from facekit.faces.align import align_faces
from facekit.types import Face, Item, Pixels
from facekit.watermark import Kind, Payload

CPU = torch.device("cpu")
PLAIN = World(face=[32, 64], quality=[100, 100], resize=0.0, degrade=0.0, recolour=0.0, trim=0.0)
KINDS = list(forgeries.KINDS)

# Regions


def test_a_region_holds_the_face_and_half_its_size_about_it() -> None:
    pixels = picture(rng(1), 300)
    found = cut(pixels, face(80, (100, 120)))
    assert found.pixels.shape == (160, 160, 3)
    assert found.scale == 1
    assert np.array_equal(found.pixels, pixels[80:240, 60:220])
    np.testing.assert_allclose(found.face.box, [40, 40, 120, 120])
    at_the_edge = cut(pixels, face(80, (-20, 250)))
    assert at_the_edge.pixels.shape == (90, 100, 3)
    np.testing.assert_allclose(at_the_edge.face.box[:2], [-20, 40])


def test_a_large_face_is_shrunk_and_its_points_go_along() -> None:
    found = cut(picture(rng(1), 900), face(800, (50, 50)))
    assert found.face.size == pytest.approx(LARGEST, rel=0.01)
    assert found.scale == pytest.approx(LARGEST / 800)
    landmarks = found.face.landmarks
    assert landmarks is not None
    np.testing.assert_allclose(
        (landmarks.points - found.face.box[:2]) / found.face.size, points70(), atol=2e-3
    )


@pytest.mark.parametrize("template", ["wide", "arcface", "box13"])
def test_crops_of_a_region_are_those_of_its_picture(template: str) -> None:
    pixels, one = picture(rng(2), 300), face(80, (100, 110))
    [expected] = align_faces(pixels, [one], template=template, size=64, device=CPU)
    [found] = crops([cut(pixels, one)], template, 64)
    # Where the crop leaves the region its border is repeated; the face is well inside.
    inner = slice(12, -12)
    assert np.abs(found[inner, inner].astype(int) - expected.pixels[inner, inner]).max() <= 1


def test_native_crops_are_the_pictures_own_pixels() -> None:
    pixels, one = picture(rng(3), 300), face(80, (100, 110))
    [found] = crops([cut(pixels, one)], "native", 96)
    middle = np.floor(one.points.mean(axis=0)).astype(int)
    x, y = middle - 48
    assert np.array_equal(found, pixels[y : y + 96, x : x + 96])


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 70), st.integers(8, 70), st.integers(8, 60))
def test_native_crops_of_small_regions_are_mirrored(height: int, width: int, size: int) -> None:
    pixels = rng(height, width, 9).integers(0, 256, (height, width, 3)).astype(np.uint8)
    one = Region(pixels, face(min(height, width)))
    [found] = crops([one], "native", size)
    assert found.shape == (size, size, 3)
    if size >= max(height, width):  # every pixel is somewhere
        values = {tuple(p) for p in found.reshape(-1, 3)}
        assert {tuple(p) for p in pixels.reshape(-1, 3)} == values


def test_resizing_moves_points_with_the_pixels() -> None:
    pixels = np.zeros((60, 90, 3), np.uint8)
    one = face(40, (10, 5))
    spot = one.points[2]
    cv2.circle(pixels, (round(spot[0] - 0.5), round(spot[1] - 0.5)), 4, (255,) * 3, -1)
    for factor in (0.5, 1.0, 1.7):
        bigger = resized(Region(pixels, one), factor)
        y, x = np.nonzero(bigger.pixels[:, :, 0] > 127)
        centre = np.array([x.mean(), y.mean()]) + 0.5
        assert np.abs(centre - bigger.face.points[2]).max() < 1.0
    assert brought(Region(pixels, one), 20).face.size == pytest.approx(20, rel=0.03)


class Lamp:
    """A locator that sees the brightest spot as a face, unless it lies at the border."""

    def locate(self, images: list[Pixels]) -> list[list[Face]]:
        return [self._faces(image) for image in images]

    def _faces(self, image: Pixels) -> list[Face]:
        y, x = np.unravel_index(image[:, :, 0].argmax(), image.shape[:2])
        height, width = image.shape[:2]
        inside = 30 <= x < width - 30 and 30 <= y < height - 30
        return [replace(face(40, (x - 20, y - 20)), score=0.9999)] if inside else []


def test_a_face_at_the_border_is_found_in_a_larger_picture() -> None:
    pixels = np.full((100, 100, 3), 40, np.uint8)
    pixels[50, 10] = 255
    [[found]] = find([pixels], Lamp())
    np.testing.assert_allclose(found.face.box + np.tile([0, 10], 2), [-10, 30, 30, 70], atol=25)
    assert find([np.zeros((100, 100, 3), np.uint8)], Lamp()) == [[]]


def test_find_reads_real_faces(astronaut: Pixels, locator: Any) -> None:
    from facekit.faces.landmarks import Landmarker

    [[found]] = find([astronaut], locator, Landmarker(CPU))
    assert found.face.landmarks is not None
    tight = astronaut[60:190, 170:290]  # the face fills it
    assert len(find([np.ascontiguousarray(tight)], locator)[0]) == 1
    with pytest.raises(FacekitError, match="unknown template"):
        crops([found], "nothing", 32)
    assert crops([], "wide", 32).shape == (0, 32, 32, 3)


# What befalls them


def test_a_pair_shares_its_fate() -> None:
    world = World(face=[32, 64])
    way = chain(world, training=True)
    one = region(rng(1))
    first, same, other = (degrade(one, world, way, rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first.pixels, same.pixels)
    assert first.pixels.shape != other.pixels.shape or (first.pixels != other.pixels).any()


def test_the_sharper_of_a_pair_loses_its_detail() -> None:
    world = PLAIN.model_copy(update={"face": [64, 64]})
    way = chain(world, training=False)
    sharp = resized(region(rng(1), 160), 1.0)

    def detail(one: Region) -> float:
        grey = one.pixels.astype(float).mean(2)
        return float(np.abs(np.diff(grey)).mean())

    whole = degrade(sharp, world, way, rng(3))
    soft = degrade(sharp, world, way, rng(3), sharpest=32.0)
    assert whole.face.size == pytest.approx(soft.face.size, rel=0.05)
    assert detail(soft) < 0.8 * detail(whole)


@pytest.mark.parametrize("margins", [(0.1, 0.2, 0.0, 0.3), (9, 9, 9, 9), (-2, -2, 0, 0)])
def test_a_tighter_frame_leaves_the_face_where_it_is(margins: tuple[float, ...]) -> None:
    whole = region(rng(1), 120)
    part, (rows, columns) = trimmed(whole, margins)
    assert np.array_equal(part.pixels, whole.pixels[rows, columns]) and part.pixels.size
    shift = part.face.points - whole.face.points
    assert np.allclose(shift, [-columns.start, -rows.start])
    left, top, *_ = margins
    if left == 0.1:
        wanted = whole.face.box[:2] - np.array([left, top]) * whole.face.size
        assert np.abs(part.face.box[:2] - (whole.face.box[:2] - np.maximum(wanted, 0))).max() <= 1
        assert part.pixels.shape[1] < whole.pixels.shape[1]


def test_both_of_a_pair_are_framed_alike() -> None:
    settings = Faces(size=64, world=World(face=[32, 64], trim=1.0), forgeries={"rework": 1.0})
    batch = Batches(toy(12, key=1), settings, batch=8, seed=0)(0)
    # Where nothing was laid over, a forgery shows what its source shows.
    same = np.abs(batch.images[:4].astype(int) - batch.images[4:]).mean((1, 2, 3))
    assert same.max() < 20


def test_sizes_stay_in_the_world() -> None:
    world = World(face=[40, 60])
    way = chain(world, training=False)
    sizes = [degrade(region(rng(i), 120), world, way, rng(i, 1)).face.size for i in range(40)]
    assert 39 <= min(sizes) and max(sizes) <= 61
    assert max(sizes) - min(sizes) > 5


def test_a_world_turned_round_is_refused() -> None:
    with pytest.raises(FacekitError, match=r"quality': the lower .* first, given \[90, 50\]"):
        validate({"quality": [90, 50]}, World, "a.yaml")
    with pytest.raises(FacekitError, match=r"quality\.1': .*less than or equal to 100"):
        validate({"quality": [50, 101]}, World, "a.yaml")


# Forgeries


@pytest.mark.parametrize("kind", KINDS)
def test_a_forgery_changes_what_its_mask_says(kind: str) -> None:
    target, donor = region(rng(1), 120), region(rng(2), 150)
    changed = 0
    for seed in range(12):
        made = forgeries.forge(kind, target, donor, rng(seed))
        again = forgeries.forge(kind, target, donor, rng(seed))
        assert np.array_equal(made.region.pixels, again.region.pixels)
        assert made.region.pixels.shape == target.pixels.shape == (*made.mask.shape, 3)
        difference = np.abs(made.region.pixels.astype(int) - target.pixels).max(2)
        changed += (difference > 2).any()
        if kind != "self_blend":  # whose ground may be recoloured instead of its face
            assert difference[made.mask == 0].max() <= 1
        assert 0.002 < (made.mask > 127).mean() < 0.6  # a nose is little
        assert made.mask.max() == 255
        assert np.array_equal(made.region.face.points, target.face.points)
    assert changed >= 11
    assert np.array_equal(target.pixels, region(rng(1), 120).pixels), "the original is left alone"


def test_a_self_blend_has_no_seam_but_its_own() -> None:
    """Where the ground is recoloured it is so out to the border: no rectangle about the face."""
    flat = replace(region(rng(1), 200), pixels=np.full((200, 200, 3), 120, np.uint8))
    recoloured = 0
    for seed in range(40):
        made = forgeries.forge("self_blend", flat, None, rng(seed))
        ground = made.region.pixels[made.mask == 0].astype(int)
        assert np.ptp(ground, axis=0).max() <= 2
        recoloured += np.abs(ground[0] - 120).max() > 2
    assert 10 < recoloured < 30


def test_by_gradients_a_shift_of_colour_vanishes() -> None:
    """The very picture in other colours, laid over by its gradients, is the picture itself."""
    target = region(rng(1), 120)
    base = np.clip(target.pixels, 40, 215)
    over = (base.astype(int) + np.array([30, -20, 10])).astype(np.uint8)
    mask = forgeries._mask(target, forgeries._INNER, rng(4))
    made, inside = forgeries._by_gradients(base, over, mask)
    assert set(np.unique(inside)) == {0.0, 1.0}
    assert np.abs(made.astype(int) - base).max() <= 2
    assert np.abs(forgeries._blend(base, over, inside).astype(int) - base).max() >= 29


def test_in_bands_the_seam_is_wide_for_tones_and_narrow_for_detail() -> None:
    grid = np.indices((128, 128)).sum(0) % 2
    base = np.full((128, 128, 3), 100, np.uint8)
    over = np.repeat((140 + 20 * grid).astype(np.uint8)[:, :, None], 3, axis=2)
    mask = np.zeros((128, 128, 1), np.float32)
    mask[:, 64:] = 1
    made, reach = forgeries._by_bands(base, over, mask)
    tones = cv2.blur(made, (2, 2))[10:-10, :, 0].astype(float).mean(0)
    assert tones[20] == pytest.approx(100, abs=1) and tones[110] == pytest.approx(150, abs=1)
    assert 103 < tones[58] < 147 and 103 < tones[70] < 147, "neither side's tone near the seam"
    detail = np.abs(np.diff(made[:, :, 0].astype(float), axis=0)).mean(0)
    assert detail[60] < 2 and detail[68] > 17, "but each side's own detail"
    assert (reach[:, :64] >= mask[:, :64]).all() and reach[64, 20, 0] == pytest.approx(0, abs=1e-3)


def test_donors_are_alike_in_colour_and_pose() -> None:
    target = region(rng(1), 120)
    dark = replace(target, pixels=target.pixels // 3)
    turned = region(rng(1), 120)
    marks = turned.face.landmarks
    assert marks is not None
    far = replace(marks, pose=(marks.pose[0] + 60, *marks.pose[1:]))
    turned = replace(turned, face=replace(turned.face, landmarks=far))
    assert forgeries.most_alike(target, [dark, turned, target]) == 2
    assert forgeries.most_alike(target, [turned, target, dark]) == 1


def test_a_spliced_face_lies_on_the_targets_points() -> None:
    """The donor's face is white but for black eyes: they end where the target's eyes are."""
    target, donor = region(rng(1), 160), region(rng(2), 240)
    pixels = np.full_like(donor.pixels, 250)
    assert donor.face.landmarks is not None
    for x, y in donor.face.landmarks.points[68:]:
        cv2.circle(pixels, (round(float(x)), round(float(y))), 7, (0, 0, 0), -1)
    donor = replace(donor, pixels=pixels)
    over = forgeries._fitted(donor, target, forgeries._INNER, rng(3))
    assert target.face.landmarks is not None
    for x, y in target.face.landmarks.points[68:]:
        near = over[round(y) - 8 : round(y) + 8, round(x) - 8 : round(x) + 8].mean(2)
        dark = np.argwhere(near < 100).mean(axis=0)
        assert np.abs(dark - 7.5).max() < 3


def test_forgeries_of_a_set() -> None:
    faces = toy(8, key=1)
    whole = with_forgeries(faces, ["self_blend", "part"], key=3)
    forged = whole.subset(range(len(faces), len(whole)))
    assert forged.labels.tolist() == [1] * 8
    assert forged.makers == ["self_blend", "part"] * 4
    assert forged.sources == faces.sources[:8]
    for maker, donor, subject in zip(forged.makers, forged.donors, forged.subjects, strict=True):
        assert (donor != "") == (maker == "part")
        assert donor != subject and (not donor or donor in faces.subjects)
    again = with_forgeries(faces, ["self_blend", "part"], key=3)
    assert np.array_equal(again.regions[-1].pixels, whole.regions[-1].pixels)
    alone = toy(3, key=1, people=1)
    assert "part" not in with_forgeries(alone, ["part", "warp"], key=3).makers


def test_bad_forgeries() -> None:
    one = region(rng(1))
    with pytest.raises(FacekitError, match="unknown forgery 'splise'; did you mean 'splice'"):
        forgeries.forge("splise", one, one, rng(0))
    with pytest.raises(ValueError, match="needs a donor"):
        forgeries.forge("splice", one, None, rng(0))
    bare = replace(one, face=replace(one.face, landmarks=None))
    with pytest.raises(ValueError, match="landmarks"):
        forgeries.forge("warp", bare, None, rng(0))
    with pytest.raises(FacekitError, match="unknown forgery"):
        validate({"forgeries": {"nothing": 0.5}}, Faces, "a.yaml")
    with pytest.raises(FacekitError, match="must not exceed 1"):
        validate({"forgeries": {"warp": 0.6, "splice": 0.6}}, Faces, "a.yaml")


# Batches and views


def coded(faces: FaceSet, step: int = 8) -> FaceSet:
    """Each region of one grey that tells which it is."""
    grey = [np.full_like(r.pixels, step * i + 20) for i, r in enumerate(faces.regions)]
    made = [replace(r, pixels=p) for r, p in zip(faces.regions, grey, strict=True)]
    return replace(faces, regions=made)


@pytest.fixture
def brighter(monkeypatch: pytest.MonkeyPatch) -> list[Payload]:
    """A mark that makes a picture 4 levels brighter, and a list of what the marks said."""
    said: list[Payload] = []

    def embed(pixels: Pixels, payload: Payload, **_: Any) -> Pixels:
        said.append(payload)
        return pixels + np.uint8(4)

    monkeypatch.setattr("facekit.watermark.embed", embed)
    return said


def test_batches_are_balanced_paired_and_half_marked(brighter: list[Payload]) -> None:
    pairs = 8
    batches = Batches(coded(toy(pairs, key=1)), Faces(size=32, world=PLAIN), batch=16, seed=0)
    for step in range(5):
        batch = batches(step)
        assert np.array_equal(batch.images, batches(step).images)
        value = np.rint((batch.images.mean((1, 2, 3)) - 20) / 4).astype(int)
        index, marked = value // 2, value % 2
        assert batch.labels.tolist() == [0] * 8 + [1] * 8
        assert np.array_equal(index[:8] + pairs, index[8:]), "forgeries of the very same pictures"
        assert len(set(index[:8])) == 8
        assert marked[:8].sum() == marked[8:].sum() == 4
        assert batch.masks.shape == (16, 32 // CELL, 32 // CELL)
        assert not batch.masks[:8].any() and (batch.masks[8:] == 1).all()
    assert not np.array_equal(batches(0).images, batches(1).images)
    assert len(set(brighter)) == len(brighter) == 16, "one mark a face, made once"


def test_a_batchs_masks_show_where_its_forgeries_differ() -> None:
    settings = Faces(size=64, world=PLAIN, forgeries={"splice": 0.5, "rework": 0.5})
    faces = toy(8, key=1, size=120)
    batch = Batches(faces.subset(range(8)), settings, batch=16, seed=0)(1)
    apart = np.abs(batch.images[8:].astype(float) - batch.images[:8]).max(3)
    cells = apart.reshape(8, 4, 16, 4, 16).mean((2, 4))
    marked = 3.0  # a mark on one of the two adds about so much
    assert cells[batch.masks[8:] > 0.9].mean() > 4 + marked
    assert cells[batch.masks[8:] < 0.02].mean() < cells[batch.masks[8:] > 0.9].mean() / 2


def test_without_forgeries_both_classes_are_needed() -> None:
    untouched = toy(8, key=1).subset(range(8))
    with pytest.raises(FacekitError, match=r"both classes, got 8 untouched and 0 generated"):
        Batches(untouched, Faces(size=32), batch=8, seed=0)
    with pytest.raises(FacekitError, match=r"both classes, got 8 untouched and 0 generated"):
        Batches(untouched, Faces(size=32, forgeries={"warp": 0.5}), batch=8, seed=0)
    Batches(untouched, Faces(size=32, forgeries={"warp": 1.0}), batch=8, seed=0)
    generated = toy(8, key=1).subset(range(8, 16))
    with pytest.raises(FacekitError, match=r"both classes, got 0 untouched and 8 generated"):
        Batches(generated, Faces(size=32, forgeries={"warp": 1.0}), batch=8, seed=0)


def test_small_collections_are_not_drowned(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = coded(toy(25, key=1), step=4)
    names = ["large"] * 24 + ["small"]
    faces = replace(faces, collections=names * 2)
    monkeypatch.setattr("facekit.watermark.embed", lambda pixels, *_, **__: pixels)
    batches = Batches(faces, Faces(size=32, world=PLAIN), batch=4, seed=0)
    small = [
        np.rint((batches(s).images[:2].mean((1, 2, 3)) - 20) / 4).astype(int) == 24
        for s in range(150)
    ]
    # 1 of 1 + √24, not 1 of 25.
    assert np.mean(small) == pytest.approx(1 / (1 + 24**0.5), abs=0.07)


@pytest.mark.parametrize("marked_class", [0, 1])
def test_where_one_class_came_marked_the_other_is_marked_as_often(
    marked_class: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of pictures that left through facekit: three of four of one class bear a mark."""
    monkeypatch.setattr("facekit.watermark.embed", lambda pixels, *_, **__: pixels * 0 + 120)
    pairs = 8
    faces = toy(pairs, key=1)
    came = (faces.labels == marked_class) & (np.arange(2 * pairs) % 4 < 3)
    grey = [
        np.full_like(r.pixels, 120 if m else 100) for r, m in zip(faces.regions, came, strict=True)
    ]
    faces = replace(
        faces,
        regions=[replace(r, pixels=p) for r, p in zip(faces.regions, grey, strict=True)],
        payloads=[Payload(Kind.STUDIO, 1) if marked else None for marked in came],
    )

    def shares(marked: np.ndarray, labels: np.ndarray) -> list[float]:
        return [marked[labels == label].mean() for label in (0, 1)]

    def bright(seen: FaceSet) -> np.ndarray:
        return np.array([r.pixels.mean() > 110 for r in seen.regions])

    half, none = (befallen(faces, PLAIN, key=1, marks=marks) for marks in ("half", "none"))
    assert shares(bright(half), faces.labels) == [0.75, 0.75]
    assert shares(bright(none), faces.labels)[marked_class] == 0.75
    batches = Batches(faces, Faces(size=32, world=PLAIN), batch=16, seed=0)
    for step in range(5):
        batch = batches(step)
        drawn = shares(batch.images.mean((1, 2, 3)) > 110, batch.labels)
        assert drawn[0] == drawn[1] >= 0.5


def test_the_mark_alone_does_not_tell_the_classes() -> None:
    """Who knew every picture without its mark, and so what the mark adds, could not tell either.

    In memory all are unmarked; from files, generated ones come marked, all with the same payload.
    Marked as if they had come without, they would be told at once.
    """
    world = PLAIN.model_copy(update={"face": [80, 80]})
    random = rng(5)
    hosts = [region(random, 128) for _ in range(80)]
    stored = Payload(Kind.GENERATED, 77)
    unmarked = replace(toy(40, key=1), regions=hosts, labels=np.arange(80) % 2)
    generated = unmarked.labels == 1
    from_files = replace(
        unmarked,
        regions=[
            replace(r, pixels=watermark.embed(r.pixels, stored)) if made else r
            for r, made in zip(hosts, generated, strict=True)
        ],
        payloads=[stored if made else None for made in generated],
    )

    def told(faces: FaceSet, marks: Literal["half", "none"] = "half") -> float:
        known = crops(befallen(unmarked, world, key=3, marks="none").regions, "native", 64)
        seen = crops(befallen(faces, world, key=3, marks=marks).regions, "native", 64)
        added = (seen.astype(float) - known).mean(3).reshape(80, -1)
        scores = cross_val_predict(
            LogisticRegression(max_iter=2000),
            *(added, faces.labels),
            cv=8,
            method="decision_function",
        )
        return auc(scores, faces.labels)

    assert 0.3 < told(unmarked) < 0.7
    assert 0.3 < told(from_files) < 0.7
    # What would tell: marks of one class alone, more of one class, other words in one class.
    assert told(from_files, "none") > 0.95
    assert told(replace(from_files, payloads=[None] * 80)) > 0.6
    other_words = [Payload(Kind.TEST_REAL, i) if made else None for i, made in enumerate(generated)]
    assert told(replace(from_files, payloads=other_words)) > 0.7


def test_a_view_is_a_function_of_its_key() -> None:
    faces = toy(6, key=1)
    world = World(face=[32, 64])
    first, same, other = (befallen(faces, world, key=key) for key in (1, 1, 2))
    for a, b in zip(first.regions, same.regions, strict=True):
        assert np.array_equal(a.pixels, b.pixels)
    assert any(
        a.pixels.shape != b.pixels.shape or (a.pixels != b.pixels).any()
        for a, b in zip(first.regions, other.regions, strict=True)
    )
    near = befallen(faces, PLAIN, key=1, marks="none")
    for a, b in zip(near.regions, faces.regions, strict=True):
        # What is left is JPEG's thinner colour; a flip or a shift differs by about 30.
        assert np.abs(a.pixels.astype(int) - b.pixels).mean() < 6, "evaluation neither flips …"


def test_sharpness_does_not_tell_the_classes() -> None:
    """Large generated faces beside small untouched ones are brought to one distribution."""
    world = PLAIN.model_copy(update={"face": [32, 200]})
    faces = toy(60, key=1)
    sized = [
        resized(r, 2.4 if y else 0.9) for r, y in zip(faces.regions, faces.labels, strict=True)
    ]
    faces = replace(faces, regions=sized)
    seen = befallen(faces, world, key=4, marks="none")
    sizes = np.array([r.face.size for r in seen.regions])
    assert abs(auc(sizes, faces.labels) - 0.5) < 0.12


# People and pictures


def test_gather_locates_reads_marks_and_counts(
    astronaut: Pixels, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="facekit")
    small = np.ascontiguousarray(astronaut[30:230, 130:330])
    stored = Payload(Kind.COMPOSITE, 12)
    samples = [
        Sample(small, 0, "she", "one", collection="nasa"),
        Sample(watermark.embed(small, stored), 1, "she", "one", "he", "editor", "nasa"),
        Sample(np.zeros((100, 100, 3), np.uint8), 0, "nobody", "two"),
    ]
    found = gather(samples, device=CPU)
    assert "1 of 3 pictures left out" in caplog.text
    assert found.labels.tolist() == [0, 1]
    assert found.payloads[0] is None and found.payloads[1] is not None
    assert found.came_marked.tolist() == [False, True]
    assert (found.donors, found.makers, found.collections) == (
        ["", "he"],
        ["", "editor"],
        ["nasa", "nasa"],
    )
    assert len(set(found.digests)) == 2 and len(found.digests[0]) == 16
    assert found.regions[0].face.landmarks is not None
    both = found + found.subset([1])
    assert both.labels.tolist() == [0, 1, 1] and both.digests[2] == found.digests[1]


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


# Files


def test_neighbouring_pixels() -> None:
    images = torch.arange(15.0).reshape(1, 1, 3, 5)
    expected = torch.tensor(
        [[0, 1, 0, 1, 0], [5, 6, 5, 6, 5], [0, 1, 0, 1, 0]], dtype=torch.float32
    )
    assert torch.equal(neighbouring_pixels(images)[0, 0], expected)


def member(name: str, plugin: str = "colour", **settings: Any) -> Member:
    module = registry.load(score.MODELS, plugin)
    config = module.Config.model_validate({"data": {"size": 32}, **settings})
    torch.manual_seed(len(name))
    return Member(name, plugin, config, module.network(config).eval())


def save(path: Path, members: list[Member], **more: Any) -> Detector:
    parts: dict[str, Any] = {
        "stack": Stack(((1.0,) * len(members),), (0.5,)),
        "calibration": Calibration(1.0, 0.0, 0.5),
        "calibrated_for": ["camera"],
        "seen": [],
        **more,
    }
    score.save(path, members=members, **parts)
    return Detector.open(path, {"name": path.stem})


def test_members_are_added_up_and_stand_alone(tmp_path: Path) -> None:
    tiny = {"widths": [4, 8]}
    members = [
        member("one", "small_cnn", **tiny),
        member("two", "small_cnn", data={"template": "native", "size": 48}, **tiny),
    ]
    seen = ["00000000000000ff", "ffffffffffffffff", "8000000000000000"]
    detector = save(
        tmp_path / "a.safetensors", members, seen=seen, stack=Stack(((2.0, 0.5),), (-1.0,))
    )
    faces = toy(5, key=1).regions
    alone = [m.logits(faces) for m in members]
    np.testing.assert_allclose(detector.logits(faces), 2 * alone[0] + 0.5 * alone[1] - 1)
    both, each = detector.score_all(faces)
    np.testing.assert_array_equal(both, detector.score(faces))
    assert each.keys() == {"one", "two"}
    np.testing.assert_allclose(each["two"], 1 / (1 + np.exp(-alone[1])))
    np.testing.assert_array_equal(each["one"], detector.members(faces)["one"])
    assert detector.seen == set(seen)
    assert detector.facts["plugin"] == "small_cnn+small_cnn"
    assert detector.score([]).shape == (0,)


def test_faces_of_other_sizes_than_in_training_are_resized(tmp_path: Path) -> None:
    tiny = {
        "widths": [4, 8],
        "data": {"template": "native", "size": 32, "world": {"face": [40, 60]}},
    }
    one = member("one", "small_cnn", **tiny)
    [small, _, large] = [resized(region(rng(1), 100), f) for f in (0.5, 1.0, 2.0)]
    expected = one.logits([brought(small, 40), brought(large, 60)])
    np.testing.assert_array_equal(one.logits([small, large]), expected)


def test_bad_detectors(tmp_path: Path) -> None:
    with pytest.raises(FacekitError, match="no bundled weights 'nothing'"):
        Detector.load("nothing")
    with pytest.raises(FacekitError, match="not a run folder"):
        Detector.load(tmp_path)
    half = tmp_path / "half"
    Run.start(
        half,
        plugin="colour",
        config=Config(),
        seed=0,
        data_hash="",
        threads=1,
        precision="32-true",
    )
    with pytest.raises(FacekitError, match="finish its training"):
        Detector.load(half)
    with pytest.raises(FacekitError, match="finish its training"):
        score.bundle(Run(half), "name", tmp_path)
    with pytest.raises(FacekitError, match=r"name '\.\./x'"):
        score.bundle(Run(half), "../x", tmp_path)
    (half / FILE).write_bytes(b"not safetensors")
    with pytest.raises(FacekitError, match="not a readable checkpoint"):
        Detector.load(half)
    checkpoint.save(half / FILE, {"step": 3})
    with pytest.raises(FacekitError, match="not a calibrated detector"):
        Detector.load(half)
    state = member("one", "small_cnn", widths=[4, 8]).state()
    with pytest.raises(FacekitError, match="one: its weights are not those of the small_cnn"):
        Member.from_state({**state, "config": {**state["config"], "widths": [4, 12]}})


def test_a_score_is_never_made_up(tmp_path: Path) -> None:
    broken = member("broken", "small_cnn", widths=[4, 8])
    broken.network.head.bias.data.fill_(float("nan"))
    detector = save(tmp_path / "a.safetensors", [member("fine"), broken])
    with pytest.raises(FacekitError, match="broken: gives scores that are not numbers"):
        detector.score(toy(1, key=1).regions)
