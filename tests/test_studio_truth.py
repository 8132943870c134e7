"""Swaps and flow against what must hold of them, by other ways than theirs."""

import cv2
import numpy as np
import pytest

from facekit.core.errors import FacekitError
from facekit.studio import shading
from facekit.studio.landmarks import landmarks
from facekit.studio.performance import Performance
from facekit.studio.person import Person, neutral
from facekit.studio.render import Render, render
from facekit.studio.truth import Flow, flow, swap

SIZE = 160


def person(seed: int, **changes) -> Person:
    return Person.sample(seed).model_copy(update=changes)


def still(person: Person, **moment) -> Render:
    return render(person, Performance(**moment), SIZE)


# --- swap --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swapped() -> tuple[Render, Render, Render]:
    """A's own frame, B's own frame, and A swapped into B's."""
    moment = {"yaw": 12.0, "camera_pitch": 4.0, "expression": {"mouthSmileLeft": 0.5}}
    a, b = person(11), person(1)
    frame_of_b = still(b, **moment)
    return still(a, **moment), frame_of_b, swap(a, frame_of_b)


@pytest.mark.parametrize(
    ("who", "moment"),
    [
        (person(8), {"yaw": -10.0, "noise": 0.01}),
        (person(3, beard="full", sex=1.0, glasses="round"), {"expression": {"jawOpen": 0.5}}),
    ],
)
def test_a_swap_with_oneself_is_ones_own_frame(who, moment):
    own = still(who, **moment)
    same = swap(who, own)
    for name in ("pixels", "depth", "landmarks", "points", "visible", "identity"):
        np.testing.assert_array_equal(getattr(same, name), getattr(own, name), err_msg=name)
    for name, mask in own.masks.items():
        np.testing.assert_array_equal(same.masks[name], mask, err_msg=name)


