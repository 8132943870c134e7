"""Forgeries to test on, and never to train on.

A detector that is measured on forgeries of the code that made its training's is measured on what
that code does. So these are made another way, by code of their own: this module shares nothing with
``detectors.forgeries`` but libraries, no module of training imports it, and a test holds both to
that.

Three kinds, by what a forger does:

- ``splice``: the whole face of a donor. It is bent triangle by triangle (Delaunay's, of the
  landmarks) to the target's face, brought to its colours, and blended by Poisson's equation (Pérez
  et al., "Poisson Image Editing", SIGGRAPH 2003), with the donor's gradients or the stronger of
  both, or by a Laplacian pyramid (Burt & Adelson, "A Multiresolution Spline", ACM TOG 1983).
- ``part``: eyes, one eye, nose, mouth, eyes and nose, or the lower face of a donor, as someone at a
  photo editor does it: turned, scaled and put in place, painted in with a soft brush, the tone
  matched or not. It is resampled but once.
- ``warp``: nobody else's pixels; jaw, chin, nose, mouth's corners, brows or eyes of the face itself
  are pushed or swollen, as by a liquify tool.

Donors come from the target's own collection, and are turned, sized and coloured much alike, since a
forger takes what fits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from detectors.regions import Region
from facekit.core.errors import FacekitError, did_you_mean
from facekit.core.progress import log
from facekit.types import Face, Floats, Pixels

if TYPE_CHECKING:  # training's own module: nothing of it runs here
    from detectors.data import FaceSet

_Mask = NDArray[np.uint8]
_Picture = NDArray[np.float32]

_NEAREST = 8  # donors that are alike enough to be drawn from
_SIZE_COUNTS = 0.05  # a donor of twice the size counts as this far off in shape
_TONE_COUNTS = 0.3  # and one whose colour is off by all of its range as this far
_MOST_RATIO = 2.0  # of the two faces' sizes, unless no donor is nearer
_FOREHEAD = np.arange(17, 27)  # the brows' points, which stand for the forehead as well

_INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)

_EYES = {"left": [*range(36, 42), *range(17, 22)], "right": [*range(42, 48), *range(22, 27)]}
_NOSE = [*range(27, 36)]
PARTS: Mapping[str, Sequence[int]] = {
    "eyes": [*_EYES["left"], *_EYES["right"]],
    "left eye": _EYES["left"],
    "right eye": _EYES["right"],
    "nose": _NOSE,
    "mouth": [*range(48, 60)],
    "eyes and nose": [*_EYES["left"], *_EYES["right"], *_NOSE],
    "lower face": [*range(5, 12), *range(31, 36), *range(48, 60)],
}
"""What may be exchanged → the landmarks that it is placed by and whose hull it fills."""


def splices(
    face_set: "FaceSet", random: np.random.Generator, kinds: Sequence[str] = ("splice", "part")
) -> "FaceSet":
    """Forge each untouched face of a set, once in each kind.

    Args:
        face_set: faces of test people; those of label 1, and those whose landmarks are unread or
            doubtful, are left alone.
        random: what is drawn from; the same state makes the same forgeries.
        kinds: of :data:`KINDS`.

    Returns:
        The forgeries, label 1, with the subject, source and collection of their target, the
        donor's subject as ``donors`` ("" for a warp), and the kind as ``makers``.

    Raises:
        FacekitError: for an unknown kind, or if nothing can be forged: there is no untouched face
            with landmarks, or nobody else in the collection to be a donor.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise FacekitError(f"unknown kind of forgery '{kind}'; {did_you_mean(kind, KINDS)}")
    targets = [
        i
        for i, region in enumerate(face_set.regions)
        if face_set.labels[i] == 0 and _is_readable(region.face)
    ]
    people = _People(face_set, targets)
    made: list[Region] = []
    chosen: list[int] = []
    donors: list[str] = []
    makers: list[str] = []
    for kind in kinds:
        for i in targets:
            donor = None if kind == "warp" else people.donor(i, random)
            if kind != "warp" and donor is None:
                continue
            target = face_set.regions[i]
            other = target if donor is None else face_set.regions[donor]
            forged = KINDS[kind](target, other, random)
            if np.array_equal(forged.pixels, target.pixels):
                continue
            made.append(forged)
            chosen.append(i)
            donors.append("" if donor is None else face_set.subjects[donor])
            makers.append(kind)
    if not made:
        raise FacekitError(
            f"{len(targets)} untouched faces with landmarks, of whom no two are different people "
            "of one collection: there is nothing to forge; give more people"
        )
    if missing := len(targets) * len(kinds) - len(made):
        log.info(
            "%d forgeries not made: nobody else is in the collection, or too little of the face is "
            "in the picture",
            missing,
        )
    return replace(
        face_set.subset(chosen),
        regions=made,
        labels=np.ones(len(made), np.int64),
        donors=donors,
        makers=makers,
    )


