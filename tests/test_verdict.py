"""From evidence to verdict: the rules by table, and what holds of all of them."""

import re
from itertools import chain, combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.report.model import (
    EVIDENCE,
    INCONCLUSIVE,
    NO_EVIDENCE,
    PARTS,
    Calibrated,
    Certificate,
    DetectorFacts,
    Provenance,
    Sighting,
    Track,
    Watermark,
)
from detectors.verdict import (
    FEWEST_SIGHTINGS,
    MANIPULATED_KINDS,
    RUN,
    SMALLEST_FACE,
    SURE,
    SURE_NOT,
    exit_code,
    goes_by_score,
    is_calibrated,
    judge_file,
    judge_track,
    origin_of,
    scored_by,
    worst_first,
    worst_stretch,
)

DETECTOR = DetectorFacts(
    name="small_cnn", sha256="ab" * 32, calibrated_for=["studio"], threshold=0.7, facts={}
)
CAMERA = DETECTOR.model_copy(update={"name": "default", "calibrated_for": ["camera"]})
UNSURE = CAMERA.model_copy(update={"undecided_from": 0.3, "coverage": 0.9})
RANGED = CAMERA.model_copy(
    update={
        "calibrated": Calibrated(
            method="platt", fpr=0.01, bounds=(-1, 1),
            ranges={"blur": (0.0, 3.0), "compression": (0.0, 0.4)},
        )
    }
)  # fmt: skip
NO_MARK = Watermark(status="absent", kind=None, id=None, p_value=0.4, corrected=None, frames=64)
NO_MANIFEST = Provenance(status="absent", reason="none", kind=None, origin="unknown", claims={})
NO_CERTIFICATE = Certificate(status="absent", reason="not in a studio folder")
CERTIFIED = Certificate(status="valid", reason="holds")


def mark(kind):
    return Watermark(status="present", kind=kind, id=7, p_value=1e-30, corrected=2, frames=64)


def manifest(status="trusted", kind=None, origin="unknown", signer=None):
    claims = {"kind": kind, "facts": {"origin": origin}}
    return Provenance(
        status=status, reason="checked", kind=kind, origin=origin, claims=claims, signer=signer
    )


def seen(scores, size=120.0, every=0.2, start=0.0, **facts):
    box = (10.0, 20.0, 10.0 + size, 20.0 + size)
    return [
        Sighting(
            time=round(start + every * i, 4), index=5 * i, box=box, size=size, located=0.99,
            score=s, **facts,
        )
        for i, s in enumerate(scores)
    ]  # fmt: skip


def track_score(sightings, detector, *, image):
    """As an analysis puts it into a report."""
    stretch = worst_stretch(sightings, detector, image=image)
    return np.mean([sighting.score for sighting in stretch]) if stretch else None


def track(scores, *, id=0, size=120.0, detector=DETECTOR, origin="studio", **options):
    sightings = seen(scores, size)
    options = {"image": False, **options}
    return Track(
        id=id,
        start=sightings[0].time,
        end=sightings[-1].time,
        size=size,
        score=track_score(sightings, detector, image=options["image"]),
        calibrated=detector is not None and is_calibrated(detector, origin),
        verdict=judge_track(sightings, detector=detector, origin=origin, **options),
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
    until=None,
    left_out=(),
):
    """The verdict on a file as an analysis gives it that leaves parts out."""
    if "provenance" in left_out:
        provenance = certificate = None
    if "watermark" in left_out:
        watermark = None
    if "faces" in left_out:
        tracks = ()
    if {"faces", "detectors"} & set(left_out):
        left_out, detector = {*left_out, "detectors", "localisation"}, None
        tracks = [[None] * len(scores) for scores in tracks]
    origin = origin_of(provenance, certificate)
    return judge_file(
        watermark=watermark,
        provenance=provenance,
        certificate=certificate,
        tracks=[
            track(scores, id=i, detector=detector, origin=origin, left_out=left_out)
            for i, scores in enumerate(tracks)
        ],
        detector=detector,
        origin=origin,
        ends_early=ends_early,
        until=until,
        left_out=left_out,
    )


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
    assert track_score([*near, *far], DETECTOR, image=False) == pytest.approx(0.2)
    verdict = judge_track([*near, *far], detector=DETECTOR, origin="studio", image=False)
    assert verdict.conclusion == NO_EVIDENCE


def test_one_sighting_is_enough_in_a_picture_but_not_in_a_video():
    for image, conclusion in ((True, EVIDENCE), (False, INCONCLUSIVE)):
        verdict = judge_track(seen([0.9]), detector=DETECTOR, origin="studio", image=image)
        assert verdict.conclusion == conclusion


