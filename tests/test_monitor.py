"""The referee's measures against values worked out by hand, and its rules with looks made by hand.

No network is trained here; whole games are in test_referee.py.
"""

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from facekit.adversary.metrics.prdc import prdc
from facekit.adversary.monitor import (
    Alarm,
    Look,
    Referee,
    Ruling,
    pair_accuracy,
    resemblance,
)
from facekit.core.errors import FacekitError

SAMPLES = 64
PATIENT = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A loaded machine is no failure."""


def cloud(seed: int, count: int = SAMPLES, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """Features (count, 4) of a normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, generator=generator) * scale + shift


def evenly(count: int, above: float = 0.0) -> Tensor:
    """Logits spread evenly over 4, so that pair accuracies follow from ``above`` alone."""
    return torch.linspace(-2, 2, count) + above


SOUND = Look(
    step=100,
    images=3200,
    real=evenly(SAMPLES, 0.7),
    fake=evenly(SAMPLES),
    reals=cloud(1),
    fakes=cloud(2),
    gradient_d=1.0,
    gradient_g=1.0,
    loss_d=0.6,
    loss_g=0.7,
    held_out=evenly(SAMPLES, 0.6),
)
AWAY = replace(SOUND, fakes=cloud(2, shift=1.0))
"""Samples that are not yet near the real ones: distance about 0.5."""

WON = replace(AWAY, real=evenly(SAMPLES, 9.0), held_out=evenly(SAMPLES, 9.0))
"""The discriminator tells every pair."""


def referee() -> Referee:
    fresh = Referee()
    assert fresh.start(cloud(1), cloud(3)) == ()
    return fresh


def judged(*looks: Look) -> list[Ruling]:
    """The rulings of a new referee."""
    judge = referee()
    return [judge.look(look) for look in looks]


def names(rulings: list[Ruling]) -> list[str]:
    """Of the alarms, in order."""
    return [ruling.alarm.name for ruling in rulings if ruling.alarm]


def said(rulings: list[Ruling]) -> str:
    return "\n".join(words for ruling in rulings for words in ruling.warnings)


# Measures ------------------------------------------------------------------------------------


def test_pair_accuracy_counts_pairs_and_halves_ties() -> None:
    assert pair_accuracy(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0])) == 0.75
    assert pair_accuracy(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])) == 0.5
    assert pair_accuracy(torch.tensor([5.0]), torch.tensor([1.0, 2.0, 3.0])) == 1
    assert math.isnan(pair_accuracy(torch.tensor([math.nan, 1.0]), torch.tensor([0.0])))


@PATIENT
@given(
    st.lists(st.integers(-9, 9), min_size=1, max_size=12),
    st.lists(st.integers(-9, 9), min_size=1, max_size=12),
)
def test_pair_accuracy_depends_on_order_alone(above: list[int], below: list[int]) -> None:
    a, b = torch.tensor(above, dtype=torch.float32), torch.tensor(below, dtype=torch.float32)
    share = pair_accuracy(a, b)
    counted = sum((x > y) + (x == y) / 2 for x in above for y in below)
    assert share == pytest.approx(counted / (len(above) * len(below)))
    assert share + pair_accuracy(b, a) == pytest.approx(1)
    assert pair_accuracy(a.exp() * 3 - 1, b.exp() * 3 - 1) == pytest.approx(share)


def test_resemblance_of_a_line_is_as_counted_by_hand() -> None:
    reals = torch.arange(10.0)[:, None]  # the fifth neighbour is at 3 in the middle, 5 at the ends
    same = resemblance(reals, reals + 0.25)
    assert same["spread"] == pytest.approx(1)
    assert same["coverage"] == same["recall"] == same["precision"] == 1
    assert same["duplicates"] == 0
    # E|x - x'| of two different numbers of 0 … 9 is 11/3; from one to the next quarter it is 3.325.
    across = sum(abs(i - j - 0.25) for i in range(10) for j in range(10)) / 100
    assert same["distance"] == pytest.approx((2 * across - 2 * 11 / 3) / (11 / 3))
    one = resemblance(reals, torch.full((10, 1), 4.0))
    assert one["spread"] == 0
    assert one["duplicates"] == 1
    assert one["recall"] == pytest.approx(0.1)  # only the real one that is that very sample
    assert one["precision"] == 1
    far = resemblance(reals, reals + 100)
    assert far["coverage"] == far["recall"] == far["precision"] == 0
    assert far["spread"] == pytest.approx(1)


