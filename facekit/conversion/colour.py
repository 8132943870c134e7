"""Bring a new face to the colours of the target's light, in two ways, evenly through time.

``reinhard`` matches mean and deviation of each channel of Lab (Reinhard et al., "Color Transfer
between Images", IEEE CG&A 2001). ``transport`` matches the covariance as well: of all linear maps
that do, the Monge-Kantorovitch map moves colours the least (Pitié & Kokaram, "The linear
Monge-Kantorovitch linear colour mapping for example-based colour transfer", CVMP 2007). Lab keeps
lightness and colours about decorrelated, so that a cast is not mistaken for contrast.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.core.errors import FacekitError, did_you_mean
from facekit.types import Floats

Transfer = Literal["transport", "reinhard", "none"]
TRANSFERS: tuple[Transfer, ...] = get_args(Transfer)

_LEAST, _MOST = 0.5, 2.0
"""Gains: a flat crop has no contrast to stretch, and a highlight must not blow it up."""

_NOISE = 1.0  # of Lab's units: the deviation that is added to both, so that none is zero

_Reals = NDArray[np.float64]


@dataclass(frozen=True)
class ColourMap:
    """``linear @ lab + shift``.

    Attributes:
        linear: float64 (3, 3).
        shift: float64 (3,).
    """

    linear: _Reals
    shift: _Reals

    @classmethod
    def mean(cls, maps: Sequence["ColourMap"], weights: Sequence[float]) -> "ColourMap":
        """The weighted mean of maps."""
        share = np.asarray(weights) / np.sum(weights)
        return cls(
            np.einsum("n,nij->ij", share, np.stack([one.linear for one in maps])),
            share @ np.stack([one.shift for one in maps]),
        )

    def apply(self, crop: Floats) -> Floats:
        """Map the colours of a crop, float32 RGB (H, W, 3) in [0, 1]; it may leave that a bit."""
        lab = cv2.transform(_to_lab(crop), np.column_stack([self.linear, self.shift]))
        return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.float32)


UNCHANGED = ColourMap(np.eye(3), np.zeros(3))


def match(crop: Floats, target: Floats, weight: Floats, method: Transfer) -> ColourMap:
    """The map that gives ``crop`` the colours of ``target``.

    Args:
        crop: float32 RGB (H, W, 3) in [0, 1].
        target: as ``crop``, of the same size.
        weight: float32 (H, W) in [0, 1], of each pixel in both.
        method: see the module's text; "none" changes nothing.

    Raises:
        FacekitError: for another method.
    """
    if method not in TRANSFERS:
        raise FacekitError(f"no colour transfer '{method}'; {did_you_mean(method, TRANSFERS)}")
    if method == "none" or weight.sum() < 1:
        return UNCHANGED
    from_mean, from_spread = _statistics(crop, weight)
    to_mean, to_spread = _statistics(target, weight)
    if method == "reinhard":
        gains = np.sqrt(np.diag(to_spread) / np.diag(from_spread))
        linear = np.diag(np.clip(gains, _LEAST, _MOST))
    else:
        root, inverse = _roots(from_spread)
        linear = inverse @ _roots(root @ to_spread @ root)[0] @ inverse
        values, vectors = np.linalg.eigh(linear)
        linear = vectors * np.clip(values, _LEAST, _MOST) @ vectors.T
    return ColourMap(linear, to_mean - linear @ from_mean)


def _statistics(crop: Floats, weight: Floats) -> tuple[_Reals, _Reals]:
    """Mean (3,) and covariance (3, 3) in Lab."""
    lab = _to_lab(crop).reshape(-1, 3).astype(np.float64)
    share = (weight / weight.sum()).reshape(-1).astype(np.float64)
    mean = share @ lab
    spread = lab - mean
    return mean, (spread * share[:, None]).T @ spread + _NOISE**2 * np.eye(3)


def _roots(matrix: _Reals) -> tuple[_Reals, _Reals]:
    """The square root of a symmetric, positive matrix, and its inverse."""
    values, vectors = np.linalg.eigh(matrix)
    root = np.sqrt(np.maximum(values, 1e-9))
    return vectors * root @ vectors.T, vectors / root @ vectors.T


def _to_lab(crop: Floats) -> Floats:
    within = np.clip(np.ascontiguousarray(crop), 0, 1)
    return np.asarray(cv2.cvtColor(within, cv2.COLOR_RGB2LAB), np.float32)
