"""What Meso-4 and MesoInception-4 share, and how the authors' Keras weights are read.

Afchar, Nozick, Yamagishi & Echizen, "MesoNet: a Compact Facial Video Forgery Detection Network",
WIFS 2018 (arXiv:1809.00888). Written anew from the paper; where it leaves a choice open (the
leaky units' slope, the face crop) it is that of the authors' published code, and Keras' defaults of
its time hold elsewhere (batch norm with ε = 1e-3). The authors' weights are under Apache-2.0; none
are part of facekit.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from detectors.calibrate import Scores
from detectors.regions import Region
from facekit.core.errors import FacekitError
from facekit.faces.align import draw_crop
from facekit.types import Face, Pixels

Arrays = NDArray[np.float32]

SIZE = 256
"""Side of the crops that the authors' weights were trained on."""

_SHRINKAGE = 32  # of all poolings together
_SLOPE = 0.1
_SIDE = 2.2 * 1.3  # of the crop, in units of the longer of eye to eye and eyes to mouth
_BATCH = 32


def convolution(inputs: int, outputs: int, size: int, dilation: int = 1) -> nn.Sequential:
    """A convolution that keeps the resolution, and its rectifier."""
    padding = dilation * (size // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=padding, dilation=dilation), nn.ReLU()
    )


