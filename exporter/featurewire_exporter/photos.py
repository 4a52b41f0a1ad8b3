"""Generates photo-like images for probes and warm-up records, so that no files are needed."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

_DRAWN_PIXELS = 2**20
"""Larger images are drawn smaller and enlarged."""


def photo(height: int, width: int, *, seed: int) -> np.ndarray:
    """uint8 [height, width, 3]: smooth colours, shapes with edges, and fine grain.

    Detail at every scale makes it cost what a photo costs: to encode, to decode, to compare.
    """
    random = np.random.default_rng(seed)
    enlarged = 1
    while height * width > _DRAWN_PIXELS * enlarged**2:
        enlarged *= 2
    if enlarged > 1:
        image = photo(-(-height // enlarged), -(-width // enlarged), seed=seed)
        image = image.repeat(enlarged, 0).repeat(enlarged, 1)[:height, :width]
        grain = random.integers(-6, 7, [height, width, 1], np.int16)
        return np.clip(image + grain, 0, 255).astype(np.uint8)
    image = np.full([height, width, 3], 128.0, np.float32)
    for cells in (3, 8, 24, 64):
        coarse = random.normal(0, 60 / np.sqrt(cells / 3), [cells, cells, 3]).astype(np.float32)
        image += tf.image.resize(coarse, [height, width], method="bicubic").numpy()
    rows, columns = np.ogrid[:height, :width]
    for _ in range(6):
        y, x = random.uniform(0, height), random.uniform(0, width)
        radius = random.uniform(0.05, 0.25) * min(height, width)
        inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        image[inside] += random.normal(0, 40, 3).astype(np.float32)
    grain = random.integers(-6, 7, [height, width, 1], np.int8)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def jpeg(height: int, width: int, *, seed: int, quality: int = 90) -> bytes:
    """The same as a baseline JPEG."""
    return tf.io.encode_jpeg(photo(height, width, seed=seed), quality=quality).numpy()


def jpeg_within(
    size: tuple[int, int], *, max_pixels: int, max_image_bytes: int, seed: int
) -> bytes:
    """A JPEG of `size` (height, width), or of the next half that is within the limits."""
    height, width = size
    encoded = None
    while encoded is None or (len(encoded) > max_image_bytes and height * width > 1):
        if encoded is not None:
            height, width = max(height // 2, 1), max(width // 2, 1)
        while height * width > max_pixels:
            height, width = max(height // 2, 1), max(width // 2, 1)
        encoded = jpeg(height, width, seed=seed)
    return encoded


def probe_images(count: int, size: tuple[int, int]) -> np.ndarray:
    """float32 [count, height, width, 3] in [0, 1]: photos, and uniform noise as the last."""
    images: list[np.ndarray] = [
        photo(*size, seed=i).astype(np.float32) / 255 for i in range(count - 1)
    ]
    images.append(np.random.default_rng(count).random([*size, 3], dtype=np.float32))
    return np.stack(images)


def hard_images(size: tuple[int, int]) -> np.ndarray:
    """float32 [10, height, width, 3] in [0, 1]: images with small differences that matter.

    Photos that are dark, pale, of little contrast and out of focus, a ramp, a checkerboard of
    single pixels, and a disc on white: reduced precision loses the most on them.
    """
    height, width = size
    first, second = (photo(*size, seed=seed).astype(np.float32) / 255 for seed in (2, 3))
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    ramp = np.stack([columns / width, rows / height, 1 - columns / width], 2)
    checks = np.repeat(((rows + columns) % 2)[:, :, np.newaxis], 3, 2)
    distance = (rows - height / 2) ** 2 + (columns - width / 2) ** 2
    inside = distance[:, :, np.newaxis] < (min(size) / 4) ** 2
    images = [
        *(image * 0.1 for image in (first, second)),
        *(0.9 + image * 0.1 for image in (first, second)),
        *(0.45 + image * 0.1 for image in (first, second)),
        tf.image.resize(tf.image.resize(first, [8, 8], antialias=True), size).numpy(),
        ramp,
        checks,
        np.where(inside, first, 1.0),
    ]
    return np.stack(images).astype(np.float32).clip(0, 1)
