"""Somebody else's detector, as an ONNX file, measured as the own ones are.

OpenCV runs it. It would also run a network on pictures of another size than it was made for, and
give numbers, so what the file itself says of its input and outputs is read first: a few fields of
ONNX's protocol buffer (https://github.com/onnx/onnx, ``onnx.proto``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from detectors.calibrate import Scores
from detectors.regions import Region, crops
from facekit.core import files
from facekit.core.errors import FacekitError, did_you_mean
from facekit.media.images import require_file
from facekit.types import Face, Pixels

OUTPUTS = ("logit", "probability", "real-logit", "real-probability", "softmax")
"""What a network's number says; of ``real-…`` a high one says that the face is no forgery. One of
several numbers is named by its place, e.g. ``softmax:1``."""

_FLOAT = 1  # ONNX's number for 32-bit floats
_TOLERANCE = 1e-5  # what rounding may add to a probability

Shape = tuple[int | None, ...]

_TRIAL = Region(
    np.full((64, 64, 3), 127, np.uint8),
    Face(
        np.array([16, 12, 48, 52], np.float32),
        np.array([[24, 26], [40, 26], [32, 34], [26, 42], [38, 42]], np.float32),
        1.0,
    ),
)
"""A grey face, on which a network is tried as soon as it is read."""


@dataclass(frozen=True)
class Header:
    """What an ONNX file says of itself.

    Attributes:
        inputs: name → shape; a side of any length is None, and a shape that is not given ().
        outputs: names.
        floats: the inputs that take 32-bit floats, or do not say what they take.
    """

    inputs: dict[str, Shape]
    outputs: list[str]
    floats: set[str]


class OnnxDetector:
    """A detector that is an ONNX file; see :meth:`load`.

    Attributes:
        name: the file's, without its suffix.
        facts: for a report: the file's name and hash, and what was said of it.
    """

    def __init__(
        self,
        path: Path,
        network: Any,
        *,
        head: str,
        batch: int,
        channels_last: bool,
        facts: dict[str, Any],
    ) -> None:
        """Wrap a network that was read; use :meth:`load`."""
        self.name = path.stem
        self.facts = facts
        self._path, self._network, self._head = path, network, head
        self._batch, self._channels_last = batch, channels_last
        self._kind, self._column = _output(facts["output"], path)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        template: str = "wide",
        output: str = "logit",
        head: str | None = None,
        bgr: bool = False,
    ) -> "OnnxDetector":
        """Read a detector, and try it on one picture.

        Args:
            path: of the ONNX file.
            size: side of the crops that it takes, in pixels.
            mean: of the red, green and blue that it takes, of pixels in [0, 1]; or one for all.
            std: by which what is left is divided, likewise.
            template: how its crops show the face: of ``detectors.regions.crops``.
            output: what its number says: of ``OUTPUTS``.
            head: the name of the output that is the score, where there are several.
            bgr: whether it takes blue first. ``mean`` and ``std`` are then in that order, too.

        Raises:
            FacekitError: if the file is missing or damaged, takes other pictures than was said,
                has several outputs and ``head`` names none of them, or gives what is no score.
        """
        require_file(path)
        header = read_header(path)
        batch, channels_last = _input(header, size, path)
        try:
            network = cv2.dnn.readNetFromONNX(str(path))
        except cv2.error as error:
            raise FacekitError(
                f"{path}: OpenCV {cv2.__version__} cannot run this network ({_reason(error)})"
            ) from error
        facts: dict[str, Any] = {
            "name": path.stem,
            "sha256": files.sha256(path),
            "size": size,
            "mean": _three(mean, "mean"),
            "std": _three(std, "std"),
            "template": template,
            "output": output,
            "bgr": bgr,
        }
        if not all(value > 0 for value in facts["std"]):
            raise FacekitError(f"std {facts['std']}: must be above 0")
        detector = cls(
            path,
            network,
            head=_chosen(header, head, path),
            batch=batch,
            channels_last=channels_last,
            facts=facts,
        )
        detector.score([_TRIAL])
        return detector

    def score(self, regions: Sequence[Region]) -> Scores:
        """P(generated) of each region, float64 (N,).

        Raises:
            FacekitError: if an output is no number, or no probability where it should be one.
        """
        if not regions:
            return np.zeros(0)
        images = crops(regions, self.facts["template"], self.facts["size"])
        return self._probabilities(self._run(images))

    def _run(self, images: Pixels) -> NDArray[np.float64]:
        """What the network gives for uint8 RGB (N, S, S, 3): (N, columns)."""
        found = []
        for start in range(0, len(images), self._batch):
            part = images[start : start + self._batch]
            missing = self._batch - len(part)
            # Made for so many at once, it is handed so many.
            filled = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            found.append(self._forward(filled)[: len(part)])
        return np.concatenate(found)

    def _forward(self, images: Pixels) -> NDArray[np.float64]:
        pixels = images[..., ::-1] if self.facts["bgr"] else images
        mean, std = (np.array(self.facts[key], np.float32) for key in ("mean", "std"))
        values = (pixels / np.float32(255) - mean) / std
        if not self._channels_last:
            values = values.transpose(0, 3, 1, 2)
        try:
            self._network.setInput(np.ascontiguousarray(values, np.float32))
            given = np.asarray(self._network.forward(self._head), np.float64)
        except cv2.error as error:
            raise FacekitError(
                f"{self._path}: does not run on pictures {values.shape} ({_reason(error)})"
            ) from error
        if given.size % len(images) or not given.size:
            raise FacekitError(
                f"{self._path}: gives {given.size} numbers for {len(images)} pictures; expected as "
                "many for each"
            )
        return given.reshape(len(images), -1)

    def _probabilities(self, given: NDArray[np.float64]) -> Scores:
        wrong = ~np.isfinite(given).all(axis=1)
        if wrong.any():
            raise FacekitError(
                f"{self._path}: gives scores that are not numbers, for {wrong.sum()} of "
                f"{len(given)} faces"
            )
        columns = given.shape[1]
        if self._column is None and (columns > 1 or self._kind == "softmax"):
            raise FacekitError(
                f"{self._path}: gives {columns} numbers a face; say which stands for 'generated', "
                f"counted from 0, e.g. output {self._kind}:1"
            )
        column = self._column or 0
        if column >= columns:
            raise FacekitError(
                f"{self._path}: gives {columns} number(s) a face, so there is no {column} as in "
                f"output {self.facts['output']}; they are counted from 0"
            )
        if self._kind == "softmax":
            return np.asarray(softmax(given, axis=1)[:, column], np.float64)
        values = given[:, column]
        if self._kind.endswith("logit"):
            values = np.asarray(expit(values), np.float64)
        beyond = np.maximum(-values, values - 1)
        if beyond.max() > _TOLERANCE:
            raise FacekitError(
                f"{self._path}: gives {values[beyond.argmax()]:.4g}, which is no probability; if "
                "it is one before the sigmoid, say output logit"
            )
        values = np.clip(values, 0, 1)
        return 1 - values if self._kind.startswith("real-") else values


def _output(output: str, path: Path) -> tuple[str, int | None]:
    """The kind of ``output`` and the column, if one is named."""
    kind, colon, column = output.partition(":")
    if kind not in OUTPUTS:
        raise FacekitError(f"{path}: unknown output '{output}'; {did_you_mean(kind, OUTPUTS)}")
    if colon and not (column.isascii() and column.isdigit()):
        raise FacekitError(f"{path}: output '{output}': after the colon comes a place, 0, 1, …")
    return kind, int(column) if colon else None


def _chosen(header: Header, head: str | None, path: Path) -> str:
    """The output to read."""
    names = ", ".join(f"'{name}'" for name in header.outputs)
    if head is not None:
        if head not in header.outputs:
            raise FacekitError(f"{path}: has no output '{head}'; there is {names}")
        return head
    if len(header.outputs) != 1:
        raise FacekitError(
            f"{path}: has {len(header.outputs)} outputs, {names}; say which one is the score"
        )
    return header.outputs[0]


def _input(header: Header, size: int, path: Path) -> tuple[int, bool]:
    """How many pictures it takes at once, and whether their colours stand last."""
    if len(header.inputs) != 1:
        names = ", ".join(f"'{name}'" for name in header.inputs)
        raise FacekitError(
            f"{path}: has {len(header.inputs)} inputs, {names}; a detector takes pictures alone"
        )
    [(name, shape)] = header.inputs.items()
    if name not in header.floats:
        raise FacekitError(f"{path}: input '{name}' is not of 32-bit floats; export it anew so")
    batch = shape[0] if shape else None
    for channels_last in (False, True):
        wanted = (batch, size, size, 3) if channels_last else (batch, 3, size, size)
        if not shape or (
            len(shape) == 4
            and all(there in (None, side) for there, side in zip(shape, wanted, strict=True))
        ):
            # One by one where it takes any number: in OpenCV a batch is no quicker.
            return batch or 1, channels_last
    sides = ", ".join("any" if side is None else str(side) for side in shape)
    raise FacekitError(
        f"{path}: takes pictures ({sides}), not ({batch or 'any'}, 3, {size}, {size}); give the "
        "size that it takes"
    )


def _three(values: Sequence[float], name: str) -> list[float]:
    given = [float(value) for value in values]
    if len(given) not in (1, 3) or not np.isfinite(given).all():
        raise FacekitError(f"{name} {given}: give three numbers, or one for all colours")
    return given * (3 // len(given))


def _reason(error: cv2.error) -> str:
    """The end of OpenCV's message, without the place in its source."""
    return " ".join(str(error).rpartition(") ")[2].split())[:120]


