"""The landmark network: what it reads, of whom, how surely; and the lesson that teaches it."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from skimage.transform import SimilarityTransform

from facekit.cli import cli
from facekit.core.errors import FacekitError
from facekit.core.seed import rng, seed_step
from facekit.core.weights import find
from facekit.datasets.studio import StudioFaces
from facekit.faces import landmarks as reader
from facekit.faces.align import TEMPLATES, apply, crop_from_image, invert
from facekit.faces.landmarks import (
    MIRROR,
    SIZE,
    WEIGHTS,
    Landmarker,
    LandmarkNet,
    box_of,
    crop_matrices,
    five_points,
    fold,
    laid_on,
    mean_face_points,
)
from facekit.faces.locate import load_locator
from facekit.studio import basis, rotations, teach
from facekit.studio.landmarks import landmarks as head_landmarks
from facekit.studio.lessons import landmarks as lesson
from facekit.studio.performance import FACE_UNITS, Performance
from facekit.studio.person import Person
from facekit.studio.render import Render, render
from facekit.types import Face, Pixels

CPU = torch.device("cpu")
TINY = ["people=3", "held_out=1", "frames=2", "size=96", "drilled=1", "steps=3", "facts_steps=1"]
TINY += ["batch=5", "cycles=1", "warm_up=1", "checkpoint_every=2", "look_every=4"]


@pytest.fixture(scope="module")
def landmarker() -> Landmarker:
    return Landmarker(CPU)


@pytest.fixture(scope="module")
def frames() -> list[Render]:
    """Eight photos of four people whom the network has not met."""
    people = [Person.sample(900_000 + i) for i in range(4)]
    return [
        render(person, Performance.sample(31 * i + j), 224)
        for i, person in enumerate(people)
        for j in range(2)
    ]


def face_at(points: Any) -> Face:
    five = np.asarray(points, np.float32)
    low, high = five.min(0), five.max(0)
    return Face(box=np.concatenate([low, high]), points=five, score=1.0)


def read(landmarker: Landmarker, pixels: Pixels, points: Any) -> Face:
    ((face,),) = landmarker.read([pixels], [[face_at(points)]])
    return face


def turned(degrees: float, scale: float) -> Any:
    """What turns and scales points of a plane: (2, 2)."""
    angle = np.radians(degrees)
    return scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def between_eyes(points: Any) -> float:
    return float(np.linalg.norm(points[36] - points[45]))


# --- Reading ---


def test_it_reads_people_it_has_not_met(landmarker: Landmarker, frames: list[Render]) -> None:
    found = landmarker.read(
        [frame.pixels for frame in frames], [[face_at(frame.points)] for frame in frames]
    )
    errors, scores, angles, units = [], [], [], []
    for frame, (face,) in zip(frames, found, strict=True):
        marks = face.landmarks
        assert marks is not None
        assert marks.points.shape == (70, 2) and marks.points.dtype == np.float32
        assert marks.deviation.shape == marks.visible.shape == (70,)
        assert marks.presence > 0.9
        away = np.linalg.norm(marks.points - frame.landmarks, axis=1)
        errors.append(away[:68].mean() / between_eyes(frame.landmarks))
        scores.append((away**2 / (2 * marks.deviation**2)).mean())
        true, said = (rotations.rotation(*pose) for pose in (frame.pose, marks.pose))
        angles.append(np.degrees(np.arccos(np.clip((np.trace(true @ said.T) - 1) / 2, -1, 1))))
        units.append(np.abs(marks.expression - frame.expression).mean())
    assert np.mean(errors) < 0.035 and max(errors) < 0.07
    # The deviations are true: errors are about as large as they say.
    assert 0.4 < np.sqrt(np.mean(scores)) < 2
    assert np.mean(angles) < 6
    assert np.mean(units) < 0.09


def test_a_real_face_is_read_near_where_mtcnn_sees_it(landmarker: Landmarker) -> None:
    astronaut = data.astronaut()
    (located,) = load_locator(CPU).locate([astronaut])
    ((face,),) = landmarker.read([astronaut], [located[:1]])
    marks = face.landmarks
    assert marks is not None and marks.presence > 0.9
    away = np.linalg.norm(face.points - located[0].points, axis=1)
    assert away.max() < 0.12 * between_eyes(marks.points)
    assert marks.eyes.min() > 0.15  # They are open, …
    smile = marks.expression[[FACE_UNITS.index(f"mouthSmile{s}") for s in ("Left", "Right")]]
    assert smile.min() > 0.25  # … and she smiles.
    assert overlap(face.box, located[0].box) > 0.75


def overlap(a: Any, b: Any) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    return common / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common)


def test_eyes_close(landmarker: Landmarker) -> None:
    person = Person.sample(900_001)
    moment = Performance(camera_yaw=5, distance=8)
    said = {}
    for lids in (0.0, 1.0):
        units = {"eyeBlinkLeft": lids, "eyeBlinkRight": lids}
        frame = render(person, moment.model_copy(update={"expression": units}), 192)
        marks = read(landmarker, frame.pixels, frame.points).landmarks
        assert marks is not None
        said[lids] = marks.eyes, marks.expression[FACE_UNITS.index("eyeBlinkLeft")]
    assert said[0.0][0].min() > said[1.0][0].max() + 0.1
    assert said[0.0][1] + 0.2 < said[1.0][1]


def test_where_there_is_no_face_it_says_so(landmarker: Landmarker, frames: list[Render]) -> None:
    points = frames[0].points
    random = rng(5, 1)
    noise = random.integers(0, 256, frames[0].pixels.shape, dtype=np.uint8)
    flat = np.full_like(noise, 128)
    shift = np.array([0, 4.0 * (points[4, 1] - points[0, 1])])
    for pixels, at in ((noise, points), (flat, points), (frames[0].pixels, points + shift)):
        before = face_at(at)
        ((face,),) = landmarker.read([pixels], [[before]])
        assert face.landmarks is not None and face.landmarks.presence < 0.5
        # It was not moved to where nothing is.
        np.testing.assert_array_equal(face.points, before.points)
        np.testing.assert_array_equal(face.box, before.box)


def test_it_is_less_sure_of_what_is_covered(landmarker: Landmarker, frames: list[Render]) -> None:
    mouth = list(range(48, 68))
    ratios, seen = [], []
    for frame in frames:
        open_face = read(landmarker, frame.pixels, frame.points).landmarks
        low, high = frame.landmarks[mouth].min(0).astype(int), frame.landmarks[mouth].max(0)
        pixels = frame.pixels.copy()
        cv2.rectangle(
            pixels,
            tuple((low - 12).tolist()),
            tuple((high + 12).astype(int).tolist()),
            (90, 110, 150),
            -1,
        )
        covered = read(landmarker, pixels, frame.points).landmarks
        assert open_face is not None and covered is not None
        ratios.append(np.median(covered.deviation[mouth] / open_face.deviation[mouth]))
        seen.append(open_face.visible[mouth].mean() - covered.visible[mouth].mean())
    assert np.median(ratios) > 1.5
    assert np.median(seen) > 0.4


def test_it_follows_a_rolled_picture(landmarker: Landmarker, frames: list[Render]) -> None:
    frame = frames[0]
    size = len(frame.pixels)
    before = read(landmarker, frame.pixels, frame.points).landmarks
    turn = cv2.getRotationMatrix2D((size / 2 - 0.5, size / 2 - 0.5), -40, 1.0)  # clockwise
    rolled = cv2.warpAffine(frame.pixels, turn, (size, size), borderMode=cv2.BORDER_REPLICATE)
    places = apply(turn, frame.points - 0.5) + 0.5
    after = read(landmarker, np.asarray(rolled, np.uint8), places).landmarks
    assert before is not None and after is not None
    expected = apply(turn, before.points - 0.5) + 0.5
    away = np.linalg.norm(after.points - expected, axis=1)
    assert away.mean() < 0.02 * between_eyes(before.points)
    whole = rotations.rotation(0, 0, 40) @ rotations.rotation(*before.pose)
    np.testing.assert_allclose(after.pose, rotations.angles(whole), atol=3)


def test_a_mirrored_picture_is_read_alike(landmarker: Landmarker, frames: list[Render]) -> None:
    for frame in frames[:4]:
        width = frame.pixels.shape[1]
        before = read(landmarker, frame.pixels, frame.points).landmarks
        mirrored = (frame.points * [-1, 1] + [width, 0])[[1, 0, 2, 4, 3]]
        after = read(landmarker, np.ascontiguousarray(frame.pixels[:, ::-1]), mirrored).landmarks
        assert before is not None and after is not None
        back = (after.points * [-1, 1] + [width, 0])[MIRROR]
        away = np.linalg.norm(back - before.points, axis=1)
        assert away.mean() < 0.03 * between_eyes(before.points)
        np.testing.assert_allclose(after.pose[0], -before.pose[0], atol=6)


def test_size_does_not_matter(landmarker: Landmarker, frames: list[Render]) -> None:
    """Large pictures are shrunk on the way to the crop; all lengths come back in their pixels."""
    frame = frames[1]
    before = read(landmarker, frame.pixels, frame.points).landmarks
    large = cv2.resize(frame.pixels, None, fx=6, fy=6, interpolation=cv2.INTER_LINEAR)
    after = read(landmarker, np.asarray(large, np.uint8), frame.points * 6).landmarks
    assert before is not None and after is not None
    away = np.linalg.norm(after.points / 6 - before.points, axis=1)
    assert away.mean() < 0.01 * between_eyes(before.points)
    np.testing.assert_allclose(after.deviation / 6, before.deviation, rtol=0.3)
    np.testing.assert_allclose(after.pose, before.pose, atol=2)


def test_a_batch_is_read_as_its_faces_are(landmarker: Landmarker, frames: list[Render]) -> None:
    """Pictures of several sizes, of no face, one or several, some cut by the border."""
    cut = frames[2].pixels[:, : int(frames[2].points[2, 0]) + 20]
    images = [frames[0].pixels, np.ascontiguousarray(cut), frames[3].pixels[:100]]
    faces = [
        [face_at(frames[0].points), face_at(frames[0].points + 5)],
        [face_at(frames[2].points)],
        [],
    ]
    found = landmarker.read(images, faces)
    assert [len(row) for row in found] == [2, 1, 0]
    for image, row, given_row in zip(images, found, faces, strict=True):
        for face, given_face in zip(row, given_row, strict=True):
            ((alone,),) = landmarker.read([image], [[given_face]])
            assert face.landmarks is not None and alone.landmarks is not None
            np.testing.assert_allclose(face.landmarks.points, alone.landmarks.points, atol=0.02)
    assert landmarker.read([], []) == []
    assert landmarker.read(images[:1], [[]]) == [[]]


def test_the_mean_with_the_mirror_image_hardly_knows_sides(
    landmarker: Landmarker, frames: list[Render]
) -> None:
    pixels, five = frames[1].pixels, frames[1].points
    width = np.array([pixels.shape[1], 0])
    turned = np.ascontiguousarray(pixels[:, ::-1])
    turned_five = (width - five * [1, -1])[[1, 0, 2, 4, 3]]

    def asymmetry(mirrored: bool) -> float:
        """How far the mirror image's points are from the picture's own, on average."""
        (one,), (other,) = landmarker.read(
            [pixels, turned], [[face_at(five)], [face_at(turned_five)]], mirrored=mirrored
        )
        assert one.landmarks is not None and other.landmarks is not None
        back = (width - other.landmarks.points * [1, -1])[MIRROR]
        return float(np.linalg.norm(back - one.landmarks.points, axis=1).mean())

    # ArcFace's five points are not quite symmetric, and so the two crops differ a little.
    assert asymmetry(mirrored=True) < 0.2 * asymmetry(mirrored=False)


def test_beyond_the_border_the_edge_continues(landmarker: Landmarker, frames: list[Render]) -> None:
    """A picture is read as if it were padded by its edge, whatever else is in the batch."""
    frame = frames[0]
    x, y = frame.points.min(0).astype(int) - 4
    cut = np.ascontiguousarray(frame.pixels[y:, x:])
    padded = cv2.copyMakeBorder(cut, 60, 60, 60, 60, cv2.BORDER_REPLICATE)
    small = read(landmarker, cut, frame.points - [x, y]).landmarks
    large = read(landmarker, np.asarray(padded, np.uint8), frame.points - [x, y] + 60).landmarks
    assert small is not None and large is not None
    away = np.linalg.norm(small.points + 60 - large.points, axis=1)
    assert (away < 0.3 + 0.5 * large.deviation).all()


def test_a_tiny_picture_is_no_error(landmarker: Landmarker) -> None:
    face = read(landmarker, np.zeros((1, 1, 3), np.uint8), np.eye(5, 2))
    assert face.landmarks is not None and np.isfinite(face.landmarks.points).all()


def test_a_face_without_extent_is_refused(landmarker: Landmarker, frames: list[Render]) -> None:
    with pytest.raises(FacekitError, match="five points"):
        read(landmarker, frames[0].pixels, np.ones((5, 2)))


# --- Its files ---


def test_the_bundled_weights_are_small_and_have_a_card() -> None:
    path, card = find(WEIGHTS, "landmarks")
    assert path.stat().st_size <= 2_000_000
    assert card["licence"] == "Apache-2.0"
    assert card["figures"]["nme"] <= 0.026
    assert teach.read_config("lessons/landmarks")[1].model_dump() == card["config"]


def test_wrong_weights_are_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(FacekitError, match=r"missing\.safetensors.*not readable"):
        Landmarker(CPU, tmp_path / "missing.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    with pytest.raises(FacekitError, match=r"broken\.safetensors.*not readable"):
        Landmarker(CPU, tmp_path / "broken.safetensors")
    save_file({"other": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(FacekitError, match=r"other\.safetensors.*not the weights"):
        Landmarker(CPU, tmp_path / "other.safetensors")


# --- Geometry ---


def test_mirror_swaps_the_sides_of_a_head() -> None:
    marks = head_landmarks(basis.load().vertices)
    np.testing.assert_array_equal(MIRROR[MIRROR], np.arange(70))
    np.testing.assert_allclose(marks[MIRROR[:68]], marks * [-1, 1, 1], atol=0.02)
    assert MIRROR[68] == 69


def test_units_mirror() -> None:
    order = lesson._UNIT_MIRROR
    assert sorted(order) == list(range(52))
    names = [FACE_UNITS[i] for i in order]
    for name, other in zip(FACE_UNITS, names, strict=True):
        assert other.replace("Left", "?").replace("Right", "?") == name.replace(
            "Left", "?"
        ).replace("Right", "?")
        assert ("Left" in name) == ("Right" in other)


degrees = st.floats(-80, 80)


@given(degrees, degrees, degrees)
def test_angles_are_those_of_the_studio(yaw: float, pitch: float, roll: float) -> None:
    turned = rotations.rotations(np.array([yaw, pitch, roll]))
    np.testing.assert_allclose(reader.angles(turned), [yaw, pitch, roll], atol=1e-6)


@given(degrees, degrees, degrees, st.floats(-180, 180), st.floats(0.2, 5))
def test_a_crops_pose_becomes_the_pictures(
    yaw: float, pitch: float, roll: float, turn: float, scale: float
) -> None:
    """The oracle is geometry: points of a head, seen from far away, in picture and crop."""
    head = rng(3, 1).normal(size=(70, 3))
    picture = rotations.rotations(np.array([yaw, pitch, roll]))
    places = (head @ picture.T)[:, :2] * [1, -1]  # y runs down in a picture
    linear = turned(turn, scale)
    matrix = np.column_stack([linear, [7.0, -3.0]])
    in_crop = apply(matrix, places)
    # The head's rotation as seen in the crop, solved for from what is seen there.
    rows = np.linalg.lstsq(head, (in_crop - [7.0, -3.0]) / scale * [1, -1], rcond=None)[0].T
    crop_turn = np.vstack([rows, np.cross(rows[0], rows[1])])
    said = np.zeros((1, 345))
    said[0, :140] = in_crop.ravel()
    said[0, 140:210] = scale
    said[0, 280:289] = crop_turn.ravel()
    (marks,) = reader._to_landmarks(said.astype(np.float32), matrix[None])
    np.testing.assert_allclose(rotations.rotation(*marks.pose), picture, atol=1e-4)
    np.testing.assert_allclose(marks.points, places, atol=1e-4)
    np.testing.assert_allclose(marks.deviation, 1, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(degrees, degrees, degrees, st.integers(0, 10_000))
def test_a_lessons_truth_goes_along_with_its_crops(
    yaw: float, pitch: float, roll: float, seed: int
) -> None:
    """Points of a symmetric head, seen from far away: in any crop they are those of its pose."""
    random = rng(seed, 1)
    half = random.normal(size=(70, 3))
    head = (half + half[MIRROR] * [-1, 1, 1]) / 2
    turned = rotations.rotations(np.array([[yaw, pitch, roll]] * 4))
    places = 30 * (head @ np.swapaxes(turned, 1, 2))[..., :2] * [1, -1] + 48
    batch = lesson.Pictures(
        images=torch.zeros(4, 3, 96, 96, dtype=torch.uint8),
        points=torch.from_numpy(places).float(),
        five=torch.from_numpy(random.normal(size=(4, 5, 2)) * 20 + 48).float(),
        visible=torch.ones(4, 70, dtype=torch.bool),
        turns=torch.from_numpy(turned).float(),
        expression=torch.rand(4, 52),
        person=torch.arange(4),
    )
    seed_step(seed, 1)
    matrices, mirrored, angle = lesson._inexact(batch.five)
    changed = lesson._brought(batch, matrices, mirrored, angle, torch.zeros(4).bool(), CPU)
    exact = torch.from_numpy(crop_matrices(batch.five.double().numpy())).float()
    for i, (of, crops) in itertools.product(
        range(4), ((matrices, changed), (exact, lesson.plain(batch, CPU)))
    ):
        scale = float(torch.linalg.det(of[i, :, :2]).abs().sqrt())
        seen = (head @ crops.turns[i].numpy().T)[:, :2] * [1, -1] * 30 * scale
        shift = (crops.points[i].numpy() - seen).mean(0)
        np.testing.assert_allclose(seen + shift, crops.points[i], atol=0.02 * max(1, scale))


points70 = st.integers(0, 1000).map(lambda seed: 50 * rng(seed, 1).normal(size=(70, 2)))


@given(points70, st.floats(-180, 180), st.floats(0.1, 10), st.floats(-500, 500))
def test_five_points_go_along_with_the_face(
    points: Any, turn: float, scale: float, shift: float
) -> None:
    linear = turned(turn, scale)
    moved = five_points(points @ linear.T + shift)
    np.testing.assert_allclose(moved, five_points(points) @ linear.T + shift, atol=2e-3 * scale)
    mirrored = five_points((points * [-1, 1])[MIRROR])
    np.testing.assert_allclose(
        mirrored, (five_points(points) * [-1, 1])[[1, 0, 2, 4, 3]], atol=1e-3
    )


@given(points70, st.floats(0.1, 10), st.floats(-500, 500))
def test_the_box_goes_along_with_the_face(points: Any, scale: float, shift: float) -> None:
    box = box_of(points)
    np.testing.assert_allclose(
        box_of(points * scale + shift), box * scale + shift, atol=2e-3 * scale
    )
    mirrored = box_of((points * [-1, 1])[MIRROR])
    np.testing.assert_allclose(mirrored, [-box[2], box[1], -box[0], box[3]], atol=1e-3)


def test_points_and_box_are_like_mtcnns(frames: list[Render]) -> None:
    located = load_locator(CPU).locate([frame.pixels for frame in frames])
    pairs = [(frame, faces[0]) for frame, faces in zip(frames, located, strict=True) if faces]
    assert len(pairs) >= 6
    offsets = [
        (five_points(frame.landmarks) - face.points) / between_eyes(frame.landmarks)
        for frame, face in pairs
    ]
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.04
    assert np.mean([overlap(box_of(frame.landmarks), face.box) for frame, face in pairs]) > 0.8


def test_faces_are_placed_more_exactly_than_mtcnn_places_them(
    landmarker: Landmarker, frames: list[Render]
) -> None:
    """By how far three points of the aligned face are off, less what all faces share."""
    pictures = [frame.pixels for frame in frames]
    located = [faces[:1] for faces in load_locator(CPU).locate(pictures)]
    read = landmarker.read(pictures, located)
    probe = np.array([[30.0, 27.0], [66.0, 27.0], [48.0, 90.0]])
    off: dict[str, list[Any]] = {"located": [], "placed": []}
    for frame, before, after in zip(frames, located, read, strict=True):
        if before:
            truths = {"located": frame.points, "placed": mean_face_points(frame.landmarks)}
            for name, face in (("located", before[0]), ("placed", laid_on(after[0]))):
                true = apply(invert(crop_from_image(truths[name], "face", 96)), probe)
                off[name].append(apply(crop_from_image(face.points, "face", 96), true))
    spread = {name: np.std(places, axis=0).mean() for name, places in off.items()}
    assert spread["placed"] < 0.6 * spread["located"], spread


@given(points70, st.floats(-180, 180), st.floats(0.1, 10), st.floats(-500, 500))
def test_the_mean_face_is_laid_on_where_its_points_are(
    points: Any, turn: float, scale: float, shift: float
) -> None:
    """An independent oracle: skimage's fit of a similarity."""
    linear = turned(turn, scale)
    mean = reader._MEAN_INNER
    shown = points.copy()
    shown[17:68] = mean @ linear.T + shift + 0.1 * points[17:68]
    fitted = SimilarityTransform.from_estimate(mean, shown[17:68])
    np.testing.assert_allclose(
        mean_face_points(shown), fitted(TEMPLATES["face"]), atol=2e-3 * max(scale, 1)
    )


