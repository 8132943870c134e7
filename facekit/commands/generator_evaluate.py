"""``facekit generator evaluate``: how good a generator's samples are, and beside what."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facekit.commands import options

if TYPE_CHECKING:
    from facekit.export import Corner
    from facekit.types import Pixels


@click.command()
@click.argument("generator")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that the run learned from; bundled generators need none.",
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
    help="How many are drawn and measured.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder for two pictures: samples beside real crops, and beside their nearest.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the samples."
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
    out: Path | None,
    seed: int,
    device: str,
    precision: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure the samples of GENERATOR, a run folder or a bundled generator's name.

    They are compared with faces of people whom it has not learned from: by KID with a 95% interval,
    FID, precision, recall, density and coverage; and with the training pictures, of which none must
    come out again (copies). Rows NAME.kid.real say what these pictures themselves score against
    other people, and .pixels and .components what trivial generators do, of which the better is a
    figure's floor. The network that compares is bundled with facekit: its numbers do not compare
    with those of Inception.

    With --out two pictures are written, marked and signed: sheet.png, 64 samples beside 64 of the
    training pictures; nearest.png, the samples that come closest to a training picture, and in the
    same places these.

    \b
    Examples:
      facekit generator evaluate gan --out out/gan
      facekit generator evaluate runs/gan --data people --samples 1000 --json
      facekit generator evaluate runs/us --data photos --consent c-0123456789ab
    """
    from facekit.commands import generator_sample
    from facekit.core import device as devices
    from facekit.core.figures import show
    from facekit.generators import _samples

    source = generator_sample.opened(generator)
    fabric = devices.setup(device, precision, threads=threads)
    of = (source.opened, source.plugin)
    reference = _samples.reference_of(*of, data, consent, fabric)
    measured = _samples.evaluate(*of, reference, samples, seed, fabric)
    if out is not None:
        terms = source.terms(seed=seed)
        _write(out / "sheet.png", measured.sheet, terms)
        _write(out / "nearest.png", measured.nearest, terms)
    show(measured.figures, as_json)


def _write(path: Path, pixels: "Pixels", terms: dict[str, Any]) -> None:
    """A picture of samples beside others, marked and signed as the samples are."""
    from facekit import export

    path.parent.mkdir(parents=True, exist_ok=True)
    badge: Corner = "bottom-right"
    export.write_image(path, pixels, **terms, badge=badge)
    click.echo(f"{path}: written, marked and signed", err=True)