class Meso(nn.Module):
    """(B, 3, S, S) in [-1, 1] to logits (B,): four stages, each normalised and pooled, and a head.

    S is 32 or more; what no whole window of a pooling covers, at the border, is left out.
    """

    def __init__(self, stages: Sequence[tuple[nn.Module, int]], size: int, dropout: float) -> None:
        """Each of ``stages``: what comes before the norm, and its number of channels."""
        super().__init__()
        self.stages = nn.ModuleList(stage for stage, _ in stages)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels, eps=1e-3) for _, channels in stages)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(stages[-1][1] * (size // _SHRINKAGE) ** 2, 16)
        self.head = nn.Linear(16, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, before calibration."""
        x = (images + 1) / 2
        for i, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            x = F.max_pool2d(norm(stage(x)), 4 if i == len(self.stages) - 1 else 2)
        x = self.hidden(self.dropout(x.flatten(1)))
        logits: Tensor = self.head(self.dropout(F.leaky_relu(x, _SLOPE)))[:, 0]
        return logits


class Reference:
    """A Meso network with the authors' weights, as a scorer.

    Attributes:
        name: of the network and of the file, e.g. ``Meso-4 (Meso4_DF)``.
    """

    def __init__(self, name: str, network: nn.Module) -> None:
        """``network`` takes crops of :data:`SIZE`; use a plug-in's ``load_h5``."""
        self.name = name
        self.network = network.eval()

    @torch.inference_mode()
    def score(self, regions: Sequence[Region]) -> Scores:
        """P(generated), as the authors' network gives it, of each face: float64 (N,)."""
        parts = [np.zeros(0, np.float64)]
        for start in range(0, len(regions), _BATCH):
            images = torch.from_numpy(authors_crops(regions[start : start + _BATCH]))
            logits = self.network(images.permute(0, 3, 1, 2).float() / 127.5 - 1)
            parts.append(torch.sigmoid(logits.double()).numpy())
        return np.concatenate(parts)


def authors_crops(regions: Sequence[Region]) -> Pixels:
    """The crops that the authors' code cuts: uint8 (N, 256, 256, 3).

    A square about the nose, upright by eyes and mouth, 2.86 times as wide as the eyes are apart, or
    as the mouth is below them if that is more. The code's nose is the middle between the bridge's
    landmarks and those under the tip; the fourth part of the way from tip to eyes stands for it,
    as of the five points only the tip is known.
    """
    drawn = np.empty((len(regions), SIZE, SIZE, 3), np.uint8)
    for crop, region in zip(drawn, regions, strict=True):
        draw_crop(crop, region.pixels, _image_from_crop(region.face))
    return drawn


def _image_from_crop(face: Face) -> NDArray[np.float64]:
    points = face.points.astype(np.float64)
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    middle = 0.75 * points[2] + 0.25 * eyes
    down = mouth - eyes
    length = float(np.hypot(*down))
    side = _SIDE * max(length, float(np.hypot(*(points[1] - points[0]))))
    if not math.isfinite(side) or not length:
        raise FacekitError("a face's five points must be finite and apart; it cannot be aligned")
    x, y = down / length * side / SIZE
    # The crop's second axis points from the eyes to the mouth.
    linear = np.array([[y, x], [-x, y]])
    return np.column_stack([linear, middle - linear @ [SIZE / 2, SIZE / 2]])


def read_h5(path: Path) -> dict[str, Arrays]:
    """The arrays of a Keras weights file: ``LAYER/kernel`` and the like → array.

    Raises:
        FacekitError: if h5py is not installed, or the file is none of Keras' weights.
    """
    try:
        import h5py
    except ImportError as error:
        raise FacekitError(
            "Keras weights are read with h5py, which is not installed; "
            "pip install 'facekit-toolkit[references]'"
        ) from error
    arrays: dict[str, Arrays] = {}

    def keep(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            layer, weight = name.split("/")[-2:]
            arrays[f"{layer}/{weight.partition(':')[0]}"] = np.asarray(item, np.float32)

    try:
        with h5py.File(path) as file:
            file.visititems(keep)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError) as error:
        raise FacekitError(
            f"{path}: not a readable HDF5 file of Keras weights ({error})"
        ) from error
    return arrays


def load_keras(
    network: Meso, convolutions: Sequence[nn.Conv2d], path: Path, name: str
) -> Reference:
    """Put the authors' weights into ``network``, whose crops are of :data:`SIZE`.

    Layers of a kind are matched in the order in which Keras numbered them, that is, made them.

    Args:
        network: is filled.
        convolutions: the network's, in the order in which the authors' code makes them.
        path: the weights.
        name: of the network.

    Raises:
        FacekitError: as :func:`read_h5`, or if the layers are not those of this network.
    """
    arrays = read_h5(path)
    for kind, targets, fill in (
        ("conv2d", convolutions, _fill_convolution),
        ("batch_normalization", network.norms, _fill_norm),
        ("dense", (network.hidden, network.head), _fill_dense),
    ):
        layers = _layers(arrays, kind)
        wanted = list(targets)
        if len(layers) != len(wanted):
            raise FacekitError(
                f"{path}: {len(layers)} layers '{kind}', but {name} has {len(wanted)}; give the "
                f"authors' weights of {name}"
            )
        for layer, target in zip(layers, wanted, strict=True):
            _checked(fill, target, arrays, layer, path, name)
    # Theirs gives P(real).
    with torch.no_grad():
        network.head.weight.neg_()
        network.head.bias.neg_()
    return Reference(f"{name} ({path.stem})", network)


def _layers(arrays: dict[str, Arrays], kind: str) -> list[str]:
    """The layers ``KIND_NUMBER``, in the order of their numbers."""
    names = {key.partition("/")[0] for key in arrays}
    found = [name for name in names if name.rpartition("_")[0] == kind]
    return sorted(found, key=lambda name: int(name.rpartition("_")[2]))


Fill = Callable[[nn.Module, Callable[[str], Arrays]], None]


def _checked(
    fill: Fill,
    target: nn.Module,
    arrays: dict[str, Arrays],
    layer: str,
    path: Path,
    name: str,
) -> None:
    """Fill one layer; what does not fit, or is no number, is an error that names the layer."""
    try:
        fill(target, lambda weight: arrays[f"{layer}/{weight}"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise FacekitError(f"{path}: layer '{layer}' is not that of {name} ({error})") from error
    if not all(bool(value.isfinite().all()) for value in target.state_dict().values()):
        raise FacekitError(f"{path}: layer '{layer}' holds numbers that are not finite")


def _fill_convolution(target: nn.Module, weight: Callable[[str], Arrays]) -> None:
    # Keras: height, width, inputs, outputs.
    _fill(target, weight=weight("kernel").transpose(3, 2, 0, 1), bias=weight("bias"))


def _fill_norm(target: nn.Module, weight: Callable[[str], Arrays]) -> None:
    _fill(
        target,
        weight=weight("gamma"),
        bias=weight("beta"),
        running_mean=weight("moving_mean"),
        running_var=weight("moving_variance"),
    )


def _fill_dense(target: nn.Module, weight: Callable[[str], Arrays]) -> None:
    kernel = weight("kernel")
    if len(kernel) > 16:  # the first one: its inputs are a map, of which Keras' channels run last
        side = SIZE // _SHRINKAGE
        kernel = kernel.reshape(side, side, -1, kernel.shape[1]).transpose(2, 0, 1, 3)
        kernel = kernel.reshape(-1, kernel.shape[3])
    _fill(target, weight=kernel.T, bias=weight("bias"))


def _fill(target: nn.Module, **values: Arrays) -> None:
    state = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in values.items()}
    if "running_mean" in state:
        state["num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
    target.load_state_dict(state)
