"""The stage: degradation, formats, truth beside the pictures, the data set, and trouble."""

import errno
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facekit import watermark
from facekit.commands.studio import command
from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.provenance import manifest
from facekit.studio import basis, labels
from facekit.studio.certificate import LEAST_PSNR, psnr, verify, video_psnr
from facekit.studio.clip import render_clip, render_folder, render_frames
from facekit.studio.degrade import Degradation, Jpeg, Noise, chosen, to_linear, to_srgb
from facekit.studio.performance import FACE_UNITS, Performance
from facekit.studio.person import Person
from facekit.studio.render import MASKS, render
from facekit.types import read_manifest


@pytest.fixture(scope="module")
def shot():
    return render(Person.sample(4), Performance.sample(2), 96)


# --- degradation -----------------------------------------------------------------------------


def test_srgb_there_and_back_is_exact_and_the_curve_is_the_standards():
    codes = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_srgb(to_linear(codes)), codes)
    # IEC 61966-2-1 at a few codes, by its own formula.
    for code in (0, 10, 11, 128, 255):
        c = code / 255
        expected = c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        assert to_linear(codes)[code] == pytest.approx(expected, rel=1e-6)


def test_jpeg_is_pillows_own(shot):
    for subsampling, pillows in (("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2)):
        file = io.BytesIO()
        Image.fromarray(shot.pixels).save(file, "JPEG", quality=37, subsampling=pillows)
        stage = Degradation(jpeg=Jpeg(quality=37, subsampling=subsampling))
        assert np.array_equal(stage.apply(shot.pixels), np.asarray(Image.open(file)))


@pytest.mark.parametrize("code", [60, 128, 200])
def test_noise_has_the_variance_it_states(code):
    grey = np.full((256, 256, 3), code, np.uint8)
    level = float(to_linear(grey)[0, 0, 0])
    noise = Noise(shot=2e-3, read=6e-3)
    result = Degradation(noise=noise, seed=5).apply(grey)
    light = to_linear(result).astype(np.float64)
    # Rounding to codes adds a twelfth of a step squared.
    step = float(to_linear(grey + 1)[0, 0, 0]) - level
    stated = noise.shot * level + noise.read**2 + step**2 / 12
    assert light.var() == pytest.approx(stated, rel=0.04)
    assert light.mean() == pytest.approx(level, rel=0.01)
    # Independent from pixel to pixel and from colour to colour.
    centred = (light - light.mean()) / light.std()
    assert abs((centred[:, 1:] * centred[:, :-1]).mean()) < 0.02
    assert abs((centred[..., 0] * centred[..., 1]).mean()) < 0.02


def test_white_balance_multiplies_light():
    grey = np.full((4, 4, 3), 110, np.uint8)
    gains = (1.2, 1.0, 0.8)
    seen = Degradation(white_balance=gains).apply(grey)[0, 0]
    light = ((110 / 255 + 0.055) / 1.055) ** 2.4 * np.array(gains)
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(seen - expected).max() <= 0.5 + 1e-3
    assert np.array_equal(Degradation(white_balance=(1.0, 1.0, 1.0)).apply(grey), grey)


def test_lens_blur_spreads_a_point_by_its_deviation_and_keeps_its_light():
    black = np.zeros((101, 101, 3), np.uint8)
    black[50, 50] = 255
    wide = to_linear(Degradation(blur=0.03).apply(black))[..., 0].astype(np.float64)
    # The tails fall below the lowest code; what is left holds nearly all of the light.
    assert wide.sum() == pytest.approx(1, abs=0.05)
    x = np.arange(101) - 50
    assert np.sqrt((wide.sum(0) * x**2).sum() / wide.sum()) == pytest.approx(3.03, rel=0.06)


def test_scaling_down_and_up_takes_detail_and_leaves_means():
    fine = np.tile(np.array([[0, 255], [255, 0]], np.uint8), (32, 32))[..., None].repeat(3, 2)
    result = Degradation(downscale=0.5).apply(fine)
    assert result.shape == fine.shape
    assert result.std() < 2 and abs(result.mean() - 127.5) < 1


def test_h264_treats_a_clip_as_a_whole_and_a_picture_as_a_key_frame(shot):
    frames = [np.roll(shot.pixels, i, axis=1) for i in range(12)]
    stage = Degradation(h264=26)
    film = list(stage.apply_clip(iter(frames)))
    assert len(film) == 12
    assert all(f.shape == g.shape for f, g in zip(film, frames, strict=True))
    quality = [psnr(f, g) for f, g in zip(film, frames, strict=True)]
    assert 26 < min(quality) and max(quality) < 45
    finer = list(Degradation(h264=16).apply_clip(frames))
    assert video_psnr(finer[6], frames[6]) > video_psnr(film[6], frames[6]) + 3
    assert np.array_equal(stage.apply(frames[0]), next(iter(stage.apply_clip(frames[:1]))))
    assert not np.array_equal(stage.apply(frames[6]), film[6])
    odd = shot.pixels[:95, :93]
    assert stage.apply(odd).shape == odd.shape
    assert list(stage.apply_clip([])) == []


@given(st.integers(0, 2**40), st.sampled_from(["mild", "strong"]))
@settings(deadline=None, max_examples=25)
def test_any_sampled_degradation_is_within_bounds_and_comes_back_from_json(seed, strength):
    stage = Degradation.sample(seed, strength)
    assert Degradation.from_json(json.loads(json.dumps(stage.to_json()))) == stage
    assert stage == Degradation.sample(seed, strength) == chosen(strength, seed)


def test_degradation_is_deterministic_and_leaves_its_input_alone(shot):
    before = shot.pixels.copy()
    frames = [shot.pixels] * 3
    for seed in range(6):
        stage = Degradation.sample(seed, "strong").model_copy(update={"h264": None})
        film = list(stage.apply_clip(frames))
        assert [np.array_equal(f, stage.apply(shot.pixels, i)) for i, f in enumerate(film)]
        assert np.array_equal(stage.apply(shot.pixels), stage.apply(shot.pixels))
        assert not np.array_equal(film[0], film[1])  # each frame has noise of its own
    assert np.array_equal(before, shot.pixels)
    assert np.array_equal(Degradation().apply(shot.pixels), shot.pixels)


def test_strong_is_worse_than_mild(shot):
    means = {
        strength: np.mean(
            [
                psnr(Degradation.sample(i, strength).apply(shot.pixels), shot.pixels)
                for i in range(8)
            ]
        )
        for strength in ("mild", "strong")
    }
    assert means["strong"] + 3 < means["mild"] < 45


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"jpg": {"quality": 50}}, "unknown key 'jpg'.*did you mean 'jpeg'"),
        ({"jpeg": {"quality": 0}}, r"jpeg\.quality"),
        ({"h264": 52}, "less than or equal to 51"),
        ({"downscale": 0.0}, "greater than 0"),
        ({"white_balance": [1.0, -1.0, 1.0]}, "white_balance"),
        ({"noise": {"shot": 9.0}}, r"noise\.shot"),
    ],
)
def test_a_degradation_out_of_bounds_is_refused(values, words):
    with pytest.raises(FacekitError, match=words):
        Degradation.from_json(values)


