"""Signed provenance manifests (C2PA), made and verified without a network.

A manifest lies inside its file and says, signed: what the file is (``digitalSourceType``), what was
done (actions), what it was made from (ingredients, by name and hash), which watermark is in its
pixels (soft binding) and under whose consent it was made (hashes of the records' ids). See
docs/provenance.md; who signs, and who is trusted: :mod:`facekit.provenance.keys`.

Specification: https://spec.c2pa.org, version 2.
"""

import hashlib
import io
import json
import mimetypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import c2pa

from facekit import __version__
from facekit.core import files
from facekit.core.errors import FacekitError, did_you_mean
from facekit.provenance import keys
from facekit.provenance.claims import BINDING, FACTS, Provenance, digest_name, judge
from facekit.provenance.keys import config_folder

__all__ = ["MEDIA_TYPES", "Provenance", "config_folder", "consent_hash", "sign", "verify"]

MEDIA_TYPES = {
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".webp": "image/webp",
}
"""What can be signed, by suffix."""

LARGEST = 256 << 10
"""Bytes that the inputs' own manifests may add; if they add more, inputs are named by hash alone.

facekit's own take about 5 KB each; those of cameras and editors hold thumbnails.
"""

_IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_SOURCE_TYPES = {
    "generated": _IPTC + "trainedAlgorithmicMedia",
    "composite": _IPTC + "compositeWithTrainedAlgorithmicMedia",
    # Drawn by a program from numbers, with nothing learnt from samples.
    "studio": _IPTC + "algorithmicMedia",
}


@dataclass(frozen=True)
class _Ingredient:
    path: Path
    label: str
    relationship: str
    sha256: str


def sign(
    path_in: Path,
    path_out: Path,
    *,
    kind: str | None,
    inputs: Sequence[Path] = (),
    facts: Mapping[str, Any] | None = None,
    mark: str | None = None,
    consent: Sequence[str] = (),
    timestamp: str | None = None,
) -> None:
    """Write a copy of a PNG, JPEG, WebP or MP4 file with a signed manifest inside.

    Args:
        path_in: the finished media.
        path_out: another path, of the same suffix.
        kind: "generated", "composite" or "studio": the manifest says that facekit made it, and
            how (``digitalSourceType``). None: it was made elsewhere; the manifest says no more
            than that it was opened as it is, and published. Its own manifest, if it has one, is
            kept inside the new one, so what that says of its making is not lost.
        inputs: the files it was made from, named as ingredients with their hashes, not copied:
            parts of a composite (``componentOf``), else what the generator was given
            (``inputTo``). Their own manifests are carried along unless they are large.
        facts: JSON values about the making, kept as the assertion ``org.facekit.facts``.
        mark: the payload of the watermark in the pixels, 16 hex digits, kept as a soft binding:
            by it a stripped manifest can be found again.
        consent: ids of the consent records it was made under; only their SHA-256 is written.
        timestamp: the URL of a timestamp authority (RFC 3161), which is asked; None asks nobody.

    Raises:
        FacekitError: if the kind or suffix is not allowed, the signer's certificate is not valid
            now, an input cannot be read, the timestamp authority does not answer, or signing or
            writing fails. Then there is no new file.
    """
    if kind is not None and kind not in _SOURCE_TYPES:
        raise FacekitError(f"cannot sign kind '{kind}'; {did_you_mean(kind, _SOURCE_TYPES)}")
    if kind is None and inputs:
        raise FacekitError(f"{path_out}: only what facekit makes has inputs; give its kind")
    if kind is None and verify(path_in).status == "tampered":
        raise FacekitError(
            f"{path_in}: its manifest does not match it, and signing would hide that; sign the "
            "file as it was, or a copy without a manifest"
        )
    media_type = _media_type(path_out)
    _require_other(path_in, path_out, media_type)
    _require_url(timestamp)
    signer = keys.signer()
    ingredients = list(_ingredients(kind, inputs or ([path_in] if kind is None else ())))
    definition = _definition(path_out.name, media_type, kind, ingredients, facts, mark, consent)
    try:
        with _native(path_out, timestamp), files.replacing(path_out) as partial:
            size = path_in.stat().st_size
            for carried in (True, False):
                builder = _builder(definition, ingredients, carried=carried)
                with path_in.open("rb") as source, partial.open("w+b") as target:
                    _write(builder, signer.native(timestamp), media_type, source, target)
                # The manifest of a file that is signed again is what says how it was made.
                if kind is None or partial.stat().st_size - size <= LARGEST:
                    break
    except OSError as error:
        raise FacekitError(f"{path_out}: cannot be signed ({error.strerror or error})") from error


