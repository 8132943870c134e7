"""``facekit bench gan``: the own GAN beside DCGAN and lightweight-gan, and the playground's modes.

All learn from the same rendered pictures of people who don't exist, for the same processor time, on
as many threads and with about as many parameters; all are measured alike, against people whom none
has seen. Of the peers the live weights and their moving average are measured, and the better count.

An arm that is done is not trained again, and one that was interrupted goes on: half an hour each is
more than many sessions have. What the arms have in common is in ``OUT/plan.json``.
"""

import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from facekit.adversary.metrics.features import load_features
from facekit.core import checkpoint, device, files
from facekit.core.config import Config
from facekit.core.errors import FacekitError
from facekit.core.figures import Figure
from facekit.core.progress import log
from facekit.generators import _lightweight, load
from facekit.generators._arm import DONE, FACES, FOUND, OWN, PLAN, POINTS, Plan
from facekit.generators._evaluate import Scores, described, rows, scores, trivial

PEERS = ("dcgan", "lightweight")
_CAST_SEED = 7  # of the studio people whom the bundled weights learned from


def bench(
    *,
    quick: bool = False,
    minutes: float = 30.0,
    out: Path,
    where: str = "auto",
    threads: int | None = None,
) -> list[Figure]:
    """Train what is not trained yet, and compare.

    Args:
        quick: tiny data and a few steps of each: to see that it works, not to measure.
        minutes: of each arm on all threads, as if nothing else ran: minutes × threads of processor
            time.
        out: the folder that keeps the arms.
        where: the device, by name.
        threads: of each arm; None for every core.

    Returns:
        ``gan.modes_25`` with its share and minutes; ``gan.kid`` and the other figures of the own
        GAN; ``gan.kid_ratio_dcgan`` and ``gan.kid_ratio_lightweight``, the own KID over theirs;
        ``gan.copies``; and of each arm its KID, steps, images a second and minutes. The ratio to
        lightweight-gan is left out, with a word, where that is not installed.

    Raises:
        FacekitError: if ``out`` holds a bench of other conditions, or an arm fails.
    """
    fabric = device.setup(where, "auto", threads=threads)
    plan = Plan(
        minutes=minutes,
        threads=torch.get_num_threads(),
        device=where,
        precision="auto",
        seed=0,
        size=32 if quick else 64,
        people=60 if quick else 1000,
        others=30 if quick else 500,
        frames=2 if quick else 8,
        samples=100 if quick else 2000,
        steps=3 if quick else None,
    )
    keep(plan, out)
    _render(plan, out)
    arms = [OWN, *PEERS]
    if not _lightweight.installed():
        log.warning(
            "lightweight-gan is not installed, so gan.kid_ratio_lightweight is left out; "
            "pip install 'facekit-toolkit[peers]'"
        )
        arms.remove("lightweight")
    for arm in (POINTS, *arms):
        train_arm(arm, out)
    return [*_modes(out / POINTS / DONE), *compare(out, arms, fabric.device)]


def compare(out: Path, arms: Sequence[str], where: torch.device) -> list[Figure]:
    """The figures of arms that are done, from what they left in ``out``.

    Args:
        out: the bench's folder.
        arms: names; the own one is among them.
        where: to compute.
    """
    faces = {name: pixels.to(where) for name, pixels in checkpoint.load(out / FACES).items()}
    features = load_features(where)
    others = described(faces["others"], features)
    drawn = {arm: checkpoint.load(out / arm / FOUND) for arm in arms}
    found = {arm: _best(of_arm, others, where) for arm, of_arm in drawn.items()}
    # As many pictures in every row.
    count = min(len(faces["training"]), len(drawn[OWN]["average"]))
    beside = {"real": faces["training"][:count], **trivial(faces["training"], count, 0)}
    floors = {name: scores(described(made, features), others) for name, made in beside.items()}
    peers = {arm: found[arm] for arm in arms if arm != OWN}

    nearest_peer = min(peer.kid.value for peer in peers.values())
    figures = rows(OWN, found[OWN], peer=nearest_peer, floor=floors["components"])
    for name, one in {**floors, **peers}.items():
        figures.append(Figure(f"gan.kid.{name}", one.kid.value, low=one.kid.low, high=one.kid.high))
    figures += [_ratio(f"gan.kid_ratio_{arm}", found[OWN], peer) for arm, peer in peers.items()]
    facts = {arm: files.read_json(out / arm / DONE) for arm in arms}
    figures.append(Figure("gan.copies", float(facts[OWN]["copies"])))
    units = {"minutes": "min", "steps": "", "images_per_s": "images/s", "parameters": ""}
    return figures + [
        Figure(f"gan.{key}.{arm}", float(facts[arm][key]), unit)
        for arm in arms
        for key, unit in units.items()
    ]


