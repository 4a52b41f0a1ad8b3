"""What this processor can do, where it matters to what may run on it."""

from __future__ import annotations

from pathlib import Path

VNNI = frozenset(("avx512_vnni", "avx_vnni", "amx_int8", "asimddp"))
"""Instruction sets whose sums of 8-bit products do not saturate."""


def has_vnni(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has one of `VNNI`; False where it does not tell."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    found = (line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Feat")))
    return not VNNI.isdisjoint(next(found, ()))
