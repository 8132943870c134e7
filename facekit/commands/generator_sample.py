"""What ``facekit generator run`` makes of nothing: pictures, sheets, walks and mixtures."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facekit.commands.generator_convert import facts_of
from facekit.core.errors import FacekitError, did_you_mean

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from facekit.export import Corner, Exported
    from facekit.generators import GatedRun
    from facekit.types import Frame, Pixels

ENLARGED = 256
"""Side in pixels to which smaller pictures are enlarged: a smaller one may not hold its mark."""

STATION = 40
"""Frames of a walk from one face to the next."""

MIXED = 8
"""Faces that a mixture has at most on either side."""


@dataclass(frozen=True)
class Source:
    """A generator that makes pictures of nothing: a run, or bundled weights.

    Attributes:
        opened: the run, or the name of the weights.
        plugin: the generator's name.
        mark: what the watermark names.
        facts: for the manifests.
        records: ids of the consent records that it stands on.
        certificate: id of the studio certificate that it stands on, or "".
        weights: SHA-256 of bundled weights, or "".
    """

    opened: "GatedRun | str"
    plugin: str
    mark: int
    facts: dict[str, Any]
    records: tuple[str, ...] = ()
    certificate: str = ""
    weights: str = ""

    def frames(self, count: int, seed: int, fabric: "Fabric", **style: Any) -> "Iterator[Frame]":
        """Its pictures; see :func:`facekit.generators.sample`."""
        from facekit import generators

        return generators.sample(self.opened, count, seed, fabric, plugin=self.plugin, **style)

    def terms(self, **facts: Any) -> dict[str, Any]:
        """What :mod:`facekit.export` is to be told."""
        from facekit import generators

        kind = generators.load(self.plugin).KIND
        facts = {**self.facts, **facts}
        return {"kind": kind, "facts": facts, "id": self.mark, "consent": self.records}


@dataclass
class Wanted:
    """What to make.

    Attributes:
        count: of noises.
        seed: of the noises.
        truncation: how far styles go from their mean.
        coarse: of a mixture: how many layers take a row's style.
        out: folder for pictures, each in a file of its own.
        dataset: whether that folder becomes a data set: no badges, and a manifest.
        sheet: file for all pictures side by side.
        interpolate: file for a walk.
        mix: file for a mixture.
        badge: its corner.
    """

    count: int
    seed: int
    truncation: float
    coarse: int = 3
    out: Path | None = None
    dataset: bool = False
    sheet: Path | None = None
    interpolate: Path | None = None
    mix: Path | None = None
    badge: "Corner" = "bottom-left"
    files: "list[Exported]" = field(default_factory=list)


def opened(generator: str) -> Source:
    """A run's folder or the name of bundled weights, checked.

    Raises:
        FacekitError: if it is neither, or the run may not be used.
    """
    from facekit import generators
    from facekit.core import weights

    if Path(generator).is_dir():
        run = generators.open_run(Path(generator))
        plugin = str(run.facts["plugin"])
        return Source(
            *(run, plugin, generators.mark_id(run), facts_of(run)),
            records=run.permit.records,
            certificate=run.permit.certificate,
        )
    known = bundled()
    if generator not in known:
        raise FacekitError(
            f"{generator}: neither a run folder nor a bundled generator; "
            f"{did_you_mean(generator, known)}"
        )
    _, card = weights.find(_weights(), generator)
    plugin = plugin_of(generator)
    facts = {"origin": "studio", "generator": plugin, "weights": generator, "publish": True}
    mark = generators.mark_id(generator)
    return Source(generator, plugin, mark, facts, weights=str(card["sha256"]))


def bundled() -> list[str]:
    """The weights that generators come with: NAME of a plug-in, or NAME_VARIANT."""
    return sorted(path.stem for path in _weights().glob("*.safetensors") if plugin_of(path.stem))


def plugin_of(weights: str) -> str:
    """The generator of bundled weights by their name; "" if there is none."""
    from facekit.core import registry

    names = registry.names("facekit.generators")
    fitting = [name for name in names if weights == name or weights.startswith(f"{name}_")]
    return max(fitting, key=len, default="")


def make(source: Source, wanted: Wanted, fabric: "Fabric") -> None:
    """Make what is wanted, marked and signed; each file is added to ``wanted.files``."""
    if wanted.out is not None:
        _pictures(source, wanted, wanted.out, fabric)
    if wanted.sheet is not None:
        _sheet(source, wanted, wanted.sheet, fabric)
    if wanted.interpolate is not None:
        _walk(source, wanted, wanted.interpolate, fabric)
    if wanted.mix is not None:
        _mixture(source, wanted, wanted.mix, fabric)


def _pictures(source: Source, wanted: Wanted, out: Path, fabric: "Fabric") -> None:
    from facekit import export
    from facekit.core import files
    from facekit.core.progress import progress
    from facekit.types import JOURNAL, Item, write_manifest

    items: list[Item] = []
    if wanted.dataset:
        # Until the manifest is written, this says that the folder will be a data set.
        files.write_jsonl(out / JOURNAL, [{"generator": source.plugin, "seed": wanted.seed}])
    frames = source.frames(wanted.count, wanted.seed, fabric, truncation=wanted.truncation)
    with progress("drawing", wanted.count) as advance:
        for number, frame in enumerate(frames):
            path = out / f"{number:05d}.png"
            facts = {"seed": wanted.seed, "number": number, "truncation": wanted.truncation}
            exported = export.write_image(
                *(path, _enlarged(frame.pixels)),
                badge=None if wanted.dataset else wanted.badge,
                **source.terms(**facts),
            )
            wanted.files.append(exported)
            name = f"{source.plugin}-{wanted.seed}-{number:05d}"
            items.append(
                Item(
                    path=path.name,
                    sha256=files.sha256(path),
                    subject=name,
                    source=name,
                    label=1,
                    generator=source.plugin,
                    consent=source.certificate,
                    facts=facts,
                )
            )
            advance(number + 1, "")
    if wanted.dataset:
        write_manifest(out, items)
        (out / JOURNAL).unlink()


def _sheet(source: Source, wanted: Wanted, path: Path, fabric: "Fabric") -> None:
    from facekit import export

    frames = source.frames(wanted.count, wanted.seed, fabric, truncation=wanted.truncation)
    pixels = _grid([frame.pixels for frame in frames], columns=8)
    wanted.files.append(
        export.write_image(
            path, _enlarged(pixels), badge=wanted.badge, **source.terms(seed=wanted.seed)
        )
    )


def _walk(source: Source, wanted: Wanted, path: Path, fabric: "Fabric") -> None:
    from facekit import export, generators
    from facekit.types import Frame

    frames = source.frames(
        wanted.count, wanted.seed, fabric, truncation=wanted.truncation, between=STATION
    )
    wanted.files.append(
        export.write_video(
            path,
            (Frame(_enlarged(frame.pixels), frame.time, frame.index) for frame in frames),
            rate=generators.load(source.plugin).RATE,
            badge=wanted.badge,
            **source.terms(seed=wanted.seed),
        )
    )


def _mixture(source: Source, wanted: Wanted, path: Path, fabric: "Fabric") -> None:
    """A square of mixed styles, with the faces that they are of on the left and above."""
    import numpy as np

    from facekit import export

    count = min(wanted.count, MIXED)
    style = {"truncation": wanted.truncation}
    own = [frame.pixels for frame in source.frames(count, wanted.seed, fabric, **style)]
    style["coarse"] = wanted.coarse
    mixed = [frame.pixels for frame in source.frames(count, wanted.seed, fabric, **style)]
    cells = [np.full_like(own[0], 255), *own]
    for row in range(count):
        cells += [own[row], *mixed[row * count : (row + 1) * count]]
    pixels = _enlarged(_grid(cells, columns=count + 1))
    terms = source.terms(seed=wanted.seed, coarse=wanted.coarse)
    wanted.files.append(export.write_image(path, pixels, badge=wanted.badge, **terms))


def _grid(pictures: "list[Pixels]", columns: int) -> "Pixels":
    """Pictures of one size in rows, white where there are none left."""
    import numpy as np

    blank = np.full_like(pictures[0], 255)
    columns = min(columns, len(pictures))
    filled = pictures + [blank] * (-len(pictures) % columns)
    rows = [np.concatenate(filled[i : i + columns], 1) for i in range(0, len(filled), columns)]
    grid: Pixels = np.concatenate(rows, 0)
    return grid


def _enlarged(pixels: "Pixels") -> "Pixels":
    """Pictures too small for their mark, enlarged by a whole factor."""
    import cv2
    import numpy as np

    factor = -(-ENLARGED // min(pixels.shape[:2]))
    if factor == 1:
        return pixels
    height, width = pixels.shape[:2]
    size = (factor * width, factor * height)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _weights() -> Path:
    import facekit

    return Path(facekit.__file__).parent / "weights"
