"""How quick, how complete and how exact the face stage is; each figure with its peer.

The peer of locating is facenet-pytorch's ``MTCNN.detect``, run in the same process, in turn with
what is measured, on frames that the same reader decodes, shrunk alike, for the same smallest face.
Speed depends on what else the machine does at the time; a ratio to the peer does so less.

With outside data (``--data DIR``) the clips are those of ``DIR/video`` and the real faces those of
the London Set in ``DIR/london``; without it a studio clip serves, and rows about real people are
left out.
"""

import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
import torch
from facenet_pytorch import MTCNN
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_iou

from facekit.core.errors import FacekitError
from facekit.core.figures import Figure
from facekit.core.progress import progress
from facekit.datasets import faces_accuracy as accuracy
from facekit.datasets.studio import StudioFaces
from facekit.faces import quality
from facekit.faces.align import TEMPLATES, align_faces, crop_from_image, invert, warp
from facekit.faces.embed import load_embedder
from facekit.faces.landmarks import Landmarker
from facekit.faces.locate import load_locator
from facekit.faces.stage import Stage
from facekit.faces.verification import interval
from facekit.media.decode import Video
from facekit.media.encode import write_video
from facekit.studio.audit import load_judge
from facekit.studio.performance import Performance
from facekit.studio.person import Person
from facekit.studio.pool import render_frames
from facekit.types import Floats, Frame, Pixels

log = logging.getLogger("facekit")

MIN_FACE = 40
MAX_SIDE = 640
_SMALLEST = 20  # pixels: the locator's own limit in the picture as searched
FULL_HD = (1920, 1080)
_SMALL = (640, 360)
_RATE = 30.0
_BATCH = 16
_SEED = 13  # of studio people whom no network has seen: the lessons have another
_CROP = 256
CLIP = "d14.mp4"  # of DIR/video: a person who talks; 512×512 at 30 frames a second
_SAME = 0.5  # intersection over union from which on two boxes are of one face
_SURE = 0.9  # the score of the peer's faces; what it scores less is often none


