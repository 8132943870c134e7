"""Convolutions whose channels a style weighs: StyleGAN2's building block.

Paper: Karras, Laine, Aittala, Hellsten, Lehtinen, Aila, "Analyzing and Improving the Image Quality
of StyleGAN", CVPR 2020, arXiv:1912.04958, section 2.2 and appendix B. Written from its equations;
no code taken.

A style s weighs the input channels of the weights, w'_oik = s_i · w_oik, and each output channel is
brought back to the length that it would have on average, w''_oik = w'_oik / √(Σ_ik w'_oik²). The
paper convolves each sample with weights of its own, a grouped convolution. Here one dense
convolution serves the batch, with the activations scaled before and after it: the same numbers,
several times as fast on a processor.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ModulatedConv(nn.Module):
    """A convolution that keeps the size, modulated by a style (B, style) and demodulated.

    Args:
        inputs: channels.
        outputs: channels.
        style: numbers of a style.
        kernel: side of the kernel, odd.
        demodulate: whether outputs are brought to unit length; not where they are colours.
    """

    def __init__(
        self, inputs: int, outputs: int, style: int, kernel: int = 3, demodulate: bool = True
    ) -> None:
        super().__init__()
        self.demodulate = demodulate
        fan_in = inputs * kernel**2
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel) / fan_in**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.affine = nn.Linear(style, inputs)
        nn.init.normal_(self.affine.weight, std=style**-0.5)
        nn.init.ones_(self.affine.bias)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Convolve (B, inputs, H, W) to (B, outputs, H, W), in the type of ``x``."""
        weighed = self.affine(style).float()
        y = F.conv2d(
            x * weighed.to(x.dtype)[:, :, None, None],
            self.weight.to(x.dtype),
            padding=self.weight.shape[-1] // 2,
        )
        if self.demodulate:
            power = weighed.square() @ self.weight.float().square().sum((2, 3)).T
            y = y * torch.rsqrt(power + 1e-8).to(y.dtype)[:, :, None, None]
        return y + self.bias.to(y.dtype)[:, None, None]


class Mapping(nn.Module):
    """Noise (B, latent) → styles (B, style): from a sphere to wherever styles are at ease.

    Args:
        latent: numbers of the noise, brought to length √latent.
        style: numbers of a style, and units of the hidden layers.
        depth: layers.
    """

    def __init__(self, latent: int, style: int, depth: int = 2) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(depth):
            layer = nn.Linear(style if i else latent, style)
            nn.init.kaiming_normal_(layer.weight, 0.2)
            nn.init.zeros_(layer.bias)
            layers += [layer, nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)

    def forward(self, noise: Tensor) -> Tensor:
        """Map a batch."""
        noise = noise.float()
        styles: Tensor = self.layers(noise * torch.rsqrt(noise.square().mean(1, True) + 1e-8))
        return styles
