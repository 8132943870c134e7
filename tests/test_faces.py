"""Align. The oracles: OpenCV and scipy."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from faces_of_noise import landmarks_at
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from facekit.core.errors import FacekitError
from facekit.faces.align import (
    TEMPLATES,
    align_faces,
    apply,
    crop_from_faces,
    crop_from_image,
    invert,
    warp,
)
from facekit.types import Face

CPU = torch.device("cpu")


def face(x, y, side=100.0, score=0.99):
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]) * side
    box = np.array([x, y, x + side, y + side], np.float32)
    return Face(box=box, points=np.float32(points + np.array([x, y])), score=score)


# --- align


FITTED = ("arcface", "face", "wide")  # templates that faces are fitted to by least squares
placed = given(
    st.floats(-np.pi, np.pi),
    st.floats(0.05, 20),
    st.tuples(st.floats(-4000, 4000), st.floats(-4000, 4000)),
    st.integers(16, 512),
)


def mean_face(template, angle, scale, shift):
    """Five points that are the template's, turned, scaled and moved, and their box."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (TEMPLATES[template] * 100) @ turn.T + shift
    return points, np.concatenate([points.min(0), points.max(0)])


@pytest.mark.parametrize("template", FITTED)
@placed
def test_an_exact_similarity_is_recovered(template, angle, scale, shift, size):
    points, _ = mean_face(template, angle, scale, shift)
    matrix = crop_from_image(points, template, size)
    np.testing.assert_allclose(apply(matrix, points), TEMPLATES[template] * size, atol=1e-6 * size)


@pytest.mark.parametrize("template", sorted(TEMPLATES))
@placed
def test_points_map_forth_and_back(template, angle, scale, shift, size):
    points, box = mean_face(template, angle, scale, shift)
    matrix = crop_from_image(points, template, size, boxes=box)
    # Rotation and scale alone: no shear, no mirror.
    assert matrix[0, 0] == pytest.approx(matrix[1, 1])
    assert matrix[0, 1] == pytest.approx(-matrix[1, 0])
    assert np.linalg.det(matrix[:, :2]) > 0
    back = apply(invert(matrix), apply(matrix, points))
    np.testing.assert_allclose(back, points, rtol=1e-9, atol=1e-9)
    again = apply(matrix, apply(invert(matrix), TEMPLATES[template] * size))
    np.testing.assert_allclose(again, TEMPLATES[template] * size, rtol=1e-9, atol=1e-9)


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


# --- the templates with a rule of their own


def ffhq_quad(landmarks):
    """The corners (4, 2), clockwise from the top left, that FFHQ's published rule gives.

    Written from the paper's appendix and the data set's description; x and y by their names.
    """
    left_x, left_y = landmarks[36:42].mean(axis=0)
    right_x, right_y = landmarks[42:48].mean(axis=0)
    mouth_x, mouth_y = (landmarks[48] + landmarks[54]) / 2
    eyes_x, eyes_y = (left_x + right_x) / 2, (left_y + right_y) / 2
    across_x, across_y = right_x - left_x, right_y - left_y
    down_x, down_y = mouth_x - eyes_x, mouth_y - eyes_y
    x, y = across_x + down_y, across_y - down_x  # down, turned back by 90°, and across
    half = max(2.0 * np.hypot(across_x, across_y), 1.8 * np.hypot(down_x, down_y))
    x, y = x * half / np.hypot(x, y), y * half / np.hypot(x, y)
    centre = np.array([eyes_x + 0.1 * down_x, eyes_y + 0.1 * down_y])
    u, v = np.array([x, y]), np.array([-y, x])
    return np.stack([centre - u - v, centre + u - v, centre + u + v, centre - u + v])


