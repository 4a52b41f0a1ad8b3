"""Progress of a long command: steps, and bytes of a transfer."""

from __future__ import annotations

import time
from typing import TextIO

CLEAR = "\r\x1b[K"
"""Clear the terminal's line."""


class Progress:
    """Reports steps and results, on a terminal in one line that is rewritten.

    The line of a result stays. Elsewhere every step is a line.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._terminal = stream is not None and stream.isatty()
        self._started = time.monotonic()
        self._text = ""
        self._drawn = 0.0

    def step(self, text: str) -> None:
        """Begin a step."""
        self._text = text
        if self._terminal:
            self._draw(f"{self._clock()} {text} ...")
        else:
            self._write(f"{self._clock()} {text}\n")

    def result(self, text: str) -> None:
        """Write the result of a step, in a line that stays."""
        self._write(f"{CLEAR if self._terminal else ''}{self._clock()} {text}\n")

    def bytes(self, done: int, total: int | None = None) -> None:
        """Report the step's transfer; drawn only on terminals, up to five times per second."""
        now = time.monotonic()
        if not self._terminal or (now - self._drawn < 0.2 and done != total):
            return
        self._drawn = now
        megabytes = f"{done / 1e6:.1f} MB"
        if total:
            filled = int(20 * done / total)
            bar = f"[{'#' * filled}{'.' * (20 - filled)}]"
            megabytes = f"{bar} {done / 1e6:.1f} of {total / 1e6:.1f} MB"
        self._draw(f"{self._text}: {megabytes}")

    def end(self) -> None:
        """Leave a clean line on a terminal."""
        if self._terminal:
            self._draw("")
            self._write("\r")

    def _draw(self, text: str) -> None:
        self._write(f"{CLEAR}{text[:200]}")

    def _clock(self) -> str:
        return f"[{time.monotonic() - self._started:3.0f} s]"

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # the reader is gone; the work goes on
            self._stream = None
