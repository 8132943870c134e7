"""Reading video: upright RGB frames, each with its time, and any of them exactly by time.

Times are the container's presentation time stamps in seconds, counted from the first frame that can
be shown. Rotation and mirroring that the container asks for are applied; a pixel aspect ratio
other than 1 is not, so that pixels stay those of the file.

A damaged or truncated file gives the frames that can be decoded, and at the end of an iteration a
warning in the log that says how many are missing or faulty; a file without a single decodable frame
is an error.
"""

import logging
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Interpolation

from facekit.core.errors import FacekitError
from facekit.media import images
from facekit.types import Frame, Pixels

log = logging.getLogger("facekit")

# FFmpeg opens far more than video: playlists that name other files or addresses, text as "ANSI
# art", raw pictures. Only containers are let in (names of its demuxers), and nothing but files.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,ogg,flv,asf,gif,"
    "wav,mp3,flac,aac"  # audio, to be able to say "no video in it"
)
# Photos in a video's wrapping: FFmpeg would show one tile of them as if it were the whole.
_PHOTO_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")
_TIFF = (b"II*\0", b"MM\0*")
_OPEN = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}

_Turns = dict[int, list[int]]
_IDENTITY = np.eye(3, dtype=np.int32).ravel()

# H.273's numbers of the transfer functions PQ and HLG.
_HDR = (16, 18)

# At most so many frames of a long video are decoded for each that is sampled.
_STRIDE = 8

MAX_PIXELS = images.MAX_ANIMATED_PIXELS
"""Frames larger than this are refused: they are damaged headers or attacks.

It is what the highest levels of H.264, HEVC and AV1 allow.
"""

# A file of few bytes may ask for hours of work: refused is what has been decoded to so many pixels
# already, and to so many for each byte read. Twelve hours of video are more, but of more bytes too:
# even if all of it is black, H.264 has but a quarter of these pixels a byte.
_MANY_PIXELS = 1 << 33
_MANY_PER_BYTE = 1 << 17
# Video.sample decodes at most so many: 512 frames of 4K.
_SAMPLED_PIXELS = 1 << 32

# swscale's default is quick and wrong by more than a level on average (a bias, not noise); this
# flag set costs 3 ms a megapixel and is exact to rounding.
EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)


@dataclass(frozen=True)
class MediaInfo:
    """What a file is.

    Attributes:
        path: of the file.
        kind: "image" or "video".
        width, height: in pixels, upright; of the first frame.
        duration: in seconds; None for images and where the container does not say.
        rate: average frames a second; None for images and where the container does not say.
        has_audio: whether there is a sound track.
        codec: e.g. "h264" or "jpeg".
        hdr: whether brightness is coded for high dynamic range (PQ or HLG). It is read as it
            stands, so that colours look pale.
    """

    path: Path
    kind: Literal["image", "video"]
    width: int
    height: int
    duration: float | None
    rate: float | None
    has_audio: bool
    codec: str
    hdr: bool = False


def probe(path: Path) -> MediaInfo:
    """What ``path`` is, an image or a video, judged by content and not by its suffix.

    Raises:
        FacekitError: if it is missing, no regular file, empty, no image or video, or has no frame
            that can be decoded; one line that names the file.
    """
    images.require_file(path)
    if images.is_image(path):
        height, width = images.read_image(path).shape[:2]
        codec = images.format_of(path)
        return MediaInfo(path, "image", width, height, None, None, False, codec)
    with Video(path) as video:
        return video.info


