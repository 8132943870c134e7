"""The fairness audits: of people who don't exist, and of the London Set's test half.

*The studio.* A detector that was trained with untouched renders as class 0 meets renders of other
people, untouched and forged. Every combination of skin tone, sex and age band is shown equally
often, so no group's rate stands for another's: skin tone does not come with an age, as it does in
collections. Forgeries (self-blends, and ``detectors.held_out``'s) are there to show that the
detector is one: who never calls anything generated is fair as well.

*Photos.* A detector calibrated for cameras meets the London Set's test half. 51 people are too few
to say much; the intervals show it.

Faces are located as in any picture, and go through the world that the detector was trained for.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from detectors import collections, held_out, metrics
from detectors.calibrate import Scores
from detectors.collections import Collection
from detectors.data import FaceSet, Sample, befallen, gather, with_forgeries
from detectors.fairness import FEWEST, Gap, Rate, Seen, figures, gap, rates
from detectors.score import FILE, Detector
from detectors.train import Splits, read_config, train
from detectors.world import World
from facekit.core import device as devices
from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.core.figures import Figure, with_goals
from facekit.core.progress import progress
from facekit.core.run import Run
from facekit.core.seed import Purpose, rng
from facekit.studio.certificate import STUDIO_VERSION
from facekit.studio.performance import Performance, performance_seed
from facekit.studio.person import MOST_PEOPLE, Person
from facekit.studio.pool import render_frames
from facekit.types import Pixels

CONFIG = "detectors/studio"
"""The config of the detector that an audit trains."""

STUDIO, CAMERA = "studio", "camera"
"""What a detector may be calibrated for."""

ENOUGH = 500
"""People of each group that the studio's audit asks for."""

_TONES = {f"{tone}-{tone + 1}": (tone, tone + 1) for tone in range(1, 10, 2)}
_AGES = {"18-29": 30, "30-44": 45, "45-59": 60, "60-80": 81}  # up to, in years
_SEXES = ("women", "men")
_CELLS = len(_TONES) * len(_SEXES) * len(_AGES)

# Seeds of folders that nobody renders by chance; an audit has room for 50,000 people of each kind.
_AUDITED, _TRAINED_ON, _ROOM = 1_000_000, 1_000_050, 100
_SPLITS = {"train": 180, "validation": 40, "calibration": 80}  # people of the trained detector
_FRAMES = 6  # of each
_TELLING = 0.75  # an AUC below which fairness says little
_BLOCK = 60  # people rendered, forged and scored at a time
_LONDON = Collection(
    name="london-test", layout="london", path="data/london", part="second half", label=0
)


@dataclass(frozen=True)
class Audit:
    """What a detector said of everyone in an audit; all figures follow from it.

    Attributes:
        what: it was made on, for tables: "studio" or "London".
        detector: its name.
        threshold: above it, a face is called generated.
        untouched: photos as they are.
        forged: forgeries of them; empty where none were made.
    """

    what: str
    detector: str
    threshold: float
    untouched: list[Seen]
    forged: list[Seen]

    @property
    def prefix(self) -> str:
        """What its figures' names begin with."""
        return f"detect.{self.what.lower()}"


def groups_of(person: Person) -> dict[str, str]:
    """A studio person's skin tone (two by two on the Monk scale), sex and age band."""
    return {
        "skin tone": next(name for name, tones in _TONES.items() if person.skin_tone in tones),
        "sex": _SEXES[person.sex >= 0.5],
        "age": next(name for name, end in _AGES.items() if person.age < end),
    }


