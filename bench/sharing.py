"""What the parts of a quick run share: servers and engines outlive the part that starts them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

_stack: contextlib.ExitStack | None = None
_entered: dict[tuple[Any, ...], Any] = {}


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """Until it ends, `shared` enters a context once and leaves none."""
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
    """`make(*arguments)`, entered: while `sharing`, what was entered for the same before."""
    if _stack is None:
        with make(*arguments) as entered:
            yield entered
        return
    key = (make, *arguments)
    if key not in _entered:
        _entered[key] = _stack.enter_context(make(*arguments))
    found: T = _entered[key]
    yield found