def test_a_forged_stretch_is_not_averaged_away_over_time():
    scores = [0.05] * 100 + [0.9] * RUN + [0.05] * 100
    assert np.mean(scores) < DETECTOR.threshold
    assert track_score(seen(scores), DETECTOR, image=False) == pytest.approx(0.9)
    one_frame = [0.05] * 100 + [0.9] + [0.05] * 100
    assert track_score(seen(one_frame), DETECTOR, image=False) < DETECTOR.threshold


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


def codes(verdict, weight=None):
    return [reason.code for reason in verdict.reasons if weight in (None, reason.weight)]


# Everything together

RANK = (NO_EVIDENCE, INCONCLUSIVE, EVIDENCE).index
MARKS = (
    NO_MARK,
    NO_MARK.model_copy(update={"status": "not read", "error": "damaged"}),
    *map(mark, ("generated", "composite", "studio", "test-real", None)),
)
MANIFESTS = (
    NO_MANIFEST,
    *(
        manifest(status, kind, origin)
        for status in ("not read", "tampered", "untrusted", "trusted")
        for kind, origin in ((None, "unknown"), ("studio", "studio"), ("composite", "studio"),
                             ("generated", "unknown"))
    ),
)  # fmt: skip
CERTIFICATES = (
    NO_CERTIFICATE, CERTIFIED, Certificate(status="invalid", reason="a hash differs")
)  # fmt: skip
DETECTORS = (None, DETECTOR, CAMERA, UNSURE)
FACES = ((), (CLEAN,), (FORGED,), (CLEAN, [0.4] * 20), (CLEAN, [0.9] * 3), ([None] * 9,),
         (*[CLEAN] * 10, FORGED))  # fmt: skip
LEAVABLE = [set(some) for some in chain.from_iterable(combinations(PARTS, n) for n in range(4))]


def expected(watermark, provenance, certificate, detector, tracks):
    """The rules once more, written from the guide and not from the code."""
    says_so = provenance.kind in MANIPULATED_KINDS
    vouched = provenance.status == "trusted" or (provenance.status == "untrusted" and says_so)
    studio = certificate.status == "valid" or (vouched and provenance.origin == "studio")
    speaks = detector is not None and ("studio" if studio else "camera") in detector.calibrated_for
    enough = [len(scores) >= 5 and scores[0] is not None for scores in tracks]
    above = [scores[0] is not None and scores[0] > 0.7 for scores in tracks]
    if (
        watermark.kind in MANIPULATED_KINDS
        or (vouched and says_so)
        or (speaks and any(a and b for a, b in zip(enough, above, strict=True)))
    ):
        return EVIDENCE
    read = watermark.status != "not read" and provenance.status in (
        "absent",
        "untrusted",
        "trusted",
    )
    legible = watermark.status == "absent" or watermark.kind is not None
    unsure = detector is UNSURE and any(scores[0] and scores[0] >= 0.3 for scores in tracks)
    if speaks and tracks and all(enough) and not unsure and read and legible:
        return NO_EVIDENCE
    return INCONCLUSIVE


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda one: one.name if one else "none")
def test_every_combination_is_judged_by_the_guides_rules(detector):
    for evidence in product(MARKS, MANIFESTS, CERTIFICATES, FACES):
        watermark, provenance, certificate, tracks = evidence
        verdict = judge(
            watermark=watermark, provenance=provenance, certificate=certificate, tracks=tracks,
            detector=detector,
        )  # fmt: skip
        want = expected(watermark, provenance, certificate, detector, tracks)
        assert verdict.conclusion == want, evidence
        assert verdict.reasons, "a verdict has its reasons"
        weights = [reason.weight for reason in verdict.reasons]
        assert weights == sorted(weights, key=("evidence", "abstention", "note").index)
        said = " ".join(reason.text for reason in verdict.reasons).replace("test-real", "")
        assert not re.search(r"\b(real|genuine|authentic)\b", said)


evidence_of_files = st.fixed_dictionaries(
    {
        "watermark": st.sampled_from(MARKS),
        "provenance": st.sampled_from(MANIFESTS),
        "certificate": st.sampled_from(CERTIFICATES),
        "detector": st.sampled_from(DETECTORS),
        "tracks": st.lists(
            st.sampled_from((CLEAN, FORGED, [0.4] * 9, [0.9] * 3, [None] * 7)), max_size=5
        ),
        "ends_early": st.sampled_from((None, "it breaks off")),
        "until": st.sampled_from((None, 60.0)),
    }
)


