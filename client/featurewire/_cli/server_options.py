"""The options that say which server answers, and the environment that fills those not given."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from featurewire import _DEFAULT_TIMEOUT
from featurewire._cli.arguments import CommandParser, filled_text, positive_int, positive_seconds

NAMES = (
    "server",
    "model",
    "label",
    "version",
    "timeout",
    "tls",
    "tls_ca",
    "tls_cert",
    "tls_key",
    "tls_server_name",
    "token_file",
)
"""The options, as `argparse` calls them, that a variable `FEATUREWIRE_…` may stand for."""

_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def option(name: str) -> str:
    """`--tls-ca` for `tls_ca`."""
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """`FEATUREWIRE_TLS_CA` for `tls_ca`."""
    return f"FEATUREWIRE_{name.upper()}"


def add_server_options(
    parser: CommandParser,
    *,
    timeout: float = _DEFAULT_TIMEOUT,
    timeout_help: str = "give a call up after this long, its retries included",
) -> None:
    server = parser.add_argument_group(
        "server",
        "What is not given is taken from the environment: FEATUREWIRE_SERVER, FEATUREWIRE_MODEL "
        "and so on, the option's name in capitals.",
    )
    server.add_argument(
        "--server",
        metavar="HOST:PORT",
        help="the gRPC address; several, separated by commas, share the work (required)",
    )
    server.add_argument("--model", metavar="NAME", help="the model's name there (required)")
    which = server.add_mutually_exclusive_group()
    which.add_argument(
        "--label", metavar="L", type=filled_text, help="the version that carries this label"
    )
    which.add_argument("--version", metavar="N", type=positive_int, help="this version")
    server.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=positive_seconds,
        help=f"{timeout_help} (default: {timeout:g})",
    )
    server.add_argument(
        "--tls",
        action=argparse.BooleanOptionalAction,
        help="encrypt, and trust the certificates that gRPC comes with; --no-tls: do not encrypt, "
        "whatever the environment says",
    )
    server.add_argument(
        "--tls-ca", metavar="FILE", type=Path, help="encrypt; trust this authority (PEM)"
    )
    server.add_argument(
        "--tls-cert", metavar="FILE", type=Path, help="the client's certificate (PEM), mutual TLS"
    )
    server.add_argument("--tls-key", metavar="FILE", type=Path, help="its private key (PEM)")
    server.add_argument(
        "--tls-server-name", metavar="HOST", help="the name to expect in the server's certificate"
    )
    server.add_argument(
        "--token-file", metavar="FILE", type=Path, help="send the bearer token in this file"
    )


def complete(
    parser: CommandParser,
    args: argparse.Namespace,
    *,
    timeout: float = _DEFAULT_TIMEOUT,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Fill what was not given from the environment, then refuse what makes no sense together.

    `args.taken` gets the options that came from there. An empty variable counts as none. Given
    options win over variables that contradict them: `--version` over `FEATUREWIRE_LABEL`,
    `--no-tls` over all variables about TLS.
    """
    found = {
        name: text
        for name in NAMES
        if getattr(args, name) is None
        and (text := (os.environ if environment is None else environment).get(variable(name), ""))
        if text.strip()
    }
    if args.label is not None or args.version is not None:
        found = {name: text for name, text in found.items() if name not in ("label", "version")}
    elif "label" in found and "version" in found:
        parser.error(
            "FEATUREWIRE_LABEL and FEATUREWIRE_VERSION are both set; unset one, or give --label "
            "or --version"
        )
    if args.tls_ca is not None:
        found.pop("tls", None)
    values = {name: _converted(parser, name, text) for name, text in found.items()}
    if args.tls is False or values.get("tls") is False:
        values = {name: value for name, value in values.items() if not name.startswith("tls_")}
    for name, value in values.items():
        setattr(args, name, value)
    args.taken = tuple(values)
    if args.timeout is None:
        args.timeout = timeout
    _check(parser, args)


def _check(parser: CommandParser, args: argparse.Namespace) -> None:
    missing = [
        f"{option(name)} (or {variable(name)} in the environment)"
        for name in ("server", "model")
        if getattr(args, name) is None
    ]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    if (args.tls_cert is None) != (args.tls_key is None):
        parser.error("--tls-cert and --tls-key belong together")
    for name in ("tls_ca", "tls_cert", "tls_server_name"):
        if getattr(args, name) is None:
            continue
        if args.tls is False:
            parser.error(f"{option(name)}: not allowed with --no-tls")
        if not args.tls and args.tls_ca is None:
            parser.error(f"{option(name)} needs --tls or --tls-ca FILE")


def _converted(parser: CommandParser, name: str, text: str) -> object:
    """What the option would be, had the text been given for it."""
    if name == "tls":
        word = text.strip().lower()
        if word not in (*_YES, *_NO):
            parser.error(f"{variable(name)}: {text!r} is neither {_YES[0]} nor {_NO[0]}")
        return word in _YES
    types = {action.dest: action.type for action in parser._actions}
    convert = types[name]
    if not callable(convert):
        return text
    try:
        return convert(text)
    except argparse.ArgumentTypeError as exc:
        parser.error(f"{variable(name)}: {exc}")
