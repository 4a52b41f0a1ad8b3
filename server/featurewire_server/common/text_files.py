"""Reads protobuf messages from text files."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from featurewire_server.common.errors import invalid_argument

M = TypeVar("M", bound=Message)


def read(path: str | Path, message: M) -> M:
    """Parse the text file `path` into `message` and return it.

    Raises INVALID_ARGUMENT with a one-line text: the file and, if known, the line number.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise invalid_argument(f"cannot read {path}: {reason}") from error
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        line = f":{error.GetLine()}" if error.GetLine() else ""
        reason = " ".join(str(error).split(" : ", 1)[-1].split())
        kind = message.DESCRIPTOR.full_name
        raise invalid_argument(
            f"{path}{line}: Error parsing text-format {kind}: {reason}"
        ) from error
