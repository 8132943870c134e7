"""The landmarks of one face through a video."""

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.faces.stage import Stage
from facekit.types import DENSE, Floats, Frame

log = logging.getLogger("facekit")

GAP = 0.5
"""Seconds that are bridged evenly where the face is not seen.

For longer it stays as it was, until so long before it is seen again.
"""


@dataclass(frozen=True)
class Track:
    """Landmarks through time.

    Attributes:
        times: (T,) in seconds, ascending.
        landmarks: float32 (T, 70, 2), in pixels; where the face is not seen, bridged.
        seen: bool (T,).
        size: the pictures' longer side, in pixels.
    """

    times: NDArray[np.float64]
    landmarks: Floats
    seen: NDArray[np.bool_]
    size: int


def watch(
    frames: Iterable[Frame],
    *,
    device: torch.device,
    total: int | None = None,
    stage: Stage | None = None,
) -> Track:
    """Follow the person who is seen most, that is longest and largest, through a video.

    Others are left out, with a word in the log.

    Args:
        frames: of one clip, of which :func:`in_time` passes over some.
        device: where to locate and read faces.
        total: how many frames there will be, for the progress bar.
        stage: to follow faces with, by default a new one.

    Raises:
        FacekitError: if no face is seen in any frame; or as iterating ``frames`` does.
    """
    stage = stage or Stage(device)
    times: list[float] = []
    found: dict[int, dict[int, Floats]] = defaultdict(dict)  # track → frame → landmarks
    shares: dict[int, float] = defaultdict(float)  # track → how much of all pictures it fills
    size = 0
    with progress("watching the driver", total) as advance:
        for number, seen in enumerate(stage.follow(in_time(frames))):
            times.append(seen.frame.time)
            height, width = seen.frame.pixels.shape[:2]
            size = max(size, height, width)
            for face, track in zip(seen.faces, seen.ids, strict=True):
                # Of a face that is covered or turned away, landmarks are a guess.
                if face.landmarks is not None and face.landmarks.present:
                    found[track][number] = face.landmarks.points
                    shares[track] += face.size**2 / (height * width)
            advance(number + 1, "")
    if not found:
        raise FacekitError(
            f"the driver shows no face in any of its {len(times)} frames; give one whose face is "
            "seen from the front and fills a tenth of the picture"
        )
    # Somebody who was lost and found again has several tracks, all of one person.
    people: dict[int | None, list[int]] = defaultdict(list)
    for known in stage.tracks:
        if known.id in found:
            people[known.person].append(known.id)
    main = max(people.values(), key=lambda tracks: sum(shares[track] for track in tracks))
    rows = [next((found[t][i] for t in main if i in found[t]), None) for i in range(len(times))]
    several = sum(sum(i in of for of in found.values()) > 1 for i in range(len(times)))
    if several:
        log.info("the driver shows several faces in %d frames; the main one is followed", several)
    return bridged(np.array(times), rows, size)


def in_time(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The frames, but for those that are not later than all before them.

    Joined broadcasts and some containers repeat times, or go back.
    """
    latest, passed = -math.inf, 0
    for frame in frames:
        if frame.time > latest:
            latest = frame.time
            yield frame
        else:
            passed += 1
    if passed:
        log.info("%d frames that are not later than those before them are passed over", passed)


def bridged(times: NDArray[np.float64], rows: list[Floats | None], size: int) -> Track:
    """A track from what was seen in each frame, with the gaps filled.

    Args:
        times: (T,) in seconds.
        rows: landmarks (70, 2) of each frame; None where there are none. Some are there.
        size: the pictures' longer side.
    """
    seen = np.array([row is not None for row in rows])
    there = np.flatnonzero(seen)
    values = np.stack([row for row in rows if row is not None]).reshape(len(there), -1)
    # For each frame the last one seen before it, and the next one after it.
    before = np.clip(np.searchsorted(there, np.arange(len(rows)), side="right") - 1, 0, None)
    after = np.clip(np.searchsorted(there, np.arange(len(rows))), None, len(there) - 1)
    begin, end = times[there[before]], times[there[after]]
    begin = np.maximum(begin, end - GAP)
    share = np.clip((times - begin) / np.maximum(end - begin, 1e-9), 0, 1)[:, None]
    filled = values[before] * (1 - share) + values[after] * share
    filled[there] = values
    if missing := int((~seen).sum()):
        log.info("the driver's face is not seen in %d of %d frames", missing, len(rows))
    return Track(times, filled.reshape(-1, DENSE, 2).astype(np.float32), seen, size)
