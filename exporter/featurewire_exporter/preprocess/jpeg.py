"""JPEG: reads size and orientation from its segments, and decodes at a reduced scale.

A JPEG decoder can omit the high frequencies of each 8 x 8 block and so give the image at 1/2, 1/4
or 1/8 of its size for less work. Each of its pixels is then the mean of a block of pixels of the
full decode. `resize` relies on that.
"""

from __future__ import annotations

import tensorflow as tf

from featurewire_exporter.preprocess import jpeg_scans
from featurewire_exporter.preprocess.config import LEVEL_SHIFT
from featurewire_exporter.preprocess.header import Header, no_extra
from featurewire_exporter.preprocess.octets import big, find_marks, is_in, starts_with, window
from featurewire_exporter.preprocess.orientation import UPRIGHT, read_orientation

MAGIC = b"\xff\xd8\xff"

# A file of the default limit has room for 512 segments of full size before its image: extended
# XMP, depth maps and colour profiles.
_MAX_STEPS = 1024

_WINDOW = 64
"""Bytes that a step looks at: a segment's first ones, or as many stray bytes less one."""

_STRAY, _SEGMENT, _FRAME, _SCAN, _MISPLACED = range(5)


def _role(code: int) -> int:
    """The kind of segment that the marker with this code begins."""
    if code == 0xDA:
        return _SCAN
    if 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
        return _FRAME
    # Markers without a length are not allowed before the scan.
    return _MISPLACED if code in (0x01, 0xC8) or 0xD0 <= code <= 0xD9 else _SEGMENT


_ROLES = [_role(code) for code in range(256)]

_DECODED_FRAMES = (0xC0, 0xC1, 0xC2)
"""Baseline, extended sequential and progressive frames, all with Huffman codes. TensorFlow decodes
arithmetic codes (0xC9, 0xCA) as well, but nothing in them shows that a file was cut short."""

_ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"
"""A segment that says that four components are CMYK and stored inverted."""

# Change of red, green and blue for one level of Y, and for one of Cb and Cr (ITU-R BT.601).
_STEPS = ((1.0, 1.0, 1.0), (1.402, -0.344136 - 0.714136, 1.772))


def read(data: tf.Tensor, mine: tf.Tensor, *, exif: bool) -> Header:
    """The headers of the JPEG files, which `mine` [N] marks."""

    def step(
        octets: tf.Tensor, at: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tuple[tf.Tensor, ...]]:
        # A marker is 0xFF and a byte that is neither 0x00 nor 0xFF.
        markers = tf.equal(octets[:, :-1], 0xFF) & tf.not_equal(octets[:, 1:] % 255, 0)
        marker = markers[:, 0]
        role = tf.where(marker, tf.gather(_ROLES, octets[:, 1]), _STRAY)
        frame, scan = tf.equal(role, _FRAME), tf.equal(role, _SCAN)
        tagged = starts_with(octets, b"\xff\xe1") & starts_with(octets[:, 4:], b"Exif\0\0")
        length = big(octets[:, 2:4])
        adobe = (
            starts_with(octets, b"\xff\xee") & starts_with(octets[:, 4:], b"Adobe") & (length >= 14)
        )
        # Like libjpeg, skip fill bytes and stray bytes before a marker. A length that does not
        # count its own two bytes ends its segment after them.
        passed = tf.where(tf.reduce_any(markers, 1), tf.argmax(markers, 1), _WINDOW - 1)
        following = at + tf.where(marker, 2 + tf.maximum(length, 2), passed)
        return following, role < _SCAN, (frame, tagged, scan, adobe)

    frame, tagged, scan, adobe = find_marks(
        data, 2, mine, width=_WINDOW, limit=_MAX_STEPS, marks=4, step=step
    )
    head = window(data, frame, jpeg_scans.FRAME_BYTES)
    scans, whole = jpeg_scans.read(data, head, frame, scan)
    decoded = is_in(head[:, 1], *_DECODED_FRAMES)
    there = tf.cast((frame > 0) & (scan > 0) & whole & decoded, tf.int64)
    orientation = tf.fill(tf.shape(mine), UPRIGHT)
    if exif:
        # Marker and length take 4 bytes and the name 6; the length counts itself.
        length = big(window(data, tagged + 2, 2)) - 8
        orientation = read_orientation(data, tf.where(tagged > 0, tagged + 10, 0), length)
    components = head[:, 9:10]
    # The colours of converted CMYK are not corrected.
    shifted = tf.cast(components[:, :, tf.newaxis] < 4, tf.float32)
    shift = shifted * (LEVEL_SHIFT * tf.constant(_STEPS))
    # Without Adobe's segment, TensorFlow takes inverted CMYK for plain CMYK: black for white.
    unmarked = tf.equal(components[:, 0], 4) & tf.equal(adobe, 0)
    more = tf.stack([tf.cast(scan, tf.int32), tf.cast(unmarked, tf.int32)], 1)
    extra = [components, more, no_extra(mine)[:, 3:]]
    return Header(
        big(head[:, 5:7]) * there,
        big(head[:, 7:9]) * there,
        orientation,
        tf.zeros_like(orientation),
        tf.concat(extra, 1),
        shift,
        scans,
        # With several scans, decoding takes 2 more bytes for each component of a pixel.
        tf.where(components[:, 0] < 4, tf.constant(3, tf.int64), 4),
    )


def decode(data: tf.Tensor, ratio: int, shape: tf.Tensor, extra: tf.Tensor) -> tf.Tensor:
    """uint8 [ceil(h / ratio), ceil(w / ratio), 3], of one file; `ratio` is 1, 2, 4 or 8.

    Fails unless the decoder reads the same `shape`, int32 [3], from the header as was read here,
    and if the file is truncated, with or without an end marker after the cut.
    """

    def pixels(data: tf.Tensor) -> tf.Tensor:
        # TensorFlow's default decode at full size; the exact one at all other scales.
        method = "" if ratio == 1 else "INTEGER_ACCURATE"
        return tf.io.decode_jpeg(data, channels=3, ratio=ratio, dct_method=method)

    def marked() -> tuple[tf.Tensor, tf.Tensor]:
        rest = tf.strings.substr(data, 2, tf.strings.length(data))
        longer = tf.stack([0, len(_ADOBE), 0, 0])
        return tf.strings.join([MAGIC[:2] + _ADOBE, rest]), extra + longer

    agrees = tf.reduce_all(tf.equal(tf.io.extract_jpeg_shape(data), shape))
    with tf.control_dependencies([tf.raw_ops.Assert(condition=agrees, data=[shape])]):
        data, extra = tf.cond(extra[2] > 0, marked, lambda: (tf.identity(data), extra))
        return jpeg_scans.require_whole(data, pixels, extra)
