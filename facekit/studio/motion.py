"""How a talking person moves: head and neck, eyes, lids, breath, brows and smiles, over speech.

Everything is a function of time and a generator; angles in degrees, times in seconds.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from facekit.studio import speech
from facekit.studio.basis import Array
from facekit.studio.rotations import rotation, rotations

_NECK = 0.36  # The neck's share of a turn; the rest is the head's.


@dataclass(frozen=True)
class Seat:
    """How a person sits before the camera through a clip; angles in degrees.

    Attributes:
        camera_yaw, camera_pitch: where the camera stands about the person.
        liveliness: factor on how far the head moves, about 1.
    """

    camera_yaw: float
    camera_pitch: float
    liveliness: float

    @classmethod
    def sample(cls, random: np.random.Generator) -> "Seat":
        """Most sit facing the camera."""
        return cls(
            camera_yaw=float(np.clip(random.normal(0, 7), -16, 16)),
            camera_pitch=float(np.clip(random.normal(0, 4), -9, 9)),
            liveliness=float(np.clip(np.exp(random.normal(0, 0.25)), 0.6, 1.6)),
        )


def talk(
    random: np.random.Generator,
    times: Array,
    spoken: list[tuple[str, float, float]],
    stresses: list[float],
    phrases: list[tuple[float, float]],
) -> dict[str, Array]:
    """Tracks (T,) of every field and face unit that moves, while ``spoken`` is said.

    Args:
        random: draws all that the speech leaves open.
        times: (T,) evenly spaced, in seconds.
        spoken: (viseme, start, end), as :func:`facekit.studio.speech.read` gives them.
        stresses: middles of stressed vowels.
        phrases: (start, end) of each phrase.
    """
    seat = Seat.sample(random)
    mouth = speech.articulate(spoken, times, float(random.uniform(1.05, 1.4)))
    head = _head(random, times, seat, stresses, phrases)
    sights, jumps = _sights(random, times, phrases)
    tracks = head | {"camera_yaw": np.full(len(times), seat.camera_yaw)}
    tracks["camera_pitch"] = np.full(len(times), seat.camera_pitch)
    tracks |= _gaze(head, seat, sights)
    tracks |= _lids(random, times, jumps, phrases)
    talking = _talking(times, phrases)
    _mimic(random, times, tracks, mouth, stresses, talking)
    return tracks


def _eased(share: Array) -> Array:
    """Minimum-jerk progress (Flash & Hogan 1985) of a movement whose time runs from 0 to 1."""
    s = np.clip(share, 0, 1)
    result: Array = s**3 * (10 - 15 * s + 6 * s * s)
    return result


def _postures(
    random: np.random.Generator, times: Array, deviation: float, hold: float, brisk: float
) -> Array:
    """Rests about 0 and minimum-jerk moves between them; ``brisk`` in degrees a second, mean."""
    place = float(random.normal(0, deviation))
    track = np.full(len(times), place)
    now = float(random.uniform(0, hold))
    while now < times[-1]:
        there = float(
            np.clip(0.35 * place + random.normal(0, deviation), -2.5 * deviation, 2.5 * deviation)
        )
        lasts = max(abs(there - place) / brisk, 0.35) * random.uniform(1, 1.6)
        track += (there - place) * _eased((times - now) / lasts)
        place = there
        now += lasts + float(random.exponential(hold)) + 0.15
    return track


def _wander(random: np.random.Generator, times: Array, seconds: float) -> Array:
    """Smooth noise of unit deviation that changes over about ``seconds``."""
    step = float(times[1] - times[0]) if len(times) > 1 else 0.04
    sigma = max(seconds / step / 2, 0.5)
    margin = int(4 * sigma) + 2
    noise = gaussian_filter1d(random.normal(size=len(times) + 2 * margin), sigma, mode="wrap")
    scaled: Array = (noise * np.sqrt(2 * np.sqrt(np.pi) * sigma))[margin : margin + len(times)]
    return scaled


def _head(
    random: np.random.Generator,
    times: Array,
    seat: Seat,
    stresses: list[float],
    phrases: list[tuple[float, float]],
) -> dict[str, Array]:
    """Yaw, pitch, roll of head and neck: postures, beats on stresses, and breath."""
    live = seat.liveliness
    yaw = live * _postures(random, times, 8.0, 0.9, 25) + 0.5 * _wander(random, times, 0.8)
    pitch = live * _postures(random, times, 3.0, 0.9, 15) + 0.35 * _wander(random, times, 0.7)
    roll = live * _postures(random, times, 2.2, 1.3, 12) + 0.3 * _wander(random, times, 0.9)
    # People mostly face whom they speak to, however they sit.
    yaw -= 0.75 * seat.camera_yaw
    pitch -= 0.6 * seat.camera_pitch
    for at in stresses:
        # Beats: the head dips with many a stressed syllable (Hadar et al. 1983).
        if random.random() < 0.55:
            deep = live * random.gamma(3, 0.6)
            width = random.uniform(0.11, 0.17)
            pitch -= deep * np.exp(-0.5 * ((times - at) / width) ** 2)
            yaw += 0.4 * deep * random.normal() * np.exp(-0.5 * ((times - at) / (1.3 * width)) ** 2)
    for start, end in phrases:
        # The head sinks a little towards the end of a phrase, and lifts before the next.
        pitch -= 1.2 * live * _eased((times - start) / max(end - start, 0.3))
        pitch += 1.2 * live * _eased((times - end + 0.1) / 0.5)
    # At rest people breathe 12 to 20 times a minute.
    period = random.uniform(3.2, 4.8)
    breath = np.sin(
        2 * np.pi * times / period + random.uniform(0, 6.28) + 0.4 * _wander(random, times, 4)
    )
    sigma = 0.05 / max(float(times[1] - times[0]) if len(times) > 1 else 0.04, 1e-3)
    tracks = {}
    for name, whole, most in (("yaw", yaw, 26.0), ("pitch", pitch, 14.0), ("roll", roll, 10.0)):
        whole = most * np.tanh(whole / most)
        neck = _NECK * gaussian_filter1d(whole, max(2 * sigma, 0.3), mode="nearest")
        tracks[f"neck_{name}"] = neck
        tracks[name] = gaussian_filter1d(whole, max(0.6 * sigma, 0.2), mode="nearest") - neck
    tracks["neck_pitch"] = tracks["neck_pitch"] + 0.35 * breath
    tracks["pitch"] = tracks["pitch"] - 0.2 * breath
    return tracks


def _sights(
    random: np.random.Generator, times: Array, phrases: list[tuple[float, float]]
) -> tuple[Array, list[float]]:
    """Where the eyes look (T, 2), degrees right and up of the camera; when they jump far.

    Speakers look at the other about 40 to 60 % of the time, listeners 75 % (Argyle & Cook 1976),
    and look away as a phrase begins.
    """
    begins = np.array([start for start, _ in phrases] or [-9.0])
    track = np.zeros((len(times), 2))
    jumps: list[float] = []
    place = np.zeros(2)
    now = 0.0
    first = True
    while now < times[-1] + 0.1:
        beginning = bool((np.abs(begins - now) < 0.5).any())
        away = random.random() < (0.55 if beginning else 0.32)
        if away:
            there = np.clip(random.normal(0, [9, 5]), [-20, -11], [20, 11])
            rests = float(np.exp(random.normal(-0.5, 0.5)))
        else:
            # From one of the other's eyes to the other, or the mouth.
            there = random.normal(0, [1.2, 0.9])
            rests = float(np.exp(random.normal(-0.05, 0.5)))
        jump = float(np.hypot(*(there - place)))
        # The main sequence: 2.2 ms a degree and 21 ms (Carpenter 1988).
        lasts = 0.021 + 0.0022 * jump
        share = 1.0 * (times >= now) if first else _eased((times - now) / lasts)
        track += (there - place) * share[:, None]
        if jump > 9 and not first:
            jumps.append(now)
        place, first = there, False
        end = now + max(rests, 0.2)
        # Micro-saccades of a fraction of a degree, one or two a second.
        now += float(random.exponential(0.6)) + 0.15
        while now < end - 0.1:
            flick = random.normal(0, 0.28, 2)
            track += flick * (times >= now)[:, None]
            place = place + flick
            now += float(random.exponential(0.6)) + 0.15
        now = end
    return track, jumps


def _gaze(head: dict[str, Array], seat: Seat, sights: Array) -> dict[str, Array]:
    """Eyes in the head that hold their sight while the head turns (vestibulo-ocular reflex)."""
    camera = rotation(0, seat.camera_pitch, 0) @ rotation(seat.camera_yaw, 0, 0)
    names = ("yaw", "pitch", "roll")
    neck = rotations(np.stack([head[f"neck_{name}"] for name in names], 1))
    own = rotations(np.stack([head[name] for name in names], 1))
    towards = rotations(np.column_stack([sights, np.zeros(len(sights))]))[..., 2]
    seen = np.einsum("tji,tj->ti", camera @ neck @ own, towards)
    gaze = np.degrees([np.arctan2(seen[:, 0], seen[:, 2]), np.arcsin(np.clip(seen[:, 1], -1, 1))]).T
    return {"gaze_x": _limited(gaze[:, 0], 30.0), "gaze_y": _limited(gaze[:, 1], 22.0)}


def _limited(angle: Array, most: float) -> Array:
    """Unchanged up to four fifths of ``most``, then softly up to it."""
    knee = 0.8 * most
    beyond = np.clip(np.abs(angle) - knee, 0, None)
    soft = knee + (most - knee) * np.tanh(beyond / (most - knee))
    result: Array = np.where(beyond > 0, np.sign(angle) * soft, angle)
    return result


def blinks(
    random: np.random.Generator,
    seconds: float,
    jumps: list[float],
    phrases: list[tuple[float, float]],
) -> list[float]:
    """When the lids are shut: 15 to 20 times a minute, in pairs at times.

    People blink 17 times a minute at rest and 26 when they talk (Bentivoglio et al. 1997), more
    often with large saccades and at the ends of phrases; intervals are skewed, never periodic.
    """
    likely = sorted(jumps + [end + 0.1 for _, end in phrases])
    found: list[float] = []
    now = float(random.gamma(2.2, 1.0))
    while now < seconds:
        near = [at for at in likely if abs(at - now) < 0.5 and (not found or at > found[-1] + 0.6)]
        at = min(near, key=lambda t: abs(t - now)) if near else now
        found.append(at)
        if random.random() < 0.09:
            found.append(at + float(random.uniform(0.32, 0.42)))
        now = found[-1] + 0.6 + float(random.gamma(2.2, 1.32))
    return found


def _lids(
    random: np.random.Generator,
    times: Array,
    jumps: list[float],
    phrases: list[tuple[float, float]],
) -> dict[str, Array]:
    """Lids that shut in about 85 ms and open in 170 (VanderWerf et al. 2003)."""
    step = float(times[1] - times[0]) if len(times) > 1 else 0.04
    low = float(random.uniform(0.0, 0.06))
    lids = np.zeros(len(times))
    for at in blinks(random, float(times[-1]) + 0.3, jumps, phrases):
        down, up = random.uniform(0.07, 0.1), random.uniform(0.14, 0.21)
        depth = random.uniform(0.93, 1.0) if random.random() < 0.85 else random.uniform(0.55, 0.85)
        # Shut for at least one frame, as a shutter sees it.
        shut = max(random.uniform(0.015, 0.04), 0.55 * step)
        since = times - at
        closing = _eased(1 + (since + shut) / down)
        opening = 1 - _eased((since - shut) / up)
        lids = np.maximum(lids, depth * np.where(since < 0, closing, opening))
    uneven = random.uniform(0.96, 1.0, 2)
    return {
        f"eyeBlink{side}": np.clip(low + (1 - low) * lids * k, 0, 1)
        for side, k in zip(("Left", "Right"), uneven, strict=True)
    }


def _talking(times: Array, phrases: list[tuple[float, float]]) -> Array:
    """1 within phrases, 0 in pauses, softly."""
    share = np.zeros(len(times))
    for start, end in phrases:
        share = np.maximum(share, _eased((times - start + 0.2) / 0.3) - _eased((times - end) / 0.4))
    return share


def _mimic(
    random: np.random.Generator,
    times: Array,
    tracks: dict[str, Array],
    mouth: dict[str, Array],
    stresses: list[float],
    talking: Array,
) -> None:
    """Add brows, smiles and squints to ``tracks``, and the mouth's movements over the smile."""
    mood = float(np.clip(random.normal(0.22, 0.15), 0, 0.5))
    smile = np.clip(mood + 0.16 * _wander(random, times, 1.6), 0, 0.75)
    # Speech leaves less room for a smile; it blooms in pauses.
    smile = smile * (1 - 0.45 * talking) + 0.10 * mood * (1 - talking)
    raise_ = np.clip(0.05 + 0.10 * _wander(random, times, 1.1), 0, 0.5)
    for at in stresses:
        if random.random() < 0.22:
            high, width = random.uniform(0.15, 0.5), random.uniform(0.12, 0.25)
            raise_ = np.maximum(raise_, high * np.exp(-0.5 * ((times - at) / width) ** 2))
    lowered = np.clip(0.12 * _wander(random, times, 1.8) - 0.02, 0, 0.4)
    crooked = float(np.clip(random.normal(1, 0.13), 0.7, 1.3))
    tracks["browInnerUp"] = 0.5 * raise_
    for side, lean in (("Left", crooked), ("Right", 2 - crooked)):
        k = float(random.uniform(0.92, 1.08))
        tracks[f"mouthSmile{side}"] = smile * lean
        tracks[f"cheekSquint{side}"] = 0.42 * smile * lean
        tracks[f"mouthDimple{side}"] = 0.2 * smile * lean
        tracks[f"eyeSquint{side}"] = 0.16 * smile + 0.4 * lowered
        tracks[f"browOuterUp{side}"] = 0.9 * raise_ * k
        tracks[f"browDown{side}"] = lowered * k * (1 - np.clip(2 * raise_, 0, 1))
        tracks[f"eyeWide{side}"] = 0.3 * np.clip(raise_ - 0.15, 0, 1)
    for name, value in mouth.items():
        uneven = float(random.uniform(0.9, 1.1)) if name.endswith(("Left", "Right")) else 1.0
        tracks[name] = tracks.get(name, np.zeros(len(times))) + uneven * value


def clip_units(values: dict[str, Any]) -> dict[str, float]:
    """Coefficients within [0, 1]; those that would not be seen are left out."""
    bounded = {name: min(max(round(float(v), 4), 0.0), 1.0) for name, v in values.items()}
    return {name: v for name, v in sorted(bounded.items()) if v > 0.002}
