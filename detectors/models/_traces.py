"""Statistics of a picture in which generators' up-sampling and blending show; no weights.

- ``spectrum``: Durall, Keuper & Keuper, "Watch your Up-Convolution: CNN Based Generative Deep
  Neural Networks are Failing to Reproduce Spectral Distributions", CVPR 2020 (arXiv:2003.01826),
  sections 3 and 5: up-sampling leaves too much or too little power at high frequencies. Here the
  spectrum is that of luma under a Hann window (the picture's own borders would otherwise dominate
  the high frequencies) and is taken in decibels.
- ``dct``: Giudice, Guarnera & Battiato, "Fighting Deepfakes by Detecting GAN DCT Anomalies",
  J. Imaging 2021 (arXiv:2101.09781): the scale of each AC coefficient's Laplacian distribution
  over 8×8 blocks, whose best estimate is the mean magnitude; here in decibels.
- ``cooccurrence``: Fridrich & Kodovský, "Rich Models for Steganalysis of Digital Images", IEEE
  TIFS 2012, section II, and Cozzolino, Poggi & Verdoliva, "Recasting Residual-based Local
  Descriptors as Convolutional Neural Networks", 2017: how often three neighbouring noise residuals
  occur together. One residual (the second difference), three neighbours and five levels, where the
  paper has dozens, four and as many: 78 numbers rather than 34,671.

Written anew from the papers. All are float64: differences of tiny powers are what counts.
"""

from collections.abc import Sequence
from itertools import product
from typing import Literal

import torch
from scipy.fft import dct
from torch import Tensor, nn
from torch.nn import functional as F

Name = Literal["spectrum", "dct", "cooccurrence"]

_AT_ONCE = 64
_BLOCK = 8
_LEVELS = 5  # of a residual: 0, ±1, ±2
_LUMA = (299, 587, 114)  # BT.601, in thousandths


class Traces(nn.Module):
    """(B, 3, S, S) in [-1, 1] to (B, :attr:`count`), float64; nothing of it is learnt.

    Attributes:
        count: how many numbers describe a picture.
    """

    def __init__(self, names: Sequence[Name], size: int) -> None:
        """Those of ``names``, one after the other, for pictures of side ``size``."""
        super().__init__()
        kinds: dict[str, type[_Part]] = {
            "spectrum": Spectrum,
            "dct": BlockDCT,
            "cooccurrence": Cooccurrence,
        }
        parts: list[_Part] = [kinds[name](size) for name in names]
        self.parts = nn.ModuleList(parts)
        self.count = sum(part.count for part in parts)

    def forward(self, images: Tensor) -> Tensor:
        """The numbers of each picture."""
        luma = luma_of(images)
        return torch.cat([part(luma) for part in self.parts], dim=1)

    def of_many(self, images: Tensor) -> Tensor:
        """The same, some at a time: float64 spectra of all pictures would fill the memory."""
        starts = range(0, len(images), _AT_ONCE)
        return torch.cat([self(images[start : start + _AT_ONCE]) for start in starts])


