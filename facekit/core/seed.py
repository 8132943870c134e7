"""Randomness as a function of (seed, step, …), so that a resumed run replays.

Nothing depends on how many random numbers were drawn before: each step, item or worker derives
its own stream from integers (the idea is NVlabs edm2's; the mixing is numpy's SeedSequence).
"""

import random
from enum import IntEnum, unique

import numpy as np


@unique
class Purpose(IntEnum):
    """What a stream is for: the last number of its key, so that streams of one seed differ."""

    SPLIT = 101
    FRAMES = 102
    DONORS = 103
    MARKS = 104
    BATCHES = 105
    HALVES = 106
    DEGRADING = 107
    BOOTSTRAP = 108
    FORGERIES = 109
    GRAIN = 110


def rng(*key: int) -> np.random.Generator:
    """A numpy generator for a key of non-negative integers.

    Numpy pads a short key with zeros: ``rng(1)``, ``rng(1, 0)`` and ``rng(1, 0, 0)`` are one and
    the same stream. The rule is therefore to end a key with a number above 0 that no other use of
    the same seed has, e.g. ``rng(seed, step, Purpose.BATCHES)``. Keys that obey it differ also
    where they are of different lengths.
    """
    return np.random.default_rng(np.random.SeedSequence(key))


def seed_step(seed: int, step: int) -> None:
    """Seed torch (all devices), numpy and random for one step of one run.

    By convention step 0 draws a network's first weights, and training's steps count from 1.
    """
    import torch  # Only here: the studio's workers start without it.

    words = np.random.SeedSequence((seed, step)).generate_state(2, np.uint64)
    torch.manual_seed(int(words[0] >> np.uint64(1)))
    np.random.seed(int(words[1] % np.uint64(2**32)))  # noqa: NPY002 - albumentations reads it
    random.seed(int(words[1]))
