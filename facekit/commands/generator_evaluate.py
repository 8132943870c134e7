"""``facekit generator evaluate``: how good a generator's samples are, and beside what."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from facekit.commands import options

if TYPE_CHECKING:
    from facekit.generators._evaluate import Measured
    from facekit.generators._subject import Subject


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
    come out again (copies). Rows NAME.kid.real and the like say what these pictures themselves
    score against other people, and what trivial generators do; a figure's floor is the better of
    these. The network that compares is bundled with facekit: its numbers do not compare with those
    of Inception.

    With --out two pictures are written, marked and signed: sheet.png, 64 samples beside 64 of the
    training pictures; nearest.png, the samples that come closest to a training picture, each with
    the nearest three.

    \b
    Examples:
      facekit generator evaluate gan --out out/gan
      facekit generator evaluate runs/gan --data people --samples 1000 --json
      facekit generator evaluate runs/us --data photos --consent c-0123456789ab
    """
    from facekit.core import device as devices
    from facekit.core.figures import show
    from facekit.generators import _subject

    fabric = devices.setup(device, precision, threads=threads)
    subject = _subject.opened(generator, data, consent, fabric)
    measured = _subject.evaluate(subject, samples, seed, fabric)
    if out is not None:
        _write(out, measured, subject, seed)
    show(measured.figures, as_json)


def _write(out: Path, measured: "Measured", subject: "Subject", seed: int) -> None:
    """The two pictures, marked and signed as what they show: generated faces beside others."""
    from facekit import export
    from facekit.watermark import Kind

    for name, pixels in (("sheet.png", measured.sheet), ("nearest.png", measured.nearest)):
        path = out / name
        export.write_image(
            path,
            pixels,
            kind=Kind.GENERATED,
            facts={**subject.facts, "seed": seed},
            id=subject.mark,
            consent=subject.records,
            badge="bottom-right",
        )
        click.echo(f"{path}: written, marked and signed", err=True)
