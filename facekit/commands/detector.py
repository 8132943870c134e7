"""``facekit detector``: train detectors of generated faces, and measure them."""

from pathlib import Path

import click

from facekit.commands import options
from facekit.commands.detector_audit import audit
from facekit.commands.detector_evaluate import evaluate
from facekit.commands.detector_faces import (
    Collected,
    Source,
    count,
    open_collections,
    open_source,
)
from facekit.commands.detector_score import score
from facekit.core.errors import FacekitError

_DATA = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="A folder with a manifest: of the studio, or with labels 0 and 1.",
)
_GENERATOR = click.option(
    "--generator",
    type=click.Path(file_okay=False, path_type=Path),
    help="A run of 'facekit generator train' on --data: makes generated faces in memory.",
)
_GENERATED = click.option(
    "--generated",
    type=click.Path(file_okay=False, path_type=Path),
    help="Another folder with a manifest, of generated faces.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Train a detector of generated faces, and evaluate it.

    \b
    Examples:
      facekit detector train detectors/small_cnn --data people --generator runs/swap --out runs/d
      facekit detector evaluate runs/d --data people --generator runs/swap
      facekit detector evaluate evaluations/default --data DATA --out out/evaluation
      facekit detector score photos clip.mp4 --out scores.jsonl
      facekit detector audit --out out/audit
      facekit detector list
    """


command.add_command(score)
command.add_command(evaluate)
command.add_command(audit)


@command.command("list")
@options.JSON
def list_(as_json: bool) -> None:
    """List the detectors, the configs and the bundled weights."""
    import json

    from detectors.score import MODELS, WEIGHTS
    from facekit.core import config, registry

    found = {
        "detectors": registry.names(MODELS),
        "configs": sorted(
            f"detectors/{path.stem}" for path in (config.folder() / "detectors").glob("*.yaml")
        ),
        "bundled": sorted(path.stem for path in WEIGHTS.glob("*.safetensors")),
    }
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for what, names in found.items():
        click.echo(f"{what}: {', '.join(names) or '(none)'}")


@command.command()
@click.argument("config")
@_DATA
@_GENERATOR
@_GENERATED
@options.RUN_FOLDER
@options.SEED
@options.DEVICE
@options.PRECISION
@options.THREADS
@options.SET
@options.JSON
def train(
    config: str,
    data: Path,
    generator: Path | None,
    generated: Path | None,
    out: Path,
    seed: int,
    device: str,
    precision: str,
    threads: int | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train the detector that CONFIG, a file or a bundled name, describes.

    Where CONFIG lists collections, --data is the folder that their paths are relative to. Else it
    is a folder with a manifest: untouched faces are those of label 0; generated ones are swaps
    that --generator makes between people of the same split, and whatever has label 1 in --data and
    --generated. Forgeries that CONFIG names are made from the untouched faces as well. Half of both
    classes is marked. People are split into train, validation, calibration (collections only) and
    test; test is not touched here. Give the same command again to go on after an interruption.

    \b
    Examples:
      facekit detector train detectors/small_cnn --data people --generator runs/swap --out runs/d
      facekit detector train detectors/spectrum --data labelled --out runs/s --seed 1
      facekit detector train detectors/default --data DATA --precision bf16 --out runs/default
    """
    import json

    import torch

    from detectors.score import FILE
    from detectors.train import read_config
    from detectors.train import train as fit
    from facekit.core import device as devices
    from facekit.core.progress import log
    from facekit.core.run import Run

    plugin, recipe = read_config(config, overrides)
    fabric = devices.setup(device, precision, threads=threads)
    if recipe.collections:
        if generator or generated:
            raise FacekitError(
                f"{config} lists its collections; --generator and --generated are for a folder "
                "with a manifest"
            )
        origin: Collected | Source = open_collections(recipe, data, seed=seed)
    else:
        origin = open_source(data, generator, generated, seed=seed)
    run = Run.start(
        out,
        plugin=plugin,
        config=recipe,
        seed=seed,
        data_hash=origin.data_hash,
        threads=torch.get_num_threads(),
        precision=devices.precision_of(fabric),
    )
    if (out / FILE).is_file():
        log.info("%s: is trained already", out)
    else:
        splits = origin.splits(recipe, fabric)
        run.note(
            people=origin.people,
            data=f"{data.name}: {count(splits.train)} to train on, {count(splits.validation)} to "
            f"validate{'; swaps by ' + generator.name if generator else ''}",
        )
        fit(recipe, splits, run, fabric, calibrated_for=origin.origins)
    facts = {
        "run": str(out),
        "plugin": plugin,
        **{key: run.facts[key] for key in ("data", "minutes", "calibrated_for")},
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    click.echo(f"{out}: {plugin} trained in {facts['minutes']} minutes on {facts['data']}")


@command.command()
@click.argument("run", type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", required=True, help="What 'analyze --detector' shall call it.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Where to write NAME.safetensors and its card NAME.json.",
)
@click.option("--licence", default="Apache-2.0", show_default=True, help="Of the weights.")
@click.option(
    "--evaluation",
    type=click.Path(file_okay=False, path_type=Path),
    help="The --out of an evaluation of RUN's detector, whose figures the card is to show.  "
    "[default: RUN]",
)
def bundle(run: Path, name: str, out: Path, licence: str, evaluation: Path | None) -> None:
    """Write the detector of RUN as one small file with its card.

    \b
    Examples:
      facekit detector bundle runs/d --name studio --out detectors/weights
    """
    from detectors.score import bundle as write
    from facekit.core.run import Run

    click.echo(str(write(Run(run), name, out, licence=licence, evaluation=evaluation)))
