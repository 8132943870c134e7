"""Analyze: the whole way from files to a report, and bad files."""

import json
import re
import shutil
from functools import partial
from itertools import pairwise
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import skimage.data
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from detectors import analyze as analysis
from detectors import evidence, walk
from detectors.calibrate import Calibration, calibrate
from detectors.regions import crops as cut_crops
from detectors.report import model
from detectors.report.model import (
    EVIDENCE,
    INCONCLUSIVE,
    NO_EVIDENCE,
    PARTS,
    Certificate,
    Sighting,
    Track,
    Verdict,
    Watermark,
)
from detectors.score import Detector
from detectors.verdict import SMALLEST_FACE
from facekit import export
from facekit.cli import cli
from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.media.decode import Video, probe
from facekit.media.encode import write_video
from facekit.media.images import write_image
from facekit.provenance import manifest as manifests
from facekit.studio import certificate
from facekit.types import Frame
from facekit.watermark import Kind

NO_MARK = Watermark(status="absent", kind=None, id=None, p_value=0.4, corrected=None, frames=64)
CERTIFIED = Certificate(status="valid", reason="holds")


@pytest.fixture(autouse=True)
def quick_marks(monkeypatch):
    """Marks are read where they lie: to look for moved ones takes longer than all else here."""
    monkeypatch.setattr(evidence, "read_file", partial(evidence.read_file, search=False))


