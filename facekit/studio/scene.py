"""Where a performance is filmed: lamps, surroundings, camera and background, drawn as photographs.

Directions are relative to the camera: x to the viewer's right, y up, z towards the camera.
Colours are linear RGB. A white matt surface under an even environment of radiance 1, or facing a
lamp of colour 1, shows radiance 1.
"""

from typing import Any

import numpy as np
from pydantic import Field

from facekit.core.config import Config
from facekit.studio.basis import Array
from facekit.studio.light import harmonics

Colour = tuple[float, float, float]
Environment = tuple[Colour, Colour, Colour, Colour, Colour, Colour, Colour, Colour, Colour]

HEAD_HEIGHT = 2.4
"""Chin to crown of the average adult, in dm."""

SENSOR = 24.0
"""The height of a picture on the sensor, in mm: focal lengths are those of small-format film."""


class Lamp(Config):
    """A distant lamp.

    Attributes:
        azimuth: in degrees about the vertical; 0 at the camera, positive to the viewer's right,
            ±180 behind the person.
        elevation: in degrees; positive above.
        colour: the radiance of a white matt surface that faces the lamp (irradiance / π).
    """

    azimuth: float = Field(0.0, ge=-180, le=180)
    elevation: float = Field(0.0, ge=-90, le=90)
    colour: Colour = (0.7, 0.7, 0.7)


def direction(azimuth: float, elevation: float) -> Array:
    """The unit vector (3,) towards a place at ``azimuth``, ``elevation`` in degrees."""
    a, e = np.radians([azimuth, elevation])
    return np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])


COSINE = np.array([np.pi] + [2 * np.pi / 3] * 3 + [np.pi / 4] * 5)
"""The harmonics' weights of a clamped cosine (Ramamoorthi & Hanrahan 2001)."""


def _even(colour: Array) -> Array:
    """Coefficients (9, 3) of the same radiance from everywhere."""
    values = np.zeros((9, 3))
    values[0] = colour / 0.282095
    return values


def _lobe(azimuth: float, elevation: float, colour: Array) -> Array:
    """Coefficients (9, 3) of a broad source: radiance colour · max(0, cosine to its middle)."""
    lobe: Array = (COSINE * harmonics(direction(azimuth, elevation)[None])[0])[:, None] * colour
    return lobe


def white(environment: Array, lamps: tuple[Lamp, ...], normals: Array) -> Array:
    """The radiance (P, 3) of white matt surfaces with unit ``normals`` (P, 3), unshadowed."""
    total = harmonics(normals) @ (COSINE[:, None] * environment) / np.pi
    for lamp in lamps:
        facing = np.clip(normals @ direction(lamp.azimuth, lamp.elevation), 0, None)
        total = total + facing[:, None] * np.array(lamp.colour)
    result: Array = total
    return result


_NONE = (0.0, 0.0, 0.0)
EVEN: Environment = ((1.77, 1.77, 1.84), _NONE, _NONE, _NONE, _NONE, _NONE, _NONE, _NONE, _NONE)
"""An even surrounding of radiance 0.5."""


def _front() -> Array:
    """Unit normals (P, 3) of a face that looks at the camera: within 65 degrees of its axis."""
    azimuth, elevation = np.meshgrid(np.linspace(-60, 60, 9), np.linspace(-40, 40, 5))
    pairs = zip(azimuth.ravel(), elevation.ravel(), strict=True)
    return np.array([direction(a, e) for a, e in pairs])


_FRONT = _front()


def sample(random: np.random.Generator) -> dict[str, Any]:
    """Camera, light and background of a :class:`Performance`, by its fields' names."""
    return {**_light(random), **_camera(random)}


