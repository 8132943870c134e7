"""A chain of signed lines: a file that can only grow, in which every other change is found.

Each line of ``NAME.jsonl`` is a JSON object in canonical form: its number, time, kind and body, the
SHA-256 of the line before it, and an Ed25519 signature over all that. The first, of the kind
"open", names the chain, its ledger and the signer's public key. ``NAME.head``, signed too, says how
many lines there are and what the last one's hash is.
"""

import errno
import hashlib
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.provenance.signed import canonical, holds, parse, public_hex, read_time, time_text

_LINE = b"facekit ledger line 1\n"
_HEAD = b"facekit ledger head 1\n"
_OPEN = "open"
_START = "0" * 64
_LONG = 1 << 16  # bytes


class Tampered(FacekitError):
    """A ledger is not what was written: changed, cut, re-ordered, replayed, or torn by a kill."""


@dataclass(frozen=True)
class Entry:
    """One line that has been checked.

    Attributes:
        number: from 0.
        time: by the clock of whoever wrote it, UTC.
        kind: what it is, e.g. "grant".
        body: JSON values.
        hash: SHA-256 of the line without its line break, in hex.
    """

    number: int
    time: datetime
    kind: str
    body: dict[str, Any]
    hash: str


class Chain:
    """One chain; the caller holds a lock while it reads or appends."""

    def __init__(self, folder: Path, name: str) -> None:
        """Name a chain; nothing is read."""
        self.name = name
        self.path = folder / f"{name}.jsonl"
        self.head_path = folder / f"{name}.head"
        self._seen = b""
        self._entries: list[Entry] = []
        self._last: Entry | None = None
        self._stamps: object = None

    def changed(self) -> bool:
        """Whether the files are others than those last read, by size, time and inode."""
        return self._stamps is None or self._stamps != self._stamp()

    def open(self, key: Ed25519PrivateKey, ledger: str, now: datetime) -> None:
        """Write the first line into a new file."""
        body = {"chain": self.name, "ledger": ledger, "public_key": public_hex(key)}
        line, entry = _signed(key, 0, now, _OPEN, body, _START)
        self.path.write_bytes(line)
        self.head_path.write_bytes(self._head(key, entry, len(line)))

    def read(self, public_key: str | None) -> list[Entry]:
        """All lines, checked; of those checked before, only that they are still there.

        Args:
            public_key: who must have signed, in hex; None for whom the first line names.

        Raises:
            Tampered: with the first thing that is wrong, and where.
        """
        if self._read(public_key):
            raise Tampered(
                f"{self.path}, line {len(self._entries) + 1}: torn, because a kill or a full disk "
                "cut its writing off; it never took effect. Set it aside with 'facekit consent "
                "verify --mend', then repeat what it was to say"
            )
        return self._entries

    def last(self, public_key: str) -> Entry:
        """The newest line that is whole; takes the same time however long the chain is.

        It is the one that the signed head names; what stands before it is not checked.

        Raises:
            Tampered: if it is not there, or anything is wrong that this shows.
        """
        if self._last is None or self.changed():
            self._last = None
            stamps = self._stamp()
            _, digest, size = self._read_head(public_key)
            line = _line_before(self.path, size)
            if line is not None and hashlib.sha256(line).hexdigest() == digest:
                self._last, self._stamps = _entry(line, parse(line)), stamps
            else:
                # Killed between the line and the head, or tampered with: look at all of it.
                self._read(public_key)
                self._last = self._entries[-1]
        return self._last

    def append(
        self, key: Ed25519PrivateKey, kind: str, body: dict[str, Any], now: datetime
    ) -> Entry:
        """Add a line: wholly, on disk, and counted by the head; or not at all.

        Takes the same time however long the chain is; what stands in it is not checked.

        Raises:
            Tampered: if the chain is not as long as its head says.
            FacekitError: if it can't be written.
        """
        count, last, size = self._read_head(public_hex(key))
        if not self.path.is_file() or self.path.stat().st_size != size:
            # Killed between the line and the head, or tampered with: look at all of it.
            entries = self.read(public_hex(key))
            count, last, size = len(entries), entries[-1].hash, len(self._seen)
        line, entry = _signed(key, count, now, kind, body, last)
        # The head is written first but renamed last: a full disk is met before the line stands.
        with files.replacing(self.head_path) as partial:
            with partial.open("wb") as file:
                file.write(self._head(key, entry, size + len(line)))
                file.flush()
                os.fsync(file.fileno())
            self._add(line, size)
        return entry

    def mend(self, public_key: str) -> Path | None:
        """Move a torn last line to a file beside; its path, or None if none is torn.

        Raises:
            Tampered: if more is wrong than that.
        """
        torn = self._read(public_key)
        if not torn:
            return None
        aside = self.path.with_name(f"{self.path.name}.torn-{len(self._seen)}")
        files.write_bytes(aside, torn)
        os.truncate(self.path, len(self._seen))
        return aside

    def _forget(self) -> None:
        self._seen, self._entries = b"", []
        self._last = self._stamps = None

    def _stamp(self) -> object:
        try:
            found = [path.stat() for path in (self.path, self.head_path)]
        except OSError:
            return None
        return [(stat.st_size, stat.st_mtime_ns, stat.st_ino) for stat in found]

    def _read(self, public_key: str | None) -> bytes:
        """Check what is new, and the head; what follows the last whole line is returned."""
        stamps = self._stamp()
        content = _bytes(self.path)
        known = content.startswith(self._seen)
        entries, seen = (self._entries, len(self._seen)) if known else ([], 0)
        self._forget()  # until all of it has been checked
        *lines, torn = content[seen:].split(b"\n")
        for line in lines:
            entries.append(self._checked(line, entries, public_key))
        if not entries:
            raise Tampered(f"{self.path}: has no lines; they were taken away")
        count, last, size = self._read_head(public_key or _signer(entries))
        whole = len(content) - len(torn)
        if count > len(entries) or size > whole:
            raise Tampered(
                f"{self.path}: cut off after line {len(entries)}, its head counts {count}: lines "
                "were taken away at the end; put the file back from a copy"
            )
        if entries[count - 1].hash != last:
            raise Tampered(
                f"{self.path}, line {count}: is not the one that {self.head_path.name} was signed "
                "for; one of the two was replaced"
            )
        self._entries, self._seen = entries, content[:whole]
        self._last = entries[-1]
        self._stamps = None if torn else stamps
        return torn

    def _checked(self, line: bytes, before: list[Entry], public_key: str | None) -> Entry:
        """A line as an entry, if it is one and follows from those before it."""
        number = len(before)
        where = f"{self.path}, line {number + 1}"
        try:
            values = parse(line)
            signature = values.pop("signature")
            entry = _entry(line, values)
            signer = public_key or _signer(before or [entry])
            genuine = holds(signer, signature, _LINE + canonical(values))
        except (FacekitError, KeyError, TypeError, AttributeError) as error:
            raise Tampered(f"{where}: was changed; it is no line as facekit writes it") from error
        if not genuine:
            raise Tampered(
                f"{where}: its signature is wrong: it was changed, or is of another ledger"
            )
        if entry.number != number:
            raise Tampered(
                f"{where}: says that it is line {entry.number + 1}: "
                + (
                    "lines were moved, or one stands there twice (replay)"
                    if entry.number < number
                    else "lines before it were taken out or moved"
                )
            )
        if values.get("previous") != (before[-1].hash if number else _START):
            raise Tampered(f"{where}: does not follow from the line before; it is of another copy")
        if (entry.kind == _OPEN) is (number > 0) or (
            number == 0 and entry.body.get("chain") != self.name
        ):
            raise Tampered(f"{where}: is the beginning of another chain")
        return entry

    def _read_head(self, public_key: str) -> tuple[int, str, int]:
        """How many lines, the last one's hash, and the size of the file in bytes."""
        content = _bytes(self.head_path)
        try:
            values = parse(content.removesuffix(b"\n"))
            signature = values.pop("signature")
            count, last, size = values["count"], values["hash"], values["size"]
            genuine = holds(public_key, signature, _HEAD + canonical(values)) and (
                content.endswith(b"\n") and values["chain"] == self.name and count >= 1
            )
        except (FacekitError, KeyError, TypeError, AttributeError):
            genuine = False
        if not genuine:
            raise Tampered(f"{self.head_path}: was changed; its signature does not hold")
        return count, last, size

    def _head(self, key: Ed25519PrivateKey, entry: Entry, size: int) -> bytes:
        values = {
            "chain": self.name,
            "count": entry.number + 1,
            "hash": entry.hash,
            "size": size,
        }
        signature = key.sign(_HEAD + canonical(values)).hex()
        return canonical({**values, "signature": signature}) + b"\n"

    def _add(self, line: bytes, size: int) -> None:
        """Append ``line`` to the file of ``size`` bytes, or leave it as it was."""
        try:
            with self.path.open("r+b", buffering=0) as file:
                file.seek(size)
                try:
                    if file.write(line) != len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except BaseException:
                    file.truncate(size)
                    raise
        except OSError as error:
            raise FacekitError(
                f"{self.path}: cannot be written ({error.strerror}); nothing was entered"
            ) from error


