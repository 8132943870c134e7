"""True answers that only a renderer has: a face swap, and the flow between two frames."""

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from facekit.core.errors import FacekitError
from facekit.studio import basis, eyes, hair, shading, skin
from facekit.studio import person as people
from facekit.studio.basis import LEFT_EYE, RIGHT_EYE, SKIN, Array
from facekit.studio.person import Person
from facekit.studio.render import (
    Model,
    Pose,
    Render,
    assembled,
    both_scenes,
    built,
    met_by,
    mixed_at,
    model,
    picture,
    posed,
)
from facekit.types import Floats


def swap(a: Person, frame_of_b: Render) -> Render:
    """The true answer of a face swap: A's inner face in a frame of B.

    The inner face reaches from the brows to the chin and from cheek to cheek
    (:func:`facekit.studio.shading.inner_depth`); a weight rises within it from 0 at its border to
    1 at 0.14 dm inside, so nothing changes outside. Within it,

    - shape: A's resting head is brought to B's by the similarity (scale, rotation, shift) that
      fits A's skin to B's best, in the sense of least squares, where the weight lies between 0
      and 1; then each vertex of B moves towards A's by the weight. Eyeballs, teeth and tongue
      lie inside, and are A's.
    - paint: albedo, gloss and relief are mixed by the weight; A's albedo is first multiplied by
      B's base tone over A's, channel by channel, so that A's features appear on B's complexion.
    - brows and lashes are A's where the mean weight at a hair's roots is at least a half, else
      B's; irises are A's. A beard, its painted shade too, is B's, as all hair of the head.

    Head, ears, neck, hair, beard, glasses, clothes, expression, pose, gaze, camera, light,
    background and noise are the frame's. A swap of B with themself is B's frame, to the byte.

    ``masks["face"]`` of the result covers all that the inner face shows and all that it uncovers:
    the inner face of either frame, whichever is larger at a pixel. Beyond it there may differ

    - shadows, which are cast by the new shape: on neck, clothes and hair, and softly about them;
    - single hairs of a full beard, whose roots are on the border and move with it;
    - with ``performance.blur``, what a blurred border spreads.

    At 256 pixels, over 24 pairs in photo-like performances, 0.08% of the picture's pixels lay
    beyond it and differed by more than 4 levels of 255, 0.8% in the worst pair; without lamps and
    blur 0.005%, and 0.05%, all in full beards.

    Args:
        a: whose inner face to show.
        frame_of_b: any frame; of a swapped one, the head's owner counts as B.

    Returns:
        A frame of the same size. ``person`` is B, ``inner`` and ``identity`` are A's.
    """
    both = a.model_dump_json(), frame_of_b.person.model_dump_json()
    result = picture(_swapped(*both), frame_of_b.performance, len(frame_of_b.pixels))
    face = np.maximum(result.masks["face"], frame_of_b.masks["face"])
    return replace(result, masks=result.masks | {"face": face})


@lru_cache(maxsize=2)
def _swapped(a_json: str, b_json: str) -> Model:
    a, b = Person.model_validate_json(a_json), Person.model_validate_json(b_json)
    neutral = basis.load()
    share = shading.inner_share(neutral.vertices)
    head_a, head_b = people.neutral(a_json), people.neutral(b_json)
    border = np.zeros(len(share), bool)
    border[np.unique(neutral.triangles[neutral.materials == SKIN])] = True
    border &= (share > 0) & (share < 1) & (neutral.mouth == 0)
    # Rounded to 10 nm: a fit to oneself moves nothing at all.
    towards_a = np.round(_fitted(head_a, head_b, border) - head_b, 7)
    head = (head_b + share[:, None] * towards_a).astype(head_b.dtype)
    ratio = skin.skin_colour(b) / skin.skin_colour(a)
    coat = shading.Coat(b, skin.paint(b_json), a, _inner_paint(a, b, ratio), ratio)
    normal = basis.normals(head, neutral.triangles)
    inner, outer = (hair.attach(one, head, normal) for one in (a, b))
    above_beard = share * (neutral.vertices[:, 1] > _BEARD)
    return assembled(coat, head, _joined(inner, outer, above_beard))


_BEARD = 7.05
"""The height on the neutral head, in dm, below which strands are a beard's."""


def _inner_paint(a: Person, b: Person, ratio: Array) -> skin.Skin:
    """A's paint with B's beard, of B's colour once ``ratio`` (3,) has recoloured it."""
    shaven_as_b = a.model_copy(update={"sex": b.sex, "beard": b.beard})
    painted = skin.paint(shaven_as_b.model_dump_json())
    tone = tuple(np.clip(np.array(b.hair_colour) / ratio, 0, 1).tolist())
    if b.sex <= 0.5 or tone == a.hair_colour:
        return painted
    bearded = skin.paint(shaven_as_b.model_copy(update={"hair_colour": tone}).model_dump_json())
    return skin.stacked(painted, bearded, 7.24)


def _joined(inner: hair.Strands, outer: hair.Strands, share: Array) -> hair.Strands:
    """The strands of ``inner`` rooted where ``share`` (N,) is at least a half, else ``outer``'s."""
    parts: dict[str, list[Any]] = {f.name: [] for f in fields(inner)}
    ranks = []
    count = 0
    for strands, inside in ((inner, True), (outer, False)):
        kept = np.flatnonzero((_root_share(strands, share) >= 0.5) == inside)
        for name, values in parts.items():
            values.append(getattr(strands, name))
        parts["triangles"][-1] = strands.triangles[kept] + count
        ranks.append(kept)
        count += len(strands.roots)
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    # Each keeps its rank: of two equally near, a ray meets the same one whoever's they are.
    joined["triangles"] = joined["triangles"][np.argsort(np.concatenate(ranks), kind="stable")]
    return hair.Strands(**joined)


