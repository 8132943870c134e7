"""``facekit generator evaluate``: how good a generator is, and beside what."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facekit.commands import options

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from facekit.commands.generator_sample import Source
    from facekit.core.figures import Figure
    from facekit.datasets.swap_truth import Protocol
    from facekit.export import Corner
    from facekit.types import Pixels

PROTOCOL = "swap_truth"
"""What stands for GENERATOR where the benchmark itself is meant."""

Folder = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("generator")
@click.option(
    "--data",
    type=Folder,
    help="The folder that the run learned from; for swap_truth its export.",
)
@click.option(
    "--consent",
    multiple=True,
    metavar="ID",
    help="A consent record of somebody in the photos; give one for everyone.",
)
@click.option(
    "--samples",
    type=click.IntRange(1, 50_000),
    default=2000,
    show_default=True,
    help="From nothing: how many are drawn and measured.",
)
@click.option(
    "--judge",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Of swaps: an identity network, .onnx, that no generator here has learned from.",
)
@click.option(
    "--clips",
    type=click.IntRange(1, 500),
    metavar="N",
    help="Of swaps: so many clips of each pair, to look quickly; the figures then do not count.",
)
@click.option(
    "--answers",
    type=Folder,
    help="Of swaps: a folder that keeps rendered clips, 20 MB each, for the next time.",
)
@click.option(
    "--frames", type=Folder, help="Of swap_truth: somebody's swapped frames, named as exported."
)
@click.option(
    "--runs", type=Folder, help="Of swap_truth: run folders pair-SEED, one for each exported pair."
)
@click.option(
    "--export",
    "export_to",
    type=Folder,
    help="Of swap_truth: write the photos and clips that a method is to be tried on.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Of swaps: processes that render.",
)
@click.option(
    "--out",
    type=Folder,
    help="A folder for pictures: samples or swaps beside what they are compared with.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="From nothing: of the samples.",
)
@options.DEVICE
@options.PRECISION
@options.THREADS
@options.JSON
def evaluate(
    generator: str,
    data: Path | None,
    consent: tuple[str, ...],
    samples: int,
    judge: Path | None,
    clips: int | None,
    answers: Path | None,
    frames: Path | None,
    runs: Path | None,
    export_to: Path | None,
    workers: int,
    out: Path | None,
    seed: int,
    device: str,
    precision: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure GENERATOR: a run folder, a bundled generator's name, or the benchmark swap_truth.

    What makes faces from nothing is compared with faces of people whom it has not learned from: by
    KID with a 95% interval, FID, precision, recall, density and coverage; and with the training
    pictures, of which none must come out again (copies). Rows NAME.kid.real say what these pictures
    themselves score against other people, and .pixels and .components what trivial generators do,
    of which the better is a figure's floor. The network that compares is bundled with facekit: its
    numbers do not compare with those of Inception. --out gets two pictures: sheet.png, 64 samples
    beside 64 training pictures; nearest.png, those that come closest to one, beside it.

    A face swap of studio people is compared with the true answer, which the studio renders, on
    clips that no folder of photos has: rows swap.psnr and so on with 95% intervals; .copy, .photo
    and .warp are what no model does, .pasted is the most that a crop of its size can reach, and
    .truth what the estimators say of the true answer. Of real people nobody knows the answer: rows
    swap.real say how alike swaps are to either person. --out gets swaps.png.

    swap_truth is a benchmark for any method: --export writes photos to learn from and clips to swap
    into, --frames scores what came of it, --runs scores facekit's own runs alike.

    \b
    Examples:
      facekit generator evaluate gan --out out/gan
      facekit generator evaluate runs/gan --data people --samples 1000 --json
      facekit generator evaluate runs/us --data photos --consent c-0123456789ab
      facekit generator evaluate runs/two --data people --judge judge.onnx --json
      facekit generator evaluate swap_truth --export out/truth --workers 2
      facekit generator evaluate swap_truth --data out/truth --frames out/mine
    """
    from facekit.commands import generator_sample
    from facekit.core import device as devices
    from facekit.core.errors import FacekitError
    from facekit.core.figures import show
    from facekit.generators import _samples

    of_swaps: dict[str, Any] = {"judge": judge, "clips": clips, "answers": answers}
    of_benchmark = {"frames": frames, "runs": runs, "export": export_to}
    fabric = devices.setup(device, precision, threads=threads)
    if generator == PROTOCOL:
        show(_benchmark(data, of_swaps, of_benchmark, out, workers, fabric), as_json)
        return
    for name, value in of_benchmark.items():
        if value is not None:
            raise FacekitError(
                f"--{name}: is of the benchmark: 'facekit generator evaluate {PROTOCOL}'"
            )
    source = generator_sample.opened(generator)
    if _swaps(source):
        show(_swap(source, data, consent, of_swaps, out, workers, fabric), as_json)
        return
    for name, value in of_swaps.items():
        if value is not None:
            raise FacekitError(f"--{name}: is for face swaps; {source.plugin} swaps none")
    of = (source.opened, source.plugin)
    reference = _samples.reference_of(*of, data, consent, fabric)
    measured = _samples.evaluate(*of, reference, samples, seed, fabric)
    if out is not None:
        terms = source.terms(seed=seed)
        _write(out / "sheet.png", measured.sheet, terms)
        _write(out / "nearest.png", measured.nearest, terms)
    show(measured.figures, as_json)


