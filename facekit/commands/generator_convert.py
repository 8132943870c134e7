"""What ``facekit generator run --input`` does: check, plan, convert, export."""

import logging
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facekit.core.errors import FacekitError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lightning_fabric import Fabric

    from facekit.conversion import Finish, Plan
    from facekit.export import Corner, Exported
    from facekit.generators import GatedRun, Permit
    from facekit.types import Frame, Pixels

log = logging.getLogger("facekit")

_PLAN = "plan.json"
_PREVIEW_WIDTH = 640
"""Of each half of a preview, in pixels at most."""


@dataclass(frozen=True)
class Converted:
    """What :func:`convert_file` wrote.

    Attributes:
        exported: the file.
        preview: the side-by-side file, if one was wanted.
        plan: in which frames the face was replaced, and why not in the others.
    """

    exported: "Exported"
    preview: "Exported | None"
    plan: "Plan"

    @property
    def frames(self) -> int:
        """How many it has; 1 for a picture."""
        return len(self.plan.places)

    @property
    def changed(self) -> int:
        """In how many of them the face was replaced."""
        return self.plan.changed


def convert_file(
    folder: Path,
    source_file: str,
    out: Path,
    fabric: "Fabric",
    *,
    source: str,
    target: str | None = None,
    consent: "Sequence[str]" = (),
    badge: "Corner" = "bottom-left",
    reference: Path | None = None,
    finish: "Finish | None" = None,
    preview: Path | None = None,
) -> Converted:
    """Check that ``source_file`` may be changed, change it, and export the result to ``out``.

    If it is interrupted, the same call goes on where it was: with the stretches of the video that
    were finished, and with the plan.

    Args:
        folder: of the generator's run.
        source_file: a certified studio clip or picture, or a real one.
        out: to write to.
        fabric: where and how precisely to compute.
        source: the person to show.
        target: who is in the input, if it is known.
        consent: ids of the consent records of everyone in a real input.
        badge: the corner in which the word "synthetic" stands.
        reference: a photo of the person in the input whose face is to be replaced; by default it
            is the largest face, of a video in its first frame that shows any.
        finish: how the new face is fitted in; None for the default.
        preview: also write the original and the result side by side, to this file.

    Raises:
        FacekitError: if the input is live, growing, neither certified nor covered by consent, or
            shows no face that can be replaced; or ``out`` is of another kind than it; or the
            reference photo shows nobody who is in it; or the run or a person is unusable; or the
            input is changed, or consent is revoked or expires, meanwhile. Then there is no file.
    """
    from facekit import conversion, export, generators
    from facekit.media.decode import Video, probe
    from facekit.media.images import read_image
    from facekit.media.stretches import Stretches
    from facekit.types import Frame

    path = generators.closed_file(source_file)
    run = generators.open_run(folder)
    kind = generators.load(run.facts["plugin"]).KIND
    is_picture = probe(path).kind == "image"
    for file in filter(None, (out, preview)):
        _require_kind(file, path, is_picture)
    if preview is not None and preview.resolve() == out.resolve():
        raise FacekitError(f"--preview {preview}: is --out as well; give two names")
    photo = None if reference is None else read_image(reference)
    for file in filter(None, (out, preview)):
        export.require_apart(file, [path, *([reference] if reference else [])])
    with Stretches.kept_if_allowed(out):
        given = generators.admit_file(path, consent, fabric.device)
    finish = finish or conversion.Finish()
    facts = facts_of(run, given)
    if run.permit.certificate:
        facts["source"] = source  # a real person's pseudonym is left out: the manifest is public
    terms: dict[str, Any] = {
        "kind": kind,
        "inputs": given.files,
        "id": generators.mark_id(run, given),
        "consent": sorted({*run.permit.records, *given.records}),
        "badge": badge,
    }

    def change(frames: "Iterable[Frame]", plan: "Plan", first: int = 0) -> "Iterator[Frame]":
        tally = _Tally(path, len(plan.places), first)
        changed = generators.generate(
            *(run, tally.note(frames), fabric),
            given=given,
            source=source,
            target=target,
            plan=plan,
            finish=finish,
            first=first,
        )
        return tally.compare(changed)

    def told(plan: "Plan") -> dict[str, object]:
        _require_same(given)
        _require_changed(path, plan)
        return {**facts, "frames": len(plan.places), "changed": plan.changed}

    if is_picture:
        pixels = read_image(path)
        plan = conversion.plan_picture(pixels, device=fabric.device, reference=photo)
        facts = told(plan)
        (picture,) = change([Frame(pixels, 0.0, 0)], plan)
        exported = export.write_image(out, picture.pixels, facts=facts, **terms)
        shown = None
        if preview is not None:
            pair = _beside(pixels, picture.pixels)
            shown = export.write_image(preview, pair, facts=facts, **terms)
        return Converted(exported, shown, plan)

    with Video(path) as video:
        rate = video.info.rate or 25.0
        audio = path if video.info.has_audio else None
        made_from = {
            **_made_from(run, given, fabric, reference),
            **{"source": source, "target": target, "badge": badge, "finish": asdict(finish)},
        }
        size = (video.info.width, video.info.height)
        with Stretches(out, made_from, size=size) as stretches:
            kept = stretches.read(_PLAN)
            if kept is not None:
                plan = conversion.Plan.from_json(kept)
            else:
                seconds = video.info.duration
                total = round(seconds * rate) if seconds else None
                plan = conversion.plan_clip(
                    video, device=fabric.device, reference=photo, total=total
                )
                stretches.write(_PLAN, plan.to_json())
            facts = told(plan)
            exported = export.write_video(
                out,
                change(video, plan, stretches.first),
                rate=rate,
                audio_from=audio,
                facts=facts,
                stretches=stretches,
                **terms,
            )
            # Before the stretches go: who is interrupted here does not begin anew.
            shown = None
            if preview is not None:
                with Video(out) as result:
                    pairs = _pairs(video, result, video.info.width, video.info.height)
                    shown = export.write_video(
                        preview, pairs, rate=rate, audio_from=audio, facts=facts, **terms
                    )
    return Converted(exported, shown, plan)


