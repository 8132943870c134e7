"""The only exit of generated media: frames → badge → watermark → signed manifest → file.

What was written is checked before it gets its name: the mark is read back and the manifest
verified. If either fails there is no file. Nothing turns any of this off.

The badge, the word "synthetic" in a corner, can be moved. Only stills inside a dataset folder leave
without it, because a detector would learn the badge instead of the forgery; they keep mark and
manifest, and the folder's own manifest labels each of them. Code alone can ask for that: no config
and no option leads there.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Literal, get_args

import cv2
import numpy as np

from facekit import watermark
from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.media import encode, images
from facekit.media.decode import probe
from facekit.provenance import manifest
from facekit.provenance.ledger import Ledger
from facekit.types import JOURNAL, MANIFEST, Frame, Pixels
from facekit.watermark import Kind, Payload, Reading

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
"""Where the badge can stand."""

CORNERS: tuple[Corner, ...] = get_args(Corner)

BADGE = "synthetic"
"""The word in a corner of everything that leaves, but for stills of datasets."""

MIN_VIDEO_SIDE = 128
"""The shortest side of a video, in pixels: smaller ones lose the mark to the codec."""

_KINDS = (Kind.GENERATED, Kind.COMPOSITE, Kind.STUDIO)
_PAYLOAD_SIDE = 256
_CRF, _CRF_SMALL = 18, 10  # small frames keep their mark only if they are compressed little
_AHEAD = 2  # frames that are marked while the encoder is at work


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
    consent: Sequence[str] = (),
    badge: Corner | None = "bottom-left",
) -> Exported:
    """Badge, mark, sign and write a generated picture.

    Args:
        path: to write to: PNG, JPEG or WebP.
        pixels: uint8 RGB (H, W, 3), both sides at least 64. Below 256 pixels a side the mark
            must be there, but may be too weak for its payload; the manifest has it too. Below 128
            many pictures cannot hold it, least of all under the badge, and are refused.
        kind: ``Kind.GENERATED``, ``Kind.COMPOSITE``, or ``Kind.STUDIO`` for a picture of studio
            people that is to be looked at.
        inputs: the files it was made from, for the manifest.
        facts: JSON values for the manifest; ``{"origin": "studio"}`` says that the inputs were
            certified studio media.
        id: of the run or consent record, below 2^48.
        consent: ids of the consent records that it was made under: hashed in the manifest, beside
            the head of their ledger, which gets an entry of this file.
        badge: its corner; None, for none, only of a still in a dataset folder, that is one with a
            ``manifest.jsonl``, or with the journal of one that is being made.

    Raises:
        FacekitError: if the kind, suffix or size is not allowed, an input cannot be read, the badge
            is left out elsewhere, a consent record does not hold, or marking, signing, writing or
            the check of any of these fails; then there is no file.
    """
    _require(path, kind, images.IMAGE_SUFFIXES, inputs)
    if badge is None:
        _require_dataset(path)
    shown = pixels if badge is None else with_badge(pixels, badge)
    payload = Payload(kind, id)

    def write(target: Path) -> None:
        images.write_image(target, watermark.embed(shown, payload))

    return _leave(path, write, payload, inputs, facts, consent)


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
    consent: Sequence[str] = (),
    badge: Corner = "bottom-left",
) -> Exported:
    """Badge, mark, sign and write a generated video.

    Args:
        path: to write to: MP4.
        frames: in order of time, both sides at least ``MIN_VIDEO_SIDE`` pixels; below 256 as for
            :func:`write_image`.
        kind: as for :func:`write_image`.
        rate: frames a second, nominal; times are the frames' own.
        audio_from: a media file whose sound is taken along.
        inputs: the files it was made from, for the manifest.
        facts: JSON values for the manifest; see :func:`write_image`.
        id: of the run or consent record, below 2^48.
        consent: ids of the consent records that it was made under; see :func:`write_image`.
        badge: the badge's corner.

    Raises:
        FacekitError: as for :func:`write_image`, or if there are no frames.
    """
    _require(path, kind, (".mp4",), inputs)
    payload = Payload(kind, id)

    def mark(frame: Frame) -> Frame:
        height, width = frame.pixels.shape[:2]
        if min(height, width) < MIN_VIDEO_SIDE:
            raise FacekitError(
                f"{path}: a video of {width}x{height} is too small to hold its mark: "
                f"both sides must be at least {MIN_VIDEO_SIDE} pixels"
            )
        pixels = watermark.embed(with_badge(frame.pixels, badge), payload, moving=True)
        return Frame(pixels, frame.time, frame.index)

    def write(target: Path) -> None:
        iterator = iter(frames)
        first = list(islice(iterator, 1))
        small = any(min(frame.pixels.shape[:2]) < _PAYLOAD_SIDE for frame in first)
        encode.write_video(
            target,
            _ahead(mark, chain(first, iterator)),
            rate=rate,
            audio_from=audio_from,
            crf=_CRF_SMALL if small else _CRF,
        )

    return _leave(path, write, payload, inputs, facts, consent)


def _ahead(mark: Callable[[Frame], Frame], frames: Iterable[Frame]) -> Iterator[Frame]:
    """The frames marked, in order, by a thread of their own: the encoder need not wait for it."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[Frame]] = deque()
        for frame in frames:
            waiting.append(pool.submit(mark, frame))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def with_badge(pixels: Pixels, corner: Corner) -> Pixels:
    """A copy with the word "synthetic" in a corner, in proportion to the picture.

    Args:
        pixels: uint8 RGB (H, W, 3).
        corner: one of ``CORNERS``.

    Raises:
        FacekitError: for another corner.
    """
    if corner not in CORNERS:
        raise FacekitError(f"no corner '{corner}' for the badge; allowed: {', '.join(CORNERS)}")
    height, width = pixels.shape[:2]
    font = cv2.FONT_HERSHEY_SIMPLEX
    scale = max(min(height, width) / 900, 0.3)
    thickness = max(1, round(1.4 * scale))
    (text_width, text_height), below = cv2.getTextSize(BADGE, font, scale, thickness)
    pad = max(3, round(0.4 * text_height))
    margin = max(2, round(0.01 * height))
    plate_width, plate_height = text_width + 2 * pad, text_height + below + 2 * pad
    left = margin if corner.endswith("left") else max(width - margin - plate_width, 0)
    top = margin if corner.startswith("top") else max(height - margin - plate_height, 0)
    drawn = pixels.copy()
    # A dark plate under white letters can be read on any picture.
    plate = drawn[top : top + plate_height, left : left + plate_width]
    plate[:] = (plate * 0.35).astype(np.uint8)
    place = (left + pad, top + pad + text_height)
    cv2.putText(drawn, BADGE, place, font, scale, (255, 255, 255), thickness, cv2.LINE_AA)
    return drawn


