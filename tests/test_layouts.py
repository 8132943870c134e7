"""Readers of data sets: each layout from a small tree, and what all of them have in common."""

import csv
import json
import os
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from facekit.core import registry
from facekit.core.errors import FacekitError
from facekit.datasets import layouts
from facekit.datasets.layouts import celeb_df, df40, faceforensics
from facekit.datasets.manifest import groups, named_within, person_of, split_by_subject
from facekit.types import Item, write_manifest


def touch(folder, *paths):
    """Files with a byte in each: readers of layouts decode nothing."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")


def ff_pairs(folder, pairs, methods=("Deepfakes",)):
    for a, b in pairs:
        touch(folder, *(f"original_sequences/youtube/c23/videos/{x}.mp4" for x in (a, b)))
        for method in methods:
            inside = f"manipulated_sequences/{method}/c23/videos"
            touch(folder, f"{inside}/{a}_{b}.mp4", f"{inside}/{b}_{a}.mp4")


def make_faceforensics(folder):
    ff_pairs(folder, [("000", "003"), ("071", "054")], ("Deepfakes", "FaceSwap"))
    touch(
        folder,
        "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4",
        "original_sequences/actors/c23/videos/01__exit_phone_room.mp4",
        "original_sequences/actors/c23/videos/02__kitchen_pan.mp4",
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__exit_phone_room__YVGY8LOK.mp4",
        "manipulated_sequences/NeuralTextures/c40/frames/000_003/0001.png",
        "manipulated_sequences/NeuralTextures/c40/frames/000_003/0002.png",
    )
    (folder / "train.json").write_text('[["000", "003"]]')
    (folder / "test.json").write_text('[["071", "054"]]')


def make_celeb_df(folder):
    touch(
        folder,
        "Celeb-real/id0_0000.mp4",
        "Celeb-real/id1_0002.mp4",
        "YouTube-real/00170.mp4",
        "Celeb-synthesis/id0_id1_0000.mp4",
        "Celeb-synthesis/id1_id0_0002.noaudio.mp4",
    )
    (folder / "List_of_testing_videos.txt").write_text(
        "1 YouTube-real/00170.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n"
    )


def make_dfdc(folder):
    for part, rows in {
        "dfdc_train_part_0": {
            "aaa.mp4": {"label": "REAL", "split": "train", "original": None},
            "bbb.mp4": {"label": "FAKE", "split": "train", "original": "aaa.mp4"},
            "gone.mp4": {"label": "FAKE", "split": "train", "original": "aaa.mp4"},
        },
        "dfdc_train_part_1": {
            "ccc.mp4": {"label": "FAKE", "split": "train", "original": "aaa.mp4"}
        },
    }.items():
        touch(folder, *(f"{part}/{name}" for name in rows if name != "gone.mp4"))
        (folder / part / "metadata.json").write_text(json.dumps(rows))


def make_df40(folder):
    touch(
        folder,
        "simswap/ff/frames/001_870/000.png",
        "simswap/ff/frames/001_870/010.png",
        "simswap/cdf/frames/id0_id1_0000/000.png",
        "StyleGAN2/001/seed0188.png",
        "sd2.1/cdf/Celeb-real/id3_0004/1.png",
        "e4e/ff/inversions/033.png",
        "heygen/heygen_new/real/clip7/0.png",
        "heygen/heygen_new/fake/frames/clip7/0.png",
        "MidJourney/fake/one.jpg",
        "FaceForensics++/original_sequences/youtube/c23/frames/001/000.png",
    )


def make_real_fake(folder):
    touch(
        folder,
        "Original/ann/1.jpg",
        "Original/alone.jpg",
        "Generated/ann/1.jpg",
        "Generated/stylegan2/0001.png",
        "Generated/stylegan2/deep/0002.png",
    )


def make_people(folder):
    touch(folder, "Ann_Bee/Ann_Bee_0001.jpg", "Ann_Bee/Ann_Bee_0002.jpg", "Cid/1.PNG")


def make_pictures(folder):
    touch(folder, "10.jpg", "2.png", "clip.mp4", "notes.txt", ".hidden.jpg")


def make_london(folder):
    rows = [
        ("001_neutral.jpg", "001", "neutral", "24", "female", "white"),
        ("001_smiling.jpg", "001", "smiling", "24", "female", "white"),
        ("002_neutral.jpg", "002", "neutral", "NA", "male", "east_asian"),
        ("003_neutral.jpg", "003", "neutral", "40", "male", "black"),
    ]
    touch(folder, *(row[0] for row in rows[:3]))
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "subject", "expression", "age", "gender", "ethnicity"))
        writer.writerows(rows)


def make_manifest(folder):
    touch(folder, "a/1.png", "b/1.png")
    digest = "0" * 64
    write_manifest(
        folder,
        [
            Item(path="a/1.png", sha256=digest, subject="p0", label=0, facts={"person_seed": 7}),
            Item(path="b/1.png", sha256=digest, label=1, generator="face_swap", split="test"),
        ],
    )


MAKE = {
    name.removeprefix("make_"): make for name, make in globals().items() if name.startswith("make_")
}
LAYOUTS = registry.names("facekit.datasets.layouts")


@pytest.fixture
def tree(tmp_path):
    """A function that makes a layout's tree, once, and reads it."""

    def make(name):
        folder = tmp_path / f"{name}-set"
        folder.mkdir()
        MAKE[name](folder)
        return folder

    return make


