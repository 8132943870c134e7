"""How faces vary: MakeHuman's local sliders, drawn together as they go together in people.

Each slider leans on a few latent factors (how long or broad the face is, how large the nose, …),
on sex, age and ancestry, and varies a little by itself; the two sides of a face differ a little.
A slider's spread is chosen so that it moves the skin by one to three millimetres at most, about
the deviation that anthropometry finds between adults (Farkas 1994).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from facekit.studio import basis
from facekit.studio.basis import Array
from facekit.studio.landmarks import landmarks

FACTORS = ("breadth", "length", "robust", "nose", "alae", "flesh", "lips", "eyes", "tilt", "mid")
"""The latent factors, each standard normal among people of one sex, age, ancestry and weight."""

_MOST = 2.0  # Nobody is further from the mean than this many deviations, however drawn.


@dataclass(frozen=True)
class Slider:
    """A local change of shape; at −1 it is the target ``low``, at 1 the target ``high``.

    Attributes:
        low, high: names of the targets; "" where a slider has one end only.
        spread: standard deviation, as a share of the full slider.
        leans: factor, or ``male``, ``age``, ``african``, ``asian``, → what one unit of it adds, in
            deviations.
    """

    low: str
    high: str
    spread: float
    leans: Mapping[str, float]


def _slider(name: str, low: str, high: str, spread: float, **leans: float) -> tuple[str, Slider]:
    """A slider by its name and its ends; an end with a dash is another target's whole name."""
    low, high = (end if "-" in end or not end else f"{name}-{end}" for end in (low, high))
    return name, Slider(low, high, spread, leans)


