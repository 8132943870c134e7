"""Track, align. The oracles: OpenCV and scipy."""

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from facekit.core.errors import FacekitError
from facekit.faces.align import TEMPLATES, align_faces, apply, crop_from_image, invert, warp
from facekit.faces.locate import load_locator
from facekit.faces.track import Tracker
from facekit.types import Face

CPU = torch.device("cpu")


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


def face(x, y, side=100.0, score=0.99):
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]) * side
    box = np.array([x, y, x + side, y + side], np.float32)
    return Face(box=box, points=np.float32(points + np.array([x, y])), score=score)


# --- track


def test_two_people_who_cross_gaps_keep_their_tracks():
    tracker = Tracker(max_gap=2.0)
    assert tracker.update([face(0, 0), face(400, 0)], 0.0, 0) == [0, 1]
    assert tracker.update([face(380, 5), face(20, 5)], 0.4, 10) == [1, 0]
    assert tracker.update([face(40, 5)], 0.8, 20) == [0]
    assert tracker.update([], 1.2, 30) == []
    # Back within two seconds by the clock, whatever the number of frames.
    assert tracker.update([face(390, 0), face(60, 0)], 2.3, 31) == [1, 0]
    assert [len(track.sightings) for track in tracker.tracks] == [4, 3]
    assert [s.time for s in tracker.tracks[1].sightings] == [0.0, 0.4, 2.3]


def test_a_long_absence_or_another_place_begins_a_new_track():
    tracker = Tracker(max_gap=1.0)
    tracker.update([face(0, 0)], 0.0, 0)
    assert tracker.update([face(0, 0)], 1.5, 1) == [1]
    assert tracker.update([face(300, 0)], 1.6, 2) == [2]


def test_all_pairs_are_decided_together():
    # Nearest first would give track 1's face to track 0 and leave the other without.
    tracker = Tracker()
    tracker.update([face(0, 0), face(60, 0)], 0.0, 0)
    assert tracker.update([face(35, 0), face(95, 0)], 0.1, 1) == [0, 1]


def test_a_face_that_moves_by_more_than_half_its_side_is_followed():
    tracker = Tracker()
    tracker.update([face(0, 0)], 0.0, 0)
    assert tracker.update([face(70, 0)], 0.2, 1) == [0]


# --- align


@given(
    st.sampled_from(sorted(TEMPLATES)),
    st.floats(-np.pi, np.pi),
    st.floats(0.05, 20),
    st.tuples(st.floats(-4000, 4000), st.floats(-4000, 4000)),
    st.integers(16, 512),
)
def test_an_exact_similarity_is_recovered(template, angle, scale, shift, size):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (TEMPLATES[template] * 100) @ turn.T + shift
    matrix = crop_from_image(points, template, size)
    np.testing.assert_allclose(apply(matrix, points), TEMPLATES[template] * size, atol=1e-6 * size)
    # Rotation and scale alone: no shear, no mirror.
    assert matrix[0, 0] == pytest.approx(matrix[1, 1])
    assert matrix[0, 1] == pytest.approx(-matrix[1, 0])
    back = apply(invert(matrix), apply(matrix, points))
    np.testing.assert_allclose(back, points, atol=1e-6)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_no_other_similarity_fits_better(seed):
    random = np.random.default_rng(seed)
    points = TEMPLATES["wide"] * 100 + random.normal(0, 8, (5, 2))
    matrix = crop_from_image(points, "wide", 64)

    def error(m):
        return np.square(apply(m, points) - TEMPLATES["wide"] * 64).sum()

    for _ in range(8):
        a, b, x, y = random.normal(0, 1e-3, 4)
        nudge = np.array([[a, -b, x], [b, a, y]])
        assert error(matrix) <= error(matrix + nudge) + 1e-9


def test_many_faces_are_fitted_at_once():
    points = np.stack([face(x, 2 * x, 50 + x).points for x in range(6)]).reshape(2, 3, 5, 2)
    together = crop_from_image(points, "arcface", 112)
    assert together.shape == (2, 3, 2, 3)
    assert together.dtype == np.float64
    np.testing.assert_allclose(
        together[1, 2], crop_from_image(points[1, 2], "arcface", 112), atol=1e-9
    )


def test_points_that_fit_no_similarity_and_unknown_templates_are_named():
    with pytest.raises(FacekitError, match="apart"):
        crop_from_image(np.ones((5, 2)), "wide", 64)
    with pytest.raises(FacekitError, match="apart"):
        crop_from_image(np.full((5, 2), np.nan), "wide", 64)
    with pytest.raises(FacekitError, match="did you mean 'wide'"):
        crop_from_image(face(0, 0).points, "wid", 64)


