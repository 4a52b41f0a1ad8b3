"""Gets a module from a hub handle, a bucket, a folder or an archive, or makes the stand-in."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from featurewire_exporter.errors import ModuleError, one_line
from featurewire_exporter.progress import Progress
from featurewire_exporter.source import hub
from featurewire_exporter.source.archive import SUFFIXES, extract, module_folder
from featurewire_exporter.source.slim_checkpoint import checkpoint_prefix, write_slim_module
from featurewire_exporter.source.stand_in import NAME as STAND_IN
from featurewire_exporter.source.stand_in import is_stand_in, write_stand_in


@dataclass(frozen=True, kw_only=True)
class Source:
    """A module, on a file system that TensorFlow reads."""

    handle: str
    """The handle that the user gave."""
    directory: str
    """The folder with `saved_model.pb`."""

    @property
    def stand_in(self) -> bool:
        """Whether its weights are random, whatever its handle."""
        return is_stand_in(self.directory)


def fetch(handle: str, scratch: Path, progress: Progress, *, kind: str = "auto") -> Source:
    """The directory of the module `handle`; new files are written below `scratch`.

    `kind`: one of `config.KINDS`. Raises `ModuleError`.
    """
    if kind == "slim-checkpoint":
        progress.step(f"Building the network from {handle}")
        return Source(
            handle=handle, directory=str(write_slim_module(handle, scratch / "slim-checkpoint"))
        )
    if handle == STAND_IN:
        progress.step("Making the stand-in module (random weights, no learned meaning)")
        directory = write_stand_in(scratch / "stand-in")
        return Source(handle=handle, directory=str(directory))
    if handle.lower().startswith(("http://", "https://")):
        return Source(handle=handle, directory=hub.download(handle, progress))
    if handle.startswith("gs://"):
        return Source(handle=handle, directory=_from_bucket(handle, scratch, progress))
    path = Path(handle)
    try:
        path.is_dir()
    except OSError as error:  # a name that is too long
        raise ModuleError(f"{handle} cannot be opened ({error.strerror}); check it") from error
    if path.is_dir():
        return Source(handle=handle, directory=str(path.resolve()))
    if path.is_file() and handle.endswith(SUFFIXES):
        progress.step(f"Unpacking {handle}")
        return Source(handle=handle, directory=_unpacked(path, scratch / "archive", progress))
    if path.is_file() and not _is_checkpoint(path):
        raise ModuleError(
            f"{handle} is a file, but not a {', '.join(SUFFIXES)}; give a module's folder or "
            "archive, or for a TF-Slim checkpoint add --from slim-checkpoint"
        )
    if _is_checkpoint(path):
        raise ModuleError(
            f"{handle} is a checkpoint, not a module; for a TF-Slim checkpoint of Inception ResNet "
            f"V2 give {checkpoint_prefix(handle)} with --from slim-checkpoint"
        )
    raise ModuleError(
        f"{handle} does not exist; give an https:// handle, a folder, a .tar.gz, a gs:// path "
        f"or '{STAND_IN}'"
    )


def _is_checkpoint(path: Path) -> bool:
    """Whether `path` is a file of a checkpoint, or the common prefix of its files."""
    prefix = checkpoint_prefix(str(path))
    if any(Path(prefix + end).is_file() for end in (".index", ".meta")):
        return True
    return path.is_file() and prefix.endswith(".ckpt")


def _unpacked(path: Path, directory: Path, progress: Progress) -> str:
    directory.mkdir(parents=True)
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise ModuleError(f"{path} cannot be read ({error.strerror}); check it") from error
    with file:
        extract(file, directory, name=str(path), report=progress.bytes)
    return str(module_folder(directory, str(path)))


def _from_bucket(handle: str, scratch: Path, progress: Progress) -> str:
    progress.step(f"Reading {handle}")
    try:
        if handle.endswith(SUFFIXES):
            directory = scratch / "archive"
            directory.mkdir(parents=True)
            with tempfile.TemporaryFile(dir=scratch) as copy:
                with tf.io.gfile.GFile(handle, "rb") as remote:
                    total = remote.size()
                    while chunk := remote.read(1 << 20):
                        copy.write(chunk)
                        progress.bytes(copy.tell(), total)
                copy.seek(0)
                extract(copy, directory, name=handle, report=progress.bytes)
            return str(module_folder(directory, handle))
        if not tf.io.gfile.exists(f"{handle.rstrip('/')}/saved_model.pb"):
            raise ModuleError(
                f"{handle} has no saved_model.pb; check the path and your access to the bucket"
            )
        return handle.rstrip("/")
    except tf.errors.OpError as error:
        raise ModuleError(
            f"{handle} cannot be read ({one_line(error)}); check the path, your access to the "
            "bucket, and the network"
        ) from error
