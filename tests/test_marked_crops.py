"""Crops of generated media, made by ``facekit align``, stay marked and signed."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import skimage.data
from click.testing import CliRunner

from facekit import export, watermark
from facekit.commands.align import command
from facekit.datasets.manifest import load_folder
from facekit.media.images import read_image, write_image
from facekit.provenance import manifest
from facekit.provenance.ledger import Ledger
from facekit.types import Frame
from facekit.watermark import Kind, Payload


def align(*arguments):
    words = [*map(str, arguments), "--device", "cpu", "--json"]
    result = CliRunner().invoke(command, words)
    return result.exit_code, json.loads(result.stdout)


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()[:300, 100:400]


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("FACEKIT_HOME", str(tmp_path / "home"))
    return Ledger()


@pytest.fixture
def generated(tmp_path, astronaut):
    """A picture and a video as a generator leaves them."""
    facts = {"origin": "studio", "generator": "face_swap"}
    frames = [Frame(np.roll(astronaut, i, axis=1), i / 10, i) for i in range(8)]
    folder = tmp_path / "generated"
    export.write_image(folder / "g.png", astronaut, kind=Kind.COMPOSITE, facts=facts, id=5)
    export.write_video(folder / "v.mp4", frames, kind=Kind.COMPOSITE, facts=facts, rate=10, id=5)
    return folder


@pytest.mark.parametrize("stripped", [False, True])
def test_crops_of_generated_media_stay_marked_and_signed(generated, tmp_path, stripped, astronaut):
    if stripped:  # of its manifest, so that the mark alone says it
        write_image(generated / "g.png", read_image(generated / "g.png"))
    out = tmp_path / "out"
    write_image(tmp_path / "photos" / "me.png", astronaut)
    assert align(generated, tmp_path / "photos", "--out", out, "--period", 0.5)[0] == 0
    items = load_folder(out, verify=True)
    marked = [item for item in items if "photos" not in item.facts["input"]]
    assert len(items) == 4 and len(marked) == 3
    for item in marked:
        path = out / item.path
        known = not (stripped and item.path.startswith("crops/g"))
        assert item.label == 1 and item.generator == ("face_swap" if known else "")
        assert watermark.read_file(path).payload == Payload(Kind.COMPOSITE, 5)
        claims = manifest.verify(path).claims
        assert claims["kind"] == "composite"
        assert claims["facts"].get("origin") == ("studio" if known else None)
        assert claims["inputs"][0]["name"] in ("g.png", "v.mp4")
    (plain,) = (item for item in items if item not in marked)
    assert plain.label is None and not watermark.read_file(out / plain.path).present
    assert watermark.read_file(out / "preview.jpg").present


def test_a_manifest_alone_is_believed_too(tmp_path, astronaut):
    plain, signed = tmp_path / "plain.png", tmp_path / "signed.png"
    write_image(plain, astronaut)
    manifest.sign(plain, signed, kind="generated")
    align(signed, "--out", tmp_path / "out")
    (item,) = load_folder(tmp_path / "out")
    assert item.label == 1
    assert watermark.read_file(tmp_path / "out" / item.path).kind == "generated"


def test_crops_too_small_for_their_mark_are_refused(generated, tmp_path):
    out = tmp_path / "out"
    code, said = align(generated / "g.png", "--out", out, "--size", 48)
    assert code == 1
    (reason,) = said["failures"].values()
    assert "composite" in reason and "--size 256" in reason
    assert not list(out.glob("crops/*"))


def test_crops_keep_to_the_consent_of_what_they_are_cut_from(tmp_path, astronaut, ledger):
    record = ledger.grant(
        subjects=["anna"],
        photos={"ab" * 32: ["anna"]},
        scope=["generate"],
        purpose="a test",
        expires=datetime.now(UTC) + timedelta(days=9),
        adult=True,
        evidence="cd" * 32,
    )
    made = tmp_path / "made.png"
    export.write_image(made, astronaut, kind=Kind.COMPOSITE, consent=[record.id])
    assert align(made, "--out", tmp_path / "out")[0] == 0
    (item,) = load_folder(tmp_path / "out")
    crop = tmp_path / "out" / item.path
    preview = tmp_path / "out" / "preview.jpg"
    assert [use.path for use in ledger.affected(record.id)] == [made, crop, preview]
    assert manifest.verify(crop).claims["consent"] == [manifest.consent_hash(record.id)]

    ledger.revoke(record.id, "changed her mind")
    code, said = align(made, "--out", tmp_path / "again", "--size", 128)
    assert code == 1 and "was revoked" in said["failures"][made.as_posix()]
    assert not list((tmp_path / "again").glob("crops/*"))
