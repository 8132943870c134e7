"""``facekit watermark``: embed a test mark, or read the mark of a file."""

import json
from pathlib import Path

import click

_KEY = click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    help="A private key: a file of at least 16 bytes. The published key by default.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")


@click.group()
def command() -> None:
    """Embed a test mark, or read the mark of a file.

    A mark is a claim, not a proof: with the published key anyone can embed one. What facekit
    generates is marked on its way out; these marks cannot be made here.
    """


@command.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--id", "number", type=click.IntRange(0), default=0, help="A number below 2^48.")
@_KEY
@_JSON
def embed(src: Path, out: Path, number: int, key_file: Path | None, as_json: bool) -> None:
    """Write a copy of the image or video SRC to OUT, with a mark of kind test-real.

    The mark says nothing about SRC: it is for testing readers, and for giving untouched media a
    mark, so that "marked" never comes to mean "generated" to a detector.

    OUT is PNG, JPEG or WebP for a picture; MP4 for a video or a moving picture (GIF, animated PNG
    or WebP). Colour profile, transparency and 16 bits a channel are kept where OUT can hold them
    (PNG holds all), as is a video's first sound track. EXIF and other metadata, which may tell
    where a photo was taken, are left out. The mark is read back before OUT appears.

    \b
    Examples:
      facekit watermark embed photo.jpg marked.png
      facekit watermark embed clip.mp4 marked.mp4 --id 7
    """
    from facekit.watermark import DEFAULT_KEY, embed_file, load_key

    key = load_key(key_file) if key_file else DEFAULT_KEY
    reading = embed_file(src, out, id=number, key=key)
    click.echo(json.dumps(reading.to_json()) if as_json else f"{out}: {reading.sentence()}")


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--no-search",
    is_flag=True,
    help="Look for the mark of whole pictures only, not of cropped or turned ones: quicker.",
)
@_KEY
@_JSON
def read(file: Path, no_search: bool, key_file: Path | None, as_json: bool) -> None:
    """Say whether the image or video FILE bears a mark, and what it says.

    "p" bounds the probability that an unmarked file reads like this one, all searches counted;
    below 1e-9 the mark is called present. No mark found does not mean "not generated".

    Where a picture as it is shows no mark, it is searched for one that was cropped, scaled or
    turned a little since. Of a video, at most 64 frames are read, spread over it.

    \b
    The facts of --json:
      present    whether a mark was found
      payload    its 64 bits in hex, or null if the mark is too weak to read them
      kind       generated, composite, studio or test-real; id: the number beside it
      p_value    "p" as above
      corrected  how many of the payload's 127 bits the code put right
      frames     how many pictures were read; tests: how many tests p_value counts
      geometry   how the picture lies in the one that was marked, if it was found by searching

    \b
    Examples:
      facekit watermark read clip.mp4
      facekit watermark read clip.mp4 --json
      facekit watermark read thumbnail.jpg --no-search
    """
    from facekit.watermark import DEFAULT_KEY, load_key, read_file

    key = load_key(key_file) if key_file else DEFAULT_KEY
    reading = read_file(file, key, search=not no_search)
    click.echo(json.dumps(reading.to_json()) if as_json else f"{file}: {reading.sentence()}")


@command.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="A folder with london/ (the London Set) and video/; without it, what is bundled serves.",
)
@click.option("--quick", is_flag=True, help="Few pictures: to see that it works, not to measure.")
@click.option(
    "--trials", type=click.IntRange(1), help="Reads of unmarked pictures; 100,000 by default."
)
@click.option("--all", "every", is_flag=True, help="Also the rows of each peer and of presence.")
@_JSON
def bench(data: Path | None, quick: bool, trials: int | None, every: bool, as_json: bool) -> None:
    """Measure how faint the mark is, what it survives, how seldom it is seen in vain, its speed.

    Each picture is marked with a payload of its own, attacked in every way, and read: a share of
    1.0 says that all 64 bits of all pictures were read. What was not is named on standard error.
    Beside it stands the best of invisible-watermark's dwtDct, dwtDctSvd and rivaGan, where
    installed. --json has the rows of each. Takes some twenty minutes of two cores.

    \b
    Examples:
      facekit watermark bench --quick
      facekit watermark bench --data DIR --json
    """
    from facekit.core.figures import show
    from facekit.datasets import marks_bench

    rows = marks_bench.bench(data=data, quick=quick, trials=trials)
    show(rows if every or as_json else marks_bench.headline(rows), as_json)