_MIDDLE = dict(
    [
        _slider("head-scale-horiz", "decr", "incr", 0.17, breadth=0.7),
        _slider("head-scale-vert", "decr", "incr", 0.13, length=0.5),
        _slider("head-scale-depth", "decr", "incr", 0.3),
        _slider("head-back-scale-depth", "decr", "incr", 0.12),
        _slider("head-fat", "decr", "incr", 0.34, flesh=0.85),
        _slider("head-angle", "in", "out", 0.08),
        _slider("head-age", "decr", "incr", 0.3, age=0.5),
        _slider("forehead-scale-vert", "decr", "incr", 0.13, length=0.4),
        _slider("forehead-trans", "backward", "forward", 0.22, robust=-0.4),
        _slider("forehead-temple", "decr", "incr", 0.42, breadth=0.3, flesh=0.3),
        _slider("forehead-nubian", "decr", "incr", 0.06),
        _slider("eyebrows-trans", "down", "up", 0.34, robust=-0.3, eyes=0.3, male=-0.3, age=-0.2),
        _slider("eyebrows-angle", "down", "up", 0.2, tilt=0.4),
        _slider(
            "eyebrows-ridge",
            "eyebrows-trans-backward",
            "eyebrows-trans-forward",
            0.3,
            robust=0.6,
            male=0.3,
        ),
        _slider("nose-scale-vert", "decr", "incr", 0.36, length=0.4, nose=0.5, age=0.3),
        _slider("nose-scale-horiz", "decr", "incr", 0.3, nose=0.3, alae=0.5),
        _slider("nose-scale-depth", "decr", "incr", 0.24, nose=0.6, african=-0.3, asian=-0.4),
        _slider("nose-trans", "down", "up", 0.3, length=-0.2),
        _slider("nose-width1", "decr", "incr", 0.45, alae=0.3),
        _slider("nose-width2", "decr", "incr", 0.45, alae=0.4, nose=0.3),
        _slider("nose-width3", "decr", "incr", 0.28, alae=0.7, nose=0.2),
        _slider("nose-hump", "decr", "incr", 0.34, nose=0.5, robust=0.2, asian=-0.4),
        _slider("nose-curve", "concave", "convex", 0.24, nose=0.3, robust=0.3),
        _slider("nose-greek", "decr", "incr", 0.34, nose=0.2),
        _slider("nose-point", "down", "up", 0.3, nose=-0.2, age=-0.3),
        _slider("nose-point-width", "decr", "incr", 0.4, alae=0.4),
        _slider("nose-volume", "decr", "incr", 0.26, nose=0.2, alae=0.4, age=0.3),
        _slider("nose-base", "down", "up", 0.26, male=-0.2),
        _slider("nose-compression", "compress", "uncompress", 0.22),
        _slider("nose-flaring", "decr", "incr", 0.26, alae=0.6),
        _slider("nose-nostrils-width", "decr", "incr", 0.26, alae=0.5),
        _slider("nose-nostrils-angle", "down", "up", 0.3),
        _slider("nose-septumangle", "decr", "incr", 0.3, nose=0.2),
        _slider("nose-sideways", "nose-trans-in", "nose-trans-out", 0.16),
        _slider("mouth-trans", "down", "up", 0.26, length=-0.3),
        _slider("mouth-depth", "mouth-trans-backward", "mouth-trans-forward", 0.2, mid=0.5),
        _slider("mouth-sideways", "mouth-trans-in", "mouth-trans-out", 0.12),
        _slider("mouth-scale-horiz", "decr", "incr", 0.4, breadth=0.4, lips=0.2, male=0.2),
        _slider("mouth-scale-vert", "decr", "incr", 0.3, lips=0.5),
        _slider("mouth-upperlip-height", "decr", "incr", 0.4, lips=0.6, age=-0.5, african=0.3),
        _slider("mouth-lowerlip-height", "decr", "incr", 0.4, lips=0.6, age=-0.3, african=0.2),
        _slider("mouth-upperlip-volume", "decr", "incr", 0.4, lips=0.6, age=-0.4, african=0.2),
        _slider("mouth-lowerlip-volume", "decr", "incr", 0.4, lips=0.6, age=-0.3, african=0.2),
        _slider("mouth-upperlip-width", "decr", "incr", 0.36, lips=0.3),
        _slider("mouth-lowerlip-width", "decr", "incr", 0.36, lips=0.3),
        _slider("mouth-upperlip-middle", "down", "up", 0.24),
        _slider("mouth-lowerlip-middle", "down", "up", 0.24),
        _slider("mouth-cupidsbow", "decr", "incr", 0.45, lips=0.2, male=-0.2),
        _slider("mouth-cupidsbow-width", "decr", "incr", 0.45),
        _slider("mouth-philtrum-volume", "decr", "incr", 0.45),
        _slider("mouth-angles", "down", "up", 0.16, age=-0.2),
        _slider("mouth-laugh-lines", "in", "out", 0.34, flesh=0.4),
        _slider("mouth-dimples", "in", "out", 0.3),
        _slider("chin-width", "decr", "incr", 0.36, breadth=0.4, robust=0.5, male=0.3),
        _slider("chin-height", "decr", "incr", 0.27, length=0.5, robust=0.3, male=0.2),
        _slider("chin-prominent", "decr", "incr", 0.28, robust=0.4),
        _slider("chin-prognathism", "decr", "incr", 0.22, mid=0.4),
        _slider("chin-bones", "decr", "incr", 0.34, robust=0.6, male=0.2),
        _slider("chin-jaw-drop", "decr", "incr", 0.34, flesh=0.4, age=0.5),
        _slider("chin-cleft", "decr", "incr", 0.4, male=0.2),
        _slider("chin-triangle", "", "chin-triangle", 0.28, breadth=-0.5),
    ]
)
_SIDED = dict(
    [
        _slider("cheek-bones", "decr", "incr", 0.42, mid=0.6, breadth=0.2),
        _slider("cheek-volume", "decr", "incr", 0.34, flesh=0.7, age=-0.3),
        _slider("cheek-inner", "decr", "incr", 0.26, flesh=0.4, age=-0.2),
        _slider("cheek-trans", "down", "up", 0.28, mid=0.4, age=-0.3),
        _slider("eye-scale", "decr", "incr", 0.42, eyes=0.8),
        _slider("eye-trans", "down", "up", 0.28),
        _slider("eye-apart", "eye-trans-in", "eye-trans-out", 0.38, breadth=0.5),
        _slider("eye-height1", "decr", "incr", 0.28, eyes=0.3, asian=-0.2),
        _slider("eye-height2", "decr", "incr", 0.28, eyes=0.4, age=-0.2),
        _slider("eye-height3", "decr", "incr", 0.28, eyes=0.3, tilt=-0.2),
        _slider("eye-corner1", "down", "up", 0.4, tilt=-0.3),
        _slider("eye-corner2", "down", "up", 0.38, tilt=0.7, age=-0.2),
        _slider("eye-push1", "in", "out", 0.3),
        _slider("eye-push2", "in", "out", 0.3),
        _slider("eye-epicanthus", "in", "out", 0.3, asian=-0.6),
        _slider("eye-eyefold", "down", "up", 0.34, eyes=0.1, age=-0.4),
        _slider("eye-eyefold-angle", "down", "up", 0.34, tilt=0.4),
        _slider("eye-eyefold-depth", "eye-eyefold-concave", "eye-eyefold-convex", 0.28, robust=0.2),
        _slider("eye-bag", "decr", "incr", 0.4, flesh=0.2, age=0.5),
        _slider("eye-bag-height", "decr", "incr", 0.28, age=0.2),
        _slider("ear-scale", "decr", "incr", 0.34, male=0.2, age=0.5),
        _slider("ear-scale-vert", "decr", "incr", 0.3, age=0.2),
        _slider("ear-wing", "decr", "incr", 0.4),
        _slider("ear-lobe", "decr", "incr", 0.4, age=0.4),
        _slider("ear-flap", "decr", "incr", 0.22),
        _slider("ear-height", "ear-trans-down", "ear-trans-up", 0.12),
    ]
)
_OUTLINES = (
    "oval",
    "round",
    "square",
    "rectangular",
    "triangular",
    "invertedtriangular",
    "diamond",
)
_MIDDLE |= dict(_slider(f"head-{outline}", "", f"head-{outline}", 0.0) for outline in _OUTLINES)

