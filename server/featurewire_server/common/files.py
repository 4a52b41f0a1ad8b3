"""Limits connections by the file descriptors of the process.

TensorFlow opens `/dev/urandom` when it decodes images, and aborts the process if that fails. So
connections must not take the last descriptors.
"""

from __future__ import annotations

import os
import sys

SPARE_FILES = 32
"""Descriptors kept free for everything else: random numbers, configs, loading versions."""
REST_CONNECTIONS = 1100
"""Maximum number of REST connections: 1000 that are served and 100 that are being refused."""
MAX_CONNECTIONS = (1 << 31) - 2
MIN_CONNECTIONS = 4
"""Connections allowed even if too few descriptors are left."""
DARWIN_OPEN_MAX = 10240
"""macOS refuses an unlimited soft limit (setrlimit(2), section COMPATIBILITY)."""


def raise_limit() -> None:
    """Let this process open as many files as the system allows."""
    if sys.platform == "win32":  # Windows does not have this limit
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, DARWIN_OPEN_MAX) if sys.platform == "darwin" else hard
    if soft != wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections_that_fit(*, rest: bool) -> int:
    """Number of further gRPC connections that leave SPARE_FILES descriptors free.

    At least MIN_CONNECTIONS. With `rest`, up to half of the room is kept for REST connections.
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
    except OSError:  # not Linux
        return SPARE_FILES
