"""The swap's bench: the original's size, arms that go on, figures that add up."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from facekit.commands import bench_swap
from facekit.commands.bench import command
from facekit.core.device import setup
from facekit.core.errors import FacekitError
from facekit.core.figures import with_goals
from facekit.core.files import read_json, write_json
from facekit.datasets.crops import Crops
from facekit.generators import _bench, _original, _swap_arm, _swap_bench
from facekit.generators._arm import DONE, PLAN
from facekit.generators._original import Original, train, warped
from facekit.generators._peers import parameters
from facekit.generators._swap_arm import ORIGINAL, OWN, Plan
from facekit.types import Frame, Item


def plan(**changes: Any) -> Plan:
    given: dict[str, Any] = {
        "minutes": 1.0,
        "threads": 1,
        "device": "cpu",
        "precision": "32",
        "seed": 0,
        "size": 32,
        "pair": 9107,
        "photos": 4,
        "clips": 1,
        "frames": 2,
        "seconds": 0.1,
        "width": 4,
        "steps": 2,
    }
    return Plan(**given | changes)


def test_the_original_has_its_82_million_parameters() -> None:
    with torch.device("meta"):
        net = Original(2)
    assert parameters(net) == 82_062_470
    assert parameters(net.encoder) + 2 * parameters(net.decoders[0]) == parameters(net)


@pytest.mark.parametrize("size", [32, 64])
def test_the_original_draws_each_person(size: int) -> None:
    torch.manual_seed(0)
    net = Original(2, size, 4)
    images = torch.rand(3, 3, size, size) * 2 - 1
    first, second = net(images, 0), net(images, 1)
    assert first.shape == images.shape and first.abs().max() <= 1
    assert not torch.equal(first, second)


def test_warps_are_of_one_view() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(-1, 1, 64).expand(4, 3, 64, 64)
    inputs, targets = warped(ramp, 32)
    assert inputs.shape == targets.shape == (4, 3, 32, 32)
    apart = (inputs - targets).abs()
    assert 0 < apart.mean() < 0.2


def crops() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randint(0, 256, (6, 64, 64, 3), dtype=torch.uint8)


ROWS = [[0, 1, 2], [3, 4, 5]]


def test_the_original_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    fabric = setup("cpu", threads=1)

    def trained(folder: str, most: int) -> tuple[Original, int]:
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        torch.manual_seed(0)
        net = Original(2, 32, 4)
        steps, seconds = train(
            *(net, crops(), ROWS, 32, path, fabric), seconds=100, seed=3, most=most, batch=4
        )
        assert seconds > 0
        return net, steps

    whole, _ = trained("whole", 3)
    assert trained("parts", 1)[1] == 1
    parts, steps = trained("parts", 3)
    assert steps == 3
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    with pytest.raises(FacekitError, match="another network"):
        train(*(Original(2, 32, 8), crops(), ROWS, 32, tmp_path / "whole", fabric), seconds=1,
              seed=3)  # fmt: skip


def test_it_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bright person's decoder draws brighter, a dark one's darker."""
    monkeypatch.setattr(_original, "_RATE", 1e-3)
    fabric = setup("cpu", threads=1)
    images = torch.empty(4, 64, 64, 3, dtype=torch.uint8)
    images[:2], images[2:] = 200, 60
    torch.manual_seed(0)
    net = Original(2, 32, 8)
    train(*(net, images, [[0, 1], [2, 3]], 32, tmp_path, fabric), seconds=60, seed=0, most=25,
          batch=4)  # fmt: skip
    bright, dark = (net(torch.zeros(1, 3, 32, 32), person).mean().item() for person in (0, 1))
    assert bright > dark + 0.1


