"""Faces from noise: a compact style-modulated generator against a convolutional discriminator.

Papers: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, arXiv:1406.2661, the game;
Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, arXiv:1912.04958,
the generator: a mapping network whose styles modulate every convolution, and colours that are added
up over the resolutions; Huang et al., "The GAN is dead; long live the GAN!" (R3GAN), NeurIPS 2024,
arXiv:2501.05441, the objective, and a discriminator of residual blocks without normalisation.
Written from the papers; no code taken.

What is different serves a processor's half hour. Both networks work on squares of 2 × 2 pixels: the
generator's last layer draws the four at once, the discriminator's first one reads them so, and no
convolution ever runs at full resolution. There is no noise beside the styles, so that an
interpolation does not flicker. The game itself is :mod:`facekit.adversary.loop`.
"""

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from facekit.adversary.loop import LEAST, Game, Pictures, play
from facekit.adversary.metrics.features import load_features
from facekit.conversion.images import to_pixels
from facekit.core import checkpoint, config, weights
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.core.seed import seed_step
from facekit.generators._gate import GatedRun
from facekit.networks.discriminator import Discriminator
from facekit.networks.modulated import Mapping, ModulatedConv
from facekit.types import Frame, Item, Pixels
from facekit.watermark import Kind

log = logging.getLogger("facekit")

KIND = Kind.GENERATED

SHARES = True

TEMPLATE = "ffhq"
"""Of the faces learned from: with hair and chin."""

WEIGHTS = Path(__file__).parent.parent / "weights"

RATE = 25
"""Frames a second of an interpolation."""

PATCH = 2
"""Side of the squares of pixels that both networks treat as one."""

_GAIN = 0.25
"""Of the colours: at the start those of every resolution add up, each as bright as white."""

_AT_ONCE = 16
_MEAN_OF = 4096  # styles
_HELD_OUT = 10  # of so many people one is kept apart
_SHEET = 8  # faces in a row
_MARKED = 256  # pixels a side that surely hold a mark
_OTHERS_SEED = 1_000_000  # added to a pre-training's, for a cast that shares nobody with it


class Config(config.Config):
    """Settings of the GAN.

    Attributes:
        size: side of the faces, in pixels.
        width: the generator's channels at half that size; they double at each halving.
        most: its channels at most.
        latent: numbers of the noise.
        style: numbers of a style.
        mapping: layers of the mapping network.
        mixing: share of the training samples that take their finer styles from another noise, so
            that neighbouring layers learn not to rely on each other.
        judge_width: the discriminator's channels at half the size; they double at each halving, up
            to eight times as many.
        mirror: whether the photos' mirror images are learned as well.
        game: the rules of the game; see :class:`facekit.adversary.loop.Game`.
    """

    size: Literal[32, 64, 128, 256] = 64
    width: int = Field(48, ge=4, le=512)
    most: int = Field(160, ge=4, le=1024)
    latent: int = Field(64, ge=2, le=1024)
    style: int = Field(128, ge=4, le=1024)
    mapping: int = Field(2, ge=1, le=8)
    mixing: float = Field(0.5, ge=0, le=1)
    judge_width: int = Field(32, ge=4, le=256)
    mirror: bool = True
    game: Game = Game()


class _Layer(nn.Module):
    """A modulated convolution with its activation."""

    def __init__(self, inputs: int, outputs: int, style: int) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, style)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        # √2 gives back the power that the activation takes.
        return F.leaky_relu(self.conv(x, style), 0.2) * math.sqrt(2)


