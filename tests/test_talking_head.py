"""Talking heads: their geometry, their networks and loops, photos at the gate, and the command."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.path
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from faces_of_noise import points70
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric
from scipy.interpolate import RBFInterpolator

from facekit import generators, motion
from facekit.adversary.metrics.features import load_features
from facekit.cli import cli
from facekit.commands import generator_dataset, generator_drive
from facekit.core import checkpoint, device, files
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.datasets.heads import Heads
from facekit.generators import few_shot_head, first_order_head, talking_head
from facekit.media.decode import Video, probe
from facekit.media.images import read_image, write_image
from facekit.motion import Animator, Cast
from facekit.provenance.manifest import verify
from facekit.studio.clip import render_clip, render_folder
from facekit.types import Pixels, read_manifest

SIZE = 32
ARMS = [talking_head, few_shot_head, first_order_head]
TINY: dict[str, dict[str, Any]] = {
    "talking_head": {"width": 8, "photos": 2, "warm_up": 2},
    "few_shot_head": {"width": 8, "vector": 8, "photos": 2, "tune_steps": 3},
    "first_order_head": {"width": 8, "points": 4},
}


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return device.setup("cpu", threads=1)


def tiny(module: ModuleType, **changes: Any) -> Any:
    values = {"size": SIZE, "steps": 6, "batch": 4, "checkpoint_every": 3}
    return module.Config(**{**values, **TINY[module.__name__.split(".")[-1]], **changes})


def a_run(folder: Path, module: ModuleType, config: Any) -> Run:
    return Run.start(
        folder,
        plugin=module.__name__.split(".")[-1],
        config=config,
        seed=0,
        data_hash="drawn",
        threads=1,
        precision="32-true",
    )


def drawn_heads(groups: int = 3, moments: int = 4, size: int = SIZE) -> Heads:
    """Ovals that wander before a plain wall: all of a picture goes along, so the flow is known."""
    random = np.random.default_rng(0)
    unit = (np.arange(size) + 0.5) / size
    images = np.zeros((groups, moments, 3, size, size), np.float32)
    landmarks = np.zeros((groups, moments, 70, 2), np.float32)
    shifts = random.uniform(-0.1, 0.1, (groups, moments, 2))
    for g in range(groups):
        skin, wall = random.uniform(40, 220, (2, 3, 1, 1))
        for k in range(moments):
            x, y = unit - 0.5 - shifts[g, k, 0], unit[:, None] - 0.5 - shifts[g, k, 1]
            within = (x / 0.28) ** 2 + (y / 0.36) ** 2 < 1
            mouth = (x / 0.12) ** 2 + ((y - 0.2) / 0.04) ** 2 < 1
            images[g, k] = np.where(mouth, 30, np.where(within, skin, wall))
            landmarks[g, k] = size * (0.2 + 0.6 * points70() + shifts[g, k])
    half = size // 2
    centres = np.stack(np.meshgrid(*[(np.arange(half) + 0.5) / half] * 2), -1)
    following = np.roll(shifts, -1, 1) - shifts
    places = centres + following[:, :, None, None]
    return Heads(
        torch.from_numpy(images).byte(),
        torch.from_numpy(landmarks),
        torch.full((groups, moments, size, size), 255, dtype=torch.uint8),
        torch.from_numpy(places).half(),
        torch.ones(groups, moments, half, half, dtype=torch.uint8),
    )


# Geometry -------------------------------------------------------------------------------------


def test_a_spline_is_scipys() -> None:
    """An independent oracle: the same smoothing spline, by SciPy."""
    random = np.random.default_rng(1)
    points = points70()[17:] + random.normal(0, 0.01, (53, 2))
    of = points + random.normal(0, 0.03, points.shape)
    side = 32
    # SciPy's smoothing has the other sign, for its kernel's weights have.
    smoothing = talking_head._STIFF
    oracle = RBFInterpolator(points, of, kernel="thin_plate_spline", smoothing=smoothing)
    coarse = side // 4
    centres = np.stack(np.meshgrid(*[(np.arange(coarse) + 0.5) / coarse] * 2), -1)
    wanted = oracle(centres.reshape(-1, 2)).reshape(coarse, coarse, 2)
    given = (torch.from_numpy(p).float()[None] for p in (points, of))
    found = talking_head.spline(*given, side)[0].numpy()
    # At a coarse map's centres, which lie between four of the fine one's.
    fine = found.reshape(coarse, 4, coarse, 4, 2)[:, 1:3, :, 1:3].mean((1, 3))
    inner = slice(1, -1)
    assert np.abs(fine - wanted)[inner, inner].max() < 0.01


@given(st.integers(0, 10_000), st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))
@settings(max_examples=20, deadline=None)
def test_a_spline_of_a_shift_is_the_shift(seed: int, x: float, y: float) -> None:
    points = torch.rand(1, 70, 2, generator=torch.Generator().manual_seed(seed))
    shift = torch.tensor([x, y])
    found = talking_head.spline(points, points + shift, 16)
    assert (found - talking_head.grid(16, found.device) - shift).abs().max() < 1e-3


def test_what_the_flow_fetches_is_what_is_there() -> None:
    """Of a batch, mirrored or not: the first photo, fetched by the true flow, is the picture."""
    heads = drawn_heads()
    torch.manual_seed(0)
    batch = talking_head.drawn_batch(heads, 16, 2, 0.0, torch.device("cpu"))
    fetched = talking_head.warp(batch.photos[:, 0], batch.places)
    there = torch.nn.functional.avg_pool2d(batch.images, 2)
    inner = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    still = torch.nn.functional.avg_pool2d(batch.photos[:, 0], 2)
    off, floor = ((a - there)[inner].abs().mean() for a in (fetched, still))
    assert off < 0.4 * floor
    # Landmarks go along, too.
    moved = talking_head.spline(batch.points, batch.of[:, 0], SIZE // 2)
    assert (moved - batch.places).abs().max() < 2e-3


def test_landmarks_are_drawn_where_they_are() -> None:
    points = torch.from_numpy(points70())[None]
    maps = talking_head.maps_of(points, 64)
    assert maps.shape == (1, talking_head.PARTS, 64, 64)
    assert 0 <= maps.min() and 0.8 < maps.max() <= 1
    x, y = (64 * points[0, 48]).long()
    assert maps[0, 2, y, x] > 0.5 and maps[0, 0, y, x] < 0.1
    # A mirrored face's drawing is the drawing mirrored.
    mirrored = talking_head.maps_of(talking_head._mirrored(points), 64)
    assert (mirrored - maps.flip(3)).abs().max() < 1e-3


def test_openings_are_matplotlibs() -> None:
    """An independent oracle of what lies within a line, on faces that are pulled about."""
    random = np.random.default_rng(4)
    places = talking_head.grid(24, torch.device("cpu")).view(-1, 2).numpy()
    for _ in range(5):
        points = points70() + random.normal(0, 0.02, (70, 2))
        points[60:68] += [[0, 0.05 * k] for k in (0, -1, -1, -1, 0, 1, 1, 1)]
        found = talking_head.openings(torch.from_numpy(points)[None].float(), 24)[0]
        mouth, right, left = (
            matplotlib.path.Path(points[rows], closed=False).contains_points(places)
            for rows in (slice(60, 68), slice(36, 42), slice(42, 48))
        )
        assert mouth.any() and np.array_equal(found[0].numpy().ravel() > 0, mouth)
        assert np.array_equal(found[1].numpy().ravel() > 0, right | left)


# Networks and loops ---------------------------------------------------------------------------


def test_before_it_learns_a_photo_is_moved_by_the_spline() -> None:
    torch.manual_seed(0)
    net = talking_head.TalkingHead(8).eval()
    batch = talking_head.drawn_batch(drawn_heads(), 4, 1, 0.0, torch.device("cpu"))
    drawn = net(net.look(batch.photos, batch.of), batch.points)
    bent = talking_head.spline(batch.points, batch.of[:, 0], SIZE // 2)
    still = talking_head.grid(SIZE // 2, bent.device)
    share = torch.tensor(2.0).sigmoid()
    assert torch.allclose(drawn.places[:, 0], still + share * (bent - still), atol=1e-5)
    assert drawn.images.shape == batch.images.shape


def test_more_photos_are_blended_by_how_well_they_show_a_place() -> None:
    """Of two photos, one of which is seen nowhere, the other one's pixels are taken."""
    torch.manual_seed(0)
    net = talking_head.TalkingHead(8).eval()
    batch = talking_head.drawn_batch(drawn_heads(), 2, 2, 0.0, torch.device("cpu"))

    def of_first(photos: Any, first: Any, *marks: Any) -> Any:
        assert torch.equal(first[1::2], first[::2]) and torch.equal(first[::2], photos[::2])
        places, logits = talking_head.Motion.forward(net.motion, photos, first, *marks)
        logits = logits.clone()
        logits[0::2], logits[1::2] = 20.0, -20.0  # the first photo of each person, the second
        return places, logits

    net.motion.forward = of_first  # type: ignore[method-assign]
    drawn = net(net.look(batch.photos, batch.of), batch.points)
    at = talking_head.resized(drawn.places[:, 0].permute(0, 3, 1, 2), SIZE).permute(0, 2, 3, 1)
    assert (drawn.warped - talking_head.warp(batch.photos[:, 0], at)).abs().max() < 0.01


