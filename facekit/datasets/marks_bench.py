"""How faint the mark is, what it survives, how seldom it is seen in vain, and how quick it is.

- Every picture of :mod:`.marks_material` is marked with a payload of its own, suffers every attack
  of :mod:`.marks_attacks`, and is read as anyone would read it, with the search. Clips are marked
  frame by frame, encoded, and read as a whole. A read is exact if all 64 bits are.
- Unmarked pictures are read with keys that marked none of them; each trial has a key of its own,
  but for the first of each picture, which has the published one.
- Speed is the processor time of one thread, in a process of its own.

The peers of :mod:`.marks_schemes` suffer the same attacks, but fewer pictures and shorter clips,
since the strongest of them takes seconds for each. A row's ``peer`` is the best of theirs; there is
also a row for each.
"""

import logging
import math
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from facekit import watermark
from facekit.core.device import default_threads
from facekit.core.errors import FacekitError
from facekit.core.figures import Figure
from facekit.core.progress import progress
from facekit.core.workers import Job, Result, WorkerLost, in_order
from facekit.datasets import marks_material as material
from facekit.datasets.marks_attacks import ATTACKS, CODECS, h264
from facekit.datasets.marks_schemes import BITS, OWN, Read, peers, scheme
from facekit.datasets.marks_small import measure_small
from facekit.faces.verification import interval
from facekit.types import Pixels
from facekit.watermark import spread

log = logging.getLogger("facekit")

TRIALS = 100_000
"""Reads of unmarked pictures, unless another number is asked for."""

_SEARCHED = 100  # one trial in so many is a search, which takes some hundred times as long
_FULL_HD = (1920, 1080)
_BRIGHT = ("brighter", "darker")  # a picture survives "bright" if it survives both
_PEER_PICTURES = 4  # of each source
_PEER_SIDE = 720
_PEER_FRAMES = 12  # of the first excerpt of each clip
_PEER_READS = 4  # of these frames
_SLOWEST = "rivaGan"
_RATE = 25.0  # frames a second, of what is encoded
_SEED = 5


def bench(
    *, data: Path | None = None, quick: bool = False, trials: int | None = None
) -> list[Figure]:
    """Measure the mark.

    Args:
        data: folder with ``london/`` and ``video/``, or one of them; without it, what is bundled.
        quick: so few pictures and frames that the figures say little; to see that all works.
        trials: reads of unmarked pictures; ``TRIALS`` by default, few if quick.

    Returns:
        Rows ``mark.…``, as ``docs/watermark.md`` explains them; see also :func:`headline`.

    Raises:
        FacekitError: if ``data`` cannot be used.
    """
    material.check(data)
    count = trials if trials is not None else 300 if quick else TRIALS
    if count < 1:
        raise FacekitError(f"--trials {count}: at least 1")
    others = [other for other in peers() if not (quick and other == _SLOWEST)]
    if not others:
        log.info("invisible-watermark is not installed; the rows of peers are left out")
    shown = list(material.pictures(data, quick=quick))
    few = shown[-1:] if quick else _few(shown, _PEER_PICTURES)
    if others:
        names = ", ".join(name for name, _ in few)
        log.info("%s mark %s", ", ".join(f"{one} ({BITS[one]} bits)" for one in others), names)
    workers = 0 if quick else default_threads()
    stills = [(OWN, *one) for one in shown] + [(other, *one) for other in others for one in few]
    outcomes = _run(_attack_still, stills, workers, len(stills), "marking and attacking pictures")
    clips = _clips(data, others, quick)
    outcomes += _run(_attack_clip, clips, workers, None, "marking and encoding clips")
    rows = psnr_rows([one for one in outcomes if one.still], others)
    rows += survival_rows(outcomes, others)
    rows += measure_small(pixels for _, pixels in shown)
    rows += false_positive_rows(_trials([pixels for _, pixels in shown], count, workers))
    return rows + speed_rows(_cover(shown[0][1], _FULL_HD), others, quick)


def headline(rows: Sequence[Figure]) -> list[Figure]:
    """The rows that are about facekit's mark as a whole: without those of peers and presence."""
    return [
        row
        for row in rows
        if not row.name.startswith("mark.present.") and row.name.split(".")[-1] not in BITS
    ]


