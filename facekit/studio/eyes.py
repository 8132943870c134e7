"""Eyeballs: sclera, iris, pupil, the cornea over them, and what the lids do to their light.

The head's mesh only says where an eyeball is seen. Its shape is a sphere with a second, steeper
one, the cornea, on its front; rays are bent there and meet the iris on a plane behind it. Sizes
are those of adults (Forrester et al. 2020): the iris 11.7 mm across with little variation, the
cornea's radius 7.8 mm, the pupil 2 to 6 mm. Lengths are in dm, angles in degrees.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from facekit.core.seed import rng
from facekit.studio import basis
from facekit.studio import person as people
from facekit.studio.basis import LEFT_EYE, RIGHT_EYE, Array, Indices
from facekit.studio.light import Light
from facekit.studio.performance import Performance, rotation
from facekit.studio.person import Person
from facekit.studio.vectors import step, unit

IRIS = 0.0585
"""Radius of the average adult's iris."""

CORNEA = 0.078
TURN = 0.8
"""What share of the gaze the drawn balls turn by."""

HIGHEST, LOWEST = 18.0, 24.0
"""The gaze, in degrees up and down, that the lids follow at most."""

PUPIL = (0.011, 0.030)
"""The least and the greatest radius of a pupil."""

_BEND = 1 / 1.336  # Air to the water behind the cornea.
_LAMP = np.radians(8)  # Half of a lamp's side, as a highlight shows it.


@dataclass(frozen=True)
class Ball:
    """One eyeball of a posed head, in the camera's axes.

    Attributes:
        centre: (3,);  radius: of the sclera.
        side: 1 for the person's own left eye, −1 for the right.
        upper, lower: (2, K) the lids' margins, seen from the head's front: x to the own left
            and y up from the centre, in radii, in order of x.
    """

    centre: Array
    radius: float
    side: int
    upper: Array
    lower: Array


def ball(points: Array, turned: Array, eye: int) -> Ball:
    """The eyeball ``LEFT_EYE`` or ``RIGHT_EYE`` of a posed head (N, 3) with axes ``turned``."""
    vertices, anchors, shares = _rest(eye)
    own = points[vertices]
    centre = own.mean(0)
    radius = float(np.linalg.norm(own - centre, axis=1).mean())
    margin = (points[anchors] * shares[..., None]).sum(1)
    flat = ((margin - centre) @ turned[:, :2] / radius).astype(np.float32)
    half = len(flat) // 2
    upper, lower = (
        part[np.argsort(part[:, 0], kind="stable")].T for part in np.split(flat, [half])
    )
    return Ball(centre.astype(np.float32), radius, 1 if eye == LEFT_EYE else -1, upper, lower)


def gaze(person: Person, performance: Performance, turned: Array) -> Array:
    """The axes (3, 3) of both eyes: right, up and straight ahead.

    The mesh's balls are 30 mm wide and not 24: at the same angle their irises would go a quarter
    too far between the lids, so that they turn by ``TURN`` of the gaze, from where :func:`level`
    has them at rest.
    """
    up = TURN * performance.gaze_y + _own_level(person.model_dump_json())
    axes: Array = turned @ rotation(TURN * performance.gaze_x, up, 0)
    return axes


def level(head: Array) -> float:
    """How far up, in degrees, irises lie at rest: just above the middle between the lids."""
    middles = []
    for eye in (LEFT_EYE, RIGHT_EYE):
        lids = ball(head, np.eye(3, dtype=np.float32), eye)
        middles.append(0.5 * (np.interp(0, *lids.upper) + np.interp(0, *lids.lower)) + 0.03)
    return float(np.degrees(np.clip(np.mean(middles), -0.16, 0.05)))


@lru_cache(maxsize=8)
def _own_level(person_json: str) -> float:
    return level(people.neutral(person_json))


def lids(gaze_y: float) -> dict[str, float]:
    """The face units by which both lids follow the eyes, ``gaze_y`` degrees up."""
    up, down = min(max(gaze_y, 0) / HIGHEST, 1.0), min(max(-gaze_y, 0) / LOWEST, 1.0)
    units = {"eyeLookUp": up, "eyeWide": 0.4 * up, "eyeLookDown": down}
    return {f"{unit}{side}": v for unit, v in units.items() if v for side in ("Left", "Right")}


