"""Marks in files: what pictures and videos keep, what is refused, what other programs leave."""

import errno
import io
import json
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from itertools import islice, pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageCms
from skimage import data

from facekit import watermark
from facekit.commands.watermark import command
from facekit.core.errors import FacekitError
from facekit.media.decode import Video, probe
from facekit.media.encode import write_video
from facekit.media.images import read_image, write_image
from facekit.types import Frame, Pixels
from facekit.watermark import Kind, Payload, Reading
from facekit.watermark import files as marked_files

PAYLOAD = Payload(Kind.GENERATED, 0xABCDEF012345)
TEST_REAL = Payload(Kind.TEST_REAL, 9)
OTHER_KEY = b"a key that nobody marked with"


@pytest.fixture
def known_unmarked(monkeypatch):
    """Sources are not searched for a mark, which takes longer than all the rest."""
    monkeypatch.setattr(marked_files, "_require_unmarked", lambda *_: None)


quick = pytest.mark.usefixtures("known_unmarked")


@cache
def shipped(name: str) -> Pixels:
    pixels = getattr(data, name)()
    return np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels


def photo(name: str, size: int | None = None) -> Pixels:
    pixels = shipped(name)
    if size is None:
        return pixels.copy()
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)


def psnr(a: Pixels, b: Pixels) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2))


def moving(pixels: Pixels, count: int, size: int = 256) -> list[Frame]:
    """A hand-held shot of a picture: it sways, turns and drifts."""
    still = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
    frames = []
    for i in range(count):
        turn = cv2.getRotationMatrix2D((size / 2, size / 2), 2 * np.sin(i / 8), 1.15)
        turn[:, 2] += (3 * np.sin(i / 5), 0.4 * (i % 40))
        frames.append(Frame(cv2.warpAffine(still, turn, (size, size)), i / 25, i))
    return frames


def static(pixels: Pixels, count: int, size: int = 256) -> list[Frame]:
    """A shot from a tripod: nothing differs but the sensor's noise."""
    still = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    rng = np.random.default_rng(0)
    return [
        Frame(np.clip(still + rng.normal(0, 1.5, still.shape), 0, 255).astype(np.uint8), i / 25, i)
        for i in range(count)
    ]


