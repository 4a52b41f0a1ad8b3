"""What is known of the served model, for a client and its views."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from featurewire._wire.predict import Codec, Names

__all__ = ["Cache"]


class Cache:
    """Threads share it. Keys of `codecs` and `names` are the resolvers'."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.codecs: dict[object, Codec] = {}
        """What to call; a reply tells whether it is still right."""
        self.names: dict[object, Names] = {}
        """The tensors of signatures."""
        self.asking: dict[object, Future[None]] = {}
        """Done when the call that asks for these tensors has ended."""
        self.dimensions: dict[tuple[int, str], int] = {}
        """By version and signature, of all replies."""
        self.manifests: dict[int, dict[str, Any]] = {}
        """By version."""
        self.answering: dict[tuple[str, str], set[int]] = {}
        """By vector space and signature: the versions that give vectors of that space by it."""

    def forget_tensors(self) -> None:
        """Ask again, because a new version may have other tensors."""
        self.codecs.clear()
        self.names.clear()