def similarity(scale, degrees, x, y):
    a = np.radians(degrees)
    c, s = scale * np.cos(a), scale * np.sin(a)
    return np.array([[c, -s, x], [s, c, y]])


@pytest.mark.parametrize(
    "matrix",
    [
        similarity(1, 0, 0, 0),
        similarity(1, 0, -100.25, -50.75),
        similarity(1.7, 13, -250.3, -90.1),
        similarity(3, -40, 20, 60),
        similarity(1, 90, 300, 0),
    ],
)
def test_warp_is_what_opencv_and_scipy_compute(astronaut, matrix):
    size = 128
    image = torch.from_numpy(astronaut).permute(2, 0, 1)[None].float() / 255
    crop = warp(image, matrix[None], size)[0].permute(1, 2, 0).numpy()

    # OpenCV has pixel centres at whole numbers.
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    expected = cv2.warpAffine(
        astronaut.astype(np.float32) / 255,
        shifted,
        (size, size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    assert np.abs(crop - expected).max() <= 1e-3

    centres = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1) + 0.5
    places = apply(invert(matrix), centres.reshape(-1, 2)) - 0.5
    green = map_coordinates(
        astronaut[..., 1] / 255.0, places.T[::-1], order=1, mode="nearest"
    ).reshape(size, size)
    assert np.abs(crop[..., 1] - green).max() <= 1e-3


@pytest.mark.parametrize("factor", [2, 4, 7])
def test_shrinking_averages_areas(factor):
    fine = np.random.default_rng(0).random((3, 64 * factor, 64 * factor), np.float32)
    crop = warp(torch.from_numpy(fine)[None], similarity(1 / factor, 0, 0, 0)[None], 64)[0]
    means = fine.reshape(3, 64, factor, 64, factor).mean(axis=(2, 4))
    np.testing.assert_allclose(crop.numpy(), means, atol=2e-3)


def test_a_crop_does_not_depend_on_its_batch(astronaut):
    image = torch.from_numpy(astronaut).permute(2, 0, 1)[None].float()
    matrices = np.stack([similarity(s, 5, -30, -10) for s in (2, 1, 0.5, 0.15, 0.5)])
    together = warp(image.expand(5, -1, -1, -1), matrices, 64)
    alone = torch.cat([warp(image, matrix[None], 64) for matrix in matrices])
    torch.testing.assert_close(together, alone)


def test_a_crop_beyond_the_border_continues_the_edge():
    image = torch.arange(12.0).view(1, 1, 3, 4).expand(1, 3, 3, 4)
    crop = warp(image, similarity(1, 0, 4, 4)[None], 12)[0, 0]
    torch.testing.assert_close(crop[:5, :5], torch.zeros(5, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(crop[7:, 8:], torch.full((5, 4), 11.0))


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_aligned_faces_have_their_points_on_the_template(crowd, locator, template):
    faces = locator.locate([crowd])[0]
    aligned = align_faces(crowd, faces, template=template, size=256, device=CPU)
    assert len(aligned) == 5
    again = locator.locate([one.pixels for one in aligned])
    for one, origin, found in zip(aligned, faces, again, strict=True):
        assert one.pixels.shape == (256, 256, 3)
        assert one.pixels.dtype == np.uint8
        assert one.face is origin
        # Located anew in its crop, the face is where the matrix says, and fits the template as
        # well as this smile fits the mean of all faces.
        expected = apply(one.crop_from_image, origin.points)
        np.testing.assert_allclose(found[0].points, expected, atol=0.03 * 256)
        off = np.linalg.norm(found[0].points / 256 - TEMPLATES[template], axis=1)
        assert off.mean() < 0.05


def test_align_faces_is_the_warp_of_the_whole_picture(crowd, locator):
    faces = locator.locate([crowd])[0]
    aligned = align_faces(crowd, faces, template="wide", size=64, device=CPU)
    image = torch.from_numpy(crowd).permute(2, 0, 1)[None].float().expand(5, -1, -1, -1)
    whole = warp(image, np.stack([one.crop_from_image for one in aligned]), 64)
    for one, expected in zip(aligned, whole.permute(0, 2, 3, 1).numpy(), strict=True):
        assert np.abs(one.pixels - expected).max() <= 0.51


def test_a_face_wholly_outside_the_picture_still_gives_a_crop(astronaut):
    aligned = align_faces(astronaut, [face(-900, 2000)], template="wide", size=32, device=CPU)
    assert aligned[0].pixels.shape == (32, 32, 3)
    assert align_faces(astronaut, [], template="wide", size=32, device=CPU) == []
