"""The true answers of face swaps: clips of studio people, and who they would be in them.

A swap of two real people has no right answer to be compared with. Studio people can give the very
same performance: what a swap of A into a clip of B should show is A in B's performance, camera and
light. Both faces are compared as aligned crops: a swap puts A's face where B's is.

``configs/evaluations/swap_truth.yaml`` is the protocol; ``docs/swap_truth.md`` explains it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import count, islice, pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from facekit.core import checkpoint, config, files
from facekit.core.errors import FacekitError
from facekit.core.progress import progress
from facekit.datasets.manifest import load_folder
from facekit.faces.align import Matrices, apply, crop_from_image, draw_crop, invert
from facekit.faces.landmarks import mean_face_points
from facekit.media.images import read_image, size_of
from facekit.studio.certificate import STUDIO_VERSION
from facekit.studio.clip import render_clip, render_folder
from facekit.studio.performance import Performance, performance_seed
from facekit.studio.person import Person, person_seed
from facekit.studio.pool import render_frames
from facekit.studio.render import Render
from facekit.studio.truth import flow
from facekit.types import Floats, Item, Pixels

PROTOCOL = "evaluations/swap_truth"
TEMPLATE = "face"

_AHEAD = 15  # degrees, of the gallery's portraits
_ALIGNED = "by landmarks"  # how; what was kept when it was another way is not taken for this


class Protocol(config.Config):
    """What is rendered and compared.

    Attributes:
        studio: version of the studio whose people these are.
        pairs: folder seeds, each of two people.
        photos: of each person, to learn from.
        clips: of each pair; who is swapped into whom changes from clip to clip.
        frames: of each clip.
        rate: frames a second.
        seed: of the performances.
        size: side of the frames, in pixels.
        crop: side of the aligned faces that are compared, in pixels.
        gallery: people among whom a judge looks for the source, source and target included.
        portraits: photos of each of them.
    """

    studio: int = STUDIO_VERSION
    pairs: list[int] = Field(min_length=1)
    photos: int = Field(200, ge=2)
    clips: int = Field(24, ge=1, le=500)
    frames: int = Field(25, ge=2, le=1000)
    rate: float = Field(25, ge=1, le=120)
    seed: int = Field(0, ge=0)
    size: int = Field(256, ge=64, le=1024)
    crop: int = Field(128, ge=32, le=512)
    gallery: int = Field(100, ge=3, le=1000)
    portraits: int = Field(2, ge=1)


@dataclass(frozen=True)
class Photo:
    """A photo that a swap may learn from, with the studio's points.

    Attributes:
        path: of the file.
        sha256: of its bytes.
        points: float32 (5, 2), the mean face's, laid on the landmarks.
        landmarks: float32 (70, 2).
    """

    path: Path
    sha256: str
    points: Floats
    landmarks: Floats

    def read(self) -> Pixels:
        """Its pixels, uint8 (H, W, 3).

        Raises:
            FacekitError: if it was changed since.
        """
        return _read_photo(self.path, self.sha256)


@dataclass(frozen=True)
class Actor:
    """Somebody who plays in the clips.

    Attributes:
        name: of the person in their folder.
        person: who it is.
        photos: of theirs.
    """

    name: str
    person: Person
    photos: tuple[Photo, ...] = ()


@dataclass(frozen=True)
class Clip:
    """A clip of the target, and what a swap of the source into it should show.

    All points come of the studio's exact landmarks, in pixels of the frames. The five are those
    of :func:`facekit.faces.landmarks.mean_face_points`, by which faces are aligned.

    Attributes:
        source, target: names of the two.
        times: (T,) seconds.
        frames: uint8 (T, S, S, 3): the target's.
        points: float32 (T, 5, 2) of the target.
        landmarks: float32 (T, 70, 2) of the target.
        answers: uint8 (T, S, S, 3): the source's, in a frame of their own.
        answer_points: float32 (T, 5, 2) in these.
        region: uint8 (T, C, C): what of the aligned face is compared, 255 wholly: the inner face
            of the answer and of the target at once.
        motion: float32 (T - 1, C, C, 2): where a point of the face at a pixel of one aligned
            answer lies in the next, (x, y) in pixels.
        moved: uint8 (T - 1, C, C): 1 where it is seen in both.
        pose: float32 (T, 3), yaw, pitch, roll in degrees.
        expression: float32 (T, 52), the coefficients of the face units.
    """

    source: str
    target: str
    times: Floats
    frames: Pixels
    points: Floats
    landmarks: Floats
    answers: Pixels
    answer_points: Floats
    region: NDArray[np.uint8]
    motion: Floats
    moved: NDArray[np.uint8]
    pose: Floats
    expression: Floats

    @property
    def crop(self) -> int:
        """C, the side of the aligned faces."""
        return int(self.region.shape[1])


@dataclass(frozen=True)
class Portraits:
    """The people among whom a judge looks for somebody.

    Attributes:
        frames: uint8 (P, K, S, S, 3): the same K performances of P people.
        points: float32 (P, K, 5, 2).
    """

    frames: Pixels
    points: Floats


def read_protocol(name: str | Path = PROTOCOL) -> Protocol:
    """Read a protocol.

    Raises:
        FacekitError: if a key or value is wrong, or it is of another version of the studio.
    """
    path = config.find(name)
    protocol = config.validate(config.read_yaml(path), Protocol, path)
    require_studio(path, protocol.studio)
    return protocol


def require_studio(path: Path, version: int) -> None:
    """See that a protocol is of this studio.

    Raises:
        FacekitError: if it is of another version.
    """
    if version != STUDIO_VERSION:
        raise FacekitError(
            f"{path}: is of studio version {version}, this is {STUDIO_VERSION}, which "
            "renders other pictures; use the facekit of that time, or another protocol"
        )


def actors_of(folder: Path, items: Sequence[Item] | None = None) -> list[Actor]:
    """The people of a studio folder, with their photos, in the order of their names.

    Args:
        folder: with a manifest.
        items: of it, if they were read before.

    Raises:
        FacekitError: if it is no folder of the studio, or shows fewer than two people.
    """
    listed = load_folder(folder) if items is None else items
    seeds: dict[str, int] = {}
    photos: dict[str, list[Photo]] = {}
    try:
        for item in listed:
            facts: dict[str, Any] = dict(item.facts)
            seeds[item.subject] = int(facts["person_seed"])
            landmarks = np.array(facts["landmarks"], np.float32).reshape(70, 2)
            points = mean_face_points(landmarks)
            photo = Photo(folder / item.path, item.sha256, points, landmarks)
            photos.setdefault(item.subject, []).append(photo)
    except (KeyError, TypeError, ValueError) as error:
        raise FacekitError(
            f"{folder}: its manifest has not the studio's facts; a true answer is known of people "
            "of 'facekit studio render' only"
        ) from error
    if len(seeds) < 2:
        raise FacekitError(f"{folder}: shows {len(seeds)} people; a swap takes two")
    return [Actor(name, Person.sample(seeds[name]), tuple(photos[name])) for name in sorted(seeds)]


def parts(actors: Sequence[Actor], clips: int) -> list[tuple[Actor, Actor]]:
    """Who is swapped into whom, (source, target), clip by clip: everyone plays in turn."""
    people = len(actors)
    return [(actors[(i + 1) % people], actors[i % people]) for i in range(clips)]


def render_clips(
    protocol: Protocol,
    actors: Sequence[Actor],
    *,
    kept: Path | None = None,
    workers: int = 1,
) -> Iterator[Clip]:
    """Render the clips of some people, one after the other.

    Args:
        protocol: how many, how long, how large.
        actors: two or more.
        kept: a folder where clips are kept, 20 MB each, and looked for.
        workers: processes to render with.

    Raises:
        FacekitError: if ``kept`` cannot be used.
    """
    for i, (source, target) in enumerate(parts(actors, protocol.clips)):
        wanted = _wanted(protocol, i, source, target)
        path = None if kept is None else kept / f"clip-{source.person.seed}-{i:02d}.safetensors"
        if path is not None and path.is_file() and (clip := _kept_clip(path, wanted)):
            yield replace(clip, source=source.name, target=target.name)
            continue
        clip = _rendered(protocol, i, source, target, workers)
        if path is not None:
            checkpoint.save(path, _packed(clip), {"clip": wanted})
        yield clip


def portraits(
    protocol: Protocol,
    actors: Sequence[Actor],
    *,
    kept: Path | None = None,
    workers: int = 1,
) -> Portraits:
    """Render photos of the actors, then of as many others as the protocol's gallery has in all.

    All give the same performances, so that nobody is known by their light or expression.

    Args:
        protocol: how many people and photos.
        actors: who come first.
        kept: a folder where those of the others are kept, and looked for.
        workers: processes to render with.
    """
    missing = max(protocol.gallery - len(actors), 0)
    others = [Person.sample(person_seed(protocol.seed, i)) for i in range(missing)]
    path = None if kept is None else kept / "gallery.safetensors"
    keys = ("studio", "seed", "size", "gallery", "portraits")
    facts = {key: getattr(protocol, key) for key in keys}
    wanted = str(facts | {"count": missing, "aligned": _ALIGNED})
    if path is not None and path.is_file() and checkpoint.notes(path).get("gallery") == wanted:
        state = checkpoint.load(path)
        theirs = Portraits(state["frames"].numpy(), state["points"].numpy())
    else:
        theirs = _portraits_of(others, protocol, workers)
        if path is not None:
            state = {k: torch.from_numpy(v) for k, v in vars(theirs).items()}
            checkpoint.save(path, state, {"gallery": wanted})
    own = _portraits_of([actor.person for actor in actors], protocol, workers)
    return Portraits(
        np.concatenate([own.frames, theirs.frames]), np.concatenate([own.points, theirs.points])
    )


def export(protocol: Protocol, out: Path, *, workers: int = 1) -> list[Path]:
    """Write what somebody else's method needs: photos to learn from, and the targets' clips.

    ``OUT/pair-SEED/people`` are studio folders, ``OUT/pair-SEED/clip-00`` and so on clips as
    single frames; each has its manifest and certificate. ``OUT/protocol.json`` says who is to be
    swapped into which clip.

    Args:
        protocol: what to render.
        out: a folder, new, or one that an earlier call has begun.
        workers: processes to render with.

    Returns:
        The folders written.

    Raises:
        FacekitError: if ``out`` holds something else.
    """
    plan = protocol.model_dump(mode="json")
    begun = out / "protocol.json"
    if begun.is_file() and files.read_json(begun).get("protocol") != plan:
        raise FacekitError(f"{out}: holds another protocol; give another --export")
    rows = []
    for seed in protocol.pairs:
        names = [f"person-{i:04d}" for i in range(2)]
        actors = [Actor(name, Person.sample(person_seed(seed, i))) for i, name in enumerate(names)]
        for i, (source, target) in enumerate(parts(actors, protocol.clips)):
            rows.append(
                {"path": clip_folder(seed, i), "source": source.name, "target": target.name}
            )
    files.write_json(begun, {"protocol": plan, "clips": rows})
    written = []
    for seed in protocol.pairs:
        folder = out / pair_folder(seed) / "people"
        render_folder(
            folder,
            people=2,
            frames=protocol.photos,
            size=protocol.size,
            seed=seed,
            workers=workers,
        )
        written.append(folder)
        for i in range(protocol.clips):
            folder = out / clip_folder(seed, i)
            render_clip(
                folder,
                person_seed=person_seed(seed, i % 2),
                seconds=protocol.frames / protocol.rate,
                rate=protocol.rate,
                size=protocol.size,
                seed=_clip_seed(protocol, i),
                workers=min(workers, protocol.frames),
                format="png",
            )
            written.append(folder)
    return written


def pair_folder(seed: int) -> str:
    """The folder of a pair within an export, or within a folder of somebody's answers."""
    return f"pair-{seed}"


