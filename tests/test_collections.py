"""Collections: read, halved, thinned, divided by person over all of them, and decoded."""

import logging
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import collections as data_sets
from detectors.collections import (
    SHARES,
    Collection,
    Entry,
    check_disjoint,
    divide,
    fingerprint,
    read,
    samples,
)
from facekit.core import config
from facekit.core.errors import FacekitError
from facekit.media.encode import write_video
from facekit.media.images import write_image
from facekit.types import Frame, Item, write_manifest


def touch(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")


def pictures(name, **settings):
    return Collection(**{"name": name, "layout": "pictures", "path": name, **settings})


def entry(path, collection, label=0, subject="", source="", donor="", split=""):
    """An entry as ``read`` makes it, without files."""
    item = Item(
        path=path,
        sha256="",
        subject=subject or path,
        source=source or path,
        label=label,
        split=split,
        facts={"donor": donor} if donor else {},
    )
    return Entry(Path("data", collection.path, path), item, collection)


def many(collection, count, label=0):
    return [entry(f"{collection.name}-{n}.jpg", collection, label) for n in range(count)]


def splits(entries):
    return {e.path: e.item.split for e in entries}


# --- reading


def test_labels_makers_and_names(tmp_path):
    touch(tmp_path, "lfw/ann/1.jpg", "lfw/ann/2.jpg", "a/1.jpg", "b/1.jpg")
    entries = read(
        [
            Collection(name="lfw", layout="people", path="lfw", label=0),
            pictures("a", label=1),
            pictures("b", label=1, maker="stylegan2"),
        ],
        tmp_path,
    )
    assert [(e.path, e.item.label, e.item.generator) for e in entries] == [
        (tmp_path / "lfw/ann/1.jpg", 0, ""),
        (tmp_path / "lfw/ann/2.jpg", 0, ""),
        (tmp_path / "a/1.jpg", 1, "a"),
        (tmp_path / "b/1.jpg", 1, "stylegan2"),
    ]
    # Files that are called alike in two folders show two people.
    assert len({e.item.subject for e in entries}) == 3
    assert len({e.item.source for e in entries}) == 4


def test_donors_are_named_as_people_are(tmp_path):
    touch(tmp_path, "set/1.jpg", "set/2.jpg")
    write_manifest(
        tmp_path / "set",
        [
            Item(path="1.jpg", sha256="", subject="ann", label=0),
            Item(path="2.jpg", sha256="", subject="bob", label=1, facts={"donor": "ann"}),
        ],
    )
    first, swap = read([Collection(name="s", layout="manifest", path="set")], tmp_path)
    assert swap.donor == first.item.subject == "set:ann"


def test_labels_that_are_missing_or_contradict_are_refused(tmp_path):
    touch(tmp_path, "a/1.jpg", "r/real/1.jpg", "r/fake/2.jpg")
    with pytest.raises(FacekitError, match=r"collection 'a': '1\.jpg' has no label"):
        read([pictures("a")], tmp_path)
    with pytest.raises(FacekitError, match=r"collection 'r': .* has the label 1 by its layout"):
        read([Collection(name="r", layout="real_fake", path="r", label=0)], tmp_path)


def test_bad_collections_are_named(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/notes.txt")
    with pytest.raises(FacekitError, match="two collections are called 'a'"):
        read([pictures("a", label=0), pictures("a", label=1)], tmp_path)
    with pytest.raises(FacekitError, match=r"collection 'b': .*looked for pictures .*notes\.txt"):
        read([pictures("b", label=0)], tmp_path)
    with pytest.raises(FacekitError, match=r"collection 'c': .*no such folder"):
        read([pictures("c", label=0)], tmp_path)
    with pytest.raises(FacekitError, match=r"1\.jpg: is in the collections 'a' and 'again'"):
        read([pictures("a", label=0), pictures("again", path="a", label=0)], tmp_path)
    with pytest.raises(FacekitError, match=r"nothing of .* is in its part"):
        read([pictures("a", label=0, part="second half")], tmp_path)
    with pytest.raises(FacekitError, match="'first half' or 'second half', given 'half'"):
        config.validate(
            {"name": "a", "layout": "people", "path": "a", "part": "half"}, Collection, "c.yaml"
        )


def test_halves_part_people_and_are_always_the_same(tmp_path):
    touch(tmp_path, *(f"set/p{n:03}/{k}.jpg" for n in range(101) for k in range(3)))

    def half(which):
        part = Collection(name=which, layout="people", path="set", label=0, part=which)
        return {e.item.subject for e in read([part], tmp_path)}

    first, second = half("first half"), half("second half")
    assert (len(first), len(second)) == (51, 50)
    assert not first & second
    assert half("first half") == first
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set").rename(tmp_path / "elsewhere/deep")
    moved = Collection(name="m", layout="people", path="elsewhere/deep", label=0, part="first half")
    assert {e.path.parent.name for e in read([moved], tmp_path)} == {n[4:] for n in first}
    (tmp_path / "elsewhere/deep").rename(tmp_path / "set")
    # Not those that come first by name, who may have come first when the set was made.
    assert not max(first) < min(second)
    both = [
        Collection(name=p, layout="people", path="set", label=0, part=p)
        for p in ("first half", "second half")
    ]
    assert len(read(both, tmp_path)) == 303


def test_swaps_keep_people_in_one_half(tmp_path):
    for n in range(20):
        a, b = f"{n:03}", f"{n + 500:03}"
        touch(tmp_path, *(f"ff/original_sequences/youtube/c23/videos/{x}.mp4" for x in (a, b)))
        touch(tmp_path, f"ff/manipulated_sequences/FaceSwap/c23/videos/{a}_{b}.mp4")
    parts = [
        Collection(name=p, layout="faceforensics", path="ff", part=p)
        for p in ("first half", "second half")
    ]
    entries = read(parts, tmp_path)
    half_of = {e.item.subject: e.collection.name for e in entries}
    assert len(entries) == 60
    assert all(half_of[e.donor] == e.collection.name for e in entries if e.donor)


def test_halves_of_people_who_all_were_swapped_share_no_donor(tmp_path):
    touch(tmp_path, *(f"c/Celeb-real/id{n}_0000.mp4" for n in range(10)))
    swapped = [(n, m) for n in range(10) for m in range(10) if n != m]
    touch(tmp_path, *(f"c/Celeb-synthesis/id{n}_id{m}_0000.mp4" for n, m in swapped))
    parts = [
        Collection(name=p, layout="celeb_df", path="c", part=p, swaps="within")
        for p in ("first half", "second half")
    ]
    halves = [read([part], tmp_path) for part in parts]
    people = [{e.item.subject for e in half} | {e.donor for e in half} - {""} for half in halves]
    assert [len(names) for names in people] == [5, 5]
    assert not people[0] & people[1]
    assert [len(half) for half in halves] == [5 + 20, 5 + 20]


def test_at_most_so_many_files_of_as_many_people_as_can_be(tmp_path):
    touch(tmp_path, *(f"set/p{n}/{k}.jpg" for n in range(10) for k in range(n + 1)))
    part = Collection(name="s", layout="people", path="set", label=0, most=25)
    entries = read([part], tmp_path)
    assert len(entries) == 25
    # 25 = 1 + 2 + 2 + ... + 3 + ...: nobody has a third one who could have spared it.
    per_person = Counter(e.item.subject for e in entries)
    assert len(per_person) == 10
    assert max(per_person.values()) == 3
    assert read([part], tmp_path) == entries


def test_a_thinned_set_keeps_originals_with_their_forgeries(tmp_path):
    touch(tmp_path, *(f"set/{kind}/{n}.jpg" for kind in ("real", "fake") for n in range(50)))
    part = Collection(name="s", layout="real_fake", path="set", most=20)
    found = defaultdict(set)
    for e in read([part], tmp_path):
        found[e.item.source].add(e.item.label)
    assert len(found) == 10
    assert all(labels == {0, 1} for labels in found.values())


def test_frames_of_a_folder_are_spread_over_all_of_it(tmp_path):
    clip = "ff/original_sequences/youtube/c23/frames/000"
    touch(tmp_path, *(f"{clip}/frame_{n}.png" for n in range(100)))
    part = Collection(name="ff", layout="faceforensics", path="ff", frames=5)
    numbers = sorted(int(e.path.stem.removeprefix("frame_")) for e in read([part], tmp_path))
    assert numbers == [10, 30, 50, 70, 90]
    few = part.model_copy(update={"frames": 500})
    assert len(read([few], tmp_path)) == 100


# --- dividing


REAL, FAKE = pictures("real", label=0), pictures("fake", label=1)


def test_every_split_has_its_share_of_every_collection():
    other = pictures("other", label=0)
    entries = many(REAL, 100) + many(FAKE, 200, 1) + many(other, 20)
    divided = divide(entries, SHARES, 0)
    assert [e.path for e in divided] == [e.path for e in entries]
    found = Counter((e.collection.name, e.item.split) for e in divided)
    assert [found["real", split] for split in SHARES] == [60, 10, 15, 15]
    assert [found["fake", split] for split in SHARES] == [120, 20, 30, 30]
    assert [found["other", split] for split in SHARES] == [12, 2, 3, 3]
    assert splits(divide(entries[::-1], SHARES, 0)) == splits(divided)
    assert splits(divide(entries, SHARES, 1)) != splits(divided)


def test_more_data_of_one_collection_leaves_others_that_share_nobody_as_they_were():
    def of_real(forgeries):
        return splits(
            e for e in divide(many(REAL, 50) + forgeries, SHARES, 0) if e.collection is REAL
        )

    untied, tied = (
        many(FAKE, 50, 1),
        [entry("x.jpg", FAKE, 1, subject="real-0.jpg")],
    )
    before = of_real(untied)
    assert of_real(untied + many(FAKE, 70, 1)[50:]) == before
    # What shows one of the others' people may move them.
    assert of_real(untied + tied) != before


def test_classes_of_one_collection_are_dealt_out_apart():
    both = Collection(name="both", layout="real_fake", path="both")
    entries = [entry(f"{n}.jpg", both, int(n >= 80)) for n in range(100)]
    found = Counter((e.item.label, e.item.split) for e in divide(entries, SHARES, 0))
    assert [found[1, split] for split in SHARES] == [12, 2, 3, 3]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.integers(0, 1),
            st.integers(0, 25),
            st.integers(0, 40),
            st.integers(0, 60),
        ),
        min_size=1,
        max_size=60,
    ),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_no_two_splits_share_anyone(rows, seed, random):
    collections = {name: pictures(name, split="test" if name == "c" else "") for name in "abc"}
    entries = [
        entry(
            f"{n}.jpg",
            collections[name],
            label,
            subject=f"p{subject}",
            source=f"s{source}",
            donor=f"p{donor}" if label and donor < 26 else "",
        )
        for n, (name, label, subject, source, donor) in enumerate(rows)
    ]
    divided = divide(entries, SHARES, seed, classes=())
    assert len(divided) == len(entries)
    owner = {}
    for e in divided:
        assert e.item.split in SHARES
        for thing in (e.item.subject, e.item.source, e.donor):
            if thing:
                assert owner.setdefault(thing, e.item.split) == e.item.split
    assert {e.item.split for e in divided if e.collection.name == "c"} <= {"test"}
    check_disjoint(divided)
    random.shuffle(entries)
    assert splits(divide(entries, SHARES, seed, classes=())) == splits(divided)


