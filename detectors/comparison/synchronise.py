"""When does one video show what another shows? By what moves in both, whatever their geometry.

Small grey pictures of both are taken at even times. Pairs of moments that look alike as they stand,
mirrored or cropped are candidates, which ``detectors.comparison.register`` tries at full size; with
the best pair's geometry, the two strips are brought onto one canvas, what stands still is taken
away, and the offset is where the rest correlates best. The last step uses every frame about two
moments.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.comparison.register import Matrix, Plane
from facekit.media.decode import Video
from facekit.types import Pixels

EVERY = 0.1
"""Seconds between two samples, of videos that are not too long for it."""
LONGEST = 1200
"""Samples of a video at most."""

_SIDE = 160  # pixels of a sample's longer side
_COARSE = (24, 24)
_ALIGNED = 48  # pixels of the longer side of the canvas on which motion is compared
_CANDIDATES = 6
_PEAKS = 3
_LEAST_OVERLAP = 0.25  # of the shorter strip
_LEAST_MOTION = 0.8  # levels
_WINDOW = 24  # frames that are looked at one by one
_CROPS = (1.0, 0.8, 0.6)


@dataclass(frozen=True)
class Strip:
    """A video, or a picture, in small.

    Attributes:
        times: in seconds, (N,).
        planes: float32 (N, H, W), grey, 0 to 255.
        width, height: of the whole, in pixels.
        every: seconds between two samples; 0 for a picture.
    """

    times: NDArray[np.float64]
    planes: Plane
    width: int
    height: int
    every: float


@dataclass(frozen=True)
class Timing:
    """How two videos lie in time.

    Attributes:
        offset: B's time of what A shows at 0, in seconds; exact to about a frame.
        correlation: of what moves, at that offset, -1 to 1.
        next_best: the highest at offsets that are clearly others.
        moving: whether enough moves for an offset to be told.
    """

    offset: float
    correlation: float
    next_best: float
    moving: bool


def strip_of(path: Path, length: float) -> Strip:
    """A video in small; it is decoded once.

    Args:
        path: of a video.
        length: in seconds.

    Raises:
        FacekitError: if it cannot be read.
    """
    every = max(EVERY, length / LONGEST)
    times = [every * n for n in range(max(1, min(LONGEST, math.ceil(length / every - 1e-6))))]
    with Video(path) as video:
        width, height = video.info.width, video.info.height
        size = _small((width, height), _SIDE)
        planes = [_grey(frame.pixels, size) for frame in video.frames(times)]
    return Strip(np.array(times), np.stack(planes), width, height, every)


def strip_of_picture(pixels: Pixels) -> Strip:
    """A picture, as a video of one frame."""
    height, width = pixels.shape[:2]
    return Strip(
        np.zeros(1), _grey(pixels, _small((width, height), _SIDE))[None], width, height, 0.0
    )


def candidates(a: Strip, b: Strip) -> list[tuple[float, float]]:
    """Pairs of times that may show the same, the likeliest first: at most six."""
    found: list[tuple[float, float, float]] = []
    for mirrored in (False, True):
        for crop_a, crop_b in [(c, 1.0) for c in _CROPS] + [(1.0, c) for c in _CROPS[1:]]:
            one, other = _signatures(a, crop_a, False), _signatures(b, crop_b, mirrored)
            alike = one @ other.T
            for _ in range(2):
                row, column = np.unravel_index(int(alike.argmax()), alike.shape)
                value = float(alike[row, column])
                found.append((value, float(a.times[row]), float(b.times[column])))
                # The next is to be of another moment.
                near_row = slice(max(0, row - len(alike) // 6), row + len(alike) // 6 + 1)
                alike[near_row] = -1.0
    found.sort(reverse=True)
    chosen: list[tuple[float, float]] = []
    for _, time_a, time_b in found:
        if (time_a, time_b) not in chosen:
            chosen.append((time_a, time_b))
    return chosen[:_CANDIDATES]


def synchronise(a: Strip, b: Strip, b_from_a: Matrix) -> list[Timing]:
    """Offsets at which what moves correlates, the best first, at most three.

    There is none if the two have too little in common.

    Args:
        a: of video A.
        b: of video B, sampled at its own rate.
        b_from_a: (2, 3), of pixels, as in ``detectors.comparison.register.Alignment``.
    """
    planes_a, planes_b = _on_one_canvas(a, b, b_from_a)
    if planes_a is None or planes_b is None:
        return []
    step = max(a.every, b.every)
    one = _moving(_resampled(planes_a, a.times, step))
    other = _moving(_resampled(planes_b, b.times, step))
    least = max(1, round(_LEAST_OVERLAP * min(len(one), len(other))))
    shifts = range(-(len(one) - least), len(other) - least + 1)
    scores = np.array([_score(one, other, shift) for shift in shifts])
    strength = min(float(np.sqrt((part**2).mean())) for part in (one, other))
    moving = strength > _LEAST_MOTION and len(one) > 3 and len(other) > 3
    found = []
    left = scores.copy()
    for _ in range(_PEAKS):
        best = int(left.argmax())
        apart = np.abs(np.arange(len(scores)) - best) > max(3, round(0.5 / step))
        found.append(
            Timing(
                offset=float(shifts[best] * step),
                correlation=float(scores[best]),
                next_best=float(scores[apart].max()) if apart.any() else 0.0,
                moving=moving,
            )
        )
        left[~apart] = -1.0
        if left.max() <= 0:
            break
    return found


def moments_of(a: Strip, b: Strip, b_from_a: Matrix) -> list[float]:
    """Times of a video that may show what a picture shows, the likeliest first; at most three.

    Args:
        a: of the picture, or of the video.
        b: of the other.
        b_from_a: as for :func:`synchronise`.
    """
    planes_a, planes_b = _on_one_canvas(a, b, b_from_a)
    if planes_a is None or planes_b is None:
        return []
    film, still, times = (
        (planes_a, planes_b[0], a.times) if len(planes_a) > 1 else (planes_b, planes_a[0], b.times)
    )
    lasting = np.median(film, axis=0)
    wanted = (still - lasting).ravel()
    left = np.array([_correlated((plane - lasting).ravel(), wanted) for plane in film])
    found: list[float] = []
    while len(found) < _PEAKS and left.max() > -1:
        best = int(left.argmax())
        found.append(float(times[best]))
        left[max(0, best - 2) : best + 3] = -1.0
    return found


def to_a_frame(
    a: Path, b: Path, strip_a: Strip, strip_b: Strip, b_from_a: Matrix, offset: float
) -> float:
    """An offset made exact to about a frame, by every frame about A's most moving moment.

    Args:
        a: video A.
        b: video B.
        strip_a: of A.
        strip_b: of B.
        b_from_a: as for :func:`synchronise`.
        offset: about right: to a sample.
    """
    reach = 1.5 * max(strip_a.every, strip_b.every)
    start = _most_moving(strip_a, max(0.0, -offset), strip_b.times[-1] - offset)
    with Video(a) as video:
        own = list(islice(_from(video, start), _WINDOW))
        end = own[-1][0]
    with Video(b) as video:
        theirs = []
        for time, pixels in _from(video, max(0.0, start + offset - reach)):
            theirs.append((time, pixels))
            if time > end + offset + reach or len(theirs) > 8 * _WINDOW:
                break
    if len(own) < 3 or len(theirs) < 3:
        return offset
    one = _as_strip(own, strip_a)
    other = _as_strip(theirs, strip_b)
    planes_a, planes_b = _on_one_canvas(one, other, b_from_a)
    if planes_a is None or planes_b is None:
        return offset
    return _finest(one.times, _moving(planes_a), other.times, _moving(planes_b), offset, reach)


def _finest(
    times_a: NDArray[np.float64],
    moving_a: Plane,
    times_b: NDArray[np.float64],
    moving_b: Plane,
    offset: float,
    reach: float,
) -> float:
    step = float(min(np.median(np.diff(times_a)), np.median(np.diff(times_b)))) / 4
    steps = offset + step * np.arange(-math.ceil(reach / step), math.ceil(reach / step) + 1)
    scores = []
    for guess in steps:
        # B's frame on screen at that time.
        places = np.searchsorted(times_b, times_a + guess + 1e-6, side="right") - 1
        inside = (places >= 0) & (times_a + guess <= times_b[-1] + 4 * step)
        if inside.sum() < 3:
            scores.append(-1.0)
            continue
        one, other = moving_a[inside], moving_b[places[inside]]
        scores.append(_correlated(one, other))
    # All guesses within one frame's time score the same: the first is where frames begin together.
    return float(steps[int(np.argmax(np.array(scores) > max(scores) - 1e-4))])


def _from(video: Video, start: float) -> Iterator[tuple[float, Pixels]]:
    """The frames from a time on: by asking for each frame's successor."""
    frame = video.at(start)
    yield frame.time, frame.pixels
    rate = video.info.rate or 25.0
    time, last = frame.time, frame.time
    for _ in range(40 * _WINDOW):
        time += 0.5 / rate
        frame = video.at(time)
        if frame.time > last:
            last = frame.time
            yield frame.time, frame.pixels
        elif time > last + 2.0:
            return


