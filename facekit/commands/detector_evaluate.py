"""``facekit detector evaluate``: how well scores tell generated faces from untouched ones."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facekit.commands import options
from facekit.core.errors import FacekitError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from detectors.score import Scorer

SCORES, LABELS = "scores.jsonl", "labels.jsonl"
"""What --out keeps of --scores and --labels."""

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


def _numbers(_: click.Context, option: click.Parameter, text: str | None) -> list[float] | None:
    """``0.485,0.456,0.406`` as numbers."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"'{text}': one number, or three with commas between", param=option
        ) from None


@dataclass(frozen=True)
class _Onnx:
    """An ONNX file and what is said of it; None, or not ``bgr``, is what is not said."""

    path: Path
    size: int | None
    mean: list[float] | None
    std: list[float] | None
    template: str | None
    output: str | None
    head: str | None
    bgr: bool


@click.command()
@click.argument("what", required=False, metavar="[CONFIG|RUN]")
@click.option(
    "--data",
    type=_FOLDER,
    help="The folder that CONFIG's paths are relative to; for a training's RUN, as it was trained.",
)
@click.option(
    "--detector", help="With CONFIG: a run folder, or a bundled name.  [default: default]"
)
@click.option(
    "--scores", type=_FILE, help="Measure these: of 'facekit detector score', or anybody's."
)
@click.option("--labels", type=_FILE, help="With --scores: CSV or JSONL with path and label.")
@click.option("--onnx", type=_FILE, help="With CONFIG: somebody else's detector.")
@click.option("--size", type=click.IntRange(1), help="Of its square input, in pixels.")
@click.option(
    "--mean",
    callback=_numbers,
    help="Of what it takes, pixels being 0 to 1, e.g. 0.485,0.456,0.406.",
)
@click.option(
    "--std", callback=_numbers, help="By which it is divided then, e.g. 0.229,0.224,0.225."
)
@click.option("--template", help="How its crops show a face.  [default: wide]")
@click.option(
    "--output",
    help="What it gives: logit, probability, real-logit, real-probability, softmax:1.  "
    "[default: logit]",
)
@click.option("--head", metavar="NAME", help="Which of its outputs is the score.")
@click.option("--bgr", is_flag=True, help="It takes blue first.")
@click.option(
    "--generator",
    type=_FOLDER,
    help="With a training's RUN: the run that made its generated faces.",
)
@click.option(
    "--generated", type=_FOLDER, help="With a training's RUN: a folder of generated faces."
)
@click.option(
    "--out",
    type=_FOLDER,
    help="Write evaluation.json, evaluation.html and the scores there.",
)
@click.option(
    "--quick", is_flag=True, help="With CONFIG: a few of everything, to see that it works."
)
@options.DEVICE
@options.PRECISION
@options.THREADS
@options.SET
@options.JSON
def evaluate(
    what: str | None,
    data: Path | None,
    detector: str | None,
    scores: Path | None,
    labels: Path | None,
    onnx: Path | None,
    size: int | None,
    mean: list[float] | None,
    std: list[float] | None,
    template: str | None,
    output: str | None,
    head: str | None,
    bgr: bool,
    generator: Path | None,
    generated: Path | None,
    out: Path | None,
    quick: bool,
    device: str,
    precision: str,
    threads: int | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure a detector, or scores that lie in a file.

    With CONFIG, a bundled or own one, the detector meets faces that its training never saw, beside
    published ones and a spectrum with logistic regression.

    --out keeps the scores; every figure is made anew from there by 'facekit detector evaluate OUT'.

    With --scores and --labels it needs nothing else. A frame has the highest score of its faces,
    a track the mean of its rows, a video the highest of its tracks. What has no score counts as
    wrong; a second table leaves it out.

    With the RUN of a training it meets the test people of the folder that it was trained on, or all
    of another; beside it stand a peer (spectra) and a floor (mean colours) fitted on the same.
    One that was trained on collections is measured by a CONFIG, with --detector RUN.

    \b
    Examples:
      facekit detector evaluate evaluations/default --data DATA --out out/evaluation
      facekit detector evaluate out/evaluation
      facekit detector evaluate --scores scores.jsonl --labels labels.csv --out out/evaluation
      facekit detector evaluate --onnx theirs.onnx --size 224 --mean 0.5 --std 0.5 --data DATA
      facekit detector evaluate runs/d --data people --generator runs/swap
    """
    from facekit.core import device as devices

    file = {
        **{"size": size, "mean": mean, "std": std, "template": template, "output": output},
        **{"head": head, "bgr": bgr},
    }
    if not onnx and (said := _given(file)):
        raise FacekitError(f"{said} says nothing without --onnx; leave it out, or give --onnx FILE")
    of_config = {"detector": detector, "onnx": onnx, "quick": quick, "set": overrides}
    of_run = {"generator": generator, "generated": generated}
    if scores or labels:
        _allow_none("--scores", {"what": what, "data": data, **of_config, **of_run})
        _from_files(scores, labels, out, as_json)
        return
    kept = _kept(Path(what)) if what else None
    if kept:
        _allow_none("a finished evaluation", {"data": data, "out": out, **of_config, **of_run})
        _again(Path(str(what)), kept, as_json)
        return
    if data is None:
        raise FacekitError(
            "nothing to measure on: give --data DIR, or --scores FILE with --labels FILE"
        )
    fabric = devices.setup(device, precision, threads=threads)
    if what and Path(what).is_dir():
        if not (Path(what) / "run.json").is_file():
            raise FacekitError(
                f"{what}: neither an evaluation nor a training's run is in this folder"
            )
        _allow_none("a training's RUN", of_config)
        _of_training(Path(what), data, generator, generated, out, fabric, as_json)
        return
    _allow_none("CONFIG", of_run)
    if onnx:
        _allow_none("--onnx", {"detector": detector})
        scorer = _load(_Onnx(onnx, size, mean, std, template, output, head, bgr))
    else:
        from detectors.score import Detector

        scorer = Detector.load(detector or "default", fabric.device)
    _by_config(what or "evaluations/default", overrides, scorer, data, out, quick, fabric, as_json)


def _allow_none(form: str, given: Mapping[str, object]) -> None:
    """Refuse what another form of the command takes."""
    if said := _given(given):
        raise FacekitError(f"{said} says nothing beside {form}; leave one of them out")


def _given(options: Mapping[str, object]) -> str | None:
    """The first of some options that was given, as it is typed."""
    for name, value in options.items():
        if value not in (None, False, ()):
            return f"'{value}'" if name == "what" else f"--{name}"
    return None


def _kept(folder: Path) -> str | None:
    """Of which form an evaluation lies in a folder; None if there is none."""
    from detectors.outcome import PROTOCOL

    if (folder / PROTOCOL).is_file():
        return "CONFIG"
    return "--scores" if (folder / LABELS).is_file() else None


def _spare(out: Path | None) -> None:
    """Refuse to write over what only data and detector could make again."""
    if out and _kept(out) == "CONFIG":
        raise FacekitError(
            f"--out {out}: holds an evaluation by a config, whose scores would be lost; give "
            "another folder"
        )


def _again(folder: Path, form: str, as_json: bool) -> None:
    """Make every figure of a finished evaluation anew."""
    from detectors.outcome import rebuild

    if form == "CONFIG":
        _show(rebuild(folder), as_json)
    else:
        _from_files(folder / SCORES, folder / LABELS, folder, as_json)


def _from_files(scores: Path | None, labels: Path | None, out: Path | None, as_json: bool) -> None:
    """Measure scores against labels; ``out`` keeps both, for :func:`_again`."""
    from detectors import tables
    from facekit.core import files

    if scores is None or labels is None:
        raise FacekitError("--scores FILE and --labels FILE belong together; one is missing")
    _spare(out)
    rows, known = tables.read_scores(scores), tables.read_labels(labels)
    _, evaluation = tables.measure(rows, known)
    if out:
        files.write_jsonl(out / SCORES, (row.model_dump() for row in rows))
        files.write_jsonl(out / LABELS, (label.model_dump() for label in known))
        files.write_json(out / "evaluation.json", evaluation)
        _write_page(out, evaluation)
    _show(evaluation, as_json)


def _by_config(
    name: str,
    overrides: Sequence[str],
    scorer: "Scorer",
    data: Path,
    out: Path | None,
    quick: bool,
    fabric: "Fabric",
    as_json: bool,
) -> None:
    from detectors.protocol import Config, measure
    from facekit.core import config as configs

    path = configs.find(name)
    given = configs.apply_overrides(configs.read_yaml(path), overrides)
    config = configs.validate(given, Config, path)
    with _folder(out) as folder:
        evaluation = measure(
            config.quick() if quick else config, data, scorer, folder, device=fabric.device
        )
        _show(evaluation, as_json)


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Where an evaluation is written: ``out``, or a folder that is gone afterwards."""
    from tempfile import TemporaryDirectory

    from facekit.core.progress import log

    if out:
        yield out
        log.info("%s: scores, figures and page", out)
        return
    with TemporaryDirectory(prefix="facekit-") as name:
        yield Path(name)
    log.info("no --out: neither scores nor page are kept")


def _load(onnx: _Onnx) -> "Scorer":
    from detectors.onnx import OnnxDetector

    if onnx.size is None or onnx.mean is None or onnx.std is None:
        raise FacekitError(
            f"{onnx.path}: an ONNX file does not say what pictures it takes; give --size, --mean "
            "and --std, e.g. --size 224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
        )
    return OnnxDetector.load(
        onnx.path,
        size=onnx.size,
        mean=onnx.mean,
        std=onnx.std,
        template=onnx.template or "wide",
        output=onnx.output or "logit",
        head=onnx.head,
        bgr=onnx.bgr,
    )


def _of_training(
    run: Path,
    data: Path,
    generator: Path | None,
    generated: Path | None,
    out: Path | None,
    fabric: "Fabric",
    as_json: bool,
) -> None:
    from dataclasses import asdict

    from detectors.evaluate import evaluate as measure
    from detectors.evaluate import held_out_scores, interval_basis
    from detectors.metrics import reliability
    from detectors.score import Detector
    from facekit.commands.detector_faces import count, make_set, open_source
    from facekit.core import figures, files
    from facekit.core.progress import log
    from facekit.core.run import Run

    _spare(out)
    detector = Detector.load(run, fabric.device)
    floor, peer = (
        Detector.open(run / f"{role}.safetensors", {"name": role}, fabric.device)
        for role in ("floor", "peer")
    )
    facts = Run(run).facts
    source = open_source(data, generator, generated, seed=facts["seed"], seen=facts["people"])
    test_set = make_set(source, "test", detector.parts[0].config.data.frames, fabric)
    rows = figures.with_goals(measure(detector, test_set, floor=floor, peer=peer))
    drawn = interval_basis(test_set)
    log.info("%s in %s", count(test_set), data)
    shown = {
        "figures": [{**asdict(row), "holds": row.holds} for row in rows],
        "reliability": reliability(held_out_scores(detector, test_set), test_set.labels),
    }
    known = {
        "data": f"{data.name}: {count(test_set)}",
        "interval": drawn,
        "threshold": detector.threshold,
    }
    folder = out or run
    files.write_json(folder / "evaluation.json", {**known, **shown})
    page = {**shown, "title": run.name, "facts": {key: str(of) for key, of in known.items()}}
    _write_page(folder, page)
    figures.show(rows, as_json)
    if as_json:
        log.warning("95%% intervals: %s", drawn)
    else:
        click.echo(f"95% intervals: {drawn}")


def _write_page(out: Path, evaluation: dict[str, Any]) -> None:
    from detectors.report.evaluation import Evaluation, render
    from facekit.core import files

    page = render(Evaluation.model_validate(evaluation))
    files.write_text(out / "evaluation.html", page)


def _show(evaluation: dict[str, Any], as_json: bool) -> None:
    """Print the figures and what is to be said of them: beside JSON, which is rows, in the log."""
    from dataclasses import fields

    from facekit.core import figures
    from facekit.core.figures import Figure
    from facekit.core.progress import log
    from facekit.core.text import plain

    names = [field.name for field in fields(Figure)]

    def show(rows: Sequence[dict[str, Any]]) -> None:
        figures.show([Figure(**{key: row[key] for key in names}) for row in rows], as_json)

    show(evaluation["figures"])
    notes = [plain(note) for note in evaluation.get("notes", [])]
    if as_json:
        for note in notes:
            log.warning("%s", note)
        return
    for table in evaluation.get("tables", []):
        click.echo(plain(table["title"]))
        show(table["figures"])
    for note in notes:
        click.echo(note)
