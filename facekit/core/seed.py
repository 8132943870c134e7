"""Randomness as a function of (seed, step, …), so that a resumed run replays.

Nothing depends on how many random numbers were drawn before: each step, item or worker derives
its own stream from integers (the idea is NVlabs edm2's; the mixing is numpy's SeedSequence).
"""

import random

import numpy as np


def rng(*key: int) -> np.random.Generator:
    """A numpy generator for this key of non-negative integers, e.g. ``rng(seed, step)``."""
    return np.random.default_rng(np.random.SeedSequence(key))


def seed_step(seed: int, step: int) -> None:
    """Seed torch (all devices), numpy and random for one step of one run."""
    import torch  # Only here: the studio's workers start without it.

    words = np.random.SeedSequence((seed, step)).generate_state(2, np.uint64)
    torch.manual_seed(int(words[0] >> np.uint64(1)))
    np.random.seed(int(words[1] % np.uint64(2**32)))  # noqa: NPY002 - albumentations reads it
    random.seed(int(words[1]))
