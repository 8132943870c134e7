"""The referee in whole games: each planted failure is seen, and mended where it can be.

The games are of points on a noisy circle and of tiny pictures, so that one takes seconds; all
differ from the sound one in the one thing that is planted.
"""

import logging
import math
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from facekit.adversary.loop import Game, play
from facekit.adversary.monitor import resemblance
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.generators.points import Points
from facekit.networks.discriminator import Discriminator

SOUND: dict[str, Any] = {
    "steps": 500,
    "batch": 64,
    "learning_rate": 5e-3,
    "learning_rate_end": 2e-3,
    "gamma": 0.5,
    "gamma_end": 0.5,
    "ema": 2000,
    "look_every": 25,
    "checkpoint_every": 10_000,
}


def circle(count: int, seed: int) -> Tensor:
    """(count, 2) points of a noisy circle."""
    generator = torch.Generator().manual_seed(seed)
    angle = torch.rand(count, generator=generator) * 2 * math.pi
    noise = torch.randn(count, 2, generator=generator)
    return torch.stack([angle.cos(), angle.sin()], dim=1) * 1.4 + noise * 0.03


def discs(count: int, seed: int) -> Tensor:
    """(count, 3, 16, 16) pictures in [-1, 1] of a disc of some colour, size and place."""
    generator = torch.Generator().manual_seed(seed)
    x, y, radius, red, green, blue = torch.rand(6, count, 1, 1, generator=generator)
    across = (torch.arange(16) + 0.5) / 16
    square = (across - 0.3 - 0.4 * x) ** 2 + (across[:, None] - 0.3 - 0.4 * y) ** 2
    inside = torch.sigmoid(80 * ((0.15 + 0.15 * radius) ** 2 - square))
    return torch.stack([red, green, blue], dim=1) * 2 * inside[:, None] - 1


class Painter(nn.Module):
    """Noise (B, 8) → pictures (B, 3, 16, 16)."""

    latent = 8

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16 * 16)
        self.body = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(16, 3, 3, padding=1),
        )

    def forward(self, noise: Tensor) -> Tensor:
        pictures: Tensor = self.body(self.first(noise).view(-1, 16, 4, 4))
        return pictures


class Player(nn.Module):
    """A small network of points, as generator (8 → 2) or discriminator (2 → 1)."""

    latent = 8

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        widths = [inputs, 64, 64, 64]
        layers = [
            part
            for before, after in pairwise(widths)
            for part in (nn.Linear(before, after), nn.LeakyReLU(0.2))
        ]
        self.body = nn.Sequential(*layers, nn.Linear(64, outputs))

    def forward(self, points: Tensor) -> Tensor:
        said: Tensor = self.body(points)
        return said.squeeze(1)


@dataclass
class Played:
    """What came of a game.

    Attributes:
        rows: of the metrics.
        distance: of the average generator's samples to held-out reals; None if it was given up.
        said: all warnings.
        error: why it was given up.
    """

    rows: list[dict[str, float]]
    distance: float | None = None
    said: list[str] = field(default_factory=list)
    error: str = ""

    def __str__(self) -> str:
        return "\n".join([*self.said, self.error, str(self.distance)])


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def played(folder: Path, reals: Tensor, seed: int = 0, **changes: Any) -> Played:
    """Play the sound game of points or pictures with ``changes`` to its rules."""
    torch.manual_seed(seed)
    pictures = reals.ndim == 4
    generator = Painter() if pictures else Player(8, 2)
    discriminator = Discriminator(16, width=8) if pictures else Player(2, 1)
    held_out = (discs if pictures else circle)(512, 2)
    game = Game(**(SOUND | changes))
    run = Run.start(
        folder,
        plugin="circle",
        config=game,
        seed=seed,
        data_hash="0",
        threads=1,
        precision="32-true",
    )
    listener = _Listener()
    logger = logging.getLogger("facekit")
    logger.addHandler(listener)
    outcome = Played([])
    try:
        ema = play(
            game,
            generator,
            discriminator,
            Points(reals),
            run,
            Fabric(accelerator="cpu", devices=1),
            features=lambda samples: samples.flatten(1),
            held_out=Points(held_out),
        )
        with torch.no_grad():
            samples = ema(torch.randn(512, 8)).flatten(1)
            outcome.distance = resemblance(held_out.flatten(1), samples)["distance"]
    except FacekitError as error:
        outcome.error = str(error)
    finally:
        logger.removeHandler(listener)
    outcome.rows, outcome.said = run.metrics(), listener.said
    return outcome


