"""Forgeries made on the fly, from untouched pictures alone, for detectors to learn blending from.

The idea is Shiohara & Yamasaki's, "Detecting Deepfakes with Self-Blended Images", CVPR 2022
(arXiv:2204.08376): what all face forgeries share is that something was laid over a picture that
does not quite belong there. A detector that must find a face laid over *itself*, a little moved
and recoloured, has nothing else to go by. Written anew from the paper; beside its self-blends
stand faces spliced in from other people, parts exchanged, parts reworked and faces warped, since a
detector that only ever saw outlines of whole faces does not look at a mouth. Whatever a network
would have drawn is also passed through a coarse resolution and back, as decoders do it.

Forgeries are made at the picture's own resolution, before anything else befalls it. They are for
detectors in memory; no file is written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.regions import Region, moved_by
from facekit.core.errors import FacekitError, did_you_mean
from facekit.types import Floats, Landmarks, Pixels

Random = np.random.Generator
Reals = NDArray[np.float64]
Made = tuple[Pixels, Floats]  # the picture, and the mask in [0, 1] of what was laid over, (H, W, 1)

# iBUG-300W's 68 points.
_JAW, _BROWS, _NOSE = list(range(17)), list(range(17, 27)), list(range(27, 36))
_LEFT_EYE, _RIGHT_EYE, _MOUTH = list(range(36, 42)), list(range(42, 48)), list(range(48, 68))
_INNER = [*_BROWS, *_NOSE, *_LEFT_EYE, *_RIGHT_EYE, *_MOUTH]

PARTS: dict[str, list[int]] = {
    "left eye": [*range(17, 22), *_LEFT_EYE],
    "right eye": [*range(22, 27), *_RIGHT_EYE],
    "eyes": [*_BROWS, *_LEFT_EYE, *_RIGHT_EYE],
    "nose": _NOSE,
    "mouth": _MOUTH,
    "nose and mouth": [*_NOSE, *_MOUTH],
    "lower face": [*range(2, 15), *range(31, 36), *_MOUTH],
    "inner face": _INNER,
}
"""Name → its points, of iBUG-300W's 68."""

_OUTLINES = (
    [*_JAW, *_BROWS],
    _INNER,
    [*range(1, 16), *_BROWS],
    [*range(3, 14), *_NOSE, *_LEFT_EYE, *_RIGHT_EYE],
    PARTS["lower face"],
)
_SPLICED = ([*_JAW, *_BROWS], [*range(1, 16), *_BROWS], _INNER)
_MARGIN = 0.25  # of the face's size, about its points: no mask reaches further
_FAR_TURNED, _FAR_COLOURED = 15.0, 30.0  # degrees, and levels of 255, that count alike
_BANDS = 4  # of detail, each an octave
_GRID = 24  # cells a side on which a warp is computed