def test_a_collection_of_one_split_draws_its_people_there():
    only = pictures("only", label=1, split="test")
    entries = [*many(REAL, 40), *many(FAKE, 40, 1), *many(only, 10, 1)]
    entries.append(entry("tied.jpg", REAL, subject="only-3.jpg"))
    divided = divide(entries, SHARES, 0)
    assert {e.item.split for e in divided if e.collection is only} == {"test"}
    assert divided[-1].item.split == "test"


def test_a_subject_wanted_in_two_splits_is_an_error():
    trained = pictures("trained", label=1, split="train")
    tested = pictures("tested", label=1, split="test")
    entries = [
        *many(REAL, 10),
        entry("1.jpg", trained, 1, subject="ann"),
        entry("2.jpg", tested, 1, subject="bob", donor="ann"),
    ]
    with pytest.raises(FacekitError) as error:
        divide(entries, SHARES, 0)
    for word in ("'trained'", "'tested'", "train", "test", "1.jpg", "2.jpg"):
        assert word in str(error.value)


def test_entries_in_two_splits_are_found():
    mine = [
        entry("1.jpg", REAL, subject="ann", split="train"),
        entry("2.jpg", FAKE, 1, subject="bob", donor="ann", split="test"),
    ]
    with pytest.raises(FacekitError, match=r"subject 'ann' is in the splits train .*'real'.* test"):
        check_disjoint(mine)
    with pytest.raises(FacekitError, match=r"source 'clip' is in the splits"):
        check_disjoint(
            [
                entry("1.jpg", REAL, source="clip", split="calibration"),
                entry("2.jpg", REAL, source="clip", split="train"),
            ]
        )


