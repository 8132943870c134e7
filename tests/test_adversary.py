"""The adversarial objective against hand-computed values and autograd; augmentation; the loop."""

import errno
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from facekit.adversary import loop
from facekit.adversary.augment import MOST, adapt, augment
from facekit.adversary.loop import Game, Pictures, play
from facekit.adversary.monitor import Alarm, Look, Ruling
from facekit.adversary.objective import OBJECTIVES, discriminator_loss, generator_loss
from facekit.core import checkpoint, device
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.networks.discriminator import Discriminator


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_losses_of_a_linear_discriminator_are_those_worked_out_by_hand() -> None:
    slope = torch.tensor([3.0, -4.0])

    def judge(images: torch.Tensor) -> torch.Tensor:
        return images @ slope

    real, fake = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    # D(real) = 3, -4; D(fake) = 0, -1; D(real) - D(fake) = 3, -3.
    loss = discriminator_loss(judge, real, fake, gamma=0.2)
    assert loss.pairing.item() == pytest.approx((softplus(-3) + softplus(3)) / 2)
    # The gradient is (3, -4) everywhere, its square 25: γ/2 · 25 for each penalty.
    assert loss.r1.item() == pytest.approx(2.5)
    assert loss.r2.item() == pytest.approx(2.5)
    assert loss.total.item() == pytest.approx(5 + loss.pairing.item())
    assert generator_loss(judge, real, fake).item() == pytest.approx(
        (softplus(3) + softplus(-3)) / 2
    )


def test_the_other_objectives_are_those_of_their_papers() -> None:
    def judge(points: Tensor) -> Tensor:
        return points[:, 0]

    real, fake = torch.tensor([[2.0], [0.5]]), torch.tensor([[-3.0], [0.0]])
    loss = discriminator_loss(judge, real, fake, 0.0, "non_saturating")
    worked_out = (softplus(-2) + softplus(-0.5)) / 2 + (softplus(-3) + softplus(0)) / 2
    assert loss.pairing.item() == pytest.approx(worked_out)
    assert generator_loss(judge, real, fake, "non_saturating").item() == pytest.approx(
        (softplus(3) + softplus(0)) / 2
    )
    # max(0, 1 - 2) = 0 and 0.5; max(0, 1 - 3) = 0 and 1.
    loss = discriminator_loss(judge, real, fake, 0.0, "hinge")
    assert loss.pairing.item() == pytest.approx(0.25 + 0.5)
    assert generator_loss(judge, real, fake, "hinge").item() == pytest.approx(1.5)
    assert loss.real_logits.tolist() == [2.0, 0.5]
    assert loss.fake_logits.tolist() == [-3.0, 0.0]
    assert not loss.real_logits.requires_grad


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_downhill_makes_either_player_better(objective: Any) -> None:
    """Whatever the objective: D parts real from fake, and G moves to where D says "real"."""
    slope = torch.tensor([0.5], requires_grad=True)
    place = torch.tensor([[-1.0]], requires_grad=True)
    real = torch.tensor([[1.0]])

    def judge(points: Tensor) -> Tensor:
        return points @ slope

    discriminator_loss(judge, real, place, 0.0, objective).total.backward()
    assert slope.grad is not None and slope.grad.item() < 0  # steeper, to tell them further apart
    generator_loss(judge, real, place, objective).backward()
    assert place.grad is not None and place.grad.item() < 0  # to the right, where the real one is


def test_an_unknown_objective_is_named() -> None:
    x = torch.zeros(2, 1)
    for lose in (generator_loss, lambda *a: discriminator_loss(*a[:3], 0.0, a[3])):
        with pytest.raises(ValueError, match="no objective 'wgan'; allowed: relativistic"):
            lose(lambda points: points[:, 0], x, x, "wgan")


def test_penalties_agree_with_gradients_taken_image_by_image() -> None:
    torch.manual_seed(0)
    judge = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1), nn.Flatten(0))
    real, fake = torch.randn(4, 5), torch.randn(4, 5)
    loss = discriminator_loss(judge, real, fake, gamma=3.0)
    for images, penalty in ((real, loss.r1), (fake, loss.r2)):
        jacobian = torch.autograd.functional.jacobian(judge, images)
        own = jacobian[torch.arange(4), torch.arange(4)]
        assert penalty.item() == pytest.approx(1.5 * (own**2).sum(1).mean().item(), rel=1e-5)


def test_the_penalty_itself_has_a_gradient_and_the_fakes_path_is_cut() -> None:
    judge = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1), nn.Flatten(0))
    source = torch.ones(4, 2, requires_grad=True)
    discriminator_loss(judge, torch.randn(4, 2), source * 2, gamma=1.0).r2.backward()
    assert source.grad is None
    assert all(p.grad is not None for p in judge[0].parameters())


