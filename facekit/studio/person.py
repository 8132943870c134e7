"""A person who does not exist: a vector of parameters, and the head that it stands for."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from facekit.core.config import Config, validate
from facekit.core.errors import FacekitError, did_you_mean
from facekit.core.seed import rng
from facekit.studio import basis, shapes
from facekit.studio.basis import AGES, BUILDS, GENDERS, ORIGINS, WEIGHTS, Array
from facekit.studio.performance import check_units

HairStyle = Literal[
    "bald",
    "shaved",
    "short",
    "crop",
    "side part",
    "receding",
    "curly",
    "afro",
    "bob",
    "long",
    "wavy",
    "tied back",
]
Beard = Literal["none", "stubble", "moustache", "goatee", "full"]
GlassesStyle = Literal["none", "round", "square", "half-rim"]
Neckline = Literal["crew", "v", "collar", "boat"]
Pattern = Literal["plain", "stripes", "knit"]

_HAIR_COLOURS = {
    "black": (0.012, 0.010, 0.009),
    "dark brown": (0.038, 0.022, 0.014),
    "brown": (0.085, 0.046, 0.024),
    "light brown": (0.17, 0.10, 0.052),
    "blond": (0.40, 0.27, 0.13),
    "red": (0.25, 0.075, 0.025),
    "grey": (0.33, 0.32, 0.31),
    "white": (0.66, 0.65, 0.62),
}
_IRIS_COLOURS = {
    "dark brown": (0.035, 0.016, 0.008),
    "brown": (0.11, 0.05, 0.018),
    "hazel": (0.17, 0.11, 0.035),
    "green": (0.12, 0.18, 0.07),
    "blue": (0.12, 0.22, 0.38),
    "grey": (0.22, 0.26, 0.29),
}

Share = Field(ge=0, le=1)
_Channel = Annotated[float, Field(ge=0, le=1)]
Colour = tuple[_Channel, _Channel, _Channel]


class Person(Config):
    """One adult who does not exist.

    Colours are linear RGB in [0, 1]. Everything is a share in [0, 1] unless stated.

    Attributes:
        seed: what the person was sampled from.
        age: in years, 18 to 80.
        sex: 0 female, 1 male, as MakeHuman's shapes have it.
        african, asian, caucasian: weights of MakeHuman's ancestral shapes.
        muscle, weight: of the build.
        shape: local changes in [-1, 1] by MakeHuman's names, see :mod:`facekit.studio.shapes`.
        skin_tone: 1 to 10, the group on the Monk Skin Tone scale (E. Monk 2019, skintone.google).
        skin_shift: lightness within the group, -1 to 1.
        undertone: of the skin, -1 yellowish to 1 pinkish.
        redness, freckles, moles, blemishes, mottling, wrinkles: how much of each.
        lips: how far the lips differ from the skin; ``lip_red``: towards red.
        iris, hair_colour, cloth: colours; ``iris_name`` and ``hair_name`` are for people.
        brow_thickness, brow_density, brow_arch: of the eyebrows.
        hair: the style; ``volume`` its thickness; ``beard`` the facial hair.
        forehead: how high the hairline lies; ``temples``: how deep its bays are.
        lashes: their length;  pores: how much they show.
        glasses, glasses_colour: what is worn on the nose, and its frame's colour.
        neckline, pattern, cloth: of the clothes at the neck, and their colour.
    """

    seed: int = Field(ge=0)
    age: float = Field(ge=18, le=80)
    sex: float = Share
    african: float = Share
    asian: float = Share
    caucasian: float = Share
    muscle: float = Share
    weight: float = Share
    shape: dict[str, float]
    skin_tone: int = Field(ge=1, le=10)
    skin_shift: float = Field(ge=-1, le=1)
    undertone: float = Field(ge=-1, le=1)
    redness: float = Share
    freckles: float = Share
    moles: float = Share
    blemishes: float = Share
    mottling: float = Share
    wrinkles: float = Share
    lips: float = Share
    lip_red: float = Share
    iris: Colour
    iris_name: str
    hair: HairStyle
    hair_colour: Colour
    hair_name: str
    volume: float = Share
    forehead: float = Share
    temples: float = Share
    brow_thickness: float = Share
    brow_density: float = Share
    brow_arch: float = Share
    beard: Beard
    lashes: float = Share
    pores: float = Share
    glasses: GlassesStyle
    glasses_colour: Colour
    neckline: Neckline
    pattern: Pattern
    cloth: Colour

    @classmethod
    def sample(cls, seed: int) -> "Person":
        """Draw an adult; the same seed gives the same person."""
        if seed < 0:
            raise FacekitError(f"person seed {seed}: must be 0 or more")
        return _sample(seed)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Person":
        """A person from what :meth:`to_json` gave.

        Raises:
            FacekitError: for an unknown key or coefficient, or a value out of range.
        """
        values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return validate(values, cls, "person")

    @field_validator("shape")
    @classmethod
    def _of_known_sliders(cls, shape: dict[str, float]) -> dict[str, float]:
        lowest = shapes.lowest()
        for name, value in shape.items():
            if name not in lowest:
                raise FacekitError(f"unknown shape '{name}'; {did_you_mean(name, lowest)}")
            if not lowest[name] <= value <= 1:
                raise FacekitError(
                    f"shape '{name}': {value} is out of range; allowed: {lowest[name]} to 1"
                )
        return shape

    def to_json(self) -> dict[str, Any]:
        """The parameters as JSON values."""
        return self.model_dump(mode="json")

    @property
    def description(self) -> str:
        """Words for a caption, without an expression; see :meth:`describe`."""
        return self.describe()

    def describe(self, expression: Mapping[str, float] | None = None) -> str:
        """Words for a caption, e.g. ``an older man with dark skin, short grey hair, smiling``.

        Args:
            expression: face unit → coefficient in [0, 1], as in a performance; None says nothing
                of the expression.

        Raises:
            FacekitError: for an unknown face unit, or a coefficient out of range.
        """
        check_units(expression or {})
        years = "young" if self.age < 35 else "middle-aged" if self.age < 58 else "older"
        article = "an" if years == "older" else "a"
        sex = "man" if self.sex > 0.5 else "woman"
        tone = ("light", "medium", "dark")[(self.skin_tone > 4) + (self.skin_tone > 6)]
        words = [f"{article} {years} {sex} with {tone} skin", _hair_words(self)]
        if self.beard != "none":
            words.append(_BEARD_WORDS[self.beard])
        if self.glasses != "none":
            words.append(f"{self.glasses} glasses")
        return ", ".join(words + _expression_words(expression or {}))

    @property
    def vector(self) -> NDArray[np.float32]:
        """What makes the face this person's, float32 (D,), each entry about in [-1, 1].

        Build, local shape, skin, eyes, brows, hair and beard; nothing that is worn. D is the
        same for everyone, and the order is fixed within a version of the studio.
        """
        numbers = [(self.age - 49) / 31, *(getattr(self, name) for name in _SHARES)]
        numbers += [self.skin_tone / 5 - 1.1, self.skin_shift, *self.iris, *self.hair_colour]
        numbers += [self.shape.get(name, 0.0) for name in shapes.lowest()]
        numbers += [float(self.hair == style) for style in get_args(HairStyle)]
        numbers += [float(self.beard == beard) for beard in get_args(Beard)]
        return np.array(numbers, np.float32)

    def coefficients(self) -> dict[str, float]:
        """Target → coefficient, for :meth:`facekit.studio.basis.Basis.displaced`."""
        found = _phenotype(self) | shapes.coefficients(self.shape)
        return found | shapes.at_rest(found)


_SHARES = (
    "sex african asian caucasian muscle weight undertone redness freckles moles blemishes "
    "mottling wrinkles lips lip_red volume forehead temples brow_thickness brow_density "
    "brow_arch lashes pores"
).split()
_BEARD_WORDS = {
    "stubble": "stubble",
    "moustache": "a moustache",
    "goatee": "a goatee",
    "full": "a full beard",
}
_HAIR_WORDS: dict[HairStyle, str] = {
    "bald": "a bald head",
    "shaved": "a shaved head",
    "short": "short {} hair",
    "crop": "cropped {} hair",
    "side part": "{} hair parted at the side",
    "receding": "receding {} hair",
    "curly": "curly {} hair",
    "afro": "a {} afro",
    "bob": "a {} bob",
    "long": "long {} hair",
    "wavy": "long wavy {} hair",
    "tied back": "{} hair tied back",
}


def _hair_words(person: Person) -> str:
    return _HAIR_WORDS[person.hair].format(person.hair_name)


def _expression_words(expression: Mapping[str, float]) -> list[str]:
    """What a viewer would say of the face units; at most three remarks."""

    def unit(name: str) -> float:
        sides = [expression.get(name + side, 0.0) for side in ("", "Left", "Right")]
        return max(sides[0], (sides[1] + sides[2]) / 2)

    found = []
    jaw, smile = unit("jawOpen"), unit("mouthSmile")
    raised = max(unit("browInnerUp"), unit("browOuterUp"))
    if smile > 0.25:
        found.append("smiling broadly" if smile > 0.5 and jaw > 0.08 else "smiling")
    elif raised > 0.35 and jaw > 0.15:
        found.append("surprised")
    elif unit("browDown") > 0.3 or unit("mouthFrown") > 0.3:
        found.append("frowning")
    elif unit("mouthPucker") > 0.3:
        found.append("with pursed lips")
    elif jaw > 0.15:
        found.append("with an open mouth")
    if raised > 0.35 and "surprised" not in found:
        found.append("with raised brows")
    if unit("eyeBlink") > 0.7:
        found.append("with closed eyes")
    return found


@lru_cache(maxsize=4)
def neutral(person_json: str) -> Array:
    """The person's head at rest, (N, 3) in dm; from ``Person.model_dump_json()``."""
    person = Person.model_validate_json(person_json)
    head = basis.load()
    return shapes.sealed(head.vertices + head.displaced(person.coefficients()))


