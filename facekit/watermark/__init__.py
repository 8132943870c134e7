"""The mark on everything that leaves: keyed, blind, classical; see docs/watermark.md."""

from facekit.watermark.files import embed_file, load_key, read_file
from facekit.watermark.listen import Listener, read
from facekit.watermark.payload import Geometry, Kind, Payload, Reading
from facekit.watermark.spread import ACCEPT, DEFAULT_KEY, MIN_SIDE, embed

__all__ = [
    "ACCEPT",
    "DEFAULT_KEY",
    "MIN_SIDE",
    "Geometry",
    "Kind",
    "Listener",
    "Payload",
    "Reading",
    "embed",
    "embed_file",
    "load_key",
    "read",
    "read_file",
]
