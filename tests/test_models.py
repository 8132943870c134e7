"""Every detector plug-in keeps the same rules; and each one's own, against independent oracles."""

import sys
from itertools import product
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.fft import dctn
from scipy.signal import correlate2d
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from detectors.models import _meso, _traces, forest, meso4, meso_inception, spectrum, timm_probe
from detectors.regions import Region
from detectors.score import MODELS, Member, network_logits, to_tensor
from facekit.core import checkpoint, config, registry
from facekit.core.errors import FacekitError
from facekit.core.seed import rng
from facekit.types import Face, Pixels

PLUGINS = registry.names(MODELS)
SIZE = 32
TINY: dict[str, dict[str, Any]] = {
    "small_cnn": {"widths": [4, 8]},
    "patch": {"widths": [8, 8, 8, 8], "depths": [1, 1, 1, 1]},
    "blend": {"widths": [8, 8, 8, 8], "depths": [1, 1, 1, 1]},
    "discriminator": {"width": 8},
    "forest": {"trees": 12, "leaf_faces": 3},
    "timm_probe": {"model": "tiny", "pretrained": True},
}
"""Settings that make a plug-in quick; one that is not here is quick already."""
SLOW = ("colour", "discriminator", "meso4", "meso_inception")
"""What a dozen steps, or any number, do not teach to see up-sampling."""


class Backbone(nn.Module):
    """Stands in for a network of timm's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] == 48:
            raise AssertionError("Input height (48) doesn't match model")
        return torch.relu(self.norm(self.stem(x))).mean((2, 3))


@pytest.fixture(autouse=True)
def timm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module in timm's place: one network, and weights to "download" that are always the same."""

    def create_model(name: str, *, pretrained: bool, num_classes: int) -> nn.Module:
        assert num_classes == 0
        if name != "tiny":
            raise RuntimeError(f"Unknown model ({name})")
        backbone = Backbone()
        if pretrained:
            random = torch.Generator().manual_seed(3)
            for parameter in backbone.parameters():
                parameter.data = torch.randn(parameter.shape, generator=random)
        return backbone

    expected = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
    module: Any = ModuleType("timm")
    module.create_model = create_model
    module.list_models = lambda: ["tiny"]
    module.data = SimpleNamespace(resolve_model_data_config=lambda backbone: expected)
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


def plugin_of(name: str) -> ModuleType:
    return registry.load(MODELS, name)


def settings_of(name: str, **more: Any) -> Any:
    return plugin_of(name).Config.model_validate(
        {"data": {"size": SIZE}, **TINY.get(name, {}), **more}
    )


