import ctypes.util
import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facekit.core.errors import FacekitError
from facekit.studio import basis, eyes, fit, motion, scene, speech
from facekit.studio.landmarks import landmarks
from facekit.studio.performance import FACE_UNITS, Performance
from facekit.studio.person import Person
from facekit.studio.render import model, posed
from facekit.studio.rotations import angles, rotation

MEASURED_AT = 100  # Frames a second at which movement is measured.


@pytest.fixture(scope="module")
def minute():
    """Four clips of 15 s, finely sampled."""
    return [Performance.clip(15, MEASURED_AT, seed) for seed in range(4)]


def units(clip, name):
    return np.array([p.expression.get(name, 0.0) for p in clip])


# --- one moment --------------------------------------------------------------------------------


def test_the_face_units_are_arkits_52():
    assert len(FACE_UNITS) == 52 == len(set(FACE_UNITS))
    assert set(FACE_UNITS) <= set(basis.load().names)


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_a_sampled_performance_is_within_its_own_bounds(seed):
    performance = Performance.sample(seed)
    assert Performance.from_json(json.loads(json.dumps(performance.to_json()))) == performance
    assert Performance.model_validate_json(performance.model_dump_json()) == performance
    yaw, pitch, _ = performance.pose
    assert abs(yaw) <= 60
    assert abs(pitch) <= 25
    # Nobody turns the head alone by 60 degrees.
    assert abs(performance.yaw) <= 50
    assert abs(performance.neck_yaw) <= 25
    assert set(performance.expression) <= set(FACE_UNITS)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"expression": {"jawOpn": 0.5}}, "did you mean 'jawOpen'"),
        ({"expression": {"jawOpen": 1.5}}, "allowed: 0 to 1"),
        ({"yaw": 120.0}, "less than or equal to 90"),
        ({"camera_yaw": 61.0}, "less than or equal to 60"),
        ({"camera_pitch": -26.0}, "greater than or equal to -25"),
        ({"noise": 0.2}, "less than or equal to 0.1"),
        ({"blur": -0.1}, "greater than or equal to 0"),
        ({"lamps": [{"azimuth": 1.0, "elevation": 200.0}]}, "less than or equal to 90"),
        ({"lamps": [{"azimuht": 1.0}]}, "did you mean|unknown key"),
        ({"lamps": [{}, {}, {}, {}]}, "at most 3 items"),
        ({"environment": [[0.0, 0.0, 0.0]] * 8}, "environment"),
        ({"smile": 1}, "unknown key 'smile'"),
    ],
)
def test_a_performance_out_of_bounds_is_refused(values, words):
    with pytest.raises(FacekitError, match=words):
        Performance.from_json(values)


def test_the_same_seed_gives_the_same_performance_and_another_seed_another():
    assert Performance.sample(3) == Performance.sample(3) != Performance.sample(4)
    assert Performance.clip(1, 25, 3) == Performance.clip(1, 25, 3) != Performance.clip(1, 25, 4)
    with pytest.raises(FacekitError, match="0 or more"):
        Performance.sample(-1)


def test_stills_cover_poses_and_expressions():
    stills = [Performance.sample(seed) for seed in range(800)]
    yaw = np.abs([p.pose[0] for p in stills])
    assert 0.75 < (yaw <= 30).mean() < 0.92
    assert yaw.max() > 55
    assert np.abs([p.pose[1] for p in stills]).max() > 18
    jaw = units(stills, "jawOpen")
    assert jaw.max() >= 0.6
    assert jaw.max() <= 0.7
    assert 0.2 < (jaw > 0.1).mean() < 0.6
    smile = np.array([units(stills, f"mouthSmile{side}") for side in ("Left", "Right")])
    assert 0.25 < (smile.mean(0) > 0.3).mean() < 0.7
    assert np.abs(smile[0] - smile[1]).max() > 0.2  # Some smile with one side.
    for name in ("browOuterUpLeft", "browDownLeft", "eyeWideLeft", "eyeBlinkLeft", "mouthPucker"):
        assert units(stills, name).max() > 0.3
    # Most look into the camera if they can.
    gaze = np.array([p.pose[0] + p.gaze_x for p in stills])[yaw < 28]
    assert 0.5 < (np.abs(gaze) < 5).mean() < 0.85


# --- its pose ----------------------------------------------------------------------------------

angle = st.floats(-55, 55)


