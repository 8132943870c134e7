"""Labelled face crops, and the batches and views that detectors learn from and are measured on.

A detector must learn the forgery and nothing that merely comes with it. Four things see to that:

- *One way in.* Pictures of both classes are located, aligned, resized, and then re-compressed,
  blurred and recoloured at random by the same code with the same odds.
- *The mark means nothing.* Every crop is held twice, without and with a watermark, and exactly half
  of each class in each batch is marked. The mark is laid on the whole picture before the crop is
  cut, since that is how it comes in files: aligning resamples it. For both classes alike it is
  drawn at random what the mark says (kind and id), and whether it is a picture's or, stronger, a
  video's. Some files come marked, as generated ones do that left through facekit: where those are
  more than half of one class, as large a share of the other is marked, to say what they say.
- *Paired sampling.* A batch holds an untouched face and a forgery made from the very same picture,
  where there is one, so that the classes share background, light and pose.
- *Disjoint people.* :func:`check_disjoint` refuses splits that share a person, be it as the one
  shown or the one whose face was put in, or a source. A person of the studio is the same one in
  every folder: see :func:`person_of`.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from facekit.core.config import Config
from facekit.core.errors import FacekitError
from facekit.core.progress import log
from facekit.core.seed import Purpose, rng
from facekit.datasets.manifest import split_by_subject
from facekit.types import Item, Pixels
from facekit.watermark.payload import Kind, Payload

Labels = NDArray[np.int64]

_LOCATE_AT_ONCE = 16


class Faces(Config):
    """Which faces a detector sees, and how.

    Attributes:
        template: of ``facekit.faces.align``.
        size: side of the crops, in pixels.
        frames: at most so many pictures of a person, untouched, and as many forged.
        quality: JPEG quality of the random re-compression, from and to, in 1 to 100.
        degrade: odds, each, of shrinking, blurring and adding noise.
        recolour: odds, each, of another brightness and contrast, and another hue (training only).
    """

    template: Literal["wide", "arcface"] = "wide"
    size: int = Field(96, ge=32, le=512)
    frames: int = Field(24, ge=1)
    quality: list[Annotated[int, Field(ge=1, le=100)]] = Field([50, 98], min_length=2, max_length=2)
    degrade: float = Field(0.2, ge=0, le=1)
    recolour: float = Field(0.3, ge=0, le=1)

    @field_validator("quality")
    @classmethod
    def _rises(cls, quality: list[int]) -> list[int]:
        if quality[0] > quality[1]:
            raise PydanticCustomError("range", "the lower quality must stand first")
        return quality


@dataclass(frozen=True)
class Sample:
    """One picture with a face, before it is aligned.

    Attributes:
        pixels: uint8 RGB (H, W, 3).
        label: 1 generated, 0 not.
        subject: the person shown; of a swap, the one in whose picture it was made.
        source: the picture or clip that it is, or was made from; pairs share it.
        donor: of a swap, the person whose face was put in; else "".
    """

    pixels: Pixels
    label: int
    subject: str
    source: str
    donor: str = ""


@dataclass(frozen=True)
class Crops:
    """Labelled crops of one split, held in memory.

    Attributes:
        images: uint8 RGB (N, S, S, 3), unmarked but for those that came with a mark.
        marked: the same crops of the marked pictures.
        came_marked: bool (N,): the picture bore a mark already, and is the same in both.
        labels: int64 (N,), 1 generated.
        subjects, sources, donors: as in :class:`Sample`, N of each.
    """

    images: Pixels
    marked: Pixels
    came_marked: NDArray[np.bool_]
    labels: Labels
    subjects: list[str]
    sources: list[str]
    donors: list[str]

    def __len__(self) -> int:
        """N."""
        return len(self.labels)


def align(
    samples: Iterable[Sample],
    faces: Faces,
    *,
    key: Sequence[int],
    device: torch.device,
    payloads: Sequence[Payload] = (),
) -> Crops:
    """Locate, mark and align the largest face of each sample; both classes go this one way.

    Args:
        samples: read one after the other; only their crops are kept.
        faces: template and size.
        key: integers that the marks' kinds and ids follow from; each split needs its own, or its
            code words would be those of another one.
        device: where to locate and warp.
        payloads: what the marks say that pictures of the split came with; new marks say the same.
            If there are none, kinds and ids are drawn at random.

    Raises:
        FacekitError: if no face is found in any picture of one class, or there is none.
    """
    from facekit import watermark
    from facekit.faces.align import align_faces
    from facekit.faces.locate import load_locator

    locator = load_locator(device)
    random = rng(*key, Purpose.MARKS)
    images: list[Pixels] = []
    marked: list[Pixels] = []
    came_marked: list[bool] = []
    kept: list[Sample] = []
    total = 0
    stream = iter(samples)
    while chunk := list(islice(stream, _LOCATE_AT_ONCE)):
        total += len(chunk)
        found = locator.locate([sample.pixels for sample in chunk])
        for sample, located in zip(chunk, found, strict=True):
            if not located or min(sample.pixels.shape[:2]) < watermark.MIN_SIDE:
                continue
            payload, moving = _payload(payloads, random), bool(random.integers(2))
            came_marked.append(watermark.read(sample.pixels, search=False).present)
            once = sample.pixels
            if not came_marked[-1]:  # a second mark would tell it from those that came without
                once = watermark.embed(once, payload, moving=moving)
            for pixels, crops in ((sample.pixels, images), (once, marked)):
                [face] = align_faces(
                    pixels, located[:1], template=faces.template, size=faces.size, device=device
                )
                crops.append(face.pixels)
            # Without the picture: only crops stay in memory.
            kept.append(replace(sample, pixels=np.empty(0, np.uint8)))
    if len(kept) < total:
        log.info(
            "%d of %d pictures left out: no face found, or too small to mark (less than %d pixels)",
            *(total - len(kept), total, watermark.MIN_SIDE),
        )
    labels = np.array([sample.label for sample in kept], np.int64)
    require_both(labels)
    return Crops(
        images=np.stack(images),
        marked=np.stack(marked),
        came_marked=np.array(came_marked),
        labels=labels,
        subjects=[sample.subject for sample in kept],
        sources=[sample.source for sample in kept],
        donors=[sample.donor for sample in kept],
    )


def _payload(payloads: Sequence[Payload], random: np.random.Generator) -> Payload:
    """What a mark made in memory says: one of ``payloads``, or else anything."""
    if payloads:
        return payloads[int(random.integers(len(payloads)))]
    return Payload(Kind(int(random.choice(list(Kind)))), int(random.integers(2**31)))


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


def person_of(item: Item) -> str:
    """Who an item shows, by a name that means the same person in any folder.

    Studio folders number their people alike, and its clips name them otherwise, so the seed that
    made the person is the name wherever it is known. A manifest that names no people falls back on
    the source, then the file.
    """
    seed = item.facts.get("person_seed")
    if seed is not None:
        return f"studio person {seed}"
    return item.subject or item.source or item.path


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


def check_disjoint(splits: Mapping[str, Crops]) -> None:
    """Check that no person and no source is in two splits.

    Raises:
        FacekitError: it names the first person or source that is, and the splits.
    """
    owner: dict[tuple[str, str], str] = {}
    for name, crops in splits.items():
        people = {("person", person) for person in (*crops.subjects, *crops.donors) if person}
        for thing in sorted(people | {("source", source) for source in crops.sources}):
            if owner.setdefault(thing, name) != name:
                raise FacekitError(
                    f"{thing[0]} '{thing[1]}' is in the splits {owner[thing]} and {name}; a split "
                    "must be disjoint by person and source"
                )


class Batches:
    """Random training batches, each a function of (seed, step) alone."""

    def __init__(self, crops: Crops, faces: Faces, *, batch: int, seed: int) -> None:
        """Pair each forgery with the untouched faces of its source.

        Args:
            crops: the training split.
            faces: how to degrade.
            batch: faces a batch, a multiple of 4: two classes, each half marked.
            seed: the run's.
        """
        self._crops, self._batch, self._seed = crops, batch, seed
        self._degrade = _chain(faces, training=True)
        self._untouched = np.flatnonzero(crops.labels == 0)
        self._generated = np.flatnonzero(crops.labels == 1)
        self._forgeries: dict[str, list[int]] = {}
        for i in self._generated:
            self._forgeries.setdefault(crops.sources[i], []).append(int(i))

    def __call__(self, step: int) -> tuple[Pixels, Labels]:
        """Images uint8 (B, S, S, 3) and labels (B,): first the untouched, then their forgeries."""
        random = rng(self._seed, step, Purpose.BATCHES)
        half = self._batch // 2
        # No untouched face stands twice in a batch until all are in it.
        order = random.permutation(self._untouched)
        untouched = np.resize(order, half)
        forged = [
            random.choice(self._forgeries.get(self._crops.sources[i], self._generated))
            for i in untouched
        ]
        chosen = np.concatenate([untouched, forged])
        marked = _to_mark(self._crops, [chosen[:half], chosen[half:]], random)
        images = _pick(self._crops, chosen, np.concatenate(marked))
        return _degraded(images, self._degrade, random), self._crops.labels[chosen]


def view(crops: Crops, faces: Faces, *, key: int, marks: Literal["half", "all", "none"]) -> Pixels:
    """All crops once, in order, each re-compressed at random as a function of ``key``.

    Args:
        crops: of one split.
        faces: how to degrade; flips, shifts and colours are left alone.
        key: a seed; the same key degrades a marked and an unmarked view alike.
        marks: which crops are the marked ones; ``half`` is half of each class, or more where more
            of one class came marked. Those that came so are so in any case.

    Returns:
        uint8 (N, S, S, 3).
    """
    random = rng(key, Purpose.HALVES)
    marked = np.full(len(crops), marks == "all")
    if marks == "half":
        classes = [np.flatnonzero(crops.labels == label) for label in (0, 1)]
        for members, chosen in zip(classes, _to_mark(crops, classes, random), strict=True):
            marked[members] = chosen
    images = _pick(crops, np.arange(len(crops)), marked)
    return _degraded(images, _chain(faces, training=False), rng(key, Purpose.DEGRADING))


def _to_mark(
    crops: Crops, classes: Sequence[NDArray[np.int64]], random: np.random.Generator
) -> list[NDArray[np.bool_]]:
    """Which of the members of each class are to be the marked ones: the same share of each.

    Those that came marked are always among them. The share is a half, or that of the class of which
    most came marked.
    """
    came = [crops.came_marked[members] for members in classes]
    share = max([0.5, *(float(np.mean(marked)) for marked in came if marked.any())])
    chosen = []
    for marked in came:
        order = random.permutation(len(marked)) - len(marked) * marked
        place = np.argsort(np.argsort(order))
        chosen.append(place < math.floor(share * len(marked) + 1e-9))
    return chosen


def _pick(crops: Crops, chosen: NDArray[np.int64], marked: NDArray[np.bool_]) -> Pixels:
    picked: Pixels = np.where(
        marked[:, None, None, None], crops.marked[chosen], crops.images[chosen]
    )
    return picked


def _degraded(images: Pixels, chain: Any, random: np.random.Generator) -> Pixels:
    """Each picture through the chain; all of its randomness comes from ``random``."""
    chain.set_random_seed(int(random.integers(2**31)))
    return np.stack([chain(image=image)["image"] for image in images])


def _chain(faces: Faces, *, training: bool) -> Any:
    """An albumentations chain: what befalls pictures on their way through the world."""
    # Without this it asks PyPI for its newest version at import.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations
    import cv2

    low, high = faces.quality
    resampling = {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}
    world = [
        albumentations.Downscale(
            scale_range=(0.5, 0.9), interpolation_pair=resampling, p=faces.degrade
        ),
        albumentations.GaussianBlur(sigma_limit=(0.3, 1.0), p=faces.degrade),
        albumentations.GaussNoise(std_range=(0.005, 0.03), p=faces.degrade),
        albumentations.ImageCompression("jpeg", quality_range=(low, high), p=0.8),
    ]
    if not training:
        return albumentations.Compose(world)
    variety = [
        albumentations.HorizontalFlip(p=0.5),
        albumentations.Affine(
            scale=(0.92, 1.08),
            translate_percent=(-0.04, 0.04),
            rotate=(-6, 6),
            border_mode=cv2.BORDER_REFLECT_101,
            p=0.5,
        ),
        albumentations.RandomBrightnessContrast(p=faces.recolour),
        albumentations.HueSaturationValue(
            hue_shift_limit=8, sat_shift_limit=20, val_shift_limit=10, p=faces.recolour
        ),
    ]
    return albumentations.Compose(variety + world)