def test_an_unknown_strength_is_refused():
    for call in (lambda: chosen("medium", 0), lambda: Degradation.sample(0, "none")):
        with pytest.raises(FacekitError, match="allowed: "):
            call()


# --- folders and clips in all their forms ------------------------------------------------------


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    out = tmp_path_factory.mktemp("stage") / "labelled"
    truth = ["masks", "depth"]
    render_folder(out, people=2, frames=2, size=64, seed=3, degrade="mild", truth=truth)
    return out


def rehash(folder):
    """Rewrite every hash that anyone could rewrite."""
    rows = files.read_jsonl(folder / "manifest.jsonl")
    certificate = files.read_json(folder / "certificate.json")
    listed = {}
    for row in rows:
        row["sha256"] = listed[row["path"]] = files.sha256(folder / row["path"])
        for frame in [row["facts"], *row["facts"].get("frames", [])]:
            for entry in frame.get("truth", {}).values():
                entry["sha256"] = listed[entry["path"]] = files.sha256(folder / entry["path"])
    files.write_jsonl(folder / "manifest.jsonl", rows)
    listed["manifest.jsonl"] = files.sha256(folder / "manifest.jsonl")
    certificate["files"] = listed
    files.write_json(folder / "certificate.json", certificate)


def test_facts_and_truth_are_the_renderings(labelled):
    items = read_manifest(labelled)
    facts = items[3].facts
    person = Person.sample(facts["person_seed"])
    again = render(person, Performance.from_json(facts["performance"]), 64)
    assert facts["description"] == person.description
    assert facts["caption"] == person.describe(again.performance.expression)
    assert facts["skin_tone"] == person.skin_tone
    assert np.allclose(facts["landmarks"], again.landmarks, atol=0.006)
    assert facts["visible"] == again.visible.tolist() and len(facts["visible"]) == 70
    assert np.allclose(facts["points"], again.points, atol=0.001)
    assert np.allclose(facts["pose"], again.pose, atol=1e-3)
    assert np.allclose(facts["expression"], again.expression, atol=1e-4)
    assert len(facts["expression"]) == len(FACE_UNITS)
    assert np.allclose(facts["identity"], person.vector, atol=1e-4)
    camera = {name: np.array(values) for name, values in facts["camera"].items()}
    assert np.allclose(camera["intrinsics"], again.intrinsics, atol=1e-5)
    assert np.allclose(camera["camera_from_head"], again.camera_from_head, atol=1e-7)
    stage = Degradation.from_json(facts["degradation"])
    shown = cv2.imread(str(labelled / items[3].path))[..., ::-1]
    assert np.array_equal(shown, stage.apply(again.pixels))
    assert not np.array_equal(shown, again.pixels)
    stem = labelled / "person-0001" / "0001"
    for name in MASKS:
        mask = cv2.imread(f"{stem}.mask-{name}.png", cv2.IMREAD_UNCHANGED)
        assert np.array_equal(mask, again.masks[name])
    depth = labels.read_depth(Path(f"{stem}.depth.png"))
    assert np.array_equal(np.isinf(depth), np.isinf(again.depth))
    near = np.isfinite(depth)
    assert np.abs(depth[near] - again.depth[near]).max() <= 0.00501  # half a millimetre
    assert len(list(labelled.rglob("*.png"))) == 4 * (1 + len(MASKS) + 1)
    assert len(verify(labelled).checked) == 4


