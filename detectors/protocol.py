"""The evaluation that a config describes: one protocol for whatever detector is measured.

1. Gather faces that training has never seen: its own division's test people, collections that are
   for testing only, and forgeries made here of the test people (``detectors.forgeries``'s
   self-blends, and ``detectors.held_out``'s splices, which no training uses).
2. Refuse, if the detector was trained on any of the pictures.
3. Bring every face to the same size and compress it at random, all alike, so that neither size nor
   compression tells the classes apart.
4. Score: the detector, and beside it MesoNet and a spectrum with logistic regression that is
   fitted here on the training people. Then the detector again under corruptions and with a mark.
5. Write the scores of every face. Figures and page are made from those files alone, and can be so
   again without the data (``detectors.outcome``).

All chances follow from the config's seed.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError
from scipy.special import expit

from detectors import collections, corruptions, held_out, outcome, regions, shortcuts
from detectors.calibrate import Scores
from detectors.collections import Collection, Entry
from detectors.data import Faces, FaceSet, Sample, gather, with_forgeries
from detectors.outcome import REAL, Row
from detectors.regions import Region
from detectors.score import MODELS, Detector, Scorer, network_logits, to_tensor
from detectors.train import read_config
from detectors.world import brought
from facekit import watermark
from facekit.core import files, registry
from facekit.core.config import Config as BaseConfig
from facekit.core.errors import FacekitError
from facekit.core.figures import Figure
from facekit.core.progress import log, progress
from facekit.core.run import Run
from facekit.core.seed import Purpose, rng
from facekit.media import lossy
from facekit.media.find import VIDEO_SUFFIXES
from facekit.types import Pixels
from facekit.watermark.payload import Kind, Payload

_AT_ONCE = 64  # faces scored together
_GATHERED = 128  # pictures whose faces are held at their own resolution
_AUDITED = 200  # faces of each set of which shortcuts are audited
_WINDOW = 96  # pixels of a face that a spectrum is taken of
_TIMED = 64  # faces of which the speed is taken, five times
# What the small detectors are fitted on besides the data's own generated faces: name → kinds.
_FORGED = {"selfblend": ["self_blend"], "splice": ["splice", "part"]}
# The last but one number of keys whose others are a set's or a row's.
_FITTED, _MARKED = 1001, 1002


class Config(BaseConfig):
    """What is tested, and how.

    Attributes:
        seed: of all chances.
        training: the config of a training; what its division calls test is tested, and what it
            calls train is what the spectrum is fitted on.
        training_seed: of that training.
        untouched: further collections of untouched faces, for testing only.
        generated: collections for testing only, of generated faces, or of these beside their
            originals; each is a test by its name.
        most: of the untouched faces, at most so many of each collection.
        face: pixels of every face's box, its longer side.
        quality: of the JPEG that every face goes through, from and to.
        self_blends: how many are made.
        splices: how many people's faces are forged; each is once spliced, once has parts exchanged.
        spliced: the collections whose people they are made of.
        corrupted: of each class, how many faces are corrupted, eight ways in five strengths.
        marked: of how many untouched pictures a marked copy is scored.
        fitted: on so many faces of each class the spectrum is fitted.
        peers: plug-in → the authors' weights for it, relative to the data.
        matrix: whether detectors fitted on one maker's forgeries are tested on every other's.
    """

    seed: int = Field(0, ge=0)
    training: str = "detectors/default"
    training_seed: int = Field(0, ge=0)
    untouched: list[Collection] = Field(default_factory=list)
    generated: list[Collection] = Field(default_factory=list)
    most: int = Field(600, ge=1)
    face: int = Field(112, ge=32, le=320)
    quality: list[Annotated[int, Field(ge=1, le=100)]] = Field([60, 95], min_length=2, max_length=2)
    self_blends: int = Field(300, ge=0)
    splices: int = Field(150, ge=0)
    spliced: list[str] = Field(default_factory=list)
    corrupted: int = Field(96, ge=0)
    marked: int = Field(300, ge=0)
    fitted: int = Field(600, ge=0)
    peers: dict[str, list[str]] = Field(default_factory=dict)
    matrix: bool = False

    @field_validator("quality")
    @classmethod
    def _rises(cls, values: list[int]) -> list[int]:
        if values[0] > values[1]:
            raise PydanticCustomError("range", "the lower value must stand first")
        return values

    def quick(self) -> "Config":
        """As little of everything as shows that it works; its figures mean nothing."""
        few = {"most": 12, "self_blends": 12, "splices": 8, "corrupted": 4, "marked": 8}
        return self.model_copy(update={**few, "fitted": 24})


class Lost(NamedTuple):
    """A picture that gave no face, and why.

    Attributes:
        path: relative to the data.
        entry: of which it is, or is a frame.
        reason: as the scores give it.
    """

    path: str
    entry: Entry
    reason: str


@dataclass(frozen=True)
class TestSet:
    """Faces as they are shown to every scorer.

    Attributes:
        name: ``real``, or that of a collection or of a kind of forgery.
        faces: brought to one size, and compressed.
        paths: of the file that each was cut from, or made from, relative to the data.
        lost: pictures in which no face was found, or that cannot be read.
        tested: whether it is a test, or only a column of the matrix.
        paired: whether its faces are made from the untouched ones.
    """

    name: str
    faces: FaceSet
    paths: list[str]
    lost: list[Lost]
    tested: bool = True
    paired: bool = False


def measure(
    config: Config,
    data: Path,
    scorer: Scorer,
    out: Path,
    *,
    device: torch.device,
) -> dict[str, Any]:
    """Run the whole protocol.

    Args:
        config: what to test.
        data: the folder that the collections' paths are relative to.
        scorer: the detector, of whatever kind.
        out: the folder to write to.
        device: where to locate faces; the scorers know for themselves where they compute.

    Returns:
        What :func:`detectors.outcome.rebuild` finds in ``out``; it can be found again from there.

    Raises:
        FacekitError: if data is missing, of another layout or without one of the classes, if the
            detector was trained on some of it, or gives scores that are no numbers.
    """
    began = time.monotonic()
    notes = missing(config, data)
    for note in notes:
        log.warning("%s", note)
    sets, untouched = gather_sets(config, data, device)
    refuse_seen(scorer, sets)
    facts = {"name": scorer.name, **getattr(scorer, "facts", {})}
    run = Run.start(
        out,
        plugin=f"evaluation of {scorer.name} {str(facts.get('sha256', ''))[:12]}".strip(),
        config=config,
        seed=config.seed,
        data_hash=_hash_of(sets),
        threads=torch.get_num_threads(),
        precision="32-true",
    )
    references = peers_of(config, data)
    spectra, trained = fitted_scorers(config, data, device)
    rows = score_sets(sets, scorer, [*references, *spectra])
    variants = [
        *corrupted_rows(sets, rows, scorer, config),
        *marked_rows(untouched, rows, scorer, config, data, device),
    ]
    tested = [one.faces for one in sets if one.tested]
    shown = sum(tested[1:], start=tested[0])
    protocol = {
        **{key: run.facts[key] for key in ("config", "seed", "data_hash", "packages", "command")},
        "detector": {key: facts[key] for key in ("name", "sha256", "plugin") if key in facts},
        "coverage": scorer.calibration.coverage if isinstance(scorer, Detector) else None,
        "threshold": scorer.threshold if isinstance(scorer, Detector) else None,
        "peers": [one.name for one in [*references, *spectra[:1]]],
        "matrix": trained,
        "measured": [asdict(figure) for figure in speed(scorer, references, shown.regions)],
        "shortcuts": shortcut_rows(sets, data, config),
        "notes": notes,
    }
    log.info("measured in %.0f seconds", time.monotonic() - began)
    files.write_jsonl(out / outcome.SCORES, rows)
    files.write_jsonl(out / outcome.LABELS, (outcome.label_of(row).model_dump() for row in rows))
    files.write_jsonl(out / outcome.VARIANTS, variants)
    files.write_json(out / outcome.PROTOCOL, protocol)
    return outcome.rebuild(out)


def gather_sets(
    config: Config, data: Path, device: torch.device
) -> tuple[list[TestSet], list[Entry]]:
    """All that is shown to the scorers.

    Returns:
        The sets: the untouched faces, then each test's, then those that are only columns of the
        matrix; and the untouched pictures, of which some are later marked.

    Raises:
        FacekitError: if data is missing or of another layout, or has no face of one class.
    """
    division = divided(config, data)
    test = [entry for entry in division if entry.item.split == "test"]
    untouched = [entry for entry in test if entry.item.label == 0]
    untouched += collections.read_for_testing(_present(config.untouched, data), data, division)
    untouched = _at_most(untouched, config.most, config.seed)
    real, paths, lost = _gathered(untouched, data, device)
    if not len(real):
        raise FacekitError(f"{data}: holds no untouched face that training has not seen")
    sets = [TestSet(REAL, prepared(real, config, 0), paths, lost)]
    generated = collections.read_for_testing(_present(config.generated, data), data, division)
    # What training's own generated faces are, only the matrix asks.
    alone = [entry for entry in test if entry.item.label == 1 and config.matrix]
    for tested, entries in ((True, generated), (False, alone)):
        for name in dict.fromkeys(entry.collection.name for entry in entries):
            of_one = [entry for entry in entries if entry.collection.name == name]
            of_one = _at_most(of_one, config.most, config.seed)
            faces, paths_of_one, lost = _gathered(of_one, data, device)
            shown = prepared(faces, config, len(sets))
            sets.append(TestSet(name, shown, paths_of_one, lost, tested=tested))

    source_paths = dict(zip(real.sources, paths, strict=True))
    for name, forged in (
        ("selfblend", _self_blends(real, config)),
        ("splice", _splices(real, config)),
    ):
        if forged is not None:
            shown = prepared(forged, config, len(sets))
            places = [source_paths[source] for source in forged.sources]
            sets.append(TestSet(name, shown, places, [], paired=True))
    if not any(one.tested for one in sets[1:]):
        raise FacekitError(f"{data}: holds nothing generated to test on")
    return sets, untouched


def divided(config: Config, data: Path) -> list[Entry]:
    """The entries of the training's own collections that are there, each in its split.

    What is not there changes nothing for collections that share no person and no source with it.
    One that does may be divided otherwise than in training: :func:`refuse_seen` then stops, if
    that makes a picture a test that the detector has learnt from.

    Raises:
        FacekitError: if none is there.
    """
    _, recipe = read_config(config.training)
    entries = collections.read(_present(recipe.collections, data), data)
    if not entries:
        wanted = ", ".join(one.path for one in recipe.collections)
        raise FacekitError(f"{data}: holds none of what {config.training} lists ({wanted})")
    return collections.divide(entries, recipe.shares, config.training_seed, classes=(0,))


def _present(listed: Sequence[Collection], data: Path) -> list[Collection]:
    return [one for one in listed if (data / one.path).exists()]


def missing(config: Config, data: Path) -> list[str]:
    """What is to be said of collections and weights that the data lacks: a sentence each."""
    _, recipe = read_config(config.training)
    listed = [*recipe.collections, *config.untouched, *config.generated]
    paths = [one.path for one in listed if not (data / one.path).exists()]
    paths += [name for of in config.peers.values() for name in of if not (data / name).is_file()]
    notes = [
        f"{path} is not in the data: what needs it is left out" for path in dict.fromkeys(paths)
    ]
    if config.peers and not find_spec("h5py"):
        notes.append(
            "h5py, which reads published weights, is not installed: what needs it is left out; "
            "pip install 'facekit-toolkit[references]'"
        )
    return notes


def _at_most(entries: Sequence[Entry], most: int, seed: int) -> list[Entry]:
    """At most so many of each collection, drawn at random; in their order."""
    of_each: dict[str, list[int]] = {}
    for i, entry in enumerate(entries):
        of_each.setdefault(entry.collection.name, []).append(i)
    kept: list[int] = []
    for n, places in enumerate(of_each.values()):
        order = rng(seed, n, Purpose.FRAMES).permutation(len(places))[:most]
        kept += [places[i] for i in order]
    return [entries[i] for i in sorted(kept)]


def _spread(entries: Sequence[Entry], config: Config) -> list[Entry]:
    """About ``config.fitted`` of them, of each collection as many."""
    count = len({entry.collection.name for entry in entries})
    return _at_most(entries, -(-config.fitted // max(count, 1)), config.seed)


def _gathered(
    entries: Sequence[Entry], data: Path, device: torch.device
) -> tuple[FaceSet, list[str], list[Lost]]:
    """The faces of some pictures, the path of each, and the pictures without one."""
    # By their pixels; copies of a picture have the same.
    pictures: dict[str, list[Lost]] = {}
    unread: list[Lost] = []

    def noted() -> Iterator[Sample]:
        for path, entry, found in _named(entries, data):
            if isinstance(found, FacekitError):
                why = str(found).removeprefix(f"{entry.path}: ")
                unread.append(Lost(path, entry, f"unreadable: {why}"))
                continue
            lost = Lost(path, entry, "no face found")
            pictures.setdefault(_digest(found.pixels), []).append(lost)
            yield found

    faces = gather(noted(), device=device)
    paths = [pictures[digest].pop(0).path for digest in faces.digests]
    return faces, paths, [lost for without in pictures.values() for lost in without] + unread


def _named(
    entries: Sequence[Entry], data: Path
) -> Iterator[tuple[str, Entry, Sample | FacekitError]]:
    """What each entry decodes to, with paths relative to the data; a video's frames are numbered.

    The number after its last frame is that of what cannot be read of a video.
    """
    counted: Counter[Path] = Counter()
    for entry, found in collections.decoded(entries):
        path = entry.path.relative_to(data).as_posix()
        still = entry.path.suffix.lower() not in VIDEO_SUFFIXES
        yield (path if still else f"{path}{outcome.FRAME}{counted[entry.path]}"), entry, found
        counted[entry.path] += 1


def _self_blends(real: FaceSet, config: Config) -> FaceSet | None:
    order = rng(config.seed, 1, Purpose.FORGERIES).permutation(len(real))[: config.self_blends]
    if not len(order):
        return None
    both = with_forgeries(real.subset(order), ["self_blend"], key=config.seed)
    return both.subset(np.flatnonzero(both.labels == 1))


def _splices(real: FaceSet, config: Config) -> FaceSet | None:
    """Whole faces and parts of others, by code that no training uses."""
    of = [i for i, name in enumerate(real.collections) if name in config.spliced]
    random = rng(config.seed, 2, Purpose.FORGERIES)
    order = [of[i] for i in random.permutation(len(of))[: config.splices]]
    return held_out.splices(real.subset(order), random) if order else None


def score_sets(sets: Sequence[TestSet], scorer: Scorer, peers: Sequence[Scorer]) -> list[Row]:
    """A row for each face of each set, and for each picture that gave none; see ``outcome``."""
    rows: list[Row] = []
    with progress("Scoring", sum(len(one.faces) for one in sets)) as advance:
        for one in sets:
            for start in range(0, len(one.faces), _AT_ONCE):
                places = range(start, min(start + _AT_ONCE, len(one.faces)))
                shown = [one.faces.regions[i] for i in places]
                given = _outputs(scorer, shown)
                others = {peer.name: peer.score(shown) for peer in peers}
                for k, i in enumerate(places):
                    row = _row(one, one.paths[i], _sample_of(one.faces, i), len(rows))
                    row |= {name: values[k] for name, values in given.items()}
                    row["peers"] = {name: _rounded(values[k]) for name, values in others.items()}
                    rows.append(row)
                advance(len(rows), one.name)
            for lost in one.lost:
                bare = collections.sample(lost.entry, np.empty(0, np.uint8))
                row = _row(one, lost.path, bare, len(rows))
                rows.append(row | {"reason": lost.reason, "peers": {}})
    return rows


def marked_rows(
    untouched: Sequence[Entry],
    rows: Sequence[Row],
    scorer: Scorer,
    config: Config,
    data: Path,
    device: torch.device,
) -> list[Row]:
    """The detector's scores of untouched pictures without a mark and with one.

    The mark is laid on the whole picture, as it comes in files, before the face is cut, resized and
    compressed; with it or without, the face is the same and meets the same fate. The log says how
    many pictures of those drawn are left out, and why.
    """
    from facekit.faces.locate import load_locator

    order = rng(config.seed, 3, Purpose.MARKS).permutation(len(untouched))[: config.marked]
    locator = load_locator(device)
    numbers = {row["path"]: row["id"] for row in rows if row["set"] == REAL}
    found: list[Row] = []
    left_out: Counter[str] = Counter()
    for path, _, sample in _named([untouched[i] for i in sorted(order)], data):
        if isinstance(sample, FacekitError):
            left_out["cannot be read"] += 1
            continue
        random = rng(config.seed, numbers[path], Purpose.MARKS)
        marked = _marked(sample.pixels, random)
        if marked is None:
            left_out["bear a mark already, or cannot bear one"] += 1
            continue
        (faces,) = regions.locate([sample.pixels], locator)
        if not faces:
            left_out["show no face"] += 1
            continue
        key = (config.seed, numbers[path], _MARKED, Purpose.DEGRADING)
        pair = [
            _shown(regions.cut(pixels, faces[0]), config, rng(*key))
            for pixels in (sample.pixels, marked)
        ]
        scores = [_rounded(value) for value in scorer.score(pair)]
        found.append({"id": numbers[path], "corruption": outcome.MARK, "probabilities": scores})
    for why, count in left_out.items():
        log.info("without and with a mark: left out %d untouched pictures that %s", count, why)
    return found


def _marked(pixels: Pixels, random: np.random.Generator) -> Pixels | None:
    """A picture with a mark that says anything; None if it bears one, or can bear none."""
    if watermark.read(pixels, search=False).present:
        return None
    payload = Payload(Kind(int(random.choice(list(Kind)))), int(random.integers(2**31)))
    try:
        return watermark.embed(pixels, payload)
    except FacekitError:  # too small, or too flat and dark
        return None


def peers_of(config: Config, data: Path) -> list[Scorer]:
    """The published networks whose weights are there and can be read.

    Raises:
        FacekitError: if a file is there, but is not what the config says.
    """
    found: list[Scorer] = []
    for plugin, weights in config.peers.items():
        for path in (data / name for name in weights):
            if path.is_file() and find_spec("h5py"):
                scorer = registry.load(MODELS, plugin).load_h5(path)
                scorer.name = path.stem
                found.append(scorer)
    return found


def fitted_scorers(
    config: Config, data: Path, device: torch.device
) -> tuple[list[Scorer], list[str]]:
    """Spectrum and logistic regression: fitted on all of the training's makers, and on each alone.

    Returns:
        The scorers, ``spectrum`` and with ``config.matrix`` one called ``on MAKER`` each; and these
        makers.
    """
    if not config.fitted:
        return [], []
    train = [entry for entry in divided(config, data) if entry.item.split == "train"]
    by_class = [
        _spread([entry for entry in train if entry.item.label == label], config) for label in (0, 1)
    ]
    faces, _, _ = _gathered(by_class[0] + by_class[1], data, device)
    untouched = faces.subset(np.flatnonzero(faces.labels == 0))
    for name, kinds in _FORGED.items():
        both = with_forgeries(untouched, kinds, key=config.seed)
        forged = both.subset(np.flatnonzero(both.labels == 1))
        faces = faces + replace(forged, makers=[name] * len(forged))
    faces = prepared(faces, config, _FITTED)
    makers = np.array(faces.makers)
    scorers: list[Scorer] = [Fitted("spectrum", faces)]
    if not config.matrix:
        return scorers, []
    trained = list(dict.fromkeys(makers[faces.labels == 1].tolist()))
    for maker in trained:
        chosen = np.flatnonzero((faces.labels == 0) | (makers == maker))
        scorers.append(Fitted(f"on {maker}", faces.subset(chosen)))
    return scorers, trained


class Fitted:
    """A plug-in that scikit-learn fits, fitted on faces as they are tested: a scorer."""

    def __init__(self, name: str, faces: FaceSet, plugin: str = "spectrum") -> None:
        """Fit it; the classes count alike, however many faces there are of each."""
        self.name = name
        module = registry.load(MODELS, plugin)
        # The pixels as they are: resampling would wash the traces out that a spectrum shows.
        self._config = module.Config(data=Faces(template="native", size=_WINDOW))
        self._network = module.network(self._config)
        images = to_tensor(self._crops(faces.regions))
        module.fit(self._network, images, faces.labels, self._config)

    def score(self, regions: Sequence[Region]) -> Scores:
        """P(generated), (N,)."""
        probability: Scores = expit(network_logits(self._network, self._crops(regions)))
        return probability

    def _crops(self, shown: Sequence[Region]) -> Pixels:
        return regions.crops(shown, self._config.data.template, self._config.data.size)


def refuse_seen(scorer: Scorer, sets: Sequence[TestSet]) -> None:
    """Check that a detector was trained on none of the pictures that it is to be tested on.

    Raises:
        FacekitError: if it was; the first such picture is named.
    """
    seen: frozenset[str] = getattr(scorer, "seen", frozenset())
    if not seen:
        log.warning("%s: does not say what it was trained on", scorer.name)
    known = [
        path
        for one in sets
        if not one.paired and one.tested
        for path, digest in zip(one.paths, one.faces.digests, strict=True)
        if digest in seen
    ]
    if known:
        raise FacekitError(
            f"{scorer.name}: was trained on {len(known)} of the pictures to test on, e.g. "
            f"'{known[0]}'; its figures would say nothing; test on others, or train it by the "
            "config whose division the evaluation names"
        )


def corrupted_rows(
    sets: Sequence[TestSet], rows: Sequence[Row], scorer: Scorer, config: Config
) -> list[Row]:
    """The detector's scores of some faces of each test, corrupted.

    Returns:
        A row for each face and corruption: ``id`` of the face's row, ``corruption``, and
        ``probabilities`` at strengths 0 (as it comes) to 5.
    """
    if not config.corrupted:
        return []
    tests = [one for one in sets if one.tested]
    forged = [one for one in tests if one.name != REAL]
    chosen, ids = [], []
    for one in tests:
        count = config.corrupted if one.name == REAL else -(-config.corrupted // len(forged))
        order = _some(one, count, config)
        chosen.append(one.faces.subset(order))
        of_set = [row["id"] for row in rows if row["set"] == one.name]
        ids += [of_set[i] for i in order]
    together = sum(chosen[1:], start=chosen[0])
    scores = corruptions.score(scorer, together, seed=config.seed)
    return [
        {
            "id": ids[i],
            "corruption": name,
            "probabilities": [_rounded(at[i]) for at in of_name],
        }
        for name, of_name in scores.items()
        for i in range(len(together))
    ]


def shortcut_rows(sets: Sequence[TestSet], data: Path, config: Config) -> list[Row]:
    """What merely comes with the classes gives away: in the files, and in the faces as shown.

    Returns:
        Rows for the page, ``group`` says of what: the files as they lie in the data, or the faces
        of a test beside the untouched ones.
    """
    some = {one.name: _some(one, _AUDITED, config) for one in sets if one.tested}
    listed = [
        shortcuts.File(data / path, int(one.faces.labels[i]), one.faces.sources[i])
        for one in sets
        if one.tested and not one.paired
        for i in some[one.name]
        if outcome.FRAME not in (path := one.paths[i])
    ]
    real = sets[0].faces.subset(some[REAL])
    audits: dict[str, FaceSet | list[shortcuts.File]] = {"the files as they lie": listed}
    for one in sets[1:]:
        if one.tested:
            audits[f"{one.name}, as shown"] = real + one.faces.subset(some[one.name])
    return [
        {**asdict(figure), "group": group}
        for group, examples in audits.items()
        for figure in shortcuts.audit(examples, seed=config.seed)
    ]


def _some(one: TestSet, most: int, config: Config) -> list[int]:
    """Places of at most so many of a set's faces, drawn at random."""
    order = rng(config.seed, len(one.name), Purpose.FRAMES).permutation(len(one.faces))
    return [int(i) for i in order[:most]]


