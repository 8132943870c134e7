"""What ``facekit generator run --input FOLDER --dataset`` does: swaps beside their originals.

A detector that learns from them sees each photo twice, untouched and with another face, so that
nothing but the swap tells the two apart.
"""

import logging
import shutil
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facekit.core.errors import FacekitError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightning_fabric import Fabric

    from facekit.generators import GatedRun, Permit
    from facekit.types import Frame, Item, Pixels

log = logging.getLogger("facekit")


def convert_folder(
    folder: Path, data: Path, out: Path, fabric: "Fabric", *, consent: "Sequence[str]" = ()
) -> int:
    """Show each person of a folder as another one, and make a labelled data set of it.

    People are paired by name, and each is shown as the other (of an odd number, the last one as
    the one before), so that a division of the people need not part many who share a face. The
    manifest says who was put in ("donor"). Photos that show no face that can be replaced are left
    out, as are their originals.

    Args:
        folder: of the generator's run.
        data: what the run learned from: a certified studio folder, or photos under consent.
        out: the data set's folder, without a manifest so far.
        fabric: where and how precisely to compute.
        consent: ids of the consent records of everyone in real photos.

    Returns:
        The number of swaps, and so of originals.

    Raises:
        FacekitError: if the run or the folder may not be used, fewer than two people of the run
            are in it, or nothing could be swapped; or if ``out`` holds a data set.
    """
    from facekit import generators
    from facekit.types import MANIFEST, write_manifest

    if (out / MANIFEST).exists():
        raise FacekitError(f"{out}: holds a data set already; give another --out, or remove it")
    run = generators.open_run(folder)
    given = generators.admit_folder(data, consent, fabric.device)
    partners = _partners(sorted({i.subject for i in given.items} & set(run.facts["people"])))
    if not partners:
        raise FacekitError(
            f"{data}: shows fewer than two of the people whom {folder} knows "
            f"({', '.join(run.facts['people'])}); give the folder that it learned from"
        )
    with growing(out, {"generator": run.facts["plugin"], "run": run.id}):
        items = list(_pairs(run, given, data, partners, out, fabric))
        if not items:
            raise FacekitError(f"{data}: no photo shows a face that can be replaced")
        write_manifest(out, items)
    return len(items) // 2


@contextmanager
def growing(out: Path, facts: dict[str, str]) -> "Iterator[None]":
    """While a folder becomes a data set: if it does not, nothing that was put into it is left.

    Args:
        out: the folder.
        facts: of what makes it, for the journal, which says until there is a manifest that the
            folder will be a data set.
    """
    from facekit.core import files
    from facekit.types import JOURNAL

    before = set(out.iterdir()) if out.is_dir() else None
    files.write_jsonl(out / JOURNAL, [facts])
    try:
        yield
    except BaseException:
        for path in set(out.iterdir()) - (before or set()):
            path.unlink()
        if before is None:
            out.rmdir()
        raise
    (out / JOURNAL).unlink()


def _partners(people: "Sequence[str]") -> dict[str, str]:
    """Whom each person is shown as; nobody, if there are fewer than two."""
    if len(people) < 2:
        return {}
    last = len(people) - 1
    return {
        name: people[i + 1 if i % 2 == 0 and i < last else i - 1] for i, name in enumerate(people)
    }


def _pairs(
    run: "GatedRun",
    given: "Permit",
    data: Path,
    partners: dict[str, str],
    out: Path,
    fabric: "Fabric",
) -> "Iterator[Item]":
    """Write each photo with its swap, and yield the rows of both."""
    import numpy as np

    from facekit import generators
    from facekit.commands.generator_convert import facts_of
    from facekit.core.progress import progress
    from facekit.datasets.crops import is_video

    shown = [item for item in given.items if not is_video(item)]
    of_each = {name: [i for i in shown if i.subject == name] for name in partners}
    terms = {
        "kind": generators.load(run.facts["plugin"]).KIND,
        "facts": facts_of(run, given),
        "id": generators.mark_id(run, given),
        "consent": sorted({*run.permit.records, *given.records}),
    }
    left_out: list[str] = []
    number = done = 0
    with progress("swapping faces", sum(map(len, of_each.values()))) as advance:
        for name, mine in of_each.items():
            waiting: deque[Pixels] = deque()  # there are too many photos to hold them all
            changed: Iterator[Frame] = generators.generate(
                *(run, _read(data, mine, waiting), fabric),
                given=given,
                source=partners[name],
                target=name,
                still=True,
            )
            for item, swap in zip(mine, changed, strict=True):
                done += 1
                advance(done, name)
                if np.array_equal(waiting.popleft(), swap.pixels):
                    left_out.append(item.path)
                    continue
                yield from write_pair(
                    data,
                    item,
                    out / f"{number:05d}-swap.png",
                    swap.pixels,
                    generator=run.facts["plugin"],
                    facts={"donor": partners[name], "run": run.id},
                    terms={**terms, "inputs": {data / item.path: item.sha256}},
                )
                number += 1
    if left_out:
        log.info("%d photos show no face that can be replaced: %s", len(left_out), left_out[0])


def _read(folder: Path, items: "Sequence[Item]", waiting: "deque[Pixels]") -> "Iterator[Frame]":
    """Read photos one after the other, and put each into ``waiting`` as well."""
    from facekit.media.images import read_image
    from facekit.types import Frame

    for i, item in enumerate(items):
        pixels = read_image(folder / item.path)
        waiting.append(pixels)
        yield Frame(pixels, 0.0, i)


def write_pair(
    folder: Path,
    item: "Item",
    path: Path,
    forgery: "Pixels",
    *,
    generator: str,
    facts: dict[str, object],
    terms: dict[str, Any],
) -> "list[Item]":
    """Write what a photo was made into, and the photo, untouched, beside it.

    Args:
        folder: the photo's.
        item: the photo, as the folder's manifest has it.
        path: of the forgery, NUMBER-KIND.png; the photo becomes NUMBER with its own suffix.
        forgery: uint8 (H, W, 3).
        generator: the plug-in that made it.
        facts: for the forgery's row of the manifest.
        terms: for :func:`facekit.export.write_image`.

    Returns:
        The rows of both; their ``source`` is one, so that no division parts them.

    Raises:
        FacekitError: if the photo is no longer the one that was let pass.
    """
    from facekit import export
    from facekit.core import files

    photo = folder / item.path
    original = path.with_name(path.stem.rpartition("-")[0] + photo.suffix.lower())
    shutil.copyfile(photo, original)
    if files.sha256(original) != item.sha256:
        raise FacekitError(f"{photo} was changed while it was used; begin again")
    export.write_image(path, forgery, badge=None, **terms)
    source = item.source or item.path
    changes = {"path": path.name, "sha256": files.sha256(path), "generator": generator}
    return [
        item.model_copy(update={"path": original.name, "label": 0, "source": source}),
        item.model_copy(update={**changes, "label": 1, "source": source, "facts": facts}),
    ]