def anny_age(years: float) -> float:
    """Years on anny's scale, where 2/3 is a young adult (25) and 1 is old (90).

    Nobody gets the shape of less than 35 years: beside a small or smooth face, the youngest shapes
    can look like a child's.
    """
    return 2 / 3 + (max(years, 35.0) - 25) / (90 - 25) / 3


def _phenotype(person: Person) -> dict[str, float]:
    old = 3 * anny_age(person.age) - 2
    ages = dict(zip(AGES, (1 - old, old), strict=True))
    genders = dict(zip(GENDERS, (1 - person.sex, person.sex), strict=True))
    builds = dict(zip(BUILDS, _three(person.muscle), strict=True))
    weights = dict(zip(WEIGHTS, _three(person.weight), strict=True))
    total = person.african + person.asian + person.caucasian or 1.0
    found: dict[str, float] = {}
    for gender, of_gender in genders.items():
        for age, of_age in ages.items():
            for origin in ORIGINS:
                share = getattr(person, origin) / total
                found[f"{origin}-{gender}-{age}"] = of_gender * of_age * share
            for build, of_build in builds.items():
                for weight, of_weight in weights.items():
                    name = f"universal-{gender}-{age}-{build}-{weight}"
                    found[name] = of_gender * of_age * of_build * of_weight
    return {name: value for name, value in found.items() if value}