def speed(
    scorer: Scorer, peers: Sequence[Scorer], shown: Sequence[Region], threads: int = 2
) -> list[Figure]:
    """``detect.faces_per_s``: how many located faces are scored a second, with two threads.

    The peer is the first one, measured by turns in the same process.
    """
    faces = list(shown[:_TIMED])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        seconds: dict[str, list[float]] = {}
        for _ in range(5):
            for one in (scorer, *peers[:1]):
                began = time.perf_counter()
                one.score(faces)
                seconds.setdefault(one.name, []).append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    rates = {name: len(faces) / float(np.median(times)) for name, times in seconds.items()}
    peer = rates[peers[0].name] if peers else None
    return [Figure("detect.faces_per_s", rates[scorer.name], "faces/s", peer=peer)]


def prepared(faces: FaceSet, config: Config, key: int) -> FaceSet:
    """Every face brought to one size and compressed once, at random; the same for both classes."""
    shown = [
        _shown(region, config, rng(config.seed, key, i, Purpose.DEGRADING))
        for i, region in enumerate(faces.regions)
    ]
    return replace(faces, regions=shown)


def _shown(region: Region, config: Config, random: np.random.Generator) -> Region:
    low, high = config.quality
    sized = brought(region, config.face)
    pixels = lossy.jpeg(sized.pixels, int(random.integers(low, high + 1)))
    return replace(sized, pixels=pixels)


