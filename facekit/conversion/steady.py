"""Points through time: without tremor, without delay, and without a pull at cuts.

A clip that lies on disk has a future as well as a past, so each moment is read from a polynomial
that is fitted to the moments around it (local regression: Cleveland, "Robust locally weighted
regression and smoothing scatterplots", 1979). It is symmetric, so nothing lags. A quadratic over
few frames follows any turn of the head; a line over many takes out more of the tremor, but cuts
the turns short. Which of them counts is decided point by point, by whether they disagree by more
than tremor can explain (the choice of a bandwidth by Lepski, "On a problem of adaptive estimation
in Gaussian white noise", 1990).
"""

import numpy as np
from numpy.typing import NDArray

from facekit.types import Floats

_SHORT, _LONG = 0.05, 0.12  # seconds: the deviations of the Gaussian weights of the two fits
_REACH = 2.5  # deviations beyond which a frame has no weight
_TREMOR = 0.008  # of the eyes' distance: what two fits may differ by for tremor alone

_Reals = NDArray[np.float64]


def steady(points: Floats, times: NDArray[np.floating]) -> Floats:
    """Smooth the points of one face in an unbroken run of frames.

    Args:
        points: float32 (N, K, 2), in pixels; the first two are the eyes.
        times: (N,), in seconds, ascending; frames may come at any rate.

    Returns:
        float32 (N, K, 2).
    """
    values = points.reshape(len(points), -1).astype(np.float64)
    short = _local_fit(values, times, _SHORT, 2).reshape(points.shape)
    long = _local_fit(values, times, _LONG, 1).reshape(points.shape)
    eyes = np.linalg.norm(short[:, 1] - short[:, 0], axis=-1)[:, None, None]
    apart = np.linalg.norm(long - short, axis=-1, keepdims=True) / np.maximum(eyes, 1e-6)
    share = np.exp(-0.5 * (apart / _TREMOR) ** 2)
    return np.asarray(short + share * (long - short), np.float32)


def steady_scalar(values: _Reals, times: NDArray[np.floating]) -> _Reals:
    """Smooth measurements (N,) of one run by their local mean over about a tenth of a second."""
    return _local_fit(values[:, None], times, _SHORT, 0)[:, 0]


def _local_fit(
    values: _Reals, times: NDArray[np.floating], deviation: float, degree: int
) -> _Reals:
    """The value at each time of the polynomial fitted around it; values (N, D)."""
    fitted = np.empty_like(values)
    low = np.searchsorted(times, times - _REACH * deviation)
    high = np.searchsorted(times, times + _REACH * deviation, side="right")
    for i, (first, last) in enumerate(zip(low, high, strict=True)):
        since = (times[first:last] - times[i]) / deviation
        weight = np.exp(-0.5 * since**2)
        terms = min(degree + 1, last - first)  # of as few frames as these, nothing is smoothed
        basis = since[:, None] ** np.arange(terms)
        weighted = basis * weight[:, None]
        solution = np.linalg.lstsq(weighted.T @ basis, weighted.T @ values[first:last], rcond=None)
        fitted[i] = solution[0][0]
    return fitted
