"""Word the library's errors for a command line.

The library's advice names arguments (`raise timeout=…`), but users of a command have options.
"""

from __future__ import annotations

from collections.abc import Container

from featurewire._advice import ADVICE
from featurewire._errors import ConfigError, FeaturewireError
from featurewire.plugin.environment import option, variable

OPTIONS = {
    "target": "server",
    "model": "model",
    "version": "version",
    "label": "label",
    "timeout": "timeout",
    "vector_space": "vector_space",
    "signature": "signature",
    "input": "input_name",
    "output": "output_name",
    "tls": "tls",
    "ca": "tls_ca",
    "cert": "tls_cert",
    "key": "tls_key",
    "server_name": "tls_server_name",
    "token": "token_file",
    "patience": "patience",
}
"""Arguments of the library, and the options that set them, by their names in `argparse`."""

ADVICE_IN_OPTIONS = {
    "size": "raise the limit of the side that the text names",
    "TLS": "the TLS handshake failed; check --tls-ca, --tls-cert, --tls-key and --tls-server-name, "
    "and whether that port speaks TLS",
    "cut off by TLS": "the server closed the connection during the TLS handshake or right after "
    "it; if it asks for a client certificate, set --tls-cert and --tls-key",
    "perhaps TLS": "the server closed the connection at once; if that port speaks TLS, add --tls "
    "or --tls-ca FILE",
    "host name": "TLS: the server's certificate is for another host name; give that name with "
    "--tls-server-name",
    "address or TLS": "check the address and that the server runs; if it does, the TLS handshake "
    "with another address of that host may have failed: check --tls-ca, "
    "--tls-cert, --tls-key and --tls-server-name",
    "channel": "check the address",
    "time": "raise --timeout or send less at once",
    "silent": "this server has never answered; check the address, or raise --timeout",
    "model": "check --model, --version and --label; if the model is still loading, wait for it "
    "with --wait SECONDS",
    "label": "no version has this label in the server's config; check --label",
    "signature": "choose one of the model's signatures with --signature",
    "token": "check --token-file and the --tls options",
    "rights": "check --token-file",
    "which signature": "choose one with --signature",
    "which input": "choose one with --input-name",
    "which output": "choose one with --output-name",
    "output": "set --output-name to the output that holds the vectors",
    "name": "check --model, --version and --label",
    "wait": "wait for it with --wait SECONDS",
    "more time": "raise --timeout",
    "files": "raise --timeout or check the disk",
    "encrypt": "for TLS, add --tls",
    "encrypt the token": "add --tls or --tls-ca FILE",
}
"""Replacements for the entries of `ADVICE` that name an argument, by key."""


def cli_message(error: Exception, from_environment: Container[str] = ()) -> str:
    """The error's text, with options in place of arguments.

    `from_environment`: options whose values came from environment variables, which the text names.
    """
    if not isinstance(error, FeaturewireError):
        return str(error)
    subject = error._subject
    if isinstance(error, ConfigError) and error._argument in OPTIONS:
        name = OPTIONS[error._argument]
        value = "" if error._value == "…" else f" {error._value}"
        subject = f"{variable(name) if name in from_environment else option(name)}{value}: "
    key = error._advice
    advice = f"; {ADVICE_IN_OPTIONS.get(key) or ADVICE[key]}" if key else ""
    return f"{subject}{error._problem}{advice}"
