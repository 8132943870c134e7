"""The report's page: what it shows and in which order, its size, and how it behaves in a browser.

The reports are made by hand, so that the page is tested apart from what analyzes.
"""

import io
import itertools
import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import devtools
import jsonschema
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from detectors.report import model
from detectors.report.charts import overlay
from detectors.report.model import (
    EVIDENCE,
    INCONCLUSIVE,
    NO_EVIDENCE,
    PARTS,
    Bin,
    Calibrated,
    Certificate,
    DetectorFacts,
    FalsePositives,
    FileError,
    FileFacts,
    FileReport,
    HeatMap,
    Likelihood,
    Occlusion,
    Provenance,
    Reason,
    Report,
    Sampling,
    Seen,
    Settings,
    Sighting,
    Track,
    Verdict,
    Watermark,
)
from detectors.report.pictures import Box, Crop, Pictures, closeup
from detectors.report.render import render
from detectors.report.text import clock, file_size, p_value
from facekit.media.facts import Gap, Hint, MediaFacts, PictureFacts, VideoFacts
from facekit.media.images import encode_image
from facekit.types import AlignedFace

MEMBERS = ("patch", "blend", "forest")
SHA = "0123456789abcdef" * 4
DETECTOR = DetectorFacts(
    name="default",
    sha256="ab" * 32,
    calibrated_for=["camera"],
    threshold=0.7,
    undecided_from=0.3,
    coverage=0.9,
    members=list(MEMBERS),
    calibrated=Calibrated(
        method="platt",
        fpr=0.01,
        bounds=(-1.6, 2.1),
        faces=1840,
        ranges={"size": (71, 412), "blur": (0.6, 3.4), "compression": (0.0, 0.41)},
        reliability=[
            Bin(low=i / 10, high=(i + 1) / 10, count=count, mean=i / 10 + 0.05, share=share)
            for i, (count, share) in enumerate(
                [(410, 0.03), (80, 0.11), (42, 0.2), (31, 0.42), (20, 0.45), (22, 0.5),
                 (25, 0.72), (33, 0.71), (70, 0.9), (305, 0.97)]
            )
        ],
        false_positives=FalsePositives(rate=0.012, interval=(0.004, 0.027), faces=1622),
    ),
    facts={"plugin": "patch+blend+forest", "licence": "research use only"},
)  # fmt: skip
NO_MARK = Watermark(status="absent", kind=None, id=None, p_value=0.4, corrected=None, frames=64)
MARK = Watermark(status="present", kind="composite", id=7, p_value=1e-30, corrected=2, frames=64)
NO_MANIFEST = Provenance(status="absent", reason="none", kind=None, origin="unknown", claims={})
MANIFEST = Provenance(
    status="untrusted",
    reason="the signature is intact, but nobody here vouches for its signer",
    signer="Example Press",
    signed="2026-01-01T10:00:00Z",
    kind="composite",
    origin="unknown",
    claims={"kind": "composite", "facts": {"tool": "face_swap"}},
)
NO_CERTIFICATE = Certificate(status="absent", reason="it does not lie in a studio folder")
OF_VIDEO = MediaFacts(
    format="MP4",
    suffix_fits=True,
    video=VideoFacts(
        profile="High", pixels="yuv420p", bit_rate=1_800_000, frames=18_000, interval=0.033367,
        irregular=41, gaps=[Gap(time=61.2, seconds=0.8), Gap(time=310.0, seconds=0.4)],
        keyframes=72, gop=(12.0, 250.0, 250.0), encoder="Lavc60.3.100 libx264", audio="aac",
    ),
    metadata={"encoder": "Lavf60.3.100", "creation_time": "2025-12-30T08:00:00Z"},
    hints=[
        Hint(code="encoder", text="it was written by FFmpeg, as tools that edit or re-encode do"),
        Hint(code="frames_missing", text="frames are missing at 1:01.2 and at 5:10.0"),
    ],
)  # fmt: skip
OF_PICTURE = MediaFacts(
    format="JPEG",
    suffix_fits=True,
    picture=PictureFacts(
        mode="RGB", progressive=False, quality=88, tables="standard", tables_sha256=SHA,
        subsampling="4:2:0", profile="sRGB", thumbnail=True,
    ),
    metadata={"Make": "Example", "Software": "Paint 3"},
    hints=[Hint(code="edited_with", text="its metadata name Paint 3, which edits pictures")],
)  # fmt: skip
SEEN = Seen(
    size=(92, 188), blur=(0.7, 2.1), compression=(0.05, 0.3), occlusion=(0, 0.12),
    yaw=(-24, 31), pitch=(-8, 12),
)  # fmt: skip


