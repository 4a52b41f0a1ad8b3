"""How a configuration checks what it is made with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, Self, cast

from featurewire._errors import ConfigError, UnknownArgumentError

__all__ = ["Checked", "check_names", "check_numbers", "require"]


def check_names(owner: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Raise `UnknownArgumentError` for a name that `owner` does not know."""
    for name in given:
        if name not in known:
            import difflib  # here, so that only a mistake pays for the import

            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
            raise UnknownArgumentError(f"{owner}: unknown argument {name!r}; {hint}")


class Checked:
    """Turns a misspelt argument into a `ConfigError` that names the nearest one."""

    def __new__(cls, *_: Any, **kwargs: Any) -> Self:
        check_names(cls.__name__, kwargs, [each.name for each in fields(cast(Any, cls))])
        return super().__new__(cls)


def require(fits: object, text: str) -> None:
    if not fits:
        raise ConfigError(text)


def check_numbers(
    config: Any, *names: str, low: float, whole: bool = False, above: bool = False
) -> None:
    """Each of these fields is a number, and one that is large enough."""
    for name in names:
        value = getattr(config, name)
        number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        fits = number and math.isfinite(value) and (value > low if above else value >= low)
        kind, sign = "whole number" if whole else "number", ">" if above else ">="
        owner = type(config).__name__
        require(fits, f"{owner}({name}={value!r}): expected a {kind} {sign} {low}")
