import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from facekit.core.errors import FacekitError
from facekit.studio import basis, shapes, skin
from facekit.studio.landmarks import landmarks
from facekit.studio.performance import Performance
from facekit.studio.person import MOST_PEOPLE, Person, anny_age, neutral, person_seed
from facekit.studio.render import render


@pytest.fixture(scope="module")
def people():
    return [Person.sample(seed) for seed in range(1000)]


@pytest.fixture(scope="module")
def heads(people):
    return [neutral(person.model_dump_json()) for person in people[:60]]


def shaven(person, **change):
    plain = {"hair": "bald", "beard": "none", "glasses": "none", "neckline": "crew"}
    return person.model_copy(update=plain | change)


# --- who is drawn ----------------------------------------------------------------------------


def test_everyone_is_an_adult_by_our_years_and_by_annys_scale(people):
    assert min(p.age for p in people) >= 18
    assert max(p.age for p in people) <= 80
    assert max(p.age for p in people) > 75
    # anny's scale: baby 0, child 1/3, young 2/3, old 1.
    assert anny_age(18) == anny_age(35) == pytest.approx(2 / 3 + 10 / 65 / 3)
    assert anny_age(57.5) == pytest.approx(5 / 6)
    assert all(2 / 3 - 1e-9 <= anny_age(p.age) < 1 for p in people)
    # No target of a child or a baby is even in the basis.
    assert not [n for n in basis.load().names if "child" in n or "baby" in n]
    used = {n for p in people[:50] for n in p.coefficients() if "male-" in n}
    assert all("young" in n or "old" in n for n in used)


