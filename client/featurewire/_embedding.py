"""Results: vectors, each with the version that made it."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar, overload

import numpy as np
import numpy.typing as npt

from featurewire._errors import ImageError

K = TypeVar("K", covariant=True)

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Embedding:
    """One image's feature vector. `np.asarray(embedding)` is its vector."""

    vector: Vectors
    """float32 `(dimension,)`, contiguous, in its own memory."""
    model: str
    version: int
    """The version that made the vector. Vectors of two versions can be compared only if their
    manifests name the same `vector_space`."""
    bridged: bool = False
    """Whether a bridge mapped the vector from the version's own space into the client's
    `vector_space`."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return _as_array(self.vector, dtype, copy)

    def __len__(self) -> int:
        return len(self.vector)


@dataclass(frozen=True, eq=False)
class EmbeddingBatch:
    """The vectors of `embed_batch`, one row per image, in input order.

    `batch[i]` is the i-th `Embedding`, or raises that image's error; `batch[i:j]` is a list of
    embeddings. `np.asarray(batch)` is `vectors`, or raises if any image failed.
    """

    vectors: Vectors
    """float32 `(N, dimension)`. The rows of failed images, the keys of `errors`, are all NaN."""
    version: int
    """The version that made all rows; 0 if no version answered."""
    errors: dict[int, ImageError]
    """Errors of the failed images, by row."""
    model: str = ""
    bridged: bool = False
    """See `Embedding`."""

    def raise_for_errors(self) -> EmbeddingBatch:
        """Raise the first image's error, if any failed; else return the batch itself."""
        for row in sorted(self.errors):
            error = self.errors[row]
            others = len(self.errors) - 1
            more = f" (and {others} other image{'s' if others > 1 else ''})" if others else ""
            raise ImageError(f"image {row}: {error}{more}", reason=error.reason) from error
        return self

    def __len__(self) -> int:
        return len(self.vectors)

    @overload
    def __getitem__(self, row: int) -> Embedding: ...

    @overload
    def __getitem__(self, row: slice) -> list[Embedding]: ...

    def __getitem__(self, row: int | slice) -> Embedding | list[Embedding]:
        if isinstance(row, slice):
            return [self[each] for each in range(len(self))[row]]
        if isinstance(row, (bool, np.bool_)):
            raise TypeError(f"the index must be a whole number, not {row}")
        row = range(len(self))[operator.index(row)]
        if row in self.errors:
            raise self.errors[row]
        return Embedding(self.vectors[row], self.model, self.version, self.bridged)

    def __iter__(self) -> Iterator[Embedding]:
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return _as_array(self.raise_for_errors().vectors, dtype, copy)


@dataclass(frozen=True, eq=False)
class Embedded(Generic[K]):
    """A `Result` with an embedding."""

    key: K
    """The key that came with the image, or its position in the iterable, from 0."""
    embedding: Embedding
    error: None = None

    def unwrap(self) -> Embedding:
        """The embedding."""
        return self.embedding


@dataclass(frozen=True, eq=False)
class Failed(Generic[K]):
    """A `Result` with an error."""

    key: K
    error: ImageError
    embedding: None = None

    def unwrap(self) -> NoReturn:
        """Raises the error."""
        raise self.error


Result: TypeAlias = Embedded[K] | Failed[K]
"""The item that `stream` yields per image. `if result.error is None` narrows its type."""


def _as_array(vectors: Vectors, dtype: Any, copy: bool | None) -> npt.NDArray[Any]:
    """Implement NumPy 2's protocol for `__array__`; NumPy 1 does not pass `copy`."""
    converted = vectors if dtype is None else vectors.astype(dtype, copy=False)
    if copy is False and converted is not vectors:
        raise ValueError(f"a {vectors.dtype} vector cannot become {dtype} without a copy")
    return converted.copy() if copy and converted is vectors else converted
