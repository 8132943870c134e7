"""The only exit of generated media: frames → badge → watermark → signed manifest → file.

What was written is checked before it gets its name: the mark is read back, the manifest verified,
and the hashes that it gives of the inputs compared with those from before. If any of it fails there
is no file. Nothing turns any of this off.

A process that is killed can leave a finished file that no ledger knows, without its name, in a
hidden folder ``.export-NAME`` beside; the next export to the same folder deletes what was left so.

The badge, the word "synthetic" in a corner, can be moved. Only stills inside a dataset folder leave
without it, because a detector would learn the badge instead of the forgery; they keep mark and
manifest, and the folder's own manifest labels each of them. Code alone can ask for that: no config
and no option leads there.
"""

import math
import os
import stat
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
from facekit.media.stretches import Stretches
from facekit.provenance import manifest
from facekit.provenance.ledger import Ledger
from facekit.types import JOURNAL, MANIFEST, Frame, Pixels
from facekit.watermark import Kind, Payload, Reading
from facekit.watermark.files import PAYLOAD_SIDE

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
"""Where the badge can stand."""

CORNERS: tuple[Corner, ...] = get_args(Corner)

BADGE = "synthetic"
"""The word in a corner of everything that leaves, but for stills of datasets."""

MIN_VIDEO_SIDE = 128
"""The shortest side of a video, in pixels: smaller ones lose the mark to the codec."""

_LOCK = "lock"
_OURS = b"facekit export\n"
"""What a lock of ours holds: by it a folder is told from one that is somebody else's."""

