"""``facekit bench swap``: how quickly a face swap is learned, and a video of 720p converted.

The trainings are :mod:`facekit.generators._swap_bench`'s. The conversion is timed in a process of
its own, from the file to the marked and signed file; generators write none, so it stands here.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from facekit.core.figures import Figure

if TYPE_CHECKING:
    from facekit.types import Frame

CONVERSION, CLIP = "conversion", "clip"

_WIDE, _SIDE = 1280, 720
_SEED = 720  # of the clip


def bench(*, quick: bool, minutes: float, out: Path, where: str) -> list[Figure]:
    """Do what is not done yet, and compare.

    Args:
        quick: small networks and a few steps of each: to see that it works, not to measure.
        minutes: of each training.
        out: the folder that keeps everything.
        where: the device, by name.

    Returns:
        The rows of :func:`facekit.generators._swap_bench.bench`; ``swap.fps`` of converting 720p as
        if nothing else ran, ``.clock`` as it was, and ``swap.peak_gib``, the memory of that.

    Raises:
        FacekitError: if ``out`` holds a bench of other conditions, or a part of it fails.
    """
    from facekit.core import files
    from facekit.generators import _swap_bench
    from facekit.generators._arm import DONE, PLAN
    from facekit.generators._bench import train_arm
    from facekit.studio.clip import render_clip
    from facekit.studio.person import person_seed

    rows = _swap_bench.bench(quick=quick, minutes=minutes, out=out, where=where)
    plan = files.read_json(out / PLAN)
    render_clip(
        out / CLIP,
        person_seed=person_seed(plan["pair"], 0),
        seconds=plan["seconds"],
        size=_SIDE,
        seed=_SEED,
    )
    train_arm(CONVERSION, out, __name__)
    found = files.read_json(out / CONVERSION / DONE)
    return [
        *rows,
        Figure("swap.fps", found["fps"], "frames/s"),
        Figure("swap.fps.clock", found["fps_by_the_clock"], "frames/s"),
        Figure("swap.peak_gib", found["peak_gib"], "GiB"),
    ]


def main() -> None:
    """``python -m facekit.commands.bench_swap conversion OUT [-q]``: convert, and say how fast."""
    from facekit.core.errors import FacekitError
    from facekit.core.progress import set_verbosity

    _, out, *quiet = sys.argv[1:]
    set_verbosity(0, bool(quiet))
    try:
        convert(Path(out))
    except FacekitError as error:
        sys.exit(f"Error: {error}")


def convert(out: Path) -> None:
    """Convert ``OUT/clip`` with the own model's run, and leave the figures in ``OUT/conversion``.

    Raises:
        FacekitError: if the run or the clip is missing.
    """
    from facekit import export, generators
    from facekit.core import config, device, files
    from facekit.generators._arm import DONE, PLAN
    from facekit.generators._swap_arm import RUN, Plan
    from facekit.media.decode import Video

    plan = config.validate(files.read_json(out / PLAN), Plan, out / PLAN)
    fabric = device.setup(plan.device, plan.precision, threads=plan.threads)
    run = generators.open_run(out / RUN)
    given = generators.admit_file(out / CLIP / "clip.mp4", (), fabric.device)
    people: list[str] = run.facts["people"]
    count = 0

    def changed() -> "Iterator[Frame]":
        nonlocal count
        frames = Wide(out / CLIP / "clip.mp4")
        for frame in generators.generate(
            run, frames, fabric, given=given, source=people[1], target=people[0]
        ):
            count += 1
            yield frame

    with Video(out / CLIP / "clip.mp4") as video:
        rate = video.info.rate or 25.0
    with tempfile.TemporaryDirectory() as scratch:
        began, clock = time.process_time(), time.perf_counter()
        export.write_video(
            Path(scratch) / "swap.mp4",
            changed(),
            kind=generators.load(run.facts["plugin"]).KIND,
            rate=rate,
            inputs=given.files,
            facts={"origin": "studio", "generator": run.facts["plugin"], "run": run.id},
            id=generators.mark_id(run, given),
        )
        used, passed = time.process_time() - began, time.perf_counter() - clock
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    (out / CONVERSION).mkdir(exist_ok=True)
    facts = {
        "frames": count,
        "fps": count * plan.threads / used,
        "fps_by_the_clock": count / passed,
        "peak_gib": peak / 2**30,
    }
    files.write_json(out / CONVERSION / DONE, facts)


@dataclass(frozen=True)
class Wide:
    """The frames of a square clip as 1280 × 720, anew each time they are asked for.

    A conversion goes through a clip twice, and would keep in memory what comes but once.
    """

    path: Path

    def __iter__(self) -> "Iterator[Frame]":
        """Decode it."""
        from facekit.media.decode import Video

        with Video(self.path) as video:
            yield from map(widened, video)


def widened(frame: "Frame") -> "Frame":
    """A frame of 720 × 720 between strips of its own mirror image: uint8 (720, 1280, 3)."""
    import numpy as np

    from facekit.types import Frame

    left = (_WIDE - _SIDE) // 2
    wide = np.pad(frame.pixels, ((0, 0), (left, _WIDE - _SIDE - left), (0, 0)), mode="reflect")
    return Frame(np.ascontiguousarray(wide), frame.time, frame.index)


if __name__ == "__main__":
    main()
