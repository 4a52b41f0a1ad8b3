"""From options to a client, and what a version says of itself."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from featurewire import ChannelConfig, Client, ConfigError, ServerError, StreamConfig
from featurewire.manifest.spaces import vector_space
from featurewire.plugin.arguments import CommandParser
from featurewire.plugin.credentials import tls_of, token_of
from featurewire.plugin.wording import in_options

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
    settings["tls"] = tls_of(args)
    if (token := token_of(args)) is not None:
        settings["channel"] = ChannelConfig(token=token)
    return Client(args.server, model=args.model, **settings)


def check(parser: CommandParser, args: argparse.Namespace) -> None:
    """Refuse, as wrong usage, options that make no client. Sends nothing."""
    try:
        connect(args).close()
    except ConfigError as exc:
        parser.error(in_options(exc, args.taken))


def describe(client: Client, version: int | None = None) -> Description:
    """Ask the server about the version that it answers with, or about `version`."""
    try:
        view = client if version is None else client.with_options(version=version)
        metadata = view.metadata()
    except ServerError as exc:
        if exc.code == "UNIMPLEMENTED":
            return Description()
        raise
    return Description(version=metadata.version, vector_space=vector_space(metadata.manifest))
