"""Cached facts about the served model, shared by a client and its views."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from featurewire._wire.predict import Codec, Names


class Cache:
    """Shared by threads. The keys of `codecs`, `names` and `asking` are made by `Resolver`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.codecs: dict[object, Codec] = {}
        """Signature and tensors to call. May be out of date; a reply shows that."""
        self.names: dict[object, Names] = {}
        """Tensors of each signature."""
        self.asking: dict[object, Future[None]] = {}
        """Running queries for a signature's tensors. The future is done when the query ends."""
        self.dimensions: dict[tuple[int, str], int] = {}
        """Vector dimension by version and signature, from all replies."""
        self.manifests: dict[int, dict[str, Any]] = {}
        """Manifest by version."""
        self.answering: dict[tuple[str, str], set[int]] = {}
        """By vector space and signature: versions whose signature gives vectors of that space."""

    def forget_tensors(self) -> None:
        """Forget signatures and tensors, because a new version may have other ones."""
        self.codecs.clear()
        self.names.clear()