def self_blend(target: Region, donor: Region | None, random: Random) -> Made:
    """The face laid over itself, after one of the two was recoloured and the one on top moved."""
    base = target.pixels
    over = _affine(base, random, target.face.size)
    if random.random() < 0.35:
        over = _coarse(over, target.face.size, random)
    if random.random() < 0.5:
        over = _retouched(over, random)
    else:
        base = _retouched(base, random)
    chosen = _OUTLINES[random.choice(len(_OUTLINES), p=[0.4, 0.25, 0.15, 0.1, 0.1])]
    ratio = random.choice([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
    mask = _mask(target, chosen, random)
    return _blend(base, over, ratio * mask), mask


def splice(target: Region, donor: Region | None, random: Random) -> Made:
    """Another person's face, brought to this one's points, recoloured to match and laid over."""
    assert donor is not None
    chosen = _SPLICED[random.integers(len(_SPLICED))]
    over = _fitted(donor, target, _INNER, random)
    if random.random() < 0.4:
        over = _coarse(over, target.face.size, random)
    mask = _mask(target, chosen, random)
    return _laid(target.pixels, _matched(over, target.pixels, mask, random), mask, random)


def part(target: Region, donor: Region | None, random: Random) -> Made:
    """Eyes, nose, mouth or some of them exchanged for another person's."""
    assert donor is not None
    chosen = PARTS[str(random.choice(list(PARTS)))]
    over = _fitted(donor, target, chosen, random)
    mask = _mask(target, chosen, random, small=True)
    return _laid(target.pixels, _matched(over, target.pixels, mask, random), mask, random)


def rework(target: Region, donor: Region | None, random: Random) -> Made:
    """A part of the face blurred, sharpened, recoloured, relit, or drawn at a coarse resolution."""
    chosen = PARTS[str(random.choice(list(PARTS)))]
    over = target.pixels
    for change in random.permutation(4)[: random.integers(1, 3)]:
        if change == 0:
            over = _coarse(over, target.face.size, random)
        elif change == 1:
            over = _retouched(over, random)
        elif change == 2:
            over = _relit(over, random)
        else:
            over = _smoothed(over, target.face.size, random)
    mask = _mask(target, chosen, random, small=True)
    return _blend(target.pixels, over, mask), mask


def warp(target: Region, donor: Region | None, random: Random) -> Made:
    """Another expression: mouth, brows, lids or jaw moved, and drawn anew where they moved."""
    points = _points(target)
    moved = points.copy()
    unit = target.face.size
    some = random.permutation(4)[: random.integers(1, 4)]
    if 0 in some:  # the mouth opens, closes, smiles or shifts
        middle = points[_MOUTH].mean(axis=0)
        factors = random.uniform([0.85, 0.6], [1.2, 1.6])
        shift = random.normal(0, 0.015 * unit, 2)
        moved[_MOUTH] = middle + (points[_MOUTH] - middle) * factors + shift
        moved[5:12, 1] += random.uniform(-0.02, 0.05) * unit
    if 1 in some:
        moved[_BROWS, 1] += random.uniform(-0.05, 0.03) * unit
    if 2 in some:
        for eye in (_LEFT_EYE, _RIGHT_EYE):
            middle = points[eye].mean(axis=0)
            moved[eye] = middle + (points[eye] - middle) * [1, random.uniform(0.5, 1.4)]
    if 3 in some:
        moved[_JAW] += random.normal(0, 0.025 * unit, 2)
        moved[_NOSE] += random.normal(0, 0.01 * unit, 2)
    over = _drawn(target.pixels, _displacement(target, points - moved, moved))
    if random.random() < 0.6:
        over = _coarse(over, unit, random)
    if random.random() < 0.3:
        over = _retouched(over, random, strength=0.4)
    chosen = PARTS["lower face"] if list(some) == [0] else _OUTLINES[random.integers(2)]
    mask = _mask(target, chosen, random)
    return _blend(target.pixels, over, mask), mask


KINDS: dict[str, Callable[[Region, Region | None, Random], Made]] = {
    "self_blend": self_blend,
    "splice": splice,
    "part": part,
    "rework": rework,
    "warp": warp,
}
"""Name → what makes it, from a region with landmarks, a donor's, and chance."""

WITH_DONOR = ("splice", "part")
"""Those that need another person's region."""


@dataclass(frozen=True)
class Forged:
    """A forgery.

    Attributes:
        region: the picture, and the face that it was made on.
        mask: uint8 (H, W): how much of each pixel was laid over, 255 all of it.
    """

    region: Region
    mask: NDArray[np.uint8]


def forge(kind: str, target: Region, donor: Region | None, random: Random) -> Forged:
    """A forgery of ``target``.

    Args:
        kind: of :data:`KINDS`.
        target: with landmarks.
        donor: another person's, with landmarks, for those :data:`WITH_DONOR`.
        random: all chances come from it.

    Raises:
        FacekitError: for an unknown kind.
        ValueError: for a region without landmarks, or without a donor where one is needed.
    """
    if kind not in KINDS:
        raise FacekitError(f"unknown forgery '{kind}'; {did_you_mean(kind, KINDS)}")
    if kind in WITH_DONOR and donor is None:
        raise ValueError(f"a {kind} needs a donor")
    # A self-blend may recolour all of the picture; the others change the face alone, and need no
    # more than what is about it.
    inner, (x, y) = (target, (0, 0)) if kind == "self_blend" else _about_face(target)
    other = None if donor is None else _about_face(donor)[0]
    made, laid_over = KINDS[kind](inner, other, random)
    height, width = made.shape[:2]
    pixels, mask = target.pixels.copy(), np.zeros(target.pixels.shape[:2], np.uint8)
    pixels[y : y + height, x : x + width] = made
    mask[y : y + height, x : x + width] = np.rint(255 * laid_over[:, :, 0])
    return Forged(replace(target, pixels=pixels), mask)


def _about_face(region: Region) -> tuple[Region, tuple[int, int]]:
    """The part of a region that a forgery can reach, and where its corner lies."""
    margin = _MARGIN * region.face.size
    points = _points(region)
    height, width = region.pixels.shape[:2]
    x0, y0 = np.clip(points.min(axis=0) - margin, 0, [width - 8, height - 8]).astype(int)
    x1, y1 = np.clip(points.max(axis=0) + margin, [x0 + 8, y0 + 8], [width, height]).astype(int)
    face = moved_by(region.face, (-x0, -y0))
    return Region(region.pixels[y0:y1, x0:x1], face, region.scale), (int(x0), int(y0))


def most_alike(target: Region, others: Sequence[Region]) -> int:
    """Which of ``others`` is nearest in yaw and pitch and in the colours of its face."""
    turned = np.array([_landmarks(other).pose[:2] for other in others])
    turned = turned - _landmarks(target).pose[:2]
    coloured = np.array([_tone(other) for other in others]) - _tone(target)
    apart = np.linalg.norm(turned, axis=1) / _FAR_TURNED
    apart += np.linalg.norm(coloured, axis=1) / _FAR_COLOURED
    return int(apart.argmin())


def _tone(region: Region) -> Reals:
    """The mean colour (3,) within the middle of the face's box, in 0 to 255."""
    height, width = region.pixels.shape[:2]
    quarter = region.face.size / 4
    x0, y0 = np.clip(region.face.box[:2] + quarter, 0, [width - 1, height - 1]).astype(int)
    x1, y1 = np.clip(region.face.box[2:] - quarter, [x0 + 1, y0 + 1], [width, height]).astype(int)
    middle: Reals = region.pixels[y0:y1:4, x0:x1:4].reshape(-1, 3).mean(axis=0)
    return middle


def _landmarks(region: Region) -> Landmarks:
    if region.face.landmarks is None:
        raise ValueError("a forgery needs regions with landmarks")
    return region.face.landmarks


def _points(region: Region) -> Reals:
    """The 68 points, float64."""
    points: Reals = _landmarks(region).points[:68].astype(np.float64)
    return points


def _mask(region: Region, chosen: list[int], random: Random, *, small: bool = False) -> Floats:
    """A soft mask about some of the points, in [0, 1], (H, W, 1); its outline is never twice one.

    ``small`` is for parts, whose points lie inside what a forger would take.
    """
    points, unit = _points(region)[chosen], region.face.size
    if set(chosen) & set(_BROWS):  # up the forehead, to where a mask may well end
        lift = random.uniform(0, 0.12) * unit
        points = np.concatenate([points, points[points[:, 1] < points[:, 1].mean()] - [0, lift]])
    middle = points.mean(axis=0)
    points = middle + (points - middle) * random.uniform(*((1.05, 1.6) if small else (0.85, 1.1)))
    height, width = region.pixels.shape[:2]
    mask = np.zeros((height, width), np.float32)
    hull = cv2.convexHull(np.rint(points).astype(np.int32))
    cv2.fillConvexPoly(mask, hull, 1.0)
    if random.random() < 0.7:
        waves = random.normal(0, random.uniform(0.01, 0.05) * unit, (6, 6, 2)).astype(np.float32)
        field = cv2.resize(waves, (width, height), interpolation=cv2.INTER_CUBIC)
        mask = _drawn(mask, np.asarray(field, np.float32))
    soft = np.exp(random.uniform(np.log(0.006), np.log(0.07))) * unit
    mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), soft), np.float32)
    if random.random() < 0.5:  # the soft edge wholly inside: nothing of the outline's other side
        mask = np.clip(2 * mask - 1, 0, 1)
    # Narrow parts would vanish under a wide edge: whatever the mask, its middle is laid over whole.
    return mask[:, :, None] / max(float(mask.max()), 1e-3)


