"""``facekit demo``: what it does again and what not, its page, and once the whole way, tiny."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from matplotlib.figure import Figure

from facekit import export, watermark
from facekit.cli import cli
from facekit.commands import demo as module
from facekit.commands.demo_pictures import _scores, grid
from facekit.core.config import find, read_yaml, validate
from facekit.core.errors import FacekitError
from facekit.media.decode import Video
from facekit.media.images import read_image
from facekit.provenance.manifest import verify

STEPS = "people clip train swap head marks detector analyze pictures".split()

FOUND: dict[str, dict[str, Any]] = {
    "people": {
        "descriptions": {f"person-{i:04d}": f"<somebody> of {i + 20}" for i in range(6)},
    },
    "clip": {},
    "train": {"step": 777, "loss": 0.1, "seconds": 99.0},
    "swap": {"psnr": {"swap": 23.456, "floor": 12.345}},
    "head": {"photo": "person-0001/0007.png"},
    "marks": {
        "readings": [
            {
                "name": "swap.mp4",
                "present": True,
                "kind": "composite",
                "p_value": 1.5e-40,
                "corrected": 3,
                "provenance": "untrusted",
            },
            {
                "name": "clip/clip.mp4",
                "present": False,
                "kind": None,
                "p_value": 0.7,
                "corrected": None,
                "provenance": "absent",
            },
        ]
    },
    "detector": {
        "data": "people: 12 untouched, 12 generated",
        "interval": "bootstrap over 2 people",
        "figures": [
            {
                **{"name": "auc", "value": 0.876, "low": 0.75, "high": 0.95},
                **{"floor": 0.512, "peer": 0.634},
            },
            {
                **{"name": "ece", "value": 0.0425, "low": None, "high": None},
                **{"floor": None, "peer": None},
            },
        ],
    },
    "analyze": {
        "verdicts": [
            {"name": "swap.mp4", "verdict": "generated", "reasons": ["the mark", "<b>& more</b>"]},
            {"name": "clip/clip.mp4", "verdict": "no sign found", "reasons": ["nothing"]},
        ]
    },
    "pictures": {},
}
"""What each step says that it found."""


def run(out: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["demo", "--out", str(out), *options])


def error_of(result: Result) -> str:
    assert isinstance(result.exception, FacekitError), result.exception
    return str(result.exception)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps that were done, of a demo whose steps cost nothing."""
    done: list[str] = []

    def fabricated(name: str) -> Any:
        def work(demo: module.Demo) -> dict[str, Any]:
            done.append(name)
            if name == "train":
                strip = demo.out / "swap" / "strips" / "step-00000777.png"
                strip.parent.mkdir(parents=True, exist_ok=True)
                strip.touch()
            return FOUND[name]

        return work

    for name in STEPS:
        work = fabricated(name)
        # Two of them are made for a number of workers.
        maker = (lambda workers, work=work: work) if name in ("people", "clip") else work
        monkeypatch.setattr(module, f"_{name}", maker)
    return done


@pytest.mark.parametrize("name", ["full", "quick"])
def test_a_plan_gives_every_step_its_time(name: str) -> None:
    path = find(f"demo/{name}")
    plan = validate(read_yaml(path), module.Plan, path)
    assert list(plan.budget) == STEPS
    assert plan.people >= 6
    assert sum(plan.budget.values()) <= {"full": 20 * 60, "quick": 5 * 60}[name]
    for config in (plan.generator, plan.detector):
        assert find(config).is_file()


def test_steps_are_done_in_order_and_once(tmp_path: Path, calls: list[str]) -> None:
    result = run(tmp_path / "demo", "--quick")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == f"open {tmp_path / 'demo' / 'index.html'}"
    assert calls == STEPS
    kept = json.loads((tmp_path / "demo" / "demo.json").read_text())
    assert set(kept["done"]) == set(STEPS)
    assert kept["done"]["swap"]["psnr"] == FOUND["swap"]["psnr"]

    page = tmp_path / "demo" / "index.html"
    first = page.read_bytes()
    page.unlink()
    assert run(tmp_path / "demo", "--quick").exit_code == 0
    assert calls == STEPS
    assert page.read_bytes() == first


