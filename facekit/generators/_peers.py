"""What other GANs are measured beside the own one: a common loop for all of them.

A peer says how it learns from a batch (:class:`Peer`); the loop gives each the same pictures, the
same processor time and a moving average of its weights, and keeps what there is, so that a peer can
be trained in several sessions. It is no plug-in: nobody is meant to make pictures with a peer.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from facekit.core import checkpoint
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.core.seed import seed_step

_KEEP_EVERY = 60.0  # seconds of processor time
_AVERAGED = 10_000  # images: half-life of the moving average, as the own game's


@dataclass(frozen=True)
class Peer:
    """Another GAN, ready to learn.

    Attributes:
        generator: noise (B, …) to what :attr:`images` makes pictures of.
        discriminator: whatever its ``learn`` asks.
        optimizers: of the generator and the discriminator.
        batch: pictures a step.
        noise: draws noise for so many pictures from torch's current random state.
        learn: is handed a batch (B, 3, S, S) in [-1, 1], the step, from 0, and the fabric under
            whose precision the networks compute; both players take their step.
        images: what the generator made, as pictures (B, 3, S, S) in [-1, 1].
    """

    generator: nn.Module
    discriminator: nn.Module
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer]
    batch: int
    noise: Callable[[int], Tensor]
    learn: Callable[[Tensor, int, Fabric], None]
    images: Callable[[Tensor], Tensor]

    @property
    def parameters(self) -> int:
        """Of both players."""
        return parameters(self.generator) + parameters(self.discriminator)


@dataclass(frozen=True)
class Learned:
    """A peer after its time.

    Attributes:
        average: the generator's moving average.
        steps: that it took.
        seconds: of processor time that learning took, over all sessions.
    """

    average: nn.Module
    steps: int
    seconds: float


def parameters(*networks: nn.Module) -> int:
    """How many numbers the networks learn."""
    return sum(weight.numel() for net in networks for weight in net.parameters())


def train(
    name: str,
    peer: Peer,
    pixels: Tensor,
    folder: Path,
    fabric: Fabric,
    *,
    seconds: float,
    seed: int,
    most: int | None = None,
) -> Learned:
    """Let a peer learn for so much processor time, going on where an earlier session was ended.

    Args:
        name: for the progress line.
        peer: with fresh weights.
        pixels: to learn from: uint8 (N, S, S, 3).
        folder: for the checkpoint.
        fabric: where to compute.
        seconds: of the time of this process on all its cores.
        seed: of batches and noise.
        most: steps, at most.

    Raises:
        FacekitError: if a weight becomes no number, or the checkpoint is of another peer.
    """
    path = folder / "state.safetensors"
    average = copy.deepcopy(peer.generator).requires_grad_(False).eval()
    parts: dict[str, Any] = {
        "generator": peer.generator,
        "discriminator": peer.discriminator,
        "average": average,
        "optimizer_g": peer.optimizers[0],
        "optimizer_d": peer.optimizers[1],
    }
    step, before = 0, 0.0
    if path.exists():
        state = checkpoint.load(path)
        step, before = int(state["step"]), float(state["seconds"])
        try:
            for key, part in parts.items():
                part.load_state_dict(state[key])
        except (KeyError, RuntimeError, ValueError) as error:
            raise FacekitError(
                f"{path}: is of another architecture than {name}'s; give another --out"
            ) from error

    began = kept = time.process_time()
    peer.generator.train()
    with progress(f"training {name}", round(seconds)) as advance:
        while True:
            used = before + time.process_time() - began
            over = used >= seconds or step == most
            if over or time.process_time() - kept > _KEEP_EVERY:
                _require_finite(average, name, step)
                states = {key: part.state_dict() for key, part in parts.items()}
                checkpoint.save(path, {"step": step, "seconds": used, **states})
                kept = time.process_time()
                advance(round(used), f"{step} steps, {step * peer.batch} images")
            if over:
                return Learned(average, step, used)
            seed_step(seed, 1 + step)
            chosen = torch.randint(len(pixels), (peer.batch,))
            peer.learn(to_images(pixels[chosen].to(fabric.device)), step, fabric)
            step += 1
            _follow(average, peer.generator, step, peer.batch)


@torch.no_grad()
def draw(
    peer: Peer, net: nn.Module, count: int, seed: int, device: torch.device, at_once: int = 64
) -> Tensor:
    """Pictures that ``net``, the peer's generator or its average, makes: uint8 (count, S, S, 3)."""
    seed_step(seed, 0)
    net.eval()
    parts = []
    for start in range(0, count, at_once):
        noise = peer.noise(min(at_once, count - start)).to(device)
        parts.append(to_bytes(peer.images(net(noise))))
    return torch.cat(parts)


def to_images(pixels: Tensor) -> Tensor:
    """uint8 (B, S, S, 3) → float32 (B, 3, S, S) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_bytes(images: Tensor) -> Tensor:
    """Float (B, 3, S, S) in [-1, 1] → uint8 (B, S, S, 3)."""
    scaled = (images.detach().float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().byte().permute(0, 2, 3, 1).contiguous()


@torch.no_grad()
def _follow(average: nn.Module, net: nn.Module, step: int, batch: int) -> None:
    """Move the average after the network; batch norms' statistics are averaged likewise."""
    half_life = min(_AVERAGED, step * batch / 20)
    share = 1 - 0.5 ** (batch / half_life)
    theirs = net.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(theirs[name], share)
        else:
            value.copy_(theirs[name])


def _require_finite(net: nn.Module, name: str, step: int) -> None:
    if not all(bool(value.isfinite().all()) for value in net.state_dict().values()):
        raise FacekitError(
            f"{name}: its weights are no numbers at step {step}; its last checkpoint is kept"
        )
