"""From evidence to verdict: the rules by table, and what holds of all of them."""

import numpy as np
import pytest

from detectors.report.model import (
    EVIDENCE,
    INCONCLUSIVE,
    NO_EVIDENCE,
    Certificate,
    DetectorFacts,
    Provenance,
    Sighting,
    Track,
    Watermark,
)
from detectors.verdict import (
    FEWEST_SIGHTINGS,
    RUN,
    SMALLEST_FACE,
    exit_code,
    is_calibrated,
    judge_file,
    judge_track,
    origin_of,
    track_score,
)

DETECTOR = DetectorFacts(
    name="small_cnn", sha256="ab" * 32, calibrated_for=["studio"], threshold=0.7, facts={}
)
CAMERA = DETECTOR.model_copy(update={"name": "default", "calibrated_for": ["camera"]})
UNSURE = CAMERA.model_copy(update={"undecided_from": 0.3, "coverage": 0.9})
NO_MARK = Watermark(status="absent", kind=None, id=None, p_value=0.4, corrected=None, frames=64)
NO_MANIFEST = Provenance(status="absent", reason="none", kind=None, origin="unknown", claims={})
NO_CERTIFICATE = Certificate(status="absent", reason="not in a studio folder")
CERTIFIED = Certificate(status="valid", reason="holds")


def mark(kind):
    return Watermark(status="present", kind=kind, id=7, p_value=1e-30, corrected=2, frames=64)


def manifest(status="trusted", kind=None, origin="unknown"):
    claims = {"kind": kind, "facts": {"origin": origin}}
    return Provenance(status=status, reason="checked", kind=kind, origin=origin, claims=claims)


def seen(scores, size=120.0, every=0.2, start=0.0):
    box = (10.0, 20.0, 10.0 + size, 20.0 + size)
    return [
        Sighting(
            time=round(start + every * i, 4), index=5 * i, box=box, size=size, located=0.99, score=s
        )
        for i, s in enumerate(scores)
    ]


def track(scores, *, id=0, size=120.0, detector=DETECTOR, origin="studio", image=False):
    sightings = seen(scores, size)
    return Track(
        id=id,
        start=sightings[0].time,
        end=sightings[-1].time,
        size=size,
        score=track_score(sightings),
        calibrated=detector is not None and is_calibrated(detector, origin),
        verdict=judge_track(sightings, detector=detector, origin=origin, image=image),
        sightings=sightings,
    )


def judge(
    *,
    watermark=NO_MARK,
    provenance=NO_MANIFEST,
    certificate=NO_CERTIFICATE,
    tracks=(),
    detector=DETECTOR,
    ends_early=None,
):
    origin = origin_of(provenance, certificate)
    return judge_file(
        watermark=watermark,
        provenance=provenance,
        certificate=certificate,
        tracks=[track(scores, id=i, detector=detector, origin=origin) for i, scores in
                enumerate(tracks)],
        detector=detector,
        origin=origin,
        ends_early=ends_early,
    )  # fmt: skip


CLEAN, FORGED = [0.1] * 20, [0.95] * 20


