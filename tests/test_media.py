"""Media: every frame carries its number, painted as blocks, so that a wrong frame shows itself."""

import gc
import io
import itertools
import logging
import os
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from facekit.core.errors import FacekitError
from facekit.media import decode, encode
from facekit.media.decode import Video, probe
from facekit.media.encode import write_video
from facekit.media.find import find_media
from facekit.media.images import (
    count_frames,
    encode_image,
    read_animation,
    read_image,
    write_image,
)
from facekit.media.photo import Photo, encode_photo, fit, read_photo
from facekit.types import Frame, Pixels

BITS = 8


def numbered(number: int, height: int = 48, width: int = 64) -> Pixels:
    """A grey picture with ``number`` in binary along its top; top left is always dark."""
    pixels = np.full((height, width, 3), 90, np.uint8)
    step = width // (BITS + 1)
    for bit in range(BITS):
        pixels[: height // 3, (bit + 1) * step : (bit + 2) * step] = 255 * (number >> bit & 1)
    return pixels


def number_of(pixels: Pixels) -> int:
    height, width = pixels.shape[:2]
    step = width // (BITS + 1)
    rows, middle = slice(height // 12, height // 4), step // 4
    return sum(
        int(pixels[rows, (b + 1) * step + middle : (b + 2) * step - middle].mean() > 128) << b
        for b in range(BITS)
    )


def clip(count: int, *, height: int = 48, width: int = 64, variable: bool = False) -> list[Frame]:
    gaps = itertools.cycle([0.02, 0.05, 0.11, 0.033] if variable else [0.04])
    times = [0.0, *itertools.accumulate(itertools.islice(gaps, count - 1))]
    return [Frame(numbered(i, height, width), time, i) for i, time in enumerate(times)]


def tone(seconds: float) -> np.ndarray:
    """Silence for 1.5 seconds, then a tone; 44,100 samples a second."""
    samples = np.arange(int(44100 * seconds))
    return np.sin(samples / 20) * (samples >= 44100 * 1.5)


def write_raw(
    path: Path,
    count: int = 40,
    *,
    video: str | None = "libx264",
    options: dict[str, str] | None = None,
    sound: str | None = None,
    rotation: int | None = None,
    mirror: bool = False,
    start: int = 0,
) -> Path:
    """Write numbered frames with PyAV alone, in ways that facekit itself does not write."""
    with av.open(str(path), "w") as out:
        if video:
            stream = out.add_stream(video, rate=25, options=options or {})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            if rotation is not None:
                stream.set_display_rotation(rotation, hflip=mirror)
        if sound:
            audio = out.add_stream(sound, rate=44100, layout="mono")
        if video:
            for i in range(count):
                frame = av.VideoFrame.from_ndarray(numbered(i), "rgb24")
                frame.pts, frame.time_base = start + i, Fraction(1, 25)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        if sound:
            context = audio.codec_context
            resampler = av.AudioResampler(
                context.format.name, "mono", 44100, frame_size=context.frame_size or 1024
            )
            wave = tone(count / 25).astype(np.float32)[None]
            piece = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
            piece.sample_rate, piece.pts, piece.time_base = 44100, 0, Fraction(1, 44100)
            for resampled in [*resampler.resample(piece), *resampler.resample(None)]:
                out.mux(audio.encode(resampled))
            out.mux(audio.encode(None))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


# --- video: reading ---------------------------------------------------------------------------


def test_frames_come_in_order_with_their_times(tmp_path: Path) -> None:
    with Video(write_raw(tmp_path / "clip.mp4", 40)) as video:
        frames = list(video)
    assert [number_of(frame.pixels) for frame in frames] == list(range(40))
    assert [frame.index for frame in frames] == list(range(40))
    assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in range(40)])


def test_pixels_agree_with_opencv(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.random((96, 128, 3), np.float32), (0, 0), 8)
    picture = cv2.normalize(smooth, None, 10, 245, cv2.NORM_MINMAX).astype(np.uint8)
    path = tmp_path / "clip.mp4"
    write_video(path, [Frame(picture, i / 25, i) for i in range(3)], crf=4)
    with Video(path) as video:
        ours = next(iter(video)).pixels.astype(int)
    read, theirs = cv2.VideoCapture(str(path)).read()
    assert read
    # OpenCV converts with swscale's quick, biased path: close, not equal.
    assert abs(ours - theirs[..., ::-1]).mean() < 3
    assert abs(ours - picture).mean() < 1.5
    assert abs((ours - picture).mean()) < 0.3  # no bias through encoder and decoder


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi", "clip.ts", "clip.mov"])
def test_each_container_gives_the_same_frames_by_iteration_and_by_time(
    tmp_path: Path, name: str
) -> None:
    path = write_raw(tmp_path / name, 30, start=13)
    with Video(path) as video:
        frames = list(video)
        assert [number_of(frame.pixels) for frame in frames] == list(range(30))
        for frame in [frames[20], frames[3], frames[4], frames[29], frames[0]]:
            found = video.at(frame.time)
            assert number_of(found.pixels) == frame.index
            assert found.time == frame.time
            assert found.index == frame.index
        assert video.info.width == 64


