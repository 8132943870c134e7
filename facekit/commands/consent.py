"""``facekit consent``: who lets which photos be used, for what, until when."""

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facekit.commands import options
from facekit.core.errors import FacekitError
from facekit.core.text import plain

if TYPE_CHECKING:
    from facekit.provenance.consent import Record
    from facekit.provenance.ledger import Ledger, Use

_PATH = click.Path(path_type=Path)


@click.group()
def command() -> None:
    """Record consent, and revoke it.

    A generator takes real people's photos and videos only under records that are valid for
    everyone in them. The ledger is kept in 'consent' of facekit's configuration folder
    (FACEKIT_HOME); every line is signed. Back it up with its key, and keep the key to yourself.

    A record proves that somebody attested consent: the person's own key, you, or a data set's
    licence. Who lies can attest what was never given; docs/consent.md says what is left then.

    Exit codes: 0 done, 1 refused, damaged or not readable, 2 wrong usage.

    \b
    Examples:
      facekit consent grant --subject p17 --photos p17/ --scope train,generate \\
          --purpose "thesis on face swaps" --expires 2027-12-31 --adult --evidence form.pdf
      facekit consent list
      facekit consent revoke c-2f1e0d9c8b7a --reason "asked to by letter"
      facekit consent affected c-2f1e0d9c8b7a
      facekit consent verify
    """


@command.command()
@click.option("--subject", metavar="PSEUDONYM", help="Who consents.")
@click.option(
    "--also",
    multiple=True,
    metavar="PSEUDONYM",
    help="Who else is in the photos; each of them needs a record too.",
)
@click.option(
    "--subjects",
    metavar="LAYOUT",
    help="Of a data set: 'folder' (one for each person), a CSV file with the columns file and "
    "subject, or a pattern of file names such as '{subject}_*.jpg'.",
)
@click.option("--prefix", default="", help="Put before a data set's pseudonyms, e.g. 'london-'.")
@click.option(
    "--photos",
    multiple=True,
    type=_PATH,
    help="Photos and videos: files, or folders with all below. Their hashes are recorded.",
)
@click.option(
    "--scope", help="What is consented to: train, generate, publish, with commas between."
)
@click.option("--purpose", help="What for, in a sentence that the person would recognise.")
@click.option(
    "--expires",
    metavar="DATE",
    help="Last day (UTC), e.g. 2027-12-31: at most 5 years ahead, of a data set 10.",
)
@click.option("--adult", is_flag=True, help="Attest that everyone in the record is 18 or older.")
@click.option(
    "--evidence",
    type=_PATH,
    help="What shows the consent, e.g. a signed form. Its hash is recorded; keep the file.",
)
@click.option("--dataset-licence", "licence", help="A data set's licence, e.g. 'CC BY 4.0'.")
@click.option("--doi", help="Of the data set.")
@click.option("--request", type=_PATH, help="Enter nothing; write what the person is to sign here.")
@click.option("--signed", type=_PATH, help="Enter what the person has signed; nothing else needed.")
@options.JSON
@click.pass_context
def grant(
    context: click.Context,
    subject: str | None,
    also: tuple[str, ...],
    subjects: str | None,
    prefix: str,
    photos: tuple[Path, ...],
    scope: str | None,
    purpose: str | None,
    expires: str | None,
    adult: bool,
    evidence: Path | None,
    licence: str | None,
    doi: str | None,
    request: Path | None,
    signed: Path | None,
    as_json: bool,
) -> None:
    """Enter a record of consent.

    Three ways, by who attests it. The operator (you): give --evidence. The person: --request writes
    what is to be signed, 'facekit consent sign' signs it on the person's own machine, --signed
    enters it. A data set's licence: --dataset-licence and --doi; one record covers all its people.

    Pseudonyms should be no plain names (facekit can't tell): the ledger is not a secret. Minors
    can't be recorded: without --adult nothing is. Consent that has no end can't be recorded
    either: people change their minds, and data sets are withdrawn; ask again.

    \b
    Examples:
      facekit consent grant --subject p17 --photos p17/ --scope train,generate \\
          --purpose "thesis on face swaps" --expires 2027-12-31 --adult --evidence form.pdf
      facekit consent grant --dataset-licence "CC BY 4.0" --doi 10.6084/m9.figshare.5047666.v5 \\
          --photos london/ --subjects '{subject}_*.jpg' --prefix london- --scope train,generate \\
          --purpose "research on generated faces" --expires 2031-12-31 --adult
      facekit consent grant --subject p18 --photos p18/ --scope train --purpose "thesis" \\
          --expires 2027-12-31 --adult --request p18.json
      facekit consent grant --signed p18-signed.json
    """
    from facekit.core import files
    from facekit.provenance import consent
    from facekit.provenance.ledger import Ledger

    ledger = Ledger()
    if signed:
        _require_alone(context, "signed")
        record = ledger.enter(consent.read_record(_content(signed), signed))
        _show(record, as_json, "entered")
        return
    _require(photos=photos, scope=scope, purpose=purpose, expires=expires)
    if bool(subject) == bool(subjects):
        raise click.UsageError("give either --subject, or --subjects for a data set")
    if request and (licence or doi or subjects):
        raise click.UsageError("--request is for one person's record; a licence signs nothing")
    if prefix and not subjects:
        raise click.UsageError("--prefix goes with --subjects")
    if also and subjects:
        raise click.UsageError("--also goes with --subject; --subjects tells who is in each file")
    if request:
        _require_new(request)
    everyone, found = _people(subject, also, subjects, prefix, photos)
    arguments: dict[str, Any] = {
        "subjects": everyone,
        "photos": found,
        "scope": [name.strip() for name in str(scope).split(",")],
        "purpose": purpose,
        "expires": _last_moment(str(expires)),
        "adult": adult,
        "evidence": _sha256(evidence) if evidence else "",
    }
    if request:
        terms = ledger.terms(**arguments, attester=consent.Attester.PERSON)
        files.write_json(request, terms.to_json())
        facts = {"request": str(request), "terms": terms.to_json()}
        text = f"{request}: for {subject} to sign, with 'facekit consent sign {request}'"
        click.echo(json.dumps(facts, indent=2) if as_json else text)
        return
    if licence or doi:
        doi = re.sub(r"^(https?://(dx\.)?doi\.org/|doi:)", "", doi or "")
        arguments |= {"attester": consent.Attester.DATASET, "licence": licence or "", "doi": doi}
    _show(ledger.grant(**arguments), as_json, "granted")