@given(st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_the_phenotypes_weights_sum_to_one_each(seed):
    coefficients = Person.sample(seed).coefficients()
    for kind in (("universal",), ("african", "asian", "caucasian")):
        values = [v for n, v in coefficients.items() if n.split("-")[0] in kind]
        assert min(values) >= 0
        assert sum(values) == pytest.approx(1, abs=1e-6)


def test_skin_tones_are_drawn_evenly_over_the_ten_groups(people):
    counts = np.bincount([p.skin_tone for p in people], minlength=11)[1:]
    assert chisquare(counts).pvalue > 0.001


def test_every_style_and_every_thing_worn_occurs(people):
    for key in ("hair", "beard", "glasses", "neckline", "pattern", "hair_name", "iris_name"):
        allowed = getattr(Person.model_fields[key].annotation, "__args__", ())
        seen = {getattr(p, key) for p in people}
        assert len(seen) >= 3
        assert not allowed or seen == set(allowed)


def test_traits_go_together_as_they_do_in_people(people):
    def correlation(one, other):
        return np.corrcoef([one(p) for p in people], [other(p) for p in people])[0, 1]

    assert correlation(lambda p: p.age, lambda p: p.wrinkles) > 0.8
    assert correlation(lambda p: p.age, lambda p: p.shape["l-ear-lobe"]) > 0.15
    assert correlation(lambda p: p.sex, lambda p: p.shape["eyebrows-ridge"]) > 0.15
    assert correlation(lambda p: p.weight, lambda p: p.shape["head-fat"]) > 0.3
    assert correlation(lambda p: p.african, lambda p: p.skin_tone) > 0.4
    one, other = "nose-width3", "nose-flaring"
    assert correlation(lambda p: p.shape[one], lambda p: p.shape[other]) > 0.25
    for name in ("eye-scale", "ear-wing", "cheek-bones"):
        left, right = ([p.shape[f"{side}-{name}"] for p in people] for side in "lr")
        assert 0.9 < np.corrcoef(left, right)[0, 1] < 0.9999


def test_shapes_are_mild(people):
    allowed = shapes.lowest()
    for person in people[:200]:
        assert set(person.shape) <= set(allowed)
        assert all(allowed[n] <= v <= 1 for n, v in person.shape.items())
    values = np.array([[p.shape.get(n, 0) for n in allowed] for p in people])
    assert np.quantile(np.abs(values), 0.99) < 0.75
    assert values.std(0).max() < 0.45


def test_faces_stay_within_the_measures_of_adults(heads):
    marks = np.stack([landmarks(head) for head in heads]) * 100  # mm
    x, y = marks[..., 0], marks[..., 1]
    assert (y[:, 30] > y[:, 33]).all(), "a nose droops below its root"
    eyes, mouth = x[:, 45] - x[:, 36], x[:, 54] - x[:, 48]
    height, width = y[:, 27] - y[:, 8], x[:, 14] - x[:, 2]
    # Farkas (1994), adults of both sexes and several ancestries, with some room: en-en and ex-ex,
    # ch-ch, n-gn, zy-zy.
    assert 68 < eyes.min() < eyes.max() < 110
    assert 35 < mouth.min() < mouth.max() < 66
    assert 80 < height.min() < height.max() < 140
    assert 110 < width.min() < width.max() < 160
    nose = x[:, 35] - x[:, 31]  # Between the wings' feet.
    assert 12 < nose.min() < nose.max() < 46
    corners = y[:, [48, 54]].mean(1) - y[:, [62, 66]].mean(1)
    assert corners.min() > -1.5, "a mouth frowns at rest"
    lips = y[:, 62] - y[:, 66]
    assert lips.max() < lips.min() + 8
    sides = np.abs(x[:, 36] + x[:, 45])
    assert sides.max() < 6, "a face is crooked"
    placed = marks - marks.mean(1, keepdims=True)
    apart = np.linalg.norm(placed - placed.mean(0), axis=2)
    assert 2 < apart.mean() < 6, "people are too alike, or caricatures"
    assert apart.mean(1).max() < 11


def test_lips_meet_at_rest(heads):
    upper, lower = shapes._lips(0.27)
    base = basis.load().vertices
    at_first = base[upper, 1] - base[lower, 1]
    opened = [(head[upper, 1] - head[lower, 1] - at_first) * 100 for head in heads]
    assert np.median(opened, axis=1).max() < 0  # mm
    assert np.max(opened) < 1.5


@given(st.integers(0, 2**31), st.booleans())
@settings(max_examples=40, deadline=None)
def test_no_adult_is_drawn_like_a_child(seed, male):
    random = np.random.default_rng(seed)
    traits = {name: float(random.normal(0, 2)) for name in shapes.FACTORS}
    direction = shapes._CHILDLIKE
    length = np.linalg.norm(list(direction.values()))
    grown = shapes._grown_up(traits)
    extent = sum(share * grown[name] for name, share in direction.items()) / length
    before = sum(share * traits[name] for name, share in direction.items()) / length
    assert extent == pytest.approx(min(before, -0.1))
    shape = shapes.sample(random, male=male, age=20, african=0.3, asian=0.3, weight=0.5)
    for name, (least, most) in shapes._ADULT.items():
        drawn = [
            value for slider, value in shape.items() if slider in (name, f"l-{name}", f"r-{name}")
        ]
        assert all(least <= value <= most for value in drawn)


def test_people_differ_in_shape_and_vector(people, heads):
    vectors = np.stack([p.vector for p in people[:60]])
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    apart = np.linalg.norm(vectors[:, None] - vectors, axis=2) + 9 * np.eye(60)
    assert apart.min() > 1
    for i in range(6):
        for j in range(i):
            assert np.abs(heads[i] - heads[j]).max() > 0.05


def test_what_is_worn_is_no_part_of_the_identity(people):
    person = people[3]
    other = {"glasses": "round", "cloth": (0.1, 0.2, 0.3), "neckline": "v", "pattern": "knit"}
    assert (person.model_copy(update=other).vector == person.vector).all()
    older = person.model_copy(update={"age": person.age - 1})
    assert (older.vector != person.vector).any()


# --- JSON and errors -------------------------------------------------------------------------


@given(st.integers(0, 2**40))
@settings(max_examples=30, deadline=None)
def test_the_same_seed_gives_the_same_person_and_json_brings_it_back(seed):
    person = Person.sample(seed)
    assert person == Person.sample(seed)
    again = Person.from_json(json.loads(json.dumps(person.to_json())))
    assert again == person
    assert (again.vector == person.vector).all()
    assert again.description == person.description


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"age": 17.9}, "'age'.*greater than or equal to 18.*17.9"),
        ({"age": 81.0}, "'age'.*less than or equal to 80"),
        ({"sex": 1.2}, "less than or equal to 1"),
        ({"skin_tone": 11}, "'skin_tone'.*less than or equal to 10"),
        ({"undertone": -1.5}, "greater than or equal to -1"),
        ({"iris": [0.1, 0.2, 1.5]}, "less than or equal to 1"),
        ({"age": float("nan")}, "'age'"),
        ({"glasses": "monocle"}, "'none', 'round', 'square' or 'half-rim'"),
        ({"hair": "mohawk"}, "'bald'"),
        ({"shape": {"nose-hmp": 0.1}}, "did you mean 'nose-hump'"),
        ({"shape": {"nose-hump": 1.5}}, "'nose-hump'.*1.5.*allowed: -1 to 1"),
        ({"shape": {"chin-triangle": -0.2}}, "'chin-triangle'.*allowed: 0 to 1"),
        ({"colour": 1}, "unknown key 'colour'"),
    ],
)
def test_a_person_out_of_bounds_is_refused(change, words):
    with pytest.raises(FacekitError, match=words) as caught:
        Person.from_json(Person.sample(0).to_json() | change)
    assert "\n" not in str(caught.value)


