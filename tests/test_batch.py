"""Batches: which files, workers, going on after a kill, summaries, and what the command says."""

import csv
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import get_args

import av
import batch_of_stand_ins as stand_ins
import numpy as np
import pytest
import skimage.data
import torch
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from test_report_page import file_report, track

from detectors import analyze as analysis
from detectors import batch
from detectors.analyze import Asked
from detectors.report.model import PARTS, Code, FileError
from facekit.cli import cli
from facekit.commands import analyze as command
from facekit.core.errors import FacekitError
from facekit.core.workers import WorkerLost
from facekit.media.encode import write_video
from facekit.media.find import listed
from facekit.media.images import write_image
from facekit.types import Frame

CPU = torch.device("cpu")
HERE = Path(__file__).parent


@pytest.fixture
def stand_in(monkeypatch):
    """Without networks, where it is not faces that matter."""
    stand_ins.use(monkeypatch.setattr)


@pytest.fixture
def stopped_clock(monkeypatch):
    """All reports are of the same moment: ``created`` alone is to differ."""

    class Clock(datetime):
        @classmethod
        def now(cls, zone=None):
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=zone)

    monkeypatch.setattr(analysis, "datetime", Clock)


@pytest.fixture
def folder(tmp_path):
    """Seven files for the stand-in, two of them with the same content."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(7):
        (folder / f"{i}.jpg").write_text(f"file {min(i, 5)}")
    return folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    write_image(path, skimage.data.astronaut()[:300, 60:380])
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A second of a camera that moves over a photo."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    pixels = skimage.data.astronaut()
    write_video(
        path, (Frame(pixels[:288, 60 + i : 380 + i], i / 10, i) for i in range(10)), rate=10
    )
    return path


def run(inputs, out=None, *, asked=None, **more):
    paths = [inputs] if isinstance(inputs, Path) else [Path(path) for path in inputs]
    return batch.run(
        batch.gather(paths), detector=None, device=CPU, asked=asked or Asked(), out=out, **more
    )


def call(*arguments, stdin=None):
    result = CliRunner().invoke(cli, ["analyze", *map(str, arguments)], input=stdin)
    if result.exception and not isinstance(result.exception, SystemExit | FacekitError):
        raise result.exception
    return result


def written(out):
    """The bytes of all that a batch writes."""
    names = ("report.json", "report.html", "summary.jsonl", "summary.csv")
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    return [(out / name).read_bytes() for name in names]


def rows(out):
    return [json.loads(line) for line in (out / "summary.jsonl").read_text().splitlines()]


# Which files


def test_files_folders_patterns_and_lists_count_each_file_once(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    (folder / "notes.txt").touch()
    (folder / "link.jpg").symlink_to(folder / "1.jpg")
    names = tmp_path / "list.txt"
    names.write_bytes(b"in/3.jpg\n\nin/0.jpg\r\nin/[12].jpg\nin/caf\xff.jpg\n")
    (folder / os.fsdecode(b"caf\xff.jpg")).write_text("file")
    inputs = [Path("in/4.jpg"), *listed(names), Path("in"), Path("nowhere.jpg")]
    found = batch.gather(inputs)
    assert [os.fsencode(path.name) for path in found] == [
        b"4.jpg", b"3.jpg", b"0.jpg", b"1.jpg", b"2.jpg", b"caf\xff.jpg", b"5.jpg", b"6.jpg",
        b"nowhere.jpg",
    ]  # fmt: skip
    assert found.pop(Path("nowhere.jpg")) == "no such file or folder"
    assert set(found.values()) == {None}


def test_a_list_may_have_null_characters_between_its_names(tmp_path):
    names = tmp_path / "list"
    names.write_bytes(b"a b.jpg\0two\nlines.jpg\0")
    assert listed(names) == [Path("a b.jpg"), Path("two\nlines.jpg")]


@pytest.mark.parametrize("content", [None, b"", b"\n \n"])
def test_a_list_that_names_nothing_is_an_error(tmp_path, content):
    names = tmp_path / "list.txt"
    if content is not None:
        names.write_bytes(content)
    with pytest.raises(FacekitError, match="names no file" if content is not None else "readable"):
        listed(names)


@pytest.mark.usefixtures("stand_in")
def test_a_list_may_come_from_standard_input(folder, tmp_path):
    names = f"{folder}/1.jpg\n{folder}/2.jpg\n"
    call("--list", "-", "--out", tmp_path / "out", stdin=names)
    assert [Path(row["path"]).name for row in rows(tmp_path / "out")] == ["1.jpg", "2.jpg"]


def test_processes_are_started_where_they_are_worth_it(monkeypatch):
    monkeypatch.setattr(batch, "default_threads", lambda: 8)
    few = {Path(f"{i}.jpg"): None for i in range(40)}
    many = {Path(f"{i}.JPG"): None for i in range(80)}
    clips = {Path(f"{i}.mp4"): None for i in range(3)}
    counts = [batch.workers_for(inputs, CPU) for inputs in ({}, few, many, clips, many | clips)]
    assert counts == [1, 1, 2, 3, 4]
    assert batch.workers_for(many, torch.device("meta")) == 1


# What is written


@pytest.mark.usefixtures("stand_in")
def test_a_summary_has_a_row_for_each_input_in_order(folder, tmp_path, caplog):
    (folder / "3.jpg").write_text("bad")
    report = run([folder / "6.jpg", folder / "none.jpg", folder], tmp_path / "out")
    found = rows(tmp_path / "out")
    assert [Path(row["path"]).name for row in found] == [
        "6.jpg", "none.jpg", *(f"{i}.jpg" for i in range(6))
    ]  # fmt: skip
    assert [row["error"] for row in found if row["error"]] == [
        "no such file or folder", "not an image or a video"
    ]  # fmt: skip
    assert [(e.path, e.error) for e in report.errors] == [
        (row["path"], row["error"]) for row in found if row["error"]
    ]
    conclusions = {file.path: file.verdict.conclusion for file in report.files}
    assert {row["path"]: row["verdict"] for row in found if row["verdict"]} == conclusions
    assert report.exit_code == 1 and len(report.files) == 6
    # A copy is analyzed as well, and named.
    assert [row["same_as"] for row in found] == [*[None] * 7, str(folder / "6.jpg")]
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert lines == [f"facekit: {e.path}: {e.error}" for e in report.errors]
    # The CSV says the same.
    text = (tmp_path / "out/summary.csv").read_text(encoding="utf-8")
    table = list(csv.DictReader(io.StringIO(text)))
    assert list(table[0]) == list(batch.COLUMNS)
    assert [row["path"] for row in table] == [row["path"] for row in found]
    assert [row["verdict"] or None for row in table] == [row["verdict"] for row in found]


def test_a_summary_of_a_report_with_faces_a_mark_and_credentials():
    tracks = [track([0.2] * 6), track([0.9] * 6, id=1)]
    found = file_report(tracks=tracks)
    (row,) = batch.summary([found])
    assert row["score"] == max(track.score for track in tracks) and row["faces"] == 2
    assert row["codes"] == [reason.code for reason in found.verdict.reasons]
    assert (row["mark"], row["credentials"]) == (
        batch.mark_in_brief(found), batch.credentials_in_brief(found)
    )  # fmt: skip
    unknown = [track.model_copy(update={"calibrated": False, "counts": False}) for track in tracks]
    bare = found.model_copy(
        update={"tracks": unknown, "watermark": None, "provenance": None, "certificate": None}
    )
    (row,) = batch.summary([bare])
    assert (row["score"], row["mark"], row["credentials"]) == (None, "left out", "left out")


def test_a_spreadsheet_takes_no_name_for_a_formula():
    names = ["=1+1.jpg", "@a.jpg", "-a.jpg", "+a.jpg", "a,b.jpg", 'a"b.jpg', "a\nb.jpg", "ä.jpg"]
    text = batch.as_csv(batch.summary([FileError(path=name, error="empty") for name in names]))
    read = [row["path"] for row in csv.DictReader(io.StringIO(text))]
    assert read == ["'=1+1.jpg", "'@a.jpg", "'-a.jpg", "'+a.jpg", *names[4:]]


def test_names_that_are_no_utf8_are_reported(photo, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    shutil.copy(photo, path)
    (tmp_path / os.fsdecode(b"bad\xe9.png")).touch()
    report = run(tmp_path, tmp_path / "out", asked=Asked(without=frozenset({"faces"})))
    assert [file.name for file in report.files] == ["caf\ufffd.png"]
    assert [Path(error.path).name for error in report.errors] == ["bad\ufffd.png"]


# Interruptions


@pytest.mark.usefixtures("stand_in", "stopped_clock")
def test_a_killed_batch_goes_on_and_ends_in_the_same_bytes(folder, tmp_path):
    """Killed at work with two workers and ended with one, beside one that nobody broke off."""
    (folder / "5.jpg").write_text("bad")
    run(folder, tmp_path / "whole", workers=1)
    out = tmp_path / "out"
    arguments = [HERE / "batch_of_stand_ins.py", out, "2", "0.3", folder]
    child = subprocess.Popen(
        [sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    for _ in range(2):
        assert child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    left = child.communicate(timeout=60)[0].split()
    assert child.returncode == -signal.SIGKILL and len(left) < 5
    assert [path.name for path in out.iterdir()] == [".analyze.part"]
    looked = []
    report = run(folder, out, workers=1, tell=lambda part, line: looked.append(part))
    assert len(report.files) == 6 and len(looked) < 5, "what was done is not done again"
    assert written(out) == written(tmp_path / "whole")


def broken_off(folder, out, after, **more):
    """A batch that is interrupted when so many files are done."""

    def stop(place, found):
        if place + 1 == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, out, workers=1, done=stop, **more)


@pytest.mark.usefixtures("stand_in", "stopped_clock")
def test_a_line_that_was_cut_off_is_done_again_and_what_changed_as_well(folder, tmp_path, caplog):
    out = tmp_path / "out"
    broken_off(folder, out, 4)
    assert "4 files are done: give the same command to go on" in caplog.text
    journal = out / ".analyze.part"
    journal.write_bytes(journal.read_bytes()[:-30])
    (folder / "1.jpg").write_text("another file")
    looked = []
    run(folder, out, workers=1, tell=lambda part, line: looked.append(part))
    assert len(looked) == 1 + 1 + 3
    run(folder, tmp_path / "whole", workers=1)
    assert written(out) == written(tmp_path / "whole")


@pytest.mark.usefixtures("stand_in")
def test_files_that_could_not_be_analyzed_are_tried_again(folder, tmp_path):
    (folder / "0.jpg").write_text("bad")
    broken_off(folder, tmp_path / "out", 3)
    content = (folder / "1.jpg").stat()
    (folder / "0.jpg").write_text("now")
    os.utime(folder / "0.jpg", ns=(content.st_atime_ns, content.st_mtime_ns))
    assert run(folder, tmp_path / "out", workers=1).errors == []


@pytest.mark.usefixtures("stand_in")
def test_what_was_done_with_other_settings_is_not_mixed_in(folder, tmp_path):
    out = tmp_path / "out"
    broken_off(folder, out, 3)
    with pytest.raises(FacekitError, match=r"every 0.2, now 0.5.*another --out"):
        run(folder, out, asked=Asked(every=0.5))
    for other in ("notes of mine\n", '{"mine": 1}\n'):
        (out / ".analyze.part").write_text(other)
        with pytest.raises(FacekitError, match="remove it"):
            run(folder, out)
        assert (out / ".analyze.part").read_text() == other


@pytest.mark.usefixtures("stand_in")
@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_two_calls_do_not_write_the_same_folder_at_once(folder, tmp_path):
    def again(place, found):
        with pytest.raises(FacekitError, match="another facekit writes it now"):
            run(folder, tmp_path / "out", workers=1)

    run(folder, tmp_path / "out", workers=1, done=again)


@pytest.mark.usefixtures("stand_in")
def test_a_file_on_which_a_worker_dies_ends_no_batch(folder, tmp_path, monkeypatch):
    (folder / "2.jpg").write_text("kill")
    (folder / "5.jpg").write_text("kill")
    asked = []

    def in_order(work, jobs, workers, *, start):
        """As with processes: when one dies, nothing is heard of what was under way."""
        asked.append((len(jobs), workers))
        dead = [i for i, (_, path) in enumerate(jobs) if path.read_text() == "kill"]
        for i, job in enumerate(jobs):
            if dead and i > dead[0] - (workers > 1):
                raise WorkerLost
            if i not in dead:
                yield work(job)
        if dead:
            raise WorkerLost

    monkeypatch.setattr(batch, "in_order", in_order)
    report = run(folder, tmp_path / "out", workers=2)
    assert [Path(error.path).name for error in report.errors] == ["2.jpg", "5.jpg"]
    assert all("analyze it by itself" in error.error for error in report.errors)
    assert len(report.files) == 5
    assert asked[0] == (7, 2) and (1, 1) not in asked[:1]


@pytest.mark.usefixtures("stand_in")
def test_a_file_that_facekit_trips_over_ends_no_batch_and_is_not_hidden(folder, tmp_path, caplog):
    (folder / "2.jpg").write_text("bug")
    report = run(folder, workers=1)
    (error,) = report.errors
    assert "error in facekit itself (ZeroDivisionError: division by zero)" in error.error
    assert any(record.exc_info for record in caplog.records), "with its traceback"
    assert len(report.files) == 6


@pytest.mark.slow
@pytest.mark.usefixtures("stopped_clock")
def test_real_workers_find_what_one_process_finds(photo, clip, tmp_path):
    inputs = [clip, photo]
    run(inputs, tmp_path / "one", workers=1)
    run(inputs, tmp_path / "two", workers=2)
    assert written(tmp_path / "one") == written(tmp_path / "two")
    found = rows(tmp_path / "two")
    assert [row["faces"] for row in found] == [1, 1] and None not in [row["score"] for row in found]


# The command


@pytest.mark.usefixtures("stand_in")
def test_a_lone_files_findings_come_as_lines_and_then_a_table(folder):
    result = call(folder / "0.jpg")
    lines = result.stdout.splitlines()
    assert lines[0] == "faces         no face"
    (title,) = [line for line in lines if "0.jpg  " in line]
    assert title.endswith(stand_ins.CONCLUSIONS) and lines.index(title) > 1
    assert any(line.split()[:2] == ["mark", "none"] for line in lines)
    assert any("sha256" in line for line in lines)


@pytest.mark.usefixtures("stand_in")
def test_many_files_are_a_line_each_then_a_table_and_a_count(folder, tmp_path):
    (folder / "3.jpg").write_text("bad")
    result = call(folder, "--out", tmp_path / "out", "--workers", 1)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[:7]] == [f"{i}/7" for i in range(1, 8)]
    assert lines[3].endswith("3.jpg: not analyzed")
    (count,) = [line for line in lines if line.startswith("7 files: ")]
    assert "1 not analyzed" in count
    assert lines[-1] == f"Report: {tmp_path / 'out/report.html'}"


@pytest.mark.usefixtures("stand_in")
def test_a_long_table_is_cut_and_says_so(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(45):
        (folder / f"{i:02}.jpg").write_text(f"file {i}")
    lines = call(folder, "--workers", 1).stdout.splitlines()
    assert len(lines) < 45 + 45 and lines[-1].startswith("45 files (40 of them above): ")


@pytest.mark.usefixtures("stand_in")
def test_quiet_prints_nothing_and_json_nothing_else(folder):
    assert call(folder, "-q").output == ""
    result = call(folder, "--json")
    assert len(json.loads(result.stdout)["files"]) == 7


@pytest.mark.usefixtures("stand_in")
def test_without_takes_lists_and_says_what_is_unknown(folder, tmp_path):
    out = tmp_path / "out"
    call(folder, "--without", "watermark,provenance", "--without", "faces", "--out", out)
    settings = json.loads((out / "report.json").read_text())["settings"]
    assert settings["left_out"] == ["provenance", "watermark", "faces", "detectors", "localisation"]
    result = call(folder, "--without", "watermrk")
    assert result.exit_code == 2 and "did you mean 'watermark'?" in result.stderr


def test_the_parts_that_can_be_left_out_are_those_of_the_report():
    assert tuple(command.PARTS) == PARTS


@pytest.mark.parametrize("arguments", [[], ["a.jpg", "--workers", "0"], ["a.jpg", "--every", "0"],
                                       ["a.jpg", "--max-duration", "-1"]])  # fmt: skip
def test_wrong_usage_exits_with_2(arguments):
    assert call(*arguments).exit_code == 2


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_findings_go_to_standard_output_also_under_a_bar():
    """The bar is on a terminal, what is printed into a file, and what is logged above the bar."""
    import pty

    code = (
        "from facekit.core.progress import log, progress, set_verbosity\n"
        "set_verbosity(0, False)\n"
        "with progress('bar', 2) as advance:\n"
        "    advance(1, 'stage'); print('finding'); log.warning('warning')"
    )
    leader, follower = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=follower, text=True,
        env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(follower)
    terminal = b""
    try:
        while part := os.read(leader, 4096):
            terminal += part
    except OSError:  # its end, on Linux
        pass
    os.close(leader)
    assert child.communicate(timeout=60)[0] == "finding\n" and child.returncode == 0
    assert b"stage" in terminal and b"warning" in terminal and b"finding" not in terminal


# Two files


def test_two_files_are_compared(photo, tmp_path):
    changed = skimage.data.astronaut()[:300, 60:380].copy()
    changed[200:260, 20:80] = (30, 200, 30)
    write_image(tmp_path / "b.jpg", changed[10:])
    out = tmp_path / "out"
    result = call(photo, tmp_path / "b.jpg", "--compare", "--out", out)
    assert result.exit_code == 0
    report = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert report["source"]["conclusion"] == "same source"
    assert (out / "comparison.html").is_file()
    lines = result.stdout.splitlines()
    assert lines[0].startswith("same source: ")
    assert {"cropped", "areas"} <= {line.split()[0] for line in lines[1:]}
    assert lines[-1] == f"Comparison: {out / 'comparison.html'}"


def test_a_comparison_takes_two_files_and_no_settings_of_an_analysis(photo, tmp_path):
    for arguments, said in (
        ([photo], "takes two files, and not 1"),
        ([photo, photo], "takes two files, and not 1"),
        ([photo, photo, "--every", "1"], "--every has no effect"),
        ([photo, photo, "--without", "faces"], "--without has no effect"),
    ):
        result = call(*arguments, "--compare")
        assert result.exit_code == 2 and said in result.stderr
    missing = call(photo, tmp_path / "none.jpg", "--compare").exception
    assert str(missing) == f"{tmp_path / 'none.jpg'}: no such file or folder"


# The guide


def test_the_guide_explains_each_code_each_part_and_each_column():
    guide = (HERE.parent / "docs/analyze.md").read_text(encoding="utf-8")
    names = {*get_args(Code), *PARTS, *batch.COLUMNS}
    assert {name for name in names if f"`{name}`" not in guide} == set()


# Completion


def completions(words, incomplete):
    found = ShellComplete(cli, {}, "facekit", "_FACEKIT_COMPLETE").get_completions(
        words, incomplete
    )
    return [item.value for item in found], {item.type for item in found}


def test_options_values_and_files_complete():
    assert "analyze" in completions([], "ana")[0]
    assert "--without" in completions(["analyze"], "--w")[0]
    assert completions(["analyze", "--without"], "")[0] == list(PARTS)
    assert completions(["analyze", "--without"], "provenance,wa")[0] == ["provenance,watermark"]
    assert completions(["analyze"], "") == ([""], {"file"})
    assert completions(["analyze", "--list"], "") == ([""], {"file"})
    assert completions(["analyze", "--out"], "") == ([""], {"dir"})


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_printed(shell):
    result = CliRunner().invoke(cli, ["completion", shell], prog_name="facekit")
    assert result.exit_code == 0
    assert f"_FACEKIT_COMPLETE={shell}_complete" in result.stdout
    if shell == "fish":
        assert 'split -m1 ","' in result.stdout and 'split ","' not in result.stdout


def test_an_unknown_shell_is_wrong_usage():
    assert CliRunner().invoke(cli, ["completion", "csh"]).exit_code == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_with_the_script(tmp_path):
    program = tmp_path / "facekit"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.argv[0] = 'facekit'\nfrom facekit.cli import main\n"
        "main()\n"
    )
    program.chmod(0o755)
    script = (
        'eval "$(facekit completion bash)"\n'
        "COMP_WORDS=(facekit analyze --without facts,de); COMP_CWORD=3\n"
        '_facekit_completion facekit; echo "${COMPREPLY[@]}"'
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "--norc", "-c", script], env={**os.environ, "PATH": path}, capture_output=True,
        text=True, timeout=60, check=True,
    )  # fmt: skip
    assert result.stdout.split() == ["facts,detectors"], result.stderr


# No connection


GUARD = """
import ctypes, struct, sys
import socket
import urllib3  # when imported it binds a socket, to see whether there is IPv6, and sends nothing
from facekit.cli import main
number, arch = {"x86_64": (41, 0xC000003E), "aarch64": (198, 0xC00000B7)}[sys.argv.pop(1)]
def line(code, true, false, value): return struct.pack("HBBI", code, true, false, value)
program = (
    line(0x20, 0, 0, 4) + line(0x15, 0, 5, arch)        # another architecture: allow
    + line(0x20, 0, 0, 0) + line(0x15, 0, 3, number)    # anything but socket(2): allow
    + line(0x20, 0, 0, 16) + line(0x15, 1, 0, 1)        # of the family AF_UNIX: allow
    + line(0x06, 0, 0, 0x80000000)                      # of any other: kill the process
    + line(0x06, 0, 0, 0x7FFF0000)
)
lines = ctypes.create_string_buffer(program, len(program))
filter = struct.pack("HL", len(program) // 8, ctypes.addressof(lines))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, filter, 0, 0) == 0
if sys.argv[1] == "probe":
    socket.getaddrinfo("localhost.invalid", 80)
main()
"""


def guarded(*arguments):
    """A child that the system kills as soon as any code in it asks for a socket of a network."""
    command = [sys.executable, "-c", GUARD, platform.machine(), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="needs Linux's seccomp",
)
def test_no_part_of_an_analysis_asks_for_a_socket_or_resolves_a_name(photo, clip, tmp_path):
    """Also not in native code, and not for a manifest that a file says lies elsewhere."""
    assert guarded("probe").returncode == -signal.SIGSYS
    shutil.copy(clip, tmp_path / "clip.mp4")
    write_image(tmp_path / "photo.jpg", skimage.data.astronaut()[:300, 60:380])
    content = (tmp_path / "photo.jpg").read_bytes()
    xmp = (
        b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        b'xmlns:dcterms="http://purl.org/dc/terms/" '
        b'dcterms:provenance="http://localhost:9/manifest.c2pa"/></rdf:RDF></x:xmpmeta>'
    )
    segment = b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp
    (tmp_path / "photo.jpg").write_bytes(content[:2] + segment + content[2:])
    result = guarded(
        "analyze", tmp_path / "clip.mp4", tmp_path / "photo.jpg", "--out", tmp_path / "out",
        "--workers", "1",
    )  # fmt: skip
    assert result.returncode in (0, 10, 20), result.stderr
    report = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    assert [len(file["tracks"]) for file in report["files"]] == [1, 1]
    assert "not fetched" in report["files"][1]["provenance"]["reason"]
    assert report["settings"]["left_out"] == []


# Bad input


def lines_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


def write_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.rate = 8000
        container.mux([*stream.encode(frame), *stream.encode(None)])


def write_encrypted(path, clip):
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "1" * 32,
               "encryption_kid": "2" * 32}  # fmt: skip
    with av.open(str(clip)) as source, av.open(str(path), "w", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)


def bad_input(name, tmp_path, clip):
    """The path of an input that is none, and what is said of it."""
    path = tmp_path / name
    match name:
        case "missing.mp4":
            return path, "no such file or folder"
        case "folder":
            path.mkdir()
            (path / "notes.txt").touch()
            return path, "no pictures or videos in this folder"
        case "nothing*.jpg":
            return path, "no file or folder matches this pattern"
        case "sound.mp4":
            write_sound(path)
            return path, "sound only, no video in it"
        case "encrypted.mp4":
            write_encrypted(path, clip)
            return path, "its pictures are encrypted; give a copy that is not"
        case "locked.zip":
            path.write_bytes(b"PK\x03\x04\x14\0\x01\0\x08\0" + bytes(200))
            return path, "not an image or a video that can be read, or cut short"
        case "empty.png":
            path.touch()
            return path, "empty file"
        case _:
            os.mkfifo(path)
            return path, "not a regular file; pipes and devices are not read"


@pytest.mark.parametrize(
    "name", ["missing.mp4", "folder", "nothing*.jpg", "sound.mp4", "encrypted.mp4", "locked.zip",
             "empty.png", "pipe.mp4"],
)  # fmt: skip
def test_bad_input_is_one_clear_line_and_exit_1(name, tmp_path, clip, caplog):
    path, said = bad_input(name, tmp_path, clip)
    result = call(path, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert lines_of(caplog) == [f"facekit: {path}: {said}"]
    report = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    assert report["errors"] == [{"path": str(path), "error": said}] and report["files"] == []
    assert "Traceback" not in result.output


def test_a_file_that_may_not_be_read_is_one_line(photo, tmp_path, caplog, monkeypatch):
    path = tmp_path / "photo.png"
    shutil.copy(photo, path)
    opened = Path.open

    def refuse(self, *arguments, **options):  # root may read anything, so the mode would not do
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    assert call(path).exit_code == 1
    assert lines_of(caplog) == [f"facekit: {path}: not readable (Permission denied)"]


@pytest.mark.parametrize("place", ["file/out", "folder"])
def test_no_permission_to_write_is_said_before_any_work(place, photo, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    opened = Path.open

    def refuse(self, *arguments, **options):
        if self.parent == tmp_path / "folder":
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(analysis.Analyzer, "file", lambda *_, **__: pytest.fail("work"))
    result = call(photo, "--out", tmp_path / place)
    assert isinstance(result.exception, FacekitError)
    assert str(result.exception).startswith(f"--out {tmp_path / place}: cannot be")


def test_a_file_that_changes_while_it_is_read_is_one_line(photo, tmp_path, monkeypatch, caplog):
    path = tmp_path / "photo.png"
    shutil.copy(photo, path)
    read = analysis.read_watermark

    def grow(path):
        with path.open("ab") as file:
            file.write(b" ")
        return read(path)

    monkeypatch.setattr(analysis, "read_watermark", grow)
    assert call(path, "--without", "faces").exit_code == 1
    assert lines_of(caplog) == [
        f"facekit: {path}: changed while it was read; analyze it again"
    ]  # fmt: skip


def test_the_same_file_twice_is_analyzed_once_and_a_copy_is_named(photo, tmp_path):
    copy = tmp_path / "copy.png"
    shutil.copy(photo, copy)
    out = tmp_path / "out"
    call(photo, photo, photo.parent, copy, "--without", "faces", "--out", out)
    assert [(row["path"], row["same_as"]) for row in rows(out)] == [
        (str(photo), None), (str(copy), str(photo))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    """Twelve hours of a face that stays, in 25 frames: one in half an hour."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    face = np.ascontiguousarray(skimage.data.astronaut()[60:156, 176:272])
    write_video(path, (Frame(face, 1800.0 * i, i) for i in range(25)), rate=1)
    return path


def test_a_video_of_twelve_hours_says_how_it_was_sampled(long_clip, tmp_path):
    call(long_clip, "--out", tmp_path, "--without", "detectors")
    (file,) = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["files"]
    sampling = file["sampling"]
    assert sampling["thinned"] and sampling["until"] is None and sampling["stretches"] > 100
    assert file["facts"]["duration"] > 12 * 3600 - 1801


def test_max_duration_looks_at_the_beginning_and_says_so(long_clip, tmp_path):
    call(long_clip, "--out", tmp_path, "--without", "detectors", "--max-duration", 500)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    (file,) = report["files"]
    assert report["settings"]["max_duration"] == file["sampling"]["until"] == 500
    assert not file["sampling"]["thinned"]
    assert max(sighting["time"] for sighting in file["tracks"][0]["sightings"]) < 500


def test_a_video_of_a_screen_gets_a_report_that_says_what_it_cannot_tell(tmp_path):
    """The screen's pixels, edges and glow, filmed: nothing in a file tells that it is a screen."""
    screen = np.full((300, 400, 3), 12, np.uint8)
    shown = skimage.data.astronaut()[:240, 60:380].astype(np.float64)
    shown[::3] *= 0.85
    screen[30:270, 40:360] = (shown * [0.9, 0.95, 1.0] + [0, 4, 12]).clip(0, 255).astype(np.uint8)
    path = tmp_path / "screen.mp4"
    write_video(path, (Frame(screen, i / 5, i) for i in range(6)), rate=5)
    result = call(path, "--out", tmp_path / "out")
    assert result.exit_code in (0, 10, 20)
    report = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    (file,) = report["files"]
    assert "judged_as_camera" in [reason["code"] for reason in file["verdict"]["reasons"]]
    assert any("screens" in limit for limit in report["limits"])
