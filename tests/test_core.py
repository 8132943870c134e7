"""Core: configs, plug-ins, files, checkpoints, run folders, seeds, figures, devices, weights."""

import errno
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from facekit.core import checkpoint, config, device, figures, files, registry, seed, text, weights
from facekit.core.config import Config, apply_overrides, read_yaml, validate
from facekit.core.errors import FacekitError, did_you_mean
from facekit.core.figures import Figure
from facekit.core.run import Run
from facekit.types import Item, read_manifest, write_manifest

# --- config -----------------------------------------------------------------------------------


class Optimiser(Config):
    learning_rate: float = Field(default=1e-3, gt=0)
    steps: int = 10


class Example(Config):
    width: int = 8
    name: str = "a"
    optimiser: Optimiser = Optimiser()


def yaml_file(folder: Path, text: str) -> Path:
    (folder / "example.yaml").write_text(text, encoding="utf-8")
    return folder / "example.yaml"


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.e-4", "1.0e-4", "+1e-4", "0.1e-3", ".1e-3"])
def test_a_number_with_an_exponent_is_a_float(tmp_path: Path, text: str) -> None:
    assert read_yaml(yaml_file(tmp_path, f"rate: {text}")) == {"rate": 1e-4}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_python_writes_is_read_as_itself(value: float) -> None:
    assert apply_overrides({}, [f"x={value!r}"]) == {"x": value}


def test_yaml_is_otherwise_as_usual(tmp_path: Path) -> None:
    text = "a: [1, 2.5, x]\nb: {c: true, d: null}\ne: '1e-4'\nf: 1e4x\n"
    assert read_yaml(yaml_file(tmp_path, text)) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\na: 2", "'a' stands twice"),
        ("s:\n  b: 1\n  b: 2", "'b' stands twice"),
        ("a: [1", "not YAML"),
        ("? [1]\n: 2", "no key"),
        ("a: 2020-13-45", "not YAML"),
        ("- 1\n- 2", "got list"),
        ("", "got NoneType"),
        ("a: !!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_bad_yaml_is_one_line_that_names_the_file(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(FacekitError) as error:
        read_yaml(yaml_file(tmp_path, text))
    assert says in str(error.value) and "example.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_config_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(FacekitError, match="not readable"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "example.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FacekitError, match="not readable"):
        read_yaml(tmp_path / "example.yaml")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"widht": 3}, "unknown key 'widht' (given 3); did you mean 'width'? allowed: name, opti"),
        (
            {"optimiser": {"step": 3}},
            "unknown key 'optimiser.step' (given 3); did you mean 'steps'",
        ),
        ({"width": "8"}, "key 'width': input should be a valid integer, given '8'"),
        ({"width": 8.0}, "valid integer"),
        ({"width": True}, "valid integer"),
        ({"optimiser": {"learning_rate": -1.0}}, "greater than 0, given -1.0"),
        ({"optimiser": 5}, "key 'optimiser'"),
        ({"width": 1.5, "name": 2}, "key 'width': input should be a valid integer"),
    ],
)
def test_a_bad_config_names_key_value_and_what_is_allowed(data: dict[str, Any], says: str) -> None:
    with pytest.raises(FacekitError) as error:
        validate(data, Example, "example.yaml")
    assert says in str(error.value)
    assert str(error.value).startswith("example.yaml: ") and "\n" not in str(error.value)


def test_all_faults_of_a_config_are_named_at_once() -> None:
    with pytest.raises(FacekitError, match=r"width.*; .*name"):
        validate({"width": "x", "name": 1}, Example, "example.yaml")


def test_a_missing_key_is_named() -> None:
    class Needs(Config):
        data: str

    with pytest.raises(FacekitError, match="key 'data' is missing"):
        validate({}, Needs, "example.yaml")


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Example().width = 3  # type: ignore[misc]


