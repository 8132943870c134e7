"""The GAN's bench: peers that learn as their papers say, arms that go on, figures that add up."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detectors import collections
from detectors.collections import Collection
from detectors.models import discriminator as judge
from detectors.protocol import Config as Evaluation
from detectors.train import read_config
from facekit.adversary.metrics.features import load_features
from facekit.core import checkpoint, config
from facekit.core.config import find, read_yaml
from facekit.core.device import setup
from facekit.core.errors import FacekitError
from facekit.core.figures import with_goals
from facekit.core.files import sha256, write_json
from facekit.generators import _bench, _dcgan, _lightweight, _peers
from facekit.generators._arm import DONE, FACES, FOUND, POINTS, Plan
from facekit.generators._evaluate import described
from facekit.networks.discriminator import Discriminator
from facekit.types import Item, write_manifest


def faces(count: int = 24, size: int = 32, seed: int = 0) -> Tensor:
    """Broad tones, uint8 (count, size, size, 3)."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=random)
    fine = nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return (255 * fine).byte().permute(0, 2, 3, 1).contiguous()


@pytest.mark.parametrize("count", [200_000, 1_500_000, 4_000_000])
def test_dcgan_has_the_parameters_asked_for(count: int) -> None:
    peer = _dcgan.build(64, count, torch.device("cpu"))
    assert peer.parameters == pytest.approx(count, rel=0.12)
    noise = peer.noise(3)
    assert noise.shape == (3, 100) and noise.abs().max() <= 1
    pictures = peer.generator(noise)
    assert pictures.shape == (3, 3, 64, 64) and pictures.abs().max() <= 1
    assert peer.discriminator(pictures).shape == (3,)


def test_dcgan_is_the_papers() -> None:
    """Figure 1 and section 3: at width 64, the usual 3.5 and 2.8 million parameters."""
    assert _peers.parameters(_dcgan.Generator(64, 64)) == pytest.approx(3.577e6, rel=1e-3)
    assert _peers.parameters(_dcgan.Discriminator(64, 64)) == pytest.approx(2.766e6, rel=1e-3)
    generator, judge = _dcgan.Generator(64, 64), _dcgan.Discriminator(64, 64)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in generator.layers[-2:])
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in judge.layers[:3])
    assert isinstance(generator.layers[-1], nn.Tanh)


def test_the_closest_size() -> None:
    assert _dcgan.closest(lambda width: width**2, 150) == 12
    assert _dcgan.closest(lambda width: width**2, 90) == 8
    assert _dcgan.closest(lambda width: width**2, 1) == 4


def small_dcgan() -> _peers.Peer:
    torch.manual_seed(0)
    return _dcgan.build(32, 20_000, torch.device("cpu"))


def test_an_arm_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    fabric = setup("cpu", threads=1)

    def train(folder: str, most: int) -> _peers.Learned:
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        return _peers.train(
            *("dcgan", small_dcgan(), faces(), path, fabric), seconds=100, seed=3, most=most
        )

    whole = train("whole", 3)
    assert train("parts", 1).steps == 1
    parts = train("parts", 3)
    assert parts.steps == whole.steps == 3
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, parts.average.state_dict()[name]), name
    assert parts.seconds > 0
    # A training that is over is not trained again.
    assert train("parts", 3).steps == 3


def test_an_arm_ends_with_its_time(tmp_path: Path) -> None:
    fabric = setup("cpu", threads=1)
    learned = _peers.train(
        *("dcgan", small_dcgan(), faces(), tmp_path, fabric), seconds=0.5, seed=0
    )
    assert learned.steps >= 1 and 0.5 <= learned.seconds < 10
    drawn = _peers.draw(small_dcgan(), learned.average, 5, 0, fabric.device, at_once=2)
    assert drawn.shape == (5, 32, 32, 3) and drawn.dtype == torch.uint8


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    fabric = setup("cpu", threads=1)
    _peers.train("dcgan", small_dcgan(), faces(), tmp_path, fabric, seconds=9, seed=0, most=1)
    torch.manual_seed(0)
    larger = _dcgan.build(32, 200_000, torch.device("cpu"))
    with pytest.raises(FacekitError, match="another architecture than dcgan's"):
        _peers.train("dcgan", larger, faces(), tmp_path, fabric, seconds=9, seed=0, most=2)


