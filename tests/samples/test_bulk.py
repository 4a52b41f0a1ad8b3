"""Bulk jobs on the local runners of Ray Data and Apache Beam survive the death of a worker."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_until

WHY = "needs the sample's own packages: run `make test-samples`"
pq = pytest.importorskip("pyarrow.parquet", reason=WHY)

FOLDER = Path(__file__).resolve().parents[2] / "samples" / "bulk"
TIMEOUT = 150.0
ENGINES = {
    "ray": ("ray_job.py", "ray::MapWorker(Map(Embedder)).submit"),
    "apache_beam": ("beam_job.py", "sdk_worker_main"),
}
"""Job of each engine, and a text in the command line of its workers (for Ray, of busy ones)."""


def _if_installed(name: str) -> Any:
    """A parameter that is skipped before its fixtures are set up."""
    return pytest.param(name, marks=pytest.mark.skipif(find_spec(name) is None, reason=WHY))


@pytest.fixture(params=[_if_installed(name) for name in ENGINES])
def engine(request) -> str:
    return request.param


class Run:
    """A job in a separate process."""

    def __init__(self, engine: str, photos: Path, output: Path, target: str) -> None:
        job, self._worker = ENGINES[engine]
        self.output = output
        self.log = output.with_suffix(".log")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, job, str(photos), str(output), "--server", target]
                + ["--model", "lite0", "--shard-size", "4", "--workers", "2"],
                cwd=FOLDER,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"},
            )

    def parts(self) -> dict[str, int]:
        """Modification times of the finished shards, by name."""
        return {path.name: path.stat().st_mtime_ns for path in self.output.glob("part-*")}

    def workers(self) -> list[int]:
        found = []
        for pid in _descendants(self.process.pid):
            text = _command(pid)
            if self._worker in text and not text.startswith("/bin/sh"):
                found.append(pid)
        return found

    def end(self) -> int:
        return self.process.wait(TIMEOUT)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may have ended
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found, new = [], [pid]
    while new:
        new = [child for parent in new for child in children.get(parent, [])]
        found += new
    return found


def rows(output: Path) -> list[dict]:
    return [
        row for part in output.glob("part-*.parquet") for row in pq.read_table(part).to_pylist()
    ]


def test_a_dead_worker_costs_no_photo_and_none_is_written_twice(engine, tiles, server, tmp_path):
    output = tmp_path / "vectors"
    run = Run(engine, tiles, output, server.target)
    try:
        wait_until(lambda: run.parts() or run.process.poll() is not None, TIMEOUT)
        server.process.send_signal(signal.SIGSTOP)  # so that calls stay in flight
        try:
            before = run.parts()
            worker, *_ = wait_until(run.workers, TIMEOUT)
            os.kill(worker, signal.SIGKILL)
        finally:
            server.process.send_signal(signal.SIGCONT)
        if run.end():
            # Beam's local runner fails the job with its worker, and the next run continues.
            assert engine == "apache_beam", run.log.read_text()
            run = Run(engine, tiles, output, server.target)
            assert run.end() == 0, run.log.read_text()
    finally:
        run.stop()
    found = rows(output)
    photos = sorted(str(path) for path in tiles.rglob("*.jpg"))
    assert sorted(row["path"] for row in found) == photos
    assert [row["path"] for row in found if row["error"]] == [str(tiles / "broken.jpg")]
    assert {row["version"] for row in found} == {1}
    assert len({row["vector_space"] for row in found}) == 1
    after = run.parts()
    assert {name: after[name] for name in before} == before  # finished shards were not repeated
    assert len(before) < len(after) == 16
    again = Run(engine, tiles, output, server.target)
    assert again.end() == 0, again.log.read_text()
    assert "nothing to do" in again.log.read_text()
    assert again.parts() == after