# Targets that reach much further than their opposite: the share at which they match it.
_TAMED = {
    "nose-point-down": 0.3,
    "eyebrows-trans-forward": 0.35,
    "chin-height-incr": 0.55,
    "chin-width-incr": 0.5,
    "chin-bones-incr": 0.65,
    "cheek-bones-incr": 0.6,
    "cheek-inner-incr": 0.5,
    "eye-epicanthus-out": 0.4,
    "ear-flap-incr": 0.45,
    "forehead-scale-vert-incr": 0.6,
    "head-fat-incr": 0.6,
}


def lowest() -> dict[str, int]:
    """Each slider's lowest value, -1 or 0, by name; all reach up to 1.

    Those of the two sides are named ``l-…`` and ``r-…`` (the person's own left and right).
    """
    sided = {f"{side}-{name}": slider for name, slider in _SIDED.items() for side in "lr"}
    return {name: -1 if slider.low else 0 for name, slider in (_MIDDLE | sided).items()}


def sample(
    random: np.random.Generator,
    *,
    male: bool,
    age: float,
    african: float,
    asian: float,
    weight: float,
) -> dict[str, float]:
    """Draw all sliders, each in [-1, 1] and within two deviations of its mean, itself mild.

    Args:
        random: where chance comes from.
        male: the sex that the means are of.
        age: in years.
        african: weight of that ancestry, in [0, 1].
        asian: the same.
        weight: of the build, in [0, 1].
    """
    traits = dict(zip(FACTORS, random.normal(size=len(FACTORS)).tolist(), strict=True))
    traits["flesh"] = 0.6 * traits["flesh"] + 4 * (weight - 0.5)
    traits = _grown_up(traits)
    traits |= {"male": 1.0 if male else -1.0, "age": (age - 40) / 20}
    traits |= {"african": 2 * african - 0.6, "asian": 2 * asian - 0.6}
    shape = {}
    for name, slider in _MIDDLE.items():
        shape[name] = _draw(random, slider, traits)
    for name, slider in _SIDED.items():
        both = _draw(random, slider, traits)
        for side in "lr":
            shape[f"{side}-{name}"] = both + 0.15 * slider.spread * float(random.normal())
    outlines = random.choice(len(_OUTLINES), 2, replace=False)
    for outline, most in zip(outlines, (0.4, 0.2), strict=True):
        shape[f"head-{_OUTLINES[outline]}"] = float(random.uniform(0, most))
    for name, (least, most) in _ADULT.items():
        for key in {name, f"l-{name}", f"r-{name}"} & shape.keys():
            shape[key] = float(np.clip(shape[key], least, most))
    return {name: round(float(np.clip(value, -1, 1)), 4) for name, value in shape.items() if value}


# What chance adds to a trait may not make a child of an adult either.
_ADULT = {
    "head-age": (0.15, 1.0),
    "eye-scale": (-1.0, 0.2),
    "head-scale-vert": (-0.05, 1.0),
    "ear-wing": (-1.0, 0.3),
    "chin-height": (-0.05, 1.0),
    "nose-scale-vert": (-0.15, 1.0),
}


# Large eyes and full cheeks over a small nose and chin are a child's (Lorenz 1943).
_CHILDLIKE = {"eyes": 1.0, "flesh": 0.7, "nose": -1.0, "length": -1.0, "robust": -0.7, "mid": -0.5}


def _grown_up(traits: Mapping[str, float]) -> dict[str, float]:
    """The traits, with what goes too far towards a child's face taken off."""
    length = np.sqrt(sum(share**2 for share in _CHILDLIKE.values()))
    extent = sum(share * traits[trait] for trait, share in _CHILDLIKE.items()) / length
    surplus = max(float(extent) + 0.1, 0.0)
    return {
        trait: value - surplus * _CHILDLIKE.get(trait, 0.0) / float(length)
        for trait, value in traits.items()
    }


