"""Scoring in bulk: a row for every face and input, bad files, videos, and going on."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from detectors import bulk, faces, regions
from detectors.bulk import Looking, score_files
from detectors.score import Detector
from detectors.tables import read_scores
from facekit.cli import cli
from facekit.core.errors import FacekitError
from facekit.faces import locate
from facekit.faces.landmarks import Landmarker
from facekit.media.encode import write_video
from facekit.media.images import write_image
from facekit.types import Face, Frame

CPU = torch.device("cpu")


class Brightness:
    """Stands in for a detector: the brighter a region, the higher its score."""

    name = "brightness"

    def __init__(self, most=10**9):
        self.left, self.calls = most, []

    def score(self, seen):
        self.calls.append(len(seen))
        self.left -= len(seen)
        if self.left < 0:
            raise KeyboardInterrupt
        return self.bright(seen)

    @staticmethod
    def bright(seen):
        return np.array([region.pixels.mean() / 255 for region in seen])


class Everywhere:
    """Stands in for a locator: a face in the middle of whatever is no plain wall."""

    def __init__(self, *arguments, **settings):
        pass

    def locate(self, pictures):
        return [self.faces(pixels) for pixels in pictures]

    def faces(self, pixels):
        height, width = pixels.shape[:2]
        if pixels[height // 3 : -height // 3, width // 3 : -width // 3].std() < 5:
            return []
        middle = np.array([width / 2, height / 2], np.float32)
        box = np.concatenate([middle - 40, middle + 40])
        points = middle + np.array([[-15, -15], [15, -15], [0, 0], [-10, 15], [10, 15]], np.float32)
        return [Face(box, points, 1.0)]

    def read(self, pictures, faces, mirrored=False):
        return faces


class Dark(Brightness):
    """Gives no number for dark faces: NaN, or an error about the whole batch."""

    def __init__(self, error=None):
        super().__init__()
        self.error = error

    def score(self, seen):
        scores = self.bright(seen)
        if self.error and (scores < 0.3).any():
            raise FacekitError(self.error)
        return np.where(scores < 0.3, np.nan, scores)


def run(inputs, out, detector=None, **looking):
    summary = score_files(
        [Path(path) for path in inputs],
        detector or Brightness(),
        out=out,
        device=CPU,
        looking=Looking(**looking),
    )
    return summary, rows_of(out)


def rows_of(out):
    return [json.loads(line) for line in out.read_text(encoding="ascii").splitlines()]


def kinds(rows):
    return [None if row["reason"] is None else row["reason"].partition(":")[0] for row in rows]


@pytest.fixture
def quick(monkeypatch):
    """Without networks, where it is not faces that matter."""
    monkeypatch.setattr(faces, "load_locator", Everywhere)
    monkeypatch.setattr(faces, "Landmarker", Everywhere)


@pytest.fixture(scope="module")
def face(astronaut):
    """A small photo with one face of about 80 px."""
    return astronaut[:240, 100:360]


def frames(face, count, *, rate=10, step=1):
    for i in range(count):
        yield Frame(np.roll(face, step * i, axis=1), i / rate, i)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, face):
    """A picture, a clip of three seconds, and a wall."""
    folder = tmp_path_factory.mktemp("inputs")
    write_image(folder / "a.png", face)
    write_video(folder / "b.mp4", frames(face, 30), rate=10)
    write_image(folder / "c.png", np.full((120, 160, 3), 90, np.uint8))
    return folder


@pytest.mark.usefixtures("quick")
def test_every_input_has_a_row_and_bad_ones_stop_no_other(folder, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "empty.mp4").touch()
    (bad / "text.mp4").write_text("not a video\n" * 99)
    (bad / "broken.png").write_bytes((folder / "a.png").read_bytes()[:3000])
    (bad / "headless.mp4").write_bytes((folder / "b.mp4").read_bytes()[2000:])
    (bad / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (bad / "nothing").mkdir()
    (bad / "line\nbreak.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    inputs = [bad / "nowhere.png", bad / "*.none", bad / "nothing", bad, folder]
    summary, rows = run(inputs, tmp_path / "scores.jsonl", moments=3)

    names = [Path(row["path"]).name for row in rows]
    assert names == [
        "nowhere.png", "*.none", "nothing", "broken.png", "empty.mp4", "headless.mp4",
        "line\nbreak.png", "phone.heic", "text.mp4", "a.png", "b.mp4", "b.mp4", "b.mp4", "c.png",
    ]  # fmt: skip
    assert kinds(rows) == ["unreadable"] * 9 + [None] * 4 + ["no face found"]
    for row in rows:
        assert (row["probability"] is None) == (row["reason"] is not None)
        assert "\n" not in (row["reason"] or "")
    assert "empty file" in rows[4]["reason"] and "HEIC" in rows[7]["reason"]
    assert summary == bulk.Summary(
        out=str(tmp_path / "scores.jsonl"), detector="brightness", inputs=12, unscored=10,
        unreadable=9, rows=14, faces=4, scored=4, reasons={"no face found": 1, "unreadable": 9},
    )  # fmt: skip
    # What evaluations read, they read without complaint.
    read = read_scores(tmp_path / "scores.jsonl")
    assert [row.model_dump(mode="json") for row in read] == rows


def test_a_picture_has_a_row_for_each_face_large_ones_first(crowd, tmp_path):
    write_image(tmp_path / "crowd.png", crowd)
    _, rows = run([tmp_path / "crowd.png"], tmp_path / "s.jsonl", min_face=50)
    sizes = [max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in (row["box"] for row in rows)]
    assert sizes == pytest.approx(sorted(sizes, reverse=True), abs=0.2)  # they are rounded
    assert [size >= 50 for size in sizes] == [reason is None for reason in kinds(rows)]
    assert {row["time"] for row in rows} == {row["track"] for row in rows} == {None}
    big = rows[0]
    assert len(rows) >= 4 and big["scores"] == {"brightness": big["probability"]}
    # Boxes are those of the picture, not of what was cut from it: the faces of the two large
    # heads lie side by side.
    centres = sorted((box[0] + box[2]) / 2 for box in (rows[0]["box"], rows[1]["box"]))
    assert centres[0] < 230 < centres[1] < 465


def test_faces_that_are_too_small_are_rows_with_their_size(face, tmp_path, monkeypatch):
    small = cv2.resize(face, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    write_image(tmp_path / "a.png", small)
    _, (scored,) = run([tmp_path], tmp_path / "s.jsonl", min_face=32)
    size = max(np.subtract(scored["box"][2:], scored["box"][:2]))
    assert scored["reason"] is None
    # A locator may well find a little less than it was asked for.
    opened = faces.load_locator
    monkeypatch.setattr(
        faces, "load_locator", lambda device, *, min_face, max_side: opened(device, min_face=20)
    )
    _, (row,) = run([tmp_path], tmp_path / "t.jsonl", min_face=70)
    assert row["reason"] == f"face too small: {int(size)} px, and at least 70 are needed"
    assert row["box"] == pytest.approx(scored["box"], abs=1)
    assert row["probability"] is None and row["scores"] == {}


@pytest.mark.parametrize("way", ["turned", "cut close", "small in a large picture"])
def test_faces_are_found_that_a_plain_search_misses(way, face, locator, tmp_path):
    box = locator.locate([face])[0][0].box.astype(int)
    head = face[box[1] + 8 : box[3] - 8, box[0] + 8 : box[2] - 8]
    large = np.full((1500, 2000, 3), 120, np.uint8)
    large[500:740, 900:1160] = cv2.GaussianBlur(face, (0, 0), 1)
    small = cv2.resize(face, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    large[500:740, 900:1160] = 120
    large[500 : 500 + len(small), 900 : 900 + small.shape[1]] = small
    picture = {"turned": np.rot90(face), "cut close": head, "small in a large picture": large}[way]
    path = tmp_path / "a.png"
    write_image(path, np.ascontiguousarray(picture))
    _, (row,) = run([path], tmp_path / "s.jsonl")
    assert row["reason"] is None and row["probability"] is not None
    x, y = np.mean(np.reshape(row["box"], (2, 2)), axis=0)
    assert 0 <= x < picture.shape[1] and 0 <= y < picture.shape[0]
    if way == "small in a large picture":
        assert 900 < x < 1060 and 500 < y < 650


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("error", [None, "dark: gives scores that are not numbers"])
def test_a_face_without_a_number_is_never_a_score_and_spoils_no_other(error, face, tmp_path):
    for name, brightness in (("a", 1.0), ("b", 0.2), ("c", 0.9)):
        write_image(tmp_path / f"{name}.png", (face * brightness).astype(np.uint8))
    summary, rows = run([tmp_path], tmp_path / "s.jsonl", Dark(error))
    assert kinds(rows) == [None, "not scored", None]
    assert rows[1]["probability"] is None and rows[1]["box"] is not None
    assert (error or "no number") in rows[1]["reason"]
    assert (summary.faces, summary.scored, summary.unscored, summary.unreadable) == (3, 2, 1, 0)
    assert "NaN" not in (tmp_path / "s.jsonl").read_text()


@pytest.mark.usefixtures("quick")
def test_a_probability_outside_of_0_to_1_is_no_score(face, tmp_path):
    class Wild(Brightness):
        def score(self, seen):
            return np.full(len(seen), 1.5)

    write_image(tmp_path / "a.png", face)
    _, (row,) = run([tmp_path], tmp_path / "s.jsonl", Wild())
    assert row["probability"] is None and row["reason"].startswith("not scored")


@pytest.mark.usefixtures("quick")
def test_a_video_is_sampled_over_all_of_it_by_time(face, tmp_path):
    """Its second half has a tenth of the frames of its first: frames' numbers would mislead."""
    times = [*(i / 20 for i in range(40)), *(2 + i / 2 for i in range(4))]
    path = tmp_path / "a.mp4"
    write_video(path, (Frame(face, time, i) for i, time in enumerate(times)), rate=20)
    _, rows = run([path], tmp_path / "s.jsonl", moments=4)
    # On screen at an eighth, three, five and seven eighths of 3.6 s.
    assert [row["time"] for row in rows] == pytest.approx([0.4, 1.3, 2.0, 3.0], abs=0.01)
    assert {row["track"] for row in rows} == {0}
    _, rows = run([path], tmp_path / "t.jsonl", moments=32)
    assert len(rows) == len({row["time"] for row in rows}) < 32, "each frame once"
    assert rows[-1]["time"] == 3.5
    _, rows = run([path], tmp_path / "u.jsonl", every=1.0)
    assert [row["time"] for row in rows] == pytest.approx([0, 1, 2, 3], abs=0.01)


