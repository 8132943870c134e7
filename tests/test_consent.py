"""Consent: what a record says, what the ledger finds, and what a revocation does."""

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from facekit.cli import cli
from facekit.core.errors import FacekitError
from facekit.media.images import write_image
from facekit.provenance import chain, consent, manifest, signed
from facekit.provenance.consent import Attester, Record
from facekit.provenance.ledger import Ledger, Tampered
from facekit.provenance.photos import always, everyone_in, told_by

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SOON = NOW + timedelta(days=365)
P, Q, R, FORM = (letter * 64 for letter in "abcf")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACEKIT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def grant(ledger: Ledger, who: str = "anna", **changed: Any) -> Record:
    arguments: dict[str, Any] = {
        "subjects": [who],
        "photos": {P: [who]},
        "scope": {"train", "generate"},
        "purpose": "a thesis",
        "expires": SOON,
        "adult": True,
        "evidence": FORM,
        "now": NOW,
    }
    return ledger.grant(**{**arguments, **changed})


def used(ledger: Ledger, id: str, name: str = "a.png") -> None:
    ledger.used([id], what="file", path=Path(name), sha256=Q, now=NOW)


# What a record says.


def test_a_record_says_what_was_granted(ledger: Ledger) -> None:
    record = grant(ledger, photos={Q: ["ben", "anna"], P: ["anna"]}, scope=["train"])
    assert ledger.records() == [record] == Ledger(ledger.folder).records()
    assert record.subjects == ("anna",) and record.photos == {P: ("anna",), Q: ("anna", "ben")}
    assert record.attester == "operator" and record.adult is True
    assert record.scope == frozenset({"train"}) and record.evidence == FORM
    assert (record.granted, record.expires) == (NOW, SOON)
    assert ledger.find(record.id) == record
    assert ledger.status(record.id, now=NOW) == "valid"


def test_the_signature_holds_without_facekit(ledger: Ledger) -> None:
    """Checked with cryptography and json alone, from the line in the file."""
    record = grant(ledger, who="jörg")
    line = (ledger.folder / "records.jsonl").read_bytes().splitlines()[1]
    values = json.loads(line)["body"]
    signature = bytes.fromhex(values.pop("signature"))
    text = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(values["public_key"]))
    key.verify(signature, b"facekit consent record 1\n" + text)
    with pytest.raises(InvalidSignature):
        key.verify(signature, text.replace(b"train", b"traim"))
    digest = hashlib.sha256(b"".join([text])).hexdigest()
    assert record.id == f"c-{digest[:12]}" and re.fullmatch(r"c-[0-9a-f]{12}", record.id)
    assert 0 < record.mark_id == int(digest[:12], 16) < 2**48


def test_the_chain_holds_without_facekit(ledger: Ledger) -> None:
    record = grant(ledger)
    ledger.revoke(record.id, "asked to")
    lines = (ledger.folder / "records.jsonl").read_bytes().split(b"\n")
    assert lines.pop() == b"" and len(lines) == 3
    previous, key = "0" * 64, None
    for number, line in enumerate(lines):
        values = json.loads(line)
        key = key or Ed25519PublicKey.from_public_bytes(bytes.fromhex(values["body"]["public_key"]))
        signature = bytes.fromhex(values.pop("signature"))
        assert (values["number"], values["previous"]) == (number, previous)
        text = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
        key.verify(signature, b"facekit ledger line 1\n" + text)
        previous = hashlib.sha256(line).hexdigest()
    assert ledger.head() == f"3:{previous}"


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"adult": False}, "18 or older"),
        ({"adult": 1}, "18 or older"),
        ({"scope": {"trian"}}, "no scope 'trian'; did you mean 'train'"),
        ({"scope": []}, "no scope given"),
        ({"photos": {}}, "no photos given"),
        ({"subjects": []}, "no subjects given"),
        ({"subjects": ["anna", "ben"]}, "about one person, got 2"),
        ({"subjects": [" anna"]}, "' anna' is no pseudonym"),
        ({"subjects": ["anna\n"]}, "no pseudonym"),
        ({"subjects": ["a" * 65]}, "no pseudonym"),
        ({"photos": {P: []}}, "not none"),
        ({"photos": {P: ["ben"]}}, "shows ben, none of whom"),
        ({"photos": {P[:-1]: ["anna"]}}, r"photos\.a"),
        ({"photos": {P.upper(): ["anna"]}}, r"photos\.A"),
        ({"purpose": ""}, "purpose ''"),
        ({"purpose": "two\nlines"}, "one line"),
        ({"purpose": "x" * 501}, "500"),
        ({"expires": NOW}, "must be after 2026-05-01T12:00:00Z"),
        ({"expires": NOW + timedelta(days=6 * 365)}, "at the latest 2031-05-02"),
        ({"expires": datetime(2027, 1, 1)}, "no time zone"),
        ({"evidence": ""}, "needs evidence"),
        ({"evidence": "my form"}, "evidence"),
        ({"evidence": P}, "one of the photos itself"),
        ({"evidence": hashlib.sha256(b"").hexdigest()}, "is an empty file"),
        ({"licence": "CC BY 4.0"}, "belong to 'dataset-licence'"),
        ({"attester": Attester.DATASET, "licence": "CC BY 4.0"}, "licence and its DOI"),
        (
            {"attester": Attester.DATASET, "licence": "CC", "doi": "figshare"},
            "'figshare' is no DOI",
        ),
        ({"attester": Attester.PERSON}, "person's key goes with"),
        ({"person_key": Ed25519PrivateKey.generate()}, "person's key goes with"),
    ],
)
def test_what_may_not_be_granted(ledger: Ledger, changed: dict[str, Any], match: str) -> None:
    with pytest.raises(FacekitError, match=match):
        grant(ledger, **changed)
    assert ledger.records() == []


def test_longest_terms(ledger: Ledger) -> None:
    five, ten = NOW + timedelta(days=1827), NOW + timedelta(days=3653)
    assert ledger.status(grant(ledger, expires=five).id, now=five) == "expired"
    data = {
        "attester": Attester.DATASET,
        "licence": "CC BY 4.0",
        "doi": "10.1234/x",
        "evidence": "",
    }
    assert grant(ledger, expires=ten, **data).expires == ten
    with pytest.raises(FacekitError, match="latest"):
        grant(ledger, expires=ten + timedelta(days=1), **data)


def test_equal_terms_are_two_records(ledger: Ledger) -> None:
    assert grant(ledger).id != grant(ledger).id


def test_a_changed_record_does_not_parse(ledger: Ledger) -> None:
    values = grant(ledger).to_json()
    assert consent.read_record(json.dumps(values).encode(), "r.json").to_json() == values
    changes: dict[str, object] = {
        "scope": ["generate", "publish", "train"],
        "subjects": ["ben"],
        "expires": "2027-05-02T12:00:00Z",
        "photos": {P: ["anna"], Q: ["anna"]},
        "operator": Q,
        "granted": "2026-05-01T12:00:01Z",
        "nonce": "0" * 32,
        "purpose": "fun",
        "adult": False,
        "attester": "person",
        "extra": 1,
        "signature": "0" * 128,
    }
    for key, value in changes.items():
        with pytest.raises(FacekitError, match=r"^r\.json: "):
            consent.read_record(json.dumps({**values, key: value}).encode(), "r.json")
    for key in values:
        left = {name: value for name, value in values.items() if name != key}
        with pytest.raises(FacekitError, match=f"'{key}' is missing"):
            consent.read_record(json.dumps(left).encode(), "r.json")
    for text in (b"", b"[]", b"{", b"null", b"\xff", b'{"subjects": 1}'):
        with pytest.raises(FacekitError, match=r"^r\.json: "):
            consent.read_record(text, "r.json")


