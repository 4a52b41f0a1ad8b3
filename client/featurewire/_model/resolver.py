"""Choose what to call: a signature, its tensors, and a version with the wanted vector space."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from featurewire._config import Settings
from featurewire._errors import (
    DeadlineExceededError,
    FeaturewireError,
    InvalidRequestError,
    ModelNotFoundError,
    ResponseError,
    VectorSpaceError,
    is_systemic,
)
from featurewire._flow import Flow, Wait
from featurewire._model.cache import Cache
from featurewire._model.queries import Queries
from featurewire._wire.predict import Codec, Names
from featurewire.manifest.spaces import bridges, other_schemes, vector_space

MAX_RESOLUTIONS = 5
"""Maximum number of tries to read the vector space of a version before it is retired."""


def _names_for(
    wanted: str, manifest: Mapping[str, Any], asked: Names, version: int
) -> Names | None:
    """Signature and tensors for vectors of the space `wanted`; None if the version lacks them.

    `asked`: the tensors of the client's own signature.
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
    """Finds signature and tensors to call, in a cache that the client's views share."""

    def __init__(self, settings: Settings, queries: Queries, cache: Cache) -> None:
        self._settings = settings
        self._queries = queries
        self._cache = cache
        self._origin = f"{settings.target}, model {settings.model!r}"
        pinned, tensors = (settings.version, settings.label), (settings.input, settings.output)
        self._signature = (*pinned, settings.signature, *tensors)
        self._key = (*self._signature, settings.vector_space)

    def codec(self, deadline: float) -> Flow[Codec]:
        """The codec to use. It may be out of date; a reply shows that."""
        codec = self._cache.codecs.get(self._key)
        if codec is not None:
            return codec
        names = yield from self._asked(deadline)
        if self._settings.vector_space is not None and names.version:
            # The cached tensors may come from a version that no longer answers.
            codec, _ = yield from self.resolve(0, deadline)
            return codec
        codec = self._cache.codecs[self._key] = self._codec(names)
        return codec

    def note(self, error: FeaturewireError) -> None:
        """Forget the tensors if this error shows that they are wrong."""
        if is_systemic(error):
            self._cache.forget_tensors()

    def resolve(self, version: int, deadline: float) -> Flow[tuple[Codec, Codec]]:
        """The codec for vectors of the wanted space, and the same codec pinned to one version.

        `version`: the version that answered last; 0 if unknown. Raises `VectorSpaceError` if this
        version, or the one that the label has moved to, does not give vectors of that space.
        """
        for left in reversed(range(MAX_RESOLUTIONS)):
            version = version or (yield from self._queries.current(deadline))
            try:
                names = yield from self._names_of(version, deadline)
            except ModelNotFoundError:  # the version was retired in the meantime
                if not left:
                    raise
                version = 0
            else:
                codec = self._cache.codecs.get(self._key)
                if codec is None or codec.names != names:
                    codec = self._cache.codecs[self._key] = self._codec(names)
                return codec, self._codec(names, pinned=version)
        raise AssertionError

    def _names_of(self, version: int, deadline: float) -> Flow[Names]:
        """Signature and tensors of this version. Raises `VectorSpaceError`."""
        asked, wanted = (yield from self._asked(deadline)), self._settings.vector_space
        if wanted is None:
            return asked
        if version not in self._cache.manifests:
            try:
                manifest = yield from self._queries.manifest(version, deadline)
            except (InvalidRequestError, ResponseError):  # the signature does not exist
                manifest = {}
            self._cache.manifests[version] = manifest
        names = _names_for(wanted, self._cache.manifests[version], asked, version)
        if names is not None:
            self._cache.answering.setdefault((wanted, names.signature), set()).add(version)
            return names
        # Do not cache a failure, because a new version may be published under the same number.
        has = vector_space(self._cache.manifests.pop(version))
        says = "does not name its vector space" if has is None else f"has the vector space {has!r}"
        raise VectorSpaceError(
            f"{self._origin}: version {version} {says}, not the requested {wanted!r}, and has no "
            "bridge to it; pin a version of that space, or rebuild the "
            f"index{other_schemes(has, wanted)}"
        )

    def _asked(self, deadline: float) -> Flow[Names]:
        """The tensors of the client's own signature. Concurrent calls share one query."""
        key = self._signature
        while (names := self._cache.names.get(key)) is None:
            with self._cache.lock:
                asked = self._cache.asking.get(key)
                if asked is None:
                    asking = self._cache.asking[key] = Future()
            if asked is not None:
                yield Wait(asked, deadline)
                if not asked.done():
                    raise DeadlineExceededError(
                        f"{self._origin}: timed out while another call of this client asked for "
                        "the signature",
                        advice="more time",
                    )
                continue
            try:
                names = self._cache.names[key] = yield from self._queries.names(deadline)
            finally:
                del self._cache.asking[key]
                asking.set_result(None)
        return names

    def _codec(self, names: Names, *, pinned: int | None = None) -> Codec:
        wanted, versions = self._settings.vector_space, None
        if wanted is not None:
            versions = self._cache.answering.setdefault((wanted, names.signature), set())
        return Codec(
            self._queries.spec(names.signature, pinned=pinned),
            names,
            origin=self._origin,
            dimensions=self._cache.dimensions,
            versions=versions,
        )