def iris_centres(person: Person, points: Array, turned: Array, performance: Performance) -> Array:
    """Where the irises' centres lie on the corneas (2, 3), the picture's left eye first.

    Args:
        person: whose eyes they are.
        points: (N, 3) the posed head's vertices.
        turned: (3, 3) its axes.
        performance: for its gaze.
    """
    ahead = gaze(person, performance, turned)[:, 2]
    found = []
    for eye in (RIGHT_EYE, LEFT_EYE):  # The person's own right eye is on the picture's left.
        one = ball(points, turned, eye)
        found.append(one.centre + one.radius * ahead)
    return np.stack(found)


def pupil_radius(person: Person, performance: Performance, light: Light, turned: Array) -> float:
    """In dm, within ``PUPIL``: smaller in bright light and with age (Watson & Yellott 2012)."""
    ahead = turned[:, 2]
    received = light.irradiance(ahead[None].astype(np.float32))[0]
    for lamp in light.lamps:
        received = received + max(float(ahead @ lamp.direction), 0) * lamp.colour
    bright = float(received @ np.array([0.21, 0.72, 0.07]))
    breathing = 1 + 0.02 * np.sin(2.1 * performance.time + person.seed % 7)
    size = 0.0205 * max(bright, 0.02) ** -0.28 * (1 - 0.004 * (person.age - 30)) * breathing
    return float(np.clip(size, *PUPIL))


def iris_radius(person: Person) -> float:
    """In dm; it differs by a few hundredths between adults."""
    return float(IRIS * np.clip(1 + 0.025 * rng(person.seed, 31).normal(), 0.95, 1.05))


def shade(
    person: Person,
    performance: Performance,
    ball: Ball,
    turned: Array,
    at: Array,
    view: Array,
    light: Light,
    lit: Array,
) -> Array:
    """Radiance (P, 3) of hits on an eyeball.

    Args:
        person: whose eye it is.
        performance: for gaze and time.
        ball: from :func:`ball`.
        turned: (3, 3) the head's axes.
        at: (P, 3) places in the camera's axes.
        view: (P, 3) unit directions to the camera.
        light: what shines.
        lit: (L, P) the share of each lamp that arrives.
    """
    axes = gaze(person, performance, turned)
    see = view @ axes
    on_ball = _met((at - ball.centre) @ axes, see, 0.0, ball.radius)
    iris = iris_radius(person)
    limbus = float(np.sqrt(ball.radius**2 - iris**2))
    middle = limbus - float(np.sqrt(CORNEA**2 - iris**2))
    on_cornea = _met(on_ball, see, middle, CORNEA)
    # Within the cornea what lies behind is seen through it; elsewhere it is the ball itself.
    through = step((on_cornea[:, 2] - limbus) / 0.006)
    out = on_ball / ball.radius
    bulge = (on_cornea - np.array([0, 0, middle], np.float32)) / CORNEA

    cosine = np.clip((bulge * see).sum(1), 0, 1)
    inner = np.sqrt(1 - _BEND**2 * (1 - cosine**2))
    bent = (_BEND * cosine - inner)[:, None] * bulge - _BEND * see
    depth = (on_cornea[:, 2] - (limbus - 0.004)) / np.maximum(-bent[:, 2], 0.2)
    plane = on_cornea + depth[:, None] * bent
    off = np.hypot(plane[:, 0], plane[:, 1]) / iris
    angle = np.arctan2(plane[:, 1], plane[:, 0])

    white, openness, wet = _white(person, ball, out, ((at - ball.centre) @ turned) / ball.radius)
    pupil = pupil_radius(person, performance, light, turned) / iris
    coloured = _coloured(person, off, angle, pupil)
    share = (through * step((1.04 - off) / 0.16))[:, None]
    albedo = white + share * (coloured - white)

    # The iris is a shallow bowl: its far side from a lamp is the brighter.
    bowl = np.concatenate([-0.45 * plane[:, :2] / iris, np.ones((len(at), 1), np.float32)], 1)
    front = unit(out + share * (bowl - out)) @ axes.T
    gleam_from = unit(out + through[:, None] * (bulge - out))
    result = light.irradiance(front) * openness[:, None]
    shadow = (0.35 + 0.65 * openness)[:, None]
    for lamp, arrives in zip(light.lamps, lit, strict=True):
        facing = np.clip((front @ lamp.direction + 0.12) / 1.12, 0, None)
        result += (facing * arrives)[:, None] * shadow * lamp.colour
    result *= albedo

    mirrored = 2 * (gleam_from * see).sum(1)[:, None] * gleam_from - see
    towards = unit(mirrored @ axes.T)
    grazing = 1 - np.clip((gleam_from * see).sum(1), 0, 1)
    fresnel = 0.025 + 0.55 * grazing**5
    # Brow and lashes stand between the upper part of the cornea and the sky.
    clear = openness * step((0.95 - towards @ turned[:, 1]) / 0.5)
    result += (fresnel * clear * (1 + wet))[:, None] * light.radiance(towards)
    for lamp, arrives in zip(light.lamps, lit, strict=True):
        seen = _softbox(towards, lamp.direction, through)
        strength = fresnel * seen * np.clip(1.2 * arrives + 0.1, 0, 1) / np.sin(_LAMP) ** 2
        result += (np.minimum(strength, 1.6) * (0.3 + 0.7 * openness))[:, None] * lamp.colour
        # The tear film along the lower lid catches every lamp.
        result += (0.16 * wet * (0.1 + 0.9 * arrives) * openness)[:, None] * lamp.colour
    result += (0.04 * wet)[:, None] * light.irradiance(front)
    shown: Array = result.astype(np.float32)
    return shown


