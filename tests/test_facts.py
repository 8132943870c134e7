"""Facts of files: against settings they were written with, and markers parsed here by hand."""

import io
import itertools
import struct
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from facekit.core.errors import FacekitError
from facekit.media import facts
from facekit.media.facts import describe


def codes(found):
    return [hint.code for hint in found.hints]


def text_of(found, code):
    return next(hint.text for hint in found.hints if hint.code == code)


@pytest.fixture(scope="module")
def photo(astronaut):
    return Image.fromarray(astronaut)


def save(image, path, **options):
    image.save(path, **options)
    return path


# Pictures


def segments(path):
    """A JPEG's markers up to the scan: (marker, payload)."""
    content, place = path.read_bytes(), 2
    while True:
        marker, length = struct.unpack(">xBH", content[place : place + 4])
        yield marker, content[place + 4 : place + 2 + length]
        if marker == 0xDA:
            return
        place += 2 + length


def tables_by_hand(path):
    """DQT tables in zigzag order as stored, of 8 bits each, by number."""
    found = {}
    for marker, payload in segments(path):
        while marker == 0xDB and payload:
            found[payload[0]] = list(payload[1:65])
            payload = payload[65:]
    return found


@pytest.mark.parametrize("quality", [1, 2, 10, 30, 49, 50, 51, 75, 85, 95, 99, 100])
def test_jpeg_quality_is_the_one_it_was_written_with(photo, tmp_path, quality):
    small = photo.resize((32, 32))
    found = describe(save(small, tmp_path / "a.jpg", quality=quality)).picture
    assert (found.quality, found.tables) == (quality, "standard")
    grey = describe(save(small.convert("L"), tmp_path / "g.jpg", quality=quality)).picture
    assert (grey.quality, grey.tables, grey.subsampling) == (quality, "standard", None)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    ("subsampling", "factors"), [("4:4:4", 0x11), ("4:2:2", 0x21), ("4:2:0", 0x22)]
)
def test_jpeg_is_described_as_its_markers_say(photo, tmp_path, subsampling, factors, progressive):
    path = tmp_path / "a.jpg"
    save(photo, path, quality=80, subsampling=subsampling, progressive=progressive)
    markers = dict(segments(path))
    frame = markers[0xC2 if progressive else 0xC0]
    assert frame[7] == factors  # of luma: samples across and down in a nibble each
    found = describe(path)
    assert found.format == "jpeg"
    assert found.suffix_fits
    assert found.video is None
    assert found.picture.subsampling == subsampling
    assert found.picture.progressive is progressive
    assert found.picture.mode == "RGB"


def test_custom_tables_have_the_nearest_quality_and_a_hash_of_their_own(photo, tmp_path):
    path = save(photo, tmp_path / "a.jpg", quality=80)
    with Image.open(path) as image:
        luma, colour = image.quantization.values()
    other = [luma[0] + 1, *luma[1:]]
    changed = describe(save(photo, tmp_path / "b.jpg", qtables=[other, colour]))
    assert (changed.picture.quality, changed.picture.tables) == (80, "custom")
    assert "tables_not_standard" in codes(changed)
    assert tables_by_hand(tmp_path / "b.jpg")[0][0] == tables_by_hand(path)[0][0] + 1
    standard, again = describe(path), describe(save(photo.rotate(90), path, quality=80))
    assert standard.picture.tables_sha256 == again.picture.tables_sha256
    assert standard.picture.tables_sha256 != changed.picture.tables_sha256
    assert "tables_not_standard" not in codes(standard)


@pytest.mark.parametrize(("suffix", "kind"), [("png", "png"), ("webp", "webp"), ("bmp", "bmp")])
def test_formats_without_tables(photo, tmp_path, suffix, kind):
    found = describe(save(photo, tmp_path / f"a.{suffix}"))
    assert found.format == kind
    assert (found.picture.quality, found.picture.tables, found.picture.subsampling) == (None,) * 3
    assert codes(found) == ["no_metadata"]


def test_a_name_that_says_another_format(photo, tmp_path):
    path = save(photo, tmp_path / "a.png")
    found = describe(path.rename(tmp_path / "a.jpg"))
    assert (found.format, found.suffix_fits) == ("png", False)
    assert "ends in .jpg" in text_of(found, "suffix_differs")


