"""``facekit provenance``: the signing key, and the signed manifests (C2PA) in files."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facekit.core.text import plain

if TYPE_CHECKING:
    from facekit.provenance import Provenance
    from facekit.provenance.binding import Binding
    from facekit.provenance.keys import Signer

_JSON = click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
_KEY_FILE = click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    help="The watermark's private key: a file of at least 16 bytes. The published key by default.",
)
_EXIT = {"trusted": 0, "untrusted": 10, "absent": 20, "tampered": 30}
_SAID = {
    "trusted": "valid and trusted",
    "untrusted": "valid but untrusted",
    "absent": "no manifest",
    "tampered": "TAMPERED",
}
_WAS = {"parentOf": "opened", "componentOf": "a part", "inputTo": "given to the generator"}


@click.group()
def command() -> None:
    """Sign files, and verify where they come from.

    What facekit makes is signed on its way out. The signature shows that a file has not changed
    since; who signed it, it shows only to those who trust the signer's authority.
    """


@command.command()
@click.option("--show", is_flag=True, help="Show who signs, and who is trusted (the default).")
@click.option(
    "--use",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="CHAIN.pem KEY.pem",
    help="Sign with a chain of your own: the signer's certificate first, then its issuers'.",
)
@click.option("--new", is_flag=True, help="Sign with a new local test chain.")
@click.option(
    "--trust",
    type=click.Path(path_type=Path),
    metavar="FILE.pem",
    help="Trust the authorities in a PEM file, besides those trusted already.",
)
@_JSON
def keys(
    show: bool, use: tuple[Path, Path] | None, new: bool, trust: Path | None, as_json: bool
) -> None:
    """Show or change who signs, and who is trusted.

    A local test chain is made at the first signature. With --use, chain and key are checked (that
    they belong together, are in order, valid now, and what C2PA asks for) and copied into the
    configuration folder; what was there stays beside it as signer.old.pem. The key must not be
    encrypted: EC P-256, P-384 or P-521, RSA of 2048 bits or more, or Ed25519.

    \b
    Examples:
      facekit provenance keys
      facekit provenance keys --use chain.pem key.pem
      facekit provenance keys --trust authority.pem
    """
    if sum(map(bool, (show, use, new, trust))) > 1:
        raise click.UsageError("give one of --show, --use, --new and --trust")
    from facekit.provenance import keys as store

    if use:
        store.use(*use)
    if new:
        store.make()
    added = store.trust(trust) if trust else None
    signer, trusted = store.configured(), [store.name_of(c) for c in store.trusted()]
    if as_json:
        facts = signer.to_json() | {"path": str(store.signer_file())} if signer else None
        click.echo(json.dumps({"signer": facts, "trusted": trusted}, indent=2))
        return
    if added is not None:
        click.echo(f"newly trusted: {', '.join(added) or 'none, all were trusted already'}")
    for line in _signer_lines(signer, store.signer_file()):
        click.echo(line)
    click.echo(f"trusted: {', '.join(trusted) or 'nobody'} ({store.trust_file()})")


@command.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--timestamp",
    metavar="URL",
    help="Ask this timestamp authority (RFC 3161) when it was signed. Nobody is asked by default.",
)
@_KEY_FILE
@_JSON
def sign(src: Path, out: Path, timestamp: str | None, key_file: Path | None, as_json: bool) -> None:
    """Write a copy of your own finished file SRC to OUT, with a signed manifest inside.

    PNG, JPEG, WebP or MP4; not a pixel changes. The manifest claims only that you had this very
    file and published it ("c2pa.opened", "c2pa.published"). It says neither that facekit made it
    nor that a camera did. What the file already says of its making is kept: a manifest that SRC
    has goes into the new one, and a watermark that is found in it is named. A file whose manifest
    does not match it is refused.

    \b
    Examples:
      facekit provenance sign photo.jpg signed.jpg
      facekit provenance sign clip.mp4 signed.mp4 --timestamp http://tsa.example
    """
    from facekit.provenance import manifest
    from facekit.watermark import read_file

    reading = read_file(src, _key(key_file))
    mark = f"{reading.payload.to_int():016x}" if reading.payload else None
    manifest.sign(src, out, kind=None, mark=mark, timestamp=timestamp)
    _show([_examined(out, key_file)], as_json)


@command.command()
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@_KEY_FILE
@_JSON
def verify(files: tuple[Path, ...], key_file: Path | None, as_json: bool) -> None:
    """Say whether FILES have a manifest, whether it holds, who signed it, and what it claims.

    "Untrusted" means: the file is as it was signed, but nobody whom you trust says who signed it.
    The watermark is read too, and compared with what the manifest says of it. Nothing is fetched
    from a network.

    \b
    Exit codes (the highest of all files; an error outweighs them):
      0   valid and trusted
      10  valid but untrusted
      20  no manifest
      30  tampered, or the mark in the picture is another than the manifest names
      1   a file could not be read
      2   wrong usage

    \b
    Examples:
      facekit provenance verify clip.mp4
      facekit provenance verify *.png --json
    """
    from facekit.core.errors import FacekitError

    found, errors = [], 0
    for path in files:
        try:
            found.append(_examined(path, key_file))
        except FacekitError as error:
            errors += 1
            click.echo(f"facekit: {error}", err=True)
    _show(found, as_json)
    code = max((_exit_code(*one[1:]) for one in found), default=0)
    raise SystemExit(1 if errors else code)


def _key(key_file: Path | None) -> bytes:
    from facekit.watermark import DEFAULT_KEY, load_key

    return load_key(key_file) if key_file else DEFAULT_KEY


def _examined(path: Path, key_file: Path | None) -> "tuple[Path, Provenance, Binding]":
    from facekit.core.errors import FacekitError
    from facekit.provenance import verify
    from facekit.provenance.binding import compare
    from facekit.watermark import read_file

    key = _key(key_file)
    provenance = verify(path)
    try:
        mark = read_file(path, key).to_json()
    except FacekitError:  # a format without pixels, or damaged ones
        mark = None
    return path, provenance, compare(provenance, mark)


def _exit_code(provenance: "Provenance", binding: "Binding") -> int:
    return 30 if binding.status == "differs" else _EXIT[provenance.status]


def _show(found: "list[tuple[Path, Provenance, Binding]]", as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "path": str(path),
                "status": provenance.status,
                "reason": provenance.reason,
                "claims": provenance.claims,
                "binding": {"status": binding.status, "text": binding.text},
                "consent": _records(provenance),
            }
            for path, provenance, binding in found
        ]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for path, provenance, binding in found:
        # Whoever wrote the manifest chose names: they must not pass for lines of this report.
        click.echo(plain(f"{path}: {_SAID[provenance.status]}: {provenance.reason}"))
        if provenance.status == "tampered" and provenance.claims:
            click.echo("  not to be believed, but this is what its manifest says:")
        for name, text in _lines(provenance, binding):
            click.echo(plain(f"  {name:<9}{text}"))


def _lines(provenance: "Provenance", binding: "Binding") -> list[tuple[str, str]]:
    """What there is to say beneath the verdict, each with its heading."""
    claims = provenance.claims
    lines = []
    if claims:
        does = ", ".join(action.removeprefix("c2pa.") for action in claims["actions"])
        what = claims["kind"] or claims["source_type"] or "not how it was made"
        software = " ".join(filter(None, (claims["generator"], claims["version"])))
        lines.append(("claims", f"{what} ({does or 'no actions'}), written by {software or '?'}"))
        lines += [("input", _input(one)) for one in claims["inputs"]]
        lines += [("consent", _consent(one)) for one in _records(provenance)]
        if claims["signed"]:
            lines.append(("signed", f"at {claims['signed']}, by a trusted timestamp"))
    if binding.status != "none":
        lines.append(("mark", binding.text))
    return lines


def _records(provenance: "Provenance") -> list[dict[str, str | None]]:
    """The consent records that a manifest names, by hash; those of this ledger by id and status."""
    from facekit.core.errors import FacekitError
    from facekit.provenance.ledger import Ledger
    from facekit.provenance.manifest import consent_hash

    named = provenance.claims.get("consent", [])
    known: dict[str, str] = {}
    ledger = Ledger()
    try:
        known = {consent_hash(one.id): one.id for one in ledger.records()} if named else {}
        status = {one: ledger.status(known[one]) for one in named if one in known}
    except FacekitError:  # a damaged ledger; 'facekit consent verify' says how
        known, status = {}, {}
    return [{"sha256": one, "id": known.get(one), "status": status.get(one)} for one in named]


def _consent(one: dict[str, str | None]) -> str:
    if one["id"]:
        return f"{one['id']}, {one['status']} in this ledger"
    return f"a record whose id has the SHA-256 {one['sha256']}, not in this ledger"


def _input(one: dict[str, Any]) -> str:
    manifest = {
        "none": "without a manifest",
        "broken": "with a manifest that does not match it",
        "intact": f"with a manifest: {one['kind'] or one['source_type'] or 'no kind'}, "
        f"signed by {one['signer']}",
    }[one["manifest"]]
    digest = f", SHA-256 {one['sha256']}" if one["sha256"] else ""
    return f"{one['name']} ({_WAS.get(one['relationship'], 'input')}){digest}, {manifest}"


def _signer_lines(signer: "Signer | None", path: Path) -> list[str]:
    from datetime import UTC, datetime

    if signer is None:
        return [f"signer: none yet; a local test chain is made at the first signature ({path})"]
    facts = signer.to_json()
    over = signer.expires < datetime.now(UTC)
    until = f"{'EXPIRED on' if over else 'valid until'} {signer.expires:%Y-%m-%d}"
    lines = [f"signer: {facts['signer']}, {facts['algorithm']}, {until} ({path})"]
    if signer.local:
        lines.append("  a local test chain: it shows that a file has not changed, not who signed")
    else:
        lines.append(f"  issued by {facts['authority']}")
    return [*lines, f"  SHA-256 of the certificate: {facts['sha256']}"]
