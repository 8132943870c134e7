"""Signed provenance manifests (C2PA), made and verified without a network.

The first signature makes a local test chain: a certificate authority and a signer under it, kept in
``$FACEKIT_HOME``, else ``$XDG_CONFIG_HOME/facekit``, else ``~/.config/facekit``. It proves that a
file has not changed since facekit signed it, not who signed it: verification calls such a
signature "untrusted". A signature is "trusted" if its chain ends in a certificate of ``trust.pem``
in the same folder, which the user puts there.

Specification: https://spec.c2pa.org, version 2.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from facekit import __version__
from facekit.core import files
from facekit.core.errors import FacekitError, did_you_mean

MEDIA_TYPES = {
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".webp": "image/webp",
}
"""What can be signed, by suffix."""

FACTS = "org.facekit.facts"
"""The label of facekit's own assertion: a JSON object of facts about the making."""

_IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_SOURCE_TYPES = {
    "generated": _IPTC + "trainedAlgorithmicMedia",
    "composite": _IPTC + "compositeWithTrainedAlgorithmicMedia",
    "studio": _IPTC + "algorithmicMedia",
}

_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"verify_trust": True, "remote_manifest_fetch": False, "ocsp_fetch": False},
}


@dataclass(frozen=True)
class Provenance:
    """What a file's manifest says, and whether to believe it.

    Attributes:
        status: "absent" (no manifest), "untrusted" (intact, by a signer that nobody here vouches
            for), "trusted" (intact, by a signer under ``trust.pem``) or "tampered".
        reason: why, in a sentence.
        claims: of the active manifest, JSON values: kind, source_type, facts, inputs, generator,
            signer, mark, consent (SHA-256 of
            the ids). Empty if absent or unreadable; not to be believed if tampered.
    """

    status: Literal["absent", "untrusted", "trusted", "tampered"]
    reason: str
    claims: dict[str, Any] = field(default_factory=dict)