def test_without_landmarks_a_face_stays_where_it_was_located() -> None:
    face = face_at(np.arange(10.0).reshape(5, 2))
    assert laid_on(face) is face


def test_openness_is_measured_on_the_lids() -> None:
    points = torch.zeros(1, 70, 2)
    points[0, 36:42] = torch.tensor([[0.0, 0], [2, -1], [4, -1], [6, 0], [4, 1], [2, 1]])
    points[0, 42:48] = torch.tensor([[0.0, 0], [2, 0], [4, 0], [6, 0], [4, 0], [2, 0]])
    torch.testing.assert_close(lesson.openness(points), torch.tensor([[1 / 3, 0.0]]))


def test_gaze_is_among_the_units() -> None:
    units = np.zeros(52, np.float32)
    lesson._look_units(units, Performance(gaze_x=20, gaze_y=-10))
    found = {FACE_UNITS[i]: float(units[i]) for i in np.flatnonzero(units)}
    # To the viewer's right is to the person's own left: outwards for their left eye.
    assert found == {
        "eyeLookOutLeft": 0.5,
        "eyeLookInRight": 0.5,
        "eyeLookDownLeft": 0.25,
        "eyeLookDownRight": 0.25,
    }


# --- The network and its lesson ---


def test_folding_changes_nothing() -> None:
    torch.manual_seed(0)
    net = LandmarkNet()
    images = torch.rand(4, 3, SIZE, SIZE) * 2 - 1
    with torch.no_grad():
        for _ in range(3):
            net(images)  # so that the normalisation knows some statistics
    folded = LandmarkNet(folded=True)
    folded.load_state_dict(fold(net))
    with torch.no_grad():
        pairs = zip(net.eval()(images), folded.eval()(images), strict=True)
    for said, same in pairs:
        torch.testing.assert_close(said, same, atol=1e-3, rtol=1e-3)