def _blend(base: Pixels, over: Pixels, mask: Floats) -> Pixels:
    mixed = base.astype(np.float32) + mask * (over.astype(np.float32) - base)
    return _rounded(mixed)


def _laid(base: Pixels, over: Pixels, mask: Floats, random: Random) -> Made:
    """Laid over as careful forgers do: softly, by gradients, or the coarser the wider the edge."""
    way = random.choice(["alpha", "gradients", "bands"], p=[0.5, 0.3, 0.2])
    if way == "gradients":
        return _by_gradients(base, over, mask)
    return _by_bands(base, over, mask) if way == "bands" else (_blend(base, over, mask), mask)


def _by_gradients(base: Pixels, over: Pixels, mask: Floats) -> Made:
    """What is laid over keeps its gradients and takes the colours along its edge from the base.

    Pérez et al., "Poisson Image Editing", SIGGRAPH 2003; by a smooth membrane from the colours'
    differences along the edge, as in Farbman et al., "Coordinates for Instant Image Cloning",
    SIGGRAPH 2009, here filled in from coarse to fine.
    """
    inside = np.asarray(mask > 0.5, np.float32)
    edge = np.asarray(cv2.dilate(inside, np.ones((3, 3)))[:, :, None] - inside, np.float32)
    layer = over.astype(np.float32)
    if edge.any():
        layer += _membrane(edge * (base - layer), edge[:, :, 0])
    return _blend(base, _rounded(layer), inside), inside


