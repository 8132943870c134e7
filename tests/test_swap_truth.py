"""The true answers of swaps: what is rendered, how frames are scored, and what is refused."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from facekit.adversary.metrics.psnr import psnr
from facekit.adversary.metrics.ssim import ssim, ssim_map
from facekit.commands.generator_evaluate import evaluate
from facekit.core.device import setup
from facekit.core.errors import FacekitError
from facekit.core.figures import with_goals
from facekit.datasets import swap_truth
from facekit.datasets.crops import Crops
from facekit.datasets.swap_truth import (
    Actor,
    Clip,
    Photo,
    Protocol,
    actors_of,
    aligned,
    clip_folder,
    parts,
    read_frames,
    read_protocol,
    render_clips,
    require_frames,
)
from facekit.generators import _swap_evaluate, _swap_truth
from facekit.generators._swap_truth import (
    Readers,
    Reading,
    Score,
    bend,
    best_photos,
    ceiling,
    figures,
    floors,
    judged,
    region_psnr,
    region_ssim,
    score,
    score_truth,
)
from facekit.media.images import write_image
from facekit.studio.person import Person, person_seed
from facekit.types import Frame, Item, write_manifest

PAIR = 9107
SMALL = Protocol(pairs=[PAIR], photos=2, clips=2, frames=3, rate=8, size=96, crop=48, gallery=3,
                 portraits=1, seed=5)  # fmt: skip


def cast() -> list[Actor]:
    return [Actor(f"person-{i:04d}", Person.sample(person_seed(PAIR, i))) for i in range(2)]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def clips(kept: Path) -> list[Clip]:
    return list(render_clips(SMALL, cast(), kept=kept))


@pytest.fixture(scope="module")
def readers() -> Readers:
    return Readers.load(None, torch.device("cpu"))


@pytest.fixture(scope="module")
def gallery(readers: Readers, kept: Path) -> Any:
    return readers.identity.gallery(swap_truth.portraits(SMALL, cast(), kept=kept))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export")
    swap_truth.export(SMALL, out)
    return out


# --- what is rendered -------------------------------------------------------------------------


def test_the_protocol_is_of_this_studio(tmp_path: Path) -> None:
    protocol = read_protocol()
    assert protocol.pairs == [9107, 9112, 9113] and protocol.gallery == 100
    other = tmp_path / "other.yaml"
    other.write_text("studio: 1\npairs: [1]\n")
    with pytest.raises(FacekitError, match="studio version 1"):
        read_protocol(other)


def test_everyone_plays_both_parts() -> None:
    a, b = cast()
    assert parts([a, b], 3) == [(b, a), (a, b), (b, a)]


def test_target_and_answer_give_one_performance(clips: list[Clip]) -> None:
    first, second = clips
    assert (first.source, first.target) == (second.target, second.source)
    assert first.frames.shape == first.answers.shape == (3, 96, 96, 3)
    assert not np.array_equal(first.frames, first.answers)
    assert np.allclose(np.diff(first.times), 1 / 8, atol=1e-6)
    # The region is inner face in both, so within either.
    assert 0.15 < (first.region > 127).mean() < 0.7


def test_clips_are_held_out_of_every_folder_of_photos(clips: list[Clip], exported: Path) -> None:
    items = [item for item in actors_of(exported / f"pair-{PAIR}/people")]
    photos = [photo.read() for actor in items for photo in actor.photos]
    shown = [frame for clip in clips for frame in clip.frames]
    assert not any(np.array_equal(photo, frame) for photo in photos for frame in shown)


def test_true_motion_brings_the_next_frame_back(clips: list[Clip]) -> None:
    clip = clips[0]
    crops = [aligned(f, p, 48) for f, p in zip(clip.answers, clip.answer_points, strict=True)]
    moved, still = [], []
    for i, (first, second) in enumerate(pairwise(crops)):
        x, y = (clip.motion[i][..., k] - 0.5 for k in range(2))
        back = cv2.remap(second.astype(np.float32), x, y, cv2.INTER_LINEAR)
        weight = (clip.region[i] / 255.0 * clip.moved[i])[..., None]
        moved.append((np.abs(back - first) * weight).sum() / weight.sum())
        still.append((np.abs(second.astype(float) - first) * weight).sum() / weight.sum())
    assert sum(moved) < sum(still)
    assert _swap_truth.flicker(np.stack(crops), clip) == pytest.approx(np.mean(moved) / 3, rel=1e-4)


def test_kept_clips_are_not_rendered_again(
    clips: list[Clip], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("rendered again")

    monkeypatch.setattr(swap_truth, "render_frames", never)
    again = list(render_clips(SMALL, cast(), kept=kept))
    for before, now in zip(clips, again, strict=True):
        for key, value in vars(before).items():
            assert np.array_equal(value, getattr(now, key)), key
    with pytest.raises(AssertionError):
        list(render_clips(SMALL.model_copy(update={"seed": 6}), cast(), kept=kept))


def test_an_export_has_the_very_frames(clips: list[Clip], exported: Path) -> None:
    plan = json.loads((exported / "protocol.json").read_text())
    assert [row["path"] for row in plan["clips"]] == [clip_folder(PAIR, i) for i in range(2)]
    for number, clip in enumerate(clips):
        assert plan["clips"][number]["target"] == clip.target
        for mine, theirs in zip(
            clip.frames, read_frames(exported, SMALL, PAIR, number), strict=True
        ):
            assert np.array_equal(mine, theirs)
    with pytest.raises(FacekitError, match="another protocol"):
        swap_truth.export(SMALL.model_copy(update={"clips": 1}), exported)


def test_only_the_studio_knows_the_answer(tmp_path: Path) -> None:
    write_manifest(tmp_path, [])
    with pytest.raises(FacekitError, match="0 people"):
        actors_of(tmp_path)
    (tmp_path / "a.png").write_bytes(b"x")
    write_manifest(tmp_path, [Item(path="a.png", sha256="", subject="somebody")])
    with pytest.raises(FacekitError, match="has not the studio's facts"):
        actors_of(tmp_path)


# --- somebody's frames ------------------------------------------------------------------------


def given(exported: Path, folder: Path) -> Path:
    for number in range(SMALL.clips):
        name = f"{clip_folder(PAIR, number)}/frames"
        shutil.copytree(exported / name, folder / name)
    return folder


def test_each_frame_must_be_there_and_no_other(exported: Path, tmp_path: Path) -> None:
    folder = given(exported, tmp_path / "mine")
    require_frames(folder, SMALL)
    frame = folder / clip_folder(PAIR, 1) / "frames" / "00002.png"
    frame.rename(frame.with_name("00009.png"))
    with pytest.raises(FacekitError, match=r"1 of 6 frames are missing, e.g. pair-9107/clip-01/"):
        require_frames(folder, SMALL)
    shutil.copy(frame.with_name("00009.png"), frame)
    with pytest.raises(FacekitError, match=r"1 pictures are none of the protocol's.*00009"):
        require_frames(folder, SMALL)
    frame.with_name("00009.png").unlink()
    require_frames(folder, SMALL.model_copy(update={"clips": 1}))  # as --clips 1 asks
    with pytest.raises(FacekitError, match="not a folder"):
        require_frames(tmp_path / "nowhere", SMALL)


def test_frames_have_the_targets_size(exported: Path, tmp_path: Path) -> None:
    folder = given(exported, tmp_path / "mine")
    path = folder / clip_folder(PAIR, 0) / "frames" / "00001.png"
    write_image(path, np.zeros((96, 100, 3), np.uint8))
    with pytest.raises(FacekitError, match=r"00001.png: 100 × 96 pixels; the target's frame has"):
        read_frames(folder, SMALL, PAIR, 0)
    with pytest.raises(FacekitError, match=r"00001.png: 100 × 96 pixels; the target's frame has"):
        require_frames(folder, SMALL)  # before anything is rendered
    path.write_bytes(b"no picture")
    with pytest.raises(FacekitError, match=r"00001\.png"):
        read_frames(folder, SMALL, PAIR, 0)


def test_target_frames_handed_in_score_as_no_swap(
    exported: Path, tmp_path: Path, kept: Path, readers: Readers
) -> None:
    folder = given(exported, tmp_path / "mine")
    fabric = setup("cpu", threads=1)
    measured = _swap_evaluate.of_frames(folder, exported, SMALL, readers, fabric, kept=kept)
    rows = {row.name: row for row in with_goals(measured.figures)}
    assert rows["swap.psnr"].value == rows["swap.psnr.copy"].value
    assert rows["swap.strength"].value == 0 and rows["swap.strength"].holds is False
    assert rows["swap.psnr_over_floor"].value <= 0
    assert rows["swap.psnr"].goal == ">= 26" and rows["swap.psnr"].low is not None
    assert {f"swap.psnr.{name}" for name in ("copy", "photo", "warp", "pasted")} <= set(rows)
    assert rows["swap.psnr"].floor == max(
        rows[f"swap.psnr.{name}"].value for name in ("copy", "photo", "warp")
    )
    assert rows["swap.psnr.pasted"].value > rows["swap.psnr"].value + 5
    assert rows["swap.strength.truth"].value == 1
    assert "swap.psnr.truth" not in rows
    assert measured.sheet.dtype == np.uint8 and measured.sheet.shape[2] == 3


# --- scores -----------------------------------------------------------------------------------


def test_psnr_counts_the_region_alone() -> None:
    truth = np.full((2, 16, 16, 3), 100, np.uint8)
    region = np.zeros((2, 16, 16), np.uint8)
    region[:, 4:12, 4:12] = 255
    crops = truth.copy()
    crops[region == 0] = 0
    assert np.isinf(region_psnr(crops, truth, region)).all()
    crops[region == 255] = 110
    assert region_psnr(crops, truth, region) == pytest.approx(20 * np.log10(255 / 10))
    # Over the whole it is the metric's own.
    whole = np.full_like(region, 255)
    images = [torch.from_numpy(x.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
              for x in (crops, truth)]  # fmt: skip
    assert region_psnr(crops, truth, whole) == pytest.approx(psnr(*images).numpy(), rel=1e-5)


def test_ssim_counts_the_region_alone() -> None:
    random = np.random.default_rng(0)
    truth, crops = random.integers(0, 256, (2, 1, 32, 32, 3), dtype=np.uint8)
    images = [torch.from_numpy(x.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
              for x in (crops, truth)]  # fmt: skip
    whole = np.full((1, 32, 32), 255, np.uint8)
    assert region_ssim(crops, truth, whole) == pytest.approx(ssim(*images).numpy(), abs=1e-6)
    assert ssim_map(*images).shape == (1, 3, 22, 22)
    half = whole.copy()
    half[:, :, 16:] = 0
    crops[:, :, :24] = truth[:, :, :24]  # as far as the windows of the half reach, and more
    assert region_ssim(crops, truth, half) == pytest.approx(1, abs=1e-5)
    assert region_ssim(crops, truth, whole) < 0.95


def test_a_face_that_moves_does_not_flicker(clips: list[Clip]) -> None:
    """Wallpaper that slides by two pixels, and then one that blinks by 9 levels as well."""
    random = np.random.default_rng(1)
    paper = cv2.GaussianBlur(random.integers(0, 200, (48, 60, 3)).astype(np.float32), (0, 0), 2)
    crops = np.stack([paper[:, 2 * i : 2 * i + 48] for i in range(3)]).round().astype(np.uint8)
    centres = np.stack(np.meshgrid(*[np.arange(48)] * 2), -1) + 0.5
    motion = np.repeat((centres - [2, 0])[None], 2, 0).astype(np.float32)
    moved = np.ones((2, 48, 48), np.uint8)
    moved[:, :, :3] = 0
    region = np.full((3, 48, 48), 255, np.uint8)
    clip = replace(clips[0], motion=motion, moved=moved, region=region)
    assert _swap_truth.flicker(crops, clip) == pytest.approx(0, abs=1e-3)
    crops[1] += 9
    assert _swap_truth.flicker(crops, clip) == pytest.approx(9, abs=1e-3)


def test_the_truth_scores_best(clips: list[Clip], readers: Readers, gallery: Any) -> None:
    clip = clips[0]
    of = judged(clip, cast(), gallery, readers)
    truth = score_truth(of)
    assert np.isinf(truth.psnr) and truth.ssim == pytest.approx(1)
    assert truth.expression_from_truth == 0 and truth.source_like == 1
    pasted = score(ceiling(clip, 48), of, readers)
    ((name, frames),) = floors(clip, *cast())
    copy = score(frames, of, readers)
    assert name == "copy", "without photos there are no other floors"
    assert pasted.psnr > copy.psnr + 5 and pasted.ssim > copy.ssim
    assert pasted.similarity > 0 > copy.similarity
    assert pasted.expression_from_truth < copy.expression_from_truth


def test_a_method_returns_every_frame_in_its_size(
    clips: list[Clip], readers: Readers, gallery: Any
) -> None:
    of = judged(clips[0], cast(), gallery, readers)
    with pytest.raises(FacekitError, match="2 frames of a clip of 3"):
        score(list(clips[0].frames[:2]), of, readers)
    with pytest.raises(FacekitError, match="as large as the target's"):
        score([frame[:90] for frame in clips[0].frames], of, readers)
    with pytest.raises(FacekitError, match="float64"):
        score([frame / 255 for frame in clips[0].frames], of, readers)


def photo_of(clip: Clip, i: int, shift: float = 0) -> Photo:
    return Photo(Path(f"{i}.png"), "", clip.points[i] + shift, clip.landmarks[i] + shift)


def test_the_best_photo_is_the_one_of_the_same_moment(clips: list[Clip]) -> None:
    """Where the photos are the very frames, moved; each person's own shape is taken out."""
    clip = clips[0]
    photos = [photo_of(clip, i, shift=7) for i in (2, 0, 1)]
    chosen = best_photos(clip, photos, photos)
    assert [photo.path.stem for photo in chosen] == ["0", "1", "2"]


def test_bending_to_the_same_landmarks_changes_nothing(clips: list[Clip]) -> None:
    clip = clips[0]
    frame, points = clip.frames[0], clip.landmarks[0]
    assert np.abs(bend(frame, points, frame, points, np.ones(3)).astype(int) - frame).max() <= 1
    moved = np.roll(frame, 9, 1)
    bent = bend(moved, points + np.array([9, 0]), frame, points, np.ones(3))
    assert np.abs(bent.astype(int) - frame).max() <= 1
    # What the landmarks enclose comes from the picture, the rest from the frame.
    black = bend(np.zeros_like(frame), points, frame, points, np.ones(3))
    x, y = points[30].astype(int)
    assert black[y, x].max() == 0 and np.array_equal(black[:5], frame[:5])
    away = bend(frame, points, frame, points + 1000, np.ones(3))
    assert np.array_equal(away, frame)


def one(value: float) -> Score:
    return Score(*[value] * 9)


def test_figures_compare_with_the_best_floor() -> None:
    scores = {
        "own": [one(10), one(12), one(14)],
        "copy": [one(6), one(6), one(6)],
        "photo": [one(8), one(8), one(8)],
        "truth": [one(6), one(6), one(6)],
    }
    rows = {row.name: row for row in figures(scores)}
    assert rows["swap.psnr"].value == 12 and rows["swap.psnr"].floor == 8
    assert rows["swap.pose_deg"].floor == 6
    assert rows["swap.psnr_over_floor"].value == 4
    assert rows["swap.expression_ratio"].value == 1.5
    assert rows["swap.expression_over_truth"].value == rows["swap.flicker_ratio"].value == 2
    for row in rows.values():
        assert row.low is not None and row.high is not None
        assert row.low <= row.value <= row.high, row
    assert rows["swap.psnr"].low == 10 and rows["swap.psnr"].high == 14
    assert rows["swap.psnr.copy"].low == rows["swap.psnr.copy"].high == 6