def validate(report):
    schema = json.loads(Path(model.__file__).with_name("schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(report, schema)


class Brightness:
    """Stands in for a detector: the brighter a face, the higher its score."""

    name, threshold = "brightness", 0.5
    facts = {"name": "brightness", "sha256": "cd" * 32, "plugin": "none"}  # noqa: RUF012

    def __init__(self, calibrated_for, fails=False):
        self.calibrated_for, self.fails = calibrated_for, fails

    def score(self, regions):
        if self.fails:
            raise FacekitError("brightness: gives scores that are not numbers")
        crops = cut_crops(regions, "wide", 64)
        return crops.mean(axis=(1, 2, 3), dtype=np.float64) / 255


def pan(seconds, *, rate=10, brightness=1.0):
    """A camera that moves over a photo with one face in it."""
    photo = (skimage.data.astronaut() * brightness).astype(np.uint8)
    for i in range(round(seconds * rate)):
        yield Frame(photo[: 6 * 48, 60 + i : 60 + i + 320], i / rate, i)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, pan(2.0), rate=10)
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    write_image(path, skimage.data.astronaut()[:300])
    return path


def run(*arguments):
    result = CliRunner().invoke(cli, ["analyze", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def analyze(inputs, out=None, detector=None, **options):
    return analysis.analyze(
        inputs, detector=detector, device=torch.device("cpu"), out=out, **options
    )


def bundle(monkeypatch, detector):
    """What the command finds where no detector is named."""
    monkeypatch.setattr(analysis, "load_detector", lambda name, device: detector)


def test_footage_that_no_detector_knows_is_inconclusive_with_its_evidence_shown(
    clip, tmp_path, monkeypatch
):
    bundle(monkeypatch, Brightness(["studio"]))
    result = run(clip, "--out", tmp_path / "out")
    assert result.exit_code == 20
    assert "inconclusive" in result.stdout and "no detector calibrated" in result.stdout
    report = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    validate(report)
    (file,) = report["files"]
    (track,) = file["tracks"]
    assert file["facts"]["width"] == 320 and file["facts"]["codec"] == "h264"
    assert len(track["sightings"]) == 10
    assert all(60 < sighting["size"] < 160 for sighting in track["sightings"])
    assert file["watermark"]["status"] == "absent" and file["provenance"]["status"] == "absent"
    html = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "real" not in file["verdict"]["conclusion"]
    assert html.count("data:image/jpeg;base64,") >= 6


@pytest.mark.parametrize(("threshold", "code"), [(0.3, 10), (0.9, 0)])
def test_footage_of_unknown_origin_is_judged_as_a_cameras(
    photo, tmp_path, monkeypatch, threshold, code
):
    detector = Brightness(["camera"])
    detector.threshold = threshold
    bundle(monkeypatch, detector)
    result = run(photo, "--out", tmp_path / "out")
    assert result.exit_code == code
    report = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    validate(report)
    (file,) = report["files"]
    assert file["origin"] == "unknown" and file["tracks"][0]["calibrated"]
    assert "judged_as_camera" in [reason["code"] for reason in file["verdict"]["reasons"]]
    html = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "of unknown origin, judged as a camera's" in html.replace("&#39;", "'")
    assert any("nothing shows what a file comes from" in limit for limit in report["limits"])


@pytest.mark.parametrize("kind", ["photo", "clip"])
def test_a_face_that_lies_on_its_side_is_found(tmp_path, kind):
    lying = np.ascontiguousarray(np.rot90(skimage.data.astronaut()[:288, 60:380]))
    path = tmp_path / {"photo": "a.png", "clip": "a.mp4"}[kind]
    if kind == "photo":
        write_image(path, lying)
    else:
        write_video(path, (Frame(lying, i / 5, i) for i in range(6)), rate=5)
    (file,) = analyze(path, detector=Brightness(["camera"])).files
    (track,) = file.tracks
    assert len(track.sightings) == (1 if kind == "photo" else 6)
    assert track.score is not None and track.verdict.conclusion != INCONCLUSIVE


def test_a_detector_that_fails_at_one_face_scores_the_others(crowd, tmp_path):
    class Picky(Brightness):
        def score(self, regions):
            scores = super().score(regions)
            return np.where([region.face.size > 100 for region in regions], np.nan, scores)

    write_image(tmp_path / "crowd.png", crowd)
    (file,) = analyze(tmp_path / "crowd.png", detector=Picky(["camera"])).files
    tracks = [track for track in file.tracks if track.size >= SMALLEST_FACE]
    assert {(track.size > 100, track.score is None) for track in tracks} == {
        (True, True), (False, False)
    }  # fmt: skip
    assert file.verdict.conclusion != NO_EVIDENCE


def test_a_video_is_looked_at_to_its_end_whatever_length_it_declares(tmp_path):
    """Muxers take the nominal rate where frames come at odd times: this one declares too little."""
    times = [*(i / 20 for i in range(40)), *(2 + i / 2 for i in range(4))]
    photo = skimage.data.astronaut()[:96, 180:308]
    path = tmp_path / "a.mp4"
    write_video(path, (Frame(photo, time, i) for i, time in enumerate(times)), rate=20)
    assert probe(path).duration < 3
    chosen = walk.moments(analysis._length(path, probe(path)), 0.5)
    assert [frame.time for frame in walk.samples(path, chosen, [])][-1] == pytest.approx(3.5)


def test_a_report_is_deterministic_but_for_its_time_stamp(clip, photo, tmp_path):
    texts = []
    for out, threads in (("one", 2), ("two", 1)):
        torch.set_num_threads(threads)  # on any number of cores
        analyze([clip, photo], tmp_path / out, Brightness(["studio"]))
        pair = [
            (tmp_path / out / name).read_text(encoding="utf-8")
            for name in ("report.json", "report.html")
        ]
        texts.append([re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d", "", text) for text in pair])
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("brightness", "conclusion", "code"), [(1.0, EVIDENCE, 10), (0.4, NO_EVIDENCE, 0)]
)
def test_certified_footage_is_judged_by_the_detector(
    tmp_path, monkeypatch, brightness, conclusion, code
):
    path = tmp_path / "clip.mp4"
    write_video(path, pan(2.0, brightness=brightness), rate=10)
    monkeypatch.setattr(evidence.Certificates, "of", lambda self, path: CERTIFIED)
    report = analyze(path, detector=Brightness(["studio"]))
    assert report.files[0].verdict.conclusion == conclusion
    assert report.exit_code == code
    (track,) = report.files[0].tracks
    assert track.calibrated and track.members == {
        "brightness": pytest.approx(track.score, abs=1e-5)
    }


def test_a_detector_that_fails_is_never_a_score(clip, monkeypatch):
    monkeypatch.setattr(evidence.Certificates, "of", lambda self, path: CERTIFIED)
    (file,) = analyze(clip, detector=Brightness(["studio"], fails=True)).files
    assert file.verdict.conclusion == INCONCLUSIVE
    assert "not_scored" in [reason.code for reason in file.verdict.reasons]
    assert {sighting.score for sighting in file.tracks[0].sightings} == {None}


def test_an_exported_clip_is_recognised_by_its_mark_and_manifest(tmp_path):
    path = tmp_path / "swap.mp4"
    export.write_video(path, pan(1.0), kind=Kind.COMPOSITE, rate=10, facts={"origin": "studio"})
    result = run(path, "--json")
    assert result.exit_code == 10
    (file,) = json.loads(result.stdout)["files"]
    assert file["origin"] == "studio"
    signed = file["provenance"]
    assert signed["signer"] == signed["claims"]["signer"] and signed["signed"] is None
    reasons = [reason for reason in file["verdict"]["reasons"] if reason["weight"] == "evidence"]
    assert [reason["code"] for reason in reasons] == [
        "manifest_says_generated", "mark_says_generated"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("claims", "kind", "origin"),
    [
        ({"kind": "composite", "facts": {"origin": "studio"}}, "composite", "studio"),
        # Another maker's manifest says it with IPTC's word.
        ({"kind": None, "source_type": "trainedAlgorithmicMedia"}, "generated", "unknown"),
        ({"source_type": "digitalCapture"}, None, "unknown"),
        # Whatever shape a stranger gives the claims.
        ({"kind": ["generated"], "facts": "studio", "source_type": {"a": 1}}, None, "unknown"),
    ],
)
def test_what_is_taken_from_a_manifest(monkeypatch, claims, kind, origin):
    found = manifests.Provenance("untrusted", "intact", claims)
    monkeypatch.setattr(manifests, "verify", lambda path: found)
    provenance = evidence.read_provenance(Path("a.jpg"))
    assert (provenance.kind, provenance.origin) == (kind, origin)
    assert provenance.claims == claims


def test_a_studio_folder_is_checked_once_and_only_its_own_files_are_certified(
    tmp_path, photo, monkeypatch
):
    for name in ("a.png", "b.png", "changed.png", "unlisted.png"):
        shutil.copy(photo, tmp_path / name)
    digest = files.sha256(photo)
    listed = {"a.png": digest, "b.png": digest, "changed.png": "00"}
    calls = []

    def verify(folder):
        calls.append(folder)
        return certificate.Certificate("id", folder, "folder", {}, 0, {}, listed, 1)

    monkeypatch.setattr(certificate, "verify", verify)
    certificates = evidence.Certificates()
    assert certificates.of(tmp_path / "a.png").status == "absent"
    (tmp_path / certificate.CERTIFICATE).touch()
    status = [certificates.of(tmp_path / name).status for name in
              ("a.png", "b.png", "changed.png", "unlisted.png")]  # fmt: skip
    assert status == ["valid", "valid", "invalid", "invalid"]
    assert calls == [tmp_path]


def test_a_certificate_that_does_not_hold_is_said_with_its_reason(photo, tmp_path):
    shutil.copy(photo, tmp_path / "photo.png")
    (tmp_path / certificate.CERTIFICATE).write_text("{}", encoding="utf-8")
    (file,) = analyze(tmp_path / "photo.png").files
    assert file.certificate.status == "invalid" and file.origin == "unknown"
    assert "certificate_invalid" in [reason.code for reason in file.verdict.reasons]


def test_a_picture_gives_a_face_without_a_timeline(photo, tmp_path):
    (file,) = analyze(photo, tmp_path, Brightness(["studio"])).files
    assert file.facts.duration is None and len(file.tracks) == 1
    assert file.tracks[0].sightings[0].score is not None
    assert "<svg" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_json_on_standard_output_is_the_report_alone(photo, tmp_path):
    result = run(photo, "--json", "--out", tmp_path)
    report = json.loads(result.stdout)
    validate(report)
    assert report == json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))


def test_quiet_prints_nothing_and_the_exit_code_speaks(photo, monkeypatch):
    bundle(monkeypatch, Brightness(["studio"]))
    result = run("-q", photo)
    assert (result.output, result.exit_code) == ("", 20)


def test_a_file_named_twice_counts_once(photo):
    assert len(analyze([photo, photo, photo.parent]).files) == 1


def test_bad_files_are_named_in_one_line_each_and_the_others_go_on(clip, photo, tmp_path, caplog):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 99)
    (tmp_path / "broken.png").write_bytes(photo.read_bytes()[:200])
    (tmp_path / "headless.mp4").write_bytes(clip.read_bytes()[2000:])
    (tmp_path / "folder").mkdir()
    write_sound(tmp_path / "sound.mp4")
    bad = ["missing.mp4", "empty.mp4", "text.mp4", "broken.png", "headless.mp4", "folder",
           "sound.mp4"]  # fmt: skip
    result = run(*(tmp_path / name for name in bad), photo, "--out", tmp_path / "out")
    assert result.exit_code == 1
    report = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    validate(report)
    assert sorted(Path(error["path"]).name for error in report["errors"]) == sorted(bad)
    assert [file["name"] for file in report["files"]] == ["photo.png"]
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(lines) == len(bad)
    for name in bad:
        (line,) = [line for line in lines if f"/{name}: " in line]
        assert "\n" not in line


def test_a_video_that_is_cut_off_says_so(tmp_path):
    whole = tmp_path / "whole.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3), dtype=np.uint8)
    write_video(whole, (Frame(pixels, i / 10, i) for i, pixels in enumerate(noise)), rate=10)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (file,) = analyze(cut).files
    (reason,) = [one for one in file.verdict.reasons if one.code == "ends_early"]
    assert file.errors[-1] == reason.text


def test_a_file_that_changes_while_it_is_read_is_an_error(photo, tmp_path, monkeypatch):
    path = tmp_path / "photo.png"
    shutil.copy(photo, path)

    def grow(_):
        with path.open("ab") as file:
            file.write(b" ")
        return NO_MARK

    monkeypatch.setattr(analysis, "read_watermark", grow)
    (error,) = analyze(path).errors
    assert "changed while it was read" in error.error


def test_long_videos_are_thinned_and_the_report_says_so(clip, monkeypatch):
    monkeypatch.setattr(walk, "LONGEST", 4)
    monkeypatch.setattr(walk, "RUN", 2)
    (file,) = analyze(clip).files
    assert file.sampling.thinned and file.sampling.every == 0.2
    assert (file.sampling.frames, file.sampling.stretches) == (4, 2)
    assert [s.time for s in file.tracks[0].sightings] == pytest.approx([0, 0.2, 1.0, 1.2])


@given(
    length=st.none() | st.floats(0.01, 1e6),
    every=st.floats(0.01, 1e4),
    until=st.none() | st.floats(0.01, 1e6),
)
def test_the_moments_that_are_looked_at(length, every, until):
    chosen = walk.moments(length, every, until)
    assert chosen.until == (until if until and (length is None or until < length) else None)
    if length is None:
        assert chosen.times is None
        return
    end = length if chosen.until is None else chosen.until
    assert chosen.times[0] == 0 and chosen.times[-1] < end
    assert len(chosen.times) <= walk.LONGEST
    apart = np.diff(chosen.times)
    assert (apart >= every * (1 - 1e-6) - 1e-9 * end).all()
    if chosen.stretches is None:
        assert end - chosen.times[-1] <= every * (1 + 1e-9)
    else:
        starts = chosen.times[:: walk.RUN]
        assert len(starts) == chosen.stretches
        assert np.diff(starts) == pytest.approx(end / chosen.stretches)
        within = np.diff(np.reshape(chosen.times, (-1, walk.RUN)))
        assert within == pytest.approx(every, rel=1e-3, abs=1e-9 * end)


def test_a_line_on_the_detectors_names_the_highest_score_that_counts():
    nothing = Verdict(conclusion=INCONCLUSIVE, reasons=[])

    def face(id, score, counts, calibrated=True):
        return Track(
            id=id, start=0, end=1, size=99, score=score, counts=counts, calibrated=calibrated,
            verdict=nothing, sightings=[],
        )  # fmt: skip

    line = partial(analysis.detectors_line, threshold=0.7)
    assert "0.40 (face 2)" in line([face(0, 0.9, False), face(1, 0.4, True)])
    assert "often and well enough" in line([face(0, 0.9, False)])
    assert "not calibrated" in line([face(0, 0.9, False, calibrated=False)])
    assert "no face" in line([face(0, None, False)])


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0, 1)), unique_by=lambda pair: pair[0]))
def test_the_strongest_sightings_are_kept_apart_in_time(pairs):
    peaks = []
    going = walk.Walk(embedder=None, detector=None, device=torch.device("cpu"), every=0.2)
    for slot, score in sorted(pairs):
        one = Sighting(
            time=slot / 4, index=slot, box=(0, 0, 99, 99), size=99, located=1, score=score
        )
        if going._is_peak(peaks, one):
            peaks = walk._with(peaks, walk.Peak(one, None, None))
    times = [peak.sighting.time for peak in peaks]
    assert len(peaks) <= 3 and all(b - a >= 1 for a, b in pairwise(times))
    highest = max((score for _, score in pairs), default=None)
    assert highest == max((peak.sighting.score for peak in peaks), default=None)


