"""The synthetic certificate: these files show people who do not exist, and anyone can check it.

``certificate.json`` names the seeds and the SHA-256 of every file. That alone could be written
beside any photo; so :func:`verify` renders items again from the seeds, and they must match what
the files show. Which ones is drawn from the certificate's own content: to ask again is to get the
same answer.
"""

import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from facekit.core import files
from facekit.core.config import Config, validate
from facekit.core.errors import FacekitError
from facekit.studio import labels
from facekit.studio.degrade import chosen
from facekit.studio.performance import Performance, performance_seed
from facekit.studio.person import Person, person_seed
from facekit.studio.render import Render, render
from facekit.types import CERTIFICATE as CERTIFICATE
from facekit.types import MANIFEST, Item, Pixels, read_manifest

STUDIO_VERSION = 2
"""Raise it when the same seeds give other pictures."""

LEAST_PSNR = 40.0
"""Decibels that a picture or a clip's frame must reach against its re-rendering.

The studio's own pictures are identical. Frames of clips, at ``CLIP_CRF`` and by
:func:`video_psnr`, reach 43 under the heaviest noise and 45 to 52 otherwise; those of another
person in the same performance stay below 25, real videos below 15.
"""

CLIP = "clip.mp4"
CLIP_CRF = 10

_PARTIAL = re.compile(r"\..+\.\d+\.part(\..+)?")
"""What :func:`facekit.core.files.replacing` leaves if it is killed."""


@dataclass(frozen=True)
class Certificate:
    """What a folder's certificate says.

    Attributes:
        id: also the ``consent`` of each item in the manifest.
        folder: where it lies.
        kind: a folder of photos, or one clip.
        arguments: what it was rendered with.
        seed: of people and performances.
        people: seeds of the people, by subject.
        files: path → SHA-256.
        studio: version of the studio.
        checked: paths that were rendered again (frames of a clip by time).
    """

    id: str
    folder: Path
    kind: Literal["folder", "clip"]
    arguments: dict[str, Any]
    seed: int
    people: dict[str, int]
    files: dict[str, str]
    studio: int
    checked: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON values, for ``--json``."""
        return asdict(self) | {"folder": str(self.folder), "checked": list(self.checked)}


class FolderPlan(Config):
    """What a folder of photos is rendered from: the arguments of its certificate."""

    people: int
    frames: int
    size: int
    seed: int
    format: Literal["png", "jpg", "webp"] = "png"
    degrade: str = "none"
    truth: str = ""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which truth lies beside each picture."""
        return tuple(self.truth.split(","))


