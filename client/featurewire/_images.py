"""What counts as an image, and what to say of what does not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from featurewire._errors import ImageError

__all__ = ["Buffer", "Image", "check_image", "check_images", "load", "split_pair"]

Buffer = bytes | bytearray | memoryview
Image = Buffer | os.PathLike[str]

_EXPECTED = "an image is bytes, bytearray, memoryview or a pathlib.Path of a file"


def check_image(image: object) -> Image:
    """Return `image`; raises a `TypeError` that says what to do when it is none."""
    if isinstance(image, (bytes, bytearray, memoryview, os.PathLike)):
        return image
    raise TypeError(_advice(image))


def _advice(image: object) -> str:
    kind = type(image)
    if isinstance(image, str):
        if "://" in image[:16] or image.startswith("data:"):
            return (
                f"{_EXPECTED}, not the URL {_shorten(image)}: this client fetches nothing; "
                "download it and pass the body's bytes"
            )
        return (
            f"{_EXPECTED}, not a str: wrap a path, pathlib.Path({_shorten(image)}); "
            "for base64 text pass base64.b64decode(text)"
        )
    if hasattr(image, "__array_interface__") or hasattr(image, "__dlpack__"):
        return (
            f"{_EXPECTED}, not {kind.__module__}.{kind.__qualname__}: the server decodes encoded "
            "images (JPEG, PNG, …); pass the file's bytes, or encode the pixels first, such as "
            "with PIL.Image.fromarray(pixels).save(buffer, 'PNG')"
        )
    if callable(getattr(image, "read", None)):
        return f"{_EXPECTED}, not an open file: pass file.read()"
    if isinstance(image, (list, tuple, set, frozenset, dict)):
        return f"{_EXPECTED}, not a {kind.__name__}: several images go to embed_batch or stream"
    if image is None:
        return f"{_EXPECTED}, not None"
    return f"{_EXPECTED}, not {kind.__module__}.{kind.__qualname__}"


def check_images(images: object, *, asynchronous: bool = False) -> None:
    """Raise a helpful `TypeError` when `images` is not an iterable of images."""
    if isinstance(images, (list, tuple)):
        return
    if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike)):
        raise TypeError(
            f"expected an iterable of images, not one {type(images).__name__}: "
            "use embed(image) for one image, or put it in a list"
        )
    if isinstance(images, Mapping):
        raise TypeError(
            "expected an iterable of images, not a mapping: pass its .items() to stream"
        )
    if hasattr(images, "__array_interface__"):
        raise TypeError(_advice(images))
    if asynchronous and hasattr(images, "__aiter__"):
        return
    if hasattr(images, "__aiter__"):
        raise TypeError("an async iterable needs AsyncClient; this Client takes plain iterables")
    if not isinstance(images, Iterable) and not hasattr(images, "__getitem__"):
        raise TypeError(f"expected an iterable of images, not {type(images).__name__}")


def split_pair(item: object, position: int) -> tuple[Any, Image]:
    """The key and the image of one item of a stream: a pair, or an image keyed by position."""
    if isinstance(item, tuple):
        if len(item) != 2:
            raise TypeError(
                f"item {position}: expected an image or a (key, image) pair, "
                f"not a tuple of {len(item)}"
            )
        key, image = item
    else:
        key, image = position, item
    try:
        return key, check_image(image)
    except TypeError as exc:
        raise TypeError(f"item {position}: {exc}") from None


def load(image: Image) -> Buffer:
    """The image's encoded bytes; reads a path. Raises `ImageError` (`unreadable`)."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, (bytearray, memoryview)):
        # A copy: the caller may reuse the buffer while the request waits for its retry.
        return bytes(image)
    try:
        with open(image, "rb") as file:
            return file.read()
    except (OSError, ValueError) as exc:  # ValueError: no file can have such a name
        reason = getattr(exc, "strerror", None) or str(exc)
        raise ImageError(f"{os.fspath(image)!r}: {reason}", reason="unreadable") from exc


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