def verify(path: Path) -> Provenance:
    """Read and check a file's manifest; nothing is fetched from a network.

    The format is told by the content, not by the suffix.

    Raises:
        FacekitError: if the file cannot be read, or is damaged and holds no manifest. A damaged
            manifest is not an error but "tampered"; a format that cannot hold one is "absent".
    """
    try:
        with path.open("rb") as source:
            if not source.read(1):
                raise FacekitError(f"{path}: empty file")
            source.seek(0)
            return _read(path, source)
    except OSError as error:
        raise FacekitError(f"{path}: not readable ({error.strerror or error})") from error


def consent_hash(id: str) -> str:
    """How a manifest names a consent record: the SHA-256 of its id, in hex."""
    return hashlib.sha256(id.encode()).hexdigest()


def _read(path: Path, source: IO[bytes]) -> Provenance:
    media_type = MEDIA_TYPES.get(path.suffix.lower())
    try:
        with c2pa.Reader(media_type, source, context=_reading_context()) as reader:
            return judge(json.loads(reader.json()), json.loads(reader.crjson()))
    except c2pa.C2paError.ManifestNotFound:
        return Provenance("absent", "the file carries no C2PA manifest")
    except c2pa.C2paError.NotSupported:
        return Provenance("absent", "this format carries no C2PA manifest")
    except c2pa.C2paError as error:
        said = _one_line(error)
        if said.startswith("Remote:"):
            reason = f"the file names a manifest elsewhere, which is not fetched ({said})"
            return Provenance("absent", reason)
        if _holds_manifest(source):
            reason = f"the file is damaged, and its manifest cannot be read ({said})"
            return Provenance("tampered", reason)
        raise FacekitError(
            f"{path}: damaged, or no {path.suffix or 'media'} file ({said})"
        ) from error


def _holds_manifest(source: IO[bytes]) -> bool:
    """Whether there are traces of a manifest: its boxes are JUMBF, and named "c2pa"."""
    source.seek(0)
    tail, traces = b"", set()
    while block := source.read(1 << 20):
        traces |= {trace for trace in (b"jumb", b"c2pa") if trace in tail + block}
        tail = block[-3:]
    return len(traces) == 2


def _reading_context() -> Any:
    trusted = keys.trusted()
    if not trusted:
        return c2pa.Context.from_dict(keys.SETTINGS)
    trust = {**keys.SETTINGS["trust"], "trust_anchors": keys.pem(trusted)}
    return c2pa.Context.from_dict({**keys.SETTINGS, "trust": trust})


def _ingredients(kind: str | None, paths: Sequence[Path]) -> Iterator[_Ingredient]:
    relationship = {None: "parentOf", "composite": "componentOf"}.get(kind, "inputTo")
    for number, path in enumerate(dict.fromkeys(paths), start=1):
        try:
            yield _Ingredient(path, f"input-{number}", relationship, files.sha256(path))
        except OSError as error:
            raise FacekitError(f"{path}: not readable ({error.strerror or error})") from error


def _definition(
    title: str,
    media_type: str,
    kind: str | None,
    ingredients: Sequence[_Ingredient],
    facts: Mapping[str, Any] | None,
    mark: str | None,
    consent: Sequence[str],
) -> dict[str, Any]:
    """The manifest as c2pa's builder takes it, but for the ingredients themselves."""
    hashed = [consent_hash(id) for id in consent]
    own = {"facts": dict(facts or {}), "consent": hashed} | ({"kind": kind} if kind else {})
    assertions = [
        {"label": "c2pa.actions.v2", "data": {"actions": _actions(kind, ingredients, mark)}},
        {"label": FACTS, "data": own},
    ]
    if mark is not None:
        binding = {"alg": _algorithm(mark), "blocks": [{"scope": {}, "value": mark}]}
        assertions.append({"label": "c2pa.soft-binding", "data": binding})
    return {
        "claim_generator_info": [{"name": "facekit", "version": __version__}],
        "title": title,
        "format": media_type,
        "assertions": assertions,
    }


def _actions(
    kind: str | None, ingredients: Sequence[_Ingredient], mark: str | None
) -> list[dict[str, Any]]:
    """What was done, in order; each action names the ingredients it was done with."""
    given = {"parameters": {"ingredientIds": [i.label for i in ingredients]}} if ingredients else {}
    if kind is None:
        return [{"action": "c2pa.opened", **given}, {"action": "c2pa.published"}]
    agent = {"softwareAgent": {"name": "facekit", "version": __version__}}
    source = {"digitalSourceType": _SOURCE_TYPES[kind]}
    created = {"action": "c2pa.created", **source, **agent}
    actions = [created]
    if kind == "composite" and ingredients:
        actions.append({"action": "c2pa.placed", **given})
        actions.append({"action": "c2pa.edited", **source, **agent, **given})
    else:
        created |= given
    if mark is not None:
        actions.append({"action": "c2pa.watermarked.bound", **agent})
    return actions