def test_every_part_of_a_report_is_filled(clip, tmp_path):
    detector = Detector.load("default", torch.device("cpu"))
    detector.threshold = 0.0  # any face is suspicious, and so gets heat maps
    told = []
    analyzer = analysis.Analyzer(detector, torch.device("cpu"), analysis.Asked())
    file, pictures = analyzer.file(clip, tell=lambda part, line: told.append((part, line)))
    assert [part for part, _ in told] == list(PARTS)
    assert not any("\n" in line for _, line in told)
    whole = analysis.report([file], [], analyzer)
    validate(whole.to_json())
    assert whole.settings.parts == list(PARTS) and whole.settings.left_out == []
    assert whole.detector.members == [part.name for part in detector.parts]
    assert whole.detector.calibrated.bounds == detector.calibration.bounds
    assert file.facts.details.video.frames == 20
    (track,) = file.tracks
    assert track.person == 0 and track.verdict.conclusion == EVIDENCE
    for sighting in track.sightings:
        assert sighting.members.keys() == set(whole.detector.members)
        assert 0 <= sighting.compression <= 1 and 0 <= sighting.occlusion < 0.5
        assert 0 < sighting.blur < 10 and abs(sighting.yaw) < 45 and abs(sighting.pitch) < 45
    blurs = [sighting.blur for sighting in track.sightings]
    assert min(blurs) <= track.seen.blur[0] <= track.seen.blur[1] <= max(blurs)
    assert track.interval[0] <= track.score <= track.interval[1]
    assert track.counts and track.likelihood.words
    assert 1 <= len(track.heat) <= 3
    for heat in track.heat:
        assert 0 <= np.min(heat.cells) <= np.max(heat.cells) <= 1
        (crop,) = [crop for crop in pictures.crops[0] if crop.time == heat.time]
        assert crop.heat == heat and crop.large


