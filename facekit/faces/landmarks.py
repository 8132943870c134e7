"""Read a face: 70 points with their uncertainty, pose, expression, eyes, and whether it is one.

A compact network looks at a crop of 112 pixels. Each point is the mean place under its heat map
(integral regression: Sun et al., "Integral human pose regression", 2018, arXiv:1711.08229), moved
by what the features about that place say of it, with a standard deviation for each point learned
by likelihood (Wood et al., "3D face reconstruction with dense landmarks", 2022, arXiv:2204.02776).
The head's rotation is regressed as two vectors (Zhou et al., "On the continuity of rotation
representations in neural networks", 2019, arXiv:1812.07035). Written anew; no code taken.

It is taught on people who don't exist only, by :mod:`facekit.studio.lessons.landmarks`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from facekit.core import weights as bundled
from facekit.core.errors import FacekitError
from facekit.faces.align import TEMPLATES, Matrices, apply, crop_from_image, invert, reach, warp
from facekit.networks.folded import Conv, Residual, fold_convs
from facekit.types import DENSE, Face, Floats, Landmarks, Pixels

WEIGHTS = Path(__file__).parent.parent / "weights"

TEMPLATE = "wide"
"""The template of the crop that the network reads; the crop reaches lower by ``_LOWER``."""

SIZE = 112
"""Side of the crop, in pixels."""

EXPRESSIONS = 52

_LOWER = 0.07  # of the side: an open mouth's chin then lies within the crop as well as the brows
_CELLS = 28  # of the heat maps, a side
_CELL = SIZE / _CELLS
_AT_ONCE = 128


def _pairs(*pairs: tuple[int, int]) -> NDArray[np.int64]:
    order = np.arange(DENSE)
    for a, b in pairs:
        order[[a, b]] = b, a
    return order


MIRROR = _pairs(
    *((i, 16 - i) for i in range(8)),  # the jaw
    *((17 + i, 26 - i) for i in range(5)),  # the brows
    *((31, 35), (32, 34)),  # the nose's wings
    *((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),  # the eyes
    *((48, 54), (49, 53), (50, 52), (59, 55), (58, 56)),  # the lips, outside
    *((60, 64), (61, 63), (67, 65)),  # and inside
    (68, 69),  # the irises
)
"""The point that each of the 70 becomes in a mirrored picture."""


# Along each contour, across eyes and lips, from brow to eye, and from the corners of an eye to its
# iris.
_OFFSETS = [(i, i + 1) for i in range(67)] + [
    *((37, 41), (38, 40), (43, 47), (44, 46), (36, 39), (42, 45)),
    *((61, 67), (62, 66), (63, 65), (51, 57), (48, 54), (33, 51), (8, 57), (30, 27)),
    *((19, 37), (24, 44), (21, 22), (68, 36), (68, 39), (69, 42), (69, 45)),
]


class Reading(NamedTuple):
    """What the network says of B crops.

    Attributes:
        points: (B, 70, 2) in pixels of the crop.
        log_deviation: (B, 70), natural logarithm of the standard deviation along an axis, in
            pixels of the crop.
        visible: (B, 70), logits.
        rotation: (B, 3, 3), of the head relative to the crop, as :mod:`facekit.types` has angles.
        expression: (B, 52), logits.
        eyes: (B, 2), the left and the right eye's openness.
        presence: (B,), logits.
        heat: (B, 70, 28 · 28), the heat maps' logits.
    """

    points: Tensor
    log_deviation: Tensor
    visible: Tensor
    rotation: Tensor
    expression: Tensor
    eyes: Tensor
    presence: Tensor
    heat: Tensor


class LandmarkNet(nn.Module):
    """Crops (B, 3, 112, 112) in [-1, 1] → a :class:`Reading`; about 0.9 million parameters.

    A small residual network down to 7×7 cells, and back up to the 28×28 of the heat maps.
    """

    def __init__(self, *, folded: bool = False) -> None:
        """Make the network.

        Args:
            folded: without batch normalisation, for the weights of :func:`fold`.
        """
        super().__init__()
        self.stem = nn.Sequential(Conv(3, 16, 2, folded), Conv(16, 32, 2, folded))
        self.fine = Residual(32, folded)
        self.middle = nn.Sequential(
            Conv(32, 64, 2, folded), Residual(64, folded), Residual(64, folded)
        )
        self.coarse = nn.Sequential(Conv(64, 128, 2, folded), Residual(128, folded))
        self.up_coarse = nn.Conv2d(128, 64, 1)
        self.mix_middle = Conv(64, 40, 1, folded)
        self.up_middle, self.side_fine = nn.Conv2d(40, 40, 1), nn.Conv2d(32, 40, 1)
        self.mix_fine = Conv(40, 40, 1, folded)
        self.heat = nn.Conv2d(40, DENSE, 1)

        self.whole = nn.Linear(128, 192)
        # Of each point, from the features about it and from those of the whole crop: its shift,
        # the logarithm of its deviation, and the logit of its being seen.
        self.point = nn.Parameter(0.01 * torch.randn(DENSE, 40, 4))
        self.point_of_whole = nn.Linear(192, DENSE * 4)
        self.facts = _Facts(folded)
        nn.init.zeros_(self.point_of_whole.weight)
        centres = (torch.arange(_CELLS, dtype=torch.float32) + 0.5) * _CELL
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        self.cells: Tensor
        self.register_buffer("cells", torch.stack([x, y], -1).reshape(-1, 2), persistent=False)

    def forward(self, images: Tensor) -> Reading:
        """Read a batch."""
        fine = self.fine(self.stem(images))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        mixed = self.mix_middle(middle + _doubled(self.up_coarse(coarse)))
        mixed = self.mix_fine(self.side_fine(fine) + _doubled(self.up_middle(mixed)))
        heat = self.heat(mixed).flatten(2).float()
        whole = F.relu(self.whole(coarse.mean((2, 3))))

        # Places in half precision would be off by a quarter of a pixel.
        with torch.autocast(images.device.type, enabled=False):
            share = heat.softmax(2)
            about = share @ mixed.flatten(2).transpose(1, 2).float()
            told = torch.einsum("bkc,kco->bko", about, self.point)
            told = told + self.point_of_whole(whole.float()).view(-1, DENSE, 4)
            points = share @ self.cells + _CELL * told[..., :2]
            # Within (0.25, 90) pixels, whatever comes in.
            log_deviation = 1.5 + 3 * torch.tanh(told[..., 2] / 3)
            facts = self.facts(whole.float(), about, points)
            turn, expression, eyes, presence = facts.split([6, EXPRESSIONS, 2, 1], 1)
            return Reading(
                points=points,
                log_deviation=log_deviation,
                visible=told[..., 3],
                rotation=_rotation(turn),
                expression=expression,
                eyes=eyes,
                presence=presence[:, 0],
                heat=heat,
            )


class _Facts(nn.Module):
    """What is true of the whole face, from its features, those about its points, and their places.

    Lids move by a pixel where a crop is off by ten. So places count relative to the face's middle
    and size, and as offsets from point to point, all brought to one scale by normalisation.
    """

    def __init__(self, folded: bool) -> None:
        super().__init__()
        inputs = 192 + 6 * DENSE + 2 * DENSE + 2 * len(_OFFSETS)
        self.about = nn.Parameter(0.2 * torch.randn(DENSE, 40, 6))
        self.norm = nn.Identity() if folded else nn.BatchNorm1d(inputs, affine=False)
        self.mix = nn.Linear(inputs, 192)
        self.say = nn.Linear(192, 6 + EXPRESSIONS + 2 + 1)
        self.ends: Tensor
        self.register_buffer("ends", torch.tensor(_OFFSETS).T, persistent=False)

    def forward(self, whole: Tensor, about: Tensor, points: Tensor) -> Tensor:
        """Whole (B, 192), about (B, 70, 40), points (B, 70, 2) in pixels → (B, 61)."""
        places = points - points.mean(1, keepdim=True)
        places = places / places.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1)
        offsets = places[:, self.ends[0]] - places[:, self.ends[1]]
        local = torch.einsum("bkc,kco->bko", about, self.about)
        inputs = [whole, local.flatten(1), places.flatten(1), offsets.flatten(1)]
        said: Tensor = self.say(F.relu(self.mix(self.norm(torch.cat(inputs, 1)))))
        return said


def _doubled(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2, mode="nearest")


def _rotation(vectors: Tensor) -> Tensor:
    """Rotations (B, 3, 3) whose first two rows are ``vectors`` (B, 6), made orthonormal."""
    first, second = (vectors + vectors.new_tensor([1, 0, 0, 0, 1, 0])).view(-1, 2, 3).unbind(1)
    first = F.normalize(first, dim=1)
    second = F.normalize(second - (first * second).sum(1, keepdim=True) * first, dim=1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], 1)


def fold(net: LandmarkNet) -> dict[str, Tensor]:
    """The tensors of ``LandmarkNet(folded=True)`` that reads as ``net`` does in ``eval`` mode."""
    folded = fold_convs(net)
    # Here normalisation comes first: its scale and shift go into the layer after it.
    first = cast(nn.BatchNorm1d, net.facts.norm)
    mean, variance = cast(Tensor, first.running_mean), cast(Tensor, first.running_var)
    weight = net.facts.mix.weight.detach() * (variance + first.eps).rsqrt()
    folded["facts.mix.weight"] = weight
    folded["facts.mix.bias"] = net.facts.mix.bias.detach() - weight @ mean
    for key in [key for key in folded if key.startswith("facts.norm.")]:
        del folded[key]
    return folded


class Landmarker:
    """Reads located faces.

    Example:
        >>> landmarker = Landmarker(torch.device("cpu"))
        >>> (faces,) = landmarker.read([pixels], locator.locate([pixels]))
        >>> faces[0].landmarks.pose
    """

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        """Load the network.

        Args:
            device: where to compute.
            weights: a .safetensors file of ``facekit studio teach``; None for the bundled one.

        Raises:
            FacekitError: if the file cannot be read or is not of this network.
        """
        path = bundled.find(WEIGHTS, "landmarks")[0] if weights is None else weights
        net = LandmarkNet(folded=True)
        try:
            net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
        except (OSError, SafetensorError) as error:
            raise FacekitError(f"{path}: not readable as safetensors ({error})") from error
        except RuntimeError as error:
            raise FacekitError(
                f"{path}: not the weights of the landmark network of this version; make them with "
                "'facekit studio teach lessons/landmarks'"
            ) from error
        self._device = device
        # Channels last is about a quarter faster on a processor.
        self._net = net.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def read(
        self,
        images: Sequence[Pixels],
        faces: Sequence[Sequence[Face]],
        *,
        mirrored: bool = False,
    ) -> list[list[Face]]:
        """Read the faces of each picture, all in one batch.

        A face's crop is found by its five points; they may be a locator's, or those of the frame
        before.

        Args:
            images: uint8 RGB (H, W, 3); sizes may differ.
            faces: of each picture.
            mirrored: read each crop's mirror image as well and take the mean of the points, which
                are a twentieth more exact then; it takes twice as long.

        Returns:
            The same faces with ``landmarks``; where a face is there, its ``points`` and its
            ``box`` come from them, as the locator would give them.

        Raises:
            FacekitError: for a face whose five points are one and the same.
        """
        owners = [i for i, row in enumerate(faces) for _ in row]
        flat = [face for row in faces for face in row]
        if not flat:
            return [[] for _ in images]
        matrices = crop_matrices(np.stack([face.points for face in flat]))
        found: list[Landmarks] = []
        for start in range(0, len(flat), _AT_ONCE):
            rows = range(start, min(start + _AT_ONCE, len(flat)))
            parts = [_part(images[owners[i]], matrices[i]) for i in rows]
            found += self._read(parts, matrices[start : start + _AT_ONCE], mirrored)
        read = iter(_updated(face, landmarks) for face, landmarks in zip(flat, found, strict=True))
        return [[next(read) for _ in row] for row in faces]

    @torch.inference_mode()
    def _read(
        self, parts: list[tuple[Pixels, Matrices]], matrices: Matrices, mirrored: bool
    ) -> list[Landmarks]:
        """Read crops cut from ``parts``; ``matrices`` (N, 2, 3) are crops from whole pictures."""
        side = [max(part.shape[axis] for part, _ in parts) for axis in (0, 1)]
        canvas = np.empty((len(parts), *side, 3), np.uint8)
        for row, (part, _) in zip(canvas, parts, strict=True):
            height, width = part.shape[:2]
            row[:height, :width] = part
            # Beyond the border the picture's edge pixels continue, here as in a warp.
            row[:height, width:] = part[:, -1:]
            row[height:] = row[height - 1]
        pixels = torch.from_numpy(canvas).to(self._device).float().permute(0, 3, 1, 2)
        images = warp(pixels, np.stack([matrix for _, matrix in parts]), SIZE) / 127.5 - 1
        reading = self._net(images.contiguous(memory_format=torch.channels_last))
        if mirrored:
            other = self._net(images.flip(3).contiguous(memory_format=torch.channels_last))
            reading = _mean_of_mirrored(reading, other)
        said = torch.cat(
            [
                reading.points.flatten(1),
                reading.log_deviation.exp(),
                reading.visible.sigmoid(),
                reading.rotation.flatten(1),
                reading.expression.sigmoid(),
                reading.eyes.clamp(min=0),
                reading.presence.sigmoid()[:, None],
            ],
            dim=1,
        )
        return _to_landmarks(said.cpu().numpy(), matrices)


def _mean_of_mirrored(reading: Reading, other: Reading) -> Reading:
    """A reading whose points are also those of ``other``, which is of the mirrored crops."""
    order = MIRROR.tolist()
    points = torch.stack([SIZE - other.points[..., 0], other.points[..., 1]], -1)[:, order]
    return reading._replace(
        points=(reading.points + points) / 2,
        log_deviation=(reading.log_deviation + other.log_deviation[:, order]) / 2,
        visible=(reading.visible + other.visible[:, order]) / 2,
    )


def crop_matrices(points: NDArray[np.floating]) -> Matrices:
    """The crops that the network reads, ``crop_from_image`` (..., 2, 3), by points (..., 5, 2)."""
    matrices = crop_from_image(points, TEMPLATE, SIZE)
    matrices[..., 1, 2] -= _LOWER * SIZE
    return matrices


def _part(image: Pixels, matrix: Matrices) -> tuple[Pixels, Matrices]:
    """The part of a picture that a crop shows, shrunk to about the crop's scale, and its matrix.

    So that what goes to the device, and is sampled there, is small, however large the picture.
    """
    low, high = reach(invert(matrix), SIZE, image.shape)
    shrinkage = 1 / np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    # Halving is many times quicker than shrinking by any other factor.
    times = 2 ** int(np.log2(max(1.0, shrinkage)))
    if min(high - low) >= times:
        high -= (high - low) % times
    part = image[low[1] : high[1], low[0] : high[0]]
    while times > 1 and min(part.shape[:2]) > 1:
        part = _resized(part, np.array(part.shape[1::-1]) // 2)
        times, shrinkage = times // 2, shrinkage / 2
    if shrinkage > 1.25:
        part = _resized(part, np.ceil(np.array(part.shape[1::-1]) / shrinkage).astype(int))
    ratio = (high - low) / np.array(part.shape[1::-1])
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ low
    moved[:, :2] *= ratio
    return part, moved


def _resized(image: Pixels, size: NDArray[np.int64]) -> Pixels:
    width, height = size.tolist()
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _to_landmarks(said: Floats, matrices: Matrices) -> list[Landmarks]:
    """Rows of numbers about crops as landmarks in the pictures (N,)."""
    ends = np.cumsum([2 * DENSE, DENSE, DENSE, 9, EXPRESSIONS, 2])
    points, deviation, visible, turns, expression, eyes, presence = np.split(said, ends, axis=1)
    back = invert(matrices)
    scale = np.sqrt(np.abs(np.linalg.det(back[:, :, :2])))
    places = apply(back, points.reshape(-1, DENSE, 2)).astype(np.float32)
    # The picture is the crop turned back about the camera's axis.
    cosine, sine = back[:, 0, 0] / scale, back[:, 1, 0] / scale
    poses = angles(_rolls(cosine, sine) @ turns.reshape(-1, 3, 3))
    return [
        Landmarks(
            points=places[i],
            deviation=(deviation[i] * scale[i]).astype(np.float32),
            visible=visible[i],
            pose=(float(poses[i, 0]), float(poses[i, 1]), float(poses[i, 2])),
            expression=expression[i],
            eyes=eyes[i],
            presence=float(presence[i, 0]),
        )
        for i in range(len(said))
    ]


def _rolls(cosine: NDArray[np.floating], sine: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rotations (N, 3, 3) that roll the picture clockwise."""
    turns = np.tile(np.eye(3), (len(cosine), 1, 1))
    turns[:, 0, 0], turns[:, 0, 1], turns[:, 1, 0], turns[:, 1, 1] = cosine, sine, -sine, cosine
    return turns


