"""The GAN from noise: its networks, what it learns from, and what leaves it."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from detectors.models import discriminator as judge
from facekit import generators, watermark
from facekit.cli import cli
from facekit.commands import generator_sample
from facekit.core import checkpoint, config, device, files, tensorboard
from facekit.core.errors import FacekitError
from facekit.core.run import Run
from facekit.datasets.layouts import manifest as layout
from facekit.generators import gan
from facekit.media.decode import probe
from facekit.media.images import read_image
from facekit.networks.discriminator import Discriminator, _folded
from facekit.networks.modulated import Mapping, ModulatedConv
from facekit.provenance import manifest
from facekit.studio.clip import render_folder

TINY = [
    *("size=32", "width=4", "most=8", "latent=6", "style=8", "judge_width=4", "game.steps=6"),
    *("game.batch=4", "game.look_every=3", "game.look_samples=8", "game.checkpoint_every=3"),
    *("game.strip_every=3", "game.strip_samples=9", "game.alone_discriminator=1"),
    *("game.alone_generator=1", "game.referee=false", "game.penalty_every=2"),
]


def settings(*more: str) -> gan.Config:
    _, found = generators.read_config("generators/gan_64", [*TINY, *more])
    assert isinstance(found, gan.Config)
    return found


def ovals(count: int, size: int = 32) -> Tensor:
    """Stand-ins for faces: uint8 (count, size, size, 3)."""
    random = torch.Generator().manual_seed(0)
    middle = 0.4 + 0.2 * torch.rand(count, 2, 1, 1, generator=random)
    inside, outside = torch.rand(2, count, 1, 1, 3, generator=random)
    unit = (torch.arange(size) + 0.5) / size
    y, x = unit[None, :, None], unit[None, None, :]
    within = ((x - middle[:, 0]) ** 2 + (y - middle[:, 1]) ** 2 < 0.1)[..., None]
    return (255 * torch.where(within, inside, outside)).byte()


def some_faces(*_: Any) -> tuple[Tensor, list[str]]:
    return ovals(240), [f"{i // 2:03d}" for i in range(240)]


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    return device.setup("cpu", threads=1)


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certified studio folder of two people."""
    folder = tmp_path_factory.mktemp("studio") / "people"
    render_folder(folder, people=2, frames=2, size=128, seed=0)
    return folder


def facekit(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["-q", "generator", *map(str, arguments)])
    return result.exit_code, result.output + (str(result.exception) if result.exception else "")