def by_path(items):
    return {item.path: item for item in items}


# --- what all layouts have in common


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_reads_its_own_tree(name, tree):
    assert name in MAKE, "a new layout needs a small tree of it here: make_NAME(folder)"
    folder = tree(name)
    items = layouts.read(name, folder)
    assert items
    assert len({item.path for item in items}) == len(items)
    for item in items:
        assert (folder / item.path).is_file()
        assert item.label in (0, 1, None)
        assert item.subject and item.source
        assert not (item.label == 0 and item.facts.get("donor"))
        if item.facts.get("clip"):
            assert item.path.startswith(str(item.facts["clip"]) + "/")
    assert layouts.read(name, folder) == items


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_says_what_it_looked_for(name, tmp_path):
    plugin = registry.load("facekit.datasets.layouts", name)
    assert "\n" not in plugin.LOOKED_FOR
    assert plugin.__doc__
    empty, strange = tmp_path / "empty", tmp_path / "strange"
    empty.mkdir()
    touch(strange, "notes.txt", "deep/down/below/readme.md")
    touch(tmp_path, "file.txt")
    found = {empty: "nothing", strange: "deep/, notes.txt"}
    for folder, what in found.items():
        with pytest.raises(FacekitError) as error:
            layouts.read(name, folder)
        assert plugin.LOOKED_FOR in str(error.value)
        assert str(folder) in str(error.value)
        assert f"found {what}" in str(error.value)
    for folder, what in ((tmp_path / "none", "no such folder"), (tmp_path / "file.txt", "a file")):
        with pytest.raises(FacekitError, match=what) as error:
            layouts.read(name, folder)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_layout_takes_the_trees_of_published_sets_for_its_own(name, tree):
    for other in ("faceforensics", "celeb_df", "dfdc", "df40"):
        if other != name and name != "people":
            with pytest.raises(FacekitError, match="looked for"):
                layouts.read(name, tree(other))


def test_unknown_layouts_are_named():
    with pytest.raises(FacekitError, match="unknown layout 'celebdf'; did you mean 'celeb_df'"):
        layouts.read("celebdf", Path())


