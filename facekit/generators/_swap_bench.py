"""``facekit bench swap``: how quickly a face swap is learned and converted.

The own model and one of the size of faceswap's "original" learn the same two studio people from the
same photos, at the same size, for the same processor time; both are then scored on the same clips
against the true answer, pasted by the same conversion. ``facekit.commands.bench_swap`` then has the
own one convert a clip of 720p.

What is done is kept in ``OUT`` and not done again; ``OUT/plan.json`` has the conditions.
"""

import math
from pathlib import Path

import torch

from facekit.core import device, files
from facekit.core.figures import Figure
from facekit.generators._arm import DONE
from facekit.generators._bench import keep, train_arm
from facekit.generators._swap_arm import ORIGINAL, OWN, PEOPLE, Plan
from facekit.studio.clip import render_folder

MODULE = "facekit.generators._swap_arm"

_PAIR = 9107  # the first of the benchmark's


def bench(
    *,
    quick: bool = False,
    minutes: float = 30.0,
    out: Path,
    where: str = "auto",
    threads: int | None = None,
) -> list[Figure]:
    """Do what is not done yet, and compare.

    Args:
        quick: small networks and a few steps of each: to see that it works, not to measure.
        minutes: of each training on all threads, as if nothing else ran: minutes × threads of
            processor time, locating the faces included.
        out: the folder that keeps everything.
        where: the device, by name.
        threads: of each; None for every core.

    Returns:
        ``swap.train_ratio``, the own images a second over the original's; ``swap.train_psnr`` of
        both against the true answer, and their difference; and of each arm its steps, images a
        second, minutes and parameters.

    Raises:
        FacekitError: if ``out`` holds a bench of other conditions, or an arm fails.
    """
    device.setup(where, "auto", threads=threads)
    plan = Plan(
        minutes=minutes,
        threads=torch.get_num_threads(),
        device=where,
        precision="auto",
        seed=0,
        size=32 if quick else 64,
        pair=_PAIR,
        photos=4 if quick else 200,
        clips=2 if quick else 8,
        frames=2 if quick else 10,
        seconds=0.16 if quick else 3.0,
        width=8 if quick else 128,
        steps=2 if quick else None,
    )
    keep(plan, out)
    render_folder(
        out / PEOPLE,
        people=2,
        frames=plan.photos,
        size=128 if quick else 256,
        seed=plan.pair,
        workers=plan.threads,
    )
    for arm in (OWN, ORIGINAL):
        train_arm(arm, out, MODULE)
    return compare(out)


def compare(out: Path) -> list[Figure]:
    """The figures of arms that are done, from what they left in ``out``."""
    own, original = (files.read_json(out / arm / DONE) for arm in (OWN, ORIGINAL))
    rows = [
        Figure("swap.train_ratio", own["images_per_s"] / original["images_per_s"]),
        *(
            Figure(
                f"swap.train_psnr{end}",
                arm["psnr"],
                "dB",
                arm["low"],
                arm["high"],
                peer=original["psnr"] if arm is own else None,
                floor=arm["copy"],
            )
            for end, arm in (("", own), (".original", original))
        ),
        Figure("swap.train_psnr.pasted", own["pasted"], "dB"),
        Figure("swap.train_psnr_over_original", own["psnr"] - original["psnr"], "dB"),
    ]
    units = {"minutes": "min", "steps": "", "images_per_s": "images/s", "parameters": ""}
    rows += [
        Figure(f"swap.{key}.{name}", float(arm[key]), unit)
        for name, arm in ((OWN, own), (ORIGINAL, original))
        for key, unit in units.items()
    ]
    return [row for row in rows if math.isfinite(row.value)]
