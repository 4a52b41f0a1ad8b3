"""JPEG: reads size and orientation from its segments, and decodes at a reduced scale.

TensorFlow decodes with libjpeg-turbo. So do simplejpeg and Pillow, and with the same settings they
give the same pixels.
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
_SKIPPED = frozenset((0xDC, *range(0xE0, 0xF0), 0xFE))
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
        if ratio > 1:
            _require_end(cleaned := _cleaned(data))
            image = _scaled(cleaned, ratio, height, width)
        else:
            image = _full_size(data, height, width, components)

        def noisy(data: bytes) -> np.ndarray:
            if ratio > 1:
                return _scaled(_cleaned(data), ratio, height, width)
            return _decoded(_cleaned(data), height, width, components, strict=False)

        jpeg_scans.require_whole(data, image, noisy, scan, components)
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
            segment = data[at : at + 2 + max(big(padded(data, at + 2, 2)), 2)]
            if segment[4:9] == b"JFIF\0":
                # simplejpeg refuses a file for an unknown revision.
                segment = segment[:9] + b"\1\1" + segment[11:]
            parts.append(segment)
    return b"".join(parts)


def _full_size(data: bytes, height: int, width: int, components: int) -> np.ndarray:
    try:
        return _decoded(data, height, width, components, strict=True)
    except ValueError:
        # simplejpeg does not tell what libjpeg refuses from what it warns of. Pillow does. Like
        # TensorFlow, it also refuses a file that ends before its pixels.
        cleaned = _cleaned(data)
        _require_end(cleaned)
        _scaled(cleaned, 8, height, width)
        return _decoded(cleaned, height, width, components, strict=False)


def _scaled(data: bytes, ratio: int, height: int, width: int) -> np.ndarray:
    """uint8 [ceil(height / ratio), ceil(width / ratio), 3], of a cleaned file; `ratio` is 2 to 8.

    Pillow decodes as exactly as TensorFlow is asked to for these, and simplejpeg for full size.
    """
    image = JpegImageFile(io.BytesIO(data))
    if image.size != (width, height):
        raise RefusedImage(CORRUPT)
    image.draft(None, (max(width // ratio, 1), max(height // ratio, 1)))
    image.load()
    levels = np.asarray(image)
    if image.mode == "L":
        return np.repeat(levels[:, :, np.newaxis], 3, axis=2)
    return _without_black(255 - levels) if image.mode == "CMYK" else levels


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


def _decoded(data: bytes, height: int, width: int, components: int, *, strict: bool) -> np.ndarray:
    """uint8 [height, width, 3]. `strict`: raise ValueError also for what libjpeg only warns of."""
    image = simplejpeg.decode_jpeg(
        data,
        "CMYK" if components == 4 else "RGB",
        fastdct=True,
        fastupsample=False,
        strict=strict,
    )
    if image.shape[:2] != (height, width):
        raise RefusedImage(CORRUPT)
    return _without_black(image) if components == 4 else np.asarray(image)


def _without_black(image: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3], of CMYK; every one is taken as inverted, with or without Adobe's segment."""
    colours = image[:, :, :3].astype(np.uint16) * image[:, :, 3:]
    return np.asarray(colours // 255, np.uint8)
