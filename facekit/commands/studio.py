"""``facekit studio``: people who don't exist."""

import json
from pathlib import Path

import click

_SIZE = click.option("--size", default=256, show_default=True, help="Pixels a side, 16 to 2048.")
_SEED = click.option("--seed", default=0, show_default=True, help="The same seed, the same bytes.")
_WORKERS = click.option("--workers", default=1, show_default=True, help="Processes to render with.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the certificate as JSON.")
_FOLDER = click.Path(path_type=Path)


@click.group()
def command() -> None:
    """Render people who don't exist, with exact labels.

    \b
    Examples:
      facekit studio sheet --people 24 --out sheet.png
      facekit studio render --people 8 --frames 20 --out people
      facekit studio clip --person-seed 3 --seconds 4 --out clip
      facekit studio verify people
    """


@command.command()
@click.option("--people", default=8, show_default=True, help="How many people.")
@click.option("--frames", default=20, show_default=True, help="Photos of each.")
@_SIZE
@_SEED
@_WORKERS
@click.option("--out", required=True, type=_FOLDER, help="Folder to write.")
@_JSON
def render(
    people: int, frames: int, size: int, seed: int, workers: int, out: Path, as_json: bool
) -> None:
    """Render photos: a folder for each person, manifest and certificate.

    A run that was interrupted goes on where it stopped.

    \b
    Example:
      facekit studio render --people 8 --frames 20 --size 256 --seed 0 --workers 2 --out people
    """
    from facekit.studio.clip import render_folder

    certificate = render_folder(
        out, people=people, frames=frames, size=size, seed=seed, workers=workers
    )
    _show(certificate.to_json(), f"{out}: {people * frames} photos of {people} people", as_json)


@command.command()
@click.option("--seconds", default=4.0, show_default=True, help="Length.")
@click.option("--rate", default=25.0, show_default=True, help="Frames a second.")
@_SIZE
@click.option("--person-seed", default=0, show_default=True, help="Who is filmed.")
@click.option("--seed", default=0, show_default=True, help="What is performed, and the light.")
@_WORKERS
@click.option("--out", required=True, type=_FOLDER, help="Folder to write.")
@_JSON
def clip(
    seconds: float,
    rate: float,
    size: int,
    person_seed: int,
    seed: int,
    workers: int,
    out: Path,
    as_json: bool,
) -> None:
    """Render a talking person: clip.mp4, manifest and certificate.

    Two clips of one --seed show two people giving the same performance.

    \b
    Example:
      facekit studio clip --seconds 4 --person-seed 3 --seed 0 --out clip
    """
    from facekit.studio.clip import render_clip

    certificate = render_clip(
        out,
        person_seed=person_seed,
        seconds=seconds,
        rate=rate,
        size=size,
        seed=seed,
        workers=workers,
    )
    _show(certificate.to_json(), f"{out / 'clip.mp4'}: {seconds:g} s", as_json)


@command.command()
@click.argument("path", type=_FOLDER)
@click.option("--samples", default=0, help="Render at least so many items again.")
@_JSON
def verify(path: Path, samples: int, as_json: bool) -> None:
    """Check a studio folder (or a file in it) against its certificate.

    A picture given itself is rendered again; of a folder one picture of each person, and 5%, at
    least 6, of all; of a clip 10% of the frames, at least 8.

    \b
    Example:
      facekit studio verify people
    """
    from facekit.studio.certificate import verify as check

    certificate = check(path, samples=samples)
    said = f"{certificate.folder}: holds; rendered again: {', '.join(certificate.checked)}"
    _show(certificate.to_json(), said, as_json)


@command.command()
@click.option("--people", default=24, show_default=True, help="How many people.")
@_SIZE
@_SEED
@_WORKERS
@click.option("--out", required=True, type=_FOLDER, help="Picture to write (.png, .jpg).")
def sheet(people: int, size: int, seed: int, workers: int, out: Path) -> None:
    """Render one picture of many people, to look at.

    \b
    Example:
      facekit studio sheet --people 24 --size 192 --out sheet.png
    """
    from facekit.media.images import write_image
    from facekit.studio.clip import contact_sheet

    write_image(out, contact_sheet(people=people, size=size, seed=seed, workers=workers))
    click.echo(f"{out}: {people} people")


def _show(facts: dict[str, object], said: str, as_json: bool) -> None:
    click.echo(json.dumps(facts, indent=2) if as_json else said)
