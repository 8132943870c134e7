"""The ledger of consent: what was granted and revoked, and what was made under it; append-only.

    FOLDER/
      operator.pem                 the private key that signs every line (0600)
      records.jsonl, records.head  grants and revocations; how many lines, and the last one's hash
      uses.jsonl, uses.head        runs and files made, and that something was revoked; the same
      lock                         held while a line is added

Both ``.jsonl`` files are chains: each line carries its number, the hash of the line before it, and
an Ed25519 signature; the first names the chain and the key. So a line that was changed, taken out,
put in, moved or repeated is found. Lines cut off at the end are found by the signed head. Whoever
puts back an older ledger together with its older head is found only by a head that was noted
elsewhere: runs note it (:meth:`Ledger.head`), uses repeat it, ``verify`` takes any.

There are two chains, so that those who ask often, ``require`` before each batch, read grants and
revocations, and of the uses the newest line alone, whatever number of files was made. That line
repeats the head of the records that it saw: whoever puts back the records alone is found at once.
"""

import re
import secrets
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from facekit.core import files
from facekit.core.errors import FacekitError, did_you_mean
from facekit.provenance import consent
from facekit.provenance.chain import Chain, Entry, Tampered
from facekit.provenance.consent import SCOPES, Attester, Record, Terms
from facekit.provenance.keys import config_folder
from facekit.provenance.signed import canonical, load_key, new_key, public_hex, time_text, utc

try:
    import fcntl
except ImportError:  # Windows: one process at a time may write.
    fcntl = None  # type: ignore[assignment]

__all__ = ["Ledger", "Revocation", "Status", "Summary", "Tampered", "Use"]

Status = Literal["valid", "expired", "revoked", "not yet"]


@dataclass(frozen=True)
class Revocation:
    """That a record holds no longer.

    Attributes:
        time: since when, UTC.
        reason: why, in words.
        mistaken: the record was entered wrongly: what it says of who is in which file counts no
            more. Else it still counts: who takes consent back stays in the photo.
    """

    time: datetime
    reason: str
    mistaken: bool = False


@dataclass(frozen=True)
class Use:
    """Something that was made under a record.

    Attributes:
        what: "run", "file", "training photos" or the like.
        path: where it was then, absolute.
        sha256: of the file, or of what stands for a folder, in hex.
        time: when it was entered, UTC.
        ids: of all the records that it was made under.
    """

    what: str
    path: Path
    sha256: str
    time: datetime
    ids: tuple[str, ...]

    def now(self) -> Literal["there", "changed", "gone"]:
        """What became of it at that path; of a folder, only whether it is there."""
        try:
            same = self.path.is_dir() or files.sha256(self.path) == self.sha256
        except OSError:
            return "gone"
        return "there" if same else "changed"


@dataclass(frozen=True)
class Summary:
    """What ``verify`` found whole.

    Attributes:
        records, revoked, uses: how many.
        head: of grants and revocations; see :meth:`Ledger.head`.
    """

    records: int
    revoked: int
    uses: int
    head: str


@dataclass
class _State:
    """What the chain of records says in all."""

    records: dict[str, Record] = field(default_factory=dict)
    revoked: dict[str, Revocation] = field(default_factory=dict)
    people: dict[str, set[str]] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)


