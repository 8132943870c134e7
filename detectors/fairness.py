"""Whom a detector suspects wrongly: rates of false alarms by group, and how far groups differ.

A rate stands with an interval or it says little. It is Wilson's (1927), which holds for rates of
nearly none, over an effective number of faces: pictures of one person are alike, and count for less
by the design effect (Kish 1965; with Wilson's interval: Korn & Graubard 1998, Dean & Pagano 2015).
A group of fewer than :data:`FEWEST` people is "not established": whatever its rate is, it says more
about these few than about the group.

The largest difference between groups is never zero: even rates of groups drawn by lot differ. So
beside it stands what chance alone gives, people being dealt to the groups at random.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit.core.errors import FacekitError
from facekit.core.figures import Figure
from facekit.core.seed import Purpose, rng

FEWEST = 50
"""People of a group below which its rate is not established."""

_Z = 1.959963984540054  # the normal distribution's quantile of 0.975
_DRAWS = 1000

Counts = NDArray[np.int64]
Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """What a detector said of one picture.

    Attributes:
        person: who is shown; pictures of one person are alike.
        groups: what divides people → the person's group, e.g. ``{"sex": "women"}``; what is not
            known of a person is left out.
        probability: P(generated); None where no face was found.
    """

    person: str
    groups: Mapping[str, str]
    probability: float | None


@dataclass(frozen=True)
class Rate:
    """How often a group's faces are called generated.

    Attributes:
        attribute: what divides people, e.g. "skin tone"; "" for everyone.
        group: its name.
        people, faces: how many; faces are those that were found.
        missed: pictures in which no face was found; they are counted, never scored.
        called: faces called generated.
        value: their share of the faces; None without faces.
        low, high: its 95% interval.
    """

    attribute: str
    group: str
    people: int
    faces: int
    missed: int
    called: int
    value: float | None
    low: float | None
    high: float | None

    @property
    def established(self) -> bool:
        """Whether there are people enough to speak of the group."""
        return self.people >= FEWEST and self.value is not None

    def row(self, what: str = "") -> dict[str, Any]:
        """As a row of an evaluation's page; ``what`` is said before the attribute."""
        return {
            "group": " ".join(filter(None, (what, self.attribute))),
            "name": self.group,
            "value": self.value if self.established else None,
            "low": self.low if self.established else None,
            "high": self.high if self.established else None,
            "count": self.people,
            "note": "" if self.established else "not established",
        }


@dataclass(frozen=True)
class Gap:
    """The largest difference between two groups of one attribute.

    Attributes:
        value: the difference of their rates.
        low, high: its 95% interval, by drawing people; it lies high where groups are small, as
            chance adds to a largest difference and never takes from it.
        by_chance: what it is on average if people are dealt to the groups at random.
        p: how often chance alone makes it as large; small if the groups do differ.
        attribute: where it lies; ``highest`` and ``lowest`` are the groups.
    """

    value: float
    low: float
    high: float
    by_chance: float
    p: float
    attribute: str
    highest: str
    lowest: str


def rates(seen: Sequence[Seen], threshold: float) -> list[Rate]:
    """The share of faces called generated, of everyone and of each group.

    Args:
        seen: pictures of one class; of untouched ones these are rates of false alarms.
        threshold: a face counts as generated if its probability is above it.

    Returns:
        Everyone first, then the attributes and their groups by name.

    Raises:
        FacekitError: if there are no pictures, or a probability is not a number.
    """
    table = _Table(seen, threshold)
    found = [table.rate("", "everyone", np.ones(len(table.people), bool))]
    for (attribute, group), members in zip(table.groups, table.member.T, strict=True):
        found.append(table.rate(attribute, group, members))
    return found