def show(converted: Converted, source: str, as_json: bool) -> None:
    """Print what was done."""
    import json

    exported, plan = converted.exported, converted.plan
    publish = exported.provenance.claims["facts"]["publish"]
    facts = {
        "path": str(exported.path),
        "preview": str(converted.preview.path) if converted.preview else None,
        "source": source,
        "frames": converted.frames,
        "changed": converted.changed,
        "untouched": [asdict(stretch) for stretch in plan.untouched()],
        "mark": exported.reading.to_json(),
        "provenance": exported.provenance.status,
        "publish": publish,
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2, default=str))
        return
    click.echo(
        f"{exported.path}: {source} shown in {converted.changed} of {converted.frames} frames, "
        f"marked as {exported.reading.kind}, manifest signed"
    )
    if converted.changed < converted.frames:
        from facekit.conversion import listed

        click.echo(f"left as they are: {listed(plan.places)}")
    if converted.preview:
        click.echo(f"{converted.preview.path}: original and result side by side")
    if not publish:
        click.echo("keep it to yourself: not everyone shown has consented to 'publish'")


def facts_of(run: "GatedRun", *given: "Permit") -> dict[str, object]:
    """What the manifest says of the consent to a file; records' ids, which it hashes, apart."""
    permits = (run.permit, *given)
    origins = {permit.origin for permit in permits}
    return {
        # A person who doesn't exist in a real video: that is the consent's.
        "origin": origins.pop() if len(origins) == 1 else "consent",
        "generator": run.facts["plugin"],
        "run": run.id,
        "certificates": sorted({permit.certificate for permit in permits} - {""}),
        "publish": all(permit.covers("publish") for permit in permits),
    }


def _require_kind(out: Path, path: Path, is_picture: bool) -> None:
    wanted = {".png", ".jpg", ".jpeg", ".webp"} if is_picture else {".mp4"}
    if out.suffix.lower() not in wanted:
        raise FacekitError(f"{out}: from {path.name} comes one of {', '.join(sorted(wanted))}")


