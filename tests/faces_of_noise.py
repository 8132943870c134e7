"""Faces that are none: noise with points where a face has them, for tests that need no likeness."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from detectors.data import FaceSet
from detectors.regions import Region
from facekit.core.seed import rng
from facekit.types import Face, Landmarks, Pixels

_FIVE = [[0.36, 0.41], [0.64, 0.41], [0.5, 0.56], [0.39, 0.72], [0.61, 0.72]]


def points70() -> np.ndarray:
    """iBUG-300W's 68 points and two irises of a plain face, in units of the face's size."""
    turn = np.linspace(np.pi, 0, 17)
    jaw = np.stack([0.5 + 0.38 * np.cos(turn), 0.42 + 0.5 * np.sin(turn)], axis=1)
    brows = [[x, 0.32] for x in (*np.linspace(0.22, 0.42, 5), *np.linspace(0.58, 0.78, 5))]
    nose = [[0.5, y] for y in np.linspace(0.42, 0.56, 4)]
    nose += [[x, 0.6] for x in np.linspace(0.43, 0.57, 5)]
    ring = np.linspace(np.pi, -np.pi, 6, endpoint=False)
    eyes = [
        [middle + 0.07 * np.cos(angle), 0.41 - 0.03 * np.sin(angle)]
        for middle in (0.36, 0.64)
        for angle in ring
    ]
    mouth = [
        [0.5 + width * np.cos(angle), 0.72 - height * np.sin(angle)]
        for width, height, count in ((0.13, 0.06, 12), (0.09, 0.03, 8))
        for angle in np.linspace(np.pi, -np.pi, count, endpoint=False)
    ]
    irises = [[0.36, 0.41], [0.64, 0.41]]
    return np.array([*jaw, *brows, *nose, *eyes, *mouth, *irises], np.float32)


def landmarks_at(points: np.ndarray, **facts: Any) -> Landmarks:
    """What is read of a face that looks ahead, unless ``facts`` say otherwise."""
    count = len(points)
    plain = Landmarks(
        points=np.asarray(points, np.float32),
        deviation=np.ones(count, np.float32),
        visible=np.ones(count, np.float32),
        pose=(0.0, 0.0, 0.0),
        expression=np.zeros(52, np.float32),
        eyes=np.full(2, 0.3, np.float32),
        presence=1.0,
    )
    return replace(plain, **facts)


def face(size: float, corner: tuple[float, float] = (0.0, 0.0)) -> Face:
    """A face whose box is a square of ``size`` at ``corner``."""
    offset = np.array(corner, np.float32)
    return Face(
        box=np.array([0, 0, size, size], np.float32) + np.tile(offset, 2),
        points=np.array(_FIVE, np.float32) * size + offset,
        score=1.0,
        landmarks=landmarks_at(points70() * size + offset),
    )


def picture(random: np.random.Generator, size: int) -> Pixels:
    """Coloured noise with much of it at low frequencies, as pictures have."""
    layers = [
        cv2.resize(random.normal(0, deviation, (side, side, 3)), (size, size))
        for side, deviation in ((4, 40), (size // 4, 15), (size, 8))
    ]
    return np.clip(sum(layers) + random.uniform(90, 160, 3), 0, 255).astype(np.uint8)


def region(random: np.random.Generator, size: int = 80) -> Region:
    """A region whose face takes its middle half."""
    return Region(picture(random, size), face(size / 2, (size / 4, size / 4)))


def softened(pixels: Pixels) -> Pixels:
    """The middle up-sampled from half its size: what a small generator pastes in."""
    size = len(pixels)
    soft = cv2.resize(
        cv2.resize(pixels, (size // 2, size // 2), interpolation=cv2.INTER_AREA), (size, size)
    )
    result = pixels.copy()
    middle = slice(size // 8, -size // 8)
    result[middle, middle] = soft[middle, middle]
    return result


def toy(pairs: int, *, key: int, size: int = 80, people: int = 4) -> FaceSet:
    """Untouched regions and their forgeries, half of the pairs a person's."""
    random = rng(key)
    untouched = [region(random, size) for _ in range(pairs)]
    forged = [Region(softened(one.pixels), one.face) for one in untouched]
    return FaceSet(
        regions=untouched + forged,
        labels=np.repeat([0, 1], pairs),
        subjects=[f"{key}/person-{i % people}" for i in range(pairs)] * 2,
        sources=[f"{key}/{i}" for i in range(pairs)] * 2,
        donors=[""] * pairs + [f"{key}/person-{(i + 1) % people}" for i in range(pairs)],
        makers=[""] * pairs + ["softener"] * pairs,
        collections=["toys"] * (2 * pairs),
        payloads=[None] * (2 * pairs),
        digests=[f"{key:08x}{i:08x}" for i in range(2 * pairs)],
    )
