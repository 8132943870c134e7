import hashlib
import io
import json

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from skimage import data

from facekit import watermark
from facekit.commands.watermark import command
from facekit.core.errors import FacekitError
from facekit.media.decode import Video, probe
from facekit.media.encode import write_video
from facekit.media.images import read_image, write_image
from facekit.types import Frame, Pixels
from facekit.watermark import Kind, Payload, Reading, bch, spread

PAYLOAD = Payload(Kind.GENERATED, 0xABCDEF012345)
OTHER_KEY = b"a key that nobody marked with"


def photos(*more: str) -> dict[str, Pixels]:
    names = ("astronaut", "camera", "chelsea", "coffee", "rocket", "moon", *more)
    found = {name: getattr(data, name)() for name in names}
    return {n: np.dstack([p] * 3) if p.ndim == 2 else p for n, p in found.items()}


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def psnr(a: Pixels, b: Pixels) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2))


def compressed(pixels: Pixels, form: str, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, quality=quality)
    return np.array(Image.open(buffer).convert("RGB"))


def moving(pixels: Pixels, count: int, size: int = 256) -> list[Frame]:
    """A hand-held shot of a picture: it sways, turns and drifts."""
    still = resized(pixels, size, size)
    frames = []
    for i in range(count):
        turn = cv2.getRotationMatrix2D((size / 2, size / 2), 2 * np.sin(i / 8), 1.15)
        turn[:, 2] += (3 * np.sin(i / 5), 0.4 * i)
        frames.append(Frame(cv2.warpAffine(still, turn, (size, size)), i / 25, i))
    return frames


# --- the payload ----------------------------------------------------------------------------------


@given(st.sampled_from(Kind), st.integers(0, 2**48 - 1))
def test_payload_survives_its_bits(kind, number):
    payload = Payload(kind, number)
    assert Payload.from_bits(payload.to_bits()) == payload


def test_payload_layout_is_frozen():
    assert Payload(Kind.TEST_REAL, 5).to_int() == 0x0104_0000_0000_0005
    assert [k.label for k in Kind] == ["generated", "composite", "studio", "test-real"]
    unknown = np.array([int(b) for b in f"{0x0204_0000_0000_0005:064b}"], np.uint8)
    assert Payload.from_bits(unknown) is None


def test_id_that_does_not_fit_is_an_error():
    with pytest.raises(FacekitError, match="281474976710656"):
        Payload(Kind.GENERATED, 2**48)


# --- the mark in a picture ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(256, 256), (512, 512), (1280, 720), (300, 701), (450, 260)])
def test_mark_is_invisible_enough_and_read_exactly(size):
    for name, photo in photos("brick").items():  # brick: hard texture from edge to edge
        original = resized(photo, *size)
        marked = watermark.embed(original, PAYLOAD)
        assert marked.shape == original.shape
        assert marked.dtype == np.uint8
        assert psnr(original, marked) >= 40, name
        reading = watermark.read(marked)
        assert reading.payload == PAYLOAD, name
        assert reading.kind == "generated"
        assert reading.p_value < 1e-12
        assert not watermark.read(original).present