def _is_readable(face: Face) -> bool:
    return face.landmarks is not None and face.landmarks.present


class _People:
    """Who can lend a face to whom."""

    def __init__(self, face_set: "FaceSet", members: Sequence[int]) -> None:
        self._members = np.array(members, np.int64)
        self._place = {i: k for k, i in enumerate(members)}
        regions = [face_set.regions[i] for i in members]
        shapes = np.array([_contours(region)[:68] for region in regions]).reshape(-1, 68, 2)
        shapes = np.ascontiguousarray(shapes, np.float64).view(np.complex128)[..., 0]
        shapes = shapes - shapes.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(shapes, axis=1, keepdims=True)
        self._shapes, self._sizes = shapes / lengths, np.log2(lengths[:, 0])
        self._tones = np.array([_tone(region) for region in regions]).reshape(-1, 3)
        self._subjects = np.array([face_set.subjects[i] for i in members])
        self._collections = np.array([face_set.collections[i] for i in members])

    def donor(self, target: int, random: np.random.Generator) -> int | None:
        """One of the faces that fit the target's best; None if nobody else is there."""
        k = self._place[target]
        may = self._collections == self._collections[k]
        may &= self._subjects != self._subjects[k]
        if not may.any():
            return None
        # Procrustes' distance: the absolute value is blind to a turn within the picture.
        alike = np.abs(self._shapes @ self._shapes[k].conj())
        larger = np.abs(self._sizes - self._sizes[k])
        off = np.sqrt(np.maximum(1 - alike, 0)) + _SIZE_COUNTS * larger
        off += _TONE_COUNTS * np.linalg.norm(self._tones - self._tones[k], axis=1)
        off[larger > np.log2(_MOST_RATIO)] += 1
        off[~may] = np.inf
        nearest = np.argsort(off, kind="stable")[: min(_NEAREST, int(may.sum()))]
        return int(self._members[random.choice(nearest)])


def _contours(region: Region) -> Floats:
    """The 70 landmarks of a region's face."""
    assert region.face.landmarks is not None  # _is_readable
    return region.face.landmarks.points


def _tone(region: Region) -> Floats:
    """The mean colour between brows and chin, in [0, 1]; grey where that is out of the picture."""
    height, width = region.pixels.shape[:2]
    points = _contours(region)[17:68]
    x0, y0 = np.clip(points.min(0), 0, [width, height]).astype(int)
    x1, y1 = np.clip(points.max(0), 0, [width, height]).astype(int)
    part = region.pixels[y0:y1, x0:x1].reshape(-1, 3)
    return np.asarray(part.mean(0) / 255 if len(part) else [0.5] * 3, np.float32)


def _between_eyes(points: Floats) -> float:
    """The distance from eye to eye, which brushes and pushes are measured by."""
    return float(np.linalg.norm(points[42:48].mean(0) - points[36:42].mean(0)))


# --- a whole face -----------------------------------------------------------------------------


def _spliced(target: Region, donor: Region, random: np.random.Generator) -> Region:
    to, of = _with_forehead(_contours(target)[:68]), _with_forehead(_contours(donor)[:68])
    layer = _bent(donor.pixels, of, to, target.pixels, random)
    # From brow to chin or less: a seam on the cheeks, at the jaw, or up on the forehead.
    reach = ("face", "mask", "forehead")[int(random.choice(3, p=[0.45, 0.25, 0.3]))]
    mask = _outline(to, reach, target.pixels.shape, random)
    layer = _recoloured(layer, target.pixels, mask, spread=random.random() < 0.7)
    way = random.random()
    if way < 0.45:
        pixels = _cloned(layer, target.pixels, mask, cv2.NORMAL_CLONE)
    elif way < 0.55:
        pixels = _cloned(layer, target.pixels, mask, cv2.MIXED_CLONE)
    else:
        pixels = _layered(layer, target.pixels, mask, levels=int(random.integers(2, 6)))
    return replace(target, pixels=pixels)