@pytest.mark.parametrize("name", ["pictures", "people", "real_fake"])
def test_names_that_cannot_be_printed_are_left_out(name, tree, caplog):
    folder = tree(name)
    items = layouts.read(name, folder)
    (beside,) = {(folder / item.path).parent for item in items[:1]}
    Path(os.fsdecode(os.fsencode(beside) + b"/\xff.jpg")).write_bytes(b"x")
    (beside / "two\nlines.jpg").write_bytes(b"x")
    assert layouts.read(name, folder) == items
    assert "left out 2 files whose names cannot be printed" in caplog.text
    assert "\n" not in caplog.records[-1].getMessage()
    (beside / "scan.TIF").write_bytes(b"x")
    assert layouts.read(name, folder) == items
    assert "left out 1 files of kinds that are not read" in caplog.text


def test_folders_that_may_not_be_read_are_named(tree, monkeypatch):
    folder = tree("people")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(FacekitError, match=r"not readable \(Permission denied"):
        layouts.read("pictures", folder)


def test_the_example_in_the_docs_is_a_layout(tmp_path):
    page = Path(__file__).parent.parent / "docs/datasets.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)
    plugin = {}
    exec(code, plugin)
    touch(tmp_path / "mine", "ann-1.jpg", "ann-1-bob.jpg", "else.jpg")
    swap, original = plugin["read"](tmp_path / "mine")
    assert (swap.label, swap.facts["donor"], swap.source) == (1, "bob", original.source)
    touch(tmp_path / "other", "notes.txt")
    with pytest.raises(FacekitError, match=re.escape(plugin["LOOKED_FOR"])):
        plugin["read"](tmp_path / "other")


def test_the_docs_name_every_layout():
    page = (Path(__file__).parent.parent / "docs/datasets.md").read_text(encoding="utf-8")
    for name in LAYOUTS:
        assert f"| `{name}` |" in page


# --- FaceForensics++


def test_faceforensics_names_target_and_donor(tree):
    items = by_path(layouts.read("faceforensics", tree("faceforensics")))
    swap = items["manipulated_sequences/FaceSwap/c23/videos/071_054.mp4"]
    assert (swap.subject, swap.facts["donor"], swap.source) == ("ff++:071", "ff++:054", "ff++:071")
    assert (swap.label, swap.generator, swap.split) == (1, "FaceSwap", "test")
    assert swap.facts["compression"] == "c23"
    original = items["original_sequences/youtube/c23/videos/071.mp4"]
    assert (original.source, original.label, original.generator) == (swap.source, 0, "")
    acted = items[
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__exit_phone_room__YVGY8LOK.mp4"
    ]
    assert acted.facts["donor"] == "ff++:actor 02"
    assert acted.split == ""
    scene = items["original_sequences/actors/c23/videos/01__exit_phone_room.mp4"]
    assert (scene.subject, scene.source) == (acted.subject, acted.source)
    frame = items["manipulated_sequences/NeuralTextures/c40/frames/000_003/0002.png"]
    assert frame.facts["clip"] == "manipulated_sequences/NeuralTextures/c40/frames/000_003"
    assert not any("masks" in path for path in items)
    assert len(items) == 2 * 2 * 3 + 3 + 2


def test_splits_of_faceforensics_may_lie_in_a_folder_and_must_be_pairs(tmp_path):
    ff_pairs(tmp_path, [("000", "003")])
    assert {item.split for item in layouts.read("faceforensics", tmp_path)} == {""}
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/val.json").write_text('[["000", "003"]]')
    assert {item.split for item in layouts.read("faceforensics", tmp_path)} == {"validation"}
    (tmp_path / "splits/val.json").write_text('{"000": "003"}')
    with pytest.raises(FacekitError, match=r"val\.json: not a list of pairs"):
        layouts.read("faceforensics", tmp_path)


def test_strange_names_are_left_out_and_said(tmp_path, caplog):
    ff_pairs(tmp_path, [("000", "003")])
    touch(tmp_path, "manipulated_sequences/Deepfakes/c23/videos/copy of 000_003.mp4")
    assert len(layouts.read("faceforensics", tmp_path)) == 4
    assert "left out 1 files" in caplog.text
    assert "copy of 000_003" in caplog.text


