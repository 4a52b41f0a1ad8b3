"""Resizing: the same as `tf.image.resize`, and almost the same from a scaled decode."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from featurewire_exporter.preprocess import RESIZE_METHODS, PreprocessConfig
from tests.exporter.preprocess.images import AS_STORED, CONFIG, encode, photo, resized, served

METHODS = [
    method if method == "bilinear" else pytest.param(method, marks=pytest.mark.slow)
    for method in RESIZE_METHODS
]
"""Each has its own graph, which takes seconds to build."""
SIZES = [(97, 61), (61, 97), (30, 20), (64, 48), (640, 7), (1, 1), (300, 300)]


@pytest.mark.parametrize(
    ("method", "antialias"),
    [
        ("bilinear", True),
        pytest.param("bilinear", False, marks=pytest.mark.slow),
        *(
            pytest.param(method, antialias, marks=pytest.mark.slow)
            for method, antialias in itertools.product(RESIZE_METHODS, [True, False])
            if method != "bilinear"
        ),
    ],
)
def test_equal_to_tensorflows_own_resize(method: str, antialias: bool) -> None:
    config = replace(CONFIG if antialias else AS_STORED, resize_method=method)
    pictures = [photo(*size) for size in SIZES]
    images, status = served(config)([encode(picture, "PNG") for picture in pictures])
    assert not status.any()
    for picture, row in zip(pictures, images, strict=True):
        expected = resized(picture, 48, 64, method, antialias=antialias)
        np.testing.assert_allclose(row, expected, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "share"), [("bilinear", 0.875), ("lanczos3", 0.875), ("bicubic", 0.01)]
)
def test_a_central_crop_comes_first(method: str, share: float) -> None:
    config = PreprocessConfig(height=48, width=64, resize_method=method, central_crop=share)
    pictures = [photo(*size) for size in SIZES]
    images, _ = served(config)([encode(picture, "PNG") for picture in pictures])
    for picture, row in zip(pictures, images, strict=True):
        cropped = tf.image.central_crop(np.asarray(picture), share)
        np.testing.assert_allclose(row, resized(cropped, 48, 64, method), atol=2e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(400, 304), (523, 411), (1101, 777), (64, 1600), (1600, 1200)])
def test_a_jpeg_of_any_size_has_the_pixels_of_its_full_decode(
    method: str, size: tuple[int, int]
) -> None:
    config = PreprocessConfig(height=48, width=64, resize_method=method)
    picture = photo(*size)
    files = [encode(picture, quality=92), encode(picture.convert("L"), quality=92)]
    images, _ = served(config)(files)
    for file, row in zip(files, images, strict=True):
        expected = resized(tf.io.decode_jpeg(file, channels=3), 48, 64, method)
        assert np.abs(row - expected).mean() < 1 / 255
        assert abs((row - expected).mean()) < 0.25 / 255


@pytest.mark.slow
def test_a_scaled_jpeg_is_cropped_where_a_full_one_would_be() -> None:
    share = 0.875
    config = PreprocessConfig(height=48, width=64, central_crop=share)
    file = encode(photo(1101, 777), quality=92)
    images, _ = served(config)([file])
    cropped = tf.image.central_crop(tf.io.decode_jpeg(file, channels=3), share)
    assert np.abs(images[0] - resized(cropped, 48, 64)).mean() < 1 / 255


def test_without_antialias_a_large_jpeg_is_plain_tensorflow() -> None:
    file = encode(photo(1101, 777))
    images, _ = served(AS_STORED)([file])
    floats = tf.image.convert_image_dtype(tf.io.decode_image(file, channels=3), tf.float32)
    np.testing.assert_allclose(images[0], tf.image.resize(floats, [48, 64]), atol=1e-5)


def test_a_jpeg_too_small_to_be_scaled_is_decoded_in_full() -> None:
    file = encode(photo(120, 90))
    images, _ = served(CONFIG)([file])
    expected = resized(tf.io.decode_jpeg(file, channels=3), 48, 64)
    np.testing.assert_allclose(images[0], expected, atol=1e-5)
