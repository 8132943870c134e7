"""Marks in files: reading them, and writing test marks."""

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.media import images
from facekit.media.decode import MediaInfo, Video, probe
from facekit.media.encode import write_video
from facekit.media.photo import Photo, encode_photo, fit, read_photo
from facekit.types import Frame, Pixels
from facekit.watermark.listen import Listener, read
from facekit.watermark.payload import Kind, Payload, Reading
from facekit.watermark.spread import DEFAULT_KEY, embed

log = logging.getLogger("facekit")

MAX_FRAMES = 64
"""The most frames of a video that are read, spread over it."""

PAYLOAD_SIDE = 256
"""Below this side, in pixels, a mark must be there, but may be too weak for its payload."""

_ANIMATED_PIXELS = 1 << 29
"""The most pixels of an animation that are decoded: 250 frames of 1080 lines."""

_SHORTEST_KEY = 16
# Where a picture is transparent its mark is lost. What is missing is added to the rest, half of it
# at a time, until the mark is surely read; more rounds would show (32 dB PSNR in the rest).
_ROUNDS = 3
_SURE = 1e-18


def load_key(path: Path) -> bytes:
    """A private key: the bytes of a file.

    Raises:
        FacekitError: if it cannot be read, is no regular file, or holds fewer than 16 bytes.
    """
    images.require_file(path)
    key = path.read_bytes()
    if len(key) < _SHORTEST_KEY:
        raise FacekitError(
            f"{path}: a key must hold at least {_SHORTEST_KEY} bytes, this has {len(key)}; "
            f"make one with: head -c 32 /dev/urandom > {path.name}"
        )
    return key


def read_file(path: Path, key: bytes = DEFAULT_KEY, *, search: bool = True) -> Reading:
    """Look for a mark in an image or a video.

    The evidence of an animation or a video is summed over at most ``MAX_FRAMES`` frames, and
    decided on once. Of an animation only the beginning is read if it is long and large.

    Args:
        path: the file.
        key: the secret; the published one by default.
        search: whether to look for cropped, scaled and turned pictures too.

    Raises:
        FacekitError: if the file is neither, or is damaged; one line that names it.
    """
    listener = Listener(key)
    for pixels in _sample(path):
        listener.add(pixels)
    return listener.decide(search=search)


