"""``render(person, performance, size)``: the frame, and the truth about it.

Rays are cast on a 2×2 finer grid with Embree, shaded in linear light, averaged and encoded as
sRGB. One thread; the same arguments give the same bytes.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.core.errors import FacekitError
from facekit.core.seed import rng
from facekit.studio import basis, hair, skin
from facekit.studio import person as people
from facekit.studio.basis import HAIR, LEFT_EYE, RIGHT_EYE, SKIN, TEETH, TONGUE, Array, Indices
from facekit.studio.landmarks import landmarks
from facekit.studio.performance import Performance
from facekit.studio.person import Person
from facekit.types import Floats, Pixels

MAX_SIZE = 2048
_FINE = 2  # Rays a pixel's side.


@dataclass(frozen=True)
class Render:
    """A frame and its labels; points are (x, y) in pixels, pixel centres at +0.5.

    Attributes:
        pixels: uint8 RGB (S, S, 3).
        points: float32 (5, 2), the five points of :data:`facekit.types.POINTS`.
        landmarks: float32 (68, 2), in iBUG-68's order.
        face_mask: uint8 (S, S), 255 on the inner face: brows to chin, without hair over it.
        pose: yaw, pitch, roll in degrees, as :mod:`facekit.types` has them.
    """

    pixels: Pixels
    points: Floats
    landmarks: Floats
    face_mask: NDArray[np.uint8]
    pose: tuple[float, float, float]


@dataclass(frozen=True)
class _Model:
    """What stays the same through all frames of a person."""

    head: Array
    places: Array
    points: Array
    turn: Array
    openness: Array
    mouth: Array
    triangles: Indices
    materials: Indices
    centre: Array
    pivot: Array
    colour: Array
    atlas: Array


@lru_cache(maxsize=3)
def _model(person_json: str) -> _Model:
    person = Person.model_validate_json(person_json)
    base = basis.load()
    head = people.neutral(person_json)
    grown = hair.grow(person, head, basis.normals(head, base.triangles))
    points, places, triangles = head, base.vertices, base.triangles
    materials, openness, mouth = base.materials, base.openness, base.mouth
    if grown is not None:
        count = len(grown.points)
        triangles = np.concatenate([triangles, grown.triangles + len(points)])
        points = np.concatenate([points, grown.points])
        places = np.concatenate([places, grown.places])
        materials = np.concatenate([materials, np.full(len(grown.triangles), HAIR, np.int32)])
        # Hair that hangs is darker towards the neck.
        shade = np.clip(0.55 + 0.45 * (grown.places[:, 1] - 6.2) / 1.4, 0.5, 1)
        openness = np.concatenate([openness, shade])
        mouth = np.concatenate([mouth, np.zeros(count, np.float32)])
    turn = _turn(places)
    neck = (turn[: len(head)] > 0.3) & (turn[: len(head)] < 0.7)
    eyes = [head[np.unique(base.triangles[base.materials == eye])] for eye in (LEFT_EYE, RIGHT_EYE)]
    between = np.mean([eye.mean(0) for eye in eyes], axis=0)
    return _Model(
        head=head,
        places=places.astype(np.float32),
        points=points.astype(np.float32),
        turn=turn,
        openness=openness.astype(np.float32),
        mouth=mouth.astype(np.float32),
        triangles=np.ascontiguousarray(triangles, np.int32),
        materials=materials,
        centre=(between + np.array([0, 0, 0.1])).astype(np.float32),
        pivot=head[neck].mean(0),
        colour=np.array(person.hair_colour, np.float32),
        atlas=skin.paint(person_json).atlas,
    )


def _turn(places: Array) -> Array:
    """How far a point follows the head (1) or stays with the shoulders (0)."""
    share = np.clip((places[:, 1] + 0.45 * np.maximum(places[:, 2], -0.5) - 5.9) / 0.8, 0, 1)
    turn: Array = (share * share * (3 - 2 * share)).astype(np.float32)
    return turn


def rotation(yaw: float, pitch: float, roll: float) -> Array:
    """The head's rotation (3, 3): roll, then pitch, then yaw; angles as in facekit.types."""
    (sy, sp, sr), (cy, cp, cr) = (f(np.radians([yaw, pitch, roll])) for f in (np.sin, np.cos))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    result: Array = (about_y @ about_x @ about_z).astype(np.float32)
    return result


