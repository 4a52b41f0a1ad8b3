"""Crops and thumbnails of images, made by Pillow on the machine that runs the check."""

from __future__ import annotations

import base64
import importlib.util
import io
import random
import zlib

JPEG_QUALITY = 95
SIDE_FRACTIONS = (0.7, 0.9)
"""Range of the fraction of each side that a crop keeps: half to four fifths of the area."""
EXIF_ORIENTATION = 0x0112
EXIF_TURN_RIGHT = 6
"""EXIF orientation of a picture that is stored rotated to the left."""
THUMBNAIL_PIXELS = 168
"""Longest side of a thumbnail."""

NEEDS_PILLOW = (
    "crops need Pillow on the machine that checks: pip install 'featurewire-rollout[images]'"
)


def available() -> bool:
    """Whether Pillow is installed."""
    return importlib.util.find_spec("PIL") is not None


def crop(image: bytes, *, seed: int, turned: bool) -> bytes | None:
    """A JPEG of part of the picture; None if Pillow cannot read the image.

    The same bytes and seed give the same crop. If `turned`, the crop is stored rotated, with an
    EXIF tag, as phones do. This reveals a version that ignores the tag, even if no image has one.
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
    """The picture, small and upright, as a `data:` URI; None if Pillow cannot read the image."""
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
