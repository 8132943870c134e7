"""``facekit weights``: what networks come with the package, and whether they are intact."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from facekit.core.weights import Weights


@click.group()
def command() -> None:
    """List and verify the bundled weights.

    Every file of weights has a card beside it: the command, config, seed and data that made it,
    its licence, its figures and its hash.

    \b
    Examples:
      facekit weights list
      facekit weights verify --json
    """


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@command.command("list")
@_as_json
def list_weights(as_json: bool) -> None:
    """List the bundled weights with their size, licence and origin."""
    found = _survey()
    if as_json:
        click.echo(json.dumps([_row(room, weights) for room, weights in found], indent=2))
        return
    if not found:
        click.echo("no weights are bundled with this version")
    for room, weights in found:
        card = weights.card
        minutes = card.get("minutes")
        click.echo(
            f"{room}/{weights.name}  {_size(weights.path) / 1e6:.2f} MB  "
            f"licence {card.get('licence') or 'unknown'}, trained on {_text(card.get('data'))}"
            + (f" in {minutes:.0f} min" if isinstance(minutes, int | float) else "")
        )
        click.echo(f"  {card.get('command') or 'no command on record'}")


@command.command()
@_as_json
def verify(as_json: bool) -> None:
    """Check each file against its card; exit with 1 if anything is wrong."""
    found = _survey()
    wrong = [problem for _, weights in found for problem in weights.problems]
    if as_json:
        rows = [_row(room, weights) for room, weights in found]
        click.echo(json.dumps({"holds": not wrong, "weights": rows}, indent=2))
    elif not found:
        click.echo("no weights are bundled with this version: nothing to verify")
    else:
        for room, weights in found:
            click.echo(f"{room}/{weights.name}: {'; '.join(weights.problems) or 'ok'}")
    if wrong:
        raise SystemExit(1)


def _folders() -> dict[str, Path]:
    """The folders of bundled weights by the name of their room."""
    top = Path(__file__).parents[2]
    return {room: top / room / "weights" for room in ("facekit", "detectors")}


def _survey() -> list[tuple[str, "Weights"]]:
    from facekit.core.weights import survey

    return [(room, weights) for room, path in _folders().items() for weights in survey(path)]


def _row(room: str, weights: "Weights") -> dict[str, object]:
    return {
        "name": weights.name,
        "room": room,
        "bytes": _size(weights.path),
        "problems": list(weights.problems),
        "card": weights.card,
    }


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _text(value: object) -> str:
    return value if isinstance(value, str) and value else "unknown data"
