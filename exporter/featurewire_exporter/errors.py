"""The errors of an export. `str(error)` is one line: what was wrong; what to do.

ExportError
├── ModuleError      the module cannot be found, fetched, read or understood
├── ParityError      the artifact does not compute what the module does
└── PublishError     the version cannot be written
"""

from __future__ import annotations


class ExportError(Exception):
    """The work failed: exit status 1."""


class ModuleError(ExportError):
    """The module cannot be found, fetched, read or understood."""


class ParityError(ExportError):
    """The artifact does not compute what the module does."""


class PublishError(ExportError):
    """The version cannot be written."""


def one_line(error: BaseException) -> str:
    """The first line of an error's text; the name of its class if the text is empty.

    If that line ends with a colon, the last line follows it.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    announces = len(lines) > 1 and lines[0].rstrip(") ").endswith(":")
    return f"{lines[0]} {lines[-1]}" if announces else lines[0]
