"""Make file names and texts from a server printable."""

from __future__ import annotations

import os


def path_text(path: str) -> str:
    r"""The file name as valid UTF-8 text: other bytes become `\xNN`.

    The backslash of a `\x` in the name itself becomes `\x5c`, so that two different names never
    give the same text.
    """
    data = os.fsencode(path)
    if os.sep != "\\":
        data = data.replace(b"\\x", b"\\x5cx")
    return data.decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """The text with control characters escaped, so that it fits on one line of a terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