def test_losses_stay_float32_under_autocast() -> None:
    judge = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    with torch.autocast("cpu", torch.bfloat16):
        loss = discriminator_loss(judge, torch.randn(3, 4), torch.randn(3, 4), gamma=1.0)
    assert loss.r1.dtype == loss.pairing.dtype == torch.float32


def test_equal_images_give_the_balance_point() -> None:
    judge = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    x = torch.randn(8, 2)
    assert generator_loss(judge, x, x).item() == pytest.approx(math.log(2))
    assert discriminator_loss(judge, x, x, gamma=0.0).total.item() == pytest.approx(math.log(2))


def test_the_game_moves_noise_onto_two_separate_blobs() -> None:
    """A toy in two dimensions: both blobs must be found, neither dropped."""
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 2))
    judge = nn.Sequential(
        nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2),
        nn.Linear(32, 1), nn.Flatten(0),
    )  # fmt: skip
    play = torch.optim.Adam(generator.parameters(), 2e-3, betas=(0.0, 0.99))
    judging = torch.optim.Adam(judge.parameters(), 2e-3, betas=(0.0, 0.99))

    def real(count: int) -> torch.Tensor:
        side = torch.randint(0, 2, (count, 1)) * 2.0 - 1
        return torch.cat([side, torch.zeros(count, 1)], 1) + 0.1 * torch.randn(count, 2)

    for _ in range(500):
        judging.zero_grad()
        fake = generator(torch.randn(64, 2))
        discriminator_loss(judge, real(64), fake, gamma=0.1).total.backward()
        judging.step()
        play.zero_grad()
        generator_loss(judge, real(64), generator(torch.randn(64, 2))).backward()
        play.step()
    made = generator(torch.randn(1000, 2)).detach()
    near = [((made - torch.tensor([x, 0.0])).norm(dim=1) < 0.4).float().mean() for x in (-1.0, 1.0)]
    assert min(near) > 0.3
    assert sum(near) > 0.8


@pytest.mark.parametrize("size", [8, 32, 64])
def test_every_parameter_of_the_discriminator_gets_a_gradient(size: int) -> None:
    torch.manual_seed(0)
    net = Discriminator(size, width=4)
    logits = net(torch.randn(2, 3, size, size))
    assert logits.shape == (2,)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_the_discriminator_gives_a_logit_a_label_and_refuses_odd_sizes() -> None:
    assert Discriminator(16, width=4, outputs=3)(torch.zeros(2, 3, 16, 16)).shape == (2, 3)
    assert Discriminator(48, width=4)(torch.zeros(2, 3, 48, 48)).shape == (2,)
    for size in (4, 50):
        with pytest.raises(ValueError, match="power of two"):
            Discriminator(size)


# Augmentation ---------------------------------------------------------------------------------


def ramps(count: int, size: int = 16) -> Tensor:
    """Images that differ in every pixel: float64 (count, 3, S, S) in [-1, 1]."""
    torch.manual_seed(1)
    return torch.rand(count, 3, size, size, dtype=torch.float64) * 2 - 1


def test_augmentation_changes_as_many_images_as_it_is_told_to() -> None:
    images = ramps(400, 8)
    assert augment(images, 0.0) is images
    torch.manual_seed(0)
    for p in (0.1, 0.5):
        unchanged = torch.isclose(augment(images, p), images).flatten(1).all(1)
        same = unchanged.double().mean().item()
        # A coin of p / 2 for the mirror; one of p each for three colours, shift and cut-out. One
        # shift in nine goes nowhere; a cut-out always hides something.
        expected = (1 - p / 2) * (1 - p) ** 4 * (1 - p * 8 / 9)
        assert same == pytest.approx(expected, abs=0.08)


def test_an_image_is_augmented_by_itself_and_r1_can_go_through_it() -> None:
    images = ramps(3, 8).requires_grad_()
    torch.manual_seed(5)
    out = augment(images, 0.8)
    (gradient,) = torch.autograd.grad(out[1].square().sum(), images, create_graph=True)
    assert gradient[1].abs().sum() > 0
    assert gradient[0].abs().sum() == gradient[2].abs().sum() == 0

    def again(x: Tensor) -> Tensor:
        torch.manual_seed(5)
        return augment(x, 0.8).pow(3)

    small = ramps(1, 4).requires_grad_()
    assert torch.autograd.gradcheck(again, small)
    assert torch.autograd.gradgradcheck(again, small)


