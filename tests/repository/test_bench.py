"""`make bench` writes its figures, keeps old ones of failed parts, and stops every server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import bench.__main__
from bench import lesser, models, results
from bench._published import standing_still
from bench.machine import own_seconds
from bench.parts.accuracy import CROPS, recall_lost
from bench.sharing import shared, sharing
from tests.support.waiting import wait_until


@pytest.fixture
def started():
    """Records the contexts that are entered now, and all that were ever entered."""
    return [], []


@pytest.fixture
def server(started):
    running, ever = started

    @contextlib.contextmanager
    def start(name: str) -> Iterator[str]:
        running.append(name)
        ever.append(name)
        try:
            yield name
        finally:
            running.remove(name)

    return start


def test_parts_share_servers_and_leave_none_even_after_a_failure(started, server):
    running, ever = started

    def measure_and_fail() -> None:
        with sharing():
            for name in ("float32", "bfloat16", "float32"):
                with shared(server, name):
                    pass
            raise RuntimeError

    with pytest.raises(RuntimeError):
        measure_and_fail()
    assert ever == ["float32", "bfloat16"]
    assert running == []


def test_a_part_by_itself_leaves_no_server(started, server):
    running, ever = started
    for _ in range(2):
        with shared(server, "float32"):
            assert running == ["float32"]
        assert running == []
    assert ever == ["float32"] * 2


@pytest.fixture
def exact():
    """Random pictures, each with crops equal to it."""
    return np.repeat(np.eye(20, dtype=np.float32)[:, np.newaxis], 1 + CROPS, axis=1)


def test_the_interval_of_what_is_lost_counts_pictures_not_crops(exact):
    found = exact.copy()
    found[0, 1:] = found[1, 1:]  # all crops of one of 20 pictures find another picture
    share = 1 / 20
    error = 196 * (share * (1 - share) / 19) ** 0.5
    assert recall_lost(exact, found) == f"5.00 ± {error:.2f} points"


def test_processor_time_includes_child_processes_while_threads_churn():
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    before = own_seconds()
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            threads = [threading.Thread(target=lambda: None) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        with subprocess.Popen(
            [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child:
            child.stdout.readline()
            while_it_lives = [own_seconds() - before for _ in range(50)]
            child.stdin.write(b"\n")
    finally:
        stop.set()
        churning.join()
    assert min(while_it_lives) >= 0.25
    assert own_seconds() - before >= 0.25


def test_a_model_whose_making_ends_midway_is_made_again(tmp_path):
    path = tmp_path / "models" / "plain"

    def broken(folder: str) -> None:
        Path(folder).mkdir()
        raise RuntimeError

    def whole(folder: str) -> None:
        Path(folder).mkdir()
        Path(folder, "saved_model.pb").touch()

    with pytest.raises(RuntimeError):
        models.made(path, broken)
    assert not path.exists()
    assert models.made(path, whole) == path
    assert [entry.name for entry in path.iterdir()] == ["saved_model.pb"]
    assert models.made(path, broken) == path


@pytest.mark.parametrize("processor", lesser.here(), ids=lambda each: each.name)
def test_what_is_hidden_of_a_processor_computes_nothing(processor):
    kernels = " ".join(processor.kernels().values())
    for instructions in ("avx512", "amx"):
        assert (instructions in kernels) == (instructions not in processor.without)


def test_servers_stand_still_while_another_is_measured():
    with subprocess.Popen(
        [sys.executable, "-c", "while True: pass"], start_new_session=True
    ) as process:
        try:
            with standing_still([process.pid]):
                wait_until(lambda: _state(process.pid) == "T")
            wait_until(lambda: _state(process.pid) == "R")
        finally:
            process.kill()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_a_part_that_measures_nothing_keeps_the_figures_it_has(monkeypatch, tmp_path):
    monkeypatch.setattr(bench.__main__, "QUICK", tmp_path)
    monkeypatch.setitem(sys.modules, "bench.plots", mock.Mock())
    part = results.load(results.LATEST)["start"]
    results.save(tmp_path / "results.json", {"start": part})
    with mock.patch.dict(os.environ):
        assert bench.__main__.main(["start", "--quick"]) == 0
    assert results.load(tmp_path / "results.json") == {"start": part}
