"""Forgeries of the project's generators, for what is measured on them: made as a user makes them.

Generators are trained on studio people, who don't exist, since nobody's consent is at hand; other
moments of the same people are the targets. So far there is one generator, the face swap.
"""

from pathlib import Path

_SEED = 61
_SIZE = 256
_CLIPS = 4
_STILLS = 8


def swaps(folder: Path, quick: bool) -> list[Path]:
    """Train a face swap on studio people, and show some of them with each other's faces.

    Args:
        folder: for everything: what is rendered, the run, and the forgeries.
        quick: train for a few steps, and make two forgeries, to see that it works.

    Returns:
        Pictures and clips, marked and signed as all that is made.
    """
    from facekit.commands.demo import facekit
    from facekit.types import read_manifest

    people, clips, stills = folder / "people", 1 if quick else _CLIPS, 1 if quick else _STILLS
    size, frames = (128, 2) if quick else (_SIZE, 30)
    facekit(
        *("studio", "render", "--people", 2 if quick else 6, "--frames", frames),
        *("--size", size, "--seed", _SEED, "--workers", 2, "--out", people),
    )
    few = ("steps=4", "strip_every=4", "least_photos=2") if quick else ()
    changes = [word for setting in few for word in ("--set", setting)]
    facekit(
        *("generator", "train", "generators/face_swap_quick", "--data", people),
        *("--out", folder / "run", "--precision", "auto", "--json", *changes),
    )
    seeds = {item.subject: item.facts["person_seed"] for item in read_manifest(people)}
    names = sorted(seeds)
    written = []

    def swap(number: int, target: Path, out: Path) -> None:
        facekit(
            *("generator", "run", folder / "run", "--input", target, "--out", out),
            *("--source", names[(number + 1) % len(names)], "--precision", "auto", "--json"),
        )
        written.append(out)

    for n in range(stills):
        shots = sorted((people / names[n % len(names)]).glob("*.png"))
        swap(n, shots[n // len(names)], folder / f"swap-{n:02d}.png")
    for n in range(clips):
        clip = folder / f"clip-{n}"
        facekit(
            *("studio", "clip", "--person-seed", seeds[names[n % len(names)]]),
            *("--seconds", 0.5 if quick else 3.0, "--rate", 12, "--size", size),
            *("--seed", _SEED + n, "--workers", 2, "--out", clip),
        )
        swap(n, clip / "clip.mp4", folder / f"swap-{n}.mp4")
    return written
