"""The adversarial objective against hand-computed values, autograd, and a game it must learn."""

import math

import pytest
import torch
from torch import nn

from facekit.adversary.objective import discriminator_loss, generator_loss
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
    with pytest.raises(ValueError, match="power of two"):
        Discriminator(48)
