"""Shared by the commands: one option, the printing of results, and one line for a failure."""

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
        help="format of MODULE, if it cannot be detected (default: auto)",
    )


def run(parser: argparse.ArgumentParser, work: Callable[[TextIO], None]) -> int:
    """Run `work`, report a failure in one line, and return the exit status.

    `work` gets the real standard error, for warnings and progress. TensorFlow's goes nowhere.
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
            message = "out of memory; use a machine with more memory, or stop other programs"
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
            # The interpreter would try to flush the rest of the buffer at exit, and fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ExportError(
            f"standard output cannot be written ({error.strerror}); the work is done: "
            f"{text.splitlines()[-1]}"
        ) from error


def progress_on(stderr: TextIO, *, as_json: bool) -> Progress:
    """Progress on a terminal; else as lines on standard output, unless that is for JSON."""
    if stderr.isatty():
        return Progress(stderr)
    return Progress(None if as_json else sys.stdout)
