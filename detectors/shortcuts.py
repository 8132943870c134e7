"""Whether something that merely comes with a class gives it away.

Collections differ in size, compression, framing and names, and a detector that has learnt "a JPEG
of 512 pixels" has learnt nothing of forgeries. Each of these things by itself is therefore given to
a plain logistic regression, whose AUC on sources that it was not fitted on says how much there is
to be learnt from it: 0.5 is nothing, 1 all that is asked for.

Of files, everything is looked at that a careless loader might let through. Of faces in memory
(:class:`detectors.data.FaceSet`), it is what a network is shown; after the world's degradation it
should tell nothing, but for the background, which belongs to the pictures.
"""

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import JpegImagePlugin
from scipy.stats import rankdata
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from detectors.calibrate import Labels, Scores
from detectors.data import FaceSet, require_both
from detectors.metrics import auc, interval
from detectors.regions import Region, locate
from facekit import watermark
from facekit.core.errors import FacekitError
from facekit.core.figures import Figure
from facekit.core.progress import progress
from facekit.faces import quality
from facekit.faces.align import apply, crop_from_faces, invert
from facekit.faces.locate import Locator, load_locator
from facekit.media.decode import Video
from facekit.media.images import is_image, opened, read_image, require_file
from facekit.types import Face, Pixels

log = logging.getLogger("facekit")

Facts = dict[str, float | str]
"""What is known of one picture: numbers, and texts, each of which is a feature of its own."""

SAYS = {
    "shortcut.size": "the picture's width, height and shape (of faces in memory: their size)",
    "shortcut.compression": "format, bytes a pixel, the JPEG's tables and visible blocks",
    "shortcut.metadata": "which metadata there are (EXIF, colour profile)",
    "shortcut.mark": "facekit's watermark",
    "shortcut.name": "the file's own name (its length, digits, pattern, suffix)",
    "shortcut.folder": "the names of the folders above the file",
    "shortcut.face": "the face's size and place in the picture (of faces in memory: how much of a "
    "crop lies beyond the picture)",
    "shortcut.background": "the colours and the detail of what is around the face",
}
"""Name of a figure → what it goes by."""

MEANS = {
    "shortcut.size": "A detector may have learnt no more than that: bring both classes to the same "
    "sizes.",
    "shortcut.compression": "A detector may have learnt no more than that: compress both classes "
    "anew, by the same code.",
    "shortcut.metadata": "Pixels do not show it; let nothing but pixels be learnt from.",
    "shortcut.mark": "A detector may have learnt the mark: mark as many of the other class.",
    "shortcut.name": "Pixels do not show it; let nothing but pixels be learnt from.",
    "shortcut.folder": "Pixels do not show it; data sets are kept so. Let nothing but pixels be "
    "learnt from.",
    "shortcut.face": "A detector may have learnt how the collections were framed: cut both classes "
    "by the same rule, at sizes drawn at random.",
    "shortcut.background": "A detector may have learnt where the pictures were taken: test on "
    "forgeries beside the very pictures that they were made from.",
}
"""Name of a figure → what a high value means, and what to do."""

_CLEAR, _SURE = 0.6, 0.9  # an interval wholly above the first is worth acting on
_FOLDS = 5
_FEWEST = 10  # sources of each class
_RARE = 3  # a text that fewer pictures have is left out: it would only be learnt by heart
_AT_ONCE = 16
_RING = 0.1  # of the sides: what is taken for background where no face is found


@dataclass(frozen=True)
class File:
    """A labelled picture or video.

    Attributes:
        path: of the file.
        label: 1 generated, 0 not.
        source: what it is or was made from; sources are never divided. "" is a source by itself.
    """

    path: Path
    label: int
    source: str = ""


def audit(
    examples: FaceSet | Sequence[File | tuple[Path, int, str]],
    *,
    device: torch.device | None = None,
    seed: int = 0,
) -> list[Figure]:
    """How well each thing by itself tells the classes: of faces in memory, or of files.

    Args:
        examples: faces, or files as :class:`File` or (path, label, source).
        device: where to look for faces in files; None leaves that out, see :func:`audit_files`.
        seed: of the division into folds.
    """
    if isinstance(examples, FaceSet):
        return audit_faces(examples, seed=seed)
    files = [row if isinstance(row, File) else File(*row) for row in examples]
    return audit_files(files, device=device, seed=seed)