ATTACKS = {
    "jpeg90": lambda p: compressed(p, "JPEG", 90),
    "jpeg75": lambda p: compressed(p, "JPEG", 75),
    "webp75": lambda p: compressed(p, "WEBP", 75),
    "half": lambda p: resized(p, p.shape[1] // 2, p.shape[0] // 2),
    "double": lambda p: cv2.resize(p, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC),
    "bright": lambda p: cv2.convertScaleAbs(p, alpha=1.2),
    "blur1": lambda p: cv2.GaussianBlur(p, (0, 0), 1),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_payload_outlives(attack):
    for name, photo in photos().items():
        marked = watermark.embed(resized(photo, 512, 512), PAYLOAD)
        assert watermark.read(ATTACKS[attack](marked)).payload == PAYLOAD, name


def test_payload_at_256_pixels_outlives_jpeg():
    for name, photo in photos().items():
        marked = watermark.embed(resized(photo, 256, 256), PAYLOAD)
        assert watermark.read(compressed(marked, "JPEG", 75)).payload == PAYLOAD, name


def test_wrong_key_reads_nothing():
    marked = watermark.embed(photos()["chelsea"], PAYLOAD)
    assert watermark.read(marked, OTHER_KEY).p_value > 1e-3
    assert watermark.read(marked, OTHER_KEY).payload is None
    secret = watermark.embed(photos()["chelsea"], PAYLOAD, OTHER_KEY)
    assert watermark.read(secret, OTHER_KEY).payload == PAYLOAD
    assert not watermark.read(secret).present


@pytest.mark.parametrize("level", [0, 1, 128, 254, 255])
def test_flat_and_saturated_pictures_hold_a_mark(level):
    flat = np.full((256, 256, 3), level, np.uint8)
    marked = watermark.embed(flat, PAYLOAD)
    assert psnr(flat, marked) >= 40
    assert watermark.read(compressed(marked, "JPEG", 90)).payload == PAYLOAD


def test_half_of_a_picture_saturated():
    picture = resized(photos()["chelsea"], 400, 300)
    picture[:, :200] = 255
    assert watermark.read(watermark.embed(picture, PAYLOAD)).payload == PAYLOAD


def test_small_pictures_hold_presence():
    for name, photo in photos().items():
        marked = watermark.embed(resized(photo, 96, 96), PAYLOAD)
        assert watermark.read(marked).present, name
    for name in ("chelsea", "coffee", "rocket"):
        marked = watermark.embed(resized(photos()[name], 64, 64), PAYLOAD)
        assert watermark.read(marked).present, name
    with pytest.raises(FacekitError, match="63x200 is too small"):
        watermark.embed(resized(photos()["chelsea"], 63, 200), PAYLOAD)


@pytest.mark.parametrize("shape", [(1, 1), (2, 700), (15, 15), (40, 63)])
def test_reading_pictures_too_small_to_mark(shape):
    reading = watermark.read(np.full((*shape, 3), 77, np.uint8))
    assert reading == Reading(False, None, 1.0, None, 1)


# --- honest probabilities -------------------------------------------------------------------------


def test_statistic_of_unused_keys_is_standard_normal():
    """Over pictures and keys; marked pictures too, read with keys other than theirs."""
    pictures = [resized(p, 256, 256) for p in photos().values()]
    pictures += [watermark.embed(p, PAYLOAD) for p in pictures[:3]]
    values, p_values = [], []
    for number, picture in enumerate(pictures):
        for trial in range(60):
            sums = spread.correlate(picture, f"unused {number} {trial}".encode())
            values.append(spread.presence(sums))
            values.append(spread.statistic(sums[128:], np.ones(127, np.float32)))
            p_values.append(spread.decide(sums, frames=1).p_value)
    assert stats.kstest(values, "norm").pvalue > 0.01
    assert abs(np.mean(values)) < 4 / np.sqrt(len(values))
    assert 0.9 < np.std(values) < 1.1
    # An honest p-value lies below a level no more often than the level says.
    for level in (0.5, 0.1, 0.02):
        assert np.mean(np.array(p_values) < level) <= level
    assert min(p_values) > 1e-6


def test_summed_frames_keep_the_statistic():
    """A hundred near-equal frames are no more evidence than one."""
    frames = moving(photos()["coffee"], 12)
    values = []
    for trial in range(100):
        key = f"unused {trial}".encode()
        values.append(spread.presence(sum(spread.correlate(f.pixels, key) for f in frames)))
    assert stats.kstest(values, "norm").pvalue > 0.01
    assert max(np.abs(values)) < 4.5


def test_bound_is_hoeffdings_and_counts_every_test():
    values = np.ones(spread.GROUPS, np.float32)
    values[spread.PRESENCE :] = np.random.default_rng(1).choice([-1e-3, 1e-3], bch.LENGTH)
    once = spread.decide(values, frames=1)
    assert once.p_value == pytest.approx(2 * np.exp(-128 / 2), rel=1e-3)
    assert once.present
    assert once.payload is None


def test_no_bits_without_a_decision():
    """A word that decodes by chance is not handed out unless the evidence is there."""
    rng = np.random.default_rng(2)
    word = 1.0 - 2.0 * bch.encode(PAYLOAD.to_bits())
    weak = np.concatenate([rng.choice([-1, 1], 128), word * np.where(np.arange(127) < 9, -1, 1)])
    reading = spread.decide((weak * np.abs(rng.normal(size=255))).astype(np.float32), frames=1)
    assert not reading.present
    assert reading.payload is None
    assert reading.corrected is None


# --- video ----------------------------------------------------------------------------------------


def marked_frames(frames: list[Frame]) -> list[Frame]:
    return [Frame(watermark.embed(f.pixels, PAYLOAD), f.time, f.index) for f in frames]


@pytest.mark.parametrize("name", ["chelsea", "coffee", "rocket"])
def test_mark_outlives_h264_at_256_pixels(tmp_path, name):
    path = tmp_path / "v.mp4"
    write_video(path, marked_frames(moving(photos()[name], 50)), crf=23)
    reading = watermark.read_file(path)
    assert reading.payload == PAYLOAD
    assert reading.p_value < 1e-15
    assert reading.frames == 50
    assert not watermark.read_file(path, OTHER_KEY).present


def test_flat_clip_outlives_a_second_encoding(tmp_path):
    picture = np.full((256, 256, 3), (90, 120, 150), np.uint8)
    cv2.circle(picture, (128, 128), 60, (220, 180, 150), -1)
    first, second = tmp_path / "a.mp4", tmp_path / "b.mp4"
    write_video(first, marked_frames(moving(picture, 25)), crf=18)
    with Video(first) as video:
        write_video(second, video, crf=28)
    assert watermark.read_file(second).payload == PAYLOAD


def test_unmarked_video_reads_as_unmarked(tmp_path):
    write_video(tmp_path / "v.mp4", moving(photos()["coffee"], 10))
    reading = watermark.read_file(tmp_path / "v.mp4")
    assert not reading.present
    assert reading.p_value > 1e-3
    assert watermark.read_frames([]) == Reading(False, None, 1.0, None, 0)


def test_long_video_is_read_in_part(tmp_path):
    still = watermark.embed(resized(photos()["rocket"], 128, 128), PAYLOAD)
    write_video(tmp_path / "v.mp4", (Frame(still, i / 25, i) for i in range(200)))
    reading = watermark.read_file(tmp_path / "v.mp4")
    assert reading.present
    assert reading.frames == watermark.video.MAX_FRAMES


def test_test_mark_on_a_video_keeps_time(tmp_path):
    source, out = tmp_path / "a.mp4", tmp_path / "b.mp4"
    times = [0.0, 0.04, 0.2, 0.24, 0.5]
    frames = [
        Frame(f.pixels, t, f.index)
        for f, t in zip(moving(photos()["rocket"], 5), times, strict=True)
    ]
    write_video(source, frames)
    reading = watermark.embed_file(source, out, id=9)
    assert reading.payload == Payload(Kind.TEST_REAL, 9)
    with Video(out) as video:
        assert [f.time for f in video] == pytest.approx(times, abs=1e-3)
    assert probe(out).width == 256


# --- files and the command ------------------------------------------------------------------------


def test_marked_file_is_not_marked_again(tmp_path):
    """Else a test mark could wipe out the mark of a generated file."""
    path = tmp_path / "generated.png"
    write_image(path, watermark.embed(photos()["chelsea"], PAYLOAD))
    with pytest.raises(FacekitError, match="bears a mark already"):
        watermark.embed_file(path, tmp_path / "out.png")
    with pytest.raises(FacekitError, match="bears a mark already"):
        watermark.embed_file(path, tmp_path / "out.png", key=OTHER_KEY)
    assert not (tmp_path / "out.png").exists()


def test_unread_test_mark_is_not_written(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", photos()["chelsea"])
    monkeypatch.setattr(spread, "embed", lambda pixels, payload, key: pixels)
    with pytest.raises(FacekitError, match="could not be read back"):
        watermark.embed_file(tmp_path / "a.png", tmp_path / "b.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_files_that_cannot_be_read_are_one_line(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(FacekitError, match=r"broken\.png") as raised:
        watermark.read_file(path)
    assert "\n" not in str(raised.value)
    with pytest.raises(FacekitError, match=r"broken\.png"):
        watermark.embed_file(path, tmp_path / "out.png")


def test_keys(tmp_path):
    (tmp_path / "short").write_bytes(b"x" * 15)
    with pytest.raises(FacekitError, match="at least 16 bytes"):
        watermark.load_key(tmp_path / "short")
    with pytest.raises(FacekitError, match="none"):
        watermark.load_key(tmp_path / "none")


def test_command_marks_and_reads(tmp_path):
    runner = CliRunner()
    source, out, key = tmp_path / "a.jpg", tmp_path / "b.png", tmp_path / "key"
    write_image(source, photos()["chelsea"])
    key.write_bytes(b"k" * 32)

    made = runner.invoke(command, ["embed", str(source), str(out), "--id", "7"])
    assert made.exit_code == 0
    assert "test-real, id 7" in made.output
    assert read_image(out).shape == photos()["chelsea"].shape

    read = runner.invoke(command, ["read", str(out), "--json"])
    facts = json.loads(read.output)
    assert facts["present"] is True
    assert facts["kind"] == "test-real"
    assert facts["payload"] == "0104000000000007"
    assert facts["p_value"] < 1e-9
    assert facts["corrected"] == 0
    assert facts["frames"] == 1

    assert "no mark found" in runner.invoke(command, ["read", str(source)]).output
    private = runner.invoke(command, ["read", str(out), "--json", "--key-file", str(key)])
    assert json.loads(private.output)["present"] is False
    assert json.loads(private.output)["payload"] is None


def test_command_makes_no_other_kind():
    options = {name for p in command.commands["embed"].params for name in p.opts}
    assert options == {"src", "out", "--id", "--key-file", "--json"}


def test_output_suffix_is_checked(tmp_path):
    write_image(tmp_path / "a.png", photos()["chelsea"])
    with pytest.raises(FacekitError, match=r"b\.gif: a marked image is written as"):
        watermark.embed_file(tmp_path / "a.png", tmp_path / "b.gif")


def test_layout_of_a_key_is_frozen():
    """If it changed, the marks of yesterday could not be read any more."""
    places, weights = spread._chips(spread.DEFAULT_KEY)
    assert places.shape == weights.shape == (21, 255)
    layout = places.astype(">i4").tobytes() + np.sign(weights).astype(np.int8).tobytes()
    assert (
        hashlib.sha256(layout).hexdigest()
        == "d72a1dc1d1471a7c347e982e3ae06ccf432ab5552d2d7dafd648fa06ad458c07"
    )
