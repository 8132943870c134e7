"""Labelled faces, and the batches and views that detectors learn from and are measured on.

A detector must learn the forgery and nothing that merely comes with it. Five things see to that:

- *One way in.* Pictures of both classes are located and cut, then resized, re-compressed, blurred
  and recoloured at random by the same code with the same odds (``detectors.world``).
- *Pairs.* A batch holds an untouched face and a forgery made from the very same picture, where
  there is one: the classes share background, light and pose. Both of a pair are brought to the
  same sharpness first and then meet the same fate.
- *The mark means nothing.* Exactly half of each class in each batch is marked. What the mark says
  (kind and id), and whether it is a picture's or, stronger, a video's, is drawn at random for both
  alike. Some files come marked, as generated ones do that left through facekit: where those are
  more than half of one class, as large a share of the other is marked, to say what they say.
- *No collection drowns the others.* Pictures are drawn by the square root of their collection's
  size.
- *Disjoint people.* :func:`check_disjoint` refuses splits that share a person, be it as the one
  shown or the one whose face was put in, or a source. A person of the studio is the same one in
  every folder: see :func:`person_of`.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Annotated, Any, Literal, NamedTuple, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from detectors import forgeries
from detectors.regions import Region, crops, find, trimmed
from detectors.world import World, brought, chain, degrade, frame
from facekit.core.config import Config
from facekit.core.errors import FacekitError, did_you_mean
from facekit.core.progress import log
from facekit.core.seed import Purpose, rng
from facekit.datasets.manifest import person_of, split_by_subject
from facekit.types import Item, Pixels
from facekit.watermark.payload import Kind, Payload

Labels = NDArray[np.int64]

CELL = 16
"""Pixels a side of the cells in which a network may be told what was laid over."""

_LOCATE_AT_ONCE = 16
_DONORS = 24  # of at most so many people's faces, the one most alike is put in
_MIN_FACE = 32


class Faces(Config):
    """Which faces a detector sees, and how.

    Attributes:
        template: of ``detectors.regions.crops``.
        size: side of the crops, in pixels.
        frames: at most so many pictures of a person, untouched, and as many forged.
        world: what befalls them.
        forgeries: kind of ``detectors.forgeries`` → its share of the generated faces; the rest are
            the data's own.
    """

    template: Literal["wide", "arcface", "box13", "native"] = "wide"
    size: int = Field(96, ge=32, le=512)
    frames: int = Field(24, ge=1)
    world: World = World()
    forgeries: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)

    @field_validator("forgeries")
    @classmethod
    def _known(cls, shares: dict[str, float]) -> dict[str, float]:
        for kind in shares:
            if kind not in forgeries.KINDS:
                raise PydanticCustomError(
                    "forgery",
                    "unknown forgery: {hint}",
                    {"hint": did_you_mean(kind, forgeries.KINDS)},
                )
        if sum(shares.values()) > 1 + 1e-6:
            raise PydanticCustomError("share", "the shares of forgeries must not exceed 1 in all")
        return shares


@dataclass(frozen=True)
class Sample:
    """One picture with a face, before it is located.

    Attributes:
        pixels: uint8 RGB (H, W, 3).
        label: 1 generated, 0 not.
        subject: the person shown; of a swap, the one in whose picture it was made.
        source: the picture or clip that it is, or was made from; pairs share it.
        donor: of a swap, the person whose face was put in; else "".
        maker: what made it: "" for a camera, "studio", a generator's or a method's name.
        collection: the name of the data set that it came from.
    """

    pixels: Pixels
    label: int
    subject: str
    source: str
    donor: str = ""
    maker: str = ""
    collection: str = ""


@dataclass(frozen=True)
class FaceSet:
    """Labelled faces of one split, held in memory; N of each.

    Attributes:
        regions: the faces, unmarked but for those that came with a mark.
        labels: int64 (N,), 1 generated.
        subjects, sources, donors, makers, collections: as in :class:`Sample`.
        payloads: what the mark says that the picture came with, else None.
        digests: of the pictures they were cut from: 16 hex digits of SHA-256 over their pixels.
    """

    regions: list[Region]
    labels: Labels
    subjects: list[str]
    sources: list[str]
    donors: list[str]
    makers: list[str]
    collections: list[str]
    payloads: list[Payload | None]
    digests: list[str]

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    @property
    def came_marked(self) -> NDArray[np.bool_]:
        """Which pictures bore a mark already: bool (N,)."""
        return np.array([payload is not None for payload in self.payloads], bool)

    def subset(self, indices: Sequence[int] | NDArray[np.integer]) -> Self:
        """Those at ``indices``, in that order."""
        chosen = [int(i) for i in indices]
        columns = {
            column.name: [getattr(self, column.name)[i] for i in chosen]
            for column in fields(self)
            if column.name != "labels"
        }
        return replace(self, labels=self.labels[chosen], **columns)

    def __add__(self, other: "FaceSet") -> "FaceSet":
        """Both, one after the other."""
        columns: dict[str, Any] = {
            column.name: getattr(self, column.name) + getattr(other, column.name)
            for column in fields(self)
            if column.name != "labels"
        }
        return FaceSet(labels=np.concatenate([self.labels, other.labels]), **columns)


def gather(samples: Iterable[Sample], *, device: torch.device, landmarks: bool = True) -> FaceSet:
    """Locate and cut the largest face of each sample; both classes go this one way.

    Args:
        samples: read one after the other; only their faces' regions are kept.
        device: where to locate.
        landmarks: whether to read them; forgeries need them.
    """
    from facekit import watermark
    from facekit.faces.landmarks import Landmarker
    from facekit.faces.locate import load_locator

    locator = load_locator(device, min_face=_MIN_FACE)
    landmarker = Landmarker(device) if landmarks else None
    regions: list[Region] = []
    kept: list[Sample] = []
    payloads: list[Payload | None] = []
    digests: list[str] = []
    total = 0
    stream = iter(samples)
    while chunk := list(islice(stream, _LOCATE_AT_ONCE)):
        total += len(chunk)
        found = find([sample.pixels for sample in chunk], locator, landmarker)
        for sample, located in zip(chunk, found, strict=True):
            if not located or min(sample.pixels.shape[:2]) < watermark.MIN_SIDE:
                continue
            regions.append(located[0])
            payloads.append(watermark.read(sample.pixels, search=False).payload)
            digests.append(hashlib.sha256(sample.pixels.tobytes()).hexdigest()[:16])
            # Without the picture: only regions stay in memory.
            kept.append(replace(sample, pixels=np.empty(0, np.uint8)))
    if len(kept) < total:
        log.info(
            "%d of %d pictures left out: no face found, or too small to mark (less than %d pixels)",
            *(total - len(kept), total, watermark.MIN_SIDE),
        )
    return FaceSet(
        regions=regions,
        labels=np.array([sample.label for sample in kept], np.int64),
        subjects=[sample.subject for sample in kept],
        sources=[sample.source for sample in kept],
        donors=[sample.donor for sample in kept],
        makers=[sample.maker for sample in kept],
        collections=[sample.collection for sample in kept],
        payloads=payloads,
        digests=digests,
    )


def require_both(labels: Labels) -> None:
    """Check that both classes occur.

    Raises:
        FacekitError: if one of them is empty.
    """
    generated = int(np.sum(labels))
    if not 0 < generated < len(labels):
        raise FacekitError(
            f"a detector needs faces of both classes, got {len(labels) - generated} untouched and "
            f"{generated} generated; check the labels and that faces can be found"
        )


def divide(items: Sequence[Item], *, seed: int, swaps: bool) -> list[Item]:
    """Set the split of each item, disjoint by person and source: 60% of people to train on.

    Args:
        items: all that training and evaluation may use.
        seed: of the shuffle.
        swaps: whether swaps will be made between the people of each split, who then must be two
            in validation and test at least.

    Raises:
        FacekitError: if there are too few people.
    """
    named = [item.model_copy(update={"subject": person_of(item)}) for item in items]
    people = len({item.subject for item in named})
    shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
    if swaps and people < 6:
        raise FacekitError(
            f"{people} people cannot fill three splits with the two that a swap needs; give 6 or "
            "more, e.g. with 'facekit studio render --people 8'"
        )
    if swaps:
        apart = max(2, round(people / 5)) / people
        shares = {"train": 1 - 2 * apart, "validation": apart, "test": apart}
    return [
        item.model_copy(update={"split": other.split})
        for item, other in zip(items, split_by_subject(named, shares, seed), strict=True)
    ]


def check_disjoint(splits: Mapping[str, FaceSet]) -> None:
    """Check that no person and no source is in two splits.

    Raises:
        FacekitError: it names the first person or source that is, and the splits.
    """
    owner: dict[tuple[str, str], str] = {}
    for name, faces in splits.items():
        people = {("person", person) for person in (*faces.subjects, *faces.donors) if person}
        for thing in sorted(people | {("source", source) for source in faces.sources}):
            if owner.setdefault(thing, name) != name:
                raise FacekitError(
                    f"{thing[0]} '{thing[1]}' is in the splits {owner[thing]} and {name}; a split "
                    "must be disjoint by person and source"
                )


def with_forgeries(faces: FaceSet, kinds: Sequence[str], *, key: int) -> FaceSet:
    """A set with forgeries of its untouched faces added: the kinds in turn, one a face.

    Args:
        faces: with landmarks; donors come from the same set.
        kinds: of ``detectors.forgeries``.
        key: a seed; all chances follow from it.

    Returns:
        ``faces``, then the forgeries: label 1, of the same source, ``maker`` the kind.
    """
    untouched = np.flatnonzero(faces.labels == 0)
    made: list[Region] = []
    of: list[int] = []
    makers: list[str] = []
    donors: list[str] = []
    for n, i in enumerate(untouched):
        random = rng(key, n, Purpose.FORGERIES)
        kind = kinds[n % len(kinds)]
        donor = _donor(faces, untouched, int(i), random) if kind in forgeries.WITH_DONOR else None
        if kind in forgeries.WITH_DONOR and donor is None:
            continue  # nobody else is in the set
        other = None if donor is None else faces.regions[donor]
        made.append(forgeries.forge(kind, faces.regions[i], other, random).region)
        of.append(int(i))
        makers.append(kind)
        donors.append("" if donor is None else faces.subjects[donor])
    forged = replace(
        faces.subset(of),
        regions=made,
        labels=np.ones(len(of), np.int64),
        makers=makers,
        donors=donors,
    )
    return faces + forged


def _donor(
    faces: FaceSet, untouched: NDArray[np.int64], target: int, random: np.random.Generator
) -> int | None:
    """Another person's untouched face, of some at random the one that looks most alike.

    Out of few or many: some forgers take what they have, others look for what fits.
    """
    some = random.choice(untouched, 4 * _DONORS)
    most = int(random.integers(1, _DONORS + 1))
    others = [int(i) for i in some if faces.subjects[i] != faces.subjects[target]][:most]
    if not others:
        return None
    regions = [faces.regions[i] for i in others]
    return others[forgeries.most_alike(faces.regions[target], regions)]


@dataclass(frozen=True)
class Batch:
    """What a network learns from in one step.

    Attributes:
        images: uint8 (B, S, S, 3).
        labels: int64 (B,), 1 generated.
        masks: float32 (B, S // CELL, S // CELL): the share of each cell that is not as the camera
            saw it, in [0, 1]; 1 everywhere where the whole picture is generated.
    """

    images: Pixels
    labels: Labels
    masks: NDArray[np.float32]


class _One(NamedTuple):
    """One of a pair: its region, the face that it is or was made of, and what was laid over."""

    region: Region
    of: int
    mask: NDArray[np.uint8] | int


class Batches:
    """Random training batches, each a function of (seed, step) alone."""

    def __init__(self, faces: FaceSet, settings: Faces, *, batch: int, seed: int) -> None:
        """Pair each forgery with the untouched faces of its source.

        Args:
            faces: the training split.
            settings: how to degrade, forge and cut.
            batch: faces a batch, a multiple of 4: two classes, each half marked.
            seed: the run's.

        Raises:
            FacekitError: if a class is empty that ``settings.forgeries`` do not fill.
        """
        finest = settings.world.face[1]  # no network sees more, and forging less is quicker
        regions = [
            brought(region, finest) if region.face.size > finest else region
            for region in faces.regions
        ]
        faces = replace(faces, regions=regions)
        self._faces, self._settings, self._batch, self._seed = faces, settings, batch, seed
        self._marks: dict[int, NDArray[np.int8]] = {}
        self._came_marked = faces.came_marked
        self._chain = chain(settings.world, training=True)
        self._untouched = np.flatnonzero(faces.labels == 0)
        self._generated = np.flatnonzero(faces.labels == 1)
        self._payloads = [payload for payload in faces.payloads if payload]
        self._odds = _square_roots(faces, self._untouched)
        self._generated_odds = _square_roots(faces, self._generated)
        self._forgeries: dict[str, list[int]] = {}
        for i in self._generated:
            self._forgeries.setdefault(faces.sources[i], []).append(int(i))
        if not len(self._untouched) or sum(settings.forgeries.values()) < 1 - 1e-6:
            require_both(faces.labels)

    def __call__(self, step: int) -> Batch:
        """First the untouched faces, then as many generated ones, the pairs in the same order."""
        random = rng(self._seed, step, Purpose.BATCHES)
        half, size = self._batch // 2, self._settings.size
        enough = len(self._untouched) >= half
        chosen = random.choice(self._untouched, half, replace=not enough, p=self._odds)
        pairs = [self._pair(int(i), random) for i in chosen]
        came = [self._came_marked[[pair[side].of for pair in pairs]] for side in (0, 1)]
        to_mark = _to_mark(came, random)
        seeds = random.integers(2**31, size=half)
        images = np.empty((2 * half, size, size, 3), np.uint8)
        masks = np.empty((2 * half, size // CELL, size // CELL), np.float32)
        for k, pair in enumerate(pairs):
            sharpest = min(one.region.face.size for one in pair)
            for side, one in enumerate(pair):
                fate = rng(int(seeds[k]), Purpose.DEGRADING)  # the same for both of a pair
                region = one.region
                if to_mark[side][k] and not self._came_marked[one.of]:
                    region = self._marked(region, one.of)
                mask = one.mask
                if margins := frame(self._settings.world, fate):
                    region, kept = trimmed(region, margins)
                    mask = mask if isinstance(mask, int) else mask[kept]
                region = degrade(region, self._settings.world, self._chain, fate, sharpest=sharpest)
                place = side * half + k
                images[place], masks[place] = _varied(region, mask, self._settings, fate)
        return Batch(images, np.repeat([0, 1], half), masks)

    def _pair(self, i: int, random: np.random.Generator) -> "tuple[_One, _One]":
        """An untouched face, and a forgery of it or else any generated one."""
        faces = self._faces
        untouched = _One(faces.regions[i], i, 0)
        kinds = list(self._settings.forgeries)
        shares = [self._settings.forgeries[kind] for kind in kinds]
        place = int(np.searchsorted(np.cumsum(shares), random.random() * (1 + 1e-9), side="right"))
        if place < len(kinds):
            kind, donor = kinds[place], None
            if kind in forgeries.WITH_DONOR:
                donor = _donor(faces, self._untouched, i, random)
                kind = kind if donor is not None else "self_blend"
            other = None if donor is None else faces.regions[donor]
            forged = forgeries.forge(kind, faces.regions[i], other, random)
            return untouched, _One(forged.region, i, forged.mask)
        if mine := self._forgeries.get(faces.sources[i]):
            j = int(random.choice(mine))
        else:
            j = int(random.choice(self._generated, p=self._generated_odds))
        return untouched, _One(faces.regions[j], j, 255)

    def _marked(self, region: Region, i: int) -> Region:
        """``region``, face ``i`` or a forgery of it, with that face's mark.

        A mark takes longer than all else together, so each face's is made once and kept as what it
        adds; what it says is a function of the seed and the face.
        """
        if i not in self._marks:
            plain = self._faces.regions[i]
            with_mark = _marked(plain, self._payloads, rng(self._seed, i, Purpose.MARKS))
            added = with_mark.pixels.astype(np.int16) - plain.pixels
            self._marks[i] = np.clip(added, -128, 127).astype(np.int8)
        pixels = np.clip(region.pixels + self._marks[i].astype(np.int16), 0, 255)
        return replace(region, pixels=pixels.astype(np.uint8))


def _square_roots(faces: FaceSet, chosen: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """The odds of each face, so that collections count by the square root of their size."""
    if not len(chosen):
        return None
    names = [(faces.collections[i], faces.makers[i]) for i in chosen]
    counts = {name: names.count(name) for name in set(names)}
    odds = np.array([counts[name] ** -0.5 for name in names])
    normed: NDArray[np.float64] = odds / odds.sum()
    return normed


def _varied(
    region: Region,
    mask: NDArray[np.uint8] | int,
    settings: Faces,
    random: np.random.Generator,
) -> tuple[Pixels, NDArray[np.float32]]:
    """Its crop, moved, turned and scaled a little, mirrored half of the time; and the mask's."""
    face = region.face
    z = (face.points - face.points.mean(axis=0)) @ np.array([1, 1j])
    z = z * random.uniform(0.93, 1.08) * np.exp(1j * np.radians(random.uniform(-6, 6)))
    shift = random.uniform(-0.05, 0.05, 2) * face.size
    points = np.stack([z.real, z.imag], axis=1) + face.points.mean(axis=0) + shift
    moved = replace(region, face=replace(face, points=points.astype(np.float32)))
    crop: Pixels = crops([moved], settings.template, settings.size)[0]
    cells = np.full((settings.size // CELL,) * 2, float(np.max(mask)) / 255, np.float32)
    if not isinstance(mask, int):
        height, width = region.pixels.shape[:2]
        laid_over = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
        coloured = np.repeat(np.asarray(laid_over, np.uint8)[:, :, None], 3, axis=2)
        shown = crops([replace(moved, pixels=coloured)], settings.template, settings.size)[0]
        side = len(cells) * CELL
        small = cv2.resize(shown[:side, :side, 0], cells.shape, interpolation=cv2.INTER_AREA)
        cells = small.astype(np.float32) / 255
    if random.random() < 0.5:
        return crop[:, ::-1], cells[:, ::-1]
    return crop, cells


def _marked(region: Region, payloads: Sequence[Payload], random: np.random.Generator) -> Region:
    """With a mark that says one of ``payloads``, or else anything; unmarked if it holds none."""
    from facekit import watermark

    payload, moving = _payload(payloads, random), bool(random.integers(2))
    try:
        return replace(region, pixels=watermark.embed(region.pixels, payload, moving=moving))
    except FacekitError:  # too small, or too flat and dark to bear one
        return region


def _payload(payloads: Sequence[Payload], random: np.random.Generator) -> Payload:
    """What a mark made in memory says: one of ``payloads``, or else anything."""
    if payloads:
        return payloads[int(random.integers(len(payloads)))]
    return Payload(Kind(int(random.choice(list(Kind)))), int(random.integers(2**31)))


def befallen(
    faces: FaceSet, world: World, *, key: int, marks: Literal["half", "all", "none"] = "half"
) -> FaceSet:
    """All faces once, in order, each after its way through the world.

    Every face is first brought to the sharpness of the less sharp of itself and a random face of
    the other class: sharpness then says nothing about the class.

    Args:
        faces: of one split.
        world: what befalls them; colours are left alone.
        key: a seed; the same key gives a marked and an unmarked view the same fate.
        marks: which faces are to bear a mark; ``half`` is half of each class, or more where more
            of one class came marked. Those that came so bear theirs in any case.
    """
    random = rng(key, Purpose.HALVES)
    marked = np.full(len(faces), marks == "all")
    classes = [np.flatnonzero(faces.labels == label) for label in (0, 1)]
    if marks == "half":
        came = [faces.came_marked[members] for members in classes]
        for members, chosen in zip(classes, _to_mark(came, random), strict=True):
            marked[members] = chosen
    payloads = [payload for payload in faces.payloads if payload]
    way = chain(world, training=False)
    regions = []
    for i, region in enumerate(faces.regions):
        others = classes[1 - faces.labels[i]]
        fate = rng(key, i, Purpose.DEGRADING)
        sharpest = region.face.size
        if len(others):
            sharpest = min(sharpest, faces.regions[int(fate.choice(others))].face.size)
        if marked[i] and faces.payloads[i] is None:
            region = _marked(region, payloads, rng(key, i, Purpose.MARKS))
        if margins := frame(world, fate):
            region, _ = trimmed(region, margins)
        regions.append(degrade(region, world, way, fate, sharpest=sharpest))
    return replace(faces, regions=regions)


def _to_mark(
    came: Sequence[NDArray[np.bool_]], random: np.random.Generator
) -> list[NDArray[np.bool_]]:
    """Which of the members of each class are to be marked ones: the same share of each.

    Those that ``came`` marked are always among them. The share is a half, or that of the class of
    which most came marked.
    """
    share = max([0.5, *(float(np.mean(marked)) for marked in came if marked.any())])
    chosen = []
    for marked in came:
        order = random.permutation(len(marked)) - len(marked) * marked
        place = np.argsort(np.argsort(order))
        chosen.append(place < math.floor(share * len(marked) + 1e-9))
    return chosen