def _three(value: float) -> tuple[float, float, float]:
    """Weights of minimum, average, maximum for a slider in [0, 1]."""
    return max(1 - 2 * value, 0.0), 1 - abs(2 * value - 1), max(2 * value - 1, 0.0)


def _sample(seed: int) -> Person:
    random = rng(seed, 1)
    age = float(np.clip(18 + 62 * random.beta(1.3, 1.7), 18, 80))
    male = bool(random.random() < 0.5)
    sex = float(random.uniform(0.82, 1) if male else random.uniform(0, 0.18))
    tone = int(random.integers(1, 11))
    african, asian, caucasian = _ancestry(random, tone)

    weight = float(np.clip(random.normal(0.5, 0.2), 0.1, 0.95))
    shape = shapes.sample(random, male=male, age=age, african=african, asian=asian, weight=weight)
    hair = _hair_style(random, male, age, african)
    colour = _hair_colour(random, tone, asian, age)
    iris = _iris(random, tone)
    beards: tuple[Beard, ...] = get_args(Beard)
    beard = beards[int(random.choice(5, p=[0.4, 0.25, 0.08, 0.09, 0.18]))] if male else "none"
    jitter = random.uniform(0.8, 1.25, 3)
    return Person(
        seed=seed,
        age=round(age, 2),
        sex=round(sex, 4),
        african=african,
        asian=asian,
        caucasian=caucasian,
        muscle=float(np.round(random.uniform(0.35, 0.8), 4)),
        weight=round(weight, 4),
        shape=shape,
        skin_tone=tone,
        skin_shift=_mild(random, 0.5),
        undertone=_mild(random, 0.45),
        redness=float(np.round(random.beta(2, 3), 4)),
        moles=float(np.round(random.uniform(), 4)),
        blemishes=float(np.round(random.beta(1, 2.5) * (1 if age < 30 else 0.6), 4)),
        freckles=float(np.round(random.beta(0.7, 2.5) * (1 if 1 < tone < 6 else 0.35), 4)),
        mottling=float(np.round(random.uniform(0.2, 0.9), 4)),
        wrinkles=float(np.round(np.clip((age - 28) / 50 + random.normal(0, 0.1), 0, 1), 4)),
        lips=float(np.round(random.uniform(0.35, 0.75) if male else random.uniform(0.5, 1), 4)),
        lip_red=float(np.round(random.uniform(0.1, 0.6) if male else random.uniform(0.2, 1), 4)),
        iris=_jittered(_IRIS_COLOURS[iris], jitter[0] * (0.9 + 0.1 * jitter)),
        iris_name=iris,
        hair=hair,
        hair_colour=_jittered(_HAIR_COLOURS[colour], jitter[1] ** 0.8 * (0.93 + 0.07 * jitter)),
        hair_name=colour,
        volume=float(np.round(random.uniform(0.2, 1), 4)),
        forehead=round(float(random.uniform()), 4),
        temples=round(float(random.uniform(0, 1 if male else 0.5)), 4),
        brow_thickness=float(
            np.round(np.clip(random.normal(0.62 if male else 0.38, 0.2), 0, 1), 4)
        ),
        brow_density=float(np.round(random.uniform(0.45, 1), 4)),
        brow_arch=float(np.round(np.clip(random.normal(0.35 if male else 0.6, 0.2), 0, 1), 4)),
        beard=beard,
        lashes=round(float(random.uniform(0.1, 0.6) if male else random.uniform(0.35, 1)), 4),
        pores=round(float(random.uniform(0.2, 0.8) + 0.2 * male), 4),
        **_worn(rng(seed, 7), age),
    )


