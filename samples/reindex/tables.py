"""The common part of both indexes: one table per vector space, and a pointer to the current one.

Vectors of two spaces cannot be compared, so each space has its own table. The checks here keep
writers and searches from mixing them.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

__all__ = ["Index", "WrongSpaceError"]


class WrongSpaceError(Exception):
    """The vectors belong to a space that searches do not read."""


class Index(ABC):
    """Tables in a folder. Any number of processes may search and add rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def names(self, space: str) -> list[str]:
        """Names of all rows of a space's table; empty without a table."""

    @abstractmethod
    def append(self, space: str, names: Sequence[str], vectors: np.ndarray) -> None:
        """Add all rows or none; existing names are skipped. Call it within `writing`.

        `vectors`: float32 `[N, dimension]` of this space.
        """

    @abstractmethod
    def nearest(self, space: str, vector: np.ndarray, count: int) -> list[tuple[str, float]]:
        """The names nearest to a vector, with their cosines, nearest first. Exact."""

    def current(self) -> str | None:
        """The space whose table searches read; None before the first row."""
        spaces = self._searched()
        return spaces[-1] if spaces else None

    def switch(self, space: str) -> None:
        """Make further searches read this table. Call it within `writing`."""
        spaces = [each for each in self._searched() if each != space] + [space]
        draft = self._pointer.with_suffix(".draft")
        with draft.open("w") as file:
            json.dump({"searched": spaces}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._pointer)

    def add(self, space: str, names: Sequence[str], vectors: np.ndarray) -> None:
        """Add rows to the current table. On `WrongSpaceError`, embed them again."""
        with self.writing():
            current = self.current()
            if current not in (None, space):
                raise WrongSpaceError(f"searches read {current}, but these vectors are in {space}")
            self.append(space, names, vectors)
            if current is None:
                self.switch(space)

    def search(self, space: str, vector: np.ndarray, count: int) -> list[tuple[str, float]]:
        """See `nearest`. Raises `WrongSpaceError` for a table that was never switched to."""
        if space not in self._searched():
            raise WrongSpaceError(f"searches do not read the vectors of {space} yet")
        return self.nearest(space, vector, count)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the write lock; waits for other writers."""
        with (self.folder / "writing.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _searched(self) -> list[str]:
        """The spaces that have been searched, the current one last."""
        try:
            return list(json.loads(self._pointer.read_text())["searched"])
        except FileNotFoundError:
            return []

    @property
    def _pointer(self) -> Path:
        return self.folder / "current.json"

    @staticmethod
    def table_name(space: str) -> str:
        return "space_" + re.sub(r"[^A-Za-z0-9_.-]", "_", space)
