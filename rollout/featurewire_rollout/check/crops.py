"""Crops and thumbnails of images, made on the machine that checks. They need Pillow."""

from __future__ import annotations

import base64
import importlib.util
import io
import random
import zlib

JPEG_QUALITY = 95
SIDE_FRACTIONS = (0.7, 0.9)
"""Of each side, the least and the most that a crop keeps: half to four fifths of the picture."""
EXIF_ORIENTATION = 0x0112
EXIF_TURN_RIGHT = 6
"""The EXIF orientation of a picture that is stored turned to the left."""
THUMBNAIL_PIXELS = 168

NEEDS_PILLOW = (
    "crops need Pillow on the machine that checks: pip install 'featurewire-rollout[images]'"
)


def available() -> bool:
    """Whether Pillow is installed."""
    return importlib.util.find_spec("PIL") is not None


def crop(image: bytes, *, seed: int, turned: bool) -> bytes | None:
    """A JPEG of part of the picture; None where Pillow cannot read it.

    The same bytes and seed give the same crop. `turned`: stored on its side with an EXIF tag that
    says so, as telephones store it, so that a version that ignores the tag is found out even
    where no image has one.
    """
    from PIL import Image, ImageOps

    chance = random.Random(zlib.crc32(image) + seed)
    try:
        with Image.open(io.BytesIO(image)) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    width, height = (max(1, round(side * chance.uniform(*SIDE_FRACTIONS))) for side in picture.size)
    left = round(chance.random() * (picture.width - width))
    top = round(chance.random() * (picture.height - height))
    part = picture.crop((left, top, left + width, top + height))
    exif = Image.Exif()
    if turned:
        part = part.transpose(Image.Transpose.ROTATE_90)
        exif[EXIF_ORIENTATION] = EXIF_TURN_RIGHT
    file = io.BytesIO()
    part.save(file, "JPEG", quality=JPEG_QUALITY, exif=exif.tobytes())
    return file.getvalue()


def thumbnail(image: bytes) -> str | None:
    """The picture, small and upright, as a `data:` URI; None where Pillow cannot read it."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(image)) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    picture.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
