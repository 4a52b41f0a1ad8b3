"""What counts as an image, and what to say of what does not."""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["KINDS", "Buffer", "Image", "Source", "advice"]

Buffer = bytes | bytearray | memoryview
Image = Buffer | os.PathLike[str]
Source = Image | Callable[[], Buffer]
"""An image of a stream: also a function that gets its bytes."""
KINDS = (bytes, bytearray, memoryview, os.PathLike)
"""What an `Image` is an instance of."""

_EXPECTED = "an image is bytes, bytearray, memoryview or a pathlib.Path of a file"


def advice(image: object) -> str:
    """What to do with what is no image."""
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


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