@pytest.mark.slow
@pytest.mark.skipif(not _lightweight.installed(), reason="the extra 'peers' is not installed")
def test_lightweight_gan_learns_without_a_gpu(tmp_path: Path) -> None:
    """In a process of its own, without assertions, as the bench starts it; with its penalty."""
    code = (
        "import sys, torch; from pathlib import Path; from facekit.core.device import setup\n"
        "from facekit.generators import _lightweight, _peers\n"
        "fabric = setup('cpu', threads=1); torch.manual_seed(0)\n"
        "peer = _lightweight.build(32, 600_000, 24, fabric.device)\n"
        "pixels = torch.randint(256, (24, 32, 32, 3), dtype=torch.uint8)\n"
        "before = [w.clone() for w in peer.generator.parameters()]\n"
        "peer = peer.__class__(**{**peer.__dict__, 'batch': 4})\n"
        "args = ('lightweight', peer, pixels, Path(sys.argv[1]), fabric)\n"
        "learned = _peers.train(*args, seconds=99, seed=0, most=2)\n"
        "moved = sum(not torch.equal(a, b) for a, b in zip(before, peer.generator.parameters()))\n"
        "drawn = _peers.draw(peer, learned.average, 3, 0, fabric.device)\n"
        "print(peer.parameters, moved > len(before) // 2, tuple(drawn.shape))\n"
    )
    result = subprocess.run(
        [sys.executable, "-O", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    count, moved, shape = result.stdout.split(maxsplit=2)
    assert int(count) == pytest.approx(600_000, rel=0.25)
    assert moved == "True" and shape.strip() == "(3, 32, 32, 3)"


# The discriminator as a detector


def judge_file(path: Path, size: int = 32, width: int = 8, **more: object) -> Path:
    torch.manual_seed(4)
    weights = Discriminator(size, width).state_dict()
    checkpoint.save(path, {"size": size, "width": width, "discriminator": weights, **more})
    return path


def settings(path: Path | str, size: int = 32, width: int = 8) -> judge.Config:
    data = {"data": {"size": size}, "width": width, "weights": str(path)}
    return config.validate(data, judge.Config, "x")


def test_a_discriminator_is_handed_over(tmp_path: Path) -> None:
    path = judge_file(tmp_path / "judge.safetensors")
    network = judge.network(settings(path))
    judge.begin(network, settings(path))
    torch.manual_seed(4)
    images = torch.rand(5, 3, 32, 32) * 2 - 1
    torch.manual_seed(4)
    expected = -Discriminator(32, 8)(images)
    torch.testing.assert_close(network(images), expected, msg="greater for generated")
    # What is scored with needs no file: a detector's own holds all.
    path.unlink()
    assert judge.network(settings(path)).state_dict().keys() == network.state_dict().keys()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    judge.begin(network, settings(""))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_what_is_no_such_discriminator_is_refused(tmp_path: Path) -> None:
    def refused(path: Path, size: int = 32, width: int = 8) -> str:
        asked = settings(path, size, width)
        with pytest.raises(FacekitError, match=path.name) as error:
            judge.begin(judge.network(asked), asked)
        return str(error.value)

    path = judge_file(tmp_path / "judge.safetensors")
    assert "--set data.size=32 --set width=8 --set patch=1" in refused(path, size=64)
    assert "another architecture (size 32, width 8, patch 1;" in refused(path, width=16)
    assert "not a readable checkpoint" in refused(tmp_path / "none.safetensors")
    checkpoint.save(tmp_path / "other.safetensors", {"step": 3})
    assert "facekit generator discriminator" in refused(tmp_path / "other.safetensors")
    broken = Discriminator(32, 8)
    with torch.no_grad():
        broken.last.bias.fill_(float("nan"))
    nan = judge_file(tmp_path / "nan.safetensors", discriminator=broken.state_dict())
    assert "are no numbers" in refused(nan)
    older = judge_file(tmp_path / "older.safetensors", discriminator={"w": torch.ones(3)})
    assert "another version" in refused(older)
    with pytest.raises(FacekitError, match="power of two"):
        settings(path, size=48)


# The bench


def plan(**more: object) -> Plan:
    values = {"minutes": 1.0, "threads": 1, "device": "cpu", "precision": "32", "seed": 0}
    values |= {"size": 32, "people": 60, "others": 60, "frames": 1, "samples": 60, "steps": 2}
    return Plan.model_validate(values | more)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A bench whose arms are done: the own one's features are of new faces, the peers' are off."""
    _bench.keep(plan(), tmp_path)
    training, others = faces(60, seed=1), faces(60, seed=2)
    checkpoint.save(tmp_path / FACES, {"training": training, "others": others})
    features = load_features(torch.device("cpu"))
    good = described(faces(60, seed=3), features)
    for arm, off in (("gan", 0.0), ("dcgan", 0.5), ("lightweight", 0.3)):
        (tmp_path / arm).mkdir()
        found = {"average": good + off}
        if arm != "gan":
            found["live"] = good + 3
        checkpoint.save(tmp_path / arm / FOUND, found)
        facts = {"steps": 2, "images": 8, "minutes": 0.5, "images_per_s": 3.0, "parameters": 9}
        write_json(tmp_path / arm / DONE, facts | ({"copies": 0} if arm == "gan" else {}))
    (tmp_path / POINTS).mkdir()
    modes = {"modes": 25, "on_a_mode": 0.97, "minutes": 3.0}
    write_json(tmp_path / POINTS / DONE, modes)
    return tmp_path


def test_what_is_done_is_compared_and_not_trained_again(trained: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("subprocess.run", None)
    for arm in (POINTS, "gan", "dcgan", "lightweight"):
        _bench.train_arm(arm, trained)
    arms = ["gan", "dcgan", "lightweight"]
    figures = _bench._modes(trained / POINTS / DONE)
    figures = with_goals([*figures, *_bench.compare(trained, arms, torch.device("cpu"))])
    value = {row.name: row.value for row in figures}
    assert len(value) == len(figures), "no row stands twice"
    # The better of a peer's two counts: its average, which is off by 0.5 or 0.3 and not by 3.
    assert value["gan.kid.dcgan"] > value["gan.kid.lightweight"] > value["gan.kid"]
    expected = max(value["gan.kid"], 0) / value["gan.kid.dcgan"]
    assert value["gan.kid_ratio_dcgan"] == pytest.approx(expected)
    goals = {row.name for row in figures if row.goal}
    assert goals == {name for name in read_yaml(find("evaluations/goals")) if name[:4] == "gan."}
    assert {"gan.steps.dcgan", "gan.images_per_s.gan", "gan.minutes.lightweight"} <= set(value)
    without = _bench.compare(trained, arms[:2], torch.device("cpu"))
    assert not [row for row in without if "lightweight" in row.name]


def test_a_bench_of_other_conditions_is_not_gone_on_with(tmp_path: Path) -> None:
    _bench.keep(plan(), tmp_path)
    _bench.keep(plan(), tmp_path)
    with pytest.raises(FacekitError, match=r"another minutes \(1\.0, now 2\.0\)"):
        _bench.keep(plan(minutes=2.0), tmp_path)


def test_an_arm_that_fails_says_why(tmp_path: Path, capfd: Any) -> None:
    with pytest.raises(FacekitError, match="the arm 'dcgan' failed with 1, as it says above"):
        _bench.train_arm("dcgan", tmp_path)
    said = capfd.readouterr().err
    assert said.startswith("Error: ") and "plan.json" in said and len(said.splitlines()) == 1


def test_peers_that_are_not_installed_are_left_out(
    trained: Path, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(_lightweight, "installed", lambda: False)
    monkeypatch.setattr(_bench, "keep", lambda plan, out: None)
    with caplog.at_level("WARNING", logger="facekit"):
        figures = _bench.bench(quick=True, out=trained, where="cpu", threads=1)
    assert "pip install 'facekit-toolkit[peers]'" in caplog.text
    names = {row.name for row in figures}
    assert "gan.kid_ratio_dcgan" in names and "gan.kid_ratio_lightweight" not in names


# The cross-generator matrix with the GAN in it


def test_detectors_are_trained_and_tested_on_different_samples(tmp_path: Path) -> None:
    """A folder of samples as the export writes it: one half trains, the other one tests."""
    folder = tmp_path / "data" / "generated" / "gan"
    folder.mkdir(parents=True)
    items = []
    for i in range(40):
        path = folder / f"{i:04d}.png"
        path.write_bytes(bytes([i]))
        name = f"gan-0-{i}"
        items.append(Item(path=path.name, sha256=sha256(path), subject=name, label=1))
    write_manifest(folder, [item.model_copy(update={"generator": "gan"}) for item in items])

    def chosen(listed: list[Collection]) -> list[Collection]:
        return [one for one in listed if one.path == "data/generated/gan"]

    halves = []
    for name in ("gan", "default_gan"):
        path = find(f"evaluations/{name}")
        tested = config.validate(read_yaml(path), Evaluation, path)
        _, recipe = read_config(tested.training)
        assert bool(chosen(recipe.collections)) == (name == "default_gan")
        assert tested.matrix and tested.generated[0].name == "b"
        for listed in (recipe.collections, tested.generated):
            entries = collections.read(chosen(listed), tmp_path)
            assert {entry.item.generator for entry in entries} <= {"gan"}
            halves.append({entry.item.path for entry in entries})
    assert not halves[0] and halves[1] == halves[3]
    assert len(halves[2]) == len(halves[1]) == 20 and not halves[2] & halves[1]


@pytest.mark.parametrize(("maker", "added"), [("gan", 1), ("generated", 2)])
def test_a_recipe_with_generators_is_the_bundled_one_but_for_them(maker: str, added: int) -> None:
    (_, plain), (_, more) = (read_config(f"detectors/{n}") for n in ("default", f"default_{maker}"))
    assert more.kept == {"blend": "default"} and not plain.kept and more.data == plain.data
    members = {name: one for name, one in plain.members.items() if name not in more.kept}
    assert more.members == members
    assert more.collections[:-added] == plain.collections
    one, other = (read_yaml(find(f"evaluations/{name}")) for name in (maker, f"default_{maker}"))
    assert {**one, "training": ""} == {**other, "training": ""}
    tests = [Collection(**tested) for tested in one["generated"][-added:]]
    for learned, tested in zip(more.collections[-added:], tests, strict=True):
        assert learned.path == tested.path
        assert (learned.part, tested.part) == ("first half", "second half")


def test_swaps_train_and_test_detectors_with_their_originals_and_on_other_people(
    tmp_path: Path,
) -> None:
    """A data set of pairs, as `generator run --input FOLDER --dataset` writes it."""
    folder = tmp_path / "data" / "generated" / "swaps"
    folder.mkdir(parents=True)
    items = []
    for i in range(16):
        for label, facts in ((0, {}), (1, {"donor": f"p{i ^ 1}"})):
            path = folder / f"{i:02d}-{label}.png"
            path.write_bytes(bytes([i, label]))
            fixed = {"sha256": sha256(path), "subject": f"p{i}", "source": f"s{i}"}
            items.append(Item(path=path.name, label=label, facts=facts, **fixed))
    write_manifest(folder, items)
    halves = []
    for part in ("first half", "second half"):
        collection = Collection(
            name="swaps", layout="manifest", path="data/generated/swaps", part=part
        )
        entries = collections.read([collection], tmp_path)
        assert [e.item.label for e in entries].count(0) == len(entries) / 2
        shown = {e.item.subject for e in entries}
        assert len(shown) == 8 and {e.donor for e in entries} - {""} == shown
        halves.append(shown)
    assert not halves[0] & halves[1]
