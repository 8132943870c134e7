"""Motion: read from landmarks or performances, changed part by part, given to somebody else."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from faces_of_noise import face
from hypothesis import given, settings
from hypothesis import strategies as st

from facekit.core.errors import FacekitError
from facekit.motion import (
    Channel,
    Controls,
    Motion,
    Sitter,
    act,
    from_performances,
    from_track,
    parse,
    sitters,
    watch,
)
from facekit.motion.read import BLINKS
from facekit.motion.watch import Track, bridged
from facekit.studio.fit import UNITS, fit, points_of
from facekit.studio.performance import Performance
from facekit.studio.person import Person
from facekit.studio.render import Render, render
from facekit.types import Face, Frame

KEEP = Channel("keep")
STILL = Controls(KEEP, KEEP, KEEP, KEEP)


@pytest.fixture(scope="module")
def shots() -> list[Render]:
    """A photo at rest, and four moments of the same scene."""
    person, scene = Person.sample(70_001), Performance.sample(3)
    moves: list[dict[str, Any]] = [
        {},
        {"yaw": 18.0, "gaze_x": -10.0},
        {"pitch": -10.0, "expression": {"jawOpen": 0.6}},
        {"expression": {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}, "roll": 8.0},
        {"expression": {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8}, "centre_x": 0.56},
    ]
    ahead = {"yaw": 0.0, "neck_yaw": 0.0, "camera_yaw": 0.0, "pitch": 0.0, "neck_pitch": 0.0}
    ahead |= {"camera_pitch": 0.0, "roll": 0.0, "neck_roll": 0.0, "gaze_x": 0.0, "gaze_y": 0.0}
    still = scene.model_copy(update={**ahead, "expression": {}})
    return [
        render(person, still.model_copy(update={**move, "time": k / 25}), 160)
        for k, move in enumerate(moves)
    ]


@pytest.fixture(scope="module")
def sitter(shots: list[Render]) -> Sitter:
    (one,) = sitters(shots[0].landmarks[None], 160)
    return one


@pytest.fixture(scope="module")
def motion(shots: list[Render]) -> Motion:
    return from_performances([shot.performance for shot in shots])


def apart(points: np.ndarray) -> float:
    return float(np.linalg.norm(points[36:42].mean(0) - points[42:48].mean(0)))


def test_points_are_where_the_fit_has_them(shots: list[Render]) -> None:
    track = np.stack([shot.landmarks for shot in shots])
    found = fit(track, size=160, apart=True)
    drawn = points_of(found.shape, found.units, found.gaze, found.views)
    np.testing.assert_allclose(drawn[:, :68], found.points, atol=1e-6)
    irises = np.linalg.norm(drawn[:, 68:] - track[:, 68:], axis=-1)
    assert irises.max() < 0.06 * apart(track[0])


def test_what_is_kept_stays_where_it_is(sitter: Sitter, motion: Motion) -> None:
    kept = act(sitter, motion, STILL)
    assert kept.shape == (5, 70, 2)
    np.testing.assert_allclose(kept, np.repeat(sitter.landmarks[None], 5, 0), atol=1e-3)


def test_a_person_does_what_they_did(shots: list[Render], sitter: Sitter, motion: Motion) -> None:
    """The studio's own truth: the performance's parameters move the photo's landmarks there."""
    drawn = act(sitter, motion)
    for points, shot, still in zip(drawn[1:], shots[1:], [shots[0]] * 4, strict=True):
        off, floor = (
            np.linalg.norm(guess[:68] - shot.landmarks[:68], axis=1).mean() / apart(shot.landmarks)
            for guess in (points, still.landmarks)
        )
        assert off < 0.05, off
        assert off < 0.6 * floor


def test_a_track_says_the_same_as_the_performance(shots: list[Render], motion: Motion) -> None:
    times = motion.times
    track = Track(times, np.stack([s.landmarks for s in shots]), np.ones(5, bool), 160)
    found = from_track(track)
    # Smooth in time, so each turn is partly its neighbours'.
    assert np.argmax(found.pose[:, 0]) == 1 and np.argmax(found.shut) == 3
    assert np.argmax(found.units[:, UNITS.index("jawOpen")]) == 2
    assert motion.rest == 0


