"""Damaged files: made from a seed, analyzed under watch, and what counts as a failure."""

import os
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from detectors import analyze, fuzz
from facekit.core.errors import FacekitError
from facekit.media.decode import probe
from facekit.media.images import count_frames


@pytest.fixture(scope="module")
def shots(astronaut):
    return [np.roll(astronaut[:300, 90:390], 2 * i, axis=1) for i in range(6)]


@pytest.fixture(scope="module")
def sources(shots, tmp_path_factory):
    return fuzz.originals(tmp_path_factory.mktemp("sound"), shots)


def test_what_is_damaged_is_sound_before(sources):
    kinds = {probe(path).codec for path in sources}
    assert {"png", "jpeg", "webp", "bmp", "gif", "h264", "vp9", "mpeg4", "mjpeg"} <= kinds
    assert sum(path.name.startswith("signed") for path in sources) == 4


def test_files_follow_from_the_seed(sources, monkeypatch):
    light = {name: fuzz.BOMBS[name] for name in ("text.png", "moving.png", "bomb.gif", "runs.bmp")}
    monkeypatch.setattr(fuzz, "BOMBS", light)
    plain = [path for path in sources if not path.name.startswith("signed")]
    made = [fuzz.corrupted(plain, number, seed=3) for number in range(40)]
    assert made == [fuzz.corrupted(plain, number, seed=3) for number in range(40)]
    others = [fuzz.corrupted(plain, number, seed=4) for number in range(40)]
    assert sum(one != other for one, other in zip(made, others, strict=True)) > 35
    assert len({name for name, _ in made}) == 40
    assert any(name.endswith(tuple(light)) for name, _ in made)


@pytest.mark.parametrize("name", list(fuzz.DAMAGE))
def test_each_damage_changes_most_files(sources, name):
    changed = 0
    for number, path in enumerate(sources):
        data = bytearray(path.read_bytes())
        fuzz.DAMAGE[name](data, sources[0].read_bytes(), np.random.default_rng(number))
        changed += bytes(data) != path.read_bytes()
    assert changed > len(sources) / 3


@pytest.mark.parametrize("name", list(fuzz.DAMAGE))
def test_damage_upon_damage_leaves_no_error(name):
    """A file may be nearly gone when it is damaged once more."""
    for length in (0, 1, 2, 5, 40):
        fuzz.DAMAGE[name](bytearray(length), b"x", np.random.default_rng(length))


def test_zeros_unpack_to_zeros():
    import zlib

    for count in (0, 7, 1 << 20, 3_000_001):
        assert zlib.decompress(fuzz._zeros(count)) == bytes(count)


def test_bombs_are_small_files_of_their_kinds(tmp_path):
    made = {
        name: fuzz.BOMBS[name](np.random.default_rng(5))
        for name in ("moving.png", "bomb.webp", "black.mp4")
    }
    assert all(len(content) < 5_000_000 for content in made.values())
    paths = {name: _written(tmp_path / name, content) for name, content in made.items()}
    assert count_frames(paths["moving.png"]) >= 100
    with pytest.warns(Image.DecompressionBombWarning), Image.open(paths["bomb.webp"]) as image:
        assert image.width >= 4000
    with pytest.raises(FacekitError, match="too large"):
        probe(paths["bomb.webp"])
    with av.open(str(paths["black.mp4"])) as container:
        assert container.streams.video[0].frames >= 20


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# --- the watch ------------------------------------------------------------------------------------


class _Odd:
    """An analyzer that does what a file's first word says."""

    def file(self, path):
        word = path.read_text().split()[0]
        if word == "error":
            raise FacekitError(f"{path}: damaged")
        if word == "unclear":
            raise FacekitError("damaged\nand more")
        raise ValueError(word)


@pytest.mark.parametrize(
    ("word", "how"), [("error", "error"), ("unclear", "unclear"), ("other", None)]
)
def test_an_error_must_be_one_line_that_names_the_file(tmp_path, word, how):
    path = _written(tmp_path / "a.png", word.encode())
    if how is None:
        with pytest.raises(ValueError, match="other"):
            fuzz._analyzed(path, _Odd())
    else:
        assert fuzz._analyzed(path, _Odd())[0] == how


def _serve_oddly(pipe, said, detector):
    """A process that crashes, hangs or fills memory as files ask."""
    with said.open("wb", buffering=0) as file:
        os.dup2(file.fileno(), 2)
    pipe.send("ready")
    while True:
        word = Path(pipe.recv()).read_text()
        if word == "crash":
            os.write(2, b"last words\n")
            os.abort()
        if word == "hang":
            while True:
                pass
        if word == "memory":
            held = np.ones(60 << 20, np.uint8)
            time.sleep(60)
            del held
        pipe.send(("report", "fine") if word == "fine" else ("exception", "ValueError: x"))


def test_crashes_hangs_and_memory_are_failures_and_the_next_file_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "_serve", _serve_oddly)
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    monkeypatch.setattr(fuzz, "_PATIENCE", 5)
    keep = tmp_path / "kept"
    words = ["fine", "crash", "fine", "hang", "exception", "fine"]
    with fuzz._Child(tmp_path / "said", None) as child:
        paths = [
            _written(tmp_path / f"{i}-{word}.png", word.encode()) for i, word in enumerate(words)
        ]
        found = [child.analyze(path, keep) for path in paths]
        monkeypatch.setattr(fuzz, "GIB", found[-1].peak + 0.02)
        found.append(child.analyze(_written(tmp_path / "6-memory.png", b"memory"), keep))
    how = [one.failure.how if one.failure else "" for one in found]
    assert how == ["", "crash", "", "hang", "exception", "", "memory"]
    assert [one.report for one in found] == [word == "fine" for word in [*words, "memory"]]
    assert found[1].failure is not None and "last words" in found[1].failure.what
    kept = sorted(path.name for path in keep.iterdir())
    assert kept == ["1-crash.png", "3-hang.png", "4-exception.png", "6-memory.png"]


@pytest.mark.slow
def test_damaged_files_end_in_a_report_or_an_error(shots, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "BOMBS", {})
    monkeypatch.setattr(fuzz, "_BOMBS", 0.0)
    outcome = fuzz.fuzz(shots, count=12, seed=1, keep=tmp_path / "kept")
    assert outcome.failures == []
    assert 0 < outcome.reports < outcome.files == 12
    assert "12 damaged files" in fuzz.summary(outcome)
    assert not (tmp_path / "kept").exists()


def test_the_child_analyzes_as_the_command_does(astronaut, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(astronaut[:256, :256]).save(path)
    import torch

    asked = analyze.Asked(without=frozenset({"faces", "watermark"}))
    analyzer = analyze.Analyzer(None, torch.zeros(0).device, asked)
    assert fuzz._analyzed(path, analyzer) == ("report", "inconclusive")
