"""Smooth a followed face's points as they come in, without delay, and say where they go next."""

import numpy as np
from numpy.typing import NDArray

from facekit.types import Floats, Landmarks

# The share of a point's deviation that is new in each frame. The greater part stays: the network
# is off by as much, to the same side, in the next frame, and no smoothing would help.
_TREMOR = 0.3
# How fast points wander within the face, in eye distances per square root of a second: less would
# delay lips and lids, more would let the network's tremor through.
_WANDER = 0.04
_SURPRISE = 3.0  # a point that is off by so many variances has moved: it is followed at once
_STEADINESS = 0.1  # seconds over which the motion of the whole face is averaged

_Complex = NDArray[np.complex128]
_Reals = NDArray[np.float64]


class Smoother:
    """A Kalman filter of each point, in a frame that moves along with the face.

    The motion of the whole face, a similarity, is fitted anew at each moment to all 70 points, each
    weighed by the network's own deviation of it. So many points hardly tremble together: it needs
    no filter, and what has none has no lag, whether the head moves evenly, speeds up or turns back.
    Within the face points wander slowly, and there each is filtered, by the tremor that its
    deviation lets expect. A point that jumps by more, a blinking lid, is let go at once. All is in
    seconds, so frames may come at any rate.

    Why no one-euro filter (Casiez et al., 2012): it knows no motion, only a slower or faster low
    pass, so it lags where it smooths. On three clean studio clips, read by the network, 0.87 of
    its jitter is left here with a lag of 0.08 frames and no more error; one-euro filters leave 0.75
    to 1.0 of it with lags of 0.3 to 1 frames and up to a third more error. With a tremor of 1% of
    the eyes' distance 0.4 is left here, at the same lag. ``tests/test_track.py`` compares them.
    """

    def __init__(self, landmarks: Landmarks, time: float) -> None:
        """Begin with a face's first landmarks."""
        self._points = _complex(landmarks.points)
        self._variance = _variance(landmarks)
        self._time = time
        self._shift = 0j  # of the centre, in pixels a second
        self._turn = 0j  # logarithm of the scale, and i times the angle, a second

    def expected(self, time: float) -> Floats:
        """Where the points (70, 2) will be at ``time``, if the face moves on as it did."""
        passed = time - self._time
        centre = self._points.mean()
        moved = (self._points - centre) * np.exp(self._turn * passed) + centre
        return _floats(moved + self._shift * passed)

    def update(self, landmarks: Landmarks, time: float) -> Floats:
        """Take in the landmarks of a later frame.

        Args:
            landmarks: as read.
            time: of the frame, in seconds.

        Returns:
            The smoothed points, float32 (70, 2).
        """
        passed = max(time - self._time, 1e-6)
        measured, noise = _complex(landmarks.points), _variance(landmarks)
        scale, offset = _similarity(self._points, measured, 1 / noise)
        carried = scale * self._points + offset
        self._learn_motion(carried, scale, passed)

        eyes = abs(measured[42:48].mean() - measured[36:42].mean())
        variance = self._variance * abs(scale) ** 2 + (_WANDER * eyes) ** 2 * passed
        missed = measured - carried
        # Both axes count, each with the variance of one.
        variance = np.maximum(variance, np.abs(missed) ** 2 / (2 * _SURPRISE) - noise)
        gain = variance / (variance + noise)
        self._points = carried + gain * missed
        self._variance = (1 - gain) * variance
        self._time = time
        return _floats(self._points)

    def _learn_motion(self, carried: _Complex, scale: complex, passed: float) -> None:
        share = 1 - np.exp(-passed / _STEADINESS)
        shift = (carried.mean() - self._points.mean()) / passed
        self._shift += share * (shift - self._shift)
        self._turn += share * (np.log(scale) / passed - self._turn)


def _similarity(points: _Complex, to: _Complex, weights: _Reals) -> tuple[complex, complex]:
    """Scale with rotation, and offset, that bring points (N,) nearest to others (Umeyama 1991)."""
    weights = weights / weights.sum()
    centre, aim = (weights * points).sum(), (weights * to).sum()
    spread = points - centre
    scale = (weights * spread.conj() * (to - aim)).sum() / (weights * np.abs(spread) ** 2).sum()
    return complex(scale), complex(aim - scale * centre)


def _variance(landmarks: Landmarks) -> _Reals:
    """Of each point's tremor along an axis, in square pixels; none is beyond doubt."""
    return (_TREMOR * np.maximum(landmarks.deviation.astype(np.float64), 0.1)) ** 2


def _complex(points: Floats) -> _Complex:
    return np.ascontiguousarray(points, np.float64).view(np.complex128)[:, 0]


def _floats(points: _Complex) -> Floats:
    return points[:, None].view(np.float64).astype(np.float32)
