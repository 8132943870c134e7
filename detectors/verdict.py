"""From evidence to verdict: pure functions, so that every rule can be read and tested by itself.

A verdict is *evidence of manipulation*, *no evidence found* or *inconclusive*, never "real":

- A mark or a validly signed manifest that says generated or composite is evidence, whatever the
  detector says.
- A detector speaks only on footage that it is calibrated for. Elsewhere its scores are shown, and
  the verdict is *inconclusive*. A file of unknown origin is judged as camera footage, and the
  verdict says so: what most files are, and what a detector is asked about.
- A file is judged by its worst face: one forged face among ten others is not averaged away. In the
  same way a track is judged by its worst stretch, not by its mean over all of its time.
- *No evidence found* needs all of it: every face large enough, seen often enough, scored by a
  calibrated detector, below its threshold and where few generated faces are, and every other part
  read.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from detectors.report.model import (
    EVIDENCE,
    INCONCLUSIVE,
    NO_EVIDENCE,
    Certificate,
    Code,
    Conclusion,
    DetectorFacts,
    ExitCode,
    Origin,
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

CAMERA = "camera"
"""What ``calibrated_for`` calls untouched photos and videos of the world."""
MANIPULATED_KINDS = ("generated", "composite")
_ORDER: tuple[Conclusion, ...] = (NO_EVIDENCE, INCONCLUSIVE, EVIDENCE)
_EXIT_CODES: dict[Conclusion, ExitCode] = {NO_EVIDENCE: 0, EVIDENCE: 10, INCONCLUSIVE: 20}
_WEIGHTS = ("evidence", "abstention", "note")


def origin_of(provenance: Provenance, certificate: Certificate) -> Origin:
    """Where the footage comes from, as far as something shows it.

    "studio" if the studio's certificate holds for the file or a signed manifest says so. A signer
    that nobody vouches for may speak against a file, never for it: with such a signature the
    manifest must also say that the file is generated or composite.
    """
    believed = provenance.status == "trusted" or (
        provenance.status == "untrusted" and provenance.kind in MANIPULATED_KINDS
    )
    signed = believed and provenance.origin == "studio"
    return "studio" if certificate.status == "valid" or signed else "unknown"


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


def worst_stretch(sightings: Sequence[Sighting]) -> slice | None:
    """The ``RUN`` consecutive usable sightings (all, if fewer) of the highest mean score.

    Returns:
        Their place among the usable; None if there is none, or one of them has no score.
    """
    scores = [sighting.score for sighting in usable(sightings)]
    known = [score for score in scores if score is not None]
    if not scores or len(known) < len(scores):
        return None
    length = min(RUN, len(known))
    start = int(np.convolve(known, np.ones(length) / length, mode="valid").argmax())
    return slice(start, start + length)


def track_score(sightings: Sequence[Sighting]) -> float | None:
    """The mean score of the worst stretch; None if there is none."""
    stretch = worst_stretch(sightings)
    if stretch is None:
        return None
    return float(np.mean([sighting.score for sighting in usable(sightings)[stretch]]))


def judge_track(
    sightings: Sequence[Sighting], *, detector: DetectorFacts | None, origin: Origin, image: bool
) -> Verdict:
    """The verdict on one face, by the detector alone."""
    reasons = []
    if detector is None:
        reasons.append(_abstain("no_detector", "no detector was at hand to score it"))
    elif not is_calibrated(detector, origin):
        reasons.append(_not_calibrated(detector))
    good = usable(sightings)
    if not good:
        largest = max((sighting.size for sighting in sightings), default=0.0)
        reasons.append(
            _abstain(
                "small_face",
                f"the face is at most {largest:.0f} px large; below {SMALLEST_FACE} px nothing can "
                "be said",
            )
        )
    elif not image and len(good) < FEWEST_SIGHTINGS:
        reasons.append(
            _abstain(
                "too_few_frames",
                f"too few frames: {len(good)} with the face at {SMALLEST_FACE} px or more, "
                f"{FEWEST_SIGHTINGS} are needed",
            )
        )
    score = track_score(sightings)
    if detector and good and score is None:
        reasons.append(_abstain("not_scored", "the detector gave no score for some of its frames"))
    if not reasons and detector and score is not None:
        what = "the score" if image else "the mean score of its highest stretch"
        if score > detector.threshold:
            text = f"{what}, {score:.2f}, is above the threshold {detector.threshold:.2f}"
            reasons.append(Reason(code="score_above_threshold", weight="evidence", text=text))
        elif is_undecided(detector, score):
            text = (
                f"{what}, {score:.2f}, is neither above the threshold {detector.threshold:.2f} nor "
                f"below {detector.undecided_from:.2f}, from where on it may well be generated"
            )
            reasons.append(_abstain("score_undecided", text))
        else:
            text = f"{what}, {score:.2f}, is not above the threshold {detector.threshold:.2f}"
            reasons.append(Reason(code="score_below_threshold", weight="note", text=text))
    return _conclude(reasons)


def judge_file(
    *,
    watermark: Watermark,
    provenance: Provenance,
    certificate: Certificate,
    tracks: Sequence[Track],
    detector: DetectorFacts | None,
    origin: Origin,
    ends_early: str | None = None,
) -> Verdict:
    """The verdict on a file: the worst of what its mark, its manifest and its faces give.

    ``ends_early`` says so where the file's pictures end before its declared duration.
    """
    reasons = [
        *_watermark_reasons(watermark, provenance),
        *_provenance_reasons(provenance),
        *_certificate_reasons(certificate),
    ]
    # Said once for the file, and where no face was found as well.
    if detector is None:
        reasons.append(
            _abstain(
                "no_detector",
                "no detector calibrated for it: none is bundled and none was given (--detector)",
            )
        )
    elif not is_calibrated(detector, origin):
        reasons.append(_not_calibrated(detector))
    elif origin == "unknown":
        reasons.append(
            _note(
                "judged_as_camera",
                "nothing shows where it comes from: it is judged as camera footage, which is what "
                f"'{detector.name}' is calibrated for",
            )
        )
    if not tracks:
        reasons.append(_abstain("no_face", "no face was found"))
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


def _watermark_reasons(watermark: Watermark, provenance: Provenance) -> Iterable[Reason]:
    if watermark.status == "not read":
        yield _abstain("part_not_read", f"the watermark could not be read: {watermark.error}")
    if watermark.status != "present":
        return
    chance = f"p {p_value(watermark.p_value)}"
    if watermark.kind in MANIPULATED_KINDS:
        signed = provenance.status in ("trusted", "untrusted")
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
    elif provenance.status != "absent" and provenance.kind in MANIPULATED_KINDS:
        signer = "signed" if provenance.status == "trusted" else "signed by someone unknown"
        text = f"its content credentials, {signer}, say '{provenance.kind}'"
        yield Reason(code="manifest_says_generated", weight="evidence", text=text)


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
            if reason.code not in ("no_detector", "not_calibrated"):
                text = f"face {track.id + 1}: {reason.text}"
                yield Reason(code=reason.code, weight=reason.weight, text=text)