def test_truth_that_is_not_the_pictures_fails(labelled, tmp_path):
    out = shutil.copytree(labelled, tmp_path / "copy")
    mask, depth = (out / "person-0000" / f"0000.{what}.png" for what in ("mask-face", "depth"))
    before = mask.read_bytes()
    mask.write_bytes(cv2.imencode(".png", np.roll(cv2.imread(str(mask), -1), 5, 0))[1].tobytes())
    with pytest.raises(FacekitError, match=r"mask-face\.png: was changed"):
        verify(out)
    rehash(out)
    with pytest.raises(FacekitError, match=r"mask-face\.png: is not the truth"):
        verify(out)
    mask.write_bytes(before)
    shown = cv2.imread(str(depth), -1)
    for wrong, words in (
        (shown + np.uint16(9), "is not the truth"),
        (shown.astype(np.uint8), "not of the size and depth"),
    ):
        depth.write_bytes(cv2.imencode(".png", wrong)[1].tobytes())
        rehash(out)
        with pytest.raises(FacekitError, match=words):
            verify(out)
    depth.write_bytes(b"no picture")
    rehash(out)
    with pytest.raises(FacekitError, match="not a PNG"):
        verify(out)
    depth.unlink()
    with pytest.raises(FacekitError, match="missing"):
        verify(out)


