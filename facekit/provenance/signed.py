"""Small signed statements: one canonical form of JSON, one form of time, Ed25519 keys in files."""

import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from facekit.core.errors import FacekitError

_TIME = "%Y-%m-%dT%H:%M:%SZ"


def canonical(value: Any) -> bytes:
    """The one JSON form that is signed: ASCII, keys sorted, no spaces, no fractions.

    Raises:
        FacekitError: if ``value`` holds a float, or anything else that this form does not know.
    """
    _require_plain(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def parse(line: bytes) -> dict[str, Any]:
    """A JSON object from its canonical form, and from no other.

    Raises:
        FacekitError: if it is anything else, be it only a space or a key too many.
    """
    try:
        value = json.loads(line)
        same = isinstance(value, dict) and canonical(value) == line
    except (ValueError, RecursionError, FacekitError):
        same = False
    if not same:
        raise FacekitError("is not a JSON object in canonical form")
    found: dict[str, Any] = value
    return found


def _require_plain(value: Any) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if type(key) is not str:
                raise FacekitError(f"key {key!r}: only text can be a key of what is signed")
            _require_plain(inner)
    elif isinstance(value, list):
        for inner in value:
            _require_plain(inner)
    elif value is not None and type(value) not in (str, int, bool):
        raise FacekitError(
            f"{value!r}: cannot be signed; allowed: text, whole numbers, yes and no, lists, objects"
        )


def utc(time: datetime | None = None) -> datetime:
    """``time``, by default now, in UTC and whole seconds.

    Raises:
        FacekitError: if ``time`` does not know its time zone.
    """
    if time is None:
        time = datetime.now(UTC)
    if time.tzinfo is None:
        raise FacekitError(f"{time}: has no time zone; give one, e.g. UTC")
    return time.astimezone(UTC).replace(microsecond=0)


def time_text(time: datetime) -> str:
    """ISO 8601, e.g. ``2027-01-31T12:00:00Z``."""
    return utc(time).strftime(_TIME)


def read_time(text: str) -> datetime:
    """A time from that form, and from no other.

    Raises:
        FacekitError: if it is anything else.
    """
    try:
        time = datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except (ValueError, TypeError):
        time = None
    if time is None or time_text(time) != text:
        raise FacekitError(f"{text!r}: no time; write it like 2027-01-31T12:00:00Z")
    return time


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public half of ``key``, 64 hex digits."""
    return key.public_key().public_bytes_raw().hex()


def holds(public_key: str, signature: str, message: bytes) -> bool:
    """Whether ``signature`` (hex) over ``message`` is by the owner of ``public_key`` (hex)."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), message)
    except (ValueError, InvalidSignature):
        return False
    return True


def new_key(path: Path) -> Ed25519PrivateKey:
    """Make a private key, readable by its owner alone.

    Raises:
        FacekitError: if there is a file already, which is kept, or it can't be written.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made as 0600: at no moment could others read it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise FacekitError(
            f"{path}: the private key cannot be kept there ({error.strerror})"
        ) from error
    return key


def load_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        FacekitError: if it is missing, no unencrypted Ed25519 key in PEM, or others can read it.
    """
    try:
        pem = path.read_bytes()
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise FacekitError(f"{path}: the private key cannot be read ({error.strerror})") from error
    if os.name == "posix" and mode & 0o077:
        raise FacekitError(
            f"{path}: others on this machine can read this private key (mode {mode:o}); "
            f"if nobody has, 'chmod 600 {path}'"
        )
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise FacekitError(f"{path}: not an unencrypted Ed25519 private key in PEM")
    return key
