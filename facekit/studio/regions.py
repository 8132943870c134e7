"""Where hair grows on the face: brows and beard, as functions of the place on the neutral head.

Skin shades these regions softly; hair grows its strands from the same ones.
"""

import numpy as np

from facekit.studio.basis import Array
from facekit.studio.person import Person


def blob(x: Array, y: Array, cx: float, cy: float, wide: float, high: float) -> Array:
    """A soft spot at ±cx, cy; 1 in its middle."""
    spot: Array = np.exp(-(((np.abs(x) - cx) / wide) ** 2) - ((y - cy) / high) ** 2)
    return spot


def step(value: Array, low: float, high: float) -> Array:
    """0 below ``low``, 1 above ``high``, smooth between."""
    share = np.clip((value - low) / (high - low), 0, 1)
    smooth: Array = share * share * (3 - 2 * share)
    return smooth


def brow(person: Person, x: Array, y: Array) -> tuple[Array, Array]:
    """Coordinates in the brow: ``along`` it, 0 at the nose to 1 at the temple, and ``across``.

    ``across`` is 0 on its spine, ±1 at its upper and lower edge.
    """
    along = (np.abs(x) - 0.11) / 0.43
    arch = 0.02 + 0.07 * person.brow_arch
    spine = 7.462 + arch * (np.sin(np.clip(along, 0, 1) * np.pi * 0.8) - 0.3 * along)
    spine = spine - 0.035 * along
    half = (0.022 + 0.036 * person.brow_thickness) * np.interp(
        along, [0, 0.15, 0.6, 1], [0.75, 1, 0.8, 0.25]
    )
    across: Array = (y - spine) / half
    return along, across


def beard(x: Array, y: Array, z: Array) -> Array:
    """Where a full beard grows, in [0, 1]."""
    side = np.abs(x)
    # The upper edge runs from the sideburn down to the corner of the mouth.
    edge = np.interp(side, [0, 0.16, 0.3, 0.42, 0.62, 0.75], [6.86, 6.84, 6.74, 6.62, 6.85, 7.15])
    region = step(edge - y, -0.03, 0.09) * (1 - step(side, 0.74, 0.8))
    region *= step(y + 0.45 * z, 6.45, 6.75) * step(z, 0.3, 0.5)  # Not on throat and ears.
    below_lip = blob(x, y, 0.14, 6.44, 0.07, 0.035) * 0.5
    result: Array = np.clip(region - below_lip, 0, 1)
    return result


def moustache(x: Array, y: Array) -> Array:
    """The moustache's part of the beard, in [0, 1]."""
    return step(blob(x, y, 0.17, 6.775, 0.26, 0.075), 0.3, 0.6)


def goatee(x: Array, y: Array) -> Array:
    """The part of the beard on the chin, in [0, 1]."""
    return step(blob(x, y, 0, 6.3, 0.24, 0.2) * (y < 6.52), 0.25, 0.6)
