"""How exactly the face stage reads faces, and how well it knows people again.

Measured on people whom no network of the stage has seen: studio people of a seed of their own, and
the London Set, if it is there. Beside each figure stand a peer (MTCNN's own five points; an outside
judge of identity) and a floor: what something trivial reaches on the same faces.

Errors of points are distances as shares of that between the outer eye corners. Intervals draw
whole people; see :mod:`facekit.faces.verification`.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from facekit.core.figures import Figure
from facekit.core.progress import progress
from facekit.datasets import london
from facekit.faces.align import align_faces, apply, crop_from_image, invert
from facekit.faces.embed import Embedder
from facekit.faces.landmarks import Landmarker
from facekit.faces.locate import Locator
from facekit.faces.verification import Pairs, found_first, interval
from facekit.studio.audit import CROP, Embed, is_found
from facekit.studio.performance import FACE_UNITS
from facekit.types import Face, Floats, Landmarks, Pixels

log = logging.getLogger("facekit")

Values = NDArray[np.float64]
People = NDArray[np.int64]
"""Whose face each is, (N,), from 0."""

SEVEN = (36, 39, 42, 45, 30, 48, 54)
"""Of the 70 points: the eyes' corners, the tip of the nose, the mouth's corners; London's order."""

OUTER = (36, 45)
"""The outer eye corners."""

EYES = (36, 42)
"""Where the six points of each eye begin."""

_TEMPLATE = "wide"  # in which shapes are averaged
# The studio turns eyes by its gaze; its labels of the eyeLook units are 0.
_LABELLED = [i for i, unit in enumerate(FACE_UNITS) if not unit.startswith("eyeLook")]
_MOVED = 0.02  # standard deviation from which on a unit's values can be correlated
_AHEAD = 40.0  # degrees of yaw beyond which an eye's width says nothing of its opening
_AT_ONCE = 16


@dataclass(frozen=True)
class Networks:
    """What is measured, and the judge of identity beside it, if there is one."""

    device: torch.device
    locator: Locator
    landmarker: Landmarker
    embedder: Embedder
    judge: Embed | None = None


@dataclass(frozen=True)
class Look:
    """What is seen of one photo.

    Attributes:
        person: whose it is, from 0.
        located: what MTCNN says.
        face: the same with landmarks.
        own, outside: the face's crops for the embedder and for the judge.
    """

    person: int
    located: Face
    face: Face
    own: Pixels
    outside: Pixels

    @property
    def read(self) -> Landmarks:
        """The landmarks."""
        assert self.face.landmarks is not None
        return self.face.landmarks


def look(networks: Networks, person: int, pixels: Pixels, located: Face) -> Look:
    """Read one located face and cut its crops."""
    # As the stage reads photos.
    ((face,),) = networks.landmarker.read([pixels], [[located]], mirrored=True)
    templates = ((networks.embedder.template, networks.embedder.size), ("arcface", CROP))
    own, outside = (
        align_faces(pixels, [face], template=template, size=size, device=networks.device)[0].pixels
        for template, size in templates
    )
    return Look(person, located, face, own, outside)


# --- studio people ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """What is known of N studio photos: as items of StudioFaces have it, stacked."""

    points: Floats  # (N, 5, 2)
    landmarks: Floats  # (N, 70, 2)
    pose: Floats  # (N, 3)
    expression: Floats  # (N, 52)


def studio_rows(
    networks: Networks, photos: Dataset[dict[str, torch.Tensor]], count: int
) -> tuple[list[Figure], Floats]:
    """The figures on studio people, and the mean shape of their faces for :func:`placed`.

    Args:
        networks: to measure.
        photos: items of :class:`facekit.datasets.studio.StudioFaces`.
        count: how many there are.

    Returns:
        Rows ``faces.studio_…``, and the mean shape, float32 (70, 2).
    """
    looks: list[Look] = []
    items: list[dict[str, NDArray[np.float32]]] = []
    with progress("reading studio people", count) as advance:
        for start in range(0, count, _AT_ONCE):
            part = [photos[i] for i in range(start, min(start + _AT_ONCE, count))]
            pictures = [_pixels(item["image"]) for item in part]
            for item, pixels, faces in zip(
                part, pictures, networks.locator.locate(pictures), strict=True
            ):
                marks, five = item["landmarks"].numpy(), item["points"].numpy()
                box = np.concatenate([marks[:68].min(0), marks[:68].max(0)])
                found = next((face for face in faces if is_found(face, box, five)), None)
                if found is None:
                    continue
                looks.append(look(networks, int(item["person"]), pixels, found))
                items.append({name: value.numpy() for name, value in item.items()})
            advance(start + len(part), "")
    truth = Truth(
        *(
            np.stack([item[name] for item in items])
            for name in ("points", "landmarks", "pose", "expression")
        )
    )
    shape = mean_shape(truth)
    whose = np.array([one.person for one in looks], np.int64)
    rows = [
        Figure("faces.studio_located", len(looks) / count),
        *_studio_points(looks, truth, shape, whose),
        *_studio_facts(looks, truth, whose),
        *_studio_deviations(looks, truth, whose),
        *_verification("faces.studio_auc", networks, looks),
    ]
    return [row for row in rows if np.isfinite(row.value)], shape


