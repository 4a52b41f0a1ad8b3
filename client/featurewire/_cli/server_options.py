"""The options for server and model, and the environment variables that can replace them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from featurewire import _DEFAULT_TIMEOUT
from featurewire.plugin import credentials
from featurewire.plugin.arguments import (
    CommandParser,
    non_empty,
    positive_int,
    positive_seconds,
)
from featurewire.plugin.environment import Types, option, values_of, variable

_TYPES: Types = {
    "server": str,
    "model": str,
    "label": non_empty,
    "version": positive_int,
    "timeout": positive_seconds,
}

NAMES = (*_TYPES, *credentials.TYPES)
"""The options that a variable `FEATUREWIRE_…` can set, by their names in `argparse`."""


def add_server_options(
    parser: CommandParser,
    *,
    timeout: float = _DEFAULT_TIMEOUT,
    timeout_help: str = "timeout of a call, including its retries",
) -> None:
    server = parser.add_argument_group(
        "server",
        "Options that are not given are read from the environment: FEATUREWIRE_SERVER, "
        "FEATUREWIRE_MODEL and so on.",
    )
    server.add_argument(
        "--server",
        metavar="HOST:PORT",
        help="the gRPC address, or several separated by commas, which share the load (required)",
    )
    server.add_argument("--model", metavar="NAME", help="the model's name on the server (required)")
    which = server.add_mutually_exclusive_group()
    which.add_argument("--label", metavar="L", type=non_empty, help="the version with this label")
    which.add_argument("--version", metavar="N", type=positive_int, help="this version")
    server.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=positive_seconds,
        help=f"{timeout_help} (default: {timeout:g})",
    )
    credentials.add_credentials(server)


def apply_environment(
    parser: CommandParser,
    args: argparse.Namespace,
    *,
    timeout: float = _DEFAULT_TIMEOUT,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Fill missing options from the environment, then refuse contradictions.

    Sets `args.from_environment` to the names of the options that came from the environment. An
    option wins over a variable that contradicts it, such as `--version` over `FEATUREWIRE_LABEL`;
    see also `apply_credentials`.
    """
    pinned = args.label is not None or args.version is not None
    without = ("label", "version") if pinned else ()
    values = values_of(parser, args, _TYPES, environment, without=without)
    if {"label", "version"} <= values.keys():
        parser.error(
            "FEATUREWIRE_LABEL and FEATUREWIRE_VERSION are both set; unset one, or give --label "
            "or --version"
        )
    vars(args).update(values)
    missing = [
        f"{option(name)} (or {variable(name)} in the environment)"
        for name in ("server", "model")
        if getattr(args, name) is None
    ]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    args.from_environment = (*values, *credentials.apply_credentials(parser, args, environment))
    if args.timeout is None:
        args.timeout = timeout