def _algorithm(mark: str) -> str:
    """The name of the watermark's scheme; its version is the payload's first byte.

    Raises:
        FacekitError: if ``mark`` is not 16 hex digits.
    """
    if len(mark) != 16 or not set(mark) <= set("0123456789abcdef"):
        raise FacekitError(f"mark '{mark}': a payload is 16 hex digits, such as 010100000000002a")
    return f"{BINDING}{int(mark[:2], 16)}"


def _builder(
    definition: Mapping[str, Any], ingredients: Sequence[_Ingredient], *, carried: bool
) -> Any:
    """The manifest's builder; with ``carried`` the inputs' own manifests go into it."""
    builder = c2pa.Builder(definition, c2pa.Context.from_dict(keys.SETTINGS))
    for ingredient in ingredients:
        row = _row(ingredient)
        if carried and _has_manifest(ingredient.path):
            with ingredient.path.open("rb") as source:
                builder.add_ingredient(row, row["format"], source)
        else:
            # Without its content, which may be of any format and size, and is not needed.
            builder.add_ingredient(row, "application/octet-stream", io.BytesIO())
    return builder


class _Watched:
    """A file that remembers why a write failed: the C2PA library calls it a parsing error."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, content: bytes) -> int:
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise


def _write(
    builder: Any, signer: Any, media_type: str, source: IO[bytes], target: IO[bytes]
) -> None:
    watched = _Watched(target)
    try:
        builder.sign(signer, media_type, source, watched)
    except c2pa.C2paError:
        if watched.error:
            raise watched.error from None
        raise


def _row(ingredient: _Ingredient) -> dict[str, str]:
    """An ingredient as c2pa's builder takes it."""
    return {
        "title": ingredient.path.name,
        "format": _content_type(ingredient.path),
        "relationship": ingredient.relationship,
        "label": ingredient.label,
        "instance_id": digest_name(ingredient.sha256),
    }


def _content_type(path: Path) -> str:
    """The media type: of the formats that facekit writes by the content, of others by suffix."""
    with path.open("rb") as file:
        head = file.read(12)
    if head.startswith(b"\xff\xd8\xff"):
        return MEDIA_TYPES[".jpg"]
    if head.startswith(b"\x89PNG"):
        return MEDIA_TYPES[".png"]
    if head.startswith(b"RIFF") and head.endswith(b"WEBP"):
        return MEDIA_TYPES[".webp"]
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _has_manifest(path: Path) -> bool:
    """Whether the file holds a manifest that can be read, be it intact or not."""
    try:
        return bool(verify(path).claims)
    except FacekitError:
        return False


def _media_type(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in MEDIA_TYPES:
        raise FacekitError(
            f"{path}: a manifest cannot be put into '{suffix}' files; "
            f"allowed: {', '.join(MEDIA_TYPES)}"
        )
    return MEDIA_TYPES[suffix]


def _require_other(path_in: Path, path_out: Path, media_type: str) -> None:
    try:
        if path_out.exists() and path_in.samefile(path_out):
            raise FacekitError(f"{path_out}: is the file to be signed; give another output")
        found = _content_type(path_in)
    except OSError as error:
        raise FacekitError(f"{path_in}: not readable ({error.strerror or error})") from error
    if found in MEDIA_TYPES.values() and found != media_type:
        suffixes = ", ".join(suffix for suffix, one in MEDIA_TYPES.items() if one == found)
        raise FacekitError(f"{path_out}: signing does not convert, and {path_in} is {suffixes}")


def _require_url(timestamp: str | None) -> None:
    if timestamp is None:
        return
    try:
        parts = urlsplit(timestamp)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FacekitError(
            f"timestamp authority '{timestamp}': give its URL, http:// or https://, without an "
            "authority nobody is asked"
        )


@contextmanager
def _native(path: Path, timestamp: str | None) -> Iterator[None]:
    """What the C2PA library complains of while signing, in one line."""
    try:
        yield
    except c2pa.C2paError as error:
        said = _one_line(error)
        if timestamp and ("http resolver" in said or "timestamp" in said.lower()):
            raise FacekitError(
                f"{path}: not signed, because the timestamp authority {timestamp} gave no valid "
                f"answer ({said}); try again, or sign without a timestamp"
            ) from error
        raise FacekitError(f"{path}: cannot be signed ({said})") from error


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
