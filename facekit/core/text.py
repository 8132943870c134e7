"""Text from elsewhere, made fit to be shown."""


def plain(text: str) -> str:
    """``text`` as one line that commands nothing to a terminal: names of files may hold anything.

    Letters that can't be printed, line breaks among them, become U+FFFD.
    """
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
