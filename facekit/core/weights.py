"""Bundled weights: NAME.safetensors with its card, NAME.json, beside it.

The card says which command, config, seed and data made the file, how long that took, under which
licence it is, what was measured, and the file's hash. A file without its card, or with another
hash, is not loaded.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facekit.core import files
from facekit.core.errors import FacekitError, did_you_mean

KEYS = (
    "name",
    "file",
    "sha256",
    "command",
    "config",
    "seed",
    "data",
    "data_hash",
    "minutes",
    "licence",
    "figures",
)
"""What every card holds; it may hold more."""


@dataclass(frozen=True)
class Weights:
    """One bundled file, its card, and what is wrong with the two.

    Attributes:
        name: of the file and of its card, without suffix.
        path: of the weights; it may be missing where only a card was found.
        card: the card's content; empty if it is missing or not readable.
        problems: one line each; none if all is well.
    """

    name: str
    path: Path
    card: dict[str, Any]
    problems: tuple[str, ...]


def survey(folder: Path) -> list[Weights]:
    """Every file of weights and every card in ``folder``, checked, in order of name.

    A folder that does not exist holds none.
    """
    names = {path.stem for kind in ("*.safetensors", "*.json") for path in folder.glob(kind)}
    return [_check(folder, name) for name in sorted(names)]


def find(folder: Path, name: str) -> tuple[Path, dict[str, Any]]:
    """The path and the card of the weights ``name`` in ``folder``, after a check of the hash.

    Raises:
        FacekitError: if there are none of that name, or file and card do not match; it says how.
    """
    known = [path.stem for path in folder.glob("*.safetensors")]
    if name not in known:
        raise FacekitError(f"no bundled weights '{name}'; {did_you_mean(name, known)}")
    weights = _check(folder, name)
    if weights.problems:
        raise FacekitError(f"{'; '.join(weights.problems)}; install facekit again")
    return weights.path, weights.card


def _check(folder: Path, name: str) -> Weights:
    path = folder / f"{name}.safetensors"
    card_path = folder / f"{name}.json"
    if not card_path.is_file():
        return Weights(name, path, {}, (f"{path}: no card beside it ({card_path.name})",))
    try:
        card = files.read_json(card_path)
    except FacekitError as error:
        return Weights(name, path, {}, (str(error),))
    if not isinstance(card, dict):
        return Weights(name, path, {}, (f"{card_path}: not a card (no JSON object)",))
    problems = [f"{card_path}: key '{key}' is missing" for key in KEYS if key not in card]
    for key, value in (("name", name), ("file", path.name)):
        if card.get(key, value) != value:
            problems.append(f"{card_path}: {key} is {card[key]!r}, expected {value!r}")
    if not path.is_file():
        problems.append(f"{card_path}: a card without its weights ({path.name})")
    elif "sha256" in card:
        problems += _compare(path, str(card["sha256"]))
    return Weights(name, path, card, tuple(problems))


def _compare(path: Path, stated: str) -> list[str]:
    if not re.fullmatch("[0-9a-f]{64}", stated):
        return [f"{path.with_suffix('.json')}: sha256 {stated[:80]!r} is not 64 hex digits"]
    actual = files.sha256(path)
    if actual == stated:
        return []
    return [f"{path}: not the file its card describes (sha256 {actual[:12]}…, not {stated[:12]}…)"]