def clip_folder(seed: int, clip: int) -> str:
    """The folder of a clip, likewise."""
    return f"{pair_folder(seed)}/clip-{clip:02d}"


def require_frames(folder: Path, protocol: Protocol) -> None:
    """See that a folder of answers has each frame of the protocol, in its size, and no other.

    Raises:
        FacekitError: which names the first that is missing, too many, or of another size.
    """
    if not folder.is_dir():
        raise FacekitError(f"{folder}: not a folder; give --frames the folder of swapped frames")
    wanted = [
        f"{clip_folder(seed, clip)}/frames/{frame:05d}.png"
        for seed in protocol.pairs
        for clip in range(protocol.clips)
        for frame in range(protocol.frames)
    ]
    require_names(
        folder,
        wanted,
        "; they are named as in the export, and a frame that a method gives up on is the target's "
        "own",
    )
    for name in wanted:
        _require_size(folder / name, size_of(folder / name), protocol)


def require_names(folder: Path, wanted: Sequence[str], remedy: str = "") -> None:
    """See that a folder has the pictures of these names, and no other.

    Clips that are not asked for, as those beyond a quick look's --clips, may be there.

    Args:
        folder: with PNG files, anywhere below.
        wanted: their paths in it.
        remedy: what to say where some are missing.

    Raises:
        FacekitError: which names the first that is missing or too many.
    """
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    if missing := [name for name in wanted if name not in found]:
        raise FacekitError(
            f"{folder}: {len(missing)} of {len(wanted)} frames are missing, e.g. {missing[0]}"
            f"{remedy}"
        )
    asked = {PurePosixPath(name).parent for name in wanted}
    extra = sorted(
        name
        for name in found.difference(wanted)
        if PurePosixPath(name).parent in asked or "clip-" not in name
    )
    if extra:
        raise FacekitError(
            f"{folder}: {len(extra)} pictures are none of the protocol's, e.g. {extra[0]}; take "
            "them away"
        )