def test_each_part_is_its_own(sitter: Sitter, motion: Motion) -> None:
    turned = act(sitter, motion, Controls(Channel("set", value=(20.0, 0.0, 0.0)), KEEP, KEEP, KEEP))
    width = [abs(points[45, 0] - points[36, 0]) for points in (turned[0], sitter.landmarks)]
    assert width[0] < width[1] and np.ptp(turned, 0).max() < 1e-3
    shut = act(sitter, motion, Controls(KEEP, KEEP, KEEP, Channel("set", value=(1.0,))))
    opening = np.abs(shut[0, [37, 38]] - shut[0, [41, 40]])[:, 1].mean()
    before = np.abs(sitter.landmarks[[37, 38]] - sitter.landmarks[[41, 40]])[:, 1].mean()
    assert opening < 0.35 * before
    aside = act(sitter, motion, Controls(KEEP, KEEP, Channel("set", value=(25.0, 0.0)), KEEP))
    assert (aside[0, 68:, 0] - sitter.landmarks[68:, 0] > 0.02 * sitter.apart).all()
    np.testing.assert_allclose(aside[0, :17], sitter.landmarks[:17], atol=1e-3)
    half = act(sitter, motion, Controls(KEEP, Channel(scale=0.5), KEEP, KEEP))
    whole = act(sitter, motion, Controls(KEEP, Channel(), KEEP, KEEP))
    jaw = [one[2, 8, 1] - sitter.landmarks[8, 1] for one in (half, whole)]
    assert 0 < jaw[0] < 0.7 * jaw[1]


def test_a_head_that_is_tilted_further_than_any_is_turned_stays_so(
    sitter: Sitter, motion: Motion
) -> None:
    middle, angle = sitter.landmarks.mean(0), np.radians(42)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    tilted = ((sitter.landmarks - middle) @ turn.T + middle)[None]
    (found,) = sitters(tilted, 256)
    assert abs(found.view[2]) > 38
    np.testing.assert_allclose(act(found, motion, STILL)[0], tilted[0], atol=1e-3)


def test_heads_do_not_turn_beyond_what_a_photo_tells(sitter: Sitter) -> None:
    far = from_performances([Performance(), Performance(yaw=90.0, time=1.0)])
    near = from_performances([Performance(), Performance(yaw=60.0, time=1.0)])
    assert np.abs(act(sitter, far)[1] - act(sitter, near)[1]).max() < 0.1 * sitter.apart
    assert np.isfinite(act(sitter, far)).all()


def test_somebody_idle_blinks_and_says_nothing() -> None:
    moments = Performance.idle(8.0, seed=2)
    found = from_performances(moments)
    assert len(found) == 200 and found.shut.max() > 0.7 and found.shut[found.rest] < 0.2
    assert found.units[:, UNITS.index("jawOpen")].max() < 0.1
    assert np.abs(np.diff(found.pose, axis=0)).max() < 3
    assert Performance.idle(8.0, seed=2) == moments
    with pytest.raises(FacekitError, match="up to 600 s"):
        Performance.idle(0)


@pytest.mark.parametrize(
    ("text", "numbers", "channel"),
    [
        ("driver", 3, Channel()),
        (" Keep ", 1, KEEP),
        ("driver * 0.5", 1, Channel(scale=0.5)),
        ("10, 0,-5", 3, Channel("set", value=(10.0, 0.0, -5.0))),
        ("0.3", 1, Channel("set", value=(0.3,))),
    ],
)
def test_channels_are_read_from_text(text: str, numbers: int, channel: Channel) -> None:
    assert parse("--pose", text, numbers) == channel


@pytest.mark.parametrize("text", ["", "drive", "1,2", "driver*", "driver*nan", "inf,0,0", "a,b,c"])
def test_what_is_no_channel_is_refused(text: str) -> None:
    with pytest.raises(FacekitError, match=r"allowed are driver, keep, driver\*FACTOR, or 0,0,0"):
        parse("--pose", text, 3)


# --- The driver