def test_what_is_tested_on_shares_nobody_with_training(tmp_path):
    touch(tmp_path, *(f"set/p{n:03}/1.jpg" for n in range(40)), "b/1.jpg")
    whole = Collection(name="whole", layout="people", path="set", label=0)
    first = whole.model_copy(update={"name": "first", "part": "first half"})
    second = whole.model_copy(update={"name": "second", "part": "second half"})
    seen = divide(read([first], tmp_path), SHARES, 0, classes=(0,))
    held_out = [second, pictures("b", label=1)]
    tested = data_sets.read_for_testing(held_out, tmp_path, seen)
    assert {e.item.split for e in tested} == {"test"}
    assert len(tested) == 21
    with pytest.raises(FacekitError, match=r"is in the splits train .*'first'.* test .*'whole'"):
        data_sets.read_for_testing([whole], tmp_path, seen)
    # What training left for testing may be tested on again.
    kept = [e for e in seen if e.item.split == "test"]
    assert data_sets.read_for_testing([whole], tmp_path, kept)


def test_published_splits_are_kept():
    ff = Collection(name="ff", layout="faceforensics", path="ff", split="published")
    entries = [
        entry(f"{split}-{label}.mp4", ff, label, subject=split, split=split)
        for split in ("train", "validation", "test")
        for label in (0, 1)
    ]
    assert [e.item.split for e in divide(entries, SHARES, 0)] == [e.item.split for e in entries]
    same = [entry("1.mp4", ff, 0, "ann", split="train"), entry("2.mp4", ff, 1, "ann", split="test")]
    with pytest.raises(FacekitError, match="must be disjoint by person and source"):
        divide(same, SHARES, 0)