def with_landmarks(points):
    """A face whose landmarks are ``points`` (70, 2); its five points are those of the studio."""
    lids = np.stack([points[36:42].mean(0), points[42:48].mean(0)])
    across = lids[1] - lids[0]
    eyes = lids - 0.03 * np.array([-across[1], across[0]])
    five = np.concatenate([eyes, points[[30, 48, 54]]]).astype(np.float32)
    box = np.concatenate([points.min(0), points.max(0)]).astype(np.float32)
    return Face(box=box, points=five, score=1.0, landmarks=landmarks_at(points))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-180, 180), st.sampled_from([0.2, 0.5]))
def test_ffhq_is_its_published_rule(seed, degrees, height):
    random = np.random.default_rng(seed)
    dense = random.uniform(0, 100, (70, 2))
    for rows, centre in (
        (slice(36, 42), (35, 40)),
        (slice(42, 48), (65, 40)),
        (48, (38, 40 + 100 * height)),
        (54, (62, 40 + 100 * height)),
    ):
        dense[rows] = centre + random.normal(0, 2, dense[rows].shape)
    dense = apply(similarity(3, degrees, 900, 700), dense).astype(np.float32).astype(np.float64)
    one = with_landmarks(dense)
    square = np.array([[0, 0], [256, 0], [256, 256], [0, 256]], np.float64)
    by_landmarks = apply(invert(crop_from_faces([one], "ffhq", 256)[0]), square)
    np.testing.assert_allclose(by_landmarks, ffhq_quad(dense), atol=1e-6)
    # Five points alone: the same, as far as the eyes' middles lie where the lids say.
    alone = apply(invert(crop_from_faces([replace(one, landmarks=None)], "ffhq", 256)[0]), square)
    side = np.linalg.norm(by_landmarks[1] - by_landmarks[0])
    assert np.linalg.norm(alone - by_landmarks, axis=1).max() < 0.002 * side


def test_the_mean_face_of_ffhq_is_what_the_rule_makes_of_arcfaces():
    mean = TEMPLATES["arcface"]
    places = apply(crop_from_image(mean, "ffhq", 1), mean)
    np.testing.assert_allclose(places, TEMPLATES["ffhq"], atol=1e-3)


def test_box13_is_the_square_of_faceforensics():
    # Its rule, in whole pixels: side int(1.3 · longer side), about the middle, rounded down.
    x0, y0, x1, y1 = 310, 122, 397, 231
    side = int(max(x1 - x0, y1 - y0) * 1.3)
    left, top = (x0 + x1) // 2 - side // 2, (y0 + y1) // 2 - side // 2
    box = np.array([x0, y0, x1, y1], np.float64)
    matrix = crop_from_image(np.zeros((5, 2)), "box13", side, boxes=box)
    corners = apply(invert(matrix), np.array([[0, 0], [side, 0], [0, side], [side, side]]))
    expected = [[left, top], [left + side, top], [left, top + side], [left + side, top + side]]
    assert np.abs(corners - expected).max() <= 1.5
    assert matrix[0, 1] == matrix[1, 0] == 0


def test_box13_without_a_box_is_named():
    with pytest.raises(FacekitError, match="'box13' goes by the faces' boxes"):
        crop_from_image(face(0, 0).points, "box13", 64)
    with pytest.raises(FacekitError, match="have an area"):
        crop_from_image(face(0, 0).points, "box13", 64, boxes=np.zeros(4))


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.inf)])
def test_points_that_give_ffhq_no_direction_are_named(points):
    with pytest.raises(FacekitError, match="apart"):
        crop_from_image(points, "ffhq", 64)