class ClipPlan(Config):
    """The same of a clip."""

    person_seed: int
    seconds: float
    rate: float
    size: int
    seed: int
    format: Literal["mp4", "png"] = "mp4"
    degrade: str = "none"
    truth: str = ""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which truth lies beside each frame."""
        return tuple(self.truth.split(","))


def frame_name(index: int, suffix: str) -> str:
    """Where a clip's frame lies within the clip's folder: it, and the truth about it."""
    return f"frames/{index:05d}{suffix}"


class _Content(Config):
    """The file itself."""

    id: str = Field(min_length=8, max_length=64)
    studio: int
    kind: Literal["folder", "clip"]
    arguments: dict[str, int | float | str]
    seed: int
    people: dict[str, int]
    files: dict[str, str]
    statement: str


def certify(folder: Path, *, kind: str, arguments: dict[str, Any], identifier: str) -> Certificate:
    """Write ``certificate.json`` for a folder that the studio has just rendered."""
    items = read_manifest(folder)
    content = {
        "id": identifier,
        "studio": STUDIO_VERSION,
        "kind": kind,
        "arguments": arguments,
        "seed": arguments["seed"],
        "people": {item.subject: item.facts["person_seed"] for item in items},
        "files": _listed(items) | {MANIFEST: files.sha256(folder / MANIFEST)},
        "statement": "The people in these files do not exist; facekit's studio rendered them.",
    }
    files.write_json(folder / CERTIFICATE, content)
    (folder / "studio.json").unlink(missing_ok=True)
    return read(folder)


def read(folder: Path) -> Certificate:
    """Read a folder's certificate without checking what it says.

    Raises:
        FacekitError: if it is missing, not JSON, or not a certificate.
    """
    path = folder / CERTIFICATE
    if not path.is_file():
        raise FacekitError(
            f"{folder}: no {CERTIFICATE}; only folders made by 'facekit studio' have one"
        )
    values = files.read_json(path)
    if not isinstance(values, dict):
        raise FacekitError(f"{path}: not a certificate (not a JSON object)")
    content = validate(values, _Content, path)
    return Certificate(
        id=content.id,
        folder=folder,
        kind=content.kind,
        arguments=dict(content.arguments),
        seed=content.seed,
        people=content.people,
        files=content.files,
        studio=content.studio,
    )


def verify(path: Path, *, samples: int = 0) -> Certificate:
    """Check a studio folder (or a file in it) against its certificate.

    The folder must hold what is listed, with its hashes, and nothing else. What is rendered again:

    - of a picture given as ``path``: that picture;
    - of a folder of photos: one of each person, and 5% or 6 of all;
    - of a clip: the first frame, the last, and one of each further tenth or so: 10%, at least 8.

    What the studio did afterwards, degradation and compression, is done to the rendering too, and
    the facts in the manifest and the truth beside a picture are compared as well.

    So a picture that was replaced never passes when it is given itself, nor does a folder in which
    all pictures of one person were. Of a folder or clip in which a share q was replaced, a forged
    certificate passes with a chance of about (1 - q)^n, n being the number of items rendered; and
    who forges many, each time changing something, can wait for one that does.

    Args:
        path: a folder, or a file that its certificate lists.
        samples: render at least so many items.

    Raises:
        FacekitError: with the first thing that does not match.
    """
    folder = _folder_of(path)
    found = read(folder)
    if found.studio != STUDIO_VERSION:
        raise FacekitError(
            f"{folder}: rendered by studio version {found.studio}; this is {STUDIO_VERSION}, "
            "which cannot check it; render the folder again"
        )
    check_files(folder, found)
    items = read_manifest(folder)
    if _listed(items) | {MANIFEST: found.files.get(MANIFEST, "")} != found.files:
        raise FacekitError(f"{folder}: {MANIFEST} and {CERTIFICATE} do not list the same files")
    if not items:
        raise FacekitError(f"{folder}: the certificate lists no pictures")
    names = [item.path for item in items]
    if not path.is_dir():
        # Resolved: a link inside the folder must not make a file outside look like one of its own.
        real, home = path.resolve(), folder.resolve()
        name = real.relative_to(home).as_posix() if real.is_relative_to(home) else ""
        names = [item.path for item in items if name in _listed([item])]
        if not names:
            raise FacekitError(f"{path}: is not listed in the certificate of {folder}")
    check = _check_clip if found.kind == "clip" else _check_folder
    checked = check(folder, found, items, names, samples)
    return Certificate(**{**_shallow(found), "checked": tuple(checked)})


def _listed(items: list[Item]) -> dict[str, str]:
    """Path → SHA-256 of all that the manifest names: pictures, and the truth beside them."""
    found: dict[str, str] = {}
    for item in items:
        found[item.path] = item.sha256
        frames = item.facts.get("frames")
        for frame in [item.facts, *(frames if isinstance(frames, list) else [])]:
            found |= labels.listed(frame)
    return found


def _shallow(found: Certificate) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Certificate.__dataclass_fields__}


def _folder_of(path: Path) -> Path:
    if not path.exists():
        raise FacekitError(f"{path}: no such file or folder")
    folder = path if path.is_dir() else path.parent
    # Of "." the parent is "." again.
    above = folder.parent if folder.name else folder.absolute().parent
    for candidate in (folder, above):
        if (candidate / CERTIFICATE).is_file():
            return candidate
    raise FacekitError(f"{path}: no {CERTIFICATE} beside it; only studio folders have one")


def check_files(folder: Path, found: Certificate) -> None:
    """See that a folder holds what its certificate lists, unchanged, and nothing else.

    Raises:
        FacekitError: with the first file that is missing, changed, or not listed.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise FacekitError(f"{path}: is a link; a certified folder holds its files themselves")
        known = name in found.files or name == CERTIFICATE or _PARTIAL.fullmatch(path.name)
        if not path.is_dir() and not known:
            raise FacekitError(f"{path}: is not listed in the certificate; take it out")
    for name, digest in found.files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise FacekitError(f"{folder / CERTIFICATE}: '{name}' lies outside the folder")
        if not path.is_file():
            raise FacekitError(f"{path}: is listed in the certificate, but missing")
        if files.sha256(path) != digest:
            raise FacekitError(f"{path}: was changed after it was certified (SHA-256 differs)")


