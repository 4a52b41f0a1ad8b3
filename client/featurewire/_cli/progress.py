"""Progress of a long job on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TextIO

from featurewire._cli.arguments import printable

BAR_SECONDS = 0.2
LINE_SECONDS = 30.0
WINDOW_SECONDS = 15.0
"""The rate is that of the last so many seconds: a stall shows, a slow start is forgotten."""

_CLEAR = "\r\x1b[K"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """How far a job is. `total` counts what is known so far, all of it once `complete`."""

    done: int
    failed: int
    total: int
    complete: bool
    rate: float
    """A second, lately."""
    unit: str = "images"

    @property
    def seconds_left(self) -> float | None:
        if not self.complete or self.rate <= 0:
            return None
        return (self.total - self.done) / self.rate


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def duration(seconds: float) -> str:
    """`42s`, `3m05s`, `2h07m`, `5d03h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def line(now: Snapshot) -> str:
    """One sentence of a snapshot, for a log."""
    total = f"{now.total}" if now.complete else f"{now.total} or more"
    parts = [f"{now.done} of {total} {now.unit}", f"{now.rate:.1f} {now.unit}/s"]
    if now.failed:
        parts.append(f"{now.failed} failed")
    if now.seconds_left is not None:
        parts.append(f"{duration(now.seconds_left)} left")
    return ", ".join(parts)


def bar(now: Snapshot, columns: int) -> str:
    """The same as one line of at most `columns` characters, with a bar where there is room."""
    total = f"{now.total}" if now.complete else f"{now.total}+"
    text = f" {now.done}/{total}  {now.rate:.1f} {now.unit}/s"
    if now.failed:
        text += f"  {now.failed} failed"
    if now.seconds_left is not None:
        text += f"  {duration(now.seconds_left)} left"
    width = min(40, columns - len(text) - 3)
    if width < 8 or not now.complete:
        return text[1:columns]
    filled = width if now.done >= now.total else width * now.done // now.total
    return f"[{'#' * filled}{'.' * (width - filled)}]{text}"


class Waiting:
    """What is waited for, on standard error: a line that changes on a terminal.

    Elsewhere, with `lines`, a line at first and then every 30 seconds. A context manager.
    """

    def __init__(self, *, name: str, lines: bool, quiet: bool = False) -> None:
        self._name = name
        self._lines = lines and not quiet
        self._terminal = _is_terminal(sys.stderr) and not quiet
        self._next = time.monotonic()

    def show(self, text: str) -> None:
        text = printable(text)
        if self._terminal:
            columns = shutil.get_terminal_size().columns
            sys.stderr.write(f"\r{f'{self._name}: {text}'[: columns - 1]}\x1b[K")
            sys.stderr.flush()
        elif self._lines and time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_SECONDS
            print(f"{self._name}: {text}", file=sys.stderr, flush=True)

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._terminal:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()


class Target(Protocol):
    """What knows how many images there are: so far, and whether that is all."""

    @property
    def total(self) -> int: ...

    @property
    def complete(self) -> bool: ...


class Known(NamedTuple):
    """A target that is known from the start."""

    total: int
    complete: bool = True


class Progress:
    """Shows a job's progress from `start` to `close`. Any thread may count and `say`.

    With `quiet`, only what is said is written.
    """

    def __init__(
        self,
        *,
        name: str,
        unit: str = "images",
        stream: TextIO | None = None,
        quiet: bool = False,
    ) -> None:
        self._done = 0
        self._failed = 0
        self._name, self._unit = name, unit
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = _is_terminal(self._stream) and not quiet
        self._quiet = quiet
        self._lock = threading.Lock()
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, target: Target) -> None:
        """Begin to show."""
        if not self._quiet:
            self._thread = threading.Thread(
                target=self._show, args=(target,), name="progress", daemon=True
            )
            self._thread.start()

    def advance(self, *, failed: bool = False) -> None:
        """Count one."""
        with self._lock:
            self._done += 1
            self._failed += failed

    def say(self, text: str) -> None:
        """Write a line of its own, above the bar."""
        with self._lock:
            clear = _CLEAR if self._terminal else ""
            self._stream.write(f"{clear}{self._name}: {text}\n")
            self._stream.flush()

    def close(self) -> None:
        """Stop, and take the bar away."""
        self._closed.set()
        thread, self._thread = self._thread, None
        if thread is None:
            return
        thread.join()
        if self._terminal:
            with self._lock:
                self._stream.write(_CLEAR)
                self._stream.flush()

    def _show(self, target: Target) -> None:
        while not self._closed.wait(BAR_SECONDS if self._terminal else LINE_SECONDS):
            now = self._snapshot(target)
            if self._terminal:
                columns = shutil.get_terminal_size().columns
                with self._lock:
                    self._stream.write(f"\r{bar(now, columns - 1)}\x1b[K")
                    self._stream.flush()
            else:
                self.say(line(now))

    def _snapshot(self, target: Target) -> Snapshot:
        now, done = time.monotonic(), self._done
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[0][0] > WINDOW_SECONDS:
            self._marks.popleft()
        then, before = self._marks[0]
        return Snapshot(
            done=done,
            failed=self._failed,
            total=target.total,
            complete=target.complete,
            rate=(done - before) / max(now - then, 1e-9),
            unit=self._unit,
        )
