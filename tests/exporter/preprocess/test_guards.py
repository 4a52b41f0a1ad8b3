"""Files that are refused by their header, before any pixel is decoded."""

from __future__ import annotations

import resource

import numpy as np
import pytest

from tests.exporter.preprocess.images import (
    CONFIG,
    CORRUPT,
    JUST_ENOUGH,
    OK,
    TOO_LARGE,
    bmp_claiming,
    encode,
    exif,
    gif_claiming,
    jpeg_claiming,
    photo,
    png_chunk,
    png_claiming,
    served,
    with_exif,
)

CLAIMS = {
    "png": png_claiming,
    "jpeg": jpeg_claiming,
    "gif": gif_claiming,
    "bmp": bmp_claiming,
}


@pytest.mark.parametrize("kind", CLAIMS)
def test_a_header_that_claims_too_many_pixels_is_too_large(kind: str) -> None:
    claim = CLAIMS[kind]
    batch = [claim(60_000, 60_000), claim(9_000, 8_000), claim(1_200, 65_000)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert served(CONFIG)(batch)[1].tolist() == [TOO_LARGE] * 3
    # 60000 x 60000 pixels would take 10 GB; the limit here is in kilobytes.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize("kind", CLAIMS)
def test_a_side_of_nothing_is_corrupt(kind: str) -> None:
    batch = [CLAIMS[kind](0, 61), CLAIMS[kind](97, 0), CLAIMS[kind](0, 0)]
    assert served(CONFIG)(batch)[1].tolist() == [CORRUPT] * 3


def test_sides_whose_product_overflows_are_too_large() -> None:
    batch = [png_claiming(2**32 - 1, 2**32 - 1), png_claiming(2**31, 2**31), png_claiming(1, 2**31)]
    assert served(CONFIG)(batch)[1].tolist() == [TOO_LARGE] * 3


def test_a_thin_image_is_too_large_when_longer_than_any_jpeg_can_be() -> None:
    assert served(CONFIG)([bmp_claiming(65_536, 1)])[1].tolist() == [TOO_LARGE]
    thin = encode(photo(65_000, 1), "PNG")
    assert served(CONFIG)([thin])[1].tolist() == [OK]


def test_a_bmp_from_top_to_bottom_is_measured_by_its_absolute_height() -> None:
    batch = [bmp_claiming(60_000, -60_000), bmp_claiming(97, -61), bmp_claiming(97, -(2**31))]
    assert served(CONFIG)(batch)[1].tolist() == [TOO_LARGE, OK, TOO_LARGE]


def test_limits_are_inclusive() -> None:
    limit = JUST_ENOUGH.max_image_bytes
    kinds = ("JPEG", "PNG", "GIF", "BMP")
    batch = [encode(photo(200, 150), kind) for kind in kinds]
    # Trailing bytes are not part of the image, but they count because they are sent.
    padded = [image.ljust(limit, b"\0") for image in batch]
    assert served(JUST_ENOUGH)(batch + padded)[1].tolist() == [OK] * 8
    larger = [encode(photo(4286, 7), kind) for kind in kinds]
    assert max(len(image) for image in larger) < limit
    assert served(JUST_ENOUGH)(larger)[1].tolist() == [TOO_LARGE] * 4
    longer = [image + b"\0" for image in padded]
    assert served(JUST_ENOUGH)(longer)[1].tolist() == [TOO_LARGE] * 4


def test_the_thumbnail_inside_a_jpeg_is_not_what_is_measured() -> None:
    thumbnail = jpeg_claiming(60_000, 60_000)[:4000]
    image = with_exif(encode(photo()), exif(1) + thumbnail)
    images, status = served(CONFIG)([image, encode(photo())])
    assert status.tolist() == [OK, OK]
    np.testing.assert_array_equal(images[0], images[1])


def test_a_jpeg_cannot_hide_its_size_behind_stray_bytes() -> None:
    good = encode(photo())
    # libjpeg skips them, and so does the check.
    for stray in (b"\0" * 30, b"\xff\xff\xff", b"\xff\0\xc0\xff\0"):
        image = good[:20] + stray + good[20:]
        bomb = jpeg_claiming(60_000, 60_000)
        bomb = bomb[:20] + stray + bomb[20:]
        assert served(CONFIG)([image, bomb])[1].tolist() == [OK, TOO_LARGE]
    small, large = jpeg_claiming(8, 8), jpeg_claiming(60_000, 60_000)
    at, end = (small.index(marker) for marker in (b"\xff\xc0", b"\xff\xc4"))
    # With two frame headers, the check must not rely on one and the decoder on the other.
    both = large[:at] + small[at:end] + large[at:]
    assert served(CONFIG)([both])[1][0] in (CORRUPT, TOO_LARGE)


def test_only_the_first_frame_of_a_gif_is_looked_at() -> None:
    frames = [photo(97, 61, seed=seed).quantize(32) for seed in range(30)]
    first = encode(frames[0], "GIF")
    all_of_them = encode(frames[0], "GIF", save_all=True, append_images=frames[1:], loop=0)
    assert len(all_of_them) > 10 * len(first)
    cut = all_of_them[: len(all_of_them) // 2]
    spoilt = all_of_them[: len(all_of_them) // 2] + b"\xff" * 1000
    images, status = served(CONFIG)([first, all_of_them, cut, spoilt])
    assert status.tolist() == [OK] * 4
    for row in images[1:]:
        np.testing.assert_array_equal(row, images[0])


def test_a_gif_frame_beyond_its_canvas_is_corrupt() -> None:
    image = encode(photo().quantize(16), "GIF")
    assert served(CONFIG)([image, gif_claiming(96, 61)])[1].tolist() == [OK, CORRUPT]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
def test_an_image_that_breaks_off_is_corrupt(kind: str) -> None:
    image = encode(photo(), kind)
    ends = [len(image) * part // 20 for part in range(1, 19)]
    _, status = served(CONFIG)([image[:end] for end in ends])
    assert status.tolist() == [CORRUPT] * len(ends)


@pytest.mark.parametrize("size", [(100, 75), (256, 192), (512, 384), (1600, 1200)])
def test_a_jpeg_that_breaks_off_is_corrupt_at_every_scale(size: tuple[int, int]) -> None:
    whole = [encode(photo(*size), quality=80, progressive=progressive) for progressive in (0, 1)]
    broken = [image[: len(image) * part // 10] for image in whole for part in (3, 6, 9)]
    assert served(CONFIG)(whole + broken)[1].tolist() == [OK] * 2 + [CORRUPT] * 6


def test_a_png_with_endless_chunks_costs_a_bounded_walk() -> None:
    start = encode(photo(), "PNG")
    chunks = b"".join(png_chunk(b"tEXt", b"a\0b") for _ in range(5000))
    images, status = served(CONFIG)([start, start[:33] + chunks + start[33:]])
    assert status.tolist() == [OK, OK]
    np.testing.assert_array_equal(images[0], images[1])
