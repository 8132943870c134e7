"""What a file says of itself: its credentials, its mark, its certificate, and how it was made.

None of it looks at faces, and none of it needs a network.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectors.report.model import Certificate, FileFacts, Origin, Provenance, Watermark
from detectors.report.text import clock, file_size, p_value
from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.media.decode import MediaInfo
from facekit.media.facts import MediaFacts, describe
from facekit.provenance import manifest
from facekit.types import CERTIFICATE
from facekit.watermark.files import read_file

_KIND_OF_SOURCE = {
    "trainedAlgorithmicMedia": "generated",
    "compositeWithTrainedAlgorithmicMedia": "composite",
    "compositeSynthetic": "composite",
}
"""IPTC's digital source types, by which other makers' manifests say what facekit's kinds say."""


def read_provenance(path: Path) -> Provenance:
    """The file's content credentials; a manifest that cannot be read is said, not raised."""
    try:
        found = manifest.verify(path)
    except FacekitError as error:
        return Provenance(
            status="not read", reason=str(error), kind=None, origin="unknown", claims={}
        )
    # Anyone can write a manifest: nothing is taken for granted about the shape of what it claims.
    claims = found.claims
    kind = _text(claims, "kind") or _KIND_OF_SOURCE.get(str(claims.get("source_type")))
    facts = claims.get("facts")
    origin: Origin = "unknown"
    if isinstance(facts, dict) and facts.get("origin") == "studio":
        origin = "studio"
    return Provenance(
        status=found.status,
        reason=found.reason,
        signer=_text(claims, "signer"),
        signed=_text(claims, "signed"),
        kind=kind,
        origin=origin,
        claims=claims,
    )


def _text(claims: Mapping[str, Any], key: str) -> str | None:
    value = claims.get(key)
    return value if isinstance(value, str) and value else None


def read_watermark(path: Path) -> Watermark:
    """The mark of facekit; a file that cannot be searched for it is said, not raised."""
    try:
        reading = read_file(path)
    except FacekitError as error:
        return Watermark(
            status="not read",
            kind=None,
            id=None,
            p_value=None,
            corrected=None,
            frames=0,
            error=str(error),
        )
    return Watermark(
        status="present" if reading.present else "absent",
        kind=reading.kind,
        id=reading.payload.id if reading.payload else None,
        p_value=float(reading.p_value),
        corrected=reading.corrected,
        frames=reading.frames,
    )


def read_facts(path: Path, info: MediaInfo, *, details: bool) -> tuple[FileFacts, list[str]]:
    """What the file is; and what kept its details from being read, if anything did.

    Args:
        path: the file.
        info: what it is.
        details: whether to say how it was made as well.
    """
    made: MediaFacts | None = None
    wrong = []
    try:
        made = describe(path) if details else None
    except FacekitError as error:
        wrong.append(f"how it was made could not be read: {error}")
    facts = FileFacts(
        sha256=files.sha256(path),
        bytes=path.stat().st_size,
        kind=info.kind,
        container=path.suffix.lower().removeprefix("."),
        codec=info.codec,
        width=info.width,
        height=info.height,
        duration=None if info.duration is None else round(info.duration, 4),
        rate=None if info.rate is None else round(info.rate, 4),
        has_audio=info.has_audio,
        details=made,
    )
    return facts, wrong


def provenance_line(found: Provenance, certificate: Certificate) -> str:
    """The content credentials, and the studio's certificate, in a line."""
    said = {
        "absent": "no content credentials",
        "trusted": "content credentials, intact and signed by someone trusted here",
        "untrusted": "content credentials, intact, signed by someone nobody here vouches for",
        "tampered": "content credentials that do not match the file",
        "not read": "content credentials could not be checked",
    }[found.status]
    kind = f"; they say '{found.kind}'" if found.kind and found.status != "absent" else ""
    studio = {
        "absent": "",
        "valid": "; the studio's certificate holds for it",
        "invalid": "; the certificate of its studio folder does not hold",
    }[certificate.status]
    return f"{said}{kind}{studio}"


def watermark_line(found: Watermark) -> str:
    """The mark in a line."""
    if found.status == "not read":
        return f"the mark could not be looked for: {found.error}"
    chance = f"p {p_value(found.p_value)}"
    if found.status == "absent":
        return f"no mark of facekit ({chance})"
    return f"a mark that says '{found.kind}' ({chance})" if found.kind else f"a mark ({chance})"


def facts_line(facts: FileFacts) -> str:
    """What the file is, in a line, with the names of what an examiner should know."""
    length = "" if facts.duration is None else f", {clock(facts.duration)}"
    rate = "" if facts.rate is None else f" at {facts.rate:.4g} frames a second"
    hints = facts.details.hints if facts.details else []
    more = f"; {', '.join(hint.code.replace('_', ' ') for hint in hints)}" if hints else ""
    return (
        f"{facts.codec}, {facts.width}×{facts.height}{length}{rate}, {file_size(facts.bytes)}{more}"
    )


class Certificates:
    """The studio's certificates, each of which is checked once for all files of its folder."""

    def __init__(self) -> None:
        """Start without any."""
        self._checked: dict[Path, Mapping[str, str] | str] = {}  # hashes by name, or what is wrong

    def of(self, path: Path) -> Certificate:
        """Whether a studio certificate, in the file's folder or the one above, covers the file."""
        real = path.resolve()
        folders = [real.parent, real.parent.parent]
        folder = next((f for f in folders if (f / CERTIFICATE).is_file()), None)
        if folder is None:
            return Certificate(status="absent", reason="it does not lie in a studio folder")
        if folder not in self._checked:
            self._checked[folder] = _certified(folder)
        found = self._checked[folder]
        if isinstance(found, str):
            return Certificate(status="invalid", reason=found)
        if found.get(real.relative_to(folder).as_posix()) != files.sha256(path):
            return Certificate(status="invalid", reason="the certificate does not list this file")
        return Certificate(
            status="valid", reason="the file matches it, and pictures rendered again match as well"
        )


def _certified(folder: Path) -> Mapping[str, str] | str:
    """The files that a folder's certificate lists; or why it does not hold."""
    # What renders people takes seconds to load.
    from facekit.studio import certificate

    # The folder's pictures are hashed, and some of them rendered again.
    try:
        return certificate.verify(folder).files
    except FacekitError as error:
        return str(error)