# --- what is refused --------------------------------------------------------------------------


def said(*arguments: str) -> str:
    result = CliRunner().invoke(evaluate, [*arguments, "--device", "cpu", "--threads", "1"])
    assert result.exit_code != 0
    return f"{result.output} {result.exception}"


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    assert "give one of --export, --frames and --runs" in said("swap_truth")
    both = said("swap_truth", "--frames", str(tmp_path), "--runs", str(tmp_path))
    assert "give one of" in both
    assert "--data is missing" in said("swap_truth", "--frames", str(tmp_path))
    assert "--frames: is of a benchmark" in said("gan", "--frames", str(tmp_path))
    assert "--clips: is for swaps and talking heads" in said("gan", "--clips", "2")
    assert "know nobody yet" in said("face_swap")


def test_a_run_is_scored_on_its_own_people(exported: Path, tmp_path: Path) -> None:
    fabric = setup("cpu", threads=1)
    run: Any = SimpleNamespace(folder=tmp_path, facts={"data_hash": "other", "people": []})
    with pytest.raises(FacekitError, match="--data is missing"):
        _swap_evaluate._permit(run, None, (), fabric)
    people = exported / f"pair-{PAIR}/people"
    with pytest.raises(FacekitError, match=r"not what .* learned from"):
        _swap_evaluate._permit(run, people, (), fabric)
    with pytest.raises(FacekitError, match="knows 0 of the folder's people"):
        _swap_evaluate._learned(run, actors_of(people))
    permit: Any = SimpleNamespace(items=None)
    with pytest.raises(FacekitError, match="not the two of pair 5"):
        _swap_evaluate._actors_of_pair(people, 5, permit)


