"""`kill -9` of the command, or of its server, in the middle of a run; then `--resume`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import FEATUREWIRE, jpeg
from tests.cli.fake_serving import vector_of
from tests.support.warm import WarmProcess

IMAGES = 400


@pytest.fixture
def many(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(IMAGES):
        (tmp_path / "photos" / f"{number:03}.jpg").write_bytes(jpeg(number))
    return tmp_path


def begin(folder: Path, server, output: str) -> subprocess.Popen:
    return subprocess.Popen(
        [
            *(FEATUREWIRE, "embed", "photos", "--output", output, "--resume"),
            *("--server", server.target, "--model", "tiny"),
        ],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_rows(journal: Path, rows: int, process: subprocess.Popen | WarmProcess) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if journal.exists() and len(rows_in(journal)) >= rows:
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    raise AssertionError(f"{journal} did not reach {rows} rows")


def rows_in(journal: Path) -> list[str]:
    """The paths of the complete rows, read without this project's code."""
    head, _, data = journal.read_bytes().partition(b"\n")
    size = 4 * json.loads(head)["dimension"] if head.endswith(b"}") else 0
    paths = []
    while size:
        line, end, data = data.partition(b"\n")
        if not end or len(data) < size:
            break
        paths.append(json.loads(line)["path"])
        data = data[size:]
    return paths


def images_in(journal: Path) -> list[bytes]:
    """The images of the rows in the journal."""
    return [jpeg(int(Path(path).stem)) for path in rows_in(journal)]


def published(folder: Path, output: str) -> dict[str, list[float]]:
    path = folder / output
    if path.suffix == ".npy":
        lines = path.with_suffix(".jsonl").read_text().splitlines()
        names = [json.loads(line)["path"] for line in lines]
        rows = list(zip(names, np.load(path), strict=True))
    elif path.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path).to_pydict()
        rows = list(zip(table["path"], table["vector"], strict=True))
    else:
        found = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [(line["path"], line["vector"]) for line in found]
    listed = [(path, np.asarray(vector, np.float32).tolist()) for path, vector in rows]
    assert len(dict(listed)) == len(listed), "a path is in the file twice"
    return dict(listed)


@pytest.mark.parametrize("output", ["out.npy", "out.jsonl", "out.parquet"])
def test_resume_after_kill_9_redoes_nothing_and_loses_nothing(many, server, output):
    index = f"{output}.partial"
    server.seconds_per_image = 0.002
    for rows in (40, 200):
        process = begin(many, server, output)
        wait_for_rows(many / index, rows, process)
        process.kill()
        process.wait(60)
        process.stderr.close()
    assert not (many / output).exists()
    kept = images_in(many / index)
    assert 200 <= len(kept) < IMAGES
    server.seconds_per_image = 0
    before = server.seen.copy()
    process = begin(many, server, output)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 0, errors
    assert {image: server.seen[image] - before[image] for image in kept} == dict.fromkeys(kept, 0)
    assert f"{IMAGES} rows, {IMAGES - len(kept)} of them new" in errors
    assert published(many, output) == {
        f"photos/{number:03}.jpg": vector_of(jpeg(number)).tolist() for number in range(IMAGES)
    }
    leftovers = [name for name in os.listdir(many) if "partial" in name or "tmp" in name]
    assert leftovers == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_says_how_to_go_on(many, server, number, status):
    server.seconds_per_image = 0.005
    process = begin(many, server, "out.npy")
    wait_for_rows(many / "out.npy.partial", 20, process)
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == status
    assert len(errors.splitlines()) == 1
    rows = len(images_in(many / "out.npy.partial"))
    assert errors == (
        f"featurewire embed: interrupted; {rows} rows are in out.npy.partial, --resume continues "
        "them\n"
    )


def test_without_resume_what_a_killed_run_left_is_not_touched(many, server, command):
    server.seconds_per_image = 0.005
    process = begin(many, server, "out.jsonl")
    wait_for_rows(many / "out.jsonl.partial", 20, process)
    process.kill()
    process.communicate()
    before = (many / "out.jsonl.partial").read_bytes()
    shown = command(
        *("embed", "photos", "--output", "out.jsonl"),
        *("--server", server.target, "--model", "tiny"),
    )
    assert shown.returncode == 2
    assert "out.jsonl.partial is left from an unfinished run; --resume" in shown.stderr
    assert (many / "out.jsonl.partial").read_bytes() == before


def test_a_second_run_into_the_same_output_is_refused(many, server, command):
    server.seconds_per_image = 0.01
    process = begin(many, server, "out.npy")
    wait_for_rows(many / "out.npy.partial", 5, process)
    server.seconds_per_image = 0.2  # slow enough to overlap with the second one
    shown = command(
        *("embed", "photos", "--output", "out.npy", "--resume"),
        *("--server", server.target, "--model", "tiny"),
    )
    process.kill()
    process.communicate()
    assert shown.returncode == 1
    assert "another process is writing out.npy.partial; wait for it to end" in shown.stderr


def test_a_server_that_dies_and_comes_back_costs_nothing(many, server):
    server.seconds_per_image = 0.005
    process = begin(many, server, "out.npy")
    wait_for_rows(many / "out.npy.partial", 40, process)
    server.stop()
    time.sleep(0.3)
    server.seconds_per_image = 0
    server.start()
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 0, errors
    assert len(published(many, "out.npy")) == IMAGES


def test_a_server_that_stays_away_ends_the_run_and_keeps_what_is_done(many, server):
    server.seconds_per_image = 0.005
    process = subprocess.Popen(
        [
            *(FEATUREWIRE, "embed", "photos", "--output", "out.npy", "--patience", "1"),
            *("--server", server.target, "--model", "tiny"),
        ],
        cwd=many,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_rows(many / "out.npy.partial", 40, process)
    server.stop()
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1
    rows = len(images_in(many / "out.npy.partial"))
    assert f"; {rows} rows are in out.npy.partial, --resume continues them\n" in errors