# --- what is survived -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of one marked picture or clip.

    Attributes:
        scheme: that marked it.
        name: of the picture or clip.
        still: whether it was a picture.
        psnr: of the marked beside the unmarked, in dB.
        exact: attack → whether every bit was read.
        present: attack → whether a mark was found.
        wrong: attacks after which another message was given out than was marked.
    """

    scheme: str
    name: str
    still: bool
    psnr: float
    exact: dict[str, bool] = field(default_factory=dict)
    present: dict[str, bool] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def note(self, attack: str, read: Read) -> None:
        """Keep what a read came to."""
        self.exact[attack], self.present[attack] = read.exact, read.present
        if read.wrong:
            self.wrong.append(attack)


def _attack_still(job: tuple[str, str, Pixels]) -> Outcome:
    """Mark a picture, and read it after every attack."""
    who, name, pixels = job
    (marked,), message = scheme(who).mark([pixels], _random(name, "message"))
    outcome = Outcome(who, name, True, psnr(pixels, marked))
    for attack, change in ATTACKS.items():
        changed = change(marked, _random(name, attack))
        outcome.note(attack, scheme(who).read([changed], message))
    for found in (outcome.exact, outcome.present):
        found["bright"] = all([found.pop(one) for one in _BRIGHT])
    return outcome


def _attack_clip(job: tuple[str, str, list[Pixels]]) -> Outcome:
    """Mark a clip, and read it after every encoding."""
    who, name, frames = job
    marked, message = scheme(who).mark(frames, _random(name, "message"))
    pairs = zip(frames, marked, strict=True)
    outcome = Outcome(who, name, False, float(np.mean([psnr(*pair) for pair in pairs])))
    for attack, crf in CODECS.items():
        coded = h264(marked, _RATE, crf)
        if who != OWN:
            coded = coded[:: max(1, len(coded) // _PEER_READS)]
        outcome.note(attack, scheme(who).read(coded, message))
    return outcome


def _clips(
    data: Path | None, others: Sequence[str], quick: bool
) -> Iterator[tuple[str, str, list[Pixels]]]:
    """Jobs: every excerpt for the own mark, the beginning of each clip's first one for peers."""
    seen = set()
    for name, frames in material.excerpts(data, quick=quick):
        yield OWN, name, frames
        clip = name.rpartition("@")[0]
        if clip not in seen:
            for other in others:
                yield other, name, frames[: 2 if quick else _PEER_FRAMES]
        seen.add(clip)


def psnr(one: Pixels, other: Pixels) -> float:
    """The peak signal to noise ratio over all colours, in dB; of equals, infinite."""
    error = float(np.mean(np.square(one.astype(np.float32) - other, dtype=np.float32)))
    return 10 * math.log10(255**2 / error) if error else math.inf


def psnr_rows(stills: Sequence[Outcome], others: Sequence[str]) -> list[Figure]:
    """``mark.psnr``, its smallest value, and its mean over each source and each peer's pictures."""
    by_scheme: dict[str, list[float]] = defaultdict(list)
    by_source: dict[str, list[float]] = defaultdict(list)
    for one in stills:
        by_scheme[one.scheme].append(one.psnr)
        if one.scheme == OWN:
            by_source[one.name.partition("/")[0]].append(one.psnr)
    best = max((float(np.mean(by_scheme[other])) for other in others), default=None)
    rows = [_mean("mark.psnr", by_scheme[OWN], peer=best)]
    rows += [_mean(f"mark.psnr_{source}", found) for source, found in by_source.items()]
    rows.append(Figure("mark.psnr_min", min(by_scheme[OWN]), "dB"))
    rows += [_mean(f"mark.psnr.{other}", by_scheme[other]) for other in others]
    faintest = min((one for one in stills if one.scheme == OWN), key=lambda one: one.psnr)
    log.info("the strongest mark is that of %s, %.1f dB", faintest.name, faintest.psnr)
    return rows


