"""The face stage over scripted videos: who is followed, when the locator looks, how it ends."""

import threading
import time
from collections import Counter
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from faces_of_noise import landmarks_at

from facekit.core.errors import FacekitError
from facekit.faces.landmarks import box_of, five_points
from facekit.faces.stage import Stage
from facekit.types import Face, Frame
from tests.test_track import FACE, Colours

CPU = torch.device("cpu")
SIZE = (240, 320)  # of frames


@cache
def backdrops():
    shown = [skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket()]
    return [cv2.resize(one, SIZE[::-1], interpolation=cv2.INTER_AREA) for one in shown]


class World:
    """A scripted video: where each person's face is at each frame, and what networks make of it.

    Each frame carries its number in its first pixels, from which the fake networks know it.
    """

    def __init__(self, length, rate=30.0, noise=0.0):
        self.length = length
        self.times = [i / rate for i in range(length)]
        self.people = {}  # name → a function of the frame's number: (x, y, eye distance) or None
        self.hidden = Counter()
        self.colours = {}
        self.cuts = []
        self.looks = []  # the numbers of the frames at which the locator looked
        self.reads = []  # the numbers of faces read at once
        self.doubt = lambda index: 1.0
        self.unseen = lambda name, index: False  # whether the locator misses a face that is there
        self.noise = np.random.default_rng(0)
        self.level = noise

    def add(self, name, place, colour=(200, 90, 90)):
        self.people[name] = place
        self.colours[name] = colour

    def points(self, index):
        found = {}
        for name, place in self.people.items():
            where = place(index)
            if where is not None:
                x, y, eyes = where
                found[name] = np.float32(FACE * eyes + np.array([x, y]))
        return found

    def frames(self):
        for index in range(self.length):
            pixels = backdrops()[sum(cut <= index for cut in self.cuts) % 3].copy()
            for name, points in self.points(index).items():
                x0, y0, x1, y1 = np.clip(box_of(points), 0, SIZE[::-1] * 2).astype(int)
                pixels[y0:y1, x0:x1] = self.colours[name]
            pixels[0, :2] = [[index // 256, index % 256, 7], [1, 2, 3]]
            yield Frame(pixels, self.times[index], index)

    # The locator …
    def locate(self, images):
        found = []
        for pixels in images:
            index = int(pixels[0, 0, 0]) * 256 + int(pixels[0, 0, 1])
            self.looks.append(index)
            faces = [
                Face(box_of(points), five_points(points), 0.99)
                for name, points in self.points(index).items()
                if not self.unseen(name, index)
            ]
            found.append(sorted(faces, key=lambda face: -face.size))
        return found

    # … and the landmark network: it sees the nearest face that lies within its crop.
    def read(self, images, faces, *, mirrored=False):
        (pixels,), (expected,) = images, faces
        index = int(pixels[0, 0, 0]) * 256 + int(pixels[0, 0, 1])
        self.reads.append(len(expected))
        truth = list(self.points(index).values())
        return [[self._read(face, truth, index) for face in expected]]

    def _read(self, face, truth, index):
        middle = face.points.mean(axis=0)
        near = min(truth, key=lambda p: np.abs(five_points(p).mean(0) - middle).max(), default=None)
        there = near is not None and (
            np.abs(five_points(near).mean(0) - middle).max() < 0.4 * face.size
        )
        points = near if there else np.float32(FACE * 20) + middle
        points = points + self.noise.normal(0, 1, (70, 2)) * self.level
        marks = landmarks_at(
            points,
            deviation=np.full(70, self.doubt(index), np.float32),
            eyes=np.zeros(2, np.float32),
            presence=0.99 if there else 0.02,
        )
        if not there:
            return replace(face, landmarks=marks)
        return replace(
            face, box=box_of(marks.points), points=five_points(marks.points), landmarks=marks
        )

    def stage(self, **options):
        return Stage(CPU, locator=self, landmarker=self, embedder=Colours(), **options)

    def follow(self, **options):
        self.looks, self.reads = [], []
        stage = self.stage(**options)
        return list(stage.follow(self.frames())), stage.tracks


def still(x=100, y=100, eyes=25):
    return lambda index: (x, y, eyes)


def owner(world, seen, name):
    """The track's id that a person has in a frame; None if they are not seen."""
    centre = five_points(world.points(seen.frame.index)[name]).mean(axis=0)
    for face, id in zip(seen.faces, seen.ids, strict=True):
        if np.abs(face.points.mean(axis=0) - centre).max() < 0.25 * face.size:
            return id
    return None


def test_a_face_is_followed_and_the_locator_looks_at_every_kth_frame():
    for every in (1, 5, 8):
        world = World(41)
        world.add("a", lambda i: (60 + 4 * i, 100 + 2 * (i % 3), 25))
        seen, tracks = world.follow(every=every)
        assert world.looks == list(range(0, 41, every))
        assert [s.located for s in seen] == [i % every == 0 for i in range(41)]
        assert [s.frame.index for s in seen] == list(range(41))
        assert all(s.ids == [0] for s in seen)
        for s in seen:
            truth = world.points(s.frame.index)["a"]
            assert s.faces[0].landmarks is not None
            np.testing.assert_allclose(s.faces[0].landmarks.points, truth, atol=0.6)
            np.testing.assert_allclose(s.faces[0].points, five_points(truth), atol=0.6)
        assert len(tracks) == 1
        assert len(tracks[0].sightings) == 41
        assert tracks[0].person == 0


def test_all_faces_of_a_frame_are_read_in_one_batch():
    world = World(20)
    for k in range(3):
        world.add(k, still(60 + 90 * k))
    seen, _ = world.follow()
    assert all(sorted(s.ids) == [0, 1, 2] for s in seen)
    # Once to follow them into a frame; where the locator looks, once more for those who are new.
    assert max(world.reads) == 3
    assert sum(n == 3 for n in world.reads) == 20


def test_a_new_face_is_found_at_the_next_look_of_the_locator():
    for start in range(9, 17):
        world = World(30)
        world.add("a", still())
        world.add("b", lambda i, start=start: (230, 120, 25) if i >= start else None)
        seen, _ = world.follow(every=8)
        first = next(s.frame.index for s in seen if len(s.ids) == 2)
        assert first == -(-start // 8) * 8
        assert all(len(s.ids) == 2 for s in seen[first:])


def test_where_nobody_is_seen_the_locator_still_looks_at_every_kth_frame_only():
    world = World(40)
    seen, tracks = world.follow(every=8)
    assert world.looks == [0, 8, 16, 24, 32]
    assert all(s.faces == [] and s.ids == [] for s in seen)
    assert tracks == []


def test_a_lost_face_calls_the_locator_at_once_and_is_dropped():
    world = World(60)
    world.add("a", lambda i: (100, 100, 25) if i < 20 else None)
    seen, _ = world.follow(every=16)
    assert sorted(world.looks) == [0, 16, 20, 32, 48]
    assert all(len(s.ids) == (s.frame.index < 20) for s in seen)
    # A jump, too fast to follow: found again in the same frame, and the same person's.
    world.people["a"] = lambda i: (100, 100, 25) if i < 20 else (135, 100, 25)
    seen, _ = world.follow(every=16)
    assert sorted(world.looks) == [0, 16, 20, 32, 48]
    assert all(s.ids == [0] for s in seen)


def test_growing_doubt_calls_the_locator_once():
    world = World(32)
    world.add("a", still())
    world.doubt = lambda index: 1.0 if index < 11 else 2.5
    seen, _ = world.follow(every=16)
    # The thread that looks ahead may have come to the 16th before the 11th was asked for.
    assert sorted(world.looks) == [0, 11, 16]
    assert [s.frame.index for s in seen if s.located] == [0, 11, 16]
    assert all(s.ids == [0] for s in seen)


def test_a_face_that_the_locator_keeps_missing_is_dropped():
    # Landmarks alone could follow a pattern in the wallpaper for ever.
    world = World(60)
    world.add("a", still())
    world.unseen = lambda name, index: index >= 10
    seen, _ = world.follow(every=8)
    assert all(s.ids == [0] for s in seen[:24])
    assert all(s.ids == [] for s in seen[32:])
    # Missed once or twice it is followed on.
    world.unseen = lambda name, index: index in (16, 24)
    seen, _ = world.follow(every=8)
    assert all(s.ids == [0] for s in seen)


def test_a_face_that_cannot_be_read_is_seen_where_it_is_located():
    world = World(20)
    world.add("a", still())
    read = world._read
    world._read = lambda face, truth, index: read(face, [], index)
    seen, tracks = world.follow(every=8)
    assert all(s.ids == [0] for s in seen if s.located)
    assert all(s.ids == [] for s in seen if not s.located)
    # It is looked for more often than others, but not in each frame.
    assert 5 <= len(world.looks) <= 8
    assert len(tracks) == 1


def test_people_who_cross_keep_their_tracks():
    world = World(60, noise=0.4)
    world.add("a", lambda i: (40 + 4 * i, 100, 22))
    # Taller, so that the one does not wholly hide the other.
    world.add("b", lambda i: (280 - 4 * i, 135, 26))
    seen, tracks = world.follow()
    assert len(tracks) == 2
    first = {name: owner(world, seen[0], name) for name in "ab"}
    for s in seen[40:]:
        assert {name: owner(world, s, name) for name in "ab"} == first


def test_one_who_passes_behind_another_keeps_the_track():
    world = World(80)

    def behind(i):
        x = 30 + 3.5 * i
        return None if abs(x - 160) < 25 else (x, 100, 22)

    world.add("a", behind, colour=(90, 90, 200))
    world.add("b", still(160, 100, 25))
    seen, tracks = world.follow()
    assert len(tracks) == 2
    assert owner(world, seen[-1], "a") == owner(world, seen[0], "a")
    assert owner(world, seen[-1], "b") == owner(world, seen[0], "b")
    assert all(len(set(s.ids)) == len(s.ids) for s in seen)


def test_a_cut_ends_tracks_and_a_person_is_known_again_after_it():
    red, blue = (220, 60, 60), (60, 60, 220)
    world = World(60)
    world.cuts = [20, 40]
    # Both sit where the other sat.
    world.add("a", lambda i: (150, 110, 30) if not 20 <= i < 40 else None, red)
    world.add("b", lambda i: (152, 108, 30) if 20 <= i < 40 else None, blue)
    seen, tracks = world.follow(every=8)
    assert [s.frame.index for s in seen if s.cut] == [20, 40]
    assert all(s.located for s in seen if s.cut)
    assert [s.ids for s in seen] == [[0]] * 20 + [[1]] * 20 + [[2]] * 20
    assert [track.person for track in tracks] == [0, 1, 0]


def test_points_are_smoothed_but_not_over_a_cut():
    world = World(60, noise=1.5)
    world.doubt = lambda index: 5.0
    world.cuts = [30]
    world.add("a", lambda i: (150, 110, 30) if i < 30 else (170, 100, 33))
    seen, _ = world.follow()
    errors = [s.faces[0].landmarks.points - world.points(s.frame.index)["a"] for s in seen]
    spread = np.std(errors[5:30])
    assert spread < 1.1
    assert abs(np.mean(errors[30])) < 0.5
    assert np.std(errors[30]) < 2
    raw = replace(seen[30].faces[0])
    np.testing.assert_array_equal(raw.points, five_points(raw.landmarks.points))
    np.testing.assert_array_equal(raw.box, box_of(raw.landmarks.points))


def test_frames_far_apart_in_time_are_located_one_by_one():
    world = World(30)
    world.times = [0.04 * i for i in range(10)] + [0.4 + 0.5 * i for i in range(10)]
    world.times += [5.0 + 0.04 * i for i in range(10)]
    world.add("a", lambda i: (100 + 2 * i, 100, 25))
    seen, tracks = world.follow(every=8)
    assert sorted(world.looks) == [0, 8, *range(11, 20), 24]
    assert all(s.ids == [0] for s in seen)
    assert len(tracks) == 1


def test_frames_of_another_size_begin_another_scene():
    world = World(20)
    world.add("a", still())
    frames = list(world.frames())
    for i in range(10, 20):
        taller = np.concatenate([frames[i].pixels, np.zeros((50, SIZE[1], 3), np.uint8)])
        frames[i] = replace(frames[i], pixels=taller)
    seen = list(world.stage().follow(frames))
    assert [s.frame.index for s in seen if s.cut] == [10]
    assert [s.ids for s in seen] == [[0]] * 10 + [[1]] * 10


def test_a_face_that_leaves_the_picture_is_dropped():
    world = World(40)
    world.add("a", lambda i: (200 + 8 * i, 100, 25))
    world.unseen = lambda name, index: index > 12
    seen, _ = world.follow()
    assert seen[5].ids == [0]
    assert all(s.ids == [] for s in seen if 200 + 8 * s.frame.index > SIZE[1] + 10)


def test_the_same_video_gives_the_same_however_the_threads_are_timed():
    def run(slow_decode, slow_use):
        world = World(40, noise=1.0)
        world.add("a", lambda i: (60 + 4 * i, 100, 25) if i % 20 < 17 else None)
        world.add("b", still(200, 140))

        def frames():
            for frame in world.frames():
                time.sleep(slow_decode)
                yield frame

        found = []
        for seen in world.stage().follow(frames()):
            time.sleep(slow_use)
            found.append(
                (
                    seen.ids,
                    seen.located,
                    [f.landmarks.points.tobytes() + f.box.tobytes() for f in seen.faces],
                )
            )
        return found, sorted(world.looks)

    assert run(0, 0) == run(0.002, 0) == run(0, 0.002)


def fetchers():
    return [thread for thread in threading.enumerate() if thread.name == "facekit frames"]


def test_the_thread_ends_with_the_generator_and_fetches_but_few_frames_ahead():
    world = World(200)
    world.add("a", still())
    fetched = []
    closed = []

    def frames():
        try:
            for frame in world.frames():
                fetched.append(frame.index)
                yield frame
        finally:
            closed.append(True)

    following = world.stage().follow(frames())
    assert fetched == []
    next(following)
    assert len(fetchers()) == 2
    deadline = time.monotonic() + 5
    while len(fetched) < 7 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(fetched) <= 12
    following.close()
    assert fetchers() == []
    assert closed == [True]

    # So does one that is left by an error, and one that ends.
    with pytest.raises(ZeroDivisionError):
        for _ in world.stage().follow(world.frames()):
            1 / 0  # noqa: B018
    list(world.stage().follow(world.frames()))
    assert fetchers() == []


def test_errors_of_the_reader_of_frames_and_of_the_networks_arrive():
    world = World(30)
    world.add("a", still())

    def broken():
        for frame in world.frames():
            if frame.index == 12:
                raise FacekitError("clip.mp4: breaks off")
            yield frame

    seen = []
    with pytest.raises(FacekitError, match="breaks off"):
        seen.extend(world.stage().follow(broken()))

    def interrupted():
        yield from ()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(world.stage().follow(interrupted()))
    world.locate = lambda images: 1 / 0
    with pytest.raises(ZeroDivisionError):
        list(world.stage().follow(world.frames()))
    assert fetchers() == []


def test_what_was_seen_before_an_error_is_there():
    world = World(30)
    world.add("a", still())

    def broken():
        for frame in world.frames():
            if frame.index == 12:
                raise FacekitError("clip.mp4: breaks off")
            yield frame

    following = world.stage().follow(broken())
    assert [next(following).frame.index for _ in range(12)] == list(range(12))
    with pytest.raises(FacekitError):
        next(following)


def test_no_frames_and_videos_one_after_the_other():
    world = World(20)
    world.add("a", still())
    stage = world.stage()
    assert list(stage.follow([])) == []
    assert stage.tracks == []
    list(stage.follow(world.frames()))
    first = stage.tracks
    list(stage.follow(world.frames()))
    assert stage.tracks is not first
    assert [track.id for track in stage.tracks] == [0]


def test_memory_stays_flat_over_a_long_video():
    import tracemalloc

    world = World(1)
    world.add("a", still())
    (frame,) = world.frames()
    length = 900

    def frames(count):
        for i in range(count):
            yield Frame(frame.pixels.copy(), i / 30, i)

    stage = world.stage(every=30)
    tracemalloc.start()
    list_of = 0
    marks = {}
    for seen in stage.follow(frames(length)):
        list_of += len(seen.faces)
        if seen.frame.index in (300, length - 1):
            marks[seen.frame.index] = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert list_of == length
    # What a track keeps of a sighting: box, points, time.
    grown = marks[length - 1] - marks[300]
    assert grown / (length - 300) < 1000


# --- pictures


def test_pictures_are_located_and_read():
    world = World(3)
    world.add("a", still())
    pictures = [frame.pixels for frame in world.frames()]
    calls = []

    class Reader:
        def read(self, images, faces, *, mirrored=False):
            calls.append(len(images))
            return [world.read([p], [f])[0] for p, f in zip(images, faces, strict=True)]

    stage = Stage(CPU, locator=world, landmarker=Reader(), embedder=Colours())
    found = stage.look(pictures)
    assert calls == [3]
    assert [len(faces) for faces in found] == [1, 1, 1]
    assert all(faces[0].landmarks.presence > 0.9 for faces in found)
    assert stage.look([]) == []