# Long groups, many key frames, B-frames that lean over key frames (open GOP), and no key frame
# but the first (periodic refresh).
CODING = {
    "plain": {"g": "12", "bf": "3"},
    "one key frame": {"g": "1000"},
    "open gop": {"g": "8", "bf": "3", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"},
    "intra refresh": {"x264-params": "intra-refresh=1:keyint=10"},
    "every frame a key": {"g": "1"},
}


@pytest.mark.parametrize("coding", CODING)
def test_at_is_exact_in_any_coding(tmp_path: Path, coding: str) -> None:
    path = write_raw(tmp_path / "clip.mp4", 80, options=CODING[coding])
    order = np.random.default_rng(1).permutation(80)
    with Video(path) as video:
        frames = video.frames([float(i) / 25 + 0.01 for i in order])
        assert [number_of(frame.pixels) for frame in frames] == order.tolist()


@pytest.fixture(scope="module")
def variable(folder: Path) -> tuple[Path, list[Frame]]:
    frames = clip(150, variable=True)
    write_video(folder / "variable.mp4", frames)
    return folder / "variable.mp4", frames


@cache
def times_of(path: Path) -> list[float]:
    """When each frame is shown."""
    with Video(path) as video:
        return [frame.time for frame in video]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(times=st.lists(st.floats(-1, 10), min_size=1, max_size=6))
def test_at_gives_the_last_frame_not_after(
    variable: tuple[Path, list[Frame]], times: list[float]
) -> None:
    path = variable[0]
    every = times_of(path)
    with Video(path) as video:
        for time, frame in zip(times, video.frames(times), strict=True):
            expected = max((i for i, t in enumerate(every) if t <= time), default=0)
            assert number_of(frame.pixels) == frame.index == expected
            assert frame.time == every[expected]


@pytest.mark.parametrize("count", [1, 7, 40, 1000])
def test_sample_of_a_short_video_is_even(tmp_path: Path, count: int) -> None:
    with Video(write_raw(tmp_path / "clip.mp4", 40)) as video:
        found = list(video.sample(count))
        assert [number_of(f.pixels) for f in found] == [f.index for f in found]
        assert [f.index for f in found] == sorted({n * 40 // count for n in range(count)})
        assert [f.time for f in found] == pytest.approx([f.index / 25 for f in found])


def still_gif(side: int, count: int) -> bytes:
    """A GIF whose frames change one pixel each: 22 bytes a frame, of whatever size."""
    head = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    control = b"\x21\xf9\x04\x08" + struct.pack("<HBB", 10, 0, 0)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return head + (control + frame) * count + b"\x3b"


def test_a_small_file_of_endless_large_frames_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "_MANY_PIXELS", 20 * 2000**2)
    path = tmp_path / "still.gif"
    path.write_bytes(still_gif(2000, 19))  # 180,000 pixels a byte, but not many of them
    with Video(path) as video:
        assert len(list(video)) == 19
    path.write_bytes(still_gif(2000, 30))
    for read in (list, lambda video: list(video.frames([0.1 * i for i in range(30)]))):
        with Video(path) as video, pytest.raises(FacekitError, match=r"still\.gif: unpacks to"):
            read(video)
    path.write_bytes(still_gif(500, 400))  # as many, at 11,000 a byte
    with Video(path) as video:
        assert len(list(video)) == 400


def test_frames_larger_than_any_codec_allows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.gif"
    path.write_bytes(still_gif(6000, 2))
    with pytest.raises(FacekitError, match=r"huge\.gif: frames of 6000×6000 are too large"):
        probe(path)


def test_huge_moving_pictures_are_refused(tmp_path: Path) -> None:
    first, second = (Image.new("1", (6000, 6000), shade) for shade in (0, 1))
    first.save(tmp_path / "still.png")
    assert probe(tmp_path / "still.png").width == 6000
    first.save(tmp_path / "moving.png", save_all=True, append_images=[second])
    with pytest.raises(FacekitError, match=r"moving\.png: 6000×6000 is too large; at most 35"):
        probe(tmp_path / "moving.png")


def test_fewer_of_huge_frames_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_raw(tmp_path / "a.mp4", 40)
    monkeypatch.setattr(decode, "_SAMPLED_PIXELS", 3 * decode._STRIDE * 64 * 48)
    with Video(path) as video:
        assert len(list(video.sample(10))) == 3


def test_a_stream_met_while_reading_ends_the_packets() -> None:
    """PyAV asks at the end for each stream that FFmpeg knows, and may have counted fewer."""

    class Container:
        def demux(self, stream: object) -> Iterator[str]:
            yield "packet"
            raise IndexError("list index out of range")

    assert list(decode.packets(Container(), None)) == ["packet"]


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.ts", "long.avi"])
def test_sample_of_a_long_video_decodes_few_frames(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, options = ("mpeg4", {"g": "12"}) if name.endswith("avi") else ("libx264", {"g": "30"})
    path = write_raw(tmp_path / name, 240, video=codec, options=options)
    turned: list[object] = []
    decoded = decode._decode

    def counted(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for frame in decoded(*args, **kwargs):
            turned.append(frame)
            yield frame

    with Video(path) as video:
        monkeypatch.setattr(decode, "_decode", counted)
        found = list(video.sample(8))
    numbers = [number_of(f.pixels) for f in found]
    # FFmpeg seeks in a transport stream to near a key frame, and may miss the last.
    assert len(numbers) in ((7, 8) if name.endswith("ts") else (8,))
    assert numbers == sorted(set(numbers))
    assert max(b - a for a, b in itertools.pairwise([*numbers, 240])) <= 60
    assert len(turned) <= 8 * 8
    assert all(abs(f.time - n / 25) < 0.05 for f, n in zip(found, numbers, strict=True))


def test_sample_of_a_long_video_with_one_key_frame(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "long.mp4", 240, options={"g": "1000", "sc_threshold": "0"})
    with Video(path) as video:
        assert [number_of(f.pixels) for f in video.sample(4)] == [0, 8, 16, 24]


def test_sample_of_a_damaged_long_video(tmp_path: Path) -> None:
    content = bytearray(write_raw(tmp_path / "a.ts", 240, options={"g": "30"}).read_bytes())
    content[len(content) // 2 : len(content) * 3 // 4] = bytes(
        len(content) * 3 // 4 - len(content) // 2
    )
    (tmp_path / "b.ts").write_bytes(content)
    with Video(tmp_path / "b.ts") as video:
        assert len(list(video.sample(8))) >= 4


def test_iterations_and_at_do_not_disturb_each_other(variable: tuple[Path, list[Frame]]) -> None:
    path, frames = variable
    with Video(path) as video:
        for one, two, frame in zip(video, video, frames, strict=False):
            assert number_of(one.pixels) == number_of(two.pixels) == frame.index
            assert number_of(video.at(frames[-1 - frame.index].time + 1e-3).pixels) == (
                149 - frame.index
            )


# The upright picture's corner where frame 0's dark corner and its first code block stand is
# compared with OpenCV's, which rotates by the same matrix.
@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_rotation_is_applied(tmp_path: Path, rotation: int) -> None:
    path = write_raw(tmp_path / "turned.mp4", 5, rotation=rotation)
    with Video(path) as video:
        frames = list(video)
        info = video.info
        at = video.at(0.1)
    turned = np.rot90(numbered(2), rotation // 90)  # both turn anti-clockwise
    assert frames[2].pixels.shape == at.pixels.shape == turned.shape
    assert abs(frames[2].pixels.astype(int) - turned).mean() < 6
    assert (info.height, info.width) == turned.shape[:2]
    capture = cv2.VideoCapture(str(path))
    assert capture.read()[1].shape == turned.shape


def test_mirroring_is_applied(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "mirrored.mp4", 5, rotation=0, mirror=True)
    with Video(path) as video:
        assert number_of(list(video)[3].pixels[:, ::-1]) == 3


def test_probe_tells_what_a_file_is(tmp_path: Path) -> None:
    info = probe(write_raw(tmp_path / "clip.mkv", 50, sound="aac"))
    assert (info.kind, info.width, info.height) == ("video", 64, 48)
    assert (info.codec, info.has_audio, info.rate) == ("h264", True, 25.0)
    assert info.duration == pytest.approx(2.0, abs=0.1)
    write_image(tmp_path / "photo.png", numbered(1))
    (tmp_path / "photo.png").rename(tmp_path / "photo.mp4")  # content decides, not the suffix
    info = probe(tmp_path / "photo.mp4")
    assert (info.kind, info.width, info.height, info.codec) == ("image", 64, 48, "png")
    assert info.duration is None and info.rate is None


def test_size_may_change_in_mid_stream(tmp_path: Path) -> None:
    # Two transport streams, one after the other, are one stream whose size changes.
    path = tmp_path / "joined.ts"
    parts = []
    for number, size in enumerate([(48, 64), (96, 128)]):
        part = tmp_path / f"{number}.ts"
        with av.open(str(part), "w") as out:
            stream = out.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
            for i in range(10):
                frame = av.VideoFrame.from_ndarray(numbered(10 * number + i, *size), "rgb24")
                frame.pts, frame.time_base = 10 * number + i, Fraction(1, 25)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    with Video(path) as video:
        frames = list(video)
    assert [frame.pixels.shape[:2] for frame in frames] == [(48, 64)] * 10 + [(96, 128)] * 10
    assert [number_of(frame.pixels) for frame in frames] == list(range(20))
    write_video(tmp_path / "one.mp4", frames)
    with Video(tmp_path / "one.mp4") as video:
        assert {frame.pixels.shape for frame in video} == {(48, 64, 3)}


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    height, width, count = 240, 320, 200
    live = 0

    def source() -> Iterator[Frame]:
        for i in range(count):
            yield Frame(numbered(i % 256, height, width), i / 25, i)

    path = tmp_path / "long.mp4"
    tracemalloc.start()
    try:
        write_video(path, source())
        with Video(path) as video:
            for frame in video:
                live += frame.pixels.nbytes
            for time in np.linspace(0, 8, 9):
                video.at(float(time))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert live == count * height * width * 3
    assert peak < live / 8


@pytest.mark.parametrize("rotation", [None, 90])
def test_frames_are_let_go_without_waiting_for_the_garbage_collector(
    tmp_path: Path, rotation: int | None
) -> None:
    # PyAV's frames hold megabytes that tracemalloc does not see.
    def alive() -> int:
        return sum(type(item) is av.VideoFrame for item in gc.get_objects())

    path = write_raw(tmp_path / "clip.mp4", 60, rotation=rotation)
    gc.collect()
    gc.disable()
    before = alive()  # what other tests' errors may still hold is not this one's
    try:
        with Video(path) as video:
            for _ in itertools.chain(video, video.frames(np.linspace(2.4, 0, 30).tolist())):
                pass
            assert alive() - before <= 4
    finally:
        gc.enable()


# --- video: what cannot be read ---------------------------------------------------------------


def one_line(error: pytest.ExceptionInfo[FacekitError], path: Path) -> str:
    message = str(error.value)
    assert path.name in message and "\n" not in message
    return message


def unreadable(folder: Path) -> Iterator[tuple[str, Path, str]]:
    whole = write_raw(folder / "whole.mp4", 40).read_bytes()
    random = np.random.default_rng(0).bytes(5000)
    # An mp4 keeps its index at the end: cut in the middle, nothing in it can be found.
    for name, content, says in [
        ("empty.mp4", b"", "empty"),
        ("noise.mp4", random, "not an image or a video"),
        ("text.mp4", b"To be, or not to be\n" * 50, "not an image or a video"),
        ("text.txt", b"To be, or not to be\n" * 50, "not an image or a video"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:10,\nwhole.mp4\n#EXT-X-ENDLIST\n", "not an image"),
        ("list.ffconcat", b"ffconcat version 1.0\nfile whole.mp4\n", "not an image"),
        ("cut.mp4", whole[: len(whole) // 2], "cut short"),
        ("headless.mp4", whole[300:], "not an image"),
        ("header.mp4", whole[:40], "not an image"),
        ("photo.heic", b"\0\0\0\x18ftypheic" + whole[12:], "HEIC"),
        ("zip.mp4", b"PK\x03\x04" + random, "not an image"),
    ]:
        (folder / name).write_bytes(content)
        yield name, folder / name, says
    yield "sound", write_raw(folder / "sound.m4a", 40, video=None, sound="aac"), "sound only"
    yield "wave", write_raw(folder / "wave.wav", 40, video=None, sound="pcm_s16le"), "sound only"
    yield "missing", folder / "missing.mp4", "no such file"
    yield "folder", folder, "folder"
    # The track is there, its pictures are overwritten.
    at, size = whole.index(b"mdat") + 4, struct.unpack(">I", whole[whole.index(b"mdat") - 4 :][:4])
    blank = whole[:at] + bytes(size[0] - 8) + whole[at + size[0] - 8 :]
    (folder / "blank.mp4").write_bytes(blank)
    yield "blank", folder / "blank.mp4", "no frame"


def test_what_is_no_video_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    for name, path, says in unreadable(tmp_path):
        for read in (probe, Video):
            with pytest.raises(FacekitError) as error:
                read(path)
            assert says in one_line(error, path), name


def test_a_video_without_frames_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "none.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        out.start_encoding()
    with pytest.raises(FacekitError) as error:
        probe(path)
    one_line(error, path)


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "live.mp4")
    with pytest.raises(FacekitError, match="not a regular file"):
        probe(tmp_path / "live.mp4")
    with pytest.raises(FacekitError, match="not a regular file"):
        probe(Path("/dev/zero"))


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    write_raw(path, 40, video=None, sound="aac")
    with av.open(str(path)) as source, av.open(str(tmp_path / "cover.mp4"), "w") as out:
        sound = out.add_stream_from_template(source.streams.audio[0])
        cover = out.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        out.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(1), "rgb24")))
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.stream = sound
                out.mux(packet)
    with pytest.raises(FacekitError, match="sound only"):
        probe(tmp_path / "cover.mp4")


def test_a_truncated_video_gives_its_frames_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_video(tmp_path / "whole.mp4", clip(120))
    content = (tmp_path / "whole.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(content[: len(content) * 3 // 4])
    with Video(path) as video, caplog.at_level(logging.WARNING, "facekit"):
        numbers = [number_of(frame.pixels) for frame in video]
        assert 10 < len(numbers) < 120
        assert numbers[:10] == list(range(10))
        assert number_of(video.at(0.2).pixels) == 5
        assert number_of(video.at(4.7).pixels) == numbers[-1]
    assert "cut.mp4" in caplog.text and "of 120 frames" in caplog.text


def test_damage_in_the_middle_gives_the_rest_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_raw(tmp_path / "hurt.mp4", 80, options={"g": "10"})
    content = bytearray(path.read_bytes())
    begin, end = content.index(b"mdat"), content.index(b"moov")
    middle = (begin + end) // 2
    content[middle : middle + 150] = bytes(150)
    path.write_bytes(content)
    with Video(path) as video, caplog.at_level(logging.WARNING, "facekit"):
        frames = list(video)
        assert number_of(video.at(79 / 25).pixels) == 79
    assert [number_of(frame.pixels) for frame in frames[:20]] == list(range(20))
    assert number_of(frames[-1].pixels) == 79
    assert frames[-1].time == pytest.approx(79 / 25)  # time does not shift with what is missing
    assert "hurt.mp4: damaged" in caplog.text


def test_moving_gifs_are_videos(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.gif"), "w") as out:
        stream = out.add_stream("gif", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb8"
        for i in range(10):
            frame = av.VideoFrame.from_ndarray(numbered(i), "rgb24").reformat(format="rgb8")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with Video(tmp_path / "a.gif") as video:
        assert [number_of(frame.pixels) for frame in video] == list(range(10))
        assert number_of(video.at(0.2).pixels) == 5


def test_a_whole_video_gives_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("clip.mp4", "clip.avi", "clip.ts"):
        with Video(write_raw(tmp_path / name, 40)) as video:
            list(video)
    assert not caplog.records


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_anywhere_gives_frames_or_one_error(folder: Path, data: st.DataObject) -> None:
    whole = folder / "damage-whole.mp4"
    if not whole.exists():
        write_video(whole, clip(30))
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 9))
        content[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8))
    path = folder / "damaged.mp4"
    path.write_bytes(content)
    try:
        with Video(path) as video:
            for frame, _ in zip(video, range(100), strict=False):
                assert frame.pixels.ndim == 3
            video.at(0.6)
    except FacekitError as error:
        assert "damaged.mp4" in str(error) and "\n" not in str(error)


def test_nothing_is_said_on_standard_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for _, path, _ in unreadable(tmp_path):
        with pytest.raises(FacekitError):
            probe(path)
    write_video(tmp_path / "clip.mp4", clip(5))
    gc.collect()
    assert capfd.readouterr() == ("", "")


# --- video: writing ---------------------------------------------------------------------------


def test_variable_rate_survives(variable: tuple[Path, list[Frame]]) -> None:
    path, frames = variable
    with Video(path) as video:
        read = list(video)
    assert [number_of(frame.pixels) for frame in read] == [frame.index for frame in frames]
    assert [f.time for f in read] == pytest.approx([f.time for f in frames], abs=1 / 90000)
    end = frames[-1].time + 1 / 25
    assert video.info.duration == pytest.approx(end, abs=1e-3)


@pytest.mark.parametrize("size", [(47, 65), (48, 65), (1, 1), (47, 64)])
def test_odd_sizes_become_even_by_repeating_the_edge(tmp_path: Path, size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 90, np.uint8)
    picture[-1], picture[:, -1] = 200, 200
    write_video(tmp_path / "odd.mp4", [Frame(picture, 0.0, 0)], crf=1)
    with Video(tmp_path / "odd.mp4") as video:
        read = video.at(0).pixels
    assert read.shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert abs(read[: size[0], : size[1]].astype(int) - picture).mean() < 4
    assert abs(read[-1].astype(int) - 200).max() < 12


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, clip(30, variable=True))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_two_frames_at_one_time_are_both_kept(tmp_path: Path) -> None:
    frames = [Frame(numbered(i), time, i) for i, time in enumerate([0.0, 0.0, 0.04])]
    write_video(tmp_path / "double.mp4", frames)
    with Video(tmp_path / "double.mp4") as video:
        assert [number_of(frame.pixels) for frame in video] == [0, 1, 2]


def sound_of(path: Path) -> tuple[str, list[bytes], list[float]]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        times = [float(packet.pts * packet.time_base) for packet in packets]
        name = stream.codec_context.codec.canonical_name
        return name, [bytes(packet) for packet in packets], times


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "aac"), ("a.mkv", "aac"), ("b.mkv", "flac"), ("a.avi", "libmp3lame")],
)
def test_sound_is_copied_packet_by_packet(tmp_path: Path, name: str, codec: str) -> None:
    source = write_raw(tmp_path / name, 75, sound=codec)
    with Video(source) as video:
        write_video(tmp_path / "out.mp4", video, audio_from=source)
    codec_in, packets_in, times_in = sound_of(source)
    codec_out, packets_out, times_out = sound_of(tmp_path / "out.mp4")
    assert codec_out == codec_in
    assert packets_out == packets_in
    # a.mkv stores times in milliseconds
    assert times_out == pytest.approx(times_in, abs=1e-3)
    with Video(tmp_path / "out.mp4") as video:
        assert [number_of(frame.pixels) for frame in video] == list(range(75))


