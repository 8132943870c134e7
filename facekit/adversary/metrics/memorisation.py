"""Copies: samples that are nearer to a training picture than new faces ever are.

Pictures are compared as thumbnails, whose light and contrast are brought to one measure, so that
compression, noise and sharpness hardly count; of each sample also mirrored, and moved by some
pixels. What "too near" means, pictures of people say whom training has not seen (after Meehan,
Chaudhuri, Dasgupta, "A Non-Parametric Test to Detect Data-Copying in Generative Models", 2020,
arXiv:2004.05675): an honest generator's samples need be no nearer to the training pictures than
these are.

How rarely one comes nearer than any of these did must be extrapolated. Below a small distance u,
the chance of a nearest neighbour within r falls as (r / u)^D, where D is the dimension of the data
(Levina & Bickel, "Maximum Likelihood Estimation of Intrinsic Dimension", 2004): log(u / r) is
exponentially distributed. With S the sum of these logarithms over the m nearest of M held-out
pictures, D is about m / S, and the chance that a new honest picture lies within u · exp(-x) is
(m / M) (1 + x / S)^(-m), which takes into account that D is an estimate.

It finds copied *pictures*. A new picture of a person of the training set is none; whether a face is
somebody's, an identity network has to say.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from facekit.adversary.metrics._inputs import check_features, check_images
from facekit.core.errors import FacekitError

LEAST_HELD_OUT = 20
"""Fewer pictures of unseen people say too little of how near honest ones come."""

_SIDE = 64  # to which pictures are brought
_BOX = 7  # pixels of these are one of a thumbnail
_MOST_SHIFT = 4
_ROWS = 1024
_SAME = 1e-3  # of the training pictures' spread, below which two pictures are one and the same


@dataclass(frozen=True)
class Memorisation:
    """The nearest training picture of each sample, and which are too near.

    Attributes:
        nearest: int64 (K,), the row of the training picture.
        distance: (K,), to it, in the thumbnails' or features' unit.
        mirrored: bool (K,), whether it is the sample's mirror image that is near.
        copies: int64, the rows of the samples that are called copies, nearest first.
        threshold: the distance below which a sample is a copy.
        held_out: (M,), the distances of the held-out pictures.
    """

    nearest: Tensor
    distance: Tensor
    mirrored: Tensor
    copies: Tensor
    threshold: float
    held_out: Tensor


def memorisation(
    samples: Tensor, training: Tensor, held_out: Tensor, false_alarm: float = 0.05
) -> Memorisation:
    """Look for copies.

    Args:
        samples: (V, K, F), :func:`views` of the samples; the later half of the V are mirrored.
        training: (N, F), :func:`thumbnails` of the training pictures.
        held_out: (V, M, F), :func:`views` of pictures of people who are not in training, of the
            same kind; M ≥ 20.
        false_alarm: the chance that K honest samples have one that is called a copy, in (0, 1).

    Raises:
        FacekitError: for too few pictures, features that cannot be compared, or held-out pictures
            that are among the training pictures.
    """
    if not 0 < false_alarm < 1:
        raise ValueError(f"false_alarm is {false_alarm}; it is a chance between 0 and 1")
    if samples.ndim != 3 or held_out.ndim != 3 or len(samples) != len(held_out):
        raise ValueError(
            f"samples {tuple(samples.shape)}, held_out {tuple(held_out.shape)}: "
            "give as many views of both, (V, N, F)"
        )
    check_features(1, training=training)
    for name, ways, least in (("samples", samples, 1), ("held-out", held_out, LEAST_HELD_OUT)):
        check_features(least, **{name: ways[0]})
        check_features(1, training=training, **{name: ways.flatten(0, 1)})
    distance, nearest, way = _nearest(samples, training)
    honest, _, _ = _nearest(held_out, training)
    leaked = int((honest <= _SAME * training.std(0, correction=0).norm()).sum())
    if leaked:
        raise FacekitError(
            f"held-out: {leaked} of {len(honest)} pictures are among the training pictures; give "
            "pictures of other people"
        )
    threshold = _threshold(honest, false_alarm / samples.shape[1])
    order = distance.argsort()
    copies = order[distance[order] < threshold]
    return Memorisation(nearest, distance, way >= len(samples) / 2, copies, threshold, honest)


def thumbnails(images: Tensor) -> Tensor:
    """What pictures are compared by: (B, 192), of length 1, without the mean of each colour.

    Args:
        images: (B, 3, S, S), RGB in [-1, 1], S ≥ 32.

    Raises:
        FacekitError: for other shapes or values.
    """
    middle = _MOST_SHIFT
    return _thumbnail(_boxes(images), middle, middle)


def views(images: Tensor) -> Tensor:
    """:func:`thumbnails` (162, B, 192) of pictures moved by pixels, and of their mirror images.

    Moved by up to four 64ths of the side, across and down.

    Args:
        images: as for :func:`thumbnails`.

    Raises:
        FacekitError: for other shapes or values.
    """
    shifts = range(2 * _MOST_SHIFT + 1)
    return torch.stack(
        [
            _thumbnail(boxes, y, x)
            for boxes in (_boxes(images), _boxes(images.flip(3)))
            for y in shifts
            for x in shifts
        ]
    )


def _boxes(images: Tensor) -> Tensor:
    """The means (B, 3, 58, 58) of all boxes of 7 × 7 pixels of pictures brought to 64."""
    check_images(32, images=images)
    size = (_SIDE, _SIDE)
    small = images.float()
    if small.shape[2:] != size:
        small = F.interpolate(small, size, mode="bilinear", antialias=True)
    return F.avg_pool2d(small, _BOX, 1)


def _thumbnail(boxes: Tensor, top: int, left: int) -> Tensor:
    """8 × 8 boxes side by side, which cover all but a margin of the picture."""
    cells = (_SIDE - 2 * _MOST_SHIFT) // _BOX
    chosen = boxes[:, :, top::_BOX, left::_BOX][:, :, :cells, :cells]
    return F.normalize((chosen - chosen.mean((2, 3), keepdim=True)).flatten(1), dim=1)


def _nearest(ways: Tensor, training: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distance, row, and which way, (K,) each, of the nearest training picture."""
    parts = [torch.cdist(rows, training).min(1) for rows in torch.split(ways.flatten(0, 1), _ROWS)]
    rows = torch.cat([part.indices for part in parts]).view(ways.shape[:2])
    # The products that cdist is made of lose the digits of small distances, which matter here.
    exact = (ways - training[rows]).square().sum(2).sqrt()
    distance, way = exact.min(0)
    return distance, rows.gather(0, way[None])[0], way


def _threshold(honest: Tensor, chance: float) -> float:
    """The distance that a new honest picture falls below with ``chance``; see the module."""
    distances = honest.cpu().double().sort().values
    m = max(LEAST_HELD_OUT // 2, len(distances) // 5)
    reach = distances[m]
    logarithms = float((reach / distances[:m]).log().sum())
    x = logarithms * ((chance * len(distances) / m) ** (-1 / m) - 1)
    return float(reach) * math.exp(-x)
