"""The command ``facekit align``."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import av
import cv2
import numpy as np
import pytest
import skimage.data
from click.testing import CliRunner
from PIL import Image

from detectors.data import person_of
from facekit.cli import cli
from facekit.commands.align import command
from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.datasets.manifest import load_folder
from facekit.faces.align import TEMPLATES
from facekit.media.encode import write_video
from facekit.media.images import read_image, write_image
from facekit.types import Frame, Item, write_manifest


def align(*arguments):
    result = CliRunner().invoke(cli, ["align", *map(str, arguments), "--device", "cpu"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def facts(*arguments):
    return json.loads(align(*arguments, "--json").stdout)


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()[:300, 100:400]


@pytest.fixture
def photos(tmp_path, astronaut):
    folder = tmp_path / "photos"
    write_image(folder / "one/me.png", astronaut)
    write_image(folder / "two/me.jpg", np.ascontiguousarray(astronaut[:, ::-1]))
    write_image(folder / "pair.png", np.hstack([astronaut, astronaut[:, ::-1]]))
    write_image(folder / "cat.png", skimage.data.chelsea())
    return folder


@pytest.fixture
def clip(tmp_path, astronaut):
    frames = (
        Frame(np.roll(astronaut, 2 * index, axis=1), time=index / 10, index=index)
        for index in range(21)
    )
    write_video(tmp_path / "clip.mp4", frames, rate=10)
    return tmp_path / "clip.mp4"


def test_photos_become_crops_with_a_manifest(photos, tmp_path):
    out = tmp_path / "out"
    result = facts(photos, "--out", out, "--size", 64)
    assert result["inputs"] == 4
    assert result["faces"] == 4
    assert result["failures"] == {}
    assert [path.rsplit("/", 1)[1] for path in result["faceless"]] == ["cat.png"]

    items = load_folder(out, verify=True)
    assert len({item.path for item in items}) == 4
    assert len({item.source for item in items}) == 3
    for item in items:
        assert read_image(out / item.path).shape == (64, 64, 3)
        assert item.facts["input"] == item.source
        assert item.facts["input_sha256"] == files.sha256(out / item.source)
        assert np.shape(item.facts["points"]) == (5, 2)
        assert np.shape(item.facts["crop_from_image"]) == (2, 3)
        assert 0.9 < item.facts["score"] <= 1
        assert np.shape(item.facts["landmarks"]) == (70, 2)
        assert np.shape(item.facts["expression"]) == (52,)
        # The woman looks ahead; her nose is between her eyes, and above her mouth.
        assert abs(np.array(item.facts["pose"])).max() < 20
        (left, right, nose, mouth, _) = item.facts["points"]
        assert left[0] < nose[0] < right[0] and left[1] < nose[1] < mouth[1]
        assert 80 < item.facts["quality"]["size"] < 140
        assert {"blur", "exposure", "clipped", "occlusion", "compression"} < set(
            item.facts["quality"]
        )
        assert "track" not in item.facts
    assert read_image(out / "preview.jpg").shape == (96, 4 * 96, 3)


def test_a_bad_file_is_reported_and_skipped(photos, tmp_path):
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (photos / "empty.mp4").write_bytes(b"")
    result = align(photos, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "holds 4 faces; of 6 inputs 0 done before, 1 without a face, 2 failed" in result.stdout
    assert result.stdout.count("failed: ") == 2
    assert "bad.jpg" in result.stdout
    assert len(load_folder(tmp_path / "out")) == 4


@pytest.fixture
def odd(tmp_path, astronaut):
    """Pictures of one face, in all the ways in which cameras, scanners and users leave them."""
    folder = tmp_path / "odd"
    folder.mkdir()
    picture = Image.fromarray(astronaut)
    grey, clear = picture.convert("L"), picture.copy()
    clear.putalpha(200)
    grey.save(folder / "grey.jpg")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "grey16.png")
    cv2.imwrite(str(folder / "rgb16.png"), astronaut[..., ::-1].astype(np.uint16) * 257)
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    clear.save(folder / "rgba.png")
    for turns in (1, 2, 3):
        write_image(folder / f"turned{turns}.png", np.rot90(astronaut, turns).copy())
    exif = Image.Exif()
    exif[0x0112] = 8  # the picture lies on its side, and says so
    Image.fromarray(np.rot90(astronaut, -1).copy()).save(folder / "said.png", exif=exif)
    write_image(folder / "cut-left.png", astronaut[:, 70:])
    write_image(folder / "cut-below.png", astronaut[:160])
    return folder


def test_odd_pictures_are_read_as_anyone_would_see_them(odd, tmp_path, astronaut):
    out = tmp_path / "out"
    assert facts(odd, "--out", out, "--size", 128)["failures"] == {}
    items = load_folder(out, verify=True)
    assert {item.path for item in items} == {f"crops/{path.stem}-000.png" for path in odd.iterdir()}
    write_image(tmp_path / "plain/me.png", astronaut)
    facts(tmp_path / "plain", "--out", tmp_path / "expected", "--size", 128)
    expected = read_image(tmp_path / "expected/crops/me-000.png").mean(axis=2)[16:-16, 40:-16]
    for item in items:
        crop = read_image(out / item.path).mean(axis=2)[16:-16, 40:-16]
        whole = slice(0, 50 if "below" in item.path else None)
        likeness = np.corrcoef(crop[whole].ravel(), expected[whole].ravel())[0, 1]
        assert likeness > 0.9, item.path
    by_name = {item.path: item.facts for item in items}
    x0, y0, x1, y1 = by_name["crops/grey-000.png"]["box"]
    headlong = by_name["crops/turned2-000.png"]["box"]
    assert headlong == pytest.approx([300 - x1, 300 - y1, 300 - x0, 300 - y0], abs=8)


def test_pictures_of_any_size_and_number_of_faces(tmp_path, astronaut):
    folder, out = tmp_path / "sizes", tmp_path / "out"
    write_image(folder / "dot.png", astronaut[:1, :1])
    write_image(folder / "line.png", astronaut[:1])
    face = cv2.resize(astronaut[0:220, 20:230], (60, 63), interpolation=cv2.INTER_AREA)
    write_image(folder / "crowd.png", np.tile(face, (10, 20, 1)))
    large = cv2.resize(astronaut, (5480, 5480))  # 30 megapixels
    cv2.imwrite(str(folder / "large.jpg"), large[..., ::-1])
    result = facts(folder, "--out", out, "--size", 32, "--min-face", 24)
    assert [path.rpartition("/")[2] for path in result["faceless"]] == ["dot.png", "line.png"]
    sources = [item.facts["input"].rpartition("/")[2] for item in load_folder(out)]
    assert sources.count("crowd.png") == 200
    assert sources.count("large.jpg") == 1 and len(sources) == 201


def test_the_size_of_a_video_may_change(tmp_path, astronaut):
    parts = []
    for number, side in enumerate((300, 200, 260)):
        part = tmp_path / f"{number}.ts"
        with av.open(str(part), "w") as made:
            stream = made.add_stream("libx264", rate=25)
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
            for i in range(10):
                frame = av.VideoFrame.from_ndarray(astronaut[:side, :side].copy(), "rgb24")
                frame.pts = 10 * number + i
                made.mux(stream.encode(frame))
            made.mux(stream.encode(None))
        parts.append(part.read_bytes())
    (tmp_path / "sizes.ts").write_bytes(b"".join(parts))
    facts(tmp_path / "sizes.ts", "--out", tmp_path / "out", "--period", 0.2, "--size", 64)
    items = load_folder(tmp_path / "out")
    # A new size is a new scene.
    assert [item.facts["track"] for item in items] == sorted(item.facts["track"] for item in items)
    assert {item.facts["track"] for item in items} == {0, 1, 2}
    for item in items:
        assert np.allclose(item.facts["points"], items[0].facts["points"], atol=6)


def test_patterns_and_templates(photos, tmp_path):
    pattern, out = photos / "**" / "me.*", tmp_path / "out"
    result = facts(pattern, "--out", out, "--template", "box13", "--size", 64)
    assert (result["inputs"], result["faces"]) == (2, 2)
    for item in load_folder(out):
        x0, y0, x1, y1 = item.facts["box"]
        (a, b, x), (c, d, y) = item.facts["crop_from_image"]
        # Not turned; 1.3 times the longer side of the box, about its middle.
        assert (b, c) == (0, 0) and 64 / a == 64 / d == pytest.approx(1.3 * max(x1 - x0, y1 - y0))
        assert a * (x0 + x1) / 2 + x == pytest.approx(32)
        assert d * (y0 + y1) / 2 + y == pytest.approx(32)
    facts(pattern, "--out", tmp_path / "ffhq", "--template", "ffhq", "--size", 64)
    assert len(load_folder(tmp_path / "ffhq")) == 2


def test_a_second_call_does_only_what_is_new_or_changed(photos, tmp_path, astronaut):
    out = tmp_path / "out"
    facts(photos, "--out", out)
    before = (out / "manifest.jsonl").read_bytes()
    result = facts(photos, "--out", out)
    assert (result["skipped"], result["faces"]) == (4, 4)
    assert len(result["faceless"]) == 1
    assert (out / "manifest.jsonl").read_bytes() == before

    write_image(photos / "pair.png", astronaut)  # one face fewer
    write_image(photos / "new.png", astronaut)
    result = facts(photos, "--out", out)
    assert (result["skipped"], result["faces"]) == (3, 4)
    crops = {path.relative_to(out).as_posix() for path in (out / "crops").iterdir()}
    assert crops == {item.path for item in load_folder(out, verify=True)}


def test_a_call_that_was_killed_is_resumed(photos, tmp_path):
    out = tmp_path / "out"
    facts(photos, "--out", out)
    whole = (out / "manifest.jsonl").read_bytes()
    journal = (out / "inputs.jsonl").read_text().splitlines()
    # As a kill leaves it: no manifest, and the last input's row cut short.
    (out / "manifest.jsonl").unlink()
    (out / "inputs.jsonl").write_text("\n".join(journal)[: -len(journal[-1]) // 2])
    result = facts(photos, "--out", out)
    assert 0 < result["skipped"] < 4
    assert (out / "manifest.jsonl").read_bytes() == whole


def test_the_folder_may_move_with_its_inputs(photos, tmp_path):
    facts(photos, "--out", photos / "out")
    shutil.move(photos, tmp_path / "moved")
    result = facts(tmp_path / "moved", "--out", tmp_path / "moved/out")
    assert (result["skipped"], result["faces"]) == (4, 4)


def test_other_settings_and_foreign_folders_are_refused(photos, tmp_path):
    facts(photos / "one", "--out", tmp_path / "out")
    with pytest.raises(FacekitError, match="made with other settings"):
        align(photos / "one", "--out", tmp_path / "out", "--size", 64)
    write_manifest(tmp_path / "foreign", [])
    with pytest.raises(FacekitError, match="holds another manifest"):
        align(photos / "one", "--out", tmp_path / "foreign")
    with pytest.raises(FacekitError, match="no such file"):
        align(photos / "nobody.png", "--out", tmp_path / "out")
    (tmp_path / "out/inputs.jsonl").write_text("{}\nnothing\n{}\n")
    with pytest.raises(FacekitError, match="line 2: damaged"):
        align(photos / "one", "--out", tmp_path / "out")


def test_a_video_is_looked_at_by_the_clock_and_tracked(clip, tmp_path):
    out = tmp_path / "out"
    result = facts(clip, "--out", out, "--period", 0.5)
    items = load_folder(out, verify=True)
    assert result["faces"] == len(items) == 5
    assert [item.time for item in items] == pytest.approx([0, 0.5, 1, 1.5, 2], abs=1e-3)
    assert {(item.facts["track"], item.facts["person"]) for item in items} == {(0, 0)}
    assert len({item.source for item in items}) == 1


def test_a_manifest_lends_its_rows_to_the_crops(tmp_path, astronaut):
    folder = tmp_path / "people"
    write_image(folder / "ann/0.png", astronaut)
    write_image(folder / "unlisted.png", astronaut)
    row = Item(
        path="ann/0.png",
        sha256=files.sha256(folder / "ann/0.png"),
        subject="ann",
        source="roll-7",
        label=0,
        generator="studio",
        split="test",
        time=1.5,
        facts={"person_seed": 12, "pose": [0, 0, 0], "camera": {}},
    )
    write_manifest(folder, [row])
    facts(folder, "--out", tmp_path / "out")
    (item,) = load_folder(tmp_path / "out")
    for name in ("subject", "source", "label", "generator", "split", "time"):
        assert getattr(item, name) == getattr(row, name)
    # Who it is outlives the alignment; where the face was in the photo does not.
    assert person_of(item) == person_of(row) == "studio person 12"
    assert item.facts["pose"] != row.facts["pose"] and "camera" not in item.facts


def test_any_number_of_workers_gives_the_same_files(photos, clip, tmp_path, astronaut):
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff nothing")
    write_image(photos / "three/me.png", astronaut[:, 40:])  # a stem that another has as well
    found = {}
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        result = align(photos, clip, "--out", out, "--workers", workers)
        assert result.exit_code == 1
        found[workers] = {
            path.relative_to(out).as_posix(): path.read_bytes()
            for path in out.rglob("*")
            if path.is_file()
        }
        found[workers]["said"] = result.stdout.replace(str(out), "OUT").encode()
    assert found[1] == found[2]
    assert len(found[1]) == 5 + 3 + 3 + 1


@pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX's")
def test_ctrl_c_ends_the_workers_and_the_next_call_goes_on(photos, tmp_path):
    pair = read_image(photos / "pair.png")
    for number in range(8):
        write_image(photos / f"many/{number}.png", pair)
    out = tmp_path / "out"
    # Programs in the background may have been started deaf to Ctrl-C.
    hear = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{hear}; from facekit.cli import main; main()"
    words = ["align", str(photos), "--out", str(out), "--workers", "2", "--device", "cpu"]
    running = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _until(lambda: len(list(out.glob("crops/*.png"))) > 2)
    running.send_signal(signal.SIGINT)
    assert running.wait(20) != 0
    _until(lambda: not _group_lives(running.pid))
    assert not (out / "manifest.jsonl").exists()

    done = len((out / "inputs.jsonl").read_text().splitlines()) - 1
    (out / "crops/left-over-003.png").write_bytes(b"of an input that was not finished")
    result = facts(photos, "--out", out)
    assert 0 < result["skipped"] == done < 12
    crops = {path.relative_to(out).as_posix() for path in (out / "crops").iterdir()}
    assert crops == {item.path for item in load_folder(out, verify=True)}


def _until(done):
    limit = time.monotonic() + 60
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.05)


def _group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_wrong_options_are_usage_errors(tmp_path):
    assert align("--out", tmp_path).exit_code == 2
    assert align(tmp_path, "--out", tmp_path, "--template", "tight").exit_code == 2
    assert align(tmp_path, "--out", tmp_path, "--period", 0).exit_code == 2


def test_the_command_offers_every_template():
    (option,) = (o for o in command.params if o.name == "template")
    assert set(option.type.choices) == set(TEMPLATES)
