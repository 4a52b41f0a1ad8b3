"""The process returns freed memory to the system."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ctypes, os, sys
from featurewire_server.common import memory

if sys.argv[1] == "returned":
    memory.return_large_blocks()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes, library.free.argtypes = (ctypes.c_size_t,), (ctypes.c_void_p,)

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

library.free(library.malloc(30 << 20))  # glibc then keeps blocks of up to this size on its heap
before = resident()
blocks = [library.malloc(1 << 20) for _ in range(200)]
for block in blocks:
    ctypes.memset(block, 1, 1 << 20)
pin = library.malloc(1000)
for block in blocks:
    library.free(block)
print(resident() - before)
"""


def growth(how: str) -> int:
    """Growth of a process in bytes after it has freed 200 blocks of 1 MiB."""
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": ""})
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_large_blocks_go_back_to_the_system() -> None:
    assert growth("returned") < 20 << 20
    assert growth("kept") > 100 << 20  # the C library's default