def _expression(performance: Performance) -> dict[str, float]:
    """The face units, and the lids following the eyes."""
    units = dict(performance.expression)
    up = performance.gaze_y / 35
    for side in ("Left", "Right"):
        for name, value in ((f"eyeLookUp{side}", up), (f"eyeLookDown{side}", -up)):
            if value > 0:
                units[name] = min(units.get(name, 0.0) + value, 1.0)
    return units


@dataclass(frozen=True)
class _Camera:
    """Looks along −z from (0, 0, distance); focal length and centre in fine pixels."""

    distance: float
    focal: float
    x: float
    y: float

    def project(self, points: Array) -> Array:
        """Points (..., 3) to fine pixels (..., 2)."""
        depth = self.distance - points[..., 2]
        x = self.x + self.focal * points[..., 0] / depth
        y = self.y - self.focal * points[..., 1] / depth
        seen: Array = np.stack([x, y], -1).astype(np.float32)
        return seen

    def rays(self, columns: Array, rows: Array) -> Array:
        """Directions (P, 3) through fine pixels' centres."""
        x = (columns + 0.5 - self.x) / self.focal
        y = -(rows + 0.5 - self.y) / self.focal
        directions: Array = np.stack([x, y, np.full_like(x, -1)], 1).astype(np.float32)
        return directions


def render(person: Person, performance: Performance, size: int = 256) -> Render:
    """Render one frame; ``size`` in pixels a side, 16 to 2048.

    ``render(a, p)`` and ``render(b, p)`` share expression, pose, gaze, camera, light and
    background exactly: one is the true answer of a re-enactment from the other.

    Raises:
        FacekitError: if ``size`` is out of range.
    """
    if not 16 <= size <= MAX_SIZE:
        raise FacekitError(f"size {size}: allowed are 16 to {MAX_SIZE} pixels")
    base = basis.load()
    model = _model(person.model_dump_json())
    turned = rotation(performance.yaw, performance.pitch, performance.roll)

    points = model.points.copy()
    units = _expression(performance)
    if units:
        points[: len(model.head)] += base.displaced(units)
    points -= model.pivot
    points += model.turn[:, None] * (points @ turned.T - points)
    points += model.pivot - model.centre
    points = np.ascontiguousarray(points, np.float32)

    fine = size * _FINE
    focal = performance.scale * fine / 2.4 * performance.distance
    camera = _Camera(
        performance.distance, focal, performance.centre_x * fine, performance.centre_y * fine
    )
    colour, covered, face = _shade(person, performance, model, points, turned, camera, fine)
    picture = _encode(_over_background(colour, covered, performance, size))
    marks = landmarks(points)
    five = _five(points, marks, turned)
    return Render(
        pixels=picture,
        points=(camera.project(five) / _FINE).astype(np.float32),
        landmarks=(camera.project(marks) / _FINE).astype(np.float32),
        face_mask=np.where(_shrink(face) > 0.5, 255, 0).astype(np.uint8),
        pose=(performance.yaw, performance.pitch, performance.roll),
    )


