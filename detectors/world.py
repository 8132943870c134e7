"""What befalls pictures on their way through the world: resized, blurred, re-compressed.

Collections differ in size, sharpness and compression, and so do the two classes. Every region, of
either class, goes through the same changes with the same odds before a network sees it, so that
none of this tells the classes apart. The changes themselves are albumentations' (Buslaev et al.
2020).
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

Chain = Callable[..., Any]

_KINDS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
_FACTORS = (0.6, 1.4)
_WIDEST = 0.5  # beyond the face's box, in shares of its size: as far as a region reaches

Size = Annotated[int, Field(ge=32, le=512)]
Quality = Annotated[int, Field(ge=1, le=100)]


class World(Config):
    """How much befalls a picture.

    Attributes:
        face: size of the face (its box's longer side, in pixels) after resizing, from and to.
        quality: of JPEG and WebP, from and to, in 1 to 100.
        resize: odds of another size.
        degrade: odds, each, of blur and of noise.
        trim: odds of a tighter frame about the face. Where a picture ends, a crop shows made-up
            pixels; were one class framed more tightly than the other, these would tell them apart.
        recolour: odds, each, of another brightness and contrast, and another hue (training only).
    """

    face: list[Size] = Field([72, 240], min_length=2, max_length=2)
    quality: list[Quality] = Field([40, 98], min_length=2, max_length=2)
    resize: float = Field(0.7, ge=0, le=1)
    degrade: float = Field(0.2, ge=0, le=1)
    trim: float = Field(0.4, ge=0, le=1)
    recolour: float = Field(0.3, ge=0, le=1)

    @field_validator("face", "quality")
    @classmethod
    def _rises(cls, values: list[int]) -> list[int]:
        if values[0] > values[1]:
            raise PydanticCustomError("range", "the lower value must stand first")
        return values


def chain(world: World, *, training: bool) -> Chain:
    """The albumentations chain for :func:`degrade`; training also has other colours."""
    # Without this it asks PyPI for its newest version at import.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as album

    odds, range_ = world.recolour, (world.quality[0], world.quality[1])
    colours = [
        album.RandomBrightnessContrast(p=odds),
        album.HueSaturationValue(hue_shift_limit=8, sat_shift_limit=25, val_shift_limit=10, p=odds),
        album.RandomGamma(gamma_limit=(75, 130), p=odds / 2),
        album.Sharpen(alpha=(0.1, 0.4), lightness=(1.0, 1.0), p=odds / 3),
        album.ToGray(p=odds / 10),
    ]
    way = [
        album.GaussianBlur(sigma_limit=(0.3, 1.2), p=world.degrade),
        album.GaussNoise(std_range=(0.004, 0.05), p=world.degrade),
        album.ImageCompression("jpeg", quality_range=range_, p=0.8),
        album.ImageCompression("webp", quality_range=range_, p=0.1),
        album.ImageCompression("jpeg", quality_range=range_, p=0.2),
    ]
    composed: Chain = album.Compose(colours + way if training else way)
    return composed


def degrade(
    region: Region,
    world: World,
    chain: Chain,
    random: np.random.Generator,
    *,
    sharpest: float | None = None,
) -> Region:
    """One region after its way through the world.

    Args:
        region: of either class.
        world: sizes and odds.
        chain: of :func:`chain`.
        random: all chances come from it: the same state gives both of a pair the same fate.
        sharpest: a face larger than this is first shrunk to it, so that both of a pair show
            equally fine detail whatever happens next.

    Returns:
        The region resized, with its face where it then is, blurred, made noisy and compressed.
    """
    finest = min(sharpest or region.face.size, region.face.size)
    if finest < region.face.size:
        region = brought(region, finest)
    size = finest * np.exp(random.uniform(*np.log(_FACTORS)))
    if random.random() >= world.resize:
        size = finest
    kind = int(random.choice(_KINDS))
    size = min(max(size, world.face[0]), world.face[1])
    region = resized(region, size / region.face.size, kind)
    chain.set_random_seed(int(random.integers(2**31)))  # type: ignore[attr-defined]
    return replace(region, pixels=np.asarray(chain(image=region.pixels)["image"], np.uint8))


def frame(world: World, random: np.random.Generator) -> list[float] | None:
    """Margins for ``detectors.regions.trimmed``, or None: the picture stays as it is framed."""
    margins: list[float] = random.uniform(0, _WIDEST, 4).tolist()
    return margins if random.random() < world.trim else None


def within(region: Region, world: World) -> Region:
    """The region, resized if its face is larger or smaller than any that the world shows."""
    low, high = world.face
    size = min(max(region.face.size, low), high)
    return region if size == region.face.size else brought(region, size)


def brought(region: Region, face_size: float) -> Region:
    """The region resized so that the longer side of its face's box is ``face_size`` pixels."""
    return resized(region, face_size / region.face.size)
