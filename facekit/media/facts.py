"""How a picture or video was made and stored: what its file says, and what that hints at.

Nothing here proves anything by itself: metadata can be written by anyone, and an honest file that
was sent through a messenger has lost all of it.

Nothing of a video is decoded: its packets are read once, in a stream. What a file says of itself is
taken for what anyone may have written: it is cut to a bounded length, and characters that steer a
screen are left out. A file whose head can be read is described even if its pixels are damaged.
"""

import contextlib
import hashlib
import heapq
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile, IptcImagePlugin
from pydantic import BaseModel, ConfigDict, Field

from facekit.core.errors import FacekitError
from facekit.media import images
from facekit.media.decode import is_cover, open_container, packets, sound_track


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Hint(_Facts):
    """Something that an examiner should know."""

    code: Literal[
        "says_generated",
        "edited_with",
        "encoder",
        "camera",
        "recompressed",
        "tables_not_standard",
        "times_irregular",
        "frames_missing",
        "keyframes_irregular",
        "dates_differ",
        "thumbnail_differs",
        "suffix_differs",
        "no_metadata",
    ] = Field(description="Stable name, for programs.")
    text: str = Field(description="In plain words, and no more than the file supports.")


class Gap(_Facts):
    """A moment at which frames are missing."""

    time: float = Field(ge=0, description="Seconds from the start.")
    seconds: float = Field(gt=0, description="To the next frame.")


class PictureFacts(_Facts):
    """How a picture is stored."""

    mode: str = Field(description="Pillow's name of its colours, e.g. RGB.")
    progressive: bool
    quality: int | None = Field(
        ge=1, le=100, description="Of the JPEG standard's tables nearest to its own; null if none."
    )
    tables: Literal["standard", "custom"] | None = Field(
        description="Whether its JPEG tables are the standard's, scaled; null if it has none."
    )
    tables_sha256: str | None = Field(description="Of the tables: the same for the same encoder.")
    subsampling: str | None = Field(description="Of the colours, e.g. 4:2:0.")
    profile: str | None = Field(description="Name of the colour profile.")
    thumbnail: bool = Field(description="Whether a smaller picture of it lies inside.")


class VideoFacts(_Facts):
    """How a video is stored; times are in seconds."""

    profile: str | None
    pixels: str = Field(description="FFmpeg's name of the pixel format.")
    bit_rate: int | None = Field(description="Bits per second, of pictures alone.")
    frames: int = Field(ge=0, description="Packets of pictures in the file.")
    interval: float | None = Field(description="Median time between two frames.")
    irregular: int = Field(
        ge=0, description="Intervals that differ from it by over a tenth, and by over 1.5 ms."
    )
    gaps: list[Gap] = Field(description="The longest pauses, at most 20.")
    keyframes: int = Field(ge=0)
    gop: tuple[float, float, float] | None = Field(
        description="Frames from keyframe to keyframe: the least, the median, the most."
    )
    encoder: str | None = Field(description="Who encoded it, as it says.")
    audio: str | None = Field(description="The sound's codec.")


class MediaFacts(_Facts):
    """All of it."""

    format: str = Field(description="What the content is, whatever its name ends in.")
    suffix_fits: bool = Field(description="Whether the name's ending is one of that format.")
    picture: PictureFacts | None = None
    video: VideoFacts | None = None
    metadata: dict[str, str] = Field(description="Tags of the container, and EXIF's, by name.")
    hints: list[Hint]


_SUFFIXES = {
    "bmp": (".bmp", ".dib"),
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "png": (".png", ".apng"),
    "webp": (".webp",),
    "mov": (".mov", ".qt", ".mp4", ".m4v"),
    "mp4": (".mp4", ".m4v", ".mov", ".3gp", ".3g2"),
    "matroska": (".mkv", ".mka", ".mk3d"),
    "webm": (".webm", ".mkv"),
    "avi": (".avi",),
    "mpegts": (".ts", ".mts", ".m2ts"),
    "mpeg": (".mpg", ".mpeg", ".vob"),
    "ogg": (".ogv", ".ogg"),
    "flv": (".flv", ".f4v"),
    "asf": (".wmv", ".asf"),
    "gif": (".gif",),
}