@PATIENT
@given(st.integers(0, 10_000), st.sampled_from([1e-3, 1.0, 1e3]), st.integers(8, 40))
def test_resemblance_knows_no_scale_place_or_order(seed: int, scale: float, count: int) -> None:
    reals, fakes = cloud(seed, count).double(), cloud(seed + 1, count, shift=0.5).double()
    plain = resemblance(reals, fakes)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=generator)
    other = resemblance(reals[order] * scale + scale, fakes * scale + scale)
    for name, value in plain.items():
        # Where a distance is just that of the neighbourhood, rounding may decide: one sample.
        assert other[name] == pytest.approx(value, abs=1.01 / count), name
    assert all(0 <= plain[name] <= 1 for name in ("coverage", "recall", "precision", "duplicates"))


def test_neighbourhoods_are_those_of_the_metrics() -> None:
    reals, fakes = cloud(1), cloud(2, shift=0.7)
    here, there = resemblance(reals, fakes), prdc(reals, fakes, k=5)
    for name in ("precision", "recall", "coverage"):
        assert here[name] == pytest.approx(getattr(there, name), abs=1e-6), name


def test_distance_is_zero_for_alike_and_grows_with_the_shift() -> None:
    distances = [
        resemblance(cloud(1, 200), cloud(2, 200, shift=shift))["distance"]
        for shift in (0.0, 0.5, 1.0, 2.0, 4.0)
    ]
    assert abs(distances[0]) < 0.02
    assert all(a < b for a, b in pairwise(distances))


def test_dropped_modes_are_seen_by_coverage_and_recall() -> None:
    centres = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]])
    reals = centres.repeat(16, 1) + cloud(1)[:, :2] * 0.1
    fakes = centres[:2].repeat(32, 1) + cloud(2)[:, :2] * 0.1
    half = resemblance(reals, fakes)
    assert half["coverage"] == pytest.approx(0.5, abs=0.1)
    assert half["recall"] == pytest.approx(0.5, abs=0.1)
    assert half["precision"] > 0.9


# Floors and the audit ------------------------------------------------------------------------


def test_floors_are_what_held_out_reals_score() -> None:
    judge = Referee()
    judge.start(cloud(1), cloud(3))
    assert judge.floor == resemblance(cloud(1), cloud(3))
    alone = Referee()
    alone.start(cloud(1))
    assert alone.floor == resemblance(cloud(1)[::2], cloud(1)[1::2])


def test_the_audit_says_what_is_wrong_with_the_data() -> None:
    twice = cloud(1, 32).repeat(2, 1)
    (copies,) = Referee().start(twice, cloud(3))
    assert copies.startswith("100% of the training samples are copies of another")
    (shared,) = Referee().start(cloud(1), torch.cat([cloud(3, 48), cloud(1)[:16]]))
    assert shared.startswith("25% of the held-out samples are training samples")
    (unlike,) = Referee().start(cloud(1), cloud(3, shift=2))
    assert "unlike training ones" in unlike


def test_data_that_no_game_can_be_judged_by_is_refused() -> None:
    with pytest.raises(FacekitError, match="7 training samples and 9 held-out ones are too few"):
        Referee().start(cloud(1, 7), cloud(2, 9))
    with pytest.raises(FacekitError, match="15 training samples"):
        Referee().start(cloud(1, 15))
    with pytest.raises(FacekitError, match="look the same; give different ones"):
        Referee().start(torch.ones(64, 4), cloud(2))


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="call start first"):
        Referee().look(SOUND)
    with pytest.raises(ValueError, match="at least 8"):
        referee().look(replace(SOUND, fakes=cloud(2, 7)))


