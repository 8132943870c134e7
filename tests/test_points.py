"""The playground: its rules by hand, its small games, its animation, and its way past the gate."""

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from facekit import generators
from facekit.core import device, files
from facekit.core.errors import FacekitError
from facekit.generators import _gate, points
from facekit.generators._gate import DRAW_NO_FACES, NO_FACES, GatedRun
from facekit.generators.points import DEVIATION, centres, draw, picture, score

TINY = [
    "lessons=[{shape: line, steps: 6}, {shape: gaussians, steps: 4}]",
    *("width=8", "game.batch=16", "game.look_samples=32", "game.look_every=2"),
    *("game.strip_every=2", "game.strip_samples=50", "game.checkpoint_every=3"),
]


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return device.setup("cpu", threads=1)


def started(out: Path, fabric: Fabric, *changes: str) -> tuple[Any, GatedRun]:
    plugin, settings = generators.read_config("generators/points", [*TINY, *changes])
    return settings, generators.start(plugin, settings, None, out, fabric)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, fabric: Fabric) -> GatedRun:
    """A line and 25 Gaussians, hardly begun."""
    settings, run = started(tmp_path_factory.mktemp("points") / "run", fabric)
    points.train(settings, None, run, fabric)
    return run


# Points and their score -----------------------------------------------------------------------


def test_the_25_centres_are_those_of_the_literature() -> None:
    assert {tuple(place) for place in centres().tolist()} == {
        (float(x), float(y)) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)
    }


def test_real_points_find_every_mode_and_three_deviations_hold_989_of_1000() -> None:
    torch.manual_seed(0)
    found = score(draw("gaussians", 20_000))
    assert found.modes == 25
    # In two dimensions, 1 - exp(-3² / 2) of a Gaussian.
    assert found.on_a_mode == pytest.approx(1 - np.exp(-4.5), abs=0.003)


def test_a_score_worked_out_by_hand() -> None:
    on, off = 2.9 * DEVIATION, 3.1 * DEVIATION
    many = torch.tensor([[0.0, on]] * 99)
    # One of a hundred is above a fifth of the fair share of four in a hundred.
    assert score(torch.cat([many, torch.tensor([[2.0 + on, -4.0]])])) == (2, 1.0)
    assert score(torch.cat([many, torch.tensor([[2.0 + off, -4.0]])])) == pytest.approx((1, 0.99))
    # One of two hundred is below.
    assert score(torch.cat([many, many, torch.tensor([[2.0, -4.0]] * 2)])).modes == 2
    assert score(torch.cat([many, many, many, torch.tensor([[2.0, -4.0]] * 2)])).modes == 1


def test_a_line_and_a_circle_are_what_they_are_called() -> None:
    torch.manual_seed(0)
    line, circle = draw("line", 2000), draw("circle", 2000)
    assert line.shape == circle.shape == (2000, 2)
    assert (line[:, 1] - line[:, 0] / 2).std().item() == pytest.approx(0.056, abs=0.01)
    assert (circle.norm(dim=1) - 4).std().item() == pytest.approx(DEVIATION, abs=0.005)
    assert circle.mean(0).abs().max() < 0.25


# Training and its animation -------------------------------------------------------------------


def test_every_lesson_is_a_run_of_its_own_and_gets_a_row(run: GatedRun) -> None:
    first, second = run.metrics()
    assert (first["step"], second["step"]) == (6, 10)
    assert set(second) >= {"modes", "on_a_mode"} and "modes" not in first
    for shape, steps in (("line", 6), ("gaussians", 4)):
        assert (run.folder / shape / f"step-{steps:08d}.safetensors").is_file()


