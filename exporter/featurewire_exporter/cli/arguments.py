"""Readers of option values. Each raises `argparse.ArgumentTypeError`, which argparse prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from featurewire_exporter.preprocess import MAX_TARGET_SIDE

MAX_COUNT = 2**31 - 1


def whole(least: int, most: int) -> Callable[[str], int]:
    """A reader of whole numbers in decimal digits, from `least` (at least 1) to `most`."""

    def read(text: str) -> int:
        # Not more digits than count: Python refuses to read a number of thousands.
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {least} to {most}"
            )
        return value

    return read


count = whole(1, MAX_COUNT)


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and up to 1")
    return value


def number_range(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not two numbers such as 0,255") from None
    return low, high


def views(text: str) -> int:
    value = whole(1, 64)(text)
    if value < 3:
        raise argparse.ArgumentTypeError(f"{text!r} is too few: two crops of each are tested")
    return value


def shares(text: str) -> tuple[float, float]:
    parts = [share(part) for part in text.split(",")]
    if len(parts) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not two shares such as 0.8,0.95")
    return parts[0], parts[1]


def size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) == 1:
        parts *= 2
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 299x299")
    height, width = map(int, parts)
    if max(height, width) > MAX_TARGET_SIDE:
        raise argparse.ArgumentTypeError(f"{text!r} has a side of more than {MAX_TARGET_SIDE}")
    return height, width


def path(text: str) -> str:
    # A str: as a Path, gs://bucket would become a folder gs:.
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a path")
    return text
