"""What every command has: its parser, the types of its values, and its failure."""

from __future__ import annotations

import argparse
import math
import os
from typing import NoReturn


class CommandFailure(Exception):
    """The work cannot be done. The text says why, and what to do. Exit status 1."""


class CommandParser(argparse.ArgumentParser):
    """An argument parser that reports wrong usage in one line, and says where to read on."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def quiet_grpc() -> None:
    """Keep gRPC's own log off standard error, where a command reports its failure in one line.

    Call it before gRPC is imported, because gRPC reads the variable then.
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
