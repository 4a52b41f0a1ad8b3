"""A version appears complete or not at all, after a kill, a race or a full disk."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from featurewire_exporter.errors import PublishError
from featurewire_exporter.version.publish import STAGING_PREFIX, Staging, next_version
from tests.support import warm

# A fast imitation of the exporter, which writes a version and prints its path.
EXPORTER = """
import sys, time
from pathlib import Path
from featurewire_exporter.errors import PublishError
from featurewire_exporter.version.publish import Staging
base, version, wait_at = sys.argv[1], sys.argv[2], sys.argv[3]
def at(point):
    print(point, flush=True)
    if point == wait_at:
        sys.stdin.readline()
try:
    with Staging(base, version=int(version) or None) as staging:
        at("staged")
        for i in range(20):
            (staging.version / f"file{i}").write_bytes(b"x" * 100_000)
        at("filled")
        print(staging.publish(), flush=True)
        at("published")
except PublishError as error:
    print("error", error, flush=True)
    sys.exit(1)
"""


def start(
    base: Path, *, version: int = 0, wait_at: str = ""
) -> subprocess.Popen | warm.WarmProcess:
    process = warm.start(
        ["-c", EXPORTER, str(base), str(version), wait_at],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while wait_at and process.stdout.readline().strip() != wait_at:
        assert process.poll() is None
    return process


def finish(process: subprocess.Popen | warm.WarmProcess) -> tuple[int, str]:
    output, _ = process.communicate("\n", timeout=120)
    return process.returncode, output


def fill(staging: Staging, text: str = "x") -> None:
    (staging.version / "saved_model.pb").write_text(text)


def fail_in(base: Path) -> None:
    with Staging(base) as staging:
        assert base.is_dir()
        fill(staging)
        raise RuntimeError


def entries(base: Path) -> list[str]:
    return sorted(path.name for path in base.iterdir())


def test_versions_count_up_from_the_highest_present(tmp_path):
    for name in ("3", "12", "x", "1.5", ".hidden"):
        (tmp_path / name).mkdir()

    assert next_version(tmp_path) == 13
    with Staging(tmp_path) as staging:
        fill(staging)
        assert staging.publish() == tmp_path / "13"
    assert "13" in entries(tmp_path)


def test_versions_are_numbers_not_names(tmp_path):
    (tmp_path / "007").mkdir()
    (tmp_path / "9").symlink_to(tmp_path / "nowhere")

    for number in (7, 9):
        with pytest.raises(PublishError, match="exists at"), Staging(tmp_path, version=number):
            pytest.fail("work began")
    assert next_version(tmp_path) == 10


def test_there_is_no_version_beyond_the_largest(tmp_path):
    (tmp_path / str(2**63 - 1)).mkdir()

    with pytest.raises(PublishError, match="--version"), Staging(tmp_path):
        pytest.fail("work began")
    with Staging(tmp_path, version=3) as staging:
        fill(staging)
        assert staging.publish().name == "3"


def test_a_pipe_with_the_name_of_a_leftover_holds_nobody_up(tmp_path):
    os.mkfifo(tmp_path / f"{STAGING_PREFIX}x")
    with Staging(tmp_path) as staging:
        fill(staging)
        assert staging.publish().name == "1"


def test_missing_base_directories_are_made_and_removed_on_failure(tmp_path):
    with pytest.raises(RuntimeError):
        fail_in(tmp_path / "a" / "b")
    assert entries(tmp_path) == []

    with Staging(tmp_path / "a" / "b") as staging:
        fill(staging)
        staging.publish()
    assert entries(tmp_path / "a" / "b") == ["1"]


def test_a_failure_leaves_other_versions_alone_and_nothing_of_its_own(tmp_path):
    (tmp_path / "1").mkdir()
    with pytest.raises(RuntimeError):
        fail_in(tmp_path)
    assert entries(tmp_path) == ["1"]


def test_a_version_that_exists_is_refused_before_any_work(tmp_path):
    (tmp_path / "7").mkdir()

    with pytest.raises(PublishError, match="version 7 exists"), Staging(tmp_path, version=7):
        pytest.fail("work began")
    assert entries(tmp_path) == ["7"]


def test_what_is_being_written_is_hidden_from_tensorflow_serving(tmp_path):
    with Staging(tmp_path) as staging:
        fill(staging)
        (name,) = entries(tmp_path)
        assert name.startswith(STAGING_PREFIX)
        assert name.startswith(".")
        assert not name.isdigit()


def test_a_published_version_can_be_read_by_other_users(tmp_path):
    """TensorFlow Serving's container runs as a different user."""
    previous = os.umask(0o022)
    try:
        with Staging(tmp_path) as staging:
            fill(staging)
            path = staging.publish()
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("point", ["staged", "filled"])
def test_a_killed_exporter_publishes_nothing_and_the_next_cleans_up(tmp_path, point):
    process = start(tmp_path, wait_at=point)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    (leftover,) = entries(tmp_path)
    assert leftover.startswith(STAGING_PREFIX)

    with Staging(tmp_path) as staging:
        fill(staging)
        assert staging.publish().name == "1"
    assert entries(tmp_path) == ["1"]