class Ledger:
    """A folder with a ledger; it is made by the first grant.

    One object may be asked often: files are read again only when they have changed, so that
    another process's revocation takes effect with the next question.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Name a ledger, by default that in ``consent`` of facekit's configuration folder."""
        self.folder = config_folder() / "consent" if folder is None else folder
        self._key_path = self.folder / "operator.pem"
        self._records = Chain(self.folder, "records")
        self._uses = Chain(self.folder, "uses")
        self._state: _State | None = None
        self._parsed: dict[str, Record] = {}
        self._thread = threading.Lock()

    def grant(
        self,
        *,
        subjects: Collection[str],
        photos: Mapping[str, Collection[str]],
        scope: Collection[str],
        purpose: str,
        expires: datetime,
        adult: bool,
        attester: Attester = Attester.OPERATOR,
        evidence: str = "",
        licence: str = "",
        doi: str = "",
        person_key: Ed25519PrivateKey | None = None,
        now: datetime | None = None,
    ) -> Record:
        """Make a record, sign it and enter it.

        Args:
            subjects: pseudonyms of those who consent: one, or for a data set many.
            photos: SHA-256 in hex of each photo or video → pseudonyms of everyone in it.
            scope: of "train", "generate", "publish".
            purpose: what for, in words.
            expires: at most 5 years ahead, for a data set 10; with a time zone.
            adult: must be True: the attester says that all subjects are 18 or older.
            attester: who says so.
            evidence: SHA-256 in hex of what shows the consent; an operator's record needs it.
            licence: of a data set.
            doi: of a data set.
            person_key: the person's own key, for a record that the person attests.
            now: the time, by default the clock's.

        Raises:
            FacekitError: if an argument is not allowed, or the ledger is damaged.
        """
        terms = self.terms(
            subjects=subjects,
            photos=photos,
            scope=scope,
            purpose=purpose,
            expires=expires,
            adult=adult,
            attester=attester,
            evidence=evidence,
            licence=licence,
            doi=doi,
        )
        if (person_key is None) is (attester is Attester.PERSON):
            raise FacekitError("a person's key goes with attester 'person', and with no other")
        return self.enter(consent.sign(terms, person_key or self._key(), now=now), now=now)

    def terms(self, **arguments: Any) -> Terms:
        """Terms for somebody to sign, meant for this ledger; arguments as of :meth:`grant`."""
        self._found()
        return consent.terms(**arguments, operator=public_hex(self._key()))

    def enter(self, record: Record, *, now: datetime | None = None) -> Record:
        """Enter a record that has been signed.

        Raises:
            FacekitError: if it is meant for another ledger, has expired or stands here already.
        """
        now = utc(now)
        self._found()
        with self._locked():
            key = self._key()
            state = self._read()
            if record.operator != public_hex(key):
                raise FacekitError(f"{record.id}: was signed for another operator's ledger")
            if record.id in state.records:
                what = "stands in the ledger already"
                if record.id in state.revoked:
                    what = "was revoked; a new one must be signed"
                raise FacekitError(f"{record.id}: {what}")
            if record.expires <= now:
                raise FacekitError(
                    f"{record.id}: expired on {time_text(record.expires)}, before it was entered"
                )
            self._records.append(key, "grant", record.to_json(), now)
        return record

    def revoke(
        self, id: str, reason: str, *, mistaken: bool = False, now: datetime | None = None
    ) -> None:
        """End a record, now and for good.

        Args:
            id: of the record.
            reason: why, in words.
            mistaken: it was entered wrongly; see :class:`Revocation`. This alone may also be said
                later, of a record that is revoked already.
            now: the time, by default the clock's.

        Raises:
            FacekitError: if there is none of that id, it is revoked already, or no reason is given.
                Also if the uses are damaged: the revocation stands all the same, and it says so.
        """
        consent.check_text("reason", reason)
        now = utc(now)
        with self._locked():
            key, state, trouble = self._key(), self._read_records(), None
            self._state = None  # whoever asks next is to compare it anew
            try:
                newest = self._uses.last(public_hex(key))
            except FacekitError as error:
                trouble = error  # no reason to put off a revocation
            else:
                self._compare(state, newest)
            _known(id, state, self.folder)
            found = state.revoked.get(id)
            if found and (found.mistaken or not mistaken):
                hint = "" if found.mistaken else "; if it was entered wrongly, add --mistaken"
                raise FacekitError(f"{id}: revoked already, on {time_text(found.time)}{hint}")
            body = {"id": id, "mistaken": mistaken, "reason": reason}
            self._records.append(key, "revoke", body, now)
            try:
                if trouble is None:
                    # So that whoever puts back the records alone is found from now on.
                    self._uses.append(key, "revoke", {"id": id, "records": self._head_now()}, now)
            except FacekitError as error:
                trouble = error
        if trouble:
            raise type(trouble)(f"{id}: is revoked, and that stands; but {trouble}") from trouble

    def records(self) -> list[Record]:
        """All records ever granted, in that order."""
        return list(self._load().records.values())

    def find(self, id: str) -> Record:
        """The record of that id, whatever its status.

        Raises:
            FacekitError: if there is none; it lists those there are.
        """
        return _known(id, self._load(), self.folder)

    def status(self, id: str, *, now: datetime | None = None) -> Status:
        """Whether a record holds.

        Raises:
            FacekitError: if there is none of that id.
        """
        return _status(id, self._load(), self.folder, utc(now))

    def revocation(self, id: str) -> Revocation | None:
        """When and why a record was revoked; None if it was not."""
        state = self._load()
        _known(id, state, self.folder)
        return state.revoked.get(id)

    def require(
        self,
        ids: Sequence[str],
        digests: Mapping[str, str],
        scope: str,
        *,
        now: datetime | None = None,
    ) -> dict[str, tuple[str, ...]]:
        """Check that records hold, and that they cover everyone in some files.

        Who is in a file is what any record of the ledger says, also one that was revoked.

        Args:
            ids: of records; each must be valid and include ``scope``.
            digests: name of each file → its SHA-256 in hex; may be empty.
            scope: "train", "generate" or "publish".
            now: the time, by default the clock's.

        Returns:
            Name of each file → pseudonyms of everyone in it, sorted.

        Raises:
            FacekitError: with the first record, file or person that is not covered; also if the
                ledger itself is damaged.
        """
        if scope not in SCOPES:
            raise FacekitError(f"no scope '{scope}'; {did_you_mean(scope, SCOPES)}")
        if not ids:
            raise FacekitError(
                "no consent record given; 'facekit consent list' shows what there is"
            )
        state, now = self._load(), utc(now)
        given = [_holding(id, state, self.folder, now, scope) for id in ids]
        found = {}
        for name, digest in digests.items():
            covering = [record for record in given if digest in record.photos]
            if not covering:
                raise FacekitError(
                    f"{name}: none of {', '.join(ids)} covers this file (SHA-256 {digest[:12]}…); "
                    "no consent to it was recorded, or it was changed since"
                )
            covered = {
                who
                for record in covering
                for who in record.subjects
                if who in record.photos[digest]
            }
            if missing := sorted(state.people[digest] - covered):
                raise FacekitError(
                    f"{name}: shows {missing[0]}, whose consent to '{scope}' none of "
                    f"{', '.join(ids)} holds; everyone in a file must have given it"
                )
            found[name] = tuple(sorted(state.people[digest]))
        return found

    def used(
        self,
        ids: Sequence[str],
        *,
        what: str,
        path: Path,
        sha256: str,
        valid: bool = False,
        now: datetime | None = None,
    ) -> None:
        """Note that something was made under records, for :meth:`affected`.

        Args:
            ids: of the records, also of one that has just been revoked.
            what: "run", "file" or the like.
            path: where it is.
            sha256: of the file, or of what stands for a folder, in hex.
            valid: note it only if all records hold at this moment: none can be revoked between
                the question and the note.
            now: the time, by default the clock's.

        Raises:
            FacekitError: if a record is unknown, or does not hold though ``valid`` asks for it; or
                if the ledger is damaged or can't be written. Then nothing is noted.
        """
        now = utc(now)
        with self._locked():
            state = self._read()
            for id in ids:
                _known(id, state, self.folder)
                if valid:
                    _holding(id, state, self.folder, now)
            body = {
                "ids": sorted(set(ids)),
                "what": what,
                "path": str(path.absolute()),
                "sha256": sha256,
                "records": _head(state.entries),
            }
            self._uses.append(self._key(), "use", body, now)

    def affected(self, id: str) -> list[Use]:
        """What was made under a record, oldest first.

        Raises:
            FacekitError: if there is none of that id, or the ledger is damaged.
        """
        self.find(id)
        with self._locked(alone=False):
            entries = self._uses.read(public_hex(self._key()))
        return [_use(entry) for entry in _uses(entries) if id in entry.body["ids"]]

    def head(self) -> str:
        """``COUNT:HASH`` of the grants and revocations so far, to be noted elsewhere.

        ``verify`` takes it, and sees then if the ledger was rolled back behind it. "" if there is
        no ledger yet.
        """
        return _head(self._load().entries)

    def verify(self, against: Sequence[str] = ()) -> Summary:
        """Check every line of both chains, from the first.

        Args:
            against: heads that were noted elsewhere, as :meth:`head` gives them. With one of them,
                a copy of a ledger can be checked without its private key.

        Returns:
            What there is.

        Raises:
            Tampered: with the first thing that is wrong, and where.
            FacekitError: if the ledger can't be read, or a head is none.
        """
        wanted = [_parse_head(head) for head in against]
        if not self._exists():
            if against:
                raise Tampered(f"{self.folder}: has no ledger, but heads of one were noted")
            return Summary(0, 0, 0, "")
        # A copy elsewhere has no key: then the noted head vouches for it.
        copied = bool(against) and not self._key_path.exists()
        with self._locked(alone=False):
            key = None if copied else public_hex(self._key())
            entries = Chain(self.folder, "records").read(key)
            key = key or str(entries[0].body["public_key"])
            uses = Chain(self.folder, "uses").read(key)
        state = self._state_of(entries)
        if entries[0].body["ledger"] != uses[0].body["ledger"]:
            raise Tampered(f"{self._uses.path}: belongs to another ledger")
        for head in wanted:
            _require_head(entries, head, f"{self._records.path}", "a head noted elsewhere")
        for use in uses:
            self._compare(state, use)
        made = len(_uses(uses))
        return Summary(len(state.records), len(state.revoked), made, _head(entries))

    def mend(self) -> list[Path]:
        """Set aside lines that a kill or a full disk has torn; the files that they are in now.

        Raises:
            Tampered: if anything else is wrong.
        """
        with self._locked():
            key = public_hex(self._key())
            found = [Chain(self.folder, name).mend(key) for name in ("records", "uses")]
        return [path for path in found if path]

    def _load(self) -> _State:
        """What the ledger says now."""
        if not self._exists():
            return _State()
        state = self._state  # another thread may forget it meanwhile
        if state is None or self._records.changed() or self._uses.changed():
            with self._locked(alone=False):
                return self._read()
        return state

    def _read(self) -> _State:
        """The same; the caller holds the lock."""
        state = self._read_records()
        self._state = None  # until all of it has been checked
        self._compare(state, self._uses.last(public_hex(self._key())))
        self._state = state
        return state

    def _read_records(self) -> _State:
        """The same, but not compared with the uses."""
        if self._state is not None and not self._records.changed():
            return self._state
        self._state = None
        return self._state_of(self._records.read(public_hex(self._key())))

    def _compare(self, state: _State, use: Entry) -> None:
        """See that the records are not older than what a line of the uses has seen."""
        if not use.number:
            return
        where = f"line {use.number + 1} of {self._uses.path.name}"
        head = _parse_head(str(use.body.get("records")))
        _require_head(state.entries, head, f"{self._records.path}", where)

    def _head_now(self) -> str:
        """The head, with a line that was added just now; the caller holds the lock."""
        return _head(self._read_records().entries)

    def _state_of(self, entries: list[Entry]) -> _State:
        state = _State(entries=list(entries))
        for entry in entries[1:]:
            where = f"{self._records.path}, line {entry.number + 1}"
            if entry.kind == "grant":
                record = self._record_of(entry, where)
                if record.id in state.records:
                    raise Tampered(f"{where}: {record.id} was granted before (replay)")
                if record.operator != entries[0].body["public_key"]:
                    raise Tampered(f"{where}: {record.id} was signed for another operator's ledger")
                state.records[record.id] = record
            elif entry.kind == "revoke" and entry.body.get("id") in state.records:
                id, reason = entry.body["id"], entry.body.get("reason")
                mistaken = entry.body.get("mistaken") is True
                before = state.revoked.get(id)
                if before and (before.mistaken or not mistaken):
                    raise Tampered(f"{where}: {id} was revoked before (replay)")
                state.revoked[id] = (
                    replace(before, mistaken=True, reason=f"{before.reason}; mistaken: {reason}")
                    if before
                    else Revocation(entry.time, str(reason), mistaken)
                )
            else:
                raise Tampered(f"{where}: neither a grant nor the revocation of a record above")
        for id, record in state.records.items():
            if not (id in state.revoked and state.revoked[id].mistaken):
                for digest, names in record.photos.items():
                    state.people.setdefault(digest, set()).update(names)
        return state

    def _record_of(self, entry: Entry, where: str) -> Record:
        if entry.hash not in self._parsed:
            try:
                record = consent.read_record(canonical(entry.body), where)
            except FacekitError as error:
                raise Tampered(str(error)) from error
            if record.to_json() != entry.body:
                raise Tampered(f"{where}: a record that is not in canonical form")
            self._parsed[entry.hash] = record
        return self._parsed[entry.hash]

    def _key(self) -> Ed25519PrivateKey:
        if not self._key_path.exists():
            raise FacekitError(
                f"{self._key_path}: is missing, so that nobody can tell whose ledger this is; put "
                "the key back from a copy"
            )
        return load_key(self._key_path)

    def _exists(self) -> bool:
        """Whether there is a ledger, or what is left of one."""
        own = (self._key_path, *_files(self._records), *_files(self._uses))
        return any(path.exists() for path in own)

    def _found(self) -> None:
        """Make the ledger if there is none: beside, then renamed, so that it is never half."""
        if self._exists():
            return
        parent = self.folder.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=parent, prefix=".consent") as temporary:
                made = Path(temporary) / "made"
                made.mkdir(mode=0o700)
                key, name, now = new_key(made / "operator.pem"), secrets.token_hex(16), utc()
                Chain(made, "records").open(key, name, now)
                Chain(made, "uses").open(key, name, now)
                (made / "lock").touch()
                try:
                    made.rename(self.folder)
                except OSError:
                    # Of two processes, one wins.
                    if not self._exists():
                        raise
        except OSError as error:
            raise FacekitError(
                f"{self.folder}: the ledger cannot be made there ({error.strerror}); give a folder "
                "of its own that can be written to, e.g. by setting FACEKIT_HOME"
            ) from error

    @contextmanager
    def _locked(self, *, alone: bool = True) -> Iterator[None]:
        """Hold the ledger: ``alone`` to write, else beside others who read."""
        if not self._exists():
            raise FacekitError(f"{self.folder}: no ledger; nothing was granted here")
        lock = self.folder / "lock"
        with self._thread:
            try:
                file = lock.open("ab" if alone else "rb")
            except OSError as error:
                if alone:
                    raise FacekitError(f"{lock}: cannot be written ({error.strerror})") from error
                # A ledger on a read-only disk, or a copy: nobody writes to it meanwhile.
                yield
                return
            with file:
                if fcntl:
                    fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
                yield


