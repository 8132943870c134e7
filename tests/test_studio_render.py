"""What a studio frame shows, and whether its labels say the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekit.core.errors import FacekitError
from facekit.studio import basis, light, shading
from facekit.studio.backdrop import background, exposed
from facekit.studio.landmarks import landmarks
from facekit.studio.performance import FACE_UNITS, Performance, rotation
from facekit.studio.person import Person, neutral
from facekit.studio.render import MASKS, Camera, Render, built, met_by, model, posed, render
from facekit.studio.scene import Lamp

SIZE = 96


def frame(seed: int = 2, size: int = SIZE, **moment) -> Render:
    return render(Person.sample(seed), Performance(**moment), size)


# --- light -------------------------------------------------------------------------------------


def some_light(random) -> light.Light:
    environment = random.normal(0, 0.1, (9, 3)).astype(np.float32)
    environment[0] = 3
    return light.Light(environment, ())


def sphere(random, count):
    directions = random.normal(size=(count, 3))
    return (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)


def test_irradiance_is_the_integral_of_radiance_over_the_hemisphere():
    random = np.random.default_rng(0)
    surroundings = some_light(random)
    normals = sphere(random, 5)
    directions = sphere(random, 200_000)
    radiance = surroundings.radiance(directions)
    for normal, received in zip(normals, surroundings.irradiance(normals), strict=True):
        cosine = np.clip(directions @ normal, 0, None)
        # A mean over the sphere times 4π, over π.
        np.testing.assert_allclose(received, 4 * (radiance * cosine[:, None]).mean(0), rtol=0.01)


def test_harmonics_are_orthonormal():
    directions = sphere(np.random.default_rng(1), 400_000)
    values = light.harmonics(directions).astype(float)
    product = 4 * np.pi * values.T @ values / len(values)
    np.testing.assert_allclose(product, np.eye(9), atol=0.02)


def test_a_turned_environment_is_the_same_seen_from_turned_axes():
    random = np.random.default_rng(2)
    surroundings, directions = some_light(random), sphere(random, 50)
    turned = rotation(40, -20, 15)
    own = light.Light(surroundings.turned(turned), ())
    np.testing.assert_allclose(
        own.radiance(directions), surroundings.radiance(directions @ turned.T), atol=1e-5
    )


def test_what_stands_in_nobodys_way_gets_all_light_and_a_ceiling_takes_the_sky():
    random = np.random.default_rng(3)
    surroundings, normals = some_light(random), sphere(random, 20)
    count = len(light.DIRECTIONS)
    whole = light.transfer(normals, np.ones((20, count), np.float32))
    assert np.all(whole.share(surroundings.environment) == 1)
    below = np.tile((light.DIRECTIONS[:, 1] < 0).astype(np.float32), (20, 1))
    share = light.transfer(normals, below).share(surroundings.environment).mean(1)
    up, down = normals[:, 1] > 0.7, normals[:, 1] < -0.7
    assert share[up].max() < 0.3 < 0.8 < share[down].min()


def test_a_lamp_stands_where_its_angles_say():
    for azimuth, elevation, towards in ((0, 0, [0, 0, 1]), (90, 0, [1, 0, 0]), (0, 90, [0, 1, 0])):
        lamp = light.Lamp.placed(Lamp(azimuth=float(azimuth), elevation=float(elevation)))
        np.testing.assert_allclose(lamp.direction, towards, atol=1e-6)


def test_quick_powers_are_powers():
    values = np.linspace(-1, 1, 21)
    np.testing.assert_allclose(shading.raised(values, 3), np.maximum(values, 0) ** 8)


@pytest.mark.parametrize("side", [-1, 1])
def test_a_lamp_lights_the_side_on_which_it_stands(side):
    lamps = (Lamp(azimuth=70.0 * side, elevation=10.0, colour=(0.9, 0.9, 0.9)),)
    dim = ((0.35, 0.35, 0.35), *[(0.0, 0.0, 0.0)] * 8)
    shown = frame(7, lamps=lamps, environment=dim)
    middle = int(shown.points[2, 0])
    face = np.where(shown.masks["face"] > 127, shown.pixels.mean(2), np.nan)
    left, right = np.nanmean(face[:, :middle]), np.nanmean(face[:, middle:])
    assert (right - left) * side > 20


def test_surroundings_without_lamps_light_evenly_and_hollows_less():
    shown = frame(7, lamps=())
    at = lambda point: shown.pixels[int(point[1]), int(point[0])].astype(float).mean()  # noqa: E731
    throat = shown.landmarks[8] + [0, 0.12 * SIZE]
    cheek = (shown.landmarks[36] + shown.landmarks[48]) / 2
    assert at(cheek) > at(throat) + 8


# --- pose and camera ---------------------------------------------------------------------------


MOMENTS = {
    "at rest": {},
    "head": {"yaw": 25.0, "pitch": -8.0, "roll": 6.0},
    "neck": {"neck_yaw": -20.0, "neck_pitch": 6.0, "neck_roll": 4.0},
    "camera": {"camera_yaw": 45.0, "camera_pitch": -15.0},
    "all": {
        "yaw": 12.0,
        "neck_yaw": 9.0,
        "neck_roll": -5.0,
        "camera_yaw": 20.0,
        "camera_pitch": 10.0,
        "distance": 7.0,
        "focal": 48.0,
        "centre_x": 0.45,
        "centre_y": 0.55,
    },
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_the_camera_matrices_project_the_resting_head_onto_the_landmarks(moment):
    person = Person.sample(3)
    shown = render(person, Performance(**moment), SIZE)
    # Only what turns with the head as a whole: not the jaw's lower points, nor moved lids.
    rigid = [*range(17, 36), *range(48, 68)]
    rest = landmarks(neutral(person.model_dump_json()))[rigid]
    ahead = rest @ shown.camera_from_head[:, :3].T + shown.camera_from_head[:, 3]
    pixels = ahead @ shown.intrinsics.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    off = np.linalg.norm(pixels - shown.landmarks[rigid], axis=1)
    assert np.median(off) < 0.02 * SIZE / 96
    assert off.max() < 1.5


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_the_pose_is_that_of_the_camera_matrix(moment):
    shown = frame(3, **moment)
    turned = np.diag([1, -1, -1]) @ shown.camera_from_head[:, :3]
    np.testing.assert_allclose(turned, rotation(*shown.pose), atol=1e-4)
    assert np.linalg.det(turned) == pytest.approx(1, abs=1e-5)


def test_camera_and_head_turn_the_face_the_same_way():
    yaw = "yaw", "neck_yaw", "camera_yaw"
    for name in yaw:
        turned = frame(3, **{name: 20.0})
        assert turned.pose[0] == pytest.approx(20, abs=0.01)
        assert turned.points[2, 0] > turned.points[:2, 0].mean() + 2
    for name in ("pitch", "neck_pitch", "camera_pitch"):
        up = frame(3, **{name: 12.0})
        assert up.pose[1] == pytest.approx(12, abs=0.01)


def test_the_neck_moves_the_head_aside_and_the_camera_leaves_it_where_it_is():
    middle = lambda shown: shown.points[:2].mean(0)  # noqa: E731
    rest = middle(frame(3))
    assert middle(frame(3, neck_roll=15.0))[0] > rest[0] + 4
    assert np.linalg.norm(middle(frame(3, camera_yaw=3.0)) - rest) < 3


def test_distance_and_focal_length_together_keep_the_size_but_change_perspective():
    near, far = frame(3, distance=6.0, focal=45.0), frame(3, distance=24.0, focal=180.0)
    width = lambda shown: np.ptp(shown.points[:2, 0])  # noqa: E731
    assert width(near) == pytest.approx(width(far), rel=0.02)
    ears = lambda shown: np.ptp(shown.landmarks[[0, 16], 0])  # noqa: E731
    assert ears(near) < 0.97 * ears(far)


@given(
    distance=st.floats(4, 100),
    focal=st.floats(20, 4000),
    middle=st.tuples(st.floats(0, 512), st.floats(0, 512)),
    pixel=st.tuples(st.integers(0, 511), st.integers(0, 511)),
    depth=st.floats(1, 90),
)
def test_a_camera_sees_a_point_of_a_ray_where_the_ray_began(distance, focal, middle, pixel, depth):
    camera = Camera(distance, focal, *middle)
    at = np.array([pixel], np.float32) + 0.5
    ray = camera.rays(at[:, 0], at[:, 1]).astype(float)
    point = np.array([0, 0, distance]) + depth * ray
    np.testing.assert_allclose(camera.project(point), at, atol=0.02)


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_no_ray_that_meets_the_person_is_left_out(moment):
    """Against every ray of the picture, cast at all triangles at once."""
    person, performance = Person.sample(8), Performance(**moment)
    shown = render(person, performance, 64)
    of = model(person.model_dump_json())
    pose = posed(of, performance, 64)
    cells = np.arange(128 * 128)
    depth = np.full(128 * 128, np.inf, np.float32)
    rigid = of.rigid
    points = np.concatenate([pose.points, pose.carried(rigid.points)])
    triangles = np.concatenate([of.triangles, rigid.triangles + len(pose.points)])
    met = met_by(built(points, triangles), pose.camera.finer(2), cells, 128)
    depth[met.cells] = met.far
    expected = depth.reshape(64, 2, 64, 2).min((1, 3))
    same = np.isclose(shown.depth, expected, atol=1e-3) | (shown.depth == expected)
    # A ray through the seam of two triangles may slip between them in one scene.
    assert same.mean() > 0.999


# --- truth -------------------------------------------------------------------------------------


def test_five_points_and_seventy_landmarks_lie_on_the_face():
    shown = frame(3, size=128)
    left, right, nose, mouth_left, mouth_right = shown.points
    assert left[0] < nose[0] < right[0]
    assert mouth_left[0] < nose[0] < mouth_right[0]
    assert left[1] < nose[1] < mouth_left[1]
    marks = shown.landmarks
    assert marks.shape == (70, 2)
    assert shown.visible.shape == (70,)
    assert shown.visible.dtype == bool
    assert np.all(np.diff(marks[:17, 0]) > 0)
    assert np.all(np.diff(marks[27:31, 1]) > 0)
    np.testing.assert_allclose(marks[[48, 54]], [mouth_left, mouth_right])
    np.testing.assert_allclose(marks[68:], [left, right], atol=2)


def test_landmarks_on_the_far_side_are_hidden():
    front, turned = frame(14), frame(14, camera_yaw=55.0)
    assert front.visible.mean() > 0.85
    assert turned.visible[[0, 1, 2, 36]].sum() + turned.visible[[14, 15, 16, 45]].sum() <= 4
    # The face is turned to the viewer's right: what hides is on the right.
    assert turned.visible[:8].sum() > turned.visible[9:17].sum()
    assert not frame(14, centre_x=0.0).visible[36]


def test_closed_lids_hide_the_irises_and_gaze_moves_them():
    shut = frame(14, expression={"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0})
    assert not shut.visible[68:].any()
    away, rest = frame(14, gaze_x=15.0), frame(14)
    assert rest.visible[68:].all()
    assert np.all(away.landmarks[68:, 0] > rest.landmarks[68:, 0] + 0.7)


def test_masks_cover_the_person_once():
    person = Person.sample(8).model_copy(update={"glasses": "none"})
    shown = render(person, Performance(expression={"jawOpen": 0.7}), 128)
    assert tuple(shown.masks) == MASKS
    assert all(mask.shape == (128, 128) for mask in shown.masks.values())
    assert all(mask.dtype == np.uint8 for mask in shown.masks.values())
    parts = [shown.masks[name].astype(int) for name in ("skin", "hair", "eyes", "mouth", "cloth")]
    total = sum(parts)
    inside = np.isfinite(shown.depth)
    assert total[~inside].max() == 0
    # At the outline, and among single hairs, pixels are covered in part.
    assert np.mean(total[inside] > 200) > 0.9
    assert total.max() <= 258
    assert np.all(shown.masks["teeth"] <= shown.masks["mouth"].astype(int) + 1)
    assert shown.masks["mouth"].astype(int).sum() > 255 * 20
    assert set(np.unique(shown.face_mask)) == {0, 255}
    for mark in (30, 33, 8, 68, 69):
        if shown.visible[mark]:
            x, y = shown.landmarks[mark] - [0, 1.5 * (mark == 8)]
            assert shown.masks["face"][int(y), int(x)] > 0


def test_depth_is_the_distance_along_the_axis():
    shown = frame(3, distance=9.0)
    nose = shown.points[2]
    behind_ears = shown.depth[np.isfinite(shown.depth)]
    at_nose = shown.depth[int(nose[1]), int(nose[0])]
    assert 8 < at_nose < 9.2
    assert at_nose < behind_ears.min() + 0.25
    assert np.isinf(shown.depth[0, 0])
    assert shown.depth.dtype == np.float32
    # Against the camera matrix, at a landmark on smooth skin.
    rest = landmarks(neutral(shown.person.model_dump_json()))[27]
    ahead = shown.camera_from_head[:, :3] @ rest + shown.camera_from_head[:, 3]
    x, y = shown.landmarks[27]
    assert shown.depth[int(y), int(x)] == pytest.approx(ahead[2], abs=0.06)


def test_expression_and_identity_are_those_that_were_asked_for():
    shown = frame(5, expression={"jawOpen": 0.5, "mouthSmileLeft": 0.25})
    assert shown.expression.shape == (52,)
    assert shown.expression[FACE_UNITS.index("jawOpen")] == 0.5
    assert shown.expression.sum() == 0.75
    np.testing.assert_array_equal(shown.identity, Person.sample(5).vector)


def test_an_open_mouth_shows_teeth_and_a_shut_one_none():
    opened = frame(14, size=128, expression={"jawOpen": 0.6, "mouthUpperUpLeft": 0.8})
    assert opened.masks["mouth"].astype(int).sum() > 4 * frame(14, size=128).masks["mouth"].sum()


# --- pictures ----------------------------------------------------------------------------------


def test_two_people_in_one_performance_share_all_but_themselves():
    performance = Performance.sample(5).model_copy(update={"noise": 0.0, "blur": 0.0})
    a, b = (render(Person.sample(seed), performance, SIZE) for seed in (0, 1))
    assert a.pose == b.pose
    np.testing.assert_array_equal(a.expression, b.expression)
    np.testing.assert_array_equal(a.intrinsics, b.intrinsics)
    outside = np.isinf(a.depth) & np.isinf(b.depth)
    assert outside.any()
    np.testing.assert_array_equal(a.pixels[outside], b.pixels[outside])
    both = (a.face_mask > 0) & (b.face_mask > 0)
    assert np.abs(a.pixels[both].astype(int) - b.pixels[both]).mean() > 8


def test_the_same_arguments_give_the_same_bytes_in_any_order():
    performance = Performance.sample(9)
    first = frame_bytes(4, performance)
    frame_bytes(5, performance)
    assert frame_bytes(4, performance) == first


def frame_bytes(seed, performance):
    shown = render(Person.sample(seed), performance, 64)
    return shown.pixels.tobytes(), shown.depth.tobytes(), shown.masks["face"].tobytes()


def test_noise_has_the_deviation_it_says_at_mid_grey_and_blur_softens():
    grey = np.full((256, 256, 3), 0.18, np.float32)
    plain = exposed(grey, Performance())
    assert np.unique(plain).size == 1
    few = exposed(grey, Performance(noise=0.01)).astype(float)
    # The curve's slope at mid grey, from the encoder itself.
    slope = (float(exposed(grey + 0.01, Performance()).mean()) - float(plain.mean())) / 0.01
    assert few.std() == pytest.approx(0.01 * slope, rel=0.1)
    assert not np.array_equal(few, exposed(grey, Performance(noise=0.01, background=1)))
    assert not np.array_equal(few, exposed(grey, Performance(noise=0.01, time=0.04)))
    edge = np.zeros((64, 64, 3), np.float32)
    edge[:, 32:] = 0.5
    steps = [
        np.abs(np.diff(exposed(edge, Performance(blur=blur))[32, :, 0].astype(int))).max()
        for blur in (0.0, 0.02)
    ]
    assert steps[1] < 0.6 * steps[0]


def test_encoding_rises_with_light_and_ends_at_white():
    ramp = np.tile(np.linspace(0, 6, 256, dtype=np.float32)[None, :, None], (4, 1, 3))
    row = exposed(ramp, Performance())[0, :, 0].astype(int)
    assert row[0] <= 1
    assert row[-1] == 255
    assert np.all(np.diff(row) >= 0)


def test_backgrounds_differ_by_seed_and_keep_their_brightness():
    seen = [background(Performance(background=seed), 64) for seed in range(12)]
    assert all(back.shape == (64, 64, 3) for back in seen)
    assert len({back.tobytes() for back in seen}) == 12
    means = [float(back.mean()) for back in seen]
    assert 0.1 < np.median(means) < 0.6
    dark = background(Performance(background=3, background_colour=(0.02, 0.02, 0.02)), 64)
    assert dark.mean() < 0.15


@pytest.mark.parametrize("size", [0, 15, 2049])
def test_a_size_out_of_range_is_refused(size):
    with pytest.raises(FacekitError, match="16 to 2048"):
        render(Person.sample(0), Performance(), size)


def test_odd_sizes_render_too():
    assert frame(3, size=57).pixels.shape == (57, 57, 3)


def test_the_inner_face_ends_at_brows_chin_and_throat():
    places = np.array(
        [[0, 7.0, 1.3], [0, 7.7, 1.2], [0.8, 7.0, 0.3], [0, 6.4, 0.5], [0, 6.1, 1.1]], np.float32
    )
    inside = shading.inner_depth(places) > 0
    assert inside.tolist() == [True, False, False, False, False]
    # Skin that faces the ground behind the jaw's edge is its underside.
    head = basis.load()
    down = basis.normals(head.vertices, head.triangles)[:, 1] < -0.6
    skin = np.isin(np.arange(len(down)), head.triangles[head.materials == basis.SKIN])
    x, y, z = np.abs(head.vertices).T
    under = down & skin & (head.mouth < 0.5) & (y < 6.5) & (z < 1.05) & (x > 0.2)
    assert under.sum() > 20
    assert shading.inner_depth(head.vertices[under]).max() < 0
    share = shading.inner_share(basis.load().vertices)
    assert share.min() == 0
    assert share.max() == 1
