"""What the client's subcommands share: parser, server options, failure, names fit to print."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import NoReturn


class CommandFailure(Exception):
    """The work cannot be done; the text says why and what to do. Exit status 1."""


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line: what is wrong, and where to read on."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def add_server_options(
    parser: argparse.ArgumentParser,
    *,
    timeout: float | None = None,
    timeout_help: str = "give a call up after this long, its retries included (default: 60)",
) -> None:
    server = parser.add_argument_group("server")
    server.add_argument(
        "--server",
        metavar="HOST:PORT",
        required=True,
        help="the gRPC address; several, separated by commas, share the work",
    )
    server.add_argument("--model", metavar="NAME", required=True, help="the model's name there")
    which = server.add_mutually_exclusive_group()
    which.add_argument("--label", metavar="L", help="the version that carries this label")
    which.add_argument("--version", metavar="N", type=positive_int, help="this version")
    server.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=positive_seconds,
        default=timeout,
        help=timeout_help,
    )
    server.add_argument(
        "--tls", action="store_true", help="encrypt; trust the certificates that gRPC comes with"
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


def check_server_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse, as wrong usage, TLS options that make no sense together."""
    if (args.tls_cert is None) != (args.tls_key is None):
        parser.error("--tls-cert and --tls-key belong together")
    encrypted = args.tls or args.tls_ca is not None
    for option in ("tls_cert", "tls_server_name"):
        if getattr(args, option) is not None and not encrypted:
            parser.error(f"--{option.replace('_', '-')} needs --tls or --tls-ca FILE")


def quiet_grpc() -> None:
    """Keep gRPC's own log off standard error, where a failure is this command's one line.

    To be called before gRPC is imported: it reads the variable then.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def positive_int(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def positive_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def path_text(path: str) -> str:
    r"""The file name as text that any reader takes: bytes that are not UTF-8 become `\xNN`.

    Where a name itself has a `\x`, its backslash becomes `\x5c`: two names never give one text.
    """
    data = os.fsencode(path)
    if os.sep != "\\":
        data = data.replace(b"\\x", b"\\x5cx")
    return data.decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """The text on one line of a terminal: control characters are escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def add_signature_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("for models that featurewire did not export")
    group.add_argument("--signature", metavar="NAME", help="the signature to call")
    group.add_argument("--input-name", metavar="NAME", help="its input: encoded images")
    group.add_argument("--output-name", metavar="NAME", help="its output: the vectors")
