"""What a person does and how it is filmed: expression, pose, gaze, camera, light, background."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator

from facekit.core.config import Config, validate
from facekit.core.errors import FacekitError, did_you_mean
from facekit.core.seed import rng
from facekit.studio import motion, scene, speech
from facekit.studio.basis import Array
from facekit.studio.rotations import angles as angles
from facekit.studio.rotations import rotation as rotation
from facekit.studio.scene import Colour, Environment, Lamp

if TYPE_CHECKING:
    from facekit.studio.person import Person

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
        background: seed of the background's shapes, a calm wall by default;
            ``background_colour`` its mean colour.
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
    background: int = Field(2, ge=0)
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
        _check_clip(seconds, rate)
        random = rng(_whole(seed), 3)
        place = scene.sample(random)
        said = speech.babble(random, seconds)
        times = np.arange(max(round(seconds * rate), 1)) / rate
        return cls._moments(
            motion.talk(random, times, said.spoken, said.stresses, said.phrases), times, place
        )

    @classmethod
    def idle(cls, seconds: float, rate: float = 25.0, seed: int = 0) -> list["Performance"]:
        """Somebody who says nothing: who breathes, blinks, looks about, and hardly turns.

        Raises:
            FacekitError: as :meth:`clip`.
        """
        _check_clip(seconds, rate)
        random = rng(_whole(seed), 6)
        place = scene.sample(random)
        times = np.arange(max(round(seconds * rate), 1)) / rate
        return cls._moments(motion.talk(random, times, [], [], []), times, place)

    @classmethod
    def from_phonemes(
        cls,
        timing: speech.Timing,
        rate: float = 25.0,
        seed: int = 0,
        alphabet: speech.Alphabet | None = None,
    ) -> list["Performance"]:
        """A person who says these phonemes, from 0 s to the last one's end.

        Args:
            timing: (phoneme, start, end) in seconds, in order. Phonemes are IPA, ARPAbet or
                espeak's mnemonics; ``facekit.studio.speech.espeak_timing`` makes them from text.
            rate: frames a second, 1 to 120.
            seed: of all that the phonemes leave open: scene, head, eyes, brows.
            alphabet: which of the three; None finds out.

        Raises:
            FacekitError: for an unknown phoneme, times that are negative, reversed or overlap, or
                a rate out of range.
        """
        if not 1 <= rate <= 120:
            raise FacekitError(f"{rate} frames/s; allowed: 1 to 120")
        spoken = speech.read(timing, alphabet)
        random = rng(_whole(seed), 4)
        place = scene.sample(random)
        times = np.arange(max(round(spoken[-1][2] * rate), 1)) / rate
        stresses, phrases = speech.rhythm(spoken)
        return cls._moments(motion.talk(random, times, spoken, stresses, phrases), times, place)

    @classmethod
    def from_landmarks(
        cls,
        track: Array,
        times: Array | None = None,
        size: int = 256,
        person: "Person | None" = None,
        seed: int = 0,
    ) -> list["Performance"]:
        """What a person does whose landmarks were seen: pose, framing, gaze and expression.

        Args:
            track: (T, 68, 2) or (T, 70, 2) pixels (x, y), in the order of a render's landmarks;
                NaN where a point was not seen.
            times: (T,) seconds, increasing; None: 25 frames a second.
            size: the picture's side in pixels.
            person: whose landmarks they are; None fits the average adult's face to the track.
            seed: of light and background, which landmarks do not show.

        Raises:
            FacekitError: for another shape, a frame with fewer than 12 points, or a size or times
                out of range.
        """
        from facekit.studio import fit

        place = scene.sample(rng(_whole(seed), 5))
        fitted = fit.fit(track, times, size, person)
        return cls._moments(fitted.tracks, fitted.times, place)

    @classmethod
    def _moments(
        cls, tracks: dict[str, Array], times: Array, place: dict[str, Any]
    ) -> list["Performance"]:
        """A performance for each time, of tracks (T,) of fields and face units."""
        moments = []
        for i, time in enumerate(times):
            fields = {
                name: _rounded(track[i])
                for name, track in tracks.items()
                if name in cls.model_fields
            }
            units = {name: track[i] for name, track in tracks.items() if name not in fields}
            moments.append(
                cls(
                    expression=motion.clip_units(units),
                    time=round(float(time), 6),
                    **(place | fields),
                )
            )
        return moments

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Performance":
        """A performance from what :meth:`to_json` gave.

        Raises:
            FacekitError: for an unknown key or face unit, or a value out of range.
        """
        return validate(_frozen(values), cls, "performance")

    @field_validator("expression")
    @classmethod
    def _of_known_units(cls, expression: dict[str, float]) -> dict[str, float]:
        check_units(expression)
        return expression

    def to_json(self) -> dict[str, Any]:
        """The parameters as JSON values."""
        return self.model_dump(mode="json")


def check_units(expression: Mapping[str, float]) -> None:
    """Refuse an expression with an unknown face unit, or a coefficient out of [0, 1].

    Raises:
        FacekitError: which names it and what is allowed.
    """
    for name, value in expression.items():
        if name not in FACE_UNITS:
            raise FacekitError(f"unknown face unit '{name}'; {did_you_mean(name, FACE_UNITS)}")
        if not 0 <= value <= 1:
            raise FacekitError(f"face unit '{name}': {value} is out of range; allowed: 0 to 1")


def _check_clip(seconds: float, rate: float) -> None:
    if not (0 < seconds <= speech.LONGEST and 1 <= rate <= 120):
        raise FacekitError(
            f"a clip of {seconds} s at {rate} frames/s; allowed: up to 600 s, 1 to 120 frames/s"
        )


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


# What people do before a camera: how often, and the face units at full strength.
_STILLS: dict[str, tuple[float, dict[str, float]]] = {
    "neutral": (0.11, {}),
    "friendly": (0.14, {"mouthSmile": 0.42, "cheekSquint": 0.25, "mouthDimple": 0.1}),
    "smile": (
        0.16,
        {"mouthSmile": 0.7, "cheekSquint": 0.32, "eyeSquint": 0.14, "mouthDimple": 0.2},
    ),
    "open smile": (
        0.16,
        {
            "mouthSmile": 0.8,
            "mouthUpperUp": 0.4,
            "mouthLowerDown": 0.25,
            "jawOpen": 0.12,
            "cheekSquint": 0.42,
            "eyeSquint": 0.2,
        },
    ),
    "laugh": (
        0.08,
        {
            "mouthSmile": 0.85,
            "mouthUpperUp": 0.45,
            "mouthLowerDown": 0.35,
            "jawOpen": 0.42,
            "cheekSquint": 0.6,
            "eyeSquint": 0.38,
            "eyeBlink": 0.1,
            "noseSneer": 0.12,
        },
    ),
    "half smile": (0.05, {"mouthSmileLeft": 0.6, "cheekSquintLeft": 0.3, "mouthDimpleLeft": 0.3}),
    "speaking": (0.16, {}),
    "surprise": (
        0.05,
        {"browInnerUp": 0.75, "browOuterUp": 0.75, "eyeWide": 0.6, "jawOpen": 0.45},
    ),
    "concentrated": (
        0.05,
        {"browDown": 0.45, "eyeSquint": 0.35, "mouthPress": 0.3, "mouthRollLower": 0.12},
    ),
    "tired": (
        0.025,
        {"eyeBlink": 0.38, "browInnerUp": 0.25, "mouthFrown": 0.15, "jawOpen": 0.03},
    ),
    "raised brow": (0.03, {"browOuterUpLeft": 0.8, "browDownRight": 0.35, "mouthPress": 0.15}),
    "pursed": (0.03, {"mouthPucker": 0.6, "browInnerUp": 0.2, "mouthShrugUpper": 0.15}),
    "sad": (0.015, {"browInnerUp": 0.6, "mouthFrown": 0.5, "mouthShrugLower": 0.25}),
    "cross": (
        0.015,
        {"browDown": 0.7, "noseSneer": 0.3, "eyeSquint": 0.3, "mouthFrown": 0.3, "mouthPress": 0.3},
    ),
    "cheeks blown": (0.01, {"cheekPuff": 0.7, "mouthPress": 0.3, "browInnerUp": 0.2}),
}


def _still_expression(random: np.random.Generator) -> dict[str, float]:
    """One of ``_STILLS``, stronger or weaker, uneven from side to side, with lids of its own."""
    names = list(_STILLS)
    shares = np.array([share for share, _ in _STILLS.values()])
    name = str(random.choice(names, p=shares / shares.sum()))
    strength = random.uniform(0.6, 1.1)
    # Mirrored half of the time, so that no side is the crooked one.
    sides = ("Left", "Right") if random.random() < 0.5 else ("Right", "Left")
    units: dict[str, float] = {}
    for unit, value in _STILLS[name][1].items():
        if unit.endswith("Left"):
            units[unit.removesuffix("Left") + sides[0]] = value * strength
        elif unit.endswith("Right"):
            units[unit.removesuffix("Right") + sides[1]] = value * strength
        elif unit in _UNSIDED:
            units[unit] = value * strength
        else:
            lean = float(np.clip(random.normal(0, 0.1), -0.25, 0.25))
            units |= {f"{unit}{sides[0]}": value * strength * (1 + lean)}
            units |= {f"{unit}{sides[1]}": value * strength * (1 - lean)}
    if name == "speaking":
        units = _speaking(random)
    lids = float(np.clip(random.normal(0.02, 0.03), 0, 0.12))
    for side in ("Left", "Right"):
        key = f"eyeBlink{side}"
        units[key] = max(units.get(key, 0.0), lids)
    # Hardly a face before a camera is wholly at rest.
    warm = abs(random.normal(0, 0.1))
    raised = abs(random.normal(0, 0.12)) * (random.random() < 0.4)
    added = {"mouthSmile": warm, "cheekSquint": 0.5 * warm, "browOuterUp": raised}
    for unit, value in added.items():
        for side in ("Left", "Right"):
            units[unit + side] = units.get(unit + side, 0.0) + value
    units["browInnerUp"] = units.get("browInnerUp", 0.0) + 0.5 * raised
    return motion.clip_units(units)


def _speaking(random: np.random.Generator) -> dict[str, float]:
    """A mouth caught in the middle of a word, at times of a loud one."""
    said = speech.babble(random, 1.2).spoken
    moment = np.array([random.uniform(0.7, 1.2)])
    effort = random.uniform(0.9, 1.9)
    units = {name: float(v[0]) for name, v in speech.articulate(said, moment, effort).items()}
    units["jawOpen"] = min(units["jawOpen"], 0.7)
    smile = float(np.clip(random.normal(0.1, 0.15), 0, 0.45))
    for side in ("Left", "Right"):
        units[f"mouthSmile{side}"] = min(units.get(f"mouthSmile{side}", 0) + smile, 1)
        units[f"cheekSquint{side}"] = 0.6 * smile
    return units


def performance_seed(seed: int, person: int, frame: int) -> int:
    """The seed of one photo of a folder: a function of the folder's seed and the place in it."""
    words = np.random.SeedSequence((seed, person, frame)).generate_state(1, np.uint32)
    return int(words[0])
