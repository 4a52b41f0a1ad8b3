"""How many connections fit into the file descriptors of the process.

TensorFlow opens `/dev/urandom` whenever it decodes images, and aborts the process where it cannot.
So connections must not take the last descriptors.
"""

from __future__ import annotations

import os
import sys

SPARE_FILES = 32
"""Descriptors left for everything but connections: random numbers, configs, versions that load."""
REST_CONNECTIONS = 1100
"""Connections that REST answers, and those that it is about to refuse."""
MAX_CONNECTIONS = (1 << 31) - 2
MIN_CONNECTIONS = 4
"""Connections that are allowed even where the limit leaves less room."""
DARWIN_OPEN_MAX = 10240
"""macOS refuses a soft limit without bound (setrlimit(2), section COMPATIBILITY)."""


def raise_limit() -> None:
    """Let this process open as many files as the system allows."""
    if sys.platform == "win32":  # has no such limit
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, DARWIN_OPEN_MAX) if sys.platform == "darwin" else hard
    if soft != wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections_that_fit(*, rest: bool) -> int:
    """Further gRPC connections that leave SPARE_FILES descriptors free, MIN_CONNECTIONS at least.

    `rest`: leave room for the connections of REST, up to half of what there is.
    """
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    room = limit - _open_files() - SPARE_FILES
    if rest:
        room -= min(REST_CONNECTIONS, room // 2)
    return min(max(room, MIN_CONNECTIONS), MAX_CONNECTIONS)


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:  # another system than Linux
        return SPARE_FILES
