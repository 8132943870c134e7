"""Options that several commands have, so that they are called and explained alike."""

from pathlib import Path

import click

DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, mps.")
PRECISION = click.option(
    "--precision",
    default="32",
    show_default=True,
    help="auto, 32 or bf16; bf16 is 3 to 4 times as fast where the processor has it.",
)
THREADS = click.option("--threads", type=click.IntRange(1), help="Default: every core.")
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
RUN_FOLDER = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The run folder; an interrupted run in it goes on.",
)
SEED = click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="The same seed gives the same weights.",
)
MIN_FACE = click.option(
    "--min-face",
    type=click.IntRange(20),
    default=40,
    show_default=True,
    help="Smallest face to look for, in pixels.",
)
EVERY = click.option(
    "--every",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    metavar="K",
    help="Locate anew in every K-th frame of a video; between, faces are followed.",
)
LOCATOR = click.option(
    "--locator",
    default="mtcnn",
    show_default=True,
    help="What finds faces: mtcnn, or yunet with --locator-weights.",
)
LOCATOR_WEIGHTS = click.option(
    "--locator-weights",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The locator's own weights, e.g. YuNet's .onnx.",
)

CONSENT = click.option(
    "--consent",
    multiple=True,
    metavar="ID",
    help="A consent record of somebody in the photos; give one for everyone.",
)