def test_pairs_of_faceforensics_stay_together_and_no_more_than_that(tmp_path):
    """As published: 1000 clips in 500 pairs, each swapped both ways by each method."""
    pairs = [(f"{a:03}", f"{a + 500:03}") for a in range(0, 500, 5)]
    ff_pairs(tmp_path, pairs, ("Deepfakes", "Face2Face"))
    items = layouts.read("faceforensics", tmp_path)
    assert Counter(Counter(groups(items)).values()) == {6: len(pairs)}
    shares = {"train": 0.6, "validation": 0.1, "calibration": 0.15, "test": 0.15}
    divided = split_by_subject(items, shares, 0)
    dealt = Counter({item.subject: item.split for item in divided}.values())
    assert dealt == {"train": 120, "validation": 20, "calibration": 30, "test": 30}
    split_of = {item.subject: item.split for item in divided}
    for item in divided:
        assert split_of.get(item.facts.get("donor"), item.split) == item.split


# --- Celeb-DF


def test_celeb_df_knows_its_people_and_its_test_list(tree):
    items = by_path(layouts.read("celeb_df", tree("celeb_df")))
    swap = items["Celeb-synthesis/id0_id1_0000.mp4"]
    original = items["Celeb-real/id0_0000.mp4"]
    assert (swap.subject, swap.source) == (original.subject, original.source)
    assert swap.facts["donor"] == items["Celeb-real/id1_0002.mp4"].subject
    assert (swap.label, original.label) == (1, 0)
    assert (swap.split, original.split) == ("test", "train")
    assert items["YouTube-real/00170.mp4"].split == "test"
    quiet = items["Celeb-synthesis/id1_id0_0002.noaudio.mp4"]
    assert quiet.source == items["Celeb-real/id1_0002.mp4"].source


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("1 Celeb-synthesis/id0_id1_0000.mp4", "line 1: calls a clip of Celeb-synthesis 1"),
        ("1 YouTube-real/00170.mp4\nCeleb-real", "line 2: not like"),
        ("1 Elsewhere/00170.mp4", "line 1: not like"),
    ],
)
def test_bad_test_lists_are_named(tree, text, error):
    folder = tree("celeb_df")
    (folder / "List_of_testing_videos.txt").write_text(text)
    with pytest.raises(FacekitError, match=error):
        layouts.read("celeb_df", folder)


def test_celeb_df_as_folders_of_frames(tmp_path):
    touch(tmp_path, "Celeb-real/frames/id0_0000/000.png", "Celeb-real/landmarks/id0_0000/000.png")
    (item,) = layouts.read("celeb_df", tmp_path)
    assert item.facts["clip"] == "Celeb-real/frames/id0_0000"
    assert (item.source, item.split) == ("celeb-df:id0_0000", "")


# --- DFDC


def test_fakes_of_dfdc_stand_with_their_original_across_parts(tree, caplog):
    items = by_path(layouts.read("dfdc", tree("dfdc")))
    assert {item.source for item in items.values()} == {"dfdc:aaa"}
    assert {path: item.label for path, item in items.items()} == {
        "dfdc_train_part_0/aaa.mp4": 0,
        "dfdc_train_part_0/bbb.mp4": 1,
        "dfdc_train_part_1/ccc.mp4": 1,
    }
    assert "left out 1 files that metadata name but are not there" in caplog.text


@pytest.mark.parametrize(
    "metadata",
    ["[1, 2]", '{"a.mp4": "FAKE"}', '{"a.mp4": {"label": "?"}}', '{"../a": {"label": "REAL"}}'],
)
def test_bad_metadata_of_dfdc(tmp_path, metadata):
    touch(tmp_path, "part/a.mp4")
    (tmp_path / "part/metadata.json").write_text(metadata)
    with pytest.raises(FacekitError, match=r"metadata\.json: .*looked for DFDC"):
        layouts.read("dfdc", tmp_path)
    (tmp_path / "part/metadata.json").write_text("{")
    with pytest.raises(FacekitError, match="not readable as JSON"):
        layouts.read("dfdc", tmp_path)