def test_outside_the_face_a_swap_is_bs_own_frame(swapped):
    _, own, result = swapped
    changed = (own.masks["face"] > 0) | (result.masks["face"] > 0)
    near = cv2.dilate(changed.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    difference = np.abs(result.pixels.astype(int) - own.pixels).max(2)
    # Beyond a few pixels only the new face's shadows may differ, and few see them.
    assert np.mean(difference[~near] > 2) < 0.01
    assert difference[np.isinf(own.depth) & np.isinf(result.depth)].max() == 0
    assert difference[result.masks["hair"] == 255].mean() < 1
    for name in ("hair", "cloth"):
        apart = np.abs(result.masks[name].astype(int) - own.masks[name])
        assert np.mean(apart > 64) < 0.002


@pytest.mark.parametrize("yaw", [5.0, -45.0])
def test_without_shadows_a_swap_changes_nothing_beyond_its_mask(yaw):
    """At the outline too, where a smaller face uncovers what was behind the larger one."""
    for a, b in ((person(2), person(30)), (person(6), person(14))):
        own = still(b, camera_yaw=yaw, lamps=())
        result = swap(a, own)
        difference = np.abs(result.pixels.astype(int) - own.pixels).max(2)
        assert difference[result.masks["face"] == 0].max() <= 4
        assert difference[result.masks["face"] > 0].max() > 40


def test_a_swap_has_bs_beard_in_bs_colour():
    hair = {"hair_name": "black", "hair_colour": (0.01, 0.008, 0.006), "hair": "crop"}
    a = person(11, sex=1.0, beard="full", skin_tone=3, glasses="none", **hair)
    b = person(1, sex=1.0, beard="stubble", skin_tone=3, glasses="none")
    fair = b.model_copy(update={"hair_name": "white", "hair_colour": (0.6, 0.58, 0.55)})

    def darkening(of_b):
        own = still(of_b, lamps=())
        x, y = own.landmarks[8] * 0.4 + own.landmarks[57] * 0.6
        chin = np.s_[int(y) - 2 : int(y) + 3, int(x) - 3 : int(x) + 4]
        return own.pixels[chin].mean() - swap(a, own).pixels[chin].mean()

    assert abs(darkening(fair)) < 12


def test_inside_the_face_a_swap_changes_the_picture(swapped):
    _, own, result = swapped
    inside = result.masks["face"] == 255
    difference = np.abs(result.pixels.astype(int) - own.pixels).max(2)
    assert np.mean(difference[inside]) > 4
    assert result.pose == own.pose
    assert result.performance == own.performance
    np.testing.assert_array_equal(result.camera_from_head, own.camera_from_head)


def test_the_inner_faces_shape_moves_to_a(swapped):
    """Resting landmarks, brought together by a similarity of their own, as the judge."""
    of_a, own, result = swapped
    inner = [*range(19, 25), *range(27, 68)]

    def shape(frame):
        points = frame.landmarks[inner].astype(float)
        points = points - points.mean(0)
        return points / np.linalg.norm(points)

    def apart(p, q):
        return np.linalg.norm(shape(p) - shape(q))

    assert apart(result, of_a) < 0.5 * apart(result, own)
    # The rim stays B's.
    rim = [0, 1, 15, 16]
    np.testing.assert_allclose(result.landmarks[rim], own.landmarks[rim], atol=0.01)


def test_a_swap_names_both_and_carries_as_identity(swapped):
    of_a, own, result = swapped
    assert result.person == own.person
    assert result.inner == of_a.person
    np.testing.assert_array_equal(result.identity, of_a.identity)


def test_a_swap_has_bs_complexion_and_as_irises():
    a = person(11, skin_tone=2, glasses="none", iris=(0.02, 0.3, 0.02))
    b = person(1, skin_tone=8, glasses="none", iris=(0.3, 0.02, 0.02))
    wide = {"focal": 150.0, "expression": {"eyeWideLeft": 0.7, "eyeWideRight": 0.7}}
    own = still(b, **wide)
    result, of_a = swap(a, own), still(a, **wide)

    def cheek(frame):
        x, y = (frame.landmarks[36] + frame.landmarks[48]) / 2
        return frame.pixels[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3].mean((0, 1))

    assert np.abs(cheek(result) - cheek(own)).max() < 0.35 * np.abs(cheek(of_a) - cheek(own)).max()

    def greenness(frame):
        x, y = frame.landmarks[68]
        eye = frame.pixels[int(y) - 3 : int(y) + 4, int(x) - 4 : int(x) + 5].astype(float)
        return (eye[..., 1] - eye[..., 0]).mean()

    assert greenness(result) > 2 > -2 > greenness(own)


def test_a_swap_has_no_seam_of_tone():
    """Across the mask's border the picture is no rougher than B's own."""
    own = still(person(1, skin_tone=8, beard="none", freckles=0.0), lamps=())
    result = swap(person(11, skin_tone=1, beard="none", freckles=0.0), own)
    mask = (result.masks["face"] > 127).astype(np.uint8)
    border = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    border &= (result.masks["skin"] == 255) & (own.masks["skin"] == 255)

    def roughness(frame):
        grey = frame.pixels.astype(np.float32).mean(2)
        slope = np.hypot(
            cv2.Sobel(grey, -1, 1, 0, scale=0.125), cv2.Sobel(grey, -1, 0, 1, scale=0.125)
        )
        return np.median(slope[border])

    assert roughness(result) < roughness(own) + 1.5


# --- flow --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moved() -> tuple[Render, Render, Flow]:
    """Two moments of a person in even light, and the flow between them."""
    one = person(11, glasses="none")
    moments: list[dict] = [
        {"yaw": -6.0, "expression": {"jawOpen": 0.1}},
        {
            "yaw": 8.0,
            "neck_roll": 6.0,
            "camera_yaw": 6.0,
            "gaze_x": 8.0,
            "centre_x": 0.47,
            "expression": {"jawOpen": 0.5, "mouthSmileLeft": 0.7, "browInnerUp": 0.6},
        },
    ]
    first, second = (still(one, lamps=(), **moment) for moment in moments)
    return first, second, flow(first, second)


def test_flow_from_a_frame_to_itself_is_nothing():
    one = still(person(3), yaw=5.0)
    result = flow(one, one)
    assert result.vectors.dtype == np.float32
    assert np.abs(result.vectors).max() < 0.01
    inside = cv2.erode(np.isfinite(one.depth).astype(np.uint8), np.ones((5, 5))) > 0
    assert result.visible[inside].mean() > 0.98
    # Single hairs lie between the rays of one and the pixels' centres of the other.
    assert result.visible[np.isinf(one.depth)].mean() < 0.01


def test_flow_warps_one_frame_onto_the_other(moved):
    first, second, result = moved
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    # OpenCV's pixel centres lie at whole numbers: both ends shift alike.
    warped = cv2.remap(
        second.pixels, x + result.vectors[..., 0], y + result.vectors[..., 1], cv2.INTER_LINEAR
    )
    kept = result.visible & (first.masks["skin"] == 255)
    with_flow = np.abs(warped.astype(int) - first.pixels)[kept].mean()
    without = np.abs(second.pixels.astype(int) - first.pixels)[kept].mean()
    assert kept.mean() > 0.1
    assert with_flow < 5
    assert with_flow < 0.3 * without


def test_flow_carries_landmarks_onto_landmarks(moved):
    """Landmarks are projected without rays: an independent way to the same places."""
    first, second, result = moved
    both = first.visible & second.visible
    both[68:] = False  # Irises: tested below.
    at = first.landmarks[both]
    vectors = cv2.remap(
        result.vectors,
        at[:, 0].reshape(1, -1) - 0.5,
        at[:, 1].reshape(1, -1) - 0.5,
        cv2.INTER_LINEAR,
    )[0]
    off = np.linalg.norm(at + vectors - second.landmarks[both], axis=1)
    assert both.sum() > 40
    assert np.median(off) < 0.35
    # At the jaw's edge and the lips' line, neighbouring pixels lie on another surface.
    assert np.mean(off < 1.5) > 0.85


def test_flow_of_a_turned_head_is_a_projection(moved):
    """Hair and skull against the two camera matrices and the depth alone."""
    one = person(11, glasses="none")
    first, second = still(one, yaw=-8.0), still(one, yaw=6.0, pitch=5.0, camera_yaw=5.0)
    result = flow(first, second)
    chosen = (first.masks["hair"] == 255) & result.visible
    y, x = np.nonzero(chosen)
    pixels = np.stack([x + 0.5, y + 0.5, np.ones_like(x)], 1)
    ahead = (pixels @ np.linalg.inv(first.intrinsics).T) * first.depth[y, x][:, None]
    turned, shift = first.camera_from_head[:, :3], first.camera_from_head[:, 3]
    rest = (ahead - shift) @ turned
    there = rest @ second.camera_from_head[:, :3].T + second.camera_from_head[:, 3]
    seen = there @ second.intrinsics.T
    expected = seen[:, :2] / seen[:, 2:] - pixels[:, :2]
    off = np.linalg.norm(expected - result.vectors[y, x], axis=1)
    assert len(off) > 200
    assert np.median(off) < 0.25  # The depth is the nearest of four rays.


def test_flow_follows_the_gaze():
    one = person(11, glasses="none")
    wide = {"focal": 160.0, "expression": {"eyeWideLeft": 0.7, "eyeWideRight": 0.7}}
    first, second = still(one, **wide), still(one, **wide, gaze_x=10.0)
    result = flow(first, second)
    for mark in (68, 69):
        x, y = first.landmarks[mark].astype(int)
        moved = second.landmarks[mark] - first.landmarks[mark]
        assert moved[0] > 1.5
        np.testing.assert_allclose(result.vectors[y, x], moved, atol=0.6)
    cheek = ((first.landmarks[36] + first.landmarks[48]) / 2).astype(int)
    assert np.abs(result.vectors[cheek[1], cheek[0]]).max() < 0.05


def test_what_turns_away_is_not_visible():
    one = person(11, glasses="none")
    front, turned = still(one), still(one, camera_yaw=55.0)
    result = flow(front, turned)
    # Turned to the viewer's right, the right cheek goes out of sight.
    right = ((front.landmarks[15] + front.landmarks[14]) / 2 - [2, 0]).astype(int)
    left = ((front.landmarks[36] + front.landmarks[48]) / 2).astype(int)
    assert not result.visible[right[1], right[0]]
    assert result.visible[left[1], left[0]]


def test_flow_within_a_swap_uses_the_swapped_shape():
    b = person(1)
    frames = [still(b, yaw=yaw) for yaw in (0.0, 8.0)]
    first, second = (swap(person(11), frame) for frame in frames)
    result = flow(first, second)
    x, y = first.landmarks[30].astype(int)
    moved = second.landmarks[30] - first.landmarks[30]
    np.testing.assert_allclose(result.vectors[y, x], moved, atol=0.5)
    with pytest.raises(FacekitError, match="one person"):
        flow(first, frames[1])


def test_flow_between_two_people_or_sizes_is_refused():
    first = still(person(3))
    with pytest.raises(FacekitError, match="person 3 and person 4"):
        flow(first, still(person(4)))
    with pytest.raises(FacekitError, match="160 and 64 pixels"):
        flow(first, render(person(3), Performance(), 64))


def test_swapped_landmarks_are_those_of_the_blended_head():
    """At rest, from the two heads and the weight alone: deep inside it is A's, scaled to fit."""
    a, b = person(11), person(1)
    result = swap(a, still(b))
    ours = landmarks(neutral(a.model_dump_json()))
    shares = shading.inner_share(landmarks(_neutral_places()))
    deep = np.flatnonzero(shares == 1)
    assert len(deep) > 25
    size = lambda points: np.linalg.norm(points - points.mean(0))  # noqa: E731
    flat = result.landmarks[deep] - result.landmarks[deep].mean(0)
    wanted = (ours[deep, :2] - ours[deep, :2].mean(0)) * [1, -1]
    cosine = (flat * wanted).sum() / size(result.landmarks[deep]) / size(ours[deep, :2])
    assert cosine > 0.995


def _neutral_places() -> np.ndarray:
    from facekit.studio import basis

    return basis.load().vertices
