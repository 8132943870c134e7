"""Folders and clips of studio people, with exact labels and their certificate."""

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.studio import basis
from facekit.studio.certificate import CERTIFICATE, Certificate, certify, read
from facekit.studio.performance import Performance, performance_seed
from facekit.studio.person import MOST_PEOPLE, Person, person_seed
from facekit.studio.render import MAX_SIZE, Render, render
from facekit.types import MANIFEST, Frame, Item, Pixels, write_manifest

_CHUNK = 4


def render_frames(
    pairs: Sequence[tuple[Person, Performance]], size: int = 256, workers: int = 1
) -> Iterator[Render]:
    """Render each (person, performance), in order; the bytes do not depend on ``workers``.

    Worker processes use one thread each and end with this iterator, also when it is dropped
    half way or the program is interrupted.

    Raises:
        FacekitError: if ``size`` or ``workers`` is out of range.
    """
    check_size(size)
    check_workers(workers)
    workers = min(workers, max(len(pairs) // 2, 1))
    if workers == 1:
        for person, performance in pairs:
            yield render(person, performance, size)
        return
    basis.load()  # Fills the cache once, before several workers would.
    jobs = [
        (
            [(p.model_dump_json(), q.model_dump_json()) for p, q in pairs[i : i + _CHUNK]],
            size,
        )
        for i in range(0, len(pairs), _CHUNK)
    ]
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        waiting = [pool.submit(_render_job, job) for job in jobs[: 2 * workers]]
        following = iter(jobs[2 * workers :])
        while waiting:
            renders = waiting.pop(0).result()
            job = next(following, None)
            if job is not None:
                waiting.append(pool.submit(_render_job, job))
            yield from renders
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    import cv2

    # Ctrl-C is the parent's to handle; it ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """End this worker when its parent is gone, even if it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _render_job(job: tuple[list[tuple[str, str]], int]) -> list[Render]:
    pairs, size = job
    return [
        render(Person.model_validate_json(p), Performance.model_validate_json(q), size)
        for p, q in pairs
    ]


def render_folder(
    out: Path,
    *,
    people: int = 8,
    frames: int = 20,
    size: int = 256,
    seed: int = 0,
    workers: int = 1,
) -> Certificate:
    """Render photos of people into ``out``: ``person-0000/0000.png`` …, manifest, certificate.

    A folder made with the same arguments is kept; frames of an interrupted run are kept too.

    Raises:
        FacekitError: for arguments out of range, or a folder that holds something else.
    """
    check_count("people", people, MOST_PEOPLE)
    check_count("frames", frames, 100_000)
    check_size(size)
    check_workers(workers)
    check_seed(seed)
    arguments = {"people": people, "frames": frames, "size": size, "seed": seed}
    done = _claim(out, "folder", arguments)
    if done:
        return done
    jobs = []
    for i in range(people):
        person = Person.sample(person_seed(seed, i))
        for j in range(frames):
            moment = performance_seed(seed, i, j)
            jobs.append((f"person-{i:04d}/{j:04d}", person, moment, Performance.sample(moment)))
    missing = [job for job in jobs if not _whole(out / f"{job[0]}.png", out / f"{job[0]}.json")]
    with progress("rendering", len(jobs)) as advance:
        pairs = [(person, performance) for _, person, _, performance in missing]
        advance(len(jobs) - len(missing), "")
        for k, result in enumerate(render_frames(pairs, size, workers)):
            name, person, moment, performance = missing[k]
            files.write_bytes(out / f"{name}.png", _png(result.pixels))
            facts = _facts(person, performance, result) | {"performance_seed": moment}
            files.write_json(out / f"{name}.json", facts)
            advance(len(jobs) - len(missing) + k + 1, name)
    identifier = _identifier("folder", arguments)
    items = []
    for name, _, _, _ in jobs:
        items.append(
            Item(
                path=f"{name}.png",
                sha256=files.sha256(out / f"{name}.png"),
                subject=name.split("/")[0],
                source=name,
                label=0,
                generator="studio",
                consent=identifier,
                facts=files.read_json(out / f"{name}.json"),
            )
        )
    write_manifest(out, items)
    for name, _, _, _ in jobs:
        (out / f"{name}.json").unlink()
    return certify(out, kind="folder", arguments=arguments, identifier=identifier)


def render_clip(
    out: Path,
    *,
    person_seed: int = 0,
    seconds: float = 4.0,
    rate: float = 25.0,
    size: int = 256,
    seed: int = 0,
    workers: int = 1,
) -> Certificate:
    """Render a talking person into ``out/clip.mp4``, with manifest and certificate.

    The performance is ``seed``'s alone: the same seed with another person is the true answer of
    a re-enactment. Labels of each frame are in the manifest's ``facts``.

    Raises:
        FacekitError: for arguments out of range, or a folder that holds something else.
    """
    from facekit.media.encode import write_video

    check_size(size)
    check_workers(workers)
    check_seed(seed)
    check_seed(person_seed)
    performances = Performance.clip(seconds, rate, seed)
    arguments = {
        "person_seed": person_seed,
        "seconds": float(seconds),
        "rate": float(rate),
        "size": size,
        "seed": seed,
    }
    done = _claim(out, "clip", arguments)
    if done:
        return done
    person = Person.sample(person_seed)
    facts: list[dict[str, Any]] = []
    with progress("rendering", len(performances)) as advance:

        def frames() -> Iterator[Frame]:
            pairs = [(person, performance) for performance in performances]
            for i, result in enumerate(render_frames(pairs, size, workers)):
                facts.append(_facts(person, performances[i], result))
                advance(i + 1, "")
                yield Frame(result.pixels, performances[i].time, i)

        write_video(out / "clip.mp4", frames(), rate=rate)
    identifier = _identifier("clip", arguments)
    item = Item(
        path="clip.mp4",
        sha256=files.sha256(out / "clip.mp4"),
        subject=f"studio-{person_seed}",
        source=f"performance-{seed}",
        label=0,
        generator="studio",
        consent=identifier,
        facts={"person_seed": person_seed, "performance_seed": seed, "frames": facts},
    )
    write_manifest(out, [item])
    return certify(out, kind="clip", arguments=arguments, identifier=identifier)


def contact_sheet(*, people: int, size: int, seed: int, workers: int) -> Pixels:
    """One picture of many people, each in a performance of their own: uint8 (H, W, 3)."""
    check_count("people", people, MOST_PEOPLE)
    pairs = [
        (Person.sample(person_seed(seed, i)), Performance.sample(performance_seed(seed, i, 0)))
        for i in range(people)
    ]
    pictures = []
    with progress("rendering", people) as advance:
        for i, result in enumerate(render_frames(pairs, size, workers)):
            pictures.append(result.pixels)
            advance(i + 1, "")
    columns = int(np.ceil(np.sqrt(1.5 * people)))
    empty = np.full((size, size, 3), 255, np.uint8)
    pictures += [empty] * (-len(pictures) % columns)
    rows = [np.hstack(pictures[i : i + columns]) for i in range(0, len(pictures), columns)]
    return np.vstack(rows)


def check_size(size: int) -> None:
    """Refuse a size that cannot be rendered."""
    if not 16 <= size <= MAX_SIZE:
        raise FacekitError(f"--size {size}: allowed are 16 to {MAX_SIZE} pixels")


def check_workers(workers: int) -> None:
    """Refuse fewer than one worker, or absurdly many."""
    if not 1 <= workers <= 256:
        raise FacekitError(f"--workers {workers}: allowed are 1 to 256")


def check_count(name: str, count: int, most: int) -> None:
    """Refuse a count below one or above ``most``."""
    if not 1 <= count <= most:
        raise FacekitError(f"--{name} {count}: allowed are 1 to {most}")


def check_seed(seed: int) -> None:
    """Refuse a negative seed."""
    if not 0 <= seed < 2**40:
        raise FacekitError(f"seed {seed}: allowed are 0 to 2^40 - 1")


def _facts(person: Person, performance: Performance, result: Render) -> dict[str, Any]:
    return {
        "person_seed": person.seed,
        "description": person.description,
        "skin_tone": person.skin_tone,
        "performance": performance.to_json(),
        "points": np.round(result.points.astype(float), 3).tolist(),
        "landmarks": np.round(result.landmarks.astype(float), 2).tolist(),
        "pose": list(result.pose),
    }


def _png(pixels: Pixels) -> bytes:
    from facekit.media.images import encode_image

    return encode_image(pixels, ".png")


def _whole(*paths: Path) -> bool:
    return all(path.is_file() for path in paths)


def _identifier(kind: str, arguments: dict[str, Any]) -> str:
    text = json.dumps([kind, arguments], sort_keys=True)
    return "studio-" + hashlib.sha256(text.encode()).hexdigest()[:12]


_PLAN = "studio.json"


def _claim(out: Path, kind: str, arguments: dict[str, Any]) -> Certificate | None:
    """Make sure that ``out`` is empty or ours; its certificate if it is complete.

    Raises:
        FacekitError: if ``out`` cannot be written, or holds something else.
    """
    from facekit.studio.certificate import STUDIO_VERSION

    plan = {"kind": kind, "arguments": arguments, "studio": STUDIO_VERSION}
    if out.exists() and not out.is_dir():
        raise FacekitError(f"{out}: is a file; give --out a folder")
    if (out / CERTIFICATE).is_file() and _whole(out / MANIFEST):
        found = read(out)
        if {"kind": found.kind, "arguments": found.arguments, "studio": found.studio} == plan:
            return found
        raise FacekitError(_other(out, found.kind, found.arguments, kind, arguments))
    if (out / _PLAN).is_file():
        begun = files.read_json(out / _PLAN)
        if begun != plan:
            raise FacekitError(
                _other(out, begun.get("kind"), begun.get("arguments"), kind, arguments)
            )
        return None
    if out.is_dir() and any(out.iterdir()):
        raise FacekitError(f"{out}: is not empty and not a studio folder; give another --out")
    files.write_json(out / _PLAN, plan)
    if not os.access(out, os.W_OK):
        raise FacekitError(f"{out}: cannot be written")
    return None


def _other(out: Path, old_kind: Any, old: Any, kind: str, new: dict[str, Any]) -> str:
    if old_kind != kind:
        return f"{out}: holds a studio {old_kind}, not a {kind}; give another --out"
    changed = [key for key in new if not isinstance(old, dict) or old.get(key) != new[key]]
    old = old if isinstance(old, dict) else {}
    said = ", ".join(f"{key} {old.get(key)}, now {new[key]}" for key in changed)
    said = said or "by another studio version"
    return f"{out}: was rendered with other arguments ({said}); give another --out"
