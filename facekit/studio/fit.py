"""From a track of landmarks to a performance: pose, framing, gaze and face units.

The studio's own head gives the landmarks' places at rest, how people differ in them and how each
face unit moves them. Pose and framing (Gauss-Newton), face units (bounded least squares, smooth
in time) and, where the person is unknown, the face's shape are solved for in turn.
"""

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from facekit.core.errors import FacekitError
from facekit.studio import basis, eyes
from facekit.studio.basis import LEFT_EYE, RIGHT_EYE, Array
from facekit.studio.landmarks import landmarks
from facekit.studio.performance import FACE_UNITS
from facekit.studio.rotations import rotations
from facekit.studio.scene import SENSOR

if TYPE_CHECKING:
    from facekit.studio.person import Person

log = logging.getLogger("facekit")

MAX_SIZE = 8192
FEWEST = 12
"""Points that must be seen in each frame."""

DISTANCE = 11.0
"""Assumed, in dm: a picture alone does not tell a near camera from a long lens."""

UNITS = [u for u in FACE_UNITS if not u.startswith(("eyeLook", "tongue", "cheekPuff"))]
"""The face units that landmarks show; eyes' own are in the gaze."""

_PIVOT = np.array([0.0, -1.26, -0.92])  # Of the head on the neck, from between the eyes, in dm.
_ROUNDS = 10
_PEOPLE = 64  # Of whose faces the shapes' average and variation are taken.
_SHAPES = 16

# Standard deviations, of what is measured in shares of the distance between the eyes.
_MEASURED = 0.012
_TURN_STEP, _SHIFT_STEP, _FOCAL = 3.0, 0.15, 0.03
# Of a coefficient, and of its change within 40 ms; faces seldom use those not named here.
_USED = {"jawOpen": (0.5, 0.16), "mouthClose": (0.4, 0.16), "eyeBlink": (0.7, 0.5)}
_USED |= {"mouthSmile": (0.5, 0.06), "cheekSquint": (0.3, 0.05), "eyeSquint": (0.3, 0.06)}
_USED |= {"brow": (0.4, 0.07), "eyeWide": (0.3, 0.06)}
_USED |= dict.fromkeys(("mouthFunnel", "mouthPucker", "mouthStretch"), (0.35, 0.1))
_USED |= dict.fromkeys(("mouthUpperUp", "mouthLowerDown"), (0.3, 0.1))
_SELDOM = (0.18, 0.06)


@dataclass(frozen=True)
class Fit:
    """What a track shows.

    Attributes:
        tracks: field of a performance or face unit → (T,).
        times: (T,) in seconds.
        points: (T, 68, 2) the fitted landmarks in pixels.
        error: root mean square distance of fitted from seen landmarks, as a share of the
            distance between the eyes.
        shape: (S,) by how many standard deviations the face differs from the average; empty for a
            known person.
        views: (T, 6): yaw, pitch, roll in degrees, the middle between the eyes at rest in pixels,
            and the logarithm of the focal length in pixels.
        units: (T, U) in [0, 1], of :data:`UNITS`.
        gaze: (T, 2) in degrees.
    """

    tracks: dict[str, Array]
    times: Array
    points: Array
    error: float
    shape: Array
    views: Array
    units: Array
    gaze: Array


@dataclass(frozen=True)
class _Face:
    """Places from between the eyes, in dm: 68 landmarks, then the eyeballs' centres.

    Attributes:
        rest: (70, 3).
        shapes: (S, 70, 3) by which people differ, each times one standard deviation.
        radius: of an eyeball.
        level: how far up, in degrees, the irises lie at rest.
    """

    rest: Array
    shapes: Array
    radius: float
    level: float


