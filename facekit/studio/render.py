"""``render(person, performance, size)``: the frame, and the truth about it.

Rays are cast on a 2×2 finer grid with Embree into two scenes: what deforms (face, neck, shoulders,
lashes, brows), built anew for each frame, and what is rigid with the head (hair, glasses), built
once a person and met by rays brought into the head's frame. Hits are shaded in linear light,
averaged and encoded as sRGB. One thread; the same arguments give the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.core.errors import FacekitError
from facekit.studio import backdrop, basis, eyes, hair, mouth, shading, skin, wear
from facekit.studio import light as lights
from facekit.studio import person as people
from facekit.studio.basis import HAIR, LEFT_EYE, RIGHT_EYE, SKIN, Array, Indices
from facekit.studio.landmarks import landmarks
from facekit.studio.light import Lamp, Light
from facekit.studio.performance import FACE_UNITS, Performance, angles, rotation
from facekit.studio.person import Person
from facekit.studio.scene import SENSOR
from facekit.studio.shading import unit
from facekit.types import Floats, Pixels

MAX_SIZE = 2048
MASKS = ("face", "skin", "hair", "eyes", "mouth", "teeth", "glasses", "cloth")
_FINE = 2  # Rays a pixel's side.
_TILE = 8  # Fine pixels; where nothing projects into a tile, no ray is cast.


@dataclass(frozen=True)
class Render:
    """A frame and its labels; points are (x, y) in pixels, pixel centres at +0.5.

    Attributes:
        person: who is seen; of a swap, whose head it is.  performance: what they do.
        inner: whose inner face it is: ``person``, unless in a swap.
        pixels: uint8 RGB (S, S, 3).
        points: float32 (5, 2), the five points of :data:`facekit.types.POINTS`.
        landmarks: float32 (70, 2), in iBUG-68's order, then the irises' centres, the picture's
            left one first.
        visible: bool (70,), False where something nearer hides the landmark, or outside.
        masks: by the names of ``MASKS``, uint8 (S, S), the covered share of each pixel times 255.
            "face": the inner face, brows to the jaw's edge, with eyes and mouth, without neck,
            hair of the head or frame over it; "skin": bare skin, the neck's too, with its brows,
            lashes and beard; "hair": of the head; "mouth": what is seen between the lips, of
            which "teeth" is a part; "glasses": frame and lenses. What a lens covers counts as
            what is behind it too, so "glasses" overlaps "face", "skin", "eyes" and "hair".
            Of a swap, "face" is what changes: see :func:`facekit.studio.truth.swap`.
        depth: float32 (S, S), from the camera along its axis in dm; inf on the background.
        pose: yaw, pitch, roll of the head relative to the camera, in degrees.
        expression: float32 (52,), in the order of ``FACE_UNITS``.
        identity: float32 (D,), the vector of ``inner``.
        intrinsics: float64 (3, 3), pinhole, in pixels.
        camera_from_head: float64 (3, 4), from the person's head at rest (dm; x to the person's
            own left, y up, z to the front) to OpenCV's camera (x right, y down, z forward).
    """

    person: Person
    performance: Performance
    pixels: Pixels
    points: Floats
    landmarks: Floats
    visible: NDArray[np.bool_]
    masks: dict[str, NDArray[np.uint8]]
    depth: Floats
    pose: tuple[float, float, float]
    expression: Floats
    identity: Floats
    intrinsics: NDArray[np.float64]
    camera_from_head: NDArray[np.float64]
    inner: Person

    @property
    def face_mask(self) -> NDArray[np.uint8]:
        """uint8 (S, S): 255 where the inner face covers more than half of a pixel."""
        return np.where(self.masks["face"] > 127, 255, 0).astype(np.uint8)


@dataclass(frozen=True)
class Rigid:
    """What turns with the head and never deforms, at rest.

    Attributes:
        triangles: (T, 3);  framed: (T,) True on the frame of glasses;  points: (M, 3).
        values: (M, 8): normal, tangent along the strand, shade, openness.
        scene: Embree's.
    """

    triangles: Indices
    framed: NDArray[np.bool_]
    points: Array
    values: Array
    scene: Any


@dataclass(frozen=True)
class Model:
    """What stays the same through all frames of a person.

    Attributes:
        person: whose head it is;  inner: whose inner face, the same unless in a swap.
        head: (N, 3) at rest.
        turn, nod: (N,) how far a vertex follows the head, and the neck.
        pivot: (3,) about which the head turns;  base: the neck;  middle: between the eyes.
        hem: (H,) vertices of the chest's lower rim, from which a skirt hangs.
        strands: lashes, brows, beard, that move with the skin.
        triangles, materials: of the head, the skirt and the strands; their vertices follow each
            other in that order.  corners: the triangles once more, for :func:`built`.
        transfer: of the surroundings' light to the head's vertices.
        coat: paint.
        rigid: hair and the frame of glasses, or None;  lenses: theirs, or None.
    """

    person: Person
    inner: Person
    head: Array
    turn: Array
    nod: Array
    pivot: Array
    base: Array
    middle: Array
    hem: Indices
    strands: hair.Strands
    triangles: Indices
    corners: NDArray[np.object_]
    materials: Indices
    transfer: lights.Transfer
    coat: shading.Coat
    rigid: Rigid | None
    lenses: Rigid | None


STRAND = HAIR
"""The material of triangles of lashes, brows and beard in the scene that deforms."""


@lru_cache(maxsize=3)
def model(person_json: str) -> Model:
    """The model of a person, from ``Person.model_dump_json()``."""
    person = Person.model_validate_json(person_json)
    painted = skin.paint(person_json)
    coat = shading.Coat(person, painted, person, painted)
    head = people.neutral(person_json)
    normal = basis.normals(head, basis.load().triangles)
    return assembled(coat, head, hair.attach(person, head, normal))


def assembled(coat: shading.Coat, head: Array, strands: hair.Strands) -> Model:
    """A model of a painted head (N, 3) at rest, with the hair and glasses of ``coat.person``."""
    neutral = basis.load()
    person = coat.person
    own = people.neutral(person.model_dump_json())
    rigid, lenses = _rigid(person, own, basis.normals(own, neutral.triangles))
    turn, nod = _turn(neutral.vertices), _nod(neutral.vertices)
    ahead = np.eye(3, dtype=np.float32)
    balls = [eyes.ball(own, ahead, eye).centre for eye in (LEFT_EYE, RIGHT_EYE)]
    hem, skirt = _skirt()
    kinds = [(SKIN, len(skirt)), (STRAND, len(strands.triangles))]
    materials = [neutral.materials, *(np.full(count, kind, np.int32) for kind, count in kinds)]
    parts = [neutral.triangles, skirt, strands.triangles + len(head) + len(hem)]
    triangles = np.concatenate(parts).astype(np.int32)
    return Model(
        person=person,
        inner=coat.inner,
        head=mouth.settled(head.astype(np.float32)),
        turn=turn,
        nod=nod,
        pivot=own[(turn > 0.3) & (turn < 0.7)].mean(0),
        base=own[(nod > 0.3) & (nod < 0.7)].mean(0),
        middle=np.mean(balls, axis=0) + np.array([0, 0, 0.1]),
        hem=hem,
        strands=strands,
        triangles=triangles,
        corners=corners(triangles),
        materials=np.concatenate(materials),
        transfer=_transfer(head, basis.normals(head, neutral.triangles), rigid),
        coat=coat,
        rigid=rigid,
        lenses=lenses,
    )


def corners(triangles: Indices) -> NDArray[np.object_]:
    """Triangles (T, 3) as tuples (T,)."""
    return np.fromiter(zip(*triangles.T.tolist(), strict=True), object, len(triangles))


def built(points: Array, triangles: NDArray[Any]) -> Any:
    """Embree's scene of triangles (T, 3), or (T,) as ``corners`` gives them, into points (N, 3)."""
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    # embreex copies number by number as Python does, and Python's own numbers and tuples in half
    # the time.
    scene = EmbreeScene()
    TriangleMesh(scene, points.astype(np.float32).astype(object), triangles)
    return scene


