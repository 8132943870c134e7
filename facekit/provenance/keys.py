"""Who signs: the chain of certificates and its private key, and whom to trust.

The first signature makes a local test chain: an authority, whose key is forgotten at once, and a
signer under it. It proves that a file has not changed since it was signed, not who signed it. A
chain of one's own takes its place with :func:`use`. Both lie in one file, ``signer.pem`` (mode
0600: the key is in it), so that a chain and a key that don't belong together are never seen. The
authorities whom the user trusts lie in ``trust.pem`` beside it.

What a certificate must hold: C2PA specification 2.2, section 14.5 (https://spec.c2pa.org).
"""

import io
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import c2pa
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from facekit.core import files
from facekit.core.errors import FacekitError

ALGORITHMS = ("ES256", "ES384", "ES512", "PS256", "ED25519")
"""How facekit signs: by the kind of key, as C2PA allows."""

PURPOSES = {
    "1.3.6.1.5.5.7.3.4": "emailProtection",
    "1.3.6.1.5.5.7.3.36": "documentSigning",
    "1.3.6.1.4.1.62558.2.1": "c2pa-kp-claimSigning",
}
"""The extended key usages of which a signer's certificate needs one."""

LOCAL = "facekit local test chain"
"""The organisation that certificates of a local test chain name."""

SETTINGS: dict[str, Any] = {
    # Of a long video a copy less in memory: what is larger goes through a temporary file.
    "core": {"backing_store_memory_threshold_in_mb": 32},
    "builder": {
        "thumbnail": {"enabled": False},
        # What facekit says itself; the library's default lists it as gathered from others.
        "created_assertion_labels": [
            "c2pa.actions",
            "c2pa.ingredient",
            "c2pa.soft-binding",
            "org.facekit.facts",
        ],
    },
    "trust": {"trust_config": "\n".join(PURPOSES)},
    "verify": {"verify_trust": True, "remote_manifest_fetch": False, "ocsp_fetch": False},
}
"""Of the C2PA library: no thumbnails, nothing fetched from a network."""

_EMPTY = "http://c2pa.org/digitalsourcetype/empty"
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_FORBIDDEN = {
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage",
    ExtendedKeyUsageOID.TIME_STAMPING: "timeStamping",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSPSigning",
}
_PRIVATE = (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)
_PEM = serialization.Encoding.PEM
_HELP = (
    "set one that is valid with 'facekit provenance keys --use CHAIN.pem KEY.pem', or make a local "
    "test chain with 'facekit provenance keys --new'"
)


@dataclass(frozen=True)
class Signer:
    """A chain of certificates with the private key of its first one.

    Attributes:
        certificates: the signer's first, each followed by the one that issued it.
        key: private, PKCS #8 in PEM.
        algorithm: one of ``ALGORITHMS``.
    """

    certificates: tuple[x509.Certificate, ...]
    key: bytes
    algorithm: str

    @property
    def chain(self) -> bytes:
        """The certificates in PEM."""
        return b"".join(certificate.public_bytes(_PEM) for certificate in self.certificates)

    @property
    def local(self) -> bool:
        """Whether it is a local test chain, as facekit makes them."""
        return _organisation(self.certificates[0]) == LOCAL

    @property
    def expires(self) -> datetime:
        """When the first of its certificates does, UTC."""
        return min(certificate.not_valid_after_utc for certificate in self.certificates)

    def native(self, timestamp: str | None = None) -> Any:
        """As the C2PA library takes it; ``timestamp`` is the URL of an authority to ask."""
        algorithm = c2pa.C2paSigningAlg[self.algorithm]
        return c2pa.Signer.from_info(
            c2pa.C2paSignerInfo(algorithm, self.chain, self.key, timestamp)
        )

    def to_json(self) -> dict[str, Any]:
        """What may be shown: all but the key."""
        first = self.certificates[0]
        return {
            "signer": name_of(first),
            "authority": name_of(self.certificates[-1]),
            "local": self.local,
            "algorithm": self.algorithm,
            "expires": self.expires.isoformat(),
            "sha256": first.fingerprint(hashes.SHA256()).hex(),
            "certificates": self.chain.decode("ascii"),
        }


