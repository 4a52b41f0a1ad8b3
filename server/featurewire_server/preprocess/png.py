"""PNG: size from its first chunk, orientation from an `eXIf` chunk before the pixels.

Pillow gets only the chunks that the pixels depend on, so texts and colour profiles are never
unpacked. Where Pillow accepts damage that libpng refuses, the checks are here.
"""

from __future__ import annotations

import io
import zlib
from typing import NamedTuple

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from featurewire_server.preprocess.header import (
    CORRUPT,
    Decoded,
    Header,
    InParts,
    RefusedImage,
    big,
    padded,
    rows_of,
)
from featurewire_server.preprocess.orientation import UPRIGHT, read_orientation

MAGIC = b"\x89PNG\r\n\x1a\n"

MAX_CHUNKS = 64
"""Maximum number of chunks before the pixels that are searched for an orientation."""

MAX_STEPS = 4096
"""Maximum number of steps through the chunks; each takes up to `RUN` chunks of equal length."""

RUN = 64

_HEADER_END = len(MAGIC) + 25
_END = b"\0\0\0\0IEND\xaeB`\x82"
_CHANNELS = (1, 1, 3, 1, 2, 1, 4, 1)
"""Numbers per pixel by colour type."""
_PALETTE_TYPE = 3
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits per number, by colour type."""


def read(data: bytes, *, exif: bool) -> Header:
    head = padded(data, 0, 33)
    there = head[12:16] == b"IHDR"
    height, width = (big(head[20:24]), big(head[16:20])) if there else (0, 0)
    return Header(
        height=height,
        width=width,
        decode=lambda _ratio: _decoded(data, height, width),
        orientation=_orientation(data) if exif else UPRIGHT,
        # 16 bits are twice as many bytes to unpack and to unfilter.
        thirds=6 if head[24] == 16 else 3,
    )


def _orientation(data: bytes) -> int:
    at = len(MAGIC)
    for _ in range(MAX_CHUNKS):
        chunk = padded(data, at, 8)
        if chunk[4:] == b"eXIf":
            return read_orientation(data, at + 8, big(chunk[:4]))
        at += 12 + big(chunk[:4])
        if chunk[4:] == b"IDAT" or at >= len(data):
            break
    return UPRIGHT


class _Chunks(NamedTuple):
    """Offsets; 0 and 0 for a part that is missing."""

    palette: int
    after_palette: int
    pixels: int
    after_pixels: int
    packed: int
    """Bytes of the packed pixels."""


def _chunks(data: bytes) -> _Chunks:
    """Raises RefusedImage for a chunk that extends beyond the file's end, for an unknown critical
    chunk, and for more chunks than can be visited."""
    at = _HEADER_END
    kind = b""
    palette = after_palette = pixels = after_pixels = packed = steps = 0
    while steps < MAX_STEPS and at < len(data) and kind != b"IEND":
        steps += 1
        head = _eight(data, at)
        size, kind = big(head[:4]), head[4:]
        stride = size + 12
        count = 1
        while count < RUN and _eight(data, at + count * stride) == head:
            count += 1
        after = at + stride * count
        if kind == b"PLTE" and not palette and not pixels:
            palette, after_palette = at, at + stride
        elif kind == b"IDAT" and (not pixels or after_pixels == at):
            pixels = pixels or at
            after_pixels = after
            packed += count * size
        # A decoder may skip a chunk whose name begins with a small letter.
        elif kind not in (b"PLTE", b"IDAT", b"IEND") and not kind[0] & 0x20:
            raise RefusedImage(CORRUPT)
        at = after
    if kind != b"IEND" or at > len(data):
        raise RefusedImage(CORRUPT)
    return _Chunks(palette, after_palette, pixels, after_pixels, packed)


def _eight(data: bytes, at: int) -> bytes:
    """Eight bytes; after the file's end, its last byte."""
    octets = data[at : at + 8]
    return octets if len(octets) == 8 else octets.ljust(8, data[-1:])


def _decoded(data: bytes, height: int, width: int) -> Decoded:
    """16 bits become 8, and alpha is dropped."""
    chunks = _chunks(data)
    depth, colours, packing, filtering, interlaced = data[24:29]
    bits = depth * _CHANNELS[colours % 8]
    raw = height * (1 + (width * bits + 7) // 8)
    if chunks.packed > raw + raw // 4 + 64 * (height + width) + (1 << 16):
        raise RefusedImage(CORRUPT)
    if depth not in _DEPTHS.get(colours, ()) or packing or filtering or interlaced > 1:
        raise RefusedImage(CORRUPT)
    _check_sums(data, 8, _HEADER_END)
    _check_sums(data, chunks.pixels, chunks.after_pixels)
    # The graph gives the decoder a file without other chunks as it is, with its own last chunk.
    kept = _HEADER_END + sum(chunks[1:4:2]) - sum(chunks[0:4:2]) + len(_END)
    if kept == len(data) and not data.endswith(_END):
        raise RefusedImage(CORRUPT)
    parts = [(0, _HEADER_END), (chunks.pixels, chunks.after_pixels)]
    needed = b"".join([*(data[start:end] for start, end in parts), _END])
    image = PngImageFile(io.BytesIO(needed))
    image.load()
    if colours == _PALETTE_TYPE:
        palette = _palette(data, chunks)
        return InParts(lambda first, last: np.take(palette, rows_of(image, first, last), axis=0))
    return InParts(lambda first, last: _in_colour(rows_of(image, first, last)))


def _in_colour(levels: np.ndarray) -> np.ndarray:
    """uint8 [height, width, 3], of grey or colours, with or without alpha, in Pillow's types."""
    if levels.dtype == bool:
        levels = levels * np.uint8(255)
    elif levels.dtype != np.uint8:
        levels = (levels >> 8).astype(np.uint8)
    levels = levels.reshape(*levels.shape[:2], -1)
    return np.repeat(levels[:, :, :1], 3, axis=2) if levels.shape[2] < 3 else levels[:, :, :3]


def _check_sums(data: bytes, at: int, end: int) -> None:
    view = memoryview(data)
    while at < end:
        size = big(data[at : at + 4])
        after = at + 8 + size
        if zlib.crc32(view[at + 4 : after]) != big(data[after : after + 4]):
            raise RefusedImage(CORRUPT)
        at = after + 4


def _palette(data: bytes, chunks: _Chunks) -> np.ndarray:
    """uint8 [256, 3]; colours that the file does not have are black."""
    size = chunks.after_palette - chunks.palette - 12
    if not 0 < size <= 768 or size % 3:
        raise RefusedImage(CORRUPT)
    _check_sums(data, chunks.palette, chunks.after_palette)
    colours = data[chunks.palette + 8 :][:size].ljust(768, b"\0")
    return np.frombuffer(colours, np.uint8).reshape(256, 3)