def angles(rotations: NDArray[np.floating]) -> NDArray[np.float64]:
    """Yaw, pitch and roll in degrees (..., 3) of rotations (..., 3, 3): roll, then pitch, then yaw.

    Axes: x to the picture's right, y up, z towards the camera.
    """
    yaw = np.arctan2(rotations[..., 0, 2], rotations[..., 2, 2])
    pitch = np.arcsin(np.clip(rotations[..., 1, 2], -1, 1))
    roll = np.arctan2(-rotations[..., 1, 0], rotations[..., 1, 1])
    return cast(NDArray[np.float64], np.degrees(np.stack([yaw, pitch, roll], -1)))


def _updated(face: Face, landmarks: Landmarks) -> Face:
    if not landmarks.present:
        return replace(face, landmarks=landmarks)
    return replace(
        face,
        points=five_points(landmarks.points),
        box=box_of(landmarks.points),
        landmarks=landmarks,
    )


# From the eyes' centres, the tip of the nose and the corners of the mouth to where MTCNN puts the
# five points: by least squares on 352 located studio faces and their mirror images. MTCNN's are
# lower, by 0.03 of the distance between the outer eye corners, except at the mouth. Each row sums
# to 1, so that the points shift, turn and grow with the face.
_FIVE = np.array(
    [
        [0.994, 0.035, 0.034, -0.002, -0.061],
        [0.035, 0.994, 0.034, -0.061, -0.002],
        [0.040, 0.040, 0.872, 0.024, 0.024],
        [0.253, -0.235, -0.124, 0.762, 0.344],
        [-0.235, 0.253, -0.124, 0.344, 0.762],
    ]
)