def _worn(random: np.random.Generator, age: float) -> dict[str, Any]:
    """Glasses, the more often the older, and clothes."""
    glasses: GlassesStyle = "none"
    if random.random() < 0.15 + 0.25 * (age - 18) / 62:
        glasses = ("round", "square", "half-rim")[int(random.integers(3))]
    frames = ((0.015, 0.015, 0.017), (0.09, 0.045, 0.02), (0.3, 0.29, 0.28), (0.03, 0.04, 0.09))
    necklines: tuple[Neckline, ...] = get_args(Neckline)
    patterns: tuple[Pattern, ...] = get_args(Pattern)
    return {
        "glasses": glasses,
        "glasses_colour": frames[int(random.choice(4, p=[0.5, 0.2, 0.2, 0.1]))],
        "neckline": necklines[int(random.choice(4, p=[0.45, 0.2, 0.25, 0.1]))],
        "pattern": patterns[int(random.choice(3, p=[0.6, 0.15, 0.25]))],
        "cloth": _cloth(random),
    }


def _mild(random: np.random.Generator, deviation: float) -> float:
    return round(float(np.clip(random.normal(0, deviation), -0.9, 0.9)), 4)


def _ancestry(random: np.random.Generator, tone: int) -> tuple[float, float, float]:
    """Weights of the ancestral shapes; correlated with the tone, never decided by it."""
    likely = {
        "light": (0.25, 0.9, 2.6),
        "medium": (0.8, 1.5, 1.2),
        "dark": (3.0, 0.6, 0.3),
    }["light" if tone < 5 else "medium" if tone < 7 else "dark"]
    african, asian, caucasian = np.round(random.dirichlet(likely), 4).tolist()
    return african, asian, caucasian