# One form only.


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_canonical_json_is_one_form(value: object) -> None:
    text = signed.canonical({"value": value})
    assert text.isascii() and signed.parse(text) == {"value": value}
    assert signed.canonical(json.loads(text)) == text
    with pytest.raises(FacekitError, match="canonical"):
        signed.parse(json.dumps({"value": value}).encode())  # the same, with a space


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"a":1.0}',
        b'{"a":1e3}',
        b'{"a":NaN}',
        b'{"a":1,"a":1}',
        b'{"b":1,"a":1}',
        b'{"a":1} ',
        b'{"a":-0}',
        b'{"a":"\xc3\xa9"}',
        b'{"a":"\\u0041"}',
        b'{"a":"\xff"}',
        b"[" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_other_forms_are_refused(text: bytes) -> None:
    with pytest.raises(FacekitError, match="canonical"):
        signed.parse(text)


def test_what_has_two_forms_is_not_signed() -> None:
    for value in (1.5, float("nan"), {1: 2}, b"x", (1,), {"a": {1}}):
        with pytest.raises(FacekitError):
            signed.canonical(value)


@settings(deadline=None)
@given(st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.timezones()))
def test_times_have_one_form(moment: datetime) -> None:
    text = signed.time_text(moment)
    assert signed.read_time(text) == moment.astimezone(UTC).replace(microsecond=0)
    for other in (text[:-1], text.replace("Z", "+00:00"), text.replace("T", " "), f"{text} "):
        with pytest.raises(FacekitError):
            signed.read_time(other)


def test_names_that_look_alike_are_one_name(ledger: Ledger) -> None:
    record = grant(ledger, who="jo\u0308rg", photos={P: ["j\u00f6rg"]})
    assert record.subjects == ("j\u00f6rg",)


# What holds.


def test_everyone_in_a_file_must_have_consented(ledger: Ledger) -> None:
    anna = grant(ledger, photos={P: ["anna", "ben"], Q: ["anna"]})
    assert ledger.require([anna.id], {"q.jpg": Q}, "train", now=NOW) == {"q.jpg": ("anna",)}
    with pytest.raises(FacekitError, match=r"p\.jpg: shows ben, whose consent to 'train'"):
        ledger.require([anna.id], {"q.jpg": Q, "p.jpg": P}, "train", now=NOW)
    ben = grant(ledger, "ben")
    both = ledger.require([anna.id, ben.id], {"p.jpg": P}, "train", now=NOW)
    assert both == {"p.jpg": ("anna", "ben")}
    with pytest.raises(FacekitError, match=r"p\.jpg: shows anna"):
        ledger.require([ben.id], {"p.jpg": P}, "train", now=NOW)  # anna's record knows of her
    with pytest.raises(FacekitError, match=r"r\.jpg: none of .* covers this file"):
        ledger.require([anna.id, ben.id], {"r.jpg": R}, "train", now=NOW)
    assert ledger.require([anna.id], {}, "generate", now=NOW) == {}


def test_what_is_asked_of_a_record(ledger: Ledger) -> None:
    record = grant(ledger, scope={"train"})
    with pytest.raises(FacekitError, match="consents to train, not to 'generate'"):
        ledger.require([record.id], {}, "generate", now=NOW)
    with pytest.raises(FacekitError, match="did you mean 'train'"):
        ledger.require([record.id], {}, "trian", now=NOW)
    with pytest.raises(FacekitError, match="no consent record given"):
        ledger.require([], {}, "train", now=NOW)
    with pytest.raises(FacekitError, match=f"allowed: {record.id}"):
        ledger.require(["c-000000000000"], {}, "train", now=NOW)
    with pytest.raises(FacekitError, match="expired on 2027-05-01T12:00:00Z"):
        ledger.require([record.id], {}, "train", now=SOON)
    with pytest.raises(FacekitError, match="holds from 2026-05-01"):
        ledger.require([record.id], {}, "train", now=NOW - timedelta(seconds=1))
    moments = [NOW - timedelta(days=1), NOW, SOON - timedelta(seconds=1), SOON]
    found = [ledger.status(record.id, now=moment) for moment in moments]
    assert found == ["not yet", "valid", "valid", "expired"]


def test_one_revoked_record_among_several_stops_all(ledger: Ledger) -> None:
    one, other = grant(ledger), grant(ledger)
    ledger.revoke(other.id, "asked to")
    with pytest.raises(FacekitError, match=f"{other.id}: consent was revoked .*asked to"):
        ledger.require([one.id, other.id], {"p.jpg": P}, "train", now=NOW)
    assert ledger.require([one.id], {"p.jpg": P}, "train", now=NOW)


def test_revocation_takes_effect_at_once_elsewhere(ledger: Ledger) -> None:
    record = grant(ledger)
    for _ in range(3):
        ledger.require([record.id], {"p.jpg": P}, "train", now=NOW)
    Ledger(ledger.folder).revoke(record.id, "asked to")
    with pytest.raises(FacekitError, match="revoked"):
        ledger.require([record.id], {"p.jpg": P}, "train", now=NOW)
    found = ledger.revocation(record.id)
    assert found is not None and found.reason == "asked to" and not found.mistaken
    assert ledger.status(record.id, now=NOW) == "revoked"


def test_who_revokes_stays_in_the_photo(ledger: Ledger) -> None:
    anna, ben = grant(ledger), grant(ledger, "ben")
    assert ledger.require([anna.id, ben.id], {"p.jpg": P}, "train", now=NOW)
    ledger.revoke(ben.id, "asked to")
    with pytest.raises(FacekitError, match="shows ben"):
        ledger.require([anna.id], {"p.jpg": P}, "train", now=NOW)


def test_a_mistaken_record_says_nothing_of_who_is_there(ledger: Ledger) -> None:
    anna, wrong = grant(ledger), grant(ledger, "amna")
    ledger.revoke(wrong.id, "a slip of the pen", mistaken=True)
    assert ledger.require([anna.id], {"p.jpg": P}, "train", now=NOW) == {"p.jpg": ("anna",)}


def test_that_a_record_was_mistaken_may_be_said_later(ledger: Ledger) -> None:
    """A wrong record that was revoked like any other blocks its photos, but not for good."""
    anna, wrong = grant(ledger), grant(ledger, "amna")
    ledger.revoke(wrong.id, "a slip of the pen", now=NOW)
    with pytest.raises(FacekitError, match="shows amna"):
        ledger.require([anna.id], {"p.jpg": P}, "train", now=NOW)
    with pytest.raises(FacekitError, match=r"revoked already, .*entered wrongly, add --mistaken"):
        ledger.revoke(wrong.id, "again")
    ledger.revoke(wrong.id, "amna is anna", mistaken=True, now=SOON)
    for asked in (ledger, Ledger(ledger.folder)):
        assert asked.require([anna.id], {"p.jpg": P}, "train", now=NOW) == {"p.jpg": ("anna",)}
        found = asked.revocation(wrong.id)
        assert found is not None and found.mistaken and found.time == NOW
        assert found.reason == "a slip of the pen; mistaken: amna is anna"
    for mistaken in (True, False):
        with pytest.raises(FacekitError, match="revoked already, on 2026"):
            ledger.revoke(wrong.id, "again", mistaken=mistaken)
    assert ledger.verify().revoked == 1


def test_revoking_twice_or_without_reason_or_what_is_not_there(ledger: Ledger) -> None:
    with pytest.raises(FacekitError, match="no ledger"):
        ledger.revoke("c-000000000000", "x")
    record = grant(ledger)
    with pytest.raises(FacekitError, match="reason ''"):
        ledger.revoke(record.id, "")
    with pytest.raises(FacekitError, match="no consent record 'c-0'"):
        ledger.revoke("c-0", "x")
    ledger.revoke(record.id, "x")
    with pytest.raises(FacekitError, match="revoked already"):
        ledger.revoke(record.id, "y")


# The person's own key.


