"""Find scene cuts as frames come in, by pictures the size of a stamp."""

from collections import deque

import cv2
import numpy as np

from facekit.types import Floats, Pixels

_SIDE = 48  # pixels of a thumbnail's longer side: faces' features vanish, the scene remains
_MARGIN = 0.15  # how far the camera may pan from one frame to the next, as a share of the picture
_OTHER_SCENE = 0.35  # difference that no motion explains; true cuts start at 0.4
_JUMP = (0.08, 5.0)  # in a steady shot: this much, and so many times what the last frames had
_FRAMES = 8
_LIGHT = 20.0  # levels of mean luma: more than this is a lamp's or a flash's, or a plain cut
_FLAT = 4.0  # levels: with less contrast than this, there is nothing to compare


class CutFinder:
    """Tells the first frame of each scene.

    Two frames are compared by the correlation of their luma thumbnails, the one slid over the
    other: brightness and contrast do not count, so lamps and flashes are no cuts; nor does a pan.
    A frame that shows next to nothing, black or overexposed, is passed over. A cut between shots
    that look alike, two people before one backdrop in one light, stands out against the frames just
    before.
    Fades and dissolves are not found.
    """

    def __init__(self) -> None:
        """Start before the first frame."""
        self._last: Floats | None = None
        self._shape: tuple[int, ...] = ()
        self._differences: deque[float] = deque(maxlen=_FRAMES)

    def cut(self, pixels: Pixels) -> bool:
        """Whether the frame begins another scene than the one before; the first frame does not.

        Args:
            pixels: uint8 RGB (H, W, 3); a change of size counts as a cut.
        """
        thumb = _thumbnail(pixels)
        before, self._last = self._last, thumb
        resized = self._shape not in ((), pixels.shape)
        self._shape = pixels.shape
        if before is None or resized:
            self._differences.clear()
            return resized
        if thumb.std() < _FLAT:
            # Compare what follows a flash with what was before it.
            self._last = before
            return False
        if before.std() < _FLAT:
            return False
        difference = _difference(before, thumb)
        least, times = _JUMP
        steady = len(self._differences) >= _FRAMES // 2
        jump = steady and difference > max(least, times * max(self._differences))
        jump &= abs(float(thumb.mean() - before.mean())) < _LIGHT
        if difference > _OTHER_SCENE or jump:
            self._differences.clear()
            return True
        self._differences.append(difference)
        return False


def _thumbnail(pixels: Pixels) -> Floats:
    """Luma at most ``_SIDE`` pixels wide or high, from a few samples of each cell."""
    height, width = pixels.shape[:2]
    shrink = _SIDE / max(height, width)
    size = max(round(width * shrink), 8), max(round(height * shrink), 8)
    down, across = max(height // (4 * size[1]), 1), max(width // (4 * size[0]), 1)
    samples = np.ascontiguousarray(pixels[down // 2 :: down, across // 2 :: across])
    small = cv2.resize(samples, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.float32)


def _difference(a: Floats, b: Floats) -> float:
    """1 - the best correlation of the middle of either with some part of the other."""
    height, width = a.shape
    y, x = int(height * _MARGIN), int(width * _MARGIN)
    middle = slice(y, height - y), slice(x, width - x)
    found = [
        cv2.matchTemplate(whole, np.ascontiguousarray(part[middle]), cv2.TM_CCOEFF_NORMED).max()
        for whole, part in ((a, b), (b, a))
    ]
    return 1 - float(max(found))