@pytest.mark.parametrize(
    ("evidence", "conclusion", "code"),
    [
        # What a mark or a manifest says counts whatever the detector says.
        ({"watermark": mark("generated")}, EVIDENCE, "mark_says_generated"),
        ({"watermark": mark("composite"), "detector": None}, EVIDENCE, "mark_says_generated"),
        ({"provenance": manifest(kind="generated")}, EVIDENCE, "manifest_says_generated"),
        ({"provenance": manifest("untrusted", "composite")}, EVIDENCE, "manifest_says_generated"),
        (
            {"watermark": mark("composite"), "certificate": CERTIFIED, "tracks": [CLEAN]},
            EVIDENCE,
            "mark_says_generated",
        ),
        # A detector that is calibrated for the footage speaks.
        ({"certificate": CERTIFIED, "tracks": [CLEAN]}, NO_EVIDENCE, "certified_studio"),
        ({"certificate": CERTIFIED, "tracks": [FORGED]}, EVIDENCE, "score_above_threshold"),
        (
            {"provenance": manifest(kind="studio", origin="studio"), "tracks": [CLEAN]},
            NO_EVIDENCE,
            "score_below_threshold",
        ),
        # One forged face among eleven is not averaged away.
        (
            {"certificate": CERTIFIED, "tracks": [*[CLEAN] * 10, FORGED]},
            EVIDENCE,
            "score_above_threshold",
        ),
        # A signer unknown here may speak against a file, and so let the detector speak as well.
        (
            {"provenance": manifest("untrusted", "composite", "studio"), "tracks": [FORGED]},
            EVIDENCE,
            "score_above_threshold",
        ),
        # On other footage its scores count for nothing, high or low.
        ({"tracks": [CLEAN]}, INCONCLUSIVE, "not_calibrated"),
        ({"tracks": [FORGED]}, INCONCLUSIVE, "not_calibrated"),
        ({"tracks": [CLEAN], "detector": None}, INCONCLUSIVE, "no_detector"),
        # Footage of unknown origin is judged as a camera's, by a detector that knows a camera's.
        ({"tracks": [CLEAN], "detector": CAMERA}, NO_EVIDENCE, "judged_as_camera"),
        ({"tracks": [FORGED], "detector": CAMERA}, EVIDENCE, "score_above_threshold"),
        ({"tracks": [CLEAN, FORGED], "detector": CAMERA}, EVIDENCE, "judged_as_camera"),
        # A score that generated faces have as well is no verdict.
        ({"tracks": [CLEAN], "detector": UNSURE}, NO_EVIDENCE, "score_below_threshold"),
        ({"tracks": [CLEAN, [0.35] * 20], "detector": UNSURE}, INCONCLUSIVE, "score_undecided"),
        ({"tracks": [[0.7] * 20], "detector": UNSURE}, INCONCLUSIVE, "score_undecided"),
        ({"tracks": [[0.35] * 20, FORGED], "detector": UNSURE}, EVIDENCE, "score_undecided"),
        # The studio's is not a camera's: it needs a detector that knows it.
        (
            {"certificate": CERTIFIED, "tracks": [FORGED], "detector": CAMERA},
            INCONCLUSIVE,
            "not_calibrated",
        ),
        (
            {"provenance": manifest("tampered", "generated"), "tracks": [CLEAN],
             "detector": CAMERA},
            INCONCLUSIVE,
            "manifest_tampered",
        ),
        (
            {"certificate": CERTIFIED, "tracks": [[None] * 20], "detector": None},
            INCONCLUSIVE,
            "no_detector",
        ),
        # A signature that does not hold proves no origin and no kind.
        (
            {"provenance": manifest("tampered", "generated"), "certificate": CERTIFIED,
             "tracks": [CLEAN]},
            INCONCLUSIVE,
            "manifest_tampered",
        ),
        (
            {"provenance": manifest("tampered", None, "studio"), "tracks": [CLEAN]},
            INCONCLUSIVE,
            "not_calibrated",
        ),
        (
            {"provenance": manifest("untrusted", None, "studio"), "tracks": [CLEAN]},
            INCONCLUSIVE,
            "not_calibrated",
        ),
        (
            {"certificate": Certificate(status="invalid", reason="hash"), "tracks": [CLEAN]},
            INCONCLUSIVE,
            "certificate_invalid",
        ),
        # Too little to go by.
        ({"certificate": CERTIFIED, "tracks": []}, INCONCLUSIVE, "no_face"),
        ({"certificate": CERTIFIED, "tracks": [[0.9] * 4]}, INCONCLUSIVE, "too_few_frames"),
        ({"certificate": CERTIFIED, "tracks": [[None] * 9]}, INCONCLUSIVE, "not_scored"),
        (
            {"certificate": CERTIFIED, "tracks": [CLEAN], "ends_early": "cut off"},
            INCONCLUSIVE,
            "ends_early",
        ),
        # A part that could not be read is never taken for a part that found nothing.
        (
            {"watermark": NO_MARK.model_copy(update={"status": "not read"}),
             "certificate": CERTIFIED, "tracks": [CLEAN]},
            INCONCLUSIVE,
            "part_not_read",
        ),
        (
            {"provenance": manifest("not read"), "certificate": CERTIFIED, "tracks": [CLEAN]},
            INCONCLUSIVE,
            "part_not_read",
        ),
        (
            {"watermark": mark(None), "certificate": CERTIFIED, "tracks": [CLEAN]},
            INCONCLUSIVE,
            "mark_kind_unknown",
        ),
        # Marks that are evidence of nothing, or of an honest origin only, and are said.
        (
            {"watermark": mark("test-real"), "certificate": CERTIFIED, "tracks": [CLEAN]},
            NO_EVIDENCE,
            "mark_says_test_real",
        ),
        ({"watermark": mark("test-real"), "tracks": [CLEAN]}, INCONCLUSIVE, "mark_says_test_real"),
        ({"watermark": mark("studio"), "tracks": [CLEAN]}, INCONCLUSIVE, "mark_says_studio"),
    ],
)  # fmt: skip
def test_verdict_on_a_file(evidence, conclusion, code):
    verdict = judge(**evidence)
    assert verdict.conclusion == conclusion
    assert code in [reason.code for reason in verdict.reasons]
    weights = [reason.weight for reason in verdict.reasons]
    assert weights == sorted(weights, key=("evidence", "abstention", "note").index)


