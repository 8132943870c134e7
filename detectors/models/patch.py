"""A residual network on a window of the picture's own pixels: up-sampling and noise traces.

Tan et al., "Rethinking the Up-Sampling Operations in CNN-based Generative Network for
Generalizable Deepfake Detection", CVPR 2024 (arXiv:2312.10461): the network sees no picture, but
the differences between neighbouring pixels (NPR, equation 4), in which up-sampling shows and faces
hardly do. Written anew; no weights of others are used. Beside them stand the differences' own size,
as a window's noise level tells a pasted part from what is around it, and the window is taken from
the picture as it is, neither turned nor resampled, since resampling would lay its own traces over
those looked for.
"""

import torch
from torch import Tensor

from detectors.data import Faces
from detectors.models._residual import Layers, Localiser
from detectors.models._residual import objective as objective
from detectors.models.small_cnn import neighbouring_pixels
from detectors.train import Training


class Config(Layers):
    """Settings; those of the layers beside them.

    Attributes:
        data: the faces it sees.
        training: how long and how fast it learns.
    """

    data: Faces = Faces(template="native", size=128)
    training: Training = Training()


class Patch(Localiser):
    """(B, 3, S, S) in [-1, 1] to logits (B,)."""

    def seen(self, images: Tensor) -> Tensor:
        """The differences relative to the window's own, and as they are: (B, 6, S, S)."""
        differences = neighbouring_pixels(images)
        # A hundredth is about one grey level: a flat picture's own noise is not blown up.
        relative = differences / (differences.std((1, 2, 3), keepdim=True) + 0.01)
        return torch.cat([relative, (8 * differences).clamp(-2, 2)], dim=1)


def network(config: Config) -> Patch:
    """The detector, with fresh weights from torch's current random state."""
    return Patch(6, config)