class Spectrum(nn.Module):
    """Mean power at 1 … S // 2 cycles a picture, in dB: luma (B, S, S) to (B, S // 2)."""

    window: Tensor
    rings: Tensor

    def __init__(self, size: int) -> None:
        """For pictures of one size; each ring is a cycle wide."""
        super().__init__()
        self.count = size // 2
        hann = torch.hann_window(size, periodic=False, dtype=torch.float64)
        cycles = torch.fft.fftfreq(size, d=1 / size, dtype=torch.float64)
        # A real picture's spectrum is the same on both sides: half of it is computed, and its inner
        # columns count twice.
        half = cycles[: size // 2 + 1].abs()
        twice = torch.where((half == 0) | (2 * half == size), 1.0, 2.0).expand(size, -1).flatten()
        radius = torch.hypot(cycles[:, None], half[None, :]).round().flatten()
        # The mean over each ring as one matrix product; corners beyond Nyquist are left out.
        rings = (radius[:, None] == torch.arange(1, size // 2 + 1)) * twice[:, None].double()
        # These follow from the size, so they are no part of the saved weights.
        self.register_buffer("window", hann[:, None] * hann[None, :], persistent=False)
        self.register_buffer("rings", rings / rings.sum(0), persistent=False)

    def forward(self, luma: Tensor) -> Tensor:
        """The spectrum of each picture."""
        luma = luma / 127.5
        luma = luma - luma.mean((1, 2), keepdim=True)
        power = torch.fft.rfft2(luma * self.window).abs().square()
        # The floor lies far below one grey level's power, and keeps a flat picture finite.
        return 10 * torch.log10(power.flatten(1) @ self.rings + 1e-6)


class BlockDCT(nn.Module):
    """Mean magnitude of the 63 AC coefficients of 8×8 blocks, in dB: (B, S, S) to (B, 63)."""

    basis: Tensor

    def __init__(self, size: int) -> None:
        """For pictures of any size; rows and columns beyond the last whole block are left out."""
        super().__init__()
        self.count = _BLOCK * _BLOCK - 1
        rows = torch.from_numpy(dct(torch.eye(_BLOCK, dtype=torch.float64).numpy(), norm="ortho"))
        # Row k of the transposed is the k-th cosine.
        basis = torch.einsum("xu,yv->uvxy", rows, rows).reshape(_BLOCK**2, 1, _BLOCK, _BLOCK)
        self.register_buffer("basis", basis[1:], persistent=False)

    def forward(self, luma: Tensor) -> Tensor:
        """The magnitudes of each picture, coefficient (0, 1) first, (7, 7) last."""
        coefficients = F.conv2d(luma[:, None], self.basis, stride=_BLOCK)
        # A thousandth of a grey level keeps a flat picture finite.
        return 20 * torch.log10(coefficients.abs().mean((2, 3)) + 1e-3)


class Cooccurrence(nn.Module):
    """How often residuals occur together: luma (B, S, S) to (B, 78), square roots of shares.

    The residual of a pixel is its neighbours' sum less twice its own level, along a row or a
    column. Three that stand in a line are looked at, once along the residual's own direction and
    once across it. A triple, its negative and its mirror image are counted as one: pictures have no
    preference among them.
    """

    kinds: Tensor

    def __init__(self, size: int) -> None:
        """For pictures of any size."""
        super().__init__()
        numbers: dict[tuple[int, ...], int] = {}
        half = _LEVELS // 2
        kinds = []
        for a, b, c in product(range(-half, half + 1), repeat=3):
            alike = max((a, b, c), (c, b, a), (-a, -b, -c), (-c, -b, -a))
            kinds.append(numbers.setdefault(alike, len(numbers)))
        self.count = 2 * len(numbers)
        # Which of the 125 triples are of each kind.
        one_hot = F.one_hot(torch.tensor(kinds), len(numbers)).double()
        self.register_buffer("kinds", one_hot, persistent=False)

    def forward(self, luma: Tensor) -> Tensor:
        """Along, then across."""
        # Whole numbers, so that no rounding depends on how a sum was computed; small ones are
        # quicker.
        levels = luma.round().short()
        along: list[Tensor] = []
        across: list[Tensor] = []
        for turned in (levels, levels.transpose(1, 2).contiguous()):
            second = turned[:, :, 2:] - 2 * turned[:, :, 1:-1] + turned[:, :, :-2]
            # In steps of two grey levels, the residual's own weight of the pixel, away from zero.
            half = _LEVELS // 2
            steps = (second.clamp(-2 * half, 2 * half) + second.sign()).div(
                2, rounding_mode="trunc"
            )
            residual = steps + half
            along.append(
                self._counts(residual[:, :, :-2], residual[:, :, 1:-1], residual[:, :, 2:])
            )
            across.append(self._counts(residual[:, :-2], residual[:, 1:-1], residual[:, 2:]))
        return torch.cat([self._shares(along), self._shares(across)], dim=1)

    def _counts(self, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
        """How many triples of each of the 125: (B, 125)."""
        triples = ((first * _LEVELS + second) * _LEVELS + third).flatten(1).int()
        bins = _LEVELS**3
        offset = torch.arange(len(triples), dtype=torch.int32, device=triples.device)[:, None]
        counted = torch.bincount((triples + offset * bins).flatten(), minlength=bins * len(triples))
        return counted.view(-1, bins)

    def _shares(self, counts: list[Tensor]) -> Tensor:
        kinds = sum(counts, torch.zeros_like(counts[0])).double() @ self.kinds
        return (kinds / kinds.sum(dim=1, keepdim=True)).sqrt()


_Part = Spectrum | BlockDCT | Cooccurrence


def luma_of(images: Tensor) -> Tensor:
    """Luma in grey levels, 0 to 255, float64 (B, H, W), of (B, 3, H, W) in [-1, 1].

    The pictures are 8-bit ones; their levels are found again, so that the result is exact.
    """
    levels = ((images + 1) * 127.5).round()
    red, green, blue = (levels[:, i] * weight for i, weight in enumerate(_LUMA))
    return (red + green + blue).double() / sum(_LUMA)  # whole numbers that float32 can hold
