"""Reading and writing pictures: what comes in is always upright 8-bit RGB.

Colour profiles are not applied: pixels stay those of the file.
"""

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.types import Frame, Pixels

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
"""Suffixes by which a picture in a folder is known."""

MAX_PIXELS = 128_000_000
"""Pictures larger than this are refused: a small file can unpack to many gigabytes."""

MAX_ANIMATED_PIXELS = 35_651_584
"""Of each frame of a moving picture, as of a video's: decoding one takes several at once."""

# Each scan of a progressive JPEG goes over the whole picture, and may take no more than some bytes:
# more than so many scans are refused if they go over more pixels than this in all.
_MANY_SCANS = 100
_SCANNED_PIXELS = 1 << 31

_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")
_WRITERS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
# In seconds, of an animation that gives none; browsers show it as long.
_SHORTEST_FRAME = 0.1
DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    OverflowError,
    MemoryError,
)
"""What Pillow raises on damaged files of these formats."""


def require_file(path: Path) -> None:
    """Check that ``path`` is a regular file with something in it.

    Pipes, devices and sockets are refused: facekit works on closed files, not on live streams.

    Raises:
        FacekitError: if it is missing, empty or anything but a regular file.
    """
    try:
        if path.is_dir():
            raise FacekitError(f"{path}: is a folder; give a file in it")
        if not path.exists():
            raise FacekitError(f"{path}: no such file")
        if not path.is_file():
            raise FacekitError(f"{path}: not a regular file; pipes and devices are not read")
        if path.stat().st_size == 0:
            raise FacekitError(f"{path}: empty file")
        with path.open("rb"):
            pass
    except OSError as error:
        raise FacekitError(f"{path}: not readable ({error.strerror or error})") from error
    except ValueError as error:  # a null character in the name
        raise FacekitError(f"{str(path)!r}: not a file name") from error


def is_image(path: Path) -> bool:
    """Whether the file begins as a picture of a format that is read here, whatever its suffix."""
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    return head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"))


def format_of(path: Path) -> str:
    """The picture's format by content: "bmp", "jpeg", "png" or "webp"."""
    with path.open("rb") as file:
        head = file.read(4)
    heads = {b"\x89PNG": "png", b"RIFF": "webp"}
    return heads.get(head, "bmp" if head.startswith(b"BM") else "jpeg")


def read_image(path: Path) -> Pixels:
    """Read a picture as upright RGB; of an animated one, the first frame.

    The EXIF orientation is applied. Grey and CMYK become RGB, transparent parts are laid over
    white, and 16 bits a channel are scaled to 8.

    Returns:
        uint8 RGB (H, W, 3).

    Raises:
        FacekitError: if the file is missing, empty, no picture, damaged, or too large.
    """
    with opened(path) as image:
        return _rgb(_upright(image))


def size_of(path: Path) -> tuple[int, int]:
    """Width and height by the picture's head, before it is turned upright.

    Raises:
        FacekitError: as :func:`read_image`, as far as the head of the file tells.
    """
    with opened(path, load=False) as image:
        return image.size


def count_frames(path: Path) -> int:
    """How many frames an animated PNG or WebP has; 1 of any other picture.

    Raises:
        FacekitError: as :func:`read_image`, as far as the head of the file tells.
    """
    with opened(path, load=False) as image:
        return _frames(image) - _hidden(image)


def read_animation(path: Path) -> Iterator[Frame]:
    """The frames of an animated PNG or WebP, once through; each as by :func:`read_image`.

    Raises:
        FacekitError: as :func:`read_image`, at the frame that is damaged.
    """
    with opened(path) as image:
        time = 0.0
        hidden = _hidden(image)
        for number, frame in enumerate(ImageSequence.Iterator(image)):
            if number >= hidden:
                yield Frame(_rgb(frame), time, number - hidden)
                time += frame.info.get("duration", 0) / 1000 or _SHORTEST_FRAME


@contextmanager
def opened(path: Path, *, load: bool = True) -> Iterator[Image.Image]:
    """Pillow's image of a file, neither turned nor converted; errors are one line.

    Args:
        path: of the file.
        load: whether to decode it now, and not only its head.

    Raises:
        FacekitError: as :func:`read_image`.
    """
    require_file(path)
    with warnings.catch_warnings():
        # Pillow remarks on odd metadata; what counts here is whether the pixels can be had.
        warnings.simplefilter("ignore")
        try:
            with Image.open(path, formats=_FORMATS) as image:
                _require_size(image.size, path)
                if _frames(image) > 1:
                    _require_size(image.size, path, MAX_ANIMATED_PIXELS)
                if load:
                    _require_few_scans(image, path)
                    image.load()
                yield image
        except Image.DecompressionBombError as error:
            raise FacekitError(
                f"{path}: unpacks to more than {MAX_PIXELS // 10**6} megapixels"
            ) from error
        except UnidentifiedImageError as error:
            raise FacekitError(f"{path}: not a picture; allowed: PNG, JPEG, WebP, BMP") from error
        except DAMAGE as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise FacekitError(f"{path}: damaged picture ({reason})") from error


