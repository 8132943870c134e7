"""Copies: samples that are nearer to a training picture than new faces ever are.

Of each sample the nearest training picture is found, by features of the sample and of its mirror
image. What "too near" means, pictures of people say whom training has not seen (after Meehan,
Chaudhuri, Dasgupta, "A Non-Parametric Test to Detect Data-Copying in Generative Models", 2020,
arXiv:2004.05675): an honest generator's samples need be no nearer to the training pictures than
these are. The logarithms of their distances are taken to be normal; a sample is called a copy where
its distance is so far down that tail that a whole set of honest samples would have one there with
the stated chance only, and where it is below all of the held-out ones.

It finds copied *pictures*: mirrored, moved by pixels, compressed again. A new picture of a person
of the training set is none; whether a face is somebody's, an identity network has to say.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from facekit.adversary.metrics._inputs import check_features
from facekit.core.errors import FacekitError

LEAST_HELD_OUT = 20
"""Fewer pictures of unseen people say too little of how near honest ones come."""

_ROWS = 1024
_SAME = 1e-3  # of the median distance, below which two pictures are one and the same


@dataclass(frozen=True)
class Memorisation:
    """The nearest training picture of each sample, and which are too near.

    Attributes:
        nearest: int64 (K,), the row of the training picture.
        distance: (K,), to it, in the features' unit.
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
        samples: (2, K, F), of :func:`both_ways`.
        training: (N, F): the features of the training pictures.
        held_out: (2, M, F), of :func:`both_ways` on pictures of people who are not in training,
            of the same kind; M ≥ 20.
        false_alarm: the chance that K honest samples have one that is called a copy, in (0, 1).

    Raises:
        FacekitError: for too few pictures, or features that cannot be compared.
    """
    if not 0 < false_alarm < 1:
        raise ValueError(f"false_alarm is {false_alarm}; it is a chance between 0 and 1")
    check_features(1, training=training)
    for name, views, least in (("samples", samples, 1), ("held-out", held_out, LEAST_HELD_OUT)):
        if views.ndim != 3 or len(views) != 2:
            raise ValueError(f"{name}: {tuple(views.shape)}; both_ways gives (2, N, F)")
        check_features(1, training=training, **{name: views.flatten(0, 1)})
        check_features(least, **{name: views[0]})
    distance, nearest, mirrored = _nearest(samples, training)
    honest, _, _ = _nearest(held_out, training)
    leaked = int((honest < _SAME * honest.median()).sum())
    if leaked:
        raise FacekitError(
            f"held-out: {leaked} of {len(honest)} pictures are among the training pictures; give "
            "pictures of other people"
        )
    threshold = _threshold(honest, false_alarm / samples.shape[1])
    order = distance.argsort()
    copies = order[distance[order] < threshold]
    return Memorisation(nearest, distance, mirrored, copies, threshold, honest)


def both_ways(features: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The features (2, B, F) of images (B, 3, S, S) and of their mirror images."""
    return torch.stack([features(images), features(images.flip(3))])


def _nearest(views: Tensor, training: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distance, row, and whether mirrored, (K,) each, of the nearest training picture."""
    found = [torch.cdist(rows, training).min(1) for rows in torch.split(views.flatten(0, 1), _ROWS)]
    rows = torch.cat([part.indices for part in found]).view(2, -1)
    # The products that cdist is made of lose the digits of small distances, which matter here.
    exact = (views - training[rows]).square().sum(2).sqrt()
    distance, way = exact.min(0)
    return distance, rows.gather(0, way[None])[0], way.bool()


def _threshold(honest: Tensor, chance: float) -> float:
    """The distance that honest pictures fall below with ``chance``, and none of these does."""
    logarithms = honest.cpu().double().log()
    tail = logarithms.mean() + NormalDist().inv_cdf(chance) * logarithms.std()
    return min(math.exp(float(tail)), float(honest.min()))