def test_a_key_that_is_missing_is_named():
    values = Person.sample(0).to_json()
    del values["lashes"]
    with pytest.raises(FacekitError, match="key 'lashes' is missing"):
        Person.from_json(values)


def test_a_negative_seed_is_refused():
    with pytest.raises(FacekitError, match=r"-1.*0 or more"):
        Person.sample(-1)


def test_folders_of_different_seeds_share_nobody():
    assert person_seed(0, 5) == 5
    first = {person_seed(1, i) for i in range(MOST_PEOPLE)}
    assert not first & {person_seed(2, i) for i in range(MOST_PEOPLE)}


# --- words -----------------------------------------------------------------------------------


def someone(**change):
    plain = {
        "age": 40.0,
        "sex": 1.0,
        "skin_tone": 5,
        "hair": "short",
        "hair_name": "brown",
        "beard": "none",
        "glasses": "none",
    }
    return Person.sample(0).model_copy(update=plain | change)


def both(**units):
    return {f"{unit}{side}": value for unit, value in units.items() for side in ("Left", "Right")}


@pytest.mark.parametrize(
    ("change", "expression", "words"),
    [
        (
            {"age": 70.0, "skin_tone": 9, "hair_name": "grey"},
            both(mouthSmile=0.6),
            "an older man with dark skin, short grey hair, smiling",
        ),
        ({}, None, "a middle-aged man with medium skin, short brown hair"),
        (
            {"age": 20.0, "sex": 0.0, "skin_tone": 1, "hair": "long"},
            {},
            "a young woman with light skin, long brown hair",
        ),
        (
            {"hair": "bald", "beard": "full", "glasses": "round"},
            {},
            "a middle-aged man with medium skin, a bald head, a full beard, round glasses",
        ),
        ({}, both(mouthSmile=0.8) | {"jawOpen": 0.2}, "short brown hair, smiling broadly"),
        ({}, {"browInnerUp": 0.8, "jawOpen": 0.5}, "short brown hair, surprised"),
        ({}, both(browDown=0.7), "short brown hair, frowning"),
        ({}, {"mouthPucker": 0.7}, "short brown hair, with pursed lips"),
        ({}, {"jawOpen": 0.4}, "short brown hair, with an open mouth"),
        ({}, both(browOuterUp=0.9, mouthSmile=0.4), "smiling, with raised brows"),
        ({}, both(eyeBlink=1.0), "short brown hair, with closed eyes"),
        ({}, {"mouthSmileLeft": 0.1, "jawOpen": 0.05}, "short brown hair"),
    ],
)
def test_a_person_is_described_in_words(change, expression, words):
    assert someone(**change).describe(expression).endswith(words)


def test_everyone_can_be_described(people):
    for person in people[:100]:
        assert person.description == person.describe()
        assert person.description.startswith(("a ", "an "))
        assert "{" not in person.description


# --- skin ------------------------------------------------------------------------------------