def _swaps(source: "Source") -> bool:
    """Whether it changes faces in frames that it is given."""
    from facekit import generators

    module = generators.load(source.plugin)
    return hasattr(module, "generate") and not hasattr(module, "sample")


def _swap(
    source: "Source",
    data: Path | None,
    consent: tuple[str, ...],
    given: dict[str, Any],
    out: Path | None,
    workers: int,
    fabric: "Fabric",
) -> "list[Figure]":
    """Score a run of a face swap."""
    from facekit.core.errors import FacekitError
    from facekit.generators import _swap_evaluate
    from facekit.generators._swap_truth import Readers

    if isinstance(source.opened, str):
        raise FacekitError(
            f"{source.opened}: the bundled weights know nobody yet; train two people with 'facekit "
            "generator train', and give that run"
        )
    measured = _swap_evaluate.of_run(
        *(source.opened, data, consent, _protocol(given["clips"])),
        *(Readers.load(given["judge"], fabric.device), fabric),
        kept=given["answers"],
        workers=workers,
    )
    _say_who_judges(given["judge"])
    if out is not None:
        _write(out / "swaps.png", measured.sheet, source.terms())
    return measured.figures


def _benchmark(
    data: Path | None,
    given: dict[str, Any],
    asked: dict[str, Path | None],
    out: Path | None,
    workers: int,
    fabric: "Fabric",
) -> "list[Figure]":
    """Export the benchmark's pictures, or score somebody's frames or runs."""
    from facekit.core.errors import FacekitError
    from facekit.core.figures import Figure
    from facekit.datasets import swap_truth
    from facekit.generators import _swap_evaluate
    from facekit.generators._swap_truth import Readers
    from facekit.watermark import Kind

    if sum(value is not None for value in asked.values()) != 1:
        raise FacekitError(f"{PROTOCOL}: give one of --export, --frames and --runs")
    protocol = _protocol(given["clips"])
    if (folder := asked["export"]) is not None:
        written = swap_truth.export(protocol, folder, workers=workers)
        click.echo(f"{folder}: {len(written)} folders written, with certificates", err=True)
        return [Figure("swap_truth.folders", float(len(written)))]
    if data is None:
        raise FacekitError(f"{PROTOCOL}: --data is missing: give the folder of --export")
    kind, folder = next((name, path) for name, path in asked.items() if path is not None)
    score = _swap_evaluate.of_frames if kind == "frames" else _swap_evaluate.of_runs
    measured = score(
        *(folder, data, protocol, Readers.load(given["judge"], fabric.device), fabric),
        kept=given["answers"],
        workers=workers,
    )
    _say_who_judges(given["judge"])
    if out is not None:
        facts = {"origin": "studio", "generator": f"{PROTOCOL} {kind}"}
        _write(out / "swaps.png", measured.sheet, {"kind": Kind.COMPOSITE, "facts": facts})
    return measured.figures


def _protocol(clips: int | None) -> "Protocol":
    """The benchmark's protocol, or a shorter one."""
    from facekit.datasets.swap_truth import read_protocol

    protocol = read_protocol()
    if clips is None:
        return protocol
    click.echo(f"{clips} clips a pair instead of {protocol.clips}: a look, no result", err=True)
    return protocol.model_copy(update={"clips": clips})


def _say_who_judges(judge: Path | None) -> None:
    if judge is None:
        click.echo(
            "identity was judged by facekit's own network; an outside one, --judge FILE.onnx, "
            "is what results are published with",
            err=True,
        )


def _write(path: Path, pixels: "Pixels", terms: dict[str, Any]) -> None:
    """A picture of what was made beside others, marked and signed as that is."""
    from facekit import export

    path.parent.mkdir(parents=True, exist_ok=True)
    badge: Corner = "bottom-right"
    export.write_image(path, pixels, **terms, badge=badge)
    click.echo(f"{path}: written, marked and signed", err=True)