_KINDS = (Kind.GENERATED, Kind.COMPOSITE, Kind.STUDIO)
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
    inputs: Sequence[Path] | Mapping[Path, str] = (),
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
        inputs: the files it was made from, for the manifest; or each with the SHA-256, in hex, of
            what was let pass of it. If one has another when the manifest is signed, there is no
            file.
        facts: JSON values for the manifest; ``{"origin": "studio"}`` says that the inputs were
            certified studio media.
        id: of the run or consent record, below 2^48.
        consent: ids of the consent records that it was made under: hashed in the manifest, beside
            the head of their ledger, which gets an entry of this file.
        badge: its corner; None, for none, only of a still in a dataset folder, that is one with a
            ``manifest.jsonl``, or with the journal of one that is being made.

    Raises:
        FacekitError: if the kind, suffix, size or pixels are not allowed, ``path`` is an input, one
            cannot be read or was changed meanwhile, the badge is left out elsewhere, a consent
            record does not hold, or marking, signing, writing or the check of any of these fails;
            then there is no file.
    """
    digests = _require(path, kind, images.IMAGE_SUFFIXES, inputs)
    _require_pixels(path, pixels)
    if badge is None:
        _require_dataset(path)
    shown = pixels if badge is None else with_badge(pixels, badge)
    payload = Payload(kind, id)

    def write(target: Path) -> None:
        images.write_image(target, watermark.embed(shown, payload))

    return _leave(path, write, payload, digests, facts, consent)


def write_video(
    path: Path,
    frames: Iterable[Frame],
    *,
    kind: Kind,
    rate: float = 25.0,
    audio_from: Path | None = None,
    inputs: Sequence[Path] | Mapping[Path, str] = (),
    facts: Mapping[str, Any] | None = None,
    id: int = 0,
    consent: Sequence[str] = (),
    badge: Corner = "bottom-left",
    stretches: Stretches | None = None,
) -> Exported:
    """Badge, mark, sign and write a generated video.

    Args:
        path: to write to: MP4.
        frames: in order of time, both sides at least ``MIN_VIDEO_SIDE`` pixels; below 256 as for
            :func:`write_image`.
        kind: as for :func:`write_image`.
        rate: frames a second, nominal, above 0; times are the frames' own.
        audio_from: a media file whose sound is taken along.
        inputs: the files it was made from; see :func:`write_image`. They are read to the end before
            the manifest is signed.
        facts: JSON values for the manifest; see :func:`write_image`.
        id: of the run or consent record, below 2^48.
        consent: ids of the consent records that it was made under; see :func:`write_image`.
        badge: the badge's corner.
        stretches: where finished stretches are kept, badged and marked, until all are done;
            ``frames`` are then those from its first missing one on. By default none are kept.

    Raises:
        FacekitError: as for :func:`write_image`, or if there are no frames or ``rate`` is none.
    """
    digests = _require(path, kind, (".mp4",), inputs)
    if not (math.isfinite(rate) and rate > 0):
        raise FacekitError(f"{path}: {rate} frames a second cannot be written; give more than 0")
    payload = Payload(kind, id)

    def mark(frame: Frame) -> Frame:
        _require_pixels(path, frame.pixels)
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
        small = any(min(frame.pixels.shape[:2]) < PAYLOAD_SIDE for frame in first)
        crf = _CRF_SMALL if small else _CRF
        marked = _ahead(mark, chain(first, iterator))
        if stretches is None:
            encode.write_video(target, marked, rate=rate, audio_from=audio_from, crf=crf)
        else:
            stretches.encode(marked, rate=rate, crf=crf)
            stretches.join(target, rate=rate, audio_from=audio_from)

    return _leave(path, write, payload, digests, facts, consent)


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


def _require(
    path: Path,
    kind: Kind,
    suffixes: Sequence[str],
    inputs: Sequence[Path] | Mapping[Path, str],
) -> dict[Path, str]:
    """Check what can be checked before the frames are made; the inputs with their hashes."""
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
    require_apart(path, inputs)
    if isinstance(inputs, Mapping):
        return dict(inputs)
    try:
        return {source: files.sha256(source) for source in inputs}
    except OSError as error:
        raise FacekitError(f"{path}: an input cannot be read ({error})") from error


def require_apart(path: Path, inputs: Iterable[Path]) -> None:
    """Check that ``path`` is none of the files that it is to be made from.

    Raises:
        FacekitError: if it is: what is generated never takes the place of an original.
    """
    for source in inputs:
        if path.exists() and path.samefile(source):
            raise FacekitError(
                f"{path}: is what it is made from, which stays as it is; give another name"
            )


def _require_pixels(path: Path, pixels: Pixels) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise FacekitError(
            f"{path}: cannot be made of {pixels.dtype} pixels of shape {pixels.shape}; give uint8 "
            "RGB, (height, width, 3)"
        )


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
    inputs: Mapping[Path, str],
    facts: Mapping[str, Any] | None,
    consent: Sequence[str],
) -> Exported:
    """Write the marked media aside, sign it, check the result, and only then give it its name."""
    with _aside(path) as folder:
        # The signed file has its final name already, because the manifest holds it as the title;
        # the marked one a longer name, which can be neither that nor the lock's.
        media, signed = folder / f"marked-{path.name}", folder / path.name
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
                inputs=list(inputs),
                facts=facts,
                mark=mark,
                consent=consent,
            )
            exported = _checked(signed, payload)
            _require_unchanged(path, inputs, exported.provenance)
        except FacekitError as error:
            # The files aside mean nothing to the user: name the one that was asked for.
            said = str(error).replace(str(media), str(path)).replace(str(signed), str(path))
            raise FacekitError(said if str(path) in said else f"{path}: {said}") from error
        if consent:
            # Before the file has its name: none may have one that a revocation would not find.
            _enter(path, files.sha256(signed), consent)
        with files.replacing(path) as partial:
            signed.replace(partial)
    return replace(exported, path=path)


def _enter(path: Path, sha256: str, consent: Sequence[str]) -> None:
    """Enter a file in the consent ledger, if the records still hold: it took a while to make."""
    try:
        Ledger().used(consent, what="file", path=path, sha256=sha256, valid=True)
    except FacekitError as error:
        raise FacekitError(f"{path}: not written, because {error}") from error


def _require_unchanged(
    path: Path, inputs: Mapping[Path, str], provenance: manifest.Provenance
) -> None:
    """See that the manifest, signed after the inputs were read, names what was let pass.

    Raises:
        FacekitError: with the first input that it names by another hash.
    """
    if not inputs:
        return
    signed = {one["sha256"] for one in provenance.claims["inputs"]}
    for source, digest in inputs.items():
        if digest not in signed:
            raise FacekitError(
                f"{path}: not written, because {source} was changed while it was used; let it be, "
                "and begin again"
            )


def _checked(path: Path, payload: Payload) -> Exported:
    """Read back the mark and the manifest of a signed file; an error if either is not there."""
    reading = watermark.read_file(path)
    info = probe(path)
    small = min(info.width, info.height) < PAYLOAD_SIDE
    if reading.payload != payload and not (small and reading.present and not reading.payload):
        advice = (
            f"{info.width}x{info.height} pixels are few for so busy a picture: make it larger, at "
            f"best {PAYLOAD_SIDE} pixels a side or more"
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

    What killed exports left in theirs, be it half a file or a finished one, goes as well, if it was
    to the same folder.
    """
    folder = path.with_name(f".export-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        lock = _lock(folder, path)
        try:
            _empty(folder)
            yield folder
        finally:
            _remove(folder, lock)
    except OSError as error:
        # The generator's frames are made in here too: what it could not read is to be named.
        named = error.filename
        aside = not isinstance(named, str) or Path(named).is_relative_to(path.parent)
        where = "" if aside else f": {named}"
        raise FacekitError(
            f"{path}: cannot be written ({error.strerror or error}{where})"
        ) from error


def _lock(folder: Path, path: Path) -> IO[bytes]:
    """Make ``folder`` and lock it; the system lets go when this process ends, however it does.

    Raises:
        FacekitError: if another process, or another thread, is writing ``path``; or if the folder
            is a link or not facekit's: then it stays as it is.
    """
    file = folder / _LOCK
    foreign = FacekitError(
        f"{folder}: is in the way of {path}, and is not facekit's own folder; rename or remove it, "
        "or give another name to write to"
    )
    while True:
        with suppress(FileExistsError):
            folder.mkdir()
        try:
            if not stat.S_ISDIR(folder.lstat().st_mode) or file.is_symlink():
                raise foreign
            # Asked before and after: another process may make or remove its folder just now.
            locked = file.exists()
            if not (_is_bare(folder) or locked or file.exists()):
                raise foreign
            lock = file.open("ab+", buffering=0)
        except FileNotFoundError:  # another process has just removed the folder
            continue
        if not files.lock(lock):
            lock.close()
            raise FacekitError(f"{path}: another process is writing it; wait until it is done")
        if not _is_same(lock, file):  # it did so between the opening and the locking
            lock.close()
            continue
        if not _is_ours(lock):
            if lock.tell() or not _is_bare(folder):
                lock.close()
                raise foreign
            try:
                lock.write(_OURS)
            except OSError:
                _remove(folder, lock)
                raise
        return lock


def _is_same(lock: IO[bytes], file: Path) -> bool:
    """Whether the open file still has its name."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), file.stat())
    except FileNotFoundError:
        return False


def _is_bare(folder: Path) -> bool:
    return all(inside.name == _LOCK for inside in folder.iterdir())


def _is_ours(lock: IO[bytes]) -> bool:
    lock.seek(0)
    return lock.read(len(_OURS) + 1) == _OURS


def _sweep(parent: Path) -> None:
    """Remove what killed exports left in a folder; what is not surely that, stays."""
    with os.scandir(parent) as entries:
        left = [
            Path(entry)
            for entry in entries
            if entry.name.startswith(".export-") and entry.is_dir(follow_symlinks=False)
        ]
    for folder in left:
        file = folder / _LOCK
        # Not this export's trouble if it cannot be had: it may be gone by now, or another user's.
        with suppress(OSError):
            if file.is_symlink():
                continue
            with file.open("rb+", buffering=0) as lock:
                if _is_ours(lock) and files.lock(lock, surely=True) and _is_same(lock, file):
                    _remove(folder, lock)


def _remove(folder: Path, lock: IO[bytes]) -> None:
    """Remove a folder that is locked."""
    _empty(folder)
    with suppress(OSError):
        # While it is still held: who opens it later sees that it is gone.
        (folder / _LOCK).unlink()
    lock.close()
    with suppress(OSError):
        # Not empty if another process has begun; then it is that one's to remove.
        folder.rmdir()


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != _LOCK:
            path.unlink()
