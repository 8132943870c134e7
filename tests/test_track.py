"""Tracks, cuts, smooth points, people known again. The oracles: scripted scenes and truth."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from faces_of_noise import landmarks_at

from facekit.faces.cuts import CutFinder
from facekit.faces.people import Album, identify, two_people
from facekit.faces.smooth import Smoother
from facekit.faces.track import Tracker
from facekit.types import Face, Sighting, Track

CPU = torch.device("cpu")


def face(x, y, side=100.0, score=0.99):
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]) * side
    box = np.array([x, y, x + side, y + side], np.float32)
    return Face(box=box, points=np.float32(points + np.array([x, y])), score=score)


def landmarks(points, deviation=1.0, presence=0.99, pose=(0.0, 0.0, 0.0)):
    wide = np.broadcast_to(np.float32(deviation), (70,)).copy()
    return landmarks_at(points, deviation=wide, presence=presence, pose=pose)


# --- tracks


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


@pytest.mark.parametrize("rate", [10, 30])
@pytest.mark.parametrize("hidden", [False, True])
def test_two_people_who_walk_past_one_another_keep_their_tracks(rate, hidden):
    # At 250 pixels a second each; where they meet, the one in front hides the other.
    tracker = Tracker()
    random = np.random.default_rng(0)
    for index in range(2 * rate):
        time = index / rate
        left, right = face(250 * time, 0), face(500 - 250 * time, 10)
        meeting = abs(left.box[0] - right.box[0]) < 60
        seen = {0: left} if hidden and meeting else {0: left, 1: right}
        order = random.permutation(list(seen))
        ids = tracker.update([seen[i] for i in order], time, index)
        assert ids == order.tolist()


def test_a_face_is_known_again_where_it_comes_out_or_where_it_vanished():
    for comes_out in (300 + 1.2 * 200, 300):
        tracker = Tracker()
        for index in range(30):
            tracker.update([face(100 + 200 * index / 30, 0)], index / 30, index)
        assert tracker.update([], 1.1, 33) == []
        assert tracker.update([face(comes_out, 4)], 2.2, 66) == [0]


def test_tracks_end_at_a_cut_and_known_faces_need_not_overlap():
    tracker = Tracker()
    assert tracker.update([face(0, 0), face(300, 0)], 0.0, 0) == [0, 1]
    assert tracker.update([face(300, 0), face(0, 0)], 0.1, 1, known=[0, None]) == [0, 2]
    assert tracker.open == {0, 1, 2}
    assert tracker.update([face(300, 0)], 0.2, 2, cut=True, known=[0]) == [3]
    assert tracker.open == {3}
    # Two faces cannot be one track's.
    assert tracker.update([face(300, 0), face(0, 0)], 0.3, 3, known=[3, 3]) == [3, 4]


def test_sightings_are_small():
    tracker = Tracker()
    batch = np.zeros((1000, 4), np.float32) + np.array([0, 0, 9, 9], np.float32)
    whole = replace(face(0, 0), box=batch[7], landmarks=landmarks(np.zeros((70, 2))))
    tracker.update([whole], 0.0, 0)
    kept = tracker.tracks[0].sightings[0].face
    assert kept.landmarks is None
    assert kept.box.base is None
    np.testing.assert_array_equal(kept.box, whole.box)


# --- cuts


def scenes():
    pictures = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    pictures.append(np.repeat(skimage.data.camera()[..., None], 3, axis=2))
    return [cv2.resize(p, (400, 300), interpolation=cv2.INTER_AREA) for p in pictures]


def shot(picture, frames, speed=0.0, seed=0):
    """A hand-held camera that turns by ``speed`` pixels a frame."""
    random = np.random.default_rng(seed)
    place = np.array([20.0, 20.0])
    for _ in range(frames):
        place = np.clip(place + random.normal(0, 0.7, 2) + [speed, 0], 0, [150, 60])
        x, y = place.round().astype(int)
        noise = random.normal(0, 3, (240, 250, 1))
        yield np.clip(picture[y : y + 240, x : x + 250] + noise, 0, 255).astype(np.uint8)


def found_cuts(frames):
    finder = CutFinder()
    return [i for i, pixels in enumerate(frames) if finder.cut(pixels)]


@pytest.mark.parametrize("speed", [0, 8, 25])
def test_cuts_are_found_and_pans_are_none(speed):
    frames = [pixels for i, p in enumerate(scenes()) for pixels in shot(p, 12, speed, i)]
    assert found_cuts(frames) == [12, 24, 36]


def test_people_before_one_backdrop_are_cut_apart():
    # The backdrop is four fifths of the picture.
    backdrop, head = scenes()[1], skimage.data.astronaut()[:220, 120:340]
    other = head[:, ::-1].copy()
    pictures = []
    for person in (head, other):
        picture = backdrop.copy()
        picture[60:210, 110:260] = cv2.resize(person, (150, 150), interpolation=cv2.INTER_AREA)
        pictures.append(picture)
    frames = [pixels for i, p in enumerate(pictures) for pixels in shot(p, 10, 0, i)]
    assert found_cuts(frames) == [10]


def test_flashes_lamps_and_black_frames_are_no_cuts():
    frames = list(shot(scenes()[0], 30))
    for i, change in (
        (6, lambda p: p * 0 + 250),
        (12, lambda p: p * 0.3),
        (18, lambda p: p * 1.3 + 50),
        (24, lambda p: p * 0),
    ):
        frames[i] = np.clip(change(frames[i].astype(float)), 0, 255).astype(np.uint8)
    assert found_cuts(frames) == []
    # A cut that hides behind a flash is found.
    frames = [*frames[:7], *shot(scenes()[1], 5)]
    assert found_cuts(frames) == [7]


def test_another_size_is_a_cut_and_tiny_pictures_are_compared():
    small = [np.zeros((1, 1, 3), np.uint8)] * 2
    assert found_cuts([*small, np.zeros((3, 900, 3), np.uint8), *small]) == [2, 3]


# --- smooth points


FACE = np.concatenate(
    [
        np.stack([-np.cos(a := np.linspace(0, np.pi, 17)), 0.3 + 1.1 * np.sin(a)], 1),
        np.stack([np.linspace(-0.8, 0.8, 10), np.full(10, -0.25)], 1),
        np.stack([np.zeros(4), np.linspace(0, 0.4, 4)], 1),
        np.stack([np.linspace(-0.2, 0.2, 5), np.full(5, 0.5)], 1),
        *(
            np.stack([x - 0.2 * np.cos(a), 0.08 * np.sin(a)], 1)
            for x in (-0.5, 0.5)
            for a in [np.linspace(0, 2 * np.pi, 6, endpoint=False)]
        ),
        *(
            np.stack([-w * np.cos(a), 0.85 + 0.3 * w * np.sin(-a)], 1)
            for w, n in ((0.4, 12), (0.3, 8))
            for a in [np.linspace(0, 2 * np.pi, n, endpoint=False)]
        ),
        np.array([[-0.5, 0], [0.5, 0]]),
    ]
)
"""A face's 70 points; the eyes are 1 apart."""