_EDITORS = re.compile(
    r"photoshop|lightroom|gimp|snapseed|affinity|picasa|picsart|faceapp|facetune|canva|paint\.net|"
    r"imagemagick|pixelmator|capture one|darktable|rawtherapee|luminar|acdsee|premiere|"
    r"after effects|final cut|davinci|capcut|inshot|imovie|kinemaster|vegas|filmora|shotcut|"
    r"kdenlive|openshot|camtasia|reface|deepfacelab|faceswap",
    re.IGNORECASE,
)
_GENERATORS = re.compile(
    r"trainedalgorithmicmedia|midjourney|stable.?diffusion|novelai|dall.?e\b|comfyui|invokeai|"
    r"firefly|made with google ai|openai|steps: \d+, sampler",
    re.IGNORECASE,
)
_TOOLS = ("software", "tool", "agent", "program", "encoder", "writing", "history", "handler")
"""Parts of the names of tags that say which program wrote a file."""

_ENCODED = re.compile(
    rb"x264 - core \d+|x265 \(build \d+\)[^\0\x80-\xff]{0,40}|Lavc\d+\.\d+\.\d+|XviD\d+|DivX\d+b\d+"
)
_OPTIONS = re.compile(rb"options: ([ -~]{1,1000})")
_SETTINGS = ("rc", "crf", "bitrate", "qp", "keyint", "scenecut", "bframes", "ref", "me", "subme")
"""Of x264's, those that say what it was asked for."""
_SOFTWARE = re.compile(r"\b(x264|x265|lavc|lavf|xvid|divx|handbrake)", re.IGNORECASE)

_TAGS = 120  # of a file that are told, at most
_NAME = 60  # characters
_VALUE = 300
# A table of 65,535 EXIF tags may point at the same bytes each time, and unpacks to gigabytes.
_LARGEST_EXIF = 160 << 10
_MOST_ENTRIES = 256
_LARGEST_XMP = 1 << 20
_LARGEST_PROFILE = 4 << 20
_THUMBNAIL_PIXELS = 4_000_000
_SAME_THUMBNAIL = 0.8  # correlation
_SECONDS_APART = 2.0
_GAPS = 20
_LONGEST = 10.0  # seconds; longer intervals between frames count as this in their median
_FINE = 4096
_REORDERED = 32  # packets; H.264 and H.265 show frames at most 16 away from where they are stored
_HEADS = 8  # packets in which an encoder's name is looked for
_HEAD = 64 << 10  # bytes of each


def describe(path: Path) -> MediaFacts:
    """How a picture or video was made and stored, as far as its file tells.

    A video's packets are read and not decoded; memory does not grow with its length.

    Raises:
        FacekitError: if the file is missing, no regular file, empty, no picture or video, has
            sound only, or its head is damaged; one line that names it.
    """
    images.require_file(path)
    return _picture(path) if images.is_image(path) else _video(path)


# Pictures


def _picture(path: Path) -> MediaFacts:
    kind = images.format_of(path)
    with images.opened(path, load=False) as image:
        exif = _Exif.read(image)
        metadata = _cleaned(
            [*exif.tags, *_texts(image), *_iptc(cast(ImageFile.ImageFile, image)), *_xmp(image)]
        )
        tables = _Tables.read(image)
        info = image.info
        facts = PictureFacts(
            mode=image.mode,
            progressive=bool(info.get("progressive") or info.get("interlace")),
            quality=tables.quality if tables else None,
            tables=tables.kind if tables else None,
            tables_sha256=tables.sha256 if tables else None,
            subsampling=tables.subsampling if tables else None,
            profile=_profile(info.get("icc_profile")),
            thumbnail=exif.thumbnail is not None,
        )
        differs = exif.thumbnail is not None and not _alike(image, exif.thumbnail)
    fits = path.suffix.lower() in _SUFFIXES[kind]
    hints = [
        *_said(metadata),
        *_thumbnail_hints(differs),
        *_date_hints(metadata),
        *_camera_hints(metadata),
        *_table_hints(facts, metadata),
        *_suffix_hints(path, kind, fits),
        *_silence(metadata),
    ]
    return MediaFacts(format=kind, suffix_fits=fits, picture=facts, metadata=metadata, hints=hints)


