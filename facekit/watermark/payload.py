"""What a mark says: a kind and a number, in 64 bits; and what a reader may say of it."""

from dataclasses import asdict, dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from facekit.core.errors import FacekitError

VERSION = 2
"""Of the scheme. A reader hands out no payload of a version that it does not know."""

ID_BITS = 48
"""The id of a run or a consent record: 0 to 2^48 - 1; 0 means that none was given."""


class Kind(IntEnum):
    """What the maker of a mark claims the media to be. The values are part of the format."""

    GENERATED = 1
    COMPOSITE = 2
    STUDIO = 3
    TEST_REAL = 4

    @property
    def label(self) -> str:
        """The kind in words: generated, composite, studio or test-real."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True)
class Payload:
    """The message of a mark.

    Attributes:
        kind: what the media claims to be.
        id: of the run or consent record, below 2^48; 0 for none.

    Raises:
        FacekitError: if the id does not fit.
    """

    kind: Kind
    id: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.id < 1 << ID_BITS:
            raise FacekitError(f"mark id {self.id}: allowed are 0 to {(1 << ID_BITS) - 1}")

    def to_int(self) -> int:
        """The 64 bits: version (8), kind (8), id (48), from the highest down."""
        return VERSION << 56 | self.kind << ID_BITS | self.id

    def to_bits(self) -> NDArray[np.uint8]:
        """uint8 (64,), the highest bit first."""
        return np.array([int(bit) for bit in f"{self.to_int():064b}"], np.uint8)

    @classmethod
    def from_bits(cls, bits: NDArray[np.uint8]) -> "Payload | None":
        """The payload in 64 bits; None if its version or kind is unknown."""
        value = int("".join(map(str, bits.tolist())), 2)
        kind = value >> ID_BITS & 0xFF
        if value >> 56 != VERSION or kind not in list(Kind):
            return None
        return cls(Kind(kind), value & (1 << ID_BITS) - 1)


@dataclass(frozen=True)
class Geometry:
    """How a picture lies in the one that was marked, where that is not just as it is.

    Attributes:
        side: the shorter side of the marked picture, in pixels of this one.
        degrees: how far this picture was turned, clockwise.
        x, y: where in the marked picture this one's top left corner lies, in shares of the shorter
            side; from 0 to 1, because the mark repeats after it.
    """

    side: float
    degrees: float
    x: float
    y: float

    def sentence(self) -> str:
        """In words, e.g. "as part of a picture whose shorter side is 812 pixels"."""
        turned = f", turned by {self.degrees:.1f}°" if abs(self.degrees) >= 0.2 else ""
        return f"as part of a picture whose shorter side is {self.side:.0f} pixels{turned}"


@dataclass(frozen=True)
class Reading:
    """What was read. There are never bits without a decision.

    Attributes:
        present: whether ``p_value`` lies below ``spread.ACCEPT``.
        payload: the message, if present and decoded; a mark can be present and too weak to decode.
        p_value: a bound on the probability that media which never saw the key gives a reading as
            strong as this, every test made being counted.
        corrected: the wrong bits of 127 that the code put right; None without a payload.
        frames: how many pictures the evidence was summed over.
        tests: by how many tests the bound for presence was multiplied: all that could have led to
            this reading. Where a search found nothing, those of the picture as it is.
        geometry: how the picture lies in the marked one; None where it was not moved, or where no
            mark was found.
    """

    present: bool
    payload: Payload | None
    p_value: float
    corrected: int | None
    frames: int
    tests: int
    geometry: Geometry | None = None

    @property
    def kind(self) -> str | None:
        """The kind in words, or None without a payload."""
        return self.payload.kind.label if self.payload else None

    def to_json(self) -> dict[str, object]:
        """As JSON: payload in hex, id as a number."""
        return {
            "present": self.present,
            "payload": f"{self.payload.to_int():016x}" if self.payload else None,
            "kind": self.kind,
            "id": self.payload.id if self.payload else None,
            "p_value": self.p_value,
            "corrected": self.corrected,
            "frames": self.frames,
            "tests": self.tests,
            "geometry": asdict(self.geometry) if self.geometry else None,
        }

    def sentence(self) -> str:
        """The reading in a sentence."""
        p_value = f"p = {self.p_value:.2g}"
        if not self.present:
            return f"no mark found ({p_value}, {self.frames} picture(s) read)"
        if not self.payload:
            return (
                "a mark is present, but its payload cannot be read: it is too weak, or of another "
                f"version ({p_value})"
            )
        number = f", id {self.payload.id:012x}" if self.payload.id else ""
        found = f", found {self.geometry.sentence()}" if self.geometry else ""
        return (
            f"marked as {self.kind}{number} "
            f"({p_value}, {self.corrected} of 127 bits corrected, {self.frames} picture(s) read"
            f"{found})"
        )