def test_a_resumed_playground_is_the_same_to_the_bit(
    tmp_path: Path, fabric: Fabric, run: GatedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, broken = started(tmp_path / "broken", fabric)
    kept = points._keep

    def dies(folder: Path, step: int, scene: Any) -> None:
        if folder.parent.name == "gaussians":
            raise KeyboardInterrupt
        kept(folder, step, scene)

    monkeypatch.setattr(points, "_keep", dies)
    with pytest.raises(KeyboardInterrupt):
        points.train(settings, None, broken, fabric)
    monkeypatch.setattr(points, "_keep", kept)
    settings, broken = started(tmp_path / "broken", fabric)
    points.train(settings, None, broken, fabric)
    assert broken.metrics() == run.metrics()
    last = "gaussians/step-00000004.safetensors"
    assert (broken.folder / last).read_bytes() == (run.folder / last).read_bytes()
    scene = "gaussians/scenes/step-00000004.safetensors"
    assert (broken.folder / scene).read_bytes() == (run.folder / scene).read_bytes()


def test_the_film_shows_every_lesson_in_its_order(run: GatedRun) -> None:
    frames = list(generators.film(run) or ())
    # Three scenes and two, each lesson with a second to look at its end.
    assert len(frames) == 3 + 2 + 2 * points.RATE
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert frames[-1].time == pytest.approx((len(frames) - 1) / points.RATE)
    assert {frame.pixels.shape for frame in frames} == {(560, 512, 3)}
    captions = [frame.pixels[:48] for frame in frames]
    assert not np.array_equal(captions[0], captions[-1])


def test_points_are_drawn_where_they_are() -> None:
    """A generated point in the top right, red; a real one in the bottom left, black."""
    real, made = torch.tensor([[-2.5, -2.5]]), torch.tensor([[2.5, 2.5]])
    drawn = picture("line", 3, real, made, torch.zeros(0, 2), torch.zeros(8, 8))
    plane = drawn[-512:].astype(int)
    assert plane[128, 384, 0] > plane[128, 384, 1] + 50
    assert plane[384, 128].max() < 100
    assert plane[256, 256].min() > 245


def test_a_place_that_looks_real_is_warm_and_one_that_looks_generated_cold() -> None:
    logits = torch.zeros(8, 8)
    logits[:, :3], logits[:, 5:] = -1.0, 1.0
    nobody = torch.full((1, 2), 9.0)
    drawn = picture("circle", 1, nobody, nobody, torch.zeros(0, 2), logits)[-512:].astype(int)
    assert drawn[256, 20, 2] > drawn[256, 20, 0] + 30  # blue
    assert drawn[256, 490, 0] > drawn[256, 490, 2] + 30  # orange


# Past the gate, and nothing else --------------------------------------------------------------


def test_it_needs_neither_data_nor_consent_and_says_so(run: GatedRun) -> None:
    recorded = json.loads((run.folder / "run.json").read_text())
    assert recorded["consent"] == NO_FACES
    assert run.permit.origin == "no faces" and not run.permit.records
    assert generators.open_run(run.folder).permit.faceless


def test_it_is_handed_no_photos(tmp_path: Path, fabric: Fabric) -> None:
    plugin, settings = generators.read_config("generators/points", TINY)
    with pytest.raises(FacekitError, match="points draws no faces and learns from no photos"):
        generators.start(plugin, settings, tmp_path, tmp_path / "run", fabric)
    with pytest.raises(FacekitError, match="leave --data and --consent away"):
        generators.start(plugin, settings, None, tmp_path / "run", fabric, consent=["c-1"])
    assert not (tmp_path / "run").exists()


def test_who_draws_faces_does_not_pass_without_data(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not if it is asked to, and not if it says of itself that it draws none."""
    plugin, settings = generators.read_config("generators/face_swap")
    with pytest.raises(
        FacekitError, match="face_swap learns from photos: give their folder with --data"
    ):
        generators.start(plugin, settings, None, tmp_path / "run", fabric)
    monkeypatch.setattr(generators.load("face_swap"), "FACES", False, raising=False)
    with pytest.raises(FacekitError, match="only points may go without data and consent"):
        generators.start(plugin, settings, None, tmp_path / "run", fabric)
    assert not (tmp_path / "run").exists()


def test_a_run_of_a_face_that_claims_to_draw_none_is_refused(tmp_path: Path, run: GatedRun) -> None:
    facts = json.loads((run.folder / "run.json").read_text()) | {"plugin": "face_swap"}
    files.write_json(tmp_path / "run.json", facts)
    with pytest.raises(FacekitError, match="face_swap draws faces, so it needs"):
        generators.open_run(tmp_path)


def test_a_permit_for_nobody_is_not_one_for_no_faces() -> None:
    with pytest.raises(FacekitError, match="neither"):
        _gate.Permit().check("generate")
    _gate.Permit(faceless=True).check("generate")


@pytest.mark.parametrize("name", sorted(DRAW_NO_FACES))
def test_what_draws_no_faces_reads_no_pictures(name: str) -> None:
    """It says so itself, and imports nothing that could show it a face or draw one."""
    module = generators.load(name)
    assert module.FACES is False
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    eyes = ("media", "faces", "datasets", "studio", "networks", "weights", "generators.face_swap")
    assert not [i for i in imported for eye in eyes if i.startswith(f"facekit.{eye}")]
    called = {node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call)
              and isinstance(node.func, ast.Attribute)}  # fmt: skip
    assert not called & {"imread", "imdecode", "read_bytes", "VideoCapture", "fromfile"}