def _require(path: Path, kind: Kind, suffixes: Sequence[str], inputs: Sequence[Path]) -> None:
    if kind not in _KINDS:
        allowed = ", ".join(k.label for k in _KINDS)
        raise FacekitError(f"{path}: kind '{Kind(kind).label}' is not exported; allowed: {allowed}")
    allowed_suffixes = [s for s in suffixes if s in manifest.MEDIA_TYPES]
    if path.suffix.lower() not in allowed_suffixes:
        raise FacekitError(
            f"{path}: cannot be written as '{path.suffix}', which holds no manifest; "
            f"allowed: {', '.join(allowed_suffixes)}"
        )
    if path.is_dir():
        raise FacekitError(f"{path}: is a folder; give the name of a file")
    for source in inputs:  # before a long video is made, not after
        images.require_file(source)


def _require_dataset(path: Path) -> None:
    """Check that ``path`` is in a dataset folder, where its row says what it is."""
    inner = path.absolute().parent
    if not any((f / name).is_file() for f in (inner, inner.parent) for name in (MANIFEST, JOURNAL)):
        raise FacekitError(
            f"{path}: only a still inside a dataset folder, one with a {MANIFEST}, leaves without "
            "its badge; give the badge a corner"
        )


def _leave(
    path: Path,
    write: Callable[[Path], None],
    payload: Payload,
    inputs: Sequence[Path],
    facts: Mapping[str, Any] | None,
    consent: Sequence[str],
) -> Exported:
    """Write the marked media aside, sign it, check the result, and only then give it its name."""
    with _aside(path) as folder:
        # The signed file has its final name already, because the manifest holds it as the title.
        media, signed = folder / f"marked{path.suffix}", folder / path.name
        mark = f"{payload.to_int():016x}"
        if consent:
            # By it a ledger that was put back to an older one is found out.
            facts = {**(facts or {}), "ledger": Ledger().head()}
        try:
            write(media)
            manifest.sign(
                media,
                signed,
                kind=payload.kind.label,
                inputs=inputs,
                facts=facts,
                mark=mark,
                consent=consent,
            )
            exported = _checked(signed, payload)
        except FacekitError as error:
            # The files aside mean nothing to the user: name the one that was asked for.
            said = str(error).replace(str(media), str(path)).replace(str(signed), str(path))
            raise FacekitError(said if str(path) in said else f"{path}: {said}") from error
        if consent:
            # Before the file is there: no file may exist that a revocation would not find.
            _enter(path, files.sha256(signed), consent)
        with files.replacing(path) as partial:
            signed.replace(partial)
    return replace(exported, path=path)


def _enter(path: Path, sha256: str, consent: Sequence[str]) -> None:
    """Enter a file in the consent ledger, if the records still hold: it took a while to make."""
    ledger = Ledger()
    for record in consent:
        status = ledger.status(record)
        if status != "valid":
            raise FacekitError(f"{path}: not written, because the consent {record} is {status}")
    ledger.used(consent, what="file", path=path, sha256=sha256)


def _checked(path: Path, payload: Payload) -> Exported:
    """Read back the mark and the manifest of a signed file; an error if either is not there."""
    reading = watermark.read_file(path)
    info = probe(path)
    small = min(info.width, info.height) < _PAYLOAD_SIDE
    if reading.payload != payload and not (small and reading.present and not reading.payload):
        advice = (
            f"{info.width}x{info.height} pixels are few for so busy a picture: make it larger, at "
            f"best {_PAYLOAD_SIDE} pixels a side or more"
            if small
            else "the picture is too busy, dark or bright to hold it: soften it, or make it larger"
        )
        raise FacekitError(
            f"{path}: not written, because its mark could not be read back "
            f"({reading.sentence()}); {advice}"
        )
    provenance = manifest.verify(path)
    if provenance.status not in ("trusted", "untrusted"):
        raise FacekitError(
            f"{path}: not written, because its manifest does not verify: {provenance.reason}"
        )
    asked = {"kind": payload.kind.label, "mark": f"{payload.to_int():016x}"}
    said = {name: provenance.claims.get(name) for name in asked}
    if said != asked:
        raise FacekitError(f"{path}: not written, because its manifest says {said}, not {asked}")
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
        # The generator's frames are made in here too: what it could not read is to be named.
        named = error.filename
        aside = not isinstance(named, str) or Path(named).is_relative_to(path.parent)
        where = "" if aside else f": {named}"
        raise FacekitError(
            f"{path}: cannot be written ({error.strerror or error}{where})"
        ) from error


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
