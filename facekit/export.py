"""The only exit of generated media: frames → badge → watermark → signed manifest → file.

What was written is checked before it gets its name: the mark is read back and the manifest
verified. If either fails there is no file. Nothing turns any of this off.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from facekit import watermark
from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.media import encode, images
from facekit.media.decode import probe
from facekit.provenance import manifest
from facekit.types import Frame, Pixels
from facekit.watermark import Kind, Payload, Reading

BADGE = "synthetic"
"""The word in the bottom left corner of every video."""

MIN_VIDEO_SIDE = 128
"""The shortest side of a video, in pixels: smaller ones lose the mark to the codec."""

_KINDS = (Kind.GENERATED, Kind.COMPOSITE)
_PAYLOAD_SIDE = 256


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: of the file.
        reading: the mark, as read back from it.
        provenance: the manifest, as verified in it.
    """

    path: Path
    reading: Reading
    provenance: manifest.Provenance


def write_image(
    path: Path,
    pixels: Pixels,
    *,
    kind: Kind,
    inputs: Sequence[Path] = (),
    facts: Mapping[str, Any] | None = None,
    id: int = 0,
) -> Exported:
    """Mark, sign and write a generated picture.

    Args:
        path: to write to: PNG, JPEG or WebP.
        pixels: uint8 RGB (H, W, 3), both sides at least 64. Below 256 pixels a side the mark
            must be there, but may be too weak for its payload; the manifest has it too.
        kind: ``Kind.GENERATED`` or ``Kind.COMPOSITE``.
        inputs: the files it was made from, for the manifest.
        facts: JSON values for the manifest; ``{"origin": "studio"}`` says that the inputs were
            certified studio media.
        id: of the run or consent record, below 2^48.

    Raises:
        FacekitError: if the kind, suffix or size is not allowed, or marking, signing, writing or
            the check of any of these fails; then there is no file.
    """
    _require(path, kind, images.IMAGE_SUFFIXES)
    payload = Payload(kind, id)
    marked = watermark.embed(pixels, payload)
    return _leave(path, lambda target: images.write_image(target, marked), payload, inputs, facts)


def write_video(
    path: Path,
    frames: Iterable[Frame],
    *,
    kind: Kind,
    rate: float = 25.0,
    audio_from: Path | None = None,
    inputs: Sequence[Path] = (),
    facts: Mapping[str, Any] | None = None,
    id: int = 0,
) -> Exported:
    """Badge, mark, sign and write a generated video.

    Args:
        path: to write to: MP4.
        frames: in order of time, both sides at least ``MIN_VIDEO_SIDE`` pixels; below 256 as for
            :func:`write_image`.
        kind: ``Kind.GENERATED`` or ``Kind.COMPOSITE``.
        rate: frames a second, nominal; times are the frames' own.
        audio_from: a media file whose sound is taken along.
        inputs: the files it was made from, for the manifest.
        facts: JSON values for the manifest; see :func:`write_image`.
        id: of the run or consent record, below 2^48.

    Raises:
        FacekitError: as for :func:`write_image`, or if there are no frames.
    """
    _require(path, kind, (".mp4",))
    payload = Payload(kind, id)

    def marked() -> Iterator[Frame]:
        for frame in frames:
            height, width = frame.pixels.shape[:2]
            if min(height, width) < MIN_VIDEO_SIDE:
                raise FacekitError(
                    f"{path}: a video of {width}x{height} is too small to hold its mark: "
                    f"both sides must be at least {MIN_VIDEO_SIDE} pixels"
                )
            pixels = watermark.embed(badge(frame.pixels), payload)
            yield Frame(pixels, frame.time, frame.index)

    def write(target: Path) -> None:
        encode.write_video(target, marked(), rate=rate, audio_from=audio_from)

    return _leave(path, write, payload, inputs, facts)


def badge(pixels: Pixels) -> Pixels:
    """A copy with the word "synthetic" in the bottom left corner, in proportion to the frame.

    Args:
        pixels: uint8 RGB (H, W, 3).
    """
    height, width = pixels.shape[:2]
    font = cv2.FONT_HERSHEY_SIMPLEX
    scale = max(min(height, width) / 900, 0.3)
    thickness = max(1, round(1.4 * scale))
    (text_width, text_height), below = cv2.getTextSize(BADGE, font, scale, thickness)
    pad = max(3, round(0.4 * text_height))
    margin = max(2, round(0.01 * height))
    left, bottom = margin, height - margin
    right, top = left + text_width + 2 * pad, bottom - text_height - below - 2 * pad
    marked = pixels.copy()
    # A dark plate under white letters can be read on any picture.
    plate = marked[max(top, 0) : bottom, left : min(right, width)]
    plate[:] = (plate * 0.35).astype(np.uint8)
    place = (left + pad, bottom - pad - below)
    cv2.putText(marked, BADGE, place, font, scale, (255, 255, 255), thickness, cv2.LINE_AA)
    return marked