@given(angle, angle, angle)
def test_angles_undo_rotation(yaw, pitch, roll):
    assert angles(rotation(yaw, pitch, roll)) == pytest.approx((yaw, pitch, roll), abs=0.01)


@given(angle, st.floats(-25, 25), angle, angle)
def test_the_pose_adds_up_camera_neck_and_head(camera, camera_pitch, neck, own):
    only_yaw = Performance(camera_yaw=camera, neck_yaw=neck * 0.8, yaw=own * 0.5)
    assert only_yaw.pose == pytest.approx(
        angles(rotation(camera + neck * 0.8 + own * 0.5, 0, 0)), abs=0.01
    )
    assert Performance(camera_pitch=camera_pitch).pose == pytest.approx(
        (0, camera_pitch, 0), abs=0.01
    )


# --- its light -----------------------------------------------------------------------------------


def test_the_cosine_weights_match_an_integral_over_the_sphere():
    random = np.random.default_rng(0)
    towards = random.normal(size=(400_000, 3))
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    environment = np.array(Performance.sample(5).environment)
    normal = np.array([0.3, 0.2, 0.933])
    normal /= np.linalg.norm(normal)
    radiance = scene.harmonics(towards) @ environment
    # Mean over the sphere times its area, over π.
    expected = 4 * (radiance * np.clip(towards @ normal, 0, None)[:, None]).mean(0)
    got = scene.white(environment, (), normal[None])[0]
    assert got == pytest.approx(expected, rel=0.02)


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_no_face_is_black_or_burnt(seed):
    performance = Performance.sample(seed)
    azimuth, elevation = np.meshgrid(np.arange(-60, 61, 15), np.arange(-40, 41, 20))
    normals = np.array(
        [scene.direction(a, e) for a, e in zip(azimuth.ravel(), elevation.ravel(), strict=True)]
    )
    shown = scene.white(np.array(performance.environment), performance.lamps, normals)
    # Of the first 3,000 seeds the brightest (567) has 1.36, the darkest 0.62.
    assert 0.55 < shown.mean() < 1.5
    assert shown.mean(1).min() > 0.15
    assert shown.mean(1).max() < 2.6
    assert len(performance.lamps) <= 3


def test_cameras_keep_heads_in_the_picture_and_large_enough():
    for seed in range(300):
        p = Performance.sample(seed)
        share = p.focal / scene.SENSOR * scene.HEAD_HEIGHT / (p.distance + 0.7)
        assert 0.54 < share < 0.86
        assert 5 <= p.distance <= 20
        assert p.centre_y - 0.55 * share > -0.03  # Crown.
        assert p.centre_y + 0.46 * share < 1.02  # Chin.


# --- clips ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, -1, 1e9, float("nan")])
def test_a_clip_of_no_length_is_refused(seconds):
    with pytest.raises(FacekitError, match="allowed"):
        Performance.clip(seconds)


