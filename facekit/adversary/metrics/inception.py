"""Inception's features, for numbers that compare with those of papers.

Network: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016,
arXiv:1512.00567, with the weights of 2015-12-05 that FID was defined on, as torch-fidelity
converted them (Obukhov et al., 2020). Neither the package nor the weights come with this project:
install ``facekit-toolkit[fidelity]``, and put the file there yourself. Nothing is downloaded here.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facekit.adversary.metrics._inputs import check_images
from facekit.core import files
from facekit.core.errors import FacekitError

FILE = "weights-inception-2015-12-05-6726825d.pth"
SOURCE = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"

_AT_ONCE = 16


class InceptionFeatures:
    """2048 numbers of a picture; a :class:`facekit.adversary.metrics.features.Features`."""

    name = "Inception 2015-12-05 (torch-fidelity)"

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        """Load the network.

        Args:
            device: where to compute; images must lie there.
            weights: :data:`FILE`; None for the one in torch hub's cache, where torch-fidelity's
                own programs keep it.

        Raises:
            FacekitError: if the file is not there or not the network's, or torch-fidelity is not
                installed.
        """
        path = weights or Path(torch.hub.get_dir()) / "checkpoints" / FILE
        if not path.is_file():
            raise FacekitError(f"{path}: no such file; it can be had from {SOURCE}")
        # torch-fidelity unpickles the file without restraint. One that torch reads with nothing but
        # tensors allowed does no harm then either.
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises whatever its reader stumbles over
            raise FacekitError(
                f"{path}: not readable as weights of Inception; it can be had from {SOURCE}"
            ) from error
        self.sha256 = files.sha256(path)
        try:
            self._net = _extractor(path).to(device)
        except RuntimeError as error:
            raise FacekitError(
                f"{path}: weights of another network; Inception's can be had from {SOURCE}"
            ) from error

    def __call__(self, images: Tensor) -> Tensor:
        """See :class:`facekit.adversary.metrics.features.Features`."""
        check_images(1, images=images)
        pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255).byte()
        with torch.no_grad():
            parts = [self._net(part)[0].float() for part in torch.split(pixels, _AT_ONCE)]
            return torch.cat(parts) if len(pixels) else images.new_zeros(0, 2048)


def _extractor(path: Path) -> Any:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise FacekitError(
            "torch-fidelity is not installed; pip install 'facekit-toolkit[fidelity]', or use the "
            "features that come with facekit"
        ) from error
    return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path))
