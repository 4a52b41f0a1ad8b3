"""Progress of a long job on standard error: a bar on a terminal, else a line every 30 seconds."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from featurewire._cli.text import printable

if TYPE_CHECKING:
    from typing import Self

BAR_SECONDS = 0.2
LINE_SECONDS = 30.0
WINDOW_SECONDS = 15.0
"""Seconds over which the rate is measured, so that a stall shows and a slow start is forgotten."""

_CLEAR = "\r\x1b[K"


class Snapshot(NamedTuple):
    """The state of a job. `total` counts the items found until now; it is final if `complete`."""

    done: int
    failed: int
    total: int
    complete: bool
    rate: float
    """Items per second over the last `WINDOW_SECONDS`."""
    unit: str = "images"

    def parts(self) -> list[str]:
        """The rate, the number of failures and the remaining time, as far as they are known."""
        parts = [f"{self.rate:.1f} {self.unit}/s"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.complete and self.rate > 0:
            parts.append(f"{duration((self.total - self.done) / self.rate)} left")
        return parts


def duration(seconds: float) -> str:
    """`42s`, `3m05s`, `2h07m`, `5d03h`."""
    whole = round(seconds)
    for unit, size, below, part in ("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02}{below}"
    return f"{whole}s"


def line(now: Snapshot) -> str:
    """The snapshot as one line for a log."""
    total = f"{now.total}" if now.complete else f"{now.total} or more"
    return ", ".join([f"{now.done} of {total} {now.unit}", *now.parts()])


def bar(now: Snapshot, columns: int) -> str:
    """The snapshot in fewer than `columns` characters, with a bar if there is room."""
    total = f"{now.total}" if now.complete else f"{now.total}+"
    text = "  ".join([f"{now.done}/{total}", *now.parts()])
    width = min(40, columns - len(text) - 4)
    if width < 8 or not now.complete:
        return text[: columns - 1]
    filled = width if now.done >= now.total else width * now.done // now.total
    return f"[{'#' * filled}{'.' * (width - filled)}] {text}"


class Screen:
    """Standard error: permanent lines, and on a terminal a status line below them. Thread-safe.

    As a context manager, it clears the status line at the end. `quiet`: no status line.
    """

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        self._name = name
        self._quiet = quiet
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not quiet
        self._lock = threading.Lock()
        self._next = time.monotonic()

    def say(self, text: str) -> None:
        """Write a permanent line."""
        self._write(f"{_CLEAR if self._terminal else ''}{self._name}: {text}\n")

    def wait(self, text: str, *, lines: bool = True) -> None:
        """Show `text` as the status line.

        Without a terminal, write it as a permanent line every `LINE_SECONDS`, if `lines` is set.
        """
        text = printable(text)
        if self._terminal:
            self._show(f"{self._name}: {text}"[: shutil.get_terminal_size().columns - 1])
        elif lines and not self._quiet and time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_SECONDS
            self.say(text)

    def _show(self, text: str) -> None:
        self._write(f"\r{text}\x1b[K")

    def _write(self, text: str) -> None:
        with self._lock:
            sys.stderr.write(text)
            sys.stderr.flush()

    def close(self) -> None:
        if self._terminal:
            self._write(_CLEAR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Target(Protocol):
    """The number of items found until now, and whether the search is complete."""

    @property
    def total(self) -> int: ...

    @property
    def complete(self) -> bool: ...


class Known(NamedTuple):
    """A target whose total is known from the start."""

    total: int
    complete: bool = True


class Progress(Screen):
    """Shows a job's progress from `start` to `close`, and each failure. Thread-safe."""

    def __init__(self, name: str, *, unit: str = "images", quiet: bool = False) -> None:
        super().__init__(name, quiet=quiet)
        self._unit = unit
        self._done = 0
        self.failed: Counter[str] = Counter()
        """Number of failures, by reason."""
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, target: Target) -> None:
        """Begin to show the progress towards `target`."""
        if not self._quiet:
            self._thread = threading.Thread(
                target=self._run, args=(target,), name="progress", daemon=True
            )
            self._thread.start()

    def advance(self) -> None:
        """Count one finished item."""
        with self._lock:
            self._done += 1

    def fail(self, path: str, reason: str, detail: str = "") -> None:
        """Print a failure as `PATH: DETAIL`, or as `PATH: REASON` without a detail."""
        with self._lock:
            self.failed[reason] += 1
        self.say(printable(f"{path}: {detail or reason}"))

    def close(self) -> None:
        """Stop, and clear the bar."""
        self._closed.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
            super().close()

    def _run(self, target: Target) -> None:
        while not self._closed.wait(BAR_SECONDS if self._terminal else LINE_SECONDS):
            now = self._snapshot(target)
            if self._terminal:
                self._show(bar(now, shutil.get_terminal_size().columns - 1))
            else:
                self.say(line(now))

    def _snapshot(self, target: Target) -> Snapshot:
        now, done = time.monotonic(), self._done
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[0][0] > WINDOW_SECONDS:
            self._marks.popleft()
        then, before = self._marks[0]
        rate = (done - before) / max(now - then, 1e-9)
        failed = self.failed.total()
        return Snapshot(done, failed, target.total, target.complete, rate, self._unit)


def counted(counts: Counter[str]) -> str:
    """The counts as text, the most frequent first, such as `2 corrupt, 1 empty`."""
    return ", ".join(f"{number} {name}" for name, number in counts.most_common())
