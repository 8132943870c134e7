"""Checkpoints as safetensors: tensors in the file, the rest of the state as JSON in its header.

Texts that belong to the weights wherever they go, such as whose consent they stand on, ride along
in the header as well: :func:`notes`.

Nothing is ever unpickled. A state is any nesting of dicts, lists and tuples whose leaves are
tensors, numbers, strings, booleans and None; an optimiser's ``state_dict`` is one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from facekit.core.errors import FacekitError
from facekit.core.files import replacing


def save(path: Path, state: dict[str, Any], notes: Mapping[str, str] | None = None) -> None:
    """Write ``state`` to ``path``, wholly or not at all.

    Args:
        path: to write to.
        state: see above.
        notes: texts for the header, by name; :func:`notes` reads them.

    Raises:
        FacekitError: if the file cannot be written.
        TypeError: if a leaf is of a kind that JSON and safetensors cannot hold.
    """
    tensors: dict[str, torch.Tensor] = {}
    packed = _pack(state, "", tensors)
    # All under one key: safetensors writes several in no order, and equal states would differ.
    structure = json.dumps({"notes": dict(notes), "state": packed} if notes else packed)
    with replacing(path) as partial:
        try:
            save_file(tensors, partial, metadata={"state": structure})
        except SafetensorError as error:
            raise FacekitError(f"{path}: cannot be written ({error})") from error


def load(path: Path) -> dict[str, Any]:
    """Read what :func:`save` wrote; tensors come back on the CPU.

    Raises:
        FacekitError: if the file is missing, damaged, or not a facekit checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            structure = (file.metadata() or {}).get("state")
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (OSError, SafetensorError) as error:
        raise FacekitError(f"{path}: not a readable checkpoint ({error})") from error
    if structure is None:
        raise FacekitError(f"{path}: safetensors, but not written by facekit (no 'state')")
    try:
        packed = json.loads(structure)
        packed = packed["state"] if isinstance(packed, dict) else packed
        state: dict[str, Any] = _unpack(packed, tensors)
    except (ValueError, KeyError, TypeError) as error:
        raise FacekitError(f"{path}: damaged; its 'state' does not match its tensors") from error
    return state


def require_finite(weights: Mapping[str, torch.Tensor], where: object, step: int) -> None:
    """Check weights before they replace good ones: a finite loss may have had infinite gradients.

    Args:
        weights: by name.
        where: the run's folder, for the error.
        step: after which they are so.

    Raises:
        FacekitError: if one of them is no number.
    """
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        raise FacekitError(
            f"{where}: weights are no numbers after step {step}; the checkpoint before it is kept; "
            "try a lower learning_rate"
        )


def notes(path: Path) -> dict[str, str]:
    """The texts of a checkpoint's header; no tensor is read.

    Raises:
        FacekitError: if the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = json.loads((file.metadata() or {}).get("state", "{}"))
        texts = found.get("notes", {}) if isinstance(found, dict) else {}
        return {name: str(text) for name, text in texts.items()}
    except (OSError, SafetensorError) as error:
        raise FacekitError(f"{path}: not a readable checkpoint ({error})") from error
    except (ValueError, AttributeError) as error:
        raise FacekitError(f"{path}: damaged; its header does not hold its notes") from error


def _pack(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """JSON for ``value``; its tensors go to ``tensors``. Containers are tagged lists."""
    if isinstance(value, torch.Tensor):
        while name in tensors:  # keys 1 and "1", or "a/b" and b within a, spell the same name
            name += "'"
        # Own memory: safetensors refuses tensors that share storage (tied or sliced weights).
        tensors[name] = value.detach().clone().contiguous()
        return ["tensor", name]
    if isinstance(value, dict):
        for key in value:
            if not (key is None or isinstance(key, bool | int | float | str)):
                raise TypeError(f"{name}: a checkpoint cannot hold a {type(key).__name__} as a key")
        # Pairs, not an object: an optimiser's state has integers for keys.
        return [
            "dict",
            [[key, _pack(item, f"{name}/{key}", tensors)] for key, item in value.items()],
        ]
    if isinstance(value, list | tuple):
        items = [_pack(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]
        return ["tuple" if isinstance(value, tuple) else "list", items]
    if value is None or isinstance(value, bool | int | float | str):
        return ["value", value]
    raise TypeError(f"{name}: a checkpoint cannot hold a {type(value).__name__}")


def _unpack(packed: Any, tensors: dict[str, torch.Tensor]) -> Any:
    tag, content = packed
    if tag == "tensor":
        return tensors[content]
    if tag == "dict":
        return {key: _unpack(item, tensors) for key, item in content}
    if tag in ("list", "tuple"):
        items = [_unpack(item, tensors) for item in content]
        return tuple(items) if tag == "tuple" else items
    return content
