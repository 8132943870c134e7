"""What ``facekit generator run --photos`` does: check, watch the driver, move the photo, export."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facekit.commands.generator_convert import made_by
from facekit.commands.generator_sample import ENLARGED
from facekit.core.errors import FacekitError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lightning_fabric import Fabric

    from facekit.commands.generator_sample import Source
    from facekit.export import Corner, Exported
    from facekit.generators import Permit
    from facekit.motion import Animator, Cast, Controls, Motion
    from facekit.types import Floats, Frame, Item, Pixels

log = logging.getLogger("facekit")

MOST_PHOTOS = 32
"""Of more, so many are taken, evenly."""

_IDLE, _STUDIO = "idle:", "studio:"

AT_REST = f"{_IDLE}0"
"""The driver if none is asked for."""

_LENT = 8  # photos of each, of a folder that becomes a data set
_MOMENTS = 2.5  # a second, there
_LONGEST = 500  # seconds of a performance, there
_RATE = 25.0
_ACTED = "landmarks.json"


@dataclass(frozen=True)
class Driver:
    """What moves the photos.

    Attributes:
        name: as it was given.
        path: of a video or a track; None for a performance of the studio.
        seconds: of a performance.
    """

    name: str
    path: Path | None
    seconds: float

    @property
    def is_video(self) -> bool:
        """Whether it is one; else it is a track, or a performance."""
        return self.path is not None and self.path.suffix.lower() != ".json"

    @classmethod
    def parse(cls, name: str, seconds: float) -> "Driver":
        """The driver that a user names: a file, ``studio:SEED``, or ``idle:SEED``.

        Raises:
            FacekitError: for a stream's address, a pipe, a device, a file that is growing, or a
                picture.
        """
        from facekit import generators
        from facekit.media.decode import probe

        if name.startswith((_IDLE, _STUDIO)):
            return cls(name, None, seconds)
        driver = cls(name, generators.closed_file(name), seconds)
        if driver.is_video and driver.path and probe(driver.path).kind != "video":
            raise FacekitError(
                f"--driver {name}: a picture moves nothing; give a video, a track (.json), "
                f"{_STUDIO}SEED, or {_IDLE}SEED"
            )
        return driver

    def motion(self, fabric: "Fabric") -> "Motion":
        """What it does.

        Raises:
            FacekitError: if it shows no face, or is no track.
        """
        from facekit import motion
        from facekit.media.decode import Video
        from facekit.studio.performance import Performance

        if self.path is None:
            kind, _, seed = self.name.partition(":")
            if not seed.isdecimal():
                raise FacekitError(f"--driver {self.name}: give a seed, a whole number: {kind}:7")
            act = Performance.idle if self.name.startswith(_IDLE) else Performance.clip
            return motion.from_performances(act(self.seconds, _RATE, int(seed)))
        if not self.is_video:
            return motion.read_motion(self.path)
        with Video(self.path) as video:
            info = video.info
            total = round(info.duration * info.rate) if info.duration and info.rate else None
            try:
                return motion.from_track(motion.watch(video, device=fabric.device, total=total))
            except FacekitError as error:
                raise FacekitError(f"{self.path}: {error}") from error


@dataclass(frozen=True)
class Moved:
    """What :func:`move` wrote.

    Attributes:
        exported: the file.
        preview: photo, driver and result side by side, if that was wanted.
        photos: how many were used.
        frames: how many it has.
    """

    exported: "Exported"
    preview: "Exported | None"
    photos: int
    frames: int


def move(
    generator: str,
    photos: Path,
    out: Path,
    fabric: "Fabric",
    *,
    driver: str = AT_REST,
    seconds: float = 6.0,
    controls: "Controls | None" = None,
    consent: "Sequence[str]" = (),
    badge: "Corner" = "bottom-left",
    preview: Path | None = None,
) -> Moved:
    """Check that photos and driver may be used, make the photo move, and export that to ``out``.

    If it is interrupted, the same call goes on where it was.

    Args:
        generator: a run's folder or the name of bundled weights.
        photos: a photo, or a folder of photos of one person; the first one moves.
        out: to write to, .mp4.
        fabric: where and how precisely to compute.
        driver: a closed video file, a track (.json; see :mod:`facekit.motion.track_file`),
            ``studio:SEED``, or ``idle:SEED``.
        seconds: of a performance of the studio, or of idle motion.
        controls: where each part of the motion comes from; all from the driver by default.
        consent: ids of the consent records of everyone in real photos and in a real driver.
        badge: the corner in which the word "synthetic" stands.
        preview: also write photo, driver and result side by side, to this file.

    Raises:
        FacekitError: if photos or driver are live, growing, neither certified nor covered by
            consent, or show no face that can be used; or if the generator moves no photos. Then
            there is no file.
    """
    from facekit import export, generators
    from facekit.commands import generator_sample
    from facekit.media.decode import Video
    from facekit.media.images import read_image
    from facekit.media.stretches import Stretches
    from facekit.motion import Controls, Unfit, cast_of

    for file in filter(None, (out, preview)):
        if file.suffix.lower() != ".mp4":
            raise FacekitError(f"{file}: a moving photo is written as .mp4")
    if preview is not None and preview.resolve() == out.resolve():
        raise FacekitError(f"--preview {preview}: is --out as well; give two names")
    source = generator_sample.opened(generator)
    chosen = _photos(photos)
    moving = Driver.parse(driver, seconds)
    for file in filter(None, (out, preview)):
        export.require_apart(file, [*chosen, *([moving.path] if moving.path else [])])
    by = generators.animator(source.opened, fabric, plugin=source.plugin)
    groups = [chosen, [moving.path]] if moving.path and moving.is_video else [chosen]
    with Stretches.kept_if_allowed(out):
        given = generators.admit_together(groups, consent, fabric.device)

    pictures = (read_image(path) for path in chosen)
    unfit: Unfit = "leave out" if photos.is_dir() else "refuse"
    cast = cast_of(pictures, by.size, fabric.device, names=chosen, unfit=unfit)
    for reason in cast.left_out:
        log.info("left out: %s", reason)
    side = max(by.size, ENLARGED)
    terms: dict[str, Any] = {
        "kind": generators.load(source.plugin).KIND,
        "inputs": {path: digest for permit in given for path, digest in permit.files.items()},
        "facts": _facts(source, given) | {"photos": len(cast), **_said(moving)},
        "id": generators.mark_id(source.opened, *given),
        "consent": sorted({*source.records, *(id for one in given for id in one.records)}),
        "badge": badge,
    }
    controls = controls or Controls()
    made_from = {
        **made_by(source.opened, fabric),
        "weights": source.weights,
        "records": sorted(source.records),
        "inputs": sorted(terms["inputs"].values()),
        "order": [terms["inputs"][path] for path in chosen],
        **{"driver": driver, "seconds": seconds, "badge": badge, "controls": asdict(controls)},
        "moved by": _said(moving),
    }
    rate, audio = _rate_and_audio(moving)
    with Stretches(out, made_from, size=(side, side)) as stretches:
        landmarks, times = _acted(stretches, cast, moving, controls, fabric)
        first = stretches.first
        frames = generators.drive(
            source.opened, by, cast, landmarks, times, given=given, first=first
        )
        exported = export.write_video(
            out,
            _shown(frames, side, first, len(times)),
            rate=rate,
            audio_from=audio,
            stretches=stretches,
            **terms,
        )
        # Before the stretches go: who is interrupted here does not begin anew.
        shown = None
        if preview is not None:
            with Video(out) as result:
                beside = _beside(cast.pixels[0], moving, result)
                shown = export.write_video(preview, beside, rate=rate, audio_from=audio, **terms)
    return Moved(exported, shown, len(cast), len(times))


def move_folder(
    generator: str,
    data: Path,
    out: Path,
    fabric: "Fabric",
    *,
    consent: "Sequence[str]" = (),
) -> int:
    """Move everybody of a folder, and make a labelled data set of it.

    Each photo lies in it twice: untouched, and as the person's first photos make it when a
    performance of the studio moves them. Of these, photos in profile or covered are passed over;
    people with no other are left out.

    Args:
        generator: a run's folder or the name of bundled weights.
        data: a certified studio folder, or photos under consent.
        out: the data set's folder, without a manifest so far.
        fabric: where and how precisely to compute.
        consent: ids of the consent records of everyone in real photos.

    Returns:
        The number of moved pictures, and so of originals.

    Raises:
        FacekitError: if the generator or the folder may not be used, or nobody could be moved; or
            if ``out`` holds a data set.
    """
    from facekit import generators
    from facekit.commands import generator_sample
    from facekit.commands.generator_dataset import growing
    from facekit.core.progress import progress
    from facekit.datasets.crops import is_video, read_item
    from facekit.motion import cast_of
    from facekit.types import MANIFEST, write_manifest

    if (out / MANIFEST).exists():
        raise FacekitError(f"{out}: holds a data set already; give another --out, or remove it")
    source = generator_sample.opened(generator)
    by = generators.animator(source.opened, fabric, plugin=source.plugin)
    given = generators.admit_folder(data, consent, fabric.device)
    of_each: dict[str, list[Item]] = {}
    for item in given.items:
        if not is_video(item):
            of_each.setdefault(item.subject, []).append(item)
    rows: list[Item] = []
    with (
        growing(out, {"generator": source.plugin, "data": given.data_hash}),
        progress("moving people", len(of_each)) as advance,
    ):
        for number, (name, mine) in enumerate(sorted(of_each.items())):
            pictures = (read_item(data, item) for item in mine[:_LENT])
            names = [item.path for item in mine[:_LENT]]
            try:
                cast = cast_of(pictures, by.size, fabric.device, names=names, unfit="leave out")
            except FacekitError as error:
                log.info("%s is left out: %s", name, error)
            else:
                rows += _moved(source, by, given, data, mine, cast, out, number)
            advance(number + 1, name)
        if not rows:
            raise FacekitError(f"{data}: nobody in it could be moved; the log says why")
        write_manifest(out, rows)
    return len(rows) // 2


def _moved(
    source: "Source",
    by: "Animator",
    given: "Permit",
    data: Path,
    items: "Sequence[Item]",
    cast: "Cast",
    out: Path,
    number: int,
) -> "list[Item]":
    """Write a person's photos, and as many pictures of them moved; the rows of both."""
    from facekit import generators
    from facekit.commands.generator_dataset import write_pair
    from facekit.motion import act, from_performances
    from facekit.studio.performance import Performance

    # Moments some way apart, so that they differ; of very many photos nearer to each other.
    rate = max(_MOMENTS, len(items) / _LONGEST)
    motion = from_performances(Performance.clip(len(items) / rate, rate, number))
    landmarks = act(cast.sitters[0], motion)[: len(items)]
    frames = generators.drive(
        source.opened, by, cast, landmarks, list(motion.times[: len(items)]), given=[given]
    )
    terms = {
        "kind": generators.load(source.plugin).KIND,
        "inputs": {data / item.path: item.sha256 for item in items[:_LENT]},
        "facts": _facts(source, [given]),
        "id": generators.mark_id(source.opened, given),
        "consent": sorted({*source.records, *given.records}),
    }
    side = max(by.size, ENLARGED)
    rows: list[Item] = []
    for item, frame in zip(items, _shown(frames, side, 0, len(items)), strict=True):
        rows += write_pair(
            data,
            item,
            out / f"{number:04d}-{frame.index:05d}-head.png",
            frame.pixels,
            generator=source.plugin,
            facts={},
            terms=terms,
        )
    return rows


