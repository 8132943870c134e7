"""Studio heads that move before one camera, and the exact flow between their pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch

from facekit.core import checkpoint
from facekit.core.errors import FacekitError
from facekit.datasets.heads import (
    _SCENE,
    Heads,
    load_heads,
    moments_of,
    read_heads,
    render_heads,
)
from facekit.studio.clip import render_clip
from facekit.studio.performance import Performance, performance_seed
from facekit.types import read_manifest

SIZE = 64


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("heads") / "heads.safetensors"
    render_heads(path, people=2, moments=3, size=SIZE, seed=11)
    return path


@pytest.fixture(scope="module")
def heads(path: Path) -> Heads:
    return read_heads(path)


def test_groups_have_their_shapes(heads: Heads) -> None:
    assert heads.images.shape == (2, 3, 3, SIZE, SIZE) and heads.images.dtype == torch.uint8
    assert heads.landmarks.shape == (2, 3, 70, 2) and heads.person.shape == (2, 3, SIZE, SIZE)
    assert heads.places.shape == (2, 3, SIZE // 2, SIZE // 2, 2)
    assert heads.seen.shape == (2, 3, SIZE // 2, SIZE // 2)
    assert 0.2 < (heads.person > 127).float().mean() < 0.9


def test_the_flow_brings_the_next_picture_back(heads: Heads) -> None:
    """An independent oracle: what the flow fetches looks like what is there, but for the light on
    a head that turns."""
    off = floor = 0.0
    for group in range(2):
        for k in range(3):
            here = heads.images[group, k].float()
            after = heads.images[group, (k + 1) % 3].float()
            grid = 2 * heads.places[group, k].float()[None] - 1
            fetched = torch.nn.functional.grid_sample(
                after[None], grid, padding_mode="border", align_corners=False
            )[0]
            half = torch.nn.functional.avg_pool2d(here, 2)
            still = torch.nn.functional.avg_pool2d(after, 2)
            where = heads.seen[group, k].bool() & (heads.person[group, k, ::2, ::2] > 127)
            assert where.float().mean() > 0.05
            off += float((fetched - half).abs().mean(0)[where].mean())
            floor += float((still - half).abs().mean(0)[where].mean())
    assert off < 0.8 * floor, (off, floor)


def test_landmarks_go_along_with_the_flow(heads: Heads) -> None:
    off = []
    for group in range(2):
        for k in range(3):
            points = heads.landmarks[group, k, 27:68]
            x, y = (points / 2).long().clamp(0, SIZE // 2 - 1).unbind(1)
            seen = heads.seen[group, k, y, x].bool()
            there = heads.places[group, k, y, x].float() * SIZE
            centre = 2 * torch.stack([x, y], 1) + 1
            true = heads.landmarks[group, (k + 1) % 3, 27:68] + centre - points
            off.append((there - true).norm(dim=1)[seen])
    assert torch.cat(off).median() < 1.5


def test_the_scene_stays_and_heads_turn_as_much_as_in_photos() -> None:
    moments = moments_of(5, 3, 8)
    drawn = [Performance.sample(performance_seed(5, 3, k)) for k in range(8)]
    for moment, photo in zip(moments, drawn, strict=True):
        assert all(getattr(moment, name) == getattr(drawn[0], name) for name in _SCENE)
        assert moment.expression == photo.expression
        assert np.abs(np.array(moment.pose) - photo.pose).max() < 12
    assert len({moment.centre_x for moment in moments}) == 8


def test_any_number_of_workers_gives_the_same_groups(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    render_heads(again, people=2, moments=3, size=SIZE, seed=11, workers=2)
    one, other = read_heads(path), read_heads(again)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_bad_numbers_and_files_are_refused(path: Path, tmp_path: Path) -> None:
    for wrong in ({"moments": 1}, {"size": 65}, {"people": 0}, {"size": 8}):
        arguments = {"people": 1, "moments": 2, "size": 64, "seed": 0, **wrong}
        with pytest.raises(FacekitError, match="allowed are"):
            render_heads(tmp_path / "x.safetensors", **arguments)
    state = checkpoint.load(path)
    for broken in (
        {k: v for k, v in state.items() if k != "seen"},
        state | {"seen": state["seen"][:1]},
    ):
        checkpoint.save(tmp_path / "y.safetensors", broken)
        with pytest.raises(FacekitError, match="no file of studio heads"):
            read_heads(tmp_path / "y.safetensors")


# A folder of people's clips -------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same clip as a video and as frames."""
    folder = tmp_path_factory.mktemp("clips")
    for name, format in (("video", "mp4"), ("frames", "png")):
        render_clip(
            folder / name, person_seed=3, seconds=0.8, rate=10, size=128, seed=9, format=format
        )
    return folder


@pytest.mark.parametrize("name", ["video", "frames"])
def test_a_clip_is_a_group_cut_alike(clips: Path, name: str) -> None:
    folder = clips / name
    heads = load_heads(
        folder,
        read_manifest(folder),
        moments=3,
        most=5,
        size=96,
        device=torch.device("cpu"),
    )
    assert heads.images.shape == (1, 3, 3, 96, 96) and heads.images.dtype == torch.uint8
    assert heads.places.isnan().all() and not heads.seen.any() and (heads.person == 255).all()
    # The wall behind stays where it is; the head is in the middle, upright.
    corner = heads.images[0, :, :, :8, :8].float()
    assert (corner - corner[:1]).abs().mean() < 8
    eyes = heads.landmarks[0, :, 36:48].mean((0, 1))
    assert (eyes - 48).abs().max() < 14
    apart = (heads.landmarks[0, :, 45] - heads.landmarks[0, :, 36]).norm(dim=1)
    assert 12 < apart.mean() < 40


def test_short_clips_and_lone_photos_are_left_out(clips: Path) -> None:
    folder = clips / "frames"
    items = read_manifest(folder)
    for few in (items[:2], items[:1]):
        with pytest.raises(FacekitError, match="no clip shows one face in 3 of its pictures"):
            load_heads(folder, few, moments=3, most=1, size=64, device=torch.device("cpu"))


def test_a_video_that_was_changed_is_not_learned_from(clips: Path, tmp_path: Path) -> None:
    folder = clips / "video"
    (item,) = (i for i in read_manifest(folder) if i.path.endswith(".mp4"))
    other = item.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(FacekitError, match="was changed while it was used"):
        load_heads(folder, [other], moments=3, most=1, size=64, device=torch.device("cpu"))