def test_overrides_reach_into_sections_and_leave_the_original() -> None:
    data = {"width": 8, "a": {"b": {"c": 1}}}
    changed = apply_overrides(data, ["width=16", "a.b.c=1e-4", "new.key=[1, x]", "name="])
    assert changed["width"] == 16
    assert changed["a"] == {"b": {"c": 1e-4}}
    assert changed["new"] == {"key": [1, "x"]}
    assert changed["name"] is None
    assert data == {"width": 8, "a": {"b": {"c": 1}}}


@pytest.mark.parametrize("override", ["width", "=3", "width.deep=3", "width=[1"])
def test_a_bad_override_is_named(override: str) -> None:
    with pytest.raises(FacekitError) as error:
        apply_overrides({"width": 8}, [override])
    assert f"--set {override}" in str(error.value)


@pytest.mark.parametrize("installed", [True, False])
def test_bundled_configs_are_found_in_both_kinds_of_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    package = tmp_path / "facekit"
    configs = (package if installed else tmp_path) / "configs"
    (configs / "generators").mkdir(parents=True)
    package.mkdir(exist_ok=True)
    wanted = configs / "generators" / "example.yaml"
    wanted.write_text("width: 4")
    monkeypatch.setattr(config.resources, "files", lambda _: package)
    assert config.folder() == configs
    for name in (
        "generators/example",
        "generators/example.yaml",
        "configs/generators/example.yaml",
    ):
        assert config.find(name) == wanted
    assert config.find(wanted) == wanted
    with pytest.raises(FacekitError, match="did you mean 'generators/example'"):
        config.find("generators/exampel")


def test_every_bundled_config_is_read() -> None:
    found = sorted(config.folder().rglob("*.yaml"))
    assert found
    for path in found:
        assert read_yaml(path)


def test_did_you_mean() -> None:
    assert did_you_mean("swop", ["swap", "gan"]) == "did you mean 'swap'? allowed: gan, swap"
    assert did_you_mean("x", []) == "allowed: (none)"


# --- registry ---------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "example_plugins"
    folder.mkdir()
    for name in ("__init__", "face_swap", "gan", "_helper"):
        (folder / f"{name}.py").write_text(f"NAME = '{name}'\n")
    (folder / "broken.py").write_text("raise RuntimeError('imported')\n")
    (folder / "sub").mkdir()
    (folder / "sub" / "__init__.py").touch()
    (folder / "notes.txt").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return "example_plugins"


def test_a_file_is_a_plugin_and_listing_imports_none(package: str) -> None:
    assert registry.names(package) == ["broken", "face_swap", "gan"]
    assert f"{package}.gan" not in sys.modules
    assert registry.load(package, "gan").NAME == "gan"


def test_an_unknown_plugin_names_the_nearest(package: str) -> None:
    with pytest.raises(FacekitError, match=r"unknown example_plugin 'face_swop'; did you mean 'f"):
        registry.load(package, "face_swop")
    for name in ("_helper", "sub", "../gan", ""):
        with pytest.raises(FacekitError):
            registry.load(package, name)


# --- files ------------------------------------------------------------------------------------


def test_replacing_writes_all_and_keeps_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.png"
    with files.replacing(path) as partial:
        assert partial.suffix == ".png" and partial.parent == path.parent and partial != path
        partial.write_bytes(b"1")
        assert not path.exists()
    assert path.read_bytes() == b"1"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(FacekitError) as error, files.replacing(path) as partial:
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(error.value) == f"{path}: cannot be written (No space left on device)"
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "a.txt", tmp_path / "file" / "b" / "c" / "a.txt"):
        with pytest.raises(FacekitError, match=r"a\.txt: cannot be written"):
            files.write_text(path, "y")
    (tmp_path / "taken").mkdir()
    with pytest.raises(FacekitError, match="taken: cannot be written"):
        files.write_text(tmp_path / "taken", "y")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "taken"]


def test_a_forbidden_ancestor_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, whom no folder forbids anything.
    def forbidden(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "a"))

    monkeypatch.setattr(Path, "mkdir", forbidden)
    with pytest.raises(FacekitError, match=r"x\.txt: cannot be written \(Permission denied\)"):
        files.write_text(tmp_path / "a" / "b" / "x.txt", "y")


