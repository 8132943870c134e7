"""Locators find the faces that are there. Oracles: facenet-pytorch's own detect, and symmetry."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN
from facenet_pytorch.models.mtcnn import ONet, PNet, RNet
from torch.nn.functional import interpolate
from torchvision.ops import batched_nms

from facekit.core import registry
from facekit.core.errors import FacekitError
from facekit.faces.align import align_faces
from facekit.faces.locate import LOCATORS, load_locator, locate_turned
from facekit.faces.locators import _mtcnn, mtcnn, yunet

CPU = torch.device("cpu")
MIRRORED = [1, 0, 2, 4, 3]  # the order of the five points in a mirrored picture


# --- every locator


class Centred:
    """Stands in for OpenCV's network: one face in the middle, in rows as OpenCV documents them."""

    def setInputSize(self, size):
        self.size = size

    def detect(self, picture):
        assert picture.dtype == np.uint8
        if min(picture.shape[:2]) < 64 or not picture.any():
            return 1, None
        assert picture.shape[1::-1] == tuple(self.size)
        height, width = picture.shape[:2]
        x, y = width / 2, height / 2
        own_right, own_left = [x - 12, y - 10], [x + 12, y - 10]  # as seen in the picture
        points = [*own_right, *own_left, x, y, x - 9, y + 12, x + 9, y + 12]
        return 1, np.array([[x - 25, y - 30, 50, 60, *points, 0.95]], np.float32)


@pytest.fixture
def centred(monkeypatch, tmp_path):
    """The path of a YuNet that always answers alike."""
    path = tmp_path / "yunet.onnx"
    path.touch()
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *_: Centred())
    return path


@pytest.mark.parametrize("name", registry.names(LOCATORS))
def test_every_locator_keeps_to_the_interface(name, astronaut, centred):
    weights = centred if name == "yunet" else None
    locator = load_locator(CPU, name, min_face=40, max_side=512, weights=weights)
    assert locator.locate([]) == []
    large = cv2.resize(astronaut, (1500, 1500))
    pictures = [astronaut[:300], np.zeros((80, 90, 3), np.uint8), astronaut[:1, :1], large]
    found = locator.locate(pictures)
    assert [len(faces) for faces in found] == [1, 0, 0, 1]
    for picture, (face,) in ((pictures[0], found[0]), (large, found[3])):
        assert (face.box.shape, face.box.dtype) == ((4,), np.float32)
        assert (face.points.shape, face.points.dtype) == ((5, 2), np.float32)
        assert isinstance(face.score, float)
        assert 0.9 < face.score <= 1
        assert face.size >= 40
        # All within the picture here, the points within the box, the picture's left eye first.
        height, width = picture.shape[:2]
        (x0, y0, x1, y1), (x, y) = face.box, face.points.T
        assert 0 < x0 < x.min() < x.max() < x1 < width
        assert 0 < y0 < y.min() < y.max() < y1 < height
        assert x[0] < x[2] < x[1]
        assert x[3] < x[4]
        assert max(y[:2]) < y[2] < min(y[3:])


def test_an_unknown_locator_is_named_with_those_that_there_are():
    with pytest.raises(FacekitError, match="unknown locator 'mtcn'; did you mean 'mtcnn'"):
        load_locator(CPU, "mtcn")


# --- YuNet


def test_yunet_maps_what_opencv_says_to_the_picture(centred):
    picture = np.full((300, 800, 3), 9, np.uint8)
    (face,) = yunet.Locator(CPU, min_face=100, max_side=400, weights=centred).locate([picture])[0]
    np.testing.assert_allclose(face.box, [350, 90, 450, 210])
    expected = [[376, 130], [424, 130], [400, 150], [382, 174], [418, 174]]
    np.testing.assert_allclose(face.points, expected)
    assert face.score == pytest.approx(0.95)
    assert yunet.Locator(CPU, min_face=130, max_side=400, weights=centred).locate([picture]) == [[]]


def test_yunet_asks_for_a_file_that_it_can_use(tmp_path):
    with pytest.raises(FacekitError, match="no weights; give its"):
        load_locator(CPU, "yunet")
    with pytest.raises(FacekitError, match=r"none\.onnx: no such file"):
        load_locator(CPU, "yunet", weights=tmp_path / "none.onnx")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a network" * 40)
    with pytest.raises(FacekitError, match=r"bad\.onnx: not a YuNet that OpenCV"):
        load_locator(CPU, "yunet", weights=bad)


# --- MTCNN