@pytest.mark.parametrize(
    "fact, value",
    [("pose", [0, 0, 0]), ("points", [[1, 1]] * 5), ("skin_tone", 99), ("expression", None)],
)
def test_facts_that_are_not_the_renderings_fail(labelled, tmp_path, fact, value):
    out = shutil.copytree(labelled, tmp_path / "copy")
    rows = files.read_jsonl(out / "manifest.jsonl")
    for row in rows:
        row["facts"][fact] = value
    files.write_jsonl(out / "manifest.jsonl", rows)
    rehash(out)
    with pytest.raises(FacekitError, match=f"'{fact}' in the manifest is not what"):
        verify(out)


def test_a_file_of_truth_is_verified_with_its_picture(labelled):
    found = verify(labelled / "person-0001/0000.mask-face.png")
    assert found.checked == ("person-0001/0000.png",)


def test_another_degradation_than_the_certificates_fails(labelled, tmp_path):
    out = shutil.copytree(labelled, tmp_path / "copy")
    content = files.read_json(out / "certificate.json")
    content["arguments"]["degrade"] = "strong"
    files.write_json(out / "certificate.json", content)
    with pytest.raises(FacekitError, match="does not show"):
        verify(out)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"people": "many"}, "key 'people'"),
        ({"people": 10**9}, "not those that its certificate's seeds give"),
        ({"format": "gif"}, "key 'format'"),
        ({"degrade": "awful"}, "unknown degradation 'awful'"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"size": 10**6}, "16 to 2048"),
    ],
)
def test_senseless_arguments_in_a_certificate_are_a_one_line_error(
    labelled, tmp_path, change, words
):
    out = shutil.copytree(labelled, tmp_path / "copy")
    content = files.read_json(out / "certificate.json")
    content["arguments"] |= change
    files.write_json(out / "certificate.json", content)
    with pytest.raises(FacekitError, match=words) as caught:
        verify(out)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_folders_of_other_formats_hold_too_and_photos_in_them_do_not(tmp_path, suffix):
    from skimage import data

    out = tmp_path / "people"
    render_folder(out, people=1, frames=2, size=64, seed=2, format=suffix)
    assert len(verify(out).checked) == 2
    picture = out / "person-0000" / f"0001.{suffix}"
    photo = cv2.resize(data.astronaut()[:400, :400], (64, 64), interpolation=cv2.INTER_AREA)
    Image.fromarray(photo).save(picture, quality=95)
    rehash(out)
    with pytest.raises(FacekitError, match="does not show"):
        verify(out)


def test_a_strangers_face_in_a_genuine_picture_fails(tmp_path):
    """The background is right, the face is not: the whole picture's error must still tell."""
    out = tmp_path / "people"
    render_folder(out, people=1, frames=1, size=96, seed=2)
    item = read_manifest(out)[0]
    performance = Performance.from_json(item.facts["performance"])
    own = render(Person.sample(item.facts["person_seed"]), performance, 96)
    other = render(Person.sample(77), performance, 96)
    pixels = np.where((own.masks["face"] > 127)[..., None], other.pixels, own.pixels)
    cv2.imwrite(str(out / item.path), pixels[..., ::-1])
    rehash(out)
    with pytest.raises(FacekitError, match="does not show"):
        verify(out)


def test_a_strongly_degraded_clip_holds_and_its_frames_are_the_films(tmp_path):
    from facekit.media.decode import Video

    seed = next(s for s in range(99) if chosen("strong", s).h264 is not None)
    a, b = tmp_path / "a", tmp_path / "b"
    given = {"person_seed": 3, "seconds": 0.4, "size": 65, "seed": seed, "degrade": "strong"}
    render_clip(a, **given)
    render_clip(b, **given, format="png", truth=["depth"])
    assert len(verify(a).checked) == 8
    assert verify(b / "frames" / "00002.png").checked == ("frames/00002.png",)
    person = Person.sample(3)
    clean = [render(person, p, 65).pixels for p in Performance.clip(0.4, 25, seed)]
    film = list(chosen("strong", seed).apply_clip(clean))
    with Video(a / "clip.mp4") as video:
        shown = [frame.pixels[:65, :65] for frame in video]
    for i, (frame, expected) in enumerate(zip(shown, film, strict=True)):
        assert video_psnr(frame, expected) > LEAST_PSNR + 2
        assert video_psnr(frame, clean[i]) < LEAST_PSNR - 4
        still = cv2.imread(str(b / "frames" / f"{i:05d}.png"))[..., ::-1]
        assert np.array_equal(still, expected)
    items = read_manifest(b)
    assert [item.time for item in items] == pytest.approx(np.arange(10) / 25)
    assert set(items[0].facts["truth"]) == {"depth"}


