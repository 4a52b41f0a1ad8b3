"""GIF: only the first frame is read and decoded, on its canvas."""

from __future__ import annotations

import io

import numpy as np
from PIL.GifImagePlugin import GifImageFile

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

MAX_STEPS = 4096
"""Maximum number of steps through the blocks; each takes up to `RUN` blocks of equal length."""

RUN = 512

_EXTENSION, _FRAME, _GRAPHIC_CONTROL = 0x21, 0x2C, 0xF9


def looks_like(data: bytes) -> bool:
    return data.startswith((b"GIF87a", b"GIF89a"))


def read(data: bytes) -> Header:
    """The sides are the canvas's, or 0 if the first frame is truncated or extends beyond it."""
    start, end, transparent = _first_frame(data)
    place = padded(data, start + 1, 8)
    left, top, columns, lines = (little(place[at : at + 2]) for at in (0, 2, 4, 6))
    head = padded(data, 0, 10)
    height, width = little(head[8:]), little(head[6:8])
    fits = left + columns <= width and top + lines <= height and columns > 0 and lines > 0

    def decode(_ratio: int) -> Decoded:
        frame = _decoded(data, start, end, transparent)

        def part(first: int, last: int) -> np.ndarray:
            canvas = np.zeros((last - first, width, 3), np.uint8)
            begin, stop = max(first, top), min(last, top + lines)
            if begin < stop:
                rows = slice(begin - first, stop - first)
                canvas[rows, left : left + columns] = frame[begin - top : stop - top]
            return canvas

        return InParts(part)

    if not fits or not end:
        height = width = 0
    return Header(height=height, width=width, decode=decode)


def _first_frame(data: bytes) -> tuple[int, int, int | None]:
    """Where the first frame's descriptor starts, where its data end, and its transparent index.

    0 and 0 if the file ends early or has parts that a GIF does not have.
    """
    at = 13 + _colours(padded(data, min(10, len(data) - 1), 1)[0])
    steps = start = 0
    transparent: int | None = None
    controlled = False
    while steps < MAX_STEPS and at < len(data):
        steps += 1
        if data[at] == _EXTENSION:
            extension = padded(data, at, 8)
            if extension[1] == _GRAPHIC_CONTROL and not controlled:
                controlled = True
                if extension[2] == 4 and extension[3] & 1:
                    transparent = extension[6]
            at += 2
        elif data[at] == _FRAME:
            start = at
            at += 11 + _colours(data[min(at + 9, len(data) - 1)])
        else:
            return 0, 0, None
        while steps < MAX_STEPS and at < len(data):
            steps += 1
            size = data[at]
            if size == 0:
                at += 1
                break
            sizes = data[at : at + (size + 1) * RUN : size + 1]
            at += (size + 1) * (len(sizes) - len(sizes.lstrip(bytes([size]))))
        else:
            return 0, 0, None
        if start:
            return start, at, transparent
    return 0, 0, None


def _colours(flags: int) -> int:
    """Bytes of the colour table that a screen's or a frame's flags announce."""
    return 6 << (flags & 7) if flags >= 0x80 else 0


def _decoded(data: bytes, start: int, end: int, transparent: int | None) -> Decoded:
    """The first frame."""
    size = data[start + 5 : start + 9]
    local, shared = _colours(data[start + 9]), _colours(data[10])
    table = data[start + 10 :][:local] if local else data[13:][:shared]
    code_size = data[start + 10 + local]
    if not table or code_size > 8:
        raise RefusedImage(CORRUPT)
    # As if the frame were the canvas, without the extensions.
    screen = data[:6] + size + data[10:13] + data[13 : 13 + shared]
    frame = data[start : start + 1] + bytes(4) + data[start + 5 : end]
    image = GifImageFile(io.BytesIO(screen + frame + b";"))
    image.load()
    colours = np.zeros((256, 3), np.uint8)
    known = len(table) // 3
    colours[:known] = np.frombuffer(table, np.uint8).reshape(known, 3)
    # Pixels of the transparent index are black, even if the table does not have it.
    used = image.histogram()
    if transparent is not None:
        colours[transparent] = 0
        used[transparent] = 0
    if any(used[known:]):
        raise RefusedImage(CORRUPT)
    return InParts(lambda first, last: np.take(colours, rows_of(image, first, last), axis=0))