@given(st.floats(0.01, 3), st.floats(1, 60), st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_a_clip_has_the_length_asked_for(seconds, rate, seed):
    clip = Performance.clip(seconds, rate, seed)
    assert len(clip) == max(round(seconds * rate), 1)
    assert [p.time for p in clip] == pytest.approx(np.arange(len(clip)) / rate, abs=1e-5)


def test_scene_and_camera_stand_still_through_a_clip():
    clip = Performance.clip(3, 25, 7)
    for a, b in pairwise(clip):
        assert (a.background, a.lamps, a.environment) == (b.background, b.lamps, b.environment)
        assert (a.distance, a.focal, a.camera_yaw) == (b.distance, b.focal, b.camera_yaw)


def test_heads_move_smoothly_and_as_fast_as_peoples(minute):
    # In conversation heads turn at up to about 60 to 100 degrees/s (Hadar, Steiner & Clifford
    # Rose 1985: most movements of speech stay below); a quick voluntary turn reaches several 100.
    for clip in minute:
        pose = np.array([p.pose for p in clip])
        assert np.abs(pose[:, 0]).max() <= 35
        assert pose[:, 0].std() > 1.5
        speed = np.diff(pose, axis=0) * MEASURED_AT
        assert 10 < np.abs(speed).max() < 100
        acceleration = np.diff(speed, axis=0) * MEASURED_AT
        assert np.abs(acceleration).max() < 900
        jerk = np.diff(acceleration, axis=0) * MEASURED_AT
        assert np.sqrt((jerk**2).mean()) < 3000
        # People pause: heads nearly rest for a part of the time.
        calm = np.linalg.norm(speed, axis=1) < 8
        assert 0.15 < calm.mean() < 0.9


def test_the_neck_goes_along_with_the_head(minute):
    neck = np.concatenate([[p.neck_yaw for p in clip] for clip in minute])
    own = np.concatenate([[p.yaw for p in clip] for clip in minute])
    assert np.corrcoef(neck, own)[0, 1] > 0.8
    assert 0.2 < np.abs(neck).mean() / np.abs(neck + own).mean() < 0.5


def test_blinks_are_as_frequent_and_as_long_as_peoples():
    # Bentivoglio et al. 1997: 17 a minute at rest, 26 in conversation. VanderWerf et al. 2003:
    # lids close in about 80 to 100 ms and open in about twice that.
    times = np.arange(0, 60, 1 / MEASURED_AT)
    rates, gaps, closing, opening = [], [], [], []
    for seed in range(1, 7):
        random = np.random.default_rng(seed)
        words = speech.babble(random, 60)
        moved = motion.talk(random, times, words.spoken, words.stresses, words.phrases)
        lid = moved["eyeBlinkLeft"]
        shut = np.flatnonzero((lid[1:] > 0.5) & (lid[:-1] <= 0.5))
        rates.append(len(shut))
        gaps += list(np.diff(shut) / MEASURED_AT)
        speed = np.diff(lid) * MEASURED_AT
        closing.append(speed.max())
        opening.append(-speed.min())
    assert 13 < np.mean(rates) < 26
    assert 0.4 < np.std(gaps) / np.mean(gaps) < 1.1  # Skewed, not a metronome.
    assert 0.03 < (np.array(gaps) < 0.6).mean() < 0.25  # Some come in pairs.
    assert min(gaps) > 0.15
    assert 1.4 < np.mean(closing) / np.mean(opening) < 3


def test_eyes_rest_and_jump_and_hold_their_sight_while_the_head_turns(minute):
    speeds, held, turned = [], [], []
    for clip in minute:
        ahead = np.array(
            [
                (p.camera_rotation @ p.head_rotation @ rotation(p.gaze_x, p.gaze_y, 0))[:, 2]
                for p in clip
            ]
        )
        cosine = np.clip((ahead[1:] * ahead[:-1]).sum(1), -1, 1)
        speed = np.degrees(np.arccos(cosine)) * MEASURED_AT
        head = np.array([p.pose[0] for p in clip])
        turning = np.abs(np.diff(head)) * MEASURED_AT > 15
        limit = np.array([abs(p.gaze_x) < 23 and abs(p.gaze_y) < 17 for p in clip])[1:]
        speeds.append(speed)
        held.append(np.median(speed[turning & limit]))
        turned.append(np.median(np.abs(np.diff(head))[turning & limit]) * MEASURED_AT)
    speeds = np.concatenate(speeds)
    # Of the floor, eyes fixed in the head, the reflex leaves less than a twentieth.
    assert np.mean(held) < 0.05 * np.mean(turned)
    assert np.median(speeds) < 1
    # A saccade of 10 degrees peaks at about 300 to 500 degrees/s (Carpenter 1988).
    assert 150 < np.percentile(speeds, 99.9) < 700
    jumps = (speeds[1:] > 60) & (speeds[:-1] <= 60)
    assert 0.3 < jumps.sum() / (len(speeds) / MEASURED_AT) < 3


def test_mouths_open_close_and_meet_as_in_speech(minute):
    jaw = np.concatenate([units(clip, "jawOpen") for clip in minute])
    closed = np.concatenate([units(clip, "mouthClose") for clip in minute])
    assert 0.35 < jaw.max() <= 0.7
    assert ((closed > 0.8 * jaw) & (jaw > 0.04)).mean() > 0.02  # Lips meet for p, b and m.
    # Syllables: the jaw goes up and down two to six times a second (Ohala 1975; Chandrasekaran et
    # al. 2009).
    speed = np.diff(jaw - jaw.mean())
    peaks = ((speed[1:] <= 0) & (speed[:-1] > 0)).sum() / (len(jaw) / MEASURED_AT)
    assert 2 < peaks < 8
    spectrum = np.abs(np.fft.rfft(jaw - jaw.mean())) ** 2
    frequency = np.fft.rfftfreq(len(jaw), 1 / MEASURED_AT)
    assert spectrum[frequency < 10].sum() > 0.97 * spectrum.sum()


# --- speech --------------------------------------------------------------------------------------


def said(*symbols, seconds=0.1):
    return [(s, i * seconds, (i + 1) * seconds) for i, s in enumerate(symbols)]


def test_three_alphabets_say_the_same():
    words = [
        said("T", "UW1", "B", "IY0"),
        said("t", "uː", "b", "i"),
        said("t", "u:", "b", "i"),
    ]
    first, *others = (speech.read(timing) for timing in words)
    assert [v for v, _, _ in first] == ["DD", "oo", "PP", "ee"]
    assert all(other == first for other in others)
    assert [v for v, _, _ in speech.read(said("tʃ"))] == ["DD", "CH"]
    assert [v for v, _, _ in speech.read(said("aɪ"))] == ["aa", "ih"]
    # Of one symbol, the alphabet says what it means.
    assert speech.read(said("T"), "arpabet")[0][0] == "DD"
    assert speech.read(said("T"), "espeak")[0][0] == "TH"


def test_every_phoneme_has_a_viseme_and_every_viseme_is_of_arkits_units():
    for table in speech.PHONEMES.values():
        assert set(table.values()) <= set(speech.VISEMES)
    times = np.arange(0, 0.4, 0.01)
    for name in speech.VISEMES:
        track = speech.articulate([(name, 0.1, 0.3)], times)
        assert set(track) <= set(FACE_UNITS)
        for values in track.values():
            assert values.min() >= 0
            assert values.max() <= 1


@pytest.mark.parametrize(
    ("timing", "words"),
    [
        ([], "no phonemes"),
        ([("AA", 0.0)], r"phoneme 1: .* is not \(phoneme, start in s, end in s\)"),
        ([("AA", "x", 1)], "phoneme 1"),
        ([(3, 0, 1)], "not a string"),
        ([("AA", -0.1, 0.1)], "starts before 0"),
        ([("AA", 0.2, 0.1)], "ends before"),
        ([("AA", 0.1, 0.1)], "ends before"),
        ([("AA", 0.0, 0.2), ("B", 0.1, 0.3)], "phoneme 2 .* overlaps"),
        ([("AA", 0.0, float("nan"))], "finite"),
        ([("AA", 0.0, 1e6)], "beyond 600 s"),
        ([("AA", 0.0, 0.1), ("DHH", 0.1, 0.2)], "unknown phoneme 'DHH' .*did you mean 'HH'"),
        ([("sʢ§", 0.0, 0.1)], "unknown phoneme"),
        ([("AA", 0.0, 0.1), ("QQ", 0.1, 0.2)], "unknown phoneme 'QQ'"),
    ],
)
def test_a_bad_timing_is_a_clear_error(timing, words):
    with pytest.raises(FacekitError, match=words) as caught:
        Performance.from_phonemes(timing)
    assert "\n" not in str(caught.value)


def test_an_unknown_alphabet_or_rate_is_refused():
    with pytest.raises(FacekitError, match="did you mean 'espeak'"):
        speech.read(said("a"), "espaek")
    with pytest.raises(FacekitError, match="1 to 120"):
        Performance.from_phonemes(said("a"), rate=0)


def test_lips_meet_round_and_part_where_the_phonemes_say():
    timing = said("m", "ɑ", "p", "ɑ", "f", "iː", "u", "ɑ", seconds=0.12)
    clip = Performance.from_phonemes(timing, rate=100, seed=1)
    assert len(clip) == 96
    assert clip == Performance.from_phonemes(timing, rate=100, seed=1)
    middle = {i: round((i + 0.5) * 12) for i in range(8)}
    jaw, close, pucker = (units(clip, n) for n in ("jawOpen", "mouthClose", "mouthPucker"))
    head = model(Person.sample(4).model_dump_json())

    def gap(i):
        marks = landmarks(posed(head, clip[middle[i]], 256).points)
        return np.linalg.norm(marks[62] - marks[66])

    for i in (0, 2):
        assert close[middle[i]] > 0.85 * jaw[middle[i]]
        assert gap(i) < 0.3 * gap(1)
    assert jaw[middle[1]] > 2 * jaw[middle[2]]
    assert units(clip, "mouthRollLower")[middle[4]] > 0.3
    assert pucker[middle[6]] > 0.4
    assert pucker[middle[1]] < 0.1
    assert units(clip, "mouthStretchLeft")[middle[5]] > 0.15


def test_neighbours_colour_a_sound_and_even_a_slow_camera_sees_a_closure():
    times = np.arange(0, 0.5, 0.01)
    # The lips are rounder in the "t" of "two" than in that of "tea".
    round_, spread = (
        speech.articulate(speech.read(said("t", vowel, seconds=0.15)), times)["mouthPucker"][7]
        for vowel in ("u", "iː")
    )
    assert round_ > spread + 0.1
    for start in np.linspace(0.2, 0.24, 9):
        timing = [("ɑ", 0.0, start), ("p", start, start + 0.05), ("ɑ", start + 0.05, 0.6)]
        track = speech.articulate(speech.read(timing), np.arange(0, 0.6, 0.04))
        assert (track["mouthClose"] / track["jawOpen"]).max() > 0.8


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(speech.PHONEMES["ipa"])), st.floats(0.01, 0.4), st.floats(0, 0.3)
        ),
        min_size=1,
        max_size=12,
    )
)
@settings(deadline=None, max_examples=30)
def test_any_order_of_phonemes_gives_a_smooth_mouth(rows):
    timing, now = [], 0.0
    for symbol, lasts, pause in rows:
        timing.append((symbol, now, now + lasts))
        now += lasts + pause
    track = speech.articulate(speech.read(timing, "ipa"), np.arange(0, now + 0.01, 0.005))
    for name, values in track.items():
        assert values.min() >= 0
        assert values.max() <= 1
        if name == "jawOpen":
            assert np.abs(np.diff(values)).max() < 0.12