def test_a_person_signs_with_their_own_key(ledger: Ledger) -> None:
    key = Ed25519PrivateKey.generate()
    record = grant(ledger, attester=Attester.PERSON, person_key=key, evidence="")
    assert record.public_key == signed.public_hex(key) != record.operator
    with pytest.raises(FacekitError, match="stands in the ledger already"):
        ledger.enter(record, now=NOW)
    ledger.revoke(record.id, "asked to")
    with pytest.raises(FacekitError, match="was revoked; a new one must be signed"):
        ledger.enter(record, now=NOW)


def test_a_record_is_of_use_in_one_ledger_only(ledger: Ledger, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    record = grant(ledger, attester=Attester.PERSON, person_key=key)
    other = Ledger(tmp_path / "other")
    with pytest.raises(FacekitError, match="another operator's ledger"):
        other.enter(record, now=NOW)


def test_an_old_signature_is_not_entered(ledger: Ledger) -> None:
    key = Ed25519PrivateKey.generate()
    terms = ledger.terms(
        subjects=["anna"],
        photos={P: ["anna"]},
        scope=["train"],
        purpose="a thesis",
        expires=SOON,
        adult=True,
        attester=Attester.PERSON,
    )
    record = consent.sign(terms, key, now=NOW)
    with pytest.raises(FacekitError, match="expired on"):
        ledger.enter(record, now=SOON)
    operator = signed.load_key(ledger.folder / "operator.pem")
    with pytest.raises(FacekitError, match="not the person's own"):
        consent.sign(terms, operator, now=NOW)


# Uses.


def test_what_was_made_under_a_record(ledger: Ledger, tmp_path: Path) -> None:
    anna, ben = grant(ledger), grant(ledger, "ben")
    (tmp_path / "run").mkdir()
    made, gone = tmp_path / "made.png", tmp_path / "gone.png"
    made.write_bytes(b"pixels")
    digest = hashlib.sha256(b"pixels").hexdigest()
    ledger.used([anna.id], what="run", path=tmp_path / "run", sha256=P, now=NOW)
    ledger.used([ben.id, anna.id], what="file", path=made, sha256=digest, now=SOON)
    ledger.used([ben.id], what="file", path=gone, sha256=digest)
    first, second = ledger.affected(anna.id)
    assert (first.what, first.path, first.now()) == ("run", tmp_path / "run", "there")
    assert (second.path, second.sha256, second.time, second.now()) == (made, digest, SOON, "there")
    assert set(second.ids) == {anna.id, ben.id}
    assert [use.now() for use in ledger.affected(ben.id)] == ["there", "gone"]
    made.write_bytes(b"others")
    assert second.now() == "changed"
    with pytest.raises(FacekitError, match="no consent record"):
        ledger.used(["c-0"], what="file", path=made, sha256=digest)
    with pytest.raises(FacekitError, match="no consent record"):
        ledger.affected("c-0")


def test_what_was_made_in_the_moment_of_revocation_is_still_noted(ledger: Ledger) -> None:
    record = grant(ledger)
    ledger.revoke(record.id, "asked to")
    used(ledger, record.id)
    assert len(ledger.affected(record.id)) == 1


def test_noting_a_use_reads_none_of_the_others(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that thousands of files don't make it crawl; nor do they slow down ``require``."""
    record = grant(ledger)
    used(ledger, record.id)
    ledger.require([record.id], {}, "train", now=NOW)
    read: list[str] = []
    original = chain._bytes
    monkeypatch.setattr(chain, "_bytes", lambda path: read.append(path.name) or original(path))
    used(ledger, record.id)
    assert read == ["uses.head"]
    for _ in range(2):
        ledger.require([record.id], {"p.jpg": P}, "train", now=NOW)
    assert read == ["uses.head"] * 2  # besides, the newest line of the uses
    Ledger(ledger.folder).revoke(record.id, "x")
    read.clear()
    with pytest.raises(FacekitError):
        ledger.require([record.id], {}, "train", now=NOW)
    assert read == ["records.jsonl", "records.head", "uses.head"]


def test_what_is_noted_only_if_all_records_hold(ledger: Ledger, tmp_path: Path) -> None:
    anna, ben = grant(ledger), grant(ledger, "ben")
    other = Ledger(ledger.folder)

    def note(now: datetime = NOW) -> None:
        ids = [anna.id, ben.id]
        ledger.used(ids, what="file", path=tmp_path / "a", sha256=P, valid=True, now=now)

    note()
    with pytest.raises(FacekitError, match="expired on"):
        note(SOON)
    with pytest.raises(FacekitError, match="holds from"):
        note(NOW - timedelta(seconds=1))
    other.revoke(ben.id, "asked to")
    with pytest.raises(FacekitError, match=f"{ben.id}: consent was revoked"):
        note()
    assert len(ledger.affected(anna.id)) == 1 and ledger.verify().uses == 1


def test_no_revocation_comes_between_the_question_and_the_note(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever revokes waits until what was let pass has been noted."""
    record, order = grant(ledger), []
    append = chain.Chain.append

    def slow(self: chain.Chain, key: Any, kind: str, *rest: Any) -> chain.Entry:
        if kind == "use":
            revoking = pool.submit(Ledger(ledger.folder).revoke, record.id, "asked to")
            time.sleep(0.2)
            assert not revoking.done()
            pending.append(revoking)
        order.append(kind)
        return append(self, key, kind, *rest)

    pending: list[Any] = []
    monkeypatch.setattr(chain.Chain, "append", slow)
    with ThreadPoolExecutor(1) as pool:
        ledger.used([record.id], what="file", path=Path("a"), sha256=P, valid=True, now=NOW)
        pending[0].result(30)
    assert order == ["use", "revoke", "revoke"]
    assert len(ledger.affected(record.id)) == 1


# Tampering.


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A ledger with some history, and a valid and a revoked record of it."""
    ledger = Ledger(tmp_path_factory.mktemp("whole") / "ledger")
    anna, ben = grant(ledger), grant(ledger, "ben", photos={Q: ["ben"]})
    used(ledger, anna.id)
    ledger.revoke(ben.id, "asked to")
    for name in "bcd":
        used(ledger, anna.id, f"{name}.png")
    grant(ledger, "carl", photos={R: ["carl"]})
    return ledger.folder, anna.id, ben.id


def must_refuse(folder: Path, name: str, id: str) -> str:
    """Verify must find it; ``require`` too, if it is about grants and revocations."""
    with pytest.raises(Tampered) as found:
        Ledger(folder).verify()
    if name.startswith("records"):
        for ask in (
            lambda: Ledger(folder).require([id], {"p.jpg": P}, "train", now=NOW),
            lambda: Ledger(folder).revoke(id, "x"),
            lambda: used(Ledger(folder), id),
            lambda: Ledger(folder).status(id),
        ):
            with pytest.raises(Tampered):
                ask()
    else:
        with pytest.raises(Tampered):
            Ledger(folder).affected(id)
    assert name.split(".")[0] in str(found.value)
    return str(found.value)


NAMES = st.sampled_from(["records.jsonl", "records.head", "uses.jsonl", "uses.head"])


@settings(deadline=None, max_examples=60)
@given(name=NAMES, where=st.integers(0, 10**6), bits=st.integers(1, 255))
def test_any_changed_byte_is_found(
    whole: tuple[Path, str, str],
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    where: int,
    bits: int,
) -> None:
    folder, id = copy_of(whole, tmp_path_factory)
    content = bytearray((folder / name).read_bytes())
    content[where % len(content)] ^= bits
    (folder / name).write_bytes(content)
    must_refuse(folder, name, id)


@settings(deadline=None, max_examples=40)
@given(name=NAMES, where=st.integers(0, 10**6))
def test_any_truncation_is_found(
    whole: tuple[Path, str, str], tmp_path_factory: pytest.TempPathFactory, name: str, where: int
) -> None:
    folder, id = copy_of(whole, tmp_path_factory)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: where % len(content)])
    said = must_refuse(folder, name, id)
    assert "torn" not in said, "a torn line is none that the head counts"


@settings(deadline=None, max_examples=60)
@given(data=st.data(), name=st.sampled_from(["records.jsonl", "uses.jsonl"]))
def test_any_other_order_or_choice_of_lines_is_found(
    whole: tuple[Path, str, str],
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    name: str,
) -> None:
    folder, id = copy_of(whole, tmp_path_factory)
    lines = (folder / name).read_bytes().splitlines(keepends=True)
    numbers = list(range(len(lines)))
    taken = data.draw(
        st.lists(st.sampled_from(numbers), max_size=len(lines) + 2).filter(
            # Dropping nothing, repeating nothing, in order: no change.
            lambda chosen: chosen != numbers
        )
        | st.permutations(numbers).filter(lambda chosen: chosen != numbers)
    )
    (folder / name).write_bytes(b"".join(lines[number] for number in taken))
    must_refuse(folder, name, id)


def copy_of(
    whole: tuple[Path, str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    folder, id, _ = whole
    copied = tmp_path_factory.mktemp("copy") / "ledger"
    shutil.copytree(folder, copied)
    Ledger(copied).verify()
    return copied, id


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda lines: [*lines, lines[-1]], r"line 6: says that it is line 5: .*replay"),
        (lambda lines: [*lines[:2], *lines[3:]], "line 3: .*taken out or moved"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "line 2: .*taken out or moved"),
        (lambda lines: lines[:-1], "cut off after line 4, its head counts 5"),
        (lambda lines: [], "has no lines"),
        (lambda lines: [*lines[:-1], lines[-1].replace(b"carl", b"karl")], "line 5: its signature"),
        (lambda lines: [b"\n", *lines], "line 1: was changed"),
        (lambda lines: [*lines, b'{"bo'], "line 6: torn"),
    ],
)
def test_the_error_says_what_and_where(
    whole: tuple[Path, str, str],
    tmp_path_factory: pytest.TempPathFactory,
    change: Callable[[list[bytes]], list[bytes]],
    match: str,
) -> None:
    folder, id = copy_of(whole, tmp_path_factory)
    path = folder / "records.jsonl"
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    assert re.search(match, must_refuse(folder, "records.jsonl", id))