def test_two_faces_of_a_video_are_two_tracks(face, tmp_path):
    pair = np.concatenate([face, face[:, ::-1]], axis=1)
    write_video(tmp_path / "a.mp4", frames(pair, 12, rate=4, step=0), rate=4)
    _, rows = run([tmp_path], tmp_path / "s.jsonl", moments=5)
    assert len(rows) == 10
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
    sides = {row["track"]: row["box"][0] < face.shape[1] for row in rows}
    assert sorted(sides.values()) == [False, True]
    for row in rows:
        assert (row["box"][0] < face.shape[1]) == sides[row["track"]]


def test_a_video_that_lies_on_its_side_is_searched_as_a_picture_is(face, tmp_path):
    lying = np.ascontiguousarray(np.rot90(face))
    write_video(tmp_path / "a.mp4", (Frame(lying, i / 5, i) for i in range(5)), rate=5)
    summary, rows = run([tmp_path], tmp_path / "s.jsonl", moments=3)
    assert summary.scored == len(rows) == 3 and {row["track"] for row in rows} == {0}


def test_a_video_without_a_face_has_one_row(tmp_path):
    wall = np.full((96, 128, 3), 90, np.uint8)
    write_video(tmp_path / "a.mp4", (Frame(wall, i / 5, i) for i in range(10)), rate=5)
    summary, (row,) = run([tmp_path], tmp_path / "s.jsonl", moments=3)
    assert row["reason"] == "no face found: none of 32 px or more"
    assert (row["time"], row["box"], row["track"]) == (None, None, None)
    assert (summary.unscored, summary.unreadable) == (1, 0)


