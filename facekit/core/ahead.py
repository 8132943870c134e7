"""Take items from an iterator in a thread of its own, a few ahead of who needs them."""

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

_T = TypeVar("_T")


@contextmanager
def ahead(source: Iterable[_T], count: int) -> Iterator[Iterator[_T]]:
    """The items of ``source``, ``count`` ahead in a thread that ends with the context.

    What ``source`` raises is raised where its item would have come.
    """
    # An item in a tuple; then what ended the source: an error, or None.
    ready: queue.Queue[tuple[_T] | BaseException | None] = queue.Queue(count)
    left = threading.Event()

    def put(entry: tuple[_T] | BaseException | None) -> bool:
        while not left.is_set():
            try:
                ready.put(entry, timeout=0.05)
            except queue.Full:
                continue
            return True
        return False

    def fetch() -> None:
        try:
            for item in source:
                if not put((item,)):
                    return
            put(None)
        except BaseException as error:
            put(error)

    def fetched() -> Iterator[_T]:
        while entry := ready.get():
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]

    thread = threading.Thread(target=fetch, name="facekit frames", daemon=True)
    thread.start()
    try:
        yield fetched()
    finally:
        left.set()
        thread.join()
