"""What to call: a signature, its tensors, and a version whose vectors are of the space wanted."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from featurewire._config import Settings
from featurewire._errors import (
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    ResponseError,
    VectorSpaceError,
)
from featurewire._flow import Flow, Wait
from featurewire._model.queries import Inquiry
from featurewire._rpc.connection import Connection
from featurewire._wire.predict import Codec, Names
from featurewire.manifest.spaces import bridges, other_schemes, vector_space

__all__ = ["Resolver"]

RESOLUTIONS = 5
"""So often a version may be retired before its vector space is read."""


def _names_for(
    wanted: str, manifest: Mapping[str, Any], asked: Names, version: int
) -> Names | None:
    """What to call for vectors of the space `wanted`; None if the version has no such vectors.

    `asked`: the tensors of the signature that the client was made with.
    """
    reached = {space: each for space, each in bridges(manifest).items() if each.signature}
    for space, bridge in reached.items():
        if bridge.signature == asked.signature:  # the client's own signature is a bridge
            return replace(asked, bridged=True) if space == wanted else None
    if vector_space(manifest) == wanted:
        return asked
    if wanted not in reached:
        return None
    bridge = reached[wanted]
    return replace(
        asked,
        signature=bridge.signature or "",
        dimension=bridge.dimension,
        version=version,
        bridged=True,
    )


class Resolver:
    """Finds what to call; `Connection` remembers it, under `key`."""

    def __init__(self, settings: Settings, connection: Connection, inquiry: Inquiry) -> None:
        self._settings = settings
        self._connection = connection
        self._inquiry = inquiry
        pinned, tensors = (settings.version, settings.label), (settings.input, settings.output)
        self._signature = (*pinned, settings.signature, *tensors)
        self.key = (*self._signature, settings.vector_space)

    def codec(self, deadline: float) -> Flow[Codec]:
        """What to call, where nothing is known: a reply tells whether it is right."""
        names = yield from self._asked(deadline)
        if self._settings.vector_space is not None and names.version:
            # The tensors may be known from a version that answers no more.
            codec, _ = yield from self.resolve(0, deadline)
            return codec
        codec = self._connection.codecs[self.key] = self._codec(names)
        return codec

    def resolve(self, version: int, deadline: float) -> Flow[tuple[Codec, Codec]]:
        """What to call for vectors of the space that is wanted, and the same of one version alone.

        `version`: what answered the last time, 0 for not known. Raises `VectorSpaceError` where
        this version, or the one that the label has moved to, has no such space.
        """
        for left in reversed(range(RESOLUTIONS)):
            version = version or (yield from self._inquiry.current(deadline))
            try:
                names = yield from self._names_of(version, deadline)
            except ModelNotFoundError:  # it was retired meanwhile
                if not left:
                    raise
                version = 0
            else:
                codec = self._connection.codecs.get(self.key)
                if codec is None or codec.names != names:
                    codec = self._connection.codecs[self.key] = self._codec(names)
                return codec, self._codec(names, pinned=version)
        raise AssertionError

    def _names_of(self, version: int, deadline: float) -> Flow[Names]:
        """What to call of this version. Raises `VectorSpaceError`."""
        asked, wanted = (yield from self._asked(deadline)), self._settings.vector_space
        if wanted is None:
            return asked
        connection = self._connection
        if version not in connection.manifests:
            try:
                manifest = yield from self._inquiry.manifest(version, deadline)
            except (InvalidRequestError, ResponseError):  # no such signature
                manifest = {}
            connection.manifests[version] = manifest
        names = _names_for(wanted, connection.manifests[version], asked, version)
        if names is not None:
            connection.answering.setdefault((wanted, names.signature), set()).add(version)
            return names
        # A version may be replaced by another under its number.
        has = vector_space(connection.manifests.pop(version))
        says = "names no vector space" if has is None else f"has the vector space {has!r}"
        raise VectorSpaceError(
            f"{connection.target}, model {self._settings.model!r}: version {version} {says}, and "
            f"{wanted!r} is wanted, to which it has no bridge; pin a version of that space, or "
            f"rebuild the index{other_schemes(has, wanted)}"
        )

    def _asked(self, deadline: float) -> Flow[Names]:
        """The tensors of the signature that the client was made with, asked for once."""
        connection, key = self._connection, self._signature
        while (names := connection.names.get(key)) is None:
            with connection.lock:
                asked = connection.asking.get(key)
                if asked is None:
                    asking = connection.asking[key] = Future()
            if asked is not None:
                yield Wait(asked, deadline)
                if not asked.done():
                    raise DeadlineExceededError(
                        f"{connection.target}, model {connection.model!r}: another call of this "
                        "client asked for the signature, and had no answer in time; raise timeout=…"
                    )
                continue
            try:
                names = connection.names[key] = yield from self._inquiry.names(deadline)
            finally:
                del connection.asking[key]
                asking.set_result(None)
        return names

    def _codec(self, names: Names, *, pinned: int | None = None) -> Codec:
        connection, wanted, versions = self._connection, self._settings.vector_space, None
        if wanted is not None:
            versions = connection.answering.setdefault((wanted, names.signature), set())
        return Codec(
            self._inquiry.spec(names.signature, pinned=pinned),
            names,
            origin=f"{connection.target}, model {connection.model!r}",
            dimensions=connection.dimensions,
            versions=versions,
        )
