"""Checks of the arguments of clients and configurations."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

from featurewire._errors import ConfigError, UnknownArgumentError

P = ParamSpec("P")
Config = TypeVar("Config")


def names_checked(
    configs: Mapping[str, Any] = MappingProxyType({}),
) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Make an `__init__` report a misspelt argument, with the most similar name that it takes.

    `configs`: arguments that are configurations. If the name is a field of one of them, the error
    suggests that configuration.
    """

    def decorate(init: Callable[P, None]) -> Callable[P, None]:
        known = [name for name in inspect.signature(init).parameters if name != "self"]

        @functools.wraps(init)
        def checked_init(*args: P.args, **kwargs: P.kwargs) -> None:
            for name in kwargs:
                if name not in known:
                    raise UnknownArgumentError(
                        f"{type(args[0]).__name__}: unknown argument {name!r}; "
                        f"{_hint(name, known, configs)}"
                    )
            init(*args, **kwargs)

        return checked_init

    return decorate


def checked(config: type[Config]) -> type[Config]:
    """Apply `names_checked` to a dataclass, whose `__init__` is generated."""
    config.__init__ = names_checked()(config.__init__)  # type: ignore[method-assign]
    return config


def _hint(name: str, known: Sequence[str], configs: Mapping[str, Any]) -> str:
    for argument, kind in configs.items():
        if name in kind.__dataclass_fields__:
            return f"did you mean {argument}={kind.__name__}({name}=…)?"
    import difflib  # imported here, because only a mistake needs it

    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"


def require(fits: object, problem: str, **subject: str) -> None:
    """Raise `ConfigError` unless `fits`. `subject` goes to `ConfigError`."""
    if not fits:
        raise ConfigError(problem, **subject)


def check_numbers(
    config: Any, *names: str, low: float, whole: bool = False, above: bool = False
) -> None:
    """Raise `ConfigError` unless each of these fields is a number >= `low`.

    `above`: the number must be > `low`. `whole`: it must be an int.
    """
    for name in names:
        value = getattr(config, name)
        number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        fits = number and math.isfinite(value) and (value > low if above else value >= low)
        kind, sign = "whole number" if whole else "number", ">" if above else ">="
        owner = type(config).__name__
        problem = f"expected a {kind} {sign} {low}"
        require(fits, problem, argument=name, value=repr(value), config=owner)
