"""Photos of one person, made ready to be moved."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from facekit.core.errors import FacekitError
from facekit.datasets.heads import head_from_image
from facekit.faces.align import align_faces, apply, draw_crop, invert
from facekit.faces.embed import load_embedder
from facekit.faces.quality import measure
from facekit.faces.stage import Stage
from facekit.motion.act import MOST, Sitter, sitters
from facekit.types import DENSE, Face, Floats, Pixels

MOST_COVERED = 0.3
"""A photo is refused if its face's occlusion is more than this; a half that is covered reads as
0.35, see :mod:`facekit.faces.quality`."""

ALIKE = 0.3
"""Photos of one person: each is at least as like the mean of the others. A studio person's are by
0.5 and more, seldom less; other people's by 0.1, seldom more."""


@dataclass(frozen=True)
class Cast:
    """Photos of one person, ready to be moved.

    Attributes:
        pixels: uint8 RGB (T, S, S, 3).
        sitters: who is in them, in pixels of these.
    """

    pixels: Pixels
    sitters: list[Sitter]

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
        draw: a cast of that size, and landmarks float32 (N, 70, 2) in pixels of its first photo →
            N pictures uint8 RGB (S, S, 3).
    """

    size: int
    draw: Callable[[Cast, Floats], Iterator[Pixels]]


def cast_of(
    pictures: Sequence[Pixels],
    size: int,
    device: torch.device,
    *,
    names: Sequence[object] = (),
    cut: bool = True,
) -> Cast:
    """Find the head in photos of one person, and cut it out.

    Args:
        pictures: uint8 RGB (H, W, 3), of any size; the first one's crop is what will move.
        size: S.
        device: where to locate and read faces.
        names: of the photos, for errors.
        cut: False to take pictures whole: square ones, in which the head is about as large.

    Raises:
        FacekitError: for a photo that shows no face or two as large as each other, one in profile,
            or one mostly covered; or for photos of different people.
    """
    called = [str(name) for name in names] or [f"photo {k + 1}" for k in range(len(pictures))]
    seen = measure(pictures, [faces[:2] for faces in Stage(device).look(pictures)])
    chosen = [_one_face(name, faces) for name, faces in zip(called, seen, strict=True)]
    _require_one_person(called, pictures, chosen, device)
    crops = np.empty((len(pictures), size, size, 3), np.uint8)
    read = np.empty((len(pictures), DENSE, 2), np.float32)
    for k, (picture, face) in enumerate(zip(pictures, chosen, strict=True)):
        assert face.landmarks is not None
        points = face.landmarks.points
        if cut:
            matrix = head_from_image(points[None], max(picture.shape[:2]), size)
        else:
            zoom = size / picture.shape[0]
            matrix = np.array([[zoom, 0, 0], [0, zoom, 0]])
        draw_crop(crops[k], picture, invert(matrix))
        read[k] = apply(matrix, points)
    return Cast(crops, sitters(read, size))


def _one_face(name: str, faces: Sequence[Face]) -> Face:
    """The face of a photo.

    Raises:
        FacekitError: as :func:`cast_of`.
    """
    if not faces or faces[0].landmarks is None:
        raise FacekitError(
            f"{name}: shows no face; give a photo in which it is seen from the front and well lit"
        )
    if len(faces) > 1 and faces[0].size < 1.5 * faces[1].size:
        raise FacekitError(
            f"{name}: shows two people; cut it so that it shows the one who is to move"
        )
    face, marks = faces[0], faces[0].landmarks
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
        FacekitError: with the one that is least like the others.
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
    vectors = embedder.embed(np.stack(crops))
    others = vectors.sum(0) - vectors
    alike = (vectors * others).sum(1) / np.maximum(np.linalg.norm(others, axis=1), 1e-9)
    worst = int(alike.argmin())
    if alike[worst] < ALIKE:
        raise FacekitError(
            f"{names[worst]}: seems to show somebody else than the other photos do (alike by "
            f"{alike[worst]:.2f}; one person's are by {ALIKE} and more): give photos of one person"
        )