def test_an_interrupted_demo_goes_on_where_it_stopped(
    tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(demo: module.Demo) -> dict[str, Any]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_marks", interrupted)
        assert run(tmp_path, "--quick").exit_code != 0
    assert calls == STEPS[:5]
    assert not (tmp_path / "index.html").exists()
    assert run(tmp_path, "--quick").exit_code == 0
    assert calls == STEPS
    assert (tmp_path / "index.html").is_file()


@pytest.mark.parametrize("options", [("--quick", "--seed", "1"), ()])
def test_a_folder_of_another_seed_or_plan_is_refused(
    tmp_path: Path, calls: list[str], options: tuple[str, ...]
) -> None:
    run(tmp_path, "--quick")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    said = error_of(run(tmp_path, *options))
    assert str(tmp_path) in said and "--out" in said and "\n" not in said
    assert calls == STEPS
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


# The page -------------------------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path: Path) -> module.Demo:
    path = find("demo/quick")
    demo = module.Demo(tmp_path, validate(read_yaml(path), module.Plan, path), 5, True)
    demo.done = {
        name: {"title": f"what {name} does", "seconds": 60.0 + i, **FOUND[name]}
        for i, name in enumerate(STEPS)
    }
    for step in (400, 800):
        strip = tmp_path / "swap" / "strips" / f"step-{step:08d}.png"
        strip.parent.mkdir(parents=True, exist_ok=True)
        strip.touch()
    return demo


def test_the_page_shows_what_every_step_found(finished: module.Demo) -> None:
    page = module._page(finished)
    pair = [int(name[-4:]) for name in (finished.plan.source, finished.plan.target)]
    assert re.findall(r"<h2><span>(\d)</span>", page) == list("1234567")
    for name in STEPS:
        assert f"what {name} does" in page
    for text in (
        *(
            "seed 5",
            "777 steps",
            "person-0005",
            "people/person-0001/0007.png",
            *(f"&lt;somebody&gt; of {20 + i}" for i in pair),
        ),
        *("23.5 dB", "12.3 dB", "1.5e-40", "7.0e-01", "composite", "untrusted", "none found"),
        *("12 untouched, 12 generated", "bootstrap over 2 people"),
        *("0.876", "0.750 – 0.950", "0.512", "0.634"),
        *("no sign found", "the mark; &lt;b&gt;&amp; more&lt;/b&gt;"),
    ):
        assert text in page, text
    assert page.index("step-00000800.png") < page.index("step-00000400.png")


def test_the_page_asks_for_nothing_from_elsewhere(finished: module.Demo) -> None:
    page = module._page(finished)
    links = re.findall(r"""(?:src|href|poster|action)\s*=\s*["']([^"']*)""", page)
    assert {"pipeline.png", "people.png", "truth.png", "clip/clip.mp4"} < set(links)
    assert {"swap.mp4", "head.mp4", "people/person-0001/0007.png"} < set(links)
    assert not [link for link in links if ":" in link or link.startswith("/")]
    assert not re.search(r"https?:|@import|<script|url\(", page)


@pytest.mark.parametrize("name", [name for name in STEPS if FOUND[name]])
def test_a_page_that_lacks_something_is_an_error(finished: module.Demo, name: str) -> None:
    for key in FOUND[name].keys() - {"loss", "seconds"}:
        whole = finished.done[name]
        finished.done[name] = {k: v for k, v in whole.items() if k != key}
        with pytest.raises(jinja2.UndefinedError, match=key):
            module._page(finished)
        finished.done[name] = whole
    del finished.done[name]
    with pytest.raises(KeyError, match=name):
        module._page(finished)


def test_pictures_are_laid_out_in_rows() -> None:
    pictures = [np.full((2, 3, 3), i, np.uint8) for i in range(6)]
    sheet = grid([pictures[:3], pictures[3:]])
    assert sheet.shape == (4, 9, 3)
    assert sheet[::2, ::3, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_face_too_small_to_score_has_no_curve() -> None:
    seen = [{"time": i / 10, "score": 0.1 * i} for i in range(4)]
    unseen = [{"time": 0.0, "score": None}]
    files = [{"tracks": [{"sightings": seen}, {"sightings": unseen}]}, {"tracks": []}]
    axes = Figure().add_subplot()
    _scores(axes, {"files": files, "detector": {"threshold": 0.5}})
    curve, threshold = axes.lines
    assert np.allclose(curve.get_ydata(), [0, 0.1, 0.2, 0.3])
    assert np.allclose(threshold.get_ydata(), 0.5)


# The whole way --------------------------------------------------------------------------------


@pytest.fixture
def tiny_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real commands, on as little as they take."""
    texts = {
        "generator": "generator: face_swap\nsize: 32\nwidth: 8\ncode: 16\nsteps: 60\nbatch: 12\n"
        "least_photos: 2\nlearning_rate: 5e-3\nwarm_up: 5\ncheckpoint_every: 10\nstrip_every: 20\n",
        "detector": "detector: small_cnn\ndata: {size: 32, frames: 4}\nwidths: [4, 8]\n"
        "training: {steps: 4, batch: 8, validate_every: 2}\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "people: 6\nframes: 4\nsize: 128\nseconds: 0.5\nrate: 12.0\n"
        "source: person-0000\ntarget: person-0001\n"
        f"generator: {tmp_path / 'generator.yaml'}\nhead: talking_head_64\n"
        f"detector: {tmp_path / 'detector.yaml'}\n"
        f"budget: {json.dumps(dict.fromkeys(STEPS, 1.0))}\n"
    )
    monkeypatch.setattr(module, "find", lambda name: plan)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_plan")
def test_the_whole_way_and_once_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo"
    with monkeypatch.context() as patch:
        # In the middle of the training: after a checkpoint, at the first strip.
        patch.setattr("facekit.export.write_image", interrupt_strips(export.write_image))
        assert run(out, "--quick", "--workers", "1").exit_code != 0
    assert set(json.loads((out / "demo.json").read_text())["done"]) == {"people", "clip"}
    assert not (out / "index.html").exists()
    rendered = (out / "people" / "manifest.jsonl").stat().st_mtime_ns

    result = run(out, "--quick", "--workers", "1")
    assert result.exit_code == 0, (result.output, result.exception)
    assert (out / "people" / "manifest.jsonl").stat().st_mtime_ns == rendered
    done = json.loads((out / "demo.json").read_text())["done"]
    assert set(done) == set(STEPS)
    assert done["train"]["step"] == 60

    marked, unmarked = (watermark.read_file(out / p) for p in ("swap.mp4", "clip/clip.mp4"))
    assert marked.present and marked.kind == "composite" and marked.p_value < 1e-6
    assert not unmarked.present and unmarked.p_value > 1e-6
    assert [row["present"] for row in done["marks"]["readings"]] == [True, True, False]
    for name in ("swap.mp4", "head.mp4"):
        assert verify(out / name).status == "untrusted"
    assert watermark.read_file(out / "head.mp4").kind == "generated"
    with Video(out / "swap.mp4") as swap, Video(out / "clip" / "clip.mp4") as clip:
        assert len(list(swap)) == len(list(clip)) == 6
    # Certified studio media carry no mark; what is to be looked at does, and says what it is.
    assert verify(out / "people.png").claims["kind"] == "studio"
    assert watermark.read(read_image(out / "truth.png")).kind == "composite"
    for strip in (out / "swap" / "strips").iterdir():
        assert verify(strip).status == "untrusted"

    auc = next(row for row in done["detector"]["figures"] if row["name"].endswith("auc"))
    assert 0 <= auc["value"] <= 1
    report = json.loads((out / "report" / "report.json").read_text())
    verdicts = [file["verdict"]["conclusion"] for file in report["files"]]
    assert verdicts == [row["verdict"] for row in done["analyze"]["verdicts"]]
    # What a detector of four steps says of the clip is chance; the swap's mark is not.
    assert verdicts[0] == "evidence of manipulation"
    swap_reasons, clip_reasons = (row["reasons"] for row in done["analyze"]["verdicts"])
    signed, marked, *_ = swap_reasons
    assert signed.startswith("its content credentials") and signed.endswith("say 'composite'")
    assert marked.startswith("it carries a mark that says 'composite'")
    assert not [reason for reason in clip_reasons if "a mark" in reason]

    page = (out / "index.html").read_text(encoding="utf-8")
    links = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert links and not [link for link in links if not (out / link).is_file()]
    assert not list(out.rglob("*.partial"))


def interrupt_strips(write: Callable[..., Any]) -> Callable[..., Any]:
    def interrupted(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.parent.name == "strips":
            raise KeyboardInterrupt
        return write(path, *arguments, **options)

    return interrupted
