"""BMP: 1, 4 and 8 bits with a palette, 24 and 32 bits, uncompressed, in either direction."""

from __future__ import annotations

import numpy as np

from featurewire_server.preprocess.header import CORRUPT, Header, RefusedImage, little, padded

_UNCOMPRESSED, _MASKS = 0, 3
_USUAL_MASKS = b"\0\0\xff\0\0\xff\0\0\xff\0\0\0"


def looks_like(data: bytes) -> bool:
    """Two letters are little to go by, so the size of the second header counts too."""
    sizes = (12, 16, 40, 52, 56, 64, 108, 124)
    return data.startswith(b"BM") and little(padded(data, 14, 4)) in sizes


def read(data: bytes) -> Header:
    """The sides of an unsupported kind are 0."""
    head = padded(data, 0, 66)
    bits, compression = little(head[28:30]), little(head[30:34])
    masks = compression == _MASKS and bits == 32 and head[54:] == _USUAL_MASKS
    plain = compression == _UNCOMPRESSED and bits in (1, 4, 8, 24, 32)
    there = little(head[14:18]) >= 40 and (plain or masks)
    width, height = (little(head[18:22]), little(head[22:26])) if there else (0, 0)
    # A negative height says that the rows run from top to bottom.
    upwards = height < 1 << 31
    height = min(height, (1 << 32) - height)

    def decode(_ratio: int) -> np.ndarray:
        rows = _rows(data, little(head[10:14]), height, width, bits)
        if not upwards:
            return _colours(data, rows, width, bits)
        return _colours(data, rows, width, bits)[::-1]

    return Header(height=height, width=width, decode=decode)


def _rows(data: bytes, start: int, height: int, width: int, bits: int) -> np.ndarray:
    """uint8 [height, n]: the bytes of the pixels, as stored."""
    # Rows are filled up to four bytes.
    pitch = (width * bits + 31) // 32 * 4
    if start + pitch * height > len(data):
        raise RefusedImage(CORRUPT)
    rows = np.frombuffer(data, np.uint8, pitch * height, start).reshape(height, pitch)
    return rows[:, : (width * bits + 7) // 8]


def _colours(data: bytes, rows: np.ndarray, width: int, bits: int) -> np.ndarray:
    if bits > 8:
        # Blue, green, red, and perhaps a fourth.
        return rows.reshape(len(rows), width, bits // 8)[:, :, 2::-1]
    start = 14 + little(data[14:18])
    palette = np.frombuffer(padded(data, start, 1024), np.uint8).reshape(256, 4)[:, 2::-1]
    if bits == 8:
        return np.take(palette, rows, axis=0)
    # The leftmost pixel of a byte has its highest bits. Each byte is looked up once, for all of
    # its pixels.
    shifts = np.arange(8 - bits, -1, -bits)
    indices = np.arange(256)[:, np.newaxis] >> shifts & (1 << bits) - 1
    pixels = np.take(palette[indices], rows, axis=0)
    return pixels.reshape(len(rows), -1, 3)[:, :width]
