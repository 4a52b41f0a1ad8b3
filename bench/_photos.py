"""Photos for benchmarks: a folder's images, at any size, as JPEG."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageOps

SAMPLES = Path(__file__).resolve().parent.parent / "samples" / "photos"
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"}


def photos(directory: Path) -> Iterator[tuple[str, Image.Image]]:
    """(name, upright RGB picture) for each image in a folder, sorted by name."""
    for path in sorted(directory.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            with Image.open(path) as image:
                yield path.stem, ImageOps.exif_transpose(image).convert("RGB")


def resized(picture: Image.Image, width: int, height: int) -> Image.Image:
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def covering(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of the picture, scaled to fill these sides."""
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)


def of_pixels(picture: Image.Image, pixels: float) -> Image.Image:
    """The picture scaled to about this many pixels, with its aspect ratio."""
    scale = (pixels / (picture.width * picture.height)) ** 0.5
    return resized(picture, round(picture.width * scale), round(picture.height * scale))


def jpeg(picture: Image.Image, quality: int = 90, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, **options)
    return file.getvalue()
