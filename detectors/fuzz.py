"""Damaged and hostile files, made by a seeded script, and what analyzing each of them does.

Whoever analyzes files gets them from strangers. So small pictures and clips of every kind that is
read are flipped bit by bit, cut off, given wrong headers and sizes, and files that unpack to far
more than they are come on top. Each is analyzed, all evidence on, by a process that is
watched from outside. A file must end in a report or in one clear line; it is a failure if the
process crashes, raises anything else, or takes over a minute or over 4 GiB of memory. The minute is
one of the processor's, so that it does not depend on what else the machine does.
"""

import faulthandler
import io
import json
import logging
import multiprocessing
import os
import queue
import shutil
import struct
import tempfile
import threading
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import cv2
import numpy as np
from PIL import Image

from facekit import export
from facekit.core.errors import FacekitError
from facekit.core.progress import log, progress
from facekit.types import Frame, Pixels
from facekit.watermark import Kind

SECONDS = 60.0
"""What one file may take, of a processor's time."""
GIB = 4.0
"""What the process that analyzes it may hold."""
COUNT = 1000
"""Files that a full run makes."""

_POLL = 0.05  # seconds between two looks at a process
_PATIENCE = 10  # times as long as it may work, a process may take in all
_BOMBS = 0.1  # share of files that are not made from others
_SIDE = 192  # pixels of the pictures and clips that are damaged
_HEAD = 1024  # bytes in which damage does most
_EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_SIZES = (0, 1, 3, 11_000, 16_383, 30_000, 65_500, 65_535, 1 << 24, (1 << 31) - 1, (1 << 32) - 1)

if TYPE_CHECKING:  # whoever makes files need not load what analyzes them
    from detectors.analyze import Analyzer

_Random = np.random.Generator


@dataclass(frozen=True)
class Failure:
    """A file that was not dealt with.

    Attributes:
        path: of the file, which is kept.
        how: "crash", "hang", "memory", "exception" or "unclear".
        what: a line about it.
    """

    path: Path
    how: str
    what: str


@dataclass(frozen=True)
class Outcome:
    """What a run found.

    Attributes:
        files: that were analyzed.
        reports: of them, those that gave a report; the others gave an error.
        failures: of them.
        slowest: seconds.
        peak: GiB, the most that any process held; None where the system does not tell.
    """

    files: int
    reports: int
    failures: list[Failure]
    slowest: float
    peak: float | None


# --- files to damage ----------------------------------------------------------------------------


def originals(folder: Path, shots: Sequence[Pixels]) -> list[Path]:
    """Write sound pictures and clips of every kind that is read, some of them signed.

    Args:
        folder: to write to.
        shots: frames that show a face, uint8 RGB (H, W, 3), two at least.
    """
    small = [np.array(Image.fromarray(shot).resize((_SIDE, _SIDE))) for shot in shots]
    written = [*_pictures(folder, small), *_clips(folder, small)]
    frames = [Frame(pixels, i / 10, i) for i, pixels in enumerate(small)]
    for suffix in (".jpg", ".png", ".webp"):
        path = folder / f"signed{suffix}"
        written.append(export.write_image(path, shots[0], kind=Kind.STUDIO).path)
    path = folder / "signed.mp4"
    written.append(export.write_video(path, frames, kind=Kind.STUDIO, rate=10.0).path)
    return written


def _pictures(folder: Path, shots: Sequence[Pixels]) -> Iterator[Path]:
    first, *others = (Image.fromarray(shot) for shot in shots[:4])
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    clear = first.copy()
    clear.putalpha(200)
    deep = Image.fromarray(np.asarray(first.convert("L")).astype(np.uint16) * 257)
    moving: dict[str, Any] = {"save_all": True, "append_images": others, "duration": 100}
    kinds: Sequence[tuple[str, Image.Image, dict[str, Any]]] = (
        ("colour.png", first, {}),
        ("clear.png", clear, {}),
        ("palette.png", first.convert("P"), {}),
        ("deep.png", deep, {}),
        ("moving.png", first, moving),
        ("colour.jpg", first, {"quality": 90, "exif": exif}),
        ("progressive.jpg", first, {"quality": 80, "progressive": True, "comment": b"a comment"}),
        ("ink.jpg", first.convert("CMYK"), {}),
        ("lossy.webp", first, {"quality": 80, "exif": exif}),
        ("lossless.webp", clear, {"lossless": True}),
        ("moving.webp", first, moving),
        ("colour.bmp", first, {}),
        ("palette.bmp", first.convert("P"), {}),
        ("moving.gif", first, moving),
    )
    for name, image, options in kinds:
        image.save(folder / name, **options)
        yield folder / name


