"""A long video made piece by piece, so that work which was broken off goes on where it was.

Finished stretches lie, as they were encoded, in a hidden folder beside the file that is to be
written; at the end they are joined, packet by packet. Each begins with a key frame, as a video does
every 250 frames anyway, so the joined file is the same whether the work was broken off or not.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.media import encode
from facekit.types import Frame

log = logging.getLogger("facekit")

LENGTH = 250
"""Frames of a stretch."""

_KEY, _LOCK = "made-from.json", "lock"


class Stretches:
    """The finished stretches of one video.

    After an error nothing is left of them. They stay if the work was interrupted, or the process
    killed, and only for the very same work: what it is made from is kept with them and compared.

    Example:
        >>> with Stretches(Path("out.mp4"), {"input": digest}, size=(1280, 720)) as stretches:
        ...     frames = work(begin_at=stretches.first)
        ...     export.write_video(Path("out.mp4"), frames, stretches=stretches, kind=kind)

    Attributes:
        first: number of the first frame that no finished stretch holds.
    """

    def __init__(self, path: Path, key: Mapping[str, Any], *, size: tuple[int, int]) -> None:
        """Touch nothing yet.

        Args:
            path: of the video that is to be written.
            key: JSON values: all that its frames depend on.
            size: width and height of its frames.
        """
        self.first = 0
        self._path = path
        self._folder = path.with_name(f".stretches-{path.name}")
        self._key = json.loads(json.dumps({**key, "size": size, "length": LENGTH}))
        self._size = size
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> "Stretches":
        """Make the folder, or find what is finished in it.

        Raises:
            FacekitError: if it cannot be written, or another process is at the same work.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self._folder / _LOCK).open("ab")
            if not files.lock(self._lock):
                self._lock.close()
                raise FacekitError(
                    f"{self._path}: another process is writing it; wait until it is done"
                )
            if self.read(_KEY) != self._key:
                self._empty()
                self.write(_KEY, self._key)
        except OSError as error:
            raise FacekitError(
                f"{self._path}: cannot be written ({error.strerror or error})"
            ) from error
        while self._file(self.first // LENGTH).is_file():
            self.first += LENGTH
        if self.first:
            log.info("%s: goes on after its first %d frames", self._path, self.first)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the folder, unless the work was interrupted."""
        interrupted = kind is not None and not issubclass(kind, Exception)
        if not interrupted:
            self._empty()
            with suppress(OSError):
                (self._folder / _LOCK).unlink()
        if self._lock is not None:
            self._lock.close()
        if not interrupted:
            with suppress(OSError):
                self._folder.rmdir()
        elif self._file(0).is_file():
            log.warning("%s: not finished; give the same command to go on", self._path)

    @classmethod
    @contextmanager
    def kept_if_allowed(cls, path: Path) -> Iterator[None]:
        """While it is seen whether work on ``path`` may be done: if not, what is finished goes.

        Consent may have been revoked since it was made.
        """
        try:
            yield
        except FacekitError:
            left = cls(path, {}, size=(0, 0))
            if left._folder.is_dir():
                with left:  # which empties it: nothing is made from these values
                    pass
            raise

    def read(self, name: str) -> Any:
        """What was kept beside the stretches under ``name``; None if nothing was."""
        with suppress(FacekitError):
            return files.read_json(self._folder / name)
        return None

    def write(self, name: str, value: Any) -> None:
        """Keep JSON values beside the stretches.

        Raises:
            FacekitError: if they cannot be written.
        """
        files.write_text(self._folder / name, json.dumps(value))

    def encode(self, frames: Iterable[Frame], *, rate: float, crf: int) -> None:
        """Make the missing stretches.

        Args:
            frames: from number ``first`` on, to the end.
            rate: see :func:`facekit.media.encode.write_video`.
            crf: as ``rate``.

        Raises:
            FacekitError: if one cannot be written.
        """
        rest = iter(frames)
        number = self.first // LENGTH
        while begun := list(islice(rest, 1)):
            path = self._file(number)
            stretch = chain(begun, islice(rest, LENGTH - 1))
            encode.write_stretch(path, stretch, self._size, rate=rate, crf=crf)
            number += 1

    def join(self, path: Path, *, rate: float, audio_from: Path | None) -> None:
        """Join all stretches; see :func:`facekit.media.encode.join`."""
        stretches = sorted(self._folder.glob("*.nut"))
        encode.join(path, stretches, rate=rate, audio_from=audio_from)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:06d}.nut"

    def _empty(self) -> None:
        self.first = 0
        for path in self._folder.iterdir():
            if path.name != _LOCK:
                path.unlink(missing_ok=True)
