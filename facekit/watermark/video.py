"""Marks in files: reading them, and writing test marks."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.media.decode import Video, probe
from facekit.media.encode import write_video
from facekit.media.images import read_image, write_image
from facekit.types import Frame
from facekit.watermark import spread
from facekit.watermark.payload import Kind, Payload, Reading

MAX_FRAMES = 64
"""The most frames of a video that are read, evenly spaced over it."""

_SHORTEST_KEY = 16


def load_key(path: Path) -> bytes:
    """A private key: the bytes of a file.

    Raises:
        FacekitError: if it cannot be read, or holds fewer than 16 bytes.
    """
    try:
        key = path.read_bytes()
    except OSError as error:
        raise FacekitError(f"{path}: key not readable ({error.strerror or error})") from error
    if len(key) < _SHORTEST_KEY:
        raise FacekitError(
            f"{path}: a key must hold at least {_SHORTEST_KEY} bytes, this has {len(key)}; "
            f"make one with: head -c 32 /dev/urandom > {path.name}"
        )
    return key


def read_frames(frames: Iterable[Frame], key: bytes = spread.DEFAULT_KEY) -> Reading:
    """Look for a mark in frames of one video: their group values are summed, then decided on once.

    The signs of a key are the same in every frame, so the bound on the sum is that of one picture.
    """
    total = np.zeros(spread.GROUPS, np.float32)
    count = 0
    for frame in frames:
        total += spread.correlate(frame.pixels, key)
        count += 1
    return spread.decide(total, frames=count)


def read_file(path: Path, key: bytes = spread.DEFAULT_KEY) -> Reading:
    """Look for a mark in an image or a video; of a video, at most ``MAX_FRAMES`` frames are read.

    Raises:
        FacekitError: if the file is neither, or is damaged; one line that names it.
    """
    if probe(path).kind == "image":
        return spread.read(read_image(path), key)
    with Video(path) as video:
        return read_frames(_sample(video), key)


def _sample(video: Video) -> Iterator[Frame]:
    """Frames evenly spaced over the video, each once; the first ones if its length is unknown."""
    if video.info.duration is None:
        for frame in video:
            if frame.index == MAX_FRAMES:
                return
            yield frame
        return
    last = None
    times = np.linspace(0.0, video.info.duration, MAX_FRAMES, endpoint=False)
    for frame in video.frames(times.tolist()):
        if frame.time != last:
            yield frame
        last = frame.time


def embed_file(path: Path, out: Path, *, id: int = 0, key: bytes = spread.DEFAULT_KEY) -> Reading:
    """Write a copy of an image or a video that bears the test mark of kind ``TEST_REAL``.

    No other kind can be had here: generated media leave through ``facekit.export``. Sound is kept;
    the mark is read back before ``out`` appears. A file that bears a mark already is refused,
    because a second mark would wipe out the first.

    Args:
        path: the image or video.
        out: to write to: PNG, JPEG or WebP for an image, MP4 for a video.
        id: of the payload, below 2^48.
        key: the secret; the published one by default.

    Returns:
        What was read back.

    Raises:
        FacekitError: if ``path`` cannot be read or bears a mark, ``out`` cannot be written, the
            picture is too small, or the mark could not be read back.
    """
    payload = Payload(Kind.TEST_REAL, id)
    info = probe(path)
    suffixes = (".mp4",) if info.kind == "video" else (".png", ".jpg", ".jpeg", ".webp")
    if out.suffix.lower() not in suffixes:
        raise FacekitError(f"{out}: a marked {info.kind} is written as {', '.join(suffixes)}")
    _require_unmarked(path, key)
    with files.replacing(out) as partial:
        if info.kind == "image":
            write_image(partial, spread.embed(read_image(path), payload, key))
        else:
            with Video(path) as video:
                write_video(
                    partial,
                    (Frame(spread.embed(f.pixels, payload, key), f.time, f.index) for f in video),
                    rate=info.rate or 25.0,
                    audio_from=path if info.has_audio else None,
                )
        reading = read_file(partial, key)
        if reading.payload != payload:
            raise FacekitError(
                f"{out}: not written, because the mark could not be read back from it "
                f"(p = {reading.p_value:.2g}); the picture is too flat, dark or small to hold it"
            )
    return reading


def _require_unmarked(path: Path, key: bytes) -> None:
    for known in {spread.DEFAULT_KEY, key}:
        reading = read_file(path, known)
        if reading.present:
            kind = reading.kind or "of unreadable kind"
            raise FacekitError(
                f"{path}: bears a mark already ({kind}), which a second one would wipe out; "
                "give a file without one"
            )