def test_sound_stays_with_the_picture_where_both_start_late(tmp_path: Path) -> None:
    source = write_raw(tmp_path / "late.ts", 75, sound="aac", start=25)  # sound begins 1 s early
    with Video(source) as video:
        write_video(tmp_path / "out.mp4", video, audio_from=source)

    def onset(path: Path) -> float:
        """When the tone begins, in seconds after the first picture."""
        with av.open(str(path)) as container:
            first = next(container.decode(video=0)).time
        with av.open(str(path)) as container:
            for frame in container.decode(audio=0):
                loud = np.flatnonzero(abs(frame.to_ndarray()[0]) > 0.3)
                if len(loud):
                    return float(frame.time + loud[0] / frame.sample_rate - first)
        raise AssertionError("no tone")

    assert onset(source) == pytest.approx(0.5, abs=0.05)
    assert onset(tmp_path / "out.mp4") == pytest.approx(onset(source), abs=2e-3)


def test_sound_that_mp4_cannot_hold_becomes_aac(tmp_path: Path) -> None:
    source = write_raw(tmp_path / "pcm.mkv", 75, sound="pcm_s16le")
    write_video(tmp_path / "out.mp4", clip(75), audio_from=source)
    name, packets, times = sound_of(tmp_path / "out.mp4")
    assert name == "aac" and packets
    assert times[-1] == pytest.approx(3.0, abs=0.05)
    with av.open(str(tmp_path / "out.mp4")) as container:
        wave = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    assert wave.std() == pytest.approx(tone(3.0).std(), rel=0.1)