def celebrities(swaps):
    """Forty people with three clips each, everyone swapped with many: one group."""
    part = Collection(name="celeb", layout="celeb_df", path="celeb", swaps=swaps)
    clips = [
        entry(f"id{n}_{k}.mp4", part, 0, f"id{n}", f"id{n}_{k}")
        for n in range(40)
        for k in range(3)
    ]
    swapped = [
        entry(f"id{n}_id{m}_{k}.mp4", part, 1, f"id{n}", f"id{n}_{k}", f"id{m}")
        for n in range(40)
        for k in range(3)
        for m in ((n + 1) % 40, (n + 7) % 40, (n + 20) % 40)
    ]
    return clips + swapped


def test_people_who_all_were_swapped_cannot_be_parted():
    with pytest.raises(FacekitError, match=r"split 'validation' has no untouched .* celeb .*swaps"):
        divide(celebrities("tie"), SHARES, 0)


def test_swaps_between_splits_are_left_out_where_asked_for(caplog):
    caplog.set_level(logging.INFO, "facekit")
    entries = celebrities("within")
    shares = {"train": 0.7, "test": 0.3}
    divided = divide(entries, shares, 0)
    check_disjoint(divided)
    assert sum(e.item.label == 0 for e in divided) == 120
    people = defaultdict(set)
    for e in divided:
        people[e.item.split].add(e.item.subject)
    assert {split: len(names) for split, names in people.items()} == {"train": 28, "test": 12}
    lost = len(entries) - len(divided)
    assert 0 < lost < 360
    assert f"left out swaps between people of different splits: {lost} of celeb" in caplog.text


def test_a_missing_class_names_the_collections():
    with pytest.raises(FacekitError, match=r"no generated faces in any collection \(given: real\)"):
        divide(many(REAL, 20), SHARES, 0)
    assert len(divide(many(REAL, 20), SHARES, 0, classes=(0,))) == 20
    with pytest.raises(FacekitError, match="no untouched faces in any collection"):
        divide([], SHARES, 0)
    with pytest.raises(FacekitError, match=r"split 'validation' has no generated faces: .* fake "):
        divide(many(REAL, 20) + many(FAKE, 3, 1), SHARES, 0)
    only = pictures("only", label=1, split="test")
    with pytest.raises(
        FacekitError, match="split 'train' has no generated faces: collections only"
    ):
        divide(many(REAL, 20) + many(only, 30, 1), SHARES, 0)