def _root_share(strands: hair.Strands, share: Array) -> Array:
    """The mean of ``share`` (N,) at the roots of each triangle's whole strand, (T,)."""
    count = len(strands.roots)
    a, b, c = strands.triangles.T
    edges = np.concatenate([a, b]), np.concatenate([b, c])
    links = coo_array((np.ones(2 * len(a), bool), edges), (count, count))
    _, strand = connected_components(links, directed=False)
    root = (share[strands.roots] * strands.weights).sum(1)
    mean: Array = (np.bincount(strand, root) / np.bincount(strand))[strand[a]]
    return mean


def _fitted(points: Array, to: Array, chosen: NDArray[np.bool_]) -> Array:
    """Points (N, 3) moved by the similarity that fits the chosen best (Umeyama 1991)."""
    points, to = points.astype(np.float64), to.astype(np.float64)
    centre, aim = points[chosen].mean(0), to[chosen].mean(0)
    spread = points[chosen] - centre
    left, scales, right = np.linalg.svd((to[chosen] - aim).T @ spread)
    signs = np.array([1, 1, np.sign(np.linalg.det(left @ right))])
    scale = (scales * signs).sum() / (spread**2).sum()
    turn = (left * signs) @ right
    moved: Array = scale * (points - centre) @ turn.T + aim
    return moved


@dataclass(frozen=True)
class Flow:
    """Where the surface that one frame shows lies in another.

    Attributes:
        vectors: float32 (S, S, 2), (x, y) in pixels: a point of the surface seen at a pixel's
            centre p of the first frame lies at p + vectors[p] in the second; 0 on the background.
        visible: bool (S, S), True where it is seen in both: on the person in the first, inside
            the picture and not hidden in the second.
    """

    vectors: Floats
    visible: NDArray[np.bool_]


def flow(first: Render, second: Render) -> Flow:
    """The dense flow of the surface from one frame of a person to another.

    Skin carries its points through expressions and turns; an eyeball carries them with its gaze;
    hair and the frame of glasses turn with the head; what is seen through lenses counts. Light,
    shadows and highlights move otherwise, and the background not at all.

    Raises:
        FacekitError: if the frames show different people or differ in size.
    """
    if first.person != second.person or first.inner != second.inner:
        raise FacekitError(
            f"flow between person {first.person.seed} and person {second.person.seed}: "
            "allowed are two frames of one person"
        )
    size = len(first.pixels)
    if size != len(second.pixels):
        raise FacekitError(
            f"flow between pictures of {size} and {len(second.pixels)} pixels a side: "
            "render both at one size"
        )
    of = _model_of(first)
    before, after = (posed(of, frame.performance, size) for frame in (first, second))
    cells = np.arange(size * size)
    soft = met_by(built(before.points, of.corners), before.camera, cells, size)
    nearest = np.full(size * size, np.inf, np.float32)
    places = np.zeros((size * size, 3), np.float32)
    nearest[soft.cells] = soft.far
    places[soft.cells] = mixed_at(after.points, of.triangles, soft.prim, soft.u, soft.v)
    material = of.materials[soft.prim]
    for eye in (LEFT_EYE, RIGHT_EYE):
        seen = soft.take(material == eye)
        at = mixed_at(before.points, of.triangles, seen.prim, seen.u, seen.v)
        places[seen.cells] = _rolled(at, eye, before, after)
    if of.rigid is not None:
        stiff = met_by(of.rigid.scene, before.camera, cells, size, before, nearest)
        nearest[stiff.cells] = stiff.far
        rigid = of.rigid
        rest = mixed_at(rigid.points, rigid.triangles, stiff.prim, stiff.u, stiff.v)
        places[stiff.cells] = after.carried(rest)
    shown = np.flatnonzero(np.isfinite(nearest))
    there = after.camera.project(places[shown])
    here = np.stack([shown % size, shown // size], 1) + 0.5
    vectors = np.zeros((size * size, 2), np.float32)
    vectors[shown] = there - here
    visible = np.zeros(size * size, bool)
    visible[shown] = np.all((there >= 0) & (there <= size), axis=1)
    visible[shown] &= _in_sight(of, after, places[shown])
    return Flow(vectors.reshape(size, size, 2), visible.reshape(size, size))


def _model_of(frame: Render) -> Model:
    if frame.inner == frame.person:
        return model(frame.person.model_dump_json())
    return _swapped(frame.inner.model_dump_json(), frame.person.model_dump_json())


def _rolled(at: Array, eye: int, before: Pose, after: Pose) -> Array:
    """Points (P, 3) of an eyeball, carried along by its gaze."""
    old, new = (eyes.ball(pose.points, pose.turned, eye) for pose in (before, after))
    own = (at - old.centre) @ before.gaze
    rolled: Array = new.centre + new.radius / old.radius * own @ after.gaze.T
    return rolled


_GRAZE = 0.02  # dm: a point lies on the surface that is tested, give or take so much.


def _in_sight(of: Model, pose: Pose, places: Array) -> NDArray[np.bool_]:
    """Whether the camera sees points (P, 3) of the surface."""
    eye = np.array([0, 0, pose.camera.distance], np.float32)
    ways = (places - eye).astype(np.float32)
    reach = 1 - _GRAZE / np.linalg.norm(ways, axis=1)
    free = np.ones(len(places), bool)
    scene = built(pose.points, of.corners)
    for stage, start, way in both_scenes(of, pose, scene, np.broadcast_to(eye, ways.shape), ways):
        free &= np.asarray(stage.run(start, way, query="DISTANCE")) >= reach
    return free