def performance(times, size=60.0):
    """A head that tilts, moves and approaches, whose mouth opens and lids close: (T, 70, 2)."""
    shapes = np.tile(FACE, (len(times), 1, 1))
    opening = 0.25 * np.clip(np.sin(9 * times), 0, 1)
    shapes[:, 54:60, 1] += opening[:, None]
    shapes[:, 64:68, 1] += opening[:, None]
    shut = 1 - np.clip(1 - np.abs((times + 0.5) % 2 - 1) / 0.15, 0, 1)
    shapes[:, 36:48, 1] *= shut[:, None]
    angle = 0.15 * np.sin(2.3 * times)
    turn = np.exp(1j * angle) * (1 + 0.1 * np.sin(times)) * size
    places = (shapes[..., 0] + 1j * shapes[..., 1]) * turn[:, None]
    places += (200 + 90 * np.sin(1.7 * times) + 1j * (200 + 30 * np.sin(3.1 * times)))[:, None]
    return np.stack([places.real, places.imag], -1)


def trembling(truth, deviation, seed=0):
    """As a network reads: half of the error stays from frame to frame."""
    random = np.random.default_rng(seed)
    noise = random.normal(0, 1, truth.shape)
    for i in range(1, len(noise)):
        noise[i] = 0.5 * noise[i - 1] + 0.75**0.5 * noise[i]
    return truth + noise * deviation


def smoothed(measured, times, tremor):
    deviation = tremor / 0.3  # most of which is there in each frame alike
    smoother = Smoother(landmarks(measured[0], deviation), float(times[0]))
    rest = zip(measured[1:], times[1:], strict=True)
    return np.array(
        [measured[0]] + [smoother.update(landmarks(m, deviation), float(t)) for m, t in rest]
    )


