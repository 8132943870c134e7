"""The adversarial game: two networks that train each other by competition, in six steps.

A generator G turns noise z into samples; a discriminator D tells real samples from generated ones;
each learns from the other's mistakes. What they minimise is in :mod:`.objective`.

1. Look at the data: is there enough of it, and how far apart are two real sets of it? No game can
   be judged without that floor.
2. Set up: two optimisers, a moving average of G (the *EMA*: G itself circles around the balance,
   its average sits in the middle), a referee; or all of them as a checkpoint has them.
3. D alone, briefly and with R1 and R2, so that G's first lesson is worth something. Not for long:
   a discriminator that is sure of everything is flat, and teaches nothing.
4. G alone, briefly, against that discriminator.
5. In turns: D learns from a batch of pairs (real, generated), then G from the same pairs.
6. Along the way: the EMA follows; the referee looks, warns, and on alarm rolls back and eases the
   game; checkpoints and strips are kept.

A run killed at any step resumes to the same bits at the same number of threads: every step seeds
its own randomness from (seed, step), and all else is in the checkpoint. With several processes
each takes its share of the same batch and the gradients are averaged, so N processes play the game
that one would, up to rounding. There is no DDP wrapper, whose hooks know no second derivatives.

The shape of the loop is that of NVlabs' edm2 and R3GAN's trainers; no code taken.
"""

import copy
import hashlib
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, Protocol, TypeVar, cast

import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn

from facekit.adversary.augment import adapt, augment
from facekit.adversary.metrics.kid import kid
from facekit.adversary.monitor import Alarm, Look, Referee
from facekit.adversary.objective import (
    DiscriminatorLoss,
    Objective,
    discriminator_loss,
    generator_loss,
)
from facekit.core.config import Config
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.core.run import Run
from facekit.core.seed import seed_step

log = logging.getLogger("facekit")

LEAST = 100
"""Real samples below which a game teaches only these very samples."""

Features = Callable[[Tensor], Tensor]
"""Maps samples (B, …) to float32 (B, F), in which distances mean something."""

Strip = TypeVar("Strip")


class Game(Config):
    """The rules of a game.

    Attributes:
        objective: what the players minimise; see :mod:`facekit.adversary.objective`.
        steps: of the optimisers, those that a player makes alone included.
        batch: pairs of real and generated samples a step, over all processes.
        learning_rate: of both players at the start; it falls as half a cosine to
            ``learning_rate_end``.
        learning_rate_end: at the end.
        warm_up: steps in which the rate first rises from 0.
        discriminator_speed: the discriminator's rate over the generator's.
        beta2: of Adam; its first beta is 0, because the opponent moves.
        gamma: weight γ of R1 and R2 at the start; it goes as half a cosine to ``gamma_end``.
        gamma_end: at the end.
        penalty_every: steps from one R1 and R2 to the next, which then weigh that many times as
            much (lazy regularisation: Karras et al., StyleGAN2, 2020, section 3.1). The steps
            between cost a fraction, and may be taken in bf16.
        alone_discriminator: steps in which only the discriminator learns, at the beginning.
        alone_generator: steps after these in which only the generator does.
        ema: half-life of the generator's moving average, in real samples shown; early on it is at
            most a twentieth of those shown so far, so that the random start is soon forgotten.
        augment: "none"; "fixed": with probability ``augment_p``, reached as half a cosine from 0;
            or "adaptive", by ADA's controller. Of images only.
        augment_p: probability of each kind of augmentation, if fixed.
        augment_span: images in which the adaptive one can go from never to always.
        look_every: steps between the referee's looks, and between rows of metrics.
        look_samples: real and generated samples that it looks at, each.
        referee: whether it may intervene; it measures and warns in any case.
        checkpoint_every: steps between checkpoints.
        strip_every: steps between strips.
        strip_samples: samples in a strip, of the same noise each time.
    """

    objective: Objective = "relativistic"
    steps: int = Field(5000, ge=1)
    batch: int = Field(32, ge=2)
    learning_rate: float = Field(5e-4, gt=0)
    learning_rate_end: float = Field(1e-4, gt=0)
    warm_up: int = Field(0, ge=0)
    discriminator_speed: float = Field(1.0, gt=0)
    beta2: float = Field(0.99, ge=0, lt=1)
    gamma: float = Field(1.0, ge=0)
    gamma_end: float = Field(1.0, ge=0)
    penalty_every: int = Field(1, ge=1)
    alone_discriminator: int = Field(20, ge=0)
    alone_generator: int = Field(20, ge=0)
    ema: int = Field(10_000, ge=0)
    augment: Literal["none", "fixed", "adaptive"] = "none"
    augment_p: float = Field(0.3, ge=0, le=0.8)
    augment_span: int = Field(500_000, ge=1)
    look_every: int = Field(100, ge=1)
    look_samples: int = Field(256, ge=8)
    referee: bool = True
    checkpoint_every: int = Field(500, ge=1)
    strip_every: int = Field(500, ge=1)
    strip_samples: int = Field(64, ge=1)