def show(moved: Moved, as_json: bool) -> None:
    """Print what was done."""
    import json

    exported = moved.exported
    publish = exported.provenance.claims["facts"]["publish"]
    if as_json:
        facts = {
            "path": str(exported.path),
            "preview": str(moved.preview.path) if moved.preview else None,
            "photos": moved.photos,
            "frames": moved.frames,
            "mark": exported.reading.to_json(),
            "provenance": exported.provenance.status,
            "publish": publish,
        }
        click.echo(json.dumps(facts, indent=2, default=str))
        return
    photos = "1 photo" if moved.photos == 1 else f"{moved.photos} photos"
    click.echo(
        f"{exported.path}: {moved.frames} frames from {photos}, marked as "
        f"{exported.reading.kind}, manifest signed"
    )
    if moved.preview:
        click.echo(f"{moved.preview.path}: photo, driver and result side by side")
    if not publish:
        click.echo("keep it to yourself: not everyone shown has consented to 'publish'")


def _photos(path: Path) -> list[Path]:
    """The photos that are meant, the one that will move first."""
    import numpy as np

    from facekit.media.find import VIDEO_SUFFIXES, find_media
    from facekit.media.images import require_file

    found = [p for p in find_media([path]) if p.suffix.lower() not in VIDEO_SUFFIXES]
    if not found:
        raise FacekitError(f"--photos {path}: holds no photos; give a photo, or a folder of some")
    for photo in found:
        require_file(photo)  # no pipe, no device
    if len(found) > MOST_PHOTOS:
        log.info("%s: %d of its %d photos are used", path, MOST_PHOTOS, len(found))
        places = np.linspace(0, len(found) - 1, MOST_PHOTOS).round().astype(int)
        found = [found[i] for i in places]
    return found


