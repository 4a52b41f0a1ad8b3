"""JPEG: reads size and orientation from its segments, and decodes at a reduced scale.

TensorFlow decodes with libjpeg-turbo. So does simplejpeg, and with the same settings it gives the
same pixels.
"""

from __future__ import annotations

import re

import numpy as np
import simplejpeg

from featurewire_server.preprocess import jpeg_scans
from featurewire_server.preprocess.header import CORRUPT, Header, RefusedImage, big, padded
from featurewire_server.preprocess.orientation import UPRIGHT, read_orientation

MAGIC = b"\xff\xd8\xff"

MAX_STEPS = 1024
"""Maximum number of segments before the image, and of runs of stray bytes."""

WINDOW = 64
"""Bytes that a step looks at."""

_MARKER = re.compile(rb"\xff[^\x00\xff]")
_NO_MARKER = bytes(2)

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DECODED_FRAMES = (0xC0, 0xC1, 0xC2)
_SCAN = 0xDA
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
        def pixels(data: bytes) -> np.ndarray:
            return _decoded(data, ratio, height, width, components)

        image = pixels(data)
        jpeg_scans.require_whole(data, image, pixels, scan, components)
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
    at = 2
    for _ in range(MAX_STEPS):
        first = padded(data, at, 10)
        code = first[1]
        if first[0] != 0xFF or code in _NO_MARKER or code == 0xFF:
            # Like libjpeg, skip stray and fill bytes before a marker.
            found = _MARKER.search(data, at, at + WINDOW)
            at = found.start() if found else at + WINDOW - 1
        elif code == _SCAN:
            return frame, tagged, at
        elif code in _MISPLACED:
            break
        else:
            if code in _FRAMES:
                frame = frame or at
            elif code == 0xE1 and first[4:] == b"Exif\0\0":
                tagged = tagged or at
            # A length that does not count its own two bytes ends its segment after them.
            at += 2 + max(big(first[2:4]), 2)
        if at >= len(data):
            break
    return frame, tagged, 0


def _decoded(data: bytes, ratio: int, height: int, width: int, components: int) -> np.ndarray:
    """uint8 [ceil(height / ratio), ceil(width / ratio), 3]."""
    size = -(-height // ratio), -(-width // ratio)
    image = simplejpeg.decode_jpeg(
        data,
        "CMYK" if components == 4 else "RGB",
        fastdct=ratio == 1,
        fastupsample=False,
        min_height=size[0] if ratio > 1 else 0,
        min_width=size[1] if ratio > 1 else 0,
        strict=False,
    )
    if image.shape[:2] != size:
        raise RefusedImage(CORRUPT)
    if components == 4:
        # Every CMYK is taken as inverted, with or without Adobe's segment.
        colours = image[:, :, :3].astype(np.uint16) * image[:, :, 3:]
        return np.asarray(colours // 255, np.uint8)
    return np.asarray(image)