class Reals(Protocol):
    """Real samples, by number."""

    def __len__(self) -> int:
        """How many."""

    def batch(self, indices: Tensor, device: torch.device) -> Tensor:
        """Those with the numbers ``indices`` (B,): float32 (B, …), images in [-1, 1]."""


class Pictures:
    """Pictures in memory as :class:`Reals`.

    Args:
        pixels: uint8 RGB (N, S, S, 3).
    """

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, indices: Tensor, device: torch.device) -> Tensor:
        """float32 (B, 3, S, S) in [-1, 1]."""
        chosen = self.pixels[indices.to(self.pixels.device)].to(device)
        return chosen.permute(0, 3, 1, 2).float() / 127.5 - 1


@dataclass
class Relief:
    """What the referee has eased so far; rates and γ are the schedule's until it does.

    Attributes:
        gamma: the least γ from now on.
        augment: the least probability of augmentation from now on.
        rate_d: factor of the discriminator's learning rate.
        rate_g: factor of the generator's.
    """

    gamma: float = 0.0
    augment: float = 0.0
    rate_d: float = 1.0
    rate_g: float = 1.0

    def eased(self, alarm: Alarm, gamma: float, odds: float) -> "Relief":
        """What holds after ``alarm``, raised while γ and the augmentation were these."""
        return Relief(
            gamma=alarm.gamma(gamma) if alarm.gamma_factor > 1 else self.gamma,
            augment=alarm.augment(odds) if alarm.augment_more else self.augment,
            rate_d=self.rate_d * alarm.rate_d,
            rate_g=self.rate_g * alarm.rate_g,
        )