def bench(
    *,
    device: torch.device,
    quick: bool = False,
    data: Path | None = None,
    judge: Path | None = None,
) -> list[Figure]:
    """Measure the face stage.

    Args:
        device: where to compute.
        quick: with so few frames and people that the figures say little; to see that all works.
        data: folder with ``video/`` and ``london/``, or one of them.
        judge: ONNX file of an identity network; see :func:`facekit.studio.audit.audit`.

    Returns:
        Rows ``faces.…``, as ``docs/faces.md`` explains them.

    Raises:
        FacekitError: if ``data`` or ``judge`` cannot be used.
    """
    videos, london = outside(data)
    outside_judge = None if judge is None else load_judge(judge)
    networks = accuracy.Networks(
        device,
        load_locator(device, min_face=MIN_FACE, max_side=MAX_SIDE),
        Landmarker(device),
        load_embedder(device),
        outside_judge,
    )
    stage = Stage(
        device,
        locator=networks.locator,
        landmarker=networks.landmarker,
        embedder=networks.embedder,
    )
    rows: list[Figure] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shots = footage(videos / CLIP if videos else None, quick)
        clip = folder / "1080p.mp4"
        compose(clip, shots, FULL_HD, rate=_RATE, frames=6 if quick else 300)
        rows += speed(
            stage, clip, device, repeats=1 if quick else 3, peer_frames=2 if quick else 24
        )
        small = [_on_canvas(shot, _SMALL) for shot in shots[:: max(1, len(shots) // _BATCH)]]
        rows += batch_speed(small[: 4 if quick else _BATCH], device, repeats=1 if quick else 7)
        rows += warp_speed(count=32 if quick else 256, repeats=1 if quick else 7)
        rows += quality_speed(stage, small, repeats=1 if quick else 7)
        rows += memory(folder, shots, device, frames=20 if quick else 3000, rate=5.0)
        if videos:
            clips = sorted(videos.glob("*.mp4"))
            rows += recall(stage, clips, device, most=4 if quick else 10_000)
        people, photos = (5, 2) if quick else (60, 6)
        studio = StudioFaces(
            people=people, frames=photos, size=192, seed=_SEED, cache=folder / "studio", workers=2
        )
        found, shape = accuracy.studio_rows(networks, studio, people * photos)
    rows += found
    if london:
        rows += accuracy.london_rows(networks, london, shape, most=8 if quick else None)
    return rows


def outside(data: Path | None) -> tuple[Path | None, Path | None]:
    """The folders of the clips and of the London Set in ``data``, as far as they are there."""
    if data is None:
        return None, None
    if not data.is_dir():
        raise FacekitError(f"--data {data}: no such folder; give one that holds video/ or london/")
    videos, london = data / "video", data / "london"
    if videos.is_dir() and not (videos / CLIP).is_file():
        raise FacekitError(f"{videos}: no {CLIP} in it, which the speed is measured on")
    if not videos.is_dir() and not london.is_dir():
        raise FacekitError(
            f"--data {data}: holds neither video/ nor london/; give a folder that does"
        )
    for folder in (videos, london):
        if not folder.is_dir():
            log.info("%s: not there; the rows that need it are left out", folder)
    return (videos if videos.is_dir() else None), (london if london.is_dir() else None)


# --- clips to measure on ------------------------------------------------------------------------


def footage(clip: Path | None, quick: bool) -> list[Pixels]:
    """The first ten seconds of a clip, or a talking studio person."""
    if clip:
        with Video(clip) as video:
            return [frame.pixels for frame in islice(video, 16 if quick else 300)]
    moments = Performance.clip(4 / _RATE if quick else 2.0, _RATE, seed=1)
    renders = render_frames([(Person.sample(1), moment) for moment in moments], 512, 2)
    with progress("rendering a clip", len(moments)) as advance:
        shots = []
        for render in renders:
            shots.append(render.pixels)
            advance(len(shots), "")
    return shots


def _to_and_fro(shots: Sequence[Pixels]) -> Iterator[Pixels]:
    """The frames forwards, backwards and so on without end: no jump between two rounds."""
    return cycle([*shots, *shots[-2:0:-1]])


def _on_canvas(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """A picture amid a larger one of ``size`` (width, height): its own, enlarged and blurred.

    It keeps its own size if it fits.
    """
    width, height = size
    back = cv2.resize(pixels, (width // 16, width // 16), interpolation=cv2.INTER_AREA)
    back = cv2.resize(cv2.GaussianBlur(back, (0, 0), 2), (width, width))
    canvas = back[(width - height) // 2 :][:height].copy()
    shrink = min(1.0, height / pixels.shape[0], width / pixels.shape[1])
    inner = round(pixels.shape[1] * shrink), round(pixels.shape[0] * shrink)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    small = pixels if shrink == 1 else cv2.resize(pixels, inner, interpolation=cv2.INTER_AREA)
    canvas[top : top + inner[1], left : left + inner[0]] = small
    return np.asarray(canvas, np.uint8)


def compose(
    path: Path, shots: Sequence[Pixels], size: tuple[int, int], *, rate: float, frames: int
) -> None:
    """Write a clip of ``size`` that shows ``shots``, with libx264."""
    placed = [_on_canvas(shot, size) for shot in shots[:frames]]
    with progress(f"composing a clip of {size[1]} lines", frames) as advance:

        def shown() -> Iterator[Frame]:
            for i, pixels in enumerate(islice(_to_and_fro(placed), frames)):
                yield Frame(pixels, i / rate, i)
                advance(i + 1, "")

        write_video(path, shown(), rate=rate)


# --- speed --------------------------------------------------------------------------------------


class Peer:
    """The library's MTCNN, on frames shrunk as the stage shrinks them, with its own thresholds."""

    def __init__(self, device: torch.device) -> None:
        """Load its networks."""
        self._library = MTCNN(keep_all=True, device=device)

    def boxes(self, frames: Sequence[Pixels]) -> list[Floats]:
        """The faces (N, 5) of each frame, boxes in its pixels and scores; all are of one size."""
        height, width = frames[0].shape[:2]
        shrink = min(1.0, MAX_SIDE / max(height, width))
        size = max(1, round(width * shrink)), max(1, round(height * shrink))
        small = [
            frame if shrink == 1 else cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            for frame in frames
        ]
        self._library.min_face_size = max(_SMALLEST, MIN_FACE * shrink)
        found, scores = self._library.detect(np.stack(small))
        ratio = np.tile([width / size[0], height / size[1]], 2)
        return [
            np.zeros((0, 5), np.float32)
            if boxes is None
            else np.column_stack([np.array(boxes.tolist()) * ratio, score]).astype(np.float32)
            for boxes, score in zip(found, scores, strict=True)
        ]


def speed(
    stage: Stage, clip: Path, device: torch.device, *, repeats: int, peer_frames: int
) -> list[Figure]:
    """``faces.fps_1080p``, ``faces.speedup_1080p``, and what decoding alone reaches.

    The stage goes through the whole clip and aligns each face; the peer takes the clip's first
    frames one by one and only locates. Loading the networks does not count, for either.
    """
    peer = Peer(device)

    def ours() -> int:
        count = 0
        with Video(clip) as video:
            for seen in stage.follow(video):
                align_faces(
                    seen.frame.pixels, seen.faces, template="wide", size=_CROP, device=device
                )
                count += 1
        return count

    def theirs() -> int:
        with Video(clip) as video:
            for frame in islice(video, peer_frames):
                peer.boxes([frame.pixels])
        return peer_frames

    def decoding() -> int:
        with Video(clip) as video:
            return sum(1 for _ in video)

    rates = 1 / _in_turn([ours, theirs, decoding], repeats, "going through 1080p")
    fps, peer_fps, decode_fps = np.median(rates, axis=0)
    ratio, low, high = _median(rates[:, 0] / rates[:, 1])
    return [
        Figure("faces.fps_1080p", float(fps), "frames/s", peer=float(peer_fps)),
        Figure("faces.speedup_1080p", ratio, low=low, high=high),
        Figure("faces.decode_fps_1080p", float(decode_fps), "frames/s"),
    ]


def batch_speed(frames: Sequence[Pixels], device: torch.device, *, repeats: int) -> list[Figure]:
    """``faces.batch_speedup``: one call for 640×360 frames, against the library's one call."""
    locator = load_locator(device, min_face=MIN_FACE, max_side=MAX_SIDE)
    peer = Peer(device)

    def ours() -> int:
        return len(locator.locate(frames))

    def theirs() -> int:
        return len(peer.boxes(frames))

    seconds = _in_turn([ours, theirs], repeats, "locating in batches")
    ratio, low, high = _median(seconds[:, 1] / seconds[:, 0])
    fps, peer_fps = np.median(1 / seconds, axis=0)
    return [
        Figure("faces.batch_speedup", ratio, low=low, high=high),
        Figure("faces.batch_fps_360p", float(fps), "frames/s", peer=float(peer_fps)),
    ]


def warp_speed(*, count: int = 256, repeats: int) -> list[Figure]:
    """``faces.warp_ratio``: the time that crops of 256×256 take, over that of ``cv2.warpAffine``.

    On the processor. Both get the same float pictures: OpenCV one by one as it takes them, (H, W,
    3), the warp as batches of sixteen tensors (3, H, W). Crops are as large as what they show, so
    that OpenCV's, which are not anti-aliased, are as good; that the two agree is a test's business.
    """
    random = np.random.default_rng(0)
    noise = random.random((_BATCH, 64, 64, 3), np.float32)
    pictures = [np.ascontiguousarray(cv2.resize(one, (512, 512))) for one in noise]
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    points = 128 + _CROP * TEMPLATES["wide"] + random.normal(0, 3, (count, 5, 2))
    matrices = crop_from_image(points, "wide", _CROP)
    # OpenCV has the centre of the first pixel at 0, not at 0.5.
    inverse = invert(matrices)
    inverse[..., 2] += inverse[..., :2] @ [0.5, 0.5] - 0.5

    def ours() -> int:
        for start in range(0, count, _BATCH):
            warp(batch[: count - start], matrices[start : start + _BATCH], _CROP)
        return count

    def theirs() -> int:
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        for i, matrix in enumerate(inverse):
            cv2.warpAffine(
                pictures[i % _BATCH],
                matrix,
                (_CROP, _CROP),
                flags=flags,
                borderMode=cv2.BORDER_REPLICATE,
            )
        return count

    seconds = _in_turn([ours, theirs], repeats, "warping")
    ratio, low, high = _median(seconds[:, 0] / seconds[:, 1])
    milliseconds, peer = np.median(1000 * seconds, axis=0)
    return [
        Figure("faces.warp_ratio", ratio, low=low, high=high),
        Figure("faces.warp_ms", float(milliseconds), "ms a face", peer=float(peer)),
    ]


def quality_speed(stage: Stage, shots: Sequence[Pixels], *, repeats: int) -> list[Figure]:
    """``faces.quality_ms``: what measuring a face's quality takes."""
    faces = stage.look(shots)
    count = sum(map(len, faces))
    if not count:
        return []

    def ours() -> int:
        quality.measure(shots, faces)
        return count

    seconds = _in_turn([ours], repeats, "measuring quality")
    return [Figure("faces.quality_ms", float(1000 * np.median(seconds)), "ms a face")]


def _in_turn(calls: Sequence[Callable[[], int]], repeats: int, title: str) -> Floats:
    """Seconds for each of what a call counts, (repeats, calls); the calls take turns."""
    seconds = np.empty((repeats, len(calls)), np.float32)
    with progress(title, repeats) as advance:
        for row in range(repeats):
            for column, call in enumerate(calls):
                began = time.perf_counter()
                count = call()
                seconds[row, column] = (time.perf_counter() - began) / count
            advance(row + 1, "")
    return seconds


def _median(values: NDArray[np.floating]) -> tuple[float, float | None, float | None]:
    """The median of repetitions, and its interval by drawing repetitions anew; a few say none."""
    if len(values) < 3:
        return float(np.median(values)), None, None

    def median(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.array([np.median(np.repeat(values, counts))])

    (low,), (high,) = interval(median, len(values))
    return float(np.median(values)), low, high


# --- memory -------------------------------------------------------------------------------------


def memory(
    folder: Path, shots: Sequence[Pixels], device: torch.device, *, frames: int, rate: float
) -> list[Figure]:
    """``faces.memory_mib`` and ``faces.memory_growth_mib``: of a process that follows a long clip.

    The growth is that of the resident memory from the end of the clip's first tenth to its end.
    The floor is what holding all frames would take. Left out where the system does not tell.
    """
    clip = folder / "long.mp4"
    compose(clip, shots, _SMALL, rate=rate, frames=frames)
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            "from facekit.datasets.faces_bench import watch; watch()",
            str(clip),
            str(frames),
            str(device),
            str(torch.get_num_threads()),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        said = result.stderr.strip().splitlines() or ["it said nothing"]
        raise FacekitError(f"following a long clip in a process of its own failed: {said[-1]}")
    early, late, peak = (float(word) for word in result.stdout.split())
    if not peak:
        return []
    held = frames * _SMALL[0] * _SMALL[1] * 3 / 2**20
    return [
        Figure("faces.memory_mib", peak, "MiB", floor=held),
        Figure("faces.memory_growth_mib", late - early, "MiB", floor=0.9 * held),
    ]


def watch() -> None:
    """The process of :func:`memory`: follow a clip, then print resident memory in MiB.

    After the first tenth of the frames, at the end, and the most at any time; 0 if unknown.
    """
    path, frames, device, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    stage = Stage(torch.device(device), min_face=MIN_FACE, max_side=MAX_SIDE)
    early = 0.0
    with Video(Path(path)) as video:
        for count, _ in enumerate(stage.follow(video), start=1):
            if count == int(frames) // 10:
                early = _resident("VmRSS")
    sys.stdout.write(f"{early} {_resident('VmRSS')} {_resident('VmHWM')}\n")


def _resident(field: str) -> float:
    """This process's VmRSS (resident memory) or VmHWM (its most) in MiB; 0 without /proc."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(lines.get(field, "0 kB").split()[0]) / 1024


# --- recall -------------------------------------------------------------------------------------


def recall(stage: Stage, clips: Sequence[Path], device: torch.device, *, most: int) -> list[Figure]:
    """``faces.recall``: the share of the peer's faces, of at least 40 pixels, that the stage sees.

    The peer looks at every frame; the stage follows, and locates every few frames. A face is the
    same if the boxes' intersection is at least half of their union. The peer's faces are those that
    it scores at 0.9 or more, as the stage's locator asks; ``faces.recall_any`` counts all of its
    boxes, which on the six clips are hands, a knee and background too. Each miss is logged, with
    its score. ``faces.extra`` is the share of the stage's faces that the peer has not. The floor
    says the clip's mean box in each frame. Intervals draw whole clips.

    Args:
        stage: to measure.
        clips: to measure on.
        device: where the peer computes.
        most: how many frames of each to look at.
    """
    peer = Peer(device)
    # Of each clip: the peer's sure faces, those found, those that the floor finds; all of the
    # peer's boxes, those found; the stage's faces, and those that the peer has not.
    counts = np.zeros((len(clips), 7))
    with progress("comparing with the peer", len(clips)) as advance:
        for done, (row, clip) in enumerate(zip(counts, clips, strict=True), start=1):
            theirs = _peer_boxes(peer, clip, most)
            every = np.concatenate(theirs)
            every = every[every[:, 4] >= _SURE, :4]
            mean = every.mean(0, keepdims=True) if len(every) else every
            with Video(clip) as video:
                for boxes, seen in zip(theirs, stage.follow(islice(video, most)), strict=True):
                    ours = np.array([face.box for face in seen.faces], np.float32).reshape(-1, 4)
                    found = _matched(boxes[:, :4], ours)
                    sure = boxes[:, 4] >= _SURE
                    for *box, score in boxes[~found]:
                        place = " ".join(f"{value:.0f}" for value in box)
                        log.info(
                            "missed: %s, %.2f s, box %s, score %.2f",
                            *(clip.name, seen.frame.time, place, score),
                        )
                    row += (
                        *(sure.sum(), found[sure].sum(), _matched(boxes[sure, :4], mean).sum()),
                        *(len(boxes), found.sum(), len(ours), len(ours) - found.sum()),
                    )
            advance(done, clip.name)
    total, found, trivial, boxes, boxes_found, ours, extra = counts.sum(0)
    if not total:
        return []

    def share(draw: NDArray[np.int64]) -> NDArray[np.float64]:
        drawn = draw @ counts
        return np.array([drawn[1] / drawn[0] if drawn[0] else np.nan])

    (low,), (high,) = interval(share, len(clips))
    return [
        Figure("faces.recall", float(found / total), low=low, high=high, floor=trivial / total),
        Figure("faces.misses", float(total - found), f"of {total:.0f} faces"),
        Figure("faces.recall_any", float(boxes_found / boxes)),
        Figure("faces.misses_any", float(boxes - boxes_found), f"of {boxes:.0f} boxes"),
        Figure("faces.extra", float(extra / max(ours, 1))),
    ]


def _peer_boxes(peer: Peer, clip: Path, most: int) -> list[Floats]:
    """The peer's boxes and scores of at least the least size, of each frame."""
    found: list[Floats] = []
    with Video(clip) as video:
        frames = islice(video, most)
        while part := [frame.pixels for frame in islice(frames, _BATCH)]:
            found += [
                boxes[(boxes[:, 2:4] - boxes[:, :2]).max(1, initial=0) >= MIN_FACE]
                for boxes in peer.boxes(part)
            ]
    return found


def _matched(boxes: Floats, others: Floats) -> NDArray[np.bool_]:
    """Which of ``boxes`` (N, 4) have one of ``others`` (M, 4) to themselves: (N,)."""
    overlap = box_iou(torch.from_numpy(boxes), torch.from_numpy(others)).numpy()
    overlap[overlap < _SAME] = 0
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    matched = np.zeros(len(boxes), np.bool_)
    matched[rows] = overlap[rows, columns] > 0
    return matched
