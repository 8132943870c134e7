"""``facekit demo``: the whole way in one command, made of the commands that a user would give."""

import io
import json
import logging
import shlex
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import click

from facekit import __version__
from facekit.core.config import Config, find, read_yaml, validate
from facekit.core.errors import FacekitError
from facekit.core.files import read_json, write_json, write_text

log = logging.getLogger("facekit")

CLIP_SEED = 1001
"""The performance's seed is this plus the demo's, so that no training frame repeats it."""


class Plan(Config):
    """What a demo renders and trains.

    Attributes:
        people: studio people, from 6 on: a detector's three splits need two each.
        frames: pictures of each.
        size: their side in pixels.
        source: whose face is shown …
        target: … and in whose performance.
        seconds: length of the clip that is changed.
        rate: its frames/s.
        generator: config of the swap.
        head: weights that move a photo.
        detector: config of the detector.
        budget: seconds that each step takes on 2 cores, to tell how long is left.
    """

    people: int
    frames: int
    size: int
    source: str
    target: str
    seconds: float
    rate: float
    generator: str
    head: str
    detector: str
    budget: dict[str, float]


@dataclass
class Demo:
    """One demo folder on its way: what is asked for, and what the steps found so far.

    Attributes:
        out: the folder.
        plan: what to render and train.
        seed: of everything.
        done: step → what it found; kept in ``demo.json``, so that an interrupted demo goes on.
        pace: seconds taken / seconds budgeted so far, in this process.
    """

    out: Path
    plan: Plan
    seed: int
    quick: bool
    done: dict[str, Any] = field(default_factory=dict)
    spent: float = 0.0
    budgeted: float = 0.0

    def step(self, name: str, what: str, work: Callable[["Demo"], dict[str, Any]]) -> None:
        """Do a step unless it is done; say what it does and how long is left; keep the result."""
        number, total = list(self.plan.budget).index(name) + 1, len(self.plan.budget)
        if name in self.done:
            log.info("[%d/%d] %s: done before", number, total, what)
            return
        pace = self.spent / self.budgeted if self.budgeted else 1.0
        left = pace * sum(s for step, s in self.plan.budget.items() if step not in self.done)
        mine = pace * self.plan.budget[name]
        log.info(
            "[%d/%d] %s (about %s; %s left in all)", number, total, what, _span(mine), _span(left)
        )
        began = time.monotonic()
        found = work(self)
        seconds = time.monotonic() - began
        self.spent += seconds
        self.budgeted += self.plan.budget[name]
        self.done[name] = {"title": what, "seconds": seconds, **found}
        write_json(self.out / "demo.json", {"request": self.request, "done": self.done})

    @property
    def request(self) -> dict[str, Any]:
        """What was asked for: a folder made for something else is refused."""
        return {"facekit": __version__, "seed": self.seed, "plan": self.plan.model_dump()}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/demo"),
    show_default=True,
    help="Where to write; an interrupted demo in it goes on.",
)
@click.option("--quick", is_flag=True, help="Fewer people, shorter training: about 5 minutes.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Other people, another swap.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Processes that render.",
)
def command(out: Path, quick: bool, seed: int, workers: int) -> None:
    """Go the whole way: people, swap, mark, detector, analysis, and a page that shows it.

    Nothing is downloaded and nobody is shown: the studio renders people who don't exist. Takes
    about 20 minutes on 2 cores, with --quick about 5. Give the same command again to go on
    after an interruption.

    \b
    Examples:
      facekit demo --quick
      facekit demo --out out/demo --seed 3
    """
    source = find(f"demo/{'quick' if quick else 'full'}")
    plan = validate(read_yaml(source), Plan, source)
    demo = Demo(out, plan, seed, quick)
    if (out / "demo.json").exists():
        before = read_json(out / "demo.json")
        if before.get("request") != demo.request:
            raise FacekitError(
                f"{out}: holds a demo of another size, seed or version; give another --out"
            )
        demo.done = before["done"]

    demo.step("people", f"render {plan.people} people who don't exist", _people(workers))
    demo.step("clip", "render a clip to swap the face in", _clip(workers))
    demo.step("train", "train the face swap", _train)
    demo.step("swap", "swap the face in the clip, mark and sign it", _swap)
    demo.step("head", "move a photo as the clip moves, mark and sign it", _head)
    demo.step("marks", "read the marks back", _marks)
    demo.step("detector", "train and measure the detector", _detector)
    demo.step("analyze", "analyze the swap and the untouched clip", _analyze)
    demo.step("pictures", "draw the whole way", _pictures)
    page = out / "index.html"
    write_text(page, _page(demo))
    click.echo(f"open {page}")