def _with_forehead(points: Floats) -> Floats:
    """68 points and ten more above the brows: float32 (78, 2)."""
    up = points[27] - points[8]
    return np.concatenate([points, points[_FOREHEAD] + np.float32(0.3) * up])


def _bent(
    pixels: Pixels, of: Floats, to: Floats, onto: Pixels, random: np.random.Generator
) -> _Picture:
    """``pixels`` with the points ``of`` moved ``to`` where another picture has them.

    Outside of all triangles it is ``onto``.
    """
    mesh = Delaunay(to)
    # Only the rectangle that the triangles lie in is worked on.
    height, width = onto.shape[:2]
    x0, y0 = np.clip(np.floor(to.min(0)), 0, [width, height]).astype(int)
    x1, y1 = np.clip(np.ceil(to.max(0)), 0, [width, height]).astype(int)
    y, x = np.mgrid[y0:y1, x0:x1]
    places = np.stack([x, y], -1).reshape(-1, 2) + 0.5
    triangle = mesh.find_simplex(places)
    inside = (triangle >= 0) & np.isfinite(mesh.transform[triangle]).all((1, 2))  # none flat
    # Barycentric coordinates in the target's triangle, then the donor's same corners.
    transform = mesh.transform[triangle[inside]]
    first = np.einsum("nij,nj->ni", transform[:, :2], places[inside] - transform[:, 2])
    shares = np.concatenate([first, 1 - first.sum(1, keepdims=True)], 1)
    maps = np.zeros((len(places), 2), np.float32)
    maps[inside] = np.einsum("nk,nkj->nj", shares, of[mesh.simplices[triangle[inside]]]) - 0.5
    how = int(random.choice(_INTERPOLATIONS))
    layer = onto.astype(np.float32)
    if inside.any():
        drawn = _looked_up(pixels, maps.reshape(y1 - y0, x1 - x0, 2), how)
        shown = inside.reshape(y1 - y0, x1 - x0)
        layer[y0:y1, x0:x1][shown] = drawn[shown]
    return layer


def _outline(to: Floats, reach: str, shape: Sequence[int], random: np.random.Generator) -> _Mask:
    """Where the donor's face goes: 255 inside, uint8 (H, W); a little within the face's edge."""
    if reach == "forehead":
        points = to
    elif reach == "face":
        points = to[:68]
    else:  # brows, cheeks' inner half and mouth
        middle = to[[33]]
        points = np.concatenate([to[17:27], middle + 0.7 * (to[2:15] - middle)])
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, _hull(points), 255)
    _clear_edges(mask)
    margin = random.uniform(0.02, 0.1) * _between_eyes(to)
    return _widened(mask, -margin)


def _cloned(layer: _Picture, onto: Pixels, mask: _Mask, way: int) -> Pixels:
    """Poisson's equation with the layer's gradients within the mask."""
    if not mask.any():
        return onto.copy()
    x, y, width, height = cv2.boundingRect(mask)
    # OpenCV puts the middle of the mask's rectangle there; so this is where it is already.
    centre = (x + width // 2, y + height // 2)
    return np.asarray(cv2.seamlessClone(_rounded(layer), onto, mask, centre, way), np.uint8)


def _layered(layer: _Picture, onto: Pixels, mask: _Mask, levels: int) -> Pixels:
    """A Laplacian pyramid: the coarser the detail, the wider the seam."""
    base = onto.astype(np.float32)
    change = layer - base
    share = mask.astype(np.float32) / 255
    # Blending is linear, so the pyramid of the difference alone says what to add.
    bands, shares = [], [share]
    for _ in range(levels):
        if min(change.shape[:2]) < 8:
            break
        small = np.asarray(cv2.pyrDown(change), np.float32)
        bands.append(change - cv2.pyrUp(small, dstsize=change.shape[1::-1]))
        change = small
        shares.append(np.asarray(cv2.pyrDown(shares[-1]), np.float32))
    total = np.asarray(change * shares.pop()[..., None], np.float32)
    for band, weight in zip(bands[::-1], shares[::-1], strict=True):
        coarse = cv2.pyrUp(total, dstsize=band.shape[1::-1])
        total = np.asarray(coarse + band * weight[..., None], np.float32)
    return _rounded(base + total)


# --- a part of a face -------------------------------------------------------------------------


def _exchanged(target: Region, donor: Region, random: np.random.Generator) -> Region:
    name = list(PARTS)[int(random.integers(len(PARTS)))]
    part = PARTS[name]
    to, of = _contours(target), _contours(donor)
    height, width = target.pixels.shape[:2]
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    back = _placing(to[part], of[part])  # each of the target's pixels looks up its place
    places = (np.stack([x, y, np.ones_like(x)], -1) @ back.T).astype(np.float32)
    how = int(random.choice(_INTERPOLATIONS[1:]))
    layer = _looked_up(donor.pixels, places - np.float32(0.5), how)
    there = ((places > 0) & (places < donor.pixels.shape[1::-1])).all(-1)
    unit = _between_eyes(to)
    mask = _painted(to[part], (height, width), unit, random)
    if name == "lower face":
        mask = np.minimum(mask, _face_of(to, (height, width), -0.06 * unit))
    mask = np.minimum(mask, _widened(np.where(there, np.uint8(255), np.uint8(0)), -0.05 * unit))
    matching = random.random()
    if matching < 0.75:
        layer = _recoloured(layer, target.pixels, mask, spread=matching < 0.25)
    hardness = random.uniform(0.02, 0.1) if random.random() < 0.85 else 0.005
    soft = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), max(hardness * unit, 0.5))
    share = soft * random.uniform(0.9, 1)  # a brush is seldom quite opaque
    onto = target.pixels.astype(np.float32)
    return replace(target, pixels=_rounded(onto + share[..., None] * (layer - onto)))