def audit_faces(face_set: FaceSet, *, template: str = "wide", seed: int = 0) -> list[Figure]:
    """What comes with faces as a network is shown them.

    A crop does not show how large the picture was, but it does show how fine the face is and where
    the picture ends, since what lies beyond is made up.

    Args:
        face_set: after ``detectors.data.befallen``, or as whoever is audited shows them.
        template: of the crops, of ``facekit.faces.align``.
        seed: of the division into folds.

    Returns:
        As :func:`tell`: ``shortcut.size``, ``.compression``, ``.mark``, ``.face``, ``.background``.

    Raises:
        FacekitError: if a class is empty.
    """
    facts: dict[str, list[Facts]] = {}
    with progress("Auditing faces", len(face_set)) as advance:
        for i, region in enumerate(face_set.regions):
            came = face_set.payloads[i]
            reading = watermark.read(region.pixels, search=False)
            kind = came.kind.label if came else reading.kind or ""
            marked = came is not None or reading.present
            known: dict[str, Facts] = {
                "size": {"face": float(np.log(max(region.face.size, 1)))},
                "compression": {"blocks": _blocks(region.pixels, region.face)},
                "mark": {"present": float(marked), "kind": kind},
                "face": _made_up(region, template),
                "background": _background(region.pixels, region.face),
            }
            for name, one in known.items():
                facts.setdefault(name, []).append(one)
            advance(i + 1, "")
    return tell(facts, face_set.labels, face_set.sources, seed=seed)


def audit_files(
    files: Sequence[File], *, device: torch.device | None = None, seed: int = 0
) -> list[Figure]:
    """What comes with pictures and videos as they lie in their folders.

    Args:
        files: of both classes; those that cannot be read are left out, with a word in the log. Of
            a video, its first frame is looked at.
        device: where to look for faces. None: nothing is said of them, and the background is the
            picture's outermost tenth on every side.
        seed: of the division into folds.

    Returns:
        As :func:`tell`: every figure of ``SAYS``.

    Raises:
        FacekitError: if a class is empty.
    """
    paths = [file.path.absolute() for file in files]
    above = os.path.commonpath([path.parent for path in paths]) if paths else ""
    locator = None if device is None else load_locator(device)
    facts: dict[str, list[Facts]] = {}
    kept: list[File] = []
    unread: list[str] = []
    with progress("Auditing files", len(files)) as advance:
        for start in range(0, len(files), _AT_ONCE):
            shots = []
            for file in files[start : start + _AT_ONCE]:
                try:
                    shots.append((file, *_opened(file.path)))
                except FacekitError as error:
                    unread.append(str(error))
            found = _largest([pixels for _, pixels, _ in shots], locator)
            for (file, pixels, known), face in zip(shots, found, strict=True):
                kept.append(file)
                known |= _named(file.path.absolute().relative_to(above))
                reading = watermark.read(pixels, search=False)
                known["mark"] = {"present": float(reading.present), "kind": reading.kind or ""}
                known["size"] = _size(pixels)
                known["background"] = _background(pixels, face)
                if face:
                    known["compression"] |= {"blocks": _blocks(pixels, face)}
                if locator:
                    known["face"] = _place(pixels, face)
                for name, one in known.items():
                    facts.setdefault(name, []).append(one)
            advance(start, "")
    if unread:
        log.warning("%d files left out of the audit, e.g. %s", len(unread), unread[0])
    labels = np.array([file.label for file in kept], np.int64)
    return tell(facts, labels, [file.source for file in kept], seed=seed)