def _mean(name: str, found: Sequence[float], peer: float | None = None) -> Figure:
    values = np.array(found)

    def mean(draw: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.array([draw @ values / len(values)])

    (low,), (high,) = interval(mean, len(values)) if len(values) > 1 else ([None], [None])
    return Figure(name, float(values.mean()), "dB", low=low, high=high, peer=peer)


def survival_rows(outcomes: Sequence[Outcome], others: Sequence[str]) -> list[Figure]:
    """``mark.exact.NAME`` and ``mark.present.NAME`` of every attack, and ``mark.wrong_payloads``.

    Failures are logged.
    """
    found: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for one in outcomes:
        for attack in one.exact:
            found[one.scheme, attack].append(one)
    attacks = list(dict.fromkeys(attack for _, attack in found))
    rows = []
    for attack in attacks:
        own = found[OWN, attack]
        theirs = [
            _share(f"mark.exact.{attack}.{other}", [one.exact[attack] for one in marked])
            for other in others
            if (marked := found[other, attack])
        ]
        best = max((row.value for row in theirs), default=None)
        rows.append(_share(f"mark.exact.{attack}", [one.exact[attack] for one in own], best))
        rows.append(_share(f"mark.present.{attack}", [one.present[attack] for one in own]))
        rows += theirs
        lost = [
            one.name + (" (present)" if one.present[attack] else "")
            for one in own
            if not one.exact[attack]
        ]
        if lost:
            log.info("not read exactly after %s: %s", attack, ", ".join(lost))
    own = [one for one in outcomes if one.scheme == OWN]
    wrong = [f"{one.name} after {attack}" for one in own for attack in one.wrong]
    if wrong:
        log.info("another message was given out: %s", ", ".join(wrong))
    reads = sum(len(one.exact) for one in own)
    return [*rows, Figure("mark.wrong_payloads", float(len(wrong)), f"of {reads}")]


def _share(name: str, found: Sequence[bool], peer: float | None = None) -> Figure:
    low, high = wilson(sum(found), len(found))
    return Figure(name, sum(found) / len(found), f"of {len(found)}", low, high, peer=peer)


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95% interval of a share, by Wilson 1927: sensible also where it is 0 or 1."""
    z = 1.96
    share = count / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    # At the ends the formula gives 0 and 1, but for rounding.
    return middle - half if count else 0.0, middle + half if count < total else 1.0


def _random(name: str, what: str) -> np.random.Generator:
    """Chance that is the same in every run, whatever else is measured."""
    return np.random.default_rng([_SEED, zlib.crc32(f"{name} {what}".encode())])


# --- false positives ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trials:
    """Reads of unmarked pictures with unused keys.

    Attributes:
        aligned: float64 (A,), p-values of reads of the picture as it lies.
        searched: float64 (S,), p-values of reads with the search.
    """

    aligned: NDArray[np.float64]
    searched: NDArray[np.float64]


def _trials(shown: Sequence[Pixels], count: int, workers: int) -> Trials:
    """``count`` trials, spread evenly over pictures, one in ``_SEARCHED`` of them a search."""
    searches = -(-count // _SEARCHED)
    bounds = [
        np.linspace(0, total, len(shown) + 1).round().astype(int).tolist()
        for total in (count - searches, searches)
    ]
    aligned, searched = ([range(*pair) for pair in pairwise(ends)] for ends in bounds)
    jobs = list(zip(shown, aligned, searched, strict=True))
    parts = _run(_listen, jobs, workers, len(jobs), "reading unmarked pictures")
    return Trials(*(np.concatenate(found) for found in zip(*parts, strict=True)))


def _listen(
    job: tuple[Pixels, range, range],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The p-values of a picture, without and with the search, for keys by their numbers.

    The first key of either is the published one, under which most pictures will be read.
    """
    pixels, aligned, searched = job
    # As ``watermark.read(search=False)``, but what does not depend on the key is done once.
    found = spread.spectrum(spread.flatten(spread.to_period(spread.grey(pixels))))
    codes = map(spread.code, _keys("aligned", aligned))
    plain = [spread.decide(spread.values(found, code), frames=1).p_value for code in codes]
    sought = [watermark.read(pixels, key).p_value for key in _keys("searched", searched)]
    return np.array(plain), np.array(sought)


def _keys(what: str, numbers: range) -> Iterator[bytes]:
    for number in numbers:
        first = number == numbers.start
        yield watermark.DEFAULT_KEY if first else f"{what} {number}".encode()


def false_positive_rows(trials: Trials) -> list[Figure]:
    """``mark.false_positives``, and how the p-values of unmarked pictures are distributed."""
    both = np.concatenate([trials.aligned, trials.searched])
    count = int(np.sum(both < watermark.ACCEPT))
    low, high = wilson(count, len(both))
    split = f"of {len(both)}, {len(trials.searched)} with search"
    total = len(both)
    rows = [Figure("mark.false_positives", float(count), split, low * total, high * total)]
    rows.append(Figure("mark.smallest_p", float(both.min()), f"of {total}"))
    for name, level in (("p_below_01", 1e-2), ("p_below_001", 1e-3)):
        rows.append(_share(f"mark.{name}", (both < level).tolist()))
    return rows


# --- speed ----------------------------------------------------------------------------------------


def speed_rows(frame: Pixels, others: Sequence[str], quick: bool) -> list[Figure]:
    """Milliseconds of one core for a frame of 1920×1080; the peer beside them is rivaGan."""
    job = (frame, list(others), 1 if quick else 15)
    (spent,) = _run(_measure, [job], 0 if quick else 1, 1, "measuring speed")
    median = {task: float(np.median(found)) for task, found in spent.items()}
    rows = []
    for what in ("embed", "read", "search"):
        name = f"mark.{what}_1080p_ms"
        low, high = np.percentile(spent[OWN, what], [2.5, 97.5]).tolist()
        peer = median.get((_SLOWEST, what))
        rows.append(Figure(name, median[OWN, what], "ms", low, high, peer=peer))
        rows += [
            Figure(f"{name}.{other}", median[other, what], "ms")
            for other in others
            if (other, what) in median
        ]
    if _SLOWEST in others:
        ratio = median[_SLOWEST, "embed"] / median[OWN, "embed"]
        rows.append(Figure("mark.embed_speedup", ratio))
    return rows


def _measure(job: tuple[Pixels, list[str], int]) -> dict[tuple[str, str], list[float]]:
    """Milliseconds by scheme and what it does; the schemes take turns, and peers' turns are few."""
    frame, others, repeats = job
    spent: dict[tuple[str, str], list[float]] = defaultdict(list)

    def timed(who: str, what: str, call: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = call()
        spent[who, what].append(1000 * (time.process_time() - began))
        return result

    for turn in range(repeats + 1):
        for who in [OWN, *(others if turn in (1, repeats) else [])]:
            random = np.random.default_rng(turn)
            mark = partial(scheme(who).mark, [frame], random)
            marked, message = timed(who, "embed", mark)
            timed(who, "read", partial(scheme(who).read, marked, message))
        timed(OWN, "search", partial(scheme(OWN).read, [frame], None))
        if turn == 0:
            spent.clear()  # What is set up but once does not count.
    return dict(spent)


def _one_thread() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _cover(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """The middle of a picture, enlarged to ``size`` (width, height)."""
    height, width = pixels.shape[:2]
    rows = min(height, round(width * size[1] / size[0]))
    top = (height - rows) // 2
    large = cv2.resize(pixels[top : top + rows], size, interpolation=cv2.INTER_CUBIC)
    return np.asarray(large, np.uint8)


# --- the run --------------------------------------------------------------------------------------


def _few(shown: Sequence[tuple[str, Pixels]], most: int) -> list[tuple[str, Pixels]]:
    """At most ``most`` pictures of each source, evenly spaced, of those that are not large."""
    sources: dict[str, list[tuple[str, Pixels]]] = defaultdict(list)
    for name, pixels in shown:
        if max(pixels.shape) <= _PEER_SIDE:
            sources[name.partition("/")[0]].append((name, pixels))
    return [one for found in sources.values() for one in found[:: -(-len(found) // most)]]


def _run(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers: int,
    total: int | None,
    title: str,
) -> list[Result]:
    """What ``work`` gives for each job, in order.

    Args:
        work: a function of this module.
        jobs: what to work on.
        workers: processes, of one thread each; 0 for none but this one.
        total: how many jobs there are, where known.
        title: in words, what is done.
    """
    results = []
    try:
        with progress(title, total) as advance, closing(_results(work, jobs, workers)) as found:
            for result in found:
                results.append(result)
                advance(len(results), "")
    except WorkerLost as error:
        raise FacekitError(
            f"{title}: a process was killed or could not start, perhaps for lack of memory; "
            "close other programs and give the same command again"
        ) from error
    return results


def _results(work: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Generator[Result]:
    if workers:
        yield from in_order(work, jobs, workers, start=_one_thread)
    else:
        yield from map(work, jobs)