def mean_shape(truth: Truth) -> Floats:
    """The mean of faces that were brought to one template by their five points, (70, 2)."""
    matrices = crop_from_image(truth.points, _TEMPLATE, 1)
    return np.asarray(apply(matrices, truth.landmarks).mean(0), np.float32)


def placed(shape: Floats, points: Floats) -> Floats:
    """The floor: the mean face where five points (..., 5, 2) say that a face is, (..., 70, 2)."""
    matrices = crop_from_image(points, _TEMPLATE, 1)
    return np.asarray(apply(invert(matrices), shape), np.float32)


def point_errors(points: Floats, truth: Floats, between: Floats) -> Values:
    """Mean distance of points (N, K, 2) from the truth, in units of ``between`` (N,): (N,)."""
    off = np.linalg.norm(points.astype(np.float64) - truth, axis=2).mean(1)
    return np.asarray(off / between, np.float64)


def openness(points: Floats) -> Values:
    """How far both eyes are open, from points (N, 70, 2): (N, 2).

    The mean distance of the lids over the eye's width (Soukupová & Čech, 2016).
    """
    eyes = []
    for first in EYES:
        corner, a, b, other, c, d = (points[:, first + i].astype(np.float64) for i in range(6))
        lids = np.linalg.norm(a - d, axis=1) + np.linalg.norm(b - c, axis=1)
        eyes.append(lids / 2 / np.linalg.norm(corner - other, axis=1))
    return np.stack(eyes, 1)


def _in_boxes(looks: Sequence[Look], points: Floats) -> Floats:
    """The mean of true points (N, K, 2) within the located boxes, put back into each of them."""
    boxes = np.stack([one.located.box for one in looks])[:, None]
    corner, sides = boxes[..., :2], boxes[..., 2:] - boxes[..., :2]
    return np.asarray(corner + sides * ((points - corner) / sides).mean(0), np.float32)


def _pixels(image: torch.Tensor) -> Pixels:
    """A data set's image (3, S, S) in [-1, 1] as uint8 (S, S, 3)."""
    scaled = ((image + 1) * 127.5).round().clamp(0, 255).byte()
    return np.ascontiguousarray(scaled.permute(1, 2, 0).numpy())


def _between(points: Floats, outer: tuple[int, int]) -> Floats:
    first, second = outer
    return np.asarray(np.linalg.norm(points[:, second] - points[:, first], axis=1), np.float32)


def _studio_points(
    looks: Sequence[Look], truth: Truth, shape: Floats, whose: People
) -> list[Figure]:
    read = np.stack([one.read.points for one in looks])
    located = np.stack([one.located.points for one in looks])
    followed = np.stack([one.face.points for one in looks])
    floor = placed(shape, located)
    between = _between(truth.landmarks, OUTER)
    seven = list(SEVEN)
    peer = point_errors(located, truth.points, between).mean()
    floor_five = point_errors(_in_boxes(looks, truth.points), truth.points, between).mean()

    def row(name: str, kept: list[int] | slice, peer: float | None) -> Figure:
        errors = point_errors(read[:, kept], truth.landmarks[:, kept], between)
        trivial = point_errors(floor[:, kept], truth.landmarks[:, kept], between)
        return _mean(name, errors, whose, peer=peer, floor=trivial.mean())

    return [
        row("faces.studio_nme", seven, float(peer)),
        row("faces.studio_nme_dense", slice(70), None),
        _mean(
            "faces.studio_nme_five",
            point_errors(followed, truth.points, between),
            whose,
            peer=float(peer),
            floor=float(floor_five),
        ),
    ]