def _membrane(values: Floats, weights: Floats) -> Floats:
    """Smoothly between the places of weight 1: values (H, W, 3), 0 where weights (H, W) are 0."""
    height, width = weights.shape
    if min(height, width) <= 2:
        flat = values.sum((0, 1)) / max(float(weights.sum()), 1e-6)
        return np.broadcast_to(flat, values.shape).astype(np.float32)
    low, known = cv2.pyrDown(values), np.asarray(cv2.pyrDown(weights), np.float32)
    sure = np.minimum(4 * known, 1)[:, :, None]
    coarse = _membrane(np.asarray(low / (known[:, :, None] + 1e-6) * sure), sure[:, :, 0])
    filled = np.asarray(cv2.pyrUp(coarse, dstsize=(width, height)), np.float32)
    return values + (1 - weights[:, :, None]) * filled


def _by_bands(base: Pixels, over: Pixels, mask: Floats) -> Made:
    """Burt & Adelson, "A Multiresolution Spline", ACM TOG 1983: a seam for each band of detail."""
    one, other, share = base.astype(np.float32), over.astype(np.float32), mask[:, :, 0]
    bands: list[tuple[Floats, Floats]] = []
    while len(bands) < _BANDS and min(share.shape) >= 16:
        size = share.shape[1], share.shape[0]
        coarse, other_coarse = (np.asarray(cv2.pyrDown(p), np.float32) for p in (one, other))
        detail, other_detail = (
            p - np.asarray(cv2.pyrUp(low, dstsize=size), np.float32)
            for p, low in ((one, coarse), (other, other_coarse))
        )
        bands.append((detail + share[:, :, None] * (other_detail - detail), share))
        one, other, share = coarse, other_coarse, np.asarray(cv2.pyrDown(share), np.float32)
    made, reach = one + share[:, :, None] * (other - one), share
    for band, share in reversed(bands):
        size = share.shape[1], share.shape[0]
        made = band + np.asarray(cv2.pyrUp(made, dstsize=size), np.float32)
        reach = np.maximum(share, np.asarray(cv2.pyrUp(reach, dstsize=size), np.float32))
    return _rounded(made), reach[:, :, None]