@command.command()
@click.argument("request", type=_PATH)
@click.option(
    "--key", "key_file", required=True, type=_PATH, help="Your private key; made if not there."
)
@click.option("--out", required=True, type=_PATH, help="The signed record, to be sent back.")
@click.option(
    "--photos",
    multiple=True,
    type=_PATH,
    help="Your own copies: signs only if each photo of the record is among them.",
)
@click.option("--yes", is_flag=True, help="Sign without asking.")
@options.JSON
def sign(
    request: Path, key_file: Path, out: Path, photos: tuple[Path, ...], yes: bool, as_json: bool
) -> None:
    """Sign a record with your own key: for the person whose face it is.

    Do it on your own machine, and keep the key: who has it can consent in your name. What is to be
    signed is shown first. Nothing holds before the operator enters the signed record.

    \b
    Example:
      facekit consent sign p18.json --key my-key.pem --photos my-photos/ --out p18-signed.json
    """
    from facekit.core import files
    from facekit.provenance import consent
    from facekit.provenance.photos import always, everyone_in
    from facekit.provenance.signed import load_key, new_key

    if out.resolve() in (key_file.resolve(), request.resolve()):
        raise FacekitError(f"{out}: is the key or the request itself; give another --out")
    _require_new(out)
    terms = consent.read_terms(_content(request), request)
    if photos:
        unknown = set(terms.photos) - set(everyone_in(photos, always()))
        if unknown:
            raise FacekitError(
                f"{request}: {len(unknown)} of its {len(terms.photos)} photos are not among yours, "
                f"e.g. that of SHA-256 {min(unknown)[:12]}…; ask what they are before you sign"
            )
    if not yes:
        click.echo(f"{request}: {terms.statement()}", err=True)
        click.confirm("Sign this?", abort=True, err=True)
    record = consent.sign(terms, load_key(key_file) if key_file.exists() else new_key(key_file))
    files.write_json(out, record.to_json())
    _show(record, as_json, f"signed into {out}")


