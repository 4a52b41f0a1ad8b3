"""Options and environment variables for TLS and the bearer token, and the settings from them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from featurewire.plugin.arguments import CommandParser
from featurewire.plugin.environment import Types, option, values_of, yes_or_no

if TYPE_CHECKING:
    from featurewire import TLSConfig

TYPES: Types = {
    "tls": yes_or_no,
    "tls_ca": Path,
    "tls_cert": Path,
    "tls_key": Path,
    "tls_server_name": str,
    "token_file": Path,
}


def add_credentials(group: argparse._ActionsContainer) -> None:
    """Add the options to a parser or an argument group."""
    group.add_argument(
        "--tls",
        action=argparse.BooleanOptionalAction,
        help="use TLS and trust gRPC's own root certificates; --no-tls: do not use TLS, even if "
        "the environment sets it",
    )
    group.add_argument(
        "--tls-ca",
        metavar="FILE",
        type=Path,
        help="use TLS and trust this certificate authority (PEM)",
    )
    group.add_argument(
        "--tls-cert", metavar="FILE", type=Path, help="the client's certificate (PEM), mutual TLS"
    )
    group.add_argument("--tls-key", metavar="FILE", type=Path, help="its private key (PEM)")
    group.add_argument(
        "--tls-server-name", metavar="HOST", help="the name to expect in the server's certificate"
    )
    group.add_argument(
        "--token-file", metavar="FILE", type=Path, help="send the bearer token in this file"
    )


def apply_credentials(
    parser: CommandParser, args: argparse.Namespace, environment: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Fill missing options from the environment, and refuse contradictory ones.

    Options win over variables: `--no-tls` over all variables for TLS, and `--tls-ca` over
    `FEATUREWIRE_TLS=0`. Returns the names of the options that came from the environment.
    """
    without = () if args.tls_ca is None else ("tls",)
    values = values_of(parser, args, TYPES, environment, without=without)
    if args.tls is False or values.get("tls") is False:
        values = {name: value for name, value in values.items() if not name.startswith("tls_")}
    vars(args).update(values)
    if (args.tls_cert is None) != (args.tls_key is None):
        parser.error("--tls-cert and --tls-key must be given together")
    for name in ("tls_ca", "tls_cert", "tls_server_name"):
        if getattr(args, name) is None:
            continue
        if args.tls is False:
            parser.error(f"{option(name)}: not allowed with --no-tls")
        if not args.tls and args.tls_ca is None:
            parser.error(f"{option(name)} needs --tls or --tls-ca FILE")
    return tuple(values)


def tls_of(args: argparse.Namespace) -> TLSConfig | None:
    """The client's `tls` argument. Raises `ConfigError`. Imports gRPC."""
    from featurewire import TLSConfig

    if not args.tls and args.tls_ca is None:
        return None
    return TLSConfig(
        ca=args.tls_ca, cert=args.tls_cert, key=args.tls_key, server_name=args.tls_server_name
    )


def token_of(args: argparse.Namespace) -> str | None:
    """The bearer token, without surrounding white space. Raises `ConfigError`. Imports gRPC."""
    from featurewire import ConfigError

    if args.token_file is None:
        return None
    try:
        text: str = args.token_file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{reason}", argument="token", value=str(args.token_file), config="ChannelConfig"
        ) from error
    return text.strip()
