"""ONNX files written field by field: the package onnx is not needed for so little."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def field(number: int, value: int | bytes | str) -> bytes:
    """One field of a protocol buffer: a number, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def node(kind: str, inputs: Sequence[str], output: str, **sizes: Sequence[int] | int) -> bytes:
    """A layer; its attributes are whole numbers, or several of them."""
    attributes = b""
    for name, values in sizes.items():
        if isinstance(values, int):
            content = field(1, name) + field(3, values) + field(20, 2)
        else:
            content = field(1, name) + b"".join(field(8, i) for i in values) + field(20, 7)
        attributes += field(5, content)
    names = b"".join(field(1, name) for name in inputs) + field(2, output)
    return field(1, names + field(4, kind) + attributes)


def value(name: str, shape: Sequence[int | str], kind: int = 1) -> bytes:
    """An input or an output; a side that is a text may be of any length."""
    dims = b"".join(
        field(1, field(2, side) if isinstance(side, str) else field(1, side)) for side in shape
    )
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, dims)))


def constant(name: str, values: ArrayLike, kind: int = 1) -> bytes:
    """Numbers that a layer takes: 32-bit floats, or 64-bit integers for kind 7."""
    array = np.asarray(values, np.float32 if kind == 1 else np.int64)
    dims = b"".join(field(1, side) for side in array.shape)
    return field(5, dims + field(2, kind) + field(8, name) + field(9, array.tobytes()))


def onnx_file(
    nodes: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    constants: Sequence[bytes] = (),
) -> bytes:
    """The bytes of the file."""
    graph = b"".join(nodes) + field(2, "made by hand") + b"".join(constants)
    graph += b"".join(field(11, one) for one in inputs)
    graph += b"".join(field(12, one) for one in outputs)
    return field(1, 7) + field(7, graph) + field(8, field(1, "") + field(2, 13))
