"""Are the studio's people faces, and people? Measured by networks that never saw the studio.

MTCNN must find the faces and put its five points where the truth has them; an outside judge of
identity must tell the people apart, and know each again in another performance. Beside each figure
stands the floor: what something trivial reaches on the same frames.

Intervals draw whole people: see :mod:`facekit.faces.verification`.

Two sets of frames are taken of each person, every performance drawn independently of the person
and of all others, so that neither background nor light says who it is (which is measured too):

- *photos*: ``Performance.sample``, of which one moment in six, that with a yaw above 30° towards
  the camera, is drawn again;
- *turned* frames: the same, turned to a yaw that is drawn evenly from -60° to 60°.

Names that end in 60 are about the turned frames, all others about the photos. Networks of identity
know a face from the front better than in half profile, real faces too.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from facekit.core.errors import FacekitError
from facekit.core.figures import Figure
from facekit.core.progress import progress
from facekit.core.seed import Purpose, rng
from facekit.faces.align import align_faces
from facekit.faces.locate import load_locator
from facekit.faces.verification import Counts, Pairs, interval
from facekit.studio.clip import check_count, check_seed, render_frames
from facekit.studio.performance import Performance, performance_seed
from facekit.studio.person import MOST_PEOPLE, Person, person_seed
from facekit.studio.render import Render
from facekit.types import POINTS, Face, Floats, Pixels

log = logging.getLogger("facekit")

Embed = Callable[[Pixels], Floats]
"""Crops uint8 (N, 112, 112, 3), aligned to ArcFace's template → unit vectors (N, D)."""

CROP = 112
_WIDEST = 60.0
_STRAIGHT = 30.0
_FRONTAL = 15.0
_OVERLAP = 0.4
_NEAR = 0.2
_AT_ONCE = 32
_GROUPS: dict[str, Callable[[Person], bool]] = {
    "tone_1_2": lambda person: person.skin_tone in (1, 2),
    "tone_3_4": lambda person: person.skin_tone in (3, 4),
    "tone_5_6": lambda person: person.skin_tone in (5, 6),
    "tone_7_8": lambda person: person.skin_tone in (7, 8),
    "tone_9_10": lambda person: person.skin_tone in (9, 10),
    "women": lambda person: person.sex < 0.5,
    "men": lambda person: person.sex >= 0.5,
}


@dataclass(frozen=True)
class Shot:
    """What is kept of one frame.

    Attributes:
        person: 0 … people - 1.
        performance: what was rendered.
        turned: whether it is a turned frame, not a photo.
        pose: yaw, pitch, roll in degrees.
        points: float32 (5, 2), the truth.
        box: float32 (4,), the truth: what the 68 landmarks span.
        face: what MTCNN located there, None if it found nothing like the true face.
        crop: uint8 (112, 112, 3), aligned by MTCNN's points; None without a face.
        backdrop: the mean colour (3,) of what lies behind the person; None if nothing does.
    """

    person: int
    performance: Performance
    turned: bool
    pose: tuple[float, float, float]
    points: Floats
    box: Floats
    face: Face | None
    crop: Pixels | None
    backdrop: Floats | None


def audit(
    *,
    device: torch.device,
    people: int = 100,
    frames: int = 6,
    size: int = 256,
    seed: int = 9,
    workers: int = 2,
    judge: Path | None = None,
) -> list[Figure]:
    """Render people and measure them.

    Args:
        device: where MTCNN runs.
        people: how many, at least 2.
        frames: photos of each, at least 2, and as many turned frames.
        size: of the frames in pixels.
        seed: of people and performances.
        workers: processes to render with; the figures do not depend on it.
        judge: ONNX file of an identity network, RGB 112×112 in ArcFace's alignment with ImageNet's
            normalisation → a vector; without it the judge's rows are left out.

    Returns:
        ``studio.mtcnn_recall_30``, ``.mtcnn_recall_60``, ``.landmark_vs_mtcnn`` and the same of
        each point, ``.judge_auc``, ``.judge_eer``, ``.judge_same``, ``.judge_different``, the
        judge's four of turned frames (``.judge_auc_60`` …), ``.background_auc``; then recall,
        landmark error and the judge's figures of photos for each group of skin tones (1 to 10 on
        the Monk scale, two by two) and for women and men, as ``NAME.GROUP``, pairs being of one
        group. Groups of fewer than two people are left out.

    Raises:
        FacekitError: for arguments out of range, or a judge that cannot be used.
    """
    check_count("people", people, MOST_PEOPLE)
    if people < 2 or frames < 2:
        raise FacekitError(
            f"--people {people} --frames {frames}: an audit compares people, and frames of one; "
            "at least 2 of each are needed"
        )
    embed = None if judge is None else load_judge(judge)
    shots = take(device=device, people=people, frames=frames, size=size, seed=seed, workers=workers)
    return figures(shots, [_person(seed, i) for i in range(people)], embed)