def verdict(conclusion, *reasons):
    return Verdict(
        conclusion=conclusion,
        reasons=[Reason(code=code, weight=weight, text=text) for code, weight, text in reasons],
    )


def seen(scores, *, size=120.0, every=0.2, start=0.0):
    """Sightings of one face, in which the members say about what the detector says."""
    return [
        Sighting(
            time=round(start + every * i, 4),
            index=6 * i,
            box=(10.0, 20.0, 10.0 + size, 20.0 + size),
            size=size,
            located=0.99,
            score=score,
            members={} if score is None else {
                name: round(float(np.clip(score + 0.15 * np.sin(i / (7 + 5 * k)), 0, 1)), 4)
                for k, name in enumerate(MEMBERS)
            },
            blur=1.2,
            compression=0.1,
            yaw=4.0,
            pitch=-2.0,
        )
        for i, score in enumerate(scores)
    ]  # fmt: skip


def heat(sighting, *, agrees=True, cells=14):
    y, x = np.mgrid[:cells, :cells] / (cells - 1)
    blob = np.exp(-((x - 0.5) ** 2 + (y - 0.72) ** 2) / 0.02)
    return HeatMap(
        time=sighting.time,
        index=sighting.index,
        score=sighting.score,
        member="patch",
        cells=blob.round(3).tolist(),
        occlusion=Occlusion(
            strongest=1.9,
            elsewhere=[0.2, -0.1, 0.4] if agrees else [2.3, 0.1],
            agrees=agrees,
            place=(9, 5, 3, 3),
        ),
    )


def track(scores, *, id=0, person=None, threshold=0.7, heats=0, **options):
    sightings = seen(scores, **options)
    known = [score for score in scores if score is not None]
    score = max(known, default=None)
    above = score is not None and score > threshold
    strongest = sorted(sightings, key=lambda s: -(s.score or 0))[:heats]
    return Track(
        id=id,
        person=id if person is None else person,
        start=sightings[0].time,
        end=sightings[-1].time,
        seen=SEEN,
        size=sightings[0].size,
        score=score,
        interval=None if score is None else (max(0, score - 0.1), min(1, score + 0.04)),
        likelihood=Likelihood(
            log10=1.7 if above else -0.8,
            bound=False,
            words="moderate support for a generated face" if above
            else "weak support for an untouched face",
        ),
        heat=[heat(one, agrees=i == 0) for i, one in enumerate(strongest)],
        members={name: score for name in MEMBERS} if score is not None else {},
        calibrated=True,
        counts=True,
        verdict=verdict(
            EVIDENCE, ("score_above_threshold", "evidence", f"the score, {score:.2f}, is above it")
        ) if above else verdict(
            NO_EVIDENCE, ("score_below_threshold", "note", "the score is not above the threshold")
        ),
        sightings=sightings,
    )  # fmt: skip


def file_report(name="clip.mp4", *, tracks=(), duration=12.0, left_out=(), **parts):
    """A video, or a picture where ``duration`` is None, judged by its faces."""
    order = (NO_EVIDENCE, INCONCLUSIVE, EVIDENCE)
    worst = max((t.verdict.conclusion for t in tracks), key=order.index, default=INCONCLUSIVE)
    reasons = [
        (r.code, r.weight, f"face {t.id + 1}: {r.text}") for t in tracks for r in t.verdict.reasons
    ]
    video = duration is not None
    return FileReport(**{
        "name": name,
        "path": f"in/{name}",
        "facts": FileFacts(
            sha256=SHA, bytes=596446, kind="video" if video else "image",
            container=name.rpartition(".")[2], codec="h264" if video else "jpeg", width=1280,
            height=720, duration=duration, rate=29.97 if video else None, has_audio=video,
            details=None if "facts" in left_out else OF_VIDEO if video else OF_PICTURE,
        ),
        "sampling": Sampling(every=0.2 if video else None, frames=60 if video else 1,
                             thinned=False),
        "origin": "unknown",
        "verdict": verdict(worst, *(reasons or [("no_face", "abstention", "no face was found")])),
        "watermark": None if "watermark" in left_out else NO_MARK,
        "provenance": None if "provenance" in left_out else NO_MANIFEST,
        "certificate": None if "provenance" in left_out else NO_CERTIFICATE,
        "tracks": list(tracks),
        **parts,
    })  # fmt: skip