def read_frames(folder: Path, protocol: Protocol, seed: int, clip: int) -> list[Pixels]:
    """Somebody's frames of one clip, uint8 (S, S, 3) each.

    Raises:
        FacekitError: for a picture that cannot be read, or of another size than the target's.
    """
    pictures = []
    for frame in range(protocol.frames):
        path = folder / clip_folder(seed, clip) / "frames" / f"{frame:05d}.png"
        pixels = read_image(path)
        _require_size(path, (pixels.shape[1], pixels.shape[0]), protocol)
        pictures.append(pixels)
    return pictures


def _require_size(path: Path, size: tuple[int, int], protocol: Protocol) -> None:
    if size != (protocol.size, protocol.size):
        raise FacekitError(
            f"{path}: {size[0]} × {size[1]} pixels; the target's frame has "
            f"{protocol.size} × {protocol.size}, and so must the swap's"
        )


def aligned(picture: NDArray[np.uint8], points: Floats, size: int) -> NDArray[np.uint8]:
    """The face of a picture, uint8 (H, W) or (H, W, 3), as the protocol aligns it."""
    shape = (size, size, *picture.shape[2:])
    crop = np.empty(shape, np.uint8)
    draw_crop(crop, picture, invert(crop_from_image(points, TEMPLATE, size)))
    return crop