def _draw(random: np.random.Generator, slider: Slider, traits: Mapping[str, float]) -> float:
    common = sum(share * traits[trait] for trait, share in slider.leans.items())
    of_factors = sum(share**2 for trait, share in slider.leans.items() if trait in FACTORS)
    value = common + np.sqrt(max(1 - of_factors, 0.2)) * random.normal()
    low = 0.0 if not slider.low else -_MOST
    return slider.spread * float(np.clip(_MOST * np.tanh(value / _MOST), low, _MOST))


def coefficients(shape: Mapping[str, float]) -> dict[str, float]:
    """Target → coefficient, for the sliders of a person."""
    found: dict[str, float] = {}
    for name, value in shape.items():
        side = name[:2] if name[:2] in ("l-", "r-") else ""
        slider = (_SIDED if side else _MIDDLE)[name.removeprefix(side)]
        target = slider.high if value > 0 else slider.low
        if target and value:
            found[side + target] = abs(value) * _TAMED.get(target, 1.0)
    return found


_CLOSED = -0.004  # How far the lips press on each other, in dm.
_CORNERS = (0.004, 0.022)  # How high the mouth's corners lie above its middle, in dm.


def at_rest(coefficients: Mapping[str, float]) -> dict[str, float]:
    """What keeps the resting mouth shut and its corners up, whatever the face's shape.

    Both are linear in the coefficients, so that the jaw's and the corners' follow in closed form.

    Args:
        coefficients: target → coefficient of the whole person.

    Returns:
        Target → coefficient to add.
    """
    effects = _effects()
    rows = basis.load().index
    gap, corner = sum(
        (value * effects[rows[name]] for name, value in coefficients.items()), np.zeros(2)
    )
    jaw = np.clip((_CLOSED - gap) / effects[rows["jawOpen"]][0], -0.1, 0.04)
    wanted = np.clip(corner, *_CORNERS) - corner
    end = "mouth-angles-up" if wanted > 0 else "mouth-angles-down"
    raised = wanted / effects[rows[end]][1]
    return {"jawOpen": float(jaw), end: coefficients.get(end, 0.0) + float(raised)}


def sealed(head: Array) -> Array:
    """A head at rest (N, 3) whose lips also meet at the corners, for which the jaw is too blunt."""
    base = basis.load().vertices
    upper, lower = _lips(0.27)
    order = np.argsort(np.abs(base[upper, 0]))
    upper, lower = upper[order], lower[order]
    opened = (head[upper, 1] - head[lower, 1]) - (base[upper, 1] - base[lower, 1])
    x, y, z = base.T
    gap = np.interp(np.abs(x), np.abs(base[upper, 0]), opened + 0.008)
    reach = np.clip((0.3 - np.abs(x)) / 0.04, 0, 1) * (z > 1.25)
    above = np.clip((y - _PARTING) / 0.004, -1, 1) * np.exp(-(((y - _PARTING) / 0.07) ** 2))
    result = head.copy()
    result[:, 1] -= 0.5 * np.clip(gap, 0, 0.03) * reach * above
    return result


_PARTING = 6.6105  # Where the neutral head's lips meet, in dm.


@lru_cache(maxsize=1)
def _effects() -> Array:
    """What each target does to the gap between the lips and to the corners' height: (K, 2), dm."""
    head = basis.load()
    upper, lower = _lips()
    gap = (head.targets[:, upper, 1] - head.targets[:, lower, 1]).mean(1)
    still = landmarks(head.vertices)
    moved = [landmarks(head.vertices + target)[:, 1] - still[:, 1] for target in head.targets]
    marks = np.stack(moved)
    corner = (marks[:, 48] + marks[:, 54] - marks[:, 62] - marks[:, 66]) / 2
    effects: Array = np.stack([gap, corner], 1)
    return effects


@lru_cache(maxsize=2)
def _lips(wide: float = 0.15) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Vertices of the upper lip, and below each the lower lip's vertex, for |x| ≤ ``wide``."""
    places = basis.load().vertices
    front = np.interp(np.abs(places[:, 0]), [0, 0.13, 0.2, 0.27], [1.53, 1.505, 1.43, 1.405])
    near = (np.abs(places[:, 0]) < wide) & (places[:, 2] > front)
    off = places[:, 1] - _PARTING
    upper: NDArray[np.int64] = np.flatnonzero(near & (off > 0) & (off < 0.008))
    lower: NDArray[np.int64] = np.flatnonzero(near & (off < 0) & (off > -0.014))
    apart = np.linalg.norm(places[upper][:, None] - places[lower], axis=2)
    nearest: NDArray[np.int64] = lower[apart.argmin(1)]
    return upper, nearest