def _rounded(values: NDArray[np.floating]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def _affine(pixels: Pixels, random: Random, unit: float) -> Pixels:
    """Moved by up to 3% of the face, scaled by up to 5%, sometimes turned a little."""
    height, width = pixels.shape[:2]
    turn = random.uniform(-2, 2) if random.random() < 0.3 else 0.0
    middle = (width / 2, height / 2)
    matrix = np.asarray(cv2.getRotationMatrix2D(middle, turn, random.uniform(0.95, 1.05)), float)
    matrix[:, 2] += random.uniform(-0.03, 0.03, 2) * unit * [1, 0.6]
    return _warped(pixels, matrix)


def _warped(pixels: Pixels, matrix: Reals, size: tuple[int, int] | None = None) -> Pixels:
    """Through a 2×3 matrix from this picture to the new one of ``size`` (width, height)."""
    size = size or (pixels.shape[1], pixels.shape[0])
    moved = cv2.warpAffine(
        pixels, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(moved, np.uint8)


def _fitted(donor: Region, target: Region, chosen: list[int], random: Random) -> Pixels:
    """The donor's picture with the chosen points where the target has them.

    First by a similarity, of parts nothing more; whole faces are then bent to fit.
    """
    of, to = _points(donor)[chosen], _points(target)[chosen]
    z, w = of @ [1, 1j], to @ [1, 1j]
    a = ((z - z.mean()).conj() * (w - w.mean())).sum() / (np.abs(z - z.mean()) ** 2).sum()
    a *= random.uniform(0.96, 1.04)
    b = w.mean() - a * z.mean()
    matrix = np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
    height, width = target.pixels.shape[:2]
    pixels = donor.pixels
    if abs(a) < 0.6:  # linear interpolation would skip pixels
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), 0.4 / abs(a)), np.uint8)
    moved = _warped(pixels, matrix, (width, height))
    if chosen is not _INNER:
        return moved
    now = _points(donor) @ matrix[:, :2].T + matrix[:, 2]
    share = random.uniform(0.5, 1.0)
    goal = now + share * (_points(target) - now)
    bent: Pixels = _drawn(moved, _displacement(target, now - goal, goal))
    return bent


def _displacement(region: Region, vectors: Reals, at: Reals) -> Floats:
    """A smooth field (H, W, 2) that is ``vectors`` (68, 2) at those points, and 0 far from them.

    Nadaraya & Watson's weighted mean on a coarse grid, with a pull to 0.
    """
    height, width = region.pixels.shape[:2]
    x = (np.arange(_GRID) + 0.5) * width / _GRID
    y = (np.arange(_GRID) + 0.5) * height / _GRID
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 1, 2)
    nearness = ((grid - at[None]) ** 2).sum(-1) / (0.09 * region.face.size) ** 2
    weights = np.exp(-nearness / 2)
    field = weights @ vectors / (weights.sum(axis=1, keepdims=True) + 0.15)
    field = field.reshape(_GRID, _GRID, 2).astype(np.float32)
    return np.asarray(cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR))


