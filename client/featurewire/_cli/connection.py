"""Make a client from the options, and describe the version that answers."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from featurewire import ChannelConfig, Client, ConfigError, ServerError, StreamConfig
from featurewire.manifest.spaces import vector_space
from featurewire.plugin.arguments import CommandParser
from featurewire.plugin.credentials import tls_of, token_of
from featurewire.plugin.wording import OPTIONS, cli_message

READERS = 4
"""Number of files to read at the same time, to hide the latency of the disk."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """The version that answers. All fields are None for a server that only implements Predict."""

    version: int | None = None
    vector_space: str | None = None
    """The vector space that the version's manifest names."""


_SETTINGS = ("version", "label", "timeout", "vector_space", "signature", "input", "output")
"""Arguments of `Client` that have an option of their own."""


def connect(args: argparse.Namespace) -> Client:
    """Make the client that the options describe."""
    settings: dict[str, Any] = {
        setting: value
        for setting in _SETTINGS
        if (value := getattr(args, OPTIONS[setting], None)) is not None
    }
    if hasattr(args, "patience"):
        patience = {} if args.patience is None else {"patience": args.patience}
        settings["stream"] = StreamConfig(**patience, readers=READERS)
    settings["tls"] = tls_of(args)
    if (token := token_of(args)) is not None:
        settings["channel"] = ChannelConfig(token=token)
    return Client(args.server, model=args.model, **settings)


def check(parser: CommandParser, args: argparse.Namespace) -> None:
    """Report options that `Client` rejects as wrong usage. Sends nothing."""
    try:
        connect(args).close()
    except ConfigError as error:
        parser.error(cli_message(error, args.from_environment))


def describe(client: Client, version: int | None = None) -> Description:
    """Ask the server about `version`, or about the version that answers now."""
    try:
        view = client if version is None else client.with_options(version=version)
        metadata = view.metadata()
    except ServerError as error:
        if error.code == "UNIMPLEMENTED":
            return Description()
        raise
    return Description(version=metadata.version, vector_space=vector_space(metadata.manifest))
