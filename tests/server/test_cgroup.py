"""Limits of a container count, in both versions of control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from featurewire_server.common import cgroup

MIB = 1 << 20


def tree(root: Path, own: str, files: dict[str, str]) -> Path:
    """A file system in which /proc/self/cgroup contains `own`."""
    for name, text in ({"proc/self/cgroup": own} | files).items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


V1_KINDS = ("cpu", "memory")
V1 = "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n0::/\n"


@pytest.mark.parametrize(
    ("own", "files", "cores", "memory"),
    [
        ("0::/\n", {}, 8, None),
        ("0::/\n", {"cpu.max": "max 100000\n", "memory.max": "max\n"}, 8, None),
        ("0::/\n", {"cpu.max": "200000 100000\n", "memory.max": f"{512 * MIB}\n"}, 2, 512 * MIB),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2, None),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1, None),
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 8, None),
        ("0::/\n", {"cpu.max": "nonsense"}, 8, None),
        # A limit of the pod also applies to its container.
        (
            "0::/pod/box\n",
            {"pod/box/cpu.max": "max 100000", "pod/cpu.max": "300000 100000"}
            | {"pod/box/memory.max": f"{900 * MIB}", "pod/memory.max": f"{700 * MIB}"},
            3,
            700 * MIB,
        ),
        # The group's name on the host, whose parents the container cannot see.
        ("0::/host/box\n", {"cpu.max": "400000 100000"}, 4, None),
        ("0::/../../other\n", {"cpu.max": "400000 100000"}, 4, None),
        (
            V1,
            {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}
            | {"memory/memory.limit_in_bytes": f"{300 * MIB}"},
            3,
            300 * MIB,
        ),
        (
            V1,
            {"cpu,cpuacct/docker/a/cpu.cfs_quota_us": "50000"}
            | {"cpu,cpuacct/docker/a/cpu.cfs_period_us": "100000"}
            | {"memory/docker/a/memory.limit_in_bytes": f"{200 * MIB}"},
            1,
            200 * MIB,
        ),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8, None),
    ],
)
def test_limits_are_read(tmp_path: Path, own, files, cores, memory) -> None:
    root = tree(tmp_path, own, {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    assert cgroup.cores(root) == cores
    assert cgroup.memory_limit(root) == memory


def test_affinity_counts_where_there_are_no_groups(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert cgroup.cores(tmp_path) == 1


CODE = """
import os, sys
os.sched_getaffinity = lambda _: set(range(8))
from featurewire_server.common import cgroup
cgroup.cores.__defaults__ = (__import__("pathlib").Path(sys.argv[1]),)
from featurewire_server import configs, flags, process
from featurewire_server.batching import config as batching_config
asked = flags.parse(["--model_base_path=/m"])
engine = configs.engine_config(asked)
print(flags.CORES, batching_config.BatchingConfig().threads,
      engine.intra_op_threads, engine.inter_op_threads)
"""


@pytest.mark.slow
def test_a_quota_sets_every_default_that_counts_cores(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/\n", {"sys/fs/cgroup/cpu.max": "300000 100000"})
    command = [sys.executable, "-c", CODE, str(root)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.stdout.split() == ["3", "3", "3", "3"], ended.stderr


GROUPS = Path("/sys/fs/cgroup")
READ = "from featurewire_server.common import cgroup as c; print(c.cores(), c.memory_limit())"


@pytest.mark.parametrize("quota", ["30000", "100000"])
def test_the_limits_of_a_real_group_are_read(quota: str) -> None:
    if (GROUPS / "cgroup.controllers").exists():
        group = GROUPS / f"featurewire-test-{os.getpid()}"
        limits = {group / "cpu.max": f"{quota} 100000", group / "memory.max": str(900 * MIB)}
    else:
        cpu, memory = (GROUPS / kind / f"featurewire-test-{os.getpid()}" for kind in V1_KINDS)
        limits = {
            cpu / "cpu.cfs_quota_us": quota,
            memory / "memory.limit_in_bytes": str(900 * MIB),
        }
    made: list[Path] = []
    try:
        for file, limit in limits.items():
            if not file.parent.exists():
                file.parent.mkdir()
                made.append(file.parent)
            file.write_text(limit)
        joins = "; ".join(f"open('{group}/cgroup.procs', 'w').write('0')" for group in made)
        command = [sys.executable, "-c", f"{joins}; {READ}"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except OSError as error:
        pytest.skip(f"cannot make a control group: {error}")
    finally:
        for folder in made:
            folder.rmdir()
    assert ended.stdout.split() == ["1", str(900 * MIB)], ended.stderr
