"""Parts that all commands share: the parser, the types of values, and the error."""

from __future__ import annotations

import argparse
import math
import os
from typing import NoReturn


class CommandFailure(Exception):
    """A command cannot do its work. The text says why, and what to do. Exit status 1."""


class CommandParser(argparse.ArgumentParser):
    """An argument parser that reports wrong usage in one line, with a pointer to `--help`."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def quiet_grpc() -> None:
    """Keep gRPC's log off standard error, so that a command's failure is a single line there.

    Call this before the import of gRPC, which reads the variable.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def positive_int(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def non_empty(text: str) -> str:
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