def play(
    game: Game,
    generator: nn.Module,
    discriminator: nn.Module,
    reals: Reals,
    run: Run,
    fabric: Fabric,
    *,
    features: Features,
    held_out: Reals | None = None,
    show: Callable[[int, Strip], None] | None = None,
    draw: Callable[[Tensor], Strip] | None = None,
) -> nn.Module:
    """Play a game to its end, from the run's newest checkpoint if there is one.

    Args:
        game: the rules.
        generator: noise (B, ``generator.latent``) → samples shaped like those of ``reals``. Its
            first weights are the same in all processes: drawn after ``seed_step(seed, 0)``.
        discriminator: samples → logits (B,), greater for more real; the same holds for it.
        reals: to learn from.
        run: where to resume from, and to keep checkpoints and metrics.
        fabric: where and how precisely to compute, and in how many processes.
        features: by which the referee compares samples.
        held_out: real samples of other people than ``reals``'; they show whether the
            discriminator has learned its own by heart.
        show: is handed the step and what ``draw`` makes, now and then.
        draw: makes a strip, whatever ``show`` takes, of the EMA's samples (N, …) of the same noise
            each time.

    Returns:
        The EMA of the generator, on the fabric's device, in evaluation mode.

    Raises:
        FacekitError: if there are too few real samples, or the batch can't be shared evenly
            between the processes; if the checkpoint is of other networks; if a loss is no number
            (the step is named, and the checkpoint before it kept); or if the referee gives up.
    """
    seed, device, latent = int(run.facts["seed"]), fabric.device, cast(int, generator.latent)

    # 1. Look at the data ----------------------------------------------------------------------
    _require_playable(game, reals, run, fabric)
    seed_step(seed, 0)
    gallery = _Gallery(game, reals, held_out, generator, features, fabric)
    referee = Referee()
    for words in referee.start(*gallery.floor, copies=_copies(reals, device)):
        log.warning("%s", words)
    if fabric.is_global_zero:
        floor = kid(*gallery.floor)
        run.note(real_samples=len(reals), floor_kid=[floor.value, floor.low, floor.high])

    # 2. Set up --------------------------------------------------------------------------------
    players = _Players(game, generator, discriminator, fabric)
    good = players.weights() if game.referee else {}  # to roll back to
    relief, p, notes, first = Relief(), 0.0, _Notes(device), 0
    fixed_noise = torch.randn(game.strip_samples, latent).to(device)
    if state := _resumed(run, fabric):
        first, p, good = state["step"], state["p"], state["good"]
        players.load(state["players"], run)
        referee.load_state_dict(state["referee"])
        relief, notes.rows = Relief(**state["relief"]), list(state["notes"].to(device))

    began, line = time.perf_counter(), ""
    with progress(f"training {run.facts['plugin']}", game.steps) as advance:
        for step in range(first, game.steps):
            seed_step(seed, 1 + step)
            done, along = step + 1, step / game.steps
            discriminator_learns = not 0 <= step - game.alone_discriminator < game.alone_generator
            generator_learns = step >= game.alone_discriminator
            gamma = max(_between(game.gamma, game.gamma_end, along), relief.gamma)
            if game.augment == "fixed":
                p = _between(0.0, game.augment_p, along)
            odds = max(p, relief.augment) if gallery.of_images else 0.0
            players.set_rates(_rate(step, game), relief)

            # A batch of pairs. Every process draws the whole of it and keeps its own share.
            chosen = _share(torch.randint(len(reals), (game.batch,)), fabric)
            noise = _share(torch.randn(game.batch, latent), fabric).to(device)
            _part_ways(fabric)
            real = reals.batch(chosen, device)
            with torch.set_grad_enabled(generator_learns), fabric.autocast():
                fake = generator(noise).float()
            judge = partial(_logits, discriminator, odds)

            # 3. D alone, and D's turn in 5.: it learns to tell the pairs apart.
            if discriminator_learns:
                weight = gamma * game.penalty_every
                with fabric.autocast():
                    terms = discriminator_loss(
                        *(judge, real, fake, weight, game.objective),
                        penalise=step % game.penalty_every == 0,
                    )
                gradient = _learn(players.optimizer_d, terms.total, fabric)
                notes.add_discriminator(terms, gradient, game.objective)

            # 4. G alone, and G's turn in 5.: it learns to make that discriminator err.
            if generator_learns:
                with _frozen(discriminator), fabric.autocast():
                    loss = generator_loss(judge, real, fake, game.objective)
                    gradient = _learn(players.optimizer_g, loss, fabric)
                notes.add_generator(loss, gradient)
                players.follow(images=done * game.batch)
            notes.end_step()

            # 6. Along the way: look, ease the game if need be, and keep what there is.
            looks = done % game.look_every == 0 or done == game.steps
            saves = done % game.checkpoint_every == 0 or done == game.steps
            alarm = None
            if looks or saves:
                notes.read(run, done, fabric)
            if looks:
                means = notes.take_means()
                ruling = referee.look(gallery.look(done, gamma, discriminator, means))
                if game.augment == "adaptive":
                    shown = game.look_every * game.batch
                    p = adapt(p, means["sure"], shown, span=game.augment_span)
                for words in ruling.warnings:
                    log.warning("step %d: %s", done, words)
                rate = (done - first) * game.batch / (time.perf_counter() - began)
                line = f"{done * game.batch} images, {rate:.0f}/s, {ruling.line}"
                if fabric.is_global_zero:
                    facts = {"images": done * game.batch, "images_per_second": rate}
                    facts |= {"gamma": gamma, "augment_p": odds, "rate": players.rate}
                    run.log(done, **facts, **means, **ruling.values)
                if game.referee and (alarm := ruling.alarm):
                    log.warning("step %d: %s", done, alarm.words)
                    relief = relief.eased(alarm, gamma, odds)
                    players.roll_back(good)
                elif game.referee and ruling.good:
                    good = players.weights()
            if (saves or (alarm and alarm.stop)) and fabric.is_global_zero:
                state = {"players": players.state(), "good": good, "relief": asdict(relief)}
                state |= {"p": p, "referee": referee.state_dict(), "notes": notes.kept()}
                run.save(done, state)
            if alarm and alarm.stop:
                raise FacekitError(
                    f"{run.folder}: the referee stopped the game at step {done}: {alarm.words}; "
                    "the last good weights are kept"
                )
            strips = done % game.strip_every == 0 or done == game.steps
            if show and draw and strips and fabric.is_global_zero:
                show(done, draw(players.samples(fixed_noise)))
            advance(done, line)
    return players.ema


