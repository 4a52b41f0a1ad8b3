"""Files that are expensive to decode: every kind of part of every format, as often as it fits."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ANCILLARY = (
    b"tEXt zTXt iTXt sPLT pCAL sCAL iCCP gAMA cHRM sRGB sBIT bKGD hIST tRNS pHYs tIME eXIf oFFs "
    b"acTL fcTL fdAT sTER cICP mDCv xxXx"
).split()
SEGMENTS = (0xC4, 0xCC, 0xDB, 0xDD, 0xDC, 0xDE, 0xDF, *range(0xE0, 0xF0), 0xFE, 0xF7, 0xBF)
COLOUR = (9, 120, 200)


def hostile(side: int, size: int) -> Iterator[tuple[str, bytes]]:
    """(name, file), each of at most `side` x `side` pixels and about `size` bytes, one by one."""
    yield from _png(side, size)
    yield from _jpeg(side, size)
    yield from _others(side, size)


def chunk(kind: bytes, content: bytes, *, claims: int | None = None) -> bytes:
    length = len(content) if claims is None else claims
    return (
        struct.pack(">I", length) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    )


def start(width: int, height: int, bits: int = 8, colours: int = 2, interlaced: int = 0) -> bytes:
    fields = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, interlaced)
    return _SIGNATURE + chunk(b"IHDR", fields)


END = chunk(b"IEND", b"")


@functools.cache
def zeros(count: int, *, most: int = 1 << 31) -> bytes:
    """`count` zeros as a zlib stream, truncated to `most` bytes if given."""
    packer = zlib.compressobj(9)
    block, parts, length = bytes(1 << 20), [], 0
    while count > 0 and length < most:
        parts.append(packer.compress(block[:count]))
        count, length = count - len(block), length + len(parts[-1])
    return b"".join([*parts, packer.flush()])


def _png(side: int, size: int) -> Iterator[tuple[str, bytes]]:
    one = chunk(b"IDAT", zeros(4))
    for kind in ANCILLARY:
        for claims in (0x3FFFFFFF, 0x7FFFFFFF, 0xFFFFFFF0):
            lie = chunk(kind, b"a\0", claims=claims)
            yield f"PNG {kind.decode()} claims {claims:#x}", start(1, 1) + lie + one + END
            yield f"PNG {kind.decode()} claims {claims:#x}, late", start(1, 1) + one + lie + END
    for kind, lead in ((b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"a\0\0")):
        bomb = chunk(kind, lead + zeros(7_000_000))
        bombs = bomb * (size // len(bomb))
        yield f"PNG of {kind.decode()} bombs", start(1, 1) + bombs + one + END
        yield f"PNG of {kind.decode()} bombs, late", start(1, 1) + one + bombs + END
    for kind in (b"tEXt", b"sPLT", b"fdAT", b"eXIf"):
        bombs = chunk(kind, b"a\0b") * (size // 15)
        yield f"PNG of small {kind.decode()}", start(1, 1) + bombs + one + END
    for name, bits, colours, pixel in (("rgb", 8, 2, 3), ("rgba 16", 16, 6, 8)):
        for interlaced in (0, 1):
            height = side // 2 if bits == 16 else side
            header = start(side, height, bits, colours, interlaced)
            pixels = zeros(height * (1 + side * pixel) + interlaced * 8 * side)
            tag = f"{name}{' interlaced' * interlaced}"
            yield f"PNG plain {tag}", header + chunk(b"IDAT", pixels) + END
    palette = chunk(b"PLTE", bytes(768))
    header = start(side, side, 1, 3)
    yield "PNG palette", header + palette + chunk(b"IDAT", zeros(side * (1 + side // 8))) + END
    tail = zeros(1 << 40, most=size)
    yield "PNG 1x1 with a tail", start(1, 1) + chunk(b"IDAT", tail) + END
    yield "PNG with a tail", start(side, side) + chunk(b"IDAT", tail) + END
    empty = chunk(b"IDAT", b"")
    yield "PNG of empty IDAT", start(1, 1) + empty * (size // 12) + one + END
    mixed = (empty + chunk(b"IDAT", b"\x78")[:0] + chunk(b"vpAg", b"")) * (size // 24)
    yield "PNG of chunks in turn", start(1, 1) + mixed + one + END
    uneven = b"".join(chunk(b"teXt", bytes(at % 7)) for at in range(min(size // 15, 6000)))
    yield "PNG of uneven chunks", start(1, 1) + uneven + one + END
    # A stream of blocks that contain only a table of codes.
    packer = zlib.compressobj(9)
    blocks = packer.compress(bytes(1000)) + packer.flush(zlib.Z_FULL_FLUSH)
    blocks += b"\0\0\0\xff\xff" * ((size - 1000) // 5)
    yield "PNG of empty blocks", start(side, side) + chunk(b"IDAT", blocks) + END


def _encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_scans(jpeg: bytes, which: int, times: int) -> bytes:
    """A JPEG with one of its scans repeated after the last one."""
    starts = [at for at in range(len(jpeg)) if jpeg.startswith(b"\xff\xda\0", at)]
    ends = [*starts[1:], len(jpeg) - 2]
    scan = jpeg[starts[which] : ends[which]]
    # Tables between two scans belong to the second one.
    scan = scan[: scan.index(b"\xff\xc4")] if b"\xff\xc4" in scan else scan
    return jpeg[:-2] + scan * times + jpeg[-2:]


def _jpeg(side: int, size: int) -> Iterator[tuple[str, bytes]]:
    tiny = _encoded(Image.new("RGB", (16, 16), COLOUR))
    scan = tiny.index(b"\xff\xda")
    for code in SEGMENTS:
        for length in (2, 30, 65535):
            segment = bytes([0xFF, code]) + struct.pack(">H", length) + bytes(length - 2)
            many = segment * (size // len(segment))
            few = segment * min(1000, size // len(segment))
            name = f"JPEG of {code:02X} segments of {length} bytes"
            yield name, tiny[:2] + few + tiny[2:]
            yield f"{name}, before its scan", tiny[:scan] + many + tiny[scan:]
            yield f"{name}, late", tiny[:-2] + many + tiny[-2:]
    yield "JPEG of fill bytes", tiny[:2] + b"\xff" * size + tiny[2:]
    yield "JPEG of stray bytes", tiny[:2] + bytes(size) + tiny[2:]
    plain, grey = (Image.new("RGB", (side, side), colour) for colour in (COLOUR, (128,) * 3))
    yield "JPEG plain", _encoded(plain)
    yield "JPEG grey", _encoded(grey)
    yield "JPEG restarts", _encoded(plain, restart_marker_blocks=1)
    for mode in ("L", "RGB", "CMYK"):
        picture = plain.convert(mode)
        if mode == "CMYK":
            picture = picture.crop((0, 0, side, side * 3 // 4))
        progressive = _encoded(picture, progressive=True, quality=90, subsampling=0)
        scans = component_scans(progressive)
        count = progressive.count(b"\xff\xda\0")
        for which in (1, -1) if side > 2000 else range(count):
            for times in (32 - scans, 33 - scans, 400):
                name = f"JPEG {mode}, scan {which} {times} times more"
                yield name, with_scans(progressive, which, times)
        yield f"JPEG {mode}, first scan alone", _first_scan(progressive)
    tiny = _encoded(Image.new("RGB", (16, 16), COLOUR), progressive=True)
    yield "JPEG of 16x16, 500 scans", with_scans(tiny, -1, 490)
    yield "JPEG of 16x16, all scans", with_scans(tiny, -1, size // 12)
    separate = _separate(_encoded(plain, subsampling=0, quality=50))
    for times in (29, 30, 400):
        yield f"JPEG separate scans, {times} more", with_scans(separate, 2, times)


def component_scans(jpeg: bytes) -> int:
    """Number of scans of a JPEG, counting each once per component."""
    starts = [at for at in range(len(jpeg)) if jpeg.startswith(b"\xff\xda\0", at)]
    return sum(jpeg[at + 4] for at in starts)


def _first_scan(jpeg: bytes) -> bytes:
    second = jpeg.index(b"\xff\xda\0", jpeg.index(b"\xff\xda\0") + 3)
    return jpeg[:second] + jpeg[-2:]


def _separate(jpeg: bytes) -> bytes:
    """The header with three almost empty scans of one component each."""
    scan = jpeg.index(b"\xff\xda\0")
    parts = b"".join(
        b"\xff\xda\0\x08\x01" + bytes([at, 0x11 if at > 1 else 0, 0, 63, 0]) + b"\0" * 8
        for at in (1, 2, 3)
    )
    return jpeg[:scan] + parts + jpeg[-2:]


def _others(side: int, size: int) -> Iterator[tuple[str, bytes]]:
    flat = Image.new("P", (side, side))
    tiny = _encoded(Image.new("P", (1, 1)), "GIF")
    for interlace in (0, 1):
        yield f"GIF plain{' interlaced' * interlace}", _encoded(flat, "GIF", interlace=interlace)
    yield "GIF of 1 pixel on a canvas", tiny[:6] + struct.pack("<HH", side, side) + tiny[10:]
    head = 13 + (3 << ((tiny[10] & 7) + 1)) * (tiny[10] >> 7)
    for kind in (b"\xfe", b"\xf9", b"\xff", b"\x01"):
        for content in (b"\1a", b"\xff" + bytes(255)):
            blocks = b"!" + kind + content * (size // len(content)) + b"\0"
            many = (b"!" + kind + content + b"\0") * (size // (len(content) + 3))
            name = f"GIF of {kind.hex()} blocks of {content[0]}"
            yield f"{name} in one extension", tiny[:head] + blocks + tiny[head:]
            yield f"{name} each in its own", tiny[:head] + many + tiny[head:]
    frame = tiny[head:-1]
    yield "GIF of many frames", tiny[:-1] + frame * (size // len(frame)) + tiny[-1:]
    yield "BMP 1 bit", _encoded(Image.new("1", (side, side)), "BMP")
    fits = int((size / 1.1) ** 0.5)
    yield "BMP 8 bits", _encoded(Image.new("P", (min(fits, side),) * 2), "BMP")
    yield "BMP 24 bits", _encoded(Image.new("RGB", (min(int(fits / 1.8), side),) * 2), "BMP")
    plain = Image.new("RGB", (min(side, 8192),) * 2, COLOUR)
    yield "WebP lossy", _encoded(plain, "WEBP", quality=0, method=0)
    yield "WebP lossless", _encoded(plain, "WEBP", lossless=True, quality=0, method=0)
    seen_through = plain.crop((0, 0, plain.width, plain.height * 3 // 4)).convert("RGBA")
    seen_through.putalpha(7)
    whole = _encoded(seen_through, "WEBP", quality=0, method=0)
    yield "WebP alpha", whole
    for kind in (b"EXIF", b"XMP ", b"ICCP", b"ANMF", b"abcd"):
        chunks = whole + (kind + b"\0\0\0\0") * (size // 8)
        chunks = chunks[:4] + struct.pack("<I", len(chunks) - 8) + chunks[8:]
        yield f"WebP of {kind.decode()} chunks", chunks
    long = min(65535, side * side)
    for width, height in ((long, 1), (1, long), (long, max(side * side // long, 1))):
        thin = Image.new("RGB", (width, height), COLOUR)
        size_of = f"{width}x{height}"
        yield f"PNG {size_of}", _encoded(thin, "PNG")
        if width <= 65500 and height <= 65500:
            yield f"JPEG {size_of}", _encoded(thin, progressive=True)
        yield f"GIF {size_of}", _encoded(thin.convert("P"), "GIF")
        yield f"BMP {size_of}", _encoded(thin.convert("1"), "BMP")