def fit(
    track: Array,
    times: Array | None = None,
    size: int = 256,
    person: "Person | None" = None,
    *,
    apart: bool = False,
) -> Fit:
    """Fit a track; see :meth:`facekit.studio.performance.Performance.from_landmarks`.

    Args:
        track: as there, like the next three.
        times: in seconds.
        size: the picture's side in pixels.
        person: whose landmarks they are, if that is known.
        apart: whether these are photos of one person that do not follow each other.

    Raises:
        FacekitError: for another shape, too few points in a frame, or a size or times out of range.
    """
    track, times = _checked(track, times, size)
    face = _of(person.model_dump_json()) if person is not None else _average()
    moves = _moves()
    seen = np.asarray(np.isfinite(track[:, :68]).all(2))
    wanted = np.where(seen[..., None], track[:, :68], 0.0)
    unit = between_eyes(track[:, :68])
    # Nothing binds what comes an hour later.
    step = np.full(len(track), 3600.0) if apart else np.diff(times, prepend=times[0] - 0.04)

    units: Array = np.zeros((len(track), len(UNITS)))
    shape: Array = np.zeros(len(face.shapes))
    view = _start(face.rest[:68], wanted, seen, unit)
    gaze: Array = np.zeros((len(track), 2))
    for turn in range(_ROUNDS):
        rest = face.rest + np.tensordot(shape, face.shapes, 1)
        lids = _lids(gaze)
        placed = rest[:68] + np.tensordot(units, moves, 1) + lids
        weight = _weight(_project(placed, view) - wanted, seen, unit)
        view = _posed(placed, view, wanted, weight, unit, smooth=not apart)
        if track.shape[1] == 70:
            gaze = _gaze(rest[68:], face, view, track[:, 68:])
            placed += _lids(gaze) - lids
        units = _expressed(placed, view, wanted, weight, units, moves, step, unit)
        if len(shape) and turn:
            placed = rest[:68] + np.tensordot(units, moves, 1) + _lids(gaze)
            shape = _shaped(placed, view, wanted, weight, shape, face.shapes[:, :68], unit)
    rest = face.rest + np.tensordot(shape, face.shapes, 1)
    placed = rest[:68] + np.tensordot(units, moves, 1) + _lids(gaze)
    weight = _weight(_project(placed, view) - wanted, seen, unit)
    view = _posed(placed, view, wanted, weight, unit, smooth=not apart)
    points = _project(placed, view)
    off = np.linalg.norm(points - wanted, axis=2) / unit
    error = float(np.sqrt((off[seen] ** 2).mean()))
    log.info("fitted %d frames; landmarks differ by %.3f of the eyes' distance", len(track), error)
    tracks: dict[str, Array] = {name: units[:, i] for i, name in enumerate(UNITS)}
    tracks |= {
        "yaw": np.clip(view[:, 0], -90, 90),
        "pitch": np.clip(view[:, 1], -60, 60),
        "roll": np.clip(view[:, 2], -60, 60),
        "centre_x": np.clip(view[:, 3] / size, 0, 1),
        "centre_y": np.clip(view[:, 4] / size, 0, 1),
        "focal": np.clip(np.exp(view[:, 5]) / size * SENSOR, 5, 1000),
        "distance": np.full(len(track), DISTANCE),
        "gaze_x": gaze[:, 0],
        "gaze_y": gaze[:, 1],
    }
    return Fit(tracks, times, points, error, shape, view, units, gaze)


def points_of(shape: Array, units: Array, gaze: Array, views: Array) -> Array:
    """Where the landmarks of a face lie that moves so: the inverse of :func:`fit`.

    Args:
        shape: (S,), of a person who was not known.
        units: (T, U).
        gaze: (T, 2) in degrees.
        views: (T, 6).

    Returns:
        (T, 70, 2) in pixels: iBUG-68 and the irises' centres.
    """
    face, moves = _average(), _moves()
    rest = face.rest + np.tensordot(shape, face.shapes, 1)
    placed = rest[:68] + np.tensordot(units, moves, 1) + _lids(gaze)
    x, y = np.radians(gaze * eyes.TURN + [0, face.level]).T
    towards = np.stack([np.sin(x) * np.cos(y), np.sin(y), np.cos(x) * np.cos(y)], 1)
    irises = rest[68:] + face.radius * towards[:, None]
    return _project(np.concatenate([placed, irises], 1), views)


