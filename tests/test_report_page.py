"""The report's page: what it shows and in which order, its size, and how it behaves in a browser.

The reports are made by hand, so that the page is tested apart from what analyzes.
"""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from detectors.report import model
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
from detectors.report.pictures import Box, Crop, Pictures
from detectors.report.render import render
from detectors.report.text import clock, file_size, p_value
from facekit.media.facts import Gap, Hint, MediaFacts, PictureFacts, VideoFacts
from facekit.media.images import encode_image

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
            strongest=1.9, elsewhere=[0.2, -0.1, 0.4] if agrees else [2.3, 0.1], agrees=agrees
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


def noise(side, quality=80):
    """A picture that compresses worse than any face does."""
    random = np.random.default_rng(side)
    small = random.integers(0, 256, (side // 2, side // 2, 3), dtype=np.uint8)
    return encode_image(np.ascontiguousarray(small.repeat(2, 0).repeat(2, 1)), ".jpg", quality)


def pictures(tracks, count=8, side=128, large=240):
    """Crops of each track at even times, and the large frame of those that have a heat map."""
    jpeg, big = noise(side), noise(large)
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
    return Pictures(overview=noise(480), boxes=boxes, overview_time=1.0, crops=crops)


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
