"""Figures: what `bench`, `audit` and `evaluate` report, as rows that anyone can check."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from facekit.core.config import find, read_yaml
from facekit.core.text import plain


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        name: as the issue or the docs give it, e.g. ``detector.auc``.
        value: what was measured.
        unit: "" where there is none.
        low, high: a 95% interval, where one was computed.
        peer: the same figure of a named other tool, measured in the same run.
        floor: the same figure of a trivial baseline on the same data.
        goal: ">= 0.9" or "<= 3"; from ``configs/evaluations/goals.yaml``.
    """

    name: str
    value: float
    unit: str = ""
    low: float | None = None
    high: float | None = None
    peer: float | None = None
    floor: float | None = None
    goal: str | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the value meets the goal; None where there is no goal."""
        if self.goal is None:
            return None
        sign, bound = self.goal.split()
        return self.value >= float(bound) if sign == ">=" else self.value <= float(bound)


def with_goals(figures: Sequence[Figure]) -> list[Figure]:
    """The figures with their goals from ``configs/evaluations/goals.yaml`` filled in."""
    goals = read_yaml(find("evaluations/goals"))
    return [Figure(**{**asdict(row), "goal": goals.get(row.name, row.goal)}) for row in figures]


def show(figures: Sequence[Figure], as_json: bool) -> None:
    """Print the figures on standard output, as a JSON list or as a table."""
    rows = [{**asdict(row), "holds": row.holds} for row in with_goals(figures)]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    # Columns that no row fills are left out.
    keys = [
        key for key in (rows[0] if rows else ()) if any(row[key] not in (None, "") for row in rows)
    ]
    table = Table(*(Column(key, no_wrap=True) for key in keys or ["no figures"]), box=SIMPLE)
    for row in rows:
        # Text: a name may hold brackets, which are no markup.
        table.add_row(*(Text(plain(_cell(row[key]))) for key in keys))
    # Wider than a narrow terminal or pipe is, where need be: the table takes what it needs.
    Console(width=200).print(table)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