@command.command("list")
@click.option("--subject", metavar="PSEUDONYM", help="Only records about this person.")
@options.JSON
def list_records(subject: str | None, as_json: bool) -> None:
    """List all records: status, last day, scope, people, photos.

    \b
    Examples:
      facekit consent list
      facekit consent list --subject p17 --json
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from facekit.provenance.ledger import Ledger

    ledger = Ledger()
    wanted = [
        record for record in ledger.records() if subject is None or subject in record.subjects
    ]
    if as_json:
        click.echo(json.dumps([_facts(ledger, record) for record in wanted], indent=2))
        return
    if not wanted:
        click.echo(f"no records{f' about {subject}' if subject else ''} in {ledger.folder}")
        return
    table = Table("id", "status", "expires", "scope", "people", "photos", "attested by", box=SIMPLE)
    for record in wanted:
        table.add_row(
            record.id,
            ledger.status(record.id),
            f"{record.expires:%Y-%m-%d}",
            ", ".join(sorted(record.scope)),
            Text(_few(record.subjects)),
            str(len(record.photos)),
            record.attester,
        )
    Console(width=200).print(table)


@command.command()
@click.argument("id")
@options.JSON
def show(id: str, as_json: bool) -> None:
    """Show all that a record says, and whether it holds.

    \b
    Example:
      facekit consent show c-2f1e0d9c8b7a
    """
    from facekit.provenance.ledger import Ledger

    ledger = Ledger()
    facts = _facts(ledger, ledger.find(id))
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    photos = facts.pop("photos")
    for name, value in facts.items():
        if value not in ("", None):
            text = ", ".join(value) if isinstance(value, list) else str(value)
            click.echo(f"{name.replace('_', ' '):15} {text}")
    click.echo(f"{'photos':15} {len(photos)}")
    for digest, people in photos.items():
        click.echo(f"  {digest}  {', '.join(people)}")


@command.command()
@click.argument("id")
@click.option("--reason", required=True, help="Why, in a sentence.")
@click.option(
    "--mistaken",
    is_flag=True,
    help="The record was entered wrongly: who it says is in which photo counts no more either.",
)
@options.JSON
def revoke(id: str, reason: str, mistaken: bool, as_json: bool) -> None:
    """End a record, at once and for good.

    A record that was entered wrongly and revoked without --mistaken can be revoked again with it.

    Training and conversions that run under it stop; nothing new is made. What was made already is
    not deleted: 'facekit consent affected ID' lists it. The head that is printed is a receipt: give
    it to the person, who can see later whether the revocation stands: 'verify --against HEAD'.

    \b
    Example:
      facekit consent revoke c-2f1e0d9c8b7a --reason "asked to by letter of 3 May"
    """
    from facekit.provenance.ledger import Ledger

    ledger = Ledger()
    ledger.revoke(id, reason, mistaken=mistaken)
    head = ledger.head()
    if not as_json:
        click.echo(f"{id}: revoked\nhead {head}")
    uses = ledger.affected(id)  # Last: whatever is wrong with the uses, it stands.
    if as_json:
        facts = _facts(ledger, ledger.find(id)) | {"head": head}
        click.echo(json.dumps({**facts, "affected": [_use(use) for use in uses]}, indent=2))
        return
    click.echo(f"made under it: {_count(uses)}")
    if uses:
        click.echo(f"'facekit consent affected {id}' lists them; delete what must not stay")


@command.command()
@click.argument("id")
@options.JSON
def affected(id: str, as_json: bool) -> None:
    """List the runs and files that were made under a record, and what became of them.

    A file is 'there' with the same content, 'changed', or 'gone' from where it was; copies
    elsewhere are not known. Of a run is said only whether its folder is there.

    \b
    Example:
      facekit consent affected c-2f1e0d9c8b7a --json
    """
    from rich.box import SIMPLE
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from facekit.provenance.ledger import Ledger

    uses = Ledger().affected(id)
    if as_json:
        click.echo(json.dumps([_use(use) for use in uses], indent=2))
        return
    click.echo(f"{id}: made under it: {_count(uses)}")
    if uses:
        table = Table("made", "what", "now", Column("path", no_wrap=True), box=SIMPLE)
        for use in uses:
            facts = _use(use)
            # Text: a path may hold what rich reads as markup, or a terminal as a command.
            what, path = Text(plain(use.what)), Text(plain(str(use.path)))
            table.add_row(facts["time"], what, facts["now"], path)
        widest = max(cell_len(plain(f"{use.what} {use.path}")) for use in uses)
        Console(width=60 + widest).print(table)


@command.command()
@click.option(
    "--against",
    multiple=True,
    metavar="HEAD|RUN|FILE",
    help="A head noted earlier, as this command prints it; or a run folder or generated file that "
    "notes one.",
)
@click.option("--ledger", "folder", type=_PATH, help="Another ledger, e.g. a copy.")
@click.option("--mend", is_flag=True, help="Set lines aside that a kill or a full disk has torn.")
@options.JSON
def verify(against: tuple[str, ...], folder: Path | None, mend: bool, as_json: bool) -> None:
    """Check every line of the ledger; exit with 1 if anything is wrong.

    Lines that were changed, taken out, put in, moved or repeated are found, and so are lines cut
    off at the end. If an older copy of the whole folder was put back, only a head noted elsewhere
    shows it: note the one that is printed, or give runs, or files that were generated.

    \b
    Examples:
      facekit consent verify
      facekit consent verify --against runs/anna --against anna.mp4
      facekit consent verify --ledger copy/consent --against 12:9f86d081884c7d65…
    """
    from facekit.provenance.ledger import Ledger, Tampered

    if folder and not folder.is_dir():
        raise FacekitError(f"{folder}: no such folder")
    ledger = Ledger(folder)
    facts: dict[str, Any] = {"ledger": str(ledger.folder), "holds": True}
    try:
        if mend:
            facts["mended"] = [str(path) for path in ledger.mend()]
        found = ledger.verify([_noted(text) for text in against])
    except Tampered as error:
        if not as_json:
            raise
        click.echo(json.dumps({**facts, "holds": False, "problem": str(error)}, indent=2))
        raise SystemExit(1) from error
    if as_json:
        click.echo(json.dumps({**facts, **asdict(found)}, indent=2))
        return
    for path in facts.get("mended", []):
        click.echo(f"a torn line was set aside: {path}")
    if not found.head:
        click.echo(f"{ledger.folder}: no ledger; nothing was granted here")
        return
    click.echo(
        f"{ledger.folder}: holds: {_many(found.records, 'record')} ({found.revoked} revoked), "
        f"{_many(found.uses, 'use')}"
    )
    click.echo(f"head {found.head}")


def _require(**options: object) -> None:
    for name, value in options.items():
        if not value:
            raise click.UsageError(f"--{name} is missing")


def _require_alone(context: click.Context, name: str) -> None:
    """See that no other option was given, which would say nothing.

    Raises:
        click.UsageError: with the first that was.
    """
    given = click.core.ParameterSource.COMMANDLINE
    for parameter in context.command.params:
        if parameter.name not in (name, "as_json", None):
            if context.get_parameter_source(str(parameter.name)) is given:
                raise click.UsageError(
                    f"{parameter.opts[0]} beside --{name}: the record says all that, as it was "
                    "signed; give one of the two"
                )


def _require_new(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise FacekitError(f"{path}: is there already and is kept; give another name")


def _people(
    subject: str | None,
    also: Sequence[str],
    layout: str | None,
    prefix: str,
    photos: Sequence[Path],
) -> tuple[Collection[str], dict[str, set[str]]]:
    """Whom the record is about, and who is in which photo."""
    from facekit.provenance.photos import always, everyone_in, told_by

    if layout is None:
        return {str(subject)}, everyone_in(photos, always(str(subject), *also))
    found = everyone_in(photos, told_by(layout, prefix))
    return set().union(*found.values()), found


def _last_moment(date: str) -> datetime:
    try:
        day = datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise FacekitError(f"--expires {date}: no date; write it like 2027-12-31") from None
    return day + timedelta(days=1, seconds=-1)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FacekitError(f"{path}: not readable ({error.strerror})") from error


def _sha256(path: Path) -> str:
    return hashlib.sha256(_content(path)).hexdigest()


def _noted(text: str) -> str:
    """A head: as given, or as a run or an exported file noted it."""
    from facekit.core import files
    from facekit.provenance.manifest import verify as read_manifest

    path = Path(text)
    if path.is_dir():
        facts = files.read_json(path / "run.json")
    elif path.is_file():
        found = read_manifest(path)
        if found.status == "tampered":
            raise FacekitError(f"{path}: {found.reason}; a head in it counts for nothing")
        facts = found.claims.get("facts")
    elif re.match(r"\d+:", text):
        return text  # the ledger says whether it is one
    else:
        raise FacekitError(
            f"{text}: no such file or folder; nor is it a head, which looks like 12:9f86d0…"
        )
    head = facts.get("ledger") if isinstance(facts, dict) else None
    if not isinstance(head, str):
        raise FacekitError(f"{path}: notes no ledger's head; it was made without consent records")
    return head


def _facts(ledger: "Ledger", record: "Record") -> dict[str, Any]:
    from facekit.provenance.signed import time_text

    revocation = ledger.revocation(record.id)
    facts = {"id": record.id, "status": ledger.status(record.id)}
    if revocation:
        facts["revoked"] = time_text(revocation.time)
        facts["reason"] = revocation.reason
    return {**facts, **record.to_json()}


def _show(record: "Record", as_json: bool, done: str) -> None:
    if as_json:
        click.echo(json.dumps({"id": record.id, **record.to_json()}, indent=2))
        return
    click.echo(f"{record.id}: {done}")
    click.echo(record.statement())


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{len(names)}: {names[0]} to {names[-1]}"


def _count(uses: Sequence["Use"]) -> str:
    runs = sum(use.what == "run" for use in uses)
    return f"{_many(runs, 'run')}, {_many(len(uses) - runs, 'file')}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _use(use: "Use") -> dict[str, Any]:
    from facekit.provenance.signed import time_text

    return {
        "what": use.what,
        "path": str(use.path),
        "sha256": use.sha256,
        "time": time_text(use.time),
        "now": use.now(),
        "ids": list(use.ids),
    }
