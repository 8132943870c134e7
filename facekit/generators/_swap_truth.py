"""How good a face swap is, by the studio's true answer: one table for any method's frames.

:func:`score` measures the frames that a method made of a clip; it knows of no model. In the same
table stand

- *floors*, what needs no swap model: the target's own frames (``copy``), the source's best matching
  photo laid over them (``photo``), and that photo bent to the target's landmarks (``warp``);
- a *ceiling*: the true answer's crop, laid over the target (``pasted``): what cutting out and
  laying back a face of so many pixels loses by itself;
- the *truth's own* readings: what the estimators of pose and expression, and the judge of identity,
  say of the true answer itself (``truth``).

Intervals are 95% percentile bootstraps over clips (Efron & Tibshirani 1993).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from facekit.adversary.metrics.ssim import ssim_map
from facekit.core.errors import FacekitError
from facekit.core.figures import Figure
from facekit.core.seed import Purpose, rng
from facekit.datasets.swap_truth import TEMPLATE, Actor, Clip, Photo, Portraits, aligned
from facekit.faces.align import TEMPLATES, apply, crop_from_image, draw_crop, invert
from facekit.faces.blend import ellipse, paste
from facekit.faces.embed import load_embedder
from facekit.faces.landmarks import Landmarker
from facekit.studio.audit import CROP, load_judge
from facekit.types import Face, Floats, Landmarks, Pixels

FLOORS = ("copy", "photo", "warp")
CEILING, TRUTH = "pasted", "truth"

_RESAMPLES = 1000
_SSIM_EDGE = 5  # pixels that its windows take off each side

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Identity:
    """A network that says who is shown.

    Attributes:
        embed: crops uint8 (N, S, S, 3), aligned to "arcface", to unit vectors (N, D).
        size: S.
        outside: whether it is not facekit's own.
    """

    embed: Callable[[Pixels], Floats]
    size: int
    outside: bool

    @classmethod
    def load(cls, judge: Path | None, device: torch.device) -> "Identity":
        """The judge in an ONNX file, or the bundled network.

        Raises:
            FacekitError: if the file cannot be used.
        """
        if judge is not None:
            return cls(load_judge(judge), CROP, True)
        own = load_embedder(device)
        return cls(own.embed, own.size, False)

    def of(self, pictures: Iterable[Pixels], points: Iterable[Floats]) -> Floats:
        """Vectors (N, D) of the faces of pictures, by their five points."""
        crops = []
        for picture, five in zip(pictures, points, strict=True):
            crop = np.empty((self.size, self.size, 3), np.uint8)
            draw_crop(crop, picture, invert(crop_from_image(five, "arcface", self.size)))
            crops.append(crop)
        return self.embed(np.stack(crops))

    def gallery(self, people: Portraits) -> Floats:
        """One vector of length 1 for each of P people, (P, D): the mean of their portraits'."""
        count, each = people.frames.shape[:2]
        frames = people.frames.reshape(-1, *people.frames.shape[2:])
        found = self.of(frames, people.points.reshape(-1, 5, 2)).reshape(count, each, -1).mean(1)
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


@dataclass(frozen=True)
class Reading:
    """What the landmark network and the judge say of T frames.

    Attributes:
        pose: (T, 3) in degrees.
        expression: (T, 52).
        vectors: (T, D) of length 1.
    """

    pose: Floats
    expression: Floats
    vectors: Floats


@dataclass(frozen=True)
class Readers:
    """The networks that look at frames."""

    landmarker: Landmarker
    identity: Identity

    @classmethod
    def load(cls, judge: Path | None, device: torch.device) -> "Readers":
        """Set them up; without ``judge`` the bundled network of identity serves.

        Raises:
            FacekitError: if the judge's file cannot be used.
        """
        return cls(Landmarker(device), Identity.load(judge, device))

    def read(self, pictures: Sequence[Pixels], points: Floats) -> Reading:
        """Read the faces of pictures whose five points (T, 5, 2) are known."""
        found = self.landmarks(pictures, points)
        return Reading(
            pose=np.array([one.pose for one in found], np.float32),
            expression=np.stack([one.expression for one in found]),
            vectors=self.identity.of(pictures, points),
        )

    def landmarks(self, pictures: Sequence[Pixels], points: Floats) -> list[Landmarks]:
        """The landmarks of the faces of pictures whose five points (T, 5, 2) are known."""
        faces = [[Face(box=_box(five), points=five, score=1.0)] for five in points]
        read = [row[0].landmarks for row in self.landmarker.read(pictures, faces)]
        return [landmarks for landmarks in read if landmarks is not None]


