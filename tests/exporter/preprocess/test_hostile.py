"""No small file is expensive, and unusual but intact files are decoded."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.exporter.preprocess.hostile_headers import FRAMES, TABLES, frame, scan
from tests.exporter.preprocess.hostile_images import (
    ANCILLARY,
    COLOUR,
    END,
    chunk,
    component_scans,
    start,
    with_scans,
    zeros,
)
from tests.exporter.preprocess.images import (
    CONFIG,
    CORRUPT,
    JUST_ENOUGH,
    OK,
    TOO_LARGE,
    encode,
    photo,
    resized,
    served,
)

ROOT = Path(__file__).resolve().parents[3]
PHOTO = photo(200, 150)


@pytest.mark.slow
def test_no_file_costs_more_than_a_bounded_time_and_memory() -> None:
    side, size = 1024, 400_000
    command = [sys.executable, "-m", "tests.exporter.preprocess.measure_hostile"]
    command += ["--side", str(side), "--bytes", str(size)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    files = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(files) > 500
    # Several times the highest measurement, and a small part of the cost without the checks:
    # 5 seconds and 2 GiB for 83 bytes.
    assert [file for file in files if file["seconds"] > 4] == []
    assert [file for file in files if file["mebibytes"] > 200] == []


@pytest.mark.parametrize("kind", ANCILLARY, ids=bytes.decode)
def test_a_png_chunk_beyond_the_end_of_the_file_is_corrupt(kind: bytes) -> None:
    pixels = chunk(b"IDAT", zeros(4))
    lies = [chunk(kind, b"a\0b", claims=length) for length in (4, 0x3FFFFFFF, 0x7FFFFFFF)]
    batch = [start(1, 1) + lie + pixels + END for lie in lies]
    batch += [start(1, 1) + pixels + lie + END for lie in lies]
    # A length that covers the rest of the file.
    batch.append(start(1, 1) + pixels + chunk(kind, b"a\0b", claims=3 + 12))
    assert served(CONFIG)([*batch, start(1, 1) + pixels + END])[1].tolist() == [CORRUPT] * 7 + [OK]


def test_what_is_packed_in_a_png_beside_its_pixels_is_never_unpacked() -> None:
    plain = encode(PHOTO, "PNG")
    bomb = zeros(7_000_000)
    batch = [plain]
    for kind, lead in ((b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"a\0\0")):
        for at in (33, len(plain) - 12):
            batch.append(plain[:at] + chunk(kind, lead + bomb) * 20 + plain[at:])
    images, status = served(CONFIG)(batch)
    assert status.tolist() == [OK] * 7
    for row in images:
        np.testing.assert_array_equal(row, images[0])


def test_a_png_of_many_small_chunks_of_pixels_is_the_same_picture() -> None:
    plain = encode(PHOTO, "PNG")
    at = plain.index(b"IDAT") - 4
    packed = plain[at + 8 : -16]
    batch = [plain]
    for sizes in ([4], [100], [8192], [3, 5, 7, 2, 0, 900]):
        parts: list[bytes] = []
        place = 0
        while place < len(packed):
            size = sizes[len(parts) % len(sizes)]
            parts.append(chunk(b"IDAT", packed[place : place + size]))
            place += size
        batch.append(plain[:at] + b"".join(parts) + END)
    images, status = served(CONFIG)(batch)
    assert status.tolist() == [OK] * 5
    for row in images:
        np.testing.assert_array_equal(row, images[0])


def test_a_png_is_decoded_unless_an_unknown_chunk_must_be_known() -> None:
    plain = encode(PHOTO, "PNG")
    may, must = (plain[:33] + chunk(kind, b"12") + plain[33:] for kind in (b"abCD", b"AbCD"))
    assert served(CONFIG)([may, must])[1].tolist() == [OK, CORRUPT]


def test_a_png_with_more_packed_than_its_pixels_can_need_is_corrupt() -> None:
    tail = start(1, 1) + chunk(b"IDAT", zeros(100_000_000)) + END
    # With one bit per pixel, a byte per pixel is eight times the maximum.
    noise = zlib.compress(np.random.default_rng(0).bytes(640 * 640), 0)
    bits = start(640, 640, bits=1, colours=0) + chunk(b"IDAT", noise) + END
    assert served(CONFIG)([tail, bits])[1].tolist() == [CORRUPT, CORRUPT]


# Adam7: first column and row of each pass, and their distances.
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
PASSES.append((0, 1, 1, 2))


@pytest.mark.parametrize("packing", ["stored", "fixed codes", "a flush and a chunk a row"])
@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize("size", [(300, 200), (1, 900), (900, 1)])
def test_a_png_that_is_packed_badly_is_decoded(
    packing: str, interlaced: int, size: tuple[int, int]
) -> None:
    width, height = size
    noise, batch = np.random.default_rng(0), []
    for bits, colours, channels in [(1, 0, 1), (8, 3, 1), (8, 2, 3), (16, 4, 2), (16, 6, 4)]:
        rows = []
        for left, top, across, down in PASSES if interlaced else [(0, 0, 1, 1)]:
            columns = -(-(width - left) // across)
            if columns > 0:
                row = (columns * bits * channels + 7) // 8
                rows += [b"\0" + noise.bytes(row) for _ in range(top, height, down)]
        level, strategy = (0, 0) if packing == "stored" else (6, zlib.Z_FIXED)
        packer = zlib.compressobj(level, strategy=strategy, memLevel=1)
        flush = zlib.Z_FULL_FLUSH if packing.startswith("a flush") else zlib.Z_NO_FLUSH
        parts = [packer.compress(row) + packer.flush(flush) for row in rows] + [packer.flush()]
        if flush == zlib.Z_NO_FLUSH:
            parts = [b"".join(parts)]
        palette = chunk(b"PLTE", bytes(768)) if colours == 3 else b""
        chunks = b"".join(chunk(b"IDAT", part) for part in parts)
        batch.append(start(width, height, bits, colours, interlaced) + palette + chunks + END)
    assert served(CONFIG)(batch)[1].tolist() == [OK] * len(batch)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_of_too_many_scans_for_its_pixels_is_too_large(mode: str) -> None:
    # Four components count for a third more than three.
    size = (150, 150) if mode == "CMYK" else (200, 150)
    picture = encode(photo(*size).convert(mode), progressive=True)
    scans = component_scans(picture)
    batch = [with_scans(picture, -1, times) for times in (0, 32 - scans, 33 - scans, 5000)]
    assert served(JUST_ENOUGH)(batch)[1].tolist() == [OK, OK, TOO_LARGE, TOO_LARGE]
    # A picture far below the limit may have more.
    batch = [with_scans(picture, -1, times) for times in (512 - scans, 513 - scans)]
    assert served(CONFIG)(batch)[1].tolist() == [OK, TOO_LARGE]


def test_a_pixel_counts_by_what_its_decoding_takes() -> None:
    def deep(width: int, height: int) -> bytes:
        pixels = np.zeros((height, width), np.uint16)
        return encode(Image.fromarray(pixels), "PNG")

    def cmyk(width: int, height: int) -> bytes:
        return encode(photo(width, height).convert("CMYK"))

    def seen_through(width: int, height: int, **options: bool) -> bytes:
        picture = photo(width, height).convert("RGBA")
        picture.putalpha(200)
        return encode(picture, "WEBP", **options)

    allowed = [deep(150, 100), cmyk(150, 150), seen_through(150, 150)]
    allowed += [seen_through(150, 150, lossless=True)]
    allowed += [encode(PHOTO, kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP")]
    beyond = [deep(151, 100), cmyk(151, 150), seen_through(151, 150)]
    beyond += [seen_through(151, 150, lossless=True)]
    assert served(JUST_ENOUGH)(allowed)[1].tolist() == [OK] * 9
    assert served(JUST_ENOUGH)(beyond)[1].tolist() == [TOO_LARGE] * 4
    assert served(JUST_ENOUGH)(beyond[1:2])[1].tolist() == [TOO_LARGE]


def test_a_scan_counts_once_for_each_of_its_components() -> None:
    picture = encode(PHOTO, progressive=True)
    first = picture.index(b"\xff\xda\0")
    assert picture[first + 4] == 3
    batch = [with_scans(picture, 0, times) for times in (6, 7)]
    assert component_scans(picture) == 14
    assert served(JUST_ENOUGH)(batch)[1].tolist() == [OK, TOO_LARGE]


def test_scans_of_one_component_each_count_as_well() -> None:
    picture, grey = encode(PHOTO, subsampling=0), encode(PHOTO.convert("L"))
    scan = picture.index(b"\xff\xda\0")
    # With the same tables. Without data, the other two components are grey.
    one = grey[grey.index(b"\xff\xda\0") : -2]
    two, three = (b"\xff\xda\0\x08\x01" + at + b"\x11\0\x3f\0" + bytes(8) for at in (b"\2", b"\3"))
    batch = [picture[:scan] + scans + b"\xff\xd9" for scans in (one + two + three, one + two)]
    batch += [picture[:scan] + one * times + two + three + b"\xff\xd9" for times in (30, 31)]
    assert served(JUST_ENOUGH)(batch)[1].tolist() == [OK, CORRUPT, OK, TOO_LARGE]


# 16x16 pixels of one colour, by cjpeg -arithmetic and cjpeg -arithmetic -progressive.
SEQUENTIAL_ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERX"
    "RTc4UG1RV19iZ2hnPk1xeXBkeFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2Nj"
    "Y2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2P/yQARCAAQABADASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIR"
    "AxEAPwD+L0P7ZP/Z"
)
PROGRESSIVE_ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERX"
    "RTc4UG1RV19iZ2hnPk1xeXBkeFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2Nj"
    "Y2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2P/ygARCAAQABADASIAAhEBAxEB/8wABgAQARD/2gAMAwEAAhADEAAA"
    "AfzKhED/zAAEEAX/2gAIAQEAAQUCwP/MAAQRBf/aAAgBAwEBPwHA/8wABBEF/9oACAECAQE/AcD/zAAEEAX/2gAI"
    "AQEABj8CwP/MAAQQBf/aAAgBAQABPyHA/9oADAMBAAIAAwAAABBU/8wABBEF/9oACAEDAQE/EMD/zAAEEQX/2gAI"
    "AQIBAT8QwP/MAAQQBf/aAAgBAQABPxDA/9k="
)


def test_a_jpeg_with_arithmetic_codes_is_corrupt() -> None:
    files = [SEQUENTIAL_ARITHMETIC, PROGRESSIVE_ARITHMETIC]
    for file in files:
        assert np.allclose(tf.io.decode_jpeg(file, channels=3), COLOUR, atol=8)
    repeated = with_scans(PROGRESSIVE_ARITHMETIC, -1, 3000)
    cut = [file[: len(file) - 4] + b"\xff\xd9" for file in files]
    assert served(CONFIG)([*files, repeated, *cut])[1].tolist() == [CORRUPT] * 5


def test_only_frames_with_huffman_codes_of_8_bits_are_decoded() -> None:
    found = {}
    for code in FRAMES:
        head = b"\xff\xd8" + TABLES + frame(code, 16, 16, [(1, 1)])
        scans = scan([1], 0, 63, 0, bytes(9))
        if code == 0xC2:
            scans = scan([1], 0, 0, 0, bytes(9)) + scan([1], 1, 63, 0, bytes(9))
        batch = [head + scans + b"\xff\xd9"]
        # A second frame, before or after the scan, never changes the result.
        more = frame(0xC0, 16, 16, [(1, 1)])
        batch += [head + more + scans + b"\xff\xd9", head + scans + more + b"\xff\xd9"]
        batch.append(b"\xff\xd8" + TABLES + frame(code, 16, 16, [(1, 1)], 12) + scans + b"\xff\xd9")
        found[code] = served(CONFIG)(batch)[1].tolist()
    sound = [found.pop(code) for code in (0xC0, 0xC1, 0xC2)]
    assert {statuses[0] for statuses in sound} == {OK}
    assert {statuses[1] for statuses in sound} == {CORRUPT}
    assert {statuses[3] for statuses in sound} == {CORRUPT}
    assert set(map(tuple, found.values())) == {(CORRUPT,) * 4}


def test_a_jpeg_whose_height_comes_after_its_scan_is_corrupt() -> None:
    head = b"\xff\xd8" + TABLES + frame(0xC0, 0, 16, [(1, 1)])
    height = b"\xff\xdc\0\x04\0\x10"
    assert served(CONFIG)([head + scan([1], 0, 63, 0, bytes(9)) + height + b"\xff\xd9"])[
        1
    ].tolist() == [CORRUPT]


@pytest.mark.slow
def test_no_header_makes_a_file_cost_more() -> None:
    """A seventh of 23,000 files with combinations of every frame, marker, depth and code size.

    All values of the fields but one occur. The command without `--every` measures all files.
    """
    command = [sys.executable, "-m", "tests.exporter.preprocess.measure_hostile", "--headers"]
    command += ["--side", "256", "--bytes", "5000", "--every", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    files = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(files) > 3_000
    assert [file for file in files if file["seconds"] > 2] == []
    assert [file for file in files if file["mebibytes"] > 100] == []


def test_a_jpeg_may_have_as_many_segments_as_metadata_can_need() -> None:
    picture = encode(PHOTO)
    name = b"http://ns.adobe.com/xmp/extension/\0"
    extended = b"\xff\xe1\xff\xff" + name + bytes(65533 - len(name))
    small = b"\xff\xe2\x00\x10MPF\0" + bytes(10)
    batch = [picture[:2] + extended * 400 + picture[2:], picture[:2] + small * 900 + picture[2:]]
    images, status = served(CONFIG)([picture, *batch])
    assert status.tolist() == [OK] * 3
    np.testing.assert_array_equal(images[1], images[0])
    np.testing.assert_array_equal(images[2], images[0])
    assert served(CONFIG)([picture[:2] + small * 1100 + picture[2:]])[1].tolist() == [CORRUPT]


JPEGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "full colour": {"subsampling": 0, "quality": 95},
    "restarts in rows": {"restart_marker_rows": 1},
    "restarts in blocks": {"restart_marker_blocks": 3},
    "optimized": {"optimize": True},
}


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("size", [(200, 150), (601, 449)])
def test_a_jpeg_cut_short_is_corrupt_though_an_end_was_put_behind(
    kind: str, mode: str, size: tuple[int, int]
) -> None:
    whole = encode(photo(*size).convert(mode), **JPEGS[kind])
    scan = whole.index(b"\xff\xda\0") + 20
    cuts = [scan + (len(whole) - scan) * part // 60 for part in range(1, 60)]
    _, status = served(CONFIG)([whole, *(whole[:cut] + b"\xff\xd9" for cut in cuts)])
    assert status.tolist() == [OK] + [CORRUPT] * len(cuts)


@pytest.mark.parametrize("kind", [*JPEGS, "progressive"])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_sound_jpeg_that_ends_in_grey_is_decoded(kind: str, mode: str) -> None:
    picture = PHOTO.copy()
    for level in (127, 128, 129):
        picture.paste((level,) * 3, (0, 40, 200, 150))
        image = encode(picture.convert(mode), **JPEGS.get(kind, {"progressive": True}))
        trailer = encode(PHOTO)
        assert served(CONFIG)([image, image + b"\0\xff\xd9" + trailer])[1].tolist() == [OK, OK]
    if mode == "CMYK":
        for level in (127, 128):
            flat = Image.new("CMYK", (99, 64), (level,) * 4)
            assert served(CONFIG)([encode(flat)])[1].tolist() == [OK]


def test_a_progressive_jpeg_without_all_its_scans_is_corrupt() -> None:
    whole = encode(PHOTO, progressive=True)
    starts = [at for at in range(len(whole)) if whole.startswith(b"\xff\xda\0", at)]
    batch = [whole[:at] + b"\xff\xd9" for at in starts[1:]]
    assert served(CONFIG)([*batch, whole])[1].tolist() == [CORRUPT] * len(batch) + [OK]
    # If it is truncated inside the last scan, the lower part lacks its last bit of fine detail.
    image, _ = served(CONFIG)([whole])
    late = whole[: starts[-1] + 60] + b"\xff\xd9"
    rows, status = served(CONFIG)([late])
    assert status.tolist() == [OK]
    assert np.abs(rows[0] - image[0]).mean() < 0.01


def test_a_strip_is_resized_like_any_other_picture() -> None:
    for size in ((900, 3), (3, 900), (700, 44), (1, 1)):
        strip = photo(*size)
        images, status = served(CONFIG)([encode(strip, "PNG")])
        assert status.tolist() == [OK]
        np.testing.assert_allclose(images[0], resized(strip, 48, 64), atol=1e-5)
