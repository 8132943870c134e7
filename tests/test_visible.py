"""The bare face: the network, its lesson, what is put in front of faces, and the file of crops."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import Tensor

from facekit.cli import cli
from facekit.core import checkpoint
from facekit.core.errors import FacekitError
from facekit.core.seed import seed_step
from facekit.core.weights import find
from facekit.faces.visible import SIZE, VisibleNet, fold, load_visible
from facekit.studio.lessons import _crops as crops_file
from facekit.studio.lessons import visible as lesson
from facekit.studio.lessons._crops import ROOM, SIDE, Crops
from facekit.studio.lessons._occluders import KINDS, Scene, put_on

CPU = torch.device("cpu")
TINY = ("people=3", "held_out=1", "frames=1", "size=96", "data_seed=3", "steps=4", "batch=4")
TINY += ("checkpoint_every=2", "warm_up=1", "average=2", "bare=0.5")


# --- the network ---


def trained() -> VisibleNet:
    """A network whose normalisation does something."""
    seed_step(0, 0)
    net = VisibleNet().train()
    for _ in range(2):
        net(torch.randn(4, 3, SIZE, SIZE))
    return net


def test_folded_weights_say_the_same() -> None:
    net, folded = trained(), VisibleNet(folded=True)
    folded.load_state_dict(fold(net))
    images = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    with torch.inference_mode():
        said, same = net.eval()(images), folded.eval()(images)
    assert said.shape == (2, 1, SIZE, SIZE)
    torch.testing.assert_close(said, same, atol=1e-4, rtol=1e-4)


def test_the_network_is_small_and_all_of_it_learns() -> None:
    net = trained()
    assert sum(parameter.numel() for parameter in net.parameters()) < 1_200_000
    truth = (torch.rand(4, 1, SIZE, SIZE) > 0.5).float()
    losses = lesson.lesson_losses(net(torch.rand(4, 3, SIZE, SIZE)), truth)
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_losses_are_least_at_the_truth() -> None:
    truth = (torch.rand(2, 1, 32, 32) > 0.5).float()
    right, wrong = (lesson.lesson_losses(40 * sign * (truth - 0.5), truth) for sign in (1, -1))
    for name in right:
        assert right[name] < 1e-3 < 0.4 < wrong[name]
    nothing = torch.zeros(2, 1, 32, 32)
    assert sum(lesson.lesson_losses(nothing - 20, nothing).values()) < 1e-3


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "any.safetensors"
    save_file({name: value.half() for name, value in fold(trained()).items()}, path)
    return path


@pytest.mark.parametrize("size", [64, 128, 200])
def test_crops_of_any_size_are_read_each_by_itself(weights: Path, size: int) -> None:
    visible = load_visible(CPU, weights)
    crops = torch.rand(3, 3, size, size) * 2 - 1
    said = visible(crops)
    assert said.shape == (3, 1, size, size) and said.dtype == torch.float32
    assert 0 <= said.min() and said.max() <= 1
    torch.testing.assert_close(said[1:2], visible(crops[1:2]), atol=1e-4, rtol=0)


def test_no_crops_have_no_masks(weights: Path) -> None:
    assert load_visible(CPU, weights)(torch.zeros(0, 3, 64, 64)).shape == (0, 1, 64, 64)


def test_what_is_no_crop_is_refused(weights: Path) -> None:
    visible = load_visible(CPU, weights)
    for shape in ((3, 64, 64), (1, 1, 64, 64), (1, 3, 64, 32)):
        with pytest.raises(FacekitError, match=r"expected \(B, 3, S, S\)"):
            visible(torch.zeros(shape))


def test_what_are_no_weights_is_refused(tmp_path: Path) -> None:
    damaged, other = tmp_path / "damaged.safetensors", tmp_path / "other.safetensors"
    damaged.write_bytes(b"not safetensors")
    save_file({"weight": torch.zeros(3)}, other)
    with pytest.raises(FacekitError, match="not readable as safetensors"):
        load_visible(CPU, damaged)
    with pytest.raises(FacekitError, match="facekit studio teach lessons/visible"):
        load_visible(CPU, other)


# --- what is put in front ---

FIVE = torch.tensor([[45.0, 44], [83, 44], [64, 66], [49, 88], [79, 88]])


def scene(count: int) -> Scene:
    images = torch.full((count, 3, SIZE, SIZE), 0.5)
    skin = torch.tensor([0.7, 0.5, 0.4]).expand(count, 3)
    return Scene(images, FIVE.expand(count, 5, 2), skin, torch.rand(count, 3, SIZE, SIZE))


def inner() -> Tensor:
    """The inner face by its five points, roughly (1, 1, S, S)."""
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    return ((((x - 64) / 38).square() + ((y - 70) / 50).square()) < 1).float()[None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn_covers_faces_and_nothing_else_changes(kind: str) -> None:
    seed_step(1, 1)
    at = scene(24)
    layer = KINDS[kind](at)
    assert layer.share.shape == (24, 1, SIZE, SIZE) and layer.colour.shape == at.images.shape
    assert 0 <= layer.share.min() and layer.share.max() <= 1
    assert torch.isfinite(layer.colour).all()
    assert 0 <= layer.colour.min() and layer.colour.max() <= 1
    covered = (layer.share * inner()).sum((1, 2, 3)) / inner().sum()
    assert 0.02 < covered.mean() < 0.8
    assert (covered > 0.01).float().mean() > 0.6, "most lie over the face"

    images, bare = at.images.clone(), inner().expand(24, -1, -1, -1).contiguous()
    before = bare.clone()
    put_on(images, bare, layer, torch.zeros(24), torch.zeros(24, 2))
    free = (layer.share == 0).expand_as(images)
    assert torch.equal(images[free], at.images[free])
    assert (bare <= before).all()
    assert torch.equal(bare[layer.share == 0], before[layer.share == 0])
    assert (bare[layer.share == 1] == 0).all()


def test_a_shadow_darkens_and_leaves_the_truth_alone() -> None:
    seed_step(1, 2)
    at = scene(6)
    layer = KINDS["thing"](at)
    lit, shaded = at.images.clone(), at.images.clone()
    truths = [inner().expand(6, -1, -1, -1).contiguous() for _ in range(2)]
    put_on(lit, truths[0], layer, torch.zeros(6), torch.full((6, 2), 3.0))
    put_on(shaded, truths[1], layer, torch.full((6,), 0.5), torch.full((6, 2), 3.0))
    assert torch.equal(*truths)
    assert (shaded <= lit + 1e-6).all() and (shaded < lit - 0.05).any()


def test_a_hand_of_the_same_skin_has_its_colour() -> None:
    seed_step(1, 3)
    at = scene(32)
    layer = KINDS["hand"](at, 1.0)  # type: ignore[call-arg]
    weight = (layer.share > 0.99).float()
    mean = (layer.colour * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=1)
    chroma = mean / mean.sum(1, keepdim=True)
    own = at.skin / at.skin.sum(1, keepdim=True)
    assert (chroma - own).abs().median() < 0.02


# --- how crops are changed ---


def some_crops(count: int = 4) -> Crops:
    """Crops whose five points are white dots, on a grey that slopes."""
    slope = np.linspace(40, 160, SIDE, dtype=np.float32)
    images = np.repeat(np.tile(slope, (SIDE, 1))[None], 3, 0).astype(np.uint8)
    points = FIVE.numpy() + ROOM
    canvas = np.ascontiguousarray(images.transpose(1, 2, 0))
    for x, y in points:
        cv2.circle(canvas, (int(x), int(y)), 3, (255, 255, 255), -1)
    masks = torch.zeros(count, 3, SIDE, SIDE, dtype=torch.uint8)
    masks[:, 0, ROOM : ROOM + SIZE, ROOM : ROOM + SIZE] = (inner()[0, 0] * 255).byte()
    masks[:, 2] = masks[:, 0]
    return Crops(
        images=torch.from_numpy(canvas).permute(2, 0, 1).repeat(count, 1, 1, 1),
        masks=masks,
        points=torch.from_numpy(points).repeat(count, 1, 1),
        person=torch.arange(count),
    )


def test_the_plain_crop_is_the_middle() -> None:
    crops = some_crops()
    images, masks, points = lesson.brought(crops, torch.tensor([2, 0]), lesson.plain(2))
    middle = crops.images[:2, :, ROOM:-ROOM, ROOM:-ROOM].float() / 255
    torch.testing.assert_close(images, middle, atol=1e-4, rtol=0)
    torch.testing.assert_close(masks[:, :1], inner().expand(2, -1, -1, -1), atol=1e-4, rtol=0)
    torch.testing.assert_close(points, FIVE.expand(2, 5, 2), atol=1e-4, rtol=0)


def test_points_and_masks_move_with_the_picture() -> None:
    seed_step(0, 5)
    crops = some_crops(24)
    moves = lesson._inexact(24)
    images, masks, points = lesson.brought(crops, torch.arange(24), moves)
    mirrored = torch.linalg.det(moves[:, :, :2]) < 0
    assert 4 < mirrored.sum() < 20
    inside = ((points > 4) & (points < SIZE - 4)).all(2)
    assert inside.float().mean() > 0.9
    for image, mask, five, seen in zip(images, masks, points, inside, strict=True):
        for x, y in five[seen].long().tolist():
            assert image[:, y, x].min() > 0.9, "there is a white dot"
            assert mask[0, y, x] > 0.9
    # The left eye stays the picture's left one.
    assert (points[:, 0, 0] < points[:, 1, 0]).all()


def test_changes_replay_and_keep_to_their_ranges() -> None:
    crops, rows = some_crops(8), torch.arange(8)
    results = []
    for _ in range(2):
        seed_step(7, 1)
        results.append(lesson.changed(crops, rows, 0.2))
    (images, bare), again = results
    assert torch.equal(images, again[0]) and torch.equal(bare, again[1])
    assert images.shape == (8, 3, SIZE, SIZE) and bare.shape == (8, 1, SIZE, SIZE)
    assert -1 <= images.min() and images.max() <= 1 and torch.isfinite(images).all()
    assert 0 <= bare.min() and bare.max() <= 1


def test_compression_is_that_of_jpeg() -> None:
    y, x = np.mgrid[:SIZE, :SIZE]
    planes = [np.sin(x / 7 + i) * np.cos(y / (5 + i)) for i in range(3)]
    picture = np.dstack(planes) * 90 + 128
    picture[30:60, 40:90] = [220, 60, 30]
    pixels = picture.astype(np.uint8)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    for quality in (20, 60, 90):
        _, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None
        found = lesson.compressed(images, torch.tensor([float(quality)]))[0].permute(1, 2, 0)
        away = np.abs(found.numpy() * 255 - decoded[..., ::-1].astype(np.float32)).mean()
        lost = np.abs(pixels.astype(np.float32) - decoded[..., ::-1]).mean()
        assert away < 0.35 * lost + 0.6, quality


def test_overlap_is_intersection_over_union() -> None:
    a, b = torch.zeros(2, 1, 40, 40), torch.zeros(2, 1, 40, 40)
    a[:, :, :20], b[:, :, 10:30] = 1, 1
    assert lesson.overlap(a, b) == pytest.approx(1 / 3, abs=1e-3)
    assert lesson.overlap(b, b) == 1


# --- the lesson ---


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lesson") / "run"
    result = teach_command(out)
    assert result.exit_code == 0, result.exception
    return out


def teach_command(out: Path, *more: str) -> Any:
    arguments = ["studio", "teach", "lessons/visible", "--out", str(out), "--threads", "1"]
    for value in (*TINY, *more):
        arguments += ["--set", value]
    return CliRunner().invoke(cli, arguments)


def test_a_lesson_writes_weights_and_their_card(taught: Path) -> None:
    path, card = find(taught, "visible")
    assert card["licence"] == "Apache-2.0"
    assert "3 studio people (1 of them held out)" in card["data"]
    assert set(card["figures"]) >= {"hand", "hand_ellipse", "hand_colour"}
    rows = [json.loads(line) for line in (taught / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 4 and "loss_dice" in rows[-1]
    assert path.stat().st_size < 2_500_000
    assert load_visible(CPU, path)(torch.zeros(1, 3, 96, 96)).shape == (1, 1, 96, 96)


def test_crops_hold_faces_and_their_masks(taught: Path) -> None:
    crops = crops_file.read(taught / lesson.CROPS)
    assert crops.images.shape == crops.masks.shape == (3, 3, SIDE, SIDE)
    assert crops.person.tolist() == [0, 1, 2]
    bare, glasses, person = (crops.masks[:, i].float() / 255 for i in range(3))
    assert (bare <= person + 0.1).all() and (torch.minimum(bare, glasses).mean() < 0.01)
    at = crops.points.round().long()
    # The tip of the nose and the corners of the mouth are bare in these three.
    for row, five in enumerate(at):
        for x, y in five[2:].tolist():
            assert bare[row, y - 2 : y + 3, x - 2 : x + 3].max() > 0.9
    middle = bare[:, ROOM:-ROOM, ROOM:-ROOM].mean((1, 2))
    assert ((middle > 0.15) & (middle < 0.75)).all()


def test_a_damaged_file_of_crops_is_named(taught: Path, tmp_path: Path) -> None:
    state = checkpoint.load(taught / lesson.CROPS)
    path = tmp_path / "crops.safetensors"
    checkpoint.save(path, {"something": torch.zeros(3)})
    with pytest.raises(FacekitError, match="not a file of studio crops"):
        crops_file.read(path)
    checkpoint.save(path, state | {"images": state["images"].flip(0)})
    with pytest.raises(FacekitError, match="not a file of studio crops"):
        crops_file.read(path)
    checkpoint.save(path, state | {"points": state["points"][:1]})
    with pytest.raises(FacekitError, match="damaged"):
        crops_file.read(path)


def test_crops_of_other_people_are_refused(taught: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / lesson.CROPS).write_bytes((taught / lesson.CROPS).read_bytes())
    assert "not those of 4 people x 1" in str(teach_command(out, "people=4").exception)


def test_a_lesson_cut_short_goes_on_to_the_same_bits(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    # Crops that were rendered elsewhere are not rendered again.
    (out / lesson.CROPS).write_bytes((taught / lesson.CROPS).read_bytes())
    calls: Iterator[int] = iter(range(100))
    losses = lesson.lesson_losses

    def cut(*arguments: Any) -> Any:
        if next(calls) == 3:
            raise FacekitError("the power went off")
        return losses(*arguments)

    monkeypatch.setattr(lesson, "lesson_losses", cut)
    assert "the power went off" in str(teach_command(out).exception)
    monkeypatch.setattr(lesson, "lesson_losses", losses)
    assert teach_command(out).exit_code == 0
    name = "visible.safetensors"
    assert (out / name).read_bytes() == (taught / name).read_bytes()


# --- the bundled weights ---


def test_bundled_weights_see_bare_faces_and_what_covers_them(taught: Path) -> None:
    crops = crops_file.read(taught / lesson.CROPS)  # of people whom they have never seen
    images, masks, points = lesson.brought(crops, torch.arange(3), lesson.plain(3))
    visible = load_visible(CPU)
    images, truth = images * 2 - 1, masks[:, :1]
    assert lesson.overlap(visible(images), truth) > 0.85
    smaller = torch.nn.functional.interpolate(images, 64, mode="area")
    assert lesson.overlap(visible(smaller), torch.nn.functional.interpolate(truth, 64)) > 0.8

    covered = images.clone()
    for picture, five in zip(covered, points.long(), strict=True):
        x, y = five[3:].float().mean(0).long().tolist()
        picture[:, y - 12 : y + 16, x - 16 : x + 16] = torch.tensor([-0.6, 0.1, 0.7])[:, None, None]
    box = (covered != images).any(1, keepdim=True)
    said = visible(covered)
    assert said[box].mean() < 0.25
    assert lesson.overlap(said, truth * ~box) > 0.75