def report_on(*files, errors=(), detector=DETECTOR, left_out=()):
    return Report(
        schema=model.SCHEMA,
        created="2026-01-02T03:04:05Z",
        exit_code=1 if errors else 10,
        files=list(files),
        errors=list(errors),
        detector=detector,
        settings=Settings(
            parts=[part for part in PARTS if part not in left_out], left_out=list(left_out),
            every=0.2, longest=3000, smallest_face=64, fewest_sightings=5, run=10, threads=2,
        ),
        versions={"facekit": "0.1.0", "torch": "2.7.0"},
        limits=["This report never says that a file is real.", "A detector errs."],
    )  # fmt: skip


@cache
def noise(side, block):
    """Squares of random colours, as a JPEG: somewhat larger than that of a face of that size."""
    few = -(-side // block)
    small = np.random.default_rng(side).integers(0, 256, (few, few, 3), dtype=np.uint8)
    pixels = small.repeat(block, 0).repeat(block, 1)[:side, :side]
    return encode_image(np.ascontiguousarray(pixels), ".jpg", 80)


def pictures(tracks, count=8):
    """Crops of each track at even times, and the large frame of those that have a heat map."""
    jpeg, big = noise(128, 4), noise(480, 8)
    crops = {}
    for one in tracks:
        step = max(1, len(one.sightings) // count)
        chosen = {s.time: s for s in one.sightings[::step][:count]}
        strongest = {h.time: h for h in one.heat}
        chosen |= {s.time: s for s in one.sightings if s.time in strongest}
        crops[one.id] = [
            Crop(
                s.time, s.score, jpeg, "highest" if h and h is one.heat[0] else "", s.index,
                big if h else None, (0.8, 0.1, -0.1, 0.8, 0.1, 0.05) if h else None, h,
            )
            for s in (chosen[time] for time in sorted(chosen))
            for h in [strongest.get(s.time)]
        ]  # fmt: skip
    boxes = [Box(10 + 12 * i, 10, 8, 20, one.id + 1) for i, one in enumerate(tracks[:7])]
    return Pictures(overview=noise(640, 8), boxes=boxes, overview_time=1.0, crops=crops)


FORGED, CLEAN = [0.95] * 20, [0.1] * 20


class Page(HTMLParser):
    """Fails on unbalanced tags; gathers tags, addresses and text."""

    VOID = ("meta", "img", "br", "link", "input", "hr", "source")

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.addresses += [v for k, v in attrs if k in ("src", "href", "srcset", "poster", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        self.text.append(data)


def words(html):
    """All of the page's text, spaces as they are seen."""
    return re.sub(r"\s+", " ", " ".join("".join(Page(html).text).split()))


def validate(report):
    schema = json.loads(Path(model.__file__).with_name("schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(report, schema)


def test_the_published_schema_is_that_of_the_models():
    shipped = Path(model.__file__).with_name("schema.json").read_text(encoding="utf-8")
    assert json.loads(shipped) == model.json_schema(), "run python -m detectors.report.model"


def test_a_report_validates_and_a_broken_one_does_not():
    report = report_on(
        file_report(tracks=[track(FORGED, heats=2)], provenance=MANIFEST),
        file_report("b.jpg", duration=None, watermark=MARK),
        file_report("c.mp4", left_out=PARTS[:3]),
        errors=[FileError(path="broken.mp4", error="empty file")],
        left_out=PARTS[:3],
    ).to_json()
    assert report["schema"] == model.SCHEMA
    validate(report)
    for key, value in (("verdict", "real"), ("surprise", 1)):
        broken = json.loads(json.dumps(report))
        broken["files"][0][key] = value
        with pytest.raises(jsonschema.ValidationError):
            validate(broken)


def test_the_page_is_one_balanced_offline_file():
    tracks = [track(FORGED, heats=2), track(CLEAN, id=1), track([0.4] * 3, id=2)]
    html = render(report_on(file_report(tracks=tracks, provenance=MANIFEST)), [pictures(tracks)])
    page = Page(html)
    assert all(
        address.startswith(("data:image/jpeg;base64,", "data:image/png;base64,", "#"))
        for address in page.addresses
    )
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttp", html.replace(SVG, ""))
    assert "default-src 'none'" in html


SVG = "http://www.w3.org/2000/svg"


def test_names_and_claims_from_outside_cannot_inject_markup():
    nasty = "<script>alert(1)</script>\"'&{{7*7}}.mp4"
    claims = {"title": "</pre><script>alert(2)</script>"}
    one = file_report(
        nasty, tracks=[track(CLEAN)], provenance=MANIFEST.model_copy(update={"claims": claims})
    )
    error = FileError(path=nasty, error="<b>no</b>")
    html = render(report_on(one, errors=[error]), [pictures([])])
    assert html.count("<script>") == 1
    assert "{{7*7}}" in "".join(Page(html).text)


def test_numbers_in_words():
    assert [clock(s) for s in (0, 7.25, 59.96, 62.4, 3723.4)] == [
        "0:00.0", "0:07.2", "1:00.0", "1:02.4", "1:02:03.4"
    ]  # fmt: skip
    assert [p_value(p) for p in (None, 0.3149, 2e-4, 1e-30, 0.0)] == [
        "unknown", "= 0.31", "< 1e-3", "< 1e-29", "< 1e-300"
    ]  # fmt: skip
    assert [file_size(n) for n in (0, 999, 596446, 2_000_000_000)] == [
        "0 bytes", "999 bytes", "596 kB", "2 GB"
    ]  # fmt: skip


# What it shows


@pytest.fixture(scope="module")
def long_video():
    """Ten minutes, eight people, three heat maps each: its report and its pictures."""
    tracks = [
        track(np.clip(0.3 + 0.3 * np.sin(np.arange(3000) / 90 + i), 0, 1).tolist(), id=i, heats=3)
        for i in range(8)
    ]
    report = report_on(file_report(tracks=tracks, duration=600.0, provenance=MANIFEST))
    return report, [pictures(tracks)]


def test_the_verdict_comes_first_and_the_evidence_in_its_order():
    tracks = [track(FORGED, heats=2), track(CLEAN, id=1)]
    html = render(
        report_on(file_report(tracks=tracks, provenance=MANIFEST, watermark=MARK)),
        [pictures(tracks)],
    )
    ids = [attrs["id"] for _, attrs in Page(html).tags if "id" in attrs]
    wanted = ["file-1-verdict", *(f"file-1-{part}" for part in ("evidence", *PARTS)), "detector"]
    assert [one for one in ids if one in wanted] == wanted
    assert html.index("Evidence of manipulation") < html.index("1 Provenance")


def test_each_part_says_what_was_found():
    tracks = [track(FORGED, heats=2, person=0), track(CLEAN, id=1, person=0)]
    tracks[1] = tracks[1].model_copy(update={"seen": SEEN.model_copy(update={"blur": (1, 9)})})
    report = report_on(file_report(tracks=tracks, provenance=MANIFEST, watermark=MARK))
    text = words(render(report, [pictures(tracks)]))
    for said in (
        "Example Press", "says “composite”", "p < 1e-29", SHA, "29.97 per second",
        "41 intervals irregular", "every 250 frames (12 to 250)", "1:01.2 (0.8 s)",
        "Frames are missing at 1:01.2 and at 5:10.0.",
        "1, also face 2", "92 to 188 px", "−24 to 31°", "calibrated on 0.6 to 3.4%",
        "95% interval 0.85 to 0.99", "Moderate support for a generated face.",
        "about 50 times as probable if the face was generated as if it was not",
        "patch 0.95", "threshold 0.70", "Strongest at the mouth",
        "lowered this member's own score by 1.90 (log-odds); covering other places of the same "
        "size lowered it by −0.10 to 0.40. The check bears the map out.",
        "The check does not bear the map out", "2 heat maps, 1 borne out by the check",
        "False alarms: 1.2% of 1,622 untouched faces", "95% interval 0.4% to 2.7%",
        "130 for generated, 40 for not", "facekit-report/2",
    ):  # fmt: skip
        assert said in text, said
    assert "real" not in re.sub(r"never says that a file is real", "", text).split()


def test_a_score_that_does_not_count_is_greyed_and_says_so():
    said = "too few frames show the face well enough: it counts for nothing"
    for counts in (True, False):
        one = track([0.9] * 6).model_copy(update={"counts": counts})
        html = render(report_on(file_report(tracks=[one])), [pictures([one])])
        assert (said in words(html)) is not counts
        assert ('class="scores mute"' in html) is not counts
        assert ("Highest score 0.90" if counts else "No score that counts") in words(html)


def test_a_cover_that_raises_the_score_is_said_in_words():
    one = track([0.9] * 6, heats=1)
    odd = one.heat[0].occlusion.model_copy(update={"strongest": -1.2, "agrees": False})
    heats = [one.heat[0].model_copy(update={"occlusion": odd})]
    tracks = [one.model_copy(update={"heat": heats})]
    text = words(render(report_on(file_report(tracks=tracks)), [pictures(tracks)]))
    assert "raised this member's own score by 1.20 (log-odds)" in text


def test_a_picture_has_no_timeline_but_all_the_rest():
    tracks = [track([0.9], heats=1)]
    html = render(report_on(file_report("a.jpg", tracks=tracks, duration=None)), [pictures(tracks)])
    assert 'class="plot' not in html
    assert "about quality 88" in words(html) and 'class="heat"' in html


def test_an_unsigned_mark_is_called_a_claim():
    said = "The mark is not signed: it is a claim, not a proof."
    for provenance, unsigned in ((NO_MANIFEST, True), (MANIFEST, False)):
        one = file_report(watermark=MARK, provenance=provenance)
        assert (said in words(render(report_on(one), [Pictures()]))) is unsigned


@pytest.mark.parametrize("part", PARTS)
def test_parts_left_out_are_named(part):
    without = [one for one in PARTS if one == part or (part == "faces" and PARTS.index(one) > 3)]
    tracks = [] if part == "faces" else [track(CLEAN, heats=part != "localisation")]
    one = file_report(tracks=tracks, left_out=without)
    page = render(report_on(one, left_out=without), [pictures(tracks)])
    section = page[page.index(f'<h3 id="file-1-{part}"') :]
    assert f"--without {part}" in section[: section.index("</section>")]
    assert f"Left out on request: {'file facts' if part == 'facts' else part}" in words(page)


def test_what_was_not_looked_at_is_said():
    long = Sampling(every=0.2, frames=3000, thinned=True, stretches=300, until=7200.0)
    text = words(render(report_on(file_report(duration=43_200.0, sampling=long)), [Pictures()]))
    for said in ("3,000 frames, until 2:00:00.0 only, as asked", "in 300 stretches of 10 evenly "
                 "spread: the file is too long to be looked at in full"):  # fmt: skip
        assert said in text


def test_what_went_wrong_is_said():
    one = file_report(errors=["the sound could not be read"])
    failed = FileError(path="in/broken.mp4", error="it is empty")
    text = words(render(report_on(one, errors=[failed]), [Pictures()]))
    for said in ("What went wrong", "The sound could not be read.", "in/broken.mp4",
                 "It is empty."):  # fmt: skip
        assert said in text


def test_without_a_detector_or_a_diagram_it_says_so():
    tracks = [track([None] * 20)]
    html = render(report_on(file_report(tracks=tracks), detector=None), [pictures(tracks)])
    assert "None is bundled and none was given" in words(html)
    assert "Size of face 1 over time" in html
    plain = DETECTOR.model_copy(update={"calibrated": None})
    text = words(render(report_on(file_report(), detector=plain), [Pictures()]))
    assert "False alarms: not measured." in text and "was not bundled with it" in text


def test_nothing_to_show_is_a_page_too():
    failed = FileError(path="in/broken.mp4", error="it is empty")
    assert "in/broken.mp4" in words(render(report_on(errors=[failed]), []))


def test_peaks_survive_the_thinning_of_a_long_timeline():
    scores = [0.01] * 3000
    scores[1234] = 0.97
    html = render(report_on(file_report(tracks=[track(scores)], duration=600.0)), [Pictures()])
    points = json.loads(re.search(r'data-points="([^"]*)"', html)[1])
    assert len(points) <= 400
    assert [246.8, 0.97, 120, 7404] in [point[:4] for point in points]


def test_every_thing_on_the_page_has_a_name(long_video):
    for html in (render(*long_video), render(*batch(8))):
        tags = Page(html).tags
        ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
        assert len(ids) == len(set(ids))
        for tag, attrs in tags:
            for key in ("aria-labelledby", "aria-describedby"):
                assert set(attrs.get(key, "").split()) <= set(ids), (tag, attrs)
            if (address := attrs.get("href", "")).startswith("#"):
                assert address[1:] in ids
            if tag == "img":
                assert attrs["alt"]
            if attrs.get("role") in ("slider", "group", "region"):
                assert attrs["aria-label"]
        assert {"header", "main", "footer"} <= {tag for tag, _ in tags}
        levels = [int(tag[1]) for tag, _ in tags if re.fullmatch(r"h[1-6]", tag)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


# Its size


def test_ten_minutes_with_eight_people_stay_below_three_megabytes(long_video):
    html = render(*long_video)
    assert len(html.encode()) < 3_000_000
    page = Page(html)
    assert sum("plot" in attrs.get("class", "") for _, attrs in page.tags) == 8
    assert sum(attrs.get("class") == "heat" for _, attrs in page.tags) == 24
    assert sum(attrs.get("class") == "zoom" for _, attrs in page.tags) == 8 * (1 + 8)


def test_a_crowd_stays_below_three_megabytes_and_the_worst_are_shown():
    tracks = [track(CLEAN, id=i, heats=2) for i in range(99)] + [track(FORGED, id=99, heats=2)]
    html = render(report_on(file_report(tracks=tracks)), [pictures(tracks)])
    assert len(html.encode()) < 3_000_000
    text = words(html)
    assert "40 more faces are in report.json" in text and "59 more are in report.json." in text
    assert html.index('id="file-1-face-100"') < html.index('id="file-1-face-1"')
    assert 'class="map" data-face="99"' in html


def batch(count, **options):
    """Files of which every 17th is forged and every third has no face."""
    files, shown = [], []
    for i in range(count):
        tracks = [track(FORGED if i % 17 == 1 else CLEAN, heats=2)] if i % 3 else []
        files.append(file_report(f"clip-{i:03d}.mp4", tracks=tracks, **options))
        shown.append(pictures(tracks))
    return report_on(*files, errors=[FileError(path="in/broken.mp4", error="it is empty")]), shown


def test_two_hundred_files_have_a_table_first_the_worst_on_top():
    html = render(*batch(200))
    assert len(html.encode()) < 3_000_000
    table = html[html.index('<table class="index"') : html.index("</table>")]
    verdicts = re.findall(r'<span class="chip \w+">([^<]*)</span>', table)
    assert verdicts == sorted(verdicts, key=[EVIDENCE, INCONCLUSIVE, NO_EVIDENCE,
                                             "not analyzed"].index)  # fmt: skip
    assert len(verdicts) == 201 and verdicts.count(EVIDENCE) == 8
    assert html.index("</table>") < html.index('<details class="file"')
    assert html.count('<details class="file"') == 200
    assert f'class="map" data-face="0" data-time="{0.0}"' in html
    assert "evidence of manipulation 8" in words(html)


def test_files_that_say_too_much_are_cut_short_and_the_page_says_so():
    claims = MANIFEST.model_copy(update={"claims": {"x": "y" * 60_000}})
    report, shown = batch(80, provenance=claims)
    html = render(report, shown)
    assert len(html.encode()) < 3_000_000
    assert "… the rest is in report.json" in words(html)
    assert html.count('class="chip') >= 81


# Its pictures


@given(
    turn=st.floats(-3.1, 3.1),
    scale=st.floats(0.3, 1.5),
    at=st.tuples(st.floats(40, 260), st.floats(40, 160)),
    spot=st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)),
)
@settings(max_examples=25, deadline=None)
def test_the_large_picture_knows_where_the_crop_lies_in_it(turn, scale, at, spot):
    size = 128
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    linear = np.array([[cos, -sin], [sin, cos]])
    matrix = np.c_[linear, size / 2 - linear @ at]
    place_in_image = np.linalg.solve(linear, np.multiply(spot, size) - matrix[:, 2])
    x, y = place_in_image
    frame = np.zeros((200, 300, 3), np.uint8)
    assume(9 < x < 291 and 9 < y < 191)
    rows, columns = np.mgrid[:200, :300] + 0.5
    bright = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)
    frame[:] = bright[..., None].astype(np.uint8)
    aligned = AlignedFace(np.zeros((size, size, 3), np.uint8), matrix, None)
    jpeg, (a, b, c, d, e, f) = closeup(frame, aligned)
    picture = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"), float)
    picture[picture < 40] = 0
    height, width = picture.shape
    rows, columns = np.mgrid[:height, :width] + 0.5
    seen_at = (picture * columns).sum() / picture.sum(), (picture * rows).sum() / picture.sum()
    u, v = spot
    assert ((a * u + c * v + e) * width, (b * u + d * v + f) * height) == pytest.approx(
        seen_at, abs=0.6
    )
    assert max(picture.shape) <= 480


def test_pictures_come_back_from_json_as_they_were():
    tracks = [track(FORGED, heats=2), track(CLEAN, id=1)]
    shown = pictures(tracks)
    value = json.loads(json.dumps(shown.to_json()))
    assert Pictures.from_json(value) == shown
    assert Pictures.from_json(json.loads(json.dumps(Pictures().to_json()))) == Pictures()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda value: value.pop("boxes"),
        lambda value: value.update(overview="no base64"),
        lambda value: value["crops"]["0"][0].update(jpeg=None),
        lambda value: value["crops"]["0"][0].update(place=[1, 2]),
        lambda value: value["crops"]["0"][0].update(surprise=1),
        lambda value: value["crops"]["0"][0].update(heat={"time": 1}),
    ],
)
def test_spoilt_pictures_are_refused(spoil):
    value = pictures([track(FORGED)]).to_json()
    spoil(value)
    with pytest.raises((ValueError, KeyError, TypeError)):
        Pictures.from_json(value)


def test_a_heat_map_is_outlined_where_it_is_strongest():
    one = heat(seen([0.9])[0])
    cells = np.zeros((10, 10))
    cells[6:8, 2] = 1.0  # below the eye, beside the nose
    unchecked = one.occlusion.model_copy(update={"place": None})
    one = one.model_copy(update={"cells": cells.tolist(), "occlusion": unchecked})
    drawn = overlay(one, (0.5, 0, 0, 0.5, 0.25, 0.1))
    edges = set(re.findall(r"M[^M]*", drawn.outline))
    assert edges == {"M20 60h10", "M20 80h10", "M20 60v10", "M20 70v10", "M30 60v10", "M30 70v10"}
    assert drawn.matrix == "matrix(0.5 0 0 0.5 25 10)"
    assert drawn.where == "the cheek on the left"
    alpha = np.asarray(Image.open(io.BytesIO(drawn.png)))[..., 3]
    assert np.array_equal(alpha > 0, cells > 0)
    covered = one.occlusion.model_copy(update={"place": (6, 2, 1, 1)})
    drawn = overlay(one.model_copy(update={"occlusion": covered}), None)
    assert set(re.findall(r"M[^M]*", drawn.outline)) == {
        "M20 60h10", "M20 70h10", "M20 60v10", "M30 60v10"
    }  # fmt: skip
    flat = overlay(one.model_copy(update={"cells": [[0.01] * 4] * 4}), None)
    assert (flat.outline, flat.where) == ("", "")


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory, long_video):
    if devtools.CHROMIUM is None:
        pytest.skip(devtools.MISSING)
    folder = tmp_path_factory.mktemp("browser")
    write = {"long": long_video, "batch": batch(12)}
    tracks = [track([0.9], heats=1), track([0.2], id=1)]
    write["photo"] = (
        report_on(file_report("a.jpg", tracks=tracks, duration=None)),
        [pictures(tracks)],
    )
    for name, what in write.items():
        (folder / f"{name}.html").write_text(render(*what), encoding="utf-8")
    with devtools.browser(folder / "profile") as one:
        one.folder = folder
        yield one


@pytest.fixture
def opened(browser):
    """Opens a page; afterwards nothing may have been fetched or complained about."""

    def go(name, width=1000):
        browser.resize(width)
        browser.scheme("light")
        browser.open(browser.folder / f"{name}.html")
        return browser

    browser.requests.clear()
    browser.complaints.clear()
    yield go
    own = ("data:image/jpeg;base64,", "data:image/png;base64,", browser.folder.as_uri())
    assert [address for address in browser.requests if not address.startswith(own)] == []
    assert browser.complaints == []


TEXT_CONTRASTS = """(() => {
  const parse = (c) => { const n = c.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const over = (top, under) => [0, 1, 2].map((i) => top[3] * top[i] + (1 - top[3]) * under[i]);
  const ground = (e) => {
    if (!e) return [255, 255, 255];
    const own = parse(getComputedStyle(e).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, ground(e.parentElement));
  };
  const light = (c) => {
    const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim();
    if (!text || !e.checkVisibility() || e.closest("script, title, desc")) continue;
    const style = getComputedStyle(e), under = ground(e);
    const ink = over(parse(e.closest("svg") ? style.fill : style.color), under);
    const [a, b] = [light(ink), light(under)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), text.slice(0, 40)]);
  }
  return found;
})()"""  # noqa: E501


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["long", "photo", "batch"])
def test_all_text_can_be_read_in_light_and_dark(opened, name, scheme):
    page = opened(name)
    page.scheme(scheme)
    page.run("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    contrasts = page.run(TEXT_CONTRASTS)
    assert len(contrasts) > 100
    assert [entry for entry in contrasts if entry[0] < 4.5] == []
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    assert (int(ground.removeprefix("rgb(").split(",")[0]) < 128) is (scheme == "dark")


@pytest.mark.parametrize("name", ["long", "photo", "batch"])
def test_a_phone_needs_no_scrolling_sideways(opened, name):
    page = opened(name, 360)
    page.run("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    assert page.run("document.documentElement.scrollWidth") <= 360


AREA = """(() => {
  const plot = document.querySelector(".plot");
  plot.scrollIntoView({ block: "center", behavior: "instant" });
  const { left, top, width, height } = plot.querySelector(".area").getBoundingClientRect();
  return { left, top, width, height };
})()"""
STATE = """({
  reading: document.querySelector(".reading").textContent,
  value: document.querySelector(".plot").getAttribute("aria-valuetext"),
  cursor: document.querySelector(".cursor").style.left,
  hidden: document.querySelector(".cursor").hidden,
  open: document.querySelector(".viewer").open,
  title: document.querySelector(".viewer h2").textContent,
  shown: document.querySelector(".viewer").textContent.replace(/\\s+/g, " "),
  heat: document.querySelectorAll(".viewer .heat").length,
  focus: document.activeElement.className,
})"""


def test_the_timeline_answers_to_the_mouse(opened):
    page = opened("long")
    area = page.run(AREA)
    hint = page.run(STATE)["reading"]
    x, y = area["left"] + area["width"] / 4, area["top"] + area["height"] / 2
    page.mouse(x, y)
    over = page.run(STATE)
    assert re.match(
        r"2:(29|30|31)\.\d · score 0\.\d\d · 120 px · frame 4\d+ · blend", over["reading"]
    )
    assert abs(float(over["cursor"].rstrip("%")) - 25) < 0.5 and not over["hidden"]
    page.mouse(2, 2)
    assert page.run(STATE)["hidden"] and page.run(STATE)["reading"] == hint
    page.mouse(x, y, click=True)
    clicked = page.run(STATE)
    assert clicked["open"] and clicked["title"].startswith("Face 1 at 2:")
    page.key("Escape")
    assert not page.run(STATE)["open"]


def test_the_timeline_answers_to_the_keyboard_and_opens_the_frame_with_its_heat_map(opened):
    page = opened("long")
    strongest = page.run("document.querySelector('.map').dataset.time")
    page.run("document.querySelector('.plot').focus()")
    first = page.run(STATE)
    assert re.match(r"0:0\d\.\d · score 0\.3\d · 120 px · frame \d", first["value"])
    page.key("ArrowRight")
    assert page.run(STATE)["value"] > first["value"]
    page.key("End")
    assert page.run(STATE)["value"].startswith("9:5")
    page.key("Home")
    assert page.run(STATE)["value"] == first["value"]
    points = page.run("JSON.parse(document.querySelector('.plot').dataset.points).map((p) => p[0])")
    nearest = int(np.abs(np.subtract(points, float(strongest))).argmin())
    for _ in range(nearest):
        page.run(
            "document.querySelector('.plot').dispatchEvent("
            "new KeyboardEvent('keydown', { key: 'ArrowRight' }))"
        )
    page.key("Enter")
    large = page.run(STATE)
    assert large["open"] and large["heat"] == 1
    assert large["title"] == f"Face 1 at {clock(float(strongest))}"
    assert "The check bears the map out." in large["shown"]
    page.run("document.querySelector('.viewer .switch input').click()")
    assert page.run("getComputedStyle(document.querySelector('.viewer .heat')).visibility") == (
        "hidden"
    )
    page.key("ArrowRight")
    assert page.run(STATE)["title"] != large["title"]
    page.key("Escape")
    closed = page.run(STATE)
    assert not closed["open"] and closed["focus"].startswith("plot"), "the focus comes back"


def test_tab_goes_through_the_page_in_its_order(opened):
    page = opened("photo")
    seen_in_order = []
    for _ in range(14):
        page.key("Tab")
        seen_in_order.append(
            page.run("document.activeElement.textContent.trim() || document.activeElement.type ||"
                     " document.activeElement.getAttribute('aria-label')"))  # fmt: skip
    assert seen_in_order[0] == "Skip to the verdict"
    assert seen_in_order[1:7] == [
        "1 Provenance", "2 Watermark", "3 File facts", "4 Faces", "5 Detectors", "6 Localisation"
    ]  # fmt: skip
    assert "checkbox" in seen_in_order


def test_a_screen_reader_finds_landmarks_and_names(opened):
    page = opened("long")
    nodes = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in page.send("Accessibility.getFullAXTree")["nodes"]
        if not node.get("ignored") and "role" in node
    ]
    roles = {role for role, _ in nodes}
    assert {"banner", "main", "contentinfo", "slider", "table", "rowheader"} <= roles
    assert all(name for role, name in nodes
               if role in ("slider", "image", "button", "checkbox", "link", "region"))  # fmt: skip
    names = [name.casefold() for role, name in nodes if role == "region"]
    for name in ("Evidence", "1 Provenance", "6 Localisation", "The detector", "Limits"):
        assert name.casefold() in names
    assert ("slider", "Score of face 1 over time") in nodes


def test_a_link_of_the_table_unfolds_its_file(opened):
    page = opened("batch")
    assert page.run("document.querySelectorAll('details.file[open]').length") == 0
    page.run("document.querySelector('.index a').click()")
    page.run("new Promise((resolve) => setTimeout(resolve, 100))")
    assert page.run("document.querySelector('details.file').open")
    assert page.run("document.querySelectorAll('details.file[open]').length") == 1


def test_it_prints(opened):
    content = opened("photo").pdf()
    assert content.startswith(b"%PDF") and 1 < len(re.findall(rb"/Type\s*/Page\b", content)) < 8
