"""How a head moves, apart from whose it is: read from a driver, changed, and given to somebody.

A driver is a closed video file, a track of landmarks, a performance of the studio, or nothing, for
idle motion. What is read from it is a :class:`Motion`; what is given to the person of a photo is a
track of landmarks, which a generator draws.
"""

from facekit.motion.act import Channel, Controls, Sitter, act, parse, sitters
from facekit.motion.cast import Animator, Cast, Unfit, cast_of
from facekit.motion.read import Motion, from_performances, from_track
from facekit.motion.track_file import read_motion
from facekit.motion.watch import Track, watch

__all__ = [
    "Animator",
    "Cast",
    "Channel",
    "Controls",
    "Motion",
    "Sitter",
    "Track",
    "Unfit",
    "act",
    "cast_of",
    "from_performances",
    "from_track",
    "parse",
    "read_motion",
    "sitters",
    "watch",
]