def figures(shots: Sequence[Shot], people: Sequence[Person], embed: Embed | None) -> list[Figure]:
    """All rows of the audit of ``shots``; see :func:`audit`."""
    vectors = None if embed is None else _embedded(shots, embed)
    rows = [
        *_recall(shots, len(people)),
        *_landmarks(shots, len(people), each=True),
        *_judge(shots, vectors, len(people)),
        *_judge(shots, vectors, len(people), turned=True),
        *_background(shots, len(people)),
    ]
    for name, belongs in _GROUPS.items():
        members = {i for i, person in enumerate(people) if belongs(person)}
        if len(members) < 2:
            continue
        inside = [k for k, shot in enumerate(shots) if shot.person in members]
        some = [shots[k] for k in inside]
        those = None if vectors is None else vectors[inside]
        for row in (
            *_recall(some, len(people)),
            *_landmarks(some, len(people), each=False),
            *_judge(some, those, len(people)),
        ):
            rows.append(replace(row, name=f"{row.name}.{name}"))
    return rows


# --- taking the shots -------------------------------------------------------------------------


def take(
    *, device: torch.device, people: int, frames: int, size: int, seed: int, workers: int
) -> list[Shot]:
    """Render ``frames`` photos and ``frames`` turned frames of each person, and locate faces."""
    check_seed(seed)
    plan = [
        (i, performance, j >= frames)
        for i in range(people)
        for j, performance in enumerate(_performances(seed, i, people, frames))
    ]
    persons = [_person(seed, i) for i in range(people)]
    pairs = [(persons[i], performance) for i, performance, _ in plan]
    locator = load_locator(device, min_face=max(20, min(40, size // 4)))
    shots: list[Shot] = []
    renders = render_frames(pairs, size, workers, want=["depth"])
    with progress("rendering and locating", len(plan)) as advance, closing(renders):
        while batch := list(islice(renders, _AT_ONCE)):
            for result, located in zip(
                batch, locator.locate([result.pixels for result in batch]), strict=True
            ):
                person, performance, turned = plan[len(shots)]
                shots.append(_shot(person, performance, turned, result, located, device))
            advance(len(shots), "")
    return shots


def _person(seed: int, i: int) -> Person:
    return Person.sample(person_seed(seed, i))


def _performances(seed: int, person: int, people: int, frames: int) -> Iterator[Performance]:
    """A person's photos, then the turned ones."""
    ahead = (p for p in _samples(seed, person) if abs(p.pose[0]) <= _STRAIGHT)
    yield from islice(ahead, frames)
    # One yaw from each of as many equal stretches as there are frames, dealt out at random.
    random = rng(seed, Purpose.FRAMES)
    stretch = random.permutation(people * frames)
    yaws = _WIDEST * (2 * (stretch + random.uniform(size=len(stretch))) / len(stretch) - 1)
    for yaw in yaws[person * frames : (person + 1) * frames]:
        yield _facing(next(ahead), float(yaw))


def _samples(seed: int, person: int) -> Iterator[Performance]:
    return (Performance.sample(performance_seed(seed, person, j)) for j in count())


def _facing(performance: Performance, yaw: float) -> Performance:
    """The performance with the face turned by about ``yaw`` degrees from the camera.

    Camera and head share what is missing.
    """
    missing = yaw - performance.pose[0]
    camera = float(np.clip(performance.camera_yaw + missing / 2, -60, 60))
    head = float(np.clip(performance.yaw + missing / 2, -90, 90))
    return performance.model_copy(update={"camera_yaw": round(camera, 4), "yaw": round(head, 4)})


def _shot(
    person: int,
    performance: Performance,
    turned: bool,
    result: Render,
    located: Sequence[Face],
    device: torch.device,
) -> Shot:
    marks = result.landmarks[:68]
    box = np.concatenate([marks.min(0), marks.max(0)]).astype(np.float32)
    face = next((face for face in located if is_found(face, box, result.points)), None)
    crop = None
    if face is not None:
        (aligned,) = align_faces(
            result.pixels, [face], template="arcface", size=CROP, device=device
        )
        crop = aligned.pixels
    behind = np.isinf(result.depth)
    return Shot(
        person=person,
        performance=performance,
        turned=turned,
        pose=result.pose,
        points=result.points,
        box=box,
        face=face,
        crop=crop,
        backdrop=result.pixels[behind].mean(0).astype(np.float32) if behind.any() else None,
    )


def is_found(face: Face, box: Floats, points: Floats) -> bool:
    """Whether ``face`` is the face of that true ``box`` (4,) and those true ``points`` (5, 2).

    Its box must overlap the true one, which reaches from brows to chin, by 0.4 of their union; its
    five points must lie within 0.2 of the true box's longer side of the true ones, on average.
    """
    sides = np.minimum(face.box[2:], box[2:]) - np.maximum(face.box[:2], box[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    union = float(np.prod(face.box[2:] - face.box[:2]) + np.prod(box[2:] - box[:2])) - shared
    off = float(np.linalg.norm(face.points - points, axis=1).mean())
    return shared >= _OVERLAP * union and off <= _NEAR * float((box[2:] - box[:2]).max())


# --- what MTCNN says --------------------------------------------------------------------------


def _recall(shots: Sequence[Shot], people: int) -> list[Figure]:
    rows = []
    for name, turned in (("recall_30", False), ("recall_60", True)):
        those = [shot for shot in shots if shot.turned == turned]
        found = np.array([shot.face is not None for shot in those], np.float64)
        row = _mean(f"studio.mtcnn_{name}", found, those, people)
        rows.append(replace(row, floor=_constant_recall(those)))
    return rows


def _constant_recall(shots: Sequence[Shot]) -> float:
    """Recall of a locator that says the same in every frame: the mean true box and points."""
    box = np.mean([shot.box for shot in shots], axis=0)
    points = np.mean([shot.points for shot in shots], axis=0)
    always = Face(box.astype(np.float32), points.astype(np.float32), 1.0)
    return float(np.mean([is_found(always, shot.box, shot.points) for shot in shots]))


def _landmarks(shots: Sequence[Shot], people: int, *, each: bool) -> list[Figure]:
    """Distances of MTCNN's points from the truth, as shares of the true inter-ocular distance."""
    frontal = [
        (shot, shot.face)
        for shot in shots
        if not shot.turned
        and shot.face is not None
        and max(abs(shot.pose[0]), abs(shot.pose[1])) <= _FRONTAL
    ]
    if not frontal:
        return []
    those = [shot for shot, _ in frontal]
    true = np.stack([shot.points for shot in those])
    located = np.stack([face.points for _, face in frontal])
    boxes = np.stack([face.box for _, face in frontal])
    # The floor: the mean face's points, put into each located box.
    corner, sides = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
    mean_face = corner + sides * ((true - corner) / sides).mean(0)
    between = np.linalg.norm(true[:, 1] - true[:, 0], axis=1)[:, None]
    off, floor = (np.linalg.norm(guess - true, axis=2) / between for guess in (located, mean_face))
    name = "studio.landmark_vs_mtcnn"
    rows = [_median(name, off.mean(1), floor.mean(1), those, people)]
    for k, point in enumerate(POINTS if each else ()):
        own = f"{name}.{point.replace(' ', '_')}"
        rows.append(_median(own, off[:, k], floor[:, k], those, people))
    return rows


def _mean(name: str, values: NDArray[np.float64], shots: Sequence[Shot], people: int) -> Figure:
    whose = np.array([shot.person for shot in shots])

    def mean(counts: Counts) -> NDArray[np.float64]:
        weights = counts[whose]
        return np.array([(weights * values).sum() / weights.sum() if weights.any() else np.nan])

    (low,), (high,) = interval(mean, people)
    return Figure(name, float(values.mean()), low=low, high=high)


def _median(
    name: str,
    values: NDArray[np.floating],
    floor: NDArray[np.floating],
    shots: Sequence[Shot],
    people: int,
) -> Figure:
    whose = np.array([shot.person for shot in shots])

    def median(counts: Counts) -> NDArray[np.float64]:
        drawn = np.repeat(values, counts[whose])
        return np.array([np.median(drawn) if len(drawn) else np.nan])

    (low,), (high,) = interval(median, people)
    return Figure(name, float(np.median(values)), low=low, high=high, floor=float(np.median(floor)))


# --- what the judge says ----------------------------------------------------------------------


def load_judge(path: Path) -> Embed:
    """An identity network from an ONNX file, read with OpenCV.

    Raises:
        FacekitError: if the file is missing, is no ONNX network that OpenCV can run, or does not
            make a vector of a crop.
    """
    if not path.is_file():
        raise FacekitError(f"--judge {path}: no such file; give an ONNX file")
    try:
        network = cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        raise FacekitError(f"--judge {path}: not an ONNX network that OpenCV can read") from error
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    deviation = np.array([0.229, 0.224, 0.225], np.float32)

    def embed(crops: Pixels) -> Floats:
        found = []
        with progress("judging", len(crops)) as advance:
            # One by one: many networks are exported for one crop, and a batch is no quicker here.
            for crop in crops:
                pixels = (crop.astype(np.float32) / 255 - mean) / deviation
                network.setInput(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
                found.append(np.array(network.forward(), np.float32).ravel())
                advance(len(found), "")
        vectors = np.stack(found)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise FacekitError(f"--judge {path}: gives vectors that are zero or not finite")
        return np.asarray(vectors / lengths, np.float32)

    random = rng(Purpose.FRAMES)
    try:
        trial = embed(random.integers(0, 256, (2, CROP, CROP, 3), dtype=np.uint8))
    except cv2.error as error:
        raise FacekitError(
            f"--judge {path}: does not take pictures (1, 3, {CROP}, {CROP})"
        ) from error
    if not 8 <= trial.shape[1] <= 8192:
        raise FacekitError(
            f"--judge {path}: gives {trial.shape[1]} numbers a face; 8 to 8192 make a vector of "
            "identity"
        )
    return embed


def _embedded(shots: Sequence[Shot], embed: Embed) -> Floats:
    """Unit vectors (N, D) of all shots' crops; those without one are NaN."""
    there = {k: shot.crop for k, shot in enumerate(shots) if shot.crop is not None}
    if not there:
        return np.full((len(shots), 1), np.nan, np.float32)
    found = embed(np.stack(list(there.values())))
    vectors = np.full((len(shots), found.shape[1]), np.nan, np.float32)
    vectors[list(there)] = found
    return vectors


def _judge(
    shots: Sequence[Shot], vectors: Floats | None, people: int, turned: bool = False
) -> list[Figure]:
    if vectors is None:
        return []
    there = [k for k, shot in enumerate(shots) if shot.crop is not None and shot.turned == turned]
    those = [shots[k] for k in there]
    whose = np.array([shot.person for shot in those])
    pairs = Pairs.of(vectors[there], whose)
    if pairs is None:
        log.warning("too few faces were found to compare people; the judge's rows are left out")
        return []
    grey = np.stack([_grey(shot) for shot in those])
    floor = Pairs.of(grey, whose)
    assert floor is not None
    low, high = interval(pairs.figures, people)
    ones = np.ones(people, np.int64)
    values, floors = pairs.figures(ones), floor.figures(ones)
    names = ("judge_auc", "judge_eer", "judge_same", "judge_different")
    end = "_60" if turned else ""
    return [
        Figure(
            f"studio.{name}{end}",
            float(values[k]),
            low=low[k],
            high=high[k],
            floor=float(floors[k]),
        )
        for k, name in enumerate(names)
    ]


def _grey(shot: Shot) -> Floats:
    """The crop's brightness less its mean, of length 1: products are correlations of pixels."""
    assert shot.crop is not None
    grey = shot.crop.astype(np.float32).mean(2).ravel()
    grey -= grey.mean()
    return np.asarray(grey / max(float(np.linalg.norm(grey)), 1e-6), np.float32)


def _background(shots: Sequence[Shot], people: int) -> list[Figure]:
    """How well the background alone tells who it is: 0.5 is by chance, as it must be."""
    those = [shot for shot in shots if shot.backdrop is not None and not shot.turned]
    if not those:
        return []
    colours = np.stack([shot.backdrop for shot in those if shot.backdrop is not None])
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=2)
    pairs = Pairs.of_similarity(-apart, np.array([shot.person for shot in those]))
    if pairs is None:
        return []
    low, high = interval(pairs.figures, people)
    value = float(pairs.figures(np.ones(people, np.int64))[0])
    return [Figure("studio.background_auc", value, low=low[0], high=high[0], floor=0.5)]
