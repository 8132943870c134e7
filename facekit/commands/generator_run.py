"""``facekit generator run``: change faces, move photos, or draw faces of nobody."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facekit.commands import (
    generator_convert,
    generator_dataset,
    generator_drive,
    generator_sample,
    options,
)
from facekit.core.errors import FacekitError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from facekit.conversion.colour import Transfer
    from facekit.export import Corner
    from facekit.faces.blend import Seam

SAVED = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Asked:
    """What the user asked for: the command's options, by their names."""

    generator: str
    source_file: str | None
    consent: tuple[str, ...]
    out: Path | None
    source: str | None
    target: str | None
    reference: Path | None
    colour: "Transfer"
    seam: "Seam"
    no_occlusion: bool
    no_sharpen: bool
    no_grain: bool
    preview: Path | None
    photos: Path | None
    driver: str | None
    seconds: float
    pose: str
    expression: str
    gaze: str
    blink: str
    absolute: bool
    count: int
    seed: int
    truncation: float
    sheet: Path | None
    interpolate: Path | None
    mix: Path | None
    coarse: int
    dataset: bool
    badge: "Corner"
    device: str
    precision: str
    threads: int | None
    as_json: bool

    def fabric(self) -> "Fabric":
        """Where and how precisely to compute."""
        from facekit.core import device

        return device.setup(self.device, self.precision, threads=self.threads)

    @property
    def moves(self) -> bool:
        """Whether an option is given that moves photos."""
        parts = (self.pose, self.expression, self.gaze, self.blink)
        return self.driver is not None or self.absolute or any(how != "driver" for how in parts)


