"""What compression takes from pictures: in memory, there and back again. No file is written."""

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from typing import Any, Literal

import numpy as np
from PIL import Image

from facekit.types import Pixels

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]


def jpeg(pixels: Pixels, quality: int, subsampling: Subsampling = "4:2:0") -> Pixels:
    """A picture as it comes back from JPEG, as Pillow (libjpeg) writes it.

    Args:
        pixels: uint8 RGB (H, W, 3).
        quality: 1 to 100.
        subsampling: of the colours; most programs halve them both ways.
    """
    return _written(pixels, "JPEG", quality=quality, subsampling=subsampling)


def webp(pixels: Pixels, quality: int) -> Pixels:
    """A picture as it comes back from WebP, whose colours are always halved both ways.

    Args:
        pixels: uint8 RGB (H, W, 3).
        quality: 0 to 100.
    """
    return _written(pixels, "WEBP", quality=quality)


def _written(pixels: Pixels, kind: str, **options: Any) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format=kind, **options)
    with Image.open(buffer) as image:
        return np.array(image.convert("RGB"))


def h264(frames: Iterable[Pixels], crf: int) -> Iterator[Pixels]:
    """Frames as they come back from H.264 (x264's preset "medium", yuv420p, BT.709).

    A few dozen frames are held at once, however many there are.

    Args:
        frames: uint8 RGB (H, W, 3), all of one size.
        crf: x264's constant rate factor, 0 to 51; the higher, the coarser.

    Yields:
        as many frames of the same size, in order.
    """
    import av
    from av.video.reformatter import Colorspace

    from facekit.media.decode import EXACT

    rest = iter(frames)
    first = next(rest, None)
    if first is None:
        return
    height, width = first.shape[:2]
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height = width + width % 2, height + height % 2
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 25)
    # x264's output depends on the number of its threads, and on the processor unless told not to.
    encoder.thread_count = 1
    encoder.options = {"crf": str(crf), "preset": "medium", "x264-params": "cpu-independent=1"}
    decoder: Any = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1

    def encoded() -> Iterator[Any]:
        for index, pixels in enumerate(chain([first], rest)):
            padded = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
            picture = picture.reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, interpolation=EXACT
            )
            picture.pts, picture.time_base = index, Fraction(1, 25)
            yield from encoder.encode(picture)
        yield from encoder.encode(None)
        yield None  # The decoder's own end.

    for packet in encoded():
        for picture in decoder.decode(packet):
            rgb = picture.reformat(
                format="rgb24", src_colorspace=Colorspace.ITU709, interpolation=EXACT
            ).to_ndarray()
            yield np.ascontiguousarray(rgb[:height, :width])