def _clips(folder: Path, shots: Sequence[Pixels]) -> Iterator[Path]:
    kinds = (
        ("h264.mp4", "libx264", "yuv420p", "aac"),
        ("h264.mov", "libx264", "yuv444p", None),
        ("h264.ts", "libx264", "yuv420p", "mp2"),
        ("h264.mkv", "libx264", "yuv420p", None),
        ("h264.flv", "libx264", "yuv420p", None),
        ("vp9.webm", "libvpx-vp9", "yuv420p", None),
        ("mpeg4.avi", "mpeg4", "yuv420p", None),
        ("mjpeg.avi", "mjpeg", "yuvj420p", None),
        ("mpeg2.mpg", "mpeg2video", "yuv420p", None),
        ("msmpeg4.wmv", "msmpeg4", "yuv420p", None),
    )
    for name, codec, pixels, sound in kinds:
        path = folder / name
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = _SIDE, _SIDE, pixels
            heard: Any = container.add_stream(sound, rate=48_000) if sound else None
            for shot in shots:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shot), format="rgb24")
                container.mux(stream.encode(frame.reformat(format=pixels)))
            container.mux(stream.encode(None))
            if heard is not None:
                container.mux(heard.encode(_silence()))
                container.mux(heard.encode(None))
        yield path


def _silence() -> Any:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 1152), np.int16), "s16", "stereo")
    frame.sample_rate, frame.time_base, frame.pts = 48_000, Fraction(1, 48_000), 0
    return frame


# --- damage -------------------------------------------------------------------------------------


def corrupted(sources: Sequence[Path], number: int, seed: int) -> tuple[str, bytes]:
    """The ``number``-th damaged file of a seed.

    Args:
        sources: of :func:`originals`.
        number: from 0.
        seed: of all numbers.

    Returns:
        (a name that tells how it was made, the content).
    """
    random = np.random.default_rng([seed, number])
    if random.random() < _BOMBS:
        name, make = list(BOMBS.items())[int(random.integers(len(BOMBS)))]
        return f"{number:04d}-{name}", make(random)
    source = sources[int(random.integers(len(sources)))]
    other = sources[int(random.integers(len(sources)))]
    data = bytearray(source.read_bytes())
    done = []
    for _ in range(1 + (random.random() < 0.2)):
        name, damage = list(DAMAGE.items())[int(random.integers(len(DAMAGE)))]
        damage(data, other.read_bytes(), random)
        done.append(name)
    suffix = other.suffix if random.random() < 0.05 else source.suffix
    return f"{number:04d}-{source.stem}-{'-'.join(done)}{suffix}", bytes(data)


def _flip(data: bytearray, _: bytes, random: _Random) -> None:
    most = len(data) if random.random() < 0.5 else min(len(data), _HEAD)
    for _i in range(int(2 ** random.uniform(0, 9))):
        if most:
            data[int(random.integers(most))] ^= 1 << int(random.integers(8))


def _cut(data: bytearray, _: bytes, random: _Random) -> None:
    share = random.random()
    del data[int(share * len(data)) if random.random() < 0.7 else int(len(data) ** share) :]


def _blank(data: bytearray, _: bytes, random: _Random) -> None:
    start, end = _span(data, random)
    fill = int(random.choice([0, 255, -1]))
    length = end - start
    data[start:end] = random.bytes(length) if fill < 0 else bytes([fill]) * length


def _drop(data: bytearray, _: bytes, random: _Random) -> None:
    start, end = _span(data, random)
    del data[start:end]


def _double(data: bytearray, _: bytes, random: _Random) -> None:
    start, end = _span(data, random)
    data[end:end] = data[start:end] * int(random.integers(1, 20))


def _join(data: bytearray, other: bytes, random: _Random) -> None:
    """The head of one file, then the tail of another."""
    del data[int(random.uniform(0, 1) * len(data)) :]
    data += other[int(random.uniform(0, 1) * len(other)) :]