def test_sound_ends_with_the_frames(tmp_path: Path) -> None:
    source = write_raw(tmp_path / "long.mp4", 100, sound="aac")
    write_video(tmp_path / "short.mp4", clip(25), audio_from=source)
    assert sound_of(tmp_path / "short.mp4")[2][-1] < 1.5


def test_sound_alone_can_be_taken(tmp_path: Path) -> None:
    source = write_raw(tmp_path / "sound.m4a", 75, video=None, sound="aac")
    write_video(tmp_path / "out.mp4", clip(75), audio_from=source)
    assert sound_of(tmp_path / "out.mp4")[1] == sound_of(source)[1]


def test_no_sound_to_take_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    source = write_raw(tmp_path / "mute.mp4", 5)
    with pytest.raises(FacekitError, match=r"mute\.mp4: no sound"):
        write_video(tmp_path / "out.mp4", clip(5), audio_from=source)
    assert [path.name for path in tmp_path.iterdir()] == ["mute.mp4"]


def test_no_frames_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FacekitError, match=r"out\.mp4: no frames"):
        write_video(tmp_path / "out.mp4", [])
    assert not list(tmp_path.iterdir())


def test_a_failure_in_mid_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")

    def failing() -> Iterator[Frame]:
        yield from clip(60)
        raise RuntimeError("the generator broke")

    with pytest.raises(RuntimeError, match="broke"):
        write_video(path, failing())
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["out.mp4"]


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise av.error.OSError(28, "No space left on device", "x")

    monkeypatch.setattr(encode, "_encode", full)
    with pytest.raises(FacekitError, match=r"out\.mp4: cannot be written \(No space left"):
        write_video(tmp_path / "out.mp4", clip(5))
    assert not list(tmp_path.iterdir())


