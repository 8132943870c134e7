"""Pictures kept whole: grey stays grey; 16 bits, transparency and the colour profile stay.

Of all else that a file may hold (EXIF, XMP, text, thumbnails) only the orientation is heeded, by
turning the pixels. The rest is left out: it may tell where, when and by whom a photo was taken.
"""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from facekit.core.errors import FacekitError
from facekit.media import images
from facekit.types import Pixels

_ORIENTATION = 0x0112
_DEEP = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Photo:
    """An upright picture.

    Attributes:
        pixels: uint8 or uint16, grey (H, W) or RGB (H, W, 3).
        alpha: opacity, (H, W) of the same type; None if the picture has none.
        profile: the ICC colour profile; None means sRGB.
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None
    profile: bytes | None = None

    @property
    def deep(self) -> bool:
        """Whether it has 16 bits a channel."""
        return self.pixels.dtype == np.uint16

    def rgb(self) -> Pixels:
        """As ``read_image`` gives it: uint8 RGB (H, W, 3), transparent parts laid over white."""
        pixels = _shallow(self.pixels) if self.deep else self.pixels
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        if self.alpha is None:
            return pixels
        alpha = _shallow(self.alpha) if self.deep else self.alpha
        over = Image.new("RGB", (pixels.shape[1], pixels.shape[0]), "white")
        over.paste(Image.fromarray(pixels), mask=Image.fromarray(alpha))
        return np.array(over)

    def changed(self, change: NDArray[np.int16]) -> "Photo":
        """With a change added to its colours, as far as they go.

        Args:
            change: of red, green and blue, in levels of 8 bits, (H, W, 3); of a grey picture the
                luma changes.
        """
        levels: NDArray[Any] = change
        if self.pixels.ndim == 2:
            levels = np.rint(change @ np.array([0.299, 0.587, 0.114], np.float32))
        step = _DEEP // 255 if self.deep else 1
        highest = np.iinfo(self.pixels.dtype).max
        summed = np.clip(self.pixels + levels.astype(np.int32) * step, 0, highest)
        return replace(self, pixels=summed.astype(self.pixels.dtype))


def read_photo(path: Path) -> Photo:
    """Read a picture as it is; of an animated one, the first frame.

    Palettes become RGB, and CMYK does, through its colour profile if it has one.

    Raises:
        FacekitError: if the file is missing, empty, no picture, damaged, or too large.
    """
    with images.opened(path) as image:
        turn = _orientation(image)
        profile = image.info.get("icc_profile") or None
        if image.mode == "CMYK":
            image, profile = _from_ink(image, profile), None
        pixels, alpha = _deep_planes(path, image) if _is_deep(path) else _planes(image)
    upright = None if alpha is None else _turned(alpha, turn)
    return Photo(_turned(pixels, turn), upright, profile)


def fit(photo: Photo, suffix: str) -> tuple[Photo, list[str]]:
    """What of a picture a format can hold.

    Args:
        photo: the picture.
        suffix: ".png" holds all of it, ".jpg", ".jpeg" and ".webp" less.

    Returns:
        (the picture as the format holds it, what was lost: phrases such as "16 bits a channel
        become 8").
    """
    suffix = suffix.lower()
    lost = []
    if photo.deep and suffix != ".png":
        alpha = None if photo.alpha is None else _shallow(photo.alpha)
        photo = replace(photo, pixels=_shallow(photo.pixels), alpha=alpha)
        lost.append("16 bits a channel become 8")
    if photo.alpha is not None and suffix in (".jpg", ".jpeg"):
        if photo.alpha.min() < np.iinfo(photo.alpha.dtype).max:
            lost.append("transparent parts are laid over white")
        pixels = photo.rgb()
        photo = replace(photo, pixels=pixels[..., 0] if photo.pixels.ndim == 2 else pixels)
        photo = replace(photo, alpha=None)
    if photo.pixels.ndim == 2 and (suffix == ".webp" or (photo.deep and photo.alpha is not None)):
        photo = replace(photo, pixels=np.repeat(photo.pixels[..., None], 3, axis=2))
    grey_profile = photo.profile is not None and photo.profile[16:20] == b"GRAY"
    if grey_profile and photo.pixels.ndim == 3:
        photo = replace(photo, profile=None)
        lost.append("the colour profile, of grey alone, is left out")
    return photo, lost


def encode_photo(photo: Photo, suffix: str, quality: int = 95) -> bytes:
    """A picture that was made to :func:`fit` the format, as the bytes of a file.

    Args:
        photo: the picture.
        suffix: ".png" (lossless), ".jpg", ".jpeg" or ".webp".
        quality: as for ``images.encode_image``.

    Raises:
        FacekitError: if the format cannot hold it, e.g. for its size.
    """
    if photo.deep:
        return _encode_deep(photo)
    image = Image.fromarray(np.ascontiguousarray(photo.pixels))
    if photo.alpha is not None:
        image.putalpha(Image.fromarray(photo.alpha))
    return images.encode_pillow(image, suffix, quality, photo.profile)


def _is_deep(path: Path) -> bool:
    """Whether it is a PNG of 16 bits a channel, which Pillow gives as 8 unless it is grey."""
    with path.open("rb") as file:
        head = file.read(25)
    return head.startswith(b"\x89PNG") and head[24] == 16


def _planes(image: Image.Image) -> tuple[NDArray[Any], NDArray[Any] | None]:
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if not image.has_transparency_data:
        return np.array(image.convert(mode)), None
    planes = np.array(image.convert("LA" if mode == "L" else "RGBA"))
    return planes[..., 0] if mode == "L" else planes[..., :3], planes[..., -1]


def _deep_planes(path: Path, image: Image.Image) -> tuple[NDArray[Any], NDArray[Any] | None]:
    values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        raise FacekitError(f"{path}: damaged picture (its 16 bits a channel cannot be decoded)")
    if values.ndim == 2:
        clear = image.info.get("transparency")  # the one grey level that stands for it
        alpha = None if clear is None else np.where(values == clear, 0, _DEEP).astype(np.uint16)
        return values, alpha
    return values[..., 2::-1], values[..., 3] if values.shape[2] == 4 else None


def _encode_deep(photo: Photo) -> bytes:
    planes = photo.pixels[..., ::-1] if photo.pixels.ndim == 3 else photo.pixels
    if photo.alpha is not None:
        planes = np.dstack([planes, photo.alpha])
    planes = np.ascontiguousarray(planes)
    if photo.profile is None:
        done, content = cv2.imencode(".png", planes)
    else:
        profile = np.frombuffer(photo.profile, np.uint8)
        done, content = cv2.imencodeWithMetadata(
            ".png", planes, [cv2.IMAGE_METADATA_ICCP], [profile]
        )
    if not done:
        raise FacekitError("cannot be encoded as a PNG of 16 bits a channel")
    encoded: bytes = content.tobytes()
    return encoded


def _from_ink(image: Image.Image, profile: bytes | None) -> Image.Image:
    """CMYK as sRGB; without a profile that can be used, by the plain rule for printing inks."""
    if profile:
        try:
            seen = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            seen = None  # the profile is damaged, or not one of inks
        if seen is not None:
            return seen
    return image.convert("RGB")


def _shallow(values: NDArray[Any]) -> NDArray[Any]:
    """16 bits as 8, rounded."""
    return np.asarray(cv2.convertScaleAbs(values, alpha=255 / _DEEP))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except images.DAMAGE:  # EXIF that cannot be read does not say which way is up
        return 1


def _turned(plane: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Upright, by EXIF's number for where the stored first row and column belong."""
    if orientation in (5, 6, 7, 8):
        plane = plane.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    return np.ascontiguousarray(plane)