def lab(rgb):
    """CIELAB (..., 3) of linear sRGB, D65, by OpenCV: an oracle that the studio does not use."""
    rgb = np.asarray(rgb, np.float32)
    encoded = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(encoded.reshape(-1, 1, 3).astype(np.float32), cv2.COLOR_RGB2LAB)[:, 0]


def test_the_rendered_lightness_falls_with_each_of_the_ten_groups():
    person = shaven(Person.sample(4), skin_shift=0.0, undertone=0.0, freckles=0.0)
    light = []
    for tone in range(1, 11):
        frame = render(person.model_copy(update={"skin_tone": tone}), Performance(), 48)
        shown = frame.pixels[frame.masks["face"] > 200] / 255.0
        linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
        light.append(lab(linear.mean(0))[0, 0])
    assert (np.diff(light) < -1).all(), light
    assert light[0] - light[-1] > 30


@given(st.integers(1, 10), st.floats(-1, 1), st.floats(-1, 1))
@settings(max_examples=60, deadline=None)
def test_no_skin_is_grey_green_or_yellow(tone, shift, undertone):
    person = Person.sample(0).model_copy(
        update={"skin_tone": tone, "skin_shift": shift, "undertone": undertone}
    )
    albedo = skin.skin_colour(person)
    assert albedo[0] > albedo[1] > albedo[2] > 0.01
    assert albedo.max() < 0.7
    _, a, b = lab(albedo)[0]
    # Xiao et al. (2017) measured hue angles of about 35 to 75 degrees on faces.
    assert 33 < np.degrees(np.arctan2(b, a)) < 72
    assert np.hypot(a, b) > 7


@pytest.fixture(scope="module")
def painted():
    plain = {"freckles": 0.0, "moles": 0.0, "blemishes": 0.0, "mottling": 0.2}
    person = shaven(Person.sample(4), sex=0.1, skin_tone=3, **plain)
    return person, skin.paint(person.model_dump_json())


def grid(cx, cy, wide=0.12, high=0.08):
    """Places on the neutral head about (cx, cy), seen from the front."""
    texels = basis.load().texels.reshape(-1, 3)
    x, y, z = texels.T
    near = (np.abs(x - cx) < wide) & (np.abs(y - cy) < high) & (z > 0.6)
    return texels[near]


def depth(person, painted, places, expression):
    """How much more the skin is tilted there than at rest and young."""
    smooth = person.model_copy(update={"wrinkles": 0.0})
    before = skin.sample(painted, smooth, places, {})[2]
    return float(np.abs(skin.sample(painted, person, places, expression)[2] - before).mean())


def test_the_look_up_gives_what_was_painted(painted):
    person, coat = painted
    places = grid(0.4, 7.0)
    albedo, gloss, tilt = skin.sample(coat, person, places, {})
    assert albedo.shape == tilt.shape == places.shape
    assert gloss.shape == (len(places),)
    assert {albedo.dtype, gloss.dtype, tilt.dtype} == {np.dtype(np.float32)}
    assert 0 < albedo.min() < albedo.max() < 1
    assert 0 <= gloss.min() < gloss.max() <= 1
    assert np.abs(tilt).max() < 1.5
    empty = skin.sample(coat, person, places[:0], {})
    assert [len(part) for part in empty] == [0, 0, 0]


def test_the_same_person_is_painted_the_same(painted):
    person, coat = painted
    skin.paint.cache_clear()
    again = skin.paint(person.model_dump_json())
    for one, other in zip(coat.levels, again.levels, strict=True):
        assert (one.surface == other.surface).all()
        assert (one.relief == other.relief).all()
        assert (one.lines == other.lines).all()


FOREHEAD, GLABELLA = (0.0, 7.72), (0.07, 7.5)
CROW, FOLD = (0.58, 7.28), (0.3, 6.75)


@pytest.mark.parametrize("where", [FOREHEAD, GLABELLA, CROW, FOLD])
def test_wrinkles_deepen_with_age(painted, where):
    person, coat = painted
    places = grid(*where)
    ages = [
        depth(person.model_copy(update={"wrinkles": share}), coat, places, {})
        for share in (0.0, 0.4, 0.8)
    ]
    assert ages[0] == 0
    assert ages[0] < 0.01 < 2 * ages[1] < 1.5 * ages[2] * 1.5


