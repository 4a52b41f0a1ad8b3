"""From options to a client, and what a version says of itself."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurewire import ChannelConfig, Client, ConfigError, ServerError, StreamConfig, TLSConfig
from featurewire._cli.arguments import CommandParser
from featurewire._cli.server_options import option, variable
from featurewire._cli.wording import in_options

READERS = 4
"""Files that are read at the same time: disks have latency too."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What answers. A server may not say: there are some that only know Predict."""

    version: int | None = None
    vector_space: str | None = None
    """From the version's manifest."""


_SETTINGS = {
    "version": "version",
    "label": "label",
    "timeout": "timeout",
    "vector_space": "vector_space",
    "signature": "signature",
    "input": "input_name",
    "output": "output_name",
}
"""Arguments of `Client`, and the options for them."""


def connect(args: argparse.Namespace) -> Client:
    """A client for the options."""
    settings: dict[str, Any] = {
        setting: value
        for setting, name in _SETTINGS.items()
        if (value := getattr(args, name, None)) is not None
    }
    if hasattr(args, "patience"):
        patience = {} if args.patience is None else {"patience": args.patience}
        settings["stream"] = StreamConfig(**patience, readers=READERS)
    if args.tls or args.tls_ca is not None:
        settings["tls"] = TLSConfig(
            ca=args.tls_ca,
            cert=args.tls_cert,
            key=args.tls_key,
            server_name=args.tls_server_name,
        )
    if args.token_file is not None:
        settings["channel"] = ChannelConfig(token=_token(args.token_file))
    return Client(args.server, model=args.model, **settings)


def check(parser: CommandParser, args: argparse.Namespace) -> None:
    """Refuse, as wrong usage, options that make no client. Sends nothing."""
    try:
        connect(args).close()
    except ConfigError as exc:
        text = in_options(str(exc))
        for name in args.taken:
            text = re.sub(rf"{option(name)}(?![\w-])", variable(name), text)
        parser.error(text)


def describe(client: Client, version: int | None = None) -> Description:
    """Ask the server about the version that it answers with, or about `version`."""
    try:
        view = client if version is None else client.with_options(version=version)
        metadata = view.metadata()
    except ServerError as exc:
        if exc.code == "UNIMPLEMENTED":
            return Description()
        raise
    space = (metadata.manifest or {}).get("vector_space")
    return Description(version=metadata.version, vector_space=space)


def _token(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"--token-file {file}: {getattr(exc, 'strerror', None) or exc}") from exc