def test_an_error_about_another_file_passes_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.replacing(tmp_path / "a.txt"):
        (tmp_path / "elsewhere.txt").read_text()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=4))
def test_json_and_jsonl_give_back_what_was_written(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    files.write_jsonl(tmp_path / "rows.jsonl", rows)
    assert files.read_jsonl(tmp_path / "rows.jsonl") == rows
    files.write_json(tmp_path / "rows.json", rows)
    assert files.read_json(tmp_path / "rows.json") == rows


@pytest.mark.parametrize(
    ("content", "says"),
    [(b'{"a": 1}\n{"a"', "line 2: not JSON"), (b"[1]\n", "line 1: expected an object")],
)
def test_a_bad_row_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(FacekitError, match=says):
        files.read_jsonl(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("read", [files.read_json, files.read_jsonl])
def test_what_is_missing_or_no_text_is_one_line(tmp_path: Path, read: Any) -> None:
    with pytest.raises(FacekitError, match="none: no such file"):
        read(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff\xff")
    with pytest.raises(FacekitError, match="bytes: not readable"):
        read(tmp_path / "bytes")


def test_sha256_is_that_of_the_standard(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, example B.1
    assert files.sha256(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_manifest_is_read_as_written_and_a_bad_row_is_named(tmp_path: Path) -> None:
    items = [Item(path="a/0.png", sha256="0" * 64, subject="a", label=1, time=0.5)]
    write_manifest(tmp_path, items)
    assert read_manifest(tmp_path) == items
    (tmp_path / "manifest.jsonl").write_text('{"path": "a", "sha256": "", "lable": 1}\n')
    with pytest.raises(FacekitError, match=r"row 1: .*lable"):
        read_manifest(tmp_path)


# --- checkpoint -------------------------------------------------------------------------------

tensors = st.builds(
    lambda shape, kind, fill: torch.full(shape, fill).to(kind),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool]),
    st.integers(-3, 3),
)
states = st.recursive(
    tensors | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
    ),
    max_leaves=10,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=st.dictionaries(st.text(max_size=4), states, max_size=4))
def test_any_state_comes_back(tmp_path: Path, state: dict[str, Any]) -> None:
    checkpoint.save(tmp_path / "a.safetensors", state)
    assert same(state, checkpoint.load(tmp_path / "a.safetensors"))


def test_names_that_sound_alike_keep_their_tensors(tmp_path: Path) -> None:
    one, two, three = (torch.tensor(float(i)) for i in range(3))
    state = {"a": {1: one, "1": two}, "a/1": three}
    checkpoint.save(tmp_path / "a.safetensors", state)
    assert same(state, checkpoint.load(tmp_path / "a.safetensors"))


def test_shared_and_strided_tensors_are_kept(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(2, 3, 4)
    state = {
        "base": base,
        "tied": base,
        "slice": base[:, 1],
        "turned": base.transpose(0, 2),
        "grad": torch.nn.Parameter(base.clone()),
        "images": torch.randn(1, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    checkpoint.save(tmp_path / "a.safetensors", state)
    loaded = checkpoint.load(tmp_path / "a.safetensors")
    assert all(torch.equal(state[key], loaded[key]) for key in state)


def trained(steps: int, folder: Path, stop: int | None = None) -> list[torch.Tensor]:
    """Weights after ``steps`` of Adam; saved, thrown away and loaded again after ``stop``."""

    def fresh() -> tuple[torch.nn.Module, torch.optim.Optimizer, Any]:
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        optimiser = torch.optim.AdamW(network.parameters(), lr=0.1, betas=(0.5, 0.9), amsgrad=True)
        return network, optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10)

    network, optimiser, schedule = fresh()
    for step in range(steps):
        if step == stop:
            parts = (network, optimiser, schedule)
            state = {str(i): part.state_dict() for i, part in enumerate(parts)}
            checkpoint.save(folder / "a.safetensors", state)
            network, optimiser, schedule = fresh()
            loaded = checkpoint.load(folder / "a.safetensors")
            for i, part in enumerate((network, optimiser, schedule)):
                part.load_state_dict(loaded[str(i)])
        seed.seed_step(1, step)
        optimiser.zero_grad()
        network(torch.randn(8, 3)).square().sum().backward()
        optimiser.step()
        schedule.step()
    return [value.clone() for value in network.state_dict().values()]


@pytest.mark.parametrize("stop", [1, 4])
def test_training_resumed_from_a_checkpoint_gives_the_same_bits(tmp_path: Path, stop: int) -> None:
    for unbroken, resumed in zip(trained(6, tmp_path), trained(6, tmp_path, stop), strict=True):
        assert torch.equal(unbroken, resumed)


@pytest.mark.parametrize("leaf", [{1, 2}, b"bytes", np.zeros(2), object(), 1j])
def test_what_a_checkpoint_cannot_hold_is_named(tmp_path: Path, leaf: Any) -> None:
    with pytest.raises(TypeError, match=r"/a/b: .* cannot hold a"):
        checkpoint.save(tmp_path / "a.safetensors", {"a": {"b": leaf}})
    with pytest.raises(TypeError, match="as a key"):
        checkpoint.save(tmp_path / "a.safetensors", {"a": {(1, 2): 3}})
    assert not list(tmp_path.iterdir())


def test_notes_ride_along_in_every_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    state = {"weights": torch.arange(3.0)}
    checkpoint.save(path, state, {"who": "ann, bén", "state": "not the state"})
    assert checkpoint.notes(path) == {"who": "ann, bén", "state": "not the state"}
    assert same(state, checkpoint.load(path))
    written = set()
    for _ in range(8):
        checkpoint.save(path, state, {"who": "ann", "when": "now"})
        written.add(path.read_bytes())
    assert len(written) == 1, "equal states and notes are equal files"
    for header in ("[", '{"notes": 3}'):
        save_file({}, path, metadata={"state": header})
        with pytest.raises(FacekitError, match="its header does not hold its notes"):
            checkpoint.notes(path)
    checkpoint.save(path, state)
    assert checkpoint.notes(path) == {}
    for content in (b"", b"no checkpoint", path.read_bytes()[:40]):
        path.write_bytes(content)
        with pytest.raises(FacekitError, match=r"a\.safetensors: not a readable checkpoint"):
            checkpoint.notes(path)


def test_what_is_no_checkpoint_is_one_line(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    with pytest.raises(FacekitError, match=r"a\.safetensors: not a readable checkpoint"):
        checkpoint.load(path)
    for content in (b"", b"\x80\x04K\x01.", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(FacekitError, match="not a readable checkpoint"):
            checkpoint.load(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(FacekitError, match="not written by facekit"):
        checkpoint.load(path)
    for state in ('["dict"', "5", '["dict", [["a", ["tensor", "none"]]]]', '["dict", 3]'):
        save_file({"a": torch.zeros(2)}, path, metadata={"state": state})
        with pytest.raises(FacekitError, match="damaged"):
            checkpoint.load(path)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_checkpoint_is_read_or_one_error(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, {"weights": torch.arange(8.0), "more": {"step": 3, "list": [1, "x"]}})
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        checkpoint.load(path)
    except FacekitError as error:
        assert "a.safetensors" in str(error) and "\n" not in str(error)


# --- run folder -------------------------------------------------------------------------------


def start(folder: Path, **changes: Any) -> Run:
    facts: dict[str, Any] = {
        "plugin": "example",
        "config": Example(),
        "seed": 1,
        "data_hash": "abc",
        "threads": 2,
        "precision": "32-true",
    }
    return Run.start(folder, **{**facts, **changes})


def test_a_run_folder_says_what_was_run(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    facts = json.loads((run.folder / "run.json").read_text())
    assert facts["config"] == Example().model_dump()
    assert (facts["plugin"], facts["seed"], facts["data_hash"]) == ("example", 1, "abc")
    assert facts["threads"] == 2
    assert facts["packages"]["torch"] and facts["python"] and facts["facekit"]
    run.note(minutes=3.5)
    assert Run(run.folder).facts["minutes"] == 3.5


def test_the_same_inputs_resume_and_others_are_named(tmp_path: Path) -> None:
    start(tmp_path)
    assert start(tmp_path).facts["seed"] == 1
    changes = {
        "plugin": "other",
        "config": Example(width=9),
        "seed": 2,
        "data_hash": "abd",
        "threads": 1,
    }
    for key, value in changes.items():
        with pytest.raises(FacekitError, match=f"another {key} .*resume with the same"):
            start(tmp_path, **{key: value})


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FacekitError, match=r"not a run folder \(no run\.json\)"):
        Run(tmp_path)
    for content in ("[]", "{", ""):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(FacekitError, match=r"run\.json"):
            start(tmp_path)


def test_what_a_run_folder_lacks_is_named(tmp_path: Path) -> None:
    path = start(tmp_path).folder / "run.json"
    facts = files.read_json(path)
    for key in ("plugin", "config", "seed", "data_hash", "threads", "precision"):
        files.write_json(path, {name: value for name, value in facts.items() if name != key})
        with pytest.raises(FacekitError, match=rf"run\.json: does not say {key};"):
            Run(tmp_path)
    files.write_json(path, {})
    with pytest.raises(FacekitError, match="does not say plugin, config, seed, data_hash"):
        Run(tmp_path)


def test_only_the_newest_two_checkpoints_are_kept(tmp_path: Path) -> None:
    run = start(tmp_path)
    assert run.latest() is None and run.resume() is None
    for step in (5, 10, 15):
        run.save(step, {"weights": torch.tensor(step)})
    names = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert names == ["step-00000010.safetensors", "step-00000015.safetensors"]
    state = Run(tmp_path).latest()
    assert state is not None and state["step"] == 15 and state["weights"] == 15


def test_resuming_forgets_what_was_logged_after_the_checkpoint(tmp_path: Path) -> None:
    run = start(tmp_path)
    for step in range(1, 5):
        run.log(step, loss=step / 2)
        if step == 2:
            run.save(step, {})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # killed in mid-line
    run = start(tmp_path)
    state = run.resume()
    assert state == {"step": 2}
    assert run.metrics() == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 1.0}]
    run.log(3, loss=9.0)
    assert len(run.metrics()) == 3


def test_without_a_checkpoint_all_metrics_are_forgotten(tmp_path: Path) -> None:
    run = start(tmp_path)
    run.log(1, loss=1.0)
    assert run.resume() is None
    assert run.metrics() == []


def test_parts_are_restored_and_those_of_another_version_are_refused(tmp_path: Path) -> None:
    run = start(tmp_path)
    net = torch.nn.Linear(2, 3)
    run.save(4, {"net": net.state_dict()})
    state = start(tmp_path).resume()
    assert state is not None
    other = torch.nn.Linear(2, 3)
    assert run.restore(state, net=other) == 4
    assert torch.equal(other.weight, net.weight)
    for wrong in ({"net": torch.nn.Linear(3, 3)}, {"judge": other}):
        with pytest.raises(FacekitError, match=r"of another version of example .* another --out"):
            run.restore(state, **wrong)


def test_metrics_that_cannot_be_written_stop_the_run_with_an_error(tmp_path: Path) -> None:
    run = start(tmp_path)
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(FacekitError, match=r"metrics\.jsonl: cannot be written .* free some space"):
        run.log(1, loss=1.0)


# --- seed -------------------------------------------------------------------------------------


def draw() -> tuple[float, float, float]:
    return float(torch.rand(1)), float(np.random.rand()), random.random()  # noqa: NPY002


def test_randomness_is_a_function_of_seed_and_step() -> None:
    seed.seed_step(3, 7)
    first = draw()
    draw()
    seed.seed_step(3, 7)
    assert draw() == first
    others = set()
    for key in [(3, 8), (4, 7), (7, 3), (0, 0)]:
        seed.seed_step(*key)
        others.add(draw())
    assert len(others) == 4 and first not in others


def test_streams_of_one_seed_differ_by_purpose() -> None:
    # Why the rule exists: numpy pads with zeros, so without a purpose these are one stream.
    assert seed.rng(1).random() == seed.rng(1, 0).random() == seed.rng(1, 0, 0).random()
    keys = [*((s, p) for s in (0, 1) for p in seed.Purpose)]
    keys += [(s, n, p) for s in (0, 1) for n in (0, 1, *seed.Purpose) for p in seed.Purpose]
    assert all(key[-1] > 0 for key in keys)
    assert len({seed.rng(*key).random() for key in keys}) == len(keys)


@given(st.lists(st.integers(0, 2**63), min_size=1, max_size=4))
def test_a_generator_for_a_key_repeats(key: list[int]) -> None:
    assert seed.rng(*key).random() == seed.rng(*key).random()
    assert seed.rng(*key).random() != seed.rng(*key, 1).random()


# --- figures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "goal", "holds"),
    [
        (0.9, ">= 0.9", True),
        (0.89, ">= 0.9", False),
        (3, "<= 3", True),
        (4, "<= 3", False),
        (1, None, None),
        (float("nan"), ">= 0.9", False),
    ],
)
def test_whether_a_goal_holds(value: float, goal: str | None, holds: bool | None) -> None:
    assert Figure("x", value, goal=goal).holds is holds


def test_figures_are_shown_as_json_and_as_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "goals.yaml").write_text('a.auc: ">= 0.9"\n')
    monkeypatch.setattr(figures, "find", lambda _: tmp_path / "goals.yaml")
    rows = [Figure("a.auc", 0.95, low=0.9, high=0.99, floor=0.5), Figure("b.time", 2.0, "s")]
    figures.show(rows, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    keys = ["name", "value", "unit", "low", "high", "peer", "floor", "goal", "holds"]
    assert [list(row) for row in shown] == [keys, keys]
    assert shown[0]["goal"] == ">= 0.9" and shown[0]["holds"] is True
    assert shown[1]["goal"] is None and shown[1]["holds"] is None
    figures.show(rows, as_json=False)
    assert "a.auc" in capsys.readouterr().out
    figures.show([Figure("[/red] a[b]\n", 1.0)], as_json=False)
    assert "[/red] a[b]\ufffd" in capsys.readouterr().out
    figures.show([], as_json=False)


# --- device -----------------------------------------------------------------------------------


def test_the_processor_is_always_there() -> None:
    fabric = device.setup("cpu", threads=1)
    assert fabric.device.type == "cpu"
    assert torch.get_num_threads() == 1


def test_what_computes_can_be_named() -> None:
    device.setup("cpu", threads=1)
    assert device.name_of(torch.device("cpu")) == "cpu, 1 thread"


@pytest.mark.parametrize("precision", device.PRECISIONS)
def test_each_precision_can_be_asked_for(precision: str) -> None:
    fabric = device.setup("cpu", precision, threads=1)
    with fabric.autocast():
        assert torch.isfinite(torch.ones(2, 2) @ torch.ones(2, 2)).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "cude"}, "unknown device 'cude'; did you mean 'cuda'"),
        ({"device": "cpu", "precision": "64"}, "unknown precision '64'"),
        ({"device": "cpu", "threads": 0}, "--threads 0: at least 1"),
    ],
)
def test_a_device_that_does_not_exist_is_one_line(options: dict[str, Any], says: str) -> None:
    with pytest.raises(FacekitError, match=says):
        device.setup(**options)


