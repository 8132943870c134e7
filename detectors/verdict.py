"""From evidence to verdict: pure functions, so that every rule can be read and tested by itself.

A verdict is *evidence of manipulation*, *no evidence found* or *inconclusive*, never "real":

- A mark or a validly signed manifest that says generated or composite is evidence, whatever the
  detector says.
- A detector speaks only on footage that it is calibrated for. Elsewhere its scores are shown, and
  the verdict is *inconclusive*. A file of unknown origin is judged as camera footage, and the
  verdict says so: what most files are, and what a detector is asked about. In the same way scores
  of a face that is more blurred or compressed than those of the calibration count for nothing.
- A file is judged by its worst face: one forged face among ten others is not averaged away. In the
  same way a track is judged by its worst stretch, not by its mean over all of its time.
- *No evidence found* needs all of it: every part of the analysis (but for localisation, which shows
  where and decides nothing), all of the file's time, every face large enough, seen often and well
  enough, scored by a calibrated detector whose members do not contradict one another, below its
  threshold and where few generated faces are.

So a face more never weakens a verdict, and neither does a part left out turn evidence into *no
evidence found*.
"""

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from detectors.report.model import (
    EVIDENCE,
    INCONCLUSIVE,
    NO_EVIDENCE,
    PARTS,
    Certificate,
    Code,
    Conclusion,
    DetectorFacts,
    ExitCode,
    Origin,
    PartName,
    Provenance,
    Reason,
    Sighting,
    Track,
    Verdict,
    Watermark,
)
from detectors.report.text import p_value

SMALLEST_FACE = 64
"""Pixels of a face's longer side; smaller ones do not hold what a detector looks at."""
FEWEST_SIGHTINGS = 5
"""Usable sightings that a track of a video needs for a verdict."""
RUN = 10
"""Consecutive usable sightings over which scores are averaged: 2 s at five samples a second."""
SURE, SURE_NOT = 0.9, 0.1
"""Members of a detector disagree if one is at least so sure, and another at most."""

CAMERA = "camera"
"""What ``calibrated_for`` calls untouched photos and videos of the world."""
MANIPULATED_KINDS = ("generated", "composite")
_ORDER: tuple[Conclusion, ...] = (NO_EVIDENCE, INCONCLUSIVE, EVIDENCE)
_EXIT_CODES: dict[Conclusion, ExitCode] = {NO_EVIDENCE: 0, EVIDENCE: 10, INCONCLUSIVE: 20}
_WEIGHTS = ("evidence", "abstention", "note")


def origin_of(provenance: Provenance | None, certificate: Certificate | None) -> Origin:
    """Where the footage comes from, as far as something shows it.

    "studio" if the studio's certificate holds for the file or a signed manifest says so. A signer
    that nobody vouches for may speak against a file, never for it: with such a signature the
    manifest must also say that the file is generated or composite. None: it was left out.
    """
    if certificate is not None and certificate.status == "valid":
        return "studio"
    if provenance is None or provenance.origin != "studio":
        return "unknown"
    believed = provenance.status == "trusted" or (
        provenance.status == "untrusted" and provenance.kind in MANIPULATED_KINDS
    )
    return "studio" if believed else "unknown"


def is_calibrated(detector: DetectorFacts, origin: Origin) -> bool:
    """Whether the detector speaks on footage of this origin; unknown is taken for a camera's."""
    return (CAMERA if origin == "unknown" else origin) in detector.calibrated_for


def is_undecided(detector: DetectorFacts, score: float) -> bool:
    """Whether a score is too low for a verdict, and too much like generated faces' for the other.

    A detector that tells little apart would else find "no evidence" nearly everywhere.
    """
    return (
        detector.undecided_from is not None
        and detector.undecided_from <= score <= detector.threshold
    )


def is_usable(sighting: Sighting) -> bool:
    """Whether a sighting counts for a verdict: the face must be large enough."""
    return sighting.size >= SMALLEST_FACE


def usable(sightings: Sequence[Sighting]) -> list[Sighting]:
    """The sightings that count for a verdict."""
    return [sighting for sighting in sightings if is_usable(sighting)]


def is_like_calibration(detector: DetectorFacts, sighting: Sighting) -> bool:
    """Whether a face is seen as well as those that the detector was calibrated on.

    What was not measured, or is not known of the calibration, does not count against it.
    """
    ranges = detector.calibrated.ranges if detector.calibrated else {}
    return not any(
        (seen := getattr(sighting, name)) is not None and not low <= seen <= high
        for name, (low, high) in ranges.items()
    )


