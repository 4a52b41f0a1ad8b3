"""Runs programs as if this CPU were an older one, without some of its instruction sets.

Libraries choose their kernels by the answers of the CPUID instruction. Linux can make CPUID fault
(`cpuid_fault` in /proc/cpuinfo), so `lesser.c` handles the fault and gives other answers. The
variable ONEDNN_MAX_CPU_ISA is not enough: it hides instruction sets only from oneDNN, and OpenVINO
would still request kernels that oneDNN then lacks.

    python -m bench.lesser      the kernels of a convolution in each precision, as JSON
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from bench._published import ROOT

LIBRARY = ROOT / "build" / "bench" / "lesser.so"


@dataclass(frozen=True, kw_only=True)
class Processor:
    """A CPU that this one can imitate."""

    name: str
    needs: str
    """Its newest instruction set, as named in /proc/cpuinfo."""
    without: str
    """Instruction sets that it lacks."""
    precisions: tuple[str, ...] = ("float32", "int8")
    """Precisions, each faster on it than the one before."""
    vnni: bool = True

    @property
    def hidden(self) -> str:
        """The sets in `without` that this CPU has, which `lesser.c` must hide."""
        flags = _flags()
        found = [word for word in self.without.split() if any(word in flag for flag in flags)]
        return " ".join(found)

    @contextlib.contextmanager
    def seen(self) -> Iterator[None]:
        """Make processes that start in this context see the other CPU."""
        hidden = self.hidden
        if not hidden:
            yield
            return
        environment = {"LD_PRELOAD": _library(), "FEATUREWIRE_BENCH_WITHOUT": hidden}
        with mock.patch.dict(os.environ, environment):
            yield

    def kernels(self) -> dict[str, str]:
        """The kernel of a convolution by precision, which shows how OpenVINO sees the CPU."""
        with self.seen():
            command = [sys.executable, "-m", "bench.lesser"]
            found = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT)
        kernels: dict[str, str] = json.loads(found.stdout)
        return kernels


ALL = ("float32", "bfloat16", "int8")
PROCESSORS = (
    Processor(name="AVX2", needs="avx2", without="avx512 fp16 avx_vnni amx", vnni=False),
    Processor(name="AVX2 with VNNI", needs="avx_vnni", without="avx512 fp16 amx"),
    Processor(name="AVX-512 with VNNI", needs="avx512_vnni", without="bf16 fp16 amx"),
    Processor(
        name="AVX-512 with VNNI and BF16",
        needs="avx512_bf16",
        without="fp16 amx",
        precisions=ALL,
    ),
    Processor(name="AMX", needs="amx_int8", without="", precisions=ALL),
)


def here() -> list[Processor]:
    """The CPUs that this one is or can imitate."""
    flags = _flags()
    hides = "cpuid_fault" in flags
    return [each for each in PROCESSORS if each.needs in flags and (hides or not each.hidden)]


def _flags() -> set[str]:
    return set(Path("/proc/cpuinfo").read_text().split())


def _library() -> str:
    source = ROOT / "bench" / "lesser.c"
    if not LIBRARY.is_file() or LIBRARY.stat().st_mtime < source.stat().st_mtime:
        LIBRARY.parent.mkdir(parents=True, exist_ok=True)
        making = LIBRARY.with_suffix(f".{os.getpid()}")
        command = ["gcc", "-O1", "-shared", "-fPIC", str(source), "-o", str(making)]
        subprocess.run(command, check=True)
        making.rename(LIBRARY)
    return str(LIBRARY)


def _kernels() -> dict[str, str]:
    import numpy as np

    from featurewire_server.engines.libraries import import_openvino

    ov = import_openvino()
    from openvino import opset13 as ops

    weights = np.random.default_rng(0).standard_normal((64, 64, 3, 3), np.float32)
    bounds = [np.float32(value) for value in (-4, 4, -4, 4)]
    found = {}
    for precision in ALL:
        entry = ops.parameter([1, 64, 32, 32], np.float32)
        left, right = entry, ops.constant(weights)
        if precision == "int8":
            left = ops.fake_quantize(left, *bounds, 256)
            right = ops.fake_quantize(right, *bounds, 255)
        ends = [[1, 1], [1, 1], [1, 1], [1, 1]]
        model = ov.Model([ops.convolution(left, right, *ends)], [entry])
        hint = "bf16" if precision == "bfloat16" else "f32"
        compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
        (found[precision],) = (
            info["primitiveType"].astype(str)
            for info in infos
            if info["layerType"].astype(str) == "Convolution"
        )
    return found


if __name__ == "__main__":
    print(json.dumps(_kernels()))
