"""A journal keeps what was done over a kill at any byte, and nothing that has changed."""

import json
import os

import pytest

from facekit.core import files
from facekit.core.errors import FacekitError
from facekit.core.journal import Journal, identity

SETTINGS = {"every": 0.2, "detector": None}


@pytest.fixture
def inputs(tmp_path):
    """Three files, one of them with a name that is no UTF-8."""
    found = [tmp_path / name for name in ("a.jpg", "b c.jpg", os.fsdecode(b"\xff.jpg"))]
    for number, path in enumerate(found):
        try:
            path.write_text(str(number))
        except OSError:
            pytest.skip("this file system wants names of UTF-8")
    return found


@pytest.fixture
def open_journal(tmp_path):
    def open_journal(settings=SETTINGS):
        return Journal(tmp_path / "out" / ".part", settings, out=tmp_path / "out")

    open_journal.path = tmp_path / "out" / ".part"
    return open_journal


def fill(journal, paths):
    """Two rows a file."""
    for path in paths:
        before = identity(path)
        for row in range(2):
            journal.write({"path": os.fsencode(path).hex(), "row": row})
        journal.end(path, before)


def rows(journal, path):
    return [json.loads(line)["row"] for line in journal.lines(path)]


def test_what_was_done_is_there_after_a_kill_at_any_byte(inputs, open_journal):
    with open_journal() as journal:
        fill(journal, inputs)
    whole = open_journal.path.read_bytes()
    kept = set()
    for cut in range(len(whole) + 1):
        open_journal.path.write_bytes(whole[:cut])
        with open_journal() as journal:
            done = [path for path in inputs if journal.has(path)]
            assert done == inputs[: len(done)], "in the order in which they were written"
            assert all(rows(journal, path) == [0, 1] for path in done)
            fill(journal, inputs[len(done) :])
            assert all(rows(journal, path) == [0, 1] for path in inputs)
        assert open_journal.path.read_bytes() == whole
        kept.add(len(done))
    assert kept == {0, 1, 2, 3}


def test_a_file_that_changed_is_done_again_and_its_old_rows_are_forgotten(inputs, open_journal):
    with open_journal() as journal:
        fill(journal, inputs)
    inputs[1].write_text("another content")
    inputs[2].unlink()
    for _ in range(2):
        with open_journal() as journal:
            assert [journal.has(path) for path in inputs] == [True, False, False]
    with open_journal() as journal:
        journal.write({"row": 7})
        journal.end(inputs[1], identity(inputs[1]))
    with open_journal() as journal:
        assert rows(journal, inputs[0]) == [0, 1] and rows(journal, inputs[1]) == [7]


@pytest.mark.parametrize("other", ["notes of mine\n", '{"mine": 1}\n', "[1]\n"])
def test_what_is_no_journal_of_this_work_is_refused_and_left_alone(other, open_journal):
    with open_journal():
        pass
    with (
        pytest.raises(FacekitError, match=r"\(every 0.2, now 0.5\); .* another --out"),
        open_journal({**SETTINGS, "every": 0.5}),
    ):
        pass
    open_journal.path.write_text(other)
    with pytest.raises(FacekitError, match=r"something else.*remove it"), open_journal():
        pass
    assert open_journal.path.read_text() == other


def test_one_process_at_a_time_writes_it(open_journal, tmp_path):
    with open_journal():
        pass
    with open_journal.path.open("ab") as held:
        if not files.lock(held, surely=True):
            pytest.skip("no locks here")
        with pytest.raises(FacekitError, match="another facekit writes it now"), open_journal():
            pass


def test_broken_off_work_says_how_to_go_on_if_anything_is_done(inputs, open_journal, caplog):
    for count in (0, 2):
        caplog.clear()
        with pytest.raises(KeyboardInterrupt), open_journal() as journal:
            fill(journal, inputs[:count])
            raise KeyboardInterrupt
        assert ("2 files are done: give the same command" in caplog.text) == (count > 0)


def test_a_full_disk_is_an_error_that_names_the_journal(inputs, open_journal, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, content):
            raise OSError(28, "No space left on device")

    with open_journal() as journal:
        monkeypatch.setattr(journal, "_file", Full(journal._file))
        with pytest.raises(FacekitError, match=r"\.part: cannot be written .No space left"):
            journal.write({"row": 1})