def _face_of(points: Floats, shape: tuple[int, int], by: float) -> _Mask:
    """The face's outline, grown by so many pixels: beyond it lie neck and background."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(mask, _hull(points[:27]), 255)
    return _widened(mask, by)


def _hull(points: Floats) -> NDArray[np.int32]:
    """The convex hull (K, 1, 2) of points, in whole pixels as OpenCV draws them."""
    return np.asarray(cv2.convexHull(np.round(points - 0.5).astype(np.int32)), np.int32)


def _placing(of: Floats, to: Floats) -> NDArray[np.float64]:
    """The similarity (2, 3) that brings points nearest to others, in least squares."""
    z, w = (
        np.ascontiguousarray(points, np.float64).view(np.complex128)[:, 0] for points in (of, to)
    )
    turn = ((z - z.mean()).conj() @ (w - w.mean())) / np.sum(np.abs(z - z.mean()) ** 2)
    shift = w.mean() - turn * z.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def _painted(
    points: Floats, shape: tuple[int, int], unit: float, random: np.random.Generator
) -> _Mask:
    """What a hand covers about points: their hull, and dabs of a round brush along its edge."""
    mask = np.zeros(shape, np.uint8)
    hull = _hull(points)
    cv2.fillConvexPoly(mask, hull, 255)
    mask = _widened(mask, random.uniform(0.08, 0.2) * unit)
    for corner in hull[:, 0]:
        if random.random() < 0.5:
            centre = corner + random.normal(0, 0.06 * unit, 2)
            radius = random.uniform(0.08, 0.18) * unit
            cv2.circle(mask, (round(centre[0]), round(centre[1])), round(radius), 255, -1)
    return mask


# --- one's own face, bent ---------------------------------------------------------------------

_PUSHES: Sequence[Sequence[Sequence[int]]] = (
    ((3, 4, 5), (11, 12, 13)),  # the jaw's sides
    ((8,),),  # the chin
    ((48,), (54,)),  # the mouth's corners
    ((31,), (35,)),  # the nose's wings
    ((19,), (24,)),  # the brows
)
"""Groups of landmarks, each with its mirror image, that a tool pushes."""


def _pushed(target: Region, _: Region, random: np.random.Generator) -> Region:
    points = _contours(target)
    unit = _between_eyes(points)
    middle = points[30]
    field = _Field(target.pixels.shape, unit)
    for k in random.choice(len(_PUSHES) + 1, int(random.integers(1, 4)), replace=False):
        strength = random.uniform(0.05, 0.11) * random.choice([-1, 1]) * unit
        if k == len(_PUSHES):
            for eye in (points[36:42], points[42:48]):
                field.swell(eye.mean(0), 0.45 * unit, abs(strength) / unit)
            continue
        upwards = k in (1, 2, 4)
        for group in _PUSHES[k]:
            centre = points[list(group)].mean(0)
            towards = points[27] - points[8] if upwards else middle - centre
            towards = towards / max(float(np.linalg.norm(towards)), 1e-3)
            field.push(centre, random.uniform(0.35, 0.6) * unit, strength * towards)
    how = int(random.choice(_INTERPOLATIONS[1:]))
    return replace(
        target, pixels=field.applied(target.pixels, how), face=field.carried(target.face)
    )


class _Field:
    """Where each place's content comes from, as pushes add up."""

    def __init__(self, shape: Sequence[int], unit: float) -> None:
        height, width = shape[:2]
        y, x = np.mgrid[:height, :width].astype(np.float32)
        self._places = np.stack([x, y], -1) + np.float32(0.5)
        self._moves: list[Callable[[Floats], Floats]] = []

    def push(self, centre: Floats, radius: float, by: Floats) -> None:
        """Move what lies within ``radius``, most in the middle and nothing at the edge."""
        self._moves.append(lambda at: _falling(at, centre, radius) * by.astype(np.float32))

    def swell(self, centre: Floats, radius: float, by: float) -> None:
        """Enlarge what lies about ``centre`` by a share ``by``."""
        self._moves.append(lambda at: _falling(at, centre, radius) * (at - centre) * np.float32(by))

    def _at(self, places: Floats) -> Floats:
        moved: Floats = np.sum([move(places) for move in self._moves], axis=0, dtype=np.float32)
        return moved

    def applied(self, pixels: Pixels, how: int) -> Pixels:
        """The picture, bent."""
        maps = self._places - self._at(self._places) - np.float32(0.5)
        return _rounded(_looked_up(pixels, maps, how))

    def carried(self, face: Face) -> Face:
        """The face with its points moved along."""
        assert face.landmarks is not None  # _is_readable
        dense, five = face.landmarks.points, face.points
        landmarks = replace(face.landmarks, points=dense + self._at(dense))
        return replace(face, points=five + self._at(five), landmarks=landmarks)