def _camera(random: np.random.Generator) -> dict[str, Any]:
    distance = float(np.exp(random.uniform(np.log(5.5), np.log(19))))
    share = float(np.clip(random.normal(0.68, 0.07), 0.55, 0.83))
    # The crown with its hair lies 0.6 of the head's height above the eyes, the chin 0.46 below.
    low, high = 0.62 * share - 0.03, 1 - 0.5 * share
    middle = np.clip(random.normal(0.49, 0.03), low, max(high, low))
    sharp = random.random() < 0.7
    return {
        "distance": _rounded(distance),
        # The head's outline lies behind the eyes, and so looks smaller.
        "focal": _rounded(share * (distance + 0.7) * SENSOR / HEAD_HEIGHT),
        "centre_x": _rounded(np.clip(random.normal(0.5, 0.03), 0.43, 0.57)),
        "centre_y": _rounded(middle),
        "blur": 0.0 if sharp else _rounded(random.uniform(0.001, 0.004)),
        "noise": _rounded(np.clip(random.gamma(2, 0.0015), 0, 0.012)),
    }


def _tint(random: np.random.Generator, warmth: float, deviation: float = 0.05) -> Array:
    """A light's colour of luminance about 1; warmth > 0 is orange, < 0 blue."""
    warm = random.normal(warmth, deviation)
    green = random.normal(0, 0.015)
    return np.array([1 + 0.9 * warm, 1 + green, 1 - 1.1 * warm]).clip(0.3, 1.8)


def _light(random: np.random.Generator) -> dict[str, Any]:
    """Lamps, environment and background of one of five kinds of place."""
    places = (_window, _softbox, _overcast, _lamplight, _backlight)
    place = places[int(random.choice(len(places), p=[0.27, 0.23, 0.2, 0.16, 0.14]))]
    environment, lamps, back = place(random, float(random.choice([-1, 1])))
    # What stands behind the person also shines on the person's rims.
    environment = environment + _lobe(180, 0, back)
    # Exposure: as a camera would, for a face that looks at it.
    shown = white(environment, lamps, _FRONT).mean()
    gain = float(0.86 * np.exp(random.normal(0, 0.1)) / shown)
    return {
        "lamps": tuple(
            Lamp(
                azimuth=_rounded(lamp.azimuth),
                elevation=_rounded(lamp.elevation),
                colour=_colour(gain * np.array(lamp.colour)),
            )
            for lamp in lamps
        ),
        "environment": tuple(_colour(row, -50, 50) for row in gain * environment),
        "background": int(random.integers(0, 2**31)),
        "background_colour": _colour(np.clip(gain * back, 0.012, 0.95)),
    }


_Place = tuple[Array, tuple[Lamp, ...], Array]


def _wall(random: np.random.Generator, low: float, high: float, colourful: float = 0.1) -> Array:
    """A background's mean colour, of brightness log-uniform between ``low`` and ``high``.

    Most are near grey, and differ more from warm to cool than from green to purple.
    """
    bright = np.exp(random.uniform(np.log(low), np.log(high)))
    warm, green = random.normal(0, [1.3 * colourful, 0.3 * colourful])
    colour: Array = bright * np.clip([1 + warm, 1 + green, 1 - warm], 0.35, 1.7)
    return colour


def _lamp(azimuth: float, elevation: float, colour: Array) -> Lamp:
    return Lamp(
        azimuth=float((azimuth + 180) % 360 - 180), elevation=elevation, colour=_colour(colour)
    )


def _window(random: np.random.Generator, side: float) -> _Place:
    """Soft daylight from one side into a room that throws some back."""
    azimuth, elevation = side * random.uniform(20, 75), random.uniform(5, 35)
    day = _tint(random, -0.03)
    room = _tint(random, 0.04)
    key = random.uniform(0.75, 1.0) * day
    environment = _lobe(azimuth, elevation, 0.75 * key)
    environment += _even(random.uniform(0.14, 0.3) * room)
    environment += _lobe(0, -90, random.uniform(0.03, 0.15) * room)
    lamps = (_lamp(azimuth, elevation, 0.5 * key),)
    return environment, lamps, _wall(random, 0.06, 0.5) * room