def test_a_small_face_gives_no_verdict_even_with_a_high_score():
    verdict = judge_track(
        seen(FORGED, SMALLEST_FACE - 1), detector=DETECTOR, origin="studio", image=False
    )
    assert verdict.conclusion == INCONCLUSIVE
    assert [reason.code for reason in verdict.reasons] == ["small_face"]
    assert str(SMALLEST_FACE) in verdict.reasons[0].text


def test_sightings_that_are_too_small_neither_count_nor_spoil_the_rest():
    near = seen([0.2] * FEWEST_SIGHTINGS)
    far = seen([0.99] * 30, size=30.0, start=9.0)
    assert track_score([*near, *far]) == pytest.approx(0.2)
    verdict = judge_track([*near, *far], detector=DETECTOR, origin="studio", image=False)
    assert verdict.conclusion == NO_EVIDENCE


def test_one_sighting_is_enough_in_a_picture_but_not_in_a_video():
    for image, conclusion in ((True, EVIDENCE), (False, INCONCLUSIVE)):
        verdict = judge_track(seen([0.9]), detector=DETECTOR, origin="studio", image=image)
        assert verdict.conclusion == conclusion


def test_a_forged_stretch_is_not_averaged_away_over_time():
    scores = [0.05] * 100 + [0.9] * RUN + [0.05] * 100
    assert np.mean(scores) < DETECTOR.threshold
    assert track_score(seen(scores)) == pytest.approx(0.9)
    one_frame = [0.05] * 100 + [0.9] + [0.05] * 100
    assert track_score(seen(one_frame)) < DETECTOR.threshold


def test_a_score_at_the_threshold_is_not_above_it():
    verdict = judge_track(seen([0.7] * 9), detector=DETECTOR, origin="studio", image=False)
    assert verdict.conclusion == NO_EVIDENCE


def test_an_unsigned_mark_is_called_a_claim():
    (reason, *_) = judge(watermark=mark("generated")).reasons
    assert "a claim, not a proof" in reason.text
    signed = judge(watermark=mark("generated"), provenance=manifest(kind="generated"))
    assert "not a proof" not in signed.reasons[0].text


@pytest.mark.parametrize(
    ("conclusions", "errors", "code"),
    [
        ([NO_EVIDENCE, NO_EVIDENCE], False, 0),
        ([NO_EVIDENCE, INCONCLUSIVE], False, 20),
        ([INCONCLUSIVE, EVIDENCE, NO_EVIDENCE], False, 10),
        ([EVIDENCE, INCONCLUSIVE], True, 1),
        ([], True, 1),
    ],
)
def test_exit_codes_weigh_1_10_20_0(conclusions, errors, code):
    assert exit_code(conclusions, errors=errors) == code
