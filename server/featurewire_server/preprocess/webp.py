"""WebP, in versions that were exported with it: still images, lossy, lossless and extended."""

from __future__ import annotations

import io

from PIL.WebPImagePlugin import WebPImageFile

from featurewire_server.preprocess.header import (
    CORRUPT,
    Decoded,
    Header,
    InParts,
    RefusedImage,
    little,
    padded,
    rows_of,
)
from featurewire_server.preprocess.orientation import UPRIGHT, read_orientation

MAX_CHUNKS = 64
"""Maximum number of chunks that are searched for an orientation."""

_ANIMATED = 0x02
_ALPHA = 0x10
_FOURTEEN_BITS = 1 << 14


def looks_like(data: bytes) -> bool:
    return data.startswith(b"RIFF") and data[8:12] == b"WEBP"


def read(data: bytes, *, exif: bool) -> Header:
    """The sides of an animation are 0."""
    head = padded(data, 0, 30)
    kind, flags = head[12:16], head[20]
    packed = little(head[21:25])
    height = width = 0
    alpha = False
    if kind == b"VP8X" and not flags & _ANIMATED:
        width, height = little(head[24:27]) + 1, little(head[27:30]) + 1
        alpha = bool(flags & _ALPHA)
    elif kind == b"VP8L":
        width = packed % _FOURTEEN_BITS + 1
        height = packed // _FOURTEEN_BITS % _FOURTEEN_BITS + 1
        alpha = packed // _FOURTEEN_BITS**2 % 2 == 1
    elif kind == b"VP8 ":
        width, height = (little(head[at : at + 2]) % _FOURTEEN_BITS for at in (26, 28))

    def decode(_ratio: int) -> Decoded:
        image = WebPImageFile(io.BytesIO(_needed(data)))
        if image.size != (width, height):
            raise RefusedImage(CORRUPT)
        image.load()
        return InParts(lambda first, last: rows_of(image, first, last)[:, :, :3])

    return Header(
        height=height,
        width=width,
        decode=decode,
        orientation=_orientation(data) if exif and kind == b"VP8X" else UPRIGHT,
        # The decoder gives four numbers per pixel if there is alpha.
        thirds=4 if alpha else 3,
    )


def _orientation(data: bytes) -> int:
    at = 12
    for _ in range(MAX_CHUNKS):
        chunk = padded(data, at, 14)
        size = little(chunk[4:8])
        if chunk.startswith(b"EXIF"):
            # Some writers keep the name that the block has inside a JPEG.
            name = 6 if chunk[8:] == b"Exif\0\0" else 0
            return read_orientation(data, at + 8 + name, size - name)
        at += 8 + size + size % 2
        if at >= len(data):
            break
    return UPRIGHT


def _needed(data: bytes) -> bytes:
    """The file with its pixels alone, which extend to its end, as TensorFlow's decoder reads them.

    Raises RefusedImage for a size that is larger than the file or the container.
    """
    container = little(data[4:8])
    if container > len(data) - 8:
        raise RefusedImage(CORRUPT)
    at = 12
    kept = b""
    while data[at : at + 4] not in (b"VP8 ", b"VP8L"):
        size = little(padded(data, at + 4, 4))
        after = at + 8 + size + size % 2
        if after > len(data) or after > container + 8:
            raise RefusedImage(CORRUPT)
        if data[at : at + 4] in (b"VP8X", b"ALPH"):
            kept += data[at:after]
        at = after
    size = little(padded(data, at + 4, 4))
    if at + 8 + size > min(len(data), container + 8):
        raise RefusedImage(CORRUPT)
    first_partition = little(padded(data, at + 8, 3)) >> 5
    if data[at : at + 4] == b"VP8 " and first_partition >= size:
        raise RefusedImage(CORRUPT)
    pixels = data[at + 8 :]
    kept += data[at : at + 4] + len(pixels).to_bytes(4, "little") + pixels + bytes(len(pixels) % 2)
    return b"RIFF" + (len(kept) + 4).to_bytes(4, "little") + b"WEBP" + kept
