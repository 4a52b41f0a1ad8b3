"""Thousands of small files with all combinations of header fields."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator, Sequence

from tests.exporter.preprocess.hostile_images import END, chunk, start

Sampling = Sequence[tuple[int, int]]

_ONE = (1, 1)
_SAMPLINGS: list[Sampling] = [
    (_ONE, _ONE, _ONE, _ONE),
    ((2, 1), _ONE, _ONE, (2, 1)),
    ((2, 2), _ONE, _ONE, (2, 2)),
    ((4, 1), _ONE, _ONE, _ONE),
    ((1, 4), _ONE, (1, 2), _ONE),
    ((4, 2), _ONE, _ONE, _ONE),
    ((4, 4), _ONE, _ONE, _ONE),
    (_ONE, (2, 2), (4, 4), _ONE),
    ((3, 1), _ONE, _ONE, (3, 3)),
]
FRAMES = [code for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC)]


def systematic(side: int, size: int) -> Iterator[tuple[str, bytes]]:
    """(name, file), each of at most `side` x `side` pixels and about `size` bytes."""
    yield from _frames(side)
    yield from _scripts(side)
    yield from _markers(side, size)
    yield from _pngs(side)
    yield from _gifs(side)
    yield from _bmps(side)


def _segment(code: int, content: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(content) + 2) + content


def frame(code: int, height: int, width: int, sampling: Sampling, precision: int = 8) -> bytes:
    """A frame header with one component per sampling."""
    parts = [bytes([at + 1, h << 4 | v, 0]) for at, (h, v) in enumerate(sampling)]
    head = struct.pack(">BHHB", precision, height, width, len(sampling))
    return _segment(code, head + b"".join(parts))


def scan(components: Sequence[int], first: int, last: int, bits: int, data: bytes) -> bytes:
    """A scan with its data. All tables have the number 0."""
    named = b"".join(bytes([each, 0]) for each in components)
    return _segment(0xDA, bytes([len(components)]) + named + bytes([first, last, bits])) + data


# One code of one bit in both kinds of table, so there are no coefficients.
TABLES = _segment(0xDB, b"\0" + b"\1" * 64)
TABLES += b"".join(_segment(0xC4, bytes([kind, 1]) + bytes(15) + b"\0") for kind in (0, 0x10))


def _frames(side: int) -> Iterator[tuple[str, bytes]]:
    shapes = [(side, side), (1, min(65500, side * side)), (min(65500, side * side), 1)]
    for code, count, sampling, shape, restarts, precision in itertools.product(
        FRAMES, (1, 2, 3, 4), _SAMPLINGS, shapes, (0, 1), (8, 12)
    ):
        if (precision == 12 and sampling is not _SAMPLINGS[0]) or (restarts and shape[0] == 1):
            continue
        height, width = shape
        if count == 4:  # a pixel counts as 4/3
            height, width = (height * 3 // 4, width) if height > 1 else (1, width * 3 // 4)
        head = b"\xff\xd8" + TABLES + (_segment(0xDD, b"\0\1") if restarts else b"")
        head += frame(code, height, width, sampling[:count], precision)
        progressive = code in (0xC2, 0xC6, 0xCA, 0xCE)
        last = 0 if progressive else 63
        names = list(range(1, count + 1))
        tag = f"JPEG SOF{code - 0xC0} {count} of {sampling[:count]} {shape} {restarts} {precision}"
        yield f"{tag} together", head + scan(names, 0, last, 0, bytes(64)) + b"\xff\xd9"
        apart = b"".join(scan([each], 0, last, 0, bytes(64)) for each in names)
        yield f"{tag} apart", head + apart + b"\xff\xd9"


def _scripts(side: int) -> Iterator[tuple[str, bytes]]:
    """Progressive files with one kind of scan, repeated up to the limit and beyond."""
    for code, count, sampling in itertools.product(FRAMES, (1, 3, 4), _SAMPLINGS[:4]):
        height = side * 3 // 4 if count == 4 else side
        head = b"\xff\xd8" + TABLES + frame(code, height, side, sampling[:count])
        names = list(range(1, count + 1))
        first = scan(names, 0, 0, 0, bytes(64))
        full = b"".join(scan([each], 1, 63, 0, bytes(64)) for each in names)
        for name, more in {
            "DC": scan(names, 0, 0, 0, bytes(64)),
            "one AC": scan([1], 1, 1, 0, b""),
            "all AC": scan([1], 1, 63, 0, b""),
            "AC of one bit": scan([1], 1, 63, 0x10, b""),
            "AC in long runs": scan([count], 1, 63, 0, b"\xe0\x00" * 40),
            "DC of one bit": scan(names, 0, 0, 0x10, b""),
            "a frame": frame(code, height, side, sampling[:count]),
            "another frame": frame(0xCA, height, side, sampling[:count]),
            "a table": TABLES,
            "DNL": _segment(0xDC, struct.pack(">H", height)),
            "DAC": _segment(0xCC, b"\0\1\x10\1"),
        }.items():
            for times in (1, 30 - count, 31, 600):
                tag = f"JPEG script SOF{code - 0xC0} {count} {sampling[:count]} {name} x {times}"
                yield tag, head + first + full + more * times + b"\xff\xd9"


def _markers(side: int, size: int) -> Iterator[tuple[str, bytes]]:
    top = b"\xff\xd8" + TABLES
    framed = frame(0xC0, side, side, _SAMPLINGS[0][:3])
    coded = scan([1, 2, 3], 0, 63, 0, bytes(64))
    for code, length in itertools.product(range(256), (0, 2, 17, 65535)):
        part = bytes([0xFF, code]) + struct.pack(">H", length) + bytes(max(length - 2, 0))
        many = part * max(1, size // len(part))
        for place, file in {
            "first": b"\xff\xd8" + many + TABLES + framed + coded,
            "before the frame": top + many + framed + coded,
            "before the scan": top + framed + many + coded,
            "in the scan": top + framed + coded + many + bytes(9),
            "without a frame": top + many + coded,
        }.items():
            yield f"JPEG marker {code:02X} of {length} {place}", file + b"\xff\xd9"


_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


def _pngs(side: int) -> Iterator[tuple[str, bytes]]:
    channels = (1, 0, 3, 1, 2, 0, 4)
    shapes = [(side, side), (min(side * side, 65535), 1), (1, min(side * side, 65535))]
    for colours, depths in _PNG_DEPTHS.items():
        for bits, interlaced, (width, height), kind in itertools.product(
            depths, (0, 1), shapes, range(6)
        ):
            if bits == 16:  # a pixel counts as two
                height, width = (height // 2, width) if height > 1 else (1, width // 2)
            row = (width * bits * channels[colours] + 7) // 8
            rows = height * (2 if interlaced else 1) + 8
            pixels = (bytes([kind]) + bytes(row)) * rows
            palette = chunk(b"PLTE", bytes(768)) if colours == 3 else b""
            head = start(width, height, bits, colours, interlaced) + palette
            tag = f"PNG {colours} {bits} {interlaced} {width}x{height} filter {kind}"
            for level in (0, 1) if height == 1 else (1,):
                packed = chunk(b"IDAT", zlib.compress(pixels, level))
                yield f"{tag} level {level}", head + packed + END
            yield f"{tag} cut", head + chunk(b"IDAT", zlib.compress(pixels[: row * 2], 1)) + END


def _lzw(codes: Sequence[int], width: int) -> bytes:
    fitting = (code % (1 << width) for code in codes)
    bits = sum(code << (at * width) for at, code in enumerate(fitting))
    data = bits.to_bytes(-(-len(codes) * width // 8), "little")
    blocks = [data[at : at + 255] for at in range(0, len(data), 255)]
    return b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def _gifs(side: int) -> Iterator[tuple[str, bytes]]:
    for size, flags, (width, height), local in itertools.product(
        range(13), (0, 0x40), ((side, side), (1, 1), (side, 1), (1, side)), (0, 0x87)
    ):
        clear = 1 << size
        head = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
        head += b"," + struct.pack("<HHHHB", 0, 0, width, height, flags | local)
        head += bytes(768 if local else 0) + bytes([size])
        for name, codes in {
            "clear codes": [clear] * 4000,
            "zeros": [0] * 4000,
            "an end": [clear + 1],
            "a code ahead": [clear, 0, clear + 2] * 1300,
            "codes unknown": [clear - 1, clear * 2 - 1] * 2000,
        }.items():
            tag = f"GIF {size} {flags:x} {width}x{height} {local} {name}"
            yield tag, head + _lzw(codes, min(size + 1, 12)) + b";"


def _bmps(side: int) -> Iterator[tuple[str, bytes]]:
    for header, bits, compression, height, offset in itertools.product(
        (12, 16, 40, 52, 56, 64, 108, 124),
        (0, 1, 4, 8, 16, 24, 32, 255),
        (0, 1, 2, 3, 4, 5, 6),
        (side, -side, 1 << 31),
        (0, 54, (1 << 32) - 1),
    ):
        fields = b"BM" + struct.pack("<III", 0, 0, offset)
        fields += struct.pack("<IiIHHI", header, side, height & 0xFFFFFFFF, 1, bits, compression)
        whole = fields + bytes(64) + bytes(min(side * side, 1 << 20))
        yield f"BMP {header} {bits} {compression} {height} {offset}", whole