def test_real_people_are_judged_without_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two people of two photos each; the stand-in for a swap shows the source's first photo."""
    random = np.random.default_rng(0)
    faces = {name: random.integers(0, 256, (256, 256, 3), dtype=np.uint8) for name in "ab"}
    items = [Item(path=f"{i}.png", sha256="", subject=name) for i, name in enumerate("aabb")]
    images = np.stack([faces[item.subject] for item in items])
    found = Crops(images, np.zeros((4, 2, 3)), items)
    asked = []

    def swapped(run: Any, frames: list[Frame], fabric: Any, **given: Any) -> Any:
        asked.append((given["source"], given["target"], given["still"]))
        return iter([replace(frames[0], pixels=faces[given["source"]])])

    def read(pictures: Any, points: Any) -> Reading:
        mean = np.stack([picture.reshape(-1, 3)[:4].ravel() / 255 - 0.5 for picture in pictures])
        vectors = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        ones = np.ones((len(pictures), 1), np.float32)
        return Reading(ones * pictures[0][0, 0, 0], ones * 0.5, vectors.astype(np.float32))

    monkeypatch.setattr(_swap_evaluate, "load_crops", lambda *_, **__: found)
    monkeypatch.setattr(_swap_evaluate, "generate", swapped)
    scopes: list[str] = []
    permit: Any = SimpleNamespace(items=tuple(items), check=scopes.append)
    run: Any = SimpleNamespace(folder=tmp_path, facts={"people": ["a", "b", "c"]})
    stand_in: Any = SimpleNamespace(read=read)
    fabric = setup("cpu", threads=1)
    measured = _swap_evaluate._of_real(run, tmp_path, permit, stand_in, fabric)
    rows = {row.name: row.value for row in measured.figures}
    assert scopes == ["generate"]
    assert asked == [("b", "a", True)] * 2 + [("a", "b", True)] * 2
    assert rows["swap.real.strength"] == 1
    assert rows["swap.real.similarity_to_source"] == pytest.approx(1, abs=1e-5)
    assert rows["swap.real.similarity_to_target"] < 0.9
    assert rows["swap.real.expression_from_target"] == 0
    assert all(name.startswith("swap.real.") for name in rows)
    run.facts["people"] = ["a", "c"]
    with pytest.raises(FacekitError, match="faces of 1 of its people"):
        _swap_evaluate._of_real(run, tmp_path, permit, stand_in, fabric)
