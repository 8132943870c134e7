"""How well a face can be seen: what is known to have been done to a picture is the oracle."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.data
from faces_of_noise import landmarks_at
from hypothesis import given, settings
from hypothesis import strategies as st

from facekit.core.errors import FacekitError
from facekit.faces.quality import measure
from facekit.types import Face, Quality

POINTS = np.array([[204, 112], [251, 110], [230, 138], [210, 156], [249, 155]], np.float32)
FACE = Face(box=np.array([177, 63, 275, 190], np.float32), points=POINTS, score=1.0)


def quality(pixels, face=FACE) -> Quality:
    (((one,),)) = measure([pixels], [[face]])
    assert one.quality is not None
    return one.quality


def blurred(pixels, hundredths, noise=0.0):
    picture = pixels.astype(np.float32)
    if hundredths:
        sigma = hundredths / 100 * FACE.size
        picture = cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    picture = picture + np.random.default_rng(0).normal(0, noise, picture.shape)
    return picture.round().clip(0, 255).astype(np.uint8)


def jpeg(pixels, percent):
    written = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, percent])[1]
    return np.ascontiguousarray(cv2.imdecode(written, cv2.IMREAD_COLOR)[..., ::-1])


def moved(face, x, y):
    shift = np.array([x, y], np.float32)
    landmarks = face.landmarks and replace(face.landmarks, points=face.landmarks.points + shift)
    return replace(
        face, box=face.box + np.tile(shift, 2), points=face.points + shift, landmarks=landmarks
    )


def scaled(face, factor):
    return replace(face, box=np.float32(face.box * factor), points=np.float32(face.points * factor))


def with_landmarks(yaw=0.0, hidden=()):
    """The face with 70 landmarks on a line within the picture, some of them hidden."""
    visible = np.ones(70, np.float32)
    visible[list(hidden)] = 0
    points = np.linspace([180, 120], [270, 180], 70)
    return replace(FACE, landmarks=landmarks_at(points, visible=visible, pose=(yaw, -4.0, 2.0)))


@pytest.fixture(scope="module")
def photo():
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def studio():
    """Frames of two people who don't exist, whose faces' place is known to the hundredth."""
    from facekit.studio.performance import Performance
    from facekit.studio.person import Person
    from facekit.studio.render import render

    shown = []
    for seed in (3, 14):
        frame = render(Person.sample(seed), Performance(), size=192)
        eyes = np.linalg.norm(frame.points[1] - frame.points[0])
        x, y = frame.points[2]
        half = eyes * np.array([1.1, 1.5])
        box = np.array([x - half[0], y - half[1], x + half[0], y + half[1]], np.float32)
        shown.append((frame.pixels, Face(box=box, points=frame.points, score=1.0)))
    return shown


# --- blur


@pytest.mark.parametrize("noise", [0, 6])
def test_blur_is_the_deviation_of_the_gaussian_that_blurred_the_face(photo, noise):
    amounts = [1, 1.5, 2, 3, 4, 6]
    found = [quality(blurred(photo, amount, noise)).blur for amount in amounts]
    assert found == sorted(found)
    for amount, blur in zip(amounts, found, strict=True):
        assert 0.6 * amount < blur < 1.6 * amount
    assert quality(photo).blur < found[0]


def test_blur_grows_with_the_blur_of_studio_faces(studio):
    for pixels, face in studio:
        found = [
            quality(cv2.GaussianBlur(pixels, (0, 0), amount / 100 * face.size), face).blur
            for amount in (0.75, 1, 1.5, 2, 3, 4, 6)
        ]
        assert found == sorted(found)
        assert 0.5 < found[1] < 1.8 and 1.8 < found[4] < 5


@pytest.mark.parametrize("factor", [2, 3.3])
def test_blur_goes_by_the_face_not_by_the_picture(photo, factor):
    soft = blurred(photo, 2.5)
    large = cv2.resize(soft, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    assert quality(large, scaled(FACE, factor)).blur == pytest.approx(quality(soft).blur, rel=0.2)


def test_light_and_noise_are_not_taken_for_sharpness(photo):
    soft = blurred(photo, 2)
    darker = (soft * 0.5).astype(np.uint8)
    assert quality(darker).blur == pytest.approx(quality(soft).blur, rel=0.15)
    assert quality(blurred(photo, 2, noise=10)).blur == pytest.approx(quality(soft).blur, rel=0.35)


def test_a_flat_picture_is_as_blurred_as_can_be(photo):
    flat = quality(np.full_like(photo, 90))
    assert flat.blur > quality(blurred(photo, 6)).blur
    assert flat.exposure == pytest.approx(90 / 255, abs=1e-3)
    assert (flat.clipped, flat.compression, flat.occlusion) == (0, 0, 0)


# --- light


def test_exposure_and_clipping_follow_the_gain(photo):
    gains = [0.2, 0.4, 0.7, 1.0, 1.5, 2.5, 5.0]
    found = [quality((photo * g).clip(0, 255).astype(np.uint8)) for g in gains]
    exposures = [q.exposure for q in found]
    assert exposures == sorted(exposures)
    assert exposures[1] == pytest.approx(0.4 * exposures[3], rel=0.03)
    bright = [q.clipped for q in found[3:]]
    assert bright == sorted(bright)
    assert bright[0] < 0.05 and bright[-1] > 0.5
    dark = [quality((photo * g).astype(np.uint8)).clipped for g in (0.5, 0.1, 0.02)]
    assert dark == sorted(dark) and dark[-1] > 0.9


def test_only_the_face_counts(photo):
    elsewhere = photo.copy()
    elsewhere[250:], elsewhere[:, 330:] = 255, 0
    assert quality(elsewhere) == quality(photo)


# --- compression


@pytest.mark.parametrize("corner", [(0, 0), (3, 5), (7, 2)])
def test_compression_grows_as_jpegs_quality_falls(photo, corner):
    x, y = corner
    face = moved(FACE, -x, -y)
    found = [
        quality(np.ascontiguousarray(jpeg(photo, percent)[y:, x:]), face).compression
        for percent in (95, 70, 50, 30, 15, 5)
    ]
    assert found == sorted(found)
    assert found[0] < 0.05 and 0.1 < found[3] < found[4] < found[5] < 1
    assert quality(np.ascontiguousarray(photo[y:, x:]), face).compression < 0.03


@pytest.mark.parametrize("factor", [2 / 3, 1.25, 1.5, 2])
def test_blocks_are_found_after_scaling(photo, factor):
    by_quality = []
    for percent in (100, 30, 5):
        picture = cv2.resize(
            jpeg(photo, percent), None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR
        )
        by_quality.append(quality(picture, scaled(FACE, factor)).compression)
    assert by_quality[0] < 0.04
    assert by_quality[0] < by_quality[2] and by_quality[1] <= by_quality[2]
    assert by_quality[2] > 0.1


def test_studio_frames_have_no_blocks_and_get_them(studio):
    for pixels, face in studio:
        assert quality(pixels, face).compression < 0.05
        found = [quality(jpeg(pixels, percent), face).compression for percent in (40, 20, 8)]
        assert found == sorted(found) and found[-1] > 0.25


# --- occlusion and pose


def test_a_face_cut_by_the_border_is_occluded_by_what_is_missing(photo):
    found = []
    for x in (0, 190, 215, 240, 265):
        found.append(quality(photo[:, x:], moved(FACE, -x, 0)).occlusion)
    assert found == sorted(found)
    assert found[0] == 0
    # The circle about the face is cut near its middle, and then almost wholly.
    middle = quality(photo[:, 228:], moved(FACE, -228, 0)).occlusion
    assert middle == pytest.approx(0.5, abs=0.05)
    assert found[-1] > 0.85


@pytest.mark.parametrize(("x", "y"), [(-900, 0), (900, 0), (0, 2000), (-5000, -5000)])
def test_a_face_outside_of_the_picture_is_wholly_occluded(photo, x, y):
    found = quality(photo, moved(FACE, x, y))
    assert found.occlusion == 1
    assert np.isfinite([found.blur, found.exposure, found.clipped, found.compression]).all()


def test_hidden_landmarks_count_by_the_part_of_the_face():
    pixels = np.full((300, 300, 3), 90, np.uint8)
    assert quality(pixels, with_landmarks()).occlusion == 0
    mouth = quality(pixels, with_landmarks(hidden=range(48, 68))).occlusion
    eyes = quality(
        pixels, with_landmarks(hidden=[*range(17, 27), *range(36, 48), 68, 69])
    ).occlusion
    everything = quality(pixels, with_landmarks(hidden=range(70))).occlusion
    assert mouth == pytest.approx(1 / 5)
    assert eyes == pytest.approx(2 / 5)
    assert everything == 1


def test_what_a_turned_head_hides_of_itself_is_not_occlusion():
    pixels = np.full((300, 300, 3), 90, np.uint8)
    # Turned to the viewer's right, the picture's right side of the face goes out of sight.
    far = [*range(9, 17), *range(22, 27), *range(42, 48), *range(52, 57), 63, 64, 65, 69]
    assert quality(pixels, with_landmarks(yaw=45, hidden=far)).occlusion == 0
    assert quality(pixels, with_landmarks(yaw=-45, hidden=far)).occlusion > 0.5
    assert quality(pixels, with_landmarks(yaw=0, hidden=far)).occlusion > 0.3


def test_landmarks_outside_of_the_picture_are_hidden():
    face = with_landmarks()
    pixels = np.full((150, 300, 3), 90, np.uint8)  # ends in the middle of the line of landmarks
    assert quality(pixels, face).occlusion > 0.4


def test_pose_is_that_of_the_landmarks(photo):
    assert quality(photo, with_landmarks(yaw=12.5)).pose == (12.5, -4.0, 2.0)
    assert quality(photo).pose is None


# --- the whole


def test_faces_keep_all_else_and_their_order(photo):
    other = moved(FACE, 30, 20)
    measured = measure([photo, photo[:200], photo], [[FACE, other], [], [FACE]])
    assert [len(faces) for faces in measured] == [2, 0, 1]
    assert replace(measured[0][1], quality=None) is not other
    assert measured[0][1].points is other.points
    assert measured[0][0].quality == measured[2][0].quality != measured[0][1].quality
    assert measured[0][0].quality.size == FACE.size
    assert FACE.quality is None


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.floats(-100, 150),
    st.floats(-100, 150),
    st.floats(0.02, 3),
    st.floats(-180, 180),
    st.integers(0, 2**32 - 1),
)
def test_any_face_in_any_picture_is_measured_within_range(shape, x, y, zoom, degrees, seed):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (*shape, 3), np.uint8)
    angle = np.radians(degrees)
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = ((POINTS - POINTS.mean(0)) @ turn.T + [x, y]).astype(np.float32)
    box = np.concatenate([points.min(0), points.max(0)])
    found = quality(pixels, Face(box=box, points=points, score=1.0))
    assert np.isfinite(found.blur) and found.blur >= 0
    for share in (found.exposure, found.clipped, found.occlusion, found.compression):
        assert 0 <= share <= 1


def test_a_face_without_extent_is_named(photo):
    nowhere = replace(FACE, points=np.ones((5, 2), np.float32))
    with pytest.raises(FacekitError, match="apart"):
        measure([photo], [[nowhere]])