def _header(data: bytearray, other: bytes, random: _Random) -> None:
    """Another kind's first bytes."""
    length = int(random.choice([4, 8, 12, 16, 32, 64]))
    data[:length] = other[:length] if random.random() < 0.7 else random.bytes(length)


def _field(data: bytearray, _: bytes, random: _Random) -> None:
    """Numbers in the head set to what no sound file has."""
    for _i in range(int(random.integers(1, 6))):
        width = int(random.choice([1, 2, 4]))
        value = int(random.choice(_EXTREMES)) & ((1 << 8 * width) - 1)
        place = int(random.integers(max(1, min(len(data), _HEAD) - width)))
        data[place : place + width] = value.to_bytes(width, str(random.choice(["big", "little"])))  # type: ignore[arg-type]


def _named_field(data: bytearray, _: bytes, random: _Random) -> None:
    """A number beside a name of a table of MP4, or of a chunk of another format."""
    places = [at for name in _TABLES for at in _all(data, name)]
    if not places:
        return
    at = places[int(random.integers(len(places)))] + int(random.choice([-4, 4, 8, 12, 16]))
    if 0 <= at <= len(data) - 4:
        data[at : at + 4] = struct.pack(">I", int(random.choice(_EXTREMES)))


_TABLES = (
    *(b"moov", b"mvhd", b"trak", b"tkhd", b"mdhd", b"stts", b"ctts", b"stsz", b"stsc", b"stco"),
    *(b"stss", b"elst", b"avcC", b"mdat", b"IHDR", b"IDAT", b"acTL", b"fcTL", b"fdAT", b"iCCP"),
    *(b"VP8 ", b"VP8L", b"VP8X", b"ANIM", b"ANMF", b"EXIF", b"strh", b"strf", b"idx1", b"movi"),
    *(b"jumb", b"jumd", b"c2pa", b"cbor", b"uuid", b"Exif"),
)


def _size(data: bytearray, _: bytes, random: _Random) -> None:
    """The picture's own size, wherever its format keeps it, set to something huge or void."""
    width, height = (int(random.choice(_SIZES)) for _i in range(2))
    if data.startswith(b"\x89PNG"):
        _put(data, 16, ">II", width & 0xFFFFFFFF, height & 0xFFFFFFFF)
        _put(data, 29, ">I", zlib.crc32(data[12:29]))
    elif data.startswith(b"\xff\xd8"):
        for at in _all(data, b"\xff\xc0") + _all(data, b"\xff\xc2"):
            _put(data, at + 5, ">HH", height & 0xFFFF, width & 0xFFFF)
    elif data.startswith(b"RIFF") and data[12:16] == b"VP8X":
        _put(data, 24, "<I", (width - 1) & 0xFFFFFF)
        _put(data, 27, "<I", (height - 1) & 0xFFFFFF)
    elif data.startswith(b"RIFF") and data[12:16] == b"VP8 ":
        _put(data, 26, "<HH", width & 0x3FFF, height & 0x3FFF)
    elif data.startswith(b"RIFF") and data[12:16] == b"VP8L":
        _put(data, 21, "<I", (width & 0x3FFF) | (height & 0x3FFF) << 14)
    elif data.startswith(b"RIFF"):
        for at in _all(data, b"strf"):
            _put(data, at + 12, "<II", width & 0xFFFFFFFF, height & 0xFFFFFFFF)
    elif data.startswith(b"BM"):
        _put(data, 18, "<II", width & 0xFFFFFFFF, height & 0xFFFFFFFF)
    elif data.startswith(b"GIF"):
        _put(data, 6, "<HH", width & 0xFFFF, height & 0xFFFF)
    for name in (b"avc1", b"mp4v", b"vp09"):
        for at in _all(data, name):
            _put(data, at + 28, ">HH", width & 0xFFFF, height & 0xFFFF)


def _put(data: bytearray, at: int, kind: str, *values: int) -> None:
    if at + struct.calcsize(kind) <= len(data):
        struct.pack_into(kind, data, at, *values)


def _all(data: bytearray, what: bytes) -> list[int]:
    found: list[int] = []
    at = data.find(what)
    while at >= 0 and len(found) < 64:
        found.append(at)
        at = data.find(what, at + 1)
    return found


def _span(data: bytearray, random: _Random) -> tuple[int, int]:
    start = int(random.random() ** 2 * len(data))
    return start, min(len(data), start + int(2 ** random.uniform(0, 13)))


