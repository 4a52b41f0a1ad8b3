"""The machine of a benchmark, CPU times, and printed tables."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import resource
from collections.abc import Iterable
from pathlib import Path

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
PACKAGES = ("tensorflow", "openvino", "onnxruntime", "grpcio", "bentoml", "litserve", "numpy")


def machine() -> dict[str, object]:
    """The machine and the package versions of a run."""
    name, flags = _processor()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "processor": name,
        "cores": usable_cores(),
        "instruction sets": flags,
        "memory GiB": round(memory / 2**30),
        "versions": versions,
    }


def describe(*packages: str) -> str:
    """One line: CPU, usable cores, relevant instruction sets, package versions."""
    name, flags = _processor()
    parts = [f"{name}, {usable_cores()} cores", " ".join(flags)]
    parts += [f"{package} {importlib.metadata.version(package)}" for package in packages]
    return "; ".join(part for part in parts if part)


def _processor() -> tuple[str, list[str]]:
    """The CPU's name, and its instruction sets among `FLAGS`."""
    name, flags = platform.machine(), set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
            if line.startswith("flags"):
                flags = set(line.split())
                break
    return name, [flag for flag in FLAGS if flag in flags]


def usable_cores() -> int:
    return len(os.sched_getaffinity(0))


def own_seconds() -> float:
    """CPU time of this process and of all its descendants, including ended ones."""
    ended = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    return ended + tree_cpu_seconds(os.getpid())


def tree_cpu_seconds(pid: int) -> float:
    """CPU time of a process and its descendants until now."""
    # Skip processes and threads that end during the loop.
    seconds = 0.0
    with contextlib.suppress(OSError):
        seconds += cpu_seconds(pid)
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                children = (task / "children").read_text().split()
                seconds += sum(tree_cpu_seconds(int(child)) for child in children)
    return seconds


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process until now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int, field: str = "VmRSS") -> float:
    """Resident memory in bytes; with `VmHWM`, its maximum."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{pid}/status has no {field}")


def busy_seconds() -> float:
    """CPU time of all processes of the machine until now."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    idle, waiting = 3, 4
    used = (int(value) for at, value in enumerate(fields[:8]) if at not in (idle, waiting))
    return sum(used) / os.sysconf("SC_CLK_TCK")


def print_table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print columns, the first one left-aligned and the others right-aligned."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        rest = (f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        print("  ".join([f"{row[0]:<{widths[0]}}", *rest]), flush=True)