def cast(per_group: int, seed: int) -> list[Person]:
    """People of whom each skin tone, sex and age band has ``per_group`` or more.

    The smallest groups are the skin tones, so that is what decides: 500 of each are 2,520 people.
    People are sampled one after the other and kept while their combination is short of people.
    """
    each = -(-per_group * len(_TONES) // _CELLS)
    room: dict[tuple[str, ...], int] = {}
    chosen: list[Person] = []
    with progress("choosing people", each * _CELLS) as advance:
        for number in count((_AUDITED + _ROOM * seed) * MOST_PEOPLE):
            if len(chosen) == each * _CELLS:
                return chosen
            person = Person.sample(number)
            cell = tuple(groups_of(person).values())
            if room.setdefault(cell, each):
                room[cell] -= 1
                chosen.append(person)
                advance(len(chosen), "")
    raise AssertionError("count never ends")


def photos(
    people: Sequence[Person],
    *,
    frames: int,
    size: int,
    seed: int,
    workers: int,
    cache: Path,
    title: str,
) -> Iterator[tuple[list[Person], Pixels]]:
    """Photos of studio people, some people at a time; each is rendered but once for a cache.

    Args:
        people: whom.
        frames: photos of each.
        size: side in pixels.
        seed: of the performances.
        workers: processes to render in; the pictures do not depend on it.
        cache: folder for what is rendered, about 0.1 MB a photo of 192 pixels.
        title: of the progress bar, which also shows what the caller does with each block.

    Yields:
        Some people, and uint8 (people, frames, size, size, 3).
    """
    blocks = [list(people[k : k + _BLOCK]) for k in range(0, len(people), _BLOCK)]
    paths = [cache / f"{_key(block, frames, size, seed)}.npy" for block in blocks]
    missing = [
        (person, Performance.sample(performance_seed(seed, person.seed, j)))
        for block, path in zip(blocks, paths, strict=True)
        if not path.is_file()
        for person in block
        for j in range(frames)
    ]
    renders = render_frames(missing, size, min(workers, max(len(missing), 1)), want=())
    done = 0
    with closing(renders), progress(title, len(people)) as advance:
        for block, path in zip(blocks, paths, strict=True):
            shape = (len(block), frames, size, size, 3)
            if path.is_file():
                pictures = _cached(path, shape)
            else:
                pictures = np.empty(shape, np.uint8)
                flat = pictures.reshape(-1, size, size, 3)
                for k, result in enumerate(islice(renders, len(flat))):
                    flat[k] = result.pixels
                    advance(done + k // frames, "")
                with files.replacing(path) as partial:
                    np.save(partial, pictures, allow_pickle=False)
            done += len(block)
            advance(done, "")
            yield block, pictures


def _key(block: Sequence[Person], frames: int, size: int, seed: int) -> str:
    told = [[person.seed for person in block], frames, size, seed, STUDIO_VERSION]
    return "people-" + hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _cached(path: Path, shape: tuple[int, ...]) -> Pixels:
    try:
        pictures: Pixels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise FacekitError(f"{path}: damaged ({reason}); remove it, and it is made again") from None
    if pictures.shape != shape or pictures.dtype != np.uint8:
        raise FacekitError(f"{path}: damaged (another shape); remove it, and it is made again")
    return pictures


# --- the studio -------------------------------------------------------------------------------


def train_detector(
    folder: Path, fabric: Fabric, *, size: int, seed: int, workers: int, cache: Path
) -> Detector:
    """The detector of an audit: trained by ``CONFIG`` on people of whom it will meet none.

    Args:
        folder: of the run; one that is finished is loaded.
        fabric: where to compute.
        size: of the renders, in pixels.
        seed: of people and training.
        workers: processes to render in.
        cache: folder for renders.
    """
    if not (folder / FILE).is_file():
        plugin, recipe = read_config(CONFIG)
        first = (_TRAINED_ON + _ROOM * seed) * MOST_PEOPLE
        total = sum(_SPLITS.values())
        told = [first, list(_SPLITS.values()), _FRAMES, size, STUDIO_VERSION]
        run = Run.start(
            folder,
            plugin=plugin,
            config=recipe,
            seed=seed,
            data_hash=hashlib.sha256(json.dumps(told).encode()).hexdigest(),
            threads=torch.get_num_threads(),
            precision=devices.precision_of(fabric),
        )
        people = [Person.sample(first + i) for i in range(total)]
        shots = photos(
            people,
            frames=_FRAMES,
            size=size,
            seed=seed,
            workers=workers,
            cache=cache,
            title="rendering people to train on",
        )
        gathered = [gather(_samples(block, taken), device=fabric.device) for block, taken in shots]
        faces = sum(gathered[1:], start=gathered[0])
        split = _split_of([person.seed for person in people])
        parts = {
            name: faces.subset([i for i, who in enumerate(faces.subjects) if split[who] == name])
            for name in _SPLITS
        }
        run.note(data=f"{total} studio people, {len(faces)} faces of {_FRAMES} photos each")
        train(recipe, Splits(**parts), run, fabric, calibrated_for=[STUDIO])
    return Detector.load(folder, fabric.device)


def _split_of(numbers: Sequence[int]) -> dict[str, str]:
    """Person → split, in order."""
    names = [name for name, share in _SPLITS.items() for _ in range(share)]
    return {_named(number): name for number, name in zip(numbers, names, strict=True)}


def _named(number: int) -> str:
    """As ``facekit.datasets.manifest.person_of`` calls a studio person in any folder."""
    return f"studio person {number}"


def _samples(people: Sequence[Person], pictures: Pixels) -> Iterator[Sample]:
    for person, own in zip(people, pictures, strict=True):
        for j, pixels in enumerate(own):
            who = _named(person.seed)
            yield Sample(pixels, 0, who, f"{who}, photo {j}", maker=STUDIO, collection=STUDIO)


def audit_studio(
    detector: Detector,
    *,
    device: torch.device,
    cache: Path,
    per_group: int = ENOUGH,
    frames: int = 2,
    size: int = 192,
    seed: int = 0,
    workers: int = 2,
) -> Audit:
    """Rates of a detector by skin tone, sex and age, among studio people whom it never saw.

    Args:
        detector: calibrated for the studio.
        device: where to locate and score.
        cache: folder for renders.
        per_group: people of each group, at least.
        frames: untouched photos of each; of the first one a forgery is made.
        size: of the renders, in pixels.
        seed: of people, performances and forgeries.
        workers: processes to render in.

    Raises:
        FacekitError: for a detector that is not calibrated for the studio, or was trained on these
            very pictures.
    """
    if STUDIO not in detector.calibrated_for:
        raise FacekitError(
            f"{detector.name}: is calibrated for {', '.join(detector.calibrated_for)}, not for the "
            "studio; leave --detector out, and one is trained"
        )
    untouched: list[Seen] = []
    forged: list[Seen] = []
    people = cast(per_group, seed)
    shots = photos(
        people,
        frames=frames,
        size=size,
        seed=seed,
        workers=workers,
        cache=cache,
        title="rendering and scoring people",
    )
    for number, (block, pictures) in enumerate(shots):
        samples = list(_samples(block, pictures))
        mine, theirs = examine(detector, samples, block, device=device, key=(seed, number))
        untouched += mine
        forged += theirs
    return Audit(STUDIO, detector.name, detector.threshold, untouched, forged)


def examine(
    detector: Detector,
    samples: Sequence[Sample],
    people: Sequence[Person],
    *,
    device: torch.device,
    key: tuple[int, int],
) -> tuple[list[Seen], list[Seen]]:
    """What a detector says of untouched photos, and of a forgery of one photo of each person.

    Raises:
        FacekitError: if it was trained on one of them.
    """
    groups = {_named(person.seed): groups_of(person) for person in people}
    faces = gather(samples, device=device)
    if known := detector.seen.intersection(faces.digests):
        raise FacekitError(
            f"{detector.name}: was trained on {len(known)} of the photos to audit it on; "
            "give another --seed"
        )
    first = list({who: i for i, who in reversed(list(enumerate(faces.subjects)))}.values())
    random = rng(*key, Purpose.FORGERIES)
    # A third of the people's faces are spliced, a third have a part exchanged.
    made = [
        held_out.splices(faces.subset(first[k::3]), random, [kind])
        for k, kind in enumerate(("splice", "part"))
        if len(first[k::3]) > 1
    ]
    blended = with_forgeries(
        faces.subset(first[2::3]), ["self_blend"], key=int(random.integers(2**31))
    )
    made.append(blended.subset(np.flatnonzero(blended.labels == 1)))
    whole = sum(made, start=faces)
    seen = befallen(whole, _world(detector), key=int(random.integers(2**31)))
    scores = detector.score(seen.regions)
    told: tuple[list[Seen], list[Seen]] = ([], [])
    for label, who, score in zip(seen.labels, seen.subjects, scores, strict=True):
        told[int(label)].append(Seen(who, groups[who], float(score)))
    located = set(faces.sources)
    told[0].extend(
        Seen(sample.subject, groups[sample.subject], None)
        for sample in samples
        if sample.source not in located
    )
    return told


def _world(detector: Detector) -> World:
    world: World = detector.parts[0].config.data.world
    return world


# --- photos -----------------------------------------------------------------------------------


def audit_london(detector: Detector, data: Path, *, device: torch.device) -> Audit:
    """Rates of false alarms of the London Set's test half, by gender, ethnicity and age.

    Args:
        detector: calibrated for cameras, and trained on none of these photos.
        data: the folder that holds ``data/london``.
        device: where to locate and score.

    Raises:
        FacekitError: for a detector that is not calibrated for cameras or was trained on these
            photos, or if the folder has another layout.
    """
    if CAMERA not in detector.calibrated_for:
        raise FacekitError(
            f"{detector.name}: is calibrated for {', '.join(detector.calibrated_for)}, not for "
            "cameras; give one that is, e.g. --detector default"
        )
    entries = collections.read([_LONDON], data)
    groups = {entry.item.subject: _london_groups(entry.item.facts) for entry in entries}
    faces = gather(collections.samples(entries), device=device)
    if known := detector.seen.intersection(faces.digests):
        raise FacekitError(
            f"{detector.name}: was trained on {len(known)} of the London Set's test photos; its "
            "rates there would say nothing"
        )
    scores = detector.score(faces.regions)
    seen = [
        Seen(who, groups[who], float(score))
        for who, score in zip(faces.subjects, scores, strict=True)
    ]
    seen += _missed(faces, [(e.item.subject, e.item.source) for e in entries], groups)
    return Audit("London", detector.name, detector.threshold, seen, [])


def _missed(
    faces: FaceSet, photos: Sequence[tuple[str, str]], groups: dict[str, dict[str, str]]
) -> list[Seen]:
    located = set(faces.sources)
    return [Seen(who, groups[who], None) for who, source in photos if source not in located]


def _london_groups(facts: dict[str, Any]) -> dict[str, str]:
    known = ("gender", "ethnicity")
    groups: dict[str, str] = {name: str(facts[name]) for name in known if name in facts}
    if "age" in facts:
        bands = {"18-29": 30, "30-44": 45, "45 and more": 1000}
        groups["age"] = next(name for name, end in bands.items() if int(facts["age"]) < end)
    return groups


# --- what is kept and shown -------------------------------------------------------------------


def write(folder: Path, audits: Sequence[Audit]) -> None:
    """Keep what was said of everyone, a file for each audit: ``WHAT.json``."""
    for audit in audits:
        files.write_json(folder / f"{audit.what.lower()}.json", asdict(audit))


def read(folder: Path) -> list[Audit]:
    """The audits that a folder keeps.

    Raises:
        FacekitError: if there is none, or a file is damaged.
    """
    paths = [folder / f"{what}.json" for what in (STUDIO, "london")]
    audits = []
    for path in filter(Path.is_file, paths):
        kept = files.read_json(path)
        try:
            sides = {side: [Seen(**row) for row in kept[side]] for side in ("untouched", "forged")}
            audits.append(Audit(**{**kept, **sides}))
        except (KeyError, TypeError) as error:
            raise FacekitError(f"{path}: not an audit's file ({error}); make it anew") from None
    if not audits:
        raise FacekitError(
            f"{folder}: no finished audit in it (studio.json, london.json); make one with "
            "'facekit detector audit --out DIR'"
        )
    return audits


def report(audits: Sequence[Audit]) -> dict[str, Any]:
    """What audits show.

    Returns:
        ``page``: as ``detectors.report.evaluation.Evaluation`` has it; ``rates``: every count
        behind it, audit → "untouched" and "forged" → rows.
    """
    rows: list[Figure] = []
    notes: list[str] = []
    fairness: list[dict[str, Any]] = []
    told: dict[str, Any] = {}
    for audit in audits:
        found = {"untouched": rates(audit.untouched, audit.threshold)}
        widest = gap(audit.untouched, audit.threshold)
        if audit.forged:
            found["forged"] = rates(audit.forged, audit.threshold)
            rows += figures(found["untouched"], widest, audit.prefix)
            strength = _strength(audit, found["forged"][0])
            rows += strength
            if strength[-1].value < _TELLING:
                notes.append(
                    f"{audit.what}: an AUC of {strength[-1].value:.2f} is hardly a detector's; how "
                    "its false alarms are spread says little"
                )
        else:
            rows += figures(found["untouched"], None, audit.prefix)
        notes += _notes(audit, found["untouched"], widest)
        fairness += [rate.row(audit.what) for rate in found["untouched"]]
        told[audit.what] = {
            side: [{**asdict(rate), "established": rate.established} for rate in of_side]
            for side, of_side in found.items()
        }
    rows = with_goals(rows)
    facts = {
        f"{audit.what}, detector": f"{audit.detector}, threshold {audit.threshold:.4f}"
        for audit in audits
    }
    facts["intervals"] = "95%: Wilson's over the effective number of faces; gaps: people drawn"
    page = {
        "title": "Fairness audit",
        "facts": facts,
        "figures": [{**asdict(row), "holds": row.holds} for row in rows],
        "fairness": fairness,
        "notes": notes,
    }
    return {"page": page, "rates": told}


def _strength(audit: Audit, found: Rate) -> list[Figure]:
    """Whether there is a detector at all: ``PREFIX_tpr`` and ``PREFIX_auc``."""
    scored = [(s, 0) for s in audit.untouched if s.probability is not None]
    scored += [(s, 1) for s in audit.forged]
    scores: Scores = np.array([s.probability for s, _ in scored], np.float64)
    labels = np.array([label for _, label in scored], np.int64)
    _, cluster = np.unique([s.person for s, _ in scored], return_inverse=True)
    low, high = metrics.interval(metrics.auc, scores, labels, cluster.astype(np.int64))
    assert found.value is not None  # forgeries are made of faces that were found
    return [
        Figure(f"{audit.prefix}_tpr", found.value, low=found.low, high=found.high),
        Figure(f"{audit.prefix}_auc", metrics.auc(scores, labels), low=low, high=high),
    ]


def _notes(audit: Audit, found: Sequence[Rate], widest: Gap | None) -> list[str]:
    """What must be said beside the figures."""
    notes = []
    missed = found[0].missed
    if missed:
        notes.append(
            f"{audit.what}: in {missed} of {missed + found[0].faces} photos no face was found"
        )
    small = [rate for rate in found[1:] if not rate.established]
    if small:
        notes.append(
            f"{audit.what}: {len(small)} of {len(found) - 1} groups have fewer than {FEWEST} people"
            " and are not established"
        )
    if audit.what != STUDIO:
        return notes
    fewest = min(rate.people for rate in found)
    if fewest < ENOUGH:
        notes.append(f"studio: {fewest} people in the smallest group; an audit asks for {ENOUGH}")
    if widest:
        notes.append(
            f"studio: the largest difference is by {widest.attribute}: {widest.highest} are called "
            f"generated most often, {widest.lowest} least; groups drawn by lot differ by "
            f"{widest.by_chance:.4f} on average, and as much as here in {widest.p:.1%} of draws"
        )
    return notes
