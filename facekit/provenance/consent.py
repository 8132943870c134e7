"""Consent records: who lets which photos of theirs be used, for what, until when; signed.

A record is signed (Ed25519, RFC 8032) over one canonical form of its content, so that it can't be
changed, nor be written in two ways. Who signs says what it is worth:

- ``person``: the people's own key, kept on their own machine;
- ``operator``: whoever runs facekit says that consent was given, and names evidence by its hash;
- ``dataset-licence``: the operator says that a published licence, cited by DOI, covers the photos.

Records live in a :class:`facekit.provenance.ledger.Ledger`.
"""

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, model_validator

from facekit.core import config
from facekit.core.config import Config
from facekit.core.errors import FacekitError, did_you_mean
from facekit.provenance.signed import canonical, holds, public_hex, time_text, utc

SCOPES = ("train", "generate", "publish")
"""What can be consented to; none includes another."""

Scope = Literal["train", "generate", "publish"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

_NOTHING = hashlib.sha256(b"").hexdigest()
_RECORD = b"facekit consent record 1\n"
_PSEUDONYM = re.compile(r"\w(?:[\w .@+-]{0,62}[\w.@+-])?")
_DOI = re.compile(r"10\.\d{4,9}/[!-~]+")


class Attester(StrEnum):
    """Who says that consent was given."""

    PERSON = "person"
    OPERATOR = "operator"
    DATASET = "dataset-licence"


LONGEST = {
    Attester.PERSON: timedelta(days=5 * 365 + 2),
    Attester.OPERATOR: timedelta(days=5 * 365 + 2),
    Attester.DATASET: timedelta(days=10 * 365 + 3),
}
"""How long a record may hold. People change their minds and forget what they signed: ask again.

Licences such as CC BY have no end, but data sets are withdrawn; somebody has to look again.
"""


class Terms(Config):
    """What a record says before anybody has signed it.

    Attributes:
        subjects: pseudonyms of those who consent, sorted: one, or for a data set as many as it has.
        attester: who says so.
        adult: that all subjects are 18 or older; there is no other kind of record.
        scope: what they consent to, of :data:`SCOPES`.
        purpose: what for, in words.
        expires: UTC, whole seconds.
        evidence: SHA-256 in hex of what shows the consent, e.g. of a signed form; "" for none.
        licence, doi: of a data set; else "".
        photos: SHA-256 of each photo or video → pseudonyms of EVERYONE seen in it, sorted, also of
            those whose consent this record does not hold.
        operator: public key in hex of the ledger that it is meant for.
        nonce: 32 random hex digits: no two records are alike.
    """

    subjects: tuple[str, ...] = Field(min_length=1)
    attester: Attester
    adult: Literal[True]
    scope: frozenset[Scope] = Field(min_length=1)
    purpose: str
    expires: datetime
    evidence: str = Field(pattern=r"^([0-9a-f]{64})?$")
    licence: str
    doi: str
    photos: dict[Sha256, tuple[str, ...]] = Field(min_length=1)
    operator: Sha256
    nonce: str = Field(pattern=r"^[0-9a-f]{32}$")

    @model_validator(mode="after")
    def _check(self) -> Self:
        # FacekitError, unlike ValueError, passes through pydantic as it is: one clear line.
        _check_names("subjects", self.subjects)
        for digest, names in self.photos.items():
            _check_names(f"people in photo {digest[:12]}…", names)
            if not set(names) & set(self.subjects):
                raise FacekitError(
                    f"photo {digest[:12]}… shows {', '.join(names)}, none of whom the record is "
                    "about; name its subject among the people in it, or leave it out"
                )
        for name in ("purpose", "licence"):
            check_text(name, getattr(self, name), empty=name == "licence")
        _check_time("expires", self.expires)
        self._check_attester()
        return self

    def _check_attester(self) -> None:
        licensed = self.attester is Attester.DATASET
        if not licensed and len(self.subjects) > 1:
            raise FacekitError(
                f"a record attested by '{self.attester}' is about one person, got "
                f"{len(self.subjects)}: {', '.join(self.subjects[:3])}…; grant one for each"
            )
        if licensed and not (self.licence and self.doi):
            raise FacekitError("a dataset's record needs its licence and its DOI; give both")
        if not licensed and (self.licence or self.doi):
            raise FacekitError(
                f"a licence or DOI, but attested by '{self.attester}'; they belong to "
                f"'{Attester.DATASET}' records"
            )
        if self.doi and not _DOI.fullmatch(self.doi):
            raise FacekitError(f"'{self.doi}' is no DOI; write it like 10.5281/zenodo.1234567")
        if self.attester is Attester.OPERATOR and not self.evidence:
            raise FacekitError(
                "an operator's record needs evidence: the SHA-256 of a signed form, a letter or a "
                "recording that shows the consent"
            )

    def statement(self) -> str:
        """What it says, as a person would."""
        who = self.subjects[0]
        if len(self.subjects) > 1:
            who = f"{len(self.subjects)} people, {who} to {self.subjects[-1]}"
        by = {
            Attester.PERSON: "the person's own key",
            Attester.OPERATOR: "the operator",
            Attester.DATASET: f"the data set's licence, {self.licence}, doi {self.doi}",
        }[self.attester]
        return (
            f"{who}, all of age: {', '.join(sorted(self.scope))} with {len(self.photos)} photos "
            f"or videos, for: {self.purpose}; until {time_text(self.expires)}; attested by {by}"
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values, as they are signed."""
        return {
            "subjects": list(self.subjects),
            "attester": str(self.attester),
            "adult": self.adult,
            "scope": sorted(self.scope),
            "purpose": self.purpose,
            "expires": time_text(self.expires),
            "evidence": self.evidence,
            "licence": self.licence,
            "doi": self.doi,
            "photos": {digest: list(names) for digest, names in self.photos.items()},
            "operator": self.operator,
            "nonce": self.nonce,
        }


class Record(Terms):
    """A signed record: terms, and who agreed to them when.

    Attributes:
        granted: when it was signed, UTC, whole seconds.
        public_key: of the signer, in hex: the person's, else the operator's.
        signature: Ed25519 over the canonical JSON of all the rest, in hex.
    """

    granted: datetime
    public_key: Sha256
    signature: str = Field(pattern=r"^[0-9a-f]{128}$")

    @model_validator(mode="after")
    def _check_record(self) -> Self:
        _check_time("granted", self.granted)
        latest = self.granted + LONGEST[self.attester]
        if not self.granted < self.expires <= latest:
            raise FacekitError(
                f"expires {time_text(self.expires)}: must be after {time_text(self.granted)}, when "
                f"it was signed, and at the latest {time_text(latest)}"
            )
        if (self.public_key == self.operator) is (self.attester is Attester.PERSON):
            raise FacekitError(
                "signed by the operator's key, which is not the person's own"
                if self.attester is Attester.PERSON
                else f"attested by '{self.attester}', but not signed by the operator's key"
            )
        if not holds(self.public_key, self.signature, _RECORD + canonical(self._content())):
            raise FacekitError(
                "the record's signature is wrong: it was changed after it was signed"
            )
        return self

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(canonical(self._content())).hexdigest()

    @property
    def id(self) -> str:
        """A name like c-d319c4316905: the first 48 bits of the SHA-256 of what was signed.

        A name, not a proof: a ledger refuses a second record of the same id.
        """
        return f"c-{self._digest[:12]}"

    @property
    def mark_id(self) -> int:
        """The same 48 bits as a number, for the watermark's payload."""
        return bits_of(self.id)

    def to_json(self) -> dict[str, Any]:
        """JSON values: what was signed, and the signature."""
        return {**self._content(), "signature": self.signature}

    def _content(self) -> dict[str, Any]:
        return {
            **super().to_json(),
            "granted": time_text(self.granted),
            "public_key": self.public_key,
        }


def bits_of(id: str) -> int:
    """The 48 bits that a record's or a run's id names, as the watermark's payload carries them."""
    return int(id[2:], 16)


def terms(
    *,
    subjects: Collection[str],
    photos: Mapping[str, Collection[str]],
    scope: Collection[str],
    purpose: str,
    expires: datetime,
    adult: bool,
    operator: str,
    attester: Attester = Attester.OPERATOR,
    evidence: str = "",
    licence: str = "",
    doi: str = "",
) -> Terms:
    """Terms with a fresh nonce, names sorted; for the arguments see :class:`Terms`.

    Raises:
        FacekitError: if one of them is not allowed.
    """
    if adult is not True:
        raise FacekitError(
            "nobody attests that everyone in the photos is 18 or older, and without that nothing "
            "is recorded; minors' faces are not for this tool"
        )
    if unknown := [name for name in scope if name not in SCOPES]:
        raise FacekitError(f"no scope '{unknown[0]}'; {did_you_mean(unknown[0], SCOPES)}")
    if not scope or not photos or not subjects:
        empty = "scope" if not scope else "photos" if not photos else "subjects"
        raise FacekitError(f"no {empty} given; a consent to nothing is no consent")
    # Asked only of new records: those in a ledger stay what they are.
    if evidence and (evidence == _NOTHING or evidence in photos):
        what = "an empty file" if evidence == _NOTHING else "one of the photos itself"
        raise FacekitError(
            f"evidence: is {what}, which shows no consent; give a signed form, a letter or a "
            "recording"
        )
    values = {
        "subjects": _sorted(subjects),
        "attester": attester,
        "adult": True,
        "scope": frozenset(scope),
        "purpose": purpose,
        "expires": utc(expires),
        "evidence": evidence,
        "licence": licence,
        "doi": doi,
        "photos": {digest: _sorted(names) for digest, names in photos.items()},
        "operator": operator,
        "nonce": secrets.token_hex(16),
    }
    return config.validate(values, Terms, "consent")


def sign(wanted: Terms, key: Ed25519PrivateKey, *, now: datetime | None = None) -> Record:
    """``wanted`` as a signed record, granted now.

    Raises:
        FacekitError: if the terms end too early or too late, or the key is not the attester's.
    """
    content = {
        **wanted.to_json(),
        "granted": time_text(utc(now)),
        "public_key": public_hex(key),
    }
    signature = key.sign(_RECORD + canonical(content)).hex()
    return read_record(canonical({**content, "signature": signature}), "consent")


def read_terms(text: bytes, source: str | Path) -> Terms:
    """Parse terms that wait for a signature.

    Raises:
        FacekitError: one line that names ``source`` and what is wrong.
    """
    return _read(text, Terms, source)


def read_record(text: bytes, source: str | Path) -> Record:
    """Parse a record and check its signature.

    Raises:
        FacekitError: one line that names ``source`` and what is wrong.
    """
    return _read(text, Record, source)


T = TypeVar("T", bound=Terms)


def _read(text: bytes, model: type[T], source: str | Path) -> T:
    try:
        return config.validate_json(text, model, source)
    except FacekitError as error:
        if str(error).startswith(f"{source}: "):
            raise
        raise FacekitError(f"{source}: {error}") from error


def _sorted(names: Collection[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        names = [names]
    return tuple(sorted({unicodedata.normalize("NFC", name) for name in names}))


def _check_names(what: str, names: tuple[str, ...]) -> None:
    for name in names:
        if not _PSEUDONYM.fullmatch(name) or unicodedata.normalize("NFC", name) != name:
            raise FacekitError(
                f"{what}: {name!r} is no pseudonym; allowed: 1 to 64 letters, digits, spaces and "
                "any of . _ @ + -, a letter or digit first"
            )
    if not names or list(names) != sorted(set(names)):
        raise FacekitError(f"{what}: {list(names)} must be sorted, each once, and not none")


def check_text(name: str, text: str, *, empty: bool = False) -> None:
    """Check that ``text`` is one line.

    Raises:
        FacekitError: if it is not, or is empty and may not be, or is too long.
    """
    if not (text or empty) or len(text) > 500 or text.strip() != text or not text.isprintable():
        raise FacekitError(
            f"{name} {text[:40]!r}: must be one line of {0 if empty else 1} to 500 characters, "
            "with no space before or after"
        )


def _check_time(name: str, time: datetime) -> None:
    if time.tzinfo is None or time.utcoffset() or time.microsecond:
        raise FacekitError(f"{name} {time}: must be UTC, in whole seconds")
