"""A motion in a JSON file: a track of landmarks, or of coefficients.

Landmarks, of one face in pictures of ``size`` pixels, 68 (iBUG-300W's) or 70 (and the centres of
the irises)::

    {"times": [0.0, 0.04], "size": 256, "landmarks": [[[80.1, 120.3], …], …]}

Coefficients, each with a value for each time; what is left out is 0. Angles are in degrees, face
units (ARKit's names; the eyes' own, cheekPuff and tongueOut are passed over) in [0, 1]. Times begin
at 0, whatever the first one is::

    {"times": [0.0, 0.04], "yaw": [0, 1.5], "jawOpen": [0, 0.2], "gaze_x": [0, -5]}
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from facekit.core import files
from facekit.core.errors import FacekitError, did_you_mean
from facekit.motion.read import Motion, from_track
from facekit.motion.watch import Track
from facekit.studio.basis import Array
from facekit.studio.fit import UNITS
from facekit.studio.performance import FACE_UNITS

log = logging.getLogger("facekit")

LONGEST = 3600.0
"""Seconds that a track lasts at most."""

_POSE, _GAZE = ("yaw", "pitch", "roll"), ("gaze_x", "gaze_y")


def read_motion(path: Path) -> Motion:
    """The motion in a file; see above.

    Raises:
        FacekitError: if it is missing or no JSON, a key is unknown, or values are no numbers, too
            many or too few, or out of range; the key is named.
    """
    content = files.read_json(path)
    if not isinstance(content, dict) or "times" not in content:
        raise FacekitError(
            f"{path}: no track: that is a JSON object with 'times', and 'size' and 'landmarks', "
            "or coefficients by name"
        )
    times = _numbers(path, "times", content.pop("times"))
    if times.ndim != 1 or not len(times) or (np.diff(times) <= 0).any():
        raise FacekitError(f"{path}: 'times' are no seconds that increase")
    times = times - times[0]
    if times[-1] > LONGEST:
        raise FacekitError(
            f"{path}: 'times' span {times[-1]:.0f} seconds; allowed are {LONGEST:.0f}"
        )
    if "landmarks" in content:
        return _of_landmarks(path, times, content)
    return _of_coefficients(path, times, content)


def _of_landmarks(path: Path, times: Array, content: dict[str, Any]) -> Motion:
    landmarks = _numbers(path, "landmarks", content.pop("landmarks"))
    size = content.pop("size", None)
    if not isinstance(size, int) or content:
        extra = f", not {', '.join(content)}" if content else ""
        raise FacekitError(
            f"{path}: beside 'landmarks' and 'times' stands 'size', the pictures' longer side in "
            f"pixels{extra}"
        )
    seen = np.ones(len(times), np.bool_)
    try:
        return from_track(Track(times.astype(np.float64), landmarks.astype(np.float32), seen, size))
    except FacekitError as error:
        raise FacekitError(f"{path}: {error}") from error


def _of_coefficients(path: Path, times: Array, content: dict[str, Any]) -> Motion:
    known = [*_POSE, *_GAZE, *UNITS]
    values: dict[str, Array] = {}
    if unused := [name for name in content if name in FACE_UNITS and name not in UNITS]:
        log.info("%s: %s are passed over; the eyes follow gaze_x and gaze_y", path, unused)
    for name, given in content.items():
        if name in unused:
            continue
        if name not in known:
            raise FacekitError(f"{path}: no coefficient '{name}'; {did_you_mean(name, known)}")
        found = _numbers(path, name, given)
        if found.shape != times.shape:
            raise FacekitError(
                f"{path}: '{name}' has {found.size} values, 'times' {len(times)}; give one for each"
            )
        if name in UNITS and (found.min() < 0 or found.max() > 1):
            raise FacekitError(f"{path}: '{name}' goes beyond 0 to 1")
        if name not in UNITS and np.abs(found).max() > 90:
            raise FacekitError(f"{path}: '{name}' goes beyond 90 degrees")
        values[name] = found

    def columns(names: list[str] | tuple[str, ...]) -> Array:
        rest = np.zeros(len(times))
        return np.stack([values.get(name, rest) for name in names], 1)

    return Motion(
        times=times,
        pose=columns(_POSE),
        shift=np.zeros((len(times), 2)),
        zoom=np.zeros(len(times)),
        units=columns(UNITS),
        gaze=columns(_GAZE),
    )


def _numbers(path: Path, name: str, given: Any) -> Array:
    try:
        found = np.array(given, np.float64)
    except (TypeError, ValueError):
        found = np.array(np.nan)
    if not found.size or not np.isfinite(found).all():
        raise FacekitError(f"{path}: '{name}' holds something that is no number")
    return found
