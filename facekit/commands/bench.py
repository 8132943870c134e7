"""``facekit bench``: figures that depend on the machine, with the machine's facts."""

from pathlib import Path
from typing import Any

import click

from facekit.commands import options

BENCHES = {
    "studio": "facekit.studio.bench",
    "faces": "facekit.datasets.faces_bench",
    "analyze": "detectors.analyze_bench",
    "gan": "facekit.generators._bench",
    "swap": "facekit.commands.bench_swap",
    "heads": "facekit.generators._head_bench",
}
"""Name → module with a function ``bench(*, quick, …) -> list[Figure]``."""

OUTSIDE = ("faces", "analyze")
"""Those whose function also takes ``data``, ``judge`` and ``device``."""


KEEPING = ("gan", "swap")
"""Those that train something, and whose function takes ``minutes``, ``out`` and ``where``."""


@click.command()
@click.argument("name")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="For faces and analyze: a folder with video/ and london/, to measure on real people too.",
)
@click.option(
    "--judge",
    type=click.Path(path_type=Path),
    help="For faces: an identity network, .onnx, to stand beside the own one.",
)
@click.option("--quick", is_flag=True, help="Few frames: to see that it works, not to measure.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="For gan and swap: how long each model learns, on all threads.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="For gan and swap: the folder that keeps what is trained; the same command goes on there.",
)
@options.DEVICE
@options.JSON
def command(
    name: str,
    data: Path | None,
    judge: Path | None,
    quick: bool,
    minutes: float,
    out: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure on this machine.

    NAME says what: studio, how quickly it renders and starts; faces, how quick, complete and exact
    the face stage is; analyze, how quick, frugal, right and sturdy the analysis of files is, which
    takes half an hour on 2 cores; heads, how quickly a photo is moved, beside the published arm;
    gan, how good the GAN from noise is beside DCGAN and lightweight-gan, each trained for --minutes
    on the same faces, which takes two hours; swap, how quickly a face swap is learned beside a
    model of the size of faceswap's "original", which takes an hour and a half, and converted. What
    is trained is kept in --out (out/bench-gan, out/bench-swap), and an interrupted bench goes on
    there.

    With --json the machine's facts go to standard error. Rows that need --data or --judge are left
    out without them.

    \b
    Examples:
      facekit bench studio
      facekit bench faces --quick
      facekit bench faces --data DIR --judge judge.onnx --json
      facekit bench analyze --data DIR --json
      facekit bench gan --minutes 30 --out out/bench-gan --json
    """
    from contextlib import ExitStack
    from importlib import import_module
    from tempfile import TemporaryDirectory

    from facekit.core.errors import FacekitError, did_you_mean
    from facekit.core.figures import show

    if name not in BENCHES:
        raise FacekitError(f"no bench '{name}'; {did_you_mean(name, BENCHES)}")
    arguments: dict[str, Any] = {"quick": quick}
    if name in OUTSIDE:
        from facekit.core.device import setup

        arguments |= {"data": data, "judge": judge, "device": setup(device).device}
    elif data or judge:
        given, those = ("--data", OUTSIDE) if data else ("--judge", OUTSIDE[:1])
        raise FacekitError(
            f"{given}: the bench '{name}' takes none; give it to {' or '.join(those)}"
        )
    if name == "analyze":
        from facekit.commands.bench_swaps import swaps

        # Detectors know no generator: what is forged by one is handed in.
        arguments["swaps"] = swaps
    if name == "heads":
        arguments["device"] = device
    with ExitStack() as stack:
        if name in KEEPING:
            # Of a quick one nothing is worth keeping.
            kept = stack.enter_context(TemporaryDirectory()) if quick else f"out/bench-{name}"
            arguments |= {"minutes": minutes, "out": out or Path(kept), "where": device}
        elif out:
            raise FacekitError(f"--out: the bench '{name}' keeps nothing; give it to gan or swap")
        click.echo(_machine(), err=as_json)
        show(import_module(BENCHES[name]).bench(**arguments), as_json)


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
