"""What a benchmark ran on, and how its tables are printed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def describe(*packages: str) -> str:
    """One line: processor, usable cores, the instruction sets that matter, package versions."""
    name, flags = platform.machine(), set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
            if line.startswith("flags"):
                flags = set(line.split())
                break
    cores = len(os.sched_getaffinity(0))
    parts = [f"{name}, {cores} cores", " ".join(flag for flag in FLAGS if flag in flags)]
    parts += [f"{package} {importlib.metadata.version(package)}" for package in packages]
    return "; ".join(part for part in parts if part)


def busy_seconds() -> float:
    """Processor time of all processes of the machine so far."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    idle, waiting = 3, 4
    used = (int(value) for at, value in enumerate(fields[:8]) if at not in (idle, waiting))
    return sum(used) / os.sysconf("SC_CLK_TCK")


def print_table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print columns: the first to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in [list(header), *map(list, rows)]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        rest = (f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        print("  ".join([f"{row[0]:<{widths[0]}}", *rest]), flush=True)
