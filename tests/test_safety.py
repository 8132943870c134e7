"""What the source code must never do, checked on the source code itself.

Import-linter guards whole packages; these rules reach further: calls, literals and parts of
packages. Each rule is tried on code that breaks it, so that it cannot fall silent.
"""

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import click
import pytest

import detectors
import facekit
from facekit.commands.generator import command
from facekit.export import CORNERS

ROOMS = [Path(facekit.__file__).parent, Path(detectors.__file__).parent]
MODULES = sorted(path for room in ROOMS for path in room.rglob("*.py"))
NO_WRITERS = ("generators", "adversary", "conversion")
GENERATORS = [path for path in MODULES if path.parent.name in NO_WRITERS]
DEVICE = ROOMS[0] / "core" / "device.py"

WRITERS = {
    "PIL",
    "av",
    "facekit.media.encode",
    "facekit.media.images",
    "facekit.media.photo",
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
# Who may write or encode pictures and videos, and why that is no way around ``facekit.export``.
MEDIA = {
    "facekit/export.py": "the exit itself",
    "facekit/media/encode.py": "the encoder of videos",
    "facekit/media/images.py": "the encoder of pictures",
    "facekit/media/lossy.py": "in memory, there and back again",
    "facekit/media/photo.py": "the encoder of pictures with all their depth",
    "facekit/watermark/files.py": "copies of the user's own files, marked as test-real",
    "facekit/datasets/aligned.py": "crops of what no mark and no manifest calls generated",
    "facekit/datasets/shown.py": "drawings upon what no mark and no manifest calls generated",
    "facekit/datasets/faces_bench.py": "a copy in a temporary folder, to be timed",
    "facekit/datasets/marks_attacks.py": "in memory or a temporary folder, to be read again",
    "facekit/studio/clip.py": "people who don't exist, with the certificate beside them",
    "facekit/studio/certificate.py": "in memory, to be compared with a file",
    "facekit/studio/labels.py": "masks and depth maps: they show nobody",
    "facekit/studio/lessons/_crops.py": "people who don't exist, as bytes within a run folder",
    "facekit/studio/lessons/identity.py": "in memory: compression of a crop",
    "facekit/studio/lessons/landmarks.py": "in memory: compression of a crop",
    "detectors/analyze_bench.py": "a temporary folder, marked as all are, to be analyzed",
    "detectors/fuzz.py": "a temporary folder, to be damaged and read",
    "detectors/report/charts.py": "heat maps: colours over a thumbnail, without a picture",
    "detectors/report/compare.py": "thumbnails inside a comparison, which says what marks say",
    "detectors/report/pictures.py": "closer views inside a report, which says the same",
    "detectors/walk.py": "thumbnails inside a report, which says what the file's mark says",
}
MEDIA_CALLS = {
    "VideoWriter",
    "encode_image",
    "encode_photo",
    "encode_pillow",
    "imencode",
    "imencodemulti",
    "imsave",
    "imwrite",
    "imwriteanimation",
    "imwritemulti",
    "print_jpg",
    "print_png",
    "save_image",
    "savefig",
    "tofile",
    "write_image",
    "write_jpeg",
    "write_png",
    "write_video",
}
# Who may embed a mark, and what kind it is.
MARKERS = {
    "facekit/export.py": "generated, composite, studio: what leaves",
    "facekit/watermark/files.py": "test-real",
    "facekit/commands/demo_pictures.py": "test-real, in memory: to draw what a mark changes",
    "facekit/datasets/marks_schemes.py": "test-real, in memory: a measurement",
    "facekit/datasets/marks_small.py": "test-real, in memory: a measurement",
    "detectors/data.py": "any, in memory, for both classes alike",
    "detectors/protocol.py": "any, in memory: a measurement",
}
PICKLES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}


parsed = cache(ast.parse)


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
    tree = parsed(source)
    found = [module for module in imports(tree) if within(module, WRITERS)]
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    found += [name_of(call.func) for call in calls if name_of(call.func) in WRITING_CALLS]
    return found + saves(tree)


def saves(tree: ast.AST) -> list[str]:
    """``Image.save``, which needs no import where the image comes from elsewhere.

    Checkpoints are not saved by a method of an object called image, picture or frame.
    """
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "save":
            owner = ast.unparse(node.value).lower()
            if any(word in owner for word in ("image", "picture", "frame", "img")):
                found.append(ast.unparse(node))
    return found