def encode_image(pixels: Pixels, suffix: str, quality: int = 95) -> bytes:
    """A picture as the bytes of a file.

    Args:
        pixels: uint8 RGB (H, W, 3).
        suffix: ".png" (lossless), ".jpg", ".jpeg" or ".webp".
        quality: of JPEG and WebP, 1 to 100. From 90 up, JPEG keeps its colours at full resolution.

    Raises:
        FacekitError: for a suffix that is not written.
        ValueError: if ``pixels`` is not what it says.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"expected uint8 (H, W, 3), got {pixels.dtype} {pixels.shape}")
    return encode_pillow(Image.fromarray(np.ascontiguousarray(pixels)), suffix, quality)


def encode_pillow(
    image: Image.Image, suffix: str, quality: int = 95, profile: bytes | None = None
) -> bytes:
    """As :func:`encode_image`, of Pillow's image in a mode that the format holds.

    Args:
        image: to encode.
        suffix: as for :func:`encode_image`.
        quality: as for :func:`encode_image`.
        profile: an ICC colour profile to write along.

    Raises:
        FacekitError: for a suffix that is not written, or a size that the format cannot hold.
    """
    kind = _WRITERS.get(suffix.lower())
    if kind is None:
        raise FacekitError(f"cannot write '{suffix}' pictures; allowed: {', '.join(_WRITERS)}")
    options = {
        "PNG": {"compress_level": 4},
        "JPEG": {"quality": quality, "subsampling": 0 if quality >= 90 else 2},
        "WEBP": {"quality": quality, "method": 4},
    }
    buffer = io.BytesIO()
    try:
        image.save(buffer, format=kind, icc_profile=profile, **options[kind])
    except (OSError, ValueError) as error:
        width, height = image.size
        raise FacekitError(f"{width}×{height} cannot be written as {kind} ({error})") from error
    return buffer.getvalue()


def write_image(path: Path, pixels: Pixels, quality: int = 95) -> None:
    """Write a picture, wholly or not at all; the format is that of the suffix.

    See :func:`encode_image`. Generated pictures leave through ``facekit.export`` instead.
    """
    try:
        content = encode_image(pixels, path.suffix, quality)
    except FacekitError as error:
        raise FacekitError(f"{path}: {error}") from error
    files.write_bytes(path, content)


def _frames(image: Image.Image) -> int:
    # A JPEG may hold a second picture, for depth or for HDR; that is no animation.
    return getattr(image, "n_frames", 1) if image.format in ("PNG", "WEBP") else 1


def _require_size(size: tuple[int, int], path: Path, most: int = MAX_PIXELS) -> None:
    width, height = size
    if width * height > most:
        raise FacekitError(
            f"{path}: {width}×{height} is too large; at most {most // 10**6} megapixels"
        )


def _require_few_scans(image: Image.Image, path: Path) -> None:
    if not image.info.get("progressive"):
        return
    # Within a scan's data 0xFF is followed by 0x00, so these are the marks that scans begin with.
    scans = path.read_bytes().count(b"\xff\xda")
    if scans > _MANY_SCANS and scans * image.width * image.height > _SCANNED_PIXELS:
        raise FacekitError(
            f"{path}: in {scans} scans; it is damaged, or made to exhaust whoever reads it"
        )


def _hidden(image: Image.Image) -> int:
    """How many frames only programs see that show no animations: an animated PNG may have one."""
    return int(bool(image.info.get("default_image")))


def _upright(image: Image.Image) -> Image.Image:
    # In place: where nothing is to be turned, a large picture is not copied.
    with contextlib.suppress(*DAMAGE):  # EXIF that cannot be read does not say which way is up
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _rgb(image: Image.Image) -> Pixels:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # Pillow's own conversion would clip at 255. PNG's 16 bits may come as "I".
        grey = np.clip(np.asarray(image), 0, 65535).astype(np.float32) / 257
        return np.repeat(np.round(grey).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        image = white
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