def _white(person: Person, ball: Ball, out: Array, flat: Array) -> tuple[Array, Array, Array]:
    """The sclera's albedo (P, 3), how open the place is (P,), and how wet its rim (P,).

    Args:
        person: for age and vessels.
        ball: for the lids.
        out: (P, 3) the place on the unit sphere, in the eye's axes.
        flat: (P, 3) the same in the head's axes.
    """
    x, y = flat[:, 0], flat[:, 1]
    upper = np.interp(x, *ball.upper).astype(np.float32)
    lower = np.interp(x, *ball.lower).astype(np.float32)
    below, above = np.maximum(upper - y, 0), np.maximum(y - lower, 0)
    inwards = -ball.side * x

    # Between the lids it is the darker, the nearer the upper one and the corners.
    gap = np.clip(upper - lower, 0, 1)
    openness = 0.12 + 0.88 * step((below + 0.04) / 0.5)
    openness *= 0.6 + 0.4 * step(above / 0.16)
    openness *= 0.3 + 0.7 * step(gap / 0.5)

    age = (person.age - 18) / 62
    tone = np.array([0.47, 0.44, 0.415], np.float32) * np.array(
        [1 + 0.01 * age, 1 - 0.03 * age, 1 - 0.13 * age], np.float32
    )
    if person.skin_tone > 6:
        tone = tone * np.array([0.95, 0.90, 0.83], np.float32)
    albedo = np.broadcast_to(tone, (len(out), 3)).copy()
    # Blood: more towards the corners, and along the vessels.
    corner = step((np.abs(x) - 0.3) / 0.6)
    albedo *= 1 - corner[:, None] * np.array([0.06, 0.22, 0.22], np.float32)
    vessels = _sampled(_vessels(person.seed), (out[:, 0] + 1.1) / 2.2, (out[:, 1] + 1.1) / 2.2)
    drawn = vessels[:, None] * (0.45 + 0.75 * person.redness)
    albedo *= 1 - np.clip(drawn, 0, 1) * np.array([0.12, 0.5, 0.48], np.float32)
    # The caruncle fills the inner corner; the lids' margins are pink.
    inner_corner = float(-ball.side * (ball.lower[0][0] if ball.side > 0 else ball.lower[0][-1]))
    flesh = step((inwards - (inner_corner - 0.27)) / 0.17)
    rim = np.exp(-((above / 0.045) ** 2))
    pink = tone * np.array([0.86, 0.50, 0.47], np.float32)
    albedo += np.maximum(flesh, 0.8 * rim)[:, None] * (pink - albedo)
    wet = np.exp(-(((above - 0.05) / 0.014) ** 2)) * (1 - 0.5 * flesh) + 0.25 * flesh * (
        np.exp(-(((above - 0.12) / 0.04) ** 2))
    )
    return albedo, openness.astype(np.float32), wet.astype(np.float32)