def _outputs(scorer: Scorer, shown: Sequence[Region]) -> dict[str, list[Any]]:
    """What is kept of a detector's answer: column → a value for each face."""
    if not isinstance(scorer, Detector):
        scores = scorer.score(shown)
        if not np.isfinite(scores).all():
            raise FacekitError(f"{scorer.name}: gives scores that are not numbers")
        return {"probability": [_rounded(value) for value in scores]}
    members = {part.name: part.logits(shown) for part in scorer.parts}
    logits = scorer.stack.logits(np.stack(list(members.values()), axis=1))
    calibration = scorer.calibration
    return {
        "probability": [_rounded(value) for value in calibration.probability(logits)],
        "ratio": [_rounded(value) for value in calibration.likelihood_ratio(logits)],
        "sets": calibration.sets(logits).tolist(),
        "verdict": calibration.prediction(logits).tolist(),
        "scores": [
            {name: _rounded(expit(values[i])) for name, values in members.items()}
            for i in range(len(shown))
        ],
    }


def _digest(pixels: Pixels) -> str:
    """A picture's digest, as :func:`detectors.data.gather` notes it."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


def _hash_of(sets: Sequence[TestSet]) -> str:
    """A hash of which pictures are shown as what."""
    total = hashlib.sha256()
    for one in sets:
        for path, digest in zip(one.paths, one.faces.digests, strict=True):
            total.update(f"{one.name}\0{path}\0{digest}\n".encode())
    return total.hexdigest()


def _row(one: TestSet, path: str, sample: Sample, number: int) -> Row:
    """A row before it is scored."""
    video, of_video, _ = path.partition(outcome.FRAME)
    return {
        "id": number,
        "path": path if not one.paired else f"{path}#{one.name}-{number}",
        "video": (f"{video}#{one.name}" if one.paired else video) if of_video else "",
        "time": None,
        "box": None,
        "track": None,
        "scores": {},
        "probability": None,
        "reason": None,
        "ratio": None,
        "sets": None,
        "verdict": None,
        "set": one.name,
        "tested": one.tested,
        "paired": one.paired,
        "label": sample.label,
        "subject": sample.subject,
        "source": sample.source,
        "donor": sample.donor,
        "maker": sample.maker,
        "collection": sample.collection,
    }


def _sample_of(faces: FaceSet, i: int) -> Sample:
    return Sample(
        pixels=np.empty(0, np.uint8),
        label=int(faces.labels[i]),
        subject=faces.subjects[i],
        source=faces.sources[i],
        donor=faces.donors[i],
        maker=faces.makers[i],
        collection=faces.collections[i],
    )


def _rounded(value: float) -> float:
    """Six digits after the point are enough, and the files are half as large."""
    return round(float(value), 6)