def _shrink(picture: Array) -> Array:
    """The mean of each 2×2 block."""
    height, width = picture.shape[:2]
    blocks = picture.reshape(height // 2, 2, width // 2, 2, *picture.shape[2:])
    mean: Array = blocks.mean((1, 3))
    return mean


def _shade(
    person: Person,
    performance: Performance,
    model: _Model,
    points: Array,
    turned: Array,
    camera: _Camera,
    fine: int,
) -> tuple[Array, Array, Array]:
    """Linear colour (fine, fine, 3), coverage and face region (fine, fine)."""
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    corners = points[model.triangles]
    TriangleMesh(scene, corners)

    seen = camera.project(points)
    low = np.clip(np.floor(seen.min(0)).astype(int), 0, fine - 1)
    high = np.clip(np.ceil(seen.max(0)).astype(int), 1, fine)
    grid = np.meshgrid(
        np.arange(low[0], high[0], dtype=np.float32), np.arange(low[1], high[1], dtype=np.float32)
    )
    columns, rows = grid[0].ravel(), grid[1].ravel()
    directions = camera.rays(columns, rows)
    origins = np.zeros_like(directions)
    origins[:, 2] = camera.distance
    hits = scene.run(origins, directions, query="INTERSECT", output=True)
    found = hits["primID"] >= 0
    prim = hits["primID"][found]
    u, v = hits["u"][found], hits["v"][found]
    view = -directions[found]
    view /= np.linalg.norm(view, axis=1, keepdims=True)
    place = (rows[found].astype(np.int64), columns[found].astype(np.int64))

    values = np.concatenate(
        [
            basis.normals(points, model.triangles),
            model.places,
            points,
            model.openness[:, None],
            model.mouth[:, None],
        ],
        1,
    ).astype(np.float32)
    abc = model.triangles[prim]
    mixed = values[abc[:, 0]] * (1 - u - v)[:, None]
    mixed += values[abc[:, 1]] * u[:, None]
    mixed += values[abc[:, 2]] * v[:, None]
    normal = mixed[:, :3]
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    # Both sides of the curtain of hair are seen.
    backwards = (normal * view).sum(1) < 0
    normal[backwards & (model.materials[prim] == HAIR)] *= -1
    where, at = mixed[:, 3:6], mixed[:, 6:9]
    openness, mouth = mixed[:, 9], mixed[:, 10]
    material = model.materials[prim]

    lamp = _lamp(performance)
    lit = _shadow(scene, at, normal, lamp, place, fine)
    light = _Light(
        lamp,
        np.array(performance.key, np.float32),
        np.array(performance.ambient, np.float32),
    )
    result = np.zeros((len(prim), 3), np.float32)
    for kind in (SKIN, TEETH, TONGUE, HAIR):
        mask = material == kind
        if mask.any():
            albedo, gloss = _surface(kind, person, model, where[mask], mouth[mask])
            sky, key = openness[mask], lit[mask]
            if kind == SKIN:
                sky = sky * (1 - 0.85 * mouth[mask])
            if kind in (TEETH, TONGUE):
                # Inside the mouth it is dark, the more so the further back.
                sky = np.clip((where[mask][:, 2] - 0.75) / 0.65, 0.05, 1) ** 1.5 * 0.8
                key = key * np.sqrt(sky)
            result[mask] = light.on(albedo, gloss, normal[mask], view[mask], sky, key, kind)
    for eye in (LEFT_EYE, RIGHT_EYE):
        mask = material == eye
        if mask.any():
            result[mask] = _eye(
                person, performance, points, turned, eye, at[mask], view[mask], lit[mask], light
            )

    colour = np.zeros((fine, fine, 3), np.float32)
    covered = np.zeros((fine, fine), np.float32)
    face = np.zeros((fine, fine), np.float32)
    colour[place] = result
    covered[place] = 1
    face[place] = _inner_face(where) & (material != HAIR)
    return colour, covered, face


def _inner_face(where: Array) -> NDArray[np.bool_]:
    """Brows to chin and cheek to cheek, on the neutral head."""
    x, y = np.abs(where[:, 0]), where[:, 1]
    wide = np.interp(y, [6.2, 6.4, 6.8, 7.3, 7.6], [0.25, 0.45, 0.62, 0.66, 0.6])
    inside: NDArray[np.bool_] = (x < wide) & (y > 6.2) & (y < 7.6) & (where[:, 2] > 0.3)
    return inside


def _lamp(performance: Performance) -> Array:
    azimuth, elevation = np.radians([performance.key_azimuth, performance.key_elevation])
    direction: Array = np.array(
        [
            np.sin(azimuth) * np.cos(elevation),
            np.sin(elevation),
            np.cos(azimuth) * np.cos(elevation),
        ],
        np.float32,
    )
    return direction


def _shadow(
    scene: object,
    at: Array,
    normal: Array,
    lamp: Array,
    place: tuple[NDArray[np.int64], NDArray[np.int64]],
    fine: int,
) -> Array:
    """The share of the lamp that reaches each hit (P,), one ray a pixel, softened."""
    rows, columns = place
    few = (rows % 2 == 0) & (columns % 2 == 0)
    origins = at[few] + 0.02 * normal[few] + 0.01 * lamp
    directions = np.broadcast_to(lamp, origins.shape)
    hits = scene.run(  # type: ignore[attr-defined]
        np.ascontiguousarray(origins, np.float32),
        np.ascontiguousarray(directions, np.float32),
        query="OCCLUDED",
    )
    half = fine // 2
    lit = np.zeros((half, half), np.float32)
    weight = np.zeros((half, half), np.float32)
    cell = (rows[few] // 2, columns[few] // 2)
    lit[cell] = np.asarray(hits) < 0
    weight[cell] = 1
    sigma = 0.012 * half
    blurred = np.asarray(cv2.GaussianBlur(np.dstack([lit, weight]), (0, 0), sigma), np.float32)
    share = blurred[..., 0] / np.maximum(blurred[..., 1], 1e-3)
    soft: Array = share[rows // 2, columns // 2]
    return soft


@dataclass(frozen=True)
class _Light:
    lamp: Array
    key: Array
    ambient: Array

    def on(
        self,
        albedo: Array,
        gloss: Array,
        normal: Array,
        view: Array,
        sky: Array,
        lit: Array,
        kind: int,
    ) -> Array:
        """Radiance (P, 3): soft ambient light, a wrapped key light and its gleam."""
        facing = normal @ self.lamp
        # Light wraps round skin, red most: a cheap stand-in for scattering below the surface.
        wrap = np.array([0.38, 0.24, 0.18] if kind == SKIN else [0.2, 0.2, 0.2], np.float32)
        diffuse = np.clip((facing[:, None] + wrap) / (1 + wrap), 0, None) ** 1.2
        shade = (0.12 + 0.88 * lit)[:, None]
        above = (0.72 + 0.28 * normal[:, 1]) * (0.18 + 0.82 * sky)
        ambient = self.ambient * above[:, None]
        half = self.lamp + view
        half /= np.linalg.norm(half, axis=1, keepdims=True)
        aligned = np.clip((normal * half).sum(1), 0, 1)
        grazing = (1 - np.clip((normal * view).sum(1), 0, 1)) ** 4
        gleam = gloss * lit * (0.10 * aligned**14 + 0.22 * aligned**60)
        sheen = gloss * (0.05 + 0.35 * grazing) * sky * 0.25
        result: Array = albedo * (self.key * diffuse * shade + ambient)
        result += gleam[:, None] * self.key * 0.6 + sheen[:, None] * self.ambient
        return result


_PLAIN = {TEETH: ((0.62, 0.57, 0.47), 0.6), TONGUE: ((0.33, 0.10, 0.09), 0.5)}


def _surface(
    kind: int, person: Person, model: _Model, where: Array, mouth: Array
) -> tuple[Array, Array]:
    """Albedo (P, 3) and gloss (P,) of a material at places on the neutral head."""
    if kind == SKIN:
        return _skin(person, model, where, mouth)
    if kind == HAIR:
        return _hair(person, model, where)
    colour, gloss = _PLAIN[kind]
    albedo = np.broadcast_to(np.array(colour, np.float32), where.shape)
    return albedo, np.full(len(where), gloss, np.float32)


def _skin(person: Person, model: _Model, where: Array, mouth: Array) -> tuple[Array, Array]:
    """Albedo and gloss of skin, the mouth's inside, and clothes below the collar."""
    column, row = basis.atlas_place(where)
    texture: Array = cv2.remap(  # type: ignore[assignment]
        model.atlas,
        _tile(column),
        _tile(row),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    ).reshape(-1, 4)[: len(where)]
    albedo, gloss = texture[:, :3].copy(), texture[:, 3].copy()
    inside = mouth[:, None]
    albedo += inside * (np.array([0.22, 0.06, 0.055], np.float32) - albedo)
    level = where[:, 1] + 0.4 * where[:, 2] - 0.12 * np.abs(where[:, 0])
    cloth = level < 5.98
    ribbed = 1 - 0.18 * (level > 5.9)
    albedo[cloth] = np.array(person.cloth, np.float32) * ribbed[cloth, None]
    gloss[cloth] = 0.05
    return albedo, gloss


def _tile(values: Array) -> Array:
    """Coordinates as a picture whose sides OpenCV's remap accepts (below 32768)."""
    width = 1024
    padded = np.zeros(-(-len(values) // width) * width, np.float32)
    padded[: len(values)] = values - 0.5
    return padded.reshape(-1, width)


@lru_cache(maxsize=2)
def _strands(curly: bool) -> Array:
    """A tile of strands (rows run along them) or of curls, around 1."""
    random = rng(11, int(curly))
    noise = random.normal(size=(512, 512)).astype(np.float32)
    noise = np.tile(noise, (3, 3))  # So that the tile's edges meet.
    if curly:
        fine, coarse = (cv2.GaussianBlur(noise, (0, 0), sigma) for sigma in (3.0, 6.0))
        tile = np.asarray(3 * fine + 6 * coarse)
    else:
        tile = 6.0 * np.asarray(cv2.GaussianBlur(noise, (0, 0), sigmaX=1.0, sigmaY=26))
        tile = tile + 20.0 * np.asarray(cv2.GaussianBlur(noise, (0, 0), sigmaX=5, sigmaY=60))
    tile = tile[512:1024, 512:1024]
    centred: Array = (1 + 0.3 * (tile - tile.mean()) / tile.std()).astype(np.float32)
    return np.clip(centred, 0.25, 2.2)


def _hair(person: Person, model: _Model, where: Array) -> tuple[Array, Array]:
    style = hair.STYLES[person.hair]
    curly = style is not None and style.curl > 0
    around = np.arctan2(where[:, 0], where[:, 2] - 0.15)
    if curly:
        column, row = around * (1024 / (2 * np.pi)), where[:, 1] * 150
    else:
        out = np.hypot(where[:, 0], where[:, 2] - 0.15)
        column, row = around * (1024 / (2 * np.pi)), where[:, 1] * 120 - out * 60
    tile = _strands(curly)
    shade = cv2.remap(
        tile, _tile(column % 512), _tile(row % 512), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    ).ravel()[: len(where)]
    albedo = model.colour * shade[:, None]
    gloss = np.clip((0.15 if curly else 0.5) * (shade - 0.4), 0, 1)
    return albedo, gloss.astype(np.float32)


def _eye(
    person: Person,
    performance: Performance,
    points: Array,
    turned: Array,
    eye: int,
    at: Array,
    view: Array,
    lit: Array,
    light: _Light,
) -> Array:
    """An eyeball shaded as a sphere: sclera, iris with fibres, pupil, and the lamp's highlight."""
    centre, _ = _eyeball(points, eye)
    outwards = at - centre
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    gaze = turned @ rotation(performance.gaze_x, performance.gaze_y, 0)
    local = outwards @ gaze  # Into the eye's own frame: z along the gaze.
    angle = np.arctan2(local[:, 1], local[:, 0])
    off = np.hypot(local[:, 0], local[:, 1]) / 0.44
    off = np.where(local[:, 2] > 0, off, 9.0)
    iris = np.array(person.iris, np.float32)
    fibres = 1 + 0.22 * np.sin(angle * 23) * np.sin(angle * 9 + 1) + 0.25 * np.cos(off * 9)
    ring = 1 - 0.75 * np.clip((off - 0.78) / 0.2, 0, 1)
    inner = (iris * 1.25 + 0.01) * (fibres * ring)[:, None]
    sclera = np.array([0.68, 0.64, 0.62], np.float32) * np.ones((len(at), 1), np.float32)
    # Blood in the corners.
    corner = np.clip(np.abs(local[:, 0]) - 0.55, 0, 0.5)
    sclera[:, 1:] *= (1 - 0.6 * corner)[:, None]
    albedo = sclera + np.clip((1.05 - off) / 0.1, 0, 1)[:, None] * (inner - sclera)
    albedo *= 1 - 0.97 * np.clip((0.40 - off) / 0.06, 0, 1)[:, None]
    # The upper lid and its lashes shade the ball.
    height = outwards @ turned[:, 1]
    shade = np.clip(1 - 1.6 * np.clip(height - 0.05, 0, 1), 0.35, 1)
    result: Array = albedo * (
        light.ambient * (0.8 * shade)[:, None]
        + light.key * (np.clip(outwards @ light.lamp + 0.25, 0, 1) * shade * lit * 0.8)[:, None]
    )
    half = light.lamp + view
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    # The cornea bulges: its normal leans from the ball's towards the rim of the iris.
    bulge = outwards + np.where(off < 1.15, 0.9, 0.0)[:, None] * (outwards - gaze[:, 2])
    bulge /= np.linalg.norm(bulge, axis=1, keepdims=True)
    spot = np.clip((bulge * half).sum(1), 0, 1) ** 350
    window = np.clip((bulge @ _WINDOW), 0, 1) ** 250
    result += (1.6 * spot * (0.3 + 0.7 * lit) + 0.35 * window)[:, None]
    return result


_WINDOW = np.array([-0.18, 0.26, 0.95], np.float32)
_WINDOW /= np.linalg.norm(_WINDOW)


def _eyeball(points: Array, eye: int) -> tuple[Array, float]:
    vertices = _eye_vertices(eye)
    centre = (points[vertices].min(0) + points[vertices].max(0)) / 2
    radius = float(np.linalg.norm(points[vertices] - centre, axis=1).mean())
    return centre, radius


@lru_cache(maxsize=2)
def _eye_vertices(eye: int) -> Indices:
    base = basis.load()
    return np.unique(base.triangles[base.materials == eye])


def _over_background(colour: Array, covered: Array, performance: Performance, size: int) -> Array:
    """Linear picture (S, S, 3): the person over soft shapes out of focus."""
    random = rng(performance.background)
    side = 64
    tone = np.array(performance.background_colour, np.float32)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    slope = random.normal(0, 0.35, 2)
    back = tone * (1 + slope[0] * (x - 0.5) + slope[1] * (y - 0.5))[..., None]
    for _ in range(int(random.integers(2, 7))):
        cx, cy = random.uniform(-0.1, 1.1, 2)
        wide, high = random.uniform(0.06, 0.35, 2)
        inside = (np.abs(x - cx) < wide) & (np.abs(y - cy) < high)
        if random.random() < 0.4:
            inside = ((x - cx) / wide) ** 2 + ((y - cy) / high) ** 2 < 1
        shape = tone * random.uniform(0.4, 1.8) * (1 + 0.25 * random.uniform(-1, 1, 3))
        back[inside] = shape
    back = cv2.GaussianBlur(back.astype(np.float32), (0, 0), float(random.uniform(2, 5)))
    back = cv2.resize(np.clip(back, 0.005, 0.95), (size, size), interpolation=cv2.INTER_CUBIC)
    share = _shrink(covered)[..., None]
    result: Array = _shrink(colour) + (1 - share) * back
    return result


def _encode(picture: Array) -> Pixels:
    """Linear light to sRGB bytes, with a soft shoulder."""
    x = np.clip(picture, 0, None)
    x = 1.12 * x / (1 + 0.22 * x)
    encoded = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    pixels: Pixels = (np.clip(encoded, 0, 1) * 255 + 0.5).astype(np.uint8)
    return pixels


def _five(points: Array, marks: Array, turned: Array) -> Array:
    """MTCNN's five points (5, 3): the eyes' middles on the ball, nose tip, mouth corners."""
    eyes = []
    for eye in (RIGHT_EYE, LEFT_EYE):  # The person's own right eye is on the picture's left.
        centre, radius = _eyeball(points, eye)
        eyes.append(centre + radius * turned[:, 2])
    five: Array = np.stack([*eyes, marks[30], marks[48], marks[54]])
    return five