def test_without_espeak_an_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    real = ctypes.CDLL

    def missing(name, *rest, **more):
        if name and "espeak" in str(name):
            raise OSError("not there")
        return real(name, *rest, **more)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(FacekitError, match="install espeak-ng"):
        speech.espeak_timing("hello")


def test_espeak_times_a_sentence():
    with pytest.raises(FacekitError, match="no text"):
        speech.espeak_timing("  ")
    if ctypes.util.find_library("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed")
    timing = speech.espeak_timing("Hello, my baby bought two blue moons.", "en")
    assert sum(symbol in ("b", "m") for symbol, _, _ in timing) == 6
    assert 1 < timing[-1][2] < 5
    clip = Performance.from_phonemes(timing)
    assert len(clip) == round(timing[-1][2] * 25)
    with pytest.raises(FacekitError, match="no voice 'xx-none'"):
        speech.espeak_timing("hello", "xx-none")


# --- from landmarks ------------------------------------------------------------------------------


def seen(person, clip, size=256):
    """The landmarks of the studio's own truth (T, 70, 2)."""
    head = model(person.model_dump_json())
    found = []
    for performance in clip:
        pose = posed(head, performance, size)
        irises = eyes.iris_centres(person, pose.points, pose.turned, performance)
        found.append(pose.camera.project(np.concatenate([landmarks(pose.points), irises])))
    return np.array(found, np.float64)


