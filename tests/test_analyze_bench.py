"""The bench of the analysis: what it counts, on reports made by hand, and how it calls."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from detectors import analyze_bench as bench
from detectors import fuzz
from detectors.report.model import FileFacts, FileReport, Provenance, Reason, Sampling, Verdict
from detectors.report.model import Watermark as Mark
from facekit.cli import cli
from facekit.core.config import find, read_yaml
from facekit.core.errors import FacekitError
from facekit.datasets import faces_bench
from facekit.media.decode import Video

CPU = torch.zeros(0).device


def verdict(conclusion, *weights):
    reasons = [Reason(code="score_undecided", weight=weight, text="so") for weight in weights]
    return Verdict(conclusion=conclusion, reasons=reasons)


def told(conclusion="inconclusive", *weights, mark=None, manifest=None):
    facts = FileFacts(
        sha256="0" * 64,
        bytes=1,
        kind="image",
        container="png",
        codec="png",
        width=8,
        height=8,
        duration=None,
        rate=None,
        has_audio=False,
    )
    return FileReport(
        name="a.png",
        path="a.png",
        facts=facts,
        sampling=Sampling(every=None, frames=1, thinned=False),
        origin="unknown",
        verdict=verdict(conclusion, *weights),
        watermark=mark,
        provenance=manifest,
        certificate=None,
        tracks=[],
    )


def marked(status="present", kind="composite"):
    return Mark(status=status, kind=kind, id=1, p_value=0.0, corrected=0, frames=1)


def signed(status="untrusted", kind="composite"):
    return Provenance(status=status, reason="", kind=kind, origin="unknown", claims={})


def test_a_verdict_is_sound_if_it_is_evidence_or_withheld_for_a_reason():
    assert bench.is_sound(told("evidence of manipulation", "evidence"))
    assert bench.is_sound(told("inconclusive", "note", "abstention"))
    assert not bench.is_sound(told("inconclusive", "note"))
    assert not bench.is_sound(told("no evidence found", "note"))


def test_recognised_is_what_mark_and_manifest_say_alike():
    assert bench.is_recognised(told(mark=marked(), manifest=signed()))
    assert bench.is_recognised(told(mark=marked(kind=None), manifest=signed("trusted")))
    for mark, manifest in (
        (None, signed()),
        (marked(), None),
        (marked("absent", None), signed()),
        (marked(), signed("tampered")),
        (marked(), signed("absent", None)),
        (marked(kind="studio"), signed()),
    ):
        assert not bench.is_recognised(told(mark=mark, manifest=manifest))


def test_shares_come_with_wilsons_interval():
    row = bench._share("x", np.array([True] * 8 + [False] * 2), floor=0.1)
    # Wilson (1927), of 8 in 10, as in any table of it.
    assert (row.value, row.floor) == (0.8, 0.1)
    assert (row.low, row.high) == pytest.approx((0.4902, 0.9433), abs=1e-3)
    assert row.unit == "of 10 files"


def test_a_round_is_repeated_without_coding_it_again(tmp_path, astronaut):
    shots = [np.roll(astronaut[:96, :128], i, axis=1) for i in range(4)]
    faces_bench.compose(tmp_path / "round.mp4", shots, (128, 96), rate=30.0, frames=6)
    seconds = bench._repeat(tmp_path / "round.mp4", tmp_path / "long.mp4", 0.6)
    assert seconds == pytest.approx(0.6)
    with Video(tmp_path / "round.mp4") as one, Video(tmp_path / "long.mp4") as video:
        once, frames = list(one), list(video)
        assert video.info.duration == pytest.approx(0.6, abs=0.01)
    assert len(frames) == 3 * len(once) == 18
    for i, frame in enumerate(frames):
        assert frame.time == pytest.approx(i / 30, abs=1e-3)
        np.testing.assert_array_equal(frame.pixels, once[i % 6].pixels)


@pytest.fixture
def calls(monkeypatch):
    """Every call of the command says that all of it is forged, after a second."""
    made = []

    def call(inputs, out, device, *options):
        made.append((list(inputs), options))
        files = [
            told("evidence of manipulation", "evidence", mark=marked(), manifest=signed())
            for _ in inputs
        ]
        report = type("Report", (), {"files": files, "errors": []})()
        return bench.Run(report, 1.0, 0.5, 1.5, 2_000_000)

    monkeypatch.setattr(bench, "call", call)
    monkeypatch.setattr(bench, "_peer_speed", lambda *given: 0.25)
    monkeypatch.setattr(
        fuzz, "fuzz", lambda shots, **given: fuzz.Outcome(given["count"], 20, [], 3.0, 1.0)
    )
    return made


def test_rows_of_a_quick_run_with_outside_data(tmp_path, astronaut, calls, monkeypatch):
    from facekit.media.encode import write_video
    from facekit.media.images import write_image
    from facekit.types import Frame

    (tmp_path / "video").mkdir()
    (tmp_path / "london").mkdir()
    shots = [np.roll(astronaut[:240, 80:400], i, axis=1) for i in range(4)]
    for name in (faces_bench.CLIP, "a.mp4", "b.mp4"):
        frames = (Frame(pixels, i / 10, i) for i, pixels in enumerate(shots))
        write_video(tmp_path / "video" / name, frames, rate=10)
    rows_of = ["file,subject,age,gender,ethnicity"]
    for n in range(12):
        shot = np.roll(astronaut[:300, 90:390], 2 * n, axis=1)
        write_image(tmp_path / "london" / f"{n:03d}_neutral.jpg", shot)
        rows_of.append(f"{n:03d}_neutral.jpg,{n:03d},30,female,white")
    (tmp_path / "london" / "index.csv").write_text("\n".join(rows_of))
    swap = tmp_path / "swap.png"
    rows = {
        row.name: row
        for row in bench.bench(
            device=CPU, quick=True, data=tmp_path, swaps=lambda folder, quick: [swap]
        )
    }
    assert rows["analyze.realtime_1080p"].peer == 0.25
    assert rows["analyze.first_line_s"].value == 0.5
    assert rows["analyze.peak_gib"].value == 1.5
    assert rows["analyze.page_mb"].value == 2.0
    assert rows["analyze.pictures_per_s"].value == 4.0
    # Four photos and two clips: not the one that may be rendered.
    assert (rows["analyze.false_alarms"].value, rows["analyze.false_alarms"].unit) == (
        6.0,
        "of 6 files",
    )
    assert [path.name for path in calls[2][0]] == ["b.mp4", faces_bench.CLIP]
    assert rows["analyze.flagged"].value == rows["analyze.recognised"].value == 1.0
    assert rows["analyze.flagged"].floor == 1.0
    assert rows["analyze.flagged_swaps"].unit == "of 1 files"
    assert rows["analyze.unsound"].value == rows["analyze.fuzz_failures"].value == 0.0
    alone, with_marks = calls[3], calls[4]
    assert alone[0] == with_marks[0] and alone[0][-1] == swap
    assert alone[1] == ("--without", "provenance,watermark")
    goals = [name for name in read_yaml(find("evaluations/goals")) if name.startswith("analyze.")]
    assert set(goals) - set(rows) == {"analyze.realtime_10min"}


def test_the_photos_are_of_people_whom_the_detector_was_not_trained_on():
    config = read_yaml(find("detectors/default"))
    (trained,) = (one for one in config["collections"] if one["layout"] == "london")
    assert {trained["part"], bench._LONDON.part} == {"first half", "second half"}


def test_without_outside_data_and_forgeries_the_studio_serves(calls, astronaut, monkeypatch):
    shots = [astronaut[:200, :200]] * 3
    monkeypatch.setattr(faces_bench, "footage", lambda clip, quick: shots)
    names = {row.name for row in bench.bench(device=CPU, quick=True)}
    assert "analyze.realtime_1080p" in names and "analyze.fuzz_failures" in names
    assert not names & {"analyze.flagged", "analyze.false_alarms", "analyze.pictures_per_s"}


@pytest.mark.slow
def test_the_command_is_called_as_a_user_does(tmp_path, astronaut):
    from facekit.media.images import write_image

    path = tmp_path / "a.png"
    write_image(path, astronaut[:256, 60:316])
    run = bench.call([path], tmp_path / "out", CPU, "--without", "detectors,watermark")
    assert [file.name for file in run.report.files] == ["a.png"]
    assert run.first is not None and 0 < run.first < run.seconds
    assert run.peak is None or 0.05 < run.peak < 4
    assert run.page > 1000
    with pytest.raises(FacekitError, match=r"broke off.*no part 'mark'"):
        bench.call([path], tmp_path / "none", CPU, "--without", "mark")


def test_what_cannot_be_analyzed_ends_the_bench():
    error = type("Error", (), {"path": "a.png", "error": "gone"})()
    report = type("Report", (), {"files": [], "errors": [error]})()
    with pytest.raises(FacekitError, match=r"a\.png: could not be analyzed \(gone\)"):
        bench._analyzed(bench.Run(report, 1.0, None, None, 0))


def test_wrong_options_are_one_line(tmp_path):
    judge = tmp_path / "judge.onnx"
    result = CliRunner().invoke(cli, ["bench", "analyze", "--judge", str(judge)])
    assert isinstance(result.exception, FacekitError)
    assert "--judge: the bench 'analyze' takes none" in str(result.exception)
    result = CliRunner().invoke(cli, ["bench", "analyze", "--data", str(tmp_path / "none")])
    assert isinstance(result.exception, FacekitError)
    assert "no such folder" in str(result.exception)