def one_euro(measured, times, cutoff, beta, size):
    """Casiez et al., 2012, with speeds relative to the face's size."""
    result, speed = [measured[0]], np.zeros_like(measured[0])
    for now, passed in zip(measured[1:], np.diff(times), strict=True):

        def share(frequency, passed=passed):
            return 1 / (1 + 1 / (2 * np.pi * frequency * passed))

        speed = speed + share(1.0) * ((now - result[-1]) / passed / size - speed)
        result.append(result[-1] + share(cutoff + beta * np.abs(speed)) * (now - result[-1]))
    return np.array(result)


def jitter(points, truth):
    return np.sqrt((np.diff(points - truth, 2, axis=0) ** 2).mean())


def lag(points, truth, times):
    """In frames: points(t) are best explained by truth(t - lag)."""
    speed = np.gradient(truth, times, axis=0)
    return -((points - truth) * speed).sum() / (speed**2).sum() / np.diff(times).mean()


def test_points_tremble_less_and_do_not_lag():
    times = np.arange(0, 8, 1 / 30)
    truth = performance(times)
    raw = trembling(truth, 0.9)
    points = smoothed(raw, times, 0.9)
    assert jitter(points, truth) < 0.6 * jitter(raw, truth)
    assert abs(lag(points, truth, times)) < 0.1
    assert np.sqrt(((points - truth) ** 2).mean()) < 0.9 * np.sqrt(((raw - truth) ** 2).mean())
    # One-euro filters either tremble more or lag by many times as much.
    for cutoff, beta in ((1, 1), (1, 5), (2, 5), (3, 10)):
        other = one_euro(raw, times, cutoff, beta, 60)
        behind = lag(other, truth, times)
        assert jitter(other, truth) > 1.1 * jitter(points, truth) or behind > 0.4
        assert behind > 10 * abs(lag(points, truth, times))


def test_points_are_smooth_in_time_and_not_in_frames():
    random = np.random.default_rng(1)
    even = np.arange(0, 8, 1 / 60)
    times = even[np.sort(random.choice(len(even), 240, replace=False))]
    truth = performance(times)
    raw = trembling(truth, 0.9)
    points = smoothed(raw, times, 0.9)
    assert abs(lag(points, truth, times)) < 0.15
    assert np.sqrt(((points - truth) ** 2).mean()) < 0.9 * np.sqrt(((raw - truth) ** 2).mean())


def test_a_blink_is_not_smoothed_away():
    times = np.arange(0, 4, 1 / 30)
    truth = performance(times)
    points = smoothed(trembling(truth, 0.6), times, 0.6)
    openness = [
        np.ptp(p[:, 36:42, 1], axis=1) / np.ptp(p[:, 36:42, 0], axis=1) for p in (truth, points)
    ]
    shut = openness[0] < 0.15
    assert shut.sum() >= 4
    assert openness[1][shut].mean() < 0.5 * openness[0].max()


def test_points_that_hold_still_are_steadier_than_any_reading():
    times = np.arange(0, 4, 1 / 30)
    truth = np.tile(60 * FACE + 200, (len(times), 1, 1))
    random = np.random.default_rng(0)
    raw = truth + random.normal(0, 1.2, truth.shape)
    points = smoothed(raw, times, 1.2)
    assert points[30:].std(axis=0).mean() < 0.65 * raw[30:].std(axis=0).mean()


def test_the_next_place_is_where_the_motion_leads():
    times = np.arange(0, 1, 1 / 30)
    moving = 60 * FACE + 200 + times[:, None, None] * np.array([150.0, -40.0])
    smoother = Smoother(landmarks(moving[0]), 0.0)
    for points, time in zip(moving[1:], times[1:], strict=True):
        smoother.update(landmarks(points), float(time))
    ahead = 60 * FACE + 200 + (times[-1] + 0.1) * np.array([150.0, -40.0])
    np.testing.assert_allclose(smoother.expected(times[-1] + 0.1), ahead, atol=0.5)


# --- people


class Colours:
    """An identity network to which the colour of a face is who it is."""

    template, size, licence = "arcface", 32, "Apache-2.0"

    def __init__(self):
        self.batches = []

    def embed(self, crops):
        self.batches.append(len(crops))
        means = crops.reshape(len(crops), -1, 3).mean(axis=1) - 128
        return np.float32(means / np.linalg.norm(means, axis=1, keepdims=True))