def _rigid(person: Person, head: Array, normal: Array) -> tuple[Rigid | None, Rigid | None]:
    """Hair with the frame of glasses, and their lenses."""
    points: list[Array] = []
    triangles: list[Indices] = []
    values: list[Array] = []
    framed: list[NDArray[np.bool_]] = []
    grown = hair.grow(person, head, normal)
    if grown is not None:
        points.append(grown.points)
        triangles.append(grown.triangles)
        more = [_off_head(grown), grown.tangent, grown.shade[:, None], grown.openness[:, None]]
        values.append(np.concatenate(more, 1))
        framed.append(np.zeros(len(grown.triangles), bool))
    worn = wear.glasses(person, head)
    lenses = None
    if worn is not None:
        outwards = basis.normals(worn.points, worn.triangles)
        plain = np.concatenate([outwards, outwards, np.ones((len(outwards), 2))], 1)
        frame = worn.triangles[worn.material == wear.FRAME]
        triangles.append(frame + sum(map(len, points)))
        points.append(worn.points)
        values.append(plain)
        framed.append(np.ones(len(frame), bool))
        glass = worn.triangles[worn.material == wear.LENS]
        if len(glass):
            lenses = _stiff([worn.points], [glass], [plain], [np.zeros(len(glass), bool)])
    rigid = _stiff(points, triangles, values, framed) if points else None
    return rigid, lenses


def _off_head(grown: hair.Hair) -> Array:
    """Normals of hair (M, 3): away from the head, each lock's own a little."""
    centre = np.zeros_like(grown.points)
    centre[:, 1], centre[:, 2] = np.clip(grown.points[:, 1], 6.2, 7.65), 0.3
    away = shading.unit(grown.points - centre)
    own = basis.normals(grown.points, grown.triangles)
    own *= np.sign(shading.dot(own, away))[:, None]
    return shading.unit(away + 0.5 * own)


