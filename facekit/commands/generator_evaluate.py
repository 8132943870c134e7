"""``facekit generator evaluate``: how good a generator is, and beside what."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from facekit.commands import options

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from facekit.commands.generator_sample import Source
    from facekit.core.figures import Figure
    from facekit.datasets.head_truth import Protocol as HeadsProtocol
    from facekit.datasets.swap_truth import Protocol
    from facekit.export import Corner
    from facekit.generators._head_truth import Method
    from facekit.types import Pixels

    P = TypeVar("P", HeadsProtocol, Protocol)

PROTOCOL, HEADS = "swap_truth", "head_truth"
"""What stands for GENERATOR where the benchmark itself is meant: of swaps, of talking heads."""

Folder = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("generator")
@click.option(
    "--data",
    type=Folder,
    help="The folder that the run learned from; for swap_truth its export.",
)
@options.CONSENT
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
    help="Of swaps and heads: an identity network, .onnx, that no generator here has learned from.",
)
@click.option(
    "--clips",
    type=click.IntRange(1, 500),
    metavar="N",
    help="Of swaps and heads: so many clips of each pair or person, to look quickly; the figures "
    "then do not count.",
)
@click.option(
    "--answers",
    type=Folder,
    help="Of swaps and heads: a folder that keeps what is rendered for the next time: 20 MB a clip "
    "or 30 MB a person.",
)
@click.option(
    "--frames",
    type=Folder,
    help="Of swap_truth and head_truth: somebody's frames, named as the export says.",
)
@click.option(
    "--runs", type=Folder, help="Of swap_truth: run folders pair-SEED, one for each exported pair."
)
@click.option(
    "--export",
    "export_to",
    type=Folder,
    help="Of swap_truth and head_truth: write the photos and clips to try a method on.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Of swaps and heads: processes that render.",
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

    A talking head is compared with the true answer as well: twenty people whom nobody has learned
    from, moved by their own clips (rows head.ssim_t1 with one photo, and so on) and by somebody
    else's (head.cross_nme, head.identity). .copy and .warp are what no model does: the nearest
    photo, as it is and bent to the driver's landmarks. --out gets heads.png.

    swap_truth and head_truth are benchmarks for any method: --export writes what it is tried on,
    --frames scores what came of it, --runs scores facekit's own runs of swaps alike.

    \b
    Examples:
      facekit generator evaluate gan --out out/gan
      facekit generator evaluate runs/gan --data people --samples 1000 --json
      facekit generator evaluate runs/us --data photos --consent c-0123456789ab
      facekit generator evaluate runs/two --data people --judge judge.onnx --json
      facekit generator evaluate swap_truth --export out/truth --workers 2
      facekit generator evaluate swap_truth --data out/truth --frames out/mine
      facekit generator evaluate talking_head --judge judge.onnx --answers out/heads --json
      facekit generator evaluate head_truth --frames out/mine --answers out/heads
    """
    from facekit import generators
    from facekit.commands import generator_sample
    from facekit.core import device as devices
    from facekit.core.errors import FacekitError
    from facekit.core.figures import show
    from facekit.generators import _samples

    of_swaps: dict[str, Any] = {"judge": judge, "clips": clips, "answers": answers}
    of_benchmark = {"frames": frames, "runs": runs, "export": export_to}
    fabric = devices.setup(device, precision, threads=threads)
    if generator == HEADS:
        if runs is not None:
            raise FacekitError(f"--runs: is of {PROTOCOL}; give --export or --frames")
        show(_heads_benchmark(of_swaps, of_benchmark, out, workers, fabric), as_json)
        return
    if generator == PROTOCOL:
        show(_benchmark(data, of_swaps, of_benchmark, out, workers, fabric), as_json)
        return
    for name, value in of_benchmark.items():
        if value is not None:
            raise FacekitError(
                f"--{name}: is of a benchmark: 'facekit generator evaluate {PROTOCOL}' or '{HEADS}'"
            )
    source = generator_sample.opened(generator)
    if _swaps(source):
        show(_swap(source, data, consent, of_swaps, out, workers, fabric), as_json)
        return
    if hasattr(generators.load(source.plugin), "animator"):
        show(_heads(source, of_swaps, out, workers, fabric), as_json)
        return
    for name, value in of_swaps.items():
        if value is not None:
            raise FacekitError(
                f"--{name}: is for swaps and talking heads; {source.plugin} makes neither"
            )
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