@given(evidence_of_files, st.sampled_from(LEAVABLE))
@settings(max_examples=150, deadline=None)
def test_leaving_parts_out_never_clears_a_file_and_localisation_decides_nothing(evidence, left_out):
    full, partly = judge(**evidence), judge(**evidence, left_out=left_out)
    if left_out <= {"localisation"}:
        assert partly == full
        return
    assert partly.conclusion != NO_EVIDENCE
    assert "part_left_out" in codes(partly, "abstention")
    (said,) = [r.text for r in partly.reasons if r.text.startswith("left out, as asked")]
    assert all(part in said for part in left_out - {"localisation"})
    assert not {"no_face", "no_detector"} & set(codes(partly)) or (
        "faces" not in left_out and "no_face" in codes(full)
    ) or evidence["detector"] is None  # fmt: skip


@given(evidence_of_files, st.sampled_from((CLEAN, FORGED, [0.9] * 3)), st.randoms())
@settings(max_examples=150, deadline=None)
def test_another_face_never_weakens_a_verdict_and_their_order_does_not_matter(
    evidence, another, random
):
    before = judge(**evidence)
    more = {**evidence, "tracks": [*evidence["tracks"], another]}
    if evidence["tracks"]:
        assert RANK(judge(**more).conclusion) >= RANK(before.conclusion)
    else:
        # Where there was none, "no face was found" is all that can go.
        assert {"no_face"} >= set(codes(before)) - set(codes(judge(**more)))
    shuffled = random.sample(more["tracks"], len(more["tracks"]))
    assert judge(**{**more, "tracks": shuffled}).conclusion == judge(**more).conclusion


@given(evidence_of_files, st.sampled_from(("generated", "composite")))
@settings(max_examples=80, deadline=None)
def test_what_is_signed_as_synthetic_is_stated_first_whatever_else_is_found(evidence, kind):
    for status, words in (("trusted", "signed by Jane"), ("untrusted", "nobody here vouches")):
        verdict = judge(**{**evidence, "provenance": manifest(status, kind, signer="Jane")})
        assert verdict.conclusion == EVIDENCE
        first = verdict.reasons[0]
        assert first.code == "manifest_says_generated"
        assert words in first.text and f"'{kind}'" in first.text


def test_a_person_who_does_not_exist_is_stated_where_it_is_signed():
    verdict = judge(provenance=manifest(kind="studio", origin="studio"), tracks=[CLEAN])
    assert (verdict.conclusion, "manifest_says_studio" in codes(verdict)) == (NO_EVIDENCE, True)
    tampered = judge(provenance=manifest("tampered", "studio", "studio"), tracks=[CLEAN])
    assert "manifest_says_studio" not in codes(tampered)


def test_what_was_not_looked_at_for_its_length_is_not_cleared():
    verdict = judge(tracks=[CLEAN], detector=CAMERA, until=90.0)
    assert verdict.conclusion == INCONCLUSIVE and codes(verdict, "abstention") == ["part_left_out"]
    assert "from 90 s on" in verdict.reasons[0].text
    assert judge(tracks=[FORGED], detector=CAMERA, until=90.0).conclusion == EVIDENCE


def test_a_face_that_was_not_scored_as_asked_says_so():
    for detector in (None, CAMERA):
        verdict = judge_track(
            seen([None] * 9), detector=detector, origin="unknown", image=False,
            left_out=("detectors", "localisation"),
        )  # fmt: skip
        assert codes(verdict) == ["part_left_out"] and verdict.conclusion == INCONCLUSIVE


def test_the_worst_faces_come_first():
    tracks = [track(scores, id=i) for i, scores in enumerate((CLEAN, [0.9] * 3, FORGED, [0.2] * 9))]
    assert [one.id for one in worst_first(tracks)] == [2, 1, 3, 0]


# One face


def judge_camera(sightings, detector=RANGED, image=False):
    return judge_track(sightings, detector=detector, origin="unknown", image=image)


@given(
    st.lists(st.floats(0, 0.69), max_size=40),
    st.lists(st.floats(0, 0.69), max_size=40),
    st.lists(st.floats(0.71, 1), min_size=RUN, max_size=30),
)
@settings(max_examples=50, deadline=None)
def test_a_forged_stretch_is_found_wherever_it_lies(before, after, forged):
    verdict = judge_camera(seen([*before, *forged, *after]))
    assert verdict.conclusion == EVIDENCE and codes(verdict)[0] == "score_above_threshold"


@pytest.mark.parametrize(
    "what", [{"blur": 3.1}, {"compression": 0.5}, {"blur": 9, "compression": 1}]
)
def test_scores_of_a_face_seen_unlike_the_calibrations_are_withheld(what):
    for scores in (CLEAN, FORGED):
        verdict = judge_camera(seen(scores, **what))
        assert (verdict.conclusion, codes(verdict)) == (INCONCLUSIVE, ["quality_outside"])
        assert all(f"{name} {value:.3g}" in verdict.reasons[0].text for name, value in what.items())
        assert judge_camera(seen(scores[:1], **what), image=True).conclusion == INCONCLUSIVE
    # The detector that does not say what it was calibrated on is judged by its scores alone.
    assert judge_camera(seen(FORGED, **what), CAMERA).conclusion == EVIDENCE