class Generator(nn.Module):
    """Noise (B, latent) → faces (B, 3, S, S), about in [-1, 1].

    Args:
        size: S, a power of two of at least 16.
        width: channels at half the size; they double at each halving, up to ``most``.
        most: channels at most.
        latent: numbers of the noise.
        style: numbers of a style.
        mapping: layers of the mapping network.
        mixing: share of samples whose styles are mixed, in training.

    Attributes:
        latent: numbers of the noise.
        layers: how many styles an image takes, from the coarsest to the finest.
    """

    def __init__(
        self,
        size: int,
        width: int,
        most: int,
        *,
        latent: int = 64,
        style: int = 128,
        mapping: int = 2,
        mixing: float = 0.0,
    ) -> None:
        super().__init__()
        if size < 8 * PATCH or size & (size - 1):
            raise ValueError(f"size must be a power of two of at least {8 * PATCH}, not {size}")
        doublings = int(math.log2(size // PATCH)) - 2
        channels = [min(width * 2 ** (doublings - i), most) for i in range(doublings + 1)]
        self.latent, self.mixing = latent, mixing
        self.mapping = Mapping(latent, style, mapping)
        self.start = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.first = _Layer(channels[0], channels[0], style)
        # At each resolution one convolution before the doubling, where it costs a quarter, and one
        # after it.
        self.before = nn.ModuleList(_Layer(a, b, style) for a, b in pairwise(channels))
        self.after = nn.ModuleList(_Layer(b, b, style) for b in channels[1:])
        self.colours = nn.ModuleList(
            ModulatedConv(c, 3, style, kernel=1, demodulate=False) for c in channels[:-1]
        )
        self.last = ModulatedConv(channels[-1], 3 * PATCH**2, style, demodulate=False)
        self.layers = 1 + 2 * doublings

    def forward(self, noise: Tensor) -> Tensor:
        """Draw a batch; in training, some with mixed styles."""
        styles = self.styles(noise)
        if self.training and self.mixing:
            count = len(styles)
            cut = torch.randint(1, self.layers, (count, 1))
            cut[torch.rand(count) >= self.mixing] = self.layers
            own = (torch.arange(self.layers) < cut).to(styles.device)
            styles = torch.where(own[..., None], styles, styles.roll(1, 0))
        return self.draw(styles)

    def styles(self, noise: Tensor) -> Tensor:
        """Noise (B, latent) → the same style for every layer, (B, layers, style)."""
        style: Tensor = self.mapping(noise)
        return style[:, None].expand(-1, self.layers, -1)

    def draw(self, styles: Tensor) -> Tensor:
        """Styles (B, layers, style) → faces (B, 3, S, S), float32.

        What lies beyond [-1, 1] is clipped by whoever shows it.
        """
        start = self.start.expand(len(styles), -1, -1, -1)
        if torch.is_autocast_enabled(start.device.type):
            start = start.to(torch.get_autocast_dtype(start.device.type))
        # Channels last is twice as fast on a processor.
        x = self.first(start.contiguous(memory_format=torch.channels_last), styles[:, 0])
        image = self.colours[0](x, styles[:, 0]).float()
        for i, (before, after) in enumerate(zip(self.before, self.after, strict=True)):
            x = _doubled(before(x, styles[:, 2 * i + 1]))
            x = after(x, styles[:, 2 * i + 2])
            image = _doubled(image)
            if i + 1 < len(self.colours):
                image = image + self.colours[i + 1](x, styles[:, 2 * i + 2]).float()
        fine = F.pixel_shuffle(self.last(x, styles[:, -1]).float(), PATCH)
        # Not bounded by a tanh: a generator that strays to its ends gets no gradient back.
        return _GAIN * (_doubled(image) + fine)

    def mean_style(self) -> Tensor:
        """The mean of many styles, (style,), always of the same noise."""
        random = torch.Generator().manual_seed(0)
        noise = torch.randn(_MEAN_OF, self.latent, generator=random)
        return cast(Tensor, self.mapping(noise.to(self.start.device))).mean(0)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def networks(config: Config) -> tuple[Generator, Discriminator]:
    """Both players, with weights from torch's current random state."""
    generator = Generator(
        *(config.size, config.width, config.most),
        latent=config.latent,
        style=config.style,
        mapping=config.mapping,
        mixing=config.mixing,
    )
    discriminator = Discriminator(config.size, config.judge_width, patch=PATCH)
    for module in discriminator.modules():
        if isinstance(module, nn.Conv2d):
            # He et al. 2015: with torch's own start a signal fades from layer to layer.
            nn.init.kaiming_normal_(module.weight, 0.2)
    return generator, discriminator


# Training -------------------------------------------------------------------------------------


def train(
    config: Config,
    data: Path,
    run: GatedRun,
    fabric: Fabric,
    *,
    show: Callable[[int, Pixels], None] | None = None,
) -> None:
    """Train on the faces of a folder.

    Pictures may be of any size: what is learned from is cut from each around its largest face.

    Args:
        config: see :class:`Config`.
        data: the folder.
        run: whose items of the folder to learn from, where to resume from, and to keep checkpoints
            and metrics.
        fabric: where and how precisely to compute.
        show: is handed the step and a sheet of the same 64 noises, uint8 (H, W, 3), now and then.

    Raises:
        FacekitError: if the folder shows fewer than 100 faces; or as
            :func:`facekit.adversary.loop.play`.
    """
    pixels, subjects = _faces(config, data, run.items, fabric)
    if len(pixels) < LEAST:
        raise FacekitError(
            f"{data}: shows {len(pixels)} faces; a GAN needs at least {LEAST}, since it would "
            "learn fewer by heart: give more photos"
        )
    run.note(faces=len(pixels), people=len(set(subjects)))
    _play(config, pixels, subjects, run, fabric, show)


def pretrain(config: Config, run: Run, fabric: Fabric, people: int, moments: int) -> None:
    """Train on studio people, who don't exist: what is bundled.

    Args:
        config: see :class:`Config`.
        run: where to resume from, and to keep checkpoints and metrics.
        fabric: where and how precisely to compute.
        people: how many studio people.
        moments: pictures of each.
    """
    cast_seed = int(run.facts["seed"])
    with fabric.rank_zero_first():
        pixels = studio(people, moments, config.size, cast_seed)
    run.note(cast={"people": people, "moments": moments, "seed": cast_seed})
    subjects = [f"{i // moments:04d}" for i in range(len(pixels))]
    _play(config, pixels, subjects, run, fabric, None)


def studio(people: int, frames: int, size: int, seed: int, *, workers: int | None = None) -> Tensor:
    """Faces of studio people, rendered once and kept in facekit's cache folder.

    Args:
        people: how many, at most 1000; those of another seed are others.
        frames: pictures of each.
        size: S, the side of the pictures.
        seed: of the people and what they do.
        workers: processes that render; None for one a core.

    Returns:
        uint8 (people · frames, S, S, 3), a person's in a row, the first ones the same for any
        number of people.
    """
    from facekit.datasets.studio import StudioFaces
    from facekit.studio.basis import cache_folder

    faces = StudioFaces(
        people=people,
        frames=frames,
        size=size,
        seed=seed,
        template=TEMPLATE,
        cache=cache_folder() / "faces",
        workers=min(workers or os.cpu_count() or 1, people * frames),
    )
    pixels = (to_pixels(faces[i]["image"][None])[0] for i in range(len(faces)))
    return torch.from_numpy(np.stack(list(pixels)))


def others(people: int, size: int, seed: int, *, workers: int | None = None) -> Tensor:
    """Faces of studio people whom no pre-training of this seed shows, two pictures of each.

    Arguments and what comes back are as of :func:`studio`.
    """
    return studio(people, 2, size, seed + _OTHERS_SEED, workers=workers)


def _play(
    config: Config,
    pixels: Tensor,
    subjects: Sequence[str],
    run: Run,
    fabric: Fabric,
    show: Callable[[int, Pixels], None] | None,
) -> None:
    """Play the game on pictures uint8 (N, S, S, 3), some people's kept apart."""
    apart = _held_out(subjects)
    learned, held_out = pixels[~apart], pixels[apart]
    if config.mirror:
        learned = torch.cat([learned, learned.flip(2)])
    seed_step(int(run.facts["seed"]), 0)
    play(
        config.game,
        *networks(config),
        Pictures(learned),
        run,
        fabric,
        features=load_features(fabric.device),
        held_out=Pictures(held_out),
        show=show,
        draw=sheet,
    )


def _faces(
    config: Config, data: Path, items: Sequence[Item], fabric: Fabric
) -> tuple[Tensor, list[str]]:
    """The faces of a folder, uint8 (N, S, S, 3), and whose they are."""
    from facekit.datasets.crops import load_crops

    crops = load_crops(data, template=TEMPLATE, size=config.size, device=fabric.device, items=items)
    # By how much each was enlarged: the length that the transform gives a unit.
    scale = np.hypot(crops.matrices[:, 0, 0], crops.matrices[:, 1, 0])
    if small := int((scale > 1.5).sum()):
        log.warning(
            "%s: %d of %d faces are much smaller than %d pixels; their blur will be learned too",
            *(data, small, len(crops), config.size),
        )
    return torch.from_numpy(crops.images), [item.subject for item in crops.items]


def _held_out(subjects: Sequence[str]) -> Tensor:
    """Which pictures are kept apart: those of every tenth person; of fewer people none's."""
    apart = set(sorted(set(subjects))[_HELD_OUT - 1 :: _HELD_OUT])
    return torch.tensor([subject in apart for subject in subjects])


def compared(
    source: GatedRun | str, data: Path | None, items: Sequence[Item], fabric: Fabric
) -> tuple[Tensor, Tensor]:
    """What samples are to be measured against.

    Args:
        source: a run, or the name of bundled weights.
        data: the folder that the run learned from; None for bundled weights, whose people are
            rendered again.
        items: its pictures.
        fabric: where to locate faces.

    Returns:
        The faces that were learned from, and those of people who were not: uint8 (N, S, S, 3) and
        (M, S, S, 3).

    Raises:
        FacekitError: if the weights' card does not say whom they were made from.
    """
    if isinstance(source, str):
        _, card = weights.find(WEIGHTS, source)
        settings = config.validate(card["config"], Config, source)
        found = card.get("cast")
        if not (isinstance(found, dict) and {"people", "moments", "seed"} <= found.keys()):
            raise FacekitError(f"{source}: its card does not say whom it was made from ('cast')")
        people, moments, seed = (int(found[key]) for key in ("people", "moments", "seed"))
        pixels = studio(people, moments, settings.size, seed)
        apart = _held_out([f"{i // moments:04d}" for i in range(len(pixels))])
        return pixels[~apart], others(max(people // 2, 1), settings.size, seed)
    settings = config.validate(source.facts["config"], Config, source.folder)
    assert data is not None
    pixels, subjects = _faces(settings, data, items, fabric)
    apart = _held_out(subjects)
    return pixels[~apart], pixels[apart]


def sheet(faces: Tensor) -> Pixels:
    """Faces (N, 3, S, S) in [-1, 1], eight in a row: uint8 (H, W, 3), large enough for a mark."""
    pixels = to_pixels(faces.float())
    rows = [
        np.concatenate(list(pixels[i : i + _SHEET]), 1)
        for i in range(0, len(pixels) // _SHEET * _SHEET, _SHEET)
    ] or [np.concatenate(list(pixels), 1)]
    joined = np.concatenate(rows, 0)
    factor = math.ceil(_MARKED / min(joined.shape[:2]))
    return cast(Pixels, joined.repeat(factor, 0).repeat(factor, 1))


# Use ------------------------------------------------------------------------------------------


def sample(
    source: Run | str,
    count: int,
    seed: int,
    fabric: Fabric,
    *,
    truncation: float = 1.0,
    between: int = 1,
    coarse: int = 0,
) -> Iterator[Frame]:
    """Draw faces of people who don't exist, in memory and unmarked.

    Sample ``i`` of a seed is the same however many are drawn.

    Args:
        source: a run, or the name of bundled weights.
        count: how many noises.
        seed: of the noises.
        fabric: where and how precisely to compute.
        truncation: how far styles go from their mean, from 0, the mean face, to 1; lower is surer
            and less varied.
        between: frames from each face to the next; above 1 the faces are stations of a walk that
            leads back to the first: ``count * between`` frames.
        coarse: 0, or how many layers take the style of another face (style mixing): then
            ``count * count`` faces come, where the one in row r and column c of the square has the
            ``coarse`` coarsest styles of face r and the others of face c.

    Raises:
        FacekitError: if the run or the weights are unusable, or an argument is out of range.
    """
    if not 0 <= truncation <= 1.5:
        raise FacekitError(f"--truncation {truncation}: allowed are 0 to 1.5")
    net, _ = load(source, fabric)
    if not 0 <= coarse < net.layers:
        raise FacekitError(f"--coarse {coarse}: this generator has {net.layers} layers of styles")
    return _frames(net, _noise(count, seed, net.latent), fabric, truncation, between, coarse)


@torch.no_grad()
def _frames(
    net: Generator, noise: Tensor, fabric: Fabric, truncation: float, between: int, coarse: int
) -> Iterator[Frame]:
    if between > 1:
        noise = _walk(noise, between)
    mean = net.mean_style()
    styles = torch.cat([net.styles(part) for part in torch.split(noise.to(fabric.device), 256)])
    styles = mean + truncation * (styles - mean)
    if coarse:
        of_row = styles.repeat_interleave(len(styles), 0)
        of_column = styles.repeat(len(styles), 1, 1)
        styles = torch.cat([of_row[:, :coarse], of_column[:, coarse:]], 1)
    index = 0
    for part in torch.split(styles, _AT_ONCE):
        with fabric.autocast():
            faces = net.draw(part)
        for pixels in to_pixels(faces.float()):
            yield Frame(pixels, index / RATE, index)
            index += 1


def _noise(count: int, seed: int, latent: int) -> Tensor:
    """Noise (count, latent) whose first rows are the same for any count."""
    random = torch.Generator().manual_seed(seed)
    parts = [
        torch.randn(_AT_ONCE, latent, generator=random) for _ in range(math.ceil(count / _AT_ONCE))
    ]
    return torch.cat(parts)[:count]


def _walk(noise: Tensor, between: int) -> Tensor:
    """A closed walk through noises (N, latent): (N · between, latent), all as likely as they are.

    A sum of two independent noises has the variance cos² + sin² = 1 when weighed so; a straight
    line would pass through the middle, where no noise ever is.
    """
    angle = (torch.arange(between) / between * math.pi / 2)[:, None]
    pairs = zip(noise, noise.roll(-1, 0), strict=True)
    return torch.cat([angle.cos() * a + angle.sin() * b for a, b in pairs])


def load(source: Run | str, fabric: Fabric) -> tuple[Generator, Config]:
    """The averaged generator of a run's newest checkpoint or of bundled weights, and its config.

    Raises:
        FacekitError: if there is none yet, or it is of another architecture or version.
    """
    settings, states, name = _states(source)
    net, _ = networks(settings)
    _fill(net, states["generator"], name)
    return net.to(fabric.device).eval(), settings


def discriminator(source: Run | str) -> dict[str, Any]:
    """The discriminator of a run or of bundled weights, to be handed to the detectors.

    Returns:
        ``size``, ``width`` and ``patch``, which make a
        :class:`facekit.networks.discriminator.Discriminator`, and its weights, ``discriminator``.

    Raises:
        FacekitError: as :func:`load`.
    """
    settings, states, name = _states(source)
    _, net = networks(settings)
    _fill(net, states["discriminator"], name)
    return {
        "size": settings.size,
        "width": settings.judge_width,
        "patch": PATCH,
        "discriminator": net.state_dict(),
    }


def _states(source: Run | str) -> tuple[Config, dict[str, dict[str, Tensor]], str]:
    """The config, both networks' weights in float32, and what to call them in an error."""
    if isinstance(source, str):
        path, card = weights.find(WEIGHTS, source)
        settings = config.validate(card["config"], Config, path)
        states, name = checkpoint.load(path), str(path)
    else:
        state = source.trained()
        settings = config.validate(source.facts["config"], Config, source.folder)
        players = state.get("players", {})
        states = {"generator": players.get("ema"), "discriminator": players.get("discriminator")}
        name = str(source.folder)
    if not all(isinstance(states.get(key), dict) for key in ("generator", "discriminator")):
        raise FacekitError(f"{name}: {_OTHER}")
    return settings, states, name


_OTHER = "its weights are of another architecture or version of the GAN; train anew"


def _fill(net: nn.Module, state: dict[str, Tensor], name: str) -> None:
    try:
        net.load_state_dict({key: value.float() for key, value in state.items()})
    except RuntimeError as error:
        raise FacekitError(f"{name}: {_OTHER}") from error
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise FacekitError(f"{name}: holds weights that are no numbers; train anew")


def bundle(run: Run, folder: Path, name: str) -> Path:
    """Write both networks as ``folder/name.safetensors``, in half precision.

    Raises:
        FacekitError: if the run has no checkpoint yet.
    """
    _, states, _ = _states(run)
    half = {
        net: {key: value.half() for key, value in states[net].items()}
        for net in ("generator", "discriminator")
    }
    path = folder / f"{name}.safetensors"
    checkpoint.save(path, half)
    return path
