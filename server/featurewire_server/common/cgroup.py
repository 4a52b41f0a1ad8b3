"""What the control groups of this process allow: processors and memory. Versions 1 and 2.

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

    A part of a processor counts as one, so that none of the quota is left unused.
    """
    quotas = (*_quotas_v2(root), *_quotas_v1(root))
    return max(1, min([affinity(), *map(math.ceil, quotas)]))


def affinity() -> int:
    """Processors that this process may run on, whatever its quota."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes that the smallest of the groups allows; None: no limit."""
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
                if quota > 0:  # -1: none
                    yield quota / int((folder / "cpu.cfs_period_us").read_text())


def _folders(root: Path, controller: str, mount: str) -> Iterator[Path]:
    """The group of this process and those around it, as far as `mount` shows them.

    Inside a container the file system shows the container's group at `mount`, while
    /proc/self/cgroup may name it as the host does: then only `mount` exists.
    """
    top = root / mount
    group = _group(root, controller)
    folder = top / group.lstrip("/")
    while top in folder.parents:
        yield folder
        folder = folder.parent
    yield top


def _group(root: Path, controller: str) -> str:
    """The path of this process's group, from /proc/self/cgroup; version 2 has no controllers."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(",") and ".." not in path:
                return path
    return "/"
