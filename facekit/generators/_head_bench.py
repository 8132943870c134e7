"""``facekit bench heads``: how quickly a photo is moved, and in how much memory.

The speed of a network does not depend on what it has learned, so none is trained: the weights are
as they start. The peer is a published method, ``few_shot_head``, of the same size, already tuned.
"""

import resource
import time
from collections.abc import Iterator

import numpy as np
import torch

from facekit.core.device import setup
from facekit.core.figures import Figure
from facekit.core.progress import progress
from facekit.core.seed import seed_step
from facekit.datasets.heads import moments_of
from facekit.generators import few_shot_head, talking_head
from facekit.motion import Cast, act, from_performances, sitters
from facekit.studio.performance import Performance
from facekit.studio.person import Person
from facekit.studio.render import render
from facekit.types import Floats, Pixels

_SEED = 128
_SECONDS, _RATE = 60.0, 25.0


def bench(*, quick: bool, device: str = "auto") -> list[Figure]:
    """Draw a minute of somebody who talks, from one photo and from eight.

    Args:
        quick: a second of it, and small: to see that it works, not to measure.
        device: where, by name.

    Returns:
        ``head.fps``, frames a second from eight photos by the clock, with the peer's; ``.t1`` from
        one photo; ``.processor``, threads times frames a second of processor time, which other
        work beside does not change; and ``head.growth_mib``, by how much the process' peak of
        memory grew from the first quarter of the minute to its end.
    """
    fabric = setup(device, "auto")
    size, seconds = (32, 1.0) if quick else (128, _SECONDS)
    seed_step(_SEED, 0)
    own = talking_head.TalkingHead(8 if quick else talking_head.Config().width)
    settings = few_shot_head.Config(size=size, tune_steps=0, **({"width": 8} if quick else {}))
    peer = few_shot_head.FewShotHead(settings, 1)
    performance = Performance.clip(seconds, _RATE, _SEED)
    cast = _cast(8, size)
    landmarks = act(cast.sitters[0], from_performances(performance))

    animator = talking_head.animator_of(own.to(fabric.device).eval(), size, fabric)
    other = few_shot_head.animator_of(peer.to(fabric.device).eval(), settings, fabric)
    one = Cast(cast.pixels[:1], cast.sitters[:1])
    some = landmarks[: max(8, len(landmarks) // 5)]
    for draw, photos in ((animator.draw, cast), (other.draw, cast)):  # what is set up but once
        list(draw(photos, landmarks[:10], 0))
    fps, processor, growth = _timed("8 photos", animator.draw(cast, landmarks, 0), len(landmarks))
    single, _, _ = _timed("1 photo", animator.draw(one, some, 0), len(some))
    peers, _, _ = _timed("few_shot_head", other.draw(cast, some, 0), len(some))
    return [
        Figure("head.fps", fps, "frames/s", peer=peers),
        Figure("head.fps.processor", processor, "frames/s"),
        Figure("head.fps.t1", single, "frames/s"),
        Figure("head.growth_mib", growth, "MiB"),
    ]


def _cast(photos: int, size: int) -> Cast:
    person = Person.sample(_SEED)
    shots = [render(person, moment, size) for moment in moments_of(_SEED, 0, photos)]
    landmarks: Floats = np.stack([shot.landmarks for shot in shots]).astype(np.float32)
    return Cast(np.stack([shot.pixels for shot in shots]), sitters(landmarks, size))


def _timed(name: str, frames: Iterator[Pixels], total: int) -> tuple[float, float, float]:
    """Frames a second by the clock and by processor time, and the growth of memory in MiB."""
    threads = torch.get_num_threads()
    used, clock, early = time.process_time(), time.perf_counter(), 0
    with progress(f"moving {name}", total) as advance:
        for number, _ in enumerate(frames, start=1):
            if number == max(1, total // 4):
                early = _peak()
            advance(number, "")
    used, clock = time.process_time() - used, time.perf_counter() - clock
    return total / clock, total * threads / used, (_peak() - early) / 1024


def _peak() -> int:
    """KiB, on Linux."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
