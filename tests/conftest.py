"""What the whole session shares: a home and a cache of its own, and one thread for torch."""

import logging
import os
from collections.abc import Iterator

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