def test_a_kill_at_any_moment_leaves_whole_versions_only(tmp_path):
    """Kill it after growing delays, from before the start to after the end."""
    seen = set()
    for step in range(12):
        base = tmp_path / str(step)
        base.mkdir()
        process = start(base, wait_at="staged")
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(step * 0.004)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        versions = [name for name in entries(base) if name.isdigit()]
        seen.add(len(versions))
        for name in versions:
            files = list((base / name).iterdir())
            assert len(files) == 20
            assert {path.stat().st_size for path in files} == {100_000}
    assert 0 in seen


def test_the_leftovers_of_an_exporter_that_lives_are_not_touched(tmp_path):
    process = start(tmp_path, wait_at="filled")
    with Staging(tmp_path) as staging:
        fill(staging)
        assert staging.publish().name == "1"

    code, output = finish(process)
    assert (code, output.split()[0]) == (0, str(tmp_path / "2"))
    assert entries(tmp_path) == ["1", "2"]


def test_two_exporters_with_the_same_number_publish_one_version(tmp_path):
    processes = [start(tmp_path, version=5, wait_at="filled") for _ in range(2)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    results = sorted(finish(process) for process in processes)

    assert [code for code, _ in results] == [0, 1]
    assert "error version 5 exists" in results[1][1]
    assert entries(tmp_path) == ["5"]
    assert len(list((tmp_path / "5").iterdir())) == 20


def test_exporters_without_a_number_get_different_ones(tmp_path):
    processes = [start(tmp_path) for _ in range(4)]
    results = [finish(process) for process in processes]

    assert [code for code, _ in results] == [0] * 4
    assert entries(tmp_path) == ["1", "2", "3", "4"]


def test_a_base_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")

    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(PublishError, match="cannot be written") as caught, Staging(path):
            pytest.fail("work began")
        assert "\n" not in str(caught.value)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 600 KB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(mount)]
    try:
        made = subprocess.run(options, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no small file system can be mounted here: {error}")
    if made.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {made.stderr.strip()}")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_nothing(small_disk, tf2_module, capsys):
    from featurewire_exporter.commands import export

    assert export([str(tf2_module), str(small_disk / "model")]) == 1

    message = capsys.readouterr().err
    assert re.fullmatch(r"featurewire export: the disk of .*/model is full; .*\n", message)
    assert entries(small_disk) == []


@pytest.mark.slow
def test_a_failed_write_is_one_line_and_leaves_nothing(tmp_path, tf2_module):
    """Without mounting a file system: the kernel refuses files above a limit."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "from featurewire_exporter.commands import export; sys.exit(export(sys.argv[1:]))"
    )
    done = warm.run(
        ["-c", code, str(tf2_module), str(tmp_path / "model")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert re.fullmatch(r"featurewire export: .*File too large.*\n", done.stderr)
    assert entries(tmp_path) == []


@pytest.mark.slow
def test_a_killed_export_leaves_no_version_and_the_next_cleans_up(tmp_path, tf2_module):
    """Kill the real command during the write of the version."""
    base = tmp_path / "model"
    process = warm.start(
        ["-m", "featurewire_exporter", "export", str(tf2_module), str(base)],
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if "Writing the version" in line:
            break
    process.kill()
    process.communicate()
    left = entries(base)
    assert [name for name in left if name.startswith(STAGING_PREFIX)] or left == ["1"]

    from featurewire_exporter.commands import export

    assert export([str(tf2_module), str(base)]) == 0
    assert not [name for name in entries(base) if name.startswith(".")]
    for name in entries(base):
        assert (base / name / "assets.extra" / "featurewire.json").exists()


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_terminated_export_unwinds(tmp_path, small_stand_in_module, sent, status):
    process = warm.start(
        ["-m", "featurewire_exporter", "export"]
        + [str(small_stand_in_module), str(tmp_path / "model")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if "Loading" in line:
            break
    os.kill(process.pid, sent)
    _, errors = process.communicate(timeout=120)

    assert process.returncode == status
    assert errors == "featurewire export: interrupted; nothing was published\n"
    assert entries(tmp_path) == []


@pytest.mark.slow
def test_the_path_is_printed_last_and_json_alone(tmp_path, tf2_module, capsys):
    from featurewire_exporter.commands import export

    assert export([str(tf2_module), str(tmp_path / "m")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "m" / "1")
    assert export([str(tf2_module), str(tmp_path / "m"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(tmp_path / "m" / "2")