@pytest.mark.usefixtures("quick")
def test_a_video_that_breaks_off_is_scored_as_far_as_it_goes(face, tmp_path):
    noise = np.random.default_rng(0).integers(-20, 20, (20, *face.shape))
    noisy = np.clip(face + noise, 0, 255).astype(np.uint8)
    whole = tmp_path / "whole.mp4"
    write_video(whole, (Frame(pixels, i / 5, i) for i, pixels in enumerate(noisy)), rate=5)
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    _, rows = run([tmp_path / "cut.mp4"], tmp_path / "s.jsonl", moments=4)
    assert all(row["probability"] is not None for row in rows)
    times = [row["time"] for row in rows]
    assert len(times) >= 3 and max(times) < 3, "evenly over what there is"


@pytest.mark.usefixtures("quick")
def test_a_video_that_becomes_unreadable_keeps_its_rows_and_says_so(folder, tmp_path, monkeypatch):
    at = bulk.Video.at

    def failing(self, time):
        if time > 2:
            raise FacekitError(f"{self.path}: changed or became unreadable while it was read")
        return at(self, time)

    monkeypatch.setattr(bulk.Video, "at", failing)
    monkeypatch.setattr(bulk, "_BATCH", 2)
    summary, rows = run([folder / "b.mp4"], tmp_path / "s.jsonl", moments=6)
    assert kinds(rows) == [None] * 4 + ["unreadable"]
    assert (summary.unreadable, summary.unscored) == (1, 0)


