"""What the README and the docs say exists: files, links, commands, options, and bundled weights."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import click
import pytest

from facekit import generators, watermark
from facekit.cli import COMMANDS
from facekit.core import config, weights
from facekit.provenance import verify

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "ETHICS.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    inner = [link for link in links if not link.startswith("http")]
    missing = [link for link in inner if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adversary.webp", "generated"),
        ("gan.webp", "generated"),
        ("face_swap.png", "composite"),
        ("pipeline.png", "composite"),
        ("faces.jpg", "studio"),
        ("studio-people.jpg", "studio"),
        ("studio-talking.mp4", "studio"),
        ("talking_head.png", "generated"),
    ],
)
def test_pictures_say_what_they_are(name: str, kind: str) -> None:
    """If the mark's scheme has changed, read them, and write them again with facekit.export."""
    path = ROOT / "docs" / name
    assert watermark.read_file(path, search=False).kind == kind
    provenance = verify(path)
    assert (provenance.status, provenance.claims["kind"]) == ("untrusted", kind)


def test_there_are_no_other_pictures() -> None:
    media = {".png", ".jpg", ".webp", ".mp4", ".gif"}
    found = sorted(p.name for p in (ROOT / "docs").iterdir() if p.suffix in media)
    assert found == [
        "adversary.webp",
        "face_swap.png",
        "faces.jpg",
        "gan.webp",
        "pipeline.png",
        "studio-people.jpg",
        "studio-talking.mp4",
        "talking_head.png",
    ]


def commands() -> list[str]:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", text, flags=re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in line.lstrip("$ ").split("&&")]
    return sorted({part.split("#")[0].strip() for part in parts if part.startswith("facekit ")})


@pytest.mark.parametrize("line", commands())
def test_commands_exist_as_written(line: str) -> None:
    _, name, *words = shlex.split(line)
    assert name in COMMANDS
    command: click.Command = import_module(f"facekit.commands.{name}").command
    while isinstance(command, click.Group):
        word = words.pop(0)
        assert word in command.commands, f"no '{word}' in: {line}"
        command = command.commands[word]
    known = {option for parameter in command.params for option in parameter.opts}
    unknown = [word for word in words if word.startswith("--") and word not in known]
    assert not unknown


def test_configs_start_from_weights_that_are_bundled() -> None:
    folder = Path(weights.__file__).parent.parent / "weights"
    for path in sorted((config.folder() / "generators").glob("*.yaml")):
        name = config.read_yaml(path).get("pretrained")
        if name:
            path_of_weights, card = weights.find(folder, name)  # checks the hash
            assert path_of_weights.stat().st_size <= 6 << 20
            _, settings = generators.read_config(path)
            for key in ("width", "code"):
                assert card["config"][key] == getattr(settings, key)
