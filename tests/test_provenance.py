import multiprocessing
import stat
import zlib
from pathlib import Path

import c2pa
import numpy as np
import pytest
from skimage import data

from facekit.core.errors import FacekitError
from facekit.media.encode import write_video
from facekit.media.images import read_image, write_image
from facekit.provenance import keys, sign, verify
from facekit.types import Frame


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    monkeypatch.setenv("FACEKIT_HOME", str(folder))
    return folder


def unsigned(folder: Path, suffix: str) -> Path:
    path = folder / f"plain{suffix}"
    if suffix == ".mp4":
        frames = (Frame(data.astronaut()[i : i + 64, :64], i / 25, i) for i in range(5))
        write_video(path, frames)
    else:
        write_image(path, data.astronaut()[:96, :96])
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".mp4"])
def test_signed_file_says_what_it_is_and_by_whom(tmp_path, suffix, capfd):
    plain = unsigned(tmp_path, suffix)
    source = tmp_path / "input.bin"
    source.write_bytes(b"abc")
    signed = tmp_path / f"signed{suffix}"
    facts = {"origin": "studio", "seed": 3, "people": ["a", "ä"]}
    sign(plain, signed, kind="composite", inputs=[source], facts=facts, mark="0102000000000007")

    found = verify(signed)
    assert found.status == "untrusted"
    assert "local test chain" in found.reason
    assert found.claims["kind"] == "composite"
    assert found.claims["source_type"] == "compositeWithTrainedAlgorithmicMedia"
    assert found.claims["facts"] == facts
    assert found.claims["mark"] == "0102000000000007"
    assert found.claims["inputs"][0]["name"] == "input.bin"
    assert found.claims["inputs"][0]["sha256"].startswith("ba7816bf8f01cfea")  # FIPS 180-2's "abc"
    assert signed.stat().st_size - plain.stat().st_size < 12_000  # no thumbnail
    assert capfd.readouterr() == ("", "")


def test_generated_media_get_their_source_type(tmp_path):
    sign(unsigned(tmp_path, ".png"), tmp_path / "s.png", kind="generated")
    assert verify(tmp_path / "s.png").claims["source_type"] == "trainedAlgorithmicMedia"


def test_signing_changes_no_pixel(tmp_path):
    plain = unsigned(tmp_path, ".png")
    sign(plain, tmp_path / "signed.png", kind="generated")
    assert np.array_equal(read_image(plain), read_image(tmp_path / "signed.png"))


def test_file_without_manifest_is_absent(tmp_path):
    for suffix in (".png", ".jpg", ".webp", ".mp4"):
        assert verify(unsigned(tmp_path, suffix)).status == "absent"
    (tmp_path / "text.txt").write_text("hello")
    assert verify(tmp_path / "text.txt").status == "absent"


def test_signature_under_a_named_authority_is_trusted(tmp_path, home):
    signed = tmp_path / "s.png"
    sign(unsigned(tmp_path, ".png"), signed, kind="generated")
    chain = (home / "signer.pem").read_text()
    authority = chain[chain.rindex("-----BEGIN") :]
    (home / "trust.pem").write_text(authority)
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


def test_changed_pixels_are_tampering(tmp_path):
    signed = tmp_path / "s.png"
    sign(unsigned(tmp_path, ".png"), signed, kind="generated")
    other = tmp_path / "other.png"
    write_image(other, data.chelsea()[:96, :96])
    pixels = [body for name, body in png_chunks(other.read_bytes()) if name == b"IDAT"]
    kept = [c for c in png_chunks(signed.read_bytes()) if c[0] != b"IDAT"]
    signed.write_bytes(png([*kept[:-1], *((b"IDAT", p) for p in pixels), kept[-1]]))
    found = verify(signed)
    assert found.status == "tampered"
    assert "changed after signing" in found.reason


def test_manifest_copied_to_another_picture_is_tampering(tmp_path):
    signed = tmp_path / "s.png"
    sign(unsigned(tmp_path, ".png"), signed, kind="generated")
    box = next(c for c in png_chunks(signed.read_bytes()) if c[0] == b"caBX")
    other = tmp_path / "other.png"
    write_image(other, data.chelsea()[:96, :96])
    first, *rest = png_chunks(other.read_bytes())
    other.write_bytes(png([first, box, *rest]))
    assert verify(other).status == "tampered"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".mp4"])
def test_one_changed_bit_of_media_or_claim_is_tampering(tmp_path, suffix):
    plain = unsigned(tmp_path, suffix)
    signed = tmp_path / f"s{suffix}"
    sign(plain, signed, kind="generated", facts={"origin": "studio"})
    content = signed.read_bytes()
    middle = plain.stat().st_size // 2
    media = plain.read_bytes()[middle : middle + 32]
    for part in (media, b"trainedAlgorithmicMedia", b"studio"):
        assert content.count(part) == 1
        changed = bytearray(content)
        changed[content.index(part)] ^= 1
        broken = tmp_path / f"b{suffix}"
        broken.write_bytes(changed)
        assert verify(broken).status == "tampered"


def test_truncated_and_empty_files(tmp_path):
    signed = tmp_path / "s.jpg"
    sign(unsigned(tmp_path, ".jpg"), signed, kind="generated")
    content = signed.read_bytes()
    signed.write_bytes(content[: len(content) // 2])
    assert verify(signed).status in ("tampered", "absent")
    signed.write_bytes(b"")
    with pytest.raises(FacekitError, match=r"s\.jpg: empty"):
        verify(signed)
    with pytest.raises(FacekitError, match=r"none\.jpg"):
        verify(tmp_path / "none.jpg")


def test_kind_and_suffix_are_checked(tmp_path):
    plain = unsigned(tmp_path, ".png")
    with pytest.raises(FacekitError, match="test-real"):
        sign(plain, tmp_path / "s.png", kind="test-real")
    with pytest.raises(FacekitError, match=r"allowed: \.jpeg"):
        sign(plain, tmp_path / "s.bmp", kind="generated")
    with pytest.raises(FacekitError, match=r"s\.png"):
        sign(tmp_path / "none.png", tmp_path / "s.png", kind="generated")
    (tmp_path / "fake.png").write_text("not a picture")
    with pytest.raises(FacekitError, match=r"s\.png: cannot be signed"):
        sign(tmp_path / "fake.png", tmp_path / "s.png", kind="generated")
    assert not (tmp_path / "s.png").exists()


def test_private_key_is_private_and_kept(tmp_path, home):
    sign(unsigned(tmp_path, ".png"), tmp_path / "s.png", kind="generated")
    key = home / "signer.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    sign(unsigned(tmp_path, ".png"), tmp_path / "s.png", kind="generated")
    assert key.read_bytes() == before


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


def test_signature_of_the_c2pa_library_is_asked_without_facekit(tmp_path):
    """The library's own reader, with its default settings, sees a valid manifest."""
    sign(unsigned(tmp_path, ".jpg"), tmp_path / "s.jpg", kind="generated")
    with c2pa.Reader(str(tmp_path / "s.jpg")) as reader:
        assert reader.get_validation_state() == "Valid"
        assert reader.is_embedded()
