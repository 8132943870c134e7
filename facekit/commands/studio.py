"""``facekit studio``: people who don't exist."""

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facekit.commands import options

if TYPE_CHECKING:
    from facekit.studio.person import Person

_FOLDER = click.Path(path_type=Path)
_SIZE = click.option("--size", default=256, show_default=True, help="Pixels a side, 16 to 2048.")
_SEED = click.option("--seed", default=0, show_default=True, help="The same seed, the same bytes.")
_WORKERS = click.option(
    "--workers", default=1, show_default=True, help="Processes to render with; at most one a frame."
)
_DEGRADE = click.option(
    "--degrade",
    type=click.Choice(["none", "mild", "strong"]),
    default="none",
    show_default=True,
    help="Noise, blur, white balance, scaling, JPEG, H.264: as of a phone, or of a shared clip.",
)
_TRUTH = click.option(
    "--truth",
    default="",
    metavar="KINDS",
    help="Also write masks, depth or both beside each picture: 'masks,depth'. Points, pose, "
    "expression and camera are always in the manifest.",
)
_PICTURE_FORMAT = click.option(
    "--format",
    "suffix",
    type=click.Choice(["png", "jpg", "webp"]),
    help="Of the picture; by default that of --out's suffix.",
)
_FOLDER_OUT = click.option("--out", required=True, type=_FOLDER, help="Folder to write.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the certificate as JSON.")


@click.group()
def command() -> None:
    """Render people who don't exist, with exact labels.

    \b
    Examples:
      facekit studio sheet --people 24 --out sheet.png
      facekit studio render --people 8 --frames 20 --workers 2 --out people
      facekit studio clip --person-seed 3 --seconds 4 --out clip
      facekit studio person 3 --out someone.png
      facekit studio verify people
      facekit studio audit --judge judge.onnx
      facekit studio teach lessons/landmarks --out runs/landmarks
    """


@command.command()
@click.option("--people", default=8, show_default=True, help="How many people, up to 1000.")
@click.option("--frames", default=20, show_default=True, help="Photos of each.")
@_SIZE
@_SEED
@_WORKERS
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["png", "jpg", "webp"]),
    default="png",
    show_default=True,
    help="Of the photos; PNG loses nothing.",
)
@_DEGRADE
@_TRUTH
@_FOLDER_OUT
@_JSON
def render(
    people: int,
    frames: int,
    size: int,
    seed: int,
    workers: int,
    suffix: str,
    degrade: str,
    truth: str,
    out: Path,
    as_json: bool,
) -> None:
    """Render photos: a folder for each person, manifest and certificate.

    A run that was interrupted goes on where it stopped.

    \b
    Examples:
      facekit studio render --people 8 --frames 20 --size 256 --workers 2 --out people
      facekit studio render --people 2 --frames 4 --degrade mild --format jpg --out photos
      facekit studio render --people 2 --frames 4 --truth masks,depth --out labelled
    """
    from facekit.studio.clip import render_folder

    certificate = render_folder(
        out,
        people=people,
        frames=frames,
        size=size,
        seed=seed,
        workers=workers,
        format=suffix,
        degrade=degrade,
        truth=_kinds(truth),
    )
    _show(certificate.to_json(), f"{out}: {people * frames} photos of {people} people", as_json)


@command.command()
@click.option("--seconds", default=4.0, show_default=True, help="Length.")
@click.option("--frames", type=int, help="Length in frames, instead of --seconds.")
@click.option("--rate", default=25.0, show_default=True, help="Frames a second.")
@_SIZE
@click.option("--person-seed", default=0, show_default=True, help="Who is filmed.")
@click.option(
    "--people",
    default=1,
    show_default=True,
    help="Film so many, from --person-seed up, each into a folder of its own within --out.",
)
@click.option("--seed", default=0, show_default=True, help="What is performed, and the light.")
@_WORKERS
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["mp4", "png"]),
    default="mp4",
    show_default=True,
    help="A video, or a picture of each frame.",
)
@_DEGRADE
@_TRUTH
@_FOLDER_OUT
@_JSON
def clip(
    seconds: float,
    frames: int | None,
    rate: float,
    size: int,
    person_seed: int,
    people: int,
    seed: int,
    workers: int,
    suffix: str,
    degrade: str,
    truth: str,
    out: Path,
    as_json: bool,
) -> None:
    """Render a talking person: clip.mp4, manifest and certificate.

    Clips of one --seed show different people giving the same performance.

    \b
    Examples:
      facekit studio clip --seconds 4 --person-seed 3 --seed 0 --out clip
      facekit studio clip --people 2 --frames 50 --degrade strong --out pair
    """
    from facekit.studio.clip import check_count, render_clip

    check_count("people", people, 1000)
    if frames is not None:
        check_count("frames", frames, 72_000)
        seconds = frames / rate if rate else 0.0
    found = {}
    for someone in range(person_seed, person_seed + people):
        folder = out if people == 1 else out / f"studio-{someone}"
        found[folder] = render_clip(
            folder,
            person_seed=someone,
            seconds=seconds,
            rate=rate,
            size=size,
            seed=seed,
            workers=workers,
            format=suffix,
            degrade=degrade,
            truth=_kinds(truth),
        )
        if not as_json:
            click.echo(f"{folder / ('clip.mp4' if suffix == 'mp4' else 'frames')}: {seconds:g} s")
    if as_json:
        facts = [certificate.to_json() for certificate in found.values()]
        click.echo(json.dumps(facts if people > 1 else facts[0], indent=2))


