"""JPEG: reads size and orientation from its segments, and decodes at a reduced scale.

TensorFlow decodes with libjpeg-turbo. So does simplejpeg, and with the same settings it gives the
same pixels.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import numpy as np
import simplejpeg
from PIL.JpegImagePlugin import JpegImageFile

from featurewire_server.preprocess import jpeg_scans
from featurewire_server.preprocess.header import CORRUPT, Header, RefusedImage, big, padded
from featurewire_server.preprocess.orientation import UPRIGHT, read_orientation

MAGIC = b"\xff\xd8\xff"

MAX_STEPS = 1024
"""Maximum number of segments before the image, and of runs of stray bytes."""

WINDOW = 64
"""Bytes that a step looks at."""

_MARKER = re.compile(rb"\xff[^\x00\xff]")

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DECODED_FRAMES = (0xC0, 0xC1, 0xC2)
_SCAN = 0xDA
_SKIPPED = frozenset((*range(0xE0, 0xF0), 0xFE))
_END = 0xD9
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD8)))
_METADATA = frozenset((*range(0xE1, 0xEE), 0xEF, 0xFE))
"""All application segments but those of JFIF and Adobe, which say what the colours are."""
_MISPLACED = frozenset((0x01, 0xC8, *range(0xD0, 0xDA)))
"""Markers without a length, which are not allowed before the scan."""


def read(data: bytes, *, exif: bool) -> Header:
    frame, tagged, scan = _places(data)
    head = padded(data, frame, jpeg_scans.FRAME_BYTES)
    scans, whole = jpeg_scans.read(data, head, scan) if frame and scan else (1, True)
    there = frame > 0 and scan > 0 and whole and head[1] in _DECODED_FRAMES
    height, width = (big(head[5:7]), big(head[7:9])) if there else (0, 0)
    orientation = UPRIGHT
    if exif and tagged:
        # Marker and length take 4 bytes and the name 6; the length counts itself.
        length = big(padded(data, tagged + 2, 2)) - 8
        orientation = read_orientation(data, tagged + 10, length)
    components = head[9]

    def decode(ratio: int) -> np.ndarray:
        def pixels(data: bytes, *, strict: bool) -> np.ndarray:
            return _decoded(data, ratio, height, width, components, strict=strict)

        try:
            image = pixels(data, strict=True)
        except ValueError:
            cleaned = _cleaned(data)
            _require_decodable(cleaned)
            _require_end(cleaned)
            image = pixels(cleaned, strict=False)
        jpeg_scans.require_whole(
            data, image, lambda noisy: pixels(_cleaned(noisy), strict=False), scan, components
        )
        return image

    return Header(
        height=height,
        width=width,
        decode=decode,
        orientation=orientation,
        scans=scans,
        # With several scans, decoding takes 2 more bytes for each component of a pixel.
        thirds=3 if components < 4 else 4,
        scalable=True,
        components=components,
    )


def _places(data: bytes) -> tuple[int, int, int]:
    """Offsets of the frame, the EXIF segment and the first scan; 0 if there is none."""
    frame = tagged = 0
    for at, code in _segments(data):
        if code == _SCAN:
            return frame, tagged, at
        if code in _FRAMES:
            frame = frame or at
        elif code == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            tagged = tagged or at
    return frame, tagged, 0


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Offset and code of each marker up to the first scan, in at most `MAX_STEPS` steps."""
    at = 2
    for _ in range(MAX_STEPS):
        first = padded(data, at, 4)
        code = first[1]
        if first[0] != 0xFF or code in (0, 0xFF):
            # Like libjpeg, skip stray and fill bytes before a marker.
            found = _MARKER.search(data, at, at + WINDOW)
            at = found.start() if found else at + WINDOW - 1
        elif code in _MISPLACED:
            return
        else:
            yield at, code
            if code == _SCAN:
                return
            at += 2 + max(big(first[2:]), 2)
        if at >= len(data):
            return


def _cleaned(data: bytes) -> bytes:
    """The file without stray bytes between its segments, and without comments and metadata."""
    parts = [data[:2]]
    for at, code in _segments(data):
        if code == _SCAN:
            parts.append(data[at:])
        elif code not in _METADATA:
            parts.append(data[at : at + 2 + max(big(padded(data, at + 2, 2)), 2)])
    return b"".join(parts)


def _require_decodable(data: bytes) -> None:
    """Raise an error for what TensorFlow refuses, but not for what libjpeg only warns of.

    simplejpeg does not tell the two apart. Pillow does. Like TensorFlow, it also refuses a file
    that ends before its pixels.
    """
    image = JpegImageFile(io.BytesIO(data))
    image.load()


def _require_end(data: bytes) -> None:
    """Raise RefusedImage if the segments after the first scan do not lead to an end marker.

    TensorFlow's decoder reads up to there after the last pixel, and Pillow's does not. It does not
    miss the rest of a marker or of a table that the file's end cuts off.
    """
    *_, (at, _) = _segments(data)
    code = _SCAN
    while code != _END:
        if code not in _WITHOUT_LENGTH:
            if at + 4 > len(data):
                return
            at += max(big(data[at + 2 : at + 4]), 2)
            if at + 2 > len(data) and code not in _SKIPPED:
                return
        found = _MARKER.search(data, at + 2)
        if not found:
            if at + 2 < len(data) and data.endswith(b"\xff"):
                return
            raise RefusedImage(CORRUPT)
        at, code = found.start(), data[found.start() + 1]


def _decoded(
    data: bytes, ratio: int, height: int, width: int, components: int, *, strict: bool
) -> np.ndarray:
    """uint8 [ceil(height / ratio), ceil(width / ratio), 3]."""
    size = -(-height // ratio), -(-width // ratio)
    image = simplejpeg.decode_jpeg(
        data,
        "CMYK" if components == 4 else "RGB",
        fastdct=ratio == 1,
        fastupsample=False,
        min_height=size[0] if ratio > 1 else 0,
        min_width=size[1] if ratio > 1 else 0,
        strict=strict,
    )
    if image.shape[:2] != size:
        raise RefusedImage(CORRUPT)
    if components == 4:
        # Every CMYK is taken as inverted, with or without Adobe's segment.
        colours = image[:, :, :3].astype(np.uint16) * image[:, :, 3:]
        return np.asarray(colours // 255, np.uint8)
    return np.asarray(image)
