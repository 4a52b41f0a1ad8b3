"""Image files of all formats: every kind that their headers can express, and damaged ones."""

from __future__ import annotations

import itertools
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.exporter.preprocess.images import (
    TIFF_TYPES,
    encode,
    exif,
    photo,
    png_chunk,
    stored_as,
    with_exif,
)

SIZES = ((97, 61), (200, 150), (31, 33), (1, 1), (640, 90), (7, 400), (430, 330))


def generated(seed: int) -> Iterator[tuple[str, bytes]]:
    """(name, file) of intact files, over and over with other pictures and sizes."""
    for turn in itertools.count(seed):
        picture = photo(*SIZES[turn % len(SIZES)], seed=turn)
        yield from _jpegs(picture, turn)
        yield from _pngs(picture, turn)
        yield from _gifs(picture, turn)
        yield from _bmps(picture)
        yield from _webps(picture, turn)


def _jpegs(picture: Image.Image, turn: int) -> Iterator[tuple[str, bytes]]:
    quality = (30, 75, 90, 96, 100)[turn % 5]
    for progressive, subsampling in itertools.product((False, True), (0, 1, 2)):
        for kind, image in (
            ("jpeg", picture),
            ("jpeg scaled", picture.resize((picture.width * 4 + 1, picture.height * 5))),
        ):
            yield (
                kind,
                encode(image, quality=quality, subsampling=subsampling, progressive=progressive),
            )
    yield "jpeg optimized", encode(picture, optimize=True, restart_marker_blocks=turn % 4)
    for progressive in (False, True):
        yield "jpeg grey", encode(picture.convert("L"), progressive=progressive, quality=quality)
        cmyk = encode(picture.convert("CMYK"), progressive=progressive, quality=quality)
        yield "jpeg cmyk", cmyk
        at = cmyk.index(b"Adobe")
        yield "jpeg ycck", cmyk[: at + 11] + b"\2" + cmyk[at + 12 :]
        yield "jpeg cmyk without adobe", cmyk[: at - 4] + cmyk[at + 12 :]
        large = picture.resize((picture.width * 6 + 1, picture.height * 6))
        for mode in ("L", "CMYK"):
            yield f"jpeg scaled {mode}", encode(large.convert(mode), progressive=progressive)
    yield "jpeg rgb", encode(picture, keep_rgb=True)
    plain = encode(picture)
    kinds = list(itertools.product(range(10), "<>", TIFF_TYPES))
    for orientation, order, kind in random.Random(turn).sample(kinds, 12):
        turned = encode(stored_as(picture, orientation)) if 0 < orientation < 9 else plain
        block = exif(orientation, order, kind=kind, before=turn % 5)
        yield "jpeg exif", with_exif(turned, block, after_jfif=bool(turn % 2))
    at = 4 + int.from_bytes(plain[4:6], "big")
    for inside in (b"\x12" * 7, bytes(60), b"\xff\0" * 4, b"\xff" * 255, b"\xff\xfe\0\0"):
        yield "jpeg stray", plain[:at] + inside * (1 + turn % 3) + plain[at:]
    yield "jpeg comment", encode(picture, comment=b"\xff\xd8\xff\xc0" * 40)
    yield "jpeg without end", plain[:-2]
    for share in (0.3, 0.9):
        yield "jpeg cut", plain[: int(len(plain) * share)] + b"\xff\xd9"
    yield "jpeg ends in grey", encode(_grey_end(picture))


def _grey_end(picture: Image.Image) -> Image.Image:
    levels = np.asarray(picture).copy()
    levels[-17:, -33:] = 128
    return Image.fromarray(levels)


