"""Pasting a crop back: exact where it must be, soft at the seam, true in colour."""

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facekit.core.errors import FacekitError
from facekit.faces.align import TEMPLATES, align_faces, apply, draw_crop, invert
from facekit.faces.blend import SEAMS, Seam, ellipse, paste
from facekit.types import Face

CPU = torch.device("cpu")


def similarity(scale: float, degrees: float, x: float, y: float) -> np.ndarray:
    angle = np.radians(degrees)
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, x], [s, c, y]])


def smooth_picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 200 / width + 20, y * 200 / height + 20, (x + y) * 0.5 % 256], -1).astype(
        np.uint8
    )


def test_a_crop_cut_at_whole_pixels_comes_back_to_its_place_exactly() -> None:
    picture = smooth_picture(60, 80)
    crop = picture[10:42, 20:52]
    matrix = np.array([[1.0, 0, -20], [0, 1.0, -10]])
    result = paste(np.zeros_like(picture), crop, matrix, np.ones((32, 32), np.float32))
    assert np.array_equal(result[10:42, 20:52], crop)
    assert not result[:10].any() and not result[:, :20].any()


def fine_picture(height: int, width: int) -> np.ndarray:
    """Waves, at most five pixels to a period, so that interpolation has something to lose."""
    y, x = np.mgrid[:height, :width] + 0.5
    waves = [np.sin(0.5 * x + 0.3 * y), np.cos(0.2 * x - 0.6 * y), np.sin(x * y / 400)]
    return (128 + 100 * np.stack(waves, axis=-1)).round().astype(np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    st.floats(1, 4),
    st.floats(-180, 180),
    st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
    st.sampled_from([48, 96]),
)
def test_what_was_cut_out_goes_back_to_where_it_was(
    scale: float, degrees: float, shift: tuple[float, float], size: int
) -> None:
    picture = fine_picture(150, 160)
    matrix = similarity(scale, degrees, 0, 0)
    matrix[:, 2] = size / 2 - matrix[:, :2] @ (np.array([80, 75]) + shift)
    crop = np.empty((size, size, 3), np.uint8)
    draw_crop(crop, picture, invert(matrix))
    everything = np.ones((size, size), np.float32)
    # On black, so that nothing of the picture is left where the crop lies.
    result = paste(np.zeros_like(picture), crop, matrix, everything)

    centres = np.stack(np.meshgrid(np.arange(160), np.arange(150)), axis=-1) + 0.5
    places = apply(matrix, centres.reshape(-1, 2)).reshape(150, 160, 2)
    inside = ((places > 2) & (places < size - 2)).all(axis=-1)
    error = (result.astype(float) - picture)[inside]
    # Linear interpolation flattens these waves by up to w²/8 of 100 levels, w being 0.63.
    assert np.abs(error).mean() < 2.5
    # A shift would show as an error that goes with the slope.
    moved = np.gradient(picture.astype(float), axis=(0, 1))
    for slope in moved:
        along = slope[inside]
        assert abs((error * along).sum() / (along**2).sum()) < 0.08  # pixels
    outside = ((places < -1) | (places > size + 1)).any(axis=-1)
    assert not result[outside].any()


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_an_aligned_face_goes_back_into_its_photo(template: str) -> None:
    photo = skimage.data.astronaut()
    points = np.array([[204, 112], [251, 110], [230, 138], [210, 156], [249, 155]], np.float32)
    face = Face(box=np.array([180, 60, 275, 185], np.float32), points=points, score=1.0)
    (aligned,) = align_faces(photo, [face], template=template, size=384, device=CPU)
    everything = np.ones((384, 384), np.float32)
    result = paste(photo, aligned.pixels, aligned.crop_from_image, everything)
    changed = (result != photo).any(axis=2)
    assert changed.sum() > 10_000
    assert np.abs(result.astype(float) - photo)[changed].mean() < 4


@settings(max_examples=25, deadline=None)
@given(st.floats(0.3, 2.0), st.floats(-40, 40), st.floats(-30, 30), st.floats(-30, 30))
def test_a_bright_spot_lands_where_the_inverse_says(
    scale: float, degrees: float, x: float, y: float
) -> None:
    matrix = similarity(scale, degrees, 0, 0)
    matrix[:, 2] = 32 - matrix[:, :2] @ np.array([60.0 + x / 4, 60.0 + y / 4])
    crop = np.zeros((64, 64, 3), np.uint8)
    yy, xx = np.mgrid[:64, :64] + 0.5
    spot = np.array([35.0, 27.0])
    blob = 255 * np.exp(-((xx - spot[0]) ** 2 + (yy - spot[1]) ** 2) / (2 * 3.0**2))
    crop[:] = blob[..., None]
    mask = np.ones((64, 64), np.float32)
    result = paste(np.zeros((120, 120, 3), np.uint8), crop, matrix, mask)[..., 0]
    rows, columns = np.mgrid[:120, :120] + 0.5
    weight = result.astype(float)
    centre = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
    assert centre == pytest.approx(apply(invert(matrix), spot[None])[0], abs=0.25)


@pytest.mark.parametrize("seam", SEAMS)
def test_outside_of_the_mask_nothing_changes_and_the_input_is_left_alone(seam: Seam) -> None:
    picture = smooth_picture(64, 64)
    before = picture.copy()
    mask = ellipse(32, (0.5, 0.5), (0.3, 0.4), 0.4)
    crop = np.full((32, 32, 3), 255, np.uint8)
    result = paste(picture, crop, similarity(0.5, 0, 0, 0), mask, seam=seam)
    assert np.array_equal(picture, before)
    untouched = np.kron(mask, np.ones((2, 2))) == 0
    untouched &= np.roll(untouched, 2, 0) & np.roll(untouched, -2, 0)
    untouched &= np.roll(untouched, 2, 1) & np.roll(untouched, -2, 1)
    assert np.array_equal(result[untouched], picture[untouched])
    assert (result[30:34, 30:34] == 255).all()