def five_points(points: NDArray[np.floating]) -> Floats:
    """The five points of a face from the 70, (..., 70, 2) → (..., 5, 2), where MTCNN puts them."""
    eyes = [points[..., first : first + 6, :].mean(-2) for first in (36, 42)]
    rows = np.stack([*eyes, points[..., 30, :], points[..., 48, :], points[..., 54, :]], -2)
    return cast(Floats, (_FIVE @ rows).astype(np.float32))


# The inner 51 points in a "face" crop of side 1: means over 24 studio people in 12 performances
# each, and their mirror images. x and y in turns: brows, nose, eyes, mouth.
_INNER = slice(17, 68)
_MEAN_INNER = np.fromstring(
    """
    .248 .272  .295 .251  .350 .248  .402 .262  .443 .280
    .557 .280  .598 .262  .650 .248  .705 .251  .752 .272
    .500 .367  .500 .429  .500 .490  .500 .544
    .427 .572  .457 .586  .500 .599  .543 .586  .573 .572
    .294 .360  .330 .337  .382 .330  .419 .365  .381 .382  .328 .381
    .581 .365  .618 .330  .670 .337  .706 .360  .672 .381  .619 .382
    .363 .670  .412 .668  .463 .661  .500 .663  .537 .661  .588 .668
    .637 .670  .594 .721  .548 .749  .500 .752  .452 .749  .406 .721
    .379 .674  .448 .687  .500 .692  .552 .687  .621 .674  .550 .692  .500 .696  .450 .692
    """,
    sep=" ",
).reshape(51, 2)