def _studio_facts(looks: Sequence[Look], truth: Truth, whose: People) -> list[Figure]:
    """Pose, expression and eyes; the floor says the mean of all, whatever the face."""
    pose = np.array([one.read.pose for one in looks], np.float64)
    off = np.abs(pose - truth.pose)
    off = np.minimum(off, 360 - off).mean(1)
    trivial = np.abs(truth.pose - truth.pose.mean(0)).mean()
    rows = [_mean("faces.studio_pose_error", off, whose, unit="°", floor=float(trivial))]

    units = np.stack([one.read.expression for one in looks])[:, _LABELLED].astype(np.float64)
    true_units = truth.expression[:, _LABELLED]
    rows.append(
        _mean(
            "faces.studio_expression_error",
            np.abs(units - true_units).mean(1),
            whose,
            floor=float(np.abs(true_units - true_units.mean(0)).mean()),
        )
    )
    moved = true_units.std(0) > _MOVED
    rows.append(
        _drawn(
            "faces.studio_expression_correlation",
            lambda drawn: _correlation(units[drawn][:, moved], true_units[drawn][:, moved]),
            whose,
            floor=0.0,
        )
    )
    eyes = np.stack([one.read.eyes for one in looks])
    true_eyes = openness(truth.landmarks)
    ahead = np.abs(truth.pose[:, 0]) <= _AHEAD
    eyes, true_eyes, theirs = eyes[ahead], true_eyes[ahead], whose[ahead]
    rows.append(
        _drawn(
            "faces.studio_eyes_correlation",
            lambda drawn: _correlation(eyes[drawn].reshape(-1, 1), true_eyes[drawn].reshape(-1, 1)),
            theirs,
            floor=0.0,
        )
    )
    return rows


def _studio_deviations(looks: Sequence[Look], truth: Truth, whose: People) -> list[Figure]:
    """Whether the deviations are true: of normal errors 0.683 lie within one, 0.954 within two.

    The floor states one deviation for all points of all faces: the root mean square error.
    """
    off = np.stack([one.read.points for one in looks]).astype(np.float64) - truth.landmarks
    deviation = np.stack([one.read.deviation for one in looks]).astype(np.float64)
    common = np.sqrt((off**2).mean())
    rows = []
    for name, times in (("within_one", 1), ("within_two", 2)):
        inside = (np.abs(off) <= times * deviation[..., None]).mean((1, 2))
        trivial = (np.abs(off) <= times * common).mean()
        rows.append(_mean(f"faces.studio_deviation_{name}", inside, whose, floor=float(trivial)))
    errors = np.log(np.linalg.norm(off, axis=2).mean(1))
    stated = np.log(deviation.mean(1))
    rows.append(
        _drawn(
            "faces.studio_deviation_correlation",
            lambda drawn: _correlation(stated[drawn, None], errors[drawn, None]),
            whose,
            floor=0.0,
        )
    )
    return rows


# --- the London Set ---------------------------------------------------------------------------


def london_rows(
    networks: Networks, folder: Path, shape: Floats, most: int | None = None
) -> list[Figure]:
    """The figures on the London Set.

    Args:
        networks: to measure.
        folder: of the set.
        shape: the mean shape of studio faces, for the floor.
        most: how many people to look at; all by default.

    Raises:
        FacekitError: as :func:`facekit.datasets.london.read`.
    """
    subjects = london.read(folder, most)
    looks: list[tuple[Look, Look]] = []
    truth: list[tuple[Floats, Floats]] = []
    with progress("reading the London Set", len(subjects)) as advance:
        for i, subject in enumerate(subjects):
            photos = [subject.neutral, subject.smiling]
            faces = networks.locator.locate(photos)
            if all(faces):
                person = len(looks)
                first, second = (
                    look(networks, person, pixels, found[0])
                    for pixels, found in zip(photos, faces, strict=True)
                )
                looks.append((first, second))
                truth.append((subject.means(london.SEVEN), subject.means(london.FIVE)))
            else:
                log.info("London Set: no face found in a photo of %s", subject.name)
            advance(i + 1, "")
    if len(looks) < 2:
        log.warning("%s: faces of fewer than two people were found; its rows are left out", folder)
        return []
    neutral = [first for first, _ in looks]
    seven, five = (np.stack(points) for points in zip(*truth, strict=True))
    return [
        Figure("faces.london_located", len(looks) / len(subjects)),
        *_london_points(neutral, seven, five, shape),
        *_rank1(networks, looks),
        *_verification("faces.london_auc", networks, [one for pair in looks for one in pair]),
    ]


