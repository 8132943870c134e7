"""True answers that only a renderer has: a face swap, and the flow between two frames."""

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    - brows and lashes are A's where the weight at their root is at least a half, else B's;
      irises are A's. A beard is B's, as all hair of the head.

    Head, ears, neck, hair, beard, glasses, clothes, expression, pose, gaze, camera, light,
    background and noise are the frame's. Shadows and hollows are computed anew for the shape, so
    light may change a little beyond the border, as it would if A's nose stood there.

    Args:
        a: whose inner face to show.
        frame_of_b: any frame; of a swapped one, the head's owner counts as B.

    Returns:
        A frame of the same size. ``person`` is B, ``inner`` and ``identity`` are A's;
        ``masks["face"]`` is the region within which shape and paint change.
    """
    both = a.model_dump_json(), frame_of_b.person.model_dump_json()
    return picture(_swapped(*both), frame_of_b.performance, len(frame_of_b.pixels))


@lru_cache(maxsize=2)
def _swapped(a_json: str, b_json: str) -> Model:
    a, b = Person.model_validate_json(a_json), Person.model_validate_json(b_json)
    neutral = basis.load()
    share = shading.inner_share(neutral.vertices)
    head_a, head_b = people.neutral(a_json), people.neutral(b_json)
    border = np.zeros(len(share), bool)
    border[np.unique(neutral.triangles[neutral.materials == SKIN])] = True
    border &= (share > 0) & (share < 1) & (neutral.mouth == 0)
    head = head_b + share[:, None] * (_fitted(head_a, head_b, border) - head_b)
    ratio = skin.skin_colour(b) / skin.skin_colour(a)
    shaven_as_b = a.model_copy(update={"sex": b.sex, "beard": b.beard})
    inner_paint = skin.paint(shaven_as_b.model_dump_json())
    coat = shading.Coat(b, skin.paint(b_json), a, inner_paint, ratio)
    normal = basis.normals(head, neutral.triangles)
    inner, outer = (hair.attach(one, head, normal) for one in (a, b))
    above_beard = share * (neutral.vertices[:, 1] > _BEARD)
    return assembled(coat, head, _joined(inner, outer, above_beard))


_BEARD = 7.05
"""The height on the neutral head, in dm, below which strands are a beard's."""


def _joined(inner: hair.Strands, outer: hair.Strands, share: Array) -> hair.Strands:
    """The strands of ``inner`` rooted where ``share`` (N,) is at least a half, else ``outer``'s."""
    parts: dict[str, list[Any]] = {f.name: [] for f in fields(inner)}
    count = 0
    for strands, inside in ((inner, True), (outer, False)):
        root = (share[strands.roots] * strands.weights).sum(1)
        kept = (root[strands.triangles].mean(1) >= 0.5) == inside
        for name, values in parts.items():
            values.append(getattr(strands, name))
        parts["triangles"][-1] = strands.triangles[kept] + count
        count += len(strands.roots)
    return hair.Strands(**{name: np.concatenate(values) for name, values in parts.items()})


def _fitted(points: Array, to: Array, chosen: NDArray[np.bool_]) -> Array:
    """Points (N, 3) moved by the similarity that fits the chosen best (Umeyama 1991)."""
    centre, aim = points[chosen].mean(0), to[chosen].mean(0)
    spread = (points[chosen] - centre).astype(np.float64)
    left, scales, right = np.linalg.svd((to[chosen] - aim).T.astype(np.float64) @ spread)
    signs = np.array([1, 1, np.sign(np.linalg.det(left @ right))])
    scale = (scales * signs).sum() / (spread**2).sum()
    turn = (left * signs) @ right
    moved: Array = (scale * (points - centre) @ turn.T + aim).astype(np.float32)
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
    soft = met_by(built(before.points, of.triangles), before.camera, cells, size)
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
    scene = built(pose.points, of.triangles)
    for stage, start, way in both_scenes(of, pose, scene, np.broadcast_to(eye, ways.shape), ways):
        free &= np.asarray(stage.run(start, way, query="DISTANCE")) >= reach
    return free
