"""File names and texts of a server, fit to print."""

from __future__ import annotations

import os


def path_text(path: str) -> str:
    r"""The file name as text that any reader takes: bytes that are not UTF-8 become `\xNN`.

    Where a name itself has a `\x`, its backslash becomes `\x5c`: two names never give one text.
    """
    data = os.fsencode(path)
    if os.sep != "\\":
        data = data.replace(b"\\x", b"\\x5cx")
    return data.decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """The text on one line of a terminal: control characters are escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
