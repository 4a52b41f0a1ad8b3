"""Run pip and show its progress: one updated line on a terminal, or a line every 10 s in a log.

python scripts/pip_progress.py PIP ARGUMENTS...
"""

from __future__ import annotations

import collections
import re
import subprocess
import sys
import threading
import time

STEP = re.compile(r"^\s*(Collecting|Downloading|Building|Installing|Preparing|Obtaining) (.*)")
SECONDS_BETWEEN_LINES = 10.0


class Display:
    """Shows the latest step with the seconds since the start."""

    def __init__(self) -> None:
        self.step = "starting pip"
        self.terminal = sys.stderr.isatty()
        self._started = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._thread.start()

    def _show(self) -> None:
        pause = 0.5 if self.terminal else SECONDS_BETWEEN_LINES
        while not self._done.wait(pause):
            line = f"[{time.monotonic() - self._started:3.0f} s] {self.step}"[:78]
            print(
                f"\r{line:<79}" if self.terminal else line,
                end="" if self.terminal else "\n",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        self._done.set()
        self._thread.join()
        if self.terminal:
            print(f"\r{'':79}\r", end="", file=sys.stderr, flush=True)


def main() -> int:
    last: collections.deque[str] = collections.deque(maxlen=20)
    display = Display()
    pip = subprocess.Popen(
        sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert pip.stdout is not None
    try:
        for line in pip.stdout:
            last.append(line)
            if found := STEP.match(line):
                # Show only the file of "Downloading https://…/tensorflow-2.21.0-….whl (572.9 MB)".
                display.step = f"{found[1]} {found[2].split('/')[-1]}"
        status = pip.wait()
    except KeyboardInterrupt:
        pip.wait()
        status = 130
    finally:
        display.close()
    if status:
        print("".join(last), end="", file=sys.stderr)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