def _best(found: Mapping[str, Tensor], others: Tensor, where: torch.device) -> Scores:
    """The scores of the weights with the least KID: the live ones, or their average."""
    return min((scores(each.to(where), others) for each in found.values()), key=lambda s: s.kid)


def _ratio(name: str, own: Scores, peer: Scores) -> Figure:
    """The own KID over a peer's; the interval takes both at their worst, so it is a wide one."""
    least = 1e-9  # an estimate without bias may be below 0
    ours, theirs = own.kid, peer.kid
    return Figure(
        name,
        max(ours.value, 0) / max(theirs.value, least),
        low=max(ours.low, 0) / max(theirs.high, least),
        high=max(ours.high, 0) / max(theirs.low, least),
    )


def train_arm(arm: str, out: Path, module: str = "facekit.generators._arm") -> None:
    """Run one arm in a process of its own, unless it is done.

    Args:
        arm: its name.
        out: the bench's folder.
        module: what is run with both.

    Raises:
        FacekitError: if it fails; it has said why.
    """
    if (out / arm / DONE).is_file():
        log.info("%s: done before", arm)
        return
    # Without assertions: lightweight-gan's first one asks for a GPU.
    flags = ["-O"] if arm == "lightweight" else []
    command = [sys.executable, *flags, "-m", module, arm, str(out)]
    log.info("%s: training", arm)
    # Its progress and its words go where the bench's own go.
    quiet = [] if log.isEnabledFor(logging.INFO) else ["-q"]
    result = subprocess.run([*command, *quiet], check=False)
    if result.returncode:
        raise FacekitError(
            f"the arm '{arm}' failed with {result.returncode}, as it says above; what is done is "
            f"kept in {out}: mend that, and give the same command again"
        )


def keep(plan: Config, out: Path) -> None:
    """Write the plan, or see that the folder's is the same.

    Raises:
        FacekitError: if it is another one; the first difference is named.
    """
    path = out / PLAN
    new = plan.model_dump(mode="json")
    if not path.exists():
        files.write_json(path, new)
        return
    old = files.read_json(path)
    for key, value in new.items():
        if not isinstance(old, dict) or old.get(key) != value:
            before = old.get(key) if isinstance(old, dict) else None
            raise FacekitError(
                f"{out}: holds a bench with another {key} ({before!r}, now {value!r}); go on with "
                "the same, or give another --out"
            )


def _render(plan: Plan, out: Path) -> None:
    """Render the pictures of both casts, unless that is done: uint8 (N, S, S, 3) each."""
    if (out / FACES).exists():
        return
    gan = load(OWN)
    log.info("rendering %d people who don't exist", plan.people + plan.others)
    training = gan.studio(plan.people, plan.frames, plan.size, _CAST_SEED, workers=plan.threads)
    others = gan.others(plan.others, plan.size, _CAST_SEED, workers=plan.threads)
    checkpoint.save(out / FACES, {"training": training, "others": others})


def _modes(path: Path) -> list[Figure]:
    """How the playground's 25 Gaussians were learned."""
    facts = files.read_json(path)
    return [
        Figure("gan.modes_25", float(facts["modes"]), "modes"),
        Figure("gan.modes_25.on_a_mode", float(facts["on_a_mode"])),
        Figure("gan.modes_25.minutes", float(facts["minutes"]), "min"),
    ]
