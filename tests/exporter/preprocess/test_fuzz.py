"""Random bytes give a status per row, never an error, and do not affect other rows."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurewire_exporter.preprocess import STATUS
from tests.exporter.preprocess.images import (
    OK,
    WEBP_CONFIG,
    encode,
    exif,
    photo,
    png_claiming,
    served,
    stored_as,
    with_exif,
)

PHOTO = photo(80, 60)
GOOD = encode(PHOTO)
OTHERS = [photo(80, 60, seed=seed).quantize(8) for seed in (2, 3)]

FILES = [
    with_exif(encode(stored_as(PHOTO, 6)), exif(6, ">")),
    encode(photo(400, 300), progressive=True),
    encode(PHOTO.convert("CMYK")),
    encode(PHOTO, "PNG", exif=exif(3)),
    encode(PHOTO.quantize(9), "PNG"),
    encode(PHOTO.quantize(8), "GIF", save_all=True, append_images=OTHERS, comment=b"c" * 700),
    encode(PHOTO, "BMP"),
    encode(PHOTO.quantize(99), "BMP"),
    encode(PHOTO, "WEBP", exif=exif(8)),
    encode(PHOTO, "WEBP", lossless=True),
    png_claiming(60_000, 60_000),
]
MAGIC = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF\x40\0\0\0WEBPVP8 "]

ANYTHING = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A real file with a few bytes changed, removed or repeated."""
    data = bytearray(draw(st.sampled_from(FILES)))
    # Make half of the changes in the header, where they have the most effect.
    near, anywhere = st.integers(0, min(len(data), 700) - 1), st.integers(0, len(data) - 1)
    for at, value in draw(st.lists(st.tuples(near | anywhere, st.integers(0, 255)), max_size=8)):
        data[at] = value
    start, length = draw(anywhere), draw(st.integers(0, 300))
    change = draw(st.sampled_from(["keep", "keep", "drop", "repeat", "cut"]))
    if change == "drop":
        del data[start : start + length]
    elif change == "repeat":
        data[start:start] = data[start : start + length]
    elif change == "cut":
        del data[start:]
    return bytes(data)


random_bytes = st.builds(bytes.__add__, st.sampled_from(MAGIC), st.binary(max_size=400))


def check(batch: list[bytes]) -> None:
    expected, _ = served(WEBP_CONFIG)([GOOD])
    images, status = served(WEBP_CONFIG)([*batch, GOOD])
    assert images.shape == (len(batch) + 1, 61, 97, 3)
    assert set(status.tolist()) <= set(STATUS)
    assert status[-1] == OK
    np.testing.assert_array_equal(images[-1], expected[0])
    assert np.isfinite(images).all()
    assert images.min() >= 0
    assert images.max() <= 1
    assert not images[status != OK].any()


@ANYTHING
@given(st.lists(mutated(), min_size=1, max_size=8))
def test_files_with_damage(batch: list[bytes]) -> None:
    check(batch)


@ANYTHING
@given(st.lists(random_bytes | st.binary(max_size=64), max_size=8))
def test_noise_behind_a_magic_number(batch: list[bytes]) -> None:
    check(batch)
