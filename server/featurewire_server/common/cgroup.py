"""The processor and memory limits of this process's control groups, versions 1 and 2.

https://docs.kernel.org/admin-guide/cgroup-v2.html: cpu.max, memory.max; for version 1
https://docs.kernel.org/scheduler/sched-bwc.html: cpu.cfs_quota_us, cpu.cfs_period_us.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def cores(root: Path = ROOT) -> int:
    """Processors that this process may keep busy: its affinity or, if smaller, its quota.

    A fractional quota is rounded up, so that the process can use all of it.
    """
    quotas = (*_quotas_v2(root), *_quotas_v1(root))
    return max(1, min([affinity(), *map(math.ceil, quotas)]))


def affinity() -> int:
    """Processors that this process may run on, whatever its quota."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_limit(root: Path = ROOT) -> int | None:
    """The smallest memory limit of the groups in bytes; None: no limit."""
    limits = []
    for folder in _folders(root, "", "sys/fs/cgroup"):
        with contextlib.suppress(OSError, ValueError):  # absent, or "max"
            limits.append(int((folder / "memory.max").read_text()))
    for folder in _folders(root, "memory", "sys/fs/cgroup/memory"):
        with contextlib.suppress(OSError, ValueError):
            limits.append(int((folder / "memory.limit_in_bytes").read_text()))
    return min(limits, default=None)


def _quotas_v2(root: Path) -> Iterator[float]:
    for folder in _folders(root, "", "sys/fs/cgroup"):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = (folder / "cpu.max").read_text().split()
            yield int(quota) / int(period)


def _quotas_v1(root: Path) -> Iterator[float]:
    for mount in ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"):
        for folder in _folders(root, "cpu", mount):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                quota = int((folder / "cpu.cfs_quota_us").read_text())
                if quota > 0:  # -1: no quota
                    yield quota / int((folder / "cpu.cfs_period_us").read_text())


def _folders(root: Path, controller: str, mount: str) -> Iterator[Path]:
    """The folders of this process's group and its parent groups, as far as `mount` shows them.

    In a container, `mount` itself may be the container's group, and /proc/self/cgroup may show
    the host's path of the group. Then that path does not exist below `mount`.
    """
    top = root / mount
    group = _group(root, controller)
    folder = top / group.lstrip("/")
    while top in folder.parents:
        yield folder
        folder = folder.parent
    yield top


def _group(root: Path, controller: str) -> str:
    """The path of this process's group in /proc/self/cgroup; `controller` is "" for version 2."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(",") and ".." not in path:
                return path
    return "/"
