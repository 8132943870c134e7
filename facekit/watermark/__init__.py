"""The mark on everything that leaves: keyed, blind, classical; see docs/watermark.md."""

from facekit.watermark.payload import Kind, Payload, Reading
from facekit.watermark.spread import ACCEPT, DEFAULT_KEY, MIN_SIDE, Listener, embed, read
from facekit.watermark.video import embed_file, load_key, read_file, read_frames

__all__ = [
    "ACCEPT",
    "DEFAULT_KEY",
    "MIN_SIDE",
    "Kind",
    "Listener",
    "Payload",
    "Reading",
    "embed",
    "embed_file",
    "load_key",
    "read",
    "read_file",
    "read_frames",
]