def test_a_device_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "mps"):
        with pytest.raises(FacekitError, match=f"--device {name}: .*use --device cpu"):
            device.setup(name)


# --- weights ----------------------------------------------------------------------------------


def bundle(folder: Path, name: str, **changes: Any) -> Path:
    path = folder / f"{name}.safetensors"
    checkpoint.save(path, {"weights": torch.ones(3)})
    card: dict[str, Any] = dict.fromkeys(weights.KEYS, "x")
    card |= {"name": name, "file": path.name, "sha256": files.sha256(path), "minutes": 2.0}
    files.write_json(path.with_suffix(".json"), {**card, **changes})
    return path


def test_weights_that_match_their_card_are_found(tmp_path: Path) -> None:
    path = bundle(tmp_path, "good")
    found, card = weights.find(tmp_path, "good")
    assert found == path and card["licence"] == "x"
    assert weights.survey(tmp_path)[0].problems == ()
    assert weights.survey(tmp_path / "nowhere") == []
    with pytest.raises(FacekitError, match="did you mean 'good'"):
        weights.find(tmp_path, "god")


def spoil(path: Path, how: str) -> None:
    card = path.with_suffix(".json")
    match how:
        case "no card":
            card.unlink()
        case "no weights":
            path.unlink()
        case "hash":
            path.write_bytes(path.read_bytes() + b"\0")
        case "key":
            content = files.read_json(card)
            files.write_json(card, {key: content[key] for key in content if key != "licence"})
        case "json":
            card.write_text("{")
        case "list":
            card.write_text("[]")
        case "digits":
            files.write_json(card, {**files.read_json(card), "sha256": None})
        case "name":
            files.write_json(card, {**files.read_json(card), "file": "other.safetensors"})


