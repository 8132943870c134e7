import hashlib
import io
import math
from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from skimage import data

from facekit import watermark
from facekit.core.errors import FacekitError
from facekit.types import Pixels
from facekit.watermark import Geometry, Kind, Listener, Payload, Reading, bch, search, spread

PAYLOAD = Payload(Kind.GENERATED, 0xABCDEF012345)
OTHER_KEY = b"a key that nobody marked with"


@cache
def photo_of(name: str) -> Pixels:
    found = getattr(data, name)()
    return np.dstack([found] * 3) if found.ndim == 2 else found


def photos(*more: str) -> dict[str, Pixels]:
    names = ("astronaut", "camera", "chelsea", "coffee", "rocket", "moon", *more)
    return {name: photo_of(name) for name in names}


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def psnr(a: Pixels, b: Pixels) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2))


def compressed(pixels: Pixels, form: str, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, quality=quality)
    return np.array(Image.open(buffer).convert("RGB"))


def turned(pixels: Pixels, degrees: float) -> Pixels:
    """Clockwise about the middle, on the same canvas."""
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -degrees, 1)
    return cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_CUBIC)


def swayed(pixels: Pixels, count: int, size: int = 256) -> list[Pixels]:
    """A hand-held shot of a picture: it sways, turns and drifts."""
    still = resized(pixels, size, size)
    frames = []
    for i in range(count):
        turn = cv2.getRotationMatrix2D((size / 2, size / 2), 2 * np.sin(i / 8), 1.15)
        turn[:, 2] += (3 * np.sin(i / 5), 0.4 * i)
        frames.append(cv2.warpAffine(still, turn, (size, size)))
    return frames


# --- the payload ----------------------------------------------------------------------------------


@given(st.sampled_from(Kind), st.integers(0, 2**48 - 1))
def test_payload_survives_its_bits(kind, number):
    payload = Payload(kind, number)
    assert Payload.from_bits(payload.to_bits()) == payload


def test_payload_layout_is_frozen():
    assert Payload(Kind.TEST_REAL, 5).to_int() == 0x0204_0000_0000_0005
    assert [k.label for k in Kind] == ["generated", "composite", "studio", "test-real"]
    unknown = np.array([int(b) for b in f"{0x0304_0000_0000_0005:064b}"], np.uint8)
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
        assert psnr(original, marked) >= 35.7, name  # rounding to whole levels takes some
        reading = watermark.read(marked)
        assert reading.payload == PAYLOAD, name
        assert reading.kind == "generated"
        assert reading.geometry is None
        assert reading.p_value < 1e-12


def test_calm_pictures_bear_a_weaker_mark_than_busy_ones():
    calm, busy = (resized(photos("brick")[name], 512, 512) for name in ("moon", "brick"))
    assert psnr(calm, watermark.embed(calm, PAYLOAD)) >= 44
    assert psnr(busy, watermark.embed(busy, PAYLOAD)) <= 40


def test_calm_places_bear_no_more_for_busy_ones_beside_them():
    calm = np.full((512, 512, 3), 128, np.uint8)
    beside = calm.copy()
    beside[:, 256:] = np.random.default_rng(0).integers(60, 196, (512, 256, 1))
    left = [psnr(p[:, :230], watermark.embed(p, PAYLOAD)[:, :230]) for p in (calm, beside)]
    assert left[1] > left[0] - 1


def test_mark_hides_where_the_picture_is_busy():
    picture = np.full((512, 512, 3), 128, np.uint8)
    picture[:, :256] = np.random.default_rng(0).integers(60, 196, (512, 256, 1))
    change = np.abs(watermark.embed(picture, PAYLOAD).astype(int) - picture).mean(axis=(0, 2))
    assert change[:240].mean() > 2 * change[272:].mean()


@pytest.mark.parametrize("name", ["moon", "rocket"])
def test_unmarked_picture_reads_as_unmarked(name):
    reading = watermark.read(photos()[name])
    assert not reading.present
    assert reading.payload is None
    assert reading.p_value > 0.01


