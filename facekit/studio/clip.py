"""Folders and clips of studio people, with exact labels and their certificate."""

import hashlib
import json
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from facekit.core import files
from facekit.core.errors import FacekitError, did_you_mean
from facekit.core.progress import progress
from facekit.media.images import write_image
from facekit.studio import labels
from facekit.studio.certificate import (
    CERTIFICATE,
    CLIP,
    CLIP_CRF,
    STUDIO_VERSION,
    Certificate,
    certify,
    check_files,
    frame_name,
    read,
)
from facekit.studio.degrade import DEGRADATIONS, chosen
from facekit.studio.performance import Performance, performance_seed
from facekit.studio.person import MOST_PEOPLE, Person, person_seed
from facekit.studio.pool import TRUTH, check_size, check_workers
from facekit.studio.pool import render_frames as render_frames
from facekit.types import MANIFEST, Frame, Item, Pixels, write_manifest


def render_folder(
    out: Path,
    *,
    people: int = 8,
    frames: int = 20,
    size: int = 256,
    seed: int = 0,
    workers: int = 1,
    format: str = "png",
    degrade: str = "none",
    truth: Collection[str] = (),
) -> Certificate:
    """Render photos of people into ``out``: ``person-0000/0000.png`` …, manifest, certificate.

    A folder made with the same arguments is kept; frames of an interrupted run are kept too.

    Args:
        out: folder to write.
        people: how many, 1 to ``MOST_PEOPLE``.
        frames: photos of each.
        size: pixels a side, 16 to 2048.
        seed: of people and performances; the same seed gives the same bytes.
        workers: processes to render with, at most one a photo.
        format: "png" (lossless), "jpg" or "webp".
        degrade: "none", "mild" or "strong": see :mod:`facekit.studio.degrade`.
        truth: of "masks" and "depth", to write beside each photo: see
            :mod:`facekit.studio.labels`. Landmarks, pose and so on are always in the manifest.

    Raises:
        FacekitError: for arguments out of range, a folder that holds something else or cannot be
            written, a full disk, or a worker that was killed.
    """
    check_count("people", people, MOST_PEOPLE)
    check_count("frames", frames, 100_000)
    check_size(size)
    check_workers(workers, people * frames)
    check_seed(seed)
    _check_words(format, ("png", "jpg", "webp"), degrade, truth)
    arguments = {
        "people": people,
        "frames": frames,
        "size": size,
        "seed": seed,
        "format": format,
        "degrade": degrade,
        "truth": ",".join(sorted(set(truth))),
    }
    done = _claim(out, "folder", arguments)
    if done:
        return done
    jobs = []
    for i in range(people):
        person = Person.sample(person_seed(seed, i))
        for j in range(frames):
            moment = performance_seed(seed, i, j)
            jobs.append((f"person-{i:04d}/{j:04d}", person, moment))
    missing = [job for job in jobs if not _whole(out / f"{job[0]}.{format}", _facts_of(out, job))]
    renders = render_frames(
        [(person, Performance.sample(moment)) for _, person, moment in missing],
        size,
        min(workers, max(len(missing), 1)),
        want=truth,
        degradations=[chosen(degrade, moment) for _, _, moment in missing],
    )
    with progress("rendering", len(jobs)) as advance, closing(renders):
        before = len(jobs) - len(missing)
        advance(before, "")
        for k, (job, result) in enumerate(zip(missing, renders, strict=True)):
            name, person, moment = job
            beside = labels.write(out / name, out, result, truth)
            write_image(out / f"{name}.{format}", result.pixels)
            facts = labels.facts(result) | {
                "performance_seed": moment,
                "identity": np.round(person.vector.astype(float), 4).tolist(),
                "degradation": _degradation(degrade, moment),
            }
            files.write_json(_facts_of(out, job), facts | beside)
            advance(before + k + 1, name)
    identifier = _identifier("folder", arguments)
    items = [
        Item(
            path=f"{job[0]}.{format}",
            sha256=files.sha256(out / f"{job[0]}.{format}"),
            subject=job[0].split("/")[0],
            source=job[0],
            label=0,
            generator="studio",
            consent=identifier,
            facts=files.read_json(_facts_of(out, job)),
        )
        for job in jobs
    ]
    write_manifest(out, items)
    for job in jobs:
        _facts_of(out, job).unlink()
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
    format: str = "mp4",
    degrade: str = "none",
    truth: Collection[str] = (),
) -> Certificate:
    """Render a talking person into ``out/clip.mp4``, with manifest and certificate.

    The performance is ``seed``'s alone: the same seed with another person is the true answer of
    a re-enactment. Labels of each frame are in the manifest's ``facts``.

    Args:
        out: folder to write.
        person_seed: who is filmed.
        seconds: length.
        rate: frames a second.
        size: pixels a side, 16 to 2048.
        seed: of the performance, camera and light.
        workers: processes to render with, at most one a frame.
        format: "mp4", or "png" for ``frames/00000.png`` … instead.
        degrade: "none", "mild" or "strong"; one camera and one compression for the whole clip.
        truth: of "masks" and "depth", to write as ``frames/00000.depth.png`` and so on.

    Raises:
        FacekitError: for arguments out of range, a folder that holds something else or cannot be
            written, a full disk, or a worker that was killed.
    """
    from facekit.media.encode import write_video

    check_size(size)
    check_seed(seed)
    check_seed(person_seed)
    _check_words(format, ("mp4", "png"), degrade, truth)
    performances = Performance.clip(seconds, rate, seed)
    check_workers(workers, len(performances))
    arguments = {
        "person_seed": person_seed,
        "seconds": float(seconds),
        "rate": float(rate),
        "size": size,
        "seed": seed,
        "format": format,
        "degrade": degrade,
        "truth": ",".join(sorted(set(truth))),
    }
    done = _claim(out, "clip", arguments)
    if done:
        return done
    person = Person.sample(person_seed)
    degradation = chosen(degrade, seed)
    renders = render_frames(
        [(person, performance) for performance in performances], size, workers, want=truth
    )
    facts: list[dict[str, Any]] = []
    with progress("rendering", len(performances)) as advance, closing(renders):

        def filmed() -> Iterator[Pixels]:
            for i, result in enumerate(renders):
                beside = labels.write(out / frame_name(i, ""), out, result, truth)
                facts.append(labels.facts(result) | beside)
                advance(i + 1, "")
                yield result.pixels

        pictures = filmed() if degradation is None else degradation.apply_clip(filmed())
        if format == "mp4":
            shots = (Frame(p, performances[i].time, i) for i, p in enumerate(pictures))
            write_video(out / CLIP, shots, rate=rate, crf=CLIP_CRF)
        else:
            for i, pixels in enumerate(pictures):
                write_image(out / frame_name(i, ".png"), pixels)
    identifier = _identifier("clip", arguments)
    common: dict[str, Any] = {
        "subject": f"studio-{person_seed}",
        "source": f"performance-{seed}",
        "label": 0,
        "generator": "studio",
        "consent": identifier,
    }
    whole = {
        "person_seed": person_seed,
        "performance_seed": seed,
        "identity": np.round(person.vector.astype(float), 4).tolist(),
        "degradation": _degradation(degrade, seed),
    }
    if format == "mp4":
        digest = files.sha256(out / CLIP)
        items = [Item(path=CLIP, sha256=digest, facts=whole | {"frames": facts}, **common)]
    else:
        items = [
            Item(
                path=frame_name(i, ".png"),
                sha256=files.sha256(out / frame_name(i, ".png")),
                time=performances[i].time,
                facts=whole | facts[i],
                **common,
            )
            for i in range(len(performances))
        ]
    write_manifest(out, items)
    return certify(out, kind="clip", arguments=arguments, identifier=identifier)