SPOILED = {
    "no card": "no card beside it",
    "no weights": "a card without its weights",
    "hash": "not the file its card describes",
    "key": "key 'licence' is missing",
    "json": "not readable as JSON",
    "list": "not a card",
    "digits": "not 64 hex digits",
    "name": "expected 'a.safetensors'",
}


@pytest.mark.parametrize("how", SPOILED)
def test_weights_that_do_not_match_their_card_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    from facekit.commands import weights as commands

    monkeypatch.setattr(commands, "_folders", lambda: {"facekit": tmp_path})
    run = CliRunner()
    spoil(bundle(tmp_path, "a"), how)
    bundle(tmp_path, "b")
    with pytest.raises(FacekitError):
        weights.find(tmp_path, "a")
    result = run.invoke(commands.command, ["verify"])
    assert result.exit_code == 1
    assert SPOILED[how] in result.output and "facekit/b: ok" in result.output
    result = run.invoke(commands.command, ["verify", "--json"])
    shown = json.loads(result.output)
    assert result.exit_code == 1 and shown["holds"] is False
    assert [bool(row["problems"]) for row in shown["weights"]] == [True, False]
    assert run.invoke(commands.command, ["list"]).exit_code == 0


def test_intact_weights_are_listed_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from facekit.commands import weights as commands

    monkeypatch.setattr(commands, "_folders", lambda: {"facekit": tmp_path})
    run = CliRunner()
    for arguments in (["list"], ["verify"]):
        result = run.invoke(commands.command, arguments)
        assert result.exit_code == 0 and "no weights are bundled" in result.output
    bundle(tmp_path, "a", licence="Apache-2.0", data="studio, 40 people")
    result = run.invoke(commands.command, ["list"])
    assert "facekit/a" in result.output and "Apache-2.0" in result.output
    assert "studio, 40 people in 2 min" in result.output
    assert json.loads(run.invoke(commands.command, ["list", "--json"]).output)[0]["name"] == "a"
    assert run.invoke(commands.command, ["verify"]).output == "facekit/a: ok\n"


def test_the_weights_that_are_shipped_are_intact() -> None:
    from facekit.commands import weights as commands

    result = CliRunner().invoke(commands.command, ["verify"])
    assert result.exit_code == 0, result.output


def test_a_cards_command_names_no_place_of_the_machine_it_was_trained_on() -> None:
    words = ["/opt/bin/facekit", "detector", "train", "a.yaml", "--data", "/x y", "--out", "/z"]
    assert text.command_line(words) == "facekit detector train a.yaml --data DATA --out RUN"