# Rules ---------------------------------------------------------------------------------------


def test_a_sound_game_is_left_alone_and_may_be_returned_to() -> None:
    looks = [replace(SOUND, fakes=cloud(9 + i), reals=cloud(99 + i)) for i in range(40)]
    rulings = judged(*looks)
    assert not said(rulings) and not names(rulings)
    assert all(ruling.good for ruling in rulings)
    values = rulings[0].values
    assert all(math.isfinite(value) for value in values.values())
    assert values["pair_accuracy"] == pytest.approx(0.66, abs=0.02)
    assert values["memory"] == pytest.approx(0.52, abs=0.02)
    assert rulings[0].line == "pairs 66%, memory 52%, cover 98%, spread 90%"


def test_a_start_from_nothing_is_no_collapse() -> None:
    looks = [
        replace(WON, fakes=cloud(2, scale=0.05 + 0.1 * i, shift=1.8 - 0.2 * i)) for i in range(10)
    ]
    rulings = judged(*looks, *[SOUND] * 10)
    assert not names(rulings) and not said(rulings)
    assert rulings[-1].good


def test_samples_alike_are_a_collapse() -> None:
    collapsed = replace(SOUND, fakes=cloud(2, scale=0.2))
    rulings = judged(*[SOUND] * 6, *[collapsed] * 5)
    assert "the generator has collapsed: its samples are 18% as far apart" in said(rulings)
    assert names(rulings) == ["collapse"]
    assert [ruling.good for ruling in rulings[5:7]] == [True, False]
    alarm = rulings[9].alarm
    assert alarm and (alarm.gamma_factor, alarm.rate_d, alarm.rate_g) == (2, 0.5, 0.5)
    assert "back to the last good state, gamma times 2" in alarm.words


