"""What flows between the rooms, and every convention, stated here once.

- **Pixels** at the edges: uint8, RGB, (H, W, 3). **Image tensors** inside networks: float32, RGB,
  (B, 3, H, W), range [-1, 1].
- **Coordinates**: (x, y) in pixels, x to the right, y down; the centre of the top-left pixel is
  (0.5, 0.5). OpenCV puts it at (0, 0): shift by half a pixel where the two meet.
- **Transforms** are named by what they yield from what: ``crop_from_image`` is the 2×3 matrix that
  maps a point of the image to its place in the crop.
- **Time** is in seconds, from presentation time stamps; never index / fps.
- **Left and right** are the viewer's, that is the picture's, unless a name says ``own``.
- **Angles** in degrees: yaw > 0 turns the face to the viewer's right, pitch > 0 looks up,
  roll > 0 tilts clockwise as seen by the viewer.
- To **locate** is to find a face; to **detect** is to tell real from generated. A detector's score
  is P(generated) in [0, 1], and label 1 means generated.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from facekit.core import files
from facekit.core.errors import FacekitError

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

POINTS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
"""The order of the five points of a :class:`Face`, MTCNN's; left is the picture's left."""

DENSE = 70
"""Points of :class:`Landmarks`: iBUG-300W's 68, then the centres of the irises, left and right."""


@dataclass(frozen=True)
class Frame:
    """One picture of a video.

    Attributes:
        pixels: uint8 RGB (H, W, 3), upright (the container's rotation is applied).
        time: seconds from the start of the stream, from its pts.
        index: the place in decoding order, from 0. For naming only; it is not a clock.
    """

    pixels: Pixels
    time: float
    index: int


@dataclass(frozen=True)
class Landmarks:
    """What the landmark network reads from one face.

    Attributes:
        points: float32 (70, 2) in pixels of the picture: iBUG-300W's 68 points, then the centres of
            the irises; left and right are the picture's.
        deviation: float32 (70,): how far off each point may be; the predicted standard deviation
            along an axis, in pixels of the picture.
        visible: float32 (70,): the probability that each point is seen and not covered.
        pose: yaw, pitch, roll of the head relative to the camera, in degrees.
        expression: float32 (52,) in [0, 1], ARKit's face units in alphabetical order (own sides).
        eyes: float32 (2,): how far the left and the right eye are open: the mean distance of the
            lids over the eye's width (the eye aspect ratio of Soukupová & Čech, 2016).
        presence: the probability that there is a face at all, in [0, 1].
    """

    points: Floats
    deviation: Floats
    visible: Floats
    pose: tuple[float, float, float]
    expression: Floats
    eyes: Floats
    presence: float

    @property
    def present(self) -> bool:
        """Whether there rather is a face than none; if there is none, points are a guess."""
        return self.presence >= 0.5


@dataclass(frozen=True)
class Quality:
    """How well a face can be seen; to weigh it by, or to abstain.

    Attributes:
        size: the longer side of the face's box, in pixels.
        blur: the deviation of the Gaussian that would blur a sharp face as much, in hundredths of
            the face's size.
        exposure: mean luma of the face, in [0, 1].
        clipped: the share of the face's pixels that are black or white.
        occlusion: the share of the face that is covered, or outside of the picture, in [0, 1].
        compression: how visible the blocks of JPEG or of a video codec are, in [0, 1]; 0 none.
        pose: yaw, pitch, roll in degrees; None without landmarks.
    """

    size: float
    blur: float
    exposure: float
    clipped: float
    occlusion: float
    compression: float
    pose: tuple[float, float, float] | None


@dataclass(frozen=True)
class Face:
    """One located face in one picture.

    Attributes:
        box: float32 (4,): x0, y0, x1, y1 in pixels of the picture.
        points: float32 (5, 2), in the order of ``POINTS``.
        score: the locator's confidence, in [0, 1].
        landmarks: None until they are read.
        quality: None until it is measured.
    """

    box: Floats
    points: Floats
    score: float
    landmarks: Landmarks | None = None
    quality: Quality | None = None

    @property
    def size(self) -> float:
        """The longer side of the box, in pixels."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))


@dataclass(frozen=True)
class Sighting:
    """A face at a moment: one entry of a :class:`Track`."""

    time: float
    index: int
    face: Face


@dataclass
class Track:
    """One person's face through time.

    Attributes:
        id: unique within a file, from 0, in order of first appearance.
        sightings: in order of time.
        person: who it is: one number for all tracks of a file that show the same person, from 0;
            None until the tracks' faces are compared.
    """

    id: int
    sightings: list[Sighting] = field(default_factory=list)
    person: int | None = None


@dataclass(frozen=True)
class AlignedFace:
    """A face brought to a template.

    Attributes:
        pixels: uint8 RGB (S, S, 3), the crop.
        crop_from_image: float64 (2, 3), maps (x, y, 1) of the picture to (x, y) of the crop.
        face: the face in the picture's coordinates.
    """

    pixels: Pixels
    crop_from_image: NDArray[np.float64]
    face: Face


class Item(BaseModel):
    """One line of a folder's ``manifest.jsonl``.

    Attributes:
        path: of the file, relative to the folder, with forward slashes.
        sha256: of the file's bytes, in hex; "" in readings of data sets that publish none, whose
            files are too large to be hashed each time.
        subject: pseudonym of the person shown; splits are disjoint by it.
        source: what the item was made from (a clip, a photo); splits are disjoint by it as well.
        label: 1 generated, 0 not, None unknown.
        generator: the plug-in that made it, "studio", or "" for a camera.
        split: "train", "validation", "calibration", "test" or "".
        consent: id of the consent record or certificate that covers it, or "".
        time: seconds within the source, where that is a clip.
        facts: what the writer knows besides: points, pose, seeds; JSON values only. Of a swap,
            ``donor`` is the person whose face was put in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str
    subject: str = ""
    source: str = ""
    label: Literal[0, 1] | None = None
    generator: str = ""
    split: Literal["train", "validation", "calibration", "test", ""] = ""
    consent: str = ""
    time: float | None = None
    facts: dict[str, object] = {}


MANIFEST = "manifest.jsonl"

CERTIFICATE = "certificate.json"
"""What a folder of the studio holds beside it, see :mod:`facekit.studio.certificate`."""

JOURNAL = "inputs.jsonl"
"""What a folder holds that is being made, file by file, before its manifest is written."""


def write_manifest(folder: Path, items: list[Item]) -> None:
    """Write ``folder/manifest.jsonl``; by custom last, so that it marks a folder as complete."""
    files.write_jsonl(folder / MANIFEST, (item.model_dump() for item in items))


def read_manifest(folder: Path) -> list[Item]:
    """Read ``folder/manifest.jsonl``.

    Raises:
        FacekitError: if it is missing or a line is not an :class:`Item`; the line is named.
    """
    items = []
    for number, row in enumerate(files.read_jsonl(folder / MANIFEST), start=1):
        try:
            items.append(Item.model_validate(row))
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise FacekitError(f"{folder / MANIFEST}, row {number}: {reason}") from error
    return items
