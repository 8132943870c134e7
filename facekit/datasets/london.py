"""The Face Research Lab London Set: 102 adults, photographed from the front, neutral and smiling.

DeBruine & Jones 2017, doi 10.6084/m9.figshare.5047666, CC BY 4.0. The layout read here:
``SUBJECT_neutral.jpg`` with ``SUBJECT_neutral.pts`` (189 lines of x and y, in pixels from the
picture's corner) and ``SUBJECT_smiling.jpg``.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facekit.core.errors import FacekitError
from facekit.media.images import read_image
from facekit.types import Floats, Pixels

POINTS = 189

# Which of the set's template points (numbered from 0) are what was found by drawing all of them
# on photos of twelve people and looking; left and right are the picture's. The template has no
# point on the tip of the nose: the middle of 54 and 60, which lie on both sides of the tip, falls
# on the tip's highlight.
SEVEN = ((18,), (22,), (23,), (27,), (54, 60), (87,), (93,))
"""Points whose mean is: left eye's outer and inner corner, right eye's inner and outer corner, tip
of the nose, left and right corner of the mouth."""

FIVE = ((0,), (1,), (54, 60), (87,), (93,))
"""The same for the five points of :data:`facekit.types.POINTS`; 0 and 1 are the pupils."""


@dataclass(frozen=True)
class Subject:
    """One person of the set.

    Attributes:
        name: as in the files' names.
        neutral, smiling: uint8 RGB (H, W, 3).
        points: float32 (189, 2), of the neutral photo, in pixels.
    """

    name: str
    neutral: Pixels
    smiling: Pixels
    points: Floats

    def means(self, groups: tuple[tuple[int, ...], ...]) -> Floats:
        """The mean places (G, 2) of groups of points, such as :data:`SEVEN`."""
        return np.stack([self.points[list(group)].mean(0) for group in groups])


def read(folder: Path, most: int | None = None) -> list[Subject]:
    """Read the set's people, in order of name.

    Args:
        folder: of the set.
        most: how many to read at most; all by default.

    Raises:
        FacekitError: if the folder holds none, or a file is missing or damaged; it is named.
    """
    marked = sorted(folder.glob("*_neutral.pts"))[:most]
    if not marked:
        raise FacekitError(
            f"{folder}: no 'SUBJECT_neutral.pts' in it; give the London Set's folder"
        )
    subjects = []
    for path in marked:
        name = path.name.removesuffix("_neutral.pts")
        subjects.append(
            Subject(
                name=name,
                neutral=read_image(folder / f"{name}_neutral.jpg"),
                smiling=read_image(folder / f"{name}_smiling.jpg"),
                points=_points(path),
            )
        )
    return subjects


def _points(path: Path) -> Floats:
    try:
        rows = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
        points = np.array(rows, np.float32)
    except (OSError, ValueError) as error:
        raise FacekitError(f"{path}: not lines of x and y ({error})") from error
    if points.shape != (POINTS, 2) or not np.isfinite(points).all():
        raise FacekitError(f"{path}: {len(rows)} lines; a template of {POINTS} points x y is read")
    return points
