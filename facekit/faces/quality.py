"""How well a face can be seen: blur, light, what covers it, compression, pose.

Nothing here is learnt; a few constants were set on studio frames. Below is what the meters say
of 146 frames of other studio people (faces of some 100 pixels) and of 51 smiling faces of the Face
Research Lab London Set (300 pixels), to which known things were done. "All" is the rank
correlation over all faces together, "each" the mean of those within one face.

====================================  ==================  ==================
done to the picture, and its meter    studio, all / each  London, all / each
====================================  ==================  ==================
blur of 0.5 to 6 hundredths           0.97 / 1.00         0.98 / 1.00
the same, then noise of 8 levels      0.94 / 1.00         0.98 / 1.00
JPEG, quality 100 to 5, cut anywhere  0.95 / 0.98         0.99 / 1.00
gain 0.3 to 3: exposure               0.93 / 1.00         0.97 / 1.00
gain 1 to 3: clipped                  0.80                0.94
cut by the border, 0 to half          0.83 / 0.99         0.98 / 1.00
occluder from a side, 0 to 0.7        0.82                0.87
====================================  ==================  ==================

A blur of 1, 2, 4 hundredths reads 1.0, 2.2, 4.5 in the studio's median and 1.2, 2.1, 3.7 in
London's, one of none 0.5 and 0.6: that is as sharp as a face of 100 pixels can be. JPEG of quality
70, 30, 10 reads 0.04, 0.22, 0.46 and 0.11, 0.29, 0.51, uncompressed 0.00. H.264 smooths its blocks:
crf 25, 38, 50 reads 0.00, 0.03, 0.32 and 0.00, 0.07, 0.34, and what it loses before shows as blur,
0.6, 1.0, 2.3 and 0.7, 0.9, 1.5. Occlusion is by the bundled landmark network, on people whom it was
not taught on: nothing reads 0.00, half of a face covered 0.35, for the network still sees some of
what it guesses; by true landmarks that reads 0.5, and the correlation is 0.89. A face takes 1.5 to
2 ms.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.faces.align import apply, crop_from_image, invert
from facekit.types import Face, Floats, Pixels, Quality

_SIDE = 128  # of the crop that blur and light are measured in
_SCALES = np.array([0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6])  # of the second blur, in 128ths of a side

_BLOCK = 8
# Of videos scaled by 2/3, 3/4, 5/4, 4/3, 3/2, 2 and 3.
_SCALED_BLOCKS = (16 / 3, 6.0, 10.0, 32 / 3, 12.0, 16.0, 24.0)
_SMALLEST_PART, _LARGEST_PART = 64, 256  # pixels of the picture that are searched for blocks
_STEP_CAP = 24.0  # levels: an edge of the face must not pass for many blocks

# The landmark network says 0.95 of points that are seen, but 0.45 of those that are covered.
_SURELY_HIDDEN, _UNSURE = 0.35, 0.5
# Where a turned head shows its landmarks, measured on studio people.
_LEFT_EYE = [*range(17, 22), *range(36, 42), 68]
_RIGHT_EYE = [*range(22, 27), *range(42, 48), 69]
_NOSE = [27, 28, 29, 30, 33]
_LEFT_MOUTH, _RIGHT_MOUTH = [48, 49, 50, 58, 59, 60, 61, 67], [52, 53, 54, 55, 56, 63, 64, 65]
_MIDDLE_OF_MOUTH = [51, 57, 62, 66]


def measure(images: Sequence[Pixels], faces: Sequence[Sequence[Face]]) -> list[list[Face]]:
    """Measure the quality of each face.

    Args:
        images: uint8 RGB (H, W, 3); sizes may differ.
        faces: of each image; with landmarks, what covers a face and its pose are known as well.

    Returns:
        The faces with :class:`facekit.types.Quality`.

    Raises:
        FacekitError: for a face whose five points are one and the same.
    """
    return [
        [replace(face, quality=_quality(pixels, face)) for face in found]
        for pixels, found in zip(images, faces, strict=True)
    ]


def _quality(pixels: Pixels, face: Face) -> Quality:
    crop, inside, pixel = _crop(pixels, face)
    in_face = _in_face(len(crop))
    seen = in_face & inside
    outside = 1 - float(seen.sum() / in_face.sum())
    # Of a face wholly outside, the picture's edge is all there is to see.
    shown = (seen if outside < 1 else in_face).astype(np.uint8)
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    black, white = cv2.inRange(crop, (0,) * 3, (5,) * 3), cv2.inRange(crop, (250,) * 3, (255,) * 3)
    return Quality(
        size=face.size,
        blur=_blur(grey, shown) * pixel / max(face.size, 1e-6) * 100,
        exposure=cv2.mean(grey, shown)[0] / 255,
        clipped=cv2.mean(cv2.bitwise_or(black, white), shown)[0] / 255,
        occlusion=_occlusion(face, outside, pixels.shape),
        compression=_compression(pixels, face),
        pose=None if face.landmarks is None else face.landmarks.pose,
    )


def _crop(pixels: Pixels, face: Face) -> tuple[Pixels, NDArray[np.bool_], float]:
    """The square of the picture that holds the face from brows to chin, shrunk if it is large.

    It is neither turned nor enlarged, which would blur it.

    Returns:
        uint8 (S, S, 3), continued beyond the border; which of its pixels the picture has, (S, S);
        the side of one of them in the picture's.
    """
    square = apply(
        invert(crop_from_image(face.points, "face", 1)), np.array([[0.5, 0.5], [0, 0], [1, 0]])
    )
    side = max(round(float(np.hypot(*(square[2] - square[1])))), 8)
    x0, y0 = np.round(square[0] - side / 2).astype(int)
    height, width = pixels.shape[:2]
    # At least the pixel nearest to it, of a face outside of the picture.
    left, right = np.clip([x0, x0 + side], [0, 1], [width - 1, width])
    top, bottom = np.clip([y0, y0 + side], [0, 1], [height - 1, height])
    part: NDArray[Any] = np.ascontiguousarray(pixels[top:bottom, left:right])
    beyond = np.array([top - y0, y0 + side - bottom, left - x0, x0 + side - right])
    if np.any(beyond > 0):
        above, below, before, after = np.clip(beyond, 0, side - 1).tolist()
        part = cv2.copyMakeBorder(part, above, below, before, after, cv2.BORDER_REPLICATE)
    small = min(side, _SIDE)
    if part.shape[:2] != (small, small):
        part = cv2.resize(part, (small, small), interpolation=cv2.INTER_AREA)
    centres = (np.arange(small) + 0.5) * (side / small)
    inside = [
        (first + centres >= 0) & (first + centres < end)
        for first, end in ((y0, height), (x0, width))
    ]
    return np.asarray(part, np.uint8), inside[0][:, None] & inside[1][None], side / small


@lru_cache(maxsize=_SIDE)
def _in_face(side: int) -> NDArray[np.bool_]:
    """Where a crop shows the face, however it is turned: a circle, (S, S)."""
    unit = (np.arange(side) + 0.5) / side - 0.5
    inside: NDArray[np.bool_] = np.hypot(unit[None], unit[:, None]) < 0.4
    return inside


# --- blur


def _blur(grey: Floats, where: NDArray[np.uint8]) -> float:
    """The deviation of the Gaussian that blurred a crop, in its pixels.

    The crop is blurred again by Gaussians of several deviations s, as in Zhuo & Sim, "Defocus map
    estimation from a single image" (2011). Pictures have spectra that fall by a power of the
    frequency (Field, "Relations between the statistics of natural images and the response
    properties of cortical cells", 1987), so the mean square of the gradient falls as
    ``(b² + s²)^-p`` where b blurred the picture before. White noise adds a term of known course.
    All b, p and shares of noise are compared with what is measured, and b's logarithm is the mean
    over them by likelihood.
    """
    candidates, prior, log_b = _courses()
    unit = len(grey) / _SIDE
    energies = np.empty(len(_SCALES))
    for i, scale in enumerate(_SCALES):
        again = cv2.GaussianBlur(grey, (0, 0), scale * unit, borderType=cv2.BORDER_REPLICATE)
        energies[i] = _energy(again, where)
    course = np.log(energies * unit**2 + 1e-3)
    # The mean square of (course - candidate), less what is the same for all candidates.
    error = prior - 2 / 0.05**2 * candidates @ (course - course.mean()) / len(course)
    weight = np.exp(-(error - error.min()) / 2)
    b_squared = np.exp((weight * log_b).sum() / weight.sum()) - 0.1
    return float(np.sqrt(max(b_squared, 0.0)) * unit)


def _energy(grey: NDArray[Any], where: NDArray[np.uint8]) -> float:
    """The mean square of the gradient by central differences, over a mask's inner pixels."""
    inner = where[1:-1, 1:-1]
    x = cv2.norm(grey[1:-1, 2:], grey[1:-1, :-2], cv2.NORM_L2SQR, inner)
    y = cv2.norm(grey[2:, 1:-1], grey[:-2, 1:-1], cv2.NORM_L2SQR, inner)
    return float(x + y) / 4 / max(cv2.countNonZero(inner), 1)


@lru_cache(maxsize=1)
def _courses() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """What the gradient's energy may do as the crop is blurred again.

    Returns:
        Logarithms of the energies, less their means (N, 7); minus twice the log of what makes each
        likely before the measurement, with the mean square of its course (N,); log(b² + 0.1) of
        each (N,).
    """
    dot = np.zeros((65, 65), np.float32)
    dot[32, 32] = 1
    everywhere = np.ones((65, 65), np.uint8)
    noise = np.array([_energy(cv2.GaussianBlur(dot, (0, 0), s), everywhere) for s in _SCALES])
    noise /= noise[0]
    courses, prior, log_b = [], [], []
    blurs = np.concatenate([[0], np.geomspace(0.2, 12, 40)])
    powers = np.linspace(0.4, 1.6, 13)
    shares = [0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 0.9]
    for b, power, share in product(blurs, powers, shares):
        # 0.5: what sampling alone blurs.
        picture = ((b**2 + 0.5 + _SCALES**2) / (b**2 + 0.5 + _SCALES[0] ** 2)) ** -power
        course = np.log((1 - share) * picture + share * noise)
        courses.append(course - course.mean())
        prior.append(((power - 0.8) / 0.15) ** 2 + share / 0.5)
        log_b.append(np.log(b**2 + 0.1))
    each = np.stack(courses)
    return each, np.array(prior) + np.square(each).mean(axis=1) / 0.05**2, np.array(log_b)


# --- occlusion


def _occlusion(face: Face, outside: float, shape: tuple[int, ...]) -> float:
    """The share of the face that is covered or outside.

    The parts of a face count alike, however many landmarks they have; each by the share of its
    landmarks that are hidden though a head so turned would show them.
    """
    if face.landmarks is None:
        return outside
    points = face.landmarks.points
    inside = np.all((points >= 0) & (points < [shape[1], shape[0]]), axis=1)
    seen = np.clip((face.landmarks.visible * inside - _SURELY_HIDDEN) / _UNSURE, 0, 1)
    hidden = 1 - seen
    parts = [hidden[part].mean() for part in _expected(face.landmarks.pose[0])]
    return float(max(np.mean(parts), outside))


def _expected(yaw: float) -> list[list[int]]:
    """The landmarks that are seen of a head unless something covers them, by parts."""
    chin = [8]
    chin += [6, 7] if yaw > -15 else []
    chin += [9, 10] if yaw < 15 else []
    chin += [3, 4, 5] if yaw > 10 else [11, 12, 13] if yaw < -10 else []
    mouth = list(_MIDDLE_OF_MOUTH)
    mouth += _LEFT_MOUTH if yaw > -25 else []
    mouth += _RIGHT_MOUTH if yaw < 25 else []
    parts = [_NOSE, mouth, chin]
    parts += [_LEFT_EYE] if yaw > -25 else []
    parts += [_RIGHT_EYE] if yaw < 25 else []
    return parts


# --- compression


def _compression(pixels: Pixels, face: Face) -> float:
    """How visible the blocks of JPEG or of a video codec are in the face's box.

    Block borders are steps between neighbouring pixels that come at regular distances (Wang, Bovik
    & Evans, "Blind measurement of blocking artifacts in images", 2000; Fan & de Queiroz,
    "Identification of bitmap compression history", 2003). Every place of the grid is tried, for
    cropping moves it, and those of scaled videos. The value is e / (e + m), where m is the mean
    step between pixels, and e what the grid's steps have beyond the others, less what chance
    would give them.
    """
    box = face.box.astype(np.float64)
    middle = (box[:2] + box[2:]) / 2
    half = np.clip(face.size, _SMALLEST_PART, _LARGEST_PART) / 2
    end = np.array([pixels.shape[1], pixels.shape[0]])
    x0, y0 = np.clip(np.floor(middle - half), 0, end - 1).astype(int)
    x1, y1 = np.clip(np.ceil(middle + half), 0, end).astype(int)
    if min(x1 - x0, y1 - y0) <= 3 * _BLOCK:
        return 0.0
    grey = cv2.cvtColor(np.ascontiguousarray(pixels[y0:y1, x0:x1]), cv2.COLOR_RGB2GRAY)
    grey = grey.astype(np.float32)
    return (_blocks(np.diff(grey, axis=1)) + _blocks(np.diff(grey.T, axis=1))) / 2


def _blocks(steps: Floats) -> float:
    """How much a grid's columns of steps stand out."""
    profile = np.minimum(np.abs(steps), _STEP_CAP).mean(axis=0)
    # The face's own structure is wide: only what differs from the neighbours counts.
    excess = profile - cv2.blur(profile[None], (17, 1), borderType=cv2.BORDER_REFLECT)[0]
    combs, by_chance = _combs(len(profile))
    on = combs.sum(axis=1)
    off = len(profile) - on
    mean_on = combs @ excess / on
    mean_off = (excess.sum() - combs @ excess) / off
    variance = (np.square(excess).sum() - combs @ np.square(excess)) / off - mean_off**2
    chance = by_chance * np.sqrt(np.maximum(variance, 0) / on)
    e = max(0.0, float((mean_on - mean_off - chance).max()))
    return e / (e + float(profile.mean()) + 0.25)


@lru_cache(maxsize=32)
def _combs(length: int) -> tuple[Floats, Floats]:
    """Where each grid has its borders (N, length), and how many deviations to allow it."""
    combs, by_chance = [], []
    for period in (_BLOCK, *_SCALED_BLOCKS):
        for phase in range(int(np.ceil(period))):
            comb = np.zeros(length, np.float32)
            places = np.round(np.arange(phase, length, period)).astype(int)
            comb[places[places < length]] = 1
            combs.append(comb)
            by_chance.append(3.0 if period == _BLOCK else 4.0)
    return np.stack(combs), np.array(by_chance, np.float32)