def scored_by(
    sightings: Sequence[Sighting], detector: DetectorFacts | None, *, image: bool
) -> list[Sighting]:
    """The sightings that a face's score is of.

    Those that are usable and seen as well as the faces of the calibration, if they are enough for a
    verdict; else all that are usable, and their score is shown, but counts for nothing.
    """
    good = usable(sightings)
    like = [one for one in good if detector is not None and is_like_calibration(detector, one)]
    return like if len(like) >= _fewest(image) else good


def worst_run(scored: Sequence[Sighting]) -> slice:
    """Which ``RUN`` sightings in a row have the highest mean score.

    Returns:
        All of them, if they are fewer; none, if one of them has no score.
    """
    scores = [sighting.score for sighting in scored if sighting.score is not None]
    if not scores or len(scores) < len(scored):
        return slice(0, 0)
    length = min(RUN, len(scores))
    start = int(np.convolve(scores, np.ones(length) / length, mode="valid").argmax())
    return slice(start, start + length)


def worst_stretch(
    sightings: Sequence[Sighting], detector: DetectorFacts | None, *, image: bool
) -> list[Sighting]:
    """Of the sightings that a face is scored by, those of its :func:`worst_run`."""
    scored = scored_by(sightings, detector, image=image)
    return scored[worst_run(scored)]


def goes_by_score(verdict: Verdict) -> bool:
    """Whether a face's score is a ground for its verdict."""
    return any(reason.code.startswith("score_") for reason in verdict.reasons)


def _fewest(image: bool) -> int:
    """Sightings that a verdict needs."""
    return 1 if image else FEWEST_SIGHTINGS


def judge_track(
    sightings: Sequence[Sighting],
    *,
    detector: DetectorFacts | None,
    origin: Origin,
    image: bool,
    left_out: Collection[PartName] = (),
) -> Verdict:
    """The verdict on one face, by the detector alone.

    Args:
        sightings: of the face, in order of time.
        detector: that scored it; None if there is none, or detectors are left out.
        origin: of the file.
        image: whether the file is a picture, of which one sighting is enough.
        left_out: parts of the analysis that were.
    """
    good = usable(sightings)
    reasons = [*_too_little(sightings, good, image)]
    if "detectors" in left_out:
        reasons.append(_abstain("part_left_out", "it was not scored: detectors were left out"))
    elif detector is None:
        reasons.append(_abstain("no_detector", "no detector was at hand to score it"))
    elif not is_calibrated(detector, origin):
        reasons.append(_not_calibrated(detector))
    elif any(sighting.score is None for sighting in good):
        reasons.append(_abstain("not_scored", "the detector gave no score for some of its frames"))
    if reasons or detector is None:
        return _conclude(reasons)
    like = [sighting for sighting in good if is_like_calibration(detector, sighting)]
    if 2 * len(like) < len(good):
        reasons.append(_quality_outside(detector, good, len(good) - len(like)))
    if len(like) >= _fewest(image):
        what = "the score" if image else "the mean score of its highest stretch"
        if len(like) < len(good):
            what += " among the frames seen well enough"
        stretch = worst_stretch(sightings, detector, image=image)
        reasons.extend(_score_reasons(detector, stretch, what))
    elif not reasons:
        reasons.append(_quality_outside(detector, good, len(good) - len(like)))
    return _conclude(reasons)


def judge_file(
    *,
    watermark: Watermark | None,
    provenance: Provenance | None,
    certificate: Certificate | None,
    tracks: Sequence[Track],
    detector: DetectorFacts | None,
    origin: Origin,
    ends_early: str | None = None,
    until: float | None = None,
    left_out: Collection[PartName] = (),
) -> Verdict:
    """The verdict on a file: the worst of what its manifest, its mark and its faces give.

    Args:
        watermark: None if it was left out.
        provenance: likewise.
        certificate: likewise; it is left out with provenance.
        tracks: of its faces; none if faces were left out.
        detector: that scored them; None if there is none, or detectors are left out.
        origin: of the file.
        ends_early: says so where the file's pictures end before its declared duration.
        until: seconds after which nothing was looked at, as was asked; None: all was.
        left_out: parts of the analysis that were; what is None above counts as left out too.
    """
    missing = _missing(watermark, provenance, left_out)
    reasons = [
        *(_provenance_reasons(provenance) if provenance else ()),
        *(_watermark_reasons(watermark, provenance) if watermark else ()),
        *(_certificate_reasons(certificate) if certificate else ()),
    ]
    # Said once for the file, and where no face was found as well.
    if "detectors" not in missing:
        reasons.extend(_on_detector(detector, origin, provenance_known=provenance is not None))
    if missing:
        text = f"left out, as asked, and so nothing can be said of it: {', '.join(missing)}"
        reasons.append(_abstain("part_left_out", text))
    if not tracks and "faces" not in missing:
        reasons.append(_abstain("no_face", "no face was found"))
    if until is not None:
        text = f"nothing was looked at from {until:g} s on, as asked"
        reasons.append(_abstain("part_left_out", text))
    if ends_early:
        reasons.append(_abstain("ends_early", ends_early))
    reasons.extend(_track_reasons(tracks))
    return _conclude(reasons)


