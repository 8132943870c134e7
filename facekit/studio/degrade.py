"""What a camera and a file do to a picture: lens, sensor, white balance, scaling, compression.

The studio's frames are cleaner than any photo. A :class:`Degradation` brings them nearer, as an
explicit and seeded stage of its own, in the order in which light meets these things:

    lens blur → shot and read noise → white balance → down- and up-scaling → JPEG → H.264

The first three happen in linear light, the others in sRGB. Nothing moves: landmarks, masks and all
other labels of a frame hold for the degraded one.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from facekit.core.config import Config, validate
from facekit.core.errors import FacekitError, did_you_mean
from facekit.core.seed import Purpose, rng
from facekit.media import lossy
from facekit.types import Pixels

Linear = NDArray[np.float32]
Gain = Annotated[float, Field(ge=0.25, le=4)]

Strength = Literal["mild", "strong"]
STRENGTHS: tuple[Strength, ...] = get_args(Strength)
DEGRADATIONS = ("none", *STRENGTHS)

_CODES = np.arange(256) / 255
_LINEAR = np.where(_CODES <= 0.04045, _CODES / 12.92, ((_CODES + 0.055) / 1.055) ** 2.4)
_LINEAR = _LINEAR.astype(np.float32)


class Noise(Config):
    """A sensor's noise in linear light, of variance ``shot · level + read²`` (level in [0, 1]).

    Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting", 2008.

    Attributes:
        shot: of the photons; its variance grows with the light.
        read: standard deviation of what the electronics add.
    """

    shot: float = Field(0.0, ge=0, le=0.1)
    read: float = Field(0.0, ge=0, le=0.2)


class Jpeg(Config):
    """JPEG as Pillow (libjpeg) writes it; subsampling is of the colours."""

    quality: int = Field(ge=1, le=100)
    subsampling: lossy.Subsampling = "4:2:0"


class Degradation(Config):
    """What is done to a picture or a clip; what is None is not done.

    Attributes:
        seed: of the noise.
        blur: of the lens: the deviation of a Gaussian, as a share of the picture's height.
        noise: of the sensor.
        white_balance: gains of red, green and blue in linear light: the camera's error in judging
            what is grey. (1, 1, 1) is none.
        downscale: the picture is made smaller to this share of its sides, and large again.
        jpeg: compression of each frame.
        h264: crf of x264, 0 to 51; a clip is compressed as a whole, a picture as one key frame.

    Example:
        >>> Degradation(jpeg=Jpeg(quality=60), seed=3).apply(pixels)
        >>> Degradation.sample(7, "strong").apply_clip(frames)
    """

    seed: int = Field(0, ge=0)
    blur: float | None = Field(None, ge=0, le=0.05)
    noise: Noise | None = None
    white_balance: tuple[Gain, Gain, Gain] | None = None
    downscale: float | None = Field(None, gt=0, le=1)
    jpeg: Jpeg | None = None
    h264: int | None = Field(None, ge=0, le=51)

    @classmethod
    def sample(cls, seed: int, strength: str = "mild") -> "Degradation":
        """Draw a camera and a file: ``mild`` as of a good phone, ``strong`` as of a shared clip.

        Noise is drawn as in Brooks et al., "Unprocessing images for learned raw denoising", 2019:
        shot noise log-uniform, read noise following it. Each stage but the sensor's is left out
        now and then.

        Raises:
            FacekitError: for a negative seed or an unknown strength.
        """
        if seed < 0:
            raise FacekitError(f"degradation seed {seed}: must be 0 or more")
        if strength not in STRENGTHS:
            raise FacekitError(
                f"unknown degradation '{strength}'; {did_you_mean(strength, STRENGTHS)}"
            )
        random = rng(seed, 1, Purpose.DEGRADING)
        strong = strength == "strong"
        log_shot = random.uniform(*np.log((2e-3, 1e-2) if strong else (1e-4, 1.5e-3)))
        log_read = (2.18 * log_shot + 1.2 + random.normal(0, 0.26)) / 2
        warm, tint = random.normal(0, 0.07 if strong else 0.025, 2)
        # Each stage draws whether or not it is kept, so that one does not move the next.
        blur = random.uniform(0.002, 0.006) if strong else random.uniform(0.0008, 0.003)
        share = random.uniform(0.45, 0.8) if strong else random.uniform(0.75, 1.0)
        quality = random.integers(30, 76) if strong else random.integers(80, 97)
        crf = random.integers(24, 32) if strong else random.integers(17, 25)
        kept = random.random(4) < (0.7, 0.6, 0.75, 0.6)
        subsampling: Literal["4:2:0", "4:4:4"] = "4:2:0" if quality < 90 else "4:4:4"
        gains = np.exp([warm, -0.3 * tint, -warm])
        return cls(
            seed=seed,
            blur=round(float(blur), 5) if kept[0] else None,
            noise=Noise(
                shot=round(float(np.exp(log_shot)), 6), read=round(float(np.exp(log_read)), 6)
            ),
            white_balance=_three(np.round(np.clip(gains, 0.5, 2), 4)),
            downscale=round(float(share), 3) if kept[1] else None,
            jpeg=Jpeg(quality=int(quality), subsampling=subsampling) if kept[2] else None,
            h264=int(crf) if kept[3] else None,
        )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Degradation":
        """A degradation from what :meth:`to_json` gave.

        Raises:
            FacekitError: for an unknown key or a value out of range.
        """
        gains = values.get("white_balance")
        given = values | {"white_balance": tuple(gains)} if isinstance(gains, list) else values
        return validate(given, cls, "degradation")

    def to_json(self) -> dict[str, Any]:
        """The parameters as JSON values."""
        return self.model_dump(mode="json")

    def apply(self, pixels: Pixels, index: int = 0) -> Pixels:
        """Degrade one picture.

        Args:
            pixels: uint8 RGB (H, W, 3); it is left as it is.
            index: of the frame within its clip; each has noise of its own. Without H.264, the
                result is that of :meth:`apply_clip` for this frame.

        Returns:
            uint8 RGB (H, W, 3). The same arguments give the same bytes.
        """
        single = self._single(pixels, index)
        return single if self.h264 is None else next(lossy.h264([single], self.h264))

    def apply_clip(self, frames: Iterable[Pixels]) -> Iterator[Pixels]:
        """Degrade the frames of one clip, in order: one camera, new noise in each frame.

        A few dozen frames are held at once, however long the clip is.

        Args:
            frames: uint8 RGB (H, W, 3), all of one size.

        Yields:
            as many frames of the same size.
        """
        single = (self._single(pixels, index) for index, pixels in enumerate(frames))
        yield from single if self.h264 is None else lossy.h264(single, self.h264)

    def _single(self, pixels: Pixels, index: int) -> Pixels:
        """All that is done to each frame by itself; ``index`` within its clip."""
        result = self._exposed(pixels, index)
        if self.downscale is not None:
            result = _through_scale(result, self.downscale)
        if self.jpeg is not None:
            result = lossy.jpeg(result, self.jpeg.quality, self.jpeg.subsampling)
        return result

    def _exposed(self, pixels: Pixels, index: int) -> Pixels:
        """Lens, sensor and white balance, in linear light."""
        if not self.blur and self.noise is None and self.white_balance is None:
            return pixels
        light = to_linear(pixels)
        if self.blur:
            sigma = self.blur * len(pixels)
            light = np.asarray(cv2.GaussianBlur(light, (0, 0), sigma), np.float32)
        if self.noise is not None:
            random = rng(self.seed, index, 2, Purpose.DEGRADING)
            deviation = np.sqrt(np.float32(self.noise.shot) * light + self.noise.read**2)
            light = light + deviation * random.standard_normal(light.shape, np.float32)
        if self.white_balance is not None:
            light = light * np.array(self.white_balance, np.float32)
        return to_srgb(light)


def chosen(name: str, seed: int) -> Degradation | None:
    """The degradation of a picture or clip by its seed: that of ``--degrade NAME``.

    Args:
        name: "none", "mild" or "strong".
        seed: of the picture's or clip's performance.

    Raises:
        FacekitError: for an unknown name.
    """
    if name not in DEGRADATIONS:
        raise FacekitError(f"unknown degradation '{name}'; {did_you_mean(name, DEGRADATIONS)}")
    return None if name == "none" else Degradation.sample(seed, name)


def to_linear(pixels: Pixels) -> Linear:
    """The light in [0, 1] that sRGB codes stand for (IEC 61966-2-1)."""
    light: Linear = _LINEAR[pixels]
    return light


def to_srgb(light: Linear) -> Pixels:
    """The nearest sRGB codes for light; what is outside [0, 1] is clipped."""
    light = np.clip(light, 0, 1)
    curve = 1.055 * light ** np.float32(1 / 2.4) - np.float32(0.055)
    codes = np.where(light <= 0.0031308, 12.92 * light, curve)
    return np.asarray(codes * 255 + 0.5, np.uint8)


def _three(values: Any) -> tuple[float, float, float]:
    r, g, b = values.tolist()
    return r, g, b


def _through_scale(pixels: Pixels, share: float) -> Pixels:
    height, width = pixels.shape[:2]
    small = (max(round(width * share), 1), max(round(height * share), 1))
    shrunk = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