@dataclass(frozen=True)
class Score:
    """What a method's frames of one clip score: means over its frames.

    Attributes:
        psnr: in dB, of the aligned face against the true answer, within the region.
        ssim: in [-1, 1], likewise.
        pose: error in degrees, the mean of yaw's, pitch's and roll's.
        expression: error of a coefficient, the mean over the 52 face units.
        expression_from_truth: how far the reading is from that of the true answer, likewise.
        similarity: cosine to the source's portraits, less that to the target's.
        retrieved: share of frames that are nearest to the source of all in the gallery.
        source_like: share of frames nearer to the source than to the target.
        flicker: the mean change of a point of the face from frame to frame, in levels of 255.
    """

    psnr: float
    ssim: float
    pose: float
    expression: float
    expression_from_truth: float
    similarity: float
    retrieved: float
    source_like: float
    flicker: float


@dataclass(frozen=True)
class Judged:
    """A clip with what is asked of every method's frames of it.

    Attributes:
        clip: the clip.
        truth: the true answer's readings.
        crops: uint8 (T, C, C, 3): the true answer's aligned faces.
        gallery: (P, D), of the judge; ``source`` and ``target`` are the rows of these two.
    """

    clip: Clip
    truth: Reading
    crops: Pixels
    gallery: Floats
    source: int
    target: int


def judged(clip: Clip, actors: Sequence[Actor], gallery: Floats, readers: Readers) -> Judged:
    """Prepare a clip, whose people come first in the gallery, for scoring."""
    names = [actor.name for actor in actors]
    return Judged(
        clip=clip,
        truth=readers.read(list(clip.answers), clip.answer_points),
        crops=_crops(clip.answers, clip.answer_points, clip.crop),
        gallery=gallery,
        source=names.index(clip.source),
        target=names.index(clip.target),
    )


def score(frames: Sequence[Pixels], of: Judged, readers: Readers) -> Score:
    """Measure somebody's swapped frames of a clip.

    Args:
        frames: uint8 (S, S, 3) each, as many and as large as the clip's.
        of: the clip.
        readers: networks.

    Raises:
        FacekitError: if the frames are too few, too many, or of another size.
    """
    clip = of.clip
    if len(frames) != len(clip.frames):
        raise FacekitError(
            f"{len(frames)} frames of a clip of {len(clip.frames)}; a method returns every frame, "
            "those without a swap unchanged"
        )
    for frame in frames:
        if frame.shape != clip.frames.shape[1:] or frame.dtype != np.uint8:
            raise FacekitError(
                f"a frame is {frame.dtype} {frame.shape}, the target's uint8 "
                f"{clip.frames.shape[1:]}; give frames as large as the target's"
            )
    read = readers.read(list(frames), clip.points)
    return _scored(_crops(frames, clip.points, clip.crop), read, of)


def score_truth(of: Judged) -> Score:
    """The true answer's own score; its PSNR is infinite."""
    return _scored(of.crops, of.truth, of)


def _scored(crops: Pixels, read: Reading, of: Judged) -> Score:
    clip = of.clip
    similarity = read.vectors @ of.gallery.T
    to_source, to_target = similarity[:, of.source], similarity[:, of.target]
    return Score(
        psnr=float(region_psnr(crops, of.crops, clip.region).mean()),
        ssim=float(region_ssim(crops, of.crops, clip.region).mean()),
        pose=float(_turn(read.pose, clip.pose).mean()),
        expression=float(np.abs(read.expression - clip.expression).mean()),
        expression_from_truth=float(np.abs(read.expression - of.truth.expression).mean()),
        similarity=float((to_source - to_target).mean()),
        retrieved=float((similarity.argmax(1) == of.source).mean()),
        source_like=float((to_source > to_target).mean()),
        flicker=flicker(crops, clip),
    )


