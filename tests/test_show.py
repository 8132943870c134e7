"""``facekit faces show``, and the drawing behind it."""

import json
from dataclasses import replace

import av
import numpy as np
import pytest
import skimage.data
from click.testing import CliRunner
from faces_of_noise import landmarks_at
from hypothesis import given, settings
from hypothesis import strategies as st

from facekit import export, watermark
from facekit.cli import cli
from facekit.core.errors import FacekitError
from facekit.faces.draw import COLOURS, Shown, _axes, annotate, placed
from facekit.media.decode import Video
from facekit.media.encode import write_video
from facekit.media.images import read_image, write_image
from facekit.provenance import manifest
from facekit.studio.rotations import rotation
from facekit.types import DENSE, Face, Frame, Quality
from facekit.watermark import Kind, Payload

ANGLES = st.floats(-80, 80)


def show(*arguments):
    result = CliRunner().invoke(cli, ["faces", "show", *map(str, arguments), "--device", "cpu"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def facts(*arguments):
    return json.loads(show(*arguments, "--json").stdout)


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()[:300, 100:400]


def face(x=60.0, y=40.0, size=120.0, *, pose=(0.0, 0.0, 0.0), dense=True):
    """A face whose box begins at (x, y)."""
    at = np.random.default_rng(0).uniform(0.1, 0.9, (DENSE, 2)) * size + (x, y)
    landmarks = landmarks_at(at, visible=np.linspace(0, 1, DENSE, dtype=np.float32), pose=pose)
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
    return Face(
        box=np.array([x, y, x + size, y + size], np.float32),
        points=(points * size + (x, y)).astype(np.float32),
        score=0.99,
        landmarks=landmarks if dense else None,
        quality=Quality(size, 1.2, 0.5, 0.01, 0.1, 0.2, pose),
    )


# --- drawing ----------------------------------------------------------------------------------


@settings(deadline=None)
@given(yaw=ANGLES, pitch=ANGLES, roll=ANGLES)
def test_the_axes_are_those_of_the_studios_heads(yaw, pitch, roll):
    expected = rotation(yaw, pitch, roll)[:2].T * [1, -1]  # its y is up
    assert np.allclose(_axes((yaw, pitch, roll)), expected, atol=1e-5)


def test_angles_lead_where_the_conventions_say():
    right, up, forward = range(3)
    assert _axes((40, 0, 0))[forward][0] > 0.5  # yaw > 0 turns to the viewer's right
    assert _axes((0, 40, 0))[forward][1] < -0.5  # pitch > 0 looks up
    assert _axes((0, 0, 40))[up][0] > 0.5  # roll > 0 tilts clockwise
    assert _axes((0, 0, 0))[right].tolist() == [1, 0]


def test_annotating_is_a_function_of_its_arguments():
    picture = np.full((300, 400, 3), 90, np.uint8)
    shown = [Shown(face(), "person 0 · track 3", 0)]
    drawn = annotate(picture, shown, caption="1.20 s")
    assert (picture == 90).all()
    assert drawn.shape == picture.shape and drawn.dtype == np.uint8
    assert np.array_equal(drawn, annotate(picture, shown, caption="1.20 s"))
    changed = (drawn != picture).any(axis=2)
    assert changed[40:160, 60:180].mean() > 0.1
    # Nothing beyond the face, its plates and the legend.
    assert not changed[60:, 260:].any() and not changed[240:].any()
    # A colour each.
    (other,) = (annotate(picture, [replace(shown[0], number=1)]),)
    assert (drawn[40:42, 100] != other[40:42, 100]).any()


def test_lines_lie_between_pixels_where_they_should():
    """A box a quarter of a pixel further draws its edge just so much further."""

    def edge(shift):
        one = Shown(face(60 + shift, 40, 100, dense=False))
        row = annotate(np.zeros((200, 260, 3), np.uint8), [one])[130, 45:75].astype(float).sum(1)
        return (row * (np.arange(45, 75) + 0.5)).sum() / row.sum()

    assert edge(0.5) == pytest.approx(60.5, abs=0.1)
    assert edge(0.75) - edge(0.5) == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (20, 16), (48, 48), (2000, 90)])
