"""What the whole session shares: a home and a cache of its own, and one thread for torch."""

import logging
import os
from collections.abc import Iterator
from functools import lru_cache

import pytest

# Before torch is imported, and for the programs that tests start.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nobody's keys are touched, and nobody's cache is trusted; the studio's fills but once."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FACEKIT_HOME", "FACEKIT_CACHE"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        yield


@pytest.fixture(scope="session", autouse=True)
def people_are_set_up_once() -> Iterator[None]:
    """The studio keeps three people's models, which take half a second each; a session, a dozen.

    The same few people are rendered all over the tests.
    """
    from facekit.studio import render

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render, "model", lru_cache(maxsize=12)(render.model.__wrapped__))
        yield


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What commands set, the number of threads and the log's level, is the same for each test.

    One thread, since sums and so trained weights depend on their number, and since two that wait
    for one another on busy cores take many times as long.
    """
    import torch

    monkeypatch.setattr("facekit.core.device.default_threads", lambda: 1)
    torch.set_num_threads(1)
    log = logging.getLogger("facekit")
    level = log.level
    yield
    log.setLevel(level)


@pytest.fixture(scope="module")
def astronaut():
    """A photo of one person, uint8 (512, 512, 3)."""
    import skimage.data

    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def locator():
    """MTCNN, as it is by default."""
    import torch

    from facekit.faces.locate import load_locator

    return load_locator(torch.device("cpu"))


@pytest.fixture(scope="module")
def crowd(astronaut):
    """Five faces of three sizes, two of them mirrored: uint8 (480, 620, 3)."""
    import cv2
    import numpy as np

    scene = np.full((480, 620, 3), 120, np.uint8)
    head = astronaut[:220, 120:340]
    for x, y, side, mirrored in (
        (5, 5, 220, False),
        (240, 5, 220, True),
        (5, 250, 160, False),
        (200, 250, 160, True),
        (400, 300, 100, False),
    ):
        small = cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA)
        scene[y : y + side, x : x + side] = small[:, ::-1] if mirrored else small
    return scene