def tell(
    facts: Mapping[str, Sequence[Facts]], labels: Labels, sources: Sequence[str], *, seed: int = 0
) -> list[Figure]:
    """How well logistic regression tells the classes by each kind of facts.

    Args:
        facts: kind → what is known of each of N pictures.
        labels: (N,), 1 generated.
        sources: N; all of one source are fitted on, or none.
        seed: of the division into folds.

    Returns:
        ``shortcut.KIND``: the AUC over five folds, with a 95% interval over sources; none, with a
        word in the log, where a class has fewer than ten sources.

    Raises:
        FacekitError: if a class is empty.
    """
    require_both(labels)
    # Those without a source stand alone.
    names = [source or f"\0{i}" for i, source in enumerate(sources)]
    _, cluster = np.unique(np.array(names), return_inverse=True)
    fewest = min(len(np.unique(cluster[labels == label])) for label in (0, 1))
    if fewest < _FEWEST:
        log.warning(
            "shortcuts are not audited: one of the classes has %d sources, %d are needed",
            *(fewest, _FEWEST),
        )
        return []
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    parts = list(folds.split(np.zeros((len(labels), 1)), labels, cluster))
    rows = []
    for kind, known in facts.items():
        scores = _left_out(_features(known), labels, parts)
        low, high = interval(auc, scores, labels, cluster)
        rows.append(Figure(f"shortcut.{kind}", auc(scores, labels), low=low, high=high))
    order = list(SAYS)
    return sorted(rows, key=lambda row: order.index(row.name))


def explain(figures: Iterable[Figure]) -> list[str]:
    """A line on each figure of an audit, in plain words: what tells the classes, and what then."""
    lines = []
    for row in figures:
        what, value = SAYS[row.name], f"{row.name} {row.value:.2f}"
        if row.low is None or row.low <= _CLEAR:
            lines.append(f"{value}: little or nothing about the class can be told from {what}.")
        elif row.value <= _SURE:
            lines.append(f"{value}: part of the class can be told from {what}. {MEANS[row.name]}")
        else:
            lines.append(
                f"{value}: the classes can be told apart by {what} alone. {MEANS[row.name]}"
            )
    return lines


# --- telling --------------------------------------------------------------------------------------


def _features(known: Sequence[Facts]) -> NDArray[np.float64]:
    """A matrix of numbers, and of whether each text is there: (N, F)."""
    texts = Counter(pair for facts in known for pair in facts.items() if isinstance(pair[1], str))
    rows = [
        {
            key: value
            for key, value in facts.items()
            if not isinstance(value, str) or texts[key, value] >= _RARE
        }
        for facts in known
    ]
    matrix: NDArray[np.float64] = DictVectorizer(sparse=False).fit_transform(rows)
    return matrix


def _left_out(
    features: NDArray[np.float64],
    labels: Labels,
    parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> Scores:
    """For each row the score of a regression that was fitted without its part, as a rank there.

    As a rank, because each part has a regression of its own, with an offset of its own.
    """
    scores = np.full(len(labels), 0.5)
    if not features.shape[1]:
        return scores
    for fitted, held in parts:
        regression = make_pipeline(
            StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)
        )
        regression.fit(features[fitted], labels[fitted])
        ranks = rankdata(regression.decision_function(features[held]))
        scores[held] = (ranks - 0.5) / len(held)
    return scores


# --- what is known of a picture -------------------------------------------------------------------


def _opened(path: Path) -> tuple[Pixels, dict[str, Facts]]:
    """A file's first picture, and how it is compressed and described."""
    require_file(path)
    if is_image(path):
        pixels = read_image(path)
        with opened(path, load=False) as image:
            known = {"compression": _tables(image), "metadata": _extras(image.info)}
        count = float(pixels.shape[0] * pixels.shape[1])
    else:
        with Video(path) as video:
            pixels, info = video.at(0.0).pixels, video.info
        known = {
            "compression": {"format": info.codec},
            "metadata": {"sound": float(info.has_audio), "rate": info.rate or 0.0},
        }
        count = info.width * info.height * max((info.duration or 0) * (info.rate or 0), 1)
    known["compression"] |= {"bytes": float(np.log(path.stat().st_size / count))}
    return pixels, known


def _tables(image: Any) -> Facts:
    """Format, and of a JPEG how coarse it is, how its colours are sampled, and whose tables."""
    known: Facts = {"format": image.format or ""}
    tables = getattr(image, "quantization", None)
    if image.format != "JPEG" or not tables:
        return known
    luma, *colours = ([float(step) for step in tables[key]] for key in sorted(tables))
    known |= {
        "luma steps": float(np.log(np.mean(luma))),
        "colour steps": float(np.log(np.mean(colours))) if colours else 0.0,
        "tables": hashlib.sha256(repr(sorted(tables.items())).encode()).hexdigest()[:8],
        "sampling": str(JpegImagePlugin.get_sampling(image)),
        "progressive": float("progressive" in image.info),
    }
    return known