@pytest.mark.parametrize(
    ("where", "expression"),
    [
        (FOREHEAD, {"browInnerUp": 1.0}),
        (GLABELLA, both(browDown=1.0)),
        (CROW, both(eyeSquint=0.7, mouthSmile=0.7)),
        (CROW, both(cheekSquint=1.0)),
        (FOLD, both(mouthSmile=1.0)),
        (FOLD, both(noseSneer=1.0)),
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.6])
def test_wrinkles_deepen_with_the_expression_there_and_only_there(
    painted, where, expression, share
):
    person, coat = painted
    person = person.model_copy(update={"wrinkles": share})
    places = grid(*where)
    still, half, full = (
        depth(person, coat, places, {unit: times * v for unit, v in expression.items()})
        for times in (0, 0.5, 1)
    )
    assert still < half < full
    at_rest, moved = (skin.sample(coat, person, places, e)[0].mean() for e in ({}, expression))
    assert moved < at_rest, "a crease is a little darker"
    crown = grid(0.0, 8.2)
    assert depth(person, coat, crown, expression) == pytest.approx(
        depth(person, coat, crown, {}), abs=1e-6
    )


def test_left_units_crease_the_persons_own_left_only(painted):
    person, coat = painted
    left, right = grid(0.58, 7.28), grid(-0.58, 7.28)
    expression = {"eyeSquintLeft": 1.0}
    assert depth(person, coat, left, expression) > 1.2 * depth(person, coat, left, {})
    assert depth(person, coat, right, expression) == pytest.approx(
        depth(person, coat, right, {}), rel=1e-3
    )


def test_detail_finer_than_the_rays_is_left_out(painted):
    person, coat = painted
    places = grid(0.3, 6.98)
    rough = [skin.sample(coat, person, places, {}, spacing)[2] for spacing in (0, 0.007, 0.02)]
    spread = [np.abs(tilt - tilt.mean(0)).mean() for tilt in rough]
    assert spread[0] > 1.2 * spread[1] > 1.2 * 1.2 * spread[2]
    colours = [skin.sample(coat, person, places, {}, s)[0].mean(0) for s in (0, 0.007, 0.02)]
    np.testing.assert_allclose(colours[1:], [colours[0]] * 2, rtol=0.01)


def test_cheeks_and_nose_are_redder_than_the_forehead(painted):
    person, coat = painted

    def redness(*where):
        albedo = skin.sample(coat, person, grid(*where), {})[0].mean(0)
        return albedo[0] / albedo[1]

    assert min(redness(0.46, 6.95), redness(0.0, 6.93, 0.08)) > 1.05 * redness(0.0, 7.72)


def test_a_shaven_beard_leaves_a_bluish_shadow_on_pale_skin():
    dark = {"hair_colour": (0.012, 0.010, 0.009), "hair_name": "black", "skin_tone": 2}
    man = shaven(Person.sample(4), sex=1.0, **dark)
    woman = man.model_copy(update={"sex": 0.4})
    jaw = grid(0.35, 6.45, 0.06, 0.05)
    his, hers = (
        skin.sample(skin.paint(p.model_dump_json()), p, jaw, {})[0].mean(0) for p in (man, woman)
    )
    assert his.sum() < 0.95 * hers.sum()
    assert his[2] / his[0] > hers[2] / hers[0]


def test_lips_are_redder_than_the_skin_around_them(painted):
    person, coat = painted
    lip = skin.sample(coat, person, grid(0.0, 6.56, 0.1, 0.03), {})[0].mean(0)
    chin = skin.sample(coat, person, grid(0.0, 6.38, 0.1, 0.03), {})[0].mean(0)
    assert lip[0] / lip[1] > 1.15 * chin[0] / chin[1]


def test_what_closes_a_resting_mouth_is_a_small_turn_of_the_jaw():
    found = shapes.at_rest({"caucasian-female-young": 1.0, "jawOpen": 0.0})
    assert set(found) <= set(basis.load().index)
    assert -0.1 <= found["jawOpen"] <= 0.04