def config_folder() -> Path:
    """Where keys are kept: ``$FACEKIT_HOME``, ``$XDG_CONFIG_HOME/facekit`` or the default."""
    if home := os.environ.get("FACEKIT_HOME"):
        return Path(home)
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path("~/.config").expanduser())
    return Path(base) / "facekit"


def signer_file() -> Path:
    """Where the signer's chain and key lie, once there is one."""
    return config_folder() / "signer.pem"


def trust_file() -> Path:
    """Where the certificates of trusted authorities lie, once there are any."""
    return config_folder() / "trust.pem"


def signer() -> Signer:
    """The signer that is configured; a local test chain is made on first use.

    Raises:
        FacekitError: if it cannot be kept or read, or cannot sign now: expired, not yet valid.
    """
    found = configured()
    if found is None:
        _keep(_local(), replace=False)
        found = configured()  # another process may have been quicker: theirs it is
        if found is None:
            raise FacekitError(f"{signer_file()}: it vanished while it was being made; try again")
    _require_valid_now(found.certificates, str(signer_file()))
    return found


def configured() -> Signer | None:
    """The signer that is kept, be it valid now or not; None before the first use.

    Raises:
        FacekitError: if the file is there and cannot be read, or holds something else.
    """
    path = signer_file()
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FacekitError(_cannot_keep(path, error)) from error
    certificates = _certificates(content, str(path))
    key = _private_key(content, str(path))
    return Signer(certificates, _pkcs8(key), _algorithm(key, str(path)))


def make() -> Signer:
    """Put a new local test chain in place of whatever is configured.

    Raises:
        FacekitError: if it cannot be kept.
    """
    made = _local()
    _keep(made)
    return made


def use(chain: Path, key: Path) -> Signer:
    """Sign with a chain and key of one's own from now on; they are checked, then copied.

    Args:
        chain: PEM certificates, the signer's first, each followed by the one that issued it; the
            root may be left out.
        key: the signer's private key in PEM, not encrypted: EC P-256, P-384 or P-521, RSA of 2048
            bits or more, or Ed25519.

    Raises:
        FacekitError: what is wrong with them, and what C2PA asks for. Then nothing has changed.
    """
    certificates = _certificates(_read(chain), str(chain))
    private = _private_key(_read(key), str(key))
    _require_pair(certificates, private, chain, key)
    _require_order(certificates, chain)
    _require_signing_certificate(certificates[0], chain)
    _require_valid_now(certificates, str(chain))
    made = Signer(certificates, _pkcs8(private), _algorithm(private, str(key)))
    _try(made, chain)
    _keep(made)
    return made


def trust(path: Path) -> list[str]:
    """Trust the authorities in a PEM file, besides those trusted already.

    Args:
        path: certificates; those that are no authority's (a signer's own) are passed over.

    Returns:
        The names of the authorities that were added.

    Raises:
        FacekitError: if the file holds none, or ``trust.pem`` cannot be read or written.
    """
    given = _certificates(_read(path), str(path))
    authorities = [certificate for certificate in given if _is_authority(certificate)]
    if not authorities:
        raise FacekitError(
            f"{path}: holds no authority's certificate, only {name_of(given[0])}'s own; "
            "give the certificate of who issued it"
        )
    known = trusted()
    new = [c for c in dict.fromkeys(authorities) if c not in known]
    pem = b"".join(certificate.public_bytes(_PEM) for certificate in (*known, *new))
    files.write_bytes(trust_file(), pem)
    return [name_of(certificate) for certificate in new]


def trusted() -> tuple[x509.Certificate, ...]:
    """The certificates of ``trust.pem``; none if there is no such file.

    Raises:
        FacekitError: if it cannot be read.
    """
    path = trust_file()
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise FacekitError(f"{path}: not readable ({error.strerror or error})") from error
    return _certificates(content, str(path)) if content.strip() else ()


def pem(certificates: Sequence[x509.Certificate]) -> str:
    """Certificates as PEM text."""
    return "".join(certificate.public_bytes(_PEM).decode("ascii") for certificate in certificates)