def _hair_style(random: np.random.Generator, male: bool, age: float, african: float) -> HairStyle:
    styles: tuple[HairStyle, ...] = get_args(HairStyle)
    #           bald shav short crop side rece curl afro bob long wavy tied
    of_men = [0.8, 1.2, 2.7, 2.2, 2.0, 0.5, 1.1, 0.3, 0.08, 0.25, 0.1, 0.2]
    of_women = [0.05, 0.1, 0.5, 0.7, 0.5, 0.0, 1.2, 0.4, 2.2, 2.6, 2.2, 1.6]
    weights = np.array(of_men if male else of_women)
    if male and age > 45:
        weights[[0, 5]] += [1.0, 2.0]
    if african > 0.5:
        weights[[6, 7, 1]] += [1.5, 2.0, 0.8 if male else 0.1]
        weights[[4, 9]] *= 0.4
    return styles[int(random.choice(len(styles), p=weights / weights.sum()))]


def _hair_colour(random: np.random.Generator, tone: int, asian: float, age: float) -> str:
    grey = np.clip((age - 42) / 38, 0, 1)
    if random.random() < grey:
        return "white" if random.random() < grey * 0.6 else "grey"
    if tone >= 7 or asian > 0.6:
        names, weights = ("black", "dark brown", "brown"), [0.65, 0.28, 0.07]
    elif tone >= 5:
        names, weights = ("black", "dark brown", "brown", "light brown"), [0.35, 0.35, 0.2, 0.1]  # type: ignore[assignment]
    else:
        names = ("dark brown", "brown", "light brown", "blond", "red", "black")  # type: ignore[assignment]
        weights = [0.2, 0.24, 0.18, 0.2, 0.1, 0.08]
    return str(random.choice(names, p=weights))


def _iris(random: np.random.Generator, tone: int) -> str:
    if tone >= 7:
        weights = [0.72, 0.25, 0.03, 0, 0, 0]
    elif tone >= 5:
        weights = [0.35, 0.4, 0.15, 0.05, 0.03, 0.02]
    else:
        weights = [0.08, 0.2, 0.18, 0.16, 0.25, 0.13]
    return str(random.choice(list(_IRIS_COLOURS), p=weights))


def _jittered(colour: Colour, factors: Any) -> Colour:
    r, g, b = np.round(np.clip(np.array(colour) * factors, 0, 1), 4).tolist()
    return r, g, b


def _cloth(random: np.random.Generator) -> Colour:
    """Mostly muted; a random hue at random strength."""
    grey = random.uniform(0.03, 0.55)
    colour = grey * (1 + random.uniform(0, 0.9) * random.uniform(-1, 1, 3))
    r, g, b = np.round(np.clip(colour, 0.01, 0.8), 4).tolist()
    return r, g, b


MOST_PEOPLE = 1000
"""People of one folder at most: with more, the next seed's folder would show them again."""


def person_seed(seed: int, person: int) -> int:
    """The seed of a folder's person; folder seed 0 has people 0, 1, 2 and so on.

    Two folders of different seeds share nobody as long as neither has more than ``MOST_PEOPLE``.
    """
    return seed * MOST_PEOPLE + person
