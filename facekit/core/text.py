"""Text from elsewhere, made fit to be shown."""

import os
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path


def plain(text: str) -> str:
    """``text`` as one line that commands nothing to a terminal: names of files may hold anything.

    Letters that can't be printed, line breaks among them, become U+FFFD.
    """
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def spelled(path: Path) -> str:
    """A path as text that can be written as UTF-8: names of files need not be.

    Bytes that are none become U+FFFD.
    """
    return os.fsencode(path).decode("utf-8", "replace")


def command_line(words: Sequence[str]) -> str:
    """A command line of facekit for anyone to give: without the places of one machine.

    Args:
        words: as of ``sys.argv``, the program first; what follows ``--data``, ``--out`` or
            ``--cache`` becomes DATA, RUN or CACHE.
    """
    places = {"--data": "DATA", "--out": "RUN", "--cache": "CACHE"}
    told = [places.get(before, word) for before, word in pairwise(words)]
    return shlex.join(["facekit", *told])