def _checked(track: Array, times: Array | None, size: int) -> tuple[Array, Array]:
    try:
        track = np.array(track, np.float64)
    except (TypeError, ValueError):
        raise FacekitError("the landmark track is no array of numbers (T, 68, 2)") from None
    if track.ndim != 3 or track.shape[1] not in (68, 70) or track.shape[2] != 2:
        raise FacekitError(
            f"a landmark track of shape {track.shape}; allowed: (T, 68, 2) or (T, 70, 2), "
            "iBUG-68 and the irises' centres, in pixels"
        )
    if not len(track):
        raise FacekitError("a landmark track of no frames; give at least one")
    if not 16 <= size <= MAX_SIZE:
        raise FacekitError(f"size {size}: allowed are 16 to {MAX_SIZE} pixels")
    track[~np.isfinite(track).all(2)] = np.nan
    if np.nanmax(np.abs(track), initial=0) > 100 * size:
        raise FacekitError(
            f"landmarks lie beyond 100 pictures of {size} pixels; give --size the picture's side"
        )
    count = np.isfinite(track[:, :68, 0]).sum(1)
    few = np.flatnonzero(count < FEWEST)
    if len(few):
        raise FacekitError(
            f"frame {few[0]} of the track has {count[few[0]]} points ({len(few)} such frames); at "
            f"least {FEWEST} must be seen in each: cut those frames out and pass 'times'"
        )
    flat = np.flatnonzero(np.nanstd(track[:, :68], axis=1).max(1) < 1e-3 * size)
    if len(flat):
        raise FacekitError(f"frame {flat[0]} of the track: all points lie in one place")
    if times is None:
        return track, np.arange(len(track)) / 25
    times = np.asarray(times, np.float64)
    if times.shape != (len(track),) or not np.isfinite(times).all():
        raise FacekitError(f"times of shape {times.shape}; allowed: ({len(track)},) finite seconds")
    if (np.diff(times) <= 0).any():
        raise FacekitError("times must increase from frame to frame")
    return track, times


def _places(head: Array) -> tuple[Array, float]:
    """Landmarks and eyeballs (70, 3) of a head at rest, from between the eyes; a ball's radius."""
    base = basis.load()
    centres, radii = [], []
    for eye in (RIGHT_EYE, LEFT_EYE):  # The person's own right eye is on the picture's left.
        ball = head[np.unique(base.triangles[base.materials == eye])]
        centres.append(ball.mean(0))
        radii.append(np.linalg.norm(ball - centres[-1], axis=1).mean())
    middle = np.mean(centres, axis=0) + np.array([0, 0, 0.1])
    return np.concatenate([landmarks(head), centres]) - middle, float(np.mean(radii))


@lru_cache(maxsize=4)
def _of(person_json: str) -> _Face:
    from facekit.studio.person import neutral

    head = neutral(person_json)
    rest, radius = _places(head)
    return _Face(rest, np.zeros((0, 70, 3)), radius, eyes.level(head))


@lru_cache(maxsize=1)
def _average() -> _Face:
    """The mean of studio people, and the principal components of their differences."""
    from facekit.studio.person import Person, neutral

    heads = [neutral(Person.sample(i).model_dump_json()) for i in range(_PEOPLE)]
    found = [_places(head) for head in heads]
    level = float(np.mean([eyes.level(head) for head in heads]))
    places = np.stack([place for place, _ in found])
    mean = places.mean(0)
    _, strengths, ways = np.linalg.svd((places - mean).reshape(_PEOPLE, -1), full_matrices=False)
    deviations = strengths[:_SHAPES] / np.sqrt(_PEOPLE - 1)
    shapes = (ways[:_SHAPES] * deviations[:, None]).reshape(_SHAPES, 70, 3)
    return _Face(mean, shapes, float(np.mean([radius for _, radius in found])), level)


@lru_cache(maxsize=1)
def _moves() -> Array:
    """How each of ``UNITS`` moves the landmarks (U, 68, 3)."""
    base = basis.load()
    return np.stack([landmarks(base.targets[base.index[name]]) for name in UNITS])


