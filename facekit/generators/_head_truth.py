"""How good a talking head is, by the studio's true answer: one table for any method's frames.

In the same table stand the *floors*, what needs no model: the nearest of the photos as it is
(``copy``), and bent to the driver's landmarks by a thin-plate spline (``warp``); and the *truth's*
own readings (``truth``): what the landmark network says of the true answer itself.

Intervals are 95% percentile bootstraps over people (Efron & Tibshirani 1993).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from facekit.conversion.images import to_images, to_pixels
from facekit.core.figures import Figure
from facekit.core.progress import progress
from facekit.datasets.head_truth import (
    Protocol,
    Subject,
    read_frames,
    render_subject,
    require_frames,
    tasks,
)
from facekit.faces.landmarks import mean_face_points
from facekit.generators._evaluate import beside
from facekit.generators._swap_truth import (
    Readers,
    Rows,
    over_best,
    ratio_of,
    region_psnr,
    region_ssim,
    same,
)
from facekit.generators.talking_head import spline, warp
from facekit.motion import (
    Animator,
    Controls,
    Motion,
    act,
    cast_of,
    from_track,
    sitters,
    watch,
)
from facekit.types import Floats, Frame, Pixels

FLOORS = ("copy", "warp")
TRUTH = "truth"

ABSOLUTE = Controls(relative=False)
"""How somebody else's performance is taken over: the truth gives it as it is."""

_MOST_PSNR = 100.0  # of frames that are the truth itself
_OUTER_CORNERS = (36, 45)  # of the eyes: their distance is 300W's "inter-ocular"
_SHOWN = 8  # people on the sheet

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Watched:
    """What a driver's clips show.

    Attributes:
        landmarks: float32 (C, N, 70, 2), as read, in pixels of the protocol's size.
        motions: of each clip.
    """

    landmarks: Floats
    motions: list[Motion]


@dataclass(frozen=True)
class Task:
    """What a method is asked for: all clips of one person, driven in one way.

    Attributes:
        name: see :func:`facekit.datasets.head_truth.tasks`.
        person: who is shown, from 0.
        photos: uint8 (T, S, S, 3) of them.
        driver: whose clips move them.
        own: whether that is the person themselves.
    """

    name: str
    person: int
    photos: Pixels
    driver: Watched
    own: bool


Method = Callable[[Task], Sequence[Pixels]]
"""A task → frames (C * N) uint8 RGB (H, H, 3), of any size."""


@dataclass(frozen=True)
class Score:
    """What the frames of a task score: means over its frames.

    Attributes:
        ssim: in [-1, 1], against the true answer over face and hair.
        psnr: in dB, likewise.
        nme: distance of the landmarks read from the true ones, over that of the eyes' outer
            corners; NaN where it was not asked for.
        similarity: cosine to the first photo, by the judge; likewise.
    """

    ssim: float
    psnr: float
    nme: float = float("nan")
    similarity: float = float("nan")


@dataclass(frozen=True)
class Measured:
    """What an evaluation finds.

    Attributes:
        figures: rows.
        sheet: of some people: photo, driver, drawn and true answer, uint8 (H, W, 3).
    """

    figures: list[Figure]
    sheet: Pixels


def by_animator(animator: Animator, protocol: Protocol, device: torch.device) -> Method:
    """A generator as a method."""
    scale = animator.size / protocol.size

    def drawn(task: Task) -> list[Pixels]:
        photos = list(task.photos)
        cast = cast_of(photos, animator.size, device, unfit="take", cut=False)
        clips = (
            (scale * task.driver.landmarks).astype(np.float32)
            if task.own
            else [act(cast.sitters[0], motion, ABSOLUTE) for motion in task.driver.motions]
        )
        return [frame for clip in clips for frame in animator.draw(cast, clip, 0)]

    return drawn


def by_frames(folder: Path, protocol: Protocol) -> Method:
    """Somebody's frames as a method.

    Raises:
        FacekitError: if frames are missing or too many.
    """
    require_frames(folder, protocol)

    def read(task: Task) -> list[Pixels]:
        clips = range(protocol.clips)
        parts = [read_frames(folder, protocol, task.person, clip, task.name) for clip in clips]
        return [frame for part in parts for frame in part]

    return read