@click.command()
@click.argument("generator")
@click.option(
    "--input",
    "source_file",
    help="What to change: a certified studio clip or picture, or a real one, with --consent; or, "
    "with --dataset, the folder that the run learned from.",
)
@options.CONSENT
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="With --input the file to write: .mp4 from a video; .png, .jpg or .webp from a picture. "
    "With --photos an .mp4. Else a folder for pictures.",
)
@click.option("--source", help="With --input: the person to show, e.g. person-0001.")
@click.option("--target", help="With --input: who is in it, if the run knows them.")
@click.option(
    "--reference",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PHOTO",
    help="With --input: whose face is to be replaced, where several people are in it; by default "
    "the largest face of the first frame that shows any.",
)
@click.option(
    "--colour",
    type=click.Choice(["transport", "reinhard", "none"]),
    default="transport",
    show_default=True,
    help="With --input: how the new face takes on the colours of the old: by mean and covariance, "
    "by mean and deviation of each channel, or not at all.",
)
@click.option(
    "--seam",
    type=click.Choice(["bands", "feather"]),
    default="bands",
    show_default=True,
    help="With --input: blend each band of detail over a width of its own, or all over one, which "
    "suits --colour none.",
)
@click.option(
    "--no-occlusion",
    is_flag=True,
    help="With --input: draw over hands, hair and glasses before the face.",
)
@click.option(
    "--no-sharpen",
    is_flag=True,
    help="With --input: leave the new face as soft or sharp as it is drawn.",
)
@click.option("--no-grain", is_flag=True, help="With --input: add no noise to the new face.")
@click.option(
    "--preview",
    type=SAVED,
    metavar="FILE",
    help="With --input: also write the original and the result side by side; with --photos: photo, "
    "driver and result.",
)
@click.option(
    "--photos",
    type=click.Path(path_type=Path),
    help="Whom to move: a photo, or a folder of up to 32 photos of one person.",
)
@click.option(
    "--driver",
    metavar="FILE",
    help="With --photos: what moves them: a finished video, a track (.json), studio:SEED, a "
    "performance of the studio, or idle:SEED, somebody at rest, who breathes, blinks and looks "
    "about.  [default: idle:0]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.2, 600),
    default=6.0,
    show_default=True,
    help="With --photos: of a performance, or of idle motion.",
)
@click.option(
    "--pose",
    default="driver",
    show_default=True,
    metavar="HOW",
    help="With --photos: the head's pose: driver, keep (the photo's), driver*0.5 or so, or yaw,"
    "pitch,roll in degrees.",
)
@click.option(
    "--expression",
    default="driver",
    show_default=True,
    metavar="HOW",
    help="With --photos: driver, keep, driver*1.5 or so, or 0 for a face at rest.",
)
@click.option(
    "--gaze",
    default="driver",
    show_default=True,
    metavar="HOW",
    help="With --photos: driver, keep, driver*0.5 or so, or degrees to the right and up: 0,0.",
)
@click.option(
    "--blink",
    default="driver",
    show_default=True,
    metavar="HOW",
    help="With --photos: driver, keep, driver*0.5 or so, or how far the lids are shut, 0 to 1.",
)
@click.option(
    "--absolute",
    is_flag=True,
    help="With --photos: take the driver's pose, expression and gaze over as they are, rather than "
    "as changes from its rest to the photo's.",
)
@click.option(
    "--count",
    type=click.IntRange(1, 100_000),
    default=16,
    show_default=True,
    help="From nothing: how many faces.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="From nothing: the same seed gives the same faces.",
)
@click.option(
    "--truncation",
    type=click.FloatRange(0, 1.5),
    default=1.0,
    show_default=True,
    help="From nothing: lower is surer and less varied; 0 is the mean face.",
)
@click.option("--sheet", type=SAVED, metavar="FILE", help="From nothing: all faces in one picture.")
@click.option(
    "--interpolate",
    type=SAVED,
    metavar="FILE",
    help="From nothing: a video, .mp4, of a walk from face to face.",
)
@click.option(
    "--mix",
    type=SAVED,
    metavar="FILE",
    help="From nothing: a square of faces (8 at most a side) with the coarse styles of the face on "
    "the left and the fine ones of that above.",
)
@click.option(
    "--coarse",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="With --mix: how many layers' styles are coarse.",
)
@click.option(
    "--dataset",
    is_flag=True,
    help="Make --out a data set, for training detectors: a manifest, and no badges. With --input "
    "FOLDER it holds each photo twice, untouched and swapped; with --photos FOLDER of several "
    "people, untouched and with the person moved.",
)
@click.option(
    "--badge",
    type=click.Choice(["top-left", "top-right", "bottom-left", "bottom-right"]),
    default="bottom-left",
    show_default=True,
    help="The corner in which the word 'synthetic' stands.",
)
@options.DEVICE
@options.PRECISION
@options.THREADS
@options.JSON
def run(**given: Any) -> None:
    """Make faces with GENERATOR, a run folder or the name of a bundled generator.

    With --input a person of the run is shown in a video or picture, with the face's motion kept.
    The result is marked and signed as a composite; a video keeps its sound. Frames in which the
    face is not to be seen, in profile or covered stay as they are, and are listed; if that is all
    of them, nothing is written. An interrupted conversion goes on with the same command.

    With --photos the person of a photo moves as the driver does, which is a closed file or a
    performance of the studio, never a camera; more photos show more of what one hides. The result
    is marked and signed as generated; it keeps the sound of a driver's video.

    Without either, faces are made of nothing, and marked and signed as generated. Pictures below
    256 pixels are enlarged, since smaller ones may not hold their mark.

    The consent that the run was trained under must still hold, with the scope "generate". A real
    video or photo needs consent of its own, of everyone in it: --consent. The manifest repeats
    both, and once a record is revoked or has expired, the file under way is abandoned.

    \b
    Examples:
      facekit generator run gan --count 64 --seed 0 --out faces --sheet sheet.png
      facekit generator run gan --truncation 0.7 --interpolate walk.mp4 --mix mixture.png
      facekit generator run runs/swap --input clip/clip.mp4 --out swap.mp4 --source person-0001
      facekit generator run runs/swap --input people/person-0000/0000.png --out swap.png \\
          --source person-0001
      facekit generator run runs/us --input ben.mp4 --consent c-ba9876543210 --out ann.mp4 \\
          --source ann
      facekit generator run runs/us --input party.mp4 --consent c-ba9876543210 \\
          --consent c-0123456789ab --out ann.mp4 --source ann --reference ben.jpg \\
          --preview side-by-side.mp4
      facekit generator run runs/swap --input people --dataset --out DATA/data/generated/swaps
      facekit generator run talking_head --photos people/person-0000 --driver clip/clip.mp4 \\
          --out talking.mp4 --preview side-by-side.mp4
      facekit generator run talking_head --photos ann.jpg --driver ben.mp4 \\
          --consent c-0123456789ab --consent c-ba9876543210 --out ann.mp4 --pose keep --gaze 0,0
      facekit generator run talking_head --photos people/person-0000 --seconds 4 --out idle.mp4
      facekit generator run talking_head --photos people --dataset --out DATA/data/generated/heads
    """
    asked = Asked(**given)
    if asked.photos is not None:
        _move(asked, asked.photos)
    elif asked.moves:
        raise FacekitError(
            "--driver, --pose, --expression, --gaze, --blink and --absolute move photos; give them "
            "with --photos"
        )
    elif asked.source_file is None:
        _draw(asked)
    elif asked.dataset:
        _change_folder(asked, asked.source_file)
    else:
        _change(asked, asked.source_file)