@lru_cache(maxsize=1)
def _lid_moves() -> tuple[Array, Array]:
    """How eyes that look up, and down, as far as lids follow, move their landmarks (68, 3)."""
    base = basis.load()
    units = (eyes.lids(eyes.HIGHEST), eyes.lids(-eyes.LOWEST))
    up, down = (landmarks(base.displaced(coefficients)) for coefficients in units)
    return up, down


def _lids(gaze: Array) -> Array:
    """The lids go with the eyes, as the renderer has it: (T, 68, 3)."""
    up, down = _lid_moves()
    high = gaze[:, 1, None, None]
    moved: Array = (
        np.clip(high / eyes.HIGHEST, 0, 1) * up + np.clip(-high / eyes.LOWEST, 0, 1) * down
    )
    return moved


def between_eyes(track: Array) -> float:
    """The median distance in pixels between the middles of the lids, of (T, 68 or 70, 2).

    NaN stands for what was not seen; where no eye was, it is a guess from the extent.
    """
    left, right = np.nanmean(track[:, 36:42], 1), np.nanmean(track[:, 42:48], 1)
    apart = np.linalg.norm(right - left, axis=1)
    if np.isfinite(apart).any():
        return float(np.nanmedian(apart))
    spread: float = 0.8 * float(np.nanmedian(np.nanstd(track, axis=1).max(1)))
    return spread


def _project(placed: Array, view: Array) -> Array:
    """Places (T, P, 3) in a view (T, 6: angles, centre in pixels, log focal) to pixels."""
    seen = _carried(placed, view)
    scale = np.exp(view[:, 5])[:, None] / (DISTANCE - seen[..., 2])
    x = view[:, 3, None] + scale * seen[..., 0]
    y = view[:, 4, None] - scale * seen[..., 1]
    return np.stack([x, y], -1)


def _carried(placed: Array, view: Array) -> Array:
    """The head turns about its place on the neck."""
    turned = rotations(view[:, :3])
    carried: Array = np.einsum("tij,tpj->tpi", turned, placed - _PIVOT) + _PIVOT
    return carried


def _weight(off: Array, seen: NDArray[np.bool_], unit: float) -> Array:
    """1 / variance (T, P), less for points far off (Huber 1964)."""
    far = np.linalg.norm(off, axis=2) / (_MEASURED * unit)
    weight: Array = seen / np.maximum(far / 4, 1) / (_MEASURED * unit) ** 2
    return weight


def _start(rest: Array, wanted: Array, seen: NDArray[np.bool_], unit: float) -> Array:
    """The best of several turns of the head at rest, for each frame (T, 6)."""
    count = len(wanted)
    weight = seen / (_MEASURED * unit) ** 2
    views, misses = [], []
    for yaw in (-45.0, 0.0, 45.0):
        view: Array = np.zeros((count, 6))
        view[:, 0] = yaw
        placed = np.broadcast_to(rest, (count, 68, 3))
        spread_wanted, middle_wanted = _spread(wanted, seen)
        view[:, 5] = np.log(DISTANCE)
        spread, _ = _spread(_project(placed, view), seen)
        view[:, 5] += np.log(spread_wanted / spread)
        _, middle = _spread(_project(placed, view), seen)
        view[:, 3:5] += middle_wanted - middle
        for _ in range(6):
            view = _posed(placed, view, wanted, weight, unit, smooth=False)
        off = _project(placed, view) - wanted
        views.append(view)
        misses.append((weight[..., None] * off**2).sum((1, 2)))
    best = np.argmin(misses, 0)
    chosen: Array = np.stack(views)[best, np.arange(count)]
    return chosen


def _spread(points: Array, seen: NDArray[np.bool_]) -> tuple[Array, Array]:
    share = (seen / seen.sum(1, keepdims=True))[..., None]
    middle = (share * points).sum(1)
    spread: Array = np.sqrt((share * (points - middle[:, None]) ** 2).sum((1, 2)))
    return spread, middle