@given(st.floats(0.01, 1e5), st.integers(1, 100))
def test_moments_are_even_and_leave_no_end_out(duration, count):
    times = np.array(Looking(moments=count).times(duration))
    assert len(times) == count
    edges = np.linspace(0, duration, count + 1)
    assert ((edges[:-1] < times) & (times < edges[1:])).all()
    np.testing.assert_allclose(np.diff(times), duration / count, rtol=1e-6)


@given(st.floats(0.01, 1e3), st.floats(0.05, 50))
def test_moments_lie_as_far_apart_as_asked(duration, every):
    times = Looking(every=every).times(duration)
    assert times[0] == 0 and times[-1] < duration <= times[-1] + every * 1.001


def test_each_member_of_a_detector_has_its_own_score(face, tmp_path):
    detector = Detector.load("default", CPU)
    write_image(tmp_path / "a.png", face)
    _, (row,) = run([tmp_path], tmp_path / "s.jsonl", detector)
    assert list(row["scores"]) == [member.name for member in detector.parts]
    (region,) = regions.find([face], locate.load_locator(CPU, min_face=32), Landmarker(CPU))[0]
    assert row["probability"] == pytest.approx(detector.score([region])[0], abs=1e-5)
    for name, (own,) in detector.members([region]).items():
        assert row["scores"][name] == pytest.approx(own, abs=1e-5)


# Going on after an interruption


