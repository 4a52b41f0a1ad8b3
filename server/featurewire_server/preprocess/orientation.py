"""Reads the EXIF orientation from a TIFF block (CIPA DC-008, "Orientation")."""

from __future__ import annotations

from featurewire_server.preprocess.header import padded

UPRIGHT = 1

_TAG = 0x0112
_SHORTS = (3, 8)
"""SHORT and SSHORT."""
_LONGS = (4, 9)
"""LONG and SLONG, which some programs write."""

_ENTRIES = 64
"""A directory is sorted by tag, and few tags come before this one."""


def read_orientation(data: bytes, at: int, length: int) -> int:
    """From 1 to 8; 1 if the block of `length` bytes at `at` is broken or has no orientation."""
    start = padded(data, at, 8)
    if start.startswith(b"II*\0"):
        order = "little"
    elif start.startswith(b"MM\0*"):
        order = "big"
    else:
        return UPRIGHT

    def number(octets: bytes) -> int:
        return int.from_bytes(octets, "little" if order == "little" else "big")

    # Bytes after the block belong to another part of the file.
    offset = min(number(start[4:]), max(length, 0))
    table = padded(data, at + offset, 2 + 12 * _ENTRIES)
    found = UPRIGHT
    for index in range(min(number(table[:2]), (length - offset - 2) // 12, _ENTRIES)):
        entry = table[2 + 12 * index :][:12]
        kind = number(entry[2:4])
        if number(entry[:2]) == _TAG and kind in _SHORTS + _LONGS:
            value = number(entry[8:12] if kind in _LONGS else entry[8:10])
            found = max(found, value if value <= 8 else 0)
    return found


def exchanges_sides(orientation: int) -> bool:
    """Whether the stored rows are the upright image's columns."""
    return orientation >= 5


def upright_steps(orientation: int) -> tuple[int, int]:
    """Steps through rows and columns, 1 or -1, after the sides are exchanged."""
    return (-1 if orientation in (3, 4, 7, 8) else 1), (-1 if orientation in (2, 3, 6, 7) else 1)