def test_copies_of_one_another_are_a_collapse() -> None:
    copies = replace(SOUND, fakes=cloud(2, SAMPLES // 2).repeat(2, 1))
    rulings = judged(*[SOUND] * 6, *[copies] * 5)
    assert "100% are near-copies of another" in said(rulings)
    assert names(rulings) == ["collapse"]


def test_modes_that_are_lost_are_a_collapse() -> None:
    whole, part = cloud(2), cloud(2)
    part[:, 0] = part[:, 0].abs() + 2.0
    part[:, 1:] *= 1.5
    lost = replace(SOUND, fakes=part)
    assert resemblance(lost.reals, lost.fakes)["coverage"] < 0.3
    rulings = judged(*[replace(SOUND, fakes=whole)] * 6, *[lost] * 5)
    assert "collapse" in names(rulings) or "diverging" in names(rulings)


def test_a_generator_that_never_starts_is_a_collapse_in_the_end() -> None:
    stillborn = replace(SOUND, fakes=cloud(2, scale=0.01))
    rulings = judged(*[stillborn] * 20)
    assert names(rulings)[0] == "collapse"
    assert not any(ruling.alarm for ruling in rulings[:10])


def test_a_discriminator_that_wins_while_nothing_improves_is_said_and_stopped() -> None:
    rulings = judged(*[WON] * 12)
    assert "the discriminator is winning: it tells 100% of the pairs" in said(rulings)
    assert names(rulings) == ["winning"]
    alarm = next(ruling.alarm for ruling in rulings if ruling.alarm)
    assert (alarm.gamma_factor, alarm.rate_d, alarm.rate_g) == (2, 0.5, 1)


def test_a_discriminator_that_wins_while_samples_improve_teaches_well() -> None:
    shifts = [3 * 0.8**i for i in range(14)]
    looks = [replace(WON, fakes=cloud(2, shift=shift)) for shift in shifts]
    assert not said(judged(*looks))


def test_steepness_is_seen_against_the_calmest_time() -> None:
    grown = [replace(SOUND, gradient_g=1.3**i) for i in range(16)]
    rulings = judged(*[SOUND] * 6, *grown)
    assert "too steep to learn from: gradients are" in said(rulings)
    assert names(rulings) == ["steep"]
    calming = [replace(SOUND, gradient_d=2.0**-i, gradient_g=2.0**-i) for i in range(20)]
    assert not said(judged(*calming))


def test_a_schedule_that_lets_the_discriminator_be_steeper_is_no_trouble() -> None:
    eased = [replace(SOUND, gamma=0.8**i, gradient_g=0.8**-i) for i in range(20)]
    assert not said(judged(*eased))
    assert names(judged(*[replace(look, gamma=1.0) for look in eased])) == ["steep"]


def test_a_player_that_does_not_learn_has_no_gradient_to_compare_with() -> None:
    alone = [replace(SOUND, gradient_g=0.0)] * 8 + [replace(SOUND, gradient_d=0.0)] * 8
    rulings = judged(*alone, *[SOUND] * 8)
    assert not said(rulings)
    assert rulings[-1].values["steepness"] == 1


def test_learning_by_heart_is_said_and_acted_on_when_nothing_improves() -> None:
    knows = replace(SOUND, real=evenly(SAMPLES, 1.5), held_out=evenly(SAMPLES, -0.5))
    rulings = judged(*[knows] * 8)
    assert "begins to know the training samples by heart: it puts 87%" in said(rulings)
    assert not names(rulings), "samples as good as real ones need no help"
    far = replace(AWAY, real=knows.real, held_out=knows.held_out)
    rulings = judged(*[far] * 10)
    assert names(rulings) == ["memorised"]
    alarm = next(ruling.alarm for ruling in rulings if ruling.alarm)
    assert alarm.augment_more == 0.2
    assert "augmentation plus 0.2" in alarm.words


def test_no_gap_is_claimed_where_few_held_out_samples_could_make_it() -> None:
    few = replace(SOUND, held_out=evenly(8, -0.5))
    ruling = judged(*[few] * 4)[-1]
    assert ruling.values["memory"] > 0.7
    assert not ruling.warnings and ruling.good
    copies = evenly(8, 2.0).repeat(8)
    assert not said(judged(*[replace(SOUND, real=copies)] * 4)), "copies are no more evidence"
    assert "by heart" in said(judged(*[replace(SOUND, real=evenly(SAMPLES, 2.0))] * 4))
    none = judged(replace(SOUND, held_out=None))[0]
    assert "memory" not in none.values


def test_a_discriminator_worse_than_a_coin_learns_too_fast() -> None:
    wild = replace(SOUND, loss_d=2 * math.log(2))
    rulings = judged(*[wild, wild, SOUND] * 8)
    assert "learns too fast to get anything right: its loss is 2.00 times" in said(rulings)
    assert names(rulings)[0] == "rash", "its better moments don't hide it"
    alarm = next(ruling.alarm for ruling in rulings if ruling.alarm)
    assert (alarm.rate_d, alarm.rate_g) == (0.5, 1)
    assert not said(judged(*[replace(wild, coin=2 * math.log(2))] * 8)), "by another objective"


def test_a_game_that_falls_apart_is_diverging() -> None:
    rulings = judged(*[SOUND] * 3, *[replace(SOUND, fakes=cloud(2, shift=3.0))] * 3)
    assert "the game is diverging" in rulings[3].warnings[0]
    assert names(rulings) == ["diverging"]


def test_a_discriminator_that_tells_nothing_is_said_and_left_alone() -> None:
    asleep = replace(AWAY, real=torch.zeros(SAMPLES), fake=torch.zeros(SAMPLES), held_out=None)
    rulings = judged(*[asleep] * 12)
    assert "the discriminator tells nothing" in said(rulings)
    assert not names(rulings)


@pytest.mark.parametrize(
    "broken",
    [
        replace(SOUND, real=torch.full((SAMPLES,), math.nan)),
        replace(SOUND, fake=torch.full((SAMPLES,), math.inf)),
        replace(SOUND, fakes=torch.full((SAMPLES, 4), math.nan)),
        replace(SOUND, gradient_d=math.inf),
        replace(SOUND, loss_g=math.nan),
    ],
)
def test_numbers_that_are_none_are_an_alarm_at_once(broken: Look) -> None:
    for looks in ([broken], [SOUND, SOUND, broken]):
        ruling = judged(*looks)[-1]
        assert ruling.alarm and ruling.alarm.name == "broken"
        assert not ruling.good
        assert all(math.isfinite(value) for value in ruling.values.values())
        json.dumps(ruling.values, allow_nan=False)


def test_repeated_alarms_act_harder_and_are_bounded() -> None:
    collapsed = replace(SOUND, fakes=cloud(2, scale=0.2))
    rulings = judged(*[SOUND] * 6, *[collapsed] * 60)
    alarms = [ruling.alarm for ruling in rulings if ruling.alarm]
    assert [alarm.rate_d for alarm in alarms[:4]] == [1 / 2, 1 / 4, 1 / 8, 1 / 16]
    assert [alarm.stop for alarm in alarms[:5]] == [False] * 4 + [True]
    assert "4 interventions did not help" in alarms[4].words
    at = [i for i, ruling in enumerate(rulings) if ruling.alarm]
    assert min(b - a for a, b in pairwise(at)) >= 3, "what was changed gets time to act"


def test_a_warning_is_said_once_and_not_again_soon() -> None:
    knows = replace(SOUND, real=evenly(SAMPLES, 1.5), held_out=evenly(SAMPLES, -0.5))
    rulings = judged(*[knows, knows, SOUND] * 6)
    assert sum(len(ruling.warnings) for ruling in rulings) == 1
    assert "memorising" in rulings[-2].line


# What the loop is to do ----------------------------------------------------------------------


def test_an_alarm_says_what_to_change() -> None:
    alarm = Alarm("steep", "…", gamma_factor=2.0, augment_more=0.2)
    assert alarm.gamma(3.0) == 6
    assert alarm.gamma(0.0) > 0, "twice nothing would change nothing"
    assert alarm.augment(0.1) == pytest.approx(0.3)
    assert alarm.augment(0.75) == 0.8
    assert alarm.augment(0.9) == 0.9, "never less than it was"
    assert Alarm("", "").gamma(0.0) == 0


# State ---------------------------------------------------------------------------------------


@PATIENT
@given(st.lists(st.integers(0, 5), min_size=2, max_size=24), st.data())
def test_a_resumed_referee_rules_as_an_unbroken_one(kinds: list[int], data: st.DataObject) -> None:
    shelf = [
        SOUND,
        AWAY,
        replace(SOUND, fakes=cloud(2, scale=0.2)),
        WON,
        replace(SOUND, gradient_g=50.0),
        replace(SOUND, loss_d=math.nan),
    ]
    looks = [shelf[kind] for kind in kinds]
    cut = data.draw(st.integers(0, len(looks)))
    unbroken = judged(*looks)
    before, after = referee(), Referee()
    first = [before.look(look) for look in looks[:cut]]
    after.load_state_dict(json.loads(json.dumps(before.state_dict(), allow_nan=False)))
    assert first + [after.look(look) for look in looks[cut:]] == unbroken
    alarms = [ruling.alarm for ruling in unbroken if ruling.alarm]
    assert sum(not alarm.stop for alarm in alarms) <= 4
    assert not any(ruling.good and ruling.alarm for ruling in unbroken)


def test_a_state_is_a_copy() -> None:
    judge = referee()
    judge.look(SOUND)
    state = judge.state_dict()
    kept = json.dumps(state)
    judge.look(SOUND)
    assert json.dumps(state) == kept
    other = Referee()
    other.load_state_dict(state)
    other.look(SOUND)
    assert json.dumps(state) == kept
