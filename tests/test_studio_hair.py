"""Hair, lashes, brows and beards of the studio's people."""

from typing import get_args

import numpy as np
import pytest

from facekit.studio import basis, hair, strands
from facekit.studio import person as people
from facekit.studio.basis import Array
from facekit.studio.face_hair import Strands
from facekit.studio.person import HairStyle, Person

STYLES = [style for style in get_args(HairStyle) if hair.STYLES[style] is not None]


def somebody(seed: int = 3, **values: object) -> Person:
    return Person.sample(seed).model_copy(update=values)


def at_rest(person: Person) -> tuple[Array, Array]:
    head = people.neutral(person.model_dump_json())
    return head, basis.normals(head, basis.load().triangles)


def grown(person: Person) -> hair.Hair:
    found = hair.grow(person, *at_rest(person))
    assert found is not None
    return found


def placed(held: Strands, head: Array) -> Array:
    points: Array = (head[held.roots] * held.weights[..., None]).sum(1) + held.offset
    return points


@pytest.mark.parametrize("style", STYLES)
def test_hair_of_every_style(style: HairStyle) -> None:
    person = somebody(hair=style)
    found = grown(person)
    assert 10_000 < len(found.triangles) <= 60_000
    count = len(found.points)
    assert 0 <= found.triangles.min() and found.triangles.max() < count
    for values in (found.points, found.places, found.tangent, found.shade, found.openness):
        assert len(values) == count and values.dtype == np.float32 and np.isfinite(values).all()
    assert np.allclose(np.linalg.norm(found.tangent, axis=1), 1, atol=1e-3)
    assert 0 <= found.openness.min() and found.openness.max() <= 1
    assert found.shade.min() > 0 and 0.6 < found.shade.mean() < 1.2
    # Strands vary in tone.
    assert found.shade.std() > 0.1
    # Ribbons are thin: the narrow side of a triangle, by its area and its longest edge.
    corners = found.points[found.triangles][: len(found.triangles) // 2]
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(1)
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    assert np.median(area / np.maximum(edges, 1e-6)) < 0.05


@pytest.mark.parametrize("style", ["short", "wavy", "tied back"])
def test_the_same_seed_grows_the_same_bytes(style: HairStyle) -> None:
    person = somebody(hair=style, beard="full")
    first, second = grown(person), grown(person)
    assert first.points.tobytes() == second.points.tobytes()
    assert first.shade.tobytes() == second.shade.tobytes()
    assert first.openness.tobytes() == second.openness.tobytes()
    one, two = (hair.attach(person, *at_rest(person)) for _ in range(2))
    assert one.offset.tobytes() == two.offset.tobytes()
    other = grown(person.model_copy(update={"seed": person.seed + 1}))
    assert other.points.shape != first.points.shape or not np.array_equal(
        other.points, first.points
    )


@pytest.mark.parametrize("style", ["bald", "shaved"])
def test_no_hair_on_the_bald_and_the_shaved(style: HairStyle) -> None:
    person = somebody(hair=style)
    assert hair.grow(person, *at_rest(person)) is None


@pytest.mark.parametrize("style", STYLES)
def test_hair_leaves_the_face_free_but_for_a_fringe(style: HairStyle) -> None:
    found = grown(somebody(hair=style, forehead=0.5, temples=0.3))
    x, y, z = found.places.T
    drawn = hair.STYLES[style]
    assert drawn is not None
    # A fringe, and the ends of short hair that is combed forwards, above the brows.
    on_face = (z > 1.0) & (np.abs(x) < 0.45)
    lowest = 7.93 - drawn.fringe - (0.3 if drawn.flow in ("crown", "forward", "out") else 0.15)
    assert (y[on_face] > lowest).all()
    # Eyes, nose and mouth.
    assert not ((z > 0.9) & (np.abs(x) < 0.5) & (y < 7.3)).any()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seed", [4, 9])
def test_locks_lie_outside_the_head(style: HairStyle, seed: int) -> None:
    person = somebody(seed, hair=style)
    head, normal = at_rest(person)
    found = hair.grow(person, head, normal)
    assert found is not None
    # Of the ribbons, the second half of each: roots lie in the skin.
    drawn = hair.STYLES[style]
    assert drawn is not None
    each = 2 * drawn.nodes - 1
    ribbons = found.points[: drawn.locks * each].reshape(drawn.locks, each, 3)
    points = ribbons[::5, each // 2 :].reshape(-1, 3)
    # An independent oracle: an odd number of surfaces ahead of a ray means inside.
    trimesh = pytest.importorskip("trimesh")
    skin = basis.load().triangles[basis.load().materials == basis.SKIN]
    nearest = trimesh.Trimesh(head, skin, process=False).kdtree
    _, index = nearest.query(points)
    below = ((points - head[index]) * normal[index]).sum(1)
    near = np.linalg.norm(points - head[index], axis=1) < 0.3
    assert (below[near] > -0.03).mean() > 0.97


def test_long_hair_is_longer_than_a_bob_and_ends_unevenly() -> None:
    ends = {}
    for style in ("bob", "long"):
        person = somebody(6, hair=style, volume=0.6)
        found = grown(person)
        drawn = hair.STYLES[style]
        assert drawn is not None
        each = 2 * drawn.nodes - 1
        ends[style] = found.places[: drawn.locks * each].reshape(-1, each, 3)[:, -1, 1]
    assert np.median(ends["long"]) < np.median(ends["bob"]) - 0.4
    assert ends["long"].std() > 0.1


def test_bald_crown_of_receding_hair() -> None:
    person = somebody(hair="receding", sex=0.9)
    found = grown(person)
    x, y, z = found.places.T
    on_top = (y > 7.8) & (z > 1.05) & (np.abs(x) < 0.3)
    assert not on_top.any()


def test_attached_strands_keep_their_budget_and_hang_on_the_head() -> None:
    for beard in ("none", "stubble", "moustache", "goatee", "full"):
        person = somebody(2, beard=beard, brow_density=1.0)
        head, normal = at_rest(person)
        held = hair.attach(person, head, normal)
        assert 1_000 < len(held.triangles) <= 6_000
        assert held.triangles.max() < len(held.roots)
        assert held.roots.min() >= 0 and held.roots.max() < len(head)
        assert np.allclose(held.weights.sum(1), 1, atol=1e-4)
        assert np.linalg.norm(held.offset, axis=1).max() < 0.6
        assert np.isfinite(held.tangent).all() and np.isfinite(held.offset).all()
        assert (held.colour >= 0).all() and (held.colour <= 1).all()


def test_beards_grow_where_they_are_named() -> None:
    counts = {}
    for beard in ("none", "stubble", "moustache", "goatee", "full"):
        person = somebody(2, beard=beard)
        head, normal = at_rest(person)
        points = placed(hair.attach(person, head, normal), basis.load().vertices)
        below = points[points[:, 1] < 6.95]
        counts[beard] = len(below)
        if beard == "moustache":
            assert below[:, 1].min() > 6.5
        if beard in ("moustache", "goatee"):
            assert np.abs(below[:, 0]).max() < 0.6
    assert counts["none"] == counts["stubble"] == 0
    assert 0 < counts["moustache"] < counts["goatee"] < counts["full"]


def test_lashes_follow_a_blink_and_a_beard_the_jaw() -> None:
    person = somebody(2, beard="full")
    head, normal = at_rest(person)
    held = hair.attach(person, head, normal)
    base = basis.load()
    open_eyes = placed(held, head)
    upper = np.isin(held.roots, base.upper_lashes).all(1)
    assert upper.sum() > 300
    closed = placed(held, head + base.displaced({"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}))
    fallen = (open_eyes - closed)[upper, 1]
    assert fallen.mean() > 0.04
    jaw = placed(held, head + base.displaced({"jawOpen": 1.0}))
    chin = (base.vertices[held.roots].mean(1)[:, 1] < 6.45) & ~upper
    assert (open_eyes - jaw)[chin, 1].mean() > 0.05
    brows = (base.vertices[held.roots].mean(1)[:, 1] > 7.38) & ~np.isin(
        held.roots, base.lower_lashes
    ).any(1)
    raised = placed(held, head + base.displaced({"browInnerUp": 1.0}))
    assert (raised - open_eyes)[brows, 1].max() > 0.03


def test_longer_lashes_reach_further() -> None:
    reach = []
    for share in (0.0, 1.0):
        person = somebody(2, lashes=share, beard="none")
        head, normal = at_rest(person)
        held = hair.attach(person, head, normal)
        upper = np.isin(held.roots, basis.load().upper_lashes).all(1)
        reach.append(placed(held, head)[upper, 2].max())
    assert reach[1] > reach[0] + 0.01


def test_ribbons_count_and_end_in_a_point() -> None:
    paths = np.zeros((2, 4, 3), np.float32)
    paths[:, :, 1] = np.arange(4)
    side = np.broadcast_to(np.array([1, 0, 0], np.float32), paths.shape)
    points = strands.ribbon_sides(paths, side, np.full((2, 4), 0.5))
    triangles = strands.ribbon_triangles(2, 4)
    assert points.shape == (2, 7, 3) and triangles.shape == (10, 3)
    assert np.allclose(points[0, 0], [-0.25, 0, 0]) and np.allclose(points[0, 1], [0.25, 0, 0])
    assert np.allclose(points[0, -1], [0, 3, 0])
    corners = points.reshape(-1, 3)[triangles]
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (facing[:, 2] > 0).all() and np.isclose(np.abs(facing[:, 2]).sum() / 2, 2 * 1.25)
    assert strands.ribbon_values(np.arange(8).reshape(2, 4)).shape == (2, 7)


def test_distance_from_the_skin_against_points_along_normals() -> None:
    base = basis.load()
    scalp = np.unique(base.scalp[:, 0])
    normal = basis.normals(base.vertices, base.triangles)[scalp]
    chosen = basis.scalp_height(base.vertices[scalp]) > 0.2
    for off in (0.1, 0.3):
        distance, away = strands.skin_distance((base.vertices[scalp] + off * normal)[chosen])
        assert np.quantile(np.abs(distance - off), 0.9) < 0.03
        assert (away * normal[chosen]).sum(1).mean() > 0.95
    assert strands.skin_distance(np.array([[0, 7.6, 0.5]], np.float32))[0][0] < -0.4


def test_the_carrier_brings_the_scalp_to_the_person() -> None:
    person = somebody(11)
    head, _ = at_rest(person)
    base = basis.load()
    scalp = np.unique(base.scalp)
    assert np.abs(strands.Carrier(head)(base.vertices[scalp]) - head[scalp]).mean() < 0.02
    at_home = strands.Carrier(base.vertices)
    assert np.allclose(at_home(base.vertices), base.vertices, atol=1e-5)


def test_lashes_sheets_run_from_the_lid_outwards() -> None:
    base = basis.load()
    for sheets in (base.upper_lashes, base.lower_lashes):
        assert sheets.shape[:2] == (2, 5) and len(np.unique(sheets)) == sheets.size
        places = base.vertices[sheets]
        assert (places[:, -1, :, 2] > places[:, 0, :, 2]).all()
        assert (np.abs(places[:, 0, -1, 0]) > np.abs(places[:, 0, 0, 0])).all()
        assert (places[0, ..., 0] > 0).all() and (places[1, ..., 0] < 0).all()
