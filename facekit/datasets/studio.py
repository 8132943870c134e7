"""The studio as a torch data set: people who don't exist, with all that is known of them."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from facekit.core import files
from facekit.core.errors import FacekitError, did_you_mean
from facekit.core.progress import progress
from facekit.faces.align import TEMPLATES, apply, crop_from_image, warp
from facekit.faces.landmarks import box_of
from facekit.studio.certificate import STUDIO_VERSION
from facekit.studio.clip import check_count, check_seed
from facekit.studio.degrade import chosen
from facekit.studio.performance import Performance, performance_seed
from facekit.studio.person import MOST_PEOPLE, Person, person_seed
from facekit.studio.pool import check_size, check_workers, render_frames
from facekit.studio.render import MASKS, MAX_SIZE, Render

Record = dict[str, NDArray[Any]]

_ARGUMENTS = "arguments.json"


class StudioFaces(Dataset[dict[str, Tensor]]):
    """Photos of studio people, rendered on the fly or read from a cache of uint8 crops.

    Item ``i`` shows person ``i // frames`` in performance ``i % frames``: those of
    ``facekit studio render --seed SEED``. Each is a function of the arguments and ``i`` alone, so
    that a ``DataLoader`` gives the same bytes with any number of workers, of whatever start
    method, and with a cache or without.

    Setting a person up takes as long as several frames. Without a cache, therefore, read in order
    (``shuffle=False``); with one, any order is quick.

    An item is a dictionary of tensors:

    - ``image`` float32 (3, S, S), RGB in [-1, 1];
    - ``points`` float32 (5, 2) and ``landmarks`` float32 (70, 2), (x, y) in pixels of the image;
      ``visible`` bool (70,), see :class:`facekit.studio.render.Render`;
    - ``pose`` float32 (3,): yaw, pitch, roll in degrees;
    - ``expression`` float32 (52,), in the order of ``FACE_UNITS``;
    - ``identity`` float32 (D,), the person's vector;
    - ``person`` and ``skin_tone`` int64 (): the person's index, and the group 1 to 10;
    - ``masks`` float32 (8, S, S) in [0, 1], in the order of ``MASKS``, if asked for.

    Example:
        >>> faces = StudioFaces(people=100, frames=10, size=128, cache=Path("cache"), workers=2)
        >>> loader = DataLoader(
        ...     faces, 16, shuffle=True, num_workers=2, multiprocessing_context="spawn"
        ... )
        >>> batch = next(iter(loader))
        >>> batch["image"].shape, batch["landmarks"].shape
        (torch.Size([16, 3, 128, 128]), torch.Size([16, 70, 2]))
    """

    def __init__(
        self,
        *,
        people: int = 100,
        frames: int = 10,
        size: int = 128,
        seed: int = 0,
        template: str | None = None,
        masks: bool = False,
        degrade: str = "none",
        cache: Path | None = None,
        workers: int = 1,
    ) -> None:
        """Describe the data; with ``cache``, render all of it unless that was done before.

        Args:
            people: how many, 1 to ``MOST_PEOPLE``.
            frames: performances of each.
            size: side S of the images in pixels.
            seed: of people and performances.
            template: None for the whole picture; else one of ``facekit.faces.align.TEMPLATES``,
                to which the face is brought by its true points, from a picture twice as large.
            masks: whether items have ``masks``.
            degrade: "none", "mild" or "strong": see :mod:`facekit.studio.degrade`.
            cache: folder for arrays, each set of arguments in a folder of its own.
            workers: processes that fill the cache, at most one a frame.

        Raises:
            FacekitError: for arguments out of range, or a cache that is damaged or cannot be
                written.
        """
        check_count("people", people, MOST_PEOPLE)
        check_count("frames", frames, 100_000)
        check_size(size)
        check_seed(seed)
        check_workers(workers, people * frames)
        chosen(degrade, seed)
        if template is not None and template not in TEMPLATES:
            raise FacekitError(
                f"unknown template '{template}'; {did_you_mean(template, TEMPLATES)}"
            )
        self.people, self.frames, self.size, self.seed = people, frames, size, seed
        self.template, self.masks, self.degrade = template, masks, degrade
        self._folder: Path | None = None
        self._arrays: Record = {}
        if cache is not None:
            self._folder = cache / f"studio-{self._key()}"
            if not self._folder.exists():
                self._fill(self._folder, workers)
            self._arrays = self._opened(self._folder)

    def __len__(self) -> int:
        """The number of photos."""
        return self.people * self.frames

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One photo; see the class."""
        index = range(len(self))[index]
        if self._folder is not None:
            if not self._arrays:
                self._arrays = self._opened(self._folder)
            record = {name: np.array(values[index]) for name, values in self._arrays.items()}
        else:
            (record,) = self._rendered([index], workers=1)
        item = {name: torch.from_numpy(values) for name, values in record.items()}
        item["image"] = item["image"].permute(2, 0, 1).float() / 127.5 - 1
        if self.masks:
            item["masks"] = item["masks"].float() / 255
        return item

    def __getstate__(self) -> dict[str, Any]:
        """Without the arrays: pickled, a memory map would be copied as a whole."""
        return {**self.__dict__, "_arrays": {}}

    def _arguments(self) -> dict[str, Any]:
        """What the arrays are a function of."""
        names = ("people", "frames", "size", "seed", "template", "masks", "degrade")
        return {name: getattr(self, name) for name in names} | {"studio": STUDIO_VERSION}

    def _key(self) -> str:
        text = json.dumps(self._arguments(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _rendered(self, indices: list[int], workers: int) -> Iterator[Record]:
        """Records of photos in order; cast and performances are those of ``render_folder``."""
        pairs, stages = [], []
        cast: dict[int, Person] = {}
        for index in indices:
            i, j = divmod(index, self.frames)
            moment = performance_seed(self.seed, i, j)
            if i not in cast:
                cast[i] = Person.sample(person_seed(self.seed, i))
            pairs.append((cast[i], Performance.sample(moment)))
            stages.append(chosen(self.degrade, moment))
        size = self.size if self.template is None else min(2 * self.size, MAX_SIZE)
        want = ("masks",) if self.masks else ()
        renders = render_frames(pairs, size, workers, want=want, degradations=stages)
        with closing(renders):
            for index, result in zip(indices, renders, strict=True):
                yield self._record(index // self.frames, result)

    def _record(self, person: int, result: Render) -> Record:
        """What of a frame goes into an item, images still as uint8."""
        record: Record = {
            "image": result.pixels,
            "points": result.points,
            "landmarks": result.landmarks,
            "visible": result.visible,
            "pose": np.array(result.pose, np.float32),
            "expression": result.expression,
            "identity": result.identity,
            "person": np.array(person, np.int64),
            "skin_tone": np.array(result.person.skin_tone, np.int64),
        }
        if self.masks:
            record["masks"] = np.stack([result.masks[name] for name in MASKS])
        if self.template is not None:
            box = box_of(result.landmarks)
            self._crop(record, crop_from_image(result.points, self.template, self.size, boxes=box))
        return record

    def _crop(self, record: Record, matrix: NDArray[np.float64]) -> None:
        """Bring a record's picture, points and masks to the template."""
        for name in ("points", "landmarks"):
            record[name] = apply(matrix, record[name]).astype(np.float32)
        inside = (record["landmarks"] >= 0) & (record["landmarks"] < self.size)
        record["visible"] = record["visible"] & inside.all(1)
        planes = torch.from_numpy(record["image"]).permute(2, 0, 1)
        if self.masks:
            planes = torch.cat([planes, torch.from_numpy(record["masks"])])
        cropped = warp(planes.float()[None], matrix[None], self.size)[0]
        pixels = cropped.round().clamp(0, 255).byte().numpy()
        record["image"] = np.ascontiguousarray(pixels[:3].transpose(1, 2, 0))
        if self.masks:
            record["masks"] = np.ascontiguousarray(pixels[3:])

    def _fill(self, folder: Path, workers: int) -> None:
        """Render everything into arrays beside ``folder``, then rename it."""
        records = self._rendered(list(range(len(self))), workers)
        with _folder_beside(folder) as partial, progress("filling the cache", len(self)) as advance:
            open_files: dict[str, Any] = {}
            try:
                for done, record in enumerate(records, start=1):
                    for name, values in record.items():
                        if name not in open_files:
                            # Written, not mapped: a full disk under a memory map kills the process.
                            open_files[name] = (partial / f"{name}.npy").open("wb")
                            _write_header(open_files[name], len(self), values)
                        open_files[name].write(np.ascontiguousarray(values).tobytes())
                    advance(done, "")
            finally:
                for file in open_files.values():
                    file.close()
            digests = {f"{name}.npy": files.sha256(partial / f"{name}.npy") for name in open_files}
            files.write_json(
                partial / _ARGUMENTS, {"arguments": self._arguments(), "files": digests}
            )

    def _opened(self, folder: Path) -> Record:
        """The cache's arrays, mapped into memory."""
        said = files.read_json(folder / _ARGUMENTS)
        arrays: Record = {}
        try:
            if said["arguments"] != self._arguments():
                raise FacekitError(f"{folder}: was made with other arguments; remove it")
            for name in said["files"]:
                array = np.load(folder / name, mmap_mode="r", allow_pickle=False)
                if len(array) != len(self):
                    raise ValueError(f"{name}: {len(array)} items, not {len(self)}")
                arrays[name.removesuffix(".npy")] = array
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            reason = " ".join(str(error).split())
            raise FacekitError(
                f"{folder}: damaged cache ({reason}); remove it, and it is made again"
            ) from error
        return arrays


def _write_header(file: Any, count: int, values: NDArray[Any]) -> None:
    header = {
        "descr": np.lib.format.dtype_to_descr(values.dtype),
        "fortran_order": False,
        "shape": (count, *values.shape),
    }
    np.lib.format.write_array_header_1_0(file, header)


@contextmanager
def _folder_beside(folder: Path) -> Iterator[Path]:
    """A folder that becomes ``folder`` if the body succeeds, and else is removed."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        partial.mkdir(parents=True)
        yield partial
        # Another process may have been quicker; its folder holds the same.
        if not folder.exists():
            partial.rename(folder)
    except OSError as error:
        raise FacekitError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