def test_a_video_can_replace_the_one_it_is_made_from(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "clip.mp4", 20)
    with Video(path) as video:
        write_video(path, video)
    with Video(path) as video:
        assert [number_of(frame.pixels) for frame in video] == list(range(20))


# --- pictures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "error"), [(".png", 0), (".jpg", 2), (".webp", 3)])
def test_pictures_survive(tmp_path: Path, suffix: str, error: float) -> None:
    picture = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8), (0, 0), 3
    )
    path = tmp_path / f"photo{suffix}"
    write_image(path, picture)
    read = read_image(path)
    assert read.dtype == np.uint8 and read.shape == (40, 60, 3)
    assert abs(read.astype(int) - picture).mean() <= error
    theirs = cv2.imread(str(path))[..., ::-1]
    assert abs(read.astype(int) - theirs).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned{suffix}"
    Image.fromarray(numbered(5)).save(path, exif=exif, quality=95)
    read = read_image(path)
    # By the EXIF standard: where row 0 and column 0 of the stored picture are in the scene.
    stored = numbered(5)
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(stored),
    }[orientation]
    assert read.shape == upright.shape
    assert abs(read.astype(int) - upright).mean() < 3
    assert probe(path).width == upright.shape[1]


def png16(rows: np.ndarray, colour: int) -> bytes:
    """A PNG of 16 bits a channel, made from the standard."""
    height, width = rows.shape[:2]

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bits_are_scaled_not_clipped(tmp_path: Path, colour: int, channels: int) -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16)
    rows = np.repeat(values[None, :, None], channels, axis=2)
    if channels in (2, 4):
        rows[..., -1] = 65535
    (tmp_path / "deep.png").write_bytes(png16(rows, colour))
    read = read_image(tmp_path / "deep.png")
    assert read.shape == (1, 256, 3)
    assert abs(read[0].astype(int) - np.arange(256)[:, None]).max() <= 1