def _require_same(given: "Permit") -> None:
    """See that what was planned for is what was let pass.

    Raises:
        FacekitError: if it has been changed.
    """
    from facekit.core import files

    for path, digest in given.files.items():
        if files.sha256(path) != digest:
            raise FacekitError(f"{path} was changed while it was used; let it be, and begin again")


def _require_changed(path: Path, plan: "Plan") -> None:
    """See that there is a face to replace, and say which frames have none.

    Raises:
        FacekitError: if no frame has.
    """
    from facekit.conversion import listed

    if not plan.changed:
        raise FacekitError(
            f"{path}: no frame shows a face that can be replaced ({listed(plan.places)}); "
            "nothing was written"
        )
    if plan.changed < len(plan.places):
        log.info(
            "%s: %d of %d frames are left as they are: %s",
            *(path, len(plan.places) - plan.changed, len(plan.places), listed(plan.places)),
        )


def _made_from(
    run: "GatedRun", given: "Permit", fabric: "Fabric", reference: Path | None
) -> dict[str, Any]:
    """All that the frames depend on: with anything else, finished stretches are made again."""
    from facekit.core import files

    return {
        **made_by(run, fabric),
        "inputs": sorted(given.files.values()),
        "records": sorted({*run.permit.records, *given.records}),
        "reference": files.sha256(reference) if reference else None,
    }


def made_by(generator: "GatedRun | str", fabric: "Fabric") -> dict[str, Any]:
    """What frames depend on besides what goes in: a run, or bundled weights by name, and where."""
    import torch

    from facekit import __version__
    from facekit.core import files
    from facekit.core.device import precision_of

    checkpoints = [] if isinstance(generator, str) else generator.checkpoints()
    return {
        "facekit": __version__,
        "run": generator if isinstance(generator, str) else generator.id,
        "checkpoint": files.sha256(checkpoints[-1]) if checkpoints else None,
        "device": fabric.device.type,
        "precision": precision_of(fabric),
        "threads": torch.get_num_threads(),
    }


def _beside(original: "Pixels", result: "Pixels") -> "Pixels":
    """Two pictures of one size, side by side, each at most ``_PREVIEW_WIDTH`` wide."""
    import cv2
    import numpy as np

    height, width = original.shape[:2]
    scale = min(1.0, _PREVIEW_WIDTH / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    halves = [cv2.resize(half, size, interpolation=cv2.INTER_AREA) for half in (original, result)]
    return np.hstack(halves).astype(np.uint8)


def _pairs(
    originals: "Iterable[Frame]", results: "Iterable[Frame]", width: int, height: int
) -> "Iterator[Frame]":
    """The frames of two videos side by side; the result's may be padded to even sides."""
    from facekit.types import Frame

    for original, result in zip(originals, results, strict=True):
        pixels = _beside(original.pixels, result.pixels[:height, :width])
        yield Frame(pixels, original.time, original.index)


class _Tally:
    """Sees that a generator changes something, and shows its progress; a plug-in need not."""

    def __init__(self, path: Path, total: int, first: int) -> None:
        self.path = path
        self._total = total
        self._first = first
        self._changed = first > 0  # as the finished stretches show
        self._waiting: deque[Pixels] = deque()

    def note(self, frames: "Iterable[Frame]") -> "Iterator[Frame]":
        """Pass on what the generator is given."""
        for number, frame in enumerate(frames):
            if number >= self._first and not self._changed:
                self._waiting.append(frame.pixels)
            yield frame

    def compare(self, frames: "Iterable[Frame]") -> "Iterator[Frame]":
        """Pass on what it hands back, in the same order.

        Raises:
            FacekitError: at the end, if none was changed; an export then leaves no file.
        """
        import numpy as np

        from facekit.core.progress import progress

        with progress("replacing faces", self._total) as advance:
            for number, frame in enumerate(frames, start=self._first):
                if not self._changed:
                    before = self._waiting.popleft()
                    self._changed = not np.array_equal(before, frame.pixels)
                else:
                    self._waiting.clear()
                advance(number + 1, "")
                yield frame
        if not self._changed:
            raise FacekitError(f"{self.path}: no frame shows a face; nothing was written")
