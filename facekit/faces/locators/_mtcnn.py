"""The three networks of MTCNN, with the weights that facenet-pytorch ships, and suppression.

Its weights are read from its files, and the overlaps are counted here: to import the library, and
torchvision's operators, takes over a second of a processor, in every process anew.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facekit.core.errors import FacekitError

State = dict[str, Tensor]

_BLOCK = 512  # boxes that are compared with all others at once


def load_state(name: str) -> State:
    """The weights of "pnet", "rnet" or "onet".

    Raises:
        FacekitError: if facenet-pytorch is not installed.
    """
    spec = find_spec("facenet_pytorch")  # which does not import it
    if spec is None or spec.origin is None:
        raise FacekitError("facenet-pytorch is not installed, whose weights the locator uses")
    path = Path(spec.origin).parent / "data" / f"{name}.pt"
    state: State = torch.load(path, map_location="cpu", weights_only=True)
    return state


class Proposer(nn.Module):
    """PNet's function, arranged for speed: it runs on many more pixels than the others.

    Its slow part is the first layer: convolution, PReLU, and the maximum of 2×2. A PReLU of slope
    a ≥ 0 is monotone and may as well follow the maximum, on a quarter of the pixels. Where a < 0,
    it is max(y, a·y), so its maximum is that of both y and a·y; for these channels the convolution
    yields a·y as well. Scores are left as logits: of face against no face.
    """

    def __init__(self, state: State) -> None:
        """Build it from the weights of "pnet"."""
        super().__init__()
        weight, bias, slope = state["conv1.weight"], state["conv1.bias"], state["prelu1.weight"]
        self._twice = int((slope < 0).sum())
        bent, straight = slope.argsort()[: self._twice], slope.argsort()[self._twice :]
        # Pixels 0 … 255 go in; that they are brought to -1 … 1 first is part of the layer.
        weight, bias = weight / 128, bias - 127.5 / 128 * weight.sum(dim=(1, 2, 3))
        factor = torch.cat([torch.ones(len(slope)), slope[bent]])
        order = torch.cat([bent, straight, bent])
        self.conv1 = _convolution(weight[order] * factor.view(-1, 1, 1, 1), bias[order] * factor)
        self.slope1 = nn.Parameter(slope[straight])
        order = torch.cat([bent, straight])
        self.conv2 = _convolution(state["conv2.weight"][:, order], state["conv2.bias"])
        self.prelu2 = _prelu(state["prelu2.weight"])
        self.conv3 = _convolution(state["conv3.weight"], state["conv3.bias"])
        self.prelu3 = _prelu(state["prelu3.weight"])
        no, yes = state["conv4_1.weight"].flatten(1)
        bias = state["conv4_1.bias"]
        weight = torch.cat([(yes - no)[None], state["conv4_2.weight"].flatten(1)])
        bias = torch.cat([bias[1:] - bias[:1], state["conv4_2.bias"]])
        self.weight4, self.bias4 = nn.Parameter(weight), nn.Parameter(bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) of 0 … 255 → (B, (H - 10) / 2, (W - 10) / 2, 5).

        The five are the logit of there being a face, and the shifts of the box's four edges.
        """
        x = self.conv1(pixels)
        x = F.max_pool2d(x, 2, ceil_mode=True)
        last = len(self.conv1.weight) - self._twice
        bent = torch.maximum(x[:, : self._twice], x[:, last:])
        x = torch.cat([bent, F.prelu(x[:, self._twice : last], self.slope1)], dim=1)
        x = self.prelu2(self.conv2(x))
        x = self.prelu3(self.conv3(x))
        return F.linear(x.permute(0, 2, 3, 1), self.weight4, self.bias4)


class Judge(nn.Module):
    """RNet or ONet: whether a candidate is a face, and where exactly."""

    def __init__(self, state: State, pools: Sequence[int]) -> None:
        """Build it.

        Args:
            state: the weights of "rnet" or "onet".
            pools: the sides of what a maximum is taken of, after each convolution but the last.
        """
        super().__init__()
        layers: list[nn.Module] = []
        for number, pool in enumerate([*pools, 1], start=1):
            layers.append(_convolution(*_of(state, f"conv{number}")))
            layers.append(_prelu(state[f"prelu{number}.weight"]))
            if pool > 1:
                layers.append(nn.MaxPool2d(pool, 2, ceil_mode=True))
        self.convolutions = nn.Sequential(*layers)
        first = len(pools) + 2
        self.dense = _linear(*_of(state, f"dense{first}"))
        self.bend = _prelu(state[f"prelu{first}.weight"])
        last = sorted(key for key in state if key.startswith(f"dense{first + 1}_"))
        heads = sorted({key.partition(".")[0] for key in last})
        self.score, *others = (_linear(*_of(state, head)) for head in heads)
        self.others = nn.ModuleList(others)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, S, S) of -1 … 1 → shifts (N, 4), of ONet points (N, 10), probabilities (N, 2)."""
        x = self.convolutions(pixels)
        # The library's weights count columns before rows.
        x = self.bend(self.dense(x.permute(0, 3, 2, 1).flatten(1)))
        return *(head(x) for head in self.others), self.score(x).softmax(dim=1)


def best(boxes: Tensor, scores: Tensor, groups: Tensor, most: float) -> Tensor:
    """Drop boxes that overlap a better one of their group too much, as ``batched_nms`` does.

    Args:
        boxes: (N, 4).
        scores: (N,); of equal ones the first is the better.
        groups: int (N,).
        most: the intersection over union from which on they overlap too much.

    Returns:
        The indices of the others, the best first.
    """
    order = scores.argsort(descending=True, stable=True)
    kept = order.new_zeros(0)
    for block in torch.split(order, _BLOCK):
        if len(kept):
            block = block[~_overlap(boxes, groups, kept, block, most).any(dim=0)]
        over = _overlap(boxes, groups, block, block, most).triu(1)
        # In each round one more at least is settled for good, the best first.
        stays, before = ~over.any(dim=0), None
        while before is None or not torch.equal(stays, before):
            stays, before = ~(over & stays[:, None]).any(dim=0), stays
        kept = torch.cat([kept, block[stays]])
    return kept


def _overlap(boxes: Tensor, groups: Tensor, ones: Tensor, others: Tensor, most: float) -> Tensor:
    """Whether each of some boxes (N,) and each of others (M,), by index, overlap: (N, M)."""
    (x0, y0, x1, y1), (u0, v0, u1, v1) = boxes[ones].T[..., None], boxes[others].T[:, None]
    width = (torch.minimum(x1, u1) - torch.maximum(x0, u0)).clamp_(min=0)
    height = (torch.minimum(y1, v1) - torch.maximum(y0, v0)).clamp_(min=0)
    both = width * height
    share = both / ((x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - both)
    overlap: Tensor = (share > most) & (groups[ones][:, None] == groups[others])
    return overlap


def _of(state: State, layer: str) -> tuple[Tensor, Tensor]:
    return state[f"{layer}.weight"], state[f"{layer}.bias"]


def _convolution(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2])
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def _prelu(slopes: Tensor) -> nn.PReLU:
    layer = nn.PReLU(len(slopes))
    layer.weight = nn.Parameter(slopes)
    return layer
