"""What lies behind the person, and what the camera makes of the light: blur, noise, bytes."""

from functools import lru_cache

import cv2
import numpy as np

from facekit.core.seed import rng
from facekit.studio.basis import Array
from facekit.studio.light import harmonics
from facekit.studio.performance import Performance
from facekit.studio.scene import Environment
from facekit.types import Pixels

_SIDE = 160  # All of it is out of focus: a small picture holds it.


def background(performance: Performance, size: int) -> Array:
    """A place out of focus behind the person: linear RGB (size, size, 3)."""
    soft = _place(performance.background, performance.background_colour, performance.environment)
    back = cv2.resize(soft, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.maximum(back, 0), np.float32)


@lru_cache(maxsize=8)
def _place(seed: int, colour: tuple[float, float, float], environment: Environment) -> Array:
    """A wall, a room, a park or lights at night (160, 160, 3), seen with a wide-open lens."""
    random = rng(seed)
    tone = np.array(colour, np.float32)
    dark = float(tone.mean()) < 0.12
    kinds = (_wall, _room, _lights if dark else _park)
    kind = kinds[int(random.choice(3, p=[0.3, 0.38, 0.32]))]
    picture = kind(random, tone)
    picture *= _falling(environment)[..., None]
    soft = _defocused(picture, random.uniform(0.028, 0.065))
    return np.asarray(np.clip(soft, 0.003, 3), np.float32)


def _falling(environment: Environment) -> Array:
    """How the surroundings' brightness varies over what lies behind, about 1: (160, 160)."""
    red, green, blue = (_harmonics_behind() @ np.array(environment, np.float32)).T
    seen = (red + green + blue) / 3
    # The lowest harmonics overshoot, and a background behind glass need not follow them wholly.
    share = np.clip(seen / max(float(seen.mean()), 1e-3), 0.3, 2)
    result: Array = np.sqrt(share).reshape(_SIDE, _SIDE)
    return result


@lru_cache(maxsize=1)
def _harmonics_behind() -> Array:
    """The spherical harmonics in the directions of what lies behind: (160 · 160, 9)."""
    place = (np.arange(_SIDE, dtype=np.float32) + 0.5) / _SIDE - 0.5
    x, y = np.meshgrid(place, -place)
    ways = np.stack([0.9 * x, 0.9 * y, np.full_like(x, -1)], -1).reshape(-1, 3)
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    return harmonics(ways)


def _defocused(picture: Array, radius: float) -> Array:
    """Blurred by a round aperture; ``radius`` as a share of the side."""
    reach = max(round(radius * _SIDE), 1)
    offset = np.arange(-reach, reach + 1, dtype=np.float32)
    away = np.hypot(*np.meshgrid(offset, offset))
    disc = np.clip(reach + 0.5 - away, 0, 1) * (0.8 + 0.2 * away / reach)
    blurred = cv2.filter2D(picture, -1, disc / disc.sum(), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.GaussianBlur(blurred, (0, 0), 1.7), np.float32)


def _wall(random: np.random.Generator, tone: Array) -> Array:
    """A plain wall or a studio's paper, brightest where a lamp hits it."""
    x, y = _grid()
    cx, cy, reach = random.uniform(0.2, 0.8), random.uniform(0.1, 0.7), random.uniform(0.4, 0.9)
    pool = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * reach * reach))
    wall = (0.55 + 0.75 * pool)[..., None] * tone
    if random.random() < 0.5:  # A corner of the room, or a door's edge.
        edge = random.choice([random.uniform(0.04, 0.25), random.uniform(0.75, 0.96)])
        wall[x > edge] *= random.uniform(0.6, 0.85)
    return np.asarray(wall, np.float32)


def _room(random: np.random.Generator, tone: Array) -> Array:
    """A wall with a window or a lamp, shelves with things on them, furniture below."""
    picture = _wall(random, tone)
    x, y = _grid()
    if random.random() < 0.65:
        left, wide = random.uniform(-0.1, 0.8), random.uniform(0.18, 0.4)
        top, high = random.uniform(-0.2, 0.12), random.uniform(0.4, 0.75)
        day = np.array([0.95, 1.0, 1.06]) * random.uniform(1.5, 4) * max(float(tone.mean()), 0.08)
        _block(picture, left - 0.02, top - 0.02, wide + 0.04, high + 0.04, 0.7 * tone)
        panes = int(random.integers(1, 4))
        for pane in range(panes):
            step = wide / panes
            _block(picture, left + pane * step, top, step - 0.02, high, day)
    if random.random() < 0.6:
        left, wide = random.uniform(-0.2, 0.7), random.uniform(0.3, 0.6)
        wood = tone * np.array([0.7, 0.5, 0.38]) * random.uniform(0.5, 1.1)
        for shelf in np.arange(random.uniform(0.05, 0.3), 0.95, random.uniform(0.2, 0.3)):
            _block(picture, left, shelf, wide, 0.02, wood)
            at = left
            while at < left + wide - 0.03:
                thick, tall = random.uniform(0.015, 0.05), random.uniform(0.07, 0.16)
                if random.random() < 0.75:
                    hue = 0.3 + 0.9 * random.random(3)
                    thing = tone * hue * random.uniform(0.4, 1.3)
                    _block(picture, at, shelf - tall, thick, tall, thing)
                at += thick
    if random.random() < 0.5:
        cx, cy = random.uniform(0, 1), random.uniform(0.1, 0.6)
        shade = np.hypot((x - cx) / 0.08, (y - cy) / 0.07) < 1
        picture[shade] = np.array([1.0, 0.78, 0.5]) * max(4 * float(tone.mean()), 0.5)
        picture += (0.3 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.05))[..., None] * tone
    if random.random() < 0.6:
        height = random.uniform(0.1, 0.35)
        hue = 0.5 + 0.7 * random.random(3)
        left = random.uniform(-0.4, 0.5)
        _block(picture, left, 1 - height, random.uniform(0.5, 1.2), height, tone * 0.6 * hue)
    return picture


def _park(random: np.random.Generator, tone: Array) -> Array:
    """Sky, leaves with light between them, a lawn or a path."""
    _, y = _grid()
    bright = float(tone.mean())
    horizon = random.uniform(0.45, 0.8)
    sky = bright * np.array([1.25, 1.4, 1.6]) * random.uniform(0.9, 1.4)
    ground = bright * np.array([0.6, 0.72, 0.38]) * random.uniform(0.5, 1)
    if random.random() < 0.4:  # A street instead of a lawn.
        ground = bright * np.array([0.75, 0.73, 0.7]) * random.uniform(0.5, 1)
    picture = np.where((y < horizon)[..., None], sky * (1.15 - 0.3 * y)[..., None], ground)
    for _ in range(int(random.integers(0, 4))):  # Houses.
        left, top = random.uniform(-0.2, 0.9), random.uniform(0.1, 0.5)
        stone = tone * (0.5 + 0.5 * random.random()) * (0.85 + 0.3 * random.random(3))
        _block(picture, left, top, random.uniform(0.15, 0.4), horizon - top, stone)
    leaf = bright * np.array([0.38, 0.55, 0.2]) * random.uniform(0.5, 1.0)
    for _ in range(int(random.integers(60, 220))):
        cx, cy = random.uniform(-0.05, 1.05), random.uniform(-0.05, horizon + 0.05)
        reach = random.uniform(0.02, 0.09)
        hue = leaf * np.exp(random.normal(0, 0.45)) * (0.8 + 0.4 * random.random(3))
        _disc(picture, cx, cy, reach, hue)
    for _ in range(int(random.integers(0, 26))):  # Sky between the leaves.
        cx, cy, reach = random.random(), random.uniform(0, horizon), random.uniform(0.006, 0.02)
        _disc(picture, cx, cy, reach, 2.2 * sky)
    return np.asarray(picture, np.float32)