def mean_face_points(points: NDArray[np.floating]) -> Floats:
    """Where the mean face's five points lie when it is laid on a face: crops by them sit still.

    The mean face is laid on the inner 51 points by the similarity of the least squares, Umeyama's
    solution (1991). Aligned by its own five points, a face shrinks when it smiles, and one with a
    wide mouth is smaller for good; and what a network or a locator gets wrong at one corner of the
    mouth moves the whole crop.

    Args:
        points: (..., 70, 2).

    Returns:
        float32 (..., 5, 2).
    """
    mean, five = (
        np.ascontiguousarray(p).view(np.complex128)[..., 0]
        for p in (_MEAN_INNER, TEMPLATES["face"])
    )
    inner = np.ascontiguousarray(points[..., _INNER, :], np.float64).view(np.complex128)[..., 0]
    from_mean = mean - mean.mean()
    turn = (from_mean.conj() * inner).sum(-1, keepdims=True) / (np.abs(from_mean) ** 2).sum()
    laid = inner.mean(-1, keepdims=True) + turn * (five - mean.mean())
    return np.stack([laid.real, laid.imag], -1).astype(np.float32)


def laid_on(face: Face) -> Face:
    """The same face with :func:`mean_face_points` as its five, for crops that must sit alike.

    MTCNN leans to another side with each face and each look. In "face" crops of 96 pixels, over 24
    studio people in 12 performances, its points put a place 0.85 pixels off as a habit of the
    person, and 1.96 more from look to look; :func:`five_points` 0.56 and 1.05; these 0.31 and 0.52
    (root mean squares, each against the same crop by the true points).

    Args:
        face: without landmarks, or where these see no face, it is returned as it is.
    """
    if face.landmarks is None or not face.landmarks.present:
        return face
    return replace(face, points=mean_face_points(face.landmarks.points))