def test_a_real_video_under_a_clips_certificate_fails(tmp_path):
    from skimage import data

    from facekit.media.encode import write_video
    from facekit.types import Frame

    out = tmp_path / "clip"
    render_clip(out, seconds=0.4, size=64, seed=1)
    assert verify(out)
    photo = cv2.resize(data.astronaut()[:400, :400], (64, 64), interpolation=cv2.INTER_AREA)
    film = [Frame(np.roll(photo, i, axis=1), i / 25, i) for i in range(10)]
    write_video(out / "clip.mp4", film, crf=10)
    rehash(out)
    with pytest.raises(FacekitError, match="does not show"):
        verify(out)
    write_video(out / "clip.mp4", film[:9], crf=10)
    rehash(out)
    with pytest.raises(FacekitError, match=r"does not show|9 frames"):
        verify(out)


def test_video_psnr_ignores_what_420_takes_and_nothing_else():
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (32, 32, 3), np.uint8)
    assert video_psnr(noise, noise) == float("inf")
    grey = np.full((32, 32, 3), 100, np.uint8)
    brighter = grey + np.uint8(10)
    # Limited range: 10 codes of RGB are 8.59 of luma, which is two thirds of the samples.
    expected = 10 * np.log10(255**2 / (8.59**2 * 2 / 3))
    assert video_psnr(grey, brighter) == pytest.approx(expected, abs=0.7)
    chequers = grey.copy()
    chequers[::2, ::2, 2] += 40
    chequers[1::2, 1::2, 2] += 40
    assert video_psnr(chequers, grey) > psnr(chequers, grey)


# --- the pool ----------------------------------------------------------------------------------


def test_workers_bring_what_is_wanted_and_the_same_bytes():
    pairs = [(Person.sample(i // 3), Performance.sample(i)) for i in range(6)]
    stages = [chosen("strong", i) for i in range(6)]
    one = list(render_frames(pairs, 48, 1, want=("masks",), degradations=stages))
    two = list(render_frames(pairs, 48, 2, want=("masks",), degradations=stages))
    plain = render(*pairs[5], 48)
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.pixels, b.pixels)
        assert all(np.array_equal(a.masks[name], b.masks[name]) for name in MASKS)
        assert a.depth.size == b.depth.size == 0
        assert a.person == b.person and a.performance == b.performance
    assert np.array_equal(one[5].pixels, stages[5].apply(plain.pixels))
    assert len(pickle.dumps(replace(plain, masks={}, depth=np.empty((0, 0))))) < 0.4 * len(
        pickle.dumps(plain)
    )


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_killed_worker_is_an_error_and_not_a_hang():
    import multiprocessing

    pairs = [(Person.sample(0), Performance.sample(i)) for i in range(48)]
    frames = render_frames(pairs, 32, workers=2)
    next(frames)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(FacekitError, match="worker"):
        for _ in frames:
            pass
    assert time.monotonic() - began < 30
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["render", "--people", "1", "--frames", "3", "--workers", "4"], "allowed are 1 to 3"),
        (["clip", "--frames", "2", "--workers", "3"], "allowed are 1 to 2"),
        (["sheet", "--people", "2", "--workers", "3"], "allowed are 1 to 2"),
        (["person", "3", "--frames", "2", "--workers", "3"], "allowed are 1 to 2"),
        (["render", "--truth", "mask"], "--truth mask: did you mean 'masks'"),
        (["clip", "--people", "0"], "people 0"),
        (["clip", "--frames", "0"], "frames 0"),
        (["sheet", "--frames", "0"], "frames 0"),
        (["sheet", "--format", "jpg"], "its suffix is not that of --format jpg"),
        (["person"], "either a SEED"),
        (["person", "-1"], "0 or more"),
    ],
)
def test_bad_arguments_leave_nothing_behind(words, message, tmp_path):
    out = tmp_path / "out.png"
    arguments = ["--", words.pop()] if words[-1] == "-1" else []
    result = CliRunner().invoke(command, [*words, "--out", str(out), *arguments])
    assert isinstance(result.exception, FacekitError), result.output
    assert message in str(result.exception) and "\n" not in str(result.exception)
    assert not out.exists()


