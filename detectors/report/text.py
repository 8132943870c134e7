"""Numbers as a report words them."""

import math
from collections.abc import Iterable


def clock(seconds: float) -> str:
    """Seconds as ``1:02.4`` (or ``1:00:02.4``)."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{start}:{tenths / 10:04.1f}"


def p_value(value: float | None) -> str:
    """A p-value with its sign, as it is printed: "= 0.31", "< 1e-12", never zero."""
    if value is None:
        return "unknown"
    if value >= 0.001:
        return f"= {value:.2g}"
    return f"< 1e{max(-300, math.floor(math.log10(max(value, 1e-301))) + 1)}"


def file_size(count: int) -> str:
    """Bytes in the largest unit that fits: ``596 kB``."""
    value, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{count} bytes" if units[0] == "bytes" else f"{value:.3g} {units[0]}"


def sentence(text: str) -> str:
    """A reason as a sentence: capital letter, full stop."""
    words = text.strip()
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")


def span(ends: tuple[float, float], digits: int = 0, unit: str = "") -> str:
    """From and to, with true minus signs: ``92 to 188 px``; one number where both are the same."""
    low, high = (f"{end:.{digits}f}".replace("-", "−") for end in ends)
    low, high = (end.removeprefix("−") if not end.strip("−0.") else end for end in (low, high))
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def percent(share: float) -> str:
    """A share as ``1.2%``; small ones keep two digits that say something."""
    return f"{100 * share:.2g}%" if share < 0.1 else f"{100 * share:.0f}%"


def number(value: float, digits: int = 2) -> str:
    """A number with a true minus sign, which a screen reader says."""
    return f"{value:.{digits}f}".replace("-", "−")


def times_as_probable(log10: float) -> str:
    """A likelihood ratio in words that need no statistics: which is how much more probable."""
    if abs(log10) < 0.05:
        return "the scores are as probable if the face was generated as if it was not"
    one, other = ("generated", "was not") if log10 > 0 else ("not generated", "was")
    return (
        f"the scores are about {ratio(abs(log10))} times as probable if the face was {one} as if "
        f"it {other}"
    )


def ratio(log10: float) -> str:
    """The power of ten, in two digits: ``6.3``, ``130``, ``1,300``."""
    power = 10**log10
    return f"{power:.1f}" if power < 10 else f"{float(f'{power:.2g}'):,.0f}"


def listed(things: Iterable[object]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    words = [str(thing) for thing in things]
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def count(number: int, thing: str, many: str = "") -> str:
    """``1 face``, ``2 faces``."""
    return f"{number:,} {thing if number == 1 else many or thing + 's'}"
