"""How good a generator's samples are: the figures, and what they are worth beside.

Samples are compared with faces of people whom nobody trained on. The same table says

- what the *training pictures* themselves score against these people: real against real is the
  floor under any distance, and no generator need do better;
- what *trivial generators* score: a Gaussian of each pixel about the mean face, and one along the
  training set's principal components. Whoever is no better than these has learned no faces.

Distances, recall and the like depend on how many pictures are compared, so all rows have as many.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facekit.adversary.metrics.fid import fid
from facekit.adversary.metrics.kid import Estimate, kid
from facekit.adversary.metrics.memorisation import (
    Memorisation,
    memorisation,
    thumbnails,
    views,
)
from facekit.adversary.metrics.prdc import PRDC, prdc
from facekit.core.errors import FacekitError
from facekit.core.figures import Figure
from facekit.core.seed import seed_step
from facekit.generators._peers import to_bytes, to_images
from facekit.types import Pixels

LEAST = 50
"""Pictures of a kind below which the figures say nothing."""

SHEET = 64
"""Pictures of each kind on the sheet."""

_COMPONENTS = 100
_AT_ONCE = 64
_PAIRS = 16

Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Scores:
    """What one set of pictures scores against faces of other people."""

    kid: Estimate
    fid: float
    shares: PRDC


@dataclass(frozen=True)
class Reference:
    """What samples are compared with, on one device.

    Attributes:
        training: pictures that the generator has learned from, uint8 (N, S, S, 3).
        others: pictures of people whom it has not seen, uint8 (M, S, S, 3).
    """

    training: Tensor
    others: Tensor

    def require(self, samples: int) -> int:
        """How many pictures of each kind can be compared, with so many samples.

        Raises:
            FacekitError: if there are too few of one kind.
        """
        counts = {
            "samples": samples,
            "training pictures": len(self.training),
            "pictures of people that training has not seen": len(self.others),
        }
        for name, count in counts.items():
            if count < LEAST:
                raise FacekitError(
                    f"{count} {name}: too few to measure a generator; at least {LEAST} are needed"
                )
        return min(samples, len(self.training))


@dataclass(frozen=True)
class Measured:
    """What an evaluation finds.

    Attributes:
        figures: rows, the floors among them.
        sheet: samples beside training pictures, uint8 (H, W, 3).
        nearest: the samples nearest to a training picture, each beside these: uint8 (H, W, 3).
    """

    figures: list[Figure]
    sheet: Pixels
    nearest: Pixels


def measure(
    name: str, samples: Tensor, reference: Reference, features: Features, seed: int = 0
) -> Measured:
    """Measure samples against faces of other people, beside what trivial generators score.

    Args:
        name: of the generator, which the rows begin with.
        samples: uint8 (K, S, S, 3), on the reference's device.
        reference: of the same size.
        features: by which faces are compared.
        seed: of the trivial generators, and of which pictures are compared.

    Raises:
        FacekitError: if there are too few pictures of a kind.
    """
    count = reference.require(len(samples))
    seed_step(seed, 1)
    chosen = torch.randperm(len(reference.training))[:count].to(reference.training.device)
    others = described(reference.others, features)
    beside_it = {"real": reference.training[chosen], **trivial(reference.training, count, seed)}
    floors = {key: scores(described(pixels, features), others) for key, pixels in beside_it.items()}
    # The better trivial generator: whoever does not beat it has learned no faces.
    floor = min((floors["pixels"], floors["components"]), key=lambda one: one.kid)
    near = copies(samples, reference)
    figures = rows(name, scores(described(samples[:count], features), others), floor=floor)
    figures.append(Figure(f"{name}.copies", float(len(near.copies))))
    for key, one in floors.items():
        figures += rows(name, one, of=key)
    sheet = beside(
        [
            ("generated", samples[:SHEET].numpy(force=True)),
            ("what it learned from", reference.training[chosen[:SHEET]].numpy(force=True)),
        ]
    )
    return Measured(figures, sheet, nearest_pairs(samples, reference.training, near))


def nearest_pairs(samples: Tensor, training: Tensor, near: Memorisation) -> Pixels:
    """The samples nearest to a training picture, and in the same places these: uint8 (H, W, 3)."""
    order = near.distance.argsort()[:_PAIRS]
    shown = training[near.nearest[order]]
    turned = torch.where(near.mirrored[order][:, None, None, None], shown.flip(2), shown)
    return beside(
        [
            (
                f"generated, nearest first; {len(near.copies)} copies",
                samples[order].numpy(force=True),
            ),
            ("the nearest pictures it learned from", turned.numpy(force=True)),
        ],
        columns=4,
        scale=3,
    )


def described(pixels: Tensor, features: Features) -> Tensor:
    """The features (N, F) of pictures uint8 (N, S, S, 3)."""
    return torch.cat([features(to_images(part)) for part in torch.split(pixels, _AT_ONCE)])


def copies(samples: Tensor, reference: Reference) -> Memorisation:
    """Which samples, uint8 (K, S, S, 3), are copies of training pictures, and what is nearest."""
    return memorisation(
        views(to_images(samples)),
        thumbnails(to_images(reference.training)),
        views(to_images(reference.others)),
    )


def scores(found: Tensor, others: Tensor) -> Scores:
    """Compare features of a set (N, F) with those of other people's faces (M, F)."""
    return Scores(kid(others, found), fid(others, found), prdc(others, found))


