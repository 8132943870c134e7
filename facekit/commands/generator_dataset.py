"""What ``facekit generator run --input FOLDER --dataset`` does: swaps beside their originals.

A detector that learns from them sees each photo twice, untouched and with another face, so that
nothing but the swap tells the two apart.
"""

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from facekit.core.errors import FacekitError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightning_fabric import Fabric

    from facekit.generators import GatedRun, Permit
    from facekit.types import Item

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
    from facekit.core import files
    from facekit.types import JOURNAL, MANIFEST, write_manifest

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
    # Until the manifest is written, this says that the folder will be a data set.
    files.write_jsonl(out / JOURNAL, [{"generator": run.facts["plugin"], "run": run.id}])
    items = list(_pairs(run, given, data, partners, out, fabric))
    if not items:
        raise FacekitError(f"{data}: no photo shows a face that can be replaced")
    write_manifest(out, items)
    (out / JOURNAL).unlink()
    return len(items) // 2


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

    from facekit import export, generators
    from facekit.commands.generator_convert import facts_of
    from facekit.core import files
    from facekit.core.progress import progress
    from facekit.media.find import VIDEO_SUFFIXES
    from facekit.media.images import read_image
    from facekit.types import Frame

    shown = [item for item in given.items if Path(item.path).suffix.lower() not in VIDEO_SUFFIXES]
    of_each = {name: [i for i in shown if i.subject == name] for name in partners}
    terms = {
        "kind": generators.load(run.facts["plugin"]).KIND,
        "id": generators.mark_id(run, given),
        "consent": sorted({*run.permit.records, *given.records}),
    }
    left_out: list[str] = []
    number = done = 0
    with progress("swapping faces", sum(map(len, of_each.values()))) as advance:
        for name, mine in of_each.items():
            photos = [read_image(data / item.path) for item in mine]
            frames = [Frame(pixels, 0.0, i) for i, pixels in enumerate(photos)]
            changed: Iterator[Frame] = generators.generate(
                *(run, frames, fabric),
                given=given,
                source=partners[name],
                target=name,
                still=True,
            )
            for item, photo, swap in zip(mine, photos, changed, strict=True):
                done += 1
                advance(done, name)
                if np.array_equal(photo, swap.pixels):
                    left_out.append(item.path)
                    continue
                path = data / item.path
                original = out / f"{number:05d}{path.suffix.lower()}"
                swapped = out / f"{number:05d}-swap.png"
                number += 1
                shutil.copyfile(path, original)
                if files.sha256(original) != item.sha256:
                    raise FacekitError(f"{path} was changed while it was used; begin again")
                export.write_image(
                    swapped,
                    swap.pixels,
                    inputs={path: item.sha256},
                    facts=facts_of(run, given),
                    badge=None,
                    **terms,
                )
                source = item.source or item.path
                yield item.model_copy(update={"path": original.name, "label": 0, "source": source})
                yield item.model_copy(
                    update={
                        "path": swapped.name,
                        "sha256": files.sha256(swapped),
                        "label": 1,
                        "source": source,
                        "generator": run.facts["plugin"],
                        "facts": {"donor": partners[name], "run": run.id},
                    }
                )
    if left_out:
        log.info("%d photos show no face that can be replaced: %s", len(left_out), left_out[0])
