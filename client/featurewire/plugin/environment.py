"""Options that an environment variable can set: `--tls-ca FILE` or `FEATUREWIRE_TLS_CA`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping

from featurewire.plugin.arguments import CommandParser

Types = Mapping[str, Callable[[str], object]]
"""Function that parses an option's text, by the option's name in the parsed arguments."""

_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def option(name: str) -> str:
    """The option's name on the command line, such as `--tls-ca` for `tls_ca`."""
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """The option's environment variable, such as `FEATUREWIRE_TLS_CA` for `tls_ca`."""
    return f"FEATUREWIRE_{name.upper()}"


def values_of(
    parser: CommandParser,
    args: argparse.Namespace,
    types: Types,
    environment: Mapping[str, str] | None = None,
    *,
    without: Iterable[str] = (),
) -> dict[str, object]:
    """Values from the environment for options that were not given, except those in `without`.

    An empty variable counts as unset. A value of the wrong type is wrong usage.
    """
    environment = os.environ if environment is None else environment
    values = {}
    for name, convert in types.items():
        text = environment.get(variable(name), "")
        if text.strip() and getattr(args, name) is None and name not in without:
            try:
                values[name] = convert(text)
            except argparse.ArgumentTypeError as error:
                parser.error(f"{variable(name)}: {error}")
    return values


def yes_or_no(text: str) -> bool:
    word = text.strip().lower()
    if word not in (*_YES, *_NO):
        raise argparse.ArgumentTypeError(f"{text!r} is neither {_YES[0]} nor {_NO[0]}")
    return word in _YES