def _lights(random: np.random.Generator, tone: Array) -> Array:
    """A dark place with lamps far away."""
    x, y = _grid()
    picture = tone * (0.9 - 0.5 * np.abs(y - 0.55))[..., None]
    for _ in range(int(random.integers(2, 6))):
        wide, high = random.uniform(0.1, 0.4), random.uniform(0.2, 0.7)
        shape = tone * random.uniform(0.3, 1.4) * (0.8 + 0.4 * random.random(3))
        _block(picture, random.uniform(-0.1, 0.9), 1 - high, wide, high, shape)
    picture = picture.astype(np.float64)
    hues = np.array([[1, 0.72, 0.35], [1, 0.9, 0.7], [0.6, 0.75, 1], [1, 0.35, 0.25]])
    for _ in range(int(random.integers(5, 30))):
        cx, cy = random.random(), random.uniform(0.05, 0.85)
        hue = hues[int(random.choice(4, p=[0.5, 0.3, 0.12, 0.08]))]
        near = _window(cx, cy, 0.1)  # Further off a lamp adds less than a float can hold.
        spot = np.exp(-((x[near] - cx) ** 2 + (y[near] - cy) ** 2) / (2 * 0.008**2))
        picture[near] += (random.uniform(1, 6) * spot)[..., None] * hue
    return np.asarray(picture, np.float32)


@lru_cache(maxsize=1)
def _grid() -> tuple[Array, Array]:
    y, x = (np.mgrid[0:_SIDE, 0:_SIDE].astype(np.float32) + 0.5) / _SIDE
    return x, y


def _window(cx: float, cy: float, reach: float) -> tuple[slice, slice]:
    """The part of a picture that holds all within ``reach`` of a place, in shares of the side."""
    rows, columns = (
        slice(max(int((at - reach) * _SIDE) - 1, 0), max(int((at + reach) * _SIDE) + 2, 0))
        for at in (cy, cx)
    )
    return rows, columns


def _disc(picture: Array, cx: float, cy: float, reach: float, colour: Array) -> None:
    """Fill a disc given in shares of the side."""
    x, y = _grid()
    near = _window(cx, cy, reach)
    picture[near][(x[near] - cx) ** 2 + (y[near] - cy) ** 2 < reach * reach] = colour


def _block(
    picture: Array, left: float, top: float, wide: float, high: float, colour: Array
) -> None:
    """Fill a rectangle given in shares of the side."""
    low_x, high_x, low_y, high_y = (
        int(np.clip(round(value * _SIDE), 0, _SIDE))
        for value in (left, left + wide, top, top + high)
    )
    picture[low_y:high_y, low_x:high_x] = colour


def exposed(picture: Array, performance: Performance) -> Pixels:
    """What the camera writes of linear light (S, S, 3): blurred, noisy, as sRGB bytes."""
    size = len(picture)
    if performance.blur:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), performance.blur * size), np.float32)
    if performance.noise:
        picture = picture + _noise(performance, picture)
    return _encoded(picture)


def _noise(performance: Performance, picture: Array) -> Array:
    """Of photons, growing with the root of the light, and of the sensor, even in the dark."""
    random = rng(performance.background, round(performance.time * 1e6), 8)
    grain = random.standard_normal(picture.shape, dtype=np.float32)
    deviation = performance.noise * np.sqrt(0.06 + 0.94 * np.clip(picture, 0, 4) / 0.18)
    noise: Array = grain * deviation
    return noise


_STEPS = 1 << 15
_WHITE = 4.0  # Linear light from here on is white.


@lru_cache(maxsize=1)
def _curve() -> Pixels:
    """Bytes for ``_STEPS`` levels of linear light up to ``_WHITE``: a soft shoulder, then sRGB."""
    x = (np.arange(_STEPS) + 0.5) * (_WHITE / _STEPS)
    # Hable's curve (2010), gentle in the shadows, softly closing in the highlights.
    x = _filmic(1.9 * x) / _filmic(np.array(7.0))
    encoded = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    # A photograph's contrast: shadows a little deeper, lights a little lighter.
    encoded = encoded - 0.3 * np.sin(2 * np.pi * encoded) / (2 * np.pi)
    return (np.clip(encoded, 0, 1) * 255 + 0.5).astype(np.uint8)


def _filmic(x: Array) -> Array:
    return (x * (0.22 * x + 0.03) + 0.002) / (x * (0.22 * x + 0.3) + 0.06) - 0.002 / 0.06


def _encoded(picture: Array) -> Pixels:
    level = np.clip(picture * np.float32(_STEPS / _WHITE), 0, _STEPS - 1)
    pixels: Pixels = _curve()[level.astype(np.int32)]
    return pixels
