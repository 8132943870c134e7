"""The referee: is the game in balance, and does the generator still show all that the data has?

The loop hands it a :class:`Look` now and then: the discriminator's logits and features of real and
generated samples. It answers with a :class:`Ruling`: figures for the log, warnings in words, an
:class:`Alarm` when the game is lost unless something changes, and whether the weights of this
moment are worth returning to. It trains nothing and touches no network, so that every rule can be
tested with numbers made by hand.

Balance is read from ranks, not from the loss, since only the order of logits means the same under
every objective: *pair accuracy* is the share of pairs in which the real sample has the greater
logit (0.5: none can be told, 1: all), and *memory* the same of a training real against a held-out
one (0.5: the discriminator treats both alike, 1: it knows the training samples by heart).
*Surprise* is the discriminator's loss over that of one which says the same of everything: above 1,
tossing a coin would be wiser. *Steepness* is the growth of the gradients' norms since their
calmest time.

Collapse is read from features, and every threshold is relative to the *floor*: what held-out
reals score against training reals (:meth:`Referee.start`). *Spread* is the mean distance within
the generated batch over that within the real one; *coverage* the share of reals with a generated
sample in their neighbourhood (Naeem et al. 2020, arXiv:2002.09797), *recall* the share of reals in
the neighbourhood of a generated sample and *precision* the converse (Kynkäänniemi et al. 2019,
arXiv:1904.06991), *duplicates* the share of generated samples nearer to another one than real
samples ever are; *distance* is the energy distance (Székely and Rizzo 2013) over the mean distance
within the reals: 0 for the same distribution, about 1 for two that lie apart.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from facekit.core.errors import FacekitError

NEIGHBOURS = 5
"""k of the neighbourhoods, as Naeem et al. advise: a perfect generator then covers 97%."""

LEAST = 8
"""Samples below which a look says nothing."""


@dataclass(frozen=True)
class Look:
    """What the referee sees of one moment of a game.

    Logits are of samples shown to the discriminator in the same way (all augmented or none).

    Attributes:
        step: steps so far.
        images: real samples shown so far.
        real: (N,) logits of training reals, N ≥ 8.
        fake: (N,) logits of generated samples, from the generator that plays, not its average.
        reals: (N, F) features of training reals.
        fakes: (N, F) features of generated samples.
        gradient_d: norm of the discriminator's gradient, mean since the last look.
        gradient_g: the same of the generator.
        loss_d: loss of the discriminator without its penalties, mean since the last look.
        loss_g: the same of the generator.
        held_out: (M,) logits of reals that are not trained on; None if there are none.
        gamma: γ of the moment. Half of it lets the discriminator be twice as steep, which is no
            sign of trouble, so that gradients are compared times γ; 0: as they are.
        coin: the loss of a discriminator that says the same of everything: ln 2 in the relativistic
            game, in others another.
    """

    step: int
    images: int
    real: Tensor
    fake: Tensor
    reals: Tensor
    fakes: Tensor
    gradient_d: float
    gradient_g: float
    loss_d: float
    loss_g: float
    held_out: Tensor | None = None
    gamma: float = 0.0
    coin: float = math.log(2)


@dataclass(frozen=True)
class Alarm:
    """The game is lost unless something changes.

    The loop rolls generator, average and discriminator back to the last good state (before any is
    known: the state at the start), forgets both optimisers' momenta, and goes on with what this
    says; if ``stop``, it stops and says ``words``.

    Attributes:
        name: of the rule, e.g. ``winning``.
        words: what is wrong and what is done about it.
        gamma_factor: to multiply γ by, ≥ 1; see :meth:`gamma`.
        augment_more: to add to augmentation's probability, ≥ 0; see :meth:`augment`.
        rate_d: to multiply the discriminator's learning rate by, in (0, 1].
        rate_g: to multiply the generator's learning rate by, in (0, 1].
        stop: enough was tried.
    """

    name: str
    words: str
    gamma_factor: float = 1.0
    augment_more: float = 0.0
    rate_d: float = 1.0
    rate_g: float = 1.0
    stop: bool = False

    def gamma(self, gamma: float) -> float:
        """The new γ; where there was none, one that is small for pictures and for points."""
        return max(gamma * self.gamma_factor, _LEAST_GAMMA) if self.gamma_factor > 1 else gamma

    def augment(self, probability: float) -> float:
        """The new probability of augmentation, at most 0.8: beyond it, augmentation leaks."""
        return max(probability, min(probability + self.augment_more, 0.8))


_LEAST_GAMMA = 0.1


@dataclass(frozen=True)
class Ruling:
    """The referee's answer to a :class:`Look`.

    Attributes:
        values: finite figures by name, for ``metrics.jsonl``; what the look was handed as a
            number is not repeated.
        line: short text for the progress line.
        warnings: in words, each when it begins to hold.
        alarm: None while the game goes on as it is.
        good: whether the weights of this moment may be returned to.
    """

    values: dict[str, float]
    line: str
    warnings: tuple[str, ...] = ()
    alarm: Alarm | None = None
    good: bool = True


class _Rule(NamedTuple):
    """What is said and done once a condition has lasted; conditions: :meth:`Referee._held`.

    Attributes:
        warn: looks in which it held, less those in which it did not, after which it is said.
        alarm: the same after which something is done; None: nothing is.
        problem: words with figures of the look by name.
        advice: what a person may change.
        act: what the alarm changes.
    """

    warn: int
    alarm: int | None
    problem: str
    advice: str
    act: Alarm = Alarm("", "")


_CALM = Alarm("", "", gamma_factor=2.0, rate_d=0.5, rate_g=0.5)

_RULES = {
    "broken": _Rule(
        1,
        1,
        "the game has broken down: logits, features or gradients are no longer finite",
        "lower the learning rates, or raise gamma",
        _CALM,
    ),
    "diverging": _Rule(
        1,
        2,
        "the game is diverging: the samples are {distance:.2f} away from the real ones, and were "
        "{best:.2f}",
        "lower the learning rates, or raise gamma",
        _CALM,
    ),
    "steep": _Rule(
        2,
        4,
        "the discriminator is getting too steep to learn from: gradients are {steepness:.0f} times "
        "what they were in its calmest time",
        "raise gamma, or lower the learning rates",
        _CALM,
    ),
    "collapse": _Rule(
        2,
        4,
        "the generator has collapsed: its samples are {spread:.0%} as far apart as real ones, "
        "cover {coverage:.0%} of them, and {duplicates:.0%} are near-copies of another",
        "raise gamma or augmentation, or lower the learning rates",
        _CALM,
    ),
    "rash": _Rule(
        3,
        5,
        "the discriminator learns too fast to get anything right: its loss is {surprise:.2f} times "
        "that of tossing a coin",
        "lower the discriminator's learning rate, or raise gamma",
        replace(_CALM, rate_g=1.0),
    ),
    "winning": _Rule(
        2,
        4,
        "the discriminator is winning: it tells {pair_accuracy:.0%} of the pairs, and the samples "
        "get no nearer to the real ones",
        "raise gamma, or lower the discriminator's learning rate",
        replace(_CALM, rate_g=1.0),
    ),
    "memorised": _Rule(
        2,
        4,
        "the discriminator knows the training samples by heart: it puts {memory:.0%} of them "
        "before held-out ones (50% would be fair), and the samples get no nearer to the real ones",
        "give more, and more varied, training data; else raise augmentation or gamma",
        replace(_CALM, augment_more=0.2),
    ),
    "memorising": _Rule(
        2,
        None,
        "the discriminator begins to know the training samples by heart: it puts {memory:.0%} of "
        "them before held-out ones (50% would be fair)",
        "give more, and more varied, training data; else raise augmentation or gamma",
    ),
    "asleep": _Rule(
        4,
        None,
        "the discriminator tells nothing: real and generated samples have the same logits, yet "
        "the samples are {distance:.2f} away from the real ones",
        "lower gamma, or raise the discriminator's learning rate",
    ),
}
"""By name; where several hold, the first has the word."""

_SURE = 0.97
"""Pair accuracy from which the discriminator is winning, if nothing gets better."""

_COIN = 1.05
"""Surprise above which a coin would do better. A sound game is below 1 from its first looks on."""

_HEART = (0.1, 0.25)
"""How far memory may lie above 0.5 before it is said, and before it is acted on."""

_STEEP = 10.0
"""Growth of a gradient's norm that is too much."""

