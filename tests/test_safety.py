"""What the source code must never do, checked on the source code itself.

Import-linter guards whole packages; these rules reach further: calls, literals and parts of
packages. Each rule is tried on code that breaks it, so that it cannot fall silent.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import detectors
import facekit

ROOMS = [Path(facekit.__file__).parent, Path(detectors.__file__).parent]
MODULES = sorted(path for room in ROOMS for path in room.rglob("*.py"))
GENERATORS = [path for path in MODULES if path.parent.name in ("generators", "adversary")]
DEVICE = ROOMS[0] / "core" / "device.py"

WRITERS = {
    "PIL",
    "av",
    "facekit.media.encode",
    "facekit.media.images",
    "imageio",
    "matplotlib",
    "skimage.io",
    "torchvision.io",
    "torchvision.utils",
}
WRITING_CALLS = {
    "VideoWriter",
    "imencode",
    "imsave",
    "imwrite",
    "imwritemulti",
    "save_image",
    "savefig",
    "tofile",
    "write_bytes",
    "write_jpeg",
    "write_png",
    "write_video",
}
PICKLES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, wherever in the file, also by ``import_module``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and name_of(node.func) in ("import_module", "__import__"):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


def name_of(function: ast.expr) -> str:
    """The last part of what is called: ``imwrite`` of ``cv2.imwrite``."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def within(module: str, forbidden: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in forbidden)


def writes_pictures(source: str) -> list[str]:
    tree = ast.parse(source)
    found = [module for module in imports(tree) if within(module, WRITERS)]
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    found += [name_of(call.func) for call in calls if name_of(call.func) in WRITING_CALLS]
    # ``Image.save`` needs no import where the image comes from elsewhere; checkpoints are not
    # saved by a method of an object called image, picture or frame.
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "save":
            owner = ast.unparse(node.value).lower()
            if any(word in owner for word in ("image", "picture", "frame", "img")):
                found.append(ast.unparse(node))
    return found


def names_devices(source: str) -> list[str]:
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.partition(":")[0] in ("cuda", "mps"):
                found.append(node.value)
        elif isinstance(node, ast.Attribute) and node.attr in ("cuda", "mps"):
            found.append(ast.unparse(node))
    return found


def unpickles(source: str) -> list[str]:
    tree = ast.parse(source)
    found = [module for module in imports(tree) if within(module, PICKLES)]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or name_of(node.func) not in ("load", "read_pickle"):
            continue
        call = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if call == "torch.load" and given.get("weights_only") != "True":
            found.append(ast.unparse(node))
        if given.get("allow_pickle", "False") != "False" or name_of(node.func) == "read_pickle":
            found.append(ast.unparse(node))
    return found


def test_there_is_code_to_check() -> None:
    assert len(MODULES) > 30 and DEVICE in MODULES
    assert any(path.name == "face_swap.py" for path in GENERATORS)


@pytest.mark.parametrize("path", GENERATORS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_generators_write_no_picture_by_themselves(path: Path) -> None:
    assert writes_pictures(path.read_text(encoding="utf-8")) == []


def test_only_one_file_names_devices() -> None:
    found = {str(path): names_devices(path.read_text(encoding="utf-8")) for path in MODULES}
    assert found.pop(str(DEVICE))
    assert {path: names for path, names in found.items() if names} == {}


def test_nothing_is_unpickled() -> None:
    found = {str(path): unpickles(path.read_text(encoding="utf-8")) for path in MODULES}
    assert {path: calls for path, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import av",
        "import av.video",
        "def f():\n    from PIL import Image",
        "import torchvision.io",
        "from torchvision import io",
        "from torchvision.utils import save_image",
        "from facekit.media import encode",
        "from facekit.media.images import write_image",
        "import matplotlib.pyplot as plt",
        "from importlib import import_module\nimport_module('av')",
        "import cv2\ncv2.imwrite('a.png', x)",
        "import cv2\nwriter = cv2.VideoWriter('a.mp4', 0, 25, (4, 4))",
        "from cv2 import imwrite\nimwrite('a.png', x)",
        "to_image(x).save('a.png')",
        "frame.save('a.png')",
        "array.tofile('a.rgb')",
    ],
)
def test_a_generator_that_writes_would_be_found(source: str) -> None:
    assert writes_pictures(source)


@pytest.mark.parametrize(
    "source",
    ["import cv2\ncv2.resize(x, (4, 4))", "run.save(step, {})", "from facekit.media import decode"],
)
def test_a_generator_that_does_not_write_is_left_in_peace(source: str) -> None:
    assert not writes_pictures(source)


@pytest.mark.parametrize(
    "source", ["x.to('cuda')", "torch.device('cuda:1')", "d = 'mps'", "torch.cuda.synchronize()"]
)
def test_a_named_device_would_be_found(source: str) -> None:
    assert names_devices(source)


def test_prose_about_devices_is_left_in_peace() -> None:
    assert not names_devices('"""Needs a cuda device."""\nx.to(fabric.device)')


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "pandas.read_pickle(path)",
    ],
)
def test_unpickling_would_be_found(source: str) -> None:
    assert unpickles(source)


@pytest.mark.parametrize(
    "source",
    ["torch.load(path, weights_only=True)", "np.load(path)", "json.load(file)", "load(path)"],
)
def test_safe_loading_is_left_in_peace(source: str) -> None:
    assert not unpickles(source)
