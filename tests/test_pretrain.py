"""Pre-training of the face swap: pairs of one performance, resume, bundle, start."""

from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from facekit.core import checkpoint, files, weights
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.generators import face_swap

PEOPLE, MOMENTS = 4, 4


@pytest.fixture
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def tiny(**changes: object) -> face_swap.Config:
    values = {"size": 32, "width": 4, "code": 8, "steps": 8, "batch": 4, "checkpoint_every": 4}
    return face_swap.Config(**{**values, "warm_up": 1, **changes})


def a_run(folder: Path, settings: face_swap.Config) -> Run:
    return Run.start(
        folder,
        plugin="face_swap",
        config=settings,
        seed=3,
        data_hash="drawn",
        threads=1,
        precision="32-true",
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """A grid in which person p is the place of a bar across, and moment m its height."""
    grid = torch.zeros(PEOPLE, MOMENTS, 64, 64, 4, dtype=torch.uint8)
    for p in range(PEOPLE):
        for m in range(MOMENTS):
            grid[p, m, ..., :3] = 60
            grid[p, m, 10 + 12 * m : 16 + 12 * m, 4 + 12 * p : 20 + 12 * p] = 250
    grid = grid.flatten(0, 1)
    monkeypatch.setattr(face_swap, "_studio_grid", lambda *_: grid)
    return grid


def test_it_resumes_to_the_same_bits(drawn: torch.Tensor, tmp_path: Path, fabric: Fabric) -> None:
    whole, broken = a_run(tmp_path / "a", tiny()), a_run(tmp_path / "b", tiny())
    face_swap.pretrain(tiny(), whole, fabric, PEOPLE, MOMENTS)
    face_swap.pretrain(tiny(), broken, fabric, PEOPLE, MOMENTS)
    (broken.folder / "step-00000008.safetensors").unlink()  # as if it had been cut off at 7
    face_swap.pretrain(tiny(), Run(broken.folder), fabric, PEOPLE, MOMENTS)
    ends = [(run.folder / "step-00000008.safetensors").read_bytes() for run in (whole, broken)]
    assert ends[0] == ends[1]


def test_it_learns_who_and_when(drawn: torch.Tensor, tmp_path: Path, fabric: Fabric) -> None:
    settings = tiny(width=8, code=16, steps=150, batch=8, learning_rate=5e-3)
    run = a_run(tmp_path / "run", settings)
    face_swap.pretrain(settings, run, fabric, PEOPLE, MOMENTS)
    losses = [row["loss"] for row in run.metrics()]
    assert max(losses[-3:]) < 0.75 * losses[0]


def test_a_training_starts_from_its_weights(
    drawn: torch.Tensor, tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path / "run", tiny())
    face_swap.pretrain(tiny(), run, fabric, PEOPLE, MOMENTS)
    path = face_swap.bundle(run, tmp_path / "weights", "tiny")
    card = dict.fromkeys(weights.KEYS, "") | {"name": "tiny", "file": path.name}
    files.write_json(path.with_suffix(".json"), card | {"sha256": files.sha256(path)})
    monkeypatch.setattr(face_swap, "WEIGHTS", tmp_path / "weights")

    net = face_swap.FaceSwap(2, 32, 4, 8)
    face_swap.start_from(net, "tiny")
    given = checkpoint.load(path)["net"]
    first, second = (decoder.state_dict() for decoder in net.decoders)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(first["person"], given["decoders.0.person"].float())
    encoder = net.encoder.state_dict()
    assert all(torch.equal(encoder[key], given[f"encoder.{key}"].float()) for key in encoder)

    with pytest.raises(FacekitError, match="of another width"):
        face_swap.start_from(face_swap.FaceSwap(2, 32, 8, 8), "tiny")
    with pytest.raises(FacekitError, match="did you mean 'tiny'"):
        face_swap.start_from(net, "tinny")


def test_whoever_does_not_fit_into_fours_is_refused(tmp_path: Path, fabric: Fabric) -> None:
    with pytest.raises(FacekitError, match="--people 6: give a multiple of 4"):
        face_swap.pretrain(tiny(), a_run(tmp_path / "run", tiny()), fabric, 6, 2)


def test_the_studio_grid_lets_four_people_give_the_same_performances(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", tiny())
    grid = face_swap._studio_grid(run, 5, 2, 64, torch.device("cpu"))
    assert grid.shape == (10, 64, 64, 4) and grid.dtype == torch.uint8
    kept = face_swap._studio_grid(run, 5, 2, 64, torch.device("cpu"))
    assert torch.equal(grid, kept)
    # Two people in one light and pose are more alike than one person in two; the fifth is alone.
    a0, a1, b0, _b1, *_, e0, _ = grid[..., :3].float()
    assert (a0 - b0).abs().mean() < (a0 - a1).abs().mean()
    assert (a0 - b0).abs().mean() < (a0 - e0).abs().mean()
    middle, corner = grid[:, 24:40, 24:40, 3].float().mean(), grid[:, :4, :4, 3].float().mean()
    assert middle > 200 and corner < 20