def region_psnr(crops: Pixels, truth: Pixels, region: NDArray[np.uint8]) -> Doubles:
    """The PSNR (T,) in dB of crops uint8 (T, C, C, 3) against ``truth``, weighted by ``region``."""
    weight = region[..., None] / 255.0
    error = np.square(crops.astype(np.float64) - truth) * weight
    mean = error.sum((1, 2, 3)) / (3 * weight.sum((1, 2, 3)))
    with np.errstate(divide="ignore"):
        found: Doubles = 10 * np.log10(255.0**2 / mean)
    return found


def region_ssim(crops: Pixels, truth: Pixels, region: NDArray[np.uint8]) -> Doubles:
    """The SSIM (T,) of crops uint8 (T, C, C, 3), over windows weighted by ``region`` at centre."""
    first, second = (
        torch.from_numpy(one.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
        for one in (crops, truth)
    )
    alike = ssim_map(first, second).mean(1).numpy()
    edge = _SSIM_EDGE
    weight = region[:, edge:-edge, edge:-edge] / 255.0
    found: Doubles = (alike * weight).sum((1, 2)) / weight.sum((1, 2))
    return found


def flicker(crops: Pixels, clip: Clip) -> float:
    """How much points of the face change from one frame to the next, in levels of 255.

    The next frame is brought back along the true motion, so a face that merely moves does not
    count; light that slides over it does, in the truth as well.

    Args:
        crops: uint8 (T, C, C, 3), aligned by the clip's exact points.
        clip: whose motion it is.
    """
    changes = []
    for i, motion in enumerate(clip.motion):
        x, y = motion[..., 0] - 0.5, motion[..., 1] - 0.5  # OpenCV's centres are whole numbers
        back = cv2.remap(crops[i + 1].astype(np.float32), x, y, cv2.INTER_LINEAR)
        weight = clip.region[i] / 255.0 * clip.moved[i]
        change = np.abs(back - crops[i]).mean(-1)
        changes.append((change * weight).sum() / max(weight.sum(), 1e-9))
    return float(np.mean(changes))


def floors(clip: Clip, source: Actor, target: Actor) -> Iterator[tuple[str, list[Pixels]]]:
    """What needs no model: name → frames; ``photo`` and ``warp`` only if there are photos."""
    yield "copy", list(clip.frames)
    if not (source.photos and target.photos):
        return
    chosen = best_photos(clip, source.photos, target.photos)
    size = max(clip.crop, 160)
    mask = _mask(size)
    complexions = complexion(source) / complexion(target)
    pasted, bent = [], []
    for photo, frame, points, landmarks in zip(
        chosen, clip.frames, clip.points, clip.landmarks, strict=True
    ):
        picture = photo.read()
        crop = aligned(picture, photo.points, size)
        gain = _gain(crop, aligned(frame, points, size)) * complexions
        toned = np.clip(crop * gain + 0.5, 0, 255).astype(np.uint8)
        place = crop_from_image(points, TEMPLATE, size)
        pasted.append(paste(frame, toned, place, mask))
        bent.append(bend(picture, photo.landmarks, frame, landmarks, gain))
    yield "photo", pasted
    yield "warp", bent


def complexion(of: Actor) -> Doubles:
    """The geometric mean (3,) of the mean colours of somebody's face, over some of their photos."""
    some = of.photos[:: max(1, len(of.photos) // 24)]
    means = [_mean_colour(aligned(photo.read(), photo.points, 64)) for photo in some]
    found: Doubles = np.exp(np.log(np.maximum(means, 1.0)).mean(0))
    return found


def ceiling(clip: Clip, size: int) -> list[Pixels]:
    """The true answer's crop of ``size`` pixels, laid over the target's frames as it is."""
    mask = ellipse(size, (0.5, 0.5), (0.42, 0.5), 0.25)  # to the border of the inner face
    return [
        paste(frame, aligned(answer, own, size), crop_from_image(points, TEMPLATE, size), mask)
        for frame, answer, own, points in zip(
            clip.frames, clip.answers, clip.answer_points, clip.points, strict=True
        )
    ]


def best_photos(clip: Clip, of_source: Sequence[Photo], of_target: Sequence[Photo]) -> list[Photo]:
    """For each frame the source's photo that is most like it in pose and expression.

    Compared are the landmarks of aligned faces, each less its person's mean over all photos.
    """
    source, target = (
        _upright(np.stack([p.landmarks for p in photos]), np.stack([p.points for p in photos]))
        for photos in (of_source, of_target)
    )
    wanted = _upright(clip.landmarks, clip.points) - target.mean(0)
    given = source - source.mean(0)
    apart = np.square(wanted[:, None] - given[None]).sum((2, 3))
    return [of_source[i] for i in apart.argmin(1)]


def bend(picture: Pixels, landmarks: Floats, frame: Pixels, to: Floats, gain: Doubles) -> Pixels:
    """``frame`` with the face of ``picture`` bent to it, linearly between landmarks.

    Args:
        picture: uint8 (H, W, 3), whose face it is.
        landmarks: (70, 2) in it.
        frame: uint8 (S, S, 3).
        to: (70, 2), where they lie in the frame.
        gain: (3,), what the picture's colours are multiplied with.

    Returns:
        A new frame; beyond the landmarks' outline, softly, the old one.
    """
    low = np.maximum(np.floor(to.min(0)).astype(int), 0)
    high = np.minimum(np.ceil(to.max(0)).astype(int) + 1, frame.shape[1::-1])
    if np.any(low >= high):
        return frame.copy()
    net = Delaunay(to.astype(np.float64))
    grid = np.stack(np.meshgrid(*(np.arange(*ends) for ends in zip(low, high, strict=True))), -1)
    centres = grid.reshape(-1, 2) + 0.5
    found = net.find_simplex(centres)
    affine = net.transform[found]
    two = np.einsum("nij,nj->ni", affine[:, :2], centres - affine[:, 2])
    shares = np.concatenate([two, 1 - two.sum(1, keepdims=True)], 1)
    corners = landmarks[net.simplices[found]]
    places = np.einsum("nk,nkc->nc", shares, corners).reshape(grid.shape).astype(np.float32)
    inside = (found >= 0).reshape(grid.shape[:2])
    layer = cv2.remap(picture, places[..., 0] - 0.5, places[..., 1] - 0.5, cv2.INTER_LINEAR).astype(
        np.float32
    )
    # Faded within a twentieth of the face's width, so that the outline is not seen.
    reach = max(1.0, 0.05 * float(high[0] - low[0]))
    framed = cv2.copyMakeBorder(inside.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    deep = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1]
    share = np.clip(deep / reach, 0, 1).astype(np.float32)
    window = frame[low[1] : high[1], low[0] : high[0]].astype(np.float32)
    blended = window + share[..., None] * (layer * gain - window)
    result = frame.copy()
    result[low[1] : high[1], low[0] : high[0]] = np.clip(blended + 0.5, 0, 255)
    return result


class Rows:
    """A table of figures from some clips or people, each with its interval: they are drawn anew.

    Attributes:
        figures: added so far.
    """

    def __init__(self, count: int) -> None:
        """Draw the same for all rows.

        Args:
            count: of the clips or people.
        """
        self.figures: list[Figure] = []
        self._draws = rng(0, Purpose.BOOTSTRAP).integers(count, size=(_RESAMPLES, count))

    def add(
        self,
        name: str,
        unit: str,
        said: Callable[..., Doubles],
        *parts: Doubles,
        floor: float | None = None,
    ) -> None:
        """Add a figure.

        Args:
            name: of it.
            unit: of it.
            said: what is made of the parts' means.
            parts: (N,) each, a number of each clip or person.
            floor: of the figure.
        """
        value = float(said(*(part.mean() for part in parts)))
        drawn = said(*(part[self._draws].mean(1) for part in parts))
        low, high = np.percentile(drawn, [2.5, 97.5])
        self.figures.append(Figure(name, value, unit, float(low), float(high), floor=floor))


def figures(scores: Mapping[str, Sequence[Score]], own: str = "own") -> list[Figure]:
    """The table of a method, with its floors, its ceiling and the truth.

    Args:
        scores: name → scores of the same clips; of ``own``, ``truth``, and whatever else there is.
        own: whose rows have no ending.
    """
    of = {
        name: {key: np.array([vars(one)[key] for one in rows]) for key in vars(rows[0])}
        for name, rows in scores.items()
    }
    there = [name for name in FLOORS if name in of]
    best = {
        key: pick(float(of[name][key].mean()) for name in there)
        for key, pick in _PICK.items()
        if there
    }
    table = Rows(len(scores[own]))
    add = table.add
    names = [own, *(name for name in (*FLOORS, CEILING, TRUTH) if name in of)]
    for name in names:
        end = "" if name == own else f".{name}"
        for key, (called, unit) in _CALLED.items():
            if name == TRUTH and key in _OF_A_PICTURE:
                continue
            floor = best.get(key) if name == own else None
            add(f"swap.{called}{end}", unit, same, of[name][key], floor=floor)
    mine, truth = of[own], of[TRUTH]
    if there:
        add("swap.psnr_over_floor", "dB", over_best, mine["psnr"], *(of[n]["psnr"] for n in there))
    if "photo" in of:
        add(
            "swap.expression_ratio",
            "",
            ratio_of,
            mine["expression_from_truth"],
            of["photo"]["expression_from_truth"],
        )
    add("swap.expression_over_truth", "", ratio_of, mine["expression"], truth["expression"])
    add("swap.flicker_ratio", "", ratio_of, mine["flicker"], truth["flicker"])
    return table.figures


_CALLED = {
    "psnr": ("psnr", "dB"),
    "ssim": ("ssim", ""),
    "pose": ("pose_deg", "°"),
    "expression": ("expression", ""),
    "expression_from_truth": ("expression_from_truth", ""),
    "retrieved": ("retrieval", ""),
    "source_like": ("strength", ""),
    "similarity": ("similarity", ""),
    "flicker": ("flicker", ""),
}
"""A score's name here → as a figure, and its unit."""

_OF_A_PICTURE = ("psnr", "ssim", "expression_from_truth")
"""What compares with the truth: it says nothing of the truth itself."""

_PICK: dict[str, Callable[..., float]] = {
    **dict.fromkeys(("psnr", "ssim", "retrieved", "source_like", "similarity"), max),
    **dict.fromkeys(("pose", "expression", "expression_from_truth"), min),
}
"""Which floor is the best one; of flicker none, since what never changes does not flicker."""


def same(value: Doubles) -> Doubles:
    """A figure that is a mean."""
    return value


def over_best(value: Doubles, *floors: Doubles) -> Doubles:
    """By how much a mean is over the best of some."""
    over: Doubles = value - np.max(np.stack(floors), axis=0)
    return over


def ratio_of(first: Doubles, second: Doubles) -> Doubles:
    """One mean over another."""
    ratio: Doubles = first / np.maximum(second, 1e-9)
    return ratio


def _crops(frames: Sequence[Pixels] | Pixels, points: Floats, size: int) -> Pixels:
    return np.stack(
        [aligned(frame, five, size) for frame, five in zip(frames, points, strict=True)]
    )


def _upright(landmarks: Floats, points: Floats) -> Doubles:
    """Landmarks (N, 70, 2) of aligned faces, in units of the crop's side."""
    return apply(crop_from_image(points, TEMPLATE, 1), landmarks)


def _turn(read: Floats, true: Floats) -> Doubles:
    """How far angles (T, 3) are off, (T,): the mean over the three, the short way round."""
    off = (read.astype(np.float64) - true + 180) % 360 - 180
    mean: Doubles = np.abs(off).mean(1)
    return mean


def _mask(size: int) -> Floats:
    """A soft oval over the inner face."""
    return ellipse(size, (0.5, 0.5), (0.38, 0.48), 0.3)


def _gain(crop: Pixels, target: Pixels) -> Doubles:
    """What brings the mean colour (3,) of an aligned face to the target's."""
    ours, theirs = _mean_colour(crop), _mean_colour(target)
    gain: Doubles = np.clip(theirs / np.maximum(ours, 1e-9), 0.1, 10)
    return gain


def _mean_colour(crop: Pixels) -> Doubles:
    """The mean (3,) of an aligned face's pixels."""
    mask = _mask(len(crop)).astype(np.float64)[..., None]
    mean: Doubles = (crop * mask).sum((0, 1)) / mask.sum()
    return mean


def _box(points: Floats) -> Floats:
    """A face's box by its five points, as wide as in ArcFace's crop."""
    side = 112 / _EYES * float(np.linalg.norm(points[1] - points[0]))
    middle = points.mean(0)
    return np.concatenate([middle - side / 2, middle + side / 2]).astype(np.float32)


_EYES = 112 * float(TEMPLATES["arcface"][1, 0] - TEMPLATES["arcface"][0, 0])
