"""The command line: one lazy table, in pipeline order. Help loads neither torch nor OpenCV."""

import os
import sys
from importlib import import_module

import click

from facekit import __version__
from facekit.core.errors import FacekitError, did_you_mean

COMMANDS = {
    "demo": "The whole way in one command, with nothing to download.",
    "studio": "Render people who don't exist, with exact labels.",
    "align": "Locate, track and align the faces of photos and videos.",
    "faces": "Look at what the face stage sees.",
    "consent": "Record who consents to what, and revoke it.",
    "generator": "Train a generator, and run it.",
    "detector": "Train a detector of generated faces, and evaluate it.",
    "analyze": "Analyze files and write a report on each.",
    "watermark": "Embed a test mark, or read the mark of a file.",
    "provenance": "Sign files, and verify where they come from (C2PA).",
    "weights": "List and verify the bundled weights.",
    "bench": "Measure speed and memory on this machine.",
    "completion": "Print what completes commands in your shell.",
}
"""Name → short help. The command ``name`` lives in ``facekit/commands/name.py`` as ``command``."""


class Table(click.Group):
    """A group whose commands are imported only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in pipeline order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"facekit.commands.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but an unknown command's error names the nearest ones."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no command '{args[0]}'; {did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Table, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="facekit")
@click.option("-v", "--verbose", count=True, help="Say more on standard error.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but warnings and errors.")
def cli(verbose: int, quiet: bool) -> None:
    """Facekit: a research toolkit for synthetic face media.

    \b
    Examples:
      facekit demo --quick --out out/demo
      facekit analyze clip.mp4 --out out/report
      facekit align photos/ --out out/aligned
    """
    from facekit.core.progress import set_verbosity

    set_verbosity(verbose, quiet)


def main() -> None:
    """Run the command line; print a user's error as one line and exit with 1."""
    # albumentations asks PyPI for its newest version at import unless told not to.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        cli(prog_name="facekit")
    except FacekitError as error:
        click.echo(f"facekit: {error}", err=True)
        sys.exit(1)