def _people(workers: int) -> Callable[[Demo], dict[str, Any]]:
    def work(demo: Demo) -> dict[str, Any]:
        plan, folder = demo.plan, demo.out / "people"
        processes = min(workers, plan.people * plan.frames)
        facekit(
            *("studio", "render", "--people", plan.people, "--frames", plan.frames),
            *("--size", plan.size, "--seed", demo.seed, "--workers", processes, "--out", folder),
        )
        from facekit import export
        from facekit.commands.demo_pictures import grid
        from facekit.media.images import read_image
        from facekit.types import read_manifest
        from facekit.watermark import Kind

        subjects = [f"person-{i:04d}" for i in range(plan.people)]
        shots = [sorted((folder / name).glob("*.png"))[:2] for name in subjects]
        faces = [[read_image(shot[i]) for shot in shots] for i in (0, 1)]
        export.write_image(demo.out / "people.png", grid(faces), kind=Kind.STUDIO)
        said = {item.subject: item.facts["description"] for item in read_manifest(folder)}
        return {"descriptions": {name: said[name] for name in subjects}}

    return work


def _clip(workers: int) -> Callable[[Demo], dict[str, Any]]:
    def work(demo: Demo) -> dict[str, Any]:
        from facekit.types import read_manifest

        plan = demo.plan
        items = read_manifest(demo.out / "people")
        seeds = {item.subject: item.facts["person_seed"] for item in items}
        processes = min(workers, max(round(plan.seconds * plan.rate), 1))
        facekit(
            *("studio", "clip", "--person-seed", seeds[plan.target], "--seconds", plan.seconds),
            *("--rate", plan.rate, "--size", plan.size, "--seed", CLIP_SEED + demo.seed),
            *("--workers", processes, "--out", demo.out / "clip"),
        )
        return {}

    return work


def _train(demo: Demo) -> dict[str, Any]:
    facts: dict[str, Any] = facekit(
        *("generator", "train", demo.plan.generator, "--data", demo.out / "people"),
        *("--out", demo.out / "swap", "--seed", demo.seed, "--precision", "auto", "--json"),
    )
    return facts


def _swap(demo: Demo) -> dict[str, Any]:
    clip, swapped = demo.out / "clip" / "clip.mp4", demo.out / "swap.mp4"
    facekit(
        *("generator", "run", demo.out / "swap", "--input", clip, "--out", swapped),
        *("--source", demo.plan.source, "--precision", "auto", "--json"),
    )
    return _compare_with_truth(demo, clip, swapped)


def _compare_with_truth(demo: Demo, clip: Path, swapped: Path) -> dict[str, Any]:
    """PSNR in the face of swap and floor, and a picture of target, swap and truth."""
    import numpy as np

    from facekit import export
    from facekit.commands.demo_pictures import grid, inner_face, psnr
    from facekit.media.decode import Video
    from facekit.studio import truth
    from facekit.studio.performance import Performance
    from facekit.studio.person import Person
    from facekit.studio.render import render
    from facekit.types import read_manifest
    from facekit.watermark import Kind

    people = {i.subject: i.facts["person_seed"] for i in read_manifest(demo.out / "people")}
    source, target = (
        Person.sample(int(str(people[subject]))) for subject in (demo.plan.source, demo.plan.target)
    )
    (item,) = read_manifest(clip.parent)
    labels: Any = item.facts["frames"]
    shown = np.linspace(0, len(labels) - 1, 6).round().astype(int).tolist()
    rows = []
    for path in (clip, swapped):
        with Video(path) as video:
            rows.append([frame.pixels for i, frame in enumerate(video) if i in shown])
    answers = [
        truth.swap(
            source,
            render(target, Performance.from_json(labels[i]["performance"]), demo.plan.size),
        )
        for i in shown
    ]
    rows.append([answer.pixels for answer in answers])
    boxes = [inner_face(answer.landmarks) for answer in answers]
    export.write_image(
        demo.out / "truth.png",
        grid(rows),
        kind=Kind.COMPOSITE,
        inputs=[clip],
        facts={"origin": "studio"},
    )
    found = {"swap": psnr(rows[1], rows[2], boxes), "floor": psnr(rows[0], rows[2], boxes)}
    return {"psnr": found}