DAMAGE: Mapping[str, Callable[[bytearray, bytes, _Random], None]] = {
    "flip": _flip,
    "flips": _flip,
    "cut": _cut,
    "blank": _blank,
    "drop": _drop,
    "double": _double,
    "join": _join,
    "header": _header,
    "field": _field,
    "table": _named_field,
    "size": _size,
}
"""How a sound file is damaged, in place; the second argument is another sound file's content."""


# --- bombs --------------------------------------------------------------------------------------


def _png(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A PNG of these chunks, each with its right checksum."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, content in [*chunks, (b"IEND", b"")]:
        parts += [struct.pack(">I", len(content)), name, content]
        parts.append(struct.pack(">I", zlib.crc32(name + content)))
    return b"".join(parts)


def _zeros(count: int) -> bytes:
    """So many zeros, deflated: one packed block, again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    tail = rest.compress(bytes(count % (1 << 20))) + rest.flush()
    checksum = struct.pack(">I", count % 65521 << 16 | 1)  # Adler's, of zeros
    return b"\x78\xda" + block * (count >> 20) + tail + checksum


def _png_bomb(random: _Random) -> bytes:
    """One colour, as large as is let in or larger, in any depth."""
    side = int(random.choice([8000, 11_000, 30_000]))
    depth, kind, channels = ((1, 0, 1), (8, 2, 3), (8, 6, 4), (16, 0, 1), (16, 6, 4))[
        int(random.integers(5))
    ]
    row = 1 + -(-side * depth * channels // 8)
    # What is too large is to be refused by its head: its content need not be there.
    content = _zeros(row * side if side <= 11_000 else 1 << 20)
    head = struct.pack(">IIBBBBB", side, side, depth, kind, 0, 0, 0)
    return _png([(b"IHDR", head), (b"IDAT", content)])


def _text_bomb(random: _Random) -> bytes:
    """A small picture with notes, or a colour profile, that unpack to half a gigabyte."""
    name = (b"zTXt", b"iTXt", b"iCCP")[int(random.integers(3))]
    lead = {b"zTXt": b"note\0\0", b"iTXt": b"note\0\1\0\0\0", b"iCCP": b"profile\0\0"}[name]
    head = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    packed = lead + _zeros(1 << 29)
    return _png([(b"IHDR", head), (name, packed), (b"IDAT", _zeros(64 * (64 * 3 + 1)))])


def _moving_png_bomb(random: _Random) -> bytes:
    """Many large frames of one colour."""
    side, count = 3000, int(random.choice([100, 3000]))
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    content = _zeros((1 + -(-side // 8)) * side)
    chunks = [(b"IHDR", head), (b"acTL", struct.pack(">II", count, 0))]
    for n in range(count):
        place = struct.pack(">IIIIIHHBB", max(2 * n - 1, 0), side, side, 0, 0, 1, 10, 0, 0)
        chunks.append((b"fcTL", place))
        chunks.append((b"fdAT", struct.pack(">I", 2 * n) + content) if n else (b"IDAT", content))
    return _png(chunks)


@cache
def _black(side: int, kind: str) -> bytes:
    """A black picture: a lossless WebP, or a grey progressive JPEG."""
    buffer = io.BytesIO()
    webp = kind == "WEBP"
    options = {"lossless": True, "method": 0} if webp else {"progressive": True, "quality": 10}
    Image.new("RGB" if webp else "L", (side, side)).save(buffer, kind, **options)
    return buffer.getvalue()


def _webp_bomb(random: _Random) -> bytes:
    """Many large frames of one colour."""
    side, count = int(random.choice([4000, 11_000])), int(random.choice([1, 50, 1000]))
    still = _black(side, "WEBP")
    if count == 1:
        return still
    size = struct.pack("<I", side - 1)[:3] * 2
    part = b"\0" * 6 + size + struct.pack("<I", 40)[:3] + b"\0" + still[12:]
    frame = b"ANMF" + struct.pack("<I", len(part)) + part
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6) + frame * count
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _jpeg_bomb(random: _Random) -> bytes:
    """A large picture whose last scan stands there thousands of times."""
    side = int(random.choice([2000, 8000, 11_000]))
    data = _black(side, "JPEG")
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * int(random.choice([10, 300, 5000])) + b"\xff\xd9"


def _bmp_bomb(random: _Random) -> bytes:
    """Run-length coded: a large picture of which next to nothing is there."""
    width, height = ((11_000, 11_000), (1, 120_000_000), (120_000_000, 1))[int(random.integers(3))]
    code = (b"\xff\0" * 100_000, b"\0\2\xff\xff" * 50_000, b"\0\0" * 100_000)
    content = code[int(random.integers(3))] + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(content), 0, 0, 256, 0)
    start = 14 + len(head) + 1024
    file = b"BM" + struct.pack("<IHHI", start + len(content), 0, 0, start)
    return file + head + bytes(1024) + content


def _gif_bomb(random: _Random) -> bytes:
    """Thousands of frames as large as is let in, of one pixel each."""
    side, count = int(random.choice([2000, 8000, 65_535])), int(random.choice([20, 1000, 20_000]))
    head = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    control = b"\x21\xf9\x04\x08" + struct.pack("<HBB", 10, 0, 0)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return head + (control + frame) * count + b"\x3b"


def _clip_bomb(random: _Random) -> bytes:
    """Black frames, large or many, in a few kilobytes; some say that they last for years."""
    side, count = ((4096, 20), (2048, 60), (64, 5000))[int(random.integers(3))]
    return _black_clip(side, count, int(random.choice([1, 30, 1000])), bool(random.random() < 0.5))


@cache
def _black_clip(side: int, count: int, rate: int, pause: bool) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        options = {"preset": "ultrafast", "g": "100000"}
        stream: Any = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        frame: Any = av.VideoFrame(side, side, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        for i in range(count):
            frame.pts = i + (100_000 * rate if pause and i > count // 2 else 0)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


BOMBS: Mapping[str, Callable[[_Random], bytes]] = {
    "bomb.png": _png_bomb,
    "text.png": _text_bomb,
    "moving.png": _moving_png_bomb,
    "bomb.webp": _webp_bomb,
    "scans.jpg": _jpeg_bomb,
    "runs.bmp": _bmp_bomb,
    "bomb.gif": _gif_bomb,
    "black.mp4": _clip_bomb,
}
"""Small files that ask for much."""


# --- analyzing under watch ----------------------------------------------------------------------


def fuzz(
    shots: Sequence[Pixels],
    *,
    count: int = COUNT,
    seed: int = 0,
    workers: int = 1,
    detector: str | None = None,
    keep: Path | None = None,
) -> Outcome:
    """Make damaged files, analyze each in a process that is watched, and count what went wrong.

    The files depend on the seed alone, but for the signatures in those that are signed.

    Args:
        shots: frames that show a face, as for :func:`originals`.
        count: files.
        seed: of the damage.
        workers: processes that analyze, one thread each.
        detector: as for ``detectors.analyze.load_detector``.
        keep: folder for the files that failed; by default one beside the system's temporary files.

    Returns:
        What happened; each failure is in the log as well, and its file is kept.
    """
    keep = keep or Path(tempfile.gettempdir()) / f"facekit-fuzz-{seed}"
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(count):
        numbers.put(number)
    found: queue.SimpleQueue[_Found | Exception] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sources = originals(folder, shots)

        def work(place: int) -> None:
            try:
                with _Child(folder / f"said-{place}", detector) as child:
                    while True:
                        number = numbers.get_nowait()
                        name, content = corrupted(sources, number, seed)
                        path = folder / name
                        path.write_bytes(content)
                        found.put(child.analyze(path, keep))
                        path.unlink()
            except queue.Empty:
                pass
            except Exception as error:  # told to the thread that waits, which raises it
                found.put(error)

        threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(workers)]
        for thread in threads:
            thread.start()
        results: list[_Found] = []
        with progress("analyzing damaged files", count) as advance:
            while len(results) < count:
                one = found.get()
                if isinstance(one, Exception):
                    raise one
                results.append(one)
                if one.failure:
                    log.warning("%s: %s: %s", one.failure.path, one.failure.how, one.failure.what)
                advance(len(results), "")
        for thread in threads:
            thread.join()
    peaks = [one.peak for one in results if one.peak]
    return Outcome(
        files=count,
        reports=sum(one.report for one in results),
        failures=[one.failure for one in results if one.failure],
        slowest=max((one.seconds for one in results), default=0.0),
        peak=max(peaks) if peaks else None,
    )


@dataclass(frozen=True)
class _Found:
    """What one file did."""

    report: bool
    failure: Failure | None
    seconds: float
    peak: float


class _Child:
    """A process that analyzes one file after the other; another takes its place when it ends."""

    def __init__(self, said: Path, detector: str | None) -> None:
        self._said, self._detector = said, detector
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self._said, self._detector), daemon=True
        )
        self._process.start()
        theirs.close()
        if self._pipe.recv() != "ready":
            raise FacekitError("the process that analyzes damaged files did not start")

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def analyze(self, path: Path, keep: Path) -> _Found:
        """What a file does; if it fails, it is kept."""
        how, what, peak, began, pid = "", "", 0.0, time.monotonic(), self._process.pid
        worked = _worked(pid)
        self._pipe.send(str(path))
        seconds = 0.0
        while not how:
            if self._pipe.poll(_POLL):
                try:
                    how, what = self._pipe.recv()
                except EOFError:
                    how, what = "crash", self._last_words()
            waited = time.monotonic() - began
            seconds = waited if worked is None else (_worked(pid) or worked + seconds) - worked
            peak = max(peak, _peak(pid))
            if peak > GIB:
                how, what = "memory", f"{peak:.1f} GiB"
            elif not how and max(seconds, waited / _PATIENCE) > SECONDS:
                how, what = "hang", f"not done after {seconds:.0f} s"
        failure = None
        if how not in ("report", "error"):
            keep.mkdir(parents=True, exist_ok=True)
            failure = Failure(Path(shutil.copy(path, keep)), how, what)
        if how in ("crash", "memory", "hang"):
            self.__exit__()
            self._start()
        return _Found(how == "report", failure, seconds, peak)

    def _last_words(self) -> str:
        self._process.join()
        said = self._said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"exit code {self._process.exitcode}: {' | '.join(said[-12:])}"


def _peak(pid: int | None) -> float:
    """The most memory that a process ever held, in GiB; 0 if the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(lines.get("VmHWM", "0 kB").split()[0]) / (1 << 20)


def _worked(pid: int | None) -> float | None:
    """Seconds of a processor's time that a process has had; None if the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _serve(pipe: Connection, said: Path, detector: str | None) -> None:
    """The process: analyze the files whose paths come, and say how each ended."""
    with said.open("wb", buffering=0) as file:  # what libraries say goes there, and a crash's trace
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable()
    import torch

    from detectors.analyze import Analyzer, Asked, load_detector

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    log.setLevel(logging.CRITICAL)
    device = torch.zeros(0).device
    analyzer = Analyzer(load_detector(detector, device), device, Asked())
    pipe.send("ready")
    while True:
        try:
            path = Path(pipe.recv())
        except EOFError:
            return
        try:
            pipe.send(_analyzed(path, analyzer))
        except Exception as error:  # whatever it is, it is the file's doing, and reported
            last = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"
            pipe.send(("exception", " ".join(what.split())))


def _analyzed(path: Path, analyzer: "Analyzer") -> tuple[str, str]:
    """How analyzing a file ends: ("report", "error" or "unclear", a line about it)."""
    from detectors.analyze import report, write

    try:
        found, pictures = analyzer.file(path)
    except FacekitError as error:
        said = str(error)
        clear = said.startswith(f"{path}: ") and "\n" not in said
        return ("error" if clear else "unclear"), said
    with tempfile.TemporaryDirectory() as out:
        write(Path(out), report([found], [], analyzer), [pictures])
        json.loads((Path(out) / "report.json").read_bytes(), parse_constant=_no_number)
    return "report", found.verdict.conclusion


def _no_number(name: str) -> None:
    raise ValueError(f"{name} in report.json")


def summary(outcome: Outcome) -> str:
    """A line on a run."""
    kinds = Counter(failure.how for failure in outcome.failures)
    failed = ", ".join(f"{number} {how}" for how, number in kinds.items()) or "none failed"
    peak = "" if outcome.peak is None else f", at most {outcome.peak:.2f} GiB"
    return (
        f"{outcome.files} damaged files: {outcome.reports} reports, "
        f"{outcome.files - outcome.reports - len(outcome.failures)} errors, {failed}; the slowest "
        f"took {outcome.slowest:.1f} s{peak}"
    )