ATTACKS = {
    "jpeg75": lambda p: compressed(p, "JPEG", 75),
    "jpeg30": lambda p: compressed(p, "JPEG", 30),
    "webp75": lambda p: compressed(p, "WEBP", 75),
    "half": lambda p: resized(p, p.shape[1] // 2, p.shape[0] // 2),
    "double": lambda p: cv2.resize(p, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC),
    "brighter": lambda p: cv2.convertScaleAbs(p, alpha=1.2),
    "darker": lambda p: cv2.convertScaleAbs(p, alpha=0.8),
    "blur2": lambda p: cv2.GaussianBlur(p, (0, 0), 2),
    "rotate3": lambda p: turned(p, 3),
    "crop25": lambda p: p[37:421, 101:485],
    "screenshot": lambda p: compressed(resized(p, 410, 410)[9:380, 25:401], "JPEG", 80),
}


@pytest.fixture(scope="module")
def marked_photos():
    return {n: watermark.embed(resized(p, 512, 512), PAYLOAD) for n, p in photos().items()}


@pytest.mark.parametrize("attack", ATTACKS)
def test_payload_outlives(attack, marked_photos):
    for name, marked in marked_photos.items():
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
    assert psnr(flat, marked) >= 45
    assert watermark.read(compressed(marked, "JPEG", 90)).payload == PAYLOAD


def test_half_of_a_picture_saturated():
    picture = resized(photos()["chelsea"], 400, 300)
    picture[:, :200] = 255
    assert watermark.read(watermark.embed(picture, PAYLOAD)).payload == PAYLOAD


def test_small_pictures_hold_presence():
    for name, photo in photos().items():
        small = watermark.embed(resized(photo, 128, 128), PAYLOAD)
        assert watermark.read(compressed(small, "JPEG", 75)).present, name
        marked = watermark.embed(resized(photo, 96, 96), PAYLOAD)
        assert watermark.read(marked).present, name
    for name in ("moon", "rocket"):
        marked = watermark.embed(resized(photos()[name], 64, 64), PAYLOAD)
        assert watermark.read(marked).present, name
    with pytest.raises(FacekitError, match="63x200 is too small"):
        watermark.embed(resized(photos()["chelsea"], 63, 200), PAYLOAD)
    with pytest.raises(FacekitError, match="64x1025 is too narrow"):
        watermark.embed(resized(photos()["chelsea"], 64, 1025), PAYLOAD)


@pytest.mark.parametrize("shape", [(1, 1), (2, 700), (15, 15), (40, 63)])
def test_reading_pictures_too_small_to_mark(shape):
    reading = watermark.read(np.full((*shape, 3), 77, np.uint8))
    assert reading == Reading(False, None, 1.0, None, 1, tests=6)


def test_frames_of_a_video_add_up():
    """The mark of one frame alone is lost in the noise; that of many is not."""
    random = np.random.default_rng(0)
    frames = [watermark.embed(f, PAYLOAD, moving=True) for f in swayed(photos()["moon"], 40)]
    noisy = [np.clip(f + random.normal(0, 90, f.shape), 0, 255).astype(np.uint8) for f in frames]
    listener = Listener()
    for frame in noisy:
        listener.add(frame)
    reading = listener.decide()
    assert reading.payload == PAYLOAD
    assert reading.frames == 40
    assert watermark.read(noisy[0]).payload is None


# --- where a picture lies in the marked one -------------------------------------------------------


@cache
def marked_rocket():
    return watermark.embed(resized(photo_of("rocket"), 720, 600), PAYLOAD)


@settings(deadline=None, max_examples=12)
@given(
    st.floats(0.7, 1.6),
    st.floats(-5, 5),
    st.floats(0.65, 0.95),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_geometry_is_what_was_done(scale, degrees, kept, right, down):
    marked = marked_rocket()
    height, width = (round(side * kept) for side in marked.shape[:2])
    y, x = round(down * (600 - height)), round(right * (720 - width))
    size = round(width * scale), round(height * scale)
    cut = cv2.resize(
        turned(marked[y : y + height, x : x + width], degrees), size, interpolation=cv2.INTER_AREA
    )
    reading = watermark.read(cut)
    assert reading.payload == PAYLOAD
    found = reading.geometry
    assert found is not None
    assert found.side == pytest.approx(600 * scale, rel=0.01)
    assert found.degrees == pytest.approx(degrees, abs=0.4)
    # The corner that lies at the top left now lay elsewhere before it was turned about the middle.
    angle = np.radians(degrees)
    to_corner = np.array([-width / 2, -height / 2])
    back = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corner = np.array([x, y]) + np.array([width / 2, height / 2]) + back @ to_corner
    # Given along the axes of the picture as it lies now, turned about the top left of the mark.
    wanted = np.array([found.x, found.y])
    upright = corner / 600
    off = (wanted - upright + 0.5) % 1 - 0.5
    assert np.abs(off).max() < 0.03


def test_search_can_be_left_out():
    cut = watermark.embed(resized(photos()["rocket"], 512, 512), PAYLOAD)[50:400, 60:410]
    assert watermark.read(cut).payload == PAYLOAD
    assert not watermark.read(cut, search=False).present


def test_frames_are_of_one_size():
    listener = Listener()
    listener.add(photos()["chelsea"])
    with pytest.raises(ValueError, match="among such of"):
        listener.add(photos()["coffee"])


def test_cut_video_is_found_from_all_its_frames():
    listener = Listener()
    for frame in swayed(photos()["coffee"], 24, 320):
        listener.add(watermark.embed(frame, PAYLOAD, moving=True)[40:300, 20:280])
    reading = listener.decide()
    assert reading.payload == PAYLOAD
    assert reading.frames == 24
    assert reading.geometry is not None
    assert reading.geometry.side == pytest.approx(320, rel=0.01)


def test_geometry_in_words():
    assert Geometry(812.4, -2.9, 0.1, 0.2).sentence() == (
        "as part of a picture whose shorter side is 812 pixels, turned by -2.9°"
    )
    assert "turned" not in Geometry(812.4, 0.1, 0.1, 0.2).sentence()


# --- honest probabilities -------------------------------------------------------------------------


def spectrum(pictures: list[Pixels]) -> spread.Spectrum:
    return sum(spread.spectrum(spread.flatten(spread.to_period(spread.grey(p)))) for p in pictures)


def test_statistics_of_unused_keys_are_standard_normal():
    """Over pictures and keys; marked pictures too, read with keys other than theirs."""
    pictures = [resized(p, 256, 256) for p in photos().values()]
    pictures += [watermark.embed(p, PAYLOAD) for p in pictures[:3]]
    spectra = [spectrum([picture]) for picture in pictures]
    word = 1.0 - 2.0 * bch.encode(PAYLOAD.to_bits()).astype(np.float32)
    present, bits, parts, p_values = [], [], [], []
    for trial in range(1500):
        key = f"unused {trial}".encode()
        values = spread.values(spectra[trial % len(spectra)], spread.code(key))
        present.append(spread.statistic(values.presence))
        bits.append(spread.statistic(values.bits, word))
        parts.append(spread.statistic(values.bits, word, values.scatter))
        p_values.append(spread.decide(values, frames=1).p_value)
    for statistic in (present, bits, parts):
        assert stats.kstest(statistic, "norm").pvalue > 0.01
        assert abs(np.mean(statistic)) < 4 / np.sqrt(len(statistic))
        assert 0.9 < np.std(statistic) < 1.1
    # An honest p-value lies below a level no more often than the level says.
    for level in (0.5, 0.1, 0.02):
        assert np.mean(np.array(p_values) < level) <= level
    assert min(p_values) > 1e-6


def test_summed_frames_keep_the_statistic():
    """A dozen near-equal frames are no more evidence than one."""
    summed = spectrum(swayed(photos()["coffee"], 12))
    codes = [spread.code(f"unused {n}".encode()) for n in range(300)]
    values = [spread.statistic(spread.values(summed, of).presence) for of in codes]
    assert stats.kstest(values, "norm").pvalue > 0.01
    assert max(np.abs(values)) < 4.5


def test_searches_with_unused_keys_find_nothing():
    """All that is tried is counted, so the best of millions of tries is no evidence."""
    pictures = [resized(photos()[name], 300, 256) for name in ("chelsea", "coffee")]
    pictures.append(watermark.embed(pictures[0], PAYLOAD)[20:220, 30:250])
    for number, picture in enumerate(pictures):
        reading = watermark.read(picture, f"unused {number}".encode())
        assert reading.p_value == 1.0


def noise(seed: int) -> spread.Values:
    random = np.random.default_rng(seed)
    presence, bits = (random.choice([-1.0, 1.0], n).astype(np.float32) for n in (256, 127))
    return spread.Values(presence, bits, 100.0)


def test_bound_is_hoeffdings_and_counts_every_test():
    values = noise(1)
    strong = spread.Values(np.ones(256, np.float32), values.bits, values.scatter)
    once = spread.decide(strong, frames=1)
    assert once.p_value == pytest.approx(3 * np.exp(-256 / 2), rel=1e-3)
    assert once.present
    assert once.payload is None
    assert once.tests == 3
    often = spread.decide(strong, frames=1, looks=1000, share=0.5)
    assert often.p_value == pytest.approx(2000 * once.p_value, rel=1e-3)
    assert often.tests == 6000


def test_word_alone_is_not_charged_for_looks():
    """Where to look was chosen by other coins than those of the bits."""
    word = 1.0 - 2.0 * bch.encode(PAYLOAD.to_bits()).astype(np.float32)
    presence = np.where(np.arange(256) < 160, 1, -1).astype(np.float32)  # T = 4
    values = spread.Values(presence, word, scatter=float(np.sqrt(127) / 1.4))
    expected = 3 * 2.0**64 * np.exp(-127 * 1.4**2 / 2)
    for looks in (1, search.LOOKS):
        reading = spread.decide(values, frames=1, looks=looks)
        assert reading.payload == PAYLOAD
        assert reading.p_value == pytest.approx(expected, rel=0.01)


def test_no_bits_without_a_decision():
    """A word that decodes by chance is not handed out unless the evidence is there."""
    random = np.random.default_rng(2)
    word = 1.0 - 2.0 * bch.encode(PAYLOAD.to_bits()).astype(np.float32)
    flipped = word * np.where(np.arange(127) < 9, -1, 1)
    presence = np.where(np.arange(256) < 155, 1, -1) * np.abs(random.normal(size=256))
    values = spread.Values(
        presence.astype(np.float32), flipped.astype(np.float32), scatter=float(np.sqrt(127) * 2)
    )
    reading = spread.decide(values, frames=1)
    assert not reading.present
    assert reading.payload is None
    assert reading.corrected is None


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.7, 0.9, 1.0, 1.1]))
def test_mark_too_faint_to_decode_yields_no_wrong_payload(seed, amplitude):
    """Presence may be beyond doubt and the bits drowned: then there is a mark, and no payload."""
    random = np.random.default_rng(seed)
    word = 1.0 - 2.0 * bch.encode(PAYLOAD.to_bits())
    bits = amplitude * word + random.normal(size=127)
    presence = 2.0 + random.normal(size=256)
    scatter = math.sqrt(127 * (1 + amplitude**2))
    values = spread.Values(presence.astype(np.float32), bits.astype(np.float32), scatter)
    reading = spread.decide(values, frames=1)
    assert reading.present
    assert reading.payload in (None, PAYLOAD)
    if amplitude < 0.8:
        assert "cannot be read" in reading.sentence()


def test_layout_of_a_key_is_frozen():
    """Else marks that are out in the world could not be read any more."""
    of = spread.code(spread.DEFAULT_KEY)
    parts = (of.x, of.y, of.presence, of.groups)
    told = b"".join(part.astype("<i4").tobytes() for part in parts)
    told += of.signs.astype("<c8").tobytes()
    assert (
        hashlib.sha256(told).hexdigest()
        == "4df05f420349a4d7874d94d78d6df2e1a6876307b26378a768f3cdc6b566e4de"
    )