def _posed(
    placed: Array, view: Array, wanted: Array, weight: Array, unit: float, smooth: bool = True
) -> Array:
    """One Gauss-Newton step of each frame's view, drawn towards its neighbours."""
    at = _project(placed, view)
    small = np.array([0.05, 0.05, 0.05, 0.1, 0.1, 1e-3])
    columns = []
    for i in range(6):
        moved = view.copy()
        moved[:, i] += small[i]
        columns.append((_project(placed, moved) - at) / small[i])
    slopes = np.stack(columns, -1)  # (T, P, 2, 6)
    normal = np.einsum("tp,tpci,tpcj->tij", weight, slopes, slopes)
    pull = np.einsum("tp,tpci,tpc->ti", weight, slopes, wanted - at)
    normal += 1e-6 * np.einsum("tii->ti", normal)[..., None] * np.eye(6)
    # Heads seldom come nearer: the focal length stays near the clip's.
    firm = np.array([0, 0, 0, 0, 0, 1 / _FOCAL**2])
    goal = np.tile(np.median(view, 0), (len(view), 1))
    if smooth and len(view) > 2:
        steps = np.array([_TURN_STEP] * 3 + [_SHIFT_STEP * unit] * 2 + [_FOCAL])
        firm[:5] = 2 / steps[:5] ** 2
        padded = np.concatenate([view[:1], view, view[-1:]])
        goal[:, :5] = (padded[:-2, :5] + padded[2:, :5]) / 2
    normal += np.diag(firm + 1e-12)
    pull += firm * (goal - view)
    move = np.linalg.solve(normal, pull[..., None])[..., 0]
    move[:, :3] = np.clip(move[:, :3], -15, 15)
    move[:, 5] = np.clip(move[:, 5], -0.3, 0.3)
    result: Array = view + move
    result[:, :2] = np.clip(result[:, :2], -85, 85)
    return result


def _slopes(placed: Array, view: Array) -> Array:
    """How a pixel moves with a place on the head (T, P, 2, 3)."""
    seen = _carried(placed, view)
    turned = rotations(view[:, :3])
    depth = DISTANCE - seen[..., 2]
    scale = np.exp(view[:, 5])[:, None] / depth
    rows = []
    for axis, sign in ((0, 1.0), (1, -1.0)):
        along = turned[:, None, axis] + (seen[..., axis] / depth)[..., None] * turned[:, None, 2]
        rows.append(sign * scale[..., None] * along)
    return np.stack(rows, 2)


def _expressed(
    placed: Array,
    view: Array,
    wanted: Array,
    weight: Array,
    units: Array,
    moves: Array,
    step: Array,
    unit: float,
) -> Array:
    """Coefficients (T, U) in [0, 1]: least squares with a prior, smooth in time."""
    count, width = units.shape
    normal = np.empty((count, width, width))
    pull = np.empty((count, width))
    for first in range(0, count, 256):  # A long clip's slopes do not fit in memory at once.
        part = slice(first, first + 256)
        slopes = np.einsum(
            "tpcx,upx->tpcu", _slopes(placed[part], view[part]), moves, optimize=True
        )
        off = wanted[part] - _project(placed[part], view[part])
        off += np.einsum("tpcu,tu->tpc", slopes, units[part])
        flat = slopes.reshape(len(slopes), -1, width)
        heavy = np.repeat(weight[part], 2, axis=1)[..., None]
        normal[part] = np.swapaxes(flat, 1, 2) @ (heavy * flat)
        pull[part] = (np.swapaxes(flat, 1, 2) @ (heavy * off.reshape(len(off), -1, 1)))[..., 0]
    usual, steps = np.array([_habit(name) for name in UNITS]).T
    normal += np.diag(1 / usual**2)
    # The longer the time between two frames, the less they bind each other.
    bound = 1 / (steps**2 * np.maximum(step[1:, None] / 0.04, 1e-3))
    return _bounded(normal, pull, bound, units)


