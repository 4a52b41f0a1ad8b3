"""Keep one file to comparable vectors: of one vector space, or of one version if unknown."""

from __future__ import annotations

from collections.abc import Callable

from featurewire._cli.rows import Origin
from featurewire.manifest.spaces import other_schemes
from featurewire.plugin.arguments import CommandFailure


class MixedVectors(CommandFailure):
    """One file would hold vectors that do not compare with each other."""


class VectorSpaceGuard:
    """The origin of each vector. Raises `MixedVectors` if it does not fit the earlier rows.

    `vector_space_of(version)` asks the server, once per version.
    """

    def __init__(self, *, model: str, vector_space_of: Callable[[int], str | None]) -> None:
        self._model = model
        self._vector_space_of = vector_space_of
        self._accepted: dict[int, Origin] = {}
        self._first: Origin | None = None
        self._loaded: set[Origin] = set()

    def loaded(self, origin: Origin) -> None:
        """Register the origin of a row that is already in the file."""
        if origin in self._loaded:
            return
        if (first := self._conflict(origin)) is not None:
            raise MixedVectors(
                f"the output holds vectors of {first} and of {origin}, which cannot be "
                f"compared{_by_number(first, origin)}; start over with "
                f"--overwrite{other_schemes(first.vector_space, origin.vector_space)}"
            )
        self._loaded.add(origin)

    def of(self, version: int) -> Origin:
        """The origin of a vector that the server made with `version`."""
        if version in self._accepted:
            return self._accepted[version]
        origin = Origin(
            model=self._model, version=version, vector_space=self._vector_space_of(version)
        )
        if (first := self._conflict(origin)) is not None:
            pinned = f"ask for --version {first.version}, or " if version != first.version else ""
            raise MixedVectors(
                f"the server answers with {origin}, the rows already written are of {first}: "
                f"they cannot be compared{_by_number(first, origin)}; {pinned}choose another "
                f"--output{other_schemes(first.vector_space, origin.vector_space)}"
            )
        self._accepted[version] = origin
        return origin

    def _conflict(self, origin: Origin) -> Origin | None:
        """The file's first origin if `origin` does not compare with it; else None."""
        if self._first is None:
            self._first = origin
        return None if self._first.comparable(origin) else self._first


def _by_number(*origins: Origin) -> str:
    """A note for the error text if version numbers were compared, not vector spaces."""
    if all(origin.vector_space is not None for origin in origins):
        return ""
    return " (judged by version number, because without a manifest the vector space is unknown)"