def _as_strip(frames: Sequence[tuple[float, Pixels]], like: Strip) -> Strip:
    size = (like.planes.shape[2], like.planes.shape[1])
    planes = np.stack([_grey(pixels, size) for _, pixels in frames])
    return Strip(np.array([t for t, _ in frames]), planes, like.width, like.height, like.every)


def _most_moving(strip: Strip, first: float, last: float) -> float:
    """When a second begins in which much moves."""
    inside = np.flatnonzero((strip.times >= first) & (strip.times <= last))
    if len(inside) < 3:
        return max(0.0, first)
    moved = np.abs(np.diff(strip.planes[inside], axis=0)).mean(axis=(1, 2))
    width = max(1, min(len(moved), round(1.0 / max(strip.every, 1e-3))))
    # A cut is strong in one place, and says little of what lies about it.
    smooth = np.convolve(np.minimum(moved, 3 * np.median(moved) + 0.1), np.ones(width), "valid")
    return float(strip.times[inside[int(smooth.argmax())]])


def _signatures(strip: Strip, crop: float, mirrored: bool) -> Plane:
    """What each sample's middle looks like, as unit vectors (N, D)."""
    height, width = strip.planes.shape[1:]
    y, x = round(height * (1 - crop) / 2), round(width * (1 - crop) / 2)
    rows = []
    for plane in strip.planes:
        part = plane[y : height - y, x : width - x]
        small = cv2.resize(part, _COARSE, interpolation=cv2.INTER_AREA)
        rows.append((small[:, ::-1] if mirrored else small).ravel())
    found = np.stack(rows).astype(np.float32)
    found -= found.mean(axis=1, keepdims=True)
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-3))