def box_of(points: NDArray[np.floating]) -> Floats:
    """The box of a face from its 70 points, (..., 70, 2) → (..., 4), as MTCNN would draw it.

    From the extent of the points and the tip of the nose, which says where the face is turned; by
    least squares on the faces of ``_FIVE``, where it overlaps MTCNN's by 0.88 (intersection over
    union, mean). A face on its side has the box that it has upright, on its side as well.
    """
    x, y = np.moveaxis(points[..., 48:60, :].mean(-2) - points[..., 36:48, :].mean(-2), -1, 0)
    quarters = np.round(np.arctan2(x, y) / (np.pi / 2)).astype(int)  # from upright, to the left
    upright = points @ _QUARTERS[quarters]
    low, high = upright.min(-2), upright.max(-2)
    (x, y), (width, height) = (np.moveaxis(v, -1, 0) for v in ((low + high) / 2, high - low))
    nose_x, nose_y = np.moveaxis(upright[..., 30, :], -1, 0)
    middle = np.stack([x + 0.16 * (nose_x - x), y - 0.20 * height - 0.15 * (nose_y - y)], -1)
    half = np.stack([0.77 * width + 0.25 * height, 0.68 * width + 0.69 * height], -1) / 2
    corners = np.stack([middle - half, middle + half], -2) @ _QUARTERS[-quarters]
    return cast(Floats, np.concatenate([corners.min(-2), corners.max(-2)], -1).astype(np.float32))


_QUARTERS = np.array(
    [[[1, 0], [0, 1]], [[0, 1], [-1, 0]], [[-1, 0], [0, -1]], [[0, -1], [1, 0]]], np.float32
)
"""Matrices that points (N, 2) are multiplied with to set them upright, by quarter turns."""