@pytest.fixture(scope="module")
def held_out():
    person, clip = Person.sample(51), Performance.clip(6, 25, seed=1)
    return person, clip, seen(person, clip)


def _pose_error(clip, other):
    return np.abs(np.array([p.pose for p in clip]) - [p.pose for p in other]).mean()


def test_a_known_persons_track_gives_back_the_performance(held_out):
    person, clip, track = held_out
    random = np.random.default_rng(0)
    found = Performance.from_landmarks(
        track + random.normal(0, 0.3, track.shape), size=256, person=person
    )
    eyes_apart = np.linalg.norm(track[:, 36:42].mean(1) - track[:, 42:48].mean(1), axis=1).mean()
    back = np.linalg.norm(seen(person, found) - track, axis=2).mean() / eyes_apart
    rest = [p.model_copy(update={"expression": {}}) for p in found]
    floor = np.linalg.norm(seen(person, rest) - track, axis=2).mean() / eyes_apart
    assert back < 0.025
    assert back < 0.6 * floor
    # The floor of the pose: the clip's mean.
    mean = np.mean([p.pose for p in clip], axis=0)
    pose_floor = np.abs(np.array([p.pose for p in clip]) - mean).mean()
    assert _pose_error(clip, found) < min(1.0, 0.4 * pose_floor)
    for name, least in (("jawOpen", 0.97), ("mouthSmileLeft", 0.75), ("eyeBlinkLeft", 0.95)):
        truth, got = units(clip, name), units(found, name)
        assert np.corrcoef(truth, got)[0, 1] > least
        # The floor: a neutral face all the time.
        assert np.abs(truth - got).mean() < 0.7 * np.abs(truth).mean()
    gaze = np.array(
        [[p.gaze_x - q.gaze_x, p.gaze_y - q.gaze_y] for p, q in zip(clip, found, strict=True)]
    )
    assert np.abs(gaze).mean() < 3


