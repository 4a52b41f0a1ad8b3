"""Downloads modules by address, and keeps them in a cache.

The cache has the layout of tensorflow_hub, so modules that tensorflow_hub has fetched are found: a
module is in a folder below `TFHUB_CACHE_DIR`, named by the SHA-1 of its handle.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from featurewire_exporter.errors import ExportError, ModuleError, one_line
from featurewire_exporter.locks import locked_file
from featurewire_exporter.progress import Progress
from featurewire_exporter.source import kaggle
from featurewire_exporter.source.archive import extract, module_folder

TIMEOUT_SECONDS = 60.0
"""Maximum silence of a server, while connecting or during a transfer."""
_COMPRESSED = "tf-hub-format=compressed"
"""The query that makes a hub answer with an archive instead of a page."""
_CHUNK_BYTES = 1 << 18


def download(handle: str, progress: Progress) -> str:
    """The folder of the module behind the http(s) address `handle`.

    Raises `ModuleError`.
    """
    progress.step(f"Fetching {handle}")
    cache = cache_folder()
    try:
        return _cached(handle, Path(cache), progress)
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
            "export from a folder or .tar.gz, or use 'stand-in'"
        ) from error
    except ValueError as error:
        raise ModuleError(f"{handle} is not a valid URL ({one_line(error)}); check it") from error
    except OSError as error:
        raise ModuleError(
            f"{handle} cannot be stored ({one_line(error)}); check {cache} or set TFHUB_CACHE_DIR"
        ) from error


def cache_folder() -> str:
    """`TFHUB_CACHE_DIR`, or `tfhub_modules` in the temporary folder."""
    return os.environ.get("TFHUB_CACHE_DIR") or str(Path(tempfile.gettempdir(), "tfhub_modules"))


def _cached(handle: str, cache: Path, progress: Progress) -> str:
    cache.mkdir(parents=True, exist_ok=True)
    directory = cache / hashlib.sha1(handle.encode()).hexdigest()
    waiting = f"Waiting for another download of {handle}"
    with locked_file(directory.with_suffix(".exporter"), lambda: progress.step(waiting)):
        if _has_files(directory):
            return str(directory)
        partial = directory.with_suffix(".partial")
        # Only the holder of the lock works here, so this is the leftover of a killed export.
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            found = _fetch(handle, partial, progress)
            if found != partial:
                return str(found)
            _rename(partial, directory)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return str(directory)


def _has_files(directory: Path) -> bool:
    return directory.is_dir() and any(directory.iterdir())


def _rename(partial: Path, directory: Path) -> None:
    try:
        partial.rename(directory)
    except OSError as error:
        # tensorflow_hub ignores the lock, and was faster.
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def _fetch(handle: str, directory: Path, progress: Progress) -> Path:
    """Unpack the archive behind `handle` into `directory`, and return the folder with the module.

    A module that moved to Kaggle is in another folder, because kagglehub has its own cache.
    """
    with _open(handle) as response, tempfile.TemporaryFile(dir=directory) as copy:
        model = kaggle.model_of(response.url)
        if model is not None and not _is_archive(response):
            return kaggle.download(model, handle, progress)
        _receive(response, copy, handle, progress)
        copy.seek(0)
        progress.step("Unpacking it")
        extract(copy, directory, name=handle, report=progress.bytes)
    if not (directory / "saved_model.pb").exists():
        # In this cache, tensorflow_hub loads a module from the top of its folder.
        inside = module_folder(directory, f"the archive that {handle} answers with")
        raise ModuleError(
            f"{handle} answers with an archive that holds its module in the folder "
            f"{inside.relative_to(directory)}; download it and give the .tar.gz itself"
        )
    return directory


def _open(handle: str) -> Any:
    """The answer, after redirects. Raises `HTTPError` for an error of any host but Kaggle's."""
    address = urlsplit(handle)
    query = f"{address.query}&{_COMPRESSED}" if address.query else _COMPRESSED
    request = urllib.request.Request(address._replace(query=query).geturl())
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if kaggle.model_of(error.url) is None:
            raise
        return error


def _is_archive(response: Any) -> bool:
    return response.status == 200 and response.headers.get_content_type() != "text/html"


def _receive(response: Any, copy: IO[bytes], handle: str, progress: Progress) -> None:
    length = response.headers.get("Content-Length")
    total = int(length) if length and length.isdigit() else None
    received = 0
    while chunk := response.read(_CHUNK_BYTES):
        copy.write(chunk)
        received += len(chunk)
        progress.bytes(received, total)
    if total is not None and received < total:
        raise ModuleError(f"{handle} stopped after {received} of {total} bytes; export again")