def test_any_picture_can_be_drawn_upon(size):
    picture = np.zeros((*size, 3), np.uint8)
    shown = [
        Shown(face(-40, -30, 60), "person 12 · track 345", 12),
        Shown(face(5, 5, 3), "face 1", 1),
        Shown(face(1e6, -1e6, 1e5), "far away", 2),
    ]
    assert annotate(picture, shown, caption="a long caption" * 5).shape == picture.shape


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(0.1, 5), x=st.floats(-50, 50), y=st.floats(-50, 50))
def test_a_placed_face_is_the_same_in_a_larger_picture(factor, x, y):
    one = Shown(face(), "face 0", 4)
    moved = placed(one, factor, (x, y))
    assert (moved.name, moved.number, moved.colour) == ("face 0", 4, COLOURS[4])
    for before, after in (
        (one.face.points, moved.face.points),
        (one.face.landmarks.points, moved.face.landmarks.points),
        (one.face.box.reshape(2, 2), moved.face.box.reshape(2, 2)),
    ):
        assert np.allclose(after, before * factor + [x, y], atol=1e-2)


def test_more_is_written_on_larger_faces():
    """A tiny one gets its box, a small one a number, a large one its name and its figures."""
    picture = np.full((500, 500, 3), 90, np.uint8)

    def reach(size):
        drawn = annotate(picture, [Shown(face(150, 150, size, dense=False), "person 0", 0)])
        rows, columns = np.nonzero((drawn != picture).any(axis=2))
        return 150 - rows.min(), rows.max() - 150 - size, columns.max() - 150 - size

    assert max(reach(20)) <= 3
    above, below, _ = reach(30)
    assert 8 < above < 16 and below <= 3
    above, below, right = reach(50)
    assert above > 16 and below <= 3 and right > 3
    assert min(reach(150)[:2]) > 16


# --- videos -----------------------------------------------------------------------------------


def write_clip(path, pictures, *, sound=False, rate=10):
    frames = (Frame(picture, i / rate, i) for i, picture in enumerate(pictures))
    if not sound:
        write_video(path, frames, rate=rate)
        return path
    tone = path.with_suffix(".m4a")
    with av.open(str(tone), "w") as out:
        stream = out.add_stream("aac", rate=44100, layout="mono")
        wave = np.sin(np.arange(44100 * 2) / 20).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    write_video(path, frames, rate=rate, audio_from=tone)
    return path