# The tables of Annex K of the JPEG standard (ITU-T T.81), row by row.
_LUMA = np.array(
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 "
    "62 18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 "
    "98 112 100 103 99".split(),
    np.int64,
)
_COLOUR = np.full((8, 8), 99, np.int64)
_COLOUR[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


def _standard(quality: int) -> NDArray[np.int64]:
    """Luma's and colour's table as the IJG's library scales them, (2, 64)."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    base = np.stack([_LUMA, _COLOUR.ravel()])
    return np.asarray(np.clip((base * scale + 50) // 100, 1, 255), np.int64)


@dataclass(frozen=True)
class _Tables:
    """A JPEG's quantisation tables, compared with the standard's."""

    quality: int
    kind: Literal["standard", "custom"]
    sha256: str
    subsampling: str | None

    @classmethod
    def read(cls, image: Image.Image) -> "_Tables | None":
        found = getattr(image, "quantization", None)
        layers = getattr(image, "layer", None)
        if not found or not layers:
            return None
        own = [found.get(layer[3]) for layer in layers[:2]]
        if any(table is None or len(table) != 64 for table in own):
            return None
        tables = np.maximum(np.array(own, np.int64), 1)
        apart = [
            np.abs(np.log(tables / _standard(quality)[: len(tables)])).sum()
            for quality in range(1, 101)
        ]
        # From 1 to 100 the tables become finer; of equals the finest is meant.
        quality = 100 - int(np.argmin(apart[::-1]))
        same = np.array_equal(tables, _standard(quality)[: len(tables)])
        listed = ";".join(
            f"{number}:" + ",".join(map(str, found[number])) for number in sorted(found)
        )
        return cls(
            quality=quality,
            kind="standard" if same else "custom",
            sha256=hashlib.sha256(listed.encode()).hexdigest(),
            subsampling=_subsampling(layers),
        )


def _subsampling(layers: list[tuple[int, int, int, int]]) -> str | None:
    """In the usual notation, of 8 pixels in two rows: the colours' samples in each row."""
    if len(layers) < 3:
        return None
    (_, across, down, _), (_, colour_across, colour_down, _) = layers[:2]
    if not colour_across or not colour_down:
        return None
    names = {
        (1, 1): "4:4:4",
        (2, 1): "4:2:2",
        (2, 2): "4:2:0",
        (1, 2): "4:4:0",
        (4, 1): "4:1:1",
        (4, 2): "4:1:0",
    }
    ratio = (across / colour_across, down / colour_down)
    return names.get((int(ratio[0]), int(ratio[1])), f"{ratio[0]:g}×{ratio[1]:g}")


def _profile(content: Any) -> str | None:
    if not isinstance(content, bytes) or len(content) > _LARGEST_PROFILE:
        return None
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(content)))
    except (ImageCms.PyCMSError, *images.DAMAGE):
        return "unreadable"
    return _clean(name, _VALUE) or "nameless"


@dataclass(frozen=True)
class _Exif:
    """EXIF's tags, and the small picture in it."""

    tags: list[tuple[str, str]] = field(default_factory=list)
    thumbnail: bytes | None = None

    @classmethod
    def read(cls, image: Image.Image) -> "_Exif":
        raw = image.info.get("exif")
        if not isinstance(raw, bytes) or not raw:
            return cls()
        body = raw.removeprefix(b"Exif\0\0")
        first = _number(body, 4, 4)
        if len(raw) > _LARGEST_EXIF or not _few_entries(body, first):
            return cls([("EXIF", f"{len(raw)} bytes, not read: too large or malformed")])
        tags: list[tuple[str, str]] = []
        thumbnail = None
        # What follows is as damaged as anyone likes; what was read before stays.
        with contextlib.suppress(*images.DAMAGE, ZeroDivisionError, AttributeError, RuntimeError):
            exif = image.getexif()
            tags += _named(exif, ExifTags.TAGS)
            for pointer, names in (
                (ExifTags.IFD.Exif, ExifTags.TAGS),
                (ExifTags.IFD.GPSInfo, ExifTags.GPSTAGS),
            ):
                if _pointed_few(exif, pointer, body):
                    tags += _named(exif.get_ifd(pointer), names)
            second = _number(body, first + 2 + 12 * _number(body, first, 2), 4)
            if _few_entries(body, second):
                thumbnail = _thumbnail(exif, body)
        return cls(tags, thumbnail)


