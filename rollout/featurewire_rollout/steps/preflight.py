"""Before anything is changed: files, memory and vector space of a version that shall be loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from featurewire.plugin import is_local
from featurewire_rollout.decide.view import Manifest
from featurewire_rollout.errors import PreflightError
from featurewire_rollout.steps.version_files import check_version, size_of

__all__ = ["check_files", "check_memory", "free_memory", "version_directory"]

MEMORY_FACTOR = 4
"""Resident bytes that a version takes while it loads, for each byte of its files: the graph that is
read, and the copies that an engine makes of its weights. An estimate."""


def version_directory(base_path: str, version: int) -> Path | None:
    """Where the files of `version` are; None where the base path is not visible from here.

    Raises `PreflightError` when the base path is there and the version is not.
    """
    base = Path(base_path)
    if not base.is_absolute() or not base.is_dir():
        return None
    # As TensorFlow Serving reads names: 007 is version 7.
    for path in sorted(base.iterdir(), key=lambda path: len(path.name)):
        if path.name.isascii() and path.name.isdigit() and int(path.name) == version:
            return path
    raise PreflightError(
        f"{base_path} has no version {version}; publish it there (write it under another name and "
        "rename it last)"
    )


def check_files(directory: Path) -> tuple[Manifest, str]:
    """What the version says of itself, and what was found about its files, in words.

    Raises `PreflightError` when they are not whole, or not what the manifest says.
    """
    manifest = check_version(directory)
    if manifest is None:
        text = "whole; content not checked, there is no manifest"
    elif "files" not in manifest:
        text = "whole; content not checked, the manifest names no digests"
    else:
        text = "whole and equal to the manifest"
    return Manifest.of(manifest), f"files: {text}"


def check_memory(directory: Path, servers: Sequence[str], free: int | None) -> str:
    """What is known about room for the version on this machine, in words.

    `free`: bytes. Raises `PreflightError` when the replicas that run here have too little.
    """
    here = [server for server in servers if is_local(server)]
    if not here or free is None:
        return "memory of the replicas: not known from here"
    needed = MEMORY_FACTOR * size_of(directory) * len(here)
    text = f"about {_gib(needed)} needed on this machine, {_gib(free)} free"
    if needed > free:
        raise PreflightError(
            f"too little memory to load the version next to the current one: {text}; free some, or "
            "skip this check with --no-memory-check"
        )
    return f"memory: {text}"


def free_memory() -> int | None:
    """Bytes that processes here may still take; None where that cannot be known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
