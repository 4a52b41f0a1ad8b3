"""Runs a function in a forked child, and returns its result."""

from __future__ import annotations

import os
from collections.abc import Callable

from tests.client.misbehaving import eventually


def in_a_fork(action: Callable[[], object]) -> str:
    """The result or error of `action()` in a forked child; fails if the child hangs."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            try:
                said = f"returned {action()!r}"
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(writer, said.encode()[:4000])
        finally:
            os._exit(0)
    os.close(writer)
    try:
        with eventually(20) as until:
            until(lambda: os.waitpid(child, os.WNOHANG)[0] == child)
    except AssertionError:
        os.kill(child, 9)
        os.waitpid(child, 0)
        raise
    with os.fdopen(reader) as pipe:
        return pipe.read()