def _softbox(random: np.random.Generator, side: float) -> _Place:
    """A studio's key from above one side, fill from the other, a rim from behind."""
    azimuth, elevation = side * random.uniform(15, 55), random.uniform(15, 42)
    flash = _tint(random, 0, 0.02)
    environment = _even(random.uniform(0.1, 0.2) * flash)
    environment += _lobe(azimuth, elevation, 0.4 * flash)
    fill = random.uniform(0.18, 0.4)
    environment += _lobe(-azimuth, 5, 0.5 * fill * flash)
    rim = _tint(random, 0, 0.08) * random.uniform(0.3, 1.0)
    lamps = (
        _lamp(azimuth, elevation, 0.75 * flash),
        _lamp(-side * random.uniform(25, 60), random.uniform(0, 15), 0.6 * fill * flash),
        _lamp(-side * random.uniform(130, 160), random.uniform(15, 45), rim),
    )
    return environment, lamps[: int(random.integers(2, 4))], _wall(random, 0.03, 0.7, 0.2)


def _overcast(random: np.random.Generator, side: float) -> _Place:
    """A grey sky, a ground that throws light back, at times a hint of sun."""
    sky = _tint(random, -0.05, 0.03)
    environment = _even(random.uniform(0.35, 0.5) * sky)
    environment += _lobe(side * random.uniform(0, 50), random.uniform(40, 80), 0.85 * sky)
    ground = np.array([1.0, 0.98, 0.85]) * _tint(random, 0)
    environment += _lobe(0, -80, random.uniform(0.12, 0.3) * ground)
    lamps: tuple[Lamp, ...] = ()
    if random.random() < 0.5:
        sun = random.uniform(0.15, 0.4) * _tint(random, 0.07, 0.03)
        lamps = (_lamp(side * random.uniform(20, 70), random.uniform(20, 50), sun),)
    green = np.array([0.93, 1.03, 0.85]) if random.random() < 0.5 else np.array([0.96, 1.0, 1.06])
    return environment, lamps, _wall(random, 0.12, 0.8) * green


def _lamplight(random: np.random.Generator, side: float) -> _Place:
    """A warm lamp in a room, the camera's white balance half way."""
    azimuth, elevation = side * random.uniform(20, 65), random.uniform(8, 45)
    bulb = _tint(random, 0.16, 0.04)
    room = _tint(random, 0.08, 0.06)
    environment = _even(random.uniform(0.18, 0.34) * room)
    environment += _lobe(azimuth, elevation, 0.35 * bulb)
    lamps: tuple[Lamp, ...] = (_lamp(azimuth, elevation, random.uniform(0.5, 0.75) * bulb),)
    if random.random() < 0.4:
        far = random.uniform(0.2, 0.6) * _tint(random, 0.14, 0.06)
        lamps += (_lamp(-side * random.uniform(110, 160), random.uniform(5, 35), far),)
    return environment, lamps, _wall(random, 0.03, 0.25) * bulb


def _backlight(random: np.random.Generator, side: float) -> _Place:
    """Sun or window behind the person, and enough fill in front to see the face."""
    fill = _tint(random, -0.02)
    environment = _even(random.uniform(0.38, 0.55) * fill)
    environment += _lobe(-side * random.uniform(0, 50), random.uniform(0, 30), 0.5 * fill)
    sun = random.uniform(0.7, 1.5) * _tint(random, 0.05)
    lamps = (_lamp(side * random.uniform(125, 165), random.uniform(15, 50), sun),)
    return environment, lamps, _wall(random, 0.35, 0.95)


def _rounded(value: float) -> float:
    return round(float(value), 4)


def _colour(values: Any, low: float = 0, high: float = 5) -> Colour:
    r, g, b = np.round(np.clip(values, low, high), 4).tolist()
    return r, g, b