def marked(frames: Sequence[Frame]) -> list[Frame]:
    return [Frame(watermark.embed(f.pixels, PAYLOAD, moving=True), f.time, f.index) for f in frames]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- video ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A little over three seconds, marked."""
    path = tmp_path_factory.mktemp("clip") / "marked.mp4"
    write_video(path, marked(moving(photo("coffee"), 80, 320)), crf=20)
    return path


@pytest.mark.parametrize("start", [0, 0.5, 1.2])
def test_mark_is_read_from_any_two_seconds(clip, tmp_path, start):
    with Video(clip) as video:
        cut = [
            Frame(f.pixels, f.time - start, f.index) for f in video if start <= f.time < start + 2
        ]
    assert len(cut) == 50
    write_video(tmp_path / "cut.mp4", cut, crf=23)
    reading = watermark.read_file(tmp_path / "cut.mp4", search=False)
    assert reading.payload == PAYLOAD
    assert reading.p_value < 1e-12


def test_unmarked_video_reads_as_unmarked(tmp_path):
    write_video(tmp_path / "v.mp4", moving(photo("coffee"), 10))
    reading = watermark.read_file(tmp_path / "v.mp4")
    assert not reading.present
    assert reading.p_value > 1e-3


def test_wrong_key_reads_nothing(clip):
    assert not watermark.read_file(clip, OTHER_KEY).present


def flicker(frames: Sequence[Frame], others: Sequence[Frame]) -> float:
    """Mean absolute difference of what differs from frame to frame, in levels of 255."""
    changes = [a.pixels.astype(np.int16) - b.pixels for a, b in zip(frames, others, strict=True)]
    return float(np.mean([np.abs(b - a).mean() for a, b in pairwise(changes)]))


def motion(frames: Sequence[Frame]) -> float:
    return flicker(frames, [Frame(np.zeros_like(f.pixels), f.time, f.index) for f in frames])


@pytest.mark.parametrize("shot", [static, moving])
@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_flicker_is_bounded(tmp_path, shot, name):
    """The mark stands still: it changes far less from frame to frame than it changes a frame."""
    plain = shot(photo(name), 25)
    bearing = marked(plain)
    pairs = zip(bearing, plain, strict=True)
    strength = np.mean([np.abs(m.pixels.astype(int) - p.pixels).mean() for m, p in pairs])
    assert flicker(bearing, plain) < min(0.6, 0.35 * strength)

    seen = []
    for frames, path in ((plain, tmp_path / "plain.mp4"), (bearing, tmp_path / "bearing.mp4")):
        write_video(path, frames, crf=23)
        with Video(path) as video:
            seen.append(motion(list(video)))
    assert seen[1] < 1.1 * seen[0] + 0.05


def test_equal_frames_bear_equal_marks():
    still = photo("chelsea", 256)
    frames = marked([Frame(still, i / 25, i) for i in range(3)])
    assert motion(frames) == 0


def test_long_video_is_read_in_part(tmp_path):
    still = watermark.embed(photo("rocket", 128), PAYLOAD, moving=True)
    write_video(tmp_path / "v.mp4", (Frame(still, i / 25, i) for i in range(200)))
    reading = watermark.read_file(tmp_path / "v.mp4")
    assert reading.present
    assert reading.frames == marked_files.MAX_FRAMES


@quick
def test_test_mark_on_a_video_keeps_time(tmp_path):
    source, out = tmp_path / "a.mp4", tmp_path / "b.mp4"
    times = [0.0, 0.04, 0.2, 0.24, 0.5]
    frames = [
        Frame(f.pixels, t, f.index) for f, t in zip(moving(photo("rocket"), 5), times, strict=True)
    ]
    write_video(source, frames)
    assert watermark.embed_file(source, out, id=9).payload == TEST_REAL
    with Video(out) as video:
        assert [f.time for f in video] == pytest.approx(times, abs=1e-3)
    assert probe(out).width == 256


@quick
def test_sound_is_kept(tmp_path):
    source, out = tmp_path / "a.mkv", tmp_path / "b.mp4"
    with av.open(str(source), "w") as container:
        picture = container.add_stream("libx264", rate=25)
        picture.width = picture.height = 256
        sound = container.add_stream("aac", rate=44100, layout="mono")
        for frame in moving(photo("rocket"), 25):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(frame.pixels, "rgb24")))
        samples = np.sin(np.arange(44032) / 20).astype(np.float32)
        for begin in range(0, 44032, 1024):
            block = av.AudioFrame.from_ndarray(samples[None, begin : begin + 1024], "fltp", "mono")
            block.sample_rate, block.pts, block.time_base = 44100, begin, Fraction(1, 44100)
            container.mux(sound.encode(block))
        for stream in (picture, sound):
            container.mux(stream.encode(None))
    watermark.embed_file(source, out)
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        assert float(container.duration / av.time_base) == pytest.approx(1, abs=0.1)


@quick
def test_hdr_is_said_to_be_lost(tmp_path, caplog):
    with av.open(str(tmp_path / "a.mp4"), "w") as new:
        stream = new.add_stream("libx264", rate=25)
        stream.width = stream.height = 256
        stream.codec_context.color_trc = 18
        for frame in moving(photo("rocket"), 3):
            new.mux(stream.encode(av.VideoFrame.from_ndarray(frame.pixels, "rgb24")))
        new.mux(stream.encode(None))
    assert probe(tmp_path / "a.mp4").hdr
    watermark.embed_file(tmp_path / "a.mp4", tmp_path / "b.mp4")
    assert not probe(tmp_path / "b.mp4").hdr
    assert "a.mp4: its HDR is not converted" in caplog.text


@pytest.mark.parametrize("size", [(257, 301), (320, 258)])
def test_odd_sizes(tmp_path, size):
    frames = [Frame(photo("chelsea")[: size[1], : size[0]], i / 25, i) for i in range(5)]
    write_video(tmp_path / "a.mp4", marked(frames), crf=23)
    assert watermark.read_file(tmp_path / "a.mp4", search=False).payload == PAYLOAD


# --- other programs -------------------------------------------------------------------------------


def encoded(source: Path, out: Path, codec: str, options: dict[str, str], side: int = 256) -> None:
    """Two seconds, as another program would: PyAV and its own conversion alone."""
    with av.open(str(source)) as old, av.open(str(out), "w") as new:
        stream = new.add_stream(codec, rate=25, options=options)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        if "b" in options:
            stream.bit_rate = int(options["b"])
        for number, frame in enumerate(islice(old.decode(video=0), 50)):
            frame = frame.reformat(side, side, format="yuv420p")
            frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, 25), 0
            new.mux(stream.encode(frame))
        new.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("name", "codec", "options", "side"),
    [
        ("a.mp4", "libx264", {"crf": "26"}, 320),
        ("a.mp4", "libx264", {"crf": "23", "bf": "0", "g": "10"}, 384),
        ("a.mkv", "libx265", {"crf": "26", "x265-params": "log-level=none"}, 320),
        ("a.webm", "libvpx-vp9", {"crf": "32", "b": "0", "cpu-used": "8"}, 320),
        ("a.avi", "mpeg4", {"b": "1500000"}, 320),
    ],
)
def test_mark_outlives_other_encoders(clip, tmp_path, name, codec, options, side):
    encoded(clip, tmp_path / name, codec, options, side)
    reading = watermark.read_file(tmp_path / name, search=False)
    assert reading.payload == PAYLOAD
    assert reading.p_value < 1e-15


@pytest.mark.parametrize("kept", [True, False])
def test_size_may_change_in_mid_stream(tmp_path, kept):
    """Two transport streams, one after the other, are one stream whose size changes."""
    parts = []
    for size in (256, 320):
        frames = moving(photo("coffee"), 20, size)
        write_video(tmp_path / "part.mp4", marked(frames) if kept else frames)
        encoded(tmp_path / "part.mp4", tmp_path / "part.ts", "libx264", {"crf": "20"}, size)
        parts.append((tmp_path / "part.ts").read_bytes())
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    reading = watermark.read_file(tmp_path / "joined.ts")
    assert reading.frames == 40
    assert reading.payload == (PAYLOAD if kept else None)


def test_mark_outlives_a_cut_without_encoding(clip, tmp_path):
    """From a key frame on, packet by packet."""
    out = tmp_path / "cut.ts"
    with av.open(str(clip)) as old, av.open(str(out), "w") as new:
        source = old.streams.video[0]
        target = new.add_stream_from_template(source)
        for packet in list(old.demux(source))[:60]:
            packet.stream = target
            new.mux(packet)
    assert watermark.read_file(out, search=False).payload == PAYLOAD


@pytest.mark.parametrize(
    "save",
    [
        lambda image, file: image.save(file, "JPEG", quality=70),
        lambda image, file: image.save(file, "JPEG", quality=85, progressive=True, optimize=True),
        lambda image, file: image.save(file, "WEBP", quality=75),
        lambda image, file: image.convert("P", palette=Image.Palette.ADAPTIVE).save(file, "PNG"),
        lambda image, file: image.convert("L").save(file, "PNG"),
        lambda image, file: image.convert("CMYK").save(file, "JPEG", quality=90),
        lambda image, file: image.resize((400, 400)).save(file, "JPEG", quality=80),
    ],
)
def test_mark_outlives_another_program_s_saving(tmp_path, save):
    write_image(tmp_path / "a.png", watermark.embed(photo("astronaut"), PAYLOAD))
    with Image.open(tmp_path / "a.png") as image, (tmp_path / "b").open("wb") as file:
        save(image, file)
    assert watermark.read_file(tmp_path / "b", search=False).payload == PAYLOAD


# --- moving pictures ------------------------------------------------------------------------------


def animation(path: Path, frames: Sequence[Frame], **options: object) -> Path:
    first, *others = (Image.fromarray(f.pixels) for f in frames)
    options.setdefault("duration", 40)
    first.save(path, save_all=True, append_images=others, **options)
    return path


@quick
@pytest.mark.parametrize(
    ("name", "options"), [("a.png", {}), ("a.webp", {"quality": 90}), ("a.gif", {})]
)
def test_moving_pictures_become_video(tmp_path, name, options):
    """Never is the first frame marked alone."""
    path = animation(tmp_path / name, moving(photo("coffee"), 8), **options)
    with pytest.raises(FacekitError, match=r"b\.png: a marked moving picture or video is .*\.mp4"):
        watermark.embed_file(path, tmp_path / "b.png")
    reading = watermark.embed_file(path, tmp_path / "b.mp4", id=9)
    assert reading.payload == TEST_REAL
    assert reading.frames == 8
    with Video(tmp_path / "b.mp4") as video:
        assert [f.time for f in video] == pytest.approx([0.04 * i for i in range(8)], abs=1e-3)


@quick
def test_slow_moving_pictures_keep_their_length(tmp_path):
    path = animation(tmp_path / "a.png", moving(photo("coffee"), 3), duration=500)
    watermark.embed_file(path, tmp_path / "b.mp4")
    assert probe(tmp_path / "b.mp4").duration == pytest.approx(1.5, abs=0.01)


@pytest.mark.parametrize(("name", "options"), [("a.png", {}), ("a.webp", {"quality": 90})])
def test_all_frames_of_a_moving_picture_are_read(tmp_path, name, options):
    plain = moving(photo("coffee"), 8)
    path = animation(tmp_path / name, [plain[0], *marked(plain[1:])], **options)
    reading = watermark.read_file(path)
    assert reading.frames == 8
    assert reading.payload == PAYLOAD


def test_of_a_long_and_large_animation_the_beginning_is_read(tmp_path, monkeypatch):
    frames = [*marked(moving(photo("coffee"), 3)), *moving(photo("coffee"), 9)]
    path = animation(tmp_path / "a.png", frames)
    pixels = frames[0].pixels.shape[0] * frames[0].pixels.shape[1]
    monkeypatch.setattr(marked_files, "_ANIMATED_PIXELS", 3 * pixels)
    monkeypatch.setattr(marked_files, "MAX_FRAMES", 2)
    reading = watermark.read_file(path)
    assert (reading.frames, reading.payload) == (2, PAYLOAD)


@quick
def test_picture_for_those_who_show_no_animation_is_no_frame(tmp_path):
    frames = moving(photo("coffee"), 4)
    path = animation(tmp_path / "a.png", frames, default_image=True)
    assert watermark.embed_file(path, tmp_path / "b.mp4").frames == 3


# --- what a picture keeps -------------------------------------------------------------------------


def disc(size: int, soft: float = 1.0, share: float = 0.5) -> Pixels:
    """Opaque in the middle: a share of the area."""
    y, x = np.mgrid[:size, :size] - size / 2
    outside = np.hypot(x, y) - np.sqrt(share / np.pi) * size
    return (255 / (1 + np.exp(np.clip(outside / soft, -50, 50)))).astype(np.uint8)


@cache  # its date differs otherwise
def profile() -> bytes:
    """A colour profile that is not sRGB: with the primaries of Adobe RGB (1998)."""
    srgb = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for tag, xyz in (
        (b"rXYZ", (0.60974, 0.31111, 0.01947)),
        (b"gXYZ", (0.20528, 0.62567, 0.06087)),
        (b"bXYZ", (0.14919, 0.06322, 0.74457)),
    ):
        entry = srgb.index(tag, 128)
        at = struct.unpack_from(">I", srgb, entry + 4)[0]
        struct.pack_into(">3i", srgb, at + 8, *(round(v * 65536) for v in xyz))
    return bytes(srgb)


@quick
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_colour_profile_is_kept(tmp_path, suffix):
    """A wide-gamut picture without its profile would be shown in other colours."""
    Image.fromarray(photo("astronaut")).save(tmp_path / "a.jpg", icc_profile=profile(), quality=95)
    assert watermark.embed_file(tmp_path / "a.jpg", tmp_path / f"b{suffix}", id=9).payload
    with Image.open(tmp_path / f"b{suffix}") as image:
        assert image.info["icc_profile"] == profile()
    assert psnr(read_image(tmp_path / "a.jpg"), read_image(tmp_path / f"b{suffix}")) > 34


@quick
def test_place_and_camera_are_left_out_but_a_photo_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    exif.get_ifd(0x8825)[1] = "N"
    Image.fromarray(photo("coffee")).save(tmp_path / "a.jpg", exif=exif, comment=b"by somebody")
    watermark.embed_file(tmp_path / "a.jpg", tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as image:
        assert not image.getexif()
        assert "comment" not in image.info
        assert image.size == (400, 600)
    upright = np.rot90(photo("coffee"), -1)
    assert psnr(upright, read_image(tmp_path / "b.jpg")) > 30


@quick
@pytest.mark.parametrize("suffix", [".png", ".webp"])
@pytest.mark.parametrize(("soft", "share"), [(1, 0.5), (40, 0.5), (1, 0.3)])
def test_transparency_is_kept(tmp_path, suffix, soft, share):
    alpha = disc(512, soft, share)
    Image.fromarray(np.dstack([photo("astronaut"), alpha])).save(tmp_path / "a.png")
    out = tmp_path / f"b{suffix}"
    reading = watermark.embed_file(tmp_path / "a.png", out, id=9)
    assert reading.payload == TEST_REAL
    assert reading.p_value < 1e-15
    with Image.open(out) as image:
        assert image.mode == "RGBA"
        assert np.array_equal(np.array(image.getchannel("A")), alpha)
    assert psnr(read_image(tmp_path / "a.png"), read_image(out)) > 34


@quick
def test_transparency_that_the_format_cannot_hold_is_laid_over_white(tmp_path, caplog):
    Image.fromarray(np.dstack([photo("astronaut"), disc(512)])).save(tmp_path / "a.png")
    out = tmp_path / "b.jpg"
    assert watermark.embed_file(tmp_path / "a.png", out, id=9).payload == TEST_REAL
    assert f"{out}: transparent parts are laid over white" in caplog.text
    assert read_image(out)[0, 0].min() > 225


@quick
def test_opaque_pictures_with_transparency_lose_nothing(tmp_path, caplog):
    opaque = np.full((512, 512), 255, np.uint8)
    Image.fromarray(np.dstack([photo("astronaut"), opaque])).save(tmp_path / "a.png")
    watermark.embed_file(tmp_path / "a.png", tmp_path / "b.jpg")
    assert not caplog.text


@quick
def test_wholly_transparent_picture_cannot_hold_a_mark(tmp_path):
    clear = np.zeros((512, 512), np.uint8)
    Image.fromarray(np.dstack([photo("astronaut"), clear])).save(tmp_path / "a.png")
    with pytest.raises(FacekitError, match=r"b\.png: not written.*transparent to hold it"):
        watermark.embed_file(tmp_path / "a.png", tmp_path / "b.png")
    assert names(tmp_path) == ["a.png"]


def deep(pixels: Pixels) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 257, pixels.shape)
    return np.minimum(pixels.astype(np.int64) * 257 + noise, 65535).astype(np.uint16)


DEEP: dict[str, Callable[[], np.ndarray]] = {
    "grey": lambda: deep(data.camera()),
    "rgb": lambda: deep(photo("astronaut")),
    "rgba": lambda: np.dstack([deep(photo("astronaut")), disc(512).astype(np.uint16) * 257]),
}


@quick
@pytest.mark.parametrize("kind", DEEP)
def test_16_bits_are_kept(tmp_path, kind):
    source, out = tmp_path / "a.png", tmp_path / "b.png"
    values = DEEP[kind]()
    icc = np.frombuffer(profile(), np.uint8)
    content = cv2.imencodeWithMetadata(".png", values, [cv2.IMAGE_METADATA_ICCP], [icc])[1]
    source.write_bytes(content.tobytes())
    assert watermark.embed_file(source, out, id=9).payload == TEST_REAL
    found = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)
    assert found.dtype == np.uint16
    assert found.shape == values.shape
    change = found.astype(np.int64) - values
    # Nothing but whole levels of 8 bits were added: what lies below them is the source's.
    inside = (values > 60 * 257) & (values < 195 * 257)
    assert not np.any(change[inside] % 257)
    if kind == "rgba":
        assert not np.any(change[..., 3])
    with Image.open(out) as image:
        assert image.info["icc_profile"] == profile()


@quick
@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_16_bits_become_8_where_the_format_holds_no_more(tmp_path, suffix, caplog):
    cv2.imwrite(str(tmp_path / "a.png"), deep(photo("astronaut")))
    out = tmp_path / f"b{suffix}"
    assert watermark.embed_file(tmp_path / "a.png", out, id=9).payload == TEST_REAL
    assert f"{out}: 16 bits a channel become 8" in caplog.text
    assert psnr(photo("astronaut")[..., ::-1], read_image(out)) > 34


@quick
@pytest.mark.parametrize(("suffix", "mode"), [(".png", "L"), (".jpg", "L"), (".webp", "RGB")])
def test_grey_stays_grey(tmp_path, suffix, mode):
    Image.fromarray(data.camera()).save(tmp_path / "a.png")
    out = tmp_path / f"b{suffix}"
    assert watermark.embed_file(tmp_path / "a.png", out, id=9).payload == TEST_REAL
    with Image.open(out) as image:
        assert image.mode == mode
    pixels = read_image(out).astype(int)
    assert np.ptp(pixels, axis=2).max() <= 2


@quick
def test_palettes_inks_and_black_and_white(tmp_path):
    image = Image.fromarray(photo("astronaut"))
    palette = image.convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "clear-palette.png", transparency=0)
    image.convert("CMYK").save(tmp_path / "ink.jpg", quality=95)
    image.convert("CMYK").save(tmp_path / "broken-profile.jpg", quality=95, icc_profile=b"x" * 200)
    image.convert("1").save(tmp_path / "bits.png")
    image.save(tmp_path / "plain.bmp")
    for path in sorted(tmp_path.iterdir()):
        out = tmp_path / f"{path.stem}-marked.png"
        assert watermark.embed_file(path, out, id=9).payload == TEST_REAL, path.name
        assert psnr(read_image(path), read_image(out)) > 36, path.name
        with Image.open(out) as marked_image:
            expected = {"bits": "L", "clear-palette": "RGBA"}.get(path.stem, "RGB")
            assert marked_image.mode == expected
            assert "icc_profile" not in marked_image.info


# --- pictures that hold little --------------------------------------------------------------------


@quick
@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_and_saturated_files(tmp_path, level):
    write_image(tmp_path / "a.png", np.full((300, 400, 3), level, np.uint8))
    for name in ("b.png", "b.jpg"):
        assert watermark.embed_file(tmp_path / "a.png", tmp_path / name, id=9).payload == TEST_REAL


@quick
def test_tiny_files(tmp_path):
    write_image(tmp_path / "a.png", photo("coffee", 128))
    assert watermark.embed_file(tmp_path / "a.png", tmp_path / "b.png").present
    write_image(tmp_path / "c.png", photo("coffee")[:63])
    with pytest.raises(FacekitError, match=r"c\.png: a picture of 600x63 is too small"):
        watermark.embed_file(tmp_path / "c.png", tmp_path / "d.png")
    write_video(tmp_path / "e.mp4", [Frame(photo("coffee", 48), 0.0, 0)])
    with pytest.raises(FacekitError, match=r"e\.mp4: a picture of 48x48 is too small"):
        watermark.embed_file(tmp_path / "e.mp4", tmp_path / "f.mp4")
    assert names(tmp_path) == ["a.png", "b.png", "c.png", "e.mp4"]


@quick
def test_small_pictures_may_bear_presence_alone(tmp_path, monkeypatch):
    weak = Reading(True, None, 1e-10, None, 1, tests=6)
    write_image(tmp_path / "small.png", photo("coffee", 128))
    write_image(tmp_path / "large.png", photo("coffee", 256))
    monkeypatch.setattr(marked_files, "read_file", lambda *_, **__: weak)
    assert watermark.embed_file(tmp_path / "small.png", tmp_path / "b.png") == weak
    with pytest.raises(FacekitError, match="could not be read back"):
        watermark.embed_file(tmp_path / "large.png", tmp_path / "c.png")


@pytest.mark.parametrize("shape", [(1, 1), (2, 700), (1, 9000), (63, 40), (512, 512)])
def test_reading_blank_files(tmp_path, shape):
    write_image(tmp_path / "a.png", np.full((*shape, 3), 255, np.uint8))
    assert not watermark.read_file(tmp_path / "a.png").present


# --- what is refused ------------------------------------------------------------------------------


def test_marked_file_is_not_marked_again(tmp_path):
    """Else a test mark could wipe out the mark of a generated file."""
    path = tmp_path / "generated.png"
    write_image(path, watermark.embed(photo("chelsea"), PAYLOAD))
    for key in (watermark.DEFAULT_KEY, OTHER_KEY):
        with pytest.raises(FacekitError, match=r"generated\.png: bears a mark already"):
            watermark.embed_file(path, tmp_path / "out.png", key=key)
    cropped = tmp_path / "cropped.png"
    write_image(cropped, read_image(path)[20:, 30:])
    with pytest.raises(FacekitError, match=r"cropped\.png: bears a mark already"):
        watermark.embed_file(cropped, tmp_path / "out.png")
    assert names(tmp_path) == ["cropped.png", "generated.png"]


@quick
def test_unread_test_mark_is_not_written(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", photo("chelsea"))
    monkeypatch.setattr(marked_files, "embed", lambda pixels, payload, key: pixels)
    with pytest.raises(FacekitError, match=r"b\.png: not written.*could not be read back"):
        watermark.embed_file(tmp_path / "a.png", tmp_path / "b.png")
    assert names(tmp_path) == ["a.png"]


def contents() -> dict[str, tuple[bytes, str]]:
    png, jpeg, webp = io.BytesIO(), io.BytesIO(), io.BytesIO()
    image = Image.fromarray(photo("coffee", 256))
    image.save(png, "PNG")
    image.save(jpeg, "JPEG")
    image.save(webp, "WEBP")
    return {
        "empty.png": (b"", "empty file"),
        "text.png": (b"hello", "not an image or a video"),
        "head.png": (b"\x89PNG\r\n\x1a\n", "picture"),
        "head.jpg": (b"\xff\xd8\xff\xe0", "picture"),
        "cut.png": (png.getvalue()[:20000], "damaged picture"),
        "cut.jpg": (jpeg.getvalue()[:3000], "damaged picture"),
        "cut.webp": (webp.getvalue()[:2000], "picture"),
        "wrong.mp4": (b"\0\0\0\x18ftypmp42" + bytes(200), "not an image or a video"),
    }


@pytest.mark.parametrize("name", contents())
def test_files_that_cannot_be_read_are_one_line(tmp_path, name):
    content, says = contents()[name]
    path = tmp_path / name
    path.write_bytes(content)
    out = tmp_path / f"out{path.suffix}"
    for act in (watermark.read_file, lambda p: watermark.embed_file(p, out)):
        with pytest.raises(FacekitError) as raised:
            act(path)
        assert str(raised.value).startswith(f"{path}: ")
        assert says in str(raised.value)
        assert "\n" not in str(raised.value)
    assert names(tmp_path) == [name]


@quick
def test_16_bits_cut_short(tmp_path):
    content = cv2.imencode(".png", deep(photo("coffee")))[1].tobytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(FacekitError, match=r"a\.png: damaged picture"):
        watermark.embed_file(tmp_path / "a.png", tmp_path / "b.png")


@quick
def test_video_cut_short_is_marked_as_far_as_it_goes(tmp_path, caplog):
    frames = moving(photo("coffee"), 50)
    whole, cut = tmp_path / "a.ts", tmp_path / "cut.ts"
    write_video(tmp_path / "a.mp4", frames)
    encoded(tmp_path / "a.mp4", whole, "libx264", {"g": "10"})
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    reading = watermark.embed_file(cut, tmp_path / "b.mp4", id=9)
    assert reading.payload == TEST_REAL
    assert 10 < reading.frames < 40


def test_places_to_write_to(tmp_path):
    source = tmp_path / "a.png"
    write_image(source, photo("chelsea", 256))
    content = source.read_bytes()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "same.png").symlink_to(source)
    refused = {
        source: "is the file to mark; give another name",
        tmp_path / "same.png": "is the file to mark; give another name",
        tmp_path / "folder.png": "is a folder",
        tmp_path / "b.gif": "a marked picture is written as .png, .jpg",
        tmp_path / "b": "a marked picture is written as .png, .jpg",
        source / "b.png": "cannot be written (",
    }
    for out, says in refused.items():
        with pytest.raises(FacekitError) as raised:
            watermark.embed_file(source, out)
        assert str(raised.value).startswith(f"{out}: {says}"), out
    assert names(tmp_path) == ["a.png", "folder.png", "same.png"]
    assert source.read_bytes() == content


@quick
def test_larger_than_the_format_holds(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", np.zeros((64, 16384, 3), np.uint8))
    monkeypatch.setattr(marked_files, "embed", lambda pixels, payload, key: pixels)
    with pytest.raises(FacekitError, match=r"b\.webp: 16384×64 cannot be written as WEBP"):
        watermark.embed_file(tmp_path / "a.png", tmp_path / "b.webp")
    assert names(tmp_path) == ["a.png"]


def test_keys(tmp_path):
    (tmp_path / "short").write_bytes(b"x" * 15)
    with pytest.raises(FacekitError, match="short: a key must hold at least 16 bytes"):
        watermark.load_key(tmp_path / "short")
    (tmp_path / "empty").touch()
    for name, says in (("none", "no such file"), ("empty", "empty file"), (".", "is a folder")):
        with pytest.raises(FacekitError, match=says):
            watermark.load_key(tmp_path / name)


@pytest.mark.skipif(sys.platform == "win32", reason="no such device")
def test_an_endless_key_is_refused():
    with pytest.raises(FacekitError, match="/dev/zero: not a regular file"):
        watermark.load_key(Path("/dev/zero"))


# --- disks that fill ------------------------------------------------------------------------------


@quick
def test_disk_that_fills_in_mid_write(tmp_path, monkeypatch):
    def full(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    source, out = tmp_path / "a.png", tmp_path / "b.png"
    write_image(source, photo("chelsea", 256))
    out.write_bytes(b"old")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FacekitError, match=r"b\.png: cannot be written \(No space left on device"):
        watermark.embed_file(source, out)
    assert out.read_bytes() == b"old"
    assert names(tmp_path) == ["a.png", "b.png"]


_FULL = """
import resource, sys
from pathlib import Path
from facekit.core.errors import FacekitError
from facekit.watermark import embed_file, files

