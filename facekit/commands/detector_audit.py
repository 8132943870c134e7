"""``facekit detector audit``: whom a detector suspects wrongly."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facekit.commands import options
from facekit.core.errors import FacekitError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from detectors.audit import Audit

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("folder", required=False, metavar="[AUDIT]", type=_FOLDER)
@click.option("--out", type=_FOLDER, help="The audit's folder; an interrupted audit in it goes on.")
@click.option(
    "--detector",
    "names",
    multiple=True,
    help="A run folder, or a bundled name: audited on what it is calibrated for, the studio or "
    "cameras. Without one for the studio, one is trained.",
)
@click.option(
    "--data", type=_FOLDER, help="Also on the London Set's test half, in DATA/data/london."
)
@click.option(
    "--per-group",
    type=click.IntRange(8, 2000),
    default=500,
    show_default=True,
    help="Studio people of each skin tone, sex and age band, at least.",
)
@click.option(
    "--frames",
    type=click.IntRange(1, 100),
    default=2,
    show_default=True,
    help="Photos of each of them.",
)
@click.option(
    "--size",
    type=click.IntRange(128, 1024),
    default=192,
    show_default=True,
    help="Side of the photos, in pixels.",
)
@click.option(
    "--cache", type=_FOLDER, help="Where renders are kept, some 0.7 GB.  [default: OUT/renders]"
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=2,
    show_default=True,
    help="Processes to render in.",
)
@options.SEED
@options.DEVICE
@options.THREADS
@options.JSON
def audit(
    folder: Path | None,
    out: Path | None,
    names: tuple[str, ...],
    data: Path | None,
    per_group: int,
    frames: int,
    size: int,
    cache: Path | None,
    workers: int,
    seed: int,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure how often untouched faces are called generated, by skin tone, sex and age.

    A detector that is trained here, or given, with untouched renders of people who don't exist as
    its untouched class, meets other such people, every combination of groups equally often. With
    --data, a detector for cameras (the default one, or what --detector names) also meets the
    London Set's test half; a group of fewer than 50 people is "not established".

    OUT holds audit.html, audit.json with every count, and what was said of each photo, from which
    'facekit detector audit OUT' makes all figures anew.

    Rendering 2,520 people takes most of the time: half an hour on 2 cores. They are kept, so that
    an interrupted audit goes on.

    \b
    Examples:
      facekit detector audit --out out/audit
      facekit detector audit --out out/audit --data DATA
      facekit detector audit --detector runs/studio --per-group 80 --out out/quick
      facekit detector audit out/audit
    """
    from detectors import audit as audits
    from facekit.core import device as devices

    if folder:
        if out or names or data:
            raise FacekitError(
                f"{folder}: a finished audit is shown; leave --out, --detector and --data out"
            )
        _show(audits.read(folder), folder, as_json)
        return
    if out is None:
        raise FacekitError("give --out DIR for a new audit, or the folder of a finished one")
    fabric = devices.setup(device, "32", threads=threads)
    made = _made(
        names,
        data,
        fabric,
        out=out,
        per_group=per_group,
        given={
            "size": size,
            "seed": seed,
            "workers": workers,
            "cache": cache or out / "renders",
        },
        frames=frames,
    )
    audits.write(out, made)
    _show(made, out, as_json)


def _made(
    names: Sequence[str],
    data: Path | None,
    fabric: "Fabric",
    *,
    out: Path,
    per_group: int,
    frames: int,
    given: dict[str, Any],
) -> "list[Audit]":
    from detectors import audit as audits
    from detectors.score import Detector

    known = [Detector.load(name, fabric.device) for name in names]
    if odd := [one for one in known if not {audits.STUDIO, audits.CAMERA} & {*one.calibrated_for}]:
        raise FacekitError(
            f"--detector {odd[0].name}: is calibrated neither for the studio nor for cameras"
        )
    for_studio = [one for one in known if audits.STUDIO in one.calibrated_for]
    for_cameras = [one for one in known if audits.CAMERA in one.calibrated_for]
    if len(for_studio) > 1 or len(for_cameras) > 1:
        raise FacekitError("--detector: give one for the studio and one for cameras at most")
    if for_cameras and data is None:
        raise FacekitError(
            f"--detector {for_cameras[0].name}: is calibrated for cameras; give --data DIR, the "
            "folder that holds data/london"
        )
    made = []
    if data:
        photos = for_cameras[0] if for_cameras else Detector.load("default", fabric.device)
        made.append(audits.audit_london(photos, data, device=fabric.device))
    detector = (
        for_studio[0] if for_studio else audits.train_detector(out / "detector", fabric, **given)
    )
    studio = audits.audit_studio(
        detector, device=fabric.device, per_group=per_group, frames=frames, **given
    )
    return [studio, *made]


def _show(made: "Sequence[Audit]", out: Path, as_json: bool) -> None:
    """Write the page and print the figures, and in words every group's rate."""
    from detectors import audit as audits
    from detectors.report.evaluation import Evaluation, render
    from facekit.core import figures, files
    from facekit.core.figures import Figure

    told = audits.report(made)
    page = told["page"]
    files.write_json(out / "audit.json", told)
    files.write_text(out / "audit.html", render(Evaluation.model_validate(page)))
    keys = Figure.__dataclass_fields__
    figures.show([Figure(**{key: row[key] for key in keys}) for row in page["figures"]], as_json)
    if as_json:
        return
    for what, sides in told["rates"].items():
        click.echo(f"{what}: untouched faces called generated")
        for rate in sides["untouched"]:
            click.echo(f"  {_sentence(rate)}")
    for note in page["notes"]:
        click.echo(note)
    click.echo(str(out / "audit.html"))


def _sentence(rate: dict[str, Any]) -> str:
    group = " ".join(filter(None, (rate["attribute"], rate["group"])))
    of = f"{rate['people']} people, {rate['faces']} faces"
    if not rate["established"]:
        return f"{group}: not established ({of})"
    return f"{group}: {rate['value']:.4f} [{rate['low']:.4f}, {rate['high']:.4f}] ({of})"
