"""Progress of a long job on standard error: a bar on a terminal, a line now and then elsewhere."""

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
"""The rate is that of the last so many seconds: a stall shows, a slow start is forgotten."""

_CLEAR = "\r\x1b[K"


class Snapshot(NamedTuple):
    """How far a job is. `total` counts what is known so far, all of it once `complete`."""

    done: int
    failed: int
    total: int
    complete: bool
    rate: float
    """A second, lately."""
    unit: str = "images"

    def parts(self) -> list[str]:
        """The rate, the failures and the time that is left, as far as they are known."""
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
    """One sentence of a snapshot, for a log."""
    total = f"{now.total}" if now.complete else f"{now.total} or more"
    return ", ".join([f"{now.done} of {total} {now.unit}", *now.parts()])


def bar(now: Snapshot, columns: int) -> str:
    """The same as one line of at most `columns` characters, with a bar where there is room."""
    total = f"{now.total}" if now.complete else f"{now.total}+"
    text = "  ".join([f"{now.done}/{total}", *now.parts()])
    width = min(40, columns - len(text) - 4)
    if width < 8 or not now.complete:
        return text[: columns - 1]
    filled = width if now.done >= now.total else width * now.done // now.total
    return f"[{'#' * filled}{'.' * (width - filled)}] {text}"


class Screen:
    """Standard error: lines that stay, and on a terminal one that changes below them. Thread-safe.

    A context manager, which takes the line that changes away. `quiet`: only what is said is shown.
    """

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        self._name = name
        self._quiet = quiet
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not quiet
        self._lock = threading.Lock()
        self._next = time.monotonic()

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self._write(f"{_CLEAR if self._terminal else ''}{self._name}: {text}\n")

    def wait(self, text: str, *, lines: bool = True) -> None:
        """Show what is waited for; elsewhere than on a terminal only with `lines`, now and then."""
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
    """What knows how many images there are: so far, and whether that is all."""

    @property
    def total(self) -> int: ...

    @property
    def complete(self) -> bool: ...


class Known(NamedTuple):
    """A target that is known from the start."""

    total: int
    complete: bool = True


class Progress(Screen):
    """Shows a job's progress from `start` to `close`, and what failed. Any thread may call it."""

    def __init__(self, name: str, *, unit: str = "images", quiet: bool = False) -> None:
        super().__init__(name, quiet=quiet)
        self._unit = unit
        self._done = 0
        self.failed: Counter[str] = Counter()
        """By reason."""
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, target: Target) -> None:
        """Begin to show."""
        if not self._quiet:
            self._thread = threading.Thread(
                target=self._run, args=(target,), name="progress", daemon=True
            )
            self._thread.start()

    def advance(self) -> None:
        """Count one."""
        with self._lock:
            self._done += 1

    def fail(self, path: str, reason: str, detail: str = "") -> None:
        """List a failure as `PATH: DETAIL`; a detail begins with the reason, or is only that."""
        with self._lock:
            self.failed[reason] += 1
        self.say(printable(f"{path}: {detail or reason}"))

    def close(self) -> None:
        """Stop, and take the bar away."""
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
    """`2 corrupt, 1 empty`: the most frequent first."""
    return ", ".join(f"{number} {name}" for name, number in counts.most_common())