def _signed(
    key: Ed25519PrivateKey,
    number: int,
    time: datetime,
    kind: str,
    body: dict[str, Any],
    previous: str,
) -> tuple[bytes, Entry]:
    """A new line with its line break, and what it is when read."""
    values = {
        "number": number,
        "time": time_text(time),
        "kind": kind,
        "body": body,
        "previous": previous,
    }
    signature = key.sign(_LINE + canonical(values)).hex()
    line = canonical({**values, "signature": signature})
    return line + b"\n", Entry(number, time, kind, body, hashlib.sha256(line).hexdigest())


def _entry(line: bytes, values: dict[str, Any]) -> Entry:
    return Entry(
        number=values["number"],
        time=read_time(values["time"]),
        kind=values["kind"],
        body=values["body"],
        hash=hashlib.sha256(line).hexdigest(),
    )


def _signer(entries: list[Entry]) -> str:
    """The key that the first line names."""
    return str(entries[0].body["public_key"])


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise Tampered(f"{path}: is missing; it was taken away") from None
    except OSError as error:
        raise FacekitError(f"{path}: not readable ({error.strerror})") from error


def _line_before(path: Path, size: int) -> bytes | None:
    """The line that ends a file of ``size`` bytes; None if there is none, or the size is other."""
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) != size:
                return None
            # Longer lines than this are found by reading all.
            file.seek(max(0, size - _LONG))
            before, _, line = file.read().removesuffix(b"\n").rpartition(b"\n")
    except FileNotFoundError:
        raise Tampered(f"{path}: is missing; it was taken away") from None
    except OSError as error:
        raise FacekitError(f"{path}: not readable ({error.strerror})") from error
    return line if before or size <= _LONG else None