class _Players:
    """Both networks, the EMA and the optimisers: all that learning changes."""

    def __init__(
        self, game: Game, generator: nn.Module, discriminator: nn.Module, fabric: Fabric
    ) -> None:
        self._game = game
        self.generator = generator.to(fabric.device)
        self.discriminator = discriminator.to(fabric.device)
        self.ema = copy.deepcopy(generator).eval().requires_grad_(False)
        self.rate = game.learning_rate
        self._forget()

    def _forget(self) -> None:
        """New optimisers, without momenta."""
        self.optimizer_g, self.optimizer_d = (
            torch.optim.Adam(net.parameters(), betas=(0.0, self._game.beta2), fused=True)
            for net in (self.generator, self.discriminator)
        )

    def set_rates(self, rate: float, relief: "Relief") -> None:
        """Set the learning rates from the schedule's and what the referee has eased."""
        self.rate = rate
        for group in self.optimizer_g.param_groups:
            group["lr"] = rate * relief.rate_g
        for group in self.optimizer_d.param_groups:
            group["lr"] = rate * relief.rate_d * self._game.discriminator_speed

    @torch.no_grad()
    def follow(self, images: int) -> None:
        """Let the EMA take a step after the generator; ``images`` were shown so far."""
        half_life = min(self._game.ema, images / 20)
        keep = 0.5 ** (self._game.batch / half_life) if half_life else 0.0
        for mean, weight in zip(self.ema.parameters(), self.generator.parameters(), strict=True):
            mean.lerp_(weight, 1 - keep)
        for kept, value in zip(self.ema.buffers(), self.generator.buffers(), strict=True):
            kept.copy_(value)

    @torch.no_grad()
    def samples(self, noise: Tensor) -> Tensor:
        """The EMA's samples of noise (N, latent): float32 (N, …)."""
        return torch.cat([self.ema(part).float() for part in torch.split(noise, self._game.batch)])

    def weights(self) -> dict[str, Any]:
        """A copy of the networks' weights."""
        nets = {"generator": self.generator, "ema": self.ema, "discriminator": self.discriminator}
        return {
            name: {key: value.clone() for key, value in net.state_dict().items()}
            for name, net in nets.items()
        }

    def roll_back(self, weights: dict[str, Any]) -> None:
        """Back to what :meth:`weights` gave, with the momenta forgotten."""
        for name, state in weights.items():
            getattr(self, name).load_state_dict(state)
        self._forget()

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return self.weights() | {
            "optimizer_g": self.optimizer_g.state_dict(),
            "optimizer_d": self.optimizer_d.state_dict(),
        }

    def load(self, state: dict[str, Any], run: Run) -> None:
        """The inverse of :meth:`state`.

        Raises:
            FacekitError: if it is of other networks.
        """
        try:
            for name, part in state.items():
                getattr(self, name).load_state_dict(part)
        except (RuntimeError, ValueError, AttributeError) as error:
            raise FacekitError(
                f"{run.folder}: its checkpoint is of another architecture, or of another version "
                "of facekit; train anew with another --out"
            ) from error


