"""Motion: what of a track of landmarks is not the face's shape."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facekit.core.errors import FacekitError
from facekit.motion.watch import Track
from facekit.studio.basis import Array
from facekit.studio.fit import DISTANCE, UNITS, between_eyes, fit
from facekit.studio.performance import Performance
from facekit.studio.scene import SENSOR

BLINKS = [i for i, name in enumerate(UNITS) if name.startswith("eyeBlink")]
"""Of :data:`facekit.studio.fit.UNITS`, those that shut the eyes."""

_APART = 0.62  # dm between the eyes
_TURN = 20.0  # degrees that count as much as a whole face unit, where a rest is looked for


@dataclass(frozen=True)
class Motion:
    """What a head does.

    Attributes:
        times: (T,) in seconds, ascending.
        pose: (T, 3), yaw, pitch, roll in degrees.
        shift: (T, 2), where the head is: right and down from a place of its own, in distances
            between the eyes.
        zoom: (T,), the logarithm of how large it is.
        units: (T, U) in [0, 1], coefficients of :data:`facekit.studio.fit.UNITS`.
        gaze: (T, 2), of the eyes in the head, in degrees to the right and up.
    """

    times: Array
    pose: Array
    shift: Array
    zoom: Array
    units: Array
    gaze: Array

    def __len__(self) -> int:
        return len(self.times)

    @property
    def rest(self) -> int:
        """The frame in which the face is most at rest and the head as it mostly is."""
        usual = np.abs(self.pose - np.median(self.pose, 0)).sum(1) / _TURN
        return int(np.argmin(usual + np.delete(self.units, BLINKS, 1).sum(1) + self.shut))

    @property
    def shut(self) -> Array:
        """(T,) how far the eyes are shut, in [0, 1]."""
        mean: Array = self.units[:, BLINKS].mean(1)
        return mean


def from_track(track: Track) -> Motion:
    """Fit a head to landmarks, and take its shape away.

    Raises:
        FacekitError: as :func:`facekit.studio.fit.fit`.
    """
    fitted = fit(track.landmarks, track.times, track.size)
    views = fitted.views
    return Motion(
        times=track.times,
        pose=views[:, :3],
        shift=views[:, 3:5] / between_eyes(fitted.points),
        zoom=views[:, 5],
        units=fitted.units,
        gaze=fitted.gaze,
    )


def from_performances(moments: Sequence[Performance]) -> Motion:
    """What a studio person does in moments that follow each other.

    Raises:
        FacekitError: if there are none.
    """
    if not moments:
        raise FacekitError("a motion of no moments; give at least one")
    # In pictures one pixel wide.
    scale = np.array([m.focal / SENSOR / m.distance for m in moments])
    place = np.array([[m.centre_x, m.centre_y] for m in moments])
    return Motion(
        times=np.array([m.time for m in moments], np.float64),
        pose=np.array([m.pose for m in moments], np.float64),
        shift=place / (_APART * scale[:, None]),
        zoom=np.log(scale * DISTANCE),
        units=np.array([[m.expression.get(name, 0.0) for name in UNITS] for m in moments]),
        gaze=np.array([[m.gaze_x, m.gaze_y] for m in moments], np.float64),
    )
