"""What a person does and how it is filmed: expression, pose, gaze, camera, light, background."""

from typing import Any

import numpy as np
from pydantic import Field
from scipy.ndimage import gaussian_filter1d

from facekit.core.config import Config, validate
from facekit.core.errors import FacekitError, did_you_mean
from facekit.core.seed import rng
from facekit.studio import scene
from facekit.studio.basis import Array
from facekit.studio.scene import Colour, Environment, Lamp

_SIDED = (
    "browDown browOuterUp cheekSquint eyeBlink eyeLookDown eyeLookIn eyeLookOut eyeLookUp "
    "eyeSquint eyeWide mouthDimple mouthFrown mouthLowerDown mouthPress mouthSmile mouthStretch "
    "mouthUpperUp noseSneer"
).split()
_UNSIDED = (
    "browInnerUp cheekPuff jawForward jawLeft jawOpen jawRight mouthClose mouthFunnel mouthLeft "
    "mouthPucker mouthRight mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper tongueOut"
).split()
FACE_UNITS = sorted(_UNSIDED + [unit + side for unit in _SIDED for side in ("Left", "Right")])
"""The 52 face units of ARKit, by their names there; left and right are the person's own."""

_HEAD = ("yaw", "pitch", "roll")
_NECK = ("neck_yaw", "neck_pitch", "neck_roll")


