"""A change of the model of an index: replicas, rollouts, the backfill, a writer and searches.

Needs the packages of `samples/reindex`: see `project.py`.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import featurewire
from tests.support.process import ServerProcess
from tests.support.project import ROOT, project_python
from tests.support.threads import Background
from tests.support.waiting import wait_until

FOLDER = ROOT / "samples" / "reindex"
sys.path.insert(0, str(FOLDER))

from reindex import add, find, open_index  # noqa: E402
from tables import WrongSpaceError  # noqa: E402

__all__ = [
    "Backfill",
    "Query",
    "Replicas",
    "Search",
    "Traffic",
    "WrongSpaceError",
    "add",
    "open_index",
]

TIMEOUT = 120.0
CONFIG = """model_config_list {{
  config {{ name: "{model}" base_path: "{base}" model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 1 }} }}
    version_labels {{ key: "stable" value: 1 }}
    version_labels {{ key: "canary" value: 1 }} }} }}
"""


def _holds(index: Any, space: str, rows: int) -> bool:
    return len(index.names(space)) >= rows


class Replicas:
    """Context manager for servers of one config, in which version 1 is `stable`."""

    def __init__(self, base_path: Path, folder: Path, *flags: str, count: int = 2) -> None:
        """`base_path`: its last part is the model's name. `folder`: for the config and the logs."""
        self.model = base_path.name
        self._config = folder / "models.config"
        self._config.write_text(CONFIG.format(model=self.model, base=base_path))
        self._servers = [
            ServerProcess(
                f"--model_config_file={self._config}",
                "--model_config_file_poll_wait_seconds=1",
                "--allow_version_labels_for_unavailable_models",
                "--enable_batching",
                "--enable_per_model_batching_parameters",
                *flags,
                log=folder / f"{number}.log",
                python=project_python(),
            )
            for number in range(count)
        ]
        self._stack = ExitStack()

    @property
    def target(self) -> str:
        return ",".join(each.target for each in self._servers)

    def client(self, **options: Any) -> featurewire.Client:
        """A client of `stable` without retries."""
        once = featurewire.RetryConfig(max_attempts=1)
        return featurewire.Client(
            self.target, model=self.model, label="stable", retry=once, **options
        )

    def rollout(self, *step: str) -> str:
        """Run `featurewire rollout STEP …`; returns its output."""
        servers = [f"--server={each.target}" for each in self._servers]
        done = subprocess.run(
            [str(Path(project_python()).with_name("featurewire")), "rollout", *step]
            + [f"--config={self._config}", f"--model={self.model}", *servers],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def __enter__(self) -> Replicas:
        with ExitStack() as stack:
            for server in self._servers:
                stack.callback(server.stop)
                server.start()
            with self.client() as client:
                client.wait_until_ready(TIMEOUT)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


@dataclass(frozen=True)
class Backfill:
    """Runs of `reindex.py`, as its users start them."""

    replicas: Replicas
    kind: str
    folder: Path
    """Folder of the index."""
    images: Path

    def index(self) -> Any:
        """Open the index again."""
        return open_index(f"{self.kind}:{self.folder}")

    def start(self) -> subprocess.Popen[str]:
        where = ["--images", str(self.images), "--server", self.replicas.target]
        return subprocess.Popen(
            [sys.executable, "reindex.py", f"{self.kind}:{self.folder}", *where]
            + ["--model", self.replicas.model],
            cwd=FOLDER,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )

    def kill_at_random(self, space: str, times: int, *, step: int = 100) -> None:
        """Run it and kill -9 it `times` times, each after up to `step` more rows."""
        chance, index = random.Random(0), self.index()
        for _ in range(times):
            at = len(index.names(space)) + chance.randrange(1, step)
            process = self.start()
            wait_until(partial(_holds, index, space, at), TIMEOUT)
            assert process.poll() is None, process.communicate()[0]
            process.kill()
            process.communicate(timeout=TIMEOUT)

    def finish(self) -> str:
        """Run it to the end; returns its output."""
        process = self.start()
        output, _ = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, output
        return output


@dataclass(frozen=True)
class Query:
    """A query image, and the row that it should find."""

    key: int
    name: str
    image: bytes


@dataclass(frozen=True)
class Search:
    """The result of a search. `began` is `time.monotonic`."""

    query: Query
    began: float
    rank: int | None
    """Rank of the row, from 1; None if it is not among the ten nearest."""


class Traffic(Background):
    """A writer and continuous searches. Every call that fails is in `failures`."""

    def __init__(
        self,
        backfill: Backfill,
        names: list[str],
        *,
        write: Callable[[int], str | None],
        query: Callable[[int], Query],
        searchers: int = 2,
        pause: float = 0.025,
    ) -> None:
        """`names`: the existing rows. `write(n)` writes the image of row n and returns its name, or
        None at the end. `query(rows)` returns a query for one of the first `rows` rows. `pause`:
        seconds between two writes."""
        self.failures: list[str] = []
        self.searches: list[Search] = []
        self.names = names
        self._backfill, self._write, self._query, self._pause = backfill, write, query, pause
        super().__init__(
            lambda: self._run(self._add), *[lambda: self._run(self._search)] * searchers
        )

    def goes_on(self, searches: int = 20, rows: int = 4) -> None:
        """Wait for this many more answered searches and written rows."""
        found, written = len(self.searches) + searches, len(self.names) + rows

        def went_on() -> bool:
            return len(self.searches) >= found and len(self.names) >= written

        wait_until(went_on, TIMEOUT)

    def _run(self, work: Callable[[Any, featurewire.Client], None]) -> None:
        index = self._backfill.index()
        with self._backfill.replicas.client() as client:
            while not self._stop.is_set():
                try:
                    work(index, client)
                except Exception as error:  # any error is one failed request
                    self.failures.append(f"{type(error).__name__}: {error}")

    def _add(self, index: Any, client: featurewire.Client) -> None:
        name = self._write(len(self.names))
        if name is not None:
            errors = add(index, client, self._backfill.images, [name])
            assert errors == {}, errors
            self.names.append(name)
        self._stop.wait(self._pause)

    def _search(self, index: Any, client: featurewire.Client) -> None:
        query, began = self._query(len(self.names)), time.monotonic()
        found = [name for name, _ in find(index, client, query.image)]
        rank = found.index(query.name) + 1 if query.name in found else None
        self.searches.append(Search(query, began, rank))