def track(id, start, end):
    return Track(id, [Sighting(start, 0, face(0, 0)), Sighting(end, 0, face(0, 0))])


def unit(degrees):
    return np.float32([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


def people(tracks, angles, same=0.866):  # 30 degrees
    identify(tracks, {t.id: unit(a) for t, a in zip(tracks, angles, strict=True)}, same)
    return [t.person for t in tracks]


def test_tracks_that_look_alike_are_one_person_unless_they_overlap_in_time():
    apart = [track(0, 0, 1), track(1, 2, 3), track(2, 4, 5), track(3, 6, 7)]
    assert people(apart, [0, 90, 10, 95]) == [0, 1, 0, 1]
    assert people(apart, [0, 50, 100, 150]) == [0, 1, 2, 3]
    together = [track(0, 0, 3), track(1, 2, 3), track(2, 4, 5)]
    assert people(together, [0, 20, 15]) == [0, 1, 1]
    # The third joins the nearest; the two others stay apart through it.
    assert people(together, [0, 12, 5]) == [0, 1, 0]
    assert people([], []) == []


def test_a_track_without_a_vector_is_somebody_else():
    tracks = [track(0, 0, 1), track(1, 2, 3), track(2, 4, 5)]
    identify(tracks, {0: unit(0), 2: unit(5)}, 0.9)
    assert [t.person for t in tracks] == [0, 1, 0]


def test_an_album_spreads_few_crops_over_a_tracks_time():
    embedder = Colours()
    album = Album(embedder, CPU)
    red, blue = np.full((80, 80, 3), (200, 60, 60), np.uint8), np.full((80, 80, 3), 60, np.uint8)
    blue[..., 2] = 200
    for index in range(3000):
        # Half of the time each.
        album.add(red if index < 1500 else blue, index / 30, [face(0, 0, 80)], [0])
    album.add(red, 100.0, [face(0, 0, 80)], [1])
    album.end([0])
    vectors = album.vectors()
    assert sum(embedder.batches) <= 9
    assert set(vectors) == {0, 1}
    share_red, share_blue = vectors[0][0] + 1e-6, vectors[0][2]
    assert 0.4 < share_red / share_blue < 2.5


def test_an_album_prefers_frontal_faces_and_forgets_the_crops_of_ended_tracks():
    embedder = Colours()
    album = Album(embedder, CPU)
    red, blue = np.full((80, 80, 3), (200, 60, 60), np.uint8), np.full((80, 80, 3), 60, np.uint8)
    blue[..., 2] = 200
    front = replace(face(0, 0, 80), landmarks=landmarks(FACE))
    side = replace(face(0, 0, 80), landmarks=landmarks(FACE, pose=(60.0, 0.0, 0.0)))
    album.add(blue, 0.0, [side], [0])
    album.add(red, 0.05, [front], [0])
    album.add(blue, 0.1, [side], [0])
    assert album.vectors()[0][0] > 0.5

    for id in range(1, 200):
        album.add(red, float(id), [front], [id])
        album.end([id])
    # Embedded as the video goes on, many at once.
    assert len(embedder.batches) >= 3
    assert len(album.vectors()) == 200


# Two people's photos under one name ------------------------------------------------------------


def around(centre: np.ndarray, count: int, spread: float, seed: int) -> np.ndarray:
    vectors = centre + spread * np.random.default_rng(seed).standard_normal((count, len(centre)))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("first", "second"), [(20, 20), (30, 8), (5, 5)])
def test_two_people_under_one_name_are_told_apart(first: int, second: int) -> None:
    a, b = np.eye(32)[:2]
    vectors = np.concatenate([around(a, first, 0.08, 1), around(b, second, 0.08, 2)])
    order = np.random.default_rng(3).permutation(len(vectors))
    found = two_people(vectors[order])
    assert found is not None
    truth = order >= first
    assert np.array_equal(found, truth) or (first == second and np.array_equal(found, ~truth))


@pytest.mark.parametrize("count", [1, 5, 6, 40])
def test_one_person_is_one_however_they_turn(count: int) -> None:
    assert two_people(around(np.eye(32)[0], count, 0.1, 1)) is None


def test_a_few_odd_pictures_are_not_a_second_person() -> None:
    a, b = np.eye(32)[:2]
    assert two_people(np.concatenate([around(a, 40, 0.08, 1), around(b, 4, 0.08, 2)])) is None
    assert two_people(np.repeat(np.eye(32, dtype=np.float32)[:1], 10, 0)) is None  # all the same