def test_a_strangers_track_gives_pose_jaw_and_blinks(held_out):
    _, clip, track = held_out
    found = Performance.from_landmarks(track[:, :68], times=np.arange(len(clip)) / 25 + 2)
    assert found[0].time == 2
    assert fit.fit(track[::10]).error < 0.04
    assert _pose_error(clip, found) < 2
    for name, least in (("jawOpen", 0.95), ("eyeBlinkLeft", 0.9), ("mouthSmileLeft", 0.5)):
        assert np.corrcoef(units(clip, name), units(found, name))[0, 1] > least


def test_points_not_seen_are_done_without(held_out):
    person, clip, track = held_out
    track = track[:40].copy()
    random = np.random.default_rng(1)
    track[random.random((40, 70)) < 0.3] = np.nan
    track[5:9, :17] = np.nan
    found = Performance.from_landmarks(track, size=256, person=person)
    assert _pose_error(clip[:40], found) < 1.2
    assert np.corrcoef(units(clip[:40], "jawOpen"), units(found, "jawOpen"))[0, 1] > 0.9


@given(st.floats(-50, 50), st.floats(-18, 18), st.floats(-20, 20), st.floats(8, 16))
@settings(deadline=None, max_examples=12)
def test_any_pose_of_a_still_is_found(yaw, pitch, roll, distance):
    person = Person.sample(51)
    still = Performance(
        yaw=yaw * 0.5,
        camera_yaw=yaw * 0.5,
        pitch=pitch,
        roll=roll,
        distance=distance,
        focal=7.0 * distance,
        expression={"jawOpen": 0.3},
    )
    (found,) = Performance.from_landmarks(seen(person, [still]), person=person)
    assert found.pose == pytest.approx(still.pose, abs=3)
    assert found.expression["jawOpen"] == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {"track": t[0]}, r"\(T, 68, 2\) or \(T, 70, 2\)"),
        (lambda t: {"track": t[:, :5]}, r"\(T, 68, 2\) or \(T, 70, 2\)"),
        (lambda t: {"track": t[:0]}, "no frames"),
        (lambda t: {"track": [["x"]]}, "no array of numbers"),
        (lambda t: {"track": np.full_like(t, np.nan)}, "frame 0 of the track has 0 points"),
        (
            lambda t: {"track": np.where(np.arange(len(t))[:, None, None] == 2, np.nan, t)},
            "frame 2",
        ),
        (lambda t: {"track": np.zeros_like(t)}, "all points lie in one place"),
        (lambda t: {"track": 1e6 * t}, "beyond 100 pictures"),
        (lambda t: {"track": t, "size": 0}, "size 0"),
        (lambda t: {"track": t, "size": 100_000}, "size 100000"),
        (lambda t: {"track": t, "times": [0.0]}, "times of shape"),
        (lambda t: {"track": t, "times": np.zeros(len(t))}, "must increase"),
    ],
)
def test_a_bad_track_is_a_clear_error(held_out, change, words):
    with pytest.raises(FacekitError, match=words) as caught:
        Performance.from_landmarks(**change(held_out[2][:4]))
    assert "\n" not in str(caught.value)


def test_coefficients_are_checked_however_a_moment_or_a_person_is_made():
    with pytest.raises(FacekitError, match="did you mean 'jawOpen'"):
        Performance(expression={"jawOpn": 0.5})
    with pytest.raises(FacekitError, match=r"jawOpen': 3\.0 is out of range"):
        Performance(expression={"jawOpen": 3.0})
    with pytest.raises(FacekitError, match="unknown face unit 'bogus'"):
        Person.sample(1).describe({"bogus": 1.0})
    with pytest.raises(ValueError, match="less than or equal to 90"):
        Performance().model_copy(update={"yaw": 500.0})
    with pytest.raises(ValueError, match="greater than or equal to 18"):
        Person.sample(1).model_copy(update={"age": 10.0})
    with pytest.raises(FacekitError, match="unknown shape 'nose-hmp'"):
        Person.sample(1).model_copy(update={"shape": {"nose-hmp": 0.1}})
