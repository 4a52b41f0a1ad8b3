"""Publishes a version directory complete or not at all.

Everything is written to a hidden directory next to the versions and renamed into place at the end.
TensorFlow Serving ignores that directory, because its name is not a number. An exclusive lock on it
shows that its exporter is alive. The kernel drops the lock when the process ends, however it ends,
so the next export recognises a leftover and removes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from featurewire.plugin.files import sync
from featurewire_exporter.errors import PublishError
from featurewire_exporter.locks import locked

STAGING_PREFIX = ".featurewire-export-"
MAX_VERSION = 2**63 - 1
"""TensorFlow Serving's versions are int64."""


class Staging:
    """A context manager that writes one version to a hidden folder and publishes it.

    On exit an unpublished version is removed, with the base directories that were made for it.
    """

    def __init__(self, base_path: str | Path, *, version: int | None = None) -> None:
        if "://" in str(base_path):
            raise PublishError(
                f"{base_path} is not a local path; export to a local folder and copy the numbered "
                "folder from there under a temporary name, renaming it last"
            )
        self.base_path = Path(os.path.abspath(base_path))
        self._wanted = version
        self._made: list[Path] = []
        self._directory: Path | None = None
        self._lock = -1

    @property
    def version(self) -> Path:
        """Fill this directory: it becomes the version."""
        assert self._directory is not None
        return self._directory / "version"

    @property
    def scratch(self) -> Path:
        """A directory for other files; it is removed when the export ends."""
        assert self._directory is not None
        return self._directory / "scratch"

    def __enter__(self) -> Staging:
        with _told(self.base_path):
            self._make_base()
            try:
                self._open()
            except BaseException:
                self._remove()
                self._remove_made()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()
        if kind is not None:
            self._remove_made()

    def publish(self) -> Path:
        """Rename the filled directory to its number and return the new path."""
        with _told(self.base_path):
            sync_tree(self.version)
            with locked(self.base_path):
                number = self._wanted or next_version(self.base_path)
                target = self.base_path / str(number)
                _check_free(self.base_path, number)
                try:
                    os.rename(self.version, target)
                except OSError as error:
                    if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                        raise _exists(target) from error
                    raise
            sync(self.base_path)
        return target

    def _make_base(self) -> None:
        missing = [p for p in (self.base_path, *self.base_path.parents) if not p.exists()]
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            self._made.append(path)

    def _open(self) -> None:
        with locked(self.base_path):
            remove_leftovers(self.base_path)
            if self._wanted is not None:
                _check_free(self.base_path, self._wanted)
            else:
                next_version(self.base_path)
            self._directory = self.base_path / f"{STAGING_PREFIX}{secrets.token_hex(6)}"
            self._directory.mkdir()
            self._lock = os.open(self._directory, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.version.mkdir()
        self.scratch.mkdir()

    def _remove(self) -> None:
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)

    def _remove_made(self) -> None:
        for path in reversed(self._made):
            try:
                path.rmdir()
            except OSError:
                return


def next_version(base_path: Path) -> int:
    """One more than the highest version present, or 1. Raises `PublishError`."""
    highest = max(_taken(base_path), default=0)
    if highest >= MAX_VERSION:
        raise PublishError(
            f"{base_path} holds version {highest}, which is the highest possible; choose a free "
            "number with --version"
        )
    return highest + 1


def _check_free(base_path: Path, number: int) -> None:
    # Compare numbers, like TensorFlow Serving, where a folder 007 is version 7.
    if (found := _taken(base_path).get(number)) is not None:
        raise _exists(found)


def _taken(base_path: Path) -> dict[int, Path]:
    """Everything with a version's name, by number: also files and broken links, which block it."""
    names = {path.name: path for path in base_path.iterdir()}
    return {int(name): path for name, path in names.items() if name.isascii() and name.isdigit()}


def remove_leftovers(base_path: Path) -> list[Path]:
    """Remove and return the leftovers of killed exporters.

    Call with `base_path` locked, so that no exporter is between making and locking its directory.
    """
    removed = []
    for path in base_path.glob(f"{STAGING_PREFIX}*"):
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)
    return removed


def sync_tree(directory: Path) -> None:
    """Flush everything below `directory` to the disk, before it gets its new name."""
    for root, _, files in os.walk(directory):
        for name in files:
            sync(Path(root) / name)
        sync(Path(root))


@contextmanager
def _told(base_path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PublishError(describe(error, base_path)) from error


def describe(error: OSError, base_path: Path) -> str:
    """Describe a failed write below `base_path` in one line."""
    if error.errno == errno.ENOSPC:
        return f"the disk of {base_path} is full; free some space and export again"
    if error.errno == errno.EDQUOT:
        return f"the disk quota at {base_path} is used up; free some space and export again"
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"{base_path} cannot be written ({reason}); give a folder that can"


def _exists(target: Path) -> PublishError:
    return PublishError(
        f"version {target.name} exists at {target.parent} and is never overwritten; "
        "leave --version out for the next free number"
    )