def contact_sheet(
    *, people: int, frames: int = 1, size: int, seed: int, workers: int, degrade: str = "none"
) -> Pixels:
    """One picture of many people, each in ``frames`` performances side by side: uint8 (H, W, 3).

    People and performances are those of :func:`render_folder` with the same seed.

    Raises:
        FacekitError: for arguments out of range, or a worker that was killed.
    """
    check_count("people", people, MOST_PEOPLE)
    check_count("frames", frames, 64)
    check_seed(seed)
    check_size(size)
    _check_words("png", ("png",), degrade, ())
    cast = [Person.sample(person_seed(seed, i)) for i in range(people)]
    moments = [[performance_seed(seed, i, j) for j in range(frames)] for i in range(people)]
    across = int(np.ceil(np.sqrt(1.5 * people * frames) / frames))
    return _grid(cast, moments, size, workers, degrade, min(across, people) * frames)


def portrait(
    person: Person, *, frames: int, size: int, seed: int, workers: int, degrade: str = "none"
) -> Pixels:
    """One person in several performances: uint8 (H, W, 3), a row of up to six, then the next.

    Raises:
        FacekitError: for arguments out of range, or a worker that was killed.
    """
    check_count("frames", frames, 1000)
    check_seed(seed)
    check_size(size)
    _check_words("png", ("png",), degrade, ())
    moments = [performance_seed(seed, 0, j) for j in range(frames)]
    return _grid([person], [moments], size, workers, degrade, min(frames, 6))


