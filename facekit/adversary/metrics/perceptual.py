"""How different two pictures look: the distance of what networks find in them, at three scales.

After Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", CVPR 2018, arXiv:1801.03924 (LPIPS, without weights learned from people's
judgements). In each of the maps of :mod:`.features`, whose cells are 4, 8 and about 11 pixels of a
picture of 128, the vector of each cell is brought to length 1; the distance is the mean over cells
of the squared distance of the two vectors, and then over maps. So it does not compare with numbers
of LPIPS.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from facekit.adversary.metrics._inputs import check_pair
from facekit.adversary.metrics.features import LEAST_SIDE, FaceFeatures

_AT_ONCE = 32


def perceptual(features: FaceFeatures, first: Tensor, second: Tensor) -> Tensor:
    """The distance of each picture from its counterpart; it can be differentiated.

    Args:
        features: of :func:`facekit.adversary.metrics.features.load_features`.
        first: (B, 3, S, S) in [-1, 1], S ≥ 32, on the features' device.
        second: of the same shape.

    Returns:
        float32 (B,) in [0, 4], 0 for equal pictures.

    Raises:
        FacekitError: for other shapes or values.
    """
    check_pair(first, second, LEAST_SIDE)
    pairs = zip(torch.split(first, _AT_ONCE), torch.split(second, _AT_ONCE), strict=True)
    return torch.cat([distances(features, a, b) for a, b in pairs])


def distances(features: FaceFeatures, first: Tensor, second: Tensor) -> Tensor:
    """The same of a few pictures, unchecked, which costs a training loop no look at its values."""
    maps = [
        (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean((1, 2))
        for a, b in zip(features.maps(first), features.maps(second), strict=True)
    ]
    return torch.stack(maps).mean(0)
