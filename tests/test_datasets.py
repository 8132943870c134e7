"""Manifest folders: checked, hashed, split by person, and turned into crops."""

import logging
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.datasets.crops import load_crops
from facekit.datasets.manifest import load_folder, split_by_subject
from facekit.faces.align import TEMPLATES, apply, crop_from_image, invert
from facekit.faces.landmarks import Landmarker, mean_face_points
from facekit.faces.locate import load_locator
from facekit.media.encode import write_video
from facekit.media.images import write_image
from facekit.types import Frame, Item, write_manifest

CPU = torch.device("cpu")


def item(path, **facts):
    return Item(path=path, sha256="0" * 64, **facts)


@pytest.fixture
def folder(tmp_path):
    """Two pictures with a face, one without, and a video's row."""
    astronaut = skimage.data.astronaut()
    pictures = {
        "a/1.png": astronaut[:300, 100:400],
        "b/1.png": np.ascontiguousarray(astronaut[:256, ::-1]),
        "c/1.png": skimage.data.chelsea(),
    }
    items = []
    for path, pixels in pictures.items():
        write_image(tmp_path / path, pixels)
        digest = files.sha256(tmp_path / path)
        items.append(Item(path=path, sha256=digest, subject=path[0], label=0))
    files.write_bytes(tmp_path / "clip.mp4", b"clip")
    items.append(Item(path="clip.mp4", sha256=files.sha256(tmp_path / "clip.mp4"), subject="a"))
    write_manifest(tmp_path, items)
    return tmp_path


# --- folders


def test_a_whole_folder_loads(folder):
    assert [i.path for i in load_folder(folder, verify=True)] == [
        "a/1.png",
        "b/1.png",
        "c/1.png",
        "clip.mp4",
    ]


def test_missing_and_changed_files_are_named(folder):
    files.write_bytes(folder / "clip.mp4", b"another")
    load_folder(folder)
    with pytest.raises(FacekitError, match=r"clip\.mp4: differs"):
        load_folder(folder, verify=True)
    (folder / "b/1.png").unlink()
    with pytest.raises(FacekitError, match=r"b.1\.png: is in the manifest but missing"):
        load_folder(folder)


@pytest.mark.parametrize("path", ["../outside.png", "/etc/hostname", "a/../../x.png"])
def test_paths_that_lead_out_of_the_folder_are_refused(tmp_path, path):
    write_manifest(tmp_path, [item(path)])
    with pytest.raises(FacekitError, match="is not in the folder"):
        load_folder(tmp_path)


def test_bad_manifests_are_named(tmp_path):
    with pytest.raises(FacekitError, match="no such file"):
        load_folder(tmp_path)
    (tmp_path / "manifest.jsonl").write_text('{"path": "a.png"}\n')
    with pytest.raises(FacekitError, match=r"manifest\.jsonl, row 1: .*sha256"):
        load_folder(tmp_path)
    (tmp_path / "a.png").write_bytes(b"a")
    write_manifest(tmp_path, [item("a.png"), item("a.png")])
    with pytest.raises(FacekitError, match="twice"):
        load_folder(tmp_path)


# --- splits


def splits(items):
    return {i.path: i.split for i in items}


def test_people_are_dealt_out_by_their_shares():
    items = [item(f"{p}/{k}", subject=f"p{p}", source=f"p{p}") for p in range(20) for k in range(3)]
    divided = split_by_subject(items, {"train": 0.7, "validation": 0.1, "test": 0.2}, 0)
    people = {i.subject: i.split for i in divided}
    assert Counter(people.values()) == {"train": 14, "validation": 2, "test": 4}
    assert [i.path for i in divided] == [i.path for i in items]
    again = split_by_subject(items[::-1], {"train": 0.7, "validation": 0.1, "test": 0.2}, 0)
    assert splits(divided) == splits(again)
    other = split_by_subject(items, {"train": 0.7, "validation": 0.1, "test": 0.2}, 1)
    assert splits(divided) != splits(other)


def test_items_tied_through_others_stay_together():
    chain = [
        item("1", subject="ann", source="party"),
        item("2", subject="bob", source="party"),
        item("3", subject="bob", source="beach"),
        item("4", source="beach"),
    ]
    rest = [item(str(n)) for n in range(5, 15)]
    for seed in range(8):
        divided = split_by_subject([*chain, *rest], {"train": 0.5, "test": 0.5}, seed)
        assert len({i.split for i in divided[:4]}) == 1


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30)), min_size=1, max_size=40),
    st.integers(0, 100),
)
def test_no_split_shares_a_subject_or_a_source(pairs, seed):
    items = [
        item(str(n), subject=f"p{a}" if a else "", source=f"s{b}" if b else "")
        for n, (a, b) in enumerate(pairs)
    ]
    try:
        divided = split_by_subject(items, {"train": 0.6, "test": 0.4}, seed)
    except FacekitError as error:
        assert "cannot fill" in str(error)
        return
    assert {i.split for i in divided} == {"train", "test"}
    for a, b in combinations(divided, 2):
        if a.split != b.split:
            assert not (a.subject and a.subject == b.subject)
            assert not (a.source and a.source == b.source)


def test_impossible_splits_are_explained():
    two = [item("1", subject="a"), item("2", subject="b"), item("3", subject="b")]
    with pytest.raises(FacekitError, match=r"2 separate subject\(s\) cannot fill 3 splits"):
        split_by_subject(two, {"train": 0.4, "validation": 0.3, "test": 0.3}, 0)
    with pytest.raises(FacekitError, match="did you mean 'train'"):
        split_by_subject(two, {"trian": 0.5, "test": 0.5}, 0)
    with pytest.raises(FacekitError, match="add up to 1"):
        split_by_subject(two, {"train": 0.5, "test": 0.6}, 0)
    with pytest.raises(FacekitError, match="above 0"):
        split_by_subject(two, {"train": 1.0, "test": 0.0}, 0)


# --- crops


def test_crops_hold_the_located_face_of_each_picture(folder, caplog):
    with caplog.at_level(logging.INFO, logger="facekit"):
        crops = load_crops(folder, template="wide", size=96, device=CPU)
    assert [i.path for i in crops.items] == ["a/1.png", "b/1.png"]
    assert "c/1.png" in caplog.text  # the cat
    assert "1 videos" in caplog.text
    assert len(crops) == 2
    assert (crops.images.shape, crops.images.dtype) == ((2, 96, 96, 3), np.uint8)
    assert (crops.matrices.shape, crops.matrices.dtype) == ((2, 2, 3), np.float64)
    face = load_locator(CPU).locate([skimage.data.astronaut()[:300, 100:400]])[0][0]
    off = apply(crops.matrices[0], face.points) / 96 - TEMPLATES["wide"]
    assert np.linalg.norm(off, axis=1).mean() < 0.05


def test_frames_of_videos_are_crops_too_if_they_are_asked_for(tmp_path):
    astronaut = np.ascontiguousarray(skimage.data.astronaut()[:300, 100:400])
    frames = [Frame(np.roll(astronaut, 4 * k, 1), k / 10, k) for k in range(12)]
    write_video(tmp_path / "clip.mp4", frames, rate=10)
    digest = files.sha256(tmp_path / "clip.mp4")
    write_manifest(tmp_path, [Item(path="clip.mp4", sha256=digest, subject="a")])
    crops = load_crops(tmp_path, template="face", size=64, device=CPU, exactly=True, frames=3)
    assert [item.path for item in crops.items] == ["clip.mp4"] * 3
    places = [invert(matrix)[0] @ [32, 32, 1] for matrix in crops.matrices]
    assert np.diff(places) == pytest.approx([12, 12], abs=6)  # two to four frames apart
    (tmp_path / "clip.mp4").write_bytes((tmp_path / "clip.mp4").read_bytes() + b"\0")
    with pytest.raises(FacekitError, match="was changed while it was used"):
        load_crops(tmp_path, template="face", size=64, device=CPU, frames=3)


def test_crops_can_be_placed_by_landmarks(folder):
    crops = load_crops(folder, template="face", size=96, device=CPU, exactly=True)
    picture = skimage.data.astronaut()[:300, 100:400]
    (face,) = load_locator(CPU).locate([picture])[0]
    ((read,),) = Landmarker(CPU).read([picture], [[face]], mirrored=True)
    expected = crop_from_image(mean_face_points(read.landmarks.points), "face", 96)
    np.testing.assert_allclose(crops.matrices[0], expected, rtol=1e-5)
    assert [i.path for i in crops.items] == ["a/1.png", "b/1.png"]


def test_only_the_items_asked_for_are_loaded(folder):
    items = load_folder(folder)
    crops = load_crops(folder, template="arcface", size=32, device=CPU, items=items[1:2])
    assert [i.path for i in crops.items] == ["b/1.png"]
    none = load_crops(folder, template="arcface", size=32, device=CPU, items=items[2:])
    assert len(none) == 0
    assert (none.images.shape, none.matrices.shape) == ((0, 32, 32, 3), (0, 2, 3))


def test_a_damaged_picture_is_named(folder):
    (folder / "b/1.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(FacekitError, match=r"b.1\.png"):
        load_crops(folder, template="wide", size=32, device=CPU)
