"""What the commands share: the parser, and a run that fails with one line."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from typing import TextIO

from featurewire.plugin.interrupts import interruptible
from featurewire_exporter.cli.quiet import quiet_tensorflow
from featurewire_exporter.config import KINDS
from featurewire_exporter.errors import ExportError, one_line
from featurewire_exporter.progress import Progress


def add_kind(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="kind",
        choices=KINDS,
        default="auto",
        help="what MODULE is, where it does not say so itself (default: auto)",
    )


def run(parser: argparse.ArgumentParser, work: Callable[[TextIO], None]) -> int:
    """Do `work` with the real standard error, and say in one line what went wrong. The exit status.

    `work` gets standard error for warnings and progress: TensorFlow writes to the file descriptor.
    """
    # An export that is interrupted unwinds, so that it removes what it was writing.
    with interruptible(), quiet_tensorflow() as stderr:
        try:
            work(stderr)
            return 0
        except ExportError as error:
            message = str(error)
        except KeyboardInterrupt as interrupt:
            print(f"{parser.prog}: interrupted; nothing was published", file=stderr)
            return int(interrupt.args[0])
        except MemoryError:
            message = "out of memory; export on a machine with more, or fewer others on it"
        except Exception as error:
            if os.environ.get("FEATUREWIRE_DEBUG"):
                raise
            message = (
                f"{type(error).__name__}: {one_line(error)}; "
                "set FEATUREWIRE_DEBUG=1 for the traceback"
            )
        print(f"{parser.prog}: {' '.join(message.splitlines())}", file=stderr)
        return 1


def print_result(text: str) -> None:
    """Print a result. Raises `ExportError` with its last line where it cannot be printed."""
    try:
        print(text, flush=True)
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):
            # What is left in the buffer has nowhere to go when the interpreter ends, either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ExportError(
            f"standard output cannot be written ({error.strerror}); the work is done: "
            f"{text.splitlines()[-1]}"
        ) from error


def progress_on(stderr: TextIO, *, as_json: bool) -> Progress:
    """Progress on a terminal, or as lines on standard output where that is not for JSON."""
    if stderr.isatty():
        return Progress(stderr)
    return Progress(None if as_json else sys.stdout)