files._require_unmarked = lambda *_: None  # it only takes time
source, out = map(Path, sys.argv[1:])
embed_file(source, out)
size = out.stat().st_size
for limit in (0, 1000, size // 2, size - 1000):
    out.unlink(missing_ok=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        embed_file(source, out)
        said = "written"
    except FacekitError as error:
        said = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(f"{limit}|{said}")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX's")
@pytest.mark.parametrize("suffix", [".png", ".mp4"])
def test_file_that_may_not_grow_further(tmp_path, suffix):
    """As on a full disk, writes fail half-way: in the encoder, in the muxer, at the last bytes."""
    source, out = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    if suffix == ".png":
        write_image(source, photo("chelsea", 256))
    else:
        write_video(source, moving(photo("coffee"), 6))
    words = [sys.executable, "-c", _FULL, str(source), str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.split("|")[1].startswith(f"{out}: cannot be written ("), line
        assert ".part" not in line
    assert names(tmp_path) == [source.name]


# --- the command ----------------------------------------------------------------------------------


def test_command_marks_and_reads(tmp_path):
    runner = CliRunner()
    source, out, key = tmp_path / "a.jpg", tmp_path / "b.png", tmp_path / "key"
    write_image(source, photo("chelsea"))
    key.write_bytes(b"k" * 32)

    made = runner.invoke(command, ["embed", str(source), str(out), "--id", "7"])
    assert made.exit_code == 0
    assert "test-real, id 000000000007" in made.output
    assert read_image(out).shape == photo("chelsea").shape

    for more in ([], ["--no-search"]):
        read = runner.invoke(command, ["read", str(out), "--json", *more])
        facts = json.loads(read.output)
        assert set(facts) == {
            *("present", "payload", "kind", "id", "p_value"),
            *("corrected", "frames", "tests", "geometry"),
        }
        assert facts["present"] is True
        assert facts["kind"] == "test-real"
        assert facts["payload"] == f"{Payload(Kind.TEST_REAL, 7).to_int():016x}"
        assert facts["p_value"] < 1e-9
        assert facts["corrected"] == 0
        assert facts["frames"] == 1
        assert facts["geometry"] is None

    assert "no mark found" in runner.invoke(command, ["read", str(source)]).output
    private = runner.invoke(command, ["read", str(out), "--json", "--key-file", str(key)])
    assert json.loads(private.output)["present"] is False
    assert json.loads(private.output)["payload"] is None


def test_command_searches_unless_told_not_to(tmp_path):
    write_image(tmp_path / "a.png", watermark.embed(photo("astronaut"), PAYLOAD)[40:-30, 50:-20])
    runner = CliRunner()
    found = json.loads(runner.invoke(command, ["read", str(tmp_path / "a.png"), "--json"]).output)
    assert found["payload"] == f"{PAYLOAD.to_int():016x}"
    assert found["geometry"] is not None
    aligned = ["read", str(tmp_path / "a.png"), "--json", "--no-search"]
    assert json.loads(runner.invoke(command, aligned).output)["present"] is False


def test_payload_that_is_too_long_is_one_line(tmp_path):
    write_image(tmp_path / "a.png", photo("chelsea"))
    words = ["embed", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--id", str(2**48)]
    said = CliRunner().invoke(command, words).exception
    assert isinstance(said, FacekitError)
    assert str(said) == "mark id 281474976710656: allowed are 0 to 281474976710655"
    assert names(tmp_path) == ["a.png"]


def test_command_makes_no_other_kind():
    options = {name for p in command.commands["embed"].params for name in p.opts}
    assert options == {"src", "out", "--id", "--key-file", "--json"}