@pytest.mark.parametrize("what", [{}, {"blur": 3.0, "compression": 0.4}, {"blur": 0.0}])
def test_what_lies_within_or_was_not_measured_counts(what):
    for scores, conclusion in ((CLEAN, NO_EVIDENCE), (FORGED, EVIDENCE)):
        assert judge_camera(seen(scores, **what)).conclusion == conclusion


def test_a_few_bad_frames_neither_count_nor_spoil_the_rest():
    good, bad = seen([0.1] * 20, blur=1.0), seen([0.99] * 15, blur=8.0, start=9.0)
    verdict = judge_camera([*good, *bad])
    assert verdict.conclusion == NO_EVIDENCE and "seen well enough" in verdict.reasons[0].text
    # More bad frames than good ones: the face cannot be cleared.
    verdict = judge_camera([*good[:8], *bad])
    assert verdict.conclusion == INCONCLUSIVE and "15 of 23 frames" in verdict.reasons[0].text


def test_frames_that_cannot_be_judged_do_not_hide_those_that_can():
    forged, bad = seen(FORGED, blur=1.0), seen([0.1] * 200, blur=8.0, start=9.0)
    verdict = judge_camera([*forged, *bad])
    assert verdict.conclusion == EVIDENCE
    assert codes(verdict) == ["score_above_threshold", "quality_outside"]
    # Worse ones of a higher score hide nothing either.
    verdict = judge_camera([*forged, *seen([1.0] * 15, blur=8.0, start=9.0)])
    assert "0.95" in verdict.reasons[0].text


def test_a_tracks_score_is_the_one_that_its_verdict_goes_by():
    good, bad = seen([0.2] * 6, blur=1.0), seen([0.9] * 15, blur=8.0, start=9.0)
    for sightings, score, goes in (
        ([*good, *bad], 0.2, True),
        # Too few are seen well enough: the score is of all, and counts for nothing.
        ([*good[:4], *bad], 0.9, False),
        (bad, 0.9, False),
        (good[:4], 0.2, False),
    ):
        verdict = judge_camera(sightings)
        found = track_score(sightings, RANGED, image=False)
        assert found == pytest.approx(score) and goes_by_score(verdict) is goes
        said = [reason.text for reason in verdict.reasons if reason.code.startswith("score_")]
        assert all(f"{found:.2f}" in text for text in said)
    assert worst_stretch(seen([0.4, None]), RANGED, image=True) == []
    assert scored_by(seen([0.4], size=20), RANGED, image=True) == []


def test_too_few_good_frames_are_no_ground_for_a_verdict():
    verdict = judge_camera([*seen(FORGED[:4], blur=1.0), *seen([0.9] * 4, blur=9.0, start=9.0)])
    assert (verdict.conclusion, codes(verdict)) == (INCONCLUSIVE, ["quality_outside"])


@pytest.mark.parametrize(
    ("score", "members", "conclusion", "weight"),
    [
        (0.1, {"a": SURE, "b": SURE_NOT}, INCONCLUSIVE, "abstention"),
        (0.1, {"a": 0.99, "b": 0.5, "c": 0.0}, INCONCLUSIVE, "abstention"),
        (0.1, {"a": SURE - 0.01, "b": 0.0}, NO_EVIDENCE, None),
        (0.1, {"a": 1.0, "b": SURE_NOT + 0.01}, NO_EVIDENCE, None),
        (0.1, {"a": 0.99}, NO_EVIDENCE, None),
        (0.1, {}, NO_EVIDENCE, None),
        # Above the threshold it is only said.
        (0.9, {"a": 0.99, "b": 0.01}, EVIDENCE, "note"),
    ],
)
def test_members_that_contradict_one_another(score, members, conclusion, weight):
    verdict = judge_camera(seen([score] * 9, members=members))
    assert verdict.conclusion == conclusion
    assert ("detectors_disagree" in codes(verdict, weight)) == (weight is not None)
    assert weight or "detectors_disagree" not in codes(verdict)


def test_members_are_heard_on_the_stretch_that_the_score_is_of():
    calm = seen([0.1] * 30, members={"a": 0.1, "b": 0.1})
    torn = seen([0.3] * RUN, members={"a": 0.95, "b": 0.05}, start=20.0)
    (reason,) = [
        one for one in judge_camera([*calm, *torn]).reasons if one.code == "detectors_disagree"
    ]
    assert "a 0.95" in reason.text and "b 0.05" in reason.text