@pytest.fixture
def many(tmp_path, face, folder):
    """Five pictures and two clips."""
    inputs = tmp_path / "many"
    inputs.mkdir()
    for i in range(5):
        write_image(inputs / f"{i}.png", np.roll(face, 3 * i, axis=1))
    for name in ("1b.mp4", "3b.mp4"):
        shutil.copy(folder / "b.mp4", inputs / name)
    return inputs


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("most", [0, 4, 14])
def test_an_interrupted_call_goes_on_and_ends_the_same(many, tmp_path, monkeypatch, caplog, most):
    monkeypatch.setattr(bulk, "_PICTURES", 2)
    monkeypatch.setattr(bulk, "_BATCH", 4)
    _, whole = run([many], tmp_path / "whole.jsonl", moments=12)
    out = tmp_path / "scores.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run([many], out, Brightness(most), moments=12)
    assert not out.exists() and (tmp_path / "scores.jsonl.part").exists()
    assert ("give the same command to go on" in caplog.text) == (most > 0)
    with (tmp_path / "scores.jsonl.part").open("ab") as file:  # cut off in the middle of a line
        file.write(b'{"path": "many/4.p')
    again = Brightness()
    summary, rows = run([many], out, again, moments=12)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes() and rows == whole
    assert (summary.kept > 0) == (most > 0)
    done = {row["path"] for row in rows}
    assert summary.inputs == len(done) == 7
    assert sum(again.calls) < len(rows) or most == 0, "what was done is not scored again"
    assert sorted(path.name for path in tmp_path.glob("scores*")) == ["scores.jsonl"]


@pytest.mark.usefixtures("quick")
def test_what_changed_meanwhile_is_scored_anew(many, tmp_path):
    out = tmp_path / "scores.jsonl"
    with pytest.raises(KeyboardInterrupt):
        # All pictures come first: a clip ends a batch of them only when that is full.
        run([many / "0.png", many / "2.png", many / "1b.mp4", many / "3b.mp4"], out,
            Brightness(7), moments=4)  # fmt: skip
    before = (tmp_path / "scores.jsonl.part").read_text()
    assert "1b.mp4" in before
    shutil.copy(many / "0.png", many / "1b.mp4")  # now a picture, whatever its name says
    (many / "new.png").write_bytes((many / "4.png").read_bytes())
    summary, rows = run([many], out, moments=4)
    assert [row["time"] for row in rows if row["path"].endswith("1b.mp4")] == [None]
    assert [Path(p).name for p in dict.fromkeys(row["path"] for row in rows)] == sorted(
        path.name for path in many.iterdir()
    )
    assert summary.inputs == 8


@pytest.mark.usefixtures("quick")
def test_an_interrupted_call_with_other_settings_is_not_mixed_in(many, tmp_path):
    out = tmp_path / "scores.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run([many], out, Brightness(1), moments=4)
    with pytest.raises(FacekitError, match=r"moments 4, now 5.*another --out"):
        run([many], out, moments=5)
    (tmp_path / "scores.jsonl.part").write_text('{"mine": 1}\n')
    with pytest.raises(FacekitError, match="remove it"):
        run([many], out, moments=4)
    (tmp_path / "scores.jsonl.part").write_text("notes of mine\n")
    with pytest.raises(FacekitError, match="remove it"):
        run([many], out, moments=4)
    assert (tmp_path / "scores.jsonl.part").read_text() == "notes of mine\n"


@pytest.mark.usefixtures("quick")
def test_targets_that_cannot_be_written_are_said_before_any_work(folder, tmp_path):
    detector = Brightness()
    (tmp_path / "file").touch()
    for out in (tmp_path, tmp_path / "file" / "s.jsonl"):
        with pytest.raises(FacekitError, match="--out"):
            run([folder], out, detector)
    with (tmp_path / "s.jsonl.part").open("ab") as held:
        assert bulk.files.lock(held)
        with pytest.raises(FacekitError, match="another facekit"):
            run([folder], tmp_path / "s.jsonl", detector)
    assert detector.calls == []


@pytest.mark.usefixtures("quick")
def test_names_may_hold_anything(face, tmp_path):
    name = os.fsdecode(b"\xff \xe2\x82\xac.png")
    try:
        write_image(tmp_path / name, face)
    except OSError:
        pytest.skip("this file system wants names of UTF-8")
    _, (row,) = run([tmp_path], tmp_path / "s.jsonl")
    assert Path(row["path"]).name == name and row["probability"] is not None


