"""Recognises the formats of a batch of images, reads their headers, and decodes single images."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from featurewire_exporter.preprocess import bmp, gif, jpeg, png, webp
from featurewire_exporter.preprocess.config import PreprocessConfig
from featurewire_exporter.preprocess.header import HEAD_BYTES, Header
from featurewire_exporter.preprocess.octets import starts_with, window

RATIOS = (1, 2, 4, 8)
"""Ratios by which TensorFlow can scale a JPEG down in its decode."""

_WHOLE = np.int64(3)
"""Thirds of a pixel."""


class Images:
    """The headers of a batch of files, `data` string [N]."""

    def __init__(self, data: tf.Tensor, config: PreprocessConfig) -> None:
        head = window(data, 0, HEAD_BYTES)
        exif = config.exif_orientation
        self.is_jpeg = starts_with(head, jpeg.MAGIC)
        """bool [N]"""
        of_jpeg = jpeg.read(data, self.is_jpeg, exif=exif)
        self.known, self.header = tf.cond(
            tf.reduce_all(self.is_jpeg),
            # Most batches are JPEG only, and need three quarters of the operations.
            lambda: (self.is_jpeg, of_jpeg),
            lambda: _read_others(data, head, (self.is_jpeg, of_jpeg), config),
        )
        """Whether a file's format is known, bool [N], and the header that it then has."""


def _read_others(
    data: tf.Tensor, head: tf.Tensor, of_jpeg: tuple[tf.Tensor, Header], config: PreprocessConfig
) -> tuple[tf.Tensor, Header]:
    """`known` and `header` of a batch with other files than JPEG."""
    exif = config.exif_orientation
    is_png = starts_with(head, png.MAGIC)
    is_gif = gif.looks_like(head)
    read = [
        of_jpeg,
        (is_png, png.read(data, head, is_png, exif=exif)),
        (is_gif, gif.read(data, head, is_gif)),
        (bmp.looks_like(head), bmp.read(head)),
    ]
    if config.webp:
        is_webp = webp.looks_like(head)
        read.append((is_webp, webp.read(data, head, is_webp, exif=exif)))
    return tf.reduce_any(tf.stack([mine for mine, _ in read]), 0), _merged(read)


def _merged(read: list[tuple[tf.Tensor, Header]]) -> Header:
    """The header of each file's own format; `decoder` becomes an index of `decode`'s."""
    _, merged = read[0]
    for (mine, header), first in zip(read[1:], _FIRST_DECODERS, strict=False):
        header = header._replace(decoder=header.decoder + first)
        fields = ("height", "width", "orientation", "decoder")
        merged = merged._replace(
            **{
                name: tf.where(mine, getattr(header, name), getattr(merged, name))
                for name in fields
            },
            extra=tf.where(mine[:, tf.newaxis], header.extra, merged.extra),
            thirds=tf.where(
                mine, _WHOLE if header.thirds is None else header.thirds, merged.thirds
            ),
        )
    return merged


# The decoders of PNG, GIF, BMP (two of them) and WebP; they follow those of JPEG.
_FIRST_DECODERS = (4, 5, 6, 8)


def decode(
    data: tf.Tensor,
    decoder: tf.Tensor,
    shape: tf.Tensor,
    extra: tf.Tensor,
    config: PreprocessConfig,
) -> tf.Tensor:
    """uint8 [h, w, 3], of one file that its header says to be `shape`, int32 [3].

    `decoder`: the header's; for a JPEG plus the index of the ratio in RATIOS. The last number of a
    JPEG's `shape` is its number of components. Fails if the file is broken.
    """
    branches = [
        *(lambda by=by: jpeg.decode(data, by, shape, extra) for by in RATIOS),
        lambda: png.decode(data, shape),
        lambda: gif.decode(data, shape, extra),
        lambda: bmp.decode(data, shape, extra),
        lambda: bmp.decode_indexed(data, shape, extra),
    ]
    if config.webp:
        branches.append(lambda: webp.decode(data))
    return tf.ensure_shape(tf.switch_case(decoder, branches), [None, None, 3])
