"""Counts the scans of a JPEG, and finds whether the last one is complete."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from featurewire_server.preprocess.header import CORRUPT, RefusedImage, padded

MAX_SCANS_SEARCHED = 1024
"""Maximum number of scans to count, because a file with more is not decoded."""

FRAME_BYTES = 22
"""Length of a frame's header up to the fourth component."""

_PROGRESSIVE = 0xC2
_SCAN = b"\xff\xda\0"
_END = b"\xff\xd9"
_FREQUENCIES = (1 << 64) - 1


def read(data: bytes, head: bytes, scan: int) -> tuple[int, bool]:
    """The number of scans, and whether they contain every component's frequencies to the last bit.

    `head`: the frame's first bytes. `scan`: the offset of the first scan. A scan of several
    components counts as several.
    """
    components = head[9]
    if head[1] != _PROGRESSIVE and padded(data, scan + 4, 1)[0] >= components:
        return 1, True
    scans = 0
    ids = head[10:FRAME_BYTES:3]
    reached = [0] * 4
    for part in data[scan:].split(_SCAN, MAX_SCANS_SEARCHED)[1:]:
        header = padded(part, 0, 13)
        given = header[1]
        scans += min(max(given, 1), 4)
        after = 2 + 2 * min(given, 4)
        first, last, bits = header[after : after + 3]
        if bits % 16 == 0:
            held = _FREQUENCIES >> first << first & ((2 << last) - 1)
            for index, name in enumerate(ids):
                if name in header[2 : 2 + 2 * min(given, 4) : 2]:
                    reached[index] |= held
    whole = all(each & _FREQUENCIES == _FREQUENCIES for each in reached[:components])
    return scans, whole


# Bytes without a marker, in an order that equal blocks cannot have. Between them is every marker
# that a decoder may wait for at a cut.
_PART = bytes((at * at * 31 + at * 7 + 85) % 251 for at in range(128))
NOISE = _PART + b"".join(bytes([0xFF, 0xD0 + at]) + _PART for at in range(8))


def require_whole(
    data: bytes,
    image: np.ndarray,
    pixels: Callable[[bytes], np.ndarray],
    scan: int,
    components: int,
) -> None:
    """Raise RefusedImage if the only scan of the decoded `image` is truncated.

    A decoder leaves blocks without data grey. So if the last pixel is grey, the file is decoded
    again with noise before its end. The image stays the same if the decoder had all of its data;
    otherwise it decodes the noise.
    """
    blank = 128 if components < 4 else 64
    if all(abs(int(level) - blank) <= 1 for level in image[-1, -1]):
        coded = data[scan:].split(_END, 1)[0]
        if not np.array_equal(pixels(data[:scan] + coded + NOISE + _END), image):
            raise RefusedImage(CORRUPT)
