"""Comparing: geometry, tone, changes and offsets that were made here are found again."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest
import skimage.data
import torch

from detectors import report
from detectors.comparison import model, register, source
from detectors.comparison.changes import differ, match_tone
from detectors.comparison.compare import compare, compared
from detectors.comparison.register import Alignment, align, overlay
from detectors.comparison.source import ALIKE, SAME
from detectors.comparison.synchronise import strip_of, synchronise, to_a_frame
from detectors.report.compare import render
from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.media.encode import write_video
from facekit.media.images import write_image
from facekit.media.lossy import jpeg
from facekit.types import Frame
from facekit.watermark.files import embed_file

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photo(astronaut):
    return cv2.resize(astronaut, (320, 320), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def cat():
    return skimage.data.chelsea()[:, 60:360].copy()


def resized(pixels, across, down=None):
    down = down or across
    way = cv2.INTER_AREA if across < 1 else cv2.INTER_CUBIC
    return cv2.resize(pixels, None, fx=across, fy=down, interpolation=way)


def toned(pixels, gain, shift, gamma=1.0):
    return np.clip(255 * (pixels / 255) ** gamma * gain + shift, 0, 255).astype(np.uint8)


def turned(pixels, degrees, zoom):
    """Turned clockwise about the middle, and the map from pixel centres that does it."""
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), -degrees, zoom)
    drawn = cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=1)
    matrix[:, 2] += 0.5 - matrix[:, :2] @ [0.5, 0.5]
    return drawn, matrix


def off_by(alignment, true, pixels):
    """By how many of B's pixels the picture's corners land elsewhere than they should."""
    height, width = pixels.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    apart = register.apply(alignment.b_from_a, corners) - register.apply(true, corners)
    return float(np.linalg.norm(apart, axis=1).max())


# Alignment


def copies(photo):
    height, width = photo.shape[:2]
    yield "compressed", jpeg(photo, 30), np.eye(2, 3)
    yield "half", jpeg(resized(photo, 0.5), 60), np.eye(2, 3) * 0.5
    part = resized(np.ascontiguousarray(photo[40:240, 60:300]), 1.5)
    yield "cropped, larger", jpeg(part, 70), np.array([[1.5, 0, -90], [0, 1.5, -60]])
    mirrored = resized(np.ascontiguousarray(photo[:, ::-1]), 0.75)
    yield "mirrored", jpeg(mirrored, 60), np.array([[-0.75, 0, 0.75 * width], [0, 0.75, 0]])
    quarter = np.ascontiguousarray(np.rot90(photo))
    yield "a quarter", jpeg(quarter, 75), np.array([[0.0, 1, 0], [-1, 0, height]])
    yield "stretched", jpeg(resized(photo, 0.9, 0.7), 75), np.array([[0.9, 0, 0], [0, 0.7, 0]])
    drawn, matrix = turned(photo, 8, 1.2)
    yield "turned", jpeg(toned(drawn, 0.9, 10, 1.2), 75), matrix


def test_geometry_of_copies_is_found(photo):
    for name, copy, true in copies(photo):
        found = align(photo, copy)
        assert found.agreement > SAME, name
        assert off_by(found, true, photo) < 0.6, name
        assert found.mirrored == (name == "mirrored"), name
        assert found.scale == pytest.approx(math.sqrt(abs(np.linalg.det(true[:, :2]))), rel=0.01)


def test_unrelated_pictures_do_not_agree(photo, cat):
    for other in (cat, resized(cat, 0.6), resized(skimage.data.coffee(), 0.5)):
        found = align(photo, other)
        assert found is None or found.agreement < ALIKE


def test_another_take_is_neither_a_copy_nor_unrelated(photo):
    """The head has moved a little, each part its own way."""
    rng = np.random.default_rng(0)
    height, width = photo.shape[:2]
    moved = [
        cv2.GaussianBlur(rng.normal(size=(height, width)).astype(np.float32), (0, 0), 18)
        for _ in range(2)
    ]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    shift = [2.2 * one / one.std() for one in moved]
    other = cv2.remap(photo, x + shift[0], y + shift[1], cv2.INTER_CUBIC, borderMode=1)
    assert ALIKE < align(photo, jpeg(other, 85)).agreement < SAME


def test_too_small_or_too_smooth_to_tell(photo):
    flat = np.full((200, 200, 3), 128, np.uint8)
    found = align(flat, flat + 1)
    assert found is None or found.detailed <= register.FEWEST_DETAILED
    assert align(photo, photo[:10, :10].copy()) is None


def test_canvas_holds_what_both_show_and_is_no_finer_than_the_coarser(photo):
    copy = resized(np.ascontiguousarray(photo[100:300, 80:280]), 0.5)
    both = overlay(photo, copy, np.array([[0.5, 0, -40], [0, 0.5, -50]]))
    assert both.a.shape == both.b.shape == (100, 100, 3)
    corner = register.apply(both.canvas_from_a, np.array([[80.0, 100.0], [280.0, 300.0]]))
    assert corner == pytest.approx(np.array([[0, 0], [100, 100]]))
    assert np.abs(both.a.astype(int) - both.b).mean() < 3
    assert overlay(photo, copy, np.array([[0.5, 0, 4000], [0, 0.5, 0]])) is None


# Changes


def difference(a, b):
    both = overlay(a, b, align(a, b).b_from_a)
    return differ(both, match_tone(both)), both


def test_copies_differ_nowhere(photo):
    for name, copy, _ in copies(photo):
        found, _ = difference(photo, copy)
        assert found.boxes == [], name
        assert found.share == 0, name
        assert found.heat.max() <= 0.5 or not found.changed.any(), name


@pytest.mark.parametrize(
    ("gain", "shift", "gamma"), [(1.2, 5, 1), (0.7, 20, 1), ([1.1, 1.0, 0.8], 0, 0.7)]
)
def test_a_change_of_tone_is_no_difference(photo, gain, shift, gamma):
    found, both = difference(photo, jpeg(toned(photo, gain, shift, gamma), 85))
    assert found.boxes == []
    tone = match_tone(both)
    luma = [float(register.grey(one)[both.common].mean()) for one in (both.a, both.b)]
    assert tone.brightness == pytest.approx(luma[0] - luma[1], abs=6)


def test_grey_copies_have_no_colour(photo):
    grey = np.repeat(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    found, both = difference(photo, jpeg(grey, 80))
    assert found.boxes == []
    assert match_tone(both).colour > 7


def edits(photo):
    box = (200, 30, 270, 90)
    clone = photo.copy()
    clone[30:90, 200:270] = photo[180:240, 60:130]
    yield "cloned", clone, box
    tinted = photo.astype(np.float32)
    tinted[30:90, 200:270] *= [1.2, 0.95, 0.8]
    yield "tinted", np.clip(tinted, 0, 255).astype(np.uint8), box
    face = photo.copy()
    face[55:110, 115:170] = cv2.GaussianBlur(photo, (0, 0), 5)[55:110, 115:170]
    yield "blurred face", face, (115, 55, 170, 110)
    written = photo.copy()
    cv2.putText(written, "REAL", (70, 290), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (255, 255, 0), 4)
    yield "written on", written, (70, 262, 162, 292)


def test_changed_places_are_found_and_no_others(photo):
    for name, changed, (x0, y0, x1, y1) in edits(photo):
        copy = jpeg(toned(resized(changed, 0.8), 1.05, 4), 80)
        found, both = difference(photo, copy)
        truth = np.zeros(found.changed.shape, bool)
        corners = register.apply(both.canvas_from_a, np.array([[x0, y0], [x1, y1]], float))
        (x0, y0), (x1, y1) = np.round(corners).astype(int)
        truth[y0:y1, x0:x1] = True
        near = cv2.dilate(truth.astype(np.uint8), np.ones((21, 21), np.uint8)).astype(bool)
        assert (found.changed & truth).sum() > 0.4 * truth.sum(), name
        assert not (found.changed & ~near).any(), name


# Time


def scene(photo, cat, time):
    """A cat that wanders before an astronaut."""
    frame = photo.copy()
    x, y = int(110 + 90 * math.sin(2.1 * time)), int(110 + 90 * math.sin(3.4 * time + 1))
    frame[y : y + 90, x : x + 90] = cv2.resize(cat, (90, 90), interpolation=cv2.INTER_AREA)
    return frame


def film(path, photo, cat, start, seconds, change=lambda pixels, time: pixels, rate=25):
    times = [n / rate for n in range(round(seconds * rate))]
    frames = (
        Frame(np.ascontiguousarray(change(scene(photo, cat, start + t), start + t)), t, n)
        for n, t in enumerate(times)
    )
    write_video(path, frames, rate=rate, crf=26)
    return path


@pytest.fixture(scope="module")
def films(photo, cat, tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")

    def altered(pixels, time):
        pixels = pixels.copy()
        if 2.2 < time < 2.8:
            pixels[220:290, 30:110] = 255 - pixels[220:290, 30:110]
        return resized(np.ascontiguousarray(pixels[10:300, 20:310][:, ::-1]), 0.8)

    return (
        film(folder / "whole.mp4", photo, cat, 0.0, 4.0),
        film(folder / "part.mp4", photo, cat, 1.28, 2.0, altered),
    )


def test_offset_is_found_to_a_frame(films):
    matrix = np.array([[-0.8, 0, 0.8 * 310], [0, 0.8, -8]])
    strips = [strip_of(path, length) for path, length in zip(films, (4.0, 2.0), strict=True)]
    (best, *_) = synchronise(*strips, matrix)
    assert best.moving
    assert best.offset == pytest.approx(-1.28, abs=0.11)
    assert best.correlation > best.next_best + 0.1
    assert to_a_frame(*films, *strips, matrix, best.offset) == pytest.approx(-1.28, abs=0.041)


def test_videos_are_compared_in_time_and_space(films):
    found, pictures = compared(*films, device=CPU)
    assert found.source.conclusion == "same source"
    assert found.time.offset == pytest.approx(-1.28, abs=0.041)
    assert found.time.sure
    assert found.place.mirrored
    assert found.place.scale == pytest.approx((0.8, 0.8), rel=0.01)
    assert found.place.share_of_a == pytest.approx(290 * 290 / 320**2, abs=0.01)
    assert {"mirrored", "cropped", "offset", "length", "areas"} <= {c.code for c in found.changes}
    # The change lasts from 2.2 to 2.8 s of A, and nowhere else.
    during = [m.changed for m in found.moments if 2.3 < m.time_a < 2.7]
    other = [m.changed for m in found.moments if not 2.1 < m.time_a < 2.9]
    assert min(during) > 0.03
    assert np.median(other) < 0.005
    assert len(found.details) == len(pictures.details) >= 1
    assert all(2.1 < detail.time_a < 2.9 for detail in found.details)
    for moment in found.moments:
        assert moment.time_b - moment.time_a == pytest.approx(-1.28, abs=0.09)
    html = render(found, pictures)
    assert "over time" in html
    (said,) = [change.text for change in found.changes if change.code == "areas"]
    still = sum(not moment.changed for moment in found.moments)
    assert f"at {still} of {len(found.moments)} moments looked at no place stands out" in said


def test_a_picture_is_found_in_a_video(films, photo, cat, tmp_path):
    path = tmp_path / "still.jpg"
    write_image(path, scene(photo, cat, 2.0)[:, 40:], quality=80)
    found, _ = compared(path, films[0], device=CPU)
    assert found.source.conclusion == "same source"
    assert found.time is None
    assert found.details[0].time_b == pytest.approx(2.0, abs=0.06)


# The whole


@pytest.fixture(scope="module")
def pair(photo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    a, b = folder / "a.png", folder / "b<i>.jpg"
    _, changed, _ = list(edits(photo))[2]
    write_image(a, photo)
    write_image(b, np.ascontiguousarray(changed[:, ::-1]), quality=85)
    return a, b


def test_comparison_of_pictures(pair, tmp_path):
    found = compare(*pair, device=CPU, out=tmp_path)
    assert found.source.conclusion == "same source"
    assert found.place.mirrored
    (detail,) = found.details
    (face,) = detail.faces
    assert face.changed > 0.2 > face.elsewhere
    assert {area.face for area in detail.areas} == {1}
    codes = {change.code for change in found.changes}
    assert {"mirrored", "areas", "face", "container", "compression"} <= codes
    assert not {"turned", "scaled", "cropped", "mark", "credentials"} & codes
    written = json.loads((tmp_path / "comparison.json").read_text())
    jsonschema.validate(written, model.json_schema())
    again = compare(*pair, device=CPU).to_json()
    assert {**again, "created": ""} == {**written, "created": ""}
    assert (
        json.loads(Path(report.__file__).with_name("comparison.schema.json").read_text())
        == model.json_schema()
    )


class Page(HTMLParser):
    """What a page refers to, and pictures without words."""

    def __init__(self, html):
        super().__init__()
        self.outside, self.silent, self.pictures = [], [], 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        for name in ("src", "href"):
            if named.get(name, "data:").partition(":")[0] != "data":
                self.outside.append(named[name])
        if tag == "img":
            self.pictures += 1
            self.silent += [] if named.get("alt") else [named]


def test_page_is_one_file_and_escapes_names(pair, tmp_path):
    compare(*pair, device=CPU, out=tmp_path)
    html = (tmp_path / "comparison.html").read_text()
    page = Page(html)
    assert page.outside == page.silent == []
    assert page.pictures == 5
    assert "b<i>" not in html
    assert "b&lt;i&gt;.jpg" in html
    assert not re.search(r"\breal\b", re.sub(r"data:\S+", "", html), re.IGNORECASE)
    assert len(html) < 1_000_000
    # That they are the same is half of the answer: the other half stands beside it.
    verdict = html[html.index('class="verdict') : html.index('class="sides')]
    assert "They differ in" in verdict and "A face differs:" in verdict


def test_the_same_bytes_and_the_same_pixels(photo, tmp_path):
    first, second, third = (tmp_path / name for name in ("a.png", "b.png", "c.bmp"))
    write_image(first, photo)
    second.write_bytes(first.read_bytes())
    found = compare(first, second, device=CPU)
    assert found.source.conclusion == "identical"
    assert "byte for byte" in found.source.text
    assert found.changes == []
    cv2.imwrite(str(third), photo[..., ::-1])
    found = compare(first, third, device=CPU)
    assert "pixel for pixel" in found.source.text
    assert {change.code for change in found.changes} == {"container", "compression"}


def test_unrelated_files_are_not_laid_over_each_other(photo, cat, tmp_path):
    write_image(tmp_path / "a.jpg", photo)
    write_image(tmp_path / "b.jpg", cat)
    found = compare(tmp_path / "a.jpg", tmp_path / "b.jpg", device=CPU, out=tmp_path / "out")
    assert found.source.conclusion == "no common source found"
    assert (found.place, found.details, found.moments) == (None, [], [])
    assert Page((tmp_path / "out" / "comparison.html").read_text()).pictures == 2


def test_a_mark_is_named(photo, tmp_path):
    write_image(tmp_path / "a.png", photo)
    embed_file(tmp_path / "a.png", tmp_path / "b.png", id=5)
    found = compare(tmp_path / "a.png", tmp_path / "b.png", device=CPU)
    (mark,) = [change.text for change in found.changes if change.code == "mark"]
    assert mark == "A bears no mark, B a mark that says 'test-real' (5)"
    assert found.details[0].areas == []


def test_bad_input(photo, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_image(path, photo)
    with pytest.raises(FacekitError, match=r"none\.png: no such file"):
        compare(path, tmp_path / "none.png", device=CPU)
    (tmp_path / "b.png").write_bytes(path.read_bytes()[:500])
    with pytest.raises(FacekitError, match=r"b\.png: damaged"):
        compare(path, tmp_path / "b.png", device=CPU)
    with pytest.raises(FacekitError, match="cannot be made"):
        compare(path, path, device=CPU, out=path / "out")
    other = tmp_path / "c.png"
    write_image(other, photo[::-1].copy())

    def meddled(*_):
        other.write_bytes(path.read_bytes() + b"more")
        return Alignment(np.eye(2, 3), 0, 0.0, 1.0)

    monkeypatch.setattr(source, "align", meddled)
    with pytest.raises(FacekitError, match="changed while it was read"):
        compare(path, other, device=CPU)
    assert files.sha256(other) != files.sha256(path)
