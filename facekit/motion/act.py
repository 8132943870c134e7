"""Give a motion to the person of a photo: each part of it the driver's, kept, scaled or set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from facekit.core.errors import FacekitError
from facekit.motion.read import BLINKS, Motion
from facekit.studio.basis import Array
from facekit.studio.fit import between_eyes, fit, points_of
from facekit.types import Floats

MOST = np.array([60.0, 35.0, 35.0])
"""Degrees that a head turns at most: beyond, a photo does not tell what would be seen."""

_FIRM = 0.9  # of the most: up to here, a turn is taken as it is
_EYES = np.array([38.0, 28.0])


@dataclass(frozen=True)
class Channel:
    """Where one part of a motion comes from.

    Attributes:
        source: the driver's, the photo's as it is, or the ``value``.
        scale: of the driver's.
        value: what is set.
    """

    source: Literal["driver", "keep", "set"] = "driver"
    scale: float = 1.0
    value: tuple[float, ...] = ()


@dataclass(frozen=True)
class Controls:
    """Where each part of a motion comes from.

    Attributes:
        pose: of the head, its place and size included; set as yaw, pitch, roll in degrees.
        expression: all face units but the lids'; set as one coefficient for all, 0 being a face at
            rest.
        gaze: set as degrees to the right and up.
        blink: how far the lids are shut; set in [0, 1].
        relative: whether pose, expression and gaze are added to the photo's, as changes from the
            driver's own rest, rather than taken over as they are.
    """

    pose: Channel = Channel()
    expression: Channel = Channel()
    gaze: Channel = Channel()
    blink: Channel = Channel()
    relative: bool = True


def parse(name: str, text: str, numbers: int) -> Channel:
    """A channel from its text: "driver", "keep", "driver*0.5", or numbers, as "10,0,0".

    Args:
        name: of the option, for errors.
        text: from the command line.
        numbers: how many there are to be set.

    Raises:
        FacekitError: if it is none of these.
    """
    given = text.strip().lower().replace(" ", "")
    if given in ("driver", "keep"):
        return Channel(given)  # type: ignore[arg-type]
    try:
        if given.startswith("driver*"):
            scale = float(given.removeprefix("driver*"))
            if np.isfinite(scale):
                return Channel(scale=scale)
        values = tuple(float(part) for part in given.split(","))
        if len(values) == numbers and np.isfinite(values).all():
            return Channel("set", value=values)
    except ValueError:
        pass
    example = ",".join("0" * numbers)
    raise FacekitError(f"{name} '{text}': allowed are driver, keep, driver*FACTOR, or {example}")


@dataclass(frozen=True)
class Sitter:
    """The person of a photo.

    Attributes:
        shape: (S,) of the face, see :class:`facekit.studio.fit.Fit`.
        view: (6,), units: (U,), gaze: (2,), as they are in the photo.
        landmarks: float32 (70, 2), in pixels.
        apart: distance between the eyes, in pixels.
        off: (70, 2), by how much the landmarks differ from the fitted face's, in distances between
            the eyes, of an upright head.
    """

    shape: Array
    view: Array
    units: Array
    gaze: Array
    landmarks: Floats
    apart: float
    off: Array


def sitters(landmarks: NDArray[np.floating], size: int) -> list[Sitter]:
    """The person of some photos, as they are in each.

    Args:
        landmarks: (N, 70, 2) of photos of one size.
        size: their side, in pixels.

    Raises:
        FacekitError: as :func:`facekit.studio.fit.fit`.
    """
    found = fit(np.asarray(landmarks, np.float64), size=size, apart=True)
    drawn = points_of(found.shape, found.units, found.gaze, found.views)
    rows = []
    for k, points in enumerate(landmarks):
        apart = between_eyes(drawn[k : k + 1])
        off = _rolled((points - drawn[k])[None], -found.views[k : k + 1, 2])[0] / apart
        rows.append(
            Sitter(
                shape=found.shape,
                view=found.views[k],
                units=found.units[k],
                gaze=found.gaze[k],
                landmarks=np.asarray(points, np.float32),
                apart=apart,
                off=off,
            )
        )
    return rows


def act(sitter: Sitter, motion: Motion, controls: Controls = Controls()) -> Floats:
    """The landmarks of a photo's person who moves so.

    A face at rest moves as the driver's does, whatever the shapes of the two. Where nothing is
    taken over, the landmarks are the photo's own.

    Returns:
        float32 (T, 70, 2), in pixels of the photo.
    """
    count, rest = len(motion), motion.rest
    own = np.repeat(sitter.view[None], count, 0)
    views = own.copy()
    pose = controls.pose
    views[:, :3] = _taken(pose, own[:, :3], motion.pose, rest, controls.relative)
    if pose.source == "driver":
        # A place in one picture is none in another: only its changes are taken over.
        zoom = pose.scale * (motion.zoom - motion.zoom[rest])
        views[:, 3:5] += pose.scale * sitter.apart * (motion.shift - motion.shift[rest])
        views[:, 5] += np.clip(zoom, -0.5, 0.5)
    # A photo whose head is turned further can still be kept as it is.
    views[:, :3] = _softly(views[:, :3], np.maximum(MOST, np.abs(own[:, :3]) / _FIRM))

    units = np.repeat(sitter.units[None], count, 0)
    lids = units[:, BLINKS].copy()
    units = np.clip(_taken(controls.expression, units, motion.units, rest, controls.relative), 0, 1)
    # A blink is a blink: it is never added to another one.
    units[:, BLINKS] = np.clip(
        _taken(controls.blink, lids, motion.units[:, BLINKS], rest, relative=False), 0, 1
    )
    gaze = np.repeat(sitter.gaze[None], count, 0)
    gaze = np.clip(_taken(controls.gaze, gaze, motion.gaze, rest, controls.relative), -_EYES, _EYES)

    drawn = points_of(sitter.shape, units, gaze, views)
    larger = sitter.apart * np.exp(views[:, 5] - sitter.view[5])[:, None, None]
    return np.asarray(drawn + larger * _rolled(sitter.off[None], views[:, 2]), np.float32)


def _taken(channel: Channel, own: Array, driver: Array, rest: int, relative: bool) -> Array:
    """One part of the motion, (T, N), where the photo has ``own``."""
    if channel.source == "keep":
        return own
    if channel.source == "set":
        fixed: Array = np.broadcast_to(np.array(channel.value), own.shape).copy()
        return fixed
    if relative:
        changed: Array = own + channel.scale * (driver - driver[rest])
        return changed
    scaled: Array = channel.scale * driver
    return scaled


def _softly(angles: Array, most: Array) -> Array:
    """Angles that stop softly at the most that is allowed, from nine tenths of it on."""
    firm = _FIRM * most
    over = np.maximum(np.abs(angles) - firm, 0)
    room = most - firm
    within: Array = np.sign(angles) * (
        np.minimum(np.abs(angles), firm) + room * np.tanh(over / room)
    )
    return within


def _rolled(points: Array, degrees: Sequence[float] | Array) -> Array:
    """Offsets (T or 1, P, 2) turned clockwise, as seen in the picture, by degrees (T,)."""
    turn = np.radians(np.asarray(degrees))
    cosine, sine = np.cos(turn), np.sin(turn)
    matrix = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2)
    turned: Array = np.einsum(
        "tij,tpj->tpi", matrix, np.broadcast_to(points, (len(turn), *points.shape[1:]))
    )
    return turned