class Video:
    """A video file, open for reading.

    Iterating decodes from the start, holding a handful of frames at most; each iteration has its
    own position, apart from that of :meth:`at`.

    Example:
        >>> with Video(Path("clip.mp4")) as video:
        ...     for frame in video:
        ...         print(frame.time, frame.pixels.shape)
        ...     middle = video.at(video.info.duration / 2)
    """

    def __init__(self, path: Path) -> None:
        """Open ``path`` and decode its first frame, so that later errors are rare.

        Raises:
            FacekitError: if the file is missing, empty, not a video, has sound only, or has no
                frame that can be decoded; one line that names the file.
        """
        self.path = path
        self._cursor: _Cursor | None = None
        self._index: _Index | None = None
        self._turns: _Turns = {}
        with _opened(path) as (container, stream):
            self._work = _Work(path)
            first = next(_decode(container, stream, self._work, quiet=True), None)
            if first is None:
                raise FacekitError(f"{path}: no frame in it can be decoded; it is damaged or empty")
            self._start = _ticks(first, container)
            self.start = (
                self._start * stream.time_base if _stamps_are_true(container) else Fraction(0)
            )
            """Of the first frame, in seconds on the container's own clock; add it to a time here
            to compare with the sound's."""
            pixels = _upright(first, self._turns)
            self.info = MediaInfo(
                path=path,
                kind="video",
                width=pixels.shape[1],
                height=pixels.shape[0],
                duration=_duration(container, stream),
                rate=float(stream.average_rate) if stream.average_rate else None,
                has_audio=sound_track(container) is not None,
                codec=stream.codec_context.codec.canonical_name,
                hdr=first.color_trc in _HDR,
            )

    def __enter__(self) -> "Video":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    def __iter__(self) -> Iterator[Frame]:
        """The frames from the start, in order of time."""
        with _opened(self.path) as (container, stream):
            clock = _Clock(container, stream, self._start)
            for index, frame in enumerate(_decode(container, stream, _Work(self.path))):
                yield Frame(_upright(frame, self._turns), clock.time(frame), index)

    def at(self, time: float) -> Frame:
        """The frame on screen at ``time``: the last whose own time is not after it.

        Before the first frame it is the first; after the end, the last. Exact for any mixture of
        frame rates and reordered frames: it seeks to a key frame and decodes forward. The first
        call reads the file once, without decoding it, for the frames' times.

        Args:
            time: seconds from the start of the stream.
        """
        if self._cursor is None:
            self._cursor = _Cursor(self._work, self._start, self._indexed(), self._turns)
        return self._cursor.at(time)

    @property
    def faults(self) -> int:
        """How many of the frames decoded so far, for :meth:`at`, are missing or faulty."""
        return self._work.faults

    def frames(self, times: Sequence[float]) -> Iterator[Frame]:
        """The frame on screen at each of ``times``; quickest where the times are in order."""
        return (self.at(time) for time in times)

    def length(self) -> float | None:
        """Seconds that the frames last, by their own times; else as long as the container says.

        The container may be wrong: the file was cut off, or its frames are not evenly spaced. The
        first call of this or of :meth:`at` reads the file once, without decoding it.
        """
        times = self._indexed().times
        if len(times) < 2:
            return self.info.duration
        return times[-1] + (times[-1] - times[0]) / (len(times) - 1)

    def _indexed(self) -> "_Index":
        if self._index is None:
            self._index = _Index.read(self.path, self._start)
        return self._index

    def sample(self, count: int) -> Iterator[Frame]:
        """At most ``count`` frames spread over the video, each once, as quick as can be.

        Of a long video, few frames are decoded that are not wanted: frames are taken from key
        frames on, and where one key frame has to serve for minutes, only from what follows it. If
        a damaged long video has no key frame that can be sought, they are its first frames.

        Yields:
            Frames in order of time, as by iteration, fewer of huge ones; where a video stores no
            times, or stores its frames in another order than it shows them, ``index`` may be off
            by a few.
        """
        count = max(
            1, min(count, _SAMPLED_PIXELS // (_STRIDE * self.info.width * self.info.height))
        )
        with _opened(self.path) as (container, stream):
            # Where packets have no time of their own, their place in the file will do for seeking.
            listed = [
                (packet.dts if packet.pts is None else packet.pts, packet.is_keyframe)
                for packet in packets(container, stream)
                if packet.size and not packet.is_discard
            ]
        if len(listed) <= count * _STRIDE:
            wanted = _spread(len(listed), count)
            yield from (frame for frame in self if frame.index in wanted)
            return
        sought = False
        for frame in self._sought(listed, _spread(len(listed), count)):
            sought = True
            yield frame
        if not sought:
            yield from islice(self, count)

    def _sought(self, listed: list[tuple[int, bool]], wanted: set[int]) -> Iterator[Frame]:
        keys = [n for n, (ticks, is_key) in enumerate(listed) if is_key and ticks is not None]
        with _opened(self.path) as (container, stream):
            clock = _Clock(container, stream, self._start)
            for first, after in pairwise([*keys, len(listed)]):
                share = sum(first <= n < after for n in wanted)
                if not share:
                    continue
                stride = min((after - first) / share, _STRIDE)
                places = {int(n * stride) for n in range(share)}
                try:
                    container.seek(listed[first][0], stream=stream)
                except av.error.FFmpegError:
                    continue
                source = _decode(container, stream, self._work, quiet=True)
                for number, frame in enumerate(islice(source, max(places) + 1)):
                    if number in places:
                        yield Frame(_upright(frame, self._turns), clock.time(frame), first + number)
                source.close()


@dataclass(frozen=True)
class _Index:
    """The times of a stream's frames and key frames, sorted; empty where it stores none."""

    times: list[float]
    keys: list[float]
    ticks_of_keys: list[int]

    @classmethod
    def read(cls, path: Path, start: int) -> "_Index":
        with _opened(path) as (container, stream):
            if not _stamps_are_true(container):
                return cls([], [], [])
            found = [
                (packet.pts, packet.is_keyframe)
                for packet in packets(container, stream)
                if packet.size and not packet.is_discard
            ]
            if any(pts is None for pts, _ in found):
                return cls([], [], [])
            ticks = sorted((pts, key) for pts, key in found if pts >= start)
            base = stream.time_base
            return cls(
                [float((pts - start) * base) for pts, _ in ticks],
                [float((pts - start) * base) for pts, key in ticks if key],
                [pts for pts, key in ticks if key],
            )


class _Cursor:
    """A position in the stream that moves forward by decoding and elsewhere by seeking."""

    def __init__(self, work: "_Work", start: int, index: _Index, turns: _Turns) -> None:
        self.work, self.start, self.index, self.turns = work, start, index, turns
        self._reopen()

    def _reopen(self) -> None:
        self._opened = _opened(self.work.path)
        self.container, self.stream = self._opened.__enter__()
        self.clock = _Clock(self.container, self.stream, self.start)
        self._restart()

    def _restart(self) -> None:
        """Forget the position: the next frame is the first after a seek, or of the stream."""
        self.source = _decode(self.container, self.stream, self.work, quiet=True)
        self.current: Any = None  # the frame last passed, its time, and its pixels once wanted
        self.current_time = -1.0
        self.shown: Frame | None = None
        self.ahead: Any = None  # a frame decoded one too far, and its time
        self.ahead_time = -1.0
        self.count = -1

    def close(self) -> None:
        self.source.close()
        self._opened.__exit__(None, None, None)

    def at(self, time: float) -> Frame:
        place = bisect_right(self.index.times, time) - 1
        # The time of the frame wanted, so that decoding can stop at it and not one frame later.
        wanted = self.index.times[max(place, 0)] if self.index.times else max(time, 0.0)
        if not self._near(wanted):
            self._seek(wanted)
        self._forward(wanted)
        if self.shown is None:
            number = bisect_right(self.index.times, self.current_time) - 1
            index = number if self.index.times else self.count
            self.shown = Frame(_upright(self.current, self.turns), self.current_time, max(index, 0))
        return self.shown

    def _near(self, wanted: float) -> bool:
        """Whether decoding on from here is right, and no longer than from a key frame."""
        if self.current is None or wanted < self.current_time:
            return False
        return bisect_right(self.index.keys, wanted) == bisect_right(
            self.index.keys, self.current_time
        )

    def _seek(self, wanted: float) -> None:
        """Go to a key frame from which ``wanted`` decodes right; to the start if there is none."""
        place = bisect_right(self.index.keys, wanted) - 1
        for key in (place, place - 1, place - 3):
            if key <= 0:
                break
            self.source.close()
            self.container.seek(self.index.ticks_of_keys[key], stream=self.stream)
            self._restart()
            # Frames shown before the first key frame lean on pictures that were skipped.
            faults = self.work.faults
            for frame in self.source:
                if frame.key_frame:
                    self._take(frame)
                    break
            self.work.faults = faults
            if self.current is not None and self.current_time <= wanted:
                return
        self.close()
        self._reopen()

    def _forward(self, wanted: float) -> None:
        while self.current is None or self.current_time < wanted:
            if self.ahead is None:
                self.ahead = next(self.source, None)
                if self.ahead is None:
                    break
                self.ahead_time = self.clock.time(self.ahead)
            if self.current is not None and self.ahead_time > wanted:
                break
            frame, self.ahead = self.ahead, None
            self._take(frame, self.ahead_time)
        if self.current is None:
            raise FacekitError(f"{self.work.path}: changed or became unreadable while it was read")

    def _take(self, frame: Any, time: float | None = None) -> None:
        self.current = frame
        self.current_time = self.clock.time(frame) if time is None else time
        self.shown = None
        self.count += 1


class _Clock:
    """Times of decoded frames, in seconds from the start of the stream."""

    def __init__(self, container: Any, stream: Any, start: int) -> None:
        self.container, self.base, self.start = container, stream.time_base, start
        self.period = 1 / Fraction(stream.average_rate or 25) / self.base
        self.last: int | None = None

    def time(self, frame: Any) -> float:
        ticks = _stamp(frame, self.container)
        if ticks is None:  # the container gives none: go on at its rate
            ticks = self.start if self.last is None else self.last + round(self.period)
        self.last = ticks
        return float((ticks - self.start) * self.base)


def _spread(total: int, count: int) -> set[int]:
    """At most ``count`` of the numbers below ``total``, evenly spaced."""
    return {n * total // count for n in range(count)} if total > count else set(range(total))


def _stamps_are_true(container: Any) -> bool:
    # AVI stores no presentation times; what FFmpeg makes up is wrong where frames are reordered.
    return "avi" not in container.format.name


def _stamp(frame: Any, container: Any) -> int | None:
    ticks: int | None = frame.pts if _stamps_are_true(container) else frame.dts
    return ticks


def _ticks(frame: Any, container: Any) -> int:
    return _stamp(frame, container) or 0


def open_container(path: Path) -> Any:
    """PyAV's container for a file of a known kind; close it after use.

    Raises:
        FacekitError: if the file is missing, empty, or of no kind that is read here.
    """
    images.require_file(path)
    with path.open("rb") as file:
        head = file.read(12)
    if (head[4:8] == b"ftyp" and head[8:12] in _PHOTO_BRANDS) or head[:4] in _TIFF:
        raise FacekitError(
            f"{path}: HEIC, AVIF and TIFF pictures are not read; convert it to PNG or JPEG"
        )
    try:
        return av.open(str(path.absolute()), options=_OPEN, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise FacekitError(
            f"{path}: not an image or a video that can be read, or cut short"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its video stream; every way this can fail is one line."""
    with open_container(path) as container:
        stream = container.streams.best("video")
        if stream is None or is_cover(stream):
            kind = "sound only, " if container.streams.audio else ""
            raise FacekitError(f"{path}: {kind}no video in it")
        context = stream.codec_context
        if context is None:
            raise FacekitError(f"{path}: its video codec is unknown; convert it to H.264")
        if context.width * context.height > MAX_PIXELS:
            raise FacekitError(
                f"{path}: frames of {context.width}×{context.height} are too large; at most "
                f"{MAX_PIXELS // 10**6} megapixels"
            )
        context.options = {"max_pixels": str(MAX_PIXELS)}
        stream.thread_type = "AUTO"
        yield container, stream


def is_cover(stream: Any) -> bool:
    """Whether the "video" is the picture on a record's sleeve."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def sound_track(container: Any) -> Any:
    """The first sound track whose codec is known; None if there is none."""
    tracks = (track for track in container.streams.audio if track.codec_context is not None)
    return next(tracks, None)


def packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets up to the end or to where the file breaks off."""
    try:
        yield from container.demux(stream)
    except (av.error.FFmpegError, OSError, IndexError):
        return  # IndexError: see _decode


class _Work:
    """What decoding a file has cost so far; whoever decodes it adds to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0  # of the packets that went in
        self.faults = 0  # frames that proved missing or faulty
        self._pixels = 0

    def add(self, frame: Any) -> None:
        """Count a frame.

        Raises:
            FacekitError: if it is too large, or if there were too many for so small a file.
        """
        pixels = frame.width * frame.height
        if pixels > MAX_PIXELS:
            raise FacekitError(f"{self.path}: a frame of {frame.width}×{frame.height} is too large")
        self._pixels += pixels
        if self._pixels > max(_MANY_PIXELS, _MANY_PER_BYTE * self.bytes):
            raise FacekitError(
                f"{self.path}: unpacks to over {_MANY_PIXELS / 10**9:.0f} gigapixels from a few "
                "bytes; it is damaged, or made to exhaust whoever reads it"
            )


def _decode(container: Any, stream: Any, work: _Work, quiet: bool = False) -> Generator[Any]:
    """The frames in order of time, over damage; warns once at the end if there was any."""
    path = work.path
    damaged, cut, decoded = 0, False, 0
    source = container.demux(stream)
    while True:
        try:
            packet = next(source, None)
        except (av.error.FFmpegError, OSError):
            # The file breaks off. What the decoder still holds is whole: let it out.
            packet, cut = None, True
        work.bytes += packet.size if packet is not None else 0
        if _is_encrypted(packet):
            # Decoded without the key it gives noise, if anything: no picture to judge.
            raise FacekitError(f"{path}: its pictures are encrypted; give a copy that is not")
        try:
            frames = stream.codec_context.decode(packet)
        except (av.error.FFmpegError, ValueError):
            frames = []
            damaged += packet is not None
            work.faults += packet is not None
        for frame in frames:
            work.add(frame)
            decoded += 1
            damaged += frame.is_corrupt
            work.faults += frame.is_corrupt
            yield frame
        if packet is None or packet.size == 0:
            break
    if quiet or not decoded:
        return
    # mp4 lists its frames; a few of them may be meant not to be shown.
    listed = stream.frames if "mp4" in container.format.name else 0
    if cut or listed > 1.1 * decoded + damaged:
        of = f" of {listed}" if listed else ""
        log.warning("%s: breaks off; %d%s frames could be decoded", path, decoded, of)
    elif damaged:
        log.warning("%s: damaged; %d of its frames are missing or faulty", path, damaged)


def _is_encrypted(packet: Any) -> bool:
    has = getattr(packet, "has_sidedata", None)  # older PyAVs cannot tell
    return has is not None and bool(has("encryption_info"))


def _duration(container: Any, stream: Any) -> float | None:
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration is not None else None


def _upright(frame: Any, turns: _Turns) -> Pixels:
    """RGB pixels with the container's rotation and mirroring applied.

    ``turns`` remembers the matrix that goes with a rotation.
    """
    pixels = _rgb(frame)
    if frame.rotation not in turns:
        # Asking for side data ties PyAV's frame into a reference cycle, and its megabytes stay
        # until the garbage collector runs: not for every frame.
        matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
        values = np.frombuffer(bytes(matrix), np.int32) if matrix is not None else _IDENTITY
        turns[frame.rotation] = values[:5].tolist()
    # x′ = a·x + c·y, y′ = b·x + d·y: the matrix stands as a b u, c d v, x y w.
    a, b, _, c, d = turns[frame.rotation]
    across, down = a, d
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, across, down = pixels.swapaxes(0, 1), c, b
    if across < 0:
        pixels = pixels[:, ::-1]
    if down < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _rgb(frame: Any) -> Pixels:
    """Exact RGB pixels. Asked for RGB in one plane, swscale gives the same in twice the time."""
    green, blue, red = (
        np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in frame.reformat(format="gbrp", interpolation=EXACT).planes
    )
    return np.asarray(cv2.merge((red, green, blue)), np.uint8)