def makes_media(source: str) -> list[str]:
    """What makes files of pixels, other than ``export.write_image`` and ``export.write_video``."""
    tree = parsed(source)
    found = saves(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or name_of(node.func) not in {*MEDIA_CALLS, "open"}:
            continue
        call = ast.unparse(node.func)
        if name_of(node.func) in MEDIA_CALLS and not call.startswith("export."):
            found.append(call)
        elif call == "av.open":
            given = [*node.args, *(word.value for word in node.keywords)]
            found += [call] if "'w'" in map(ast.unparse, given) else []
    return found


def embeds_marks(source: str) -> list[str]:
    """Calls of the watermark's ``embed``; the embedding of faces has nothing to do with it."""
    tree = parsed(source)
    names = {"spread.embed", "watermark.embed"}
    if any(m.startswith("facekit.watermark") and m.endswith(".embed") for m in imports(tree)):
        names.add("embed")
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    called = (ast.unparse(call) for call in calls if name_of(call) == "embed")
    return [call for call in called if call in names]


def badges(source: str) -> list[str]:
    """What is given for ``badge=``, or as ``**{"badge": …}``."""
    given = []
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.keyword) and node.arg == "badge":
            given.append(ast.unparse(node.value))
        elif isinstance(node, ast.Dict):
            names = (key.value if isinstance(key, ast.Constant) else None for key in node.keys)
            pairs = zip(names, node.values, strict=True)
            given += [ast.unparse(value) for name, value in pairs if name == "badge"]
    return given


def by_module(rule: Callable[[str], list[str]]) -> dict[str, list[str]]:
    """Module → what the rule finds in it, where it finds something."""
    root = ROOMS[0].parent
    found = {
        path.relative_to(root).as_posix(): rule(path.read_text(encoding="utf-8"))
        for path in MODULES
    }
    return {name: things for name, things in found.items() if things}


def names_devices(source: str) -> list[str]:
    tree = parsed(source)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.partition(":")[0] in ("cuda", "mps"):
                found.append(node.value)
        elif isinstance(node, ast.Attribute) and node.attr in ("cuda", "mps"):
            found.append(ast.unparse(node))
    return found


def unpickles(source: str) -> list[str]:
    tree = parsed(source)
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


def test_only_these_make_media() -> None:
    assert set(by_module(makes_media)) == set(MEDIA)


def test_only_these_embed_marks() -> None:
    assert set(by_module(embeds_marks)) == set(MARKERS)


def test_only_the_stills_of_a_dataset_leave_without_a_badge() -> None:
    """No config says so, nor an option for a single file: that one knows four corners."""
    found = by_module(badges)
    assert found.pop("facekit/datasets/aligned.py") == ["None"]
    # Likewise each photo and its forgery: badge=None is refused outside a data set.
    assert found.pop("facekit/commands/generator_dataset.py") == ["None"]
    # And what a benchmark is tried on.
    assert set(found.pop("facekit/commands/generator_evaluate.py")) == {"None", "badge"}
    # Samples for detectors to learn from: the folder becomes a dataset, or nothing leaves.
    samples = found.pop("facekit/commands/generator_sample.py")
    assert sorted(set(samples)) == ["None if wanted.dataset else wanted.badge", "wanted.badge"]
    assert {"badge", "asked.badge"} == {thing for things in found.values() for thing in things}
    (option,) = (p for p in command.commands["run"].params if p.name == "badge")
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == CORNERS
    configs = Path(facekit.__file__).parents[1] / "configs"
    assert not [path for path in configs.rglob("*.yaml") if "badge" in path.read_text()]


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
    "source",
    [
        "from facekit.media.images import write_image\nwrite_image(path, pixels)",
        "from facekit.media import encode\nencode.write_video(path, frames)",
        "import av\nav.open(path, 'w', format='mp4')",
        "import av\nav.open(path, mode='w')",
        "Image.fromarray(pixels).save(path)",
        "open(path, 'wb').write(cv2.imencode('.png', x)[1])",
        "figure.savefig(path)",
    ],
)
def test_another_maker_of_media_would_be_found(source: str) -> None:
    assert makes_media(source)


@pytest.mark.parametrize(
    "source",
    [
        "export.write_image(path, pixels, kind=kind)",
        "with av.open(path) as container:\n    pass",
        "run.save(step, state)",
    ],
)
def test_who_makes_no_media_is_left_in_peace(source: str) -> None:
    assert not makes_media(source)


def test_another_marker_would_be_found() -> None:
    assert embeds_marks("from facekit import watermark\nwatermark.embed(x, payload)")
    assert not embeds_marks("embedder.embed(crops)")


def test_a_badge_left_out_would_be_found() -> None:
    assert badges("export.write_image(path, x, kind=kind, badge=None)") == ["None"]
    assert badges("terms = {'kind': kind, 'badge': None}") == ["None"]
    assert not badges("export.write_image(path, x, kind=kind)")


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