def name_of(certificate: x509.Certificate) -> str:
    """Whose it is: common name and organisation, as far as it says."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    common = str(names[0].value) if names else ""
    organisation = _organisation(certificate)
    both = f"{common} ({organisation})" if common and organisation else common or organisation
    return both or certificate.subject.rfc4514_string() or "an unnamed subject"


def _organisation(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(names[0].value) if names else ""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FacekitError(f"{path}: no such file") from None
    except OSError as error:
        raise FacekitError(f"{path}: not readable ({error.strerror or error})") from error


def _certificates(content: bytes, name: str) -> tuple[x509.Certificate, ...]:
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise FacekitError(f"{name}: holds no PEM certificate (-----BEGIN CERTIFICATE-----)")
    try:
        return tuple(x509.load_pem_x509_certificates(content))
    except ValueError as error:
        raise FacekitError(f"{name}: not readable as PEM certificates ({error})") from error


def _private_key(content: bytes, name: str) -> Any:
    if b"PRIVATE KEY-----" not in content:
        raise FacekitError(f"{name}: holds no PEM private key (-----BEGIN PRIVATE KEY-----)")
    try:
        # A chain may stand in the same file; the loader takes the first block as the key.
        key = serialization.load_pem_private_key(content[_key_start(content) :], password=None)
    except TypeError as error:
        raise FacekitError(
            f"{name}: the key is encrypted; give it decrypted, e.g. by "
            "'openssl pkey -in KEY.pem -out PLAIN.pem'"
        ) from error
    except ValueError as error:
        raise FacekitError(f"{name}: not readable as a PEM private key ({error})") from error
    if not isinstance(key, _PRIVATE):
        raise FacekitError(f"{name}: {_allowed_keys('this kind of key')}")
    return key


def _key_start(content: bytes) -> int:
    """Where the block of the key begins: at the last BEGIN before its name."""
    return content.rindex(b"-----BEGIN", 0, content.index(b"PRIVATE KEY-----"))


def _pkcs8(key: Any) -> bytes:
    plain = serialization.NoEncryption()
    made: bytes = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, plain)
    return made


def _algorithm(key: Any, name: str) -> str:
    """How a private key signs.

    Raises:
        FacekitError: if C2PA does not allow it.
    """
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ED25519"
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < 2048:
            raise FacekitError(f"{name}: {_allowed_keys(f'RSA of {key.key_size} bits')}")
        return "PS256"
    if key.curve.name not in _CURVES:
        raise FacekitError(f"{name}: {_allowed_keys(f'the curve {key.curve.name}')}")
    return _CURVES[key.curve.name]


def _allowed_keys(given: str) -> str:
    return (
        f"{given} is not allowed by C2PA; allowed: EC P-256, P-384 and P-521, RSA of 2048 bits or "
        "more, Ed25519"
    )


def _require_pair(
    certificates: Sequence[x509.Certificate], private: Any, chain: Path, key: Path
) -> None:
    public = private.public_key()
    match = next((c for c in certificates if c.public_key() == public), None)
    if match is None:
        raise FacekitError(
            f"{key}: does not belong to {chain}, whose first certificate is "
            f"{name_of(certificates[0])}'s; give the key of that certificate"
        )
    if match is not certificates[0]:
        raise FacekitError(
            f"{chain}: out of order: the certificate of the key, {name_of(match)}'s, must come "
            f"first, not {name_of(certificates[0])}'s"
        )


def _require_order(certificates: Sequence[x509.Certificate], chain: Path) -> None:
    for one, issuer in pairwise(certificates):
        try:
            one.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise FacekitError(
                f"{chain}: out of order or of two chains: {name_of(one)}'s certificate was not "
                f"issued by {name_of(issuer)}, which follows it; each must be followed by its "
                "issuer's"
            ) from error


def _require_signing_certificate(certificate: x509.Certificate, chain: Path) -> None:
    """What C2PA asks of the certificate that signs."""
    problem = _problem(certificate)
    if problem:
        raise FacekitError(
            f"{chain}: {name_of(certificate)}'s certificate cannot sign C2PA manifests: {problem}"
        )


def _problem(certificate: x509.Certificate) -> str | None:
    extensions = certificate.extensions
    if certificate.issuer == certificate.subject:
        return "it is signed by itself; C2PA asks for one issued by an authority"
    if _is_authority(certificate):
        return "it is an authority's; C2PA asks for one that issues no others"
    usage = _extension(extensions, x509.KeyUsage)
    if usage is None or not usage.digital_signature:
        return "its key usage lacks digitalSignature"
    purposes = [oid.dotted_string for oid in _extension(extensions, x509.ExtendedKeyUsage) or ()]
    for oid, name in _FORBIDDEN.items():
        if oid.dotted_string in purposes:
            return f"its extended key usage holds {name}, which C2PA forbids"
    if not set(purposes) & set(PURPOSES):
        return f"its extended key usage names none of {', '.join(PURPOSES.values())}"
    if _extension(extensions, x509.AuthorityKeyIdentifier) is None:
        return "it has no authority key identifier"
    return None


def _extension(extensions: x509.Extensions, kind: type[Any]) -> Any:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _is_authority(certificate: x509.Certificate) -> bool:
    constraints = _extension(certificate.extensions, x509.BasicConstraints)
    return bool(constraints and constraints.ca)


def _require_valid_now(certificates: Sequence[x509.Certificate], name: str) -> None:
    now = datetime.now(UTC)
    for certificate in certificates:
        ends, begins = certificate.not_valid_after_utc, certificate.not_valid_before_utc
        whose = f"{name}: {name_of(certificate)}'s certificate"
        if ends < now:
            raise FacekitError(f"{whose} expired on {ends:%Y-%m-%d %H:%M} UTC; {_HELP}")
        if begins > now:
            raise FacekitError(f"{whose} is valid only from {begins:%Y-%m-%d %H:%M} UTC; {_HELP}")


def _try(made: Signer, chain: Path) -> None:
    """Sign a picture of one pixel: what the C2PA library does not take shows here, not later."""
    actions = {"actions": [{"action": "c2pa.created", "digitalSourceType": _EMPTY}]}
    definition = {"assertions": [{"label": "c2pa.actions.v2", "data": actions}]}
    try:
        builder = c2pa.Builder(definition, c2pa.Context.from_dict(SETTINGS))
        builder.sign(made.native(), "image/png", io.BytesIO(_pixel()), io.BytesIO())
    except c2pa.C2paError as error:
        said = " ".join(str(error).split())
        raise FacekitError(
            f"{chain}: the C2PA library cannot sign with it ({said}); C2PA asks for X.509 v3 "
            "certificates signed with SHA-256, SHA-384 or SHA-512"
        ) from error


def _pixel() -> bytes:
    """A PNG of one black pixel."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0\0")), (b"IEND", b""))
    made = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        made += struct.pack(">I", len(body)) + name + body
        made += struct.pack(">I", zlib.crc32(name + body))
    return made


