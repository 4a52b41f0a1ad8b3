"""Check the files of a version and the free memory before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featurewire.manifest import ManifestError, read
from featurewire.manifest.files import changed_file
from featurewire.plugin.files import version_folders
from featurewire.plugin.target import is_local
from featurewire_rollout.decide.view import Manifest
from featurewire_rollout.errors import PreflightError

MEMORY_FACTOR = 4
"""Estimate of the resident bytes per byte of a version's files during its load: the graph, and the
engine's copies of the weights."""


def version_directory(base_path: str, version: int) -> Path | None:
    """The folder of `version`; None if this machine does not see the base path.

    Raises `PreflightError` if the base path exists and the version does not.
    """
    base = Path(base_path)
    if not base.is_absolute() or not base.is_dir():
        return None
    folder = version_folders(base).get(version)
    if folder is None:
        raise PreflightError(
            f"{base_path} has no version {version}; publish it there (write it under another name "
            "and rename it last)"
        )
    return folder


def check_files(directory: Path) -> tuple[Manifest, str]:
    """The version's manifest, and a line about its files.

    Compares every file with its digest in the manifest. Without digests the files are not read: a
    server that cannot load them reports it. Raises `PreflightError`.
    """
    try:
        manifest = read(directory)
        fault = _fault(directory, manifest or {})
    except ManifestError as error:
        manifest, fault = None, f"its manifest {error}"
    except OSError as error:
        raise PreflightError(f"{error.filename or directory}: {error.strerror}") from error
    if fault:
        raise PreflightError(f"{directory} is incomplete: {fault}; copy or export it again")
    text = "equal to the digests in the manifest"
    if manifest is None:
        text = "content not checked, there is no manifest"
    elif "files" not in manifest:
        text = "content not checked, the manifest has no digests"
    return Manifest.of(manifest), f"files: {text}"


def _fault(directory: Path, manifest: Mapping[str, Any]) -> str:
    if not any((directory / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        return "saved_model.pb is missing"
    changed = changed_file(directory, manifest)
    return f"{changed} does not match its digest in the manifest (SHA-256)" if changed else ""


def check_memory(directory: Path, servers: Sequence[str], free: int | None) -> str:
    """One line about memory for the version on this machine.

    `free` is in bytes, None if unknown. Raises `PreflightError` if replicas on this machine have
    too little.
    """
    here = [server for server in servers if is_local(server)]
    if not here or free is None:
        return "memory of the replicas: not known from here"
    needed = MEMORY_FACTOR * _size(directory) * len(here)
    text = f"about {_gib(needed)} needed on this machine, {_gib(free)} free"
    if needed > free:
        raise PreflightError(
            f"too little memory to load the version next to the current one: {text}; free some, or "
            "skip this check with --no-memory-check"
        )
    return f"memory: {text}"


def free_memory() -> int | None:
    """Bytes available to processes on this machine; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