@pytest.mark.parametrize(
    ("without", "left_out"),
    [
        (("provenance", "watermark"), ["provenance", "watermark"]),
        (("facts",), ["facts"]),
        (("faces",), ["faces", "detectors", "localisation"]),
        (("detectors",), ["detectors", "localisation"]),
    ],
)
def test_parts_left_out_are_null_and_named(photo, without, left_out):
    told = []
    asked = analysis.Asked(without=frozenset(without))
    detector = Brightness(["camera"])
    detector.threshold = 0.9
    analyzer = analysis.Analyzer(detector, torch.device("cpu"), asked)
    file, _ = analyzer.file(photo, tell=lambda part, line: told.append(part))
    report = analysis.report([file], [], analyzer)
    validate(report.to_json())
    assert report.settings.left_out == left_out
    assert told == report.settings.parts == [part for part in PARTS if part not in left_out]
    assert file.verdict.conclusion == INCONCLUSIVE
    assert "part_left_out" in [reason.code for reason in file.verdict.reasons]
    absent = {
        "provenance": file.provenance is file.certificate is None,
        "watermark": file.watermark is None,
        "facts": file.facts.details is None,
        "faces": not file.tracks,
        "detectors": report.detector is None,
    }
    assert [part for part, gone in absent.items() if gone] == [p for p in left_out if p in absent]