def png(levels: np.ndarray, depth: int, colours: int, *, interlaced: bool, seed: int = 0) -> bytes:
    """A PNG of numbers [height, width, channels], with random filters; the palette is random."""
    chance = np.random.default_rng(seed)
    height, width, _ = levels.shape
    packer = zlib.compressobj(int(chance.integers(1, 10)))
    lines = []
    for part in _passes(levels) if interlaced else [levels]:
        if part.size:
            lines.append(_filtered(part, depth, chance))
    packed = packer.compress(b"".join(lines)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, int(interlaced))
    file = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head)
    if colours == 3:
        count = int(chance.integers(1, 2**depth + 1))
        file += png_chunk(b"PLTE", chance.bytes(3 * count))
        if seed % 2:
            file += png_chunk(b"tRNS", chance.bytes(count))
    elif colours in (0, 2) and seed % 2:
        file += png_chunk(b"tRNS", chance.bytes(2 if colours == 0 else 6))
    file += png_chunk(b"gAMA", struct.pack(">I", 45455)) if seed % 3 == 0 else b""
    step = max(1, len(packed) // int(chance.integers(1, 5)))
    for at in range(0, len(packed), step):
        file += png_chunk(b"IDAT", packed[at : at + step])
    return file + png_chunk(b"IEND", b"")


def _passes(levels: np.ndarray) -> list[np.ndarray]:
    """The seven passes of Adam7."""
    starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    return [levels[top::down, left::right] for top, left, down, right in (*starts, (1, 0, 2, 1))]


def _filtered(levels: np.ndarray, depth: int, chance: np.random.Generator) -> bytes:
    height, _, channels = levels.shape
    if depth == 16:
        rows = levels.astype(">u2").reshape(height, -1).view(np.uint8)
    elif depth == 8:
        rows = levels.astype(np.uint8).reshape(height, -1)
    else:
        shifts = np.arange(depth)[::-1]
        rows = np.packbits((levels.reshape(height, -1, 1) >> shifts & 1).reshape(height, -1), 1)
    step = max(1, depth * channels // 8)
    left = np.pad(rows, [(0, 0), (step, 0)])[:, : rows.shape[1]].astype(int)
    above = np.pad(rows, [(1, 0), (0, 0)])[:-1].astype(int)
    corner = np.pad(above, [(0, 0), (step, 0)])[:, : rows.shape[1]]
    guess = left + above - corner
    distances = np.stack([abs(guess - each) for each in (left, above, corner)])
    nearest = np.choose(distances.argmin(0), (left, above, corner))
    guesses = np.stack([0 * left, left, above, (left + above) // 2, nearest])
    which = chance.integers(0, 5, height)
    coded = (rows - guesses[which, np.arange(height)]).astype(np.uint8)
    return np.column_stack([which.astype(np.uint8), coded]).tobytes()


_PNG_KINDS = [(0, 1), (2, 3), (3, 1), (4, 2), (6, 4)]


def _pngs(picture: Image.Image, turn: int) -> Iterator[tuple[str, bytes]]:
    chance = np.random.default_rng(turn)
    small = np.asarray(picture.resize((min(picture.width, 120), min(picture.height, 90))))
    for colours, channels in _PNG_KINDS:
        for depth in (1, 2, 4, 8, 16):
            if (depth < 8 and colours not in (0, 3)) or (depth == 16 and colours == 3):
                continue
            for interlaced in (False, True):
                levels = np.concatenate([small, small[:, :, :1]], 2)[:, :, :channels].astype(int)
                levels = levels * 257 + chance.integers(0, 2, levels.shape)
                levels >>= 16 - depth
                name = f"png type {colours}"
                yield name, png(levels, depth, colours, interlaced=interlaced, seed=turn)
    yield "png rgb", encode(picture, "PNG")
    orientation = turn % 8 + 1
    yield "png exif", encode(picture, "PNG", exif=exif(orientation, "<>"[turn % 2]))
    yield "png palette", encode(picture.quantize(1 + turn % 256), "PNG", transparency=0)


def _gifs(picture: Image.Image, turn: int) -> Iterator[tuple[str, bytes]]:
    colours = 2 + turn * 7 % 254
    indexed = picture.quantize(colours)
    for interlace in (0, 1):
        yield "gif", encode(indexed, "GIF", interlace=interlace, optimize=False)
        yield "gif", encode(picture.convert("L"), "GIF", interlace=interlace)
        yield (
            "gif transparent",
            encode(
                indexed, "GIF", interlace=interlace, transparency=turn % colours, optimize=False
            ),
        )
    full = encode(picture.quantize(8), "GIF", optimize=False)
    yield "gif with too few colours", full[:10] + bytes([full[10] - 1]) + full[11:25] + full[37:]
    others = [photo(*picture.size, seed=turn + each).quantize(9) for each in (1, 2)]
    moving = encode(indexed, "GIF", save_all=True, append_images=others, comment=b"c" * 700)
    yield "gif animated", moving
    at = 13 + (6 << (moving[10] & 7))
    canvas = struct.pack("<HH", picture.width + 9, picture.height + 5)
    larger = moving[:6] + canvas + moving[10:]
    yield "gif on a larger canvas", larger
    frame = larger.index(b"\x2c\0\0\0\0", at)
    yield "gif at a place", larger[: frame + 1] + b"\5\0\4\0" + larger[frame + 5 :]
    yield "gif beyond its canvas", moving[: frame + 1] + b"\5\0\4\0" + moving[frame + 5 :]


def _bmps(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "RGB", "RGBA"):
        file = encode(picture.convert(mode), "BMP")
        yield "bmp", file
        upside = struct.pack("<i", -picture.height)
        yield "bmp from the top", file[:22] + upside + file[26:]
        yield "bmp with more", file + b"\0\0"
        yield "bmp cut", file[:-1]
    whole = encode(picture.quantize(16), "BMP")
    yield "bmp palette", whole
    start = int.from_bytes(whole[10:14], "little")
    pitch = (picture.width * 4 + 31) // 32 * 4
    rows = np.random.default_rng(1).bytes(pitch * picture.height)
    yield "bmp 4 bits", whole[:28] + b"\4" + whole[29:start] + rows
    yield "bmp rle", whole[:30] + b"\1" + whole[31:]
    yield "bmp 16 bits", whole[:28] + b"\x10" + whole[29:]


def _webps(picture: Image.Image, turn: int) -> Iterator[tuple[str, bytes]]:
    see_through = picture.convert("RGBA")
    see_through.putalpha(picture.convert("L"))
    block = exif(turn % 8 + 1)
    for image in (picture, see_through):
        yield "webp lossless", encode(image, "WEBP", lossless=True, exact=bool(turn % 2))
        yield "webp lossy", encode(image, "WEBP", quality=20 + turn % 80)
        yield "webp exif", encode(image, "WEBP", exif=block)
    others = [photo(*picture.size, seed=turn + 1)]
    yield "webp animated", encode(picture, "WEBP", save_all=True, append_images=others)


def damaged(file: bytes, chance: random.Random) -> bytes:
    """The file with up to 8 bytes changed, and perhaps a part removed, repeated or cut off."""
    data = bytearray(file)
    for _ in range(chance.randrange(9)):
        # Half of the changes are in the header, where they have the most effect.
        limit = len(data) if chance.random() < 0.5 else min(len(data), 700)
        data[chance.randrange(limit)] = chance.choice((0, 1, 255, chance.randrange(256)))
    start, length = chance.randrange(len(data)), chance.randrange(1, 300)
    change = chance.randrange(8)
    if change == 0:
        del data[start : start + length]
    elif change == 1:
        data[start:start] = data[start : start + length]
    elif change == 2:
        del data[start:]
    elif change == 3:
        data[start:] = b"\xff\xd9"
    return bytes(data)