def test_augmented_alike_if_the_random_state_is_the_same() -> None:
    images = ramps(8)
    torch.manual_seed(3)
    first = augment(images, 0.7)
    second = augment(images, 0.7)
    torch.manual_seed(3)
    assert torch.equal(augment(images, 0.7), first)
    assert not torch.equal(second, first)


def test_the_controller_goes_up_while_the_discriminator_is_too_sure_and_stays_in_its_bounds() -> (
    None
):
    assert adapt(0.1, 0.9, 50_000) == pytest.approx(0.2)
    assert adapt(0.1, 0.5, 25_000) == pytest.approx(0.05)
    assert adapt(0.0, 0.0, 10**9) == 0.0
    assert adapt(0.5, 1.0, 10**9) == MOST
    assert adapt(0.0, 0.3, 100, target=0.2, span=1000) == pytest.approx(0.1)


# The loop -------------------------------------------------------------------------------------


class Generator(nn.Sequential):
    latent = 3


class Numbers:
    """Real points, float32 (N, 2); it can be told to break at its n-th batch."""

    def __init__(self, points: Tensor) -> None:
        self.points = points
        self.batches = 0
        self.fails_at = self.spoiled_at = -1

    def __len__(self) -> int:
        return len(self.points)

    def batch(self, indices: Tensor, device: torch.device) -> Tensor:
        self.batches += 1
        if self.batches == self.fails_at:
            raise KeyboardInterrupt
        return self.points[indices] * (math.nan if self.batches == self.spoiled_at else 1)


BATCHES_BEFORE = 4
"""The first step's batch is this one: the referee's gallery has taken reals twice, as none are held
out, and the search for copies once."""


def blobs(count: int = 200) -> Numbers:
    torch.manual_seed(7)
    side = torch.randint(0, 2, (count, 1)) * 2.0 - 1
    return Numbers(torch.cat([side, torch.zeros(count, 1)], 1) + 0.1 * torch.randn(count, 2))


def nets(width: int = 8) -> tuple[Generator, nn.Sequential]:
    torch.manual_seed(11)
    generator = Generator(nn.Linear(3, width), nn.LeakyReLU(0.2), nn.Linear(width, 2))
    judge = nn.Sequential(
        nn.Linear(2, width), nn.LeakyReLU(0.2), nn.Linear(width, 1), nn.Flatten(0)
    )
    return generator, judge


def a_game(**changes: Any) -> Game:
    values = {"steps": 13, "batch": 16, "alone_discriminator": 2, "alone_generator": 1}
    values |= {"look_every": 4, "look_samples": 32, "checkpoint_every": 3, "strip_every": 5}
    return Game(**{**values, "ema": 100, **changes})


def a_run(folder: Path, game: Game) -> Run:
    return Run.start(
        folder,
        plugin="toy",
        config=game,
        seed=3,
        data_hash="blobs",
        threads=1,
        precision="32-true",
    )


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return device.setup("cpu", threads=1)


def flat(points: Tensor) -> Tensor:
    return points


def played(folder: Path, game: Game, fabric: Fabric, reals: Any = None, **more: Any) -> nn.Module:
    reals = blobs() if reals is None else reals
    return play(game, *nets(), reals, a_run(folder, game), fabric, features=flat, **more)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics without what the clock says."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if "second" not in k} for x in lines]


@pytest.mark.parametrize("killed_at", range(1, 14))
def test_a_game_killed_at_any_step_resumes_to_the_same_bits(
    tmp_path: Path, fabric: Fabric, killed_at: int
) -> None:
    """Looks, checkpoints and the solos fall on different steps."""
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    played(unbroken, a_game(), fabric)
    dying = blobs()
    dying.fails_at = BATCHES_BEFORE - 1 + killed_at
    with pytest.raises(KeyboardInterrupt):
        played(broken, a_game(), fabric, dying)
    # It was this step that it died in: the checkpoints before it are there, and no others.
    steps = [int(path.stem[5:]) for path in sorted(broken.glob("step-*"))]
    assert steps == [step for step in (3, 6, 9, 12) if step < killed_at][-2:]
    played(broken, a_game(), fabric)
    last = "step-00000013.safetensors"
    assert (broken / last).read_bytes() == (unbroken / last).read_bytes()
    assert rows(broken) == rows(unbroken)


def test_a_finished_game_hands_back_its_average_and_learns_no_more(
    tmp_path: Path, fabric: Fabric
) -> None:
    first = played(tmp_path, a_game(), fabric)
    before = sorted(tmp_path.iterdir())
    again = played(tmp_path, a_game(), fabric)
    assert sorted(tmp_path.iterdir()) == before
    for mine, yours in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, yours)
    assert not any(weight.requires_grad for weight in again.parameters())


