"""Pixels at the edges to tensors in the networks, and back."""

import torch
from torch import Tensor

from facekit.types import Pixels


def to_images(pixels: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) → float32 (B, 3, H, W) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def to_pixels(images: Tensor) -> Pixels:
    """Float (B, 3, H, W) in [-1, 1] → uint8 (B, H, W, 3) on the CPU."""
    scaled = (images.float().clamp(-1, 1) + 1) * 127.5
    pixels: Pixels = scaled.round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels
