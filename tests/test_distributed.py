"""Two processes play the game that one would; more of them than there is room for are refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from facekit.core import checkpoint, device
from facekit.core.errors import FacekitError

PROGRAM = """
import sys
from pathlib import Path

from facekit.core import device

device.default_threads = lambda: 2
fabric = device.setup("cpu", threads=1, count=int(sys.argv[1]))

from facekit import generators

plugin, settings = generators.read_config("generators/points", [
    "lessons=[{shape: circle, steps: 40}]", "width=16", "game.batch=32", "game.look_every=10",
    "game.look_samples=64", "game.checkpoint_every=20", "game.strip_every=40",
    "game.alone_discriminator=5", "game.alone_generator=5",
    # Gently: at the playground's own rate rounding grows a hundredfold within 40 steps.
    "game.learning_rate=5e-4", "game.learning_rate_end=5e-4",
])
run = generators.start(plugin, settings, None, Path(sys.argv[2]), fabric)
generators.load(plugin).train(settings, None, run, fabric)
print("done by", fabric.world_size)
"""


def curve(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "circle" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_two_processes_draw_the_curve_that_one_does(tmp_path: Path) -> None:
    program = tmp_path / "train.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for count in (1, 2):
        out = subprocess.run(
            [sys.executable, str(program), str(count), str(tmp_path / str(count))],
            env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert out.returncode == 0, out.stderr
        # The second process says nothing.
        assert out.stdout.splitlines() == [f"done by {count}"]
    one, two = (curve(tmp_path / count) for count in "12")
    assert [row["step"] for row in two] == [10, 20, 30, 40]
    for a, b in zip(one, two, strict=True):
        for name in ("loss_d", "loss_g", "r1", "r2", "sure", "pair_accuracy", "spread"):
            assert b[name] == pytest.approx(a[name], rel=2e-3, abs=2e-3), name
    # Sums in another order: the weights are the same but for rounding.
    states = [
        checkpoint.load(tmp_path / count / "circle" / "step-00000040.safetensors") for count in "12"
    ]
    for net in ("generator", "discriminator", "ema"):
        for name, weight in states[0]["players"][net].items():
            assert torch.allclose(weight, states[1]["players"][net][name], atol=1e-3), name
    assert json.loads((tmp_path / "2" / "run.json").read_text())["devices"] == 2


def test_more_devices_than_there_are_is_an_error_that_says_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "default_threads", lambda: 2)
    with pytest.raises(FacekitError, match=r"--devices 3: 1 to 2 can be used here \(2 processor"):
        device.setup("cpu", count=3)
    with pytest.raises(FacekitError, match="--devices 0"):
        device.setup("cpu", count=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(FacekitError, match=r"--devices 2: 1 to 1 can be used here \(1 CUDA"):
        device.setup("cuda", count=2)


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "default_threads", lambda: 4)
    for count, threads in ((1, 4), (2, 2), (3, 1), (4, 1)):
        device.resolve("cpu", count=count)
        assert torch.get_num_threads() == threads
    device.resolve("cpu", threads=3, count=4)
    assert torch.get_num_threads() == 3
