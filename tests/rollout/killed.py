"""`featurewire rollout` in processes that kill themselves with SIGKILL at a given point.

The commands are forked from a process that has already imported everything, which saves each of
them a second. The points are before each external action: reading the config, writing the new one,
replacing the old one, querying the replicas, reloading them, and the audit.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Commands:
    """Context manager that runs commands, one at a time."""

    def __init__(self, log: Path) -> None:
        """`log` gets the output of the last command."""
        self.log = log
        self._zygote: subprocess.Popen[str] | None = None

    def __enter__(self) -> Commands:
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._zygote is not None
        assert self._zygote.stdin is not None
        self._zygote.stdin.close()
        self._zygote.wait(60)

    def run(
        self, argv: Sequence[str], *, kill_at: int = 0, largest_file: int = 0
    ) -> tuple[int, list[str]]:
        """Run a command; returns its exit status (-9: killed) and the points that it passed.

        `kill_at`: number of the point at which it kills itself, from 1. `largest_file`: maximum
        size of a file in bytes; larger writes fail.
        """
        return self.start(argv, kill_at=kill_at, largest_file=largest_file)()

    def start(self, argv: Sequence[str], *, kill_at: int = 0, largest_file: int = 0) -> Any:
        """Start a command; returns a function that waits and returns the result of `run`."""
        assert self._zygote is not None
        assert self._zygote.stdin is not None
        task = {
            "argv": list(argv),
            "kill_at": kill_at,
            "largest_file": largest_file,
            "log": str(self.log),
        }
        self._zygote.stdin.write(json.dumps(task) + "\n")
        self._zygote.stdin.flush()

        def wait() -> tuple[int, list[str]]:
            assert self._zygote is not None
            assert self._zygote.stdout is not None
            answer = json.loads(self._zygote.stdout.readline())
            return answer["status"], answer["points"]

        return wait


def _serve() -> None:
    from featurewire._cli import main  # noqa: F401
    from featurewire_rollout import command  # noqa: F401
    from featurewire_rollout.steps import rollout  # noqa: F401

    for line in sys.stdin:
        task = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            _run(task, writer)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            points = pipe.read().split("\n")[:-1]
        _, status = os.waitpid(child, 0)
        print(
            json.dumps({"status": os.waitstatus_to_exitcode(status), "points": points}), flush=True
        )


def _run(task: dict[str, Any], points: int) -> None:
    from featurewire._cli.main import run

    log = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    _watch(task["kill_at"], points)
    if task["largest_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (task["largest_file"], resource.RLIM_INFINITY))
    status = run(["rollout", *task["argv"]])
    sys.stdout.flush()
    os._exit(status)


def _watch(kill_at: int, points: int) -> None:
    """Print each point, and kill this process at one of them."""
    from featurewire_rollout.fleet import converge
    from featurewire_rollout.fleet.fleet import Fleet
    from featurewire_rollout.steps.audit import Audit
    from featurewire_rollout.steps.rollout import Rollout
    from featurewire_rollout.store.file import FileStore

    converge.POLL_SECONDS, converge.STALE_SECONDS = 0.02, 0.5
    count = 0
    polled: set[str] = set()
    """Queries since the last step; repeated ones count once."""

    def point(name: str) -> None:
        nonlocal count
        if name in polled:
            return
        if name != "read_state":
            polled.clear()
        polled.add(name)
        count += 1
        os.write(points, f"{name}\n".encode())
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            point(name)
            return real(*args, **options)

        setattr(owner, name, wrapped)

    for owner, name in (
        (Audit, "record"),
        (FileStore, "read"),
        (FileStore, "_write"),
        (os, "rename"),
        (Fleet, "read_state"),
        (Fleet, "reload"),
        (Rollout, "check"),
        (Rollout, "watch"),
    ):
        wrap(owner, name)


if __name__ == "__main__":
    _serve()