def test_mtcnn_takes_no_weights():
    with pytest.raises(FacekitError, match="brings its own weights"):
        load_locator(CPU, weights=Path("a.onnx"))


@pytest.mark.parametrize("min_face", [20, 40, 67])
def test_finds_the_faces_and_points_that_the_library_finds(astronaut, crowd, min_face):
    library = MTCNN(keep_all=True, min_face_size=min_face)
    ours = mtcnn.Locator(CPU, min_face=min_face, thresholds=(0.6, 0.7, 0.7))
    for picture in (crowd, astronaut[:301, :403], crowd[:, ::-1].copy()):
        rows = library.detect(picture, landmarks=True)
        # The library looks for faces of that size, and keeps those that turn out smaller.
        found = ours._cascade(picture[None], min_face)[0]
        assert len(found) == len(rows[0]) > 0
        for box, score, points in zip(*rows, strict=True):
            # The library counts pixels from 1, both ends included.
            box = box.astype(float) - [1, 1, 0, 0]
            near = min(found, key=lambda row: np.abs(row[:4] - box).max())
            assert near[4] == pytest.approx(float(score), abs=1e-4)
            # It maps points and boxes as if candidates had not been cut at whole pixels.
            assert np.abs(near[:4] - box).max() <= 1.5
            assert np.abs(near[5:].reshape(5, 2) - points.astype(float)).max() <= 1.5


def test_the_folded_first_network_is_the_librarys():
    pixels = torch.randint(0, 256, (2, 3, 61, 84), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        shifts, scores = PNet()((pixels - 127.5) / 128)
        folded = _mtcnn.Proposer(_mtcnn.load_state("pnet"))(pixels.float())
    torch.testing.assert_close(folded[..., 0].sigmoid(), scores[:, 1], atol=1e-5, rtol=0)
    torch.testing.assert_close(folded[..., 1:].permute(0, 3, 1, 2), shifts, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "pools", "library", "side"),
    [("rnet", (3, 3), RNet, 24), ("onet", (3, 3, 2), ONet, 48)],
)
def test_the_later_networks_are_the_librarys(name, pools, library, side):
    pixels = torch.randn(5, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = _mtcnn.Judge(_mtcnn.load_state(name), pools)(pixels)
        theirs = library()(pixels)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 300, 1500])
def test_suppression_is_torchvisions(count):
    random = torch.Generator().manual_seed(count)
    corners = torch.rand(count, 2, generator=random) * 300
    boxes = torch.cat([corners, corners + 5 + torch.rand(count, 2, generator=random) * 60], dim=1)
    scores = (torch.rand(count, generator=random) * 200).round() / 200  # so that some are alike
    groups = torch.randint(0, 3, (count,), generator=random)
    for most in (0.1, 0.5, 0.7):
        ours = _mtcnn.best(boxes, scores, groups, most)
        theirs = batched_nms(boxes, scores, groups, most)
        assert set(ours.tolist()) == set(theirs.tolist())
        assert scores[ours].tolist() == scores[theirs].tolist()


@pytest.mark.parametrize("size", [(20, 31), (53, 71), (90, 100)])
def test_pictures_and_candidates_are_averaged_over_areas(size):
    random = np.random.default_rng(0)
    pictures = torch.from_numpy(random.integers(0, 256, (2, 53, 71, 3), np.uint8))
    table = mtcnn._summed_areas(pictures)
    planes = pictures.permute(0, 3, 1, 2).float()
    torch.testing.assert_close(
        mtcnn._resized(table, (53, 71), size), interpolate(planes, size, mode="area")
    )
    windows = torch.tensor([[0, 0, 71, 53], [3, 5, 40, 50], [70, 52, 71, 53], [9, 0, 12, 53]])
    owners = torch.tensor([0, 1, 1, 0])
    cut = mtcnn._cut(table, owners, windows, 24)
    for i, (x0, y0, x1, y1) in enumerate(windows.tolist()):
        part = planes[owners[i]][None, :, y0:y1, x0:x1]
        expected = (interpolate(part, (24, 24), mode="area")[0] - 127.5) / 128
        torch.testing.assert_close(cut[i], expected)