def _falling(at: Floats, centre: Floats, radius: float) -> Floats:
    """1 at the centre, 0 from ``radius`` on, smooth: (..., 1)."""
    away = np.sum((at - centre) ** 2, axis=-1, keepdims=True) / np.float32(radius**2)
    return np.asarray(np.maximum(1 - away, 0) ** 2, np.float32)


# --- what the kinds share ---------------------------------------------------------------------


def _looked_up(pixels: Pixels, maps: Floats, how: int) -> _Picture:
    """Each pixel from its place (x, y) in ``maps`` (H, W, 2), in OpenCV's coordinates."""
    columns, rows = np.ascontiguousarray(maps[..., 0]), np.ascontiguousarray(maps[..., 1])
    picture = pixels.astype(np.float32)
    drawn = cv2.remap(picture, columns, rows, how, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(drawn, np.float32)


def _recoloured(layer: _Picture, onto: Pixels, mask: _Mask, *, spread: bool) -> _Picture:
    """The layer with the target's mean colour within the mask, and its contrast if ``spread``."""
    inside = mask > 127
    if not inside.any():
        return layer
    own, wanted = (
        cv2.cvtColor(np.clip(picture / np.float32(255), 0, 1), cv2.COLOR_RGB2YCrCb)
        for picture in (layer, onto.astype(np.float32))
    )
    gain = np.ones(3, np.float32)
    if spread:
        gain = np.clip(wanted[inside].std(0) / np.maximum(own[inside].std(0), 1e-3), 0.6, 1.6)
    matched = (own - own[inside].mean(0)) * gain + wanted[inside].mean(0)
    back = cv2.cvtColor(matched.astype(np.float32), cv2.COLOR_YCrCb2RGB) * np.float32(255)
    return np.asarray(back, np.float32)


def _widened(mask: _Mask, by: float) -> _Mask:
    """The mask grown by so many pixels, or shrunk for a negative number."""
    side = 2 * round(abs(by)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    change = cv2.dilate if by > 0 else cv2.erode
    return np.asarray(change(mask, kernel, borderValue=0), np.uint8)


def _clear_edges(mask: _Mask) -> None:
    """Take the mask off the picture's outermost pixels, which Poisson's equation starts from."""
    mask[[0, 1, -2, -1]] = 0
    mask[:, [0, 1, -2, -1]] = 0


def _rounded(picture: _Picture) -> Pixels:
    return np.asarray(np.clip(picture + 0.5, 0, 255), np.uint8)


KINDS: Mapping[str, Callable[[Region, Region, np.random.Generator], Region]] = {
    "splice": _spliced,
    "part": _exchanged,
    "warp": _pushed,
}
"""Kind → what makes it of a target and a donor; a warp needs none."""
