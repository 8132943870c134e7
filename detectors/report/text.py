"""Numbers as a report words them."""

import math


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
