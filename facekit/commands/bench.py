"""``facekit bench``: figures that depend on the machine, with the machine's facts."""

import click

BENCHES = {"studio": "facekit.studio.bench"}
"""Name → module with a function ``bench(*, quick) -> list[Figure]``."""


@click.command()
@click.argument("name")
@click.option("--quick", is_flag=True, help="Few frames: to see that it works, not to measure.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(name: str, quick: bool, as_json: bool) -> None:
    """Measure speed and memory on this machine. NAME says of what: studio.

    With --json the machine's facts go to standard error.

    \b
    Examples:
      facekit bench studio
      facekit bench studio --json
    """
    from importlib import import_module

    from facekit.core.errors import FacekitError, did_you_mean
    from facekit.core.figures import show

    if name not in BENCHES:
        raise FacekitError(f"no bench '{name}'; {did_you_mean(name, BENCHES)}")
    click.echo(_machine(), err=as_json)
    show(import_module(BENCHES[name]).bench(quick=quick), as_json)


def _machine() -> str:
    """What the figures depend on besides the code, in one line."""
    import os
    import platform
    from pathlib import Path

    from facekit.core.device import default_threads

    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return (
        f"{default_threads()} cores of {models[0] if models else platform.machine()}, load {load} "
        f"before the start, {platform.system()}, Python {platform.python_version()}"
    )