def test_every_mode_becomes_rgb(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    red = np.zeros((4, 4, 4), np.uint8)
    red[..., 0] = 255
    cases: dict[str, tuple[Image.Image, tuple[int, int, int]]] = {
        "grey.png": (Image.fromarray(grey), (0, 0, 0)),
        "clear.png": (Image.fromarray(red), (255, 255, 255)),
        "half.png": (Image.fromarray(red | np.uint8([0, 0, 0, 128])), (255, 127, 127)),
        "palette.png": (Image.fromarray(red[..., :3]).convert("P"), (255, 0, 0)),
        "bits.png": (Image.fromarray(grey > 300), (0, 0, 0)),
        "grey-alpha.png": (Image.fromarray(red).convert("LA"), (255, 255, 255)),
        "clear.webp": (Image.fromarray(red), (255, 255, 255)),
        "ink.jpg": (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), (254, 0, 0)),
        "plain.bmp": (Image.fromarray(red[..., :3]), (255, 0, 0)),
    }
    for name, (image, corner) in cases.items():
        image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
        read = read_image(tmp_path / name)
        assert read.dtype == np.uint8 and read.ndim == 3 and read.shape[2] == 3, name
        assert abs(read[0, 0].astype(int) - corner).max() <= 1, name
    assert np.array_equal(read_image(tmp_path / "grey.png")[..., 1], grey)


@pytest.mark.parametrize("name", ["moving.png", "moving.webp"])
def test_of_a_moving_picture_the_first_frame_is_read(tmp_path: Path, name: str) -> None:
    pictures = [Image.fromarray(numbered(i)) for i in (9, 4)]
    pictures[0].save(
        tmp_path / name, save_all=True, append_images=pictures[1:], duration=40, lossless=True
    )
    assert np.array_equal(read_image(tmp_path / name), numbered(9))


@pytest.mark.parametrize("name", ["moving.png", "moving.webp"])
def test_frames_of_a_moving_picture(tmp_path: Path, name: str) -> None:
    pictures = [Image.fromarray(numbered(i)) for i in (9, 4, 200)]
    pictures[0].save(
        tmp_path / name,
        save_all=True,
        append_images=pictures[1:],
        duration=[40, 100, 60],
        lossless=True,
    )
    assert count_frames(tmp_path / name) == 3
    frames = list(read_animation(tmp_path / name))
    assert [number_of(f.pixels) for f in frames] == [9, 4, 200]
    assert [f.time for f in frames] == pytest.approx([0, 0.04, 0.14])
    assert [f.index for f in frames] == [0, 1, 2]


