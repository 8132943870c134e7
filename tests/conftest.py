"""What the whole session shares: a home and a cache of its own, and one thread for torch."""

import os
from collections.abc import Iterator

import pytest

# Before torch is imported, and for the processes that tests start: sums, and so trained weights,
# depend on the number of threads.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nobody's keys are touched, and nobody's cache is trusted; the studio's fills but once."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FACEKIT_HOME", "FACEKIT_CACHE"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        yield


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Commands set the number of threads: each test starts from one."""
    import torch

    torch.set_num_threads(1)
    yield
