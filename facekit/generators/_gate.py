"""Whose face may be generated: that of people who don't exist, or of real ones who consent.

Training data and every file to be changed must be certified studio media, or covered, file by file
and person by person, by consent records that hold now. Consent is asked for again at every
checkpoint and, while frames are made, every second: a revocation takes effect at once. Nothing live
or still growing is taken, so that no generator becomes a tool for impersonation in a call.

What draws no faces needs none of that: the plug-ins named in :data:`DRAW_NO_FACES`, and no others,
whatever a plug-in or a ``run.json`` says of itself.
"""

import hashlib
import json
import logging
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from facekit.core import checkpoint, files
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.core.run import Run
from facekit.datasets.manifest import load_folder
from facekit.types import MANIFEST, Item

if TYPE_CHECKING:
    import torch

    from facekit.provenance.ledger import Ledger
    from facekit.studio.certificate import Certificate

log = logging.getLogger("facekit")

T = TypeVar("T")

CHECK_EVERY = 1.0
"""Seconds after which consent is asked for again while frames are made."""

SETTLED = 1.0
"""Seconds after which a file that was written is taken for finished."""

DRAW_NO_FACES = frozenset({"points"})
"""The plug-ins that pass without data: they are handed none, and draw no faces.

A list, against the house's custom, because it is the gate's to say and not a plug-in's. Whoever
adds a name sees to it that the plug-in reads no pictures; ``tests/test_points.py`` does, too.
"""

NO_FACES = "none needed: draws no faces"
"""What stands in the place of consent in the run of such a plug-in."""

_CERTIFICATE = re.compile(r"studio-[0-9a-f]{12}")

_REMEDY = (
    "get consent of everyone in it, or cut or blur the others out and grant consent for the new "
    "file; where no face is, that is the remedy too"
)
_REMEDY_OF_VIDEOS = "; where one person was taken for two, cut the video between them"


@dataclass(frozen=True)
class Permit:
    """What lets some files be used: a studio certificate, or consent records.

    Attributes:
        certificate: id of the certificate; "" for real people.
        records: ids of the consent records, sorted; none for people who don't exist.
        faceless: nothing is shown to the generator and it draws no faces.
        items: the pictures of a folder that was let pass; whoever reads one compares its hash.
        files: a single file that was let pass, with its SHA-256 in hex: only while it has that
            may it be used, so an export is given both as its input.
        data_hash: of a folder, what says whether two runs learn from the same.
    """

    certificate: str = ""
    records: tuple[str, ...] = ()
    faceless: bool = False
    items: tuple[Item, ...] = ()
    files: Mapping[Path, str] = field(default_factory=dict)
    data_hash: str = ""

    @property
    def consent(self) -> str | list[str]:
        """As ``run.json`` and the checkpoints record it."""
        return list(self.records) or self.certificate or (NO_FACES if self.faceless else "")

    @property
    def origin(self) -> str:
        """What the manifest of an output says that it came from: studio, consent or no faces."""
        if self.faceless:
            return "no faces"
        return "studio" if self.certificate else "consent"

    @cached_property
    def ledger(self) -> "Ledger":
        """The user's: one for all questions, since it reads its files only when they change."""
        return _ledger()

    def notes(self) -> dict[str, str]:
        """What a checkpoint carries along: the consent, and the ledger's head at that time.

        The head is for what must not outlive a ledger that is put back to an older one.
        """
        head = {"ledger": self.ledger.head()} if self.records else {}
        return {"consent": json.dumps(self.consent), **head}

    def check(self, scope: str) -> None:
        """See that it still holds.

        Raises:
            FacekitError: if a record was revoked, has expired, or does not cover ``scope``; or if
                this permits nothing.
        """
        if self.records:
            self.ledger.require(self.records, {}, scope)
        elif not (self.certificate or self.faceless):
            raise FacekitError("neither a studio certificate nor a consent record; nothing is done")

    def covers(self, scope: str) -> bool:
        """Whether every record has ``scope``; whatever shows people who don't exist has it."""
        return all(scope in self.ledger.find(id).scope for id in self.records)


