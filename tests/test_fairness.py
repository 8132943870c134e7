"""Rates by group and the gaps between them, against oracles; audits of unfair detectors."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from detectors import audit
from detectors.fairness import Seen, gap, rates, wilson
from detectors.report.evaluation import Evaluation, render
from detectors.world import World
from facekit.cli import cli
from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.studio.person import Person


def crowd(
    people: int,
    odds: dict[str, float],
    *,
    frames: int = 1,
    seed: int = 0,
    attribute: str = "tone",
    alike: bool = False,
) -> list[Seen]:
    """Untouched faces of so many people of each group, called generated with these odds."""
    random = np.random.default_rng(seed)
    seen = []
    for group, odd in odds.items():
        for number in range(people):
            once = random.random() < odd
            for _ in range(frames):
                called = once if alike else random.random() < odd
                groups = {attribute: group, "sex": ("women", "men")[number % 2]}
                seen.append(Seen(f"{group} {number}", groups, 0.9 if called else 0.1))
    return seen


# --- intervals ---------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(total=st.integers(1, 300), share=st.floats(0, 1))
def test_with_one_face_a_person_the_interval_is_wilsons(total, share):
    called = np.zeros(total, np.int64)
    called[: round(share * total)] = 1
    oracle = binomtest(int(called.sum()), total).proportion_ci(method="wilson")
    low, high = wilson(called, np.ones(total, np.int64))
    np.testing.assert_allclose((low, high), (oracle.low, oracle.high), atol=1e-9)


def test_faces_of_one_person_that_are_alike_count_once():
    random = np.random.default_rng(0)
    once = (random.random(400) < 0.2).astype(np.int64)
    alone = wilson(once, np.ones(400, np.int64))
    five = wilson(5 * once, np.full(400, 5))
    np.testing.assert_allclose(alone, five, atol=1e-9)
    independent = random.binomial(5, 0.2, 400)
    low, high = wilson(independent, np.full(400, 5))
    assert high - low < 0.6 * (alone[1] - alone[0])


def test_none_called_still_leaves_doubt():
    low, high = wilson(np.zeros(100, np.int64), np.full(100, 4))
    assert low == 0
    assert high == pytest.approx(binomtest(0, 100).proportion_ci(method="wilson").high)


def test_the_interval_holds_as_often_as_it_promises():
    """400 draws of 120 people with 3 faces each, whose odds differ from person to person."""
    random = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        odds = random.beta(1, 9, 120)  # 0.1 on average
        low, high = wilson(random.binomial(3, odds), np.full(120, 3))
        held += low <= 0.1 <= high
    assert 0.92 <= held / 400 <= 0.99


# --- rates -------------------------------------------------------------------------------------


def test_rates_count_what_was_called_and_what_was_not_found():
    seen = [
        Seen("a", {"sex": "women"}, 0.9),
        Seen("a", {"sex": "women"}, 0.5),
        Seen("a", {"sex": "women"}, None),
        Seen("b", {"sex": "men"}, 0.2),
        Seen("c", {}, 0.6),
    ]
    everyone, men, women = rates(seen, 0.5)
    assert (everyone.people, everyone.faces, everyone.missed, everyone.called) == (3, 4, 1, 2)
    assert (women.attribute, women.group, women.people, women.faces) == ("sex", "women", 1, 2)
    assert women.called == 1  # a face at the threshold is not above it
    assert (men.value, men.called) == (0.0, 0)
    assert not women.established
    row = women.row("studio")
    assert row["value"] is None and row["note"] == "not established"
    assert row["group"] == "studio sex"


def test_a_group_is_established_from_fifty_people_on():
    rows = rates(crowd(50, {"dark": 0.5}) + crowd(49, {"light": 0.5}), 0.5)
    assert {row.group: row.established for row in rows if row.attribute == "tone"} == {
        "dark": True,
        "light": False,
    }


def test_a_group_of_whom_no_face_was_found_has_no_rate():
    seen = crowd(60, {"light": 0.1})
    seen += [replace(s, probability=None) for s in crowd(60, {"dark": 0.1})]
    dark = next(row for row in rates(seen, 0.5) if row.group == "dark")
    assert dark.value is None and dark.missed == 60 and not dark.established
    assert gap(seen, 0.5).attribute == "sex"  # which light people alone still divide


def test_without_scores_there_are_no_rates():
    with pytest.raises(FacekitError, match="2 pictures and no face found"):
        rates([Seen("a", {}, None), Seen("b", {}, None)], 0.5)
    with pytest.raises(FacekitError, match="not numbers"):
        rates([Seen("a", {}, float("nan"))], 0.5)


# --- gaps --------------------------------------------------------------------------------------


def test_a_planted_gap_is_found_where_it_lies():
    found = gap(crowd(300, {"1-2": 0.02, "5-6": 0.03, "9-10": 0.2}, frames=2), 0.5)
    assert (found.attribute, found.highest, found.lowest) == ("tone", "9-10", "1-2")
    assert found.value == pytest.approx(0.18, abs=0.03)
    assert found.low < 0.18 < found.high
    assert found.p < 0.01
    assert found.by_chance < 0.03


def test_a_fair_detector_passes():
    ps = []
    for seed in range(20):
        found = gap(crowd(60, {"1-2": 0.1, "5-6": 0.1, "9-10": 0.1}, seed=seed), 0.5, seed=seed)
        assert found.value > 0  # which is why chance stands beside it
        ps.append(found.p)
    assert np.mean(np.array(ps) < 0.05) <= 0.2
    assert 0.25 < np.mean(ps) < 0.75


def test_chance_deals_whole_people():
    """Were faces dealt one by one, who hates single people would seem to hate groups."""
    unfair = 0
    for seed in range(20):
        seen = crowd(60, {"1-2": 0.2, "9-10": 0.2}, frames=10, seed=seed, alike=True)
        unfair += gap(seen, 0.5, seed=seed).p < 0.05
    assert unfair <= 4


def test_small_groups_make_no_gap():
    seen = crowd(120, {"1-2": 0.1}) + crowd(10, {"9-10": 1.0})
    assert gap(seen, 0.5).attribute == "sex"
    assert gap(crowd(20, {"1-2": 0.1, "9-10": 1.0}), 0.5) is None


def test_the_value_is_the_difference_of_the_rates():
    seen = crowd(80, {"1-2": 0.1, "3-4": 0.3, "5-6": 0.2}, frames=3)
    by_group = {row.group: row.value for row in rates(seen, 0.5) if row.attribute == "tone"}
    found = gap(seen, 0.5)
    assert found.value == pytest.approx(max(by_group.values()) - min(by_group.values()))
    assert gap(seen, 0.5) == found  # the same draws


# --- the audits --------------------------------------------------------------------------------


def test_the_cast_fills_every_group_and_every_combination():
    people = audit.cast(8, seed=0)
    assert len(people) == len({person.seed for person in people}) == 40
    groups = [audit.groups_of(person) for person in people]
    assert len({tuple(g.values()) for g in groups}) == 40
    for attribute, size in (("skin tone", 8), ("sex", 20), ("age", 10)):
        names = [g[attribute] for g in groups]
        assert {names.count(name) for name in names} == {size}
    assert all(person.seed >= 10**9 for person in people)  # nobody's folder shows them
    others = audit.cast(8, seed=1)
    assert not {p.seed for p in people} & {p.seed for p in others}


def test_groups_follow_the_person():
    person = Person.sample(3)
    for tone, age, sex, expected in (
        (1, 18.0, 0.1, {"skin tone": "1-2", "sex": "women", "age": "18-29"}),
        (10, 80.0, 0.9, {"skin tone": "9-10", "sex": "men", "age": "60-80"}),
        (6, 45.0, 0.5, {"skin tone": "5-6", "sex": "men", "age": "45-59"}),
    ):
        changed = person.model_copy(update={"skin_tone": tone, "age": age, "sex": sex})
        assert audit.groups_of(changed) == expected


def fake_photos(people, *, frames, **_):
    """In place of renders: a picture whose pixels say who is shown."""
    for k in range(0, len(people), 60):
        block = list(people[k : k + 60])
        yield block, np.zeros((len(block), frames, 8, 8, 3), np.uint8)


class FakeDetector:
    """Calls faces of dark people generated, and forged faces; see ``fakes``."""

    name = "fake"
    threshold = 0.5
    calibrated_for = ("studio",)
    seen: frozenset[str] = frozenset()
    parts = (SimpleNamespace(config=SimpleNamespace(data=SimpleNamespace(world=World()))),)

    def score(self, regions):
        return np.array([region.score for region in regions])


@pytest.fixture
def fakes(monkeypatch):
    """Located, forged and degraded faces are stand-ins that hold their score."""
    from detectors.data import FaceSet

    random = np.random.default_rng(0)

    def gathered(samples, *, device):
        samples = list(samples)
        people = {who: Person.sample(int(who.split()[-1])) for who in {s.subject for s in samples}}
        found = [s for s in samples if not s.source.endswith("photo 1") or random.random() < 0.9]
        scores = [
            float(random.random() < (0.2 if people[s.subject].skin_tone >= 9 else 0.02))
            for s in found
        ]
        count = len(found)
        return FaceSet(
            regions=[SimpleNamespace(score=score) for score in scores],
            labels=np.zeros(count, np.int64),
            subjects=[s.subject for s in found],
            sources=[s.source for s in found],
            donors=[""] * count,
            makers=["studio"] * count,
            collections=["studio"] * count,
            payloads=[None] * count,
            digests=[f"{i:016x}" for i in range(count)],
        )

    def forged(faces, random, kinds):
        return replace(
            faces,
            regions=[SimpleNamespace(score=0.95)] * len(faces),
            labels=np.ones(len(faces), np.int64),
            makers=list(kinds) * len(faces),
        )

    monkeypatch.setattr(audit, "photos", fake_photos)
    monkeypatch.setattr(audit, "gather", gathered)

    def blended(faces, kinds, *, key):
        return faces + forged(faces, None, kinds)

    monkeypatch.setattr(audit.held_out, "splices", forged)
    monkeypatch.setattr(audit, "with_forgeries", blended)
    monkeypatch.setattr(audit, "befallen", lambda faces, world, key: faces)


def test_an_unfair_detector_is_found_out(fakes, tmp_path):
    found = audit.audit_studio(
        FakeDetector(), device=torch.device("cpu"), cache=tmp_path, per_group=56
    )
    told = audit.report([found])
    by_name = {row["name"]: row for row in told["page"]["figures"]}
    row = by_name["detect.studio_fpr_gap"]
    assert 0.1 < row["value"] < 0.3 and row["goal"] == "<= 0.05" and row["holds"] is False
    assert by_name["detect.studio_fpr_gap_p"]["value"] < 0.01
    assert by_name["detect.studio_tpr"]["value"] == 1.0
    assert by_name["detect.studio_auc"]["value"] > 0.9
    notes = " ".join(told["page"]["notes"])
    assert "by skin tone: 9-10" in notes
    assert "56 people in the smallest group; an audit asks for 500" in notes
    assert "photos no face was found" in notes
    of_each = told["rates"]["studio"]
    assert sum(r["people"] for r in of_each["untouched"] if r["attribute"] == "sex") == 280
    assert all(r["faces"] == r["people"] for r in of_each["forged"])  # one of each
    assert render(Evaluation.model_validate(told["page"])).count("9-10") >= 1

    audit.write(tmp_path, [found])
    assert audit.read(tmp_path) == [found]
    shown = CliRunner().invoke(cli, ["detector", "audit", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert "skin tone 9-10" in shown.output and "detect.studio_fpr_gap" in shown.output
    assert (tmp_path / "audit.html").is_file()
    assert files.read_json(tmp_path / "audit.json") == told


def test_an_audit_of_what_is_no_detector_says_so():
    seen = crowd(60, {"1-2": 0.5, "9-10": 0.5})
    forged = [replace(s, groups={}) for s in crowd(60, {"1-2": 0.5, "9-10": 0.5}, seed=1)]
    told = audit.report([audit.Audit("studio", "coin", 0.5, seen, forged)])
    assert "hardly a detector's" in " ".join(told["page"]["notes"])


def test_a_detector_is_not_audited_on_what_it_was_trained_on(fakes, tmp_path):
    known = FakeDetector()
    known.seen = frozenset({f"{3:016x}"})
    with pytest.raises(FacekitError, match="trained on 1 of the photos to audit it on"):
        audit.audit_studio(known, device=torch.device("cpu"), cache=tmp_path, per_group=8)
    camera = FakeDetector()
    camera.calibrated_for = ("camera",)
    with pytest.raises(FacekitError, match="calibrated for camera, not for the studio"):
        audit.audit_studio(camera, device=torch.device("cpu"), cache=tmp_path)
    with pytest.raises(FacekitError, match="calibrated for studio, not for cameras"):
        audit.audit_london(FakeDetector(), tmp_path, device=torch.device("cpu"))


@pytest.fixture
def drawn(monkeypatch):
    """The (person, performance) pairs rendered so far; each makes a picture of its own."""
    pairs_drawn = []

    def renders(pairs, size, workers, *, want):
        for person, performance in pairs:
            pairs_drawn.append((person, performance))
            random = np.random.default_rng([person.seed, performance.background])
            yield SimpleNamespace(pixels=random.integers(0, 256, (size, size, 3), np.uint8))

    monkeypatch.setattr(audit, "render_frames", renders)
    monkeypatch.setattr(audit, "_BLOCK", 2)
    return pairs_drawn


def test_photos_are_rendered_once_and_are_the_same_from_the_cache(drawn, tmp_path):
    people = [Person.sample(10**9 + i) for i in range(3)]
    how = {"frames": 2, "size": 32, "seed": 5, "workers": 1, "cache": tmp_path, "title": ""}
    first = list(audit.photos(people, **how))
    assert [len(block) for block, _ in first] == [2, 1]
    assert first[0][1].shape == (2, 2, 32, 32, 3)
    assert len({(person.seed, moment.background) for person, moment in drawn}) == len(drawn) == 6
    again = list(audit.photos(people, **how))
    assert len(drawn) == 6
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(first, again, strict=True))
    damaged = min(tmp_path.glob("*.npy"))
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(FacekitError, match=r"damaged .*remove it"):
        list(audit.photos(people, **how))


def test_an_interrupted_audit_goes_on_where_it_was(drawn, tmp_path):
    people = [Person.sample(10**9 + i) for i in range(4)]
    how = {"frames": 1, "size": 32, "seed": 5, "workers": 1, "cache": tmp_path, "title": ""}
    shots = audit.photos(people, **how)
    next(shots)
    shots.close()
    assert len(drawn) == 2
    assert len(list(audit.photos(people, **how))) == 2
    assert len(drawn) == 4


def test_the_trained_detectors_people_are_nobody_of_the_audit():
    seed = 3
    first = (audit._TRAINED_ON + audit._ROOM * seed) * 1000
    trained = set(range(first, first + sum(audit._SPLITS.values())))
    room = range((audit._AUDITED + audit._ROOM * seed) * 1000, first)
    assert len(room) == 50_000 and not trained & set(room)
    split = audit._split_of(sorted(trained))
    assert len(split) == len(trained)
    assert [list(split.values()).count(name) for name in audit._SPLITS] == [180, 40, 80]


def test_london_is_told_by_gender_ethnicity_and_age(tmp_path, monkeypatch):
    from detectors.data import FaceSet

    entries = [
        SimpleNamespace(
            item=SimpleNamespace(
                subject=f"p{i}",
                source=f"p{i} {mood}",
                facts={"age": 20 + i, "gender": ("female", "male")[i % 2], "ethnicity": "white"},
            )
        )
        for i in range(51)
        for mood in ("neutral", "smiling")
    ]
    found = entries[1:]
    faces = FaceSet(
        regions=[SimpleNamespace(score=float(i == 0)) for i in range(len(found))],
        labels=np.zeros(len(found), np.int64),
        subjects=[e.item.subject for e in found],
        sources=[e.item.source for e in found],
        donors=[""] * len(found),
        makers=[""] * len(found),
        collections=["london-test"] * len(found),
        payloads=[None] * len(found),
        digests=[f"{i:016x}" for i in range(len(found))],
    )
    monkeypatch.setattr(audit.collections, "read", lambda collections, data: entries)
    monkeypatch.setattr(audit.collections, "samples", lambda entries: entries)
    monkeypatch.setattr(audit, "gather", lambda samples, device: faces)
    camera = FakeDetector()
    camera.calibrated_for = ("camera",)
    told = audit.report([audit.audit_london(camera, tmp_path, device=torch.device("cpu"))])
    (figure,) = told["page"]["figures"]
    assert figure["name"] == "detect.london_fpr" and figure["goal"] is None
    assert figure["value"] == pytest.approx(1 / 101)
    rows = told["rates"]["London"]["untouched"]
    assert [row["group"] for row in rows if row["established"]] == ["everyone", "white"]
    assert {row["attribute"] for row in rows} == {"", "gender", "ethnicity", "age"}
    assert rows[0]["missed"] == 1
    shown = {row["name"]: row["note"] for row in told["page"]["fairness"]}
    assert shown["female"] == "not established"


# --- the command -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --out DIR for a new audit"),
        (["{folder}"], "no finished audit in it"),
        (["{folder}", "--out", "x"], "a finished audit is shown"),
        (["--out", "{folder}", "--detector", "nobody"], "nobody"),
        (["--out", "{folder}", "--per-group", "4"], "8<=x<=2000"),
    ],
)
def test_what_the_command_refuses(arguments, message, tmp_path):
    given = [argument.format(folder=tmp_path) for argument in arguments]
    result = CliRunner().invoke(cli, ["detector", "audit", *given])
    assert result.exit_code != 0
    assert message in str(result.exception) + result.output


def test_a_damaged_audit_is_named(tmp_path):
    files.write_json(tmp_path / "studio.json", {"what": "studio"})
    with pytest.raises(FacekitError, match=r"studio.json: not an audit's file"):
        audit.read(tmp_path)
    (tmp_path / "studio.json").write_text("{")
    with pytest.raises(FacekitError, match="not readable as JSON"):
        audit.read(tmp_path)