@pytest.fixture(scope="session")
def trained(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run through the command line, on stand-ins: 240 faces would take minutes to render."""
    out = tmp_path_factory.mktemp("runs") / "gan"
    changes = [part for change in TINY for part in ("--set", change)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gan, "_faces", some_faces)
        code, said = facekit(
            *("train", "generators/gan_64", "--data", people, "--out", out, "--threads", "1"),
            *("--device", "cpu", *changes),
        )
    assert code == 0, said
    assert "trained 6 steps" in said and "24 images" in said
    return out


@pytest.fixture(scope="session")
def shipped(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights as bundled ones are, of the trained run."""
    folder = tmp_path_factory.mktemp("weights")
    path = gan.bundle(Run(trained), folder, "gan")
    card: dict[str, Any] = dict.fromkeys(("command", "data", "data_hash", "licence"), "x")
    card |= {"name": "gan", "file": path.name, "sha256": files.sha256(path), "seed": 7}
    card |= {"minutes": 1, "figures": {}, "config": settings().model_dump(mode="json")}
    card |= {"cast": {"people": 30, "moments": 2, "seed": 7}}
    files.write_json(path.with_suffix(".json"), card)
    return folder


# The networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("demodulate", [True, False])
def test_scaled_activations_are_the_papers_scaled_weights(demodulate: bool) -> None:
    """Each sample is convolved with weights of its own, worked out as the paper writes them."""
    torch.manual_seed(0)
    layer = ModulatedConv(5, 7, 4, demodulate=demodulate)
    torch.nn.init.normal_(layer.bias)
    x, style = torch.randn(3, 5, 6, 6), torch.randn(3, 4)
    drawn = layer(x, style)
    for one, y, s in zip(x, drawn, layer.affine(style), strict=True):
        weight = layer.weight * s[None, :, None, None]
        if demodulate:
            weight = weight / weight.square().sum((1, 2, 3), keepdim=True).add(1e-8).sqrt()
        expected = F.conv2d(one[None], weight, layer.bias, padding=1)[0]
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


def test_the_mapping_sees_only_the_direction_of_noise() -> None:
    torch.manual_seed(0)
    mapping = Mapping(6, 8)
    noise = torch.randn(3, 6)
    torch.testing.assert_close(mapping(noise), mapping(7 * noise), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_images_of_every_size_are_about_in_range_and_every_weight_learns(size: int) -> None:
    torch.manual_seed(0)
    net = gan.Generator(size, 4, 8, latent=6, style=8)
    assert net.layers == 2 * math.log2(size) - 5
    images = net(torch.randn(2, 6))
    assert images.shape == (2, 3, size, size) and 0.1 < images.std() < 1
    assert images.dtype == torch.float32 and (images[0] != images[1]).any()
    images.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    with pytest.raises(ValueError, match="power of two"):
        gan.Generator(48, 4, 8)


def test_squares_of_pixels_are_folded_as_torch_does_and_differentiated_twice() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 32, 32)
    folded = _folded(images, 2)
    assert sorted(folded[1, :, 3, 5].tolist()) == sorted(
        images[1, :, 6:8, 10:12].flatten().tolist()
    )
    torch.testing.assert_close(folded, F.pixel_unshuffle(images, 2))
    net = Discriminator(32, 4, patch=2)
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(net(images).sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert sum(bool(p.grad is not None) for p in net.parameters()) >= 10
    with pytest.raises(ValueError, match="at least 16"):
        Discriminator(8, 4, patch=2)


def test_styles_are_mixed_in_training_only() -> None:
    torch.manual_seed(0)
    net = gan.Generator(32, 4, 8, latent=6, style=8, mixing=1.0)
    noise = torch.randn(4, 6)
    seen: list[Tensor] = []
    draw = net.draw
    net.draw = lambda styles: (seen.append(styles), draw(styles))[1]  # type: ignore[assignment]
    net(noise)
    net.eval()
    assert torch.equal(net(noise), net(noise))
    mixed, plain = seen[0], seen[1]
    assert torch.equal(mixed[:, 0], plain[:, 0]), "the coarsest style is the sample's own"
    assert torch.equal(mixed[:, -1], plain.roll(1, 0)[:, -1]), "the finest is another's"


def test_the_bundled_weights_will_be_small() -> None:
    _, found = generators.read_config("generators/gan_64")
    assert isinstance(found, gan.Config)
    numbers = sum(p.numel() for net in gan.networks(found) for p in net.parameters())
    assert 2 * numbers < 6e6


# Training -------------------------------------------------------------------------------------


def test_a_run_keeps_metrics_and_marked_sheets(trained: Path) -> None:
    rows = Run(trained).metrics()
    assert [row["step"] for row in rows] == [3, 6]
    assert {"images", "images_per_second", "loss_d", "loss_g", "r1"} <= rows[0].keys()
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    strips = sorted((trained / "strips").iterdir())
    assert [path.name for path in strips] == ["step-00000003.png", "step-00000006.png"]
    assert read_image(strips[0]).shape == (8 * 32, 8 * 8 * 32, 3), "one full row, enlarged"
    facts = json.loads((trained / "run.json").read_text())
    assert facts["faces"] == 240 and facts["people"] == 120


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, fabric: Fabric) -> None:
    def a_run(name: str) -> Run:
        return Run.start(
            *(tmp_path / name,),
            plugin="gan",
            config=settings(),
            seed=3,
            data_hash="",
            threads=1,
            precision="32-true",
        )

    class Stopped(Exception):
        pass

    def stop(step: int, pixels: np.ndarray) -> None:
        if step == 3:
            raise Stopped

    pixels, subjects = some_faces()
    whole, broken = a_run("whole"), a_run("broken")
    gan._play(settings(), pixels, subjects, whole, fabric, None)
    with pytest.raises(Stopped):
        gan._play(settings(), pixels, subjects, broken, fabric, stop)
    gan._play(settings(), pixels, subjects, broken, fabric, None)
    first, second = (run.checkpoints()[-1].read_bytes() for run in (whole, broken))
    assert first == second


def test_three_photos_are_too_few(people: Path, tmp_path: Path) -> None:
    code, said = facekit(
        "train", "generators/gan_64", "--data", people, "--out", tmp_path / "run", "--threads", "1"
    )
    assert code == 1 and "a GAN needs at least 100" in said and str(people) in said
    assert not (tmp_path / "run").exists()


def test_photos_without_consent_and_no_photos_are_refused(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    code, said = facekit("train", "generators/gan_64", "--data", photos, "--out", tmp_path / "r")
    assert code == 1 and "consent" in said
    code, said = facekit("train", "generators/gan_64", "--out", tmp_path / "r")
    assert code == 1 and "--data" in said
    assert not (tmp_path / "r").exists()


def test_small_faces_are_told_of_and_faceless_pictures_left_out(
    people: Path, fabric: Fabric, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Pictures of two sizes, one of which shows nobody."""
    from facekit.datasets.manifest import load_folder
    from facekit.media.images import write_image
    from facekit.types import Item

    write_image(tmp_path / "wall.png", np.full((90, 120, 3), 90, np.uint8))
    write_image(tmp_path / "face.png", read_image(people / load_folder(people)[0].path))
    items = [
        Item(path=name, sha256=files.sha256(tmp_path / name), subject=name)
        for name in ("face.png", "wall.png")
    ]
    found = settings().model_copy(update={"size": 256})
    caplog.set_level("INFO", "facekit")
    pixels, subjects = gan._faces(found, tmp_path, items, fabric)
    assert pixels.shape == (1, 256, 256, 3) and subjects == ["face.png"]
    assert "smaller than 256 pixels" in caplog.text and "no face found in 1 of 2" in caplog.text


def test_every_tenth_person_is_kept_apart() -> None:
    subjects = [f"{i // 3:02d}" for i in range(60)]
    apart = gan._held_out(subjects)
    assert {s for s, kept in zip(subjects, apart.tolist(), strict=True) if kept} == {"09", "19"}
    assert apart.sum() == 6
    assert not gan._held_out(["a", "b"]).any()


def test_pretraining_names_its_cast(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gan, "studio", lambda people, moments, *_: ovals(people * moments))
    changes = [part for change in TINY for part in ("--set", change)]
    code, said = facekit(
        *("pretrain", "generators/gan_64", "--people", "120", "--moments", "2", "--threads", "1"),
        *("--out", tmp_path / "run", *changes),
    )
    assert code == 0, said
    card = json.loads((tmp_path / "run" / "gan.json").read_text())
    assert card["cast"] == {"people": 120, "moments": 2, "seed": 7}
    assert card["figures"]["steps"] == 6 and card["sha256"]
    monkeypatch.setattr(gan, "WEIGHTS", tmp_path / "run")
    assert len(list(gan.sample("gan", 3, 0, fabric))) == 3


def test_the_studios_faces_are_rendered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path))
    faces = gan.studio(2, 1, 32, 5)
    assert faces.shape == (2, 32, 32, 3) and faces.dtype == torch.uint8 and faces.float().std() > 9
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert torch.equal(gan.studio(2, 1, 32, 5), faces)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


# Samples --------------------------------------------------------------------------------------


def pixels_of(run: Run | str, count: int, fabric: Fabric, seed: int = 0, **style: Any) -> Tensor:
    frames = gan.sample(run, count, seed, fabric, **style)
    return torch.stack([torch.from_numpy(frame.pixels) for frame in frames])


def test_a_sample_depends_on_the_seed_and_its_number_alone(trained: Path, fabric: Fabric) -> None:
    run = Run(trained)
    many = pixels_of(run, 20, fabric)
    assert many.shape == (20, 32, 32, 3) and many.dtype == torch.uint8
    few = pixels_of(run, 5, fabric)
    # A convolution of another batch size may round otherwise.
    assert (few.int() - many[:5].int()).abs().max() <= 1
    assert not torch.equal(few, pixels_of(run, 5, fabric, seed=1))
    frames = list(gan.sample(run, 3, 0, fabric))
    assert [frame.index for frame in frames] == [0, 1, 2]


def test_truncation_leads_to_the_mean_face(trained: Path, fabric: Fabric) -> None:
    run = Run(trained)
    net, _ = gan.load(run, fabric)
    styles = net.mean_style()[None, None].expand(1, net.layers, -1)
    with torch.no_grad():
        mean = net.draw(styles).clamp(-1, 1)
    none = pixels_of(run, 3, fabric, truncation=0.0).float() / 127.5 - 1
    torch.testing.assert_close(none, mean.permute(0, 2, 3, 1).expand_as(none), rtol=0, atol=0.005)
    with pytest.raises(FacekitError, match="allowed are 0 to"):
        gan.sample(run, 3, 0, fabric, truncation=2.0)


def test_a_walk_passes_the_faces_and_comes_back(trained: Path, fabric: Fabric) -> None:
    run = Run(trained)
    stations = pixels_of(run, 3, fabric).int()
    walk = pixels_of(run, 3, fabric, between=20).int()
    assert len(walk) == 60
    assert (walk[::20] - stations).abs().max() <= 1
    steps = (walk - walk.roll(-1, 0)).abs().float().mean((1, 2, 3))
    assert steps.max() < 0.5 * (stations - stations.roll(-1, 0)).abs().float().mean()
    noise = torch.randn(2, 10_000)
    between = gan._walk(noise, 3)
    assert between.std(1).tolist() == pytest.approx([1] * 6, abs=0.03)


def test_a_mixture_has_the_faces_themselves_on_its_diagonal(trained: Path, fabric: Fabric) -> None:
    run = Run(trained)
    own = pixels_of(run, 3, fabric).int()
    mixed = pixels_of(run, 3, fabric, coarse=2).int().view(3, 3, 32, 32, 3)
    assert (mixed[range(3), range(3)] - own).abs().max() <= 1
    assert not torch.equal(mixed[0, 1], mixed[1, 0])
    with pytest.raises(FacekitError, match="5 layers"):
        gan.sample(run, 3, 0, fabric, coarse=5)


def test_bundled_weights_draw_what_the_run_draws(
    trained: Path, shipped: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gan, "WEIGHTS", shipped)
    mine, theirs = (pixels_of(source, 4, fabric).int() for source in (Run(trained), "gan"))
    assert (mine - theirs).abs().float().mean() < 1, "half precision"


def test_weights_of_another_architecture_or_version_are_refused(
    trained: Path, shipped: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gan, "WEIGHTS", tmp_path)
    card = json.loads((shipped / "gan.json").read_text())

    def ship(states: dict[str, Any], **changes: Any) -> None:
        checkpoint.save(tmp_path / "gan.safetensors", states)
        digest = files.sha256(tmp_path / "gan.safetensors")
        files.write_json(tmp_path / "gan.json", card | changes | {"sha256": digest})

    states = checkpoint.load(shipped / "gan.safetensors")
    for found, changes in (
        (states, {"config": card["config"] | {"width": 6}}),
        ({"generator": states["generator"]}, {}),
        ({"net": {"a": torch.ones(2)}}, {}),
    ):
        ship(found, **changes)
        with pytest.raises(FacekitError, match="another architecture or version"):
            gan.sample("gan", 1, 0, fabric)
    ship(states, config=card["config"] | {"depth": 3})
    with pytest.raises(FacekitError, match="depth"):
        gan.sample("gan", 1, 0, fabric)
    states["generator"]["start"][0, 0] = math.nan
    ship(states)
    with pytest.raises(FacekitError, match="no numbers"):
        gan.sample("gan", 1, 0, fabric)
    other = Run(trained)
    other.facts["config"]["judge_width"] = 8
    with pytest.raises(FacekitError, match="another architecture or version"):
        gan.discriminator(other)
    gan.sample(other, 1, 0, fabric)


def test_samples_are_compared_with_people_that_training_has_not_seen(
    trained: Path, shipped: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gan, "_faces", some_faces)
    training, others = gan.compared(generators.open_run(trained), Path("x"), [], fabric)
    assert (len(training), len(others)) == (216, 24)
    monkeypatch.setattr(gan, "WEIGHTS", shipped)
    asked: list[Sequence[int]] = []

    def studio(people: int, frames: int, size: int, seed: int, **_: Any) -> Tensor:
        asked.append((people, frames, size, seed))
        return ovals(people * frames)

    monkeypatch.setattr(gan, "studio", studio)
    training, others = gan.compared("gan", None, [], fabric)
    assert (len(training), len(others)) == (54, 30)
    assert asked[0] == (30, 2, 32, 7) and asked[1][3] != 7


# The commands ---------------------------------------------------------------------------------


def test_faces_leave_marked_and_signed(trained: Path, tmp_path: Path) -> None:
    code, said = facekit(
        *("run", trained, "--count", "3", "--seed", "2", "--out", tmp_path / "faces"),
        *("--sheet", tmp_path / "sheet.png", "--mix", tmp_path / "mix.png", "--json"),
        *("--threads", "1", "--coarse", "2"),
    )
    assert code == 0, said
    facts = json.loads(said)
    assert facts["kind"] == "generated" and facts["publish"]
    names = [Path(path).name for path in facts["files"]]
    assert names == ["00000.png", "00001.png", "00002.png", "sheet.png", "mix.png"]
    for path in map(Path, facts["files"]):
        reading = watermark.read_file(path)
        assert reading.present and reading.kind in ("generated", None)
        claims = manifest.verify(path).claims
        assert claims["facts"]["generator"] == "gan" and claims["facts"]["origin"] == "studio"
    assert read_image(tmp_path / "faces" / "00000.png").shape == (256, 256, 3)
    assert read_image(tmp_path / "sheet.png").shape == (256, 768, 3)
    assert not (tmp_path / "faces" / "manifest.jsonl").exists()


def test_a_walk_leaves_as_a_video(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "walk.mp4"
    monkey = pytest.MonkeyPatch()
    monkey.setattr(generator_sample, "STATION", 4)
    with monkey.context():
        code, said = facekit("run", trained, "--count", "2", "--interpolate", path)
    monkey.undo()
    assert code == 0, said
    assert probe(path).kind == "video" and "marked as generated" in said


def test_a_data_set_leaves_without_badges_and_with_a_manifest(
    trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "faces"
    code, said = facekit("run", trained, "--count", "2", "--out", out, "--dataset")
    assert code == 0, said
    items = layout.read(out)
    assert [item.path for item in items] == ["00000.png", "00001.png"]
    assert {(item.label, item.generator) for item in items} == {(1, "gan")}
    assert len({item.subject for item in items}) == 2
    assert not (out / "inputs.jsonl").exists()
    assert watermark.read_file(out / "00000.png").present


def test_a_bundled_generator_is_called_by_its_name(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gan, "WEIGHTS", shipped)
    monkeypatch.setattr(generator_sample, "_weights", lambda: shipped)
    code, said = facekit("run", "gan", "--count", "2", "--sheet", tmp_path / "sheet.png")
    assert code == 0, said
    assert manifest.verify(tmp_path / "sheet.png").claims["facts"]["weights"] == "gan"
    code, said = facekit("run", "gam", "--out", tmp_path)
    assert code == 1 and "did you mean 'gan'" in said
    assert '"bundled": [\n    "gan"' in facekit("list", "--json")[1]


def test_options_that_do_not_go_together_are_refused(trained: Path, tmp_path: Path) -> None:
    for arguments, words in (
        ((), "nothing to write"),
        (("--out", tmp_path, "--source", "x"), "go with --input"),
        (("--sheet", tmp_path / "a.png", "--dataset"), "--dataset: give the folder"),
        (("--input", "a.png", "--out", tmp_path / "b.png"), "--source is missing"),
        (
            ("--input", "a", "--source", "x", "--out", "b", "--sheet", "c.png"),
            "are for faces from nothing",
        ),
    ):
        code, said = facekit("run", trained, *arguments)
        assert code == 1 and words in said, said


def test_a_run_whose_consent_is_gone_draws_nothing(trained: Path, tmp_path: Path) -> None:
    import shutil

    other = tmp_path / "run"
    shutil.copytree(trained, other)
    facts = json.loads((other / "run.json").read_text())
    files.write_json(other / "run.json", facts | {"consent": ["c-0123456789ab"]})
    code, said = facekit("run", other, "--out", tmp_path / "faces")
    assert code == 1 and "consent" in said and not (tmp_path / "faces").exists()


def test_the_discriminator_leaves_for_the_detectors(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "judge.safetensors"
    code, said = facekit("discriminator", trained, "--out", path)
    assert code == 0 and "--set patch=2" in said, said
    assert "consent" in checkpoint.notes(path)
    found = config.validate(
        {"data": {"size": 32}, "width": 4, "patch": 2, "weights": str(path)}, judge.Config, "x"
    )
    network = judge.network(found)
    judge.begin(network, found)
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    _, own = gan.networks(settings())
    own.load_state_dict(gan.discriminator(Run(trained))["discriminator"])
    torch.testing.assert_close(network(images), -own(images))
    code, said = facekit("discriminator", "face_swap", "--out", path)
    assert code == 1 and "no discriminator" in said


# TensorBoard ----------------------------------------------------------------------------------


def test_without_tensorboard_its_option_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with (
        pytest.raises(FacekitError, match=r"pip install 'facekit-toolkit\[tensorboard\]'"),
        tensorboard.copied(tmp_path),
    ):
        pass


def test_metrics_are_copied_and_forgotten_ones_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for TensorBoard, which is an extra."""
    written: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            written.clear()

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def flush(self) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setitem(
        sys.modules, "torch.utils.tensorboard", type("module", (), {"SummaryWriter": SummaryWriter})
    )
    rows = [{"step": step, "loss_d": step / 10} for step in (1, 2, 3)]
    files.write_jsonl(tmp_path / "metrics.jsonl", rows)
    copy = tensorboard._Copy(tmp_path)
    copy.update()
    assert [step for _, _, step in written] == [1, 2, 3]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # under way
    copy.update()
    assert len(written) == 3
    files.write_jsonl(tmp_path / "metrics.jsonl", [*rows[:2], {"step": 3, "loss_d": 9.0}])
    copy.update()
    assert written == [("loss_d", 0.1, 1), ("loss_d", 0.2, 2), ("loss_d", 9.0, 3)]