class Performance(Config):
    """One moment before the camera; it fits every person.

    Angles in degrees, as :mod:`facekit.types` has them; colours linear RGB; light and directions
    relative to the camera, as :mod:`facekit.studio.scene` has them. The head turns on the neck,
    the neck on the shoulders, and the camera goes about the whole person.

    Attributes:
        expression: face unit → coefficient in [0, 1]; those not named are 0.
        yaw, pitch, roll: of the head on the neck.
        neck_yaw, neck_pitch, neck_roll: of the neck on the shoulders; the head goes along.
        gaze_x, gaze_y: of the eyes in the head; positive to the viewer's right, and up.
        camera_yaw, camera_pitch: where the camera stands about the person. Positive yaw shows the
            face turned to the viewer's right; positive pitch shows it looking up (a low camera).
        distance: of the camera from the eyes, in dm.
        focal: in mm on a picture 24 mm high; ``focal / 24 · size`` in pixels.
        centre_x, centre_y: where the middle of the head at rest is, as shares of the picture.
        lamps: up to three.
        environment: spherical harmonics' coefficients of the surroundings' radiance.
        background: seed of the background's shapes; ``background_colour`` its mean colour.
        blur: sigma of the picture's softness, as a share of its side.
        noise: standard deviation of the sensor's noise at mid grey, in linear light.
        time: in seconds within a clip.
    """

    expression: dict[str, float] = Field(default_factory=dict)
    yaw: float = Field(0.0, ge=-90, le=90)
    pitch: float = Field(0.0, ge=-60, le=60)
    roll: float = Field(0.0, ge=-60, le=60)
    neck_yaw: float = Field(0.0, ge=-45, le=45)
    neck_pitch: float = Field(0.0, ge=-45, le=45)
    neck_roll: float = Field(0.0, ge=-45, le=45)
    gaze_x: float = Field(0.0, ge=-40, le=40)
    gaze_y: float = Field(0.0, ge=-40, le=40)
    camera_yaw: float = Field(0.0, ge=-60, le=60)
    camera_pitch: float = Field(0.0, ge=-25, le=25)
    distance: float = Field(11.0, ge=4, le=100)
    focal: float = Field(82.5, ge=5, le=1000)
    centre_x: float = Field(0.5, ge=0, le=1)
    centre_y: float = Field(0.5, ge=0, le=1)
    lamps: tuple[Lamp, ...] = Field(
        (Lamp(azimuth=30.0, elevation=30.0, colour=(0.6, 0.58, 0.55)),), max_length=3
    )
    environment: Environment = scene.EVEN
    background: int = Field(0, ge=0)
    background_colour: Colour = (0.3, 0.32, 0.35)
    blur: float = Field(0.0, ge=0, le=0.02)
    noise: float = Field(0.0, ge=0, le=0.1)
    time: float = 0.0

    @property
    def camera_rotation(self) -> Array:
        """What turns the shoulders' axes into the camera's (3, 3); the camera stays level."""
        result: Array = rotation(0, self.camera_pitch, 0) @ rotation(self.camera_yaw, 0, 0)
        return result

    @property
    def neck_rotation(self) -> Array:
        """The neck on the shoulders (3, 3)."""
        return rotation(self.neck_yaw, self.neck_pitch, self.neck_roll)

    @property
    def head_rotation(self) -> Array:
        """The head on the shoulders (3, 3): the neck's rotation times the head's own."""
        result: Array = self.neck_rotation @ rotation(self.yaw, self.pitch, self.roll)
        return result

    @property
    def pose(self) -> tuple[float, float, float]:
        """Yaw, pitch and roll in degrees of the head as the camera sees it."""
        return angles(self.camera_rotation @ self.head_rotation)

    @classmethod
    def sample(cls, seed: int) -> "Performance":
        """Draw a photo-like moment; the same seed gives the same performance.

        The head is within 30 degrees of the camera in five moments of six, and within 60 always;
        camera, neck and head share the turn.
        """
        random = rng(_whole(seed), 2)
        expression = _still_expression(random)
        return cls(expression=expression, **_still_pose(random), **scene.sample(random))

    @classmethod
    def clip(cls, seconds: float, rate: float = 25.0, seed: int = 0) -> list["Performance"]:
        """A talking head: ``round(seconds · rate)`` moments that follow each other smoothly.

        Raises:
            FacekitError: if the clip would be empty or longer than ten minutes.
        """
        if not (0 < seconds <= 600 and 1 <= rate <= 120):
            raise FacekitError(
                f"a clip of {seconds} s at {rate} frames/s; allowed: up to 600 s, 1 to 120 frames/s"
            )
        random = rng(_whole(seed), 3)
        place = scene.sample(random)
        count = max(round(seconds * rate), 1)
        tracks = _talk(random, count, rate)
        moments = []
        for i in range(count):
            values = {name: float(np.round(track[i], 4)) for name, track in tracks.items()}
            pose: dict[str, Any] = {
                key: values.pop(key) for key in ("yaw", "pitch", "roll", "gaze_x", "gaze_y")
            }
            expression = {name: min(max(v, 0.0), 1.0) for name, v in values.items() if v > 0.002}
            time = round(i / rate, 6)
            moments.append(cls(expression=expression, time=time, **pose, **place))
        return moments

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Performance":
        """A performance from what :meth:`to_json` gave.

        Raises:
            FacekitError: for an unknown key or face unit, or a value out of range.
        """
        performance = validate(_frozen(values), cls, "performance")
        for name, value in performance.expression.items():
            if name not in FACE_UNITS:
                raise FacekitError(f"unknown face unit '{name}'; {did_you_mean(name, FACE_UNITS)}")
            if not 0 <= value <= 1:
                raise FacekitError(f"face unit '{name}': {value} is out of range; allowed: 0 to 1")
        return performance

    def to_json(self) -> dict[str, Any]:
        """The parameters as JSON values."""
        return self.model_dump(mode="json")


def _whole(seed: int) -> int:
    if seed < 0:
        raise FacekitError(f"performance seed {seed}: must be 0 or more")
    return seed


def _frozen(value: Any) -> Any:
    """JSON's lists as tuples, at any depth."""
    if isinstance(value, dict):
        return {key: _frozen(v) for key, v in value.items()}
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def _rounded(value: float) -> float:
    return round(float(value), 4)