def test_colour_profile_by_name(photo, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = describe(save(photo, tmp_path / "a.jpg", icc_profile=profile))
    assert "sRGB" in found.picture.profile
    broken = describe(save(photo, tmp_path / "b.jpg", icc_profile=profile[:70] + b"\xff" * 50))
    assert broken.picture.profile == "unreadable"


def exif_of(**tags):
    exif = Image.Exif()
    names = {name: tag for tag, name in ExifTags.TAGS.items()}
    inner = {"DateTimeOriginal", "DateTimeDigitized", "FNumber", "UserComment", "MakerNote"}
    for name, value in tags.items():
        where = exif.get_ifd(ExifTags.IFD.Exif) if name in inner else exif
        where[names[name]] = value
    return exif


def test_exif_camera_editor_dates_and_place(photo, tmp_path):
    exif = exif_of(
        Make="Canon",
        Model="Canon EOS 5D",
        Software="Adobe Photoshop 25.1 (Windows)",
        DateTime="2024:05:02 10:00:00",
        DateTimeOriginal="2024:05:01 09:30:00",
        FNumber=2.8,
        UserComment=b"ASCII\0\0\0at the gate",
        MakerNote=b"\0\1\2\3" * 100,
    )
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (51.0, 30.0, 26.5)})
    found = describe(save(photo, tmp_path / "a.jpg", quality=90, exif=exif))
    expected = {
        "Make": "Canon",
        "Model": "Canon EOS 5D",
        "DateTimeOriginal": "2024:05:01 09:30:00",
        "FNumber": "2.8",
        "UserComment": "at the gate",
        "MakerNote": "400 bytes",
        "GPSLatitude": "51 30 26.5",
        "GPSLatitudeRef": "N",
    }
    assert expected.items() <= found.metadata.items()
    assert codes(found) == ["edited_with", "dates_differ", "camera", "recompressed"]
    assert "Canon EOS 5D." in text_of(found, "camera")  # and not "Canon Canon"
    assert "quality 90" in text_of(found, "recompressed")
    same = exif_of(DateTime="2024:05:01 09:30:01", DateTimeOriginal="2024:05:01 09:30:00")
    assert codes(describe(save(photo, tmp_path / "b.jpg", exif=same))) == []


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description xmp:CreatorTool="Adobe Photoshop 22"'
    ' xmp:ModifyDate="2024-05-02T10:00:00+02:00"><Iptc4xmpExt:DigitalSourceType>'
    "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    "</Iptc4xmpExt:DigitalSourceType></rdf:Description></x:xmpmeta>"
)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_xmp_says_generated_and_edited(photo, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", XMP)
        save(photo, path, pnginfo=text)
    else:
        save(photo, path, xmp=XMP.encode())
    found = describe(path)
    assert codes(found)[:2] == ["says_generated", "edited_with"]
    assert found.metadata["XMP CreatorTool"] == "Adobe Photoshop 22"


def test_texts_of_generators_and_services(photo, tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a woman in orange\nSteps: 20, Sampler: Euler a, CFG scale: 7")
    assert codes(describe(save(photo, tmp_path / "a.png", pnginfo=text))) == ["says_generated"]
    path = save(photo, tmp_path / "a.jpg", comment="CREATOR: gd-jpeg v1.0, quality = 90")
    assert describe(path).metadata["Comment"] == "CREATOR: gd-jpeg v1.0, quality = 90"
    # Photoshop's resource 1028 holds IPTC's records: here dataset 2:40, special instructions.
    iptc = b"\x1c\x02\x28\x00\x0aFBMD0100ab"
    block = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + b"\0"
    content = path.read_bytes()
    segment = b"\xff\xed" + struct.pack(">H", len(block) + 2) + block
    path.write_bytes(content[:2] + segment + content[2:])
    found = describe(path)
    assert found.metadata["IPTC Instructions"] == "FBMD0100ab"
    assert "Facebook" in text_of(found, "recompressed")


def exif_with_thumbnail(image):
    """EXIF whose second table names a JPEG, written by hand."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    first = struct.pack("<HHHII", 1, 0x0112, 3, 1, 1) + struct.pack("<I", 8 + 18)
    start = 8 + 18 + 2 + 24 + 4
    second = struct.pack("<H", 2)
    second += struct.pack("<HHII", 0x0201, 4, 1, start) + struct.pack(
        "<HHII", 0x0202, 4, 1, len(jpeg)
    )
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + second + bytes(4) + jpeg


def test_thumbnail_that_shows_something_else(photo, tmp_path):
    wide = photo.crop((0, 60, 512, 401))
    small = wide.resize((160, 107))
    boxed = Image.new("RGB", (160, 120))
    boxed.paste(small, (0, 6))
    moved = small.copy()
    moved.paste(small.crop((70, 0, 130, 107)).transpose(Image.Transpose.FLIP_LEFT_RIGHT), (5, 0))
    cropped = photo.resize((160, 160))
    path = tmp_path / "a.jpg"
    for thumbnail, differs in ((small, 0), (boxed, 0), (moved, 1), (cropped, 1)):
        found = describe(save(wide, path, exif=exif_with_thumbnail(thumbnail)))
        assert found.picture.thumbnail
        assert ("thumbnail_differs" in codes(found)) == bool(differs)
    exif = exif_with_thumbnail(small)
    found = describe(save(wide, path, exif=exif[:-2000]))  # of which only the beginning is there
    assert "thumbnail_differs" not in codes(found)


def test_metadata_is_bounded_and_cleaned(photo, tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "\x1b[31mA\u202ebc\x07" + "x" * 5000)
    text.add_itxt("Title", "line\nfeed\u2028and \u0000 more")
    for number in range(3000):
        text.add_text(f"key {number}", "v" * 500)
    found = describe(save(photo.resize((8, 8)), tmp_path / "a.png", pnginfo=text))
    assert len(found.metadata) <= 125
    assert all(len(name) <= 60 and len(v) <= 300 for name, v in found.metadata.items())
    assert all(v.isprintable() for v in found.metadata.values())
    assert found.metadata["Author"].startswith("[31mA bc x")
    assert found.metadata["Title"] == "line feed and more"


@pytest.mark.parametrize("entries", [40000, 3])
def test_exif_that_would_unpack_to_gigabytes_is_not_read(photo, tmp_path, entries):
    length = 1_000_000 if entries == 3 else 140_000
    table = struct.pack("<H", entries)
    for number in range(entries):
        table += struct.pack("<HHII", number + 1, 7, length - 16, 8)
    body = b"II*\0" + struct.pack("<I", 8) + table
    path = tmp_path / "a.webp"
    save(photo.resize((16, 16)), path, exif=b"Exif\0\0" + body.ljust(length, b"\0"))
    assert "not read" in describe(path).metadata["EXIF"]


@given(st.binary(max_size=300), st.booleans())
def test_any_exif_is_survived(tmp_path_factory, body, plausible):
    head = b"II*\0\x08\0\0\0\x05\0" if plausible else b""
    image = Image.new("RGB", (8, 8))
    path = tmp_path_factory.mktemp("exif") / "a.webp"
    image.save(path, exif=b"Exif\0\0" + head + body + b"\0")
    found = describe(path)
    assert all(value.isprintable() for value in found.metadata.values())


def test_pictures_that_cannot_be_described(photo, tmp_path):
    path = save(photo, tmp_path / "a.jpg")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert describe(path).picture.quality == 75  # The head is whole.
    path.write_bytes(content[:40])
    with pytest.raises(FacekitError, match=r"a\.jpg: "):
        describe(path)
    path.write_bytes(b"")
    with pytest.raises(FacekitError, match="empty"):
        describe(path)
    with pytest.raises(FacekitError, match="no such file"):
        describe(tmp_path / "none.jpg")
    with pytest.raises(FacekitError, match="folder"):
        describe(tmp_path)


# Videos


def write(path, times, *, codec="libx264", options=None, base=Fraction(1, 90000), keys=()):
    """A clip of noise whose frames are shown at ``times``."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = base
        for number, time in enumerate(times):
            picture = av.VideoFrame.from_ndarray(
                rng.integers(0, 255, (48, 64, 3), np.uint8), format="rgb24"
            )
            picture.pts, picture.time_base = round(time / base), base
            if number in keys:
                picture.pict_type = PictureType.I
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


EVEN = [n / 25 for n in range(60)]
GOP_12 = {"g": "12", "sc_threshold": "0", "bf": "2", "threads": "1"}


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_clip_is_described_as_it_was_written(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", EVEN, options={**GOP_12, "profile": "main", "crf": "31"})
    found = describe(path)
    clip = found.video
    assert found.format == {"mkv": "matroska"}.get(suffix, suffix)
    assert found.suffix_fits
    assert found.picture is None
    assert (clip.profile, clip.pixels, clip.audio) == ("Main", "yuv420p", None)
    assert clip.frames == 60
    assert clip.interval == pytest.approx(0.04)
    assert (clip.irregular, clip.gaps) == (0, [])
    assert (clip.keyframes, clip.gop) == (5, (12, 12, 12))
    with av.open(str(path)) as container:
        stored = sum(packet.size for packet in container.demux(video=0))
    assert clip.bit_rate == pytest.approx(8 * stored / 2.4, rel=1e-3)
    assert clip.encoder.startswith("x264 core 1")
    assert "crf=31.0" in found.metadata["encoder settings"]
    assert "keyint=12 " in found.metadata["encoder settings"]
    assert codes(found) == ["encoder", "no_metadata"]


def test_other_containers_and_codecs(tmp_path):
    clip = describe(write(tmp_path / "a.avi", EVEN, codec="mpeg4", base=Fraction(1, 25)))
    assert (clip.format, clip.video.frames, clip.video.interval) == ("avi", 60, 0.04)
    assert clip.video.encoder.startswith("Lavc")
    clip = describe(write(tmp_path / "a.webm", EVEN[:10], codec="libvpx-vp9"))
    assert (clip.format, clip.video.frames, clip.suffix_fits) == ("webm", 10, True)
    path = write(tmp_path / "a.ts", EVEN, options=GOP_12).rename(tmp_path / "b.mp4")
    clip = describe(path)
    assert (clip.format, clip.suffix_fits, clip.video.frames) == ("mpegts", False, 60)
    assert "suffix_differs" in codes(clip)


def test_dropped_frames_are_gaps_at_their_times(tmp_path):
    dropped = [*range(10), *range(13, 40), *range(48, 70)]
    clip = describe(write(tmp_path / "a.mp4", [n / 25 for n in dropped], options=GOP_12))
    assert [(gap.time, gap.seconds) for gap in clip.video.gaps] == [(0.36, 0.16), (1.56, 0.36)]
    assert clip.video.irregular == 2
    assert "2 pauses" in text_of(clip, "frames_missing")
    assert "0.36 s at 1.6 s" in text_of(clip, "frames_missing")


def test_variable_rate_is_irregular_and_a_clock_of_milliseconds_is_not(tmp_path):
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.uniform(0.03, 0.05, 80))
    clip = describe(write(tmp_path / "a.mp4", times))
    steps = np.diff(np.round(times, 6))
    off = int((np.abs(steps - np.median(steps)) > 0.1 * np.median(steps)).sum())
    assert clip.video.irregular == pytest.approx(off, abs=2)
    assert clip.video.interval == pytest.approx(np.median(steps), abs=1e-4)
    assert "times_irregular" in codes(clip)
    clip = describe(write(tmp_path / "a.mkv", [n / 60 for n in range(120)]))
    assert (clip.video.irregular, clip.video.gaps) == (0, [])


def test_key_frames_at_uneven_distances(tmp_path):
    options = {"forced-idr": "1", "sc_threshold": "0", "g": "40"}
    clip = describe(write(tmp_path / "a.mp4", EVEN, options=options, keys=(5, 35, 50)))
    assert (clip.video.keyframes, clip.video.gop) == (4, (5, 15, 30))
    assert "5 to 30 frames apart" in text_of(clip, "keyframes_irregular")


def test_tags_of_the_container(tmp_path):
    tags = {
        "title": "t" * 4000,
        "creation_time": "2024-05-01T10:00:00Z",
        "com.apple.quicktime.creationdate": "2024-05-01T09:00:00+02:00",
        "com.apple.quicktime.make": "Apple",
        "com.apple.quicktime.model": "iPhone 12",
    }
    options = {"movflags": "use_metadata_tags"}
    path = tmp_path / "a.mov"
    write(tmp_path / "b.mov", EVEN[:5])
    with (
        av.open(str(tmp_path / "b.mov")) as source,
        av.open(str(path), "w", options=options) as out,
    ):
        out.metadata.update(tags)
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    found = describe(path)
    assert codes(found) == ["dates_differ", "camera", "encoder", "recompressed"]
    assert "Apple iPhone 12" in text_of(found, "camera")
    assert len(found.metadata["title"]) == 300


def test_sound(tmp_path):
    path = tmp_path / "a.mp4"
    for with_video in (True, False):
        with av.open(str(path), "w") as out:
            video = out.add_stream("libx264", rate=25) if with_video else None
            sound = out.add_stream("aac", rate=16000, layout="mono")
            if video:
                video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
                for n in range(5):
                    picture = av.VideoFrame(64, 48, "yuv420p")
                    picture.pts = n
                    out.mux(video.encode(picture))
                out.mux(video.encode(None))
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            silence.rate = 16000
            out.mux(sound.encode(silence))
            out.mux(sound.encode(None))
        if with_video:
            assert describe(path).video.audio == "aac"
    with pytest.raises(FacekitError, match=r"a\.mp4: sound only, no video"):
        describe(path)


def test_damaged_clips(tmp_path):
    content = write(tmp_path / "a.mkv", EVEN, options=GOP_12).read_bytes()
    path = tmp_path / "b.mkv"
    path.write_bytes(content[: len(content) // 2])
    assert 10 < describe(path).video.frames < 40
    path.write_bytes(content[:30])
    with pytest.raises(FacekitError, match=r"b\.mkv: not an image or a video"):
        describe(path)
    rng = np.random.default_rng(2)
    described = 0
    for _ in range(30):
        broken = np.frombuffer(content, np.uint8).copy()
        broken[rng.integers(0, len(broken), 200)] = rng.integers(0, 256, 200)
        path.write_bytes(broken.tobytes())
        try:
            described += describe(path).video is not None
        except FacekitError as error:
            assert str(error).startswith(str(path))
    assert described


@given(
    st.lists(st.integers(1, 9000), min_size=1, max_size=200),
    st.integers(0, 100),
    st.randoms(use_true_random=False),
)
def test_pace_is_that_of_the_sorted_times(steps, start, random):
    """Frames that are stored in another order than shown, against sorting all of them."""
    shown = [start, *itertools.accumulate(steps, initial=start)][1:]
    order = [
        ticks
        for n in range(0, len(shown), 8)
        for ticks in sorted(shown[n : n + 8], key=lambda _: random.random())
    ]
    pace = facts._Pace(Fraction(1, 1000))
    for ticks in order:
        pace.add(SimpleNamespace(pts=ticks, dts=None, size=10, is_keyframe=ticks % 3 == 0))
    pace.end()
    intervals = np.diff(np.sort(shown)) / 1000
    assert pace.interval == pytest.approx(np.median(intervals))
    off = np.abs(intervals - np.median(intervals)) > np.maximum(0.1 * np.median(intervals), 1.5e-3)
    edge = np.isclose(
        np.abs(intervals - np.median(intervals)),
        np.maximum(0.1 * np.median(intervals), 1.5e-3),
        atol=1e-5,
    )
    assert abs(pace.irregular - off.sum()) <= edge.sum()
    longest = sorted(intervals[intervals > 1.75 * np.median(intervals) + 1e-9])[-20:]
    assert sorted(gap.seconds for gap in pace.gaps) == pytest.approx(longest, abs=1e-4)
    groups = np.diff([n for n, t in enumerate(order) if t % 3 == 0])
    expected = (groups.min(), np.median(groups), groups.max()) if len(groups) else None
    assert pace.gop == expected


def test_memory_does_not_grow_with_length():
    """Of an hour whose intervals are all different."""
    rng = np.random.default_rng(3)
    pace = facts._Pace(Fraction(1, 10**6))
    for ticks in np.cumsum(rng.integers(1, 10**6, 60_000)):
        pace.add(SimpleNamespace(pts=int(ticks), dts=None, size=1, is_keyframe=True))
    assert len(pace._intervals) <= 4096 + 10_000
    assert len(pace._waiting) <= 33
    assert len(pace._longest) <= 20
    assert pace.interval == pytest.approx(0.5, abs=0.02)
