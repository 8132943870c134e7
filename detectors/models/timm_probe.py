"""Logistic regression on the features of a frozen network of timm's, for those who have weights.

Alain & Bengio, "Understanding Intermediate Layers Using Linear Classifier Probes", 2016
(arXiv:1610.01644), for the probe; Ojha, Li & Lee, "Towards Universal Fake Image Detectors that
Generalize Across Generative Models", CVPR 2023 (arXiv:2302.10174), for why features that were not
learnt on forgeries (CLIP's) tell those of unseen generators. EfficientNet-B4, ConvNeXt, CLIP's and
DINO's vision transformers each have a config; any of timm's networks may be named.

It has been run with networks of random weights only, not with real ones: no figure is claimed for
it. timm (Wightman 2019) is an extra, imported when such a detector is built, and nothing is
downloaded unless the config says ``pretrained: true``. The trained detector's file holds the
network's weights as well, so that scoring needs timm but no other file.
"""

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from detectors.data import Faces, Labels
from detectors.models._linear import Linear
from facekit.core.config import Config as BaseConfig
from facekit.core.errors import FacekitError, did_you_mean

_AT_ONCE = 32


class Config(BaseConfig):
    """Settings.

    Attributes:
        data: the faces it sees; transformers take one size only.
        model: timm's name of the network.
        weights: a safetensors file of timm's with the network's weights (such as
            ``model.safetensors`` of its page at Hugging Face); read when training begins.
        pretrained: let timm download the weights instead.
        passes: how often each training face is seen, each time re-compressed anew.
        regularisation: weight of the L2 penalty on the coefficients.
    """

    data: Faces = Faces(size=224)
    model: str = "efficientnet_b4.ra2_in1k"
    weights: str = ""
    pretrained: bool = False
    passes: int = Field(2, ge=1, le=100)
    regularisation: float = Field(1.0, gt=0)


class Probe(nn.Module):
    """(B, 3, S, S) in [-1, 1] to logits (B,), float32, so that any device will do.

    Attributes:
        backbone: timm's network without its classifier, frozen and always in evaluation mode.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, backbone: nn.Module, features: int, mean: Any, deviation: Any) -> None:
        """``mean`` and ``deviation`` of each channel, in [0, 1], are what the network expects."""
        super().__init__()
        self.backbone = backbone.requires_grad_(False).eval()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).view(3, 1, 1))
        self.head = nn.Linear(features, 1).requires_grad_(False)

    def train(self, mode: bool = True) -> "Probe":
        """Training mode for all but the backbone, whose norms must stay as they are."""
        super().train(mode)
        self.backbone.eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """What the network makes of the pictures, before its classifier: (B, F)."""
        features: Tensor = self.backbone(((images + 1) / 2 - self.mean) / self.deviation)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Logits, before calibration."""
        logits: Tensor = self.head(self.features(images))[:, 0]
        return logits


def network(config: Config) -> nn.Module:
    """The detector with random weights; :func:`fit` or a detector's file brings the real ones.

    Raises:
        FacekitError: if timm is not installed, knows no such network, or it takes another size.
    """
    timm = _timm()
    try:
        backbone = timm.create_model(config.model, pretrained=False, num_classes=0).eval()
    except RuntimeError as error:
        hint = did_you_mean(config.model, timm.list_models()).partition("allowed:")[0]
        raise FacekitError(
            f"timm has no network '{config.model}' ({error}); {hint}see timm.list_models()"
        ) from error
    size = config.data.size
    try:
        with torch.inference_mode():
            shape = tuple(backbone(torch.zeros(1, 3, size, size)).shape)
    except (AssertionError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise FacekitError(
            f"'{config.model}' takes no pictures of {size}×{size} ({why}); set data.size"
        ) from error
    if len(shape) != 2:
        raise FacekitError(f"'{config.model}' gives features of shape {shape}, not one vector")
    expected = timm.data.resolve_model_data_config(backbone)
    return Probe(backbone, shape[1], expected["mean"], expected["std"])


def fit(network: Probe, images: Tensor, labels: Labels, config: Config) -> None:
    """Bring in the weights, then fit on all training pictures at once.

    Args:
        network: of :func:`network`, on any device.
        images: (N, 3, S, S) in [-1, 1].
        labels: (N,).
        config: names the weights.

    Raises:
        FacekitError: if the config names no weights, or they are not this network's.
    """
    _bring_weights(network.backbone, config)
    device = network.head.weight.device
    with torch.inference_mode():
        features = torch.cat(
            [
                network.features(images[start : start + _AT_ONCE].to(device))
                for start in range(0, len(images), _AT_ONCE)
            ]
        )
    linear = Linear(features.shape[1])
    linear.fit(features.double(), labels, config.regularisation)
    # The standardisation becomes part of the weights.
    weight = linear.coefficient / linear.scale
    network.head.weight.copy_(weight[None])
    network.head.bias.copy_(linear.intercept - linear.mean @ weight)


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise FacekitError(
            "this detector stands on timm, which is not installed; "
            "pip install 'facekit-toolkit[backbones]'"
        ) from error
    return timm


def _bring_weights(backbone: nn.Module, config: Config) -> None:
    if bool(config.weights) == config.pretrained:
        raise FacekitError(
            "a probe of random features tells nothing: give either 'weights', a safetensors file "
            f"of '{config.model}' as timm names its tensors, or 'pretrained: true' to download them"
        )
    if config.pretrained:
        original = _timm().create_model(config.model, pretrained=True, num_classes=0)
        backbone.load_state_dict(original.state_dict())
        return
    path = Path(config.weights)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FacekitError(f"{path}: not a readable safetensors file ({error})") from error
    own = backbone.state_dict()
    missing = [
        key for key, value in own.items() if key not in tensors or tensors[key].shape != value.shape
    ]
    if missing:
        raise FacekitError(
            f"{path}: not the weights of '{config.model}'; of {len(own)} tensors {len(missing)} "
            f"are missing or have another shape, the first '{missing[0]}'"
        )
    # The classifier, which the probe replaces, stays behind.
    backbone.load_state_dict({key: tensors[key] for key in own})