def _head(demo: Demo) -> dict[str, Any]:
    from facekit.types import read_manifest

    people = demo.out / "people"
    mine = [item for item in read_manifest(people) if item.subject == demo.plan.source]
    # Of a profile too little is seen: the photo that looks into the camera most of all.
    facing: dict[str, Any] = {item.path: item.facts["camera"] for item in mine}
    photo = min(facing, key=lambda path: facing[path]["camera_from_head"][2][2])
    facekit(
        *("generator", "run", demo.plan.head, "--photos", people / photo),
        *("--driver", demo.out / "clip" / "clip.mp4", "--out", demo.out / "head.mp4"),
        *("--precision", "auto", "--json"),
    )
    return {"photo": photo}


def _marks(demo: Demo) -> dict[str, Any]:
    from facekit.provenance.manifest import verify

    clip = demo.out / "clip" / "clip.mp4"
    rows = []
    for path in (*(demo.out / f"{name}.mp4" for name in ("swap", "head")), clip):
        reading = facekit("watermark", "read", path, "--json")
        reading["provenance"] = verify(path).status
        rows.append({"name": str(path.relative_to(demo.out)), **reading})
    return {"readings": rows}


def _detector(demo: Demo) -> dict[str, Any]:
    data = ("--data", demo.out / "people", "--generator", demo.out / "swap")
    run = demo.out / "detector"
    facekit("detector", "train", demo.plan.detector, *data, "--out", run, "--seed", demo.seed)
    facekit("detector", "evaluate", run, *data)
    return dict(read_json(run / "evaluation.json"))


def _analyze(demo: Demo) -> dict[str, Any]:
    files = (demo.out / "swap.mp4", demo.out / "clip" / "clip.mp4")
    report = facekit(
        *("analyze", *files, "--detector", demo.out / "detector"),
        *("--out", demo.out / "report", "--json"),
    )
    rows = []
    for path, file in zip(files, report["files"], strict=True):
        verdict = file["verdict"]
        rows.append(
            {
                "name": path.relative_to(demo.out).as_posix(),
                "verdict": verdict["conclusion"],
                "reasons": [reason["text"] for reason in verdict["reasons"]],
            }
        )
    return {"verdicts": rows}


def _pictures(demo: Demo) -> dict[str, Any]:
    from facekit import export
    from facekit.commands.demo_pictures import pipeline
    from facekit.media.images import read_image
    from facekit.watermark import Kind

    shots = [sorted(p.glob("*.png"))[1] for p in sorted((demo.out / "people").glob("person-*"))]
    mark = demo.done["marks"]["readings"][0]
    pixels = pipeline(demo.out, [read_image(shot) for shot in shots], mark)
    inputs = [demo.out / "clip" / "clip.mp4", demo.out / "swap.mp4"]
    export.write_image(
        demo.out / "pipeline.png",
        pixels,
        kind=Kind.COMPOSITE,
        inputs=inputs,
        facts={"origin": "studio"},
    )
    return {}


def facekit(*words: object) -> Any:
    """Give a facekit command in this process, after saying it.

    Returns:
        What it printed as JSON, where ``--json`` was asked for; else None.
    """
    name, *rest = map(str, words)
    log.info("      $ facekit %s", shlex.join([name, *rest]))
    group: click.Command = import_module(f"facekit.commands.{name}").command
    printed = io.StringIO()
    with redirect_stdout(printed):
        group.main(rest, prog_name=f"facekit {name}", standalone_mode=False)
    return json.loads(printed.getvalue()) if "--json" in rest else None


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _page(demo: Demo) -> str:
    from jinja2 import Environment, StrictUndefined

    template = (resources.files("facekit.commands") / "demo.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    strips = sorted((demo.out / "swap" / "strips").glob("*.png"))
    return environment.from_string(template).render(
        quick=demo.quick,
        version=__version__,
        seed=demo.seed,
        plan=demo.plan,
        source=demo.plan.source,
        target=demo.plan.target,
        strips=[path.relative_to(demo.out).as_posix() for path in strips],
        minutes=round(sum(step["seconds"] for step in demo.done.values()) / 60, 1),
        steps=[demo.done[name] for name in demo.plan.budget],
        **demo.done,
    )
