"""Evaluations of face swaps: of a run, of runs, and of somebody else's frames.

Of studio people the true answer is known, and :mod:`facekit.generators._swap_truth` compares with
it. Of real people nobody knows it: there the judge's similarities and the estimators' readings of
the target's own photo must do, and what they say is less.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric

from facekit.conversion import Finish
from facekit.core.errors import FacekitError
from facekit.core.figures import Figure
from facekit.core.progress import progress
from facekit.core.seed import Purpose, rng
from facekit.datasets.crops import load_crops
from facekit.datasets.swap_truth import (
    Actor,
    Clip,
    Protocol,
    actors_of,
    aligned,
    pair_folder,
    portraits,
    read_frames,
    render_clips,
    require_frames,
)
from facekit.faces.align import TEMPLATES
from facekit.generators import GatedRun, generate, open_run
from facekit.generators._evaluate import beside
from facekit.generators._gate import Permit, admit_folder
from facekit.generators._swap_truth import (
    CEILING,
    TRUTH,
    Readers,
    Score,
    ceiling,
    figures,
    floors,
    judged,
    score,
    score_truth,
)
from facekit.types import Frame, Pixels

OWN = "own"

FINISH = Finish(colour="none", seam="feather", sharpen=False)
"""How swaps are laid in: the answer has the source's complexion, as the models draw it. Broad bands
would let the target's into the face; they are for faces whose colours were fitted. Sharpening is
for the eye: it brings nothing nearer to the answer."""

_SHOWN = 8  # clips on the sheet

Method = Callable[[int, Clip], Sequence[Pixels]]
"""The number of a clip and the clip → its swapped frames."""


@dataclass(frozen=True)
class Measured:
    """What an evaluation finds.

    Attributes:
        figures: rows.
        sheet: of some clips a frame: source, target, swap, true answer, uint8 (H, W, 3); of real
            people target and swap.
    """

    figures: list[Figure]
    sheet: Pixels


@dataclass(frozen=True)
class Cast:
    """Two people or more who are swapped with each other, and by what.

    Attributes:
        actors: them.
        method: what swaps.
        size: side of the aligned faces that it draws, in pixels, for the ceiling.
        kept: a folder for their rendered clips.
    """

    actors: Sequence[Actor]
    method: Method
    size: int
    kept: Path | None = None


def of_run(
    run: GatedRun,
    data: Path | None,
    consent: Sequence[str],
    protocol: Protocol,
    readers: Readers,
    fabric: Fabric,
    *,
    kept: Path | None = None,
    workers: int = 1,
) -> Measured:
    """Score a run: by the true answer, or, if its people are real, without.

    Args:
        run: from :func:`facekit.generators.open_run`.
        data: the folder that it learned from.
        consent: ids of the consent records of that folder.
        protocol: how many clips and frames; its pairs are not looked at.
        readers: networks.
        fabric: where and how precisely to compute.
        kept: a folder where rendered clips are kept.
        workers: processes to render with.

    Raises:
        FacekitError: if the folder is missing, may not be used, or is not the run's.
    """
    permit = _permit(run, data, consent, fabric)
    if data is None or not permit.certificate:
        return _of_real(run, data or Path(), permit, readers, fabric)
    actors = _learned(run, actors_of(data, permit.items))
    cast = Cast(actors, _by_run(run, permit, fabric), _size(run), kept)
    return measure([cast], protocol, readers, workers=workers)


def of_runs(
    folder: Path,
    data: Path,
    protocol: Protocol,
    readers: Readers,
    fabric: Fabric,
    *,
    kept: Path | None = None,
    workers: int = 1,
) -> Measured:
    """Score runs ``FOLDER/pair-SEED``, one for each pair of the protocol, in one table.

    Args:
        folder: of the runs.
        data: an export of the protocol, whose folders of people they learned from.
        protocol: the protocol.
        readers: networks.
        fabric: where and how precisely to compute.
        kept: a folder where rendered clips are kept.
        workers: processes to render with.

    Raises:
        FacekitError: if a run or a folder is missing, or they do not belong together.
    """
    casts = []
    for seed in protocol.pairs:
        people = data / pair_folder(seed) / "people"
        run = open_run(folder / pair_folder(seed))
        permit = _permit(run, people, (), fabric)
        actors = _learned(run, _actors_of_pair(people, seed, permit))
        casts.append(Cast(actors, _by_run(run, permit, fabric), _size(run), kept))
    return measure(casts, protocol, readers, workers=workers)


def of_frames(
    folder: Path,
    data: Path,
    protocol: Protocol,
    readers: Readers,
    fabric: Fabric,
    *,
    kept: Path | None = None,
    workers: int = 1,
) -> Measured:
    """Score the frames that somebody's method made of an export's clips.

    Args:
        folder: of the frames, named as in the export.
        data: the export, for the photos of the floors.
        protocol: the protocol.
        readers: networks.
        fabric: where to compute.
        kept: a folder where rendered clips are kept.
        workers: processes to render with.

    Raises:
        FacekitError: if frames are missing, too many or of another size, or ``data`` is no export.
    """
    require_frames(folder, protocol)
    casts = []
    for seed in protocol.pairs:
        people = data / pair_folder(seed) / "people"
        actors = _actors_of_pair(people, seed, admit_folder(people, (), fabric.device))

        def read(number: int, clip: Clip, seed: int = seed) -> Sequence[Pixels]:
            return read_frames(folder, protocol, seed, number)

        casts.append(Cast(actors, read, protocol.crop, kept))
    return measure(casts, protocol, readers, workers=workers)


def measure(
    casts: Sequence[Cast], protocol: Protocol, readers: Readers, *, workers: int = 1
) -> Measured:
    """Score methods and what stands beside them, in one table over all casts' clips.

    Args:
        casts: who is swapped, and by what.
        protocol: how many clips and frames.
        readers: networks.
        workers: processes to render with.
    """
    scores: dict[str, list[Score]] = {}
    shown: list[list[Pixels]] = []
    with progress("scoring clips", len(casts) * protocol.clips) as advance:
        for cast in casts:
            actors = cast.actors
            people = portraits(protocol, actors, kept=cast.kept, workers=workers)
            gallery = readers.identity.gallery(people)
            by_name = {actor.name: actor for actor in actors}
            clips = render_clips(protocol, actors, kept=cast.kept, workers=workers)
            for number, clip in enumerate(clips):
                of = judged(clip, actors, gallery, readers)
                swapped = list(cast.method(number, clip))
                found = {OWN: score(swapped, of, readers), TRUTH: score_truth(of)}
                pair = by_name[clip.source], by_name[clip.target]
                for name, frames in floors(clip, *pair):
                    found[name] = score(frames, of, readers)
                found[CEILING] = score(ceiling(clip, cast.size), of, readers)
                for name, one in found.items():
                    scores.setdefault(name, []).append(one)
                middle = len(clip.frames) // 2
                views = (
                    (people.frames[of.source, 0], people.points[of.source, 0]),
                    (clip.frames[middle], clip.points[middle]),
                    (swapped[middle], clip.points[middle]),
                    (clip.answers[middle], clip.answer_points[middle]),
                )
                shown.append([aligned(picture, points, 128) for picture, points in views])
                advance(len(shown), f"{scores[OWN][-1].psnr:.1f} dB")
    titles = ("source", "target", "swap", "true answer")
    return Measured(figures(scores, OWN), _sheet(shown, titles))


def _permit(run: GatedRun, data: Path | None, consent: Sequence[str], fabric: Fabric) -> Permit:
    if data is None:
        raise FacekitError(
            f"{run.folder}: --data is missing: give the folder that it learned from, whose people "
            "are swapped"
        )
    permit = admit_folder(data, consent, fabric.device)
    if permit.data_hash != run.facts["data_hash"]:
        raise FacekitError(
            f"{data}: not what {run.folder} learned from, or changed since; give that folder"
        )
    return permit


def _actors_of_pair(people: Path, seed: int, permit: Permit) -> list[Actor]:
    """The two people of a pair, who must be those of its seed."""
    from facekit.studio.person import person_seed

    actors = actors_of(people, permit.items)
    seeds = [actor.person.seed for actor in actors]
    if seeds != [person_seed(seed, i) for i in range(2)]:
        raise FacekitError(
            f"{people}: shows people {seeds}, not the two of pair {seed}; make the folder with "
            "'facekit generator evaluate swap_truth --export DIR'"
        )
    return actors


def _learned(run: GatedRun, actors: Sequence[Actor]) -> list[Actor]:
    """Those whom the run knows."""
    known = set(run.facts.get("people", ()))
    found = [actor for actor in actors if actor.name in known]
    if len(found) < 2:
        raise FacekitError(
            f"{run.folder}: knows {len(found)} of the folder's people; a swap takes two"
        )
    return found


def _size(run: GatedRun) -> int:
    return int(run.facts["config"].get("size", 128))


def _by_run(run: GatedRun, permit: Permit, fabric: Fabric) -> Method:
    def swapped(number: int, clip: Clip) -> Sequence[Pixels]:
        frames = [
            Frame(pixels, float(time), i)
            for i, (pixels, time) in enumerate(zip(clip.frames, clip.times, strict=True))
        ]
        made = generate(
            *(run, frames, fabric),
            given=permit,
            source=clip.source,
            target=clip.target,
            finish=FINISH,
        )
        return [frame.pixels for frame in made]

    return swapped


# --- real people ------------------------------------------------------------------------------


def _of_real(
    run: GatedRun, data: Path, permit: Permit, readers: Readers, fabric: Fabric
) -> Measured:
    """What can be said without a true answer, of swaps of the photos that the run learned from.

    The rows are called ``swap.real.…``, since they answer other questions, and no goal is theirs.
    """
    permit.check("generate")
    size = 256
    known = list(run.facts.get("people", ()))
    crops = load_crops(data, template="wide", size=size, device=fabric.device, items=permit.items)
    names = [item.subject for item in crops.items]
    people = [name for name in known if name in names]
    if len(people) < 2:
        raise FacekitError(
            f"{run.folder}: faces of {len(people)} of its people were found in "
            f"{data}; a swap takes two"
        )
    # Aligned "wide", a face's five points lie about where the template has them.
    points = np.repeat((TEMPLATES["wide"] * size).astype(np.float32)[None], len(names), 0)
    own = readers.read(list(crops.images), points)
    means = {
        person: own.vectors[[i for i, name in enumerate(names) if name == person]].mean(0)
        for person in people
    }
    rows: list[list[float]] = []
    shown: list[list[Pixels]] = []
    jobs = [
        (i, source)
        for i, name in enumerate(names)
        for source in people
        if source != name and name in people
    ]
    with progress("scoring photos", len(jobs)) as advance:
        for i, source in jobs:
            target = names[i]
            (frame,) = generate(
                run,
                [Frame(crops.images[i], 0.0, 0)],
                fabric,
                given=permit,
                source=source,
                target=target,
                still=True,
            )
            read = readers.read([frame.pixels], points[i : i + 1])
            to = {
                name: float(read.vectors[0] @ means[name]) / float(np.linalg.norm(means[name]))
                for name in (source, target)
            }
            turned = np.abs((read.pose[0] - own.pose[i] + 180) % 360 - 180).mean()
            moved = np.abs(read.expression[0] - own.expression[i]).mean()
            rows.append(
                [
                    float(to[source] > to[target]),
                    to[source],
                    to[target],
                    float(turned),
                    float(moved),
                ]
            )
            shown.append([crops.images[i], frame.pixels])
            advance(len(rows), source)
    values = np.array(rows)
    draws = rng(0, Purpose.BOOTSTRAP).integers(len(values), size=(1000, len(values)))
    low, high = np.percentile(values[draws].mean(1), [2.5, 97.5], axis=0)
    called = (
        ("strength", ""),
        ("similarity_to_source", ""),
        ("similarity_to_target", ""),
        ("pose_from_target", "°"),
        ("expression_from_target", ""),
    )
    table = [
        Figure(f"swap.real.{name}", float(values[:, k].mean()), unit, float(low[k]), float(high[k]))
        for k, (name, unit) in enumerate(called)
    ]
    return Measured(table, _sheet(shown, ("target", "swap")))


def _sheet(shown: Sequence[Sequence[Pixels]], titles: Sequence[str]) -> Pixels:
    """Some rows of pictures uint8 (S, S, 3) of all that there are, a column for each title."""
    chosen = np.linspace(0, len(shown) - 1, min(_SHOWN, len(shown))).round().astype(int)
    pictures = [np.stack([shown[i][k] for i in chosen]) for k in range(len(titles))]
    return beside(list(zip(titles, pictures, strict=True)), columns=2, scale=1)