def exit_code(conclusions: Iterable[Conclusion], *, errors: bool) -> ExitCode:
    """What the command exits with: 1 outweighs 10, which outweighs 20, which outweighs 0."""
    if errors:
        return 1
    worst: Conclusion = max(conclusions, key=_ORDER.index, default=NO_EVIDENCE)
    return _EXIT_CODES[worst]


def _conclude(reasons: Iterable[Reason]) -> Verdict:
    ordered = sorted(reasons, key=lambda reason: _WEIGHTS.index(reason.weight))
    weights = {reason.weight for reason in ordered}
    conclusion: Conclusion = NO_EVIDENCE
    if "evidence" in weights:
        conclusion = EVIDENCE
    elif "abstention" in weights:
        conclusion = INCONCLUSIVE
    return Verdict(conclusion=conclusion, reasons=ordered)


def worst_first(tracks: Iterable[Track]) -> list[Track]:
    """The tracks, those with the weightiest verdict and the highest score first."""
    return sorted(
        tracks,
        key=lambda track: (
            -_ORDER.index(track.verdict.conclusion),
            -(track.score or 0.0),
            track.id,
        ),
    )


def _abstain(code: Code, text: str) -> Reason:
    return Reason(code=code, weight="abstention", text=text)


def _note(code: Code, text: str) -> Reason:
    return Reason(code=code, weight="note", text=text)


def _not_calibrated(detector: DetectorFacts) -> Reason:
    known = " and ".join(detector.calibrated_for) or "no"
    return _abstain(
        "not_calibrated",
        f"no detector calibrated for it: '{detector.name}' is calibrated for {known} footage only, "
        "so its scores are shown but count for nothing",
    )


def _missing(
    watermark: Watermark | None, provenance: Provenance | None, left_out: Collection[PartName]
) -> list[PartName]:
    """The parts left out that a verdict needs, in their order."""
    missing = {part for part in left_out if part != "localisation"}
    if watermark is None:
        missing.add("watermark")
    if provenance is None:
        missing.add("provenance")
    if "faces" in missing:
        missing.add("detectors")
    return [part for part in PARTS if part in missing]


def _on_detector(
    detector: DetectorFacts | None, origin: Origin, *, provenance_known: bool
) -> Iterable[Reason]:
    """What is to be known of the detector before its scores."""
    if detector is None:
        text = "no detector calibrated for it: none is bundled and none was given (--detector)"
        yield _abstain("no_detector", text)
    elif not is_calibrated(detector, origin):
        yield _not_calibrated(detector)
    elif origin == "unknown":
        why = "nothing shows where it comes from" if provenance_known else "its origin was left out"
        text = (
            f"{why}: it is judged as camera footage, which is what '{detector.name}' is calibrated "
            "for"
        )
        yield _note("judged_as_camera", text)


def _too_little(
    sightings: Sequence[Sighting], good: Sequence[Sighting], image: bool
) -> Iterable[Reason]:
    """Why a face was seen too small or too seldom."""
    if not good:
        largest = max((sighting.size for sighting in sightings), default=0.0)
        yield _abstain(
            "small_face",
            f"the face is at most {largest:.0f} px large; below {SMALLEST_FACE} px nothing can "
            "be said",
        )
    elif not image and len(good) < FEWEST_SIGHTINGS:
        yield _abstain(
            "too_few_frames",
            f"too few frames: {len(good)} with the face at {SMALLEST_FACE} px or more, "
            f"{FEWEST_SIGHTINGS} are needed",
        )


def _quality_outside(detector: DetectorFacts, good: Sequence[Sighting], outside: int) -> Reason:
    """Say what of a face's quality the detector was not calibrated for."""
    ranges = detector.calibrated.ranges if detector.calibrated else {}
    wrong = []
    for name, (low, high) in ranges.items():
        seen = [value for one in good if (value := getattr(one, name)) is not None]
        if any(not low <= value <= high for value in seen):
            middle = float(np.median(seen))
            wrong.append(f"{name} {middle:.3g}, calibrated from {low:.3g} to {high:.3g}")
    return _abstain(
        "quality_outside",
        f"in {outside} of {len(good)} frames the face is seen unlike those that '{detector.name}' "
        f"was calibrated on, so their scores count for nothing ({'; '.join(wrong)})",
    )