def _move(asked: Asked, photos: Path) -> None:
    """Make photos move, or everybody of a folder."""
    from facekit.motion import Controls, parse

    changing = (asked.source_file, asked.source, asked.target, asked.reference)
    others = (*changing, asked.sheet, asked.interpolate, asked.mix)
    if asked.out is None or any(other is not None for other in others):
        raise FacekitError(
            "--photos needs --out, and goes without --input, --source, --target, --reference, "
            "--sheet, --interpolate and --mix"
        )
    if asked.dataset:
        if asked.moves or asked.preview:
            raise FacekitError(
                "--dataset: each person of the folder is moved by a performance of their own; "
                "leave --driver, --pose, --expression, --gaze, --blink, --absolute and "
                "--preview away"
            )
        heads = generator_drive.move_folder(
            *(asked.generator, photos, asked.out, asked.fabric()), consent=asked.consent
        )
        facts = {"path": str(asked.out), "heads": heads, "originals": heads}
        said = f"{asked.out}: {heads} moved heads beside originals, marked and signed"
        _say(facts if asked.as_json else said)
        return
    controls = Controls(
        pose=parse("--pose", asked.pose, 3),
        expression=parse("--expression", asked.expression, 1),
        gaze=parse("--gaze", asked.gaze, 2),
        blink=parse("--blink", asked.blink, 1),
        relative=not asked.absolute,
    )
    moved = generator_drive.move(
        *(asked.generator, photos, asked.out, asked.fabric()),
        driver=asked.driver or generator_drive.AT_REST,
        seconds=asked.seconds,
        controls=controls,
        consent=asked.consent,
        badge=asked.badge,
        preview=asked.preview,
    )
    generator_drive.show(moved, asked.as_json)


def _change_folder(asked: Asked, folder: str) -> None:
    """Show everybody of a folder as another one."""
    if asked.out is None:
        raise FacekitError("--out is missing: --dataset needs the folder to write")
    alone = (asked.source, asked.target, asked.reference, asked.preview)
    if any((*alone, asked.sheet, asked.interpolate, asked.mix)):
        raise FacekitError(
            "--dataset: shows everyone in the folder as another one; leave --source, --target, "
            "--reference, --preview, --sheet, --interpolate and --mix away"
        )
    if not Path(folder).is_dir():
        raise FacekitError(
            f"{folder}: --dataset swaps the faces of a folder of photos; give the folder "
            "that the run learned from"
        )
    folders = (Path(asked.generator), Path(folder), asked.out)
    swaps = generator_dataset.convert_folder(*folders, asked.fabric(), consent=asked.consent)
    facts = {"path": str(asked.out), "swaps": swaps, "originals": swaps}
    said = f"{asked.out}: {swaps} swaps beside their originals, marked and signed"
    _say(facts if asked.as_json else said)


def _change(asked: Asked, file: str) -> None:
    """Show a person of the run in a video or picture."""
    from facekit.conversion import Finish

    if asked.out is None or asked.source is None:
        missing = "--out" if asked.out is None else "--source"
        raise FacekitError(f"{missing} is missing: --input needs --out FILE and --source NAME")
    if asked.sheet or asked.interpolate or asked.mix:
        raise FacekitError(
            "--sheet, --interpolate and --mix are for faces from nothing: leave them away, or "
            "--input"
        )
    converted = generator_convert.convert_file(
        *(Path(asked.generator), file, asked.out, asked.fabric()),
        source=asked.source,
        target=asked.target,
        consent=asked.consent,
        badge=asked.badge,
        reference=asked.reference,
        finish=Finish(
            asked.colour,
            asked.seam,
            occlusion=not asked.no_occlusion,
            sharpen=not asked.no_sharpen,
            grain=not asked.no_grain,
        ),
        preview=asked.preview,
    )
    generator_convert.show(converted, asked.source, asked.as_json)


def _draw(asked: Asked) -> None:
    """Make faces of nothing."""
    if not (asked.out or asked.sheet or asked.interpolate or asked.mix):
        raise FacekitError(
            "nothing to write: give --out DIR, --sheet, --interpolate or --mix for faces from "
            "nothing, --input with what is to be changed, or --photos with whom to move"
        )
    if asked.source or asked.target or asked.consent or asked.reference or asked.preview:
        raise FacekitError(
            "--source, --target and --reference go with --input, --consent and --preview with "
            "--input or --photos"
        )
    if asked.dataset and asked.out is None:
        raise FacekitError("--dataset: give the folder, --out")
    opened = generator_sample.opened(asked.generator)
    wanted = generator_sample.Wanted(
        *(asked.count, asked.seed, asked.truncation, asked.coarse, asked.out, asked.dataset),
        *(asked.sheet, asked.interpolate, asked.mix, asked.badge),
    )
    generator_sample.make(opened, wanted, asked.fabric())
    kind = wanted.files[0].reading.kind
    if asked.as_json:
        _say(
            {
                "files": [str(file.path) for file in wanted.files],
                "seed": asked.seed,
                "kind": kind,
                "provenance": sorted({file.provenance.status for file in wanted.files}),
                "publish": opened.facts["publish"],
            }
        )
        return
    where = asked.out if asked.out is not None else wanted.files[0].path.parent
    _say(f"{where}: {len(wanted.files)} files, marked as {kind}, manifests signed")
    if not opened.facts["publish"]:
        _say("keep them to yourself: not everyone shown has consented to 'publish'")


def _say(what: str | dict[str, Any]) -> None:
    """Print a sentence, or facts as JSON."""
    import json

    click.echo(what if isinstance(what, str) else json.dumps(what, indent=2, default=str))
