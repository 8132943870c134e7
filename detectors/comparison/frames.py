"""The frames of the two files, by their times."""

from pathlib import Path

from detectors.comparison.model import Side
from facekit.media.decode import Video
from facekit.media.images import read_image
from facekit.types import Pixels

_ROUNDED = 1e-3  # seconds


def picture(side: Side, time: float) -> Pixels:
    """What a video shows at a time, in seconds; or the picture: uint8 RGB (H, W, 3)."""
    if side.facts.kind == "image":
        return read_image(Path(side.path))
    with Video(Path(side.path)) as video:
        # A time that was rounded is not to fall before its frame.
        return video.at(time + _ROUNDED).pixels


def length(side: Side) -> float:
    """Seconds that a video's frames last."""
    with Video(Path(side.path)) as video:
        return video.length() or side.facts.duration or 0.0


def common_moments(one: Side, two: Side, offset: float, count: int) -> list[tuple[float, float]]:
    """Times of A and B at which both show something, evenly, inside of what they share."""
    start = max(0.0, -offset)
    end = max(start, min(length(one), length(two) - offset))
    times = [start + (end - start) * (n + 0.5) / count for n in range(count)]
    return [(time, max(0.0, time + offset)) for time in times]