def _score_reasons(
    detector: DetectorFacts, stretch: Sequence[Sighting], what: str
) -> Iterable[Reason]:
    """What the mean score of a stretch gives; ``what`` names that number."""
    score = float(np.mean([sighting.score for sighting in stretch]))
    above = score > detector.threshold
    if above:
        text = f"{what}, {score:.2f}, is above the threshold {detector.threshold:.2f}"
        yield Reason(code="score_above_threshold", weight="evidence", text=text)
    elif is_undecided(detector, score):
        text = (
            f"{what}, {score:.2f}, is neither above the threshold {detector.threshold:.2f} nor "
            f"below {detector.undecided_from:.2f}, from where on it may well be generated"
        )
        yield _abstain("score_undecided", text)
    else:
        text = f"{what}, {score:.2f}, is not above the threshold {detector.threshold:.2f}"
        yield _note("score_below_threshold", text)
    if text := _disagreement(stretch):
        # Above the threshold those who find something have outweighed those who do not.
        yield Reason(code="detectors_disagree", weight="note" if above else "abstention", text=text)


def _disagreement(stretch: Sequence[Sighting]) -> str:
    """Whether members contradict one another over a stretch: who says what; "" if they do not."""
    names = [name for name in stretch[0].members if all(name in one.members for one in stretch)]
    means = {
        name: round(float(np.mean([one.members[name] for one in stretch])), 4) for name in names
    }
    if not means or max(means.values()) < SURE or min(means.values()) > SURE_NOT:
        return ""
    said = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
    return f"the detector's members contradict one another ({said})"


def _watermark_reasons(watermark: Watermark, provenance: Provenance | None) -> Iterable[Reason]:
    if watermark.status == "not read":
        yield _abstain("part_not_read", f"the watermark could not be read: {watermark.error}")
    if watermark.status != "present":
        return
    chance = f"p {p_value(watermark.p_value)}"
    if watermark.kind in MANIPULATED_KINDS:
        signed = provenance is not None and provenance.status in ("trusted", "untrusted")
        claim = "" if signed else "; without a signed manifest a mark is a claim, not a proof"
        text = f"it carries a mark that says '{watermark.kind}' ({chance}){claim}"
        yield Reason(code="mark_says_generated", weight="evidence", text=text)
    elif watermark.kind is None:
        text = f"it carries facekit's mark ({chance}), too weak to tell what it says"
        yield _abstain("mark_kind_unknown", text)
    elif watermark.kind == "test-real":
        text = f"it carries a mark of the kind test-real ({chance}), which is evidence of nothing"
        yield _note("mark_says_test_real", text)
    elif watermark.kind == "studio":
        text = f"it carries a mark that says 'studio' ({chance}): a person who does not exist"
        yield _note("mark_says_studio", text)


def _provenance_reasons(provenance: Provenance) -> Iterable[Reason]:
    if provenance.status == "not read":
        text = f"the content credentials could not be checked: {provenance.reason}"
        yield _abstain("part_not_read", text)
    elif provenance.status == "tampered":
        text = (
            "its content credentials do not match it: it was changed after signing, or they were "
            f"taken from another file ({provenance.reason})"
        )
        yield _abstain("manifest_tampered", text)
    elif provenance.status != "absent":
        text = f"its content credentials, {_signed_by(provenance)}, say '{provenance.kind}'"
        if provenance.kind in MANIPULATED_KINDS:
            yield Reason(code="manifest_says_generated", weight="evidence", text=text)
        elif provenance.kind == "studio":
            yield _note("manifest_says_studio", f"{text}: a person who does not exist")


def _signed_by(provenance: Provenance) -> str:
    trusted = provenance.status == "trusted"
    if provenance.signer is None:
        return "signed" if trusted else "signed by someone unknown"
    return f"signed by {provenance.signer}" + ("" if trusted else ", for whom nobody here vouches")


def _certificate_reasons(certificate: Certificate) -> Iterable[Reason]:
    if certificate.status == "invalid":
        text = f"it lies in a studio folder whose certificate does not hold: {certificate.reason}"
        yield _note("certificate_invalid", text)
    elif certificate.status == "valid":
        text = "the studio's certificate holds for it: it shows a person who does not exist"
        yield _note("certified_studio", text)


def _track_reasons(tracks: Sequence[Track]) -> Iterable[Reason]:
    """The faces' reasons with the face's number, but for those that hold for any face."""
    for track in tracks:
        for reason in track.verdict.reasons:
            if reason.code not in ("no_detector", "not_calibrated", "part_left_out"):
                text = f"face {track.id + 1}: {reason.text}"
                yield Reason(code=reason.code, weight=reason.weight, text=text)
