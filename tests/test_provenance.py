import json
import multiprocessing
import resource
import shutil
import stat
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from facekit import watermark
from facekit.cli import cli
from facekit.core.errors import FacekitError
from facekit.media.encode import write_video
from facekit.media.images import read_image, write_image
from facekit.provenance import Provenance, keys, manifest, sign, verify
from facekit.provenance.binding import compare
from facekit.provenance.claims import judge
from facekit.types import Frame
from facekit.watermark import Kind, Payload

SUFFIXES = (".png", ".jpg", ".webp", ".mp4")
MARK = "010100000000002a"
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2's "abc"
IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    monkeypatch.setenv("FACEKIT_HOME", str(folder))
    return folder


@pytest.fixture
def abc(tmp_path):
    path = tmp_path / "input.bin"
    path.write_bytes(b"abc")
    return path


def unsigned(folder: Path, suffix: str, name: str = "plain") -> Path:
    path = folder / f"{name}{suffix}"
    picture = data.astronaut() if name == "plain" else data.chelsea()
    if suffix == ".mp4":
        frames = (Frame(picture[i : i + 64, :64], i / 25, i) for i in range(5))
        write_video(path, frames)
    else:
        write_image(path, picture[:96, :96])
    return path


def report(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The C2PA library's own report on a file, with its own settings, and the active manifest."""
    with c2pa.Reader(str(path)) as reader:
        store = json.loads(reader.json())
    return store, store["manifests"][store["active_manifest"]]


def assertion(found: dict[str, Any], label: str) -> Any:
    return next(row["data"] for row in found["assertions"] if row["label"] == label)


# What is written


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_signed_file_says_what_it_is_and_by_whom(tmp_path, suffix, abc, capfd):
    plain = unsigned(tmp_path, suffix)
    signed = tmp_path / f"signed{suffix}"
    facts = {"origin": "studio", "seed": 3, "people": ["a", "ä"]}
    sign(plain, signed, kind="composite", inputs=[abc], facts=facts, mark=MARK, consent=["abc"])

    found = verify(signed)
    assert found.status == "untrusted"
    assert "local test chain" in found.reason
    claims = found.claims
    assert claims["kind"] == "composite"
    assert claims["source_type"] == "compositeWithTrainedAlgorithmicMedia"
    assert claims["facts"] == facts
    assert claims["mark"] == MARK
    assert (claims["inputs"][0]["name"], claims["inputs"][0]["sha256"]) == ("input.bin", ABC)
    assert claims["consent"] == [ABC]
    assert claims["signed"] is None  # no timestamp authority was asked
    assert signed.stat().st_size - plain.stat().st_size < 12_000  # no thumbnail
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_c2pa_library_reads_the_same_without_facekit(tmp_path, suffix, abc):
    signed = tmp_path / f"signed{suffix}"
    sign(unsigned(tmp_path, suffix), signed, kind="composite", inputs=[abc], mark=MARK)
    store, found = report(signed)
    assert store["validation_state"] == "Valid"
    failures = store["validation_results"]["activeManifest"]["failure"]
    assert [failure["code"] for failure in failures] == ["signingCredential.untrusted"]

    actions = assertion(found, "c2pa.actions.v2")["actions"]
    created, placed, edited, marked = actions
    composite = IPTC + "compositeWithTrainedAlgorithmicMedia"
    assert (created["action"], created["digitalSourceType"]) == ("c2pa.created", composite)
    assert (edited["action"], edited["digitalSourceType"]) == ("c2pa.edited", composite)
    assert (placed["action"], marked["action"]) == ("c2pa.placed", "c2pa.watermarked.bound")
    (ingredient,) = found["ingredients"]
    referred = placed["parameters"]["ingredients"][0]["url"]
    assert referred.endswith(ingredient["label"])
    assert ingredient["relationship"] == "componentOf"
    assert ingredient["title"] == "input.bin"
    assert ingredient["instance_id"] == f"nih:sha-256;{ABC}"  # RFC 6920
    binding = assertion(found, "c2pa.soft-binding")
    assert binding == {"alg": "org.facekit.spread.1", "blocks": [{"scope": {}, "value": MARK}]}
    assert "thumbnail" not in found and "thumbnail" not in ingredient
    assert (found["claim_version"], found["title"]) == (2, signed.name)


def test_facekit_vouches_for_what_it_says_itself(tmp_path, abc):
    """C2PA 2 tells assertions that the signer made from those that it merely gathered."""
    signed = tmp_path / "s.png"
    sign(unsigned(tmp_path, ".png"), signed, kind="generated", inputs=[abc], mark=MARK)
    with c2pa.Reader(str(signed)) as reader:
        detailed = json.loads(reader.detailed_json())
    claim = detailed["manifests"][detailed["active_manifest"]]["claim"]
    made = {row["url"].rpartition("/")[2] for row in claim["created_assertions"]}
    assert made >= {"c2pa.actions.v2", "c2pa.soft-binding", "c2pa.ingredient.v3", manifest.FACTS}
    assert not claim.get("gathered_assertions")


@pytest.mark.parametrize(
    ("kind", "source"),
    [("generated", "trainedAlgorithmicMedia"), ("studio", "algorithmicMedia")],
)
def test_what_was_given_to_a_generator_is_its_input(tmp_path, abc, kind, source):
    signed = tmp_path / "s.png"
    sign(unsigned(tmp_path, ".png"), signed, kind=kind, inputs=[abc])
    assert verify(signed).claims["source_type"] == source
    _, found = report(signed)
    (created,) = assertion(found, "c2pa.actions.v2")["actions"]
    assert created["digitalSourceType"] == IPTC + source
    assert created["parameters"]["ingredients"][0]["url"].endswith(found["ingredients"][0]["label"])
    assert found["ingredients"][0]["relationship"] == "inputTo"


def test_the_soft_binding_names_the_version_of_the_mark(tmp_path):
    sign(unsigned(tmp_path, ".png"), tmp_path / "s.png", kind="generated", mark="02" + MARK[2:])
    _, found = report(tmp_path / "s.png")
    assert assertion(found, "c2pa.soft-binding")["alg"] == "org.facekit.spread.2"
    for wrong in ("", "42", MARK.upper() + "0", "x" * 16):
        with pytest.raises(FacekitError, match="16 hex digits"):
            sign(tmp_path / "plain.png", tmp_path / "t.png", kind="generated", mark=wrong)
    assert not (tmp_path / "t.png").exists()


def test_signing_changes_no_pixel(tmp_path):
    plain = unsigned(tmp_path, ".png")
    sign(plain, tmp_path / "signed.png", kind="generated")
    assert np.array_equal(read_image(plain), read_image(tmp_path / "signed.png"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_inputs_bring_their_own_manifests(tmp_path, suffix, abc):
    first, second = tmp_path / f"first{suffix}", tmp_path / "second.png"
    plain = unsigned(tmp_path, suffix)
    sign(plain, first, kind="generated", consent=["abc"])
    sign(unsigned(tmp_path, ".png"), second, kind="composite", inputs=[abc, first, plain, first])
    named, carried, bare = verify(second).claims["inputs"]  # in order, and each but once
    assert (named["name"], named["manifest"], named["signer"]) == ("input.bin", "none", None)
    assert (carried["name"], carried["manifest"]) == (first.name, "intact")
    assert (carried["kind"], carried["consent"]) == ("generated", [ABC])
    assert (bare["name"], bare["manifest"], bare["kind"]) == (plain.name, "none", None)
    # A part's kind is not the whole's.
    assert verify(second).claims["kind"] == "composite" and not verify(second).claims["consent"]
    store, found = report(second)
    assert found["ingredients"][1]["active_manifest"] in store["manifests"]


def test_an_inputs_manifest_that_does_not_match_it_is_not_repeated(tmp_path):
    made, lying, out = tmp_path / "made.jpg", tmp_path / "lying.png", tmp_path / "out.png"
    sign(unsigned(tmp_path, ".jpg"), made, kind="generated")
    lying.write_bytes(made.read_bytes())  # its suffix is not its format
    content = bytearray(made.read_bytes())
    content[-100] ^= 1
    made.write_bytes(content)
    cut = tmp_path / "cut.png"
    cut.write_bytes(b"\x89PNG\r\n\x1a\n" + b"c2pa jumb")
    sign(unsigned(tmp_path, ".png"), out, kind="composite", inputs=[made, lying, cut])
    broken, whole, unread = verify(out).claims["inputs"]
    assert (broken["manifest"], broken["kind"]) == ("broken", None)
    assert (whole["manifest"], whole["kind"]) == ("intact", "generated")
    assert (unread["manifest"], len(unread["sha256"])) == ("none", 64)


def test_large_manifests_of_inputs_are_left_out(tmp_path, monkeypatch):
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    plain = unsigned(tmp_path, ".png")
    sign(plain, first, kind="generated", facts={"long": "x" * 300_000})
    sign(plain, second, kind="composite", inputs=[first])
    assert second.stat().st_size - plain.stat().st_size < 12_000
    (named,) = verify(second).claims["inputs"]
    assert named["manifest"] == "none"
    assert len(named["sha256"]) == 64


def test_a_missing_input_is_named(tmp_path):
    with pytest.raises(FacekitError, match=r"gone\.mp4"):
        sign(
            unsigned(tmp_path, ".png"),
            tmp_path / "s.png",
            kind="composite",
            inputs=[tmp_path / "gone.mp4"],
        )
    assert not (tmp_path / "s.png").exists()


# One's own files


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_ones_own_file_is_signed_without_a_word_on_its_making(tmp_path, suffix):
    plain, signed = unsigned(tmp_path, suffix), tmp_path / f"signed{suffix}"
    sign(plain, signed, kind=None)
    claims = verify(signed).claims
    assert (claims["kind"], claims["source_type"], claims["mark"]) == (None, None, None)
    store, found = report(signed)
    opened, published = assertion(found, "c2pa.actions.v2")["actions"]
    assert (opened["action"], published["action"]) == ("c2pa.opened", "c2pa.published")
    assert "digitalSourceType" not in json.dumps(store)
    (parent,) = found["ingredients"]
    assert (parent["title"], parent["relationship"]) == (plain.name, "parentOf")


def test_generated_media_stay_generated_when_signed_again(tmp_path):
    plain, path = unsigned(tmp_path, ".png"), tmp_path / "0.png"
    sign(plain, path, kind="generated", consent=["abc"], facts={"long": "x" * 300_000})
    for number in (1, 2, 3):
        again = tmp_path / f"{number}.png"
        sign(path, again, kind=None)
        path = again
        claims = verify(path).claims
        assert (claims["kind"], claims["source_type"]) == ("generated", "trainedAlgorithmicMedia")
        assert claims["consent"] == [ABC]
        assert claims["inputs"][0]["manifest"] == "intact"


def test_a_broken_manifest_is_not_signed_over(tmp_path):
    signed, again = tmp_path / "s.jpg", tmp_path / "again.jpg"
    sign(unsigned(tmp_path, ".jpg"), signed, kind="generated")
    content = bytearray(signed.read_bytes())
    content[-100] ^= 1
    signed.write_bytes(content)
    with pytest.raises(FacekitError, match=r"s\.jpg: its manifest does not match"):
        sign(signed, again, kind=None)
    with pytest.raises(FacekitError, match="only what facekit makes has inputs"):
        sign(tmp_path / "plain.jpg", again, kind=None, inputs=[signed])
    assert not again.exists()


# Absent, untrusted, trusted, tampered


def test_file_without_manifest_is_absent(tmp_path):
    for suffix in SUFFIXES:
        assert verify(unsigned(tmp_path, suffix)).status == "absent"
    (tmp_path / "text.txt").write_text("hello")
    assert verify(tmp_path / "text.txt").status == "absent"


def test_a_manifest_kept_elsewhere_is_absent_and_not_fetched(tmp_path):
    definition = {
        "assertions": [
            {
                "label": "c2pa.actions.v2",
                "data": {
                    "actions": [
                        {"action": "c2pa.created", "digitalSourceType": IPTC + "digitalCapture"}
                    ]
                },
            }
        ]
    }
    builder = c2pa.Builder(definition, c2pa.Context.from_dict(keys.SETTINGS))
    builder.set_no_embed()
    builder.set_remote_url("http://127.0.0.1:9/manifest.c2pa")
    out = tmp_path / "remote.jpg"
    with unsigned(tmp_path, ".jpg").open("rb") as source, out.open("w+b") as target:
        builder.sign(keys.signer().native(), "image/jpeg", source, target)
    found = verify(out)
    assert found.status == "absent" and "http://127.0.0.1:9/manifest.c2pa" in found.reason


def test_the_format_is_told_by_the_content(tmp_path):
    sign(unsigned(tmp_path, ".jpg"), tmp_path / "s.jpg", kind="generated")
    for name in ("s.png", "s.mov", "s"):
        (tmp_path / name).write_bytes((tmp_path / "s.jpg").read_bytes())
        assert verify(tmp_path / name).claims["kind"] == "generated"


def test_signature_under_a_named_authority_is_trusted(tmp_path, home):
    signed = tmp_path / "s.png"
    sign(unsigned(tmp_path, ".png"), signed, kind="generated")
    assert keys.trust(home / "signer.pem") == [
        "facekit local test authority (facekit local test chain)"
    ]
    found = verify(signed)
    assert found.status == "trusted" and "trust.pem" in found.reason

    keys.make()  # another chain, which trust.pem does not name
    sign(tmp_path / "plain.png", tmp_path / "t.png", kind="generated")
    assert verify(tmp_path / "t.png").status == "untrusted"
    assert verify(signed).status == "trusted"

    (home / "trust.pem").write_text("nonsense")
    with pytest.raises(FacekitError, match=r"trust\.pem"):
        verify(signed)


def png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], 8
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    return chunks


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    out = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        out += len(body).to_bytes(4, "big") + name + body
        out += zlib.crc32(name + body).to_bytes(4, "big")
    return out


def jpeg_segments(content: bytes) -> list[bytes]:
    """The segments before the first scan, each with its marker, and then all the rest."""
    parts, at = [], 2
    while content[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        parts.append(content[at:end])
        at = end
    return [*parts, content[at:]]


def riff_chunks(content: bytes) -> list[bytes]:
    parts, at = [], 12
    while at < len(content):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        end = at + 8 + size + size % 2
        parts.append(content[at:end])
        at = end
    return parts


def boxes(content: bytes) -> list[bytes]:
    parts, at = [], 0
    while at < len(content):
        end = at + int.from_bytes(content[at : at + 4], "big")
        parts.append(content[at:end])
        at = end
    return parts


def with_manifest_of(signed: Path, other: Path) -> bytes:
    """The bytes of ``other`` with the manifest of ``signed`` where that format keeps it."""
    there, here = signed.read_bytes(), other.read_bytes()
    if signed.suffix == ".png":
        manifests = [c for c in png_chunks(there) if c[0] == b"caBX"]
        first, *rest = png_chunks(here)
        return png([first, *manifests, *rest])
    if signed.suffix == ".jpg":
        manifests = [s for s in jpeg_segments(there) if s.startswith(b"\xff\xeb")]
        first, *rest = jpeg_segments(here)
        return b"\xff\xd8" + b"".join([first, *manifests, *rest])
    if signed.suffix == ".webp":
        manifests = [c for c in riff_chunks(there) if c.startswith(b"C2PA")]
        body = b"WEBP" + b"".join([*riff_chunks(here), *manifests])
        return b"RIFF" + len(body).to_bytes(4, "little") + body
    manifests = [b for b in boxes(there) if b[4:8] == b"uuid"]
    first, *rest = boxes(here)
    return b"".join([first, *manifests, *rest])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_manifest_copied_to_another_file_is_tampering(tmp_path, suffix):
    signed, copied = tmp_path / f"s{suffix}", tmp_path / f"copied{suffix}"
    sign(unsigned(tmp_path, suffix), signed, kind="generated")
    copied.write_bytes(with_manifest_of(signed, unsigned(tmp_path, suffix, "other")))
    found = verify(copied)
    assert found.status == "tampered"
    assert "taken from another file" in found.reason
    assert found.claims["kind"] == "generated"
    assert report(copied)[0]["validation_state"] == "Invalid"


def test_changed_pixels_are_tampering(tmp_path):
    signed = tmp_path / "s.png"
    sign(unsigned(tmp_path, ".png"), signed, kind="generated")
    other = unsigned(tmp_path, ".png", "other")
    pixels = [body for name, body in png_chunks(other.read_bytes()) if name == b"IDAT"]
    kept = [c for c in png_chunks(signed.read_bytes()) if c[0] != b"IDAT"]
    signed.write_bytes(png([*kept[:-1], *((b"IDAT", p) for p in pixels), kept[-1]]))
    found = verify(signed)
    assert found.status == "tampered"
    assert "changed after signing" in found.reason


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_changed_bit_of_media_or_claim_is_tampering(tmp_path, suffix):
    plain = unsigned(tmp_path, suffix)
    signed = tmp_path / f"s{suffix}"
    sign(plain, signed, kind="generated", facts={"origin": "studio"}, mark=MARK)
    content = signed.read_bytes()
    middle = plain.stat().st_size // 2
    media = plain.read_bytes()[middle : middle + 32]
    for part in (media, b"trainedAlgorithmicMedia", b"studio", MARK.encode()):
        assert content.count(part) == 1
        changed = bytearray(content)
        changed[content.index(part)] ^= 1
        broken = tmp_path / f"b{suffix}"
        broken.write_bytes(changed)
        found = verify(broken)
        assert found.status == "tampered"
        whose = "the file was" if part == media else "what the manifest says was"
        assert f"{whose} changed after signing" in found.reason


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_random_damage_never_changes_what_is_believed(tmp_path, suffix, abc):
    signed, damaged = tmp_path / f"s{suffix}", tmp_path / f"d{suffix}"
    about = {"inputs": [abc], "consent": ["abc"], "facts": {"seed": 3}, "mark": MARK}
    sign(unsigned(tmp_path, suffix), signed, kind="composite", **about)
    content, claims = signed.read_bytes(), verify(signed).claims
    draw = np.random.default_rng(0)
    for at in draw.integers(0, len(content), 60):
        changed = bytearray(content)
        size = draw.integers(0, 60)
        changed[at : at + size] = draw.bytes(draw.integers(0, 60))
        damaged.write_bytes(changed)
        try:
            found = verify(damaged)
        except FacekitError as error:
            assert "damaged" in str(error)
            continue
        # Padding is covered by no hash; whatever stands there means nothing.
        assert found.status in ("tampered", "absent") or found.claims == claims


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_files(tmp_path, suffix):
    plain, signed = unsigned(tmp_path, suffix), tmp_path / f"s{suffix}"
    sign(plain, signed, kind="generated")
    content = signed.read_bytes()
    for share in (0.3, 0.6, 0.95):
        signed.write_bytes(content[: int(share * len(content))])
        try:
            assert verify(signed).status in ("tampered", "absent")
        except FacekitError as error:  # nothing of the manifest is left
            assert "damaged" in str(error)
    signed.write_bytes(content[:-10])
    assert verify(signed).status == "tampered"


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(FacekitError, match=r"empty\.jpg: empty"):
        verify(tmp_path / "empty.jpg")
    with pytest.raises(FacekitError, match=r"none\.jpg"):
        verify(tmp_path / "none.jpg")
    with pytest.raises(FacekitError, match="directory"):
        verify(tmp_path)
    for name in ("cut.png", "cut.webp", "cut.mp4"):
        (tmp_path / name).write_bytes(b"hello")
        with pytest.raises(FacekitError, match=rf"{name}: damaged, or no \.{name[4:]} file"):
            verify(tmp_path / name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(given_=st.data())
def test_manifests_of_any_shape_can_be_judged(given_):
    """Other makers' manifests hold what they like, wherever facekit expects its own."""
    labels = ("c2pa.actions.v2", "c2pa.actions", "c2pa.soft-binding", manifest.FACTS)
    any_ = given_.draw(JSON)
    found = {
        "assertions": [{"label": given_.draw(st.sampled_from(labels)), "data": any_}, any_],
        "ingredients": [
            any_,
            {"relationship": "parentOf", "active_manifest": "a", "instance_id": any_},
        ],
        "claim_generator_info": given_.draw(JSON),
        "signature_info": given_.draw(JSON),
    }
    store = {"active_manifest": "a", "manifests": {"a": found}, "validation_results": any_}
    for one in (store, given_.draw(JSON)):
        judged = judge(one, given_.draw(JSON))
        assert judged.status in ("untrusted", "tampered")
        json.dumps(judged.claims)


@pytest.mark.parametrize("kind", ["composite", None])
def test_a_changed_manifest_of_an_input_is_tampering(tmp_path, kind):
    """A forger may change the manifests inside the manifest, which no hash of the file covers."""
    first, second, third = (tmp_path / f"{number}.jpg" for number in range(3))
    facts = {"by": "the inner one"}
    sign(unsigned(tmp_path, ".jpg"), first, kind="generated", facts=facts, consent=["abc"])
    sign(first, second, kind=kind, inputs=[first] if kind else ())
    content = second.read_bytes()
    for part in (b"the inner one", ABC.encode(), b"trainedAlgorithmicMedia"):
        changed = bytearray(content)
        changed[content.index(part)] ^= 1
        second.write_bytes(changed)
        found = verify(second)
        assert found.status == "tampered"
        assert "the manifest of an input" in found.reason
    # What it is an input of says so, but is intact itself.
    sign(tmp_path / "plain.jpg", third, kind="composite", inputs=[second])
    found = verify(third)
    assert found.status == "untrusted"
    assert (found.claims["inputs"][0]["manifest"], found.claims["inputs"][0]["kind"]) == (
        "broken",
        None,
    )


def by_another(source: Path, out: Path, *actions: dict[str, Any], parent: bool = False) -> None:
    """Sign as another program would: with thumbnails, old actions, and inputs of its own."""
    definition = {
        "claim_generator_info": [{"name": "camera"}],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": list(actions)}}],
    }
    builder = c2pa.Builder(definition)
    if parent:
        row = {"title": "x", "relationship": "parentOf", "label": "it"}
        with source.open("rb") as opened:
            builder.add_ingredient(row, "image/jpeg", opened)
    with source.open("rb") as opened, out.open("w+b") as target:
        builder.sign(keys.signer().native(), "image/jpeg", opened, target)


def test_manifests_of_other_makers(tmp_path):
    plain = unsigned(tmp_path, ".jpg")
    photo, edited, again = tmp_path / "photo.jpg", tmp_path / "edited.jpg", tmp_path / "again.jpg"
    captured = {"action": "c2pa.created", "digitalSourceType": IPTC + "digitalCapture"}
    by_another(plain, photo, captured)
    claims = verify(photo).claims
    assert (claims["kind"], claims["source_type"]) == (None, "digitalCapture")
    assert (claims["generator"], claims["version"]) == ("camera", None)
    # "Captured" is the camera's word; who signs the file again does not vouch for it.
    sign(photo, again, kind=None)
    claims = verify(again).claims
    assert claims["source_type"] is None
    assert claims["inputs"][0]["source_type"] == "digitalCapture"

    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["it"]}}
    filled = {
        "action": "c2pa.edited",
        "digitalSourceType": IPTC + "compositeWithTrainedAlgorithmicMedia",
    }
    by_another(photo, edited, opened, filled, parent=True)
    assert verify(edited).claims["source_type"] == "compositeWithTrainedAlgorithmicMedia"
    sign(edited, again, kind=None)
    assert verify(again).claims["source_type"] == "compositeWithTrainedAlgorithmicMedia"
    sign(again, tmp_path / "last.jpg", kind=None)
    assert verify(tmp_path / "last.jpg").claims["source_type"] is not None


def test_manifests_nested_without_end_are_judged_soon():
    parent = {"relationship": "parentOf", "active_manifest": "a"}
    store = {"active_manifest": "a", "manifests": {"a": {"ingredients": [parent] * 30}}}
    began = time.process_time()
    assert len(judge(store, {}).claims["inputs"]) == 30
    assert time.process_time() - began < 1


# Bad output


def test_kind_and_suffix_are_checked(tmp_path):
    plain = unsigned(tmp_path, ".png")
    with pytest.raises(FacekitError, match="test-real"):
        sign(plain, tmp_path / "s.png", kind="test-real")
    with pytest.raises(FacekitError, match=r"allowed: \.jpeg"):
        sign(plain, tmp_path / "s.bmp", kind="generated")
    with pytest.raises(FacekitError, match=r"none\.png: not readable"):
        sign(tmp_path / "none.png", tmp_path / "s.png", kind="generated")
    with pytest.raises(FacekitError, match=r"s\.jpg: signing does not convert.*\.png"):
        sign(plain, tmp_path / "s.jpg", kind="generated")
    with pytest.raises(FacekitError, match="give another output"):
        sign(plain, plain, kind="generated")
    (tmp_path / "fake.png").write_text("not a picture")
    with pytest.raises(FacekitError, match=r"s\.png: cannot be signed"):
        sign(tmp_path / "fake.png", tmp_path / "s.png", kind="generated")
    assert not (tmp_path / "s.png").exists()


def test_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FacekitError, match=r"s\.png: cannot be written"):
        sign(unsigned(tmp_path, ".png"), tmp_path / "file" / "s.png", kind="generated")


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Files can't grow beyond 64 KiB; the system says so at a write, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_disk_that_fills_leaves_no_file(tmp_path, suffix, request):
    plain, signed = tmp_path / f"plain{suffix}", tmp_path / "out" / f"s{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    if suffix == ".mp4":
        write_video(plain, (Frame(np.roll(noise, i, axis=1), i / 25, i) for i in range(8)))
    else:
        write_image(plain, noise)
    assert plain.stat().st_size > 64 << 10
    keys.signer()
    request.getfixturevalue("full_disk")
    with pytest.raises(FacekitError, match=rf"s\{suffix}: cannot be written \(File too large\)"):
        sign(plain, signed, kind="generated")
    assert not list(signed.parent.iterdir())


# Keys


def certificate(
    name: str,
    key: Any,
    issuer: x509.Name | None = None,
    by: Any = None,
    *,
    ends: datetime | None = None,
    begins: datetime | None = None,
    ca: bool = False,
    usage: str | None = "digital_signature",
    purposes: tuple[x509.ObjectIdentifier, ...] | None = (ExtendedKeyUsageOID.EMAIL_PROTECTION,),
    named: bool = True,
) -> x509.Certificate:
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins or now - timedelta(days=9))
        .not_valid_after(ends or now + timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if usage:
        flags = dict.fromkeys(
            (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "key_cert_sign",
                "crl_sign",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        builder = builder.add_extension(x509.KeyUsage(**flags | {usage: True}), critical=True)
    if purposes and not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    signing = by or key
    if named:
        public = signing.public_key()
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False
        )
    return builder.sign(signing, hashes.SHA256())


AUTHORITY_KEY = ec.generate_private_key(ec.SECP256R1())
AUTHORITY = certificate(
    "Example Authority", AUTHORITY_KEY, ca=True, usage="key_cert_sign", purposes=None
)


def own_chain(folder: Path, key: Any = None, **differently: Any) -> tuple[Path, Path]:
    """The files of a chain and its key, as a user has them from an authority."""
    folder.mkdir(exist_ok=True)
    key = key or ec.generate_private_key(ec.SECP256R1())
    first = certificate("Ada Example", key, AUTHORITY.subject, AUTHORITY_KEY, **differently)
    (folder / "chain.pem").write_text(keys.pem([first, AUTHORITY]))
    (folder / "authority.pem").write_text(keys.pem([AUTHORITY]))
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL
        if not isinstance(key, ed25519.Ed25519PrivateKey)
        else serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "key.pem").write_bytes(private)
    return folder / "chain.pem", folder / "key.pem"


KEYS = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
    "ED25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_chain_of_ones_own(tmp_path, home, algorithm):
    chain, key = own_chain(tmp_path / "own", KEYS[algorithm]())
    assert keys.use(chain, key).algorithm == algorithm
    signed = tmp_path / "s.jpg"
    sign(unsigned(tmp_path, ".jpg"), signed, kind="generated")
    found = verify(signed)
    assert (found.status, found.claims["signer"]) == ("untrusted", "Ada Example")
    assert "no authority in trust.pem vouches for it" in found.reason
    assert keys.trust(chain) == ["Example Authority"]  # the signer's own is passed over
    assert keys.trust(tmp_path / "own" / "authority.pem") == []
    assert verify(signed).status == "trusted"
    _, found_by_c2pa = report(signed)
    assert found_by_c2pa["signature_info"]["alg"].upper() == algorithm
    assert stat.S_IMODE((home / "signer.pem").stat().st_mode) == 0o600


@pytest.mark.parametrize("purpose", list(keys.PURPOSES))
def test_purposes_that_c2pa_allows(tmp_path, purpose):
    keys.use(*own_chain(tmp_path / "own", purposes=(x509.ObjectIdentifier(purpose),)))
    keys.trust(tmp_path / "own" / "authority.pem")
    sign(unsigned(tmp_path, ".png"), tmp_path / "s.png", kind="generated")
    assert verify(tmp_path / "s.png").status == "trusted"


NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("differently", "said"),
    [
        ({"ends": NOW - timedelta(days=2)}, r"expired on .*keys --use .*keys --new"),
        ({"begins": NOW + timedelta(days=2)}, "valid only from"),
        ({"usage": "content_commitment"}, "lacks digitalSignature"),
        ({"usage": None}, "lacks digitalSignature"),
        ({"purposes": None}, "names none of emailProtection"),
        ({"purposes": (ExtendedKeyUsageOID.SERVER_AUTH,)}, "names none of emailProtection"),
        ({"purposes": (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)}, "which C2PA forbids"),
        (
            {
                "purposes": (
                    ExtendedKeyUsageOID.EMAIL_PROTECTION,
                    ExtendedKeyUsageOID.TIME_STAMPING,
                )
            },
            "holds timeStamping, which C2PA forbids",
        ),
        ({"ca": True}, "issues no others"),
        ({"named": False}, "no authority key identifier"),
        ({"key": rsa.generate_private_key(65537, 1024)}, "RSA of 1024 bits is not allowed"),
        ({"key": ec.generate_private_key(ec.SECP256K1())}, "secp256k1 is not allowed"),
    ],
)
def test_chains_that_c2pa_does_not_allow(tmp_path, home, differently, said):
    with pytest.raises(FacekitError, match=said) as error:
        keys.use(*own_chain(tmp_path / "own", **differently))
    assert ".pem: " in str(error.value) and "\n" not in str(error.value)
    assert not home.exists()  # nothing was changed