_TIGHT = 0.3
"""Spread, of the floor's, below which the generator has collapsed. In the first minutes of a sound
game of pictures it goes up and down between 0.35 and 0.8."""

_COPIES = 0.2
"""Duplicates above the floor's from which it has."""

_LOST = 0.4
"""Coverage or recall, of the best so far, below which modes are being lost; it must have been half
of the floor's once, since few samples near the real ones come and go by chance."""

_FAR = 0.1
"""Distance above which there is much left to learn."""

_NEAR = 0.25
"""Distance below which the game has got under way: until then anything may happen. (Pictures all
grey and alike, as an untrained generator draws them, are at 0.4 to 1.)"""

_PROGRESS = (5, 0.9)
"""Progress: within so many looks, the distance comes down to less than this share."""

_SHOWN = ("coverage", "recall")
"""What of the real samples is shown."""

_GRACE = 10
"""Looks within which a generator that shows nothing may still be starting."""

_SILENCE = 20
"""Looks after a warning in which it is not repeated."""

_PAUSE = 3
"""Looks after an alarm without another: what was changed needs time to act."""

_MOST = 4
"""Alarms after which there is no more to try."""


@dataclass
class _Memory:
    """What the referee remembers: JSON-like, since it rides along in every checkpoint."""

    floor: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    distances: list[float] = field(default_factory=list)
    gradients: list[list[float]] = field(default_factory=list)
    calm: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    said: dict[str, int] = field(default_factory=dict)
    alarms: dict[str, int] = field(default_factory=dict)
    looks: int = 0
    pause: int = 0
    started: bool = False


