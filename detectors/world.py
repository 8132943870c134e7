"""What befalls pictures on their way through the world: resized, blurred, re-compressed.

Collections differ in size, sharpness and compression, and so do the two classes. Every region, of
either class, goes through the same changes with the same odds before a network sees it, so that
none of this tells the classes apart.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import cv2
import numpy as np
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from detectors.regions import Region, resized
from facekit.core.config import Config
from facekit.types import Pixels

_KINDS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)

Size = Annotated[int, Field(ge=32, le=512)]
Quality = Annotated[int, Field(ge=1, le=100)]


class World(Config):
    """How much befalls a picture.

    Attributes:
        face: size of the face (its box's longer side, in pixels) after resizing, from and to.
        quality: of JPEG and WebP, from and to, in 1 to 100.
        resize: odds of another size.
        degrade: odds, each, of blur and of noise.
        compress: odds of JPEG or WebP; of these, a quarter are compressed twice.
        recolour: odds, each, of another brightness and contrast, another hue, and grey (training
            only).
    """

    face: list[Size] = Field([72, 240], min_length=2, max_length=2)
    quality: list[Quality] = Field([40, 98], min_length=2, max_length=2)
    resize: float = Field(0.7, ge=0, le=1)
    degrade: float = Field(0.15, ge=0, le=1)
    compress: float = Field(0.85, ge=0, le=1)
    recolour: float = Field(0.3, ge=0, le=1)

    @field_validator("face", "quality")
    @classmethod
    def _rises(cls, values: list[int]) -> list[int]:
        if values[0] > values[1]:
            raise PydanticCustomError("range", "the lower value must stand first")
        return values


def brought(region: Region, face_size: float) -> Region:
    """The region resized so that the longer side of its face's box is ``face_size`` pixels."""
    return resized(region, face_size / region.face.size)


def degrade(
    region: Region, world: World, random: np.random.Generator, *, sharpest: float | None = None
) -> Region:
    """One region after its way through the world.

    Args:
        region: of either class.
        world: the odds.
        random: all chances come from it: the same state gives two regions of one size the same
            fate.
        sharpest: a face larger than this is first shrunk to it, so that those of a pair show
            equally fine detail whatever happens next.

    Returns:
        The region resized, with its face where it then is, blurred, made noisy and compressed.
    """
    low, high = world.face
    finest = min(sharpest or region.face.size, region.face.size)
    if finest < region.face.size:
        region = brought(region, finest)
    size = finest * np.exp(random.uniform(np.log(0.6), np.log(1.4)))
    if random.random() >= world.resize:
        size = finest
    kind = int(random.choice(_KINDS))
    region = resized(region, float(np.clip(size, low, high)) / region.face.size, kind)
    pixels = region.pixels
    for change in (_blurred, _noisy):
        if random.random() < world.degrade:
            pixels = change(pixels, random)
    return replace(region, pixels=compressed(pixels, world, random))


def compressed(pixels: Pixels, world: World, random: np.random.Generator) -> Pixels:
    """JPEG or WebP at a random quality, or neither; a quarter of the compressed ones twice."""
    if random.random() >= world.compress:
        return pixels
    for _ in range(1 + (random.random() < 0.25)):
        quality = int(random.integers(world.quality[0], world.quality[1] + 1))
        kind = "webp" if random.random() < 0.15 else "jpeg"
        pixels = _coded(pixels, kind, quality, full_colour=random.random() < 0.25)
    return pixels


def _coded(pixels: Pixels, kind: str, quality: int, *, full_colour: bool) -> Pixels:
    options = [cv2.IMWRITE_WEBP_QUALITY, quality]
    if kind == "jpeg":
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        if full_colour:  # no chroma subsampling
            sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
            options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    # OpenCV's order of channels matters here: luma and chroma are treated differently.
    _, code = cv2.imencode(f".{kind}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    decoded = cv2.imdecode(code, cv2.IMREAD_COLOR_RGB)
    return np.asarray(decoded, np.uint8)


def _blurred(pixels: Pixels, random: np.random.Generator) -> Pixels:
    sigma = random.uniform(0.3, 1.2)
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.uint8)


def _noisy(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Noise of a sensor, finer or coarser, in grey or in colour."""
    height, width = pixels.shape[:2]
    channels = 1 if random.random() < 0.5 else 3
    noise = random.standard_normal((height, width, channels), np.float32)
    if random.random() < 0.3:
        noise = cv2.GaussianBlur(noise, (0, 0), 0.7).reshape(noise.shape) * 2
    noisy = pixels + random.uniform(1.0, 7.0) * noise
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def colour_chain(odds: float) -> Callable[..., Any]:
    """An albumentations chain: the camera and the hand of whoever edited the picture."""
    # Without this it asks PyPI for its newest version at import.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    chain: Callable[..., Any] = albumentations.Compose(
        [
            albumentations.RandomBrightnessContrast(p=odds),
            albumentations.HueSaturationValue(
                hue_shift_limit=8, sat_shift_limit=25, val_shift_limit=10, p=odds
            ),
            albumentations.RandomGamma(gamma_limit=(75, 130), p=odds / 2),
            albumentations.Sharpen(alpha=(0.1, 0.4), lightness=(1.0, 1.0), p=odds / 3),
            albumentations.ToGray(p=odds / 10),
        ]
    )
    return chain
