"""Work in several processes: the same results in the same order, whatever their number."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Job = TypeVar("Job")
Result = TypeVar("Result")


class WorkerLost(Exception):
    """A worker was killed or could not start."""


def in_order(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers: int,
    *,
    start: Callable[[], None] | None = None,
) -> Generator[Result]:
    """What ``work`` gives for each job, in the jobs' order.

    The processes are spawned, use one thread each for linear algebra, and end with this iterator,
    also when it is dropped half way or the program is interrupted or killed. Jobs are taken from
    their iterator only a little ahead of the results.

    Args:
        work: a function of a module; it, its jobs and its results travel between processes.
        jobs: what to work on.
        workers: processes, at least 1.
        start: called in each process before its first job.

    Raises:
        WorkerLost: if a process was killed or could not start.
        Exception: what ``work`` raises.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(start,)
    )
    following = iter(jobs)
    try:
        with _one_thread():
            waiting = [pool.submit(work, job) for job in islice(following, 2 * workers)]
        while waiting:
            result = waiting.pop(0).result()
            with _one_thread():
                waiting += [pool.submit(work, job) for job in islice(following, 1)]
            yield result
    except BrokenProcessPool as error:
        raise WorkerLost from error
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        # A worker may have been cut off in the middle of a message. Only when nobody holds the
        # pipe's other end any more does the pool's thread stop waiting for the rest of it.
        pool._result_queue._writer.close()  # type: ignore[attr-defined]
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that are started within use one thread for linear algebra."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start_worker(start: Callable[[], None] | None) -> None:
    """Make a new process a worker, which ends with its parent."""
    # Ctrl-C is the parent's to handle; it ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    if start is not None:
        start()


def _follow_parent() -> None:
    """End this worker when its parent is gone, even if it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
