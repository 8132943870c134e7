"""Photos of one person, made ready to be moved."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch

from facekit.core.errors import FacekitError
from facekit.datasets.heads import head_from_image
from facekit.faces.align import align_faces, apply, draw_crop, invert
from facekit.faces.embed import load_embedder
from facekit.faces.people import parted
from facekit.faces.quality import measure
from facekit.faces.stage import Stage
from facekit.motion.act import MOST, Sitter, sitters
from facekit.types import DENSE, Face, Floats, Pixels

MOST_COVERED = 0.3
"""A photo is refused if its face's occlusion is more than this; a half that is covered reads as
0.35, see :mod:`facekit.faces.quality`."""

ALIKE = 0.3
"""Photos are of one person if, parted in two, their groups' means are at least as alike. A studio
person's single photos are by 0.5 and more, seldom less; two people's by 0.1, seldom more."""

LARGEST = 3072
"""Longer side of photos, in pixels, beyond which they are shrunk: 32 of a telephone's do not fit in
memory, and a head that is cut out is a few hundred pixels high."""

Unfit = Literal["refuse", "leave out", "take"]
"""What becomes of photos in profile, covered or of two people: an error, or not."""


@dataclass(frozen=True)
class Cast:
    """Photos of one person, ready to be moved.

    Attributes:
        pixels: uint8 RGB (T, S, S, 3).
        sitters: who is in them, in pixels of these.
        left_out: of each photo that is not among them: which one, and why.
    """

    pixels: Pixels
    sitters: list[Sitter]
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def landmarks(self) -> Floats:
        """float32 (T, 70, 2) in pixels."""
        return np.stack([sitter.landmarks for sitter in self.sitters])


@dataclass(frozen=True)
class Animator:
    """A generator that moves photos, loaded.

    Attributes:
        size: S, the side of what it draws, in pixels.
        draw: a cast of that size, landmarks float32 (N, 70, 2) in pixels of its first photo, and
            the number of the first that is to be drawn → pictures uint8 RGB (S, S, 3) from that on.
    """

    size: int
    draw: Callable[[Cast, Floats, int], Iterator[Pixels]]


def cast_of(
    pictures: Iterable[Pixels],
    size: int,
    device: torch.device,
    *,
    names: Sequence[object] = (),
    unfit: Unfit = "refuse",
    cut: bool = True,
) -> Cast:
    """Find the head in photos of one person, and cut it out.

    Args:
        pictures: uint8 RGB (H, W, 3), of any size, one held at a time if they are an iterator;
            the first one's crop is what will move.
        size: S.
        device: where to locate and read faces.
        names: of the photos, for errors.
        unfit: what becomes of photos that are not fit. "take" takes them, but for one without a
            face, which is left out; the first one, which will move, must show one.
        cut: False to take pictures whole: square ones, in which the head is about as large.

    Raises:
        FacekitError: for a photo that shows no face or two as large as each other, one in profile,
            or one mostly covered, or, where such are left out, if all are; or for photos of
            different people.
    """
    pictures = [_shrunk(picture) for picture in pictures]
    called = [str(name) for name in names] or [f"photo {k + 1}" for k in range(len(pictures))]
    seen = measure(pictures, [faces[:2] for faces in Stage(device).look(pictures)])
    faces: list[Face] = []
    kept: list[int] = []
    left_out: list[FacekitError] = []
    for k, (name, found) in enumerate(zip(called, seen, strict=True)):
        try:
            faces.append(_one_face(name, found, strict=unfit != "take"))
            kept.append(k)
        except FacekitError as error:
            if unfit == "refuse" or (unfit == "take" and k == 0):
                raise
            left_out.append(error)
    if not kept:
        raise left_out[-1] if left_out else FacekitError("no photos; give at least one")
    if unfit != "take":
        _require_one_person([called[k] for k in kept], [pictures[k] for k in kept], faces, device)
    crops = np.empty((len(kept), size, size, 3), np.uint8)
    read = np.empty((len(kept), DENSE, 2), np.float32)
    for row, (k, face) in enumerate(zip(kept, faces, strict=True)):
        assert face.landmarks is not None
        points = face.landmarks.points
        if cut:
            matrix = head_from_image(points[None], max(pictures[k].shape[:2]), size)
        else:
            zoom = size / pictures[k].shape[0]
            matrix = np.array([[zoom, 0, 0], [0, zoom, 0]])
        draw_crop(crops[row], pictures[k], invert(matrix))
        read[row] = apply(matrix, points)
    return Cast(crops, sitters(read, size), tuple(map(str, left_out)))


def _shrunk(picture: Pixels) -> Pixels:
    """A copy no larger than :data:`LARGEST`; a smaller picture as it is."""
    scale = LARGEST / max(picture.shape[:2])
    if scale >= 1:
        return picture
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def _one_face(name: str, faces: Sequence[Face], *, strict: bool) -> Face:
    """The face of a photo; if not ``strict``, the largest, whatever it is like.

    Raises:
        FacekitError: as :func:`cast_of`.
    """
    marks = faces[0].landmarks if faces else None
    if marks is None or not marks.present:
        raise FacekitError(
            f"{name}: shows no face; give a photo in which it is seen from the front and well lit"
        )
    if not strict:
        return faces[0]
    if len(faces) > 1 and faces[0].size < 1.5 * faces[1].size:
        raise FacekitError(
            f"{name}: shows two people; cut it so that it shows the one who is to move"
        )
    face = faces[0]
    if abs(marks.pose[0]) > MOST[0]:
        raise FacekitError(
            f"{name}: shows a profile, turned by {abs(marks.pose[0]):.0f}°: what is on the far "
            f"side would be made up; give a photo that is turned less than {MOST[0]:.0f}°"
        )
    if face.quality is not None and face.quality.occlusion > MOST_COVERED:
        raise FacekitError(
            f"{name}: too much of the face is covered, or beyond the border (occlusion "
            f"{face.quality.occlusion:.2f}, at most {MOST_COVERED}); give a photo without mask or "
            "a hand before the face"
        )
    return face


def _require_one_person(
    names: Sequence[str],
    pictures: Sequence[Pixels],
    faces: Sequence[Face],
    device: torch.device,
) -> None:
    """See that photos show one person.

    Raises:
        FacekitError: which names one of either person.
    """
    if len(pictures) < 2:
        return
    embedder = load_embedder(device)
    crops = [
        align_faces(picture, [face], template=embedder.template, size=embedder.size, device=device)[
            0
        ].pixels
        for picture, face in zip(pictures, faces, strict=True)
    ]
    other, alike = parted(embedder.embed(np.stack(crops)))
    if alike < ALIKE:
        raise FacekitError(
            f"{names[int(other.argmax())]}: seems to show somebody else than "
            f"{names[int((~other).argmax())]} does (alike by {alike:.2f}; one person's photos are "
            f"by {ALIKE} and more): give photos of one person"
        )
