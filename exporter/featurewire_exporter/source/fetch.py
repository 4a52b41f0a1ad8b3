"""Where a module comes from: a hub handle, a bucket, a folder, an archive, or nowhere."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import socket
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import tensorflow as tf
from tensorflow_hub import compressed_module_resolver, registry, resolver

from featurewire_exporter.errors import ExportError, ModuleError, one_line
from featurewire_exporter.locks import locked
from featurewire_exporter.progress import Progress
from featurewire_exporter.source.archive import SUFFIXES, extract
from featurewire_exporter.source.slim_checkpoint import checkpoint_prefix, write_slim_module
from featurewire_exporter.source.stand_in import NAME as STAND_IN
from featurewire_exporter.source.stand_in import is_stand_in, write_stand_in

_SHOWN = 3
"""Modules of an archive that an error names."""
TIMEOUT_SECONDS = 60.0
"""How long a server may stay silent while connecting or in the middle of a transfer."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A module, on a file system that TensorFlow reads."""

    handle: str
    """As it was given."""
    directory: str
    """Where `saved_model.pb` is."""

    @property
    def stand_in(self) -> bool:
        """Whether its weights are random, under whatever handle it came."""
        return is_stand_in(self.directory)


def fetch(handle: str, scratch: Path, progress: Progress, *, kind: str = "auto") -> Source:
    """Make `handle` a directory, below `scratch` where it has to be made.

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
        return Source(handle=handle, directory=_download(handle, progress))
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
            f"{handle} is a file but no {', '.join(SUFFIXES)}; give a module's folder or archive, "
            "or for a TF-Slim checkpoint add --from slim-checkpoint"
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
    """Whether it names a checkpoint: a file of one, or what its files' names begin with."""
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
        extract(file, directory, name=str(path), report=_unpacking(progress))
    return str(_top(directory, str(path)))


def _top(directory: Path, archive: str) -> Path:
    """The folder of the module that was unpacked into `directory`: its top, or the only folder
    with a graph. Raises `ModuleError`, which names the archive."""
    if (directory / "saved_model.pb").exists():
        return directory
    found = sorted(graph.parent for graph in directory.rglob("saved_model.pb"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise ModuleError(
            f"{archive} holds no saved_model.pb; give an archive of a module, with its "
            "saved_model.pb at the top or in a folder"
        )
    shown = ", ".join(str(folder.relative_to(directory)) for folder in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise ModuleError(
        f"{archive} holds {len(found)} modules ({shown}{more}); unpack it and give the folder of "
        "one of them"
    )


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
                extract(copy, directory, name=handle, report=_unpacking(progress))
            return str(_top(directory, handle))
        if not tf.io.gfile.exists(f"{handle.rstrip('/')}/saved_model.pb"):
            raise ModuleError(
                f"{handle} holds no saved_model.pb; check the path and your access to the bucket"
            )
        return handle.rstrip("/")
    except tf.errors.OpError as error:
        raise ModuleError(
            f"{handle} cannot be read ({one_line(error)}); check the path, your access to the "
            "bucket, and the network"
        ) from error


class _CheckedResolver(compressed_module_resolver.HttpCompressedFileResolver):
    """tensorflow_hub's resolver, with an extraction that trusts neither server nor archive.

    Handles, redirects, the compressed format, locks and the cache's layout are tensorflow_hub's, so
    that one cache serves both. What it would let through: a transfer that broke off at the end of
    an archive's member, a silent server, absolute paths, and an archive that holds no module; each
    of them would stay in the cache as a module.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def __call__(self, handle: str) -> str:
        cache = resolver.tfhub_cache_dir(use_temp=True)
        name = hashlib.sha1(handle.encode("utf8")).hexdigest()
        directory = resolver.create_local_module_dir(cache, name)
        _drop_dead_lock(directory)
        if Path(f"{directory}.lock").exists():
            self._progress.step(f"Waiting for another download of {handle}")
        return resolver.atomic_download(handle, self._fetch, directory)

    def _fetch(self, handle: str, directory: str) -> None:
        request = urllib.request.Request(self._append_compressed_format_query(handle))
        with (
            urllib.request.urlopen(
                request, timeout=TIMEOUT_SECONDS, context=self._context
            ) as response,
            tempfile.TemporaryFile(dir=directory) as copy,
        ):
            self._receive(response, copy, handle)
            copy.seek(0)
            self._progress.step("Unpacking it")
            extract(copy, Path(directory), name=handle, report=_unpacking(self._progress))
        if not (Path(directory) / "saved_model.pb").exists():
            # tensorflow_hub's cache, which `hub.load` shares, has modules at the top alone.
            inside = _top(Path(directory), f"the archive that {handle} answers with")
            raise ModuleError(
                f"{handle} answers with an archive that holds its module in the folder "
                f"{inside.relative_to(directory)}; download it and give the .tar.gz itself"
            )

    def _receive(self, response: Any, copy: IO[bytes], handle: str) -> None:
        length = response.headers.get("Content-Length")
        total = int(length) if length and length.isdigit() else None
        received = 0
        while chunk := response.read(1 << 18):
            copy.write(chunk)
            received += len(chunk)
            self._progress.bytes(received, total)
        if total is not None and received < total:
            raise ModuleError(f"{handle} broke off after {received} of {total} bytes; export again")


def _drop_dead_lock(directory: str) -> None:
    """Remove what a killed download left: tensorflow_hub would wait twenty minutes for it.

    Its lock file says HOST.PID.TASK; the part that was downloaded is beside it. Between the look
    at a dead lock and its removal another exporter could have removed it and taken the lock
    itself: so only one at a time looks and removes.
    """
    lock = Path(f"{directory}.lock")
    if not lock.exists():
        return
    with locked(lock.parent):
        try:
            host, pid, task = lock.read_text().rsplit(".", 2)
            if host != socket.gethostname() or _lives(int(pid)):
                return
        except (OSError, ValueError):
            return
        lock.unlink(missing_ok=True)
        shutil.rmtree(f"{directory}.{task}.tmp", ignore_errors=True)


def _lives(pid: int) -> bool:
    """Whether another process of that number runs: this one holds no lock yet."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _unpacking(progress: Progress) -> Callable[[int], None]:
    return lambda written: progress.bytes(written, None)


def _download(handle: str, progress: Progress) -> str:
    progress.step(f"Fetching {handle}")
    registry.resolver.add_implementation(checked := _CheckedResolver(progress))
    try:
        return checked(handle)
    except ExportError:
        raise
    except urllib.error.HTTPError as error:
        raise ModuleError(
            f"{handle} answers {error.code} {error.reason}; check the handle, or open it in a "
            "browser"
        ) from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else one_line(error)
        raise ModuleError(
            f"{handle} cannot be reached ({reason or type(error).__name__}); check the network, "
            f"export from a folder or .tar.gz, or use '{STAND_IN}'"
        ) from error
    except ValueError as error:
        raise ModuleError(f"{handle} is not an address ({one_line(error)}); check it") from error
    except (OSError, tf.errors.OpError) as error:
        cache = os.environ.get("TFHUB_CACHE_DIR", "the temporary folder")
        raise ModuleError(
            f"{handle} cannot be stored ({one_line(error)}); check {cache} or set TFHUB_CACHE_DIR"
        ) from error