# --- DF40


def test_df40_keeps_the_names_of_the_sets_it_forged(tree, caplog):
    items = by_path(layouts.read("df40", tree("df40")))
    swap = items["simswap/ff/frames/001_870/010.png"]
    assert (swap.subject, swap.facts["donor"]) == faceforensics.people("001_870")[:2]
    assert (swap.generator, swap.facts["clip"]) == ("simswap", "simswap/ff/frames/001_870")
    other = items["simswap/cdf/frames/id0_id1_0000/000.png"]
    assert other.source == celeb_df.people("id0_0000")[2]
    assert items["StyleGAN2/001/seed0188.png"].subject == "ff++:001"
    assert items["sd2.1/cdf/Celeb-real/id3_0004/1.png"].subject == "celeb-df:id3"
    assert items["e4e/ff/inversions/033.png"].subject == "ff++:033"
    real = items["heygen/heygen_new/real/clip7/0.png"]
    fake = items["heygen/heygen_new/fake/frames/clip7/0.png"]
    assert (real.label, real.generator, real.source) == (0, "", fake.source)
    assert (fake.label, fake.generator) == (1, "heygen")
    assert all(item.label for path, item in items.items() if "real/" not in path.lower())
    # Untouched clips of other data sets are none of a method's.
    assert not any(path.startswith("FaceForensics++") for path in items)
    assert "left out 1 files in folders that are no method's" in caplog.text


def test_one_method_of_df40_alone(tmp_path):
    touch(tmp_path, "simswap_test/ff/frames/001_870/000.png")
    (item,) = layouts.read("df40", tmp_path / "simswap_test")
    assert (item.generator, item.subject) == ("simswap_test", "ff++:001")


def test_a_folder_of_people_is_not_df40(tree):
    folder = tree("people")
    with pytest.raises(FacekitError, match="looked for DF40"):
        df40.read(folder)


# --- folders without a paper


def test_real_and_fake_under_many_names(tree):
    items = by_path(layouts.read("real_fake", tree("real_fake")))
    assert {path: item.label for path, item in items.items()} == {
        "Generated/ann/1.jpg": 1,
        "Generated/stylegan2/0001.png": 1,
        "Generated/stylegan2/deep/0002.png": 1,
        "Original/alone.jpg": 0,
        "Original/ann/1.jpg": 0,
    }
    pair = items["Original/ann/1.jpg"], items["Generated/ann/1.jpg"]
    assert pair[0].subject == pair[1].subject == "ann"
    assert pair[0].source == pair[1].source
    made = items["Generated/stylegan2/deep/0002.png"]
    assert (made.generator, made.subject) == ("stylegan2", "deep/0002")


def test_real_and_fake_in_published_splits(tmp_path):
    touch(tmp_path, "train/real/1.jpg", "train/fake/1.jpg", "valid/real/2.jpg", "test/fake/3.jpg")
    splits = {item.path: item.split for item in layouts.read("real_fake", tmp_path)}
    assert splits["valid/real/2.jpg"] == "validation"
    assert [splits[f"{split}/fake/{n}.jpg"] for split, n in (("train", 1), ("test", 3))] == [
        "train",
        "test",
    ]


def test_one_of_real_and_fake_is_not_enough(tmp_path):
    touch(tmp_path, "real/1.jpg")
    (tmp_path / "fake").mkdir()
    with pytest.raises(FacekitError, match="no generated media there; looked for"):
        layouts.read("real_fake", tmp_path)


def test_real_and_fake_are_no_people(tree):
    with pytest.raises(FacekitError, match="read it as 'real_fake'"):
        layouts.read("people", tree("real_fake"))