def test_chains_and_keys_that_are_not_what_they_should_be(tmp_path, home):
    chain, key = own_chain(tmp_path / "own")
    _, other_key = own_chain(tmp_path / "other")
    bad = tmp_path / "bad.pem"

    def refused(chain: Path, key: Path, said: str) -> None:
        with pytest.raises(FacekitError, match=said):
            keys.use(chain, key)

    refused(chain, other_key, r"other/key\.pem: does not belong to .*own/chain\.pem.*Ada Example")
    refused(tmp_path / "none.pem", key, r"none\.pem: no such file")
    refused(key, key, r"key\.pem: holds no PEM certificate")
    refused(chain, chain, r"chain\.pem: holds no PEM private key")
    bad.write_text("")
    refused(bad, key, r"bad\.pem: holds no PEM certificate")
    refused(chain, bad, r"bad\.pem: holds no PEM private key")
    bad.write_text(chain.read_text()[:200])
    refused(bad, key, r"bad\.pem: not readable as PEM")
    bad.write_text(key.read_text()[:80])
    refused(chain, bad, r"bad\.pem: not readable as a PEM private key")
    first, second = x509.load_pem_x509_certificates(chain.read_bytes())
    bad.write_text(keys.pem([second, first]))
    refused(bad, key, "out of order: .*Ada Example's, must come first, not Example Authority's")
    bad.write_text(keys.pem([first, first, second]))
    refused(bad, key, "was not issued by Ada Example")
    bad.write_text(keys.pem([first, certificate("Stranger", AUTHORITY_KEY, ca=True)]))
    refused(bad, key, "was not issued by Stranger")
    alone = ec.generate_private_key(ec.SECP256R1())
    bad.write_text(keys.pem([certificate("Alone", alone)]))
    plain = serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    key.write_bytes(alone.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
    refused(bad, key, "signed by itself")
    locked = serialization.BestAvailableEncryption(b"secret")
    key.write_bytes(alone.private_bytes(serialization.Encoding.PEM, pkcs8, locked))
    refused(bad, key, "the key is encrypted; .*openssl pkey")
    strange = dsa.generate_private_key(2048)
    key.write_bytes(strange.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
    refused(bad, key, "Ed25519")
    assert not home.exists()


def test_only_authorities_can_be_trusted(tmp_path, home):
    chain, _ = own_chain(tmp_path / "own")
    first = x509.load_pem_x509_certificates(chain.read_bytes())[0]
    (tmp_path / "leaf.pem").write_text(keys.pem([first]))
    with pytest.raises(FacekitError, match="no authority's certificate, only Ada Example's own"):
        keys.trust(tmp_path / "leaf.pem")
    with pytest.raises(FacekitError, match="no such file"):
        keys.trust(tmp_path / "none.pem")
    assert keys.trusted() == ()
    home.mkdir()
    (home / "trust.pem").write_text("\n")
    assert keys.trusted() == ()


def test_private_key_is_private_and_kept(tmp_path, home):
    sign(unsigned(tmp_path, ".png"), tmp_path / "s.png", kind="generated")
    key = home / "signer.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    sign(unsigned(tmp_path, ".png"), tmp_path / "s.png", kind="generated")
    assert key.read_bytes() == before
    # What is replaced is not lost: a key cannot be made again.
    keys.use(*own_chain(tmp_path / "own"))
    old = home / "signer.old.pem"
    assert old.read_bytes() == before and stat.S_IMODE(old.stat().st_mode) == 0o600
    assert sorted(path.name for path in home.iterdir()) == ["signer.old.pem", "signer.pem"]


def test_a_signer_file_that_is_damaged_is_named(tmp_path, home):
    home.mkdir()
    for content in ("", "nonsense", keys.pem([AUTHORITY])):
        (home / "signer.pem").write_text(content)
        with pytest.raises(FacekitError, match=r"signer\.pem: holds no PEM"):
            sign(unsigned(tmp_path, ".png"), tmp_path / "s.png", kind="generated")
    assert not (tmp_path / "s.png").exists()


def test_folder_that_cannot_hold_the_key_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FACEKIT_HOME", str(tmp_path / "file"))
    with pytest.raises(FacekitError, match="FACEKIT_HOME"):
        sign(unsigned(tmp_path, ".png"), tmp_path / "s.png", kind="generated")


def _chain_of_a_process(_: int) -> bytes:
    return keys.signer().chain


def test_processes_that_start_together_agree_on_one_chain(home):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        chains = set(pool.map(_chain_of_a_process, range(6), chunksize=1))
    assert len(chains) == 1
    assert [p.name for p in home.iterdir()] == ["signer.pem"]


# Time


class Authority:
    """A timestamp authority of this very machine, by openssl; it counts who asks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, 0
        folder.mkdir()
        key = rsa.generate_private_key(65537, 2048)
        stamping = (ExtendedKeyUsageOID.TIME_STAMPING,)
        first = certificate("Clock", key, AUTHORITY.subject, AUTHORITY_KEY, purposes=stamping)
        # openssl and C2PA ask for a critical purpose.
        first = _with_critical_purpose(first)
        (folder / "tsa.pem").write_text(keys.pem([first]))
        (folder / "ca.pem").write_text(keys.pem([AUTHORITY]))
        pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        private = key.private_bytes(serialization.Encoding.PEM, pkcs8, plain)
        (folder / "tsa.key").write_bytes(private)
        (folder / "serial").write_text("01")
        (folder / "tsa.cnf").write_text(
            "[tsa]\nserial = serial\nsigner_cert = tsa.pem\nsigner_key = tsa.key\n"
            "certs = ca.pem\nsigner_digest = sha256\ndefault_policy = 1.2.3.4\n"
            "digests = sha256, sha384, sha512\naccuracy = secs:1\n"
        )

    def answer(self, query: bytes) -> bytes:
        self.asked += 1
        (self.folder / "query").write_bytes(query)
        command = "openssl ts -reply -config tsa.cnf -section tsa -queryfile query -out reply"
        subprocess.run(command.split(), cwd=self.folder, check=True, capture_output=True)
        return (self.folder / "reply").read_bytes()


def _with_critical_purpose(plain: x509.Certificate) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(plain.subject)
        .issuer_name(plain.issuer)
        .public_key(plain.public_key())
        .serial_number(plain.serial_number)
        .not_valid_before(plain.not_valid_before_utc)
        .not_valid_after(plain.not_valid_after_utc)
    )
    for extension in plain.extensions:
        critical = extension.critical or isinstance(extension.value, x509.ExtendedKeyUsage)
        builder = builder.add_extension(extension.value, critical=critical)
    return builder.sign(AUTHORITY_KEY, hashes.SHA256())


@pytest.fixture
def clock(tmp_path) -> Iterator[tuple[str, Authority]]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which serves as the timestamp authority, is not installed")
    authority = Authority(tmp_path / "tsa")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            reply = authority.answer(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", authority
        server.shutdown()
        thread.join()


def test_a_certificate_that_expired_since(tmp_path, clock):
    """Only a trusted timestamp shows that the signature is older than that."""
    url, authority = clock
    plain, stamped, bare = unsigned(tmp_path, ".png"), tmp_path / "t.png", tmp_path / "b.png"
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
    keys.use(*own_chain(tmp_path / "own", ends=ends))
    sign(plain, bare, kind="generated")
    assert authority.asked == 0
    sign(plain, stamped, kind="generated", timestamp=url)
    assert authority.asked == 1
    assert verify(stamped).claims["signed"] is None  # by a clock that nobody trusts yet
    keys.trust(tmp_path / "tsa" / "ca.pem")
    assert verify(bare).status == verify(stamped).status == "trusted"
    assert verify(bare).claims["signed"] is None
    signed = datetime.fromisoformat(verify(stamped).claims["signed"])
    assert abs((signed - datetime.now(UTC)).total_seconds()) < 10

    time.sleep(max(0.0, (ends - datetime.now(UTC)).total_seconds()) + 1.1)
    assert verify(stamped).status == "trusted"
    found = verify(bare)
    assert found.status == "untrusted"
    assert f"expired on {ends:%Y-%m-%d}, and no trusted timestamp" in found.reason
    with pytest.raises(FacekitError, match=r"signer\.pem: Ada Example's certificate expired on"):
        sign(plain, tmp_path / "late.png", kind="generated")
    assert not (tmp_path / "late.png").exists()
    keys.make()
    sign(plain, tmp_path / "late.png", kind="generated")
    (tmp_path / "home" / "trust.pem").unlink()
    assert "expired on" in verify(bare).reason


def test_a_timestamp_that_was_changed_or_exchanged(tmp_path, clock):
    """It lies outside of what is signed: a doubt, not tampering; but none passes unseen."""
    url, _ = clock
    keys.use(*own_chain(tmp_path / "own"))
    keys.trust(tmp_path / "tsa" / "ca.pem")
    one = tmp_path / "1.png"
    sign(unsigned(tmp_path, ".png"), one, kind="generated", timestamp=url)
    assert verify(one).status == "trusted"
    first = one.read_bytes()
    # RFC 5652 and 3161: how a token begins, and what stands before the hash that was stamped.
    start = first.index(bytes.fromhex("06092a864886f70d010702"))
    size = int.from_bytes(first[start - 2 : start], "big")
    sha256 = bytes.fromhex("0609608648016503040201")
    content = first.index(bytes.fromhex("060b2a864886f70d0109100104"), start)
    other = bytearray(first)
    other[first.index(sha256, content) + 20] ^= 1
    cases = {
        "bad message digest": bytes(other),
        "could not parse": first[:start] + bytes(size) + first[start + size :],
    }
    for said, content in cases.items():
        one.write_bytes(content)
        found = verify(one)
        assert found.status == "untrusted" and found.claims["signed"] is None
        assert "its timestamp is not one of this signature, or was changed since" in found.reason
        assert said in found.reason
    one.write_bytes(first.replace(b"sigTst2", b"sigTsu2"))  # taken out: nothing is shown by it
    assert verify(one).claims["signed"] is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://clock.invalid/"])
def test_a_timestamp_authority_that_does_not_answer(tmp_path, url):
    with pytest.raises(FacekitError, match=rf"the timestamp authority {url} gave no valid answer"):
        sign(unsigned(tmp_path, ".png"), tmp_path / "s.png", kind="generated", timestamp=url)
    assert not (tmp_path / "s.png").exists()


@pytest.mark.parametrize("url", ["", "clock", "ftp://clock.example/", "http://", "http://[1"])
def test_a_timestamp_authority_is_a_url(tmp_path, url):
    with pytest.raises(FacekitError, match=r"give its URL, http:// or https://"):
        sign(unsigned(tmp_path, ".png"), tmp_path / "s.png", kind="generated", timestamp=url)
    assert not (tmp_path / "s.png").exists()


# Mark and manifest


def mark(kind: str | None = "generated", payload: str | None = MARK, id: int = 42) -> dict:
    return {"present": True, "payload": payload, "kind": kind, "id": id}


@pytest.mark.parametrize(
    ("status", "claimed", "read", "expected", "said"),
    [
        ("untrusted", MARK, mark(), "agrees", "generated, id 00000000002a"),
        ("trusted", MARK, mark("composite", "0102" + "0" * 12, 0), "differs", "says composite:"),
        ("trusted", MARK, mark(None, None), "weak", "too weak to tell"),
        ("trusted", MARK, {"present": False}, "lost", "is not found"),
        ("trusted", None, mark(), "unclaimed", "names no mark, but there is one"),
        ("absent", None, mark(), "unclaimed", "manifest is missing, and the mark says generated"),
        ("absent", None, mark("test-real"), "unclaimed", "evidence of nothing"),
        ("absent", None, {"present": False}, "none", "no mark"),
        ("tampered", MARK, None, "unread", "could not be read"),
    ],
)
def test_how_mark_and_manifest_go_together(status, claimed, read, expected, said):
    found = compare(Provenance(status, "", {"mark": claimed} if claimed else {}), read)
    assert found.status == expected and said in found.text


# The command


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["provenance", *map(str, words)])
    if isinstance(result.exception, FacekitError):
        return 1, f"facekit: {result.exception}"
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, result.output


def marked(folder: Path, payload: Payload, name: str = "marked.png") -> Path:
    path = folder / name
    write_image(path, watermark.embed(data.astronaut()[:320, :320], payload))
    return path


def hexadecimal(payload: Payload) -> str:
    return f"{payload.to_int():016x}"


def test_verify_says_what_and_why_and_exits_by_it(tmp_path):
    payload, other = Payload(Kind.COMPOSITE, 42), Payload(Kind.GENERATED, 7)
    plain = marked(tmp_path, payload)
    clip = tmp_path / "clip.bin"
    clip.write_bytes(b"abc")
    good, wrong = tmp_path / "good.png", tmp_path / "wrong.png"
    about = {"kind": "composite", "inputs": [clip], "consent": ["abc"]}
    sign(plain, good, mark=hexadecimal(payload), **about)
    sign(plain, wrong, mark=hexadecimal(other), **about)

    code, said = run("verify", good)
    assert code == 10
    for words in (
        "good.png: valid but untrusted: intact, signed by facekit local test chain",
        "composite (created, placed, edited, watermarked.bound), written by facekit",
        f"clip.bin (a part), SHA-256 {ABC}, without a manifest",
        f"a record whose id has the SHA-256 {ABC}, not in this ledger",
        "the mark is the one that the manifest names; it says composite, id 00000000002a",
    ):
        assert words in said
    code, said = run("verify", wrong)
    assert code == 30
    assert hexadecimal(other) in said and hexadecimal(payload) in said
    assert "do not belong together" in said

    # Another program wrote the picture anew: the manifest is gone, the mark is not.
    write_image(tmp_path / "again.jpg", read_image(good))
    code, said = run("verify", tmp_path / "again.jpg")
    assert code == 20
    assert "no manifest" in said
    assert "manifest is missing, and the mark says composite, id 00000000002a" in said

    content = bytearray(good.read_bytes())
    content[content.index(hexadecimal(payload).encode())] ^= 1
    (tmp_path / "bad.png").write_bytes(content)
    code, said = run("verify", tmp_path / "bad.png")
    assert code == 30 and "TAMPERED: what the manifest says was changed" in said
    assert "not to be believed" in said
    assert not (tmp_path / "home" / "consent").exists()  # to look makes no ledger

    assert run("keys", "--trust", tmp_path / "home" / "signer.pem")[0] == 0
    code, said = run("verify", good)
    assert code == 0 and "valid and trusted" in said


def test_verify_many_files_as_json(tmp_path):
    sign(unsigned(tmp_path, ".png"), tmp_path / "s.png", kind="generated", mark=MARK)
    code, said = run("verify", tmp_path / "s.png", tmp_path / "plain.png", "--json")
    rows = json.loads(said)
    assert code == 20
    assert [row["status"] for row in rows] == ["untrusted", "absent"]
    assert rows[0]["claims"]["kind"] == "generated"
    assert rows[0]["binding"]["status"] == "lost"  # it was never embedded
    (tmp_path / "text.txt").write_text("hello")
    code, said = run("verify", tmp_path / "text.txt", "--json")
    assert code == 20 and json.loads(said)[0]["binding"]["status"] == "unread"
    code, said = run("verify", tmp_path / "none.png", tmp_path / "s.png")
    assert code == 1
    assert "facekit: " in said and "none.png" in said and "s.png: valid" in said


def test_names_cannot_pass_for_lines_of_the_report(tmp_path):
    given = unsigned(tmp_path, ".png").rename(tmp_path / "a\n  signed   at noon\x1b[8m[red].png")
    sign(given, tmp_path / "s.png", kind="composite", inputs=[given])
    code, said = run("verify", tmp_path / "s.png")
    assert code == 10 and "\x1b" not in said
    (line,) = (line for line in said.splitlines() if "at noon" in line)
    assert line.startswith("  input    a\ufffd  signed") and "[red].png (a part)" in line


def test_verify_knows_the_records_of_its_own_ledger(tmp_path):
    photo, form = unsigned(tmp_path, ".png"), tmp_path / "form.txt"
    form.write_text("signed")
    grant = (
        f"consent grant --subject p1 --photos {photo} --scope generate --purpose test "
        f"--expires {datetime.now(UTC) + timedelta(days=9):%Y-%m-%d} --adult --evidence {form}"
    )
    result = CliRunner().invoke(cli, [*grant.split(), "--json"])
    assert result.exit_code == 0, result.output
    id = json.loads(result.output)["id"]
    sign(photo, tmp_path / "s.png", kind="composite", consent=[id])
    code, said = run("verify", tmp_path / "s.png")
    assert code == 10 and f"{id}, valid in this ledger" in said
    assert CliRunner().invoke(cli, ["consent", "revoke", id, "--reason", "asked"]).exit_code == 0
    (row,) = json.loads(run("verify", tmp_path / "s.png", "--json")[1])
    digest = manifest.consent_hash(id)
    assert row["consent"] == [{"sha256": digest, "id": id, "status": "revoked"}]
    assert id.encode() not in (tmp_path / "s.png").read_bytes()


def test_sign_names_the_mark_and_claims_nothing(tmp_path):
    payload = Payload(Kind.GENERATED, 42)
    plain, signed = marked(tmp_path, payload), tmp_path / "signed.png"
    code, said = run("sign", plain, signed)
    assert code == 0 and "not how it was made (opened, published)" in said
    claims = verify(signed).claims
    assert (claims["kind"], claims["mark"]) == (None, hexadecimal(payload))
    assert run("verify", signed)[0] == 10

    bare = unsigned(tmp_path, ".jpg")
    code, said = run("sign", bare, tmp_path / "own.jpg", "--json")
    (row,) = json.loads(said)
    assert row["claims"]["mark"] is None and row["binding"]["status"] == "none"


def test_sign_refuses_what_it_cannot_do(tmp_path):
    plain = unsigned(tmp_path, ".png")
    for words, expected in (
        (("sign", plain, tmp_path / "s.bmp"), "cannot be put into"),
        (("sign", tmp_path / "none.png", tmp_path / "s.png"), "none.png"),
        (("sign", plain, tmp_path / "s.png", "--timestamp", "http://127.0.0.1:9"), "timestamp"),
    ):
        code, said = run(*words)
        assert code == 1 and expected in said
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["plain.png"]


def test_keys_shows_and_changes_who_signs(tmp_path, home):
    code, said = run("keys")
    assert code == 0 and "none yet" in said and "trusted: nobody" in said
    assert not home.exists()  # to look makes nothing
    assert json.loads(run("keys", "--json")[1]) == {"signer": None, "trusted": []}

    code, said = run("keys", "--new")
    assert code == 0 and "facekit local test signer" in said and "not who signed" in said
    chain, key = own_chain(tmp_path / "own")
    code, said = run("keys", "--use", chain, key)
    assert code == 0 and "signer: Ada Example, ES256, valid until" in said
    assert "issued by Example Authority" in said
    code, said = run("keys", "--trust", tmp_path / "own" / "authority.pem")
    assert code == 0 and "newly trusted: Example Authority" in said
    code, said = run("keys", "--show", "--json")
    shown = json.loads(said)
    assert shown["trusted"] == ["Example Authority"]
    assert (shown["signer"]["signer"], shown["signer"]["local"]) == ("Ada Example", False)
    assert shown["signer"]["certificates"] == chain.read_text()
    assert "PRIVATE" not in said
    code, said = run("keys", "--use", chain, tmp_path / "none.pem")
    assert code == 1 and "none.pem: no such file" in said
    assert run("keys", "--new", "--show")[0] == 2