# --- a person by file --------------------------------------------------------------------------


def test_a_person_is_described_drawn_and_read_back(tmp_path):
    out = tmp_path / "someone.png"
    arguments = ["person", "7", "--json", "--frames", "2", "--size", "64", "--out", str(out)]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    said = json.loads(result.stdout)
    assert said["parameters"] == json.loads(json.dumps(Person.sample(7).to_json()))
    assert cv2.imread(str(out)).shape == (64, 128, 3)
    kept = tmp_path / "someone.json"
    kept.write_text(result.stdout)
    result = CliRunner().invoke(command, ["person", "--file", str(kept)], catch_exceptions=False)
    assert result.stdout.startswith(said["description"])
    again = tmp_path / "again.png"
    arguments = [
        "person",
        "--file",
        str(kept),
        "--frames",
        "2",
        "--size",
        "64",
        "--out",
        str(again),
    ]
    CliRunner().invoke(command, arguments, catch_exceptions=False)
    # The pixels: each file has a manifest of its own, with its own time.
    assert np.array_equal(cv2.imread(str(again)), cv2.imread(str(out)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"age": 17.5}, "'age'.*18"),
        ({"shape": {"nose-hmp": 0.2}}, "did you mean 'nose-hump'"),
        ({"shape": {"nose-hump": 3.0}}, "out of range"),
        ({"weight": 1.5}, "'weight'"),
        ({"lips": float("nan")}, "'lips'"),
        ({"smile": 1}, "unknown key 'smile'"),
    ],
)
def test_a_person_that_cannot_be_is_a_one_line_error(change, words, tmp_path):
    path, out = tmp_path / "person.json", tmp_path / "out.png"
    path.write_text(json.dumps(Person.sample(0).to_json() | change))
    result = CliRunner().invoke(command, ["person", "--file", str(path), "--out", str(out)])
    assert isinstance(result.exception, FacekitError)
    with pytest.raises(FacekitError, match=rf"person\.json: .*{words}"):
        raise result.exception
    assert "\n" not in str(result.exception)
    assert not out.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"[1]", b"{", b"\xff\xfe", b'{"parameters": 3}', b'{"parameters": {}, "age": 17}'],
)
def test_a_file_that_is_no_person_is_a_one_line_error(content, tmp_path):
    path = tmp_path / "person.json"
    path.write_bytes(content)
    result = CliRunner().invoke(command, ["person", "--file", str(path)])
    assert isinstance(result.exception, FacekitError)
    assert "person.json" in str(result.exception) and "\n" not in str(result.exception)


