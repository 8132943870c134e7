"""What sharing does to pictures, in five strengths: how much of a detector is left after it.

Strength 3 is what everyday sharing does; strength 5 is severe, but a person still recognises the
face. What is left to chance is drawn from a numpy generator alone, and the same face meets the same
chance at every strength, so that a curve shows the strength and not the dice.

Lengths are given in shares of the face or of the picture, not in pixels: a blur of two pixels is
nothing to a large face and the end of a small one.

What is corrupted is a region: a face that was already found and cut. The losses are the detector's
alone; that fewer faces are found in a corrupted picture is not in them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.calibrate import Labels, Scores
from detectors.data import FaceSet, require_both
from detectors.metrics import Metric, auc, interval
from detectors.regions import Region, moved_by, resized
from detectors.score import Scorer
from facekit.core.errors import FacekitError, did_you_mean
from facekit.core.figures import Figure
from facekit.core.progress import progress
from facekit.core.seed import Purpose, rng
from facekit.media import lossy
from facekit.types import Pixels

STRENGTHS = (1, 2, 3, 4, 5)
EVERYDAY = 3
"""The strength at which the loss is stated as one figure."""

JPEG = (90, 70, 50, 30, 12)
"""Quality, with colours at half resolution; 50 is where ``detect.jpeg50_drop`` is taken."""
WEBP = (85, 65, 50, 25, 5)
"""Quality."""
BLUR = (0.003, 0.006, 0.01, 0.016, 0.025)
"""Deviation of a Gaussian, as a share of the face: 1.6 pixels of 160 at strength 3."""
NOISE = (2.0, 4.0, 8.0, 14.0, 24.0)
"""Deviation of Gaussian noise in levels of 0 to 255, each colour by itself."""
RESIZE = (0.85, 0.7, 0.5, 0.35, 0.25)
"""How much of its sides a picture keeps; it stays as small as it then is."""
H264 = (18, 23, 28, 34, 40)
"""Constant rate factor of x264; 23 and 40 are FaceForensics++'s light and heavy compression."""
SCREENSHOT = ((1.0, 0.0, 95), (0.9, 0.02, 90), (0.75, 0.04, 80), (0.55, 0.07, 65), (0.4, 0.1, 50))
"""Scale on the screen, how far the display's colours may be off, quality of the JPEG it is sent
as."""
SOCIAL = ((1600, 92, 88), (1350, 85, 80), (1080, 80, 70), (720, 70, 55), (480, 55, 40))
"""Longest side that a platform lets through, of a photo of 1920; quality of its JPEG, and of the
JPEG of the next platform that it is passed on to."""

_PHOTO = 1920  # pixels; a region says nothing of the photo's size, so it is taken to be so wide
_SMALLEST = 24  # pixels of a face: fewer, and nobody would know it any more
_CLIP = 5  # frames that a still is encoded as
_AT_ONCE = 64  # faces that are held corrupted
_KEY = 3  # other keys of this purpose are shorter, or end otherwise
_SIDES = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)  # how programs shrink

Corruption = Callable[[Region, int, np.random.Generator], Region]
"""(region, place in the table of strengths, chance) → region."""


def corrupt(region: Region, name: str, strength: int, random: np.random.Generator) -> Region:
    """One region after one corruption.

    Args:
        region: left as it is.
        name: one of ``NAMES``.
        strength: 1 to 5.
        random: all chance comes from it; the same state gives the same bytes.

    Returns:
        The region, with its face where it then is.

    Raises:
        FacekitError: for an unknown name or strength.
    """
    if name not in _CORRUPTIONS:
        raise FacekitError(f"unknown corruption '{name}'; {did_you_mean(name, NAMES)}")
    if strength not in STRENGTHS:
        raise FacekitError(f"corruption strength {strength}: allowed are 1 to {STRENGTHS[-1]}")
    return _CORRUPTIONS[name](region, strength - 1, random)


def _jpeg(region: Region, place: int, random: np.random.Generator) -> Region:
    return replace(region, pixels=lossy.jpeg(region.pixels, JPEG[place]))