def test_players_learn_alone_first_and_the_average_follows(tmp_path: Path, fabric: Fabric) -> None:
    """Two steps of D alone, one of G alone, then one of both."""
    start_g, start_d = (
        [w.detach().clone() for w in net.parameters()] for net in nets()
    )  # fmt: skip

    def after(steps: int) -> dict[str, Any]:
        game = a_game(steps=4, checkpoint_every=1, look_every=1, referee=False)
        folder = tmp_path / str(steps)
        reals = blobs()
        reals.fails_at = BATCHES_BEFORE + steps
        with pytest.raises(KeyboardInterrupt):
            played(folder, game, fabric, reals)
        state = checkpoint.load(folder / f"step-{steps:08d}.safetensors")["players"]
        return {name: list(part.values()) for name, part in state.items() if "opt" not in name}

    second, third = after(2), after(3)
    same = [torch.equal(a, b) for a, b in zip(second["generator"], start_g, strict=True)]
    assert all(same)
    assert not torch.equal(second["discriminator"][0], start_d[0])
    assert torch.equal(third["discriminator"][0], second["discriminator"][0])
    assert not torch.equal(third["generator"][0], second["generator"][0])
    # 48 images were shown: the half-life is a twentieth of them, 2.4 images; a step has 16.
    keep = 0.5 ** (16 / 2.4)
    expected = keep * start_g[0] + (1 - keep) * third["generator"][0]
    assert torch.allclose(third["ema"][0], expected, atol=1e-6)


def test_a_loss_that_is_no_number_stops_the_game_at_its_step(
    tmp_path: Path, fabric: Fabric
) -> None:
    reals = blobs()
    reals.spoiled_at = BATCHES_BEFORE - 1 + 8
    with pytest.raises(
        FacekitError, match=r"no number at step 8; the checkpoint before it is kept"
    ):
        played(tmp_path, a_game(), fabric, reals)
    kept = sorted(tmp_path.glob("step-*"))
    assert [path.stem for path in kept] == ["step-00000003", "step-00000006"]
    assert all(
        weight.isfinite().all()
        for weight in checkpoint.load(kept[-1])["players"]["generator"].values()
    )