@pytest.mark.usefixtures("quick")
def test_a_file_named_twice_counts_once_and_a_link_to_it_by_itself(face, tmp_path):
    write_image(tmp_path / "a.png", face)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "link.png").symlink_to(tmp_path / "a.png")
    inputs = [tmp_path / "a.png", tmp_path / "below" / ".." / "a.png", tmp_path / "*.png",
              tmp_path / "below"]  # fmt: skip
    _, rows = run(inputs, tmp_path / "s.jsonl")
    assert [Path(row["path"]).name for row in rows] == ["a.png", "link.png"]


@pytest.mark.usefixtures("quick")
def test_a_full_disk_is_an_error_and_no_reason_of_an_input(many, tmp_path, monkeypatch):
    real = bulk.json.dumps
    left = iter(range(6))

    def dumps(row):
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        return real(row)

    monkeypatch.setattr(bulk.json, "dumps", dumps)
    with pytest.raises(FacekitError, match="No space left"):
        run([many], tmp_path / "s.jsonl", moments=3)


def test_other_files_touch_the_last_digits_only(astronaut, tmp_path):
    """With the real locator, landmarks and bundled detector: alone, and among three others."""
    for i in range(4):
        shrunk = cv2.resize(astronaut, None, fx=1 - 0.05 * i, fy=1 - 0.05 * i)
        write_image(tmp_path / f"{i}.png", shrunk)
    detector = Detector.load("default", CPU)
    paths = sorted(tmp_path.glob("*.png"))
    _, together = run(paths, tmp_path / "all.jsonl", detector)
    for path, row in zip(paths[:2], together, strict=False):
        _, [alone] = run([path], tmp_path / "one.jsonl", detector)
        assert alone["box"] == pytest.approx(row["box"], abs=0.11)
        assert alone["probability"] == pytest.approx(row["probability"], abs=2e-3)
    _, again = run(paths, tmp_path / "again.jsonl", detector)
    assert again == together


# The command line


@pytest.fixture
def bundled(monkeypatch):
    monkeypatch.setattr(Detector, "load", lambda name, device: Brightness())


def call(*arguments):
    command = ["detector", "score", *map(str, arguments)]
    return CliRunner().invoke(cli, command, catch_exceptions=False)


@pytest.mark.usefixtures("quick")
def test_the_command_says_what_it_scored_and_what_not(folder, tmp_path, bundled):
    out = tmp_path / "scores.jsonl"
    result = call(folder, "--frames", 2, "--out", out)
    assert result.exit_code == 0
    said = " ".join(result.stdout.split())
    assert "inputs 3 without a score 1 rows 4 with a face 3 scored 3 no face found 1" in said
    result = call(folder, tmp_path / "nowhere.png", "--every", 2, "--out", out, "--json")
    assert result.exit_code == 3
    facts = json.loads(result.stdout)
    assert facts["reasons"] == {"no face found": 1, "unreadable": 1} and facts["unreadable"] == 1
    assert len(rows_of(out)) == 5


@pytest.mark.parametrize(
    "arguments",
    [[], ["a.png"], ["--out", "s.jsonl"], ["a.png", "--out", "s", "--frames", "0"],
     ["a.png", "--out", "s", "--every", "0"], ["a.png", "--out", "s", "--min-face", "5"],
     ["a.png", "--out", "s", "--every", "1", "--frames", "3"]],
)  # fmt: skip
def test_wrong_usage_exits_with_2(arguments):
    assert call(*arguments).exit_code == 2


def test_an_unknown_detector_is_an_error(folder, tmp_path):
    with pytest.raises(FacekitError, match="nonesuch"):
        call(folder, "--detector", "nonesuch", "--out", tmp_path / "s.jsonl")
