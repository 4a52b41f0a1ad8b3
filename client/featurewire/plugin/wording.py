"""Word the library's errors for a command line.

The library's advice names arguments (`raise timeout=…`), but users of a command have options.
"""

from __future__ import annotations

from collections.abc import Container

from featurewire._advice import ADVICE
from featurewire._errors import ConfigError, FeaturewireError
from featurewire.plugin.environment import option, variable

__all__ = ["in_options"]

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
    "size": "raise the limit on the side that the text names",
    "TLS": "the TLS handshake failed; check --tls-ca, --tls-cert, --tls-key and --tls-server-name, "
    "and whether that port speaks TLS",
    "cut off by TLS": "the server hung up during the TLS handshake or right after it; if it asks "
    "for a client's certificate, set --tls-cert and --tls-key",
    "perhaps TLS": "the server hung up at once; if that port speaks TLS, add --tls or --tls-ca "
    "FILE",
    "host name": "TLS: the server's certificate is for another host name; name the one that it is "
    "for with --tls-server-name",
    "address or TLS": "check the address and that the server runs; if it does, a TLS handshake may "
    "have failed at another address of that name: check --tls-ca, --tls-cert, --tls-key and "
    "--tls-server-name",
    "channel": "check the address",
    "time": "raise --timeout or send fewer images",
    "silent": "nothing has ever answered there; check the address, or raise --timeout",
    "model": "check --model, --version and --label; a model that is still loading answers once it "
    "is AVAILABLE: wait for it with --wait SECONDS",
    "label": "the server's config gives no version this label; check --label",
    "signature": "name one of the signatures that the model has with --signature",
    "token": "check --token-file and the --tls options",
    "rights": "check --token-file",
    "which signature": "name one of them with --signature",
    "which input": "name one with --input-name",
    "which output": "name one with --output-name",
    "output": "name the vector's output with --output-name",
    "wait": "wait for it with --wait SECONDS",
    "more time": "raise --timeout",
    "files": "raise --timeout, or look at the disk",
    "encrypt": "TLS is switched on with --tls",
    "encrypt the token": "add --tls or --tls-ca FILE",
}
"""Replacements for the entries of `ADVICE` that name an argument, by key."""


def in_options(error: Exception, taken: Container[str] = ()) -> str:
    """The error's text, with options in place of arguments.

    `taken`: options whose values came from environment variables. The text names the variable.
    """
    if not isinstance(error, FeaturewireError):
        return str(error)
    subject = error._subject
    if isinstance(error, ConfigError) and error._argument in OPTIONS:
        name = OPTIONS[error._argument]
        value = "" if error._value == "…" else f" {error._value}"
        subject = f"{variable(name) if name in taken else option(name)}{value}: "
    key = error._advice
    advice = f"; {ADVICE_IN_OPTIONS.get(key) or ADVICE[key]}" if key else ""
    return f"{subject}{error._problem}{advice}"
