"""What the client's subcommands share: parser, values, failure, names fit to print."""

from __future__ import annotations

import argparse
import math
import os
from typing import NoReturn


class CommandFailure(Exception):
    """The work cannot be done; the text says why and what to do. Exit status 1."""


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line: what is wrong, and where to read on."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def quiet_grpc() -> None:
    """Keep gRPC's own log off standard error, where a failure is this command's one line.

    To be called before gRPC is imported: it reads the variable then.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def positive_int(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def filled_text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the text is empty; give a value")
    return text


def positive_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


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


def add_signature_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("for models that featurewire did not export")
    group.add_argument("--signature", metavar="NAME", help="the signature to call")
    group.add_argument("--input-name", metavar="NAME", help="its input: encoded images")
    group.add_argument("--output-name", metavar="NAME", help="its output: the vectors")
