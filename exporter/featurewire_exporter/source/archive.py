"""Unpacks a module's archive without trusting it."""

from __future__ import annotations

import errno
import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from featurewire_exporter.errors import ModuleError, one_line

SUFFIXES = (".tar.gz", ".tgz", ".tar")
_CHUNK_BYTES = 1 << 20
_SHOWN = 3
"""Modules of an archive that an error names."""
_OF_THE_MEMBER = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)
"""Errors that a member's name causes, not the disk."""

Report = Callable[[int], None]
"""Called with the total number of bytes written."""


def extract(file: IO[bytes], destination: Path, *, name: str, report: Report | None = None) -> None:
    """Unpack a tar archive, compressed or not, into `destination`, which exists.

    `name`: the archive's name in errors. Raises `ModuleError` for a truncated archive, for another
    kind of file, and for a member with an absolute path or `..`, or that is not a plain file.
    """
    written, member = 0, None
    try:
        with tarfile.open(fileobj=file, mode="r:*") as archive:
            for member in archive:
                target = destination / _checked(member, name)
                if member.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                source = archive.extractfile(member)
                assert source is not None  # a file, as all members that are not directories
                with open(target, "wb") as out:
                    while chunk := source.read(_CHUNK_BYTES):
                        out.write(chunk)
                        written += len(chunk)
                        if report:
                            report(written)
            # The checksum of a gzip stream comes after the archive's own end.
            while file_part := archive.fileobj.read(_CHUNK_BYTES):
                del file_part
    except EOFError as error:
        raise ModuleError(f"{name} is truncated; download it again") from error
    except (tarfile.TarError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_MEMBER and member is not None:
            raise ModuleError(
                f"{name} is refused: its member {member.name[:100]!r} cannot be written "
                f"({error.strerror}); pack the module again"
            ) from error
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ModuleError(
            f"{name} is not an intact tar archive ({one_line(error)}); fetch it again, or give the "
            "address of a module's .tar.gz"
        ) from error


def _checked(member: tarfile.TarInfo, name: str) -> PurePosixPath:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise ModuleError(
            f"{name} is refused: its member {member.name!r} would be written outside the module's "
            "folder; do not trust this archive"
        )
    if not (member.isfile() or member.isdir()):
        raise ModuleError(
            f"{name} is refused: its member {member.name!r} is not a plain file; "
            "pack the module without links"
        )
    return path


def module_folder(directory: Path, archive: str) -> Path:
    """The folder of the module that was unpacked into `directory`: its top, or the only folder
    with a graph.

    `archive`: what errors call the archive. Raises `ModuleError`.
    """
    if (directory / "saved_model.pb").exists():
        return directory
    found = sorted(graph.parent for graph in directory.rglob("saved_model.pb"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise ModuleError(
            f"{archive} has no saved_model.pb; give an archive of a module, with its "
            "saved_model.pb at the top or in a folder"
        )
    shown = ", ".join(str(folder.relative_to(directory)) for folder in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise ModuleError(
        f"{archive} holds {len(found)} modules ({shown}{more}); unpack it and give the folder of "
        "one of them"
    )