def _coloured(person: Person, off: Array, angle: Array, pupil: float) -> Array:
    """Albedo (P, 3) of iris and pupil, by distance from the axis in iris radii and angle."""
    # Fibres stretch between the pupil's edge and the limbus.
    along = np.clip((off - pupil) / (1 - pupil), 0, 1)
    texture = _iris(person.seed, person.iris)
    albedo: Array = _sampled(texture, 0.002 + 0.996 * along, angle / (2 * np.pi) % 1)
    albedo *= step((off - pupil) / 0.09 + 0.5)[:, None]
    return albedo + 0.004


def _softbox(towards: Array, lamp: Array, sharp: Array) -> Array:
    """How much of a square lamp lies in directions (P, 3); softer where less ``sharp`` (P,)."""
    across = np.cross([0.0, 1.0, 0.0], lamp)
    across /= max(float(np.linalg.norm(across)), 1e-3)
    upwards = np.cross(lamp, across)
    side = np.maximum(np.abs(towards @ across), np.abs(towards @ upwards)) / np.sin(_LAMP)
    soft = 1.1 - 0.7 * sharp
    seen: Array = step((1 + 0.5 * soft - side) / soft) * (towards @ lamp > 0)
    return seen * (0.12 + 0.88 * sharp)


@lru_cache(maxsize=4)
def _iris(seed: int, colour: tuple[float, float, float]) -> Array:
    """Albedo (angle, pupil to limbus, 3) of an iris."""
    random = rng(seed, 32)
    turns, radii = 512, 96
    along = np.linspace(0, 1, radii, dtype=np.float32)

    def fibres(across: float, length: float) -> Array:
        noise = random.normal(size=(turns, radii)).astype(np.float32)
        smooth = gaussian_filter(noise, (across, length), mode=("wrap", "nearest"))
        return smooth / smooth.std()  # type: ignore[no-any-return]

    def around(width: float) -> Array:
        noise = gaussian_filter1d(random.normal(size=turns), width, mode="wrap")
        return (noise / noise.std())[:, None].astype(np.float32)  # type: ignore[no-any-return]

    base = np.array(colour, np.float32)
    grey = float(base @ np.array([0.3, 0.55, 0.15]))
    pale = float(np.interp(grey, [0.05, 0.15], [0, 1]))
    base = base + (0.12 + 0.46 * pale) * (grey - base)

    # The collarette: a wavy, raised ring about a third of the way out.
    ring = 0.2 + 0.025 * random.normal() + 0.035 * around(3.0) + 0.03 * around(14.0)
    outside = step((along - ring) / 0.14 + 0.5)
    threads = 0.2 * fibres(1.4, 14) + 0.13 * fibres(3.5, 20) + 0.07 * fibres(0.9, 5)
    threads += 0.06 * outside * fibres(9, 2.2)  # Furrows of a pupil that widens and narrows.
    bright = 1 + threads * (0.65 + 0.35 * outside)
    bright += 0.32 * np.exp(-(((along - ring) / 0.07) ** 2)) * (1 + 0.4 * around(2.0))
    crypts = np.clip(fibres(5, 6) - 1.5, 0, 1) * np.exp(-(((along - ring - 0.18) / 0.16) ** 2))
    bright -= 0.55 * crypts
    bright *= 1.12 - 0.34 * along**2
    bright = np.clip(bright, 0.18, 2.2)

    # Towards the pupil pale irises are warmer, dark ones lighter.
    amber = np.array([1.25, 0.86, 0.42], np.float32) * (0.75 * grey + 0.02)
    strength = np.clip(random.normal(0.4, 0.3), 0, 0.9) * pale + 0.15
    warm = (strength * (1 - outside) * (1 + 0.25 * around(9.0)))[..., None]
    albedo = base + np.clip(warm, 0, 1) * (amber - base)
    albedo = albedo * bright[..., None]
    # The ruff at the pupil's edge is brown, the limbus dark.
    albedo *= (1 - 0.7 * np.exp(-((along / 0.035) ** 2)))[None, :, None]
    limbal = float(np.clip(0.78 - 0.008 * (seed % 5) + 0.05 * random.normal(), 0.6, 0.9))
    dark = limbal * step((along - 0.76) / 0.26)
    albedo *= (1 - dark)[None, :, None] ** np.array([1.15, 1.0, 0.9], np.float32)
    return np.ascontiguousarray(np.clip(albedo, 0, 0.7), np.float32)