def _habit(unit: str) -> tuple[float, float]:
    return next((habit for name, habit in _USED.items() if unit.startswith(name)), _SELDOM)


def _bounded(normal: Array, pull: Array, bound: Array, start: Array) -> Array:
    """FISTA (Beck & Teboulle 2009): ½xᵀNx − pᵀx + ½Σ bound·(x_t − x_{t−1})², 0 ≤ x ≤ 1."""
    sides = np.zeros_like(start)
    sides[1:] += bound
    sides[:-1] += bound
    # Row sums bound the curvature along each coordinate, so that each takes its own step.
    curved = np.stack([np.abs(one).sum(1) for one in normal])  # one by one: a long clip's are many
    rate = 1 / (curved + 2 * sides)
    x = start.copy()
    ahead, pace = x.copy(), 1.0
    for _ in range(120):
        slope = (normal @ ahead[..., None])[..., 0] - pull
        jump = bound * (ahead[1:] - ahead[:-1])
        slope[1:] += jump
        slope[:-1] -= jump
        following = np.clip(ahead - rate * slope, 0, 1)
        faster = (1 + np.sqrt(1 + 4 * pace * pace)) / 2
        ahead = following + (pace - 1) / faster * (following - x)
        x, pace = following, faster
    return x


def _shaped(
    placed: Array,
    view: Array,
    wanted: Array,
    weight: Array,
    shape: Array,
    shapes: Array,
    unit: float,
) -> Array:
    """The face's shape (S,), one for all frames, in standard deviations."""
    # Some frames tell as much as all.
    few = np.unique(np.linspace(0, len(placed) - 1, 200).astype(int))
    slopes = np.einsum("tpcx,spx->tpcs", _slopes(placed[few], view[few]), shapes, optimize=True)
    off = wanted[few] - _project(placed[few], view[few])
    off += np.einsum("tpcs,s->tpc", slopes, shape)
    # Errors of one clip are alike from frame to frame: no more than ten frames' worth of proof.
    weight = weight[few] * min(1.0, 10 / len(few))
    normal = np.einsum("tp,tpci,tpcj->ij", weight, slopes, slopes) + np.eye(len(shape))
    pull = np.einsum("tp,tpci,tpc->i", weight, slopes, off)
    return np.clip(np.linalg.solve(normal, pull), -3, 3)


def _gaze(balls: Array, face: _Face, view: Array, irises: Array) -> Array:
    """Gaze (T, 2) in degrees from the irises' centres (T, 2, 2) in pixels."""
    placed = np.broadcast_to(balls, (len(view), 2, 3))
    centre = _carried(placed, view)
    # The iris lies about a radius nearer than the ball's centre.
    scale = np.exp(view[:, 5])[:, None] / (DISTANCE - centre[..., 2] - 0.9 * face.radius)
    x = (irises[..., 0] - view[:, 3, None]) / scale - centre[..., 0]
    y = -(irises[..., 1] - view[:, 4, None]) / scale - centre[..., 1]
    out = np.clip(np.stack([x, y], -1) / face.radius, -0.99, 0.99)
    ahead = np.sqrt(np.clip(1 - (out**2).sum(-1), 0.02, 1))
    towards = np.concatenate([out, ahead[..., None]], -1)
    both = np.isfinite(towards).all(-1)[..., None]
    towards = np.where(both, towards, 0).sum(1)
    unseen = ~both.any((1, 2))
    own = np.einsum("tji,tj->ti", rotations(view[:, :3]), towards)
    gaze = np.degrees(
        [np.arctan2(own[:, 0], own[:, 2]), np.arctan2(own[:, 1], np.hypot(own[:, 0], own[:, 2]))]
    ).T
    if unseen.all():
        return np.zeros_like(gaze)
    gaze = (gaze - [0, face.level]) / eyes.TURN
    index = np.arange(len(gaze))
    for axis in (0, 1):
        gaze[unseen, axis] = np.interp(index[unseen], index[~unseen], gaze[~unseen, axis])
    return np.clip(gaze, [-38, -28], [38, 28])
