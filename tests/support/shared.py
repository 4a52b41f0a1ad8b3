"""What all workers of a test run share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support import warm
from tests.support.process import START_TIMEOUT, ServerProcess, free_port, wait_for_port


def folder_of_the_run(factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all workers of the run share."""
    base = factory.getbasetemp()
    # Each xdist worker has its own folder inside the run's folder.
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def once_for_all_workers(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """`make(folder)` in the first test process that asks; the others wait for it."""
    shared = folder_of_the_run(factory)
    folder = shared / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            making = shared / f"{name}.making"
            making.mkdir()
            make(making)
            making.rename(folder)
    return folder


@dataclass(frozen=True)
class SharedServer:
    """A server on loopback that several tests use: none stops it or changes its models."""

    port: int
    rest_port: int

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def server_for_all_workers(
    factory: pytest.TempPathFactory, name: str, flags: Callable[[Path], Sequence[str]]
) -> Iterator[SharedServer]:
    """`featurewire serve`, started by the first test process that asks, stopped after the run.

    `flags` is given a folder for the files that they name, once. Both ports are open; models may
    still be loading.
    """
    shared = warm.folder_of_fork_servers() is not None
    # A server that nothing would end after the run has one user.
    folder = folder_of_the_run(factory) / f"{name}-server" if shared else factory.mktemp(name)
    started, rest_port = folder / "started.json", free_port()
    server: ServerProcess | None = None
    with FileLock(f"{folder}.lock"):
        if not started.exists():
            folder.mkdir(exist_ok=True)
            server = ServerProcess(
                *flags(folder),
                f"--rest_api_port={rest_port}",
                log=folder / "server.log",
                whole_run=shared,
            )
            server.start()
            wait_for_port(rest_port, server.process, START_TIMEOUT)
            ports = {"port": server.port, "rest_port": rest_port}
            started.write_text(json.dumps(ports))
    try:
        yield SharedServer(**json.loads(started.read_text()))
    finally:
        if server is not None and not shared:
            server.stop()
