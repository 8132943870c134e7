"""The command line: what there is, how quickly help comes, and what errors look like.

``command_line.txt`` freezes every command and option, so that none is added, renamed or lost
unnoticed. After a change that is meant: ``python tests/test_cli.py`` writes it anew.
"""

import difflib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from facekit import __version__
from facekit.cli import COMMANDS, cli

FROZEN = Path(__file__).with_name("command_line.txt")
HEAVY = ("torch", "cv2", "av", "scipy", "sklearn", "torchvision", "trimesh", "albumentations")


def python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def loaded(code: str) -> set[str]:
    """The modules that ``code`` loads in a fresh interpreter."""
    result = python(f"{code}\nimport sys; print('MODULES', *sys.modules)")
    assert result.returncode == 0, result.stderr
    return set(result.stdout.rpartition("MODULES")[2].split())


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, f"{path} {name}")


def describe(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Argument):
        return parameter.human_readable_name
    assert isinstance(parameter, click.Option)
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    kind = "" if parameter.is_flag or parameter.count else f" {parameter.type.name}"
    many = " (many)" if parameter.multiple else ""
    return f"{names}{kind}{many}{' (required)' if parameter.required else ''}"


def command_line() -> str:
    lines = []
    for path, command in commands(cli, "facekit"):
        lines.append(path)
        lines += [f"    {describe(parameter)}" for parameter in command.params]
    return "\n".join(lines) + "\n"


def test_the_command_line_is_the_frozen_one() -> None:
    frozen, now = FROZEN.read_text(encoding="utf-8"), command_line()
    difference = "\n".join(difflib.unified_diff(frozen.split("\n"), now.split("\n"), lineterm=""))
    assert frozen == now, f"if this is meant, run 'python tests/test_cli.py':\n{difference}"


def test_the_commands_stand_in_pipeline_order() -> None:
    assert list(COMMANDS) == [
        "demo",
        "studio",
        "align",
        "faces",
        "consent",
        "generator",
        "detector",
        "analyze",
        "watermark",
        "provenance",
        "weights",
        "bench",
        "completion",
    ]


def test_importing_facekit_loads_nothing_else() -> None:
    assert {name for name in loaded("import facekit") if "." not in name} <= {
        *loaded("pass"),
        "facekit",
    }


def test_help_loads_neither_torch_nor_opencv_nor_av() -> None:
    code = (
        "import facekit.cli, sys\n"
        "sys.argv = ['facekit', '--help']\n"
        "try: facekit.cli.main()\n"
        "except SystemExit as stop: assert not stop.code"
    )
    found = loaded(code)
    assert "facekit.cli" in found
    assert found.isdisjoint({*HEAVY, "numpy", "pydantic"})


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_loads_nothing_heavy(name: str) -> None:
    found = loaded(f"import facekit.commands.{name}")
    assert found.isdisjoint(HEAVY)


def help_of(path: str) -> str:
    result = CliRunner().invoke(cli, [*path.split()[1:], "--help"], prog_name="facekit")
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_examples(name: str) -> None:
    """A group shows some, or each of its commands does."""
    paths = [path for path, _ in commands(cli, "facekit") if path.split()[1:2] == [name]]
    shown = [f"facekit {name} " in help_of(path).partition("Example")[2] for path in paths]
    assert shown[0] or (all(shown[1:]) and shown[1:])


def test_every_option_says_what_it_does() -> None:
    silent = [
        f"{path} {parameter.opts[0]}"
        for path, command in commands(cli, "facekit")
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert silent == []


def test_the_short_help_of_the_table_is_there_for_each_command() -> None:
    output = CliRunner().invoke(cli, ["--help"]).output
    assert all(f"  {name} " in output for name in COMMANDS)
    assert CliRunner().invoke(cli, ["-h"]).output == output


@pytest.mark.parametrize(
    ("given", "near"),
    [("analyse", "analyze"), ("detectors", "detector"), ("watermrk", "watermark")],
)
def test_an_unknown_command_names_the_nearest(given: str, near: str) -> None:
    result = CliRunner().invoke(cli, [given, "file"])
    assert result.exit_code == 2
    assert f"no command '{given}'; did you mean '{near}'? allowed: " in result.output


def test_an_unknown_option_is_wrong_usage() -> None:
    result = CliRunner().invoke(cli, ["weights", "list", "--jsn"])
    assert result.exit_code == 2 and "--json" in result.output


def test_the_version() -> None:
    assert __version__ in CliRunner().invoke(cli, ["--version"]).output


def test_a_users_error_is_one_line_and_exit_1() -> None:
    code = (
        "import click, sys, facekit.cli\n"
        "from facekit.core.errors import FacekitError\n"
        "@click.command()\n"
        "def broken(): raise FacekitError('a.mp4: empty file')\n"
        "facekit.cli.Table.get_command = lambda *_: broken\n"
        "sys.argv = ['facekit', 'align']\n"
        "facekit.cli.main()"
    )
    result = python(code)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == "facekit: a.mp4: empty file\n"


if __name__ == "__main__":
    FROZEN.write_text(command_line(), encoding="utf-8")
