"""Say which pixels of a crop show the bare face: no hair over it, no glasses, no hand, no cup.

A compact U-Net (Ronneberger et al., "U-Net: Convolutional networks for biomedical image
segmentation", 2015, arXiv:1505.04597) of residual blocks (He et al., "Deep residual learning for
image recognition", 2015, arXiv:1512.03385). It works at half resolution and coarser, and tells the
four pixels of each cell apart at the end (Shi et al., "Real-time single image and video
super-resolution using an efficient sub-pixel convolutional neural network", 2016,
arXiv:1609.05158). Written anew; no code taken.

It is taught on people who don't exist only, by :mod:`facekit.studio.lessons.visible`.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from facekit.core import weights as bundled
from facekit.core.errors import FacekitError
from facekit.networks.folded import Conv, Residual, fold_convs

WEIGHTS = Path(__file__).parent.parent / "weights"

TEMPLATE = "face"
"""The template of the crops that the network reads."""

SIZE = 128
"""Side of the crops that the network works on, in pixels; others are brought to it."""

_AT_ONCE = 64

# Added to the logits. Two in five of those who taught it wear glasses, far more than in photos: it
# takes the shadows about bare eyes for lenses in 2 of 34 portraits, and by this in none.
_MORE_FACE = 1.0


class VisibleNet(nn.Module):
    """Crops (B, 3, 128, 128) in [-1, 1] → logits (B, 1, 128, 128); about 0.9 million parameters.

    From 64×64 cells down to 8×8, where each sees the whole crop, and back up.
    """

    def __init__(self, *, folded: bool = False) -> None:
        """Make the network.

        Args:
            folded: without batch normalisation, for the weights of :func:`fold`.
        """
        super().__init__()
        self.fine = Conv(12, 20, 1, folded)
        self.quarter = nn.Sequential(Conv(20, 36, 2, folded), Residual(36, folded))
        self.eighth = nn.Sequential(
            Conv(36, 72, 2, folded), Residual(72, folded), Residual(72, folded)
        )
        self.coarse = nn.Sequential(
            Conv(72, 112, 2, folded), Residual(112, folded), Residual(112, folded)
        )
        self.mix_eighth = Conv(112 + 72, 64, 1, folded)
        self.mix_quarter = Conv(64 + 36, 36, 1, folded)
        self.mix_fine = Conv(36 + 20, 20, 1, folded)
        self.say = nn.Conv2d(20, 4, 3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        fine = self.fine(F.pixel_unshuffle(images, 2))
        quarter = self.quarter(fine)
        eighth = self.eighth(quarter)
        mixed = self.mix_eighth(_joined(self.coarse(eighth), eighth))
        mixed = self.mix_quarter(_joined(mixed, quarter))
        mixed = self.mix_fine(_joined(mixed, fine))
        return F.pixel_shuffle(self.say(mixed), 2)


def _joined(coarse: Tensor, fine: Tensor) -> Tensor:
    return torch.cat([F.interpolate(coarse, scale_factor=2, mode="nearest"), fine], 1)


def fold(net: VisibleNet) -> dict[str, Tensor]:
    """The tensors of ``VisibleNet(folded=True)`` that says what ``net`` does in ``eval`` mode."""
    return fold_convs(net.eval())


def shares(logits: Tensor) -> Tensor:
    """What a network's logits say of how far each pixel is bare face, float32 in [0, 1]."""
    return (logits.float() + _MORE_FACE).sigmoid()


class Visible:
    """Tells the bare face from all else; see :func:`load_visible`."""

    def __init__(self, net: VisibleNet, device: torch.device) -> None:
        """Take a network of folded weights."""
        # Channels last is about a quarter faster on a processor.
        net = net.eval().requires_grad_(False)
        self._net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device

    @torch.inference_mode()
    def __call__(self, crops: Tensor) -> Tensor:
        """The share of bare face in each pixel.

        Args:
            crops: float32 RGB (B, 3, S, S) in [-1, 1], of template "face", on any device. The
                person is the one whom the crop is centred on.

        Returns:
            float32 (B, 1, S, S) in [0, 1], on the device of ``crops``: 1 where the inner face is
            seen, from above the brows to the jaw, with eyes, brows, lips, what is between them,
            and beard; 0 on hair of the head, frames and lenses of glasses, whatever else covers
            the face, neck and background.

        Raises:
            FacekitError: for another shape.
        """
        if crops.dim() != 4 or crops.shape[1] != 3 or crops.shape[2] != crops.shape[3]:
            raise FacekitError(
                f"crops of shape {tuple(crops.shape)}: expected (B, 3, S, S), square RGB crops of "
                f"template '{TEMPLATE}'"
            )
        if not len(crops):
            return crops.new_zeros(0, 1, *crops.shape[2:], dtype=torch.float32)
        parts = [self._read(part) for part in torch.split(crops, _AT_ONCE)]
        return torch.cat(parts).to(crops.device)

    def _read(self, crops: Tensor) -> Tensor:
        size = crops.shape[2]
        images = _resized(crops.to(self._device).float(), SIZE)
        logits = self._net(images.contiguous(memory_format=torch.channels_last))
        return _resized(shares(logits), size).clamp(0, 1)


def _resized(images: Tensor, size: int) -> Tensor:
    if images.shape[2] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=images.shape[2] > size)


def load_visible(device: torch.device, weights: Path | None = None) -> Visible:
    """Load the network.

    Args:
        device: where to compute.
        weights: a .safetensors file of ``facekit studio teach``; None for the bundled one.

    Returns:
        Something to call: float32 crops (B, 3, S, S) in [-1, 1] of template "face", of any side,
        → float32 (B, 1, S, S) in [0, 1]; see :meth:`Visible.__call__`.

    Raises:
        FacekitError: if the file cannot be read or is not of this network.

    Example:
        >>> visible = load_visible(torch.device("cpu"))
        >>> visible(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 1, 64, 64])
    """
    path = bundled.find(WEIGHTS, "visible")[0] if weights is None else weights
    net = VisibleNet(folded=True)
    try:
        net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    except (OSError, SafetensorError) as error:
        raise FacekitError(f"{path}: not readable as safetensors ({error})") from error
    except RuntimeError as error:
        raise FacekitError(
            f"{path}: not the weights of this version's network of the bare face; make them with "
            "'facekit studio teach lessons/visible'"
        ) from error
    return Visible(net, device)