@command.command()
@click.argument("path", type=_FOLDER)
@click.option("--samples", default=0, help="Render at least so many items again.")
@_JSON
def verify(path: Path, samples: int, as_json: bool) -> None:
    """Check a studio folder (or a file in it) against its certificate.

    A picture given itself is rendered again; of a folder one picture of each person, and 5%, at
    least 6, of all; of a clip 10% of the frames, at least 8. Each must agree to 40 dB, and so must
    the masks and depth beside it.

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
@click.option("--frames", default=1, show_default=True, help="Performances of each, side by side.")
@_SIZE
@_SEED
@_WORKERS
@_PICTURE_FORMAT
@_DEGRADE
@click.option("--out", required=True, type=_FOLDER, help="Picture to write (.png, .jpg, .webp).")
def sheet(
    people: int,
    frames: int,
    size: int,
    seed: int,
    workers: int,
    suffix: str | None,
    degrade: str,
    out: Path,
) -> None:
    """Render one picture of many people, to look at.

    \b
    Examples:
      facekit studio sheet --people 24 --size 192 --out sheet.png
      facekit studio sheet --people 64 --frames 4 --size 128 --workers 2 --out sheet.jpg
    """
    from facekit import export
    from facekit.studio.clip import contact_sheet
    from facekit.watermark import Kind

    path = _picture_path(out, suffix)
    pixels = contact_sheet(
        people=people, frames=frames, size=size, seed=seed, workers=workers, degrade=degrade
    )
    export.write_image(path, pixels, kind=Kind.STUDIO)
    click.echo(f"{path}: {people} people")


@command.command()
@click.argument("person_seed", metavar="[SEED]", type=int, required=False)
@click.option("--file", type=_FOLDER, help="A person's parameters instead, as --json prints them.")
@click.option("--frames", default=6, show_default=True, help="Performances in the picture.")
@_SIZE
@click.option("--seed", default=0, show_default=True, help="Of the performances.")
@_WORKERS
@_PICTURE_FORMAT
@_DEGRADE
@click.option("--out", type=_FOLDER, help="Picture to write (.png, .jpg, .webp).")
@click.option("--json", "as_json", is_flag=True, help="Print the parameters as JSON.")
def person(
    person_seed: int | None,
    file: Path | None,
    frames: int,
    size: int,
    seed: int,
    workers: int,
    suffix: str | None,
    degrade: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Describe a person by seed or by parameters, and draw a picture of them.

    \b
    Examples:
      facekit studio person 3
      facekit studio person 3 --frames 6 --size 256 --out someone.png
      facekit studio person 3 --json > someone.json
      facekit studio person --file someone.json --out changed.png
    """
    from facekit import export
    from facekit.core.errors import FacekitError
    from facekit.studio.clip import portrait
    from facekit.studio.person import Person
    from facekit.watermark import Kind

    if (person_seed is None) == (file is None):
        raise FacekitError("give either a SEED, e.g. 'facekit studio person 3', or --file")
    someone = Person.sample(person_seed or 0) if file is None else _read_person(file)
    path = None if out is None else _picture_path(out, suffix)
    if path is not None:
        pixels = portrait(
            someone, frames=frames, size=size, seed=seed, workers=workers, degrade=degrade
        )
        export.write_image(path, pixels, kind=Kind.STUDIO)
    parameters = someone.to_json()
    if as_json:
        facts = {"description": someone.description, "parameters": parameters}
        click.echo(json.dumps(facts | ({"picture": str(path)} if path else {}), indent=2))
        return
    click.echo(someone.description)
    width = max(map(len, parameters))
    for name, value in parameters.items():
        first, rest = f"  {name:{width}}  ", " " * (width + 4)
        click.echo(
            textwrap.fill(
                _words(value),
                100,
                initial_indent=first,
                subsequent_indent=rest,
                break_on_hyphens=False,
            )
        )
    if path:
        click.echo(f"{path}: {frames} performances")