def _acted(
    stretches: Any, cast: "Cast", driver: Driver, controls: "Controls", fabric: "Fabric"
) -> "tuple[Floats, list[float]]":
    """The landmarks that are to be drawn, and the frames' times; kept beside the stretches."""
    import numpy as np

    from facekit.motion import act

    kept = stretches.read(_ACTED)
    if kept is None:
        motion = driver.motion(fabric)
        landmarks = act(cast.sitters[0], motion, controls)
        kept = {"times": motion.times.tolist(), "landmarks": landmarks.astype(float).tolist()}
        stretches.write(_ACTED, kept)
    return np.array(kept["landmarks"], np.float32), kept["times"]


def _shown(frames: "Iterable[Frame]", side: int, first: int, total: int) -> "Iterator[Frame]":
    """The frames, enlarged, with a progress bar."""
    import cv2
    import numpy as np

    from facekit.core.progress import progress
    from facekit.types import Frame

    with progress("moving the photo", total) as advance:
        for number, frame in enumerate(frames, start=first):
            pixels = frame.pixels
            if len(pixels) != side:
                enlarged = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_CUBIC)
                pixels = np.asarray(enlarged, np.uint8)
            advance(number + 1, "")
            yield Frame(pixels, frame.time, number)


def _beside(photo: "Pixels", driver: Driver, result: "Iterable[Frame]") -> "Iterator[Frame]":
    """The photo, the driver's frame where that is a video, and the result, each as high."""
    from contextlib import nullcontext
    from itertools import repeat

    import cv2
    import numpy as np

    from facekit.media.decode import Video
    from facekit.motion.watch import in_time
    from facekit.types import Frame

    opened: Any = Video(driver.path) if driver.is_video and driver.path else nullcontext()
    with opened as video:
        moved_by = repeat(None) if video is None else in_time(video)
        for frame, other in zip(result, moved_by, strict=False):
            height = len(frame.pixels)
            parts = [photo, *([other.pixels] if other is not None else []), frame.pixels]
            columns = []
            for part in parts:
                width = max(2, round(part.shape[1] * height / part.shape[0] / 2) * 2)
                columns.append(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA))
            yield Frame(np.hstack(columns).astype(np.uint8), frame.time, frame.index)


def _facts(source: "Source", given: "Sequence[Permit]") -> dict[str, Any]:
    """What the manifest says of the consent to a file; records' ids, which it hashes, apart."""
    origins = {permit.origin for permit in given} | {source.facts["origin"]}
    certificates = {permit.certificate for permit in given} | {source.certificate}
    return {
        **source.facts,
        "origin": origins.pop() if len(origins) == 1 else "consent",
        "certificates": sorted(certificates - {""}),
        "publish": source.facts["publish"] and all(one.covers("publish") for one in given),
    }


def _said(driver: Driver) -> dict[str, str]:
    """What the manifest says of the driver: its kind, no name, and a track's hash."""
    from facekit.core import files

    if driver.path is None:
        return {"driver": "idle" if driver.name.startswith(_IDLE) else "performance"}
    if driver.is_video:
        return {"driver": "video"}
    return {"driver": "track", "track": files.sha256(driver.path)}


def _rate_and_audio(driver: Driver) -> tuple[float, Path | None]:
    from facekit.media.decode import probe

    if not (driver.is_video and driver.path):
        return _RATE, None
    info = probe(driver.path)
    return info.rate or _RATE, driver.path if info.has_audio else None