@pytest.mark.parametrize("seed", [0, 1])
def test_the_referee_is_quiet_on_a_sound_game(tmp_path: Path, seed: int) -> None:
    game = played(tmp_path, circle(4096, 1), seed)
    assert not game.said, game
    assert game.distance is not None and game.distance < 0.05
    assert all(row["gamma"] == 0.5 for row in game.rows)


def test_without_gamma_the_discriminator_gets_too_steep_and_the_referee_mends_it(
    tmp_path: Path,
) -> None:
    game = played(tmp_path, circle(4096, 1), gamma=0.0, gamma_end=0.0)
    assert any("too steep to learn from" in words and "raise gamma" in words for words in game.said)
    assert game.rows[0]["gamma"] == 0
    assert game.rows[-1]["gamma"] > 0, game
    steepest = max(row["gradient_g"] for row in game.rows)
    assert game.rows[-1]["gradient_g"] < steepest / 4
    assert game.distance is not None and game.distance < 0.05


def test_a_discriminator_that_learns_50_times_too_fast_is_slowed_down(tmp_path: Path) -> None:
    game = played(tmp_path, circle(4096, 1), discriminator_speed=50.0, steps=450)
    assert any("learns too fast to get anything right" in words for words in game.said), game
    assert any("discriminator's rate times 0.5" in words for words in game.said), game


def test_a_game_with_such_a_discriminator_is_brought_back(tmp_path: Path) -> None:
    """Where rates are lower, so that a game is not chance: in the one above, another processor's
    last bits decide whether it ends near the reals or far off."""
    slow = {"learning_rate": 1e-3, "learning_rate_end": 1e-3}
    game = played(tmp_path, circle(4096, 1), discriminator_speed=50.0, steps=700, **slow)
    assert any("back to the last good state" in words for words in game.said), game
    first = next(i for i, row in enumerate(game.rows) if row["gamma"] > 0.5)
    assert median(row["distance"] for row in game.rows[first:]) < 0.1, game


def test_a_duplicated_data_set_is_seen_before_the_game(tmp_path: Path) -> None:
    """No intervention makes new samples; in so short a game, memory stays within its noise."""
    game = played(tmp_path, circle(32, 1).repeat(128, 1), steps=50)
    assert "100% of the training samples are copies of another" in game.said[0]
    assert "remove the copies, or add different samples" in game.said[0]
    assert all(row["gamma"] == 0.5 for row in game.rows)


def test_copies_too_few_to_be_among_those_that_it_looks_at_are_seen(tmp_path: Path) -> None:
    points = circle(2048, 1)
    points[-50:] = points[:50]
    game = played(tmp_path, points, steps=10)
    assert game.said[0].startswith("5% of the training samples are copies of another")


PICTURES: dict[str, Any] = {
    "steps": 160,
    "batch": 16,
    "learning_rate": 1e-3,
    "learning_rate_end": 1e-3,
    "gamma": 1.0,
    "gamma_end": 1.0,
    "alone_discriminator": 5,
    "alone_generator": 5,
    "look_every": 8,
    "look_samples": 64,
}


def test_the_referee_is_quiet_on_a_sound_game_of_pictures(tmp_path: Path) -> None:
    game = played(tmp_path, discs(1024, 1), **PICTURES)
    assert not game.said, game


def test_a_discriminator_too_fast_is_seen_on_pictures(tmp_path: Path) -> None:
    game = played(tmp_path, discs(1024, 1), **PICTURES, discriminator_speed=50.0)
    assert any("the discriminator" in words for words in game.said), game
