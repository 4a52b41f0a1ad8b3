"""Every kind of file gives the same pixels as another decoder."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.exporter.preprocess.images import (
    CONFIG,
    CORRUPT,
    OK,
    WEBP_CONFIG,
    encode,
    gif_claiming,
    photo,
    resized,
    served,
)

# The size in WEBP_CONFIG, so that decoded pixels are not resized.
PHOTO = photo()


def pixels(image: bytes) -> np.ndarray:
    """uint8 [61, 97, 3], through the served graph."""
    images, status = served(WEBP_CONFIG)([image])
    assert status.tolist() == [OK]
    return np.rint(images[0] * 255).astype(np.uint8)


def pillow(image: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


JPEGS = {
    "baseline": encode(PHOTO),
    "progressive": encode(PHOTO, progressive=True),
    "optimized": encode(PHOTO, optimize=True),
    "full colour": encode(PHOTO, quality=95, subsampling=0),
    "halved colour": encode(PHOTO, quality=95, subsampling=1),
    "restart markers": encode(PHOTO, restart_marker_blocks=2),
    "grey": encode(PHOTO.convert("L")),
    "progressive grey": encode(PHOTO.convert("L"), progressive=True),
    "CMYK": encode(PHOTO.convert("CMYK"), quality=95),
    "comment and profile": encode(PHOTO, comment=b"\xff\xc0" * 40, icc_profile=b"\xff\xc2" * 9000),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_jpeg(kind: str) -> None:
    image = JPEGS[kind]
    difference = np.abs(pixels(image).astype(int) - pillow(image))
    # TensorFlow's own decode rounds differently, and upsamples colour differently.
    assert difference.mean() < 2
    if kind != "CMYK":
        np.testing.assert_array_equal(pixels(image), tf.io.decode_jpeg(image, channels=3))


BETWEEN_SEGMENTS = {
    "7 stray bytes": b"\x12" * 7,
    "60 stray bytes": b"\0" * 60,
    "stray bytes with stuffed ones": b"\xff\0" * 4,
    "fill bytes": b"\xff" * 7,
    "a comment of length 0": b"\xff\xfe\0\0",
    "a comment of length 1 and a stray byte": b"\xff\xfe\0\1\x12",
}


@pytest.mark.parametrize("kind", BETWEEN_SEGMENTS)
@pytest.mark.parametrize("segments", [1, 255])
def test_jpeg_with_bytes_between_segments_as_libjpeg_reads_them(kind: str, segments: int) -> None:
    jpeg = JPEGS["baseline"]
    inside = (BETWEEN_SEGMENTS[kind] + b"\xff\xfe\0\3x") * segments
    at = 4 + int.from_bytes(jpeg[4:6], "big")
    image = jpeg[:at] + inside + jpeg[at:]
    np.testing.assert_array_equal(pixels(image), tf.io.decode_jpeg(image, channels=3))
    np.testing.assert_array_equal(pixels(image), pixels(jpeg))


def test_jpeg_with_cmyk_in_adobes_other_colour_space() -> None:
    changed = bytearray(encode(PHOTO.convert("CMYK"), quality=95))
    at = changed.index(b"Adobe")
    assert changed[at + 11] == 0
    changed[at + 11] = 2  # YCCK
    image = bytes(changed)
    assert np.abs(pixels(image).astype(int) - pillow(image)).mean() < 2


def without_adobe(image: bytes) -> bytes:
    """A CMYK JPEG without Adobe's segment, which marks it as inverted."""
    at = image.index(b"\xff\xee\0\x0eAdobe")
    return image[:at] + image[at + 16 :]


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(97, 61), (640, 480)])
def test_cmyk_without_adobes_segment_is_inverted_too(
    size: tuple[int, int], progressive: bool
) -> None:
    marked = encode(photo(*size).convert("CMYK"), quality=95, progressive=progressive)
    bare = without_adobe(marked)
    named = bare[:2] + b"\xff\xee\0\x0cAdobe\0\x64\0\0\0" + bare[2:]  # too short to be valid
    grey = without_adobe(encode(Image.new("CMYK", size, (128,) * 4)))
    images, status = served(CONFIG)([marked, bare, named, grey])

    assert status.tolist() == [OK] * 4
    np.testing.assert_array_equal(images[1], images[0])
    np.testing.assert_array_equal(images[2], images[0])
    cut = bare[: len(bare) // 2] + b"\xff\xd9"
    assert served(CONFIG)([cut])[1].tolist() == [CORRUPT]
    if size == (97, 61):
        # Pillow and browsers treat every CMYK JPEG as inverted.
        assert np.abs(pixels(bare).astype(int) - pillow(bare)).mean() < 2


PNGS = {
    "true colour": PHOTO,
    "with alpha": PHOTO.convert("RGBA"),
    "grey": PHOTO.convert("L"),
    "grey with alpha": PHOTO.convert("LA"),
    "one bit": PHOTO.convert("1"),
    "palette of 2": PHOTO.quantize(2),
    "palette of 4": PHOTO.quantize(4),
    "palette of 16": PHOTO.quantize(16),
    "palette of 256": PHOTO.quantize(256),
}


@pytest.mark.parametrize("kind", PNGS)
def test_png(kind: str) -> None:
    image = encode(PNGS[kind], "PNG")
    np.testing.assert_array_equal(pixels(image), pillow(image))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_palette_of_few_bits(bits: int) -> None:
    image = encode(PHOTO.quantize(2**bits), "PNG", bits=bits)
    assert image[24] == bits
    np.testing.assert_array_equal(pixels(image), pillow(image))


def test_png_with_transparent_colour_keeps_it() -> None:
    image = encode(PHOTO.quantize(16), "PNG", transparency=3)
    np.testing.assert_array_equal(pixels(image), np.asarray(PHOTO.quantize(16).convert("RGB")))


def test_alpha_is_dropped_not_blended() -> None:
    see_through = PHOTO.convert("RGBA")
    see_through.putalpha(7)
    np.testing.assert_array_equal(pixels(encode(see_through, "PNG")), np.asarray(PHOTO))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bits(channels: int) -> None:
    deep = np.random.default_rng(1).integers(0, 2**16, (61, 97, channels), dtype=np.uint16)
    expected = deep[:, :, :3] if channels > 2 else np.repeat(deep[:, :, :1], 3, 2)
    got = pixels(tf.io.encode_png(deep).numpy())
    assert np.abs(got - expected / 257).max() <= 1


def test_gif() -> None:
    for image in (PHOTO.quantize(256), PHOTO.quantize(7), PHOTO.convert("L"), PHOTO.convert("1")):
        for interlace in (0, 1):
            file = encode(image, "GIF", interlace=interlace)
            np.testing.assert_array_equal(pixels(file), pillow(file))


def test_gif_with_comments_and_applications_before_its_frame() -> None:
    file = encode(PHOTO.quantize(16), "GIF", comment=b"x" * 3000, loop=3, duration=10)
    assert file.index(b"NETSCAPE") < file.rindex(b"\x2c")
    np.testing.assert_array_equal(pixels(file), pillow(file))


def test_a_gif_frame_smaller_than_its_canvas_has_its_place() -> None:
    file = bytearray(gif_claiming(194, 122))
    colours = 3 << ((file[10] & 7) + 1)
    at = file.index(b"\x2c", 13 + colours)
    file[at + 1 : at + 5] = bytes([40, 0, 30, 0])
    canvas = np.zeros((122, 194, 3), np.uint8)
    canvas[30:91, 40:137] = np.asarray(PHOTO.quantize(16).convert("RGB"))
    images, status = served(WEBP_CONFIG)([bytes(file)])
    assert status.tolist() == [OK]
    np.testing.assert_allclose(images[0], resized(canvas, 61, 97), atol=1e-5)


BMPS = {
    "24 bits": PHOTO,
    "32 bits": PHOTO.convert("RGBA"),
    "palette": PHOTO.quantize(200),
    "grey": PHOTO.convert("L"),
    "one bit": PHOTO.convert("1"),
}


@pytest.mark.parametrize("kind", BMPS)
def test_bmp(kind: str) -> None:
    image = encode(BMPS[kind], "BMP")
    np.testing.assert_array_equal(pixels(image), pillow(image))


def test_bmp_of_4_bits() -> None:
    indices = PHOTO.quantize(16)
    whole = encode(indices, "BMP")
    start = int.from_bytes(whole[10:14], "little")
    values = np.pad(np.asarray(indices)[::-1], [(0, 0), (0, 7)])
    rows = (values[:, 0::2] << 4 | values[:, 1::2])[:, :52]
    head = bytearray(whole[:start])
    head[28] = 4
    np.testing.assert_array_equal(pixels(bytes(head) + rows.tobytes()), pillow(whole))


def test_bmp_from_top_to_bottom() -> None:
    image = bytearray(encode(PHOTO, "BMP"))
    image[22:26] = (-61).to_bytes(4, "little", signed=True)
    np.testing.assert_array_equal(pixels(bytes(image)), np.asarray(PHOTO)[::-1])


def test_bmp_with_the_usual_masks_and_trailing_bytes() -> None:
    plain = encode(PHOTO.convert("RGBA"), "BMP")
    masked = bytearray(plain[:54] + bytes.fromhex("0000ff0000ff0000ff000000") + plain[54:])
    masked[10], masked[30] = masked[10] + 12, 3
    for image in (bytes(masked), plain + b"\0\0"):
        np.testing.assert_array_equal(pixels(image), np.asarray(PHOTO))


def test_bmp_kinds_that_do_not_decode_are_corrupt() -> None:
    compressed = bytearray(encode(PHOTO.quantize(16), "BMP"))
    compressed[30] = 1
    deep = bytearray(encode(PHOTO, "BMP"))
    deep[28] = 16
    assert served(WEBP_CONFIG)([bytes(compressed), bytes(deep)])[1].tolist() == [CORRUPT, CORRUPT]


def test_webp() -> None:
    see_through = PHOTO.convert("RGBA")
    see_through.putalpha(200)
    for image in (PHOTO, see_through):
        for options in ({"lossless": True, "exact": True}, {"quality": 80}):
            file = encode(image, "WEBP", **options)
            np.testing.assert_array_equal(pixels(file), pillow(file))
    others = [photo(seed=2), photo(seed=3)]
    animated = encode(PHOTO, "WEBP", save_all=True, append_images=others)
    assert served(WEBP_CONFIG)([animated])[1].tolist() == [CORRUPT]


def test_every_format_is_resized_alike() -> None:
    batch = [encode(PHOTO, "PNG"), encode(PHOTO.quantize(256), "GIF"), encode(PHOTO, "BMP")]
    images, _ = served(CONFIG)(batch)
    for file, row in zip(batch, images, strict=True):
        np.testing.assert_allclose(row, resized(pillow(file), 48, 64), atol=1e-5)