def _heads(
    source: "Source", given: dict[str, Any], out: Path | None, workers: int, fabric: "Fabric"
) -> "list[Figure]":
    """Score a generator of talking heads."""
    from facekit import generators
    from facekit.generators import _head_truth

    protocol = _heads_protocol(given["clips"])
    animator = generators.animator(source.opened, fabric, plugin=source.plugin)
    method = _head_truth.by_animator(animator, protocol, fabric.device)
    return _measured_heads(method, protocol, given, out, workers, fabric, source.terms())


def _heads_benchmark(
    given: dict[str, Any],
    asked: dict[str, Path | None],
    out: Path | None,
    workers: int,
    fabric: "Fabric",
) -> "list[Figure]":
    """Export the benchmark's pictures, or score somebody's frames."""
    from facekit.core.errors import FacekitError
    from facekit.core.figures import Figure
    from facekit.generators import _head_truth
    from facekit.watermark import Kind

    protocol = _heads_protocol(given["clips"])
    export_to, frames = asked["export"], asked["frames"]
    if (export_to is None) == (frames is None):
        raise FacekitError(f"{HEADS}: give one of --export and --frames")
    if export_to is not None:
        pictures = _export_heads(protocol, export_to, given["answers"], workers)
        return [Figure("head_truth.pictures", float(pictures))]
    assert frames is not None
    method = _head_truth.by_frames(frames, protocol)
    facts = {"origin": "studio", "generator": f"{HEADS} frames"}
    terms = {"kind": Kind.GENERATED, "facts": facts}
    return _measured_heads(method, protocol, given, out, workers, fabric, terms)


def _measured_heads(
    method: "Method",
    protocol: "HeadsProtocol",
    given: dict[str, Any],
    out: Path | None,
    workers: int,
    fabric: "Fabric",
    terms: dict[str, Any],
) -> "list[Figure]":
    from facekit.generators import _head_truth
    from facekit.generators._swap_truth import Readers

    readers = Readers.load(given["judge"], fabric.device)
    measured = _head_truth.measure(
        *(method, protocol, readers, fabric.device), kept=given["answers"], workers=workers
    )
    _say_who_judges(given["judge"])
    if out is not None:
        _write(out / "heads.png", measured.sheet, terms)
    return measured.figures


def _export_heads(protocol: "HeadsProtocol", out: Path, kept: Path | None, workers: int) -> int:
    """Write everyone's photos and clips, marked as the studio's; the number of pictures."""
    from facekit import export
    from facekit.core import files
    from facekit.core.errors import FacekitError
    from facekit.datasets.head_truth import render_subject, tasks
    from facekit.types import JOURNAL, MANIFEST, Item, write_manifest
    from facekit.watermark import Kind

    if (out / MANIFEST).exists():
        raise FacekitError(f"{out}: holds an export already; give another --export, or remove it")
    plan = protocol.model_dump(mode="json")
    files.write_jsonl(out / JOURNAL, [plan])
    items = []
    for number in range(protocol.people):
        subject = render_subject(protocol, number, kept=kept, workers=workers)
        who = f"person-{number:02d}"
        named = {f"{who}/photo-{k:02d}.png": pixels for k, pixels in enumerate(subject.photos)}
        for clip, frames in enumerate(subject.frames):
            named |= {
                f"{who}/clip-{clip:02d}-{k:05d}.png": pixels for k, pixels in enumerate(frames)
            }
        for name, pixels in named.items():
            export.write_image(
                out / name, pixels, kind=Kind.STUDIO, facts={"origin": "studio"}, badge=None
            )
            items.append(
                Item(
                    path=name,
                    sha256=files.sha256(out / name),
                    subject=who,
                    source=name.rpartition("-")[0],
                    label=1,
                    generator="studio",
                )
            )
    files.write_json(out / "protocol.json", {"protocol": plan, "tasks": tasks(protocol)})
    write_manifest(out, items)
    (out / JOURNAL).unlink()
    return len(items)


def _heads_protocol(clips: int | None) -> "HeadsProtocol":
    """The benchmark's protocol, or a shorter one."""
    from facekit.datasets.head_truth import read_protocol

    return _shortened(read_protocol(), clips, "person")


def _protocol(clips: int | None) -> "Protocol":
    """The benchmark's protocol, or a shorter one."""
    from facekit.datasets.swap_truth import read_protocol

    return _shortened(read_protocol(), clips, "pair")


def _shortened(protocol: "P", clips: int | None, of: str) -> "P":
    """A protocol of so many clips of each, which is said; None leaves it as it is."""
    if clips is None:
        return protocol
    click.echo(f"{clips} clips a {of} instead of {protocol.clips}: a look, no result", err=True)
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