def pictures(count: int, size: int = SIZE, seed: int = 0) -> tuple[Pixels, np.ndarray]:
    """Noisy pictures, the odd ones up-sampled from half their size, and labels (0, 1, 0, …)."""
    random = rng(seed)
    images = np.empty((count, size, size, 3), np.uint8)
    for i, image in enumerate(images):
        broad = cv2.resize(random.normal(0, 40, (4, 4, 3)), (size, size))
        image[:] = np.clip(broad + random.normal(0, 12, image.shape) + 120, 0, 255)
        if i % 2:
            half = cv2.resize(image, (size // 2, size // 2), interpolation=cv2.INTER_AREA)
            image[:] = cv2.resize(half, (size, size), interpolation=cv2.INTER_CUBIC)
    return images, np.arange(count) % 2


def trained(name: str, steps: int) -> tuple[Any, nn.Module]:
    """A plug-in's settings, and its network after fitting, or a little gradient descent."""
    settings, plugin = settings_of(name), plugin_of(name)
    images, labels = pictures(48 if hasattr(plugin, "fit") else 24)
    torch.manual_seed(0)
    network: nn.Module = plugin.network(settings)
    if hasattr(plugin, "fit"):
        plugin.fit(network, to_tensor(images), labels, settings)
        return settings, network.eval()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    target = torch.from_numpy(labels).float()
    for _ in range(steps):
        logits = network(to_tensor(images))
        loss = nn.functional.binary_cross_entropy_with_logits(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return settings, network.eval()


# Every plug-in


@pytest.mark.parametrize("name", PLUGINS)
def test_what_a_plugin_is(name: str) -> None:
    plugin = plugin_of(name)
    assert plugin.__doc__ and len(plugin.__doc__) > 100, "says what it is and where it is from"
    assert issubclass(plugin.Config, config.Config)
    fields = plugin.Config.model_fields
    assert "data" in fields
    assert ("training" in fields) != hasattr(plugin, "fit"), "learns in one way of the two"
    assert ("passes" in fields) == hasattr(plugin, "fit")
    with pytest.raises(FacekitError, match="unknown key 'widht'"):
        config.validate({"widht": 3}, plugin.Config, "x")


@pytest.mark.parametrize("name", PLUGINS)
def test_every_plugin_has_a_config(name: str) -> None:
    found = 0
    for path in sorted((config.folder() / "detectors").glob("*.yaml")):
        data = config.read_yaml(path)
        if data.pop("detector") == name:
            settings = config.validate(data, plugin_of(name).Config, path)
            assert settings.data.size >= SIZE
            found += 1
    assert found


@pytest.mark.parametrize("name", PLUGINS)
def test_shape_numbers_and_gradients(name: str) -> None:
    # By another seed the one unit of MesoInception-4's first branch is silent for any picture.
    torch.manual_seed(1)
    network = plugin_of(name).network(settings_of(name))
    images = to_tensor(pictures(8)[0])
    for training in (True, False):
        network.train(training)
        logits = network(images)
        assert logits.shape == (8,) and logits.dtype in (torch.float32, torch.float64)
        assert logits.isfinite().all()
    learnt = {key: value for key, value in network.named_parameters() if value.requires_grad}
    assert bool(learnt) != hasattr(plugin_of(name), "fit")
    if learnt:
        logits.square().sum().backward()
        for key, parameter in learnt.items():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
            assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_pictures_have_a_score(name: str, level: int) -> None:
    torch.manual_seed(0)
    network = plugin_of(name).network(settings_of(name)).eval()
    flat = np.full((2, SIZE, SIZE, 3), level, np.uint8)
    assert np.isfinite(network_logits(network, flat)).all()


@pytest.mark.parametrize("name", PLUGINS)
def test_learns_keeps_and_repeats(name: str, tmp_path: Path, timm: Any) -> None:
    """Tells what it was taught, to the same bits after a file, and however faces are batched."""
    settings, network = trained(name, steps=12)
    images, labels = pictures(40, seed=9)
    logits = network_logits(network, images)
    assert logits.dtype == np.float64 and logits.std() > 0
    assert roc_auc_score(labels, logits) > 0.8 or name in SLOW

    once, again = (trained(name, steps=2)[1].state_dict() for _ in range(2))
    assert all(torch.equal(once[key], again[key]) for key in once), "the same seed, the same bits"

    member = Member("it", name, settings, network)
    checkpoint.save(tmp_path / "it.safetensors", {"member": member.state()})
    torch.manual_seed(77)  # whatever the new process's random state is
    timm.create_model = no_download(timm.create_model)
    loaded = Member.from_state(checkpoint.load(tmp_path / "it.safetensors")["member"])
    assert np.array_equal(network_logits(loaded.network, images), logits)
    assert loaded.config == settings

    apart = np.concatenate([network_logits(network, images[i : i + 1]) for i in range(len(images))])
    np.testing.assert_allclose(apart, logits, atol=1e-4, rtol=1e-5)
    assert network_logits(network, images[:0]).shape == (0,)


def no_download(create_model: Any) -> Any:
    def create(name: str, *, pretrained: bool, num_classes: int) -> nn.Module:
        assert not pretrained, "a detector's own file holds all of its weights"
        return create_model(name, pretrained=False, num_classes=num_classes)

    return create


# Statistics of frequencies and noise


def test_luma_is_exact() -> None:
    levels = rng(1).integers(0, 256, (3, 20, 30, 3)).astype(np.uint8)
    luma = _traces.luma_of(to_tensor(levels))
    np.testing.assert_allclose(luma, levels @ [0.299, 0.587, 0.114], atol=1e-10)


def test_dct_is_scipys() -> None:
    images, _ = pictures(3, size=43)
    luma = _traces.luma_of(to_tensor(images))
    found = _traces.BlockDCT(43)(luma)
    for picture, magnitudes in zip(luma.numpy(), found, strict=True):
        blocks = [
            dctn(picture[8 * i : 8 * i + 8, 8 * j : 8 * j + 8], norm="ortho")
            for i, j in product(range(5), repeat=2)
        ]
        expected = 20 * np.log10(np.mean(np.abs(blocks), axis=0) + 1e-3)
        np.testing.assert_allclose(magnitudes, expected.flatten()[1:], atol=1e-8)


def test_cooccurrence_by_hand() -> None:
    images, _ = pictures(2, size=12)
    part = _traces.Cooccurrence(12)
    assert part.count == 78, "125 triples, alike under sign and mirror: (125 + 1 + 25 + 5) / 4"
    found = part(_traces.luma_of(to_tensor(images)))

    def kind(triple: tuple[int, ...]) -> frozenset[tuple[int, ...]]:
        negative = tuple(-value for value in triple)
        return frozenset([triple, triple[::-1], negative, negative[::-1]])

    for image, shares in zip(images, found.numpy(), strict=True):
        luma = np.round(image @ [0.299, 0.587, 0.114]).astype(int)
        expected = []
        for along in (True, False):
            counts: dict[frozenset[tuple[int, ...]], int] = {}
            for turned in (luma, luma.T):
                residual = turned[:, 2:] - 2 * turned[:, 1:-1] + turned[:, :-2]
                halves = np.sign(residual) * np.minimum((np.abs(residual) + 1) // 2, 2)
                for row in halves if along else halves.T:
                    for i in range(len(row) - 2):
                        key = kind(tuple(int(value) for value in row[i : i + 3]))
                        counts[key] = counts.get(key, 0) + 1
            values = [np.sqrt(count / sum(counts.values())) for count in counts.values()]
            expected += sorted(values + [0.0] * (39 - len(values)))
        parts = [*np.sort(shares[:39]), *np.sort(shares[39:])]
        np.testing.assert_allclose(parts, expected, atol=1e-12)


@pytest.mark.parametrize("name", ["dct", "cooccurrence"])
def test_a_turned_picture_looks_the_same_to_noise(name: Any) -> None:
    """Half a turn mirrors every block and triple; the pictures' sides are multiples of 8."""
    images, _ = pictures(2)
    part = _traces.Traces([name], SIZE)
    turned = np.ascontiguousarray(images[:, ::-1, ::-1])
    np.testing.assert_allclose(part(to_tensor(images)), part(to_tensor(turned)), atol=1e-9)


def test_features_are_chosen_in_the_config() -> None:
    counts = {"spectrum": SIZE // 2, "dct": 63, "cooccurrence": 78}
    for names in (["spectrum"], ["dct", "cooccurrence"], list(counts)):
        network = spectrum.network(settings_of("spectrum", features=names))
        assert network.linear.mean.shape == (sum(counts[name] for name in names),)
        # What follows from the size is no part of the file; older files hold just this.
        assert {key.partition(".")[0] for key in network.state_dict()} == {"linear"}
    with pytest.raises(FacekitError, match=r"features.*given 'wavelets'"):
        config.validate({"features": ["wavelets"]}, spectrum.Config, "x")
    with pytest.raises(FacekitError, match="features"):
        config.validate({"features": []}, forest.Config, "x")


# Trees


@pytest.mark.parametrize("leaves", [2, 15, 60])
@pytest.mark.parametrize("faces", [12, 400])
def test_trees_are_scikit_learns(leaves: int, faces: int) -> None:
    random = rng(leaves)
    features = random.normal(size=(faces, 7)).round(1)  # many ties
    labels = (features[:, 0] * features[:, 1] + random.normal(size=faces) > 0).astype(np.int64)
    settings = forest.Config(trees=30, leaves=leaves, depth=6)
    trees = forest.Trees(settings.trees, settings.leaves, settings.depth)
    peer = trees.fit(torch.from_numpy(features), labels, settings)
    new = np.concatenate([features, 5 * random.normal(size=(200, 7)).round(1)])
    np.testing.assert_allclose(
        trees(torch.from_numpy(new)), peer.decision_function(new), rtol=0, atol=1e-12
    )


# Meso-4 and MesoInception-4


def keras_weights(name: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights in Keras' layout: ``LAYER/kernel`` and the like."""
    random = rng(seed)
    if name == "meso4":
        kernels = [(3, 3, 8), (5, 8, 8), (5, 8, 16), (5, 16, 16)]
        norms = [8, 8, 16, 16]
    else:
        kernels = []
        for inputs, branches in ((3, (1, 4, 4, 2)), (11, (2, 4, 4, 2))):
            kernels.append((1, inputs, branches[0]))
            for channels in branches[1:]:
                kernels += [(1, inputs, channels), (3, channels, channels)]
        kernels += [(5, 12, 16), (5, 16, 16)]
        norms = [11, 12, 16, 16]
    # Keras numbers layers on from those made before: 9, 10, … is no order of texts.
    first = 7
    weights = {}
    for i, (side, inputs, outputs) in enumerate(kernels):
        scale = 1 / np.sqrt(side * side * inputs)
        weights[f"conv2d_{first + i}/kernel"] = scale * random.normal(
            size=(side, side, inputs, outputs)
        )
        weights[f"conv2d_{first + i}/bias"] = 0.1 * random.normal(size=outputs)
    for i, channels in enumerate(norms):
        layer = f"batch_normalization_{first + i}"
        weights[f"{layer}/gamma"] = random.uniform(0.5, 1.5, channels)
        weights[f"{layer}/beta"] = 0.1 * random.normal(size=channels)
        weights[f"{layer}/moving_mean"] = 0.3 * random.normal(size=channels)
        # Some are so small that the norm's ε counts.
        weights[f"{layer}/moving_variance"] = random.uniform(1e-3, 1, channels)
    for i, (inputs, outputs) in enumerate([(1024, 16), (16, 1)]):
        weights[f"dense_{first + i}/kernel"] = random.normal(size=(inputs, outputs)) / inputs
        weights[f"dense_{first + i}/bias"] = 0.1 * random.normal(size=outputs)
    return {key: value.astype(np.float32) for key, value in weights.items()}


def write_h5(path: Path, weights: dict[str, np.ndarray]) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.attrs["backend"] = "tensorflow"
        for key, value in weights.items():
            layer, _, weight = key.partition("/")
            file[f"{layer}/{layer}/{weight}:0"] = value
    return path


def keras_output(name: str, weights: dict[str, np.ndarray], x: np.ndarray) -> float:
    """The sigmoid of the network's last layer, by numpy and scipy, of (256, 256, 3) in [0, 1]."""

    def convolve(x: np.ndarray, i: int, dilation: int = 1) -> np.ndarray:
        kernel = weights[f"conv2d_{i}/kernel"].astype(np.float64)
        wide = np.zeros((*((len(kernel) - 1) * dilation + 1,) * 2, *kernel.shape[2:]))
        wide[::dilation, ::dilation] = kernel
        channels = [
            sum(correlate2d(x[:, :, c], wide[:, :, c, o], mode="same") for c in range(x.shape[2]))
            for o in range(kernel.shape[3])
        ]
        return np.maximum(np.stack(channels, axis=2) + weights[f"conv2d_{i}/bias"], 0)

    def norm_and_pool(x: np.ndarray, i: int, side: int) -> np.ndarray:
        w = {key: weights[f"batch_normalization_{i}/{key}"].astype(np.float64) for key in NORM}
        x = (x - w["moving_mean"]) / np.sqrt(w["moving_variance"] + 1e-3) * w["gamma"] + w["beta"]
        height, width, channels = x.shape
        return x.reshape(height // side, side, width // side, side, channels).max((1, 3))

    def inception(x: np.ndarray, i: int) -> np.ndarray:
        branches = [convolve(x, i)]
        for dilation in (1, 2, 3):
            branches.append(convolve(convolve(x, i + 2 * dilation - 1), i + 2 * dilation, dilation))
        return np.concatenate(branches, axis=2)

    if name == "meso4":
        x = norm_and_pool(convolve(x, 7), 7, 2)
        x = norm_and_pool(convolve(x, 8), 8, 2)
        last = 9
    else:
        x = norm_and_pool(inception(x, 7), 7, 2)
        x = norm_and_pool(inception(x, 14), 8, 2)
        last = 21
    x = norm_and_pool(convolve(x, last), 9, 2)
    x = norm_and_pool(convolve(x, last + 1), 10, 4)
    hidden = x.flatten() @ weights["dense_7/kernel"] + weights["dense_7/bias"]
    hidden = np.where(hidden > 0, hidden, 0.1 * hidden)
    return float(expit(hidden @ weights["dense_8/kernel"] + weights["dense_8/bias"])[0])


NORM = ("gamma", "beta", "moving_mean", "moving_variance")
MESO = {"meso4": meso4, "meso_inception": meso_inception}


def level_face(size: int = 256) -> Region:
    """A picture of noise in which eyes and mouth stand so that the authors' crop is all of it."""
    random = rng(4)
    pixels = np.clip(pictures(1, size, seed=5)[0][0] + random.normal(0, 9, (size, size, 3)), 0, 255)
    down = size / 2.86
    # The crop's middle lies a fourth of the way from the nose's tip to the eyes.
    eyes = size / 2 - 0.75 * 0.5 * down
    points = [
        [size / 2 - 30, eyes],
        [size / 2 + 30, eyes],
        [size / 2, eyes + 0.5 * down],
        [size / 2 - 20, eyes + down],
        [size / 2 + 20, eyes + down],
    ]
    box = np.array([0.2, 0.1, 0.8, 0.9], np.float32) * size
    return Region(pixels.astype(np.uint8), Face(box, np.array(points, np.float32), 1.0))


@pytest.mark.parametrize("name", MESO)
def test_the_authors_weights_give_the_authors_scores(name: str, tmp_path: Path) -> None:
    """The whole network, computed once more by numpy and scipy from the file's arrays."""
    weights = keras_weights(name)
    scorer = MESO[name].load_h5(write_h5(tmp_path / "Some_DF.h5", weights))
    assert scorer.name.endswith("(Some_DF)")
    region = level_face()
    np.testing.assert_allclose(_meso.authors_crops([region])[0].astype(int), region.pixels, atol=1)
    real = keras_output(name, weights, _meso.authors_crops([region])[0] / 255)
    assert 0.01 < real < 0.99
    assert scorer.score([region, region]) == pytest.approx([1 - real] * 2, abs=1e-5)
    assert scorer.score([]).shape == (0,)


def test_as_many_weights_as_in_the_paper() -> None:
    for name, count in (("meso4", 27_977), ("meso_inception", 28_615)):
        network = MESO[name].network(MESO[name].Config())
        assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("degrees", [0, 25, -140])
def test_the_authors_crop(degrees: float) -> None:
    """Where a crop's pixels lie is read off a picture whose levels are its coordinates."""
    size = 240
    y, x = np.mgrid[:size, :size] + 0.5
    pixels = np.stack([x, y, 0 * x], axis=2).astype(np.uint8)
    turn = np.exp(1j * np.deg2rad(degrees))
    # Eyes 30 apart, the mouth 40 below them, the nose's tip half-way; in the picture's middle.
    standing = np.array([-15 - 20j, 15 - 20j, 0, -10 + 20j, 10 + 20j])
    places = 120 + 120j + turn * standing
    points = np.stack([places.real, places.imag], axis=1).astype(np.float32)
    box = np.array([80, 80, 160, 160], np.float32)
    crop = _meso.authors_crops([Region(pixels, Face(box, points, 1.0))])[0].astype(float)
    side = 2.86 * 40
    for u, v in ((0.5, 0.5), (0.3, 0.5), (0.5, 0.8), (0.75, 0.25)):
        # The middle lies a fourth of the way from the tip to the eyes.
        expected = 120 + 120j + turn * (-5j + side * (u - 0.5 + 1j * (v - 0.5)))
        found = crop[int(v * 256), int(u * 256)]
        assert found[0] + 0.5 + 1j * (found[1] + 0.5) == pytest.approx(expected, abs=1.5)
    still = Region(pixels, Face(box, np.full((5, 2), 3.0, np.float32), 1.0))
    with pytest.raises(FacekitError, match="apart"):
        _meso.authors_crops([still])


def test_bad_keras_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = keras_weights("meso4")
    for change, message in (
        ({"conv2d_7/kernel": np.zeros((5, 5, 3, 8))}, "layer 'conv2d_7' is not that of Meso-4"),
        ({"dense_7/kernel": np.zeros((1000, 16))}, "layer 'dense_7' is not that of Meso-4"),
        ({"dense_8/bias": np.full(1, np.nan)}, "layer 'dense_8' holds numbers that are not finite"),
        ({"conv2d_11/kernel": np.zeros((5, 5, 16, 16))}, "5 layers 'conv2d', but Meso-4 has 4"),
    ):
        path = write_h5(tmp_path / "bad.h5", {**good, **change})
        with pytest.raises(FacekitError, match=message):
            meso4.load_h5(path)
    path = write_h5(tmp_path / "bad.h5", {k: v for k, v in good.items() if "gamma" not in k})
    with pytest.raises(FacekitError, match="'batch_normalization_7' is not that of"):
        meso4.load_h5(path)
    with pytest.raises(FacekitError, match=r"4 layers 'conv2d', but MesoInception-4 has 16"):
        meso_inception.load_h5(write_h5(path, good))
    path.write_bytes(path.read_bytes()[:3000])
    for broken in (path, tmp_path / "none.h5", tmp_path):
        with pytest.raises(FacekitError, match="not a readable HDF5 file"):
            meso4.load_h5(broken)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(FacekitError, match=r"pip install 'facekit-toolkit\[references\]'"):
        meso4.load_h5(path)


# The linear probe


def test_the_probe_is_logistic_regression(tmp_path: Path, timm: Any) -> None:
    torch.manual_seed(8)
    original = Backbone()
    file = tmp_path / "tiny.safetensors"
    save_file({**original.state_dict(), "classifier.weight": torch.zeros(5, 6)}, file)
    settings = settings_of("timm_probe", weights=str(file), pretrained=False, regularisation=2.0)
    network = timm_probe.network(settings)
    images, labels = pictures(80)
    timm_probe.fit(network, to_tensor(images), labels, settings)
    for key, value in original.state_dict().items():
        assert torch.equal(network.backbone.state_dict()[key], value), key

    pictured = torch.from_numpy(images / 255).permute(0, 3, 1, 2)
    expected = timm.data.resolve_model_data_config(None)
    seen = (pictured - torch.tensor(expected["mean"]).view(3, 1, 1)) / torch.tensor(
        expected["std"]
    ).view(3, 1, 1)
    features = original.eval()(seen.float()).detach().double().numpy()
    peer = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=5000))
    peer.fit(features, labels)
    np.testing.assert_allclose(
        network_logits(network, images), peer.decision_function(features), atol=1e-3
    )
    # A frozen network stays as it was, even in training mode.
    network.train()(to_tensor(images))
    assert not network.backbone.training
    assert torch.equal(network.backbone.norm.running_mean, original.norm.running_mean)


def test_bad_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = pictures(8)
    with pytest.raises(FacekitError, match=r"no network 'tinny'.*did you mean 'tiny'"):
        timm_probe.network(settings_of("timm_probe", model="tinny"))
    with pytest.raises(FacekitError, match=r"takes no pictures of 48×48.*set data\.size"):
        timm_probe.network(settings_of("timm_probe", data={"size": 48}))
    other = tmp_path / "other.safetensors"
    save_file({"stem.weight": torch.zeros(2)}, other)
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    for change, message in (
        ({"pretrained": False}, "give either 'weights'"),
        ({"weights": "x.safetensors"}, "give either 'weights'"),
        ({"pretrained": False, "weights": str(tmp_path / "none")}, "not a readable safetensors"),
        (
            {"pretrained": False, "weights": str(tmp_path / "noise.safetensors")},
            "not a readable safetensors",
        ),
        ({"pretrained": False, "weights": str(other)}, "not the weights of 'tiny'; of 7 tensors 7"),
    ):
        settings = settings_of("timm_probe", **change)
        with pytest.raises(FacekitError, match=message):
            timm_probe.fit(timm_probe.network(settings), to_tensor(images), labels, settings)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(FacekitError, match=r"pip install 'facekit-toolkit\[backbones\]'"):
        timm_probe.network(settings_of("timm_probe"))