# --- ONNX's protocol buffer: ModelProto.graph = 7; GraphProto.initializer = 5, .input = 11,
# .output = 12; ValueInfoProto.name = 1, .type = 2; TypeProto.tensor_type = 1; Tensor.elem_type = 1,
# .shape = 2; TensorShapeProto.dim = 1; Dimension.dim_value = 1; TensorProto.name = 8.


def read_header(path: Path) -> Header:
    """What an ONNX file says of its input and outputs; the network is not looked at.

    Raises:
        FacekitError: if it is damaged or none.
    """
    try:
        graphs = [value for number, value in _fields(path.read_bytes()) if number == 7]
        graph = [field for value in graphs for field in _fields(_bytes(value))]
        weights = {
            _name(_bytes(value), 8) for number, value in graph if number == 5
        }  # older files list them among the inputs
        named = {
            number: [_bytes(value) for of, value in graph if of == number] for number in (11, 12)
        }
        inputs = {_name(value): value for value in named[11] if _name(value) not in weights}
        outputs = [_name(value) for value in named[12]]
        tensors = {name: _tensor(value) for name, value in inputs.items()}
    except (ValueError, IndexError) as error:
        raise FacekitError(f"{path}: damaged, or no ONNX file") from error
    if not outputs:
        raise FacekitError(f"{path}: damaged, or no ONNX file")
    return Header(
        {name: shape for name, (_, shape) in tensors.items()},
        outputs,
        {name for name, (kind, _) in tensors.items() if kind in (None, _FLOAT)},
    )


