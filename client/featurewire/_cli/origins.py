"""Which vectors may stand in one file: those of one vector space, or else of one version."""

from __future__ import annotations

from collections.abc import Callable

from featurewire._cli.rows import Origin
from featurewire.manifest.spaces import other_schemes
from featurewire.plugin.arguments import CommandFailure


class MixedVectors(CommandFailure):
    """Vectors that do not compare would come into one file."""


class Origins:
    """Names the origin of each vector, and refuses one that does not fit the rows before.

    `vector_space_of(version)` asks the server; it is asked once a version.
    """

    def __init__(self, *, model: str, vector_space_of: Callable[[int], str | None]) -> None:
        self._model = model
        self._vector_space_of = vector_space_of
        self._accepted: dict[int, Origin] = {}
        self._first: Origin | None = None
        self._loaded: set[Origin] = set()

    def loaded(self, origin: Origin) -> None:
        """Take note of a row that is in the file."""
        if origin in self._loaded:
            return
        if (first := self._unlike(origin)) is not None:
            raise MixedVectors(
                f"the output holds vectors of {first} and of {origin}, which do not "
                f"compare{_by_number(first, origin)}; start over with --overwrite"
                f"{other_schemes(first.vector_space, origin.vector_space)}"
            )
        self._loaded.add(origin)

    def of(self, version: int) -> Origin:
        """The origin of a vector that the server made with `version`."""
        if version in self._accepted:
            return self._accepted[version]
        origin = Origin(
            model=self._model, version=version, vector_space=self._vector_space_of(version)
        )
        if (first := self._unlike(origin)) is not None:
            pinned = f"ask for --version {first.version}, or " if version != first.version else ""
            raise MixedVectors(
                f"the server answers with {origin}, the rows already written are of {first}: they "
                f"do not compare{_by_number(first, origin)}; {pinned}choose another --output"
                f"{other_schemes(first.vector_space, origin.vector_space)}"
            )
        self._accepted[version] = origin
        return origin

    def _unlike(self, origin: Origin) -> Origin | None:
        """The first origin, where vectors of this one do not compare with it."""
        if self._first is None:
            self._first = origin
        return None if self._first.comparable(origin) else self._first


def _by_number(*origins: Origin) -> str:
    """Says when it was not the vector spaces that were compared."""
    if all(origin.vector_space is not None for origin in origins):
        return ""
    return " (judged by version number: without a manifest no vector space is known)"
