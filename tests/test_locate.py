"""Locators find the faces that are there. Oracles: facenet-pytorch's own detect, and symmetry."""

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from facenet_pytorch import MTCNN

from facekit.faces.locate import load_locator

CPU = torch.device("cpu")
MIRRORED = [1, 0, 2, 4, 3]  # the order of the five points in a mirrored picture


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def locator():
    return load_locator(CPU)


@pytest.fixture(scope="module")
def crowd(astronaut):
    """Five faces of three sizes, two of them mirrored."""
    scene = np.full((480, 620, 3), 120, np.uint8)
    head = astronaut[:220, 120:340]
    for x, y, side, mirrored in (
        (5, 5, 220, False),
        (240, 5, 220, True),
        (5, 250, 160, False),
        (200, 250, 160, True),
        (400, 300, 100, False),
    ):
        small = cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA)
        scene[y : y + side, x : x + side] = small[:, ::-1] if mirrored else small
    return scene


def test_finds_the_faces_and_points_that_the_library_finds(crowd, locator):
    boxes, scores, points = MTCNN(keep_all=True, min_face_size=40).detect(crowd, landmarks=True)
    sure = [i for i, score in enumerate(scores) if score > 0.95]
    found = locator.locate([crowd])[0]
    assert len(sure) == 5
    assert len(found) == 5
    for i in sure:
        # The library counts pixels from 1, both ends included.
        box = boxes[i].astype(float) - [1, 1, 0, 0]
        size = max(box[2:] - box[:2])
        near = min(found, key=lambda f: np.abs(f.box - box).max())
        assert np.abs(near.box - box).max() < 0.12 * size
        assert np.abs(near.points - points[i].astype(float)).max() < 0.05 * size


def test_faces_come_largest_first_and_plain_python(crowd, locator):
    sizes = [f.size for f in locator.locate([crowd])[0]]
    assert sizes == sorted(sizes, reverse=True)
    first = locator.locate([crowd])[0][0]
    assert isinstance(first.score, float)
    assert 0.9 < first.score <= 1
    assert (first.box.dtype, first.points.dtype) == (np.float32, np.float32)


def test_pictures_of_mixed_size_give_what_each_gives_alone(astronaut, crowd, locator):
    pictures = [astronaut, crowd, astronaut[:300, :400], crowd[:, ::-1].copy()]
    for together, picture in zip(locator.locate(pictures), pictures, strict=True):
        alone = locator.locate([picture])[0]
        assert len(together) == len(alone) > 0
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a.points, b.points, atol=0.01)
            np.testing.assert_allclose(a.box, b.box, atol=0.01)


def test_mirroring_shows_no_bias_of_the_points(astronaut, locator):
    # A constant half-pixel error would show twice in the mean over the mirrored pair.
    differences = []
    for width in range(500, 512):
        picture = np.ascontiguousarray(astronaut[:300, :width])
        left = locator.locate([picture])[0][0]
        right = locator.locate([np.ascontiguousarray(picture[:, ::-1])])[0][0]
        mirrored = right.points[MIRRORED] * np.array([-1, 1]) + np.array([width, 0])
        differences.append((left.points - mirrored).mean(axis=0))
    assert np.abs(np.mean(differences, axis=0)).max() < 0.8


@pytest.mark.parametrize("zoom", [2, 5])
def test_large_pictures_map_back_to_their_own_pixels(astronaut, zoom):
    picture = astronaut[:256, 64:448]
    large = cv2.resize(picture, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)
    reference = load_locator(CPU).locate([picture])[0][0]
    found = load_locator(CPU, min_face=40 * zoom, max_side=384).locate([large])[0][0]
    np.testing.assert_allclose(found.points / zoom, reference.points, atol=0.02 * reference.size)
    np.testing.assert_allclose(found.box / zoom, reference.box, atol=0.08 * reference.size)


def test_a_face_cut_by_the_border_is_found(astronaut, locator):
    whole = locator.locate([astronaut])[0][0]
    x0 = int(whole.box[0] + 0.15 * (whole.box[2] - whole.box[0]))
    cut = locator.locate([np.ascontiguousarray(astronaut[:, x0:])])[0]
    assert len(cut) == 1
    np.testing.assert_allclose(
        cut[0].points + np.array([x0, 0]), whole.points, atol=0.08 * whole.size
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (11, 11), (64, 64)])
def test_pictures_without_room_for_a_face_give_none(shape, locator):
    assert locator.locate([np.zeros((*shape, 3), np.uint8)]) == [[]]


def test_min_face_is_kept(crowd):
    sizes = [f.size for f in load_locator(CPU, min_face=70).locate([crowd])[0]]
    assert len(sizes) == 4
    assert min(sizes) >= 70


def test_no_pictures_give_no_faces(locator):
    assert locator.locate([]) == []