def test_a_disk_that_is_full_in_mid_checkpoint_keeps_the_one_before(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = checkpoint.save_file

    def full(tensors: Any, path: Path, **more: Any) -> None:
        if "00000006" in Path(path).name:
            Path(path).write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        whole(tensors, path, **more)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(FacekitError, match=r"step-00000006.*cannot be written \(No space left"):
        played(tmp_path / "full", a_game(), fabric)
    names = sorted(path.name for path in (tmp_path / "full").iterdir())
    assert names == ["metrics.jsonl", "run.json", "step-00000003.safetensors"]
    monkeypatch.setattr(checkpoint, "save_file", whole)
    played(tmp_path / "full", a_game(), fabric)
    played(tmp_path / "unbroken", a_game(), fabric)
    last = "step-00000013.safetensors"
    assert (tmp_path / "full" / last).read_bytes() == (tmp_path / "unbroken" / last).read_bytes()


def test_too_few_real_samples_and_other_networks_are_refused(
    tmp_path: Path, fabric: Fabric
) -> None:
    with pytest.raises(FacekitError, match="3 real samples; a game needs at least 100"):
        played(tmp_path / "few", a_game(), fabric, blobs(3))
    game = a_game()
    played(tmp_path / "run", game, fabric)
    with pytest.raises(FacekitError, match="of another architecture, or of another version"):
        run = a_run(tmp_path / "run", game)
        play(game, *nets(width=9), blobs(), run, fabric, features=flat)


def test_a_strip_is_always_of_the_same_noise(tmp_path: Path, fabric: Fabric) -> None:
    shown: list[tuple[int, int]] = []
    game = a_game(strip_samples=7, learning_rate=1e-12, learning_rate_end=1e-12)
    drawn: list[Tensor] = []

    def draw(samples: Tensor) -> int:
        drawn.append(samples)
        return len(samples)

    played(tmp_path, game, fabric, show=lambda step, strip: shown.append((step, strip)), draw=draw)
    assert shown == [(5, 7), (10, 7), (13, 7)]
    assert torch.allclose(drawn[0], drawn[-1], atol=1e-6)


def test_augmentation_follows_its_schedule_or_its_controller(
    tmp_path: Path, fabric: Fabric
) -> None:
    torch.manual_seed(0)
    pictures = Pictures(torch.randint(0, 256, (120, 8, 8, 3), dtype=torch.uint8))

    class Painter(nn.Sequential):
        latent = 4

    def odds(folder: str, **changes: Any) -> list[float]:
        torch.manual_seed(0)
        painter = Painter(nn.Linear(4, 192), nn.Unflatten(1, (3, 8, 8)), nn.Tanh())
        game = a_game(steps=8, look_every=2, **changes)
        run = a_run(tmp_path / folder, game)
        play(
            *(game, painter, Discriminator(8, width=4), pictures, run, fabric),
            features=lambda images: images.flatten(1),
        )
        return [row["augment_p"] for row in rows(tmp_path / folder)]

    assert odds("none") == [0.0] * 4
    fixed = odds("fixed", augment="fixed", augment_p=0.4)
    assert fixed == sorted(fixed) and 0 < fixed[0] < 0.1 and 0.35 < fixed[-1] < 0.4
    # Each look moves it by 32 images of 100, up or down.
    adaptive = odds("adaptive", augment="adaptive", augment_span=100, learning_rate=1e-2)
    assert set(np.round(np.abs(np.diff(adaptive)), 2)) <= {0.0, 0.32, 0.16}


def test_pictures_are_scaled_to_what_networks_take() -> None:
    pixels = torch.tensor([[[[0, 51, 255]]], [[[255, 0, 102]]]], dtype=torch.uint8)
    batch = Pictures(pixels).batch(torch.tensor([1, 0, 1]), torch.device("cpu"))
    assert batch.shape == (3, 3, 1, 1)
    assert batch[1, :, 0, 0].tolist() == pytest.approx([-1.0, -0.6, 1.0])
    assert torch.equal(batch[0], batch[2])


# The loop obeys its referee -------------------------------------------------------------------


class Whistle:
    """A referee that raises the alarms that it was given, by step; calls all else good."""

    alarms: dict[int, Alarm] = {}  # noqa: RUF012 - set anew by each test

    def start(self, reals: Tensor, held_out: Tensor, copies: float) -> tuple[str, ...]:
        assert reals.shape[1] == held_out.shape[1] == 2 and 0 <= copies <= 1
        return ()

    def look(self, look: Look) -> Ruling:
        assert look.real.shape == look.fake.shape == (32,)
        assert look.reals.shape == look.fakes.shape == (32, 2)
        alarm = self.alarms.get(look.step)
        return Ruling({"seen": float(look.step)}, "all is well", (), alarm, alarm is None)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def test_on_alarm_the_game_is_rolled_back_and_eased(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarm = Alarm("winning", "the discriminator is winning", gamma_factor=4.0, rate_d=0.5)
    monkeypatch.setattr(Whistle, "alarms", {8: alarm})
    monkeypatch.setattr(loop, "Referee", Whistle)
    game = a_game(steps=9, checkpoint_every=4, gamma=0.5, gamma_end=0.5)
    played(tmp_path, game, fabric)
    rolled, good = (
        (checkpoint.load(tmp_path / f"step-0000000{n}.safetensors") for n in (8, 4))
        if (tmp_path / "step-00000004.safetensors").exists()
        else (checkpoint.load(tmp_path / "step-00000008.safetensors"), None)
    )
    for name in ("generator", "ema", "discriminator"):
        for key, value in rolled["players"][name].items():
            assert torch.equal(value, rolled["good"][name][key])
            if good:
                assert torch.equal(value, good["players"][name][key])
    assert rolled["players"]["optimizer_d"]["state"] == {}
    assert rolled["relief"] == {"gamma": 2.0, "augment": 0.0, "rate_d": 0.5, "rate_g": 1.0}
    *_, before, after = rows(tmp_path)
    assert (before["gamma"], after["gamma"]) == (0.5, 2.0)


def test_a_referee_that_may_not_intervene_does_not(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Whistle, "alarms", {4: Alarm("x", "y", gamma_factor=4.0, stop=True)})
    monkeypatch.setattr(loop, "Referee", Whistle)
    played(tmp_path, a_game(referee=False), fabric)
    assert {row["gamma"] for row in rows(tmp_path)} == {1.0}


def test_a_referee_that_gives_up_stops_the_game_and_keeps_what_was_good(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Whistle, "alarms", {8: Alarm("x", "nothing helps", stop=True)})
    monkeypatch.setattr(loop, "Referee", Whistle)
    with pytest.raises(FacekitError, match="stopped the game at step 8: nothing helps"):
        played(tmp_path, a_game(), fabric)
    state = Run(tmp_path).latest()
    assert state is not None and state["step"] == 8
    for key, value in state["players"]["ema"].items():
        assert torch.equal(value, state["good"]["ema"][key])