@lru_cache(maxsize=512)
def _read_photo(path: Path, sha256: str) -> Pixels:
    pixels = read_image(path)
    if files.sha256(path) != sha256:
        raise FacekitError(f"{path}: differs from the manifest's hash; it was changed")
    return pixels


def _clip_seed(protocol: Protocol, clip: int) -> int:
    """The same performances for all pairs.

    A clip's randomness is another than that of a photo of the same seed, so no folder of photos
    has any of these.
    """
    return performance_seed(protocol.seed, 0, clip)


def _wanted(protocol: Protocol, clip: int, source: Actor, target: Actor) -> str:
    """What a kept clip must have been made from."""
    keys = ("studio", "frames", "rate", "seed", "size", "crop")
    people = [actor.person.seed for actor in (source, target)]
    kept = {key: getattr(protocol, key) for key in keys}
    return str(kept | {"clip": clip, "people": people, "aligned": _ALIGNED})


def _rendered(protocol: Protocol, number: int, source: Actor, target: Actor, workers: int) -> Clip:
    moments = Performance.clip(
        protocol.frames / protocol.rate, protocol.rate, _clip_seed(protocol, number)
    )
    shown = source.person
    shots = [(person, moment) for person in (target.person, shown) for moment in moments]
    renders = []
    with progress(f"rendering clip {number + 1}", len(shots)) as advance:
        frames = render_frames(shots, protocol.size, min(workers, len(shots)), want=("masks",))
        for done, render in enumerate(frames, start=1):
            renders.append(render)
            advance(done, "")
    before, after = renders[: len(moments)], renders[len(moments) :]
    points, answer_points = (
        np.stack([mean_face_points(render.landmarks) for render in part])
        for part in (before, after)
    )
    crops = crop_from_image(answer_points, TEMPLATE, protocol.crop)
    motion, moved = zip(
        *(
            _motion(*first, *second, protocol.crop)
            for first, second in pairwise(zip(after, crops, strict=True))
        ),
        strict=True,
    )
    return Clip(
        source=source.name,
        target=target.name,
        times=np.array([moment.time for moment in moments], np.float32),
        frames=np.stack([render.pixels for render in before]),
        points=points,
        landmarks=np.stack([render.landmarks for render in before]).astype(np.float32),
        answers=np.stack([render.pixels for render in after]),
        answer_points=answer_points,
        region=np.stack(
            [
                np.minimum(
                    aligned(frame.masks["face"], here, protocol.crop),
                    aligned(answer.masks["face"], there, protocol.crop),
                )
                for frame, here, answer, there in zip(
                    before, points, after, answer_points, strict=True
                )
            ]
        ),
        motion=np.stack(motion),
        moved=np.stack(moved),
        pose=np.array([render.pose for render in before], np.float32),
        expression=np.stack([render.expression for render in before]).astype(np.float32),
    )


