"""How every page is made from its template."""

from collections.abc import Callable, Mapping
from typing import Any

import jinja2


def environment(filters: Mapping[str, Callable[..., Any]]) -> jinja2.Environment:
    """The templates of this folder: text is escaped, and a name that is not given is an error.

    Args:
        filters: name → what a page words or draws with.
    """
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("detectors", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= filters
    return made
