"""Eyes, mouth, glasses and clothes of studio people."""

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facekit.studio import basis, eyes, mouth, wear
from facekit.studio import person as people
from facekit.studio.light import Lamp, Light
from facekit.studio.performance import Performance, rotation
from facekit.studio.person import Person
from facekit.studio.render import Render, render

AHEAD = np.eye(3, dtype=np.float32)
EVEN = np.zeros((9, 3), np.float32)
EVEN[0] = 1.77


@lru_cache
def bare(seed: int) -> Person:
    """A person without glasses, whose long hair hides no eye, wide awake."""
    return Person.sample(seed).model_copy(update={"glasses": "none", "hair": "shaved"})


def head_of(person: Person) -> basis.Array:
    return people.neutral(person.model_dump_json())


@lru_cache
def looking(seed: int, gaze_x: float = 0.0, gaze_y: float = 0.0, size: int = 256) -> Render:
    close = {"focal": 250.0, "distance": 11.0, "centre_y": 0.5}
    wide = {"eyeWideLeft": 0.6, "eyeWideRight": 0.6}
    moment = Performance(gaze_x=gaze_x, gaze_y=gaze_y, expression=wide, **close)
    return render(bare(seed), moment, size)


def darkest(picture: Render, at: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean place of the darkest eye pixels near a point, and their distance to it."""
    grey = picture.pixels.astype(float).mean(2)
    y, x = np.mgrid[0 : len(grey), 0 : len(grey)] + 0.5
    near = (np.hypot(x - at[0], y - at[1]) < 14) & (picture.masks["eyes"] > 250)
    limit = np.percentile(grey[near], 12)
    dark = near & (grey <= limit)
    middle = np.array([x[dark].mean(), y[dark].mean()])
    return float(np.linalg.norm(middle - at)), middle


@pytest.mark.parametrize("gaze", [(0.0, 0.0), (12.0, 0.0), (-12.0, 5.0)])
def test_irises_lie_where_the_pupils_are_dark(gaze: tuple[float, float]) -> None:
    picture = looking(21, *gaze)
    between = np.linalg.norm(picture.landmarks[69] - picture.landmarks[68])
    for at in picture.landmarks[68:70]:
        apart, _ = darkest(picture, at)
        # 0.055 of the distance between the eyes is the radius of an average pupil.
        assert apart < 0.055 * between


def test_gaze_moves_both_irises_the_way_it_says() -> None:
    ahead = looking(21).landmarks[68:]
    right, up = looking(21, gaze_x=12.0).landmarks[68:], looking(21, gaze_y=8.0).landmarks[68:]
    assert (right[:, 0] > ahead[:, 0] + 1).all()
    assert (up[:, 1] < ahead[:, 1] - 1).all()


def test_iris_centres_follow_the_ball_exactly() -> None:
    head = head_of(bare(3))
    turned = rotation(20, -10, 5)
    moment = Performance(gaze_x=10.0, gaze_y=-6.0)
    found = eyes.iris_centres(bare(3), head @ turned.T, turned, moment)
    ahead = eyes.gaze(bare(3), moment, turned)[:, 2]
    assert np.degrees(np.arctan2(*(turned.T @ ahead)[[0, 2]])) == pytest.approx(8, abs=0.01)
    for eye, at in zip((basis.RIGHT_EYE, basis.LEFT_EYE), found, strict=True):
        ball = eyes.ball(head @ turned.T, turned, eye)
        assert np.allclose(at - ball.centre, ball.radius * ahead, atol=1e-4)
        own = head[np.unique(basis.load().triangles[basis.load().materials == eye])]
        assert np.allclose(ball.centre, turned @ own.mean(0), atol=1e-4)
    assert found[0, 0] < found[1, 0]  # The picture's left eye comes first.


@settings(max_examples=40, deadline=None)
@given(
    bright=st.floats(0, 50),
    age=st.floats(18, 80),
    time=st.floats(0, 600),
)
def test_pupils_stay_within_an_adults_bounds(bright: float, age: float, time: float) -> None:
    person = bare(3).model_copy(update={"age": age})
    light = Light(EVEN * bright, (Lamp(AHEAD[2], np.full(3, bright, np.float32)),))
    size = eyes.pupil_radius(person, Performance(time=time), light, AHEAD)
    assert eyes.PUPIL[0] <= size <= eyes.PUPIL[1]
    assert size < 0.55 * eyes.iris_radius(person)


def test_pupils_narrow_in_bright_light() -> None:
    sizes = [
        eyes.pupil_radius(bare(3), Performance(), Light(EVEN * bright, ()), AHEAD)
        for bright in (0.1, 0.5, 2.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_irises_are_as_wide_as_adults_are() -> None:
    widths = [200 * eyes.iris_radius(bare(seed)) for seed in range(60)]  # In mm.
    assert 11.0 < min(widths) and max(widths) < 12.4
    assert np.mean(widths) == pytest.approx(11.7, abs=0.15)


def test_lids_open_and_close_about_the_ball() -> None:
    head = head_of(bare(3))
    base = basis.load()
    for side, eye in (("Left", basis.LEFT_EYE), ("Right", basis.RIGHT_EYE)):
        shut = head + base.displaced({f"eyeBlink{side}": 0.6})
        gaps = []
        for points in (head, shut):
            ball = eyes.ball(points, AHEAD, eye)
            upper = np.interp(0.0, ball.upper[0], ball.upper[1])
            gaps.append(upper - np.interp(0.0, ball.lower[0], ball.lower[1]))
        assert 0.3 < gaps[0] < 1.2
        assert gaps[1] < 0.7 * gaps[0]


def test_pupil_is_darker_than_iris_and_iris_than_sclera() -> None:
    person = bare(20)  # Green eyes.
    head = head_of(person)
    ball = eyes.ball(head, AHEAD, basis.LEFT_EYE)
    out = np.array([[0.02, -0.06, 1.0], [0.25, -0.1, 1.0], [0.47, -0.1, 0.87]], np.float32)
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    at = (ball.centre + ball.radius * out).astype(np.float32)
    view = np.tile(AHEAD[2], (3, 1))
    light = Light(EVEN * 0.5, ())
    shown = eyes.shade(person, Performance(), ball, AHEAD, at, view, light, np.ones((0, 3)))
    pupil, iris, sclera = shown.mean(1)
    assert 0 <= pupil < 0.6 * iris < 0.8 * sclera


@lru_cache
def saying(seed: int, **units: float) -> Render:
    moment = Performance(expression=dict(units), focal=120.0, centre_y=0.2)
    return render(bare(seed), moment, 128)


@pytest.mark.parametrize("seed", [0, 8, 11, 20])
def test_teeth_and_tongue_keep_behind_closed_lips(seed: int) -> None:
    assert saying(seed).masks["teeth"].max() == 0
    wry = saying(seed, mouthPressLeft=0.8, mouthPressRight=0.8)
    assert wry.masks["teeth"].sum() / 255 < 2


def test_teeth_show_when_the_mouth_opens_or_smiles() -> None:
    smile = {f"{unit}{side}": 0.7 for unit in ("mouthSmile", "mouthUpperUp") for side in SIDES}
    assert saying(8, jawOpen=0.7).masks["teeth"].sum() / 255 > 4
    assert saying(8, jawOpen=0.1, **smile).masks["teeth"].sum() / 255 > 20
    opened = saying(8, jawOpen=0.9)
    assert (opened.masks["teeth"] <= opened.masks["mouth"]).all()
    # A slab would fill most of it.
    assert opened.masks["teeth"].sum() < 0.35 * opened.masks["mouth"].sum()


SIDES = ("Left", "Right")


def test_an_open_mouth_is_darker_than_the_lips_and_darkens_backwards() -> None:
    person = bare(0)
    light = Light(EVEN * 0.5, ())
    back = np.linspace(1.45, 0.8, 20)
    where = np.stack([0 * back, 0 * back + 6.55, back], 1).astype(np.float32)
    normal = np.tile(AHEAD[1], (20, 1))
    view = np.tile(AHEAD[2], (20, 1))
    arrive = np.ones((0, 20), np.float32)
    args = (person, where, normal, view, light, arrive, AHEAD)
    for kind in (basis.TONGUE, basis.SKIN):
        shown = mouth.shade(kind, *args, opening=1.0).mean(1)
        assert (shown > 0).all() and shown[-1] < 0.35 * shown[0]
        assert (mouth.shade(kind, *args, opening=0.1).mean(1) < shown).all()


def test_opening_is_a_share_and_grows_with_the_jaw() -> None:
    assert mouth.opening({}) < mouth.opening({"jawOpen": 0.3}) < mouth.opening({"jawOpen": 0.6})
    assert mouth.opening({"jawOpen": 0.5, "mouthClose": 1.0}) == mouth.opening({})
    assert mouth.opening(dict.fromkeys(("jawOpen", "mouthSmileLeft", "mouthUpperUpLeft"), 1.0)) <= 1


def test_the_tongue_that_comes_out_lies_as_if_it_had_never_been_drawn_back() -> None:
    head = head_of(bare(0))
    turned = rotation(15, 5, 0)
    points = mouth.settled(head) @ turned.T
    mouth.put_out(points, turned, 1.0)
    tongue = np.unique(basis.load().triangles[basis.load().materials == basis.TONGUE])
    assert np.allclose(points[tongue], head[tongue] @ turned.T, atol=1e-5)
    moved = np.abs(mouth.settled(head) - head).max(1) > 0
    inside = np.isin(basis.load().materials, (basis.TEETH, basis.TONGUE))
    assert set(np.flatnonzero(moved)) <= set(basis.load().triangles[inside].ravel().tolist())


def teeth_of(age: float, seed: int) -> basis.Array:
    person = bare(0).model_copy(update={"age": age, "seed": seed})
    x = np.linspace(-0.2, 0.2, 81)
    where = np.stack([x, 0 * x + 6.64, 1.47 - 1.3 * x**2], 1).astype(np.float32)
    return mouth._teeth(person, where)[0]


def test_teeth_are_apart_alike_in_nobody_and_yellower_with_age() -> None:
    shown = teeth_of(30, 1)
    bright = shown.mean(1)
    dips = (bright[1:-1] < bright[:-2]) & (bright[1:-1] < bright[2:])
    assert 3 <= dips.sum() <= 9
    assert bright[40] < 0.75 * bright.max()  # Between the two in the middle.
    blue = [np.mean([teeth_of(age, s)[:, 2].mean() for s in range(5)]) for age in (20, 75)]
    red = [np.mean([teeth_of(age, s)[:, 0].mean() for s in range(5)]) for age in (20, 75)]
    assert blue[1] / red[1] < blue[0] / red[0]
    assert not np.array_equal(teeth_of(30, 1), teeth_of(30, 2))
    assert not np.allclose(shown, shown[::-1])


STYLES = ("round", "square", "half-rim")


@lru_cache
def glasses_of(seed: int, style: str) -> tuple[wear.Glasses, basis.Array]:
    person = Person.sample(seed).model_copy(update={"glasses": style})
    head = head_of(person)
    worn = wear.glasses(person, head)
    assert worn is not None
    return worn, head


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seed", [1, 5, 9, 14])
def test_glasses_fit(style: str, seed: int) -> None:
    worn, head = glasses_of(seed, style)
    assert len(worn.triangles) <= 3000
    assert worn.points.dtype == np.float32 and worn.triangles.dtype == np.int32
    assert worn.triangles.max() < len(worn.points)
    # Symmetric: each vertex has a mirror image.
    rows = {tuple(row) for row in np.round(worn.points * [1.0, 1, 1], 3).tolist()}
    mirrored = {tuple(row) for row in np.round(worn.points * [-1, 1, 1], 3).tolist()}
    assert len(rows ^ mirrored) <= 0.02 * len(rows)
    # The lenses are before the eyes.
    lens = worn.points[np.unique(worn.triangles[worn.material == wear.LENS])]
    for eye in (basis.LEFT_EYE, basis.RIGHT_EYE):
        centre = head[np.unique(basis.load().triangles[basis.load().materials == eye])].mean(0)
        own = lens[np.sign(lens[:, 0]) == np.sign(centre[0])]
        assert (own.min(0)[:2] < centre[:2]).all() and (own.max(0)[:2] > centre[:2]).all()
        assert own[:, 2].min() > centre[2] + 0.1
    # The temples reach the ears.
    assert worn.points[:, 2].min() < 0.6
    assert 0.6 < worn.points[:, 0].max() < 1.0


@pytest.mark.parametrize("style", STYLES)
def test_glasses_do_not_cut_into_the_head(style: str) -> None:
    base = basis.load()
    skin = base.triangles[base.materials == basis.SKIN]
    for seed in (1, 5, 9, 14, 20):
        worn, head = glasses_of(seed, style)
        # From a point inside the skin, forwards (rims) or outwards (temples), skin is met.
        # Further back than 0.75 the temples lie between head and ear.
        front = worn.points[(worn.points[:, 2] > 1.35) & (np.abs(worn.points[:, 0]) > 0.16)]
        forwards = np.tile([0.0, 0.0, 1.0], (len(front), 1))
        assert (basis.cast(head, skin, front, forwards)["primID"] >= 0).mean() < 0.02
        bars = worn.points[(worn.points[:, 2] < 1.3) & (worn.points[:, 2] > 0.75)]
        outwards = np.sign(bars[:, :1]) * np.array([[1.0, 0.0, 0.0]])
        assert (basis.cast(head, skin, bars, outwards)["primID"] >= 0).mean() < 0.02


def test_glasses_are_the_same_each_time_and_none_where_none_are_worn() -> None:
    person = Person.sample(4).model_copy(update={"glasses": "square"})
    head = head_of(person)
    first, second = wear.glasses(person, head), wear.glasses(person, head)
    assert first is not None and second is not None
    assert first.points.tobytes() == second.points.tobytes()
    assert first.triangles.tobytes() == second.triangles.tobytes()
    assert wear.glasses(bare(4), head) is None


NECKLINES = ("crew", "v", "collar", "boat")
PATTERNS = ("plain", "stripes", "knit")


@pytest.mark.parametrize("neckline", NECKLINES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_cloth_covers_shoulders_and_no_face(neckline: str, pattern: str) -> None:
    person = bare(4).model_copy(update={"neckline": neckline, "pattern": pattern})
    base = basis.load()
    where = base.vertices[np.unique(base.triangles[base.materials == basis.SKIN])]
    worn = wear.cloth(person, where)
    chin = (where[:, 1] > 6.1) & (where[:, 2] > 0.3)
    assert not worn.covered[chin].any() and (worn.shade[where[:, 1] > 6.5] == 1).all()
    low = (where[:, 1] < 5.0) | ((np.abs(where[:, 0]) > 1.1) & (where[:, 1] < 6))
    assert worn.covered[low].all()
    assert worn.albedo.shape == worn.tilt.shape == (worn.covered.sum(), 3)
    assert np.isfinite(worn.tilt).all()
    assert (worn.albedo > 0).all() and (worn.albedo < 1).all()
    assert (worn.shade > 0).all() and (worn.shade < 1.3).all()


def test_necklines_differ_and_cloth_is_the_same_each_time() -> None:
    base = basis.load()
    where = base.vertices[np.unique(base.triangles[base.materials == basis.SKIN])]
    found = [wear.cloth(bare(4).model_copy(update={"neckline": n}), where) for n in NECKLINES]
    throat = (np.abs(where[:, 0]) < 0.1) & (where[:, 2] > 0.5) & (where[:, 1] < 6)
    crew, v, _, boat = (worn.covered[throat].sum() for worn in found)
    assert v < crew and boat < crew
    again = wear.cloth(bare(4).model_copy(update={"neckline": "boat"}), where)
    assert again.albedo.tobytes() == found[-1].albedo.tobytes()
    assert again.tilt.tobytes() == found[-1].tilt.tobytes()


def test_fine_patterns_vanish_on_a_coarse_grid() -> None:
    person = bare(4).model_copy(update={"neckline": "crew", "pattern": "knit"})
    x = np.linspace(-0.5, 0.5, 2000, dtype=np.float32)
    where = np.stack([x, 0 * x + 5.0, 0 * x + 1.0], 1)
    fine, coarse = (np.abs(np.diff(wear.cloth(person, where, s).tilt[:, 0])) for s in (0.002, 0.1))
    assert coarse.mean() < 0.2 * fine.mean()