def test_people_and_pictures(tree, caplog):
    folder = tree("people")
    touch(folder, "stray.jpg")
    assert [(item.path, item.subject) for item in layouts.read("people", folder)] == [
        ("Ann_Bee/Ann_Bee_0001.jpg", "Ann_Bee"),
        ("Ann_Bee/Ann_Bee_0002.jpg", "Ann_Bee"),
        ("Cid/1.PNG", "Cid"),
    ]
    assert "left out 1 files that lie beside the people's folders, e.g. stray.jpg" in caplog.text
    flat = layouts.read("pictures", tree("pictures"))
    assert [item.path for item in flat] == ["10.jpg", "2.png", "clip.mp4"]
    assert len({item.subject for item in flat}) == 3


def test_london_has_facts(tree, caplog):
    items = by_path(layouts.read("london", tree("london")))
    assert items["001_neutral.jpg"].facts == {
        "age": 24,
        "gender": "female",
        "ethnicity": "white",
        "expression": "neutral",
    }
    assert items["001_smiling.jpg"].subject == items["001_neutral.jpg"].subject
    assert "age" not in items["002_neutral.jpg"].facts
    assert {item.label for item in items.values()} == {0}
    assert "left out 1 files that index.csv names but are not there" in caplog.text


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("file,subject,age,gender\na.jpg,1,2,x\n", "line 2: no ethnicity; looked for the London"),
        ("file,subject,age,gender,ethnicity\na.jpg,1,old,x,y\n", "line 2: age 'old' is no whole"),
        ("file,subject,age,gender,ethnicity\nb.jpg,1,2,x,y\n", "no photo that index.csv names"),
        ("file,subject,age,gender,ethnicity\n../a.jpg,1,2,x,y\n", "line 2: .* not in the folder"),
        ("file,subject,age,gender,ethnicity\n/a.jpg,1,2,x,y\n", "line 2: .* not in the folder"),
        ("", "looked for the London Set"),
        ("\x00\x00", "looked for|not readable"),
    ],
)
def test_bad_indexes_of_london(tmp_path, text, error):
    touch(tmp_path, "a.jpg")
    (tmp_path / "index.csv").write_text(text)
    with pytest.raises(FacekitError, match=error):
        layouts.read("london", tmp_path)
    (tmp_path / "index.csv").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(FacekitError, match="not readable as CSV"):
        layouts.read("london", tmp_path)


def test_manifests_name_studio_people_by_their_seed(tree):
    folder = tree("manifest")
    first, second = layouts.read("manifest", folder)
    assert (first.subject, first.source) == ("studio person 7", "a/1.png")
    assert (second.subject, second.source, second.split) == ("b/1.png", "b/1.png", "test")
    assert first.subject == person_of(first)
    (folder / "a/1.png").unlink()
    with pytest.raises(FacekitError, match="missing"):
        layouts.read("manifest", folder)
    write_manifest(folder, [])
    with pytest.raises(FacekitError, match="lists nothing; looked for"):
        layouts.read("manifest", folder)


# --- names and ties


def test_names_that_hold_everywhere_and_names_that_hold_in_a_folder():
    assert named_within("data/lfw", "Ann") == "data/lfw:Ann"
    assert named_within("data/lfw", "ff++:071") == "ff++:071"
    assert named_within("data/lfw", "studio person 7") == "studio person 7"
    assert named_within("data/lfw", "") == ""


def test_a_swap_ties_both_people():
    def item(path, **facts):
        return Item(path=path, sha256="", **facts)

    items = [
        item("1", subject="a"),
        item("2", subject="b"),
        item("3", subject="a", facts={"donor": "b"}),
        item("4", subject="c"),
    ]
    for order in (items, items[::-1]):
        of = dict(zip([i.path for i in order], groups(order), strict=True))
        assert of["1"] == of["2"] == of["3"] != of["4"]
    for seed in range(6):
        divided = split_by_subject(items, {"train": 0.5, "calibration": 0.5}, seed)
        for one, other in combinations(divided[:3], 2):
            assert one.split == other.split
        assert divided[3].split != divided[0].split
