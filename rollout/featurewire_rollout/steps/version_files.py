"""Whether the files of a version are whole, read without TensorFlow.

A SavedModel is a protobuf message; its variables are a "tensor bundle": an index (a LevelDB table)
of where each tensor lies in the data files. What is cut off shows in their lengths, what has
changed in the digests that a manifest names.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from featurewire_rollout.errors import PreflightError
from featurewire_rollout.steps.digests import GRAPH, changed_file, find_manifest

__all__ = ["check_version", "size_of"]

MANIFEST = Path("assets.extra") / "featurewire.json"
WARMUP = Path("assets.extra") / "tf_serving_warmup_requests"
_TABLE_MAGIC = 0xDB4775248B80FB57
_GRAPH: dict[int, Any] = {2: {2: {1: {}}}}
"""SavedModel.meta_graphs, MetaGraphDef.graph_def, GraphDef.node: what is walked into."""


class _Broken(ValueError):
    pass


def size_of(version: Path) -> int:
    """Bytes of all files of a version."""
    return sum(path.stat().st_size for path in version.rglob("*") if path.is_file())


def check_version(version: Path) -> dict[str, Any] | None:
    """The manifest of a version whose files are whole; None where it has no manifest.

    Raises `PreflightError`.
    """
    try:
        if not version.is_dir():
            raise _Broken("there is no such directory")
        manifest = _manifest(version)
        _check_graph(version, manifest)
        _check_variables(version / "variables")
        _check_records(version / WARMUP)
        if (name := changed_file(version, manifest or {})) is not None:
            raise _Broken(f"{name} is not what its manifest says (SHA-256)")
    except _Broken as error:
        raise PreflightError(
            f"{version} is not a whole version: {error}; copy or export it again"
        ) from error
    except OSError as error:
        raise PreflightError(f"{error.filename or version}: {error.strerror}") from error
    return manifest


def _manifest(version: Path) -> dict[str, Any] | None:
    path = version / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_bytes())
    except ValueError as error:
        raise _Broken(f"{MANIFEST} is not JSON ({error})") from error
    if not isinstance(manifest, dict):
        raise _Broken(f"{MANIFEST} is not a JSON object")
    return manifest


def _check_graph(version: Path, manifest: Mapping[str, Any] | None) -> None:
    path = version / GRAPH
    if not path.exists():
        if (version / "saved_model.pbtxt").exists():
            return
        raise _Broken("saved_model.pb is missing")
    if path.stat().st_size == 0:
        raise _Broken("saved_model.pb is empty")
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        try:
            _walk(data, 0, len(data), _GRAPH)
        except (_Broken, IndexError) as error:
            raise _Broken("saved_model.pb is cut off or damaged") from error
        if manifest is not None and find_manifest(data, manifest)[0] < 0:
            raise _Broken(f"{MANIFEST} is not what the version's own graph says")


def _walk(data: mmap.mmap, at: int, end: int, inside: Mapping[int, Any]) -> None:
    """Every field from `at` lies within `end`, and those of the messages named by `inside`."""
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise _Broken("no field")
        if kind == 0:
            _, at = _varint(data, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            length, at = _varint(data, at)
            if at + length > end:
                raise _Broken("a field reaches beyond the end")
            if number in inside:
                _walk(data, at, at + length, inside[number])
            at += length
        else:
            raise _Broken("no wire type")
    if at != end:
        raise _Broken("a field reaches beyond the end")


def _varint(data: mmap.mmap | bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _Broken("no number")


def _check_variables(folder: Path) -> None:
    index = folder / "variables.index"
    if not index.exists():
        if any(folder.glob("variables.data-*")):
            raise _Broken("variables/variables.index is missing")
        return
    try:
        ends, shards = _bundle(index.read_bytes())
    except (IndexError, struct.error, _Broken) as error:
        raise _Broken("variables/variables.index is cut off or damaged") from error
    for shard in range(shards):
        path = folder / f"variables.data-{shard:05}-of-{shards:05}"
        if not path.exists():
            raise _Broken(f"variables/{path.name} is missing")
        needed, there = ends.get(shard, 0), path.stat().st_size
        if there < needed:
            raise _Broken(f"variables/{path.name} has {there} bytes of {needed}")


def _bundle(data: bytes) -> tuple[dict[int, int], int]:
    """(shard to where its last tensor ends, number of shards) of a tensor bundle's index."""
    ends: dict[int, int] = {}
    shards = 1
    for key, value in _table(data):
        entry = _numbers(value)
        if not key:
            shards = entry.get(1, 1)
        else:
            shard = entry.get(3, 0)
            ends[shard] = max(ends.get(shard, 0), entry.get(4, 0) + entry.get(5, 0))
    return ends, shards


def _numbers(data: bytes) -> dict[int, int]:
    """The varint fields of a message."""
    found, at = {}, 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 0:
            found[key >> 3], at = _varint(data, at)
        elif key & 7 == 2:
            length, at = _varint(data, at)
            at += length
        else:
            at += 8 if key & 7 == 1 else 4
    return found


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table."""
    footer = data[-48:]
    if len(footer) < 48 or struct.unpack("<Q", footer[40:])[0] != _TABLE_MAGIC:
        raise _Broken("no table")
    _, at = _varint(footer, 0)
    _, at = _varint(footer, at)
    offset, at = _varint(footer, at)
    size, at = _varint(footer, at)
    for _, handle in _block(data, offset, size):
        start, at = _varint(handle, 0)
        length, at = _varint(handle, at)
        yield from _block(data, start, length)


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    if data[offset + size] != 0:
        raise _Broken("compressed")
    block = data[offset : offset + size]
    restarts = struct.unpack("<I", block[-4:])[0]
    at, end, key = 0, size - 4 - 4 * restarts, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + length]
        at += own + length


def _check_records(path: Path) -> None:
    """A TFRecord file: length (8 bytes), its checksum (4), the record, its checksum (4)."""
    if not path.exists():
        return
    size, at = path.stat().st_size, 0
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(8)
            at += 16 + (struct.unpack("<Q", head)[0] if len(head) == 8 else size)
    if at != size:
        raise _Broken(f"{WARMUP} is cut off")
