"""The types of an image, the errors for all other types, and how an image's bytes are read."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from featurewire._errors import ImageError

Buffer = bytes | bytearray | memoryview
Image = Buffer | os.PathLike[str]
Source = Image | Callable[[], Buffer]
"""An image of a stream. This may also be a function that returns the image's bytes."""
KINDS = (bytes, bytearray, memoryview, os.PathLike)
"""The types of `Image`, for `isinstance`."""

MAX_FILE_BYTES = 256 << 20
"""Larger files are not images; reading one by mistake must not fill the memory."""

_EXPECTED = "an image is bytes, bytearray, memoryview or a pathlib.Path of a file"


def advice(image: object) -> str:
    """The error text for an object that is not an image: what to pass instead."""
    kind = type(image)
    if isinstance(image, str):
        if "://" in image[:16] or image.startswith("data:"):
            return (
                f"{_EXPECTED}, not the URL {_shorten(image)}: the client does not fetch URLs; "
                "download the image and pass its bytes"
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


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")


def check_images(images: object, *, asynchronous: bool = False) -> None:
    """Raise a helpful `TypeError` if `images` is not an iterable of images."""
    if isinstance(images, (list, tuple)):
        return
    if isinstance(images, (str, *KINDS)):
        raise TypeError(
            f"expected an iterable of images, not one {type(images).__name__}: "
            "use embed(image) for one image, or put it in a list"
        )
    if isinstance(images, Mapping):
        raise TypeError(
            "expected an iterable of images, not a mapping: pass its .items() to stream"
        )
    if hasattr(images, "__array_interface__"):
        raise TypeError(advice(images))
    if isinstance(images, AsyncIterable):
        if asynchronous:
            return
        raise TypeError("an async iterable needs AsyncClient; this Client takes plain iterables")
    if not isinstance(images, Iterable) and not hasattr(images, "__getitem__"):
        raise TypeError(f"expected an iterable of images, not {type(images).__name__}")


def load(image: Source, key: object = None) -> Buffer:
    """The image's encoded bytes; reads a path and calls a function. Raises `ImageError`.

    The error names the path, or the `key` of a function.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, (bytearray, memoryview)):
        # A copy: the caller may reuse the buffer while the request waits for its retry.
        return bytes(image)
    name = repr(key)
    if isinstance(image, os.PathLike):
        name = repr(os.fspath(image))
    try:
        data = read_file(image) if isinstance(image, os.PathLike) else image()
    except Exception as error:  # any error of the function fails only this image
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"{name}: {reason}", reason="unreadable") from error
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise ImageError(f"{name}: gave a {type(data).__name__}, not bytes", reason="unreadable")


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a regular file. Raises `OSError`."""
    # Non-blocking, because opening a named pipe would wait for its writer.
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise OSError(0, "not a regular file")
        if info.st_size > MAX_FILE_BYTES:
            raise OSError(0, f"larger than {MAX_FILE_BYTES >> 20} MiB")
        return file.read()


def try_load(image: Source, key: object = None) -> Buffer | ImageError:
    try:
        return load(image, key)
    except ImageError as error:
        return error


def load_all(given: Iterable[Image]) -> list[Buffer | ImageError] | Future[Any]:
    """The result of `try_load` for each image, or a future of that list if there are files to read.

    Raises a `TypeError` for an item that is not an image.
    """
    images = list(given)
    for image in images:
        if not isinstance(image, KINDS):
            raise TypeError(advice(image))
    if all(isinstance(image, Buffer) for image in images):
        return [try_load(image) for image in images]
    # On a thread, because a file on a network disk may block forever and the call has a deadline.
    future: Future[Any] = Future()

    def read() -> None:
        try:
            future.set_result([try_load(image) for image in images])
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=read, daemon=True, name="featurewire-read").start()
    return future
