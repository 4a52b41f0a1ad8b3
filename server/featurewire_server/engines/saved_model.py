"""Reads the signatures of a SavedModel without its graph, which may take gigabytes.

The messages: https://github.com/tensorflow/tensorflow/tree/master/tensorflow/core/protobuf
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Mapping
from pathlib import Path

from featurewire._tfs.meta_graph_pb2 import SignatureDef

_META_GRAPH = 2
"""Field number in SavedModel."""
_META_INFO, _SIGNATURE = 1, 5
"""Field numbers in MetaGraphDef."""
_TAG = 4
"""Field number in MetaInfoDef."""
_KEY, _VALUE = 1, 2
"""Field numbers of an entry in a map."""


def read_signatures(file: Path, tags: Collection[str]) -> Mapping[str, SignatureDef] | None:
    """The signatures of the meta graph with exactly these tags; None if there is no such graph.

    Raises OSError, and ValueError for a file that is not a SavedModel.
    """
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            for at, end in _fields(data, 0, len(data)).get(_META_GRAPH, ()):
                meta = _fields(data, at, end)
                found = {
                    data[slice(*tag)].decode()
                    for info in meta.get(_META_INFO, ())
                    for tag in _fields(data, *info).get(_TAG, ())
                }
                if found == set(tags):
                    return dict(_signature(data, *entry) for entry in meta.get(_SIGNATURE, ()))
        except Exception as error:  # whatever wrong bytes lead to
            raise ValueError(f"{file} is not a SavedModel") from error
    return None


def _signature(data: mmap.mmap, at: int, end: int) -> tuple[str, SignatureDef]:
    entry = _fields(data, at, end)
    key, value = (data[slice(*entry[number][-1])] for number in (_KEY, _VALUE))
    return key.decode(), SignatureDef.FromString(value)


Places = dict[int, list[tuple[int, int]]]


def _fields(data: mmap.mmap, at: int, end: int) -> Places:
    """Start and end of the strings and messages in the message from `at` to `end`, by number.

    https://protobuf.dev/programming-guides/encoding
    """
    places: Places = {}
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            length, at = _varint(data, at)
            places.setdefault(number, []).append((at, at + length))
            at += length
        else:
            raise ValueError(kind)
    if at != end:
        raise ValueError("a field is longer than its message")
    return places


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """The number at `at`, and the place after it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