def gap(seen: Sequence[Seen], threshold: float, *, seed: int = 0) -> Gap | None:
    """The largest difference between the rates of two established groups of one attribute.

    Args:
        seen: as in :func:`rates`.
        threshold: likewise.
        seed: of the draws.

    Returns:
        None if no attribute has two established groups.
    """
    table = _Table(seen, threshold)
    kept = [i for i, members in enumerate(table.member.T) if table.is_established(members)]
    attributes = [table.groups[i][0] for i in kept]
    divided = [name for name in dict.fromkeys(attributes) if attributes.count(name) > 1]
    kept = [i for i in kept if table.groups[i][0] in divided]
    if not kept:
        return None
    groups = [table.groups[i] for i in kept]
    columns = [[k for k, (name, _) in enumerate(groups) if name == own] for own in divided]
    member = table.member[:, kept].astype(np.float64)

    def gaps(called: Reals, faces: Reals) -> Reals:
        """(D, G) of D draws → the gap of each attribute, (D, A)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            rate = called / faces  # a group of whom nobody was drawn has none
        spread = [np.nanmax(rate[:, k], axis=1) - np.nanmin(rate[:, k], axis=1) for k in columns]
        return np.stack(spread, axis=1)

    called, faces = table.called.astype(np.float64), table.faces.astype(np.float64)
    mine = gaps((called @ member)[None], (faces @ member)[None])[0]
    widest = int(mine.argmax())
    own = columns[widest]
    value = (called @ member)[own] / (faces @ member)[own]

    people = len(table.people)
    random = rng(seed, Purpose.BOOTSTRAP)
    times = random.multinomial(people, np.full(people, 1 / people), _DRAWS).astype(np.float64)
    drawn = gaps((times * called) @ member, (times * faces) @ member).max(axis=1)
    orders = [random.permutation(people) for _ in range(_DRAWS)]
    dealt = gaps(
        np.stack([called[order] @ member for order in orders]),
        np.stack([faces[order] @ member for order in orders]),
    ).max(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Gap(
        value=float(mine[widest]),
        low=float(low),
        high=float(high),
        by_chance=float(dealt.mean()),
        p=float((1 + np.sum(dealt >= mine[widest] - 1e-12)) / (1 + _DRAWS)),
        attribute=divided[widest],
        highest=groups[own[int(value.argmax())]][1],
        lowest=groups[own[int(value.argmin())]][1],
    )


class _Table:
    """Pictures counted by person."""

    def __init__(self, seen: Sequence[Seen], threshold: float) -> None:
        scores = np.array([np.nan if s.probability is None else s.probability for s in seen])
        found = np.array([s.probability is not None for s in seen], bool)
        if not found.any():
            raise FacekitError(
                f"{len(seen)} pictures and no face found in them: there are no rates to tell"
            )
        if not np.isfinite(scores[found]).all():
            raise FacekitError("a detector's scores are not numbers: there are no rates to tell")
        self.people = sorted({s.person for s in seen})
        place = {person: k for k, person in enumerate(self.people)}
        who = np.array([place[s.person] for s in seen])
        count = len(self.people)
        self.faces: Counts = np.bincount(who, found, count).astype(np.int64)
        self.missed: Counts = np.bincount(who, ~found, count).astype(np.int64)
        called = found & (np.where(found, scores, 0) > threshold)
        self.called: Counts = np.bincount(who, called, count).astype(np.int64)
        self.groups = sorted({pair for s in seen for pair in s.groups.items()})
        column = {pair: k for k, pair in enumerate(self.groups)}
        self.member = np.zeros((count, len(self.groups)), bool)
        for s in seen:
            for pair in s.groups.items():
                self.member[place[s.person], column[pair]] = True

    def is_established(self, members: NDArray[np.bool_]) -> bool:
        return bool(members.sum() >= FEWEST and self.faces[members].any())

    def rate(self, attribute: str, group: str, members: NDArray[np.bool_]) -> Rate:
        called, faces = self.called[members], self.faces[members]
        total = int(faces.sum())
        value, low, high = None, None, None
        if total:
            value = float(called.sum() / total)
            low, high = wilson(called, faces)
        return Rate(
            attribute=attribute,
            group=group,
            people=int(members.sum()),
            faces=total,
            missed=int(self.missed[members].sum()),
            called=int(called.sum()),
            value=value,
            low=low,
            high=high,
        )


def wilson(called: Counts, faces: Counts) -> tuple[float, float]:
    """Wilson's 95% interval of a rate, over the effective number of faces.

    The design effect is the variance of the rate by people over that of independent faces; it is at
    least 1 and at most the most faces of a person. Where all faces or none are called generated it
    cannot be told, and a person counts as one face.

    Args:
        called: (P,) of each person's faces, those called generated.
        faces: (P,) of each person; one of them above 0.
    """
    called, faces = called[faces > 0], faces[faces > 0]
    people, total = len(faces), float(faces.sum())
    rate = float(called.sum() / total)
    if 0 < rate < 1 and people > 1:
        by_people = people / (people - 1) * np.sum((called - rate * faces) ** 2) / total**2
        effect = by_people / (rate * (1 - rate) / total)
        effect = float(np.clip(effect, 1, faces.max()))
    else:
        effect = total / people
    n = total / effect
    centre = (rate + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(rate * (1 - rate) / n + _Z**2 / (4 * n**2))
    # Rounding must not push the ends of 0 and 1 beyond the rate itself.
    return min(max(float(centre - half), 0.0), rate), max(min(float(centre + half), 1.0), rate)


def figures(found: Sequence[Rate], widest: Gap | None, prefix: str) -> list[Figure]:
    """The rate of everyone and, where there is one, the gap between groups, as figures.

    Args:
        found: of :func:`rates`.
        widest: of :func:`gap`.
        prefix: of the names, e.g. ``detect.studio``.

    Returns:
        ``PREFIX_fpr``; ``PREFIX_fpr_gap``, its floor what chance alone gives; and
        ``PREFIX_fpr_gap_p``, how often chance makes it as large.
    """
    everyone = found[0]
    assert everyone.value is not None  # of the faces found there is one
    rows = [Figure(f"{prefix}_fpr", everyone.value, low=everyone.low, high=everyone.high)]
    if widest:
        name = f"{prefix}_fpr_gap"
        rows += [
            Figure(name, widest.value, low=widest.low, high=widest.high, floor=widest.by_chance),
            Figure(f"{name}_p", widest.p),
        ]
    return rows
