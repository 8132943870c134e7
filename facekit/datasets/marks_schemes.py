"""The marks that are compared: facekit's own, and those of invisible-watermark where installed.

A scheme marks the frames of a still (one) or of a clip (several), with a message that it draws, and
says of frames whether the message is read from them, every bit of it.

The peers (PyPI ``invisible-watermark``) carry 64 bits without a code that corrects errors; rivaGan
is a network that carries 32, fixed, so its message is shorter. They have no decision whether a mark
is present. Of a clip they read each frame, and the majority says each bit.
"""

from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from facekit import watermark
from facekit.types import Pixels

OWN = "facekit"
BITS = {"dwtDct": 64, "dwtDctSvd": 64, "rivaGan": 32}
"""The peers, and the bits that each is given to carry."""


class Read(NamedTuple):
    """What a read came to: every bit is right, a mark is found, another message is given out."""

    exact: bool
    present: bool
    wrong: bool = False


class Scheme(Protocol):
    """A way to mark; frames are uint8 RGB (H, W, 3)."""

    def mark(
        self, frames: Sequence[Pixels], random: np.random.Generator
    ) -> tuple[list[Pixels], Any]:
        """The frames, marked, and the message that was drawn."""

    def read(self, frames: Sequence[Pixels], message: Any) -> Read:
        """What a read comes to where this message is expected."""


class Own:
    """facekit's mark, under the published key; a payload of 64 bits."""

    def mark(
        self, frames: Sequence[Pixels], random: np.random.Generator
    ) -> tuple[list[Pixels], Any]:
        """See :class:`Scheme`."""
        number = int(random.integers(1 << 48))
        payload = watermark.Payload(watermark.Kind.TEST_REAL, number)
        moving = len(frames) > 1
        return [watermark.embed(frame, payload, moving=moving) for frame in frames], payload

    def read(self, frames: Sequence[Pixels], message: Any) -> Read:
        """See :class:`Scheme`."""
        listener = watermark.Listener()
        for frame in frames:
            listener.add(frame)
        reading = listener.decide()
        exact = reading.payload == message
        return Read(exact, reading.present, wrong=reading.payload is not None and not exact)


class Peer:
    """One of :data:`BITS`."""

    def __init__(self, name: str) -> None:
        """Load it; a network computes with one thread."""
        self._name, self._bits = name, BITS[name]
        self._library: Any = import_module("imwatermark")
        if name == "rivaGan":
            _load_rivagan()

    def mark(
        self, frames: Sequence[Pixels], random: np.random.Generator
    ) -> tuple[list[Pixels], Any]:
        """See :class:`Scheme`."""
        bits = random.integers(0, 2, self._bits)
        encoder = self._library.WatermarkEncoder()
        encoder.set_watermark("bits", bits.tolist())
        # It takes OpenCV's order of colours.
        marked = (encoder.encode(frame[..., ::-1].copy(), self._name) for frame in frames)
        return [np.ascontiguousarray(pixels[..., ::-1]) for pixels in marked], bits

    def read(self, frames: Sequence[Pixels], message: Any) -> Read:
        """See :class:`Scheme`; what cannot be told, whether a mark is there, is said to be false.

        It refuses pictures that are too small for it: nothing is read from them.
        """
        decoder = self._library.WatermarkDecoder("bits", self._bits)
        try:
            read = [decoder.decode(frame[..., ::-1].copy(), self._name) for frame in frames]
        except RuntimeError:
            return Read(False, False)
        bits = np.mean(np.asarray(read, np.float64), axis=0) > 0.5
        return Read(bool(np.array_equal(bits, message)), False)


def peers() -> list[str]:
    """The names of those peers whose packages are installed."""
    if find_spec("imwatermark") is None or find_spec("pywt") is None:
        return []
    return [name for name in BITS if name != "rivaGan" or find_spec("onnxruntime") is not None]


@lru_cache(maxsize=4)
def scheme(name: str) -> Scheme:
    """A scheme by its name: ``OWN`` or one of ``BITS``."""
    return Own() if name == OWN else Peer(name)


def _load_rivagan() -> None:
    """What its ``loadModel`` does, but with one thread."""
    runtime: Any = import_module("onnxruntime")
    module: Any = import_module("imwatermark.rivaGan")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    folder = Path(module.__file__).parent

    def session(part: str) -> Any:
        return runtime.InferenceSession(str(folder / f"rivagan_{part}.onnx"), options)

    module.RivaWatermark.encoder = session("encoder")
    module.RivaWatermark.decoder = session("decoder")
