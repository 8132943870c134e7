"""Errors that a user can act on."""

from collections.abc import Iterable
from difflib import get_close_matches


class FacekitError(Exception):
    """What was wrong, what is allowed, and what to do, in one line.

    The command line prints the message without a traceback and exits with 1.
    """


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """The end of an error about a name: the nearest allowed name, and all of them."""
    names = sorted(allowed)
    near = get_close_matches(given, names, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}allowed: {', '.join(names) or '(none)'}"
