"""Strict configs: YAML into frozen pydantic models, with errors that a person can act on."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from facekit.core.errors import FacekitError, did_you_mean


class Config(BaseModel):
    """The base of every config: frozen, strict; unknown keys and infinite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some values changed; they are checked, which pydantic's own does not do."""
        copied = super().model_copy(deep=deep)
        return type(self).model_validate(dict(copied) | dict(update)) if update else copied


C = TypeVar("C", bound=Config)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except that ``1e-4`` is a float and keys are unique."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _mapping_of_unique_keys(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if isinstance(key, dict | list):
            raise yaml.YAMLError(f"a list or mapping is no key{node.start_mark}")
        if keys.count(key) > 1:
            raise yaml.YAMLError(f"key '{key}' stands twice{node.start_mark}")
    values = [loader.construct_object(value, deep=True) for _, value in node.value]
    return dict(zip(keys, values, strict=True))


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_of_unique_keys)


def folder() -> Path:
    """The bundled ``configs``: inside the installed package, else at the repository's top."""
    package = Path(str(resources.files("facekit")))
    shipped = package / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def find(name: str | Path) -> Path:
    """A config's path: ``name`` itself if it is a file, else the bundled config of that name.

    ``generators/face_swap``, ``generators/face_swap.yaml`` and
    ``configs/generators/face_swap.yaml`` all name the same bundled file.

    Raises:
        FacekitError: if there is no such file; it lists the bundled ones.
    """
    if Path(name).is_file():
        return Path(name)
    wanted = str(name).removeprefix("configs/").removesuffix(".yaml")
    bundled = {
        str(path.relative_to(folder()).with_suffix("").as_posix()): path
        for path in folder().rglob("*.yaml")
    }
    if wanted not in bundled:
        raise FacekitError(f"no config '{name}'; {did_you_mean(wanted, bundled)}")
    return bundled[wanted]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        FacekitError: if the file is missing, not YAML, or not a mapping.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise FacekitError(f"{path}: not readable ({error})") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date of month 13
        raise FacekitError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(data, dict):
        raise FacekitError(f"{path}: expected 'key: value' lines, got {type(data).__name__}")
    return data


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """``data`` with each ``key=value`` of ``overrides`` (dots reach into sections) put in.

    Raises:
        FacekitError: if an override is not ``key=value``.
    """
    result = deepcopy(data)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise FacekitError(f"--set {override}: expected key=value, e.g. --set steps=200")
        *sections, last = key.split(".")
        target = result
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise FacekitError(f"--set {override}: '{section}' is a value, not a section")
        try:
            target[last] = yaml.load(text, Loader=_Loader)
        except (yaml.YAMLError, ValueError) as error:
            raise FacekitError(f"--set {override}: '{text}' is not a YAML value") from error
    return result


def validate(data: dict[str, Any], model: type[C], source: str | Path) -> C:
    """``data`` as a ``model``.

    Raises:
        FacekitError: one line that names each key, what was given and what is allowed.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise FacekitError(f"{source}: {_problems(error, model)}") from error


def validate_json(text: str | bytes, model: type[C], source: str | Path) -> C:
    """``text`` as a ``model``; JSON's lists and strings may stand for tuples, sets and times.

    Raises:
        FacekitError: one line that names each key, what was given and what is allowed.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise FacekitError(f"{source}: {_problems(error, model)}") from error


def _problems(error: ValidationError, model: type[BaseModel]) -> str:
    return "; ".join(_explain(problem, model) for problem in error.errors())


def _explain(problem: Any, model: type[BaseModel]) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        section: Any = model
        for part in location[:-1]:
            field = getattr(section, "model_fields", {}).get(part)
            section = field.annotation if field else None
        allowed = getattr(section, "model_fields", {})
        return f"unknown key '{key}' (given {problem['input']!r}); " + did_you_mean(
            location[-1], allowed
        )
    if problem["type"] == "missing":
        return f"key '{key}' is missing"
    return f"key '{key}': {problem['msg'].lower()}, given {problem['input']!r}"
