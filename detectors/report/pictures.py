"""The pictures of a report: a frame with its faces numbered, crops of each face, and heat maps.

They are kept encoded, and can be written as JSON, so that a batch can be broken off and go on.
"""

import base64
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from detectors.report.model import HeatMap
from facekit.faces.align import apply, invert
from facekit.media.images import encode_image
from facekit.types import AlignedFace, Pixels

LARGE = 480
"""Pixels of the longer side of a face's large picture."""

_MARGIN = 0.04  # of the large picture around the aligned crop
_QUALITY = 76

Place = tuple[float, float, float, float, float, float]
"""Where the aligned crop lies in its large picture: (a, b, c, d, e, f), as in SVG's ``matrix``.

What lies at (u, v) of the crop, both in [0, 1], lies at (au + cv + e, bu + dv + f) of the picture,
both in [0, 1] too.
"""


@dataclass(frozen=True)
class Crop:
    """A face at a moment, as a report shows it.

    Attributes:
        time: seconds.
        score: of the detector, or None.
        jpeg: the aligned crop, encoded.
        label: why it is shown ("highest", "lowest"), or "".
        index: the frame in decoding order; None if it is not known.
        large: the frame about the face, encoded, see :func:`closeup`; None for most moments.
        place: where the aligned crop lies in ``large``; None: it is all of it.
        heat: where a detector sees traces at this moment, over the aligned crop.
    """

    time: float
    score: float | None
    jpeg: bytes
    label: str = ""
    index: int | None = None
    large: bytes | None = None
    place: Place | None = None
    heat: HeatMap | None = None

    def with_large(self, pixels: Pixels, face: AlignedFace) -> "Crop":
        """The same with the large picture that ``face`` was cut from, uint8 RGB (H, W, 3)."""
        large, place = closeup(pixels, face)
        return replace(self, large=large, place=place)


@dataclass(frozen=True)
class Box:
    """A face's place in the overview, in hundredths of its width and height, and its number."""

    left: float
    top: float
    width: float
    height: float
    number: int


@dataclass
class Pictures:
    """The pictures of one file: a frame with its faces numbered, and crops by track id."""

    overview: bytes | None = None
    boxes: list[Box] = field(default_factory=list)
    overview_time: float = 0.0
    crops: dict[int, list[Crop]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON values that :meth:`from_json` reads; JPEGs are in base64."""
        return {
            "overview": _text(self.overview),
            "boxes": [asdict(box) for box in self.boxes],
            "overview_time": self.overview_time,
            "crops": {
                str(track): [_crop_to_json(crop) for crop in crops]
                for track, crops in self.crops.items()
            },
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Pictures":
        """The pictures again.

        Raises:
            ValueError, KeyError, TypeError: if these are no values that :meth:`to_json` gave.
        """
        return cls(
            overview=_bytes(value["overview"]),
            boxes=[Box(**box) for box in value["boxes"]],
            overview_time=float(value["overview_time"]),
            crops={
                int(track): [_crop_from_json(crop) for crop in crops]
                for track, crops in value["crops"].items()
            },
        )


def closeup(pixels: Pixels, face: AlignedFace, side: int = LARGE) -> tuple[bytes, Place]:
    """The picture about a face, upright as it is in the frame, and where the aligned crop lies.

    Args:
        pixels: the frame, uint8 RGB (H, W, 3).
        face: aligned from it.
        side: pixels of the longer side at most; nothing is enlarged.

    Returns:
        JPEG, and the crop's place in it; the crop may reach beyond the frame's edges.
    """
    height, width = pixels.shape[:2]
    size = float(face.pixels.shape[0])
    image_from_crop = invert(face.crop_from_image)
    corners = apply(image_from_crop, np.array([[0.0, 0.0], [size, 0.0], [0.0, size], [size, size]]))
    low, high = corners.min(axis=0), corners.max(axis=0)
    pad = _MARGIN * (high - low)
    x0, y0 = np.clip(np.floor(low - pad), 0, [width - 1, height - 1]).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(high + pad), [x0 + 1, y0 + 1], [width, height]).astype(int).tolist()
    cut = pixels[y0:y1, x0:x1]
    scale = min(1.0, side / max(cut.shape[:2]))
    if scale < 1:
        shape = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
        cut = np.asarray(cv2.resize(cut, shape, interpolation=cv2.INTER_AREA), np.uint8)
    origin, across, down = (
        (corner - [x0, y0]) / [x1 - x0, y1 - y0] for corner in (corners[0], corners[1], corners[2])
    )
    matrix = np.concatenate([across - origin, down - origin, origin]).round(5).tolist()
    a, b, c, d, e, f = matrix
    return encode_image(np.ascontiguousarray(cut), ".jpg", quality=_QUALITY), (a, b, c, d, e, f)


def _crop_to_json(crop: Crop) -> dict[str, Any]:
    return {
        "time": crop.time,
        "score": crop.score,
        "jpeg": _text(crop.jpeg),
        "label": crop.label,
        "index": crop.index,
        "large": _text(crop.large),
        "place": None if crop.place is None else list(crop.place),
        "heat": None if crop.heat is None else crop.heat.model_dump(mode="json"),
    }


def _crop_from_json(value: dict[str, Any]) -> Crop:
    jpeg = _bytes(value["jpeg"])
    if jpeg is None:
        raise ValueError("a crop without a picture")
    place = value["place"]
    heat = value["heat"]
    return Crop(
        **{
            **value,
            "jpeg": jpeg,
            "large": _bytes(value["large"]),
            "place": None if place is None else _place(place),
            "heat": None if heat is None else HeatMap.model_validate(heat),
        }
    )


def _place(value: list[float]) -> Place:
    a, b, c, d, e, f = map(float, value)
    return a, b, c, d, e, f


def _text(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode("ascii")


def _bytes(content: str | None) -> bytes | None:
    return None if content is None else base64.b64decode(content, validate=True)