@command.command()
@click.option("--people", default=100, show_default=True, help="How many people.")
@click.option("--frames", default=6, show_default=True, help="Performances of each.")
@_SIZE
@click.option("--seed", default=9, show_default=True, help="Of people and performances.")
@click.option("--workers", default=2, show_default=True, help="Processes to render with.")
@click.option(
    "--judge",
    type=_FOLDER,
    help="ONNX file of an identity network; without it the judge's rows are left out.",
)
@click.option("--device", default="auto", show_default=True, help="Where MTCNN runs.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def audit(
    people: int,
    frames: int,
    size: int,
    seed: int,
    workers: int,
    judge: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure whether outside networks find the studio's faces and tell its people apart.

    \b
    Examples:
      facekit studio audit --people 20 --frames 4
      facekit studio audit --judge judge.onnx --people 100 --frames 6 --json
    """
    from facekit.core import device as devices
    from facekit.core.figures import show
    from facekit.studio.audit import audit as measure

    fabric = devices.setup(device)
    figures = measure(
        device=fabric.device,
        people=people,
        frames=frames,
        size=size,
        seed=seed,
        workers=workers,
        judge=judge,
    )
    show(figures, as_json)


@command.command()
@click.argument("config")
@options.RUN_FOLDER
@click.option(
    "--data",
    type=_FOLDER,
    help="Photos to learn from besides, a folder for each person; not every lesson takes them.",
)
@click.option("--cache", type=_FOLDER, help="Of the rendered pictures; by default within --out.")
@click.option("--workers", default=1, show_default=True, help="Processes to render with.")
@options.SEED
@options.DEVICE
@options.PRECISION
@options.THREADS
@options.SET
def teach(
    config: str,
    out: Path,
    data: Path | None,
    cache: Path | None,
    workers: int,
    seed: int,
    device: str,
    precision: str,
    threads: int | None,
    overrides: tuple[str, ...],
) -> None:
    """Train a network of the face stage on studio people, whose truth is exact.

    CONFIG is a file or a bundled name; OUT gets the weights and their card. Give the same command
    again to go on after an interruption: the result is the same to the bit.

    \b
    Examples:
      facekit studio teach lessons/landmarks --out runs/landmarks --workers 2 --precision auto
      facekit studio teach lessons/identity --data photos --out runs/identity
    """
    import sys
    import time

    from facekit.core import device as devices
    from facekit.core.text import command_line
    from facekit.studio import teach as lessons

    lesson, settings = lessons.read_config(config, overrides)
    fabric = devices.setup(device, precision, threads=threads)
    run = lessons.start(lesson, settings, data, out, fabric, seed=seed)
    module = lessons.load(lesson)
    studio = None
    if hasattr(module, "prepare"):
        module.prepare(settings, run, workers)
    else:
        from facekit.datasets.studio import StudioFaces

        studio = StudioFaces(
            people=settings.people,
            frames=settings.frames,
            size=settings.size,
            seed=settings.data_seed,
            cache=cache or out / "cache",
            workers=workers,
        )
    began = time.monotonic()
    module.teach(settings, run, fabric, studio, data)
    minutes = run.facts.get("minutes", 0) + (time.monotonic() - began) / 60
    run.note(minutes=round(minutes, 1), device=devices.name_of(fabric.device))
    path = lessons.bundle(lesson, settings, data, run, command_line(sys.argv))
    click.echo(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def _kinds(truth: str) -> list[str]:
    return [kind.strip() for kind in truth.split(",") if kind.strip()]


def _picture_path(out: Path, suffix: str | None) -> Path:
    """Where to write; a name without suffix gets that of --format. Wrong ones fail before work."""
    from facekit.core.errors import FacekitError

    known = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}
    if not out.suffix and suffix:
        return out.with_suffix(f".{suffix}")
    if out.suffix.lower() not in known:
        raise FacekitError(f"{out}: cannot write such pictures; allowed: {', '.join(known)}")
    if suffix not in (None, known[out.suffix.lower()]):
        raise FacekitError(f"{out}: its suffix is not that of --format {suffix}; leave one out")
    return out


def _read_person(path: Path) -> "Person":
    """The person whose parameters a file holds, by themselves or as ``person --json`` prints."""
    from facekit.core import files
    from facekit.core.errors import FacekitError
    from facekit.studio.person import Person

    values = files.read_json(path)
    if isinstance(values, dict) and "parameters" in values:
        strange = sorted(set(values) - {"description", "parameters", "picture"})
        if strange:
            raise FacekitError(
                f"{path}: '{strange[0]}' stands beside the parameters; move it into 'parameters'"
            )
        values = values["parameters"]
    if not isinstance(values, dict):
        raise FacekitError(f"{path}: not a person (not a JSON object)")
    try:
        return Person.from_json(values)
    except FacekitError as error:
        raise FacekitError(f"{path}: {error}") from error


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {entry:g}" for name, entry in value.items()) or "–"
    if isinstance(value, list):
        return " ".join(f"{entry:g}" for entry in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _show(facts: dict[str, object], said: str, as_json: bool) -> None:
    click.echo(json.dumps(facts, indent=2) if as_json else said)
