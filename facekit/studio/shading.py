"""How surfaces answer light: skin, cloth and hair; each hit's radiance from what is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from facekit.studio import mouth, skin, wear
from facekit.studio.basis import Array, Indices
from facekit.studio.light import Light
from facekit.studio.person import Person


@dataclass(frozen=True)
class Hits:
    """What rays met on the head, in the camera's axes.

    Attributes:
        cells: (P,) flat indices of fine pixels;  material: (P,).
        at, view, normal: (P, 3), the place, the unit direction to the camera, the unit normal.
        where: (P, 3) the place on the neutral head.
        sky: (P, 3) the share of the surroundings' light that arrives, by colour.
        mouth: (P,) 1 inside the mouth.
    """

    cells: NDArray[np.int64]
    at: Array
    view: Array
    normal: Array
    where: Array
    sky: Array
    mouth: Array
    material: Indices

    @property
    def open_sky(self) -> Array:
        """The share of the surroundings that is free, (P,)."""
        red, green, blue = self.sky.T
        mean: Array = (red + green + blue) / 3
        return mean

    def take(self, chosen: NDArray[np.int64]) -> "Hits":
        """Some of the hits."""
        return Hits(**{f.name: getattr(self, f.name).take(chosen, axis=0) for f in fields(self)})


@dataclass(frozen=True)
class Strands:
    """What rays met on hair, in the camera's axes; see :class:`Hits`.

    Attributes:
        tangent: (P, 3) unit, along the strand.
        colour: (P, 3) or (3,) albedo;  shade: (P,) a factor of it.
        openness: (P,) 0 deep inside, 1 outside.
        where: (P, 3) of what is rooted in skin, the place on the neutral head.
        rigid: hair of the head, or the frame of glasses (``framed``).
    """

    cells: NDArray[np.int64]
    at: Array
    view: Array
    normal: Array
    tangent: Array
    colour: Array
    shade: Array
    openness: Array
    where: Array
    rigid: bool
    framed: bool

    @property
    def open_sky(self) -> Array:
        """The share of the surroundings that is free, (P,)."""
        return self.openness


def lacquer(colour: Array, normal: Array, view: Array, light: Light, lit: Array) -> Array:
    """Radiance (P, 3) of the frame of glasses: matt with a clear gleam."""
    albedo = np.broadcast_to(colour, normal.shape)
    gloss, sky = np.full(len(normal), 1.5, np.float32), np.full((len(normal), 3), 0.8, np.float32)
    return matt(albedo, gloss, normal, view, sky, light, lit, np.zeros(3, np.float32))


def lens(behind: Array, normal: Array, view: Array, light: Light) -> Array:
    """Radiance (P, 3) of a coated lens over what is behind it (P, 3)."""
    facing = np.abs(dot(normal, view))
    mirror = 2 * dot(normal, view)[:, None] * normal - view
    share = 0.012 + 0.4 * raised(1 - facing, 2)
    result: Array = behind * np.array([0.94, 0.955, 0.95], np.float32)
    result += share[:, None] * (light.radiance(mirror) - 0.5 * result)
    for lamp in light.lamps:
        result += (0.8 * raised(dot(mirror, lamp.direction), 8))[:, None] * lamp.colour
    return result


def dot(a: Array, b: Array) -> Array:
    """Of vectors (P, 3) and (P, 3) or (3,): (P,)."""
    result: Array = a @ b if b.ndim == 1 else np.einsum("ij,ij->i", a, b)
    return result


def unit(vectors: Array) -> Array:
    """Vectors (P, 3) brought to length 1, in place."""
    vectors /= np.sqrt(np.maximum(dot(vectors, vectors), 1e-12))[:, None]
    return vectors


def raised(values: Array, doublings: int) -> Array:
    """``max(values, 0) ** 2**doublings``, quicker than a power."""
    result = np.maximum(values, 0)
    for _ in range(doublings):
        result *= result
    return result


def inner_depth(where: Array) -> Array:
    """How deep within the inner face, in dm, places (P, 3) of the neutral head lie; < 0: outside.

    The inner face reaches from the brows to the chin and from cheek to cheek; the underside of
    the jaw and the neck are no part of it.
    """
    x, y, z = np.abs(where[:, 0]), where[:, 1], where[:, 2]
    wide = np.interp(y, [6.2, 6.4, 6.8, 7.3, 7.6], [0.25, 0.45, 0.62, 0.66, 0.6])
    # What lies behind the jaw's edge is its underside and the neck.
    edge = np.interp(
        y,
        [6.2, 6.26, 6.385, 6.48, 6.56, 6.66, 7.1, 7.35],
        [1.34, 1.27, 1.11, 0.97, 0.8, 0.75, 0.75, 0.3],
    )
    depth = np.minimum(np.minimum(wide - x, z - edge), np.minimum(y - 6.2, 7.6 - y))
    return np.asarray(depth, np.float32)


def inner_share(where: Array) -> Array:
    """The inner face with a soft border, 0.14 dm wide and all inside: (P,) in [0, 1]."""
    share = np.clip(inner_depth(where) / 0.14, 0, 1)
    result: Array = share * share * (3 - 2 * share)
    return result


@dataclass(frozen=True)
class Coat:
    """The paint of a head; of a swap, with somebody else's on the inner face.

    Attributes:
        person, paint: whose head it is.
        inner, inner_paint: whose inner face;  ratio: (3,) what recolours it, or None.
    """

    person: Person
    paint: skin.Skin
    inner: Person
    inner_paint: skin.Skin
    ratio: Array | None = None

    def sample(
        self, where: Array, expression: Mapping[str, float], spacing: float
    ) -> tuple[Array, Array, Array]:
        """As :func:`facekit.studio.skin.sample`."""
        albedo, gloss, tilt = skin.sample(self.paint, self.person, where, expression, spacing)
        if self.ratio is None:
            return albedo, gloss, tilt
        share = inner_share(where)
        changed = np.flatnonzero(share > 0)
        share = share[changed]
        values = skin.sample(self.inner_paint, self.inner, where[changed], expression, spacing)
        albedo, gloss, tilt = albedo.copy(), gloss.copy(), tilt.copy()
        recoloured = np.clip(values[0] * self.ratio, 0.004, 0.95)
        albedo[changed] += share[:, None] * (recoloured - albedo[changed])
        gloss[changed] += share * (values[1] - gloss[changed])
        tilt[changed] += share[:, None] * (values[2] - tilt[changed])
        return albedo, gloss, tilt


_WRAP = np.array([0.34, 0.17, 0.12], np.float32)


def skin_and_cloth(
    coat: Coat,
    expression: Mapping[str, float],
    hits: Hits,
    light: Light,
    lit: Array,
    turned: Array,
    body: Array,
    spacing: float,
) -> tuple[Array, NDArray[np.bool_]]:
    """Radiance (P, 3) of skin and of the clothes over it, and which hits are cloth (P,).

    ``turned`` and ``body`` are the axes (3, 3) of the head and of the shoulders; ``spacing`` is
    how far apart, in dm, hits lie on a surface seen from the front.
    """
    albedo, gloss, tilt = coat.sample(hits.where, expression, spacing)
    albedo, gloss, tilt = albedo.copy(), gloss.copy(), tilt.copy()
    sky = hits.sky
    deep = np.flatnonzero(hits.mouth > 0.01)
    if len(deep):
        sky, lit = sky.copy(), lit.copy()
        albedo[deep], gloss[deep], arrives = mouth.lining(
            albedo[deep],
            gloss[deep],
            hits.where[deep],
            hits.mouth[deep],
            mouth.opening(expression),
        )
        # What stands in the way was found with the mouth shut.
        inside = hits.mouth[deep]
        sky[deep] += inside[:, None] * (arrives[:, None] - sky[deep])
        lit[:, deep] *= 1 + inside * (arrives - 1)
    tilt = tilt @ turned.T
    worn = wear.cloth(coat.person, hits.where, spacing)
    albedo[worn.covered], gloss[worn.covered] = worn.albedo, 0.02
    tilt[worn.covered] = worn.tilt @ body.T
    sky, lit = sky * worn.shade[:, None], lit * worn.shade
    towards = hits.normal + tilt
    # Folds behind the lips get what light the opening lets in from the front.
    towards[deep] += 0.9 * hits.mouth[deep, None] * hits.view[deep]
    normal = unit(towards)
    return matt(albedo, gloss, normal, hits.view, sky, light, lit, _WRAP), worn.covered


def matt(
    albedo: Array,
    gloss: Array,
    normal: Array,
    view: Array,
    sky: Array,
    light: Light,
    lit: Array,
    wrap: Array,
) -> Array:
    """Radiance (P, 3) of a matt surface with a gleam, into which light may scatter (``wrap``)."""
    # Light that bounces about in a hollow takes the surface's colour (Jimenez et al. 2016).
    sky = sky / (1 - 0.7 * albedo * (1 - sky))
    around = light.irradiance(normal)
    diffuse = around * sky
    grazing = raised(1 - np.clip(dot(normal, view), 0, 1), 2)
    gleam = (gloss * (0.02 + 0.16 * grazing))[:, None] * diffuse
    for lamp, share in zip(light.lamps, lit, strict=True):
        facing = dot(normal, lamp.direction)
        soft = (facing[:, None] + wrap) / (1 + wrap)
        # Where a shadow begins, light still comes through the skin, most of it red.
        soft *= share[:, None] + 1.5 * wrap * (share * (1 - share))[:, None]
        diffuse += np.maximum(soft, 0) * lamp.colour
        aligned = dot(normal, unit(lamp.direction + view))
        lobes = 0.10 * raised(aligned, 4) + 0.20 * raised(aligned, 6)
        gleam += (gloss * share * lobes * (facing > 0) * (1 + 2 * grazing))[:, None] * lamp.colour
    result: Array = albedo * diffuse + gleam
    return result


_OFF_SKIN = np.array([1.06, 0.96, 0.86], np.float32)


def hair(hits: Strands, light: Light, lit: Array) -> Array:
    """Radiance (P, 3) of hair: Kajiya & Kay (1989), with two gleams as Marschner et al. (2003) saw.

    The first comes off the scales and keeps the lamp's colour; the second has gone through the
    hair and takes its colour. Both shift along the hair (Scheuermann 2004).
    """
    albedo = hits.colour * hits.shade[:, None]
    sky = (0.12 + 0.88 * hits.openness)[:, None]
    around = light.irradiance(hits.normal) * sky
    # A hair mirrors a whole ring of the surroundings: dark hair is never quite dark.
    strength = 1.0
    if not hits.rigid:
        strength = 0.3  # Short hairs lie in all directions,
        albedo *= _OFF_SKIN  # and half of their light has met the skin that they grow on.
    result = (albedo + 0.022 * strength * hits.openness[:, None]) * around
    off = 0.22 * (hits.shade - 1)
    first = unit(hits.tangent + (off + 0.10)[:, None] * hits.normal)
    second = unit(hits.tangent + (off - 0.14)[:, None] * hits.normal)
    for lamp, share in zip(light.lamps, lit, strict=True):
        along = dot(hits.tangent, lamp.direction)
        across = np.sqrt(np.maximum(1 - along * along, 0))
        towards = np.clip(0.3 + 0.7 * dot(hits.normal, lamp.direction), 0, 1)
        arrives = share * towards * (0.2 + 0.8 * hits.openness)
        half = unit(lamp.direction + hits.view)
        glints = 0.09 * strength * raised(1 - dot(first, half) ** 2, 5)[:, None]
        glints = glints + (0.5 * raised(1 - dot(second, half) ** 2, 3))[:, None] * albedo
        result += ((0.8 * across)[:, None] * albedo + glints) * arrives[:, None] * lamp.colour
    return result
