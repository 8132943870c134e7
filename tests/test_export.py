import errno
import hashlib
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from skimage import data

from facekit import export, watermark
from facekit.commands import generator, generator_convert
from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.media import images, stretches
from facekit.media.decode import Video, probe
from facekit.media.encode import write_video as plain_video
from facekit.media.images import read_image
from facekit.provenance import manifest, verify
from facekit.provenance.ledger import Ledger
from facekit.types import Frame, Pixels
from facekit.watermark import Kind, Payload


@pytest.fixture(autouse=True)
def out(tmp_path, monkeypatch):
    monkeypatch.setenv("FACEKIT_HOME", str(tmp_path / "home"))
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@lru_cache
def chelsea() -> Pixels:
    return data.chelsea()[:, 60:360]


def picture(size: int = 256) -> Pixels:
    return cv2.resize(chelsea(), (size, size), interpolation=cv2.INTER_AREA)


def clip(count: int = 12, size: int = 256) -> list[Frame]:
    first = picture(size)
    return [Frame(np.roll(first, 2 * i, axis=1), i / 25, i) for i in range(count)]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_picture_leaves_marked_and_signed(out, suffix, capfd):
    path = out / f"face{suffix}"
    made = export.write_image(
        path, picture(), kind=Kind.GENERATED, facts={"origin": "studio"}, id=42
    )
    assert made.path == path
    assert watermark.read_file(path) == made.reading
    assert made.reading.payload == Payload(Kind.GENERATED, 42)
    assert made.reading.p_value < 1e-12
    assert verify(path) == made.provenance
    assert made.provenance.status == "untrusted"
    assert made.provenance.claims["facts"] == {"origin": "studio"}
    assert made.provenance.claims["mark"] == f"{Payload(Kind.GENERATED, 42).to_int():016x}"
    assert [p.name for p in out.iterdir()] == [path.name]
    assert capfd.readouterr() == ("", "")


def test_video_leaves_marked_badged_and_signed(out):
    source = out / "source.mp4"
    plain_video(source, clip())
    path = out / "swap.mp4"
    made = export.write_video(path, iter(clip()), kind=Kind.COMPOSITE, inputs=[source])
    assert made.reading.payload == Payload(Kind.COMPOSITE, 0)
    assert made.reading.p_value < 1e-12
    assert made.provenance.claims["source_type"] == "compositeWithTrainedAlgorithmicMedia"
    assert [i["name"] for i in made.provenance.claims["inputs"]] == ["source.mp4"]
    assert sorted(p.name for p in out.iterdir()) == ["source.mp4", "swap.mp4"]

    with Video(path) as video:
        frames = list(video)
    assert [f.time for f in frames] == pytest.approx([f.time for f in clip()], abs=1e-3)
    for written, given in zip(frames, clip(), strict=True):
        change = np.abs(written.pixels.astype(int) - given.pixels).max(axis=2)
        assert change[-12:, 4:60].max() > 60  # the badge
        assert np.percentile(change[:128], 99) < 25  # the picture