def test_all_of_it_for_testing():
    real = pictures("r", label=0, split="test")
    fake = pictures("f", label=1, split="test")
    divided = divide(many(real, 3) + many(fake, 2, 1), SHARES, 0)
    assert {e.item.split for e in divided} == {"test"}


@pytest.mark.parametrize(
    ("shares", "error"),
    [
        ({"train": 0.5, "tset": 0.5}, "unknown split 'tset'; did you mean 'test'"),
        ({"train": 1.2, "test": -0.2}, "above 0"),
        ({"train": 0.5, "test": 0.4}, "add up to 1"),
    ],
)
def test_bad_shares(shares, error):
    with pytest.raises(FacekitError, match=error):
        divide(many(REAL, 20) + many(FAKE, 20, 1), shares, 0)


# --- decoding


TIMES = (0.0, 0.2, 2.0)


@pytest.fixture
def mixed(tmp_path):
    """A collection of a picture, a clip whose brightness is its time, and two broken files."""
    grey = np.full((48, 64, 3), 128, np.uint8)
    write_image(tmp_path / "set/a.png", grey)
    frames = (Frame(np.full((48, 64, 3), 20 + 2 * n, np.uint8), n / 20, n) for n in range(100))
    write_video(tmp_path / "set/b.mp4", frames, rate=20)
    touch(tmp_path, "set/c.jpg", "set/d.mp4")
    return tmp_path


def test_frames_are_taken_from_all_of_a_video(mixed, caplog):
    entries = read([pictures("set", label=1, maker="m", frames=5)], mixed)
    found = list(samples(entries))
    assert [s.source for s in found] == ["set:a.png"] + ["set:b.mp4"] * 5
    assert {(s.label, s.maker, s.collection, s.donor) for s in found} == {(1, "m", "set", "")}
    brightness = [float(s.pixels.mean()) for s in found[1:]]
    # The middles of five fifths of 100 frames, though the clip may have but one key frame.
    assert brightness == pytest.approx([20 + 2 * n for n in (10, 30, 50, 70, 90)], abs=3)
    assert "collection 'set': 2 of 4 files cannot be read, or not to the end, e.g. " in caplog.text
    assert "c.jpg" in caplog.text


def test_a_short_video_gives_each_frame_once(tmp_path):
    frames = (Frame(np.full((48, 64, 3), 20 + 60 * n, np.uint8), t, n) for n, t in enumerate(TIMES))
    write_video(tmp_path / "set/b.mp4", frames, rate=20)
    entries = read([pictures("set", label=1, frames=32)], tmp_path)
    assert len(list(samples(entries))) == 3
    # Even in time, not in frames: the second one is on screen for most of it.
    (one,) = samples(read([pictures("set", label=1, frames=1)], tmp_path))
    assert float(one.pixels.mean()) == pytest.approx(80, abs=3)


def test_a_collection_of_which_nothing_can_be_read_is_an_error(mixed):
    (mixed / "set/a.png").unlink()
    (mixed / "set/b.mp4").unlink()
    whole = read([pictures("set", label=1)], mixed)
    with pytest.raises(
        FacekitError, match=r"collection 'set': none of its 2 files can be read; .*c"
    ):
        list(samples(whole))


def test_files_that_went_away_are_counted(mixed, caplog):
    entries = read([pictures("set", label=1, frames=1)], mixed)
    (mixed / "set/b.mp4").unlink()
    assert len(list(samples(entries))) == 1
    assert "3 of 4 files cannot be read" in caplog.text
    with pytest.raises(FacekitError, match=r"b\.mp4: not readable"):
        fingerprint(entries)


def test_a_fingerprint_tells_uses_apart(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/2.jpg")
    entries = read([pictures("a", label=1)], tmp_path)
    once = fingerprint(entries)
    assert fingerprint(read([pictures("a", label=1)], tmp_path)) == once
    assert fingerprint(read([pictures("a", label=0)], tmp_path)) != once
    assert fingerprint(entries[:1]) != once
    (tmp_path / "a/1.jpg").write_bytes(b"longer")
    assert fingerprint(entries) != once


def test_collections_come_from_yaml():
    row = {"name": "london", "layout": "london", "path": "data/london", "part": "first half"}
    assert config.validate(row, Collection, "c.yaml").frames == 8
    with pytest.raises(FacekitError, match="unknown key 'parts'"):
        config.validate({**row, "parts": "all"}, Collection, "c.yaml")
    assert sum(data_sets.SHARES.values()) == pytest.approx(1)