def _sample(path: Path) -> Iterator[Pixels]:
    images.require_file(path)
    if not images.is_image(path):
        with Video(path) as video:
            size = (video.info.width, video.info.height)
            for frame in video.sample(MAX_FRAMES):
                # A stream's size may change; what is summed must be of one size.
                pixels = frame.pixels
                if pixels.shape[1::-1] != size:
                    pixels = np.asarray(cv2.resize(pixels, size), np.uint8)
                yield pixels
        return
    count = images.count_frames(path)
    if count == 1:
        yield images.read_image(path)
        return
    # An animation can only be decoded from its start, and a small file can hold a lot of it.
    frames = images.read_animation(path)
    first = next(frames).pixels
    yield first
    count = min(count, max(1, _ANIMATED_PIXELS // (first.shape[0] * first.shape[1])))
    stride = -(-count // MAX_FRAMES)
    for frame in islice(frames, stride - 1, count - 1, stride):
        yield frame.pixels


def embed_file(path: Path, out: Path, *, id: int = 0, key: bytes = DEFAULT_KEY) -> Reading:
    """Write a copy of an image or a video that bears the test mark of kind ``TEST_REAL``.

    No other kind can be had here: generated media leave through ``facekit.export``. The mark is
    read back before ``out`` appears. A file that bears a mark already is refused, because a second
    mark would wipe out the first.

    A picture stays as it is (grey, 16 bits, transparent, with its colour profile) as far as ``out``
    can hold that; what it cannot is said in the log. Animated pictures become video. The first
    sound track of a video is kept. EXIF and other metadata are left out, but a picture is upright.

    Args:
        path: the image or video.
        out: to write to: PNG, JPEG or WebP for an image, MP4 for a video or an animation.
        id: of the payload, below 2^48.
        key: the secret; the published one by default.

    Returns:
        What was read back. If a side is shorter than ``PAYLOAD_SIDE`` it may have no payload.

    Raises:
        FacekitError: if ``path`` cannot be read or bears a mark, ``out`` cannot be written or is
            ``path``, the picture is too small, or the mark could not be read back.
    """
    payload = Payload(Kind.TEST_REAL, id)
    info = probe(path)
    moves = info.kind == "video" or images.count_frames(path) > 1
    _require_place(path, out, moves)
    _require_unmarked(path, key)
    with files.replacing(out) as partial:
        try:
            if moves:
                _mark_video(info, partial, payload, key)
            else:
                _mark_photo(path, out, partial, payload, key)
            reading = read_file(partial, key, search=False)
        except FacekitError as error:
            # The partial file means nothing to the user: name the one that was asked for.
            raise FacekitError(str(error).replace(str(partial), str(out))) from error
        small = min(info.width, info.height) < PAYLOAD_SIDE
        enough = small and reading.present and reading.payload is None
        if reading.payload != payload and not enough:
            raise FacekitError(
                f"{out}: not written, because the mark could not be read back from it "
                f"(p = {reading.p_value:.2g}); the picture is too busy, dark, small or "
                "transparent to hold it"
            )
    return reading


def _require_place(path: Path, out: Path, moves: bool) -> None:
    """Refuse a name that says another format than what will be written, and that of the source."""
    what = "moving picture or video" if moves else "picture"
    suffixes = (".mp4",) if moves else (".png", ".jpg", ".jpeg", ".webp")
    if out.is_dir():
        raise FacekitError(f"{out}: is a folder; give the name of a file in it")
    if out.suffix.lower() not in suffixes:
        raise FacekitError(f"{out}: a marked {what} is written as {', '.join(suffixes)}")
    if out.exists() and out.samefile(path):
        raise FacekitError(f"{out}: is the file to mark; give another name, to keep the original")


def _require_unmarked(path: Path, key: bytes) -> None:
    for known in {DEFAULT_KEY, key}:
        reading = read_file(path, known)
        if reading.present:
            kind = reading.kind or "of unreadable kind"
            raise FacekitError(
                f"{path}: bears a mark already ({kind}), which a second one would wipe out; "
                "give a file without one"
            )


def _mark_photo(path: Path, out: Path, partial: Path, payload: Payload, key: bytes) -> None:
    photo, lost = fit(read_photo(path), out.suffix)
    for loss in lost:
        log.warning("%s: %s", out, loss)
    try:
        marked = _marked(photo, payload, key)
    except FacekitError as error:
        raise FacekitError(f"{path}: {error}") from error
    try:
        partial.write_bytes(encode_photo(marked, out.suffix))
    except FacekitError as error:
        raise FacekitError(f"{out}: {error}") from error


def _marked(photo: Photo, payload: Payload, key: bytes) -> Photo:
    seen = photo.rgb()
    photo = photo.changed(embed(seen, payload, key).astype(np.int16) - seen)
    if photo.alpha is None:
        return photo
    for _ in range(_ROUNDS):
        seen = photo.rgb()
        reading = read(seen, key, search=False)
        if reading.payload == payload and reading.p_value < _SURE:
            break
        missing = (embed(seen, payload, key).astype(np.int16) - seen) // 2
        missing[photo.alpha == 0] = 0
        photo = photo.changed(missing)
    return photo


def _mark_video(info: MediaInfo, partial: Path, payload: Payload, key: bytes) -> None:
    path, rate = info.path, info.rate or 25.0
    total = round(info.duration * rate) if info.duration else None
    if info.kind == "image":
        total = images.count_frames(path)
        second = next(islice(_frames(info), 1, None), None)
        rate = 1 / second.time if second else rate
    if info.hdr:
        log.warning("%s: its HDR is not converted, so the copy's colours are pale", path)

    def marked() -> Iterator[Frame]:
        for done, frame in enumerate(_frames(info), start=1):
            try:
                pixels = embed(frame.pixels, payload, key, moving=True)
            except FacekitError as error:
                raise FacekitError(f"{path}: {error}") from error
            yield Frame(pixels, frame.time, frame.index)
            advance(done, "")

    with progress(f"Marking {path.name}", total) as advance:
        sound = path if info.has_audio else None
        write_video(partial, marked(), rate=rate, audio_from=sound)


def _frames(info: MediaInfo) -> Iterator[Frame]:
    if info.kind == "image":
        yield from images.read_animation(info.path)
        return
    with Video(info.path) as video:
        yield from video