def _few_entries(body: bytes, place: int) -> bool:
    """Whether the table of tags at a place of a TIFF structure is of a sound size."""
    return 8 <= place < len(body) and _number(body, place, 2) <= _MOST_ENTRIES


def _number(body: bytes, place: int, size: int) -> int:
    return int.from_bytes(body[place : place + size], "little" if body[:2] == b"II" else "big")


def _pointed_few(exif: Image.Exif, pointer: int, body: bytes) -> bool:
    place = exif.get(pointer)
    return isinstance(place, int) and _few_entries(body, place)


def _named(tags: Mapping[int, Any], names: Mapping[int, str]) -> list[tuple[str, str]]:
    return [
        (names.get(tag, f"tag 0x{tag:04x}"), _value(value))
        for tag, value in tags.items()
        if tag not in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
    ]


def _value(value: Any) -> str:
    if isinstance(value, bytes):
        text = value.removeprefix(b"ASCII\0\0\0").rstrip(b"\0 ")
        readable = len(text) <= _VALUE and text.isascii() and text.decode("ascii").isprintable()
        return text.decode("ascii") if readable else f"{len(value)} bytes"
    if isinstance(value, tuple):
        more = " …" if len(value) > 16 else ""
        return " ".join(_value(one) for one in value[:16]) + more
    if isinstance(value, str):
        return value
    try:
        number = float(value)
    except images.DAMAGE:
        return type(value).__name__
    return f"{number:.10g}" if math.isfinite(number) else "undefined"


def _thumbnail(exif: Image.Exif, body: bytes) -> bytes | None:
    own = exif.get_ifd(ExifTags.IFD.IFD1)
    start, length = own.get(0x0201), own.get(0x0202)
    if not isinstance(start, int) or not isinstance(length, int) or length < 1:
        return None
    content = body[start : start + length]
    return content if content.startswith(b"\xff\xd8") else None


def _alike(image: Image.Image, thumbnail: bytes) -> bool:
    """Whether the small picture inside shows what the large one shows."""
    try:
        with Image.open(io.BytesIO(thumbnail), formats=["JPEG"]) as small:
            if small.width * small.height > _THUMBNAIL_PIXELS or min(small.size) < 16:
                return True
            shown = np.asarray(small.convert("L"), np.float32)
    except (Image.DecompressionBombError, *images.DAMAGE):
        return True  # A small picture that cannot be read shows nothing else.
    try:
        image.draft("L", (320, 320))
        large = np.asarray(image.convert("L"), np.float32)
    except images.DAMAGE:
        return True
    height, width = shown.shape
    # Cameras letterbox: the whole may lie in the small picture's middle, between black bars.
    scale = min(width / large.shape[1], height / large.shape[0])
    inner = (max(8, round(large.shape[1] * scale)), max(8, round(large.shape[0] * scale)))
    x, y = (width - inner[0]) // 2, (height - inner[1]) // 2
    boxed = shown[y : y + inner[1], x : x + inner[0]]
    return max(_correlation(shown, large), _correlation(boxed, large)) >= _SAME_THUMBNAIL


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    one, other = (cv2.resize(plane, (48, 48), interpolation=cv2.INTER_AREA) for plane in (a, b))
    one, other = one - one.mean(), other - other.mean()
    length = math.sqrt(float((one * one).sum() * (other * other).sum()))
    return float((one * other).sum()) / length if length > 1e-3 else 1.0


def _texts(image: Image.Image) -> Iterator[tuple[str, str]]:
    """PNG's texts and JPEG's comment."""
    for name, value in image.info.items():
        if isinstance(name, str) and isinstance(value, str) and name != _PNG_XMP:
            yield name, value
    comment = image.info.get("comment")
    if isinstance(comment, bytes):
        yield "Comment", comment[: 4 * _VALUE].decode("utf-8", "replace")