class Referee:
    """Judges a game by its looks, in the order in which they come."""

    def __init__(self) -> None:
        self._memory = _Memory()

    @property
    def floor(self) -> dict[str, float]:
        """What held-out reals score against training reals, see :func:`resemblance`."""
        return dict(self._memory.floor)

    def state_dict(self) -> dict[str, Any]:
        """All that it remembers: numbers, texts, lists and dicts."""
        return asdict(self._memory)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave, as if the game had never been broken off."""
        self._memory = _Memory(**copy.deepcopy(dict(state)))

    def start(
        self, reals: Tensor, held_out: Tensor | None = None, copies: float | None = None
    ) -> tuple[str, ...]:
        """Learn what real against real looks like, before the game.

        Args:
            reals: (N, F) features of training reals, about as many as a look will have.
            held_out: (M, F) features of reals that are not trained on; None if there are none:
                then every other one of ``reals`` stands for them.
            copies: share of all training samples that are copies of another, if it is known; else
                it is taken from ``reals``.

        Returns:
            What is wrong with the data, in words.

        Raises:
            FacekitError: if there are too few reals, or they are all the same.
        """
        training, others = (reals, held_out) if held_out is not None else (reals[::2], reals[1::2])
        count = min(len(training), len(others))
        if count < LEAST:
            raise FacekitError(
                f"{len(reals)} training samples and {0 if held_out is None else len(held_out)} "
                f"held-out ones are too few to judge a game by; give at least {2 * LEAST}, and "
                f"{LEAST} or none held out"
            )
        if not bool(_apart(training[:count], training[:count]).any()):
            raise FacekitError("all training samples look the same; give different ones")
        self._memory.floor = resemblance(training[:count], others[:count])
        return _audit(reals, held_out, self._memory.floor, copies)

    def look(self, look: Look) -> Ruling:
        """Judge one moment of the game.

        Raises:
            ValueError: if :meth:`start` was not called, or the look has fewer than 8 samples.
        """
        memory = self._memory
        if not memory.floor:
            raise ValueError("call start first: without it the floors are not known")
        if min(map(len, (look.real, look.fake, look.reals, look.fakes))) < LEAST:
            raise ValueError(f"a look needs at least {LEAST} real and generated samples")
        memory.looks += 1
        measured = _measure(look)
        values = {name: value for name, value in measured.items() if math.isfinite(value)}
        handed = (look.loss_d, look.loss_g, look.gradient_d, look.gradient_g)
        if len(values) < len(measured) or not all(map(math.isfinite, handed)):
            held = {"broken"}
        else:
            self._remember(values, look)
            held = self._held(values, look)
        # Up and down by one, since a game in trouble has its better moments.
        counts = {name: memory.counts.get(name, 0) + (1 if name in held else -1) for name in _RULES}
        memory.counts = {name: count for name, count in counts.items() if count > 0}
        good = not held and values["distance"] <= 1.5 * values["best"] + 0.5 * _FAR
        warnings = self._warnings(values, held)
        return Ruling(values, _line(values, held), warnings, self._alarm(values, held), good)

    def _remember(self, values: dict[str, float], look: Look) -> None:
        """Take in a look; add to its figures those that compare it with the past."""
        memory = self._memory
        memory.distances = [*memory.distances, values["distance"]][-_PROGRESS[0] :]
        memory.best = {
            "distance": min(memory.best.get("distance", math.inf), values["distance"]),
            **{name: max(memory.best.get(name, 0.0), values[name]) for name in _SHOWN},
        }
        values["best"] = memory.best["distance"]
        norms = [norm * (look.gamma or 1.0) for norm in (look.gradient_d, look.gradient_g)]
        # A player that does not learn, because the other one plays alone, has no gradient.
        if all(norms):
            memory.gradients = [*memory.gradients, norms][-_PROGRESS[0] :]
        if len(memory.gradients) == _PROGRESS[0]:
            usual = [median(past) for past in zip(*memory.gradients, strict=True)]
            memory.calm = [min(pair) for pair in zip(memory.calm or usual, usual, strict=True)]
        growth = [now / calm for now, calm in zip(norms, memory.calm, strict=False)]
        values["steepness"] = max(growth, default=1.0)

    def _held(self, values: Mapping[str, float], look: Look) -> set[str]:
        """The names of the rules whose conditions hold in this look."""
        memory = self._memory
        tight = (
            values["spread"] < _TIGHT * memory.floor["spread"]
            or values["duplicates"] > memory.floor["duplicates"] + _COPIES
        )
        memory.started = memory.started or values["distance"] < _NEAR
        lost = any(
            values[name] < _LOST * memory.best[name] and memory.best[name] > memory.floor[name] / 2
            for name in _SHOWN
        )
        *before, distance = memory.distances
        stuck = (
            len(memory.distances) == _PROGRESS[0]
            and distance > _FAR
            and distance > _PROGRESS[1] * median(before)
        )
        idle = not memory.started and not (stuck and memory.looks > _GRACE)
        heart = values.get("memory", 0.5) - 0.5
        noise = 0.0 if look.held_out is None else 4 * _deviation(look.real, look.held_out)
        holds = {
            "diverging": memory.started and distance > 2 * values["best"] + _NEAR,
            "steep": values["steepness"] > _STEEP,
            "collapse": (tight and not idle) or lost,
            "rash": values["surprise"] > _COIN,
            "winning": values["pair_accuracy"] > _SURE and stuck,
            "memorised": heart > max(_HEART[1], noise) and stuck,
            "memorising": heart > max(_HEART[0], noise),
            "asleep": values["pair_accuracy"] == 0.5 and distance > _FAR,
        }
        return {name for name, held in holds.items() if held}

    def _warnings(self, values: Mapping[str, float], held: set[str]) -> tuple[str, ...]:
        """What is to be said now: a condition that comes and goes is not worth a line each time."""
        memory = self._memory
        new = [
            name
            for name, count in memory.counts.items()
            if name in held
            and count >= _RULES[name].warn
            and memory.looks - memory.said.get(name, -_SILENCE) >= _SILENCE
        ]
        memory.said = {**memory.said, **dict.fromkeys(new, memory.looks)}
        return tuple(f"{_RULES[n].problem.format(**values)}; {_RULES[n].advice}" for n in new)

    def _alarm(self, values: Mapping[str, float], held: set[str]) -> Alarm | None:
        """The first alarm that is due; the n-th of one name halves and doubles n times at once."""
        memory = self._memory
        memory.pause = max(memory.pause - 1, 0)
        due = [
            name
            for name, count in memory.counts.items()
            if name in held and (after := _RULES[name].alarm) is not None and count >= after
        ]
        if not due or memory.pause:
            return None
        name = due[0]
        rule = _RULES[name]
        stop = sum(memory.alarms.values()) >= _MOST
        repeats = memory.alarms.get(name, 0) + 1
        memory.alarms = {**memory.alarms, name: repeats}
        memory.counts, memory.distances, memory.pause = {}, [], _PAUSE
        problem = rule.problem.format(**values)
        if stop:
            words = f"{problem}; {_MOST} interventions did not help: {rule.advice}, and start anew"
            return Alarm(name, words, stop=True)
        alarm = Alarm(
            name,
            problem,
            gamma_factor=rule.act.gamma_factor**repeats,
            augment_more=rule.act.augment_more * repeats,
            rate_d=rule.act.rate_d**repeats,
            rate_g=rule.act.rate_g**repeats,
        )
        return replace(alarm, words=f"{problem}; {_deeds(alarm)}")


def _measure(look: Look) -> dict[str, float]:
    """All figures of a look by themselves; those that cannot be told are not finite."""
    values = {
        "pair_accuracy": pair_accuracy(look.real, look.fake),
        "surprise": look.loss_d / look.coin,
        **resemblance(look.reals, look.fakes),
    }
    if look.held_out is not None:
        values["memory"] = pair_accuracy(look.real, look.held_out)
    return values


def pair_accuracy(above: Tensor, below: Tensor) -> float:
    """The share of all pairs in which the first logit is the greater; ties count half.

    Args:
        above: (N,), e.g. logits of reals.
        below: (M,), e.g. logits of generated samples.

    Returns:
        In [0, 1]; NaN if a logit is not finite.
    """
    if not bool(above.isfinite().all() & below.isfinite().all()):
        return math.nan
    # Differences of bfloat16 or of infinite logits would tie what is not tied.
    order = torch.sign(above.float()[:, None] - below.float()[None])
    return float((order.mean() + 1) / 2)


def resemblance(reals: Tensor, fakes: Tensor) -> dict[str, float]:
    """How far generated samples show what the real ones are: spread, coverage and so on.

    Args:
        reals: (N, F), N ≥ 8.
        fakes: (M, F), M ≥ 8; M = N unless figures of different N are never compared.

    Returns:
        By the names of the module's docstring, each finite; all NaN where a feature is not finite.
    """
    among, within, across = _apart(reals, reals), _apart(fakes, fakes), _apart(reals, fakes)
    n, m = len(reals), len(fakes)
    apart_reals = among.sum() / (n * (n - 1))
    apart_fakes = within.sum() / (m * (m - 1))
    # The k-th neighbour of a sample, itself (at distance 0) not counted.
    near_reals = among.kthvalue(min(NEIGHBOURS, n - 1) + 1, dim=1).values
    near_fakes = within.kthvalue(min(NEIGHBOURS, m - 1) + 1, dim=1).values
    next_reals, next_fakes = among.kthvalue(2, dim=1).values, within.kthvalue(2, dim=1).values
    twin = next_reals.quantile(0.05) / 2
    # Reals that are all the same in one batch have no scale: everything else is then far away.
    scale = apart_reals.clamp_min(1e-12)
    found = {
        "spread": apart_fakes / scale,
        "coverage": (across <= near_reals[:, None]).any(1).float().mean(),
        "recall": (across <= near_fakes[None]).any(1).float().mean(),
        "precision": (across <= near_reals[:, None]).any(0).float().mean(),
        "duplicates": (next_fakes <= twin).float().mean(),
        "distance": (2 * across.mean() - apart_reals - apart_fakes) / scale,
    }
    figures: list[float] = torch.stack(list(found.values())).tolist()
    return dict(zip(found, figures, strict=True))


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """(N, M) distances; not by way of a product of matrices, which hides copies in its error."""
    return torch.cdist(a.float(), b.float(), compute_mode="donot_use_mm_for_euclid_dist")


def _deviation(a: Tensor, b: Tensor) -> float:
    """Standard deviation of the pair accuracy of two samples of one distribution (Mann-Whitney)."""
    # Copies of a sample, which have its very logit, are no further evidence.
    n, m = len(set(a.tolist())), len(set(b.tolist()))
    return math.sqrt((n + m + 1) / (12 * n * m))


def _audit(
    reals: Tensor, held_out: Tensor | None, floor: Mapping[str, float], copies: float | None
) -> tuple[str, ...]:
    """What is wrong with the data, in words."""
    among = _apart(reals, reals)
    twin = 1e-4 * among.mean()
    if copies is None:
        copies = float((among.kthvalue(2, dim=1).values <= twin).float().mean())
    found = []
    if copies > 0.01:
        found.append(
            f"{copies:.0%} of the training samples are copies of another: the game will learn "
            "them by heart; remove the copies, or add different samples"
        )
    if held_out is not None:
        shared = float((_apart(held_out, reals).amin(1) <= twin).float().mean())
        if shared > 0:
            found.append(
                f"{shared:.0%} of the held-out samples are training samples, too: learning by "
                "heart cannot be seen; keep the two apart"
            )
        if floor["distance"] > _FAR:
            found.append(
                f"held-out samples are unlike training ones (distance {floor['distance']:.2f}, "
                "0 for alike): learning by heart cannot be told from that; hold out samples "
                "of the same kind"
            )
    return tuple(found)


def _line(values: Mapping[str, float], held: set[str]) -> str:
    """Short text for the progress line."""
    shown = {"pair_accuracy": "pairs", "memory": "memory", "coverage": "cover", "spread": "spread"}
    parts = [f"{word} {values[name]:.0%}" for name, word in shown.items() if name in values]
    return ", ".join([*parts, *sorted(held)])


def _deeds(alarm: Alarm) -> str:
    """What an alarm changes, in words."""
    deeds = ["back to the last good state"]
    if alarm.gamma_factor > 1:
        deeds.append(f"gamma times {alarm.gamma_factor:g}")
    if alarm.augment_more:
        deeds.append(f"augmentation plus {alarm.augment_more:g}")
    if alarm.rate_d < 1:
        deeds.append(f"the discriminator's rate times {alarm.rate_d:g}")
    if alarm.rate_g < 1:
        deeds.append(f"the generator's times {alarm.rate_g:g}")
    return ", ".join(deeds)