def _files(chain: Chain) -> tuple[Path, Path]:
    return chain.path, chain.head_path


def _known(id: str, state: _State, folder: Path) -> Record:
    if id not in state.records:
        count = len(state.records)
        hint = f"'facekit consent list' shows the {count} there are"
        if count < 10:
            hint = did_you_mean(id, state.records)
        raise FacekitError(f"no consent record '{id}' in {folder}; {hint}")
    return state.records[id]


def _status(id: str, state: _State, folder: Path, now: datetime) -> Status:
    record = _known(id, state, folder)
    if id in state.revoked:
        return "revoked"
    if now < record.granted:
        return "not yet"
    return "valid" if now < record.expires else "expired"


def _holding(
    id: str, state: _State, folder: Path, now: datetime, scope: str | None = None
) -> Record:
    """The record, if it is valid and its scope includes ``scope``, where one is asked for."""
    record, status = _known(id, state, folder), _status(id, state, folder, now)
    if status == "revoked":
        found = state.revoked[id]
        raise FacekitError(
            f"{id}: consent was revoked on {time_text(found.time)} ({found.reason}); nothing may "
            "be made under it"
        )
    if status != "valid":
        when = f"expired on {time_text(record.expires)}"
        if status == "not yet":
            when = f"holds from {time_text(record.granted)} on; the clock says {time_text(now)}"
        raise FacekitError(f"{id}: {when}; ask for consent anew")
    if scope and scope not in record.scope:
        raise FacekitError(f"{id}: consents to {', '.join(sorted(record.scope))}, not to '{scope}'")
    return record


def _uses(entries: list[Entry]) -> list[Entry]:
    """Of the lines of the uses those that tell of something made, not of a revocation."""
    return [entry for entry in entries[1:] if entry.kind == "use"]


def _use(entry: Entry) -> Use:
    body = entry.body
    ids = tuple(body["ids"])
    return Use(body["what"], Path(body["path"]), body["sha256"], entry.time, ids)


def _head(entries: list[Entry]) -> str:
    return f"{len(entries)}:{entries[-1].hash}" if entries else ""


def _parse_head(text: str) -> tuple[int, str]:
    found = re.fullmatch(r"([1-9][0-9]{0,9}):([0-9a-f]{64})", text)
    if not found:
        raise FacekitError(f"'{text}' is no ledger's head; it looks like 12:9f86d0…, 64 hex digits")
    return int(found[1]), found[2]


def _require_head(entries: list[Entry], head: tuple[int, str], path: str, whose: str) -> None:
    count, last = head
    if count > len(entries):
        raise Tampered(
            f"{path}: rolled back: it has {len(entries)} lines, but {whose} counts {count}"
        )
    if entries[count - 1].hash != last:
        raise Tampered(f"{path}, line {count}: is not the one that {whose} names; it was replaced")