class _Gallery:
    """The real samples that the referee looks at, always the same ones, and their features.

    Every process works on its share of the samples and is handed the whole result, so that all of
    them come to the same ruling.

    Attributes:
        of_images: whether samples are images.
        floor: features of two sets of real samples: (N, F), (M, F). The second are held-out ones
            if there are any.
    """

    def __init__(
        self,
        game: Game,
        reals: Reals,
        held_out: Reals | None,
        generator: nn.Module,
        features: Features,
        fabric: Fabric,
    ) -> None:
        self._game, self._generator, self._features, self._fabric = (
            *(game, generator, features, fabric),
        )
        if held_out is not None and len(held_out) < LEAST:
            log.info("held-out samples: %d; left out, below %d", len(held_out), LEAST)
            held_out = None
        order = torch.randperm(len(reals))
        count = min(game.look_samples, len(reals) // 2)
        self._reals = self._some(reals, order[:count])
        self._held_out = None
        if held_out is not None:
            others = torch.randperm(len(held_out))[: game.look_samples]
            self._held_out = self._some(held_out, others)
        self.of_images = self._reals.ndim == 4
        first = self._of(self._features, self._reals)
        rest = self._some(reals, order[count : 2 * count])
        self.floor = (
            first,
            self._of(self._features, rest if self._held_out is None else self._held_out),
        )

    def look(
        self, step: int, gamma: float, discriminator: nn.Module, means: dict[str, float]
    ) -> Look:
        """What the referee sees after ``step`` steps; ``means`` are since its last look."""
        latent = cast(int, self._generator.latent)
        count = len(self._reals) * self._fabric.world_size
        # By the step alone: the processes have parted ways, and are to look at one set of samples.
        random = torch.Generator().manual_seed(step)
        noise = torch.randn(count, latent, generator=random)
        noise = _share(noise, self._fabric).to(self._fabric.device)
        with torch.no_grad():
            parts = [self._generator(part).float() for part in torch.split(noise, self._game.batch)]
        fakes = torch.cat(parts)
        seen = fakes.clamp(-1, 1) if self.of_images else fakes  # as whoever shows them does
        held_out = None if self._held_out is None else self._of(discriminator, self._held_out)
        return Look(
            step=step,
            gamma=gamma,
            coin=_coin(self._game.objective),
            images=step * self._game.batch,
            real=self._of(discriminator, self._reals),
            fake=self._of(discriminator, fakes),
            held_out=held_out,
            reals=self.floor[0],
            fakes=self._of(self._features, seen),
            gradient_d=means["gradient_d"],
            gradient_g=means["gradient_g"],
            loss_d=means["loss_d"],
            loss_g=means["loss_g"],
        )

    def _some(self, reals: Reals, indices: Tensor) -> Tensor:
        """This process's share of the samples ``indices``."""
        shares = self._fabric.world_size
        whole = indices[: len(indices) // shares * shares]
        return reals.batch(_share(whole, self._fabric), self._fabric.device)

    @torch.no_grad()
    def _of(self, net: Callable[[Tensor], Tensor], samples: Tensor) -> Tensor:
        """What ``net`` says of the samples of all processes: float32 (N, …)."""
        said = torch.cat([net(part).float() for part in torch.split(samples, self._game.batch)])
        if self._fabric.world_size == 1:
            return said
        gathered = cast(Tensor, self._fabric.all_gather(said))
        return gathered.flatten(0, 1)


class _Notes:
    """What the steps say, left on the device until somebody looks: one transfer for many steps.

    A row a step: D learned, its loss without penalties, R1, R2, how sure it is, its gradient's
    norm; G learned, its loss, its gradient's norm. Who did not learn has zeros.
    """

    def __init__(self, device: torch.device) -> None:
        self.rows: list[Tensor] = []
        self._row = self._none = torch.zeros(9, device=device)

    def add_discriminator(
        self, terms: DiscriminatorLoss, gradient: Tensor, objective: Objective
    ) -> None:
        """Note a step of the discriminator."""
        # ADA's measure of overfitting. Of the relativistic game only differences mean anything.
        relative = objective == "relativistic"
        sure = (terms.real_logits - (terms.fake_logits if relative else 0)).sign().mean()
        said = torch.stack([terms.pairing.detach(), terms.r1.detach(), terms.r2.detach(), sure])
        self._row = self._row.clone()
        self._row[0] = 1
        self._row[1:5] = said
        self._row[5] = gradient

    def add_generator(self, loss: Tensor, gradient: Tensor) -> None:
        """Note a step of the generator."""
        self._row = self._row.clone()
        self._row[6] = 1
        self._row[7] = loss.detach()
        self._row[8] = gradient

    def end_step(self) -> None:
        """The step is over."""
        self.rows.append(self._row)
        self._row = self._none

    def read(self, run: Run, done: int, fabric: Fabric) -> None:
        """Look whether the steps up to ``done`` went well.

        Raises:
            FacekitError: if one did not: it is named.
        """
        rows = _mean(torch.stack(self.rows), fabric)
        for i, row in enumerate(rows.isfinite().all(1).tolist()):
            if not row:
                raise FacekitError(
                    f"{run.folder}: a loss or a gradient is no number at step "
                    f"{done - len(rows) + i + 1}; the checkpoint before it is kept; try a lower "
                    "learning_rate, or a greater gamma"
                )
        self.rows = list(rows)

    def take_means(self) -> dict[str, float]:
        """The means since the last time; 0 for who did not learn."""
        total = torch.stack(self.rows).sum(0).tolist()
        self.rows = []
        of_d, of_g = max(total[0], 1), max(total[6], 1)
        names_d, names_g = ("loss_d", "r1", "r2", "sure", "gradient_d"), ("loss_g", "gradient_g")
        means = {name: value / of_d for name, value in zip(names_d, total[1:6], strict=True)}
        return means | {n: value / of_g for n, value in zip(names_g, total[7:], strict=True)}

    def kept(self) -> Tensor:
        """For a checkpoint: (rows, 9)."""
        return torch.stack(self.rows) if self.rows else self._none[None][:0]


def _coin(objective: Objective) -> float:
    """The loss of a discriminator that says the same of everything."""
    zeros = torch.zeros(1)
    terms = discriminator_loss(torch.zeros_like, zeros, zeros, 0.0, objective, penalise=False)
    return float(terms.pairing)


def _logits(discriminator: nn.Module, odds: float, samples: Tensor) -> Tensor:
    """What D says of samples, augmented with the probability ``odds``: float32 (B,)."""
    logits: Tensor = discriminator(augment(samples, odds))
    return logits.float()


def _learn(optimizer: torch.optim.Optimizer, loss: Tensor, fabric: Fabric) -> Tensor:
    """One step down the gradient, averaged over all processes; its norm, on the device."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    if fabric.world_size > 1:
        flat = _mean(flat, fabric)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
    optimizer.step()
    norm: Tensor = flat.norm()
    return norm


@contextmanager
def _frozen(net: nn.Module) -> Iterator[None]:
    """Gradients pass through ``net``, but none are computed for its weights."""
    net.requires_grad_(False)
    yield
    net.requires_grad_(True)


def _mean(values: Tensor, fabric: Fabric) -> Tensor:
    """The mean over all processes."""
    return cast(Tensor, fabric.all_reduce(values, reduce_op="mean"))


def _share(values: Tensor, fabric: Fabric) -> Tensor:
    """This process's part of the first dimension."""
    parts: tuple[Tensor, ...] = torch.chunk(values, fabric.world_size)
    return parts[fabric.global_rank]


def _part_ways(fabric: Fabric) -> None:
    """From here on this process draws random numbers of its own, e.g. to augment its share."""
    if fabric.global_rank:
        torch.manual_seed(torch.initial_seed() + fabric.global_rank)


def _between(start: float, end: float, along: float) -> float:
    """From ``start`` at ``along`` 0 to ``end`` at 1, as half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * along))


def _rate(step: int, game: Game) -> float:
    """The learning rate of a step, numbered from 0."""
    rising = min(1.0, (step + 1) / (game.warm_up + 1))
    return rising * _between(game.learning_rate, game.learning_rate_end, step / game.steps)


def _resumed(run: Run, fabric: Fabric) -> dict[str, Any] | None:
    """The newest checkpoint's state; the first process also forgets the metrics after it."""
    with fabric.rank_zero_first():
        state: dict[str, Any] | None = run.resume() if fabric.is_global_zero else run.latest()
    return state


def _copies(reals: Reals, device: torch.device) -> float:
    """The share of the real samples that are copies of another, to the bit."""
    each = (
        hashlib.blake2b(sample.numpy(force=True).tobytes()).digest()
        for some in torch.split(torch.arange(len(reals)), 256)
        for sample in reals.batch(some, device)
    )
    counts = Counter(each).values()
    return sum(count for count in counts if count > 1) / len(reals)


def _require_playable(game: Game, reals: Reals, run: Run, fabric: Fabric) -> None:
    if len(reals) < LEAST:
        raise FacekitError(
            f"{run.folder}: {len(reals)} real samples; a game needs at least {LEAST}, because it "
            "would learn fewer by heart: give more photos"
        )
    if game.batch % fabric.world_size:
        raise FacekitError(
            f"batch {game.batch} can't be shared evenly by {fabric.world_size} processes; give "
            "--devices that divides it, or another batch"
        )