def _stiff(
    points: list[Array],
    triangles: list[Indices],
    values: list[Array],
    framed: list[NDArray[np.bool_]],
) -> Rigid:
    all_points = np.concatenate(points).astype(np.float32)
    all_triangles = np.concatenate(triangles).astype(np.int32)
    return Rigid(
        triangles=all_triangles,
        framed=np.concatenate(framed),
        points=all_points,
        values=np.ascontiguousarray(np.concatenate(values), np.float32),
        scene=built(all_points, corners(all_triangles)),
    )


_DROP = np.array([0, -4, 0], np.float32)
"""How far the skirt hangs, in dm."""


@lru_cache(maxsize=1)
def _skirt() -> tuple[Indices, Indices]:
    """The chest's lower rim (H,), and triangles that hang from it (T, 3).

    Their vertices from N on lie below those of the rim.
    """
    neutral = basis.load()
    body = neutral.triangles[neutral.materials == SKIN].astype(np.int64)
    edges = body[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    count = len(neutral.vertices)
    there = edges[:, 0] * count + edges[:, 1]
    back = edges[:, 1] * count + edges[:, 0]
    rim = edges[~np.isin(there, back)]
    rim = rim[neutral.vertices[rim, 1].max(1) < _RIM]
    hem = np.unique(rim)
    below = count + np.searchsorted(hem, rim)
    a, b = rim.T
    c, d = below.T
    triangles = np.concatenate([np.stack([b, a, c], 1), np.stack([b, c, d], 1)])
    return hem.astype(np.int32), triangles.astype(np.int32)


_RIM = 5.3  # The chest's open edges lie below; eyes, nostrils and mouth above.


def _transfer(head: Array, normal: Array, rigid: Rigid | None) -> lights.Transfer:
    """The surroundings' light at the head's vertices, past head, hair and glasses."""
    count = len(lights.DIRECTIONS)
    seen = _seen_by_head().copy()
    if rigid is not None:
        vertex, way = np.nonzero((normal @ lights.DIRECTIONS.T > 0.02) & (seen > 0))
        origins = head[vertex] + 0.015 * normal[vertex]
        seen[vertex, way] *= _free(rigid.scene, origins, lights.DIRECTIONS[way])
    assert seen.shape == (len(head), count)
    return lights.transfer(normal.astype(np.float32), seen)


@lru_cache(maxsize=1)
def _seen_by_head() -> Array:
    """1 where a direction (of 64) is free of the neutral head itself at a vertex (N, 64)."""
    neutral = basis.load()
    normal = basis.normals(neutral.vertices, neutral.triangles)
    scene = built(neutral.vertices, corners(neutral.triangles))
    seen = np.zeros((len(normal), len(lights.DIRECTIONS)), np.float32)
    vertex, way = np.nonzero(normal @ lights.DIRECTIONS.T > 0.02)
    origins = neutral.vertices[vertex] + 0.01 * normal[vertex]
    seen[vertex, way] = _free(scene, origins, lights.DIRECTIONS[way])
    return seen


def _free(scene: Any, origins: Array, directions: Array) -> NDArray[np.bool_]:
    """Whether rays meet nothing (P,)."""
    hits = scene.run(
        np.ascontiguousarray(origins, np.float32),
        np.ascontiguousarray(directions, np.float32),
        query="OCCLUDED",
    )
    free: NDArray[np.bool_] = np.asarray(hits) < 0
    return free


def _smooth(share: Array) -> Array:
    share = np.clip(share, 0, 1)
    result: Array = (share * share * (3 - 2 * share)).astype(np.float32)
    return result


def _turn(places: Array) -> Array:
    """How far a point follows the head (1) or stays with the neck (0)."""
    return _smooth((places[:, 1] + 0.45 * np.maximum(places[:, 2], -0.5) - 5.9) / 0.8)


def _nod(places: Array) -> Array:
    """How far a point follows the neck (1) or stays with the shoulders (0)."""
    wide = np.maximum(np.abs(places[:, 0]) - 0.45, 0)
    return _smooth((places[:, 1] + 0.45 * np.maximum(places[:, 2], -0.5) - 0.5 * wide - 5.3) / 0.7)


def _units(performance: Performance) -> dict[str, float]:
    """The face units, and the lids following the eyes."""
    units = dict(performance.expression)
    for name, value in eyes.lids(performance.gaze_y).items():
        units[name] = min(units.get(name, 0.0) + value, 1.0)
    return units


@dataclass(frozen=True)
class Camera:
    """Looks along −z from (0, 0, distance); focal length and centre in pixels."""

    distance: float
    focal: float
    x: float
    y: float

    def project(self, points: Array) -> Array:
        """Points (..., 3) to pixels (..., 2)."""
        depth = self.distance - points[..., 2]
        x = self.x + self.focal * points[..., 0] / depth
        y = self.y - self.focal * points[..., 1] / depth
        seen: Array = np.stack([x, y], -1).astype(np.float32)
        return seen

    def rays(self, columns: Array, rows: Array) -> Array:
        """Directions (P, 3) through places in the picture; one unit of depth long."""
        directions = np.empty((len(columns), 3), np.float32)
        directions[:, 0] = (columns - self.x) / self.focal
        directions[:, 1] = (self.y - rows) / self.focal
        directions[:, 2] = -1
        return directions

    def finer(self, times: int) -> "Camera":
        """The same, with each pixel cut in ``times`` a side."""
        return Camera(self.distance, self.focal * times, self.x * times, self.y * times)


@dataclass(frozen=True)
class Pose:
    """A model in a performance, in the camera's axes (x right, y up, z towards the camera).

    Attributes:
        points: (N + H + M, 3) the vertices of the head, the skirt and the strands.
        turned: (3, 3) the head's axes;  moved: (3,) so that rigid p goes to turned @ p + moved.
        gaze: (3, 3) the eyes' axes, which look along their third.
        camera: in pixels.
    """

    points: Array
    turned: Array
    moved: Array
    gaze: Array
    camera: Camera

    def carried(self, points: Array) -> Array:
        """Rigid points (P, 3), from the resting head's axes to the camera's."""
        there: Array = (points @ self.turned.T + self.moved).astype(np.float32)
        return there

    def at_rest(self, points: Array) -> Array:
        """Points (P, 3) in the resting head's axes: the inverse of ``carried``."""
        there: Array = ((points - self.moved) @ self.turned).astype(np.float32)
        return there


def posed(of: Model, performance: Performance, size: int) -> Pose:
    """Move the model as the performance says."""
    own = rotation(performance.yaw, performance.pitch, performance.roll)
    neck, about = performance.neck_rotation, performance.camera_rotation

    points = of.head
    units = _units(performance)
    if units:
        points = points + basis.load().displaced(units)
    points = points - of.pivot
    points += of.turn[:, None] * (points @ own.T - points)
    points += of.pivot - of.base
    points += of.nod[:, None] * (points @ neck.T - points)
    # The camera goes about a place in the head, behind the eyes that it keeps its distance from.
    behind = np.array([0, 0, 0.7])
    aim = of.base - of.middle + behind
    points = (points + aim) @ about.T - behind

    turned = about @ neck @ own
    if units.get("tongueOut"):
        mouth.put_out(points, turned, units["tongueOut"])
    moved = about @ (neck @ (of.pivot - own @ of.pivot - of.base) + aim) - behind
    strands = of.strands
    held = (points[strands.roots] * strands.weights[..., None]).sum(1) + strands.offset @ turned.T
    camera = Camera(
        performance.distance,
        performance.focal / SENSOR * size,
        performance.centre_x * size,
        performance.centre_y * size,
    )
    return Pose(
        points=np.concatenate([points, points[of.hem] + about @ _DROP, held]).astype(np.float32),
        turned=turned,
        moved=moved.astype(np.float32),
        gaze=eyes.gaze(of.inner, performance, turned),
        camera=camera,
    )


def render(person: Person, performance: Performance, size: int = 256) -> Render:
    """Render one frame; ``size`` in pixels a side, 16 to 2048.

    ``render(a, p)`` and ``render(b, p)`` share expression, pose, gaze, camera, light and
    background exactly: one is the true answer of a re-enactment from the other.

    Raises:
        FacekitError: if ``size`` is out of range.
    """
    return picture(model(person.model_dump_json()), performance, size)


def picture(of: Model, performance: Performance, size: int) -> Render:
    """Render one frame of a model."""
    if not 16 <= size <= MAX_SIZE:
        raise FacekitError(f"size {size}: allowed are 16 to {MAX_SIZE} pixels")
    pose = posed(of, performance, size)
    traced = _traced(of, performance, pose, size * _FINE)
    share = _shrunk(traced.covered)[..., None]
    shown = _shrunk(traced.colour) + (1 - share) * backdrop.background(performance, size)
    irises = eyes.iris_centres(of.inner, pose.points, pose.turned, performance)
    marks = np.concatenate([landmarks(pose.points), irises]).astype(np.float32)
    camera = pose.camera
    return Render(
        person=of.person,
        performance=performance,
        pixels=backdrop.exposed(shown, performance),
        points=camera.project(_five(pose, marks)),
        landmarks=camera.project(marks),
        visible=_visible(of, pose, traced.scene, marks, size),
        masks={name: np.asarray(_shrunk(mask), np.uint8) for name, mask in traced.masks.items()},
        depth=_nearest(traced.depth),
        pose=angles(pose.turned),
        expression=np.array([performance.expression.get(u, 0) for u in FACE_UNITS], np.float32),
        identity=of.inner.vector,
        intrinsics=np.array(
            [[camera.focal, 0, camera.x], [0, camera.focal, camera.y], [0, 0, 1]], np.float64
        ),
        camera_from_head=_camera_from_head(pose),
        inner=of.inner,
    )


def _camera_from_head(pose: Pose) -> NDArray[np.float64]:
    """From the head at rest to OpenCV's camera."""
    flip = np.diag([1.0, -1.0, -1.0])
    ahead = np.array([0, 0, pose.camera.distance])
    return np.column_stack([flip @ pose.turned, flip @ pose.moved + ahead]).astype(np.float64)


def _shrunk(values: NDArray[Any]) -> NDArray[Any]:
    """The mean of each block of fine pixels."""
    height, width = values.shape[:2]
    small = (width // _FINE, height // _FINE)
    return np.asarray(cv2.resize(values, small, interpolation=cv2.INTER_AREA))


def _nearest(depth: Array) -> Floats:
    """The least of each block of 2×2 fine pixels."""
    across = np.minimum(depth[:, ::2], depth[:, 1::2])
    least: Floats = np.minimum(across[::2], across[1::2])
    return least


def _five(pose: Pose, marks: Array) -> Array:
    """MTCNN's five points (5, 3): the eyes' middles on the ball, nose tip, mouth corners."""
    found = []
    for eye in (RIGHT_EYE, LEFT_EYE):  # The person's own right eye is on the picture's left.
        ball = eyes.ball(pose.points, pose.turned, eye)
        found.append(ball.centre + ball.radius * pose.turned[:, 2])
    five: Array = np.stack([*found, marks[30], marks[48], marks[54]])
    return five


def _visible(of: Model, pose: Pose, scene: Any, marks: Array, size: int) -> NDArray[np.bool_]:
    """Whether the camera sees landmarks (70, 3)."""
    at = pose.camera.project(marks)
    inside: NDArray[np.bool_] = np.all((at >= 0) & (at < size), axis=1)
    eye = np.array([0, 0, pose.camera.distance], np.float32)
    ways = (marks - eye).astype(np.float32)
    # A landmark lies on the skin or a hair's breadth below it, an iris beneath thin lids.
    slack = np.full((len(marks), 1), 0.06, np.float32)
    slack[68:] = 0.015
    ways *= 1 - slack / np.linalg.norm(ways, axis=1, keepdims=True)
    origins = np.broadcast_to(eye, ways.shape)
    for met, start, way in both_scenes(of, pose, scene, origins, ways):
        hits = met.run(start, way, query="DISTANCE")
        inside = inside & (np.asarray(hits) >= 1)
    return inside


def both_scenes(
    of: Model, pose: Pose, scene: Any, origins: Array, ways: Array
) -> list[tuple[Any, Array, Array]]:
    """The scenes, each with rays in its own axes."""
    found = [(scene, np.ascontiguousarray(origins), np.ascontiguousarray(ways))]
    if of.rigid is not None:
        found.append((of.rigid.scene, pose.at_rest(origins), ways @ pose.turned))
    return found


@dataclass(frozen=True)
class _Traced:
    """What rays met, on the fine grid (F, F).

    Attributes:
        colour: linear (F, F, 3), 0 where nothing is;  covered: 1 where something is.
        masks: by name;  depth: inf where nothing is.
        scene: of what deforms.
    """

    colour: Array
    covered: Array
    masks: dict[str, NDArray[np.uint8]]
    depth: Array
    scene: Any


def _tiles(camera: Camera, points: Array, triangles: Indices, fine: int) -> NDArray[np.int64]:
    """Fine pixels (flat indices) of all tiles that a triangle's bounding box touches."""
    tiles = -(-fine // _TILE)
    corners = np.ascontiguousarray(triangles.T)
    low, high = (np.empty((len(triangles), 2), np.int64) for _ in range(2))
    for axis, places in enumerate(np.ascontiguousarray(camera.project(points).T) / _TILE):
        a, b, c = (places[corner] for corner in corners)
        least, most = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
        low[:, axis] = np.clip(np.floor(least), 0, tiles)
        high[:, axis] = np.clip(np.floor(most) + 1, 0, tiles)
    # Each box adds 1 at its corners in such a way that the running sum is 1 inside it.
    wide = tiles + 1
    change = np.zeros(wide * wide, np.int64)
    for rows, columns, sign in (
        (low[:, 1], low[:, 0], 1),
        (high[:, 1], low[:, 0], -1),
        (low[:, 1], high[:, 0], -1),
        (high[:, 1], high[:, 0], 1),
    ):
        change += sign * np.bincount(rows * wide + columns, minlength=wide * wide)
    touched = change.reshape(wide, wide).cumsum(0).cumsum(1)[:tiles, :tiles] > 0
    full = np.repeat(np.repeat(touched, _TILE, 0), _TILE, 1)[:fine, :fine]
    return np.flatnonzero(full)


def mixed_at(values: Array, triangles: Indices, prim: Indices, u: Array, v: Array) -> Array:
    """Values at vertices (N, C), interpolated at hits (P, C)."""
    a, b, c = triangles.take(prim, axis=0).T
    mixed: Array = values.take(a, axis=0)
    mixed *= (1 - u - v)[:, None]
    for corner, share in ((b, u), (c, v)):
        part = values.take(corner, axis=0)
        part *= share[:, None]
        mixed += part
    return mixed


@dataclass(frozen=True)
class Met:
    """What camera rays met in one scene.

    Attributes:
        cells: (P,) flat indices of fine pixels;  ways: (P, 3) the rays.
        prim, u, v: (P,) triangle and place in it;  far: (P,) depth along the camera's axis.
    """

    cells: NDArray[np.int64]
    ways: Array
    prim: Indices
    u: Array
    v: Array
    far: Array

    def take(self, chosen: NDArray[Any]) -> "Met":
        """Some of the hits, by a mask or indices."""
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)
        return Met(**{f.name: getattr(self, f.name).take(chosen, axis=0) for f in fields(self)})


def met_by(
    scene: Any,
    camera: Camera,
    cells: NDArray[np.int64],
    fine: int,
    pose: Pose | None = None,
    nearer_than: Array | None = None,
) -> Met:
    """Rays from the camera through pixels of a picture of side ``fine``.

    With a ``pose`` they are brought into the head's axes, where rigid scenes rest; with
    ``nearer_than``, depths of all pixels, only what lies before those is met.
    """
    rows = cells // fine
    ways = camera.rays(cells - rows * fine + np.float32(0.5), rows + np.float32(0.5))
    eye = np.array([[0, 0, camera.distance]], np.float32)
    start, there = (eye, ways) if pose is None else (pose.at_rest(eye), ways @ pose.turned)
    hits = scene.run(
        np.ascontiguousarray(np.broadcast_to(start, there.shape)),
        np.ascontiguousarray(there, np.float32),
        dists=None if nearer_than is None else np.minimum(nearer_than[cells], 1e4),
        query="INTERSECT",
        output=True,
    )
    everything = Met(cells, ways, hits["primID"], hits["u"], hits["v"], hits["tfar"])
    return everything.take(np.flatnonzero(hits["primID"] >= 0))


def _traced(of: Model, performance: Performance, pose: Pose, fine: int) -> _Traced:
    """Cast and shade all rays of a picture."""
    camera = pose.camera.finer(_FINE)
    normal = basis.normals(pose.points, of.triangles)
    shown = _towards(of, pose, normal)
    scene = built(pose.points, of.corners[shown])
    depth = np.full(fine * fine, np.inf, np.float32)
    cells = _tiles(camera, pose.points, of.triangles[shown], fine)
    soft = met_by(scene, camera, cells, fine)
    soft = replace(soft, prim=shown[soft.prim].astype(np.int32))
    depth[soft.cells] = soft.far
    stiff = None
    if of.rigid is not None:
        cells = _tiles(camera, pose.carried(of.rigid.points), of.rigid.triangles, fine)
        stiff = met_by(of.rigid.scene, camera, cells, fine, pose, depth)
        depth[stiff.cells] = stiff.far
        soft = soft.take(soft.far <= depth[soft.cells])

    light = Light(
        np.array(performance.environment, np.float32),
        tuple(Lamp.placed(lamp) for lamp in performance.lamps),
    )
    colour = np.zeros((fine * fine, 3), np.float32)
    masks = {name: np.zeros(fine * fine, np.uint8) for name in MASKS}
    sky = of.transfer.share(light.turned(pose.turned))
    parts = _parted(of, pose, normal, sky, soft, stiff)
    for part, lit in zip(parts, _shadows(of, pose, scene, light, parts, fine), strict=True):
        if isinstance(part, shading.Hits):
            colour[part.cells] = _shaded_face(of, performance, pose, light, lit, part, masks)
        elif part.framed:
            paint = np.array(of.person.glasses_colour, np.float32)
            colour[part.cells] = shading.lacquer(paint, part.normal, part.view, light, lit)
            masks["glasses"][part.cells] = 255
        else:
            colour[part.cells] = shading.hair(part, light, lit)
            name = "hair" if part.rigid else "skin"
            masks[name][part.cells] = 255
            if not part.rigid:
                inner = shading.inner_depth(part.where) > 0
                masks["face"][part.cells[inner]] = 255
    if of.lenses is not None:
        _glazed(of.lenses, performance, pose, camera, light, colour, depth, masks["glasses"], fine)
    return _Traced(
        colour=colour.reshape(fine, fine, 3),
        covered=np.isfinite(depth).reshape(fine, fine).astype(np.float32),
        masks={name: mask.reshape(fine, fine) for name, mask in masks.items()},
        depth=depth.reshape(fine, fine),
        scene=scene,
    )


def _towards(of: Model, pose: Pose, normal: Array) -> NDArray[np.int64]:
    """The triangles (T,) that may be seen: not those that are turned well away from the camera.

    Heads are closed, so what is turned away hides behind what is not, from lamps in front too.
    """
    away = shading.dot(normal, np.array([0, 0, pose.camera.distance], np.float32) - pose.points)
    hidden = away < -0.35 * pose.camera.distance
    hidden[len(of.head) :] = False
    return np.flatnonzero(~hidden[of.triangles].all(1))


def _parted(
    of: Model, pose: Pose, normal: Array, sky: Array, soft: Met, stiff: Met | None
) -> list[shading.Hits | shading.Strands]:
    """Hits by what they are on: the head, its strands, the hair, the frame of glasses."""
    values = _values(of, pose, normal, sky)
    material = of.materials[soft.prim]
    strands = np.flatnonzero(material == STRAND)
    parts: list[shading.Hits | shading.Strands] = []
    if len(strands):
        parts.append(_face_hits(of, pose, values, soft.take(np.flatnonzero(material != STRAND))))
        parts.append(_strand_hits(of, pose, values, soft.take(strands)))
    else:
        parts.append(_face_hits(of, pose, values, soft))
    if stiff is not None and of.rigid is not None:
        framed = of.rigid.framed[stiff.prim]
        hairs = stiff.take(np.flatnonzero(~framed))
        parts.append(_rigid_hits(of.rigid, of.person, pose, hairs, framed=False))
        if framed.any():
            frame = stiff.take(np.flatnonzero(framed))
            parts.append(_rigid_hits(of.rigid, of.person, pose, frame, framed=True))
    return parts


def _values(of: Model, pose: Pose, normal: Array, sky: Array) -> Array:
    """What is interpolated over the head, the skirt and the strands: (N + H + M, 10).

    The normal, the place on the neutral head, the share of the sky (N, 3), the mouth.
    """
    neutral, strands, count = basis.load(), of.strands, len(of.head)
    values = np.empty((len(pose.points), 10), np.float32)
    values[:, :3] = normal
    values[:count, 3:6] = neutral.vertices
    values[:count, 6:9] = sky
    values[:count, 9] = neutral.mouth
    end = count + len(of.hem)
    values[count:end, 3:] = values[of.hem, 3:]
    values[count:end, 3:6] += _DROP
    if len(strands.roots):
        weights = strands.weights[..., None]
        values[end:, 3:] = (values[strands.roots, 3:] * weights).sum(1)
    return values


def places_of(pose: Pose, met: Met) -> Array:
    """The places (P, 3) of hits, in the camera's axes."""
    at = met.ways * met.far[:, None]
    at[:, 2] += np.float32(pose.camera.distance)
    return at


def _face_hits(of: Model, pose: Pose, values: Array, met: Met) -> shading.Hits:
    mixed = mixed_at(values, of.triangles, met.prim, met.u, met.v)
    return shading.Hits(
        cells=met.cells,
        at=places_of(pose, met),
        view=unit(-met.ways),
        normal=unit(mixed[:, :3].copy()),
        where=mixed[:, 3:6],
        sky=mixed[:, 6:9],
        mouth=mixed[:, 9],
        material=of.materials[met.prim],
    )


def _strand_hits(of: Model, pose: Pose, values: Array, met: Met) -> shading.Strands:
    strands = of.strands
    own = np.concatenate([strands.tangent, strands.shade[:, None], strands.colour], 1)
    triangles = of.triangles - len(of.head) - len(of.hem)
    mixed = mixed_at(np.asarray(own, np.float32), triangles, met.prim, met.u, met.v)
    around = mixed_at(values, of.triangles, met.prim, met.u, met.v)
    view = unit(-met.ways)
    return shading.Strands(
        cells=met.cells,
        at=places_of(pose, met),
        view=view,
        normal=_facing(unit(around[:, :3].copy()), view),
        where=around[:, 3:6],
        tangent=unit(mixed[:, :3] @ pose.turned.T),
        shade=mixed[:, 3],
        colour=mixed[:, 4:],
        openness=around[:, 6:9].mean(1),
        rigid=False,
        framed=False,
    )


def _rigid_hits(
    rigid: Rigid, person: Person, pose: Pose, met: Met, framed: bool
) -> shading.Strands:
    mixed = mixed_at(rigid.values, rigid.triangles, met.prim, met.u, met.v)
    view = unit(-met.ways)
    normal = unit(mixed[:, :3] @ pose.turned.T)
    return shading.Strands(
        cells=met.cells,
        at=places_of(pose, met),
        view=view,
        normal=_facing(normal, view) if framed else normal,
        where=mixed[:, :0],
        tangent=unit(mixed[:, 3:6] @ pose.turned.T),
        shade=mixed[:, 6],
        colour=np.array(person.hair_colour, np.float32),
        openness=mixed[:, 7],
        rigid=True,
        framed=framed,
    )


def _facing(normal: Array, view: Array) -> Array:
    """Both sides of a lock, and of a frame, are seen."""
    normal[shading.dot(normal, view) < 0] *= -1
    return normal


def _glazed(
    lenses: Rigid,
    performance: Performance,
    pose: Pose,
    camera: Camera,
    light: Light,
    colour: Array,
    depth: Array,
    mask: NDArray[np.uint8],
    fine: int,
) -> None:
    """Lay lenses over what is seen through them, in place; depth stays what is behind."""
    cells = _tiles(camera, pose.carried(lenses.points), lenses.triangles, fine)
    met = met_by(lenses.scene, camera, cells, fine, pose, depth)
    met = met.take(np.isfinite(depth[met.cells]))
    mixed = mixed_at(lenses.values, lenses.triangles, met.prim, met.u, met.v)
    view = unit(-met.ways)
    normal = _facing(unit(mixed[:, :3] @ pose.turned.T), view)
    colour[met.cells] = shading.lens(colour[met.cells], normal, view, light)
    mask[met.cells] = 255


def _shadows(
    of: Model,
    pose: Pose,
    scene: Any,
    light: Light,
    parts: list[shading.Hits | shading.Strands],
    fine: int,
) -> list[Array]:
    """The share of each lamp that reaches the hits of each part, (L, P) each.

    The first lamp's shadow is traced with one ray a pixel and softened, for each part apart; of
    the others, less arrives where less of the surroundings does.
    """
    found = []
    for hits in parts:
        lit = np.ones((len(light.lamps), len(hits.cells)), np.float32)
        for i, lamp in enumerate(light.lamps):
            lit[i] = (
                _traced_shadow(of, pose, scene, lamp, hits, fine)
                if i == 0
                else np.clip(1.6 * hits.open_sky - 0.2, 0, 1)
            )
        found.append(lit)
    return found


_LAMP = 0.07
"""The radius of the first lamp over its distance: a window or a softbox rather than a bulb."""


def _traced_shadow(
    of: Model,
    pose: Pose,
    scene: Any,
    lamp: Lamp,
    hits: shading.Hits | shading.Strands,
    fine: int,
) -> Array:
    """The share (P,) of a lamp that reaches hits, one ray a pixel, softened."""
    rows = hits.cells // fine
    columns = hits.cells - rows * fine
    few = (rows % 2 == 0) & (columns % 2 == 0)
    origins = hits.at[few] + 0.02 * hits.normal[few] + 0.01 * lamp.direction
    # Each ray aims at another spot of the lamp's face, so that its shadow softens with distance.
    turn = (0.754878 * columns[few] + 0.569840 * rows[few]) * (2 * np.pi)
    out = _LAMP * np.sqrt((0.5 + 0.618034 * columns[few] + 0.414214 * rows[few]) % 1)
    right = np.cross(lamp.direction, [0.0, 1.0, 0.02])
    right /= np.linalg.norm(right)
    up = np.cross(right, lamp.direction)
    ways = lamp.direction + np.outer(out * np.cos(turn), right) + np.outer(out * np.sin(turn), up)
    ways = ways.astype(np.float32)
    free = hits.normal[few] @ lamp.direction > -0.3
    towards = np.flatnonzero(free)
    for met, start, way in both_scenes(of, pose, scene, origins[towards], ways[towards]):
        free[towards] &= _free(met, start, way)
    half = fine // 2
    both = np.zeros((half, half, 2), np.float32)
    cell = (rows[few] // 2, columns[few] // 2)
    both[..., 0][cell] = free
    both[..., 1][cell] = 1
    blurred = np.asarray(cv2.GaussianBlur(both, (0, 0), 0.012 * half), np.float32)
    share = blurred[..., 0] / np.maximum(blurred[..., 1], 1e-3)
    soft: Array = share[rows // 2, columns // 2]
    return soft


def _shaded_face(
    of: Model,
    performance: Performance,
    pose: Pose,
    light: Light,
    lit: Array,
    hits: shading.Hits,
    masks: dict[str, NDArray[np.uint8]],
) -> Array:
    """Radiance (P, 3) of the head's surface; fills the masks."""
    result = np.zeros((len(hits.cells), 3), np.float32)
    expression: Mapping[str, float] = performance.expression
    for kind in range(STRAND):
        chosen = np.flatnonzero(hits.material == kind)
        if not len(chosen):
            continue
        part, light_part = hits.take(chosen), lit[:, chosen]
        if kind == SKIN:
            # Detail finer than a pixel, not than a ray: fine grain would only flicker.
            spacing = (performance.distance - 0.5) / pose.camera.focal
            result[chosen], cloth = shading.skin_and_cloth(
                of.coat,
                expression,
                part,
                light,
                light_part,
                pose.turned,
                performance.camera_rotation,
                spacing,
            )
            inside = part.mouth > 0.5
            masks["cloth"][part.cells[cloth]] = 255
            masks["mouth"][part.cells[inside & ~cloth]] = 255
            masks["skin"][part.cells[~inside & ~cloth]] = 255
        elif kind in (LEFT_EYE, RIGHT_EYE):
            ball = eyes.ball(pose.points, pose.turned, kind)
            result[chosen] = eyes.shade(
                of.inner, performance, ball, pose.turned, part.at, part.view, light, light_part
            )
            masks["eyes"][part.cells] = 255
        else:
            result[chosen] = mouth.shade(
                kind,
                of.inner,
                part.where,
                part.normal,
                part.view,
                light,
                light_part,
                pose.turned,
                mouth.opening(expression),
            )
            masks["mouth"][part.cells] = 255
            if kind == basis.TEETH:
                masks["teeth"][part.cells] = 255
    inner = (shading.inner_depth(hits.where) > 0) & (masks["cloth"][hits.cells] == 0)
    masks["face"][hits.cells[inner]] = 255
    return result
