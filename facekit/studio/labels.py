"""A frame's truth as files: facts for the manifest, masks and depth beside the picture.

- ``NAME.mask-face.png`` and so on, one for each of :data:`facekit.studio.render.MASKS`: grey,
  8 bits, 255 where a pixel is wholly covered.
- ``NAME.depth.png``: grey, 16 bits, millimetres from the camera along its axis, 0 where there is
  nothing.
"""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.studio.render import MASKS, Render
from facekit.types import Floats

_MM = 100  # in one dm


def facts(result: Render) -> dict[str, Any]:
    """What the manifest says of a frame, as JSON values.

    ``points``, ``landmarks`` with ``visible``, ``pose`` and ``camera`` are as in
    :class:`facekit.studio.render.Render`; ``expression`` is in the order of ``FACE_UNITS``; blur
    and noise are those of the ``performance``.
    """
    person, performance = result.person, result.performance
    return {
        "person_seed": person.seed,
        "description": person.description,
        "caption": person.describe(performance.expression),
        "skin_tone": person.skin_tone,
        "performance": performance.to_json(),
        "points": _numbers(result.points, 3),
        "landmarks": _numbers(result.landmarks, 2),
        "visible": result.visible.tolist(),
        "pose": [round(float(angle), 4) for angle in result.pose],
        "expression": _numbers(result.expression, 4),
        "camera": {
            "intrinsics": _numbers(result.intrinsics, 6),
            "camera_from_head": _numbers(result.camera_from_head, 8),
        },
    }


def _numbers(values: NDArray[Any], digits: int) -> list[Any]:
    rounded: list[Any] = np.round(values.astype(np.float64), digits).tolist()
    return rounded


def write(stem: Path, folder: Path, result: Render, truth: Collection[str]) -> dict[str, Any]:
    """Write masks and depth, as far as asked for, as ``STEM.mask-face.png`` and so on.

    Args:
        stem: path and name of the picture, without its suffix.
        folder: the studio folder in which it lies.
        result: the frame.
        truth: of "masks" and "depth".

    Returns:
        ``{"truth": {what: {"path", "sha256"}}}`` for the frame's facts; empty if there is none.
    """
    pictures: dict[str, NDArray[Any]] = {}
    if "masks" in truth:
        pictures |= {f"mask-{name}": result.masks[name] for name in MASKS}
    if "depth" in truth:
        pictures["depth"] = _millimetres(result.depth)
    found = {}
    for what, picture in pictures.items():
        path = stem.with_name(f"{stem.name}.{what}.png")
        files.write_bytes(path, cv2.imencode(".png", picture)[1].tobytes())
        name = path.relative_to(folder).as_posix()
        found[what] = {"path": name, "sha256": files.sha256(path)}
    return {"truth": found} if found else {}


def listed(frame: dict[str, Any]) -> dict[str, str]:
    """Path → SHA-256 of the files that a frame's facts name.

    Raises:
        FacekitError: if the facts are not what :func:`write` gave.
    """
    try:
        found = {entry["path"]: entry["sha256"] for entry in frame.get("truth", {}).values()}
    except (AttributeError, KeyError, TypeError) as error:
        raise FacekitError("the manifest's 'truth' is not a table of files") from error
    return {str(path): str(digest) for path, digest in found.items()}


def require(stem: Path, result: Render, truth: Collection[str], given: object) -> None:
    """Compare a frame's facts, and the files beside its picture, with the frame rendered again.

    Args:
        stem: path and name of the picture, without its suffix.
        result: the frame rendered again.
        truth: which files there are, of "masks" and "depth".
        given: the facts in the manifest.

    Raises:
        FacekitError: if a fact differs (a number by more than 0.02 and 1 in 1000), or a file is
            missing or says something else in more than 1% of the pixels: by more than 8 of 255 of
            a mask, or 2 mm of depth.
    """
    _require_facts(stem, result, given)
    checks: list[tuple[str, NDArray[Any], int]] = []
    if "masks" in truth:
        checks += [(f"mask-{name}", result.masks[name], 8) for name in MASKS]
    if "depth" in truth:
        checks.append(("depth", _millimetres(result.depth), 2))
    for what, expected, most in checks:
        path = stem.with_name(f"{stem.name}.{what}.png")
        shown = _read(path)
        if shown.shape != expected.shape or shown.dtype != expected.dtype:
            raise FacekitError(f"{path}: is not of the size and depth that its certificate says")
        apart = np.abs(shown.astype(np.int64) - expected) > most
        if apart.mean() > 0.01:
            raise FacekitError(f"{path}: is not the truth that its seeds give when rendered again")


def _require_facts(stem: Path, result: Render, given: object) -> None:
    given = given if isinstance(given, dict) else {}
    for name, expected in facts(result).items():
        # A point at an edge may be seen on one machine and hidden by the last bit on another.
        if name != "visible" and not _alike(given.get(name), expected):
            raise FacekitError(
                f"{stem}: '{name}' in the manifest is not what its seeds give when rendered again"
            )


def _alike(given: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        same = isinstance(given, dict) and given.keys() == expected.keys()
        return same and all(_alike(given[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        same = isinstance(given, list | tuple) and len(given) == len(expected)
        return same and all(map(_alike, given, expected))
    if isinstance(expected, float) and isinstance(given, int | float):
        return math.isclose(given, expected, rel_tol=1e-3, abs_tol=0.02)
    return bool(given == expected)


def read_depth(path: Path) -> Floats:
    """Read a ``.depth.png``: float32 (S, S) in dm, infinite on the background.

    Raises:
        FacekitError: if it is missing, or not such a picture.
    """
    millimetres = _read(path)
    if millimetres.dtype != np.uint16 or millimetres.ndim != 2:
        raise FacekitError(f"{path}: not a depth picture; expected PNG, grey, 16 bits")
    depth: Floats = (millimetres / _MM).astype(np.float32)
    depth[millimetres == 0] = np.inf
    return depth


def _read(path: Path) -> NDArray[Any]:
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise FacekitError(f"{path}: not readable ({error.strerror})") from error
    picture = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    if picture is None:
        raise FacekitError(f"{path}: not a PNG picture")
    return np.asarray(picture)


def _millimetres(depth: Floats) -> NDArray[np.uint16]:
    known = np.where(np.isfinite(depth), depth * _MM, 0)
    return np.asarray(np.clip(np.round(known), 0, 65535), np.uint16)