def test_no_more_of_a_video_is_looked_at_than_asked_for(clip, photo):
    (file,) = analyze(clip, asked=analysis.Asked(max_duration=1.0)).files
    assert file.sampling.until == 1.0 and file.errors == []
    assert [s.time for s in file.tracks[0].sightings] == pytest.approx(np.arange(5) / 5)
    (file,) = analyze(clip, asked=analysis.Asked(max_duration=3.0)).files
    assert file.sampling.until is None and len(file.tracks[0].sightings) == 10
    (file,) = analyze(photo, asked=analysis.Asked(max_duration=1.0)).files
    assert file.sampling.until is None


def test_a_video_that_does_not_say_how_long_it_is_is_looked_at_so_far(clip, monkeypatch):
    monkeypatch.setattr(analysis, "_length", lambda path, info: None)
    (file,) = analyze(clip).files
    assert file.sampling.frames == 10 and file.errors == []
    for module in (analysis, walk):
        monkeypatch.setattr(module, "LONGEST", 4)
    (file,) = analyze(clip).files
    assert file.sampling.frames == 4
    assert "ends_early" in [reason.code for reason in file.verdict.reasons]


@pytest.mark.parametrize(
    "asked", [{"every": 0.0}, {"every": float("nan")}, {"max_duration": -1.0},
              {"without": frozenset(["sound"])}]
)  # fmt: skip
def test_what_cannot_be_asked_is_said(asked):
    with pytest.raises(FacekitError, match=r"--(every|max-duration|without)"):
        analysis.Asked(**asked)