def measure(
    method: Method,
    protocol: Protocol,
    readers: Readers,
    device: torch.device,
    *,
    kept: Path | None = None,
    workers: int = 1,
) -> Measured:
    """Score a method and its floors.

    Args:
        method: what draws.
        protocol: how many people and clips.
        readers: networks.
        device: where to locate and read faces.
        kept: a folder where rendered people are kept.
        workers: processes to render with.
    """
    scores: dict[str, dict[str, list[Score]]] = {}
    shown: list[list[Pixels]] = []
    total = protocol.people * len(tasks(protocol))

    def person(number: int) -> tuple[Subject, Watched]:
        subject = render_subject(protocol, number, kept=kept, workers=workers)
        return subject, _watched(subject, protocol, device)

    with progress("scoring heads", total) as advance:
        done = 0
        first = following = person(0)
        for number in range(protocol.people):
            (subject, watched) = following
            following = person(number + 1) if number + 1 < protocol.people else first
            truth = _Truth.of(subject, protocol, readers)
            for name in tasks(protocol):
                own = name != "cross"
                shots = int(name[1:]) if own else protocol.shots[0]
                driver = watched if own else following[1]
                task = Task(name, number, subject.photos[:shots], driver, own)
                made = {"": method(task), **_floors(task, subject, protocol, device)}
                for called, frames in made.items():
                    found = truth.score(list(frames), readers, wholly=not own)
                    scores.setdefault(name, {}).setdefault(called, []).append(found)
                if not own:
                    shown.append(_shown(subject, following[0], made[""], protocol))
                if not own:
                    scores[name].setdefault(TRUTH, []).append(truth.own(readers))
                done += 1
                advance(done, f"person {number + 1}, {name}: {scores[name][''][-1].ssim:.3f}")
    titles = ("photo", "driver", "drawn", "true answer")
    rows = shown[: _SHOWN * 2][:: max(1, min(len(shown), _SHOWN * 2) // _SHOWN)]
    pictures = [np.stack([row[k] for row in rows]) for k in range(len(titles))]
    sheet = beside(list(zip(titles, pictures, strict=True)), columns=2, scale=1)
    return Measured(figures(scores, protocol), sheet)


@dataclass(frozen=True)
class _Truth:
    """The true answers of a person's clips, in the size that is compared."""

    frames: Pixels
    region: NDArray[np.uint8]
    landmarks: Floats
    points: Floats
    photo: Floats  # the judge's vector of the first photo

    @classmethod
    def of(cls, subject: Subject, protocol: Protocol, readers: Readers) -> "_Truth":
        size, scale = protocol.compared, protocol.compared / protocol.size
        flat = subject.landmarks.reshape(-1, *subject.landmarks.shape[2:]) * np.float32(scale)
        five = mean_face_points(subject.photo_landmarks[0])
        return cls(
            frames=_sized(subject.frames.reshape(-1, *subject.frames.shape[2:]), size),
            region=_sized(subject.region.reshape(-1, *subject.region.shape[2:]), size),
            landmarks=flat,
            points=np.stack([mean_face_points(points) for points in flat]),
            photo=readers.identity.of([subject.photos[0]], [five])[0],
        )

    def score(self, frames: list[Pixels], readers: Readers, *, wholly: bool) -> Score:
        """Score frames of all clips; ``wholly`` also by landmarks and identity."""
        sized = _sized(frames, len(self.region[0]))
        ssim = float(region_ssim(sized, self.frames, self.region).mean())
        found = region_psnr(sized, self.frames, self.region)
        psnr = float(np.minimum(found, _MOST_PSNR).mean())
        return Score(ssim, psnr, *(self._read(sized, readers) if wholly else ()))

    def own(self, readers: Readers) -> Score:
        """What the readers say of the truth itself."""
        return Score(1.0, _MOST_PSNR, *self._read(self.frames, readers))

    def _read(self, frames: Pixels, readers: Readers) -> tuple[float, float]:
        read = readers.landmarks(list(frames), self.points)
        off = np.stack([one.points for one in read]) - self.landmarks
        right, left = (self.landmarks[:, corner] for corner in _OUTER_CORNERS)
        apart = np.linalg.norm(left - right, axis=1)
        nme = np.linalg.norm(off, axis=2).mean(1) / np.maximum(apart, 1e-9)
        # Where no face is left, landmarks are a guess that must not count for it.
        nme = np.where([not one.present for one in read], np.maximum(nme, 1.0), nme)
        vectors = readers.identity.of(list(frames), self.points)
        return float(nme.mean()), float((vectors @ self.photo).mean())


def figures(
    scores: Mapping[str, Mapping[str, Sequence[Score]]], protocol: Protocol
) -> list[Figure]:
    """The table of a method, with its floors and the truth.

    Args:
        scores: task → name ("" the method itself, or a floor, or the truth) → a score a person.
        protocol: whose tasks they are.
    """
    table = Rows(len(scores["cross"][""]))
    add = table.add

    def of(task: str, called: str, key: str) -> Doubles:
        return np.array([vars(score)[key] for score in scores[task][called]])

    for task in tasks(protocol):
        keys = {"ssim": ("", max), "psnr": ("dB", max)}
        if task == "cross":
            keys["nme"] = ("", min)
        for key, (unit, best) in keys.items():
            called = f"cross_{key}" if task == "cross" else f"{key}_{task}"
            floor = best(float(of(task, name, key).mean()) for name in FLOORS)
            add(f"head.{called}", unit, same, of(task, "", key), floor=floor)
            for name in FLOORS:
                add(f"head.{called}.{name}", unit, same, of(task, name, key))
    first = f"t{protocol.shots[0]}"
    floors = (of(first, name, "psnr") for name in FLOORS)
    add("head.psnr_over_floor", "dB", over_best, of(first, "", "psnr"), *floors)
    add("head.cross_nme.truth", "", same, of("cross", TRUTH, "nme"))
    truth = of("cross", TRUTH, "similarity")
    for name in scores["cross"]:
        ending = f".{name}" if name else ""
        if name != TRUTH:
            add(f"head.identity{ending}", "", ratio_of, of("cross", name, "similarity"), truth)
    add("head.similarity", "", same, of("cross", "", "similarity"))
    add("head.similarity.truth", "", same, truth)
    return table.figures


def _watched(subject: Subject, protocol: Protocol, device: torch.device) -> Watched:
    landmarks, motions = [], []
    for clip in subject.frames:
        frames = (Frame(pixels, k / protocol.rate, k) for k, pixels in enumerate(clip))
        track = watch(frames, device=device, total=len(clip))
        landmarks.append(track.landmarks)
        motions.append(from_track(track))
    return Watched(np.stack(landmarks), motions)


def _floors(
    task: Task, subject: Subject, protocol: Protocol, device: torch.device
) -> dict[str, Sequence[Pixels]]:
    """For each picture the photo that is most like it, as it is and bent.

    The photos' landmarks are the true ones; the driver's are as they were seen.
    """
    size, scale = protocol.compared, protocol.compared / protocol.size
    photos = _sized(task.photos, size)
    own = (scale * subject.photo_landmarks[: len(photos)]).astype(np.float32)
    if task.own:
        landmarks = scale * task.driver.landmarks.reshape(-1, *own.shape[1:])
    else:
        (sitter,) = sitters(own[:1], size)
        landmarks = np.concatenate([act(sitter, m, ABSOLUTE) for m in task.driver.motions])
    landmarks = landmarks.astype(np.float32)
    wanted, given = (points - points.mean(1, keepdims=True) for points in (landmarks, own))
    nearest = [int(np.square(given - one).sum((1, 2)).argmin()) for one in wanted]
    return {
        "copy": [photos[i] for i in nearest],
        "warp": list(_bent(photos, nearest, landmarks, own, device)),
    }


def _bent(
    photos: Pixels, nearest: Sequence[int], to: Floats, own: Floats, device: torch.device
) -> Iterator[Pixels]:
    for start in range(0, len(to), 32):
        rows = list(nearest[start : start + 32])
        images = to_images(torch.from_numpy(photos[rows]).to(device))
        size = images.shape[2]
        points, of = (
            torch.from_numpy(p).to(device) / size for p in (to[start : start + 32], own[rows])
        )
        yield from to_pixels(warp(images, spline(points, of, size)))


def _sized(pictures: Sequence[Pixels] | Pixels, size: int) -> Pixels:
    resized = [
        picture
        if len(picture) == size
        else cv2.resize(
            picture,
            (size, size),
            interpolation=cv2.INTER_AREA if len(picture) > size else cv2.INTER_CUBIC,
        )
        for picture in pictures
    ]
    return np.stack(resized).astype(np.uint8)


def _shown(
    subject: Subject, driver: Subject, frames: Sequence[Pixels], protocol: Protocol
) -> list[Pixels]:
    """Of the first clip the last frame."""
    k = protocol.frames - 1
    pictures = [subject.photos[0], driver.frames[0, k], frames[k], subject.frames[0, k]]
    return list(_sized(pictures, protocol.compared))