def test_the_originals_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it trained is scored by the true answer, once, and its facts are kept."""
    items = [Item(path=f"{i}.png", sha256="", subject="ab"[i // 3]) for i in range(6)]
    found = Crops(crops().numpy(), np.zeros((6, 2, 3)), items)
    monkeypatch.setattr(_swap_arm, "load_crops", lambda *_, **__: found)
    scored: dict[str, Any] = {"psnr": 20.0, "ssim": 0.5, "strength": 1.0, "low": 19.0,
                              "high": 21.0, "copy": 18.0, "pasted": 30.0}  # fmt: skip
    monkeypatch.setattr(_swap_arm, "_psnr", lambda *_: scored)
    write_json(tmp_path / PLAN, plan().model_dump(mode="json"))
    _swap_arm.run_arm(ORIGINAL, tmp_path)
    facts = read_json(tmp_path / ORIGINAL / DONE)
    assert facts["steps"] == 2 and facts["images"] == 128 and facts["psnr"] == 20
    assert facts["images_per_s"] == pytest.approx(128 / (60 * facts["minutes"]))


def test_figures_of_arms_that_are_done(tmp_path: Path) -> None:
    common = {"steps": 10, "images": 640, "minutes": 1.0, "low": 20.0, "high": 24.0,
              "copy": 19.0, "pasted": 35.0}  # fmt: skip
    arms = {
        OWN: common | {"images_per_s": 60.0, "parameters": 4_000_000, "psnr": 23.0},
        ORIGINAL: common | {"images_per_s": 20.0, "parameters": 82_062_470, "psnr": 21.5},
    }
    for name, facts in arms.items():
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / DONE, facts)
    rows = {row.name: row for row in with_goals(_swap_bench.compare(tmp_path))}
    assert rows["swap.train_ratio"].value == 3 and rows["swap.train_ratio"].holds
    assert rows["swap.train_psnr"].peer == 21.5 and rows["swap.train_psnr"].floor == 19
    assert rows["swap.train_psnr_over_original"].value == 1.5
    assert rows["swap.parameters.original"].value == 82_062_470


def test_a_bench_goes_on_under_its_own_conditions(tmp_path: Path) -> None:
    _bench.keep(plan(), tmp_path)
    _bench.keep(plan(), tmp_path)
    with pytest.raises(FacekitError, match="another photos"):
        _bench.keep(plan(photos=5), tmp_path)


def test_an_arm_is_a_process_and_fails_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []

    def fails(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(FacekitError, match="the arm 'own' failed"):
        _bench.train_arm(OWN, tmp_path, _swap_bench.MODULE)
    assert _swap_bench.MODULE in commands[0] and str(tmp_path) in commands[0]
    (tmp_path / OWN).mkdir()
    write_json(tmp_path / OWN / DONE, {})
    _bench.train_arm(OWN, tmp_path, _swap_bench.MODULE)
    assert len(commands) == 1, "what is done is not done again"


def test_frames_become_720p() -> None:
    square = np.arange(720 * 720 * 3, dtype=np.uint32).reshape(720, 720, 3).astype(np.uint8)
    wide = bench_swap.widened(Frame(square, 0.5, 3))
    assert wide.pixels.shape == (720, 1280, 3) and (wide.time, wide.index) == (0.5, 3)
    assert np.array_equal(wide.pixels[:, 280:1000], square)


def test_the_command_hands_it_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def bench(**arguments: Any) -> list[Any]:
        given.update(arguments)
        return []

    monkeypatch.setattr(bench_swap, "bench", bench)
    out = tmp_path / "bench"
    result = CliRunner().invoke(command, ["swap", "--minutes", "2", "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    assert given == {"quick": False, "minutes": 2.0, "out": out, "where": "auto"}


def test_trainings_come_first_then_the_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(**arguments: Any) -> list[Any]:
        write_json(tmp_path / PLAN, plan().model_dump(mode="json"))
        return []

    def converted(arm: str, out: Path, module: str) -> None:
        assert (arm, module) == ("conversion", "facekit.commands.bench_swap")
        facts = {"frames": 9, "fps": 9.0, "fps_by_the_clock": 4.0, "peak_gib": 1.2}
        (out / arm).mkdir()
        write_json(out / arm / DONE, facts)

    monkeypatch.setattr(_swap_bench, "bench", trained)
    monkeypatch.setattr(_bench, "train_arm", converted)
    monkeypatch.setattr("facekit.studio.clip.render_clip", lambda out, **_: out.mkdir())
    found = bench_swap.bench(quick=True, minutes=1, out=tmp_path, where="cpu")
    rows = {row.name: row for row in with_goals(found)}
    assert rows["swap.fps"].holds and rows["swap.fps.clock"].value == 4
    assert rows["swap.peak_gib"].value == 1.2


def test_a_step_costs_what_it_costs_between_strips() -> None:
    """Neither the start, which locates faces, nor the session that resumed at step 30 counts."""
    times = [[10.0, 105.0], [20.0, 110.0], [30.0, 115.0], [40.0, 190.0], [50.0, 195.0]]
    assert _swap_arm._step_seconds(times) == 0.5
    assert _swap_arm._step_seconds([[4.0, 8.0]]) == 2


def test_as_many_steps_as_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute of two threads, of which locating takes 20 s: 200 steps of half a second."""
    times = [[float(step), 20 + 0.5 * step] for step in range(1, 13)]
    monkeypatch.setattr(_swap_arm, "_trained", lambda *_: times)
    fabric = setup("cpu", threads=1)
    found = _swap_arm._affordable(plan(threads=2, steps=None), tmp_path, fabric)
    assert found == {"steps": 200}
    assert _swap_arm._affordable(plan(steps=7), tmp_path, fabric) == {"steps": 7}
