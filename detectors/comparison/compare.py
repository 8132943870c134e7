"""Compare two files: gather what each is, how they lie to each other, and what differs.

Comparing tells that two files share a source. It does not tell which of them came first.
"""

from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import torch

from detectors.comparison import wording
from detectors.comparison.detail import ComparisonPictures, look
from detectors.comparison.model import SCHEMA, Comparison, Side
from detectors.comparison.place import place
from detectors.comparison.source import find
from detectors.evidence import read_facts, read_provenance, read_watermark
from detectors.faces import Finder
from detectors.report.compare import render
from facekit import __version__
from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.media.decode import probe
from facekit.media.images import require_file

_SMALLEST_FACE = 40  # pixels


def compare(a: Path, b: Path, *, device: torch.device, out: Path | None = None) -> Comparison:
    """Compare two pictures, two videos, or a picture and a video.

    Args:
        a: a file; what is said of places is said in its pixels.
        b: another.
        device: where faces are located.
        out: a folder for ``comparison.json`` and ``comparison.html``; None writes nothing.

    Raises:
        FacekitError: if a file cannot be read, changes meanwhile, or ``out`` cannot be written.
    """
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FacekitError(f"--out {out}: cannot be made ({error.strerror})") from error
    comparison, pictures = compared(a, b, device=device)
    if out is not None:
        files.write_json(out / "comparison.json", comparison.to_json())
        files.write_text(out / "comparison.html", render(comparison, pictures))
    return comparison


def compared(a: Path, b: Path, *, device: torch.device) -> tuple[Comparison, ComparisonPictures]:
    """As :func:`compare`, with the pictures for a page; nothing is written."""
    states = [_state(path) for path in (a, b)]
    with progress(f"Comparing {a.name} and {b.name}", None) as advance:
        advance(0, "files")
        one, two = _side(a), _side(b)
        advance(0, "alignment")
        found = find(one, two)
        advance(0, "differences")
        details, moments, pictures = look(found, Finder(device, _SMALLEST_FACE))
    for path, state in zip((a, b), states, strict=True):
        if _state(path) != state:
            raise FacekitError(f"{path}: changed while it was read; compare it again")
    lies = None if found.shared is None else place(found.shared, one.facts, two.facts)
    time = None if found.shared is None else found.time
    comparison = Comparison(
        schema=SCHEMA,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        a=one,
        b=two,
        source=found.source(),
        place=lies,
        time=time,
        details=details,
        moments=moments,
        changes=[
            *wording.of_place(lies),
            *wording.of_time(one, two, time),
            *wording.of_picture(details, moments),
            *wording.of_file(one, two),
        ],
        limits=list(wording.LIMITS),
        versions={
            "facekit": __version__,
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            "torch": torch.__version__,
        },
    )
    return comparison, pictures


def _side(path: Path) -> Side:
    info = probe(path)
    facts, _ = read_facts(path, info, details=True)
    return Side(
        name=path.name,
        path=str(path),
        facts=facts,
        watermark=read_watermark(path),
        provenance=read_provenance(path),
    )


def _state(path: Path) -> tuple[int, int]:
    require_file(path)
    found = path.stat()
    return found.st_size, found.st_mtime_ns