def test_a_video_that_cannot_be_read_on_is_reported_as_far_as_it_was(clip, monkeypatch):
    at = Video.at

    def breaking(self, time):
        if time > 1.1:
            raise FacekitError(f"{self.path}: became unreadable")
        return at(self, time)

    monkeypatch.setattr(Video, "at", breaking)
    threads = torch.get_num_threads()
    (file,) = analyze(clip).files
    assert file.sampling.frames == 6 and len(file.tracks[0].sightings) == 6
    assert any("became unreadable" in error for error in file.errors)
    assert file.verdict.conclusion == INCONCLUSIVE
    assert torch.get_num_threads() == threads


def test_evidence_that_cannot_be_read_is_an_error_and_no_finding(photo, monkeypatch):
    def broken(*_, **__):
        raise FacekitError("cannot be parsed")

    for module, name in (
        (evidence, "read_file"), (manifests, "verify"), (evidence, "describe")
    ):  # fmt: skip
        monkeypatch.setattr(module, name, broken)
    (file,) = analyze(photo).files
    assert (file.watermark.status, file.provenance.status) == ("not read", "not read")
    assert file.facts.details is None and len(file.errors) == 3
    assert all(error.endswith("cannot be parsed") for error in file.errors)
    codes = [reason.code for reason in file.verdict.reasons]
    assert codes.count("part_not_read") == 2


def test_a_file_that_goes_away_is_an_error(photo, tmp_path, monkeypatch):
    path = tmp_path / "photo.png"
    shutil.copy(photo, path)

    def gone(_):
        path.unlink()
        return NO_MARK

    monkeypatch.setattr(analysis, "read_watermark", gone)
    (error,) = analyze(path).errors
    assert error.error == "not readable (No such file or directory)"


def test_a_person_who_comes_back_is_known_again(tmp_path):
    photo = skimage.data.astronaut()[:288, 60:380]
    away = np.full_like(photo, 90)
    path = tmp_path / "a.mp4"
    shots = [photo] * 5 + [away] * 13 + [photo] * 5
    write_video(path, (Frame(shot, i / 5, i) for i, shot in enumerate(shots)), rate=5)
    (file,) = analyze(path).files
    assert [(track.id, track.person) for track in file.tracks] == [(0, 0), (1, 0)]


def test_no_face_is_inconclusive(tmp_path):
    path = tmp_path / "wall.png"
    write_image(path, np.full((200, 300, 3), 90, np.uint8))
    (file,) = analyze(path, tmp_path / "out", Brightness(["studio"])).files
    assert file.verdict.conclusion == INCONCLUSIVE
    assert "no_face" in [reason.code for reason in file.verdict.reasons]


@pytest.mark.parametrize("arguments", [[], ["a.png", "--every", "0"], ["a.png", "--score"]])
def test_wrong_usage_exits_with_2(arguments):
    assert run(*arguments).exit_code == 2


def test_an_unknown_detector_or_folder_that_cannot_be_made_is_said_before_any_work(photo, tmp_path):
    with pytest.raises(FacekitError, match="nonesuch"):
        run(photo, "--detector", "nonesuch")
    with pytest.raises(FacekitError, match="cannot be made"):
        analyze(photo, photo / "out")


def test_the_exit_codes_are_documented():
    text = run("--help").output
    assert re.findall(r"\n +(\d+) +[a-z]", text) == ["0", "10", "20", "1", "2"]


def test_a_detector_that_tells_little_apart_says_where_it_is_undecided():
    random = np.random.default_rng(0)
    labels = np.arange(2000) % 2
    logits = random.normal(0.5 * labels, 1.0)
    detector = Detector.load("default", torch.device("cpu"))
    detector.calibration = calibrate(logits, labels, coverage=0.9)
    detector.threshold = detector.calibration.threshold
    facts = analysis._detector_facts(detector)
    scores = detector.calibration.probability(random.normal(0.5, 1.0, 20_000))
    assert 0 < facts.undecided_from < facts.threshold
    assert np.mean(scores < facts.undecided_from) == pytest.approx(0.1, abs=0.03)
    # One that was calibrated without abstention goes by its threshold alone.
    detector.calibration = Calibration(1.0, 0.0, 0.7)
    assert analysis._detector_facts(detector).undecided_from is None


def write_sound(path):
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
