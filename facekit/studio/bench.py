"""How quickly the studio renders and starts, and how much memory a worker takes.

Beside the frames a second stands a peer, measured in the same run: the same meshes, posed
beforehand, and the same number of rays, cast by trimesh's intersector (Embree too) from the same
camera in as many processes of one thread; each hit is shaded by Lambert's law from its triangle's
normal and one lamp, and 2×2 rays are averaged. The peer builds trimesh's mesh and Embree's tree for
each frame, as the studio does for what deforms. It poses nothing, and has no texture, no smooth
normals, no shadows, no light from around, no eyes, no strands' gleam, no background, no masks, no
landmarks and no new people; so the ratio says what all of those cost.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from facekit.core.errors import FacekitError
from facekit.core.figures import Figure
from facekit.core.progress import progress
from facekit.studio.performance import Performance, performance_seed
from facekit.studio.person import Person, person_seed
from facekit.studio.pool import render_frames, start_worker
from facekit.studio.render import Model, Pose, model, posed
from facekit.types import Floats

_SEED = 5
_WORKERS = 2
_FINE = 2  # The studio's rays a pixel's side.


def bench(*, quick: bool = False) -> list[Figure]:
    """Measure the studio on this machine.

    Args:
        quick: with so few frames that the rates say little; to see that all works.

    Returns:
        ``studio.fps_128``, ``studio.fps_256``: frames a second of two workers, set-up of each new
        person included (one in 24 frames), start of the workers not; each with its peer, where
        trimesh is installed, and their ratio as ``….ratio``. ``studio.cold_start_s``,
        ``studio.warm_start_s``: a whole command in a new process that renders one frame, with an
        empty and with a full cache. ``studio.worker_gib``: the most memory that a worker held
        (where the system tells). ``studio.same_bytes``: the share of frames that are the same to
        the byte with one, two and three workers.
    """
    people, frames = (2 * _WORKERS, 1) if quick else (4 * _WORKERS, 24)
    sizes = (128, 256)
    found = _peer_rates(1 if quick else 12, sizes) if find_spec("trimesh") else []
    peers: list[float | None] = [*found] or [None, None]
    rows = []
    most = 0.0
    for size, peer in zip(sizes, peers, strict=True):
        rate, held = _rate(people, frames, size)
        most = max(most, held)
        rows.append(Figure(f"studio.fps_{size}", rate, "frames/s", peer=peer))
        if peer:
            rows.append(Figure(f"studio.fps_{size}.ratio", rate / peer))
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        rows.append(Figure("studio.cold_start_s", _start(cache, Path(folder) / "cold"), "s"))
        warm = [_start(cache, Path(folder) / f"warm-{i}") for i in range(1 if quick else 3)]
        rows.append(Figure("studio.warm_start_s", float(np.median(warm)), "s"))
    if most:
        rows.append(Figure("studio.worker_gib", most, "GiB"))
    rows.append(Figure("studio.same_bytes", _same_bytes(1 if quick else 4)))
    return rows


def _pairs(people: int, frames: int) -> list[tuple[Person, Performance]]:
    persons = [Person.sample(person_seed(_SEED, i)) for i in range(people)]
    return [
        (person, Performance.sample(performance_seed(_SEED, i, j)))
        for i, person in enumerate(persons)
        for j in range(frames)
    ]


def _rate(people: int, frames: int, size: int) -> tuple[float, float]:
    """Frames a second in steady state, and the most memory of a worker in GiB (0: unknown).

    A worker takes a person's frames at once and all arrive together: the clock runs from the
    arrival of each worker's first person to that of its last one.
    """
    pairs = _pairs(people, frames)
    before = _WORKERS * frames
    started, held = 0.0, 0.0
    with progress(f"rendering at {size}", len(pairs)) as advance:
        for k, _ in enumerate(render_frames(pairs, size, _WORKERS), start=1):
            if k == before:
                started = time.perf_counter()
            if k % frames == 0:
                held = max([held, *(_peak(one.pid) for one in multiprocessing.active_children())])
            advance(k, "")
        seconds = time.perf_counter() - started
    return (len(pairs) - before) / seconds, held


def _peak(process: int | None) -> float:
    """The most memory that a running process has held, in GiB; 0 where the system has no /proc."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(lines.get("VmHWM", "0 kB").split()[0]) / 2**20


def _start(cache: Path, out: Path) -> float:
    """Seconds of a whole command that renders one frame in a new process."""
    words = ["studio", "render", "--people", "1", "--frames", "1", "--out", str(out)]
    command = [sys.executable, "-c", "from facekit.cli import main; main()", *words]
    began = time.perf_counter()
    result = subprocess.run(
        command,
        env={**os.environ, "FACEKIT_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if result.returncode != 0:
        said = result.stderr.strip().splitlines() or ["it said nothing"]
        raise FacekitError(f"facekit {' '.join(words)} failed with {result.returncode}: {said[-1]}")
    return seconds


def _same_bytes(frames: int) -> float:
    """The share of frames whose picture and points do not depend on the number of workers."""
    pairs = _pairs(3, frames)
    found = [
        [result.pixels.tobytes() + result.landmarks.tobytes() for result in rendered]
        for rendered in (render_frames(pairs, 128, workers) for workers in (1, 2, 3))
    ]
    return float(np.mean([one == two == three for one, two, three in zip(*found, strict=True)]))


def _peer_rates(frames: int, sizes: Sequence[int]) -> list[float]:
    """Frames a second of the peer at each size, in as many processes as the studio's."""
    context = multiprocessing.get_context("spawn")
    shown = [
        (person.model_dump_json(), [performance.model_dump_json()] * frames)
        for person, performance in _pairs(_WORKERS, 1)
    ]
    rates = []
    with ProcessPoolExecutor(_WORKERS, mp_context=context, initializer=start_worker) as pool:
        for size in sizes:
            jobs = [(*each, size) for each in shown]
            rates.append(sum(frames / seconds for seconds in pool.map(_peer_job, jobs)))
    return rates


def _peer_job(job: tuple[str, Sequence[str], int]) -> float:
    """Seconds that the peer takes for the frames of one person; the first one is not counted."""
    described, moments, size = job
    of = model(described)
    poses = [posed(of, Performance.model_validate_json(moment), size) for moment in moments]
    _lambert(of, poses[0], size)
    began = time.perf_counter()
    for pose in poses:
        _lambert(of, pose, size)
    return time.perf_counter() - began


def _lambert(of: Model, pose: Pose, size: int) -> Floats:
    """The peer's picture, linear light (size, size)."""
    from trimesh import Trimesh
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    points, triangles = [pose.points], [of.triangles]
    if of.rigid is not None:
        points.append(pose.carried(of.rigid.points))
        triangles.append(of.rigid.triangles + len(pose.points))
    mesh = Trimesh(np.concatenate(points), np.concatenate(triangles), process=False)
    caster = RayMeshIntersector(mesh)
    side = size * _FINE
    row, column = np.divmod(np.arange(side * side), side)
    directions = pose.camera.finer(_FINE).rays(column + 0.5, row + 0.5)
    origins = np.zeros_like(directions)
    origins[:, 2] = pose.camera.distance
    hit = caster.intersects_first(origins, directions)
    lamp = np.array([0.5, 0.5, np.sqrt(0.5)])
    shade = np.where(hit >= 0, np.clip(mesh.face_normals[hit] @ lamp, 0, 1), 0)
    blocks = shade.reshape(size, _FINE, size, _FINE)
    return np.asarray(blocks.mean((1, 3)), np.float32)