def sign(
    path_in: Path,
    path_out: Path,
    *,
    kind: str,
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
        kind: "generated", "composite" or "studio"; gives the ``digitalSourceType``.
        inputs: the files it was made from; named as ingredients with their hashes, not copied.
        facts: JSON values about the making, kept as the assertion ``org.facekit.facts``.
        mark: the watermark's payload in hex, kept as a soft binding, by which the manifest can be
            found again when it was stripped.
        consent: ids of the consent records it was made under; only their SHA-256 is written.
        timestamp: the URL of a timestamp authority (RFC 3161), which is asked; None asks nobody.

    Raises:
        FacekitError: if the kind or suffix is not allowed, or signing or writing fails.
    """
    if kind not in _SOURCE_TYPES:
        raise FacekitError(f"cannot sign kind '{kind}'; {did_you_mean(kind, _SOURCE_TYPES)}")
    media_type = _media_type(path_out)
    chain, key = _signing_chain()
    try:
        with _native(path_out):
            signer = c2pa.Signer.from_info(
                c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, chain, key, timestamp)
            )
            builder = c2pa.Builder(
                _definition(
                    path_out.name, media_type, kind, inputs, dict(facts or {}), mark, consent
                ),
                c2pa.Context.from_dict(_SETTINGS),
            )
            with files.replacing(path_out) as partial:
                with path_in.open("rb") as source, partial.open("w+b") as target:
                    builder.sign(signer, media_type, source, target)
    except OSError as error:
        raise FacekitError(f"{path_out}: cannot be signed ({error.strerror or error})") from error


def verify(path: Path) -> Provenance:
    """Read and check a file's manifest; nothing is fetched from a network.

    Raises:
        FacekitError: if the file cannot be read at all. A damaged manifest is not an error but
            "tampered"; a format that cannot hold one is "absent".
    """
    try:
        with path.open("rb") as source:
            if not source.read(1):
                raise FacekitError(f"{path}: empty file")
            source.seek(0)
            with c2pa.Reader(
                MEDIA_TYPES.get(path.suffix.lower()), source, context=_reading_context()
            ) as reader:
                store = json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return Provenance("absent", "the file carries no C2PA manifest")
    except c2pa.C2paError.NotSupported:
        return Provenance("absent", "this format carries no C2PA manifest")
    except c2pa.C2paError as error:
        return Provenance("tampered", f"the manifest cannot be read ({_one_line(error)})")
    except OSError as error:
        raise FacekitError(f"{path}: not readable ({error.strerror or error})") from error
    return _judge(store)


def config_folder() -> Path:
    """Where the chain is kept: ``$FACEKIT_HOME``, ``$XDG_CONFIG_HOME/facekit`` or the default."""
    if home := os.environ.get("FACEKIT_HOME"):
        return Path(home)
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path("~/.config").expanduser())
    return Path(base) / "facekit"


def _definition(
    title: str,
    media_type: str,
    kind: str,
    inputs: Sequence[Path],
    facts: dict[str, Any],
    mark: str | None,
    consent: Sequence[str],
) -> dict[str, Any]:
    """The manifest as c2pa's builder takes it."""
    action = {"action": "c2pa.created", "digitalSourceType": _SOURCE_TYPES[kind]}
    named = [{"name": path.name, "sha256": files.sha256(path)} for path in inputs]
    hashed = [hashlib.sha256(id.encode()).hexdigest() for id in consent]
    own = {"kind": kind, "facts": facts, "inputs": named, "consent": hashed}
    assertions: list[dict[str, Any]] = [
        {"label": "c2pa.actions.v2", "data": {"actions": [action]}},
        {"label": FACTS, "data": own},
    ]
    if mark is not None:
        binding = {"alg": "org.facekit.spread.1", "blocks": [{"scope": {}, "value": mark}]}
        assertions.append({"label": "c2pa.soft-binding", "data": binding})
    return {
        "claim_generator_info": [{"name": "facekit", "version": __version__}],
        "title": title,
        "format": media_type,
        "assertions": assertions,
    }


def _media_type(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in MEDIA_TYPES:
        raise FacekitError(
            f"{path}: a manifest cannot be put into '{suffix}' files; "
            f"allowed: {', '.join(MEDIA_TYPES)}"
        )
    return MEDIA_TYPES[suffix]


@contextmanager
def _native(path: Path) -> Iterator[None]:
    """What the C2PA library complains of while signing, in one line."""
    try:
        yield
    except c2pa.C2paError as error:
        raise FacekitError(f"{path}: cannot be signed ({_one_line(error)})") from error


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def _reading_context() -> Any:
    trust = config_folder() / "trust.pem"
    try:
        anchors = trust.read_text(encoding="ascii")
    except FileNotFoundError:
        return c2pa.Context.from_dict(_SETTINGS)
    except (OSError, UnicodeDecodeError) as error:
        raise FacekitError(f"{trust}: not readable as PEM certificates ({error})") from error
    try:
        x509.load_pem_x509_certificates(anchors.encode())
    except ValueError as error:
        raise FacekitError(f"{trust}: not readable as PEM certificates ({error})") from error
    return c2pa.Context.from_dict({**_SETTINGS, "trust": {"trust_anchors": anchors}})


def _judge(store: dict[str, Any]) -> Provenance:
    """From c2pa's report to a status."""
    manifest = store.get("manifests", {}).get(store.get("active_manifest"), {})
    claims = _claims(manifest)
    results = store.get("validation_results", {}).get("activeManifest", {})
    failures = [
        (failure["code"], _one_line(failure.get("explanation", failure["code"])))
        for failure in results.get("failure", [])
    ]
    broken = [text for code, text in failures if not code.startswith("signingCredential.")]
    state = store.get("validation_state")
    if broken or not manifest or (state == "Invalid" and not failures):
        why = broken[0] if broken else "it does not validate"
        reason = f"the file or its manifest was changed after signing ({why})"
        return Provenance("tampered", reason, claims)
    signer = claims["signer"] or "an unnamed signer"
    if state == "Trusted" and not failures:
        return Provenance("trusted", f"intact, signed by {signer}, whom trust.pem names", claims)
    why = failures[0][1] if failures else "no chain to a trusted certificate"
    return Provenance("untrusted", f"intact, but signed by {signer} ({why})", claims)


def _claims(manifest: dict[str, Any]) -> dict[str, Any]:
    found = {row["label"]: row.get("data") for row in manifest.get("assertions", [])}
    own = found.get(FACTS) or {}
    actions = (found.get("c2pa.actions.v2") or found.get("c2pa.actions") or {}).get("actions", [])
    sources = [a["digitalSourceType"] for a in actions if "digitalSourceType" in a]
    blocks = (found.get("c2pa.soft-binding") or {}).get("blocks", [])
    generators = manifest.get("claim_generator_info") or [{}]
    return {
        "kind": own.get("kind"),
        "source_type": sources[0].rsplit("/", 1)[-1] if sources else None,
        "facts": own.get("facts") or {},
        "inputs": own.get("inputs") or [],
        "consent": own.get("consent") or [],
        "generator": generators[0].get("name"),
        "signer": (manifest.get("signature_info") or {}).get("issuer"),
        "mark": blocks[0].get("value") if blocks else None,
    }


def _signing_chain() -> tuple[bytes, bytes]:
    """The signer's certificates and private key, in PEM; made on first use."""
    folder = config_folder() / "signing"
    try:
        if not folder.is_dir():
            _make_chain(folder)
        return (folder / "chain.pem").read_bytes(), (folder / "key.pem").read_bytes()
    except OSError as error:
        raise FacekitError(
            f"{folder}: the signing key cannot be kept there ({error.strerror or error}); "
            "set FACEKIT_HOME to a folder that can be written to"
        ) from error


def _make_chain(folder: Path) -> None:
    """Make authority and signer in a folder beside, then rename: of two processes, one wins."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".signing") as temporary:
        made = Path(temporary) / "made"
        made.mkdir(mode=0o700)
        chain, key = _new_chain()
        (made / "chain.pem").write_bytes(chain)
        (made / "key.pem").touch(mode=0o600)
        (made / "key.pem").write_bytes(key)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise


def _new_chain() -> tuple[bytes, bytes]:
    """A test authority, whose key is forgotten at once, and a signer as C2PA asks for (ES256)."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    signer_key = ec.generate_private_key(ec.SECP256R1())
    authority_id = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = (
        _certificate("facekit local test authority", authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(authority_id, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    signer = (
        _certificate("facekit local test signer", signer_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(signer_key.public_key()), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key = signer_key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return signer.public_bytes(pem) + authority.public_bytes(pem), key


def _certificate(name: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name("facekit local test authority"))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
    )


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "facekit local test chain"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _usage(**wanted: bool) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: wanted.get(name, False) for name in names})