def _still_pose(random: np.random.Generator) -> dict[str, Any]:
    """Camera, neck, head and eyes of a photograph."""
    wide = random.random() < 0.17
    if wide:
        yaw = random.choice([-1, 1]) * random.uniform(30, 58)
        camera = yaw * random.uniform(0.35, 0.75)
    else:
        yaw = float(np.clip(random.normal(0, 13), -29, 29))
        camera = yaw * random.uniform(0, 0.6) + random.normal(0, 9)
    pitch = float(np.clip(random.normal(0, 8), -24, 24))
    camera_pitch = float(np.clip(0.4 * pitch + random.normal(0, 5), -20, 20))
    roll = float(np.clip(random.normal(0, 4.5), -13, 13))
    # The neck takes about a third of what the camera has left.
    share = random.uniform(0.2, 0.45)
    neck = float(np.clip(share * (yaw - camera), -25, 25))
    gaze = _still_gaze(random, yaw, pitch)
    return {
        "camera_yaw": _rounded(camera),
        "neck_yaw": _rounded(neck),
        "yaw": _rounded(yaw - camera - neck),
        "camera_pitch": _rounded(camera_pitch),
        "neck_pitch": _rounded(share * (pitch - camera_pitch)),
        "pitch": _rounded((1 - share) * (pitch - camera_pitch)),
        "neck_roll": _rounded(share * roll),
        "roll": _rounded((1 - share) * roll),
        "gaze_x": _rounded(gaze[0]),
        "gaze_y": _rounded(gaze[1]),
    }


def _still_gaze(random: np.random.Generator, yaw: float, pitch: float) -> tuple[float, float]:
    """Into the camera as far as eyes go, or somewhere about."""
    x, y = random.normal(0, [8, 4])
    if random.random() < 0.65 and abs(yaw) < 32 and abs(pitch) < 20:
        x, y = -yaw + 0.15 * x, -pitch + 0.15 * y
    return float(np.clip(x, -28, 28)), float(np.clip(y, -18, 18))


def rotation(yaw: float, pitch: float, roll: float) -> Array:
    """The rotation (3, 3): roll, then pitch, then yaw; degrees as :mod:`facekit.types` has them."""
    (sy, sp, sr), (cy, cp, cr) = (f(np.radians([yaw, pitch, roll])) for f in (np.sin, np.cos))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    result: Array = (about_y @ about_x @ about_z).astype(np.float32)
    return result