@pytest.mark.parametrize("module", ARMS)
def test_a_tiny_run_learns_stays_finite_and_shows_strips(
    module: ModuleType, tmp_path: Path, fabric: Fabric
) -> None:
    rate = 2e-3 if module is talking_head else 5e-4
    config = tiny(module, steps=60, learning_rate=rate, checkpoint_every=30)
    run = a_run(tmp_path / "run", module, config)
    strips: dict[int, Pixels] = {}
    module.fit(config, drawn_heads(), run, fabric, show=lambda s, p: strips.update({s: p}))
    name = "loss" if module is talking_head else "content"  # a game's loss need not fall
    losses = [row[name] for row in run.metrics()]
    assert np.isfinite(losses).all()
    most = 0.8 if module is talking_head else 0.95  # norms in all its layers make it slow
    assert np.mean(losses[-2:]) < most * np.mean(losses[:2]), losses
    state = run.latest()
    assert state is not None
    assert all(torch.isfinite(value).all() for value in state["net"].values())
    assert strips[60].dtype == np.uint8 and strips[60].shape[1:] == (8 * SIZE, 3)


def test_what_no_photo_shows_is_painted(tmp_path: Path, fabric: Fabric) -> None:
    """Mouths that are open in every other picture only, as the landmarks tell."""
    heads = drawn_heads(groups=8)
    inner = slice(60, 68)
    for g, k in np.ndindex(8, 4):
        middle = heads.landmarks[g, k, inner].mean(0)
        heads.landmarks[g, k, inner, 1] = middle[1]
        if k % 2:
            heads.landmarks[g, k, 61:64, 1] -= 3
            heads.landmarks[g, k, 65:68, 1] += 3
            x, y = (int(v) for v in middle)
            heads.images[g, k, :, y - 3 : y + 3, x - 6 : x + 6] = 250
            heads.seen[g, k - 1, (y - 4) // 2 : (y + 4) // 2, (x - 6) // 2 : (x + 6) // 2] = 0
            heads.seen[g, k, (y - 4) // 2 : (y + 4) // 2, (x - 6) // 2 : (x + 6) // 2] = 0
    config = tiny(talking_head, steps=100, learning_rate=1e-2, photos=1, average=10)
    talking_head.fit(config, heads, run := a_run(tmp_path / "run", talking_head, config), fabric)
    net, _ = talking_head.load(run, fabric)
    torch.manual_seed(1)
    batch = talking_head.drawn_batch(heads, 32, 1, 0.0, fabric.device)
    with torch.inference_mode():
        drawn = net(net.look(batch.photos, batch.of), batch.points)
    mouth = talking_head.maps_of(batch.points, SIZE)[:, 2:]
    warped, painted = (
        ((image - batch.images).abs() * mouth).sum() / mouth.sum() / 3
        for image in (drawn.warped, drawn.images)
    )
    assert painted < 0.8 * warped, (painted, warped)


@pytest.mark.parametrize("module", ARMS)
def test_every_parameter_gets_a_gradient(module: ModuleType) -> None:
    torch.manual_seed(0)
    batch = talking_head.drawn_batch(drawn_heads(), 4, 2, 0.0, torch.device("cpu"))
    if module is talking_head:
        net: Any = talking_head.TalkingHead(8)
        for parameter in net.parameters():  # some start from none, behind which nothing is taught
            torch.nn.init.normal_(parameter, 0, 0.05)
        drawn = net(net.look(batch.photos, batch.of), batch.points)
        torch.stack(list(talking_head.losses(drawn, batch, tiny(module)).values())).sum().backward()
    elif module is first_order_head:
        net = first_order_head.FirstOrderHead(tiny(module))
        of, to = (net.find(points, SIZE) for points in (batch.of[:, 0], batch.points))
        bend = first_order_head.Bend.sample(4, torch.device("cpu"))
        bent = net.detector(bend.of(talking_head.maps_of(batch.points, SIZE // 2)))
        drawn = net(batch.photos[:, 0], of, to)
        features = load_features(torch.device("cpu"))
        found = first_order_head.losses(drawn, batch.images, to, bend, bent, features, tiny(module))
        torch.stack(list(found.values())).sum().backward()
    else:
        net = few_shot_head.FewShotHead(tiny(module), 3)
        maps = talking_head.maps_of(batch.points, SIZE)
        fakes = net.generator(maps, net.generator.project(net.embed(batch.photos, batch.of)))
        score, _ = net.judge(fakes, maps, net.judge.people[batch.who % 3])
        (fakes.square().sum() + score.sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize(
    ("module", "changes"),
    [
        (talking_head, {}),
        (talking_head, {"adversarial_weight": 0.1, "adversarial_from": 0.2}),
        (few_shot_head, {}),
        (first_order_head, {}),
    ],
)
def test_a_resumed_run_equals_an_unbroken_one(
    module: ModuleType, changes: dict[str, Any], tmp_path: Path, fabric: Fabric
) -> None:
    config, heads = tiny(module, strip_every=2, **changes), drawn_heads()
    whole, broken = (a_run(tmp_path / name, module, config) for name in ("whole", "broken"))
    module.fit(config, heads, whole, fabric, show=lambda step, strip: None)

    class Stopped(Exception):
        pass

    def stop(step: int, strip: Pixels) -> None:
        if step == 4:
            raise Stopped

    with pytest.raises(Stopped):
        module.fit(config, heads, broken, fabric, show=stop)
    assert [path.name for path in broken.checkpoints()] == ["step-00000003.safetensors"]
    module.fit(config, heads, broken, fabric, show=lambda step, strip: None)
    one, other = (run.checkpoints()[-1].read_bytes() for run in (whole, broken))
    assert one == other


@pytest.mark.parametrize("module", ARMS)
def test_a_loss_that_is_none_stops_and_keeps_the_checkpoint_before(
    module: ModuleType, tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(module)
    run = a_run(tmp_path / "run", module, config)
    name = "drawn_losses" if module is few_shot_head else "losses"
    true, calls = getattr(module, name), iter(range(100))

    def spoiled(*of: Any) -> Any:
        found = true(*of)
        if next(calls) < 4:
            return found
        return {key: value * torch.nan for key, value in found.items()}

    monkeypatch.setattr(module, name, spoiled)
    with pytest.raises(FacekitError, match="not finite at step 6"):
        module.fit(config, drawn_heads(), run, fabric)
    assert [path.name for path in run.checkpoints()] == ["step-00000003.safetensors"]


# Use ------------------------------------------------------------------------------------------


def a_cast(count: int, size: int = SIZE) -> Cast:
    heads = drawn_heads(1, max(count, 2), size)
    pixels = heads.images[0, :count].permute(0, 2, 3, 1).numpy()
    landmarks = heads.landmarks[0, :count].numpy()
    return Cast(np.ascontiguousarray(pixels), motion.sitters(landmarks, size))


@pytest.mark.parametrize("module", ARMS)
def test_a_run_and_its_bundle_draw_the_same(
    module: ModuleType, tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(module)
    run = a_run(tmp_path / "run", module, config)
    with pytest.raises(FacekitError, match="holds no checkpoint"):
        module.animator(run, fabric)
    module.fit(config, drawn_heads(), run, fabric)
    animator = module.animator(run, fabric)
    cast = a_cast(3)
    landmarks = np.repeat(cast.landmarks[:1], 11, 0) + np.linspace(0, 2, 11)[:, None, None]
    frames = list(animator.draw(cast, landmarks.astype(np.float32), 0))
    assert len(frames) == 11
    assert all(frame.shape == (SIZE, SIZE, 3) and frame.dtype == np.uint8 for frame in frames)
    assert not np.array_equal(frames[0], frames[-1])
    again = list(animator.draw(cast, landmarks.astype(np.float32), 10))
    assert len(again) == 1 and np.array_equal(again[0], frames[10])  # as after an interruption
    path = module.bundle(run, tmp_path / "weights", "tiny")
    card = {"config": config.model_dump(mode="json")}
    true = module.weights.find
    monkeypatch.setattr(
        module.weights,
        "find",
        lambda folder, name: (path, card) if name == "tiny" else true(folder, name),
    )
    bundled = list(module.animator("tiny", fabric).draw(cast, landmarks.astype(np.float32), 10))
    # Half precision; instance norms make much of what is nearly constant before it has learned.
    least = 16 if module is few_shot_head else 2
    assert np.abs(bundled[0].astype(int) - again[0]).mean() < least


@pytest.mark.parametrize("module", ARMS)
def test_weights_of_another_width_are_refused(
    module: ModuleType, tmp_path: Path, fabric: Fabric
) -> None:
    run = a_run(tmp_path / "run", module, tiny(module))
    other = a_run(tmp_path / "other", module, tiny(module, width=16))
    module.fit(tiny(module, steps=1), drawn_heads(), run, fabric)
    state = run.latest()
    assert state is not None
    other.save(1, {key: value for key, value in state.items() if key != "step"})
    with pytest.raises(FacekitError, match="another version or width"):
        module.animator(other, fabric)


def test_of_many_photos_the_first_and_the_most_like_are_chosen() -> None:
    random = torch.Generator().manual_seed(0)
    own = torch.rand(9, 70, 2, generator=random)
    shift = torch.tensor([0.3, -0.1])  # where the head is does not matter
    assert talking_head.chosen(own, own[[5, 2, 5, 5]] + shift) == [0, 5, 2]
    assert talking_head.chosen(own[:1], own[[5, 2]]) == [0]
    assert len(talking_head.chosen(own, own)) == talking_head.MOST


def test_photos_before_another_wall_are_told_from_the_one_that_moves() -> None:
    """Of half the groups, all photos but the first are before a wall of their own."""
    heads = drawn_heads(4, 4)
    person = heads.person.clone()
    person[:, :, :, : SIZE // 4] = 0
    torch.manual_seed(1)
    batch = talking_head.drawn_batch(heads._replace(person=person), 64, 3, 0.0, torch.device("cpu"))
    corner = batch.photos[..., : SIZE // 4, :3]
    apart = (corner[:, 1:] - corner[:, :1]).abs().mean((2, 3, 4))
    elsewhere = apart[:, 0] > 0.02
    assert 0.25 < elsewhere.float().mean() < 0.75
    assert (apart[~elsewhere] < 0.01).all() and (apart[elsewhere] > 0.02).all()


def test_tuning_brings_the_few_shot_head_nearer_to_its_photos(
    tmp_path: Path, fabric: Fabric
) -> None:
    cast = a_cast(4)
    off = []
    for steps in (0, 25):
        config = tiny(few_shot_head, tune_steps=steps, tune_rate=4e-3, steps=1)
        run = a_run(tmp_path / str(steps), few_shot_head, config)
        few_shot_head.fit(config, drawn_heads(), run, fabric)
        frames = few_shot_head.animator(run, fabric).draw(cast, cast.landmarks, 0)
        off.append(np.abs(np.stack(list(frames)).astype(float) - cast.pixels).mean())
    assert off[1] < 0.7 * off[0], off


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_a_bend_tells_its_own_derivative(seed: int) -> None:
    """By finite differences; and a bent picture shows what it was taken to."""
    torch.manual_seed(seed)
    bend = first_order_head.Bend.sample(2, torch.device("cpu"))
    exact = first_order_head.Bend(*(part.double() for part in bend))
    places, step = torch.rand(2, 5, 2).double(), 1e-6
    _, slope = exact(places)
    for axis in range(2):
        apart = step * torch.eye(2)[axis].double()
        change = (exact(places + apart)[0] - exact(places - apart)[0]) / (2 * step)
        assert torch.allclose(slope[..., axis], change, atol=1e-5)
    still = talking_head.grid(32, places.device)
    shown = bend.of(still.permute(0, 3, 1, 2).expand(2, -1, -1, -1)).permute(0, 2, 3, 1)
    wanted = bend(still.view(1, -1, 2).expand(2, -1, -1))[0].view(shown.shape)
    inside = ((wanted > 0.05) & (wanted < 0.95)).all(3)
    assert (shown - wanted)[inside].abs().max() < 1e-5


def test_a_first_order_motion_carries_its_key_point_and_what_is_around_it() -> None:
    """Equation 4: an affine motion of all the face is found again, whatever the reference is."""
    torch.manual_seed(0)
    affine = torch.tensor([[1.1, 0.2], [-0.1, 0.9]])
    shift = torch.tensor([0.05, -0.1])
    at, turned = torch.rand(1, 3, 2), torch.eye(2) + 0.3 * torch.randn(1, 3, 2, 2)
    of = first_order_head.Points(at @ affine.mT + shift, affine @ turned)
    moved = first_order_head.motions(of, first_order_head.Points(at, turned), 16)
    places = talking_head.grid(16, at.device)
    assert torch.equal(moved[:, 0], places)
    wanted = places @ affine.mT + shift
    assert (moved[:, 1:] - wanted[:, None]).abs().max() < 1e-4
    # Key points that go along with a bent drawing, and turn with it, cost nothing.
    bend = first_order_head.Bend.sample(1, at.device)
    there, slope = bend(at)
    here, bent = first_order_head.Points(there, slope @ turned), first_order_head.Points(at, turned)
    drawn = first_order_head.Drawn(*[torch.zeros(1, 3, SIZE, SIZE)] * 2)
    given = (drawn.images, here, bend, bent, load_features(at.device), tiny(first_order_head))
    found = first_order_head.losses(drawn, *given)
    assert all(value.abs() < 1e-4 for value in found.values())
    # What hardly has an inverse ends in no NaN.
    flat = first_order_head.Points(at, torch.zeros(1, 3, 2, 2))
    assert first_order_head.motions(of, flat, 16).isfinite().all()


def test_photos_that_are_no_clip_teach_nothing(
    people: Path, tmp_path: Path, fabric: Fabric
) -> None:
    arguments = ["-q", "generator", "train", "generators/talking_head", "--data", str(people)]
    arguments += ["--out", str(tmp_path / "run"), "--set", "size=32"]
    result = CliRunner().invoke(cli, arguments)
    assert "no clip shows one face in 8 of its pictures" in str(result.exception)
    assert not (tmp_path / "run").exists()


# Photos and drivers ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certified studio folder of two people."""
    folder = tmp_path_factory.mktemp("studio") / "people"
    render_folder(folder, people=2, frames=3, size=192, seed=12)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certified clip of somebody else."""
    folder = tmp_path_factory.mktemp("studio") / "clip"
    render_clip(folder, person_seed=77, seconds=0.6, rate=10, size=160, seed=5)
    return folder / "clip.mp4"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained through the command line, hardly, on the frames of a clip."""
    frames = tmp_path_factory.mktemp("studio") / "frames"
    render_clip(frames, person_seed=5, seconds=0.6, rate=10, size=160, seed=6, format="png")
    out = tmp_path_factory.mktemp("runs") / "heads"
    arguments = ["-q", "generator", "train", "generators/talking_head", "--data", str(frames)]
    arguments += ["--out", str(out), "--threads", "1", "--device", "cpu"]
    sets = ["size=32", "width=8", "steps=4", "batch=2", "photos=1", "checkpoint_every=2"]
    sets += ["moments=4"]
    arguments += [part for one in sets for part in ("--set", one)]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return out


def asked(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["-q", "generator", "run", *map(str, arguments)])


def refusal(*arguments: object) -> str:
    """The one line that a command ends with which refuses."""
    result = asked(*arguments)
    assert isinstance(result.exception, FacekitError), result.output
    return str(result.exception)


def test_a_photo_moves_and_leaves_marked_and_signed(
    run_folder: Path, people: Path, clip: Path, tmp_path: Path
) -> None:
    out, beside = tmp_path / "out.mp4", tmp_path / "beside.mp4"
    result = asked(
        *(run_folder, "--photos", people / "person-0000", "--driver", clip, "--out", out),
        *("--preview", beside, "--json", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    said = json.loads(result.output)
    assert (said["photos"], said["frames"]) == (3, 6)
    assert said["mark"]["kind"] == "generated" and said["provenance"] == "untrusted"
    claims = verify(out).claims
    assert claims["facts"]["origin"] == "studio" and claims["facts"]["driver"] == "video"
    assert len(claims["facts"]["certificates"]) == 3  # the run's, the photos', the driver's
    assert len(claims["inputs"]) == 4
    info = probe(out)
    assert (info.width, info.height) == (256, 256)
    with Video(out) as result_video, Video(clip) as driver:
        times = [[frame.time for frame in video] for video in (result_video, driver)]
    assert times[0] == pytest.approx(times[1], abs=1e-3)
    assert probe(beside).width == 3 * 256


@pytest.mark.parametrize(
    ("driver", "kind"), [("", "idle"), ("idle:3", "idle"), ("studio:3", "performance")]
)
def test_without_a_video_the_studio_moves_the_photo(
    run_folder: Path, people: Path, tmp_path: Path, driver: str, kind: str
) -> None:
    out = tmp_path / "out.mp4"
    given = ("--driver", driver) if driver else ()
    photo = people / "person-0001" / "0000.png"
    result = asked(
        run_folder, "--photos", photo, *given, "--seconds", "0.4", "--out", out, "--gaze", "0,0"
    )
    assert result.exit_code == 0, result.output
    assert "10 frames from 1 photo, marked as generated" in result.output
    assert verify(out).claims["facts"]["driver"] == kind


def test_a_track_moves_a_photo(run_folder: Path, people: Path, tmp_path: Path) -> None:
    track = tmp_path / "track.json"
    track.write_text(
        json.dumps({"times": [0, 0.04, 0.08], "yaw": [0, 5, 10], "jawOpen": [0, 1, 0]})
    )
    out = tmp_path / "out.mp4"
    photo = people / "person-0001" / "0000.png"
    result = asked(run_folder, "--photos", photo, "--driver", track, "--out", out)
    assert result.exit_code == 0, result.output
    assert "3 frames" in result.output


def test_an_interrupted_work_goes_on(
    run_folder: Path,
    people: Path,
    tmp_path: Path,
    fabric: Fabric,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo = people / "person-0000" / "0000.png"
    monkeypatch.setattr("facekit.media.stretches.LENGTH", 4)
    names = [tmp_path / name for name in ("whole.mp4", "broken.mp4")]
    generator_drive.move(str(run_folder), photo, names[0], fabric, seconds=0.4)
    true = generator_drive._shown

    def interrupted(frames: Any, side: int, first: int, total: int) -> Any:
        for frame in true(frames, side, first, total):
            if frame.index == 6:
                raise KeyboardInterrupt
            yield frame

    with monkeypatch.context() as patch:
        patch.setattr(generator_drive, "_shown", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generator_drive.move(str(run_folder), photo, names[1], fabric, seconds=0.4)
    assert not names[1].exists()
    generator_drive.move(str(run_folder), photo, names[1], fabric, seconds=0.4)
    pictures = []
    for name in names:
        with Video(name) as video:
            pictures.append([frame.pixels for frame in video])
    assert len(pictures[0]) == len(pictures[1]) == 10
    assert all(np.array_equal(a, b) for a, b in zip(*pictures, strict=True))


def test_work_that_waits_for_its_preview_goes_on(
    run_folder: Path,
    people: Path,
    tmp_path: Path,
    fabric: Fabric,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo, out, beside = people / "person-0000" / "0000.png", tmp_path / "a.mp4", tmp_path / "b.mp4"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(generator_drive, "_beside", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generator_drive.move(str(run_folder), photo, out, fabric, seconds=0.4, preview=beside)
    with monkeypatch.context() as patch:
        # Nobody is watched, and nothing is drawn, a second time.
        patch.setattr(generator_drive.Driver, "motion", interrupted)
        moved = generator_drive.move(
            str(run_folder), photo, out, fabric, seconds=0.4, preview=beside
        )
    assert moved.frames == 10
    with Video(out) as video:
        assert len(list(video)) == 10
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.mp4"}


def test_of_interrupted_work_that_is_refused_later_nothing_is_left(
    run_folder: Path,
    people: Path,
    tmp_path: Path,
    fabric: Fabric,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo, out = people / "person-0000" / "0000.png", tmp_path / "out.mp4"

    def stopped(*_: object) -> Any:
        raise KeyboardInterrupt

    def revoked(*_: object) -> Any:
        raise FacekitError("revoked")

    with monkeypatch.context() as patch:
        patch.setattr(generator_drive, "_shown", stopped)
        with pytest.raises(KeyboardInterrupt):
            generator_drive.move(str(run_folder), photo, out, fabric, seconds=0.4)
    assert [path.name for path in tmp_path.iterdir()] == [".stretches-out.mp4"]
    with monkeypatch.context() as patch:
        patch.setattr("facekit.generators.admit_together", revoked)
        with pytest.raises(FacekitError, match="revoked"):
            generator_drive.move(str(run_folder), photo, out, fabric, seconds=0.4)
    assert not list(tmp_path.iterdir())


def test_a_driver_is_never_written_over(run_folder: Path, people: Path, clip: Path) -> None:
    before = clip.read_bytes()
    given = (run_folder, "--photos", people / "person-0000", "--driver", clip)
    said = "is what it is made from"
    assert said in refusal(*given, "--out", clip)
    assert said in refusal(*given, "--out", clip.with_name("out.mp4"), "--preview", clip)
    assert clip.read_bytes() == before


def test_a_bare_name_in_a_studio_folder_is_the_studios(
    people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(people / "person-0000")
    (permit,) = generators.admit_together([[Path("0000.png")]], [], torch.device("cpu"))
    assert permit.certificate


def test_photos_move_only_with_leave() -> None:
    by = Animator(32, lambda *_: iter([]))
    cast = Cast(np.zeros((1, 32, 32, 3), np.uint8), [])
    with pytest.raises(FacekitError, match="nothing lets these photos be used"):
        generators.drive("talking_head", by, cast, np.zeros((0, 70, 2), np.float32), [], given=[])


def test_of_a_data_set_that_fails_nothing_is_left(tmp_path: Path) -> None:
    out = tmp_path / "set"
    with pytest.raises(FacekitError), generator_dataset.growing(out, {"generator": "x"}):
        (out / "0000-head.png").write_bytes(b"half")
        raise FacekitError("no consent any more")
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("stays")
    with pytest.raises(KeyboardInterrupt), generator_dataset.growing(out, {"generator": "x"}):
        (out / "0000-head.png").write_bytes(b"half")
        raise KeyboardInterrupt
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_a_folder_of_people_becomes_a_data_set(
    run_folder: Path, people: Path, tmp_path: Path
) -> None:
    out = tmp_path / "heads"
    result = asked(run_folder, "--photos", people, "--dataset", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["heads"] == 6
    items = read_manifest(out)
    assert [item.label for item in items] == [0, 1] * 6
    assert {item.subject for item in items} == {"person-0000", "person-0001"}
    # A moved head is in its original's split, and is called what it is.
    assert all(a.source == b.source for a, b in zip(items[::2], items[1::2], strict=True))
    assert {item.generator for item in items[1::2]} == {"talking_head"}
    moved = out / items[1].path
    assert verify(moved).claims["kind"] == "generated"
    assert files.sha256(moved) == items[1].sha256
    original = (people / "person-0000" / "0000.png").read_bytes()
    assert (out / items[0].path).read_bytes() == original
    assert "holds a data set already" in refusal(
        run_folder, "--photos", people, "--dataset", "--out", out
    )


def test_live_drivers_are_refused(run_folder: Path, people: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for driver in ("rtsp://camera/1", "/dev/video0", "/dev/null", str(pipe)):
        said = refusal(run_folder, "--photos", people, "--driver", driver, "--out", "x.mp4")
        assert "live impersonation is not built" in said or "not readable" in said


def test_without_consent_neither_photos_nor_drivers_are_taken(
    run_folder: Path, people: Path, clip: Path, tmp_path: Path, astronaut: Pixels
) -> None:
    photo, out = tmp_path / "photos" / "ann.png", tmp_path / "out.mp4"
    write_image(photo, astronaut[:300, 80:380])
    said = refusal(run_folder, "--photos", photo, "--out", out)
    assert "consent record of everyone" in said
    driver = tmp_path / "driver.mp4"
    driver.write_bytes(clip.read_bytes())
    photos = ("--photos", people / "person-0000")
    said = refusal(run_folder, *photos, "--driver", driver, "--out", out)
    assert "consent record of everyone" in said
    said = refusal(run_folder, *photos, "--out", out, "--consent", "c-000000000000")
    assert "leave it away" in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--out", "x.avi"], "written as .mp4"),
        (["--out", "x.mp4", "--preview", "x.mp4"], "give two names"),
        (["--out", "x.mp4", "--pose", "1,2"], "--pose '1,2': allowed are driver, keep"),
        (["--out", "x.mp4", "--driver", "studio:x"], "give a seed, a whole number: studio:7"),
        (["--out", "x.mp4", "--driver", "idle:"], "give a seed, a whole number: idle:7"),
        (["--out", "x.mp4", "--sheet", "y.png"], "--sheet, --interpolate and --mix"),
        (["--out", "x.mp4", "--source", "ann"], "and goes without --input"),
        (["--out", "x", "--dataset", "--driver", "studio:1"], "performance of their own"),
        ([], "needs --out"),
    ],
)
def test_wrong_options_are_said(
    run_folder: Path,
    people: Path,
    options: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    photo = people / "person-0000" / "0000.png"
    assert said in refusal(run_folder, "--photos", photo, *options)
    assert not list(tmp_path.glob("*"))


def test_a_picture_or_a_face_swap_moves_nothing(
    run_folder: Path, people: Path, tmp_path: Path
) -> None:
    photo = people / "person-0000" / "0000.png"
    out = ("--out", tmp_path / "x.mp4")
    said = refusal(run_folder, "--photos", photo, "--driver", photo, *out)
    assert "a picture moves nothing" in said
    assert "moves no photos" in refusal("gan", "--photos", photo, *out)
    assert "with --photos" in refusal(run_folder, "--driver", photo, *out)
    assert "with --photos" in refusal(run_folder, "--pose", "keep", *out)


def test_photos_of_two_people_or_of_nobody_are_refused(people: Path, fabric: Fabric) -> None:
    pictures = [read_image(people / f"person-000{k}" / "0000.png") for k in (0, 0, 1)]
    with pytest.raises(FacekitError, match="photo 3: seems to show somebody else than photo 1"):
        motion.cast_of(pictures, 64, fabric.device)
    blank = np.full((200, 200, 3), 127, np.uint8)
    with pytest.raises(FacekitError, match=r"b\.png: shows no face"):
        motion.cast_of([pictures[0], blank], 64, fabric.device, names=["a.png", "b.png"])
    both = np.concatenate([pictures[0], pictures[2]], 1)
    with pytest.raises(FacekitError, match="shows two people"):
        motion.cast_of([both], 64, fabric.device)


def test_of_a_benchmark_photos_without_a_face_are_left_out(people: Path, fabric: Fabric) -> None:
    picture = read_image(people / "person-0000" / "0000.png")
    blank = np.full_like(picture, 127)
    assert len(motion.cast_of([picture, blank], 64, fabric.device, unfit="take", cut=False)) == 1
    with pytest.raises(FacekitError, match="photo 1: shows no face"):  # it is the one that moves
        motion.cast_of([blank, picture], 64, fabric.device, unfit="take", cut=False)


def test_of_a_folder_photos_that_are_not_fit_are_left_out(people: Path, fabric: Fabric) -> None:
    picture = read_image(people / "person-0000" / "0000.png")
    blank = np.full_like(picture, 127)
    named = {"names": ["a.png", "b.png"], "unfit": "leave out"}
    cast = motion.cast_of([blank, picture], 64, fabric.device, **named)
    assert len(cast) == 1 and np.ptp(cast.pixels[0]) > 0
    (reason,) = cast.left_out
    assert reason.startswith("a.png: shows no face")
    with pytest.raises(FacekitError, match=r"b\.png: shows no face"):
        motion.cast_of([blank, blank], 64, fabric.device, **named)


def test_photos_of_any_size_are_cut_alike(people: Path, fabric: Fabric) -> None:
    picture = read_image(people / "person-0000" / "0000.png")
    large = np.pad(picture.repeat(2, 0).repeat(2, 1), ((40, 0), (100, 60), (0, 0)), mode="edge")
    cast = motion.cast_of([picture, large], 96, fabric.device)
    assert cast.pixels.shape == (2, 96, 96, 3) and len(cast) == 2
    assert np.abs(cast.landmarks[0] - cast.landmarks[1]).mean() < 3
    # The head, not the eyes, is in the middle; this one is turned.
    assert np.abs(cast.landmarks[0].mean(0) - 48).max() < 20


def test_photos_of_a_telephone_are_shrunk(
    people: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = read_image(people / "person-0000" / "0000.png")
    whole = motion.cast_of([picture], 96, fabric.device)
    monkeypatch.setattr("facekit.motion.cast.LARGEST", 150)
    shrunk = motion.cast_of(iter([picture]), 96, fabric.device)
    assert np.abs(whole.landmarks - shrunk.landmarks).mean() < 2
    assert np.abs(whole.pixels.astype(int) - shrunk.pixels).mean() < 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda face: {"pose": (75.0, 0.0, 0.0)}, "a profile, turned by 75°"),
        (lambda face: {"visible": np.where(np.arange(70) < 30, 1, 0.1)}, "is covered"),
    ],
)
def test_profiles_and_masks_are_refused(
    people: Path,
    fabric: Fabric,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Any], dict[str, Any]],
    said: str,
) -> None:
    from dataclasses import replace

    from facekit.faces.stage import Stage

    true = Stage.look

    def changed(self: Stage, images: Any) -> Any:
        (faces,) = true(self, images)
        marks = faces[0].landmarks
        assert marks is not None
        return [[replace(faces[0], landmarks=replace(marks, **change(marks)))]]

    monkeypatch.setattr(Stage, "look", changed)
    with pytest.raises(FacekitError, match=said):
        motion.cast_of([read_image(people / "person-0000" / "0000.png")], 64, fabric.device)


# Tracks in files ------------------------------------------------------------------------------


def test_a_track_of_landmarks_is_fitted(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    landmarks = np.repeat(20 + 100 * points70()[None], 3, 0)
    landmarks[1] += [3, 0]
    content = {"times": [0, 0.1, 0.2], "size": 160, "landmarks": landmarks.tolist()}
    path.write_text(json.dumps(content))
    found = motion.read_motion(path)
    assert len(found) == 3 and found.times.tolist() == [0, 0.1, 0.2]
    assert found.shift[1, 0] > found.shift[0, 0]


def test_a_track_of_coefficients_is_taken_as_it_is(tmp_path: Path) -> None:
    from facekit.studio.fit import UNITS

    path = tmp_path / "t.json"
    path.write_text(json.dumps({"times": [0, 1], "pitch": [2, 3], "jawOpen": [0, 0.5]}))
    found = motion.read_motion(path)
    assert found.pose.tolist() == [[0, 2, 0], [0, 3, 0]]
    assert found.units[:, UNITS.index("jawOpen")].tolist() == [0, 0.5] and found.units.sum() == 0.5
    assert not found.gaze.any() and not found.zoom.any()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1]", "no track"),
        ("{", "not readable as JSON"),
        ('{"times": [0, 0]}', "no seconds that increase"),
        ('{"times": [0, 1], "yaw": [1]}', "'yaw' has 1 values, 'times' 2"),
        ('{"times": [0, 1], "jawOpen": [0, 2]}', "beyond 0 to 1"),
        ('{"times": [0, 1], "yaw": [0, 200]}', "beyond 90 degrees"),
        ('{"times": [0, 1], "jawopen": [0, 1]}', "did you mean 'jawOpen'"),
        ('{"times": [0, 1], "yaw": ["a", 1]}', "'yaw' holds something that is no number"),
        ('{"times": [0], "landmarks": [[[0, 0]]]}', "stands 'size'"),
        ('{"times": [0], "size": 64, "landmarks": [[[0, 0]]]}', "shape"),
    ],
)
def test_a_damaged_track_is_one_line(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(FacekitError, match=said) as caught:
        motion.read_motion(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_bundled_names_may_have_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    from facekit.commands.generator_sample import plugin_of

    assert plugin_of("talking_head_64") == plugin_of("talking_head") == "talking_head"
    assert plugin_of("gan") == "gan" and plugin_of("landmarks") == ""


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path, fabric: Fabric) -> None:
    run = a_run(tmp_path / "run", talking_head, tiny(talking_head))
    checkpoint.save(run.folder / "step-00000001.safetensors", {"step": 1, "net": {}})
    with pytest.raises(FacekitError, match="another version or width"):
        talking_head.animator(run, fabric)