class GatedRun(Run):
    """A run that was let pass: no checkpoint is written without consent, and each carries its ids.

    Attributes:
        permit: what its training data stand on.
    """

    def __init__(self, folder: Path) -> None:
        """Open an existing run.

        Raises:
            FacekitError: as :class:`facekit.core.run.Run`, or if ``run.json`` records as consent
                what is none.
        """
        super().__init__(folder)
        self.permit = _recorded(self.facts.get("consent"), folder)
        self._require_faces_permitted()

    @property
    def items(self) -> tuple[Item, ...]:
        """The pictures that may be learned from; of a run that was started, not merely opened."""
        return self.permit.items

    @property
    def id(self) -> str:
        """What it was made from, its consent included, as "r-" and 12 hex digits."""
        return f"r-{_digest([self.identity(), self.facts.get('consent')])[:12]}"

    def admit(self, permit: Permit) -> None:
        """Record what the run stands on, in it and in the ledger; or, on resuming, compare.

        Raises:
            FacekitError: if the run or a checkpoint in it stands on something else.
        """
        before = self.facts.get("consent")
        if before is not None and before != permit.consent:
            raise FacekitError(
                f"{self.folder}: holds a run under other consent ({_named(before)}, now "
                f"{_named(permit.consent)}); resume with the same, or give another --out"
            )
        self.permit = permit
        self._require_faces_permitted()
        self.facts["consent"] = permit.consent
        self.require_same_checkpoints()
        if before is None and permit.records:
            permit.ledger.used(
                permit.records, what="run", path=self.folder, sha256=self.facts["data_hash"]
            )
        self.note(**permit.notes() | {"consent": permit.consent, "id": self.id})

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint that carries the consent's ids.

        Raises:
            FacekitError: if the consent does not hold any more; then none is written.
        """
        try:
            self.permit.check("train")
        except FacekitError as error:
            raise FacekitError(
                f"{self.folder}: training stopped, nothing is kept of step {step}: {error}"
            ) from error
        self.notes = self.permit.notes()
        super().save(step, state)

    def _require_faces_permitted(self) -> None:
        """See that only those of :data:`DRAW_NO_FACES` go without certificate and consent.

        Raises:
            FacekitError: if another one does.
        """
        if self.permit.faceless and self.facts["plugin"] not in DRAW_NO_FACES:
            raise FacekitError(
                f"{self.folder}: {self.facts['plugin']} draws faces, so it needs a studio "
                "certificate or consent; train anew with 'facekit generator train'"
            )

    def require_same_checkpoints(self) -> None:
        """See that the weights stand on what ``run.json`` says, and know the ledger's past.

        Raises:
            FacekitError: if they say something else, or nothing; or if the ledger is an older one.
        """
        heads = [str(self.facts.get("ledger", ""))]
        for path in self.checkpoints():
            notes = checkpoint.notes(path)
            if "consent" not in notes:
                raise FacekitError(
                    f"{path}: does not say under whose consent it was trained: it was changed, or "
                    "is of an older version; train anew with another --out"
                )
            if notes["consent"] != json.dumps(self.facts["consent"]):
                raise FacekitError(
                    f"{path}: was trained under other consent than run.json says "
                    f"({notes['consent']}, {json.dumps(self.facts['consent'])}); one of them was "
                    "changed; train anew with another --out"
                )
            heads.append(notes.get("ledger", ""))
        if self.permit.records:
            self.permit.ledger.verify([head for head in heads if head])


def admit_nothing(plugin: str, data: Path | None, consent: Sequence[str]) -> Permit:
    """Let a plug-in pass that draws no faces, and see to it that it is handed none.

    Args:
        plugin: its name.
        data: a folder, if one was given.
        consent: ids of consent records, if any were given.

    Raises:
        FacekitError: if it is not one of :data:`DRAW_NO_FACES`, or is handed something.
    """
    if plugin not in DRAW_NO_FACES:
        raise FacekitError(
            f"{plugin} says that it draws no faces, but only {', '.join(sorted(DRAW_NO_FACES))} "
            "may go without data and consent; give --data"
        )
    if data is not None or consent:
        raise FacekitError(
            f"{plugin} draws no faces and learns from no photos: leave --data and --consent away"
        )
    return Permit(faceless=True)


def admit_folder(
    data: Path, consent: Sequence[str], device: "torch.device", *, videos: bool = False
) -> Permit:
    """Check that a folder may be trained on.

    Args:
        data: a certified studio folder; or one with photos of real people: with a manifest, or
            without, then every picture below it counts.
        consent: ids of consent records; none for a studio folder.
        device: where to look for faces.
        videos: whether videos of real people count as well; else they are left out, and it is said.

    Raises:
        FacekitError: naming the first file or person that is not covered.
    """
    if not consent:
        return _studio_folder(data)
    records = tuple(sorted(set(consent)))
    if found := next((path for path in data.rglob("certificate.json")), None):
        raise FacekitError(
            f"{found}: a studio certificate beside real photos; a run learns either from people "
            "who don't exist or from real ones: take it out, or leave --consent away"
        )
    items = _pictures(data, videos)
    ledger = _ledger()
    digests = {str(data / item.path): item.sha256 for item in items}
    people = ledger.require(records, digests, "train")
    _require_needed(ledger, records, digests)
    _require_everyone_named(people, device)
    named = tuple(
        item.model_copy(update={"subject": _subject(data, item, people[str(data / item.path)])})
        for item in items
    )
    learned = _digest([[item.path, item.sha256, item.subject] for item in named])
    return Permit(records=records, items=named, data_hash=learned)


def admit_file(path: Path, consent: Sequence[str], device: "torch.device") -> Permit:
    """Check that a video or picture may be changed.

    Args:
        path: of it; see :func:`closed_file`.
        consent: ids of consent records; none for a certified studio file.
        device: where to look for faces.

    Raises:
        FacekitError: if it is not covered, or shows more people than the records name; or if a
            record covers nobody in it.
    """
    if not consent:
        return _certified_files([path])
    if _in_studio(path):
        raise FacekitError(
            f"{path}: lies in a studio folder; a studio certificate beside real photos counts "
            "for neither: take the file out, or leave --consent away"
        )
    return _consented([path], consent, device)


def admit_together(
    groups: Sequence[Sequence[Path]], consent: Sequence[str], device: "torch.device"
) -> list[Permit]:
    """Check that files may be used for one work, such as photos and what is to move them.

    Those of a group come from one place: certified studio files, or real ones. All real ones
    together must be covered by the records, and each record must cover somebody in them.

    Args:
        groups: of files, one or more in each.
        consent: ids of consent records; none if all files are the studio's.
        device: where to look for faces.

    Raises:
        FacekitError: as :func:`admit_file`; or if there are records and no real files.
    """
    certified, real = [], []
    for group in groups:
        if consent and not _in_studio(group[0]):
            real += list(group)
        else:
            certified.append(_certified_files(group))
    if consent and not real:
        raise FacekitError(
            f"--consent {consent[0]}: all files given are the studio's, which need none; leave it "
            "away"
        )
    return certified + ([_consented(real, consent, device)] if real else [])


def _in_studio(path: Path) -> bool:
    """Whether it lies where a studio certificate would cover it."""
    return any(
        (folder / "certificate.json").is_file() for folder in list(path.absolute().parents)[:2]
    )


def _certified_files(paths: Sequence[Path]) -> Permit:
    """The permit of studio files of one folder; each picture is rendered again and compared."""
    digests, ids = {}, set()
    for path in paths:
        found = _certificate(path)
        ids.add(found.id)
        if len(ids) > 1:
            raise FacekitError(f"{path}: is of another studio folder than {paths[0]}; give one's")
        name = path.resolve().relative_to(found.folder.resolve()).as_posix()
        digests[path] = found.files[name]
    return Permit(certificate=ids.pop(), files=digests)


def _consented(paths: Sequence[Path], consent: Sequence[str], device: "torch.device") -> Permit:
    """The permit of real files that records cover, everyone in them and nobody else."""
    records = tuple(sorted(set(consent)))
    ledger = _ledger()
    digests = {str(path): files.sha256(path) for path in paths}
    people = ledger.require(records, digests, "generate")
    _require_needed(ledger, records, digests)
    _require_everyone_named(people, device)
    return Permit(records=records, files={path: digests[str(path)] for path in paths})


def watched(things: Iterable[T], permits: Sequence[Permit]) -> Iterator[T]:
    """Pass on ``things`` as long as all ``permits`` cover generating, and see to it at the end.

    Raises:
        FacekitError: within about :data:`CHECK_EVERY` of work after one of them ceases to.
    """

    def check() -> float:
        for permit in permits:
            permit.check("generate")
        return time.monotonic()

    last = check()
    for thing in things:
        if time.monotonic() - last >= CHECK_EVERY:
            last = check()
        yield thing
    check()


def certified(path: Path) -> str:
    """The id of the studio certificate that covers ``path``, a folder or a file in one.

    Raises:
        FacekitError: if there is none, or the media are not those that it was issued for.
    """
    return _certificate(path).id


def _certificate(path: Path) -> "Certificate":
    """The studio certificate that covers ``path``, a folder or a file in one."""
    from facekit.studio.certificate import verify

    try:
        found = verify(path)
        if not _CERTIFICATE.fullmatch(found.id):
            raise FacekitError(
                f"{found.folder}: the certificate's id '{found.id}' is none of the studio's"
            )
        return found
    except FacekitError as error:
        raise FacekitError(
            f"{error}. Photos of real people need a consent record of everyone in them: 'facekit "
            "consent grant', then 'facekit generator' with --consent ID; people who don't exist "
            "are made by 'facekit studio render' or 'facekit studio clip'"
        ) from error


def closed_file(name: str) -> Path:
    """``name`` as the path of a regular file that nobody is writing to.

    Raises:
        FacekitError: for a stream's address, a pipe, a device, a folder, or a growing file.
    """
    path = Path(name)
    rule = "input must be a finished file on disk, because live impersonation is not built here"
    if "://" in name:
        raise FacekitError(f"{name}: a stream's address; {rule}")
    before = _stat(path)
    if stat.S_ISDIR(before.st_mode):
        raise FacekitError(f"{name}: a folder; give one video or picture in it")
    if not stat.S_ISREG(before.st_mode):
        raise FacekitError(f"{name}: a pipe or device; {rule}")
    if time.time() - before.st_mtime < SETTLED:
        # Written this very second: whoever writes it may not be done.
        time.sleep(SETTLED)
        if _stat(path).st_size != before.st_size:
            raise FacekitError(f"{name}: still growing; {rule}")
    return path


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise FacekitError(f"{path}: not readable ({error.strerror})") from error
    except ValueError as error:  # a null character in the name
        raise FacekitError(f"{str(path)!r}: not a file name") from error


def _studio_folder(data: Path) -> Permit:
    """The permit of a certified folder, if its manifest still lists what was certified."""
    found = _certificate(data)
    items = tuple(load_folder(data))
    for item in items:
        if found.files.get(item.path) != item.sha256:
            raise FacekitError(
                f"{data / MANIFEST}: was changed while it was used; let it be, and begin again"
            )
    return Permit(certificate=found.id, items=items, data_hash=found.files[MANIFEST])


def _ledger() -> "Ledger":
    from facekit.provenance.ledger import Ledger

    return Ledger()


def _recorded(consent: object, folder: Path) -> Permit:
    """The permit that ``run.json`` records."""
    if consent is None or consent == "":
        return Permit()
    if consent == NO_FACES:
        return Permit(faceless=True)
    if isinstance(consent, str) and _CERTIFICATE.fullmatch(consent):
        return Permit(certificate=consent)
    if isinstance(consent, list) and consent and all(isinstance(id, str) for id in consent):
        return Permit(records=tuple(consent))
    raise FacekitError(
        f"{folder / 'run.json'}: 'consent' is {consent!r}; a certificate's id or a list of "
        "records' ids is allowed; it was changed: train anew"
    )


def _pictures(data: Path, videos: bool) -> list[Item]:
    """The pictures of a folder, and its videos if they count: its manifest's, or all below it."""
    from facekit.media.find import VIDEO_SUFFIXES, find_media

    if not data.is_dir():
        raise FacekitError(f"{data}: not a folder; give one with photos")
    if (data / MANIFEST).is_file():
        items = load_folder(data, verify=True)
    else:
        paths = find_media([data])
        items = [
            Item(path=path.relative_to(data).as_posix(), sha256=files.sha256(path))
            for path in paths
        ]
    pictures = [i for i in items if videos or Path(i.path).suffix.lower() not in VIDEO_SUFFIXES]
    if len(pictures) < len(items):
        log.info(
            "%s: left out %d videos; 'facekit align' makes pictures of them, to be granted",
            *(data, len(items) - len(pictures)),
        )
    if not pictures:
        raise FacekitError(f"{data}: holds no photos")
    return pictures