@pytest.mark.parametrize("corner", export.CORNERS)
@pytest.mark.parametrize("size", [64, 128, 256, 720, 1080])
def test_badge_is_small_legible_and_in_its_corner(size, corner):
    grey = np.full((size, size * 16 // 9, 3), 128, np.uint8)
    badged = export.with_badge(grey, corner)
    if corner.startswith("top"):
        placed = badged[: size // 3]
        edge = 0
    else:
        placed = badged[-(size // 3) :]
        edge = len(placed) - 1
    rows, columns = np.nonzero((placed != 128).any(axis=2))
    assert np.count_nonzero((badged != 128).any(axis=2)) == len(rows)  # nothing elsewhere
    assert 0.02 * size < np.ptp(rows) < max(0.15 * size, 20)
    assert np.ptp(columns) < max(0.35 * size, 60)
    assert np.abs(rows - edge).min() < max(0.03 * size, 3)
    side = 0 if corner.endswith("left") else grey.shape[1] - 1
    assert np.abs(columns - side).min() < max(0.03 * size, 3)
    assert badged.max() > 200  # letters
    assert badged.min() < 60  # on a plate
    assert (grey == 128).all()


def test_badge_can_be_moved(out):
    """What lies in the four corners of a grey picture and video tells which one has the badge."""
    grey = np.full((192, 256, 3), 128, np.uint8)
    frames = [Frame(grey, i / 25, i) for i in range(3)]

    def dark(pixels: Pixels) -> str:
        quarters = {
            "top-left": pixels[:30, :100],
            "top-right": pixels[:30, -100:],
            "bottom-left": pixels[-30:, :100],
            "bottom-right": pixels[-30:, -100:],
        }
        (corner,) = (name for name, part in quarters.items() if part.min() < 70)
        return corner

    for corner in export.CORNERS:
        export.write_image(out / "a.png", grey, kind=Kind.GENERATED, badge=corner)
        assert dark(read_image(out / "a.png")) == corner
    export.write_video(out / "a.mp4", frames, kind=Kind.GENERATED, badge="top-right")
    with Video(out / "a.mp4") as video:
        assert {dark(frame.pixels) for frame in video} == {"top-right"}
    export.write_image(out / "a.png", grey, kind=Kind.GENERATED)
    assert dark(read_image(out / "a.png")) == "bottom-left"
    for corner in ("middle", "", "none"):
        for write, media in ((export.write_image, grey), (export.write_video, frames)):
            name = out / ("b.png" if media is grey else "b.mp4")
            with pytest.raises(FacekitError, match=r"corner.*allowed: top-left"):
                write(name, media, kind=Kind.GENERATED, badge=corner)
            assert not name.exists()


@pytest.mark.parametrize("given", [[], ["--badge", "top-right"]])
def test_the_command_hands_the_corner_on(out, monkeypatch, given):
    asked = {}

    def convert(*_, **options):
        asked.update(options)
        raise FacekitError("enough")

    monkeypatch.setattr(generator_convert, "convert_file", convert)
    words = ["run", str(out), "--input", "a.png", "--out", "b.png", "--source", "person-0000"]
    CliRunner().invoke(generator.command, [*words, *given])
    assert asked["badge"] == (given[1] if given else "bottom-left")


# --- stills of datasets ---------------------------------------------------------------------------


@pytest.mark.parametrize("declared", ["manifest.jsonl", "inputs.jsonl"])
def test_a_still_of_a_dataset_leaves_without_badge_but_marked_and_signed(out, declared):
    (out / declared).write_text("")
    for path in (out / "a.png", out / "crops" / "b.png"):
        made = export.write_image(path, picture(), kind=Kind.GENERATED, badge=None)
        assert made.reading.payload == Payload(Kind.GENERATED, 0)
        assert verify(path).claims["kind"] == "generated"
        change = read_image(path).astype(int) - picture()
        assert np.abs(change).max() < 40, "the mark alone"
    # Asked for, it has one there too; a preview has no row in the manifest.
    export.write_image(out / "preview.png", picture(), kind=Kind.GENERATED)
    assert np.abs(read_image(out / "preview.png").astype(int) - picture()).max() > 60


def test_nothing_else_leaves_without_badge(out):
    (out / "far" / "away" / "deep").mkdir(parents=True)
    for path in (out / "a.png", out / "far" / "away" / "deep" / "b.png"):
        with pytest.raises(FacekitError, match=r"only a still inside a dataset folder"):
            export.write_image(path, picture(), kind=Kind.GENERATED, badge=None)
        (out / "manifest.jsonl").write_text("")  # too far up for the second
    with pytest.raises(FacekitError, match="no corner 'None'"):
        export.write_video(out / "a.mp4", clip(3), kind=Kind.GENERATED, badge=None)
    assert not [p for p in out.rglob("*") if p.is_file() and p.name != "manifest.jsonl"]


# --- consent --------------------------------------------------------------------------------------


@pytest.fixture
def ledger():
    return Ledger()


def grant(ledger: Ledger, subject: str) -> str:
    record = ledger.grant(
        subjects=[subject],
        photos={"ab" * 32: [subject]},
        scope=["generate"],
        purpose="a test",
        expires=datetime.now(UTC) + timedelta(days=9),
        adult=True,
        evidence="cd" * 32,
    )
    return record.id


def test_a_file_is_entered_in_the_ledger_of_those_who_consented(out, ledger):
    anna, ben = grant(ledger, "anna"), grant(ledger, "ben")
    made = export.write_image(
        out / "a.png", picture(), kind=Kind.COMPOSITE, consent=[anna, ben], id=7
    )
    export.write_video(out / "b.mp4", clip(4), kind=Kind.COMPOSITE, consent=[ben])
    (of_anna,), of_ben = ledger.affected(anna), ledger.affected(ben)
    assert [use.path for use in of_ben] == [out / "a.png", out / "b.mp4"]
    for use in of_ben:
        assert (use.what, use.sha256) == ("file", files.sha256(use.path))
    assert of_anna.path == made.path
    hashes = {hashlib.sha256(id.encode()).hexdigest() for id in (anna, ben)}
    assert set(made.provenance.claims["consent"]) == hashes
    assert made.provenance.claims["facts"] == {"ledger": ledger.head()}
    content = made.path.read_bytes()
    assert anna.encode() not in content and ben.encode() not in content


def test_without_consent_ids_there_is_no_ledger(out, ledger):
    export.write_image(out / "a.png", picture(), kind=Kind.GENERATED)
    assert not ledger.folder.exists()


def test_consent_that_does_not_hold_leaves_no_file(out, ledger):
    anna = grant(ledger, "anna")
    with pytest.raises(FacekitError, match="c-000000000000"):
        export.write_image(
            out / "a.png", picture(), kind=Kind.GENERATED, consent=["c-000000000000"]
        )

    def frames():
        yield from clip(4)
        ledger.revoke(anna, "changed her mind")  # while the video is being made

    with pytest.raises(FacekitError, match=rf"a\.mp4: not written, because {anna}.* revoked"):
        export.write_video(out / "a.mp4", frames(), kind=Kind.COMPOSITE, consent=[anna])
    assert not list(out.iterdir())
    assert ledger.affected(anna) == []


def test_the_ledger_is_asked_and_told_in_one_step(out, ledger, monkeypatch):
    """Between a question and an entry of their own, a revocation could slip in."""
    anna = grant(ledger, "anna")
    used, asked = Ledger.used, []

    def revoked_first(self, ids, **words):
        asked.append(words["valid"])
        ledger.revoke(anna, "at the last moment")
        used(self, ids, **words)

    monkeypatch.setattr(Ledger, "used", revoked_first)
    with pytest.raises(FacekitError, match=rf"not written, because {anna}.*at the last moment"):
        export.write_image(out / "a.png", picture(), kind=Kind.GENERATED, consent=[anna])
    assert asked == [True]
    assert not list(out.iterdir()) and ledger.affected(anna) == []


def test_a_kill_at_the_entry_leaves_nothing_after_the_next_export(out, ledger):
    """The finished file, which no ledger knows, goes with the next export to the folder."""
    anna = grant(ledger, "anna")
    code = (
        "import os, signal\n"
        "from facekit.provenance.ledger import Ledger\n"
        "Ledger.used = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from pathlib import Path; from facekit import export; from skimage import data\n"
        f"export.write_image(Path({str(out / 'a.png')!r}), data.chelsea(), "
        f"kind=export.Kind.GENERATED, consent=[{anna!r}])"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = out / ".export-a.png" / "a.png"
    assert verify(left).status == "untrusted", "what the sweep is for"
    export.write_image(out / "b.png", picture(), kind=Kind.GENERATED)
    assert [p.name for p in out.iterdir()] == ["b.png"]
    assert ledger.affected(anna) == []


def test_a_ledger_that_cannot_be_written_leaves_no_file(out, ledger, monkeypatch):
    anna = grant(ledger, "anna")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Ledger, "used", full)
    with pytest.raises(FacekitError, match=r"a\.png: cannot be written .No space"):
        export.write_image(out / "a.png", picture(), kind=Kind.GENERATED, consent=[anna])
    assert not list(out.iterdir())


def test_small_picture_leaves_with_presence_and_manifest(out):
    made = export.write_image(out / "s.png", picture(64), kind=Kind.GENERATED)
    assert made.reading.present
    assert made.provenance.claims["kind"] == "generated"


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_small_busy_video_leaves_with_its_payload(out, name):
    """Compressed as larger ones are, these lose their mark."""
    whole = getattr(data, name)()[:400, :400]
    small = cv2.resize(whole, (128, 128), interpolation=cv2.INTER_AREA)
    frames = [Frame(np.roll(small, 2 * i, axis=1), i / 25, i) for i in range(8)]
    made = export.write_video(out / "a.mp4", frames, kind=Kind.GENERATED)
    assert made.reading.payload == Payload(Kind.GENERATED, 0)


def test_flat_pictures_leave(out):
    for level in (0, 128, 255):
        flat = np.full((256, 256, 3), level, np.uint8)
        made = export.write_image(out / "flat.png", flat, kind=Kind.GENERATED)
        assert made.reading.payload == Payload(Kind.GENERATED, 0)


def test_odd_and_wide_video(out):
    frames = [Frame(cv2.resize(f.pixels, (401, 257)), f.time, f.index) for f in clip(6)]
    made = export.write_video(out / "odd.mp4", frames, kind=Kind.GENERATED)
    assert made.reading.payload == Payload(Kind.GENERATED, 0)
    assert probe(out / "odd.mp4").width == 402


def test_no_real_picture_leaves_here(out):
    with pytest.raises(FacekitError, match=r"test-real.*allowed: generated, composite, studio"):
        export.write_image(out / "a.png", picture(), kind=Kind.TEST_REAL)
    with pytest.raises(FacekitError, match="test-real"):
        export.write_video(out / "a.mp4", clip(), kind=Kind.TEST_REAL)
    assert not list(out.iterdir())


def test_a_studio_picture_says_what_it_is(out):
    made = export.write_image(out / "a.png", picture(), kind=Kind.STUDIO)
    assert made.reading.kind == made.provenance.claims["kind"] == "studio"


def test_sizes_and_suffixes_are_checked(out):
    with pytest.raises(FacekitError, match="40x40 is too small"):
        export.write_image(out / "a.png", picture(40), kind=Kind.GENERATED)
    with pytest.raises(FacekitError, match="64x64 is too small"):
        export.write_video(out / "a.mp4", clip(3, 64), kind=Kind.GENERATED)
    with pytest.raises(FacekitError, match="holds no manifest"):
        export.write_image(out / "a.bmp", picture(), kind=Kind.GENERATED)
    with pytest.raises(FacekitError, match="holds no manifest"):
        export.write_video(out / "a.mkv", clip(), kind=Kind.GENERATED)
    with pytest.raises(FacekitError, match="no frames"):
        export.write_video(out / "a.mp4", [], kind=Kind.GENERATED)
    with pytest.raises(FacekitError, match="mark id"):
        export.write_image(out / "a.png", picture(), kind=Kind.GENERATED, id=1 << 48)
    assert not list(out.iterdir())


# --- failure to mark is failure to write ----------------------------------------------------------


def both(out, message: str) -> None:
    """Neither a picture nor a video may appear, and what was there before must stay."""
    for name in ("a.png", "a.mp4"):
        (out / name).write_bytes(b"before")
        with pytest.raises(FacekitError, match=message) as raised:
            if name.endswith("png"):
                export.write_image(out / name, picture(), kind=Kind.GENERATED)
            else:
                export.write_video(out / name, clip(4), kind=Kind.GENERATED)
        assert "\n" not in str(raised.value)
        assert ".export-" not in str(raised.value)
        assert (out / name).read_bytes() == b"before"
    assert sorted(p.name for p in out.iterdir()) == ["a.mp4", "a.png"]


def test_mark_that_was_not_embedded(out, monkeypatch):
    monkeypatch.setattr(watermark, "embed", lambda pixels, payload, **_: pixels)
    both(out, "mark could not be read back")


def test_mark_of_another_payload(out, monkeypatch):
    embed = watermark.embed
    monkeypatch.setattr(
        watermark, "embed", lambda p, _, **how: embed(p, Payload(Kind.GENERATED, 1), **how)
    )
    both(out, "mark could not be read back")


def test_mark_with_another_key(out, monkeypatch):
    embed = watermark.embed
    monkeypatch.setattr(
        watermark, "embed", lambda p, payload, **how: embed(p, payload, b"x" * 16, **how)
    )
    both(out, "mark could not be read back")


def test_signer_that_only_copies(out, monkeypatch):
    def copy(path_in, path_out, **_):
        path_out.write_bytes(path_in.read_bytes())

    monkeypatch.setattr(manifest, "sign", copy)
    both(out, "manifest does not verify.*no C2PA manifest")


@pytest.mark.parametrize("other", [{"kind": "studio"}, {"mark": f"{1:016x}"}, {"mark": None}])
def test_signer_that_says_something_else(out, monkeypatch, other):
    sign = manifest.sign
    monkeypatch.setattr(manifest, "sign", lambda *paths, **asked: sign(*paths, **asked | other))
    both(out, "its manifest says")


def test_signer_whose_file_is_changed_afterwards(out, monkeypatch):
    sign = manifest.sign

    def spoil(path_in, path_out, **facts):
        sign(path_in, path_out, **facts)
        content = bytearray(path_out.read_bytes())
        content[content.index(b"trainedAlgorithmicMedia")] ^= 1
        path_out.write_bytes(content)

    monkeypatch.setattr(manifest, "sign", spoil)
    # Pillow stops at the PNG's own checksum, before the manifest is looked at.
    both(out, "manifest does not verify|not a picture")


def test_signer_without_a_key(out, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FACEKIT_HOME", str(tmp_path / "file"))
    both(out, "signing key cannot be kept")


def test_disk_that_fills(out, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(images, "write_image", full)
    monkeypatch.setattr(export.encode, "write_video", full)
    both(out, "No space left")
    monkeypatch.undo()
    monkeypatch.setattr(manifest, "sign", full)
    both(out, "No space left")


_FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from facekit import export
from facekit.core.errors import FacekitError
from facekit.types import Frame
noise = np.random.default_rng(0).integers(60, 190, (128, 128, 3), dtype=np.uint8)
frames = [Frame(np.roll(noise, i, axis=1), i / 25, i) for i in range(4)]
export._checked = lambda path, payload: export.Exported(path, None, None)  # noise holds no mark
def write(path):
    if path.suffix == ".mp4":
        return export.write_video(path, frames, kind=export.Kind.GENERATED)
    return export.write_image(path, noise, kind=export.Kind.GENERATED)
def set_limit(most):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
for path in map(Path, sys.argv[1:]):
    write(path)
    size = path.stat().st_size
    # The signed file is some 14 kB longer than the marked one: the last two fail while signing.
    for limit in (0, 1000, size - 8000, size - 1000):
        path.unlink(missing_ok=True)
        set_limit(limit)
        try:
            write(path)
        except FacekitError as error:
            said = str(error)
        else:
            said = "written"
        set_limit(resource.RLIM_INFINITY)
        print(f"{path}|{limit}|{said}")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX's")
def test_a_file_that_may_not_grow_further(out):
    """As on a full disk, writes fail half-way: the encoder's, the muxer's, the signer's."""
    paths = [str(out / name) for name in ("a.png", "a.jpg", "a.webp", "a.mp4")]
    words = [sys.executable, "-c", _FULL, *paths]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 16
    for line in lines:
        path, _, said = line.split("|")
        assert said.startswith(f"{path}: cannot be "), line
    assert not list(out.iterdir())


@pytest.mark.parametrize("end", [RuntimeError("lost my weights"), KeyboardInterrupt()])
def test_generator_that_breaks_off(out, end):
    def frames():
        yield from clip(4)
        raise end

    with pytest.raises(type(end)):
        export.write_video(out / "a.mp4", frames(), kind=Kind.GENERATED)
    assert not list(out.iterdir())


def test_a_source_that_cannot_be_read_to_its_end_is_named(out, tmp_path):
    source = tmp_path / "source.mp4"

    def frames():
        yield from clip(4)
        raise OSError(errno.EIO, "Input/output error", str(source))

    says = r"a\.mp4: cannot be written \(Input/output error: .*source\.mp4\)"
    with pytest.raises(FacekitError, match=says):
        export.write_video(out / "a.mp4", frames(), kind=Kind.GENERATED)
    assert not list(out.iterdir())


def test_folder_that_cannot_be_made(out):
    (out / "file").write_text("")
    with pytest.raises(FacekitError, match="cannot be written"):
        export.write_image(out / "file" / "a.png", picture(), kind=Kind.GENERATED)


def test_what_a_killed_export_left_goes_with_the_next(out):
    code = (
        "import os, signal, numpy as np\n"
        "from facekit import export; from facekit.types import Frame\n"
        "def frames():\n"
        "    for i in range(60): yield Frame(np.full((128, 128, 3), i, np.uint8), i / 25, i)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"from pathlib import Path; export.write_video(Path({str(out / 'a.mp4')!r}), frames(), "
        "kind=export.Kind.GENERATED)"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [p.name for p in out.iterdir()] == [".export-a.mp4"]
    export.write_video(out / "a.mp4", clip(4), kind=Kind.GENERATED)
    assert [p.name for p in out.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("moment", ["sign", "verify"])
def test_a_kill_before_the_last_step_leaves_nothing_by_its_name(out, moment):
    code = (
        "import os, signal, numpy as np\n"
        "from pathlib import Path; from facekit import export\n"
        "def kill(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"export.manifest.{moment} = kill\n"
        f"export.write_image(Path({str(out / 'a.png')!r}), np.full((256, 256, 3), 90, np.uint8), "
        "kind=export.Kind.GENERATED)"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [p.name for p in out.iterdir()] == [".export-a.png"]
    export.write_image(out / "a.png", picture(), kind=Kind.GENERATED)
    assert [p.name for p in out.iterdir()] == ["a.png"]


def test_what_is_not_surely_a_killed_exports_stays(out):
    for name in (".export-own", ".export-locked", ".export-c.png"):
        (out / name).mkdir()
        (out / name / "precious.txt").write_text("mine")
    (out / ".export-locked" / "lock").write_text("my own lock\xff")
    (out / ".export-link").symlink_to(out / ".export-own")
    (out / ".export-file").write_text("mine")
    before = sorted(out.rglob("*"))
    export.write_image(out / "a.png", picture(), kind=Kind.GENERATED)
    assert sorted(out.rglob("*")) == sorted([*before, out / "a.png"])


@pytest.mark.parametrize("way", ["folder", "foreign lock", "link", "linked lock", "dead", "file"])
def test_a_folder_that_is_not_facekits_is_not_emptied(out, tmp_path, way):
    aside, album = out / ".export-a.png", tmp_path / "album"
    album.mkdir()
    (album / "holiday.jpg").write_text("mine")
    if way == "link":
        (album / "lock").write_text("facekit export\n")
        aside.symlink_to(album)
    elif way == "dead":
        aside.symlink_to(tmp_path / "nowhere")
    elif way == "file":
        aside.write_text("mine")
    else:
        album = album.rename(aside)
        if way == "foreign lock":
            (aside / "lock").write_bytes(b"\xffmine")
        if way == "linked lock":
            (tmp_path / "lock").write_text("facekit export\n")
            (aside / "lock").symlink_to(tmp_path / "lock")
    with pytest.raises(
        FacekitError, match=r"\.export-a\.png: is in the way of .*a\.png.*remove it"
    ):
        export.write_image(out / "a.png", picture(), kind=Kind.GENERATED)
    assert (album / "holiday.jpg").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    assert [p.name for p in out.iterdir()] == [".export-a.png"]


def test_an_empty_folder_aside_is_no_obstacle(out):
    """A process may be killed right after it has made it, or the lock."""
    (out / ".export-a.png").mkdir()
    export.write_image(out / "a.png", picture(), kind=Kind.GENERATED)
    (out / ".export-a.png").mkdir()
    (out / ".export-a.png" / "lock").touch()
    export.write_image(out / "a.png", picture(), kind=Kind.GENERATED)
    assert [p.name for p in out.iterdir()] == ["a.png"]


@pytest.mark.parametrize("stem", ["marked", "marked-marked", "lock", "media"])
def test_a_file_may_have_any_name(out, stem):
    for suffix in (".png", ".jpg", ".jpeg", ".webp", ".PNG"):
        export.write_image(out / f"{stem}{suffix}", picture(), kind=Kind.GENERATED)
    export.write_video(out / f"{stem}.mp4", clip(3), kind=Kind.GENERATED)
    assert len(list(out.iterdir())) == 6


def test_two_exports_to_one_file_at_once(out):
    def frames():
        with pytest.raises(FacekitError, match="another process is writing it"):
            export.write_video(out / "a.mp4", clip(4), kind=Kind.GENERATED)
        export.write_video(out / "b.mp4", clip(4), kind=Kind.GENERATED)
        yield from clip(6)

    export.write_video(out / "a.mp4", frames(), kind=Kind.GENERATED)
    assert sorted(p.name for p in out.iterdir()) == ["a.mp4", "b.mp4"]
    with Video(out / "a.mp4") as video:
        assert len(list(video)) == 6


def test_nothing_turns_marking_off():
    """Only the arguments of the contract: a new one must not weaken what leaves."""
    allowed = {"path", "pixels", "frames", "kind", "inputs", "facts", "id", "rate", "audio_from"}
    allowed |= {"consent", "badge"}  # a corner; what leaves without is tested above
    allowed |= {"stretches"}  # they are kept badged and marked: the next test
    for function in (export.write_image, export.write_video):
        code = function.__code__
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        assert set(arguments) <= allowed


def test_stretches_that_are_kept_are_badged_and_marked(out, monkeypatch):
    monkeypatch.setattr(stretches, "LENGTH", 4)

    def breaks_off():
        yield from clip(6)
        raise KeyboardInterrupt

    keep = stretches.Stretches(out / "a.mp4", {}, size=(256, 256))
    with pytest.raises(KeyboardInterrupt), keep as kept:
        export.write_video(out / "a.mp4", breaks_off(), kind=Kind.COMPOSITE, stretches=kept)
    (left,) = out.rglob("*.nut")
    with av.open(str(left)) as container:
        pixels = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(pixels) == 4
    reading = watermark.read(pixels[0])
    assert reading.present and reading.kind == "composite"
    with stretches.Stretches(out / "a.mp4", {}, size=(256, 256)) as kept:
        assert kept.first == 4
        frames = clip(6)[4:]
        export.write_video(out / "a.mp4", frames, kind=Kind.COMPOSITE, stretches=kept)
        with (
            pytest.raises(FacekitError, match="another process is writing it"),
            stretches.Stretches(out / "a.mp4", {}, size=(256, 256)),
        ):
            pass
    assert [path.name for path in out.iterdir()] == ["a.mp4"]
    whole = out / "b.mp4"
    export.write_video(whole, clip(6), kind=Kind.COMPOSITE)
    assert shown(out / "a.mp4") == shown(whole)


def shown(path):
    """How many frames a video has, and when they are shown."""
    with Video(path) as video:
        return [frame.time for frame in video], video.info.rate, video.info.duration


def test_inputs_are_looked_at_before_the_frames_are_made(out):
    (out / "empty.png").write_bytes(b"")

    def frames():
        raise AssertionError("hours of work")
        yield

    for name, says in (("no.mp4", "no such file"), ("empty.png", "empty file"), ("", "a folder")):
        inputs = [out / name]
        with pytest.raises(FacekitError, match=says) as raised:
            export.write_video(out / "a.mp4", frames(), kind=Kind.COMPOSITE, inputs=inputs)
        assert str(inputs[0]) in str(raised.value)
    assert [p.name for p in out.iterdir()] == ["empty.png"]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_an_input_that_is_changed_is_not_used(out, tmp_path, when):
    """What was let pass, what was read and what the manifest names are one and the same."""
    source = tmp_path / "source.png"
    images.write_image(source, picture())
    passed = {source: files.sha256(source)}

    def swap():
        images.write_image(source, picture()[::-1])

    def frames():
        yield from clip(3)
        if when == "meanwhile":
            swap()

    if when == "before":
        swap()
    says = r"not written, because .*source\.png was changed while it was used"
    with pytest.raises(FacekitError, match=says):
        export.write_video(out / "a.mp4", frames(), kind=Kind.COMPOSITE, inputs=passed)
    with pytest.raises(FacekitError, match=says):
        export.write_image(out / "a.png", picture(), kind=Kind.COMPOSITE, inputs=passed)
    assert not list(out.iterdir())
    passed = {source: files.sha256(source)}
    export.write_image(out / "a.png", picture(), kind=Kind.COMPOSITE, inputs=passed)


def test_an_input_without_a_permit_may_not_change_either(out, tmp_path):
    source = tmp_path / "source.png"
    images.write_image(source, picture())

    def frames():
        yield from clip(3)
        images.write_image(source, picture()[::-1])

    with pytest.raises(FacekitError, match="was changed while it was used"):
        export.write_video(out / "a.mp4", frames(), kind=Kind.COMPOSITE, inputs=[source])
    assert not list(out.iterdir())


def test_an_input_with_a_manifest_of_its_own_is_known_again(out):
    for suffix in (".png", ".jpg", ".webp"):
        source = export.write_image(out / f"s{suffix}", picture(), kind=Kind.STUDIO).path
        passed = {source: files.sha256(source)}
        made = export.write_image(out / "a.png", picture(), kind=Kind.COMPOSITE, inputs=passed)
        assert [one["sha256"] for one in made.provenance.claims["inputs"]] == [passed[source]]


def test_what_is_no_rate_and_what_are_no_pixels_is_said(out):
    for rate in (0, -25.0, float("nan"), float("inf")):
        with pytest.raises(FacekitError, match=rf"a\.mp4: {rate} frames a second.*more than 0"):
            export.write_video(out / "a.mp4", clip(3), kind=Kind.GENERATED, rate=rate)
    rgb = picture()
    rgba = np.dstack([rgb, rgb[..., 0]])
    for pixels in (rgb / 255, rgb.astype(np.float32), rgba, rgb[..., 0], rgb[:0], rgb[None]):
        frames = [*clip(1), Frame(pixels, 0.04, 1)]
        with pytest.raises(FacekitError, match=r"a\.mp4: cannot be made of.*give uint8 RGB"):
            export.write_video(out / "a.mp4", frames, kind=Kind.GENERATED)
        with pytest.raises(FacekitError, match=r"a\.png: cannot be made of.*give uint8 RGB"):
            export.write_image(out / "a.png", pixels, kind=Kind.GENERATED)
    assert not list(out.iterdir())


def test_a_folder_of_that_name(out):
    (out / "a.png").mkdir()
    with pytest.raises(FacekitError, match=r"a\.png: is a folder"):
        export.write_image(out / "a.png", picture(), kind=Kind.GENERATED)
    assert [p.name for p in out.rglob("*")] == ["a.png"]


def test_a_picture_that_cannot_hold_its_mark_says_what_to_do(out, monkeypatch):
    monkeypatch.setattr(watermark, "embed", lambda pixels, payload, **_: pixels)
    for size, advice in ((128, "make it larger, at best 256"), (256, "soften it, or make it larg")):
        with pytest.raises(FacekitError, match=advice):
            export.write_image(out / "a.png", picture(size), kind=Kind.GENERATED)


def test_source_picture_is_not_changed(out):
    given = picture()
    kept = given.copy()
    export.write_image(out / "a.png", given, kind=Kind.GENERATED)
    assert np.array_equal(given, kept)
    assert not np.array_equal(read_image(out / "a.png"), kept)