@settings(max_examples=40)
@given(st.lists(st.booleans(), min_size=1, max_size=30).filter(any), st.integers(0, 99))
def test_gaps_are_bridged_and_what_was_seen_stays(seen: list[bool], seed: int) -> None:
    times = np.arange(len(seen)) / 10
    # Points that move evenly: a bridge over a short gap is exact.
    line = times[:, None, None] * np.random.default_rng(seed).normal(size=(70, 2))
    rows = [
        row.astype(np.float32) if there else None for row, there in zip(line, seen, strict=True)
    ]
    track = bridged(times, rows, 100)
    assert track.seen.tolist() == seen
    there = np.flatnonzero(seen)
    for i in range(len(seen)):
        before, after = there[there <= i], there[there >= i]
        if len(before) and len(after):
            gap = min(times[after[0]] - times[before[-1]], 0.5)
            # A long gap is a pose that is held, and then the way to the next one.
            back = max(0.0, 1 - (times[after[0]] - times[i]) / gap) if gap else 0.0
            expected = line[before[-1]] + back * (line[after[0]] - line[before[-1]])
        else:
            expected = line[before[-1] if len(before) else after[0]]
        np.testing.assert_allclose(track.landmarks[i], expected, atol=1e-5)


def seen_face(x: float, size: float, presence: float = 1.0) -> Face:
    """A face whose landmarks all lie at one place, by which it is told from others."""
    shown = face(size, (x, x))
    assert shown.landmarks is not None
    points = np.full((70, 2), x, np.float32)
    marks = replace(shown.landmarks, points=points, presence=presence)
    return replace(shown, landmarks=marks)


def watched(
    rows: Sequence[Sequence[tuple[float, ...]]],
    people: list[int],
    times: Sequence[float] = (),
) -> Track:
    """Of rows of (track, place, size, presence or none), and whose the tracks are."""

    class Script:
        tracks = tuple(SimpleNamespace(id=i, person=person) for i, person in enumerate(people))

        def follow(self, frames: Any) -> Any:
            for frame in frames:
                row = rows[frame.index]
                faces = [seen_face(*given) for _, *given in row]
                yield SimpleNamespace(frame=frame, faces=faces, ids=[track for track, *_ in row])

    pixels = np.zeros((100, 200, 3), np.uint8)
    times = times or [k / 10 for k in range(len(rows))]
    frames = [Frame(pixels, time, k) for k, time in enumerate(times)]
    return watch(frames, device=torch.device("cpu"), stage=Script())  # type: ignore[arg-type]


def test_whoever_is_seen_most_is_followed(caplog: pytest.LogCaptureFixture) -> None:
    other, main, again = (0, 90.0, 30.0), (1, 30.0, 40.0), (2, 50.0, 40.0)
    with caplog.at_level("INFO", "facekit"):
        track = watched([[other], [main, other], [main], [other], [main], [again]], [0, 1, 1])
    # The other never counts, though nobody else be there; a new track of the main one goes on.
    assert track.landmarks[:, 0, 0].tolist() == [30, 30, 30, 30, 30, 50]
    assert track.seen.tolist() == [False, True, True, False, True, True] and track.size == 200
    assert "several faces in 1 frames" in caplog.text and "not seen in 2 of 6" in caplog.text
    with pytest.raises(FacekitError, match="no face in any of its 3 frames"):
        watched([[], [], []], [])


def test_a_face_that_cannot_be_read_is_not_seen() -> None:
    track = watched([[(0, 30.0, 40.0)], [(0, 70.0, 40.0, 0.2)], [(0, 30.0, 40.0)]], [0])
    assert track.landmarks[:, 0, 0].tolist() == [30, 30, 30]
    assert track.seen.tolist() == [True, False, True]
    with pytest.raises(FacekitError, match="no face in any of its 1 frames"):
        watched([[(0, 30.0, 40.0, 0.2)]], [0])


def test_frames_that_go_back_in_time_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    rows = [[(0, x, 40.0)] for x in (10.0, 20.0, 30.0, 40.0, 50.0)]
    with caplog.at_level("INFO", "facekit"):
        track = watched(rows, [0], times=[0.0, 0.1, 0.1, 0.05, 0.2])
    assert track.times.tolist() == [0.0, 0.1, 0.2]
    assert track.landmarks[:, 0, 0].tolist() == [10, 20, 50]
    assert "2 frames that are not later" in caplog.text


def test_a_motion_of_no_moments_is_refused() -> None:
    with pytest.raises(FacekitError, match="no moments"):
        from_performances([])


def test_lids_are_no_expression() -> None:
    assert [UNITS[i] for i in BLINKS] == ["eyeBlinkLeft", "eyeBlinkRight"]
