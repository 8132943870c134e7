"""Writing video: H.264 in mp4, each frame at its own time, with the sound of another file."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import Colorspace

from facekit.core.errors import FacekitError
from facekit.core.files import replacing
from facekit.media.decode import EXACT, Video, is_cover, open_container, packets, sound_track
from facekit.types import Frame, Pixels

_TIME_BASE = Fraction(1, 90000)
_PLAYABLE = {"movflags": "+faststart"}  # players and browsers may begin before all is loaded
_LATER = 3600 * 90000
"""Ticks by which the times of a stretch are put off: NUT knows none before 0, as the first packets'
times of decoding are."""

_BT709 = 1
_LIMITED_RANGE = 1

# x264's output depends on the number of its threads; a fixed number gives the same bytes anywhere.
_THREADS = 4

# Without this, what x264 writes differs between processors, and for some widths between two runs on
# one of them (its macroblock tree's quickest code does not give the same result each time).
_REPRODUCIBLE = "cpu-independent=1"

# Of a studio clip at 720p and crf 18 it takes half the time of x264's default, "medium", makes 5%
# smaller files, and loses 0.3 of 41.6 dB.
_PRESET = "faster"

_COPIED = ("aac", "ac3", "alac", "eac3", "flac", "mp3", "opus")
"""Sound that mp4 holds and players play; any other is encoded again as AAC."""

_SOUND_RATE = 48000

# Sound often outlasts the picture by a fraction of a second; that much is kept.
_SOUND_TAIL = 0.5


def write_video(
    path: Path,
    frames: Iterable[Frame],
    *,
    rate: float = 25.0,
    audio_from: Path | None = None,
    crf: int = 18,
) -> None:
    """Write frames as H.264 (yuv420p, BT.709) in mp4, wholly or not at all.

    Each frame is shown from its ``time`` on, so that a variable frame rate is kept. All frames get
    the first one's size (others are scaled to fit it, on black); odd sizes are
    made even by repeating the last row or column, because 4:2:0 colour needs it.

    Generated video leaves through ``facekit.export`` instead.

    Args:
        path: to write to; ".mp4".
        frames: in order of time; only a few are held at once.
        rate: the nominal rate, frames a second; it gives the last frame its duration.
        audio_from: a file whose first sound track is taken along, from its start to the end of
            the frames. It is copied packet by packet where mp4 can hold it, else encoded as AAC.
            Frame times are those of this file's video, if it has one.
        crf: x264's constant rate factor, 0 (lossless) to 51; 18 looks like the original.

    Raises:
        FacekitError: if there are no frames, ``audio_from`` has no sound, or the file cannot be
            written.
    """
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise FacekitError(f"{path}: no frames to write")
    with _written(path) as partial:
        _write(partial, chain([first], iterator), first.pixels, rate, audio_from, crf)


def write_stretch(
    path: Path, frames: Iterable[Frame], size: tuple[int, int], *, rate: float, crf: int
) -> None:
    """Encode a stretch of a video on its own, to be joined with the others by :func:`join`.

    Args:
        path: to write to; ".nut", which keeps times to the tick.
        frames: at least one, in order of time.
        size: width and height of the video; frames of another size are scaled to fit it.
        rate: as for :func:`write_video`.
        crf: as for :func:`write_video`.

    Raises:
        FacekitError: if the file cannot be written.
    """
    with _written(path) as partial, av.open(str(partial.absolute()), "w", format="nut") as out:
        stream = _add_stream(out, size, rate, crf)
        for packet in _encode(stream, frames, size):
            packet.pts, packet.dts = packet.pts + _LATER, packet.dts + _LATER
            packet.duration = _duration(rate)
            out.mux(packet)


def join(
    path: Path,
    stretches: Sequence[Path],
    *,
    rate: float,
    audio_from: Path | None = None,
) -> None:
    """Join stretches, packet by packet, into what :func:`write_video` would write.

    Args:
        path: to write to; ".mp4".
        stretches: of :func:`write_stretch`, in order.
        rate: as they were written with.
        audio_from: as for :func:`write_video`.

    Raises:
        FacekitError: if there are none, one cannot be read, or the file cannot be written.
    """
    if not stretches:
        raise FacekitError(f"{path}: no frames to write")
    with _written(path) as partial:
        times = sorted(packet.pts for packet in _stretched(stretches))
        # A packet is decoded two frames before it is shown at the latest: x264 looks no further.
        lead = (times[0] - 2 * _duration(rate), times[0] - _duration(rate))
        ticks = iter([*lead, *times])
        with (
            av.open(str(partial.absolute()), "w", format="mp4", options=_PLAYABLE) as out,
            av.open(str(stretches[0].absolute()), format="nut") as first,
        ):
            stream = out.add_stream_from_template(first.streams.video[0])
            stream.time_base = _TIME_BASE
            sound = _Sound(audio_from, out) if audio_from else None

            def packets() -> Iterator[Any]:
                for packet in _stretched(stretches):
                    packet.stream, packet.dts = stream, next(ticks)
                    yield packet

            _mux(out, packets(), sound, _duration(rate))


def _stretched(stretches: Sequence[Path]) -> Iterator[Any]:
    """The packets of stretches, one after the other."""
    for path in stretches:
        with av.open(str(path.absolute()), format="nut") as container:
            for packet in container.demux(video=0):
                if packet.size and packet.pts is not None:
                    packet.pts -= _LATER
                    yield packet


def _write(
    path: Path,
    frames: Iterable[Frame],
    model: Pixels,
    rate: float,
    audio_from: Path | None,
    crf: int,
) -> None:
    size = model.shape[1], model.shape[0]
    with av.open(str(path.absolute()), "w", format="mp4", options=_PLAYABLE) as out:
        stream = _add_stream(out, size, rate, crf)
        sound = _Sound(audio_from, out) if audio_from else None
        _mux(out, _encode(stream, frames, size), sound, _duration(rate))


def _add_stream(out: Any, size: tuple[int, int], rate: float, crf: int) -> Any:
    stream = out.add_stream(
        "libx264",
        rate=Fraction(rate).limit_denominator(1001),
        options={"crf": str(crf), "preset": _PRESET, "x264-params": _REPRODUCIBLE},
    )
    context = stream.codec_context
    width, height = size
    context.width, context.height = width + width % 2, height + height % 2
    context.pix_fmt = "yuv420p"
    context.time_base = stream.time_base = _TIME_BASE
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED_RANGE
    context.thread_count = _THREADS
    return stream


def _mux(out: Any, video: Iterable[Any], sound: "_Sound | None", duration: int) -> None:
    """Write packets of video, each of a nominal duration, with the sound alongside."""
    try:
        end = 0.0
        for packet in video:
            packet.duration = duration
            out.mux(packet)
            # Sound is written alongside, so that neither waits in memory for the other.
            end = max(end, float((packet.pts + duration) * _TIME_BASE))
            if sound:
                sound.write_until(float(packet.dts * _TIME_BASE))
        if sound:
            sound.write_until(end + _SOUND_TAIL)
    finally:
        if sound:
            sound.close()


def _duration(rate: float) -> int:
    """Of one frame, in ticks."""
    return max(1, round(1 / rate / _TIME_BASE))


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """The path beside to write to; see :func:`facekit.core.files.replacing`."""
    with replacing(path) as partial:
        try:
            yield partial
        except av.error.FFmpegError as error:
            raise FacekitError(f"{path}: cannot be written ({error.strerror or error})") from error


def _encode(stream: Any, frames: Iterable[Frame], size: tuple[int, int]) -> Iterator[Any]:
    last = -1
    for frame in frames:
        picture = av.VideoFrame.from_ndarray(_fit(frame.pixels, size), format="rgb24")
        picture = picture.reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, interpolation=EXACT
        )
        # Two frames at one time would be refused: the second is shown a tick later.
        last = max(round(frame.time / _TIME_BASE), last + 1)
        picture.pts, picture.time_base = last, _TIME_BASE
        yield from stream.encode(picture)
    yield from stream.encode(None)


def _fit(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """``pixels`` at ``size`` (width, height), then padded to even numbers of rows and columns."""
    width, height = size
    if pixels.shape[:2] != (height, width):
        scale = min(width / pixels.shape[1], height / pixels.shape[0])
        inner = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        small = cv2.resize(pixels, inner, interpolation=cv2.INTER_AREA)
        left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[top : top + inner[1], left : left + inner[0]] = small
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


class _Sound:
    """The first sound track of a file on its way into another."""

    def __init__(self, path: Path, out: Any) -> None:
        self.path, self.out = path, out
        self.container = open_container(path)
        self.source = sound_track(self.container)
        if self.source is None:
            self.container.close()
            raise FacekitError(f"{path}: no sound in it")
        # Frame times count from the video's first frame, so must the sound's.
        if self.container.streams.video and not is_cover(self.container.streams.video[0]):
            with Video(path) as video:
                start = video.start
        else:
            start = (self.source.start_time or 0) * self.source.time_base
        if self.source.codec_context.codec.canonical_name in _COPIED:
            self.target = out.add_stream_from_template(self.source)
            self.packets = self._copied(start)
        else:
            layout = "mono" if self.source.codec_context.channels == 1 else "stereo"
            self.target = out.add_stream("aac", rate=_SOUND_RATE, layout=layout)
            self.packets = self._encoded(start)
        self.waiting: Any = None

    def write_until(self, time: float) -> None:
        """Write the packets that begin before ``time`` and are not written yet."""
        while True:
            if self.waiting is None:
                self.waiting = next(self.packets, None)
            if self.waiting is None or self.waiting.pts * self.waiting.time_base >= time:
                return
            self.out.mux(self.waiting)
            self.waiting = None

    def close(self) -> None:
        self.container.close()

    def _copied(self, start: Fraction) -> Iterator[Any]:
        shift = round(start / self.source.time_base)
        for packet in packets(self.container, self.source):
            if packet.pts is None or not packet.size:
                continue
            packet.pts -= shift
            packet.dts = packet.pts  # sound is not reordered
            packet.stream = self.target
            yield packet

    def _encoded(self, start: Fraction) -> Iterator[Any]:
        context = self.target.codec_context
        resampler = av.AudioResampler("fltp", context.layout, context.sample_rate)
        begin: int | None = None
        for frame in chain(self._decoded(), [None]):
            if begin is None and frame is not None:
                begin = round((Fraction(frame.pts or 0) * frame.time_base - start) * _SOUND_RATE)
            for piece in resampler.resample(frame):
                piece.pts, piece.time_base = begin, Fraction(1, _SOUND_RATE)
                begin = (begin or 0) + piece.samples
                yield from self.target.encode(piece)
        yield from self.target.encode(None)

    def _decoded(self) -> Iterator[Any]:
        for packet in packets(self.container, self.source):
            try:
                yield from self.source.codec_context.decode(packet if packet.size else None)
            except av.error.FFmpegError:
                continue  # a damaged packet is a short silence less, no more