_PNG_XMP = "XML:com.adobe.xmp"
_IPTC = {
    (2, 5): "Title",
    (2, 40): "Instructions",
    (2, 55): "Date created",
    (2, 65): "Program",
    (2, 80): "By-line",
    (2, 103): "Transmission reference",
    (2, 105): "Headline",
    (2, 110): "Credit",
    (2, 115): "Source",
    (2, 116): "Copyright",
    (2, 120): "Caption",
}


def _iptc(image: ImageFile.ImageFile) -> Iterator[tuple[str, str]]:
    try:
        found = IptcImagePlugin.getiptcinfo(image) or {}
    except images.DAMAGE:
        return
    for place, name in _IPTC.items():
        value = found.get(place)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, bytes):
            yield f"IPTC {name}", value[: 4 * _VALUE].decode("utf-8", "replace")


_XMP_TAGS = (
    "CreatorTool",
    "CreateDate",
    "ModifyDate",
    "DateCreated",
    "DigitalSourceType",
    "softwareAgent",
    "Credit",
    "HistoryAction",
)
# Read by pattern and not as XML, in which a few lines can unpack to gigabytes.
_XMP = re.compile(rf"\w:({'|'.join(_XMP_TAGS)})(?:\s*=\s*[\"']|>)([^\"'<>]{{1,{_VALUE}}})")


def _xmp(image: Image.Image) -> Iterator[tuple[str, str]]:
    raw = image.info.get("xmp", image.info.get(_PNG_XMP))
    if isinstance(raw, bytes):
        raw = raw[:_LARGEST_XMP].decode("utf-8", "replace")
    if not isinstance(raw, str):
        return
    for found in _XMP.finditer(raw[:_LARGEST_XMP]):
        if found[2].strip():
            yield f"XMP {found[1]}", found[2].strip()