def test_every_parameter_learns() -> None:
    seed_step(0, 0)
    net = LandmarkNet()
    assert sum(parameter.numel() for parameter in net.parameters()) < 1_000_000
    reading = net(torch.rand(4, 3, SIZE, SIZE) * 2 - 1)
    torch.testing.assert_close(
        reading.rotation @ reading.rotation.mT, torch.eye(3).expand(4, 3, 3), atol=1e-5, rtol=0
    )
    crops = lesson.Crops(
        images=torch.zeros(4, 3, SIZE, SIZE),
        points=torch.rand(4, 70, 2) * SIZE,
        visible=torch.rand(4, 70).round(),
        turns=torch.eye(3).expand(4, 3, 3),
        expression=torch.rand(4, 52),
        face=torch.tensor([True, True, True, False]),
    )
    losses = lesson.lesson_losses(reading, crops)
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(value) for value in losses.values())
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studio")


@pytest.fixture(scope="module")
def taught(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lesson") / "run"
    result = teach_command(out, cache)
    assert result.exit_code == 0, result.exception
    return out


def teach_command(out: Path, cache: Path, *more: str) -> Any:
    arguments = ["studio", "teach", "lessons/landmarks", "--out", str(out), "--threads", "1"]
    arguments += ["--cache", str(cache)]
    for value in (*TINY, *more):
        arguments += ["--set", value]
    return CliRunner().invoke(cli, arguments)


def test_a_lesson_writes_weights_and_their_card(taught: Path) -> None:
    path, card = find(taught, "landmarks")
    assert card["licence"] == "Apache-2.0"
    assert "3 studio people (1 of them held out)" in card["data"]
    assert set(card["figures"]) >= {"nme", "z", "pose"}
    rows = [json.loads(line) for line in (taught / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 4 and "nme" in rows[-1] and "loss_likelihood" in rows[-1]
    assert Landmarker(CPU, path)


def test_a_lesson_cut_short_goes_on_to_the_same_bits(
    taught: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    calls: Iterator[int] = iter(range(100))
    losses = lesson.lesson_losses

    def cut(*arguments: Any) -> Any:
        if next(calls) == 3:
            raise FacekitError("the power went off")
        return losses(*arguments)

    monkeypatch.setattr(lesson, "lesson_losses", cut)
    assert "the power went off" in str(teach_command(out, cache).exception)
    monkeypatch.setattr(lesson, "lesson_losses", losses)
    assert teach_command(out, cache).exit_code == 0
    assert (out / "landmarks.safetensors").read_bytes() == (
        taught / "landmarks.safetensors"
    ).read_bytes()
    assert "another config" in str(teach_command(out, cache, "steps=5").exception)


def test_crops_to_learn_from_are_true_and_replay(cache: Path) -> None:
    studio = StudioFaces(people=3, frames=2, size=96, seed=11, cache=cache)
    config = lesson.Config(
        people=3, held_out=1, frames=2, size=96, data_seed=11, drilled=1, steps=1
    )
    pictures = lesson.gathered(config, studio)
    np.testing.assert_array_equal(
        pictures.images[3].permute(1, 2, 0),
        ((studio[3]["image"] + 1) * 127.5).round().byte().permute(1, 2, 0),
    )
    rows = torch.arange(48) % 6
    batch = lesson.Pictures(*(values[rows] for values in pictures))
    both = []
    for _ in range(2):
        seed_step(7, 1)
        both.append(lesson.augmented(batch, negatives=0.25, device=CPU))
    for one, other in zip(*both, strict=True):
        assert torch.equal(one, other)
    crops = both[0]
    assert crops.images.shape == (48, 3, SIZE, SIZE) and crops.images.abs().max() <= 1
    assert 4 <= int((~crops.face).sum()) <= 22
    outside = ((crops.points < 0) | (crops.points >= SIZE)).any(2)
    assert not crops.visible[outside].any()
    assert crops.visible[crops.face].mean() > 0.5
    # Mirrored or not, the left eye is on the left of an upright face.
    upright = crops.face & (crops.turns[:, 1, 1] > 0.8) & (crops.turns[:, 2, 2] > 0.8)
    assert (crops.points[upright, 36, 0] < crops.points[upright, 45, 0]).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "lesson=landmark"], "unknown lesson 'landmark'"),
        (["--set", "held_out=1000"], "held_out is 1000 of 1000"),
        (["--set", "stepz=3"], "unknown key 'stepz'"),
        (["--data", "."], "taught on the studio alone"),
    ],
)
def test_what_is_wrong_is_said_before_work(arguments: list[str], said: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = CliRunner().invoke(
        cli, ["studio", "teach", "lessons/landmarks", "--out", str(out), *arguments]
    )
    assert isinstance(result.exception, FacekitError) and said in str(result.exception)
    assert not out.exists()


def test_a_folder_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lesson, "LICENCE_WITH_DATA", "research use only", raising=False)
    out, folder = str(tmp_path / "run"), str(tmp_path / "none")
    arguments = ["studio", "teach", "lessons/landmarks", "--out", out, "--data", folder]
    result = CliRunner().invoke(cli, arguments)
    assert "no such folder" in str(result.exception)


def test_crops_hold_the_face(frames: list[Render]) -> None:
    for frame in frames:
        inside = apply(crop_matrices(frame.points), frame.landmarks)
        assert inside.min() > -6 and inside.max() < SIZE + 6
        assert replace(face_at(frame.points)).size > 0
