"""An auto-encoder of the size of faceswap's "original" model, to measure the own one beside.

Origin: the model of "deepfakes" (2017), which faceswap ships as "original": 82.06 million
parameters for two people at 64 pixels. Written anew from that description; no code taken. It is no
plug-in: nobody is meant to make swaps with it.

The encoder takes four convolutions of stride 2 and a dense code of 1,024 numbers; each decoder
doubles the side three times. It learns each person from randomly warped crops by the L1 loss, with
Adam at 5e-5, 64 faces a step, and knows nothing of masks or colours: the conversion adds these.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from facekit.core import checkpoint
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.core.seed import seed_step
from facekit.generators._peers import to_images

BATCH = 64
_RATE = 5e-5
_WARP = 0.03  # of the crop's side, as the own model's
_KEEP_EVERY = 60.0  # seconds of processor time


class Original(nn.Module):
    """A shared encoder and a decoder for each person, of faces (B, 3, S, S) in [-1, 1]."""

    def __init__(self, people: int, size: int = 64, width: int = 128) -> None:
        """Make a network.

        Args:
            people: how many.
            size: S, a multiple of 16.
            width: channels of the first convolution; 128 is the original.
        """
        super().__init__()
        side, deepest = size // 16, 8 * width
        self.encoder = nn.Sequential(
            *_halved(3, width),
            *_halved(width, 2 * width),
            *_halved(2 * width, 4 * width),
            *_halved(4 * width, deepest),
            nn.Flatten(),
            nn.Linear(deepest * side**2, deepest),
            nn.Linear(deepest, deepest * side**2),
            nn.Unflatten(1, (deepest, side, side)),
            *_doubled(deepest, 4 * width),
        )
        self.decoders = nn.ModuleList(
            nn.Sequential(
                *_doubled(4 * width, 2 * width),
                *_doubled(2 * width, width),
                *_doubled(width, width // 2),
                nn.Conv2d(width // 2, 3, 5, padding=2),
                nn.Sigmoid(),
            )
            for _ in range(people)
        )

    def forward(self, images: Tensor, person: int) -> Tensor:
        """Draw the faces as ``person``."""
        drawn: Tensor = 2 * self.decoders[person](self.encoder(images)) - 1
        return drawn


def _halved(channels: int, out: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, 5, 2, 2), nn.LeakyReLU(0.1)]


def _doubled(channels: int, out: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, 4 * out, 3, padding=1), nn.LeakyReLU(0.1), nn.PixelShuffle(2)]


def train(
    net: Original,
    images: Tensor,
    rows: Sequence[Sequence[int]],
    size: int,
    folder: Path,
    fabric: Fabric,
    *,
    seconds: float,
    seed: int,
    most: int | None = None,
    batch: int = BATCH,
) -> tuple[int, float]:
    """Let it learn for so much processor time, going on where an earlier session was ended.

    Args:
        net: with fresh weights; trained in place.
        images: crops, uint8 (N, 2S, 2S, 3).
        rows: each person's rows of ``images``.
        size: S.
        folder: for the checkpoint.
        fabric: where and how precisely to compute.
        seconds: of the time of this process on all its cores.
        seed: of batches and warps.
        most: steps, at most.
        batch: faces a step, shared by the people.

    Returns:
        The steps taken and the seconds used, over all sessions.

    Raises:
        FacekitError: if a weight becomes no number, or the checkpoint is of another network.
    """
    optimizer = torch.optim.Adam(net.parameters(), _RATE, betas=(0.5, 0.999))
    path = folder / "state.safetensors"
    step, before = 0, 0.0
    if path.exists():
        state = checkpoint.load(path)
        step, before = int(state["step"]), float(state["seconds"])
        try:
            net.load_state_dict(state["net"])
            optimizer.load_state_dict(state["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise FacekitError(f"{path}: is of another network; give another --out") from error
    share = max(1, batch // len(rows))
    began = kept = time.process_time()
    net.train()
    with progress("training original", round(seconds)) as advance:
        while True:
            used = before + time.process_time() - began
            over = used >= seconds or step == most
            if over or time.process_time() - kept > _KEEP_EVERY:
                if not all(bool(weight.isfinite().all()) for weight in net.parameters()):
                    raise FacekitError(f"original: its weights are no numbers at step {step}")
                state = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
                checkpoint.save(path, {"step": step, "seconds": used, **state})
                kept = time.process_time()
                advance(round(used), f"{step} steps")
            if over:
                return step, used
            seed_step(seed, 1 + step)
            loss = torch.zeros((), device=fabric.device)
            for person, own in enumerate(rows):
                chosen = torch.tensor(own)[torch.randint(len(own), (share,))]
                crops = to_images(images[chosen.to(images.device)])
                inputs, targets = warped(crops, size)
                with fabric.autocast():
                    drawn = net(inputs, person)
                loss = loss + (drawn.float() - targets).abs().mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            step += 1


def warped(crops: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Random views of crops (B, 3, H, H), and the same views warped: two of (B, 3, S, S)."""
    count, device = len(crops), crops.device
    angle = torch.randn(count, device=device) * math.radians(3)
    scale = 1 + 0.03 * torch.randn(count, device=device)
    mirror = torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0)
    shift = 0.02 * torch.randn(count, 2, device=device)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    across = torch.stack([cosine * mirror, -sine, shift[:, 0]], 1)
    down = torch.stack([sine * mirror, cosine, shift[:, 1]], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), [count, 3, size, size], False)
    knots = 2 * _WARP * torch.randn(count, 2, 5, 5, device=device)
    field = F.interpolate(knots, (size, size), mode="bicubic", align_corners=True)
    inputs, targets = (
        F.grid_sample(crops, at, padding_mode="border", align_corners=False)
        for at in (grid + field.permute(0, 2, 3, 1), grid)
    )
    return inputs, targets
