"""Light on a studio person: surroundings in spherical harmonics, and up to three lamps.

Directions are the camera's: x to the viewer's right, y up, z from the scene towards the camera.
Strengths are such that a matt white surface facing a lamp of colour 1 has radiance 1; so a matt
surface's radiance is its albedo times ``irradiance``, with no π between them.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from facekit.studio.basis import Array

Colour = tuple[float, float, float]

_SPREAD = np.array([1, *[2 / 3] * 3, *[1 / 4] * 5], np.float32)
"""The cosine lobe over π, degree by degree (Ramamoorthi & Hanrahan 2001, equation 8)."""


class PlacedLamp(Protocol):
    """A lamp as a performance has it: degrees from the camera, and its linear colour."""

    @property
    def azimuth(self) -> float:
        """To the viewer's right."""

    @property
    def elevation(self) -> float:
        """Upwards."""

    @property
    def colour(self) -> Colour:
        """Times its strength."""


def harmonics(direction: Array) -> Array:
    """The nine real spherical harmonics (P, 9) up to degree 2 at unit directions (P, 3).

    In the order 1, y, z, x, xy, yz, 3z² − 1, xz, x² − y².
    """
    x, y, z = direction[:, 0], direction[:, 1], direction[:, 2]
    values = np.empty((len(direction), 9), np.float32)
    values[:, 0] = 0.282095
    values[:, 1] = 0.488603 * y
    values[:, 2] = 0.488603 * z
    values[:, 3] = 0.488603 * x
    values[:, 4] = 1.092548 * x * y
    values[:, 5] = 1.092548 * y * z
    values[:, 6] = 0.315392 * (3 * z * z - 1)
    values[:, 7] = 1.092548 * x * z
    values[:, 8] = 0.546274 * (x * x - y * y)
    return values


@dataclass(frozen=True)
class Lamp:
    """A lamp far away.

    Attributes:
        direction: unit (3,), from the scene towards the lamp.
        colour: linear RGB (3,) times its strength.
    """

    direction: Array
    colour: Array

    @classmethod
    def placed(cls, lamp: PlacedLamp) -> "Lamp":
        """From its azimuth (to the viewer's right) and elevation about the camera, in degrees."""
        azimuth, elevation = np.radians([lamp.azimuth, lamp.elevation])
        across, up = np.cos(elevation), np.sin(elevation)
        direction = np.array([np.sin(azimuth) * across, up, np.cos(azimuth) * across], np.float32)
        return cls(direction, np.array(lamp.colour, np.float32))


@dataclass(frozen=True)
class Light:
    """All the light of a performance.

    Attributes:
        environment: float32 (9, 3), radiance in spherical harmonics, ordered as ``harmonics``.
        lamps: none to three; the first is the strongest and casts the sharper shadow.
    """

    environment: Array
    lamps: tuple[Lamp, ...]

    def irradiance(self, normal: Array) -> Array:
        """What surfaces with unit normals (P, 3) get from the surroundings, over π: (P, 3)."""
        received: Array = harmonics(normal) @ (self.environment * _SPREAD[:, None])
        return np.maximum(received, 0, out=received)

    def radiance(self, direction: Array) -> Array:
        """What comes from unit directions (P, 3) of the surroundings, e.g. in a mirror: (P, 3)."""
        seen: Array = harmonics(direction) @ self.environment
        return np.maximum(seen, 0, out=seen)

    def turned(self, rotation: Array) -> Array:
        """The environment (9, 3) in the frame of something whose axes are ``rotation`` (3, 3)."""
        # Nine directions determine nine coefficients exactly.
        there = harmonics((_PROBES @ rotation.T).astype(np.float32)) @ self.environment
        own: Array = (_SOLVE @ there).astype(np.float32)
        return own


def _spiral(count: int) -> Array:
    """Unit directions (count, 3), evenly over the sphere (Fibonacci's lattice)."""
    index = np.arange(count) + 0.5
    up = 1 - 2 * index / count
    turn = np.pi * (1 + 5**0.5) * index
    across = np.sqrt(1 - up * up)
    return np.stack([across * np.cos(turn), up, across * np.sin(turn)], 1).astype(np.float32)


_PROBES = _spiral(24)
_SOLVE = np.linalg.pinv(harmonics(_PROBES))


@dataclass(frozen=True)
class Transfer:
    """How much of the surroundings' light reaches each vertex past what stands in its way.

    Precomputed radiance transfer (Sloan, Kautz & Snyder 2002), in the head's own frame.

    Attributes:
        matrix: float32 (N, 9), from an environment's coefficients to irradiance over π.
        free: float32 (N, 9), the same if nothing stood in the way.
    """

    matrix: Array
    free: Array

    def share(self, environment: Array) -> Array:
        """The share (N, 3) of each colour that arrives, of an environment in the head's frame."""
        received = np.maximum(self.matrix @ environment, 0)
        whole = self.free @ environment
        result: Array = np.clip(received / np.maximum(whole, 1e-3), 0, 1)
        return result


DIRECTIONS = _spiral(64)
"""From which the surroundings' light is gathered for a :class:`Transfer`."""


def transfer(normal: Array, seen: Array) -> Transfer:
    """From unit normals (N, 3) and the share (N, 64) of each of ``DIRECTIONS`` that is free."""
    facing = np.clip(normal @ DIRECTIONS.T, 0, None) * np.float32(4 / len(DIRECTIONS))
    basis_values = harmonics(DIRECTIONS)
    return Transfer(
        ((facing * seen) @ basis_values).astype(np.float32),
        (facing @ basis_values).astype(np.float32),
    )