def _extras(info: Mapping[Any, Any]) -> Facts:
    """Which kinds of metadata a picture has."""
    return {str(key): 1.0 for key in info if str(key) not in ("jfif_unit", "progression")}


def _named(path: Path) -> dict[str, Facts]:
    """What a name says without being read: lengths, digits, and the pattern of letters."""
    stem = path.stem
    length = max(len(stem), 1)
    name: Facts = {
        "length": float(len(stem)),
        "digits": sum(char.isdigit() for char in stem) / length,
        "capitals": sum(char.isupper() for char in stem) / length,
        "signs": sum(not char.isalnum() for char in stem) / length,
        "suffix": path.suffix,
        "pattern": re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", stem)),
        "beginning": re.split(r"[\W\d_]", stem)[0],
    }
    folders = {f"folder {i}": part for i, part in enumerate(path.parent.parts)}
    return {"name": name, "folder": {"depth": float(len(folders)), **folders}}


def _size(pixels: Pixels) -> Facts:
    height, width = pixels.shape[:2]
    return {
        "width": float(np.log(width)),
        "height": float(np.log(height)),
        "shape": float(np.log(width / height)),
        "square": float(width == height),
        "sixteens": float(width % 16 == 0) + float(height % 16 == 0),
        "exactly": f"{width}x{height}",
    }


def _blocks(pixels: Pixels, face: Face) -> float:
    """How visible blocks are, in [0, 1]."""
    [[measured]] = quality.measure([pixels], [[face]])
    return measured.quality.compression if measured.quality else 0.0


def _place(pixels: Pixels, face: Face | None) -> Facts:
    """Where the face is in the picture, and how large."""
    if face is None:
        return {"found": 0.0}
    height, width = pixels.shape[:2]
    x, y = (face.box[:2] + face.box[2:]) / 2 / [width, height]
    wide, high = face.box[2:] - face.box[:2]
    return {
        "found": 1.0,
        "size": float(np.log(max(face.size, 1))),
        "share": float(face.size / min(height, width)),
        "x": float(x),
        "y": float(y),
        "shape": float(np.log(max(wide, 1) / max(high, 1))),
    }


def _made_up(region: Region, template: str) -> Facts:
    """How much of a crop lies beyond the region, on each side, in shares of the crop's."""
    image_from_crop = invert(crop_from_faces([region.face], template, 1))[0]
    corners = apply(image_from_crop, np.array([[0.0, 0.0], [1, 0], [0, 1], [1, 1]]))
    first, last = corners.min(axis=0), corners.max(axis=0)
    height, width = region.pixels.shape[:2]
    before = np.maximum(0 - first, 0) / (last - first)
    after = np.maximum(last - [width, height], 0) / (last - first)
    sides = ("left", "above", "right", "below")
    return {side: float(share) for side, share in zip(sides, (*before, *after), strict=True)}


def _background(pixels: Pixels, face: Face | None) -> Facts:
    """Mean and spread of each colour, and of detail from fine to coarse, outside of the face."""
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = (
        (width * _RING, height * _RING, width * (1 - _RING), height * (1 - _RING))
        if face is None
        else face.box
    )
    outside = np.ones((height, width), bool)
    outside[max(int(y0), 0) : max(int(y1), 0), max(int(x0), 0) : max(int(x1), 0)] = False
    if not outside.any():  # the face fills the picture
        return {"none": 1.0}
    known: Facts = {"none": 0.0}
    for colour, plane in zip("rgb", np.moveaxis(pixels, 2, 0), strict=True):
        seen = plane[outside]
        known |= {f"{colour} mean": float(seen.mean()), f"{colour} spread": float(seen.std())}
    finer: NDArray[Any] = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    for sigma in (1.0, 2.0, 4.0):
        coarser = cv2.GaussianBlur(finer, (0, 0), sigma)
        known[f"detail {sigma:.0f}"] = float(np.log((finer - coarser)[outside].std() + 0.1))
        finer = coarser
    return known


def _largest(images: Sequence[Pixels], locator: Locator | None) -> list[Face | None]:
    """The largest face of each picture, where one is found."""
    if locator is None:
        return [None] * len(images)
    return [faces[0] if faces else None for faces in locate(images, locator)]