def _keep(made: Signer, *, replace: bool = True) -> None:
    """Write ``signer.pem``; what it held stays as ``signer.old.pem``, for a key cannot be remade.

    Without ``replace`` one that is there already stays: of two processes, one wins.
    """
    path = signer_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if replace and path.exists():
            with _private(path) as partial:
                partial.write_bytes(path.read_bytes())
                partial.replace(path.with_name("signer.old.pem"))
        with _private(path) as partial:
            partial.write_bytes(made.key + made.chain)
            if replace:
                partial.replace(path)
            else:
                _link(partial, path)
    except OSError as error:
        raise FacekitError(_cannot_keep(path, error)) from error


@contextmanager
def _private(path: Path) -> Iterator[Path]:
    """An empty file beside ``path`` that its owner alone can read, and that is gone afterwards."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".signer")
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _link(partial: Path, path: Path) -> None:
    """Give a file its name unless that is taken: a hard link never replaces one."""
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            partial.replace(path)


def _cannot_keep(path: Path, error: OSError) -> str:
    return (
        f"{path}: the signing key cannot be kept there ({error.strerror or error}); "
        "set FACEKIT_HOME to a folder that can be written to"
    )


def _local() -> Signer:
    """A test authority, whose key is forgotten at once, and a signer as C2PA asks for (ES256)."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    signer_key = ec.generate_private_key(ec.SECP256R1())
    authority_id = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = (
        _unsigned("facekit local test authority", authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(authority_id, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    first = (
        _unsigned("facekit local test signer", signer_key.public_key())
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
    return Signer((first, authority), _pkcs8(signer_key), "ES256")


def _unsigned(name: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
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
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, LOCAL),
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
