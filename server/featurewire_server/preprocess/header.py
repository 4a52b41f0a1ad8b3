"""Facts about an image from its first bytes, before any pixel is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

OK, EMPTY, UNSUPPORTED, TOO_LARGE, CORRUPT = range(5)
STATUS = ("ok", "empty", "unsupported", "too_large", "corrupt")


class RefusedImage(Exception):
    """An image without pixels. Its text is the name of the status."""

    def __init__(self, status: int) -> None:
        super().__init__(STATUS[status])
        self.status = status
        """The value in the signature's output `status`, from 1 to 4."""


class Decoded(Protocol):
    """Decoded pixels, uint8 [height, width, 3]: an array, or one that is made in parts."""

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


@dataclass(frozen=True)
class InParts:
    """Pixels that are made from a decoder's own when they are needed, because a large picture
    in both forms would take too much memory."""

    part: Callable[[int, int], np.ndarray]
    """From a first row and the one after the last to uint8 [rows, width, 3]."""

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        return self.part(rows.start, rows.stop)


def rows_of(image: Image.Image, first: int, last: int) -> np.ndarray:
    """Rows of a loaded image of Pillow's."""
    return np.asarray(image.crop((0, first, image.width, last)))


@dataclass(frozen=True, kw_only=True)
class Header:
    height: int
    """Pixels, as stored: before any orientation is applied. 0 if the header is broken."""

    width: int
    """Pixels."""

    decode: Callable[[int], Decoded]
    """From the ratio of a scaled decode (1 if the format has none) to the pixels. Raises
    RefusedImage, or the decoder's own errors, for broken ones."""

    orientation: int = 1
    """From 1 (upright) to 8."""

    scans: int = 1
    """Passes of the decoder over all pixels of a JPEG."""

    thirds: int = 3
    """The cost of decoding a pixel, in thirds of a usual one."""

    scalable: bool = False
    """Whether the format can be decoded at a reduced size."""

    components: int = 3
    """Numbers per pixel in a JPEG."""


def padded(data: bytes, at: int, count: int) -> bytes:
    """`count` bytes from `at` on, with zeros after the end of the data."""
    at = max(at, 0)
    return data[at : at + count].ljust(count, b"\0")


def big(octets: bytes) -> int:
    return int.from_bytes(octets, "big")


def little(octets: bytes) -> int:
    return int.from_bytes(octets, "little")
