"""Every generator plug-in obeys the protocol; the face swap from the command line, and its gate."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from click.testing import CliRunner
from lightning_fabric import Fabric

from facekit import generators
from facekit.cli import cli
from facekit.commands import generator_dataset
from facekit.conversion.images import to_images, to_pixels
from facekit.core import checkpoint, config, device
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.datasets.manifest import load_folder
from facekit.generators import face_swap
from facekit.generators._gate import closed_file
from facekit.media.images import read_image, write_image
from facekit.provenance.manifest import verify
from facekit.studio.clip import render_folder
from facekit.types import Frame
from facekit.watermark import Kind

PLUGINS = generators.names()
CONFIGS = sorted((config.folder() / "generators").glob("*.yaml"))
TINY = [
    *("size=32", "width=4", "code=8", "steps=12", "batch=4", "checkpoint_every=3", "warm_up=2"),
    "pretrained=''",
    "least_photos=2",
]
SET = [part for setting in TINY for part in ("--set", setting)]


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certified studio folder of two people."""
    folder = tmp_path_factory.mktemp("studio") / "people"
    render_folder(folder, people=2, frames=3, size=160, seed=0)
    return folder


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    return device.setup("cpu", threads=1)


@pytest.fixture(scope="session")
def trained(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained through the command line, without a break."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    result = CliRunner().invoke(cli, train_arguments(people, out), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return out


def train_arguments(data: Path, out: Path) -> list[str]:
    return [
        *("-q", "generator", "train", "generators/face_swap", "--data", str(data)),
        *("--out", str(out), "--seed", "3", "--threads", "1", "--device", "cpu", *SET),
    ]


def train_command(data: Path, out: Path) -> list[str]:
    main = "from facekit.cli import main; main()"
    return [sys.executable, "-c", main, *train_arguments(data, out)]


def drawn_faces(people: int, each: int, size: int) -> tuple[torch.Tensor, list[list[int]]]:
    """Ovals with a mouth that opens, and their masks: uint8 (N, H, H, 4), quick stand-ins."""
    pictures = []
    for person in range(people):
        for k in range(each):
            picture = np.full((size, size, 3), 40 + 60 * person, np.uint8)
            skin = (200 - 50 * person, 150, 110 + 40 * person)
            centre = (size // 2, size // 2)
            cv2.ellipse(picture, centre, (size // 3, size * 2 // 5), 0, 0, 360, skin, -1)
            mouth = (size // 6, 1 + k * size // 30)
            cv2.ellipse(picture, (size // 2, size * 7 // 10), mouth, 0, 0, 360, (120, 30, 40), -1)
            mask = np.zeros((size, size), np.uint8)
            cv2.ellipse(mask, centre, (size // 3, size * 2 // 5), 0, 0, 360, 255, -1)
            pictures.append(np.dstack([picture, mask]))
    rows = [list(range(p * each, (p + 1) * each)) for p in range(people)]
    return torch.from_numpy(np.stack(pictures)), rows


def tiny(**changes: Any) -> face_swap.Config:
    values = {"size": 32, "width": 4, "code": 8, "steps": 12, "batch": 4, "checkpoint_every": 3}
    return face_swap.Config(**{**values, "warm_up": 2, **changes})


def a_run(folder: Path, settings: face_swap.Config) -> Run:
    return Run.start(
        folder,
        plugin="face_swap",
        config=settings,
        seed=0,
        data_hash="drawn",
        threads=1,
        precision="32-true",
    )


# Every plug-in --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_has_what_the_protocol_asks_for(name: str) -> None:
    module = generators.load(name)
    assert isinstance(module.KIND, Kind)
    assert module.KIND in (Kind.GENERATED, Kind.COMPOSITE)
    assert issubclass(module.Config, config.Config)
    assert callable(module.train)
    # It changes pictures, makes some of nothing, moves photos, or is there to be watched.
    uses = ("generate", "sample", "animator", "film")
    assert any(callable(getattr(module, use, None)) for use in uses)
    assert module.__doc__


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_bundled_config_is_valid(path: Path) -> None:
    name, settings = generators.read_config(path)
    assert name in PLUGINS
    assert isinstance(settings, generators.load(name).Config)


def test_a_config_without_or_with_an_unknown_generator_says_what_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("steps: 3\n")
    with pytest.raises(FacekitError, match="'generator' is missing"):
        generators.read_config(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("generator: faceswap\n")
    with pytest.raises(FacekitError, match="did you mean 'face_swap'"):
        generators.read_config(tmp_path / "b.yaml")
    with pytest.raises(FacekitError, match="did you mean 'steps'"):
        generators.read_config("generators/face_swap", ["step=3"])


# The face swap's network and loop -------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_a_tiny_run_learns_stays_finite_and_logs(
    tmp_path: Path, fabric: Fabric, weight: float
) -> None:
    settings = tiny(steps=80, learning_rate=3e-3, width=8, code=16, adversarial_weight=weight)
    run = a_run(tmp_path / "run", settings)
    images, rows = drawn_faces(2, 4, 64)
    strips = {}
    face_swap.fit(settings, images, rows, run, fabric, show=lambda s, p: strips.update({s: p}))
    losses = [row["loss"] for row in run.metrics()]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.85 * losses[0]
    state = run.latest()
    assert state is not None
    assert all(torch.isfinite(value).all() for value in state["net"].values())
    assert strips[80].dtype == np.uint8
    assert strips[80].shape == (2 * 64, 8 * 64, 3)


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    net = face_swap.FaceSwap(3, 32, 4, 8)
    net(torch.randn(6, 3, 32, 32), range(3)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_each_part_of_a_batch_is_drawn_by_its_own_decoder() -> None:
    torch.manual_seed(0)
    net = face_swap.FaceSwap(2, 32, 4, 8).eval()
    images = torch.randn(4, 3, 32, 32)
    both = net(images, [1, 0])
    assert torch.allclose(both[:2], net(images[:2], [1]), atol=1e-5)
    assert torch.allclose(both[2:], net(images[2:], [0]), atol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_a_resumed_run_equals_an_unbroken_one(
    tmp_path: Path, fabric: Fabric, weight: float
) -> None:
    settings = tiny(adversarial_weight=weight, adversarial_from=0.3)
    images, rows = drawn_faces(3, 3, 64)
    whole, broken = (a_run(tmp_path / name, settings) for name in ("whole", "broken"))
    face_swap.fit(settings, images, rows, whole, fabric)

    class Stopped(Exception):
        pass

    def stop(step: int, strip: np.ndarray) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        face_swap.fit(
            settings.model_copy(update={"strip_every": 7}), images, rows, broken, fabric, show=stop
        )
    state = broken.latest()
    assert state is not None
    assert state["step"] == 6
    face_swap.fit(settings, images, rows, broken, fabric)
    same_state(whole, broken)


@pytest.mark.parametrize("pretrained", ["some", ""])
def test_a_pretrained_encoder_of_speed_0_stays_as_it_is_and_another_learns(
    pretrained: str, tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(face_swap, "start_from", lambda net, name: None)
    images, rows = drawn_faces(2, 3, 64)
    runs = []
    for steps in (1, 5):
        settings = tiny(steps=steps, encoder_speed=0.0, pretrained=pretrained)
        runs.append(a_run(tmp_path / f"{steps}", settings))
        face_swap.fit(settings, images, rows, runs[-1], fabric)
    one, five = (run.latest()["net"] for run in runs)
    for name, weight in one.items():
        stays = bool(pretrained) and name.startswith("encoder.")
        assert torch.equal(weight, five[name]) == stays, name


def test_a_drawn_mask_comes_to_cover_the_face(tmp_path: Path, fabric: Fabric) -> None:
    settings = tiny(steps=150, learning_rate=3e-3, width=8, code=16, warp=0.0, mask_weight=2.0)
    run = a_run(tmp_path / "run", settings)
    images, rows = drawn_faces(2, 4, 64)
    face_swap.fit(settings, images, rows, run, fabric)
    run.note(people=["a", "b"])
    net, _ = face_swap.load(run, fabric)
    planes = torch.nn.functional.avg_pool2d(to_images(images), 2)
    faces = planes[:, :3]
    grey = face_swap.to_grey(faces, face_swap.mean_colour(faces))
    with torch.no_grad():
        drawn = face_swap.shares(net(grey, [0, 1]))
    assert (drawn - face_swap.shares(planes)).abs().mean() < 0.1  # of an empty one: 0.41


def test_a_mask_is_laid_in_a_fiftieth_of_its_side_wider() -> None:
    mask = torch.zeros(1, 1, 96, 96)
    mask[..., 30:60, 40:50] = 1
    grown = face_swap.grown(mask)
    assert grown[..., 28:62, 38:52].all() and grown.sum() == 34 * 14
    assert face_swap.grown(torch.zeros(1, 1, 32, 32)).sum() == 0


def test_holes_in_a_mask_are_filled_and_its_outline_stays() -> None:
    mask = np.zeros((96, 96), np.uint8)
    cv2.ellipse(mask, (48, 50), (30, 40), 0, 0, 360, 255, -1)
    whole = mask.copy()
    cv2.circle(mask, (36, 40), 9, 0, -1)  # what glasses leave
    cv2.line(mask, (0, 40), (36, 40), 0, 2)  # and their arm
    filled = face_swap._filled(mask)
    assert (filled != whole).mean() < 0.01
    assert not face_swap._filled(np.zeros((96, 96), np.uint8)).any()


def test_features_of_one_size_serve_every_size() -> None:
    torch.manual_seed(0)
    pre = face_swap.FaceSwap(1, 96, 4, 8)
    for size in (32, 64, 96, 128):
        net = face_swap.FaceSwap(2, size, 4, 8)
        state = {
            key: pre.state_dict()[key.replace("decoders.1", "decoders.0")]
            for key in net.state_dict()
        }
        net.load_state_dict(state)
        assert net(torch.rand(2, 3, size, size), [0, 1]).shape == (2, 4, size, size)


def test_too_few_photos_of_somebody_are_refused(people: Path, tmp_path: Path) -> None:
    settings = [part for s in TINY if "least" not in s for part in ("--set", s)]
    command = ["generator", "train", "generators/face_swap", "--data", str(people), *settings]
    with pytest.raises(FacekitError, match=r"'person-0000' in 3 photos; .* at least 20 of each"):
        CliRunner().invoke(cli, [*command, "--out", str(tmp_path / "run")], catch_exceptions=False)


def test_weights_spoilt_by_a_loss_that_is_no_number_are_not_kept(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny()
    run = a_run(tmp_path / "run", settings)
    images, rows = drawn_faces(2, 3, 64)
    calls = []

    def dissimilar(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        found = ssim(first, second)
        return found * float("nan") if len(calls) >= 5 else found

    ssim = face_swap.coarse_ssim
    monkeypatch.setattr(face_swap, "coarse_ssim", dissimilar)
    # Step 6 is one to save at, not one of every ten to log.
    with pytest.raises(FacekitError, match="the loss is nan at step 6; the checkpoint before it"):
        face_swap.fit(settings, images, rows, run, fabric)
    state = run.latest()
    assert state is not None and state["step"] == 3
    assert all(torch.isfinite(value).all() for value in state["net"].values())


def test_weights_spoilt_by_a_gradient_that_is_no_number_are_not_kept(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path / "run", tiny())
    images, rows = drawn_faces(2, 3, 64)
    calls = []

    def spoil(net: torch.nn.Module, *_: Any, **__: Any) -> None:
        calls.append(1)
        if len(calls) == 6:
            next(net.parameters()).grad.fill_(float("nan"))

    monkeypatch.setattr(fabric, "clip_gradients", spoil)
    with pytest.raises(FacekitError, match="weights are no numbers after step 6"):
        face_swap.fit(tiny(), images, rows, run, fabric)
    state = run.latest()
    assert state is not None and state["step"] == 3


def same_state(first: Run, second: Run) -> None:
    a, b = (sorted(run.folder.glob("step-*.safetensors"))[-1] for run in (first, second))
    assert a.name == b.name
    assert a.read_bytes() == b.read_bytes()
    for one, other in zip(first.metrics(), second.metrics(), strict=True):
        assert (one["step"], one["loss"]) == (other["step"], other["loss"])


def test_views_are_even_without_a_warp_and_uneven_with_one() -> None:
    torch.manual_seed(0)
    batch = torch.rand(4, 3, 64, 64) * 2 - 1
    inputs, targets = face_swap.distort(batch, 32, 0.0)
    assert torch.equal(inputs, targets)
    inputs, targets = face_swap.distort(batch, 32, 0.05)
    assert inputs.shape == targets.shape == (4, 3, 32, 32)
    assert not torch.allclose(inputs, targets, atol=0.05)
    assert inputs.abs().max() <= 1


def test_grey_and_back_is_the_identity_and_hides_skin_tone_and_exposure() -> None:
    images, _ = drawn_faces(2, 2, 64)
    faces = to_images(images)[:, :3]
    colour = face_swap.mean_colour(faces)
    grey = face_swap.to_grey(faces, colour)
    assert torch.allclose(face_swap.from_grey(grey, colour), faces, atol=1e-5)
    assert torch.allclose(face_swap.mean_colour(grey), torch.tensor(1.0), atol=0.51)
    darker = (faces + 1) * 0.5 - 1
    assert torch.allclose(face_swap.to_grey(darker, face_swap.mean_colour(darker)), grey, atol=1e-4)


def test_ssim_is_one_for_equal_images_and_agrees_with_scikit_image_on_flat_windows() -> None:
    torch.manual_seed(0)
    a = torch.rand(1, 1, 8, 8) * 2 - 1
    b = (a + 0.3 * torch.randn_like(a)).clamp(-1, 1)
    assert face_swap.coarse_ssim(a, a).item() == pytest.approx(1, abs=1e-5)
    # One window of 8 × 8, worked out with numpy.
    x, y = a.numpy().ravel(), b.numpy().ravel()
    c1, c2 = 0.02**2, 0.06**2
    covariance = np.cov(x, y, bias=True)
    expected = (2 * x.mean() * y.mean() + c1) * (2 * covariance[0, 1] + c2)
    expected /= (x.mean() ** 2 + y.mean() ** 2 + c1) * (covariance[0, 0] + covariance[1, 1] + c2)
    assert face_swap.coarse_ssim(a, b).item() == pytest.approx(expected, abs=1e-4)


def test_pixels_survive_the_way_to_a_tensor_and_back() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    assert np.array_equal(to_pixels(to_images(torch.from_numpy(every))), every)


# Conversion -----------------------------------------------------------------------------------


def test_generate_changes_the_face_and_passes_on_frames_without_one(
    trained: Path, people: Path, fabric: Fabric
) -> None:
    picture = read_image(people / "person-0000" / "0000.png")
    empty = np.full_like(picture, 90)
    frames = [Frame(p, i / 25, i) for i, p in enumerate([picture, empty, picture])]
    results = list(face_swap.generate(Run(trained), frames, fabric, source="person-0001"))
    assert [(f.time, f.index) for f in results] == [(f.time, f.index) for f in frames]
    assert np.array_equal(results[1].pixels, empty)
    assert not np.array_equal(results[0].pixels, picture)
    assert np.array_equal(results[0].pixels[0], picture[0])
    assert np.array_equal(frames[0].pixels, read_image(people / "person-0000" / "0000.png"))


def test_unknown_and_same_people_are_refused(trained: Path, fabric: Fabric) -> None:
    with pytest.raises(FacekitError, match="did you mean 'person-0001'"):
        face_swap.generate(Run(trained), [], fabric, source="person-001")
    with pytest.raises(FacekitError, match="name two people"):
        face_swap.generate(Run(trained), [], fabric, source="person-0001", target="person-0001")


# The gate -------------------------------------------------------------------------------------


def command(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and all that was said by ``facekit generator …``, run in this process."""
    result = CliRunner().invoke(cli, ["-q", "generator", *map(str, arguments)])
    said = result.output + (str(result.exception) if result.exception else "")
    return result.exit_code, said


def test_photos_of_real_people_are_refused_as_data(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    write_image(photos / "a.png", skimage.data.astronaut())
    code, said = command(
        "train", "generators/face_swap", "--data", photos, "--out", tmp_path / "run"
    )
    assert code == 1
    assert "facekit studio render" in said


def test_a_copied_certificate_opens_no_gate(people: Path, tmp_path: Path) -> None:
    fake = tmp_path / "fake"
    shutil.copytree(people, fake)
    write_image(fake / "person-0000" / "0000.png", skimage.data.astronaut()[:160, 150:310])
    code, said = command("train", "generators/face_swap", "--data", fake, "--out", tmp_path / "r")
    assert code == 1
    assert "people who don't exist" in said and "consent" in said
    assert not list((tmp_path / "r").glob("step-*"))


def test_a_real_photo_is_refused_as_input(trained: Path, people: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    write_image(photo, skimage.data.astronaut())
    out = tmp_path / "swap.png"
    code, said = command("run", trained, "--input", photo, "--out", out, "--source", "person-0001")
    assert code == 1 and "people who don't exist" in said
    shutil.copy(people / "certificate.json", tmp_path)
    shutil.copy(people / "manifest.jsonl", tmp_path)
    code, said = command("run", trained, "--input", photo, "--out", out, "--source", "person-0001")
    assert code == 1 and "people who don't exist" in said
    assert not out.exists()


def test_streams_pipes_devices_folders_and_growing_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, word in [
        ("rtsp://camera/1", "stream"),
        ("/dev/null", "device"),
        (str(tmp_path / "pipe"), "pipe"),
        (str(tmp_path), "folder"),
        (str(tmp_path / "absent.mp4"), "not readable"),
    ]:
        with pytest.raises(FacekitError, match=word):
            closed_file(name)
    growing = tmp_path / "growing.mp4"
    growing.write_bytes(b"0")
    writer = subprocess.Popen(
        ["sh", "-c", 'for i in 1 2 3 4 5 6 7 8; do printf x >> "$0"; sleep 0.2; done', str(growing)]
    )
    try:
        with pytest.raises(FacekitError, match="still growing"):
            closed_file(str(growing))
    finally:
        writer.wait()


def test_a_run_without_consent_or_checkpoint_is_refused(tmp_path: Path, fabric: Fabric) -> None:
    run = a_run(tmp_path / "run", tiny())
    with pytest.raises(FacekitError, match="certificate"):
        generators.open_run(run.folder)
    run.note(consent="studio-1", people=["a", "b"])
    with pytest.raises(FacekitError, match="no checkpoint"):
        face_swap.load(run, fabric)
    run.save(1, {"net": {"other": torch.zeros(1)}})
    with pytest.raises(FacekitError, match="another version"):
        face_swap.load(run, fabric)


def test_one_person_alone_is_refused(tmp_path: Path) -> None:
    render_folder(tmp_path / "one", people=1, frames=2, size=160, seed=0)
    code, said = command(
        "train", "generators/face_swap", "--data", tmp_path / "one", "--out", tmp_path / "r", *SET
    )
    assert code == 1 and "shows 1 people" in said


# The command line -----------------------------------------------------------------------------


def test_list_names_generators_and_configs() -> None:
    code, said = command("list", "--json")
    assert code == 0
    facts = json.loads(said)
    assert facts["generators"] == PLUGINS
    assert "generators/face_swap_quick" in facts["configs"]


def test_training_notes_consent_and_people_and_writes_marked_strips(
    trained: Path, people: Path
) -> None:
    facts = Run(trained).facts
    assert facts["consent"] == json.loads((people / "certificate.json").read_text())["id"]
    assert facts["people"] == ["person-0000", "person-0001"]
    assert [path.name for path in (trained / "strips").iterdir()] == ["step-00000012.png"]


def test_a_picture_is_swapped_marked_and_signed(
    trained: Path, people: Path, tmp_path: Path
) -> None:
    photo, out = people / "person-0000" / "0001.png", tmp_path / "swap.png"
    code, said = command(
        *("run", trained, "--input", photo, "--out", out, "--json"),
        *("--source", "person-0001", "--target", "person-0000"),
    )
    assert code == 0, said
    facts = json.loads(said)
    assert facts["mark"]["present"] and facts["mark"]["kind"] == "composite"
    assert read_image(out).shape == read_image(photo).shape
    code, said = command(
        "run", trained, "--input", photo, "--out", tmp_path / "a.mp4", "--source", "person-0001"
    )
    assert code == 1 and ".png" in said


@pytest.mark.slow
def test_killed_at_a_random_step_and_resumed_the_weights_are_the_same_to_the_bit(
    trained: Path, people: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    process = subprocess.Popen(train_command(people, out), stdout=subprocess.DEVNULL)
    # After a checkpoint drawn at random: steps 3, 6 and 9 are written before the end at 12.
    wanted = out / f"step-{random.choice((3, 6)):08d}.safetensors"
    deadline = time.monotonic() + 120
    while not wanted.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    result = CliRunner().invoke(cli, train_arguments(people, out), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    same_state(Run(trained), Run(out))
    assert checkpoint.load(out / "step-00000012.safetensors")["step"] == 12


# A data set of swaps --------------------------------------------------------------------------


def make_dataset(trained: Path, data: Path, out: Path, *more: str) -> Any:
    words = ["-q", "generator", "run", str(trained), "--input", str(data), "--dataset"]
    return CliRunner().invoke(cli, [*words, "--out", str(out), "--threads", "1", *more])


def test_a_folder_becomes_a_data_set_of_swaps_beside_their_originals(
    trained: Path, people: Path, tmp_path: Path
) -> None:
    out = tmp_path / "swaps"
    result = make_dataset(trained, people, out, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"path": str(out), "swaps": 6, "originals": 6}
    items = load_folder(out, verify=True)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["manifest.jsonl", *(item.path for item in items)]
    )
    photos = {item.sha256: item for item in load_folder(people)}
    for original, swap in zip(items[::2], items[1::2], strict=True):
        assert (original.label, swap.label) == (0, 1)
        assert original.subject == swap.subject and original.source == swap.source
        assert original.subject == photos[original.sha256].subject
        assert {original.subject, swap.facts["donor"]} == {"person-0000", "person-0001"}
        assert swap.generator == "face_swap" and original.generator == "studio"
        assert swap.consent == original.consent != ""
        claims = verify(out / swap.path).claims
        assert claims["kind"] == "composite" and claims["facts"]["origin"] == "studio"
        before, after = (read_image(out / item.path) for item in (original, swap))
        changed = np.abs(before.astype(int) - after).max(-1) > 12
        assert 0.002 < changed.mean() < 0.5

    again = make_dataset(trained, people, out)
    assert "holds a data set already" in str(again.exception)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_people_are_shown_as_their_partners(count: int) -> None:
    people = [f"p{i}" for i in range(count)]
    partners = generator_dataset._partners(people)
    assert sorted(partners) == people and all(a != b for a, b in partners.items())
    assert [partners[p] for p in people[:2]] == ["p1", "p0"]
    assert generator_dataset._partners(["alone"]) == {}


def test_a_data_set_of_other_people_or_of_one_file_is_refused(
    trained: Path, people: Path, tmp_path: Path
) -> None:
    out = tmp_path / "swaps"
    photo = people / "person-0000" / "0000.png"
    said = str(make_dataset(trained, photo, out).exception)
    assert "give the folder that the run learned from" in said
    said = str(make_dataset(trained, people, out, "--source", "person-0001").exception)
    assert "leave --source" in said
    alone = tmp_path / "alone"
    render_folder(alone, people=1, frames=2, size=128, seed=5)
    said = str(make_dataset(trained, alone, out).exception)
    assert "fewer than two of the people" in said and not (out / "manifest.jsonl").exists()
