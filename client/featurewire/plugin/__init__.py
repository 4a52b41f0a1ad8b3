"""What the other distributions of Featurewire build on; applications need none of it.

They are released with the client, in one version. `featurewire.manifest` reads what a version says
of itself, and the messages of the wire are in `featurewire._tfs`.

    arguments     the parser, with one line about wrong usage, and the types of values
    environment   options that a variable can give
    credentials   the options about TLS and the token
    wording       the library's errors in the words of a command line
    interrupts    Ctrl-C and SIGTERM as `KeyboardInterrupt`
    files         files that survive a crash, and folders that are named by a number
    images        which files of a folder are images
    target        which servers a target names
    server        one server, asked about one model

Only `target` and `server` import gRPC, so that a command line prints its help at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featurewire.manifest.spaces import other_schemes as other_schemes
    from featurewire.plugin.arguments import CommandParser as CommandParser
    from featurewire.plugin.arguments import positive_int as positive_int
    from featurewire.plugin.arguments import positive_seconds as positive_seconds
    from featurewire.plugin.arguments import quiet_grpc as quiet_grpc
    from featurewire.plugin.server import Server as Server
    from featurewire.plugin.target import is_local as is_local
    from featurewire.plugin.target import split_target as split_target
    from featurewire.plugin.wording import in_options as in_options

    IMAGE_EXTENSIONS: frozenset[str]

_HOMES = {
    "CommandParser": "plugin.arguments",
    "IMAGE_EXTENSIONS": "plugin.images",
    "Server": "plugin.server",
    "in_options": "plugin.wording",
    "is_local": "plugin.target",
    "other_schemes": "manifest.spaces",
    "positive_int": "plugin.arguments",
    "positive_seconds": "plugin.arguments",
    "quiet_grpc": "plugin.arguments",
    "split_target": "plugin.target",
}
"""Until the other distributions import from the modules above."""

__all__ = [*_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'featurewire.plugin' has no attribute {name!r}")
    module = importlib.import_module(f"featurewire.{_HOMES[name]}")
    value = getattr(module, name.replace("IMAGE_EXTENSIONS", "IMAGE_SUFFIXES"))
    globals()[name] = value
    return value