def _motion(
    first: Render, here: Matrices, second: Render, there: Matrices, size: int
) -> tuple[Floats, NDArray[np.uint8]]:
    """Where the points of one aligned face lie in the next, and which of them are seen there.

    ``here`` and ``there`` are the two's ``crop_from_image``, (2, 3).
    """
    found = flow(first, second)
    centres = (np.stack(np.meshgrid(*[np.arange(size)] * 2), -1) + 0.5).reshape(-1, 2)
    places = apply(invert(here), centres).reshape(size, size, 2).astype(np.float32)
    x, y = places[..., 0] - 0.5, places[..., 1] - 0.5  # OpenCV's centres are whole numbers
    vectors = cv2.remap(found.vectors, x, y, cv2.INTER_LINEAR)
    # Seen at all four pixels between which the point lies.
    seen = cv2.remap(found.visible.astype(np.float32), x, y, cv2.INTER_LINEAR) > 0.999
    moved = apply(there, (places + vectors).reshape(-1, 2)).reshape(size, size, 2)
    return moved.astype(np.float32), seen.astype(np.uint8)


def _portraits_of(people: Sequence[Person], protocol: Protocol, workers: int) -> Portraits:
    # Looking ahead: a judge is not asked to know a profile.
    drawn = (Performance.sample(performance_seed(protocol.seed, 1, k)) for k in count())
    ahead = (moment for moment in drawn if max(map(abs, moment.pose)) < _AHEAD)
    moments = list(islice(ahead, protocol.portraits))
    shots = [(person, moment) for person in people for moment in moments]
    frames = np.empty((len(shots), protocol.size, protocol.size, 3), np.uint8)
    points = np.empty((len(shots), 5, 2), np.float32)
    if shots:
        with progress("rendering the judge's gallery", len(shots)) as advance:
            renders = render_frames(shots, protocol.size, min(workers, len(shots)), want=())
            for i, render in enumerate(renders):
                frames[i], points[i] = render.pixels, mean_face_points(render.landmarks)
                advance(i + 1, "")
    shape = (len(people), protocol.portraits)
    return Portraits(
        frames.reshape(*shape, *frames.shape[1:]), points.reshape(*shape, *points.shape[1:])
    )


def _packed(clip: Clip) -> dict[str, Any]:
    values = {field.name: getattr(clip, field.name) for field in fields(Clip)}
    return {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }


def _kept_clip(path: Path, wanted: str) -> Clip | None:
    """The clip in a file, unless it is another one."""
    if checkpoint.notes(path).get("clip") != wanted:
        return None
    state = checkpoint.load(path)
    values: dict[str, Any] = {
        name: value.numpy() if isinstance(value, torch.Tensor) else value
        for name, value in state.items()
    }
    try:
        return Clip(**values)
    except TypeError:  # of an earlier version
        return None