def sound_of(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def test_a_video_is_annotated_and_keeps_its_times_and_its_sound(tmp_path, astronaut):
    pictures = [np.roll(astronaut, i, axis=1) for i in range(12)]
    clip = write_clip(tmp_path / "clip.mp4", pictures, sound=True)
    out = tmp_path / "seen.mp4"
    report = facts(clip, "--out", out, "--every", 4)
    (found,) = report["inputs"]
    assert report["out"] == str(out) and report["failures"] == {}
    assert (found["kind"], found["width"], found["height"]) == ("video", 300, 300)
    assert (found["frames"], found["faces"], found["persons"]) == (12, 12, 1)
    assert 3 <= found["located"] < 12
    (track,) = found["tracks"]
    assert (track["id"], track["person"], track["sightings"]) == (0, 0, 12)
    assert (track["first"], track["last"]) == (0, pytest.approx(1.1, abs=0.01))

    assert sound_of(out) == sound_of(clip)
    with Video(clip) as before, Video(out) as after:
        pairs = list(zip(before, after, strict=True))
    for one, other in pairs:
        assert other.time == pytest.approx(one.time, abs=1e-4)
        difference = abs(one.pixels.astype(int) - other.pixels).max(axis=2)
        assert (difference[60:200] > 60).mean() > 0.01  # something is drawn onto the face
        assert (difference[240:] > 60).mean() < 0.01
    assert not watermark.read_file(out).present


def test_a_generated_video_stays_marked_and_signed(tmp_path, astronaut):
    frames = [Frame(np.roll(astronaut, i, axis=1), i / 10, i) for i in range(8)]
    made = tmp_path / "made.mp4"
    about = {"origin": "studio", "generator": "face_swap"}
    export.write_video(made, frames, kind=Kind.COMPOSITE, facts=about, rate=10, id=5)
    (found,) = facts(made, "--out", tmp_path / "seen.mp4")["inputs"]
    assert found["generated"] == "composite"
    assert watermark.read_file(tmp_path / "seen.mp4").payload == Payload(Kind.COMPOSITE, 5)
    claims = manifest.verify(tmp_path / "seen.mp4").claims
    assert (claims["kind"], claims["inputs"][0]["name"]) == ("composite", "made.mp4")
    assert claims["facts"]["origin"] == "studio"

    write_image(tmp_path / "me.png", astronaut)
    facts(made, tmp_path / "me.png", "--out", tmp_path / "sheet.jpg")
    assert watermark.read_file(tmp_path / "sheet.jpg").kind == "composite"


def test_the_size_may_change_in_mid_video(tmp_path, astronaut):
    parts = []
    for number, side in enumerate((300, 200)):
        part = tmp_path / f"{number}.ts"
        with av.open(str(part), "w") as out:
            stream = out.add_stream("libx264", rate=25)
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
            for i in range(10):
                frame = av.VideoFrame.from_ndarray(astronaut[:side, :side].copy(), "rgb24")
                frame.pts = 10 * number + i
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        parts.append(part.read_bytes())
    clip = tmp_path / "sizes.ts"
    clip.write_bytes(b"".join(parts))
    (found,) = facts(clip, "--out", tmp_path / "seen.mp4")["inputs"]
    assert (found["frames"], found["width"]) == (20, 300)
    assert found["faces"] >= 18
    with Video(tmp_path / "seen.mp4") as video:
        assert {frame.pixels.shape for frame in video} == {(300, 300, 3)}


# --- sheets -----------------------------------------------------------------------------------


def test_a_sheet_shows_photos_and_moments_of_videos(tmp_path, astronaut):
    photos = tmp_path / "photos"
    write_image(photos / "one.png", astronaut)
    write_image(photos / "pair.jpg", np.hstack([astronaut, astronaut[:, ::-1]]))
    write_image(photos / "cat.png", skimage.data.chelsea())
    write_image(photos / "dot.png", astronaut[:1, :1])
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff nothing")
    clip = write_clip(tmp_path / "clip.mp4", [astronaut] * 6)
    out = tmp_path / "sheet.png"
    result = show(f"{photos}/*", clip, "--out", out)
    assert result.exit_code == 1
    said = {line.rpartition("/")[2] for line in result.stdout.splitlines()}
    assert {"one.png: 1 face", "pair.jpg: 2 faces", "cat.png: no faces", "sheet.png"} <= said
    assert "failed: " in result.stdout and "bad.jpg: not a picture" in result.stdout
    assert "clip.mp4: 1 person in 1 track; 6 faces in 6 frames" in result.stdout
    sheet = read_image(out)
    assert sheet.shape[1] == 1920 and sheet.shape[0] > 3 * 300

    report = facts(photos, "--out", out)
    assert [entry["faces"] for entry in report["inputs"]] == [0, 0, 1, 2]
    assert [path.rpartition("/")[2] for path in report["failures"]] == ["bad.jpg"]


def test_one_photo_fills_the_sheet(tmp_path, astronaut):
    write_image(tmp_path / "me.png", astronaut)
    show(tmp_path / "me.png", "--out", tmp_path / "sheet.png")
    sheet = read_image(tmp_path / "sheet.png")
    assert sheet.shape == (1200, 1920, 3)  # four times as large at most
    corner = sheet[1100:1196, 400:700].mean(axis=(0, 1))  # where the picture begins 360 further
    assert abs(corner - astronaut[275:299, 10:85].mean(axis=(0, 1))).max() < 4


def test_nothing_readable_leaves_no_sheet(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    result = show(tmp_path / "bad.png", "--out", tmp_path / "sheet.png")
    assert result.exit_code == 1 and not (tmp_path / "sheet.png").exists()


def test_what_cannot_be_written_is_said_before_the_work(tmp_path, astronaut):
    me, clip = tmp_path / "me.png", tmp_path / "clip.mp4"
    write_image(me, astronaut)
    write_clip(clip, [astronaut] * 2)
    for arguments, says in (
        ((clip, "--out", tmp_path / "seen.avi"), r"seen\.avi: cannot be written as '\.avi'; allow"),
        ((clip, clip, "--out", tmp_path / "seen.mp4"), "holds one video, but 2 inputs"),
        ((me, "--out", tmp_path / "seen.mp4"), r"me\.png: is a picture; give a video, or an --out"),
        ((tmp_path / "no.mp4", "--out", tmp_path / "seen.mp4"), r"no\.mp4: no such file"),
        ((clip, "--out", clip), "is an input, which it would replace"),
        ((me, "--out", me), "is an input, which it would replace"),
        ((me, "--out", tmp_path / "s.jpg", "--locator", "eyes"), "unknown locator 'eyes'"),
    ):
        with pytest.raises(FacekitError, match=says):
            show(*arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "me.png"]
    assert show(clip, "--out", tmp_path / "seen.mp4", "--every", 0).exit_code == 2