def angles(turned: Array) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees of a rotation (3, 3): the inverse of :func:`rotation`."""
    yaw = np.degrees(np.arctan2(turned[0, 2], turned[2, 2]))
    pitch = np.degrees(np.arcsin(np.clip(turned[1, 2], -1, 1)))
    roll = np.degrees(np.arctan2(-turned[1, 0], turned[1, 1]))
    return _rounded(yaw), _rounded(pitch), _rounded(roll)


_STILLS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smile": {"mouthSmile": 0.75, "cheekSquint": 0.4, "eyeSquint": 0.2, "mouthDimple": 0.2},
    "open smile": {
        "mouthSmile": 0.85,
        "mouthUpperUp": 0.35,
        "mouthLowerDown": 0.3,
        "jawOpen": 0.16,
        "cheekSquint": 0.5,
        "eyeSquint": 0.25,
    },
    "surprise": {"browInnerUp": 0.7, "browOuterUp": 0.7, "eyeWide": 0.5, "jawOpen": 0.4},
    "frown": {"browDown": 0.7, "mouthFrown": 0.5, "eyeSquint": 0.3, "mouthPress": 0.3},
    "speaking": {"jawOpen": 0.3, "mouthFunnel": 0.3, "mouthLowerDown": 0.2},
    "pursed": {"mouthPucker": 0.6, "browInnerUp": 0.2},
    "sceptical": {"browDown": 0.4, "mouthPress": 0.4, "eyeSquint": 0.35},
}


def _still_expression(random: np.random.Generator) -> dict[str, float]:
    names = list(_STILLS)
    chosen = _STILLS[str(random.choice(names, p=[0.25, 0.2, 0.15, 0.08, 0.08, 0.14, 0.05, 0.05]))]
    strength = random.uniform(0.5, 1.0)
    expression: dict[str, float] = {}
    for unit, value in chosen.items():
        if unit in _UNSIDED:
            expression[unit] = _rounded(value * strength)
        else:
            left, right = np.clip(value * strength * random.uniform(0.85, 1.15, 2), 0, 1)
            expression |= {f"{unit}Left": _rounded(left), f"{unit}Right": _rounded(right)}
    lids = random.uniform(0, 0.18)
    return expression | {"eyeBlinkLeft": _rounded(lids), "eyeBlinkRight": _rounded(lids)}


def _drift(random: np.random.Generator, count: int, rate: float, seconds: float) -> Array:
    """Smooth noise with unit deviation that changes over about ``seconds``."""
    sigma = max(seconds * rate / 2, 0.5)
    margin = int(4 * sigma) + 2
    noise = gaussian_filter1d(random.normal(size=count + 2 * margin), sigma, mode="wrap")
    scaled: Array = (noise * np.sqrt(2 * np.sqrt(np.pi) * sigma))[margin : margin + count]
    return scaled


def _talk(random: np.random.Generator, count: int, rate: float) -> dict[str, Array]:
    """Tracks of every moving parameter of a talking head, each (count,)."""
    tracks: dict[str, Any] = {
        "yaw": np.clip(random.normal(0, 5) + 10 * _drift(random, count, rate, 1.6), -30, 30),
        "pitch": np.clip(3.5 * _drift(random, count, rate, 1.0), -14, 14),
        "roll": np.clip(2.5 * _drift(random, count, rate, 1.4), -10, 10),
    }
    speaking = 1 / (1 + np.exp(-3 * (_drift(random, count, rate, 1.2) + 0.7)))
    # Syllables come about four to five times a second.
    open_jaw = np.clip(0.45 + 0.65 * _drift(random, count, rate, 0.11), 0, 1) * speaking
    round_lips = np.clip(_drift(random, count, rate, 0.18), 0, 1.5) * speaking
    wide_lips = np.clip(_drift(random, count, rate, 0.18), 0, 1.5) * speaking
    smile = np.clip(0.15 + 0.4 * _drift(random, count, rate, 1.5), 0, 0.85)
    brows = np.clip(0.5 * _drift(random, count, rate, 0.8) - 0.1, 0, 0.9)
    tracks |= {
        "jawOpen": 0.34 * open_jaw,
        "mouthFunnel": 0.4 * round_lips,
        "mouthPucker": 0.25 * round_lips,
        "browInnerUp": brows,
        "mouthShrugUpper": 0.15 * np.clip(_drift(random, count, rate, 0.3), 0, 1),
    }
    blink = _blinks(random, count, rate)
    squint = np.clip(0.3 * smile, 0, 1)
    for side in ("Left", "Right"):
        tracks |= {
            f"mouthSmile{side}": smile * random.uniform(0.85, 1),
            f"cheekSquint{side}": 0.5 * smile,
            f"mouthStretch{side}": 0.25 * wide_lips,
            f"mouthUpperUp{side}": 0.18 * wide_lips + 0.12 * open_jaw,
            f"mouthLowerDown{side}": 0.2 * open_jaw + 0.1 * wide_lips,
            f"browOuterUp{side}": 0.7 * brows,
            f"eyeSquint{side}": squint,
            f"eyeBlink{side}": np.maximum(blink, 0.06),
        }
    tracks |= _saccades(random, count, rate)
    return tracks


def _blinks(random: np.random.Generator, count: int, rate: float) -> Array:
    """Lids shut in about 0.1 s and open in about 0.18 s, every two to five seconds."""
    times = np.arange(count) / rate
    lids = np.zeros(count, np.float32)
    at = random.uniform(0.4, 2.5)
    while at < times[-1] + 0.3:
        since = times - at
        shape = np.where(since < 0, 1 + since / 0.1, 1 - since / 0.18)
        lids = np.maximum(lids, np.clip(shape, 0, 1))
        at += random.uniform(1.8, 5)
    smooth: Array = lids * lids * (3 - 2 * lids)
    return smooth


def _saccades(random: np.random.Generator, count: int, rate: float) -> dict[str, Array]:
    """Eyes that rest and jump; they look at the camera half of the time."""
    gaze = np.zeros((2, count), np.float32)
    i = 0
    while i < count:
        rest = max(int(random.uniform(0.5, 1.8) * rate), 1)
        away = random.random() < 0.5
        gaze[:, i : i + rest] = (away * random.normal(0, [9, 4]))[:, None]
        i += rest
    gaze = gaussian_filter1d(np.clip(gaze, -20, 20), 0.025 * rate, axis=1, mode="nearest")
    return {"gaze_x": gaze[0], "gaze_y": gaze[1]}


def performance_seed(seed: int, person: int, frame: int) -> int:
    """The seed of one photo of a folder: a function of the folder's seed and the place in it."""
    words = np.random.SeedSequence((seed, person, frame)).generate_state(1, np.uint32)
    return int(words[0])
