"""``facekit completion``: what makes a shell complete facekit's commands, options and files."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import ShellComplete

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, their values and file names.

    \b
    Have your shell read it when it starts, from now on:
      bash   facekit completion bash > ~/.facekit-complete.bash
             echo '. ~/.facekit-complete.bash' >> ~/.bashrc
      zsh    facekit completion zsh > ~/.facekit-complete.zsh
             echo '. ~/.facekit-complete.zsh' >> ~/.zshrc   (after compinit)
      fish   facekit completion fish > ~/.config/fish/completions/facekit.fish

    \b
    Examples:
      facekit completion bash
      facekit completion zsh > ~/.facekit-complete.zsh
    """
    source = _completer(context.find_root(), shell).source()
    # Click's script for fish would cut a value off at its first comma: --without takes lists.
    click.echo(source.replace('string split ","', 'string split -m1 ","'))


def _completer(root: click.Context, shell: str) -> "ShellComplete":
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # click has those of SHELLS
    name = Path(root.info_name or "facekit").name
    return kind(root.command, {}, name, f"_{name}_complete".upper())
