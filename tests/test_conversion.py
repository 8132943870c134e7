"""Conversion: who it is, where, and how the new face is fitted in; resumed, it is the same."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import skimage.color
import torch
from click.testing import CliRunner
from faces_of_noise import landmarks_at

from facekit import conversion, generators
from facekit.commands import generator_convert
from facekit.commands.generator import command
from facekit.conversion import Finish, Plan, colour, convert, detail, occlusion, plan_clip, who
from facekit.conversion import plan as planning
from facekit.conversion.plan import Place, plan_picture
from facekit.conversion.steady import steady
from facekit.core import config, device, files
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.faces import landmarks
from facekit.faces.align import TEMPLATES, apply, crop_from_image, invert
from facekit.faces.blend import ellipse
from facekit.faces.stage import Seen
from facekit.media import encode, stretches
from facekit.media.decode import Video
from facekit.types import Face, Frame
from facekit.watermark import Kind

CPU = torch.device("cpu")
POINTS = np.array([[38, 46], [74, 46], [56, 66], [42, 88], [71, 88]], np.float32)
RED, GREEN, BLUE = (220, 60, 60), (60, 200, 60), (60, 60, 220)


# Steady points --------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_tremor_shrinks_and_a_still_face_stays_where_it_is(count: int) -> None:
    times = np.arange(count) / 25
    still = np.tile(POINTS, (count, 1, 1))
    assert np.allclose(steady(still, times), still, atol=1e-3)
    tremor = np.random.default_rng(0).normal(0, 0.15, still.shape).astype(np.float32)
    left = (steady(still + tremor, times) - still).std()
    assert left <= tremor.std() * 1.0001
    if count == 40:
        assert left < 0.55 * tremor.std()


@pytest.mark.parametrize("rate", [12.5, 25, 60])
def test_a_face_that_turns_back_and_forth_is_not_delayed_or_cut_short(rate: float) -> None:
    times = np.arange(0, 2, 1 / rate)
    path = 30 * np.sin(2 * np.pi * times)  # 30 pixels to each side, once a second
    moving = (POINTS + np.stack([path, 0 * path], -1)[:, None]).astype(np.float32)
    off = steady(moving, times)[..., 0] - moving[..., 0]
    inner = slice(len(times) // 8, -len(times) // 8)
    assert np.abs(off[inner]).max() < 0.6
    # A delay would show as an error that goes with the speed.
    speed = np.gradient(path, times)[inner]
    delay = (off[inner].mean(1) * speed).sum() / (speed**2).sum()
    assert abs(delay) < 0.001


def test_frames_may_come_at_any_time() -> None:
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.uniform(0.01, 0.12, 50))
    moving = (POINTS + 20 * times[:, None, None]).astype(np.float32)
    assert np.allclose(steady(moving, times), moving, atol=0.05)


# Who it is ------------------------------------------------------------------------------------


def unit(*values: float) -> np.ndarray:
    return (np.array(values) / np.linalg.norm(values)).astype(np.float32)


ANN, BEN = unit(1, 0.1, 0), unit(0, 0.1, 1)


def test_parts_of_tracks_that_were_exchanged_are_put_together_again() -> None:
    parts = [
        who.Part(0, 0, 1, None),
        who.Part(1, 0, 1, None),
        who.Part(0, 1.1, 2, 0),
        who.Part(1, 1.1, 2, 1),
    ]
    kept = {0: ANN, 1: BEN, 2: ANN, 3: BEN}
    assert who.people(parts, kept) == [0, 1, 0, 1]
    exchanged = {0: ANN, 1: BEN, 2: BEN, 3: ANN}
    assert who.people(parts, exchanged) == [0, 1, 1, 0]
    # A part that tells little stays with its track; two at once are never one person.
    assert who.people(parts, {0: ANN, 1: BEN, 2: unit(1, 0.5, 1), 3: BEN}) == [0, 1, 0, 1]
    assert who.people(parts[:2], {0: ANN, 1: ANN}) == [0, 1]
    assert who.people([], {}) == []


def test_a_photo_is_of_one_person_or_it_is_said() -> None:
    parts = [who.Part(0, 0, 1, None), who.Part(1, 0.5, 2, None)]
    vectors = {0: ANN, 1: BEN}
    assert who.person_like(BEN, parts, [0, 1], vectors) == 1
    with pytest.raises(FacekitError, match=r"nobody in it is like.*the likest is so by 0\.1"):
        who.person_like(unit(0, 1, 0), parts, [0, 1], vectors)
    with pytest.raises(FacekitError, match=r"two people in it, first seen at 0\.\d s and 0\.\d s"):
        who.person_like(unit(1, 0, 1), parts, [0, 1], vectors)
    with pytest.raises(FacekitError, match="nobody"):
        who.person_like(ANN, [], [], {})


# The plan -------------------------------------------------------------------------------------


class Painted:
    """An identity network that knows people by the colour that they are painted in."""

    template, size, licence = "arcface", 16, "Apache-2.0"

    def embed(self, crops: np.ndarray) -> np.ndarray:
        middle = crops[:, 5:11, 5:11].reshape(len(crops), -1, 3).astype(np.float64).mean(1) - 40
        return (middle / np.linalg.norm(middle, axis=1, keepdims=True)).astype(np.float32)


def face(x: float, y: float, size: float, yaw: float = 0, seen: float = 0.95) -> Face:
    """A face about a place; of 112 pixels at ``size`` 1."""
    points = (POINTS - 56) * size + (x, y)
    dense = np.zeros((70, 2))
    dense[17:68] = apply(invert(crop_from_image(points, "face", 1)), landmarks._MEAN_INNER)
    return Face(
        box=np.array([x - 40 * size, y - 50 * size, x + 40 * size, y + 50 * size], np.float32),
        points=points.astype(np.float32),
        score=1.0,
        landmarks=landmarks_at(dense, visible=np.full(70, seen, np.float32), pose=(yaw, 0.0, 0.0)),
    )


Shown = tuple[int, tuple[int, int, int], Face]  # a track, the person's colour, a face


class Script:
    """A stage that sees what it is told: for each frame its faces; "cut" begins another scene."""

    def __init__(self, *scenes: Sequence[Sequence[Shown]], photo: Sequence[Face] = ()) -> None:
        self.rows = [
            (row, i == 0 < n) for n, scene in enumerate(scenes) for i, row in enumerate(scene)
        ]
        self.photo = list(photo)

    def frames(self) -> list[Frame]:
        frames = []
        for index, (row, _) in enumerate(self.rows):
            pixels = np.full((240, 480, 3), 40, np.uint8)
            for _, tint, one in reversed(row):  # the first is in front
                x0, y0, x1, y1 = one.box.astype(int).tolist()
                cv2.rectangle(pixels, (x0, y0), (x1, y1), tint, -1)
            frames.append(Frame(pixels, index / 25, index))
        return frames

    def follow(self, frames: Any) -> Iterator[Seen]:
        for frame, (row, cut) in zip(frames, self.rows, strict=True):
            yield Seen(frame, [one for *_, one in row], [id for id, *_ in row], True, cut)

    def look(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        return [self.photo for _ in images]


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """No network: people are known by their paint, and nothing covers a face."""
    monkeypatch.setattr(planning, "load_embedder", lambda device: Painted())
    monkeypatch.setattr(
        occlusion, "load", lambda device: lambda crops: torch.ones_like(crops[:, :1])
    )


def planned(script: Script, photo: np.ndarray | None = None) -> Plan:
    return plan_clip(script.frames(), device=CPU, reference=photo, stage=script)  # type: ignore[arg-type]


def reasons(plan: Plan) -> list[str]:
    return [place.reason for place in plan.places]


def test_two_faces_that_cross_do_not_exchange_identities() -> None:
    """The tracker here takes the one for the other where they meet, as a bad one would."""
    rows = []
    for i in range(40):
        left, right = face(100 + 7 * i, 120, 1), face(380 - 7 * i, 120, 0.9)
        ids = (0, 1) if i < 20 else (1, 0)
        rows.append([(ids[0], RED, left), (ids[1], BLUE, right)])
    plan = planned(Script(rows))
    assert plan.changed == 40
    x = np.array([place.points[2, 0] for place in plan.places if place.points is not None])
    assert np.abs(x - (100 + 7 * np.arange(40))).max() < 3


def test_who_leans_while_others_cross_or_stays_beside_somebody_is_still_followed() -> None:
    """Neither moves evenly from before to after, as those who pass each other do."""
    lean = 80 * np.sin(np.linspace(0, np.pi, 40))
    aside, beside = [], []
    for i in range(60):
        x = 100 + (lean[i - 10] if 10 <= i < 50 else 0)
        near = 10 <= i < 50
        target = (0, RED, face(x, 120, 1))
        others = [(1, BLUE, face(330, 120, 0.9)), (2, BLUE, face(350 if near else 420, 120, 0.9))]
        aside.append([target, *others])
        beside.append([target, (1, BLUE, face(x + (50 if near else 150), 120, 0.9))])
    for rows in (aside, beside):
        plan = planned(Script(rows))
        assert plan.changed == 60, plan.untouched()
        x = np.array([place.points[2, 0] for place in plan.places if place.points is not None])
        assert np.abs(x[30] - 180) < 10 and np.abs(x[[0, -1]] - 100).max() < 3


def test_why_frames_are_left_alone_is_listed_and_points_are_not_pulled_over_a_cut() -> None:
    there = [(0, RED, face(150, 120, 1))]
    first = [
        *[there] * 6,
        *[[]] * 4,  # lost
        *[there] * 6,
        *[[(0, RED, face(150, 120, 1, yaw=80))]] * 8,
        *[there] * 6,
        *[[(0, RED, face(150, 120, 1, seen=0.1))]] * 8,
        *[there] * 6,
    ]
    second = [[(1, BLUE, face(150, 120, 1))]] * 3 + [[]] * 3
    third = [[(2, RED, face(300, 120, 1))]] * 5
    plan = planned(Script(first, second, third))
    stretches = plan.untouched()
    assert [one.reason for one in stretches] == [
        *("lost", "profile", "covered", "another person", "no face")
    ]
    assert stretches[0].frames == 4
    assert all(abs(one.frames - 8) <= 2 for one in stretches[1:3])
    assert [one.frames for one in stretches][3:] == [3, 3]
    assert stretches[0].begin == 6 / 25 and str(stretches[0]) == "0.24–0.36 s lost"
    assert plan.changed == len(plan.places) - sum(one.frames for one in stretches)
    for place in plan.places:
        if place.points is not None:
            nose = landmarks.laid_on(face(150 if place.time < 1.8 else 300, 120, 1)).points[2]
            assert np.abs(place.points[2] - nose).max() < 0.01
    # A run is unbroken: none reaches over frames that are left alone.
    runs = [place.run for place in plan.places]
    assert sorted({run for run in runs if run >= 0}) == list(range(max(runs) + 1))
    assert len({run for run in runs if run >= 0}) == 5
    said = conversion.listed(plan.places, most=2)
    assert said.startswith("0.24–0.36 s lost, ") and said.endswith("and 3 stretches more")
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))).to_json() == plan.to_json()


def test_the_target_is_the_largest_face_at_first_or_the_one_on_the_photo() -> None:
    small, large = (0, BLUE, face(110, 120, 0.7)), (1, RED, face(330, 120, 1))
    script = Script([[]] * 2 + [[large, small]] * 8, photo=[face(60, 60, 1)])

    def x(plan: Plan) -> float:
        place = plan.places[-1]
        assert place.points is not None
        return float(place.points[2, 0])

    assert x(planned(script)) == pytest.approx(330, abs=1)
    photo = np.full((120, 120, 3), BLUE, np.uint8)
    assert x(planned(script, photo)) == pytest.approx(110, abs=1)
    with pytest.raises(FacekitError, match="nobody in it is like"):
        planned(script, np.full((120, 120, 3), (0, 90, 0), np.uint8))
    script.photo = []
    with pytest.raises(FacekitError, match="shows no face"):
        planned(script, photo)
    script.photo = [face(60, 60, 1), face(20, 20, 0.9)]
    with pytest.raises(FacekitError, match="shows 2 faces"):
        planned(script, photo)
    twins = Script([[(0, RED, face(110, 120, 1)), (1, RED, face(330, 120, 1))]] * 8)
    twins.photo = [face(60, 60, 1)]
    with pytest.raises(FacekitError, match="two people in it"):
        planned(twins, np.full((120, 120, 3), RED, np.uint8))


@pytest.mark.parametrize("count", [1, 2])
def test_a_clip_without_a_face_and_one_of_few_frames(count: int) -> None:
    plan = planned(Script([[]] * count))
    assert plan.changed == 0 and reasons(plan) == ["no face"] * count
    plan = planned(Script([[(0, RED, face(200, 120, 1))]] * count))
    assert plan.changed == count
    assert planned(Script([])).places == ()


def test_a_picture_is_planned_alike() -> None:
    pixels = np.full((240, 480, 3), 40, np.uint8)
    pixels[:, 240:] = BLUE
    stage = Script(photo=[face(100, 120, 1), face(350, 120, 0.6)])

    def plan(photo: np.ndarray | None = None) -> Plan:
        return plan_picture(pixels, device=CPU, reference=photo, stage=stage)  # type: ignore[arg-type]

    (place,) = plan().places
    assert place.points is not None and place.points[2, 0] == pytest.approx(100, abs=1)
    for found, reason in (
        ([], "no face"),
        ([face(100, 120, 1, yaw=-75)], "profile"),
        ([face(100, 120, 1, seen=0.2)], "covered"),
    ):
        stage.photo = found
        assert reasons(plan()) == [reason]


# Colours, detail and grain --------------------------------------------------------------------


def cloud(mean: Sequence[float], mix: Sequence[Sequence[float]], seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((48, 48, 3))
    return np.clip(np.array(mean) + noise @ np.array(mix), 0, 1).astype(np.float32)


NARROW = cloud((0.5, 0.5, 0.5), 0.03 * np.eye(3), 0)
WARM = cloud((0.6, 0.45, 0.35), [[0.05, 0.04, 0.03], [0.02, 0.03, 0], [0, 0, 0.03]], 1)


def mapped(
    crop: np.ndarray, target: np.ndarray, mask: np.ndarray, method: colour.Transfer
) -> colour.ColourMap:
    one, other = (colour.Colours.of(given, mask) for given in (crop, target))
    assert one is not None and other is not None
    found = colour.match(one, other, method)
    assert found is not None
    return found


@pytest.mark.parametrize("method", ["transport", "reinhard"])
def test_colours_become_the_targets(method: colour.Transfer) -> None:
    mask = ellipse(48, (0.5, 0.5), (0.5, 0.5), 0.2)
    result = mapped(NARROW, WARM, mask, method).apply(NARROW)
    # scikit-image's Lab is the oracle.
    inside = mask == 1
    got, wanted = (skimage.color.rgb2lab(np.clip(one, 0, 1))[inside] for one in (result, WARM))
    assert got.mean(0) == pytest.approx(wanted.mean(0), abs=1.5)
    assert got.std(0) == pytest.approx(wanted.std(0), rel=0.25)
    if method == "transport":
        covariances = [np.cov(one.T) for one in (got, wanted)]
        assert np.abs(covariances[0] - covariances[1]).max() < 0.3 * covariances[1].max()


def test_transport_moves_colours_no_more_than_it_must() -> None:
    everything = np.ones((48, 48), np.float32)
    same = mapped(WARM, WARM, everything, "transport")
    assert np.allclose(same.linear, np.eye(3), atol=1e-6) and np.allclose(same.shift, 0, atol=1e-4)
    linear = mapped(NARROW, WARM, everything, "transport").linear
    assert np.allclose(linear, linear.T, atol=1e-9)  # the map is a gradient, as Monge's is
    values = np.linalg.eigvalsh(linear)
    assert values.min() >= 0.5 - 1e-9 and values.max() <= 2 + 1e-9


def test_flat_and_empty_faces_stay_finite_and_none_changes_nothing() -> None:
    flat = np.full((16, 16, 3), 0.5, np.float32)
    some = WARM[:16, :16]
    everything = np.ones((16, 16), np.float32)
    for method in colour.TRANSFERS[:2]:
        assert np.isfinite(mapped(flat, some, everything, method).apply(flat)).all()
    assert colour.Colours.of(some, 0 * everything) is None
    one, other = colour.Colours.of(flat, everything), colour.Colours.of(some, everything)
    assert one is not None and other is not None
    assert colour.match(one, other, "none") is None
    with pytest.raises(FacekitError, match="did you mean 'transport'"):
        colour.match(one, other, "transports")  # type: ignore[arg-type]
    mean = colour.Colours.average([one, other], [1, 3])
    assert np.allclose(mean.mean, (one.mean + 3 * other.mean) / 4)


def test_eyes_keep_their_colours_where_skin_takes_another_complexion() -> None:
    """A pale face with grey eyes and red lips, for a dark one's picture."""
    size, random = 96, np.random.default_rng(5)
    face = np.float32([0.85, 0.7, 0.62]) + random.normal(0, 0.02, (size, size, 3))
    x, y = np.meshgrid(*[(np.arange(size) + 0.5) / size] * 2)
    right, left = TEMPLATES["face"][:2]
    eye = sum(np.hypot((x - e[0]) / 0.06, (y - e[1]) / 0.025) < 1 for e in (right, left)) > 0
    lips = np.hypot((x - 0.5) / 0.12, (y - 0.7) / 0.04) < 1
    face[eye], face[lips] = (0.45, 0.5, 0.55), (0.7, 0.3, 0.3)
    face = np.clip(face, 0, 1).astype(np.float32)
    found = colour.Colours.of(face, np.ones((size, size), np.float32))
    assert found is not None
    stays = colour.eyes(face, found)
    inside = cv2.erode(eye.astype(np.uint8), np.ones((3, 3))) > 0
    lids = (colour._about_eyes(size) > 0.5) & (
        cv2.dilate(eye.astype(np.uint8), np.ones((3, 3))) == 0
    )
    assert stays[inside].min() > 0.5 and stays[lips].max() == 0
    assert lids.any() and stays[lids].mean() < 0.1

    def pale(crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        faces = torch.from_numpy(2 * cv2.resize(face, (64, 64)) - 1).permute(2, 0, 1)
        return faces.expand(len(crops), -1, -1, -1), same_face(crops)[1]

    (frame,), plan = moving_face(1)
    dark = [Frame(frame.pixels // 4, frame.time, frame.index)]
    (result,) = converted(dark, plan, pale, finish=Finish(seam="feather", sharpen=False))
    assert plan.places[0].points is not None
    at = plan.places[0].points[:2].round().astype(int)
    own = 255 * np.float32([0.45, 0.5, 0.55])
    assert all(np.abs(result.pixels[y, x] - own).max() < 60 for x, y in at)


def waves(size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    return np.stack(
        [0.5 + 0.2 * np.sin(120 * x + i) * np.cos(90 * y) for i in range(3)], -1
    ).astype(np.float32)


@pytest.mark.parametrize("deviation", [2.0, 6.0, 12.0])
def test_noise_is_measured_over_edges(deviation: float) -> None:
    picture = 255 * waves(160)
    picture[:, 80:] *= 0.4
    noisy = picture.mean(2) + np.random.default_rng(0).normal(0, deviation, (160, 160))
    pixels = np.clip(noisy, 0, 255).round().astype(np.uint8)[..., None].repeat(3, 2)
    assert detail.noise(pixels) == pytest.approx(deviation, rel=0.15)
    assert detail.noise(pixels[:4]) == 0


def test_sharpness_becomes_the_targets_either_way() -> None:
    sharp, everything = waves(200), np.ones((200, 200), np.float32)
    soft = cv2.GaussianBlur(sharp, (0, 0), 1.2)
    energy = [detail.sharpness(detail.luma(one), everything) for one in (soft, sharp)]
    assert energy[0] < 0.8 * energy[1]
    for given, target in ((soft, energy[1]), (sharp, energy[0])):
        gain = detail.gain(detail.sharpness(detail.luma(given), everything), target)
        result = detail.sharpened(given, gain, 200)
        assert detail.sharpness(detail.luma(result), everything) == pytest.approx(target, rel=0.15)
    assert detail.sharpened(sharp, 1.0, 200) is sharp
    # What is only noise is no detail.
    assert detail.without_noise(5.0, 5.0) == 0 and detail.without_noise(5.0, 4.0) == 3


def test_grain_is_as_strong_as_asked_and_the_same_in_the_same_frame() -> None:
    first, again, other = (detail.grain((200, 300), 4.0, moment) for moment in (7, 7, 8))
    assert first is not None and again is not None and other is not None
    assert first.shape == (200, 300) and first.std() == pytest.approx(4, rel=0.05)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert detail.grain((9, 9), 0.1, 0) is None


def test_doubts_about_what_covers_a_face_do_not_flicker() -> None:
    bare, doubt = np.ones((64, 64), np.float32), np.full((64, 64), 0.4, np.float32)
    steady_ones = occlusion.veil([(1, bare), (2, doubt), (1, bare)])
    alone = occlusion.veil([(1, doubt)])
    assert steady_ones.min() > alone.max()
    half = bare.copy()
    half[:, :32] = 0
    veil = occlusion.veil([(1, half)])
    assert (veil[:, :30] == 0).all() and (veil[:, 34:] == 1).all()


# Fitting the new face in ----------------------------------------------------------------------


def moving_face(count: int, gap: tuple[int, ...] = ()) -> tuple[list[Frame], Plan]:
    """A textured clip and a plan for it; frames of ``gap`` are left alone."""
    rng = np.random.default_rng(3)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (201, 261, 3)).astype(np.uint8), (0, 0), 3)
    frames, places = [], []
    run = 0
    for i in range(count):
        pixels = np.roll(texture, 2 * i, axis=1)
        frames.append(Frame(pixels, i / 25, i))
        points = POINTS * 1.2 + (20 + 2 * i, 30)
        run += i in gap
        alone = i in gap
        places.append(
            Place(i / 25, None, reason="lost")
            if alone
            else Place(i / 25, points.astype(np.float32), run)
        )
    return frames, Plan(tuple(places))


def same_face(crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    size = crops.shape[-1]
    mask = torch.from_numpy(ellipse(size, (0.5, 0.5), (0.4, 0.45), 0.4))[None, None]
    return crops, mask.expand(len(crops), -1, -1, -1)


def other_face(crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    faces, mask = same_face(crops)
    return 0.5 * faces.flip(3) + 0.2, mask


def converted(frames: Any, plan: Plan | None, swap: Any = other_face, **how: Any) -> list[Frame]:
    return list(convert(frames, swap, size=64, device=CPU, plan=plan, **how))


def test_the_same_face_comes_back_and_other_frames_pass_through_untouched() -> None:
    frames, plan = moving_face(11, gap=(4, 5))
    results = converted(frames, plan, same_face, finish=Finish(grain=False))
    assert [(f.time, f.index) for f in results] == [(f.time, f.index) for f in frames]
    for i, (before, after) in enumerate(zip(frames, results, strict=True)):
        if i in (4, 5):
            assert after is before
        else:
            difference = np.abs(after.pixels.astype(int) - before.pixels)
            assert 0 < difference.max() and difference.mean() < 1.0
            assert not difference[:20].any() and not difference[-20:].any()


def test_a_soft_face_is_made_as_sharp_as_the_target_unless_it_is_to_stay() -> None:
    frames, plan = moving_face(3)

    def soft(crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        faces, mask = same_face(crops)
        blurred = torch.nn.functional.avg_pool2d(faces, 9, 1, 4, count_include_pad=False)
        return (faces + blurred) / 2, mask

    found = {}
    for sharpen in (True, False):
        finish = Finish(colour="none", seam="feather", sharpen=sharpen, grain=False)
        (middle,) = (f.pixels for f in converted(frames, plan, soft, finish=finish) if f.index == 1)
        changed = np.any(middle != frames[1].pixels, 2).astype(np.float32)
        found[sharpen] = detail.sharpness(detail.luma(middle), changed)
    assert found[False] < 0.98 * found[True], found


@pytest.mark.parametrize("first", [1, 8, 13, 21])
def test_a_conversion_that_goes_on_is_the_same_to_the_bit(first: int) -> None:
    frames, plan = moving_face(22, gap=(6, 15))
    finish = Finish(grain=True)
    whole = converted(frames, plan, finish=finish)
    rest = converted(iter(frames), plan, finish=finish, first=first)
    assert len(rest) == 22 - first
    for one, other in zip(whole[first:], rest, strict=True):
        assert one.index == other.index and np.array_equal(one.pixels, other.pixels)


def test_what_is_measured_does_not_flicker() -> None:
    """A model whose brightness jumps from frame to frame is evened out by the colours' map."""
    frames, plan = moving_face(12)
    state = {"count": 0}

    def unsteady(crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        faces, mask = same_face(crops)
        gains = [0.75 if (state["count"] + i) % 2 else 1.0 for i in range(len(faces))]
        state["count"] += len(faces)
        return (faces + 1) * torch.tensor(gains)[:, None, None, None] - 1, mask

    def flicker(method: colour.Transfer) -> float:
        state["count"] = 0
        results = converted(frames, plan, unsteady, finish=Finish(colour=method, grain=False))
        means = []
        for frame, place in zip(results, plan.places, strict=True):
            assert place.points is not None
            x, y = place.points[2].astype(int)
            means.append(float(frame.pixels[y - 20 : y + 20, x - 20 : x + 20].mean()))
        return float(np.abs(np.diff(means)).mean())

    assert flicker("transport") < 0.8 * flicker("none")


def test_what_covers_the_face_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def left_half(crops: torch.Tensor) -> torch.Tensor:
        visible = torch.ones_like(crops[:, :1])
        visible[..., : crops.shape[-1] // 2] = 0
        return visible

    monkeypatch.setattr(occlusion, "load", lambda device: left_half)
    frames, plan = moving_face(3)
    for with_it in (True, False):
        results = converted(frames, plan, finish=Finish(occlusion=with_it))
        place = plan.places[0]
        assert place.points is not None
        left = slice(0, int(place.points[2, 0]) - 4)
        same = np.array_equal(results[0].pixels[:, left], frames[0].pixels[:, left])
        assert same == with_it
        assert not np.array_equal(results[0].pixels, frames[0].pixels)


def test_other_frames_than_those_planned_for_are_refused() -> None:
    frames, plan = moving_face(6)
    for given in (frames[:5], [*frames, frames[-1]], [replace(f, time=f.time + 1) for f in frames]):
        with pytest.raises(FacekitError, match="not those that were planned for"):
            converted(given, plan)
    assert converted([], Plan(())) == []


def test_stills_have_nothing_to_do_with_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, _ = moving_face(3)
    stage = Script(photo=[face(100, 100, 1.2)])
    module = import_module("facekit.conversion.convert")
    monkeypatch.setattr(module, "Stage", lambda device: stage)
    alone = [converted([frame], None, still=True)[0] for frame in frames]
    together = converted(iter(frames), None, still=True)
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
    stage.photo = []
    assert converted(frames, None, still=True)[1] is frames[1]


# The command: stretches, preview, bad input ----------------------------------------------------


class Tinter:
    """A generator that inverts pictures, as far as it gets."""

    KIND = Kind.COMPOSITE
    breaks_at: int | None = None

    def __init__(self) -> None:
        self.made: list[int] = []

    def generate(
        self, run: Any, frames: Any, fabric: Any, *, first: int, **words: Any
    ) -> Iterator[Frame]:
        for frame in frames:
            if frame.index == self.breaks_at:
                raise KeyboardInterrupt
            if frame.index >= first:
                self.made.append(frame.index)
                yield Frame(255 - frame.pixels, frame.time, frame.index)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, astronaut: np.ndarray) -> Path:
    """Ten frames of one face, which is moved about."""
    head = cv2.resize(astronaut[:240, 110:350], (142, 142), interpolation=cv2.INTER_AREA)
    frames = [Frame(np.roll(head, i, axis=1), i / 25, i) for i in range(10)]
    out = tmp_path_factory.mktemp("given") / "clip"
    encode.write_video(out / "clip.mp4", frames)
    return out


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = Run.start(
        tmp_path / "tint",
        plugin="tinter",
        config=config.Config(),
        seed=0,
        data_hash="",
        threads=1,
        precision="32-true",
    )
    made.note(consent="studio-0123456789ab")
    # What may be used is test_gate's and test_consent_gate's; here files are let pass unseen.
    monkeypatch.setattr(
        generators,
        "admit_file",
        lambda path, *_: generators.Permit(made.facts["consent"], files={path: files.sha256(path)}),
    )
    monkeypatch.setattr("facekit.generators._gate.SETTLED", 0.0)
    monkeypatch.setattr(stretches, "LENGTH", 3)
    monkeypatch.setattr(planning, "load_embedder", lambda device: Painted())
    return made.folder


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Tinter:
    tinter = Tinter()
    monkeypatch.setattr(generators, "load", lambda name: tinter)
    return tinter


def convert_clip(run: Path, clip: Path, out: Path, **words: Any) -> generator_convert.Converted:
    fabric = device.setup("cpu", threads=1)
    path = str(clip / "clip.mp4")
    return generator_convert.convert_file(run, path, out, fabric, source="person-0001", **words)


def test_a_broken_off_conversion_goes_on_and_is_the_same(
    run: Path, plugin: Tinter, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.mp4", tmp_path / "new" / "out.mp4"
    assert convert_clip(run, clip, whole).changed == 10
    plugin.made, plugin.breaks_at = [], 8
    with pytest.raises(KeyboardInterrupt):
        convert_clip(run, clip, out)
    assert not out.exists() and [p.name for p in out.parent.iterdir()] == [".stretches-out.mp4"]
    # With other settings it begins anew; with the same, after two stretches, and without a plan.
    plugin.made, plugin.breaks_at = [], None
    monkeypatch.setattr(conversion, "plan_clip", None)
    converted = convert_clip(run, clip, out)
    assert plugin.made == list(range(6, 10)) and converted.changed == 10
    assert [p.name for p in out.parent.iterdir()] == ["out.mp4"]
    with Video(whole) as one, Video(out) as other:
        for a, b in zip(one, other, strict=True):
            assert a.time == b.time and np.array_equal(a.pixels, b.pixels)


def test_other_settings_use_no_finished_stretch(
    run: Path, plugin: Tinter, clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    plugin.breaks_at = 8
    with pytest.raises(KeyboardInterrupt):
        convert_clip(run, clip, out)
    plugin.made, plugin.breaks_at = [], None
    convert_clip(run, clip, out, badge="top-left")
    assert plugin.made == list(range(10))


def test_a_full_disk_leaves_nothing_behind(
    run: Path, plugin: Tinter, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "out.mp4"
    write = encode.write_stretch

    def full(path: Path, *words: Any, **more: Any) -> None:
        if path.name != "000000.nut":
            raise OSError(28, "No space left on device")
        write(path, *words, **more)

    monkeypatch.setattr(encode, "write_stretch", full)
    with pytest.raises(FacekitError, match=r"out\.mp4: cannot be written \(No space left"):
        convert_clip(run, clip, out)
    assert list(out.parent.iterdir()) == []


def test_the_command_says_what_it_did_and_writes_a_preview(
    run: Path, plugin: Tinter, clip: Path, tmp_path: Path
) -> None:
    out, pair = tmp_path / "out.mp4", tmp_path / "pair.mp4"
    words = ["--input", str(clip / "clip.mp4"), "--source", "person-0001", "--out", str(out)]
    result = CliRunner().invoke(
        command, ["run", str(run), *words, "--preview", str(pair), "--json"], catch_exceptions=False
    )
    facts = json.loads(result.stdout)
    assert (facts["frames"], facts["changed"], facts["untouched"]) == (10, 10, [])
    assert facts["preview"] == str(pair)
    with Video(clip / "clip.mp4") as one, Video(out) as other, Video(pair) as both:
        assert (one.info.width, other.info.width, both.info.width) == (142, 142, 284)
        first, second = next(iter(one)).pixels, next(iter(both)).pixels
        assert np.abs(second[:100, :142].astype(int) - first[:100]).mean() < 6
        assert np.abs(255 - second[:100, 142:].astype(int) - first[:100]).mean() < 10
    from facekit import watermark

    assert watermark.read_file(pair, search=False).kind == "composite"
    with pytest.raises(FacekitError, match=r"--preview .*: is --out as well"):
        convert_clip(run, clip, out, preview=out)
    with pytest.raises(FacekitError, match=r"pair\.png: from clip\.mp4 comes one of \.mp4"):
        convert_clip(run, clip, out, preview=tmp_path / "pair.png")


def test_a_clip_in_which_nothing_can_be_replaced_says_why(
    run: Path, plugin: Tinter, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = tuple(Place(i / 25, None, reason="profile") for i in range(10))
    monkeypatch.setattr(conversion, "plan_clip", lambda *words, **more: Plan(places))
    out = tmp_path / "new" / "out.mp4"
    with pytest.raises(FacekitError, match=r"no frame shows a face that can be .*0\.36 s profile"):
        convert_clip(run, clip, out)
    assert list(out.parent.iterdir()) == [] and not plugin.made
    some = (replace(places[0], points=POINTS, run=0, reason=""), *places[1:])
    monkeypatch.setattr(conversion, "plan_clip", lambda *words, **more: Plan(some))
    words = ["--input", str(clip / "clip.mp4"), "--source", "person-0001", "--out", str(out)]
    result = CliRunner().invoke(command, ["run", str(run), *words], catch_exceptions=False)
    assert "shown in 1 of 10 frames" in result.output
    assert "left as they are: 0.04–0.36 s profile" in result.output


def write_odd(path: Path, frames: Sequence[Frame], rotation: int) -> Path:
    """A video whose sides may be odd, to be shown turned anti-clockwise by ``rotation``."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "4"})
        stored = [np.rot90(frame.pixels, -rotation // 90) for frame in frames]
        stream.height, stream.width = stored[0].shape[:2]
        stream.pix_fmt = "yuv444p"
        stream.set_display_rotation(rotation)
        for pixels in stored:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            out.mux(stream.encode(picture.reformat(format="yuv444p")))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("count", "rotation"), [(1, 0), (2, 90), (2, 180)])
def test_odd_sides_rotated_clips_and_single_frames(
    run: Path,
    plugin: Tinter,
    clip: Path,
    tmp_path: Path,
    count: int,
    rotation: int,
) -> None:
    with Video(clip / "clip.mp4") as video:
        upright = [replace(f, pixels=f.pixels[:141, :139]) for f in islice(video, count)]
    given = write_odd(tmp_path / "given.mp4", upright, rotation)
    out, pair = tmp_path / "out.mp4", tmp_path / "pair.mp4"
    fabric = device.setup("cpu", threads=1)
    converted = generator_convert.convert_file(
        run, str(given), out, fabric, source="person-0001", preview=pair
    )
    assert (converted.frames, converted.changed) == (count, count)
    with Video(out) as result, Video(pair) as both:
        frames, pairs = list(result), list(both)
    assert len(frames) == len(pairs) == count
    for before, after, beside in zip(upright, frames, pairs, strict=True):
        assert after.pixels.shape == (142, 140, 3)  # 4:2:0 colour needs even sides
        assert np.abs(255 - after.pixels[:100, :139].astype(int) - before.pixels[:100]).mean() < 12
        assert beside.pixels.shape == (142, 278, 3)
        assert np.abs(beside.pixels[:100, :139].astype(int) - before.pixels[:100]).mean() < 8


def test_options_of_a_conversion_go_with_an_input() -> None:
    result = CliRunner().invoke(command, ["run", "gan", "--out", "x", "--preview", "y.mp4"])
    assert "--preview with --input or --photos" in str(result.exception)


def test_a_small_hole_in_a_bare_face_is_filled_and_a_lens_or_a_hand_is_not() -> None:
    bare = np.zeros((128, 128), np.float32)
    cv2.ellipse(bare, (64, 64), (40, 52), 0, 0, 360, 1, -1)
    cv2.ellipse(bare, (48, 50), (8, 5), 0, 0, 360, 0, -1)  # an eye that is taken for a lens: 0.8%
    cv2.ellipse(bare, (82, 50), (15, 12), 0, 0, 360, 0, -1)  # a lens: 3.5%
    cv2.rectangle(bare, (60, 90), (68, 127), 0, -1)  # a finger, from below
    shown = occlusion.veil([(1.0, bare)])
    assert shown[50, 48] > 0.99
    assert shown[50, 82] < 0.01 and shown[100, 64] < 0.01 and shown[2, 2] < 0.01
    # A lens that the network doubts is none; of a finger from beyond the face no doubt is heard.
    doubted = occlusion.veil([(1.0, np.maximum(bare, 0.3))])
    assert doubted[50, 82] > 0.99 and doubted[100, 64] < 0.5
