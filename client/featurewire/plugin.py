"""What the other distributions of Featurewire build on; applications need none of it.

They are released with the client, in one version. Messages of the wire are in `featurewire._tfs`.
Names are imported when they are first used: a command line needs no gRPC to print its help.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featurewire._channel import is_local as is_local
    from featurewire._channel import split_target as split_target
    from featurewire._cli.arguments import CommandParser as CommandParser
    from featurewire._cli.arguments import positive_int as positive_int
    from featurewire._cli.arguments import positive_seconds as positive_seconds
    from featurewire._cli.arguments import quiet_grpc as quiet_grpc
    from featurewire._cli.sources import IMAGE_EXTENSIONS as IMAGE_EXTENSIONS
    from featurewire._cli.wording import in_options as in_options
    from featurewire._scheme import other_schemes as other_schemes
    from featurewire._server import Server as Server

_HOMES = {
    "CommandParser": "_cli.arguments",
    "IMAGE_EXTENSIONS": "_cli.sources",
    "Server": "_server",
    "in_options": "_cli.wording",
    "is_local": "_channel",
    "other_schemes": "_scheme",
    "positive_int": "_cli.arguments",
    "positive_seconds": "_cli.arguments",
    "quiet_grpc": "_cli.arguments",
    "split_target": "_channel",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'featurewire.plugin' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"featurewire.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