def _webp(region: Region, place: int, random: np.random.Generator) -> Region:
    return replace(region, pixels=lossy.webp(region.pixels, WEBP[place]))


def _blur(region: Region, place: int, random: np.random.Generator) -> Region:
    sigma = BLUR[place] * region.face.size
    blurred = cv2.GaussianBlur(region.pixels, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return replace(region, pixels=np.asarray(blurred, np.uint8))


def _noise(region: Region, place: int, random: np.random.Generator) -> Region:
    noise = random.standard_normal(region.pixels.shape, np.float32)
    return replace(region, pixels=_rounded(region.pixels + NOISE[place] * noise))


def _resize(region: Region, place: int, random: np.random.Generator) -> Region:
    return _shrunk(region, RESIZE[place], random)


def _h264(region: Region, place: int, random: np.random.Generator) -> Region:
    """A still becomes a short clip of a camera that drifts by a pixel a frame, as hands do.

    The frame in the middle, where the drift is none, is taken back: one that the codec predicts
    from others, as nearly all frames of a video are.
    """
    step = random.choice([-1, 1], 2)
    height, width = region.pixels.shape[:2]
    edge = _CLIP // 2
    padded = np.pad(region.pixels, ((edge, edge), (edge, edge), (0, 0)), mode="edge")
    corners = [edge + (i - edge) * step for i in range(_CLIP)]
    clip = (padded[y : y + height, x : x + width] for x, y in corners)
    return replace(region, pixels=list(lossy.h264(clip, H264[place]))[edge])


def _screenshot(region: Region, place: int, random: np.random.Generator) -> Region:
    """Shown at another scale on a display with colours of its own, cut out, sent as JPEG."""
    scale, off, quality = SCREENSHOT[place]
    gain, gamma = 1 + off * random.uniform(-1, 1, 3), 1 + off * random.uniform(-1, 1)
    share = random.random(4)
    shown = _shrunk(region, scale, random, kind=cv2.INTER_LINEAR)
    height, width = shown.pixels.shape[:2]
    # Whoever cuts it out leaves the face whole; what else is shown, and where the blocks of the
    # JPEG begin, is chance.
    x0, y0 = np.clip(shown.face.box[:2], 0, None)
    x1, y1 = np.clip([width, height] - shown.face.box[2:], 0, None)
    left, top, right, bottom = (np.array([x0, y0, x1, y1]) * share / 2).astype(int)
    cut = shown.pixels[top : height - bottom, left : width - right]
    display = _rounded(255 * (cut / np.float32(255)) ** gamma * gain)
    face = moved_by(shown.face, (-left, -top))
    return replace(shown, pixels=lossy.jpeg(display, quality), face=face)


def _social(region: Region, place: int, random: np.random.Generator) -> Region:
    """Shrunk to what a platform lets through, and twice compressed."""
    longest, first, second = SOCIAL[place]
    small = _shrunk(region, longest / _PHOTO, random)
    return replace(small, pixels=lossy.jpeg(lossy.jpeg(small.pixels, first), second))


def _shrunk(
    region: Region, factor: float, random: np.random.Generator, kind: int | None = None
) -> Region:
    """A region shrunk, as some program does it, but never so far that the face is lost."""
    kind = int(random.choice(_SIDES)) if kind is None else kind
    return resized(region, max(factor, min(1.0, _SMALLEST / region.face.size)), kind)


def _rounded(values: NDArray[Any]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


_CORRUPTIONS: dict[str, Corruption] = {
    "jpeg": _jpeg,
    "webp": _webp,
    "blur": _blur,
    "noise": _noise,
    "resize": _resize,
    "h264": _h264,
    "screenshot": _screenshot,
    "social": _social,
}

NAMES = tuple(_CORRUPTIONS)
"""The corruptions, in the order in which they are shown."""


# --- how much of a detector is left ---------------------------------------------------------------


def curves(scorer: Scorer, face_set: FaceSet, *, seed: int) -> dict[str, Any]:
    """How a detector does as corruptions grow.

    Every face is corrupted and scored forty times: hand in a few hundred of each class.

    Args:
        scorer: the detector.
        face_set: faces of both classes, as they come.
        seed: of all chances; two detectors measured with one seed see the same pixels.

    Returns:
        As :func:`curves_from`.

    Raises:
        FacekitError: if a class is empty or the detector fails.
    """
    require_both(face_set.labels)
    _, cluster = np.unique(np.array(face_set.sources), return_inverse=True)
    scores = score(scorer, face_set, seed=seed)
    return curves_from(scores, face_set.labels, cluster.astype(np.int64))


def score(scorer: Scorer, face_set: FaceSet, *, seed: int) -> dict[str, list[Scores]]:
    """The scores that curves are drawn from.

    Returns:
        Corruption → P(generated) (N,) at strengths 0, which is the faces as they come, to 5.

    Raises:
        FacekitError: if the detector fails.
    """
    as_they_come = scorer.score(face_set.regions)
    scores = {name: [as_they_come] for name in NAMES}
    with progress("Corrupting faces", len(NAMES) * len(STRENGTHS)) as advance:
        for done, (name, strength) in enumerate(product(NAMES, STRENGTHS)):
            advance(done, f"{name} {strength}")
            regions = _each(face_set, name, strength, seed)
            parts = []
            while part := list(islice(regions, _AT_ONCE)):
                parts.append(scorer.score(part))
            scores[name].append(np.concatenate(parts))
    return scores


def _each(face_set: FaceSet, name: str, strength: int, seed: int) -> Iterator[Region]:
    """The faces of a set, corrupted; each has chances of its own, the same at every strength."""
    for i, region in enumerate(face_set.regions):
        random = rng(seed, i, NAMES.index(name), _KEY, Purpose.DEGRADING)
        yield corrupt(region, name, strength, random)


def curves_from(
    scores: Mapping[str, Sequence[Scores]], labels: Labels, cluster: NDArray[np.int64]
) -> dict[str, Any]:
    """Curves and losses from scores.

    Args:
        scores: of :func:`score`.
        labels: (N,), 1 generated.
        cluster: (N,) the number of each face's source, which a bootstrap draws whole.

    Returns:
        For JSON. ``auc``: corruption → its AUC at strengths 0 (as the faces come) to 5; ``drop``:
        corruption → the AUC lost at strength 3, and under ``mean`` the mean of these. Each is
        ``{value, low, high}``, with a 95% interval.

    Raises:
        FacekitError: if a class is empty or a score is no number.
    """
    [as_they_come, *_] = scores[NAMES[0]]

    def lost(names: Sequence[str]) -> dict[str, float]:
        columns = [as_they_come, *(scores[name][EVERYDAY] for name in names)]
        return _with_interval(_drop, np.stack(columns, axis=1), labels, cluster)

    first = _with_interval(auc, as_they_come, labels, cluster)
    return {
        "auc": {
            name: [first, *(_with_interval(auc, one, labels, cluster) for one in scores[name][1:])]
            for name in NAMES
        },
        "drop": {"mean": lost(NAMES), **{name: lost([name]) for name in NAMES}},
    }


def figures(report: Mapping[str, Any]) -> list[Figure]:
    """The losses of :func:`curves_from` as rows: ``detect.corruption_drop``, ``.jpeg50_drop``."""
    rows = {"detect.corruption_drop": report["drop"]["mean"]}
    rows |= {"detect.jpeg50_drop": report["drop"]["jpeg"]}
    rows |= {f"detect.corruption_drop.{name}": report["drop"][name] for name in NAMES}
    return [
        Figure(name, row["value"], low=row["low"], high=row["high"]) for name, row in rows.items()
    ]


@Metric
def _drop(scores: Scores, labels: Labels, weights: Scores) -> Scores:
    """AUC of the first column less the mean AUC of the others: of (N, 1 + K), (N,), (D, N)."""
    first, *others = (auc.of_draws(column, labels, weights) for column in scores.T)
    mean: Scores = np.mean(others, axis=0)
    return first - mean


def _with_interval(
    metric: Metric, scores: Scores, labels: Labels, cluster: NDArray[np.int64]
) -> dict[str, float]:
    low, high = interval(metric, scores, labels, cluster)
    return {"value": metric(scores, labels), "low": low, "high": high}
