"""Rendering in several processes: the same bytes in the same order, whatever their number."""

import os
from collections.abc import Collection, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import pairwise

import numpy as np

from facekit.core.errors import FacekitError
from facekit.core.workers import WorkerLost, in_order
from facekit.studio import basis
from facekit.studio.degrade import Degradation
from facekit.studio.performance import Performance
from facekit.studio.person import Person
from facekit.studio.render import MAX_SIZE, Render, render

TRUTH = ("masks", "depth")
"""The large parts of a frame's truth, which a caller may do without."""

_MOST_AT_ONCE = 64
_BYTES_AT_ONCE = 64_000_000

_Job = tuple[str, list[tuple[str, str | None]], int, tuple[str, ...]]


def render_frames(
    pairs: Sequence[tuple[Person, Performance]],
    size: int = 256,
    workers: int = 1,
    *,
    want: Collection[str] = TRUTH,
    degradations: Sequence[Degradation | None] | None = None,
) -> Generator[Render]:
    """Render each (person, performance), in order; the bytes do not depend on ``workers``.

    Worker processes use one thread each and end with this iterator, also when it is dropped
    half way or the program is interrupted. A person's frames should stand in a row: then each
    worker sets few people up.

    Args:
        pairs: what to render.
        size: pixels a side, 16 to 2048.
        workers: processes, at most one a frame; 1 renders in this one.
        want: which of ``TRUTH`` to bring along. Masks and depth are five times as large as the
            picture; without "masks" ``masks`` is empty, without "depth" ``depth`` is (0, 0).
        degradations: what to do to each picture afterwards, by itself.

    Raises:
        FacekitError: if ``size`` or ``workers`` is out of range, or a worker dies.
    """
    check_size(size)
    check_workers(workers, len(pairs))
    wanted = tuple(name for name in TRUTH if name in want)
    stages = [None] * len(pairs) if degradations is None else degradations
    if workers == 1:
        for (person, performance), stage in zip(pairs, stages, strict=True):
            yield _render(person, performance, stage, size, wanted)
        return
    basis.load()  # Fills the cache once, before several workers would.
    jobs = _jobs(pairs, stages, size, workers, wanted)
    try:
        with closing(in_order(_render_job, jobs, workers, start=start_worker)) as results:
            for renders in results:
                yield from renders
    except WorkerLost as error:
        raise FacekitError(
            "a rendering worker was killed or could not start, perhaps for lack of memory; use "
            "fewer --workers or a smaller --size, and give the same command again to go on"
        ) from error


def check_size(size: int) -> None:
    """Refuse a size that cannot be rendered."""
    if not 16 <= size <= MAX_SIZE:
        raise FacekitError(f"--size {size}: allowed are 16 to {MAX_SIZE} pixels")


def check_workers(workers: int, frames: int) -> None:
    """Refuse fewer than one worker, or more workers than frames."""
    if not 1 <= workers <= max(frames, 1):
        most = max(frames, 1)
        raise FacekitError(
            f"--workers {workers}: allowed are 1 to {most}, no more than there are frames to render"
        )


def _jobs(
    pairs: Sequence[tuple[Person, Performance]],
    stages: Sequence[Degradation | None],
    size: int,
    workers: int,
    wanted: tuple[str, ...],
) -> list[_Job]:
    """Frames of one person in a row, as many as keep all workers busy and fit into memory.

    Setting a person up costs several frames, so with people enough none is shared by workers.
    """
    each = size * size * (3 + 8 * ("masks" in wanted) + 4 * ("depth" in wanted))
    people = 1 + sum(a[0] != b[0] for a, b in pairwise(pairs))
    fair = _MOST_AT_ONCE if people >= 2 * workers else -(-len(pairs) // (3 * workers))
    most = min(_MOST_AT_ONCE, max(_BYTES_AT_ONCE // each, 1), fair)
    jobs: list[_Job] = []
    last = None
    for (person, performance), stage in zip(pairs, stages, strict=True):
        if person is not last and person != last:
            described = person.model_dump_json()
            jobs.append((described, [], size, wanted))
        elif len(jobs[-1][1]) >= most:
            jobs.append((described, [], size, wanted))
        last = person
        moment = (performance.model_dump_json(), stage.model_dump_json() if stage else None)
        jobs[-1][1].append(moment)
    return jobs


def start_worker() -> None:
    """Let this process render with one thread."""
    import cv2
    from embreex.rtcore_scene import EmbreeScene

    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        # Embree takes as many threads as it may when it starts, and has no other setting.
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        EmbreeScene()
        os.sched_setaffinity(0, cores)


def _render_job(job: _Job) -> list[Render]:
    described, moments, size, wanted = job
    person = Person.model_validate_json(described)
    renders = []
    for performance, stage in moments:
        degradation = Degradation.model_validate_json(stage) if stage else None
        moment = Performance.model_validate_json(performance)
        renders.append(_render(person, moment, degradation, size, wanted))
    return renders


def _render(
    person: Person,
    performance: Performance,
    degradation: Degradation | None,
    size: int,
    wanted: tuple[str, ...],
) -> Render:
    result = render(person, performance, size)
    if degradation is not None:
        result = replace(result, pixels=degradation.apply(result.pixels))
    if "masks" not in wanted:
        result = replace(result, masks={})
    if "depth" not in wanted:
        result = replace(result, depth=np.empty((0, 0), np.float32))
    return result