# --- warp


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


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0.12, 4),
    st.floats(-180, 180),
    st.tuples(st.floats(-60, 60), st.floats(-60, 60)),
    st.sampled_from([1, 3, 4]),
    st.booleans(),
    st.sampled_from([17, 64]),
)
def test_opencv_and_grid_sample_agree(scale, degrees, shift, channels, last, size):
    random = np.random.default_rng(0)
    image = torch.from_numpy(random.random((2, channels, 90, 120), np.float32)) * 2 - 1
    if last:
        image = image.contiguous(memory_format=torch.channels_last)
    matrix = similarity(scale, degrees, 0, 0)
    matrix[:, 2] = size / 2 - matrix[:, :2] @ (np.array([60, 45]) + shift)
    matrices = np.stack([matrix, matrix + np.array([[0, 0, 3.3], [0, 0, -1.7]])])
    drawn = warp(image, matrices, size)
    assert drawn.shape == (2, channels, size, size)
    assert drawn.dtype == torch.float32
    with_gradient = image.clone().requires_grad_()
    sampled = warp(with_gradient, matrices, size)
    assert sampled.requires_grad and not drawn.requires_grad
    # The range is 2 wide; this is noise, whose neighbours differ by all of it.
    assert (drawn - sampled.detach()).abs().max() <= 2e-3
    with torch.no_grad():
        torch.testing.assert_close(warp(with_gradient, matrices, size), drawn)


def test_gradients_flow_to_the_images():
    image = torch.rand(1, 3, 20, 24, requires_grad=True)
    warp(image, similarity(0.5, 10, 1, 2)[None], 8).sum().backward()
    assert image.grad is not None
    # Each of the 64 pixels is a mean, so the gradients of a channel sum to their number.
    assert image.grad.sum(dim=(0, 2, 3)).tolist() == pytest.approx([64] * 3, rel=1e-4)


def test_a_view_of_a_large_picture_is_drawn_as_its_copy(astronaut):
    # The far corner of a picture that is wider than 16 bits can count, mirrored, in place.
    wide = np.zeros((120, 40_000, 3), np.uint8)
    wide[:, -200:] = astronaut[:120, :200]
    spot = face(39_850, 10, 80)
    near = face(50, 10, 80)
    far = align_faces(wide, [spot], template="wide", size=64, device=CPU)[0]
    expected = align_faces(astronaut[:120, :200], [near], template="wide", size=64, device=CPU)[0]
    assert np.abs(far.pixels.astype(int) - expected.pixels).max() <= 1
    mirrored = align_faces(astronaut[:120, 199::-1], [near], template="wide", size=64, device=CPU)
    copy = np.ascontiguousarray(astronaut[:120, 199::-1])
    again = align_faces(copy, [near], template="wide", size=64, device=CPU)
    assert np.array_equal(mirrored[0].pixels, again[0].pixels)


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
        assert off.mean() < (0.08 if template == "box13" else 0.05)


@pytest.mark.parametrize("size", [24, 64, 200])  # from 2.6 times smaller to 3 times larger
@pytest.mark.parametrize("template", ["wide", "box13"])
def test_align_faces_is_the_warp_of_the_whole_picture(crowd, locator, template, size):
    faces = locator.locate([crowd])[0]
    aligned = align_faces(crowd, faces, template=template, size=size, device=CPU)
    image = torch.from_numpy(crowd).permute(2, 0, 1)[None].float().expand(5, -1, -1, -1)
    whole = warp(image, np.stack([one.crop_from_image for one in aligned]), size)
    for one, expected in zip(aligned, whole.permute(0, 2, 3, 1).numpy(), strict=True):
        assert np.abs(one.pixels - expected).max() <= 1


def test_other_devices_give_the_same_crops(crowd, locator, monkeypatch):
    faces = locator.locate([crowd])[0]
    here = align_faces(crowd, faces, template="wide", size=64, device=CPU)
    monkeypatch.setattr("facekit.faces.align.on_host", lambda device: False)
    there = align_faces(crowd, faces, template="wide", size=64, device=CPU)
    for one, other in zip(here, there, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels).max() <= 1


def test_a_face_wholly_outside_the_picture_still_gives_a_crop(astronaut):
    aligned = align_faces(astronaut, [face(-900, 2000)], template="wide", size=32, device=CPU)
    assert aligned[0].pixels.shape == (32, 32, 3)
    assert align_faces(astronaut, [], template="wide", size=32, device=CPU) == []