def test_two_hundred_faces_are_found(astronaut):
    head = cv2.resize(astronaut[:220, 120:340], (48, 48), interpolation=cv2.INTER_AREA)
    row = np.concatenate([head, head[:, ::-1]] * 10, axis=1)
    picture = np.pad(np.concatenate([row] * 10), ((10, 10), (20, 20), (0, 0)), constant_values=120)
    faces = load_locator(CPU, min_face=20, max_side=1000).locate([picture])[0]
    assert len(faces) == 200
    cells = {(int(x), int(y)) for x, y in (face.points[2] // 48 for face in faces)}
    assert len(cells) > 180  # all over the place: no face is given twice for another


def test_faces_come_largest_first_and_plain_python(crowd, locator):
    sizes = [f.size for f in locator.locate([crowd])[0]]
    assert sizes == sorted(sizes, reverse=True)
    first = locator.locate([crowd])[0][0]
    assert isinstance(first.score, float)
    assert 0.9 < first.score <= 1
    assert (first.box.dtype, first.points.dtype) == (np.float32, np.float32)


def test_pictures_of_mixed_size_give_what_each_gives_alone(astronaut, crowd, locator):
    pictures = [astronaut, crowd, astronaut[:300, :400], crowd[:, ::-1].copy()]
    # Of one size after shrinking, but not shrunk as much.
    pictures += [cv2.resize(astronaut, (side, side)) for side in (700, 900)]
    for together, picture in zip(locator.locate(pictures), pictures, strict=True):
        alone = locator.locate([picture])[0]
        assert len(together) == len(alone) > 0
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a.points, b.points, atol=0.01)
            np.testing.assert_allclose(a.box, b.box, atol=0.01)


def test_mirroring_shows_no_bias_of_the_points(astronaut, locator):
    # A constant half-pixel error would show twice in the mean over the mirrored pair.
    differences = []
    for width in range(500, 512):
        picture = np.ascontiguousarray(astronaut[:300, :width])
        left = locator.locate([picture])[0][0]
        right = locator.locate([np.ascontiguousarray(picture[:, ::-1])])[0][0]
        mirrored = right.points[MIRRORED] * np.array([-1, 1]) + np.array([width, 0])
        differences.append((left.points - mirrored).mean(axis=0))
    assert np.abs(np.mean(differences, axis=0)).max() < 0.8


@pytest.mark.parametrize("zoom", [2, 5])
def test_large_pictures_map_back_to_their_own_pixels(astronaut, zoom):
    picture = astronaut[:256, 64:448]
    large = cv2.resize(picture, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)
    reference = load_locator(CPU).locate([picture])[0][0]
    found = load_locator(CPU, min_face=40 * zoom, max_side=384).locate([large])[0][0]
    np.testing.assert_allclose(found.points / zoom, reference.points, atol=0.02 * reference.size)
    np.testing.assert_allclose(found.box / zoom, reference.box, atol=0.08 * reference.size)


def test_a_face_cut_by_the_border_is_found(astronaut, locator):
    whole = locator.locate([astronaut])[0][0]
    x0 = int(whole.box[0] + 0.15 * (whole.box[2] - whole.box[0]))
    cut = locator.locate([np.ascontiguousarray(astronaut[:, x0:])])[0]
    assert len(cut) == 1
    np.testing.assert_allclose(
        cut[0].points + np.array([x0, 0]), whole.points, atol=0.08 * whole.size
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (11, 11), (64, 64)])
def test_pictures_without_room_for_a_face_give_none(shape, locator):
    assert locator.locate([np.zeros((*shape, 3), np.uint8)]) == [[]]


def test_min_face_is_kept(crowd):
    sizes = [f.size for f in load_locator(CPU, min_face=70).locate([crowd])[0]]
    assert len(sizes) == 4
    assert min(sizes) >= 70


def test_no_pictures_give_no_faces(locator):
    assert locator.locate([]) == []


# --- turned photos


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_faces_of_turned_photos_are_found_and_set_upright(turns, astronaut, locator):
    upright = astronaut[:300, 90:]
    height, width = upright.shape[:2]
    turned = np.ascontiguousarray(np.rot90(upright, turns))
    reference = locator.locate([upright])[0][0]
    nothing = np.zeros_like(upright)
    (face, *_), none = locate_turned(locator, [turned, nothing])
    assert none == []
    # Each pixel of the turned picture knows where it was.
    rows, columns = (np.rot90(places, turns) for places in np.mgrid[:height, :width])
    x, y = face.points.astype(int).T
    was = np.stack([columns[y, x], rows[y, x]], axis=1)
    np.testing.assert_allclose(was, reference.points, atol=1.5)
    assert np.all(face.box[:2] < face.points.min(axis=0))
    assert np.all(face.box[2:] > face.points.max(axis=0))
    crops = [
        align_faces(pixels, [one], template="face", size=64, device=CPU)[0].pixels.astype(float)
        for pixels, one in ((turned, face), (upright, reference))
    ]
    assert np.abs(crops[0] - crops[1]).mean() < 3
