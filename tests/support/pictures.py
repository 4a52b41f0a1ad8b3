"""Hundreds of pictures for tests."""

from __future__ import annotations

import io
import random
from pathlib import Path

STAMPS = Path("/usr/share/tuxpaint/stamps")
"""The folder tree of Debian's `tuxpaint-stamps-default`, with about 800 pictures."""
NO_STAMPS = "Debian's tuxpaint-stamps-default is not installed"


def stamps() -> list[Path]:
    """The pictures of Debian's `tuxpaint-stamps-default`, by name; empty without the package."""
    return sorted(STAMPS.rglob("*.png"))


def on_white(path: Path) -> bytes:
    """A picture as a JPEG, with white in place of transparency."""
    from PIL import Image

    with Image.open(path) as opened:
        picture = opened.convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    return _jpeg(Image.alpha_composite(ground, picture).convert("RGB"))


def write_tiles(
    photos: list[Path], folder: Path, count: int, *, sides: tuple[float, float] = (0.25, 0.5)
) -> Path:
    """Write `count` JPEGs to `folder`: crops of the photos with different places and sizes.

    `sides`: smallest and largest size of a crop, as a fraction of the photo's shorter side.
    """
    from PIL import Image

    chance = random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [Image.open(path).convert("RGB") for path in photos]
    for number in range(count):
        picture = pictures[number % len(pictures)]
        side = round(min(picture.size) * chance.uniform(*sides))
        left = round(chance.random() * (picture.width - side))
        top = round(chance.random() * (picture.height - side))
        part = picture.crop((left, top, left + side, top + side))
        (folder / f"{number:04}.jpg").write_bytes(_jpeg(part))
    return folder


def _jpeg(picture: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95)  # type: ignore[attr-defined]
    return file.getvalue()