def test_two_pictures_in_a_jpeg_are_no_animation(tmp_path: Path) -> None:
    pictures = [Image.fromarray(numbered(i)) for i in (9, 4)]
    pictures[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=pictures[1:])
    assert count_frames(tmp_path / "a.jpg") == 1
    assert number_of(read_photo(tmp_path / "a.jpg").pixels) == 9


def test_moving_picture_cut_short(tmp_path: Path) -> None:
    pictures = [
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8))
        for i in range(3)
    ]
    path = tmp_path / "moving.png"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FacekitError, match=r"moving\.png: damaged picture"):
        list(read_animation(path))


# --- pictures kept whole ------------------------------------------------------------------------


PLANES = {
    "grey": Photo(np.arange(192, dtype=np.uint8).reshape(12, 16)),
    "rgb": Photo(numbered(3)),
    "grey-alpha": Photo(
        np.arange(192, dtype=np.uint8).reshape(12, 16), np.eye(12, 16, dtype=np.uint8) * 200
    ),
    "rgba": Photo(numbered(3), np.eye(48, 64, dtype=np.uint8) * 200),
    "deep-grey": Photo(np.arange(192, dtype=np.uint16).reshape(12, 16) * 341),
    "deep-rgb": Photo(numbered(3).astype(np.uint16) * 250 + 3),
    "deep-rgba": Photo(
        numbered(3).astype(np.uint16) * 250 + 3, np.eye(48, 64, dtype=np.uint16) * 40000
    ),
}


@pytest.mark.parametrize("kind", PLANES)
def test_png_holds_all_of_a_photo(tmp_path: Path, kind: str) -> None:
    photo, lost = fit(PLANES[kind], ".png")
    assert not lost
    path = tmp_path / "a.png"
    path.write_bytes(encode_photo(photo, ".png"))
    found = read_photo(path)
    assert found.deep is photo.deep
    assert np.array_equal(found.pixels, photo.pixels)
    assert (found.alpha is None) is (photo.alpha is None)
    if photo.alpha is not None:
        assert np.array_equal(found.alpha, photo.alpha)
    assert abs(found.rgb().astype(int) - read_image(path)).max() <= 1


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
@pytest.mark.parametrize("kind", PLANES)
def test_what_a_format_cannot_hold_is_said(tmp_path: Path, kind: str, suffix: str) -> None:
    photo, lost = fit(PLANES[kind], suffix)
    expected = ["16 bits a channel become 8"] * ("deep" in kind)
    if suffix == ".jpg" and PLANES[kind].alpha is not None:
        expected.append("transparent parts are laid over white")
    assert lost == expected
    (tmp_path / f"a{suffix}").write_bytes(encode_photo(photo, suffix, 100))
    assert abs(read_image(tmp_path / f"a{suffix}").astype(int) - photo.rgb()).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("deep", [False, True])
def test_photos_are_upright(tmp_path: Path, orientation: int, deep: bool) -> None:
    pixels = numbered(5)[..., 0]
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(pixels.astype(np.uint16) * 257 if deep else pixels)
    stored.save(path, exif=exif)
    photo = read_photo(path)
    assert photo.deep is deep
    assert np.array_equal(photo.rgb(), read_image(path))


def test_one_grey_level_may_stand_for_transparent(tmp_path: Path) -> None:
    for name, image in {
        "8": Image.fromarray(numbered(5)[..., 0]),
        "16": Image.fromarray(numbered(5)[..., 0].astype(np.uint16)),
    }.items():
        image.save(tmp_path / f"{name}.png", transparency=90)
        photo = read_photo(tmp_path / f"{name}.png")
        assert photo.alpha is not None
        assert np.array_equal(photo.alpha == 0, photo.pixels == 90)
        assert photo.pixels.ndim == 2