@pytest.mark.parametrize(
    "name", ["operator.pem", "records.jsonl", "records.head", "uses.jsonl", "uses.head"]
)
def test_a_missing_file_is_found(
    whole: tuple[Path, str, str], tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder, id = copy_of(whole, tmp_path_factory)
    (folder / name).unlink()
    with pytest.raises(FacekitError, match=f"{re.escape(name)}: is missing"):
        Ledger(folder).verify()
    if not name.startswith("uses"):
        with pytest.raises(FacekitError, match="is missing"):
            Ledger(folder).require([id], {}, "train", now=NOW)


def test_lines_and_heads_of_others_are_found(
    whole: tuple[Path, str, str], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    folder, id = copy_of(whole, tmp_path_factory)
    other = Ledger(tmp_path / "other")
    grant(other, "eve")
    mine = (folder / "records.jsonl").read_bytes()
    foreign = (other.folder / "records.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "records.jsonl").write_bytes(mine + foreign[1])
    assert "another ledger" in must_refuse(folder, "records.jsonl", id)
    # All of another's: signed and chained, but not by this key.
    for name in ("records.jsonl", "records.head"):
        shutil.copy(other.folder / name, folder)
    assert "its signature is wrong" in must_refuse(folder, "records.jsonl", id)
    # One's own chains exchanged.
    folder, id = copy_of(whole, tmp_path_factory)
    shutil.copy(folder / "uses.jsonl", folder / "records.jsonl")
    assert "beginning of another chain" in must_refuse(folder, "records.jsonl", id)
    folder, id = copy_of(whole, tmp_path_factory)
    shutil.copy(folder / "uses.head", folder / "records.head")
    assert "records.head: was changed" in must_refuse(folder, "records.head", id)


def test_two_copies_cannot_be_mixed(
    whole: tuple[Path, str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    (one, id), (two, _) = copy_of(whole, tmp_path_factory), copy_of(whole, tmp_path_factory)
    for folder, name in ((one, "one"), (two, "two")):
        grant(Ledger(folder), name)
        grant(Ledger(folder), name)
    lines = [(f / "records.jsonl").read_bytes().splitlines(keepends=True) for f in (one, two)]
    (one / "records.jsonl").write_bytes(b"".join([*lines[0][:-1], lines[1][-1]]))
    assert "of another copy" in must_refuse(one, "records.jsonl", id)
    (one / "records.jsonl").write_bytes(b"".join(lines[0]))
    Ledger(one).verify()
    shutil.copy(two / "records.head", one)
    assert "not the one that records.head was signed for" in must_refuse(one, "records.head", id)


def test_a_ledger_that_was_read_before_refuses_too(ledger: Ledger) -> None:
    record = grant(ledger)
    ledger.require([record.id], {}, "train", now=NOW)
    path = ledger.folder / "records.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    for _ in range(2):
        with pytest.raises(Tampered):
            ledger.require([record.id], {}, "train", now=NOW)
    path.write_bytes(content)
    ledger.require([record.id], {}, "train", now=NOW)
    grant(Ledger(ledger.folder), "ben")
    more = path.read_bytes()
    path.write_bytes(more + b"{}\n")
    with pytest.raises(Tampered, match="line 4: was changed"):
        ledger.require([record.id], {}, "train", now=NOW)
    path.write_bytes(more)
    assert len(ledger.records()) == 2
    changed = more.replace(b"thesis", b"thesys")
    path.write_bytes(changed)
    os.utime(path, ns=(1, 1))
    with pytest.raises(Tampered):
        ledger.require([record.id], {}, "train", now=NOW)


def test_a_rolled_back_ledger_is_found_by_heads_noted_elsewhere(
    ledger: Ledger, tmp_path: Path
) -> None:
    record = grant(ledger)
    old = tmp_path / "old"
    shutil.copytree(ledger.folder, old)
    before = ledger.head()
    ledger.revoke(record.id, "asked to")
    after = ledger.head()
    assert Ledger(ledger.folder).verify([before, after]).revoked == 1
    # Grants and revocations alone put back: a use has seen what is gone.
    used(ledger, record.id)
    for name in ("records.jsonl", "records.head"):
        shutil.copy(old / name, ledger.folder)
    with pytest.raises(Tampered, match=r"rolled back: it has 2 lines, but line 2 of uses\.jsonl"):
        Ledger(ledger.folder).verify()
    # All put back: nothing in the folder can tell; the head that a run noted does.
    shutil.rmtree(ledger.folder)
    shutil.copytree(old, ledger.folder)
    rolled = Ledger(ledger.folder)
    assert rolled.verify([before]).revoked == 0
    with pytest.raises(Tampered, match=r"rolled back: .* a head noted elsewhere counts 3"):
        rolled.verify([after])
    rolled.revoke(record.id, "another reason")
    with pytest.raises(Tampered, match="line 3: is not the one"):
        rolled.verify([after])
    shutil.rmtree(ledger.folder)
    with pytest.raises(Tampered, match="heads of one were noted"):
        Ledger(ledger.folder).verify([after])


def put_back(old: Path, ledger: Ledger, chain: str) -> None:
    for name in (f"{chain}.jsonl", f"{chain}.head"):
        shutil.copy(old / name, ledger.folder)


@pytest.mark.parametrize("fresh", [True, False])
def test_records_put_back_are_noticed_by_everyone_who_asks(
    ledger: Ledger, tmp_path: Path, fresh: bool
) -> None:
    anna, ben = grant(ledger), grant(ledger, "ben")
    used(ledger, anna.id)
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(ledger.folder, old)
    ledger.revoke(ben.id, "asked to")
    shutil.copytree(ledger.folder, new)
    ledger.require([anna.id], {}, "train", now=NOW)
    put_back(old, ledger, "records")  # right after: no use came between
    asked = Ledger(ledger.folder) if fresh else ledger
    for ask in (
        lambda: asked.require([ben.id], {"p.jpg": P}, "train", now=NOW),
        lambda: asked.status(ben.id, now=NOW),
        lambda: asked.find(ben.id),
        lambda: asked.head(),
        lambda: asked.affected(anna.id),
        lambda: asked.revoke(anna.id, "x"),
        lambda: used(asked, ben.id),
        lambda: grant(asked),
        lambda: asked.verify(),
    ):
        with pytest.raises(Tampered, match=r"rolled back: it has 3 lines, but line 3 of uses"):
            ask()
    put_back(new, ledger, "records")
    assert asked.status(ben.id, now=NOW) == "revoked" and asked.verify().uses == 1


def test_another_later_revocation_in_its_place_is_noticed(ledger: Ledger, tmp_path: Path) -> None:
    """As many lines as before, but not those that the uses have seen."""
    anna, ben = grant(ledger), grant(ledger, "ben")
    old, forked = tmp_path / "old", tmp_path / "forked"
    shutil.copytree(ledger.folder, old)
    shutil.copytree(ledger.folder, forked)
    ledger.revoke(ben.id, "asked to")
    Ledger(forked).revoke(anna.id, "instead")
    put_back(forked, ledger, "records")
    with pytest.raises(Tampered, match=r"line 4: is not the one that line 2 of uses\.jsonl names"):
        ledger.require([ben.id], {}, "train", now=NOW)


def test_long_lines_are_compared_too(ledger: Ledger, tmp_path: Path) -> None:
    """A use of so many records that its line is not read in one go."""
    ids = [grant(ledger, f"p{number}").id for number in range(2)]
    old = tmp_path / "old"
    shutil.copytree(ledger.folder, old)
    Ledger(ledger.folder).revoke(ids[1], "asked to")
    ledger.used([ids[0]], what="x" * (1 << 17), path=Path("a"), sha256=P, now=NOW)
    assert ledger.require([ids[0]], {}, "train", now=NOW) == {}
    put_back(old, ledger, "records")
    with pytest.raises(Tampered, match="rolled back"):
        ledger.require([ids[0]], {}, "train", now=NOW)


def test_a_copy_without_the_key_can_be_checked_by_its_head(
    whole: tuple[Path, str, str], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    folder, _ = copy_of(whole, tmp_path_factory)
    head = Ledger(folder).head()
    (folder / "operator.pem").unlink()
    (folder / "lock").unlink()
    assert Ledger(folder).verify([head]).head == head
    other = Ledger(tmp_path / "other")
    for who in ("eve", "eva", "ewa", "eli"):
        grant(other, who)
    (other.folder / "operator.pem").unlink()
    with pytest.raises(Tampered, match="not the one that a head noted elsewhere names"):
        other.verify([head])
    for wrong in ("", "5", "0:" + P, "5:" + P[1:], "x:" + P):
        with pytest.raises(FacekitError, match="no ledger's head"):
            other.verify([wrong])


def test_the_operators_own_lines_are_checked_for_sense(ledger: Ledger) -> None:
    """Signed lines that say what cannot be: a record twice, a revocation of nothing."""
    record, gone = grant(ledger), grant(ledger, "ben")
    ledger.revoke(gone.id, "asked to")
    key = signed.load_key(ledger.folder / "operator.pem")
    cases = [
        ("grant", record.to_json(), "granted before"),
        ("grant", {**record.to_json(), "purpose": "x"}, "signature is wrong"),
        ("grant", {**record.to_json(), "scope": ["train", "generate"]}, "not in canonical form"),
        ("revoke", {"id": "c-0", "reason": "x", "mistaken": False}, "neither a grant nor"),
        ("use", {}, "neither a grant nor"),
        ("revoke", {"id": gone.id, "reason": "x", "mistaken": False}, "revoked before"),
        ("open", {}, "beginning of another chain"),
    ]
    saved = {path: path.read_bytes() for path in ledger.folder.iterdir()}
    for kind, body, match in cases:
        ledger.require([record.id], {}, "train", now=NOW)
        chain.Chain(ledger.folder, "records").append(key, kind, body, NOW)
        with pytest.raises(Tampered, match=match):
            Ledger(ledger.folder).verify()
        for _ in range(2):  # what it knew before is not believed any more
            with pytest.raises(Tampered, match=match):
                ledger.require([record.id], {}, "train", now=NOW)
        for path, content in saved.items():
            path.write_bytes(content)
        Ledger(ledger.folder).verify()
    chain.Chain(ledger.folder, "uses").open(key, "another", NOW)
    with pytest.raises(Tampered, match=r"uses\.jsonl: belongs to another ledger"):
        ledger.verify()


# Keys and folders.


def test_the_key_is_the_owners_alone(ledger: Ledger) -> None:
    grant(ledger)
    key = ledger.folder / "operator.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(ledger.folder.stat().st_mode) == 0o700
    key.chmod(0o644)
    with pytest.raises(FacekitError, match="chmod 600"):
        Ledger(ledger.folder).verify()


def test_keys_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    key = signed.new_key(path)
    assert signed.public_hex(signed.load_key(path)) == signed.public_hex(key)
    with pytest.raises(FacekitError, match="cannot be kept there"):
        signed.new_key(path)
    for text in (b"", b"no key", path.read_bytes()[:60]):
        path.write_bytes(text)
        with pytest.raises(FacekitError, match="not an unencrypted Ed25519"):
            signed.load_key(path)
    with pytest.raises(FacekitError, match="No such file"):
        signed.load_key(tmp_path / "none.pem")


def test_a_ledger_lies_in_facekits_own_folder(home: Path) -> None:
    assert Ledger().folder == home / "consent"
    assert Ledger().records() == [] and Ledger().head() == "" and not home.exists()
    assert Ledger().verify().records == 0
    with pytest.raises(FacekitError, match="no consent record 'c-0'"):
        Ledger().find("c-0")
    grant(Ledger())
    names = {"lock", "operator.pem", "records.head", "records.jsonl", "uses.head", "uses.jsonl"}
    assert {path.name for path in (home / "consent").iterdir()} == names
    assert [path.name for path in home.iterdir()] == ["consent"]


def test_folders_that_cannot_hold_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "full", tmp_path / "file" / "ledger"):
        with pytest.raises(FacekitError, match="cannot be made there"):
            grant(Ledger(folder))
    grant(Ledger(tmp_path / "empty"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == [
        "empty",
        "file",
        "full",
    ]


# Kills, full disks, many at once.

WRITER = """
import sys
from pathlib import Path
from facekit.provenance.ledger import Ledger
ledger, id, name = Ledger(Path(sys.argv[1])), sys.argv[2], sys.argv[3]
print("ready", flush=True)
for number in range(int(sys.argv[4])):
    ledger.used([id], what="file", path=Path(f"{name}-{number}"), sha256="b" * 64)
"""


def writer(ledger: Ledger, id: str, name: str, count: int) -> subprocess.Popen[str]:
    arguments = [str(ledger.folder), id, name, str(count)]
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WRITER, *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_write_at_once_lose_nothing(ledger: Ledger) -> None:
    record = grant(ledger)
    processes = [writer(ledger, record.id, name, 40) for name in "xyz"]
    for number in range(10):
        used(ledger, record.id, f"w-{number}")
        Ledger(ledger.folder).verify()
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    names = {use.path.name for use in ledger.affected(record.id)}
    expected = {f"{name}-{number}" for name in "xyz" for number in range(40)}
    assert names == expected | {f"w-{number}" for number in range(10)}
    assert ledger.verify().uses == 130
    for process in processes:
        assert process.stdout
        process.stdout.close()


def test_processes_that_make_the_ledger_at_once_agree(tmp_path: Path) -> None:
    ledgers = [Ledger(tmp_path / "ledger") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(grant, ledgers))
    assert {record.id for record in records} == {r.id for r in Ledger(ledgers[0].folder).records()}
    assert len({record.operator for record in records}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["ledger"]


def test_threads_may_share_a_ledger(ledger: Ledger) -> None:
    record = grant(ledger)

    def work(number: int) -> None:
        used(ledger, record.id, str(number))
        ledger.require([record.id], {"p.jpg": P}, "train", now=NOW)
        ledger.affected(record.id)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert len(ledger.affected(record.id)) == 40


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing kills like that here")
def test_a_kill_loses_nothing_that_was_noted(ledger: Ledger) -> None:
    record = grant(ledger)
    for number in range(3):
        process = writer(ledger, record.id, f"k{number}", 100_000)
        assert process.stdout and process.stdout.readline()
        time.sleep(0.05 * (number + 1))
        process.kill()
        process.wait()
        process.stdout.close()
        ledger.mend()
        before = ledger.verify().uses
        assert before == len(Ledger(ledger.folder).affected(record.id))
        used(ledger, record.id)
        assert ledger.verify().uses == before + 1
    assert any(use.path.name.startswith("k2") for use in ledger.affected(record.id))


def test_killed_between_the_line_and_its_head(ledger: Ledger) -> None:
    record = grant(ledger)
    for name, act in (
        ("uses", lambda: used(ledger, record.id)),
        ("records", lambda: ledger.revoke(record.id, "asked to")),
    ):
        head = (ledger.folder / f"{name}.head").read_bytes()
        act()
        (ledger.folder / f"{name}.head").write_bytes(head)
        Ledger(ledger.folder).verify()
        assert Ledger(ledger.folder).status(record.id, now=NOW) in ("valid", "revoked")
    used(ledger, record.id)
    assert ledger.status(record.id, now=NOW) == "revoked"
    found = ledger.verify()
    assert (found.revoked, found.uses) == (1, 2)


def test_a_torn_line_is_said_and_set_aside(ledger: Ledger) -> None:
    record = grant(ledger)
    used(ledger, record.id)
    for name, act in (
        ("uses", lambda: used(ledger, record.id)),
        ("records", lambda: ledger.revoke(record.id, "asked to")),
    ):
        path = ledger.folder / f"{name}.jsonl"
        head, whole = path.with_suffix(".head").read_bytes(), path.read_bytes()
        others = {p: p.read_bytes() for p in ledger.folder.iterdir() if p.stem != name}
        act()
        for other, content in others.items():  # whoever is killed writes no further
            other.write_bytes(content)
        torn = path.read_bytes()[len(whole) : -20]
        for end in (1, len(torn) // 2, len(torn)):
            path.write_bytes(whole + torn[:end])
            path.with_suffix(".head").write_bytes(head)
            for ask in (ledger.verify, act):
                with pytest.raises(Tampered, match=rf"{name}\.jsonl, line \d: torn.*verify --mend"):
                    ask()
            (aside,) = ledger.mend()
            assert aside.read_bytes() == torn[:end] and path.read_bytes() == whole
            assert ledger.mend() == []
        ledger.verify()
    assert ledger.status(record.id, now=NOW) == "valid"
    ledger.revoke(record.id, "asked to")


def test_mending_hides_no_tampering(
    whole: tuple[Path, str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, _ = copy_of(whole, tmp_path_factory)
    path = folder / "records.jsonl"
    content = path.read_bytes()
    for changed in (content[:-1], content[:-30], content.replace(b"carl", b"karl") + b"{"):
        path.write_bytes(changed)
        with pytest.raises(Tampered):
            Ledger(folder).mend()
        assert path.read_bytes() == changed


@pytest.mark.parametrize("which", ["head", "line"])
def test_a_disk_that_is_full_enters_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    record = grant(ledger)
    before = {path.name: path.read_bytes() for path in ledger.folder.iterdir()}
    fsync, calls = os.fsync, iter(["head", "line"])

    def full(descriptor: int) -> None:
        if next(calls) == which:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FacekitError, match=r"cannot be written .*No space left"):
        ledger.revoke(record.id, "asked to")
    monkeypatch.setattr(os, "fsync", fsync)
    assert {path.name: path.read_bytes() for path in ledger.folder.iterdir()} == before
    assert ledger.status(record.id, now=NOW) == "valid"
    ledger.revoke(record.id, "asked to")
    assert ledger.verify().revoked == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no limits there")
def test_a_line_that_fits_in_half_is_taken_back(ledger: Ledger) -> None:
    """With a real limit: the system writes half of the line, then no more."""
    record = grant(ledger)
    size = (ledger.folder / "records.jsonl").stat().st_size
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from facekit.core.errors import FacekitError\n"
        "from facekit.provenance.ledger import Ledger\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size + 100}, {size + 100}))\n"
        "try: Ledger(Path(sys.argv[1])).revoke(sys.argv[2], 'asked to')\n"
        "except FacekitError as error: print(error)"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(ledger.folder), record.id]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "cannot be written" in result.stdout and "nothing was entered" in result.stdout
    assert (ledger.folder / "records.jsonl").stat().st_size == size
    assert ledger.verify().revoked == 0


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_ledger_can_be_asked(ledger: Ledger) -> None:
    record = grant(ledger)
    ledger.folder.chmod(0o500)
    for path in ledger.folder.iterdir():
        path.chmod(0o400)
    try:
        assert Ledger(ledger.folder).require([record.id], {}, "train", now=NOW) == {}
        with pytest.raises(FacekitError, match="cannot be written"):
            Ledger(ledger.folder).revoke(record.id, "x")
    finally:
        ledger.folder.chmod(0o700)


# Who is in which file.


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Media by suffix; nothing looks inside."""
    folder = tmp_path / "photos"
    for name in ("anna/1.jpg", "anna/trip/2.PNG", "ben/1.mp4", "ben/notes.txt", ".trash/3.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_one_persons_photos(photos: Path) -> None:
    found = everyone_in([photos / "anna", photos / "ben" / "1.mp4"], always("anna", "ben"))
    names = ("anna/1.jpg", "anna/trip/2.PNG", "ben/1.mp4")
    assert found == {digest(name): {"anna", "ben"} for name in names}
    with pytest.raises(FacekitError, match=r"none: no such file or folder"):
        everyone_in([photos / "none"], always("anna"))
    (photos / "empty").mkdir()
    with pytest.raises(FacekitError, match=r"no pictures or videos"):
        everyone_in([photos / "empty"], always("anna"))


def test_what_is_no_photo_is_not_granted(photos: Path, tmp_path: Path) -> None:
    for name, content in (("form.pdf", b"%PDF-1.7"), ("notes", b""), ("p.heic", b"ftypheic")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FacekitError, match=f"{name}: neither a picture nor a video"):
            everyone_in([photos / "anna", tmp_path / name], always("anna"))
    upload = tmp_path / "upload"  # a picture by content, whatever its name
    write_image(tmp_path / "p.png", np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "p.png").rename(upload)
    assert list(everyone_in([upload], always("anna")).values()) == [{"anna"}]


def test_a_folder_for_each_person(photos: Path) -> None:
    shutil.copy(photos / "anna" / "1.jpg", photos / "ben" / "same.jpg")
    assert everyone_in([photos], told_by("folder", "set-")) == {
        digest("anna/1.jpg"): {"set-anna", "set-ben"},  # it lies in both folders: both are in it
        digest("anna/trip/2.PNG"): {"set-anna"},
        digest("ben/1.mp4"): {"set-ben"},
    }
    with pytest.raises(FacekitError, match=r"1\.jpg: is in no folder of a person"):
        everyone_in([photos / "anna"], told_by("folder"))
    with pytest.raises(FacekitError, match=r"1\.jpg: is in no folder of a person"):
        everyone_in([photos / "anna" / "1.jpg"], told_by("folder"))


def test_names_that_follow_a_pattern(tmp_path: Path) -> None:
    for name in ("001_smiling_a.jpg", "002_neutral.jpg"):
        (tmp_path / name).write_text(name)
    found = everyone_in([tmp_path], told_by("{subject}_*.jpg"))
    assert found == {digest("001_smiling_a.jpg"): {"001"}, digest("002_neutral.jpg"): {"002"}}
    (tmp_path / "003.jpg").write_text("x")
    with pytest.raises(FacekitError, match=r"003\.jpg: its name does not fit"):
        everyone_in([tmp_path], told_by("{subject}_*.jpg"))
    with pytest.raises(FacekitError, match="must stand in it once"):
        told_by("{subject}_{subject}.jpg")
    with pytest.raises(FacekitError, match="tells nobody's pseudonym"):
        told_by("folders")


def test_an_index(photos: Path, tmp_path: Path) -> None:
    index = photos / "index.csv"
    rows = "anna/1.jpg,anna,24\nanna/1.jpg,ben,unknown\nanna/trip/2.PNG,anna,24\nben/1.mp4,ben,\n"
    index.write_text("file,subject,age\n" + rows)
    for paths in ([photos], [photos / "anna", photos / "ben" / "1.mp4"]):
        assert everyone_in(paths, told_by(str(index))) == {
            digest("anna/1.jpg"): {"anna", "ben"},
            digest("anna/trip/2.PNG"): {"anna"},
            digest("ben/1.mp4"): {"ben"},
        }
    (photos / "new.jpg").write_text("new")
    with pytest.raises(FacekitError, match=r"new\.jpg: not in .*index\.csv; add a row"):
        everyone_in([photos], told_by(str(index)))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"file,subject,age\na.jpg,ann,17\n", r"line 2: ann is 17; minors"),
        (b"name,subject\n", "needs the columns 'file' and 'subject', has name, subject"),
        (b"", "has none"),
        (b"file,subject\na.jpg,\n", "line 2: no file or no subject"),
        (b"file,subject\na.jpg\n", "line 2: no file or no subject"),
        (b"file,subject\n\xff,x\n", "not readable as CSV"),
    ],
)
def test_an_index_that_is_none(tmp_path: Path, text: bytes, match: str) -> None:
    (tmp_path / "index.csv").write_bytes(text)
    with pytest.raises(FacekitError, match=match):
        told_by(str(tmp_path / "index.csv"))
    with pytest.raises(FacekitError, match="not readable as CSV"):
        told_by(str(tmp_path / "none.csv"))


# The command line.


def run(*arguments: object) -> str:
    result = CliRunner().invoke(cli, ["consent", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: object) -> str:
    """The error, whoever words it."""
    result = CliRunner().invoke(cli, ["consent", *map(str, arguments)])
    assert result.exit_code in (1, 2) and result.exception
    return str(result.exception) if result.exit_code == 1 else result.output


def year(ahead: int) -> str:
    return f"{datetime.now(UTC).year + ahead}-12-31"


@pytest.fixture
def terms(photos: Path) -> list[object]:
    return [
        *("--subject", "p17", "--photos", photos / "anna", "--scope", "train, generate"),
        *("--purpose", "a thesis", "--expires", year(1)),
    ]


def test_grant_show_list_revoke(photos: Path, terms: list[object], tmp_path: Path) -> None:
    form = photos / "ben" / "notes.txt"
    said = run("grant", *terms, "--adult", "--evidence", form)
    id = said.split(":")[0]
    assert "p17, all of age: generate, train with 2 photos" in said and "the operator" in said
    shown = json.loads(run("show", id, "--json"))
    assert shown["evidence"] == digest("ben/notes.txt") and shown["status"] == "valid"
    assert shown["photos"] == {digest("anna/1.jpg"): ["p17"], digest("anna/trip/2.PNG"): ["p17"]}
    assert shown["expires"] == f"{year(1)}T23:59:59Z"
    assert digest("anna/1.jpg") in run("show", id)
    row = run("list")
    assert all(text in row for text in (id, "valid", year(1), "generate, train", "p17", "operator"))
    made = tmp_path / "made.png"
    Ledger().used([id], what="run", path=tmp_path, sha256=P)
    Ledger().used([id], what="file", path=made, sha256=P)
    said = run("revoke", id, "--reason", "asked to")
    assert f"{id}: revoked" in said and "made under it: 1 run, 1 file" in said
    receipt = said.split("head ")[1].split()[0]
    assert receipt == Ledger().head() and receipt in run("verify", "--against", receipt)
    assert "revoked" in run("list") and "asked to" in run("show", id)
    table = run("affected", id)
    assert str(made) in table and "gone" in table and "there" in table
    rows = json.loads(run("affected", id, "--json"))
    assert [(row["what"], row["now"]) for row in rows] == [("run", "there"), ("file", "gone")]
    assert json.loads(run("list", "--json", "--subject", "p17"))[0]["id"] == id
    assert json.loads(run("list", "--json", "--subject", "p18")) == []
    assert "revoked already" in refused("revoke", id, "--reason", "x")


def test_names_are_shown_as_they_are(terms: list[object], photos: Path, tmp_path: Path) -> None:
    """Neither rich nor the terminal takes a part of a path for a command."""
    id = run("grant", *terms, "--adult", "--evidence", photos / "ben" / "notes.txt").split(":")[0]
    names = ["[/red] [bold].png", "a:smile:\\[b].png", "two\nlines \x1b[31m.png"]
    for name in names:
        Ledger().used([id], what="[/file]", path=tmp_path / name, sha256=P)
    table = run("affected", id)
    assert table.count("[/file]") == 3
    assert names[0] in table and names[1] in table and "two\ufffdlines \ufffd[31m.png" in table
    assert "\x1b" not in table
    assert [row["path"] for row in json.loads(run("affected", id, "--json"))] == [
        str(tmp_path / name) for name in names
    ]


def test_mistaken_may_be_said_later(terms: list[object], photos: Path) -> None:
    id = run("grant", *terms, "--adult", "--evidence", photos / "ben" / "notes.txt").split(":")[0]
    run("revoke", id, "--reason", "a slip")
    assert "add --mistaken" in refused("revoke", id, "--reason", "a slip")
    assert f"{id}: revoked" in run("revoke", id, "--reason", "not p17", "--mistaken")
    assert "a slip; mistaken: not p17" in run("show", id)
    assert "revoked already" in refused("revoke", id, "--reason", "x", "--mistaken")


def test_a_group_photo_needs_a_record_of_each(terms: list[object], photos: Path) -> None:
    grant = ["grant", *terms, "--adult", "--evidence", photos / "ben" / "notes.txt", "--json"]
    one = json.loads(run(*grant, "--also", "p18"))
    assert set(map(tuple, one["photos"].values())) == {("p17", "p18")}
    with pytest.raises(FacekitError, match="shows p18"):
        Ledger().require([one["id"]], {"1.jpg": digest("anna/1.jpg")}, "train")
    both = json.loads(run(*grant, "--subject", "p18", "--also", "p17"))
    ids = [one["id"], both["id"]]
    assert Ledger().require(ids, {"1.jpg": digest("anna/1.jpg")}, "train")["1.jpg"] == (
        "p17",
        "p18",
    )


def test_a_data_sets_record_covers_all_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(100):
        (folder / f"{number:03}_neutral.jpg").write_text(str(number))
    arguments: list[object] = [
        *("grant", "--dataset-licence", "CC BY 4.0", "--doi", "https://doi.org/10.1234/set.v5"),
        *("--photos", folder, "--subjects", "{subject}_*.jpg", "--prefix", "set-", "--adult"),
        *("--scope", "train", "--purpose", "research", "--expires", year(8)),
    ]
    record = json.loads(run(*arguments, "--json"))
    assert (record["doi"], record["licence"]) == ("10.1234/set.v5", "CC BY 4.0")
    assert len(record["subjects"]) == len(record["photos"]) == 100
    files = {path.name: digest(path.read_text()) for path in folder.iterdir()}
    covered = Ledger().require([record["id"]], files, "train")
    assert covered["042_neutral.jpg"] == ("set-042",)
    assert "100: set-000 to set-099" in run("list")


def test_the_person_signs_on_their_own_machine(
    terms: list[object],
    photos: Path,
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request, answer, key = tmp_path / "p17.json", tmp_path / "signed.json", tmp_path / "mine.pem"
    run("grant", *terms, "--adult", "--request", request)
    assert json.loads(run("list", "--json")) == []
    monkeypatch.setenv("FACEKIT_HOME", str(tmp_path / "theirs"))
    sign = ["sign", request, "--key", key, "--out", answer]
    assert "2 of its 2 photos are not among yours" in refused(*sign, "--photos", photos / "ben")
    assert not key.exists() and not answer.exists()
    asked = CliRunner().invoke(cli, ["consent", *map(str, sign)], input="n\n")
    assert asked.exit_code == 1 and "p17, all of age" in asked.stderr
    assert not key.exists() and not answer.exists()
    sign.append("--yes")
    assert "p17, all of age" in run(*sign, "--photos", photos / "anna")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and not (tmp_path / "theirs").exists()
    for out, match in ((key, "is the key"), (request, "the request itself"), (answer, "is kept")):
        before = out.read_bytes()
        assert match in refused(*sign[:-2], out, "--yes")
        assert out.read_bytes() == before
    theirs = tmp_path / "not-yet.pem"
    assert "is the key" in refused("sign", request, "--key", theirs, "--out", theirs, "--yes")
    assert not theirs.exists()
    run(*sign[:-2], tmp_path / "again.json", "--yes")  # with the key that is there
    assert "p17.json: is there already and is kept" in refused(
        "grant", *terms, "--adult", "--request", request
    )
    monkeypatch.setenv("FACEKIT_HOME", str(home))
    text = answer.read_text()
    answer.write_text(text.replace("a thesis", "an advert"))
    assert "signature is wrong" in refused("grant", "--signed", answer)
    answer.write_text(text)
    assert "the person's own key" in run("grant", "--signed", answer)
    assert "stands in the ledger already" in refused("grant", "--signed", answer)
    assert json.loads(run("list", "--json"))[0]["attester"] == "person"


def test_what_the_command_refuses(terms: list[object], photos: Path, tmp_path: Path) -> None:
    form = ["--evidence", photos / "ben" / "notes.txt"]
    assert "18 or older" in refused("grant", *terms, *form)
    assert "needs evidence" in refused("grant", *terms, "--adult")
    full = ["grant", *terms, *form, "--adult"]
    assert "write it like 2027-12-31" in refused(*full, "--expires", "in a year")
    assert "must be after" in refused(*full, "--expires", "2001-01-01")
    assert "at the latest" in refused(*full, "--expires", year(9))
    assert "no scope 'post'" in refused(*full, "--scope", "post")
    assert "give either --subject" in refused(*full, "--subjects", "folder")
    assert "licence and its DOI" in refused(*full, "--doi", "10.1234/x")
    assert "licence and its DOI" in refused(*full, "--dataset-licence", "CC BY 4.0")
    assert "--photos is missing" in refused("grant")
    assert "none.pdf: not readable" in refused(*full, "--evidence", tmp_path / "none.pdf")
    assert "none.json: not readable" in refused("grant", "--signed", tmp_path / "none.json")
    assert "--subject beside --signed" in refused(
        "grant", "--signed", tmp_path / "none.json", "--subject", "p17"
    )
    assert "--adult beside --signed" in refused("grant", "--adult", "--signed", "none.json")
    photo = photos / "anna" / "1.jpg"
    kept = photo.read_bytes()
    assert "1.jpg: is there already" in refused("grant", *terms, "--adult", "--request", photo)
    assert photo.read_bytes() == kept
    assert "photos itself" in refused("grant", *terms, "--adult", "--evidence", photo)
    empty = tmp_path / "empty.pdf"
    empty.touch()
    assert "an empty file" in refused("grant", *terms, "--adult", "--evidence", empty)
    for option in ("--doi", "--dataset-licence"):
        assert "a licence signs nothing" in refused(*full, "--request", "r", option, "10.1234/x")
    assert "--prefix goes with --subjects" in refused(*full, "--prefix", "x-")
    layout = [*full[:1], *full[3:], "--subjects", "folder", "--also", "p18"]
    assert "--also goes with --subject;" in refused(*layout)
    assert "key 'adult' is missing" in refused(
        "sign", _write(tmp_path, "{}"), "--key", "k", "--out", "o"
    )
    assert "no consent record 'c-1'" in refused("show", "c-1")
    assert run("list").startswith("no records in ")
    assert not Ledger().records()


def _write(folder: Path, text: str) -> Path:
    (folder / "written.json").write_text(text)
    return folder / "written.json"


def test_verify_says_what_is_there_and_what_is_wrong(
    terms: list[object], photos: Path, tmp_path: Path
) -> None:
    assert "nothing was granted here" in run("verify")
    assert "none: no such folder" in refused("verify", "--ledger", tmp_path / "none")
    run("grant", *terms, "--adult", "--evidence", photos / "ben" / "notes.txt")
    head = Ledger().head()
    said = run("verify")
    assert "holds: 1 record (0 revoked), 0 uses" in said and f"head {head}" in said
    noted = tmp_path / "run"
    noted.mkdir()
    (noted / "run.json").write_text(json.dumps({"ledger": head}))
    assert json.loads(run("verify", "--against", noted, "--json"))["head"] == head
    (noted / "run.json").write_text("{}")
    assert "notes no ledger's head" in refused("verify", "--against", noted)
    missing = tmp_path / "missing.png"
    assert "missing.png: no such file or folder" in refused("verify", "--against", missing)
    assert "is no ledger's head" in refused("verify", "--against", "12:9f86")
    written = tmp_path / "plain.png"
    write_image(written, np.zeros((64, 64, 3), np.uint8))
    assert "notes no ledger's head" in refused("verify", "--against", written)
    made = tmp_path / "made.png"
    manifest.sign(written, made, kind="generated", facts={"ledger": f"9:{P}"})
    assert "rolled back" in refused("verify", "--against", made)
    made.write_bytes(made.read_bytes().replace(b"9:aaa", b"8:aaa"))
    assert "changed after signing" in refused("verify", "--against", made)
    assert "rolled back" in refused("verify", "--against", f"9:{P}")
    path = Ledger().folder / "records.jsonl"
    copied = tmp_path / "copied"
    shutil.copytree(Ledger().folder, copied)
    with path.open("ab") as file:
        file.write(b'{"body"')
    assert "torn" in refused("verify")
    result = CliRunner().invoke(cli, ["consent", "verify", "--json"])
    found = json.loads(result.stdout)
    assert result.exit_code == 1 and not found["holds"] and "torn" in found["problem"]
    assert "a torn line was set aside" in run("verify", "--mend")
    assert json.loads(run("verify", "--json"))["holds"] is True
    assert json.loads(run("verify", "--ledger", copied, "--json"))["holds"] is True


def test_an_unknown_id_does_not_list_hundreds(ledger: Ledger) -> None:
    for _ in range(12):
        grant(ledger)
    with pytest.raises(
        FacekitError, match=r"no consent record 'c-1' in .*consent list' shows the 12"
    ):
        ledger.find("c-1")


def test_a_revocation_stands_whatever_is_wrong_with_the_uses(
    terms: list[object], photos: Path
) -> None:
    said = run("grant", *terms, "--adult", "--evidence", photos / "ben" / "notes.txt")
    id = said.split(":")[0]
    uses = Ledger().folder / "uses.jsonl"
    content = uses.read_bytes()
    uses.unlink()
    said = refused("revoke", id, "--reason", "asked to")
    assert f"{id}: is revoked, and that stands; but " in said and "uses.jsonl: is missing" in said
    assert "revoked already" in refused("revoke", id, "--reason", "asked to")
    with pytest.raises(Tampered, match="is missing"):
        Ledger().require([id], {}, "train")
    uses.write_bytes(content)
    assert Ledger().status(id) == "revoked"
