"""Plug-ins by file name: a module in the package is a plug-in, and its name is its file's name.

No list is kept anywhere. Files that begin with an underscore are helpers, not plug-ins.
"""

import pkgutil
from importlib import import_module
from types import ModuleType

from facekit.core.errors import FacekitError, did_you_mean


def names(package: str) -> list[str]:
    """The plug-ins of ``package`` (e.g. ``"facekit.generators"``), without importing them."""
    paths = import_module(package).__path__
    found = (module.name for module in pkgutil.iter_modules(paths) if not module.ispkg)
    return sorted(name for name in found if not name.startswith("_"))


def load(package: str, name: str) -> ModuleType:
    """Import the plug-in ``name`` of ``package``.

    Raises:
        FacekitError: if there is none of that name; it lists those that there are.
    """
    known = names(package)
    if name not in known:
        what = package.rpartition(".")[2].rstrip("s")
        raise FacekitError(f"unknown {what} '{name}'; {did_you_mean(name, known)}")
    return import_module(f"{package}.{name}")