def ink_profile() -> bytes:
    """A profile by which full cyan, whatever the other inks, is middle grey; else paper is white.

    Written from the ICC's standard (ICC.1:2001-04): a table of 2 × 2 × 2 × 2 entries in Lab.
    """
    curve = bytes(range(256))
    entries = b"".join(bytes([255 if n < 8 else 128, 128, 128]) for n in range(16))
    matrix = struct.pack(">9i", *(65536 * (n % 4 == 0) for n in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + curve * 4 + entries + curve * 3
    tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(table))
    head = struct.pack(">I4sI4s4s4s", 144 + len(table), b"", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H4s", 2020, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + tags + table


def test_inks_are_seen_through_their_profile(tmp_path: Path) -> None:
    inks = np.zeros((32, 64, 4), np.uint8)
    inks[:, 32:, 0] = 255
    image = Image.fromarray(inks, mode="CMYK")
    image.save(tmp_path / "plain.jpg", quality=95)
    image.save(tmp_path / "known.jpg", quality=95, icc_profile=ink_profile())
    plain, known = (read_photo(tmp_path / name) for name in ("plain.jpg", "known.jpg"))
    assert abs(plain.pixels[16, 48].astype(int) - (0, 255, 255)).max() < 4
    # L* 50.2 is 18.6% of the light, which is 119.5 in sRGB.
    assert abs(known.pixels[16, 48].astype(int) - 119.5).max() < 4
    assert known.pixels[16, 8].min() > 250
    assert known.profile is None


def test_a_grey_profile_does_not_fit_a_picture_in_colour() -> None:
    profile = bytes(16) + b"GRAY" + bytes(108)
    photo = Photo(numbered(5)[..., 0], profile=profile)
    assert fit(photo, ".png") == (photo, [])
    coloured, lost = fit(photo, ".webp")
    assert coloured.profile is None
    assert lost == ["the colour profile, of grey alone, is left out"]


def bomb() -> bytes:
    """A PNG that says it is 60,000 pixels square."""
    content = bytearray(encode_image(numbered(0), ".png"))
    content[16:24] = struct.pack(">II", 60000, 60000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def test_what_is_no_picture_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    jpeg = encode_image(numbered(3, 200, 300), ".jpg")
    png = encode_image(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), ".png")
    buffer = io.BytesIO()
    Image.fromarray(numbered(1)).save(buffer, "TIFF")
    cases = {
        "empty.png": (b"", "empty"),
        "text.png": (b"hello there", "not a picture"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "damaged"),
        "cut.png": (png[: len(png) // 2], "damaged"),
        "head.png": (png[:20], "picture"),
        "bomb.png": (bomb(), "megapixels"),
        "other.tif": (buffer.getvalue(), "not a picture"),
    }
    for name, (content, says) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FacekitError) as error:
            read_image(tmp_path / name)
        assert says in one_line(error, tmp_path / name), name
    with pytest.raises(FacekitError, match="no such file"):
        read_image(tmp_path / "missing.png")


def test_a_picture_in_thousands_of_scans_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (1000, 1000)).save(buffer, "JPEG", progressive=True)
    sound = buffer.getvalue()
    last = sound.rindex(b"\xff\xda")
    path = tmp_path / "scans.jpg"
    path.write_bytes(sound[:last] + sound[last:-2] * 20 + b"\xff\xd9")
    assert read_image(path).shape == (1000, 1000, 3)
    path.write_bytes(sound[:last] + sound[last:-2] * 3000 + b"\xff\xd9")
    with pytest.raises(FacekitError, match=r"scans\.jpg: in 3\d\d\d scans"):
        read_image(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), suffix=st.sampled_from([".png", ".jpg", ".webp"]))
def test_damage_in_a_picture_is_read_or_one_error(
    folder: Path, data: st.DataObject, suffix: str
) -> None:
    content = bytearray(encode_image(numbered(3), suffix))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 5))
        content[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    path = folder / f"damaged{suffix}"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        assert read_image(path).ndim == 3
    except FacekitError as error:
        assert path.name in str(error) and "\n" not in str(error)


def test_pictures_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FacekitError, match=r"photo\.gif.*allowed: \.png"):
        write_image(tmp_path / "photo.gif", numbered(0))
    with pytest.raises(ValueError, match="uint8"):
        write_image(tmp_path / "photo.png", numbered(0).astype(np.float32))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


# --- finding ----------------------------------------------------------------------------------


def test_find_media(tmp_path: Path) -> None:
    for name in ["b.MP4", "a.jpg", "deep/er/c.png", ".hidden/d.png", ".e.png", "notes.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = find_media([tmp_path])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "a.jpg",
        "b.MP4",
        "deep/er/c.png",
    ]
    # Each once, however it is named; a file that is named outright is taken as it is.
    again = find_media([tmp_path / "notes.txt", tmp_path / "deep" / ".." / "a.jpg", tmp_path])
    assert [path.name for path in again] == ["notes.txt", "a.jpg", "b.MP4", "c.png"]


def test_what_a_folder_holds_besides_is_counted_for_who_accounts_for_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ["a.jpg", "b.heic", "photo", "deep/clip.mp4_1", ".hidden/photo", ".DS_Store"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    caplog.set_level("INFO", "facekit")
    assert [path.name for path in find_media([tmp_path], unread=True)] == ["a.jpg", "b.heic"]
    said = "passed over 2 files without the suffix of a picture or a video, e.g. deep"
    assert said in caplog.text
    caplog.clear()
    assert len(find_media([tmp_path, tmp_path / "photo"])) == 2
    assert "passed over" not in caplog.text


def test_patterns_that_the_shell_left_alone_are_expanded(tmp_path: Path) -> None:
    for name in ["b.jpg", "a.jpg", "c.png", "deep/er/d.jpg", ".e.jpg", "odd[1].png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    def found(*patterns: str) -> list[str]:
        paths = find_media([tmp_path / pattern for pattern in patterns])
        return [path.relative_to(tmp_path).as_posix() for path in paths]

    assert found("*.jpg") == ["a.jpg", "b.jpg"]
    assert found("**/*.jpg") == ["a.jpg", "b.jpg", "deep/er/d.jpg"]
    assert found("c.???", "d*") == ["c.png", "deep/er/d.jpg"]
    assert found("odd[1].png") == ["odd[1].png"]  # a name, not a pattern
    with pytest.raises(FacekitError, match=r"\*\.gif: no file or folder matches"):
        found("*.gif")


def test_find_media_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FacekitError, match=r"nowhere: no such file"):
        find_media([tmp_path / "nowhere"])
    with pytest.raises(FacekitError, match="no pictures or videos"):
        find_media([tmp_path])