def _order(found: Certificate) -> Callable[[object], bytes]:
    """A sort key that puts things in an order that follows from all that the certificate says."""
    content = json.dumps([found.seed, found.arguments, found.files], sort_keys=True).encode()
    seed = hashlib.sha256(content).digest()
    return lambda thing: hashlib.sha256(seed + str(thing).encode()).digest()


def _draw_pictures(found: Certificate, names: list[str], samples: int) -> list[str]:
    """One of each person, then others up to the number."""
    order = sorted(names, key=_order(found))
    first = {name.split("/")[0]: name for name in reversed(order)}
    drawn = list(first.values())
    count = min(max(samples, 6, math.ceil(0.05 * len(names))), len(names))
    rest = [name for name in order if name not in drawn]
    # Sorted, because a person's skin is painted but once for pictures in a row.
    return sorted(drawn + rest[: max(count - len(drawn), 0)])


def _draw_frames(found: Certificate, frames: int, samples: int) -> list[int]:
    """The first, the last, and one of each of as many equal stretches between as are needed."""
    count = min(max(samples, 8, math.ceil(0.1 * frames)), frames)
    if count == frames:
        return list(range(frames))
    inner = count - 2
    bounds = [1 + i * (frames - 2) // inner for i in range(inner + 1)]
    order = _order(found)
    between = [min(range(a, b), key=order) for a, b in pairwise(bounds)]
    return [0, *between, frames - 1]


def _check_folder(
    folder: Path, found: Certificate, items: list[Item], names: list[str], samples: int
) -> list[str]:
    plan = validate(found.arguments, FolderPlan, f"{folder / CERTIFICATE}, arguments")
    # The count first: a forged certificate may ask for billions.
    if len(items) != plan.people * plan.frames:
        raise FacekitError(f"{folder}: the files are not those that its certificate's seeds give")
    expected = {
        f"person-{i:04d}/{j:04d}.{plan.format}": (i, j)
        for i in range(plan.people)
        for j in range(plan.frames)
    }
    if {item.path for item in items} != set(expected):
        raise FacekitError(f"{folder}: the files are not those that its certificate's seeds give")
    given = {item.path: item.facts for item in items}
    drawn = names if len(names) == 1 else _draw_pictures(found, names, samples)
    for name in drawn:
        person, frame = expected[name]
        moment = performance_seed(plan.seed, person, frame)
        shot = render(
            Person.sample(person_seed(plan.seed, person)), Performance.sample(moment), plan.size
        )
        degradation = chosen(plan.degrade, moment)
        truth = degradation.apply(shot.pixels) if degradation else shot.pixels
        _must_show(folder / name, truth)
        labels.require((folder / name).with_suffix(""), shot, plan.kinds, given[name])
    return drawn


def _check_clip(
    folder: Path, found: Certificate, items: list[Item], names: list[str], samples: int
) -> list[str]:
    plan = validate(found.arguments, ClipPlan, f"{folder / CERTIFICATE}, arguments")
    performances = Performance.clip(plan.seconds, plan.rate, plan.seed)
    count = len(performances)
    expected = [CLIP] if plan.format == "mp4" else [frame_name(i, ".png") for i in range(count)]
    if [item.path for item in items] != expected:
        raise FacekitError(f"{folder}: the files are not those that its certificate's seeds give")
    if names != expected:
        drawn = [expected.index(name) for name in names]
    else:
        drawn = _draw_frames(found, count, samples)
    shots = _shots(plan, performances, drawn)
    if plan.format == "mp4":
        given = items[0].facts.get("frames")
        if not isinstance(given, list) or len(given) != count:
            raise FacekitError(
                f"{folder / CLIP}: the manifest does not describe its {count} frames"
            )
        _check_video(folder / CLIP, given, drawn, shots, plan)
        return [f"{CLIP}#{index}" for index in drawn]
    for index, (shot, truth) in zip(drawn, shots, strict=True):
        _must_show(folder / expected[index], truth)
        labels.require(folder / frame_name(index, ""), shot, plan.kinds, items[index].facts)
    return [expected[index] for index in drawn]


def _check_video(
    path: Path,
    given: list[object],
    drawn: list[int],
    shots: Iterator[tuple[Render, Pixels]],
    plan: ClipPlan,
) -> None:
    from facekit.media.decode import Video

    shown = 0
    with Video(path) as video:
        for shown, frame in enumerate(video, start=1):
            if shown - 1 in drawn:
                shot, truth = next(shots)
                name = path.with_name(f"{path.name} at {frame.time:.2f} s")
                _must_match(name, frame.pixels, truth, video_psnr)
                stem = path.parent / frame_name(shown - 1, "")
                labels.require(stem, shot, plan.kinds, given[shown - 1])
    if shown != len(given):
        raise FacekitError(f"{path}: {shown} frames, but its seeds give {len(given)}")


def _shots(
    plan: ClipPlan, performances: list[Performance], drawn: list[int]
) -> Iterator[tuple[Render, Pixels]]:
    """The drawn frames rendered again, each with the picture that its file should show."""
    person = Person.sample(plan.person_seed)
    degradation = chosen(plan.degrade, plan.seed)
    if degradation is None or degradation.h264 is None:
        for index in drawn:
            shot = render(person, performances[index], plan.size)
            yield shot, degradation.apply(shot.pixels, index) if degradation else shot.pixels
        return
    # What H.264 makes of a frame depends on those about it.
    kept: dict[int, Render] = {}

    def film() -> Iterator[Pixels]:
        for index, performance in enumerate(performances):
            shot = render(person, performance, plan.size)
            if index in drawn:
                kept[index] = shot
            yield shot.pixels

    for index, pixels in enumerate(degradation.apply_clip(film())):
        if index in drawn:
            yield kept.pop(index), pixels


def psnr(a: Pixels, b: Pixels) -> float:
    """Peak signal-to-noise ratio of two pictures in dB; infinite where they are equal."""
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def video_psnr(a: Pixels, b: Pixels) -> float:
    """The same in the codec's own space: over all samples of yuv420p, in dB.

    What 4:2:0 takes from the colours is no difference between a frame and its video then.
    """
    first, second = _planes(a), _planes(b)
    error = float(np.mean((first.astype(np.float64) - second) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def _planes(pixels: Pixels) -> Pixels:
    import av
    from av.video.reformatter import Colorspace

    from facekit.media.decode import EXACT

    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
    yuv = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, interpolation=EXACT)
    return np.asarray(yuv.to_ndarray(), np.uint8)


def _must_show(path: Path, truth: Pixels) -> None:
    """Compare a picture's file with what the same encoder makes of its truth."""
    from PIL import Image

    from facekit.media.images import encode_image, read_image

    if path.suffix != ".png":
        truth = np.array(Image.open(io.BytesIO(encode_image(truth, path.suffix))))
    _must_match(path, read_image(path), truth, psnr)


def _must_match(
    path: Path, pixels: Pixels, truth: Pixels, measure: Callable[[Pixels, Pixels], float]
) -> None:
    height, width = truth.shape[:2]
    # An encoder may have padded odd sizes by a pixel.
    if not (0 <= pixels.shape[0] - height <= 1 and 0 <= pixels.shape[1] - width <= 1):
        raise FacekitError(f"{path}: is not of the size that its certificate says")
    value = measure(pixels[:height, :width], truth)
    if value < LEAST_PSNR:
        raise FacekitError(
            f"{path}: does not show what its seeds give when rendered again "
            f"(PSNR {value:.1f} dB, at least {LEAST_PSNR:.0f} expected); the certificate is not "
            "its own"
        )
