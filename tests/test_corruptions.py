"""What sharing does to faces: bytes, geometry, growing loss; curves against an oracle."""

import json
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
from faces_of_noise import landmarks_at
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from detectors import corruptions
from detectors.corruptions import NAMES, STRENGTHS, corrupt
from detectors.data import FaceSet
from detectors.regions import Region, cut
from facekit.core.errors import FacekitError
from facekit.media import lossy
from facekit.types import Face

RESIZING = ("resize", "screenshot", "social")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def region(astronaut) -> Region:
    """The astronaut's face, with landmarks that lie at the pupils."""
    box = np.array([172, 62, 275, 177], np.float32)
    points = np.array([[199, 105], [249, 106], [226, 130], [204, 148], [247, 148]], np.float32)
    return cut(astronaut, Face(box, points, 1.0, landmarks_at(np.tile(points, (14, 1)))))


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square of the difference, at the size of ``a``."""
    if a.shape != b.shape:
        b = cv2.resize(b, a.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return float(np.sqrt(np.mean((a.astype(float) - b) ** 2)))


def test_there_are_eight_of_five_strengths_and_jpeg_50_among_them() -> None:
    assert NAMES == (*("jpeg", "webp", "blur", "noise", "resize", "h264", "screenshot", "social"),)
    tables = [getattr(corruptions, name.upper()) for name in NAMES]
    assert {len(table) for table in tables} == {len(STRENGTHS)} == {5}
    assert corruptions.JPEG[corruptions.EVERYDAY - 1] == 50


@pytest.mark.parametrize("name", NAMES)
def test_the_same_chance_gives_the_same_bytes_and_leaves_the_region_alone(region, name) -> None:
    before = region.pixels.copy()
    first, again = (corrupt(region, name, 3, rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(region.pixels, before)
    assert first.pixels.dtype == np.uint8 and not np.array_equal(first.pixels, before)
    if name not in RESIZING:
        assert first.pixels.shape == before.shape and first.face is region.face


@pytest.mark.parametrize("name", [name for name in NAMES if name != "screenshot"])
def test_more_strength_takes_more(region, name) -> None:
    loss = [apart(region.pixels, corrupt(region, name, s, rng(2)).pixels) for s in STRENGTHS]
    assert loss == sorted(loss) and loss[0] < loss[2] / 1.3 and loss[2] < loss[4] / 1.3


def dotted(side: int, face_size: float) -> tuple[Region, np.ndarray]:
    """Five bright dots on grey where the points are; one at the middle of each landmark, too."""
    pixels = np.full((side, side, 3), 60, np.uint8)
    middle, reach = side / 2, face_size / 2
    box = np.array([middle - reach, middle - reach, middle + reach, middle + reach], np.float32)
    points = middle + np.array([[-3, -3], [3, -3], [0, 0], [-3, 3], [3, 3]]) * face_size / 10
    radius = max(2, round(face_size / 16))
    for x, y in points:
        # OpenCV has the centre of the first pixel at 0, and takes sixteenths of a pixel.
        place = tuple(int(v) for v in np.round((np.array([x, y]) - 0.5) * 16))
        cv2.circle(pixels, place, radius * 16, (250, 250, 250), -1, cv2.LINE_AA, 4)
    return Region(pixels, Face(box, points.astype(np.float32), 1.0)), points


def dots(pixels: np.ndarray) -> np.ndarray:
    """Where the bright dots are, from top left to bottom right by rows."""
    light = np.clip(pixels.mean(axis=2) - 130, 0, None)
    _, labels = cv2.connectedComponents((light > 0).astype(np.uint8))
    found = []
    for i in range(1, labels.max() + 1):
        weight = np.where(labels == i, light, 0)
        if weight.sum() > 0.05 * light.sum():
            y, x = np.indices(light.shape) + 0.5
            found.append([(x * weight).sum() / weight.sum(), (y * weight).sum() / weight.sum()])
    found = np.array(found)
    third = np.round(3 * (found[:, 1] - found[:, 1].min()) / np.ptp(found[:, 1]))
    return found[np.lexsort((found[:, 0], third))]


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(NAMES),
    st.sampled_from(STRENGTHS[:4]),
    st.integers(0, 1000),
    st.integers(60, 120),
)
def test_the_points_stay_where_the_face_is(name, strength, seed, face_size) -> None:
    region, _ = dotted(2 * face_size + 1, face_size)
    result = corrupt(region, name, strength, rng(seed))
    order = [0, 1, 2, 3, 4]
    error = np.abs(dots(result.pixels) - result.face.points[order]).max()
    assert error < 0.5
    height, width = result.pixels.shape[:2]
    x0, y0, x1, y1 = result.face.box
    assert -1e-3 <= x0 < x1 <= width + 1e-3 and -1e-3 <= y0 < y1 <= height + 1e-3
    ratio = (x1 - x0) / face_size
    assert result.scale == pytest.approx(ratio, rel=0.03)


def test_landmarks_go_where_the_points_go(region) -> None:
    for name in RESIZING:
        result = corrupt(region, name, 4, rng(1))
        landmarks = result.face.landmarks
        np.testing.assert_allclose(landmarks.points[:5], result.face.points, atol=1e-3)
        assert landmarks.deviation.mean() == pytest.approx(result.scale, rel=0.02)


@pytest.mark.parametrize("name", RESIZING)
def test_a_small_face_is_not_shrunk_to_nothing(region, name) -> None:
    small = corruptions.resized(region, 30 / region.face.size)
    assert corrupt(small, name, 5, rng()).face.size == pytest.approx(24, abs=1)
    tiny = corruptions.resized(region, 16 / region.face.size)
    assert corrupt(tiny, name, 5, rng()).face.size == pytest.approx(16, abs=0.5)


def test_the_severest_leaves_a_face_that_is_still_found(region, locator) -> None:
    for name in NAMES:
        result = corrupt(region, name, 5, rng(3))
        large = corruptions.resized(result, 160 / result.face.size)
        (found,) = locator.locate([large.pixels])
        assert found, name
        off = np.linalg.norm(found[0].points - large.face.points, axis=1)
        assert off.mean() < 0.06 * large.face.size, name


def test_jpeg_is_what_pillow_writes_with_half_the_colours(region) -> None:
    result = corrupt(region, "jpeg", 3, rng())
    np.testing.assert_array_equal(result.pixels, lossy.jpeg(region.pixels, 50, "4:2:0"))


def test_h264_gives_back_a_frame_that_does_not_stand_off(region) -> None:
    """The clip drifts; were another frame taken back, the picture would be a pixel off."""
    mild = corrupt(region, "h264", 1, rng(4)).pixels
    moved = [apart(np.roll(mild, s, axis=1), region.pixels) for s in (-1, 0, 1)]
    assert np.argmin(moved) == 1


def test_noise_is_as_strong_as_stated() -> None:
    grey = Region(np.full((200, 200, 3), 128, np.uint8), dotted(200, 100)[0].face)
    for strength in STRENGTHS:
        noise = corrupt(grey, "noise", strength, rng()).pixels - 128.0
        assert noise.std() == pytest.approx(corruptions.NOISE[strength - 1], rel=0.02)


@pytest.mark.parametrize(
    ("name", "strength", "says"),
    [
        ("jpg", 1, "unknown corruption 'jpg'; did you mean 'jpeg'"),
        ("jpeg", 0, "strength 0: allowed are 1 to 5"),
        ("jpeg", 6, "strength 6: allowed are 1 to 5"),
    ],
)
def test_what_is_not_known_is_refused(region, name, strength, says) -> None:
    with pytest.raises(FacekitError, match=says):
        corrupt(region, name, strength, rng())


# --- curves ---------------------------------------------------------------------------------------


@dataclass
class Fine:
    """A detector of fine texture alone, as naive ones are: corruptions take what it goes by."""

    name: str = "fine"

    def score(self, regions) -> np.ndarray:
        fine = [cv2.Laplacian(region.pixels, cv2.CV_32F).std() for region in regions]
        return 1 - np.exp(-np.array(fine, np.float64) / 20)


@pytest.fixture(scope="module")
def face_set() -> FaceSet:
    """Soft faces, and "generated" ones that show a fine grid; two of each source."""
    random = rng(8)
    regions, labels = [], []
    for i in range(24):
        region, _ = dotted(64, 32)
        soft = region.pixels + random.normal(0, 4, (8, 8, 1)).repeat(8, 0).repeat(8, 1)
        if i % 2:
            soft = soft + 5 * (np.indices((64, 64)).sum(0) % 2)[..., None]
        regions.append(replace(region, pixels=np.clip(soft, 0, 255).astype(np.uint8)))
        labels.append(i % 2)
    names = [f"{i // 2}" for i in range(24)]
    empty = [""] * 24
    return FaceSet(
        regions=regions,
        labels=np.array(labels),
        subjects=names,
        sources=names,
        donors=empty,
        makers=empty,
        collections=empty,
        payloads=[None] * 24,
        digests=names,
    )


@pytest.fixture(scope="module")
def scores(face_set) -> dict:
    return corruptions.score(Fine(), face_set, seed=1)


@pytest.fixture(scope="module")
def report(face_set, scores) -> dict:
    return corruptions.curves_from(scores, face_set.labels, np.arange(24) // 2)


def test_curves_are_the_aucs_of_the_scores(face_set, scores, report) -> None:
    assert set(scores) == set(NAMES)
    for name in NAMES:
        truth = [roc_auc_score(face_set.labels, one) for one in scores[name]]
        rows = report["auc"][name]
        np.testing.assert_allclose([row["value"] for row in rows], truth, atol=1e-12)
        assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
        assert report["drop"][name]["value"] == pytest.approx(truth[0] - truth[3])
    drops = [report["drop"][name]["value"] for name in NAMES]
    assert report["drop"]["mean"]["value"] == pytest.approx(np.mean(drops))
    assert json.loads(json.dumps(report)) == report


def test_a_detector_of_fine_texture_loses_most_where_that_is_lost(report) -> None:
    assert report["auc"]["blur"][0]["value"] > 0.95
    assert report["drop"]["resize"]["value"] > 0.3
    low, high = report["drop"]["mean"]["low"], report["drop"]["mean"]["high"]
    assert 0 < low < report["drop"]["mean"]["value"] < high


def test_figures_are_those_of_the_issue(report) -> None:
    rows = {row.name: row for row in corruptions.figures(report)}
    assert rows["detect.corruption_drop"].value == report["drop"]["mean"]["value"]
    assert rows["detect.jpeg50_drop"].value == report["drop"]["jpeg"]["value"]
    assert rows["detect.jpeg50_drop"].low <= rows["detect.jpeg50_drop"].value
    assert len(rows) == 2 + len(NAMES)


def test_the_same_seed_measures_the_same(face_set) -> None:
    few = face_set.subset(range(2))
    first, again, other = (corruptions.score(Fine(), few, seed=seed) for seed in (3, 3, 4))
    for name in NAMES:
        np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(first["noise"], other["noise"])


def test_curves_draw_whole_sources(face_set) -> None:
    few = face_set.subset(range(4))
    scores = corruptions.score(Fine(), few, seed=1)
    drawn = corruptions.curves_from(scores, few.labels, np.array([0, 0, 1, 1]))
    assert corruptions.curves(Fine(), few, seed=1) == drawn


def test_one_class_alone_makes_no_curve(face_set) -> None:
    with pytest.raises(FacekitError, match="both"):
        corruptions.curves(Fine(), face_set.subset([0, 2]), seed=1)
