"""Servers and engines that the parts of a quick run share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

_stack: contextlib.ExitStack | None = None
_entered: dict[tuple[Any, ...], Any] = {}


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """Make `shared` enter each context only once, and leave all of them at the end."""
    global _stack
    with contextlib.ExitStack() as _stack:
        try:
            yield
        finally:
            _stack = None
            _entered.clear()


@contextlib.contextmanager
def shared(
    make: Callable[..., contextlib.AbstractContextManager[T]], *arguments: Any
) -> Iterator[T]:
    """Enter `make(*arguments)`, or reuse the one entered with the same arguments in `sharing`."""
    if _stack is None:
        with make(*arguments) as entered:
            yield entered
        return
    key = (make, *arguments)
    if key not in _entered:
        _entered[key] = _stack.enter_context(make(*arguments))
    found: T = _entered[key]
    yield found
