"""facenet-pytorch's InceptionResnetV1, with weights that the user brings or has downloaded.

Network: Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
Learning", 2016, arXiv:1602.07261, as FaceNet's re-implementations use it; 512 numbers. Code: MIT,
Tim Esler, github.com/timesler/facenet-pytorch. Weights: learned on VGGFace2 or CASIA-WebFace, sets
of photos for research; they do not come with facekit or with the package.

Files are never unpickled freely: the library's own loader would be, in older torch.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.faces.embed import in_batches
from facekit.types import Floats, Pixels

DOWNLOADS = {
    name: f"https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/{file}.pt"
    for name, file in {
        "vggface2": "20180402-114759-vggface2",
        "casia-webface": "20180408-102900-casia-webface",
    }.items()
}
"""The library's own files; one of these names instead of a file has it downloaded (110 MB)."""

_WIDTH = 512


class Embedder:
    """InceptionResnetV1 with its weights; an :class:`facekit.faces.embed.Embedder`.

    The network was trained on MTCNN's boxes with a margin; of the templates, "face" shows the
    most similar part of a face.
    """

    template = "face"
    size = 160
    licence = "the user's own file; the library's weights were learned on photos for research only"

    def __init__(self, device: torch.device, *, weights: Path | None = None) -> None:
        """Load the network.

        Args:
            device: where to compute.
            weights: safetensors, or a .pt file of the library; or a name in ``DOWNLOADS``, which is
                downloaded once into torch's cache.

        Raises:
            FacekitError: if there are no weights, or they are not this network's, or cannot be
                downloaded.
        """
        # Only here: who does not use this network need not wait for the library.
        from facenet_pytorch.models.inception_resnet_v1 import InceptionResnetV1

        if weights is None:
            raise FacekitError(
                "the identity network inception_resnet comes without weights: give a .safetensors "
                f"or .pt file, or one of {', '.join(DOWNLOADS)} to download the library's (110 MB)"
            )
        path = weights
        if not path.exists() and str(weights) in DOWNLOADS:
            path = _downloaded(str(weights))
        values = _read(path)
        # The classifier that the library's files end with is of no use for new people.
        values = {name: v for name, v in values.items() if not name.startswith("logits.")}
        self._device = device
        self._network = InceptionResnetV1()
        try:
            self._network.load_state_dict(values)
        except RuntimeError as error:
            raise FacekitError(
                f"{path}: not weights of facenet-pytorch's InceptionResnetV1"
            ) from error
        self._network.to(device).eval()

    def embed(self, crops: Pixels) -> Floats:
        """See :class:`facekit.faces.embed.Embedder`."""
        return in_batches(self._scaled, crops, self.size, self._device, _WIDTH)

    def _scaled(self, images: Tensor) -> Tensor:
        # The library's range is (pixel - 127.5) / 128.
        vectors: Tensor = self._network(images * (127.5 / 128))
        return vectors


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FacekitError(f"{path}: no such file of weights") from None
    except Exception as error:  # torch raises whatever its reader stumbles over
        raise FacekitError(
            f"{path}: not readable as weights (.safetensors, or a .pt file that holds tensors only)"
        ) from error
    if not isinstance(values, dict) or not all(isinstance(v, Tensor) for v in values.values()):
        raise FacekitError(f"{path}: holds more than the tensors of a network")
    return values


def _downloaded(name: str) -> Path:
    """The library's file in torch's cache, fetched unless it is there."""
    url = DOWNLOADS[name]
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.is_file():
        return path
    with files.replacing(path) as partial:
        try:
            torch.hub.download_url_to_file(url, str(partial), progress=False)
        except OSError as error:
            raise FacekitError(
                f"{name}: cannot be downloaded from {url} ({error}); fetch the file yourself and "
                "give its path"
            ) from error
    return path
