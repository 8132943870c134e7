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
from detectors.regions import locate
from facekit import watermark
from facekit.core.errors import FacekitError
from facekit.core.figures import Figure
from facekit.core.progress import progress
from facekit.faces import quality
from facekit.faces.locate import Locator, load_locator
from facekit.media.decode import Video
from facekit.media.images import is_image, opened, read_image, require_file
from facekit.types import Face, Pixels

log = logging.getLogger("facekit")

Facts = dict[str, float | str]
"""What is known of one picture: numbers, and texts, each of which is a feature of its own."""

SAYS = {
    "shortcut.size": "width, height and shape of the picture",
    "shortcut.compression": "format, bytes a pixel, tables of the JPEG, visible blocks",
    "shortcut.metadata": "EXIF, colour profile, resolution: that they are there, not what they say",
    "shortcut.mark": "facekit's watermark: whether there is one, and its kind",
    "shortcut.name": "the file's own name: its length, digits, pattern, suffix",
    "shortcut.folder": "the names of the folders that the file lies in",
    "shortcut.face": "size and place of the face in the picture",
    "shortcut.background": "colours and fine detail of what is around the face",
}
"""Name of a figure → what it goes by."""

_REMEDIES = {
    "shortcut.size": "bring both classes to the same sizes before anything learns or is measured",
    "shortcut.compression": "compress both classes anew, at random, by the same code",
    "shortcut.metadata": "read pixels alone",
    "shortcut.mark": "mark as large a share of the other class",
    "shortcut.name": "harmless to a network that sees pixels; let no other code go by names",
    "shortcut.folder": "harmless to a network that sees pixels; data sets are kept in such folders",
    "shortcut.face": "cut both classes by the same rule, at sizes drawn at random",
    "shortcut.background": "test on forgeries beside the very pictures that they were made from",
}

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


def audit_faces(face_set: FaceSet, *, seed: int = 0) -> list[Figure]:
    """What comes with faces as a network is shown them.

    Args:
        face_set: after ``detectors.data.befallen``, or as whoever is audited shows them.
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
                "size": _size(region.pixels),
                "compression": {"blocks": _blocks(region.pixels, region.face)},
                "mark": {"present": float(marked), "kind": kind},
                "face": _place(region.pixels, region.face),
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
    """A sentence on each figure of an audit: what it goes by, and what a high value means."""
    lines = []
    for row in figures:
        says, remedy = SAYS[row.name], _REMEDIES[row.name]
        value = f"{row.name} {row.value:.2f}"
        if row.low is None or row.high is None or row.low <= _CLEAR:
            lines.append(f"{value}: {says} tell little or nothing")
        elif row.value > _SURE:
            lines.append(
                f"{value}: {says} alone tell the classes apart, so whatever is learnt or measured "
                f"here may be no more than that; {remedy}"
            )
        else:
            lines.append(f"{value}: {says} give part of the classes away; {remedy}")
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