def test_clips_of_several_people_and_sheets_of_several_performances(tmp_path):
    out = tmp_path / "pair"
    arguments = ["clip", "--people", "2", "--person-seed", "5", "--frames", "2", "--size", "32"]
    result = CliRunner().invoke(command, [*arguments, "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    facts = [read_manifest(out / f"studio-{seed}")[0].facts for seed in (5, 6)]
    assert [f["person_seed"] for f in facts] == [5, 6]
    performances = [[frame["performance"] for frame in f["frames"]] for f in facts]
    assert performances[0] == performances[1] and len(performances[0]) == 2
    arguments = ["sheet", "--people", "2", "--frames", "2", "--size", "96", "--format", "jpg"]
    CliRunner().invoke(command, [*arguments, "--out", str(tmp_path / "sheet")])
    assert cv2.imread(str(tmp_path / "sheet.jpg")).shape == (96, 384, 3)
    # To be looked at, so it says what it is; folders and clips have their certificate beside them.
    assert watermark.read_file(tmp_path / "sheet.jpg").present
    assert manifest.verify(tmp_path / "sheet.jpg").claims["kind"] == "studio"


# --- full disks and places that cannot be written ------------------------------------------------

_LIMITED = (
    "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (MOST, MOST)); "
    "from facekit.cli import main; main()"
)


@pytest.mark.skipif(os.name != "posix", reason="RLIMIT_FSIZE is POSIX's")
@pytest.mark.parametrize(
    ("limit", "words", "named"),
    [
        (4000, ["render", "--people", "1", "--frames", "2", "--size", "96"], "0000.png"),
        (3000, ["clip", "--frames", "12", "--size", "64"], "clip.mp4"),
        (4000, ["sheet", "--people", "2", "--size", "96"], "out.png"),
    ],
)
def test_a_disk_that_fills_up_leaves_no_half_written_file(tmp_path, limit, words, named):
    """A file that may not grow further fails as on a full disk: in the midst of a write."""
    out = tmp_path / "out.png"
    basis.load()  # Its cache is no part of this.
    result = subprocess.run(
        [
            *(sys.executable, "-c", _LIMITED.replace("MOST", str(limit))),
            *("studio", *words, "--out", str(out)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("facekit: ") and named in line and "cannot be written" in line
    # Nothing but the plan by which the same command goes on.
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] in ([], ["studio.json"])


def test_no_space_left_is_said_and_the_run_goes_on_later(tmp_path, monkeypatch):
    out = tmp_path / "people"
    write, left = Path.write_bytes, [3]

    def full(self, content):
        if self.suffix == ".png":
            left[0] -= 1
            if left[0] < 0:
                write(self, content[: len(content) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(FacekitError, match=r"0001\.png: cannot be written \(No space left"):
            render_folder(out, people=2, frames=2, size=32, truth=["depth"])
    names = sorted(p.name for p in out.rglob("*") if p.is_file())
    assert names == ["0000.depth.png", "0000.json", "0000.png", "0001.depth.png", "studio.json"]
    render_folder(out, people=2, frames=2, size=32, truth=["depth"])
    whole = tmp_path / "whole"
    render_folder(whole, people=2, frames=2, size=32, truth=["depth"])
    for path in whole.rglob("*.*"):
        assert path.read_bytes() == (out / path.relative_to(whole)).read_bytes()
    assert verify(out)


@pytest.mark.parametrize("words", [["render"], ["clip"], ["sheet", "--people", "1"]])
def test_a_folder_that_cannot_be_written_is_a_one_line_error(tmp_path, words):
    (tmp_path / "file").write_text("x")
    small = [*words, "--frames", "1", "--size", "16"]
    for place in (tmp_path / "file" / "out.png", Path("/proc/nowhere/out.png")):
        result = CliRunner().invoke(command, [*small, "--out", str(place)])
        assert isinstance(result.exception, FacekitError), result.output
        assert str(place.parent) in str(result.exception)
        assert "\n" not in str(result.exception)


# --- the data set ------------------------------------------------------------------------------

torch = pytest.importorskip("torch")


def _faces(**given):
    from facekit.datasets.studio import StudioFaces

    return StudioFaces(**{"people": 2, "frames": 2, "size": 32, "masks": True} | given)


def _same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_items_are_the_folders_pictures_and_their_truth(tmp_path):
    faces = _faces(seed=4, degrade="mild")
    render_folder(tmp_path / "people", people=2, frames=2, size=32, seed=4, degrade="mild")
    rows = read_manifest(tmp_path / "people")
    assert len(faces) == 4
    for i, row in enumerate(rows):
        item = faces[i]
        picture = cv2.imread(str(tmp_path / "people" / row.path))[..., ::-1]
        assert torch.equal(
            ((item["image"] + 1) * 127.5).round().byte(),
            torch.from_numpy(picture.copy()).permute(2, 0, 1),
        )
        assert item["image"].dtype == torch.float32 and item["image"].abs().max() <= 1
        assert item["landmarks"].shape == (70, 2) and item["masks"].shape == (len(MASKS), 32, 32)
        assert np.allclose(item["landmarks"].numpy(), row.facts["landmarks"], atol=0.006)
        assert np.allclose(item["pose"].numpy(), row.facts["pose"], atol=1e-3)
        assert np.allclose(item["identity"].numpy(), row.facts["identity"], atol=1e-4)
        assert int(item["person"]) == i // 2
        assert int(item["skin_tone"]) == row.facts["skin_tone"]
    assert torch.equal(faces[-1]["image"], faces[3]["image"])
    with pytest.raises(IndexError):
        faces[4]


def test_a_cache_and_loader_workers_give_the_same_bytes(tmp_path):
    from torch.utils.data import DataLoader

    fresh = _faces()
    cached = _faces(cache=tmp_path)
    (folder,) = tmp_path.iterdir()
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert np.load(folder / "image.npy", mmap_mode="r").dtype == np.uint8
    for i in range(4):
        _same(fresh[i], cached[i])
    assert len(pickle.dumps(cached)) < 2000  # no array goes along to a worker
    for number, item in enumerate(
        DataLoader(cached, None, num_workers=1, multiprocessing_context="spawn")
    ):
        _same(item, fresh[number])
    again = _faces(cache=tmp_path, workers=2)
    _same(again[3], fresh[3])
    assert before == {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    _faces(cache=tmp_path, people=1, frames=1)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_crop_is_the_picture_and_its_labels_moved_together():
    from facekit.faces.align import TEMPLATES

    crop = _faces(template="wide", size=48, people=1, frames=1)[0]
    eyes = crop["points"][:2].numpy()
    assert np.abs(eyes - TEMPLATES["wide"][:2] * 48).max() < 6
    # The face's mask lies where the landmarks say.
    x, y = crop["landmarks"][30].round().int().tolist()
    assert crop["masks"][MASKS.index("face"), y, x] > 0.9
    irises, seen = crop["landmarks"][68:], crop["visible"][68:]
    assert seen.all() and np.abs(irises.numpy() - eyes).max() < 3


def test_a_damaged_cache_is_a_one_line_error(tmp_path):
    _faces(cache=tmp_path)
    (folder,) = tmp_path.iterdir()
    whole = (folder / "image.npy").read_bytes()
    for damaged in (whole[:300], b"", b"x" * 200):
        (folder / "image.npy").write_bytes(damaged)
        with pytest.raises(FacekitError, match="damaged cache") as caught:
            _faces(cache=tmp_path)
        assert "\n" not in str(caught.value)
    (folder / "image.npy").write_bytes(whole)
    (folder / "arguments.json").write_text("{}")
    with pytest.raises(FacekitError, match="damaged cache"):
        _faces(cache=tmp_path)


def test_a_cache_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    from facekit.datasets.studio import StudioFaces

    record, left = StudioFaces._record, [2]

    def full(self, person, result):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return record(self, person, result)

    monkeypatch.setattr(StudioFaces, "_record", full)
    with pytest.raises(FacekitError, match="No space left"):
        _faces(cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(FacekitError, match="cannot be written"):
        _faces(cache=tmp_path / "file")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"people": 0}, "people 0"),
        ({"size": 0}, "16 to 2048"),
        ({"template": "fhq"}, "unknown template 'fhq'"),
        ({"degrade": "bad"}, "unknown degradation"),
        ({"workers": 5}, "allowed are 1 to 4"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_a_data_set_that_cannot_be_is_refused(given, words):
    with pytest.raises(FacekitError, match=words):
        _faces(**given)