@lru_cache(maxsize=4)
def _vessels(seed: int) -> Array:
    """Vessels (384, 384) on the front of an eyeball, in [0, 1]; its middle is the pupil."""
    random = rng(seed, 33)
    side = 384
    canvas = np.zeros((side, side), np.float32)
    for i in range(34):
        # They come from the corners and run out before the iris.
        way = random.normal(0, 0.5) + (np.pi if i % 2 else 0)
        place = 1.0 * np.array([np.cos(way), np.sin(way)])
        heading = way + np.pi + random.normal(0, 0.3)
        depth = random.uniform(0.25, 0.9)
        reach = random.uniform(0.42, 0.62)
        line = [place]
        for _ in range(60):
            heading += random.normal(0, 0.28)
            heading += 0.12 * np.sin(np.arctan2(-place[1], -place[0]) - heading)
            place = place + 0.018 * np.array([np.cos(heading), np.sin(heading)])
            if np.hypot(*place) < reach:
                break
            line.append(place)
        track = np.round((np.array(line) + 1.1) / 2.2 * side * 16).astype(np.int32)
        layer = np.zeros((side, side), np.uint8)
        cv2.polylines(layer, [track[:, None]], False, 255, 1, cv2.LINE_AA, 4)
        canvas = np.maximum(canvas, layer * np.float32(depth / 255))
    soft = 0.75 * cv2.GaussianBlur(canvas, (0, 0), 0.7) + 1.6 * cv2.GaussianBlur(canvas, (0, 0), 5)
    return np.clip(np.asarray(soft, np.float32), 0, 1)


def _sampled(texture: Array, column: Array, row: Array) -> Array:
    """A texture (H, W) or (H, W, C) at places in [0, 1] (P,); its rows wrap round."""
    height, width = texture.shape[:2]
    c = np.clip(column * width - 0.5, 0, width - 1.001)
    r = row * height - 0.5
    left, top = c.astype(np.int32), np.floor(r).astype(np.int32)
    u, v = c - left, r - top
    if texture.ndim == 3:
        u, v = u[:, None], v[:, None]
    one, two = texture[top % height], texture[(top + 1) % height]
    index = np.arange(len(left))
    over = one[index, left] * (1 - u) + one[index, left + 1] * u
    under = two[index, left] * (1 - u) + two[index, left + 1] * u
    mixed: Array = (over * (1 - v) + under * v).astype(np.float32)
    return mixed


def _met(points: Array, see: Array, ahead: float, radius: float) -> Array:
    """Where rays through points (P, 3) meet a sphere about (0, 0, ahead), on the near side.

    Rays that miss take the nearest place on the sphere.
    """
    start = points - np.array([0, 0, ahead], np.float32)
    along = (start * see).sum(1)
    room = radius**2 - (start * start).sum(1) + along**2
    near = start + (np.sqrt(np.maximum(room, 0)) - along)[:, None] * see
    near *= (radius / np.maximum(np.linalg.norm(near, axis=1), 1e-6))[:, None]
    near[:, 2] += np.float32(ahead)
    found: Array = near.astype(np.float32)
    return found


@lru_cache(maxsize=2)
def _rest(eye: int) -> tuple[Indices, Indices, Array]:
    """What finds an eyeball and its lids on any posed head.

    Returns:
        The ball's vertices (B,), spread evenly about its centre; then vertices (K, 3) and shares
        (K, 3) of the lids' margins: the upper one's from corner to corner, then the lower one's.
    """
    head = basis.load()
    vertices = np.unique(head.triangles[head.materials == eye])
    centre = head.vertices[vertices].mean(0)
    turns, steps = 96, 120
    angle = (np.arange(turns) + 0.5) / turns * 2 * np.pi
    reach = np.linspace(0.0, 0.24, steps)
    flat = np.stack([np.cos(angle), np.sin(angle)], 1)[:, None] * reach[:, None]
    origins = np.dstack([flat + centre[:2], np.full((turns, steps), 5.0)]).reshape(-1, 3)
    ways = np.tile([0.0, 0.0, -1.0], (len(origins), 1))
    hits = basis.cast(head.vertices, head.triangles, origins, ways)
    prim = hits["primID"].reshape(turns, steps)
    first = (head.materials[prim] != eye).argmax(1)
    rows = np.arange(turns)
    u, v = (hits[key].reshape(turns, steps)[rows, first] for key in ("u", "v"))
    shares = np.stack([1 - u - v, u, v], 1).astype(np.float32)
    anchors = head.triangles[prim[rows, first]]
    return vertices.astype(np.int32), anchors, shares