def _require(path: Path, kind: Kind, suffixes: Sequence[str]) -> None:
    if kind not in _KINDS:
        allowed = ", ".join(k.label for k in _KINDS)
        raise FacekitError(f"{path}: kind '{Kind(kind).label}' is not exported; allowed: {allowed}")
    allowed_suffixes = [s for s in suffixes if s in manifest.MEDIA_TYPES]
    if path.suffix.lower() not in allowed_suffixes:
        raise FacekitError(
            f"{path}: cannot be written as '{path.suffix}', which holds no manifest; "
            f"allowed: {', '.join(allowed_suffixes)}"
        )


def _leave(
    path: Path,
    write: Callable[[Path], None],
    payload: Payload,
    inputs: Sequence[Path],
    facts: Mapping[str, Any] | None,
) -> Exported:
    """Write the marked media aside, sign it, check the result, and only then give it its name."""
    with _aside(path) as folder:
        # The signed file has its final name already, because the manifest holds it as the title.
        media, signed = folder / f"marked{path.suffix}", folder / path.name
        mark = f"{payload.to_int():016x}"
        try:
            write(media)
            manifest.sign(
                media, signed, kind=payload.kind.label, inputs=inputs, facts=facts, mark=mark
            )
            exported = _checked(signed, payload)
        except FacekitError as error:
            # The files aside mean nothing to the user: name the one that was asked for.
            said = str(error).replace(str(media), str(path)).replace(str(signed), str(path))
            raise FacekitError(said) from error
        with files.replacing(path) as partial:
            signed.replace(partial)
    return replace(exported, path=path)


def _checked(path: Path, payload: Payload) -> Exported:
    """Read back the mark and the manifest of a signed file; an error if either is not there."""
    reading = watermark.read_file(path)
    info = probe(path)
    small = min(info.width, info.height) < _PAYLOAD_SIDE
    if reading.payload != payload and not (small and reading.present and not reading.payload):
        raise FacekitError(
            f"{path}: not written, because its mark could not be read back "
            f"({reading.sentence()}); the picture is too busy, dark or small to hold it"
        )
    provenance = manifest.verify(path)
    if provenance.status not in ("trusted", "untrusted"):
        raise FacekitError(
            f"{path}: not written, because its manifest does not verify: {provenance.reason}"
        )
    return Exported(path, reading, provenance)


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A hidden folder on the same disk, ``path``'s own, that is empty first and gone afterwards.

    What a killed export left in it, marked but not signed, goes with the next one to ``path``.
    """
    folder = path.with_name(f".export-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder / "lock", path)
        try:
            _empty(folder)
            yield folder
        finally:
            _empty(folder)
            with suppress(OSError):
                # While it is still held: who opens it later sees that it is gone.
                (folder / "lock").unlink()
            lock.close()
            with suppress(OSError):
                # Not empty if another process has begun; then it is that one's to remove.
                folder.rmdir()
    except OSError as error:
        raise FacekitError(f"{path}: cannot be written ({error.strerror or error})") from error


def _lock(file: Path, path: Path) -> IO[str]:
    """Make and lock ``file``; the system lets go of it when this process ends, however it does.

    Raises:
        FacekitError: if another process, or another thread, is writing ``path``.
    """
    while True:
        file.parent.mkdir(exist_ok=True)
        try:
            lock = file.open("a")
        except FileNotFoundError:  # another process has just removed the folder
            continue
        if not _take(lock):
            lock.close()
            raise FacekitError(f"{path}: another process is writing it; wait until it is done")
        try:
            if os.path.samestat(os.fstat(lock.fileno()), file.stat()):
                return lock
        except FileNotFoundError:  # it did so between the opening and the locking
            pass
        lock.close()


def _take(lock: IO[str]) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network disk may have no locks; one process alone needs none
        pass
    return True


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != "lock":
            path.unlink()
