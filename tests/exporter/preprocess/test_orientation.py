"""EXIF orientation: the network sees the upright picture, however a camera stored it."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from featurewire_exporter.preprocess import PreprocessConfig
from tests.exporter.preprocess.images import (
    AS_STORED,
    CONFIG,
    OK,
    TIFF_TYPES,
    WEBP_CONFIG,
    encode,
    exif,
    photo,
    png_chunk,
    resized,
    served,
    stored_as,
    with_exif,
)

PHOTO = photo()


def pixels(*batch: bytes, config: PreprocessConfig = CONFIG) -> np.ndarray:
    images, status = served(config)(list(batch))
    assert status.tolist() == [OK] * len(batch)
    return images


@pytest.mark.parametrize("order", ["<", ">"])
def test_all_eight_values_in_both_byte_orders_give_the_upright_jpeg(order: str) -> None:
    batch = []
    for value in range(1, 9):
        stored = encode(stored_as(PHOTO, value), quality=98, subsampling=0)
        batch.append(with_exif(stored, exif(value, order)))
        batch.append(with_exif(stored, exif(value, order), after_jfif=False))
    expected = resized(PHOTO, 48, 64)
    for row in pixels(*batch):
        # Two encodings of one picture differ slightly, two pictures strongly.
        assert np.abs(row - expected).mean() < 0.01


@pytest.mark.parametrize("value", range(1, 9))
def test_a_large_jpeg_is_set_upright_as_well(value: int) -> None:
    large = photo(900, 560)
    stored = with_exif(encode(stored_as(large, value), quality=95), exif(value))
    assert np.abs(pixels(stored)[0] - resized(large, 48, 64)).mean() < 0.01


@pytest.mark.parametrize("kind", TIFF_TYPES)
def test_an_orientation_may_be_any_integer_of_2_or_4_bytes(kind: str) -> None:
    stored = encode(stored_as(PHOTO, 6), quality=98, subsampling=0)
    expected = pixels(with_exif(stored, exif(6)))[0]
    for row in pixels(*(with_exif(stored, exif(6, order, kind=kind)) for order in "<>")):
        np.testing.assert_array_equal(row, expected)


def test_all_eight_values_in_png_and_webp() -> None:
    batch = []
    for value in range(1, 9):
        stored = stored_as(PHOTO, value)
        batch.append(encode(stored, "PNG", exif=exif(value)))
        batch.append(encode(stored, "PNG", exif=exif(value, ">")))
        batch.append(encode(stored, "WEBP", lossless=True, exif=exif(value)))
        batch.append(encode(stored, "WEBP", lossless=True, exif=b"Exif\0\0" + exif(value, ">")))
    expected = resized(PHOTO, 61, 97)
    for row in pixels(*batch, config=WEBP_CONFIG):
        np.testing.assert_allclose(row, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lanczos3", "bilinear"])
def test_turned_with_a_crop_and_other_resize_methods(method: str) -> None:
    config = PreprocessConfig(height=48, width=64, resize_method=method, central_crop=0.875)
    upright = encode(PHOTO, "PNG")
    turned = [encode(stored_as(PHOTO, value), "PNG", exif=exif(value)) for value in range(2, 9)]
    first, *others = pixels(upright, *turned, config=config)
    for row in others:
        np.testing.assert_allclose(row, first, atol=1e-5)


@pytest.mark.slow
def test_switched_off_the_stored_picture_is_seen() -> None:
    stored = encode(stored_as(PHOTO, 6))
    rows = pixels(stored, with_exif(stored, exif(6)), config=AS_STORED)
    np.testing.assert_array_equal(rows[0], rows[1])
    turned = pixels(stored, with_exif(stored, exif(6)))
    assert np.abs(turned[0] - turned[1]).mean() > 0.05


def test_what_is_no_orientation_leaves_the_picture_as_it_is() -> None:
    stored = encode(PHOTO)
    good = exif(6)
    at = good.index(struct.pack("<HH", 0x0112, 3))
    blocks = [
        exif(0),
        exif(9),
        exif(65535),
        b"",
        b"II",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"JJ" + good[2:],
        good[:2] + b"+" + good[3:],
        good[:at],
        good[: at + 6],
        good[: at + 2] + b"\x05" + good[at + 3 :],
        exif(9, kind="LONG"),
        exif(-6, kind="SLONG"),
        exif(-6, kind="SSHORT"),
        exif(6 << 16, kind="LONG"),
        exif(6 << 16, ">", kind="LONG"),
        exif(6, before=100),
    ]
    for row in pixels(stored, *(with_exif(stored, block) for block in blocks)):
        np.testing.assert_array_equal(row, pixels(stored)[0])


def test_an_exif_block_is_not_looked_for_behind_the_image() -> None:
    stored, trailer = encode(PHOTO), with_exif(encode(PHOTO), exif(6))
    png = encode(PHOTO, "PNG")
    late = png[:-12] + png_chunk(b"eXIf", exif(6)) + png[-12:]
    rows = pixels(stored, stored + trailer, png, late)
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[2], rows[3])


def test_of_two_exif_blocks_the_first_counts() -> None:
    stored = encode(stored_as(PHOTO, 8))
    once = with_exif(stored, exif(8))
    rows = pixels(once, with_exif(once, exif(3), after_jfif=True), with_exif(stored, exif(3)))
    assert np.abs(rows[1] - rows[2]).max() == 0
    assert np.abs(rows[0] - rows[1]).mean() > 0.02