@pytest.mark.parametrize("shift", [(-500, 0), (0, 500), (-20, -25)])
def test_a_crop_partly_or_wholly_outside_of_the_picture_is_no_error(shift: tuple[int, int]) -> None:
    picture = smooth_picture(40, 40)
    matrix = similarity(1, 10, *shift)
    result = paste(
        picture, np.full((32, 32, 3), 9, np.uint8), matrix, np.ones((32, 32), np.float32)
    )
    assert result.shape == picture.shape
    if max(map(abs, shift)) == 500:
        assert np.array_equal(result, picture)


def test_an_empty_mask_changes_nothing() -> None:
    picture = smooth_picture(40, 40)
    empty = np.zeros((20, 20), np.float32)
    assert np.array_equal(paste(picture, picture[:20, :20], similarity(1, 0, 0, 0), empty), picture)


def test_the_ellipse_is_one_inside_zero_at_the_border_and_falls_steadily() -> None:
    mask = ellipse(64, (0.5, 0.5), (0.4, 0.45), 0.3)
    assert mask.dtype == np.float32
    assert mask[32, 32] == 1
    assert not mask[0].any() and not mask[:, 0].any()
    assert (np.diff(mask[32, 32:]) <= 0).all()
    assert np.array_equal(mask, mask[:, ::-1])


# The seam in bands, what covers the face, and changes at the crop's place ----------------------


def test_a_crop_like_the_picture_changes_nothing_in_bands() -> None:
    picture = smooth_picture(120, 120)
    mask = ellipse(96, (0.5, 0.5), (0.4, 0.45), 0.4)
    result = paste(picture, picture[8:104, 8:104], similarity(1, 0, -8, -8), mask, seam="bands")
    assert np.abs(result.astype(int) - picture).max() <= 1


def test_bands_leave_no_step_at_the_seam_and_no_fine_detail_twice() -> None:
    grey = np.full((200, 200, 3), 100, np.uint8)
    x = np.mgrid[:200, :200][1]
    waves = (100 + 60 + 25 * np.sign(np.sin(x * 1.5))).astype(np.uint8)[..., None].repeat(3, 2)
    # A mask with a hard edge, and a crop that is brighter and full of fine detail.
    mask = np.zeros((200, 200), np.float32)
    mask[:, 100:] = 1
    whole = similarity(1, 0, 0, 0)
    feathered, banded = (
        paste(grey, waves, whole, mask, seam=seam) for seam in ("feather", "bands")
    )
    means = [
        p[80:120].astype(float).reshape(40, 20, 10, 3).mean((0, 2, 3)) for p in (feathered, banded)
    ]
    steps = [np.abs(np.diff(mean)).max() for mean in means]
    assert steps[1] < 0.75 * steps[0]
    # Beyond the edge there is none of the detail, and nothing at all.
    assert np.array_equal(banded[:, :96], grey[:, :96])
    # Under a soft mask fine detail is shown wholly or not at all; a feather shows half of it.
    soft = np.clip((x - 50) / 100, 0, 1).astype(np.float32)
    amplitude = {}
    for seam in SEAMS:
        row = paste(grey, waves, whole, soft, seam=seam)[100, :, 0].astype(float)
        fine = row - np.convolve(row, np.ones(17) / 17, mode="same")
        amplitude[seam] = np.array([fine[i : i + 17].std() for i in (66, 117)])
    assert amplitude["bands"][0] < 0.4 * amplitude["feather"][0]
    assert amplitude["bands"][1] > 1.2 * amplitude["feather"][1]


@pytest.mark.parametrize("seam", SEAMS)
def test_what_is_veiled_stays(seam: Seam) -> None:
    picture = smooth_picture(120, 120)
    veil = np.ones((96, 96), np.float32)
    veil[:, :48] = 0
    mask = ellipse(96, (0.5, 0.5), (0.5, 0.5), 0.3)
    crop = np.full((96, 96, 3), 255, np.uint8)
    result = paste(picture, crop, similarity(1, 0, -10, -10), mask, seam=seam, veil=veil)
    assert np.array_equal(result[:, :57], picture[:, :57])
    assert (result[50:60, 65:90] > 200).all()


def test_the_crop_is_retouched_at_its_place_and_told_its_size() -> None:
    given: list[tuple[tuple[int, ...], float]] = []

    def darken(layer: np.ndarray, side: float) -> np.ndarray:
        given.append((layer.shape, side))
        return layer * 0

    picture = smooth_picture(120, 120)
    mask = ellipse(32, (0.5, 0.5), (0.5, 0.5), 0.3)
    crop = np.full((32, 32, 3), 255, np.uint8)
    result = paste(picture, crop, similarity(0.5, 0, -5, -5), mask, retouch=darken)
    assert given == [((64, 64, 3), pytest.approx(64))]
    assert (result[40:44, 40:44] == 0).all()


def test_an_unknown_seam_is_an_error() -> None:
    picture = smooth_picture(20, 20)
    with pytest.raises(FacekitError, match="did you mean 'bands'"):
        paste(picture, picture, similarity(1, 0, 0, 0), np.ones((20, 20), np.float32), seam="band")  # type: ignore[arg-type]
