"""Bring a new face to the colours of the target's light, in two ways, evenly through time.

``reinhard`` matches mean and deviation of each channel of Lab (Reinhard et al., "Color Transfer
between Images", IEEE CG&A 2001). ``transport`` matches the covariance as well: of all linear maps
that do, the Monge-Kantorovitch map moves colours the least (Pitié & Kokaram, "The linear
Monge-Kantorovitch linear colour mapping for example-based colour transfer", CVMP 2007). Lab keeps
lightness and colours about decorrelated, so that a cast is not mistaken for contrast.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.core.errors import FacekitError, did_you_mean
from facekit.faces.align import TEMPLATES
from facekit.faces.blend import ellipse
from facekit.types import Floats

Transfer = Literal["transport", "reinhard", "none"]
TRANSFERS: tuple[Transfer, ...] = get_args(Transfer)

_LEAST, _MOST = 0.5, 2.0
"""Gains: a flat crop has no contrast to stretch, and a highlight must not blow it up."""

_EYE = (0.10, 0.05)  # half axes, in the unit square of the crop, of where an eye may be
# How far from the face's mean, in deviations of all its colours, brows' and lips' among them, is
# skin as often as not, and surely none.
_SKIN = (1.5, 3.0)
_KEPT = 0.7  # of an eye's own colours: what is drawn of it is small, and has some of the lids'

_NOISE = 1.0  # of Lab's units: the deviation that is added to both, so that none is zero

_Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Colours:
    """What a face's colours are like, in Lab.

    Attributes:
        mean: float64 (3,).
        spread: their covariance, float64 (3, 3).
    """

    mean: _Reals
    spread: _Reals

    @classmethod
    def of(cls, crop: Floats, weight: Floats) -> "Colours | None":
        """Measure a crop; None if there is next to nothing to measure.

        Args:
            crop: float32 RGB (H, W, 3) in [0, 1].
            weight: float32 (H, W) in [0, 1], of each pixel.
        """
        total = float(weight.sum())
        if total < 1:
            return None
        lab = _to_lab(crop).reshape(-1, 3).astype(np.float64)
        share = weight.reshape(-1).astype(np.float64) / total
        mean = share @ lab
        spread = lab - mean
        return cls(mean, (spread * share[:, None]).T @ spread + _NOISE**2 * np.eye(3))

    @classmethod
    def average(cls, several: Sequence["Colours"], weights: Sequence[float]) -> "Colours":
        """The weighted mean of what is alike: the colours of one face in frames in a row."""
        share = np.asarray(weights) / np.sum(weights)
        return cls(
            share @ np.stack([one.mean for one in several]),
            np.einsum("n,nij->ij", share, np.stack([one.spread for one in several])),
        )


@dataclass(frozen=True)
class ColourMap:
    """``linear @ lab + shift``.

    Attributes:
        linear: float64 (3, 3).
        shift: float64 (3,).
    """

    linear: _Reals
    shift: _Reals

    def apply(self, crop: Floats) -> Floats:
        """Map the colours of a crop, float32 RGB (H, W, 3) in [0, 1]; it may leave that a bit."""
        lab = cv2.transform(_to_lab(crop), np.column_stack([self.linear, self.shift]))
        return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.float32)


def match(face: Colours, target: Colours, method: Transfer) -> ColourMap | None:
    """The map that brings one face's colours to another's; None if the method is "none".

    Args:
        face: what is to be mapped.
        target: what it is to become.
        method: see the module's text.

    Raises:
        FacekitError: for another method.
    """
    if method not in TRANSFERS:
        raise FacekitError(f"no colour transfer '{method}'; {did_you_mean(method, TRANSFERS)}")
    if method == "none":
        return None
    if method == "reinhard":
        gains = np.sqrt(np.diag(target.spread) / np.diag(face.spread))
        linear = np.diag(np.clip(gains, _LEAST, _MOST))
    else:
        root, inverse = _roots(face.spread)
        linear = inverse @ _roots(root @ target.spread @ root)[0] @ inverse
        values, vectors = np.linalg.eigh(linear)
        linear = vectors * np.clip(values, _LEAST, _MOST) @ vectors.T
    return ColourMap(linear, target.mean - linear @ face.mean)


def eyes(crop: Floats, face: Colours) -> Floats:
    """How far a crop of the template "face" shows an eye, and not the skin around it.

    White and iris are seen in the light of the skin, but have nothing of its complexion: what makes
    pale skin dark would make them black, and the other way round they would glow. The face is taken
    to be drawn in the target's light, as a swap is.

    Args:
        crop: float32 RGB (S, S, 3) in [0, 1].
        face: its colours, most of which are those of skin.

    Returns:
        float32 (S, S) in [0, 1].
    """
    _, inverse = _roots(face.spread)
    white = cv2.transform(_to_lab(crop), np.column_stack([inverse, -inverse @ face.mean]))
    apart = np.sqrt(np.square(white).sum(2))
    other = np.clip((apart - _SKIN[0]) / (_SKIN[1] - _SKIN[0]), 0, 1)
    return np.asarray(_KEPT * _about_eyes(len(crop)) * other, np.float32)


@lru_cache(maxsize=4)
def _about_eyes(size: int) -> Floats:
    right, left = (ellipse(size, (x, y), _EYE, 0.4) for x, y in TEMPLATES["face"][:2])
    return right + left


def _roots(matrix: _Reals) -> tuple[_Reals, _Reals]:
    """The square root of a symmetric, positive matrix, and its inverse."""
    values, vectors = np.linalg.eigh(matrix)
    root = np.sqrt(np.maximum(values, 1e-9))
    return vectors * root @ vectors.T, vectors / root @ vectors.T


def _to_lab(crop: Floats) -> Floats:
    within = np.clip(np.ascontiguousarray(crop), 0, 1)
    return np.asarray(cv2.cvtColor(within, cv2.COLOR_RGB2LAB), np.float32)