def _tensor(value: memoryview) -> tuple[int | None, Shape]:
    """Element type and shape of a ValueInfoProto."""
    kind: int | None = None
    shape: list[int | None] = []
    for tensor in _inner(value, 2, 1):
        for number, content in _fields(tensor):
            if number == 1 and isinstance(content, int):
                kind = content
            elif number == 2:
                for dimension in _inner(_bytes(content), 1):
                    sides = [v for of, v in _fields(dimension) if of == 1 and isinstance(v, int)]
                    # Negative numbers, which some write for "any", come as 64 bits without a sign.
                    fixed = bool(sides) and 0 < sides[-1] < 1 << 31
                    shape.append(sides[-1] if fixed else None)
    return kind, tuple(shape)


def _name(message: memoryview, number: int = 1) -> str:
    names = [bytes(value) for value in _inner(message, number)]
    return names[-1].decode() if names else ""


def _inner(message: memoryview, *numbers: int) -> Iterator[memoryview]:
    """The messages within a message, by the numbers of their fields from the outside in."""
    for number, value in _fields(message):
        if number == numbers[0]:
            inside = _bytes(value)
            yield from _inner(inside, *numbers[1:]) if numbers[1:] else [inside]


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where bytes should be")
    return value


def _fields(message: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message, as numbers or bytes; ValueError or IndexError if it is none."""
    view, place = memoryview(message), 0
    while place < len(view):
        key, place = _varint(view, place)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, place = _varint(view, place)
            yield number, value
            continue
        length = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            length, place = _varint(view, place)
        if length is None or not number or place + length > len(view):
            raise ValueError("not a protocol buffer")
        yield number, view[place : place + length]
        place += length


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = view[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number of more than ten bytes")