def _subject(data: Path, item: Item, people: Sequence[str]) -> str:
    """Whose face is the largest: of the people whom the records name, the folder says it."""
    if len(people) == 1:
        return people[0]
    for name in (item.subject, Path(item.path).parent.name):
        if name in people:
            return name
    raise FacekitError(
        f"{data / item.path}: shows {', '.join(people)} by its records; whose face is to be "
        "learned, the largest, is not said: put it into a folder of that name"
    )


def _require_needed(ledger: "Ledger", records: Sequence[str], digests: Mapping[str, str]) -> None:
    """See that each record covers somebody: the manifest and the ledger say that it did.

    Raises:
        FacekitError: with the first that does not.
    """
    for id in records:
        record = ledger.find(id)
        shown = (record.photos.get(digest, ()) for digest in digests.values())
        if not any(set(record.subjects) & set(people) for people in shown):
            what = next(iter(digests)) if len(digests) == 1 else "the files given"
            raise FacekitError(
                f"{id}: covers nobody in {what}; leave it out, since what is made is said to be "
                "made under it"
            )


def _require_everyone_named(people: Mapping[str, Sequence[str]], device: "torch.device") -> None:
    """See that no file shows more people than its records name.

    Raises:
        FacekitError: with the first that does.
    """
    from facekit.datasets.crowd import Crowd

    crowd = Crowd(device)
    with progress("Looking for others in the photos", len(people)) as advance:
        for done, (name, named) in enumerate(people.items(), start=1):
            seen = crowd.people_in(Path(name))
            if len(seen) > len(named):
                count = "1 person" if len(named) == 1 else f"{len(named)} people"
                video = "" if seen[0].time is None else _REMEDY_OF_VIDEOS
                raise FacekitError(
                    f"{name}: shows {len(seen)} people ({'; '.join(map(str, seen))}), but its "
                    f"records name {count}, {', '.join(named)}; {_REMEDY}{video}"
                )
            advance(done, "")


def _named(consent: object) -> str:
    return ", ".join(map(str, consent)) if isinstance(consent, list) else str(consent)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