def _grid(
    cast: list[Person],
    moments: list[list[int]],
    size: int,
    workers: int,
    degrade: str,
    columns: int,
) -> Pixels:
    """Each person in each of their moments, in rows of ``columns``; what is left over is white."""
    shots = [(person, m) for person, of_one in zip(cast, moments, strict=True) for m in of_one]
    renders = render_frames(
        [(person, Performance.sample(moment)) for person, moment in shots],
        size,
        workers,
        want=(),
        degradations=[chosen(degrade, moment) for _, moment in shots],
    )
    pictures = []
    with progress("rendering", len(shots)) as advance, closing(renders):
        for i, result in enumerate(renders):
            pictures.append(result.pixels)
            advance(i + 1, "")
    pictures += [np.full((size, size, 3), 255, np.uint8)] * (-len(pictures) % columns)
    rows = [np.hstack(pictures[i : i + columns]) for i in range(0, len(pictures), columns)]
    return np.vstack(rows)


def check_count(name: str, count: int, most: int) -> None:
    """Refuse a count below one or above ``most``."""
    if not 1 <= count <= most:
        raise FacekitError(f"--{name} {count}: allowed are 1 to {most}")


def check_seed(seed: int) -> None:
    """Refuse a negative seed."""
    if not 0 <= seed < 2**40:
        raise FacekitError(f"seed {seed}: allowed are 0 to 2^40 - 1")


def _check_words(
    format: str, formats: Collection[str], degrade: str, truth: Collection[str]
) -> None:
    """Refuse words that are none of those allowed, before anything is rendered."""
    for what, word, allowed in (
        ("--format", format, formats),
        ("--degrade", degrade, DEGRADATIONS),
        *(("--truth", word, TRUTH) for word in truth),
    ):
        if word not in allowed:
            raise FacekitError(f"{what} {word}: {did_you_mean(word, allowed)}")


def _degradation(name: str, seed: int) -> dict[str, Any] | None:
    degradation = chosen(name, seed)
    return None if degradation is None else degradation.to_json()


def _facts_of(out: Path, job: tuple[str, Person, int]) -> Path:
    """Where a photo's facts wait for the manifest; written last, so that the photo is whole."""
    return out / f"{job[0]}.json"


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
    try:
        return _claimed(out, kind, arguments)
    except OSError as error:
        raise FacekitError(f"{out}: cannot be used ({error.strerror or error})") from error


def _claimed(out: Path, kind: str, arguments: dict[str, Any]) -> Certificate | None:
    plan = {"kind": kind, "arguments": arguments, "studio": STUDIO_VERSION}
    if out.exists() and not out.is_dir():
        raise FacekitError(f"{out}: is a file; give --out a folder")
    if (out / CERTIFICATE).is_file() and _whole(out / MANIFEST):
        found = read(out)
        _require_version(out, found.studio)
        if {"kind": found.kind, "arguments": found.arguments, "studio": found.studio} == plan:
            check_files(out, found)
            return found
        raise FacekitError(_other(out, found.kind, found.arguments, kind, arguments))
    if (out / _PLAN).is_file():
        begun = files.read_json(out / _PLAN)
        begun = begun if isinstance(begun, dict) else {}
        _require_version(out, begun.get("studio"))
        if begun != plan:
            raise FacekitError(
                _other(out, begun.get("kind"), begun.get("arguments"), kind, arguments)
            )
        return None
    if out.is_dir() and any(out.iterdir()):
        raise FacekitError(f"{out}: is not empty and not a studio folder; give another --out")
    files.write_json(out / _PLAN, plan)
    return None


def _require_version(out: Path, version: object) -> None:
    if version != STUDIO_VERSION:
        raise FacekitError(
            f"{out}: was rendered by studio version {version}, this is {STUDIO_VERSION}; "
            "give another --out"
        )


def _other(out: Path, old_kind: Any, old: Any, kind: str, new: dict[str, Any]) -> str:
    if old_kind != kind:
        return f"{out}: holds a studio {old_kind}, not a {kind}; give another --out"
    changed = [key for key in new if not isinstance(old, dict) or old.get(key) != new[key]]
    old = old if isinstance(old, dict) else {}
    said = ", ".join(f"{key} {old.get(key)}, now {new[key]}" for key in changed)
    return f"{out}: was rendered with other arguments ({said}); give another --out"