def _london_points(
    looks: Sequence[Look], seven: Floats, five: Floats, shape: Floats
) -> list[Figure]:
    whose = np.arange(len(looks))
    read = np.stack([one.read.points for one in looks])[:, SEVEN]
    located = np.stack([one.located.points for one in looks])
    followed = np.stack([one.face.points for one in looks])
    between = _between(seven, (0, 3))
    floor = placed(shape, located)[:, SEVEN]
    peer = float(point_errors(located, five, between).mean())
    floor_five = point_errors(_in_boxes(looks, five), five, between).mean()
    return [
        _mean(
            "faces.london_nme",
            point_errors(read, seven, between),
            whose,
            peer=peer,
            floor=float(point_errors(floor, seven, between).mean()),
        ),
        _mean(
            "faces.london_nme_five",
            point_errors(followed, five, between),
            whose,
            peer=peer,
            floor=float(floor_five),
        ),
    ]


def _rank1(networks: Networks, looks: Sequence[tuple[Look, Look]]) -> list[Figure]:
    """Who of all is the smiling person, among the neutral photos?"""
    neutral, smiling = ([pair[k] for pair in looks] for k in (0, 1))
    own = found_first(_own(networks, neutral), _own(networks, smiling))
    peer = None
    if networks.judge:
        peer = float(
            found_first(*(_outside(networks.judge, row) for row in (neutral, smiling))).mean()
        )
    floor = float(found_first(_greys(neutral), _greys(smiling)).mean())
    whose = np.arange(len(looks))
    return [_mean("faces.london_rank1", own.astype(np.float64), whose, peer=peer, floor=floor)]


# --- identity ---------------------------------------------------------------------------------


def _verification(name: str, networks: Networks, looks: Sequence[Look]) -> list[Figure]:
    """AUC of "is this the same person?" over all pairs of photos; the floor compares pixels."""
    whose = np.array([one.person for one in looks], np.int64)
    pairs = Pairs.of(_own(networks, looks), whose)
    if pairs is None:
        log.warning("too few faces were found to compare people; %s is left out", name)
        return []
    everyone = np.ones(whose.max() + 1, np.int64)
    peer = None
    if networks.judge and (judged := Pairs.of(_outside(networks.judge, looks), whose)):
        peer = float(judged.figures(everyone)[0])
    trivial = Pairs.of(_greys(looks), whose)
    low, high = interval(lambda counts: pairs.figures(counts)[:1], len(everyone))
    return [
        Figure(
            name,
            float(pairs.figures(everyone)[0]),
            low=low[0],
            high=high[0],
            peer=peer,
            floor=None if trivial is None else float(trivial.figures(everyone)[0]),
        )
    ]


def _own(networks: Networks, looks: Sequence[Look]) -> Floats:
    return networks.embedder.embed(np.stack([one.own for one in looks]))


def _outside(judge: Embed, looks: Sequence[Look]) -> Floats:
    return judge(np.stack([one.outside for one in looks]))


def _greys(looks: Sequence[Look]) -> Floats:
    """The floor's vectors: each crop's brightness less its mean, so that products correlate."""
    greys = np.stack([one.outside.astype(np.float32).mean(2).ravel() for one in looks])
    greys -= greys.mean(1, keepdims=True)
    return np.asarray(greys / np.maximum(np.linalg.norm(greys, axis=1, keepdims=True), 1e-6))


# --- rows -------------------------------------------------------------------------------------


def _mean(
    name: str,
    values: Values,
    whose: People,
    *,
    unit: str = "",
    peer: float | None = None,
    floor: float | None = None,
) -> Figure:
    """The mean of values (N,), with its interval."""
    return _drawn(
        name,
        lambda drawn: float(values[drawn].mean()),
        whose,
        unit=unit,
        peer=peer,
        floor=None if floor is None else float(floor),
    )


def _drawn(
    name: str,
    metric: Callable[[People], float],
    whose: People,
    *,
    unit: str = "",
    peer: float | None = None,
    floor: float | None = None,
) -> Figure:
    """A metric of drawn faces, given by their places (M,) in the list, with its interval."""
    faces = np.arange(len(whose))

    def value(counts: People) -> Values:
        drawn = np.repeat(faces, counts[whose])
        return np.array([metric(drawn) if len(drawn) else np.nan])

    (low,), (high,) = interval(value, int(whose.max()) + 1)
    return Figure(name, metric(faces), unit, low=low, high=high, peer=peer, floor=floor)


def _correlation(said: Values | Floats, true: Values | Floats) -> float:
    """The mean of the columns' (N, K) correlations (Pearson's); NaN if none varies."""
    a, b = said - said.mean(0), true - true.mean(0)
    scale = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    varies = scale > 1e-9
    return float(((a * b).sum(0)[varies] / scale[varies]).mean()) if varies.any() else float("nan")