def trivial(training: Tensor, count: int, seed: int) -> dict[str, Tensor]:
    """What generators make that have learned no faces: name → uint8 (count, S, S, 3).

    ``pixels``: each pixel drawn by itself from a Gaussian with its mean and deviation.
    ``components``: a Gaussian along the principal components.
    """
    seed_step(seed, 0)
    flat = to_images(training).flatten(1)
    mean = flat.mean(0)
    centred = flat - mean
    noise = torch.randn(count, flat.shape[1]).to(flat.device)
    _, values, directions = torch.pca_lowrank(centred, min(_COMPONENTS, *flat.shape), center=False)
    along = torch.randn(count, len(values)).to(flat.device) * values / (len(flat) - 1) ** 0.5
    shape = (count, 3, *training.shape[1:3])
    return {
        "pixels": to_bytes((mean + noise * flat.std(0)).view(shape)),
        "components": to_bytes((mean + along @ directions.T).view(shape)),
    }


def rows(
    name: str,
    found: Scores,
    *,
    of: str = "",
    peer: float | None = None,
    floor: Scores | None = None,
) -> list[Figure]:
    """The figures of one set: ``NAME.kid``, ``.fid``, ``.precision``, ``.recall`` and so on.

    Args:
        name: of the generator.
        found: the set's scores.
        of: what the set is, if it is not the generator's: rows are then called ``NAME.kid.OF``.
        peer: another tool's KID, if one was measured.
        floor: a trivial generator's scores on the same data.
    """
    end = f".{of}" if of else ""
    values = {"kid": found.kid.value, "fid": found.fid, **found.shares._asdict()}
    floors: dict[str, float] = {}
    if floor:
        floors = {"kid": floor.kid.value, "fid": floor.fid, **floor.shares._asdict()}
    figures = [
        Figure(f"{name}.{key}{end}", value, floor=floors.get(key)) for key, value in values.items()
    ]
    figures[0] = replace(figures[0], low=found.kid.low, high=found.kid.high, peer=peer)
    return figures


def beside(sheets: list[tuple[str, Pixels]], columns: int = 8, scale: int = 2) -> Pixels:
    """Grids of pictures side by side, each under its title.

    Args:
        sheets: title, and pictures uint8 (N, S, S, 3) of one size; a grid is filled row by row.
        columns: pictures in a row.
        scale: pixels on the sheet to one of a picture.

    Returns:
        uint8 (H, W, 3).
    """
    import cv2

    grids = []
    for title, pictures in sheets:
        count, side = len(pictures), pictures.shape[1] * scale
        lines = -(-count // columns)
        grid = np.full((lines * side + _TITLE, columns * side, 3), 255, np.uint8)
        cv2.putText(grid, title, (4, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        for i, picture in enumerate(pictures):
            y, x = divmod(i, columns)
            large = cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC)
            grid[_TITLE + y * side : _TITLE + (y + 1) * side, x * side : (x + 1) * side] = large
        grids.append(grid)
    height = max(len(grid) for grid in grids)
    padded = [_below(grid, height) for grid in grids]
    gap = np.full((height, 12, 3), 255, np.uint8)
    parts = [part for grid in padded for part in (grid, gap)][:-1]
    joined: Pixels = np.concatenate(parts, axis=1)
    return joined


_TITLE = 28  # pixels


def _below(grid: Pixels, height: int) -> Pixels:
    white = ((0, height - len(grid)), (0, 0), (0, 0))
    padded: NDArray[np.uint8] = np.pad(grid, white, constant_values=255)
    return padded
