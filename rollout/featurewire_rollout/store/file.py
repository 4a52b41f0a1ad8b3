"""The config in a file, replaced by a rename and locked by a file next to it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featurewire.plugin.files import sync
from featurewire_rollout.errors import ConfigFileError, ConflictError


class FileStore:
    """`models.config` in the file system. Servers read either the old or the new text."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        # A rename over a link would replace the link, and servers would keep the old file.
        self._path = Path(os.path.realpath(path))
        self._lock_path = self._path.with_name(f".{self._path.name}.rollout-lock")

    def read(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigFileError(f"cannot read {self.name}: {_reason(error)}") from error

    def write(self, text: str, *, expected: str) -> None:
        """See `ConfigStore`. The new file has the old mode and, if permitted, the old owner."""
        temporary = self._path.with_name(f".{self._path.name}.{secrets.token_hex(6)}.tmp")
        try:
            self._write(temporary, text)
            if self.read() != expected:
                raise ConflictError(
                    f"{self.name} was changed by another writer in the meantime; check it and "
                    "run the command again"
                )
            os.rename(temporary, self._path)
            sync(self._path.parent)
        except OSError as error:
            raise ConfigFileError(
                f"cannot write {self.name}: {_reason(error)}; it is unchanged"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def _write(self, temporary: Path, text: str) -> None:
        before = self._path.stat()
        # Unbuffered, so that a full disk fails here, before the rename.
        data = text.encode()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
            os.fchmod(descriptor, before.st_mode & 0o7777)
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, before.st_uid, before.st_gid)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def lock(self, owner: str) -> Iterator[None]:
        """See `ConfigStore`. The kernel releases the lock when the process ends for any reason."""
        try:
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigFileError(
                f"cannot lock {self.name}: {self._lock_path}: {_reason(error)}; nothing was changed"
            ) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise ConfigFileError(f"cannot lock {self.name}: {_reason(error)}") from error
                holder = os.pread(descriptor, 500, 0).decode(errors="replace").strip()
                raise ConflictError(
                    f"{self.name} is being changed by {holder or 'another rollout'}; wait until "
                    "it has ended, or interrupt it (`status` shows where it is)"
                ) from error
            self._remove_leftovers()
            # Only for error messages, so a full disk does not matter.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, owner.encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def _remove_leftovers(self) -> None:
        """Remove temporary files of killed processes. The lock excludes other writers."""
        for path in self._path.parent.glob(f".{self._path.name}.*.tmp"):
            with contextlib.suppress(OSError):
                path.unlink()


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    return error.strerror or str(error)