def _drawn(picture: NDArray[Any], field: Floats) -> Any:
    """Each pixel taken from where ``field`` (H, W, 2), in pixels, points."""
    height, width = picture.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(
        picture,
        x + field[:, :, 0],
        y + field[:, :, 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def _matched(over: Pixels, base: Pixels, mask: Floats, random: Random) -> Pixels:
    """The colours of what is laid over brought near to those it covers: not at all to fully."""
    way = random.choice(["none", "mean", "spread", "tone"], p=[0.1, 0.25, 0.35, 0.3])
    if way == "none":
        return over
    one, other = over.astype(np.float32), base.astype(np.float32)
    if way == "tone":  # the base's broad tones, with the fine detail of what is laid over
        sigma = random.uniform(0.05, 0.15) * max(base.shape[:2])
        small = (max(8, round(base.shape[1] / 8)), max(8, round(base.shape[0] / 8)))
        broad = [
            cv2.resize(
                cv2.GaussianBlur(
                    cv2.resize(p, small, interpolation=cv2.INTER_AREA), (0, 0), sigma / 8
                ),
                (base.shape[1], base.shape[0]),
            )
            for p in (one, other)
        ]
        matched = one + random.uniform(0.6, 1.0) * (broad[1] - broad[0])
        return _rounded(matched)
    total = float(mask.sum()) + 1e-6
    means = [(mask * p).sum((0, 1)) / total for p in (one, other)]
    gain = np.ones(3, np.float32)
    if way == "spread":
        spreads = [
            np.sqrt((mask * (p - mean) ** 2).sum((0, 1)) / total) + 1.0
            for p, mean in zip((one, other), means, strict=True)
        ]
        gain = np.clip(spreads[1] / spreads[0], 0.6, 1.6)
    share = random.uniform(0.7, 1.0)
    matched = (one - means[0]) * gain**share + means[0] + share * (means[1] - means[0])
    return _rounded(matched)


def _retouched(pixels: Pixels, random: Random, strength: float = 1.0) -> Pixels:
    """Other colours, then sharper or coarser: the paper's source and target transforms."""
    shift = random.uniform(-1, 1, 3) * [5, 25, 20] * strength
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV) + shift
    hsv[:, :, 0] %= 180
    changed = cv2.cvtColor(np.clip(hsv, 0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)
    shift = random.uniform(-14, 14, 3) * strength
    gain = 1 + random.uniform(-0.1, 0.1) * strength
    toned = _rounded((changed - 127.5) * gain + 127.5 + shift)
    way = random.random()
    if way < 0.35:
        factor = random.uniform(1.5, 3.5)
        return _through(toned, factor, random)
    if way < 0.6:
        blurred = cv2.GaussianBlur(toned, (0, 0), random.uniform(0.7, 1.5))
        amount = random.uniform(0.2, 0.8)
        return np.asarray(cv2.addWeighted(toned, 1 + amount, blurred, -amount, 0), np.uint8)
    return toned


def _coarse(pixels: Pixels, unit: float, random: Random) -> Pixels:
    """As a decoder draws a face: from 48 to 160 pixels, enlarged with its own kernel."""
    factor = max(1.05, unit / np.exp(random.uniform(np.log(40), np.log(160))))
    return _through(pixels, factor, random, learned=random.random() < 0.5)


def _through(pixels: Pixels, factor: float, random: Random, *, learned: bool = False) -> Pixels:
    """Shrunk by ``factor`` and enlarged again; ``learned``: as an up-convolution would."""
    height, width = pixels.shape[:2]
    size = (max(8, round(width / factor)), max(8, round(height / factor)))
    shrink = cv2.INTER_AREA if random.random() < 0.7 else cv2.INTER_LINEAR
    small = cv2.resize(pixels, size, interpolation=shrink)
    if learned:
        # Twice as large by repeating pixels, then a 3×3 kernel near to a smoothing one, with a
        # gain for each of the four places in the 2×2 cell: a transposed convolution's chequers.
        twice = small.repeat(2, axis=0).repeat(2, axis=1).astype(np.float32)
        kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16 + random.normal(0, 0.03, (3, 3))
        twice = np.asarray(cv2.filter2D(twice, -1, kernel / kernel.sum()), np.float32)
        gains = 1 + random.normal(0, 0.015, (2, 2)).astype(np.float32)
        twice *= np.tile(gains, size[::-1])[:, :, None]
        small = _rounded(twice)
    kinds = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
    enlarge = int(random.choice(kinds))
    return np.asarray(cv2.resize(small, (width, height), interpolation=enlarge), np.uint8)


def _relit(pixels: Pixels, random: Random) -> Pixels:
    """A smooth light from one side."""
    height, width = pixels.shape[:2]
    light = 1 + random.normal(0, 0.15, (3, 3)).astype(np.float32)
    field = cv2.resize(light, (width, height), interpolation=cv2.INTER_CUBIC)[:, :, None]
    return _rounded(pixels * field)


def _smoothed(pixels: Pixels, unit: float, random: Random) -> Pixels:
    """Skin without pores, as beauty filters leave it; or grain laid over."""
    if random.random() < 0.3:
        grain = random.normal(0, random.uniform(2, 7), pixels.shape)
        return _rounded(pixels + grain)
    if random.random() < 0.5:
        sigma = random.uniform(0.006, 0.02) * unit
        return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.uint8)
    spread = random.uniform(15, 45)
    return np.asarray(cv2.bilateralFilter(pixels, 5, spread, 3), np.uint8)