def _cleaned(tags: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Tags fit to be shown: bounded in number and length, the same name once."""
    found: dict[str, str] = {}
    for name, value in tags:
        if len(found) >= _TAGS:
            found["…"] = "more tags, which are left out"
            break
        name, value = _clean(name, _NAME), _clean(value, _VALUE)
        known = found.get(name)
        if value and known is None:
            found[name] = value
        elif value and known is not None and value not in known.split("; "):
            found[name] = _clean(f"{known}; {value}", _VALUE)
    return found


def _clean(text: str, most: int) -> str:
    """One line without characters that steer a screen, cut to a length."""
    head = text[: 4 * most]
    line = " ".join("".join(c if c.isprintable() else " " for c in head).split())
    return line if len(line) <= most else line[: most - 1] + "…"


# Hints


def _said(metadata: Mapping[str, str]) -> Iterator[Hint]:
    """What it says of its making: generated, edited, or passed on by a service."""
    for name, value in metadata.items():
        if _GENERATORS.search(value) or (name in ("workflow", "prompt") and value[:1] == "{"):
            text = f"Its metadata says that a program generated it or part of it ({name}: {value})"
            yield _hint("says_generated", f"{text}. Anyone can write that.")
            break
    tools = [
        value
        for name, value in metadata.items()
        if any(part in name.lower() for part in _TOOLS) and _EDITORS.search(value)
    ]
    if tools:
        names = "; ".join(dict.fromkeys(tools))
        yield _hint(
            "edited_with",
            f"It names an editing program: {_clean(names, _VALUE)}. What was done with it, if "
            "anything, it does not prove.",
        )
    if metadata.get("IPTC Instructions", "").startswith("FBMD"):
        yield _hint(
            "recompressed",
            "It carries the tag that Facebook and Instagram write (FBMD): they encode again what "
            "is sent there.",
        )


def _thumbnail_hints(differs: bool) -> Iterator[Hint]:
    if differs:
        yield _hint(
            "thumbnail_differs",
            "The small picture inside of it shows something else, or another part: it may have "
            "been changed or cropped after it was taken.",
        )


def _camera_hints(metadata: Mapping[str, str]) -> Iterator[Hint]:
    camera = _camera(metadata)
    if camera:
        yield _hint("camera", f"It names a camera: {camera}. Anyone can write that.")


def _camera(metadata: Mapping[str, str]) -> str:
    lower = {name.lower().rpartition(".")[2]: value for name, value in metadata.items()}
    make, model = lower.get("make", ""), lower.get("model", "")
    return model if model.lower().startswith(make.lower()) else f"{make} {model}".strip()


def _table_hints(facts: PictureFacts, metadata: Mapping[str, str]) -> Iterator[Hint]:
    if facts.tables == "custom":
        yield _hint(
            "tables_not_standard",
            "Its JPEG tables are not the standard's: many cameras, Photoshop and some services "
            f"have their own. The nearest are those of quality {facts.quality}.",
        )
    elif facts.tables == "standard" and _camera(metadata):
        yield _hint(
            "recompressed",
            f"It names a camera, but its JPEG tables are the standard's at quality {facts.quality},"
            " as most programs write them and only some cameras do: it may have been saved again.",
        )


def _suffix_hints(path: Path, kind: str, fits: bool) -> Iterator[Hint]:
    if not fits:
        suffix = _clean(path.suffix, _NAME)
        ends = f"ends in {suffix}" if suffix else "has no ending"
        yield _hint("suffix_differs", f"Its content is {kind}, but its name {ends}.")


_TECHNICAL = {
    "major_brand",
    "minor_version",
    "compatible_brands",
    "encoder",
    "encoder settings",
    "jfif",
    "orientation",
    "exifoffset",
    "colorspace",
    "exifimagewidth",
    "exifimageheight",
    "xresolution",
    "yresolution",
    "resolutionunit",
    "duration",
    "ycbcrpositioning",
}


def _silence(metadata: Mapping[str, str]) -> Iterator[Hint]:
    telling = [
        name
        for name in metadata
        if name.lower() not in _TECHNICAL and not name.lower().endswith(_OF_STREAMS)
    ]
    if not telling:
        yield _hint(
            "no_metadata",
            "It does not say when, where or with what it was made. Messengers and social networks "
            "remove that, so it says nothing for or against it.",
        )


_OF_STREAMS = ("language", "handler_name", "vendor_id", "encoder", "duration")
_DATES = {
    "DateTimeOriginal": "taken",
    "DateTimeDigitized": "digitised",
    "DateTime": "written",
    "XMP ModifyDate": "changed",
    "creation_time": "created",
    "com.apple.quicktime.creationdate": "recorded",
    "video creation_time": "its pictures created",
    "sound creation_time": "its sound created",
}


def _date_hints(metadata: Mapping[str, str]) -> Iterator[Hint]:
    found = {
        word: (text, moment)
        for name, word in _DATES.items()
        if (text := metadata.get(name, "")) and (moment := _moment(text)) is not None
    }
    # A time with its zone cannot be set against one without.
    for zoned in (False, True):
        same = {w: f for w, f in found.items() if (f[1].tzinfo is not None) is zoned}
        moments = [moment for _, moment in same.values()]
        if moments and max(moments) - min(moments) > timedelta(seconds=_SECONDS_APART):
            listed = ", ".join(f"{word} {text}" for word, (text, _) in same.items())
            yield _hint("dates_differ", f"Its times differ: {listed}. They can be set by anyone.")
            return


def _moment(text: str) -> datetime | None:
    """A date as EXIF or ISO 8601 writes it; in UTC where a zone is given."""
    text = re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", text.partition(";")[0].strip())
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        return None


def _hint(code: Any, text: str) -> Hint:
    return Hint(code=code, text=text)


# Videos


def _video(path: Path) -> MediaFacts:
    with open_container(path) as container:
        stream = container.streams.best("video")
        if stream is None or is_cover(stream):
            kind = "sound only, " if container.streams.audio else ""
            raise FacekitError(f"{path}: {kind}no video in it")
        context, sound = stream.codec_context, sound_track(container)
        if context is None:
            raise FacekitError(f"{path}: its video codec is unknown; convert it to H.264")
        kind = _container(container, path)
        told = [*_tags(container.metadata, ""), *_tags(stream.metadata, "video ")]
        if sound is not None:
            told += _tags(sound.metadata, "sound ")
        pace = _Pace(stream.time_base)
        said = _Encoder(bytes(context.extradata or b"")[:_HEAD])
        for packet in packets(container, stream):
            if packet.size and not packet.is_discard:
                said.look(packet)
                pace.add(packet)
        pace.end()
        if said.options:
            told.append(("encoder settings", said.options))
        metadata = _cleaned(told)
        facts = VideoFacts(
            profile=_clean(stream.profile or "", _NAME) or None,
            pixels=context.pix_fmt or "unknown",
            bit_rate=pace.bit_rate,
            frames=pace.frames,
            interval=pace.interval,
            irregular=pace.irregular,
            gaps=pace.gaps,
            keyframes=pace.keyframes,
            gop=pace.gop,
            encoder=said.name or metadata.get("video encoder") or metadata.get("encoder"),
            audio=None if sound is None else sound.codec_context.codec.canonical_name,
        )
    fits = path.suffix.lower() in _SUFFIXES.get(kind, ())
    hints = [
        *_said(metadata),
        *_date_hints(metadata),
        *_camera_hints(metadata),
        *_encoder_hints(facts, metadata),
        *_pace_hints(facts),
        *_suffix_hints(path, kind, fits),
        *_silence(metadata),
    ]
    return MediaFacts(format=kind, suffix_fits=fits, video=facts, metadata=metadata, hints=hints)


def _container(container: Any, path: Path) -> str:
    """One name for what FFmpeg names by a list."""
    names = container.format.name.split(",")
    if "mp4" in names:
        return "mov" if container.metadata.get("major_brand", "").strip() == "qt" else "mp4"
    if "matroska" in names:
        with path.open("rb") as file:
            return "webm" if b"webm" in file.read(64) else "matroska"
    return str(names[0])


def _tags(metadata: Mapping[str, str], prefix: str) -> list[tuple[str, str]]:
    return [(prefix + name, value) for name, value in metadata.items()]


class _Encoder:
    """The encoder's name and settings, which some leave in the stream."""

    def __init__(self, head: bytes) -> None:
        self.name: str | None = None
        self.options: str | None = None
        self._left = _HEADS
        self._search(head)

    def look(self, packet: Any) -> None:
        """Look into one of the first packets."""
        if self._left and self.name is None:
            self._left -= 1
            self._search(bytes(memoryview(packet)[:_HEAD]))

    def _search(self, content: bytes) -> None:
        found = _ENCODED.search(content)
        if found is None:
            return
        self.name = _clean(found[0].decode("ascii", "replace").replace(" - ", " "), _NAME)
        options = _OPTIONS.search(content, found.end())
        if options:
            told = options[1].decode("ascii").split()
            self.options = " ".join(one for one in told if one.partition("=")[0] in _SETTINGS)


class _Pace:
    """When a video's frames are shown, and which of them are key frames, in bounded memory."""

    def __init__(self, base: Any) -> None:
        self._base = float(base)
        self._waiting: list[int] = []
        self._intervals: Counter[int] = Counter()  # in microseconds
        self._longest: list[tuple[float, float]] = []
        self._first: int | None = None
        self._last: int | None = None
        self._since_key: int | None = None
        self._groups: Counter[int] = Counter()
        self._bytes = 0
        self.frames = 0
        self.keyframes = 0

    def add(self, packet: Any) -> None:
        """One packet, in the file's order."""
        self.frames += 1
        self._bytes += packet.size
        if packet.is_keyframe:
            self.keyframes += 1
            if self._since_key is not None:
                self._groups[self._since_key] += 1
            self._since_key = 0
        if self._since_key is not None:
            self._since_key += 1
        ticks = packet.dts if packet.pts is None else packet.pts
        if ticks is not None:
            heapq.heappush(self._waiting, ticks)
            if len(self._waiting) > _REORDERED:
                self._next(heapq.heappop(self._waiting))

    def end(self) -> None:
        """No packet follows."""
        while self._waiting:
            self._next(heapq.heappop(self._waiting))

    def _next(self, ticks: int) -> None:
        if self._first is None or self._last is None:
            self._first = self._last = ticks
            return
        seconds = (ticks - self._last) * self._base
        micros = round(1e6 * min(max(seconds, 0.0), _LONGEST))
        # Where each interval is another, so fine a count would grow with the video.
        self._intervals[micros if len(self._intervals) < _FINE else micros // 100 * 100] += 1
        if seconds > 0:
            place = max(0.0, (self._last - self._first) * self._base)
            # Of equally long pauses the first are kept, hence the minus.
            heapq.heappush(self._longest, (seconds, -place))
            if len(self._longest) > _GAPS:
                heapq.heappop(self._longest)
        self._last = ticks

    @property
    def interval(self) -> float | None:
        """Median time between two frames, in seconds."""
        return _median(self._intervals) / 1e6 or None

    @property
    def irregular(self) -> int:
        """Intervals that are off the median."""
        middle = _median(self._intervals)
        # A clock of milliseconds gives 16 and 17 in turn for 60 frames a second.
        return sum(
            count
            for micros, count in self._intervals.items()
            if abs(micros - middle) > max(0.1 * middle, 1500)
        )

    @property
    def gaps(self) -> list[Gap]:
        """The longest pauses in which at least one frame more would have had room."""
        least = 1.75 * (self.interval or math.inf)
        found = [(-place, seconds) for seconds, place in self._longest if seconds > least]
        return [Gap(time=round(time, 4), seconds=round(s, 4)) for time, s in sorted(found)]

    @property
    def gop(self) -> tuple[float, float, float] | None:
        """Frames from key frame to key frame: the least, the median, the most."""
        if not self._groups:
            return None
        return float(min(self._groups)), _median(self._groups), float(max(self._groups))

    @property
    def bit_rate(self) -> int | None:
        """Bits a second."""
        if self._first is None or self._last is None or self.frames < 2:
            return None
        shown = (self._last - self._first) * self._base * self.frames / (self.frames - 1)
        return round(8 * self._bytes / shown) if shown > 0 else None


def _median(counts: Counter[int]) -> float:
    """The median of what was counted; 0 of nothing."""
    middle, passed = counts.total() / 2, 0
    before = None
    for value in sorted(counts):
        if before is not None:
            return (before + value) / 2
        passed += counts[value]
        if passed > middle:
            return float(value)
        if passed == middle and passed:
            before = value
    return 0.0


def _encoder_hints(facts: VideoFacts, metadata: Mapping[str, str]) -> Iterator[Hint]:
    names = [facts.encoder, metadata.get("video encoder"), metadata.get("encoder")]
    named = ", ".join(dict.fromkeys(name for name in names if name))
    if not named:
        return
    if not _SOFTWARE.search(named):
        yield _hint("encoder", f"It says that it was written by {named}.")
        return
    yield _hint(
        "encoder",
        f"It was written by a program or service ({named}), not as a camera writes it.",
    )
    if _camera(metadata):
        yield _hint(
            "recompressed",
            f"It names a camera ({_camera(metadata)}), but was written by {named}: it was encoded "
            "again, or put into another container, since it was recorded.",
        )


def _pace_hints(facts: VideoFacts) -> Iterator[Hint]:
    steps = max(1, facts.frames - 1)
    if facts.irregular > 0.02 * steps:
        yield _hint(
            "times_irregular",
            f"{facts.irregular} of {steps} frames follow at another interval than most: phones "
            "and screen recorders vary their rate, and so does editing.",
        )
    if facts.gaps:
        longest = max(facts.gaps, key=lambda gap: gap.seconds)
        count = "20 or more" if len(facts.gaps) == _GAPS else str(len(facts.gaps))
        yield _hint(
            "frames_missing",
            f"{count} pause{'' if len(facts.gaps) == 1 else 's'}, the longest of "
            f"{longest.seconds:.2f} s at {longest.time:.1f} s: frames were dropped in recording, "
            "or cut out, or a picture stood still.",
        )
    if facts.gop is not None and facts.gop[0] < 0.5 * facts.gop[2]:
        least, median, most = facts.gop
        yield _hint(
            "keyframes_irregular",
            f"Its key frames lie {least:g} to {most:g} frames apart (median {median:g}): programs "
            "set them where the scene changes, and joined pieces show so; most cameras set them "
            "evenly.",
        )