def _on_one_canvas(a: Strip, b: Strip, b_from_a: Matrix) -> tuple[Plane | None, Plane | None]:
    """Both strips' common part on A's canvas, (N, H, W) each; None if there is next to none."""
    scale = _ALIGNED / max(a.width, a.height)
    size = (max(8, round(a.width * scale)), max(8, round(a.height * scale)))
    small_from_a = np.diag([size[0] / a.width, size[1] / a.height])
    a_from_sample = np.diag([a.width / a.planes.shape[2], a.height / a.planes.shape[1]])
    b_from_sample = np.diag([b.width / b.planes.shape[2], b.height / b.planes.shape[1]])
    a_from_b = np.linalg.inv(b_from_a[:, :2])
    first = np.column_stack([small_from_a @ a_from_sample, np.zeros(2)])
    second = np.column_stack(
        [small_from_a @ a_from_b @ b_from_sample, -small_from_a @ a_from_b @ b_from_a[:, 2]]
    )
    whole = _warped(np.full(b.planes.shape[1:], 255, np.float32), second, size)
    common = whole > 250
    if common.mean() < 0.1:
        return None, None

    def laid(planes: Plane, matrix: Matrix) -> Plane:
        blurred = (cv2.GaussianBlur(plane, (0, 0), 1.5) for plane in planes)
        return np.stack([np.where(common, _warped(p, matrix, size), 0.0) for p in blurred])

    return laid(a.planes, first).astype(np.float32), laid(b.planes, second).astype(np.float32)


def _warped(plane: Plane, matrix: Matrix, size: tuple[int, int]) -> Plane:
    shifted = matrix.copy()
    shifted[:, 2] += shifted[:, :2] @ [0.5, 0.5] - 0.5
    return np.asarray(
        cv2.warpAffine(plane, shifted, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_CONSTANT),
        np.float32,
    )


def _resampled(planes: Plane, times: NDArray[np.float64], step: float) -> Plane:
    """At even times from 0 on; the sample on screen."""
    count = max(1, int(times[-1] / step + 1e-6) + 1)
    places = np.searchsorted(times, step * np.arange(count) + 1e-6, side="right") - 1
    return planes[np.clip(places, 0, len(planes) - 1)]


def _moving(planes: Plane) -> Plane:
    """What is not there all the time, (N, D); a change of tone counts for little."""
    flat = planes.reshape(len(planes), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat - np.median(flat, axis=0), np.float32)


def _score(one: Plane, other: Plane, shift: int) -> float:
    start, end = max(0, -shift), min(len(one), len(other) - shift)
    return _correlated(one[start:end], other[start + shift : end + shift])


def _correlated(one: Plane, other: Plane) -> float:
    length = math.sqrt(float((one * one).sum()) * float((other * other).sum()))
    return float((one * other).sum()) / length if length > 0 else 0.0


def _grey(pixels: Pixels, size: tuple[int, int]) -> Plane:
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.float32)


def _small(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(size))
    return max(8, round(size[0] * scale)), max(8, round(size[1] * scale))
