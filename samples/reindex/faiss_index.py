"""An index in FAISS: one folder of files per vector space, which each process loads.

A file has the rows of one write, and their space. It gets its name by a rename when it is complete,
so a killed writer leaves all rows of a write or none.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from tables import Index, WrongSpaceError

__all__ = ["FaissIndex"]


@dataclass
class Loaded:
    """The rows of the files that have been loaded."""

    files: int = 0
    names: list[str] = field(default_factory=list)
    index: Any = None
    """Index of normalised vectors, so that an inner product is a cosine."""


class FaissIndex(Index):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._loaded: dict[str, Loaded] = {}
        self._lock = threading.Lock()

    def names(self, space: str) -> list[str]:
        with self._lock:
            return list(self._load(space).names)

    def append(self, space: str, names: Sequence[str], vectors: np.ndarray) -> None:
        known = set(self.names(space))
        fresh = [row for row, name in enumerate(names) if name not in known]
        if not fresh:
            return
        self._folder(space).mkdir(exist_ok=True)
        path = self._file(space, self._loaded[space].files)
        draft = path.with_suffix(".draft")
        with draft.open("wb") as file:
            written = np.array([names[row] for row in fresh])
            np.savez(file, vector_space=space, names=written, vectors=vectors[fresh])
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)

    def nearest(self, space: str, vector: np.ndarray, count: int) -> list[tuple[str, float]]:
        with self._lock:
            loaded = self._load(space)
            if loaded.index is None:
                return []
            query = np.array(vector, np.float32, ndmin=2)
            faiss.normalize_L2(query)
            cosines, rows = loaded.index.search(query, min(count, len(loaded.names)))
            found = zip(rows[0], cosines[0], strict=True)
            return [(loaded.names[row], float(cosine)) for row, cosine in found]

    def _load(self, space: str) -> Loaded:
        loaded = self._loaded.setdefault(space, Loaded())
        while (path := self._file(space, loaded.files)).exists():
            with np.load(path) as rows:
                if str(rows["vector_space"]) != space:
                    raise WrongSpaceError(f"{path} does not hold vectors of {space}")
                vectors = np.array(rows["vectors"], np.float32)
                names = [str(name) for name in rows["names"]]
            faiss.normalize_L2(vectors)
            if loaded.index is None:
                loaded.index = faiss.IndexFlatIP(vectors.shape[1])
            loaded.index.add(vectors)
            loaded.names += names
            loaded.files += 1
        return loaded

    def _folder(self, space: str) -> Path:
        return self.folder / self.table_name(space)

    def _file(self, space: str, number: int) -> Path:
        return self._folder(space) / f"{number:08}.npz"
